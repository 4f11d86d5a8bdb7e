/* What the parts of the JIT share. Not for other folders. */
#ifndef MJ_JIT_INTERNAL_H
#define MJ_JIT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "cache/cache.h"
#include "jit/compiler.h"
#include "jit/generic_pack.h"
#include "jit/jit.h"
#include "jit/sources.h"

/* ---- memory table: request -> launch record; reads take no lock (jit_table.c) ---- */

/* On cache lines of its own: one, for a request of up to 11 parameters. */
typedef struct TableSlot {
    _Atomic(uintptr_t) record; /* an MjLaunchRecord *, plus 1 for a generic one; tiered replaces it at a step boundary */
    uint64_t request[];        /* the words of the MjRequest that count */
} TableSlot;

typedef struct TableArray {
    size_t mask; /* capacity - 1 */
    struct TableArray *older; /* kept until close: a reader may still look at it */
    _Atomic(uintptr_t) cells[]; /* a TableSlot *, its low bits a piece of the request's hash; 0 = free */
} TableArray;

typedef struct TableBlock { /* where slots are cut from */
    struct TableBlock *older;
    size_t used;
} TableBlock;

typedef struct RequestTable {
    _Atomic(TableArray *) array;
    size_t count;
    TableBlock *blocks;
} RequestTable;

void mj_table_init(RequestTable *t);
void mj_table_free(RequestTable *t);
TableSlot *mj_table_find(RequestTable *t, const MjRequest *req);
/* Caller holds the JIT's mutex; the request is not in the table. */
TableSlot *mj_table_insert(RequestTable *t, const MjRequest *req, const MjLaunchRecord *record);
void mj_table_replace(TableSlot *slot, const MjLaunchRecord *record);

static inline const MjLaunchRecord *mj_table_record(uintptr_t record)
{
    return (const MjLaunchRecord *)(record & ~(uintptr_t)1);
}

/* ---- images: spec -> loaded module (jit_image.c) ---- */

typedef enum ImageState { IMAGE_NEW, IMAGE_BUSY, IMAGE_READY, IMAGE_FAILED } ImageState;

typedef struct Image {
    const MjTemplate *tmpl;
    int32_t bound[MJ_MAX_PARAMS];
    ImageState state;          /* under the mutex */
    MjModule *module;          /* NULL without a device */
    MjError error;             /* of a failed one */
    MjImageReport report;
    bool warned;
    struct Image *next;
} Image;

typedef struct SourceLabels { /* of a template: hashes of all that is read of the sources */
    const MjTemplate *tmpl;
    char *text;
    struct SourceLabels *next;
} SourceLabels;

/* A specialisation of one template that differs only in varying dimensions: what the budget counts. */
typedef struct Family {
    const MjTemplate *tmpl;
    int32_t fixed[MJ_MAX_PARAMS]; /* varying: MJ_UNBOUND */
    int32_t *seen[MJ_MAX_PARAMS]; /* distinct values by varying parameter */
    int n_seen[MJ_MAX_PARAMS];
    bool unbound[MJ_MAX_PARAMS];
    struct Family *next;
} Family;

/* A generic launch that waits for its specialised kernel (tiered). */
typedef struct Deferred {
    TableSlot *slot;
    MjRequest chosen;       /* slot->request with its tuning values */
    Image *image;
    MjLaunchRecord *record; /* the specialised one, NULL until ready */
    struct Deferred *next;
} Deferred;

typedef struct PlanItem {
    const MjTemplate *tmpl;
    MjRequest asked;
    int32_t bound[MJ_MAX_PARAMS];
    MjLaunchRecord record; /* fn is NULL */
} PlanItem;

enum { HIT_SHARDS = 16 };

typedef struct HitCounters { /* a cache line, so that threads don't wait for each other's counts */
    atomic_uint_least64_t repeats[2]; /* memory hits, on specialised and on generic kernels */
    char pad[64 - 2 * sizeof(atomic_uint_least64_t)];
} HitCounters;

