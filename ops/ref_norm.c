/* References in double precision: embedding, RMSNorm, RoPE with QK-norm. Plain loops over the definitions. */
#include <math.h>
#include <stdlib.h>

#include "ops/refs.h"
#include "runtime/base/mem.h"

#define ARGS(Type, c) ((const Type *)(const void *)(c)->args.bytes)
#define MUTABLE(Type, c) ((Type *)(void *)(c)->args.bytes)

static void random_tokens(MjCase *c, int32_t tokens, int32_t vocab)
{
    for (int64_t n = 0; n < tokens; n++) mj_case_set(c, "token", n, mj_case_random(c, (uint32_t)vocab));
}

void mj_setup_embedding_fwd(const MjOpShape *s, void *args)
{
    *(MjEmbeddingFwdArgs *)args = (MjEmbeddingFwdArgs){.tokens = s->tokens, .width = s->width, .vocab = s->vocab};
}
void mj_fill_embedding_fwd(MjCase *c) { random_tokens(c, c->shape.tokens, c->shape.vocab); }
void mj_ref_embedding_fwd(MjCase *c)
{
    const MjEmbeddingFwdArgs *a = ARGS(MjEmbeddingFwdArgs, c);
    for (int64_t n = 0; n < a->tokens; n = mj_case_next(c, n, a->tokens, 1))
        for (int64_t i = 0; i < a->width; i++)
            mj_case_want_within(c, "out", n * a->width + i, mj_case_in(c, "table", (int64_t)a->token[n] * a->width + i), 0.0);
}

void mj_setup_embedding_bwd(const MjOpShape *s, void *args)
{
    *(MjEmbeddingBwdArgs *)args = (MjEmbeddingBwdArgs){.tokens = s->tokens, .width = s->width, .vocab = s->vocab};
}
void mj_fill_embedding_bwd(MjCase *c)
{
    random_tokens(c, c->shape.tokens, c->shape.vocab);
    mj_case_set(c, "live", 0, c->shape.live);
}
void mj_ref_embedding_bwd(MjCase *c)
{
    const MjEmbeddingBwdArgs *a = ARGS(MjEmbeddingBwdArgs, c);
    for (int64_t v = 0; v < a->vocab; v = mj_case_next(c, v, a->vocab, 1))
        for (int64_t i = 0; i < a->width; i = mj_case_next(c, i, a->width, 1)) {
            const double before = mj_case_in(c, "dtable", v * a->width + i);
            double sum = before, size = fabs(before);
            for (int64_t n = 0; n < a->live[0]; n++) {
                if (a->token[n] != v) continue;
                sum += (double)a->dout[n * a->width + i];
                size += fabs((double)a->dout[n * a->width + i]);
            }
            mj_case_want(c, "dtable", v * a->width + i, sum, size);
        }
}

void mj_setup_rmsnorm_fwd(const MjOpShape *s, void *args)
{
    *(MjRmsnormFwdArgs *)args = (MjRmsnormFwdArgs){.tokens = s->tokens, .width = s->width, .eps = 1e-6f};
}
void mj_fill_rmsnorm_fwd(MjCase *c)
{
    if (c->shape.only == 0 || c->shape.only == 3) mj_case_drop(c, "x_out");
    if (c->shape.only == 0 || c->shape.only == 3) mj_case_drop(c, "add");
    if (c->shape.only == 0 || c->shape.only == 1) mj_case_drop(c, "y_f32");
    if (c->shape.only == 2) mj_case_drop(c, "y");
}
void mj_ref_rmsnorm_fwd(MjCase *c)
{
    const MjRmsnormFwdArgs *a = ARGS(MjRmsnormFwdArgs, c);
    double *x = mj_xcalloc((size_t)a->width, sizeof *x);
    for (int64_t n = 0; n < a->tokens; n = mj_case_next(c, n, a->tokens, 1)) {
        const int64_t row = n * a->width;
        double square = 0.0;
        for (int64_t i = 0; i < a->width; i++) {
            x[i] = (double)a->x[row + i];
            if (a->add != NULL) x[i] = (double)(float)(x[i] + mj_ref_decode(MJ_BUF_BF16, a->add, row + i));
            square += x[i] * x[i];
        }
        const double rstd = 1.0 / sqrt(square / a->width + (double)a->eps);
        mj_case_want(c, "rstd", n, rstd, 0.0);
        for (int64_t i = 0; i < a->width; i++) {
            mj_case_want(c, "y", row + i, x[i] * rstd, 0.0);
            mj_case_want(c, "y_f32", row + i, x[i] * rstd, 0.0);
            mj_case_want_within(c, "x_out", row + i, x[i], 0.0);
        }
    }
    free(x);
}

