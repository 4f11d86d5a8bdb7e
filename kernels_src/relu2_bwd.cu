// mj:template relu2_bwd
// mj:doc dx = 2 max(x, 0) dy, in bf16 and/or quantised in the same pass; and, GATED, the gradient of the gates that dy has in it.
// mj:family cpu cuda
// mj:kernel relu2_bwd
// mj:args MjRelu2BwdArgs
// mj:param COLS fixed min:1 max:65536
// mj:param ROWS varying min:1
// mj:param Q_TYPE variant values:0,1,2
// mj:param SCALE_MODE variant values:0,1,2
// mj:param KMAJOR variant values:0,1
// mj:param GATED variant values:0,1
// mj:generic Q_TYPE=0 SCALE_MODE=0 KMAJOR=0 GATED=0
// mj:generic Q_TYPE=0 SCALE_MODE=0 KMAJOR=0 GATED=1
// mj:generic cpu Q_TYPE=1 SCALE_MODE=1 KMAJOR=0 GATED=0
// mj:generic cpu Q_TYPE=1 SCALE_MODE=1 KMAJOR=0 GATED=1
// mj:generic cuda Q_TYPE=1 SCALE_MODE=1 KMAJOR=1 GATED=0
// mj:generic cuda Q_TYPE=1 SCALE_MODE=1 KMAJOR=1 GATED=1
// mj:generic cpu Q_TYPE=1 SCALE_MODE=2 KMAJOR=0 GATED=0
// mj:generic cpu Q_TYPE=1 SCALE_MODE=2 KMAJOR=0 GATED=1
// mj:generic cuda Q_TYPE=1 SCALE_MODE=2 KMAJOR=1 GATED=0
// mj:generic cuda Q_TYPE=1 SCALE_MODE=2 KMAJOR=1 GATED=1
// mj:generic cpu Q_TYPE=2 SCALE_MODE=1 KMAJOR=0 GATED=0
// mj:generic cpu Q_TYPE=2 SCALE_MODE=1 KMAJOR=0 GATED=1
// mj:generic cuda Q_TYPE=2 SCALE_MODE=1 KMAJOR=1 GATED=0
// mj:generic cuda Q_TYPE=2 SCALE_MODE=1 KMAJOR=1 GATED=1

#include "quant_tile.h"

MJ_KERNEL_BOUNDS(relu2_bwd, MjRelu2BwdArgs, 256, 2)
{
    const MjQuantIn in = {args->x, args->dy, NULL, 1, MJ_T_BF16, MJ_QUANT_RELU2_BWD,
                          mj_rows_used(args->offset, args->experts, ROWS), 0, NULL, 0, args->gate, GATED, args->slot_of, args->dgate};
    MjQuantOut out = {args->dx, args->q, args->qt, args->q_scale, args->qt_scale, 1.0f, ROWS, COLS, Q_TYPE, SCALE_MODE, KMAJOR, 0};
    MJ_QUANTISE(&in, &out);
}
