/* The public interface, by include/mojit.h alone: sizes and versions, several runtimes and threads in one process, a runtime
 * without a device, tiered's counters, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mojit.h"
#include "runtime/base/fs.h"

enum { N = 1000, THREADS = 6, SIZES = 4 };

typedef struct SaxpyArgs { /* of the built-in template saxpy */
    const float *x;
    float *y;
    float a;
    int32_t n;
} SaxpyArgs;

static char base[64], root[100];

static MojitOptions options(const char *mode)
{
    MojitOptions o = MOJIT_OPTIONS_INIT;

    o.device = "cpu";
    o.mode = mode;
    o.cache = root;
    o.bucket = "exact";
    o.threads = 2;
    return o;
}

static MojitRuntime *open_runtime(const MojitOptions *o)
{
    MojitRuntime *rt = NULL;
    MojitError err;

    if (mojit_open(o, &rt, &err) != 0) fail_msg("%s", err.message);
    return rt;
}

static MojitCounters counters(MojitRuntime *rt)
{
    MojitCounters c = {.size = sizeof c};

    assert_int_equal(mojit_counters(rt, &c, NULL), 0);
    return c;
}

static MojitKernel *kernel_of(MojitRuntime *rt, int32_t n)
{
    MojitKernel *k = NULL;
    MojitError err;

    if (mojit_kernel(rt, "saxpy", &(MojitDim){"N", n}, 1, &k, &err) != 0) fail_msg("%s\n%s", err.message, err.log);
    return k;
}

/* y = 3 x + y over n floats on the device; checks all of them. */
static void saxpy(MojitRuntime *rt, int32_t n)
{
    MojitError err;
    void *x = NULL, *y = NULL;
    float *host = calloc((size_t)n, sizeof *host);
    const size_t bytes = (size_t)n * sizeof *host;

    for (int32_t i = 0; i < n; i++) host[i] = (float)(i % 13);
    assert_int_equal(mojit_alloc(rt, bytes, &x, &err), 0);
    assert_int_equal(mojit_alloc(rt, bytes, &y, &err), 0);
    assert_int_equal(mojit_to_device(rt, x, host, bytes, &err), 0);
    assert_int_equal(mojit_to_device(rt, y, host, bytes, &err), 0);
    SaxpyArgs args = {x, y, 3, n};
    if (mojit_launch(rt, kernel_of(rt, n), 5, 1, 0, &args, sizeof args, &err) != 0) fail_msg("%s", err.message);
    assert_int_equal(mojit_from_device(rt, host, y, bytes, &err), 0);
    for (int32_t i = 0; i < n; i++)
        if (host[i] != 4 * (float)(i % 13)) fail_msg("saxpy(N=%d) at %d: want %g got %g", n, i, 4.0 * (i % 13), (double)host[i]);
    if (mojit_launch_overlapped(rt, kernel_of(rt, n), 5, 1, 0, &args, sizeof args, &err) != 0) fail_msg("%s", err.message);
    assert_int_equal(mojit_from_device(rt, host, y, bytes, &err), 0);
    for (int32_t i = 0; i < n; i++)
        if (host[i] != 7 * (float)(i % 13)) fail_msg("saxpy(N=%d) again at %d: want %g got %g", n, i, 7.0 * (i % 13), (double)host[i]);
    mojit_free(rt, x);
    mojit_free(rt, y);
    free(host);
}

static int fresh(void **state)
{
    (void)state;
    (void)!mj_fs_remove_tree(root, NULL);
    unsetenv("MOJIT_CC");
    return 0;
}

