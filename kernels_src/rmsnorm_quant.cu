// mj:template rmsnorm_quant
// mj:doc RMSNorm of rows whose rstd is known: x rstd in e4m3, row blocks and column blocks from one read.
// mj:family cpu cuda
// mj:kernel rmsnorm_quant
// mj:args MjRmsnormQuantArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOKENS varying min:1
// mj:param KMAJOR variant values:0,1
// mj:generic cpu KMAJOR=0
// mj:generic cuda KMAJOR=1

#include "quant_tile.h"

#if MJ_CPU

MJ_FN void tile(const MjRmsnormQuantArgs *args, const MjQuantOut *out, void *shared, int32_t row0, int32_t c)
{
    uint16_t *stash = (uint16_t *)shared; /* (128, 128) */
    const int32_t rows_here = TOKENS - row0 < MJ_TILE ? TOKENS - row0 : MJ_TILE;
    MjLanes x, col_max = mj_lanes_zero();
    for (int32_t i = 0; i < rows_here; i++) {
        const int32_t r = row0 + i;
        mj_load_f32(&x, args->x + (int64_t)r * WIDTH + c, WIDTH - c);
        MJ_FOR_LANES(l) x.v[l] = mj_bf16_to_f32(mj_f32_to_bf16(x.v[l] * args->rstd[r]));
        mj_quant_tile_row(out, stash + i * MJ_TILE, &col_max, r, c, &x);
    }
    if (out->qt != NULL) mj_quant_tile_columns(out, stash, &col_max, row0, rows_here, c);
}

#else

/* Loads of all rows are sent before any is waited for. */
MJ_FN void tile(const MjRmsnormQuantArgs *args, const MjQuantOut *out, void *shared, int32_t row0, int32_t c)
{
    const MjTileAt at = {row0 + MJ_WARP_INDEX * MJ_WARP_ROWS, c, TOKENS % MJ_TILE == 0 ? MJ_EVERY_ROW : TOKENS - 1,
                         WIDTH % MJ_TILE == 0 || c + 4 * MJ_LANE < WIDTH};
    const int64_t from = (int64_t)at.first * WIDTH + c + 4 * MJ_LANE;
    const int32_t mine = at.first + MJ_LANE % MJ_WARP_ROWS;
    const float rstd = mine <= at.last ? args->rstd[mine] : 0.0f;
    float4 x[MJ_WARP_ROWS];
    uint2 packed[MJ_WARP_ROWS];
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) {
        x[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (at.first + i <= at.last && at.inside) x[i] = *(const float4 *)(args->x + from + i * (int64_t)WIDTH);
    }
    mj_warp_sync();
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) {
        const float by = __shfl_sync(0xffffffffu, rstd, i);
        const MjLanes y = {{x[i].x * by, x[i].y * by, x[i].z * by, x[i].w * by}};
        packed[i] = mj_pack_bf16(&y);
    }
    mj_quant_write(packed, out, &at, shared);
}

#endif

MJ_KERNEL_BOUNDS(rmsnorm_quant, MjRmsnormQuantArgs, 256, 2)
{
    const MjQuantOut out = {NULL, args->q, args->qt, args->q_scale, args->qt_scale, 1.0f, TOKENS, WIDTH, MJ_T_E4M3, MJ_SCALE_BLOCK,
                            KMAJOR, 0};
    const int32_t strips = (WIDTH + MJ_TILE - 1) / MJ_TILE, tiles = (TOKENS + MJ_TILE - 1) / MJ_TILE;
    MJ_FOR_ITEMS(t, tiles * strips) tile(args, &out, mj_shared, t / strips * MJ_TILE, t % strips * MJ_TILE);
}
