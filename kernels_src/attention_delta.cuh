/* delta, the first step of attention's backward pass. */
#ifndef MJ_ATTENTION_DELTA_CUH
#define MJ_ATTENTION_DELTA_CUH

#include "attention_tile.h"

/* delta(H, N) = out . dout of each row of (N, H, D); HEAD_DIM / 8 lanes a row, a row once. */
MJ_FN void mj_attention_delta(const MjAttentionBwdArgs *args, uint32_t block)
{
    const int32_t lanes = HEAD_DIM / 8, each = MJ_ATTENTION_DELTA_THREADS / lanes;
    const int64_t rows = (int64_t)HEADS * TOKENS, row = (int64_t)block * each + threadIdx.x / lanes;
    const int64_t head = row / TOKENS, n = row % TOKENS;
    float sum = 0.0f;
    if (row < rows) {
        const int64_t at = (n * HEADS + head) * HEAD_DIM + threadIdx.x % lanes * 8;
        const uint4 x = *(const uint4 *)(args->out + at), y = *(const uint4 *)(args->dout + at);
        const uint32_t a[4] = {x.x, x.y, x.z, x.w}, b[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum = mj_fmaf(mj_bits_f32(a[i] << 16), mj_bits_f32(b[i] << 16), sum);
            sum = mj_fmaf(mj_bits_f32(a[i] & 0xffff0000u), mj_bits_f32(b[i] & 0xffff0000u), sum);
        }
    }
#pragma unroll
    for (int mask = lanes / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    if (row < rows && threadIdx.x % lanes == 0) args->delta[row] = sum;
}

#endif
