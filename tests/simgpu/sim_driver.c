/* libcuda.so.1 of the simulator: devices, memory (pools: sim_pool.c), streams, events, graphs, libraries, launches. Owns device memory and the
 * sticky error of a device; kernels run in sim_exec.c. Everything is done when the call returns.
 *
 * Chosen by MOJIT_CUDA_LIBRARY_PATH. Settings, read at cuInit:
 *   MOJIT_SIMGPU_DEVICES=n   how many devices (1); 0: cuInit answers CUDA_ERROR_NO_DEVICE
 *   MOJIT_SIMGPU_ARCH=sm_90a, sm_80, ...   MOJIT_SIMGPU_NAME=text   MOJIT_SIMGPU_DRIVER=13000
 *   MOJIT_SIMGPU_MEMORY=bytes (8 GiB)      MOJIT_SIMGPU_LOSE=n: the n-th launch loses the device (an ECC error)
 *   MOJIT_SIMGPU_OVERLAP=1   every launch is one that may overlap: each kernel must wait before it touches global memory (sm_90 on)
 *   MOJIT_SIMGPU_PROTECT=1   the host can't touch device memory (a segmentation fault), as on a real machine
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "runtime/cuda_api.h"
#include "sim.h"
#include "sim_pool.h"

#define API __attribute__((visibility("default")))
#define PAGE 4096u
#define ARENA ((size_t)32 << 30) /* address space of one device; memory is committed as it is touched */
#define MAX_DEVICES 8

typedef struct Device {
    char *arena;       /* ARENA bytes of address space */
    uint32_t *page_of; /* allocation number + 1 of each page */
    uint8_t *written;  /* a bit a byte of the arena */
    size_t used;       /* of the arena, never reused: a stale pointer is always caught */
    size_t held;       /* bytes of live allocations, and what pools hold */
    SimAllocation *allocations;
    size_t n, cap;
    int retained, error; /* sticky */
    char *report;
} Device;

