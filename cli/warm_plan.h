/* What `mojit warm --dry-run` says of a plan: each kernel, whether the cache has it, how long its compile may take; and the
 * sizes that the varying dimensions take. */
#ifndef MJ_CLI_WARM_PLAN_H
#define MJ_CLI_WARM_PLAN_H

#include "cache/cache.h"
#include "cli/table.h"
#include "jit/jit.h"

typedef struct MjWarmEstimate {
    int kernels, ready;
    double seconds; /* of compiling what is not ready, one after the other */
} MjWarmEstimate;

MjTable *mj_warm_plan_open(void);
/* Adds the plan's rows and adds to *sum. `cache` may be NULL. Also says the varying sizes through mj_term_say. */
void mj_warm_plan_add(MjTable *table, const char *run, const MjMode *mode, MjJit *jit, MjCache *cache, MjWarmEstimate *sum);

/* How many kernels of the plan the cache has. */
int mj_warm_plan_ready(MjJit *jit, MjCache *cache);

#endif
