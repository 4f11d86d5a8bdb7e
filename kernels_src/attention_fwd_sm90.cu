// mj:template attention_fwd_sm90
// mj:doc Causal attention over packed sequences with a window, by TMA and wgmma; exponentials overlap both products.
// mj:family sm_90a
// mj:kernel attention_fwd_sm90
// mj:args MjAttentionFwdArgs
// mj:param TOKENS varying min:1
// mj:param HEADS fixed min:1
// mj:param HEAD_DIM variant values:64,128
// mj:param WINDOW fixed min:1
// mj:param STAGES tuning default:2 values:2,3,4
// mj:param ORDER tuning default:1 values:0,1

#include "attention_wgmma.cuh"

#define ROWS MJ_ATTENTION_SM90_FWD_ROWS
#define KEYS MJ_ATTENTION_SM90_FWD_KEYS

#define MJ_NO_SCORE (-1e30f) /* a row's largest score before the first; finite, so that differences are */

struct MjForwardMaps { /* boxes of (64, 1, ROWS), (64, 1, KEYS) twice and, for each warpgroup's own rows, (64, 1, 64) */
    MjTensorMap q, k, v, out;
};

/* Addresses in shared memory; a barrier is 8 bytes. */
struct MjForward {
    uint32_t q, k, v, out, bars;
    __device__ __forceinline__ uint32_t key(int32_t slot) const { return k + slot * MJ_TILE_BYTES(KEYS); }
    __device__ __forceinline__ uint32_t value(int32_t slot) const { return v + slot * MJ_TILE_BYTES(KEYS); }
    __device__ __forceinline__ uint32_t q_full() const { return bars; }
    __device__ __forceinline__ uint32_t q_empty() const { return bars + 8; }
    __device__ __forceinline__ uint32_t k_full(int32_t slot) const { return bars + 16 + 32 * slot; }
    __device__ __forceinline__ uint32_t k_empty(int32_t slot) const { return bars + 24 + 32 * slot; }
    __device__ __forceinline__ uint32_t v_full(int32_t slot) const { return bars + 32 + 32 * slot; }
    __device__ __forceinline__ uint32_t v_empty(int32_t slot) const { return bars + 40 + 32 * slot; }
};

/* The latest queries see the most keys in a causal sequence, so their tiles come first. */
#define MJ_TILES ((TOKENS + ROWS - 1) / ROWS)
#define MJ_PLACE(item) mj_place(item, MJ_TILES, HEADS)
#define MJ_ITEM_TILE(place) (MJ_TILES - 1 - (place).tile)

/* Tiles of keys are as large as tiles of queries: of an item's tiles only the first, the diagonal, has keys that are later
 * than a query. They are visited backwards, so that every row sees a key in its first tile. */
MJ_FN void mj_produce(const MjAttentionFwdArgs *args, const MjForwardMaps &maps, const MjForward &m, int32_t block, int32_t grid)
{
    MjRing<STAGES> ring = {0, 1};
    int32_t item;
    for (int32_t round = 0; (item = mj_item(round, block, grid, MJ_TILES * HEADS)) >= 0; round++) {
        const MjPlace place = MJ_PLACE(item);
        const int32_t head = place.head, tile = MJ_ITEM_TILE(place);
        const int32_t first = mj_attention_low(args->pos, WINDOW, tile * ROWS) / KEYS;
        mj_ptx_mbar_wait(m.q_empty(), (uint32_t)(round & 1) ^ 1u);
        mj_ptx_mbar_arrive_expect(m.q_full(), MJ_TILE_BYTES(ROWS));
        mj_tma_tile<ROWS>(m.q, &maps.q, m.q_full(), head, tile * ROWS);
        for (int32_t j = tile; j >= first; j--, ring.next()) {
            mj_ptx_mbar_wait(m.k_empty(ring.slot), ring.parity);
            mj_ptx_mbar_arrive_expect(m.k_full(ring.slot), MJ_TILE_BYTES(KEYS));
            mj_tma_tile<KEYS>(m.key(ring.slot), &maps.k, m.k_full(ring.slot), head, j * KEYS);
            mj_ptx_mbar_wait(m.v_empty(ring.slot), ring.parity);
            mj_ptx_mbar_arrive_expect(m.v_full(ring.slot), MJ_TILE_BYTES(KEYS));
            mj_tma_tile<KEYS>(m.value(ring.slot), &maps.v, m.v_full(ring.slot), head, j * KEYS);
        }
    }
}

