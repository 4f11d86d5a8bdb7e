/* Candidates, the model of a GEMM's time, and the choice; see tile_choice.h. */
#include "ops/tile_choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels_src/kernel_args.h"
#include "runtime/base/mem.h"

/* ---- candidates -------------------------------------------------------------------------------------------------- */

bool mj_tuning_next(const MjTemplate *t, const int32_t *asked, MjTuningCount *count, int32_t *values)
{
    bool carry = count->started;
    for (int i = t->n_params - 1; i >= 0; i--) {
        const MjParam *p = &t->params[i];
        values[i] = asked[i];
        if (p->kind != MJ_PARAM_TUNING || asked[i] != MJ_UNBOUND) continue;
        if (p->n_values == 0) {
            values[i] = p->default_value;
            continue;
        }
        if (carry) {
            count->at[i]++;
            carry = count->at[i] == p->n_values;
            if (carry) count->at[i] = 0;
        }
        values[i] = p->values[count->at[i]];
    }
    const bool more = !carry || !count->started;
    count->started = true;
    return more;
}

/* How many tuning values are not the defaults: of equals the plainest wins. */
static int distance(const MjTemplate *t, const int32_t *values)
{
    int n = 0;
    for (int i = 0; i < t->n_params; i++)
        n += t->params[i].kind == MJ_PARAM_TUNING && values[i] != t->params[i].default_value;
    return n;
}

static bool evaluate(const MjOpMatrix *matrix, const MjTemplate *t, const MjCard *card, const MjDeviceInfo *info, const void *args,
                     MjTileCandidate *c)
{
    MjLaunchRecord record = {.tmpl = t};
    memcpy(record.tuning_of, c->values, sizeof record.tuning_of);
    c->geometry = (MjOpGeometry){.grid = 1, .block = 256};
    for (int k = t->n_kernels - 1; matrix != NULL && k >= 0; k--) {
        MjOpGeometry g = {.grid = 1, .block = 256};
        if (matrix->geometry(&record, k, info, args, &g, NULL) != 0) return false;
        if (g.shared_bytes < c->geometry.shared_bytes) g.shared_bytes = c->geometry.shared_bytes;
        c->geometry = g;
    }
    if (c->geometry.shared_bytes > info->max_shared_bytes) return false;
    c->cost = (MjTileCost){0};
    if (matrix != NULL && matrix->cost != NULL) matrix->cost(t, card, args, c->values, &c->geometry, &c->cost);
    return true;
}

static bool cheaper(const MjTemplate *t, const MjTileCandidate *a, const MjTileCandidate *b)
{
    if (a->cost.seconds < b->cost.seconds) return true;
    if (a->cost.seconds > b->cost.seconds) return false;
    const int x = distance(t, a->values), y = distance(t, b->values);
    return x != y ? x < y : a->order < b->order;
}

static int arch_of(const char *target) { return strncmp(target, "sm_", 3) == 0 ? atoi(target + 3) : 0; }

int mj_tile_candidates(const MjOpMatrix *matrix, const MjTemplate *t, const char *target, const MjDeviceInfo *info,
                       const void *args, const int32_t *values, MjTileCandidate **out, int *n, MjError *err)
{
    const MjCard *card = mj_card_of(arch_of(target));
    MjDeviceInfo assumed;
    MjTuningCount count = {.started = false};
    MjTileCandidate *list = NULL, c = {.order = 0};
    int have = 0, cap = 0;
    if (info == NULL) {
        mj_card_info(card, target, &assumed);
        info = &assumed;
    }
    for (; mj_tuning_next(t, values, &count, c.values); c.order++) {
        if (!evaluate(matrix, t, card, info, args, &c)) continue;
        if (have == cap) {
            cap = cap != 0 ? 2 * cap : 64;
            list = mj_xrealloc(list, (size_t)cap * sizeof *list);
        }
        int at = have++; /* insertion: the lists are short */
        while (at > 0 && cheaper(t, &c, &list[at - 1])) {
            list[at] = list[at - 1];
            at--;
        }
        list[at] = c;
    }
    if (have == 0) {
        free(list);
        return mj_error(err, MJ_ERR_USAGE, "%s: none of the %d combinations of its tuning values fits %s", t->name, c.order, info->name);
    }
    *out = list;
    *n = have;
    return 0;
}

void mj_tile_choose(const MjOpMatrix *matrix, const MjTemplate *t, const char *target, const void *args, int32_t *values)
{
    const MjCard *card = mj_card_of(arch_of(target));
    MjDeviceInfo info;
    MjTuningCount count = {.started = false};
    MjTileCandidate best = {.order = -1}, c = {.order = 0};
    if (matrix->tune != NULL) {
        matrix->tune(t, arch_of(target), args, values);
        return;
    }
    if (matrix->cost == NULL) return;
    mj_card_info(card, target, &info);
    for (; mj_tuning_next(t, values, &count, c.values); c.order++)
        if (evaluate(matrix, t, card, &info, args, &c) && (best.order < 0 || cheaper(t, &c, &best))) best = c;
    if (best.order >= 0) memcpy(values, best.values, (size_t)t->n_params * sizeof *values);
}

