// mj:template attention_fwd_sm80
// mj:doc Causal attention over packed sequences with a window, through mma.sync; online softmax, a warp for 16 queries.
// mj:family sm_80
// mj:kernel attention_fwd_sm80
// mj:args MjAttentionFwdArgs
// mj:param TOKENS varying min:1
// mj:param HEADS fixed min:1
// mj:param HEAD_DIM variant values:64,128
// mj:param WINDOW fixed min:1
// mj:param WARPS tuning default:8 values:4,8

#include "attention_mma.cuh"

/* Shared memory: Q (ROWS, D), then two stages of K and V (KEYS, D). */
#define KEYS MJ_ATTENTION_MMA_KEYS
#define FRAGS (KEYS / 8)
#define TILE_BYTES (KEYS * MJ_ROW_BYTES)
#define MJ_NO_SCORE (-1e30f) /* a row's largest score before the first; finite, so that differences are */

/* The running state of this thread's two rows, r = MJ_LANE / 4 and r + 8 of the warp's 16. */
struct MjSoftmax {
    float most[2], sum[2]; /* sum: of this thread's columns */
    int32_t row[2], low[2];
};

/* Scores of keys j0 .. j0 + KEYS - 1 to weights in place; c = scale * log2(e). */
MJ_FN void mj_softmax_tile(MjSoftmax &st, float (&s)[FRAGS][4], float (&o)[MJ_DIM_FRAGS][4], int32_t j0, float c, bool masked)
{
    if (masked) {
#pragma unroll
        for (int f = 0; f < FRAGS; f++)
            for (int i = 0; i < 4; i++) {
                const int32_t j = j0 + 8 * f + MJ_LANE % 4 * 2 + i % 2;
                if (j > st.row[i / 2] || j < st.low[i / 2]) s[f][i] = mj_bits_f32(0xff800000u);
            }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float most = st.most[h];
#pragma unroll
        for (int f = 0; f < FRAGS; f++) most = fmaxf(most, fmaxf(s[f][2 * h], s[f][2 * h + 1]));
        most = mj_quad_max(most);
        const float alpha = mj_ptx_ex2((st.most[h] - most) * c), shift = -most * c;
        float sum = st.sum[h] * alpha;
        st.most[h] = most;
#pragma unroll
        for (int f = 0; f < FRAGS; f++)
            for (int i = 2 * h; i < 2 * h + 2; i++) {
                s[f][i] = mj_ptx_ex2(mj_fmaf(s[f][i], c, shift));
                sum += s[f][i];
            }
        st.sum[h] = sum;
#pragma unroll
        for (int f = 0; f < MJ_DIM_FRAGS; f++) {
            o[f][2 * h] *= alpha;
            o[f][2 * h + 1] *= alpha;
        }
    }
}

MJ_FN void mj_scores(float (&s)[FRAGS][4], const mj_u32 (&q)[HEAD_DIM / 16][4], uint32_t key)
{
#pragma unroll
    for (int f = 0; f < FRAGS; f++)
        for (int i = 0; i < 4; i++) s[f][i] = 0.0f;
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++)
#pragma unroll
        for (int f = 0; f < FRAGS; f += 2) {
            mj_u32 b[4];
            mj_ptx_ldmatrix_x4(b, mj_frag_b(key, 8 * f, k));
            mj_mma_pair(s[f], s[f + 1], q[k], b);
        }
}

MJ_KERNEL_BOUNDS(attention_fwd_sm80, MjAttentionFwdArgs, THREADS, 1)
{
    /* The latest queries see the most keys in a causal sequence, so their blocks start first. */
    const int32_t tiles = (TOKENS + ROWS - 1) / ROWS, head = (int32_t)mj_block % HEADS;
    const int32_t i0 = (tiles - 1 - (int32_t)mj_block / HEADS) * ROWS;
    const int32_t last = i0 + ROWS < TOKENS ? i0 + ROWS - 1 : TOKENS - 1, own = i0 + 16 * MJ_WARP_INDEX;
    const int64_t row = (int64_t)HEADS * HEAD_DIM, column = (int64_t)head * HEAD_DIM;
    const MjHeadRows q = {args->q + column, row}, k = {args->k + column, row}, v = {args->qkv + 2 * row + column, 3 * row};
    const uint32_t query = mj_ptx_shared(mj_shared), stages = query + ROWS * MJ_ROW_BYTES;
    const float c = args->scale * MJ_LOG2E;

    int32_t j0 = mj_attention_low(args->pos, WINDOW, i0) / KEYS * KEYS;
    mj_tile_load(query, q, i0, ROWS, TOKENS);
    mj_tile_load(stages, k, j0, KEYS, TOKENS);
    mj_tile_load(stages + TILE_BYTES, v, j0, KEYS, TOKENS);
    mj_ptx_cp_async_commit();

    MjSoftmax st;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        st.row[h] = own + MJ_LANE / 4 + 8 * h;
        st.low[h] = mj_attention_low(args->pos, WINDOW, st.row[h] < TOKENS ? st.row[h] : TOKENS - 1);
        st.most[h] = MJ_NO_SCORE;
        st.sum[h] = 0.0f;
    }
    /* The warp's range: keys before `least` no row of it sees, from `least` to `own` on all of them see. */
    const int32_t least = __shfl_sync(0xffffffffu, st.low[0], 0), most = __shfl_sync(0xffffffffu, st.low[1], 31);
    float o[MJ_DIM_FRAGS][4];
#pragma unroll
    for (int f = 0; f < MJ_DIM_FRAGS; f++)
        for (int i = 0; i < 4; i++) o[f][i] = 0.0f;
    mj_ptx_cp_async_wait<0>();
    __syncthreads();
    mj_u32 qf[HEAD_DIM / 16][4];
#pragma unroll
    for (int d = 0; d < HEAD_DIM / 16; d++) mj_ptx_ldmatrix_x4(qf[d], mj_frag_a(query, 16 * MJ_WARP_INDEX, d));

    uint32_t stage = stages;
    for (; j0 <= last; j0 += KEYS) {
        mj_ptx_cp_async_wait<0>();
        __syncthreads(); /* this tile has come, and all are done with the one before, where the next one goes */
        const uint32_t next = stages + (stage == stages ? 2 * TILE_BYTES : 0);
        if (j0 + KEYS <= last) {
            mj_tile_load(next, k, j0 + KEYS, KEYS, TOKENS);
            mj_tile_load(next + TILE_BYTES, v, j0 + KEYS, KEYS, TOKENS);
        }
        mj_ptx_cp_async_commit();
        if (j0 < own + 16 && j0 + KEYS > least) {
            float s[FRAGS][4];
            mj_scores(s, qf, stage);
            mj_softmax_tile(st, s, o, j0, c, j0 < most || j0 + KEYS - 1 > own);
            mj_mma_columns<FRAGS>(o, s, stage + TILE_BYTES, 0);
        }
        stage = next;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float sum = mj_quad_sum(st.sum[h]), inverse = 1.0f / sum;
        if (st.row[h] >= TOKENS) continue;
        uint16_t *out = args->out + st.row[h] * row + column + MJ_LANE % 4 * 2;
#pragma unroll
        for (int f = 0; f < MJ_DIM_FRAGS; f++)
            *(uint32_t *)(out + 8 * f) = mj_ptx_cvt_bf16x2(o[f][2 * h] * inverse, o[f][2 * h + 1] * inverse);
        if (MJ_LANE % 4 == 0)
            args->lse[(int64_t)head * TOKENS + st.row[h]] = (st.most[h] * c + mj_ptx_lg2(sum)) * MJ_LN2;
    }
}
