/* The table of commands, and the commands that fill it: one cmd_*.c each. */
#ifndef MJ_CLI_COMMANDS_H
#define MJ_CLI_COMMANDS_H

#include "cli/options.h"

extern const MjCommand mj_commands[]; /* ends with a NULL name */

extern const MjArgSpec mj_train_options[], mj_compare_options[], mj_sweep_options[], mj_report_options[],
    mj_warm_options[], mj_bench_options[], mj_kernels_options[], mj_tune_options[], mj_doctor_options[];
extern const MjCommand mj_cache_commands[], mj_data_commands[];

int mj_cmd_train(const MjArgs *args, MjError *err) MJ_MUST_CHECK;
int mj_cmd_compare(const MjArgs *args, MjError *err) MJ_MUST_CHECK;
int mj_cmd_sweep(const MjArgs *args, MjError *err) MJ_MUST_CHECK;
int mj_cmd_report(const MjArgs *args, MjError *err) MJ_MUST_CHECK;
int mj_cmd_warm(const MjArgs *args, MjError *err) MJ_MUST_CHECK;
int mj_cmd_bench(const MjArgs *args, MjError *err) MJ_MUST_CHECK;
int mj_cmd_kernels(const MjArgs *args, MjError *err) MJ_MUST_CHECK;
int mj_cmd_tune(const MjArgs *args, MjError *err) MJ_MUST_CHECK;
int mj_cmd_doctor(const MjArgs *args, MjError *err) MJ_MUST_CHECK;

#endif