/* What a thread knows of its two rows, r = MJ_LANE / 4 and r + 8 of its warp's 16. */
struct MjRows {
    float most[2], sum[2]; /* sum: of this thread's columns */
    int32_t row[2], low[2], least; /* least: low of the item's first row */
};

/* Positions of an item's first row and of this thread's two, fetched while the item before is at work. */
struct MjPositions {
    int32_t first, own[2];
};
MJ_FN MjPositions mj_positions(const MjAttentionFwdArgs *args, int32_t i0, int32_t own)
{
    const int32_t end = TOKENS - 1;
    MjPositions p;
    p.first = args->pos[i0];
#pragma unroll
    for (int h = 0; h < 2; h++) p.own[h] = args->pos[i0 + own + 8 * h < end ? i0 + own + 8 * h : end];
    return p;
}

/* Queries past the end see themselves: zeros. */
MJ_FN void mj_rows_of(const MjAttentionFwdArgs *args, int32_t i0, int32_t own, const MjPositions &p, MjRows &r)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        r.row[h] = i0 + own + 8 * h;
        r.low[h] = r.row[h] < TOKENS ? mj_low_of(r.row[h], p.own[h], WINDOW) : r.row[h];
        r.most[h] = MJ_NO_SCORE;
        r.sum[h] = 0.0f;
    }
    r.least = mj_low_of(i0, p.first, WINDOW);
}

/* Scores of the keys from j0 on become weights; c = scale * log2(e). The factor of older sums is left in alpha. */
MJ_FN void mj_softmax(MjRows &r, float (&s)[KEYS / 2], float (&alpha)[2], int32_t j0, float c, bool masked)
{
    if (masked) {
        const int32_t at = j0 + MJ_LANE % 4 * 2, low[2] = {r.low[0] - at, r.low[1] - at}, row[2] = {r.row[0] - at, r.row[1] - at};
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
            const int32_t column = i / 4 * 8 + i % 2, h = i / 2 % 2;
            if ((column < low[h]) | (column > row[h])) s[i] = mj_bits_f32(0xff800000u);
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float most[2] = {r.most[h], s[2 * h]}, sum[2];
#pragma unroll
        for (int i = 2 * h; i < KEYS / 2; i += 4) {
            most[0] = fmaxf(most[0], s[i]);
            most[1] = fmaxf(most[1], s[i + 1]);
        }
        most[0] = mj_quad_max(fmaxf(most[0], most[1]));
        alpha[h] = mj_ptx_ex2((r.most[h] - most[0]) * c);
        r.most[h] = most[0];
        const float shift = -most[0] * c;
        sum[0] = r.sum[h] * alpha[h];
        sum[1] = 0.0f;
#pragma unroll
        for (int i = 2 * h; i < KEYS / 2; i += 4)
            for (int e = 0; e < 2; e++) {
                s[i + e] = mj_ptx_ex2(mj_fmaf(s[i + e], c, shift));
                sum[e] += s[i + e];
            }
        r.sum[h] = sum[0] + sum[1];
    }
}

