/* See cublaslt.h. cuBLASLt is column-major: a row-major C(m, n) = A B is its C^T(n, m) = B^T A^T, so its first operand is
 * our B and its second our A. */
#include "runtime/cublaslt.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"
#include "runtime/cuda_device.h"

#define WORKSPACE_BYTES MJ_BLASLT_WORKSPACE_BYTES
#define MIN_VERSION 120000
#define BLOCK_SCALES_VERSION 120900

enum { COMPUTE_32F = 68, R_32F = 0, R_16BF = 14, R_8F_E4M3 = 28, R_8F_E5M2 = 29, OP_N = 0, OP_T = 1 };
enum { /* cublasLtMatmulDescAttributes_t */
    DESC_TRANSA = 3,
    DESC_TRANSB = 4,
    DESC_A_SCALE_POINTER = 17,
    DESC_B_SCALE_POINTER = 18,
    DESC_FAST_ACCUM = 25,
    DESC_A_SCALE_MODE = 31,
    DESC_B_SCALE_MODE = 32
};
enum { SCALE_SCALAR = 0, SCALE_VEC128 = 4, SCALE_BLK128 = 5 };      /* cublasLtMatmulMatrixScale_t */
enum { PREF_MAX_WORKSPACE_BYTES = 1, PREF_REDUCTION_SCHEME_MASK = 3 }; /* cublasLtMatmulPreferenceAttributes_t */

typedef struct LtHandle_ *LtHandle;
typedef struct LtDesc_ *LtDesc;
typedef struct LtLayout_ *LtLayout;
typedef struct LtPref_ *LtPref;
typedef struct LtAlgo {
    uint64_t data[8];
} LtAlgo;
typedef struct LtResult { /* cublasLtMatmulHeuristicResult_t */
    LtAlgo algo;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
} LtResult;

/* X(name without "cublasLt", (parameters)) */
#define FUNCTIONS(X)                                                                                                   \
    X(Create, (LtHandle * handle))                                                                                     \
    X(Destroy, (LtHandle handle))                                                                                      \
    X(MatmulDescCreate, (LtDesc * desc, int compute, int scale_type))                                                  \
    X(MatmulDescDestroy, (LtDesc desc))                                                                                \
    X(MatmulDescSetAttribute, (LtDesc desc, int attribute, const void *value, size_t bytes))                           \
    X(MatrixLayoutCreate, (LtLayout * layout, int type, uint64_t rows, uint64_t cols, int64_t ld))                     \
    X(MatrixLayoutDestroy, (LtLayout layout))                                                                          \
    X(MatmulPreferenceCreate, (LtPref * pref))                                                                         \
    X(MatmulPreferenceDestroy, (LtPref pref))                                                                          \
    X(MatmulPreferenceSetAttribute, (LtPref pref, int attribute, const void *value, size_t bytes))                     \
    X(MatmulAlgoGetHeuristic,                                                                                          \
      (LtHandle handle, LtDesc desc, LtLayout a, LtLayout b, LtLayout c, LtLayout d, LtPref pref, int wanted,          \
       LtResult *results, int *found))                                                                                 \
    X(MatmulAlgoCheck,                                                                                                 \
      (LtHandle handle, LtDesc desc, LtLayout a, LtLayout b, LtLayout c, LtLayout d, const LtAlgo *algo, LtResult *out)) \
    X(Matmul, (LtHandle handle, LtDesc desc, const void *alpha, const void *a, LtLayout la, const void *b, LtLayout lb, \
               const void *beta, const void *c, LtLayout lc, void *d, LtLayout ld, const LtAlgo *algo, void *workspace, \
               size_t workspace_bytes, MjCuStream stream))

typedef struct LtKey { /* everything of a product but its pointers; compared bytewise, so no padding is left unset */
    int64_t m, n, k, a_ld, b_ld, pin_m, pin_k;
    int32_t a_across, b_across, a_type, b_type, c_type, a_scaling, b_scaling, accumulate, fast, pad;
} LtKey;

