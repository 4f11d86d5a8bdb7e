/* Compile modes: one table, one row a mode. What a mode binds, when it compiles, what it does on a miss.
 * A new mode is a new row (and, if it needs a new miss action, one case in jit.c). */
#ifndef MJ_JIT_MODE_H
#define MJ_JIT_MODE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/error.h"

typedef enum MjPad {
    MJ_PAD_MAXIMUM, /* a step is padded up to the run's maximum */
    MJ_PAD_BUCKET,  /* a step is padded up to its bucket */
    MJ_PAD_NONE     /* no padding */
} MjPad;

typedef enum MjMiss {
    MJ_MISS_COMPILE, /* look in the cache, then compile, while the launch waits */
    MJ_MISS_GENERIC, /* the embedded generic build, always */
    MJ_MISS_DEFER    /* the embedded generic build now; compile in the background, swap in at a step boundary */
} MjMiss;

typedef struct MjMode {
    const char *name;
    const char *doc;
    bool bind_fixed;   /* fixed dimensions become constants */
    bool bind_varying; /* varying dimensions become constants */
    MjPad pad;
    MjMiss miss;
    bool compile_ahead; /* the whole plan is compiled before step 0; a compile after it is a broken promise */
} MjMode;

extern const MjMode mj_modes[]; /* ends with a NULL name: static, dynamic, nocompile, tiered */

/* By name; an unknown one is MJ_ERR_USAGE and suggests the nearest. */
int mj_mode_find(const char *name, const MjMode **out, MjError *err) MJ_MUST_CHECK;

/* How varying dimensions are rounded up in `dynamic`. */
typedef enum MjBucketKind { MJ_BUCKET_MULTIPLE, MJ_BUCKET_POW2, MJ_BUCKET_EXACT } MjBucketKind;
typedef struct MjBucket {
    MjBucketKind kind;
    int32_t multiple;
} MjBucket;
int mj_bucket_parse(const char *text, MjBucket *out, MjError *err) MJ_MUST_CHECK; /* "multiple:128", "pow2", "exact" */

/* The padded size of a varying dimension for one step. 1 <= actual <= maximum; result in [actual, maximum]. */
int32_t mj_mode_pad(const MjMode *mode, const MjBucket *bucket, int32_t actual, int32_t maximum);

#endif
