#include "bench/bench_jit.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/cache.h"
#include "jit/compiler.h"
#include "jit/jit.h"
#include "runtime/base/clock.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/pool.h"
#include "runtime/base/sort.h"

enum { ROUNDS = 15, HIT_ROUNDS = 51, IMAGES = 8, MAX_THREADS = 16 };
static const char template_name[] = "rmsnorm_fwd";

void mj_bench_jit_row(const MjJitBenchOptions *o, const char *what, const char *detail, double value, const char *unit, double aim,
                      bool at_least)
{
    o->each(o->user, &(MjJitMeasure){.what = what, .detail = detail, .value = value, .unit = unit, .aim = aim, .at_least = at_least});
}

static void missing_row(const MjJitBenchOptions *o, const char *what, const char *why)
{
    const char *end = strstr(why, ". "); /* what to do about it is not a table's to say: `mojit doctor` does */
    char *short_why = mj_xstrndup(why, end != NULL ? (size_t)(end - why) : strlen(why));

    o->each(o->user, &(MjJitMeasure){.what = what, .detail = "", .unit = "", .value = (double)NAN, .aim = (double)NAN, .missing = short_why});
    free(short_why);
}

static double since(uint64_t begin)
{
    return (double)(mj_clock_ns() - begin) * 1e-9;
}

static int open_jit(MjDevice *device, MjCache *cache, const char *target, int jobs, int budget, MjJit **out, MjError *err)
{
    MjJitOptions opt = {.device = device, .target = target, .bucket = {MJ_BUCKET_EXACT, 1}, .jobs = jobs, .budget = budget, .cache = cache};
    int rc = mj_mode_find("dynamic", &opt.mode, err);

    return rc != 0 ? rc : mj_jit_open(&opt, out, err);
}

static int request(MjJit *jit, int32_t width, int32_t tokens, MjRequest *out, MjError *err)
{
    const MjTemplate *t;
    int rc = mj_jit_template(jit, template_name, &t, err);

    if (rc != 0) return rc;
    *out = (MjRequest){.tmpl = t};
    for (int i = 0; i < out->tmpl->n_params; i++)
        out->values[i] = out->tmpl->params[i].kind == MJ_PARAM_TUNING ? MJ_UNBOUND : out->tmpl->params[i].n_values > 0
                                                                                        ? out->tmpl->params[i].values[0]
                                                                                        : out->tmpl->params[i].min;
    out->values[mj_template_param(out->tmpl, "WIDTH")] = width;
    out->values[mj_template_param(out->tmpl, "TOKENS")] = tokens;
    return 0;
}

/* ---- memory ---- */

/* In an order that no prefetcher follows; the same every time. */
static void shuffle(int32_t *tokens, int n)
{
    uint64_t state = 88172645463325252ull;

    for (int i = n - 1; i > 0; i--) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        int k = (int)(state % (uint64_t)(i + 1));
        int32_t t = tokens[i];
        tokens[i] = tokens[k];
        tokens[k] = t;
    }
}

typedef struct Hits {
    MjJit *jit;
    MjRequest request; /* whose TOKENS take the n values, as a launch would make it */
    const int32_t *tokens;
    int n, gets;
    double ns; /* of one, the median round */
} Hits;

/* What a busy machine does not lengthen; a hit never waits. */
static double thread_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *time_hits(void *arg)
{
    Hits *h = arg;
    double round[HIT_ROUNDS];
    const MjLaunchRecord *record;
    MjRequest req = h->request;
    const int at = mj_template_param(req.tmpl, "TOKENS");

    for (int r = 0; r < HIT_ROUNDS; r++) {
        double begin = thread_seconds();
        for (int i = 0, k = 0; i < h->gets; i++, k = k + 1 < h->n ? k + 1 : 0) {
            req.values[at] = h->tokens[k];
            if (mj_jit_get(h->jit, &req, &record, NULL) != 0) return NULL;
        }
        round[r] = (thread_seconds() - begin) * 1e9 / h->gets;
    }
    h->ns = mj_median(round, HIT_ROUNDS);
    return h;
}

/* All threads at once: what sharing the table costs. */
static double hits_together(const Hits *one, int threads)
{
    Hits hits[MAX_THREADS];
    pthread_t thread[MAX_THREADS];
    double sum = 0;
    int started = 0;

    while (started < threads) {
        hits[started] = *one;
        if (pthread_create(&thread[started], NULL, time_hits, &hits[started]) != 0) break;
        started++;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(thread[i], NULL);
        sum += hits[i].ns;
    }
    return started ? sum / started : (double)NAN;
}

