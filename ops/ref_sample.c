/* Single elements of the matrix ops' outputs in double precision, from the same definitions as ref_gemm.c and
 * ref_attention.c, for shapes whose whole reference would take minutes. What the backward pass reads (out, lse) is taken as
 * given, so that it need not be the true forward pass. */
#include <math.h>
#include <string.h>

#include "ops/ref_attention.h"
#include "ops/ref_gemm.h"
#include "ops/refs.h"

#define TILE 128
#define GEMM_SAMPLES 1024
#define ATTENTION_ROWS 48
#define ATTENTION_FILL_FLOPS 4e9 /* a forward pass on the host above this is not waited for */

/* ---- GEMM -------------------------------------------------------------------------------------------------------- */

static void gemm_element(MjCase *c, const MjGemmArgs *g, int64_t e, int64_t row, int64_t col)
{
    const int64_t at = (g->group == MJ_GROUP_K ? e * g->m + row : row) * g->n + col;
    if (g->group == MJ_GROUP_M) {
        e = 0;
        while (e < g->experts && row >= g->offset[e + 1]) e++;
        if (e == g->experts) return mj_case_want_within(c, "c", at, 0.0, -1.0);
    }
    double value, size, cut;
    mj_ref_gemm_element(g, e, row, col, &value, &size, &cut);
    mj_case_want_within(c, "c", at, value, mj_ref_gemm_tolerance(g, value, size, cut));
}

/* One element in each tile, or in a random choice of them, and the corners of the first and the last. */
void mj_sample_gemm(MjCase *c)
{
    const MjGemmArgs *g = (const MjGemmArgs *)(const void *)c->args.bytes;
    const int64_t groups = g->group == MJ_GROUP_K ? g->experts : 1;
    const int64_t across = MJ_CEIL(g->n, TILE), down = MJ_CEIL(g->m, TILE), tiles = groups * down * across;
    for (int64_t s = 0; s < GEMM_SAMPLES; s++) {
        const int64_t t = tiles <= GEMM_SAMPLES ? s % tiles : (int64_t)mj_case_random(c, (uint32_t)tiles);
        const int64_t row = t / across % down * TILE + mj_case_random(c, TILE), col = t % across * TILE + mj_case_random(c, TILE);
        gemm_element(c, g, t / across / down, row < g->m ? row : g->m - 1, col < g->n ? col : g->n - 1);
    }
    for (int corner = 0; corner < 8; corner++)
        gemm_element(c, g, (corner & 4) != 0 ? groups - 1 : 0, (corner & 2) != 0 ? g->m - 1 : 0, (corner & 1) != 0 ? g->n - 1 : 0);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

typedef struct View {
    const uint16_t *q, *k, *qkv, *out, *dout;
    const int32_t *pos;
    const float *lse;
    double scale;
    int64_t tokens, heads, dim, window;
} View;

static double value_of(uint16_t bits)
{
    const uint32_t u = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return (double)f;
}

static double dot(const uint16_t *x, const uint16_t *y, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += value_of(x[i]) * value_of(y[i]);
    return sum;
}

static double rms(const uint16_t *x, int64_t n) { return sqrt(dot(x, x, n) / (double)n); }
static const uint16_t *at(const View *a, const uint16_t *x, int64_t n, int64_t h) { return x + (n * a->heads + h) * a->dim; }
static const uint16_t *v_at(const View *a, int64_t n, int64_t h) { return a->qkv + ((n * 3 + 2) * a->heads + h) * a->dim; }
static double score(const View *a, int64_t i, int64_t j, int64_t h)
{
    return a->scale * dot(at(a, a->q, i, h), at(a, a->k, j, h), a->dim);
}
static int64_t first_key(const View *a, int64_t i)
{
    const int64_t begin = i - a->pos[i], near = i - a->window + 1;
    return begin > near ? begin : near;
}

/* The r-th sampled row: the corners first, then random ones. */
static void pick(MjCase *c, const View *a, int r, int64_t *n, int64_t *h)
{
    *n = r < 4 ? (r & 1) * (a->tokens - 1) : (int64_t)mj_case_random(c, (uint32_t)a->tokens);
    *h = r < 4 ? (r >> 1) * (a->heads - 1) : (int64_t)mj_case_random(c, (uint32_t)a->heads);
}

/* One query in two passes: the largest score first. */
static double forward_row(const View *a, int64_t i, int64_t h, double *out)
{
    double most = -INFINITY, sum = 0.0;
    for (int64_t j = first_key(a, i); j <= i; j++) most = fmax(most, score(a, i, j, h));
    memset(out, 0, (size_t)a->dim * sizeof *out);
    for (int64_t j = first_key(a, i); j <= i; j++) {
        const double p = exp(score(a, i, j, h) - most);
        const uint16_t *v = v_at(a, j, h);
        sum += p;
        for (int64_t d = 0; d < a->dim; d++) out[d] += p * value_of(v[d]);
    }
    for (int64_t d = 0; d < a->dim; d++) out[d] /= sum;
    return most + log(sum);
}

void mj_sample_attention_fwd(MjCase *c)
{
    const MjAttentionFwdArgs *g = (const MjAttentionFwdArgs *)(const void *)c->args.bytes;
    const View a = {.q = g->q, .k = g->k, .qkv = g->qkv, .pos = g->pos, .scale = (double)g->scale, .tokens = g->tokens,
                    .heads = g->heads, .dim = g->head_dim, .window = g->window};
    double out[ATTENTION_ROWS][128], lse[ATTENTION_ROWS], all = 0.0;
    int64_t n[ATTENTION_ROWS], h[ATTENTION_ROWS];
    for (int r = 0; r < ATTENTION_ROWS; r++) {
        pick(c, &a, r, &n[r], &h[r]);
        lse[r] = forward_row(&a, n[r], h[r], out[r]);
        for (int64_t d = 0; d < a.dim; d++) all += out[r][d] * out[r][d];
    }
    all = sqrt(all / (double)(ATTENTION_ROWS * a.dim));
    for (int r = 0; r < ATTENTION_ROWS; r++) {
        double own = 0.0;
        for (int64_t d = 0; d < a.dim; d++) own += out[r][d] * out[r][d];
        const double tolerance = MJ_REF_ATTENTION_TOLERANCE * (sqrt(own / (double)a.dim) + all);
        for (int64_t d = 0; d < a.dim; d++)
            mj_case_want_within(c, "out", (n[r] * a.heads + h[r]) * a.dim + d, out[r][d], tolerance);
        mj_case_want_within(c, "lse", h[r] * a.tokens + n[r], lse[r], MJ_REF_ATTENTION_LSE_TOLERANCE);
    }
}

bool mj_sample_attention_fill(MjCase *c)
{
    const MjAttentionBwdArgs *g = (const MjAttentionBwdArgs *)(const void *)c->args.bytes;
    const int64_t window = g->window < g->tokens ? g->window : g->tokens;
    if (4.0 * (double)g->tokens * (double)window * g->heads * g->head_dim < ATTENTION_FILL_FLOPS) return false;
    /* Scores of normal q and k are normal: the mean of exp is exp(1/2). `out` is random already. */
    for (int64_t h = 0; h < g->heads; h++)
        for (int64_t n = 0; n < g->tokens; n++) {
            const int64_t keys = g->pos[n] + 1 < g->window ? g->pos[n] + 1 : g->window;
            mj_case_set(c, "lse", h * g->tokens + n, log((double)keys) + 0.5);
        }
    return true;
}

/* What query i and key j have to do with each other. */
typedef struct Pair {
    double p, ds, ds_size;
} Pair;
static Pair pair_of(const View *a, int64_t i, int64_t j, int64_t h, double delta, double delta_size)
{
    const double p = exp(score(a, i, j, h) - (double)a->lse[h * a->tokens + i]);
    const double dp = dot(at(a, a->dout, i, h), v_at(a, j, h), a->dim);
    return (Pair){p, a->scale * p * (dp - delta), a->scale * p * (fabs(dp) + delta_size)};
}
static double delta_of(const View *a, int64_t i, int64_t h, double *size)
{
    const uint16_t *out = at(a, a->out, i, h), *dout = at(a, a->dout, i, h);
    double sum = 0.0;
    *size = 0.0;
    for (int64_t d = 0; d < a->dim; d++) {
        sum += value_of(out[d]) * value_of(dout[d]);
        *size += fabs(value_of(out[d]) * value_of(dout[d]));
    }
    return sum;
}
static void add(double *to, double factor, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) to[i] += factor * value_of(x[i]);
}
static void want_row(MjCase *c, const View *a, int32_t part, int64_t n, int64_t h, const double *row, double size)
{
    for (int64_t d = 0; d < a->dim; d++) mj_want_attention_gradient(c, part, n, h, d, row[d], size);
}

