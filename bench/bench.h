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
#include "runtime/cublaslt.h"

typedef struct MjMachine { /* operations and bytes a second; NAN where not known or not measured */
    double bf16_flops;      /* cpu: bf16 dot products, all workers together. cuda: cuBLASLt's best on a large bf16 product */
    double fp8_flops;       /* cuda: likewise, e4m3 */
    double bf16_peak, fp8_peak; /* cuda: the data sheet's, dense, from the table of known cards */
    double copy_bytes;      /* read and written a second. cpu: 64 MiB blocks on all workers; cuda: a large copy on the card */
    bool openblas;          /* it was found */
    int cublaslt;           /* its version, 130100 = 13.1; 0: not found, or a cpu */
} MjMachine;

typedef struct MjBenchOptions {
    const char *device;     /* as mj_device_open */
    const MjMode *mode;
    MjBucket bucket;
    MjCache *cache;         /* not owned; may be NULL */
    int threads;            /* cpu workers; 0 = all */
    double seconds;         /* of timing a case; 0: 0.3, or 0.05 on a GPU */
    void (*log)(void *user, const char *line);
    void *user;
} MjBenchOptions;

typedef struct MjBench MjBench;

/* Opens the device and a JIT in the mode. */
int mj_bench_open(const MjBenchOptions *options, MjBench **out, MjError *err) MJ_MUST_CHECK;
void mj_bench_close(MjBench *b); /* NULL is fine */
/* What the machine can do: measured once for a bench; about 0.3 s. With events and a flushed cache on cuda, as ops are. */
int mj_bench_machine(MjBench *b, MjMachine *out, MjError *err) MJ_MUST_CHECK;
MjOps *mj_bench_ops(MjBench *b);
MjDevice *mj_bench_device(MjBench *b);

typedef struct MjBenchResult {
    MjTiming time;
    double flops, bytes;       /* of one launch */
    double percent;            /* of the machine: the larger of FLOP/s against its rate and bytes/s against copy_bytes */
    const char *percent_of;    /* "dot", "bf16", "fp8" (the measured rate), "peak" (the data sheet's, where none is measured), "copy" */
    double percent_of_peak;    /* FLOP/s against the data sheet's; NAN where unknown */
    bool sampled;              /* samples of the outputs were checked, not all elements: the shape is large */
    double reference_s;        /* the plain reference on one core; NAN when only samples were computed */
    double library_s;          /* the same product by a library on the same machine; NAN: no GEMM, or not found */
    int library_same_bits;     /* cuBLASLt's pinned algorithm with fewer rows: 1 the same, 0 other bits, -1 not looked at */
    char library[48];          /* "OpenBLAS f32", "cuBLASLt fp8 block, a call a group", ...; empty: none */
} MjBenchResult;

/* Checks, then times. A failed check is MJ_ERR_NUMERIC with the FAIL line as its message, and nothing is timed. */
int mj_bench_op(MjBench *b, MjOpId id, const MjOpShape *shape, MjBenchResult *out, MjError *err) MJ_MUST_CHECK;

/* Median time of one mj_jit_get that finds its record in memory, in nanoseconds. */
int mj_bench_lookup(MjBench *b, double *ns, MjError *err) MJ_MUST_CHECK;

/* Median seconds of the sgemm calls that do the arithmetic of `g` (its offsets must be readable); NAN when OpenBLAS is not
 * there or the shape is empty. Uses `threads` threads. */
/* Rates of a cuda device into the members of MjMachine; lt may be NULL. */
int mj_bench_machine_cuda(MjOps *ops, MjBlasLt *lt, double seconds, MjMachine *out, MjError *err) MJ_MUST_CHECK;

/* cuBLASLt's product of a gemm case: median seconds of a launch (of all groups, captured into a graph) and what it was.
 * MJ_ERR_MISSING: it has no such product. MJ_ERR_NUMERIC: its result fails the case's check. Overwrites C. */
int mj_bench_cublaslt(MjBlasLt *lt, MjOps *ops, MjCase *c, double seconds, double *median, char *name, size_t cap,
                      MjError *err) MJ_MUST_CHECK;
/* Whether the algorithm pinned to a dense case's rows gives the same bits for fewer of them (or when fewer are summed over and
 * the rest are zeros). Overwrites A and C. MJ_ERR_MISSING: not looked at, or the algorithm cannot do fewer. */
int mj_bench_cublaslt_bits(MjBlasLt *lt, MjOps *ops, MjCase *c, bool *same, MjError *err) MJ_MUST_CHECK;
/* Its best rates on large products of random data; values that it can't give are left. */
int mj_bench_cublaslt_best(MjBlasLt *lt, MjOps *ops, double seconds, double *bf16, double *fp8, MjError *err) MJ_MUST_CHECK;

double mj_bench_openblas(const MjGemmArgs *g, int threads, double seconds);
bool mj_bench_openblas_found(void);

#endif
