/* The public interface of libmojit, whole: include this, link with `pkg-config --cflags --libs mojit`.
 *
 * Errors are values (runtime/base/error.h); nothing here prints. Bottom to top:
 *   runtime/device.h  a device: memory, images, launches        runtime/comm.h  ranks
 *   cache/cache.h     compiled images on disk                   jit/jit.h       specialised kernels on request
 *   ops/ops.h         operations, their launches and references
 *   train/config.h    settings from files                       train/train.h   a training run
 * Each header says who owns what, what blocks and from which threads it may be called.
 */
#ifndef MOJIT_H
#define MOJIT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "cache/cache.h"
#include "jit/jit.h"
#include "ops/ops.h"
#include "runtime/base/error.h"
#include "runtime/base/version.h"
#include "runtime/comm.h"
#include "runtime/device.h"
#include "train/config.h"
#include "train/train.h"

#ifdef __cplusplus
}
#endif
#endif
