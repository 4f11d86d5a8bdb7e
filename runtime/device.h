/* The device seam: one table of functions per kind of device. Owns memory, modules, launches, events.
 * Knows nothing of templates, ops or caches. A member that may be NULL says so.
 *
 * `cpu`: synchronous, a thread pool runs the blocks of a launch; device memory is host memory.
 * `cuda`: asynchronous on one stream; calls that return host data synchronise.
 * One MjDevice may be used from one thread at a time, except `module_load`, which is thread-safe.
 */
#ifndef MJ_RUNTIME_DEVICE_H
#define MJ_RUNTIME_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"

typedef struct MjDevice MjDevice;
typedef struct MjModule MjModule; /* a loaded image */
typedef struct MjKernelFn MjKernelFn; /* an entry point in a module; lives as long as the module */
typedef struct MjEvent MjEvent;
typedef struct MjGraph MjGraph; /* a captured sequence of launches */

/* Instruction family: decides which template of an op is used. */
typedef enum MjFamily { MJ_FAMILY_CPU, MJ_FAMILY_SM80, MJ_FAMILY_SM90A, MJ_FAMILY_SM100 } MjFamily;

typedef struct MjDeviceInfo {
    const char *kind;   /* "cpu" or "cuda" */
    char name[128];     /* "AMD EPYC ...", "NVIDIA H200" */
    char target[64];    /* what images are compiled for: "cpu:avx512_bf16", "sm_90a" */
    MjFamily family;
    int units;          /* worker threads, or multiprocessors */
    size_t memory_bytes;
    double bf16_peak_flops; /* FLOP/s, from the table of known GPUs; 0 = unknown (a CPU's is measured by bench) */
    size_t max_shared_bytes; /* scratch that one block may ask for */
    int driver_version; /* cuda: 13000 = CUDA 13.0; else 0 */
    size_t l2_bytes;    /* cuda: of the L2 cache; 0 = unknown */
    bool fp8;           /* e4m3 and e5m2 products; a cpu computes them in wider types */
    bool lost;          /* cuda: an error came that no kernel is to blame for; every later call fails */
    bool pool;          /* cuda: buffers come from a memory pool; else each is the driver's own, and freeing one waits */
    bool graphs;        /* launches can be captured and replayed (not when each of them is waited for) */
} MjDeviceInfo;

typedef struct MjDeviceCounters { /* since the device was opened */
    uint64_t launches;       /* kernels handed over one by one */
    uint64_t overlapped;     /* of those and of the captured ones: may start while the one before ends */
    uint64_t graph_launches; /* graphs replayed */
    uint64_t graph_nodes;    /* kernels and fills in them */
    uint64_t waits;          /* times that the host waited for the device: to synchronise, to download, for a buffer */
} MjDeviceCounters;

typedef struct MjLaunch {
    uint32_t grid;         /* blocks, >= 1; launches are one-dimensional, kernels decode */
    uint32_t block;        /* threads a block; ignored by cpu, where it is 1 */
    uint32_t cluster;      /* blocks a cluster; 0 or 1 = none */
    size_t shared_bytes;   /* scratch a block; on cpu 64-byte aligned and per worker, not zeroed */
    const void *args;      /* the kernel's argument struct, copied before the call returns */
    size_t args_bytes;     /* <= MJ_MAX_ARG_BYTES */
    const char *label;     /* op name, for errors and profiles; static storage */
    const void *tensor_maps; /* cuda: MjTensorMapBytes, passed by value as the kernel's second parameter; NULL = none */
    size_t tensor_map_bytes;
    /* cuda, sm_90 and later: may start while the launch before it ends. Every thread of the kernel must wait (mj_grid_begin)
     * before it touches global memory. Only right after another launch; elsewhere the device leaves it. */
    bool overlap;
} MjLaunch;

#define MJ_MAX_ARG_BYTES 1024

typedef struct MjDeviceOptions {
    int threads;   /* cpu: worker threads, 0 = all cores allowed to this process */
    int ordinal;   /* cuda: device number */
    const char *isa; /* cpu: force a level ("baseline", "avx2", "avx512", "avx512_bf16"), NULL = the best */
} MjDeviceOptions;

