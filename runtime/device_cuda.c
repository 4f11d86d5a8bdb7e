/* The cuda device behind MjDeviceOps: one primary context, one stream, tracked memory, pinned staging, modules, launches,
 * events, graphs. Owns device state; libcuda's functions and the meaning of errors are cuda_api.c's.
 *
 * Host calls are asynchronous unless they return host data. MOJIT_CUDA_SYNC=1 waits after every launch, so that the
 * launch that failed is named. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"
#include "runtime/base/str.h"
#include "runtime/cuda_api.h"
#include "runtime/device.h"

#define STAGING_BYTES ((size_t)4 << 20)
#define STAGING_BUFFERS 2
#define RECENT_LAUNCHES 8

typedef struct Allocation {
    MjCuPtr ptr;
    size_t bytes;
    char what[48];
} Allocation;

typedef struct Staging {
    void *host;        /* pinned, STAGING_BYTES */
    MjCuEvent in_use;  /* recorded after the last copy that reads it */
    bool pending;
} Staging;

typedef struct RecentLaunch {
    const char *label;
    char kernel[64];
    uint32_t grid, block, cluster;
    size_t shared_bytes;
} RecentLaunch;

typedef struct CudaDevice {
    MjDevice base;
    const MjCuda *cu;
    MjCuDevice device;
    MjCuContext context;
    MjCuStream stream;
    MjDeviceInfo info;
    Allocation *allocations; /* n_allocations of cap_allocations */
    size_t n_allocations, cap_allocations;
    size_t now_bytes, peak_bytes;
    Staging staging[STAGING_BUFFERS];
    int next_staging;
    RecentLaunch recent[RECENT_LAUNCHES];
    uint64_t launches;
    bool sync_launches, capturing;
} CudaDevice;

struct MjModule {
    CudaDevice *dev;
    MjCuLibrary library;
    struct MjKernelFn *functions; /* list */
    pthread_mutex_t mutex;
};

struct MjKernelFn {
    MjModule *module;
    MjCuKernel kernel;
    int static_shared, max_threads;
    size_t shared_limit;  /* dynamic shared memory that the kernel is opted in for */
    bool large_cluster;
    char name[64];
    struct MjKernelFn *next;
};

struct MjEvent {
    MjCuEvent event;
};

struct MjGraph {
    MjCuGraphExec exec;
};

/* The context is per thread in the driver; setting it anew costs a call, so remember what this thread has. */
static _Thread_local MjCuContext t_current;

static CudaDevice *cuda_device(MjDevice *dev) { return (CudaDevice *)dev; }

static int make_current(CudaDevice *d, MjError *err) {
    if (t_current == d->context) return 0;
    MjCuResult r = d->cu->CtxSetCurrent(d->context);
    if (r != MJ_CU_SUCCESS) return mj_cuda_error(d->cu, r, "cuCtxSetCurrent", d->info.name, err);
    t_current = d->context;
    return 0;
}

/* An error that may come from any launch since the last synchronisation: name the candidates, newest first. */
static int async_error(CudaDevice *d, MjCuResult r, const char *call, const char *what, MjError *err) {
    const bool of_a_kernel = r == MJ_CU_ECC_UNCORRECTABLE || r == MJ_CU_NVLINK_UNCORRECTABLE || r == MJ_CU_CONTAINED ||
                             (r >= MJ_CU_ILLEGAL_ADDRESS && r <= MJ_CU_LAUNCH_FAILED);
    char name[48];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(call, "("), call); /* "cuMemAlloc(&ptr, bytes)": the name only */
    int rc = mj_cuda_error(d->cu, r, name, what, err);
    if (err == NULL || d->launches == 0 || !of_a_kernel) return rc;
    MjStr list = MJ_STR_INIT;
    uint64_t shown = d->launches < RECENT_LAUNCHES ? d->launches : RECENT_LAUNCHES;
    if (d->sync_launches) shown = 1;
    for (uint64_t i = 0; i < shown; i++) {
        const RecentLaunch *l = &d->recent[(d->launches - 1 - i) % RECENT_LAUNCHES];
        mj_str_printf(&list, "%s%s [%s] grid=%u block=%u cluster=%u shared=%zu", i > 0 ? ", " : "", l->label, l->kernel,
                      l->grid, l->block, l->cluster, l->shared_bytes);
    }
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    mj_error(err, rc, "%s%s: %s", d->sync_launches ? "launch " : "one of the last launches (newest first) ",
             mj_str_text(&list), old);
    mj_str_free(&list);
    return rc;
}

