#include "cache/explain.h"

#include <stdlib.h>
#include <string.h>

#include "cache/cache_internal.h"
#include "runtime/base/mem.h"

typedef struct Search {
    const char *wanted, *tmpl;
    MjCacheKey key;
    int fewest; /* differing fields of the nearest so far; -1 = none yet */
    MjExplanation found;
} Search;

/* Compares field by field, in the order of the wanted text. Returns how many differ. */
static int compare(const char *wanted, const char *there, MjStr *difference, MjStr *same)
{
    int n = 0;

    for (const char *line = wanted; *line;) {
        const char *end = strchrnul(line, '\n'), *colon = memchr(line, ':', (size_t)(end - line));
        if (colon) {
            char *name = mj_xstrndup(line, (size_t)(colon - line));
            char *want = mj_cache_label_field(wanted, name), *have = mj_cache_label_field(there, name);
            if (want && have && strcmp(want, have) == 0) {
                mj_str_printf(same, "%s%s", same->len ? ", " : "", name);
            } else {
                n++;
                mj_str_printf(difference, "%s: %s -> %s\n", name, have ? have : "(none)", want ? want : "(none)");
            }
            free(name);
            free(want);
            free(have);
        }
        line = *end ? end + 1 : end;
    }
    return n;
}

static int visit(void *user, const char *path, const MjCacheEntry *entry, const char *problem)
{
    Search *s = user;

    if (problem) return 0;
    char *tmpl = mj_cache_label_field(entry->label, "template");
    bool same_template = tmpl && strcmp(tmpl, s->tmpl) == 0;
    free(tmpl);
    if (!same_template) return 0;
    MjStr difference = MJ_STR_INIT, same = MJ_STR_INIT;
    int n = compare(s->wanted, entry->label, &difference, &same);
    if (s->fewest >= 0 && n >= s->fewest) {
        mj_str_free(&difference);
        mj_str_free(&same);
        return 0;
    }
    mj_explanation_free(&s->found);
    s->fewest = n;
    s->found = (MjExplanation){.hit = n == 0 && memcmp(entry->key.bytes, s->key.bytes, 16) == 0, .path = mj_xstrdup(path),
                               .compile_s = entry->compile_s, .difference = difference, .same = same};
    return s->found.hit;
}

int mj_cache_explain(MjCache *cache, const char *label_text, MjExplanation *out, MjError *err)
{
    char *tmpl = mj_cache_label_field(label_text, "template");
    Search s = {.wanted = label_text, .tmpl = tmpl ? tmpl : "", .key = mj_cache_key(label_text), .fewest = -1};
    int rc = 0;

    for (size_t i = 0; i < cache->n_roots && rc == 0 && !s.found.hit; i++)
        if (!cache->roots[i].problem) rc = mj_cache_each(cache, i, visit, &s, err);
    free(tmpl);
    if (rc != 0) {
        mj_explanation_free(&s.found);
        return rc;
    }
    *out = s.found;
    return 0;
}

void mj_explanation_free(MjExplanation *e)
{
    free(e->path);
    mj_str_free(&e->difference);
    mj_str_free(&e->same);
    *e = (MjExplanation){.hit = false};
}
