/* Allocation of a model's device memory, its initial weights and its working copies. The order of the flat buffers is
 * embedding, head, matrices of the layers, routers: one AdamW launch for each of these groups. */
#include "train/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"

typedef struct Builder {
    MjModel *m;
    uintptr_t fake; /* next made-up address while planning */
    int rc;         /* first failure; later allocations do nothing */
    MjError *err;
} Builder;

static void *take(Builder *b, int64_t count, size_t size, const char *what) {
    MjModel *m = b->m;
    if (count == 0 || b->rc != 0) return NULL;
    size_t bytes = (size_t)count * size;
    void *p = NULL;
    if (m->device == NULL) {
        p = (void *)b->fake; /* never read: ops launch nothing without a device */
        b->fake += (bytes + 255) / 256 * 256;
        return p;
    }
    b->rc = m->device->ops->alloc(m->device, bytes, what, &p, b->err);
    if (b->rc != 0) return NULL;
    if ((m->n_blocks & (m->n_blocks - 1)) == 0) {
        m->blocks = mj_xrealloc(m->blocks, (size_t)(m->n_blocks == 0 ? 1 : 2 * m->n_blocks) * sizeof *m->blocks);
    }
    m->blocks[m->n_blocks++] = p;
    return p;
}

static float *take_f32(Builder *b, int64_t n, const char *what) { return take(b, n, 4, what); }
static uint16_t *take_bf16(Builder *b, int64_t n, const char *what) { return take(b, n, 2, what); }
static int32_t *take_i32(Builder *b, int64_t n, const char *what) { return take(b, n, 4, what); }

/* Bytes of a copy along the rows. */
static int64_t turned_bytes(const MjModel *m, int64_t rows, int64_t cols) {
    return (mj_linear_kmajor(m, MJ_T_E4M3) ? MJ_KMAJOR_STRIDE(rows) : rows) * cols;
}

/* Saved until the backward pass: bf16 whole; fp8 keeps qt and lets q go to scratch, unless one copy is both. */
static MjOperand saved_operand(Builder *b, bool fp8, int64_t rows, int32_t cols, uint16_t *existing, const char *what) {
    MjOperand op = {.type = fp8 ? MJ_T_E4M3 : MJ_T_BF16, .cols = cols};
    if (!fp8) {
        op.bf16 = existing != NULL ? existing : take_bf16(b, rows * cols, what);
        return op;
    }
    const bool tensor = b->m->d.tensor_recipe;
    op.qt = take(b, turned_bytes(b->m, rows, cols), 1, what);
    op.qt_scale = take_f32(b, tensor ? 1 : (rows + 127) / 128 * cols, what);
    op.q = tensor && !mj_linear_kmajor(b->m, op.type) ? op.qt : b->m->s.q;
    op.q_scale = tensor ? op.qt_scale : b->m->s.q_scale;
    return op;
}

static MjWeight declare(MjModel *m, int32_t experts, int32_t out, int32_t in, bool fp8, const char *name) {
    MjWeight w = {.offset = m->n_weights, .experts = experts, .out = out, .in = in, .name = name,
                  .type = fp8 ? MJ_T_E4M3 : MJ_T_BF16};
    m->n_weights += ((int64_t)experts * out * in + 63) / 64 * 64;
    return w;
}

static void declare_weights(MjModel *m) {
    const MjDims *d = &m->d;
    m->n_weights = ((int64_t)(d->vocab + 1) * d->width + 63) / 64 * 64;
    m->head_at = m->n_weights;
    m->head = declare(m, 1, d->vocab_padded, d->width, false, "head");
    m->matrices_at = m->n_weights;
    for (int32_t i = 0; i < d->depth; i++) {
        MjLayer *l = &m->layers[i];
        bool ffn_fp8 = d->experts > 0 ? d->fp8_experts : d->fp8_linears;
        l->qkv = declare(m, 1, 3 * d->width, d->width, d->fp8_linears, "qkv");
        l->wo = declare(m, 1, d->width, d->width, d->fp8_linears, "attention out");
        if (d->ffn_hidden > 0) {
            l->ffn.up = declare(m, 1, d->ffn_hidden, d->width, ffn_fp8, "mlp up");
            l->ffn.down = declare(m, 1, d->width, d->ffn_hidden, ffn_fp8, "mlp down");
        }
        if (d->experts > 0) {
            l->moe.up = declare(m, d->experts, d->hidden, d->width, d->fp8_experts, "experts up");
            l->moe.down = declare(m, d->experts, d->width, d->hidden, d->fp8_experts, "experts down");
        }
    }
    m->routers_at = m->n_weights;
    for (int32_t i = 0; i < d->depth && d->experts > 0; i++) {
        m->layers[i].moe.router = declare(m, 1, d->experts, d->width, false, "router").offset;
    }
}

