/* The command line's own parser: one table of options per command, read by the parser and by --help alike, so that
 * help cannot promise what the parser does not do. Long names ("--name value", "--name=value"), flags, repeatable
 * options, "--" to end options. Owns parsing and the help text; knows no command.
 */
#ifndef MJ_CLI_OPTIONS_H
#define MJ_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"
#include "runtime/base/str.h"

typedef enum MjArgKind {
    MJ_ARG_FLAG,   /* no value */
    MJ_ARG_STRING, /* one value; the last one given counts */
    MJ_ARG_INT,    /* one integer in [min, max] */
    MJ_ARG_LIST    /* repeatable */
} MjArgKind;

typedef struct MjArgSpec {
    const char *name;       /* without the dashes; NULL ends a table */
    MjArgKind kind;
    const char *value_name; /* "FILE", for help; NULL for a flag */
    const char *doc;
    char letter;            /* one-letter form, 0 = none (only "-o" has one) */
    int64_t min, max;       /* MJ_ARG_INT */
} MjArgSpec;

typedef struct MjArgs MjArgs;

typedef struct MjCommand {
    const char *name;                                  /* NULL ends a table */
    const char *usage;                                 /* after "mojit NAME", e.g. "FILE [OPTION]..." */
    const char *summary;                               /* one line, for the list of commands */
    const char *detail;                                /* paragraphs for --help; may be NULL */
    const MjArgSpec *options;                           /* NULL: only --help and --version */
    int min_words, max_words;                          /* positional words; max -1 = any number */
    int (*run)(const MjArgs *args, MjError *err);      /* NULL when it has subcommands */
    const struct MjCommand *subcommands;               /* NULL: none */
} MjCommand;

/* Parses the words after the command's name, which is `full` in messages ("mojit data pack"). --help and --version set the two flags and stop the parsing. Errors are
 * MJ_ERR_USAGE and suggest the nearest option. */
int mj_args_parse(const MjCommand *cmd, const char *full, int argc, char **argv, MjArgs **out, MjError *err) MJ_MUST_CHECK;
void mj_args_free(MjArgs *args);
bool mj_args_wants_help(const MjArgs *args);
bool mj_args_wants_version(const MjArgs *args);

/* Access by option name; asking for a name that is not in the command's table is a programmer's mistake (assert). */
bool mj_args_has(const MjArgs *args, const char *name); /* is it in the command's table? (the one that may not be) */
bool mj_args_flag(const MjArgs *args, const char *name);
const char *mj_args_string(const MjArgs *args, const char *name);        /* NULL when not given */
int64_t mj_args_int(const MjArgs *args, const char *name, int64_t fallback);
size_t mj_args_list(const MjArgs *args, const char *name, const char *const **out);
size_t mj_args_words(const MjArgs *args, const char *const **out);

/* Appends the full help of a command; `prefix` is "mojit" or "mojit cache". */
void mj_command_help(const MjCommand *cmd, const char *prefix, MjStr *out);
/* Finds a command by name; an unknown one is MJ_ERR_USAGE and suggests the nearest. */
int mj_command_find(const MjCommand *table, const char *name, const char *prefix, const MjCommand **out,
                    MjError *err) MJ_MUST_CHECK;

#endif
