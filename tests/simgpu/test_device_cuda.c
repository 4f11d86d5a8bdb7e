/* What the cuda device says when the machine is not as it should be. Each case runs in a child process with its own
 * environment, since the driver is opened once per process. Argument: the folder of the simulator's libraries. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jit/compiler.h"
#include "runtime/cuda_api.h"
#include "runtime/device.h"

static const char *libraries;

typedef struct Case {
    const char *name, *device;
    const char *env[4][2];
    int code;         /* of opening the device (or of `then`) */
    const char *says; /* part of the message */
    int (*then)(MjDevice *dev, MjError *err);
} Case;

static int expect(bool ok, const char *what, MjError *err) { return ok ? 0 : mj_error(err, MJ_ERR_USAGE, "wrong: %s", what); }

/* A module of the kernel k in `source`. */
static int load_source(MjDevice *dev, const char *source, MjModule **out, MjError *err)
{
    const MjCompileRequest req = {.source = source, .source_name = "k.cu", .target = "sm_90a", .entry = "k"};
    MjCompileResult image = {0};
    MjCompiler *c = NULL;
    int rc;
    MJ_TRY(mj_compiler_nvrtc_open(&c, err));
    MJ_TRY(c->compile(c, &req, &image, err));
    MJ_TRY(dev->ops->module_load(dev, image.image, image.image_bytes, out, err));
out:
    mj_compile_result_free(&image);
    if (c != NULL) c->close(c);
    return rc;
}

static int is_sm80(MjDevice *dev, MjError *err)
{
    const MjDeviceInfo *i = dev->ops->info(dev);
    return expect(strcmp(i->target, "sm_80") == 0 && i->family == MJ_FAMILY_SM80 && i->max_shared_bytes == 166912 &&
                      i->bf16_peak_flops == 312e12, i->target, err);
}
static int is_sm100(MjDevice *dev, MjError *err)
{
    const MjDeviceInfo *i = dev->ops->info(dev);
    return expect(strcmp(i->target, "sm_100a") == 0 && i->family == MJ_FAMILY_SM100, i->target, err);
}
static int is_cpu(MjDevice *dev, MjError *err)
{
    MjDeviceInfo best;
    int rc = mj_device_probe(NULL, NULL, &best, err);
    return rc != 0 ? rc : expect(strcmp(dev->ops->kind, "cpu") == 0 && strcmp(best.kind, "cpu") == 0, best.kind, err);
}
static int is_h200(MjDevice *dev, MjError *err)
{
    return expect(dev->ops->info(dev)->bf16_peak_flops == 989.4e12, "H200's peak", err);
}

/* Probing says what opening finds; without a name, both take the GPU. */
static int probed(MjDevice *dev, MjError *err)
{
    const MjDeviceInfo *i = dev->ops->info(dev);
    MjDeviceInfo named, best;
    MjDevice *opened = NULL;
    int rc;
    MJ_TRY(mj_device_probe("cuda", NULL, &named, err));
    MJ_TRY(mj_device_probe(NULL, NULL, &best, err));
    MJ_TRY(expect(strcmp(named.kind, "cuda") == 0 && strcmp(named.name, i->name) == 0 && strcmp(named.target, i->target) == 0 &&
                      named.family == i->family && named.units == i->units && named.memory_bytes == i->memory_bytes,
                  "the probe's answer", err));
    MJ_TRY(expect(strcmp(best.kind, "cuda") == 0, "the best device", err));
    MJ_TRY(mj_device_open(NULL, NULL, &opened, err));
    MJ_TRY(expect(strcmp(opened->ops->kind, "cuda") == 0, "the best device, opened", err));
    MJ_TRY(expect(mj_device_probe("cuda:1", NULL, &named, NULL) == MJ_ERR_MISSING, "cuda:1 of one device", err));
out:
    mj_device_close(opened);
    return rc;
}
/* Waits are counted, and only they: uploads, fills and launches are none. */
static int counted(MjDevice *dev, MjError *err)
{
    MjDeviceCounters c;
    void *p = NULL;
    int x = 3, rc;
    MJ_TRY(dev->ops->alloc(dev, 4096, "counted", &p, err));
    MJ_TRY(dev->ops->upload(dev, p, &x, sizeof x, err));
    MJ_TRY(dev->ops->fill(dev, p, 0, 4096, err));
    dev->ops->counters(dev, &c);
    MJ_TRY(expect(c.waits == 0 && c.launches == 0 && c.graph_launches == 0, "counters before a wait", err));
    MJ_TRY(dev->ops->graph_begin(dev, err));
    MJ_TRY(dev->ops->fill(dev, p, 1, 4096, err));
    MJ_TRY(expect(dev->ops->download(dev, &x, p, sizeof x, NULL) == MJ_ERR_USAGE, "a download in a capture", err));
    MJ_TRY(expect(dev->ops->synchronize(dev, NULL) == MJ_ERR_USAGE, "a wait in a capture", err));
    MjGraph *graph = NULL;
    MJ_TRY(dev->ops->graph_end(dev, &graph, err));
    for (int i = 0; i < 3; i++) MJ_TRY(dev->ops->graph_launch(dev, graph, err));
    dev->ops->graph_destroy(dev, graph);
    MJ_TRY(dev->ops->download(dev, &x, p, sizeof x, err));
    dev->ops->counters(dev, &c);
    MJ_TRY(expect(x == 0x01010101 && c.waits == 1 && c.graph_launches == 3 && c.graph_nodes == 3, "counters of a graph", err));
out:
    return rc;
}

