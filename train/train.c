/* The trainer: opens everything, runs the steps, measures them. */
#include "train/train.h"

#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "train/data.h"
#include "train/memory.h"
#include "train/peak.h"
#include "train/plan.h"
#include "train/step.h"

struct MjTrain {
    MjTrainOptions opt;
    MjDevice *device;
    MjJit *jit;
    MjOps ops;
    MjModel *model;
    MjTokens *train_tokens, *held_out;
    MjLoader *loader, *eval_loader;
    MjStep step;
    MjTrainTotals totals;
    int32_t next_step;
    uint64_t start_ns, run_ns;
    void *peak_scratch;
    atomic_int stop;
    MjBlasLt *library; /* when run.dense_gemm wants it */
};

static void say(MjTrain *t, const char *line) {
    if (t->opt.callbacks.log != NULL) t->opt.callbacks.log(t->opt.callbacks.user, line);
}

static int open_device(MjTrain *t, MjError *err) {
    MjDeviceOptions opt = {.threads = t->opt.config.run.threads};
    return mj_device_open(t->opt.config.run.device, &opt, &t->device, err);
}

static int open_jit(MjTrain *t, const MjMode *mode, MjBucket bucket, MjError *err) {
    const MjJitConfig *j = &t->opt.config.jit;
    const MjTrainCallbacks *cb = &t->opt.callbacks;
    MjJitOptions opt = {.device = t->device, .mode = mode, .bucket = bucket, .budget = j->budget, .jobs = j->jobs,
                        .cache = t->opt.cache, .timeout_s = j->timeout, .require_warm = j->require_warm,
                        .on_error = j->on_error == MJ_JIT_GENERIC ? MJ_ON_ERROR_GENERIC : MJ_ON_ERROR_STOP,
                        .log = cb->log, .log_user = cb->user, .progress = cb->progress};
    int rc = mj_jit_open(&opt, &t->jit, err);
    if (rc == 0 && t->opt.kernels != NULL) rc = mj_jit_add_folder(t->jit, t->opt.kernels, err);
    return rc;
}

static int open_data(MjTrain *t, MjError *err) {
    int rc = 0;
    const MjConfig *c = &t->opt.config;
    MjLoaderOptions opt;
    MJ_TRY(mj_tokens_open(c->data.train, &t->train_tokens, err));
    mj_plan_train_loader(c, &opt);
    MJ_TRY(mj_loader_open(t->train_tokens, &opt, &t->loader, err));
    if (c->data.held_out[0] == '\0') goto out;
    MJ_TRY(mj_tokens_open(c->data.held_out, &t->held_out, err));
    bool bytes = mj_tokens_byte_level(t->held_out);
    mj_plan_eval_loader(c, bytes, &opt);
    MJ_TRY(mj_loader_open(t->held_out, &opt, &t->eval_loader, err));
out:
    return rc;
}

static int compile_ahead(MjTrain *t, const MjMode *mode, MjError *err) {
    const bool must_be_warm = t->opt.config.jit.require_warm && mode->miss != MJ_MISS_GENERIC; /* a miss shows before step 0 */
    if (!mode->compile_ahead && !must_be_warm) return 0;
    uint64_t from = mj_clock_ns();
    MjPlanData data = {.train = t->train_tokens, .held_out = t->held_out};
    int rc = mj_plan_record(&t->step, &t->opt.config, &data, err);
    if (rc == 0) rc = mj_jit_prepare(t->jit, err);
    t->totals.plan_s = (double)(mj_clock_ns() - from) * 1e-9;
    return rc;
}

/* The peak that MFU is a fraction of; failing to measure it costs the number, not the run. Its kernel is made ready with the
 * others; the measuring waits until step 0 is done, so that nothing stands before the first kernel. */
static void find_peak(MjTrain *t) {
    MjError err = MJ_ERROR_INIT;
    const MjDeviceInfo *info = t->device->ops->info(t->device);
    t->totals.bf16_peak_flops = info->bf16_peak_flops;
    if (info->bf16_peak_flops > 0) return;
    if (mj_peak_measure(t->device, t->jit, t->peak_scratch, &t->totals.bf16_peak_flops, &err) != 0) {
        char line[1200];
        (void)snprintf(line, sizeof line, "bf16_mfu is n/a: %s", err.message);
        say(t, line);
        t->totals.bf16_peak_flops = 0;
    }
    mj_error_clear(&err);
}

