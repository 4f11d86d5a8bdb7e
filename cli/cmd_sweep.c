/* `mojit sweep`: runs a queue, one child process a run, and keeps state, CSVs, figures and progress.md true while it
 * goes. Killed at any point and started again, it goes on with what is left: completed and failed runs are kept, a run
 * that was cut starts from its beginning.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/proc.h"
#include "cli/setup.h"
#include "cli/sweep.h"
#include "cli/table.h"
#include "cli/term.h"
#include "runtime/base/clock.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"

const MjArgSpec mj_sweep_options[] = {
    {"out", MJ_ARG_STRING, "DIR", "folder for everything that the sweep writes; default: sweep-NAME", 'o', 0, 0},
    {"set", MJ_ARG_LIST, "SECTION.KEY=VALUE", "a setting over those of every run", 0, 0, 0},
    {"retry-failed", MJ_ARG_FLAG, NULL, "queue the runs that failed again", 0, 0, 0},
    {"quiet", MJ_ARG_FLAG, NULL, "do not print the report at the end", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};

typedef struct MjSweeper {
    MjSweep *sweep;
    char *dir;
    MjProgressNotes notes;
    char figure_note[1100];
    uint64_t next_files_ns, next_figures_ns;
    uint64_t drawn;          /* what the figures show; see shown() */
    int lock_fd;
} MjSweeper;

/* What figures are made of: every run's steps, and its state, which stands in their key. 0: nothing to draw yet. */
static uint64_t shown(const MjSweep *s)
{
    uint64_t n = 0, steps = 0;
    for (size_t i = 0; i < s->n_runs; i++) {
        n = n * 1000003 + s->runs[i].record.n_steps * 8 + (uint64_t)s->runs[i].state;
        steps += s->runs[i].record.n_steps;
    }
    return steps == 0 ? 0 : n;
}

static int write_progress(MjSweeper *w, MjError *err)
{
    MjStr text = MJ_STR_INIT;
    w->notes.figure_note = w->figure_note[0] != '\0' ? w->figure_note : NULL;
    mj_sweep_progress(w->sweep, &w->notes, &text);
    char *path = mj_strdup_printf("%s/progress.md", w->dir);
    int rc = mj_fs_write_atomic(path, mj_str_text(&text), text.len, err);
    free(path);
    mj_str_free(&text);
    return rc;
}

/* Figures never fail a sweep: what is wrong is said once and noted in progress.md. */
static void draw(MjSweeper *w)
{
    MjError err = MJ_ERROR_INIT;
    if (mj_sweep_write_figures(w->sweep, w->dir, &err) != 0) {
        if (w->figure_note[0] == '\0') mj_term_warn("%s", err.message);
        snprintf(w->figure_note, sizeof w->figure_note, "%s", err.message);
    } else {
        w->figure_note[0] = '\0';
    }
    mj_error_clear(&err);
}

/* Everything that a look from outside sees. CSVs and progress at most once a second, figures every ten, and each at most a
 * fiftieth of the time, so that watching a run does not slow it. `force` ignores that. */
static int refresh(MjSweeper *w, long pid, bool force, MjError *err)
{
    int rc = 0;
    uint64_t now = mj_clock_ns();
    if (!force && now < w->next_files_ns) return 0;
    MJ_TRY(mj_sweep_read(w->sweep, w->dir, err));
    const uint64_t now_shown = shown(w->sweep);
    if (pid > 0 || w->notes.n_resources == 0) { /* afterwards the last look at a running one stays */
        w->notes.n_resources = mj_resource_sample(pid, w->notes.resources, MJ_MAX_RESOURCES);
    }
    mj_clock_iso8601(w->notes.sampled_at);
    MJ_TRY(mj_sweep_write_csv(w->sweep, w->dir, err));
    if ((force || now >= w->next_figures_ns) && now_shown != w->drawn) {
        uint64_t begin = mj_clock_ns();
        draw(w);
        w->drawn = now_shown;
        uint64_t cost = mj_clock_ns() - begin;
        w->next_figures_ns = begin + (50 * cost > 10000000000u ? 50 * cost : 10000000000u);
        now = mj_clock_ns(); /* counts the files only, below */
    }
    MJ_TRY(write_progress(w, err));
    uint64_t cost = mj_clock_ns() - now;
    w->next_files_ns = mj_clock_ns() + (50 * cost > 1000000000u ? 50 * cost : 1000000000u);
out:
    return rc;
}

static void show_progress(const MjSweeper *w, const MjSweepRun *run)
{
    const MjRunRecord *r = &run->record;
    size_t position = (size_t)(run - w->sweep->runs) + 1;
    if (r->n_steps == 0) {
        mj_term_progress("[%zu/%zu] %s: preparing", position, w->sweep->n_runs, run->name);
        return;
    }
    const MjStepMetrics *m = &r->steps[r->n_steps - 1];
    mj_term_progress("[%zu/%zu] %s: step %d/%d  loss %.4f  %.0f tok/s", position, w->sweep->n_runs, run->name, m->step,
                     r->total_steps, m->loss, m->tok_per_sec);
}

