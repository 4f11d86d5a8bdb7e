/* Steps that are captured and replayed give the bits of steps that are launched one by one: whatever differs from step to
 * step must be in device memory. The device is the cpu one, taught to record launches and fills and to refuse what needs
 * the host while it records, as a GPU does. Usage: test_step_graph FOLDER_WITH_TEXT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fixture.h"
#include "jit/jit_internal.h"
#include "runtime/base/mem.h"
#include "train/plan.h"
#include "train/step.h"

enum { STEPS = 12 };

static Fixture fixture;

/* ---- the recording device ---------------------------------------------------------------------------------- */

typedef struct Node { /* a launch, or a fill when fn is NULL */
    MjKernelFn *fn;
    MjLaunch launch;
    unsigned char args[MJ_MAX_ARG_BYTES];
    void *dst;
    int byte;
    size_t bytes;
} Node;

struct MjGraph {
    Node *nodes;
    int n, cap;
};

static MjGraph *recording;
static MjDeviceCounters counted;
static int open_graphs, refusals;

static Node *add(void) {
    MjGraph *g = recording;
    if (g->n == g->cap) {
        g->cap = g->cap == 0 ? 64 : 2 * g->cap;
        g->nodes = mj_xrealloc(g->nodes, (size_t)g->cap * sizeof *g->nodes);
    }
    g->nodes[g->n] = (Node){0};
    return &g->nodes[g->n++];
}

static int refuse(const char *what, MjError *err) {
    if (recording == NULL) return 0;
    refusals++;
    return mj_error(err, MJ_ERR_DEVICE, "%s while a graph is recorded", what);
}

static int recorded_launch(MjDevice *dev, MjKernelFn *fn, const MjLaunch *l, MjError *err) {
    if (recording == NULL) {
        counted.launches++;
        return mj_device_cpu.launch(dev, fn, l, err);
    }
    Node *n = add();
    n->fn = fn;
    n->launch = *l;
    memcpy(n->args, l->args, l->args_bytes);
    return 0;
}

static int recorded_fill(MjDevice *dev, void *dst, int byte, size_t bytes, MjError *err) {
    if (recording == NULL) return mj_device_cpu.fill(dev, dst, byte, bytes, err);
    Node *n = add();
    n->dst = dst;
    n->byte = byte;
    n->bytes = bytes;
    return 0;
}

static int refused_upload(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err) {
    int rc = refuse("upload", err);
    return rc != 0 ? rc : mj_device_cpu.upload(dev, dst, src, bytes, err);
}
static int refused_download(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err) {
    int rc = refuse("download", err);
    counted.waits++;
    return rc != 0 ? rc : mj_device_cpu.download(dev, dst, src, bytes, err);
}
static int refused_copy(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err) {
    int rc = refuse("copy", err);
    return rc != 0 ? rc : mj_device_cpu.copy(dev, dst, src, bytes, err);
}
static int refused_load(MjDevice *dev, const void *image, size_t bytes, MjModule **out, MjError *err) {
    int rc = refuse("loading an image", err); /* workers of `tiered` load before; a step that captures must have all it needs */
    return rc != 0 ? rc : mj_device_cpu.module_load(dev, image, bytes, out, err);
}

static int graph_begin(MjDevice *dev, MjError *err) {
    (void)dev;
    int rc = refuse("graph_begin", err);
    if (rc == 0) recording = mj_xcalloc(1, sizeof *recording);
    return rc;
}

static void graph_destroy(MjDevice *dev, MjGraph *g) {
    (void)dev;
    free(g->nodes);
    free(g);
    open_graphs--;
}

static int graph_end(MjDevice *dev, MjGraph **out, MjError *err) {
    (void)err;
    MjGraph *g = recording;
    recording = NULL;
    open_graphs++;
    if (out != NULL) *out = g;
    else graph_destroy(dev, g);
    return 0;
}

static int graph_launch(MjDevice *dev, MjGraph *g, MjError *err) {
    int rc = 0;
    counted.graph_launches++;
    counted.graph_nodes += (uint64_t)g->n;
    for (int i = 0; i < g->n && rc == 0; i++) {
        Node *n = &g->nodes[i];
        n->launch.args = n->args;
        rc = n->fn != NULL ? mj_device_cpu.launch(dev, n->fn, &n->launch, err)
                           : mj_device_cpu.fill(dev, n->dst, n->byte, n->bytes, err);
    }
    return rc;
}