static void fill_totals(MjTrain *t, const MjMode *mode) {
    const MjDims *d = &t->model->d;
    const MjDeviceInfo *info = t->device->ops->info(t->device);
    t->totals.device_name = info->name;
    t->totals.target = info->target;
    t->totals.mode = mode->name;
    t->totals.flops_per_token = mj_dims_flops_per_token(d);
    t->totals.parameters = mj_dims_parameters(d);
    t->totals.active_parameters = mj_dims_matrix_weights(d) + (int64_t)d->vocab * d->width;
    t->totals.predicted_bytes = mj_memory_predict(d, info->family != MJ_FAMILY_CPU);
    if (info->family == MJ_FAMILY_CPU) t->totals.predicted_bytes += (size_t)info->units * MJ_MEMORY_WORKER_BYTES;
    if (t->library != NULL) t->totals.predicted_bytes += MJ_BLASLT_WORKSPACE_BYTES;
    t->totals.predicted_bytes += 4 * (size_t)t->model->piece_floats;
}

static int open_library(MjTrain *t, MjError *err) {
    int rc = 0;
    MjDims d;
    char line[200];
    t->ops.dense = (MjDenseGemm)t->opt.config.run.dense_gemm;
    if (t->ops.dense == MJ_DENSE_MOJIT || (t->ops.dense == MJ_DENSE_AUTO && !MJ_LIBRARY_KEEPS_BITS)) return 0;
    rc = mj_blaslt_open(t->device, &t->library, err);
    if (rc == MJ_ERR_MISSING && t->ops.dense == MJ_DENSE_AUTO) { /* not there: mojit's own */
        mj_error_clear(err);
        return 0;
    }
    if (rc != 0) return rc;
    MJ_TRY(mj_dims_make(&t->opt.config, &d, err));
    t->ops.library = t->library;
    t->ops.library_rows = d.max_tokens;
    const int version = mj_blaslt_version(t->library);
    (void)snprintf(line, sizeof line, "dense products by cuBLASLt %d.%d, pinned to %d rows; that every mode gives the same bits is not promised",
                   version / 10000, version % 10000 / 100, d.max_tokens);
    say(t, line);
out:
    return rc;
}

/* What does not fit: how much it would be in all, and how much of that no smaller batch saves. */
static int open_model(MjTrain *t, const MjDims *d, MjError *err) {
    MjDims least = *d;
    const bool kmajor = t->device->ops->info(t->device)->family != MJ_FAMILY_CPU;
    const int rc = mj_model_open(&t->opt.config, &t->ops, &t->model, err);
    if (rc != MJ_ERR_MEMORY) return rc;
    least.max_tokens = 128;
    least.loss_chunk = d->loss_chunk < 128 ? d->loss_chunk : 128;
    return mj_error_context(err, rc, "this configuration needs %.1f MB (docs/memory.md), %.1f MB of it whatever train.batch and "
                            "train.seq_len are", (double)mj_memory_predict(d, kmajor) / 1e6, (double)mj_memory_predict(&least, kmajor) / 1e6);
}

static int open_all(MjTrain *t, MjError *err) {
    int rc = 0;
    const MjConfig *c = &t->opt.config;
    const MjMode *mode = NULL;
    MjBucket bucket;
    MjDims dims;
    MJ_TRY(mj_config_check(c, err));
    MJ_TRY(mj_mode_find(c->jit.mode, &mode, err));
    MJ_TRY(mj_bucket_parse(c->jit.bucket, &bucket, err));
    MJ_TRY(open_data(t, err)); /* first: wrong paths are the commonest mistake, and nothing was paid for yet */
    MJ_TRY(mj_dims_make(c, &dims, err));
    MJ_TRY(open_device(t, err));
    MJ_TRY(mj_dims_check_target(&dims, t->device->ops->info(t->device)->name, t->device->ops->info(t->device)->target, err));
    MJ_TRY(open_jit(t, mode, bucket, err));
    MJ_TRY(mj_ops_open(t->device, t->jit, &t->ops, err));
    t->ops.profile = t->opt.profile;
    t->ops.overlap = c->run.overlap;
    MJ_TRY(open_library(t, err));
    MJ_TRY(open_model(t, &dims, err));
    mj_step_open(&t->step, t->model, mode, bucket, c);
    fill_totals(t, mode);
    MJ_TRY(compile_ahead(t, mode, err));
    MJ_TRY(mj_model_init(t->model, (uint64_t)c->train.seed, err));
    MJ_TRY(mj_peak_record(t->jit, t->ops.family, err));
    MJ_TRY(t->device->ops->alloc(t->device, mj_peak_scratch_bytes(t->device), "peak", &t->peak_scratch, err));
    mj_jit_step(t->jit);
    MJ_TRY(mj_ops_profile_read(&t->ops, err));
    memset(t->ops.profiles, 0, sizeof t->ops.profiles);
out:
    return rc;
}