/* Two devices at once: memory of one is none of the other's, and each counts its own. */
static int two_devices(MjDevice *first, MjError *err)
{
    MjDevice *second = NULL;
    void *a = NULL, *b = NULL;
    int x = 5, y = 0, rc;
    MJ_TRY(mj_device_open("cuda:1", NULL, &second, err));
    MJ_TRY(first->ops->alloc(first, 100, "a", &a, err));
    MJ_TRY(second->ops->alloc(second, 200, "b", &b, err));
    MJ_TRY(expect(first->ops->allocated_bytes(first) == 100 && second->ops->allocated_bytes(second) == 200, "bytes", err));
    MJ_TRY(second->ops->upload(second, b, &x, sizeof x, err));
    MJ_TRY(second->ops->download(second, &y, b, sizeof y, err));
    MJ_TRY(expect(y == 5, "the round trip on device 1", err));
    MJ_TRY(expect(first->ops->upload(first, b, &x, sizeof x, NULL) != 0, "device 0 wrote device 1's memory", err));
    mj_device_close(second);
out:
    return rc;
}

/* A long copy goes through both staging buffers more than once. */
static int long_copy(MjDevice *dev, MjError *err)
{
    const size_t n = ((size_t)19 << 20) + 12345;
    unsigned char *from = malloc(n), *to = malloc(n);
    void *p = NULL;
    int rc;
    for (size_t i = 0; i < n; i++) from[i] = (unsigned char)(i * 2654435761u >> 13);
    MJ_TRY(dev->ops->alloc(dev, n, "long", &p, err));
    MJ_TRY(dev->ops->upload(dev, p, from, n, err));
    MJ_TRY(dev->ops->download(dev, to, p, n, err));
    MJ_TRY(expect(memcmp(from, to, n) == 0, "bytes changed on the way", err));
out:
    free(from);
    free(to);
    return rc;
}

/* `at`: where the kernel writes; NULL: nowhere. */
static int lose(MjDevice *dev, bool in_a_graph, void *at, MjError *err)
{
    const char source[] = "extern \"C\" __global__ void k(float *p) { if (p) p[0] = 1.0f; }\n";
    MjModule *m = NULL;
    MjKernelFn *fn = NULL;
    const MjLaunch l = {.grid = 7, .block = 32, .args = &at, .args_bytes = sizeof at, .label = "rmsnorm_fwd"};
    int rc;
    MJ_TRY(load_source(dev, source, &m, err));
    MJ_TRY(dev->ops->module_function(m, "k", &fn, err));
    if (in_a_graph) MJ_TRY(dev->ops->graph_begin(dev, err));
    MJ_TRY(dev->ops->launch(dev, fn, &l, err));
    if (in_a_graph) {
        MjGraph *graph = NULL;
        MJ_TRY(dev->ops->graph_end(dev, &graph, err));
        rc = dev->ops->graph_launch(dev, graph, err);
        dev->ops->graph_destroy(dev, graph);
        if (rc != 0) goto out;
    }
    rc = dev->ops->synchronize(dev, err);
out:
    return rc;
}
static int lose_it(MjDevice *dev, MjError *err) { return lose(dev, false, NULL, err); }
static int lose_in_a_graph(MjDevice *dev, MjError *err) { return lose(dev, true, NULL, err); }
static int trap(MjDevice *dev, MjError *err) { return lose(dev, false, (void *)0x1000, err); }
static int trap_in_a_graph(MjDevice *dev, MjError *err) { return lose(dev, true, (void *)0x1000, err); }
/* After a dead kernel an allocation fails as everything does, a free does nothing, and closing ends. */
static int alloc_after_trap(MjDevice *dev, MjError *err)
{
    void *p = NULL, *q = NULL;
    int rc;
    MJ_TRY(dev->ops->alloc(dev, 4096, "early", &p, err));
    MJ_TRY(expect(trap(dev, NULL) == MJ_ERR_DEVICE, "the kernel lived", err));
    dev->ops->free(dev, p);
    rc = dev->ops->alloc(dev, 4096, "late", &q, err);
out:
    return rc;
}

