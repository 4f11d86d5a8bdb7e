/* References in double precision: quantisers, ReLU^2, the per-tensor scale. */
#include <math.h>
#include <stdlib.h>

#include "ops/refs.h"
#include "runtime/base/mem.h"

#define ARGS(Type, c) ((const Type *)(const void *)(c)->args.bytes)

static double fp8_max(int32_t type) { return type == MJ_T_E5M2 ? 57344.0 : 448.0; }
static double block_scale(double amax, int32_t type) { return amax > 0x1p-100 ? amax / fp8_max(type) : 1.0; }
static double clamp(double x, double most) { return x > most ? most : x < -most ? -most : x; }

/* Which outputs a case of these ops has: shape.only 1 = no bf16 copy, 2 = row blocks alone. */
void mj_ref_drop_copies(MjCase *c, const char *copy, int32_t q_type, int32_t scale_mode)
{
    const bool block = q_type != MJ_T_BF16 && scale_mode == MJ_SCALE_BLOCK;
    if (q_type != MJ_T_BF16 && c->shape.only != 0) mj_case_drop(c, copy);
    if (q_type == MJ_T_BF16) {
        mj_case_drop(c, "q");
        mj_case_drop(c, "q_scale");
    }
    const bool along = block || (q_type != MJ_T_BF16 && c->shape.kmajor != 0);
    if (!along || c->shape.only == 2) mj_case_drop(c, "qt");
    if (!block || c->shape.only == 2) mj_case_drop(c, "qt_scale");
}
/* The same for ops that know recipe tensor. */
void mj_ref_drop_outputs(MjCase *c, const char *copy, int32_t q_type, int32_t scale_mode)
{
    mj_ref_drop_copies(c, copy, q_type, scale_mode);
    if (q_type == MJ_T_BF16 || scale_mode != MJ_SCALE_TENSOR) mj_case_drop(c, "tensor_scale");
    else mj_case_set(c, "tensor_scale", 0, 4.0 / fp8_max(q_type));
}

static double largest(const double *x, int64_t n, int64_t stride)
{
    double m = 0.0;
    for (int64_t i = 0; i < n; i++) m = fmax(m, fabs(x[i * stride]));
    return m;
}

static int64_t along(const MjRefTile *t, int64_t r, int64_t i) /* where element (r, i) of qt lies */
{
    return t->kmajor ? i * MJ_KMAJOR_STRIDE(t->rows) + r : r * t->cols + i;
}

static void quantise_tensor(MjCase *c, const MjRefTile *t)
{
    const double scale = (double)t->tensor_scale[0], most = fp8_max(t->q_type);
    mj_case_want_within(c, "q_scale", 0, scale, 0.0);
    for (int64_t r = 0; r < t->used; r = mj_case_next(c, r, t->used, 128))
        for (int64_t i = 0; i < t->cols; i++) {
            const double q = clamp(t->x[r * t->cols + i] / scale, most);
            mj_case_want(c, "q", r * t->cols + i, q, 0.0);
            if (t->kmajor) mj_case_want(c, "qt", along(t, r, i), q, 0.0);
        }
}

/* The scale of a block of n values from `at` on, and how far off it may be. */
static double scale_of(const MjRefTile *t, int64_t at, int64_t n, int64_t stride, double *off)
{
    *off = t->slack != NULL ? largest(t->slack + at, n, stride) / fp8_max(t->q_type) : 0.0;
    return block_scale(largest(t->x + at, n, stride), t->q_type);
}

static void want_scale(MjCase *c, const char *name, int64_t i, double scale, double off)
{
    if (off > 0.0) mj_case_want_within(c, name, i, scale, off + 0x1p-22 * scale);
    else mj_case_want(c, name, i, scale, 0.0);
}

/* x[at] over a scale. Where it is not exact: half a step of e4m3, and what x, the scale and the step are off. */
static void want_quotient(MjCase *c, const MjRefTile *t, const char *name, int64_t i, int64_t at, double scale, double off)
{
    const double q = t->x[at] / scale, a = fabs(q);
    if (t->slack == NULL) mj_case_want(c, name, i, q, 0.0);
    else mj_case_want_within(c, name, i, q, fmax(0x1p-4 * a, 0x1p-10) + 1.1 * (t->slack[at] + a * off) / scale);
}