struct MjCuStream_ {
    int device;
    struct MjCuGraph_ *capture; /* being recorded */
    bool after_kernel; /* what came last is a launch */
};
struct MjCuEvent_ {
    struct timespec when;
    bool recorded;
};
struct MjCuKernel_ {
    const SimKernelInfo *info;
    char name[96];
    struct MjCuLibrary_ *library;
    int max_dynamic, non_portable;
};
struct MjCuLibrary_ {
    void *handle;
    char path[64];
    char *lo, *hi;
    int fd;
    struct MjCuKernel_ *kernels[64];
    int n_kernels;
};
typedef struct Node { /* of a graph: a launch, or a copy or memset when kernel is NULL */
    struct MjCuKernel_ *kernel;
    MjCuLaunchConfig config;
    MjCuLaunchAttribute attrs[4];
    bool overlap;
    void *params[SIM_MAX_PARAMS];
    MjCuPtr dst, src; /* src: a copy */
    size_t bytes;
    unsigned char byte;
    void (*work)(void *data); /* of a simulated library, with its own copy of the data */
    void *data;
} Node;
struct MjCuGraph_ {
    Node *nodes;
    int n, cap, users;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static Device devices[MAX_DEVICES];
static int n_devices, driver_version, arch, launches, lose_at;
static bool initialised, protect, all_overlap;
static size_t memory_bytes;
static char device_name[128];
static _Thread_local int current = -1;
static const SimAllocation *last; /* accessed: most accesses fall in the one before */

static Device *device_of(const void *p)
{
    for (int d = 0; d < n_devices; d++)
        if (devices[d].arena != NULL && (const char *)p >= devices[d].arena && (const char *)p < devices[d].arena + ARENA)
            return &devices[d];
    return NULL;
}

bool sim_is_device_memory(const void *p) { return device_of(p) != NULL; }

int sim_check_global(const void *p, size_t bytes, char *why, size_t cap)
{
    const char *c = p;
    if (last != NULL && !last->freed && c >= last->start && c + bytes <= last->start + last->bytes && current >= 0 &&
        (size_t)(c - devices[current].arena) < ARENA)
        return 0;
    const Device *d = device_of(p);
    if (d == NULL) {
        snprintf(why, cap, "not memory of a device");
        return -1;
    }
    if (current >= 0 && d != &devices[current]) {
        snprintf(why, cap, "memory of device %d, while device %d is current", (int)(d - devices), current);
        return -1;
    }
    const uint32_t number = d->page_of[(size_t)(c - d->arena) / PAGE];
    if (number == 0) {
        snprintf(why, cap, "no allocation is there");
        return -1;
    }
    const SimAllocation *a = &d->allocations[number - 1];
    if (a->freed) {
        snprintf(why, cap, "the allocation of %zu bytes at %p was freed", a->bytes, (void *)a->start);
        return -1;
    }
    if (c < a->start || c + bytes > a->start + a->bytes) {
        snprintf(why, cap, "offset %lld of the allocation of %zu bytes at %p", (long long)(c - a->start), a->bytes, (void *)a->start);
        return -1;
    }
    last = a;
    return 0;
}

/* Exported for simulated libraries, which write on their own. */
API void sim_mark_global(const void *p, size_t bytes)
{
    Device *d = device_of(p);
    size_t i = d != NULL ? (size_t)((const char *)p - d->arena) : 0;
    const size_t end = d != NULL ? i + bytes : 0;
    for (; i < end && i % 8 != 0; i++) d->written[i / 8] |= (uint8_t)(1u << i % 8);
    if (end > i) memset(d->written + i / 8, 0xff, (end - i) / 8);
    for (i = end > i ? end / 8 * 8 : end; i < end; i++) d->written[i / 8] |= (uint8_t)(1u << i % 8);
}

bool sim_global_written(const void *p, size_t bytes)
{
    const Device *d = device_of(p);
    if (d == NULL) return true;
    const size_t first = (size_t)((const char *)p - d->arena);
    for (size_t i = first; i < first + bytes; i++) {
        if (i % 8 == 0 && i + 8 <= first + bytes && d->written[i / 8] == 0xff) i += 7;
        else if ((d->written[i / 8] >> i % 8 & 1u) == 0) return false;
    }
    return true;
}

static Device *here(void) { return current >= 0 ? &devices[current] : NULL; }

static void open_memory(Device *d, bool on)
{
    if (protect && d != NULL && d->used > 0) mprotect(d->arena, d->used, on ? PROT_READ | PROT_WRITE : PROT_NONE);
}

/* Fails with the device's sticky error, as every call after a dead kernel does. */
#define LIVE()                                                                                                \
    do {                                                                                                      \
        if (!initialised) return 3;                                                                           \
        if (here() == NULL) return 201;                                                                       \
        if (here()->error != 0) return here()->error;                                                         \
    } while (0)

/* ---- start, devices --------------------------------------------------------------------------------------- */

static long setting(const char *name, long otherwise)
{
    const char *v = getenv(name);
    return v != NULL && v[0] != '\0' ? atol(v) : otherwise;
}

static int sim_Init(unsigned flags)
{
    (void)flags;
    pthread_mutex_lock(&mutex);
    if (!initialised) {
        const char *a = getenv("MOJIT_SIMGPU_ARCH"), *name = getenv("MOJIT_SIMGPU_NAME");
        n_devices = (int)setting("MOJIT_SIMGPU_DEVICES", 1);
        if (n_devices > MAX_DEVICES) n_devices = MAX_DEVICES;
        lose_at = (int)setting("MOJIT_SIMGPU_LOSE", 0);
        memory_bytes = (size_t)setting("MOJIT_SIMGPU_MEMORY", (long)8 << 30);
        protect = setting("MOJIT_SIMGPU_PROTECT", 0) != 0;
        all_overlap = setting("MOJIT_SIMGPU_OVERLAP", 0) != 0;
        arch = a != NULL && strncmp(a, "sm_", 3) == 0 ? atoi(a + 3) : 90;
        snprintf(device_name, sizeof device_name, "%s", name != NULL ? name : "Simulated GPU");
        initialised = true;
    }
    pthread_mutex_unlock(&mutex);
    return n_devices > 0 ? 0 : 100;
}

static int sim_DriverGetVersion(int *v)
{
    driver_version = (int)setting("MOJIT_SIMGPU_DRIVER", 13000);
    *v = driver_version;
    return 0;
}

static const struct {
    int code;
    const char *name, *text;
} errors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "the capture was not initiated in this stream"},
    {912, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "a cluster is misconfigured"},
};

static int sim_GetErrorName(int r, const char **name)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].code == r) {
            *name = errors[i].name;
            return 0;
        }
    return 1;
}

/* For a dead kernel: what the simulator saw, so that mojit's own messages carry it. */
static int sim_GetErrorString(int r, const char **text)
{
    if (here() != NULL && here()->error == r && here()->report != NULL) {
        *text = here()->report;
        return 0;
    }
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].code == r) {
            *text = errors[i].text;
            return 0;
        }
    return 1;
}

