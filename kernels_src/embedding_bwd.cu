// mj:template embedding_bwd
// mj:doc Gradient of the embedding table: dtable[v] += sum of dout[n] over the tokens n of v, in order of n.
// mj:family cpu cuda
// mj:kernel embedding_bwd
// mj:args MjEmbeddingBwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOKENS varying min:1

/* An item owns 128 columns of the table rows v with v % PARTS = part, and walks all tokens in order: no two items write
 * the same number, so there is no atomic and the order of every sum is that of the tokens. */
#define PARTS 64

MJ_KERNEL(embedding_bwd, MjEmbeddingBwdArgs)
{
    const int32_t strips = (WIDTH + MJ_CHUNK - 1) / MJ_CHUNK;
    const int32_t live = args->live[0] < TOKENS ? args->live[0] : TOKENS;
    MJ_FOR_ROWS(item, strips * PARTS) {
        const int32_t c = item / PARTS * MJ_CHUNK;
        const int32_t part = item % PARTS;
        for (int32_t n0 = 0; n0 < live; n0 += 32) {
            uint32_t hits = MJ_WARP_MASK(i, n0 + i < live && args->token[n0 + i] % PARTS == part);
            for (; hits != 0; hits &= hits - 1) {
                const int32_t n = n0 + mj_lowest_bit(hits);
                float *sum_row = args->dtable + (int64_t)args->token[n] * WIDTH + c;
                MjLanes sum, d;
                mj_load_f32(&sum, sum_row, WIDTH - c);
                mj_load_f32(&d, args->dout + (int64_t)n * WIDTH + c, WIDTH - c);
                MJ_FOR_LANES(l) sum.v[l] += d.v[l];
                mj_store_f32(sum_row, &sum, WIDTH - c);
            }
        }
    }
}
