/* What NVIDIA's management library says of the GPUs of this machine: use and memory, all of them, whether this process has
 * opened one or not. Opened at run time; owns the library's handle. Numbered as nvidia-smi does, which CUDA_VISIBLE_DEVICES
 * does not change. Thread-safe. */
#ifndef MJ_RUNTIME_NVML_H
#define MJ_RUNTIME_NVML_H

#include "runtime/base/error.h"

typedef struct MjNvmlSample {
    char name[96];
    double utilisation;                /* 0 to 1, of the time in which a kernel ran; NaN where the card does not say */
    double memory_used, memory_total;  /* bytes, of all processes; NaN likewise */
} MjNvmlSample;

/* Opens and initialises the library once for the process; a failure is remembered as well. MJ_ERR_MISSING: no library, a
 * driver older than 525, or a library that does not fit the driver; the message says which. */
int mj_nvml_open(MjError *err) MJ_MUST_CHECK;

/* All below: after mj_nvml_open. */
const char *mj_nvml_version(void); /* "NVML 13.580.82, driver 580.82.07" */
int mj_nvml_count(void);
int mj_nvml_sample(int device, MjNvmlSample *out, MjError *err) MJ_MUST_CHECK;

#endif
