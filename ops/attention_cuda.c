/* Attention on a cuda device: tiles, grids and shared memory of its templates. Owns nothing of the mathematics. */
#include <string.h>

#include "kernels_src/attention_tile.h"
#include "ops/attention_cost.h"
#include "ops/op_row.h"

static int32_t tuned(const MjLaunchRecord *r, const char *name) { return r->tuning_of[mj_template_param(r->tmpl, name)]; }

static int check_shared(const MjOpGeometry *g, const MjLaunchRecord *r, const MjDeviceInfo *info, int32_t head_dim, MjError *err)
{
    if (g->shared_bytes <= info->max_shared_bytes) return 0;
    return mj_error(err, MJ_ERR_MISSING,
                    "%s with heads of %d needs %zu bytes of shared memory a block, %s has %zu: use model.head_dim = 64, or "
                    "another device", r->tmpl->name, head_dim, g->shared_bytes, info->name, info->max_shared_bytes);
}

/* delta: head_dim / 8 threads a row. */
static void delta_geometry(MjOpGeometry *g, const MjAttentionBwdArgs *a)
{
    *g = (MjOpGeometry){.block = MJ_ATTENTION_DELTA_THREADS};
    g->grid = (uint32_t)MJ_CEIL((int64_t)a->tokens * a->heads, MJ_ATTENTION_DELTA_THREADS / (a->head_dim / 8));
}

/* ---- mma.sync, sm_80 and later ------------------------------------------------------------------------------------- */

static uint32_t tile_blocks(int32_t tokens, int32_t heads, int32_t rows)
{
    return (uint32_t)(MJ_CEIL(tokens, rows) * heads);
}

static int fwd_sm80_geometry(const MjLaunchRecord *r, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *g,
                             MjError *err)
{
    const MjAttentionFwdArgs *a = args;
    const int32_t warps = tuned(r, "WARPS");
    (void)kernel;
    *g = (MjOpGeometry){.block = 32 * (uint32_t)warps};
    g->grid = tile_blocks(a->tokens, a->heads, MJ_ATTENTION_MMA_ROWS(warps));
    g->shared_bytes = (size_t)MJ_ATTENTION_MMA_FWD_BYTES(warps, a->head_dim);
    return check_shared(g, r, info, a->head_dim, err);
}

static int bwd_sm80_geometry(const MjLaunchRecord *r, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *g,
                             MjError *err)
{
    const MjAttentionBwdArgs *a = args;
    const int32_t warps = tuned(r, "WARPS");
    if (kernel == 0) {
        delta_geometry(g, a);
        return 0;
    }
    *g = (MjOpGeometry){.block = 32 * (uint32_t)warps};
    g->grid = tile_blocks(a->tokens, a->heads, MJ_ATTENTION_MMA_ROWS(warps));
    g->shared_bytes = (size_t)(kernel == 1 ? MJ_ATTENTION_MMA_DQ_BYTES(warps, a->head_dim)
                                           : MJ_ATTENTION_MMA_DKV_BYTES(warps, a->head_dim));
    return check_shared(g, r, info, a->head_dim, err);
}

static int32_t value_of(const MjTemplate *t, const int32_t *values, const char *name) { return values[mj_template_param(t, name)]; }

static MjAttentionSize fwd_size(const void *args)
{
    const MjAttentionFwdArgs *a = args;
    return (MjAttentionSize){a->tokens, a->heads, a->head_dim, a->window, a->longest};
}
static MjAttentionSize bwd_size(const void *args)
{
    const MjAttentionBwdArgs *a = args;
    return (MjAttentionSize){a->tokens, a->heads, a->head_dim, a->window, a->longest};
}

/* What a score costs, by the templates' code. Backward reads q, k, v and dout twice. `hidden` and `contended` of sm_90a are fitted to
 * twelve forward times on an H100 and to ten backward (docs/performance.md); rates of mma.sync were not measured. */
static const struct Cost {
    const char *tmpl;
    MjAttentionSize (*size)(const void *args);
    MjAttentionModel model; /* warps, rows and order: from the tuning values */
} costs[] = {
    {"attention_fwd_sm80", fwd_size, {.step = MJ_ATTENTION_MMA_KEYS, .products = 2, .exponentials = 1, .operations = 5, .streamed = 2, .own_bytes = 4,
      .once_bytes = 8, .rate = 0.6, .hidden = 0.5, .in_use = 1, .most_resident = 2}},
    {"attention_bwd_sm80", bwd_size, {.step = MJ_ATTENTION_MMA_STEP, .products = 7, .exponentials = 2, .operations = 10, .streamed = 4, .own_bytes = 16,
      .once_bytes = 24, .rate = 0.6, .hidden = 0.5, .in_use = 1, .most_resident = 2}},
    {"attention_fwd_sm90", fwd_size, {.step = MJ_ATTENTION_SM90_FWD_KEYS, .products = 2, .exponentials = 1, .operations = 5, .streamed = 2, .own_bytes = 4,
      .once_bytes = 8, .rate = 1.0, .hidden = 0.43, .in_use = 1, .most_resident = 1}},
    {"attention_bwd_sm90", bwd_size, {.step = MJ_ATTENTION_SM90_BWD_STEP, .products = 7, .exponentials = 2, .operations = 10, .streamed = 4,
      .own_bytes = 16, .once_bytes = 24, .rate = 1.0, .hidden = 0.33, .contended = 0.18, .in_use = 2, .most_resident = 1}},
};

