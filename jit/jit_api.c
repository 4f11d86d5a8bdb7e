/* The public interface (include/mojit.h) over device, cache and JIT. Owns MojitRuntime; translates, decides nothing. */
#include "mojit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "cache/cache.h"
#include "jit/jit.h"
#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"
#include "runtime/base/version.h"
#include "runtime/device.h"

_Static_assert((int)MOJIT_USAGE == (int)MJ_ERR_USAGE && (int)MOJIT_REFUSED == (int)MJ_ERR_REFUSED, "public codes are the internal ones");

struct MojitKernel {
    MjRequest request;
    const char *name;
};

struct MojitRuntime {
    MjDevice *device;
    MjCache *cache;
    MjJit *jit;
    pthread_mutex_t mutex; /* guards kernels */
    MojitKernel **kernels; /* by hash, open addressing, at most half full; the capacity is a power of 2 */
    size_t n_kernels, kernels_cap;
    char target[64]; /* of a runtime without a device */
};

/* Hands an internal error out and frees it; returns its code. */
static int give(MojitError *to, int code, MjError *from)
{
    if (to && code != 0) {
        to->code = code;
        memcpy(to->message, from->message, sizeof to->message);
        snprintf(to->log, sizeof to->log, "%s", from->log ? from->log : "");
    }
    mj_error_clear(from);
    return code;
}

int mojit_api_version(void)
{
    return MOJIT_API_VERSION;
}

const char *mojit_version(void)
{
    return mj_version();
}

static int open_parts(MojitRuntime *rt, const MojitOptions *o, MjError *err)
{
    MjJitOptions jit = {.budget = o->budget, .jobs = o->jobs, .timeout_s = o->timeout_s, .require_warm = o->require_warm != 0,
                        .on_error = o->generic_on_error ? MJ_ON_ERROR_GENERIC : MJ_ON_ERROR_STOP, .log = o->log,
                        .log_user = o->log_user};
    MjCacheOptions cache = {.roots = o->cache, .max_bytes = o->cache_max_bytes, .warn = o->log, .user = o->log_user};
    MjDeviceOptions device = {.threads = o->threads};
    int rc;

    MJ_TRY(mj_mode_find(o->mode ? o->mode : "dynamic", &jit.mode, err));
    MJ_TRY(mj_bucket_parse(o->bucket ? o->bucket : "multiple:128", &jit.bucket, err));
    if (o->target) {
        const char *target = strcmp(o->target, "cpu") == 0 ? mj_cpu_target() : o->target;
        if (strlen(target) >= sizeof rt->target || (strncmp(target, "cpu:", 4) != 0 && strncmp(target, "sm_", 3) != 0))
            MJ_TRY(mj_error(err, MJ_ERR_USAGE, "unknown target \"%s\": expected cpu, or sm_ and a number such as sm_90a", o->target));
        memcpy(rt->target, target, strlen(target) + 1);
        jit.target = rt->target;
    } else {
        MJ_TRY(mj_device_open(o->device, &device, &rt->device, err));
    }
    MJ_TRY(mj_cache_open(&cache, &rt->cache, err));
    jit.device = rt->device;
    jit.cache = rt->cache;
    MJ_TRY(mj_jit_open(&jit, &rt->jit, err));
out:
    return rc;
}

int mojit_open(const MojitOptions *options, MojitRuntime **out, MojitError *err)
{
    MjError why = MJ_ERROR_INIT;
    MojitOptions o = {.size = 0};

    if (!options || options->size < offsetof(MojitOptions, bucket))
        return give(err, mj_error(&why, MJ_ERR_USAGE, "MojitOptions.size is %zu: set it to sizeof(MojitOptions)",
                                  options ? options->size : 0), &why);
    memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    MojitRuntime *rt = mj_xcalloc(1, sizeof *rt);
    pthread_mutex_init(&rt->mutex, NULL);
    int rc = open_parts(rt, &o, &why);
    if (rc != 0) {
        mojit_close(rt);
        return give(err, rc, &why);
    }
    *out = rt;
    return 0;
}

void mojit_close(MojitRuntime *rt)
{
    if (!rt) return;
    mj_jit_close(rt->jit);
    mj_cache_close(rt->cache);
    mj_device_close(rt->device);
    for (size_t i = 0; i < rt->kernels_cap; i++) free(rt->kernels[i]);
    free(rt->kernels);
    pthread_mutex_destroy(&rt->mutex);
    free(rt);
}

int mojit_add_folder(MojitRuntime *rt, const char *folder, MojitError *err)
{
    MjError why = MJ_ERROR_INIT;

    return give(err, mj_jit_add_folder(rt->jit, folder, &why), &why);
}

