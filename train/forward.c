/* The forward pass of one micro-batch, and the head with its loss (and the head's gradients, which are taken while a
 * chunk's logits are in memory). */
#include "train/model.h"

#include "runtime/base/clock.h"
#include "train/forward.h"

static int rmsnorm(MjModel *m, const float *x, uint16_t *y, float *y_f32, float *x_copy, float *rstd, const char *what,
                   MjError *err) {
    MjRmsnormFwdArgs a = {.x = x, .y = y, .y_f32 = y_f32, .x_copy = x_copy, .rstd = rstd, .eps = MJ_RMS_EPS,
                          .tokens = m->tokens, .width = m->d.width};
    return MJ_OP(m->ops, MJ_OP_RMSNORM_FWD, &a, what, err);
}

/* Under recipe block the attention norm's output is quantised where it is made and has no bf16 copy. */
static bool norm_quantises(const MjModel *m) { return m->d.fp8_linears && !m->d.tensor_recipe; }

/* h1 = rmsnorm(x_in), and x_mid = x_in for the output projection to add to. known: combine has left the rows' rstd. */
static int attention_norm(MjModel *m, MjLayer *l, bool known, MjError *err) {
    int rc = 0;
    MjOperand *h = &l->h1;
    if (!norm_quantises(m)) {
        uint16_t *bf16 = h->type == MJ_T_BF16 ? h->bf16 : m->s.h;
        MJ_TRY(rmsnorm(m, l->x_in, bf16, NULL, l->x_mid, l->rstd1, "attention norm", err));
        MJ_TRY(mj_linear_quantize(m, h, bf16, MJ_T_BF16, m->tokens, NULL, "qkv input", err));
        goto out;
    }
    if (!known) MJ_TRY(rmsnorm(m, l->x_in, NULL, NULL, NULL, l->rstd1, "attention norm", err));
    MjRmsnormQuantArgs a = {.x = l->x_in, .rstd = l->rstd1, .x_copy = l->x_mid, .q = h->q, .q_scale = h->q_scale, .qt = h->qt,
                            .qt_scale = h->qt_scale, .tokens = m->tokens, .width = m->d.width,
                            .kmajor = mj_linear_kmajor(m, h->type)};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_RMSNORM_QUANT, &a, "attention norm", err));
out:
    return rc;
}

static int attention(MjModel *m, MjLayer *l, int32_t window, bool rstd_known, MjError *err) {
    int rc = 0;
    const MjDims *d = &m->d;
    MJ_TRY(attention_norm(m, l, rstd_known, err));
    MJ_TRY(mj_linear_forward(m, &l->h1, &l->qkv, l->qkv_out, MJ_T_BF16, MJ_EPI_STORE, m->tokens, NULL, err));
    MjRopeQknormFwdArgs r = {.qkv = l->qkv_out, .pos = m->pos, .q = l->q, .k = l->k, .q_rstd = l->q_rstd,
                             .k_rstd = l->k_rstd, .rope_base = MJ_ROPE_BASE, .gain = MJ_QK_GAIN, .eps = MJ_RMS_EPS,
                             .tokens = m->tokens, .heads = d->heads, .head_dim = d->head_dim};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_ROPE_QKNORM_FWD, &r, "rope", err));
    MjAttentionFwdArgs a = {.q = l->q, .k = l->k, .qkv = l->qkv_out, .pos = m->pos, .out = l->att, .lse = l->lse,
                            .scale = mj_attention_scale(d), .tokens = m->tokens, .heads = d->heads,
                            .head_dim = d->head_dim, .window = window, .longest = d->seq_len};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_ATTENTION_FWD, &a, "attention", err));
    MJ_TRY(mj_linear_quantize(m, &l->att_in, l->att, MJ_T_BF16, m->tokens, NULL, "attention output", err));
    MJ_TRY(mj_linear_forward(m, &l->att_in, &l->wo, l->x_mid, MJ_T_F32, MJ_EPI_ACCUMULATE, m->tokens, NULL, err));
out:
    return rc;
}

/* act = relu2(pre), as bf16 or quantised. */
static int relu2(MjModel *m, const uint16_t *pre, MjOperand *act, int32_t rows, const MjGroups *g, const char *what,
                 MjError *err) {
    int rc = mj_linear_amax(m, act, pre, NULL, MJ_T_BF16, rows, 1, g, what, err);
    if (rc != 0) return rc;
    bool tensor = m->d.tensor_recipe;
    MjRelu2FwdArgs a = {.x = pre, .offset = g ? g->offset : NULL, .rows = rows, .cols = act->cols,
                        .experts = g ? g->experts : 1, .q_type = act->type, .kmajor = mj_linear_kmajor(m, act->type)};
    if (act->type == MJ_T_BF16) {
        a.y = act->bf16;
        a.scale_mode = MJ_SCALE_NONE;
    } else {
        a.q = act->q;
        a.q_scale = tensor ? NULL : act->q_scale;
        a.qt = tensor && !a.kmajor ? NULL : act->qt;
        a.qt_scale = tensor ? NULL : act->qt_scale;
        a.tensor_scale = tensor ? act->q_scale : NULL;
        a.scale_mode = tensor ? MJ_SCALE_TENSOR : MJ_SCALE_BLOCK;
    }
    return MJ_OP(m->ops, MJ_OP_RELU2_FWD, &a, what, err);
}

