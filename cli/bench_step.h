/* `mojit bench step`: whole training steps, in each mode, with bf16 and with FP8 experts. */
#ifndef MJ_CLI_BENCH_STEP_H
#define MJ_CLI_BENCH_STEP_H

#include <jansson.h>

#include "cli/options.h"
#include "train/config.h"

/* Prints a table and returns its rows in *out (new reference). */
int mj_bench_steps(const MjArgs *args, const MjConfig *config, json_t **out, MjError *err) MJ_MUST_CHECK;

#endif
