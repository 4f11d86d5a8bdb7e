/* The compiler seam: `cc` (the host's C compiler as a child process, CPU targets) and `nvrtc` (in process, opened
 * with dlopen, any sm_XX, no GPU needed; compute_XX gives PTX). Owns no cache and no device. Thread-safe: compile may run
 * in parallel. */
#ifndef MJ_JIT_COMPILER_H
#define MJ_JIT_COMPILER_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/error.h"

typedef struct MjCompileRequest {
    const char *source;      /* expanded template */
    const char *source_name; /* "rmsnorm_fwd.cu", for messages */
    const char *target;      /* "cpu:avx512_bf16", "sm_90a" */
    const char *entry;       /* first kernel's name */
    double timeout_s;        /* a child is killed after this; 0 = none */
    int threads;             /* NVRTC: for the entry points of one source, where nothing else waits for the cores; 0 = 1 */
} MjCompileRequest;

typedef struct MjCompileResult {
    void *image;     /* malloc'd; the caller frees */
    size_t image_bytes;
    char *log;       /* malloc'd, NULL if empty */
    double seconds;
    double cpu_seconds; /* of the calling thread (nvrtc): what a busy machine does not lengthen; 0 where unknown, as of several threads */
    int registers, spill_bytes, stack_bytes, shared_bytes; /* from ptxas; -1 where unknown (cpu) */
} MjCompileResult;

typedef struct MjCompiler MjCompiler;
struct MjCompiler {
    const char *name; /* "cc" or "nvrtc" */
    double timeout_s; /* the opener may set it: how long the compiler may take to say what it is; 0 = 10 */
    bool (*serves)(const MjCompiler *c, const char *target);
    /* Identity down to the build, by build ids ("gcc-12 <id>, cc1 <id>, as <id>, ld <id>", "NVRTC 13.0 <id>"), and the
     * flags used for a target; both go into the key. Static for the life of the compiler. Never a path. */
    int (*identify)(MjCompiler *c, const char *target, const char **identity, const char **flags, MjError *err);
    int (*compile)(MjCompiler *c, const MjCompileRequest *req, MjCompileResult *out, MjError *err);
    void (*close)(MjCompiler *c);
};

/* MJ_ERR_MISSING with what to install, or to use nocompile, when there is no compiler. Opening is lazy and cheap: cc
 * looks for $MOJIT_CC, then cc, gcc, clang on the PATH; nvrtc for libnvrtc.so.13, .12 by the loader. */
int mj_compiler_cc_open(MjCompiler **out, MjError *err) MJ_MUST_CHECK;
int mj_compiler_nvrtc_open(MjCompiler **out, MjError *err) MJ_MUST_CHECK;
void mj_compile_result_free(MjCompileResult *r);
/* Sets the four numbers of ptxas from a log: the most of any entry point; -1 where it says nothing (a C compiler's). */
void mj_compile_log_read(const char *log, MjCompileResult *r);

#endif