/* The part of the MLP that every token passes: added to x_out, or stored in bf16. */
static int ffn(MjModel *m, MjLayer *l, void *out, int32_t c_type, int32_t epilogue, MjError *err) {
    int rc = 0;
    MJ_TRY(mj_linear_quantize(m, &l->ffn_in, l->h2, MJ_T_BF16, m->tokens, NULL, "mlp input", err));
    MJ_TRY(mj_linear_forward(m, &l->ffn_in, &l->ffn.up, l->ffn.pre, MJ_T_BF16, MJ_EPI_STORE, m->tokens, NULL, err));
    MJ_TRY(relu2(m, l->ffn.pre, &l->ffn.act, m->tokens, NULL, "mlp relu2", err));
    MJ_TRY(mj_linear_forward(m, &l->ffn.act, &l->ffn.down, out, c_type, epilogue, m->tokens, NULL, err));
out:
    return rc;
}

static int route(MjModel *m, MjLayer *l, MjError *err) {
    int rc = 0;
    const MjDims *d = &m->d;
    MjRouted *e = &l->moe;
    MjRouterFwdArgs r = {.x = l->h2, .weight = m->master + e->router, .bias = e->bias, .score = e->score,
                         .expert = e->expert, .gate = e->gate, .tokens = m->tokens, .width = d->width,
                         .experts = d->experts, .top_k = d->top_k, .live = &m->head_of_batch->live,
                         .normalize = m->normalize_gates};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_ROUTER_FWD, &r, "router", err));
    MjRouteMapArgs map = {.expert = e->expert, .count = e->count, .demand = m->count_demand ? e->demand : NULL, .offset = e->offset,
                          .row_of = e->row_of, .slot_of = e->slot_of, .stats = m->stats, .scratch = m->s.map,
                          .tokens = m->tokens, .experts = d->experts, .top_k = d->top_k, .rows = m->rows,
                          .capacity = m->capacity, .live = &m->head_of_batch->live};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_ROUTE_MAP, &map, "route map", err));
out:
    return rc;
}

static int permute(MjModel *m, MjLayer *l, MjError *err) {
    MjRouted *e = &l->moe;
    int rc = mj_linear_amax(m, &e->x, l->h2, NULL, MJ_T_BF16, m->tokens, 0, NULL, "expert input", err);
    if (rc != 0) return rc;
    bool tensor = m->d.tensor_recipe;
    MjPermuteArgs a = {.x = l->h2, .slot_of = e->slot_of, .offset = e->offset, .tokens = m->tokens, .width = m->d.width,
                       .experts = m->d.experts, .top_k = m->d.top_k, .rows = m->rows, .q_type = e->x.type,
                       .kmajor = mj_linear_kmajor(m, e->x.type)};
    if (e->x.type == MJ_T_BF16) {
        a.out = e->x.bf16;
        a.scale_mode = MJ_SCALE_NONE;
    } else {
        a.q = e->x.q;
        a.q_scale = tensor ? NULL : e->x.q_scale;
        a.qt = tensor && !a.kmajor ? NULL : e->x.qt;
        a.qt_scale = tensor ? NULL : e->x.qt_scale;
        a.tensor_scale = tensor ? e->x.q_scale : NULL;
        a.scale_mode = tensor ? MJ_SCALE_TENSOR : MJ_SCALE_BLOCK;
    }
    return MJ_OP(m->ops, MJ_OP_PERMUTE, &a, "permute", err);
}

/* rstd: of the rows of x_out, for the next layer; NULL: not wanted */
static int moe(MjModel *m, MjLayer *l, float *x_out, float *rstd, MjError *err) {
    int rc = 0;
    MjRouted *e = &l->moe;
    MjGroups g = {.offset = e->offset, .count = e->count, .experts = m->d.experts};
    MJ_TRY(route(m, l, err));
    MJ_TRY(permute(m, l, err));
    MJ_TRY(mj_linear_forward(m, &e->x, &e->up, e->pre, MJ_T_BF16, MJ_EPI_STORE, m->rows, &g, err));
    MJ_TRY(relu2(m, e->pre, &e->act, m->rows, &g, "expert relu2", err));
    MJ_TRY(mj_linear_forward(m, &e->act, &e->down, m->s.routed, MJ_T_BF16, MJ_EPI_STORE, m->rows, &g, err));
    bool shared = m->d.ffn_hidden > 0;
    if (shared) MJ_TRY(ffn(m, l, m->s.ffn_out, MJ_T_BF16, MJ_EPI_STORE, err));
    MjCombineFwdArgs c = {.y = m->s.routed, .shared = shared ? m->s.ffn_out : NULL, .row_of = e->row_of, .gate = e->gate,
                          .x = l->x_mid, .x_out = x_out, .rstd = rstd, .eps = MJ_RMS_EPS, .tokens = m->tokens,
                          .width = m->d.width, .top_k = m->d.top_k, .rows = m->rows};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_COMBINE_FWD, &c, "combine", err));