/* ---- the GEMM's model ---------------------------------------------------------------------------------------------- */

static int32_t value_of(const MjTemplate *t, const int32_t *values, const char *name, int32_t fallback)
{
    const int i = mj_template_param(t, name);
    return i < 0 ? fallback : values[i];
}

static double ceil_div(double a, double b) { return ceil(a / b); }

static double type_bytes(int32_t type) { return type == MJ_T_F32 ? 4.0 : type == MJ_T_BF16 ? 2.0 : 1.0; }

/* From asking for a stage to its arrival, and around a tile: starting, draining, barriers. Cycles; of the size that
 * published pointer-chase tests find for L2 hits and for memory. */
#define LATENCY_CYCLES 900.0
#define TILE_CYCLES 600.0
#define STORE_CYCLE 32.0 /* bytes of the result a cycle that one multiprocessor writes */

void mj_gemm_cost(const MjGemmModel *model, const MjTemplate *t, const MjCard *card, const void *args, const int32_t *values,
                  const MjOpGeometry *geometry, MjTileCost *out)
{
    const MjGemmArgs *a = args;
    const double tile_m = value_of(t, values, "TILE_M", 128), tile_n = value_of(t, values, "TILE_N", 128);
    const double stages = value_of(t, values, "STAGES", 2), cluster = value_of(t, values, "CLUSTER", 1);
    const double experts = a->experts < 1 ? 1 : a->experts, operand = type_bytes(a->a_type);
    const bool group_m = a->group == MJ_GROUP_M, group_k = a->group == MJ_GROUP_K;
    const double depth = group_k ? a->k / experts : a->k; /* of one tile, if the experts share evenly */
    const double row_tiles = group_m ? experts * ceil_div(a->m / experts, tile_m) : ceil_div(a->m, tile_m) * (group_k ? experts : 1);
    const double steps = ceil_div(depth * operand, model->depth_bytes);
    const double rate = (operand < 2.0 && card->fp8_cycle > 0 ? card->fp8_cycle : card->bf16_cycle) * model->rate;
    const double unit_bytes = card->shared_bytes + 1024.0;

    /* Blocks of a cluster stand side by side: with an odd number of columns of tiles, the last one works for nothing. */
    out->tiles = row_tiles * ceil_div(a->n, tile_n * cluster) * cluster;
    out->resident = (int)floor(unit_bytes / ((double)geometry->shared_bytes + 1024.0));
    if (out->resident > 2048 / (int)geometry->block) out->resident = 2048 / (int)geometry->block;
    if (out->resident < 1) out->resident = 1;
    out->waves = ceil_div(out->tiles, floor(card->units / cluster) * cluster);
    out->mma_cycles = 2.0 * tile_m * tile_n * steps * model->depth_bytes / operand / rate;
    /* Two multiply-adds an accumulator for each 128 of K: the products' scale, and the sum. */
    out->scale_cycles = a->scale_mode == MJ_SCALE_BLOCK ? 2.0 * tile_m * tile_n * ceil_div(depth, 128) / card->fma_cycle : 0.0;
    out->load_cycles = (tile_m / cluster + tile_n) * steps * model->depth_bytes / card->l2_cycle;
    const double math = out->mma_cycles + (1.0 - model->scales_hidden) * out->scale_cycles;
    const double busy = fmax(math + steps * model->step_cycles, out->load_cycles);
    const double ahead = stages > 1 ? stages - 1 : 1;
    out->wait_cycles = fmax(0.0, LATENCY_CYCLES / ahead - busy / steps) * steps / out->resident;
    out->epilogue_cycles = TILE_CYCLES + tile_m * tile_n * type_bytes(a->c_type) * (a->epilogue != 0 ? 2.0 : 1.0) / STORE_CYCLE;
    /* What hides the epilogue: a second resident block, or a template that stores beside the next tile's products. */
    const double hidden = model->overlap && out->waves > 1 ? 0.5 : out->resident > 1 ? 1.0 / out->resident : 1.0;
    const double tile = busy + out->wait_cycles + hidden * out->epilogue_cycles;
    out->bytes = (double)a->m * a->k * operand + (double)a->n * a->k * operand * (group_m ? experts : 1) +
                 (double)a->m * a->n * type_bytes(a->c_type) * (group_k ? experts : 1) * (a->epilogue != 0 ? 2.0 : 1.0);
    out->seconds = fmax((out->waves * tile + LATENCY_CYCLES) / card->clock_hz, out->bytes / card->memory_bytes_s);
}
