/* `mojit report`: rebuilds what a sweep shows from its records alone, and prints the progress view. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/sweep.h"
#include "cli/term.h"
#include "runtime/base/clock.h"
#include "runtime/base/fs.h"

const MjArgSpec mj_report_options[] = {
    {"json", MJ_ARG_FLAG, NULL, "print the tables as JSON", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};

int mj_cmd_report(const MjArgs *args, MjError *err)
{
    int rc = 0, lock = -1;
    bool busy = false;
    const char *const *words;
    MjSweep *sweep = NULL;
    MjStr text = MJ_STR_INIT;
    MjProgressNotes notes = {.n_resources = 0};
    MjError figure = MJ_ERROR_INIT;
    mj_args_words(args, &words);
    char *path = mj_strdup_printf("%s/progress.md", words[0]);
    MJ_TRY(mj_sweep_open(words[0], &sweep, err));
    MJ_TRY(mj_sweep_lock(words[0], &lock, &busy, err));
    MJ_TRY(mj_sweep_read(sweep, words[0], err));
    mj_clock_iso8601(notes.sampled_at);
    if (busy) mj_term_say("a sweep is running in %s and keeps its files true: they are left to it", words[0]);
    if (!busy) MJ_TRY(mj_sweep_write_csv(sweep, words[0], err));
    if (!busy && mj_sweep_write_figures(sweep, words[0], &figure) != 0) {
        mj_term_warn("%s", figure.message);
        notes.figure_note = figure.message;
    }
    mj_sweep_progress(sweep, &notes, &text);
    if (!busy) MJ_TRY(mj_fs_write_atomic(path, mj_str_text(&text), text.len, err));
    if (mj_args_flag(args, "json")) {
        json_t *o = mj_sweep_json(sweep);
        char *dump = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        puts(dump);
        free(dump);
        json_decref(o);
    } else {
        fputs(mj_str_text(&text), stdout);
    }
out:
    if (lock >= 0) close(lock);
    mj_error_clear(&figure);
    mj_str_free(&text);
    mj_sweep_free(sweep);
    free(path);
    return rc;
}