/* `mojit train` for one run; the words are freed with free_words. */
static const char **train_words(const MjSweeper *w, const MjSweepRun *run, const char *out)
{
    const char **words = mj_xcalloc(2 * run->n_settings + 10, sizeof *words);
    size_t n = 0;
    words[n++] = mj_xstrdup("train");
    words[n++] = mj_xstrdup("--quiet");
    if (w->sweep->profile) words[n++] = mj_xstrdup("--profile");
    if (w->sweep->config != NULL) {
        words[n++] = mj_xstrdup("--config");
        words[n++] = mj_xstrdup(w->sweep->config);
    }
    for (size_t i = 0; i < run->n_settings; i++) {
        const MjSetting *v = &run->settings[i];
        words[n++] = mj_xstrdup("--set");
        words[n++] = mj_strdup_printf("%s.%s=%s", v->section, v->key, v->value);
    }
    words[n++] = mj_xstrdup("--out");
    words[n++] = mj_xstrdup(out);
    return words;
}

static void free_words(const char **words)
{
    for (size_t i = 0; words[i] != NULL; i++) free((void *)(uintptr_t)words[i]);
    free(words);
}

static int fail_run(MjSweepRun *run, const char *message)
{
    run->state = MJ_RUN_FAILED;
    free(run->error);
    run->error = mj_xstrdup(message);
    mj_term_warn("run %s failed: %s; the sweep goes on", run->name, message);
    return 0;
}

/* What the end of a run's process means. A run that could not write its files (a full disk) is left to be done again, and
 * stops the sweep: the next run would meet the same. Every other failure ends that run only. */
static int judge(MjSweepRun *run, const MjChild *child, MjError *err)
{
    const char *status = mj_record_status(&run->record);
    int code = mj_record_error_code(&run->record);
    if (status != NULL && strcmp(status, "completed") == 0) {
        run->state = MJ_RUN_COMPLETED;
        return 0;
    }
    if (mj_setup_interrupted() || (status != NULL && strcmp(status, "interrupted") == 0)) {
        run->state = MJ_RUN_INTERRUPTED;
        return mj_error(err, MJ_ERR_INTERRUPTED, "interrupted in run %s; the same command goes on from here", run->name);
    }
    if (mj_child_exit(child) < 0) return fail_run(run, mj_child_words(child));
    if (status == NULL || code == MJ_ERR_IO) {
        run->state = MJ_RUN_INTERRUPTED;
        return mj_error(err, MJ_ERR_IO, "run %s could not write its records: %s; make room or mend the folder, then run the "
                        "same command again: it goes on from here", run->name,
                        status == NULL ? mj_child_words(child) : mj_record_error(&run->record));
    }
    return fail_run(run, mj_record_error(&run->record));
}

static int run_one(MjSweeper *w, MjSweepRun *run, MjError *err)
{
    int rc = 0;
    MjChild child = {.err_fd = -1};
    const char **words = NULL;
    char *out = mj_sweep_run_dir(w->dir, run);
    mj_record_free(&run->record);
    free(run->error);
    run->error = NULL;
    MJ_TRY(mj_fs_remove_tree(out, err)); /* what a cut start left */
    MJ_TRY(mj_fs_make_dirs(out, 0777, err));
    run->state = MJ_RUN_RUNNING;
    MJ_TRY(mj_sweep_save(w->sweep, w->dir, err));
    words = train_words(w, run, out);
    MJ_TRY(mj_child_start(&child, words, err));
    bool told = false;
    while (!mj_child_wait(&child, 250)) {
        if (mj_setup_interrupted() && !told) {
            mj_child_interrupt(&child);
            told = true;
        }
        MJ_TRY(refresh(w, (long)child.pid, false, err));
        show_progress(w, run);
    }
    MJ_TRY(mj_sweep_read(w->sweep, w->dir, err));
    rc = judge(run, &child, err);
    MjError second = MJ_ERROR_INIT;
    int wrote = mj_sweep_save(w->sweep, w->dir, &second);
    if (wrote == 0) wrote = refresh(w, 0, true, &second);
    if (wrote != 0 && rc == 0) rc = mj_error(err, second.code, "%s", second.message);
    mj_error_clear(&second);
out:
    mj_term_progress_done();
    mj_child_close(&child);
    if (words != NULL) free_words(words);
    free(out);
    return rc;
}

