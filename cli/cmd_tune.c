/* `mojit tune`: measures the tiles of an op at a shape, or of everything that a configuration launches, on the device at hand,
 * and keeps the fastest in the cache, where later runs find it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cli/commands.h"
#include "cli/kernels.h"
#include "cli/setup.h"
#include "cli/table.h"
#include "cli/term.h"
#include "ops/tune.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "train/train.h"

const MjArgSpec mj_tune_options[] = {
    MJ_CONFIG_ARGS,
    {"shape", MJ_ARG_STRING, "NAME=VALUE,...", "the shape of the op, such as m=4096,n=768,k=768,experts=8", 0, 0, 0},
    {"device", MJ_ARG_STRING, "DEVICE", "cpu, cuda or cuda:N; default: the best that is there", 0, 0, 0},
    {"candidates", MJ_ARG_INT, "N", "measure the N that the model finds cheapest; default 16", 0, 1, 100000},
    {"quick", MJ_ARG_FLAG, NULL, "these only: no values that the model leaves at their defaults", 0, 0, 0},
    {"seconds", MJ_ARG_STRING, "S", "time spent on timing one candidate; default 0.1", 0, 0, 0},
    {"limit", MJ_ARG_INT, "S", "begin no further shape after S seconds; what was measured is printed and kept", 0, 0, 1000000},
    {"dry-run", MJ_ARG_FLAG, NULL, "measure and print, keep nothing", 0, 0, 0},
    {"json", MJ_ARG_FLAG, NULL, "print as JSON", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};

typedef struct MjTuneRun {
    const MjArgs *args;
    MjOps ops;
    MjTable *table;
    MjTuneEffort effort;
    int shapes, better, left_out;
    uint64_t started;
    bool every; /* one op: a row for each candidate; else one for each shape */
} MjTuneRun;

static void on_log(void *user, const char *line)
{
    (void)user;
    mj_term_say("%s", line);
}

static void candidate_row(MjTuneRun *run, const MjTuned *t, int i, const char *request)
{
    const MjTuneCandidate *c = &t->candidates[i], *choice = &t->candidates[t->choice];
    MjStr values = MJ_STR_INIT;
    const bool timed = c->time.median_s > 0.0;
    char spread[64];
    mj_kernels_values(t->asked.tmpl, c->values, MJ_PARAM_TUNING, &values);
    snprintf(spread, sizeof spread, "%.1f to %.1f", 1e6 * c->time.low_s, 1e6 * c->time.high_s);
    mj_table_text(run->table, t->asked.tmpl->name);
    mj_table_text(run->table, request);
    mj_table_text(run->table, mj_str_text(&values));
    mj_table_real(run->table, c->model_s > 0.0 && !c->explored ? 1e6 * c->model_s : (double)NAN, 1);
    mj_table_real(run->table, timed ? 1e6 * c->time.median_s : (double)NAN, 1);
    mj_table_show(run->table, timed ? json_pack("[ff]", 1e6 * c->time.low_s, 1e6 * c->time.high_s) : json_null(), timed ? spread : "n/a");
    mj_table_real(run->table, timed ? choice->time.median_s / c->time.median_s : (double)NAN, 3);
    mj_table_text(run->table, c->refused[0] != '\0' ? c->refused : i == t->winner ? (c->chosen ? "stays" : "kept") : c->chosen ? "without tuning" : "");
    mj_str_free(&values);
}

static int tune_shape(MjTuneRun *run, MjOpId op, const MjOpShape *shape, MjError *err)
{
    MjTuned t;
    MjStr request = MJ_STR_INIT;
    int rc = 0;
    const int64_t limit = mj_args_int(run->args, "limit", -1);
    if (limit >= 0 && mj_clock_ns() - run->started >= (uint64_t)limit * 1000000000u) {
        run->left_out++;
        return 0;
    }
    mj_shape_text(shape, &request);
    mj_term_progress("tuning %s %s", mj_op_name(op), mj_str_text(&request));
    rc = mj_tune(&run->ops, op, shape, &run->effort, &t, err);
    mj_term_progress_done();
    if (rc != 0) goto out;
    for (int i = 0; i < t.n; i++)
        if (run->every || i == t.winner || i == t.choice) candidate_row(run, &t, i, mj_str_text(&request));
    run->shapes++;
    run->better += t.winner != t.choice;
    if (!mj_args_flag(run->args, "dry-run")) rc = mj_tune_keep(&run->ops, &t, err);
    mj_tuned_free(&t);
out:
    mj_str_free(&request);
    return rc;
}

