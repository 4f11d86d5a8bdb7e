/* The mma.sync GEMMs (kernels_src/gemm*_sm80.cu, gemm*_sm89.cu) as rows of gemm_matrix in op_matrix.c. Private to ops/. */
#ifndef MJ_OPS_GEMM_SM80_H
#define MJ_OPS_GEMM_SM80_H

#include "ops/op_row.h"

/* The template for a product on a cuda device of `arch` (80, 89, 90, ...: mma.sync runs on all of them), or NULL where there
 * is none: fp8 below sm_89, operands that are not stored as the family wants them (see mj_adapt_gemm). */
const char *mj_gemm_sm80_template(int arch, const MjGemmArgs *args);
/* Why not, and what to do about it; NULL when there is a template. */
const char *mj_gemm_sm80_refusal(int arch, const MjGemmArgs *args);

extern const MjOpMatrix mj_gemm_sm80, mj_gemm_tn_sm80, mj_gemm_fp8_sm89, mj_gemm_tn_fp8_sm89;

#endif
