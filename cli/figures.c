/* The four figures of a sweep, drawn by gnuplot in a child process. The script and its data stay beside the figures as
 * SWEEP.gp and SWEEP.dat, so that anybody can draw them again in another way.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/sweep.h"
#include "runtime/base/fs.h"
#include "runtime/base/sort.h"

typedef struct MjFigure {
    const char *name, *title, *label;
    int column;   /* of the data file */
    bool log_y;
} MjFigure;

static const MjFigure figures[] = {
    {"loss", "training loss", "loss (nats per token)", 2, false},
    {"toksec", "throughput", "tokens per second", 3, false},
    {"mfu", "bf16 MFU", "MFU (% of bf16 peak)", 4, false},
    {"dt_ms", "step time, compile stalls included", "step time (ms, log scale)", 5, true},
};

/* Colour-blind safe (Okabe and Ito), with a dash for the second round. */
static const char *const colours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"};
#define N_COLOURS (sizeof colours / sizeof *colours)

static double value_at(const MjRunRecord *r, size_t i, int column)
{
    const MjStepMetrics *m = &r->steps[i];
    return column == 2 ? m->loss : column == 3 ? m->tok_per_sec : column == 4 ? 100.0 * m->bf16_mfu : m->dt_ms;
}

/* Of the nine steps around the mean loss, and of times and rates the median, which one stall does not move: the figure shows
 * both, thin and thick. */
static double smooth_at(const MjRunRecord *r, size_t i, int column)
{
    size_t from = i < 4 ? 0 : i - 4, to = i + 5 < r->n_steps ? i + 5 : r->n_steps, n = to - from;
    double sum = 0, v[9];
    for (size_t k = 0; k < n; k++) sum += v[k] = value_at(r, from + k, column);
    return column == 2 || !isfinite(sum) ? sum / (double)n : mj_median(v, n);
}

static void put_cell(MjStr *s, double v)
{
    if (isfinite(v)) {
        mj_str_printf(s, " %.6g", v);
    } else {
        mj_str_puts(s, " NaN");
    }
}

static void write_data(const MjSweep *sweep, MjStr *s)
{
    mj_str_puts(s, "# step loss tok_per_sec mfu_percent dt_ms, then the same over 9 steps (mean loss, else medians); one block a run\n");
    for (size_t i = 0; i < sweep->n_runs; i++) {
        const MjRunRecord *r = &sweep->runs[i].record;
        if (r->n_steps == 0) continue;
        mj_str_printf(s, "# %s\n", sweep->runs[i].name);
        for (size_t k = 0; k < r->n_steps; k++) {
            mj_str_printf(s, "%d", r->steps[k].step);
            for (int c = 2; c <= 5; c++) put_cell(s, value_at(r, k, c));
            for (int c = 2; c <= 5; c++) put_cell(s, smooth_at(r, k, c));
            mj_str_puts(s, "\n");
        }
        mj_str_puts(s, "\n\n");
    }
}

/* Is there anything to draw in a column? An unknown MFU leaves the figure with a note instead of an empty frame. */
static bool column_known(const MjSweep *sweep, int column)
{
    for (size_t i = 0; i < sweep->n_runs; i++) {
        for (size_t k = 0; k < sweep->runs[i].record.n_steps; k++) {
            if (isfinite(value_at(&sweep->runs[i].record, k, column))) return true;
        }
    }
    return false;
}

static void write_plot(const MjSweep *sweep, const MjFigure *f, MjStr *s)
{
    bool known = column_known(sweep, f->column);
    mj_str_printf(s, "set output '%s_%s.png.tmp'\nset title \"%s: %s\" noenhanced font ',13'\n", sweep->name, f->name,
                  sweep->name, f->title);
    mj_str_printf(s, "set ylabel \"%s\"\n%s\n", f->label, f->log_y ? "set logscale y" : "unset logscale y");
    if (!known) {
        mj_str_puts(s, "set label 1 'n/a' at graph 0.5,0.5 center\nset xrange [0:1]\nset yrange [0:1]\n"
                       "plot NaN notitle\nunset label 1\nset autoscale\n");
        return;
    }
    mj_str_printf(s, "set yrange [%s:*]\nset xrange [0:*]\nplot", f->log_y || f->column == 2 ? "*" : "0");
    int index = 0;
    for (size_t i = 0; i < sweep->n_runs; i++) {
        const MjSweepRun *run = &sweep->runs[i];
        if (run->record.n_steps == 0) continue;
        const char *colour = colours[(size_t)index % N_COLOURS];
        int dash = 1 + (int)((size_t)index / N_COLOURS);
        mj_str_printf(s, "%s \\\n 'DATA' index %d using 1:%d with lines lw 0.7 lc rgb '#66%s' notitle, \\\n"
                         " 'DATA' index %d using 1:%d with lines lw 2 dt %d lc rgb '%s' title \"%s%s%s%s\" noenhanced",
                      index > 0 ? "," : "", index, f->column, colour + 1, index, f->column + 4, dash, colour, run->name,
                      run->state == MJ_RUN_COMPLETED ? "" : " (", run->state == MJ_RUN_COMPLETED ? "" : mj_run_state_name(run->state),
                      run->state == MJ_RUN_COMPLETED ? "" : ")");
        index++;
    }
    mj_str_puts(s, "\n");
}

