// mj:template attention_bwd_cpu
// mj:doc Gradients of windowed causal attention: delta, then dq by tiles of queries, then dk and dv by tiles of keys.
// mj:family cpu
// mj:kernel attention_bwd_delta_cpu
// mj:kernel attention_bwd_dq_cpu
// mj:kernel attention_bwd_dkv_cpu
// mj:args MjAttentionBwdArgs
// mj:param TOKENS varying min:1
// mj:param HEADS fixed min:1
// mj:param HEAD_DIM fixed values:64,128
// mj:param WINDOW fixed min:1

#include "attention_core_cpu.h"

/* The probabilities are computed again from lse, in each of the two passes; nothing is added atomically:
 *   p = exp(scale q.k - lse), dp = dout.v, ds = scale p (dp - delta), dq = sum ds k, dk = sum ds q, dv = sum p dout. */
typedef struct MjAttentionBwd {
    MjHeadRows q, k, v, dout;
    int32_t head, i0, rows; /* this block's tile of tokens */
    float *s, *dp;          /* (64, 64) */
    uint16_t *p, *ds;       /* (64, 64) */
    uint32_t *operand[4];   /* packed (64, D) */
    float *sum[2];          /* (64, D) */
} MjAttentionBwd;

MJ_INLINE int mj_attention_bwd_init(const MjAttentionBwdArgs *args, uint32_t block, void *shared, MjAttentionBwd *w)
{
    const int32_t tiles = mj_attention_tiles(TOKENS);
    const int64_t row = (int64_t)HEADS * HEAD_DIM;
    w->head = (int32_t)block / tiles;
    w->i0 = (int32_t)block % tiles * MJ_AT;
    w->rows = TOKENS - w->i0 < MJ_AT ? TOKENS - w->i0 : MJ_AT;
    if (w->head >= HEADS) return 0;
    const int64_t column = (int64_t)w->head * HEAD_DIM;
    w->q = (MjHeadRows){args->q + column, row};
    w->k = (MjHeadRows){args->k + column, row};
    w->v = (MjHeadRows){args->qkv + 2 * row + column, 3 * row};
    w->dout = (MjHeadRows){args->dout + column, row};
    uint8_t *at = (uint8_t *)shared;
    w->s = (float *)(void *)at;
    w->dp = (float *)(void *)(at += MJ_ATTENTION_SCORES);
    w->p = (uint16_t *)(void *)(at += MJ_ATTENTION_SCORES);
    w->ds = (uint16_t *)(void *)(at += MJ_ATTENTION_PROBS);
    at += MJ_ATTENTION_PROBS;
    for (int i = 0; i < 4; i++, at += MJ_ATTENTION_OPERAND)
        w->operand[i] = (uint32_t *)(void *)at;
    for (int i = 0; i < 2; i++, at += MJ_ATTENTION_RESULT) {
        w->sum[i] = (float *)(void *)at;
        memset(w->sum[i], 0, (size_t)MJ_AT * (size_t)HEAD_DIM * sizeof(float));
    }
    return 1;
}

/* The block's rows of dq, dk or dv (part 0, 1 or 2 of dqkv). */
static __attribute__((noinline)) void mj_attention_store(const MjAttentionBwdArgs *args, const MjAttentionBwd *w, int32_t part,
                                                         const float *sum)
{
    for (int32_t r = 0; r < w->rows; r++) {
        uint16_t *to = args->dqkv + (((int64_t)(w->i0 + r) * 3 + part) * HEADS + w->head) * HEAD_DIM;
        for (int32_t d = 0; d < HEAD_DIM; d += MJ_VL)
            mj_vf_store_bf16(to + d, mj_vf_load(sum + (int64_t)r * HEAD_DIM + d), MJ_VL);
    }
}

MJ_KERNEL(attention_bwd_delta_cpu, MjAttentionBwdArgs)
{
    const int32_t tiles = mj_attention_tiles(TOKENS);
    const int32_t head = (int32_t)mj_block / tiles, i0 = (int32_t)mj_block % tiles * MJ_AT;
    if (head >= HEADS) return;
    for (int32_t i = i0; i < i0 + MJ_AT && i < TOKENS; i++) {
        const int64_t at = ((int64_t)i * HEADS + head) * HEAD_DIM;
        mj_vf sum = (mj_vf){0};
        for (int32_t d = 0; d < HEAD_DIM; d += 2 * MJ_VL)
            sum = mj_vdot(sum, mj_vu_load_pairs(args->out + at + d), mj_vu_load_pairs(args->dout + at + d));
        args->delta[(int64_t)head * TOKENS + i] = mj_vf_sum(sum);
    }
}

/* Rows are queries i0 + r, columns keys j0 + c: ds (rows, 64) in bf16. */
static __attribute__((noinline)) void mj_attention_ds_by_query(const MjAttentionBwd *w, const float *lse, const float *delta,
                                                               const int32_t *lows, int32_t j0, float scale)
{
    for (int32_t r = 0; r < w->rows; r++) {
        const int32_t low = lows[r] - j0, high = w->i0 + r - j0;
        for (int32_t c = 0; c < MJ_AT; c += MJ_VL) {
            const mj_vf p = mj_vf_exp(mj_vf_load(w->s + r * MJ_AT + c) * scale - lse[w->i0 + r]);
            const mj_vf ds = p * (mj_vf_load(w->dp + r * MJ_AT + c) - delta[w->i0 + r]) * scale;
            mj_vf_store_bf16(w->ds + r * MJ_AT + c, mj_vf_keep(mj_vu_within(c, low, high), ds), MJ_VL);
        }
    }
}

