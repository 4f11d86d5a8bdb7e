/* `mojit bench`: ops in each mode, and whole training steps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "cache/cache.h"
#include "cli/bench_jit.h"
#include "cli/bench_step.h"
#include "cli/commands.h"
#include "cli/setup.h"
#include "cli/table.h"
#include "cli/term.h"
#include "runtime/base/fs.h"

const MjArgSpec mj_bench_options[] = {
    MJ_CONFIG_ARGS,
    {"mode", MJ_ARG_LIST, "MODE", "compile mode; may be repeated; default: static, dynamic and nocompile", 0, 0, 0},
    {"shape", MJ_ARG_STRING, "NAME=VALUE,...", "numbers that replace those of each op's first shape", 0, 0, 0},
    {"device", MJ_ARG_STRING, "DEVICE", "cpu, cuda or cuda:N; default: the best that is there", 0, 0, 0},
    {"threads", MJ_ARG_INT, "N", "worker threads of the cpu; 0 = all cores", 0, 0, 4096},
    {"size", MJ_ARG_STRING, "SIZE", "which shapes: small, or large (fills a GPU); default: small on a cpu, large on cuda", 0, 0, 0},
    {"first", MJ_ARG_INT, "N", "only the first N shapes of each op", 0, 1, 1000},
    {"seconds", MJ_ARG_STRING, "S", "time spent on timing one case; default 0.3, on cuda 0.05 (and at least 20 launches)", 0, 0, 0},
    {"entries", MJ_ARG_INT, "N", "jit: entries of the large cache; default 100000", 0, 1, 10000000},
    {"json", MJ_ARG_STRING, "FILE", "also write the results as JSON", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};

typedef struct MjBenchRun {
    const MjArgs *args;
    MjOpId ops[MJ_OP_COUNT];
    int n_ops;
    bool step, jit;
    MjBenchOptions options;
    MjTable *table;
    MjMachine machine;
    double lookup_ns;
    int failed, missing;
    int dense, dense_slower; /* dense products beside cuBLASLt, and those in which it was faster */
    int bits, bits_same;     /* those in which its pinned algorithm was given fewer rows, and kept the bits */
    bool large;        /* shapes */
    json_t *device;    /* what was measured on */
    json_t *steps;     /* of whole steps, when asked for */
} MjBenchRun;

static void on_log(void *user, const char *line)
{
    (void)user;
    mj_term_say("%s", line);
}

static void real_or_null(MjTable *table, double value, const char *text)
{
    mj_table_show(table, isfinite(value) ? json_real(value) : json_null(), isfinite(value) ? text : "n/a");
}

static void result_row(MjBenchRun *run, MjOpId id, const char *mode, const char *shape, const MjBenchResult *r)
{
    const MjTiming *t = &r->time;
    char text[80];
    if (strncmp(r->library, "cuBLASLt", 8) == 0 && strstr(r->library, "group") == NULL && isfinite(r->library_s)) {
        run->dense++;
        run->dense_slower += r->library_s < t->median_s;
    }
    run->bits += r->library_same_bits >= 0;
    run->bits_same += r->library_same_bits == 1;
    mj_table_text(run->table, mj_op_name(id));
    mj_table_text(run->table, mode);
    mj_table_text(run->table, shape);
    mj_table_real(run->table, t->median_s * 1e6, 1);
    snprintf(text, sizeof text, "%.1f to %.1f", t->low_s * 1e6, t->high_s * 1e6);
    mj_table_show(run->table, json_pack("[ff]", t->low_s * 1e6, t->high_s * 1e6), text);
    mj_table_int(run->table, t->runs);
    mj_table_real(run->table, r->flops > 0 ? r->flops / t->median_s * 1e-9 : (double)NAN, 1);
    mj_table_real(run->table, r->bytes / t->median_s * 1e-9, 1);
    snprintf(text, sizeof text, "%.1f of %s", r->percent, r->percent_of);
    real_or_null(run->table, r->percent, text);
    mj_table_text(run->table, r->percent_of);
    mj_table_real(run->table, r->percent_of_peak, 1);
    mj_table_text(run->table, r->sampled ? "samples" : "all");
    mj_table_real(run->table, r->reference_s / t->median_s, 1);
    mj_table_real(run->table, r->library_s * 1e6, 1);
    snprintf(text, sizeof text, "%.2f %s", r->library_s / t->median_s, r->library);
    real_or_null(run->table, r->library_s / t->median_s, text);
    mj_table_text(run->table, r->library[0] != '\0' ? r->library : NULL);
    mj_table_show(run->table, r->library_same_bits < 0 ? json_null() : json_boolean(r->library_same_bits), "");
}

