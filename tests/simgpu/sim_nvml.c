/* libnvidia-ml.so.1 of the simulator: as many devices as libcuda.so.1 has, with use and memory that the environment says.
 *   MOJIT_SIMGPU_DEVICES, MOJIT_SIMGPU_NAME, MOJIT_SIMGPU_MEMORY   as in sim_driver.c
 *   MOJIT_SIMGPU_USE=percent (37)   MOJIT_SIMGPU_NVML_DRIVER=text (580.82.07)
 *   MOJIT_SIMGPU_NVML_ERROR=n: nvmlInit_v2 answers n */
#include <stdio.h>
#include <stdlib.h>

#define API __attribute__((visibility("default")))

static long setting(const char *name, long otherwise)
{
    const char *v = getenv(name);
    return v != NULL && v[0] != '\0' ? atol(v) : otherwise;
}

static int put(char *text, unsigned cap, const char *value)
{
    return (unsigned)snprintf(text, cap, "%s", value) < cap ? 0 : 7; /* NVML_ERROR_INSUFFICIENT_SIZE */
}

API int nvmlInit_v2(void);
API int nvmlSystemGetNVMLVersion(char *text, unsigned cap);
API int nvmlSystemGetDriverVersion(char *text, unsigned cap);
API int nvmlDeviceGetCount_v2(unsigned *count);
API int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
API int nvmlDeviceGetName(void *device, char *name, unsigned cap);
API int nvmlDeviceGetUtilizationRates(void *device, unsigned *out);
API int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *out);
API const char *nvmlErrorString(int result);

static int ready;
static char handles[8];

int nvmlInit_v2(void)
{
    const int r = (int)setting("MOJIT_SIMGPU_NVML_ERROR", 0);
    ready = r == 0;
    return r;
}
const char *nvmlErrorString(int result) { return result == 0 ? "Success" : result == 1 ? "Uninitialized" : "Simulated error"; }
int nvmlSystemGetNVMLVersion(char *text, unsigned cap) { return ready ? put(text, cap, "13.580.82") : 1; }
int nvmlSystemGetDriverVersion(char *text, unsigned cap)
{
    const char *v = getenv("MOJIT_SIMGPU_NVML_DRIVER");
    return ready ? put(text, cap, v != NULL ? v : "580.82.07") : 1;
}
int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = (unsigned)setting("MOJIT_SIMGPU_DEVICES", 1);
    return ready ? 0 : 1;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    if (!ready) return 1;
    if (index >= sizeof handles || index >= (unsigned)setting("MOJIT_SIMGPU_DEVICES", 1)) return 2; /* NVML_ERROR_INVALID_ARGUMENT */
    *device = &handles[index];
    return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned cap)
{
    const char *v = getenv("MOJIT_SIMGPU_NAME");
    return device != NULL ? put(name, cap, v != NULL ? v : "Simulated GPU") : 2;
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned *out)
{
    if (device == NULL) return 2;
    out[0] = (unsigned)setting("MOJIT_SIMGPU_USE", 37) + (unsigned)((char *)device - handles); /* each a little more */
    out[1] = out[0] / 2;
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *out)
{
    if (device == NULL) return 2;
    out[0] = (unsigned long long)setting("MOJIT_SIMGPU_MEMORY", (long)8 << 30);
    out[2] = out[0] / 4;
    out[1] = out[0] - out[2];
    return 0;
}