int mj_bench_jit_memory(const MjJitBenchOptions *o, const char *folder, MjError *err)
{
    static const int sizes[] = {10, 100, 1000, 10000};
    int rc = 0, cores = mj_pool_cores() < MAX_THREADS ? mj_pool_cores() : MAX_THREADS;
    double ns[4] = {0}, threads_ns = 0;
    char text[64];
    MjDevice *device = NULL;
    MjCache *cache = NULL;
    int32_t *tokens = mj_xcalloc(10000, sizeof *tokens);
    MjDeviceOptions device_options = {.threads = 1};
    MJ_TRY(mj_device_open("cpu", &device_options, &device, err));
    MJ_TRY(mj_cache_open(&(MjCacheOptions){.roots = folder}, &cache, err));
    for (int s = 0; s < 4; s++) {
        MjJit *jit = NULL;
        const MjLaunchRecord *record;
        MJ_TRY(open_jit(device, cache, NULL, 1, 1, &jit, err)); /* budget 1: two images serve all records */
        Hits h = {.jit = jit, .tokens = tokens, .n = sizes[s], .gets = 50000};
        for (int i = 0; i < sizes[s] && rc == 0; i++) {
            tokens[i] = 1 + i;
            rc = request(jit, 256, tokens[i], &h.request, err);
            if (rc == 0) rc = mj_jit_get(jit, &h.request, &record, err);
        }
        if (rc == 0) {
            shuffle(tokens, sizes[s]);
            if (time_hits(&h)) ns[s] = h.ns;
            if (sizes[s] == 1000) threads_ns = hits_together(&h, cores);
        }
        mj_jit_close(jit);
        if (rc != 0) goto out;
        snprintf(text, sizeof text, "%d records, in shuffled order, cpu time", sizes[s]);
        mj_bench_jit_row(o, "memory hit", text, ns[s], "ns", 50, false);
    }
    mj_bench_jit_row(o, "memory hit, flatness", "10,000 records over 10: two lines from a further cache", ns[3] / ns[0], "x", 2.5, false);
    snprintf(text, sizeof text, "%d threads at once, 1,000 records", cores);
    mj_bench_jit_row(o, "memory hit, shared", text, threads_ns, "ns", (double)NAN, false);
out:
    free(tokens);
    mj_cache_close(cache);
    mj_device_close(device);
    return rc;
}

/* ---- disk ---- */

typedef struct DiskTimes {
    double first[ROUNDS], hit[ROUNDS * IMAGES], get[ROUNDS * IMAGES], key[ROUNDS * IMAGES];
    size_t image_bytes;
    int n;
} DiskTimes;

/* A new JIT finds IMAGES images in the cache: the first with what opening a compiler costs, then the others. */
static int disk_round(MjDevice *device, MjCache *cache, int round, DiskTimes *t, MjError *err)
{
    MjJit *jit = NULL;
    MjRequest req;
    const MjLaunchRecord *record;
    int rc;

    MJ_TRY(open_jit(device, cache, NULL, 1, 0, &jit, err));
    for (int i = 0; i < IMAGES; i++) {
        MjCacheEntry entry = {.memory = NULL};
        char *label = NULL;
        MJ_TRY(request(jit, 64 * (i + 1), 128, &req, err));
        uint64_t begin = mj_clock_ns();
        MJ_TRY(mj_jit_get(jit, &req, &record, err));
        if (i == 0) t->first[round] = since(begin) * 1e3;
        else t->hit[t->n] = since(begin) * 1e3;
        begin = mj_clock_ns();
        MJ_TRY(mj_jit_key_text(jit, &req, &label, err));
        MjCacheKey key = mj_cache_key(label);
        t->key[t->n] = since(begin) * 1e6;
        begin = mj_clock_ns();
        bool hit = mj_cache_get(cache, key, &entry) == MJ_CACHE_HIT;
        t->get[t->n] = since(begin) * 1e6;
        if (hit) t->image_bytes = entry.image_bytes;
        mj_cache_entry_free(&entry);
        free(label);
        t->n += i > 0;
        if (!hit) MJ_TRY(mj_error(err, MJ_ERR_IO, "the cache in $TMPDIR does not keep what is put there"));
    }
out:
    mj_jit_close(jit);
    return rc;
}

