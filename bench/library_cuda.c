/* cuBLASLt beside the gemm op: a dense product in one call, a grouped one in a call a group, captured into one graph so that
 * the host's time for the calls is not in it. Its result is checked where its meaning is exactly the op's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "ops/gemm_library.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"

typedef struct Calls {
    MjBlasLt *lt;
    MjDevice *device;
    MjLtGemm *gemm; /* (n) */
    int n;
    bool exact;     /* scales included */
    MjGraph *graph; /* of all calls, when there are several */
} Calls;

static const char *offset_bytes(const void *base, int64_t elements, int32_t type)
{
    return (const char *)base + elements * (type == MJ_T_BF16 ? 2 : type == MJ_T_F32 ? 4 : 1);
}

/* Group e of `g` (device pointers) as a dense product; offsets are the host's. */
static bool group_of(const MjGemmArgs *g, const int32_t *offset, int32_t e, MjLtGemm *out, bool *exact)
{
    const int64_t begin = offset[e], rows = offset[e + 1] - offset[e], along = g->layout == MJ_GEMM_TN ? MJ_KMAJOR_STRIDE(g->k) : g->k;
    const bool by_k = g->group == MJ_GROUP_K, block = g->scale_mode == MJ_SCALE_BLOCK;
    MjGemmArgs one = *g;
    one.group = MJ_GROUP_NONE;
    one.experts = 1;
    if (by_k) {
        one.k = (int32_t)rows; /* with the zeros that pad it */
        one.a = offset_bytes(g->a, g->kmajor != 0 ? begin : begin * g->m, g->a_type);
        one.b = offset_bytes(g->b, g->kmajor != 0 ? begin : begin * g->n, g->b_type);
        one.c = (char *)(uintptr_t)offset_bytes(g->c, (int64_t)e * g->m * g->n, g->c_type);
        if (block) one.a_scale = g->a_scale + begin / MJ_FP8_BLOCK * g->m;
        if (block) one.b_scale = g->b_scale + begin / MJ_FP8_BLOCK * g->n;
    } else {
        one.m = (int32_t)rows;
        one.a = offset_bytes(g->a, begin * g->k, g->a_type);
        one.b = offset_bytes(g->b, (int64_t)e * g->n * g->k, g->b_type);
        one.c = (char *)(uintptr_t)offset_bytes(g->c, begin * g->n, g->c_type);
        if (block) { /* as many scales, but not those of these rows: the library wants them packed */
            *exact = false;
            one.layout = MJ_GEMM_NT;
            one.b_scale = g->b_scale + (int64_t)e * ((g->n + 127) / 128) * ((g->k + 127) / 128);
        }
    }
    bool fits = mj_gemm_library_map(&one, 0, out);
    if (!fits && block) { /* such block scales it does not read: one scale an operand, which is no slower */
        *exact = false;
        one.scale_mode = MJ_SCALE_TENSOR;
        fits = mj_gemm_library_map(&one, 0, out);
    }
    if (by_k && g->kmajor != 0) out->a_ld = out->b_ld = along;
    return fits;
}

static int enqueue(void *user, MjError *err)
{
    const Calls *c = user;
    if (c->graph != NULL) return c->device->ops->graph_launch(c->device, c->graph, err);
    for (int i = 0; i < c->n; i++) {
        int rc = mj_blaslt_gemm(c->lt, &c->gemm[i], err);
        if (rc != 0) return rc;
    }
    return 0;
}

static int capture(Calls *c, MjError *err)
{
    int rc = 0;
    MjGraph *graph = NULL;
    if (c->n < 2) return 0;
    MJ_TRY(c->device->ops->graph_begin(c->device, err));
    rc = enqueue(c, err);
    const int end = c->device->ops->graph_end(c->device, &graph, rc == 0 ? err : NULL);
    if (rc == 0) rc = end;
    if (rc != 0) goto out;
    c->graph = graph;
out:
    return rc;
}