/* The warpgroup's rows to `out` through shared memory, and lse. */
MJ_FN void mj_finish(const MjAttentionFwdArgs *args, const MjTensorMap *map, uint32_t to, const MjRows &r,
                     const float (&o)[HEAD_DIM / 2], int32_t head, int32_t first, float c)
{
    const int32_t group = mj_math_group(), warp = MJ_WARP_INDEX % 4, row = 16 * warp + MJ_LANE % 16;
    float inverse[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float sum = mj_quad_sum(r.sum[h]);
        inverse[h] = mj_ptx_rcp(sum);
        if (MJ_LANE % 4 == 0 && r.row[h] < TOKENS)
            args->lse[(int64_t)head * TOKENS + r.row[h]] = (r.most[h] * c + mj_ptx_lg2(sum)) * MJ_LN2;
    }
    if (threadIdx.x % 128 == 0) mj_ptx_tma_wait_read<0>(); /* the item before has left the buffer */
    mj_ptx_bar_sync(3 + group, 128);
#pragma unroll
    for (int f = 0; f < HEAD_DIM / 8; f += 2) {
        const mj_u32 x[4] = {mj_ptx_cvt_bf16x2(o[4 * f] * inverse[0], o[4 * f + 1] * inverse[0]),
                             mj_ptx_cvt_bf16x2(o[4 * f + 2] * inverse[1], o[4 * f + 3] * inverse[1]),
                             mj_ptx_cvt_bf16x2(o[4 * f + 4] * inverse[0], o[4 * f + 5] * inverse[0]),
                             mj_ptx_cvt_bf16x2(o[4 * f + 6] * inverse[1], o[4 * f + 7] * inverse[1])};
        const int32_t chunk = f % 8 + MJ_LANE / 16;
        mj_ptx_stmatrix_x4(to + f / 8 * MJ_SLAB_BYTES(64) + row * 128 + ((chunk ^ (row & 7)) << 4), x);
    }
    mj_ptx_fence_async();
    mj_ptx_bar_sync(3 + group, 128);
    if (threadIdx.x % 128 == 0) {
        for (int s = 0; s < MJ_SLABS; s++)
            mj_ptx_tma_store_3d(map, to + s * MJ_SLAB_BYTES(64), 64 * s, head, first + 64 * group);
        mj_ptx_tma_commit();
    }
}

/* A warpgroup's share, rows 64 group .. of each item. The two warpgroups take turns to issue products (named barriers 1 and
 * 2), so that the exponentials of one run beside the products of the other. */
MJ_FN void mj_consume(const MjAttentionFwdArgs *args, const MjForwardMaps &maps, const MjForward &m, int32_t block, int32_t grid)
{
    const int32_t group = mj_math_group(), own = 64 * group + MJ_WARP_INDEX % 4 * 16 + MJ_LANE / 4;
    const uint32_t q = m.q + MJ_SLAB_BYTES(64) * group, out = m.out + MJ_TILE_BYTES(64) * group;
    const float c = args->scale * MJ_LOG2E;
    float o[HEAD_DIM / 2], s[KEYS / 2], alpha[2];
    mj_u32 p[KEYS / 16][4];
    MjRing<STAGES> key = {0, 0}, value = {0, 0};
    if (group == 1) mj_ptx_bar_arrive(1, MJ_MATH_THREADS); /* the first turn is group 0's */
    int32_t item = mj_item(0, block, grid, MJ_TILES * HEADS);
    MjPlace place = MJ_PLACE(item < 0 ? 0 : item);
    MjPositions seen = mj_positions(args, MJ_ITEM_TILE(place) * ROWS, own);
    for (int32_t round = 0; item >= 0; round++) {
        MjRows r;
        const int32_t diagonal = MJ_ITEM_TILE(place), head = place.head;
        mj_rows_of(args, diagonal * ROWS, own, seen, r);
        item = mj_item(round + 1, block, grid, MJ_TILES * HEADS);
        if (item >= 0) {
            place = MJ_PLACE(item);
            seen = mj_positions(args, MJ_ITEM_TILE(place) * ROWS, own);
        }
        const int32_t first = r.least / KEYS, most = __shfl_sync(0xffffffffu, r.low[1], 31);
        mj_ptx_mbar_wait(m.q_full(), (uint32_t)round & 1u);
        mj_ptx_mbar_wait(m.k_full(key.slot), key.parity);
        mj_ptx_wgmma_fence();
        mj_wgmma_rows<ROWS, KEYS>(s, q, m.key(key.slot));
        mj_ptx_wgmma_commit();
        mj_ptx_wgmma_wait<0>();
        for (int32_t j = diagonal;; j--) { /* the scores of tile j are there, the values of tile j + 1 are on their way */
            mj_ptx_wgmma_pin(s);
            mj_release(m.k_empty(key.slot));
            key.next();
            if (j == first) mj_release(m.q_empty());
            mj_softmax(r, s, alpha, j * KEYS, c, (j == diagonal) | (j * KEYS < most));
            mj_ptx_wgmma_pin(s);
            const uint32_t used = m.v_empty(value.slot);
            if (j < diagonal) value.next();
            mj_ptx_mbar_wait(m.v_full(value.slot), value.parity); /* for the next product; its loop keeps the exponentials above */
            mj_ptx_wgmma_wait<0>();
            mj_ptx_wgmma_pin(o);
            if (j < diagonal) mj_release(used);
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 2; i++) o[i] *= alpha[i / 2 % 2];
            mj_fragments<KEYS>(p, s);
            if (j == first) break;
            mj_ptx_mbar_wait(m.k_full(key.slot), key.parity);
            mj_ptx_bar_sync(1 + group, MJ_MATH_THREADS);
            mj_ptx_wgmma_fence();
            mj_wgmma_rows<ROWS, KEYS>(s, q, m.key(key.slot));
            mj_ptx_wgmma_commit();
            mj_ptx_wgmma_fence();
            mj_wgmma_columns<KEYS>(o, p, m.value(value.slot), j < diagonal);
            mj_ptx_wgmma_commit();
            mj_ptx_bar_arrive(2 - group, MJ_MATH_THREADS);
            mj_ptx_wgmma_wait<1>();
        }
        mj_ptx_wgmma_fence();
        mj_wgmma_columns<KEYS>(o, p, m.value(value.slot), first < diagonal);
        mj_ptx_wgmma_commit();
        mj_ptx_wgmma_wait<0>();
        mj_ptx_wgmma_pin(o);
        mj_release(m.v_empty(value.slot));
        value.next();
        mj_finish(args, &maps.out, out, r, o, head, diagonal * ROWS, c);
    }
    if (group == 0) mj_ptx_bar_sync(1, MJ_MATH_THREADS); /* the turn that nobody took */
    if (threadIdx.x % 128 == 0) mj_ptx_tma_wait<0>();
}

