/* `mojit train`: one run, its log lines and its records. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cli/commands.h"
#include "cli/records.h"
#include "cli/setup.h"
#include "cli/table.h"
#include "cli/term.h"
#include "runtime/base/str.h"
#include "train/train.h"

const MjArgSpec mj_train_options[] = {
    MJ_TRAIN_ARGS,
    {"mode", MJ_ARG_STRING, "MODE", "compile mode: static, dynamic, nocompile or tiered (jit.mode)", 0, 0, 0},
    {"out", MJ_ARG_STRING, "DIR", "write config.ini, log.txt, steps.jsonl and result.json there (run.out)", 'o', 0, 0},
    {"quiet", MJ_ARG_FLAG, NULL, "no step lines on standard output", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};

typedef struct MjTrainView {
    MjTrain *train;
    MjRecorder *recorder; /* NULL: no --out */
    bool quiet;
    MjError failure;      /* the first record that could not be written */
} MjTrainView;

static void note_failure(MjTrainView *v, int rc)
{
    if (rc != 0 && v->train != NULL) mj_train_stop(v->train);
}

static void put_log(MjTrainView *v, const char *line, bool always)
{
    if (v->recorder != NULL && v->failure.code == 0) note_failure(v, mj_recorder_log(v->recorder, line, &v->failure));
    if (v->quiet && !always) return;
    mj_term_progress_done();
    puts(line);
    fflush(stdout);
}

static void on_log(void *user, const char *line)
{
    MjTrainView *v = user;
    if (v->recorder != NULL && v->failure.code == 0) note_failure(v, mj_recorder_log(v->recorder, line, &v->failure));
    mj_term_say("%s", line);
}

static void on_progress(void *user, int done, int total, const char *spec)
{
    (void)user;
    if (done >= total) {
        mj_term_progress_done();
    } else {
        mj_term_progress("compiling %d/%d  %.90s", done, total, spec != NULL ? spec : "");
    }
}

static void on_step(void *user, const MjStepMetrics *m)
{
    MjTrainView *v = user;
    MjStr s = MJ_STR_INIT;
    double left = m->step > 0 ? m->elapsed_s / m->step * (m->steps - m->step) : 0;
    mj_str_printf(&s, "step %05d/%05d (%.2f%%) | loss: %.6f | lrm: %.2f | dt: %.2fms | tok/sec: %.0f | bf16_mfu: ", m->step,
                  m->steps, 100.0 * m->step / m->steps, m->loss, m->lr, m->dt_ms, m->tok_per_sec);
    if (isfinite(m->bf16_mfu)) {
        mj_str_printf(&s, "%.2f", 100.0 * m->bf16_mfu);
    } else {
        mj_str_puts(&s, "n/a");
    }
    mj_str_printf(&s, " | total time: %.2fm | eta: %.1fm", m->elapsed_s / 60.0, left / 60.0);
    if (m->compiles > 0) {
        mj_str_printf(&s, " | compiles: %llu, stall: %.0fms", (unsigned long long)m->compiles, m->stall_ms);
    }
    put_log(v, mj_str_text(&s), false);
    mj_str_free(&s);
    if (v->recorder != NULL && v->failure.code == 0) note_failure(v, mj_recorder_step(v->recorder, m, &v->failure));
}

static void on_eval(void *user, const MjEvalMetrics *m)
{
    MjTrainView *v = user;
    MjStr s = MJ_STR_INIT;
    mj_str_printf(&s, "eval %05d | held-out loss: %.6f", m->step, m->loss);
    if (isfinite(m->bits_per_byte)) mj_str_printf(&s, " | bits per byte: %.4f", m->bits_per_byte);
    mj_str_printf(&s, " | tokens: %lld | time: %.1fs", (long long)m->tokens, m->seconds);
    put_log(v, mj_str_text(&s), false);
    mj_str_free(&s);
    if (v->recorder != NULL && v->failure.code == 0) note_failure(v, mj_recorder_eval(v->recorder, m, &v->failure));
}

static void stop_train(void *user) { mj_train_stop(user); }

