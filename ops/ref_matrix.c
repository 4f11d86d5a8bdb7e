/* Cases of the matrix ops, GEMM and attention: shapes, inputs, and what the references of ref_gemm.h and ref_attention.h
 * say of the outputs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/check.h"
#include "ops/ref_attention.h"
#include "ops/ref_gemm.h"
#include "ops/refs.h"
#include "runtime/base/mem.h"

#define END {.tokens = -1}

/* ---- GEMM -------------------------------------------------------------------------------------------------------- */

#define BF16 .a_type = MJ_T_BF16, .b_type = MJ_T_BF16
#define FP8 .a_type = MJ_T_E4M3, .b_type = MJ_T_E4M3
#define FP8_GRAD .a_type = MJ_T_E5M2, .b_type = MJ_T_E4M3
#define BLOCK .scale_mode = MJ_SCALE_BLOCK
#define TENSOR .scale_mode = MJ_SCALE_TENSOR
#define TO_F32 .c_type = MJ_T_F32
#define ADD .c_type = MJ_T_F32, .epilogue = MJ_EPI_ACCUMULATE
#define NN .layout = MJ_GEMM_NN
#define TN .layout = MJ_GEMM_TN
#define BY_M(e) .group = MJ_GROUP_M, .experts = (e)
#define BY_K(e) .group = MJ_GROUP_K, .experts = (e)

/* `capacity`: rows of every expert; 0: as `route` says. `piece`: pieces of so many rows, without offsets. `m` (or `k` for BY_K) is
 * the layout's upper bound. */
const MjOpShape mj_shapes_gemm[] = {
    {.m = 17, .n = 33, .k = 70, BF16},
    {.m = 1, .n = 320, .k = 256, BF16, ADD},
    {.m = 301, .n = 65, .k = 900, BF16, TO_F32},
    {.m = 19, .n = 71, .k = 130, NN, BF16},
    {.m = 70, .n = 64, .k = 1538, NN, BF16, TO_F32},
    {.m = 129, .n = 67, .k = 17, TN, BF16, ADD},
    {.m = 64, .n = 64, .k = 1, TN, BF16, TO_F32},
    {.m = 33, .n = 130, .k = 801, TN, BF16, ADD},
    {.m = 77, .n = 320, .k = 256, FP8, BLOCK},
    {.m = 40, .n = 96, .k = 256, FP8, TENSOR},
    {.m = 77, .n = 192, .k = 320, NN, FP8, BLOCK},
    {.m = 45, .n = 96, .k = 256, NN, FP8_GRAD, TENSOR},
    {.m = 96, .n = 130, .k = 300, TN, FP8, BLOCK, ADD},
    {.m = 64, .n = 96, .k = 150, TN, FP8_GRAD, TENSOR, ADD},
    {.m = 1024, .n = 96, .k = 128, BY_M(5), BF16},
    {.m = 640, .n = 72, .k = 64, BY_M(3), BF16, .route = 1},
    {.m = 1024, .n = 192, .k = 130, BY_M(5), FP8, BLOCK, .route = 2},
    {.m = 640, .n = 64, .k = 128, BY_M(5), FP8, TENSOR},
    {.m = 640, .n = 64, .k = 192, NN, BY_M(4), BF16, .route = 2},
    {.m = 640, .n = 192, .k = 256, NN, BY_M(4), FP8, BLOCK, .route = 1},
    {.m = 640, .n = 64, .k = 128, NN, BY_M(4), FP8_GRAD, TENSOR},
    {.m = 768, .n = 64, .k = 64, BY_M(3), BF16, .capacity = 200},
    {.m = 40, .n = 72, .k = 1024, TN, BY_K(5), BF16, TO_F32, .route = 2},
    {.m = 130, .n = 72, .k = 1024, TN, BY_K(2), BF16, ADD, .route = 1},
    {.m = 64, .n = 130, .k = 1024, TN, BY_K(5), FP8, BLOCK, ADD, .route = 2},
    {.m = 64, .n = 72, .k = 1024, TN, BY_K(3), FP8_GRAD, TENSOR, ADD},
    {.m = 264, .n = 72, .k = 700, TN, BY_K(4), BF16, TO_F32, .piece = 256},
    {.m = 200, .n = 136, .k = 1000, TN, BY_K(3), FP8, BLOCK, TO_F32, .piece = 384},
    {.m = 64, .n = 72, .k = 384, TN, BY_K(2), FP8_GRAD, TENSOR, TO_F32, .piece = 256},
    END,
};
const MjOpShape mj_bench_gemm[] = {
    {.m = 1024, .n = 1024, .k = 1024, BF16},
    {.m = 4096, .n = 1024, .k = 768, BY_M(8), FP8, BLOCK, .capacity = 512},
    {.m = 4096, .n = 1024, .k = 768, BY_M(8), BF16, .capacity = 512},
    {.m = 4096, .n = 768, .k = 1024, NN, BY_M(8), FP8, BLOCK, .capacity = 512},
    {.m = 1024, .n = 768, .k = 4096, TN, BY_K(8), FP8, BLOCK, ADD, .capacity = 512},
    {.m = 2048, .n = 768, .k = 256, BF16},
    {.m = 2048, .n = 256, .k = 768, NN, BF16},
    {.m = 768, .n = 256, .k = 2048, TN, BF16, ADD},
    END,
};

