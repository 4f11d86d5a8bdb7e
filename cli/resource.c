/* A snapshot of what the devices are doing: the machine's CPUs from /proc, GPUs from NVML (none = no
 * rows). Utilisation of the CPUs is over the time since the last call.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/sweep.h"
#include "runtime/nvml.h"

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

static int sample_gpus(MjResource *out, int cap)
{
    int n = 0;
    if (mj_nvml_open(NULL) != 0) return 0; /* no rows: `mojit doctor` says what is missing */
    for (int i = 0; i < mj_nvml_count() && n < cap; i++) {
        MjNvmlSample gpu;
        if (mj_nvml_sample(i, &gpu, NULL) != 0) continue; /* a lost card must not end the sweep */
        MjResource *r = &out[n++];
        snprintf(r->device, sizeof r->device, "GPU %d %.80s", i, gpu.name);
        r->utilisation = gpu.utilisation;
        r->memory_bytes = gpu.memory_used;
        r->memory_total = gpu.memory_total;
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
