/* The backward pass of one micro-batch through the layers, in reverse order of forward.c. dx is the residual's gradient
 * in f32; every branch adds to it through the gradient of its norm. */
#include "train/model.h"

#include "train/forward.h"

static int rmsnorm_bwd(MjModel *m, const float *x, const float *rstd, const float *dy, const uint16_t *dy_a,
                       const uint16_t *dy_b, const char *what, MjError *err) {
    MjRmsnormBwdArgs a = {.x = x, .rstd = rstd, .dy = dy, .dy_bf16 = dy_a, .dy_bf16_2 = dy_b, .dx = m->dx,
                          .tokens = m->tokens, .width = m->d.width, .accumulate = 1};
    return MJ_OP(m->ops, MJ_OP_RMSNORM_BWD, &a, what, err);
}

/* dpre = dact * relu2'(pre), from m->s.dact to `out` (fp8, or bf16 in place). Of routed experts (e, else NULL) also dgate. */
static int relu2_bwd(MjModel *m, const uint16_t *pre, MjOperand *out, int32_t rows, const MjGroups *g, const MjRouted *e,
                     const char *what, MjError *err) {
    int rc = mj_linear_amax(m, out, pre, m->s.dact, MJ_T_BF16, rows, 2, g, what, err);
    if (rc != 0) return rc;
    bool tensor = m->d.tensor_recipe;
    MjRelu2BwdArgs a = {.x = pre, .dy = m->s.dact, .offset = g ? g->offset : NULL, .rows = rows, .cols = out->cols,
                        .experts = g ? g->experts : 1, .q_type = out->type, .kmajor = mj_linear_kmajor(m, out->type)};
    if (out->type == MJ_T_BF16) {
        a.dx = out->bf16;
        a.scale_mode = MJ_SCALE_NONE;
    } else {
        a.q = out->q;
        a.q_scale = tensor ? NULL : out->q_scale;
        a.qt = tensor && !a.kmajor ? NULL : out->qt;
        a.qt_scale = tensor ? NULL : out->qt_scale;
        a.tensor_scale = tensor ? out->q_scale : NULL;
        a.scale_mode = tensor ? MJ_SCALE_TENSOR : MJ_SCALE_BLOCK;
    }
    if (e != NULL) {
        a.slot_of = e->slot_of;
        a.gate = e->gate;
        a.dgate = m->s.dgate;
        a.gated = 1;
        a.slots = m->tokens * m->d.top_k;
    }
    return MJ_OP(m->ops, MJ_OP_RELU2_BWD, &a, what, err);
}

/* From dy (rows, W), an operand, through down, relu2 and up to dx (rows, W); adds both weight gradients. dy and the
 * gradient after it share the fp8 scratch, one after the other. */
static int mlp_bwd(MjModel *m, const MjOperand *dy, const MjWeight *up, const MjWeight *down, const uint16_t *pre,
                   const MjOperand *act, const MjOperand *x, void *dx, int32_t dx_type, int32_t rows, const MjGroups *g,
                   const MjRouted *e, MjError *err) {
    int rc = 0;
    MJ_TRY(mj_linear_dgrad(m, dy, down, m->s.dact, MJ_T_BF16, rows, g, err));
    MJ_TRY(mj_linear_wgrad(m, dy, act, down, rows, g, err));
    MjOperand dpre = mj_linear_gradient(m, act->type != MJ_T_BF16, m->s.dact, act->cols);
    MJ_TRY(relu2_bwd(m, pre, &dpre, rows, g, e, up->name, err));
    MJ_TRY(mj_linear_dgrad(m, &dpre, up, dx, dx_type, rows, g, err));
    MJ_TRY(mj_linear_wgrad(m, &dpre, x, up, rows, g, err));
out:
    return rc;
}

/* dx_type f32: beside two other gradients (shared experts); bf16: alone (dense). */
static int ffn_bwd(MjModel *m, MjLayer *l, void *dx, int32_t dx_type, MjError *err) {
    MjOperand dy = mj_linear_gradient(m, l->ffn.act.type != MJ_T_BF16, m->s.dy, m->d.width);
    int rc = mj_linear_quantize(m, &dy, m->dx, MJ_T_F32, m->tokens, NULL, "mlp gradient", err);
    if (rc != 0) return rc;
    return mlp_bwd(m, &dy, &l->ffn.up, &l->ffn.down, l->ffn.pre, &l->ffn.act, &l->ffn_in, dx, dx_type, m->tokens, NULL,
                   NULL, err);
}

