/* Capturing and replaying the pieces of a step. */
#include "train/step_graph.h"

void mj_step_graphs_open(MjStepGraphs *g, bool enabled) {
    *g = (MjStepGraphs){.enabled = enabled, .keep = MJ_STEP_GRAPHS};
}

static void drop(MjStepPiece *p, MjDevice *device) {
    if (p->graph != NULL) device->ops->graph_destroy(device, p->graph);
    p->graph = NULL;
}

void mj_step_graphs_close(MjStepGraphs *g, MjDevice *device) {
    for (int i = 0; i < g->n; i++) drop(&g->pieces[i], device);
    g->n = 0;
}

/* The piece's row; a new one may take the place of the one that was not used for longest. */
static MjStepPiece *find(MjStepGraphs *g, MjDevice *device, int32_t padded, int32_t variant) {
    MjStepPiece *oldest = &g->pieces[0];
    for (int i = 0; i < g->n; i++) {
        MjStepPiece *p = &g->pieces[i];
        if (p->padded == padded && p->variant == variant) return p;
        if (p->used < oldest->used) oldest = p;
    }
    MjStepPiece *p = g->n < g->keep ? &g->pieces[g->n++] : oldest;
    drop(p, device);
    *p = (MjStepPiece){.padded = padded, .variant = variant, .generation = UINT64_MAX};
    return p;
}

static int capture(MjStepPiece *p, MjDevice *device, int (*work)(void *, MjError *), void *user, MjError *err) {
    int rc = device->ops->graph_begin(device, err);
    if (rc != 0) return rc;
    rc = work(user, err);
    if (rc == 0) rc = device->ops->graph_end(device, &p->graph, err);
    else (void)device->ops->graph_end(device, NULL, NULL); /* what went wrong first is what to report */
    if (rc != 0) return mj_error_context(err, rc, "capturing a step of %d tokens (run.graphs = false does without)", p->padded);
    return 0;
}

int mj_step_graphs_run(MjStepGraphs *g, MjOps *ops, int32_t padded, int32_t variant, int (*work)(void *user, MjError *err),
                       void *user, MjError *err) {
    MjDevice *device = ops->device;
    if (!g->enabled || !device->ops->info(device)->graphs || ops->profile || ops->check_finite) return work(user, err);
    const uint64_t generation = mj_jit_generation(ops->jit);
    MjStepPiece *p = find(g, device, padded, variant);
    p->used = ++g->clock;
    if (p->generation != generation) {
        drop(p, device);
        p->generation = generation;
        return work(user, err);
    }
    if (p->graph == NULL) {
        int rc = capture(p, device, work, user, err);
        if (rc != 0) return rc;
        g->captured++;
    }
    return device->ops->graph_launch(device, p->graph, err);
}
