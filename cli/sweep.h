/* A sweep: named runs in a queue, their states and records, and what is made of them (CSVs, figures, progress.md).
 * Owns the sweep file, the state file and everything written from records; starting the runs is cmd_sweep.c.
 *
 * DIR/state.json                         queue, settings and states; written atomically at every change
 * DIR/runs/RUN/                          one run's records (records.h) and stderr.txt
 * DIR/metrics/SWEEP_{summary,steps}.csv  DIR/figures/SWEEP_{loss,toksec,mfu,dt_ms}.png  DIR/progress.md
 *
 * Everything but the records is replaced by rename, so a reader sees one whole version at any moment.
 */
#ifndef MJ_CLI_SWEEP_H
#define MJ_CLI_SWEEP_H

#include <stdbool.h>

#include "cli/records.h"
#include "runtime/base/error.h"
#include "runtime/base/str.h"
#include "train/config.h"

typedef enum MjRunState { MJ_RUN_QUEUED, MJ_RUN_RUNNING, MJ_RUN_COMPLETED, MJ_RUN_FAILED, MJ_RUN_INTERRUPTED } MjRunState;

typedef struct MjSetting {
    char *section, *key, *value;
    int line; /* in the sweep file; 0 = from the command line or the state file */
} MjSetting;

typedef struct MjSweepRun {
    char *name;
    MjSetting *settings; /* defaults first, then the run's own: later ones win */
    size_t n_settings;
    MjRunState state;
    char *error;         /* of a failed run; NULL */
    MjRunRecord record;
} MjSweepRun;

typedef struct MjSweep {
    char *name, *baseline, *file;
    char *config;  /* base configuration file, NULL */
    bool profile;  /* time by op in every run */
    MjSweepRun *runs;
    size_t n_runs;
} MjSweep;

const char *mj_run_state_name(MjRunState state);

/* Reads a sweep file; `sets` ("section.key=value") are put after every run's settings. Each run's configuration is
 * checked here, so that a mistake in the last run is found before the first one starts. */
int mj_sweep_load(const char *path, const char *const *sets, size_t n_sets, MjSweep **out, MjError *err) MJ_MUST_CHECK;
void mj_sweep_free(MjSweep *s); /* NULL is fine */
int mj_sweep_run_config(const MjSweep *s, const MjSweepRun *run, MjConfig *out, MjError *err) MJ_MUST_CHECK;
char *mj_sweep_run_dir(const char *dir, const MjSweepRun *run); /* malloc'd */

/* The state file. `restore` takes over the states of runs whose settings are the same as then; a run that was running is
 * queued again. *changed counts runs whose settings differ. No state file: nothing happens. */
/* One writer of a folder at a time: *fd (>= 0) holds the lock until it is closed; *busy: another process has it, *fd is -1. */
int mj_sweep_lock(const char *dir, int *fd, bool *busy, MjError *err) MJ_MUST_CHECK;

int mj_sweep_save(const MjSweep *s, const char *dir, MjError *err) MJ_MUST_CHECK;
int mj_sweep_restore(MjSweep *s, const char *dir, int *changed, MjError *err) MJ_MUST_CHECK;
/* The sweep of a folder from its state file alone, for `report`. */
int mj_sweep_open(const char *dir, MjSweep **out, MjError *err) MJ_MUST_CHECK;

/* Follows the records of all runs. */
int mj_sweep_read(MjSweep *s, const char *dir, MjError *err) MJ_MUST_CHECK;

int mj_sweep_write_csv(const MjSweep *s, const char *dir, MjError *err) MJ_MUST_CHECK;

/* Figures by gnuplot. A missing gnuplot is MJ_ERR_MISSING; the script and the data stay beside the figures. */
int mj_sweep_write_figures(const MjSweep *s, const char *dir, MjError *err) MJ_MUST_CHECK;

typedef struct MjResource {
    char device[96];
    double utilisation;  /* 0 to 1; NAN unknown */
    double memory_bytes, memory_total;
} MjResource;
#define MJ_MAX_RESOURCES 17
/* Machine CPUs (since the last call) and memory of `pid` (0 = none), then every GPU that NVML shows. */
int mj_resource_sample(long pid, MjResource *out, int cap);

/* What goes beside the records into progress.md. */
typedef struct MjProgressNotes {
    MjResource resources[MJ_MAX_RESOURCES];
    int n_resources;
    char sampled_at[32];
    const char *figure_note; /* why figures are missing; NULL */
} MjProgressNotes;
void mj_sweep_progress(const MjSweep *s, const MjProgressNotes *notes, MjStr *out);
/* The interpretation in words, computed from the records; Markdown list items. */
void mj_sweep_interpret(const MjSweep *s, MjStr *out);
/* All tables of a sweep as one JSON value. */
json_t *mj_sweep_json(const MjSweep *s);

const MjSweepRun *mj_sweep_baseline(const MjSweep *s);
/* 100 * (v / base - 1); NAN when either is unknown. */
double mj_percent_delta(double v, double base);

#endif
