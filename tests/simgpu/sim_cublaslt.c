/* libcublasLt.so.13 of the simulated GPU: the few functions that mojit calls, computing plainly on the simulated device's
 * memory, and refusing what cuBLASLt refuses (fp8 that does not run along K, strides and scales that it has no algorithm for).
 * Sums are in double and rounded once, so bits are not those of a card.
 *
 * MOJIT_SIMGPU_CUBLASLT_VERSION: what it says it is, e.g. 120500; default 130000. */
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))
enum { OK = 0, INVALID = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_16BF = 14, E4M3 = 28, E5M2 = 29 };
enum { SCALAR = 0, VEC128 = 4, BLK128 = 5 };

typedef struct Desc {
    int32_t trans_a, trans_b, mode_a, mode_b;
    int8_t fast;
    const float *scale_a, *scale_b;
} Desc;
typedef struct Layout {
    int type;
    uint64_t rows, cols;
    int64_t ld;
} Layout;
typedef struct Pref {
    uint64_t workspace;
    uint32_t reduction;
} Pref;
typedef struct Algo {
    uint64_t data[8];
} Algo;
typedef struct Result {
    Algo algo;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
} Result;
typedef struct Handle {
    int dummy;
} Handle;

static int version_number(void)
{
    const char *text = getenv("MOJIT_SIMGPU_CUBLASLT_VERSION");
    return text != NULL ? atoi(text) : 130000;
}

API size_t cublasLtGetVersion(void);
API size_t cublasLtGetVersion(void) { return (size_t)version_number(); }
API int cublasLtCreate(Handle **h);
API int cublasLtCreate(Handle **h)
{
    *h = calloc(1, sizeof **h);
    return OK;
}
API int cublasLtDestroy(Handle *h);
API int cublasLtDestroy(Handle *h)
{
    free(h);
    return OK;
}
API int cublasLtMatmulDescCreate(Desc **d, int compute, int scale_type);
API int cublasLtMatmulDescCreate(Desc **d, int compute, int scale_type)
{
    if (compute != 68 || scale_type != R_32F) return NOT_SUPPORTED;
    *d = calloc(1, sizeof **d);
    return OK;
}
API int cublasLtMatmulDescDestroy(Desc *d);
API int cublasLtMatmulDescDestroy(Desc *d)
{
    free(d);
    return OK;
}
API int cublasLtMatmulDescSetAttribute(Desc *d, int attribute, const void *value, size_t bytes);
API int cublasLtMatmulDescSetAttribute(Desc *d, int attribute, const void *value, size_t bytes)
{
    const struct {
        int attribute, since;
        void *to;
        size_t bytes;
    } known[] = {{3, 0, &d->trans_a, 4}, {4, 0, &d->trans_b, 4}, {17, 0, &d->scale_a, 8}, {18, 0, &d->scale_b, 8},
                 {25, 0, &d->fast, 1},   {31, 120800, &d->mode_a, 4}, {32, 120800, &d->mode_b, 4}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].attribute != attribute) continue;
        if (bytes != known[i].bytes || version_number() < known[i].since) return INVALID;
        memcpy(known[i].to, value, bytes);
        return OK;
    }
    return INVALID;
}
API int cublasLtMatrixLayoutCreate(Layout **l, int type, uint64_t rows, uint64_t cols, int64_t ld);
API int cublasLtMatrixLayoutCreate(Layout **l, int type, uint64_t rows, uint64_t cols, int64_t ld)
{
    if (ld < (int64_t)rows) return INVALID;
    *l = calloc(1, sizeof **l);
    **l = (Layout){type, rows, cols, ld};
    return OK;
}
API int cublasLtMatrixLayoutDestroy(Layout *l);
API int cublasLtMatrixLayoutDestroy(Layout *l)
{
    free(l);
    return OK;
}
API int cublasLtMatmulPreferenceCreate(Pref **p);
API int cublasLtMatmulPreferenceCreate(Pref **p)
{
    *p = calloc(1, sizeof **p);
    return OK;
}
API int cublasLtMatmulPreferenceDestroy(Pref *p);
API int cublasLtMatmulPreferenceDestroy(Pref *p)
{
    free(p);
    return OK;
}
API int cublasLtMatmulPreferenceSetAttribute(Pref *p, int attribute, const void *value, size_t bytes);
API int cublasLtMatmulPreferenceSetAttribute(Pref *p, int attribute, const void *value, size_t bytes)
{
    if (attribute == 1 && bytes == 8) memcpy(&p->workspace, value, 8);
    else if (attribute == 3 && bytes == 4) memcpy(&p->reduction, value, 4);
    else return INVALID;
    return OK;
}