static void quantise_blocks(MjCase *c, const MjRefTile *t)
{
    double off;
    for (int64_t r = 0; r < t->used; r = mj_case_next(c, r, t->used, 128))
        for (int64_t b = 0; b < t->cols; b += 128) {
            const int64_t n = t->cols - b < 128 ? t->cols - b : 128, at = r * t->cols + b;
            const double scale = scale_of(t, at, n, 1, &off);
            want_scale(c, "q_scale", b / 128 * t->rows + r, scale, off);
            for (int64_t i = 0; i < n; i++) want_quotient(c, t, "q", at + i, at + i, scale, off);
        }
    for (int64_t b = 0; b < t->used; b = 128 * mj_case_next(c, b / 128, (t->used + 127) / 128, 1))
        for (int64_t i = 0; i < t->cols; i++) {
            const int64_t n = t->used - b < 128 ? t->used - b : 128;
            const double scale = scale_of(t, b * t->cols + i, n, t->cols, &off);
            want_scale(c, "qt_scale", b / 128 * t->cols + i, scale, off);
            for (int64_t r = b; r < b + n; r++) want_quotient(c, t, "qt", along(t, r, i), r * t->cols + i, scale, off);
        }
}

/* Rows from `used` on stay untouched; of a dense matrix that is stored along its rows, the rest of the stride is zeros. */
void mj_ref_quantise(MjCase *c, const MjRefTile *t)
{
    for (int64_t r = 0; t->copy != NULL && r < t->used; r = mj_case_next(c, r, t->used, 128))
        for (int64_t i = r * t->cols; i < (r + 1) * t->cols; i++) mj_case_want_within(c, t->copy, i, t->x[i], 0.0);
    if (t->q_type == MJ_T_BF16) return;
    if (t->scale_mode == MJ_SCALE_TENSOR) quantise_tensor(c, t);
    else quantise_blocks(c, t);
    for (int64_t r = t->rows; t->kmajor && t->dense && r < MJ_KMAJOR_STRIDE(t->rows); r++)
        for (int64_t i = 0; i < t->cols; i++) mj_case_want_within(c, "qt", along(t, r, i), 0.0, 0.0);
}

/* A few rows of special values: zeros (scale 1), tiny, huge; then offsets of the routed layout when experts > 0. */
static int64_t fill_matrix(MjCase *c, const char *name, const int32_t *offset, int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < cols && rows > 8; i++) {
        mj_case_set(c, name, 3 * cols + i, 0.0);
        mj_case_set(c, name, 4 * cols + i, 1e-38 * mj_case_normal(c));
        mj_case_set(c, name, 5 * cols + i, 1e12 * mj_case_normal(c));
    }
    if (offset == NULL) return rows;
    int32_t at = 0, experts = c->shape.experts;
    for (int64_t e = 0; e <= experts; e++) { /* the last 128 rows are always left over */
        mj_case_set(c, "offset", e, at);
        const int64_t room = (rows - 128 - at) / 128;
        if (room > 0 && !(c->shape.route == 2 && e % 2 == 1)) at += 128 * (int32_t)mj_case_random(c, (uint32_t)room + 1);
    }
    return offset[experts];
}

static double relu2(double x) { return x > 0.0 ? x * x : 0.0; }

void mj_setup_relu2_fwd(const MjOpShape *s, void *args)
{
    *(MjRelu2FwdArgs *)args = (MjRelu2FwdArgs){.rows = s->rows, .cols = s->cols, .experts = s->experts, .q_type = s->q_type,
                                               .scale_mode = s->scale_mode, .kmajor = s->kmajor};
}
void mj_fill_relu2_fwd(MjCase *c)
{
    const MjRelu2FwdArgs *a = ARGS(MjRelu2FwdArgs, c);
    if (a->experts == 0) mj_case_drop(c, "offset");
    fill_matrix(c, "x", a->offset, a->rows, a->cols);
    mj_ref_drop_outputs(c, "y", a->q_type, a->scale_mode);
}
void mj_ref_relu2_fwd(MjCase *c)
{
    const MjRelu2FwdArgs *a = ARGS(MjRelu2FwdArgs, c);
    const int64_t used = a->offset != NULL ? a->offset[a->experts] : a->rows, n = used * a->cols;
    double *y = mj_xcalloc((size_t)n + 1, sizeof *y);
    for (int64_t i = 0; i < n; i = mj_case_next(c, i, n, 128 * a->cols)) y[i] = mj_ref_round_bf16((double)(float)relu2(mj_case_in(c, "x", i)));
    mj_ref_quantise(c, &(MjRefTile){"y", y, used, a->rows, a->cols, a->q_type, a->scale_mode, a->kmajor, a->offset == NULL,
                                    a->tensor_scale});
    free(y);
}