static int unknown_dim(const MjTemplate *t, const char *name, MjError *err)
{
    const char *names[MJ_MAX_PARAMS];

    for (int i = 0; i < t->n_params; i++) names[i] = t->params[i].name;
    const char *near = mj_nearest(name, names, (size_t)t->n_params);
    return mj_error(err, MJ_ERR_USAGE, "template %s has no parameter \"%s\"%s%s%s", t->name, name, near ? "; did you mean \"" : "",
                    near ? near : "", near ? "\"?" : "");
}

static int make_request(MojitRuntime *rt, const char *name, const MojitDim *dims, size_t n, MjRequest *out, MjError *err)
{
    const char *slash = strchr(name, '/');
    char *tmpl = slash ? mj_xstrndup(name, (size_t)(slash - name)) : mj_xstrdup(name);
    MjRequest req;

    memset(&req, 0, sizeof req);
    int rc = mj_jit_template(rt->jit, tmpl, &req.tmpl, err);
    free(tmpl);
    if (rc != 0) return rc;
    const MjTemplate *t = req.tmpl;
    for (int i = 0; i < t->n_params; i++) req.values[i] = MJ_UNBOUND;
    for (size_t d = 0; d < n; d++) {
        int i = mj_template_param(t, dims[d].name);
        if (i < 0) return unknown_dim(t, dims[d].name, err);
        req.values[i] = dims[d].value;
    }
    while (slash && req.kernel < t->n_kernels && strcmp(t->kernels[req.kernel], slash + 1) != 0) req.kernel++;
    if (req.kernel == t->n_kernels)
        return mj_error(err, MJ_ERR_USAGE, "template %s has no entry point \"%s\"; its first is \"%s\"", t->name, slash + 1, t->kernels[0]);
    *out = req;
    return 0;
}

/* Where a request's kernel is, or the free place for it. */
static MojitKernel **place_of(MojitKernel **kernels, size_t cap, const MjRequest *req)
{
    size_t i = (size_t)XXH3_64bits(req, sizeof *req) & (cap - 1);

    while (kernels[i] && memcmp(&kernels[i]->request, req, sizeof *req) != 0) i = (i + 1) & (cap - 1);
    return &kernels[i];
}

static void grow_kernels(MojitRuntime *rt)
{
    size_t cap = rt->kernels_cap ? 2 * rt->kernels_cap : 64;
    MojitKernel **larger = mj_xcalloc(cap, sizeof(MojitKernel *));

    for (size_t i = 0; i < rt->kernels_cap; i++)
        if (rt->kernels[i]) *place_of(larger, cap, &rt->kernels[i]->request) = rt->kernels[i];
    free(rt->kernels);
    rt->kernels = larger;
    rt->kernels_cap = cap;
}

/* One MojitKernel a request, so that asking again gives the same pointer and holds no more memory. */
static MojitKernel *keep_kernel(MojitRuntime *rt, const MjRequest *req)
{
    pthread_mutex_lock(&rt->mutex);
    if (2 * (rt->n_kernels + 1) > rt->kernels_cap) grow_kernels(rt);
    MojitKernel **at = place_of(rt->kernels, rt->kernels_cap, req);
    if (!*at) {
        *at = mj_xcalloc(1, sizeof **at);
        memcpy(&(*at)->request, req, sizeof *req);
        (*at)->name = req->tmpl->name;
        rt->n_kernels++;
    }
    MojitKernel *found = *at;
    pthread_mutex_unlock(&rt->mutex);
    return found;
}

/* For what a runtime without a device can't do. */
static int need_device(const MojitRuntime *rt, MjError *err)
{
    if (rt->device) return 0;
    return mj_error(err, MJ_ERR_USAGE, "this runtime was opened for the target %s, without a device: it can plan and warm, nothing else",
                    rt->target);
}

int mojit_kernel(MojitRuntime *rt, const char *tmpl, const MojitDim *dims, size_t n_dims, MojitKernel **out, MojitError *err)
{
    MjError why = MJ_ERROR_INIT;
    MjRequest req;
    const MjLaunchRecord *record;
    int rc = make_request(rt, tmpl, dims, n_dims, &req, &why);

    if (rc == 0 && !mj_jit_recording(rt->jit)) rc = need_device(rt, &why);
    if (rc == 0) rc = mj_jit_get(rt->jit, &req, &record, &why);
    if (rc == 0) *out = keep_kernel(rt, &req);
    return give(err, rc, &why);
}