/* Where the groups begin and the last one ends, (experts + 1), malloc'd; a dense product is its own group, of rows. */
static int32_t *offsets_of(const MjGemmArgs *host, int32_t groups)
{
    const int32_t end = host->group == MJ_GROUP_NONE ? host->m : host->kmajor != 0 ? MJ_KMAJOR_STRIDE(host->k) : host->k;
    int32_t *offset = mj_xcalloc((size_t)groups + 1, sizeof *offset);
    for (int32_t e = 0; e <= groups; e++) {
        if (host->offset != NULL) offset[e] = host->offset[e];
        else offset[e] = host->group == MJ_GROUP_K && (int64_t)e * host->piece < end ? e * host->piece : e == 0 ? 0 : end;
    }
    return offset;
}

static int make_calls(const MjCase *mj_case, Calls *c, MjError *err)
{
    const MjGemmArgs *g = mj_case_args(mj_case), *host = mj_case_host_args(mj_case);
    const int32_t groups = g->group == MJ_GROUP_NONE ? 1 : g->experts;
    int32_t *offset = offsets_of(host, groups);
    int rc = 0;
    c->gemm = mj_xcalloc((size_t)groups, sizeof *c->gemm);
    c->exact = true;
    for (int32_t e = 0; e < groups; e++) {
        if (g->group != MJ_GROUP_NONE && offset[e + 1] == offset[e]) { /* no call: a sum of nothing stays unwritten */
            if (g->group == MJ_GROUP_K && g->epilogue == MJ_EPI_STORE) c->exact = false;
            continue;
        }
        MjLtGemm *to = &c->gemm[c->n];
        const bool fits = (g->group == MJ_GROUP_NONE && mj_gemm_library_map(g, 0, to)) || group_of(g, offset, e, to, &c->exact);
        if (!fits) {
            rc = mj_error(err, MJ_ERR_MISSING, "cuBLASLt has no such product");
            goto out;
        }
        rc = mj_blaslt_gemm(c->lt, to, err); /* not only planned: some products are refused no sooner */
        if (rc == MJ_ERR_MISSING && to->a_scaling > MJ_LT_SCALE_TENSOR) { /* such block scales it does not take after all */
            mj_error_clear(err);
            to->a_scaling = to->b_scaling = MJ_LT_SCALE_TENSOR;
            c->exact = false;
            rc = mj_blaslt_gemm(c->lt, to, err);
        }
        if (rc != 0) goto out;
        c->n++;
    }
out:
    free(offset);
    return rc;
}

static void name_of(const Calls *c, const MjGemmArgs *g, char *out, size_t cap)
{
    const MjLtGemm *first = &c->gemm[0];
    const char *what = first->a_type == MJ_LT_BF16 ? "bf16" : first->a_scaling == MJ_LT_SCALE_TENSOR ? "fp8 tensor" : "fp8 block";
    snprintf(out, cap, "cuBLASLt %s%s", what, g->group != MJ_GROUP_NONE ? ", a call a group" : "");
}

int mj_bench_cublaslt(MjBlasLt *lt, MjOps *ops, MjCase *mj_case, double seconds, double *median, char *name, size_t cap, MjError *err)
{
    Calls c = {.lt = lt, .device = ops->device};
    MjGpuTimer *timer = NULL;
    MjStr line = MJ_STR_INIT;
    MjTiming t;
    int rc = 0;
    MJ_TRY(make_calls(mj_case, &c, err));
    if (c.n == 0) goto out;
    name_of(&c, mj_case_args(mj_case), name, cap);
    MJ_TRY(mj_case_reset(mj_case, err));
    MJ_TRY(enqueue(&c, err)); /* also the warm-up that a capture may need */
    MJ_TRY(ops->device->ops->synchronize(ops->device, err));
    if (c.exact) {
        rc = mj_case_verify(mj_case, "cuBLASLt", &line, err);
        if (rc == MJ_ERR_NUMERIC) rc = mj_error(err, MJ_ERR_NUMERIC, "cuBLASLt's own result fails the check, so it is no baseline: %s", mj_str_text(&line));
        if (rc != 0) goto out;
    }
    MJ_TRY(capture(&c, err));
    MJ_TRY(mj_gpu_timer_open(ops, &timer, err));
    MJ_TRY(mj_gpu_timer_run(timer, enqueue, &c, seconds, &t, err));
    *median = t.median_s;
out:
    mj_gpu_timer_close(timer);
    if (c.graph != NULL) ops->device->ops->graph_destroy(ops->device, c.graph);
    mj_str_free(&line);
    free(c.gemm);
    return rc;
}

