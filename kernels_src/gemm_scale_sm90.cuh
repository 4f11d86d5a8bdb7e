/* Scales of fp8 operands in Hopper's GEMM templates: fetched ahead, handed to the lanes that need them, and applied when the
 * sum over 128 of K is added to what came before (promotion). Part of gemm_core_sm90.cuh. */
#ifndef MJ_GEMM_SCALE_SM90_CUH
#define MJ_GEMM_SCALE_SM90_CUH

/* The scales of the next 128 of K. A lane holds that of one row of its warp's: 64 (lane / 16) + lane % 16 of the 64 or 128
 * that the warpgroup multiplies; the lanes of the fragments get theirs by shuffles. Loaded as soon as those before are handed
 * out, a whole stage early: so they arrive while products are made. */
struct MjGemmScales {
    const float *a, *b; /* where the next ones lie */
    float row;
    float column[2]; /* NT, NN: of the tile's first block of 128 columns and of the second, if it has one */
};
struct MjGemmNow { /* a thread's scales of the 128 of K in work */
    float row[2 * MJ_GEMM_SUBS];
    float column[TILE_N / 64]; /* NT, NN: of 64 columns each; a tile may start within a block of 128 */
};

#define MJ_GEMM_SCALES_WIDE ((N + MJ_FP8_BLOCK - 1) / MJ_FP8_BLOCK)
#define MJ_GEMM_SCALES_DEEP ((K + MJ_FP8_BLOCK - 1) / MJ_FP8_BLOCK)
#define MJ_GEMM_SCALES_ASIDE (LAYOUT == MJ_GEMM_NT ? MJ_GEMM_SCALES_DEEP : 1) /* from one block of columns to the next */
#define MJ_GEMM_ONE_COLUMN (LAYOUT != MJ_GEMM_TN && TILE_N <= MJ_FP8_BLOCK) /* its scale goes into the rows' */

MJ_FN void mj_gemm_scales_load(const MjGemmArgs *args, const MjGemmTile *tile, MjGemmScales *x)
{
    x->row = *x->a;
    x->a += M;
    if (LAYOUT == MJ_GEMM_TN) return;
    x->column[0] = *x->b;
    if (!MJ_GEMM_ONE_COLUMN)
        x->column[1] = tile->column / MJ_FP8_BLOCK + 1 < MJ_GEMM_SCALES_WIDE ? x->b[MJ_GEMM_SCALES_ASIDE] : 0.0f;
    x->b += LAYOUT == MJ_GEMM_NT ? 1 : MJ_GEMM_SCALES_WIDE;
}

/* Those of a tile's first 128 of K. Rows past the group are not stored: any scale will do that was written. */
MJ_FN void mj_gemm_scales_first(const MjGemmArgs *args, const MjGemmTile *tile, int group, MjGemmScales *x)
{
    const int32_t at = tile->depth_at / MJ_FP8_BLOCK, j = tile->column / MJ_FP8_BLOCK, lane = (int32_t)mj_ptx_lane();
    const int32_t row = tile->row + group * MJ_GEMM_ROWS + (int32_t)threadIdx.x % 128 / 32 * 16 +
                        (MJ_GEMM_SUBS > 1 ? lane / 16 * 64 : 0) + lane % 16;
    x->a = args->a_scale + (int64_t)at * M + (row < tile->row_end ? row : tile->row_end - 1);
    x->b = args->b_scale + (int64_t)tile->expert * MJ_GEMM_SCALES_WIDE * MJ_GEMM_SCALES_DEEP +
           (j < MJ_GEMM_SCALES_WIDE ? j : 0) * MJ_GEMM_SCALES_ASIDE +
           threadIdx.y; /* 0; but ptxas waits at once for what it knows to be the same for a warp */
    if (tile->blocks > 0) mj_gemm_scales_load(args, tile, x);
}

MJ_FN void mj_gemm_scales_now(const MjGemmScales *x, const MjGemmTile *tile, MjGemmNow *now)
{
    const float row = MJ_GEMM_ONE_COLUMN ? x->row * x->column[0] : x->row;
#pragma unroll
    for (int i = 0; i < 2 * MJ_GEMM_SUBS; i++)
        now->row[i] = __shfl_sync(0xffffffffu, row, 16 * (i / 2) + 8 * (i % 2) + (int)mj_ptx_lane() / 4);
#pragma unroll
    for (int i = 0; i < TILE_N / 64; i++)
        now->column[i] = tile->column % MJ_FP8_BLOCK + 64 * i < MJ_FP8_BLOCK ? x->column[0] : x->column[1];
}

/* acc += part, times the scales. `columns`: TN's, of this thread's first columns; `head`: the first two pairs of those. */
MJ_FN void mj_gemm_promote(float (&acc)[MJ_GEMM_ACCS], const float (&part)[MJ_GEMM_ACCS], const MjGemmNow *x, int sub,
                           const float *columns, const float2 (&head)[2])
{
#pragma unroll
    for (int j = 0; j < MJ_GEMM_ACCS; j++) {
        const float row = x->row[2 * sub + j / 2 % 2];
        if (SCALE_MODE != MJ_SCALE_BLOCK) {
            acc[j] += part[j];
        } else if (MJ_GEMM_ONE_COLUMN) {
            acc[j] = mj_fmaf(part[j], row, acc[j]);
        } else if (LAYOUT != MJ_GEMM_TN) {
            acc[j] = mj_fmaf(part[j], row * x->column[j / 32], acc[j]);
        } else {
            const float2 pair = j < 8 ? head[j / 4] : *(const float2 *)(columns + j / 4 * 8);
            acc[j] = mj_fmaf(part[j], row * (j % 2 == 0 ? pair.x : pair.y), acc[j]);
        }
    }
}

#endif
