/* What the parts of the cuda device share: its state, errors, the current context. Not for other folders, nor for the rest
 * of runtime/: they see device.h. */
#ifndef MJ_RUNTIME_CUDA_DEVICE_H
#define MJ_RUNTIME_CUDA_DEVICE_H

#include <pthread.h>

#include "runtime/cuda_api.h"
#include "runtime/device.h"

#define MJ_CUDA_STAGING_BYTES ((size_t)4 << 20)
#define MJ_CUDA_STAGING_BUFFERS 2
#define MJ_CUDA_RECENT_LAUNCHES 8

typedef struct CudaAllocation {
    MjCuPtr ptr;
    size_t bytes;
    bool dropped; /* freed while a graph was captured: goes back when the capture ends */
    char what[48];
} CudaAllocation;

typedef struct CudaStaging {
    void *host;        /* pinned, MJ_CUDA_STAGING_BYTES */
    MjCuEvent in_use;  /* recorded after the last copy that reads it */
    bool pending;
} CudaStaging;

typedef struct CudaRecentLaunch {
    const char *label;
    char kernel[64];
    uint32_t grid, block, cluster;
    size_t shared_bytes;
} CudaRecentLaunch;

typedef struct CudaDevice {
    MjDevice base;
    const MjCuda *cu;
    MjCuDevice device;
    MjCuContext context;
    MjCuStream stream;
    MjDeviceInfo info;
    MjCuMemPool pool; /* where buffers come from; NULL: the device has none, and each is cuMemAlloc's */
    CudaAllocation *allocations; /* n_allocations of cap_allocations */
    size_t n_allocations, cap_allocations;
    size_t now_bytes, peak_bytes;
    CudaStaging staging[MJ_CUDA_STAGING_BUFFERS];
    int next_staging;
    CudaRecentLaunch recent[MJ_CUDA_RECENT_LAUNCHES];
    uint64_t launches; /* all of them, captured ones too: where the next one goes in `recent` */
    MjDeviceCounters counters;
    uint64_t last_graph; /* nodes of the graph, if what was handed over last was one */
    bool sync_launches, capturing;
    bool after_kernel; /* what was enqueued (or captured) last is a kernel of mojit's: the next one may overlap it */
} CudaDevice;

static inline CudaDevice *mj_cuda_device(MjDevice *dev) { return (CudaDevice *)dev; }

/* The context is per thread in the driver. */
int mj_cuda_make_current(CudaDevice *d, MjError *err);

/* An error that may come from any launch since the last synchronisation: names the candidates, newest first. */
int mj_cuda_async_error(CudaDevice *d, MjCuResult r, const char *call, const char *what, MjError *err);

int mj_cuda_refuse_in_capture(CudaDevice *d, const char *call, MjError *err);

/* Calls the driver; an error is reported with the call's name, and goes to `out`. */
#define CU(d, call, what)                                                                                     \
    do {                                                                                                      \
        MjCuResult r_ = (d)->cu->call;                                                                        \
        if (r_ != MJ_CU_SUCCESS) {                                                                            \
            rc = mj_cuda_async_error((d), r_, "cu" #call, (what), err);                                       \
            goto out;                                                                                         \
        }                                                                                                     \
    } while (0)

/* cuda_pool.c: memory of the stream's order. */
int mj_cuda_pool_open(CudaDevice *d, MjError *err);
void mj_cuda_pool_close(CudaDevice *d); /* after the last buffer was given back */
int mj_cuda_pool_take(CudaDevice *d, size_t bytes, const char *what, MjCuPtr *out, MjError *err);
void mj_cuda_pool_give(CudaDevice *d, MjCuPtr ptr);
size_t mj_cuda_pool_unused(const CudaDevice *d); /* bytes that the pool holds and no buffer lies on */
void mj_cuda_free_dropped(CudaDevice *d); /* cuda_memory.c: what was freed during the capture that has just ended */

/* Members of mj_device_cuda. cuda_memory.c: */
int mj_cuda_staging_open(CudaDevice *d, MjError *err);
void mj_cuda_memory_close(CudaDevice *d); /* staging buffers and whatever is still allocated */
int mj_cuda_alloc(MjDevice *dev, size_t bytes, const char *what, void **out, MjError *err);
void mj_cuda_free(MjDevice *dev, void *ptr);
size_t mj_cuda_allocated_bytes(const MjDevice *dev);
size_t mj_cuda_peak_bytes(const MjDevice *dev);
size_t mj_cuda_reserved_bytes(const MjDevice *dev); /* cuda_pool.c */
int mj_cuda_upload(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err);
int mj_cuda_download(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err);
int mj_cuda_fill(MjDevice *dev, void *dst, int byte, size_t bytes, MjError *err);
int mj_cuda_copy(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err);
/* cuda_module.c: */
int mj_cuda_module_load(MjDevice *dev, const void *image, size_t bytes, MjModule **out, MjError *err);
void mj_cuda_module_unload(MjDevice *dev, MjModule *mod);
int mj_cuda_module_function(MjModule *mod, const char *name, MjKernelFn **out, MjError *err);
int mj_cuda_launch(MjDevice *dev, MjKernelFn *fn, const MjLaunch *l, MjError *err);
int mj_cuda_synchronize(MjDevice *dev, MjError *err);
/* cuda_graph.c: */
int mj_cuda_event_create(MjDevice *dev, MjEvent **out, MjError *err);
void mj_cuda_event_destroy(MjDevice *dev, MjEvent *ev);
int mj_cuda_event_record(MjDevice *dev, MjEvent *ev, MjError *err);
int mj_cuda_event_elapsed(MjDevice *dev, MjEvent *from, MjEvent *to, double *ms, MjError *err);
int mj_cuda_graph_begin(MjDevice *dev, MjError *err);
int mj_cuda_graph_end(MjDevice *dev, MjGraph **out, MjError *err);
int mj_cuda_graph_launch(MjDevice *dev, MjGraph *graph, MjError *err);
void mj_cuda_graph_destroy(MjDevice *dev, MjGraph *graph);

#endif
