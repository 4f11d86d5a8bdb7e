/* The interpretation of a sweep in words. Every sentence is computed from the records: which run won, what each of the
 * others lost to it (stalls, padding, compiling ahead, ops), what FP8 experts cost, whether modes agree bit by bit, and
 * whether the model learned. Nothing is said that the numbers don't hold.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sweep.h"
#include "cli/table.h"

typedef struct MjView { /* one run with everything the sentences need */
    const MjSweepRun *run;
    MjRunStats st;
    MjConfig config;
    bool has_config;
} MjView;

double mj_percent_delta(double v, double base)
{
    return isfinite(v) && isfinite(base) && base > 0 ? 100.0 * (v / base - 1.0) : (double)NAN;
}

static void load_view(const MjSweepRun *run, MjView *v)
{
    *v = (MjView){.run = run};
    mj_record_stats(&run->record, &v->st);
    if (run->record.dir == NULL) return;
    char *path = mj_strdup_printf("%s/config.ini", run->record.dir);
    mj_config_defaults(&v->config);
    v->has_config = mj_config_load(&v->config, path, NULL) == 0;
    free(path);
}

/* Do two runs differ in nothing but what `neutral` evens out? */
static bool same_but(const MjView *a, const MjView *b, void (*neutral)(MjConfig *))
{
    if (!a->has_config || !b->has_config) return false;
    MjConfig x = a->config, y = b->config;
    neutral(&x);
    neutral(&y);
    x.run.out[0] = y.run.out[0] = '\0';
    char *tx = mj_config_dump(&x), *ty = mj_config_dump(&y);
    bool same = strcmp(tx, ty) == 0;
    free(tx);
    free(ty);
    return same;
}

static void neutral_mode(MjConfig *c) { snprintf(c->jit.mode, sizeof c->jit.mode, "static"); }
static void neutral_experts(MjConfig *c) { c->precision.experts = MJ_PRECISION_BF16; }

static double profile_ms_per_token(const MjView *v, const char *op)
{
    const json_t *list = v->run->record.result != NULL ? json_object_get(v->run->record.result, "ops") : NULL;
    size_t i;
    json_t *row;
    double tokens = (double)v->st.tokens;
    json_array_foreach(list, i, row) {
        if (strcmp(json_string_value(json_object_get(row, "op")), op) == 0 && tokens > 0) {
            return json_number_value(json_object_get(row, "ms")) / tokens;
        }
    }
    return 0;
}

/* The op whose time per token differs most between two profiled runs, where `slow` is the slower one. */
static void explain_ops(const MjView *slow, const MjView *fast, MjStr *s)
{
    const json_t *list = slow->run->record.result != NULL ? json_object_get(slow->run->record.result, "ops") : NULL;
    const json_t *other = fast->run->record.result != NULL ? json_object_get(fast->run->record.result, "ops") : NULL;
    if (json_array_size(list) == 0 || json_array_size(other) == 0) return;
    const char *worst = NULL;
    double most = 0;
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row) {
        const char *op = json_string_value(json_object_get(row, "op"));
        double more = profile_ms_per_token(slow, op) - profile_ms_per_token(fast, op);
        if (more > most) {
            most = more;
            worst = op;
        }
    }
    double gap = 1e3 / slow->st.tok_per_sec - 1e3 / fast->st.tok_per_sec; /* ms a token */
    if (worst != NULL && gap > 0 && most > 0.1 * gap) {
        mj_str_printf(s, "; by op, `%s` costs it most: %.2f against %.2f ms per 1,000 tokens", worst,
                      1e3 * profile_ms_per_token(slow, worst), 1e3 * profile_ms_per_token(fast, worst));
    }
}

