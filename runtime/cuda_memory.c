/* Memory of the cuda device: which buffer holds what, copies through pinned staging, fills. All of it in the order of the
 * device's one stream. Where buffers come from is cuda_pool.c's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"
#include "runtime/base/str.h"
#include "runtime/cuda_device.h"

int mj_cuda_staging_open(CudaDevice *d, MjError *err) {
    int rc = 0;
    for (int i = 0; i < MJ_CUDA_STAGING_BUFFERS; i++) {
        CU(d, MemHostAlloc(&d->staging[i].host, MJ_CUDA_STAGING_BYTES, 0), "pinned staging buffer");
        CU(d, EventCreate(&d->staging[i].in_use, MJ_CU_EVENT_DISABLE_TIMING), NULL);
    }
out:
    return rc;
}

void mj_cuda_memory_close(CudaDevice *d) {
    for (int i = 0; i < MJ_CUDA_STAGING_BUFFERS; i++) {
        if (d->staging[i].in_use != NULL) (void)d->cu->EventDestroy(d->staging[i].in_use);
        if (d->staging[i].host != NULL) (void)d->cu->MemFreeHost(d->staging[i].host);
    }
    for (size_t i = 0; i < d->n_allocations; i++) mj_cuda_pool_give(d, d->allocations[i].ptr);
    mj_cuda_pool_close(d);
    free(d->allocations);
}

static int compare_size(const void *a, const void *b) {
    const size_t x = ((const CudaAllocation *)a)->bytes, y = ((const CudaAllocation *)b)->bytes;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* What was asked for, what is free, what holds the rest, which settings shrink it. */
static int out_of_memory(CudaDevice *d, size_t bytes, const char *what, MjError *err) {
    size_t free_bytes = 0, total = 0;
    if (d->cu->MemGetInfo(&free_bytes, &total) != MJ_CU_SUCCESS) total = d->info.memory_bytes;
    free_bytes += mj_cuda_pool_unused(d); /* the driver's, but this run's for the asking */
    MjStr held = MJ_STR_INIT;
    if (d->n_allocations > 0) {
        CudaAllocation *sorted = mj_xmalloc(d->n_allocations * sizeof *sorted);
        memcpy(sorted, d->allocations, d->n_allocations * sizeof *sorted);
        qsort(sorted, d->n_allocations, sizeof *sorted, compare_size);
        for (size_t i = 0; i < d->n_allocations && i < 5; i++)
            mj_str_printf(&held, "%s%s %.1f MB", i > 0 ? ", " : "", sorted[i].what, (double)sorted[i].bytes / 1e6);
        free(sorted);
    }
    int rc = mj_error(err, MJ_ERR_MEMORY,
                      "%s: out of memory: %.1f MB asked for '%s'; of %.1f MB, %.1f MB are free and this run holds %.1f MB "
                      "(largest: %s). Lower train.batch or train.seq_len (train.grad_accum keeps the tokens of a step), or "
                      "model.depth; or stop other processes on this device (nvidia-smi)",
                      d->info.name, (double)bytes / 1e6, what, (double)total / 1e6, (double)free_bytes / 1e6,
                      (double)d->now_bytes / 1e6, d->n_allocations > 0 ? mj_str_text(&held) : "nothing");
    mj_str_free(&held);
    return rc;
}

int mj_cuda_alloc(MjDevice *dev, size_t bytes, const char *what, void **out, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    MjCuPtr ptr = 0;
    int rc;
    if (bytes == 0) bytes = 256; /* a valid pointer for an empty buffer */
    MJ_TRY(mj_cuda_refuse_in_capture(d, "alloc", err)); /* it would become a node of the graph, which owned the memory */
    MJ_TRY(mj_cuda_make_current(d, err));
    rc = mj_cuda_pool_take(d, bytes, what, &ptr, err);
    if (rc == MJ_ERR_MEMORY) return out_of_memory(d, bytes, what, err);
    if (rc != 0) goto out;
    if (d->n_allocations == d->cap_allocations) {
        d->cap_allocations = d->cap_allocations == 0 ? 64 : d->cap_allocations * 2;
        d->allocations = mj_xrealloc(d->allocations, d->cap_allocations * sizeof *d->allocations);
    }
    CudaAllocation *a = &d->allocations[d->n_allocations++];
    *a = (CudaAllocation){.ptr = ptr, .bytes = bytes};
    snprintf(a->what, sizeof a->what, "%s", what != NULL ? what : "unnamed");
    d->now_bytes += bytes;
    if (d->now_bytes > d->peak_bytes) d->peak_bytes = d->now_bytes;
    *out = (void *)(uintptr_t)ptr;
out:
    return rc;
}

