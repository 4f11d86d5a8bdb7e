// mj:template attention_bwd_sm90
// mj:doc Gradients of windowed causal attention by TMA and wgmma: delta, then dq by tiles of queries, then dk and dv by keys.
// mj:family sm_90a
// mj:kernel attention_bwd_delta_sm90
// mj:kernel attention_bwd_dq_sm90
// mj:kernel attention_bwd_dkv_sm90
// mj:args MjAttentionBwdArgs
// mj:param TOKENS varying min:1
// mj:param HEADS fixed min:1
// mj:param HEAD_DIM variant values:64,128
// mj:param WINDOW fixed min:1

#include "attention_delta.cuh"
#include "attention_wgmma.cuh"

/* The probabilities are computed again from lse, in each of the two passes; nothing is added atomically:
 *   p = exp(scale q.k - lse), dp = dout.v, ds = p (dp - delta), dq = scale sum ds k, dk = scale sum ds q, dv = sum p dout.
 * An item is 128 rows of a head, 64 a warpgroup: queries for dq, keys for dk and dv. The other side streams by in steps of 64
 * rows. */
#define STEP MJ_ATTENTION_SM90_BWD_STEP
#define ROWS (2 * STEP)
#define STAGES MJ_ATTENTION_SM90_BWD_STAGES
#define NO_KEY 0x7fffffff

struct MjBackwardMaps { /* boxes of (64, 1, STEP) */
    MjTensorMap q, k, v, dout;
};

/* Addresses in shared memory. `own`: a pair of tiles (q, dout or k, v) for each warpgroup; a stage is a pair too. */
struct MjBackward {
    uint32_t own, stages, bars;
    float *vectors; /* (STAGES, 3, STEP): -lse * log2(e), delta, low */
    int32_t *end;   /* the item's last query + 1 */
    __device__ __forceinline__ uint32_t stage(int32_t slot) const { return stages + slot * 2 * MJ_TILE_BYTES(STEP); }
    __device__ __forceinline__ uint32_t own_full() const { return bars; }
    __device__ __forceinline__ uint32_t own_empty() const { return bars + 8; }
    __device__ __forceinline__ uint32_t full(int32_t slot) const { return bars + 16 + 16 * slot; }
    __device__ __forceinline__ uint32_t empty(int32_t slot) const { return bars + 24 + 16 * slot; }
};

#define MJ_TILES ((TOKENS + ROWS - 1) / ROWS)
#define MJ_ITEMS (MJ_TILES * HEADS)
#define MJ_PLACE(item) mj_place(item, MJ_TILES, HEADS, TOKENS)

MJ_FN MjBackward mj_backward_init(void)
{
    const uint32_t start = mj_ptx_shared(mj_dynamic_shared), base = (start + 1023u) & ~1023u;
    MjBackward m;
    m.own = base;
    m.stages = m.own + 4 * MJ_TILE_BYTES(STEP);
    const uint32_t vectors = m.stages + STAGES * 2 * MJ_TILE_BYTES(STEP);
    m.vectors = (float *)(mj_dynamic_shared + (vectors - start));
    m.bars = vectors + STAGES * 3 * 4 * STEP;
    m.end = (int32_t *)(mj_dynamic_shared + (m.bars - start) + 16 + 16 * STAGES);
    if (threadIdx.x == 0) {
        mj_ptx_mbar_init(m.own_full(), 1);
        mj_ptx_mbar_init(m.own_empty(), MJ_MATH_THREADS / 32);
        for (int s = 0; s < STAGES; s++) {
            mj_ptx_mbar_init(m.full(s), 1);
            mj_ptx_mbar_init(m.empty(s), MJ_MATH_THREADS / 32);
        }
        mj_ptx_fence_mbar_init();
    }
    __syncthreads();
    return m;
}

MJ_KERNEL_BOUNDS(attention_bwd_delta_sm90, MjAttentionBwdArgs, MJ_ATTENTION_DELTA_THREADS, 1) { mj_attention_delta(args, mj_block); }

/* One thread: both tiles of both warpgroups' rows. */
MJ_FN void mj_load_own(const MjBackward &m, const MjTensorMap *a, const MjTensorMap *b, int32_t head, int32_t row)
{
#pragma unroll
    for (int g = 0; g < 2; g++) {
        mj_tma_tile<STEP>(m.own + 2 * g * MJ_TILE_BYTES(STEP), a, m.own_full(), head, row + g * STEP);
        mj_tma_tile<STEP>(m.own + (2 * g + 1) * MJ_TILE_BYTES(STEP), b, m.own_full(), head, row + g * STEP);
    }
}

