/* Opens libcuda.so.1, fills the function table, turns CUresults into messages. Owns the process's one driver handle and
 * the table of known GPUs. Holds no device state. */
#include "runtime/cuda_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *mj_cuda_dlopen(const char *const *sonames, char *why, size_t cap) {
    const char *folder = getenv("MOJIT_CUDA_LIBRARY_PATH");
    size_t used = 0;
    if (why != NULL && cap > 0) why[0] = '\0';
    for (int pass = 0; pass < 2; pass++) {
        if (folder != NULL && folder[0] != '\0') {
            if (pass == 1) break;
        } else {
            folder = pass == 0 ? "" : "/usr/local/cuda/lib64";
        }
        for (size_t i = 0; sonames[i] != NULL; i++) {
            char path[4096];
            snprintf(path, sizeof path, "%s%s%s", folder, folder[0] != '\0' ? "/" : "", sonames[i]);
            void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (h != NULL) return h;
            const char *text = dlerror();
            if (why != NULL && used < cap) {
                int n = snprintf(why + used, cap - used, "%s%s", used > 0 ? "; " : "", text != NULL ? text : path);
                if (n > 0) used += (size_t)n;
            }
        }
        if (folder[0] == '\0') folder = NULL; /* second pass: the toolkit's folder */
    }
    return NULL;
}

static MjCuda g_cuda;
static bool g_ready;
static pthread_mutex_t g_mutex = PTHREAD_MUTEX_INITIALIZER;

typedef MjCuResult (*GetProcAddressFn)(const char *name, void **fn, int version, uint64_t flags, int *found);

static const char *const driver_names[] = {"libcuda.so.1", NULL};

