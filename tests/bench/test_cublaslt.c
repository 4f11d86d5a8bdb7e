/* runtime/cublaslt.c and its use in bench, on the simulated GPU: every shape of the gemm op that the library can do gives what
 * the op's reference wants, and what it cannot do is refused by name. usage: test_cublaslt SIMGPU_FOLDER */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "ops/gemm_library.h"

static int failures;

static void expect(bool fine, const char *what, const char *got)
{
    if (fine) return;
    failures++;
    printf("FAIL %s: %s\n", what, got);
}

typedef struct Rig {
    MjDevice *device;
    MjJit *jit;
    MjOps ops;
    MjBlasLt *lt;
} Rig;

static int open_rig(Rig *r, MjError *err)
{
    int rc = 0;
    const MjMode *mode = NULL;
    MJ_TRY(mj_mode_find("static", &mode, err));
    MJ_TRY(mj_device_open("cuda", NULL, &r->device, err));
    MjJitOptions options = {.device = r->device, .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}, .budget = 100};
    MJ_TRY(mj_jit_open(&options, &r->jit, err));
    MJ_TRY(mj_ops_open(r->device, r->jit, &r->ops, err));
    MJ_TRY(mj_blaslt_open(r->device, &r->lt, err));
out:
    return rc;
}

/* All check shapes: right, or refused. */
static void check_shapes(Rig *r)
{
    int right = 0, refused = 0;
    for (const MjOpShape *s = mj_op_check_shapes(MJ_OP_GEMM); s->tokens >= 0; s++) {
        MjError err = MJ_ERROR_INIT;
        MjCase *c = NULL;
        MjStr text = MJ_STR_INIT;
        char name[48] = "";
        double median = 0;
        mj_shape_text(s, &text);
        int rc = mj_case_open(&r->ops, MJ_OP_GEMM, s, 3, &c, &err);
        if (rc == 0) rc = mj_bench_cublaslt(r->lt, &r->ops, c, 1e-6, &median, name, sizeof name, &err);
        bool same = false;
        if (rc == 0) {
            const int looked = mj_bench_cublaslt_bits(r->lt, &r->ops, c, &same, &err);
            expect(looked == MJ_ERR_MISSING || (looked == 0 && same), "the simulated library's bits with fewer rows", err.message);
            mj_error_clear(&err);
        }
        right += rc == 0 && median > 0 && strncmp(name, "cuBLASLt ", 9) == 0;
        refused += rc == MJ_ERR_MISSING;
        expect(rc == 0 || rc == MJ_ERR_MISSING, mj_str_text(&text), err.message);
        mj_case_close(c);
        mj_str_free(&text);
        mj_error_clear(&err);
    }
    printf("%d shapes right, %d refused\n", right, refused);
    expect(right >= 20, "shapes that cuBLASLt can do", "fewer than 20");
}

static void refusals(Rig *r)
{
    MjError err = MJ_ERROR_INIT;
    MjLtGemm lt;
    MjGemmArgs g = {.m = 128, .n = 128, .k = 768, .experts = 1, .a_type = MJ_T_E4M3, .b_type = MJ_T_E4M3, .scale_mode = MJ_SCALE_BLOCK};
    expect(!mj_gemm_library_map(&g, 0, &lt), "block scales with K = 768", "six scales a row were taken");
    g.k = 1024;
    expect(mj_gemm_library_map(&g, 0, &lt), "block scales with K = 1024", "not taken");
    expect(mj_gemm_library_rule(MJ_DENSE_CUBLASLT, &g), "the rule, cublaslt", "not taken");
    expect(!mj_gemm_library_rule(MJ_DENSE_AUTO, &g) && !mj_gemm_library_rule(MJ_DENSE_MOJIT, &g), "the rule, auto and mojit", "taken");
    g.m = 1; /* the rule must not look at the rows */
    expect(mj_gemm_library_rule(MJ_DENSE_CUBLASLT, &g), "the rule with one row", "not taken");
    g.group = MJ_GROUP_M;
    expect(!mj_gemm_library_rule(MJ_DENSE_CUBLASLT, &g), "the rule with groups", "taken");
    g.group = MJ_GROUP_NONE;
    g.layout = MJ_GEMM_NN;
    expect(!mj_gemm_library_map(&g, 0, &lt), "fp8 across K", "taken");

    /* What the library itself refuses, and what it has no plan for inside a capture. */
    lt = (MjLtGemm){.m = 128, .n = 128, .k = 128, .a_ld = 128, .b_ld = 128, .a_type = MJ_LT_E5M2, .b_type = MJ_LT_E5M2, .c_type = MJ_LT_BF16};
    expect(mj_blaslt_gemm(r->lt, &lt, &err) == MJ_ERR_MISSING, "e5m2 times e5m2", err.message);
    mj_error_clear(&err);
    lt.b_type = lt.a_type = MJ_LT_BF16;
    lt.n = 96;
    MjGraph *graph = NULL;
    expect(r->device->ops->graph_begin(r->device, &err) == 0, "capture", err.message);
    expect(mj_blaslt_gemm(r->lt, &lt, &err) == MJ_ERR_USAGE && strstr(err.message, "before a graph") != NULL, "a new plan inside a capture",
           err.message);
    mj_error_clear(&err);
    expect(r->device->ops->graph_end(r->device, &graph, &err) == 0, "capture", err.message);
    r->device->ops->graph_destroy(r->device, graph);
    mj_error_clear(&err);
}

