/* One real training step against the double-precision reference: the loss and every gradient, for dense and mixture,
 * bf16 and both fp8 recipes, in every mode. Usage: test_step FOLDER_WITH_TEXT [CASES [DEVICE]]
 *
 * Tolerances are on |got - want| / |want| over a tensor. A rounding to bf16 has a relative RMS of u = 2^-9 / sqrt(3); an
 * fp8 GEMM adds 3.7e-2 (e4m3 x e4m3) or about 6e-2 (e5m2 x e4m3, in the backward half) by quantisation. The roundings on the
 * longest path from a loss to a gradient are independent, so their squares add up; twice that is allowed. Beyond that, the
 * three modes must give the same bits although they pad differently. */
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
#include "reference_step.h"
#include "runtime/base/mem.h"
#include "train/step.h"

enum { V = 37, N = 61 }; /* sequences of 32, 20 and 9: neither N nor any of them a multiple of anything */

static Fixture fixture;
static const char *device_kind = "cpu";

typedef struct Case {
    const char *name, *experts, *linears, *expert_type, *recipe, *normalize;
    double tolerance;
} Case;

/* Two layers: about 24 roundings to bf16 forward and as many backward; 4 fp8 GEMMs a layer and direction at most. */
static const double BF16 = 2 * 0.00113 * 6.9, BLOCK = 2 * 0.037 * 4, TENSOR = 2 * 0.05 * 4;

typedef struct Machine {
    MjDevice *device;
    MjJit *jit;
    MjOps ops;
    MjModel *model;
    MjStep step;
} Machine;

static void must(int rc, const MjError *err, const char *what) {
    if (rc != 0) fail_msg("%s: %s\n%s", what, err->message, err->log ? err->log : "");
}

static void open_machine(Machine *k, const MjConfig *c) {
    MjError err = MJ_ERROR_INIT;
    MjJitOptions opt = {.cache = fixture.cache};
    MjDeviceOptions dev = {.threads = 2};
    *k = (Machine){0};
    must(mj_device_open(device_kind, &dev, &k->device, &err), &err, "device");
    opt.device = k->device;
    must(mj_mode_find(c->jit.mode, &opt.mode, &err), &err, "mode");
    must(mj_bucket_parse(c->jit.bucket, &opt.bucket, &err), &err, "bucket");
    must(mj_jit_open(&opt, &k->jit, &err), &err, "jit");
    must(mj_ops_open(k->device, k->jit, &k->ops, &err), &err, "ops");
    must(mj_model_open(c, &k->ops, &k->model, &err), &err, "model");
    mj_step_open(&k->step, k->model, opt.mode, opt.bucket, c);
}

static void close_machine(Machine *k) {
    mj_step_close(&k->step);
    mj_model_close(k->model);
    mj_jit_close(k->jit);
    mj_device_close(k->device);
}

static double next(uint64_t *s) { /* in (-1, 1) */
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(*s >> 11) * 0x1p-52 - 1;
}

static float to_bf16(double v) { /* truncation is fine: any representable value will do */
    union { float f; uint32_t u; } x = {.f = (float)v};
    x.u &= 0xffff0000u;
    return x.f;
}

static void fill(float *w, int64_t at, int64_t n, double scale, uint64_t *seed) {
    for (int64_t i = 0; i < n; i++) w[at + i] = to_bf16(scale * next(seed));
}

static void fill_weight(float *w, const MjWeight *x, double scale, uint64_t *seed) {
    fill(w, x->offset, (int64_t)x->experts * x->out * x->in, scale, seed);
}

/* Weights that bf16 holds exactly, none of them zero, so that every gradient is at work. */
static float *weights(Machine *k) {
    MjModel *m = k->model;
    MjError err = MJ_ERROR_INIT;
    uint64_t seed = 11;
    float *w = mj_xcalloc((size_t)m->n_weights, sizeof *w);
    double bound = sqrt(3.0 / m->d.width);
    must(mj_model_init(m, 1, &err), &err, "init");
    fill(w, 0, (int64_t)m->d.vocab * m->d.width, 1, &seed);
    fill(w, m->head_at, (int64_t)m->d.vocab * m->d.width, 2 * bound, &seed);
    for (int i = 0; i < m->d.depth; i++) {
        MjLayer *l = &m->layers[i];
        fill_weight(w, &l->qkv, bound, &seed);
        fill_weight(w, &l->wo, bound, &seed);
        fill_weight(w, &l->ffn.up, bound, &seed);
        fill_weight(w, &l->ffn.down, bound, &seed);
        fill_weight(w, &l->moe.up, bound, &seed);
        fill_weight(w, &l->moe.down, bound, &seed);
        if (m->d.experts > 0) fill(w, l->moe.router, (int64_t)m->d.experts * m->d.width, bound, &seed);
    }
    must(m->device->ops->upload(m->device, m->master, w, (size_t)m->n_weights * sizeof *w, &err), &err, "upload");
    must(mj_model_refresh(m, &err), &err, "refresh");
    return w;
}

