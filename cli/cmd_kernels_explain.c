/* `mojit kernels --explain`: a request, the candidates of its template's tuning values, what the model of time says of each, and
 * the one that runs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/kernels.h"
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

static void explain_rows(MjTable *table, const MjMatrixKernel *k, const MjTileCandidate *list, int n, int most, double flops)
{
    int shown = 0;
    for (int i = 0; i < n; i++) {
        const bool choice = is_choice(k, &list[i]);
        MjStr tuning = MJ_STR_INIT;
        if (shown >= most && !choice) continue;
        mj_kernels_values(k->chosen.tmpl, list[i].values, MJ_PARAM_TUNING, &tuning);
        mj_table_int(table, i + 1);
        mj_table_show(table, json_boolean(choice), choice ? "chosen" : "");
        mj_table_text(table, mj_str_text(&tuning));
        cost_cells(table, k, &list[i], flops);
        mj_str_free(&tuning);
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

static void print_explained(const MjArgs *args, const MjMatrixKernel *k, const char *target, const char *request, int n, MjTable *table)
{
    const char *rule = k->matrix == NULL || (k->matrix->cost == NULL && k->matrix->tune == NULL) ? "the defaults: it has no model of time"
                       : k->matrix->tune != NULL ? "its own rule" : "the least time by the model";
    const MjCard *card = mj_card_of(strncmp(target, "sm_", 3) == 0 ? atoi(target + 3) : 0);
    const bool gpu = strncmp(target, "sm_", 3) == 0;
    if (mj_args_flag(args, "json")) {
        json_t *o = json_pack("{ss ss ss ss* si ss so}", "request", request, "template", k->chosen.tmpl->name, "target", target, "card",
                              gpu ? card->name : NULL, "candidates_fit", n, "chosen_by", rule, "candidates", mj_table_json(table));
        char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        puts(text);
        free(text);
        json_decref(o);
        return;
    }
    printf("request    %s\ntemplate   %s for %s", request, k->chosen.tmpl->name, target);
    if (gpu) printf(", sizes of an %s: %d multiprocessors, %d bytes of shared memory a block", card->name, card->units, card->shared_bytes);
    printf("\ncandidates %d fit; chosen by %s\n%s\n\n", n, rule,
           k->op == MJ_OP_GEMM ? "cycles are of one multiprocessor and one tile"
                               : "tiles are steps, of a tile of queries times one of keys, and waves those of the busiest multiprocessor; cycles are of one "
                                 "step, in the epilogue of one tile of queries");
    mj_table_print(table, false);
}

int mj_kernels_explain(const MjArgs *args, MjError *err)
{
    _Alignas(16) unsigned char op_args[MJ_MAX_ARG_BYTES];
    const char *given = mj_args_string(args, "target"), *target = given == NULL ? "sm_90a" : strcmp(given, "cpu") == 0 ? mj_cpu_target() : given;
    int rc = 0, n = 0;
    MjOpId op;
    MjOpShape shape;
    MjMatrixKernel k;
    MjTileCandidate *list = NULL;
    MjJit *jit = NULL;
    MjOps ops;
    double flops = 0.0, bytes = 0.0;
    MjStr request = MJ_STR_INIT;
    MjTable *table = NULL;
    MjJitOptions options = {.target = target, .bucket = {MJ_BUCKET_EXACT, 1}};
    MJ_TRY(mj_mode_find("static", &options.mode, err));
    MJ_TRY(mj_kernels_parse_shape(mj_args_string(args, "explain"), &op, &shape, err));
    MJ_TRY(mj_jit_open(&options, &jit, err));
    MJ_TRY(mj_ops_open(NULL, jit, &ops, err));
    MJ_TRY(mj_matrix_kernel(&ops, op, &shape, op_args, &k, err));
    MJ_TRY(mj_tile_candidates(k.matrix, k.chosen.tmpl, target, NULL, op_args, k.asked.values, &list, &n, err));
    mj_op_cost(mj_op_rows[op], op_args, &flops, &bytes);
    mj_str_printf(&request, "%s", mj_op_name(op));
    mj_kernels_values(k.asked.tmpl, k.asked.values, MJ_PARAM_FIXED, &request);
    mj_kernels_values(k.asked.tmpl, k.asked.values, MJ_PARAM_VARYING, &request);
    mj_kernels_values(k.asked.tmpl, k.asked.values, MJ_PARAM_VARIANT, &request);
    table = mj_table_open(op == MJ_OP_GEMM ? gemm_columns : attention_columns);
    explain_rows(table, &k, list, n, (int)mj_args_int(args, "candidates", 12), flops);
    print_explained(args, &k, target, mj_str_text(&request), n, table);
out:
    free(list);
    mj_str_free(&request);
    mj_table_close(table);
    mj_jit_close(jit);
    return rc;
}