/* A GPU's templates want 16-byte rows, and fp8 along K. */
void mj_adapt_gemm(MjFamily family, MjOpShape *s)
{
    if (family == MJ_FAMILY_CPU) return;
    s->kmajor = s->a_type != MJ_T_BF16;
    s->n = MJ_CEIL(s->n, 16) * 16;
    if (s->layout == MJ_GEMM_TN) s->m = MJ_CEIL(s->m, 16) * 16;
    else s->k = MJ_CEIL(s->k, 16) * 16;
}

void mj_setup_gemm(const MjOpShape *shape, void *args)
{
    MjGemmArgs *g = args;
    *g = (MjGemmArgs){
        .m = shape->m, .n = shape->n, .k = shape->k, .experts = shape->experts > 0 ? shape->experts : 1,
        .layout = shape->layout, .group = shape->group, .a_type = shape->a_type, .b_type = shape->b_type,
        .c_type = shape->c_type, .scale_mode = shape->scale_mode, .epilogue = shape->epilogue, .kmajor = shape->kmajor,
        .piece = shape->piece,
    };
}

/* Rows of each expert, in groups that start at multiples of MJ_GROUP_ALIGN and fit into `bound`. */
static void fill_groups(MjCase *c, int32_t bound, int32_t experts)
{
    int32_t at = 0;
    for (int32_t e = 0; e < experts; e++) {
        const int32_t room = bound - at;
        int32_t rows = (int32_t)mj_case_random(c, (uint32_t)(2 * bound / experts));
        if (c->shape.capacity > 0) rows = c->shape.capacity;
        else if (c->shape.route == 1) rows = e == experts / 2 ? room - 3 : 0;
        else if (c->shape.route == 2 && e % 2 == 1) rows = 0;
        if (rows > room) rows = room;
        mj_case_set(c, "offset", e, at);
        mj_case_set(c, "count", e, rows);
        at += (rows + MJ_GROUP_ALIGN - 1) / MJ_GROUP_ALIGN * MJ_GROUP_ALIGN;
        if (at > bound) at = bound; /* bound is a multiple of the alignment, but for a shape given by hand */
    }
    mj_case_set(c, "offset", experts, at);
}

/* Zeros in what an operand stored along K has outside its groups' rows: (columns, MJ_KMAJOR_STRIDE(k)). */
static void zero_outside(MjCase *c, const char *name, const MjGemmArgs *g, int64_t columns)
{
    const int64_t stride = MJ_KMAJOR_STRIDE(g->k);
    for (int64_t p = 0; p < stride; p++) {
        bool live = g->group == MJ_GROUP_NONE && p < g->k;
        for (int32_t e = 0; g->group == MJ_GROUP_K && e < g->experts; e++)
            live = live || (p >= MJ_GROUP_FIRST(g, e) && p < MJ_GROUP_FIRST(g, e) + MJ_GROUP_LENGTH(g, e, g->k));
        for (int64_t i = 0; !live && i < columns; i++) mj_case_set(c, name, i * stride + p, 0.0);
    }
}

/* Zeros in the padding rows of a matrix of `columns`. */
static void zero_padding(MjCase *c, const char *name, const MjGemmArgs *g, int64_t columns)
{
    for (int32_t e = 0; e < g->experts; e++)
        for (int64_t r = g->offset[e] + g->count[e]; r < g->offset[e + 1]; r++)
            for (int64_t i = 0; i < columns; i++)
                mj_case_set(c, name, r * columns + i, 0.0);
}