MJ_KERNEL(attention_bwd_dq_cpu, MjAttentionBwdArgs)
{
    MjAttentionBwd w;
    int32_t lows[MJ_AT];
    float ones[MJ_AT];
    if (!mj_attention_bwd_init(args, mj_block, mj_shared, &w)) return;
    const float *lse = args->lse + (int64_t)w.head * TOKENS, *delta = args->delta + (int64_t)w.head * TOKENS;
    for (int32_t r = 0; r < MJ_AT; r++) {
        ones[r] = 1.0f;
        lows[r] = r < w.rows ? mj_attention_low(args->pos, WINDOW, w.i0 + r) : 0;
    }
    for (int32_t j0 = lows[0] / MJ_AT * MJ_AT; j0 <= w.i0; j0 += MJ_AT) {
        const int32_t keys = TOKENS - j0 < MJ_AT ? TOKENS - j0 : MJ_AT;
        mj_attention_pack_t(w.k, j0, keys, HEAD_DIM, w.operand[0]);
        mj_attention_scores(w.q, w.i0, w.rows, HEAD_DIM, w.operand[0], w.s);
        mj_attention_pack_t(w.v, j0, keys, HEAD_DIM, w.operand[1]);
        mj_attention_scores(w.dout, w.i0, w.rows, HEAD_DIM, w.operand[1], w.dp);
        mj_attention_ds_by_query(&w, lse, delta, lows, j0, args->scale);
        mj_attention_pack(w.k, j0, keys, HEAD_DIM, w.operand[2]);
        mj_attention_add(w.ds, w.operand[2], w.rows, HEAD_DIM, ones, w.sum[0]);
    }
    mj_attention_store(args, &w, 0, w.sum[0]);
}

/* Rows are keys w->i0 + r, columns queries: lse, delta and the first visible key of each are given by column. Queries
 * past the end have low = INT32_MAX: they see nothing. p and ds (rows, 64) in bf16. */
static __attribute__((noinline)) void mj_attention_ds_by_key(const MjAttentionBwd *w, const float *lse, const float *delta,
                                                             const int32_t *lows, int32_t q0, float scale)
{
    for (int32_t r = 0; r < w->rows; r++) {
        const int32_t key = w->i0 + r;
        for (int32_t c = 0; c < MJ_AT; c += MJ_VL) {
            const mj_vu seen = mj_vu_within(q0 + c, key, INT32_MAX) & (mj_vu)(mj_vi_load(lows + c) <= key);
            const mj_vf p = mj_vf_exp(mj_vf_load(w->s + r * MJ_AT + c) * scale - mj_vf_load(lse + c));
            const mj_vf ds = p * (mj_vf_load(w->dp + r * MJ_AT + c) - mj_vf_load(delta + c)) * scale;
            mj_vf_store_bf16(w->p + r * MJ_AT + c, mj_vf_keep(seen, p), MJ_VL);
            mj_vf_store_bf16(w->ds + r * MJ_AT + c, mj_vf_keep(seen, ds), MJ_VL);
        }
    }
}

MJ_KERNEL(attention_bwd_dkv_cpu, MjAttentionBwdArgs)
{
    MjAttentionBwd w;
    float lse[MJ_AT], delta[MJ_AT], ones[MJ_AT];
    int32_t lows[MJ_AT];
    if (!mj_attention_bwd_init(args, mj_block, mj_shared, &w)) return;
    const int64_t head = (int64_t)w.head * TOKENS;
    for (int32_t r = 0; r < MJ_AT; r++)
        ones[r] = 1.0f;
    for (int32_t q0 = w.i0; q0 < TOKENS; q0 += MJ_AT) {
        const int32_t queries = TOKENS - q0 < MJ_AT ? TOKENS - q0 : MJ_AT;
        for (int32_t c = 0; c < MJ_AT; c++) {
            lows[c] = c < queries ? mj_attention_low(args->pos, WINDOW, q0 + c) : INT32_MAX;
            lse[c] = c < queries ? args->lse[head + q0 + c] : 0.0f;
            delta[c] = c < queries ? args->delta[head + q0 + c] : 0.0f;
        }
        if (lows[0] >= w.i0 + MJ_AT) break; /* nor does any later query see this tile */
        mj_attention_pack_t(w.q, q0, queries, HEAD_DIM, w.operand[0]);
        mj_attention_scores(w.k, w.i0, w.rows, HEAD_DIM, w.operand[0], w.s);
        mj_attention_pack_t(w.dout, q0, queries, HEAD_DIM, w.operand[1]);
        mj_attention_scores(w.v, w.i0, w.rows, HEAD_DIM, w.operand[1], w.dp);
        mj_attention_ds_by_key(&w, lse, delta, lows, q0, args->scale);
        mj_attention_pack(w.dout, q0, queries, HEAD_DIM, w.operand[2]);
        mj_attention_add(w.p, w.operand[2], w.rows, HEAD_DIM, ones, w.sum[1]);
        mj_attention_pack(w.q, q0, queries, HEAD_DIM, w.operand[3]);
        mj_attention_add(w.ds, w.operand[3], w.rows, HEAD_DIM, ones, w.sum[0]);
    }
    mj_attention_store(args, &w, 1, w.sum[0]);
    mj_attention_store(args, &w, 2, w.sum[1]);
}