static void explain_loser(const MjView *v, const MjView *best, MjStr *s)
{
    char ms[32], rows[32];
    double delta = mj_percent_delta(v->st.tail_tok_per_sec, best->st.tail_tok_per_sec);
    mj_str_printf(s, "- `%s` (%s) is at %.1f %% of its throughput", v->run->name, v->run->record.mode, 100.0 + delta);
    double stall_share = v->st.total_ms > 0 ? v->st.stall_ms / v->st.total_ms : 0;
    if (v->st.stall_ms > 0) {
        mj_str_printf(s, "; %llu of its %zu steps waited for compiles, %s ms in all (%.1f %% of its step time), without them "
                         "its median step is %.1f ms instead of %.1f ms",
                      (unsigned long long)v->st.stalled_steps, v->run->record.n_steps,
                      mj_format_real(v->st.stall_ms, 0, ms), 100.0 * stall_share, v->st.median_dt_no_stall_ms,
                      v->st.median_dt_ms);
    }
    double pad = (double)v->st.padded_rows / (double)(v->st.tokens > 0 ? v->st.tokens : 1);
    double best_pad = (double)best->st.padded_rows / (double)(best->st.tokens > 0 ? best->st.tokens : 1);
    if (pad > best_pad * 1.02 && pad - best_pad > 0.005) {
        mj_str_printf(s, "; it computed %s padded rows, %.1f %% of its tokens against %.1f %%",
                      mj_format_count(v->st.padded_rows, rows), 100.0 * pad, 100.0 * best_pad);
    }
    if (v->st.dropped_rows > 0) mj_str_printf(s, "; it dropped %s routed rows", mj_format_count(v->st.dropped_rows, rows));
    double work = v->run->record.flops_per_token / best->run->record.flops_per_token;
    if (isfinite(work) && fabs(work - 1.0) > 0.01) {
        mj_str_printf(s, "; a token costs it %.2f times the FLOPs", work);
    }
    explain_ops(v, best, s);
    mj_str_puts(s, ".\n");
}

static void explain_winner(const MjView *views, size_t n, const MjView *best, const MjView *base, MjStr *s)
{
    char tok[32];
    mj_str_printf(s, "- **%s** (%s) is fastest in its last 50 steps: %s tokens/s", best->run->name, best->run->record.mode,
                  mj_format_real(best->st.tail_tok_per_sec, 0, tok));
    if (best != base && isfinite(base->st.tail_tok_per_sec)) {
        mj_str_printf(s, ", %+.1f %% over the baseline `%s`",
                      mj_percent_delta(best->st.tail_tok_per_sec, base->st.tail_tok_per_sec), base->run->name);
    } else if (best == base) {
        mj_str_puts(s, "; it is the baseline");
    }
    mj_str_printf(s, ". It compiled %llu kernels in %.2f s and waited %.0f ms for compiles inside steps.\n",
                  (unsigned long long)best->st.compiles, best->st.compile_s, best->st.stall_ms);
    for (size_t i = 0; i < n; i++) {
        if (&views[i] != best && isfinite(views[i].st.tail_tok_per_sec)) explain_loser(&views[i], best, s);
    }
}

/* With everything a user waits for: the compile ahead too. */
static void explain_wall(const MjView *views, size_t n, MjStr *s)
{
    const MjView *best = NULL;
    double best_rate = 0;
    for (size_t i = 0; i < n; i++) {
        const MjView *v = &views[i];
        double plan = isfinite(v->run->record.plan_s) ? v->run->record.plan_s : 0;
        double rate = v->st.total_ms > 0 ? (double)v->st.tokens / (v->st.total_ms * 1e-3 + plan) : 0;
        if (v->run->state == MJ_RUN_COMPLETED && rate > best_rate) {
            best_rate = rate;
            best = v;
        }
    }
    if (best == NULL) return;
    char tok[32];
    mj_str_printf(s, "- Counted from the start of compiling to the last step, `%s` is first with %s tokens/s (%.2f s of its "
                     "time went to compiling ahead).\n",
                  best->run->name, mj_format_real(best_rate, 0, tok),
                  isfinite(best->run->record.plan_s) ? best->run->record.plan_s : 0.0);
}

