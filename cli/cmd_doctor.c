/* `mojit doctor`: what this machine has, what is missing, and what each missing part costs the user. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/cache.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "cli/term.h"
#include "jit/compiler.h"
#include "jit/generic_pack.h"
#include "jit/jit.h"
#include "runtime/base/fs.h"
#include "runtime/base/str.h"
#include "runtime/cublaslt.h"
#include "runtime/cuda_api.h"
#include "runtime/device.h"
#include "runtime/nvml.h"

const MjArgSpec mj_doctor_options[] = {
    {"json", MJ_ARG_FLAG, NULL, "print as JSON", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};

static void row(MjTable *t, const char *part, bool found, const char *what, const char *cost)
{
    char text[16];
    snprintf(text, sizeof text, "%s", found ? "found" : "missing");
    mj_table_text(t, part);
    mj_table_text(t, text);
    mj_table_text(t, what);
    mj_table_text(t, found ? "" : cost);
}

static void cpu_row(MjTable *t)
{
    static const char *const names[] = {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "amx_bf16"};
    MjStr s = MJ_STR_INIT, flags = MJ_STR_INIT;
    char *text = NULL;
    size_t len = 0;
    if (mj_fs_read("/proc/cpuinfo", &text, &len, NULL) == 0) {
        const char *model = strstr(text, "model name");
        const char *colon = model != NULL ? strchr(model, ':') : NULL;
        if (colon != NULL) mj_str_append(&s, colon + 2, strcspn(colon + 2, "\n"));
        const char *at = strstr(text, "\nflags");
        if (at != NULL) {
            mj_str_puts(&flags, " ");
            mj_str_append(&flags, at + 1, strcspn(at + 1, "\n"));
            mj_str_puts(&flags, " ");
        }
    }
    mj_str_printf(&s, "; %ld cores; kernels for %s;", sysconf(_SC_NPROCESSORS_ONLN), mj_cpu_target());
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char word[32];
        snprintf(word, sizeof word, " %s ", names[i]);
        if (strstr(mj_str_text(&flags), word) != NULL) mj_str_printf(&s, " %s", names[i]);
    }
    row(t, "cpu", true, mj_str_text(&s), "");
    const char *bf16 = strstr(mj_str_text(&flags), " avx512_bf16 ");
    row(t, "cpu bf16 dot products", bf16 != NULL, bf16 != NULL ? "avx512_bf16" : "not in this CPU",
        "GEMMs run on f32 arithmetic, at a fraction of the speed");
    mj_str_free(&s);
    mj_str_free(&flags);
    free(text);
}

static void compiler_row(MjTable *t, const char *part, int (*open)(MjCompiler **, MjError *), const char *target, const char *cost)
{
    MjError err = MJ_ERROR_INIT;
    MjCompiler *c = NULL;
    const char *identity = NULL, *flags = NULL;
    bool found = open(&c, &err) == 0 && c->identify(c, target, &identity, &flags, &err) == 0;
    row(t, part, found, found ? identity : err.message, cost);
    if (c != NULL) c->close(c);
    mj_error_clear(&err);
}

typedef struct MjLibrary {
    const char *part;
    const char *names[4]; /* tried in order */
    const char *version;  /* function int (*)(int *); NULL = none */
    const char *cost;
} MjLibrary;

static const MjLibrary libraries[] = {
    {"nccl", {"libnccl.so.2", NULL}, "ncclGetVersion", "one GPU a run; several GPUs cannot talk to each other"},
    {"openblas", {"libopenblas.so.0", NULL}, NULL, "bench shows no ratio to OpenBLAS; nothing else"},
};

static void cublaslt_row(MjTable *t)
{
    MjError err = MJ_ERROR_INIT;
    int version = 0;
    char text[64];
    const bool found = mj_blaslt_find(&version, &err) == 0;
    snprintf(text, sizeof text, "version %d.%d", version / 10000, version % 10000 / 100);
    row(t, "cublasLt", found, found ? text : err.message, "no cuBLASLt beside GEMMs in bench; run.dense_gemm = cublaslt does not work");
    mj_error_clear(&err);
}

