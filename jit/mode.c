/* The table of compile modes, and buckets. */
#include "jit/mode.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/nearest.h"

const MjMode mj_modes[] = {
    {.name = "static",
     .doc = "every dimension a constant, the run's maxima; everything compiled once, before step 0",
     .bind_fixed = true, .bind_varying = true, .pad = MJ_PAD_MAXIMUM, .miss = MJ_MISS_COMPILE, .compile_ahead = true},
    {.name = "dynamic",
     .doc = "every dimension a constant, a step's bucket; compiled at the first use of a bucket, through the cache",
     .bind_fixed = true, .bind_varying = true, .pad = MJ_PAD_BUCKET, .miss = MJ_MISS_COMPILE},
    {.name = "nocompile",
     .doc = "dimensions are arguments; the generic kernels that were built with mojit; never a compiler",
     .pad = MJ_PAD_NONE, .miss = MJ_MISS_GENERIC},
    {.name = "tiered",
     .doc = "generic kernels at once, specialised ones compiled in the background and swapped in at a step boundary",
     .bind_fixed = true, .bind_varying = true, .pad = MJ_PAD_BUCKET, .miss = MJ_MISS_DEFER},
    {.name = NULL},
};

int mj_mode_find(const char *name, const MjMode **out, MjError *err)
{
    const char *names[8];
    size_t n = 0;

    for (const MjMode *m = mj_modes; m->name; m++) {
        if (strcmp(m->name, name) == 0) {
            *out = m;
            return 0;
        }
        names[n++] = m->name;
    }
    const char *near = mj_nearest(name, names, n);
    return mj_error(err, MJ_ERR_USAGE, "unknown compile mode \"%s\"%s%s%s (static, dynamic, nocompile, tiered)", name,
                    near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

int mj_bucket_parse(const char *text, MjBucket *out, MjError *err)
{
    if (strcmp(text, "exact") == 0) {
        *out = (MjBucket){.kind = MJ_BUCKET_EXACT, .multiple = 1};
        return 0;
    }
    if (strcmp(text, "pow2") == 0) {
        *out = (MjBucket){.kind = MJ_BUCKET_POW2, .multiple = 1};
        return 0;
    }
    if (strncmp(text, "multiple:", 9) == 0) {
        char *end;
        long v = strtol(text + 9, &end, 10);
        if (end != text + 9 && *end == 0 && v >= 1 && v <= 1 << 20) {
            *out = (MjBucket){.kind = MJ_BUCKET_MULTIPLE, .multiple = (int32_t)v};
            return 0;
        }
    }
    return mj_error(err, MJ_ERR_USAGE, "bucket \"%s\" is none of multiple:<1..1048576>, pow2, exact", text);
}

int32_t mj_mode_pad(const MjMode *mode, const MjBucket *bucket, int32_t actual, int32_t maximum)
{
    int64_t padded = actual;

    if (mode->pad == MJ_PAD_MAXIMUM) return maximum;
    if (mode->pad == MJ_PAD_NONE || bucket->kind == MJ_BUCKET_EXACT) return actual;
    if (bucket->kind == MJ_BUCKET_POW2)
        for (padded = 1; padded < actual;) padded *= 2;
    else
        padded = ((int64_t)actual + bucket->multiple - 1) / bucket->multiple * bucket->multiple;
    return padded < maximum ? (int32_t)padded : maximum;
}
