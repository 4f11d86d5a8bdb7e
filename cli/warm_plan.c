#include "cli/warm_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/estimate.h"
#include "cli/term.h"
#include "runtime/base/mem.h"
#include "runtime/device.h"

/* Where the cache remembers no compile of a template for the target: seconds on one core of a recent machine, by kind of
 * template (the start of its name) and compiler. docs/cache.md states them. */
static const struct {
    const char *start;
    double cc, nvrtc;
} defaults[] = {{"gemm", 0.30, 0.20}, {"attention", 0.30, 0.40}, {"", 0.10, 0.05}};

static double default_seconds(const char *tmpl, const char *target)
{
    size_t i = 0;

    while (strncmp(tmpl, defaults[i].start, strlen(defaults[i].start)) != 0) i++;
    return mj_target_family(target) == MJ_FAMILY_CPU ? defaults[i].cc : defaults[i].nvrtc;
}

MjTable *mj_warm_plan_open(void)
{
    static const MjColumn columns[] = {{"run", "run", false},           {"mode", "mode", false},   {"state", "state", false},
                                       {"estimate_s", "estimate s", true}, {"basis", "from", false}, {"spec", "spec", false},
                                       {NULL, NULL, false}};

    return mj_table_open(columns);
}

static bool is_ready(MjJit *jit, MjCache *cache, int i)
{
    char *label = NULL;
    MjError err = MJ_ERROR_INIT;
    MjCacheEntry entry = {.memory = NULL};

    if (cache == NULL || mj_jit_plan_key_text(jit, i, &label, &err) != 0) { /* no compiler, so no key: nothing is known */
        mj_error_clear(&err);
        return false;
    }
    bool ready = mj_cache_get(cache, mj_cache_key(label), &entry) == MJ_CACHE_HIT;
    mj_cache_entry_free(&entry);
    free(label);
    return ready;
}

int mj_warm_plan_ready(MjJit *jit, MjCache *cache)
{
    int n = 0;

    for (int i = 0; i < mj_jit_plan_size(jit); i++) n += is_ready(jit, cache, i);
    return n;
}

/* Distinct values of one parameter name over the plan's specs, ascending; MJ_UNBOUND (the smallest) stands for an argument. */
typedef struct Sizes {
    const char *name;
    int32_t *value;
    int n;
} Sizes;

static void add_size(Sizes *s, int32_t value)
{
    int at = 0;

    while (at < s->n && s->value[at] < value) at++;
    if (at < s->n && s->value[at] == value) return;
    s->value = mj_xrealloc(s->value, (size_t)(s->n + 1) * sizeof *s->value);
    memmove(s->value + at + 1, s->value + at, (size_t)(s->n - at) * sizeof *s->value);
    s->value[at] = value;
    s->n++;
}

static void say_sizes(const char *run, const Sizes *s)
{
    MjStr text = MJ_STR_INIT;
    const bool argument = s->n > 0 && s->value[0] == MJ_UNBOUND;
    const int constants = s->n - argument;

    mj_str_printf(&text, "%s: %s is %d constant%s:", run, s->name, constants, constants == 1 ? "" : "s");
    for (int i = argument; i < s->n; i++) {
        if (i - argument == 8 && s->n - i > 2) { /* the middle of a long list says little */
            mj_str_printf(&text, " ... %d", s->value[s->n - 1]);
            break;
        }
        mj_str_printf(&text, " %d", s->value[i]);
    }
    if (argument) mj_str_puts(&text, ", and an argument past jit.budget");
    mj_term_say("%s", mj_str_text(&text));
    mj_str_free(&text);
}

/* The buckets that the data and the routing reach, one line a varying dimension. */
static void say_varying(const char *run, const MjJit *jit)
{
    Sizes *all = NULL;
    int n = 0;

    for (int i = 0; i < mj_jit_plan_size(jit); i++) {
        const MjLaunchRecord *item = mj_jit_plan_record(jit, i);
        for (int p = 0; p < item->tmpl->n_params; p++) {
            int k = 0;
            if (item->tmpl->params[p].kind != MJ_PARAM_VARYING) continue;
            while (k < n && strcmp(all[k].name, item->tmpl->params[p].name) != 0) k++;
            if (k == n) {
                all = mj_xrealloc(all, (size_t)(n + 1) * sizeof *all);
                all[n++] = (Sizes){.name = item->tmpl->params[p].name};
            }
            add_size(&all[k], item->bound[p]);
        }
    }
    for (int k = 0; k < n; k++) {
        say_sizes(run, &all[k]);
        free(all[k].value);
    }
    free(all);
}

void mj_warm_plan_add(MjTable *table, const char *run, const MjMode *mode, MjJit *jit, MjCache *cache, MjWarmEstimate *sum)
{
    MjCompileTimes *times = cache != NULL ? mj_compile_times_read(cache) : NULL;
    const bool compiles = mode->miss != MJ_MISS_GENERIC;

    for (int i = 0; i < mj_jit_plan_size(jit); i++) {
        char spec[1024], basis[64];
        const char *tmpl = mj_jit_plan_record(jit, i)->tmpl->name;
        const bool ready = compiles && is_ready(jit, cache, i);
        double seconds = default_seconds(tmpl, mj_jit_target(jit));
        int n = times != NULL ? mj_compile_times_find(times, tmpl, mj_jit_target(jit), &seconds) : 0;
        if (n > 0) snprintf(basis, sizeof basis, "mean of %d", n);
        else snprintf(basis, sizeof basis, "default");
        mj_jit_plan_text(jit, i, spec, sizeof spec);
        mj_table_text(table, run);
        mj_table_text(table, mode->name);
        mj_table_text(table, !compiles ? "embedded" : ready ? "ready" : "to compile");
        mj_table_real(table, !compiles || ready ? 0 : seconds, 2);
        mj_table_text(table, !compiles || ready ? "" : basis);
        mj_table_text(table, spec);
        sum->kernels++;
        sum->ready += ready || !compiles;
        if (compiles && !ready) sum->seconds += seconds;
    }
    if (mode->bind_varying) say_varying(run, jit);
    mj_compile_times_free(times);
}
