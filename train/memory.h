/* Device memory of a configuration by a formula, kept apart from the code that allocates. */
#ifndef MJ_TRAIN_MEMORY_H
#define MJ_TRAIN_MEMORY_H

#include <stddef.h>

#include "train/dims.h"

/* Bytes, from P weights, N padded tokens, R routed rows and L layers; docs/memory.md spells the formula out:
 *   weights   16 P (master, two moments, gradient) + 2 or 1 for each matrix weight's bf16 or fp8 working copy
 *   layers    L times what the backward pass reads again
 *   ends      embedding, last norm, residual gradient
 *   scratch   the backward pass of one layer and the logits of one chunk
 * `kmajor`: the device keeps transposed fp8 weights. */
size_t mj_memory_predict(const MjDims *d, bool kmajor);

/* And on a cpu for every worker thread: the tiles of its matrix kernels. */
#define MJ_MEMORY_WORKER_BYTES (752u << 10)

#endif