/* ---- what is accepted ----------------------------------------------------------------------------------------- */

static int is_fp8(int type) { return type == E4M3 || type == E5M2; }

static int accepted(const Desc *d, const Layout *a, const Layout *b, const Layout *c)
{
    const uint64_t m = d->trans_a ? a->cols : a->rows, k = d->trans_a ? a->rows : a->cols;
    const uint64_t n = d->trans_b ? b->rows : b->cols, kb = d->trans_b ? b->cols : b->rows;
    if (k != kb || c->rows != m || c->cols != n) return INVALID;
    if (c->type != R_32F && c->type != R_16BF) return NOT_SUPPORTED;
    if (!is_fp8(a->type)) return a->type == R_16BF && b->type == R_16BF ? OK : NOT_SUPPORTED;
    if (!is_fp8(b->type) || (a->type == E5M2 && b->type == E5M2)) return NOT_SUPPORTED;
    if (!d->trans_a || d->trans_b) return NOT_SUPPORTED; /* fp8 runs along K */
    if (m % 16 != 0 || k % 16 != 0 || a->ld % 16 != 0 || b->ld % 16 != 0) return NOT_SUPPORTED;
    if (d->mode_a == SCALAR && d->mode_b == SCALAR) return OK;
    if (d->scale_a == NULL || d->scale_b == NULL || d->fast) return NOT_SUPPORTED;
    if (d->mode_a == SCALAR || d->mode_b == SCALAR || (d->mode_a == BLK128 && d->mode_b == BLK128)) return NOT_SUPPORTED;
    const int blocks = d->mode_a == BLK128 || d->mode_b == BLK128;
    return k % 128 != 0 || (blocks && k / 128 % 4 != 0) ? NOT_SUPPORTED : OK;
}

API int cublasLtMatmulAlgoGetHeuristic(Handle *h, Desc *d, Layout *a, Layout *b, Layout *c, Layout *o, Pref *p, int wanted,
                                       Result *results, int *found);
API int cublasLtMatmulAlgoGetHeuristic(Handle *h, Desc *d, Layout *a, Layout *b, Layout *c, Layout *o, Pref *p, int wanted,
                                       Result *results, int *found)
{
    (void)h, (void)o, (void)p;
    *found = 0;
    if (wanted < 1) return INVALID;
    const int status = accepted(d, a, b, c);
    if (status != OK) return status;
    memset(results, 0, sizeof *results);
    results->algo.data[0] = 0x51aa;
    *found = 1;
    return OK;
}
API int cublasLtMatmulAlgoCheck(Handle *h, Desc *d, Layout *a, Layout *b, Layout *c, Layout *o, const Algo *algo, Result *out);
API int cublasLtMatmulAlgoCheck(Handle *h, Desc *d, Layout *a, Layout *b, Layout *c, Layout *o, const Algo *algo, Result *out)
{
    (void)h, (void)o;
    memset(out, 0, sizeof *out);
    out->algo = *algo;
    return algo->data[0] == 0x51aa ? accepted(d, a, b, c) : INVALID;
}

/* ---- the product ------------------------------------------------------------------------------------------------ */

static double decode(int type, const void *base, int64_t i)
{
    if (type == R_32F) return (double)((const float *)base)[i];
    if (type == R_16BF) {
        const uint32_t bits = (uint32_t)((const uint16_t *)base)[i] << 16;
        float f;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    }
    const int code = ((const uint8_t *)base)[i], low = type == E4M3 ? 3 : 2, bias = type == E4M3 ? 7 : 15;
    const int exponent = (code & 0x7f) >> low, mantissa = code & ((1 << low) - 1);
    const double value = exponent == 0 ? ldexp(mantissa, 1 - bias - low) : ldexp(mantissa + (1 << low), exponent - bias - low);
    return (code & 0x80) != 0 ? -value : value;
}

static void encode(int type, void *base, int64_t i, double value)
{
    const float f = (float)value;
    uint32_t bits;
    if (type == R_32F) {
        ((float *)base)[i] = f;
        return;
    }
    memcpy(&bits, &f, sizeof bits);
    bits += 0x7fffu + (bits >> 16 & 1u);
    ((uint16_t *)base)[i] = (uint16_t)(bits >> 16);
}