static void want_dq(MjCase *c, const View *a, int64_t i, int64_t h)
{
    double dq[128] = {0}, size = 0.0, delta_size;
    const double delta = delta_of(a, i, h, &delta_size);
    for (int64_t j = first_key(a, i); j <= i; j++) {
        const Pair w = pair_of(a, i, j, h, delta, delta_size);
        add(dq, w.ds, at(a, a->k, j, h), a->dim);
        size += w.ds_size * rms(at(a, a->k, j, h), a->dim);
    }
    want_row(c, a, 0, i, h, dq, size);
}

static void want_dkv(MjCase *c, const View *a, int64_t j, int64_t h)
{
    double dk[128] = {0}, dv[128] = {0}, dk_size = 0.0, dv_size = 0.0, delta_size;
    for (int64_t i = j; i < a->tokens && i < j + a->window && (i == j || a->pos[i] != 0); i++) {
        const double delta = delta_of(a, i, h, &delta_size);
        const Pair w = pair_of(a, i, j, h, delta, delta_size);
        add(dk, w.ds, at(a, a->q, i, h), a->dim);
        add(dv, w.p, at(a, a->dout, i, h), a->dim);
        dk_size += w.ds_size * rms(at(a, a->q, i, h), a->dim);
        dv_size += w.p * rms(at(a, a->dout, i, h), a->dim);
    }
    want_row(c, a, 1, j, h, dk, dk_size);
    want_row(c, a, 2, j, h, dv, dv_size);
}

void mj_sample_attention_bwd(MjCase *c)
{
    const MjAttentionBwdArgs *g = (const MjAttentionBwdArgs *)(const void *)c->args.bytes;
    const View a = {.q = g->q, .k = g->k, .qkv = g->qkv, .out = g->out, .dout = g->dout, .pos = g->pos, .lse = g->lse,
                    .scale = (double)g->scale, .tokens = g->tokens, .heads = g->heads, .dim = g->head_dim, .window = g->window};
    for (int r = 0; r < ATTENTION_ROWS; r++) {
        int64_t n, h;
        pick(c, &a, r, &n, &h);
        want_dq(c, &a, n, h);
        want_dkv(c, &a, n, h);
    }
}