/* What a launch that asks to overlap comes after. */
typedef enum After { KERNEL, FILL, COPY, UPLOAD, EVENT, ALLOC, FREE, GRAPH, BEGIN, AFTER_COUNT } After;

static int put(MjDevice *dev, After what, void *p, const MjGraph *graph, MjEvent *ev, MjError *err)
{
    static const int x = 1;
    static void *last;
    switch (what) {
    case FILL: return dev->ops->fill(dev, p, 0, 4, err);
    case COPY: return dev->ops->copy(dev, p, (char *)p + 256, 4, err);
    case UPLOAD: return dev->ops->upload(dev, p, &x, sizeof x, err);
    case EVENT: return dev->ops->event_record(dev, ev, err);
    case ALLOC: return dev->ops->alloc(dev, 64, "put", &last, err);
    case FREE: dev->ops->free(dev, last); return 0;
    case GRAPH: return dev->ops->graph_launch(dev, (MjGraph *)(uintptr_t)graph, err);
    default: return 0;
    }
}

/* Whether the second of two launches with something between them overlaps, alone and captured. */
static int overlap_after(MjDevice *dev, MjKernelFn *fn, After what, bool captured, void *p, MjGraph *graph, MjEvent *ev, bool want, MjError *err)
{
    const MjLaunch l = {.grid = 1, .block = 32, .args = &p, .args_bytes = sizeof p, .label = "amax", .overlap = true};
    MjDeviceCounters before, after;
    char text[64];
    int rc;
    if (captured && what == BEGIN) MJ_TRY(dev->ops->launch(dev, fn, &l, err)); /* not in the graph: nothing for its first launch */
    if (captured) MJ_TRY(dev->ops->graph_begin(dev, err));
    if (what != BEGIN) MJ_TRY(dev->ops->launch(dev, fn, &l, err));
    MJ_TRY(put(dev, what, p, graph, ev, err));
    dev->ops->counters(dev, &before);
    MJ_TRY(dev->ops->launch(dev, fn, &l, err));
    dev->ops->counters(dev, &after);
    if (captured) MJ_TRY(dev->ops->graph_end(dev, NULL, err));
    MJ_TRY(dev->ops->synchronize(dev, err));
    snprintf(text, sizeof text, "overlap %llu after %d, captured %d", (unsigned long long)(after.overlapped - before.overlapped), what, captured);
    MJ_TRY(expect(after.overlapped - before.overlapped == (uint64_t)want, text, err));
out:
    return rc;
}

