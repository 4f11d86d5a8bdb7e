/* Sizes that follow from a configuration: layer shapes, padded and routed rows, FLOPs. Owns no memory. */
#ifndef MJ_TRAIN_DIMS_H
#define MJ_TRAIN_DIMS_H

#include <stdbool.h>
#include <stdint.h>

#include "jit/mode.h"
#include "runtime/base/error.h"
#include "train/config.h"

#define MJ_MAX_DEPTH 128

typedef struct MjDims {
    int32_t depth, width, heads, head_dim;
    int32_t vocab, vocab_padded;  /* padded to 128: rows of the head. The embedding has vocab + 1, the last one zeros */
    int32_t experts, top_k;       /* experts 0: dense */
    int32_t hidden;               /* F of a routed expert */
    int32_t ffn_hidden;           /* F of the part that every token passes: dense MLP or all shared experts; may be 0 */
    int32_t seq_len, max_tokens;  /* of a micro-batch, the latter padded to 128 */
    int32_t loss_chunk;
    int32_t micro_batches;        /* of a step */
    double capacity_factor;       /* 0 = dropless */
    bool fp8_linears, fp8_experts, tensor_recipe;
    int32_t window[MJ_MAX_DEPTH];
} MjDims;

/* Checks the configuration too. */
int mj_dims_make(const MjConfig *config, MjDims *out, MjError *err) MJ_MUST_CHECK;

/* Refuses, by the settings' names, what the configuration asks of a target (`name`: of the device, for the message) that it
 * cannot do. */
int mj_dims_check_target(const MjDims *d, const char *name, const char *target, MjError *err) MJ_MUST_CHECK;

/* Rows that each expert has in the capacity layout for a step of `tokens`; 0 for dropless. A multiple of 128. */
int32_t mj_dims_capacity(const MjDims *d, int32_t tokens);
/* Routed rows R for a step of `tokens` (padded). */
int32_t mj_dims_rows(const MjDims *d, int32_t tokens);

int64_t mj_dims_parameters(const MjDims *d);        /* all */
int64_t mj_dims_matrix_weights(const MjDims *d);    /* matrix weights that a token uses, head included */
double mj_dims_flops_per_token(const MjDims *d);    /* forward and backward: 6 weights + sum of 12 width min(window, T) */

#endif
