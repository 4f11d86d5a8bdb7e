/* Why a key hits or misses: the nearest entry and the labelled fields in which it differs. */
#ifndef MJ_CACHE_EXPLAIN_H
#define MJ_CACHE_EXPLAIN_H

#include "cache/cache.h"
#include "runtime/base/str.h"

typedef struct MjExplanation {
    bool hit;
    char *path;       /* of the entry, or of the nearest one; NULL when the cache holds none of this template */
    double compile_s; /* of that entry */
    char *bad;        /* what is wrong with the entry at the key's own place (a miss then); NULL: nothing */
    MjStr difference; /* a line a differing field: "compiler: <there> -> <wanted>", of a spec its parameters; empty on a hit */
    MjStr same;       /* names of the fields that agree, ", " between */
} MjExplanation;

/* Scans the roots. `label_text` is what the key is made of. */
int mj_cache_explain(MjCache *cache, const char *label_text, MjExplanation *out, MjError *err) MJ_MUST_CHECK;
void mj_explanation_free(MjExplanation *e);

#endif
