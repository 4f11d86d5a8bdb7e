/* One linear layer in any precision: quantising its operands and its three GEMMs. Owns the mapping from operands and
 * weights to MjGemmArgs and MjQuantizeArgs. */
#include "train/model.h"

static int32_t scale_mode(const MjModel *m, int32_t type) {
    if (type == MJ_T_BF16) return MJ_SCALE_NONE;
    return m->d.tensor_recipe ? MJ_SCALE_TENSOR : MJ_SCALE_BLOCK;
}

bool mj_linear_kmajor(const MjModel *m, int32_t type) { return type != MJ_T_BF16 && m->ops->family != MJ_FAMILY_CPU; }

MjOperand mj_linear_gradient(const MjModel *m, bool fp8, uint16_t *bf16, int32_t cols) {
    if (!fp8) return (MjOperand){.type = MJ_T_BF16, .cols = cols, .bf16 = bf16};
    MjOperand op = {.type = MJ_T_E4M3, .cols = cols, .q = m->s.q, .qt = m->s.qt, .q_scale = m->s.q_scale,
                    .qt_scale = m->s.qt_scale};
    if (m->d.tensor_recipe) {
        op.type = MJ_T_E5M2;
        if (!mj_linear_kmajor(m, op.type)) op.qt = m->s.q;
        op.q_scale = op.qt_scale = m->s.tensor_scale;
    }
    return op;
}

int mj_linear_amax(MjModel *m, const MjOperand *op, const void *x, const uint16_t *x2, int32_t x_type, int32_t rows,
                   int32_t transform, const MjGroups *g, const char *what, MjError *err) {
    if (op->type == MJ_T_BF16 || !m->d.tensor_recipe) return 0;
    MjAmaxArgs a = {.x = x, .x2 = x2, .offset = g ? g->offset : NULL, .partial = m->s.amax_partial, .scale = op->q_scale,
                    .rows = rows, .cols = op->cols, .experts = g ? g->experts : 1, .x_type = x_type, .q_type = op->type,
                    .transform = transform};
    return MJ_OP(m->ops, MJ_OP_AMAX, &a, what, err);
}

int mj_linear_quantize(MjModel *m, MjOperand *op, const void *x, int32_t x_type, int32_t rows, const MjGroups *g,
                       const char *what, MjError *err) {
    if (op->type == MJ_T_BF16 && x_type == MJ_T_BF16) return 0;
    int rc = mj_linear_amax(m, op, x, NULL, x_type, rows, 0, g, what, err);
    if (rc != 0) return rc;
    MjQuantizeArgs a = {.x = x, .offset = g ? g->offset : NULL, .rows = rows, .cols = op->cols,
                        .experts = g ? g->experts : 1, .x_type = x_type, .q_type = op->type,
                        .scale_mode = scale_mode(m, op->type), .kmajor = mj_linear_kmajor(m, op->type)};
    if (op->type == MJ_T_BF16) {
        a.y = op->bf16;
    } else {
        a.q = op->q;
        a.q_scale = m->d.tensor_recipe ? NULL : op->q_scale;
        a.qt = m->d.tensor_recipe && !a.kmajor ? NULL : op->qt;
        a.qt_scale = m->d.tensor_recipe ? NULL : op->qt_scale;
        a.tensor_scale = m->d.tensor_recipe ? op->q_scale : NULL;
    }
    return MJ_OP(m->ops, MJ_OP_QUANTIZE, &a, what, err);
}

static MjGemmArgs gemm(const MjModel *m, int32_t layout, int32_t a_type, int32_t b_type, const MjGroups *g) {
    MjGemmArgs a = {.layout = layout, .a_type = a_type, .b_type = b_type, .scale_mode = scale_mode(m, a_type),
                    .experts = 1, .group = MJ_GROUP_NONE, .kmajor = mj_linear_kmajor(m, a_type)};
    if (g != NULL) {
        a.group = layout == MJ_GEMM_TN ? MJ_GROUP_K : MJ_GROUP_M;
        a.experts = g->experts;
        a.offset = g->offset;
        a.count = g->count;
    }
    return a;
}

