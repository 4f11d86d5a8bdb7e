/* The matrix kernels of a target as runs ask for them: every realistic shape of every op that has matrix templates, with the
 * tiles that are chosen for it and the launch that follows. Needs no device: what the compile gate compiles and what
 * `mojit kernels --target` prints. */
#ifndef MJ_OPS_MATRIX_LIST_H
#define MJ_OPS_MATRIX_LIST_H

#include "ops/card.h"
#include "ops/op_row.h"

typedef struct MjMatrixKernel {
    MjOpId op;
    const MjOpShape *shape;
    const MjOpMatrix *matrix;
    MjRequest asked, chosen;
    MjOpGeometry geometry; /* grid, block and cluster of the first entry point; the most shared memory of any */
} MjMatrixKernel;

/* One op at one shape; `args` (MJ_MAX_ARG_BYTES) gets its argument struct, without buffers. MJ_ERR_MISSING when the family has no
 * template for it, MJ_ERR_USAGE when its template does not take the shape. */
int mj_matrix_kernel(MjOps *ops, MjOpId op, const MjOpShape *shape, void *args, MjMatrixKernel *out, MjError *err) MJ_MUST_CHECK;

/* All of them, one for each set of values; *out is malloc'd. `missing` gets a clause for each list of shapes that lack a template. */
int mj_matrix_kernels(MjOps *ops, MjMatrixKernel **out, int *n, MjStr *missing, MjError *err) MJ_MUST_CHECK;

#endif
