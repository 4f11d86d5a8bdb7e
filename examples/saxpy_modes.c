/* One kernel under every compile mode: cc saxpy_modes.c $(pkg-config --cflags --libs mojit) */
#include <mojit.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct SaxpyArgs { /* as in the template saxpy.cu */
    const float *x;
    float *y;
    float a;
    int32_t n;
} SaxpyArgs;

static void check(int rc, const MojitError *err)
{
    if (rc == 0) return;
    fprintf(stderr, "saxpy_modes: %s\n%s", err->message, err->log);
    exit(1);
}

static void run(const char *mode, int32_t n)
{
    MojitOptions options = MOJIT_OPTIONS_INIT;
    MojitCounters count = {.size = sizeof count};
    MojitRuntime *rt;
    MojitKernel *kernel;
    MojitError err;
    float *host = malloc((size_t)n * sizeof *host), sum = 0;
    void *x, *y;

    options.device = "cpu";
    options.mode = mode;
    check(mojit_open(&options, &rt, &err), &err);
    check(mojit_alloc(rt, (size_t)n * sizeof *host, &x, &err), &err);
    check(mojit_alloc(rt, (size_t)n * sizeof *host, &y, &err), &err);
    for (int32_t i = 0; i < n; i++) host[i] = (float)(i % 7);
    check(mojit_to_device(rt, x, host, (size_t)n * sizeof *host, &err), &err);
    check(mojit_to_device(rt, y, host, (size_t)n * sizeof *host, &err), &err);
    SaxpyArgs args = {x, y, 2.0f, n};
    for (int step = 0; step < 3; step++) {
        check(mojit_kernel(rt, "saxpy", &(MojitDim){"N", n}, 1, &kernel, &err), &err);
        check(mojit_launch(rt, kernel, 8, 128, 0, &args, sizeof args, &err), &err);
        mojit_step(rt);
    }
    check(mojit_from_device(rt, host, y, (size_t)n * sizeof *host, &err), &err);
    for (int32_t i = 0; i < n; i++) sum += host[i];
    check(mojit_counters(rt, &count, &err), &err);
    printf("%-9s sum %.0f, %llu compiled, %llu from disk, %llu look-ups answered from memory\n", mode, (double)sum,
           (unsigned long long)count.compiles, (unsigned long long)count.disk_hits, (unsigned long long)count.memory_hits);
    mojit_free(rt, x);
    mojit_free(rt, y);
    mojit_close(rt);
    free(host);
}

int main(void)
{
    const char *modes[] = {"static", "dynamic", "nocompile", "tiered"};

    if (mojit_api_version() != MOJIT_API_VERSION) return 1;
    for (int i = 0; i < 4; i++) run(modes[i], 1000);
    return 0;
}