/* The warpgroup's rows row.. of (N, H, D) in f32, times `by`. */
MJ_FN void mj_store_rows(float *to, int32_t row, int32_t head, const float (&x)[HEAD_DIM / 2], float by, int32_t end, int32_t heads)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int32_t n = row + MJ_WARP_INDEX % 4 * 16 + MJ_LANE / 4 + 8 * h;
        if (n >= end) continue;
        float *out = to + ((int64_t)n * heads + head) * HEAD_DIM + MJ_LANE % 4 * 2;
#pragma unroll
        for (int f = 0; f < HEAD_DIM / 8; f++) *(float2 *)(out + 8 * f) = make_float2(x[4 * f + 2 * h] * by, x[4 * f + 2 * h + 1] * by);
    }
}

/* Steps that have nothing for this warpgroup. */
MJ_FN void mj_pass(const MjBackward &m, MjRing<STAGES> &ring, int32_t &at, int32_t to, int32_t step)
{
    for (; at < to; at += step, ring.next()) {
        mj_ptx_mbar_wait(m.full(ring.slot), ring.parity);
        mj_release(m.empty(ring.slot));
    }
}

/* ---- dq: rows are queries, keys stream by ------------------------------------------------------------------------- */

/* The latest queries see the most keys in a causal sequence, so their tiles come first. */
#define MJ_QUERY_TILE(place) (MJ_TILES - 1 - (place).tile)

MJ_FN void mj_produce_dq(const MjAttentionBwdArgs *args, const MjBackwardMaps &maps, const MjBackward &m)
{
    MjRing<STAGES> ring = {0, 1};
    int32_t item;
    for (int32_t round = 0; (item = mj_item(round, (int32_t)blockIdx.x, (int32_t)gridDim.x, MJ_ITEMS)) >= 0; round++) {
        const MjPlace place = MJ_PLACE(item);
        const int32_t head = place.head, i0 = MJ_QUERY_TILE(place) * ROWS;
        const int32_t last = (i0 + ROWS < TOKENS ? i0 + ROWS - 1 : TOKENS - 1) / STEP;
        int32_t j = mj_attention_low(args->pos, WINDOW, i0) / STEP;
        mj_ptx_mbar_wait(m.own_empty(), (uint32_t)(round & 1) ^ 1u);
        mj_ptx_mbar_arrive_expect(m.own_full(), 4 * MJ_TILE_BYTES(STEP));
        mj_load_own(m, &maps.q, &maps.dout, head, i0);
        for (; j <= last; j++, ring.next()) {
            mj_ptx_mbar_wait(m.empty(ring.slot), ring.parity);
            mj_ptx_mbar_arrive_expect(m.full(ring.slot), 2 * MJ_TILE_BYTES(STEP));
            mj_tma_tile<STEP>(m.stage(ring.slot), &maps.k, m.full(ring.slot), head, j * STEP);
            mj_tma_tile<STEP>(m.stage(ring.slot) + MJ_TILE_BYTES(STEP), &maps.v, m.full(ring.slot), head, j * STEP);
        }
    }
}

/* A tile's fragments as left operand. */
MJ_FN void mj_load_fragments(mj_u32 (&a)[HEAD_DIM / 16][4], uint32_t tile)
{
    const int32_t row = MJ_WARP_INDEX % 4 * 16 + MJ_LANE % 16;
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++) {
        const int32_t chunk = k % 4 * 2 + MJ_LANE / 16;
        mj_ptx_ldmatrix_x4(a[k], tile + k / 4 * MJ_SLAB_BYTES(STEP) + row * 128 + ((chunk ^ (row & 7)) << 4));
    }
}

struct MjQueryRows { /* of a thread; see MJ_LANE / 4 and + 8 */
    int32_t row[2], low[2];
    float shift[2], delta[2]; /* shift: -lse * log2(e) */
};

/* Queries past the end see themselves: zeros. */
MJ_FN void mj_query_rows(const MjAttentionBwdArgs *args, int32_t head, int32_t i0, MjQueryRows &r)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int32_t n = i0 + MJ_WARP_INDEX % 4 * 16 + MJ_LANE / 4 + 8 * h, at = n < TOKENS ? n : TOKENS - 1;
        r.row[h] = n;
        r.low[h] = n < TOKENS ? mj_attention_low(args->pos, WINDOW, n) : n;
        r.shift[h] = -args->lse[(int64_t)head * TOKENS + at] * MJ_LOG2E;
        r.delta[h] = args->delta[(int64_t)head * TOKENS + at];
    }
}

