// mj:template cross_entropy_sm80
// mj:doc Softcapped cross-entropy over a row of logits, in place: the logits become their own gradients.
// mj:family cuda
// mj:kernel cross_entropy_sm80
// mj:args MjCrossEntropyArgs
// mj:param VOCAB fixed min:1
// mj:param TOKENS varying min:1

/* With a cap, z = cap t, t = tanh(logit / cap) = 1 - 2 r, r = 1 / (E + 1), E = e^(2 logit / cap): then z - cap = -2 cap r,
 * and 1 - t^2 = 4 E r^2, both without cancellation.
 *
 * A block has a row: once for the sum of e^(z - top), once more, from the end back, for the gradients. A lane reads 8
 * columns at a time. An exponential is one of 16 instructions a clock of a multiprocessor, where others are 128: so two
 * quotients share an inverse, and every fourth e^(z - cap) is a polynomial. Which, the column decides.
 *
 * The order of a sum: a lane has four accumulators for the 8 columns of each of its unit's segments, added up as
 * (0 + 2) + (1 + 3); then the lanes by halves, then the units in order. */
#include "loss_tile.h"

#define LOG2E 1.44269504f
#define STRIDE (MJ_LOSS_UNITS * MJ_LOSS_SEGMENT) /* from a segment to the unit's next */
#define BATCH 2                                  /* segments that are read together for the second time */
#define WHOLE (VOCAB % MJ_LOSS_SEGMENT == 0)
#define FOR_UNITS(u) for (int32_t u = MJ_WARP_INDEX; u < MJ_LOSS_UNITS; u += MJ_WARPS)

struct MjCurve { /* exponents are of 2: logit * steep, then r * wide, or without a cap logit * steep - top */
    bool capped;
    float steep, wide, top;
};
struct MjWeights { /* of 8 columns: e^(z - top), and dz / dlogit without its factor 4 */
    float e[8], slope[8];
};

/* 2^t for t <= 0, as close as ex2.approx: 2 ulp; at least 2^-126 */
MJ_FN float pow2(float t)
{
    const float round = 12582912.0f, x = fmaxf(t, -126.0f), z = x + round, f = x - (z - round);
    float p = 0.00132647203f;
    p = mj_fmaf(p, f, 0.00967151299f);
    p = mj_fmaf(p, f, 0.0555073395f);
    p = mj_fmaf(p, f, 0.240222424f);
    p = mj_fmaf(p, f, 0.693147004f);
    p = mj_fmaf(p, f, 1.0f);
    return mj_bits_f32(mj_f32_bits(p) + (mj_f32_bits(z) << 23));
}

/* E, where it is so large that z is the cap in any case cut off at 2^57, so that a product of two has an inverse. */
MJ_FN float big(float logit, const MjCurve &c) { return mj_ptx_ex2(mj_ptx_min_nan(logit * c.steep, 57.0f)); }

MJ_FN void weigh(MjWeights &w, const mj_u32 (&q)[4], const MjCurve &c)
{
    float x[8];
    _Pragma("unroll") for (int32_t j = 0; j < 8; j++) x[j] = mj_bits_f32(j % 2 == 0 ? q[j / 2] << 16 : q[j / 2] & 0xffff0000u);
    if (!c.capped) {
        _Pragma("unroll") for (int32_t j = 0; j < 8; j++) {
            w.e[j] = mj_ptx_ex2(x[j] * c.steep - c.top);
            w.slope[j] = 0.25f;
        }
        return;
    }
    _Pragma("unroll") for (int32_t j = 0; j < 8; j += 2) {
        const float big0 = big(x[j], c), big1 = big(x[j + 1], c), d0 = big0 + 1.0f, d1 = big1 + 1.0f;
        const float both = mj_ptx_rcp(d0 * d1), r0 = both * d1, r1 = both * d0;
        w.e[j] = mj_ptx_ex2(r0 * c.wide);
        w.e[j + 1] = j % 4 == 0 ? mj_ptx_ex2(r1 * c.wide) : pow2(r1 * c.wide);
        w.slope[j] = big0 * r0 * r0;
        w.slope[j + 1] = big1 * r1 * r1;
    }
}

