/* The arithmetic of a GEMM by OpenBLAS in f32, opened at run time. Values do not matter to its speed, shapes do; so the
 * matrices are filled with small numbers and the result is thrown away.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "runtime/base/sort.h"

#define ROW_MAJOR 101
#define NO_TRANS 111
#define TRANS 112

typedef void MjSgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                     float beta, float *c, int ldc);

typedef struct MjBlas {
    MjSgemm *sgemm;
    void (*set_threads)(int);
} MjBlas;

static const MjBlas *blas(void)
{
    static MjBlas lib;
    static bool tried;
    if (!tried) {
        tried = true;
        void *so = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
        if (so != NULL) {
            *(void **)&lib.sgemm = dlsym(so, "cblas_sgemm");
            *(void **)&lib.set_threads = dlsym(so, "openblas_set_num_threads");
        }
    }
    return lib.sgemm != NULL && lib.set_threads != NULL ? &lib : NULL;
}

bool mj_bench_openblas_found(void) { return blas() != NULL; }

/* One call's shape: C(m, n) (+)= A B over k. */
static void one(const MjBlas *lib, int layout, int m, int n, int k, const float *a, const float *b, float *c)
{
    if (m == 0 || n == 0 || k == 0) return;
    int ta = layout == MJ_GEMM_TN ? TRANS : NO_TRANS, tb = layout == MJ_GEMM_NT ? TRANS : NO_TRANS;
    lib->sgemm(ROW_MAJOR, ta, tb, m, n, k, 1.0f, a, layout == MJ_GEMM_TN ? m : k, b, layout == MJ_GEMM_NT ? k : n, 0.0f, c, n);
}

/* Every expert's rows in turn; OpenBLAS has no grouped call. */
static void all(const MjBlas *lib, const MjGemmArgs *g, const float *a, const float *b, float *c)
{
    if (g->group == MJ_GROUP_NONE) {
        one(lib, g->layout, g->m, g->n, g->k, a, b, c);
        return;
    }
    for (int e = 0; e < g->experts; e++) {
        size_t row = (size_t)g->offset[e];
        if (g->group == MJ_GROUP_M) {
            one(lib, g->layout, g->count[e], g->n, g->k, a + row * (size_t)g->k, b + (size_t)e * (size_t)g->n * (size_t)g->k,
                c + row * (size_t)g->n);
        } else {
            one(lib, g->layout, g->m, g->n, g->count[e], a + row * (size_t)g->m, b + row * (size_t)g->n,
                c + (size_t)e * (size_t)g->m * (size_t)g->n);
        }
    }
}

static float *filled(size_t n)
{
    float *v = mj_xmalloc((n + 1) * sizeof *v);
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = (float)(state >> 8) * 0x1p-24f - 0.5f;
    }
    return v;
}

double mj_bench_openblas(const MjGemmArgs *g, int threads, double seconds)
{
    const MjBlas *lib = blas();
    size_t m = (size_t)g->m, n = (size_t)g->n, k = (size_t)g->k, e = (size_t)(g->experts > 0 ? g->experts : 1);
    if (lib == NULL || m * n * k == 0) return (double)NAN;
    size_t experts_b = g->group == MJ_GROUP_M ? e : 1, experts_c = g->group == MJ_GROUP_K ? e : 1;
    float *a = filled(m * k), *b = filled(experts_b * n * k), *c = filled(experts_c * m * n);
    lib->set_threads(threads);
    all(lib, g, a, b, c); /* warms its threads and buffers */
    double times[1000];
    int runs = 0;
    for (uint64_t begin = mj_clock_ns(), last = begin; runs < 1000 && (runs < 3 || (double)(last - begin) * 1e-9 < seconds); runs++) {
        all(lib, g, a, b, c);
        uint64_t now = mj_clock_ns();
        times[runs] = (double)(now - last) * 1e-9;
        last = now;
    }
    free(a);
    free(b);
    free(c);
    return mj_median(times, (size_t)runs);
}