int mj_bench_jit_disk(const MjJitBenchOptions *o, const char *folder, MjError *err)
{
    int rc = 0;
    MjDevice *device = NULL;
    MjCache *cache = NULL;
    DiskTimes t;
    char text[96];
    MjDeviceOptions device_options = {.threads = 1};
    MJ_TRY(mj_device_open("cpu", &device_options, &device, err));
    MJ_TRY(mj_cache_open(&(MjCacheOptions){.roots = folder}, &cache, err));
    for (int warm = 0; warm < 2; warm++) { /* the first pass compiles */
        t = (DiskTimes){.n = 0};
        for (int r = 0; r < (warm ? ROUNDS : 1); r++) MJ_TRY(disk_round(device, cache, r, &t, err));
    }
    snprintf(text, sizeof text, "cpu image of %.1f KiB, to the launch record", (double)t.image_bytes / 1024);
    mj_bench_jit_row(o, "disk hit", text, mj_median(t.hit, (size_t)t.n), "ms", 1, false);
    mj_bench_jit_row(o, "disk hit, share of the cache", "key, open, read, verify", mj_median(t.get, (size_t)t.n) + mj_median(t.key, (size_t)t.n),
                     "us", 100, false);
    mj_bench_jit_row(o, "disk hit, the first of a JIT", "with reading the sources", mj_median(t.first, ROUNDS), "ms", (double)NAN, false);
out:
    mj_cache_close(cache);
    mj_device_close(device);
    return rc;
}

/* ---- a plan ---- */

static int time_plan(const char *target, int jobs, int kernels, double *seconds, MjError *err)
{
    MjJit *jit = NULL;
    MjRequest req;
    const MjLaunchRecord *record;
    int rc;

    MJ_TRY(open_jit(NULL, NULL, target, jobs, 0, &jit, err));
    mj_jit_record_begin(jit);
    for (int i = 0; i < kernels && rc == 0; i++) {
        rc = request(jit, 64 * (i + 1), 128, &req, err);
        if (rc == 0) rc = mj_jit_get(jit, &req, &record, err);
    }
    mj_jit_record_end(jit);
    if (rc != 0) goto out;
    uint64_t begin = mj_clock_ns();
    MJ_TRY(mj_jit_prepare(jit, err));
    *seconds = since(begin);
out:
    mj_jit_close(jit);
    return rc;
}

static int plan_rows(const MjJitBenchOptions *o, const char *what, const char *target, MjError *err)
{
    int cores = mj_pool_cores() < 16 ? mj_pool_cores() : 16, jobs = o->jobs > 0 ? o->jobs : cores, kernels = jobs * 4 > 8 ? jobs * 4 : 8;
    double one, all;
    char text[96];
    int rc = time_plan(target, 1, kernels, &one, err);

    if (rc == 0) rc = time_plan(target, jobs, kernels, &all, err);
    if (rc != 0) return rc;
    snprintf(text, sizeof text, "%d kernels, %d jobs: %.2f s against %.2f s on one", kernels, jobs, all, one);
    mj_bench_jit_row(o, what, text, one / all, "x", 0.8 * jobs, true);
    return 0;
}

int mj_bench_jit_plan(const MjJitBenchOptions *o, MjError *err)
{
    MjError why = MJ_ERROR_INIT;
    MjCompiler *c = NULL;
    int rc = 0;

    if (mj_compiler_cc_open(&c, &why) != 0) {
        missing_row(o, "plan with cc", why.message);
    } else {
        c->close(c);
        MJ_TRY(plan_rows(o, "plan with cc", mj_cpu_target(), err));
    }
    if (mj_compiler_nvrtc_open(&c, &why) != 0) {
        missing_row(o, "plan with NVRTC", why.message);
    } else {
        c->close(c);
        MJ_TRY(plan_rows(o, "plan with NVRTC", "sm_90a", err));
    }
out:
    mj_error_clear(&why);
    return rc;
}

/* ---- NVRTC and the prelude ---- */

/* Median seconds of compiling a template's text for sm_90a. */
static int time_template(MjCompiler *c, MjSources *sources, const char *file, const char *text, const int32_t *values, double seconds, double *out,
                         MjError *err)
{
    MjTemplate *t = NULL;
    char *source = NULL;
    double times[ROUNDS];
    int rc, n = 0;
    uint64_t begin = mj_clock_ns();

    MJ_TRY(mj_template_parse(file, text, "builtin", &t, err));
    MJ_TRY(mj_template_expand(t, sources, values, NULL, &source, err));
    for (; n < ROUNDS && (n < 5 || since(begin) < seconds); n++) {
        MjCompileResult r = {.image = NULL};
        MJ_TRY(c->compile(c, &(MjCompileRequest){.source = source, .source_name = file, .target = "sm_90a", .entry = t->kernels[0]}, &r, err));
        times[n] = r.cpu_seconds > 0 ? r.cpu_seconds : r.seconds;
        mj_compile_result_free(&r);
    }
    *out = mj_median(times, (size_t)n);
out:
    free(source);
    mj_template_free(t);
    return rc;
}

