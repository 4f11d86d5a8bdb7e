/* The bf16 dot-product rate of a device that has no entry in the table of known GPUs: measured. */
#ifndef MJ_TRAIN_PEAK_H
#define MJ_TRAIN_PEAK_H

#include "jit/jit.h"
#include "runtime/base/error.h"
#include "runtime/device.h"

/* FLOP/s of all workers together: the best of a few short runs (about 40 ms in all) of the template peak_cpu. `scratch` is device
 * memory of mj_peak_scratch_bytes. MJ_ERR_MISSING on a device that is not a CPU. */
int mj_peak_measure(MjDevice *device, MjJit *jit, void *scratch, double *flops, MjError *err) MJ_MUST_CHECK;
size_t mj_peak_scratch_bytes(const MjDevice *device);

/* Asks the JIT for the kernel that mj_peak_measure needs, to have it in the plan or ready; nothing for targets without one. */
int mj_peak_record(MjJit *jit, MjFamily family, MjError *err) MJ_MUST_CHECK;

#endif
