/* What the Hopper GEMM templates and the host agree on: the shared memory of a block and its parts. Knows no shapes. */
#ifndef MJ_GEMM_SM90_TILE_H
#define MJ_GEMM_SM90_TILE_H

#define MJ_SM90_THREADS 384      /* one warpgroup that copies, two that multiply */
#define MJ_SM90_ROW 128          /* bytes of K in a stage, a row of the 128-byte swizzle */
#define MJ_SM90_CHUNK 8192       /* bytes of C stored at once: 64 rows of 128 bytes */

/* In this order: stages x (A | B), chunks of C for each of the two warpgroups, column scales of TN, barriers. */
#define MJ_SM90_STAGE_BYTES(tile_m, tile_n) (((tile_m) + (tile_n)) * MJ_SM90_ROW)
#define MJ_SM90_CHUNKS_AT(tile_m, tile_n, stages) ((stages) * MJ_SM90_STAGE_BYTES(tile_m, tile_n))
#define MJ_SM90_SCALES_AT(tile_m, tile_n, stages, chunks)                                                     \
    (MJ_SM90_CHUNKS_AT(tile_m, tile_n, stages) + 2 * (chunks) * MJ_SM90_CHUNK)
#define MJ_SM90_BARRIERS_AT(tile_m, tile_n, stages, chunks, scaled_columns)                                   \
    (MJ_SM90_SCALES_AT(tile_m, tile_n, stages, chunks) + ((scaled_columns) ? (stages) * (tile_n) * 4 : 0))
#define MJ_SM90_SHARED_BYTES(tile_m, tile_n, stages, chunks, scaled_columns)                                  \
    (MJ_SM90_BARRIERS_AT(tile_m, tile_n, stages, chunks, scaled_columns) + (stages) * 16)

#endif
