/* `mojit cache explain`: hit or miss, and for a miss what differs from the nearest entry. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/explain.h"
#include "cli/cache_commands.h"
#include "cli/setup.h"
#include "cli/table.h"
#include "jit/jit.h"
#include "ops/ops.h"
#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"

static int unknown_parameter(const MjTemplate *t, const char *name, MjError *err)
{
    const char *names[MJ_MAX_PARAMS];

    for (int i = 0; i < t->n_params; i++) names[i] = t->params[i].name;
    const char *near = mj_nearest(name, names, (size_t)t->n_params);
    return mj_error(err, MJ_ERR_USAGE, "--shape: template %s has no parameter \"%s\"%s%s%s; `mojit kernels %s` lists them", t->name,
                    name, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "", t->name);
}

/* "WIDTH=256,TOKENS=2048" into a request; what is not named takes a default where one is plain. */
static int parse_shape(const MjTemplate *t, const char *text, MjRequest *req, MjError *err)
{
    int rc = 0;
    char *list = mj_xstrdup(text ? text : "");

    for (int i = 0; i < t->n_params; i++) {
        const MjParam *p = &t->params[i];
        req->values[i] = p->kind == MJ_PARAM_TUNING ? MJ_UNBOUND : p->n_values > 0 ? p->values[0] : p->min > 1 ? p->min : p->multiple;
    }
    for (char *at = list, *word; rc == 0 && (word = strsep(&at, ",")) != NULL;) {
        char *eq = strchr(word, '='), *end = NULL;
        if (!*word) continue;
        long v = eq ? strtol(eq + 1, &end, 10) : 0;
        if (!eq || end == eq + 1 || *end || v < INT32_MIN + 1 || v > INT32_MAX) {
            rc = mj_error(err, MJ_ERR_USAGE, "--shape: expected NAME=number, found \"%s\"", word);
            break;
        }
        *eq = 0;
        int i = mj_template_param(t, word);
        if (i < 0) rc = unknown_parameter(t, word, err);
        else req->values[i] = (int32_t)v;
    }
    free(list);
    return rc;
}

static json_t *explanation_json(const char *spec, const MjExplanation *e)
{
    return json_pack("{ss sb ss? ss? sf ss ss}", "spec", spec, "hit", e->hit, "entry", e->path, "bad", e->bad, "compile_s", e->compile_s,
                     "same", mj_str_text(&e->same), "difference", mj_str_text(&e->difference));
}

static void print_explanation(const char *spec, const MjExplanation *e)
{
    printf("%s  %s\n", e->hit ? "hit " : "miss", spec);
    if (e->bad) printf("bad entry, not used: %s\n", e->bad);
    if (!e->path) {
        printf("%s of this template is in the cache\n", e->bad ? "no other entry" : "no entry");
        return;
    }
    printf("%s: %s (compiled in %.2f s)\n", e->hit ? "entry" : "nearest entry", e->path, e->compile_s);
    if (e->hit) return;
    printf("same: %s\n", mj_str_text(&e->same));
    for (const char *at = mj_str_text(&e->difference); *at;) {
        const int n = (int)strcspn(at, "\n");
        printf("differs: %.*s\n", n, at);
        at += n + (at[n] != 0);
    }
}

/* Whether a template knows every name of a shape. */
static bool knows(const MjTemplate *t, const char *shape)
{
    bool all = true;
    char *list = mj_xstrdup(shape ? shape : "");

    for (char *at = list, *word; (word = strsep(&at, ",")) != NULL;) {
        word[strcspn(word, "=")] = 0;
        all &= !*word || mj_template_param(t, word) >= 0;
    }
    free(list);
    return all;
}

/* The word is a template's name, or an op's: then every template of it for the target that knows the shape's names. */
static int find_templates(MjJit *jit, const char *word, const char *target, const char *shape, const MjTemplate **out, int cap, int *n,
                          MjError *err)
{
    MjOpId op;
    const MjTemplate *none;
    const size_t len = strlen(word);

    *n = 0;
    for (int i = 0; i < mj_jit_template_count(jit); i++)
        if (strcmp(mj_jit_template_at(jit, i)->name, word) == 0) out[(*n)++] = mj_jit_template_at(jit, i);
    if (*n > 0) return 0;
    const bool is_op = mj_op_find(word, &op, NULL) == 0;
    for (int i = 0; is_op && i < mj_jit_template_count(jit) && *n < cap; i++) {
        const MjTemplate *t = mj_jit_template_at(jit, i);
        if (strncmp(t->name, word, len) == 0 && t->name[len] == '_' && (t->families >> mj_target_family(target) & 1) && knows(t, shape))
            out[(*n)++] = t;
    }
    if (*n > 0) return 0;
    if (is_op) return mj_error(err, MJ_ERR_USAGE, "op %s has no template for %s with these parameters; `mojit kernels` lists them", word, target);
    return mj_jit_template(jit, word, &none, err); /* says what is near */
}

static int explain_one(const MjArgs *args, MjJit *jit, MjCache *cache, const MjTemplate *t, json_t *rows, MjError *err)
{
    int rc = 0;
    char *label = NULL, *spec = NULL;
    MjExplanation e = {.hit = false};
    MjRequest req = {.tmpl = t};

    MJ_TRY(parse_shape(t, mj_args_string(args, "shape"), &req, err));
    MJ_TRY(mj_jit_key_text(jit, &req, &label, err));
    MJ_TRY(mj_cache_explain(cache, label, &e, err));
    spec = mj_cache_label_field(label, "spec");
    if (rows) json_array_append_new(rows, explanation_json(spec ? spec : "", &e));
    else print_explanation(spec ? spec : "", &e);
out:
    mj_explanation_free(&e);
    free(spec);
    free(label);
    return rc;
}

int mj_cmd_cache_explain(const MjArgs *args, MjError *err)
{
    enum { MOST = 16 };
    int rc = 0, n = 0;
    const char *const *words, *target = mj_args_string(args, "target"), *mode = mj_args_string(args, "mode");
    const MjTemplate *templates[MOST];
    MjCache *cache = NULL;
    MjJit *jit = NULL;
    json_t *rows = mj_args_flag(args, "json") ? json_array() : NULL;
    MjJitOptions options = {.target = target && strcmp(target, "cpu") != 0 ? target : mj_cpu_target()};

    mj_args_words(args, &words);
    MJ_TRY(mj_mode_find(mode ? mode : "static", &options.mode, err));
    if (options.mode->miss == MJ_MISS_GENERIC)
        MJ_TRY(mj_error(err, MJ_ERR_USAGE, "cache explain: %s never asks the cache, its kernels are embedded; `mojit kernels %s` lists them",
                        options.mode->name, words[0]));
    MJ_TRY(mj_cache_command_open(args, &cache, err));
    options.cache = cache;
    MJ_TRY(mj_jit_open(&options, &jit, err));
    MJ_TRY(find_templates(jit, words[0], options.target, mj_args_string(args, "shape"), templates, MOST, &n, err));
    for (int i = 0; i < n; i++) MJ_TRY(explain_one(args, jit, cache, templates[i], rows, err));
    if (rows) {
        char *text = json_dumps(n == 1 ? json_array_get(rows, 0) : rows, JSON_INDENT(2));
        puts(text);
        free(text);
    }
out:
    json_decref(rows);
    mj_jit_close(jit);
    mj_cache_close(cache);
    return rc;
}
