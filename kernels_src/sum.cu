// mj:template sum
// mj:doc Sum, or sum of squares, in a fixed order: f32 lanes over chunks of 4096, the chunks in f64 ascending.
// mj:family cpu cuda
// mj:kernel sum_partial
// mj:kernel sum_total
// mj:args MjSumArgs

#define SUM_CHUNK 4096

MJ_KERNEL(sum_partial, MjSumArgs)
{
    MJ_FOR_ROWS(t, (args->n + SUM_CHUNK - 1) / SUM_CHUNK) {
        const int64_t first = (int64_t)t * SUM_CHUNK;
        const int32_t n = args->n - first < SUM_CHUNK ? (int32_t)(args->n - first) : SUM_CHUNK;
        MjLanes acc = mj_lanes_zero();
        MJ_FOR_CHUNKS(c, n) {
            MjLanes x;
            mj_load_f32(&x, args->x + first + c, n - c);
            if (args->square) {
                MJ_FOR_LANES(l) acc.v[l] = mj_fmaf(x.v[l], x.v[l], acc.v[l]);
            } else {
                MJ_FOR_LANES(l) acc.v[l] += x.v[l];
            }
        }
        const float sum = mj_lanes_sum(&acc);
        if (MJ_WARP_LEADER) args->partial[t] = (double)sum;
    }
}

MJ_KERNEL(sum_total, MjSumArgs)
{
    if (mj_block != 0 || !MJ_BLOCK_LEADER) return;
    const int64_t chunks = (args->n + SUM_CHUNK - 1) / SUM_CHUNK;
    double total = 0.0;
    for (int64_t t = 0; t < chunks; t++) total += args->partial[t];
    args->out[0] = args->accumulate ? args->out[0] + total : total;
}
