/* Where the time of launches goes, by op: by the clock on a device whose calls have finished when they return, by pairs of
 * events on a GPU, which are read in one go when the step is over. Private to ops/, but for MjOpProfile in ops.h. */
#ifndef MJ_OPS_OP_PROFILE_H
#define MJ_OPS_OP_PROFILE_H

#include "ops/op_row.h"

/* Around the launches of one op, when ops->profile is on. */
int mj_profile_begin(MjOps *ops, MjError *err) MJ_MUST_CHECK;
int mj_profile_end(MjOps *ops, const MjOpRow *row, const void *args, MjError *err) MJ_MUST_CHECK;

#endif
