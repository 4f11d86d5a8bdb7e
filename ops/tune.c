/* The measuring of candidates; see tune.h. */
#include "ops/tune.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#include "ops/matrix_list.h"
#include "ops/tune_explore.h"
#include "runtime/base/mem.h"

#define CHUNK_BYTES ((size_t)64 << 20)
#define GAIN 0.99 /* what a candidate must get below, of the choice's time: less is noise */

/* ---- bits ---------------------------------------------------------------------------------------------------------- */

/* A hash of every output as the launch left it. */
static int hash_outputs(MjOps *ops, MjOpId op, const MjCase *c, XXH128_hash_t *out, MjError *err)
{
    const MjOpRow *row = mj_op_rows[op];
    const void *args = mj_case_args(c);
    unsigned char *host = mj_xmalloc(CHUNK_BYTES);
    XXH3_state_t *state = XXH3_createState();
    int rc = 0;
    XXH3_128bits_reset(state);
    for (int b = 0; b < mj_op_buffer_count(row); b++) {
        const MjOpBuffer *buffer = &row->buffers[b];
        const char *p = mj_op_buffer_ptr(buffer, args);
        if (p == NULL || (buffer->role != MJ_OUT && buffer->role != MJ_INOUT)) continue;
        const size_t bytes = (size_t)buffer->count(args) * mj_op_type_bytes(mj_op_buffer_type(buffer, args));
        for (size_t at = 0; at < bytes; at += CHUNK_BYTES) {
            const size_t n = bytes - at < CHUNK_BYTES ? bytes - at : CHUNK_BYTES;
            MJ_TRY(ops->device->ops->download(ops->device, host, p + at, n, err));
            XXH3_128bits_update(state, host, n);
        }
    }
    *out = XXH3_128bits_digest(state);
out:
    XXH3_freeState(state);
    free(host);
    return rc;
}

/* ---- one shape ------------------------------------------------------------------------------------------------------- */

static void force(MjOps *ops, const MjTemplate *t, const int32_t *values)
{
    ops->forced_tmpl = t;
    if (t != NULL) memcpy(ops->forced, values, sizeof ops->forced);
}

/* A candidate that does not compile, launch or give the same bits is refused, and the reason kept; a lost device ends it all. */
static int measure(MjOps *ops, MjOpId op, MjCase *c, const MjTemplate *t, double seconds, const XXH128_hash_t *want,
                   MjTuneCandidate *candidate, XXH128_hash_t *bits, MjError *err)
{
    MjError why = MJ_ERROR_INIT;
    force(ops, t, candidate->values);
    int rc = mj_case_run(c, &why);
    if (rc == 0) rc = hash_outputs(ops, op, c, bits, &why);
    if (rc == 0 && want != NULL && !XXH128_isEqual(*bits, *want)) rc = mj_error(&why, MJ_ERR_NUMERIC, "other bits than the choice's");
    if (rc == 0) rc = mj_case_time(c, seconds, &candidate->time, &why);
    force(ops, NULL, NULL);
    if (rc != 0) (void)snprintf(candidate->refused, sizeof candidate->refused, "%.190s", why.message);
    if (rc == MJ_ERR_DEVICE || rc == MJ_ERR_MEMORY || rc == MJ_ERR_MISSING) {
        (void)mj_error(err, rc, "%s", why.message);
    } else {
        rc = 0;
    }
    mj_error_clear(&why);
    return rc;
}

static bool same_values(const MjTemplate *t, const int32_t *a, const int32_t *b)
{
    return memcmp(a, b, (size_t)t->n_params * sizeof *a) == 0;
}