static int router_bwd(MjModel *m, MjLayer *l, MjError *err) {
    const MjDims *d = &m->d;
    MjRouted *e = &l->moe;
    MjRouterBwdArgs a = {.x = l->h2, .weight = m->master + e->router, .score = e->score, .expert = e->expert,
                         .gate = e->gate, .dgate = m->s.dgate, .dlogit = m->s.dlogit, .dx = m->s.dx_b,
                         .partial = m->s.router_partial, .dweight = m->grad + e->router, .tokens = m->tokens,
                         .width = d->width, .experts = d->experts, .top_k = d->top_k, .live = &m->head_of_batch->live,
                         .normalize = m->normalize_gates};
    return MJ_OP(m->ops, MJ_OP_ROUTER_BWD, &a, "router", err);
}

/* dy from the residual's gradient. Under recipe block dy is quantised where it is made and has no bf16 copy; one
 * scale for all of it is known only after all of it. */
static int combine_bwd(MjModel *m, MjRouted *e, MjOperand *dy, const MjGroups *g, MjError *err) {
    const MjDims *d = &m->d;
    const bool fused = dy->type != MJ_T_BF16 && !d->tensor_recipe;
    MjCombineBwdArgs c = {.dx = m->dx, .slot_of = e->slot_of, .offset = e->offset, .gate = e->gate,
                          .tokens = m->tokens, .width = d->width, .experts = d->experts, .top_k = d->top_k,
                          .rows = m->rows, .q_type = fused ? dy->type : MJ_T_BF16,
                          .scale_mode = fused ? MJ_SCALE_BLOCK : MJ_SCALE_NONE,
                          .kmajor = fused && mj_linear_kmajor(m, dy->type)};
    if (fused) {
        c.q = dy->q;
        c.q_scale = dy->q_scale;
        c.qt = dy->qt;
        c.qt_scale = dy->qt_scale;
    } else {
        c.dy = m->s.dy;
    }
    int rc = MJ_OP(m->ops, MJ_OP_COMBINE_BWD, &c, "combine", err);
    if (rc != 0 || fused) return rc;
    return mj_linear_quantize(m, dy, m->s.dy, MJ_T_BF16, m->rows, g, "expert gradient", err);
}

static int routed_bwd(MjModel *m, MjLayer *l, MjError *err) {
    int rc = 0;
    const MjDims *d = &m->d;
    MjRouted *e = &l->moe;
    MjGroups g = {.offset = e->offset, .count = e->count, .experts = d->experts};
    if (m->device != NULL && !mj_jit_recording(m->ops->jit)) { /* dropped slots have no row to write their dgate */
        MJ_TRY(m->device->ops->fill(m->device, m->s.dgate, 0, (size_t)m->tokens * (size_t)d->top_k * sizeof(float), err));
    }
    MjOperand dy = mj_linear_gradient(m, e->act.type != MJ_T_BF16, m->s.dy, d->width);
    MJ_TRY(combine_bwd(m, e, &dy, &g, err));
    MJ_TRY(mlp_bwd(m, &dy, &e->up, &e->down, e->pre, &e->act, &e->x, m->s.routed, MJ_T_BF16, m->rows, &g, e, err));
    MjPermuteBwdArgs p = {.dout = m->s.routed, .row_of = e->row_of, .dx = m->s.dx_a, .tokens = m->tokens,
                          .width = d->width, .top_k = d->top_k, .rows = m->rows};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_PERMUTE_BWD, &p, "permute", err));
    MJ_TRY(router_bwd(m, l, err));
out:
    return rc;
}

static int mlp_part_bwd(MjModel *m, MjLayer *l, MjError *err) {
    int rc = 0;
    if (m->d.experts == 0) {
        MJ_TRY(ffn_bwd(m, l, m->s.dx_a, MJ_T_BF16, err));
        MJ_TRY(rmsnorm_bwd(m, l->x_mid, l->rstd2, NULL, m->s.dx_a, NULL, "mlp norm", err));
        goto out;
    }
    bool shared = m->d.ffn_hidden > 0;
    MJ_TRY(routed_bwd(m, l, err));
    if (shared) MJ_TRY(ffn_bwd(m, l, m->s.dx_f32, MJ_T_F32, err));
    MJ_TRY(rmsnorm_bwd(m, l->x_mid, l->rstd2, shared ? m->s.dx_f32 : NULL, m->s.dx_a, m->s.dx_b, "mlp norm", err));
out:
    return rc;
}