/* dp becomes ds; s and dp are products that may still be in flight, dp's group the last. */
MJ_FN void mj_query_gradient(const MjQueryRows &r, float (&s)[STEP / 2], float (&dp)[STEP / 2], int32_t j0, float c, bool masked)
{
#pragma unroll
    for (int i = 0; i < STEP / 2; i++) s[i] = mj_ptx_ex2(mj_fmaf(s[i], c, r.shift[i / 2 % 2]));
    if (masked) {
#pragma unroll
        for (int i = 0; i < STEP / 2; i++) {
            const int32_t j = j0 + i / 4 * 8 + MJ_LANE % 4 * 2 + i % 2, h = i / 2 % 2;
            if (j > r.row[h] || j < r.low[h]) s[i] = 0.0f;
        }
    }
    mj_ptx_wgmma_pin(s); /* or the compiler waits first */
    mj_ptx_wgmma_wait<0>();
    mj_ptx_wgmma_pin(dp);
#pragma unroll
    for (int i = 0; i < STEP / 2; i++) dp[i] = s[i] * (dp[i] - r.delta[i / 2 % 2]);
}

MJ_FN void mj_consume_dq(const MjAttentionBwdArgs *args, const MjBackward &m)
{
    const int32_t group = mj_math_group();
    const uint32_t own = m.own + 2 * group * MJ_TILE_BYTES(STEP);
    const float c = args->scale * MJ_LOG2E;
    MjRing<STAGES> ring = {0, 0};
    int32_t item;
    for (int32_t round = 0; (item = mj_item(round, (int32_t)blockIdx.x, (int32_t)gridDim.x, MJ_ITEMS)) >= 0; round++) {
        const MjPlace place = MJ_PLACE(item);
        const int32_t head = place.head, i0 = MJ_QUERY_TILE(place) * ROWS, own0 = i0 + group * STEP;
        const int32_t last = (i0 + ROWS < TOKENS ? i0 + ROWS - 1 : TOKENS - 1) / STEP;
        int32_t j = mj_attention_low(args->pos, WINDOW, i0) / STEP, before = -1;
        MjQueryRows r;
        mj_query_rows(args, head, own0, r);
        const int32_t most = __shfl_sync(0xffffffffu, r.low[1], 31), first = own0 + MJ_WARP_INDEX % 4 * 16;
        mj_u32 q[HEAD_DIM / 16][4], dout[HEAD_DIM / 16][4], p[STEP / 16][4];
        float dq[HEAD_DIM / 2], s[STEP / 2], dp[STEP / 2];
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 2; i++) dq[i] = 0.0f;
        mj_ptx_mbar_wait(m.own_full(), (uint32_t)round & 1u);
        mj_load_fragments(q, own);
        mj_load_fragments(dout, own + MJ_TILE_BYTES(STEP));
        mj_release(m.own_empty());
        for (; j <= last && j * STEP <= own0; j++, ring.next()) {
            mj_ptx_mbar_wait(m.full(ring.slot), ring.parity);
            mj_ptx_wgmma_fence();
            mj_wgmma_rows<STEP>(s, q, m.stage(ring.slot));
            mj_ptx_wgmma_commit();
            mj_wgmma_rows<STEP>(dp, dout, m.stage(ring.slot) + MJ_TILE_BYTES(STEP));
            mj_ptx_wgmma_commit();
            mj_ptx_wgmma_wait<1>();
            mj_ptx_wgmma_pin(s);
            if (before >= 0) mj_release(m.empty(before));
            mj_query_gradient(r, s, dp, j * STEP, c, j * STEP < most || j * STEP + STEP - 1 > first);
            mj_fragments<STEP>(p, dp);
            mj_ptx_wgmma_fence();
            mj_wgmma_columns<STEP>(dq, p, m.stage(ring.slot), 1);
            mj_ptx_wgmma_commit();
            before = ring.slot;
        }
        mj_ptx_wgmma_wait<0>();
        mj_ptx_wgmma_pin(dq);
        mj_release(m.empty(before));
        mj_pass(m, ring, j, last + 1, 1);
        mj_store_rows(args->dq, own0, head, dq, args->scale, TOKENS, HEADS);
    }
}

extern "C" __global__ void __launch_bounds__(MJ_ATTENTION_SM90_THREADS, 1)
    attention_bwd_dq_sm90(const __grid_constant__ MjAttentionBwdArgs mj_args, const __grid_constant__ MjBackwardMaps maps)
{
    const MjBackward m = mj_backward_init();
    if (threadIdx.x < 128) {
        mj_ptx_setmaxnreg_dec<24>();
        if (threadIdx.x == 0) mj_produce_dq(&mj_args, maps, m);
    } else {
        mj_ptx_setmaxnreg_inc<240>();
        mj_consume_dq(&mj_args, m);
    }
}

