/* Events and graphs of the cuda device. */
#include <stdlib.h>

#include "runtime/base/mem.h"
#include "runtime/cuda_device.h"

struct MjEvent {
    MjCuEvent event;
};

struct MjGraph {
    MjCuGraphExec exec;
    uint64_t nodes;
};

int mj_cuda_event_create(MjDevice *dev, MjEvent **out, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    MjCuEvent event = NULL;
    int rc;
    MJ_TRY(mj_cuda_make_current(d, err));
    CU(d, EventCreate(&event, 0), NULL);
    MjEvent *e = mj_xmalloc(sizeof *e);
    e->event = event;
    *out = e;
out:
    return rc;
}

void mj_cuda_event_destroy(MjDevice *dev, MjEvent *ev) {
    CudaDevice *d = mj_cuda_device(dev);
    if (ev == NULL) return;
    if (mj_cuda_make_current(d, NULL) == 0) (void)d->cu->EventDestroy(ev->event);
    free(ev);
}

int mj_cuda_event_record(MjDevice *dev, MjEvent *ev, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    int rc;
    MJ_TRY(mj_cuda_make_current(d, err));
    d->after_kernel = false;
    CU(d, EventRecord(ev->event, d->stream), NULL);
out:
    return rc;
}

int mj_cuda_event_elapsed(MjDevice *dev, MjEvent *from, MjEvent *to, double *ms, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    float value = 0.0f;
    int rc;
    MJ_TRY(mj_cuda_make_current(d, err));
    d->counters.waits++;
    CU(d, EventSynchronize(to->event), NULL);
    CU(d, EventElapsedTime(&value, from->event, to->event), NULL);
    *ms = (double)value;
out:
    return rc;
}

int mj_cuda_graph_begin(MjDevice *dev, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    int rc;
    MJ_TRY(mj_cuda_refuse_in_capture(d, "graph_begin", err));
    MJ_TRY(mj_cuda_make_current(d, err));
    CU(d, StreamBeginCapture(d->stream, MJ_CU_CAPTURE_THREAD_LOCAL), NULL);
    d->capturing = true;
    d->after_kernel = false;
out:
    return rc;
}

int mj_cuda_graph_end(MjDevice *dev, MjGraph **out, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    MjCuGraph graph = NULL;
    MjCuGraphExec exec = NULL;
    size_t nodes = 0;
    int rc;
    if (!d->capturing) return mj_error(err, MJ_ERR_USAGE, "graph_end: no graph is being captured; call graph_begin first");
    d->capturing = d->after_kernel = false;
    MJ_TRY(mj_cuda_make_current(d, err));
    CU(d, StreamEndCapture(d->stream, &graph), NULL);
    if (out == NULL) goto out;
    CU(d, GraphGetNodes(graph, NULL, &nodes), NULL);
    CU(d, GraphInstantiateWithFlags(&exec, graph, 0), NULL);
    MjGraph *g = mj_xmalloc(sizeof *g);
    *g = (MjGraph){.exec = exec, .nodes = nodes};
    *out = g;
out:
    mj_cuda_free_dropped(d);
    if (graph != NULL) (void)d->cu->GraphDestroy(graph); /* the executable graph lives on */
    return rc;
}

int mj_cuda_graph_launch(MjDevice *dev, MjGraph *graph, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    int rc;
    MJ_TRY(mj_cuda_make_current(d, err));
    d->after_kernel = false;
    CU(d, GraphLaunch(graph->exec, d->stream), NULL);
    d->counters.graph_launches++;
    d->last_graph = graph->nodes;
    d->counters.graph_nodes += graph->nodes;
out:
    return rc;
}

void mj_cuda_graph_destroy(MjDevice *dev, MjGraph *graph) {
    CudaDevice *d = mj_cuda_device(dev);
    if (graph == NULL) return;
    if (mj_cuda_make_current(d, NULL) == 0) (void)d->cu->GraphExecDestroy(graph->exec);
    free(graph);
}