static void explain_pairs(const MjView *views, size_t n, MjStr *s)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < n; k++) {
            const MjView *a = &views[i], *b = &views[k];
            if (i == k || a->run->record.n_steps == 0 || b->run->record.n_steps == 0) continue;
            if (a->has_config && a->config.moe.experts > 0 && a->config.precision.experts == MJ_PRECISION_FP8 &&
                b->config.precision.experts == MJ_PRECISION_BF16 && same_but(a, b, neutral_experts)) {
                double cost = mj_percent_delta(a->st.tail_dt_ms, b->st.tail_dt_ms);
                mj_str_printf(s, "- FP8 experts in `%s`: `%s` takes %+.1f %% step time against `%s` with bf16 experts.\n",
                              a->run->record.mode, a->run->name, cost, b->run->name);
            }
            if (k < i || !same_but(a, b, neutral_mode)) continue;
            size_t common = a->run->record.n_steps < b->run->record.n_steps ? a->run->record.n_steps : b->run->record.n_steps;
            size_t same = 0;
            while (same < common && a->run->record.loss_bits[same] == b->run->record.loss_bits[same]) same++;
            if (same == common) {
                mj_str_printf(s, "- `%s` and `%s` differ in the compile mode only: their losses are bit-identical over %zu "
                                 "common steps.\n", a->run->name, b->run->name, common);
            } else {
                mj_str_printf(s, "- `%s` and `%s` differ in the compile mode only, and their losses part at step %d: %.9g and "
                                 "%.9g. That breaks the promise of equal bits; please report it.\n",
                              a->run->name, b->run->name, a->run->record.steps[same].step, a->run->record.steps[same].loss,
                              b->run->record.steps[same].loss);
            }
        }
    }
}

static void explain_learning(const MjView *views, size_t n, MjStr *s)
{
    MjStr below = MJ_STR_INIT, above = MJ_STR_INIT;
    double entropy = (double)NAN;
    for (size_t i = 0; i < n; i++) {
        const MjRunRecord *r = &views[i].run->record;
        double bits = views[i].st.held_out_bits;
        if (!isfinite(bits) || !isfinite(r->order1_bits)) continue;
        MjStr *list = bits < r->order1_bits ? &below : &above;
        entropy = r->order1_bits;
        mj_str_printf(list, "%s`%s` %.4f", list->len > 0 ? ", " : "", views[i].run->name, bits);
    }
    if (isfinite(entropy)) {
        mj_str_printf(s, "- Held-out bits per byte, against %.4f, the order-1 entropy of the same text:", entropy);
        if (below.len > 0) mj_str_printf(s, " below it, so more was learned than which byte follows which: %s.", below.data);
        if (above.len > 0) mj_str_printf(s, " Not below it: %s.", above.data);
        mj_str_puts(s, "\n");
    }
    mj_str_free(&below);
    mj_str_free(&above);
}

void mj_sweep_interpret(const MjSweep *sweep, MjStr *s)
{
    MjView *views = calloc(sweep->n_runs + 1, sizeof *views);
    if (views == NULL) return;
    const MjView *best = NULL, *base = NULL;
    for (size_t i = 0; i < sweep->n_runs; i++) {
        load_view(&sweep->runs[i], &views[i]);
        double rate = views[i].st.tail_tok_per_sec;
        if (isfinite(rate) && (best == NULL || rate > best->st.tail_tok_per_sec)) best = &views[i];
        if (&sweep->runs[i] == mj_sweep_baseline(sweep)) base = &views[i];
    }
    if (best == NULL) {
        mj_str_puts(s, "- No step has been observed yet.\n");
    } else {
        explain_winner(views, sweep->n_runs, best, base, s);
        explain_wall(views, sweep->n_runs, s);
        explain_pairs(views, sweep->n_runs, s);
        explain_learning(views, sweep->n_runs, s);
    }
    for (size_t i = 0; i < sweep->n_runs; i++) {
        if (sweep->runs[i].state == MJ_RUN_FAILED) {
            mj_str_printf(s, "- `%s` failed: %s\n", sweep->runs[i].name,
                          sweep->runs[i].error != NULL ? sweep->runs[i].error : "no message");
        }
    }
    free(views);
}
