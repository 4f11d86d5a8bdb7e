/* `mojit cache`: stat, list, verify, prune, clear, and the table of its subcommands. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cli/cache_commands.h"
#include "cli/commands.h"
#include "cli/setup.h"
#include "cli/table.h"
#include "cli/term.h"
#include "runtime/base/str.h"

#define ROOTS_ARG {"roots", MJ_ARG_STRING, "DIR:...", "cache folders instead of $MOJIT_CACHE or the default", 0, 0, 0}
#define JSON_ARG {"json", MJ_ARG_FLAG, NULL, "print as JSON", 0, 0, 0}
#define END_ARG {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0}

static const MjArgSpec stat_options[] = {
    ROOTS_ARG, JSON_ARG, {"last-run", MJ_ARG_FLAG, NULL, "count the newest run only", 0, 0, 0}, END_ARG};
static const MjArgSpec plain_options[] = {ROOTS_ARG, JSON_ARG, END_ARG};
static const MjArgSpec prune_options[] = {
    ROOTS_ARG, JSON_ARG, {"max-size", MJ_ARG_STRING, "SIZE", "keep at most this much, such as 500M or 2G; default 2G", 0, 0, 0}, END_ARG};

static const MjArgSpec export_options[] = {
    ROOTS_ARG,
    JSON_ARG,
    MJ_CONFIG_ARGS,
    {"mode", MJ_ARG_STRING, "MODE", "compile mode of the plan (jit.mode)", 0, 0, 0},
    {"target", MJ_ARG_LIST, "TARGET", "of the plan: cpu, sm_80, sm_90a, ...; default: cpu", 0, 0, 0},
    END_ARG};

static const MjArgSpec explain_options[] = {
    ROOTS_ARG,
    JSON_ARG,
    {"shape", MJ_ARG_STRING, "NAME=VALUE,...", "the template's parameters, as `mojit kernels` names them", 0, 0, 0},
    {"mode", MJ_ARG_STRING, "MODE", "compile mode; default: static", 0, 0, 0},
    {"target", MJ_ARG_STRING, "TARGET", "cpu, sm_80, sm_90a, ...; default: cpu", 0, 0, 0},
    END_ARG};

static void on_warning(void *user, const char *line)
{
    (void)user;
    mj_term_warn("%s", line);
}

int mj_cache_command_open(const MjArgs *args, MjCache **out, MjError *err)
{
    MjCacheOptions options = {.roots = mj_args_string(args, "roots"), .warn = on_warning};
    return mj_cache_open(&options, out, err);
}

static int print_roots(MjCache *cache, json_t *json, MjError *err)
{
    static const MjColumn columns[] = {{"root", "root", false},       {"access", "access", false},
                                       {"entries", "entries", true},  {"bytes", "size", true},
                                       {"temporaries", "temporaries", true}, {"problem", "problem", false},
                                       {NULL, NULL, false}};
    int rc = 0;
    MjTable *t = mj_table_open(columns);
    for (size_t i = 0; i < mj_cache_root_count(cache); i++) {
        MjCacheInfo info = {0, 0, 0};
        char size[32];
        const char *problem = mj_cache_root_problem(cache, i);
        if (problem == NULL) MJ_TRY(mj_cache_info(cache, i, &info, err));
        mj_table_text(t, mj_cache_root(cache, i));
        mj_table_text(t, problem != NULL ? "none" : mj_cache_root_writable(cache, i) ? "read, write" : "read");
        mj_table_int(t, (int64_t)info.entries);
        mj_table_show(t, json_integer((json_int_t)info.bytes), mj_format_bytes((double)info.bytes, size));
        mj_table_int(t, (int64_t)info.temporaries);
        mj_table_show(t, problem != NULL ? json_string(problem) : json_null(), problem != NULL ? problem : "");
    }
    if (json != NULL) {
        json_object_set_new(json, "roots", mj_table_json(t));
    } else {
        mj_table_print(t, false);
    }
out:
    mj_table_close(t);
    return rc;
}

typedef struct MjStatTable {
    MjTable *table;
    MjCacheStats all;
} MjStatTable;

static void stat_row(void *user, const char *mode, const char *tmpl, const MjCacheStats *row)
{
    MjStatTable *stat = user;
    MjTable *t = stat->table;
    stat->all = (MjCacheStats){stat->all.hits + row->hits,       stat->all.misses + row->misses,   stat->all.compiles + row->compiles,
                               stat->all.corrupt + row->corrupt, stat->all.spent_s + row->spent_s, stat->all.saved_s + row->saved_s};
    mj_table_text(t, mode);
    mj_table_text(t, tmpl);
    mj_table_int(t, (int64_t)row->hits);
    mj_table_int(t, (int64_t)row->misses);
    mj_table_int(t, (int64_t)row->compiles);
    mj_table_int(t, (int64_t)row->corrupt);
    mj_table_real(t, row->spent_s, 2);
    mj_table_real(t, row->saved_s, 2);
}

static int cmd_stat(const MjArgs *args, MjError *err)
{
    static const MjColumn columns[] = {{"mode", "mode", false},       {"template", "template", false},
                                       {"hits", "hits", true},        {"misses", "misses", true},
                                       {"compiles", "compiles", true}, {"corrupt", "corrupt", true},
                                       {"spent_s", "spent s", true},  {"saved_s", "saved s", true},
                                       {NULL, NULL, false}};
    int rc = 0;
    bool json = mj_args_flag(args, "json"), last = mj_args_flag(args, "last-run");
    MjCache *cache = NULL;
    MjTable *t = mj_table_open(columns);
    MjStatTable stat = {.table = t};
    json_t *o = json ? json_object() : NULL;
    MJ_TRY(mj_cache_command_open(args, &cache, err));
    if (mj_cache_root_problem(cache, 0) == NULL) MJ_TRY(mj_cache_stats_each(cache, last, stat_row, &stat, err));
    MJ_TRY(print_roots(cache, o, err));
    if (json) {
        json_object_set_new(o, "counts", mj_table_json(t));
        char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        puts(text);
        free(text);
    } else {
        printf("\n%s %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64 " compiles, %" PRIu64 " corrupt entries; %.2f s spent, %.2f s saved\n",
               last ? "The newest run:" : "Over all time:", stat.all.hits, stat.all.misses, stat.all.compiles, stat.all.corrupt, stat.all.spent_s,
               stat.all.saved_s);
        mj_table_print(t, false);
    }
out:
    json_decref(o);
    mj_table_close(t);
    mj_cache_close(cache);
    return rc;
}

typedef struct MjListing {
    MjTable *table;
    int64_t good, bad;
    bool bad_only;
} MjListing;

static int list_entry(void *user, const char *path, const MjCacheEntry *entry, const char *problem)
{
    MjListing *l = user;
    l->good += problem == NULL;
    l->bad += problem != NULL;
    if (l->bad_only && problem == NULL) return 0;
    char hex[33] = "", size[32];
    char *spec = entry != NULL ? mj_cache_label_field(entry->label, "spec") : NULL;
    char *what = entry != NULL ? mj_cache_label_field(entry->label, "what") : NULL;
    if (what != NULL && spec != NULL && strcmp(what, "tuning") == 0) { /* its image is text: the values, a line each, then notes */
        char *text = mj_strdup_printf("%s -> %.*s", spec, (int)entry->image_bytes, (const char *)entry->image);
        char *notes = strstr(text, "\nmedian_us");
        if (notes != NULL) *notes = '\0';
        for (char *at = text; *at != '\0'; at++) *at = *at == '\n' ? ' ' : *at;
        free(spec);
        spec = text;
    } else if (what != NULL && spec == NULL) {
        spec = what;
        what = NULL;
    }
    free(what);
    if (entry != NULL) mj_cache_key_hex(entry->key, hex);
    mj_table_text(l->table, hex);
    if (entry != NULL) {
        mj_table_show(l->table, json_integer((json_int_t)entry->image_bytes), mj_format_bytes((double)entry->image_bytes, size));
    } else {
        mj_table_show(l->table, json_null(), "n/a");
    }
    mj_table_real(l->table, entry != NULL ? entry->compile_s : (double)NAN, 3);
    mj_table_text(l->table, problem != NULL ? problem : spec != NULL ? spec : "");
    mj_table_text(l->table, path);
    free(spec);
    return 0;
}

