/* Training on a GPU (in CI the simulated one): every mode gives the same bits, with and without graphs; the losses are the
 * cpu's within what rounding allows; a step has no wait of the host in it. Usage: test_gpu FOLDER_WITH_TEXT [CASES]
 *
 * Both devices round to bf16 (fp8) in the same places and differ only in the order of f32 sums, yet each may be as far from
 * the truth as test_step.c allows: T of a gradient. So T of the way that the loss has come since the first step, for the
 * updates so far, and T / sqrt(targets) of the loss itself, whose errors over the targets are independent. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fixture.h"
#include "train/train.h"

enum { STEPS = 3, MAX_STEPS = 8, TARGETS = 64 /* of a step, at least */ };
static const double BF16 = 2 * 0.00113 * 6.9, BLOCK = 2 * 0.037 * 4, TENSOR = 2 * 0.05 * 4; /* as in test_step.c */

typedef struct Run {
    double loss[MAX_STEPS], norm[MAX_STEPS];
    int64_t tokens[MAX_STEPS];
    int steps;
    float *weights;
    int64_t n;
    MjTrainTotals totals;
    uint64_t overlapped; /* launches, over all steps */
    MjOpProfile profiles[MJ_OP_COUNT];
} Run;

static Fixture fixture;
static bool ordered;   /* run.overlap = false */
static bool documents; /* short ones, padded to two sizes, instead of the text's own */

static void on_step(void *user, const MjStepMetrics *m) {
    Run *r = user;
    assert_true(r->steps < MAX_STEPS);
    r->loss[r->steps] = m->loss;
    r->norm[r->steps] = m->grad_norm;
    r->tokens[r->steps++] = m->tokens;
}

static void on_log(void *user, const char *line) {
    (void)user;
    print_message("%s\n", line);
}

static void run(const char *const *settings, const char *device, const char *mode, bool graphs, bool profile, Run *out) {
    MjConfig c;
    MjError err = MJ_ERROR_INIT;
    MjTrain *t = NULL;
    fixture_config(&fixture, &c);
    if (documents) fixture_documents(&fixture, &c, 40, 20, 40);
    const char *const base[] = {"train.steps=3", "train.batch=1", "train.seq_len=100", "train.grad_accum=3", "model.depth=1",
                                "data.packing=docs", "data.held_out="};
    for (size_t i = 0; i < sizeof base / sizeof *base; i++) fixture_set(&c, base[i]);
    for (int i = 0; settings[i] != NULL; i++) fixture_set(&c, settings[i]);
    (void)snprintf(c.run.device, sizeof c.run.device, "%s", device);
    (void)snprintf(c.jit.mode, sizeof c.jit.mode, "%s", mode);
    c.run.graphs = graphs;
    c.run.overlap = !ordered;
    *out = (Run){0};
    MjTrainOptions opt = {.config = c, .cache = fixture.cache, .profile = profile, .callbacks = {.user = out, .step = on_step, .log = on_log}};
    if (mj_train_open(&opt, &t, &err) != 0 || mj_train_run(t, &err) != 0 || mj_train_weights(t, &out->weights, &out->n, &err) != 0)
        fail_msg("%s %s: %s\n%s", device, mode, err.message, err.log != NULL ? err.log : "");
    mj_train_totals(t, &out->totals);
    MjDeviceCounters counters;
    MjDevice *used = mj_train_ops(t)->device;
    used->ops->counters(used, &counters);
    out->overlapped = counters.overlapped;
    if (!mj_target_waits(used->ops->info(used)->target) || ordered || profile) assert_int_equal(counters.overlapped, 0);
    else assert_true(counters.overlapped > counters.launches / 2); /* all but those after a fill, a copy or a wait */
    for (int i = 0; i < MJ_OP_COUNT; i++) out->profiles[i] = mj_train_ops(t)->profiles[i];
    mj_train_close(t);
    assert_int_equal(out->steps, c.train.steps);
}