static void counters(const MjDevice *dev, MjDeviceCounters *out) {
    (void)dev;
    *out = counted;
}

static MjDeviceInfo recording_info;
static const MjDeviceInfo *info(const MjDevice *dev) {
    recording_info = *mj_device_cpu.info(dev);
    recording_info.graphs = true;
    return &recording_info;
}

/* A cpu device whose table records. */
static MjDevice *open_recording(const MjDeviceOptions *options) {
    static MjDeviceOps table;
    MjError err = MJ_ERROR_INIT;
    MjDevice *device = NULL;
    if (mj_device_open("cpu", options, &device, &err) != 0) fail_msg("device: %s", err.message);
    table = mj_device_cpu;
    table.launch = recorded_launch;
    table.fill = recorded_fill;
    table.upload = refused_upload;
    table.download = refused_download;
    table.copy = refused_copy;
    table.module_load = refused_load;
    table.graph_begin = graph_begin;
    table.graph_end = graph_end;
    table.graph_launch = graph_launch;
    table.graph_destroy = graph_destroy;
    table.counters = counters;
    table.info = info;
    device->ops = &table;
    return device;
}

static void close_recording(MjDevice *device) {
    device->ops = &mj_device_cpu;
    mj_device_close(device);
}

/* ---- runs -------------------------------------------------------------------------------------------------- */

typedef struct Run {
    double loss[STEPS], norm[STEPS];
    MjDeviceCounters device[STEPS];
    float *weights;
    int64_t n;
    uint64_t captured;
    int open; /* graphs, at the end */
} Run;

static void must(int rc, const MjError *err, const char *what) {
    if (rc != 0) fail_msg("%s: %s\n%s", what, err->message, err->log ? err->log : "");
}

/* A recording device and a JIT, for graphs of work that is only counted. */
static MjOps open_ops(const char *mode) {
    MjError err = MJ_ERROR_INIT;
    MjOps ops = {.device = open_recording(NULL)};
    MjJitOptions opt = {.device = ops.device};
    must(mj_mode_find(mode, &opt.mode, &err), &err, "mode");
    must(mj_jit_open(&opt, &ops.jit, &err), &err, "jit");
    return ops;
}
static void close_ops(MjOps *ops) {
    mj_jit_close(ops->jit);
    close_recording(ops->device);
}

typedef struct Limits { /* 0: as they are */
    int keep;
    uint64_t nodes, whole;
} Limits;

static void run(const MjConfig *c, Limits limits, Run *out) {
    MjError err = MJ_ERROR_INIT;
    MjDevice *device = open_recording(&(MjDeviceOptions){.threads = 2});
    MjJit *jit = NULL;
    MjOps ops;
    MjModel *model = NULL;
    MjStep step;
    MjTokens *tokens = NULL;
    MjLoader *loader = NULL;
    MjLoaderOptions load;
    MjJitOptions opt = {.cache = fixture.cache};
    *out = (Run){0};
    opt.device = device;
    must(mj_mode_find(c->jit.mode, &opt.mode, &err), &err, "mode");
    must(mj_bucket_parse(c->jit.bucket, &opt.bucket, &err), &err, "bucket");
    must(mj_jit_open(&opt, &jit, &err), &err, "jit");
    must(mj_ops_open(device, jit, &ops, &err), &err, "ops");
    must(mj_model_open(c, &ops, &model, &err), &err, "model");
    mj_step_open(&step, model, opt.mode, opt.bucket, c);
    if (limits.keep > 0) step.graphs.keep = limits.keep;
    if (limits.nodes > 0) step.graphs.keep_nodes = limits.nodes;
    if (limits.whole > 0) step.graphs.whole_nodes = limits.whole;
    must(mj_model_init(model, 1, &err), &err, "init");
    must(mj_tokens_open(c->data.train, &tokens, &err), &err, "data");
    mj_plan_train_loader(c, &load);
    must(mj_loader_open(tokens, &load, &loader, &err), &err, "loader");
    for (int i = 0; i < STEPS; i++) {
        MjStepResult r;
        for (int32_t b = 0; b < step.n_batches; b++) must(mj_loader_next(loader, &step.batches[b], &err), &err, "batch");
        must(mj_step_run(&step, i, &r, &err), &err, "step");
        mj_jit_step(jit);
        out->loss[i] = r.loss;
        out->norm[i] = r.grad_norm;
        out->device[i] = r.device;
        assert_int_equal(r.device.waits, 0);
    }
    out->n = model->n_weights;
    out->weights = mj_xmalloc((size_t)out->n * sizeof(float));
    must(device->ops->download(device, out->weights, model->master, (size_t)out->n * sizeof(float), &err), &err, "weights");
    out->captured = step.graphs.captured;
    out->open = open_graphs;
    mj_step_close(&step);
    assert_int_equal(open_graphs, 0);
    assert_int_equal(refusals, 0);
    mj_loader_close(loader);
    mj_tokens_close(tokens);
    mj_model_close(model);
    mj_jit_close(jit);
    close_recording(device);
}

