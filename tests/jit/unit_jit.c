/* The JIT from request to launch, on the cpu device and on templates of its own: counts of compiles and hits in every mode,
 * errors of compilers, races of threads and processes. Argument: the folder of test templates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/cache.h"
#include "jit/compiler.h"
#include "jit/jit.h"
#include "runtime/base/fs.h"
#include "runtime/base/str.h"

enum { MAX_ROWS = 600, MAX_WIDTH = 256 };

typedef struct SaxpyArgs { /* as in kernels/saxpy.cu */
    const float *x;
    float *y;
    float a;
    int32_t width, rows;
} SaxpyArgs;

typedef struct RmsnormArgs { /* MjRmsnormFwdArgs of kernel_args.h */
    const float *x;
    const uint16_t *add;
    uint16_t *y;
    float *y_f32, *x_out, *rstd;
    float eps;
    int32_t tokens, width;
} RmsnormArgs;

static const char *kernels;
static char base[64], root[100], locks[100];
static MjDevice *device;
static MjStr said;
static float x[MAX_ROWS * MAX_WIDTH], y[MAX_ROWS * MAX_WIDTH], rstd[MAX_ROWS];

static void hear(void *user, const char *line)
{
    (void)user;
    mj_str_printf(&said, "%s\n", line);
}

static MjCache *open_cache(void)
{
    MjCache *cache = NULL;
    MjError err = MJ_ERROR_INIT;
    MjCacheOptions opt = {.roots = root, .lock_dir = locks, .warn = hear};

    if (mj_cache_open(&opt, &cache, &err) != 0) fail_msg("%s", err.message);
    return cache;
}

static MjJitOptions options(const char *mode, MjCache *cache)
{
    MjJitOptions opt = {.device = device, .bucket = {MJ_BUCKET_EXACT, 1}, .jobs = 2, .cache = cache, .log = hear};

    assert_int_equal(mj_mode_find(mode, &opt.mode, NULL), 0);
    return opt;
}

static MjJit *open_jit(const MjJitOptions *opt)
{
    MjJit *jit = NULL;
    MjError err = MJ_ERROR_INIT;

    if (mj_jit_open(opt, &jit, &err) != 0 || mj_jit_add_folder(jit, kernels, &err) != 0) fail_msg("%s", err.message);
    return jit;
}

static MjRequest saxpy_request(MjJit *jit, int32_t width, int32_t rows, int32_t negate)
{
    MjRequest req = {.values = {width, rows, negate, MJ_UNBOUND}};

    assert_int_equal(mj_jit_template(jit, "saxpy", &req.tmpl, NULL), 0);
    return req;
}

static MjRequest rmsnorm_request(MjJit *jit, int32_t width, int32_t tokens)
{
    MjRequest req = {.kernel = 0};

    assert_int_equal(mj_jit_template(jit, "rmsnorm_fwd", &req.tmpl, NULL), 0);
    req.values[mj_template_param(req.tmpl, "WIDTH")] = width;
    req.values[mj_template_param(req.tmpl, "TOKENS")] = tokens;
    return req;
}

static const MjLaunchRecord *get(MjJit *jit, const MjRequest *req)
{
    const MjLaunchRecord *record = NULL;
    MjError err = MJ_ERROR_INIT;

    if (mj_jit_get(jit, req, &record, &err) != 0) fail_msg("%s\n%s", err.message, err.log ? err.log : "");
    return record;
}

static int try_get(MjJit *jit, const MjRequest *req, MjError *err)
{
    const MjLaunchRecord *record = NULL;

    mj_error_clear(err);
    return mj_jit_get(jit, req, &record, err);
}

static void launch(const MjLaunchRecord *record, const void *args, size_t bytes)
{
    MjError err = MJ_ERROR_INIT;
    MjLaunch l = {.grid = 7, .block = 1, .args = args, .args_bytes = bytes, .label = "test"};

    if (device->ops->launch(device, record->fn, &l, &err) != 0 || device->ops->synchronize(device, &err) != 0)
        fail_msg("%s", err.message);
}