static int overlap(MjDevice *dev, bool alone, bool captured, MjError *err)
{
    const char source[] = "extern \"C\" __global__ void k(float *p) { mj_ptx_grid_wait(); p[threadIdx.x] = 1.0f; }\n";
    MjModule *m = NULL;
    MjKernelFn *fn = NULL;
    MjGraph *graph = NULL;
    MjEvent *ev = NULL;
    void *p = NULL;
    int rc;
    MJ_TRY(load_source(dev, source, &m, err));
    MJ_TRY(dev->ops->module_function(m, "k", &fn, err));
    MJ_TRY(dev->ops->alloc(dev, 1024, "p", &p, err));
    MJ_TRY(dev->ops->fill(dev, p, 0, 1024, err));
    MJ_TRY(dev->ops->event_create(dev, &ev, err));
    if (dev->ops->info(dev)->graphs) {
        MJ_TRY(dev->ops->graph_begin(dev, err));
        MJ_TRY(dev->ops->fill(dev, p, 0, 4, err));
        MJ_TRY(dev->ops->graph_end(dev, &graph, err));
    }
    for (int w = KERNEL; w < AFTER_COUNT; w++) {
        const bool outside = w == UPLOAD || w == ALLOC || w == FREE || w == GRAPH; /* what no capture takes */
        if (w != BEGIN && (w != GRAPH || graph != NULL)) MJ_TRY(overlap_after(dev, fn, (After)w, false, p, graph, ev, alone && w == KERNEL, err));
        if (graph != NULL && !outside) MJ_TRY(overlap_after(dev, fn, (After)w, true, p, graph, ev, captured && w == KERNEL, err));
    }
out:
    if (graph != NULL) dev->ops->graph_destroy(dev, graph);
    if (ev != NULL) dev->ops->event_destroy(dev, ev);
    return rc;
}
static int overlapped(MjDevice *dev, MjError *err) { return overlap(dev, true, true, err); }
static int overlapped_alone(MjDevice *dev, MjError *err) { return overlap(dev, true, false, err); }
static int not_overlapped(MjDevice *dev, MjError *err) { return overlap(dev, false, false, err); }

static int no_such_kernel(MjDevice *dev, MjError *err)
{
    const char source[] = "extern \"C\" __global__ void k(float *p) { if (p) p[0] = 1.0f; }\n";
    MjModule *m = NULL;
    MjKernelFn *fn = NULL;
    int rc;
    MJ_TRY(load_source(dev, source, &m, err));
    rc = dev->ops->module_function(m, "kernel_that_is_not_there", &fn, err);
out:
    return rc;
}

static int compiler(MjDevice *dev, MjError *err)
{
    MjCompiler *c = NULL;
    (void)dev;
    const int rc = mj_compiler_nvrtc_open(&c, err);
    if (c != NULL) c->close(c);
    return rc;
}

