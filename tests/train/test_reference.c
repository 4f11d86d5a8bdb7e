/* The double-precision reference itself, by central differences along random directions, one tensor at a time. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reference_step.h"

enum { N = 11, W = 8, V = 13, E = 3, K = 2, F = 6, S = 5 };

static double next(uint64_t *s) { /* in (-1, 1) */
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(*s >> 11) * 0x1p-52 - 1;
}

static int64_t place(int64_t *total, int64_t n) {
    *total += n;
    return *total - n;
}

static void check(bool moe, bool normalize) {
    static const int32_t token[N] = {12, 3, 4, 4, 9, 0, 12, 1, 2, 3, 3}, pos[N] = {0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4};
    static const int32_t target[N] = {3, 4, 4, 9, -1, 7, 1, 2, 3, 3, 0};
    int32_t expert[N * K];
    RefModel m = {.depth = 2, .width = W, .heads = 2, .head_dim = 4, .vocab = V, .experts = moe ? E : 0, .top_k = moe ? K : 0,
                  .hidden = moe ? F : 0, .ffn_hidden = S, .softcap = 3, .normalize_gates = normalize};
    struct { const char *name; int64_t from, n; } parts[32];
    int n_parts = 0;
    int64_t total = 0;
#define PART(field, label, size) (parts[n_parts].name = (label), parts[n_parts].n = (size), \
                                  parts[n_parts].from = (field) = place(&total, (size)), n_parts++)
    for (int i = 0; i < N; i++) {
        expert[i * K] = i % E;
        expert[i * K + 1] = (i + 1 + i % 2) % E;
    }
    PART(m.embedding, "embedding", V * W);
    PART(m.head, "head", V * W);
    for (int i = 0; i < m.depth; i++) {
        RefLayer *l = &m.layers[i];
        PART(l->qkv, "qkv", 3 * W * W);
        PART(l->wo, "wo", W * W);
        PART(l->ffn_up, "ffn up", S * W);
        PART(l->ffn_down, "ffn down", W * S);
        if (moe) {
            PART(l->up, "experts up", E * F * W);
            PART(l->down, "experts down", E * W * F);
            PART(l->router, "router", E * W);
        }
        l->window = i == 0 ? 3 : 100;
        l->expert = expert;
    }
    double *w = calloc((size_t)total, sizeof *w), *g = calloc((size_t)total, sizeof *g), *moved = calloc((size_t)total, sizeof *w);
    double *direction = calloc((size_t)total, sizeof *w);
    uint64_t seed = 5;
    for (int64_t i = 0; i < total; i++) w[i] = 0.7 * next(&seed);
    RefBatch b = {.n = N, .token = token, .target = target, .pos = pos};
    (void)ref_step(&m, &b, w, g);
    for (int p = 0; p < n_parts; p++) {
        double want = 0, h = 1e-5, side[2];
        for (int64_t i = 0; i < parts[p].n; i++) {
            direction[i] = next(&seed);
            want += direction[i] * g[parts[p].from + i];
        }
        for (int k = 0; k < 2; k++) {
            memcpy(moved, w, (size_t)total * sizeof *w);
            for (int64_t i = 0; i < parts[p].n; i++) moved[parts[p].from + i] += (k == 0 ? h : -h) * direction[i];
            side[k] = ref_step(&m, &b, moved, NULL);
        }
        double got = (side[0] - side[1]) / (2 * h);
        if (fabs(got - want) > 1e-6 * (fabs(want) + 1e-3)) {
            fail_msg("%s (moe=%d normalize=%d): difference quotient %.12g, gradient %.12g", parts[p].name, moe, normalize, got, want);
        }
    }
    free(w);
    free(g);
    free(moved);
    free(direction);
}

static void dense(void **state) {
    (void)state;
    check(false, false);
}

static void mixture(void **state) {
    (void)state;
    check(true, false);
    check(true, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(dense), cmocka_unit_test(mixture)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
