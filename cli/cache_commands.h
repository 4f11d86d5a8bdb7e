/* The parts of `mojit cache` that live in files of their own. */
#ifndef MJ_CLI_CACHE_COMMANDS_H
#define MJ_CLI_CACHE_COMMANDS_H

#include "cache/cache.h"
#include "cli/options.h"

/* The roots of --roots or the default, warnings on stderr. */
int mj_cache_command_open(const MjArgs *args, MjCache **out, MjError *err) MJ_MUST_CHECK;
int mj_cmd_cache_export(const MjArgs *args, MjError *err);
int mj_cmd_cache_import(const MjArgs *args, MjError *err);
int mj_cmd_cache_explain(const MjArgs *args, MjError *err);

#endif