static int sim_DeviceGetCount(int *n)
{
    if (!initialised) return 3;
    *n = n_devices;
    return 0;
}
static int sim_DeviceGet(int *dev, int ordinal)
{
    if (ordinal < 0 || ordinal >= n_devices) return 101;
    *dev = ordinal;
    return 0;
}
static int sim_DeviceGetName(char *name, int len, int dev)
{
    (void)dev;
    snprintf(name, (size_t)len, "%s", device_name);
    return 0;
}
static int static_bytes(const struct MjCuKernel_ *k) { return (int)(k->info->shared_stop - k->info->shared_start) - SIM_STATIC_ANCHOR; }

/* "Technical Specifications per Compute Capability": opt-in shared memory of a block */
static int max_shared(void) { return arch == 86 || arch == 89 || arch >= 120 ? 101376 : arch < 90 ? 166912 : (int)SIM_MAX_SHARED; }
static int sim_DeviceGetAttribute(int *v, int attribute, int dev)
{
    (void)dev;
    switch (attribute) {
    case MJ_CU_DEV_MULTIPROCESSOR_COUNT: *v = 4; return 0;
    case MJ_CU_DEV_L2_BYTES: *v = 64 << 10; return 0;
    case MJ_CU_DEV_COMPUTE_MAJOR: *v = arch / 10; return 0;
    case MJ_CU_DEV_COMPUTE_MINOR: *v = arch % 10; return 0;
    case MJ_CU_DEV_MAX_SHARED_OPTIN: *v = max_shared(); return 0;
    case MJ_CU_DEV_MEMORY_POOLS: *v = sim_pools(); return 0;
    default: return 1;
    }
}
static int sim_DeviceTotalMem(size_t *bytes, int dev)
{
    (void)dev;
    *bytes = memory_bytes;
    return 0;
}

