/* Attention's definition in double precision, one query at a time, and the gradient by the chain rule. */
#include "ops/ref_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"

static double ref_bf16(uint16_t bits)
{
    const uint32_t u = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return (double)f;
}

typedef struct RefAttention { /* what forward and backward share */
    const uint16_t *q, *k, *qkv;
    const int32_t *pos;
    double scale;
    int64_t heads, dim;
    int32_t window;
} RefAttention;

static int64_t ref_low(const RefAttention *a, int64_t i)
{
    const int64_t begin = i - a->pos[i], near = i - a->window + 1;
    return begin > near ? begin : near;
}

static double ref_dot(const uint16_t *x, const uint16_t *y, int64_t dim)
{
    double sum = 0.0;
    for (int64_t d = 0; d < dim; d++)
        sum += ref_bf16(x[d]) * ref_bf16(y[d]);
    return sum;
}

static const uint16_t *ref_value(const RefAttention *a, int64_t n, int64_t h)
{
    return a->qkv + ((n * 3 + 2) * a->heads + h) * a->dim;
}

/* p[j - low] for the keys of query i, and log of the sum of exponentials. */
static double ref_probabilities(const RefAttention *a, int64_t h, int64_t i, double *p)
{
    const int64_t low = ref_low(a, i);
    double most = -INFINITY, sum = 0.0;
    for (int64_t j = low; j <= i; j++) {
        p[j - low] = a->scale * ref_dot(a->q + (i * a->heads + h) * a->dim, a->k + (j * a->heads + h) * a->dim, a->dim);
        most = fmax(most, p[j - low]);
    }
    for (int64_t j = low; j <= i; j++)
        sum += exp(p[j - low] - most);
    for (int64_t j = low; j <= i; j++)
        p[j - low] = exp(p[j - low] - most) / sum;
    return most + log(sum);
}

void mj_ref_attention_fwd(const MjAttentionFwdArgs *g, double *out, double *lse)
{
    const RefAttention a = {g->q, g->k, g->qkv, g->pos, (double)g->scale, g->heads, g->head_dim, g->window};
    double *p = mj_xmalloc((size_t)g->tokens * sizeof *p);
    for (int64_t h = 0; h < a.heads; h++)
        for (int64_t i = 0; i < g->tokens; i++) {
            const int64_t low = ref_low(&a, i);
            double *o = out + (i * a.heads + h) * a.dim;
            lse[h * g->tokens + i] = ref_probabilities(&a, h, i, p);
            for (int64_t d = 0; d < a.dim; d++)
                o[d] = 0.0;
            for (int64_t j = low; j <= i; j++)
                for (int64_t d = 0; d < a.dim; d++)
                    o[d] += p[j - low] * ref_bf16(ref_value(&a, j, h)[d]);
        }
    free(p);
}

static double ref_rms(const uint16_t *x, int64_t dim)
{
    return sqrt(ref_dot(x, x, dim) / (double)dim);
}

/* One query's share of the gradients and of their sizes; p and dp hold a number a key. */
static void ref_attention_bwd_query(const RefAttention *a, const uint16_t *dout, int64_t h, int64_t i, double *p, double *dp,
                                    MjRefAttentionGrad *g)
{
    const int64_t low = ref_low(a, i), at = (i * a->heads + h) * a->dim, dim = a->dim;
    double delta = 0.0, delta_size = 0.0;
    ref_probabilities(a, h, i, p);
    for (int64_t j = low; j <= i; j++) {
        dp[j - low] = ref_dot(dout + at, ref_value(a, j, h), dim);
        delta += p[j - low] * dp[j - low];
    }
    for (int64_t d = 0; d < dim; d++) {
        double out = 0.0;
        for (int64_t j = low; j <= i; j++)
            out += p[j - low] * ref_bf16(ref_value(a, j, h)[d]);
        delta_size += fabs(out * ref_bf16(dout[at + d]));
    }
    for (int64_t j = low; j <= i; j++) {
        const int64_t to = (j * a->heads + h) * dim;
        const double weight = p[j - low], ds = a->scale * weight * (dp[j - low] - delta);
        const double ds_size = a->scale * weight * (fabs(dp[j - low]) + delta_size);
        for (int64_t d = 0; d < dim; d++) {
            g->dq[at + d] += ds * ref_bf16(a->k[to + d]);
            g->dk[to + d] += ds * ref_bf16(a->q[at + d]);
            g->dv[to + d] += weight * ref_bf16(dout[at + d]);
        }
        g->dq_size[i * a->heads + h] += ds_size * ref_rms(a->k + to, dim);
        g->dk_size[j * a->heads + h] += ds_size * ref_rms(a->q + at, dim);
        g->dv_size[j * a->heads + h] += weight * ref_rms(dout + at, dim);
    }
}

void mj_ref_attention_bwd(const MjAttentionBwdArgs *g, MjRefAttentionGrad *out)
{
    const RefAttention a = {g->q, g->k, g->qkv, g->pos, (double)g->scale, g->heads, g->head_dim, g->window};
    const size_t rows = (size_t)g->tokens * (size_t)a.heads, dim = (size_t)a.dim;
    double *p = mj_xmalloc((size_t)g->tokens * sizeof *p), *dp = mj_xmalloc((size_t)g->tokens * sizeof *dp);
    double *const grads[3] = {out->dq, out->dk, out->dv}, *const sizes[3] = {out->dq_size, out->dk_size, out->dv_size};
    for (int i = 0; i < 3; i++) {
        memset(grads[i], 0, rows * dim * sizeof(double));
        memset(sizes[i], 0, rows * sizeof(double));
    }
    for (int64_t h = 0; h < a.heads; h++)
        for (int64_t i = 0; i < g->tokens; i++)
            ref_attention_bwd_query(&a, g->dout, h, i, p, dp, out);
    free(p);
    free(dp);
}