int mj_bench_jit_nvrtc(const MjJitBenchOptions *o, MjError *err)
{
    static const char empty[] = "// mj:template empty\n// mj:family cuda\n// mj:kernel empty\n// mj:args EmptyArgs\n"
                                "typedef struct EmptyArgs { int32_t *x; } EmptyArgs;\nMJ_KERNEL(empty, EmptyArgs) { args->x[0] = 1; }\n";
    MjSources sources = {.n = 0};
    MjCompiler *c = NULL;
    MjError why = MJ_ERROR_INIT;
    double bare = 0, with = 0, kernel = 0;
    int rc = 0;

    if (mj_compiler_nvrtc_open(&c, &why) != 0) {
        missing_row(o, "NVRTC", why.message);
        goto out;
    }
    mj_sources_add_builtin(&sources, mj_builtin_sources);
    MJ_TRY(time_template(c, &sources, "empty.cu", empty, NULL, o->seconds, &with, err));
    int32_t values[MJ_MAX_PARAMS] = {256, 128};
    MJ_TRY(time_template(c, &sources, "rmsnorm_fwd.cu", mj_sources_find(&sources, "rmsnorm_fwd.cu"), values, o->seconds, &kernel, err));
    MjCompileResult r = {.image = NULL};
    double times[5];
    for (int i = 0; i < 5; i++) {
        MJ_TRY(c->compile(c, &(MjCompileRequest){.source = "extern \"C\" __global__ void empty(int *x) { x[0] = 1; }\n", .source_name = "bare.cu",
                                                 .target = "sm_90a", .entry = "empty"}, &r, err));
        times[i] = r.cpu_seconds > 0 ? r.cpu_seconds : r.seconds;
        mj_compile_result_free(&r);
    }
    bare = mj_median(times, 5);
    mj_bench_jit_row(o, "NVRTC, a kernel", "rmsnorm_fwd, sm_90a", kernel * 1e3, "ms", (double)NAN, false);
    mj_bench_jit_row(o, "NVRTC, of which reading the prelude", "an empty kernel with it less one without", (with - bare) * 1e3, "ms", (double)NAN,
                     false);
    mj_bench_jit_row(o, "NVRTC, with a prelude at no cost", "the most that a precompiled one could give: docs/cache.md", kernel / (kernel - (with - bare)), "x",
                     1.5, true);
out:
    mj_sources_free(&sources);
    if (c) c->close(c);
    mj_error_clear(&why);
    return rc;
}

/* ---- all of it ---- */

static int in_folder(const MjJitBenchOptions *o, const char *base, const char *name,
                     int (*part)(const MjJitBenchOptions *, const char *, MjError *), MjError *err)
{
    char *folder = mj_strdup_printf("%s/%s", base, name);

    if (o->progress) o->progress(o->user, name);
    int rc = part(o, folder, err);
    (void)!mj_fs_remove_tree(folder, NULL);
    free(folder);
    return rc;
}

int mj_bench_jit(const MjJitBenchOptions *options, MjError *err)
{
    MjJitBenchOptions o = *options;
    const char *tmp = getenv("TMPDIR");
    char *base = mj_strdup_printf("%s/mojit-bench-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    int rc;

    if (!mkdtemp(base)) {
        rc = mj_error(err, MJ_ERR_IO, "cannot make a folder %s to measure in (TMPDIR)", base);
        free(base);
        return rc;
    }
    if (o.entries <= 0) o.entries = 100000;
    MJ_TRY(in_folder(&o, base, "memory", mj_bench_jit_memory, err));
    MJ_TRY(in_folder(&o, base, "disk", mj_bench_jit_disk, err));
    MJ_TRY(in_folder(&o, base, "many entries", mj_bench_cache, err));
    if (o.progress) o.progress(o.user, "a plan");
    MJ_TRY(mj_bench_jit_plan(&o, err));
    if (o.progress) o.progress(o.user, "NVRTC");
    MJ_TRY(mj_bench_jit_nvrtc(&o, err));
out:
    (void)!mj_fs_remove_tree(base, NULL);
    free(base);
    return rc;
}