/* ---- dk, dv: rows are keys, queries stream by ---------------------------------------------------------------------- */


/* lse, delta and low of a step's queries by a warp; queries from TOKENS on see nothing. */
MJ_FN void mj_load_vectors(const MjAttentionBwdArgs *args, float *to, int32_t head, int32_t q0)
{
#pragma unroll
    for (int i = MJ_LANE; i < STEP; i += 32) {
        const int32_t n = q0 + i, at = n < TOKENS ? n : TOKENS - 1;
        to[i] = -args->lse[(int64_t)head * TOKENS + at] * MJ_LOG2E;
        to[STEP + i] = args->delta[(int64_t)head * TOKENS + at];
        ((int32_t *)to)[2 * STEP + i] = n < TOKENS ? mj_attention_low(args->pos, WINDOW, at) : NO_KEY;
    }
    __syncwarp();
}

/* A warp: its first lane loads, all look for the last query and fetch the vectors. */
MJ_FN void mj_produce_dkv(const MjAttentionBwdArgs *args, const MjBackwardMaps &maps, const MjBackward &m)
{
    MjRing<STAGES> ring = {0, 1};
    int32_t item;
    for (int32_t round = 0; (item = mj_item(round, (int32_t)blockIdx.x, (int32_t)gridDim.x, MJ_ITEMS)) >= 0; round++) {
        const MjPlace place = MJ_PLACE(item); /* the first keys are seen by the most queries */
        const int32_t head = place.head, i0 = place.tile * ROWS;
        const int32_t last = i0 + ROWS < TOKENS ? i0 + ROWS - 1 : TOKENS - 1;
        const int32_t end = mj_attention_end(args->pos, WINDOW, last, TOKENS - last > WINDOW ? last + WINDOW : TOKENS, last);
        mj_ptx_mbar_wait(m.own_empty(), (uint32_t)(round & 1) ^ 1u);
        if (MJ_LANE == 0) {
            *m.end = end;
            mj_ptx_mbar_arrive_expect(m.own_full(), 4 * MJ_TILE_BYTES(STEP));
            mj_load_own(m, &maps.k, &maps.v, head, i0);
        }
        for (int32_t q0 = i0; q0 < end; q0 += STEP, ring.next()) {
            const uint32_t stage = m.stage(ring.slot), full = m.full(ring.slot);
            mj_ptx_mbar_wait(m.empty(ring.slot), ring.parity);
            if (MJ_LANE == 0) {
                mj_ptx_mbar_expect(full, 2 * MJ_TILE_BYTES(STEP));
                mj_tma_tile<STEP>(stage, &maps.q, full, head, q0);
                mj_tma_tile<STEP>(stage + MJ_TILE_BYTES(STEP), &maps.dout, full, head, q0);
            }
            mj_load_vectors(args, m.vectors + ring.slot * 3 * STEP, head, q0);
            if (MJ_LANE == 0) mj_ptx_mbar_arrive(full);
        }
    }
}

/* s becomes p; a row is a key, a column a query. */
MJ_FN void mj_key_weights(float (&s)[STEP / 2], const float *vector, int32_t key, int32_t q0, float c, bool masked)
{
#pragma unroll
    for (int i = 0; i < STEP / 2; i += 4) {
        const float2 shift = *(const float2 *)(vector + i * 2 + MJ_LANE % 4 * 2);
#pragma unroll
        for (int e = 0; e < 4; e++) s[i + e] = mj_ptx_ex2(mj_fmaf(s[i + e], c, e % 2 == 0 ? shift.x : shift.y));
    }
    if (masked) {
#pragma unroll
        for (int i = 0; i < STEP / 2; i += 4) {
            const int32_t column = i * 2 + MJ_LANE % 4 * 2;
            const int2 low = *(const int2 *)(vector + 2 * STEP + column);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int32_t row = key + e / 2 * 8, hidden = (q0 + column + e % 2 < row) | ((e % 2 == 0 ? low.x : low.y) > row);
                s[i + e] = hidden != 0 ? 0.0f : s[i + e];
            }
        }
    }
}