/* The same rows of a pinned product, alone and as part of more. */
static int pinned(Rig *r, MjError *err)
{
    enum { N = 64, K = 96, MOST = 96 };
    static uint16_t a[MOST * K], b[N * K], all[MOST * N], few[MOST * N];
    void *da = NULL, *db = NULL, *dc = NULL;
    int rc = 0;
    for (int i = 0; i < MOST * K; i++) a[i] = (uint16_t)(0x3f00 + i * 7 % 0x80);
    for (int i = 0; i < N * K; i++) b[i] = (uint16_t)(0xbe80 + i * 5 % 0x80);
    MJ_TRY(r->device->ops->alloc(r->device, sizeof a, "a", &da, err));
    MJ_TRY(r->device->ops->alloc(r->device, sizeof b, "b", &db, err));
    MJ_TRY(r->device->ops->alloc(r->device, sizeof all, "c", &dc, err));
    MJ_TRY(r->device->ops->upload(r->device, da, a, sizeof a, err));
    MJ_TRY(r->device->ops->upload(r->device, db, b, sizeof b, err));
    MjGemmArgs g = {.a = da, .b = db, .c = dc, .m = MOST, .n = N, .k = K, .experts = 1};
    MjLtGemm lt;
    for (int pass = 0; pass < 2; pass++) {
        g.m = pass == 0 ? MOST : 32;
        if (!mj_gemm_library_map(&g, MOST, &lt)) return mj_error(err, MJ_ERR_USAGE, "a bf16 product is not taken");
        if (lt.pin_m != MOST || lt.pin_k != K) return mj_error(err, MJ_ERR_USAGE, "the product is not pinned");
        MJ_TRY(mj_blaslt_gemm(r->lt, &lt, err));
        MJ_TRY(r->device->ops->download(r->device, pass == 0 ? all : few, dc, sizeof all, err));
    }
    expect(memcmp(all, few, 32 * N * sizeof *all) == 0, "a pinned product", "32 rows alone differ from the same among 96");
out:
    return rc;
}

static void versions(void)
{
    MjError err = MJ_ERROR_INIT;
    Rig r;
    memset(&r, 0, sizeof r);
    setenv("MOJIT_SIMGPU_CUBLASLT_VERSION", "110500", 1);
    expect(open_rig(&r, &err) == MJ_ERR_MISSING && strstr(err.message, "11.5") != NULL, "cuBLASLt 11.5", err.message);
    mj_error_clear(&err);
    setenv("MOJIT_SIMGPU_CUBLASLT_VERSION", "120500", 1);
    expect(mj_blaslt_open(r.device, &r.lt, &err) == 0, "cuBLASLt 12.5", err.message);
    MjLtGemm lt = {.m = 128, .n = 128, .k = 512, .a_ld = 512, .b_ld = 512, .a_type = MJ_LT_E4M3, .b_type = MJ_LT_E4M3, .c_type = MJ_LT_BF16,
                   .a_scaling = MJ_LT_SCALE_ROWS, .b_scaling = MJ_LT_SCALE_BLOCKS};
    expect(mj_blaslt_prepare(r.lt, &lt, &err) == MJ_ERR_MISSING && strstr(err.message, "12.9") != NULL, "block scales in 12.5", err.message);
    mj_error_clear(&err);
    unsetenv("MOJIT_SIMGPU_CUBLASLT_VERSION");
    mj_blaslt_close(r.lt);
    mj_jit_close(r.jit);
    mj_device_close(r.device);
}

int main(int argc, char **argv)
{
    MjError err = MJ_ERROR_INIT;
    Rig r;
    if (argc != 2) return 2;
    memset(&r, 0, sizeof r);
    setenv("MOJIT_CUDA_LIBRARY_PATH", argv[1], 1);
    int rc = open_rig(&r, &err);
    if (rc == 0) {
        check_shapes(&r);
        refusals(&r);
        rc = pinned(&r, &err);
    }
    expect(rc == 0, "test_cublaslt", err.message);
    mj_blaslt_close(r.lt);
    mj_jit_close(r.jit);
    mj_device_close(r.device);
    versions();
    if (failures == 0) printf("ok\n");
    return failures > 0;
}
