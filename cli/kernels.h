/* What the files of `mojit kernels` and `mojit tune` share. */
#ifndef MJ_CLI_KERNELS_H
#define MJ_CLI_KERNELS_H

#include "cli/options.h"
#include "ops/check.h"
#include "runtime/base/str.h"

/* The kernels of a target, compiled on the spot or from the cache; `name` picks a template, NULL: all matrix templates. */
int mj_kernels_of_target(const MjArgs *args, const char *name, MjError *err) MJ_MUST_CHECK;
int mj_kernels_explain(const MjArgs *args, MjError *err) MJ_MUST_CHECK;

/* "gemm m=4096,n=768,k=768,experts=8" -> the op and its shape; experts without a group: the grouped product. */
int mj_kernels_parse_shape(const char *text, MjOpId *op, MjOpShape *shape, MjError *err) MJ_MUST_CHECK;
/* "TILE_M=128 TILE_N=256": values of one kind of parameters. */
void mj_kernels_values(const MjTemplate *t, const int32_t *values, MjParamKind kind, MjStr *out);

#endif
