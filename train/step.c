/* One optimizer step. */
#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"

void mj_step_open(MjStep *s, MjModel *model, const MjMode *mode, MjBucket bucket, const MjConfig *config) {
    const size_t batches = (size_t)config->train.grad_accum, n = (size_t)model->d.max_tokens;
    *s = (MjStep){.model = model, .mode = mode, .bucket = bucket, .n_batches = config->train.grad_accum,
                  .optimizer = &config->optimizer, .total_steps = config->train.steps};
    if (mode->pad == MJ_PAD_BUCKET && bucket.kind != MJ_BUCKET_EXACT && config->data.packing == MJ_PACKING_FULL)
        s->least = config->train.batch * config->train.seq_len;
    s->batches = mj_xcalloc(batches, sizeof *s->batches);
    s->padded = mj_xcalloc(batches, sizeof *s->padded);
    s->at = mj_xcalloc(batches + 1, sizeof *s->at);
    s->input = mj_xcalloc(batches, model->input_bytes);
    mj_step_graphs_open(&s->graphs, config->run.graphs);
    for (int32_t i = 0; i < s->n_batches; i++) {
        s->batches[i].token = mj_xcalloc(n, sizeof(int32_t));
        s->batches[i].target = mj_xcalloc(n, sizeof(int32_t));
        s->batches[i].pos = mj_xcalloc(n, sizeof(int32_t));
    }
}

void mj_step_close(MjStep *s) {
    if (s->model != NULL) mj_step_graphs_close(&s->graphs, s->model->device);
    for (int32_t i = 0; i < s->n_batches && s->batches != NULL; i++) {
        free(s->batches[i].token);
        free(s->batches[i].target);
        free(s->batches[i].pos);
    }
    free(s->batches);
    free(s->padded);
    free(s->at);
    free(s->input);
    *s = (MjStep){0};
}

