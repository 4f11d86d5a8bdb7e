/* Values beyond the model; see tune_explore.h. */
#include "ops/tune_explore.h"

#include <stdlib.h>
#include <string.h>

static void add(int32_t value, const MjParam *p, int32_t current, int32_t *out, int *n)
{
    if (value == current || value < p->min || value > p->max || *n == MJ_TUNE_MOST_TRIES) return;
    if (p->multiple > 1 && value % p->multiple != 0) return;
    for (int i = 0; i < *n; i++)
        if (out[i] == value) return;
    out[(*n)++] = value;
}

int mj_tune_tries(const MjTemplate *t, int param, int32_t current, int32_t out[MJ_TUNE_MOST_TRIES])
{
    const MjParam *p = &t->params[param];
    int n = 0;
    if (p->kind != MJ_PARAM_TUNING || p->n_values > 0) return 0;
    if ((int64_t)p->max - p->min <= MJ_TUNE_MOST_TRIES) { /* few: all of them */
        for (int32_t v = p->min; v <= p->max; v++) add(v, p, current, out, &n);
        return n;
    }
    if (current == 0) {
        for (int32_t part = 8; part >= 1; part /= 2)
            if (p->max / part > 0 && p->max < INT32_MAX) add(p->max / part, p, current, out, &n);
        return n;
    }
    add(current / 2, p, current, out, &n);
    if (current <= INT32_MAX / 4) add(current * 2, p, current, out, &n);
    add(current / 4, p, current, out, &n);
    if (current <= INT32_MAX / 4) add(current * 4, p, current, out, &n);
    if (p->min == 0) add(0, p, current, out, &n);
    return n;
}

/* The cheapest with the parameters as they are asked for. */
static bool cheapest(const MjOpMatrix *matrix, const MjTemplate *t, const char *target, const MjDeviceInfo *info, const void *args,
                     const int32_t *asked, MjTileCandidate *out)
{
    MjTileCandidate *list = NULL;
    MjError none = MJ_ERROR_INIT;
    int n = 0;
    const bool fits = mj_tile_candidates(matrix, t, target, info, args, asked, &list, &n, &none) == 0;
    if (fits) *out = list[0];
    free(list);
    mj_error_clear(&none);
    return fits;
}

bool mj_tune_try(const MjOpMatrix *matrix, const MjTemplate *t, const char *target, const MjDeviceInfo *info, const void *args,
                 const int32_t *best, int param, int32_t value, MjTileCandidate *out)
{
    int32_t asked[MJ_MAX_PARAMS];
    bool found = false;
    memcpy(asked, best, sizeof asked);
    asked[param] = value;
    if (cheapest(matrix, t, target, info, args, asked, out)) return true;
    for (int i = 0; i < t->n_params; i++) {
        MjTileCandidate c;
        if (t->params[i].kind != MJ_PARAM_TUNING || t->params[i].n_values == 0) continue;
        asked[i] = MJ_UNBOUND;
        if (cheapest(matrix, t, target, info, args, asked, &c) && (!found || c.cost.seconds < out->cost.seconds)) {
            *out = c;
            found = true;
        }
        asked[i] = best[i];
    }
    return found;
}
