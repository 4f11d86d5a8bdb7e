/* One optimizer step: micro-batches onto the device, forward, backward, gradient norm, AdamW, balancing; and evaluation.
 * Owns the host side of a batch; knows nothing of files' order, callbacks and clocks. */
#ifndef MJ_TRAIN_STEP_H
#define MJ_TRAIN_STEP_H

#include "jit/mode.h"
#include "train/data.h"
#include "train/model.h"
#include "train/step_graph.h"

typedef struct MjStep {
    MjModel *model;
    const MjMode *mode;
    MjBucket bucket;
    int32_t least;      /* tokens that no micro-batch is padded to less than */
    int32_t n_batches;  /* grad_accum */
    MjBatch *batches;   /* (n_batches), each with room for max_tokens */
    int32_t *padded;    /* (n_batches) */
    size_t *at;         /* (n_batches + 1): where each one's input begins, in bytes */
    char *input;        /* (n_batches, model->input_bytes) at most: the padded micro-batches, one after the other, for the device */
    MjStepGraphs graphs;
    const MjOptimizerConfig *optimizer;
    int32_t total_steps;
} MjStep;

typedef struct MjStepResult {
    double loss;        /* nats a target */
    double grad_norm;
    int64_t tokens;     /* live */
    int64_t padded_rows, dropped_rows;
    MjDeviceCounters device; /* from the step's first launch to its last */
} MjStepResult;

void mj_step_open(MjStep *s, MjModel *model, const MjMode *mode, MjBucket bucket, const MjConfig *config);
void mj_step_close(MjStep *s);

/* The padded size of a micro-batch. Where buckets round and rows are packed full, the rest of an evaluation is padded to a whole
 * batch, the one size that a run has: its masked rows cost less than a second set of kernels. */
int32_t mj_step_pad(const MjStep *s, int32_t tokens);

/* The learning rate's factor of step `step` (from 0): linear warm-up, constant, linear warm-down to final_lr. */
double mj_step_schedule(const MjOptimizerConfig *o, int32_t step, int32_t total);

/* Step `step` (from 0) of the batches that are loaded: forward, backward, gradient norm, AdamW on all groups, balancing
 * bias, working copies; then reads back loss, gradient norm and routing statistics, and blocks until they are there. When
 * loss or norm is not finite, weights and optimizer state stay as they were, and the gradients are kept. */
int mj_step_run(MjStep *s, int32_t step, MjStepResult *out, MjError *err) MJ_MUST_CHECK;
/* The same without the update: adds to the gradients, which an update leaves zero. */
int mj_step_gradients(MjStep *s, MjStepResult *out, MjError *err) MJ_MUST_CHECK;
/* The loss of batches[0] alone: sum of nats over its targets. */
int mj_step_evaluate(MjStep *s, double *nats, MjError *err) MJ_MUST_CHECK;

/* Asks the JIT, which must be recording, for every kernel of a step or an evaluation of this padded size. */
int mj_step_record(MjStep *s, int32_t padded, bool train, MjError *err) MJ_MUST_CHECK;

#endif