static void write_script(const MjSweep *sweep, MjStr *s)
{
    mj_str_puts(s, "set terminal pngcairo size 1100,680 font 'sans,11' background rgb 'white'\n"
                   "set encoding utf8\nset grid lc rgb '#d8d8d8'\nset border 3 lc rgb '#606060'\nset tics nomirror\n"
                   "set xlabel 'optimizer step' offset 0,0.4\nset format y '%.6g'\n"
                   "set key below maxcols 2 reverse Left samplen 2 spacing 1.2\nset rmargin 4\n");
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) write_plot(sweep, &figures[i], s);
    mj_str_puts(s, "set output\n");
}

/* Runs gnuplot on a script in `folder`. Its complaints come back in `said`. */
static int run_gnuplot(const char *folder, const char *script, char *said, size_t cap, MjError *err)
{
    int pipe_fd[2];
    if (pipe2(pipe_fd, O_CLOEXEC) != 0) return mj_error_errno(err, MJ_ERR_IO, errno, "pipe for gnuplot");
    pid_t pid = fork();
    if (pid < 0) {
        close(pipe_fd[0]);
        close(pipe_fd[1]);
        return mj_error_errno(err, MJ_ERR_IO, errno, "fork for gnuplot");
    }
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(pipe_fd[1], STDOUT_FILENO);
        dup2(pipe_fd[1], STDERR_FILENO);
        setpgid(0, 0); /* an interrupt from the keyboard is the sweep's, not gnuplot's */
        if (chdir(folder) != 0) _exit(126);
        execlp("gnuplot", "gnuplot", script, (char *)NULL);
        _exit(127);
    }
    close(pipe_fd[1]);
    size_t len = 0;
    char chunk[512];
    for (ssize_t got; (got = read(pipe_fd[0], chunk, sizeof chunk)) > 0 || (got < 0 && errno == EINTR);) {
        size_t room = cap - 1 - len, take = got < 0 ? 0 : (size_t)got < room ? (size_t)got : room;
        memcpy(said + len, chunk, take);
        len += take;
    }
    said[len] = '\0';
    close(pipe_fd[0]);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
        return mj_error(err, MJ_ERR_MISSING, "gnuplot is not installed, so no figures were drawn; install gnuplot-nox, then run "
                        "`mojit report` on this folder");
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return mj_error(err, MJ_ERR_IO, "gnuplot failed on %s/%s: %s", folder, script, said[0] != '\0' ? said : "no message");
    }
    return 0;
}

/* gnuplot ends with 0 when its disk is full: only a figure with its last chunk is one. */
static bool is_whole(const char *path)
{
    static const unsigned char end[] = {'I', 'E', 'N', 'D', 0xae, 0x42, 0x60, 0x82};
    char *data = NULL;
    size_t len = 0;
    bool whole = mj_fs_read(path, &data, &len, NULL) == 0 && len > sizeof end && memcmp(data + len - sizeof end, end, sizeof end) == 0;
    free(data);
    return whole;
}

static int publish(const MjSweep *sweep, const char *folder, MjError *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof figures / sizeof *figures; i++) {
        char *to = mj_strdup_printf("%s/%s_%s.png", folder, sweep->name, figures[i].name);
        char *from = mj_strdup_printf("%s.tmp", to);
        if (!is_whole(from)) {
            rc = mj_error(err, MJ_ERR_IO, "gnuplot wrote no whole picture for %s: is the disk full?", to);
            (void)unlink(from);
        } else if (rename(from, to) != 0) {
            rc = mj_error_errno(err, MJ_ERR_IO, errno, "cannot write %s", to);
        }
        free(from);
        free(to);
    }
    return rc;
}

static void replace_all(MjStr *s, const char *from, const char *to)
{
    MjStr out = MJ_STR_INIT;
    const char *at = mj_str_text(s);
    for (const char *hit; (hit = strstr(at, from)) != NULL; at = hit + strlen(from)) {
        mj_str_append(&out, at, (size_t)(hit - at));
        mj_str_puts(&out, to);
    }
    mj_str_puts(&out, at);
    mj_str_free(s);
    *s = out;
}

int mj_sweep_write_figures(const MjSweep *sweep, const char *dir, MjError *err)
{
    bool any = false;
    for (size_t i = 0; i < sweep->n_runs; i++) any |= sweep->runs[i].record.n_steps > 0;
    if (!any) return 0;
    int rc = 0;
    MjStr data = MJ_STR_INIT, script = MJ_STR_INIT;
    char *folder = mj_strdup_printf("%s/figures", dir);
    char *data_name = mj_strdup_printf("%s.dat", sweep->name), *script_name = mj_strdup_printf("%s.gp", sweep->name);
    char *data_path = mj_strdup_printf("%s/%s", folder, data_name), *script_path = mj_strdup_printf("%s/%s", folder, script_name);
    char said[400];
    write_data(sweep, &data);
    write_script(sweep, &script);
    replace_all(&script, "DATA", data_name);
    MJ_TRY(mj_fs_make_dirs(folder, 0777, err));
    MJ_TRY(mj_fs_write_atomic(data_path, mj_str_text(&data), data.len, err));
    MJ_TRY(mj_fs_write_atomic(script_path, mj_str_text(&script), script.len, err));
    MJ_TRY(run_gnuplot(folder, script_name, said, sizeof said, err));
    MJ_TRY(publish(sweep, folder, err));
out:
    mj_str_free(&data);
    mj_str_free(&script);
    free(folder);
    free(data_name);
    free(script_name);
    free(data_path);
    free(script_path);
    return rc;
}
