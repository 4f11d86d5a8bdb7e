/* Whole runs: the modes' losses, weights and evaluation are the same bits, with any thread count; the modes' promises
 * are held by counters. Usage: test_modes FOLDER_WITH_TEXT */
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

enum { STEPS = 30 };

typedef struct Run {
    double loss[STEPS], norm[STEPS], held_out;
    float *weights;
    int64_t n_weights, padded, dropped;
    int steps;
    uint64_t step_compiles;
    MjTrainTotals totals;
} Run;

static Fixture fixture;

static void on_step(void *user, const MjStepMetrics *m) {
    Run *r = user;
    r->loss[r->steps] = m->loss;
    r->norm[r->steps] = m->grad_norm;
    r->padded += m->padded_rows;
    r->dropped += m->dropped_rows;
    r->step_compiles += m->compiles;
    r->steps++;
}

static void on_eval(void *user, const MjEvalMetrics *m) { ((Run *)user)->held_out = m->bits_per_byte; }

static int run(const MjConfig *config, Run *out, MjError *err) {
    int rc = 0;
    MjTrain *t = NULL;
    *out = (Run){0};
    MjTrainOptions opt = {.config = *config, .cache = fixture.cache, .callbacks = {.user = out, .step = on_step, .eval = on_eval}};
    MJ_TRY(mj_train_open(&opt, &t, err));
    mj_train_totals(t, &out->totals);
    size_t opened = out->totals.peak_bytes;
    MJ_TRY(mj_train_run(t, err));
    mj_train_totals(t, &out->totals);
    if (out->totals.peak_bytes != opened) fail_msg("the step loop allocated %zu bytes", out->totals.peak_bytes - opened);
    MJ_TRY(mj_train_weights(t, &out->weights, &out->n_weights, err));
out:
    mj_train_close(t);
    return rc;
}

static void must_run(const MjConfig *config, Run *out) {
    MjError err = MJ_ERROR_INIT;
    if (run(config, out, &err) != 0) fail_msg("%s: %s\n%s", config->jit.mode, err.message, err.log ? err.log : "");
}

static void same_bits(const Run *a, const Run *b, const char *what) {
    for (int i = 0; i < STEPS; i++) {
        if (memcmp(&a->loss[i], &b->loss[i], sizeof(double)) != 0) {
            fail_msg("%s: step %d: loss %.17g, want %.17g", what, i + 1, b->loss[i], a->loss[i]);
        }
        if (memcmp(&a->norm[i], &b->norm[i], sizeof(double)) != 0) {
            fail_msg("%s: step %d: gradient norm %.17g, want %.17g", what, i + 1, b->norm[i], a->norm[i]);
        }
    }
    if (memcmp(a->weights, b->weights, (size_t)a->n_weights * sizeof(float)) != 0) fail_msg("%s: weights differ", what);
    if (memcmp(&a->held_out, &b->held_out, sizeof(double)) != 0) fail_msg("%s: held-out bits differ", what);
}

static void check_promises(const Run *r, const char *mode) {
    const MjJitCounters *c = &r->totals.jit;
    if (strcmp(mode, "static") == 0) {
        assert_int_equal(c->after_ahead, 0);
        assert_int_equal(r->step_compiles, 0);
    }
    if (strcmp(mode, "nocompile") == 0) {
        assert_int_equal(c->compiles, 0);
        assert_int_equal(c->compiler_loads, 0);
        assert_true(c->generic_launches > 0);
    }
    double ratio = (double)r->totals.peak_bytes / (double)r->totals.predicted_bytes;
    if (!(ratio > 0.9 && ratio < 1.1)) {
        fail_msg("%s: peak of %zu bytes, the formula says %zu", mode, r->totals.peak_bytes, r->totals.predicted_bytes);
    }
}