extern "C" __global__ void __launch_bounds__(MJ_ATTENTION_SM90_THREADS, 1)
    attention_fwd_sm90(const __grid_constant__ MjAttentionFwdArgs mj_args, const __grid_constant__ MjForwardMaps maps)
{
    const MjAttentionFwdArgs *const args = &mj_args;
    MjForward m;
    m.q = (mj_ptx_shared(mj_dynamic_shared) + 1023u) & ~1023u;
    m.k = m.q + MJ_TILE_BYTES(ROWS);
    m.v = m.k + STAGES * MJ_TILE_BYTES(KEYS);
    m.out = m.v + STAGES * MJ_TILE_BYTES(KEYS);
    m.bars = m.out + MJ_TILE_BYTES(ROWS);
    if (threadIdx.x == 0) {
        mj_ptx_mbar_init(m.q_full(), 1);
        mj_ptx_mbar_init(m.q_empty(), MJ_MATH_THREADS / 32);
        for (int s = 0; s < STAGES; s++) {
            mj_ptx_mbar_init(m.k_full(s), 1);
            mj_ptx_mbar_init(m.k_empty(s), MJ_MATH_THREADS / 32);
            mj_ptx_mbar_init(m.v_full(s), 1);
            mj_ptx_mbar_init(m.v_empty(s), MJ_MATH_THREADS / 32);
        }
        mj_ptx_fence_mbar_init();
    }
    __syncthreads();
    mj_grid_begin();
    if (threadIdx.x < 128) {
        mj_ptx_setmaxnreg_dec<24>();
        if (threadIdx.x < 32 && mj_ptx_elect()) {
            mj_produce(args, maps, m, (int32_t)blockIdx.x, (int32_t)gridDim.x);
            mj_grid_loaded();
        }
    } else {
        mj_ptx_setmaxnreg_inc<240>();
        mj_consume(args, maps, m, (int32_t)blockIdx.x, (int32_t)gridDim.x);
    }
}