/* Gets and runs saxpy, and checks every element and the ones after the last. */
static const MjLaunchRecord *saxpy(MjJit *jit, int32_t width, int32_t rows, int32_t negate)
{
    MjRequest req = saxpy_request(jit, width, rows, negate);
    const MjLaunchRecord *record = get(jit, &req);
    SaxpyArgs args = {.x = x, .y = y, .a = 3, .width = width, .rows = rows};

    for (int i = 0; i < MAX_ROWS * MAX_WIDTH; i++) {
        x[i] = (float)(i % 97);
        y[i] = 1;
    }
    launch(record, &args, sizeof args);
    for (int i = 0; i < MAX_ROWS * MAX_WIDTH; i++) {
        float want = i < width * rows ? 1 + (negate ? -3 : 3) * x[i] : 1;
        if (y[i] != want) fail_msg("saxpy[%s](width=%d rows=%d) at %d: want %g got %g", "cpu", width, rows, i, want, y[i]);
    }
    return record;
}

static MjJitCounters counters(const MjJit *jit)
{
    MjJitCounters c;

    mj_jit_counters(jit, &c);
    return c;
}

static int fresh_without_device(void **state)
{
    (void)state;
    (void)!mj_fs_remove_tree(root, NULL);
    mj_str_clear(&said);
    unsetenv("MOJIT_CC");
    return 0;
}

static int fresh(void **state)
{
    MjDeviceOptions opt = {.threads = 2};

    if (!device && mj_device_open("cpu", &opt, &device, NULL) != 0) return -1;
    return fresh_without_device(state);
}

static void plan_of(MjJit *jit)
{
    MjRequest req;

    mj_jit_record_begin(jit);
    for (int negate = 0; negate < 2; negate++)
        for (int twice = 0; twice < 2; twice++) {
            req = saxpy_request(jit, 64, 100, negate);
            assert_null(get(jit, &req)->fn);
        }
    req = saxpy_request(jit, 128, 100, 0);
    assert_int_equal(get(jit, &req)->tuning_of[3], 4); /* the default */
    mj_jit_record_end(jit);
}

static void static_compiles_ahead_once(void **state)
{
    (void)state;
    MjCache *cache = open_cache();
    MjJitOptions opt = options("static", cache);
    char text[200];

    for (int run = 0; run < 2; run++) {
        MjJit *jit = open_jit(&opt);
        plan_of(jit);
        assert_int_equal(mj_jit_plan_size(jit), 3);
        mj_jit_plan_text(jit, 0, text, sizeof text);
        assert_non_null(strstr(text, "WIDTH=64 ROWS=100 NEGATE=0 UNROLL=4"));
        MjError err = MJ_ERROR_INIT;
        if (mj_jit_prepare(jit, &err) != 0) fail_msg("%s", err.message);
        assert_int_equal(counters(jit).compiles, run == 0 ? 3 : 0);
        assert_int_equal(counters(jit).disk_hits, run == 0 ? 0 : 3);
        saxpy(jit, 64, 100, 0);
        saxpy(jit, 64, 100, 1);
        saxpy(jit, 128, 100, 0);
        saxpy(jit, 128, 100, 0);
        MjJitCounters c = counters(jit);
        assert_int_equal(c.after_ahead, 0);
        assert_int_equal(c.stalls, 0);
        assert_int_equal(c.requests, 4);
        assert_int_equal(c.memory_hits, 1);
        saxpy(jit, 256, 100, 0); /* not in the plan: works, and is held against the promise */
        assert_int_equal(counters(jit).after_ahead, run == 0 ? 1 : 0);
        mj_jit_close(jit);
    }
    mj_cache_close(cache);
}

