/* `mojit kernels --target`: what ptxas made of the kernels: registers, shared memory, stages, compile time. The matrix
 * kernels are those that realistic shapes ask for, with the tiles chosen for them, and every generic build. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cli/commands.h"
#include "cli/kernels.h"
#include "cli/setup.h"
#include "cli/table.h"
#include "cli/term.h"
#include "ops/matrix_list.h"
#include "runtime/base/mem.h"

/* Nothing bound but variants and tuning, compiled here: the code of the generic builds. */
static const MjMode generic_mode = {.name = "generic", .pad = MJ_PAD_NONE, .miss = MJ_MISS_COMPILE};

typedef struct MjTargetTable {
    MjTable *table;
    int kernels, compiled;
    double seconds, slowest;
} MjTargetTable;

void mj_kernels_values(const MjTemplate *t, const int32_t *values, MjParamKind kind, MjStr *out)
{
    for (int i = 0; i < t->n_params; i++) {
        if (t->params[i].kind != kind || values[i] == MJ_UNBOUND) continue;
        mj_str_printf(out, "%s%s=%d", out->len > 0 ? " " : "", t->params[i].name, values[i]);
    }
}

static void int_or_none(MjTable *t, int v)
{
    if (v >= 0) {
        mj_table_int(t, v);
    } else {
        mj_table_show(t, json_null(), "n/a");
    }
}

/* `k` is NULL for a generic build: its launch depends on the shape. */
static void print_row(MjTargetTable *tt, MjJit *jit, int plan, const char *form, const char *shape, const MjMatrixKernel *k)
{
    MjImageReport r;
    MjStr variant = MJ_STR_INIT, tuning = MJ_STR_INIT;
    const MjLaunchRecord *record = mj_jit_plan_record(jit, plan);
    const MjTemplate *t = record->tmpl;
    const int stages = mj_template_param(t, "STAGES");
    if (!mj_jit_plan_report(jit, plan, &r)) return;
    for (int i = 0; i < t->n_params; i++) /* what is 0 goes without saying */
        if (t->params[i].kind == MJ_PARAM_VARIANT && record->bound[i] != 0)
            mj_str_printf(&variant, "%s%s=%d", variant.len > 0 ? " " : "", t->params[i].name, record->bound[i]);
    mj_kernels_values(t, record->bound, MJ_PARAM_TUNING, &tuning);
    mj_table_text(tt->table, t->name);
    mj_table_text(tt->table, form);
    mj_table_text(tt->table, shape);
    mj_table_text(tt->table, mj_str_text(&variant));
    mj_table_text(tt->table, mj_str_text(&tuning));
    int_or_none(tt->table, stages >= 0 ? record->bound[stages] : -1);
    int_or_none(tt->table, r.registers);
    int_or_none(tt->table, k != NULL ? (int)k->geometry.block : -1);
    int_or_none(tt->table, r.shared_bytes);
    int_or_none(tt->table, k != NULL ? (int)k->geometry.shared_bytes : -1);
    int_or_none(tt->table, r.spill_bytes);
    int_or_none(tt->table, r.stack_bytes);
    mj_table_int(tt->table, (int64_t)r.image_bytes);
    mj_table_real(tt->table, 1e3 * r.compile_s, 0);
    mj_table_text(tt->table, r.compiled ? "compiled" : "cache");
    tt->kernels++;
    tt->compiled += r.compiled;
    tt->seconds += r.compile_s;
    tt->slowest = fmax(tt->slowest, r.compile_s);
    mj_str_free(&variant);
    mj_str_free(&tuning);
}

static void on_progress(void *user, int done, int total, const char *spec)
{
    (void)user;
    mj_term_progress("compiling %d/%d  %.90s", done, total, spec != NULL ? spec : "");
}

static void on_log(void *user, const char *line)
{
    (void)user;
    mj_term_say("%s", line);
}

static int open_jit(const char *target, const MjMode *mode, MjCache *cache, MjJit **out, MjError *err)
{
    const MjJitOptions options = {.target = target, .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}, .budget = 1 << 20,
                                  .cache = cache, .log = on_log, .progress = on_progress};
    return mj_jit_open(&options, out, err);
}

/* Static forms of the matrix kernels: each shape's request goes into the plan. */
static int static_rows(MjTargetTable *tt, const char *target, MjCache *cache, const char *name, MjStr *missing, MjError *err)
{
    int rc = 0, n = 0;
    MjJit *jit = NULL;
    const MjMode *mode;
    MjMatrixKernel *list = NULL;
    MjOps ops;
    MJ_TRY(mj_mode_find("static", &mode, err));
    MJ_TRY(open_jit(target, mode, cache, &jit, err));
    MJ_TRY(mj_ops_open(NULL, jit, &ops, err));
    MJ_TRY(mj_matrix_kernels(&ops, &list, &n, missing, err));
    int *plan = mj_xcalloc((size_t)n + 1, sizeof *plan);
    mj_jit_record_begin(jit);
    for (int i = 0; i < n && rc == 0; i++) {
        const MjLaunchRecord *record;
        plan[i] = -1;
        if (name != NULL && strcmp(name, list[i].asked.tmpl->name) != 0) continue;
        plan[i] = mj_jit_plan_size(jit);
        rc = mj_jit_get_chosen(jit, &list[i].asked, &list[i].chosen, &record, err);
        if (rc == 0 && mj_jit_plan_size(jit) == plan[i]) plan[i] = -1; /* the same image as before */
    }
    mj_jit_record_end(jit);
    if (rc == 0) rc = mj_jit_prepare(jit, err);
    for (int i = 0; i < n && rc == 0; i++) {
        MjStr shape = MJ_STR_INIT;
        if (plan[i] < 0) continue;
        mj_kernels_values(list[i].asked.tmpl, list[i].asked.values, MJ_PARAM_FIXED, &shape);
        mj_kernels_values(list[i].asked.tmpl, list[i].asked.values, MJ_PARAM_VARYING, &shape);
        print_row(tt, jit, plan[i], "static", mj_str_text(&shape), &list[i]);
        mj_str_free(&shape);
    }
    free(plan);
out:
    free(list);
    mj_jit_close(jit);
    return rc;
}