/* The model's cheapest, and among them the one that runs without tuning. */
static int list_candidates(MjOps *ops, const MjMatrixKernel *k, const void *args, int most, MjTuned *out, MjError *err)
{
    const MjTemplate *t = k->asked.tmpl;
    MjTileCandidate *list = NULL;
    int32_t choice[MJ_MAX_PARAMS];
    int n = 0;
    int rc = mj_tile_candidates(k->matrix, t, mj_jit_target(ops->jit), ops->device->ops->info(ops->device), args, k->asked.values,
                                &list, &n, err);
    if (rc != 0) return rc;
    mj_jit_full_values(&k->chosen, choice);
    out->candidates = mj_xcalloc((size_t)n + 1, sizeof *out->candidates);
    out->choice = -1;
    for (int i = 0; i < n; i++) {
        const bool chosen = same_values(t, list[i].values, choice);
        if (out->n >= most && !chosen) continue;
        MjTuneCandidate *c = &out->candidates[out->n];
        memcpy(c->values, list[i].values, sizeof c->values);
        c->model_s = list[i].cost.seconds;
        c->chosen = chosen;
        if (chosen) out->choice = out->n;
        out->n++;
    }
    free(list);
    if (out->choice < 0) return mj_error(err, MJ_ERR_USAGE, "%s: the choice for this shape does not fit this device", t->name);
    return 0;
}

static void pick(MjTuned *t)
{
    t->winner = t->choice;
    for (int i = 0; i < t->n; i++) {
        const double s = t->candidates[i].time.median_s;
        if (s > 0.0 && s < t->candidates[t->winner].time.median_s) t->winner = i;
    }
    if (t->candidates[t->winner].time.median_s > GAIN * t->candidates[t->choice].time.median_s) t->winner = t->choice;
}

static bool has_tuning(const MjTemplate *t)
{
    for (int i = 0; i < t->n_params; i++)
        if (t->params[i].kind == MJ_PARAM_TUNING) return true;
    return false;
}

/* What the measuring of a shape works with. */
typedef struct Bench {
    MjOps *ops;
    MjOpId op;
    const MjMatrixKernel *kernel;
    const void *args;
    MjCase *c;
    double seconds;
    XXH128_hash_t want; /* bits of the choice */
} Bench;

static int measure_one(Bench *b, MjTuneCandidate *candidate, MjError *err)
{
    XXH128_hash_t bits;
    return measure(b->ops, b->op, b->c, b->kernel->asked.tmpl, b->seconds, &b->want, candidate, &bits, err);
}

/* The choice first: its bits are what the others must give. */
static int measure_listed(Bench *b, MjTuned *t, MjError *err)
{
    const MjTemplate *tmpl = b->kernel->asked.tmpl;
    MjTuneCandidate *choice = &t->candidates[t->choice];
    int rc;
    MJ_TRY(measure(b->ops, b->op, b->c, tmpl, b->seconds, NULL, choice, &b->want, err));
    if (choice->refused[0] != '\0')
        MJ_TRY(mj_error(err, MJ_ERR_COMPILE, "%s: the choice itself fails: %s", tmpl->name, choice->refused));
    for (int i = 0; i < t->n; i++)
        if (i != t->choice) MJ_TRY(measure_one(b, &t->candidates[i], err));
out:
    return rc;
}

/* From the fastest so far on, one parameter after the other; each is left at its best before the next is tried. */
static int explore(Bench *b, MjTuned *t, MjError *err)
{
    const MjTemplate *tmpl = b->kernel->asked.tmpl;
    int32_t tries[MJ_TUNE_MOST_TRIES];
    int rc = 0;
    for (int p = 0; p < tmpl->n_params; p++) {
        pick(t);
        const int n = mj_tune_tries(tmpl, p, t->candidates[t->winner].values[p], tries);
        for (int i = 0, from = t->winner; i < n; i++) {
            MjTileCandidate tile;
            bool known = false;
            if (!mj_tune_try(b->kernel->matrix, tmpl, mj_jit_target(b->ops->jit), b->ops->device->ops->info(b->ops->device), b->args,
                             t->candidates[from].values, p, tries[i], &tile))
                continue;
            for (int k = 0; k < t->n; k++) known = known || same_values(tmpl, t->candidates[k].values, tile.values);
            if (known) continue;
            t->candidates = mj_xrealloc(t->candidates, ((size_t)t->n + 1) * sizeof *t->candidates);
            MjTuneCandidate *c = &t->candidates[t->n++];
            *c = (MjTuneCandidate){.model_s = tile.cost.seconds, .explored = true};
            memcpy(c->values, tile.values, sizeof c->values);
            MJ_TRY(measure_one(b, c, err));
        }
    }
out:
    return rc;
}