static void dynamic_compiles_each_size_once(void **state)
{
    (void)state;
    MjCache *cache = open_cache();
    MjJitOptions opt = options("dynamic", cache);
    MjJit *jit = open_jit(&opt);
    MjJitCounters step;

    for (int rows = 1; rows <= 3; rows++) saxpy(jit, 64, rows, 0);
    mj_jit_step(jit);
    mj_jit_step_counters(jit, &step);
    assert_int_equal(step.compiles, 3);
    assert_int_equal(step.stalls, 3);
    for (int rows = 1; rows <= 3; rows++) assert_int_equal(saxpy(jit, 64, rows, 0)->bound[1], rows);
    mj_jit_step(jit);
    mj_jit_step_counters(jit, &step);
    assert_int_equal(step.compiles, 0);
    assert_int_equal(step.memory_hits, 3);
    mj_jit_close(jit);
    mj_cache_close(cache);
}

static void budget_makes_the_churning_dimension_an_argument(void **state)
{
    (void)state;
    MjJitOptions opt = options("dynamic", NULL);
    opt.budget = 2;
    MjJit *jit = open_jit(&opt);

    for (int rows = 1; rows <= 6; rows++) {
        const MjLaunchRecord *r = saxpy(jit, 64, rows, 0);
        assert_int_equal(r->bound[0], 64);
        assert_int_equal(r->bound[1], rows <= 2 ? rows : MJ_UNBOUND);
    }
    assert_int_equal(counters(jit).compiles, 3);
    assert_int_equal(counters(jit).budget_unbound, 1);
    assert_non_null(strstr(mj_str_text(&said), "ROWS"));
    assert_null(strstr(mj_str_text(&said), "WIDTH"));
    mj_jit_close(jit);
}

static void rmsnorm(MjJit *jit, float *out, bool *generic)
{
    MjRequest req = rmsnorm_request(jit, 192, 50);
    const MjLaunchRecord *record = get(jit, &req);
    RmsnormArgs args = {.x = x, .y_f32 = out, .rstd = rstd, .eps = 1e-5f, .tokens = 50, .width = 192};

    for (int i = 0; i < 50 * 192; i++) x[i] = (float)((i * 7919) % 1000) * 0.37f - 100;
    launch(record, &args, sizeof args);
    *generic = record->generic;
}

static void every_mode_gives_the_same_bits(void **state)
{
    (void)state;
    static float first[50 * 192], other[50 * 192];
    bool generic;

    for (const MjMode *mode = mj_modes; mode->name; mode++) {
        MjJitOptions opt = options(mode->name, NULL);
        MjJit *jit = open_jit(&opt);
        rmsnorm(jit, mode == mj_modes ? first : other, &generic);
        if (mode != mj_modes) assert_memory_equal(first, other, sizeof first);
        assert_int_equal(generic, mode->miss != MJ_MISS_COMPILE);
        mj_jit_close(jit);
    }
    assert_true(first[3] != first[4] && first[3] != 0);
}

static void nocompile_opens_no_compiler(void **state)
{
    (void)state;
    static float out[50 * 192];
    bool generic;
    MjError err = MJ_ERROR_INIT;
    MjJitOptions opt = options("nocompile", NULL);
    MjJit *jit = open_jit(&opt);

    setenv("MOJIT_CC", "/nonexistent/cc", 1);
    rmsnorm(jit, out, &generic);
    assert_true(generic);
    assert_int_equal(counters(jit).compiles, 0);
    assert_int_equal(counters(jit).compiler_loads, 0);
    assert_int_equal(counters(jit).generic_launches, 1);
    MjRequest req = saxpy_request(jit, 64, 10, 0); /* not built in: nothing generic was embedded */
    assert_true(try_get(jit, &req, &err) < 0);
    assert_non_null(strstr(err.message, "saxpy"));
    assert_non_null(strstr(err.message, kernels));
    mj_jit_record_begin(jit); /* a kernel that is in memory already belongs to the plan too */
    req = rmsnorm_request(jit, 192, 50);
    assert_null(get(jit, &req)->fn);
    mj_jit_record_end(jit);
    assert_int_equal(mj_jit_plan_size(jit), 1);
    mj_error_clear(&err);
    mj_jit_close(jit);
}