#define CU(d, call, what)                                                                                     \
    do {                                                                                                      \
        MjCuResult r_ = (d)->cu->call;                                                                        \
        if (r_ != MJ_CU_SUCCESS) {                                                                            \
            rc = async_error((d), r_, "cu" #call, (what), err);                                               \
            goto out;                                                                                         \
        }                                                                                                     \
    } while (0)

/* ---- opening ------------------------------------------------------------------------------------------- */

static int read_info(CudaDevice *d, MjError *err) {
    int rc = 0, major = 0, minor = 0, units = 0, shared = 0;
    size_t memory = 0;
    CU(d, DeviceGetName(d->info.name, (int)sizeof d->info.name, d->device), NULL);
    CU(d, DeviceGetAttribute(&major, MJ_CU_DEV_COMPUTE_MAJOR, d->device), NULL);
    CU(d, DeviceGetAttribute(&minor, MJ_CU_DEV_COMPUTE_MINOR, d->device), NULL);
    CU(d, DeviceGetAttribute(&units, MJ_CU_DEV_MULTIPROCESSOR_COUNT, d->device), NULL);
    CU(d, DeviceGetAttribute(&shared, MJ_CU_DEV_MAX_SHARED_OPTIN, d->device), NULL);
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
    d->info.bf16_peak_flops = mj_cuda_bf16_peak(d->info.name);
out:
    return rc;
}

static void cuda_close(MjDevice *dev);

static int cuda_open(const MjDeviceOptions *opt, MjDevice **out, MjError *err) {
    CudaDevice *d = mj_xcalloc(1, sizeof *d);
    const int ordinal = opt != NULL ? opt->ordinal : 0;
    const char *sync = getenv("MOJIT_CUDA_SYNC");
    int rc, count = 0;
    d->base.ops = &mj_device_cuda;
    d->device = -1;
    d->sync_launches = sync != NULL && sync[0] != '\0' && sync[0] != '0';
    MJ_TRY(mj_cuda_get(&d->cu, err));
    CU(d, DeviceGetCount(&count), NULL);
    if (ordinal < 0 || ordinal >= count) {
        rc = mj_error(err, MJ_ERR_MISSING, "there is no device cuda:%d: %d %s present (cuda:0 to cuda:%d)", ordinal, count,
                      count == 1 ? "is" : "are", count - 1);
        goto out;
    }
    MjCuDevice device = 0;
    CU(d, DeviceGet(&device, ordinal), NULL);
    CU(d, DevicePrimaryCtxRetain(&d->context, device), NULL);
    d->device = device;
    MJ_TRY(make_current(d, err));
    MJ_TRY(read_info(d, err));
    CU(d, StreamCreate(&d->stream, MJ_CU_STREAM_NON_BLOCKING), NULL);
    for (int i = 0; i < STAGING_BUFFERS; i++) {
        CU(d, MemHostAlloc(&d->staging[i].host, STAGING_BYTES, 0), "pinned staging buffer");
        CU(d, EventCreate(&d->staging[i].in_use, MJ_CU_EVENT_DISABLE_TIMING), NULL);
    }
    *out = &d->base;
    return 0;
out:
    cuda_close(&d->base);
    return rc;
}

static void cuda_close(MjDevice *dev) {
    CudaDevice *d = cuda_device(dev);
    if (d->cu != NULL && d->device >= 0 && make_current(d, NULL) == 0) {
        if (d->stream != NULL) (void)d->cu->StreamSynchronize(d->stream); /* closing: nobody is left to tell */
        for (int i = 0; i < STAGING_BUFFERS; i++) {
            if (d->staging[i].in_use != NULL) (void)d->cu->EventDestroy(d->staging[i].in_use);
            if (d->staging[i].host != NULL) (void)d->cu->MemFreeHost(d->staging[i].host);
        }
        for (size_t i = 0; i < d->n_allocations; i++) (void)d->cu->MemFree(d->allocations[i].ptr);
        if (d->stream != NULL) (void)d->cu->StreamDestroy(d->stream);
        (void)d->cu->DevicePrimaryCtxRelease(d->device);
        t_current = NULL;
    }
    free(d->allocations);
    free(d);
}

static const MjDeviceInfo *cuda_info(const MjDevice *dev) { return &((const CudaDevice *)dev)->info; }

/* ---- memory ---------------------------------------------------------------------------------------------- */

static int compare_size(const void *a, const void *b) {
    const size_t x = ((const Allocation *)a)->bytes, y = ((const Allocation *)b)->bytes;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* What was asked for, what is free, what holds the rest, which settings shrink it. */
static int out_of_memory(CudaDevice *d, size_t bytes, const char *what, MjError *err) {
    size_t free_bytes = 0, total = 0;
    if (d->cu->MemGetInfo(&free_bytes, &total) != MJ_CU_SUCCESS) total = d->info.memory_bytes;
    MjStr held = MJ_STR_INIT;
    if (d->n_allocations > 0) {
        Allocation *sorted = mj_xmalloc(d->n_allocations * sizeof *sorted);
        memcpy(sorted, d->allocations, d->n_allocations * sizeof *sorted);
        qsort(sorted, d->n_allocations, sizeof *sorted, compare_size);
        for (size_t i = 0; i < d->n_allocations && i < 5; i++)
            mj_str_printf(&held, "%s%s %.1f MB", i > 0 ? ", " : "", sorted[i].what, (double)sorted[i].bytes / 1e6);
        free(sorted);
    }
    int rc = mj_error(err, MJ_ERR_MEMORY,
                      "%s: out of memory: %.1f MB asked for '%s'; of %.1f MB, %.1f MB are free and this run holds %.1f MB "
                      "(largest: %s). Lower train.micro_batch, model.sequence or model.depth, or stop other processes on "
                      "this device (nvidia-smi)",
                      d->info.name, (double)bytes / 1e6, what, (double)total / 1e6, (double)free_bytes / 1e6,
                      (double)d->now_bytes / 1e6, d->n_allocations > 0 ? mj_str_text(&held) : "nothing");
    mj_str_free(&held);
    return rc;
}

static int cuda_alloc(MjDevice *dev, size_t bytes, const char *what, void **out, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    MjCuPtr ptr = 0;
    int rc;
    if (bytes == 0) bytes = 256; /* a valid pointer for an empty buffer */
    MJ_TRY(make_current(d, err));
    MjCuResult r = d->cu->MemAlloc(&ptr, bytes);
    if (r == MJ_CU_OUT_OF_MEMORY) return out_of_memory(d, bytes, what, err);
    if (r != MJ_CU_SUCCESS) return async_error(d, r, "cuMemAlloc", what, err);
    if (d->n_allocations == d->cap_allocations) {
        d->cap_allocations = d->cap_allocations == 0 ? 64 : d->cap_allocations * 2;
        d->allocations = mj_xrealloc(d->allocations, d->cap_allocations * sizeof *d->allocations);
    }
    Allocation *a = &d->allocations[d->n_allocations++];
    a->ptr = ptr;
    a->bytes = bytes;
    snprintf(a->what, sizeof a->what, "%s", what != NULL ? what : "unnamed");
    d->now_bytes += bytes;
    if (d->now_bytes > d->peak_bytes) d->peak_bytes = d->now_bytes;
    *out = (void *)(uintptr_t)ptr;
out:
    return rc;
}

static void cuda_free(MjDevice *dev, void *ptr) {
    CudaDevice *d = cuda_device(dev);
    for (size_t i = 0; i < d->n_allocations; i++) {
        if (d->allocations[i].ptr != (MjCuPtr)(uintptr_t)ptr) continue;
        d->now_bytes -= d->allocations[i].bytes;
        d->allocations[i] = d->allocations[--d->n_allocations];
        if (make_current(d, NULL) == 0) (void)d->cu->MemFree((MjCuPtr)(uintptr_t)ptr); /* waits for the device */
        return;
    }
}

static size_t cuda_allocated_bytes(const MjDevice *dev) { return ((const CudaDevice *)dev)->now_bytes; }
static size_t cuda_peak_bytes(const MjDevice *dev) { return ((const CudaDevice *)dev)->peak_bytes; }

static int refuse_in_capture(CudaDevice *d, const char *call, MjError *err) {
    if (!d->capturing) return 0;
    return mj_error(err, MJ_ERR_USAGE, "%s: not allowed while a graph is captured; do it before graph_begin or after graph_end",
                    call);
}

/* Copies through pinned buffers: the source may be reused as soon as the call returns, the copy itself overlaps. */
static int cuda_upload(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    int rc;
    MJ_TRY(refuse_in_capture(d, "upload", err));
    MJ_TRY(make_current(d, err));
    for (size_t at = 0; at < bytes; at += STAGING_BYTES) {
        const size_t part = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        Staging *s = &d->staging[d->next_staging];
        d->next_staging = (d->next_staging + 1) % STAGING_BUFFERS;
        if (s->pending) CU(d, EventSynchronize(s->in_use), "staging");
        memcpy(s->host, (const char *)src + at, part);
        CU(d, MemcpyHtoDAsync((MjCuPtr)(uintptr_t)dst + at, s->host, part, d->stream), "upload");
        CU(d, EventRecord(s->in_use, d->stream), "staging");
        s->pending = true;
    }
out:
    return rc;
}

static int cuda_download(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    int rc;
    MJ_TRY(refuse_in_capture(d, "download", err));
    MJ_TRY(make_current(d, err));
    for (size_t at = 0; at < bytes; at += STAGING_BYTES) {
        const size_t part = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        Staging *s = &d->staging[d->next_staging];
        d->next_staging = (d->next_staging + 1) % STAGING_BUFFERS;
        if (s->pending) CU(d, EventSynchronize(s->in_use), "staging");
        s->pending = false;
        CU(d, MemcpyDtoHAsync(s->host, (MjCuPtr)(uintptr_t)src + at, part, d->stream), "download");
        CU(d, StreamSynchronize(d->stream), "download");
        memcpy((char *)dst + at, s->host, part);
    }
out:
    return rc;
}

static int cuda_fill(MjDevice *dev, void *dst, int byte, size_t bytes, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    int rc;
    MJ_TRY(make_current(d, err));
    if (bytes > 0) CU(d, MemsetD8Async((MjCuPtr)(uintptr_t)dst, (unsigned char)byte, bytes, d->stream), "fill");
out:
    return rc;
}

/* ---- modules and launches ---------------------------------------------------------------------------------- */

static int cuda_module_load(MjDevice *dev, const void *image, size_t bytes, MjModule **out, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    MjCuLibrary library = NULL;
    char what[320];
    int rc;
    MJ_TRY(make_current(d, err));
    snprintf(what, sizeof what, "%zu bytes, device %s %s, driver CUDA %d.%d", bytes, d->info.name, d->info.target,
             d->cu->driver_version / 1000, d->cu->driver_version % 1000 / 10);
    CU(d, LibraryLoadData(&library, image, NULL, NULL, 0, NULL, NULL, 0), what);
    MjModule *m = mj_xcalloc(1, sizeof *m);
    m->dev = d;
    m->library = library;
    pthread_mutex_init(&m->mutex, NULL);
    *out = m;
out:
    return rc;
}

static void cuda_module_unload(MjDevice *dev, MjModule *mod) {
    CudaDevice *d = cuda_device(dev);
    if (mod == NULL) return;
    if (make_current(d, NULL) == 0) (void)d->cu->LibraryUnload(mod->library);
    for (MjKernelFn *f = mod->functions, *next; f != NULL; f = next) {
        next = f->next;
        free(f);
    }
    pthread_mutex_destroy(&mod->mutex);
    free(mod);
}

static int cuda_module_function(MjModule *mod, const char *name, MjKernelFn **out, MjError *err) {
    CudaDevice *d = mod->dev;
    MjKernelFn *f;
    int rc = 0;
    pthread_mutex_lock(&mod->mutex);
    for (f = mod->functions; f != NULL; f = f->next)
        if (strcmp(f->name, name) == 0) break;
    if (f == NULL) {
        MjCuKernel kernel = NULL;
        int static_shared = 0, max_threads = 0;
        MJ_TRY(make_current(d, err));
        MjCuResult r = d->cu->LibraryGetKernel(&kernel, mod->library, name);
        if (r == MJ_CU_NOT_FOUND) {
            rc = mj_error(err, MJ_ERR_DEVICE, "cuLibraryGetKernel: the image has no kernel '%s': the template's mj:kernel "
                          "line must name an extern \"C\" __global__ function", name);
            goto out;
        }
        if (r != MJ_CU_SUCCESS) {
            rc = async_error(d, r, "cuLibraryGetKernel", name, err);
            goto out;
        }
        CU(d, KernelGetAttribute(&static_shared, MJ_CU_FUNC_SHARED_BYTES, kernel, d->device), name);
        CU(d, KernelGetAttribute(&max_threads, MJ_CU_FUNC_MAX_THREADS_PER_BLOCK, kernel, d->device), name);
        f = mj_xcalloc(1, sizeof *f);
        f->module = mod;
        f->kernel = kernel;
        f->static_shared = static_shared;
        f->max_threads = max_threads;
        f->shared_limit = (size_t)48 * 1024 - (size_t)static_shared; /* what needs no opting in */
        snprintf(f->name, sizeof f->name, "%s", name);
        f->next = mod->functions;
        mod->functions = f;
    }
    *out = f;
out:
    pthread_mutex_unlock(&mod->mutex);
    return rc;
}

static int check_launch(CudaDevice *d, const MjKernelFn *fn, const MjLaunch *l, MjError *err) {
    const size_t shared = l->shared_bytes + (size_t)fn->static_shared;
    if (l->grid == 0 || l->grid > INT32_MAX)
        return mj_error(err, MJ_ERR_USAGE, "launch %s [%s]: grid of %u blocks; must be 1 to 2^31 - 1", l->label, fn->name,
                        l->grid);
    if (l->block == 0 || l->block > (uint32_t)fn->max_threads)
        return mj_error(err, MJ_ERR_USAGE, "launch %s [%s]: block of %u threads; this kernel takes 1 to %d", l->label, fn->name,
                        l->block, fn->max_threads);
    if (shared > d->info.max_shared_bytes)
        return mj_error(err, MJ_ERR_USAGE, "launch %s [%s]: %zu bytes of shared memory (%d of them static); %s has %zu a block: "
                        "choose smaller tiles or fewer stages", l->label, fn->name, shared, fn->static_shared, d->info.name,
                        d->info.max_shared_bytes);
    if (l->cluster > 1 && (l->cluster > 16 || l->grid % l->cluster != 0 || d->info.family == MJ_FAMILY_SM80))
        return mj_error(err, MJ_ERR_USAGE, "launch %s [%s]: clusters of %u blocks on a grid of %u and %s: at most 16, dividing "
                        "the grid, from sm_90 on", l->label, fn->name, l->cluster, l->grid, d->info.target);
    if (l->args_bytes > MJ_MAX_ARG_BYTES)
        return mj_error(err, MJ_ERR_USAGE, "launch %s [%s]: %zu bytes of arguments; at most %d", l->label, fn->name,
                        l->args_bytes, MJ_MAX_ARG_BYTES);
    return 0;
}

/* Opts the kernel in for what this launch needs beyond the defaults; once per kernel and size. */
static int opt_in(CudaDevice *d, MjKernelFn *fn, const MjLaunch *l, MjError *err) {
    int rc = 0;
    if (l->shared_bytes > fn->shared_limit) {
        CU(d, KernelSetAttribute(MJ_CU_FUNC_MAX_DYNAMIC_SHARED, (int)l->shared_bytes, fn->kernel, d->device), fn->name);
        fn->shared_limit = l->shared_bytes;
    }
    if (l->cluster > 8 && !fn->large_cluster) {
        CU(d, KernelSetAttribute(MJ_CU_FUNC_NON_PORTABLE_CLUSTER, 1, fn->kernel, d->device), fn->name);
        fn->large_cluster = true;
    }
out:
    return rc;
}

static void remember_launch(CudaDevice *d, const MjKernelFn *fn, const MjLaunch *l) {
    RecentLaunch *r = &d->recent[d->launches++ % RECENT_LAUNCHES];
    r->label = l->label != NULL ? l->label : "kernel";
    memcpy(r->kernel, fn->name, sizeof r->kernel);
    r->grid = l->grid;
    r->block = l->block;
    r->cluster = l->cluster > 1 ? l->cluster : 1;
    r->shared_bytes = l->shared_bytes;
}

static int cuda_launch(MjDevice *dev, MjKernelFn *fn, const MjLaunch *l, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    MjCuLaunchAttribute attrs[2];
    unsigned n = 0;
    int rc;
    MJ_TRY(check_launch(d, fn, l, err));
    MJ_TRY(make_current(d, err));
    MJ_TRY(opt_in(d, fn, l, err));
    if (l->cluster > 1) {
        attrs[n] = (MjCuLaunchAttribute){.id = MJ_CU_LAUNCH_CLUSTER_DIMENSION};
        attrs[n].value.cluster.x = l->cluster;
        attrs[n].value.cluster.y = attrs[n].value.cluster.z = 1;
        n++;
    }
    if (l->overlap && d->info.family != MJ_FAMILY_SM80) {
        attrs[n] = (MjCuLaunchAttribute){.id = MJ_CU_LAUNCH_PROGRAMMATIC_SERIALIZATION};
        attrs[n++].value.programmatic = 1;
    }
    const MjCuLaunchConfig config = {.grid_x = l->grid, .grid_y = 1, .grid_z = 1, .block_x = l->block, .block_y = 1,
                                     .block_z = 1, .shared_bytes = (unsigned)l->shared_bytes, .stream = d->stream,
                                     .attrs = n > 0 ? attrs : NULL, .n_attrs = n};
    void *params[2] = {(void *)(uintptr_t)l->args, (void *)(uintptr_t)l->tensor_maps};
    remember_launch(d, fn, l);
    MjCuResult r = d->cu->LaunchKernelEx(&config, fn->kernel, params, NULL);
    if (r != MJ_CU_SUCCESS) {
        char what[192];
        snprintf(what, sizeof what, "%s [%s] grid=%u block=%u cluster=%u shared=%zu", l->label, fn->name, l->grid, l->block,
                 l->cluster > 1 ? l->cluster : 1, l->shared_bytes);
        rc = mj_cuda_error(d->cu, r, "cuLaunchKernelEx", what, err);
        goto out;
    }
    if (d->sync_launches && !d->capturing) CU(d, StreamSynchronize(d->stream), NULL);
out:
    return rc;
}

static int cuda_synchronize(MjDevice *dev, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    int rc;
    MJ_TRY(make_current(d, err));
    CU(d, StreamSynchronize(d->stream), NULL);
out:
    return rc;
}

/* ---- events and graphs ---------------------------------------------------------------------------------------- */

static int cuda_event_create(MjDevice *dev, MjEvent **out, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    MjCuEvent event = NULL;
    int rc;
    MJ_TRY(make_current(d, err));
    CU(d, EventCreate(&event, 0), NULL);
    MjEvent *e = mj_xmalloc(sizeof *e);
    e->event = event;
    *out = e;
out:
    return rc;
}

static void cuda_event_destroy(MjDevice *dev, MjEvent *ev) {
    CudaDevice *d = cuda_device(dev);
    if (ev == NULL) return;
    if (make_current(d, NULL) == 0) (void)d->cu->EventDestroy(ev->event);
    free(ev);
}

static int cuda_event_record(MjDevice *dev, MjEvent *ev, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    int rc;
    MJ_TRY(make_current(d, err));
    CU(d, EventRecord(ev->event, d->stream), NULL);
out:
    return rc;
}

static int cuda_event_elapsed(MjDevice *dev, MjEvent *from, MjEvent *to, double *ms, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    float value = 0.0f;
    int rc;
    MJ_TRY(make_current(d, err));
    CU(d, EventSynchronize(to->event), NULL);
    CU(d, EventElapsedTime(&value, from->event, to->event), NULL);
    *ms = (double)value;
out:
    return rc;
}

static int cuda_graph_begin(MjDevice *dev, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    int rc;
    MJ_TRY(refuse_in_capture(d, "graph_begin", err));
    MJ_TRY(make_current(d, err));
    CU(d, StreamBeginCapture(d->stream, MJ_CU_CAPTURE_THREAD_LOCAL), NULL);
    d->capturing = true;
out:
    return rc;
}

static int cuda_graph_end(MjDevice *dev, MjGraph **out, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    MjCuGraph graph = NULL;
    MjCuGraphExec exec = NULL;
    int rc;
    if (!d->capturing) return mj_error(err, MJ_ERR_USAGE, "graph_end: no graph is being captured; call graph_begin first");
    d->capturing = false;
    MJ_TRY(make_current(d, err));
    CU(d, StreamEndCapture(d->stream, &graph), NULL);
    CU(d, GraphInstantiateWithFlags(&exec, graph, 0), NULL);
    MjGraph *g = mj_xmalloc(sizeof *g);
    g->exec = exec;
    *out = g;
out:
    if (graph != NULL) (void)d->cu->GraphDestroy(graph); /* the executable graph lives on */
    return rc;
}

static int cuda_graph_launch(MjDevice *dev, MjGraph *graph, MjError *err) {
    CudaDevice *d = cuda_device(dev);
    int rc;
    MJ_TRY(make_current(d, err));
    CU(d, GraphLaunch(graph->exec, d->stream), NULL);
out:
    return rc;
}

static void cuda_graph_destroy(MjDevice *dev, MjGraph *graph) {
    CudaDevice *d = cuda_device(dev);
    if (graph == NULL) return;
    if (make_current(d, NULL) == 0) (void)d->cu->GraphExecDestroy(graph->exec);
    free(graph);
}

const MjDeviceOps mj_device_cuda = {
    .kind = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .info = cuda_info,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .allocated_bytes = cuda_allocated_bytes,
    .peak_bytes = cuda_peak_bytes,
    .upload = cuda_upload,
    .download = cuda_download,
    .fill = cuda_fill,
    .module_load = cuda_module_load,
    .module_unload = cuda_module_unload,
    .module_function = cuda_module_function,
    .launch = cuda_launch,
    .synchronize = cuda_synchronize,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .event_elapsed = cuda_event_elapsed,
    .graph_begin = cuda_graph_begin,
    .graph_end = cuda_graph_end,
    .graph_launch = cuda_graph_launch,
    .graph_destroy = cuda_graph_destroy,
};
