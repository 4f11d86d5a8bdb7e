/* `mojit bench jit`: the table of the JIT's and the cache's measurements, against the aims. */
#ifndef MJ_CLI_BENCH_JIT_H
#define MJ_CLI_BENCH_JIT_H

#include "cli/options.h"

int mj_bench_jit_command(const MjArgs *args, double seconds, MjError *err) MJ_MUST_CHECK;

#endif