static void same_bits(const Run *a, const Run *b, const char *what) {
    for (int i = 0; i < a->steps; i++)
        if (memcmp(&a->loss[i], &b->loss[i], sizeof(double)) != 0 || memcmp(&a->norm[i], &b->norm[i], sizeof(double)) != 0)
            fail_msg("FAIL gpu[%s]: step %d: loss %.17g and norm %.17g, in static %.17g and %.17g", what, i + 1, b->loss[i],
                     b->norm[i], a->loss[i], a->norm[i]);
    if (a->n != b->n || memcmp(a->weights, b->weights, (size_t)a->n * sizeof(float)) != 0) fail_msg("FAIL gpu[%s]: weights differ", what);
}

static void near(const Run *cpu, const Run *gpu, double t, const char *what) {
    for (int i = 0; i < STEPS; i++) {
        const double tolerance = t * (fabs(cpu->loss[0] - cpu->loss[i]) + cpu->loss[i] / sqrt(TARGETS));
        if (cpu->tokens[i] != gpu->tokens[i] || !(fabs(cpu->loss[i] - gpu->loss[i]) <= tolerance))
            fail_msg("FAIL gpu[%s]: step %d: loss %.9g on the GPU, %.9g on the cpu, tol %.3g", what, i + 1, gpu->loss[i], cpu->loss[i],
                     tolerance);
        if (getenv("MOJIT_TEST_PRINT") != NULL)
            print_message("%s step %d: %.9g cpu %.9g, differ by %.2g, tol %.2g\n", what, i + 1, gpu->loss[i], cpu->loss[i],
                          fabs(cpu->loss[i] - gpu->loss[i]), tolerance);
    }
}

/* Each kernel started when the one before has ended, launched alone and in a graph: no bit may depend on it. */
static void compare_ordered(const char *const *settings, const Run *first, const char *what) {
    char name[96];
    ordered = true;
    for (int graphs = 0; graphs < 2; graphs++) {
        Run r;
        (void)snprintf(name, sizeof name, "%s static%s, no overlap", what, graphs ? "" : ", no graphs");
        run(settings, "cuda", "static", graphs, false, &r);
        same_bits(first, &r, name);
        free(r.weights);
    }
    ordered = false;
}

static void compare(const char *const *settings, double t, const char *what) {
    static const struct {
        const char *mode;
        bool graphs;
    } runs[] = {{"static", true}, {"dynamic", true}, {"nocompile", true}, {"tiered", true}, {"static", false}};
    Run cpu, first = {0};
    run(settings, "cpu", "nocompile", true, false, &cpu);
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        Run r;
        char name[96];
        (void)snprintf(name, sizeof name, "%s %s%s", what, runs[i].mode, runs[i].graphs ? "" : ", no graphs");
        run(settings, "cuda", runs[i].mode, runs[i].graphs, false, &r);
        assert_int_equal(r.totals.waits_in_steps, 0);
        /* tiered swaps kernels at every step of a run this short: there may be no time for a graph */
        if (strcmp(runs[i].mode, "tiered") != 0) assert_int_equal(r.totals.graphs_captured > 0, runs[i].graphs);
        if (runs[i].graphs && r.totals.graphs_captured > 0) { /* the last step: all micro-batches, nothing launched beside the graph */
            assert_int_equal(r.totals.last_step.graph_launches, 1);
            assert_int_equal(r.totals.last_step.launches, 0);
        }
        near(&cpu, &r, t, name);
        if (i == 0) {
            first = r;
            continue;
        }
        same_bits(&first, &r, name);
        free(r.weights);
    }
    compare_ordered(settings, &first, what);
    free(first.weights);
    free(cpu.weights);
}

static void bf16(void **state) {
    (void)state;
    compare((const char *const[]){"precision.experts=bf16", NULL}, BF16, "bf16");
}
static void fp8_experts_block(void **state) {
    (void)state;
    compare((const char *const[]){"precision.experts=fp8", "precision.recipe=block", NULL}, BLOCK, "fp8 experts, block");
}
static void fp8_all_tensor(void **state) {
    (void)state;
    compare((const char *const[]){"precision.experts=fp8", "precision.linears=fp8", "precision.recipe=tensor", NULL}, TENSOR, "fp8, tensor");
}