static bool is_matrix(const MjTemplate *t)
{
    for (int op = 0; op < MJ_OP_COUNT; op++)
        for (int i = 0; mj_op_rows[op]->matrix != NULL && mj_op_rows[op]->matrix[i] != NULL; i++)
            if (strcmp(mj_op_rows[op]->matrix[i]->tmpl, t->name) == 0) return true;
    return false;
}

/* Generic builds, of the matrix templates or of one; the static form of a row template at example sizes goes with it. */
static int template_rows(MjTargetTable *tt, const char *target, MjCache *cache, const MjMode *mode, const char *name, MjError *err)
{
    int rc = 0;
    MjJit *jit = NULL;
    const bool all = mode != &generic_mode;
    MJ_TRY(open_jit(target, mode, cache, &jit, err));
    mj_jit_record_begin(jit);
    for (int i = 0; i < mj_jit_template_count(jit) && rc == 0; i++) {
        const MjTemplate *t = mj_jit_template_at(jit, i);
        if (name != NULL ? strcmp(name, t->name) != 0 : !is_matrix(t)) continue;
        if (!mj_template_serves(t, target) || (all && is_matrix(t))) continue;
        for (int g = 0; g < t->n_generic && rc == 0; g++) {
            MjRequest req = {.tmpl = t};
            const MjLaunchRecord *record;
            if ((t->generic_families[g] >> mj_target_family(target) & 1) == 0) continue;
            mj_template_generic_values(t, g, req.values);
            for (int p = 0; p < t->n_params; p++)
                if (req.values[p] == MJ_UNBOUND) req.values[p] = mj_param_example(&t->params[p]);
            rc = mj_jit_get(jit, &req, &record, err);
        }
    }
    mj_jit_record_end(jit);
    if (rc == 0) rc = mj_jit_prepare(jit, err);
    for (int i = 0; i < mj_jit_plan_size(jit) && rc == 0; i++) {
        const MjRequest *asked = mj_jit_plan_asked(jit, i);
        MjStr shape = MJ_STR_INIT;
        if (all) mj_kernels_values(asked->tmpl, asked->values, MJ_PARAM_FIXED, &shape);
        if (all) mj_kernels_values(asked->tmpl, asked->values, MJ_PARAM_VARYING, &shape);
        print_row(tt, jit, i, all ? "static" : "generic", all ? mj_str_text(&shape) : "any", NULL);
        mj_str_free(&shape);
    }
out:
    mj_jit_close(jit);
    return rc;
}

static const MjColumn target_columns[] = {
    {"template", "template", false},    {"form", "form", false},           {"shape", "shape", false},
    {"variant", "variant", false},           {"tuning", "tuning", false},       {"stages", NULL, true},
    {"registers", "registers", true},   {"threads", "threads", true},      {"shared_static", "static smem", true},
    {"shared_dynamic", "dynamic smem", true}, {"spill_bytes", "spills", true}, {"stack_bytes", "stack", true},
    {"image_bytes", NULL, true},        {"compile_ms", "compile ms", true}, {"from", "from", false},
    {NULL, NULL, false}};

int mj_kernels_of_target(const MjArgs *args, const char *name, MjError *err)
{
    int rc = 0;
    MjConfig config;
    MjCache *cache = NULL;
    const MjMode *static_mode;
    MjStr missing = MJ_STR_INIT;
    const char *target = mj_args_string(args, "target");
    MjTargetTable tt = {.table = mj_table_open(target_columns)};
    if (strncmp(target, "sm_", 3) != 0 || target[3] < '1' || target[3] > '9') /* the rest is NVRTC's to say, if it is there */
        MJ_TRY(mj_error(err, MJ_ERR_USAGE, "kernels: no target \"%s\" here: expected a GPU's, such as sm_80 or sm_90a (the C compiler says "
                        "nothing of registers and shared memory)", target));
    mj_config_defaults(&config);
    MJ_TRY(mj_mode_find("static", &static_mode, err));
    MJ_TRY(mj_setup_cache(&config, &cache, err));
    MJ_TRY(static_rows(&tt, target, cache, name, &missing, err));
    if (name != NULL) MJ_TRY(template_rows(&tt, target, cache, static_mode, name, err));
    MJ_TRY(template_rows(&tt, target, cache, &generic_mode, name, err));
    mj_term_progress_done();
    mj_table_print(tt.table, mj_args_flag(args, "json"));
    if (missing.len > 0 && name == NULL) mj_term_say("%s", mj_str_text(&missing));
    mj_term_say("%d kernels for %s, %d compiled now; %.1f s of one core in all, the slowest %.0f ms", tt.kernels, target, tt.compiled,
                tt.seconds, 1e3 * tt.slowest);
out:
    mj_term_progress_done();
    mj_str_free(&missing);
    mj_table_close(tt.table);
    mj_cache_close(cache);
    return rc;
}