typedef struct LtPlan {
    LtKey key;
    LtDesc desc;
    LtLayout a, b, c; /* in our names */
    LtAlgo algo;
} LtPlan;

struct MjBlasLt {
    CudaDevice *d;
    MjDevice *dev;
    int version;
    LtHandle handle;
    void *workspace;
    LtPlan *plans;
    size_t n_plans, cap_plans, last; /* last: the plan of the product before, often the next one's too */
#define MEMBER(name, params) int(*name) params;
    FUNCTIONS(MEMBER)
#undef MEMBER
};

static const char *status_name(int status)
{
    static const char *const names[] = {"success", "not initialised", "", "allocation failed", "", "", "", "invalid value",
                                        "architecture mismatch", "", "", "mapping error", "", "execution failed", "internal error",
                                        "not supported", "license error"};
    return status >= 0 && (size_t)status < sizeof names / sizeof *names ? names[status] : "unknown status";
}

static int lt_error(int status, const char *call, MjError *err)
{
    const int code = status == 15 || status == 8 ? MJ_ERR_MISSING : status == 3 ? MJ_ERR_MEMORY : MJ_ERR_DEVICE;
    return mj_error(err, code, "cublasLt%.*s: status %d (%s)%s", (int)strcspn(call, "("), call, status, status_name(status),
                    status == 1 ? ": cuBLASLt needs a driver at least as new as itself" : "");
}

