// mj:template attention_bwd_sm80
// mj:doc Gradients of windowed causal attention through mma.sync: delta, then dq by tiles of queries, then dk and dv by keys.
// mj:family sm_80
// mj:kernel attention_bwd_delta_sm80
// mj:kernel attention_bwd_dq_sm80
// mj:kernel attention_bwd_dkv_sm80
// mj:args MjAttentionBwdArgs
// mj:param TOKENS varying min:1
// mj:param HEADS fixed min:1
// mj:param HEAD_DIM variant values:64,128
// mj:param WINDOW fixed min:1
// mj:param WARPS tuning default:8 values:4,8

#include "attention_delta.cuh"
#include "attention_mma.cuh"

/* The probabilities are computed again from lse, in each of the two passes; nothing is added atomically:
 *   p = exp(scale q.k - lse), dp = dout.v, ds = p (scale dp - scale delta), dq = sum ds k, dk = sum ds q, dv = sum p dout.
 * Shared memory: two tiles of the block's own rows (ROWS, D), then two stages of two tiles (STEP, D) that stream by, then
 * for dk and dv the stages' lse, delta and low. */
#define STEP MJ_ATTENTION_MMA_STEP
#define FRAGS (STEP / 8)
#define OWN_BYTES (ROWS * MJ_ROW_BYTES)
#define TILE_BYTES (STEP * MJ_ROW_BYTES)

MJ_KERNEL_BOUNDS(attention_bwd_delta_sm80, MjAttentionBwdArgs, MJ_ATTENTION_DELTA_THREADS, 1) { mj_attention_delta(args, mj_block); }

/* What both passes set up. */
struct MjAttentionBwd {
    MjHeadRows q, k, v, dout;
    int64_t row, column, vector; /* elements of a token; the head's first column, its first value of lse and delta */
    uint32_t tile, stages;
    int32_t own; /* this warp's first row */
    float c;        /* scale * log2(e) */
};
MJ_FN MjAttentionBwd mj_attention_bwd_init(const MjAttentionBwdArgs *args, int32_t head, int32_t i0, void *shared)
{
    MjAttentionBwd w;
    w.row = (int64_t)HEADS * HEAD_DIM;
    w.column = (int64_t)head * HEAD_DIM;
    w.vector = (int64_t)head * TOKENS;
    w.q = {args->q + w.column, w.row};
    w.k = {args->k + w.column, w.row};
    w.v = {args->qkv + 2 * w.row + w.column, 3 * w.row};
    w.dout = {args->dout + w.column, w.row};
    w.tile = mj_ptx_shared(shared);
    w.stages = w.tile + 2 * OWN_BYTES;
    w.own = i0 + 16 * MJ_WARP_INDEX;
    w.c = args->scale * MJ_LOG2E;
    return w;
}

template <int FRAGS_> MJ_FN void mj_zero(float (&x)[FRAGS_][4])
{
#pragma unroll
    for (int f = 0; f < FRAGS_; f++)
        for (int i = 0; i < 4; i++) x[f][i] = 0.0f;
}

/* The warp's 16 rows of dq, dk or dv (part 0, 1 or 2 of dqkv). A row's four lanes write 16 bytes at a time; shuffles for
 * whole sectors of memory cost 270 instructions a kernel, for nvrtc does not see that the lanes are together. */
MJ_FN void mj_store_rows(const MjAttentionBwdArgs *args, const MjAttentionBwd &w, int32_t part, const float (&x)[MJ_DIM_FRAGS][4])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int32_t n = w.own + MJ_LANE / 4 + 8 * h;
        if (n >= TOKENS) continue;
        uint16_t *out = args->dqkv + (n * (int64_t)3 + part) * w.row + w.column + MJ_LANE % 4 * 2;
#pragma unroll
        for (int f = 0; f < MJ_DIM_FRAGS; f++) *(mj_u32 *)(out + 8 * f) = mj_ptx_cvt_bf16x2(x[f][2 * h], x[f][2 * h + 1]);
    }
}