static int launch_with(MojitRuntime *rt, MojitKernel *kernel, uint32_t grid, uint32_t block, size_t shared_bytes, const void *args,
                       size_t args_bytes, bool overlap, MojitError *err)
{
    MjError why = MJ_ERROR_INIT;
    const MjLaunchRecord *record;
    int rc = need_device(rt, &why);

    if (rc == 0) rc = mj_jit_get(rt->jit, &kernel->request, &record, &why);
    if (rc == 0 && !record->fn)
        rc = mj_error(&why, MJ_ERR_USAGE, "kernel %s was asked for between mojit_plan_begin and mojit_plan_end and can't be launched there",
                      kernel->name);
    if (rc == 0 && (grid == 0 || args_bytes > MJ_MAX_ARG_BYTES))
        rc = mj_error(&why, MJ_ERR_USAGE, "launch of %s: the grid must be at least 1 (it is %u) and the arguments at most %d bytes (%zu)",
                      kernel->name, grid, MJ_MAX_ARG_BYTES, args_bytes);
    if (rc == 0) {
        MjLaunch launch = {.grid = grid, .block = block ? block : 1, .shared_bytes = shared_bytes, .args = args,
                           .args_bytes = args_bytes, .label = kernel->name, .overlap = overlap && record->waits};
        rc = rt->device->ops->launch(rt->device, record->fn, &launch, &why);
    }
    return give(err, rc, &why);
}

int mojit_launch(MojitRuntime *rt, MojitKernel *kernel, uint32_t grid, uint32_t block, size_t shared_bytes, const void *args,
                 size_t args_bytes, MojitError *err)
{
    return launch_with(rt, kernel, grid, block, shared_bytes, args, args_bytes, false, err);
}

int mojit_launch_overlapped(MojitRuntime *rt, MojitKernel *kernel, uint32_t grid, uint32_t block, size_t shared_bytes,
                            const void *args, size_t args_bytes, MojitError *err)
{
    return launch_with(rt, kernel, grid, block, shared_bytes, args, args_bytes, true, err);
}

int mojit_synchronize(MojitRuntime *rt, MojitError *err)
{
    MjError why = MJ_ERROR_INIT;

    int rc = need_device(rt, &why);

    if (rc == 0) rc = rt->device->ops->synchronize(rt->device, &why);
    return give(err, rc, &why);
}

int mojit_alloc(MojitRuntime *rt, size_t bytes, void **out, MojitError *err)
{
    MjError why = MJ_ERROR_INIT;

    int rc = need_device(rt, &why);

    if (rc == 0) rc = rt->device->ops->alloc(rt->device, bytes, "mojit_alloc", out, &why);
    return give(err, rc, &why);
}

void mojit_free(MojitRuntime *rt, void *memory)
{
    if (rt->device) rt->device->ops->free(rt->device, memory);
}

int mojit_to_device(MojitRuntime *rt, void *to, const void *from, size_t bytes, MojitError *err)
{
    MjError why = MJ_ERROR_INIT;

    int rc = need_device(rt, &why);

    if (rc == 0) rc = rt->device->ops->upload(rt->device, to, from, bytes, &why);
    return give(err, rc, &why);
}

int mojit_from_device(MojitRuntime *rt, void *to, const void *from, size_t bytes, MojitError *err)
{
    MjError why = MJ_ERROR_INIT;

    int rc = need_device(rt, &why);

    if (rc == 0) rc = rt->device->ops->download(rt->device, to, from, bytes, &why);
    return give(err, rc, &why);
}

void mojit_plan_begin(MojitRuntime *rt)
{
    mj_jit_record_begin(rt->jit);
}

void mojit_plan_end(MojitRuntime *rt)
{
    mj_jit_record_end(rt->jit);
}

int mojit_warm(MojitRuntime *rt, MojitError *err)
{
    MjError why = MJ_ERROR_INIT;

    return give(err, mj_jit_prepare(rt->jit, &why), &why);
}

void mojit_step(MojitRuntime *rt)
{
    mj_jit_step(rt->jit);
}

int mojit_counters(MojitRuntime *rt, MojitCounters *out, MojitError *err)
{
    MjError why = MJ_ERROR_INIT;
    MjJitCounters c;

    if (out->size < sizeof out->size || out->size > sizeof *out)
        return give(err, mj_error(&why, MJ_ERR_USAGE, "MojitCounters.size is %zu: set it to sizeof(MojitCounters)", out->size), &why);
    mj_jit_counters(rt->jit, &c);
    MojitCounters full = {.size = out->size, .requests = c.requests, .memory_hits = c.memory_hits, .disk_hits = c.disk_hits,
                          .misses = c.misses, .compiles = c.compiles, .compile_errors = c.compile_errors,
                          .corrupt_entries = c.corrupt_entries, .generic_kernels = c.generic_launches, .swaps = c.background_swaps,
                          .compile_s = c.compile_s, .stall_ms = c.stall_ms, .stalls = c.stalls, .budget_unbound = c.budget_unbound,
                          .deferred = c.deferred, .generic_steps = c.generic_steps, .specialised_at = c.specialised_at, .load_ms = c.load_ms};
    memcpy(out, &full, out->size);
    return 0;
}
