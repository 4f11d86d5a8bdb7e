// mj:template relu2_fwd
// mj:doc y = max(x, 0)^2, in bf16 and/or quantised in the same pass.
// mj:family cpu cuda
// mj:kernel relu2_fwd
// mj:args MjRelu2FwdArgs
// mj:param COLS fixed min:1 max:65536
// mj:param ROWS varying min:1
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

MJ_KERNEL_BOUNDS(relu2_fwd, MjRelu2FwdArgs, 256, 2)
{
    const MjQuantIn in = {args->x, NULL, NULL, 1, MJ_T_BF16, MJ_QUANT_RELU2, mj_rows_used(args->offset, args->experts, ROWS), 0, NULL, 0};
    MjQuantOut out = {args->y, args->q, args->qt, args->q_scale, args->qt_scale, 1.0f, ROWS, COLS, Q_TYPE, SCALE_MODE, KMAJOR, 0};
    MJ_QUANTISE(&in, &out);
}
