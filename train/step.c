/* One optimizer step. */
#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"

void mj_step_open(MjStep *s, MjModel *model, const MjMode *mode, MjBucket bucket, const MjConfig *config) {
    *s = (MjStep){.model = model, .mode = mode, .bucket = bucket, .n_batches = config->train.grad_accum,
                  .optimizer = &config->optimizer, .total_steps = config->train.steps};
    s->batches = mj_xcalloc((size_t)s->n_batches, sizeof *s->batches);
    size_t n = (size_t)model->d.max_tokens;
    for (int32_t i = 0; i < s->n_batches; i++) {
        s->batches[i].token = mj_xcalloc(n, sizeof(int32_t));
        s->batches[i].target = mj_xcalloc(n, sizeof(int32_t));
        s->batches[i].pos = mj_xcalloc(n, sizeof(int32_t));
    }
}

void mj_step_close(MjStep *s) {
    for (int32_t i = 0; i < s->n_batches && s->batches != NULL; i++) {
        free(s->batches[i].token);
        free(s->batches[i].target);
        free(s->batches[i].pos);
    }
    free(s->batches);
    *s = (MjStep){0};
}

int32_t mj_step_pad(const MjStep *s, int32_t tokens) {
    return mj_mode_pad(s->mode, &s->bucket, tokens, s->model->d.max_tokens);
}

double mj_step_schedule(const MjOptimizerConfig *o, int32_t step, int32_t total) {
    if (step < o->warmup) return (double)(step + 1) / o->warmup;
    double down = o->warmdown * total;
    double left = total - step;
    if (down < 1 || left >= down) return 1;
    double x = left / down; /* 1 -> 0 */
    return x + (1 - x) * o->final_lr;
}

/* Padding: the token whose embedding is zeros, so that padded rows are zeros in every layer and change no scale. */
static int load(MjModel *m, const MjBatch *b, int32_t padded, MjError *err) {
    int rc = 0;
    const MjDeviceOps *dev = m->device->ops;
    size_t bytes = (size_t)padded * sizeof(int32_t);
    for (int32_t i = b->tokens; i < padded; i++) {
        b->token[i] = m->d.vocab;
        b->target[i] = -1;
        b->pos[i] = 0;
    }
    MJ_TRY(dev->upload(m->device, m->token, b->token, bytes, err));
    MJ_TRY(dev->upload(m->device, m->target, b->target, bytes, err));
    MJ_TRY(dev->upload(m->device, m->pos, b->pos, bytes, err));
    mj_model_shape(m, padded, b->tokens);
out:
    return rc;
}

static int grad_norm(MjModel *m, MjError *err) {
    MjSumArgs a = {.x = m->grad, .partial = m->s.sum_partial, .out = m->sums + 1, .n = m->n_weights, .square = 1};
    return MJ_OP(m->ops, MJ_OP_SUM, &a, "gradient norm", err);
}

static int zero_sums(MjModel *m, MjError *err) {
    int rc = m->device->ops->fill(m->device, m->sums, 0, 2 * sizeof(double), err);
    if (rc == 0) rc = m->device->ops->fill(m->device, m->stats, 0, 4 * sizeof(int32_t), err);
    return rc;
}

int mj_step_gradients(MjStep *s, MjStepResult *out, MjError *err) {
    int rc = 0;
    MjModel *m = s->model;
    MjStepResult r = {0};
    int64_t targets = 0;
    double sums[2];
    int32_t stats[4];
    for (int32_t i = 0; i < s->n_batches; i++) targets += s->batches[i].targets;
    float dscale = targets > 0 ? (float)(1.0 / (double)targets) : 0;
    MJ_TRY(zero_sums(m, err));
    for (int32_t i = 0; i < s->n_batches; i++) {
        int32_t padded = mj_step_pad(s, s->batches[i].tokens);
        MJ_TRY(load(m, &s->batches[i], padded, err));
        MJ_TRY(mj_model_forward(m, true, dscale, err));
        MJ_TRY(mj_model_backward(m, err));
        r.tokens += s->batches[i].tokens;
        r.padded_rows += padded - s->batches[i].tokens;
    }
    MJ_TRY(grad_norm(m, err));
    MJ_TRY(m->device->ops->download(m->device, sums, m->sums, sizeof sums, err));
    MJ_TRY(m->device->ops->download(m->device, stats, m->stats, sizeof stats, err));
    r.loss = targets > 0 ? sums[0] / (double)targets : 0;
    r.grad_norm = sqrt(sums[1]);
    r.padded_rows += stats[0];
    r.dropped_rows = stats[1];
    *out = r;
out:
    return rc;
}

