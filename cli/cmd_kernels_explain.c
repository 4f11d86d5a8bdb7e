/* `mojit kernels --explain`: a request, the candidates of its template's tuning values, what the model of time says of each, and
 * the one that runs. */
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
#include "ops/tile_choice.h"

int mj_kernels_parse_shape(const char *text, MjOpId *op, MjOpShape *shape, MjError *err)
{
    int rc = 0;
    char name[64];
    const size_t len = strcspn(text, " (");
    MjOpShape s = {0};
    snprintf(name, sizeof name, "%.*s", (int)(len < sizeof name ? len : sizeof name - 1), text);
    MJ_TRY(mj_op_find(name, op, err));
    char numbers[512];
    const char *rest = text + len + strspn(text + len, " (");
    snprintf(numbers, sizeof numbers, "%.*s", (int)strcspn(rest, " )"), rest);
    MJ_TRY(mj_shape_parse(numbers, &s, err));
    if (*op == MJ_OP_GEMM && s.experts > 1 && s.group == MJ_GROUP_NONE) s.group = s.layout == MJ_GEMM_TN ? MJ_GROUP_K : MJ_GROUP_M;
    *shape = s;
out:
    return rc;
}

static void cost_cells(MjTable *t, const MjMatrixKernel *k, const MjTileCandidate *c, double flops)
{
    const bool known = k->matrix != NULL && k->matrix->cost != NULL;
    const MjTileCost *m = &c->cost;
    const double none = (double)NAN;
    mj_table_real(t, k->matrix != NULL ? c->geometry.grid : none, 0);
    mj_table_real(t, k->matrix != NULL ? (double)c->geometry.shared_bytes : none, 0);
    mj_table_real(t, known ? m->tiles : none, 0);
    mj_table_real(t, known ? m->resident : none, 0);
    mj_table_real(t, known ? m->waves : none, 0);
    mj_table_real(t, known ? m->mma_cycles : none, 0);
    mj_table_real(t, !known ? none : k->op == MJ_OP_GEMM ? m->scale_cycles : m->softmax_cycles, 0);
    mj_table_real(t, known ? m->load_cycles : none, 0);
    mj_table_real(t, known ? m->wait_cycles : none, 0);
    mj_table_real(t, known ? m->epilogue_cycles : none, 0);
    mj_table_real(t, known ? 1e-6 * m->bytes : none, 1);
    mj_table_real(t, known ? 1e6 * m->seconds : none, 1);
    mj_table_real(t, known && m->seconds > 0 ? 1e-12 * flops / m->seconds : none, 0);
}

static bool is_choice(const MjMatrixKernel *k, const MjTileCandidate *c)
{
    int32_t chosen[MJ_MAX_PARAMS];
    mj_jit_full_values(&k->chosen, chosen);
    return memcmp(chosen, c->values, (size_t)k->chosen.tmpl->n_params * sizeof *chosen) == 0;
}

/* What is known of a request. */
typedef struct Explained {
    MjMatrixKernel k;       /* k.chosen: what runs */
    MjTileCandidate *list;  /* the model's, cheapest first */
    int n;
    const MjDevice *device; /* NULL: a card of the target is assumed */
    char *notes;            /* of the measuring; NULL: not measured on this device */
    bool measured;          /* what was measured is what runs */
    MjTileCandidate beyond; /* what runs, where it is none of the list */
    bool has_beyond;
    double flops;
} Explained;

static void explain_row(MjTable *table, const Explained *e, int rank, const MjTileCandidate *c)
{
    const bool choice = is_choice(&e->k, c);
    MjStr tuning = MJ_STR_INIT;
    mj_kernels_values(e->k.chosen.tmpl, c->values, MJ_PARAM_TUNING, &tuning);
    if (rank > 0) mj_table_int(table, rank);
    else mj_table_show(table, json_null(), "-");
    mj_table_show(table, json_boolean(choice), !choice ? "" : e->measured ? "measured" : "chosen");
    mj_table_text(table, mj_str_text(&tuning));
    cost_cells(table, &e->k, c, e->flops);
    mj_str_free(&tuning);
}

static void explain_rows(MjTable *table, const Explained *e, int most)
{
    if (e->has_beyond) explain_row(table, e, 0, &e->beyond);
    for (int i = 0, shown = 0; i < e->n; i++) {
        if (shown >= most && !is_choice(&e->k, &e->list[i])) continue;
        explain_row(table, e, i + 1, &e->list[i]);
        shown++;
    }
}

