/* Reading and checking a sweep file. Syntax (INI):
 *
 *   [sweep]     name = NAME   baseline = RUN   config = FILE (optional, beside the sweep file)   profile = true|false
 *   [defaults]  section.key = value   for every run
 *   [run NAME]  section.key = value   over the defaults; runs go in the order of the file
 */
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sweep.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"

#define MAX_LINE 199 /* inih's */

typedef struct MjSweepReader {
    MjSweep *sweep;
    const char *path;
    const char *at;   /* rest of the text */
    int line;
    MjSetting *defaults;
    size_t n_defaults;
    MjError *err;
    int rc;
} MjSweepReader;

static void add_setting(MjSetting **list, size_t *n, const char *section, const char *key, const char *value, int line)
{
    *list = mj_xrealloc(*list, (*n + 1) * sizeof **list);
    (*list)[(*n)++] = (MjSetting){mj_xstrdup(section), mj_xstrdup(key), mj_xstrdup(value), line};
}

static void free_settings(MjSetting *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(list[i].section);
        free(list[i].key);
        free(list[i].value);
    }
    free(list);
}

/* Hands inih one line at a time, so that the line number of a setting is known. */
static char *next_line(char *buf, int cap, void *user)
{
    MjSweepReader *r = user;
    if (*r->at == '\0' || r->rc != 0) return NULL;
    size_t len = strcspn(r->at, "\n");
    r->line++;
    if (len > MAX_LINE - 1 || len + 2 > (size_t)cap) {
        r->rc = mj_error(r->err, MJ_ERR_USAGE, "%s:%d: line of %zu characters; at most %d are allowed", r->path, r->line, len,
                         MAX_LINE - 1);
        return NULL;
    }
    memcpy(buf, r->at, len);
    buf[len] = '\n';
    buf[len + 1] = '\0';
    r->at += len + (r->at[len] == '\n');
    return buf;
}

static int sweep_key(MjSweepReader *r, const char *key, const char *value)
{
    static const char *const keys[] = {"name", "baseline", "config", "profile"};
    MjSweep *s = r->sweep;
    char **text = strcmp(key, "name") == 0 ? &s->name : strcmp(key, "baseline") == 0 ? &s->baseline
                : strcmp(key, "config") == 0 ? &s->config : NULL;
    if (text != NULL) {
        free(*text);
        *text = mj_xstrdup(value);
        return 0;
    }
    if (strcmp(key, "profile") == 0) {
        s->profile = strcmp(value, "true") == 0;
        if (s->profile || strcmp(value, "false") == 0) return 0;
        return mj_error(r->err, MJ_ERR_USAGE, "%s:%d: profile = %s: expected true or false", r->path, r->line, value);
    }
    const char *near = mj_nearest(key, keys, 4);
    return mj_error(r->err, MJ_ERR_USAGE, "%s:%d: unknown key '%s' in [sweep]; %s%s", r->path, r->line, key,
                    near != NULL ? "did you mean " : "expected name, baseline, config or profile", near != NULL ? near : "");
}

static bool name_is_safe(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    return name[0] != '\0' && name[0] != '.' && strlen(name) <= 100 && name[strspn(name, allowed)] == '\0';
}

static MjSweepRun *run_named(MjSweep *s, const char *name)
{
    for (size_t i = 0; i < s->n_runs; i++) {
        if (strcmp(s->runs[i].name, name) == 0) return &s->runs[i];
    }
    s->runs = mj_xrealloc(s->runs, (s->n_runs + 1) * sizeof *s->runs);
    MjSweepRun *run = &s->runs[s->n_runs++];
    *run = (MjSweepRun){.name = mj_xstrdup(name)};
    return run;
}