static void tiered_swaps_between_steps(void **state)
{
    (void)state;
    static float out[50 * 192];
    bool generic = true;
    MjCache *cache = open_cache();
    MjJitOptions opt = options("tiered", cache);
    MjJit *jit = open_jit(&opt);

    rmsnorm(jit, out, &generic);
    assert_true(generic);
    for (int i = 0; i < 2000 && counters(jit).compiles == 0; i++) usleep(10000);
    rmsnorm(jit, out, &generic);
    assert_true(generic); /* ready, but not before the step ends */
    for (int i = 0; i < 2000 && counters(jit).background_swaps == 0; i++) {
        usleep(1000);
        mj_jit_step(jit);
    }
    rmsnorm(jit, out, &generic);
    assert_false(generic);
    assert_int_equal(counters(jit).stalls, 0);
    assert_int_equal(counters(jit).compiles, 1);
    assert_int_equal(counters(jit).deferred, 1);
    assert_true(counters(jit).specialised_at >= 1);
    assert_int_equal(counters(jit).specialised_at, counters(jit).boundaries);
    assert_int_equal(counters(jit).generic_steps, counters(jit).boundaries);
    mj_jit_step(jit);
    assert_int_equal(counters(jit).generic_steps, counters(jit).boundaries - 1);
    mj_jit_close(jit);
    mj_cache_close(cache);
}

static void broken_template_says_where(void **state)
{
    (void)state;
    MjCache *cache = open_cache();
    MjJitOptions opt = options("dynamic", cache);
    MjJit *jit = open_jit(&opt);
    MjError err = MJ_ERROR_INIT;
    MjCacheInfo info;
    MjRequest req = {.values = {8}};

    assert_int_equal(mj_jit_template(jit, "broken", &req.tmpl, NULL), 0);
    for (int twice = 0; twice < 2; twice++) {
        assert_int_equal(try_get(jit, &req, &err), MJ_ERR_COMPILE);
        assert_non_null(strstr(err.message, "broken.cu:10")); /* where the brace comes too early */
        assert_non_null(strstr(err.message, "EXPERTS=8"));
        assert_non_null(err.log);
    }
    assert_int_equal(counters(jit).compiles, 0);
    assert_int_equal(counters(jit).compile_errors, 1);
    assert_int_equal(mj_cache_info(cache, 0, &info, NULL), 0);
    assert_int_equal(info.entries, 0);
    mj_error_clear(&err);
    assert_true(mj_jit_template(jit, "saxpi", &req.tmpl, &err) < 0);
    assert_non_null(strstr(err.message, "saxpy"));
    mj_error_clear(&err);
    mj_jit_close(jit);
    mj_cache_close(cache);
}

/* A "compiler" made of shell lines. */
static void use_script(const char *lines)
{
    char path[120];

    snprintf(path, sizeof path, "%s/fake-cc", base);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\n%s\n", lines);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0700), 0);
    setenv("MOJIT_CC", path, 1);
}

static void bad_compilers(void **state)
{
    (void)state;
    static const struct {
        const char *lines, *say;
    } cases[] = {
        {"sleep 60 & wait", "jit.timeout"},
        {"kill -SEGV $$", "signal 11"},
        {"echo 'x.c:1:1: error: tired' >&2; exit 1", "tired"},
        {"exit 0", "no image"},
    };
    float *out = y;
    bool generic;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        MjError err = MJ_ERROR_INIT;
        MjJitOptions opt = options("dynamic", NULL);
        opt.timeout_s = i == 0 ? 0.3 : 30;
        use_script(cases[i].lines);
        MjJit *jit = open_jit(&opt);
        MjRequest req = saxpy_request(jit, 64, 10, 0);
        assert_int_equal(try_get(jit, &req, &err), MJ_ERR_COMPILE);
        if (!strstr(err.message, cases[i].say)) fail_msg("\"%s\" lacks \"%s\"", err.message, cases[i].say);
        mj_error_clear(&err);
        mj_jit_close(jit);
    }
    use_script("exit 1");
    mj_str_clear(&said);
    MjJitOptions opt = options("dynamic", NULL);
    opt.on_error = MJ_ON_ERROR_GENERIC;
    MjJit *jit = open_jit(&opt);
    for (int i = 0; i < 3; i++) {
        rmsnorm(jit, out, &generic);
        assert_true(generic);
    }
    assert_int_equal(counters(jit).compile_errors, 1);
    assert_int_equal(counters(jit).generic_launches, 3);
    assert_non_null(strstr(mj_str_text(&said), "generic"));
    mj_jit_close(jit);
}

