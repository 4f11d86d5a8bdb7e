/* Entry of the command line: finds the command, parses its words, runs it, turns its error into an exit status. The
 * table of commands is here; what each does is in its cmd_*.c.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/setup.h"
#include "cli/term.h"
#include "runtime/base/clock.h"
#include "train/config.h"

uint64_t mj_process_start_ns;

const MjCommand mj_commands[] = {
    {"train", "--config FILE [OPTION]...", "Train a model; write its log, step records and result.",
     "Exit status 130 when it was interrupted: the step in progress is finished and the files are closed.",
     mj_train_options, 0, 0, mj_cmd_train, NULL},
    {"compare", "--config FILE [OPTION]...", "Train the same model in several compile modes and show which one won.",
     "Each mode runs in a process of its own; the table gives deltas against the first mode.",
     mj_compare_options, 0, 0, mj_cmd_compare, NULL},
    {"sweep", "FILE [OPTION]...", "Run a queue of named runs; go on where an earlier start was cut.",
     "Writes metrics, figures and progress.md while it runs. A sweep file is described in docs/modes.md.",
     mj_sweep_options, 1, 1, mj_cmd_sweep, NULL},
    {"report", "DIR [OPTION]...", "Rebuild a sweep's CSVs, figures and progress.md from its records, and print it.", NULL,
     mj_report_options, 1, 1, mj_cmd_report, NULL},
    {"warm", "--config FILE | --sweep FILE [OPTION]...", "Compile every kernel of a run ahead of it, for any target.",
     "Needs no GPU for sm_XX targets (NVRTC), and no model memory.", mj_warm_options, 0, 0, mj_cmd_warm, NULL},
    {"bench", "[OP|step|jit]... [OPTION]...", "Time ops in each mode against what this machine can do.",
     "An op is checked against its reference first; one that fails is not timed. `step` times whole training steps; `jit` measures "
     "finding, loading and compiling kernels.",
     mj_bench_options, 0, -1, mj_cmd_bench, NULL},
    {"cache", "COMMAND [OPTION]...", "Look into the kernel cache, check it, make it smaller.", NULL, NULL, 0, -1, NULL,
     mj_cache_commands},
    {"kernels", "[NAME] [OPTION]...", "List the kernel templates, or one with its parameters.", NULL, mj_kernels_options, 0,
     1, mj_cmd_kernels, NULL},
    {"tune", "OP --shape SHAPE | OP | --config FILE [OPTION]...", "Measure tiles on this device and keep the fastest in the cache.",
     "No tile changes a bit of a result; runs with a warmed cache take a measured tile only where its kernel is ready. See\n"
     "docs/cache.md.", mj_tune_options, 0, 1, mj_cmd_tune, NULL},
    {"data", "COMMAND [OPTION]...", "Make token files from text, and look into them.", NULL, NULL, 0, -1, NULL,
     mj_data_commands},
    {"doctor", "[OPTION]...", "Say what this machine has, what is missing, and what that costs.", NULL, mj_doctor_options, 0,
     0, mj_cmd_doctor, NULL},
    {NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL},
};

static void print_overview(FILE *f)
{
    fprintf(f, "Usage: mojit COMMAND [OPTION]...\n"
               "A kernel-specialisation JIT and a Mixture-of-Experts trainer built on it.\n\nCommands:\n");
    for (const MjCommand *c = mj_commands; c->name != NULL; c++) fprintf(f, "  %-10s %s\n", c->name, c->summary);
    fprintf(f, "\n`mojit COMMAND --help` describes a command. Exit status: 0 done, 1 the work failed, 2 wrong usage or\n"
               "configuration, 3 something needed is missing, 130 interrupted.\n");
}

static void print_version(void) { printf("mojit %s\n", MJ_VERSION); }

static void print_command_help(const MjCommand *cmd, const char *prefix)
{
    MjStr s = MJ_STR_INIT;
    mj_command_help(cmd, prefix, &s);
    for (const MjArgSpec *o = cmd->options; o != NULL && o->name != NULL; o++) {
        if (strcmp(o->name, "set") != 0) continue;
        char *settings = mj_config_help();
        mj_str_printf(&s, "\nSettings, for files and --set:\n%s", settings);
        free(settings);
    }
    fputs(mj_str_text(&s), stdout);
    mj_str_free(&s);
}

/* argv[0] is the command's name. */
static int run_command(const MjCommand *table, const char *prefix, int argc, char **argv, MjError *err)
{
    const MjCommand *cmd = NULL;
    MjArgs *args = NULL;
    char *inner = NULL;
    int rc = 0;
    MJ_TRY(mj_command_find(table, argv[0], prefix, &cmd, err));
    inner = mj_strdup_printf("%s %s", prefix, cmd->name);
    if (cmd->subcommands != NULL) {
        if (argc > 1 && argv[1][0] != '-') {
            rc = run_command(cmd->subcommands, inner, argc - 1, argv + 1, err);
        } else if (argc > 1 && strcmp(argv[1], "--help") == 0) {
            print_command_help(cmd, prefix);
        } else if (argc > 1 && strcmp(argv[1], "--version") == 0) {
            print_version();
        } else {
            rc = mj_error(err, MJ_ERR_USAGE, "%s: expected a command; `%s --help` lists them", inner, inner);
        }
        goto out;
    }
    MJ_TRY(mj_args_parse(cmd, inner, argc - 1, argv + 1, &args, err));
    if (mj_args_wants_help(args)) {
        print_command_help(cmd, prefix);
    } else if (mj_args_wants_version(args)) {
        print_version();
    } else {
        MJ_TRY(cmd->run(args, err));
    }
out:
    mj_args_free(args);
    free(inner);
    return rc;
}

int main(int argc, char **argv)
{
    mj_process_start_ns = mj_clock_ns();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of the write, reported with its words */
    signal(SIGXFSZ, SIG_IGN); /* so is a file that grew to its limit: EFBIG */
    MjError err = MJ_ERROR_INIT;
    int rc = 0;
    if (argc < 2) {
        print_overview(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0) {
        print_overview(stdout);
    } else if (strcmp(argv[1], "--version") == 0) {
        print_version();
    } else if (argv[1][0] == '-') {
        rc = mj_error(&err, MJ_ERR_USAGE, "unknown option %s; expected a command, `mojit --help` lists them", argv[1]);
    } else {
        rc = run_command(mj_commands, "mojit", argc - 1, argv + 1, &err);
    }
    MjError flush = MJ_ERROR_INIT;
    if (mj_term_flush(&flush) != 0 && rc == 0) {
        rc = flush.code;
        mj_term_error(&flush);
    } else if (rc != 0) {
        mj_term_error(&err);
    }
    mj_error_clear(&flush);
    mj_error_clear(&err);
    return mj_exit_status(rc);
}