typedef struct Group {
    int64_t from, to;
    double lr, weight_decay;
    const MjBetas *betas;
    const char *name;
} Group;

static int adamw(MjModel *m, const MjOptimizerConfig *o, const Group *g, double factor, int64_t t, MjError *err) {
    if (g->to == g->from) return 0;
    MjAdamwArgs a = {.w = m->master + g->from, .m = m->m + g->from, .v = m->v + g->from, .grad = m->grad + g->from,
                     .n = g->to - g->from, .lr = (float)(g->lr * factor), .beta1 = (float)g->betas->beta1,
                     .beta2 = (float)g->betas->beta2, .eps = (float)o->eps, .weight_decay = (float)g->weight_decay,
                     .bias1 = (float)(1 - pow(g->betas->beta1, (double)t)),
                     .bias2 = (float)(1 - pow(g->betas->beta2, (double)t)), .grad_scale = 1};
    return MJ_OP(m->ops, MJ_OP_ADAMW, &a, g->name, err);
}

/* With several micro-batches the demand is that of the last one. */
static int balance(MjModel *m, MjError *err) {
    if (m->balance_rate == 0) return 0;
    for (int32_t i = 0; i < m->d.depth && m->d.experts > 0; i++) {
        MjBalanceArgs a = {.demand = m->layers[i].moe.demand, .bias = m->layers[i].moe.bias, .rate = m->balance_rate,
                           .experts = m->d.experts};
        int rc = MJ_OP(m->ops, MJ_OP_BALANCE, &a, "balance", err);
        if (rc != 0) return rc;
    }
    return 0;
}

int mj_step_update(MjStep *s, int32_t step, MjError *err) {
    int rc = 0;
    MjModel *m = s->model;
    const MjOptimizerConfig *o = s->optimizer;
    double factor = mj_step_schedule(o, step, s->total_steps);
    double scale = o->scale_lr ? sqrt(768.0 / m->d.width) : 1;
    const Group groups[] = {
        {0, m->head_at, o->embedding_lr * scale, 0, &o->embedding_betas, "embedding"},
        {m->head_at, m->matrices_at, o->head_lr * scale, o->weight_decay, &o->betas, "head"},
        {m->matrices_at, m->routers_at, o->matrix_lr, o->weight_decay, &o->betas, "matrices"},
        {m->routers_at, m->n_weights, o->router_lr, 0, &o->betas, "routers"},
    };
    for (int i = 0; i < 4; i++) MJ_TRY(adamw(m, o, &groups[i], factor, step + 1, err));
    MJ_TRY(balance(m, err));
    MJ_TRY(mj_model_refresh(m, err));
out:
    return rc;
}

int mj_step_evaluate(MjStep *s, double *nats, MjError *err) {
    int rc = 0;
    MjModel *m = s->model;
    double sums[2];
    MJ_TRY(zero_sums(m, err));
    MJ_TRY(load(m, &s->batches[0], mj_step_pad(s, s->batches[0].tokens), err));
    MJ_TRY(mj_model_forward(m, false, 0, err));
    MJ_TRY(m->device->ops->download(m->device, sums, m->sums, sizeof sums, err));
    *nats = sums[0];
out:
    return rc;
}

int mj_step_record(MjStep *s, int32_t padded, bool train, MjError *err) {
    int rc = 0;
    mj_model_shape(s->model, padded, padded);
    MJ_TRY(mj_model_forward(s->model, train, 0, err));
    if (!train) goto out;
    MJ_TRY(mj_model_backward(s->model, err));
    MJ_TRY(grad_norm(s->model, err));
    MJ_TRY(mj_step_update(s, 0, err));
out:
    return rc;
}