static void compare_modes(const char *packing, const char *precision, const char *recipe) {
    static const char *const modes[] = {"static", "dynamic", "nocompile"};
    Run first = {0};
    for (int i = 0; i < 6; i++) {
        MjConfig c;
        char what[128], set[64];
        const char *mode = modes[i % 3];
        fixture_config(&fixture, &c);
        fixture_set(&c, packing);
        (void)snprintf(set, sizeof set, "precision.experts=%s", precision);
        fixture_set(&c, set);
        (void)snprintf(set, sizeof set, "precision.linears=%s", precision);
        fixture_set(&c, set);
        fixture_set(&c, recipe);
        (void)snprintf(set, sizeof set, "jit.mode=%s", mode);
        fixture_set(&c, set);
        c.run.threads = i < 3 ? 2 : 1;
        Run r;
        must_run(&c, &r);
        (void)snprintf(what, sizeof what, "%s %s %s, %s, %d threads", packing, precision, recipe, mode, c.run.threads);
        check_promises(&r, mode);
        if (i == 0) {
            first = r;
            assert_true(r.loss[STEPS - 1] < r.loss[0]);
            continue;
        }
        same_bits(&first, &r, what);
        if (i >= 3) assert_int_equal(r.totals.jit.compiles, 0); /* the second run of a mode finds every kernel */
        free(r.weights);
    }
    free(first.weights);
}

static void full_bf16(void **state) {
    (void)state;
    compare_modes("data.packing=full", "bf16", "precision.recipe=block");
}

static void full_fp8_block(void **state) {
    (void)state;
    compare_modes("data.packing=full", "fp8", "precision.recipe=block");
}

static void docs_bf16(void **state) {
    (void)state;
    compare_modes("data.packing=docs", "bf16", "precision.recipe=block");
}

static void docs_fp8_block(void **state) {
    (void)state;
    compare_modes("data.packing=docs", "fp8", "precision.recipe=block");
}

static void docs_fp8_tensor(void **state) {
    (void)state;
    compare_modes("data.packing=docs", "fp8", "precision.recipe=tensor");
}

static void capacity_runs_in_every_mode(void **state) {
    (void)state;
    static const char *const modes[] = {"jit.mode=static", "jit.mode=dynamic", "jit.mode=nocompile"};
    for (int i = 0; i < 3; i++) {
        MjConfig c;
        Run r;
        fixture_config(&fixture, &c);
        fixture_set(&c, modes[i]);
        fixture_set(&c, "moe.layout=capacity:0.5");
        fixture_set(&c, "train.seq_len=256");
        must_run(&c, &r);
        assert_true(r.dropped > 0);
        assert_true(isfinite(r.loss[STEPS - 1]));
        free(r.weights);
    }
}

/* A plan made without a device warms the cache for the run. */
static void warm_run_compiles_nothing(void **state) {
    (void)state;
    static const char *const modes[] = {"static", "dynamic"};
    for (int i = 0; i < 2; i++) {
        MjConfig c;
        MjJit *jit = NULL;
        MjError err = MJ_ERROR_INIT;
        Run r;
        fixture_config(&fixture, &c);
        fixture_set(&c, "data.packing=docs");
        fixture_set(&c, "train.seq_len=96"); /* shapes that no other test has compiled */
        fixture_set(&c, i == 0 ? "jit.mode=static" : "jit.mode=dynamic");
        MjJitOptions opt = {.target = mj_cpu_target(), .cache = fixture.cache};
        assert_int_equal(mj_mode_find(modes[i], &opt.mode, &err), 0);
        assert_int_equal(mj_bucket_parse(c.jit.bucket, &opt.bucket, &err), 0);
        if (mj_jit_open(&opt, &jit, &err) != 0 || mj_train_plan(&c, jit, &err) != 0 || mj_jit_prepare(jit, &err) != 0) {
            fail_msg("warm %s: %s", modes[i], err.message);
        }
        assert_true(mj_jit_plan_size(jit) > 10);
        mj_jit_close(jit);
        fixture_set(&c, "jit.require_warm=true");
        must_run(&c, &r);
        assert_int_equal(r.totals.jit.compiles, 0);
        free(r.weights);
    }
}

static int plan_size(const MjConfig *c, const char *mode) {
    MjJit *jit = NULL;
    MjError err = MJ_ERROR_INIT;
    MjJitOptions opt = {.target = mj_cpu_target(), .cache = fixture.cache};
    assert_int_equal(mj_mode_find(mode, &opt.mode, &err), 0);
    assert_int_equal(mj_bucket_parse(c->jit.bucket, &opt.bucket, &err), 0);
    if (mj_jit_open(&opt, &jit, &err) != 0 || mj_train_plan(c, jit, &err) != 0) fail_msg("plan %s: %s", mode, err.message);
    const int n = mj_jit_plan_size(jit);
    mj_jit_close(jit);
    return n;
}