void mj_setup_rmsnorm_quant(const MjOpShape *s, void *args)
{
    *(MjRmsnormQuantArgs *)args = (MjRmsnormQuantArgs){.tokens = s->tokens, .width = s->width, .kmajor = s->kmajor};
}
void mj_fill_rmsnorm_quant(MjCase *c)
{
    if (c->shape.only == 2) mj_case_drop(c, "qt");
    if (c->shape.only == 2) mj_case_drop(c, "qt_scale");
}
void mj_ref_rmsnorm_quant(MjCase *c)
{
    const MjRmsnormQuantArgs *a = ARGS(MjRmsnormQuantArgs, c);
    const int64_t n = (int64_t)a->tokens * a->width;
    double *y = mj_xcalloc((size_t)n + 1, sizeof *y);
    for (int64_t i = 0; i < n; i = mj_case_next(c, i, n, 128 * a->width))
        y[i] = mj_ref_round_bf16((double)(float)((double)a->x[i] * (double)a->rstd[i / a->width]));
    mj_ref_quantise(c, &(MjRefTile){NULL, y, a->tokens, a->tokens, a->width, MJ_T_E4M3, MJ_SCALE_BLOCK, a->kmajor, true, NULL});
    free(y);
}

void mj_setup_rmsnorm_bwd(const MjOpShape *s, void *args)
{
    *(MjRmsnormBwdArgs *)args = (MjRmsnormBwdArgs){.tokens = s->tokens, .width = s->width, .accumulate = s->only != 2};
}
void mj_fill_rmsnorm_bwd(MjCase *c)
{
    if (c->shape.only == 1) mj_case_drop(c, "dy");
    if (c->shape.only == 2) mj_case_drop(c, "dy_bf16");
    if (c->shape.only != 3) mj_case_drop(c, "dy_bf16_2");
    const MjRmsnormBwdArgs *a = ARGS(MjRmsnormBwdArgs, c);
    for (int64_t n = 0; n < a->tokens; n++) {
        double square = 0.0;
        for (int64_t i = 0; i < a->width; i++) square += (double)a->x[n * a->width + i] * (double)a->x[n * a->width + i];
        mj_case_set(c, "rstd", n, 1.0 / sqrt(square / a->width + 1e-6));
    }
}
static double incoming(const MjCase *c, int64_t at)
{
    double d = 0.0;
    if (mj_case_has(c, "dy")) d += mj_case_in(c, "dy", at);
    if (mj_case_has(c, "dy_bf16")) d += mj_case_in(c, "dy_bf16", at);
    if (mj_case_has(c, "dy_bf16_2")) d += mj_case_in(c, "dy_bf16_2", at);
    return d;
}
void mj_ref_rmsnorm_bwd(MjCase *c)
{
    const MjRmsnormBwdArgs *a = ARGS(MjRmsnormBwdArgs, c);
    for (int64_t n = 0; n < a->tokens; n = mj_case_next(c, n, a->tokens, 1)) {
        const double rstd = (double)a->rstd[n];
        double dot = 0.0, size = 0.0;
        for (int64_t i = 0; i < a->width; i++) {
            const double term = incoming(c, n * a->width + i) * (double)a->x[n * a->width + i];
            dot += term;
            size += fabs(term);
        }
        const double along = dot / a->width * rstd * rstd;
        for (int64_t i = 0; i < a->width; i++) {
            const int64_t at = n * a->width + i;
            const double x = (double)a->x[at], dy = incoming(c, at), before = a->accumulate ? mj_case_in(c, "dx", at) : 0.0;
            const double reach = rstd * (fabs(dy) + fabs(x) * size / a->width * rstd * rstd) + fabs(before);
            mj_case_want(c, "dx", at, rstd * (dy - x * along) + before, reach);
        }
    }
}