int mj_train_open(const MjTrainOptions *options, MjTrain **out, MjError *err) {
    uint64_t now = mj_clock_ns();
    MjTrain *t = mj_xcalloc(1, sizeof *t);
    t->opt = *options;
    t->start_ns = options->process_start_ns > 0 ? options->process_start_ns : now;
    t->totals.first_kernel_ms = NAN;
    t->totals.held_out_bits_per_byte = NAN;
    t->totals.order1_bits_per_byte = NAN;
    t->totals.last_loss = NAN;
    int rc = open_all(t, err);
    t->totals.open_s = (double)(mj_clock_ns() - now) * 1e-9;
    if (rc != 0) {
        mj_train_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void mj_train_close(MjTrain *t) {
    if (t == NULL) return;
    mj_step_close(&t->step);
    mj_ops_close(&t->ops);
    mj_model_close(t->model);
    mj_loader_close(t->loader);
    mj_loader_close(t->eval_loader);
    mj_tokens_close(t->train_tokens);
    mj_tokens_close(t->held_out);
    if (t->peak_scratch != NULL) t->device->ops->free(t->device, t->peak_scratch);
    mj_blaslt_close(t->library);
    if (t->jit != NULL) mj_jit_close(t->jit);
    mj_device_close(t->device);
    free(t);
}

/* A loss or a gradient that is not finite: the same batches once more, with every op's output checked. The weights are still
 * those that produced it. */
static int explain(MjTrain *t, double loss, MjError *err) {
    MjStepResult r;
    MjError first = MJ_ERROR_INIT;
    t->ops.check_finite = true;
    int rc = mj_step_gradients(&t->step, &r, &first);
    t->ops.check_finite = false;
    rc = mj_error(err, MJ_ERR_NUMERIC, "step %d: the loss is %g%s; %s; lower the learning rates or raise optimizer.warmup",
                  t->next_step + 1, loss, isfinite(loss) ? " and its gradients are not finite" : "",
                  rc != 0 ? first.message : "no op produced it when the step was run again");
    mj_error_clear(&first);
    return rc;
}

static void report(MjTrain *t, const MjStepResult *r, double factor, uint64_t from, uint64_t now) {
    MjJitCounters c;
    mj_jit_step(t->jit);
    mj_jit_step_counters(t->jit, &c);
    if (t->next_step == 1) find_peak(t);
    double dt = (double)(now - from) * 1e-9;
    MjStepMetrics m = {.step = t->next_step, .steps = t->opt.config.train.steps, .loss = r->loss, .lr = factor,
                       .dt_ms = dt * 1e3, .stall_ms = c.stall_ms, .tok_per_sec = (double)r->tokens / dt,
                       .grad_norm = r->grad_norm, .compiles = c.compiles, .cache_hits = c.disk_hits, .tokens = r->tokens,
                       .padded_rows = r->padded_rows, .dropped_rows = r->dropped_rows,
                       .elapsed_s = (double)(now - t->run_ns) * 1e-9, .bf16_mfu = NAN};
    if (t->totals.bf16_peak_flops > 0) {
        m.bf16_mfu = m.tok_per_sec * t->totals.flops_per_token / t->totals.bf16_peak_flops;
    }
    if (t->opt.callbacks.step != NULL) t->opt.callbacks.step(t->opt.callbacks.user, &m);
}

static int one_step(MjTrain *t, MjError *err) {
    int rc = 0;
    uint64_t from = mj_clock_ns();
    MjStepResult r;
    for (int32_t i = 0; i < t->step.n_batches; i++) MJ_TRY(mj_loader_next(t->loader, &t->step.batches[i], err));
    MJ_TRY(mj_step_run(&t->step, t->next_step, &r, err));
    MJ_TRY(mj_ops_profile_read(&t->ops, err));
    if (t->next_step == 0) t->totals.first_kernel_ms = (double)(t->model->first_launch_ns - t->start_ns) * 1e-6;
    if (!isfinite(r.loss) || !isfinite(r.grad_norm)) {
        rc = explain(t, r.loss, err);
        goto out;
    }
    double factor = mj_step_schedule(t->step.optimizer, t->next_step, t->step.total_steps);
    t->next_step++;
    t->totals.steps_done = t->next_step;
    t->totals.last_loss = r.loss;
    t->totals.last_step = r.device;
    t->totals.waits_in_steps += r.device.waits;
    t->totals.graphs_captured = t->step.graphs.captured;
    report(t, &r, factor, from, mj_clock_ns());
out:
    return rc;
}

static int evaluate(MjTrain *t, MjError *err) {
    int rc = 0;
    uint64_t from = mj_clock_ns();
    double nats = 0;
    int64_t targets = 0, tokens = 0;
    mj_loader_rewind(t->eval_loader);
    while (tokens < t->opt.config.train.eval_tokens) {
        double sum = 0;
        MJ_TRY(mj_loader_next(t->eval_loader, &t->step.batches[0], err));
        if (t->step.batches[0].tokens == 0) break;
        MJ_TRY(mj_step_evaluate(&t->step, &sum, err));
        nats += sum;
        targets += t->step.batches[0].targets;
        tokens += t->step.batches[0].tokens;
    }
    MjEvalMetrics m = {.step = t->next_step, .loss = nats / (double)targets, .bits_per_byte = NAN,
                       .order1_bits_per_byte = NAN, .tokens = targets,
                       .seconds = (double)(mj_clock_ns() - from) * 1e-9};
    if (mj_tokens_byte_level(t->held_out)) {
        m.bits_per_byte = m.loss / log(2);
        if (!isfinite(t->totals.order1_bits_per_byte)) {
            MJ_TRY(mj_tokens_order1_entropy(t->held_out, &t->totals.order1_bits_per_byte, err));
        }
        m.order1_bits_per_byte = t->totals.order1_bits_per_byte;
    }
    MJ_TRY(mj_ops_profile_read(&t->ops, err));
    t->totals.held_out_bits_per_byte = m.bits_per_byte;
    if (t->opt.callbacks.eval != NULL) t->opt.callbacks.eval(t->opt.callbacks.user, &m);
out:
    return rc;
}

int mj_train_run(MjTrain *t, MjError *err) {
    int rc = 0;
    const MjTrainConfig *c = &t->opt.config.train;
    t->run_ns = mj_clock_ns();
    while (t->next_step < c->steps) {
        MJ_TRY(one_step(t, err));
        bool last = t->next_step == c->steps;
        if (atomic_load(&t->stop) != 0 && !last) {
            rc = mj_error(err, MJ_ERR_INTERRUPTED, "stopped after step %d of %d", t->next_step, c->steps);
            goto out;
        }
        bool due = last || (c->eval_every > 0 && t->next_step % c->eval_every == 0);
        if (due && t->eval_loader != NULL) MJ_TRY(evaluate(t, err));
    }
out:
    return rc;
}

void mj_train_stop(MjTrain *t) { atomic_store(&t->stop, 1); }

void mj_train_totals(const MjTrain *t, MjTrainTotals *out) {
    MjTrainTotals r = t->totals;
    mj_jit_counters(t->jit, &r.jit);
    r.compile_s = r.jit.compile_s;
    r.peak_bytes = t->device->ops->peak_bytes(t->device);
    r.reserved_bytes = t->device->ops->reserved_bytes(t->device);
    *out = r;
}

const MjOps *mj_train_ops(const MjTrain *t) { return &t->ops; }

int mj_train_weights(MjTrain *t, float **out, int64_t *n, MjError *err) {
    size_t bytes = (size_t)t->model->n_weights * sizeof(float);
    float *host = mj_xmalloc(bytes);
    int rc = t->device->ops->download(t->device, host, t->model->master, bytes, err);
    if (rc != 0) {
        free(host);
        return rc;
    }
    *out = host;
    *n = t->model->n_weights;
    return 0;
}
