/* mojit: kernels from templates, specialised at run time, under a compile mode. The public interface.
 *
 * Open a runtime on a device under a mode, ask for a kernel by its template's name and the shape, launch it. The same
 * calls serve every mode: `static` and `dynamic` compile for the shape (through a cache on disk), `nocompile` takes the
 * generic kernels that were built with mojit, `tiered` starts on those and swaps in compiled ones at mojit_step.
 *
 * Every function that can fail returns 0 or a negative MojitCode and fills `err`, which may be NULL; out-parameters are
 * untouched on failure. There are no globals: several runtimes may live in one process. mojit_kernel may be called from any
 * thread; the other calls on one runtime from one thread at a time. Structs start with their size, which the caller sets, so
 * that a program built against an older header works with a newer library.
 */
#ifndef MOJIT_H
#define MOJIT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOJIT_API_VERSION 1

/* The library's MOJIT_API_VERSION, and its version as text. Differing API versions don't work together. */
int mojit_api_version(void);
const char *mojit_version(void);

typedef enum MojitCode {
    MOJIT_OK = 0,
    MOJIT_USAGE = -2,   /* wrong name, mode, shape or argument */
    MOJIT_MISSING = -3, /* no compiler, no device, no library, or a miss under require_warm */
    MOJIT_IO = -4,
    MOJIT_DATA = -5,
    MOJIT_COMPILE = -6, /* a template did not compile */
    MOJIT_NUMERIC = -7,
    MOJIT_DEVICE = -8,
    MOJIT_MEMORY = -9,
    MOJIT_INTERRUPTED = -10,
    MOJIT_REFUSED = -11 /* refused for safety: ownership or permissions */
} MojitCode;

typedef struct MojitError {
    int code;
    char message[1024]; /* what was wrong, where, what was expected, what to do */
    char log[4096];     /* the compiler's words, cut to fit; "" when there are none */
} MojitError;

typedef struct MojitOptions {
    size_t size;          /* sizeof(MojitOptions) */
    const char *device;   /* "cpu", "cuda", "cuda:1"; NULL = the best that is there */
    const char *mode;     /* NULL = "dynamic" */
    const char *bucket;   /* NULL = "multiple:128" */
    const char *cache;    /* colon list of folders, the first is written; NULL = $MOJIT_CACHE or the user's cache folder */
    int threads;          /* of the cpu device; 0 = all cores */
    int jobs;             /* parallel compiles; 0 = all cores */
    int budget;           /* specialisations of a template by one dimension; 0 = 32 */
    int require_warm;     /* 1: a miss is an error instead of a compile */
    int generic_on_error; /* 1: a template that does not compile runs its generic kernel, with a warning */
    double timeout_s;     /* of one compile; 0 = 120 */
    uint64_t cache_max_bytes; /* 0 = 2 GiB */
    void (*log)(void *user, const char *line); /* warnings; NULL = silent; may be called from any thread */
    void *log_user;
    const char *target; /* NULL: the device's. Else no device is opened: "cpu", "sm_90a", ... to plan and warm for, anywhere */
} MojitOptions;
#define MOJIT_OPTIONS_INIT {.size = sizeof(MojitOptions)}

typedef struct MojitRuntime MojitRuntime;
typedef struct MojitKernel MojitKernel; /* ready to launch; lives as long as its runtime */

int mojit_open(const MojitOptions *options, MojitRuntime **out, MojitError *err);
void mojit_close(MojitRuntime *rt); /* NULL is fine; waits for background compiles */

/* Adds the templates of a folder (form: docs/adding-a-kernel.md); they replace built-in ones of the same name. Before the
 * first mojit_kernel. */
int mojit_add_folder(MojitRuntime *rt, const char *folder, MojitError *err);

/* A dimension, or any other declared parameter, by its name in the template. */
typedef struct MojitDim {
    const char *name;
    int32_t value;
} MojitDim;

/* The kernel of a template for a shape. Every fixed, varying and variant parameter needs a value. What it does on a miss is
 * the mode's: compile and wait, take the generic kernel, or take it and compile in the background. A kernel asked for
 * again costs a look-up. `tmpl` names the template's first entry point, or "template/entry". */
int mojit_kernel(MojitRuntime *rt, const char *tmpl, const MojitDim *dims, size_t n_dims, MojitKernel **out, MojitError *err);

/* Launches `grid` blocks (of `block` threads and `shared_bytes` scratch each; block is ignored by the cpu) with the
 * template's argument struct, copied before the call returns. Asynchronous on cuda. */
int mojit_launch(MojitRuntime *rt, MojitKernel *kernel, uint32_t grid, uint32_t block, size_t shared_bytes, const void *args,
                 size_t args_bytes, MojitError *err);
/* The same; on a GPU of compute capability 9.0 or later the kernel may start while the launch before it ends, which hides the
 * time between the two. Only for kernels that wait for that launch: every kernel made with MJ_KERNEL does before its body; one
 * with an entry point of its own calls mj_grid_begin() in every thread, also in those that leave at once. Elsewhere it is
 * mojit_launch. */
int mojit_launch_overlapped(MojitRuntime *rt, MojitKernel *kernel, uint32_t grid, uint32_t block, size_t shared_bytes,
                            const void *args, size_t args_bytes, MojitError *err);
int mojit_synchronize(MojitRuntime *rt, MojitError *err);

/* Device memory, 256-byte aligned, not zeroed. Copies are in launch order; from_device waits. */
int mojit_alloc(MojitRuntime *rt, size_t bytes, void **out, MojitError *err);
void mojit_free(MojitRuntime *rt, void *memory);
int mojit_to_device(MojitRuntime *rt, void *to, const void *from, size_t bytes, MojitError *err);
int mojit_from_device(MojitRuntime *rt, void *to, const void *from, size_t bytes, MojitError *err);

/* A plan: between begin and end mojit_kernel only notes what is asked for (its kernels can't be launched); mojit_warm then
 * brings all of it into memory and the cache, in parallel. */
void mojit_plan_begin(MojitRuntime *rt);
void mojit_plan_end(MojitRuntime *rt);
int mojit_warm(MojitRuntime *rt, MojitError *err);

/* A step boundary: `tiered` swaps finished kernels in, so ask for kernels again after it. */
void mojit_step(MojitRuntime *rt);

typedef struct MojitCounters {
    size_t size; /* sizeof(MojitCounters), set by the caller */
    uint64_t requests, memory_hits, disk_hits, misses, compiles, compile_errors, corrupt_entries, generic_kernels, swaps;
    double compile_s, stall_ms; /* of compiling; that launches waited, for compiles and for loading */
    uint64_t stalls;         /* launches that waited for a compile */
    uint64_t budget_unbound; /* dimensions that became arguments */
    /* tiered: launches that would have waited, steps in which one of them still ran generic, and the mojit_step at which the last
     * had been swapped in (0: not yet). */
    uint64_t deferred, generic_steps, specialised_at;
    double load_ms;          /* reading and loading images */
} MojitCounters;
int mojit_counters(MojitRuntime *rt, MojitCounters *out, MojitError *err);

#ifdef __cplusplus
}
#endif
#endif