/* m->s.dqkv to the gradient of qkv. Under recipe block it is quantised where it is made, and its bf16 values are not written. */
static int rope_bwd(MjModel *m, const MjLayer *l, MjOperand *dqkv, MjError *err) {
    const MjDims *d = &m->d;
    const bool fused = dqkv->type != MJ_T_BF16 && !d->tensor_recipe;
    MjRopeQknormBwdArgs r = {.qkv = l->qkv_out, .pos = m->pos, .q_rstd = l->q_rstd, .k_rstd = l->k_rstd, .dqkv = m->s.dqkv,
                             .rope_base = MJ_ROPE_BASE, .gain = MJ_QK_GAIN, .eps = MJ_RMS_EPS, .tokens = m->tokens, .heads = d->heads,
                             .head_dim = d->head_dim};
    if (fused) {
        r.kmajor = mj_linear_kmajor(m, dqkv->type);
        r.q = dqkv->q;
        r.q_scale = dqkv->q_scale;
        r.qt = dqkv->qt;
        r.qt_scale = dqkv->qt_scale;
    }
    int rc = MJ_OP(m->ops, fused ? MJ_OP_ROPE_QKNORM_BWD_QUANT : MJ_OP_ROPE_QKNORM_BWD, &r, "rope", err);
    if (rc != 0 || fused) return rc;
    return mj_linear_quantize(m, dqkv, m->s.dqkv, MJ_T_BF16, m->tokens, NULL, "qkv gradient", err);
}

static int attention_bwd(MjModel *m, MjLayer *l, int32_t window, MjError *err) {
    int rc = 0;
    const MjDims *d = &m->d;
    bool fp8 = l->h1.type != MJ_T_BF16;
    MjOperand dy = mj_linear_gradient(m, fp8, m->s.dy, d->width);
    MJ_TRY(mj_linear_quantize(m, &dy, m->dx, MJ_T_F32, m->tokens, NULL, "attention gradient", err));
    MJ_TRY(mj_linear_dgrad(m, &dy, &l->wo, m->s.dx_a, MJ_T_BF16, m->tokens, NULL, err));
    MJ_TRY(mj_linear_wgrad(m, &dy, &l->att_in, &l->wo, m->tokens, NULL, err));
    MjAttentionBwdArgs a = {.q = l->q, .k = l->k, .qkv = l->qkv_out, .pos = m->pos, .out = l->att, .dout = m->s.dx_a,
                            .lse = l->lse, .delta = m->s.delta, .dqkv = m->s.dqkv,
                            .scale = mj_attention_scale(d), .tokens = m->tokens, .heads = d->heads,
                            .head_dim = d->head_dim, .window = window, .longest = d->seq_len};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_ATTENTION_BWD, &a, "attention", err));
    MjOperand dqkv = mj_linear_gradient(m, fp8, m->s.dqkv, 3 * d->width);
    MJ_TRY(rope_bwd(m, l, &dqkv, err));
    MJ_TRY(mj_linear_dgrad(m, &dqkv, &l->qkv, m->s.dx_a, MJ_T_BF16, m->tokens, NULL, err));
    MJ_TRY(mj_linear_wgrad(m, &dqkv, &l->h1, &l->qkv, m->tokens, NULL, err));
    MJ_TRY(rmsnorm_bwd(m, l->x_in, l->rstd1, NULL, m->s.dx_a, NULL, "attention norm", err));
out:
    return rc;
}

int mj_model_backward(MjModel *m, MjError *err) {
    int rc = 0;
    int32_t layer = -1;
    for (layer = m->d.depth - 1; layer >= 0; layer--) {
        MJ_TRY(mlp_part_bwd(m, &m->layers[layer], err));
        MJ_TRY(attention_bwd(m, &m->layers[layer], m->d.window[layer], err));
    }
    MjRmsnormBwdArgs n = {.x = m->embedded, .rstd = m->rstd0, .dy = m->dx, .dx = m->s.dx_f32, .tokens = m->tokens,
                          .width = m->d.width, .accumulate = 0};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_RMSNORM_BWD, &n, "first norm", err));
    MjEmbeddingBwdArgs e = {.token = m->token, .dout = m->s.dx_f32, .dtable = m->grad, .tokens = m->tokens,
                            .width = m->d.width, .vocab = m->d.vocab + 1, .live = &m->head_of_batch->live};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_EMBEDDING_BWD, &e, "embedding", err));
out:
    if (rc != 0 && layer >= 0) rc = mj_error_context(err, rc, "backward, layer %d", layer);
    return rc;
}
