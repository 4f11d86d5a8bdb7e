/* The part of the CUDA driver API that mojit calls: own declarations of its types and a table of its functions, filled
 * at run time from libcuda.so.1. Nothing CUDA is linked and no CUDA header is needed to build.
 *
 * Types and values follow the public "CUDA Driver API" reference (driver 12.0 and later). Private to runtime/ and tests.
 */
#ifndef MJ_RUNTIME_CUDA_API_H
#define MJ_RUNTIME_CUDA_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"

typedef int MjCuResult; /* CUresult */
typedef int MjCuDevice;
typedef uint64_t MjCuPtr; /* CUdeviceptr */
typedef struct MjCuContext_ *MjCuContext;
typedef struct MjCuStream_ *MjCuStream;
typedef struct MjCuEvent_ *MjCuEvent;
typedef struct MjCuLibrary_ *MjCuLibrary;
typedef struct MjCuKernel_ *MjCuKernel; /* also accepted where the API takes a CUfunction */
typedef struct MjCuGraph_ *MjCuGraph;
typedef struct MjCuGraphExec_ *MjCuGraphExec;
typedef struct MjCuMemPool_ *MjCuMemPool; /* CUmemoryPool */

enum {
    MJ_CU_SUCCESS = 0,
    MJ_CU_INVALID_VALUE = 1,
    MJ_CU_OUT_OF_MEMORY = 2,
    MJ_CU_STUB_LIBRARY = 34,
    MJ_CU_NO_DEVICE = 100,
    MJ_CU_INVALID_DEVICE = 101,
    MJ_CU_INVALID_IMAGE = 200,
    MJ_CU_NO_BINARY_FOR_GPU = 209,
    MJ_CU_ECC_UNCORRECTABLE = 214,
    MJ_CU_INVALID_PTX = 218,
    MJ_CU_NVLINK_UNCORRECTABLE = 220,
    MJ_CU_UNSUPPORTED_PTX_VERSION = 222,
    MJ_CU_CONTAINED = 226,
    MJ_CU_INVALID_HANDLE = 400,
    MJ_CU_NOT_FOUND = 500,
    MJ_CU_NOT_READY = 600,
    MJ_CU_ILLEGAL_ADDRESS = 700,
    MJ_CU_LAUNCH_OUT_OF_RESOURCES = 701,
    MJ_CU_LAUNCH_TIMEOUT = 702,
    MJ_CU_ASSERT = 710,
    MJ_CU_HARDWARE_STACK_ERROR = 714,
    MJ_CU_ILLEGAL_INSTRUCTION = 715,
    MJ_CU_MISALIGNED_ADDRESS = 716,
    MJ_CU_INVALID_PC = 718,
    MJ_CU_LAUNCH_FAILED = 719,
    MJ_CU_NOT_SUPPORTED = 801,
    MJ_CU_SYSTEM_NOT_READY = 802,
    MJ_CU_SYSTEM_DRIVER_MISMATCH = 803,
    MJ_CU_STREAM_CAPTURE_UNSUPPORTED = 900,
    MJ_CU_EXTERNAL_DEVICE = 911,
    MJ_CU_INVALID_CLUSTER_SIZE = 912
};

enum { /* CUdevice_attribute */
    MJ_CU_DEV_MULTIPROCESSOR_COUNT = 16,
    MJ_CU_DEV_L2_BYTES = 38,
    MJ_CU_DEV_COMPUTE_MAJOR = 75,
    MJ_CU_DEV_COMPUTE_MINOR = 76,
    MJ_CU_DEV_MAX_SHARED_OPTIN = 97,
    MJ_CU_DEV_MEMORY_POOLS = 115
};

enum { /* CUfunction_attribute */
    MJ_CU_FUNC_MAX_THREADS_PER_BLOCK = 0,
    MJ_CU_FUNC_SHARED_BYTES = 1,
    MJ_CU_FUNC_LOCAL_BYTES = 3,
    MJ_CU_FUNC_REGISTERS = 4,
    MJ_CU_FUNC_MAX_DYNAMIC_SHARED = 8,
    MJ_CU_FUNC_NON_PORTABLE_CLUSTER = 14
};

enum { /* CUlaunchAttributeID */
    MJ_CU_LAUNCH_CLUSTER_DIMENSION = 4,
    MJ_CU_LAUNCH_PROGRAMMATIC_SERIALIZATION = 6
};

