/* The JIT's front: opening, templates, binding, the path of one request, counters. */
#include "jit/jit.h"

#include <stdlib.h>
#include <string.h>

#include "jit/jit_internal.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"

enum { DEFAULT_BUDGET = 32, DEFAULT_TIMEOUT_S = 120 };

void mj_jit_say(MjJit *jit, const char *fmt, ...)
{
    MjStr line = MJ_STR_INIT;
    va_list ap;

    if (!jit->opt.log) return;
    va_start(ap, fmt);
    mj_str_vprintf(&line, fmt, ap);
    va_end(ap);
    jit->opt.log(jit->opt.log_user, mj_str_text(&line));
    mj_str_free(&line);
}

static int parse_templates(MjJit *jit, size_t from, MjError *err)
{
    for (size_t i = from; i < jit->sources.n; i++) {
        MjTemplate *t = NULL;
        int slot = 0;
        if (!mj_sources_is_template(&jit->sources.files[i])) continue;
        int rc = mj_template_parse(jit->sources.files[i].name, jit->sources.files[i].text, jit->sources.origin[i], &t, err);
        if (rc != 0) return rc;
        while (slot < jit->n_templates && strcmp(jit->templates[slot]->name, t->name) != 0) slot++;
        if (slot == jit->n_templates)
            jit->templates = mj_xrealloc(jit->templates, (size_t)(++jit->n_templates) * sizeof *jit->templates);
        else
            mj_template_free(jit->templates[slot]);
        jit->templates[slot] = t;
    }
    return 0;
}

int mj_jit_open(const MjJitOptions *opt, MjJit **out, MjError *err)
{
    MjJit *jit = mj_xcalloc(1, sizeof *jit);
    int rc = 0;

    jit->opt = *opt;
    if (jit->opt.budget <= 0) jit->opt.budget = DEFAULT_BUDGET;
    if (jit->opt.timeout_s <= 0) jit->opt.timeout_s = DEFAULT_TIMEOUT_S;
    const char *target = opt->target ? opt->target : opt->device ? opt->device->ops->info(opt->device)->target : NULL;
    pthread_mutex_init(&jit->mutex, NULL);
    pthread_mutex_init(&jit->generic.mutex, NULL);
    pthread_cond_init(&jit->changed, NULL);
    mj_table_init(&jit->table);
    if (!target || strlen(target) >= sizeof jit->target) {
        rc = mj_error(err, MJ_ERR_USAGE, "the JIT needs a device or a target");
        goto out;
    }
    memcpy(jit->target, target, strlen(target) + 1);
    mj_sources_add_builtin(&jit->sources, mj_builtin_sources);
    MJ_TRY(parse_templates(jit, 0, err));
    const char *folder = getenv("MOJIT_KERNELS");
    if (folder && *folder) MJ_TRY(mj_jit_add_folder(jit, folder, err));
    *out = jit;
    return 0;
out:
    mj_jit_close(jit);
    return rc;
}

static void free_families(Family *f)
{
    while (f) {
        Family *next = f->next;
        for (int i = 0; i < MJ_MAX_PARAMS; i++) free(f->seen[i]);
        free(f);
        f = next;
    }
}

void mj_jit_close(MjJit *jit)
{
    if (!jit) return;
    mj_jit_stop_workers(jit);
    mj_jit_generic_close(jit);
    for (Image *i = jit->images; i;) {
        Image *next = i->next;
        if (i->module) jit->opt.device->ops->module_unload(jit->opt.device, i->module);
        mj_error_clear(&i->error);
        free(i);
        i = next;
    }
    free_families(jit->families);
    for (int i = 0; i < jit->n_plan; i++) free(jit->plan[i]);
    for (int i = 0; i < jit->n_records; i++) free(jit->records[i]);
    for (int i = 0; i < jit->n_templates; i++) mj_template_free(jit->templates[i]);
    free(jit->plan);
    free(jit->records);
    free(jit->templates);
    mj_table_free(&jit->table);
    mj_sources_free(&jit->sources);
    if (jit->compiler) jit->compiler->close(jit->compiler);
    mj_jit_forget_labels(jit);
    mj_error_clear(&jit->no_compiler);
    free(jit->identity);
    free(jit->flags);
    pthread_cond_destroy(&jit->changed);
    pthread_mutex_destroy(&jit->generic.mutex);
    pthread_mutex_destroy(&jit->mutex);
    free(jit);
}

