/* Measured choices of tuning values: entries of the cache beside the images, written by `mojit tune`, read at a shape's
 * first launch. Owns their keys and their text; knows nothing of how they are measured.
 *
 * A plan made without the device (a login node) or before tuning holds the other choice's images. So a measured choice is
 * taken when its image is ready or when neither is; where only the plan's own image is in the cache, that one runs: tuning
 * never makes a warmed run compile. No choice changes a result's bits. */
#include <stdlib.h>
#include <string.h>

#include "jit/jit_internal.h"
#include "runtime/base/mem.h"

static bool has_open_tuning(const MjRequest *asked)
{
    bool any = false;

    for (int i = 0; i < asked->tmpl->n_params; i++) {
        if (asked->tmpl->params[i].kind != MJ_PARAM_TUNING) continue;
        if (asked->values[i] != MJ_UNBOUND) return false; /* asked for by value: that is what is wanted */
        any = true;
    }
    return any;
}

static char *label_of(const MjJit *jit, const MjRequest *asked)
{
    const MjTemplate *t = asked->tmpl;
    const char *device = jit->opt.device->ops->info(jit->opt.device)->name;
    MjStr text = MJ_STR_INIT, shape = MJ_STR_INIT;

    for (int i = 0; i < t->n_params; i++)
        if (t->params[i].kind != MJ_PARAM_TUNING) mj_str_printf(&shape, " %s=%d", t->params[i].name, asked->values[i]);
    mj_str_printf(&text, "what: tuning\ntemplate: %s\ntarget: %s\ndevice: %s\nspec: tuned %s on %s%s\n", t->name, jit->target,
                  device, t->name, device, mj_str_text(&shape));
    mj_template_source_labels(t, &jit->sources, &text);
    mj_str_free(&shape);
    return mj_str_take(&text);
}

/* "TILE_M=128", one a line; every tuning parameter once. Then notes. */
static bool read_values(char *text, MjRequest *tuned, char **notes)
{
    const MjTemplate *t = tuned->tmpl;
    int wanted = 0, got = 0;
    char *at = text, *line;

    for (int i = 0; i < t->n_params; i++) wanted += t->params[i].kind == MJ_PARAM_TUNING;
    while (got < wanted && (line = strsep(&at, "\n")) != NULL) {
        char *eq = strchr(line, '=');
        if (!eq) return false;
        *eq = 0;
        const int i = mj_template_param(t, line);
        if (i < 0 || t->params[i].kind != MJ_PARAM_TUNING || tuned->values[i] != MJ_UNBOUND) return false;
        tuned->values[i] = (int32_t)strtol(eq + 1, NULL, 10);
        got++;
    }
    if (got < wanted || mj_template_check(t, tuned->values, NULL) != 0) return false;
    if (notes) *notes = mj_xstrdup(at ? at : "");
    return true;
}

bool mj_jit_tuned_find(MjJit *jit, const MjRequest *asked, MjRequest *tuned, char **notes)
{
    MjCacheEntry entry = {.memory = NULL};
    MjRequest found = *asked;

    if (!jit->opt.device || !jit->opt.cache || !has_open_tuning(asked)) return false;
    char *label = label_of(jit, asked);
    bool ok = mj_cache_get(jit->opt.cache, mj_cache_key(label), &entry) == MJ_CACHE_HIT;
    free(label);
    if (!ok) return false;
    char *text = mj_xstrndup((const char *)entry.image, entry.image_bytes);
    ok = read_values(text, &found, notes);
    free(text);
    mj_cache_entry_free(&entry);
    if (ok) *tuned = found;
    return ok;
}

int mj_jit_tuned_keep(MjJit *jit, const MjRequest *asked, const MjRequest *tuned, const char *notes, MjError *err)
{
    const MjTemplate *t = asked->tmpl;
    MjStr text = MJ_STR_INIT;

    if (!jit->opt.device || !jit->opt.cache || !has_open_tuning(asked))
        return mj_error(err, MJ_ERR_USAGE, "%s: a measured choice needs a device, a cache and a template with tuning parameters", t->name);
    for (int i = 0; i < t->n_params; i++)
        if (t->params[i].kind == MJ_PARAM_TUNING) mj_str_printf(&text, "%s=%d\n", t->params[i].name, tuned->values[i]);
    mj_str_puts(&text, notes ? notes : "");
    char *label = label_of(jit, asked);
    const int rc = mj_cache_put(jit->opt.cache, label, mj_str_text(&text), text.len, NULL, 0, err);
    free(label);
    mj_str_free(&text);
    return rc;
}

void mj_jit_tuned_apply(MjJit *jit, const MjRequest *asked, MjRequest *chosen)
{
    MjRequest tuned;
    int32_t mine[MJ_MAX_PARAMS] = {0}, theirs[MJ_MAX_PARAMS] = {0};
    const MjMode *mode = jit->opt.mode;

    if (!mj_jit_tuned_find(jit, asked, &tuned, NULL)) return;
    if (mode->miss != MJ_MISS_GENERIC) {
        mj_jit_bind(jit, &tuned, mine);
        mj_jit_bind(jit, chosen, theirs);
        if (!mj_jit_cached(jit, tuned.tmpl, mine) && mj_jit_cached(jit, tuned.tmpl, theirs)) return;
    }
    *chosen = tuned;
}

void mj_jit_measured(MjJit *jit, const MjRequest *asked, MjRequest *chosen)
{
    pthread_mutex_lock(&jit->mutex);
    mj_jit_tuned_apply(jit, asked, chosen);
    pthread_mutex_unlock(&jit->mutex);
}
