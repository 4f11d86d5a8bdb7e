/* `mojit warm`: compiles the plan of a configuration, or of every run of a sweep, ahead of it, for any target. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cli/commands.h"
#include "cli/setup.h"
#include "cli/sweep.h"
#include "cli/table.h"
#include "cli/term.h"
#include "cli/warm_plan.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "runtime/base/pool.h"
#include "runtime/device.h"
#include "train/train.h"

const MjArgSpec mj_warm_options[] = {
    MJ_CONFIG_ARGS,
    {"sweep", MJ_ARG_STRING, "FILE", "every run of a sweep file instead of one configuration", 0, 0, 0},
    {"mode", MJ_ARG_STRING, "MODE", "compile mode (jit.mode); with --sweep, of every run", 0, 0, 0},
    {"target", MJ_ARG_LIST, "TARGET", "what to compile for: cpu, sm_80, sm_90a, ...; default: what run.device is", 0, 0, 0},
    {"jobs", MJ_ARG_INT, "N", "parallel compiles; 0 = all cores", 'j', 0, 1024},
    {"dry-run", MJ_ARG_FLAG, NULL, "print the plan, compile nothing", 0, 0, 0},
    {"json", MJ_ARG_FLAG, NULL, "print as JSON", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};

typedef struct MjWarm {
    const MjArgs *args;
    MjTable *table;
    bool dry;
    int kernels; /* over everything, as is all below */
    int lost;    /* that the cache did not keep */
    MjWarmEstimate estimate;
    int compiled;
    double seconds; /* of compiling, of one core */
    double slowest;
    char slowest_spec[200];
} MjWarm;

static void on_progress(void *user, int done, int total, const char *spec)
{
    (void)user;
    mj_term_progress("compiling %d/%d  %.90s", done, total, spec != NULL ? spec : "");
}

static void on_log(void *user, const char *line)
{
    (void)user;
    mj_term_say("%s", line);
}

/* A compile frees all it took and the next one takes it again: given back in between, that is 4,500 page faults a kernel,
 * 6 % of the time, and more on a virtual machine. This process does nothing else. */
