/* `mojit compare`: the same training in several modes, each in a process of its own, one table. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/records.h"
#include "cli/setup.h"
#include "cli/sweep.h"
#include "cli/table.h"
#include "cli/term.h"
#include "cli/train_child.h"
#include "jit/mode.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"

const MjArgSpec mj_compare_options[] = {
    MJ_TRAIN_ARGS,
    {"modes", MJ_ARG_STRING, "MODE,...", "modes in order, the first is what deltas are against; default static,dynamic,nocompile",
     0, 0, 0},
    {"out", MJ_ARG_STRING, "DIR", "keep each mode's records in DIR/MODE", 'o', 0, 0},
    {"json", MJ_ARG_FLAG, NULL, "print the table as JSON", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};

#define MAX_MODES 16

typedef struct MjComparison {
    char *modes[MAX_MODES];
    MjRunRecord records[MAX_MODES];
    int n_modes;
    char *dir;
    bool temporary;
} MjComparison;

static int split_modes(const char *text, MjComparison *c, MjError *err)
{
    while (*text != '\0') {
        size_t len = strcspn(text, ",");
        char *name = mj_xstrndup(text, len);
        const MjMode *mode = NULL;
        int rc = mj_mode_find(name, &mode, err);
        for (int i = 0; rc == 0 && i < c->n_modes; i++) {
            if (strcmp(c->modes[i], name) == 0) rc = mj_error(err, MJ_ERR_USAGE, "--modes: %s stands there twice", name);
        }
        if (rc == 0 && c->n_modes == MAX_MODES) rc = mj_error(err, MJ_ERR_USAGE, "--modes: at most %d modes", MAX_MODES);
        if (rc != 0) {
            free(name);
            return rc;
        }
        c->modes[c->n_modes++] = name;
        text += len + (text[len] == ',');
    }
    return c->n_modes > 0 ? 0 : mj_error(err, MJ_ERR_USAGE, "--modes: expected names separated by commas, such as static,dynamic");
}

/* "yes", or the first step that differs. */
static void same_losses(MjTable *t, const MjRunRecord *a, const MjRunRecord *b)
{
    size_t n = a->n_steps < b->n_steps ? a->n_steps : b->n_steps;
    char text[48] = "yes";
    bool same = a->n_steps == b->n_steps;
    for (size_t i = 0; i < n; i++) {
        if (a->loss_bits[i] == b->loss_bits[i]) continue;
        snprintf(text, sizeof text, "no, from step %d", a->steps[i].step);
        same = false;
        break;
    }
    if (!same && text[0] == 'y') snprintf(text, sizeof text, "no, %zu and %zu steps", a->n_steps, b->n_steps);
    mj_table_show(t, json_boolean(same), text);
}

static void delta_cell(MjTable *t, double v, double base, bool first)
{
    char buf[32];
    double d = mj_percent_delta(v, base);
    if (first || !isfinite(d)) {
        mj_table_show(t, isfinite(d) ? json_real(d) : json_null(), first ? "-" : "n/a");
        return;
    }
    snprintf(buf, sizeof buf, "%+.1f %%", d);
    mj_table_show(t, json_real(d), buf);
}

static MjTable *speed_table(const MjComparison *c)
{
    static const MjColumn columns[] = {
        {"mode", "mode", false},
        {"tok_per_sec", "tok/s", true},
        {"delta_tok_per_sec_percent", "Δ", true},
        {"tok_per_sec_no_stall", "without stalls", true},
        {"delta_no_stall_percent", "Δ", true},
        {"bf16_mfu_percent", "MFU %", true},
        {"median_dt_ms", "dt ms (median)", true},
        {"q1_dt_ms", "lower quartile", true},
        {"q3_dt_ms", "upper quartile", true},
        {"median_dt_no_stall_ms", "dt without stalls", true},
        {"losses_identical", "losses bit-identical", false},
        {NULL, NULL, false},
    };
    MjRunStats base, st;
    mj_record_stats(&c->records[0], &base);
    MjTable *t = mj_table_open(columns);
    for (int i = 0; i < c->n_modes; i++) {
        mj_record_stats(&c->records[i], &st);
        mj_table_text(t, c->modes[i]);
        mj_table_real(t, st.tok_per_sec, 0);
        delta_cell(t, st.tok_per_sec, base.tok_per_sec, i == 0);
        mj_table_real(t, st.tok_per_sec_no_stall, 0);
        delta_cell(t, st.tok_per_sec_no_stall, base.tok_per_sec_no_stall, i == 0);
        mj_table_real(t, 100.0 * st.mfu, 2);
        mj_table_real(t, st.median_dt_ms, 2);
        mj_table_real(t, st.q1_dt_ms, 2);
        mj_table_real(t, st.q3_dt_ms, 2);
        mj_table_real(t, st.median_dt_no_stall_ms, 2);
        same_losses(t, &c->records[0], &c->records[i]);
    }
    return t;
}

