// mj:template add_pieces
// mj:doc y += the sum of P arrays, added to each other in turn: the pieces of a product over many rows.
// mj:family cpu cuda
// mj:kernel add_pieces
// mj:args MjAddPiecesArgs

MJ_KERNEL(add_pieces, MjAddPiecesArgs)
{
    MJ_FOR_ROWS(t, (args->count + MJ_CHUNK - 1) / MJ_CHUNK) {
        const int64_t at = (int64_t)t * MJ_CHUNK;
        const int32_t left = args->count - at < MJ_CHUNK ? (int32_t)(args->count - at) : MJ_CHUNK;
        MjLanes sum, y;
        mj_load_f32(&sum, args->x + at, left);
        mj_load_f32(&y, args->y + at, left);
        MJ_UNROLL_BY(8) for (int32_t p = 1; p < args->pieces; p++) {
            MjLanes x;
            mj_load_f32(&x, args->x + (int64_t)p * args->count + at, left);
            MJ_FOR_LANES(l) sum.v[l] += x.v[l];
        }
        MJ_FOR_LANES(l) y.v[l] += sum.v[l];
        mj_store_f32(args->y + at, &y, left);
    }
}
