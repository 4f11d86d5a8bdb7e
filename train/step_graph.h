/* The launches of a step as graphs: each piece of a step (a micro-batch of one padded size, with what comes before and after
 * it) is launched one by one when it is met first, so that all its kernels are compiled, loaded and opted in; captured when
 * it is met again; and replayed from then on. A piece whose kernels were swapped (tiered) starts anew.
 * Owns the captured graphs; knows nothing of what is in them. One thread.
 */
#ifndef MJ_TRAIN_STEP_GRAPH_H
#define MJ_TRAIN_STEP_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "ops/ops.h"

#define MJ_STEP_GRAPHS 64 /* kept at a time: the one not used for longest goes first */

typedef struct MjStepPiece {
    int32_t padded, variant;
    uint64_t generation;     /* of the JIT's answers when it was last launched one by one */
    uint64_t used;
    MjGraph *graph;          /* NULL: not captured yet */
} MjStepPiece;

typedef struct MjStepGraphs {
    bool enabled;
    uint64_t clock, captured; /* captured: in all */
    int n, keep;              /* keep: at most MJ_STEP_GRAPHS */
    MjStepPiece pieces[MJ_STEP_GRAPHS];
} MjStepGraphs;

void mj_step_graphs_open(MjStepGraphs *g, bool enabled);
void mj_step_graphs_close(MjStepGraphs *g, MjDevice *device); /* device may be NULL when nothing was captured */

/* Has the device do what `work` launches. `padded` and `variant` name the piece: for the same two, `work` must launch the
 * same kernels with the same arguments. Without graphs (device, setting, profiling, looking for a NaN) just calls `work`. */
int mj_step_graphs_run(MjStepGraphs *g, MjOps *ops, int32_t padded, int32_t variant, int (*work)(void *user, MjError *err),
                       void *user, MjError *err) MJ_MUST_CHECK;

#endif
