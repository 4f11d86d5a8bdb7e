/* Loading a shared object from memory. Owns the handle; knows nothing of kernels. Thread-safe. */
#ifndef MJ_RUNTIME_IMAGE_CPU_H
#define MJ_RUNTIME_IMAGE_CPU_H

#include <stddef.h>

#include "runtime/base/error.h"

/* *handle is for dlsym and dlclose. `image` may be freed after the call. MJ_ERR_DATA: not a shared object for this
 * machine, or cut short (the loader would crash on such a file, so it never sees one). */
int mj_image_cpu_load(const void *image, size_t bytes, void **handle, MjError *err) MJ_MUST_CHECK;

#endif
