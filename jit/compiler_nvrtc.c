/* NVRTC, opened at run time. Owns the library's handle; compiles in process for any sm_XX, with or without a GPU. The
 * functions' types are from NVIDIA's NVRTC documentation (13.0). */
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "jit/compiler.h"
#include "jit/identity.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"
#include "runtime/cuda_api.h"

typedef struct NvrtcProgram_ *NvrtcProgram;

typedef struct NvrtcApi {
    const char *(*error_string)(int);
    int (*version)(int *, int *);
    int (*create)(NvrtcProgram *, const char *, const char *, int, const char *const *, const char *const *);
    int (*destroy)(NvrtcProgram *);
    int (*compile)(NvrtcProgram, int, const char *const *);
    int (*cubin_size)(NvrtcProgram, size_t *);
    int (*cubin)(NvrtcProgram, char *);
    int (*ptx_size)(NvrtcProgram, size_t *); /* these four may be missing: only the build of generic kernels needs them */
    int (*ptx)(NvrtcProgram, char *);
    int (*n_archs)(int *);
    int (*archs)(int *);
    int (*log_size)(NvrtcProgram, size_t *);
    int (*log)(NvrtcProgram, char *);
    int (*set_flow_callback)(NvrtcProgram, int (*)(void *, void *), void *); /* NULL where the library has none: no limit can be kept */
} NvrtcApi;

typedef struct NvrtcCompiler {
    MjCompiler base;
    void *library;
    NvrtcApi api;
    const char *flags;
    bool splits; /* knows --split-compile */
    char identity[128];
} NvrtcCompiler;

/* --no-cache: where there is a driver, NVRTC would keep a second cache in the user's home (~/.nv), beside ours and unknown to
 * `mojit cache`, and a compile that it answers would pass for a quick one. --minimal leaves out declarations that no kernel of
 * ours needs (textures, the runtime's API): 3 ms a kernel, the same image. */
#define FLAGS "--std=c++17 -default-device --fmad=false --ptxas-options=-v"
static const struct {
    int major, minor; /* from this version on */
    const char *flags;
} flags_since[] = {{13, 0, FLAGS " --no-cache --minimal"}, {12, 9, FLAGS " --no-cache"}, {0, 0, FLAGS}};

static bool serves(const MjCompiler *c, const char *target)
{
    const NvrtcApi *api = &((const NvrtcCompiler *)c)->api;
    const char *number = strncmp(target, "sm_", 3) == 0 ? target + 3 : strncmp(target, "compute_", 8) == 0 ? target + 8 : NULL;
    int n = 0, archs[64];

    if (!number || (target[0] == 'c' && !api->ptx)) return false;
    if (!api->n_archs || api->n_archs(&n) != 0 || n <= 0 || n > 64 || api->archs(archs) != 0) return true; /* it will say */
    for (int i = 0; i < n; i++)
        if (archs[i] == atoi(number)) return true;
    return false;
}

static int identify(MjCompiler *base, const char *target, const char **identity, const char **flags, MjError *err)
{
    if (!serves(base, target)) 
        return mj_error(err, MJ_ERR_USAGE, "%s knows no target \"%s\" (sm_80, sm_90a, ...; newer cards need a newer NVRTC)",
                        ((NvrtcCompiler *)base)->identity, target);
    *identity = ((NvrtcCompiler *)base)->identity;
    *flags = ((NvrtcCompiler *)base)->flags;
    return 0;
}

/* ptxas says these in a log of success, and each costs most of a kernel's speed. */
static const char *serialised(const char *log)
{
    static const char *const codes[][2] = {
        {"C7508", "setmaxnreg was ignored (C7508): give the kernel a register cap with launch bounds"},
        {"C7511", "wgmma was serialised (C7511)"},
        {"C7517", "a wait was put between wgmma instructions (C7517)"},
        {"instructions are serialized", "wgmma was serialised; the log says why"}, /* C7510, C7512, C7518, ... */
    };

    for (size_t i = 0; log && i < sizeof codes / sizeof *codes; i++)
        if (strstr(log, codes[i][0])) return codes[i][1];
    return NULL;
}

static char *program_log(const NvrtcApi *api, NvrtcProgram program, size_t *len)
{
    size_t n = 0;

    if (api->log_size(program, &n) != 0 || n <= 1) return NULL;
    char *log = mj_xcalloc(n + 1, 1);
    if (api->log(program, log) != 0) {
        free(log);
        return NULL;
    }
    *len = strlen(log);
    return log;
}