enum { /* CUmemPool_attribute; all of them 64-bit */
    MJ_CU_POOL_RELEASE_THRESHOLD = 4,
    MJ_CU_POOL_RESERVED = 5, /* backing memory that the pool holds */
    MJ_CU_POOL_USED = 7      /* of it, what its allocations lie on */
};

enum { MJ_CU_MEM_PINNED = 1, MJ_CU_MEM_ON_DEVICE = 1 }; /* CUmemAllocationType, CUmemLocationType */

typedef struct MjCuMemPoolProps {
    int type;         /* MJ_CU_MEM_PINNED, the only one */
    int handle_types; /* 0: not shared with other processes */
    struct {
        int type, id;
    } location; /* MJ_CU_MEM_ON_DEVICE, the device */
    void *security;
    size_t max_bytes; /* 0: the device's */
    unsigned char reserved[56]; /* zero */
} MjCuMemPoolProps;
_Static_assert(sizeof(MjCuMemPoolProps) == 88, "CUmemPoolProps has 88 bytes");

enum { MJ_CU_STREAM_NON_BLOCKING = 1, MJ_CU_CAPTURE_THREAD_LOCAL = 1, MJ_CU_EVENT_DISABLE_TIMING = 2 };

typedef struct MjCuLaunchAttribute {
    int id;
    char pad[4];
    union {
        char pad[64];
        struct {
            unsigned x, y, z;
        } cluster;
        int programmatic;
    } value;
} MjCuLaunchAttribute;

typedef struct MjCuLaunchConfig {
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    MjCuStream stream;
    MjCuLaunchAttribute *attrs;
    unsigned n_attrs;
} MjCuLaunchConfig;

/* CUtensorMapDataType, CUtensorMapSwizzle and the like are passed as their numbers; see runtime/cuda_tensor_map.h. */

/* X(name without "cu", (parameters)): every entry point is required. */
#define MJ_CU_POOL_FUNCTIONS(X)                                                                               \
    X(MemPoolCreate, (MjCuMemPool * pool, const MjCuMemPoolProps *props))                                     \
    X(MemPoolDestroy, (MjCuMemPool pool))                                                                     \
    X(MemPoolTrimTo, (MjCuMemPool pool, size_t keep_bytes))                                                   \
    X(MemPoolSetAttribute, (MjCuMemPool pool, int attribute, void *value))                                    \
    X(MemPoolGetAttribute, (MjCuMemPool pool, int attribute, void *value))                                    \
    X(MemAllocFromPoolAsync, (MjCuPtr * ptr, size_t bytes, MjCuMemPool pool, MjCuStream stream))              \
    X(MemFreeAsync, (MjCuPtr ptr, MjCuStream stream))
