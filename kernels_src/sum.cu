// mj:template sum
// mj:doc Sum, or sum of squares, in a fixed order: f32 lanes over chunks of 4096, the chunks in f64.
// mj:family cpu cuda
// mj:kernel sum_partial
// mj:kernel sum_total
// mj:args MjSumArgs

#define SUM_CHUNK 4096
#define SUM_LANES 256 /* chunk t is added to lane t % 256, each lane's in order; then halves of the lanes */

MJ_FN void add(MjLanes *acc, const float *x, int32_t left, int32_t square)
{
    MjLanes v;
    mj_load_f32(&v, x, left);
    if (square) {
        MJ_FOR_LANES(l) acc->v[l] = mj_fmaf(v.v[l], v.v[l], acc->v[l]);
    } else {
        MJ_FOR_LANES(l) acc->v[l] += v.v[l];
    }
}

MJ_KERNEL(sum_partial, MjSumArgs)
{
    const bool aligned = ((uintptr_t)args->x & 15) == 0;
    MJ_FOR_ROWS(t, (args->n + SUM_CHUNK - 1) / SUM_CHUNK) {
        const int64_t first = (int64_t)t * SUM_CHUNK;
        const int32_t n = args->n - first < SUM_CHUNK ? (int32_t)(args->n - first) : SUM_CHUNK;
        const float *x = args->x + first;
        MjLanes acc = mj_lanes_zero();
        if (n == SUM_CHUNK && aligned) {
            MJ_UNROLL_BY(8) MJ_FOR_CHUNKS(c, SUM_CHUNK) add(&acc, x + c, MJ_WHOLE, args->square);
        } else {
            MJ_FOR_CHUNKS(c, n) add(&acc, x + c, n - c, args->square);
        }
        const float sum = mj_lanes_sum(&acc);
        if (MJ_WARP_LEADER) args->partial[t] = (double)sum;
    }
}

MJ_KERNEL(sum_total, MjSumArgs)
{
    if (mj_block != 0) return;
    const int64_t chunks = (args->n + SUM_CHUNK - 1) / SUM_CHUNK;
    double *lane = (double *)mj_shared;
    MJ_FOR_THREADS(l, SUM_LANES) {
        double total = 0.0;
        MJ_UNROLL_BY(8) for (int64_t t = l; t < chunks; t += SUM_LANES) total += args->partial[t];
        lane[l] = total;
    }
    for (int32_t half = SUM_LANES / 2; half > 0; half /= 2) {
        mj_barrier();
        MJ_FOR_THREADS(l, half) lane[l] += lane[l + half];
    }
    mj_barrier();
    if (MJ_BLOCK_LEADER) args->out[0] = args->accumulate ? args->out[0] + lane[0] : lane[0];
}