static int walk(const MjArgs *args, bool bad_only, MjError *err)
{
    static const MjColumn columns[] = {{"key", "key", false},          {"image_bytes", "image", true},
                                       {"compile_s", "compile s", true}, {"spec", "spec", false},
                                       {"path", NULL, false},          {NULL, NULL, false}};
    static const MjColumn bad_columns[] = {{"key", NULL, false},       {"image_bytes", NULL, true},
                                           {"compile_s", NULL, true},  {"problem", "problem", false},
                                           {"path", "entry", false},   {NULL, NULL, false}};
    int rc = 0;
    MjCache *cache = NULL;
    MjListing l = {.table = mj_table_open(bad_only ? bad_columns : columns), .bad_only = bad_only};
    MJ_TRY(mj_cache_command_open(args, &cache, err));
    for (size_t i = 0; i < mj_cache_root_count(cache); i++) {
        if (mj_cache_root_problem(cache, i) == NULL) MJ_TRY(mj_cache_each(cache, i, list_entry, &l, err));
    }
    if (mj_args_flag(args, "json") || !bad_only || l.bad > 0) mj_table_print(l.table, mj_args_flag(args, "json"));
    mj_term_say("%" PRId64 " good, %" PRId64 " bad", l.good, l.bad);
    if (bad_only && l.bad > 0) {
        MJ_TRY(mj_error(err, MJ_ERR_DATA, "%" PRId64 " bad entries; they are never loaded, and the next compile replaces them",
                        l.bad));
    }
out:
    mj_table_close(l.table);
    mj_cache_close(cache);
    return rc;
}