static void add_to_batch(MjBatch *b, uint64_t seed) {
    static const int lengths[] = {32, 20, 9};
    for (int s = 0; s < 3; s++) {
        for (int i = 0; i < lengths[s]; i++) {
            int32_t at = b->tokens++;
            b->pos[at] = i;
            b->token[at] = (int32_t)((next(&seed) + 1) / 2 * V);
            b->target[at] = i == 7 ? -1 : (int32_t)((next(&seed) + 1) / 2 * V);
            b->targets += b->target[at] >= 0;
        }
    }
}

static void batch(MjBatch *b, uint64_t seed) {
    b->tokens = 0;
    b->targets = 0;
    add_to_batch(b, seed);
}

static void describe(const MjModel *m, RefModel *r) {
    *r = (RefModel){.depth = m->d.depth, .width = m->d.width, .heads = m->d.heads, .head_dim = m->d.head_dim, .vocab = V,
                    .experts = m->d.experts, .top_k = m->d.top_k, .hidden = m->d.hidden, .ffn_hidden = m->d.ffn_hidden,
                    .softcap = (double)m->softcap, .normalize_gates = m->normalize_gates, .head = m->head_at};
    for (int i = 0; i < r->depth; i++) {
        const MjLayer *l = &m->layers[i];
        r->layers[i] = (RefLayer){.qkv = l->qkv.offset, .wo = l->wo.offset, .ffn_up = l->ffn.up.offset,
                                  .ffn_down = l->ffn.down.offset, .up = l->moe.up.offset, .down = l->moe.down.offset,
                                  .router = l->moe.router, .window = m->d.window[i]};
    }
}

static void compare(const Case *c, const char *mode, const char *tensor, int layer, const float *got, const double *want,
                    int64_t at, int64_t n) {
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)got[at + i] - want[at + i];
        diff += d * d;
        size += want[at + i] * want[at + i];
    }
    double error = sqrt(diff / size);
    if (getenv("MOJIT_TEST_PRINT") != NULL) print_message("%s[%s] %s %d: %.4f (%.4f)\n", c->name, mode, tensor, layer, error, c->tolerance);
    if (!(error <= c->tolerance) || size == 0) {
        fail_msg("FAIL step[%s](%s) layer %d gradient of %s: |got - want| / |want| = %.4g, tol %.4g, |want| = %.4g", mode, c->name,
                 layer, tensor, error, c->tolerance, sqrt(size));
    }
}

static void compare_weight(const Case *c, const char *mode, int layer, const MjWeight *w, const float *got, const double *want) {
    if (w->experts > 0) compare(c, mode, w->name, layer, got, want, w->offset, (int64_t)w->experts * w->out * w->in);
}

static void compare_all(const Case *c, const char *mode, const MjModel *m, const float *got, const double *want) {
    compare(c, mode, "embedding", -1, got, want, 0, (int64_t)m->d.vocab * m->d.width);
    compare(c, mode, "head", -1, got, want, m->head_at, (int64_t)m->d.vocab * m->d.width);
    for (int i = 0; i < m->d.depth; i++) {
        const MjLayer *l = &m->layers[i];
        compare_weight(c, mode, i, &l->qkv, got, want);
        compare_weight(c, mode, i, &l->wo, got, want);
        compare_weight(c, mode, i, &l->ffn.up, got, want);
        compare_weight(c, mode, i, &l->ffn.down, got, want);
        compare_weight(c, mode, i, &l->moe.up, got, want);
        compare_weight(c, mode, i, &l->moe.down, got, want);
        if (m->d.experts > 0) {
            compare(c, mode, "router", i, got, want, l->moe.router, (int64_t)m->d.experts * m->d.width);
        }
    }
    for (int64_t i = (int64_t)m->d.vocab * m->d.width; i < m->head_at; i++) assert_true(got[i] == 0); /* the padding token */
}

