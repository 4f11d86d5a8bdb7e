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

/* The value of NAME in "template target=... NAME=value ...": a malloc'd copy, NULL when absent. */
static char *spec_value(const char *spec, const char *name, size_t n)
{
    for (const char *at = spec; (at = strchr(at, ' ')) != NULL;) {
        at++;
        if (strncmp(at, name, n) == 0 && at[n] == '=') return mj_xstrndup(at + n + 1, strcspn(at + n + 1, " "));
    }
    return NULL;
}

/* Compares two specs parameter by parameter; what only one of them has differs too. The target has a field of its own.
 * Returns how many differ. */
static int compare_specs(const char *wanted, const char *there, MjStr *difference)
{
    int n = 0, seen = 0;

    for (const char *at = wanted; (at = strchr(at, ' ')) != NULL;) {
        at++;
        size_t name = strcspn(at, "= ");
        if (strncmp(at, "target=", 7) == 0) {
            char *have = spec_value(there, "target", 6);
            seen += have && (strncmp(at + 7, have, strlen(have)) != 0 || strcspn(at + 7, " ") != strlen(have));
            free(have);
            continue;
        }
        char *want = spec_value(wanted, at, name), *have = spec_value(there, at, name);
        if (want && (!have || strcmp(want, have) != 0)) {
            n++;
            mj_str_printf(difference, "%.*s: %s -> %s\n", (int)name, at, have ? have : "(none)", want);
        }
        free(want);
        free(have);
    }
    if (n == 0 && seen == 0) { /* parameters that are gone, or their order */
        n = 1;
        mj_str_printf(difference, "spec: %s -> %s\n", there, wanted);
    }
    return n;
}

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
            } else if (strcmp(name, "spec") == 0 && want && have) {
                n += compare_specs(want, have, difference);
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
    char *what = mj_cache_label_field(entry->label, "what"); /* set on what is no image, such as a measured choice of tiles */
    bool same_template = tmpl && !what && strcmp(tmpl, s->tmpl) == 0;
    free(what);
    free(tmpl);
    if (!same_template) return 0;
    MjStr difference = MJ_STR_INIT, same = MJ_STR_INIT;
    int n = compare(s->wanted, entry->label, &difference, &same);
    if (s->fewest >= 0 && n >= s->fewest) {
        mj_str_free(&difference);
        mj_str_free(&same);
        return 0;
    }
    char *bad = s->found.bad;
    s->found.bad = NULL;
    mj_explanation_free(&s->found);
    s->fewest = n;
    s->found = (MjExplanation){.path = mj_xstrdup(path), .bad = bad, .compile_s = entry->compile_s, .difference = difference, .same = same};
    return 0;
}

/* The key's own place in every root, before any other is looked at. */
static bool look_at_place(MjCache *cache, Search *s)
{
    char hex[33];

    mj_cache_key_hex(s->key, hex);
    for (size_t i = 0; i < cache->n_roots && !s->found.hit; i++) {
        const char *problem = NULL;
        MjCacheEntry entry = {.memory = NULL};
        if (cache->roots[i].problem) continue;
        char *folder = mj_cache_folder_path(&cache->roots[i], s->key), *path = mj_strdup_printf("%s/%s.mj", folder, hex);
        int found = mj_cache_read_file(path, &s->key, &entry, &problem);
        if (found > 0) {
            MjStr none = MJ_STR_INIT;
            (void)compare(s->wanted, entry.label, &none, &s->found.same);
            mj_str_free(&none);
            s->found.hit = true;
            s->found.path = path;
            s->found.compile_s = entry.compile_s;
            path = NULL;
        } else if (found < 0 && !s->found.bad) {
            s->found.bad = mj_strdup_printf("%s: %s", path, problem);
        }
        mj_cache_entry_free(&entry);
        free(path);
        free(folder);
    }
    return s->found.hit;
}

int mj_cache_explain(MjCache *cache, const char *label_text, MjExplanation *out, MjError *err)
{
    char *tmpl = mj_cache_label_field(label_text, "template");
    Search s = {.wanted = label_text, .tmpl = tmpl ? tmpl : "", .key = mj_cache_key(label_text), .fewest = -1};
    int rc = 0;

    bool hit = look_at_place(cache, &s);
    for (size_t i = 0; i < cache->n_roots && rc == 0 && !hit; i++)
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
    free(e->bad);
    mj_str_free(&e->difference);
    mj_str_free(&e->same);
    *e = (MjExplanation){.hit = false};
}