static MjTable *cost_table(const MjComparison *c)
{
    static const MjColumn columns[] = {
        {"mode", "mode", false},
        {"compiles", "compiles", true},
        {"compile_s", "compile s", true},
        {"plan_s", "ahead s", true},
        {"cache_hits", "cache hits", true},
        {"stalled_steps", "stalled steps", true},
        {"stall_ms", "stall ms", true},
        {"padded_rows", "padded rows", true},
        {"dropped_rows", "dropped rows", true},
        {"first_kernel_ms", "first kernel ms", true},
        {"peak_mem_bytes", "peak memory", true},
        {"last_loss", "last loss", true},
        {NULL, NULL, false},
    };
    MjTable *t = mj_table_open(columns);
    for (int i = 0; i < c->n_modes; i++) {
        const MjRunRecord *r = &c->records[i];
        MjRunStats st;
        char mem[32] = "n/a";
        mj_record_stats(r, &st);
        mj_table_text(t, c->modes[i]);
        mj_table_int(t, (int64_t)st.compiles);
        mj_table_real(t, st.compile_s, 2);
        mj_table_real(t, r->plan_s, 2);
        mj_table_int(t, (int64_t)st.cache_hits);
        mj_table_int(t, (int64_t)st.stalled_steps);
        mj_table_real(t, st.stall_ms, 0);
        mj_table_int(t, st.padded_rows);
        mj_table_int(t, st.dropped_rows);
        mj_table_real(t, mj_record_total(r, "first_kernel_ms"), 0);
        if (isfinite(r->peak_bytes)) mj_format_bytes(r->peak_bytes, mem);
        mj_table_show(t, isfinite(r->peak_bytes) ? json_integer((json_int_t)r->peak_bytes) : json_null(), mem);
        mj_table_real(t, st.last_loss, 6);
    }
    return t;
}

static void print_winner(const MjComparison *c)
{
    int best = 0;
    MjRunStats st, top;
    mj_record_stats(&c->records[0], &top);
    for (int i = 1; i < c->n_modes; i++) {
        mj_record_stats(&c->records[i], &st);
        if (st.tok_per_sec > top.tok_per_sec) {
            top = st;
            best = i;
        }
    }
    printf("\n%s%s was fastest%s: %.0f tokens/s, %llu compiles in %.2f s, %.0f ms of stalls.\n", mj_term_on(MJ_TINT_GREEN),
           c->modes[best], mj_term_off(), top.tok_per_sec, (unsigned long long)top.compiles, top.compile_s, top.stall_ms);
}

static void print_comparison(const MjComparison *c, bool json)
{
    MjTable *speed = speed_table(c), *cost = cost_table(c);
    if (json) {
        json_t *rows = mj_table_json(speed), *more = mj_table_json(cost);
        for (size_t i = 0; i < json_array_size(rows); i++) json_object_update(json_array_get(rows, i), json_array_get(more, i));
        char *text = json_dumps(rows, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        puts(text);
        free(text);
        json_decref(rows);
        json_decref(more);
    } else {
        printf("%s, %d steps each; the first step is left out of rates and medians, deltas are against %s\n\n",
               c->records[0].device, c->records[0].total_steps, c->modes[0]);
        mj_table_print(speed, false);
        puts("");
        mj_table_print(cost, false);
        print_winner(c);
    }
    mj_table_close(speed);
    mj_table_close(cost);
}

int mj_cmd_compare(const MjArgs *args, MjError *err)
{
    int rc = 0;
    MjConfig config;
    MjComparison c = {.n_modes = 0};
    char *path = NULL, *text = NULL;
    const char *modes = mj_args_string(args, "modes");
    MJ_TRY(mj_setup_config(args, &config, err));
    MJ_TRY(split_modes(modes != NULL ? modes : "static,dynamic,nocompile", &c, err));
    MJ_TRY(mj_train_child_dir(mj_args_string(args, "out"), &c.dir, &c.temporary, err));
    path = mj_strdup_printf("%s/compare.ini", c.dir);
    config.run.out[0] = '\0';
    text = mj_config_dump(&config);
    MJ_TRY(mj_fs_write_atomic(path, text, strlen(text), err));
    mj_setup_signals();
    for (int i = 0; i < c.n_modes; i++) {
        mj_term_say("mode %d of %d: %s", i + 1, c.n_modes, c.modes[i]);
        char label[64];
        snprintf(label, sizeof label, "mode %s", c.modes[i]);
        char *out = mj_strdup_printf("%s/%s", c.dir, c.modes[i]);
        const MjTrainChild child = {.label = label, .config = path, .mode = c.modes[i], .out = out,
                                    .profile = mj_args_flag(args, "profile")};
        rc = mj_train_child(&child, &c.records[i], err);
        free(out);
        if (rc != 0) { /* what is known of the modes before it is not lost */
            const int all = c.n_modes;
            c.n_modes = i;
            if (i > 0) print_comparison(&c, mj_args_flag(args, "json"));
            c.n_modes = all;
            goto out;
        }
    }
    print_comparison(&c, mj_args_flag(args, "json"));
out:
    mj_term_progress_done();
    if (c.temporary && mj_fs_remove_tree(c.dir, NULL) != 0) mj_term_warn("could not remove %s", c.dir);
    for (int i = 0; i < c.n_modes; i++) {
        free(c.modes[i]);
        mj_record_free(&c.records[i]);
    }
    free(c.dir);
    free(path);
    free(text);
    return rc;
}