MJ_FN void mj_consume_dkv(const MjAttentionBwdArgs *args, const MjBackward &m)
{
    const int32_t group = mj_math_group();
    const uint32_t own = m.own + 2 * group * MJ_TILE_BYTES(STEP);
    const float c = args->scale * MJ_LOG2E;
    MjRing<STAGES> ring = {0, 0};
    int32_t item;
    for (int32_t round = 0; (item = mj_item(round, (int32_t)blockIdx.x, (int32_t)gridDim.x, MJ_ITEMS)) >= 0; round++) {
        const MjPlace place = MJ_PLACE(item); /* the first keys are seen by the most queries */
        const int32_t head = place.head, i0 = place.tile * ROWS, own0 = i0 + group * STEP;
        const int32_t first = own0 + MJ_WARP_INDEX % 4 * 16;
        mj_u32 p[STEP / 16][4], ds[STEP / 16][4];
        float dk[HEAD_DIM / 2], dv[HEAD_DIM / 2], s[STEP / 2], dp[STEP / 2];
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 2; i++) dk[i] = dv[i] = 0.0f;
        mj_ptx_mbar_wait(m.own_full(), (uint32_t)round & 1u);
        const int32_t end = *m.end;
        int32_t q0 = i0, before = -1, held = 1;
        mj_pass(m, ring, q0, own0 < end ? own0 : end, STEP);
        for (; q0 < end; q0 += STEP, ring.next()) {
            const uint32_t stage = m.stage(ring.slot);
            const float *vector = m.vectors + ring.slot * 3 * STEP;
            const int32_t *lows = (const int32_t *)vector + 2 * STEP;
            mj_ptx_mbar_wait(m.full(ring.slot), ring.parity);
            if (lows[0] >= own0 + STEP) break;
            mj_ptx_wgmma_fence();
            mj_wgmma_rows<STEP, STEP>(s, own, stage);
            mj_ptx_wgmma_commit();
            mj_ptx_wgmma_wait<1>(); /* the registers of p and ds are free: room for dp */
            mj_ptx_wgmma_pin(dk);
            mj_ptx_wgmma_pin(dv);
            if (before >= 0) mj_release(m.empty(before));
            mj_ptx_wgmma_fence();
            mj_wgmma_rows<STEP, STEP>(dp, own + MJ_TILE_BYTES(STEP), stage + MJ_TILE_BYTES(STEP));
            mj_ptx_wgmma_commit();
            mj_ptx_wgmma_wait<1>();
            mj_ptx_wgmma_pin(s);
            mj_key_weights(s, vector, first + MJ_LANE / 4, q0, c, q0 < first + 15 || lows[STEP - 1] > first);
            mj_fragments<STEP>(p, s);
            mj_ptx_wgmma_pin(s); /* or the compiler waits first */
            mj_ptx_wgmma_wait<0>();
            mj_ptx_wgmma_pin(dp);
            if (q0 + STEP >= end) { /* the last step: the next item's keys may come */
                mj_release(m.own_empty());
                held = 0;
            }
#pragma unroll
            for (int i = 0; i < STEP / 2; i += 4) {
                const float2 delta = *(const float2 *)(vector + STEP + i * 2 + MJ_LANE % 4 * 2);
#pragma unroll
                for (int e = 0; e < 4; e++) dp[i + e] = s[i + e] * (dp[i + e] - (e % 2 == 0 ? delta.x : delta.y));
            }
            mj_fragments<STEP>(ds, dp);
            mj_ptx_wgmma_fence();
            mj_wgmma_columns<STEP>(dv, p, stage + MJ_TILE_BYTES(STEP), 1);
            mj_wgmma_columns<STEP>(dk, ds, stage, 1);
            mj_ptx_wgmma_commit();
            before = ring.slot;
        }
        mj_ptx_wgmma_wait<0>();
        mj_ptx_wgmma_pin(dk);
        mj_ptx_wgmma_pin(dv);
        if (held) mj_release(m.own_empty());
        if (before >= 0) mj_release(m.empty(before));
        mj_pass(m, ring, q0, end, STEP);
        mj_store_rows(args->dk, own0, head, dk, args->scale, TOKENS, HEADS);
        mj_store_rows(args->dv, own0, head, dv, 1.0f, TOKENS, HEADS);
    }
}

extern "C" __global__ void __launch_bounds__(MJ_ATTENTION_SM90_THREADS, 1)
    attention_bwd_dkv_sm90(const __grid_constant__ MjAttentionBwdArgs mj_args, const __grid_constant__ MjBackwardMaps maps)
{
    const MjBackward m = mj_backward_init();
    if (threadIdx.x < 128) {
        mj_ptx_setmaxnreg_dec<24>();
        if (threadIdx.x < 32) mj_produce_dkv(&mj_args, maps, m);
    } else {
        mj_ptx_setmaxnreg_inc<240>();
        mj_consume_dkv(&mj_args, m);
    }
}
