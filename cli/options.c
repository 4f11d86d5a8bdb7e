/* Parsing of a command's words and its help text, both from one table. See options.h. */
#include "cli/options.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"

typedef struct MjValue {
    bool given;
    int64_t integer;
    const char **items; /* strings given, in order; they point into argv */
    size_t n_items;
} MjValue;

struct MjArgs {
    const MjCommand *cmd;
    const char *full; /* "mojit data pack" */
    int n_options;
    MjValue *values; /* by option */
    const char **words;
    size_t n_words;
    bool help, version;
};

static int count_options(const MjCommand *cmd)
{
    int n = 0;
    while (cmd->options != NULL && cmd->options[n].name != NULL) n++;
    return n;
}

static int find_option(const MjCommand *cmd, const char *name, size_t len)
{
    for (int i = 0; cmd->options != NULL && cmd->options[i].name != NULL; i++) {
        if (strlen(cmd->options[i].name) == len && memcmp(cmd->options[i].name, name, len) == 0) return i;
    }
    return -1;
}

static int unknown_option(const MjArgs *a, const char *word, size_t len, MjError *err)
{
    const MjCommand *cmd = a->cmd;
    const char *names[64] = {"help", "version"};
    size_t n = 2;
    for (int i = 0; i < count_options(cmd) && n < 64; i++) names[n++] = cmd->options[i].name;
    char *name = mj_strdup_printf("%.*s", (int)len, word);
    const char *near = mj_nearest(name, names, n);
    int rc = near != NULL ? mj_error(err, MJ_ERR_USAGE, "%s: unknown option --%s; did you mean --%s?", a->full, name, near)
                          : mj_error(err, MJ_ERR_USAGE, "%s: unknown option --%s; `%s --help` lists the options", a->full, name,
                                     a->full);
    free(name);
    return rc;
}

static int parse_integer(const MjArgs *a, const MjArgSpec *opt, const char *text, int64_t *out, MjError *err)
{
    char *end = NULL;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || v < opt->min || v > opt->max) {
        return mj_error(err, MJ_ERR_USAGE, "%s: --%s %s: expected an integer from %lld to %lld", a->full, opt->name,
                        text, (long long)opt->min, (long long)opt->max);
    }
    *out = v;
    return 0;
}

static int set_value(MjArgs *a, int index, const char *text, MjError *err)
{
    const MjArgSpec *opt = &a->cmd->options[index];
    MjValue *v = &a->values[index];
    if (opt->kind == MJ_ARG_INT) {
        int64_t number = 0;
        int rc = parse_integer(a, opt, text, &number, err);
        if (rc != 0) return rc;
        v->integer = number;
    }
    v->given = true;
    if (text != NULL) {
        v->items = mj_xrealloc(v->items, (v->n_items + 1) * sizeof *v->items);
        v->items[v->n_items++] = text;
    }
    return 0;
}

/* One word that starts with a dash. *used is the number of words eaten. */
static int parse_option(MjArgs *a, int argc, char **argv, int at, int *used, MjError *err)
{
    const char *word = argv[at];
    int index = -1;
    const char *inline_value = NULL;
    *used = 1;
    if (word[1] == '-') {
        const char *name = word + 2;
        const char *eq = strchr(name, '=');
        size_t len = eq != NULL ? (size_t)(eq - name) : strlen(name);
        if (eq != NULL) inline_value = eq + 1;
        if (len == 4 && memcmp(name, "help", 4) == 0) return a->help = true, 0;
        if (len == 7 && memcmp(name, "version", 7) == 0) return a->version = true, 0;
        index = find_option(a->cmd, name, len);
        if (index < 0) return unknown_option(a, name, len, err);
    } else {
        for (int i = 0; i < a->n_options; i++) {
            if (a->cmd->options[i].letter != 0 && a->cmd->options[i].letter == word[1]) index = i;
        }
        if (index < 0) {
            return mj_error(err, MJ_ERR_USAGE, "%s: unknown option %s; options have long names, see `%s --help`", a->full, word,
                            a->full);
        }
        if (word[2] != '\0') inline_value = word + 2;
    }
    const MjArgSpec *opt = &a->cmd->options[index];
    if (opt->kind == MJ_ARG_FLAG) {
        if (inline_value != NULL) return mj_error(err, MJ_ERR_USAGE, "%s: --%s takes no value", a->full, opt->name);
        return set_value(a, index, NULL, err);
    }
    if (inline_value == NULL) {
        if (at + 1 >= argc) {
            return mj_error(err, MJ_ERR_USAGE, "%s: --%s needs a value: --%s %s", a->full, opt->name, opt->name,
                            opt->value_name);
        }
        inline_value = argv[at + 1];
        *used = 2;
    }
    return set_value(a, index, inline_value, err);
}

static int check_words(const MjArgs *a, MjError *err)
{
    const MjCommand *c = a->cmd;
    if ((int)a->n_words < c->min_words) {
        return mj_error(err, MJ_ERR_USAGE, "%s: something is missing; usage: %s %s", a->full, a->full, c->usage);
    }
    if (c->max_words >= 0 && (int)a->n_words > c->max_words) {
        return mj_error(err, MJ_ERR_USAGE, "%s: unexpected '%s'; usage: %s %s", a->full, a->words[c->max_words], a->full,
                        c->usage);
    }
    return 0;
}