static void first_error(const char *log, char *words, size_t cap)
{
    const char *at = log ? strstr(log, "error") : NULL;

    snprintf(words, cap, "see the compiler's log");
    if (!at) return;
    while (at > log && at[-1] != '\n') at--;
    snprintf(words, cap, "%.*s", (int)(strcspn(at, "\n") < cap - 1 ? strcspn(at, "\n") : cap - 1), at);
}

/* A cubin, or for compute_XX the PTX text with its NUL. */
static int take_image(const NvrtcApi *api, NvrtcProgram program, const MjCompileRequest *req, MjCompileResult *r, MjError *err)
{
    const bool ptx = strncmp(req->target, "compute_", 8) == 0;

    if ((ptx ? api->ptx_size : api->cubin_size)(program, &r->image_bytes) != 0 || r->image_bytes == 0)
        return mj_error(err, MJ_ERR_COMPILE, "NVRTC made no image of %s for %s", req->source_name, req->target);
    r->image = mj_xmalloc(r->image_bytes);
    if ((ptx ? api->ptx : api->cubin)(program, r->image) != 0)
        return mj_error(err, MJ_ERR_COMPILE, "NVRTC did not hand over the image of %s", req->source_name);
    return 0;
}

static double thread_seconds(void)
{
    struct timespec t;

    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0 ? (double)t.tv_sec + 1e-9 * (double)t.tv_nsec : 0.0;
}

/* Called by NVRTC while it compiles, from any thread: 1 = give up, and stay with that. */
static int is_late(void *until, void *reserved)
{
    (void)reserved;
    return mj_clock_ns() >= *(const uint64_t *)until;
}

static int compile(MjCompiler *base, const MjCompileRequest *req, MjCompileResult *out, MjError *err)
{
    NvrtcCompiler *c = (NvrtcCompiler *)base;
    const NvrtcApi *api = &c->api;
    NvrtcProgram program = NULL;
    MjCompileResult r = {.registers = -1, .spill_bytes = -1, .stack_bytes = -1, .shared_bytes = -1};
    char arch[96], flags[160], split[40], words[700];
    const int threads = req->threads > 1 && c->splits ? req->threads : 1;
    const char *options[16];
    int n = 0, rc = 0;
    size_t log_len = 0;
    uint64_t start = mj_clock_ns(), until = start + (uint64_t)(req->timeout_s * 1e9);
    const double cpu_start = thread_seconds();

    snprintf(arch, sizeof arch, "--gpu-architecture=%s", req->target);
    options[n++] = arch;
    snprintf(flags, sizeof flags, "%s", c->flags);
    for (char *at = flags, *w; (w = strsep(&at, " ")) != NULL;) options[n++] = w;
    snprintf(split, sizeof split, "--split-compile=%d", threads);
    if (threads > 1) options[n++] = split;
    int status = api->create(&program, req->source, req->source_name, 0, NULL, NULL);
    if (status != 0) return mj_error(err, MJ_ERR_COMPILE, "NVRTC could not take %s: %s", req->source_name, api->error_string(status));
    if (req->timeout_s > 0 && api->set_flow_callback) (void)api->set_flow_callback(program, is_late, &until);
    status = api->compile(program, n, options);
    r.log = program_log(api, program, &log_len);
    if (status != 0 && req->timeout_s > 0 && api->set_flow_callback && is_late(&until, NULL)) {
        rc = mj_error(err, MJ_ERR_COMPILE, "NVRTC did not finish %s for %s within %g s and was stopped (jit.timeout)", req->source_name,
                      req->target, req->timeout_s);
        goto out;
    }
    if (status != 0) {
        first_error(r.log, words, sizeof words);
        rc = mj_error(err, MJ_ERR_COMPILE, "%s does not compile for %s: %s: %s", req->source_name, req->target,
                      api->error_string(status), words);
        if (r.log) mj_error_set_log(err, r.log, log_len);
        goto out;
    }
    const char *slow = serialised(r.log);
    if (slow) {
        rc = mj_error(err, MJ_ERR_COMPILE, "%s for %s: %s", req->source_name, req->target, slow);
        mj_error_set_log(err, r.log, log_len);
        goto out;
    }
    MJ_TRY(take_image(api, program, req, &r, err));
    mj_compile_log_read(r.log, &r);
    r.seconds = (double)(mj_clock_ns() - start) * 1e-9;
    r.cpu_seconds = threads > 1 ? 0 : thread_seconds() - cpu_start;
    *out = r;
    r = (MjCompileResult){.image = NULL};
out:
    mj_compile_result_free(&r);
    api->destroy(&program);
    return rc;
}