/* ---- the same bits for fewer rows? ------------------------------------------------------------------------------------ */

enum { SOME_ROWS = 128 };

/* Runs the product with `rows` of its varying dimension, pinned to `most`, and takes what it wrote: the first rows of C, or
 * all of it where the rows are summed over. */
static int run_pinned(MjBlasLt *lt, MjOps *ops, const MjGemmArgs *g, int32_t rows, int32_t most, void *out, size_t bytes, MjError *err)
{
    MjGemmArgs a = *g;
    MjLtGemm p;
    int rc = 0;
    if (g->layout == MJ_GEMM_TN) a.k = rows;
    else a.m = rows;
    if (!mj_gemm_library_map(&a, most, &p)) return mj_error(err, MJ_ERR_MISSING, "cuBLASLt has no such product");
    MJ_TRY(ops->device->ops->fill(ops->device, g->c, 0, bytes, err));
    MJ_TRY(mj_blaslt_gemm(lt, &p, err));
    MJ_TRY(ops->device->ops->download(ops->device, out, g->c, bytes, err));
out:
    return rc;
}

int mj_bench_cublaslt_bits(MjBlasLt *lt, MjOps *ops, MjCase *mj_case, bool *same, MjError *err)
{
    const MjGemmArgs *g = mj_case_args(mj_case);
    const bool tn = g->layout == MJ_GEMM_TN;
    const int32_t most = (tn ? g->k : g->m) / SOME_ROWS * SOME_ROWS;
    const int32_t fewer[] = {SOME_ROWS, most / 2 / SOME_ROWS * SOME_ROWS, most - SOME_ROWS};
    const size_t bytes = (size_t)(tn ? g->m : SOME_ROWS) * (size_t)g->n * (g->c_type == MJ_T_F32 ? 4 : 2);
    void *all = NULL, *few = NULL;
    int rc = 0;
    if (g->group != MJ_GROUP_NONE || most < 2 * SOME_ROWS || (tn && g->a_type != MJ_T_BF16))
        return mj_error(err, MJ_ERR_MISSING, "not looked at: grouped, too few rows, or fp8 summed over rows");
    all = mj_xmalloc(bytes);
    few = mj_xmalloc(bytes);
    *same = true;
    for (int i = 0; i < 3; i++) {
        if (fewer[i] < SOME_ROWS) continue;
        if (tn) { /* rows that are only there in the larger one are zeros, as a step's padding is */
            char *from = (char *)(uintptr_t)g->a + (size_t)fewer[2 - i] * (size_t)g->m * 2;
            MJ_TRY(ops->device->ops->fill(ops->device, from, 0, (size_t)(g->k - fewer[2 - i]) * (size_t)g->m * 2, err));
        }
        if (i == 0 || tn) MJ_TRY(run_pinned(lt, ops, g, most, most, all, bytes, err));
        MJ_TRY(run_pinned(lt, ops, g, tn ? fewer[2 - i] : fewer[i], most, few, bytes, err));
        *same = *same && memcmp(all, few, bytes) == 0;
    }
out:
    free(all);
    free(few);
    return rc;
}

/* ---- its best ---------------------------------------------------------------------------------------------------- */