out:
    return rc;
}

static int head_chunk(MjModel *m, bool train, int32_t at, int32_t n, MjError *err) {
    int rc = 0;
    size_t first = (size_t)at * (size_t)m->d.width;
    MjOperand x = {.type = MJ_T_BF16, .cols = m->d.width, .bf16 = m->h_last + first};
    MJ_TRY(mj_linear_forward(m, &x, &m->head, m->s.logits, MJ_T_BF16, MJ_EPI_STORE, n, NULL, err));
    MjCrossEntropyArgs ce = {.logits = m->s.logits, .target = m->target + at, .loss = m->s.loss + at,
                             .softcap = m->softcap, .dscale = &m->head_of_batch->dscale, .tokens = n, .vocab = m->d.vocab_padded,
                             .vocab_used = m->d.vocab, .write_grad = train};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_CROSS_ENTROPY, &ce, "loss", err));
    if (!train) goto out;
    MjOperand dy = {.type = MJ_T_BF16, .cols = m->d.vocab_padded, .bf16 = m->s.logits};
    MJ_TRY(mj_linear_dgrad(m, &dy, &m->head, m->s.dx_a + first, MJ_T_BF16, n, NULL, err));
    MJ_TRY(mj_linear_wgrad(m, &dy, &x, &m->head, n, NULL, err));
out:
    return rc;
}

static int head(MjModel *m, bool train, MjError *err) {
    int rc = 0;
    for (int32_t at = 0; at < m->tokens; at += m->d.loss_chunk) {
        int32_t n = m->tokens - at < m->d.loss_chunk ? m->tokens - at : m->d.loss_chunk;
        MJ_TRY(head_chunk(m, train, at, n, err));
    }
    MjSumArgs sum = {.x = m->s.loss, .partial = m->s.sum_partial, .out = m->sums, .n = m->tokens, .square = 0,
                     .accumulate = 1};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_SUM, &sum, "loss", err));
    if (!train) goto out;
    MjRmsnormBwdArgs b = {.x = m->x_last, .rstd = m->rstd_last, .dy_bf16 = m->s.dx_a, .dx = m->dx, .tokens = m->tokens,
                          .width = m->d.width, .accumulate = 0};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_RMSNORM_BWD, &b, "last norm", err));
out:
    return rc;
}

int mj_model_forward(MjModel *m, bool train, MjError *err) {
    int rc = 0;
    m->count_demand = train && m->balance_rate != 0;
    int32_t layer = -1;
    MjEmbeddingFwdArgs e = {.token = m->token, .table = m->master, .out = m->embedded, .tokens = m->tokens,
                            .width = m->d.width, .vocab = m->d.vocab + 1};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_EMBEDDING_FWD, &e, "embedding", err));
    if (m->first_launch_ns == 0 && !mj_jit_recording(m->ops->jit)) m->first_launch_ns = mj_clock_ns();
    MJ_TRY(rmsnorm(m, m->embedded, NULL, m->layers[0].x_in, NULL, m->rstd0, "first norm", err));
    for (layer = 0; layer < m->d.depth; layer++) {
        MjLayer *l = &m->layers[layer];
        MjLayer *next = layer + 1 < m->d.depth ? l + 1 : NULL;
        float *x_out = next != NULL ? next->x_in : m->x_last;
        MJ_TRY(attention(m, l, m->d.window[layer], layer > 0 && m->d.experts > 0, err));
        /* combine reads x_mid itself; a GEMM that adds to the residual wants it where its sum goes */
        MJ_TRY(rmsnorm(m, l->x_mid, l->h2, NULL, m->d.experts > 0 ? NULL : x_out, l->rstd2, "mlp norm", err));
        MJ_TRY(m->d.experts > 0 ? moe(m, l, x_out, next != NULL && norm_quantises(m) ? next->rstd1 : NULL, err)
                                : ffn(m, l, x_out, MJ_T_F32, MJ_EPI_ACCUMULATE, err));
    }
    layer = -1;
    MJ_TRY(rmsnorm(m, m->x_last, m->h_last, NULL, NULL, m->rstd_last, "last norm", err));
    MJ_TRY(head(m, train, err));
out:
    if (rc != 0 && layer >= 0) rc = mj_error_context(err, rc, "forward, layer %d", layer);
    return rc;
}