void mj_fill_gemm(MjCase *c)
{
    const MjGemmArgs *g = (const MjGemmArgs *)(const void *)c->args.bytes;
    if (g->scale_mode == MJ_SCALE_NONE) {
        mj_case_drop(c, "a_scale");
        mj_case_drop(c, "b_scale");
    } else {
        const int b = mj_case_buffer(c, "a_scale"), d = mj_case_buffer(c, "b_scale");
        for (int64_t i = 0; i < c->n[b]; i++) mj_case_set(c, "a_scale", i, mj_case_uniform(c, 0.01, 1.0));
        for (int64_t i = 0; i < c->n[d]; i++) mj_case_set(c, "b_scale", i, mj_case_uniform(c, 0.01, 1.0));
    }
    const bool along = g->layout == MJ_GEMM_TN && g->kmajor != 0;
    if (g->group == MJ_GROUP_NONE || g->piece > 0) {
        mj_case_drop(c, "offset");
        mj_case_drop(c, "count");
    } else {
        fill_groups(c, g->group == MJ_GROUP_M ? g->m : g->k, g->experts);
    }
    if (along) {
        zero_outside(c, "a", g, g->m);
        zero_outside(c, "b", g, g->n);
    }
    if (along || g->group == MJ_GROUP_NONE || g->piece > 0) return;
    zero_padding(c, "a", g, g->group == MJ_GROUP_M ? g->k : g->m);
    if (g->group == MJ_GROUP_K) zero_padding(c, "b", g, g->n);
}

void mj_case_ref_gemm(MjCase *c)
{
    const MjGemmArgs *g = (const MjGemmArgs *)(const void *)c->args.bytes;
    if (c->sampled) {
        mj_sample_gemm(c);
        return;
    }
    const int64_t n = mj_ref_gemm_size(g), live = g->group == MJ_GROUP_M ? (int64_t)g->offset[g->experts] * g->n : n;
    double *want = mj_xcalloc((size_t)n, sizeof *want), *size = mj_xcalloc((size_t)n, sizeof *size);
    double *cut = mj_xcalloc((size_t)n, sizeof *cut);
    mj_ref_gemm(g, want, size, cut);
    for (int64_t i = 0; i < live; i++) /* rows past the groups stay as they were */
        mj_case_want_within(c, "c", i, want[i], mj_ref_gemm_tolerance(g, want[i], size[i], cut[i]));
    free(want);
    free(size);
    free(cut);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* `rows`: length of each sequence; 0: random lengths. Tokens from `live` on are padding: position 0. */
const MjOpShape mj_shapes_attention[] = {
    {.tokens = 17, .live = 17, .heads = 3, .head_dim = 64, .window = 100, .rows = 17},
    {.tokens = 1, .live = 1, .heads = 2, .head_dim = 128, .window = 10},
    {.tokens = 200, .live = 150, .heads = 2, .head_dim = 128, .window = 1000},
    {.tokens = 333, .live = 333, .heads = 1, .head_dim = 64, .window = 50, .rows = 333},
    {.tokens = 256, .live = 256, .heads = 1, .head_dim = 128, .window = 64, .rows = 128},
    {.tokens = 190, .live = 3, .heads = 1, .head_dim = 64, .window = 1},
    {.tokens = 320, .live = 300, .heads = 1, .head_dim = 64, .window = 70},
    /* More tiles than a GPU has multiprocessors: persistent blocks take a second one. */
    {.tokens = 1100, .live = 1090, .heads = 18, .head_dim = 64, .window = 40},
    {.tokens = 1030, .live = 1030, .heads = 17, .head_dim = 128, .window = 30},
    END,
};
/* One sequence, so that the count of products from tokens and window is right. */
const MjOpShape mj_bench_attention[] = {
    {.tokens = 256, .live = 256, .heads = 8, .head_dim = 128, .window = 256, .rows = 256},
    {.tokens = 1024, .live = 1024, .heads = 4, .head_dim = 64, .window = 1024, .rows = 1024},
    {.tokens = 1024, .live = 1024, .heads = 4, .head_dim = 128, .window = 1024, .rows = 1024},
    {.tokens = 2048, .live = 2048, .heads = 4, .head_dim = 128, .window = 256, .rows = 2048},
    END,
};

void mj_setup_attention_fwd(const MjOpShape *shape, void *args)
{
    MjAttentionFwdArgs *a = args;
    *a = (MjAttentionFwdArgs){.scale = 1.0f / sqrtf((float)shape->head_dim), .tokens = shape->tokens, .heads = shape->heads,
                              .head_dim = shape->head_dim, .window = shape->window, .longest = shape->rows};
}

void mj_setup_attention_bwd(const MjOpShape *shape, void *args)
{
    MjAttentionBwdArgs *a = args;
    *a = (MjAttentionBwdArgs){.scale = 1.0f / sqrtf((float)shape->head_dim), .tokens = shape->tokens, .heads = shape->heads,
                              .head_dim = shape->head_dim, .window = shape->window, .longest = shape->rows};
}

void mj_fill_attention_fwd(MjCase *c)
{
    int32_t at = 0, length = 0;
    for (int32_t n = 0; n < c->shape.tokens; n++) {
        if (at >= length) {
            at = 0;
            length = c->shape.rows > 0 ? c->shape.rows : 1 + (int32_t)mj_case_random(c, 150);
            if (n >= c->shape.live) length = 1;
        }
        mj_case_set(c, "pos", n, n < c->shape.live ? at : 0);
        at++;
    }
}

typedef struct Forward { /* the reference's own forward pass */
    double *out, *lse;
} Forward;

static Forward forward_open(const MjAttentionFwdArgs *a)
{
    const size_t rows = (size_t)a->tokens * (size_t)a->heads;
    Forward f = {mj_xmalloc(rows * (size_t)a->head_dim * sizeof(double)), mj_xmalloc(rows * sizeof(double))};
    mj_ref_attention_fwd(a, f.out, f.lse);
    return f;
}

static void forward_close(Forward f)
{
    free(f.out);
    free(f.lse);
}

static double row_rms(const double *x, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum / (double)n);
}