/* After every row, too. */
static int write_json(const MjBenchRun *run, MjError *err)
{
    const char *path = mj_args_string(run->args, "json");
    if (path == NULL) return 0;
    json_t *o = json_pack("{ss so so}", "version", MJ_VERSION, "ops", mj_table_json(run->table), "steps",
                          run->steps != NULL ? json_incref(run->steps) : json_null());
    const MjMachine *m = &run->machine;
    const struct {
        const char *key;
        double value;
    } rates[] = {{"bf16_flops", m->bf16_flops}, {"fp8_flops", m->fp8_flops}, {"bf16_peak_flops", m->bf16_peak},
                 {"fp8_peak_flops", m->fp8_peak}, {"copy_bytes_per_s", m->copy_bytes}};
    json_t *machine = run->device != NULL ? json_copy(run->device) : json_object();
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
        json_object_set_new(machine, rates[i].key, isfinite(rates[i].value) ? json_real(rates[i].value) : json_null());
    json_object_set_new(machine, "cublaslt", m->cublaslt > 0 ? json_integer(m->cublaslt) : json_null());
    json_object_set_new(o, "schema", json_integer(2)); /* docs/performance.md */
    json_object_set_new(o, "machine", machine);
    json_object_set_new(o, "lookup_ns", isfinite(run->lookup_ns) ? json_real(run->lookup_ns) : json_null());
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    int rc = mj_fs_write_atomic(path, text, strlen(text), err);
    free(text);
    json_decref(o);
    return rc;
}

/* A line as soon as it is measured: who stops a long run has what it had. */
static void say_row(const MjBenchRun *run, MjOpId id, const char *shape, const MjBenchResult *r)
{
    const MjTiming *t = &r->time;
    char median[32], flops[32], bytes[32], percent[32], reference[32], library[80] = "n/a";
    mj_format_real(r->flops > 0 ? r->flops / t->median_s * 1e-9 : (double)NAN, 1, flops);
    mj_format_real(r->reference_s / t->median_s, 1, reference);
    snprintf(percent, sizeof percent, "n/a");
    if (isfinite(r->percent)) snprintf(percent, sizeof percent, "%.1f of %s", r->percent, r->percent_of);
    if (isfinite(r->library_s)) snprintf(library, sizeof library, "%.2f %s", r->library_s / t->median_s, r->library);
    mj_term_progress_done();
    printf("%-16s %-9s %12s %10.1f %10.1f %12s %9s %15s %-7s %8s  %-32s  %s\n", mj_op_name(id), run->options.mode->name,
           mj_format_real(t->median_s * 1e6, 1, median), t->low_s * 1e6, t->high_s * 1e6, flops,
           mj_format_real(r->bytes / t->median_s * 1e-9, 1, bytes), percent, r->sampled ? "samples" : "all", reference, library, shape);
    (void)fflush(stdout);
}

static void say_header(void)
{
    printf("%-16s %-9s %12s %10s %10s %12s %9s %15s %-7s %8s  %-32s  %s\n", "op", "mode", "median us", "10 %", "90 %", "GFLOP/s",
           "GB/s", "% of machine", "checked", "x ref.", "x library", "shape");
}

static int bench_shape(MjBenchRun *run, MjBench *b, MjOpId id, const MjOpShape *shape, MjError *err)
{
    MjStr text = MJ_STR_INIT;
    MjBenchResult r;
    mj_shape_text(shape, &text);
    mj_term_progress("%s %s %s", mj_op_name(id), run->options.mode->name, mj_str_text(&text));
    int rc = mj_bench_op(b, id, shape, &r, err);
    if (rc == 0) {
        result_row(run, id, run->options.mode->name, mj_str_text(&text), &r);
        say_row(run, id, mj_str_text(&text), &r);
        rc = write_json(run, err);
    } else if (rc == MJ_ERR_NUMERIC) { /* the others are still worth timing */
        mj_term_warn("%s", err->message);
        mj_error_clear(err);
        run->failed++;
        rc = 0;
    } else if (rc == MJ_ERR_MISSING) { /* no template for this device */
        mj_term_warn("%s", err->message);
        mj_error_clear(err);
        run->missing++;
        rc = 0;
    }
    mj_term_progress_done();
    mj_str_free(&text);
    return rc;
}