static float *check(const Case *c, const char *mode, int64_t *n) {
    MjConfig config;
    MjError err = MJ_ERROR_INIT;
    Machine k;
    RefModel ref;
    MjStepResult r;
    char set[64];
    const char *settings[] = {c->experts, c->linears, c->expert_type, c->recipe, c->normalize, "train.seq_len=32",
                              "train.batch=4", "model.vocab=37", "model.window_short=5", set};
    (void)snprintf(set, sizeof set, "jit.mode=%s", mode);
    fixture_config(&fixture, &config);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) fixture_set(&config, settings[i]);
    open_machine(&k, &config);
    MjModel *m = k.model;
    float *w = weights(&k), *got = mj_xcalloc((size_t)m->n_weights, sizeof *got);
    double *wide = mj_xcalloc((size_t)m->n_weights, sizeof *wide), *want = mj_xcalloc((size_t)m->n_weights, sizeof *want);
    int32_t *expert = mj_xcalloc((size_t)(m->d.depth * N * (m->d.top_k + 1)), sizeof *expert);
    MjBatch *b = &k.step.batches[0];
    batch(b, 3);
    must(mj_step_gradients(&k.step, &r, &err), &err, c->name);
    must(k.device->ops->download(k.device, got, m->grad, (size_t)m->n_weights * sizeof *got, &err), &err, "download");
    describe(m, &ref);
    for (int i = 0; i < m->d.depth && m->d.experts > 0; i++) {
        int32_t *at = expert + i * N * m->d.top_k;
        must(k.device->ops->download(k.device, at, m->layers[i].moe.expert, (size_t)(N * m->d.top_k) * sizeof *at, &err), &err, "download");
        ref.layers[i].expert = at;
    }
    for (int64_t i = 0; i < m->n_weights; i++) wide[i] = (double)w[i];
    RefBatch rb = {.n = N, .token = b->token, .target = b->target, .pos = b->pos};
    double loss = ref_step(&ref, &rb, wide, want), violation = ref_routing_violation(&ref, &rb, wide);
    /* a score's slope is at most 1/4 and its logit's size about 1 */
    if (violation > c->tolerance / 4) fail_msg("%s[%s]: a token went to an expert whose score was lower by %.3g", c->name, mode, violation);
    if (fabs(r.loss - loss) > c->tolerance * loss / 4) fail_msg("%s[%s]: loss %.8g, reference %.8g", c->name, mode, r.loss, loss);
    compare_all(c, mode, m, got, want);
    *n = m->n_weights;
    free(w), free(wide), free(want), free(expert);
    close_machine(&k);
    return got;
}

static void check_case(const Case *c) {
    static const char *const modes[] = {"static", "dynamic", "nocompile"};
    float *first = NULL;
    for (int i = 0; i < 3; i++) {
        int64_t n = 0;
        float *got = check(c, modes[i], &n);
        if (first == NULL) {
            first = got;
            continue;
        }
        for (int64_t j = 0; j < n; j++) {
            if (memcmp(&got[j], &first[j], sizeof *got) != 0) {
                fail_msg("FAIL step[%s](%s): gradient %lld is %.9g, in static %.9g", modes[i], c->name, (long long)j, (double)got[j],
                         (double)first[j]);
            }
        }
        free(got);
    }
    free(first);
}

#define MOE "moe.experts=4"
#define DENSE "moe.experts=0"

static void run_case(const char *name, const char *experts, const char *linears, const char *types, const char *recipe,
                     const char *normalize, double tolerance) {
    Case c = {name, experts, linears, types, recipe, normalize, tolerance};
    check_case(&c);
}

