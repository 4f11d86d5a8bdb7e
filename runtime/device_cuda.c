/* The cuda device behind MjDeviceOps: opening and closing, errors, the table. Its memory is cuda_memory.c's
 * and cuda_pool.c's, modules and launches cuda_module.c's, events and graphs cuda_graph.c's; libcuda's functions and the meaning of errors cuda_api.c's.
 *
 * Host calls are asynchronous unless they return host data. MOJIT_CUDA_SYNC=1 waits after every launch, so that the
 * launch that failed is named. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"
#include "runtime/base/str.h"
#include "runtime/cuda_device.h"

/* The context is per thread in the driver; setting it anew costs a call, so remember what this thread has. */
static _Thread_local MjCuContext t_current;

int mj_cuda_make_current(CudaDevice *d, MjError *err) {
    if (t_current == d->context) return 0;
    MjCuResult r = d->cu->CtxSetCurrent(d->context);
    if (r != MJ_CU_SUCCESS) return mj_cuda_error(d->cu, r, "cuCtxSetCurrent", d->info.name, err);
    t_current = d->context;
    return 0;
}

int mj_cuda_async_error(CudaDevice *d, MjCuResult r, const char *call, const char *what, MjError *err) {
    const bool of_a_kernel = mj_cuda_lost(r) || (r >= MJ_CU_ILLEGAL_ADDRESS && r <= MJ_CU_LAUNCH_FAILED);
    char name[48];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(call, "("), call); /* "cuMemAlloc(&ptr, bytes)": the name only */
    int rc = mj_cuda_error(d->cu, r, name, what, err);
    d->info.lost = d->info.lost || mj_cuda_lost(r);
    if (err == NULL || d->launches == 0 || !of_a_kernel) return rc;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    if (d->last_graph > 0 && !mj_cuda_lost(r)) {
        return mj_error(err, rc, "one of the %llu nodes of the graph launched last (with MOJIT_CUDA_SYNC=1 they are launched one by "
                        "one, and the one that fails is named): %s", (unsigned long long)d->last_graph, old);
    }
    MjStr list = MJ_STR_INIT;
    uint64_t shown = d->launches < MJ_CUDA_RECENT_LAUNCHES ? d->launches : MJ_CUDA_RECENT_LAUNCHES;
    if (d->sync_launches) shown = 1;
    for (uint64_t i = 0; i < shown; i++) {
        const CudaRecentLaunch *l = &d->recent[(d->launches - 1 - i) % MJ_CUDA_RECENT_LAUNCHES];
        mj_str_printf(&list, "%s%s [%s] grid=%u block=%u cluster=%u shared=%zu", i > 0 ? ", " : "", l->label, l->kernel,
                      l->grid, l->block, l->cluster, l->shared_bytes);
    }
    if (mj_cuda_lost(r)) mj_error(err, rc, "%s. In flight, newest first: %s", old, d->last_graph > 0 ? "a graph" : mj_str_text(&list));
    else if (d->sync_launches) mj_error(err, rc, "launch %s: %s", mj_str_text(&list), old);
    else mj_error(err, rc, "%s. It was one of the last launches (newest first): %s", old, mj_str_text(&list));
    mj_str_free(&list);
    return rc;
}

/* ---- opening ------------------------------------------------------------------------------------------- */

static int read_info(CudaDevice *d, MjError *err) {
    int rc = 0, major = 0, minor = 0, units = 0, shared = 0, l2 = 0, pools = 0;
    size_t memory = 0;
    CU(d, DeviceGetName(d->info.name, (int)sizeof d->info.name, d->device), NULL);
    CU(d, DeviceGetAttribute(&major, MJ_CU_DEV_COMPUTE_MAJOR, d->device), NULL);
    CU(d, DeviceGetAttribute(&minor, MJ_CU_DEV_COMPUTE_MINOR, d->device), NULL);
    CU(d, DeviceGetAttribute(&units, MJ_CU_DEV_MULTIPROCESSOR_COUNT, d->device), NULL);
    CU(d, DeviceGetAttribute(&shared, MJ_CU_DEV_MAX_SHARED_OPTIN, d->device), NULL);
    CU(d, DeviceGetAttribute(&l2, MJ_CU_DEV_L2_BYTES, d->device), NULL);
    CU(d, DeviceGetAttribute(&pools, MJ_CU_DEV_MEMORY_POOLS, d->device), NULL);
    CU(d, DeviceTotalMem(&memory, d->device), NULL);
    if (major < 8) {
        rc = mj_error(err, MJ_ERR_MISSING,
                      "%s has compute capability %d.%d; mojit's kernels need 8.0 or later (A100, RTX 30, L40, H100, ...): "
                      "use --device cpu", d->info.name, major, minor);
        goto out;
    }
    /* 9.0 and 10.0 have instructions that only their own "a" target names (wgmma, tcgen05). */
    snprintf(d->info.target, sizeof d->info.target, "sm_%d%d%s", major, minor,
             (major == 9 || major == 10) && minor == 0 ? "a" : "");
    d->info.kind = "cuda";
    d->info.family = major == 8 ? MJ_FAMILY_SM80 : major == 9 ? MJ_FAMILY_SM90A : MJ_FAMILY_SM100;
    d->info.units = units;
    d->info.memory_bytes = memory;
    d->info.max_shared_bytes = (size_t)shared;
    d->info.l2_bytes = (size_t)l2;
    d->info.pool = pools != 0;
    d->info.driver_version = d->cu->driver_version;
    d->info.graphs = !d->sync_launches;
    d->info.fp8 = mj_target_fp8(d->info.target);
    d->info.bf16_peak_flops = mj_cuda_bf16_peak(d->info.name);
out:
    return rc;
}

