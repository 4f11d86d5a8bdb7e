/* The bf16 dot-product rate of a device that has no entry in the table of known GPUs: measured. */
#ifndef MJ_TRAIN_PEAK_H
#define MJ_TRAIN_PEAK_H

#include "jit/jit.h"
#include "runtime/base/error.h"
#include "runtime/device.h"

/* FLOP/s of all workers together, the best of a few short runs (about 40 ms in all) of the template peak_cpu. */
int mj_peak_measure(MjDevice *device, MjJit *jit, double *flops, MjError *err) MJ_MUST_CHECK;

#endif
