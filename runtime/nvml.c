/* NVML, opened at run time. */
#include "runtime/nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda_api.h"

#define NVML_MISMATCH 18 /* NVML_ERROR_LIB_RM_VERSION_MISMATCH */
#define OLDEST_DRIVER 525

typedef struct Utilisation {
    unsigned gpu, memory; /* percent of the time */
} Utilisation;
typedef struct Memory {
    unsigned long long total, free, used;
} Memory;

/* The few functions that are needed; the library's ABI is stable. */
#define NVML_FUNCTIONS(X)                                                                                     \
    X(Init_v2, (void))                                                                                        \
    X(SystemGetNVMLVersion, (char *text, unsigned cap))                                                       \
    X(SystemGetDriverVersion, (char *text, unsigned cap))                                                     \
    X(DeviceGetCount_v2, (unsigned *count))                                                                   \
    X(DeviceGetHandleByIndex_v2, (unsigned index, void **device))                                             \
    X(DeviceGetName, (void *device, char *name, unsigned cap))                                                \
    X(DeviceGetUtilizationRates, (void *device, Utilisation *out))                                            \
    X(DeviceGetMemoryInfo, (void *device, Memory *out))

typedef struct Nvml {
#define MEMBER(name, params) int(*name) params;
    NVML_FUNCTIONS(MEMBER)
#undef MEMBER
    const char *(*ErrorString)(int result);
    unsigned count;
    char version[200];
    bool tried;
    MjError failure; /* code 0: ready */
} Nvml;

static Nvml g_nvml;
static pthread_mutex_t g_mutex = PTHREAD_MUTEX_INITIALIZER;

static const char *text_of(const Nvml *n, int result) { return n->ErrorString != NULL ? n->ErrorString(result) : "no text"; }

static int find_functions(Nvml *n, void *library, MjError *err) {
    void *sym;
#define FIND(name, params)                                                                                    \
    sym = dlsym(library, "nvml" #name);                                                                       \
    if (sym == NULL)                                                                                          \
        return mj_error(err, MJ_ERR_MISSING, "libnvidia-ml.so.1 has no nvml" #name ": it is older than driver %d; update " \
                        "the driver", OLDEST_DRIVER);                                                         \
    memcpy(&n->name, &sym, sizeof sym);
    NVML_FUNCTIONS(FIND)
#undef FIND
    sym = dlsym(library, "nvmlErrorString");
    memcpy(&n->ErrorString, &sym, sizeof sym);
    return 0;
}

static int start(Nvml *n, MjError *err) {
    static const char *const names[] = {"libnvidia-ml.so.1", NULL};
    char why[512], library[80] = "?", driver[80] = "?";
    int rc;
    void *so = mj_cuda_dlopen(names, why, sizeof why);
    if (so == NULL) return mj_error(err, MJ_ERR_MISSING, "no NVML (it comes with the NVIDIA driver): %s", why);
    MJ_TRY(find_functions(n, so, err));
    int r = n->Init_v2();
    if (r == NVML_MISMATCH) {
        rc = mj_error(err, MJ_ERR_MISSING, "libnvidia-ml.so.1 and the kernel module are of different driver versions: reboot "
                      "after the driver's update");
        goto out;
    }
    if (r != 0) {
        rc = mj_error(err, MJ_ERR_MISSING, "nvmlInit_v2: %s (%d)", text_of(n, r), r);
        goto out;
    }
    (void)n->SystemGetNVMLVersion(library, sizeof library);
    r = n->SystemGetDriverVersion(driver, sizeof driver);
    if (r == 0 && atoi(driver) < OLDEST_DRIVER) {
        rc = mj_error(err, MJ_ERR_MISSING, "the NVIDIA driver is %s; mojit needs %d or later", driver, OLDEST_DRIVER);
        goto out;
    }
    snprintf(n->version, sizeof n->version, "NVML %s, driver %s", library, driver);
    r = n->DeviceGetCount_v2(&n->count);
    if (r != 0) rc = mj_error(err, MJ_ERR_MISSING, "nvmlDeviceGetCount_v2: %s (%d)", text_of(n, r), r);
out:
    return rc; /* the library stays open: it does not bear being unloaded while its threads live */
}

int mj_nvml_open(MjError *err) {
    pthread_mutex_lock(&g_mutex);
    if (!g_nvml.tried) (void)start(&g_nvml, &g_nvml.failure);
    g_nvml.tried = true;
    pthread_mutex_unlock(&g_mutex);
    return g_nvml.failure.code == 0 ? 0 : mj_error(err, g_nvml.failure.code, "%s", g_nvml.failure.message);
}

const char *mj_nvml_version(void) { return g_nvml.version; }

int mj_nvml_count(void) { return (int)g_nvml.count; }

int mj_nvml_sample(int device, MjNvmlSample *out, MjError *err) {
    const Nvml *n = &g_nvml;
    MjNvmlSample s = {.name = "GPU", .utilisation = (double)NAN, .memory_used = (double)NAN, .memory_total = (double)NAN};
    Utilisation use;
    Memory memory;
    void *handle = NULL;
    int r = n->DeviceGetHandleByIndex_v2((unsigned)device, &handle);
    if (r != 0) return mj_error(err, MJ_ERR_DEVICE, "GPU %d: nvmlDeviceGetHandleByIndex_v2: %s (%d)", device, text_of(n, r), r);
    (void)n->DeviceGetName(handle, s.name, sizeof s.name);
    if (n->DeviceGetUtilizationRates(handle, &use) == 0) s.utilisation = use.gpu / 100.0;
    if (n->DeviceGetMemoryInfo(handle, &memory) == 0) {
        s.memory_used = (double)memory.used;
        s.memory_total = (double)memory.total;
    }
    *out = s;
    return 0;
}
