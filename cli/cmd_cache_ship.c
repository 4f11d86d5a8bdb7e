/* `mojit cache export|import|explain`. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/ship.h"
#include "cache/explain.h"
#include "cli/cache_commands.h"
#include "cli/setup.h"
#include "cli/table.h"
#include "cli/term.h"
#include "jit/jit.h"
#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"

static void print_count(const MjArgs *args, const MjArchiveCount *c, bool import)
{
    static const MjColumn columns[] = {{"entries", "entries", true}, {"bytes", "size", true}, {"already", "already there", true},
                                       {"skipped", "bad, left out", true}, {NULL, NULL, false}};
    char size[32];
    MjTable *t = mj_table_open(columns);

    mj_table_int(t, (int64_t)c->entries);
    mj_table_show(t, json_integer((json_int_t)c->bytes), mj_format_bytes((double)c->bytes, size));
    mj_table_int(t, import ? (int64_t)c->already : 0);
    mj_table_int(t, import ? 0 : (int64_t)c->skipped);
    mj_table_print(t, mj_args_flag(args, "json"));
    mj_table_close(t);
}

int mj_cmd_cache_export(const MjArgs *args, MjError *err)
{
    int rc = 0;
    const char *const *words;
    MjCache *cache = NULL;
    MjArchiveCount count;

    mj_args_words(args, &words);
    MJ_TRY(mj_cache_command_open(args, &cache, err));
    MJ_TRY(mj_cache_export(cache, words[0], NULL, NULL, &count, err));
    print_count(args, &count, false);
out:
    mj_cache_close(cache);
    return rc;
}

int mj_cmd_cache_import(const MjArgs *args, MjError *err)
{
    int rc = 0;
    const char *const *words;
    MjCache *cache = NULL;
    MjArchiveCount count;

    mj_args_words(args, &words);
    MJ_TRY(mj_cache_command_open(args, &cache, err));
    MJ_TRY(mj_cache_import(cache, words[0], &count, err));
    print_count(args, &count, true);
out:
    mj_cache_close(cache);
    return rc;
}

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

static void print_explanation(const MjArgs *args, const char *spec, const MjExplanation *e)
{
    if (mj_args_flag(args, "json")) {
        json_t *o = json_pack("{ss sb ss? ss ss}", "spec", spec, "hit", e->hit, "entry", e->path, "same", mj_str_text(&e->same),
                              "difference", mj_str_text(&e->difference));
        char *text = json_dumps(o, JSON_INDENT(2));
        puts(text);
        free(text);
        json_decref(o);
        return;
    }
    printf("%s  %s\n", e->hit ? "hit " : "miss", spec);
    if (!e->path) {
        printf("no entry of this template is in the cache\n");
        return;
    }
    printf("%s: %s (compiled in %.2f s)\n", e->hit ? "entry" : "nearest entry", e->path, e->compile_s);
    if (!e->hit) printf("same: %s\ndiffers (there -> wanted):\n%s", mj_str_text(&e->same), mj_str_text(&e->difference));
}

int mj_cmd_cache_explain(const MjArgs *args, MjError *err)
{
    int rc = 0;
    const char *const *words, *target = mj_args_string(args, "target"), *mode = mj_args_string(args, "mode");
    char *label = NULL, *spec = NULL;
    MjCache *cache = NULL;
    MjJit *jit = NULL;
    MjRequest req;
    MjExplanation e = {.hit = false};
    MjJitOptions options = {.target = target && strcmp(target, "cpu") != 0 ? target : mj_cpu_target()};

    memset(&req, 0, sizeof req);
    mj_args_words(args, &words);
    MJ_TRY(mj_mode_find(mode ? mode : "static", &options.mode, err));
    MJ_TRY(mj_cache_command_open(args, &cache, err));
    options.cache = cache;
    MJ_TRY(mj_jit_open(&options, &jit, err));
    MJ_TRY(mj_jit_template(jit, words[0], &req.tmpl, err));
    MJ_TRY(parse_shape(req.tmpl, mj_args_string(args, "shape"), &req, err));
    MJ_TRY(mj_jit_key_text(jit, &req, &label, err));
    MJ_TRY(mj_cache_explain(cache, label, &e, err));
    spec = mj_cache_label_field(label, "spec");
    print_explanation(args, spec ? spec : "", &e);
out:
    mj_explanation_free(&e);
    free(spec);
    free(label);
    mj_jit_close(jit);
    mj_cache_close(cache);
    return rc;
}