/* Columns first .. first + 7 of a row; zeros where there are none */
MJ_FN void load(const MjCrossEntropyArgs *args, const uint16_t *row, int32_t first, mj_u32 (&q)[4])
{
    if (WHOLE || (VOCAB % 8 == 0 && ((uintptr_t)args->logits & 15) == 0)) {
        const uint4 v = first < VOCAB ? *(const uint4 *)(row + first) : make_uint4(0, 0, 0, 0);
        q[0] = v.x, q[1] = v.y, q[2] = v.z, q[3] = v.w;
        return;
    }
    _Pragma("unroll") for (int32_t p = 0; p < 4; p++) {
        const int32_t i = first + 2 * p;
        q[p] = (i < VOCAB ? row[i] : 0u) | (i + 1 < VOCAB ? (mj_u32)row[i + 1] : 0u) << 16;
    }
}
MJ_FN void store(const MjCrossEntropyArgs *args, uint16_t *row, int32_t first, const mj_u32 (&q)[4])
{
    if (WHOLE || (VOCAB % 8 == 0 && ((uintptr_t)args->logits & 15) == 0)) {
        if (first < VOCAB) mj_ptx_st_cs_16(row + first, q);
        return;
    }
    _Pragma("unroll") for (int32_t p = 0; p < 4; p++) {
        const int32_t i = first + 2 * p;
        if (i < VOCAB) row[i] = (uint16_t)q[p];
        if (i + 1 < VOCAB) row[i + 1] = (uint16_t)(q[p] >> 16);
    }
}

/* Largest logit of the row, at least -3.4e38; NaN is passed over, and met again by the sum. */
MJ_FN float largest(const MjCrossEntropyArgs *args, const uint16_t *row, float *units)
{
    const int32_t used = args->vocab_used;
    FOR_UNITS(u) {
        float most = -3.4e38f;
        for (int32_t c = u * MJ_LOSS_SEGMENT; c < used; c += STRIDE) {
            const int32_t first = c + 8 * MJ_LANE;
            mj_u32 q[4];
            load(args, row, first, q);
            _Pragma("unroll") for (int32_t j = 0; j < 8; j++) {
                const float x = mj_bits_f32(j % 2 == 0 ? q[j / 2] << 16 : q[j / 2] & 0xffff0000u);
                if (first + j < used) most = fmaxf(most, x);
            }
        }
        for (int32_t by = 16; by > 0; by /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, by));
        if (MJ_WARP_LEADER) units[u] = most;
    }
    __syncthreads();
    float most = units[0];
    for (int32_t u = 1; u < MJ_LOSS_UNITS; u++) most = fmaxf(most, units[u]);
    return most;
}

/* What is past the last column in use weighs nothing. */
MJ_FN void cut(float (&x)[8], int32_t segment, int32_t first, int32_t used)
{
    if (segment + MJ_LOSS_SEGMENT <= used) return;
    _Pragma("unroll") for (int32_t j = 0; j < 8; j++) x[j] = first + j < used ? x[j] : 0.0f;
}

MJ_FN void add_segment(const mj_u32 (&q)[4], const MjCurve &curve, int32_t segment, int32_t used, float (&acc)[4])
{
    MjWeights w;
    weigh(w, q, curve);
    cut(w.e, segment, segment + 8 * MJ_LANE, used);
    _Pragma("unroll") for (int32_t j = 0; j < 8; j++) acc[j % 4] += w.e[j];
}