#define MJ_CU_FUNCTIONS(X)                                                                                    \
    X(Init, (unsigned flags))                                                                                 \
    X(DriverGetVersion, (int *version))                                                                       \
    X(GetErrorName, (MjCuResult r, const char **name))                                                        \
    X(GetErrorString, (MjCuResult r, const char **text))                                                      \
    X(DeviceGetCount, (int *count))                                                                           \
    X(DeviceGet, (MjCuDevice * dev, int ordinal))                                                             \
    X(DeviceGetName, (char *name, int len, MjCuDevice dev))                                                   \
    X(DeviceGetAttribute, (int *value, int attribute, MjCuDevice dev))                                        \
    X(DeviceTotalMem, (size_t * bytes, MjCuDevice dev))                                                       \
    X(DevicePrimaryCtxRetain, (MjCuContext * ctx, MjCuDevice dev))                                            \
    X(DevicePrimaryCtxRelease, (MjCuDevice dev))                                                              \
    X(CtxSetCurrent, (MjCuContext ctx))                                                                       \
    X(MemGetInfo, (size_t * free_bytes, size_t * total))                                                      \
    X(MemAlloc, (MjCuPtr * ptr, size_t bytes))                                                                \
    X(MemFree, (MjCuPtr ptr))                                                                                 \
    MJ_CU_POOL_FUNCTIONS(X)                                                                                   \
    X(MemHostAlloc, (void **ptr, size_t bytes, unsigned flags))                                               \
    X(MemFreeHost, (void *ptr))                                                                               \
    X(MemcpyHtoDAsync, (MjCuPtr dst, const void *src, size_t bytes, MjCuStream stream))                       \
    X(MemcpyDtoHAsync, (void *dst, MjCuPtr src, size_t bytes, MjCuStream stream))                             \
    X(MemcpyDtoDAsync, (MjCuPtr dst, MjCuPtr src, size_t bytes, MjCuStream stream))                           \
    X(MemsetD8Async, (MjCuPtr dst, unsigned char byte, size_t bytes, MjCuStream stream))                      \
    X(StreamCreate, (MjCuStream * stream, unsigned flags))                                                    \
    X(StreamDestroy, (MjCuStream stream))                                                                     \
    X(StreamSynchronize, (MjCuStream stream))                                                                 \
    X(StreamBeginCapture, (MjCuStream stream, int mode))                                                      \
    X(StreamEndCapture, (MjCuStream stream, MjCuGraph * graph))                                               \
    X(GraphGetNodes, (MjCuGraph graph, void **nodes, size_t *n_nodes))                                        \
    X(GraphInstantiateWithFlags, (MjCuGraphExec * exec, MjCuGraph graph, unsigned long long flags))           \
    X(GraphLaunch, (MjCuGraphExec exec, MjCuStream stream))                                                   \
    X(GraphDestroy, (MjCuGraph graph))                                                                        \
    X(GraphExecDestroy, (MjCuGraphExec exec))                                                                 \
    X(EventCreate, (MjCuEvent * event, unsigned flags))                                                       \
    X(EventDestroy, (MjCuEvent event))                                                                        \
    X(EventRecord, (MjCuEvent event, MjCuStream stream))                                                      \
    X(EventSynchronize, (MjCuEvent event))                                                                    \
    X(EventElapsedTime, (float *ms, MjCuEvent from, MjCuEvent to))                                            \
    X(LibraryLoadData,                                                                                        \
      (MjCuLibrary * lib, const void *image, int *jit_options, void **jit_values, unsigned n_jit,             \
       int *lib_options, void **lib_values, unsigned n_lib))                                                  \
    X(LibraryUnload, (MjCuLibrary lib))                                                                       \
    X(LibraryGetKernel, (MjCuKernel * kernel, MjCuLibrary lib, const char *name))                             \
    X(KernelGetAttribute, (int *value, int attribute, MjCuKernel kernel, MjCuDevice dev))                     \
    X(KernelSetAttribute, (int attribute, int value, MjCuKernel kernel, MjCuDevice dev))                      \
    X(LaunchKernelEx, (const MjCuLaunchConfig *config, MjCuKernel fn, void **params, void **extra))           \
    X(TensorMapEncodeTiled,                                                                                   \
      (void *map, int type, unsigned rank, void *address, const uint64_t *dims, const uint64_t *strides,      \
       const uint32_t *box, const uint32_t *element_strides, int interleave, int swizzle, int l2, int fill))

typedef struct MjCuda {
    void *library;
    int driver_version; /* 13000 = CUDA 13.0 */
#define MJ_CU_MEMBER(name, params) MjCuResult(*name) params;
    MJ_CU_FUNCTIONS(MJ_CU_MEMBER)
#undef MJ_CU_MEMBER
} MjCuda;

/* The lowest driver that has every function above. */
#define MJ_CU_MIN_DRIVER 12000

/* Opens a shared library by the first of the sonames (ends with NULL) that loads: from the folder named by
 * MOJIT_CUDA_LIBRARY_PATH alone if that is set, else by the loader and then in /usr/local/cuda/lib64. NULL if none;
 * then `why` (may be NULL) says what each attempt answered. */
void *mj_cuda_dlopen(const char *const *sonames, char *why, size_t cap);

/* Opens and initialises the driver once for the process; later calls give the same table. Thread-safe.
 * MJ_ERR_MISSING: no library, no device, or a driver too old; the message says which and what to install. */
int mj_cuda_get(const MjCuda **out, MjError *err) MJ_MUST_CHECK;

/* Whether there is a driver's library at all, of any version. Loads it like mj_cuda_get. */
bool mj_cuda_driver_found(void);

/* Fills err with "cuCall(what): NAME (n): text" and what that means for the user; returns MJ_ERR_DEVICE,
 * MJ_ERR_MEMORY or MJ_ERR_MISSING. */
int mj_cuda_error(const MjCuda *cu, MjCuResult r, const char *call, const char *what, MjError *err);

/* Whether a result means that the device is gone for this process, through no kernel's fault. */
bool mj_cuda_lost(MjCuResult r);

/* Peak dense bf16 tensor FLOP/s of a known GPU by its name, 0 if unknown. */
double mj_cuda_bf16_peak(const char *name);

#endif
