/* Measurements: one op at one shape in one mode against its reference, against what this machine was just measured to be
 * able to do, and (GEMMs) against OpenBLAS. Owns timing; checking is ops/check.h's; prints nothing.
 *
 * One MjBench belongs to one thread.
 */
#ifndef MJ_BENCH_BENCH_H
#define MJ_BENCH_BENCH_H

#include <stdbool.h>

#include "jit/jit.h"
#include "ops/check.h"
#include "ops/ops.h"
#include "runtime/base/error.h"

typedef struct MjMachine {
    double bf16_flops;      /* bf16 dot products, all workers together; NAN where unknown */
    double copy_bytes;      /* bytes read and written a second by copying 64 MiB blocks on all workers; NAN: not measured */
    bool openblas;          /* it was found */
} MjMachine;

typedef struct MjBenchOptions {
    const char *device;     /* as mj_device_open */
    const MjMode *mode;
    MjBucket bucket;
    MjCache *cache;         /* not owned; may be NULL */
    int threads;            /* cpu workers; 0 = all */
    double seconds;         /* of timing a case */
    void (*log)(void *user, const char *line);
    void *user;
} MjBenchOptions;

typedef struct MjBench MjBench;

/* Opens the device and a JIT in the mode. */
int mj_bench_open(const MjBenchOptions *options, MjBench **out, MjError *err) MJ_MUST_CHECK;
void mj_bench_close(MjBench *b); /* NULL is fine */
/* What the machine can do: measured once for a bench; about 0.3 s. */
int mj_bench_machine(MjBench *b, MjMachine *out, MjError *err) MJ_MUST_CHECK;
MjOps *mj_bench_ops(MjBench *b);

typedef struct MjBenchResult {
    MjTiming time;
    double flops, bytes;       /* of one launch */
    double percent;            /* of the machine: the larger of FLOP/s against bf16_flops and bytes/s against copy_bytes */
    bool percent_of_flops;     /* which of the two it was */
    double reference_s;        /* the plain reference on one core */
    double openblas_s;         /* f32 sgemm of the same shape on all cores; NAN: no GEMM, or not found */
} MjBenchResult;

/* Checks, then times. A failed check is MJ_ERR_NUMERIC with the FAIL line as its message, and nothing is timed. */
int mj_bench_op(MjBench *b, MjOpId id, const MjOpShape *shape, MjBenchResult *out, MjError *err) MJ_MUST_CHECK;

/* Median time of one mj_jit_get that finds its record in memory, in nanoseconds. */
int mj_bench_lookup(MjBench *b, double *ns, MjError *err) MJ_MUST_CHECK;

/* Median seconds of the sgemm calls that do the arithmetic of `g` (its offsets must be readable); NAN when OpenBLAS is not
 * there or the shape is empty. Uses `threads` threads. */
double mj_bench_openblas(const MjGemmArgs *g, int threads, double seconds);
bool mj_bench_openblas_found(void);

#endif
