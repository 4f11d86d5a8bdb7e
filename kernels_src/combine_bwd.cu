// mj:template combine_bwd
// mj:doc Gradient of combine to the experts' rows: dy[row] = gate dx[n], in bf16 and/or quantised; padding rows are zeros.
// mj:family cpu cuda
// mj:kernel combine_bwd
// mj:args MjCombineBwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOP_K fixed min:1 max:32
// mj:param ROWS varying min:128 multiple:128
// mj:param Q_TYPE variant values:0,1
// mj:param SCALE_MODE variant values:0,2
// mj:param KMAJOR variant values:0,1
// mj:generic Q_TYPE=0 SCALE_MODE=0 KMAJOR=0
// mj:generic cpu Q_TYPE=1 SCALE_MODE=2 KMAJOR=0
// mj:generic cuda Q_TYPE=1 SCALE_MODE=2 KMAJOR=1

#include "quant_tile.h"

MJ_KERNEL_BOUNDS(combine_bwd, MjCombineBwdArgs, 256, 2)
{
    const MjQuantIn in = {args->dx, NULL, args->slot_of, TOP_K, MJ_T_F32, MJ_QUANT_GATED,
                          mj_rows_used(args->offset, args->experts, ROWS), 1, args->offset, args->experts, args->gate};
    const MjQuantOut out = {args->dy, args->q, args->qt, args->q_scale, args->qt_scale, 1.0f, ROWS, WIDTH, Q_TYPE, SCALE_MODE, KMAJOR, 0};
    mj_quant_tiles(&in, &out, mj_shared, mj_block, mj_grid);
}