static void log_start(MjTrainView *v, const MjTrainTotals *t)
{
    char mem[32], count[32], active[32];
    MjStr s = MJ_STR_INIT;
    mj_str_printf(&s, "mojit %s | device: %s (%s) | mode: %s | parameters: %s, active a token: %s | memory: %s", MJ_VERSION,
                  t->device_name, t->target, t->mode, mj_format_count(t->parameters, count),
                  mj_format_count(t->active_parameters, active), mj_format_bytes((double)t->peak_bytes, mem));
    put_log(v, mj_str_text(&s), false);
    mj_str_clear(&s);
    mj_str_printf(&s, "ahead of step 1: %llu compiles, %.2f s of compiling in %.2f s, %llu cache hits",
                  (unsigned long long)t->jit.compiles, t->compile_s, t->plan_s, (unsigned long long)t->jit.disk_hits);
    put_log(v, mj_str_text(&s), false);
    mj_str_free(&s);
}

static void log_end(MjTrainView *v, const MjTrainTotals *t)
{
    char mem[32], want[32];
    MjStr s = MJ_STR_INIT;
    mj_str_printf(&s, "done: %d steps | compiles: %llu (%.2f s) | cache hits: %llu | stalls: %llu (%.0f ms, with loading) | peak memory: %s "
                      "(predicted %s)",
                  t->steps_done, (unsigned long long)t->jit.compiles, t->compile_s, (unsigned long long)t->jit.disk_hits,
                  (unsigned long long)t->jit.stalls, t->jit.stall_ms, mj_format_bytes((double)t->peak_bytes, mem),
                  mj_format_bytes((double)t->predicted_bytes, want));
    put_log(v, mj_str_text(&s), false);
    mj_str_clear(&s);
    if (t->jit.deferred > 0) {
        mj_str_printf(&s, "tiered: %llu stalls avoided | %llu steps on generic kernels | ", (unsigned long long)t->jit.deferred,
                      (unsigned long long)t->jit.generic_steps);
        if (t->jit.specialised_at > 0) {
            mj_str_printf(&s, "fully specialised from step %llu", (unsigned long long)t->jit.specialised_at);
        } else {
            mj_str_puts(&s, "not fully specialised when the run ended");
        }
        put_log(v, mj_str_text(&s), false);
        mj_str_clear(&s);
    }
    if (t->last_step.graph_launches > 0) {
        mj_str_printf(&s, "a step on the GPU: %llu graph%s of %llu nodes in all, %llu launches beside them, the host waited %llu times "
                          "inside steps",
                      (unsigned long long)t->last_step.graph_launches, t->last_step.graph_launches == 1 ? "" : "s",
                      (unsigned long long)t->last_step.graph_nodes, (unsigned long long)t->last_step.launches, (unsigned long long)t->waits_in_steps);
        put_log(v, mj_str_text(&s), false);
        mj_str_clear(&s);
    }
    if (isfinite(t->held_out_bits_per_byte) && isfinite(t->order1_bits_per_byte)) {
        mj_str_printf(&s, "held-out bits per byte: %.4f; order-1 entropy of the same text: %.4f (%s)",
                      t->held_out_bits_per_byte, t->order1_bits_per_byte,
                      t->held_out_bits_per_byte < t->order1_bits_per_byte ? "below it" : "not below it yet");
        put_log(v, mj_str_text(&s), false);
    }
    mj_str_free(&s);
}

typedef struct MjOpShare {
    int op;
    const MjOpProfile *profile;
} MjOpShare;

static int by_time(const void *a, const void *b)
{
    double x = ((const MjOpShare *)a)->profile->ms, y = ((const MjOpShare *)b)->profile->ms;
    return (x < y) - (x > y);
}

