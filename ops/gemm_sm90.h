/* Hopper's GEMMs through TMA and wgmma (kernels_src/gemm*_sm90.cu) as rows of gemm_matrix in op_matrix.c. Private to ops/. */
#ifndef MJ_OPS_GEMM_SM90_H
#define MJ_OPS_GEMM_SM90_H

#include "ops/op_row.h"

/* The template for a product, or NULL where TMA can't take it: rows that are no multiple of 16 bytes, operands that are not
 * stored as the family wants them (see mj_adapt_gemm). */
const char *mj_gemm_sm90_template(const MjGemmArgs *args);

extern const MjOpMatrix mj_gemm_sm90, mj_gemm_tn_sm90;

#endif
