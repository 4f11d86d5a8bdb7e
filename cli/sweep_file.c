/* Reading and checking a sweep file. Syntax (INI):
 *
 *   [sweep]     name = NAME   baseline = RUN   config = FILE (optional, beside the sweep file)   profile = true|false
 *   [defaults]  section.key = value   for every run
 *   [run NAME]  section.key = value   over the defaults; runs go in the order of the file
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sweep.h"
#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"
#include "train/ini_file.h"

typedef struct MjSweepReader {
    MjSweep *sweep;
    MjSetting *defaults;
    size_t n_defaults;
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

static int sweep_key(MjSweep *s, const char *key, const char *value, const char *where, MjError *err)
{
    static const char *const keys[] = {"name", "baseline", "config", "profile"};
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
        return mj_error(err, MJ_ERR_USAGE, "%s: profile = %s: expected true or false", where, value);
    }
    const char *near = mj_nearest(key, keys, 4);
    return mj_error(err, MJ_ERR_USAGE, "%s: unknown key '%s' in [sweep]; %s%s", where, key, near != NULL ? "did you mean " : "expected name, baseline, config or profile", near != NULL ? near : "");
}

static bool name_is_safe(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    return name[0] != '\0' && name[0] != '.' && strlen(name) <= 100 && name[strspn(name, allowed)] == '\0';
}

static int split_setting(const char *key, const char *value, const char *where, MjSetting **list, size_t *n, MjError *err)
{
    const char *dot = strchr(key, '.');
    if (dot == NULL) {
        return mj_error(err, MJ_ERR_USAGE, "%s: '%s': expected section.key = value, such as jit.mode = static", where, key);
    }
    if (strcmp(key, "run.out") == 0) {
        return mj_error(err, MJ_ERR_USAGE, "%s: run.out is the sweep's to set; leave it out", where);
    }
    char *section = mj_xstrndup(key, (size_t)(dot - key));
    MjConfig scratch;
    mj_config_defaults(&scratch);
    int rc = mj_config_set_key(&scratch, section, dot + 1, value, where, err);
    if (rc == 0) add_setting(list, n, section, dot + 1, value, atoi(strrchr(where, ':') + 1));
    free(section);
    return rc;
}

/* A run is there from its heading on: one without settings of its own runs the defaults. */
static int on_section(void *user, const char *section, const char *where, MjError *err)
{
    MjSweep *s = ((MjSweepReader *)user)->sweep;
    if (strcmp(section, "sweep") == 0 || strcmp(section, "defaults") == 0) return 0;
    if (strncmp(section, "run ", 4) != 0) {
        return mj_error(err, MJ_ERR_USAGE, "%s: unknown section [%s]; expected [sweep], [defaults] or [run NAME]", where, section);
    }
    const char *name = section + 4 + strspn(section + 4, " ");
    if (!name_is_safe(name)) {
        return mj_error(err, MJ_ERR_USAGE, "%s: run name '%s': expected letters, digits, '_', '-' and '.', as it is a folder's name "
                        "too", where, name);
    }
    for (size_t i = 0; i < s->n_runs; i++) {
        if (strcmp(s->runs[i].name, name) == 0) return mj_error(err, MJ_ERR_USAGE, "%s: there is a run %s already", where, name);
    }
    s->runs = mj_xrealloc(s->runs, (s->n_runs + 1) * sizeof *s->runs);
    s->runs[s->n_runs++] = (MjSweepRun){.name = mj_xstrdup(name)};
    return 0;
}

static int on_setting(void *user, const char *section, const char *key, const char *value, const char *where, MjError *err)
{
    MjSweepReader *r = user;
    if (strcmp(section, "sweep") == 0) return sweep_key(r->sweep, key, value, where, err);
    if (strcmp(section, "defaults") == 0) return split_setting(key, value, where, &r->defaults, &r->n_defaults, err);
    MjSweepRun *run = &r->sweep->runs[r->sweep->n_runs - 1]; /* on_section was here */
    return split_setting(key, value, where, &run->settings, &run->n_settings, err);
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
        if (run->n_settings > 0) memcpy(all + n, run->settings, run->n_settings * sizeof *all);
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
    if (s->n_runs == 0) return mj_error(err, MJ_ERR_USAGE, "%s: no [run NAME]; expected at least one", path);
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
    MjSweepReader r = {.sweep = mj_xcalloc(1, sizeof(MjSweep))};
    const MjIniReader reader = {.section = on_section, .setting = on_setting, .user = &r};
    r.sweep->file = mj_xstrdup(path);
    MJ_TRY(mj_ini_read(path, &reader, err));
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