static void attention_cost(const MjTemplate *t, const MjCard *card, const void *args, const int32_t *values, const MjOpGeometry *g, MjTileCost *out)
{
    const struct Cost *cost = costs;
    while (strcmp(cost->tmpl, t->name) != 0) cost++;
    const MjAttentionSize size = cost->size(args);
    const bool persistent = mj_template_param(t, "ORDER") >= 0;
    MjAttentionModel m = cost->model;
    m.order = persistent ? value_of(t, values, "ORDER") : -1;
    m.warps = persistent ? MJ_ATTENTION_SM90_FWD_ROWS / 16 : value_of(t, values, "WARPS");
    m.rows = 16 * m.warps;
    MjOpGeometry matrices = *g; /* the first kernel of backward with mma.sync is delta: not its block */
    if (!persistent) matrices.block = 32 * (uint32_t)m.warps;
    mj_attention_cost(&m, card, &size, persistent ? value_of(t, values, "STAGES") : 2, &matrices, out);
}

const MjOpMatrix mj_attention_fwd_sm80 = {.tmpl = "attention_fwd_sm80", .cost = attention_cost, .geometry = fwd_sm80_geometry};
const MjOpMatrix mj_attention_bwd_sm80 = {.tmpl = "attention_bwd_sm80", .cost = attention_cost, .geometry = bwd_sm80_geometry};

/* ---- TMA and wgmma, sm_90a ------------------------------------------------------------------------------------------- */

/* A head's rows of (N, ..., H, D), D innermost, in boxes of 64 columns by `rows` tokens. Token n begins n * stride elements
 * after the first. */
static void head_map(MjOpGeometry *g, const char *name, const uint16_t *first, int64_t stride, int32_t tokens, int32_t heads,
                     int32_t head_dim, uint32_t rows)
{
    g->map_names[g->n_maps] = name;
    g->maps[g->n_maps++] = (MjTensorMapSpec){
        .address = first, .type = MJ_TENSOR_MAP_BF16, .swizzle = MJ_TENSOR_MAP_SWIZZLE_128, .rank = 3,
        .dims = {(uint64_t)head_dim, (uint64_t)heads, (uint64_t)tokens},
        .strides = {(uint64_t)head_dim * 2, (uint64_t)stride * 2}, .box = {64, 1, rows},
    };
}

static uint32_t persistent_blocks(int64_t items, const MjDeviceInfo *info)
{
    return (uint32_t)(items < info->units ? items : info->units);
}

static int fwd_sm90_geometry(const MjLaunchRecord *r, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *g,
                             MjError *err)
{
    const MjAttentionFwdArgs *a = args;
    const int32_t n = a->tokens, h = a->heads, d = a->head_dim;
    const int64_t row = (int64_t)h * d;
    (void)kernel;
    *g = (MjOpGeometry){.block = MJ_ATTENTION_SM90_THREADS};
    g->grid = persistent_blocks((int64_t)MJ_CEIL(n, MJ_ATTENTION_SM90_FWD_ROWS) * h, info);
    g->shared_bytes = (size_t)MJ_ATTENTION_SM90_FWD_BYTES(tuned(r, "STAGES"), d);
    head_map(g, "q", a->q, row, n, h, d, MJ_ATTENTION_SM90_FWD_ROWS);
    head_map(g, "k", a->k, row, n, h, d, MJ_ATTENTION_SM90_FWD_KEYS);
    head_map(g, "v", a->qkv + 2 * row, 3 * row, n, h, d, MJ_ATTENTION_SM90_FWD_KEYS);
    head_map(g, "out", a->out, row, n, h, d, 64);
    return check_shared(g, r, info, d, err);
}

static int bwd_sm90_geometry(const MjLaunchRecord *r, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *g,
                             MjError *err)
{
    const MjAttentionBwdArgs *a = args;
    const int32_t n = a->tokens, h = a->heads, d = a->head_dim, step = MJ_ATTENTION_SM90_BWD_STEP;
    const int64_t row = (int64_t)h * d;
    *g = (MjOpGeometry){.block = MJ_ATTENTION_SM90_THREADS};
    g->grid = persistent_blocks((int64_t)MJ_CEIL(n, 2 * step) * h, info);
    g->shared_bytes =
        (size_t)MJ_ATTENTION_SM90_BWD_BYTES(kernel == 0 ? MJ_ATTENTION_SM90_DQ_TILES : MJ_ATTENTION_SM90_DKV_TILES, tuned(r, "STAGES"), d);
    const uint32_t queries = kernel == 0 ? 2 * step : step, keys = kernel == 0 ? step : 2 * step; /* of a box: own rows, or a step's */
    head_map(g, "q", a->q, row, n, h, d, queries);
    head_map(g, "k", a->k, row, n, h, d, keys);
    head_map(g, "v", a->qkv + 2 * row, 3 * row, n, h, d, keys);
    head_map(g, "dout", a->dout, row, n, h, d, queries);
    head_map(g, "out", a->out, row, n, h, d, queries);
    return check_shared(g, r, info, d, err);
}

const MjOpMatrix mj_attention_fwd_sm90 = {.tmpl = "attention_fwd_sm90", .cost = attention_cost, .geometry = fwd_sm90_geometry};
const MjOpMatrix mj_attention_bwd_sm90 = {.tmpl = "attention_bwd_sm90", .cost = attention_cost, .geometry = bwd_sm90_geometry};