static int run_queue(MjSweeper *w, MjError *err)
{
    int rc = 0;
    for (size_t i = 0; i < w->sweep->n_runs; i++) {
        MjSweepRun *run = &w->sweep->runs[i];
        if (run->state == MJ_RUN_COMPLETED || run->state == MJ_RUN_FAILED) continue;
        mj_term_say("run %zu of %zu: %s", i + 1, w->sweep->n_runs, run->name);
        rc = run_one(w, run, err);
        if (rc != 0) return rc;
        if (run->state == MJ_RUN_COMPLETED) {
            char took[32];
            const MjRunRecord *r = &run->record;
            double s = r->n_steps > 0 ? r->steps[r->n_steps - 1].elapsed_s : 0;
            mj_term_say("run %zu of %zu: %s completed, %zu steps in %s", i + 1, w->sweep->n_runs, run->name, r->n_steps,
                        mj_format_seconds(s, took));
        }
    }
    return rc;
}

/* What a start that was killed left half-written, while the folder is ours alone. */
static void remove_temporaries(const MjSweeper *w)
{
    static const char *const folders[] = {"", "/metrics", "/figures"};
    for (size_t f = 0; f < sizeof folders / sizeof *folders; f++) {
        char *dir = mj_strdup_printf("%s%s", w->dir, folders[f]), **names = NULL;
        size_t n = 0;
        if (mj_fs_list(dir, &names, &n, NULL) == 0) {
            for (size_t i = 0; i < n; i++) {
                size_t len = strlen(names[i]);
                if (len < 4 || strcmp(names[i] + len - 4, ".tmp") != 0) continue;
                char *path = mj_strdup_printf("%s/%s", dir, names[i]);
                (void)unlink(path);
                free(path);
            }
            mj_fs_list_free(names, n);
        }
        free(dir);
    }
}

static void requeue(MjSweep *s, bool failed_too)
{
    int kept = 0;
    for (size_t i = 0; i < s->n_runs; i++) {
        MjSweepRun *run = &s->runs[i];
        if (run->state == MJ_RUN_INTERRUPTED || run->state == MJ_RUN_RUNNING) run->state = MJ_RUN_QUEUED;
        if (run->state == MJ_RUN_FAILED && failed_too) run->state = MJ_RUN_QUEUED;
        kept += run->state == MJ_RUN_COMPLETED || run->state == MJ_RUN_FAILED;
    }
    if (kept > 0) mj_term_say("%d of %zu runs are done already; going on with what is left", kept, s->n_runs);
}

static int end_of_sweep(const MjSweep *s, MjError *err)
{
    int failed = 0, missing = 0; /* of them for want of a compiler, a device, a library */
    for (size_t i = 0; i < s->n_runs; i++) {
        failed += s->runs[i].state == MJ_RUN_FAILED;
        missing += s->runs[i].state == MJ_RUN_FAILED && mj_record_error_code(&s->runs[i].record) == MJ_ERR_MISSING;
    }
    if (failed == 0) return 0;
    return mj_error(err, missing == failed ? MJ_ERR_MISSING : MJ_ERR_DATA, "%d of %zu runs failed; see progress.md, and --retry-failed to try them again", failed,
                    s->n_runs);
}

int mj_cmd_sweep(const MjArgs *args, MjError *err)
{
    int rc = 0, changed = 0;
    const char *const *words, *const *sets;
    MjSweeper w = {.lock_fd = -1};
    mj_args_words(args, &words);
    size_t n_sets = mj_args_list(args, "set", &sets);
    const char *out = mj_args_string(args, "out");
    MJ_TRY(mj_sweep_load(words[0], sets, n_sets, &w.sweep, err));
    w.dir = out != NULL ? mj_xstrdup(out) : mj_strdup_printf("sweep-%s", w.sweep->name);
    bool busy = false;
    MJ_TRY(mj_fs_make_dirs(w.dir, 0777, err));
    MJ_TRY(mj_sweep_lock(w.dir, &w.lock_fd, &busy, err));
    if (busy) MJ_TRY(mj_error(err, MJ_ERR_USAGE, "another sweep is running in %s; wait for it, or choose another --out", w.dir));
    remove_temporaries(&w);
    MJ_TRY(mj_sweep_restore(w.sweep, w.dir, &changed, err));
    if (changed > 0) mj_term_warn("%d runs have other settings than when they ran; they are queued again", changed);
    requeue(w.sweep, mj_args_flag(args, "retry-failed"));
    mj_setup_signals();
    MJ_TRY(mj_sweep_save(w.sweep, w.dir, err));
    MJ_TRY(refresh(&w, 0, true, err));
    MJ_TRY(run_queue(&w, err));
    MJ_TRY(refresh(&w, 0, true, err));
    if (!mj_args_flag(args, "quiet")) {
        MjStr text = MJ_STR_INIT;
        mj_sweep_progress(w.sweep, &w.notes, &text);
        fputs(mj_str_text(&text), stdout);
        mj_str_free(&text);
    }
    rc = end_of_sweep(w.sweep, err);
out:
    if (w.lock_fd >= 0) close(w.lock_fd);
    mj_sweep_free(w.sweep);
    free(w.dir);
    return rc;
}
