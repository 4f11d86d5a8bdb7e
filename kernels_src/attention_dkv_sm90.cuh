/* dk and dv of attention's backward pass: rows are keys, queries stream by. Part of attention_bwd_sm90.cu. */
#ifndef MJ_ATTENTION_DKV_SM90_CUH
#define MJ_ATTENTION_DKV_SM90_CUH


#define MJ_DKV_TILES MJ_ATTENTION_SM90_DKV_TILES

/* What a step's queries bring, by a warp; queries from TOKENS on see nothing. */
MJ_FN void mj_load_vectors(const MjAttentionBwdArgs *args, float *to, int32_t head, int32_t q0)
{
#pragma unroll
    for (int i = MJ_LANE; i < STEP; i += 32) {
        const int32_t n = q0 + i, at = n < TOKENS ? n : TOKENS - 1;
        to[i] = -args->lse[(int64_t)head * TOKENS + at] * MJ_LOG2E;
        to[STEP + i] = -args->delta[(int64_t)head * TOKENS + at] * args->scale;
        ((int32_t *)to)[2 * STEP + i] = n < TOKENS ? mj_attention_low(args->pos, WINDOW, at) : NO_KEY;
    }
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
        if (mj_ptx_elect()) {
            *m.end = end;
            mj_ptx_mbar_arrive_expect(m.own_full(), MJ_DKV_TILES * MJ_TILE_BYTES(ROWS));
            mj_tma_tile<ROWS>(m.own, &maps.k, m.own_full(), head, i0);
            mj_tma_tile<ROWS>(m.own + MJ_TILE_BYTES(ROWS), &maps.v, m.own_full(), head, i0);
        }
        for (int32_t q0 = i0; q0 < end; q0 += STEP, ring.next()) {
            const uint32_t stage = m.stage(ring.slot), full = m.full(ring.slot);
            mj_ptx_mbar_wait(m.empty(ring.slot), ring.parity);
            if (mj_ptx_elect()) {
                mj_ptx_mbar_expect(full, 2 * MJ_TILE_BYTES(STEP));
                mj_tma_tile<STEP>(stage, &maps.q, full, head, q0);
                mj_tma_tile<STEP>(stage + MJ_TILE_BYTES(STEP), &maps.dout, full, head, q0);
            }
            mj_load_vectors(args, m.vectors + ring.slot * 3 * STEP, head, q0);
            mj_ptx_mbar_arrive(full);
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
        const int32_t first = key - q0 - MJ_LANE % 4 * 2;
#pragma unroll
        for (int i = 0; i < STEP / 2; i += 4) {
            const int2 low = *(const int2 *)(vector + 2 * STEP + i * 2 + MJ_LANE % 4 * 2);
#pragma unroll
            for (int e = 0; e < 4; e++)
                if ((i * 2 + e % 2 - e / 2 * 8 < first) | ((e % 2 == 0 ? low.x : low.y) > key + e / 2 * 8)) s[i + e] = 0.0f;
        }
    }
}

/* Steps that have nothing for this warpgroup. */
MJ_FN void mj_pass(const MjBackward &m, MjRing<STAGES> &ring, int32_t &q0, int32_t to)
{
    for (; q0 < to; q0 += STEP, ring.next()) {
        mj_ptx_mbar_wait(m.full(ring.slot), ring.parity);
        mj_ptx_mbar_arrive(m.empty(ring.slot));
    }
}

MJ_FN void mj_consume_dkv(const MjAttentionBwdArgs *args, const MjBackward &m)
{
    const int32_t group = mj_math_group();
    const uint32_t own = m.own + group * MJ_SLAB_BYTES(STEP);
    const float c = args->scale * MJ_LOG2E;
    MjRing<STAGES> ring = {0, 0};
    int32_t item;
    for (int32_t round = 0; (item = mj_item(round, (int32_t)blockIdx.x, (int32_t)gridDim.x, MJ_ITEMS)) >= 0; round++) {
        const MjPlace place = MJ_PLACE(item); /* the first keys are seen by the most queries */
        const int32_t head = place.head, i0 = place.tile * ROWS, own0 = i0 + group * STEP;
        const int32_t first = own0 + MJ_WARP_INDEX % 4 * 16;
        mj_u32 p[STEP / 16][4], ds[STEP / 16][4];
        float dk[HEAD_DIM / 2], dv[HEAD_DIM / 2], s[STEP / 2], dp[STEP / 2];
        mj_ptx_mbar_wait(m.own_full(), (uint32_t)round & 1u);
        const int32_t end = *m.end;
        int32_t q0 = i0, before = -1, held = 1;
        mj_pass(m, ring, q0, own0 < end ? own0 : end);
        for (; q0 < end; q0 += STEP, ring.next()) {
            const uint32_t stage = m.stage(ring.slot);
            const float *vector = m.vectors + ring.slot * 3 * STEP;
            const int32_t *lows = (const int32_t *)vector + 2 * STEP;
            mj_ptx_mbar_wait(m.full(ring.slot), ring.parity);
            if (lows[0] >= own0 + STEP) break;
            mj_ptx_wgmma_fence();
            mj_wgmma_rows<ROWS, STEP>(s, own, stage);
            mj_ptx_wgmma_commit();
            mj_ptx_wgmma_wait<1>(); /* the registers of p and ds are free: room for dp */
            mj_ptx_wgmma_pin(dk);
            mj_ptx_wgmma_pin(dv);
            if (before >= 0) mj_ptx_mbar_arrive(m.empty(before));
            mj_ptx_wgmma_fence();
            mj_wgmma_rows<ROWS, STEP>(dp, own + MJ_TILE_BYTES(ROWS), stage + MJ_TILE_BYTES(STEP));
            mj_ptx_wgmma_commit();
            mj_ptx_wgmma_wait<1>();
            mj_ptx_wgmma_pin(s);
            mj_key_weights(s, vector, first + MJ_LANE / 4, q0, c, q0 < first + 15 || lows[STEP - 1] > first);
            mj_fragments<STEP>(p, s);
            mj_ptx_wgmma_pin(s); /* or the compiler waits first */
            mj_ptx_wgmma_wait<0>();
            mj_ptx_wgmma_pin(dp);
            if (q0 + STEP >= end) { /* the last step: the next item's keys may come */
                mj_ptx_mbar_arrive(m.own_empty());
                held = 0;
            }
#pragma unroll
            for (int i = 0; i < STEP / 2; i += 4) {
                const float2 delta = *(const float2 *)(vector + STEP + i * 2 + MJ_LANE % 4 * 2);
#pragma unroll
                for (int e = 0; e < 4; e++) dp[i + e] = s[i + e] * mj_fmaf(dp[i + e], args->scale, e % 2 == 0 ? delta.x : delta.y);
            }
            mj_fragments<STEP>(ds, dp);
            mj_ptx_wgmma_fence();
            mj_wgmma_columns<STEP>(dv, p, stage + MJ_TILE_BYTES(STEP), before >= 0);
            mj_wgmma_columns<STEP>(dk, ds, stage, before >= 0);
            mj_ptx_wgmma_commit();
            before = ring.slot;
        }
        mj_ptx_wgmma_wait<0>();
        mj_ptx_wgmma_pin(dk);
        mj_ptx_wgmma_pin(dv);
        if (held) mj_ptx_mbar_arrive(m.own_empty());
        if (before >= 0) mj_ptx_mbar_arrive(m.empty(before));
        mj_pass(m, ring, q0, end);
        mj_store_rows(args, m, own0, head, 1, dk);
        mj_store_rows(args, m, own0, head, 2, dv);
    }
}

#endif