/* How the gradients of dense weights are summed: every layer's alike. Returns the floats that the pieces need. */
static int cut_weights(MjModel *m, int64_t *floats, MjError *err) {
    MjLayer *first = &m->layers[0];
    MjWeight *const dense[] = {&first->qkv, &first->wo, &first->ffn.up, &first->ffn.down};
    int rc = 0;
    *floats = 0;
    for (size_t i = 0; i < sizeof dense / sizeof *dense; i++) {
        MjWeight *w = dense[i];
        if (w->experts == 0) continue;
        MJ_TRY(mj_linear_cut(m, w, err));
        const int64_t need = w->wgrad.pieces > 1 ? (int64_t)w->wgrad.pieces * w->out * w->in : 0;
        if (need > *floats) *floats = need;
    }
    for (int32_t i = 1; i < m->d.depth; i++) {
        MjLayer *l = &m->layers[i];
        l->qkv.wgrad = first->qkv.wgrad;
        l->wo.wgrad = first->wo.wgrad;
        l->ffn.up.wgrad = first->ffn.up.wgrad;
        l->ffn.down.wgrad = first->ffn.down.wgrad;
    }
out:
    return rc;
}

static void working_copy(Builder *b, MjWeight *w) {
    int64_t n = (int64_t)w->experts * w->out * w->in;
    if (n == 0) return;
    if (w->type == MJ_T_BF16) {
        w->bf16 = take_bf16(b, n, "bf16 weights");
        return;
    }
    int64_t blocks = (int64_t)w->experts * ((w->out + 127) / 128) * ((w->in + 127) / 128);
    w->q = take(b, n, 1, "fp8 weights");
    if (mj_linear_kmajor(b->m, w->type)) w->q_t = take(b, n, 1, "fp8 weights, transposed");
    w->scale = take_f32(b, b->m->d.tensor_recipe ? 1 : blocks, "weight scales");
}

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* Elements of the largest fp8 operand that goes through scratch, of n tokens or r routed rows. */
static int64_t scratch_elements(const MjDims *d, int64_t n, int64_t r) {
    int64_t largest = 0;
    bool dense = d->experts == 0;
    if (d->fp8_linears) largest = max64(largest, n * 3 * d->width);
    if (dense ? d->fp8_linears : d->fp8_experts) largest = max64(largest, n * max64(d->width, d->ffn_hidden));
    if (!dense && d->fp8_experts) largest = max64(largest, r * max64(d->width, d->hidden));
    return largest;
}

/* Rows of a branch's output gradient that are kept in bf16: where a GEMM reads that, or where one scale is to be found first.
 * An fp8 gradient of the f32 residual has no bf16 copy. */
static int64_t bf16_gradient_rows(const MjDims *d, int64_t n, int64_t r) {
    const bool linears = !d->fp8_linears, experts = d->experts > 0 && !d->fp8_experts;
    const bool routed = experts || (d->experts > 0 && d->tensor_recipe);
    return max64(linears || experts ? n : 0, routed ? r : 0);
}

static void build_scratch(Builder *b, int64_t n, int64_t r) {
    MjModel *m = b->m;
    const MjDims *d = &m->d;
    MjScratch *s = &m->s;
    int64_t w = d->width, fp8 = scratch_elements(d, n, r);
    const bool turned = mj_linear_kmajor(m, MJ_T_E4M3);
    bool tensor = d->tensor_recipe;
    s->q = take(b, fp8, 1, "fp8 scratch");
    s->q_scale = take_f32(b, tensor ? 0 : (fp8 + 127) / 128, "scale scratch");
    s->qt = take(b, turned ? scratch_elements(d, MJ_KMAJOR_STRIDE(n), MJ_KMAJOR_STRIDE(r)) : tensor ? 0 : fp8, 1, "fp8 scratch");
    s->qt_scale = take_f32(b, tensor ? 0 : (fp8 + 127) / 128, "scale scratch");
    s->tensor_scale = take_f32(b, tensor ? 1 : 0, "scale scratch");
    s->amax_partial = take_f32(b, tensor ? MJ_AMAX_PARTS : 0, "amax scratch");
    s->h = take_bf16(b, d->fp8_linears && tensor ? n * w : 0, "norm scratch");
    s->ffn_out = take_bf16(b, d->experts > 0 && d->ffn_hidden > 0 ? n * w : 0, "shared expert output");
    s->dy = take_bf16(b, bf16_gradient_rows(d, n, r) * w, "output gradient");
    s->dact = take_bf16(b, max64(n * d->ffn_hidden, r * d->hidden), "activation gradient");
    s->dx_a = take_bf16(b, n * w, "branch gradient");
    s->dx_b = take_bf16(b, d->experts > 0 ? n * w : 0, "router's input gradient");
    s->dx_f32 = take_f32(b, n * w, "branch gradient");
    s->routed = take_bf16(b, r * w, "expert outputs, input gradients");
    s->delta = take_f32(b, n * d->heads, "attention delta");
    s->dqkv = take_bf16(b, n * 3 * w, "qkv gradient");
    s->dgate = take_f32(b, n * d->top_k, "gate gradient");
    s->dlogit = take_f32(b, n * d->experts, "router gradient");
    s->router_partial = take_f32(b, (n + 255) / 256 * d->experts * w, "router gradient");
    s->map = take_i32(b, (n + 255) / 256 * d->experts, "route map scratch");
    s->logits = take_bf16(b, (int64_t)d->loss_chunk * d->vocab_padded, "logits of a chunk");
    s->loss = take_f32(b, n, "losses");
    s->sum_partial = take(b, (max64(m->n_weights, n) + 4095) / 4096, sizeof(double), "sums");
    s->pieces = take_f32(b, m->piece_floats, "pieces of a gradient");
}

