/* The cpu device: device memory is host memory, a thread pool runs the blocks of a launch, and every call has finished
 * when it returns. Owns tracked memory, loaded modules, the workers' scratch. */
#include "runtime/device_cpu.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"
#include "runtime/cpu_isa.h"
#include "runtime/image_cpu.h"

enum {
    ALIGN = 256,
    SCRATCH_ALIGN = 64,
    HUGE_PAGE = 2 << 20,
    MAX_SHARED = 64 << 20, /* scratch that one block may ask for */
    TASKS_PER_THREAD = 8,  /* a launch's ranges: small enough to balance, large enough not to matter */
    HOLDERS_LISTED = 5
};

struct MjKernelFn {
    MjCpuEntry *entry;
    char *name; /* NULL for a wrapped one */
    MjKernelFn *next;
};

struct MjModule {
    MjDevice *device;
    void *handle;
    MjKernelFn *functions;
};

struct MjEvent {
    uint64_t ns;
    bool recorded;
};

typedef struct Allocation {
    void *ptr;
    size_t bytes;
    char *what;
} Allocation;

typedef struct CpuDevice {
    MjDevice base;
    MjDeviceInfo info;
    MjPool *pool;
    pthread_mutex_t lock; /* allocations, functions of modules, wrapped entries */
    Allocation *allocations;
    size_t n_allocations, cap_allocations;
    size_t bytes, peak;
    MjKernelFn *wrapped;
    char *scratch;       /* (threads, scratch_bytes) */
    size_t scratch_bytes; /* a worker, multiple of SCRATCH_ALIGN */
    uint64_t scratch_growths;
    uint64_t launches;
} CpuDevice;

static CpuDevice *cpu_of(MjDevice *dev)
{
    return (CpuDevice *)dev;
}

static const CpuDevice *cpu_of_const(const MjDevice *dev)
{
    return (const CpuDevice *)dev;
}

/* ---- memory -------------------------------------------------------------------------------------------- */

static void read_limit(const char *path, size_t *limit)
{
    unsigned long long value;
    FILE *f = fopen(path, "re");

    if (!f) return;
    if (fscanf(f, "%llu", &value) == 1 && value > 0 && value < *limit) *limit = (size_t)value;
    fclose(f);
}

/* Physical memory, or the control group's limit where that is lower. */
static size_t memory_of_host(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t limit = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : SIZE_MAX / 2;

    read_limit("/sys/fs/cgroup/memory.max", &limit);
    read_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes", &limit);
    return limit;
}

static int by_bytes_descending(const void *a, const void *b)
{
    size_t x = ((const Allocation *)a)->bytes, y = ((const Allocation *)b)->bytes;
    return (x < y) - (x > y);
}

/* Called with the lock held. */
static int out_of_memory(CpuDevice *cpu, size_t bytes, const char *what, MjError *err)
{
    MjStr holders = MJ_STR_INIT;
    Allocation *sorted = mj_xmalloc(cpu->n_allocations * sizeof *sorted);

    if (cpu->n_allocations) memcpy(sorted, cpu->allocations, cpu->n_allocations * sizeof *sorted);
    if (cpu->n_allocations > 1) qsort(sorted, cpu->n_allocations, sizeof *sorted, by_bytes_descending);
    for (size_t i = 0; i < cpu->n_allocations && i < HOLDERS_LISTED; i++)
        mj_str_printf(&holders, "%s%s %.1f MiB", i ? ", " : "; the largest are ", sorted[i].what,
                      (double)sorted[i].bytes / 1048576.0);
    int rc = mj_error(err, MJ_ERR_MEMORY,
                      "out of memory: '%s' needs %.1f MiB, %.1f of %.1f MiB are in use%s. "
                      "Lower train.batch or train.seq_len (train.grad_accum keeps the tokens of a step), or the model: depth, width, "
                      "experts, vocabulary.",
                      what, (double)bytes / 1048576.0, (double)cpu->bytes / 1048576.0,
                      (double)cpu->info.memory_bytes / 1048576.0, mj_str_text(&holders));
    mj_str_free(&holders);
    free(sorted);
    return rc;
}