int mj_linear_forward(MjModel *m, const MjOperand *x, const MjWeight *w, void *c, int32_t c_type, int32_t epilogue,
                      int32_t rows, const MjGroups *g, MjError *err) {
    MjGemmArgs a = gemm(m, MJ_GEMM_NT, x->type, w->type, g);
    bool bf16 = x->type == MJ_T_BF16;
    a.a = bf16 ? (const void *)x->bf16 : x->q;
    a.b = bf16 ? (const void *)w->bf16 : w->q;
    a.a_scale = bf16 ? NULL : x->q_scale;
    a.b_scale = bf16 ? NULL : w->scale;
    a.c = c;
    a.m = rows;
    a.n = w->out;
    a.k = w->in;
    a.c_type = c_type;
    a.epilogue = epilogue;
    return MJ_OP(m->ops, MJ_OP_GEMM, &a, w->name, err);
}

int mj_linear_dgrad(MjModel *m, const MjOperand *dy, const MjWeight *w, void *dx, int32_t c_type, int32_t rows,
                    const MjGroups *g, MjError *err) {
    MjGemmArgs a = gemm(m, MJ_GEMM_NN, dy->type, w->type, g);
    bool bf16 = dy->type == MJ_T_BF16;
    a.a = bf16 ? (const void *)dy->bf16 : dy->q;
    a.b = bf16 ? (const void *)w->bf16 : w->q_t != NULL ? w->q_t : w->q;
    a.a_scale = bf16 ? NULL : dy->q_scale;
    a.b_scale = bf16 ? NULL : w->scale;
    a.c = dx;
    a.m = rows;
    a.n = w->in;
    a.k = w->out;
    a.c_type = c_type;
    a.epilogue = MJ_EPI_STORE;
    return MJ_OP(m->ops, MJ_OP_GEMM, &a, w->name, err);
}

/* The dimensions of a gradient's product; operands are the caller's. */
static MjGemmArgs wgrad(const MjModel *m, int32_t dy_type, int32_t x_type, const MjWeight *w, int32_t rows, const MjGroups *g) {
    MjGemmArgs a = gemm(m, MJ_GEMM_TN, dy_type, x_type, g);
    a.m = w->out;
    a.n = w->in;
    a.k = rows;
    a.c_type = MJ_T_F32;
    a.epilogue = MJ_EPI_ACCUMULATE;
    return a;
}

int mj_linear_cut(const MjModel *m, MjWeight *w, MjError *err) {
    const int32_t gradient = w->type == MJ_T_BF16 || !m->d.tensor_recipe ? w->type : MJ_T_E5M2;
    MjGemmArgs a = wgrad(m, gradient, w->type, w, m->d.max_tokens, NULL);
    return mj_gemm_pieces(m->ops, &a, &w->wgrad, err);
}

static int wgrad_in_pieces(MjModel *m, const MjGemmArgs *whole, const MjWeight *w, MjError *err) {
    MjGemmArgs a = *whole;
    MjAddPiecesArgs add = {.x = m->s.pieces, .y = whole->c, .count = w->out * w->in, .pieces = w->wgrad.pieces};
    a.group = MJ_GROUP_K;
    a.experts = w->wgrad.pieces;
    a.piece = w->wgrad.rows;
    a.c = m->s.pieces;
    a.epilogue = MJ_EPI_STORE;
    int rc = MJ_OP(m->ops, MJ_OP_GEMM, &a, w->name, err);
    return rc != 0 ? rc : MJ_OP(m->ops, MJ_OP_ADD_PIECES, &add, w->name, err);
}

int mj_linear_wgrad(MjModel *m, const MjOperand *dy, const MjOperand *x, const MjWeight *w, int32_t rows,
                    const MjGroups *g, MjError *err) {
    MjGemmArgs a = wgrad(m, dy->type, x->type, w, rows, g);
    bool bf16 = dy->type == MJ_T_BF16;
    a.a = bf16 ? (const void *)dy->bf16 : dy->qt;
    a.b = bf16 ? (const void *)x->bf16 : x->qt;
    a.a_scale = bf16 ? NULL : dy->qt_scale;
    a.b_scale = bf16 ? NULL : x->qt_scale;
    a.c = m->grad + w->offset;
    if (g == NULL && w->wgrad.pieces > 1) return wgrad_in_pieces(m, &a, w, err);
    return MJ_OP(m->ops, MJ_OP_GEMM, &a, w->name, err);
}