int32_t mj_step_pad(const MjStep *s, int32_t tokens) {
    return mj_mode_pad(s->mode, &s->bucket, tokens < s->least ? s->least : tokens, s->model->d.max_tokens);
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
static void pad_part(void *to, const int32_t *from, int32_t live, int32_t padded, int32_t filler) {
    int32_t *out = to;
    memcpy(out, from, (size_t)live * sizeof *out);
    for (int32_t i = live; i < padded; i++) out[i] = filler;
}

static void fill_input(char *to, const MjBatch *b, int32_t padded, int32_t filler, MjBatchHead head, const size_t part[4]) {
    head.live = b->tokens;
    memcpy(to, &head, sizeof head);
    pad_part(to + part[0], b->token, b->tokens, padded, filler);
    pad_part(to + part[1], b->target, b->tokens, padded, -1);
    pad_part(to + part[2], b->pos, b->tokens, padded, 0);
}

/* Where the inputs of a step lie on the device. The same sizes lie in the same places. */
static char *inputs(const MjModel *m) { return m->waiting != NULL ? m->waiting : m->input; }

/* Hands the first n micro-batches to the device, in one piece. */
static int load(MjStep *s, int32_t n, MjBatchHead head, MjError *err) {
    MjModel *m = s->model;
    for (int32_t i = 0; i < n; i++) {
        size_t part[4];
        s->padded[i] = mj_step_pad(s, s->batches[i].tokens);
        mj_model_input_layout(s->padded[i], part);
        fill_input(s->input + s->at[i], &s->batches[i], s->padded[i], m->d.vocab, head, part);
        s->at[i + 1] = s->at[i] + part[3];
    }
    return m->device->ops->upload(m->device, inputs(m), s->input, s->at[n], err);
}

static int grad_norm(MjModel *m, MjError *err) {
    MjSumArgs a = {.x = m->grad, .partial = m->s.sum_partial, .out = m->sums + 1, .n = m->n_weights, .square = 1};
    return MJ_OP(m->ops, MJ_OP_SUM, &a, "gradient norm", err);
}

typedef struct Sums { /* as they lie on the device */
    double loss, norm;
    int32_t stats[4];
} Sums;

static int zero_sums(MjModel *m, MjError *err) { return m->device->ops->fill(m->device, m->sums, 0, sizeof(Sums), err); }

typedef struct Group {
    int64_t from, to;
    double lr, weight_decay;
    const MjBetas *betas;
    const char *name;
} Group;

static void weight_groups(const MjStep *s, Group *out) {
    const MjModel *m = s->model;
    const MjOptimizerConfig *o = s->optimizer;
    const double scale = o->scale_lr ? sqrt(768.0 / m->d.width) : 1;
    out[MJ_GROUP_EMBEDDING] = (Group){0, m->head_at, o->embedding_lr * scale, 0, &o->embedding_betas, "embedding"};
    out[MJ_GROUP_HEAD] = (Group){m->head_at, m->matrices_at, o->head_lr * scale, o->weight_decay, &o->betas, "head"};
    out[MJ_GROUP_MATRICES] = (Group){m->matrices_at, m->routers_at, o->matrix_lr, o->weight_decay, &o->betas, "matrices"};
    out[MJ_GROUP_ROUTERS] = (Group){m->routers_at, m->n_weights, o->router_lr, 0, &o->betas, "routers"};
}

/* What update `step` (from 0) multiplies by, computed in double. */
static void set_rates(const MjStep *s, int32_t step, MjBatchHead *head) {
    Group groups[MJ_WEIGHT_GROUPS];
    const double factor = mj_step_schedule(s->optimizer, step, s->total_steps), t = step + 1;
    weight_groups(s, groups);
    for (int i = 0; i < MJ_WEIGHT_GROUPS; i++) {
        head->rates[i][MJ_RATE_LR] = (float)(groups[i].lr * factor);
        head->rates[i][MJ_RATE_BIAS1] = (float)(1 - pow(groups[i].betas->beta1, t));
        head->rates[i][MJ_RATE_BIAS2] = (float)(1 - pow(groups[i].betas->beta2, t));
    }
}

static int adamw(MjStep *s, int i, const Group *g, MjError *err) {
    MjModel *m = s->model;
    if (g->to == g->from) return 0;
    MjAdamwArgs a = {.w = m->master + g->from, .m = m->m + g->from, .v = m->v + g->from, .grad = m->grad + g->from,
                     .rates = m->head_of_batch->rates[i], .guard = m->sums, .n = g->to - g->from,
                     .beta1 = (float)g->betas->beta1, .beta2 = (float)g->betas->beta2, .eps = (float)s->optimizer->eps,
                     .weight_decay = (float)g->weight_decay, .grad_scale = 1};
    return MJ_OP(m->ops, MJ_OP_ADAMW, &a, g->name, err);
}

/* By what all micro-batches of the step asked for. */
static int balance(MjModel *m, MjError *err) {
    if (m->balance_rate == 0) return 0;
    for (int32_t i = 0; i < m->d.depth && m->d.experts > 0; i++) {
        MjBalanceArgs a = {.demand = m->layers[i].moe.demand, .guard = m->sums, .bias = m->layers[i].moe.bias,
                           .rate = m->balance_rate, .experts = m->d.experts};
        int rc = MJ_OP(m->ops, MJ_OP_BALANCE, &a, "balance", err);
        if (rc != 0) return rc;
    }
    return 0;
}

/* AdamW on all groups, balancing bias, working copies; with the rates of the micro-batch at work. */
static int update(MjStep *s, MjError *err) {
    int rc = 0;
    Group groups[MJ_WEIGHT_GROUPS];
    weight_groups(s, groups);
    for (int i = 0; i < MJ_WEIGHT_GROUPS; i++) MJ_TRY(adamw(s, i, &groups[i], err));
    MJ_TRY(balance(s->model, err));
    MJ_TRY(mj_model_refresh(s->model, err));
out:
    return rc;
}

typedef struct Work { /* what the device does for micro-batches [first, end) of a step */
    MjStep *step;
    int32_t first, end;
    bool in_place, update; /* in_place: of their inputs; else (one micro-batch) of the copy in model->input */
} Work;

/* With the first micro-batch the sums are zeroed, with the last one comes the norm and, if asked for, the update. Writes no
 * host data and reads none but sizes, and launches the same with the same sizes each time: what mj_step_graphs_run captures. */
static int work(void *user, MjError *err) {
    int rc = 0;
    const Work *w = user;
    MjStep *s = w->step;
    MjModel *m = s->model;
    for (int32_t i = w->first; i < w->end; i++) {
        mj_model_place(m, w->in_place ? inputs(m) + s->at[i] : m->input, s->padded[i]);
        if (i == 0) MJ_TRY(zero_sums(m, err));
        MJ_TRY(mj_model_forward(m, true, err));
        MJ_TRY(mj_model_backward(m, err));
    }
    if (w->end < s->n_batches) goto out;
    MJ_TRY(grad_norm(m, err));
    if (w->update) MJ_TRY(update(s, err));
out:
    return rc;
}

/* One micro-batch as a piece of its own: it is worked on at a place that all of them share, so that it can be the same graph
 * wherever its input lies. */
static int run_micro_batch(MjStep *s, int32_t at, bool with_update, MjError *err) {
    MjModel *m = s->model;
    Work w = {.step = s, .first = at, .end = at + 1, .update = with_update};
    const int variant = (int)(at == 0) | (int)(w.end == s->n_batches) << 1 | (int)with_update << 2;
    int rc = m->device->ops->copy(m->device, m->input, inputs(m) + s->at[at], s->at[at + 1] - s->at[at], err);
    if (rc != 0) return rc;
    return mj_step_graphs_run(&s->graphs, m->ops, (MjPieceName){&s->padded[at], 1, variant}, work, &w, err);
}

static int run_step(MjStep *s, bool with_update, MjError *err) {
    int rc = 0;
    MjModel *m = s->model;
    Work all = {.step = s, .end = s->n_batches, .in_place = true, .update = with_update};
    const MjPieceName whole = {s->padded, s->n_batches, 3 | (int)with_update << 2};
    if (mj_step_graphs_whole(&s->graphs, m->ops, whole)) return mj_step_graphs_run(&s->graphs, m->ops, whole, work, &all, err);
    for (int32_t i = 0; i < s->n_batches; i++) MJ_TRY(run_micro_batch(s, i, with_update, err));
out:
    return rc;
}

/* One upload, then all launches, then one download. */
static int run(MjStep *s, int32_t step, bool with_update, MjStepResult *out, MjError *err) {
    int rc = 0;
    MjModel *m = s->model;
    MjStepResult r = {0};
    MjBatchHead head = {0};
    MjDeviceCounters before, after;
    Sums sums;
    int64_t targets = 0;
    for (int32_t i = 0; i < s->n_batches; i++) targets += s->batches[i].targets;
    head.dscale = targets > 0 ? (float)(1.0 / (double)targets) : 0;
    set_rates(s, step, &head);
    MJ_TRY(load(s, s->n_batches, head, err));
    for (int32_t i = 0; i < s->n_batches; i++) {
        r.tokens += s->batches[i].tokens;
        r.padded_rows += s->padded[i] - s->batches[i].tokens;
    }
    m->device->ops->counters(m->device, &before);
    MJ_TRY(run_step(s, with_update, err));
    m->device->ops->counters(m->device, &after);
    MJ_TRY(m->device->ops->download(m->device, &sums, m->sums, sizeof sums, err));
    r.loss = targets > 0 ? sums.loss / (double)targets : 0;
    r.grad_norm = sqrt(sums.norm);
    r.padded_rows += sums.stats[0];
    r.dropped_rows = sums.stats[1];
    r.device = (MjDeviceCounters){.launches = after.launches - before.launches, .waits = after.waits - before.waits,
                                  .graph_launches = after.graph_launches - before.graph_launches,
                                  .graph_nodes = after.graph_nodes - before.graph_nodes};
    *out = r;
out:
    return rc;
}

int mj_step_run(MjStep *s, int32_t step, MjStepResult *out, MjError *err) { return run(s, step, true, out, err); }

int mj_step_gradients(MjStep *s, MjStepResult *out, MjError *err) { return run(s, 0, false, out, err); }

int mj_step_evaluate(MjStep *s, double *nats, MjError *err) {
    int rc = 0;
    MjModel *m = s->model;
    Sums sums;
    MJ_TRY(load(s, 1, (MjBatchHead){0}, err));
    mj_model_place(m, inputs(m), s->padded[0]);
    MJ_TRY(zero_sums(m, err));
    MJ_TRY(mj_model_forward(m, false, err));
    MJ_TRY(m->device->ops->download(m->device, &sums, m->sums, sizeof sums, err));
    *nats = sums.loss;
out:
    return rc;
}

int mj_step_record(MjStep *s, int32_t padded, bool train, MjError *err) {
    int rc = 0;
    mj_model_place(s->model, s->model->input, padded);
    MJ_TRY(mj_model_forward(s->model, train, err));
    if (!train) goto out;
    MJ_TRY(mj_model_backward(s->model, err));
    MJ_TRY(grad_norm(s->model, err));
    MJ_TRY(update(s, err));
out:
    return rc;
}
