/* Cases: one op at one shape with random inputs, its double-precision reference and sentinels around every buffer. The
 * one driver behind tests/check_ops.c and `mojit bench`, which refuses to time an op whose check fails.
 *
 *   MjCase *c;
 *   mj_case_open(&ops, id, &mj_op_bench_shapes(id)[i], seed, &c, err);
 *   if (mj_case_is_large(c)) mj_case_sample(c);
 *   mj_case_run(c, err);               launch once, synchronised
 *   mj_case_verify(c, line, err);      MJ_ERR_NUMERIC and one FAIL line when the results differ
 *   mj_case_time(c, 0.3, &t, err);     median and spread of many launches
 *   mj_case_close(c);
 */
#ifndef MJ_OPS_CHECK_H
#define MJ_OPS_CHECK_H

#include "ops/ops.h"
#include "runtime/base/str.h"

/* Named numbers; an op reads those that concern it. Lists end with tokens < 0. */
typedef struct MjOpShape {
    int32_t tokens, live, width, heads, head_dim, window, vocab, vocab_used, experts, top_k, capacity;
    int32_t rows, cols, out, in;                              /* matrices; routed: rows 0 = what the layout needs */
    int32_t m, n, k, layout, group, a_type, b_type, c_type, scale_mode, epilogue, q_type, x_type, transform, kmajor, gated, piece;
    int32_t route;                                            /* 0 random, 1 one expert takes every token, 2 odd experts empty */
    int32_t only;                                             /* a variant of the op's optional buffers; see its fill function */
    int32_t count;                                            /* elements of flat ops */
} MjOpShape;

const MjOpShape *mj_op_check_shapes(MjOpId id); /* odd, empty, one-sided; small */
const MjOpShape *mj_op_bench_shapes(MjOpId id); /* realistic */
const MjOpShape *mj_op_gpu_bench_shapes(MjOpId id); /* of a size that fills a data-centre GPU */

/* "tokens=17,experts=5": what is not 0. mj_shape_parse changes the named numbers of *shape; unknown names suggest. */
void mj_shape_text(const MjOpShape *shape, MjStr *out);
int mj_shape_parse(const char *text, MjOpShape *shape, MjError *err) MJ_MUST_CHECK;

typedef struct MjCase MjCase;
typedef struct MjTiming {
    double median_s, low_s, high_s; /* of one launch; 10th and 90th percentile */
    int runs;
} MjTiming;

/* Allocates on the ops' device; inputs depend on the shape and the seed alone. */
int mj_case_open(MjOps *ops, MjOpId id, const MjOpShape *shape, uint64_t seed, MjCase **out, MjError *err) MJ_MUST_CHECK;
void mj_case_close(MjCase *c); /* NULL is fine */
int mj_case_run(MjCase *c, MjError *err) MJ_MUST_CHECK;   /* buffers reset, one launch, synchronised */
/* Against the reference (computed once), after mj_case_run. `line` gets "name[mode](shape) seed=… buffer at […]: want …
 * got … tol …" on failure, with MJ_ERR_NUMERIC. `mode` is only printed. */
int mj_case_verify(MjCase *c, const char *mode, MjStr *line, MjError *err) MJ_MUST_CHECK;
/* From here on only samples are checked: about 24 rows (or blocks of rows) of every output with the first and the last, or
 * 1024 elements of a GEMM, each in another tile. For shapes whose reference would take minutes. Before mj_case_verify. */
void mj_case_sample(MjCase *c);
bool mj_case_sampled(const MjCase *c);
bool mj_case_is_large(const MjCase *c); /* so large that only samples should be checked */
/* On a GPU: by events around each launch, with the L2 cache flushed before it (a buffer of twice its size is written, then
 * read, so that no dirty line is left to be written back). On a CPU: by the clock, with warm caches. */
int mj_case_time(MjCase *c, double seconds, MjTiming *out, MjError *err) MJ_MUST_CHECK;

/* The timer itself, for what is no op: a copy, a library's product. `launch` enqueues one run on the device's stream. */
typedef struct MjGpuTimer MjGpuTimer;
int mj_gpu_timer_open(MjOps *ops, MjGpuTimer **out, MjError *err) MJ_MUST_CHECK;
void mj_gpu_timer_close(MjGpuTimer *t); /* NULL is fine */
int mj_gpu_timer_run(MjGpuTimer *t, int (*launch)(void *user, MjError *err), void *user, double seconds, MjTiming *out,
                     MjError *err) MJ_MUST_CHECK;

double mj_case_flops(const MjCase *c);
double mj_case_bytes(const MjCase *c);        /* that must be moved at least */
double mj_case_reference_s(MjCase *c);        /* time of the plain reference on one core; computes it if need be */
const void *mj_case_args(const MjCase *c);      /* as launched; e.g. const MjGemmArgs * */
const void *mj_case_host_args(const MjCase *c); /* the same with pointers to the inputs on the host */
int mj_case_reset(MjCase *c, MjError *err) MJ_MUST_CHECK; /* buffers as before the first launch, synchronised */

/* Opens, runs, verifies, closes one check shape. */
int mj_op_check(MjOps *ops, MjOpId id, const MjOpShape *shape, uint64_t seed, const char *mode, MjStr *line, MjError *err) MJ_MUST_CHECK;

#endif