static void warm_cache_needs_no_compiler(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;
    MjCache *cache = open_cache();
    MjJitOptions opt = options("dynamic", cache);
    MjJit *jit = open_jit(&opt);

    saxpy(jit, 64, 10, 0);
    mj_jit_close(jit);
    setenv("MOJIT_CC", "/nonexistent/cc", 1);
    opt.require_warm = true;
    jit = open_jit(&opt);
    saxpy(jit, 64, 10, 0);
    assert_int_equal(counters(jit).disk_hits, 1);
    MjRequest req = saxpy_request(jit, 64, 11, 0);
    assert_int_equal(try_get(jit, &req, &err), MJ_ERR_MISSING);
    assert_non_null(strstr(err.message, "ROWS=11"));
    mj_jit_close(jit);
    opt.require_warm = false;
    jit = open_jit(&opt);
    req = saxpy_request(jit, 64, 11, 0);
    assert_int_equal(try_get(jit, &req, &err), MJ_ERR_MISSING);
    mj_error_clear(&err);
    mj_jit_close(jit);
    mj_cache_close(cache);
}

/* Flips one byte in the middle of every entry under the root. */
static int damage(const char *folder)
{
    char **names = NULL;
    size_t n = 0;
    int damaged = 0;

    assert_int_equal(mj_fs_list(folder, &names, &n, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        char *path = mj_strdup_printf("%s/%s", folder, names[i]), byte = 0;
        struct stat st;
        if (mj_fs_is_dir(path)) {
            damaged += damage(path);
        } else if (strstr(names[i], ".mj")) {
            int fd = open(path, O_RDWR);
            assert_int_equal(fstat(fd, &st), 0);
            assert_int_equal(pread(fd, &byte, 1, st.st_size / 2), 1);
            byte ^= 0x40;
            assert_int_equal(pwrite(fd, &byte, 1, st.st_size / 2), 1);
            close(fd);
            damaged++;
        }
        free(path);
    }
    mj_fs_list_free(names, n);
    return damaged;
}

static void damaged_entries_are_built_again(void **state)
{
    (void)state;
    MjCache *cache = open_cache();
    MjJitOptions opt = options("dynamic", cache);

    for (int run = 0; run < 3; run++) {
        MjJit *jit = open_jit(&opt);
        if (run == 1) assert_true(damage(root) >= 1);
        saxpy(jit, 64, 10, 0);
        assert_int_equal(counters(jit).compiles, run == 2 ? 0 : 1);
        assert_int_equal(counters(jit).corrupt_entries >= 1, run == 1);
        mj_jit_close(jit);
    }
    mj_cache_close(cache);
}

typedef struct Racer {
    MjJit *jit;
    const MjLaunchRecord *records[8];
} Racer;

static void *race(void *arg)
{
    Racer *r = arg;

    for (int round = 0; round < 50; round++)
        for (int i = 0; i < 8; i++) {
            MjRequest req = {.values = {64, 1 + i, 0, MJ_UNBOUND}};
            if (mj_jit_template(r->jit, "saxpy", &req.tmpl, NULL) != 0) return NULL;
            if (mj_jit_get(r->jit, &req, &r->records[i], NULL) != 0) return NULL;
        }
    return r;
}

static void threads_compile_once(void **state)
{
    (void)state;
    pthread_t threads[8];
    Racer racers[8];
    MjCache *cache = open_cache();
    MjJitOptions opt = options("dynamic", cache);
    MjJit *jit = open_jit(&opt);

    for (int i = 0; i < 8; i++) {
        racers[i] = (Racer){.jit = jit};
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        void *done = NULL;
        pthread_join(threads[i], &done);
        assert_non_null(done);
        for (int k = 0; k < 8; k++) assert_ptr_equal(racers[i].records[k], racers[0].records[k]);
    }
    assert_int_equal(counters(jit).compiles, 8);
    assert_int_equal(counters(jit).requests, 8 * 8 * 50);
    mj_jit_close(jit);
    mj_cache_close(cache);
}

/* Without a device: a child must not use threads of its parent. */
static void processes_compile_once(void **state)
{
    (void)state;
    int results[2], total = 0, n = 0;

    assert_int_equal(pipe(results), 0);
    for (int i = 0; i < 16; i++) {
        if (fork() != 0) continue;
        MjCache *cache = open_cache();
        MjJitOptions opt = options("static", cache);
        opt.device = NULL;
        opt.target = mj_cpu_target();
        opt.jobs = 1;
        MjJit *jit = open_jit(&opt);
        mj_jit_record_begin(jit);
        MjRequest req = saxpy_request(jit, 64, 100, 0);
        get(jit, &req);
        mj_jit_record_end(jit);
        int rc = mj_jit_prepare(jit, NULL), compiles = (int)counters(jit).compiles;
        if (rc == 0) (void)!write(results[1], &compiles, sizeof compiles);
        _exit(rc != 0);
    }
    close(results[1]);
    for (int compiles; read(results[0], &compiles, sizeof compiles) == sizeof compiles; n++) total += compiles;
    while (wait(NULL) > 0) {}
    close(results[0]);
    assert_int_equal(n, 16);
    assert_int_equal(total, 1);
}

static void table_holds_many(void **state)
{
    (void)state;
    static const MjLaunchRecord *records[MAX_ROWS * 5];
    MjJitOptions opt = options("dynamic", NULL);
    opt.budget = 1;
    MjJit *jit = open_jit(&opt);

    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < MAX_ROWS * 5; i++) {
            MjRequest req = saxpy_request(jit, 64, 1 + i, 0);
            const MjLaunchRecord *r = get(jit, &req);
            if (pass == 1) assert_ptr_equal(r, records[i]);
            records[i] = r;
            assert_int_equal(r->tuning_of[1], 1 + i);
        }
    assert_int_equal(counters(jit).compiles, 2);
    assert_int_equal(counters(jit).memory_hits, MAX_ROWS * 5);
    mj_jit_close(jit);
}