static void build_routed(Builder *b, MjRouted *e, int64_t n, int64_t r) {
    const MjDims *d = &b->m->d;
    working_copy(b, &e->up);
    working_copy(b, &e->down);
    e->bias = take_f32(b, d->experts, "balancing bias");
    e->score = take_f32(b, n * d->experts, "router scores");
    e->gate = take_f32(b, n * d->top_k, "gates");
    e->expert = take_i32(b, n * d->top_k, "choices");
    e->row_of = take_i32(b, n * d->top_k, "route map");
    e->slot_of = take_i32(b, r, "route map");
    e->count = take_i32(b, d->experts, "route counts");
    e->demand = take_i32(b, d->experts, "route counts");
    e->offset = take_i32(b, d->experts + 1, "route offsets");
    e->x = saved_operand(b, d->fp8_experts, r, d->width, NULL, "expert inputs");
    e->pre = take_bf16(b, r * d->hidden, "expert hidden");
    e->act = saved_operand(b, d->fp8_experts, r, d->hidden, NULL, "expert activations");
}

static void build_layer(Builder *b, MjLayer *l, int64_t n, int64_t r) {
    const MjDims *d = &b->m->d;
    int64_t nw = n * d->width;
    working_copy(b, &l->qkv);
    working_copy(b, &l->wo);
    l->x_in = take_f32(b, nw, "residual");
    l->x_mid = take_f32(b, nw, "residual");
    l->rstd1 = take_f32(b, n, "norm");
    l->rstd2 = take_f32(b, n, "norm");
    l->h1 = saved_operand(b, d->fp8_linears, n, d->width, NULL, "qkv input");
    l->qkv_out = take_bf16(b, 3 * nw, "qkv");
    l->q = take_bf16(b, nw, "queries");
    l->k = take_bf16(b, nw, "keys");
    l->att = take_bf16(b, nw, "attention output");
    l->q_rstd = take_f32(b, n * d->heads, "query norm");
    l->k_rstd = take_f32(b, n * d->heads, "key norm");
    l->lse = take_f32(b, n * d->heads, "attention lse");
    l->att_in = saved_operand(b, d->fp8_linears, n, d->width, l->att, "attention output");
    l->h2 = take_bf16(b, nw, "mlp input");
    if (d->ffn_hidden > 0) {
        bool fp8 = d->experts > 0 ? d->fp8_experts : d->fp8_linears;
        working_copy(b, &l->ffn.up);
        working_copy(b, &l->ffn.down);
        l->ffn_in = saved_operand(b, fp8, n, d->width, l->h2, "mlp input");
        l->ffn.pre = take_bf16(b, n * d->ffn_hidden, "mlp hidden");
        l->ffn.act = saved_operand(b, fp8, n, d->ffn_hidden, NULL, "mlp activations");
    }
    if (d->experts > 0) build_routed(b, &l->moe, n, r);
}

static void build(Builder *b) {
    MjModel *m = b->m;
    const MjDims *d = &m->d;
    int64_t n = d->max_tokens, r = mj_dims_rows(d, d->max_tokens), nw = n * d->width;
    m->master = take_f32(b, m->n_weights, "weights");
    m->m = take_f32(b, m->n_weights, "first moments");
    m->v = take_f32(b, m->n_weights, "second moments");
    m->grad = take_f32(b, m->n_weights, "gradients");
    working_copy(b, &m->head);
    build_scratch(b, n, r);
    for (int32_t i = 0; i < d->depth; i++) build_layer(b, &m->layers[i], n, r);
    m->embedded = take_f32(b, nw, "embedding");
    m->rstd0 = take_f32(b, n, "norm");
    m->x_last = take_f32(b, nw, "residual");
    m->rstd_last = take_f32(b, n, "norm");
    m->h_last = take_bf16(b, nw, "head input");
    m->dx = take_f32(b, nw, "residual gradient");
    size_t layout[4];
    mj_model_input_layout(d->max_tokens, layout);
    m->input_bytes = layout[3];
    m->input = take(b, 1, m->input_bytes, "tokens, targets, positions");
    m->waiting = take(b, d->micro_batches > 1 ? d->micro_batches : 0, m->input_bytes, "tokens, targets, positions");
    m->sums = take(b, 4, sizeof(double), "sums");
    m->stats = (int32_t *)(void *)(m->sums + 2);
}