/* z = rope(x): pairs (j, j + D/2) turned by pos base^(-2j/D) */
static void rope(const uint16_t *x, int32_t pos, double base, int32_t dim, double *z)
{
    for (int j = 0; j < dim / 2; j++) {
        const double angle = pos * pow(base, -2.0 * j / dim);
        const double x1 = mj_ref_decode(MJ_BUF_BF16, x, j), x2 = mj_ref_decode(MJ_BUF_BF16, x, j + dim / 2);
        z[j] = x1 * cos(angle) + x2 * sin(angle);
        z[j + dim / 2] = x2 * cos(angle) - x1 * sin(angle);
    }
}

static void random_positions(MjCase *c, int32_t tokens)
{
    for (int64_t n = 0; n < tokens; n++)
        mj_case_set(c, "pos", n, n % 3 == 0 ? mj_case_random(c, 1000001) : mj_case_random(c, 4096));
}

void mj_setup_rope_qknorm_fwd(const MjOpShape *s, void *args)
{
    *(MjRopeQknormFwdArgs *)args = (MjRopeQknormFwdArgs){.rope_base = 100000.0f, .gain = 1.2f, .eps = 1e-6f, .tokens = s->tokens,
                                                        .heads = s->heads, .head_dim = s->head_dim};
}
void mj_fill_rope_qknorm_fwd(MjCase *c) { random_positions(c, c->shape.tokens); }
void mj_ref_rope_qknorm_fwd(MjCase *c)
{
    const MjRopeQknormFwdArgs *a = ARGS(MjRopeQknormFwdArgs, c);
    const char *out[2] = {"q", "k"}, *rstds[2] = {"q_rstd", "k_rstd"};
    for (int64_t n = 0; n < a->tokens; n = mj_case_next(c, n, a->tokens, 1))
        for (int64_t h = 0; h < a->heads; h++)
            for (int part = 0; part < 2; part++) {
                double z[128], square = 0.0;
                rope(a->qkv + ((n * 3 + part) * a->heads + h) * a->head_dim, a->pos[n], (double)a->rope_base, a->head_dim, z);
                for (int j = 0; j < a->head_dim; j++) square += z[j] * z[j];
                const double rstd = 1.0 / sqrt(square / a->head_dim + (double)a->eps);
                const int64_t at = n * a->heads + h;
                mj_case_want(c, rstds[part], at, rstd, 0.0);
                for (int j = 0; j < a->head_dim; j++)
                    mj_case_want(c, out[part], at * a->head_dim + j, z[j] * rstd * (double)a->gain, 4.0);
            }
}