static int cmd_list(const MjArgs *args, MjError *err) { return walk(args, false, err); }
static int cmd_verify(const MjArgs *args, MjError *err) { return walk(args, true, err); }

static void print_removed(const MjArgs *args, const MjCacheInfo *removed)
{
    static const MjColumn columns[] = {{"removed_entries", "removed entries", true}, {"removed_bytes", "removed", true},
                                       {"removed_temporaries", "temporaries", true}, {NULL, NULL, false}};
    char size[32];
    MjTable *t = mj_table_open(columns);
    mj_table_int(t, (int64_t)removed->entries);
    mj_table_show(t, json_integer((json_int_t)removed->bytes), mj_format_bytes((double)removed->bytes, size));
    mj_table_int(t, (int64_t)removed->temporaries);
    mj_table_print(t, mj_args_flag(args, "json"));
    mj_table_close(t);
}

static int parse_size(const char *text, uint64_t *out, MjError *err)
{
    MjConfig config; /* the option table knows how to read a size */
    mj_config_defaults(&config);
    int rc = mj_config_set_key(&config, "cache", "max_size", text, "--max-size", err);
    if (rc == 0) *out = (uint64_t)config.cache.max_size;
    return rc;
}

static int cmd_prune(const MjArgs *args, MjError *err)
{
    int rc = 0;
    uint64_t limit = MJ_CACHE_DEFAULT_BYTES;
    MjCache *cache = NULL;
    MjCacheInfo removed = {0, 0, 0};
    if (mj_args_string(args, "max-size") != NULL) MJ_TRY(parse_size(mj_args_string(args, "max-size"), &limit, err));
    MJ_TRY(mj_cache_command_open(args, &cache, err));
    MJ_TRY(mj_cache_prune(cache, limit, &removed, err));
    print_removed(args, &removed);
out:
    mj_cache_close(cache);
    return rc;
}

static int cmd_clear(const MjArgs *args, MjError *err)
{
    int rc = 0;
    MjCache *cache = NULL;
    MjCacheInfo removed = {0, 0, 0};
    MJ_TRY(mj_cache_command_open(args, &cache, err));
    MJ_TRY(mj_cache_clear(cache, &removed, err));
    print_removed(args, &removed);
out:
    mj_cache_close(cache);
    return rc;
}

const MjCommand mj_cache_commands[] = {
    {"stat", "[OPTION]...", "Sizes of the roots; hits, misses, compiles, seconds spent and saved by mode and template.", NULL,
     stat_options, 0, 0, cmd_stat, NULL},
    {"list", "[OPTION]...", "List the entries.", NULL, plain_options, 0, 0, cmd_list, NULL},
    {"verify", "[OPTION]...", "Check every entry; exit 1 when one is bad.", NULL, plain_options, 0, 0, cmd_verify, NULL},
    {"prune", "[OPTION]...", "Remove entries, longest unused first, down to a size.", NULL, prune_options, 0, 0, cmd_prune, NULL},
    {"export", "FILE [OPTION]...", "Write all entries, or with --config those of a plan, into one archive (tar, zstd).", NULL,
     export_options, 1, 1, mj_cmd_cache_export, NULL},
    {"import", "FILE [OPTION]...", "Take in an archive, checked entry by entry; refused whole if anything is off.", NULL, plain_options,
     1, 1, mj_cmd_cache_import, NULL},
    {"explain", "OP|TEMPLATE [OPTION]...", "Say whether a kernel is there, and for a miss what differs from the nearest entry.", NULL,
     explain_options, 1, 1, mj_cmd_cache_explain, NULL},
    {"clear", "[OPTION]...", "Remove every entry of the first root.", NULL, plain_options, 0, 0, cmd_clear, NULL},
    {NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL},
};