static int split_setting(MjSweepReader *r, const char *key, const char *value, MjSetting **list, size_t *n)
{
    const char *dot = strchr(key, '.');
    if (dot == NULL) {
        return mj_error(r->err, MJ_ERR_USAGE, "%s:%d: '%s': expected section.key = value, such as jit.mode = static", r->path,
                        r->line, key);
    }
    if (strncmp(key, "run.out", 8) == 0) {
        return mj_error(r->err, MJ_ERR_USAGE, "%s:%d: run.out is the sweep's to set; leave it out", r->path, r->line);
    }
    char *section = mj_xstrndup(key, (size_t)(dot - key));
    MjConfig scratch;
    mj_config_defaults(&scratch);
    char *where = mj_strdup_printf("%s:%d", r->path, r->line);
    int rc = mj_config_set_key(&scratch, section, dot + 1, value, where, r->err);
    if (rc == 0) add_setting(list, n, section, dot + 1, value, r->line);
    free(where);
    free(section);
    return rc;
}

static int take_setting(MjSweepReader *r, const char *section, const char *key, const char *value)
{
    if (strcmp(section, "sweep") == 0) return sweep_key(r, key, value);
    if (strcmp(section, "defaults") == 0) return split_setting(r, key, value, &r->defaults, &r->n_defaults);
    if (strncmp(section, "run ", 4) == 0) {
        const char *name = section + 4 + strspn(section + 4, " ");
        if (!name_is_safe(name)) {
            return mj_error(r->err, MJ_ERR_USAGE, "%s:%d: run name '%s': expected letters, digits, '_', '-' and '.', as it is a "
                            "folder's name too", r->path, r->line, name);
        }
        MjSweepRun *run = run_named(r->sweep, name);
        return split_setting(r, key, value, &run->settings, &run->n_settings);
    }
    return mj_error(r->err, MJ_ERR_USAGE, "%s:%d: unknown section [%s]; expected [sweep], [defaults] or [run NAME]", r->path,
                    r->line, section);
}

static int on_setting(void *user, const char *section, const char *key, const char *value)
{
    MjSweepReader *r = user;
    if (r->rc == 0) r->rc = take_setting(r, section, key, value);
    return r->rc == 0;
}

static void prepend_defaults(MjSweepReader *r)
{
    for (size_t i = 0; i < r->sweep->n_runs; i++) {
        MjSweepRun *run = &r->sweep->runs[i];
        MjSetting *all = NULL;
        size_t n = 0;
        for (size_t k = 0; k < r->n_defaults; k++) {
            const MjSetting *d = &r->defaults[k];
            add_setting(&all, &n, d->section, d->key, d->value, d->line);
        }
        all = mj_xrealloc(all, (n + run->n_settings + 1) * sizeof *all);
        memcpy(all + n, run->settings, run->n_settings * sizeof *all);
        free(run->settings);
        run->settings = all;
        run->n_settings += n;
    }
}

static int append_sets(MjSweep *s, const char *const *sets, size_t n_sets, MjError *err)
{
    for (size_t i = 0; i < n_sets; i++) {
        MjConfig scratch;
        mj_config_defaults(&scratch);
        int rc = mj_config_set(&scratch, sets[i], err);
        if (rc != 0) return rc;
        const char *dot = strchr(sets[i], '.'), *eq = strchr(sets[i], '=');
        if (dot == NULL || eq == NULL || dot > eq) return mj_error(err, MJ_ERR_USAGE, "--set %s: expected section.key=value", sets[i]);
        char *section = mj_xstrndup(sets[i], (size_t)(dot - sets[i]));
        char *key = mj_xstrndup(dot + 1, (size_t)(eq - dot - 1));
        for (size_t k = 0; k < s->n_runs; k++) {
            add_setting(&s->runs[k].settings, &s->runs[k].n_settings, section, key, eq + 1, 0);
        }
        free(section);
        free(key);
    }
    return 0;
}

