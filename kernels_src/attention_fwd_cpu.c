// mj:template attention_fwd_cpu
// mj:doc Causal attention over packed sequences with a window; online softmax, no matrix of tokens by tokens.
// mj:family cpu
// mj:kernel attention_fwd_cpu
// mj:args MjAttentionFwdArgs
// mj:param TOKENS varying min:1
// mj:param HEADS fixed min:1
// mj:param HEAD_DIM fixed values:64,128
// mj:param WINDOW fixed min:1

#include "attention_core_cpu.h"

#define MJ_MASKED (-1e30f) /* finite, so that differences are; its weight is set to zero */

/* Running state of a tile of queries, by row. */
typedef struct MjSoftmax {
    float most[MJ_AT], alpha[MJ_AT];
    float sum[MJ_AT][MJ_VL]; /* lanes are added up at the end */
    int32_t low[MJ_AT];
} MjSoftmax;

/* scores (rows, 64) of keys j0.. -> probabilities in bf16; updates the maxima and sums, sets alpha. */
static __attribute__((noinline)) void mj_attention_softmax(MjSoftmax *st, const float *scores, uint16_t *p, int32_t rows,
                                                           int32_t i0, int32_t j0, float scale)
{
    for (int32_t r = 0; r < rows; r++) {
        const int32_t low = st->low[r] - j0, high = i0 + r - j0;
        mj_vf most = mj_vf_set1(MJ_MASKED);
        for (int32_t c = 0; c < MJ_AT; c += MJ_VL) {
            const mj_vf x = mj_vf_load(scores + r * MJ_AT + c) * scale;
            most = mj_vf_max(most, mj_vf_select(mj_vu_within(c, low, high), x, mj_vf_set1(MJ_MASKED)));
        }
        const float before = st->most[r], now = mj_vf_largest(most);
        st->most[r] = now > before ? now : before;
        st->alpha[r] = before - st->most[r];
    }
    for (int32_t r = 0; r < MJ_AT; r += MJ_VL)
        mj_vf_store(st->alpha + r, mj_vf_exp(mj_vf_load(st->alpha + r)));
    for (int32_t r = 0; r < rows; r++) {
        const int32_t low = st->low[r] - j0, high = i0 + r - j0;
        mj_vf sum = mj_vf_load(st->sum[r]) * st->alpha[r];
        for (int32_t c = 0; c < MJ_AT; c += MJ_VL) {
            const mj_vf x = mj_vf_load(scores + r * MJ_AT + c) * scale;
            const mj_vf e = mj_vf_keep(mj_vu_within(c, low, high), mj_vf_exp(x - st->most[r]));
            sum += e;
            mj_vf_store_bf16(p + r * MJ_AT + c, e, MJ_VL);
        }
        mj_vf_store(st->sum[r], sum);
    }
}

MJ_KERNEL(attention_fwd_cpu, MjAttentionFwdArgs)
{
    const int32_t tiles = mj_attention_tiles(TOKENS);
    const int32_t head = (int32_t)mj_block / tiles, i0 = (int32_t)mj_block % tiles * MJ_AT;
    const int32_t rows = TOKENS - i0 < MJ_AT ? TOKENS - i0 : MJ_AT;
    const int64_t row = (int64_t)HEADS * HEAD_DIM, column = (int64_t)head * HEAD_DIM;
    const MjHeadRows q = {args->q + column, row}, k = {args->k + column, row};
    const MjHeadRows v = {args->qkv + 2 * row + column, 3 * row};
    if (head >= HEADS) return;

    uint8_t *scratch = (uint8_t *)mj_shared;
    float *scores = (float *)(void *)scratch;
    uint16_t *p = (uint16_t *)(void *)(scratch + MJ_ATTENTION_SCORES);
    uint32_t *key = (uint32_t *)(void *)(scratch + MJ_ATTENTION_SCORES + MJ_ATTENTION_PROBS);
    uint32_t *value = key + MJ_ATTENTION_OPERAND / 4;
    float *sum = (float *)(void *)(value + MJ_ATTENTION_OPERAND / 4); /* (rows, D) */

    MjSoftmax st;
    memset(&st, 0, sizeof st);
    for (int32_t r = 0; r < MJ_AT; r++) {
        st.most[r] = MJ_MASKED;
        st.low[r] = r < rows ? mj_attention_low(args->pos, WINDOW, i0 + r) : 0;
    }
    memset(sum, 0, (size_t)rows * (size_t)HEAD_DIM * sizeof *sum);
    for (int32_t j0 = st.low[0] / MJ_AT * MJ_AT; j0 <= i0; j0 += MJ_AT) {
        const int32_t keys = TOKENS - j0 < MJ_AT ? TOKENS - j0 : MJ_AT;
        mj_attention_pack_t(k, j0, keys, HEAD_DIM, key);
        mj_attention_scores(q, i0, rows, HEAD_DIM, key, scores);
        mj_attention_softmax(&st, scores, p, rows, i0, j0, args->scale);
        mj_attention_pack(v, j0, keys, HEAD_DIM, value);
        mj_attention_add(p, value, rows, HEAD_DIM, st.alpha, sum);
    }
    for (int32_t r = 0; r < rows; r++) {
        const float total = mj_vf_sum(mj_vf_load(st.sum[r]));
        uint16_t *out = args->out + (int64_t)(i0 + r) * row + column;
        for (int32_t c = 0; c < HEAD_DIM; c += MJ_VL)
            mj_vf_store_bf16(out + c, mj_vf_load(sum + r * HEAD_DIM + c) / total, MJ_VL);
        args->lse[(int64_t)head * TOKENS + i0 + r] = st.most[r] + mj_logf(total);
    }
}