/* Micro-batches of two padded sizes, whose order changes from step to step: whole steps and single micro-batches are captured
 * and replayed in turn, kernels are swapped, and nothing of it shows in the bits. */
static void many_orders(void **state) {
    (void)state;
    static const struct {
        const char *mode;
        bool graphs;
    } runs[] = {{"dynamic", false}, {"dynamic", true}, {"tiered", true}, {"nocompile", false}, {"nocompile", true}, {"static", true}};
    Run first = {0};
    documents = true;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        Run r;
        char name[96];
        (void)snprintf(name, sizeof name, "documents %s%s", runs[i].mode, runs[i].graphs ? "" : ", no graphs");
        run((const char *const[]){"train.steps=8", "jit.bucket=multiple:32", "train.seq_len=64", NULL}, "cuda", runs[i].mode, runs[i].graphs, false, &r);
        print_message("%s: %d captures\n", name, (int)r.totals.graphs_captured);
        assert_int_equal(r.totals.waits_in_steps, 0);
        if (i > 0) same_bits(&first, &r, name);
        if (runs[i].graphs && i == 1) assert_true(r.totals.graphs_captured >= 3);
        if (i == 0) first = r;
        else free(r.weights);
    }
    free(first.weights);
    documents = false;
}

/* Gradients of dense weights summed in pieces of 256 rows, in steps of 128 to 384 tokens: a mode pads them its own way, and so has its
 * own number of rows in the last piece and of empty pieces. */
static void pieces(void **state) {
    (void)state;
    const char *const settings[] = {"train.seq_len=300", "train.grad_accum=2", "precision.experts=fp8", "precision.linears=fp8", NULL};
    static const char *const modes[] = {"static", "dynamic", "nocompile"};
    Run cpu, first = {0};
    run(settings, "cpu", "nocompile", true, false, &cpu);
    setenv("MOJIT_PIECES", "2", 1);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        Run r;
        run(settings, "cuda", modes[i], false, true, &r);
        assert_int_equal(r.profiles[MJ_OP_ADD_PIECES].launches, 4 * 2 * STEPS);
        near(&cpu, &r, BLOCK, modes[i]);
        if (i > 0) same_bits(&first, &r, modes[i]);
        if (i == 0) first = r;
        else free(r.weights);
    }
    unsetenv("MOJIT_PIECES");
    free(first.weights);
    free(cpu.weights);
}

/* Profiling times every op by events: no graph, and still no wait inside a step. */
static void profile(void **state) {
    (void)state;
    Run r;
    run((const char *const[]){"precision.experts=bf16", "train.steps=3", NULL}, "cuda", "static", true, true, &r);
    assert_int_equal(r.totals.graphs_captured, 0);
    assert_int_equal(r.totals.waits_in_steps, 0);
    const MjOpProfile *gemm = &r.profiles[MJ_OP_GEMM], *adamw = &r.profiles[MJ_OP_ADAMW];
    assert_int_equal(adamw->launches, 4 * STEPS);
    assert_true(gemm->launches > adamw->launches && gemm->ms > 0 && adamw->ms > 0 && gemm->flops > 0);
    free(r.weights);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    const struct CMUnitTest tests[] = {cmocka_unit_test(bf16), cmocka_unit_test(fp8_experts_block), cmocka_unit_test(fp8_all_tensor),
                                       cmocka_unit_test(many_orders), cmocka_unit_test(pieces), cmocka_unit_test(profile)};
    MjDeviceInfo info;
    MjError err = MJ_ERROR_INIT;
    if (mj_device_probe("cuda", NULL, &info, &err) != 0) {
        printf("skipped: %s\n", err.message);
        mj_error_clear(&err);
        return 77;
    }
    cmocka_set_test_filter(argc > 2 ? argv[2] : "*");
    fixture_open(&fixture, argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fixture_close(&fixture);
    return failed;
}