static const Case cases[] = {
    {"nvrtc", "cuda", {{NULL}}, 0, "", compiler},
    {"old_nvrtc", "cuda", {{"MOJIT_SIMGPU_NVRTC", "11"}}, MJ_ERR_MISSING, "is there; mojit needs 12.0 or later", compiler},
    {"no_driver", "cuda", {{"MOJIT_CUDA_LIBRARY_PATH", "/nonexistent"}}, MJ_ERR_MISSING, "no NVIDIA driver", NULL},
    {"old_driver", "cuda", {{"MOJIT_SIMGPU_DRIVER", "11080"}}, MJ_ERR_MISSING, "supports CUDA 11.8; mojit needs 12.0", NULL},
    {"no_device", "cuda", {{"MOJIT_SIMGPU_DEVICES", "0"}}, MJ_ERR_MISSING, "no usable NVIDIA GPU", NULL},
    {"wrong_ordinal", "cuda:3", {{"MOJIT_SIMGPU_DEVICES", "2"}}, MJ_ERR_MISSING, "no device cuda:3: 2 are present (cuda:0 to cuda:1)", NULL},
    {"old_card", "cuda", {{"MOJIT_SIMGPU_ARCH", "sm_75"}}, MJ_ERR_MISSING, "capability 7.5; mojit's kernels need 8.0", NULL},
    {"sm_80", "cuda", {{"MOJIT_SIMGPU_ARCH", "sm_80"}, {"MOJIT_SIMGPU_NAME", "NVIDIA A100-SXM4-80GB"}}, 0, "", is_sm80},
    {"sm_100", "cuda", {{"MOJIT_SIMGPU_ARCH", "sm_100"}}, 0, "", is_sm100},
    {"h200", "cuda", {{"MOJIT_SIMGPU_NAME", "NVIDIA H200"}}, 0, "", is_h200},
    {"probed", "cuda", {{NULL}}, 0, "", probed},
    {"counted", "cuda", {{NULL}}, 0, "", counted},
    {"overlapped", "cuda", {{NULL}}, 0, "", overlapped},
    /* capturing makes programmatic edges from CUDA 12.3 on */
    {"overlapped_old_driver", "cuda", {{"MOJIT_SIMGPU_DRIVER", "12020"}, {"MOJIT_SIMGPU_NVRTC", "12"}}, 0, "", overlapped_alone},
    {"overlapped_sync", "cuda", {{"MOJIT_CUDA_SYNC", "1"}}, 0, "", not_overlapped},
    {"best_without_driver", NULL, {{"MOJIT_CUDA_LIBRARY_PATH", "/nonexistent"}}, 0, "", is_cpu},
    {"two_devices", "cuda", {{"MOJIT_SIMGPU_DEVICES", "2"}}, 0, "", two_devices},
    {"long_copy", "cuda", {{"MOJIT_SIMGPU_PROTECT", "1"}}, 0, "", long_copy},
    {"lost_device", "cuda", {{"MOJIT_SIMGPU_LOSE", "1"}}, MJ_ERR_DEVICE,
     "driver needs attention. In flight, newest first: rmsnorm_fwd [k] grid=7 block=32 cluster=1 shared=0", lose_it},
    {"lost_in_sync", "cuda", {{"MOJIT_SIMGPU_LOSE", "1"}, {"MOJIT_CUDA_SYNC", "1"}}, MJ_ERR_DEVICE, "ECC_UNCORRECTABLE", lose_it},
    {"lost_in_a_graph", "cuda", {{"MOJIT_SIMGPU_LOSE", "1"}}, MJ_ERR_DEVICE,
     "driver needs attention. In flight, newest first: a graph", lose_in_a_graph},
    {"trap", "cuda", {{NULL}}, MJ_ERR_DEVICE, "one of the last launches (newest first): rmsnorm_fwd [k] grid=7 block=32 cluster=1 shared=0", trap},
    {"trap_in_sync", "cuda", {{"MOJIT_CUDA_SYNC", "1"}}, MJ_ERR_DEVICE, "launch rmsnorm_fwd [k] grid=7 block=32 cluster=1 shared=0: cu", trap},
    {"trap_in_a_graph", "cuda", {{NULL}}, MJ_ERR_DEVICE,
     "one of the 1 nodes of the graph launched last (with MOJIT_CUDA_SYNC=1", trap_in_a_graph},
    {"alloc_after_trap", "cuda", {{NULL}}, MJ_ERR_DEVICE, "cuMemAllocFromPoolAsync(late): CUDA_ERROR_ILLEGAL_ADDRESS (700)", alloc_after_trap},
    {"alloc_after_trap_without_pools", "cuda", {{"MOJIT_SIMGPU_POOLS", "0"}}, MJ_ERR_DEVICE, "cuMemAlloc(late): CUDA_ERROR_ILLEGAL_ADDRESS (700)",
     alloc_after_trap},
    {"no_such_kernel", "cuda", {{NULL}}, MJ_ERR_DEVICE, "the image has no kernel 'kernel_that_is_not_there'", no_such_kernel},
};

static int run_case(const Case *c)
{
    MjError err = MJ_ERROR_INIT;
    MjDevice *dev = NULL;
    setenv("MOJIT_CUDA_LIBRARY_PATH", libraries, 1);
    for (int i = 0; i < 4 && c->env[i][0] != NULL; i++) setenv(c->env[i][0], c->env[i][1], 1);
    int rc = mj_device_open(c->device, NULL, &dev, &err);
    if (rc == 0 && c->then != NULL) rc = c->then(dev, &err);
    if (rc != c->code || strstr(err.message, c->says) == NULL) {
        printf("FAIL device_cuda %s: want code %d saying '%s', got %d: %s\n", c->name, c->code, c->says, rc, err.message);
        return 1;
    }
    printf("ok %s\n", c->name);
    if (dev != NULL) mj_device_close(dev);
    mj_error_clear(&err);
    return 0;
}

int main(int argc, char **argv)
{
    int failed = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: test_device_cuda LIBRARIES [CASE]\n");
        return 2;
    }
    libraries = argv[1];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int status = 0;
        if (argc > 2 && strcmp(argv[2], cases[i].name) != 0) continue;
        fflush(stdout);
        const pid_t pid = fork();
        if (pid == 0) {
            const int rc = run_case(&cases[i]);
            fflush(stdout);
            _exit(rc);
        }
        if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            if (!WIFEXITED(status)) printf("FAIL device_cuda %s: ended by signal %d\n", cases[i].name, WTERMSIG(status));
            failed++;
        }
    }
    printf("%d failed\n", failed);
    return failed == 0 ? 0 : 1;
}
