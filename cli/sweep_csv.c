/* The two CSV files of a sweep. An unknown number is an empty field. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sweep.h"
#include "runtime/base/fs.h"

static void put_text(MjStr *s, const char *text)
{
    if (strpbrk(text, ",\"\n\r") == NULL) {
        mj_str_printf(s, ",%s", text);
        return;
    }
    mj_str_puts(s, ",\"");
    for (; *text != '\0'; text++) {
        if (*text == '"') mj_str_puts(s, "\"");
        mj_str_append(s, text, 1);
    }
    mj_str_puts(s, "\"");
}

static void put_real(MjStr *s, double v, const char *fmt)
{
    mj_str_puts(s, ",");
    if (!isfinite(v)) return;
    char buf[64];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(buf, sizeof buf, fmt, v);
#pragma GCC diagnostic pop
    mj_str_puts(s, buf);
}

static void summary_row(const MjSweepRun *run, MjStr *s)
{
    const MjRunRecord *r = &run->record;
    MjRunStats st;
    mj_record_stats(r, &st);
    mj_str_printf(s, "%s,%s,%zu,", run->name, mj_run_state_name(run->state), r->n_steps);
    if (r->n_steps > 0) mj_str_printf(s, "%d", r->steps[r->n_steps - 1].step);
    mj_str_puts(s, ",");
    if (r->total_steps > 0) mj_str_printf(s, "%d", r->total_steps);
    put_real(s, st.last_loss, "%.6f");
    put_real(s, st.tail_tok_per_sec, "%.2f");
    put_real(s, st.tail_mfu, "%.6f");
    put_real(s, st.tail_dt_ms, "%.3f");
    put_text(s, r->mode);
    if (r->started) {
        mj_str_printf(s, ",%llu", (unsigned long long)st.compiles);
        put_real(s, st.compile_s, "%.3f");
        mj_str_printf(s, ",%llu", (unsigned long long)st.cache_hits);
        put_real(s, st.stall_ms, "%.3f");
    } else {
        mj_str_puts(s, ",,,,");
    }
    put_real(s, r->started ? r->peak_bytes : (double)NAN, "%.0f");
    put_text(s, r->version);
    put_text(s, r->device);
    mj_str_puts(s, "\n");
}

static void step_row(const char *run, const MjStepMetrics *m, MjStr *s)
{
    mj_str_printf(s, "%s,%d", run, m->step);
    put_real(s, m->loss, "%.9g");
    put_real(s, m->lr, "%.6g");
    put_real(s, m->dt_ms, "%.3f");
    put_real(s, m->tok_per_sec, "%.2f");
    put_real(s, m->bf16_mfu, "%.6f");
    put_real(s, m->grad_norm, "%.6g");
    mj_str_printf(s, ",%llu,%llu", (unsigned long long)m->compiles, (unsigned long long)m->cache_hits);
    put_real(s, m->stall_ms, "%.3f");
    mj_str_printf(s, ",%lld,%lld\n", (long long)m->padded_rows, (long long)m->dropped_rows);
}

static int write_metrics(const char *dir, const char *sweep, const char *what, const MjStr *s, MjError *err)
{
    char *path = mj_strdup_printf("%s/metrics/%s_%s.csv", dir, sweep, what);
    int rc = mj_fs_write_atomic(path, mj_str_text(s), s->len, err);
    free(path);
    return rc;
}

int mj_sweep_write_csv(const MjSweep *sweep, const char *dir, MjError *err)
{
    int rc = 0;
    MjStr summary = MJ_STR_INIT, steps = MJ_STR_INIT;
    char *folder = mj_strdup_printf("%s/metrics", dir);
    mj_str_puts(&summary, "run,status,steps_observed,latest_step,total_steps,last_loss,tail50_tok_per_sec,tail50_bf16_mfu,"
                          "tail50_dt_ms,mode,compiles,compile_s,cache_hits,stall_ms,peak_mem_bytes,version,device\n");
    mj_str_puts(&steps, "run,step,loss,lr,dt_ms,tok_per_sec,bf16_mfu,grad_norm,compiles,cache_hits,stall_ms,padded_rows,"
                        "dropped_rows\n");
    for (size_t i = 0; i < sweep->n_runs; i++) {
        const MjSweepRun *run = &sweep->runs[i];
        summary_row(run, &summary);
        for (size_t k = 0; k < run->record.n_steps; k++) step_row(run->name, &run->record.steps[k], &steps);
    }
    MJ_TRY(mj_fs_make_dirs(folder, 0777, err));
    MJ_TRY(write_metrics(dir, sweep->name, "summary", &summary, err));
    MJ_TRY(write_metrics(dir, sweep->name, "steps", &steps, err));
out:
    mj_str_free(&summary);
    mj_str_free(&steps);
    free(folder);
    return rc;
}
