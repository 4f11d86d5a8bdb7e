/* TMA descriptors: which tensor in device memory, which box of it one copy moves, how the box is swizzled in shared
 * memory. Checks what the hardware demands before the driver is asked, and says which rule was broken. */
#ifndef MJ_RUNTIME_CUDA_TENSOR_MAP_H
#define MJ_RUNTIME_CUDA_TENSOR_MAP_H

#include <stdint.h>

#include "runtime/device.h"

typedef enum MjTensorMapType { /* CUtensorMapDataType */
    MJ_TENSOR_MAP_U8 = 0,      /* also e4m3 and e5m2 */
    MJ_TENSOR_MAP_F32 = 7,
    MJ_TENSOR_MAP_BF16 = 9
} MjTensorMapType;

typedef enum MjTensorMapSwizzle { /* CUtensorMapSwizzle */
    MJ_TENSOR_MAP_SWIZZLE_NONE = 0,
    MJ_TENSOR_MAP_SWIZZLE_32 = 1,
    MJ_TENSOR_MAP_SWIZZLE_64 = 2,
    MJ_TENSOR_MAP_SWIZZLE_128 = 3
} MjTensorMapSwizzle;

typedef struct MjTensorMapSpec {
    const void *address;         /* device pointer, 16-byte aligned */
    MjTensorMapType type;
    MjTensorMapSwizzle swizzle;
    uint32_t rank;               /* 1..5 */
    uint64_t dims[5];            /* elements, innermost first */
    uint64_t strides[4];         /* bytes between dims 1.., each a multiple of 16 */
    uint32_t box[5];             /* elements, each 1..256; box[0] bytes: a multiple of 16, at most the swizzle's width */
} MjTensorMapSpec;

/* 128 bytes, 64-byte aligned: what ptx.cuh calls MjTensorMap. Reads outside the tensor give zero. */
typedef struct MjTensorMapBytes {
    _Alignas(64) uint64_t opaque[16];
} MjTensorMapBytes;

/* MJ_ERR_USAGE names the broken rule; `what` names the operand in messages. */
int mj_cuda_tensor_map(const MjTensorMapSpec *spec, const char *what, MjTensorMapBytes *out, MjError *err) MJ_MUST_CHECK;

#endif