static int bench_op(MjBenchRun *run, MjBench *b, MjOpId id, MjError *err)
{
    const MjOpShape *shapes = run->large ? mj_op_gpu_bench_shapes(id) : mj_op_bench_shapes(id);
    const int64_t first = mj_args_int(run->args, "first", 1000);
    const char *numbers = mj_args_string(run->args, "shape");
    if (numbers != NULL) {
        MjOpShape shape = shapes[0];
        int rc = mj_shape_parse(numbers, &shape, err);
        return rc != 0 ? rc : bench_shape(run, b, id, &shape, err);
    }
    for (int64_t i = 0; i < first && shapes[i].tokens >= 0; i++) {
        int rc = bench_shape(run, b, id, &shapes[i], err);
        if (rc != 0) return rc;
    }
    return 0;
}

static void describe_device(MjBenchRun *run, MjDevice *device)
{
    const MjDeviceInfo *info = device->ops->info(device);
    json_decref(run->device);
    run->device = json_pack("{ss ss ss si sI sI}", "kind", info->kind, "name", info->name, "target", info->target, "units", info->units,
                            "memory_bytes", (json_int_t)info->memory_bytes, "l2_bytes", (json_int_t)info->l2_bytes);
    char driver[32];
    snprintf(driver, sizeof driver, "%d.%d", info->driver_version / 1000, info->driver_version % 1000 / 10);
    if (info->driver_version > 0) json_object_set_new(run->device, "driver_cuda", json_string(driver));
}

static int choose_size(MjBenchRun *run, MjDevice *device, MjError *err)
{
    const char *size = mj_args_string(run->args, "size");
    run->large = size != NULL ? strcmp(size, "large") == 0 : strcmp(device->ops->kind, "cpu") != 0;
    if (size == NULL || run->large || strcmp(size, "small") == 0) return 0;
    return mj_error(err, MJ_ERR_USAGE, "bench: --size %s: expected small or large", size);
}

static void say_machine(const MjBenchRun *run)
{
    const MjMachine *m = &run->machine;
    char bf16[32], fp8[32], peak[32], copy[32];
    const bool gpu = strcmp(json_string_value(json_object_get(run->device, "kind")), "cpu") != 0;
    mj_format_real(m->bf16_flops * 1e-9, 1, bf16);
    mj_format_real(m->copy_bytes * 1e-9, 1, copy);
    mj_format_real(m->fp8_flops * 1e-9, 1, fp8);
    if (gpu) {
        printf("%s, just measured: copy %s GB/s; cuBLASLt at its best %s GFLOP/s in bf16, %s in fp8 (data sheet, bf16: %s)\n"
               "Times are medians by events, L2 flushed before every launch; where `checked` says samples, some rows or elements of each "
               "output were checked, not all\n\n", json_string_value(json_object_get(run->device, "name")), copy, bf16, fp8,
               mj_format_real(m->bf16_peak * 1e-9, 1, peak));
    } else {
        printf("this machine, just measured: bf16 dot products %s GFLOP/s, copy %s GB/s\n\n", bf16, copy);
    }
    say_header();
    (void)fflush(stdout);
}

static int bench_mode(MjBenchRun *run, const char *name, bool first, MjError *err)
{
    int rc = 0;
    MjBench *b = NULL;
    MJ_TRY(mj_mode_find(name, &run->options.mode, err));
    MJ_TRY(mj_bench_open(&run->options, &b, err));
    describe_device(run, mj_bench_device(b));
    MJ_TRY(choose_size(run, mj_bench_device(b), err));
    MJ_TRY(mj_bench_machine(b, &run->machine, err));
    if (first) say_machine(run);
    for (int i = 0; i < run->n_ops; i++) MJ_TRY(bench_op(run, b, run->ops[i], err));
    MJ_TRY(mj_bench_lookup(b, &run->lookup_ns, err));
out:
    mj_bench_close(b);
    return rc;
}