/* An evaluation of two batches and one row: the row is a batch of its own, padded to a whole one where buckets round. */
static void rest_of_an_evaluation_brings_no_kernels(void **state) {
    (void)state;
    static const char *const modes[] = {"jit.mode=nocompile", "jit.mode=dynamic", "jit.mode=tiered", "jit.mode=static"};
    MjConfig c;
    Run r;
    double bits = 0;
    fixture_config(&fixture, &c);
    fixture_set(&c, "data.packing=full");
    fixture_set(&c, "jit.mode=dynamic");
    fixture_set(&c, "train.eval_tokens=512");
    const int whole = plan_size(&c, "dynamic");
    fixture_set(&c, "train.eval_tokens=576");
    assert_int_equal(plan_size(&c, "dynamic"), whole);
    fixture_set(&c, "jit.bucket=exact");
    assert_true(plan_size(&c, "dynamic") > whole);
    fixture_set(&c, "jit.bucket=pow2");
    for (int i = 0; i < 4; i++) {
        fixture_set(&c, modes[i]);
        must_run(&c, &r);
        if (i == 0) bits = r.totals.held_out_bits_per_byte;
        assert_true(bits > 0);
        assert_memory_equal(&r.totals.held_out_bits_per_byte, &bits, sizeof bits);
        free(r.weights);
    }
}

static void stop_after_first(void *user, const MjStepMetrics *m) {
    (void)m;
    mj_train_stop(*(MjTrain **)user);
}

static void stopping_finishes_the_step(void **state) {
    (void)state;
    MjConfig c;
    MjTrain *t = NULL;
    MjError err = MJ_ERROR_INIT;
    MjTrainTotals totals;
    fixture_config(&fixture, &c);
    fixture_set(&c, "jit.mode=nocompile");
    MjTrainOptions opt = {.config = c, .cache = fixture.cache, .callbacks = {.user = &t, .step = stop_after_first}};
    assert_int_equal(mj_train_open(&opt, &t, &err), 0);
    assert_int_equal(mj_train_run(t, &err), MJ_ERR_INTERRUPTED);
    mj_train_totals(t, &totals);
    assert_int_equal(totals.steps_done, 1);
    assert_int_equal(mj_train_run(t, &err), MJ_ERR_INTERRUPTED); /* goes on where it stopped, and stops again */
    mj_train_totals(t, &totals);
    assert_int_equal(totals.steps_done, 2);
    mj_train_close(t);
}

static void nan_names_step_and_op(void **state) {
    (void)state;
    MjConfig c;
    Run r;
    MjError err = MJ_ERROR_INIT;
    fixture_config(&fixture, &c);
    fixture_set(&c, "jit.mode=nocompile");
    fixture_set(&c, "optimizer.matrix_lr=100");
    fixture_set(&c, "optimizer.head_lr=100");
    fixture_set(&c, "optimizer.embedding_lr=0");
    fixture_set(&c, "optimizer.weight_decay=10"); /* w *= 1 - lr * decay: grows a thousandfold a step */
    fixture_set(&c, "optimizer.warmup=0");
    assert_int_equal(run(&c, &r, &err), MJ_ERR_NUMERIC);
    if (strstr(err.message, "step ") == NULL || strstr(err.message, " wrote a ") == NULL) fail_msg("message: %s", err.message);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_bf16),
        cmocka_unit_test(full_fp8_block),
        cmocka_unit_test(docs_bf16),
        cmocka_unit_test(docs_fp8_block),
        cmocka_unit_test(docs_fp8_tensor),
        cmocka_unit_test(capacity_runs_in_every_mode),
        cmocka_unit_test(warm_run_compiles_nothing),
        cmocka_unit_test(rest_of_an_evaluation_brings_no_kernels),
        cmocka_unit_test(stopping_finishes_the_step),
        cmocka_unit_test(nan_names_step_and_op),
    };
    if (argc > 2) cmocka_set_test_filter(argv[2]);
    fixture_open(&fixture, argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fixture_close(&fixture);
    return failed;
}
