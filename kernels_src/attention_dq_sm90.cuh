/* delta and dq of attention's backward pass: rows are queries, keys stream by. Part of attention_bwd_sm90.cu. */
#ifndef MJ_ATTENTION_DQ_SM90_CUH
#define MJ_ATTENTION_DQ_SM90_CUH

/* The latest queries see the most keys in a causal sequence, so their tiles come first. */
#define MJ_QUERY_TILE(place) (MJ_TILES - 1 - (place).tile)

#define MJ_DQ_TILES MJ_ATTENTION_SM90_DQ_TILES

/* A warp: its first lane loads, all fetch lse and low of the item's rows. Queries past the end see themselves: zeros. */
MJ_FN void mj_load_queries(const MjAttentionBwdArgs *args, const MjBackwardMaps &maps, const MjBackward &m, int32_t head, int32_t i0)
{
    if (mj_ptx_elect()) {
        mj_ptx_mbar_expect(m.own_full(), MJ_DQ_TILES * MJ_TILE_BYTES(ROWS));
        mj_tma_tile<ROWS>(m.own, &maps.q, m.own_full(), head, i0);
        mj_tma_tile<ROWS>(m.own + MJ_TILE_BYTES(ROWS), &maps.dout, m.own_full(), head, i0);
        mj_tma_tile<ROWS>(m.own + 2 * MJ_TILE_BYTES(ROWS), &maps.out, m.own_full(), head, i0);
    }
    for (int i = MJ_LANE; i < ROWS; i += 32) {
        const int32_t n = i0 + i, at = n < TOKENS ? n : TOKENS - 1;
        m.vectors[i] = -args->lse[(int64_t)head * TOKENS + at] * MJ_LOG2E;
        ((int32_t *)m.vectors)[ROWS + i] = n < TOKENS ? mj_attention_low(args->pos, WINDOW, n) : n;
    }
    mj_ptx_mbar_arrive(m.own_full());
}

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
        mj_load_queries(args, maps, m, head, i0);
        for (; j <= last; j++, ring.next()) {
            mj_ptx_mbar_wait(m.empty(ring.slot), ring.parity);
            if (!mj_ptx_elect()) continue;
            mj_ptx_mbar_arrive_expect(m.full(ring.slot), 2 * MJ_TILE_BYTES(STEP));
            mj_tma_tile<STEP>(m.stage(ring.slot), &maps.k, m.full(ring.slot), head, j * STEP);
            mj_tma_tile<STEP>(m.stage(ring.slot) + MJ_TILE_BYTES(STEP), &maps.v, m.full(ring.slot), head, j * STEP);
        }
    }
}

/* 16 columns of the warpgroup's rows as registers. */
MJ_FN void mj_load_fragment(mj_u32 (&a)[4], uint32_t tile, int32_t k)
{
    const int32_t row = MJ_WARP_INDEX % 4 * 16 + MJ_LANE % 16, chunk = k % 4 * 2 + MJ_LANE / 16;
    mj_ptx_ldmatrix_x4(a, tile + k / 4 * MJ_SLAB_BYTES(ROWS) + row * 128 + ((chunk ^ (row & 7)) << 4));
}

struct MjQueryRows { /* of a thread; see MJ_LANE / 4 and + 8 */
    int32_t row[2], low[2];
    float shift[2], delta[2]; /* -lse * log2(e), -delta * scale */
};

/* delta = out . dout of a thread's two rows: the diagonals of products of the warp's own 16 rows. */
MJ_FN void mj_delta(uint32_t out_tile, uint32_t dout_tile, float (&delta)[2])
{
    float upper[4] = {0.0f, 0.0f, 0.0f, 0.0f}, lower[4] = {0.0f, 0.0f, 0.0f, 0.0f}; /* all 16 rows by the first 8, by the last 8 */
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++) {
        mj_u32 out[4], dout[4];
        mj_load_fragment(out, out_tile, k);
        mj_load_fragment(dout, dout_tile, k);
        const mj_u32 first[2] = {dout[0], dout[2]}, last[2] = {dout[1], dout[3]};
        mj_ptx_mma_bf16(upper, out, first);
        mj_ptx_mma_bf16(lower, out, last);
    }
    const bool odd = MJ_LANE / 4 % 2 != 0; /* row r's diagonal is in lane 4 r + r / 2 */
    delta[0] = __shfl_sync(0xffffffffu, odd ? upper[1] : upper[0], MJ_LANE / 4 * 4 + MJ_LANE / 8);
    delta[1] = __shfl_sync(0xffffffffu, odd ? lower[3] : lower[2], MJ_LANE / 4 * 4 + MJ_LANE / 8);
}

