// mj:template quantize
// mj:doc bf16 or f32 to fp8 in row blocks and/or column blocks, or per tensor; also the plain cast to bf16.
// mj:family cpu cuda
// mj:kernel quantize
// mj:args MjQuantizeArgs
// mj:param COLS fixed min:1 max:65536
// mj:param ROWS varying min:1
// mj:param X_TYPE variant values:0,3
// mj:param Q_TYPE variant values:0,1,2
// mj:param SCALE_MODE variant values:0,1,2
// mj:param KMAJOR variant values:0,1
// mj:generic cpu X_TYPE=0 Q_TYPE=1 SCALE_MODE=1 KMAJOR=0
// mj:generic cuda X_TYPE=0 Q_TYPE=1 SCALE_MODE=1 KMAJOR=1
// mj:generic cpu X_TYPE=0 Q_TYPE=1 SCALE_MODE=2 KMAJOR=0
// mj:generic cuda X_TYPE=0 Q_TYPE=1 SCALE_MODE=2 KMAJOR=1
// mj:generic cpu X_TYPE=0 Q_TYPE=2 SCALE_MODE=1 KMAJOR=0
// mj:generic cuda X_TYPE=0 Q_TYPE=2 SCALE_MODE=1 KMAJOR=1
// mj:generic X_TYPE=3 Q_TYPE=0 SCALE_MODE=0 KMAJOR=0
// mj:generic cpu X_TYPE=3 Q_TYPE=1 SCALE_MODE=1 KMAJOR=0
// mj:generic cuda X_TYPE=3 Q_TYPE=1 SCALE_MODE=1 KMAJOR=1
// mj:generic cpu X_TYPE=3 Q_TYPE=1 SCALE_MODE=2 KMAJOR=0
// mj:generic cuda X_TYPE=3 Q_TYPE=1 SCALE_MODE=2 KMAJOR=1
// mj:generic cpu X_TYPE=3 Q_TYPE=2 SCALE_MODE=1 KMAJOR=0
// mj:generic cuda X_TYPE=3 Q_TYPE=2 SCALE_MODE=1 KMAJOR=1

#include "quant_tile.h"

MJ_KERNEL_BOUNDS(quantize, MjQuantizeArgs, 256, X_TYPE == MJ_T_F32 ? 2 : 3)
{
    const MjQuantIn in = {args->x, NULL, NULL, 1, X_TYPE, 0, mj_rows_used(args->offset, args->experts, ROWS), 0, NULL, 0};
    MjQuantOut out = {args->y, args->q, args->qt, args->q_scale, args->qt_scale, 1.0f, ROWS, COLS, Q_TYPE, SCALE_MODE, KMAJOR,
                      X_TYPE == MJ_T_BF16};
    MJ_QUANTISE(&in, &out);
}
