/* Where the cuda device's buffers come from: a memory pool of the driver's, private to the device ("Stream Ordered Memory
 * Allocator", CUDA Driver API; drivers since 11.2). An allocation and a free are entries of the device's one stream, like the
 * launches between them, so neither waits: memory freed here is the next buffer's as soon as the stream gets there. Each
 * buffer is still an allocation of its own to the driver and to compute-sanitizer. The pool keeps what is freed until the
 * device is closed, except when an allocation finds no memory: then the unused part goes back to the system first.
 *
 * Where the device has no pools (CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: some virtual GPUs), a buffer is cuMemAlloc's.
 * Knows nothing of what buffers hold: cuda_memory.c. */
#include "runtime/cuda_device.h"

int mj_cuda_pool_open(CudaDevice *d, MjError *err) {
    MjCuMemPoolProps props = {.type = MJ_CU_MEM_PINNED, .location = {MJ_CU_MEM_ON_DEVICE, d->device}};
    uint64_t keep = UINT64_MAX;
    int rc = 0;
    if (!d->info.pool) return 0;
    CU(d, MemPoolCreate(&d->pool, &props), NULL);
    /* Without it, each synchronisation would give the unused part back. */
    CU(d, MemPoolSetAttribute(d->pool, MJ_CU_POOL_RELEASE_THRESHOLD, &keep), "release threshold");
out:
    return rc;
}

/* A pool outlives its context, and a destroyed one its last free; so the frees are waited for. */
void mj_cuda_pool_close(CudaDevice *d) {
    if (d->pool == NULL) return;
    (void)d->cu->StreamSynchronize(d->stream); /* closing: nobody is left to tell */
    (void)d->cu->MemPoolDestroy(d->pool);
    d->pool = NULL;
}

static size_t read_size(const CudaDevice *d, int attribute) {
    uint64_t value = 0;
    if (d->pool == NULL || d->cu->MemPoolGetAttribute(d->pool, attribute, &value) != MJ_CU_SUCCESS) return 0;
    return (size_t)value;
}

size_t mj_cuda_pool_unused(const CudaDevice *d) {
    const size_t reserved = read_size(d, MJ_CU_POOL_RESERVED), used = read_size(d, MJ_CU_POOL_USED);
    return reserved > used ? reserved - used : 0;
}

size_t mj_cuda_reserved_bytes(const MjDevice *dev) {
    const CudaDevice *d = (const CudaDevice *)dev;
    return d->pool != NULL ? read_size(d, MJ_CU_POOL_RESERVED) : d->now_bytes;
}

/* Gives the system what no buffer lies on. The driver may count a free as pending until the host has seen it done. */
static int trim(CudaDevice *d, MjError *err) {
    int rc = 0;
    d->counters.waits++;
    CU(d, StreamSynchronize(d->stream), "freed buffers");
    CU(d, MemPoolTrimTo(d->pool, 0), NULL);
out:
    return rc;
}

int mj_cuda_pool_take(CudaDevice *d, size_t bytes, const char *what, MjCuPtr *out, MjError *err) {
    const char *call = d->pool != NULL ? "cuMemAllocFromPoolAsync" : "cuMemAlloc";
    MjCuResult r = d->pool != NULL ? d->cu->MemAllocFromPoolAsync(out, bytes, d->pool, d->stream) : d->cu->MemAlloc(out, bytes);
    int rc = 0;
    d->after_kernel = false;
    if (r == MJ_CU_OUT_OF_MEMORY && d->pool != NULL) {
        MJ_TRY(trim(d, err));
        r = d->cu->MemAllocFromPoolAsync(out, bytes, d->pool, d->stream);
    }
    if (r != MJ_CU_SUCCESS) rc = mj_cuda_async_error(d, r, call, what, err);
out:
    return rc;
}

void mj_cuda_pool_give(CudaDevice *d, MjCuPtr ptr) {
    d->after_kernel = false;
    if (d->pool != NULL) {
        (void)d->cu->MemFreeAsync(ptr, d->stream);
        return;
    }
    d->counters.waits++; /* the driver waits for the device before it frees */
    (void)d->cu->MemFree(ptr);
}