/* The item's rows from shared memory, and delta, which the other kernel is left too. */
MJ_FN void mj_query_rows(const MjAttentionBwdArgs *args, const MjBackward &m, uint32_t own, int32_t head, int32_t i0, int32_t group,
                         MjQueryRows &r)
{
    float delta[2];
    mj_delta(own + 2 * MJ_TILE_BYTES(ROWS), own + MJ_TILE_BYTES(ROWS), delta);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int32_t at = group * STEP + MJ_WARP_INDEX % 4 * 16 + MJ_LANE / 4 + 8 * h, n = i0 + at;
        r.row[h] = n;
        r.shift[h] = m.vectors[at];
        r.low[h] = ((const int32_t *)m.vectors)[ROWS + at];
        r.delta[h] = -delta[h] * args->scale;
        if (MJ_LANE % 4 == 0 && n < TOKENS) args->delta[(int64_t)head * TOKENS + n] = delta[h];
    }
}

/* dp becomes ds; s and dp are products that may still be in flight, dp's group the last. */
MJ_FN void mj_query_gradient(const MjQueryRows &r, float (&s)[STEP / 2], float (&dp)[STEP / 2], int32_t j0, float c, float scale, bool masked)
{
#pragma unroll
    for (int i = 0; i < STEP / 2; i++) s[i] = mj_ptx_ex2(mj_fmaf(s[i], c, r.shift[i / 2 % 2]));
    if (masked) {
        const int32_t at = j0 + MJ_LANE % 4 * 2, low[2] = {r.low[0] - at, r.low[1] - at}, row[2] = {r.row[0] - at, r.row[1] - at};
#pragma unroll
        for (int i = 0; i < STEP / 2; i++) {
            const int32_t column = i / 4 * 8 + i % 2, h = i / 2 % 2;
            if ((column < low[h]) | (column > row[h])) s[i] = 0.0f;
        }
    }
    mj_ptx_wgmma_pin(s); /* or the compiler waits first */
    mj_ptx_wgmma_wait<0>();
    mj_ptx_wgmma_pin(dp);
#pragma unroll
    for (int i = 0; i < STEP / 2; i++) dp[i] = s[i] * mj_fmaf(dp[i], scale, r.delta[i / 2 % 2]);
}

MJ_FN void mj_consume_dq(const MjAttentionBwdArgs *args, const MjBackward &m)
{
    const int32_t group = mj_math_group();
    const uint32_t own = m.own + group * MJ_SLAB_BYTES(STEP);
    const float c = args->scale * MJ_LOG2E;
    MjRing<STAGES> ring = {0, 0};
    int32_t item;
    for (int32_t round = 0; (item = mj_item(round, (int32_t)blockIdx.x, (int32_t)gridDim.x, MJ_ITEMS)) >= 0; round++) {
        const MjPlace place = MJ_PLACE(item);
        const int32_t head = place.head, i0 = MJ_QUERY_TILE(place) * ROWS, own0 = i0 + group * STEP;
        const int32_t last = (i0 + ROWS < TOKENS ? i0 + ROWS - 1 : TOKENS - 1) / STEP;
        MjQueryRows r;
        mj_u32 p[STEP / 16][4];
        float dq[HEAD_DIM / 2], s[STEP / 2], dp[STEP / 2];
        mj_ptx_mbar_wait(m.own_full(), (uint32_t)round & 1u);
        mj_query_rows(args, m, own, head, i0, group, r);
        int32_t j = ((const int32_t *)m.vectors)[ROWS] / STEP, before = -1;
        const int32_t stop = last * STEP < own0 ? last : own0 / STEP; /* the last tile that this warpgroup sees */
        const int32_t most = __shfl_sync(0xffffffffu, r.low[1], 31), first = own0 + MJ_WARP_INDEX % 4 * 16;
        for (; j <= stop; j++, ring.next()) {
            mj_ptx_mbar_wait(m.full(ring.slot), ring.parity);
            mj_ptx_wgmma_fence();
            mj_wgmma_rows<ROWS, STEP>(s, own, m.stage(ring.slot)); /* not from registers: see ptx_product.cuh */
            mj_ptx_wgmma_commit();
            mj_wgmma_rows<ROWS, STEP>(dp, own + MJ_TILE_BYTES(ROWS), m.stage(ring.slot) + MJ_TILE_BYTES(STEP));
            mj_ptx_wgmma_commit();
            mj_ptx_wgmma_wait<1>();
            mj_ptx_wgmma_pin(s);
            if (before >= 0) mj_release(m.empty(before));
            mj_query_gradient(r, s, dp, j * STEP, c, args->scale, j * STEP < most || j * STEP + STEP - 1 > first);
            if (j == stop) mj_ptx_mbar_arrive(m.own_empty()); /* the next item's rows may come */
            mj_fragments<STEP>(p, dp);
            mj_ptx_wgmma_fence();
            mj_wgmma_columns<STEP>(dq, p, m.stage(ring.slot), before >= 0);
            mj_ptx_wgmma_commit();
            before = ring.slot;
        }
        mj_ptx_wgmma_wait<0>();
        mj_ptx_wgmma_pin(dq);
        mj_release(m.empty(before));
        for (; j <= last; j++, ring.next()) { /* nothing for this warpgroup */
            mj_ptx_mbar_wait(m.full(ring.slot), ring.parity);
            mj_release(m.empty(ring.slot));
        }
        mj_store_rows(args, m, own0, head, 0, dq);
    }
}

#endif
