/* What the Hopper GEMM templates and the host agree on: the shared memory of a block and its parts. Knows no shapes. */
#ifndef MJ_GEMM_SM90_TILE_H
#define MJ_GEMM_SM90_TILE_H

#define MJ_SM90_GROUPS(tile_m) ((tile_m) == 192 ? 3 : 2) /* warpgroups that multiply; one more copies */
#define MJ_SM90_THREADS(tile_m) (128 + 128 * MJ_SM90_GROUPS(tile_m))
#define MJ_SM90_ROW 128          /* bytes of K in a stage, a row of the 128-byte swizzle */
#define MJ_SM90_CHUNK 8192       /* bytes of C on their way out of a warpgroup: 16 rows of 128 bytes a warp */

/* In this order: stages x (A | B), chunks of C for each warpgroup, column scales of TN, barriers. */
#define MJ_SM90_STAGE_BYTES(tile_m, tile_n) (((tile_m) + (tile_n)) * MJ_SM90_ROW)
#define MJ_SM90_CHUNKS_AT(tile_m, tile_n, stages) ((stages) * MJ_SM90_STAGE_BYTES(tile_m, tile_n))
#define MJ_SM90_SCALES_AT(tile_m, tile_n, stages, chunks)                                                     \
    (MJ_SM90_CHUNKS_AT(tile_m, tile_n, stages) + MJ_SM90_GROUPS(tile_m) * (chunks) * MJ_SM90_CHUNK)
#define MJ_SM90_BARRIERS_AT(tile_m, tile_n, stages, chunks, scaled_columns)                                   \
    (MJ_SM90_SCALES_AT(tile_m, tile_n, stages, chunks) + ((scaled_columns) ? (stages) * (tile_n) * 4 : 0))
#define MJ_SM90_SHARED_BYTES(tile_m, tile_n, stages, chunks, scaled_columns)                                  \
    (MJ_SM90_BARRIERS_AT(tile_m, tile_n, stages, chunks, scaled_columns) + (stages) * 16)

#endif
