/* How a GPU's loss is cut up, shared by its template and the host. The order of a row's sum is the same for any block. */
#ifndef MJ_LOSS_TILE_H
#define MJ_LOSS_TILE_H

#define MJ_LOSS_SEGMENT 256 /* columns that a warp reads at once */
#define MJ_LOSS_UNITS 16    /* segment i belongs to unit i % 16; a warp takes whole units */
#define MJ_LOSS_THREADS (32 * MJ_LOSS_UNITS)
/* Rows that a multiprocessor works on: few, so that L2 still has a row when it is read for the second time. */
#define MJ_LOSS_RESIDENT 2
#define MJ_LOSS_BYTES (4 * MJ_LOSS_UNITS * 4) /* sums and largest values of the units, for this row and the next */

#endif