static int cpu_alloc(MjDevice *dev, size_t bytes, const char *what, void **out, MjError *err)
{
    CpuDevice *cpu = cpu_of(dev);
    int rc = 0;
    void *ptr = NULL;
    bool large = bytes >= HUGE_PAGE;

    pthread_mutex_lock(&cpu->lock);
    /* Linux hands out more than there is and kills later: check against what there is. */
    if (bytes > cpu->info.memory_bytes || cpu->bytes > cpu->info.memory_bytes - bytes ||
        posix_memalign(&ptr, large ? HUGE_PAGE : ALIGN, bytes ? bytes : ALIGN) != 0) {
        rc = out_of_memory(cpu, bytes, what ? what : "unnamed", err);
        goto out;
    }
#ifdef MADV_HUGEPAGE
    if (large) (void)madvise(ptr, bytes & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE); /* a hint; fewer TLB misses */
#endif
    if (cpu->n_allocations == cpu->cap_allocations) {
        cpu->cap_allocations = cpu->cap_allocations ? cpu->cap_allocations * 2 : 64;
        cpu->allocations = mj_xrealloc(cpu->allocations, cpu->cap_allocations * sizeof *cpu->allocations);
    }
    cpu->allocations[cpu->n_allocations++] =
        (Allocation){.ptr = ptr, .bytes = bytes, .what = mj_xstrdup(what ? what : "unnamed")};
    cpu->bytes += bytes;
    if (cpu->bytes > cpu->peak) cpu->peak = cpu->bytes;
    *out = ptr;
out:
    pthread_mutex_unlock(&cpu->lock);
    return rc;
}

static void cpu_free(MjDevice *dev, void *ptr)
{
    CpuDevice *cpu = cpu_of(dev);

    if (!ptr) return;
    pthread_mutex_lock(&cpu->lock);
    size_t i = cpu->n_allocations;
    while (i > 0 && cpu->allocations[i - 1].ptr != ptr) i--;
    if (i == 0) {
        pthread_mutex_unlock(&cpu->lock);
        fprintf(stderr, "mojit: free of a pointer that this device did not allocate\n"); /* a programmer's mistake */
        abort();
    }
    Allocation *a = &cpu->allocations[i - 1];
    cpu->bytes -= a->bytes;
    free(a->what);
    *a = cpu->allocations[--cpu->n_allocations];
    pthread_mutex_unlock(&cpu->lock);
    free(ptr);
}

static size_t cpu_allocated_bytes(const MjDevice *dev)
{
    return cpu_of_const(dev)->bytes;
}

static size_t cpu_peak_bytes(const MjDevice *dev)
{
    return cpu_of_const(dev)->peak;
}

static int cpu_copy(MjDevice *dev, void *dst, const void *src, size_t bytes, MjError *err)
{
    (void)dev, (void)err;
    if (bytes) memcpy(dst, src, bytes);
    return 0;
}

static int cpu_fill(MjDevice *dev, void *dst, int byte, size_t bytes, MjError *err)
{
    (void)dev, (void)err;
    if (bytes) memset(dst, byte, bytes);
    return 0;
}

/* ---- modules ------------------------------------------------------------------------------------------- */

static int cpu_module_load(MjDevice *dev, const void *image, size_t bytes, MjModule **out, MjError *err)
{
    void *handle = NULL;
    int rc = mj_image_cpu_load(image, bytes, &handle, err);

    if (rc != 0) return rc;
    MjModule *module = mj_xmalloc(sizeof *module);
    *module = (MjModule){.device = dev, .handle = handle};
    *out = module;
    return 0;
}

static void free_functions(MjKernelFn *fn)
{
    while (fn) {
        MjKernelFn *next = fn->next;
        free(fn->name);
        free(fn);
        fn = next;
    }
}

static void cpu_module_unload(MjDevice *dev, MjModule *module)
{
    (void)dev;
    if (!module) return;
    free_functions(module->functions);
    dlclose(module->handle);
    free(module);
}

static int cpu_module_function(MjModule *module, const char *name, MjKernelFn **out, MjError *err)
{
    CpuDevice *cpu = cpu_of(module->device);
    int rc = 0;
    MjKernelFn *fn;

    pthread_mutex_lock(&cpu->lock);
    for (fn = module->functions; fn && strcmp(fn->name, name) != 0; fn = fn->next) continue;
    if (!fn) {
        void *symbol = dlsym(module->handle, name);
        if (!symbol) {
            rc = mj_error(err, MJ_ERR_DEVICE, "kernel image has no entry '%s'; the template must declare it in mj:kernel",
                          name);
            goto out;
        }
        fn = mj_xmalloc(sizeof *fn);
        *fn = (MjKernelFn){.name = mj_xstrdup(name), .next = module->functions};
        memcpy(&fn->entry, &symbol, sizeof symbol); /* POSIX's way from an object pointer to a function pointer */
        module->functions = fn;
    }
    *out = fn;
out:
    pthread_mutex_unlock(&cpu->lock);
    return rc;
}

