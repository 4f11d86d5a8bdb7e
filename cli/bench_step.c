/* Whole training steps as measurements. See bench_step.h. Each training runs twice, the first time for one step, so that
 * the second one finds its kernels in the cache: what is shown is the warm case.
 */
#include "cli/bench_step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/setup.h"
#include "cli/sweep.h"
#include "cli/table.h"
#include "cli/term.h"
#include "cli/train_child.h"
#include "runtime/base/fs.h"

typedef struct MjStepBench {
    const char *mode, *experts;
    MjRunStats st;
    double first_kernel_ms, load_ms, peak_bytes, predicted_bytes;
} MjStepBench;

static int bench_one(const char *config, const char *dir, MjStepBench *b, MjError *err)
{
    int rc = 0;
    MjRunRecord record = {.dir = NULL};
    char label[96], precision[48];
    char *out = mj_strdup_printf("%s/%s-%s", dir, b->mode, b->experts);
    snprintf(label, sizeof label, "%s, %s experts", b->mode, b->experts);
    snprintf(precision, sizeof precision, "precision.experts=%s", b->experts);
    MjTrainChild child = {.label = label, .config = config, .mode = b->mode, .out = out,
                          .sets = {precision, "data.held_out=", "train.steps=1", NULL}};
    mj_term_say("%s", label);
    MJ_TRY(mj_train_child(&child, &record, err));
    mj_record_free(&record);
    child.sets[2] = NULL;
    MJ_TRY(mj_train_child(&child, &record, err));
    mj_record_stats(&record, &b->st);
    b->first_kernel_ms = mj_record_total(&record, "first_kernel_ms");
    b->load_ms = mj_record_total(&record, "load_ms");
    b->peak_bytes = record.peak_bytes;
    b->predicted_bytes = mj_record_total(&record, "predicted_mem_bytes");
out:
    mj_record_free(&record);
    free(out);
    return rc;
}

static void delta(MjTable *t, double v, double base)
{
    char buf[32] = "n/a";
    double d = mj_percent_delta(v, base);
    if (isfinite(d)) snprintf(buf, sizeof buf, "%+.1f", d);
    mj_table_show(t, isfinite(d) ? json_real(d) : json_null(), buf);
}

static MjTable *table_of(const MjStepBench *rows, int n)
{
    static const MjColumn columns[] = {
        {"mode", "mode", false},
        {"experts", "experts", false},
        {"median_dt_ms", "dt ms (median)", true},
        {"q1_dt_ms", "lower quartile", true},
        {"q3_dt_ms", "upper quartile", true},
        {"tok_per_sec", "tok/s", true},
        {"bf16_mfu_percent", "MFU %", true},
        {"delta_dt_bf16_percent", "dt to bf16 experts %", true},
        {"delta_dt_first_percent", "dt to first mode %", true},
        {"first_kernel_ms", "start to first kernel ms", true},
        {"load_ms", "of it loading ms", true},
        {"memory_to_formula_percent", "memory to formula %", true},
        {NULL, NULL, false},
    };
    MjTable *t = mj_table_open(columns);
    for (int i = 0; i < n; i++) {
        const MjStepBench *b = &rows[i];
        mj_table_text(t, b->mode);
        mj_table_text(t, b->experts);
        mj_table_real(t, b->st.median_dt_ms, 2);
        mj_table_real(t, b->st.q1_dt_ms, 2);
        mj_table_real(t, b->st.q3_dt_ms, 2);
        mj_table_real(t, b->st.tok_per_sec, 0);
        mj_table_real(t, 100.0 * b->st.mfu, 1);
        delta(t, b->st.median_dt_ms, rows[i & ~1].st.median_dt_ms); /* rows come as bf16, fp8 */
        delta(t, b->st.median_dt_ms, rows[i & 1].st.median_dt_ms);
        mj_table_real(t, b->first_kernel_ms, 1);
        mj_table_real(t, b->load_ms, 1);
        delta(t, b->peak_bytes, b->predicted_bytes);
    }
    return t;
}

int mj_bench_steps(const MjArgs *args, const MjConfig *config, json_t **out, MjError *err)
{
    static const char *const every[] = {"static", "dynamic", "nocompile"};
    enum { MAX_ROWS = 16 };
    int rc = 0, rows = 0;
    bool temporary = false;
    char *dir = NULL, *path = NULL, *text = NULL;
    MjStepBench results[MAX_ROWS];
    const char *const *modes;
    size_t n = mj_args_list(args, "mode", &modes);
    if (n == 0) {
        modes = every;
        n = 3;
    }
    if (config->data.train[0] == '\0') {
        return mj_error(err, MJ_ERR_USAGE, "bench step: it trains, and needs data: give --config FILE or --set data.train=FILE "
                        "(`mojit data pack` makes one)");
    }
    MJ_TRY(mj_train_child_dir(NULL, &dir, &temporary, err));
    path = mj_strdup_printf("%s/step.ini", dir);
    text = mj_config_dump(config);
    MJ_TRY(mj_fs_write_atomic(path, text, strlen(text), err));
    mj_setup_signals();
    for (size_t i = 0; i < n && rows + 2 <= MAX_ROWS; i++) {
        for (int k = 0; k < 2; k++, rows++) {
            results[rows] = (MjStepBench){.mode = modes[i], .experts = k == 0 ? "bf16" : "fp8"};
            MJ_TRY(bench_one(path, dir, &results[rows], err));
        }
    }
    MjTable *t = table_of(results, rows);
    printf("\nwhole training steps: depth %d, %d tokens a micro-batch\n\n", config->model.depth,
           config->train.batch * config->train.seq_len);
    mj_table_print(t, false);
    *out = mj_table_json(t);
    mj_table_close(t);
out:
    if (temporary && mj_fs_remove_tree(dir, NULL) != 0) mj_term_warn("could not remove %s", dir);
    free(dir);
    free(path);
    free(text);
    return rc;
}
