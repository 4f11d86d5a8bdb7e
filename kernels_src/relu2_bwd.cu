// mj:template relu2_bwd
// mj:doc dx = 2 max(x, 0) dy, in bf16 and/or quantised in the same pass.
// mj:family cpu cuda
// mj:kernel relu2_bwd
// mj:args MjRelu2BwdArgs
// mj:param COLS fixed min:1 max:65536
// mj:param ROWS varying min:1
// mj:param Q_TYPE variant values:0,1,2
// mj:param SCALE_MODE variant values:0,1,2
// mj:generic Q_TYPE=0 SCALE_MODE=0
// mj:generic Q_TYPE=1 SCALE_MODE=1
// mj:generic Q_TYPE=1 SCALE_MODE=2
// mj:generic Q_TYPE=2 SCALE_MODE=1

#include "quant_tile.h"

MJ_FN void load_chunk(MjLanes *d, const MjRelu2BwdArgs *args, int32_t r, int32_t c)
{
    MjLanes x;
    mj_load_bf16(&x, args->x + (int64_t)r * COLS + c, COLS - c);
    mj_load_bf16(d, args->dy + (int64_t)r * COLS + c, COLS - c);
    MJ_FOR_LANES(l) {
        const float positive = x.v[l] < 0.0f ? 0.0f : x.v[l];
        d->v[l] *= 2.0f * positive;
    }
}

MJ_KERNEL(relu2_bwd, MjRelu2BwdArgs)
{
    const int32_t used = mj_rows_used(args->offset, args->experts, ROWS);
    MjQuantOut out = {args->dx, args->q, args->qt, args->q_scale, args->qt_scale, 1.0f, ROWS, COLS, Q_TYPE, SCALE_MODE, 0};
    if (SCALE_MODE == MJ_SCALE_TENSOR)
        out.tensor_inverse = mj_tensor_inverse(args->tensor_scale, mj_block == 0 ? args->q_scale : NULL);
#if Q_TYPE == MJ_T_BF16 || SCALE_MODE == MJ_SCALE_TENSOR
    MJ_FOR_ROWS(r, used) { /* whole rows: nothing is shared between them */
        MJ_FOR_CHUNKS(c, COLS) {
            MjLanes x;
            load_chunk(&x, args, r, c);
            mj_quant_row(&out, mj_shared, &x, 0, r, c, &x);
        }
    }
#else
    const int32_t strips = (COLS + MJ_TILE - 1) / MJ_TILE;
    MJ_FOR_ITEMS(t, (used + MJ_TILE - 1) / MJ_TILE * strips) {
        const int32_t row0 = t / strips * MJ_TILE;
        const int32_t c = t % strips * MJ_TILE;
        const int32_t rows_here = used - row0 < MJ_TILE ? used - row0 : MJ_TILE;
        MjLanes col_max = mj_lanes_zero();
        MJ_FOR_WARP_ROWS(i, rows_here) {
            MjLanes x;
            load_chunk(&x, args, row0 + i, c);
            mj_quant_row(&out, mj_shared, &col_max, i, row0 + i, c, &x);
        }
        mj_quant_columns(&out, mj_shared, &col_max, row0, rows_here, c);
    }
#endif
}
