/* How the CPU's GEMM is cut into blocks: shared by the templates and by the host, which needs the grid and the scratch.
 * A function of the shape alone, so that both sides agree; no bit of a result depends on it. */
#ifndef MJ_GEMM_TILE_H
#define MJ_GEMM_TILE_H

#include <stdint.h>

#define MJ_GEMM_TILE_ROWS 256 /* most rows of C in a block */
#define MJ_GEMM_TILE_COLS 256 /* most columns */
#define MJ_GEMM_PANEL 64      /* columns of one packed panel of B */
#define MJ_GEMM_CHUNK_K 768   /* depth packed at once; a multiple of 128 */
#define MJ_GEMM_A_STRIDE (MJ_GEMM_CHUNK_K / 2 + 16) /* words a row of decoded A; not a power of two */

/* Scratch of a block, in 32-bit words: packed A, one packed panel of B, the accumulators of the tile. */
#define MJ_GEMM_A_WORDS (MJ_GEMM_TILE_ROWS * MJ_GEMM_A_STRIDE)
#define MJ_GEMM_B_WORDS (MJ_GEMM_PANEL * MJ_GEMM_CHUNK_K / 2)
#define MJ_GEMM_C_WORDS (MJ_GEMM_TILE_ROWS * MJ_GEMM_TILE_COLS)
#define MJ_GEMM_SHARED_BYTES (4 * (MJ_GEMM_A_WORDS + MJ_GEMM_B_WORDS + MJ_GEMM_C_WORDS))

/* One iteration of peak_cpu: 24 accumulators of 16 lanes, a product of two pairs each. */
#define MJ_PEAK_FLOPS_PER_ITERATION (24 * 16 * 4)

typedef struct MjGemmTiling {
    int32_t tile_rows;       /* GROUP_M: the most rows of one expert in a tile */
    int32_t tiles_m;         /* of one group; GROUP_M: unused, tiles are found on the device */
    int32_t panels_per_tile; /* columns of a tile / MJ_GEMM_PANEL */
    int32_t tiles_n;
    int32_t grid;
} MjGemmTiling;

static inline int32_t mj_gemm_ceil_div(int32_t a, int32_t b) { return (a + b - 1) / b; }

/* group: MJ_GROUP_*; blocks: how many blocks are wanted at least, if the shape has them (tuning BLOCKS). */
static inline MjGemmTiling mj_gemm_tiling(int32_t m, int32_t n, int32_t experts, int32_t group, int32_t blocks)
{
    MjGemmTiling t;
    int32_t rows = MJ_GEMM_TILE_ROWS, panels = MJ_GEMM_TILE_COLS / MJ_GEMM_PANEL;
    const int32_t all_panels = mj_gemm_ceil_div(n, MJ_GEMM_PANEL);
    for (;;) {
        const int64_t row_tiles = group == 1 ? (m / rows > experts ? m / rows : experts)
                                             : (int64_t)mj_gemm_ceil_div(m, rows) * experts;
        if (row_tiles * mj_gemm_ceil_div(all_panels, panels) >= blocks) break;
        if (rows > 64 && rows >= panels * MJ_GEMM_PANEL) rows /= 2;
        else if (panels > 1) panels /= 2;
        else break;
    }
    t.tiles_n = mj_gemm_ceil_div(all_panels, panels);
    t.panels_per_tile = mj_gemm_ceil_div(all_panels, t.tiles_n);
    t.tiles_m = mj_gemm_ceil_div(m, rows);
    t.tile_rows = group == 1 ? rows : mj_gemm_ceil_div(m, t.tiles_m);
    t.grid = (group == 1 ? m / rows + experts : t.tiles_m * experts) * t.tiles_n;
    return t;
}

#endif
