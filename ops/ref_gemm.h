/* Double-precision reference of the GEMM. */
#ifndef MJ_OPS_REF_GEMM_H
#define MJ_OPS_REF_GEMM_H

#include "kernels_src/kernel_args.h"

/* Elements of C: (M, N), or (E, M, N) for GROUP_K. */
int64_t mj_ref_gemm_size(const MjGemmArgs *g);

/* c(size): the values that C must have after the launch, from C as it is before (it is read when accumulating, never
 * written). size(size): the sum of the magnitudes that each value was made of. cut(size): the expected square of what a
 * tensor core's short fp8 accumulator loses; 0 where sums are in f32. Rows at and after offset[E] are left as they are in
 * all three. All pointers of `g` are host pointers. */
void mj_ref_gemm(const MjGemmArgs *g, double *c, double *size, double *cut);

/* One element of what mj_ref_gemm gives: of group `e` (0 unless grouped), row `row` of C (of its group's C for GROUP_K),
 * column `col`. The row must belong to the group. */
void mj_ref_gemm_element(const MjGemmArgs *g, int64_t e, int64_t row, int64_t col, double *value, double *size,
                         double *cut);

/* How far a result may be from `value`: from the accumulator's type, the depth, what is cut off (six times its expected
 * size: one in 10^8 results), and the rounding of C's type. */
double mj_ref_gemm_tolerance(const MjGemmArgs *g, double value, double size, double cut);

#endif