typedef struct MjDeviceOps {
    const char *kind;
    /* What `open` would find, without a context, memory or threads: name, target, family, sizes. */
    int (*probe)(const MjDeviceOptions *opt, MjDeviceInfo *out, MjError *err);
    int (*open)(const MjDeviceOptions *opt, MjDevice **out, MjError *err);
    void (*close)(MjDevice *dev);
    const MjDeviceInfo *(*info)(const MjDevice *dev);
    /* Memory: 256-byte aligned, not zeroed. Never called in the step loop. `free` is in stream order: after the work handed
     * over before it. During a capture alloc is refused, and what is freed is kept until graph_end. */
    int (*alloc)(MjDevice *dev, size_t bytes, const char *what, void **out, MjError *err);
    void (*free)(MjDevice *dev, void *ptr);
    size_t (*allocated_bytes)(const MjDevice *dev); /* now; peak through peak_bytes */
    size_t (*peak_bytes)(const MjDevice *dev);
    size_t (*reserved_bytes)(const MjDevice *dev); /* taken from the system: allocated_bytes, and what is kept for the next alloc */
    int (*upload)(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err);   /* stream order */
    int (*download)(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err); /* blocks */
    int (*fill)(MjDevice *dev, void *dst, int byte, size_t bytes, MjError *err);            /* stream order */
    int (*copy)(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err);     /* on the device; stream order */
    /* Modules: `image` may be freed after the call. Thread-safe. */
    int (*module_load)(MjDevice *dev, const void *image, size_t bytes, MjModule **out, MjError *err);
    void (*module_unload)(MjDevice *dev, MjModule *mod);
    int (*module_function)(MjModule *mod, const char *name, MjKernelFn **out, MjError *err);
    int (*launch)(MjDevice *dev, MjKernelFn *fn, const MjLaunch *launch, MjError *err);
    int (*synchronize)(MjDevice *dev, MjError *err);
    void (*counters)(const MjDevice *dev, MjDeviceCounters *out);
    /* Events; on cpu clock readings. elapsed in milliseconds. */
    int (*event_create)(MjDevice *dev, MjEvent **out, MjError *err);
    void (*event_destroy)(MjDevice *dev, MjEvent *ev);
    int (*event_record)(MjDevice *dev, MjEvent *ev, MjError *err);
    int (*event_elapsed)(MjDevice *dev, MjEvent *from, MjEvent *to, double *ms, MjError *err);
    /* Graphs; NULL where the device has none (cpu). Between begin and end, launches and fills are recorded and not run; what
     * needs the host (upload, download, synchronize) is refused. A graph holds the arguments that it was recorded with.
     * graph_end with out NULL drops what was recorded. */
    int (*graph_begin)(MjDevice *dev, MjError *err);
    int (*graph_end)(MjDevice *dev, MjGraph **out, MjError *err);
    int (*graph_launch)(MjDevice *dev, MjGraph *graph, MjError *err);
    void (*graph_destroy)(MjDevice *dev, MjGraph *graph);
} MjDeviceOps;

struct MjDevice {
    const MjDeviceOps *ops; /* every implementation's struct starts with this */
};

extern const MjDeviceOps mj_device_cpu;
extern const MjDeviceOps mj_device_cuda;

/* Opens a device by kind: "cpu", "cuda", "cuda:1"; NULL = the best that is there. Unknown kinds suggest. */
int mj_device_open(const char *kind, const MjDeviceOptions *opt, MjDevice **out, MjError *err) MJ_MUST_CHECK;
/* What that would find, cheaply: for choosing a device or a target. */
int mj_device_probe(const char *kind, const MjDeviceOptions *opt, MjDeviceInfo *out, MjError *err) MJ_MUST_CHECK;
void mj_device_close(MjDevice *dev); /* NULL is fine */

/* The target that this host's CPU images are compiled for, e.g. "cpu:avx512_bf16": an ISA level, so that the
 * JIT and the embedded generic builds use the same arithmetic. Levels: baseline < avx2 < avx512 < avx512_bf16. */
const char *mj_cpu_target(void);
/* Compiler flags for a CPU target ("-march=..."), NULL for an unknown one. Static storage. */
const char *mj_cpu_target_flags(const char *target);
/* "sm_90a" -> SM90A, "sm_80".."sm_89" -> SM80, "cpu*" -> CPU; PTX has no "a" instructions: "compute_90" -> SM80 */
bool mj_target_fp8(const char *target); /* whether its kernels can multiply FP8: from sm_89 on, and "cpu*" */
bool mj_target_waits(const char *target); /* whether its kernels wait for the launch before, so that they may overlap it: from sm_90 on */
MjFamily mj_target_family(const char *target);

/* A kernel linked into the program (the generic builds): same entry signature as in an image. */
typedef void MjCpuEntry(const void *args, uint32_t first_block, uint32_t last_block, uint32_t grid, void *shared);
int mj_device_cpu_wrap(MjDevice *dev, MjCpuEntry *entry, MjKernelFn **out, MjError *err);

#endif
