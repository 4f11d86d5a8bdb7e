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
// mj:param KMAJOR variant values:0,1
// mj:generic Q_TYPE=0 SCALE_MODE=0 KMAJOR=0
// mj:generic cpu Q_TYPE=1 SCALE_MODE=1 KMAJOR=0
// mj:generic cuda Q_TYPE=1 SCALE_MODE=1 KMAJOR=1
// mj:generic cpu Q_TYPE=1 SCALE_MODE=2 KMAJOR=0
// mj:generic cuda Q_TYPE=1 SCALE_MODE=2 KMAJOR=1
// mj:generic cpu Q_TYPE=2 SCALE_MODE=1 KMAJOR=0
// mj:generic cuda Q_TYPE=2 SCALE_MODE=1 KMAJOR=1

#include "quant_tile.h"

MJ_KERNEL_BOUNDS(permute, MjPermuteArgs, 256, 3)
{
    const MjQuantIn in = {args->x, NULL, args->slot_of, TOP_K, MJ_T_BF16, 0, mj_rows_used(args->offset, args->experts, ROWS),
                          1, args->offset, args->experts};
    MjQuantOut out = {args->out, args->q, args->qt, args->q_scale, args->qt_scale, 1.0f, ROWS, WIDTH, Q_TYPE, SCALE_MODE, KMAJOR, 1};
    MJ_QUANTISE(&in, &out);
}