static void same_bits(const Run *a, const Run *b, const char *what) {
    for (int i = 0; i < STEPS; i++) {
        if (memcmp(&a->loss[i], &b->loss[i], sizeof(double)) != 0 || memcmp(&a->norm[i], &b->norm[i], sizeof(double)) != 0)
            fail_msg("%s: step %d: loss %.17g and norm %.17g, one by one %.17g and %.17g", what, i + 1, b->loss[i], b->norm[i],
                     a->loss[i], a->norm[i]);
    }
    if (memcmp(a->weights, b->weights, (size_t)a->n * sizeof(float)) != 0) fail_msg("%s: weights differ", what);
}

static int documents[3]; /* how many, the shortest and the longest; all 0: the text's own */

static void compare(const char *const *settings, Limits limits, Run *graphs) {
    MjConfig c;
    Run single;
    fixture_config(&fixture, &c);
    if (documents[0] > 0) fixture_documents(&fixture, &c, documents[0], documents[1], documents[2]);
    for (int i = 0; settings[i] != NULL; i++) fixture_set(&c, settings[i]);
    fixture_set(&c, "run.graphs=false");
    run(&c, limits, &single);
    assert_int_equal(single.captured, 0);
    fixture_set(&c, "run.graphs=true");
    run(&c, limits, graphs);
    same_bits(&single, graphs, settings[0]);
    free(single.weights);
    free(graphs->weights);
}

/* One size: one by one, captured, replayed; from then on a step is one graph and nothing else. */
static void one_graph_a_step(void **state) {
    (void)state;
    Run r;
    compare((const char *const[]){"jit.mode=static", "precision.experts=fp8", NULL}, (Limits){0}, &r);
    assert_int_equal(r.captured, 1);
    assert_true(r.device[0].launches > 50);
    assert_int_equal(r.device[0].graph_launches, 0);
    for (int i = 1; i < STEPS; i++) {
        assert_int_equal(r.device[i].launches, 0);
        assert_int_equal(r.device[i].graph_launches, 1);
        assert_true(r.device[i].graph_nodes >= r.device[0].launches);
    }
}

/* Micro-batches of one size: all of them are one graph from the second step on. */
static void several_micro_batches(void **state) {
    (void)state;
    static const char *const modes[] = {"jit.mode=static", "jit.mode=dynamic", "jit.mode=nocompile"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        Run r;
        compare((const char *const[]){modes[i], "train.grad_accum=3", "precision.experts=fp8", "precision.recipe=tensor", NULL}, (Limits){0}, &r);
        assert_int_equal(r.captured, 1);
        assert_int_equal(r.device[0].graph_launches, 0);
        for (int k = 1; k < STEPS; k++) {
            assert_int_equal(r.device[k].launches, 0);
            assert_int_equal(r.device[k].graph_launches, 1);
            assert_true(r.device[k].graph_nodes >= r.device[0].launches);
        }
    }
}

static void compare_documents(int n, int shortest, int longest, const char *const *settings, Limits limits, Run *graphs) {
    documents[0] = n;
    documents[1] = shortest;
    documents[2] = longest;
    compare(settings, limits, graphs);
    documents[0] = 0;
}

