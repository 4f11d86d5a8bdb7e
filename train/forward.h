/* Small things that forward.c and backward.c share. */
#ifndef MJ_TRAIN_FORWARD_H
#define MJ_TRAIN_FORWARD_H

#include <math.h>

#include "train/dims.h"

static inline float mj_attention_scale(const MjDims *d) { return (float)(1.0 / sqrt((double)d->head_dim)); }

#endif