static void sizes_and_versions(void **state)
{
    (void)state;
    MojitRuntime *rt = NULL;
    MojitError err;
    MojitOptions o = options("nocompile");

    assert_int_equal(mojit_api_version(), MOJIT_API_VERSION);
    assert_non_null(mojit_version());
    o.size = 3;
    assert_int_equal(mojit_open(&o, &rt, &err), MOJIT_USAGE);
    assert_non_null(strstr(err.message, "sizeof(MojitOptions)"));
    o.size = offsetof(MojitOptions, target); /* a program built before `target` was there */
    o.target = "this must not be read";
    rt = open_runtime(&o);
    MojitCounters c = {.size = 1};
    assert_int_equal(mojit_counters(rt, &c, &err), MOJIT_USAGE);
    c.size = sizeof c + 8;
    assert_int_equal(mojit_counters(rt, &c, &err), MOJIT_USAGE);
    memset(&c, 0x5a, sizeof c);
    c.size = offsetof(MojitCounters, stalls); /* an older one */
    assert_int_equal(mojit_counters(rt, &c, &err), 0);
    assert_int_equal(c.requests, 0);
    assert_int_equal(c.stalls, 0x5a5a5a5a5a5a5a5a);
    mojit_close(rt);
    mojit_close(NULL);
}

static void errors_say_what_is_near(void **state)
{
    (void)state;
    MojitRuntime *rt = NULL;
    MojitKernel *k = NULL;
    MojitError err;
    MojitOptions o = options("dinamic");

    assert_int_equal(mojit_open(&o, &rt, &err), MOJIT_USAGE);
    assert_non_null(strstr(err.message, "dynamic"));
    o.mode = "dynamic";
    rt = open_runtime(&o);
    assert_int_equal(mojit_kernel(rt, "saxpi", NULL, 0, &k, &err), MOJIT_USAGE);
    assert_non_null(strstr(err.message, "saxpy"));
    assert_int_equal(mojit_kernel(rt, "saxpy", &(MojitDim){"M", 1}, 1, &k, &err), MOJIT_USAGE);
    assert_non_null(strstr(err.message, "\"M\""));
    assert_int_equal(mojit_kernel(rt, "saxpy", NULL, 0, &k, &err), MOJIT_USAGE); /* N is missing */
    assert_int_equal(mojit_kernel(rt, "saxpy/nothing", &(MojitDim){"N", 8}, 1, &k, NULL), MOJIT_USAGE);
    setenv("MOJIT_CC", "/nonexistent/cc", 1);
    assert_int_equal(mojit_kernel(rt, "saxpy", &(MojitDim){"N", 8}, 1, &k, &err), MOJIT_MISSING);
    assert_null(k);
    mojit_close(rt);
}

typedef struct Asker {
    MojitRuntime *rt;
    MojitKernel *kernel[SIZES];
} Asker;

static void *ask(void *arg)
{
    Asker *a = arg;

    for (int round = 0; round < 200; round++)
        for (int s = 0; s < SIZES; s++)
            if (mojit_kernel(a->rt, "saxpy", &(MojitDim){"N", N + s}, 1, &a->kernel[s], NULL) != 0) return NULL;
    return a;
}

/* Three runtimes and a cache; six threads ask each for the same kernels at once. */
static void runtimes_and_threads(void **state)
{
    (void)state;
    static const char *const modes[] = {"static", "dynamic", "nocompile"};
    MojitRuntime *rt[3];
    Asker asker[3][THREADS];
    pthread_t thread[3][THREADS];

    for (int r = 0; r < 3; r++) {
        MojitOptions o = options(modes[r]);
        rt[r] = open_runtime(&o);
    }
    for (int r = 0; r < 3; r++)
        for (int t = 0; t < THREADS; t++) {
            asker[r][t] = (Asker){.rt = rt[r]};
            assert_int_equal(pthread_create(&thread[r][t], NULL, ask, &asker[r][t]), 0);
        }
    for (int r = 0; r < 3; r++)
        for (int t = 0; t < THREADS; t++) {
            void *done = NULL;
            pthread_join(thread[r][t], &done);
            assert_non_null(done);
            for (int s = 0; s < SIZES; s++) assert_ptr_equal(asker[r][t].kernel[s], asker[r][0].kernel[s]);
        }
    MojitCounters c[3];
    for (int r = 0; r < 3; r++) {
        c[r] = counters(rt[r]);
        assert_int_equal(c[r].requests, THREADS * 200 * SIZES);
        for (int s = 0; s < SIZES; s++) saxpy(rt[r], N + s);
    }
    /* static and dynamic bind the same values here: one compile a kernel in the whole process */
    assert_int_equal(c[0].compiles + c[1].compiles, SIZES);
    assert_int_equal(c[0].disk_hits + c[1].disk_hits, SIZES);
    assert_int_equal(c[2].compiles, 0);
    assert_int_equal(c[2].generic_kernels, c[2].requests);
    for (int r = 0; r < 3; r++) mojit_close(rt[r]);
}