int mj_args_parse(const MjCommand *cmd, const char *full, int argc, char **argv, MjArgs **out, MjError *err)
{
    int rc = 0;
    MjArgs *a = mj_xcalloc(1, sizeof *a);
    a->cmd = cmd;
    a->full = full;
    a->n_options = count_options(cmd);
    a->values = mj_xcalloc((size_t)a->n_options + 1, sizeof *a->values);
    a->words = mj_xcalloc((size_t)argc + 1, sizeof *a->words);
    bool options_over = false;
    for (int i = 0; i < argc;) {
        if (!options_over && strcmp(argv[i], "--") == 0) {
            options_over = true;
            i++;
        } else if (!options_over && argv[i][0] == '-' && argv[i][1] != '\0') {
            int used = 1;
            MJ_TRY(parse_option(a, argc, argv, i, &used, err));
            i += used;
            if (a->help || a->version) break;
        } else {
            a->words[a->n_words++] = argv[i++];
        }
    }
    if (!a->help && !a->version) MJ_TRY(check_words(a, err));
    *out = a;
    a = NULL;
out:
    mj_args_free(a);
    return rc;
}

void mj_args_free(MjArgs *a)
{
    if (a == NULL) return;
    for (int i = 0; i < a->n_options; i++) free(a->values[i].items);
    free(a->values);
    free(a->words);
    free(a);
}

bool mj_args_wants_help(const MjArgs *a) { return a->help; }
bool mj_args_wants_version(const MjArgs *a) { return a->version; }

static const MjValue *value_of(const MjArgs *a, const char *name)
{
    int index = find_option(a->cmd, name, strlen(name));
    assert(index >= 0 && "option is not in the command's table");
    return &a->values[index];
}

bool mj_args_flag(const MjArgs *a, const char *name) { return value_of(a, name)->given; }

const char *mj_args_string(const MjArgs *a, const char *name)
{
    const MjValue *v = value_of(a, name);
    return v->n_items > 0 ? v->items[v->n_items - 1] : NULL;
}

int64_t mj_args_int(const MjArgs *a, const char *name, int64_t fallback)
{
    const MjValue *v = value_of(a, name);
    return v->given ? v->integer : fallback;
}

size_t mj_args_list(const MjArgs *a, const char *name, const char *const **out)
{
    const MjValue *v = value_of(a, name);
    *out = v->items;
    return v->n_items;
}

size_t mj_args_words(const MjArgs *a, const char *const **out)
{
    *out = a->words;
    return a->n_words;
}

static void help_line(MjStr *out, const char *left, const char *doc)
{
    if (strlen(left) <= 26) {
        mj_str_printf(out, "  %-26s %s\n", left, doc);
    } else {
        mj_str_printf(out, "  %s\n  %-26s %s\n", left, "", doc);
    }
}

void mj_command_help(const MjCommand *cmd, const char *prefix, MjStr *out)
{
    mj_str_printf(out, "Usage: %s %s %s\n%s\n", prefix, cmd->name, cmd->usage, cmd->summary);
    if (cmd->detail != NULL) mj_str_printf(out, "\n%s\n", cmd->detail);
    if (cmd->subcommands != NULL) {
        mj_str_printf(out, "\nCommands:\n");
        for (const MjCommand *s = cmd->subcommands; s->name != NULL; s++) help_line(out, s->name, s->summary);
    }
    mj_str_printf(out, "\nOptions:\n");
    for (int i = 0; i < count_options(cmd); i++) {
        const MjArgSpec *o = &cmd->options[i];
        char left[96], letter[8] = "";
        if (o->letter != 0) snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s%s", letter, o->name, o->value_name != NULL ? " " : "",
                 o->value_name != NULL ? o->value_name : "", o->kind == MJ_ARG_LIST ? "..." : "");
        help_line(out, left, o->doc);
    }
    help_line(out, "--help", "print this help and exit");
    help_line(out, "--version", "print the version and exit");
}

int mj_command_find(const MjCommand *table, const char *name, const char *prefix, const MjCommand **out, MjError *err)
{
    const char *names[32];
    size_t n = 0;
    for (const MjCommand *c = table; c->name != NULL; c++) {
        if (strcmp(c->name, name) == 0) {
            *out = c;
            return 0;
        }
        if (n < 32) names[n++] = c->name;
    }
    const char *near = mj_nearest(name, names, n);
    if (near != NULL) {
        return mj_error(err, MJ_ERR_USAGE, "unknown command '%s %s'; did you mean '%s %s'?", prefix, name, prefix, near);
    }
    return mj_error(err, MJ_ERR_USAGE, "unknown command '%s %s'; `%s --help` lists the commands", prefix, name, prefix);
}

bool mj_args_has(const MjArgs *a, const char *name) { return find_option(a->cmd, name, strlen(name)) >= 0; }