typedef struct Product {
    Desc d;
    Layout a, b, c;
    const void *pa, *pb, *pc;
    void *pd;
    float alpha, beta;
    void (*mark)(const void *p, size_t bytes); /* tells the driver what is written */
} Product;

/* Of row `i` of an operand that runs along K, at depth p. */
static double scale(int mode, const float *s, int64_t rows, int64_t depth, int64_t i, int64_t p)
{
    if (s == NULL) return 1.0;
    if (mode == VEC128) return (double)s[p / 128 * rows + i];
    if (mode == BLK128) return (double)s[i / 128 * (depth / 128) + p / 128];
    return (double)s[0];
}

/* Rows of an operand as real numbers, depth contiguous. */
static double *decoded(const Layout *l, const void *p, int along, int mode, const float *scales, int64_t rows, int64_t depth)
{
    double *out = malloc((size_t)(rows * depth + 1) * sizeof *out);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t d = 0; d < depth; d++)
            out[i * depth + d] = decode(l->type, p, along ? i * l->ld + d : d * l->ld + i) * scale(mode, scales, rows, depth, i, d);
    return out;
}

static void multiply(void *user)
{
    const Product *g = user;
    const int64_t m = (int64_t)g->c.rows, n = (int64_t)g->c.cols, k = (int64_t)(g->d.trans_a ? g->a.rows : g->a.cols);
    double *x = decoded(&g->a, g->pa, g->d.trans_a, g->d.mode_a, g->d.scale_a, m, k);
    double *y = decoded(&g->b, g->pb, !g->d.trans_b, g->d.mode_b, g->d.scale_b, n, k);
    const size_t element = g->c.type == R_32F ? 4 : 2;
    for (int64_t j = 0; j < n; j++) {
        g->mark((const char *)g->pd + (size_t)(j * g->c.ld) * element, (size_t)m * element);
        for (int64_t i = 0; i < m; i++) {
            double part[8] = {0}, sum = 0.0; /* eight sums that need not wait for each other */
            int64_t p = 0;
            for (; p + 8 <= k; p += 8)
                for (int l = 0; l < 8; l++) part[l] += x[i * k + p + l] * y[j * k + p + l];
            for (; p < k; p++) sum += x[i * k + p] * y[j * k + p];
            for (int l = 0; l < 8; l++) sum += part[l];
            const int64_t at = j * g->c.ld + i;
            const double before = g->beta != 0.0f ? (double)g->beta * decode(g->c.type, g->pc, at) : 0.0;
            encode(g->c.type, g->pd, at, (double)g->alpha * sum + before);
        }
    }
    free(x);
    free(y);
}

API int cublasLtMatmul(Handle *h, Desc *d, const float *alpha, const void *a, Layout *la, const void *b, Layout *lb, const float *beta,
                       const void *c, Layout *lc, void *out, Layout *ld, const Algo *algo, void *workspace, size_t bytes, void *stream);
API int cublasLtMatmul(Handle *h, Desc *d, const float *alpha, const void *a, Layout *la, const void *b, Layout *lb, const float *beta,
                       const void *c, Layout *lc, void *out, Layout *ld, const Algo *algo, void *workspace, size_t bytes, void *stream)
{
    (void)h, (void)workspace, (void)bytes;
    const int status = accepted(d, la, lb, lc);
    if (status != OK) return status;
    if (algo == NULL || algo->data[0] != 0x51aa || memcmp(lc, ld, sizeof *lc) != 0) return INVALID;
    if (is_fp8(la->type) && (((uintptr_t)a | (uintptr_t)b | (uintptr_t)out) & 15) != 0) return NOT_SUPPORTED;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    int (*enqueue)(void *, void (*)(void *), const void *, size_t) = NULL;
    if (driver == NULL) return EXECUTION_FAILED;
    void *fn = dlsym(driver, "sim_enqueue"), *mark = dlsym(driver, "sim_mark_global");
    if (fn == NULL || mark == NULL) return EXECUTION_FAILED;
    memcpy(&enqueue, &fn, sizeof fn);
    Product g = {*d, *la, *lb, *lc, a, b, c, out, *alpha, *beta, NULL};
    memcpy(&g.mark, &mark, sizeof mark);
    return enqueue(stream, multiply, &g, sizeof g) == 0 ? OK : EXECUTION_FAILED;
}
