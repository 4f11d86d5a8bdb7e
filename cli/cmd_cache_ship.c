/* `mojit cache export|import`. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/ship.h"
#include "cli/cache_commands.h"
#include "cli/setup.h"
#include "cli/table.h"
#include "cli/term.h"
#include "jit/jit.h"
#include "runtime/base/mem.h"
#include "runtime/device.h"
#include "train/train.h"

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

/* ---- the keys of a plan ---- */

typedef struct PlanKeys {
    MjCacheKey *key;
    size_t n;
} PlanKeys;

static bool is_wanted(void *user, MjCacheKey key)
{
    const PlanKeys *k = user;

    for (size_t i = 0; i < k->n; i++)
        if (memcmp(&k->key[i], &key, sizeof key) == 0) return true;
    return false;
}

static int add_key(PlanKeys *k, MjCache *cache, const char *label, bool must, MjError *err)
{
    MjCacheEntry entry = {.memory = NULL};
    const MjCacheKey key = mj_cache_key(label);

    if (must && mj_cache_get(cache, key, &entry) != MJ_CACHE_HIT) {
        char *spec = mj_cache_label_field(label, "spec");
        int rc = mj_error(err, MJ_ERR_MISSING, "the cache lacks a kernel of the plan: %s. Warm it first (`mojit warm`, with the same options)",
                          spec ? spec : label);
        free(spec);
        return rc;
    }
    mj_cache_entry_free(&entry);
    k->key = mj_xrealloc(k->key, (k->n + 1) * sizeof *k->key);
    k->key[k->n++] = key;
    return 0;
}

/* The plan of --config for one target, and the entry by which a machine without a compiler knows which one was used. */
static int add_plan(PlanKeys *k, MjCache *cache, const MjConfig *config, const char *target, MjError *err)
{
    int rc = 0;
    MjJit *jit = NULL;
    char *label = NULL;
    MjJitOptions options = {.target = strcmp(target, "cpu") == 0 ? mj_cpu_target() : target, .budget = config->jit.budget, .cache = cache};

    MJ_TRY(mj_mode_find(config->jit.mode, &options.mode, err));
    MJ_TRY(mj_bucket_parse(config->jit.bucket, &options.bucket, err));
    MJ_TRY(mj_jit_open(&options, &jit, err));
    MJ_TRY(mj_train_plan(config, jit, err));
    if (options.mode->miss == MJ_MISS_GENERIC)
        MJ_TRY(mj_error(err, MJ_ERR_USAGE, "cache export: jit.mode = %s compiles nothing, so its plan has no entries", options.mode->name));
    for (int i = 0; i < mj_jit_plan_size(jit); i++) {
        MJ_TRY(mj_jit_plan_key_text(jit, i, &label, err));
        MJ_TRY(add_key(k, cache, label, true, err));
        free(label);
        label = NULL;
    }
    label = mj_jit_compiler_label(jit);
    MJ_TRY(add_key(k, cache, label, false, err));
out:
    free(label);
    mj_jit_close(jit);
    return rc;
}

static int plan_keys(const MjArgs *args, MjCache *cache, PlanKeys *k, MjError *err)
{
    MjConfig config;
    const char *const *targets;
    size_t n = mj_args_list(args, "target", &targets);
    int rc = mj_setup_config(args, &config, err);

    for (size_t i = 0; rc == 0 && i < n; i++) rc = add_plan(k, cache, &config, targets[i], err);
    if (rc == 0 && n == 0) rc = add_plan(k, cache, &config, "cpu", err);
    return rc;
}

int mj_cmd_cache_export(const MjArgs *args, MjError *err)
{
    int rc = 0;
    const char *const *words;
    MjCache *cache = NULL;
    MjArchiveCount count;
    PlanKeys keys = {.n = 0};
    static const char *const of_plan[] = {"set", "mode", "target"};
    const bool plan = mj_args_string(args, "config") != NULL;

    mj_args_words(args, &words);
    for (size_t i = 0; !plan && i < sizeof of_plan / sizeof *of_plan; i++)
        if (mj_args_list(args, of_plan[i], &(const char *const *){NULL}) > 0)
            MJ_TRY(mj_error(err, MJ_ERR_USAGE, "cache export: --%s belongs to a plan; give --config too, or leave it out to export everything",
                            of_plan[i]));
    MJ_TRY(mj_cache_command_open(args, &cache, err));
    if (plan) MJ_TRY(plan_keys(args, cache, &keys, err));
    MJ_TRY(mj_cache_export(cache, words[0], plan ? is_wanted : NULL, &keys, &count, err));
    print_count(args, &count, false);
out:
    free(keys.key);
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