#define MJ_EXPLAIN_COLUMNS(cycles, title)                                                                                  \
    {                                                                                                                      \
        {"rank", "#", true}, {"chosen", "", false}, {"tuning", "candidate", false}, {"grid", "grid", true},                \
        {"shared_bytes", "smem", true}, {"tiles", "tiles", true}, {"resident", "per SM", true}, {"waves", "waves", true},  \
        {"mma_cycles", "mma", true}, {cycles, title, true}, {"load_cycles", "loads", true}, {"wait_cycles", "waits", true}, \
        {"epilogue_cycles", "epilogue", true}, {"mbytes", "MB", true}, {"us", "us", true}, {"tflops", "TFLOP/s", true},    \
        {NULL, NULL, false}                                                                                                \
    }
static const MjColumn gemm_columns[] = MJ_EXPLAIN_COLUMNS("scale_cycles", "scales");
static const MjColumn attention_columns[] = MJ_EXPLAIN_COLUMNS("softmax_cycles", "softmax");

static void rule_text(const Explained *e, MjStr *out)
{
    const MjOpMatrix *matrix = e->k.matrix;
    if (e->measured) {
        mj_str_printf(out, "`mojit tune` on this device (%.*s)", (int)strcspn(e->notes, "\n"), e->notes);
    } else {
        mj_str_puts(out, matrix == NULL || (matrix->cost == NULL && matrix->tune == NULL) ? "the defaults: it has no model of time"
                         : matrix->tune != NULL                                           ? "its own rule"
                                                                                          : "the least time by the model");
        if (e->notes != NULL) mj_str_puts(out, "; what `mojit tune` measured on this device is not used: only the model's image is in the cache");
        else if (e->device != NULL) mj_str_puts(out, "; not measured on this device (`mojit tune`)");
    }
}

static void print_explained(const MjArgs *args, const Explained *e, const char *target, const char *request, MjTable *table)
{
    const MjCard *card = mj_card_of(strncmp(target, "sm_", 3) == 0 ? atoi(target + 3) : 0);
    const bool gpu = strncmp(target, "sm_", 3) == 0;
    const char *device = e->device != NULL ? e->device->ops->info(e->device)->name : NULL;
    MjStr rule = MJ_STR_INIT;
    rule_text(e, &rule);
    if (mj_args_flag(args, "json")) {
        json_t *o = json_pack("{ss ss ss ss* ss* si ss so}", "request", request, "template", e->k.chosen.tmpl->name, "target", target, "card",
                              gpu ? card->name : NULL, "device", device, "candidates_fit", e->n, "chosen_by", mj_str_text(&rule), "candidates",
                              mj_table_json(table));
        char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        puts(text);
        free(text);
        json_decref(o);
        mj_str_free(&rule);
        return;
    }
    printf("request    %s\ntemplate   %s for %s", request, e->k.chosen.tmpl->name, target);
    if (device != NULL) printf(", on %s", device);
    if (gpu) printf(", rates of an %s: %d multiprocessors, %d bytes of shared memory a block", card->name, card->units, card->shared_bytes);
    const bool modelled = e->k.matrix != NULL && e->k.matrix->cost != NULL;
    printf("\n%d candidate%s; chosen by %s\n%s\n\n", e->n, e->n == 1 ? " fits" : "s fit", mj_str_text(&rule),
           !modelled                ? "columns of the model and of a tiling are n/a"
           : e->k.op == MJ_OP_GEMM ? "cycles are of one multiprocessor and one tile"
                                   : "tiles are steps, of a tile of queries times one of keys, and waves those of the busiest multiprocessor; cycles are of "
                                     "one step, in the epilogue of one tile of queries");
    mj_table_print(table, false);
    mj_str_free(&rule);
}