static int check_sweep(MjSweep *s, const char *path, MjError *err)
{
    if (s->name == NULL) return mj_error(err, MJ_ERR_USAGE, "%s: [sweep] name is missing", path);
    if (!name_is_safe(s->name)) {
        return mj_error(err, MJ_ERR_USAGE, "%s: sweep name '%s': expected letters, digits, '_', '-' and '.'", path, s->name);
    }
    if (s->n_runs == 0) return mj_error(err, MJ_ERR_USAGE, "%s: no [run NAME] with settings; expected at least one", path);
    if (s->baseline == NULL) s->baseline = mj_xstrdup(s->runs[0].name);
    if (strcmp(mj_sweep_baseline(s)->name, s->baseline) != 0) {
        const char *names[256];
        size_t n = 0;
        for (; n < s->n_runs && n < 256; n++) names[n] = s->runs[n].name;
        const char *near = mj_nearest(s->baseline, names, n);
        return mj_error(err, MJ_ERR_USAGE, "%s: baseline '%s' is not a run of this sweep%s%s", path, s->baseline,
                        near != NULL ? "; did you mean " : "", near != NULL ? near : "");
    }
    for (size_t i = 0; i < s->n_runs; i++) {
        MjConfig config;
        int rc = mj_sweep_run_config(s, &s->runs[i], &config, err);
        if (rc != 0) return mj_error_context(err, rc, "%s: [run %s]", path, s->runs[i].name);
    }
    return 0;
}

int mj_sweep_load(const char *path, const char *const *sets, size_t n_sets, MjSweep **out, MjError *err)
{
    int rc = 0;
    char *text = NULL;
    MjSweepReader r = {.sweep = mj_xcalloc(1, sizeof(MjSweep)), .path = path, .err = err};
    MJ_TRY(mj_fs_read(path, &text, NULL, err));
    r.at = text;
    r.sweep->file = mj_xstrdup(path);
    int bad_line = ini_parse_stream(next_line, &r, on_setting, &r);
    MJ_TRY(r.rc);
    if (bad_line != 0) MJ_TRY(mj_error(err, MJ_ERR_USAGE, "%s:%d: expected [section] or key = value", path, bad_line));
    if (r.sweep->config != NULL && r.sweep->config[0] != '/') { /* beside the sweep file */
        const char *slash = strrchr(path, '/');
        char *full = mj_strdup_printf("%.*s%s", slash != NULL ? (int)(slash - path + 1) : 0, path, r.sweep->config);
        free(r.sweep->config);
        r.sweep->config = full;
    }
    prepend_defaults(&r);
    MJ_TRY(append_sets(r.sweep, sets, n_sets, err));
    MJ_TRY(check_sweep(r.sweep, path, err));
    *out = r.sweep;
    r.sweep = NULL;
out:
    free_settings(r.defaults, r.n_defaults);
    mj_sweep_free(r.sweep);
    free(text);
    return rc;
}

int mj_sweep_run_config(const MjSweep *s, const MjSweepRun *run, MjConfig *out, MjError *err)
{
    int rc = 0;
    MjConfig config;
    mj_config_defaults(&config);
    if (s->config != NULL) MJ_TRY(mj_config_load(&config, s->config, err));
    for (size_t i = 0; i < run->n_settings; i++) {
        const MjSetting *v = &run->settings[i];
        char where[300];
        snprintf(where, sizeof where, "%s:%d", s->file != NULL ? s->file : "state.json", v->line);
        MJ_TRY(mj_config_set_key(&config, v->section, v->key, v->value, v->line > 0 ? where : "--set", err));
    }
    MJ_TRY(mj_config_check(&config, err));
    *out = config;
out:
    return rc;
}

void mj_sweep_free(MjSweep *s)
{
    if (s == NULL) return;
    for (size_t i = 0; i < s->n_runs; i++) {
        free_settings(s->runs[i].settings, s->runs[i].n_settings);
        mj_record_free(&s->runs[i].record);
        free(s->runs[i].name);
        free(s->runs[i].error);
    }
    free(s->runs);
    free(s->name);
    free(s->baseline);
    free(s->file);
    free(s->config);
    free(s);
}

const MjSweepRun *mj_sweep_baseline(const MjSweep *s)
{
    for (size_t i = 0; i < s->n_runs; i++) {
        if (s->baseline != NULL && strcmp(s->runs[i].name, s->baseline) == 0) return &s->runs[i];
    }
    return &s->runs[0];
}

char *mj_sweep_run_dir(const char *dir, const MjSweepRun *run) { return mj_strdup_printf("%s/runs/%s", dir, run->name); }