/* Every kernel with tuning parameters of a configuration's static plan. */
static int tune_config(MjTuneRun *run, MjCache *cache, MjError *err)
{
    int rc = 0;
    MjConfig config;
    MjJit *plan = NULL;
    MjOps planned;
    const MjJit *jit = run->ops.jit;
    MjJitOptions options = {.target = mj_jit_target(jit), .bucket = {MJ_BUCKET_EXACT, 1}, .budget = 1 << 20, .cache = cache, .log = on_log};
    MJ_TRY(mj_setup_config(run->args, &config, err));
    snprintf(config.jit.mode, sizeof config.jit.mode, "static");
    MJ_TRY(mj_mode_find("static", &options.mode, err));
    MJ_TRY(mj_jit_open(&options, &plan, err));
    MJ_TRY(mj_ops_open(NULL, plan, &planned, err));
    MJ_TRY(mj_train_plan(&config, plan, err));
    for (int i = 0; i < mj_jit_plan_size(plan); i++) {
        MjOpId op;
        MjOpShape shape;
        if (!mj_tune_shape_of(&planned, mj_jit_plan_asked(plan, i), &op, &shape)) continue;
        if (op == MJ_OP_ATTENTION_FWD || op == MJ_OP_ATTENTION_BWD) shape.rows = config.train.seq_len; /* no constant of a kernel */
        MJ_TRY(tune_shape(run, op, &shape, err));
    }
    if (run->shapes + run->left_out == 0) mj_term_say("nothing that this configuration launches on %s has tuning parameters", mj_jit_target(jit));
out:
    mj_jit_close(plan);
    return rc;
}

/* One op: the given shape, or its realistic ones. */
static int tune_op(MjTuneRun *run, const char *name, MjError *err)
{
    int rc = 0;
    MjOpId op;
    const char *numbers = mj_args_string(run->args, "shape");
    MJ_TRY(mj_op_find(name, &op, err));
    if (numbers != NULL) {
        MjOpShape shape;
        char *text = mj_strdup_printf("%s %s", name, numbers);
        rc = mj_kernels_parse_shape(text, &op, &shape, err);
        free(text);
        if (rc == 0) rc = tune_shape(run, op, &shape, err);
        goto out;
    }
    const bool gpu = run->ops.family != MJ_FAMILY_CPU;
    for (const MjOpShape *s = gpu ? mj_op_gpu_bench_shapes(op) : mj_op_bench_shapes(op); s->tokens >= 0; s++) {
        rc = tune_shape(run, op, s, err);
        if (rc == MJ_ERR_MISSING) {
            mj_term_warn("%s", err->message);
            mj_error_clear(err);
            rc = 0;
        }
        if (rc != 0) goto out;
    }
out:
    return rc;
}

static const MjColumn columns[] = {{"template", "template", false}, {"shape", "shape", false},      {"tuning", "candidate", false},
                                   {"model_us", "model us", true},  {"us", "us", true},             {"us_low_high", "10 to 90 %", true},
                                   {"gain", "gain", true},          {"verdict", "", false},         {NULL, NULL, false}};

int mj_cmd_tune(const MjArgs *args, MjError *err)
{
    int rc = 0;
    const char *const *words;
    const size_t n = mj_args_words(args, &words);
    const char *seconds = mj_args_string(args, "seconds");
    MjTuneRun run = {.args = args, .effort = {.most = (int)mj_args_int(args, "candidates", 16), .explore = !mj_args_flag(args, "quick"),
                                              .seconds = seconds != NULL ? atof(seconds) : 0.1},
                     .every = n > 0 && mj_args_string(args, "shape") != NULL, .table = mj_table_open(columns), .started = mj_clock_ns()};
    MjDevice *device = NULL;
    MjCache *cache = NULL;
    MjJit *jit = NULL;
    MjConfig config;
    MjJitOptions options = {.bucket = {MJ_BUCKET_EXACT, 1}, .budget = 1 << 20, .log = on_log};
    mj_config_defaults(&config);
    if ((n == 0) == (mj_args_string(args, "config") == NULL))
        MJ_TRY(mj_error(err, MJ_ERR_USAGE, "tune: name an op, as in `mojit tune gemm --shape m=4096,n=768,k=768`, or a configuration with --config"));
    if (!(run.effort.seconds > 0.0)) MJ_TRY(mj_error(err, MJ_ERR_USAGE, "tune: --seconds needs a number above 0, not '%s'", seconds));
    MJ_TRY(mj_mode_find("static", &options.mode, err));
    MJ_TRY(mj_device_open(mj_args_string(args, "device"), NULL, &device, err));
    MJ_TRY(mj_setup_cache(&config, &cache, err));
    options.device = device;
    options.cache = cache;
    MJ_TRY(mj_jit_open(&options, &jit, err));
    MJ_TRY(mj_ops_open(device, jit, &run.ops, err));
    if (n > 0) {
        MJ_TRY(tune_op(&run, words[0], err));
    } else {
        MJ_TRY(tune_config(&run, cache, err));
    }
    mj_table_print(run.table, mj_args_flag(args, "json"));
    mj_term_say("%d shape%s on %s: %d run%s faster with other tiles than the model's; %s", run.shapes,
                run.shapes == 1 ? "" : "s", device->ops->info(device)->name,
                run.better, run.better == 1 ? "s" : "",
                mj_args_flag(args, "dry-run") ? "nothing was kept" : "kept in the cache, `mojit cache list` shows them");
    if (run.left_out > 0) mj_term_say("%d more shape%s not measured: --limit", run.left_out, run.left_out == 1 ? " was" : "s were");
out:
    mj_term_progress_done();
    mj_table_close(run.table);
    mj_jit_close(jit);
    mj_cache_close(cache);
    mj_device_close(device);
    return rc;
}
