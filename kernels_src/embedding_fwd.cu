// mj:template embedding_fwd
// mj:doc Token embedding: out[n] = table[token[n]].
// mj:family cpu cuda
// mj:kernel embedding_fwd
// mj:args MjEmbeddingFwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOKENS varying min:1

MJ_KERNEL(embedding_fwd, MjEmbeddingFwdArgs)
{
    MJ_FOR_ROWS(n, TOKENS) {
        const float *row = args->table + (int64_t)args->token[n] * WIDTH;
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes x;
            mj_load_f32(&x, row + c, WIDTH - c);
            mj_store_f32(args->out + (int64_t)n * WIDTH + c, &x, WIDTH - c);
        }
    }
}
