/* Opening, machine rates, one op, the lookup. See bench.h. */
#include "bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "runtime/base/pool.h"
#include "runtime/base/sort.h"
#include "train/peak.h"

struct MjBench {
    MjBenchOptions options;
    MjDevice *device;
    MjJit *jit;
    MjOps ops;
    MjMachine machine;
    bool measured;
    MjBlasLt *lt; /* cuda; NULL: not there */
};

static void say(const MjBench *b, const char *line)
{
    if (b->options.log != NULL) b->options.log(b->options.user, line);
}

static int open_library(MjBench *b, MjError *err)
{
    if (strcmp(b->device->ops->kind, "cuda") != 0) return 0;
    int rc = mj_blaslt_open(b->device, &b->lt, err);
    if (rc != MJ_ERR_MISSING) return rc;
    say(b, err->message);
    mj_error_clear(err);
    return 0;
}

int mj_bench_open(const MjBenchOptions *options, MjBench **out, MjError *err)
{
    int rc = 0;
    MjBench *b = mj_xcalloc(1, sizeof *b);
    b->options = *options;
    MjDeviceOptions device = {.threads = options->threads};
    MJ_TRY(mj_device_open(options->device, &device, &b->device, err));
    if (b->options.seconds <= 0) b->options.seconds = strcmp(b->device->ops->kind, "cpu") == 0 ? 0.3 : 0.05;
    MjJitOptions jit = {
        .device = b->device,
        .mode = options->mode,
        .bucket = options->bucket,
        .budget = 1 << 20, /* every shape is wanted */
        .cache = options->cache,
        .log = options->log,
        .log_user = options->user,
    };
    MJ_TRY(mj_jit_open(&jit, &b->jit, err));
    const char *folder = getenv("MOJIT_KERNELS");
    if (folder != NULL) MJ_TRY(mj_jit_add_folder(b->jit, folder, err));
    MJ_TRY(mj_ops_open(b->device, b->jit, &b->ops, err));
    MJ_TRY(open_library(b, err));
    *out = b;
    b = NULL;
out:
    mj_bench_close(b);
    return rc;
}

void mj_bench_close(MjBench *b)
{
    if (b == NULL) return;
    mj_blaslt_close(b->lt);
    mj_jit_close(b->jit);
    mj_device_close(b->device);
    free(b);
}

MjOps *mj_bench_ops(MjBench *b) { return &b->ops; }
MjDevice *mj_bench_device(MjBench *b) { return b->device; }

#define COPY_BLOCK ((size_t)64 << 20)

typedef struct MjCopy {
    char *from, *to; /* (workers, COPY_BLOCK) */
} MjCopy;

static void copy_block(void *user, int task, int worker)
{
    (void)worker;
    MjCopy *c = user;
    memcpy(c->to + (size_t)task * COPY_BLOCK, c->from + (size_t)task * COPY_BLOCK, COPY_BLOCK);
}

/* The best of a few rounds: another process can only make it slower. */
static double copy_rate(int workers)
{
    if (workers > 8) workers = 8; /* 1 GiB; more cores add nothing to what memory gives */
    MjPool *pool = mj_pool_open(workers);
    size_t bytes = (size_t)workers * COPY_BLOCK;
    MjCopy c = {.from = mj_xmalloc(bytes), .to = mj_xmalloc(bytes)};
    memset(c.from, 1, bytes);
    memset(c.to, 2, bytes);
    double best = 0;
    for (int i = 0; i < 5; i++) {
        uint64_t begin = mj_clock_ns();
        mj_pool_run(pool, workers, copy_block, &c);
        double rate = 2.0 * (double)bytes / ((double)(mj_clock_ns() - begin) * 1e-9);
        if (rate > best) best = rate;
    }
    free(c.from);
    free(c.to);
    mj_pool_close(pool);
    return best;
}

int mj_bench_machine(MjBench *b, MjMachine *out, MjError *err)
{
    int rc = 0;
    void *scratch = NULL;
    if (!b->measured) {
        const MjDeviceInfo *info = b->device->ops->info(b->device);
        const double none = (double)NAN;
        MjMachine m = {.bf16_flops = none, .fp8_flops = none, .bf16_peak = none, .fp8_peak = none, .copy_bytes = none};
        if (strcmp(info->kind, "cpu") == 0) {
            MJ_TRY(b->device->ops->alloc(b->device, mj_peak_scratch_bytes(b->device), "peak", &scratch, err));
            for (int i = 0; i < 3; i++) { /* as above: the best round is the machine's */
                double rate = 0;
                MJ_TRY(mj_peak_measure(b->device, b->jit, scratch, &rate, err));
                if (!(m.bf16_flops >= rate)) m.bf16_flops = rate;
            }
            m.copy_bytes = copy_rate(info->units);
        } else {
            MJ_TRY(mj_bench_machine_cuda(&b->ops, b->lt, b->options.seconds, &m, err));
        }
        m.openblas = mj_bench_openblas_found();
        b->machine = m;
        b->measured = true;
    }
    *out = b->machine;
out:
    if (scratch != NULL) b->device->ops->free(b->device, scratch);
    return rc;
}