int mj_device_cpu_wrap(MjDevice *dev, MjCpuEntry *entry, MjKernelFn **out, MjError *err)
{
    if (strcmp(dev->ops->kind, "cpu") != 0)
        return mj_error(err, MJ_ERR_DEVICE, "a linked-in cpu kernel cannot run on device '%s'", dev->ops->kind);

    CpuDevice *cpu = cpu_of(dev);
    pthread_mutex_lock(&cpu->lock);
    MjKernelFn *fn = cpu->wrapped;
    while (fn && fn->entry != entry) fn = fn->next;
    if (!fn) {
        fn = mj_xmalloc(sizeof *fn);
        *fn = (MjKernelFn){.entry = entry, .next = cpu->wrapped};
        cpu->wrapped = fn;
    }
    *out = fn;
    pthread_mutex_unlock(&cpu->lock);
    return 0;
}

/* ---- launches ------------------------------------------------------------------------------------------ */

int mj_device_cpu_reserve_scratch(MjDevice *dev, size_t bytes, MjError *err)
{
    CpuDevice *cpu = cpu_of(dev);
    size_t threads = (size_t)mj_pool_threads(cpu->pool);
    void *grown = NULL;

    if (bytes <= cpu->scratch_bytes) return 0;
    bytes = (bytes + SCRATCH_ALIGN - 1) & ~(size_t)(SCRATCH_ALIGN - 1);
    int rc = cpu_alloc(dev, bytes * threads, "kernel scratch", &grown, err);
    if (rc != 0) return rc;
    cpu_free(dev, cpu->scratch);
    cpu->scratch = grown;
    cpu->scratch_bytes = bytes;
    cpu->scratch_growths++;
    return 0;
}

typedef struct Run {
    MjCpuEntry *entry;
    const void *args;
    uint32_t grid, range; /* blocks in all, blocks a task */
    char *scratch;
    size_t scratch_bytes;
} Run;

static void run_range(void *user, int task, int worker)
{
    const Run *run = user;
    uint32_t first = (uint32_t)task * run->range;
    uint32_t last = run->grid - first < run->range ? run->grid : first + run->range;

    run->entry(run->args, first, last, run->grid, run->scratch + (size_t)worker * run->scratch_bytes);
}

static int cpu_launch(MjDevice *dev, MjKernelFn *fn, const MjLaunch *launch, MjError *err)
{
    CpuDevice *cpu = cpu_of(dev);
    uint32_t tasks = (uint32_t)mj_pool_threads(cpu->pool) * TASKS_PER_THREAD;

    if (launch->grid == 0 || launch->grid > INT32_MAX || launch->args_bytes > MJ_MAX_ARG_BYTES ||
        launch->shared_bytes > MAX_SHARED)
        return mj_error(err, MJ_ERR_DEVICE,
                        "launch of '%s': grid %u (1 to %d), %zu argument bytes (at most %d), %zu scratch bytes (at most %d)",
                        launch->label ? launch->label : "?", launch->grid, INT32_MAX, launch->args_bytes, MJ_MAX_ARG_BYTES,
                        launch->shared_bytes, MAX_SHARED);
    if (launch->shared_bytes > cpu->scratch_bytes) {
        int rc = mj_device_cpu_reserve_scratch(dev, launch->shared_bytes, err);
        if (rc != 0) return rc;
    }
    Run run = {.entry = fn->entry, .args = launch->args, .grid = launch->grid, .scratch = cpu->scratch,
               .scratch_bytes = cpu->scratch_bytes};
    if (tasks > launch->grid) tasks = launch->grid;
    run.range = (launch->grid + tasks - 1) / tasks;
    tasks = (launch->grid + run.range - 1) / run.range;
    mj_pool_run(cpu->pool, (int)tasks, run_range, &run);
    cpu->launches++;
    return 0;
}

static int cpu_synchronize(MjDevice *dev, MjError *err)
{
    (void)dev, (void)err;
    return 0; /* nothing is ever pending */
}

/* ---- events -------------------------------------------------------------------------------------------- */

static int cpu_event_create(MjDevice *dev, MjEvent **out, MjError *err)
{
    (void)dev, (void)err;
    *out = mj_xcalloc(1, sizeof **out);
    return 0;
}