MJ_KERNEL_BOUNDS(attention_bwd_dq_sm80, MjAttentionBwdArgs, THREADS, 1)
{
    const int32_t tiles = (TOKENS + ROWS - 1) / ROWS, i0 = (tiles - 1 - (int32_t)mj_block / HEADS) * ROWS;
    const MjAttentionBwd w = mj_attention_bwd_init(args, (int32_t)mj_block % HEADS, i0, mj_shared);
    const int32_t last = i0 + ROWS < TOKENS ? i0 + ROWS - 1 : TOKENS - 1;
    int32_t j0 = mj_attention_low(args->pos, WINDOW, i0) / STEP * STEP;
    mj_tile_load(w.tile, w.q, i0, ROWS, TOKENS);
    mj_tile_load(w.tile + OWN_BYTES, w.dout, i0, ROWS, TOKENS);
    mj_tile_load(w.stages, w.k, j0, STEP, TOKENS);
    mj_tile_load(w.stages + TILE_BYTES, w.v, j0, STEP, TOKENS);
    mj_ptx_cp_async_commit();

    int32_t row[2], low[2];
    float shift[2], delta[2], dq[MJ_DIM_FRAGS][4];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        row[h] = w.own + MJ_LANE / 4 + 8 * h;
        const int32_t n = row[h] < TOKENS ? row[h] : TOKENS - 1;
        low[h] = mj_attention_low(args->pos, WINDOW, n);
        shift[h] = -args->lse[w.vector + n] * MJ_LOG2E;
        delta[h] = -args->delta[w.vector + n] * args->scale;
    }
    const int32_t least = __shfl_sync(0xffffffffu, low[0], 0), most = __shfl_sync(0xffffffffu, low[1], 31);
    mj_zero(dq);
    uint32_t stage = w.stages;
    for (; j0 <= last; j0 += STEP) {
        mj_ptx_cp_async_wait<0>();
        __syncthreads();
        const uint32_t next = w.stages + (stage == w.stages ? 2 * TILE_BYTES : 0);
        if (j0 + STEP <= last) {
            mj_tile_load(next, w.k, j0 + STEP, STEP, TOKENS);
            mj_tile_load(next + TILE_BYTES, w.v, j0 + STEP, STEP, TOKENS);
        }
        mj_ptx_cp_async_commit();
        if (j0 < w.own + 16 && j0 + STEP > least) {
            const bool masked = j0 < most || j0 + STEP - 1 > w.own;
            float s[FRAGS][4], dp[FRAGS][4];
            mj_mma_rows<FRAGS>(s, w.tile, 16 * MJ_WARP_INDEX, stage, 0);
            mj_mma_rows<FRAGS>(dp, w.tile + OWN_BYTES, 16 * MJ_WARP_INDEX, stage + TILE_BYTES, 0);
#pragma unroll
            for (int f = 0; f < FRAGS; f++)
                for (int i = 0; i < 4; i++) {
                    const int32_t j = j0 + 8 * f + MJ_LANE % 4 * 2 + i % 2;
                    const float ds = mj_ptx_ex2(mj_fmaf(s[f][i], w.c, shift[i / 2])) * mj_fmaf(dp[f][i], args->scale, delta[i / 2]);
                    s[f][i] = masked & ((j > row[i / 2]) | (j < low[i / 2])) ? 0.0f : ds;
                }
            mj_mma_columns<FRAGS>(dq, s, stage, 0);
        }
        stage = next;
    }
    mj_store_rows(args, w, 0, dq);
}

/* -lse * log2(e), -delta * scale and low of a stage's queries, (3, STEP) words; queries from TOKENS on see nothing. */
MJ_FN void mj_load_vectors(const MjAttentionBwdArgs *args, const MjAttentionBwd &w, float *to, int32_t q0)
{
    const int32_t t = (int32_t)threadIdx.x;
    if (t >= STEP) return;
    const int32_t n = q0 + t, at = n < TOKENS ? n : TOKENS - 1;
    to[t] = -args->lse[w.vector + at] * MJ_LOG2E;
    to[STEP + t] = -args->delta[w.vector + at] * args->scale;
    ((int32_t *)to)[2 * STEP + t] = n < TOKENS ? mj_attention_low(args->pos, WINDOW, at) : MJ_NO_KEY;
}

