/* A training step's loss and gradients in double precision, written from the model's definition with plain loops and
 * apart from kernels and trainer: it shares only the layout of the flat weight buffer, which the caller describes.
 * Routing decisions are given; ref_check_routing says whether they are right. */
#ifndef MJ_TESTS_REFERENCE_STEP_H
#define MJ_TESTS_REFERENCE_STEP_H

#include <stdbool.h>
#include <stdint.h>

enum { REF_MAX_DEPTH = 8 };

typedef struct RefLayer { /* offsets into the flat weights; -1 = there is none */
    int64_t qkv, wo, ffn_up, ffn_down, up, down, router;
    int window;
    const int32_t *expert; /* (n, top_k): -1 = dropped */
} RefLayer;

typedef struct RefModel {
    int depth, width, heads, head_dim, vocab, experts, top_k, hidden, ffn_hidden;
    double softcap;
    bool normalize_gates;
    int64_t embedding, head;
    RefLayer layers[REF_MAX_DEPTH];
} RefModel;

typedef struct RefBatch {
    int n;
    const int32_t *token, *target, *pos;
} RefBatch;

/* Mean loss over the targets >= 0; adds the gradients to `grad` (same layout as `weights`) unless it is NULL. */
double ref_step(const RefModel *m, const RefBatch *b, const double *weights, double *grad);

/* The largest amount by which a score that was not chosen exceeds one that was, over all layers (bias zero). */
double ref_routing_violation(const RefModel *m, const RefBatch *b, const double *weights);

#endif