static int sim_DevicePrimaryCtxRetain(MjCuContext *ctx, int dev)
{
    pthread_mutex_lock(&mutex);
    Device *d = &devices[dev];
    if (d->arena == NULL) {
        void *p = mmap(NULL, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        void *t = mmap(NULL, ARENA / PAGE * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
        void *w = mmap(NULL, ARENA / 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED || t == MAP_FAILED || w == MAP_FAILED) {
            pthread_mutex_unlock(&mutex);
            return 2;
        }
        d->arena = p;
        d->page_of = t;
        d->written = w;
    }
    d->retained++;
    *ctx = (MjCuContext)(void *)d;
    pthread_mutex_unlock(&mutex);
    return 0;
}
static int sim_DevicePrimaryCtxRelease(int dev)
{
    Device *d = &devices[dev];
    if (d->retained == 0) return 201;
    if (--d->retained > 0) return 0;
    for (size_t i = 0; i < d->n; i++) { /* the context takes its memory and error along, but for what is a pool's */
        if (d->allocations[i].freed || d->allocations[i].pool != NULL) continue;
        d->held -= d->allocations[i].bytes;
        sim_memory_remove(&d->allocations[i]);
    }
    d->error = 0;
    free(d->report);
    d->report = NULL;
    return 0;
}
static int sim_CtxSetCurrent(MjCuContext ctx)
{
    current = ctx == NULL ? -1 : (int)((Device *)(void *)ctx - devices);
    return 0;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static int sim_MemGetInfo(size_t *free_bytes, size_t *total)
{
    LIVE();
    *total = memory_bytes;
    *free_bytes = memory_bytes - here()->held;
    return 0;
}

int sim_live(void)
{
    LIVE();
    return 0;
}
int sim_stream_device(MjCuStream s) { return s->device; }
bool sim_stream_captures(MjCuStream s) { return s->capture != NULL; }
void sim_stream_note(MjCuStream s) { s->after_kernel = false; }
int sim_device_count(void) { return n_devices; }

bool sim_memory_count(int device, int64_t bytes)
{
    Device *d = &devices[device];
    if (bytes > 0 && d->held + (size_t)bytes > memory_bytes) return false;
    d->held += (size_t)bytes;
    return true;
}

/* Starts 256 bytes into a page (no more alignment than the API promises) and leaves a page free after the end. */
SimAllocation *sim_memory_place(int device, size_t bytes)
{
    Device *d = &devices[device];
    const size_t pages = (256 + bytes + PAGE - 1) / PAGE + 1;
    if (d->used + pages * PAGE > ARENA) return NULL;
    if (d->n == d->cap) {
        d->cap = d->cap == 0 ? 256 : 2 * d->cap;
        d->allocations = realloc(d->allocations, d->cap * sizeof *d->allocations);
        last = NULL;
    }
    char *base = d->arena + d->used;
    if (mprotect(base, pages * PAGE, PROT_READ | PROT_WRITE) != 0) return NULL;
    for (size_t i = 0; i < pages; i++) d->page_of[d->used / PAGE + i] = (uint32_t)d->n + 1;
    SimAllocation *a = &d->allocations[d->n++];
    *a = (SimAllocation){.start = base + 256, .bytes = bytes};
    d->used += pages * PAGE;
    if (bytes <= (size_t)64 << 20) memset(base + 256, 0xff, bytes); /* NaN in every float type: nobody lives on zeros */
    open_memory(d, false);
    return a;
}

SimAllocation *sim_memory_at(MjCuPtr p, int *device)
{
    Device *d = device_of((void *)(uintptr_t)p);
    if (d == NULL) return NULL;
    const uint32_t number = d->page_of[((char *)(uintptr_t)p - d->arena) / PAGE];
    SimAllocation *a = number != 0 ? &d->allocations[number - 1] : NULL;
    if (a == NULL || a->freed || a->start != (char *)(uintptr_t)p) return NULL;
    *device = (int)(d - devices);
    return a;
}

void sim_memory_remove(SimAllocation *a)
{
    a->freed = true;
    madvise(a->start - 256, (256 + a->bytes + PAGE - 1) / PAGE * PAGE, MADV_DONTNEED);
}

static int sim_MemAlloc(MjCuPtr *out, size_t bytes)
{
    LIVE();
    if (bytes == 0) return 1;
    if (!sim_memory_count(current, (int64_t)bytes)) return 2;
    const SimAllocation *a = sim_memory_place(current, bytes);
    if (a == NULL) return 2;
    *out = (MjCuPtr)(uintptr_t)a->start;
    return 0;
}

static int sim_MemFree(MjCuPtr p)
{
    int device = -1;
    if (p == 0) return 0;
    SimAllocation *a = sim_memory_at(p, &device);
    if (a == NULL) return 1;
    if (a->pool != NULL) return 1; /* CUDA would free it without waiting for the work that uses it */
    (void)sim_memory_count(device, -(int64_t)a->bytes);
    sim_memory_remove(a);
    return 0;
}

static int sim_MemHostAlloc(void **p, size_t bytes, unsigned flags)
{
    (void)flags;
    *p = malloc(bytes);
    return *p != NULL ? 0 : 2;
}
static int sim_MemFreeHost(void *p)
{
    free(p);
    return 0;
}

static int check_range(MjCuPtr p, size_t bytes)
{
    char why[256];
    return sim_check_global((void *)(uintptr_t)p, bytes, why, sizeof why) == 0 ? 0 : 1;
}

static int sim_MemcpyHtoDAsync(MjCuPtr dst, const void *src, size_t bytes, MjCuStream s)
{
    LIVE();
    s->after_kernel = false;
    if (s->capture != NULL) return 900;
    if (check_range(dst, bytes) != 0) return 1;
    open_memory(here(), true);
    memcpy((void *)(uintptr_t)dst, src, bytes);
    open_memory(here(), false);
    sim_mark_global((void *)(uintptr_t)dst, bytes);
    return 0;
}
static int sim_MemcpyDtoHAsync(void *dst, MjCuPtr src, size_t bytes, MjCuStream s)
{
    LIVE();
    s->after_kernel = false;
    if (s->capture != NULL) return 900;
    if (check_range(src, bytes) != 0) return 1;
    open_memory(here(), true);
    memcpy(dst, (void *)(uintptr_t)src, bytes);
    open_memory(here(), false);
    return 0;
}

static Node *record(MjCuStream s)
{
    struct MjCuGraph_ *g = s->capture;
    if (g->n == g->cap) {
        g->cap = g->cap == 0 ? 64 : 2 * g->cap;
        g->nodes = realloc(g->nodes, (size_t)g->cap * sizeof *g->nodes);
    }
    memset(&g->nodes[g->n], 0, sizeof g->nodes[g->n]);
    return &g->nodes[g->n++];
}

static int sim_MemsetD8Async(MjCuPtr dst, unsigned char byte, size_t bytes, MjCuStream s)
{
    LIVE();
    s->after_kernel = false;
    if (check_range(dst, bytes) != 0) return 1;
    if (s->capture != NULL) {
        Node *n = record(s);
        n->dst = dst;
        n->bytes = bytes;
        n->byte = byte;
        return 0;
    }
    open_memory(here(), true);
    memset((void *)(uintptr_t)dst, byte, bytes);
    open_memory(here(), false);
    sim_mark_global((void *)(uintptr_t)dst, bytes);
    return 0;
}

static int sim_MemcpyDtoDAsync(MjCuPtr dst, MjCuPtr src, size_t bytes, MjCuStream s)
{
    LIVE();
    s->after_kernel = false;
    if (check_range(dst, bytes) != 0 || check_range(src, bytes) != 0) return 1;
    if (s->capture != NULL) {
        Node *n = record(s);
        n->dst = dst;
        n->src = src;
        n->bytes = bytes;
        return 0;
    }
    open_memory(here(), true);
    memmove((void *)(uintptr_t)dst, (void *)(uintptr_t)src, bytes);
    open_memory(here(), false);
    const bool all = sim_global_written((void *)(uintptr_t)src, bytes);
    if (all) sim_mark_global((void *)(uintptr_t)dst, bytes);
    for (size_t i = 0; i < bytes && !all; i++)
        if (sim_global_written((char *)(uintptr_t)src + i, 1)) sim_mark_global((char *)(uintptr_t)dst + i, 1);
    return 0;
}

/* For simulated libraries: work on device memory in stream order. `data` is copied. */
API int sim_enqueue(MjCuStream s, void (*work)(void *data), const void *data, size_t bytes);
API int sim_enqueue(MjCuStream s, void (*work)(void *data), const void *data, size_t bytes)
{
    LIVE();
    s->after_kernel = false;
    void *copy = malloc(bytes);
    memcpy(copy, data, bytes);
    if (s->capture != NULL) {
        Node *n = record(s);
        n->work = work;
        n->data = copy;
        return 0;
    }
    open_memory(here(), true);
    work(copy);
    open_memory(here(), false);
    free(copy);
    return 0;
}

/* ---- libraries ---------------------------------------------------------------------------------------------------- */

/* The size of an ELF image, which the API doesn't pass: its section headers end it. */
static size_t image_bytes(const void *image)
{
    const Elf64_Ehdr *h = image;
    return (size_t)h->e_shoff + (size_t)h->e_shnum * h->e_shentsize;
}

/* Kernels call back into this library: make its symbols visible to what is loaded later. */
static void publish_services(void)
{
    Dl_info info;
    if (dladdr((void *)(uintptr_t)&publish_services, &info) != 0) (void)dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
}

static int find_extent(struct dl_phdr_info *info, size_t size, void *user)
{
    struct MjCuLibrary_ *lib = user;
    (void)size;
    if (info->dlpi_name == NULL || strcmp(info->dlpi_name, lib->path) != 0) return 0;
    lib->lo = (char *)info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        char *end = lib->lo + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && end > lib->hi) lib->hi = end;
    }
    return 1;
}

static int sim_LibraryLoadData(MjCuLibrary *out, const void *image, int *jo, void **jv, unsigned nj, int *lo, void **lv, unsigned nl)
{
    (void)jo, (void)jv, (void)nj, (void)lo, (void)lv, (void)nl;
    LIVE();
    const Elf64_Ehdr *h = image;
    if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0) return 200;
    if (h->e_machine != EM_X86_64) return 209; /* a real cubin (EM_CUDA) */
    struct MjCuLibrary_ *lib = calloc(1, sizeof *lib);
    const size_t bytes = image_bytes(image);
    lib->fd = memfd_create("simgpu", MFD_CLOEXEC);
    snprintf(lib->path, sizeof lib->path, "/proc/%d/fd/%d", (int)getpid(), lib->fd);
    int rc = 200;
    pthread_mutex_lock(&mutex);
    publish_services();
    if (lib->fd >= 0 && write(lib->fd, image, bytes) == (ssize_t)bytes) lib->handle = dlopen(lib->path, RTLD_NOW | RTLD_LOCAL);
    if (lib->handle != NULL) {
        const int *built_for = dlsym(lib->handle, "simgpu_image_arch");
        /* sm_90a code runs on 9.0 alone; other code on its own major version, same or later minor */
        const bool fits = built_for != NULL && *built_for / 10 == arch / 10 && *built_for <= arch;
        const int *toolkit = dlsym(lib->handle, "simgpu_image_toolkit"); /* "CUDA Compatibility": of the driver's major version at most */
        rc = !fits ? 209 : toolkit != NULL && *toolkit > driver_version / 1000 ? 200 : 0;
        dl_iterate_phdr(find_extent, lib);
    } else {
        fprintf(stderr, "simulated GPU: %s\n", dlerror());
    }
    pthread_mutex_unlock(&mutex);
    if (rc != 0) {
        if (lib->handle != NULL) dlclose(lib->handle);
        if (lib->fd >= 0) close(lib->fd);
        free(lib);
        return rc;
    }
    *out = lib;
    return 0;
}