static void keep_memory(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
    (void)mallopt(M_TOP_PAD, 16 << 20);
    (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
#endif
}

/* What compiling cost, by the time of the threads that did it: a busy machine does not lengthen that. */
static double add_compiles(MjWarm *w, MjJit *jit)
{
    double seconds = 0.0;
    for (int i = 0; i < mj_jit_plan_size(jit); i++) {
        MjImageReport r;
        if (!mj_jit_plan_report(jit, i, &r) || !r.compiled) continue;
        w->compiled++;
        seconds += r.compile_s;
        if (r.compile_s <= w->slowest) continue;
        w->slowest = r.compile_s;
        (void)mj_jit_plan_text(jit, i, w->slowest_spec, sizeof w->slowest_spec);
    }
    w->seconds += seconds;
    return seconds;
}

static void result_row(MjWarm *w, const char *run, const char *mode, const char *target, MjJit *jit, double seconds)
{
    MjJitCounters c;
    mj_jit_counters(jit, &c);
    mj_table_text(w->table, run);
    mj_table_text(w->table, mode);
    mj_table_text(w->table, target);
    mj_table_int(w->table, mj_jit_plan_size(jit));
    mj_table_int(w->table, (int64_t)c.compiles);
    mj_table_int(w->table, mj_jit_plan_size(jit) - (int64_t)c.compiles);
    mj_table_real(w->table, add_compiles(w, jit), 2);
    mj_table_real(w->table, seconds, 2);
}

static int warm_one(MjWarm *w, const char *run, const MjConfig *config, const char *target, MjError *err)
{
    int rc = 0;
    MjJit *jit = NULL;
    MjCache *cache = NULL;
    const MjMode *mode = NULL;
    MjJitOptions options = {
        .target = strcmp(target, "cpu") == 0 ? mj_cpu_target() : target,
        .budget = config->jit.budget,
        .jobs = (int)mj_args_int(w->args, "jobs", config->jit.jobs),
        .timeout_s = config->jit.timeout,
        .log = on_log,
        .progress = on_progress,
    };
    uint64_t begin = mj_clock_ns();
    MJ_TRY(mj_mode_find(config->jit.mode, &mode, err));
    MJ_TRY(mj_bucket_parse(config->jit.bucket, &options.bucket, err));
    MJ_TRY(mj_setup_cache(config, &cache, err));
    if (!w->dry && cache != NULL && (mj_cache_root_count(cache) == 0 || !mj_cache_root_writable(cache, 0))) {
        MJ_TRY(mj_error(err, MJ_ERR_IO, "warm: the cache's first root cannot be written, so that nothing can be warmed; see the "
                        "warning above, or set MOJIT_CACHE"));
    }
    options.mode = mode;
    options.cache = cache;
    MJ_TRY(mj_jit_open(&options, &jit, err));
    if (getenv("MOJIT_KERNELS") != NULL) MJ_TRY(mj_jit_add_folder(jit, getenv("MOJIT_KERNELS"), err));
    MJ_TRY(mj_train_plan(config, jit, err));
    w->kernels += mj_jit_plan_size(jit);
    if (w->dry) {
        mj_warm_plan_add(w->table, run, mode, jit, cache, &w->estimate);
    } else {
        if (mode->miss != MJ_MISS_GENERIC) {
            MJ_TRY(mj_jit_prepare(jit, err));
            w->lost += mj_jit_plan_size(jit) - mj_warm_plan_ready(jit, cache);
        }
        mj_term_progress_done();
        result_row(w, run, mode->name, options.target, jit, (double)(mj_clock_ns() - begin) * 1e-9);
    }
out:
    mj_term_progress_done();
    mj_jit_close(jit);
    mj_cache_close(cache);
    if (rc != 0) mj_error_context(err, rc, "%s for %s", run, target);
    return rc;
}

static int warm_targets(MjWarm *w, const char *run, const MjConfig *config, MjError *err)
{
    MjDeviceInfo device;
    const char *const own[] = {device.target};
    const char *const *targets;
    size_t n = mj_args_list(w->args, "target", &targets);
    if (n == 0) {
        int rc = mj_device_probe(config->run.device, NULL, &device, err);
        if (rc != 0) return mj_error_context(err, rc, "%s: warming for run.device; --target says for what without it", run);
        targets = own;
        n = 1;
    }
    for (size_t i = 0; i < n; i++) {
        int rc = warm_one(w, run, config, targets[i], err);
        if (rc != 0) return rc;
    }
    return 0;
}

static int warm_sweep(MjWarm *w, const char *file, MjError *err)
{
    int rc = 0;
    MjSweep *sweep = NULL;
    const char *const *sets;
    size_t n = mj_args_list(w->args, "set", &sets);
    const char **all = mj_xcalloc(n + 1, sizeof *all);
    char *mode = NULL;
    for (size_t i = 0; i < n; i++) all[i] = sets[i];
    if (mj_args_string(w->args, "mode") != NULL) {
        mode = mj_strdup_printf("jit.mode=%s", mj_args_string(w->args, "mode"));
        all[n++] = mode;
    }
    MJ_TRY(mj_sweep_load(file, all, n, &sweep, err));
    for (size_t i = 0; i < sweep->n_runs; i++) {
        MjConfig config;
        MJ_TRY(mj_sweep_run_config(sweep, &sweep->runs[i], &config, err));
        MJ_TRY(warm_targets(w, sweep->runs[i].name, &config, err));
    }
out:
    mj_sweep_free(sweep);
    free(all);
    free(mode);
    return rc;
}

static void say_estimate(const MjWarm *w)
{
    const MjWarmEstimate *e = &w->estimate;
    const int64_t given = mj_args_int(w->args, "jobs", 0), jobs = given > 0 ? given : mj_pool_cores();
    char one[32], all[32];

    mj_term_say("%d kernels in the plan: %d ready, %d to compile, in about %s of work, %s on %d cores", e->kernels, e->ready,
                e->kernels - e->ready, mj_format_seconds(e->seconds, one), mj_format_seconds(e->seconds / (double)jobs, all), (int)jobs);
}

static void say_cost(const MjWarm *w)
{
    const int64_t given = mj_args_int(w->args, "jobs", 0), jobs = given > 0 ? given : mj_pool_cores();
    if (w->compiled == 0) {
        mj_term_say("%d kernels in the cache, none to compile", w->kernels);
        return;
    }
    mj_term_say("%d kernels in the cache, %d of them compiled now: %.1f s of one core, %.1f s on %d; the slowest took %.0f ms: %s", w->kernels,
                w->compiled, w->seconds, w->seconds / (double)jobs, (int)jobs, 1e3 * w->slowest, w->slowest_spec);
}

int mj_cmd_warm(const MjArgs *args, MjError *err)
{
    static const MjColumn result_columns[] = {{"run", "run", false},           {"mode", "mode", false},
                                              {"target", "target", false},     {"kernels", "kernels", true},
                                              {"compiled", "compiled", true},  {"ready", "ready before", true},
                                              {"compile_s", "core s", true},   {"seconds", "took s", true},
                                              {NULL, NULL, false}};
    int rc = 0;
    bool dry = mj_args_flag(args, "dry-run");
    MjWarm w = {.args = args, .dry = dry, .table = dry ? mj_warm_plan_open() : mj_table_open(result_columns)};
    const char *sweep = mj_args_string(args, "sweep");
    keep_memory();
    if (sweep != NULL) {
        if (mj_args_string(args, "config") != NULL) {
            MJ_TRY(mj_error(err, MJ_ERR_USAGE, "warm: --config and --sweep exclude each other"));
        }
        MJ_TRY(warm_sweep(&w, sweep, err));
    } else {
        MjConfig config;
        MJ_TRY(mj_setup_config(args, &config, err));
        const char *file = mj_args_string(args, "config");
        MJ_TRY(warm_targets(&w, file != NULL ? file : "defaults", &config, err));
    }
    mj_table_print(w.table, mj_args_flag(args, "json"));
    if (dry) {
        say_estimate(&w);
    } else if (w.lost > 0) {
        MJ_TRY(mj_error(err, MJ_ERR_IO, "warm: %d of %d kernels are not in the cache: there is no room for them on its disk or within "
                        "cache.max_size; make room or raise it, then run the same command again", w.lost, w.kernels));
    } else {
        say_cost(&w);
    }
out:
    mj_table_close(w.table);
    return rc;
}
