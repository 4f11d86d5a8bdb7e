/* The state file of a sweep: what is done, what is left, with which settings; and the lock of its folder. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "cli/sweep.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"

static const char *const state_names[] = {"queued", "running", "completed", "failed", "interrupted"};

const char *mj_run_state_name(MjRunState state) { return state_names[state]; }

static char *state_path(const char *dir) { return mj_strdup_printf("%s/state.json", dir); }

/* The effective settings of a run as text: what makes it the same run. */
static char *settings_text(const MjSweep *s, const MjSweepRun *run)
{
    MjConfig config;
    if (mj_sweep_run_config(s, run, &config, NULL) != 0) return mj_xstrdup("");
    return mj_config_dump(&config);
}

int mj_sweep_lock(const char *dir, int *fd, bool *busy, MjError *err)
{
    char *path = mj_strdup_printf("%s/.lock", dir);
    int rc = 0, lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    *busy = false;
    if (lock < 0) {
        rc = mj_error_errno(err, MJ_ERR_IO, errno, "cannot write in %s", dir);
    } else if (flock(lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) { /* without locks there is nobody to see */
        *busy = true;
        close(lock);
        lock = -1;
    }
    *fd = lock;
    free(path);
    return rc;
}

int mj_sweep_save(const MjSweep *s, const char *dir, MjError *err)
{
    json_t *runs = json_array();
    for (size_t i = 0; i < s->n_runs; i++) {
        const MjSweepRun *run = &s->runs[i];
        char *text = settings_text(s, run);
        json_array_append_new(runs, json_pack("{ss ss ss ss}", "name", run->name, "state", state_names[run->state], "error",
                                              run->error != NULL ? run->error : "", "settings", text));
        free(text);
    }
    json_t *o = json_pack("{ss ss ss sb so}", "sweep", s->name, "baseline", s->baseline, "file", s->file, "profile",
                          (int)s->profile, "runs", runs);
    char *text = json_dumps(o, JSON_INDENT(2));
    char *path = state_path(dir);
    int rc = mj_fs_write_atomic(path, text, strlen(text), err);
    free(path);
    free(text);
    json_decref(o);
    return rc;
}

static int load_state(const char *dir, json_t **out, MjError *err)
{
    int rc = 0;
    char *path = state_path(dir), *text = NULL;
    json_error_t why;
    MJ_TRY(mj_fs_read(path, &text, NULL, err));
    json_t *o = json_loads(text, 0, &why);
    if (o == NULL || !json_is_array(json_object_get(o, "runs"))) {
        json_decref(o);
        MJ_TRY(mj_error(err, MJ_ERR_DATA, "%s:%d: not a sweep's state: %s; remove it to start the sweep anew", path,
                        o == NULL ? why.line : 1, o == NULL ? why.text : "no runs"));
    }
    *out = o;
out:
    free(text);
    free(path);
    return rc;
}

static const char *text_at(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

static MjRunState state_of(const json_t *o)
{
    for (int i = 0; i < 5; i++) {
        if (strcmp(text_at(o, "state"), state_names[i]) == 0) return (MjRunState)i;
    }
    return MJ_RUN_QUEUED;
}

int mj_sweep_restore(MjSweep *s, const char *dir, int *changed, MjError *err)
{
    int rc = 0;
    json_t *o = NULL;
    char *path = state_path(dir);
    *changed = 0;
    if (!mj_fs_exists(path)) goto out;
    MJ_TRY(load_state(dir, &o, err));
    if (strcmp(text_at(o, "sweep"), s->name) != 0) {
        MJ_TRY(mj_error(err, MJ_ERR_USAGE, "%s holds the sweep '%s', not '%s'; choose another folder with --out", dir,
                        text_at(o, "sweep"), s->name));
    }
    size_t index;
    json_t *row;
    json_array_foreach(json_object_get(o, "runs"), index, row) {
        for (size_t i = 0; i < s->n_runs; i++) {
            MjSweepRun *run = &s->runs[i];
            if (strcmp(run->name, text_at(row, "name")) != 0) continue;
            char *now = settings_text(s, run);
            bool same = strcmp(now, text_at(row, "settings")) == 0;
            free(now);
            MjRunState state = state_of(row);
            if (!same) {
                *changed += state != MJ_RUN_QUEUED;
                continue;
            }
            run->state = state == MJ_RUN_RUNNING ? MJ_RUN_QUEUED : state; /* it was cut: from its beginning again */
            if (state == MJ_RUN_FAILED) run->error = mj_xstrdup(text_at(row, "error"));
        }
    }
out:
    json_decref(o);
    free(path);
    return rc;
}

int mj_sweep_open(const char *dir, MjSweep **out, MjError *err)
{
    int rc = 0;
    json_t *o = NULL;
    if (!mj_fs_is_dir(dir)) return mj_error(err, MJ_ERR_USAGE, "%s is not a folder; expected the --out folder of a sweep", dir);
    rc = load_state(dir, &o, err);
    if (rc != 0) return mj_error_context(err, rc, "%s is not the folder of a sweep", dir);
    MjSweep *s = mj_xcalloc(1, sizeof *s);
    s->name = mj_xstrdup(text_at(o, "sweep"));
    s->baseline = mj_xstrdup(text_at(o, "baseline"));
    s->file = mj_xstrdup(text_at(o, "file"));
    s->profile = json_is_true(json_object_get(o, "profile"));
    size_t n = json_array_size(json_object_get(o, "runs"));
    s->runs = mj_xcalloc(n + 1, sizeof *s->runs);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(json_object_get(o, "runs"), i);
        s->runs[i].name = mj_xstrdup(text_at(row, "name"));
        s->runs[i].state = state_of(row);
        if (text_at(row, "error")[0] != '\0') s->runs[i].error = mj_xstrdup(text_at(row, "error"));
    }
    s->n_runs = n;
    json_decref(o);
    *out = s;
    return 0;
}

int mj_sweep_read(MjSweep *s, const char *dir, MjError *err)
{
    for (size_t i = 0; i < s->n_runs; i++) {
        MjSweepRun *run = &s->runs[i];
        if (run->state == MJ_RUN_QUEUED) continue; /* what lies there is of an earlier, cut start */
        char *path = mj_sweep_run_dir(dir, run);
        int rc = mj_record_read(&run->record, path, err);
        free(path);
        if (rc != 0) return rc;
    }
    return 0;
}