void mj_setup_rope_qknorm_bwd(const MjOpShape *s, void *args)
{
    *(MjRopeQknormBwdArgs *)args = (MjRopeQknormBwdArgs){.rope_base = 100000.0f, .gain = 1.2f, .eps = 1e-6f, .tokens = s->tokens,
                                                        .heads = s->heads, .head_dim = s->head_dim};
}
void mj_fill_rope_qknorm_bwd(MjCase *c)
{
    const MjRopeQknormBwdArgs *a = ARGS(MjRopeQknormBwdArgs, c);
    random_positions(c, a->tokens);
    for (int64_t n = 0; n < a->tokens; n++)
        for (int64_t h = 0; h < a->heads; h++)
            for (int part = 0; part < 2; part++) {
                const uint16_t *x = a->qkv + ((n * 3 + part) * a->heads + h) * a->head_dim;
                double square = 0.0; /* turning does not change the norm */
                for (int j = 0; j < a->head_dim; j++) square += pow(mj_ref_decode(MJ_BUF_BF16, x, j), 2.0);
                mj_case_set(c, part == 0 ? "q_rstd" : "k_rstd", n * a->heads + h, 1.0 / sqrt(square / a->head_dim + 1e-6));
            }
}
/* dx of one head of q or k: out = gain z rstd, z = rope(x). Returns the size of what its elements are summed from. */
static double head_gradient(const MjRopeQknormBwdArgs *a, int64_t n, int64_t h, int part, double *dx)
{
    const int32_t dim = a->head_dim;
    const int64_t at = n * a->heads + h, x_at = ((n * 3 + part) * a->heads + h) * dim;
    const double rstd = (double)(part == 0 ? a->q_rstd : a->k_rstd)[at], gain = (double)a->gain;
    double d[128], z[128], dz[128], dot = 0.0, reach = 0.0;
    for (int j = 0; j < dim; j++) d[j] = mj_ref_decode(MJ_BUF_BF16, a->dqkv, x_at + j);
    rope(a->qkv + x_at, a->pos[n], (double)a->rope_base, dim, z);
    for (int j = 0; j < dim; j++) dot += d[j] * z[j];
    for (int j = 0; j < dim; j++) {
        dz[j] = gain * rstd * (d[j] - z[j] * rstd * rstd * dot / dim);
        reach = fmax(reach, gain * rstd * (fabs(d[j]) + 4.0));
    }
    for (int j = 0; j < dim / 2; j++) {
        const double angle = a->pos[n] * pow((double)a->rope_base, -2.0 * j / dim);
        dx[j] = dz[j] * cos(angle) - dz[j + dim / 2] * sin(angle);
        dx[j + dim / 2] = dz[j] * sin(angle) + dz[j + dim / 2] * cos(angle);
    }
    return reach;
}
void mj_ref_rope_qknorm_bwd(MjCase *c)
{
    const MjRopeQknormBwdArgs *a = ARGS(MjRopeQknormBwdArgs, c);
    for (int64_t n = 0; n < a->tokens; n = mj_case_next(c, n, a->tokens, 1))
        for (int64_t h = 0; h < a->heads; h++)
            for (int part = 0; part < 3; part++) {
                const int64_t at = ((n * 3 + part) * a->heads + h) * a->head_dim;
                double dx[128];
                const double reach = part < 2 ? head_gradient(a, n, h, part, dx) : 0.0;
                for (int j = 0; j < a->head_dim; j++) {
                    if (part < 2) mj_case_want(c, "dqkv", at + j, dx[j], reach);
                    else mj_case_want_within(c, "dqkv", at + j, mj_ref_decode(MJ_BUF_BF16, a->dqkv, at + j), 0.0);
                }
            }
}

void mj_setup_rope_qknorm_bwd_quant(const MjOpShape *s, void *args)
{
    mj_setup_rope_qknorm_bwd(s, args);
    ((MjRopeQknormBwdArgs *)args)->kmajor = s->kmajor;
}
/* The values in double, and how far off they may be in bf16: half a step, and f32 accumulation as mj_case_want has it. */
void mj_ref_rope_qknorm_bwd_quant(MjCase *c)
{
    const MjRopeQknormBwdArgs *a = ARGS(MjRopeQknormBwdArgs, c);
    const int64_t dim = a->head_dim, cols = 3 * a->heads * dim;
    double *y = mj_xcalloc((size_t)(a->tokens * cols) + 1, sizeof *y), *slack = mj_xcalloc((size_t)(a->tokens * cols) + 1, sizeof *slack);
    for (int64_t n = 0; n < a->tokens; n = mj_case_next(c, n, a->tokens, 128))
        for (int64_t i = 0; i < cols; i += dim) {
            const int64_t at = n * cols + i, head = i / dim;
            if (head >= 2 * a->heads) { /* v's */
                for (int64_t j = 0; j < dim; j++) y[at + j] = mj_ref_decode(MJ_BUF_BF16, a->dqkv, at + j);
                continue;
            }
            const double reach = head_gradient(a, n, head % a->heads, (int)(head / a->heads), y + at);
            for (int64_t j = 0; j < dim; j++)
                slack[at + j] = 0x1p-8 * fabs(y[at + j]) + 0x1p-23 * (4.0 + sqrt((double)dim)) * fmax(reach, fabs(y[at + j]));
        }
    mj_ref_quantise(c, &(MjRefTile){NULL, y, a->tokens, a->tokens, cols, MJ_T_E4M3, MJ_SCALE_BLOCK, a->kmajor, true, NULL, slack});
    free(slack);
    free(y);
}
