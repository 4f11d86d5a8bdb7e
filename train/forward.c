/* The forward pass of one micro-batch, and the head with its loss (and the head's gradients, which are taken while a
 * chunk's logits are in memory). */
#include "train/model.h"

#include "runtime/base/clock.h"
#include "train/forward.h"

static int rmsnorm(MjModel *m, MjRmsnormFwdArgs a, const char *what, MjError *err) {
    a.eps = MJ_RMS_EPS;
    a.tokens = m->tokens;
    a.width = m->d.width;
    return MJ_OP(m->ops, MJ_OP_RMSNORM_FWD, &a, what, err);
}

/* Under recipe block the attention norm's output is quantised where it is made and has no bf16 copy. */
static bool norm_quantises(const MjModel *m) { return m->d.fp8_linears && !m->d.tensor_recipe; }

/* h1 = rmsnorm(x_in). Of a mixture combine has left x_in, and (with norm_quantises) its rows' rstd; in a dense model x_in is what the
 * layer before had after its attention, and its MLP's output in s.dx_a. */
static int attention_norm(MjModel *m, int32_t layer, MjError *err) {
    int rc = 0;
    MjLayer *l = &m->layers[layer];
    MjOperand *h = &l->h1;
    const bool sum = layer > 0 && m->d.experts == 0;
    MjRmsnormFwdArgs n = {.x = sum ? l[-1].x_mid : l->x_in, .add = sum ? m->s.dx_a : NULL, .x_out = sum ? l->x_in : NULL, .rstd = l->rstd1};
    if (!norm_quantises(m)) {
        n.y = h->type == MJ_T_BF16 ? h->bf16 : m->s.h;
        MJ_TRY(rmsnorm(m, n, "attention norm", err));
        MJ_TRY(mj_linear_quantize(m, h, n.y, MJ_T_BF16, m->tokens, NULL, "qkv input", err));
        goto out;
    }
    if (layer == 0 || sum) MJ_TRY(rmsnorm(m, n, "attention norm", err));
    MjRmsnormQuantArgs a = {.x = l->x_in, .rstd = l->rstd1, .q = h->q, .q_scale = h->q_scale, .qt = h->qt, .qt_scale = h->qt_scale,
                            .tokens = m->tokens, .width = m->d.width, .kmajor = mj_linear_kmajor(m, h->type)};
    MJ_TRY(MJ_OP(m->ops, MJ_OP_RMSNORM_QUANT, &a, "attention norm", err));
out:
    return rc;
}

/* Its output, before it is added to the residual, in s.dx_a. */
static int attention(MjModel *m, MjLayer *l, int32_t window, MjError *err) {
    int rc = 0;
    const MjDims *d = &m->d;
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
    MJ_TRY(mj_linear_forward(m, &l->att_in, &l->wo, m->s.dx_a, MJ_T_BF16, MJ_EPI_STORE, m->tokens, NULL, err));
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

/* The part of the MLP that every token passes. */
static int ffn(MjModel *m, MjLayer *l, uint16_t *out, MjError *err) {
    int rc = 0;
    MJ_TRY(mj_linear_quantize(m, &l->ffn_in, l->h2, MJ_T_BF16, m->tokens, NULL, "mlp input", err));
    MJ_TRY(mj_linear_forward(m, &l->ffn_in, &l->ffn.up, l->ffn.pre, MJ_T_BF16, MJ_EPI_STORE, m->tokens, NULL, err));
    MJ_TRY(relu2(m, l->ffn.pre, &l->ffn.act, m->tokens, NULL, "mlp relu2", err));
    MJ_TRY(mj_linear_forward(m, &l->ffn.act, &l->ffn.down, out, MJ_T_BF16, MJ_EPI_STORE, m->tokens, NULL, err));
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
    if (shared) MJ_TRY(ffn(m, l, m->s.ffn_out, err));
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
    MJ_TRY(rmsnorm(m, (MjRmsnormFwdArgs){.x = m->embedded, .y_f32 = m->layers[0].x_in, .rstd = m->rstd0}, "first norm", err));
    for (layer = 0; layer < m->d.depth; layer++) {
        MjLayer *l = &m->layers[layer];
        const bool last = layer + 1 == m->d.depth;
        MJ_TRY(attention_norm(m, layer, err));
        MJ_TRY(attention(m, l, m->d.window[layer], err));
        MJ_TRY(rmsnorm(m, (MjRmsnormFwdArgs){.x = l->x_in, .add = m->s.dx_a, .y = l->h2, .x_out = l->x_mid, .rstd = l->rstd2}, "mlp norm", err));
        if (m->d.experts == 0) MJ_TRY(ffn(m, l, m->s.dx_a, err));
        else MJ_TRY(moe(m, l, last ? m->x_last : l[1].x_in, last || !norm_quantises(m) ? NULL : l[1].rstd1, err));
    }
    const bool sum = m->d.experts == 0; /* as in attention_norm */
    MjRmsnormFwdArgs n = {.x = sum ? m->layers[m->d.depth - 1].x_mid : m->x_last, .add = sum ? m->s.dx_a : NULL,
                          .x_out = sum ? m->x_last : NULL, .y = m->h_last, .rstd = m->rstd_last};
    layer = -1;
    MJ_TRY(rmsnorm(m, n, "last norm", err));
    MJ_TRY(head(m, train, err));
out:
    if (rc != 0 && layer >= 0) rc = mj_error_context(err, rc, "forward, layer %d", layer);
    return rc;
}