/* Candidates, and what runs among them. */
static int explain_choice(MjJit *jit, const void *op_args, Explained *e, MjError *err)
{
    int rc = 0, n = 0;
    const MjTemplate *t = e->k.asked.tmpl;
    const MjDeviceInfo *info = e->device != NULL ? e->device->ops->info(e->device) : NULL;
    MjTileCandidate *alone = NULL;
    MjRequest found, before = e->k.chosen;
    int32_t full[MJ_MAX_PARAMS];
    bool listed = false;
    MJ_TRY(mj_tile_candidates(e->k.matrix, t, mj_jit_target(jit), info, op_args, e->k.asked.values, &e->list, &e->n, err));
    if (e->device == NULL || !mj_jit_tuned_find(jit, &e->k.asked, &found, &e->notes)) goto out;
    mj_jit_measured(jit, &e->k.asked, &e->k.chosen);
    e->measured = memcmp(e->k.chosen.values, found.values, sizeof found.values) == 0;
    if (!e->measured) e->k.chosen = before;
    for (int i = 0; i < e->n; i++) listed = listed || is_choice(&e->k, &e->list[i]);
    if (listed) goto out;
    mj_jit_full_values(&e->k.chosen, full);
    MJ_TRY(mj_tile_candidates(e->k.matrix, t, mj_jit_target(jit), info, op_args, full, &alone, &n, err));
    e->beyond = alone[0];
    e->has_beyond = true;
out:
    free(alone);
    return rc;
}

/* The device whose measured choices count: the one that is named; without a target, the first GPU if there is one. */
static int open_device(const MjArgs *args, MjDevice **device, MjCache **cache, MjError *err)
{
    const char *name = mj_args_string(args, "device");
    MjConfig config;
    MjDeviceInfo info;
    int rc = 0;
    if (name != NULL && mj_args_string(args, "target") != NULL)
        return mj_error(err, MJ_ERR_USAGE, "kernels: --target is for a card that is not at hand, --device for one that is: give one of them");
    if (mj_args_string(args, "target") != NULL) return 0;
    if (name == NULL && mj_device_probe("cuda", NULL, &info, NULL) != 0) return 0;
    mj_config_defaults(&config);
    MJ_TRY(mj_device_open(name != NULL ? name : "cuda", NULL, device, err));
    MJ_TRY(mj_setup_cache(&config, cache, err));
out:
    return rc;
}

int mj_kernels_explain(const MjArgs *args, MjError *err)
{
    _Alignas(16) unsigned char op_args[MJ_MAX_ARG_BYTES];
    const char *given = mj_args_string(args, "target");
    int rc = 0;
    MjOpId op;
    MjOpShape shape;
    Explained e = {.n = 0};
    MjDevice *device = NULL;
    MjCache *cache = NULL;
    MjJit *jit = NULL;
    MjOps ops;
    double bytes = 0.0;
    MjStr request = MJ_STR_INIT;
    MjTable *table = NULL;
    MjJitOptions options = {.bucket = {MJ_BUCKET_EXACT, 1}};
    MJ_TRY(mj_mode_find("static", &options.mode, err));
    MJ_TRY(mj_kernels_parse_shape(mj_args_string(args, "explain"), &op, &shape, err));
    MJ_TRY(open_device(args, &device, &cache, err));
    options.device = device;
    options.cache = cache;
    if (device == NULL) options.target = given == NULL ? "sm_90a" : strcmp(given, "cpu") == 0 ? mj_cpu_target() : given;
    MJ_TRY(mj_jit_open(&options, &jit, err));
    MJ_TRY(mj_ops_open(device, jit, &ops, err));
    MJ_TRY(mj_matrix_kernel(&ops, op, &shape, op_args, &e.k, err));
    e.device = device;
    MJ_TRY(explain_choice(jit, op_args, &e, err));
    mj_op_cost(mj_op_rows[op], op_args, &e.flops, &bytes);
    mj_str_printf(&request, "%s", mj_op_name(op));
    mj_kernels_values(e.k.asked.tmpl, e.k.asked.values, MJ_PARAM_FIXED, &request);
    mj_kernels_values(e.k.asked.tmpl, e.k.asked.values, MJ_PARAM_VARYING, &request);
    mj_kernels_values(e.k.asked.tmpl, e.k.asked.values, MJ_PARAM_VARIANT, &request);
    table = mj_table_open(op == MJ_OP_GEMM ? gemm_columns : attention_columns);
    explain_rows(table, &e, (int)mj_args_int(args, "candidates", 12));
    print_explained(args, &e, mj_jit_target(jit), mj_str_text(&request), table);
out:
    free(e.list);
    free(e.notes);
    mj_str_free(&request);
    mj_table_close(table);
    mj_jit_close(jit);
    mj_cache_close(cache);
    mj_device_close(device);
    return rc;
}