/* The driver's handle of device `ordinal`; needs no context. */
static int find_device(CudaDevice *d, int ordinal, MjCuDevice *out, MjError *err) {
    int rc, count = 0;
    MJ_TRY(mj_cuda_get(&d->cu, err));
    CU(d, DeviceGetCount(&count), NULL);
    if (ordinal < 0 || ordinal >= count) {
        rc = mj_error(err, MJ_ERR_MISSING, "there is no device cuda:%d: %d %s present (cuda:0 to cuda:%d)", ordinal, count,
                      count == 1 ? "is" : "are", count - 1);
        goto out;
    }
    CU(d, DeviceGet(out, ordinal), NULL);
out:
    return rc;
}

static int cuda_probe(const MjDeviceOptions *opt, MjDeviceInfo *out, MjError *err) {
    CudaDevice d = {0};
    int rc;
    MJ_TRY(find_device(&d, opt != NULL ? opt->ordinal : 0, &d.device, err));
    MJ_TRY(read_info(&d, err));
    *out = d.info;
out:
    return rc;
}

static void cuda_close(MjDevice *dev);

static int cuda_open(const MjDeviceOptions *opt, MjDevice **out, MjError *err) {
    CudaDevice *d = mj_xcalloc(1, sizeof *d);
    const char *sync = getenv("MOJIT_CUDA_SYNC");
    MjCuDevice device = 0;
    int rc;
    d->base.ops = &mj_device_cuda;
    d->device = -1;
    d->sync_launches = sync != NULL && sync[0] != '\0' && sync[0] != '0';
    MJ_TRY(find_device(d, opt != NULL ? opt->ordinal : 0, &device, err));
    CU(d, DevicePrimaryCtxRetain(&d->context, device), NULL);
    d->device = device;
    MJ_TRY(mj_cuda_make_current(d, err));
    MJ_TRY(read_info(d, err));
    CU(d, StreamCreate(&d->stream, MJ_CU_STREAM_NON_BLOCKING), NULL);
    MJ_TRY(mj_cuda_pool_open(d, err));
    MJ_TRY(mj_cuda_staging_open(d, err));
    *out = &d->base;
    return 0;
out:
    cuda_close(&d->base);
    return rc;
}

static void cuda_close(MjDevice *dev) {
    CudaDevice *d = mj_cuda_device(dev);
    if (d->cu != NULL && d->device >= 0 && mj_cuda_make_current(d, NULL) == 0) {
        if (d->capturing) (void)mj_cuda_graph_end(dev, NULL, NULL);
        if (d->stream != NULL) (void)d->cu->StreamSynchronize(d->stream); /* closing: nobody is left to tell */
        mj_cuda_memory_close(d);
        if (d->stream != NULL) (void)d->cu->StreamDestroy(d->stream);
        (void)d->cu->DevicePrimaryCtxRelease(d->device);
        t_current = NULL;
    }
    free(d);
}

static const MjDeviceInfo *cuda_info(const MjDevice *dev) { return &((const CudaDevice *)dev)->info; }

static void cuda_counters(const MjDevice *dev, MjDeviceCounters *out) { *out = ((const CudaDevice *)dev)->counters; }

const MjDeviceOps mj_device_cuda = {
    .kind = "cuda",
    .probe = cuda_probe,
    .open = cuda_open,
    .close = cuda_close,
    .info = cuda_info,
    .alloc = mj_cuda_alloc,
    .free = mj_cuda_free,
    .allocated_bytes = mj_cuda_allocated_bytes,
    .peak_bytes = mj_cuda_peak_bytes,
    .reserved_bytes = mj_cuda_reserved_bytes,
    .upload = mj_cuda_upload,
    .download = mj_cuda_download,
    .fill = mj_cuda_fill,
    .copy = mj_cuda_copy,
    .module_load = mj_cuda_module_load,
    .module_unload = mj_cuda_module_unload,
    .module_function = mj_cuda_module_function,
    .launch = mj_cuda_launch,
    .synchronize = mj_cuda_synchronize,
    .counters = cuda_counters,
    .event_create = mj_cuda_event_create,
    .event_destroy = mj_cuda_event_destroy,
    .event_record = mj_cuda_event_record,
    .event_elapsed = mj_cuda_event_elapsed,
    .graph_begin = mj_cuda_graph_begin,
    .graph_end = mj_cuda_graph_end,
    .graph_launch = mj_cuda_graph_launch,
    .graph_destroy = mj_cuda_graph_destroy,
};