/* Sizes that hardly ever come again in the same order: no step is captured as a whole, and the graphs of its micro-batches
 * are used where their sizes come again. */
static void micro_batches_of_many_sizes(void **state) {
    (void)state;
    Run r;
    uint64_t graphs = 0;
    compare_documents(100, 8, 24, (const char *const[]){"jit.mode=nocompile", "data.packing=docs", "train.grad_accum=3", "train.batch=1", NULL},
                      (Limits){0}, &r);
    for (int i = 0; i < STEPS; i++) {
        graphs += r.device[i].graph_launches;
        assert_true(r.device[i].graph_launches != 1 || r.device[i].launches > 0);
    }
    assert_true(graphs > 0 && r.captured <= graphs);
}

/* Sizes that come again, in few orders: steps of the orders that were met lately are one graph. */
static void micro_batches_of_two_sizes(void **state) {
    (void)state;
    Run r;
    int whole = 0, pieces = 0;
    compare_documents(40, 19, 20, (const char *const[]){"jit.mode=nocompile", "data.packing=docs", "train.grad_accum=2", "train.batch=1", NULL},
                      (Limits){0}, &r);
    for (int i = 0; i < STEPS; i++) {
        whole += r.device[i].graph_launches == 1 && r.device[i].launches == 0;
        pieces += r.device[i].graph_launches == 2;
    }
    assert_true(whole >= STEPS / 3 && pieces >= 1);
    assert_true(r.captured <= 4 + 4); /* four orders; two sizes, first and last */
}

/* Documents of many lengths, but padded to one size. */
static void many_sizes_in_one_bucket(void **state) {
    (void)state;
    Run r;
    compare_documents(40, 8, 60, (const char *const[]){"jit.mode=dynamic", "jit.bucket=multiple:256", "data.packing=docs", "train.grad_accum=3", NULL},
                      (Limits){0}, &r);
    assert_int_equal(r.captured, 1);
    for (int i = 1; i < STEPS; i++) assert_int_equal(r.device[i].graph_launches, 1);
}

/* More pieces than graphs are kept: the one that was not used for longest makes room, and is captured anew. */
static void more_pieces_than_graphs(void **state) {
    (void)state;
    Run r;
    compare_documents(40, 19, 20, (const char *const[]){"jit.mode=nocompile", "data.packing=docs", "train.batch=1", NULL}, (Limits){.keep = 1}, &r);
    assert_true(r.captured > 2);
    assert_true(r.open <= 1);
}

/* A limit of nodes: never more than it in graphs that are kept, but for the one in use. */
static void more_nodes_than_are_kept(void **state) {
    (void)state;
    Run r;
    compare_documents(40, 19, 20, (const char *const[]){"jit.mode=nocompile", "data.packing=docs", "train.batch=1", NULL}, (Limits){.nodes = 1}, &r);
    assert_true(r.captured > 2);
    assert_int_equal(r.open, 1);
}

/* A step of too many launches for one graph is one graph a micro-batch. */
static void too_large_a_step(void **state) {
    (void)state;
    Run r;
    compare((const char *const[]){"jit.mode=nocompile", "train.grad_accum=3", NULL}, (Limits){.whole = 100}, &r);
    assert_int_equal(r.captured, 3);
    for (int i = 2; i < STEPS; i++) {
        assert_int_equal(r.device[i].graph_launches, 3);
        assert_int_equal(r.device[i].launches, 0);
    }
}

/* Kernels that are swapped in the background: a graph of the old ones is not replayed. */
static void swapped_kernels(void **state) {
    (void)state;
    Run r;
    compare((const char *const[]){"jit.mode=tiered", "train.seq_len=48", NULL}, (Limits){0}, &r);
    assert_true(r.captured >= 1);
    compare((const char *const[]){"jit.mode=tiered", "train.seq_len=40", "train.grad_accum=3", NULL}, (Limits){0}, &r);
    for (int i = 0; i < STEPS; i++) assert_true(r.device[i].graph_launches == 0 || r.device[i].graph_launches == 1 || r.device[i].launches == 0);
}

static int counted_work(void *user, MjError *err) {
    (void)err;
    ++*(int *)user;
    return 0;
}

