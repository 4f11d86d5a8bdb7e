/* The JIT: op request -> spec -> memory table -> disk cache -> locked compile -> load -> launch record.
 * Owns the memory table, the plan and the counters. The only code that knows both cache and compiler.
 *
 * Several MjJit may live in one process. mj_jit_get may be called from any thread; its repeat path is a fixed-size
 * struct hash to a ready record: no formatting, no source hashing, no lock.
 */
#ifndef MJ_JIT_JIT_H
#define MJ_JIT_JIT_H

#include <stdbool.h>
#include <stdint.h>

#include "jit/mode.h"
#include "jit/template.h"
#include "runtime/base/error.h"
#include "runtime/device.h"

typedef struct MjJit MjJit;
typedef struct MjCache MjCache;

typedef enum MjOnError { MJ_ON_ERROR_STOP, MJ_ON_ERROR_GENERIC } MjOnError;

typedef struct MjJitOptions {
    MjDevice *device;          /* NULL: plan and compile only, for `target` */
    const char *target;        /* NULL: the device's */
    const MjMode *mode;
    MjBucket bucket;
    int budget;                /* specialisations of one template before its churning dimension becomes an argument; 0 = 32 */
    int jobs;                  /* parallel compiles; 0 = all cores */
    MjCache *cache;            /* may be NULL (no disk cache); not owned */
    MjOnError on_error;
    double timeout_s;          /* for one compile; 0 = 120 */
    bool require_warm;         /* a miss is an error instead of a compile */
    void (*log)(void *user, const char *line); /* warnings and decisions; NULL = silent */
    void *log_user;
    void (*progress)(void *user, int done, int total, const char *spec); /* compiling a plan; NULL = silent */
} MjJitOptions;

int mj_jit_open(const MjJitOptions *opt, MjJit **out, MjError *err) MJ_MUST_CHECK;
void mj_jit_close(MjJit *jit); /* waits for background compiles; unloads modules */

/* Templates: the built-in ones are there from the start; a folder adds or replaces (MOJIT_KERNELS, or the API). */
int mj_jit_add_folder(MjJit *jit, const char *folder, MjError *err) MJ_MUST_CHECK;
int mj_jit_template(MjJit *jit, const char *name, const MjTemplate **out, MjError *err) MJ_MUST_CHECK; /* suggests */
int mj_jit_template_count(const MjJit *jit);
const MjTemplate *mj_jit_template_at(const MjJit *jit, int i);

/* What an op asks for: a template and the actual value of every declared parameter. Zero-initialise; `values` beyond
 * n_params stay 0. */
typedef struct MjRequest {
    const MjTemplate *tmpl;
    int32_t kernel;                /* index of the entry point */
    int32_t values[MJ_MAX_PARAMS]; /* by parameter; tuning MJ_UNBOUND = the default */
    int32_t zero;                  /* always 0: requests are compared by words of 8 bytes */
} MjRequest;

/* A ready kernel. Lives until mj_jit_close. */
typedef struct MjLaunchRecord {
    MjKernelFn *fn;                /* NULL while recording a plan */
    const MjTemplate *tmpl;
    bool generic;
    bool waits;                    /* the image is for sm_90 or later: its launches may overlap (MjLaunch) */
    int32_t bound[MJ_MAX_PARAMS];  /* MJ_UNBOUND = argument */
    int32_t tuning_of[MJ_MAX_PARAMS]; /* full values with tuning resolved */
} MjLaunchRecord;

int mj_jit_get(MjJit *jit, const MjRequest *req, const MjLaunchRecord **out, MjError *err) MJ_MUST_CHECK;

/* The same in two steps, so that tuning values are chosen once and not at every launch: the record of a request that was
 * made before (while recording: that is in the plan), or NULL; and the first time, when `chosen` is `asked` with tuning values set. A
 * measured choice of `mojit tune` for the device at hand goes before both, unless only the other one's image is ready. */
const MjLaunchRecord *mj_jit_repeat(MjJit *jit, const MjRequest *asked);
int mj_jit_get_chosen(MjJit *jit, const MjRequest *asked, const MjRequest *chosen, const MjLaunchRecord **out, MjError *err)
    MJ_MUST_CHECK;

/* A request's values with open tuning parameters at their defaults: what an image is built with. */
void mj_jit_full_values(const MjRequest *req, int32_t *full);