/* Words: names of ops, `step`, `jit`; none = all ops. */
static int choose(MjBenchRun *run, MjError *err)
{
    const char *const *words;
    size_t n = mj_args_words(run->args, &words);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(words[i], "step") == 0) {
            run->step = true;
            continue;
        }
        if (strcmp(words[i], "jit") == 0) {
            run->jit = true;
            continue;
        }
        int rc = mj_op_find(words[i], &run->ops[run->n_ops], err);
        if (rc != 0) return rc;
        if (run->n_ops + 1 < MJ_OP_COUNT) run->n_ops++;
    }
    for (int i = 0; n == 0 && i < MJ_OP_COUNT; i++) run->ops[run->n_ops++] = (MjOpId)i;
    return 0;
}

static int bench_ops(MjBenchRun *run, MjError *err)
{
    static const char *const every[] = {"static", "dynamic", "nocompile"};
    const char *const *modes;
    size_t n = mj_args_list(run->args, "mode", &modes);
    if (n == 0) {
        modes = every;
        n = 3;
    }
    for (size_t i = 0; i < n; i++) {
        int rc = bench_mode(run, modes[i], i == 0, err);
        if (rc != 0) return rc;
    }
    char ns[32];
    if (run->dense > 0) { /* what the rule of run.dense_gemm gives up, or gains */
        printf("\ncuBLASLt was faster in %d of %d dense products; run.dense_gemm = auto keeps mojit's own, cublaslt takes the library's\n",
               run->dense_slower, run->dense);
        printf("cuBLASLt's algorithm, pinned to the most rows, gave fewer rows the same bits in %d of %d of them\n", run->bits_same, run->bits);
    }
    printf("\na repeat launch finds its kernel in %s ns\n", mj_format_real(run->lookup_ns, 1, ns));
    return 0;
}

int mj_cmd_bench(const MjArgs *args, MjError *err)
{
    static const MjColumn columns[] = {
        {"op", "op", false},           {"mode", "mode", false},           {"shape", "shape", false},
        {"median_us", "median us", true}, {"spread_us", "10 % to 90 %", true}, {"runs", NULL, true}, {"gflops", "GFLOP/s", true},
        {"gbytes", "GB/s", true},      {"percent_of_machine", "% of machine", true}, {"machine_rate", NULL, false},
        {"percent_of_peak", NULL, true}, {"checked", "checked", false},
        {"times_reference", "x reference", true}, {"library_us", NULL, true}, {"times_library", "x library", true},
        {"library", NULL, false}, {"library_same_bits", NULL, false}, {NULL, NULL, false}};
    int rc = 0;
    MjConfig config;
    const double none = (double)NAN;
    MjBenchRun run = {.args = args, .lookup_ns = none, .machine = {.bf16_flops = none, .fp8_flops = none, .bf16_peak = none,
                      .fp8_peak = none, .copy_bytes = none}};
    run.table = mj_table_open(columns);
    const char *seconds = mj_args_string(args, "seconds");
    MJ_TRY(choose(&run, err));
    MJ_TRY(mj_setup_config(args, &config, err));
    run.options = (MjBenchOptions){.device = config.run.device, .threads = (int)mj_args_int(args, "threads", 0),
                                   .seconds = seconds != NULL ? atof(seconds) : 0, .log = on_log};
    if (seconds != NULL && !(run.options.seconds > 0 && run.options.seconds <= 60)) {
        MJ_TRY(mj_error(err, MJ_ERR_USAGE, "bench: --seconds %s: expected a number above 0, at most 60", seconds));
    }
    if (run.jit) {
        if (run.n_ops > 0 || run.step) MJ_TRY(mj_error(err, MJ_ERR_USAGE, "bench: jit stands alone; time ops and steps in another call"));
        MJ_TRY(mj_bench_jit_command(args, seconds != NULL ? run.options.seconds : 0.3, err));
        goto out;
    }
    MJ_TRY(mj_bucket_parse("exact", &run.options.bucket, err));
    MJ_TRY(mj_setup_cache(&config, &run.options.cache, err));
    if (run.n_ops > 0) MJ_TRY(bench_ops(&run, err));
    if (run.step) MJ_TRY(mj_bench_steps(args, &config, &run.steps, err));
    MJ_TRY(write_json(&run, err));
    if (run.missing > 0) mj_term_warn("%d cases skipped: this device has no template for them", run.missing);
    if (run.failed > 0) MJ_TRY(mj_error(err, MJ_ERR_NUMERIC, "%d cases fail their check and were not timed", run.failed));
out:
    json_decref(run.steps);
    json_decref(run.device);
    mj_table_close(run.table);
    mj_cache_close(run.options.cache);
    return rc;
}