static void forget(CudaDevice *d, size_t i) {
    const MjCuPtr ptr = d->allocations[i].ptr;
    d->now_bytes -= d->allocations[i].bytes;
    d->allocations[i] = d->allocations[--d->n_allocations];
    if (mj_cuda_make_current(d, NULL) == 0) mj_cuda_pool_give(d, ptr);
}

void mj_cuda_free(MjDevice *dev, void *ptr) {
    CudaDevice *d = mj_cuda_device(dev);
    for (size_t i = 0; i < d->n_allocations; i++) {
        if (d->allocations[i].ptr != (MjCuPtr)(uintptr_t)ptr) continue;
        if (d->capturing) d->allocations[i].dropped = true; /* the free would be captured, and fail: no node made this buffer */
        else forget(d, i);
        return;
    }
}

void mj_cuda_free_dropped(CudaDevice *d) {
    for (size_t i = d->n_allocations; i-- > 0;)
        if (d->allocations[i].dropped) forget(d, i);
}

size_t mj_cuda_allocated_bytes(const MjDevice *dev) { return ((const CudaDevice *)dev)->now_bytes; }
size_t mj_cuda_peak_bytes(const MjDevice *dev) { return ((const CudaDevice *)dev)->peak_bytes; }

int mj_cuda_refuse_in_capture(CudaDevice *d, const char *call, MjError *err) {
    if (!d->capturing) return 0;
    return mj_error(err, MJ_ERR_USAGE, "%s: not allowed while a graph is captured; do it before graph_begin or after graph_end",
                    call);
}

/* A staging buffer may be written again when the copy that reads it is done. */
static int wait_for(CudaDevice *d, CudaStaging *s, MjError *err) {
    int rc = 0;
    if (!s->pending) return 0;
    d->counters.waits++;
    CU(d, EventSynchronize(s->in_use), "staging");
    s->pending = false;
out:
    return rc;
}

/* Copies through pinned buffers: the source may be reused as soon as the call returns, the copy itself overlaps. */
int mj_cuda_upload(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    int rc;
    MJ_TRY(mj_cuda_refuse_in_capture(d, "upload", err));
    MJ_TRY(mj_cuda_make_current(d, err));
    d->after_kernel = false;
    for (size_t at = 0; at < bytes; at += MJ_CUDA_STAGING_BYTES) {
        const size_t part = bytes - at < MJ_CUDA_STAGING_BYTES ? bytes - at : MJ_CUDA_STAGING_BYTES;
        CudaStaging *s = &d->staging[d->next_staging];
        d->next_staging = (d->next_staging + 1) % MJ_CUDA_STAGING_BUFFERS;
        MJ_TRY(wait_for(d, s, err));
        memcpy(s->host, (const char *)src + at, part);
        CU(d, MemcpyHtoDAsync((MjCuPtr)(uintptr_t)dst + at, s->host, part, d->stream), "upload");
        CU(d, EventRecord(s->in_use, d->stream), "staging");
        s->pending = true;
    }
out:
    return rc;
}

int mj_cuda_download(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    int rc;
    MJ_TRY(mj_cuda_refuse_in_capture(d, "download", err));
    MJ_TRY(mj_cuda_make_current(d, err));
    d->after_kernel = false;
    for (size_t at = 0; at < bytes; at += MJ_CUDA_STAGING_BYTES) {
        const size_t part = bytes - at < MJ_CUDA_STAGING_BYTES ? bytes - at : MJ_CUDA_STAGING_BYTES;
        CudaStaging *s = &d->staging[d->next_staging];
        d->next_staging = (d->next_staging + 1) % MJ_CUDA_STAGING_BUFFERS;
        MJ_TRY(wait_for(d, s, err));
        CU(d, MemcpyDtoHAsync(s->host, (MjCuPtr)(uintptr_t)src + at, part, d->stream), "download");
        d->counters.waits++;
        CU(d, StreamSynchronize(d->stream), "download");
        memcpy((char *)dst + at, s->host, part);
    }
out:
    return rc;
}

int mj_cuda_fill(MjDevice *dev, void *dst, int byte, size_t bytes, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    int rc;
    MJ_TRY(mj_cuda_make_current(d, err));
    d->after_kernel = false;
    if (bytes > 0) CU(d, MemsetD8Async((MjCuPtr)(uintptr_t)dst, (unsigned char)byte, bytes, d->stream), "fill");
out:
    return rc;
}

int mj_cuda_copy(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    int rc;
    MJ_TRY(mj_cuda_make_current(d, err));
    d->after_kernel = false;
    if (bytes > 0) CU(d, MemcpyDtoDAsync((MjCuPtr)(uintptr_t)dst, (MjCuPtr)(uintptr_t)src, bytes, d->stream), "copy");
out:
    return rc;
}