static void gpu_images_without_a_gpu(void **state)
{
    (void)state;
    MjCompiler *nvrtc = NULL;
    MjError err = MJ_ERROR_INIT;

    if (mj_compiler_nvrtc_open(&nvrtc, &err) != 0) {
        print_message("skipped: %s\n", err.message);
        mj_error_clear(&err);
        skip();
    }
    nvrtc->close(nvrtc);
    MjCache *cache = open_cache();
    for (int run = 0; run < 2; run++) {
        MjJitOptions opt = options("static", cache);
        opt.device = NULL;
        opt.target = "sm_90a";
        MjJit *jit = open_jit(&opt);
        plan_of(jit);
        if (mj_jit_prepare(jit, &err) != 0) fail_msg("%s\n%s", err.message, err.log ? err.log : "");
        assert_int_equal(counters(jit).compiles, run == 0 ? 3 : 0);
        assert_int_equal(counters(jit).disk_hits, run == 0 ? 0 : 3);
        mj_jit_close(jit);
    }
    mj_cache_close(cache);
}

/* What is in a key: every header that is read, and never where the files lie. */
static void keys_cover_sources_not_places(void **state)
{
    (void)state;
    char folder[2][120], path[300], *text = NULL;
    size_t len = 0;
    MjCache *cache = open_cache();
    MjJitOptions opt = options("dynamic", cache);

    for (int k = 0; k < 2; k++) {
        snprintf(folder[k], sizeof folder[k], "%s/copy%d", base, k);
        assert_int_equal(mkdir(folder[k], 0700), 0);
        snprintf(path, sizeof path, "%s/saxpy.cu", kernels);
        assert_int_equal(mj_fs_read(path, &text, &len, NULL), 0);
        snprintf(path, sizeof path, "%s/saxpy.cu", folder[k]);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        char *body = strstr(text, "typedef"); /* after the declarations */
        fprintf(f, "%.*s#include \"%s\"\n%s", (int)(body - text), text, "saxpy_helper.h", body);
        fclose(f);
        free(text);
    }
    static const char *const helpers[] = {"/* one */\n", "/* one */\n", "/* two */\n"};
    for (int run = 0; run < 3; run++) { /* two folders with the same files, then a changed header */
        MjError err = MJ_ERROR_INIT;
        snprintf(path, sizeof path, "%s/saxpy_helper.h", folder[run % 2]);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs(helpers[run], f);
        fclose(f);
        MjJit *jit = open_jit(&opt);
        if (mj_jit_add_folder(jit, folder[run % 2], &err) != 0) fail_msg("%s", err.message);
        saxpy(jit, 64, 10, 0);
        assert_int_equal(counters(jit).compiles, run == 1 ? 0 : 1);
        assert_int_equal(counters(jit).disk_hits, run == 1 ? 1 : 0);
        mj_jit_close(jit);
    }
    mj_cache_close(cache);
}