static int sim_LibraryUnload(MjCuLibrary lib)
{
    for (int i = 0; i < lib->n_kernels; i++) free(lib->kernels[i]);
    dlclose(lib->handle);
    close(lib->fd);
    free(lib);
    return 0;
}

static int sim_LibraryGetKernel(MjCuKernel *out, MjCuLibrary lib, const char *name)
{
    char symbol[160];
    LIVE();
    snprintf(symbol, sizeof symbol, "simgpu_kernel_%s", name);
    const SimKernelInfo *(*describe)(void);
    void *p = dlsym(lib->handle, symbol);
    if (p == NULL || lib->n_kernels == 64) return 500;
    memcpy(&describe, &p, sizeof describe);
    struct MjCuKernel_ *k = calloc(1, sizeof *k);
    k->info = describe();
    k->library = lib;
    k->max_dynamic = 48 * 1024 - static_bytes(k);
    snprintf(k->name, sizeof k->name, "%s", name);
    lib->kernels[lib->n_kernels++] = k;
    *out = k;
    return 0;
}

static int sim_KernelGetAttribute(int *v, int attribute, MjCuKernel k, int dev)
{
    (void)dev;
    switch (attribute) {
    case MJ_CU_FUNC_MAX_THREADS_PER_BLOCK: *v = k->info->max_threads > 0 ? k->info->max_threads : 1024; return 0;
    case MJ_CU_FUNC_SHARED_BYTES: *v = static_bytes(k); return 0;
    case MJ_CU_FUNC_LOCAL_BYTES: *v = 0; return 0;
    case MJ_CU_FUNC_REGISTERS: *v = 0; return 0;
    case MJ_CU_FUNC_MAX_DYNAMIC_SHARED: *v = k->max_dynamic; return 0;
    default: return 1;
    }
}

