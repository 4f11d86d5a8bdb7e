/* The kernels of the eight-GPU configuration, as `mojit warm` plans them, without its data. */
#ifndef MJ_TESTS_EIGHT_GPU_PLAN_H
#define MJ_TESTS_EIGHT_GPU_PLAN_H

#include "jit/jit.h"

/* Opens a JIT for `target` with the mode and the shapes of the configuration in `ini`, its plan recorded; close it. The token
 * files are two that have a header and nothing else, in a folder that is gone on return. */
int mj_eight_gpu_plan(const char *ini, const char *target, MjJit **out, MjError *err) MJ_MUST_CHECK;

#endif
