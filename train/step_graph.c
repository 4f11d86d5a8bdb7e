/* Capturing and replaying the pieces of a step. */
#include "train/step_graph.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "runtime/base/mem.h"

void mj_step_graphs_open(MjStepGraphs *g, bool enabled) {
    *g = (MjStepGraphs){.enabled = enabled, .keep = MJ_STEP_GRAPHS, .keep_nodes = MJ_STEP_GRAPH_NODES,
                          .whole_nodes = MJ_STEP_WHOLE_NODES};
}

static void drop(MjStepPiece *p, MjDevice *device) {
    if (p->graph != NULL) device->ops->graph_destroy(device, p->graph);
    p->graph = NULL;
    p->nodes = 0;
}

void mj_step_graphs_close(MjStepGraphs *g, MjDevice *device) {
    for (int i = 0; i < g->n; i++) {
        drop(&g->pieces[i], device);
        free(g->pieces[i].padded);
    }
    g->n = 0;
}

static bool in_use(const MjStepGraphs *g, const MjOps *ops) {
    return g->enabled && ops->device->ops->info(ops->device)->graphs && !ops->profile && !ops->check_finite;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

static MjStepPiece *find(MjStepGraphs *g, MjPieceName name) {
    for (int i = 0; i < g->n; i++) {
        MjStepPiece *p = &g->pieces[i];
        if (p->n == name.n && p->variant == name.variant && memcmp(p->padded, name.padded, (size_t)name.n * sizeof *p->padded) == 0) return p;
    }
    return NULL;
}

/* A row for it; it may take the place of the one that was not used for longest. */
static MjStepPiece *find_or_add(MjStepGraphs *g, MjDevice *device, MjPieceName name) {
    MjStepPiece *p = find(g, name);
    if (p != NULL) return p;
    if (g->n < g->keep) {
        p = &g->pieces[g->n++];
        p->padded = NULL;
    } else {
        p = &g->pieces[0];
        for (int i = 1; i < g->n; i++)
            if (g->pieces[i].used < p->used) p = &g->pieces[i];
        drop(p, device);
    }
    const size_t bytes = (size_t)name.n * sizeof *name.padded;
    int32_t *padded = mj_xrealloc(p->padded, bytes);
    memcpy(padded, name.padded, bytes);
    *p = (MjStepPiece){.padded = padded, .n = name.n, .variant = name.variant, .generation = UINT64_MAX};
    return p;
}

/* Too many nodes in all: the graphs that were not used for longest go; never the one that was used last. */
static void make_room(MjStepGraphs *g, MjDevice *device) {
    for (;;) {
        uint64_t nodes = 0;
        MjStepPiece *oldest = NULL;
        for (int i = 0; i < g->n; i++) {
            MjStepPiece *p = &g->pieces[i];
            nodes += p->nodes;
            if (p->graph != NULL && p->used != g->clock && (oldest == NULL || p->used < oldest->used)) oldest = p;
        }
        if (nodes <= g->keep_nodes || oldest == NULL) return;
        drop(oldest, device);
    }
}

/* ---- whole steps ------------------------------------------------------------------------------------------------- */

bool mj_step_graphs_whole(MjStepGraphs *g, MjOps *ops, MjPieceName step) {
    const uint64_t generation = mj_jit_generation(ops->jit), nodes_before = g->step_nodes;
    bool again = false;
    g->step++;
    g->step_nodes = 0;
    if (step.n == 1 || !in_use(g, ops)) return true; /* its micro-batch is the whole step; or nothing is captured */
    MjStepPiece *p = find(g, step);
    if (p != NULL && p->graph != NULL && p->generation == generation) return true;
    if (nodes_before > g->whole_nodes) return false;
    const uint64_t hash = XXH3_64bits_withSeed(step.padded, (size_t)step.n * sizeof *step.padded, generation << 8 | (uint64_t)step.variant);
    for (int i = 0; i < MJ_STEP_RECENT; i++) again = again || g->recent[i] == hash;
    g->recent[g->step % MJ_STEP_RECENT] = hash;
    if (!again) return false;
    p = find_or_add(g, ops->device, step);
    if (p->generation != generation) drop(p, ops->device); /* of kernels that were swapped since */
    p->generation = generation; /* its micro-batches were launched a few steps ago: every kernel is ready */
    return true;
}

/* ---- pieces ------------------------------------------------------------------------------------------------------- */

static int capture(MjStepPiece *p, MjDevice *device, int (*work)(void *, MjError *), void *user, MjError *err) {
    int64_t tokens = 0;
    int rc = device->ops->graph_begin(device, err);
    if (rc != 0) return rc;
    rc = work(user, err);
    if (rc == 0) rc = device->ops->graph_end(device, &p->graph, err);
    else (void)device->ops->graph_end(device, NULL, NULL); /* what went wrong first is what to report */
    for (int32_t i = 0; i < p->n; i++) tokens += p->padded[i];
    if (rc != 0)
        return mj_error_context(err, rc, "capturing %d micro-batch%s, %lld tokens (run.graphs = false does without)", p->n,
                                p->n == 1 ? "" : "es", (long long)tokens);
    return 0;
}

static uint64_t handed_over(MjDevice *device) {
    MjDeviceCounters c;
    device->ops->counters(device, &c);
    return c.launches + c.graph_nodes;
}

int mj_step_graphs_run(MjStepGraphs *g, MjOps *ops, MjPieceName piece, int (*work)(void *user, MjError *err), void *user,
                       MjError *err) {
    MjDevice *device = ops->device;
    int rc = 0;
    if (!in_use(g, ops)) return work(user, err);
    const uint64_t generation = mj_jit_generation(ops->jit), before = handed_over(device);
    MjStepPiece *p = find_or_add(g, device, piece);
    p->used = ++g->clock;
    if (p->generation != generation) {
        drop(p, device);
        p->generation = generation;
        p->step = g->step;
    }
    if (p->graph == NULL && p->step == g->step) { /* also when this very step met it before: the next one may be whole */
        MJ_TRY(work(user, err));
    } else {
        if (p->graph == NULL) {
            MJ_TRY(capture(p, device, work, user, err));
            g->captured++;
        }
        MJ_TRY(device->ops->graph_launch(device, p->graph, err));
        p->nodes = handed_over(device) - before;
        make_room(g, device);
    }
    g->step_nodes += handed_over(device) - before;
out:
    return rc;
}
