/* What several commands need before they start: the configuration from --config, --set and their shorthands, the kernel
 * cache, the option rows that they share.
 */
#ifndef MJ_CLI_SETUP_H
#define MJ_CLI_SETUP_H

#include "cli/options.h"
#include "jit/jit.h"
#include "runtime/base/error.h"
#include "train/config.h"

/* Rows of an option table for every command that takes a configuration. */
#define MJ_CONFIG_ARGS                                                                                             \
    {"config", MJ_ARG_STRING, "FILE", "settings as an INI file; see docs/configuration.md", 0, 0, 0},              \
    {"set", MJ_ARG_LIST, "SECTION.KEY=VALUE", "one setting over those of the file; may be repeated", 0, 0, 0}
#define MJ_TRAIN_ARGS                                                                                              \
    MJ_CONFIG_ARGS,                                                                                                \
    {"device", MJ_ARG_STRING, "DEVICE", "cpu, cuda or cuda:N; default: the best that is there (run.device)", 0, 0, 0},                              \
    {"steps", MJ_ARG_INT, "N", "optimizer steps (train.steps)", 0, 1, 1 << 30},                                    \
    {"profile", MJ_ARG_FLAG, NULL, "time every op and print where the time went", 0, 0, 0}

/* Defaults, then the file, then --set in order, then --mode, --device, --steps and --out where the command has them.
 * Checked with mj_config_check. An empty run.device becomes the best device that is there; when that is the cpu although
 * there is an NVIDIA driver, a warning says why. */
int mj_setup_config(const MjArgs *args, MjConfig *out, MjError *err) MJ_MUST_CHECK;

/* Opens the kernel cache of a configuration. Roots that can't be used cost a warning, never the run. */
int mj_setup_cache(const MjConfig *config, MjCache **out, MjError *err) MJ_MUST_CHECK;

/* SIGINT and SIGTERM set a flag; the second one ends the process at once with status 130. */
void mj_setup_signals(void);
bool mj_setup_interrupted(void);
/* Also called (in signal context) at the first signal; NULL = nothing. */
void mj_setup_on_interrupt(void (*fn)(void *), void *user);

extern uint64_t mj_process_start_ns; /* mj_clock_ns() at the start of main */

#endif