static void log_profile(MjTrainView *v, const MjOps *ops, int steps)
{
    static const MjColumn columns[] = {{"op", "op", false},           {"launches", "launches", true},
                                       {"ms", "ms/step", true},       {"share", "share %", true},
                                       {"gflops", "GFLOP/s", true},   {"gbytes", "GB/s", true},
                                       {NULL, NULL, false}};
    MjOpShare shares[MJ_OP_COUNT];
    int n = 0;
    double sum = 0;
    for (int i = 0; i < MJ_OP_COUNT; i++) {
        if (ops->profiles[i].launches == 0) continue;
        shares[n++] = (MjOpShare){i, &ops->profiles[i]};
        sum += ops->profiles[i].ms;
    }
    qsort(shares, (size_t)n, sizeof *shares, by_time);
    MjTable *t = mj_table_open(columns);
    for (int i = 0; i < n; i++) {
        const MjOpProfile *p = shares[i].profile;
        mj_table_text(t, mj_op_name((MjOpId)shares[i].op));
        mj_table_int(t, (int64_t)p->launches);
        mj_table_real(t, p->ms / (steps > 0 ? steps : 1), 3);
        mj_table_real(t, 100.0 * p->ms / sum, 1);
        mj_table_real(t, p->flops > 0 ? p->flops / (p->ms * 1e6) : (double)NAN, 1);
        mj_table_real(t, p->bytes > 0 ? p->bytes / (p->ms * 1e6) : (double)NAN, 1);
    }
    MjStr s = MJ_STR_INIT;
    mj_str_puts(&s, "time by op (evaluation included)\n");
    mj_table_render(t, &s);
    if (s.len > 0) s.data[--s.len] = '\0';
    put_log(v, mj_str_text(&s), true);
    mj_str_free(&s);
    mj_table_close(t);
}

static int run_training(MjTrainView *v, const MjTrainOptions *options, MjError *err)
{
    int rc = 0;
    MjTrainTotals totals;
    MJ_TRY(mj_train_open(options, &v->train, err));
    mj_setup_on_interrupt(stop_train, v->train);
    mj_train_totals(v->train, &totals);
    log_start(v, &totals);
    if (v->recorder != NULL) MJ_TRY(mj_recorder_start(v->recorder, &totals, err));
    if (mj_setup_interrupted()) MJ_TRY(mj_error(err, MJ_ERR_INTERRUPTED, "interrupted before the first step"));
    rc = mj_train_run(v->train, err);
    if (v->failure.code != 0) rc = mj_error(err, v->failure.code, "%s", v->failure.message);
    mj_train_totals(v->train, &totals);
    log_end(v, &totals);
    if (options->profile) log_profile(v, mj_train_ops(v->train), totals.steps_done);
out:
    return rc;
}

int mj_cmd_train(const MjArgs *args, MjError *err)
{
    int rc = 0;
    MjTrainOptions options = {.process_start_ns = mj_process_start_ns};
    MjTrainView view = {.quiet = mj_args_flag(args, "quiet")};
    MjTrainTotals totals;
    MJ_TRY(mj_setup_config(args, &options.config, err));
    options.profile = mj_args_flag(args, "profile");
    options.kernels = getenv("MOJIT_KERNELS");
    options.callbacks = (MjTrainCallbacks){&view, on_step, on_eval, on_log, on_progress};
    if (options.config.run.out[0] != '\0') {
        MJ_TRY(mj_recorder_open(options.config.run.out, &options.config, &view.recorder, err));
    }
    mj_setup_signals();
    rc = mj_setup_cache(&options.config, &options.cache, err);
    if (rc == 0) rc = run_training(&view, &options, err);
    mj_setup_on_interrupt(NULL, NULL);
    mj_term_progress_done();
    if (view.recorder != NULL) {
        MjError second = MJ_ERROR_INIT;
        if (view.train != NULL) mj_train_totals(view.train, &totals);
        int wrote = mj_recorder_finish(view.recorder, view.train != NULL ? &totals : NULL,
                                       view.train != NULL && options.profile ? mj_train_ops(view.train) : NULL, rc,
                                       err->message, &second);
        if (wrote != 0 && rc == 0) rc = mj_error(err, second.code, "%s", second.message);
        mj_error_clear(&second);
    }
out:
    mj_train_close(view.train);
    mj_recorder_close(view.recorder);
    mj_cache_close(options.cache);
    mj_error_clear(&view.failure);
    return rc;
}
