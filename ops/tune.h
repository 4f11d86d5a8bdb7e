/* Measuring tuning values: an op at one shape is launched with each candidate, its bits are compared with those of the choice
 * that runs without tuning, and the fastest is kept in the cache (jit.h: mj_jit_tuned_keep). What `mojit tune` does. */
#ifndef MJ_OPS_TUNE_H
#define MJ_OPS_TUNE_H

#include "ops/check.h"
#include "ops/tile_choice.h"

typedef struct MjTuneCandidate {
    int32_t values[MJ_MAX_PARAMS];
    double model_s;     /* 0: the template has no model */
    MjTiming time;      /* median_s 0: not timed, `refused` says why */
    char refused[200];
    bool chosen;        /* what runs without tuning */
    bool explored;      /* not one of the model's: see tune_explore.h */
} MjTuneCandidate;

typedef struct MjTuned {
    MjRequest asked;
    MjTuneCandidate *candidates; /* in the model's order; then those that were tried beyond it */
    int n;
    int winner, choice;          /* indices; winner == choice where nothing is faster by more than 1 % */
} MjTuned;

typedef struct MjTuneEffort {
    int most;       /* the model's cheapest that are measured; the one that runs without tuning always is */
    bool explore;   /* also try values of the parameters that the model leaves at their defaults, from the fastest on */
    double seconds; /* for each */
} MjTuneEffort;

/* Measures candidates. The ops must be on a device. MJ_ERR_MISSING: no template; MJ_ERR_USAGE: the template has no tuning
 * parameters or does not take the shape. */
int mj_tune(MjOps *ops, MjOpId op, const MjOpShape *shape, const MjTuneEffort *effort, MjTuned *out, MjError *err) MJ_MUST_CHECK;
void mj_tuned_free(MjTuned *t);

/* Keeps the winner in the JIT's cache; later runs on this device take it. */
int mj_tune_keep(MjOps *ops, const MjTuned *t, MjError *err) MJ_MUST_CHECK;

/* The op and the shape that ask for a kernel of a plan, found from its request; false when it has no tuning parameters or
 * comes from no op. */
bool mj_tune_shape_of(MjOps *ops, const MjRequest *asked, MjOpId *op, MjOpShape *shape);

#endif