static void library_row(MjTable *t, const MjLibrary *lib)
{
    void *so = NULL;
    const char *name = lib->names[0];
    for (int i = 0; i < 4 && lib->names[i] != NULL && so == NULL; i++) {
        name = lib->names[i];
        so = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
    }
    char text[160];
    snprintf(text, sizeof text, "%s%s", name, so != NULL ? "" : " is not there");
    if (so != NULL && lib->version != NULL) {
        int (*version)(int *) = NULL;
        int v = 0;
        *(void **)&version = dlsym(so, lib->version);
        if (version != NULL && version(&v) == 0) snprintf(text, sizeof text, "%s, version %d", name, v);
    }
    row(t, lib->part, so != NULL, text, lib->cost);
    /* Left open: NVIDIA's libraries do not all bear being unloaded, and the process ends soon. */
}

static void gnuplot_row(MjTable *t)
{
    const char *path = getenv("PATH");
    bool found = false;
    char file[4096] = "gnuplot is not on the PATH";
    while (path != NULL && *path != '\0' && !found) {
        size_t len = strcspn(path, ":");
        snprintf(file, sizeof file, "%.*s/gnuplot", (int)len, path);
        found = access(file, X_OK) == 0;
        path += len + (path[len] == ':');
    }
    row(t, "gnuplot", found, found ? file : "gnuplot is not on the PATH", "sweeps draw no figures; install gnuplot-nox");
}

static void driver_row(MjTable *t)
{
    MjError err = MJ_ERROR_INIT;
    const MjCuda *cu = NULL;
    char text[64];
    const bool found = mj_cuda_get(&cu, &err) == 0;
    if (found) {
        snprintf(text, sizeof text, "libcuda.so.1, CUDA %d.%d", cu->driver_version / 1000, cu->driver_version % 1000 / 10);
    }
    row(t, "nvidia driver", found, found ? text : err.message, "no cuda device; training runs on the cpu");
    mj_error_clear(&err);
}

static void cuda_row(MjTable *t)
{
    MjError err = MJ_ERROR_INIT;
    MjDevice *dev = NULL;
    char text[384];
    bool found = mj_device_open("cuda", NULL, &dev, &err) == 0;
    if (found) {
        const MjDeviceInfo *info = dev->ops->info(dev);
        char mem[32];
        snprintf(text, sizeof text, "%s, %s, %s%s", info->name, info->target, mj_format_bytes((double)info->memory_bytes, mem),
                 info->pool ? "" : "; it has no memory pools, so that freeing a buffer waits for the device");
    }
    row(t, "cuda device", found, found ? text : err.message, "use --device cpu");
    mj_device_close(dev);
    mj_error_clear(&err);
}

static void nvml_row(MjTable *t)
{
    MjError err = MJ_ERROR_INIT;
    MjStr s = MJ_STR_INIT;
    bool found = mj_nvml_open(&err) == 0;
    mj_str_puts(&s, found ? mj_nvml_version() : err.message);
    for (int i = 0; found && i < mj_nvml_count(); i++) {
        MjNvmlSample gpu;
        char used[32], total[32];
        if (mj_nvml_sample(i, &gpu, &err) != 0) {
            mj_str_printf(&s, "; %s", err.message);
            mj_error_clear(&err);
            continue;
        }
        mj_str_printf(&s, "; GPU %d %s: ", i, gpu.name);
        if (isfinite(gpu.utilisation)) mj_str_printf(&s, "%.0f %% busy, ", 100.0 * gpu.utilisation);
        mj_str_printf(&s, "%s of %s in use", mj_format_bytes(gpu.memory_used, used), mj_format_bytes(gpu.memory_total, total));
    }
    row(t, "nvml", found, mj_str_text(&s), "progress.md shows no GPU utilisation and memory");
    mj_str_free(&s);
    mj_error_clear(&err);
}

static int cache_rows(MjTable *t, MjError *err)
{
    MjCache *cache = NULL;
    MjCacheOptions options = {.roots = NULL};
    int rc = mj_cache_open(&options, &cache, err);
    if (rc != 0) return rc;
    for (size_t i = 0; i < mj_cache_root_count(cache); i++) {
        MjCacheInfo info = {0, 0, 0};
        const char *problem = mj_cache_root_problem(cache, i);
        char text[1200], size[32];
        if (problem == NULL && mj_cache_info(cache, i, &info, NULL) == 0) {
            snprintf(text, sizeof text, "%.900s: %llu entries, %s, %s", mj_cache_root(cache, i), (unsigned long long)info.entries,
                     mj_format_bytes((double)info.bytes, size), mj_cache_root_writable(cache, i) ? "read and written" : "read");
        } else {
            snprintf(text, sizeof text, "%.500s: %.500s", mj_cache_root(cache, i), problem != NULL ? problem : "cannot be read");
        }
        row(t, i == 0 ? "cache" : "cache (more)", problem == NULL, text, "every process compiles for itself");
    }
    mj_cache_close(cache);
    return 0;
}

