/* progress.md and the JSON view of a sweep: queue, live metrics, comparison, interpretation, resources, files. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sweep.h"
#include "cli/table.h"

static int count_state(const MjSweep *s, MjRunState state)
{
    int n = 0;
    for (size_t i = 0; i < s->n_runs; i++) n += s->runs[i].state == state;
    return n;
}

static MjTable *queue_table(const MjSweep *s)
{
    static const MjColumn columns[] = {{"position", "#", true},      {"run", "run", false},
                                       {"status", "status", false},  {"mode", "mode", false},
                                       {"steps", "steps", true},     {"total_steps", "of", true},
                                       {"last_loss", "last loss", true}, {"started_at", "started", false},
                                       {NULL, NULL, false}};
    MjTable *t = mj_table_open(columns);
    for (size_t i = 0; i < s->n_runs; i++) {
        const MjRunRecord *r = &s->runs[i].record;
        mj_table_int(t, (int64_t)i + 1);
        mj_table_text(t, s->runs[i].name);
        mj_table_text(t, mj_run_state_name(s->runs[i].state));
        mj_table_text(t, r->mode[0] != '\0' ? r->mode : NULL);
        mj_table_int(t, (int64_t)r->n_steps);
        mj_table_real(t, r->total_steps > 0 ? r->total_steps : (double)NAN, 0);
        mj_table_real(t, r->n_steps > 0 ? r->steps[r->n_steps - 1].loss : (double)NAN, 6);
        mj_table_text(t, r->started_at[0] != '\0' ? r->started_at : NULL);
    }
    return t;
}

static void signed_percent(MjTable *t, double v)
{
    char buf[32];
    if (isfinite(v)) {
        snprintf(buf, sizeof buf, "%+.1f", v);
    } else {
        snprintf(buf, sizeof buf, "n/a");
    }
    mj_table_show(t, isfinite(v) ? json_real(v) : json_null(), buf);
}

static MjTable *compare_table(const MjSweep *s)
{
    static const MjColumn columns[] = {
        {"run", "run", false},
        {"tail50_tok_per_sec", "tail50 tok/s", true},
        {"tail50_bf16_mfu_percent", "tail50 bf16 MFU %", true},
        {"tail50_dt_ms", "tail50 dt ms", true},
        {"delta_tok_per_sec_percent", "Δ tok/s %", true},
        {"delta_mfu_percent", "Δ MFU %", true},
        {"delta_dt_percent", "Δ dt %", true},
        {NULL, NULL, false},
    };
    MjRunStats base, st;
    mj_record_stats(&mj_sweep_baseline(s)->record, &base);
    MjTable *t = mj_table_open(columns);
    for (size_t i = 0; i < s->n_runs; i++) {
        if (s->runs[i].record.n_steps == 0) continue;
        mj_record_stats(&s->runs[i].record, &st);
        mj_table_text(t, s->runs[i].name);
        mj_table_real(t, st.tail_tok_per_sec, 2);
        mj_table_real(t, 100.0 * st.tail_mfu, 4);
        mj_table_real(t, st.tail_dt_ms, 2);
        signed_percent(t, mj_percent_delta(st.tail_tok_per_sec, base.tail_tok_per_sec));
        signed_percent(t, mj_percent_delta(st.tail_mfu, base.tail_mfu));
        signed_percent(t, mj_percent_delta(st.tail_dt_ms, base.tail_dt_ms));
    }
    return t;
}

static MjTable *cost_table(const MjSweep *s)
{
    static const MjColumn columns[] = {
        {"run", "run", false},
        {"mode", "mode", false},
        {"compiles", "compiles", true},
        {"compile_s", "compile s", true},
        {"plan_s", "ahead s", true},
        {"cache_hits", "cache hits", true},
        {"stall_ms", "stall ms", true},
        {"median_dt_ms", "median dt ms", true},
        {"median_dt_no_stall_ms", "without stalls", true},
        {"padded_rows", "padded rows", true},
        {"dropped_rows", "dropped rows", true},
        {"held_out_bits_per_byte", "held-out bits/byte", true},
        {"order1_bits_per_byte", "order-1 entropy", true},
        {"peak_mem_bytes", "peak memory", true},
        {NULL, NULL, false},
    };
    MjTable *t = mj_table_open(columns);
    for (size_t i = 0; i < s->n_runs; i++) {
        const MjRunRecord *r = &s->runs[i].record;
        if (!r->started) continue;
        char mem[32] = "n/a";
        MjRunStats st;
        mj_record_stats(r, &st);
        mj_table_text(t, s->runs[i].name);
        mj_table_text(t, r->mode);
        mj_table_int(t, (int64_t)st.compiles);
        mj_table_real(t, st.compile_s, 2);
        mj_table_real(t, r->plan_s, 2);
        mj_table_int(t, (int64_t)st.cache_hits);
        mj_table_real(t, st.stall_ms, 0);
        mj_table_real(t, st.median_dt_ms, 2);
        mj_table_real(t, st.median_dt_no_stall_ms, 2);
        mj_table_int(t, st.padded_rows);
        mj_table_int(t, st.dropped_rows);
        mj_table_real(t, st.held_out_bits, 4);
        mj_table_real(t, r->order1_bits, 4);
        if (isfinite(r->peak_bytes)) mj_format_bytes(r->peak_bytes, mem);
        mj_table_show(t, isfinite(r->peak_bytes) ? json_integer((json_int_t)r->peak_bytes) : json_null(), mem);
    }
    return t;
}

static void put_table(MjStr *s, MjTable *t)
{
    mj_table_markdown(t, s);
    mj_str_puts(s, "\n");
    mj_table_close(t);
}

static void live(const MjSweep *s, MjStr *out)
{
    char tok[32];
    for (size_t i = 0; i < s->n_runs; i++) {
        const MjRunRecord *r = &s->runs[i].record;
        if (s->runs[i].state != MJ_RUN_RUNNING) continue;
        mj_str_printf(out, "## Running now\n\n`%s`, %zu of %zu in the queue", s->runs[i].name, i + 1, s->n_runs);
        if (r->n_steps == 0) {
            mj_str_puts(out, r->started ? ": ready, no step done yet.\n\n" : ": compiling its kernels or reading its data.\n\n");
            continue;
        }
        const MjStepMetrics *m = &r->steps[r->n_steps - 1];
        mj_str_printf(out, ": step %d of %d (%.0f %%), loss %.6f, %.1f ms a step, %s tokens/s, MFU ", m->step, r->total_steps,
                      100.0 * m->step / r->total_steps, m->loss, m->dt_ms, mj_format_real(m->tok_per_sec, 0, tok));
        if (isfinite(m->bf16_mfu)) {
            mj_str_printf(out, "%.2f %%", 100.0 * m->bf16_mfu);
        } else {
            mj_str_puts(out, "n/a");
        }
        double left = m->elapsed_s / m->step * (r->total_steps - m->step);
        mj_str_printf(out, ", about %s left.\n\n", mj_format_seconds(left, tok));
    }
}

static void resources(const MjProgressNotes *notes, MjStr *out)
{
    static const MjColumn columns[] = {{"device", "device", false},
                                       {"utilisation", "utilisation %", true},
                                       {"memory", "memory in use", true},
                                       {"total", "memory in all", true},
                                       {NULL, NULL, false}};
    if (notes->n_resources == 0) return;
    MjTable *t = mj_table_open(columns);
    for (int i = 0; i < notes->n_resources; i++) {
        const MjResource *r = &notes->resources[i];
        char used[32] = "n/a", total[32] = "n/a";
        if (isfinite(r->memory_bytes)) mj_format_bytes(r->memory_bytes, used);
        if (isfinite(r->memory_total)) mj_format_bytes(r->memory_total, total);
        mj_table_text(t, r->device);
        mj_table_real(t, 100.0 * r->utilisation, 0);
        mj_table_text(t, used);
        mj_table_text(t, total);
    }
    mj_str_printf(out, "## Resources\n\nSampled at %s; for the cpu, memory in use is the running run's.\n\n", notes->sampled_at);
    put_table(out, t);
}

static void files(const MjSweep *s, const MjProgressNotes *notes, MjStr *out)
{
    static const char *const names[] = {"loss", "toksec", "mfu", "dt_ms"};
    mj_str_printf(out, "## Files\n\n[summary](metrics/%s_summary.csv), [steps](metrics/%s_steps.csv); per run `config.ini`, "
                       "`log.txt` and `steps.jsonl` under `runs/`.\n\n", s->name, s->name);
    if (notes->figure_note != NULL) {
        mj_str_printf(out, "No figures: %s\n", notes->figure_note);
        return;
    }
    for (size_t i = 0; i < 4; i++) mj_str_printf(out, "![%s](figures/%s_%s.png)\n", names[i], s->name, names[i]);
}

void mj_sweep_progress(const MjSweep *s, const MjProgressNotes *notes, MjStr *out)
{
    mj_str_printf(out, "# %s\n\n%d completed, %d running, %d queued, %d failed, %d interrupted, of %zu runs. As of %s.\n\n",
                  s->name, count_state(s, MJ_RUN_COMPLETED), count_state(s, MJ_RUN_RUNNING), count_state(s, MJ_RUN_QUEUED),
                  count_state(s, MJ_RUN_FAILED), count_state(s, MJ_RUN_INTERRUPTED), s->n_runs, notes->sampled_at);
    mj_str_puts(out, "## Queue\n\n");
    put_table(out, queue_table(s));
    live(s, out);
    mj_str_printf(out, "## Comparison\n\ntail50 is the mean of the last 50 completed steps; deltas are against `%s`.\n\n",
                  mj_sweep_baseline(s)->name);
    put_table(out, compare_table(s));
    put_table(out, cost_table(s));
    mj_str_puts(out, "## Interpretation\n\n");
    mj_sweep_interpret(s, out);
    mj_str_puts(out, "\n");
    resources(notes, out);
    files(s, notes, out);
}

json_t *mj_sweep_json(const MjSweep *s)
{
    MjTable *queue = queue_table(s), *compare = compare_table(s), *cost = cost_table(s);
    MjStr words = MJ_STR_INIT;
    mj_sweep_interpret(s, &words);
    json_t *o = json_pack("{ss ss so so so ss}", "sweep", s->name, "baseline", mj_sweep_baseline(s)->name, "queue",
                          mj_table_json(queue), "comparison", mj_table_json(compare), "costs", mj_table_json(cost),
                          "interpretation", mj_str_text(&words));
    mj_str_free(&words);
    mj_table_close(queue);
    mj_table_close(compare);
    mj_table_close(cost);
    return o;
}