void mj_setup_relu2_bwd(const MjOpShape *s, void *args)
{
    *(MjRelu2BwdArgs *)args = (MjRelu2BwdArgs){.rows = s->rows, .cols = s->cols, .experts = s->experts, .q_type = s->q_type,
                                               .scale_mode = s->scale_mode, .kmajor = s->kmajor, .gated = s->gated,
                                               .slots = s->gated ? s->rows : 0};
}
void mj_fill_relu2_bwd(MjCase *c)
{
    const MjRelu2BwdArgs *a = ARGS(MjRelu2BwdArgs, c);
    if (a->experts == 0) mj_case_drop(c, "offset");
    fill_matrix(c, "dy", a->offset, a->rows, a->cols);
    mj_ref_drop_outputs(c, "dx", a->q_type, a->scale_mode);
    if (!a->gated) {
        mj_case_drop(c, "slot_of");
        mj_case_drop(c, "gate");
        mj_case_drop(c, "dgate");
    }
    for (int64_t r = 0; a->gated && r < a->rows; r++) { /* as many slots as rows; some rows are padding, some gates zero */
        mj_case_set(c, "slot_of", r, mj_case_random(c, 8) == 0 ? -1.0 : (double)(a->rows - 1 - r));
        mj_case_set(c, "gate", r, mj_case_random(c, 16) == 0 ? 0.0 : mj_case_uniform(c, 0.01, 1.0));
    }
}
/* Row r's part in the gradient of its gate. */
static void gate_gradient(MjCase *c, const MjRelu2BwdArgs *a, int64_t r)
{
    const int64_t slot = a->slot_of[r];
    double sum = 0.0, size = 0.0;
    if (slot < 0) return;
    const double gate = (double)a->gate[slot];
    for (int64_t i = r * a->cols; i < (r + 1) * a->cols; i++) {
        const double term = relu2(mj_case_in(c, "x", i)) * mj_case_in(c, "dy", i);
        sum += term;
        size += fabs(term);
    }
    if (gate == 0.0) mj_case_want_within(c, "dgate", slot, 0.0, 0.0);
    else mj_case_want(c, "dgate", slot, sum / gate, size / gate);
}
void mj_ref_relu2_bwd(MjCase *c)
{
    const MjRelu2BwdArgs *a = ARGS(MjRelu2BwdArgs, c);
    const int64_t used = a->offset != NULL ? a->offset[a->experts] : a->rows, n = used * a->cols;
    double *dx = mj_xcalloc((size_t)n + 1, sizeof *dx);
    for (int64_t i = 0; i < n; i = mj_case_next(c, i, n, 128 * a->cols)) {
        const double x = mj_case_in(c, "x", i);
        dx[i] = mj_ref_round_bf16(x > 0.0 ? (double)(float)(2.0 * x * mj_case_in(c, "dy", i)) : 0.0);
    }
    for (int64_t r = 0; a->gated && r < used; r = mj_case_next(c, r, used, 128)) gate_gradient(c, a, r);
    mj_ref_quantise(c, &(MjRefTile){"dx", dx, used, a->rows, a->cols, a->q_type, a->scale_mode, a->kmajor, a->offset == NULL,
                                    a->tensor_scale});
    free(dx);
}

void mj_setup_quantize(const MjOpShape *s, void *args)
{
    *(MjQuantizeArgs *)args = (MjQuantizeArgs){.rows = s->rows, .cols = s->cols, .experts = s->experts, .x_type = s->x_type,
                                              .q_type = s->q_type, .scale_mode = s->scale_mode, .kmajor = s->kmajor};
}
void mj_fill_quantize(MjCase *c)
{
    const MjQuantizeArgs *a = ARGS(MjQuantizeArgs, c);
    if (a->experts == 0) mj_case_drop(c, "offset");
    fill_matrix(c, "x", a->offset, a->rows, a->cols);
    mj_ref_drop_outputs(c, "y", a->q_type, a->scale_mode);
}
void mj_ref_quantize(MjCase *c)
{
    const MjQuantizeArgs *a = ARGS(MjQuantizeArgs, c);
    const int64_t used = a->offset != NULL ? a->offset[a->experts] : a->rows, n = used * a->cols;
    double *x = mj_xcalloc((size_t)n + 1, sizeof *x);
    for (int64_t i = 0; i < n; i = mj_case_next(c, i, n, 128 * a->cols)) x[i] = mj_ref_round_bf16(mj_case_in(c, "x", i));
    mj_ref_quantise(c, &(MjRefTile){"y", x, used, a->rows, a->cols, a->q_type, a->scale_mode, a->kmajor, a->offset == NULL,
                                    a->tensor_scale});
    free(x);
}