void mj_case_ref_attention_fwd(MjCase *c)
{
    const MjAttentionFwdArgs *a = (const MjAttentionFwdArgs *)(const void *)c->args.bytes;
    const int64_t rows = (int64_t)a->tokens * a->heads, dim = a->head_dim;
    if (c->sampled) {
        mj_sample_attention_fwd(c);
        return;
    }
    const Forward f = forward_open(a);
    const double all = row_rms(f.out, rows * dim);
    for (int64_t r = 0; r < rows; r++) {
        const double tolerance = MJ_REF_ATTENTION_TOLERANCE * (row_rms(f.out + r * dim, dim) + all);
        for (int64_t d = 0; d < dim; d++)
            mj_case_want_within(c, "out", r * dim + d, f.out[r * dim + d], tolerance);
        mj_case_want_within(c, "lse", r, f.lse[r], MJ_REF_ATTENTION_LSE_TOLERANCE);
    }
    forward_close(f);
}

void mj_fill_attention_bwd(MjCase *c)
{
    const MjAttentionBwdArgs *b = (const MjAttentionBwdArgs *)(const void *)c->args.bytes;
    mj_fill_attention_fwd(c);
    if (mj_sample_attention_fill(c)) return;
    const MjAttentionFwdArgs a = {.q = b->q, .k = b->k, .qkv = b->qkv, .pos = b->pos, .scale = b->scale,
                                  .tokens = b->tokens, .heads = b->heads, .head_dim = b->head_dim, .window = b->window};
    const Forward f = forward_open(&a);
    const int64_t rows = (int64_t)a.tokens * a.heads;
    for (int64_t i = 0; i < rows * a.head_dim; i++) mj_case_set(c, "out", i, f.out[i]);
    for (int64_t i = 0; i < rows; i++) mj_case_set(c, "lse", i, f.lse[i]);
    forward_close(f);
}

void mj_want_attention_gradient(MjCase *c, int32_t part, int64_t n, int64_t h, int64_t d, double value, double size)
{
    const MjAttentionBwdArgs *a = (const MjAttentionBwdArgs *)(const void *)c->args.bytes;
    mj_case_want_within(c, "dqkv", ((n * 3 + part) * a->heads + h) * a->head_dim + d, value,
                        1e-30 + MJ_REF_ATTENTION_TOLERANCE * size + 0x1p-8 * fabs(value));
}

void mj_case_ref_attention_bwd(MjCase *c)
{
    const MjAttentionBwdArgs *a = (const MjAttentionBwdArgs *)(const void *)c->args.bytes;
    const size_t rows = (size_t)a->tokens * (size_t)a->heads, dim = (size_t)a->head_dim;
    if (c->sampled) {
        mj_sample_attention_bwd(c);
        return;
    }
    double *all = mj_xmalloc(3 * rows * (dim + 1) * sizeof *all);
    MjRefAttentionGrad g = {.dq = all, .dk = all + rows * dim, .dv = all + 2 * rows * dim,
                                  .dq_size = all + 3 * rows * dim, .dk_size = all + 3 * rows * dim + rows,
                                  .dv_size = all + 3 * rows * dim + 2 * rows};
    mj_ref_attention_bwd(a, &g);
    for (size_t i = 0; i < rows * dim; i++) {
        const int64_t n = (int64_t)(i / dim) / a->heads, h = (int64_t)(i / dim) % a->heads, d = (int64_t)(i % dim);
        mj_want_attention_gradient(c, 0, n, h, d, g.dq[i], g.dq_size[i / dim]);
        mj_want_attention_gradient(c, 1, n, h, d, g.dk[i], g.dk_size[i / dim]);
        mj_want_attention_gradient(c, 2, n, h, d, g.dv[i], g.dv_size[i / dim]);
    }
    free(all);
}
