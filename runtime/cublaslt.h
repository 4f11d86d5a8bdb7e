/* cuBLASLt, opened at run time: dense products on a cuda device's stream, in bf16 and fp8. The baseline of `mojit bench`, and
 * what a run's dense layers may use. Owns the handle, its workspace and the plans, of which there is one for each shape.
 *
 * Types and values follow the public "cuBLAS" reference (cublasLt, 12.0 and later). One MjBlasLt belongs to one device and
 * one thread. Everything that allocates or asks the heuristic happens at the first product of a shape; after that a product
 * only enqueues, so that it may be captured into a graph.
 */
#ifndef MJ_RUNTIME_CUBLASLT_H
#define MJ_RUNTIME_CUBLASLT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"
#include "runtime/device.h"

typedef enum MjLtType { MJ_LT_BF16, MJ_LT_E4M3, MJ_LT_E5M2, MJ_LT_F32 } MjLtType; /* the numbers of MJ_T_* */
typedef enum MjLtScale {
    MJ_LT_SCALE_NONE,
    MJ_LT_SCALE_TENSOR, /* one f32 */
    MJ_LT_SCALE_ROWS,   /* 1 x 128 along K: (K/128, rows), rows contiguous; from cuBLASLt 12.9 on, Hopper */
    MJ_LT_SCALE_BLOCKS  /* 128 x 128: (rows/128, K/128), K contiguous, K/128 a multiple of 4; likewise */
} MjLtScale;

typedef struct MjLtGemm { /* row-major C(m, n) = A B, or C += A B, summed over k in f32 */
    const void *a, *b;
    void *c;                         /* leading dimension n */
    const float *a_scale, *b_scale;  /* device pointers */
    int64_t m, n, k, a_ld, b_ld;     /* ld in elements */
    bool a_across, b_across;         /* stored with k as the slow dimension: A (k, m), B (k, n). Not for fp8 */
    MjLtType a_type, b_type, c_type; /* C: bf16 or f32 */
    MjLtScale a_scaling, b_scaling;  /* not both BLOCKS */
    bool accumulate;                 /* C is f32 */
    bool fast;                       /* fp8: the short accumulator throughout */
    int64_t pin_m, pin_k;            /* not 0: the algorithm is the one for these m and k, without a split of k, so that fewer
                                      * rows take the very same one. MJ_ERR_MISSING where it can't do them */
} MjLtGemm;

#define MJ_BLASLT_WORKSPACE_BYTES ((size_t)32 << 20) /* what the reference recommends for Hopper */

typedef struct MjBlasLt MjBlasLt;

/* Whether there is a library that can be used, and its version; needs no device. MJ_ERR_MISSING as below. */
int mj_blaslt_find(int *version, MjError *err) MJ_MUST_CHECK;

/* MJ_ERR_MISSING, with what to install: no library, one older than 12.0, or not a cuda device. */
int mj_blaslt_open(MjDevice *dev, MjBlasLt **out, MjError *err) MJ_MUST_CHECK;
void mj_blaslt_close(MjBlasLt *lt); /* NULL is fine; waits for the device */
int mj_blaslt_version(const MjBlasLt *lt); /* 130100 = 13.1 */
/* Enqueues. MJ_ERR_MISSING: cuBLASLt has no algorithm for this (say, block scales before 12.9). */
int mj_blaslt_gemm(MjBlasLt *lt, const MjLtGemm *g, MjError *err) MJ_MUST_CHECK;
/* The same without enqueueing: makes the plan. */
int mj_blaslt_prepare(MjBlasLt *lt, const MjLtGemm *g, MjError *err) MJ_MUST_CHECK;

#endif