static void unusable_cache_costs_a_warning(void **state)
{
    (void)state;
    char file[200];
    MjCache *cache = NULL;

    snprintf(file, sizeof file, "%s/fake-root", base);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(mj_cache_open(&(MjCacheOptions){.roots = file, .lock_dir = "/dev/null/locks", .warn = hear}, &cache, NULL), 0);
    assert_non_null(strstr(mj_str_text(&said), file));
    MjJitOptions opt = options("dynamic", cache);
    MjJit *jit = open_jit(&opt);
    saxpy(jit, 64, 10, 0);
    assert_int_equal(counters(jit).compiles, 1);
    mj_jit_close(jit);
    mj_cache_close(cache);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(processes_compile_once, fresh_without_device), /* first: it forks */
        cmocka_unit_test_setup(static_compiles_ahead_once, fresh),
        cmocka_unit_test_setup(dynamic_compiles_each_size_once, fresh),
        cmocka_unit_test_setup(budget_makes_the_churning_dimension_an_argument, fresh),
        cmocka_unit_test_setup(every_mode_gives_the_same_bits, fresh),
        cmocka_unit_test_setup(nocompile_opens_no_compiler, fresh),
        cmocka_unit_test_setup(tiered_swaps_between_steps, fresh),
        cmocka_unit_test_setup(broken_template_says_where, fresh),
        cmocka_unit_test_setup(bad_compilers, fresh),
        cmocka_unit_test_setup(warm_cache_needs_no_compiler, fresh),
        cmocka_unit_test_setup(damaged_entries_are_built_again, fresh),
        cmocka_unit_test_setup(keys_cover_sources_not_places, fresh),
        cmocka_unit_test_setup(unusable_cache_costs_a_warning, fresh),
        cmocka_unit_test_setup(threads_compile_once, fresh),
        cmocka_unit_test_setup(table_holds_many, fresh),
        cmocka_unit_test_setup(gpu_images_without_a_gpu, fresh),
    };
    MjCompiler *cc = NULL;
    MjError err = MJ_ERROR_INIT;

    if (argc != 2) return 99;
    kernels = argv[1];
    if (mj_compiler_cc_open(&cc, &err) != 0) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    cc->close(cc);
    snprintf(base, sizeof base, "/tmp/mojit-unit-jit-XXXXXX");
    if (!mkdtemp(base)) return 99;
    snprintf(root, sizeof root, "%s/root", base);
    snprintf(locks, sizeof locks, "%s/locks", base);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    mj_device_close(device);
    mj_str_free(&said);
    (void)!mj_fs_remove_tree(base, NULL);
    return rc;
}
