/* References in double precision: cross-entropy, sums, AdamW, pieces of a gradient. */
#include <math.h>

#include "ops/refs.h"

#define ARGS(Type, c) ((const Type *)(const void *)(c)->args.bytes)

void mj_setup_cross_entropy(const MjOpShape *s, void *args)
{
    *(MjCrossEntropyArgs *)args = (MjCrossEntropyArgs){.softcap = s->only == 2 ? 0.0f : 15.0f,
                                                      .tokens = s->tokens, .vocab = s->vocab, .vocab_used = s->vocab_used, .write_grad = s->only != 1};
}
void mj_fill_cross_entropy(MjCase *c)
{
    const MjOpShape *s = &c->shape;
    mj_case_set(c, "dscale", 0, 1.0 / (s->live > 0 ? s->live : 1));
    mj_case_fill_normal(c, "logits", 6.0);
    for (int64_t n = 0; n < s->tokens; n++)
        mj_case_set(c, "target", n, n >= s->live || n % 7 == 6 ? -1.0 : (double)mj_case_random(c, (uint32_t)s->vocab_used));
}
static double capped(const MjCrossEntropyArgs *a, double logit)
{
    return a->softcap > 0.0f ? (double)a->softcap * tanh(logit / (double)a->softcap) : logit;
}
void mj_ref_cross_entropy(MjCase *c)
{
    const MjCrossEntropyArgs *a = ARGS(MjCrossEntropyArgs, c);
    const double dscale = (double)a->dscale[0];
    for (int64_t n = 0; n < a->tokens; n = mj_case_next(c, n, a->tokens, 1)) {
        const uint16_t *row = a->logits + n * a->vocab;
        const int32_t target = a->target[n];
        double most = -INFINITY, sum = 0.0;
        for (int64_t v = 0; v < a->vocab_used; v++) most = fmax(most, capped(a, mj_ref_decode(MJ_BUF_BF16, row, v)));
        for (int64_t v = 0; v < a->vocab_used; v++) sum += exp(capped(a, mj_ref_decode(MJ_BUF_BF16, row, v)) - most);
        const double lse = log(sum) + most;
        if (target < 0) mj_case_want_within(c, "loss", n, 0.0, 0.0);
        else mj_case_want(c, "loss", n, lse - capped(a, mj_ref_decode(MJ_BUF_BF16, row, target)), fabs(lse) + 15.0);
        for (int64_t v = 0; a->write_grad && v < a->vocab; v++) {
            const double logit = mj_ref_decode(MJ_BUF_BF16, row, v);
            const double t = a->softcap > 0.0f ? tanh(logit / (double)a->softcap) : 0.0;
            const double p = exp(capped(a, logit) - lse) - (v == target ? 1.0 : 0.0);
            const double d = target < 0 || v >= a->vocab_used ? 0.0 : p * dscale * (1.0 - t * t);
            mj_case_want(c, "logits", n * a->vocab + v, d, d == 0.0 ? 0.0 : fabs(d) + (v == target ? dscale : 0.0));
        }
    }
}

void mj_setup_sum(const MjOpShape *s, void *args)
{
    *(MjSumArgs *)args = (MjSumArgs){.n = s->count, .square = s->only == 1, .accumulate = s->only == 1};
}
void mj_fill_sum(MjCase *c) { (void)c; }
void mj_ref_sum(MjCase *c)
{
    const MjSumArgs *a = ARGS(MjSumArgs, c);
    double sum = a->accumulate ? mj_case_in(c, "out", 0) : 0.0, size = fabs(sum);
    for (int64_t i = 0; i < a->n; i++) {
        const double x = (double)a->x[i], term = a->square ? x * x : x;
        sum += term;
        size += fabs(term);
    }
    mj_case_want(c, "out", 0, sum, size);
}

void mj_setup_adamw(const MjOpShape *s, void *args)
{
    *(MjAdamwArgs *)args = (MjAdamwArgs){.n = s->count, .beta1 = 0.8f, .beta2 = 0.95f, .eps = 1e-10f,
                                        .weight_decay = s->only == 1 ? 0.1f : 0.0f, .grad_scale = s->only == 1 ? 0.25f : 1.0f};
}
/* only 1: finite sums; 2: a loss, 3: a norm that is not finite; else no sums to guard by */
void mj_fill_guard(MjCase *c)
{
    mj_case_set(c, "guard", 0, c->shape.only == 2 ? (double)NAN : 3.5);
    mj_case_set(c, "guard", 1, c->shape.only == 3 ? INFINITY : 1e300);
    if (c->shape.only == 0) mj_case_drop(c, "guard");
}
bool mj_ref_guard(const double *guard) { return guard == NULL || (isfinite(guard[0]) && isfinite(guard[1])); }

void mj_fill_adamw(MjCase *c)
{
    mj_case_set(c, "rates", MJ_RATE_LR, 0.01);
    mj_case_set(c, "rates", MJ_RATE_BIAS1, 1.0 - 0.64);
    mj_case_set(c, "rates", MJ_RATE_BIAS2, 1.0 - 0.9025);
    mj_fill_guard(c);
    for (int64_t i = 0; i < c->shape.count; i++) mj_case_set(c, "v", i, fabs(mj_case_in(c, "v", i)));
}
void mj_ref_adamw(MjCase *c)
{
    const MjAdamwArgs *a = ARGS(MjAdamwArgs, c);
    const double b1 = (double)a->beta1, b2 = (double)a->beta2, lr = (double)a->rates[MJ_RATE_LR];
    const double bias1 = (double)a->rates[MJ_RATE_BIAS1], bias2 = (double)a->rates[MJ_RATE_BIAS2];
    if (!mj_ref_guard(a->guard)) return; /* all must stay as they were */
    for (int64_t i = 0; i < a->n; i = mj_case_next(c, i, a->n, 1024)) {
        const double g = (double)a->grad[i] * (double)a->grad_scale, w = (double)a->w[i];
        const double m = b1 * (double)a->m[i] + (1.0 - b1) * g, v = b2 * (double)a->v[i] + (1.0 - b2) * g * g;
        const double m_size = fabs(b1 * (double)a->m[i]) + fabs((1.0 - b1) * g);
        const double root = sqrt(v / bias2) + (double)a->eps;
        mj_case_want(c, "m", i, m, m_size);
        mj_case_want(c, "v", i, v, 0.0);
        mj_case_want(c, "w", i, w * (1.0 - lr * (double)a->weight_decay) - lr * m / bias1 / root,
                     fabs(w) + lr * m_size / bias1 / root);
        mj_case_want_within(c, "grad", i, 0.0, 0.0);
    }
}

/* `piece`: how many */
void mj_setup_add_pieces(const MjOpShape *s, void *args)
{
    *(MjAddPiecesArgs *)args = (MjAddPiecesArgs){.count = s->count, .pieces = s->piece > 0 ? s->piece : 1};
}
void mj_fill_add_pieces(MjCase *c) { (void)c; }
void mj_ref_add_pieces(MjCase *c)
{
    const MjAddPiecesArgs *a = ARGS(MjAddPiecesArgs, c);
    for (int64_t i = 0; i < a->count; i = mj_case_next(c, i, a->count, 1024)) {
        double sum = mj_case_in(c, "y", i), size = fabs(sum);
        for (int64_t p = 0; p < a->pieces; p++) {
            sum += (double)a->x[p * a->count + i];
            size += fabs((double)a->x[p * a->count + i]);
        }
        mj_case_want(c, "y", i, sum, size);
    }
}