/* Rows of the products are keys, columns queries. */
MJ_KERNEL_BOUNDS(attention_bwd_dkv_sm80, MjAttentionBwdArgs, THREADS, 1)
{
    const int32_t i0 = (int32_t)mj_block / HEADS * ROWS; /* the first keys are seen by the most queries */
    const MjAttentionBwd w = mj_attention_bwd_init(args, (int32_t)mj_block % HEADS, i0, mj_shared);
    float *vectors = (float *)((uint8_t *)mj_shared + 2 * OWN_BYTES + 4 * TILE_BYTES), *vector = vectors;
    mj_tile_load(w.tile, w.k, i0, ROWS, TOKENS);
    mj_tile_load(w.tile + OWN_BYTES, w.v, i0, ROWS, TOKENS);
    mj_tile_load(w.stages, w.q, i0, STEP, TOKENS);
    mj_tile_load(w.stages + TILE_BYTES, w.dout, i0, STEP, TOKENS);
    mj_ptx_cp_async_commit();
    mj_load_vectors(args, w, vector, i0);
    const int32_t last = i0 + ROWS < TOKENS ? i0 + ROWS - 1 : TOKENS - 1;
    const int32_t reach = TOKENS - last > WINDOW ? last + WINDOW : TOKENS;
    const int32_t end = mj_attention_end(args->pos, WINDOW, last, reach, last);

    float dk[MJ_DIM_FRAGS][4], dv[MJ_DIM_FRAGS][4];
    mj_zero(dk);
    mj_zero(dv);
    uint32_t stage = w.stages;
    for (int32_t q0 = i0; q0 < end; q0 += STEP) {
        mj_ptx_cp_async_wait<0>();
        __syncthreads();
        const bool other = stage == w.stages;
        const uint32_t next = w.stages + (other ? 2 * TILE_BYTES : 0);
        float *next_vector = vectors + (other ? 3 * STEP : 0);
        if (q0 + STEP < end) {
            mj_tile_load(next, w.q, q0 + STEP, STEP, TOKENS);
            mj_tile_load(next + TILE_BYTES, w.dout, q0 + STEP, STEP, TOKENS);
            mj_load_vectors(args, w, next_vector, q0 + STEP);
        }
        mj_ptx_cp_async_commit();
        const int32_t *low = (const int32_t *)vector + 2 * STEP;
        if (q0 + STEP > w.own && low[0] < w.own + 16) {
            const bool masked = q0 < w.own + 15 || low[STEP - 1] > w.own;
            float s[FRAGS][4], dp[FRAGS][4];
            mj_mma_rows<FRAGS>(s, w.tile, 16 * MJ_WARP_INDEX, stage, 0);
            mj_mma_rows<FRAGS>(dp, w.tile + OWN_BYTES, 16 * MJ_WARP_INDEX, stage + TILE_BYTES, 0);
#pragma unroll
            for (int f = 0; f < FRAGS; f++)
                for (int i = 0; i < 4; i++) {
                    const int32_t column = 8 * f + MJ_LANE % 4 * 2 + i % 2, key = w.own + MJ_LANE / 4 + i / 2 * 8;
                    const bool hidden = masked & ((q0 + column < key) | (low[column] > key));
                    s[f][i] = hidden ? 0.0f : mj_ptx_ex2(mj_fmaf(s[f][i], w.c, vector[column]));
                    dp[f][i] = s[f][i] * mj_fmaf(dp[f][i], args->scale, vector[STEP + column]);
                }
            mj_mma_columns<FRAGS>(dv, s, stage + TILE_BYTES, 0);
            mj_mma_columns<FRAGS>(dk, dp, stage, 0);
        }
        stage = next;
        vector = next_vector;
    }
    mj_store_rows(args, w, 1, dk);
    mj_store_rows(args, w, 2, dv);
}