static void dense_bf16(void **s) {
    (void)s;
    run_case("dense bf16", DENSE, "precision.linears=bf16", "precision.experts=bf16", "precision.recipe=block", "moe.normalize_gates=false", BF16);
}
static void dense_fp8_block(void **s) {
    (void)s;
    run_case("dense fp8 block", DENSE, "precision.linears=fp8", "precision.experts=fp8", "precision.recipe=block", "moe.normalize_gates=false", BLOCK);
}
static void moe_bf16(void **s) {
    (void)s;
    run_case("moe bf16", MOE, "precision.linears=bf16", "precision.experts=bf16", "precision.recipe=block", "moe.normalize_gates=false", BF16);
}
static void moe_bf16_normalized(void **s) {
    (void)s;
    run_case("moe bf16 normalized", MOE, "precision.linears=bf16", "precision.experts=bf16", "precision.recipe=block", "moe.normalize_gates=true", BF16);
}
static void moe_fp8_experts_block(void **s) {
    (void)s;
    run_case("moe fp8 experts block", MOE, "precision.linears=bf16", "precision.experts=fp8", "precision.recipe=block", "moe.normalize_gates=false", BLOCK);
}
static void moe_fp8_all_block(void **s) {
    (void)s;
    run_case("moe fp8 block", MOE, "precision.linears=fp8", "precision.experts=fp8", "precision.recipe=block", "moe.normalize_gates=false", BLOCK);
}
static void moe_fp8_all_tensor(void **s) {
    (void)s;
    run_case("moe fp8 tensor", MOE, "precision.linears=fp8", "precision.experts=fp8", "precision.recipe=tensor", "moe.normalize_gates=false", TENSOR);
}

enum { E = 4, DEPTH = 2 };

/* The biases (DEPTH, E) after one step of the batches with these seeds: each a micro-batch, or all in one. */
static void biases(const uint64_t *seeds, int n, bool apart, float *out) {
    MjConfig config;
    MjError err = MJ_ERROR_INIT;
    MjStepResult r;
    Machine k;
    char set[64];
    const char *settings[] = {MOE, "model.depth=2", "train.seq_len=32", "train.batch=4", "model.vocab=37", "jit.mode=nocompile", set};
    (void)snprintf(set, sizeof set, "train.grad_accum=%d", apart ? n : 1);
    fixture_config(&fixture, &config);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) fixture_set(&config, settings[i]);
    open_machine(&k, &config);
    free(weights(&k));
    batch(&k.step.batches[0], seeds[0]);
    for (int i = 1; i < n; i++) {
        if (apart) batch(&k.step.batches[i], seeds[i]);
        else add_to_batch(&k.step.batches[0], seeds[i]);
    }
    double nats;
    must(mj_step_evaluate(&k.step, &nats, &err), &err, "evaluation"); /* counts nothing */
    must(mj_step_run(&k.step, 0, &r, &err), &err, "step");
    for (int i = 0; i < DEPTH; i++) {
        int32_t demand[E];
        must(k.device->ops->download(k.device, out + i * E, k.model->layers[i].moe.bias, E * sizeof *out, &err), &err, "download");
        must(k.device->ops->download(k.device, demand, k.model->layers[i].moe.demand, sizeof demand, &err), &err, "download");
        for (int e = 0; e < E; e++) assert_int_equal(demand[e], 0);
    }
    close_machine(&k);
}

/* Balancing goes by what all micro-batches of a step ask for, not by the last one's. */
static void balance_counts_micro_batches(void **s) {
    (void)s;
    bool differs = false;
    for (uint64_t seed = 1; seed < 5; seed++) {
        const uint64_t both[] = {seed, seed + 100};
        float apart[DEPTH * E], together[DEPTH * E], last[DEPTH * E];
        biases(both, 2, true, apart);
        biases(both, 2, false, together);
        biases(both + 1, 1, false, last);
        assert_memory_equal(apart, together, sizeof apart);
        differs = differs || memcmp(apart, last, sizeof apart) != 0;
    }
    assert_true(differs); /* or the test could not fail */
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_bf16),          cmocka_unit_test(dense_fp8_block),       cmocka_unit_test(moe_bf16),
        cmocka_unit_test(moe_bf16_normalized), cmocka_unit_test(moe_fp8_experts_block), cmocka_unit_test(moe_fp8_all_block),
        cmocka_unit_test(moe_fp8_all_tensor),  cmocka_unit_test(balance_counts_micro_batches),
    };
    if (argc > 2) cmocka_set_test_filter(argv[2]);
    if (argc > 3) device_kind = argv[3];
    fixture_open(&fixture, argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fixture_close(&fixture);
    return failed;
}