/* One step of two micro-batches; how often its work was called: 2 in micro-batches, 1 when it is captured, 0 when replayed. */
static int step_of_two(MjStepGraphs *g, MjOps *ops, const int32_t padded[2]) {
    MjError err = MJ_ERROR_INIT;
    int calls = 0;
    if (mj_step_graphs_whole(g, ops, (MjPieceName){padded, 2, 7})) {
        must(mj_step_graphs_run(g, ops, (MjPieceName){padded, 2, 7}, counted_work, &calls, &err), &err, "whole");
    } else {
        for (int i = 0; i < 2; i++)
            must(mj_step_graphs_run(g, ops, (MjPieceName){padded + i, 1, 1 + i}, counted_work, &calls, &err), &err, "micro-batch");
    }
    return calls;
}

/* A whole step of kernels that were swapped is not replayed: it is launched in micro-batches, and captured anew. */
static void whole_steps_of_swapped_kernels(void **state) {
    (void)state;
    MjStepGraphs g;
    MjError err = MJ_ERROR_INIT;
    MjOps ops = open_ops("tiered");
    static const int32_t padded[2] = {64, 128}, other[2] = {128, 64};
    mj_step_graphs_open(&g, true);
    for (int swap = 0; swap < 3; swap++) {
        const uint64_t captured = g.captured;
        assert_int_equal(step_of_two(&g, &ops, padded), 2);
        assert_int_equal(g.captured, captured);
        assert_int_equal(step_of_two(&g, &ops, padded), 1); /* captured as a whole */
        assert_int_equal(step_of_two(&g, &ops, padded), 0);
        assert_int_equal(step_of_two(&g, &ops, padded), 0);
        assert_int_equal(g.captured, captured + 1);
        atomic_fetch_add(&ops.jit->fast.generation, 1);
    }
    /* Another order of the same sizes: a first and a last micro-batch that were not met; then whole. */
    assert_int_equal(step_of_two(&g, &ops, other), 2);
    assert_int_equal(step_of_two(&g, &ops, other), 1);
    assert_int_equal(open_graphs, 2);
    mj_step_graphs_close(&g, ops.device);
    assert_int_equal(open_graphs, 0);
    close_ops(&ops);
    mj_error_clear(&err);
}

static int failing_work(void *user, MjError *err) {
    return --*(int *)user >= 0 ? 0 : mj_error(err, MJ_ERR_COMPILE, "no such kernel");
}

/* A step that fails while it is captured ends the capture and reports what failed first. */
static void failure_in_a_capture(void **state) {
    (void)state;
    MjStepGraphs g;
    MjError err = MJ_ERROR_INIT;
    MjOps ops = open_ops("nocompile");
    int good = 1;
    const int32_t padded = 128;
    const MjPieceName name = {&padded, 1, 0};
    mj_step_graphs_open(&g, true);
    assert_true(mj_step_graphs_whole(&g, &ops, name));
    must(mj_step_graphs_run(&g, &ops, name, failing_work, &good, &err), &err, "one by one");
    assert_true(mj_step_graphs_whole(&g, &ops, name));
    assert_int_equal(mj_step_graphs_run(&g, &ops, name, failing_work, &good, &err), MJ_ERR_COMPILE);
    assert_non_null(strstr(err.message, "run.graphs = false"));
    assert_non_null(strstr(err.message, "no such kernel"));
    assert_null(recording);
    assert_int_equal(open_graphs, 0);
    mj_step_graphs_close(&g, ops.device);
    close_ops(&ops);
    mj_error_clear(&err);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_graph_a_step),
        cmocka_unit_test(several_micro_batches),
        cmocka_unit_test(micro_batches_of_many_sizes),
        cmocka_unit_test(micro_batches_of_two_sizes),
        cmocka_unit_test(many_sizes_in_one_bucket),
        cmocka_unit_test(more_nodes_than_are_kept),
        cmocka_unit_test(too_large_a_step),
        cmocka_unit_test(more_pieces_than_graphs),
        cmocka_unit_test(swapped_kernels),
        cmocka_unit_test(whole_steps_of_swapped_kernels),
        cmocka_unit_test(failure_in_a_capture),
    };
    if (argc > 2) cmocka_set_test_filter(argv[2]);
    fixture_open(&fixture, argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fixture_close(&fixture);
    return failed;
}