static int sim_KernelSetAttribute(int attribute, int v, MjCuKernel k, int dev)
{
    (void)dev;
    if (attribute == MJ_CU_FUNC_MAX_DYNAMIC_SHARED) {
        if (v < 0 || v + static_bytes(k) > max_shared()) return 1;
        k->max_dynamic = v;
        return 0;
    }
    if (attribute == MJ_CU_FUNC_NON_PORTABLE_CLUSTER) {
        k->non_portable = v;
        return 0;
    }
    return 1;
}

/* ---- launches, graphs -------------------------------------------------------------------------------------------------- */

/* "Technical Specifications per Compute Capability"; cuLaunchKernelEx answers these at once. That a launch may overlap is said of
 * "the previous kernel in the stream" (CUlaunchAttributeID); what it would mean after anything else is not, so it is refused. */
static int check_geometry(const MjCuLaunchConfig *c, const struct MjCuKernel_ *k, unsigned cluster, bool overlap)
{
    const int max_threads = k->info->max_threads > 0 ? k->info->max_threads : 1024;
    if (c->grid_x == 0 || c->grid_x > 0x7fffffffu || c->grid_y != 1 || c->grid_z != 1) return 1;
    if (c->block_x == 0 || c->block_x > 1024 || c->block_y != 1 || c->block_z != 1) return 1;
    if (c->block_x > (unsigned)max_threads) return 719; /* more threads than __launch_bounds__ */
    if (c->shared_bytes > (unsigned)k->max_dynamic) return 1;
    if (cluster > 1 && (arch < 90 || cluster > (k->non_portable ? 16u : 8u))) return 912;
    if (c->grid_x % cluster != 0) return 912;
    if (overlap && (arch < 90 || !c->stream->after_kernel)) return 801;
    return 0;
}