static bool is_fp8(MjOpId id, const void *args)
{
    return id == MJ_OP_GEMM && ((const MjGemmArgs *)args)->a_type != MJ_T_BF16;
}

static void rate(const MjMachine *m, bool fp8, bool cpu, MjBenchResult *r)
{
    const double peak = fp8 ? m->fp8_peak : m->bf16_peak, measured = fp8 && !cpu ? m->fp8_flops : m->bf16_flops;
    const double can = isfinite(measured) ? measured : peak, rate = r->flops / r->time.median_s;
    const double flops = r->flops > 0 ? 100.0 * rate / can : (double)NAN;
    const double bytes = r->bytes > 0 ? 100.0 * r->bytes / r->time.median_s / m->copy_bytes : (double)NAN;
    const bool of_flops = isfinite(flops) && !(bytes > flops);
    r->percent = of_flops ? flops : bytes;
    r->percent_of = !of_flops ? "copy" : cpu ? "dot" : !isfinite(measured) ? "peak" : fp8 ? "fp8" : "bf16";
    r->percent_of_peak = r->flops > 0 ? 100.0 * rate / peak : (double)NAN;
}

/* What the library can't do, or does wrong, is said and is no baseline; the op's own time stands. */
static int beside_cublaslt(MjBench *b, MjCase *c, MjBenchResult *r, MjError *err)
{
    int rc = mj_bench_cublaslt(b->lt, &b->ops, c, b->options.seconds, &r->library_s, r->library, sizeof r->library, err);
    if (rc == 0 && r->library[0] != '\0') {
        bool same = false;
        rc = mj_bench_cublaslt_bits(b->lt, &b->ops, c, &same, err);
        if (rc == 0) r->library_same_bits = same;
        if (rc == MJ_ERR_MISSING) {
            mj_error_clear(err);
            rc = 0;
        }
        return rc;
    }
    if (rc != MJ_ERR_MISSING && rc != MJ_ERR_NUMERIC) return rc;
    say(b, err->message);
    mj_error_clear(err);
    r->library_s = (double)NAN;
    r->library[0] = '\0';
    return 0;
}

int mj_bench_op(MjBench *b, MjOpId id, const MjOpShape *shape, MjBenchResult *out, MjError *err)
{
    int rc = 0;
    MjCase *c = NULL;
    MjStr line = MJ_STR_INIT;
    MjMachine machine;
    MjBenchResult r = {.library_same_bits = -1, .library_s = (double)NAN, .reference_s = (double)NAN};
    MJ_TRY(mj_bench_machine(b, &machine, err));
    MJ_TRY(mj_case_open(&b->ops, id, shape, 1, &c, err));
    if (mj_case_is_large(c)) mj_case_sample(c);
    r.sampled = mj_case_sampled(c);
    MJ_TRY(mj_case_run(c, err));
    rc = mj_case_verify(c, b->options.mode->name, &line, err);
    if (rc == MJ_ERR_NUMERIC) rc = mj_error(err, MJ_ERR_NUMERIC, "not timed, its check fails: %s", mj_str_text(&line));
    if (rc != 0) goto out;
    MJ_TRY(mj_case_time(c, b->options.seconds, &r.time, err));
    r.flops = mj_case_flops(c);
    r.bytes = mj_case_bytes(c);
    if (!r.sampled) r.reference_s = mj_case_reference_s(c);
    const MjDeviceInfo *info = b->device->ops->info(b->device);
    const bool cpu = strcmp(info->kind, "cpu") == 0;
    rate(&machine, is_fp8(id, mj_case_args(c)), cpu, &r);
    if (id == MJ_OP_GEMM && cpu) {
        r.library_s = mj_bench_openblas(mj_case_args(c), info->units, b->options.seconds);
        snprintf(r.library, sizeof r.library, "OpenBLAS f32");
    }
    if (id == MJ_OP_GEMM && b->lt != NULL) MJ_TRY(beside_cublaslt(b, c, &r, err));
    *out = r;
out:
    mj_case_close(c);
    mj_str_free(&line);
    return rc;
}

int mj_bench_lookup(MjBench *b, double *ns, MjError *err)
{
    int rc = 0;
    const MjTemplate *t = NULL;
    const MjLaunchRecord *record = NULL;
    MJ_TRY(mj_jit_template(b->jit, "rmsnorm_fwd", &t, err));
    MjRequest req = {.tmpl = t};
    for (int i = 0; i < t->n_params; i++) {
        const MjParam *p = &t->params[i];
        req.values[i] = p->n_values > 0 ? p->values[0] : p->multiple * ((p->min > 256 ? p->min : 256) / p->multiple);
    }
    MJ_TRY(mj_jit_get(b->jit, &req, &record, err));
    enum { ROUNDS = 15, GETS = 100000 };
    double round[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t begin = mj_clock_ns();
        for (int k = 0; k < GETS; k++) MJ_TRY(mj_jit_get(b->jit, &req, &record, err));
        round[i] = (double)(mj_clock_ns() - begin) / GETS;
    }
    *ns = mj_median(round, ROUNDS);
out:
    return rc;
}