static int load_functions(MjCuda *cu, MjError *err) {
    GetProcAddressFn get;
    void *sym = dlsym(cu->library, "cuGetProcAddress_v2");
    if (sym == NULL)
        return mj_error(err, MJ_ERR_MISSING,
                        "libcuda.so.1 has no cuGetProcAddress_v2: the NVIDIA driver is older than CUDA 12.0; install "
                        "driver 525 or later, or use --device cpu");
    memcpy(&get, &sym, sizeof get);
#define LOAD(fname, params)                                                                                   \
    do {                                                                                                      \
        void *fn = NULL;                                                                                      \
        MjCuResult r = get("cu" #fname, &fn, MJ_CU_MIN_DRIVER, 0, NULL);                                      \
        if (r != MJ_CU_SUCCESS || fn == NULL)                                                                 \
            return mj_error(err, MJ_ERR_MISSING,                                                              \
                            "libcuda.so.1 does not offer cu" #fname " (error %d): the NVIDIA driver is older than " \
                            "CUDA 12.0; install driver 525 or later, or use --device cpu", r);                \
        memcpy(&cu->fname, &fn, sizeof fn);                                                                   \
    } while (0);
    MJ_CU_FUNCTIONS(LOAD)
#undef LOAD
    return 0;
}

static int start_driver(MjCuda *cu, MjError *err) {
    char why[512];
    int count = 0, rc;
    cu->library = mj_cuda_dlopen(driver_names, why, sizeof why);
    if (cu->library == NULL)
        return mj_error(err, MJ_ERR_MISSING,
                        "no NVIDIA driver: %s. Install the driver (525 or later) on a machine with an NVIDIA GPU, or use "
                        "--device cpu", why);
    MJ_TRY(load_functions(cu, err));
    MjCuResult r = cu->DriverGetVersion(&cu->driver_version);
    if (r != MJ_CU_SUCCESS) {
        rc = mj_cuda_error(cu, r, "cuDriverGetVersion", NULL, err);
        goto out;
    }
    if (cu->driver_version < MJ_CU_MIN_DRIVER) {
        rc = mj_error(err, MJ_ERR_MISSING,
                      "the NVIDIA driver supports CUDA %d.%d; mojit needs 12.0 or later: update the driver (525 or "
                      "later), or use --device cpu", cu->driver_version / 1000, cu->driver_version % 1000 / 10);
        goto out;
    }
    r = cu->Init(0);
    if (r != MJ_CU_SUCCESS) {
        rc = mj_cuda_error(cu, r, "cuInit", NULL, err);
        goto out;
    }
    r = cu->DeviceGetCount(&count);
    if (r != MJ_CU_SUCCESS || count == 0) {
        rc = mj_cuda_error(cu, r != MJ_CU_SUCCESS ? r : MJ_CU_NO_DEVICE, "cuDeviceGetCount", NULL, err);
        goto out;
    }
    return 0;
out:
    dlclose(cu->library);
    cu->library = NULL;
    return rc;
}

bool mj_cuda_driver_found(void) {
    void *library = mj_cuda_dlopen(driver_names, NULL, 0);
    if (library != NULL) dlclose(library);
    return library != NULL;
}

int mj_cuda_get(const MjCuda **out, MjError *err) {
    int rc = 0;
    pthread_mutex_lock(&g_mutex);
    if (!g_ready) rc = start_driver(&g_cuda, err);
    if (rc == 0) {
        g_ready = true;
        *out = &g_cuda;
    }
    pthread_mutex_unlock(&g_mutex);
    return rc;
}

/* What a result means for the person who reads it, and the code that decides the exit status. */
typedef struct Meaning {
    MjCuResult result;
    int code;
    const char *advice;
} Meaning;

static const char lost[] = "the device is lost to this process (see dmesg for Xid lines): restart the run; if it comes back, "
                           "the card or its driver needs attention";
static const char kernel_died[] = "a kernel stopped; every later call in this process fails too. With MOJIT_CUDA_SYNC=1 "
                                  "the run stops at the very launch, and says how to run it alone";
static const char bad_image[] = "the image does not fit this device or driver: it was compiled for another architecture, or by "
                                "an NVRTC newer than the driver; update the driver, or install an NVRTC of the driver's version";

static const Meaning meanings[] = {
    {MJ_CU_NO_DEVICE, MJ_ERR_MISSING,
     "no usable NVIDIA GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu"},
    {MJ_CU_STUB_LIBRARY, MJ_ERR_MISSING,
     "the loader found the toolkit's stub instead of the driver's libcuda.so.1: take the stubs folder out of LD_LIBRARY_PATH"},
    {MJ_CU_SYSTEM_NOT_READY, MJ_ERR_MISSING, "the system is not ready: is nvidia-fabricmanager running?"},
    {MJ_CU_SYSTEM_DRIVER_MISMATCH, MJ_ERR_MISSING,
     "libcuda.so.1 and the kernel module are of different versions: reboot after the driver's update"},
    {MJ_CU_INVALID_IMAGE, MJ_ERR_DEVICE, bad_image},
    {MJ_CU_NO_BINARY_FOR_GPU, MJ_ERR_DEVICE, bad_image},
    {MJ_CU_INVALID_PTX, MJ_ERR_DEVICE, bad_image},
    {MJ_CU_UNSUPPORTED_PTX_VERSION, MJ_ERR_DEVICE, bad_image},
    {MJ_CU_OUT_OF_MEMORY, MJ_ERR_MEMORY, "the device is out of memory"},
    {MJ_CU_LAUNCH_OUT_OF_RESOURCES, MJ_ERR_DEVICE,
     "the block asks for more registers, threads or shared memory than a multiprocessor has"},
    {MJ_CU_INVALID_CLUSTER_SIZE, MJ_ERR_DEVICE, "the cluster is larger than the device allows (8 blocks; 16 if opted in)"},
    {MJ_CU_ILLEGAL_ADDRESS, MJ_ERR_DEVICE, kernel_died},
    {MJ_CU_MISALIGNED_ADDRESS, MJ_ERR_DEVICE, kernel_died},
    {MJ_CU_ILLEGAL_INSTRUCTION, MJ_ERR_DEVICE, kernel_died},
    {MJ_CU_HARDWARE_STACK_ERROR, MJ_ERR_DEVICE, kernel_died},
    {MJ_CU_INVALID_PC, MJ_ERR_DEVICE, kernel_died},
    {MJ_CU_LAUNCH_FAILED, MJ_ERR_DEVICE, kernel_died},
    {MJ_CU_LAUNCH_TIMEOUT, MJ_ERR_DEVICE, kernel_died},
    {MJ_CU_ASSERT, MJ_ERR_DEVICE, kernel_died},
    {MJ_CU_ECC_UNCORRECTABLE, MJ_ERR_DEVICE, lost},
    {MJ_CU_NVLINK_UNCORRECTABLE, MJ_ERR_DEVICE, lost},
    {MJ_CU_CONTAINED, MJ_ERR_DEVICE, lost},
    {MJ_CU_EXTERNAL_DEVICE, MJ_ERR_DEVICE, lost},
};

int mj_cuda_error(const MjCuda *cu, MjCuResult r, const char *call, const char *what, MjError *err) {
    const char *name = NULL, *text = NULL, *advice = NULL;
    int code = MJ_ERR_DEVICE;
    if (cu->GetErrorName != NULL && cu->GetErrorName(r, &name) != MJ_CU_SUCCESS) name = NULL;
    if (cu->GetErrorString != NULL && cu->GetErrorString(r, &text) != MJ_CU_SUCCESS) text = NULL;
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++) {
        if (meanings[i].result == r) {
            code = meanings[i].code;
            advice = meanings[i].advice;
        }
    }
    return mj_error(err, code, "%s%s%s%s: %s (%d): %s%s%s", call, what != NULL ? "(" : "", what != NULL ? what : "",
                    what != NULL ? ")" : "", name != NULL ? name : "CUDA error", r, text != NULL ? text : "no description",
                    advice != NULL ? "; " : "", advice != NULL ? advice : "");
}

bool mj_cuda_lost(MjCuResult r) {
    return r == MJ_CU_ECC_UNCORRECTABLE || r == MJ_CU_NVLINK_UNCORRECTABLE || r == MJ_CU_CONTAINED || r == MJ_CU_EXTERNAL_DEVICE;
}

/* Dense bf16 tensor throughput with f32 accumulation, from NVIDIA's data sheets (their headline figures with sparsity
 * are twice these). First match wins, so longer names stand first. */
double mj_cuda_bf16_peak(const char *name) {
    static const struct {
        const char *part;
        double tflops;
    } known[] = {
        {"A100", 312.0},      {"A800", 312.0},     {"H100 PCIe", 756.0}, {"H100 NVL", 835.0}, {"H100", 989.4},
        {"H800 PCIe", 756.0}, {"H800", 989.4},     {"GH200", 989.4},     {"H200 NVL", 835.5}, {"H200", 989.4},
        {"H20", 148.0},       {"L40S", 362.05},    {"RTX 4090", 165.2},  {"B200", 2250.0},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strstr(name, known[i].part) != NULL) return known[i].tflops * 1e12;
    return 0.0;
}
