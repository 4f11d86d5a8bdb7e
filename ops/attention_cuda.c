/* Attention on a cuda device: tiles, grids and shared memory of its templates. Owns nothing of the mathematics. */
#include "kernels_src/attention_tile.h"
#include "ops/op_row.h"

static int32_t tuned(const MjLaunchRecord *r, const char *name) { return r->tuning_of[mj_template_param(r->tmpl, name)]; }

static int check_shared(const MjOpGeometry *g, const MjLaunchRecord *r, const MjDeviceInfo *info, int32_t head_dim, MjError *err)
{
    if (g->shared_bytes <= info->max_shared_bytes) return 0;
    return mj_error(err, MJ_ERR_MISSING,
                    "%s with heads of %d needs %zu bytes of shared memory a block, %s has %zu: use model.head_dim = 64, or "
                    "another device", r->tmpl->name, head_dim, g->shared_bytes, info->name, info->max_shared_bytes);
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
    g->block = 32 * (uint32_t)warps;
    g->grid = tile_blocks(a->tokens, a->heads, MJ_ATTENTION_MMA_ROWS(warps));
    g->shared_bytes = (size_t)MJ_ATTENTION_MMA_FWD_BYTES(warps, a->head_dim);
    return check_shared(g, r, info, a->head_dim, err);
}

static int bwd_sm80_geometry(const MjLaunchRecord *r, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *g,
                             MjError *err)
{
    const MjAttentionBwdArgs *a = args;
    const int32_t warps = tuned(r, "WARPS");
    g->block = 32 * (uint32_t)warps;
    if (kernel == 0) { /* delta: head_dim / 8 threads a row */
        const int64_t each = (int64_t)g->block / (a->head_dim / 8);
        g->grid = (uint32_t)MJ_CEIL((int64_t)a->tokens * a->heads, each);
        return 0;
    }
    g->grid = tile_blocks(a->tokens, a->heads, MJ_ATTENTION_MMA_ROWS(warps));
    g->shared_bytes = (size_t)(kernel == 1 ? MJ_ATTENTION_MMA_DQ_BYTES(warps, a->head_dim)
                                           : MJ_ATTENTION_MMA_DKV_BYTES(warps, a->head_dim));
    return check_shared(g, r, info, a->head_dim, err);
}

const MjOpMatrix mj_attention_fwd_sm80 = {.tmpl = "attention_fwd_sm80", .geometry = fwd_sm80_geometry};
const MjOpMatrix mj_attention_bwd_sm80 = {.tmpl = "attention_bwd_sm80", .geometry = bwd_sm80_geometry};
