// mj:template permute
// mj:doc Gathers token rows into the routed layout, in bf16 or quantised in the same pass; padding rows are zeros.
// mj:family cpu cuda
// mj:kernel permute
// mj:args MjPermuteArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOP_K fixed min:1 max:32
// mj:param ROWS varying min:128 multiple:128
// mj:param Q_TYPE variant values:0,1,2
// mj:param SCALE_MODE variant values:0,1,2
// mj:generic Q_TYPE=0 SCALE_MODE=0
// mj:generic Q_TYPE=1 SCALE_MODE=1
// mj:generic Q_TYPE=1 SCALE_MODE=2
// mj:generic Q_TYPE=2 SCALE_MODE=1

#include "quant_tile.h"

MJ_FN void load_slot(MjLanes *x, const MjPermuteArgs *args, int32_t r, int32_t c)
{
    const int32_t slot = args->slot_of[r];
    if (slot >= 0) {
        mj_load_bf16(x, args->x + (int64_t)(slot / TOP_K) * WIDTH + c, WIDTH - c);
    } else {
        *x = mj_lanes_zero();
    }
}

MJ_KERNEL(permute, MjPermuteArgs)
{
    const int32_t used = mj_rows_used(args->offset, args->experts, ROWS);
#if Q_TYPE == MJ_T_BF16
    MJ_FOR_ROWS(r, used) {
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes x;
            load_slot(&x, args, r, c);
            mj_store_bf16(args->out + (int64_t)r * WIDTH + c, &x, WIDTH - c);
        }
    }
#else
    MjQuantOut out = {args->out, args->q, args->qt, args->q_scale, args->qt_scale, 1.0f, ROWS, WIDTH, Q_TYPE, SCALE_MODE, 1};
    if (SCALE_MODE == MJ_SCALE_TENSOR)
        out.tensor_inverse = mj_tensor_inverse(args->tensor_scale, mj_block == 0 ? args->q_scale : NULL);
    const int32_t strips = (WIDTH + MJ_TILE - 1) / MJ_TILE;
    MJ_FOR_ITEMS(t, (used + MJ_TILE - 1) / MJ_TILE * strips) {
        const int32_t row0 = t / strips * MJ_TILE;
        const int32_t c = t % strips * MJ_TILE;
        const int32_t rows_here = used - row0 < MJ_TILE ? used - row0 : MJ_TILE;
        MjLanes col_max = mj_lanes_zero();
        MJ_FOR_WARP_ROWS(i, rows_here) {
            MjLanes x;
            load_slot(&x, args, row0 + i, c);
            mj_quant_row(&out, mj_shared, &col_max, i, row0 + i, c, &x);
        }
        mj_quant_columns(&out, mj_shared, &col_max, row0, rows_here, c);
    }
#endif
}
