/* How the mma.sync GEMMs (gemm_sm80, gemm_tn_sm80, gemm_fp8_sm89, gemm_tn_fp8_sm89) are cut into blocks, warps and stages:
 * shared by the templates and by the host, which needs the grid and the shared memory. No bit of a result depends on it. */
#ifndef MJ_GEMM_SM80_TILE_H
#define MJ_GEMM_SM80_TILE_H

#define MJ_SM80_ROW 128  /* bytes of a row in shared memory, along the operand's contiguous dimension */
#define MJ_SM80_BAND 8   /* row tiles that share columns of B while these are in L2 */

/* Warps stand 2 high. A warp owns 64 x 64 of C; half of that under the block recipe, which needs a second set of
 * accumulators; a quarter where a tile is so small that less than 4 warps would be left. */
#define MJ_SM80_AREA(tile_m, tile_n, block_scale)                                                                     \
    ((tile_m) * (tile_n) >= 4 * 4096 && !(block_scale) ? 4096 : (tile_m) * (tile_n) >= 4 * 2048 ? 2048 : 1024)
#define MJ_SM80_WARPS(tile_m, tile_n, block_scale) ((tile_m) * (tile_n) / MJ_SM80_AREA(tile_m, tile_n, block_scale))
#define MJ_SM80_THREADS(tile_m, tile_n, block_scale) (32 * MJ_SM80_WARPS(tile_m, tile_n, block_scale))

/* A stage: 128 bytes along K (bf16: 64, fp8: 128) of the tile's rows and columns; then, under the block recipe, the f32
 * scales of its rows and, where they have their own (columns 1), of its columns. */
#define MJ_SM80_OPERAND_BYTES(tile_m, tile_n) (((tile_m) + (tile_n)) * MJ_SM80_ROW)
#define MJ_SM80_SCALE_BYTES(tile_m, tile_n, columns) (4 * ((tile_m) + (columns) * (tile_n)))
#define MJ_SM80_SHARED(tile_m, tile_n, stages, block_scale, columns)                                                  \
    ((stages) * (MJ_SM80_OPERAND_BYTES(tile_m, tile_n) +                                                              \
                 (block_scale) * MJ_SM80_SCALE_BYTES(tile_m, tile_n, columns)))

#endif
