/* What the simulator's tests share: an image of a file of kernels by the simulator's NVRTC, a device with that module and two
 * buffers, and a main program's beginning. Included after cmocka.h; each test is a program of its own.
 */
#ifndef MJ_TEST_SIMGPU_HARNESS_H
#define MJ_TEST_SIMGPU_HARNESS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/compiler.h"
#include "runtime/base/fs.h"
#include "runtime/base/str.h"
#include "runtime/device.h"

/* Fails the test with the message in `err`, a variable of the caller's, and the compiler's log. */
#define OK(expr)                                                                                              \
    do {                                                                                                      \
        if ((expr) != 0) fail_msg("%s\n%s", err.message, err.log != NULL ? err.log : "");                     \
    } while (0)

/* The text of a file of kernels, to be freed, with a header that it names put in, as jit/ does with the templates'. */
static inline int sim_read(const char *path, char **out, MjError *err)
{
    char *text = NULL, *header = NULL, beside[1024], name[64];
    int rc;
    MJ_TRY(mj_fs_read(path, &text, NULL, err));
    char *at = strstr(text, "#include \"");
    if (at != NULL && sscanf(at, "#include \"%63[^\"]\"", name) == 1) {
        int line = 2; /* of what follows the include */
        for (const char *c = text; c < at; c++) line += *c == '\n';
        (void)snprintf(beside, sizeof beside, "%.*s/%s", (int)(strrchr(path, '/') - path), path, name);
        MJ_TRY(mj_fs_read(beside, &header, NULL, err));
        *at = '\0';
        *out = mj_strdup_printf("%s#line 1 \"%s\"\n%s#line %d \"%s\"\n%s", text, name, header, line, strrchr(path, '/') + 1, strchr(at + 1, '\n') + 1);
    } else {
        *out = text;
        text = NULL;
    }
out:
    free(text);
    free(header);
    return rc;
}

/* The file's kernels for sm_90a; to be freed with mj_compile_result_free. */
static inline int sim_compile(const char *path, MjCompileResult *image, MjError *err)
{
    MjCompiler *c = NULL;
    char *text = NULL;
    int rc;
    MJ_TRY(sim_read(path, &text, err));
    MJ_TRY(mj_compiler_nvrtc_open(&c, err));
    const MjCompileRequest req = {.source = text, .source_name = strrchr(path, '/') + 1, .target = "sm_90a", .entry = ""};
    rc = c->compile(c, &req, image, err);
out:
    if (c != NULL) c->close(c);
    free(text);
    return rc;
}

/* A device with the file's module, and buffers of `bytes` to read and to write. */
typedef struct SimBench {
    MjDevice *device;
    MjModule *module;
    void *in, *out;
} SimBench;

static inline int sim_bench_open(SimBench *b, const char *path, size_t bytes, MjError *err)
{
    MjCompileResult image = {0};
    int rc;
    MJ_TRY(sim_compile(path, &image, err));
    MJ_TRY(mj_device_open("cuda", NULL, &b->device, err));
    MJ_TRY(b->device->ops->module_load(b->device, image.image, image.image_bytes, &b->module, err));
    MJ_TRY(b->device->ops->alloc(b->device, bytes, "in", &b->in, err));
    MJ_TRY(b->device->ops->alloc(b->device, bytes, "out", &b->out, err));
out:
    mj_compile_result_free(&image);
    return rc;
}
static inline void sim_bench_close(SimBench *b)
{
    b->device->ops->module_unload(b->device, b->module);
    mj_device_close(b->device);
}

static inline uint32_t bits_of(float x)
{
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}

/* Arguments LIBRARIES and KERNELS (a file or a folder): 0, or what main has to return. */
static inline int sim_begin(int argc, char **argv, const char *kernels)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s LIBRARIES %s\n", argv[0], kernels);
        return 2;
    }
    if (system("command -v g++ >/dev/null") != 0) {
        printf("skipped: the simulated GPU compiles kernels with g++, which is not installed\n");
        return 77;
    }
    setenv("MOJIT_CUDA_LIBRARY_PATH", argv[1], 1);
    return 0;
}

#endif