static int run_kernel(const MjCuLaunchConfig *c, struct MjCuKernel_ *k, unsigned cluster, bool overlap, void **params)
{
    Device *d = here();
    const SimLaunch l = {.kernel = k->info, .name = k->name, .grid = c->grid_x, .block = c->block_x, .cluster = cluster,
                         .shared_bytes = c->shared_bytes, .params = params, .arch = arch, .overlap = overlap, .image_path = k->library->path,
                         .image_lo = k->library->lo, .image_hi = k->library->hi};
    if (++launches == lose_at) {
        d->error = 214;
        return 0;
    }
    pthread_mutex_lock(&mutex);
    open_memory(d, true);
    const int rc = sim_execute(&l);
    open_memory(d, false);
    if (rc != 0) {
        d->error = rc;
        free(d->report);
        d->report = strdup(sim_report);
        if (getenv("MOJIT_SIMGPU_VERBOSE") != NULL) fprintf(stderr, "%s\n", sim_report);
    }
    pthread_mutex_unlock(&mutex);
    return 0; /* as on a real device: a dead kernel shows at the next synchronisation */
}

static int sim_LaunchKernelEx(const MjCuLaunchConfig *c, MjCuKernel k, void **params, void **extra)
{
    unsigned cluster = 1;
    LIVE();
    if (extra != NULL || c->stream == NULL) return 1;
    bool overlap = false;
    for (unsigned i = 0; i < c->n_attrs; i++) {
        if (c->attrs[i].id == MJ_CU_LAUNCH_CLUSTER_DIMENSION) cluster = c->attrs[i].value.cluster.x;
        if (c->attrs[i].id == MJ_CU_LAUNCH_PROGRAMMATIC_SERIALIZATION) overlap = c->attrs[i].value.programmatic != 0;
    }
    const int rc = check_geometry(c, k, cluster, overlap);
    if (rc != 0) return rc;
    for (int i = 0; i < k->info->n_params; i++)
        if (params[i] == NULL) return 1;
    c->stream->after_kernel = true;
    overlap |= all_overlap && arch >= 90;
    if (c->stream->capture == NULL) return run_kernel(c, k, cluster, overlap, params);
    Node *n = record(c->stream);
    n->kernel = k;
    n->config = *c;
    n->config.n_attrs = cluster; /* all that a replay needs of the attributes */
    n->overlap = overlap;
    for (int i = 0; i < k->info->n_params; i++) {
        n->params[i] = aligned_alloc(64, (k->info->param_bytes[i] + 63) / 64 * 64);
        memcpy(n->params[i], params[i], k->info->param_bytes[i]);
    }
    return 0;
}

static int sim_StreamCreate(MjCuStream *s, unsigned flags)
{
    (void)flags;
    LIVE();
    *s = calloc(1, sizeof **s);
    (*s)->device = current;
    return 0;
}
static int sim_StreamDestroy(MjCuStream s)
{
    free(s);
    return 0;
}
static int sim_StreamSynchronize(MjCuStream s)
{
    LIVE();
    if (s->capture != NULL) return 900;
    sim_pool_observed(s);
    return 0;
}
static int sim_StreamBeginCapture(MjCuStream s, int mode)
{
    (void)mode;
    LIVE();
    if (s->capture != NULL) return 900;
    s->after_kernel = false;
    s->capture = calloc(1, sizeof *s->capture);
    s->capture->users = 1;
    return 0;
}
static int sim_StreamEndCapture(MjCuStream s, MjCuGraph *g)
{
    LIVE();
    if (s->capture == NULL) return 903;
    s->after_kernel = false;
    *g = s->capture;
    s->capture = NULL;
    return 0;
}
static int sim_GraphDestroy(MjCuGraph g)
{
    if (--g->users > 0) return 0;
    for (int i = 0; i < g->n; i++)
        for (int p = 0; p < SIM_MAX_PARAMS; p++) free(g->nodes[i].params[p]);
    for (int i = 0; i < g->n; i++) free(g->nodes[i].data);
    free(g->nodes);
    free(g);
    return 0;
}
static int sim_GraphGetNodes(MjCuGraph g, void **nodes, size_t *n)
{
    if (nodes != NULL) return 1; /* nobody asks for more than how many there are */
    *n = (size_t)g->n;
    return 0;
}
static int sim_GraphInstantiateWithFlags(MjCuGraphExec *e, MjCuGraph g, unsigned long long flags)
{
    (void)flags;
    LIVE();
    g->users++;
    *e = (MjCuGraphExec)(void *)g;
    return 0;
}
static int sim_GraphExecDestroy(MjCuGraphExec e) { return sim_GraphDestroy((MjCuGraph)(void *)e); }
static int sim_GraphLaunch(MjCuGraphExec e, MjCuStream s)
{
    struct MjCuGraph_ *g = (struct MjCuGraph_ *)(void *)e;
    LIVE();
    s->after_kernel = false;
    for (int i = 0; i < g->n && here()->error == 0; i++) {
        Node *n = &g->nodes[i];
        if (n->work != NULL) {
            open_memory(here(), true);
            n->work(n->data);
            open_memory(here(), false);
        } else if (n->kernel == NULL) {
            const int rc = n->src != 0 ? sim_MemcpyDtoDAsync(n->dst, n->src, n->bytes, s)
                                       : sim_MemsetD8Async(n->dst, n->byte, n->bytes, s);
            if (rc != 0) return rc;
        } else {
            (void)run_kernel(&n->config, n->kernel, n->config.n_attrs, n->overlap, n->params);
        }
    }
    return 0;
}

