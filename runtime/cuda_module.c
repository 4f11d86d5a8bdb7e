/* Modules and launches of the cuda device: images, entry points, opting in, launch geometry, waiting. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"
#include "runtime/cuda_device.h"

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

int mj_cuda_module_load(MjDevice *dev, const void *image, size_t bytes, MjModule **out, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    MjCuLibrary library = NULL;
    char what[320];
    int rc;
    MJ_TRY(mj_cuda_make_current(d, err));
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

void mj_cuda_module_unload(MjDevice *dev, MjModule *mod) {
    CudaDevice *d = mj_cuda_device(dev);
    if (mod == NULL) return;
    if (mj_cuda_make_current(d, NULL) == 0) (void)d->cu->LibraryUnload(mod->library);
    for (MjKernelFn *f = mod->functions, *next; f != NULL; f = next) {
        next = f->next;
        free(f);
    }
    pthread_mutex_destroy(&mod->mutex);
    free(mod);
}

int mj_cuda_module_function(MjModule *mod, const char *name, MjKernelFn **out, MjError *err) {
    CudaDevice *d = mod->dev;
    MjKernelFn *f;
    int rc = 0;
    pthread_mutex_lock(&mod->mutex);
    for (f = mod->functions; f != NULL; f = f->next)
        if (strcmp(f->name, name) == 0) break;
    if (f == NULL) {
        MjCuKernel kernel = NULL;
        int static_shared = 0, max_threads = 0;
        MJ_TRY(mj_cuda_make_current(d, err));
        MjCuResult r = d->cu->LibraryGetKernel(&kernel, mod->library, name);
        if (r == MJ_CU_NOT_FOUND) {
            rc = mj_error(err, MJ_ERR_DEVICE, "cuLibraryGetKernel: the image has no kernel '%s': the template's mj:kernel "
                          "line must name an extern \"C\" __global__ function", name);
            goto out;
        }
        if (r != MJ_CU_SUCCESS) {
            rc = mj_cuda_async_error(d, r, "cuLibraryGetKernel", name, err);
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
    CudaRecentLaunch *r = &d->recent[d->launches++ % MJ_CUDA_RECENT_LAUNCHES];
    r->label = l->label != NULL ? l->label : "kernel";
    memcpy(r->kernel, fn->name, sizeof r->kernel);
    r->grid = l->grid;
    r->block = l->block;
    r->cluster = l->cluster > 1 ? l->cluster : 1;
    r->shared_bytes = l->shared_bytes;
}

/* "The previous kernel in the stream" may be overlapped; after a copy, a fill, an event or a library's kernels the launch is an
 * ordinary one. In a graph the edge between two kernels says it, which capturing makes from CUDA 12.3 on. */
static bool may_overlap(const CudaDevice *d, const MjLaunch *l) {
    return l->overlap && d->after_kernel && !d->sync_launches && mj_target_waits(d->info.target) &&
           (!d->capturing || d->cu->driver_version >= 12030);
}

int mj_cuda_launch(MjDevice *dev, MjKernelFn *fn, const MjLaunch *l, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    MjCuLaunchAttribute attrs[2];
    unsigned n = 0;
    int rc;
    MJ_TRY(check_launch(d, fn, l, err));
    MJ_TRY(mj_cuda_make_current(d, err));
    MJ_TRY(opt_in(d, fn, l, err));
    if (l->cluster > 1) {
        attrs[n] = (MjCuLaunchAttribute){.id = MJ_CU_LAUNCH_CLUSTER_DIMENSION};
        attrs[n].value.cluster.x = l->cluster;
        attrs[n].value.cluster.y = attrs[n].value.cluster.z = 1;
        n++;
    }
    if (may_overlap(d, l)) {
        d->counters.overlapped++;
        attrs[n] = (MjCuLaunchAttribute){.id = MJ_CU_LAUNCH_PROGRAMMATIC_SERIALIZATION};
        attrs[n++].value.programmatic = 1;
    }
    const MjCuLaunchConfig config = {.grid_x = l->grid, .grid_y = 1, .grid_z = 1, .block_x = l->block, .block_y = 1,
                                     .block_z = 1, .shared_bytes = (unsigned)l->shared_bytes, .stream = d->stream,
                                     .attrs = n > 0 ? attrs : NULL, .n_attrs = n};
    void *params[2] = {(void *)(uintptr_t)l->args, (void *)(uintptr_t)l->tensor_maps};
    remember_launch(d, fn, l);
    d->last_graph = 0;
    d->counters.launches += !d->capturing;
    MjCuResult r = d->cu->LaunchKernelEx(&config, fn->kernel, params, NULL);
    if (r != MJ_CU_SUCCESS) {
        char what[192];
        snprintf(what, sizeof what, "%s [%s] grid=%u block=%u cluster=%u shared=%zu", l->label, fn->name, l->grid, l->block,
                 l->cluster > 1 ? l->cluster : 1, l->shared_bytes);
        rc = mj_cuda_async_error(d, r, "cuLaunchKernelEx", what, err); /* may be an earlier kernel's death */
        goto out;
    }
    d->after_kernel = true;
    if (d->sync_launches && !d->capturing) {
        d->counters.waits++;
        CU(d, StreamSynchronize(d->stream), NULL);
    }
out:
    return rc;
}

int mj_cuda_synchronize(MjDevice *dev, MjError *err) {
    CudaDevice *d = mj_cuda_device(dev);
    int rc;
    MJ_TRY(mj_cuda_refuse_in_capture(d, "synchronize", err));
    MJ_TRY(mj_cuda_make_current(d, err));
    d->counters.waits++;
    CU(d, StreamSynchronize(d->stream), NULL);
out:
    return rc;
}