int mj_jit_add_folder(MjJit *jit, const char *folder, MjError *err)
{
    size_t before = jit->sources.n;
    int rc = mj_sources_add_folder(&jit->sources, folder, err);

    if (rc != 0) return rc;
    mj_jit_forget_labels(jit); /* a header may have a new meaning */
    return parse_templates(jit, before, err);
}

int mj_jit_template(MjJit *jit, const char *name, const MjTemplate **out, MjError *err)
{
    for (int i = 0; i < jit->n_templates; i++) {
        if (strcmp(jit->templates[i]->name, name) != 0) continue;
        *out = jit->templates[i];
        return 0;
    }
    const char **names = mj_xcalloc((size_t)jit->n_templates + 1, sizeof *names);
    for (int i = 0; i < jit->n_templates; i++) names[i] = jit->templates[i]->name;
    const char *near = mj_nearest(name, names, (size_t)jit->n_templates);
    int rc = mj_error(err, MJ_ERR_USAGE, "there is no kernel template \"%s\"%s%s%s; `mojit kernels` lists them", name,
                      near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    free(names);
    return rc;
}

int mj_jit_template_count(const MjJit *jit)
{
    return jit->n_templates;
}

const MjTemplate *mj_jit_template_at(const MjJit *jit, int i)
{
    return jit->templates[i];
}

/* ---- binding ---- */

void mj_jit_full_values(const MjRequest *req, int32_t *full)
{
    for (int i = 0; i < req->tmpl->n_params; i++) {
        const MjParam *p = &req->tmpl->params[i];
        full[i] = p->kind == MJ_PARAM_TUNING && req->values[i] == MJ_UNBOUND ? p->default_value : req->values[i];
    }
}

static Family *family_of(MjJit *jit, const MjTemplate *t, const int32_t *full)
{
    int32_t fixed[MJ_MAX_PARAMS];
    size_t bytes = (size_t)t->n_params * sizeof *fixed;

    for (int i = 0; i < t->n_params; i++) fixed[i] = t->params[i].kind == MJ_PARAM_VARYING ? MJ_UNBOUND : full[i];
    for (Family *f = jit->families; f; f = f->next)
        if (f->tmpl == t && memcmp(f->fixed, fixed, bytes) == 0) return f;
    Family *f = mj_xcalloc(1, sizeof *f);
    f->tmpl = t;
    memcpy(f->fixed, fixed, bytes);
    f->next = jit->families;
    jit->families = f;
    return f;
}

/* Whether value v of parameter i may still be a constant; past the budget the parameter becomes an argument for good. */
static bool within_budget(MjJit *jit, Family *f, int i, int32_t v)
{
    for (int k = 0; k < f->n_seen[i]; k++)
        if (f->seen[i][k] == v) return true; /* compiled already: it stays what it was */
    if (f->unbound[i]) return false;
    if (f->n_seen[i] >= jit->opt.budget) {
        f->unbound[i] = true;
        jit->counters.budget_unbound++;
        mj_jit_say(jit, "%s: %s took %d different values, as many as jit.budget allows; from %d on it is an argument instead of a "
                   "constant (larger buckets, jit.bucket, would help)", f->tmpl->name, f->tmpl->params[i].name, f->n_seen[i], v);
        return false;
    }
    f->seen[i] = mj_xrealloc(f->seen[i], (size_t)(f->n_seen[i] + 1) * sizeof *f->seen[i]);
    f->seen[i][f->n_seen[i]++] = v;
    return true;
}

void mj_jit_bind(MjJit *jit, const MjRequest *req, int32_t *bound)
{
    const MjTemplate *t = req->tmpl;
    const MjMode *mode = jit->opt.mode;
    Family *family = NULL;

    mj_jit_full_values(req, bound);
    if (mode->bind_varying) family = family_of(jit, t, bound);
    for (int i = 0; i < t->n_params; i++) {
        MjParamKind kind = t->params[i].kind;
        if (kind == MJ_PARAM_FIXED && !mode->bind_fixed) bound[i] = MJ_UNBOUND;
        if (kind == MJ_PARAM_VARYING && (!family || !within_budget(jit, family, i, bound[i]))) bound[i] = MJ_UNBOUND;
    }
}

/* ---- one request ---- */

void mj_jit_keep(MjJit *jit, MjLaunchRecord *record)
{
    jit->records = mj_xrealloc(jit->records, (size_t)(jit->n_records + 1) * sizeof *jit->records);
    jit->records[jit->n_records++] = record;
}

MjLaunchRecord *mj_jit_new_record(const MjRequest *req, const int32_t *bound, MjKernelFn *fn, bool generic)
{
    MjLaunchRecord *r = mj_xcalloc(1, sizeof *r);

    r->fn = fn;
    r->tmpl = req->tmpl;
    r->generic = generic;
    memcpy(r->bound, bound, (size_t)req->tmpl->n_params * sizeof *bound);
    mj_jit_full_values(req, r->tuning_of);
    return r;
}

int mj_jit_record_of(MjJit *jit, const MjRequest *req, const Image *image, MjLaunchRecord **out, MjError *err)
{
    MjKernelFn *fn = NULL;
    int rc = jit->opt.device->ops->module_function(image->module, req->tmpl->kernels[req->kernel], &fn, err);

    if (rc != 0) return mj_error_context(err, rc, "template %s", req->tmpl->name);
    *out = mj_jit_new_record(req, image->bound, fn, false);
    (*out)->waits = mj_target_waits(jit->target);
    return 0;
}

/* Adds a request to the plan, once for each spec. Under the mutex. */
static const MjLaunchRecord *record_request(MjJit *jit, const MjRequest *asked, const MjRequest *req)
{
    int32_t bound[MJ_MAX_PARAMS];
    size_t bytes = (size_t)req->tmpl->n_params * sizeof *bound;

    mj_jit_bind(jit, req, bound);
    for (int i = 0; i < jit->n_plan; i++)
        if (jit->plan[i]->tmpl == req->tmpl && memcmp(jit->plan[i]->bound, bound, bytes) == 0) return &jit->plan[i]->record;
    PlanItem *item = mj_xcalloc(1, sizeof *item);
    item->tmpl = req->tmpl;
    item->asked = *asked;
    memcpy(item->bound, bound, bytes);
    item->record.tmpl = req->tmpl;
    memcpy(item->record.bound, bound, bytes);
    mj_jit_full_values(req, item->record.tuning_of);
    jit->plan = mj_xrealloc(jit->plan, (size_t)(jit->n_plan + 1) * sizeof *jit->plan);
    jit->plan[jit->n_plan++] = item;
    return &item->record;
}

/* A compile failed and jit.on_error = generic. */
static int fall_back(MjJit *jit, const MjRequest *req, Image *image, MjLaunchRecord **record, MjError *err)
{
    MjError why = MJ_ERROR_INIT;

    if (mj_jit_generic(jit, req, record, &why) != 0) {
        mj_error_clear(&why);
        return err ? err->code : MJ_ERR_COMPILE; /* the compiler's error is the one to see */
    }
    pthread_mutex_lock(&jit->mutex);
    bool warn = !image->warned;
    image->warned = true;
    pthread_mutex_unlock(&jit->mutex);
    if (warn) mj_jit_say(jit, "%s; going on with the generic kernel (jit.on_error = generic)", image->error.message);
    mj_error_clear(err);
    return 0;
}

/* A request that the memory table does not hold: `asked`, served as `req`. */
static int first_request(MjJit *jit, const MjRequest *asked, const MjRequest *req, const MjLaunchRecord **out, MjError *err)
{
    const MjMode *mode = jit->opt.mode;
    int32_t bound[MJ_MAX_PARAMS];
    MjLaunchRecord *record = NULL;
    Image *image = NULL;
    uint64_t start = mj_clock_ns(), compiles;
    int rc = 0;

    pthread_mutex_lock(&jit->mutex);
    if (mode->miss != MJ_MISS_GENERIC) {
        mj_jit_bind(jit, req, bound);
        image = mj_jit_image(jit, req->tmpl, bound);
    }
    compiles = jit->counters.compiles;
    bool ready = image && image->state == IMAGE_READY;
    bool use_generic = mode->miss == MJ_MISS_GENERIC || (mode->miss == MJ_MISS_DEFER && image->state != IMAGE_READY);
    pthread_mutex_unlock(&jit->mutex);

    if (use_generic) {
        rc = mj_jit_generic(jit, req, &record, err);
        if (rc != 0 && image) { /* a template of the user's own, or no GPU kernels embedded: nothing generic to start on */
            use_generic = false;
            mj_jit_say(jit, "%s waits for its compile: %s", req->tmpl->name, err ? err->message : "no generic build");
            mj_error_clear(err);
        }
    }
    if (!use_generic) {
        rc = mj_jit_ensure(jit, image, err);
        if (rc == 0) rc = mj_jit_record_of(jit, req, image, &record, err);
        if (rc == MJ_ERR_COMPILE && jit->opt.on_error == MJ_ON_ERROR_GENERIC) rc = fall_back(jit, req, image, &record, err);
    }
    if (rc != 0) return rc;

    pthread_mutex_lock(&jit->mutex);
    TableSlot *slot = mj_table_find(&jit->table, asked); /* another thread may have been faster */
    mj_jit_keep(jit, record);
    if (!slot) {
        slot = mj_table_insert(&jit->table, asked, record);
        if (use_generic && mode->miss == MJ_MISS_DEFER) mj_jit_defer(jit, slot, req, image);
    }
    if (!use_generic && !ready) {
        jit->counters.stall_ms += (double)(mj_clock_ns() - start) * 1e-6;
        jit->counters.stalls += jit->counters.compiles > compiles;
    }
    pthread_mutex_unlock(&jit->mutex);
    *out = mj_table_record(atomic_load(&slot->record));
    return 0;
}

/* While recording: what was asked for before is in the plan already. */
static const MjLaunchRecord *recorded(MjJit *jit, const MjRequest *asked)
{
    const MjLaunchRecord *found = NULL;

    pthread_mutex_lock(&jit->mutex);
    for (int i = 0; i < jit->n_plan && !found; i++) {
        const MjRequest *r = &jit->plan[i]->asked;
        if (r->tmpl == asked->tmpl && memcmp(r->values, asked->values, (size_t)r->tmpl->n_params * sizeof r->values[0]) == 0)
            found = &jit->plan[i]->record;
    }
    pthread_mutex_unlock(&jit->mutex);
    return found;
}

/* A number for each thread, the same for every JIT; threads past HIT_SHARDS share. */
static inline unsigned shard(void)
{
    static atomic_uint threads;
    static _Thread_local unsigned mine;

    if (__builtin_expect(mine == 0, 0)) mine = atomic_fetch_add(&threads, 1) % HIT_SHARDS + 1;
    return mine - 1;
}

const MjLaunchRecord *mj_jit_repeat(MjJit *jit, const MjRequest *asked)
{
    TableSlot *slot = mj_table_find(&jit->table, asked);

    if (__builtin_expect(atomic_load_explicit(&jit->recording, memory_order_relaxed), 0)) return recorded(jit, asked);
    if (__builtin_expect(slot == NULL, 0)) return NULL;
    const uintptr_t record = atomic_load_explicit(&slot->record, memory_order_acquire);
    __builtin_prefetch(mj_table_record(record)); /* what the launch reads next */
    atomic_fetch_add_explicit(&jit->fast.hits[shard()].repeats[record & 1], 1, memory_order_relaxed);
    return mj_table_record(record);
}

int mj_jit_get_chosen(MjJit *jit, const MjRequest *asked, const MjRequest *chosen, const MjLaunchRecord **out, MjError *err)
{
    MjRequest req = *chosen;
    int rc = mj_template_check(req.tmpl, req.values, err);

    if (rc != 0) return rc;
    pthread_mutex_lock(&jit->mutex);
    mj_jit_tuned_apply(jit, asked, &req);
    const bool recording = mj_jit_recording(jit);
    if (recording) *out = record_request(jit, asked, &req);
    pthread_mutex_unlock(&jit->mutex);
    if (recording) return 0;
    rc = first_request(jit, asked, &req, out, err);
    if (rc == 0) {
        atomic_fetch_add_explicit(&jit->fast.firsts, 1, memory_order_relaxed);
        if ((*out)->generic) atomic_fetch_add_explicit(&jit->fast.generic_firsts, 1, memory_order_relaxed);
    }
    return rc;
}

int mj_jit_get(MjJit *jit, const MjRequest *req, const MjLaunchRecord **out, MjError *err)
{
    const MjLaunchRecord *r = mj_jit_repeat(jit, req);

    if (!r) return mj_jit_get_chosen(jit, req, req, out, err);
    *out = r;
    return 0;
}

/* ---- steps and counters ---- */

static MjJitCounters totals(MjJit *jit)
{
    MjJitCounters c = jit->counters;
    uint64_t repeats = 0, generic = 0;

    for (int i = 0; i < HIT_SHARDS; i++) {
        repeats += atomic_load(&jit->fast.hits[i].repeats[0]);
        generic += atomic_load(&jit->fast.hits[i].repeats[1]);
    }
    c.memory_hits = repeats + generic;
    c.requests = c.memory_hits + atomic_load(&jit->fast.firsts);
    c.generic_launches = generic + atomic_load(&jit->fast.generic_firsts);
    return c;
}

void mj_jit_counters(const MjJit *jit, MjJitCounters *total)
{
    MjJit *j = (MjJit *)(uintptr_t)jit;

    pthread_mutex_lock(&j->mutex);
    *total = totals(j);
    pthread_mutex_unlock(&j->mutex);
}

void mj_jit_step_counters(const MjJit *jit, MjJitCounters *last_step)
{
    MjJit *j = (MjJit *)(uintptr_t)jit;

    pthread_mutex_lock(&j->mutex);
    *last_step = j->last_step;
    pthread_mutex_unlock(&j->mutex);
}

#define SINCE(field) .field = now.field - jit->step_start.field

void mj_jit_step(MjJit *jit)
{
    pthread_mutex_lock(&jit->mutex);
    bool waiting = jit->deferred != NULL;
    jit->counters.boundaries++;
    jit->counters.generic_steps += waiting;
    mj_jit_swap_ready(jit);
    if (jit->deferred || jit->generic_for_good) jit->counters.specialised_at = 0;
    else if (waiting) jit->counters.specialised_at = jit->counters.boundaries;
    MjJitCounters now = totals(jit);
    jit->last_step = (MjJitCounters){SINCE(requests), SINCE(memory_hits), SINCE(disk_hits), SINCE(misses), SINCE(compiles),
                                     SINCE(compile_errors), SINCE(corrupt_entries), SINCE(generic_launches), SINCE(stalls),
                                     SINCE(budget_unbound), SINCE(compiler_loads), SINCE(background_swaps), SINCE(compile_s),
                                     SINCE(stall_ms), SINCE(load_ms), SINCE(after_ahead), SINCE(boundaries), SINCE(deferred),
                                     SINCE(generic_steps), .specialised_at = now.specialised_at};
    jit->step_start = now;
    pthread_mutex_unlock(&jit->mutex);
}