typedef struct AtomicCounters {
    HitCounters hits[HIT_SHARDS]; /* by thread */
    atomic_uint_least64_t generation;
    atomic_uint_least64_t firsts, generic_firsts;  /* requests that the table did not hold */
} AtomicCounters;

/* Generic builds for cuda devices: the pack and the modules made of it (jit_generic.c). */
typedef struct GenericModule {
    const MjGenericImage *image;
    MjModule *module;
    struct GenericModule *next;
} GenericModule;

typedef struct GenericState {
    pthread_mutex_t mutex; /* the two below */
    MjGenericPack *pack;   /* NULL until a generic build is asked for */
    GenericModule *modules;
} GenericState;

struct MjJit {
    MjJitOptions opt;
    char target[64];
    MjSources sources;
    MjTemplate **templates;
    int n_templates;
    MjCompiler *compiler; /* opened at the first need */
    MjError no_compiler;  /* why there is none */
    SourceLabels *labels;
    bool remembered;      /* the compiler's identity is in the cache */
    char *identity, *flags; /* what goes into keys; from the compiler, or remembered by the cache when there is none */

    RequestTable table;
    AtomicCounters fast;
    GenericState generic;
    pthread_mutex_t mutex; /* everything below */
    pthread_cond_t changed;
    Image *images;
    Family *families;
    PlanItem **plan;
    int n_plan;
    atomic_bool recording;
    bool preparing, prepared;
    MjLaunchRecord **records; /* all that were handed out */
    int n_records;
    MjJitCounters counters, step_start, last_step;

    pthread_t *workers; /* tiered */
    int n_workers;
    Deferred *deferred;
    bool stopping;
    bool generic_for_good; /* a background compile failed */
    bool missing_said;     /* that there is no compiler for them */
};

void mj_jit_say(MjJit *jit, const char *fmt, ...) MJ_PRINTF(2, 3);

/* Which parameters are constants, by the mode and the budget. Under the mutex. */
void mj_jit_bind(MjJit *jit, const MjRequest *req, int32_t *bound);
/* Finds or makes the image's row. Under the mutex. */
Image *mj_jit_image(MjJit *jit, const MjTemplate *tmpl, const int32_t *bound);
/* Whether the cache holds a specialised image; 1 or 0. Under the mutex. */
bool mj_jit_cached(MjJit *jit, const MjTemplate *tmpl, const int32_t *bound);
/* Replaces `chosen` by the measured choice where that is to be used (jit_tuned.c). Under the mutex. */
void mj_jit_tuned_apply(MjJit *jit, const MjRequest *asked, MjRequest *chosen);
void mj_jit_forget_labels(MjJit *jit); /* the sources have changed, or all is over */
/* Brings an image to READY: cache, compile, load. Called without the mutex; waits for another thread that is at it. */
int mj_jit_ensure(MjJit *jit, Image *image, MjError *err) MJ_MUST_CHECK;
/* The embedded generic build for a request, as a record that the caller keeps. Called without the mutex. */
int mj_jit_generic(MjJit *jit, const MjRequest *req, MjLaunchRecord **out, MjError *err) MJ_MUST_CHECK;
void mj_jit_generic_close(MjJit *jit); /* unloads their modules */
MjLaunchRecord *mj_jit_new_record(const MjRequest *req, const int32_t *bound, MjKernelFn *fn, bool generic);
/* A record for a ready image. */
int mj_jit_record_of(MjJit *jit, const MjRequest *req, const Image *image, MjLaunchRecord **out, MjError *err) MJ_MUST_CHECK;
void mj_jit_keep(MjJit *jit, MjLaunchRecord *record); /* under the mutex: freed at close */

/* Background compiles (jit_tiered.c). defer: under the mutex. */
void mj_jit_defer(MjJit *jit, TableSlot *slot, const MjRequest *chosen, Image *image);
void mj_jit_swap_ready(MjJit *jit);
void mj_jit_stop_workers(MjJit *jit);

#endif