static void close_nvrtc(MjCompiler *base)
{
    free(base); /* the library stays: it keeps memory and locks for the life of the process, and is opened again at no cost */
}

static bool load_api(void *library, NvrtcApi *api)
{
    const struct {
        const char *name;
        void *slot;
    } names[] = {
        {"nvrtcGetErrorString", &api->error_string}, {"nvrtcVersion", &api->version},
        {"nvrtcCreateProgram", &api->create},        {"nvrtcDestroyProgram", &api->destroy},
        {"nvrtcCompileProgram", &api->compile},      {"nvrtcGetCUBINSize", &api->cubin_size},
        {"nvrtcGetCUBIN", &api->cubin},              {"nvrtcGetProgramLogSize", &api->log_size},
        {"nvrtcGetProgramLog", &api->log},           {"nvrtcGetPTXSize", &api->ptx_size},
        {"nvrtcGetPTX", &api->ptx},                  {"nvrtcGetNumSupportedArchs", &api->n_archs},
        {"nvrtcGetSupportedArchs", &api->archs},
    };
    enum { REQUIRED = 9 };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *symbol = dlsym(library, names[i].name);
        memcpy(names[i].slot, &symbol, sizeof symbol);
        if (!symbol && i < REQUIRED) return false;
    }
    void *flow = dlsym(library, "nvrtcSetFlowCallback");
    memcpy(&api->set_flow_callback, &flow, sizeof flow);
    return true;
}

#define MIN_MAJOR 12 /* sm_90a, and flags that are taken for granted */

/* The version and the build id of the library; the flags that it takes. */
static int name_build(NvrtcCompiler *c, MjError *err)
{
    int major = 0, minor = 0;
    struct link_map *map = NULL;

    const int r = c->api.version(&major, &minor);
    if (r != 0) return mj_error(err, MJ_ERR_MISSING, "nvrtcVersion: %s: NVRTC can't be used; install the CUDA toolkit's again", c->api.error_string(r));
    if (major < MIN_MAJOR)
        return mj_error(err, MJ_ERR_MISSING, "NVRTC %d.%d is there; mojit needs 12.0 or later: install a newer CUDA toolkit's NVRTC, or use "
                        "--mode nocompile or the cpu device", major, minor);
    size_t k = 0;
    while (major < flags_since[k].major || (major == flags_since[k].major && minor < flags_since[k].minor)) k++;
    c->flags = flags_since[k].flags;
    c->splits = major >= 13;
    char *id = dlinfo(c->library, RTLD_DI_LINKMAP, &map) == 0 && map ? mj_build_id(map->l_name) : NULL;
    snprintf(c->identity, sizeof c->identity, "NVRTC %d.%d %s", major, minor, id ? id : "of an unknown build");
    free(id);
    return 0;
}

int mj_compiler_nvrtc_open(MjCompiler **out, MjError *err)
{
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", NULL};
    void *library = mj_cuda_dlopen(names, NULL, 0);
    int rc = 0;

    if (!library)
        return mj_error(err, MJ_ERR_MISSING,
                        "NVRTC was not found (libnvrtc.so.13 or .12). Install the CUDA toolkit's NVRTC, or name its folder in "
                        "MOJIT_CUDA_LIBRARY_PATH; without it, use --mode nocompile or the cpu device");
    NvrtcCompiler *c = mj_xcalloc(1, sizeof *c);
    c->library = library;
    if (!load_api(library, &c->api))
        rc = mj_error(err, MJ_ERR_MISSING, "the NVRTC found is too old: it cannot make cubin images (12.0 or newer is needed)");
    if (rc == 0) rc = name_build(c, err);
    if (rc != 0) {
        dlclose(library);
        free(c);
        return rc;
    }
    c->base = (MjCompiler){.name = "nvrtc", .serves = serves, .identify = identify, .compile = compile, .close = close_nvrtc};
    *out = &c->base;
    return 0;
}