static int sim_EventCreate(MjCuEvent *e, unsigned flags)
{
    (void)flags;
    LIVE();
    *e = calloc(1, sizeof **e);
    return 0;
}
static int sim_EventDestroy(MjCuEvent e)
{
    free(e);
    return 0;
}
static int sim_EventRecord(MjCuEvent e, MjCuStream s)
{
    LIVE();
    s->after_kernel = false;
    clock_gettime(CLOCK_MONOTONIC, &e->when);
    e->recorded = true;
    return 0;
}
static int sim_EventSynchronize(MjCuEvent e)
{
    (void)e;
    LIVE();
    return 0;
}
static int sim_EventElapsedTime(float *ms, MjCuEvent a, MjCuEvent b)
{
    LIVE();
    if (!a->recorded || !b->recorded) return 400;
    *ms = (float)((double)(b->when.tv_sec - a->when.tv_sec) * 1e3 + (double)(b->when.tv_nsec - a->when.tv_nsec) * 1e-6);
    return 0;
}

/* ---- tensor maps, the table ---------------------------------------------------------------------------------------------- */

/* "Tensor Map Object Management": what the driver refuses, it refuses here. */
static int sim_TensorMapEncodeTiled(void *map, int type, unsigned rank, void *address, const uint64_t *dims, const uint64_t *strides,
                                    const uint32_t *box, const uint32_t *element_strides, int interleave, int swizzle, int l2, int fill)
{
    static const uint8_t bytes_of[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    static const unsigned width[4] = {0, 32, 64, 128};
    (void)l2;
    if (type < 0 || type > 12 || rank < 1 || rank > 5 || interleave != 0 || swizzle < 0 || swizzle > 3 || fill != 0) return 1;
    if ((uintptr_t)map % 64 != 0 || (uintptr_t)address % 16 != 0) return 1;
    SimTensorMap m = {.magic = SIM_MAP_MAGIC, .address = (uint64_t)(uintptr_t)address, .rank = (uint8_t)rank,
                      .elem = bytes_of[type], .swizzle = (uint8_t)swizzle, .type = (uint8_t)type};
    for (unsigned i = 0; i < rank; i++) {
        if (dims[i] == 0 || dims[i] > (uint64_t)1 << 32 || box[i] == 0 || box[i] > 256 || element_strides[i] != 1) return 1;
        m.dims[i] = dims[i] >> 32 != 0 ? 0xffffffffu : (uint32_t)dims[i];
        m.box[i] = (uint16_t)box[i];
        if (i + 1 < rank) {
            if (strides[i] % 16 != 0 || strides[i] >= (uint64_t)1 << 40) return 1;
            m.strides[i] = strides[i];
        }
    }
    const unsigned row = box[0] * m.elem;
    if (row % 16 != 0 || (swizzle != 0 && row > width[swizzle])) return 1;
    if (swizzle != 0 && row != width[swizzle]) return 801; /* a row narrower than the swizzle is not simulated */
    memset(map, 0, 128);
    memcpy(map, &m, sizeof m);
    return 0;
}

API int cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags, int *found);
API int cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags, int *found)
{
    (void)version, (void)flags, (void)found;
#define ENTRY(fname, params)                                                                                  \
    if (strcmp(name, "cu" #fname) == 0) {                                                                     \
        MjCuResult(*typed) params = sim_##fname;                                                              \
        memcpy(fn, &typed, sizeof typed);                                                                     \
        return 0;                                                                                             \
    }
    MJ_CU_FUNCTIONS(ENTRY)
#undef ENTRY
    *fn = NULL;
    return 500;
}