/* Measured choices, kept in the cache by device, template, its sources and every value that was asked for (tuning left
 * open). find: false when there is none that is legal; `notes` (malloc'd lines "median_us: 12.3") may be NULL. */
bool mj_jit_tuned_find(MjJit *jit, const MjRequest *asked, MjRequest *tuned, char **notes);
int mj_jit_tuned_keep(MjJit *jit, const MjRequest *asked, const MjRequest *tuned, const char *notes, MjError *err) MJ_MUST_CHECK;

/* What mj_jit_get_chosen would take in the place of `chosen`: the measured choice, or `chosen` as it is. Compiles nothing. */
void mj_jit_measured(MjJit *jit, const MjRequest *asked, MjRequest *chosen);

const char *mj_jit_target(const MjJit *jit); /* what images are compiled for; lives as long as the JIT */
void mj_jit_note(const MjJit *jit, const char *line); /* hands a layer's line to the log of the options */

/* Recording: between begin and end mj_jit_get adds the spec to the plan and returns a record whose fn is NULL; ops then
 * skip the launch. The plan of a configuration is what a recorded step asks for. */
void mj_jit_record_begin(MjJit *jit);
void mj_jit_record_end(MjJit *jit);
bool mj_jit_recording(const MjJit *jit);
int mj_jit_plan_size(const MjJit *jit);
int mj_jit_plan_text(const MjJit *jit, int i, char *buf, size_t cap); /* canonical spec text */
/* The request that first asked for it, as it was asked; and what is known of its image once mj_jit_prepare was here. */
const MjRequest *mj_jit_plan_asked(const MjJit *jit, int i);
const MjLaunchRecord *mj_jit_plan_record(const MjJit *jit, int i); /* values; fn is NULL */
typedef struct MjImageReport {
    int registers, spill_bytes, stack_bytes, shared_bytes; /* the most of any entry point; -1 where unknown */
    double compile_s;                                      /* of a thread, also when it was compiled earlier */
    bool compiled;                                         /* now; false: from the cache */
    size_t image_bytes;
} MjImageReport;
bool mj_jit_plan_report(MjJit *jit, int i, MjImageReport *out); /* false: not ready */

/* Brings every spec of the plan into memory (or, without a device, into the cache): hits load, misses compile in
 * parallel over `jobs`. Stops at the first error with the full message. */
int mj_jit_prepare(MjJit *jit, MjError *err) MJ_MUST_CHECK;

/* The labelled text of a request's key under this mode, malloc'd: what mj_cache_key hashes. */
int mj_jit_key_text(MjJit *jit, const MjRequest *req, char **out, MjError *err) MJ_MUST_CHECK;
int mj_jit_plan_key_text(MjJit *jit, int i, char **out, MjError *err) MJ_MUST_CHECK; /* of the plan's i-th spec */

/* Changes whenever a request that was answered before gets another kernel from now on (`tiered`, at a step boundary): what
 * was captured of earlier answers is out of date. */
uint64_t mj_jit_generation(const MjJit *jit);

/* The labelled text of the entry that says which compiler the target's images are from, malloc'd. */
char *mj_jit_compiler_label(const MjJit *jit);

/* Step boundaries: counters are kept per step; `tiered` swaps kernels in here. Ends the current step. */
void mj_jit_step(MjJit *jit);

typedef struct MjJitCounters {
    uint64_t requests, memory_hits, disk_hits, misses, compiles, compile_errors, corrupt_entries, generic_launches,
        stalls, budget_unbound, compiler_loads, background_swaps;
    double compile_s; /* sum over compiles */
    double stall_ms;  /* time that launches waited, for compiles and for loading */
    double load_ms;   /* time to read and load images */
    uint64_t after_ahead; /* compiles after mj_jit_prepare finished: static's promise says 0 */
    /* tiered: boundaries = calls of mj_jit_step so far. */
    uint64_t boundaries, deferred; /* launches that would have waited for a compile, and ran generic instead */
    uint64_t generic_steps;        /* steps in which a deferred kernel still ran generic */
    uint64_t specialised_at;       /* `boundaries` when the last deferred kernel had been swapped in; 0 = not (yet) */
} MjJitCounters;
void mj_jit_counters(const MjJit *jit, MjJitCounters *total);
void mj_jit_step_counters(const MjJit *jit, MjJitCounters *last_step); /* the step that mj_jit_step ended last */

#endif