int mj_model_open(const MjConfig *config, MjOps *ops, MjModel **out, MjError *err) {
    int rc = 0;
    MjModel *m = mj_xcalloc(1, sizeof *m);
    MJ_TRY(mj_dims_make(config, &m->d, err));
    m->ops = ops;
    m->device = ops->device;
    m->softcap = (float)config->model.softcap;
    m->balance_rate = (float)config->moe.balance_rate;
    m->normalize_gates = config->moe.normalize_gates;
    m->layers = mj_xcalloc((size_t)m->d.depth, sizeof *m->layers);
    declare_weights(m);
    MJ_TRY(cut_weights(m, &m->piece_floats, err));
    Builder b = {.m = m, .fake = 1 << 16, .err = err};
    build(&b);
    rc = b.rc;
    if (rc == 0) {
        *out = m;
        m = NULL;
    }
out:
    mj_model_close(m);
    return rc;
}

void mj_model_close(MjModel *m) {
    if (m == NULL) return;
    for (int i = 0; i < m->n_blocks; i++) m->device->ops->free(m->device, m->blocks[i]);
    free(m->blocks);
    free(m->layers);
    free(m);
}

/* Every part starts at a multiple of 256 bytes, as an allocation would. */
void mj_model_input_layout(int32_t tokens, size_t at[4]) {
    at[0] = (sizeof(MjBatchHead) + 255) / 256 * 256;
    for (int i = 1; i < 4; i++) at[i] = at[i - 1] + ((size_t)tokens * sizeof(int32_t) + 255) / 256 * 256;
}

void mj_model_place(MjModel *m, const char *input, int32_t tokens) {
    size_t layout[4];
    mj_model_input_layout(tokens, layout);
    m->head_of_batch = (const void *)input;
    m->token = (const void *)(input + layout[0]);
    m->target = (const void *)(input + layout[1]);
    m->pos = (const void *)(input + layout[2]);
    m->tokens = tokens;
    m->rows = mj_dims_rows(&m->d, tokens);
    m->capacity = mj_dims_capacity(&m->d, tokens);
}

static int refresh_weight(MjModel *m, const MjWeight *w, MjError *err) {
    if (w->experts == 0) return 0;
    const float *master = m->master + w->offset;
    bool fp8 = w->type != MJ_T_BF16, tensor = fp8 && m->d.tensor_recipe;
    if (tensor) {
        MjAmaxArgs a = {.x = master, .partial = m->s.amax_partial, .scale = m->s.tensor_scale, .rows = w->experts * w->out,
                        .cols = w->in, .experts = 1, .x_type = MJ_T_F32, .q_type = w->type};
        int rc = MJ_OP(m->ops, MJ_OP_AMAX, &a, w->name, err);
        if (rc != 0) return rc;
    }
    MjQuantizeWeightArgs a = {.w = master, .w_bf16 = w->bf16, .q = w->q, .q_t = w->q_t, .scale = w->scale,
                              .tensor_scale = tensor ? m->s.tensor_scale : NULL, .experts = w->experts, .out_features = w->out,
                              .in_features = w->in, .q_type = w->type,
                              .scale_mode = !fp8 ? MJ_SCALE_NONE : tensor ? MJ_SCALE_TENSOR : MJ_SCALE_BLOCK};
    return MJ_OP(m->ops, MJ_OP_QUANTIZE_WEIGHT, &a, w->name, err);
}

int mj_model_refresh(MjModel *m, MjError *err) {
    int rc = 0;
    MJ_TRY(refresh_weight(m, &m->head, err));
    for (int32_t i = 0; i < m->d.depth; i++) {
        const MjLayer *l = &m->layers[i];
        MJ_TRY(refresh_weight(m, &l->qkv, err));
        MJ_TRY(refresh_weight(m, &l->wo, err));
        MJ_TRY(refresh_weight(m, &l->ffn.up, err));
        MJ_TRY(refresh_weight(m, &l->ffn.down, err));
        MJ_TRY(refresh_weight(m, &l->moe.up, err));
        MJ_TRY(refresh_weight(m, &l->moe.down, err));
    }
out:
    return rc;
}
