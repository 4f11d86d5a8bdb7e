/* A snapshot of what the devices are doing: the machine's CPUs from /proc, GPUs from NVML (opened at run time; none =
 * no rows). Utilisation of the CPUs is over the time since the last call.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/sweep.h"

static double cpu_utilisation(void)
{
    static unsigned long long last_busy, last_all;
    unsigned long long v[8] = {0}, all = 0;
    FILE *f = fopen("/proc/stat", "re");
    if (f == NULL) return (double)NAN;
    int n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]);
    fclose(f);
    if (n < 5) return (double)NAN;
    for (int i = 0; i < 8; i++) all += v[i];
    unsigned long long busy = all - v[3] - v[4];
    double share = all > last_all && last_all > 0 ? (double)(busy - last_busy) / (double)(all - last_all) : (double)NAN;
    last_busy = busy;
    last_all = all;
    return share;
}

static double resident_bytes(long pid)
{
    char path[64];
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%ld/statm", pid);
    FILE *f = pid > 0 ? fopen(path, "re") : NULL;
    if (f == NULL) return (double)NAN;
    int n = fscanf(f, "%*s %ld", &pages);
    fclose(f);
    return n == 1 ? (double)pages * (double)sysconf(_SC_PAGESIZE) : (double)NAN;
}

/* The few NVML declarations that are needed; the library's ABI is stable. */
typedef struct MjNvmlUtilisation {
    unsigned gpu, memory;
} MjNvmlUtilisation;
typedef struct MjNvmlMemory {
    unsigned long long total, free, used;
} MjNvmlMemory;
typedef struct MjNvml {
    int (*init)(void);
    int (*count)(unsigned *);
    int (*handle)(unsigned, void **);
    int (*name)(void *, char *, unsigned);
    int (*utilisation)(void *, MjNvmlUtilisation *);
    int (*memory)(void *, MjNvmlMemory *);
} MjNvml;

static const MjNvml *nvml(void)
{
    static MjNvml lib;
    static int state; /* 0 not tried, 1 there, -1 missing */
    if (state != 0) return state > 0 ? &lib : NULL;
    state = -1;
    void *so = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (so == NULL) return NULL;
    *(void **)&lib.init = dlsym(so, "nvmlInit_v2");
    *(void **)&lib.count = dlsym(so, "nvmlDeviceGetCount_v2");
    *(void **)&lib.handle = dlsym(so, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&lib.name = dlsym(so, "nvmlDeviceGetName");
    *(void **)&lib.utilisation = dlsym(so, "nvmlDeviceGetUtilizationRates");
    *(void **)&lib.memory = dlsym(so, "nvmlDeviceGetMemoryInfo");
    if (lib.init != NULL && lib.count != NULL && lib.handle != NULL && lib.name != NULL && lib.utilisation != NULL &&
        lib.memory != NULL && lib.init() == 0) {
        state = 1;
    }
    return state > 0 ? &lib : NULL;
}

static int sample_gpus(MjResource *out, int cap)
{
    const MjNvml *lib = nvml();
    unsigned count = 0;
    int n = 0;
    if (lib == NULL || lib->count(&count) != 0) return 0;
    for (unsigned i = 0; i < count && n < cap; i++) {
        void *gpu = NULL;
        char name[64] = "GPU";
        MjNvmlUtilisation use;
        MjNvmlMemory memory;
        if (lib->handle(i, &gpu) != 0) continue;
        lib->name(gpu, name, sizeof name);
        MjResource *r = &out[n++];
        snprintf(r->device, sizeof r->device, "cuda:%u %s", i, name);
        r->utilisation = lib->utilisation(gpu, &use) == 0 ? use.gpu / 100.0 : (double)NAN;
        bool known = lib->memory(gpu, &memory) == 0;
        r->memory_bytes = known ? (double)memory.used : (double)NAN;
        r->memory_total = known ? (double)memory.total : (double)NAN;
    }
    return n;
}

int mj_resource_sample(long pid, MjResource *out, int cap)
{
    if (cap < 1) return 0;
    snprintf(out[0].device, sizeof out[0].device, "cpu (%ld cores, whole machine)", sysconf(_SC_NPROCESSORS_ONLN));
    out[0].utilisation = cpu_utilisation();
    out[0].memory_bytes = resident_bytes(pid);
    out[0].memory_total = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    return 1 + sample_gpus(out + 1, cap - 1);
}