static void cpu_event_destroy(MjDevice *dev, MjEvent *event)
{
    (void)dev;
    free(event);
}

static int cpu_event_record(MjDevice *dev, MjEvent *event, MjError *err)
{
    (void)dev, (void)err;
    event->ns = mj_clock_ns();
    event->recorded = true;
    return 0;
}

static int cpu_event_elapsed(MjDevice *dev, MjEvent *from, MjEvent *to, double *ms, MjError *err)
{
    (void)dev;
    if (!from->recorded || !to->recorded)
        return mj_error(err, MJ_ERR_DEVICE, "elapsed time of an event that was never recorded");
    *ms = (double)(int64_t)(to->ns - from->ns) / 1e6;
    return 0;
}

/* ---- opening ------------------------------------------------------------------------------------------- */

static int describe(const MjDeviceOptions *opt, MjDeviceInfo *out, MjError *err)
{
    int row, rc = mj_cpu_isa_select(opt ? opt->isa : NULL, &row, err);

    if (rc != 0) return rc;
    if (opt && (opt->threads < 0 || opt->threads > 1024))
        return mj_error(err, MJ_ERR_USAGE, "%d cpu threads; expected 1 to 1024, or 0 for all cores", opt->threads);
    *out = (MjDeviceInfo){
        .kind = "cpu",
        .family = MJ_FAMILY_CPU,
        .units = opt && opt->threads > 0 ? opt->threads : mj_pool_cores(),
        .memory_bytes = memory_of_host(),
        .max_shared_bytes = MAX_SHARED,
        .fp8 = true,
    };
    mj_cpu_name(out->name, sizeof out->name);
    snprintf(out->target, sizeof out->target, "%s", mj_cpu_isas[row].target);
    return 0;
}

static int cpu_open(const MjDeviceOptions *opt, MjDevice **out, MjError *err)
{
    MjDeviceInfo info;
    int rc = describe(opt, &info, err);

    if (rc != 0) return rc;
    CpuDevice *cpu = mj_xcalloc(1, sizeof *cpu);
    cpu->base.ops = &mj_device_cpu;
    pthread_mutex_init(&cpu->lock, NULL);
    cpu->pool = mj_pool_open(opt ? opt->threads : 0);
    cpu->info = info;
    cpu->info.units = mj_pool_threads(cpu->pool);
    *out = &cpu->base;
    return 0;
}

static void cpu_close(MjDevice *dev)
{
    CpuDevice *cpu = cpu_of(dev);

    mj_pool_close(cpu->pool);
    free_functions(cpu->wrapped);
    cpu_free(dev, cpu->scratch);
    for (size_t i = 0; i < cpu->n_allocations; i++) { /* what the owner did not free */
        free(cpu->allocations[i].ptr);
        free(cpu->allocations[i].what);
    }
    free(cpu->allocations);
    pthread_mutex_destroy(&cpu->lock);
    free(cpu);
}

static const MjDeviceInfo *cpu_info(const MjDevice *dev)
{
    return &cpu_of_const(dev)->info;
}

MjPool *mj_device_cpu_pool(MjDevice *dev)
{
    return cpu_of(dev)->pool;
}

uint64_t mj_device_cpu_scratch_growths(const MjDevice *dev)
{
    return cpu_of_const(dev)->scratch_growths;
}

static void cpu_counters(const MjDevice *dev, MjDeviceCounters *out)
{
    *out = (MjDeviceCounters){.launches = cpu_of_const(dev)->launches};
}

const MjDeviceOps mj_device_cpu = {
    .kind = "cpu",
    .probe = describe,
    .open = cpu_open,
    .close = cpu_close,
    .info = cpu_info,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .allocated_bytes = cpu_allocated_bytes,
    .peak_bytes = cpu_peak_bytes,
    .reserved_bytes = cpu_allocated_bytes, /* nothing is kept */
    .upload = cpu_copy,
    .download = cpu_copy,
    .fill = cpu_fill,
    .copy = cpu_copy,
    .module_load = cpu_module_load,
    .module_unload = cpu_module_unload,
    .module_function = cpu_module_function,
    .launch = cpu_launch,
    .synchronize = cpu_synchronize,
    .counters = cpu_counters,
    .event_create = cpu_event_create,
    .event_destroy = cpu_event_destroy,
    .event_record = cpu_event_record,
    .event_elapsed = cpu_event_elapsed,
};