static void many_kernels_are_told_apart(void **state)
{
    (void)state;
    enum { MANY = 5000 };
    static MojitKernel *first[MANY];
    MojitOptions o = options("nocompile");
    MojitRuntime *rt = open_runtime(&o);

    for (int i = 0; i < MANY; i++) first[i] = kernel_of(rt, 1 + i);
    for (int i = 0; i < MANY; i++) {
        assert_ptr_equal(kernel_of(rt, 1 + i), first[i]);
        if (i > 0) assert_ptr_not_equal(first[i], first[i - 1]);
    }
    assert_int_equal(counters(rt).memory_hits, MANY);
    mojit_close(rt);
}

/* On a machine without the device: plan and warm; a runtime that must find all warm then does. */
static void warming_without_a_device(void **state)
{
    (void)state;
    MojitError err;
    MojitKernel *k = NULL;
    void *memory = NULL;
    MojitOptions o = options("static");

    o.target = "cpu";
    MojitRuntime *rt = open_runtime(&o);
    mojit_plan_begin(rt);
    for (int s = 0; s < 2; s++) (void)kernel_of(rt, N + s);
    mojit_plan_end(rt);
    if (mojit_warm(rt, &err) != 0) fail_msg("%s", err.message);
    assert_int_equal(counters(rt).compiles, 2);
    assert_int_equal(mojit_kernel(rt, "saxpy", &(MojitDim){"N", N}, 1, &k, &err), MOJIT_USAGE);
    assert_non_null(strstr(err.message, "without a device"));
    assert_int_equal(mojit_alloc(rt, 4, &memory, &err), MOJIT_USAGE);
    assert_int_equal(mojit_synchronize(rt, &err), MOJIT_USAGE);
    mojit_close(rt);
    o.target = NULL;
    o.require_warm = 1;
    rt = open_runtime(&o);
    saxpy(rt, N);
    saxpy(rt, N + 1);
    assert_int_equal(mojit_kernel(rt, "saxpy", &(MojitDim){"N", N + 2}, 1, &k, &err), MOJIT_MISSING);
    assert_non_null(strstr(err.message, "N=1002"));
    assert_int_equal(counters(rt).disk_hits, 2);
    mojit_close(rt);
    o.target = "toaster";
    assert_int_equal(mojit_open(&o, &rt, &err), MOJIT_USAGE);
}

static void tiered_counts_what_it_did(void **state)
{
    (void)state;
    MojitOptions o = options("tiered");
    MojitRuntime *rt = open_runtime(&o);

    saxpy(rt, N);
    assert_int_equal(counters(rt).deferred, 1);
    assert_int_equal(counters(rt).specialised_at, 0);
    for (int i = 0; i < 4000 && counters(rt).swaps == 0; i++) {
        usleep(5000);
        mojit_step(rt);
    }
    saxpy(rt, N);
    MojitCounters c = counters(rt);
    assert_int_equal(c.swaps, 1);
    assert_int_equal(c.stalls, 0);
    assert_true(c.specialised_at > 0);
    assert_int_equal(c.specialised_at, c.generic_steps);
    mojit_close(rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(sizes_and_versions, fresh),
        cmocka_unit_test_setup(runtimes_and_threads, fresh),
        cmocka_unit_test_setup(many_kernels_are_told_apart, fresh),
        cmocka_unit_test_setup(warming_without_a_device, fresh),
        cmocka_unit_test_setup(tiered_counts_what_it_did, fresh),
        cmocka_unit_test_setup(errors_say_what_is_near, fresh),
    };

    if (system("cc --version >/dev/null 2>&1") != 0) {
        printf("skipped: no C compiler\n");
        return 77;
    }
    snprintf(base, sizeof base, "/tmp/mojit-unit-api-XXXXXX");
    if (!mkdtemp(base)) return 99;
    snprintf(root, sizeof root, "%s/root", base);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    (void)!mj_fs_remove_tree(base, NULL);
    return rc;
}
