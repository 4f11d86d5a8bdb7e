/* The launches of a step as graphs. A piece (a micro-batch of one padded size, with what comes before and after it, or a
 * whole step of several) is launched one by one when it is met first, so that all its kernels are compiled, loaded and opted
 * in; captured when it is met again; and replayed from then on. A piece whose kernels were swapped (tiered) starts anew.
 *
 * A step of several micro-batches is one graph as soon as the padded sizes of its micro-batches come again. Until then it runs
 * micro-batch by micro-batch: sizes that never come in the same order again (data.packing = docs) cost no captures of whole
 * steps, and are replayed from the graphs of their micro-batches.
 * Owns the captured graphs; knows nothing of what is in them. One thread.
 */
#ifndef MJ_TRAIN_STEP_GRAPH_H
#define MJ_TRAIN_STEP_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "ops/ops.h"

#define MJ_STEP_GRAPHS 64           /* kept at a time: the one not used for longest goes first */
#define MJ_STEP_GRAPH_NODES 65536   /* kept at a time, in all of them; each holds a copy of its arguments, on the device too */
#define MJ_STEP_WHOLE_NODES 32768   /* of one graph: a step of more stays in micro-batches */
#define MJ_STEP_RECENT 16           /* steps back: for so long the sizes of a step are remembered */

/* What names a piece: for the same name, the same kernels must be launched with the same arguments. */
typedef struct MjPieceName {
    const int32_t *padded; /* (n) of its micro-batches; copied */
    int32_t n;
    int32_t variant;
} MjPieceName;

typedef struct MjStepPiece {
    int32_t *padded; /* (n) */
    int32_t n, variant;
    uint64_t generation; /* of the JIT's answers when it was last launched one by one */
    uint64_t step;       /* in which that was */
    uint64_t used;
    uint64_t nodes;
    MjGraph *graph;      /* NULL: not captured yet */
} MjStepPiece;

typedef struct MjStepGraphs {
    bool enabled;
    uint64_t clock, step, captured; /* captured: in all */
    uint64_t step_nodes;            /* launches and nodes of the step before; of the one at work until now */
    uint64_t recent[MJ_STEP_RECENT]; /* hashes of the last steps' sizes, and the JIT's generation */
    int n, keep;                    /* keep: at most MJ_STEP_GRAPHS */
    uint64_t keep_nodes;            /* at most MJ_STEP_GRAPH_NODES */
    uint64_t whole_nodes;           /* MJ_STEP_WHOLE_NODES */
    MjStepPiece pieces[MJ_STEP_GRAPHS];
} MjStepGraphs;

void mj_step_graphs_open(MjStepGraphs *g, bool enabled);
void mj_step_graphs_close(MjStepGraphs *g, MjDevice *device); /* device may be NULL when nothing was captured */

/* A step begins. Whether it is to be one piece; false: a piece for each micro-batch. */
bool mj_step_graphs_whole(MjStepGraphs *g, MjOps *ops, MjPieceName step);

/* Has the device do what `work` launches. Without graphs (device, setting, profiling, looking for a NaN) just calls it. */
int mj_step_graphs_run(MjStepGraphs *g, MjOps *ops, MjPieceName piece, int (*work)(void *user, MjError *err), void *user,
                       MjError *err) MJ_MUST_CHECK;

#endif