#define LT(lt, call)                                                                                                   \
    do {                                                                                                               \
        const int status_ = (lt)->call;                                                                                \
        if (status_ != 0) {                                                                                            \
            rc = lt_error(status_, #call, err);                                                                        \
            goto out;                                                                                                  \
        }                                                                                                              \
    } while (0)

static int load(MjBlasLt *lt, MjError *err)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
    char why[512];
    void *so = mj_cuda_dlopen(names, why, sizeof why); /* never closed: CUDA's libraries do not bear it */
    if (so == NULL)
        return mj_error(err, MJ_ERR_MISSING, "no cuBLASLt: %s. Install cuBLAS 12.0 or later (it is part of the CUDA toolkit), or set "
                        "run.dense_gemm = mojit", why);
#define LOAD(name, params)                                                                                             \
    do {                                                                                                               \
        void *fn = dlsym(so, "cublasLt" #name);                                                                        \
        if (fn == NULL)                                                                                                \
            return mj_error(err, MJ_ERR_MISSING, "cuBLASLt has no cublasLt" #name ": install cuBLAS 12.0 or later");   \
        memcpy(&lt->name, &fn, sizeof fn);                                                                             \
    } while (0);
    FUNCTIONS(LOAD)
#undef LOAD
    size_t (*version)(void);
    void *fn = dlsym(so, "cublasLtGetVersion");
    if (fn == NULL) return mj_error(err, MJ_ERR_MISSING, "cuBLASLt has no cublasLtGetVersion: install cuBLAS 12.0 or later");
    memcpy(&version, &fn, sizeof fn);
    lt->version = (int)version();
    if (lt->version < MIN_VERSION)
        return mj_error(err, MJ_ERR_MISSING, "cuBLASLt %d.%d is there; mojit needs 12.0 or later: install a newer CUDA toolkit",
                        lt->version / 10000, lt->version % 10000 / 100);
    return 0;
}

int mj_blaslt_find(int *version, MjError *err)
{
    MjBlasLt lt;
    memset(&lt, 0, sizeof lt);
    int rc = load(&lt, err);
    if (rc == 0) *version = lt.version;
    return rc;
}

int mj_blaslt_open(MjDevice *dev, MjBlasLt **out, MjError *err)
{
    int rc = 0;
    if (strcmp(dev->ops->kind, "cuda") != 0)
        return mj_error(err, MJ_ERR_MISSING, "cuBLASLt runs on cuda devices, not on %s", dev->ops->kind);
    MjBlasLt *lt = mj_xcalloc(1, sizeof *lt);
    lt->dev = dev;
    lt->d = mj_cuda_device(dev);
    MJ_TRY(load(lt, err));
    MJ_TRY(mj_cuda_make_current(lt->d, err));
    LT(lt, Create(&lt->handle));
    MJ_TRY(dev->ops->alloc(dev, WORKSPACE_BYTES, "cuBLASLt workspace", &lt->workspace, err));
    *out = lt;
    return 0;
out:
    mj_blaslt_close(lt);
    return rc;
}

static void drop_plan(MjBlasLt *lt, LtPlan *p) /* closing: nobody is left to tell */
{
    if (p->desc != NULL) (void)lt->MatmulDescDestroy(p->desc);
    if (p->a != NULL) (void)lt->MatrixLayoutDestroy(p->a);
    if (p->b != NULL) (void)lt->MatrixLayoutDestroy(p->b);
    if (p->c != NULL) (void)lt->MatrixLayoutDestroy(p->c);
}

void mj_blaslt_close(MjBlasLt *lt)
{
    if (lt == NULL) return;
    if (lt->handle != NULL && mj_cuda_make_current(lt->d, NULL) == 0) {
        (void)lt->dev->ops->synchronize(lt->dev, NULL);
        for (size_t i = 0; i < lt->n_plans; i++) drop_plan(lt, &lt->plans[i]);
        (void)lt->Destroy(lt->handle);
    }
    if (lt->workspace != NULL) lt->dev->ops->free(lt->dev, lt->workspace);
    free(lt->plans);
    free(lt);
}

int mj_blaslt_version(const MjBlasLt *lt) { return lt->version; }

/* ---- plans --------------------------------------------------------------------------------------------------- */

static int cuda_type(MjLtType type)
{
    return type == MJ_LT_E4M3 ? R_8F_E4M3 : type == MJ_LT_E5M2 ? R_8F_E5M2 : type == MJ_LT_F32 ? R_32F : R_16BF;
}

static LtKey key_of(const MjLtGemm *g)
{
    LtKey key;
    memset(&key, 0, sizeof key);
    key = (LtKey){g->m, g->n, g->k, g->a_ld, g->b_ld, g->pin_m, g->pin_k, g->a_across, g->b_across, (int32_t)g->a_type,
                  (int32_t)g->b_type, (int32_t)g->c_type, (int32_t)g->a_scaling, (int32_t)g->b_scaling, g->accumulate, g->fast, 0};
    return key;
}

/* The layouts of a product of m rows over k; the rest is the shape's own. */
static int make_layouts(MjBlasLt *lt, const MjLtGemm *g, int64_t m, int64_t k, LtPlan *p, MjError *err)
{
    int rc = 0;
    const uint64_t um = (uint64_t)m, un = (uint64_t)g->n, uk = (uint64_t)k;
    LT(lt, MatrixLayoutCreate(&p->a, cuda_type(g->a_type), g->a_across ? um : uk, g->a_across ? uk : um, g->a_ld));
    LT(lt, MatrixLayoutCreate(&p->b, cuda_type(g->b_type), g->b_across ? un : uk, g->b_across ? uk : un, g->b_ld));
    LT(lt, MatrixLayoutCreate(&p->c, cuda_type(g->c_type), un, um, g->n));
out:
    return rc;
}

static int set_scale(MjBlasLt *lt, LtDesc desc, int attribute, MjLtScale scaling, MjError *err)
{
    const int32_t mode = scaling == MJ_LT_SCALE_ROWS ? SCALE_VEC128 : scaling == MJ_LT_SCALE_BLOCKS ? SCALE_BLK128 : SCALE_SCALAR;
    int rc = 0;
    if (mode == SCALE_SCALAR) return 0; /* the default, and all that 12.0 to 12.8 know */
    if (lt->version < BLOCK_SCALES_VERSION)
        return mj_error(err, MJ_ERR_MISSING, "cuBLASLt %d.%d has no 128-element block scales: they came with 12.9", lt->version / 10000,
                        lt->version % 10000 / 100);
    LT(lt, MatmulDescSetAttribute(desc, attribute, &mode, sizeof mode));
out:
    return rc;
}

static int make_desc(MjBlasLt *lt, const MjLtGemm *g, LtPlan *p, MjError *err)
{
    const int32_t trans_b = g->b_across ? OP_N : OP_T, trans_a = g->a_across ? OP_T : OP_N;
    const int8_t fast = g->fast;
    int rc = 0;
    LT(lt, MatmulDescCreate(&p->desc, COMPUTE_32F, R_32F));
    LT(lt, MatmulDescSetAttribute(p->desc, DESC_TRANSA, &trans_b, sizeof trans_b)); /* its A is our B */
    LT(lt, MatmulDescSetAttribute(p->desc, DESC_TRANSB, &trans_a, sizeof trans_a));
    if (g->fast) LT(lt, MatmulDescSetAttribute(p->desc, DESC_FAST_ACCUM, &fast, sizeof fast));
    MJ_TRY(set_scale(lt, p->desc, DESC_A_SCALE_MODE, g->b_scaling, err));
    MJ_TRY(set_scale(lt, p->desc, DESC_B_SCALE_MODE, g->a_scaling, err));
    /* The heuristic wants to see that there are scales. */
    LT(lt, MatmulDescSetAttribute(p->desc, DESC_A_SCALE_POINTER, &g->b_scale, sizeof g->b_scale));
    LT(lt, MatmulDescSetAttribute(p->desc, DESC_B_SCALE_POINTER, &g->a_scale, sizeof g->a_scale));
out:
    return rc;
}

static int ask_heuristic(MjBlasLt *lt, const MjLtGemm *g, const LtPlan *p, LtAlgo *algo, MjError *err)
{
    const uint64_t workspace = WORKSPACE_BYTES;
    const uint32_t no_split = 0;
    LtResult result;
    LtPref pref = NULL;
    int found = 0, rc = 0;
    memset(&result, 0, sizeof result);
    LT(lt, MatmulPreferenceCreate(&pref));
    LT(lt, MatmulPreferenceSetAttribute(pref, PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    if (g->pin_m != 0) LT(lt, MatmulPreferenceSetAttribute(pref, PREF_REDUCTION_SCHEME_MASK, &no_split, sizeof no_split));
    LT(lt, MatmulAlgoGetHeuristic(lt->handle, p->desc, p->b, p->a, p->c, p->c, pref, 1, &result, &found));
    if (found == 0 || result.state != 0)
        MJ_TRY(mj_error(err, MJ_ERR_MISSING, "cuBLASLt has no algorithm for m=%lld n=%lld k=%lld in these types and scales",
                        (long long)g->m, (long long)g->n, (long long)g->k));
    *algo = result.algo;
out:
    if (pref != NULL) (void)lt->MatmulPreferenceDestroy(pref);
    return rc;
}

/* The algorithm for the largest rows and depth, if it does these too. */
static int pin(MjBlasLt *lt, const MjLtGemm *g, LtPlan *p, MjError *err)
{
    LtPlan largest = {.desc = p->desc};
    LtResult result;
    int rc = 0;
    MJ_TRY(make_layouts(lt, g, g->pin_m, g->pin_k, &largest, err));
    MJ_TRY(ask_heuristic(lt, g, &largest, &p->algo, err));
    LT(lt, MatmulAlgoCheck(lt->handle, p->desc, p->b, p->a, p->c, p->c, &p->algo, &result));
    if (result.workspace > WORKSPACE_BYTES)
        MJ_TRY(mj_error(err, MJ_ERR_MISSING, "cuBLASLt's algorithm for m=%lld k=%lld needs a workspace of %zu bytes for m=%lld k=%lld",
                        (long long)g->pin_m, (long long)g->pin_k, result.workspace, (long long)g->m, (long long)g->k));
out:
    largest.desc = NULL;
    drop_plan(lt, &largest);
    return rc;
}

static int find_plan(MjBlasLt *lt, const MjLtGemm *g, const LtPlan **out, MjError *err)
{
    const LtKey key = key_of(g);
    LtPlan p = {.key = key};
    int rc = 0;
    for (size_t i = 0; i < lt->n_plans; i++) {
        const size_t at = (lt->last + i) % lt->n_plans;
        if (memcmp(&lt->plans[at].key, &key, sizeof key) != 0) continue;
        lt->last = at;
        *out = &lt->plans[at];
        return 0;
    }
    if (lt->d->capturing)
        return mj_error(err, MJ_ERR_USAGE, "cuBLASLt: the plan for m=%lld n=%lld k=%lld must be made before a graph is captured",
                        (long long)g->m, (long long)g->n, (long long)g->k);
    MJ_TRY(mj_cuda_make_current(lt->d, err));
    MJ_TRY(make_desc(lt, g, &p, err));
    MJ_TRY(make_layouts(lt, g, g->m, g->k, &p, err));
    if (g->pin_m != 0) MJ_TRY(pin(lt, g, &p, err));
    else MJ_TRY(ask_heuristic(lt, g, &p, &p.algo, err));
    if (lt->n_plans == lt->cap_plans) {
        lt->cap_plans = lt->cap_plans == 0 ? 32 : 2 * lt->cap_plans;
        lt->plans = mj_xrealloc(lt->plans, lt->cap_plans * sizeof *lt->plans);
    }
    lt->last = lt->n_plans++;
    lt->plans[lt->last] = p;
    *out = &lt->plans[lt->last];
    return 0;
out:
    drop_plan(lt, &p);
    return rc;
}

/* What the product was, for whoever reads the message. */
static int with_product(int rc, const MjLtGemm *g, MjError *err)
{
    static const char *const types[] = {"bf16", "e4m3", "e5m2", "f32"}, *const scales[] = {"no", "tensor", "1x128", "128x128"};
    if (rc == 0) return 0;
    return mj_error_context(err, rc, "cuBLASLt: C(%lld, %lld) %s %s= A(%s, %s scales, ld %lld%s) B(%s, %s scales, ld %lld%s) over %lld",
                            (long long)g->m, (long long)g->n, types[g->c_type], g->accumulate ? "+" : "", types[g->a_type],
                            scales[g->a_scaling], (long long)g->a_ld, g->a_across ? ", across k" : "", types[g->b_type],
                            scales[g->b_scaling], (long long)g->b_ld, g->b_across ? ", across k" : "", (long long)g->k);
}

int mj_blaslt_prepare(MjBlasLt *lt, const MjLtGemm *g, MjError *err)
{
    const LtPlan *p = NULL;
    return with_product(find_plan(lt, g, &p, err), g, err);
}

int mj_blaslt_gemm(MjBlasLt *lt, const MjLtGemm *g, MjError *err)
{
    const float one = 1.0f, zero = 0.0f;
    const LtPlan *p = NULL;
    int rc = 0;
    if (g->m == 0 || g->n == 0) return 0;
    MJ_TRY(find_plan(lt, g, &p, err));
    MJ_TRY(mj_cuda_make_current(lt->d, err));
    if (g->b_scaling != MJ_LT_SCALE_NONE) LT(lt, MatmulDescSetAttribute(p->desc, DESC_A_SCALE_POINTER, &g->b_scale, sizeof g->b_scale));
    if (g->a_scaling != MJ_LT_SCALE_NONE) LT(lt, MatmulDescSetAttribute(p->desc, DESC_B_SCALE_POINTER, &g->a_scale, sizeof g->a_scale));
    lt->d->after_kernel = false;
    LT(lt, Matmul(lt->handle, p->desc, &one, g->b, p->b, g->a, p->a, g->accumulate ? &one : &zero, g->c, p->c, g->c, p->c, &p->algo,
                  lt->workspace, WORKSPACE_BYTES, lt->d->stream));
out:
    return with_product(rc, g, err);
}