void mj_setup_quantize_weight(const MjOpShape *s, void *args)
{
    *(MjQuantizeWeightArgs *)args = (MjQuantizeWeightArgs){.experts = s->experts, .out_features = s->out, .in_features = s->in,
                                                          .q_type = s->q_type, .scale_mode = s->scale_mode};
}
void mj_fill_quantize_weight(MjCase *c)
{
    const MjQuantizeWeightArgs *a = ARGS(MjQuantizeWeightArgs, c);
    if (a->q_type == MJ_T_BF16) {
        mj_case_drop(c, "q");
        mj_case_drop(c, "scale");
    }
    if (a->q_type == MJ_T_BF16 || c->shape.only != 0) mj_case_drop(c, "q_t");
    if (c->shape.only != 0) mj_case_drop(c, "w_bf16");
    if (a->q_type == MJ_T_BF16 || a->scale_mode != MJ_SCALE_TENSOR) mj_case_drop(c, "tensor_scale");
    else mj_case_set(c, "tensor_scale", 0, 3.0 / fp8_max(a->q_type));
}
/* One 128 x 128 tile of expert e from row o, column i. */
static void weight_tile(MjCase *c, const MjQuantizeWeightArgs *a, int64_t e, int64_t o, int64_t i, int64_t tile)
{
    const int64_t out = a->out_features, in = a->in_features;
    const int64_t o_end = o + 128 < out ? o + 128 : out, i_end = i + 128 < in ? i + 128 : in;
    double amax = 0.0;
    for (int64_t r = o; r < o_end; r++)
        for (int64_t j = i; j < i_end; j++) amax = fmax(amax, fabs((double)a->w[(e * out + r) * in + j]));
    double scale = block_scale(amax, a->q_type);
    if (a->scale_mode == MJ_SCALE_TENSOR) {
        scale = (double)a->tensor_scale[0];
        mj_case_want_within(c, "scale", 0, scale, 0.0);
    } else {
        mj_case_want(c, "scale", tile, scale, 0.0);
    }
    for (int64_t r = o; r < o_end; r++)
        for (int64_t j = i; j < i_end; j++) {
            const double q = clamp((double)a->w[(e * out + r) * in + j] / scale, fp8_max(a->q_type));
            mj_case_want(c, "q", (e * out + r) * in + j, q, 0.0);
            mj_case_want(c, "q_t", (e * in + j) * out + r, q, 0.0);
        }
}
void mj_ref_quantize_weight(MjCase *c)
{
    const MjQuantizeWeightArgs *a = ARGS(MjQuantizeWeightArgs, c);
    const int64_t all = (int64_t)a->experts * a->out_features * a->in_features;
    const int64_t tiles = (int64_t)a->experts * MJ_CEIL(a->out_features, 128) * MJ_CEIL(a->in_features, 128);
    int64_t tile = 0;
    for (int64_t i = 0; i < all; i = mj_case_next(c, i, all, 1024)) mj_case_want_within(c, "w_bf16", i, mj_ref_round_bf16((double)a->w[i]), 0.0);
    if (a->q_type == MJ_T_BF16) return;
    for (int64_t e = 0; e < a->experts; e++)
        for (int64_t o = 0; o < a->out_features; o += 128)
            for (int64_t i = 0; i < a->in_features; i += 128) {
                if (mj_case_takes(c, tile, tiles)) weight_tile(c, a, e, o, i, tile);
                tile++;
            }
}

void mj_setup_amax(const MjOpShape *s, void *args)
{
    *(MjAmaxArgs *)args = (MjAmaxArgs){.rows = s->only == 1 ? 0 : s->rows, .rows64 = s->only == 1 ? s->rows : 0, .cols = s->cols,
                                      .experts = s->experts, .x_type = s->x_type, .q_type = s->q_type, .transform = s->transform};
}
void mj_fill_amax(MjCase *c)
{
    const MjAmaxArgs *a = ARGS(MjAmaxArgs, c);
    if (a->transform != 2) mj_case_drop(c, "x2");
    if (a->experts == 0) mj_case_drop(c, "offset");
    if (a->offset != NULL) fill_matrix(c, "x", a->offset, a->rows, a->cols);
    for (int64_t i = 0; c->shape.only == 2 && i < (int64_t)a->rows * a->cols; i++) mj_case_set(c, "x", i, 0.0);
}
void mj_ref_amax(MjCase *c)
{
    const MjAmaxArgs *a = ARGS(MjAmaxArgs, c);
    const int64_t rows = a->offset != NULL ? a->offset[a->experts] : a->rows64 > 0 ? a->rows64 : a->rows;
    double amax = 0.0;
    for (int64_t i = 0; i < rows * a->cols; i++) {
        double x = mj_case_in(c, "x", i);
        if (a->transform == 1) x = mj_ref_round_bf16((double)(float)relu2(x));
        if (a->transform == 2) x = mj_ref_round_bf16((double)(float)(x > 0.0 ? 2.0 * x * mj_case_in(c, "x2", i) : 0.0));
        amax = fmax(amax, fabs(x));
    }
    mj_case_want(c, "scale", 0, block_scale(amax, a->q_type), 0.0);
}