int mj_tune(MjOps *ops, MjOpId op, const MjOpShape *shape, const MjTuneEffort *effort, MjTuned *out, MjError *err)
{
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    MjMatrixKernel k;
    MjTuned t = {.n = 0};
    Bench b = {.ops = ops, .op = op, .kernel = &k, .args = args, .seconds = effort->seconds};
    int rc = 0;
    MJ_TRY(mj_matrix_kernel(ops, op, shape, args, &k, err));
    if (!has_tuning(k.asked.tmpl))
        MJ_TRY(mj_error(err, MJ_ERR_USAGE, "%s has no tuning parameters: there is nothing to measure", k.asked.tmpl->name));
    t.asked = k.asked;
    MJ_TRY(list_candidates(ops, &k, args, effort->most, &t, err));
    MJ_TRY(mj_case_open(ops, op, shape, 7, &b.c, err));
    MJ_TRY(measure_listed(&b, &t, err));
    if (effort->explore) MJ_TRY(explore(&b, &t, err));
    pick(&t);
    *out = t;
    t = (MjTuned){.n = 0};
out:
    force(ops, NULL, NULL);
    mj_case_close(b.c);
    mj_tuned_free(&t);
    return rc;
}

void mj_tuned_free(MjTuned *t)
{
    free(t->candidates);
    t->candidates = NULL;
    t->n = 0;
}

int mj_tune_keep(MjOps *ops, const MjTuned *t, MjError *err)
{
    MjRequest tuned = t->asked;
    memcpy(tuned.values, t->candidates[t->winner].values, sizeof tuned.values);
    char *notes = mj_strdup_printf("median_us: %.2f\nchoice_us: %.2f\ncandidates: %d\n", 1e6 * t->candidates[t->winner].time.median_s,
                                   1e6 * t->candidates[t->choice].time.median_s, t->n);
    const int rc = mj_jit_tuned_keep(ops->jit, &t->asked, &tuned, notes, err);
    free(notes);
    return rc;
}

/* ---- from a plan ------------------------------------------------------------------------------------------------------ */

/* A template is named by its op first: "gemm_tn_sm90"; the longest op name that fits. */
static bool op_of(const MjTemplate *t, MjOpId *op)
{
    size_t best = 0;
    for (int i = 0; i < MJ_OP_COUNT; i++) {
        const char *name = mj_op_rows[i]->name;
        const size_t n = strlen(name);
        if (n <= best || strncmp(t->name, name, n) != 0 || (t->name[n] != '\0' && t->name[n] != '_')) continue;
        best = n;
        *op = (MjOpId)i;
    }
    return best > 0;
}

bool mj_tune_shape_of(MjOps *ops, const MjRequest *asked, MjOpId *op, MjOpShape *shape)
{
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    const MjTemplate *t = asked->tmpl;
    MjStr text = MJ_STR_INIT;
    bool found = false;
    if (!has_tuning(t) || !op_of(t, op)) return false;
    for (int i = 0; i < t->n_params; i++) {
        char name[sizeof t->params[0].name] = "";
        if (t->params[i].kind == MJ_PARAM_TUNING) continue;
        for (size_t c = 0; t->params[i].name[c] != '\0'; c++) name[c] = (char)tolower((unsigned char)t->params[i].name[c]);
        mj_str_printf(&text, "%s%s=%d", text.len > 0 ? "," : "", name, asked->values[i]);
    }
    for (int layout = 0; layout < 3 && !found; layout++) { /* a template may stand for one layout, without naming it */
        MjMatrixKernel k;
        MjOpShape s = {.layout = layout};
        if (mj_shape_parse(mj_str_text(&text), &s, NULL) != 0) break;
        if (s.live == 0) s.live = s.tokens;
        found = mj_matrix_kernel(ops, *op, &s, args, &k, NULL) == 0 && k.asked.tmpl == t && same_values(t, k.asked.values, asked->values);
        if (found) *shape = s;
    }
    mj_str_free(&text);
    return found;
}