/* Numbers from -1 to 1 in bf16, or of sizes 2^-3 to 2 in e4m3: what is all zeros, or nearly, runs faster than real data. */
static int random_fill(MjDevice *dev, void *to, size_t bytes, bool fp8, MjError *err)
{
    enum { PART = 1 << 20 };
    unsigned char *part = mj_xmalloc(PART);
    uint64_t state = 0x9e3779b97f4a7c15ull;
    for (size_t i = 0; i < PART; i += 2) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        const uint32_t r = (uint32_t)(state >> 32);
        const float x = (float)(int32_t)r * 0x1p-31f;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        bits >>= 16;
        if (fp8) bits = (r & 0x8080u) | (0x20u + (r & 0x1fu)) | (0x20u + (r >> 16 & 0x1fu)) << 8;
        part[i] = (unsigned char)bits;
        part[i + 1] = (unsigned char)(bits >> 8);
    }
    int rc = 0;
    for (size_t at = 0; at < bytes && rc == 0; at += PART)
        rc = dev->ops->upload(dev, (char *)to + at, part, bytes - at < PART ? bytes - at : PART, err);
    free(part);
    return rc;
}

int mj_bench_cublaslt_best(MjBlasLt *lt, MjOps *ops, double seconds, double *bf16, double *fp8, MjError *err)
{
    MjDevice *dev = ops->device;
    const int units = dev->ops->info(dev)->units;
    const int64_t n = units >= 64 ? 8192 : units >= 16 ? 4096 : 16 * units; /* fills the card; a small one in a bearable time */
    const size_t bytes = (size_t)(n * n);
    void *a = NULL, *b = NULL, *c = NULL;
    MjGpuTimer *timer = NULL;
    float *scale = NULL;
    int rc = 0;
    MJ_TRY(dev->ops->alloc(dev, 2 * bytes, "cuBLASLt's best", &a, err));
    MJ_TRY(dev->ops->alloc(dev, 2 * bytes, "cuBLASLt's best", &b, err));
    MJ_TRY(dev->ops->alloc(dev, 2 * bytes, "cuBLASLt's best", &c, err));
    MJ_TRY(dev->ops->alloc(dev, sizeof *scale, "cuBLASLt's best", (void **)&scale, err));
    MJ_TRY(dev->ops->upload(dev, scale, &(const float){0.5f}, sizeof *scale, err));
    MJ_TRY(mj_gpu_timer_open(ops, &timer, err));
    for (int i = 0; i < 3; i++) { /* bf16, fp8, fp8 with the short accumulator */
        MjLtGemm g = {.a = a, .b = b, .c = c, .m = n, .n = n, .k = n, .a_ld = n, .b_ld = n, .a_type = i == 0 ? MJ_LT_BF16 : MJ_LT_E4M3};
        g.b_type = g.a_type;
        g.c_type = MJ_LT_BF16;
        if (i > 0) {
            g.a_scale = g.b_scale = scale;
            g.a_scaling = g.b_scaling = MJ_LT_SCALE_TENSOR;
            g.fast = i == 2;
        }
        Calls calls = {.lt = lt, .device = dev, .gemm = &g, .n = 1};
        MjTiming t;
        if (i > 0 && ops->arch < 89) break;
        MJ_TRY(random_fill(dev, a, i == 0 ? 2 * bytes : bytes, i > 0, err));
        MJ_TRY(random_fill(dev, b, i == 0 ? 2 * bytes : bytes, i > 0, err));
        rc = mj_gpu_timer_run(timer, enqueue, &calls, seconds, &t, err);
        if (rc == MJ_ERR_MISSING && i > 0) { /* no fp8 in this library, on this card */
            mj_error_clear(err);
            rc = 0;
            break;
        }
        if (rc != 0) goto out;
        const double rate = 2.0 * (double)n * (double)n * (double)n / t.median_s;
        double *to = i == 0 ? bf16 : fp8;
        if (!(*to >= rate)) *to = rate;
    }
out:
    mj_gpu_timer_close(timer);
    void *const all[] = {a, b, c, scale};
    for (int i = 0; i < 4; i++)
        if (all[i] != NULL) dev->ops->free(dev, all[i]);
    return rc;
}