/* sum of e^(z - top) over the row; while a segment is weighed, the next one is on its way */
MJ_FN float sum_exp(const MjCrossEntropyArgs *args, const uint16_t *row, const MjCurve &curve, float *units)
{
    const int32_t used = args->vocab_used;
    FOR_UNITS(u) {
        float acc[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        mj_u32 even[4], odd[4];
        load(args, row, u * MJ_LOSS_SEGMENT + 8 * MJ_LANE, even);
        _Pragma("unroll 1") for (int32_t c = u * MJ_LOSS_SEGMENT; c < used; c += 2 * STRIDE) {
            load(args, row, c + STRIDE + 8 * MJ_LANE, odd);
            add_segment(even, curve, c, used, acc);
            load(args, row, c + 2 * STRIDE + 8 * MJ_LANE, even);
            add_segment(odd, curve, c + STRIDE, used, acc);
        }
        float sum = (acc[0] + acc[2]) + (acc[1] + acc[3]);
        for (int32_t by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
        if (MJ_WARP_LEADER) units[u] = sum;
    }
    __syncthreads();
    float sum = units[0];
    for (int32_t u = 1; u < MJ_LOSS_UNITS; u++) sum += units[u];
    return sum;
}

/* The target's gradient, whose column is the j-th of the lane's; its share is exactly 1 where nothing else is in the sum. */
MJ_FN float target_gradient(const MjWeights &w, int32_t j, float sum, float dscale)
{
    float e = 0.0f, slope = 0.0f;
    _Pragma("unroll") for (int32_t i = 0; i < 8; i++)
        if (i == j) e = w.e[i], slope = w.slope[i];
    return (e / sum - 1.0f) * dscale * (4.0f * slope);
}

/* The logits become their gradients. */
MJ_FN void write_gradient(const MjCrossEntropyArgs *args, uint16_t *row, const MjCurve &curve, float sum, int32_t target)
{
    const int32_t used = args->vocab_used;
    const float dscale = args->dscale[0], by = 4.0f / sum * dscale;
    FOR_UNITS(u) {
        const int32_t turns = (VOCAB - u * MJ_LOSS_SEGMENT + BATCH * STRIDE - 1) / (BATCH * STRIDE); /* < 1: no column is its own */
        _Pragma("unroll 1") for (int32_t turn = turns - 1; turn >= 0; turn--) { /* what was read last is nearest */
            const int32_t c = u * MJ_LOSS_SEGMENT + turn * (BATCH * STRIDE);
            mj_u32 q[BATCH][4];
            _Pragma("unroll") for (int32_t b = 0; b < BATCH; b++) load(args, row, c + b * STRIDE + 8 * MJ_LANE, q[b]);
            _Pragma("unroll") for (int32_t b = 0; b < BATCH; b++) {
                const int32_t first = c + b * STRIDE + 8 * MJ_LANE;
                MjWeights w;
                weigh(w, q[b], curve);
                const bool has_target = (uint32_t)(target - first) < 8;
                float at_target = 0.0f;
                if (has_target) at_target = target_gradient(w, target - first, sum, dscale);
                _Pragma("unroll") for (int32_t j = 0; j < 8; j++) w.e[j] = w.e[j] * by * w.slope[j];
                cut(w.e, c + b * STRIDE, first, used);
                _Pragma("unroll") for (int32_t p = 0; p < 4; p++) q[b][p] = mj_bf16_pair(w.e[2 * p], w.e[2 * p + 1]);
                store(args, row, first, q[b]);
                if (has_target) row[target] = mj_f32_to_bf16(at_target);
            }
        }
    }
}

MJ_FN void zero_row(const MjCrossEntropyArgs *args, uint16_t *row)
{
    const mj_u32 zeros[4] = {0, 0, 0, 0};
    for (int32_t first = 8 * (int32_t)threadIdx.x; first < VOCAB; first += 8 * (int32_t)blockDim.x) store(args, row, first, zeros);
}

MJ_KERNEL_BOUNDS(cross_entropy_sm80, MjCrossEntropyArgs, MJ_LOSS_THREADS, MJ_LOSS_RESIDENT)
{
    const float cap = args->softcap;
    float *units = (float *)mj_shared; /* (2 rows, sums and largest values, UNITS): the next row's while this one's are read */
    MjCurve curve = {cap > 0.0f, cap > 0.0f ? 2.0f * LOG2E / cap : LOG2E, -2.0f * LOG2E * cap, 0.0f};
    MJ_FOR_ITEMS(n, TOKENS) {
        uint16_t *row = args->logits + (int64_t)n * VOCAB;
        const int32_t target = args->target[n];
        if (target < 0) {
            if (MJ_BLOCK_LEADER) args->loss[n] = 0.0f;
            if (args->write_grad) zero_row(args, row);
            continue;
        }
        const float logit = mj_bf16_to_f32(row[target]);
        float below_top; /* top - z of the target */
        if (curve.capped) {
            below_top = 2.0f * cap * mj_inverse(big(logit, curve) + 1.0f);
        } else {
            const float top = largest(args, row, units + MJ_LOSS_UNITS);
            curve.top = top * LOG2E;
            below_top = top - logit;
        }
        const float sum = sum_exp(args, row, curve, units);
        if (MJ_BLOCK_LEADER) args->loss[n] = mj_logf(sum) + below_top;
        if (args->write_grad) write_gradient(args, row, curve, sum, target);
        units = (float *)mj_shared + (units == (float *)mj_shared ? 2 * MJ_LOSS_UNITS : 0);
    }
}