static void embedded_row(MjTable *t)
{
    int n = 0, here = 0;
    const char *isa = mj_cpu_target() + 4; /* "cpu:" */
    for (const MjEmbeddedKernel *k = mj_embedded_kernels; k->tmpl != NULL; k++) {
        n++;
        here += strcmp(k->isa, isa) == 0;
    }
    char text[120];
    snprintf(text, sizeof text, "%d generic builds, %d of them for this CPU", n, here);
    row(t, "embedded kernels", here > 0, text, "nocompile does not work in this build");
}

/* What nocompile and tiered run on GPUs. */
static void embedded_gpu_row(MjTable *t)
{
    MjError err = MJ_ERROR_INIT;
    MjGenericPack *p = NULL;
    MjStr s = MJ_STR_INIT;
    char size[32];
    int rc = mj_generic_pack_open(&p, &err);
    for (int i = 0; rc == 0 && i < p->n_frames; i++) {
        int images = 0;
        bool seen = false;
        for (int k = 0; k < p->n_frames; k++) {
            if (strcmp(p->frames[k].target, p->frames[i].target) != 0) continue;
            seen = seen || k < i;
            images += p->frames[k].n_images;
        }
        if (!seen) mj_str_printf(&s, "%s%s (%d)", s.len > 0 ? ", " : "", p->frames[i].target, images);
    }
    if (rc == 0 && p->n_frames > 0) {
        mj_str_printf(&s, ", %s in %s, by %s", mj_format_bytes((double)p->len, size), p->origin, p->maker);
    }
    if (rc == 0 && p->note[0] != '\0') mj_str_printf(&s, "%s%s", s.len > 0 ? "; " : "", p->note);
    row(t, "embedded GPU kernels", rc == 0 && p->n_frames > 0, rc == 0 ? mj_str_text(&s) : err.message,
        "nocompile does not work on cuda devices; build mojit where libnvrtc is found");
    mj_generic_pack_close(p);
    mj_str_free(&s);
    mj_error_clear(&err);
}

/* Parts one under the other: what was found is often longer than a table bears. */
static void print_text(const MjTable *t)
{
    json_t *rows = mj_table_json(t), *r;
    size_t i;
    json_array_foreach(rows, i, r) {
        const char *state = json_string_value(json_object_get(r, "state"));
        const char *cost = json_string_value(json_object_get(r, "cost"));
        bool found = strcmp(state, "found") == 0;
        printf("%-22s %s%-8s%s %s\n", json_string_value(json_object_get(r, "part")),
               mj_term_on(found ? MJ_TINT_GREEN : MJ_TINT_YELLOW), state, mj_term_off(),
               json_string_value(json_object_get(r, "what")));
        if (!found && cost[0] != '\0') printf("%-22s %-8s without it: %s\n", "", "", cost);
    }
    json_decref(rows);
}

int mj_cmd_doctor(const MjArgs *args, MjError *err)
{
    static const MjColumn columns[] = {{"part", "part", false}, {"state", "state", false}, {"what", "what", false},
                                       {"cost", "without it", false}, {NULL, NULL, false}};
    int rc = 0;
    MjTable *t = mj_table_open(columns);
    row(t, "mojit", true, MJ_VERSION, "");
    cpu_row(t);
    embedded_row(t);
    embedded_gpu_row(t);
    compiler_row(t, "C compiler", mj_compiler_cc_open, mj_cpu_target(),
                 "static, dynamic and tiered need it on the cpu unless the cache is warm; use nocompile");
    compiler_row(t, "nvrtc", mj_compiler_nvrtc_open, "sm_90a", "no kernels can be compiled for GPUs");
    driver_row(t);
    cuda_row(t);
    cublaslt_row(t);
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) library_row(t, &libraries[i]);
    nvml_row(t);
    gnuplot_row(t);
    MJ_TRY(cache_rows(t, err));
    if (mj_args_flag(args, "json")) {
        mj_table_print(t, true);
    } else {
        print_text(t);
    }
out:
    mj_table_close(t);
    return rc;
}
