/* The GEMM of the mma.sync families: C(M,N) += A B, a tile of C a block, cp.async stages in swizzled shared memory,
 * fragments by ldmatrix. Owns the tiles' order, the main loop and the epilogue; gemm_load_sm80.cuh owns where operand
 * bytes lie in shared memory. Included by a template whose LAYOUT, GROUP, types and tiles are constants.
 *
 * Order of a sum: one f32 accumulator an element, k ascending from the group's first row, 16 (bf16) or 32 (fp8) of K an
 * instruction; a tail is filled up with zeros. Under the block recipe each 128 of K is summed from zero and then added by
 * one fused multiply-add. Tiles, stages and the grid change nothing of it.
 */
#ifndef MJ_GEMM_CORE_SM80_CUH
#define MJ_GEMM_CORE_SM80_CUH

#include "gemm_sm80_tile.h"
#include "ptx.cuh"

#define MJ_BLOCK_SCALE (SCALE_MODE == MJ_SCALE_BLOCK)
#define MJ_TN (LAYOUT == MJ_GEMM_TN)

static constexpr int32_t mj_elem = A_TYPE == MJ_T_BF16 ? 2 : 1;   /* bytes an element */
static constexpr int32_t mj_tile_k = MJ_SM80_ROW / mj_elem;       /* elements along K in a stage */
static constexpr int32_t mj_threads = MJ_SM80_THREADS(TILE_M, TILE_N, MJ_BLOCK_SCALE);
static constexpr int32_t mj_warps_n = mj_threads / 64;
static constexpr int32_t mj_warp_m = TILE_M / 2, mj_warp_n = TILE_N / mj_warps_n; /* of C, a warp */
static constexpr int32_t mj_mi = mj_warp_m / 16, mj_ni = mj_warp_n / 8;           /* in fragments of 16 x 8 */
static constexpr int32_t mj_operand_bytes = MJ_SM80_OPERAND_BYTES(TILE_M, TILE_N);
static constexpr int32_t mj_stage_bytes = MJ_SM80_SHARED(TILE_M, TILE_N, 1, MJ_BLOCK_SCALE, MJ_TN);
static_assert(!MJ_BLOCK_SCALE || (mj_elem == 1 && TILE_N <= MJ_FP8_BLOCK), "a block scale covers a stage and a tile's columns");
static_assert(EPILOGUE == MJ_EPI_STORE || C_TYPE == MJ_T_F32, "sums are accumulated in f32");
static_assert(GROUP != MJ_GROUP_M || MJ_GROUP_ALIGN % TILE_M == 0, "a tile lies within one expert's rows");

typedef struct MjGemmTile {
    int32_t row, col;        /* first of C; row counts through all groups of GROUP_M */
    int32_t row_end;         /* of C and A: rows that exist */
    int32_t live_end;        /* rows that hold data: the rest are padding */
    int32_t first_k, depth;  /* along K */
    int32_t expert;
} MjGemmTile;

#include "gemm_load_sm80.cuh"

MJ_FN int32_t mj_ceil_div(int32_t a, int32_t b) { return (a + b - 1) / b; }
MJ_FN int32_t mj_least(int32_t a, int32_t b) { return a < b ? a : b; }

MJ_FN int32_t mj_gemm_tiles(const MjGemmArgs *args)
{
    return mj_ceil_div(M, TILE_M) * mj_ceil_div(N, TILE_N) * (GROUP == MJ_GROUP_K ? EXPERTS : 1);
}

/* The expert whose rows hold `row`: as many experts end at or before it. EXPERTS when no one's do. All lanes of the warp
 * look, so that a long list costs one load's time. */
MJ_FN int32_t mj_gemm_expert(const MjGemmArgs *args, int32_t row)
{
    int32_t before = 0;
    for (int32_t base = 0; base < EXPERTS; base += 32) {
        const int32_t e = base + MJ_LANE;
        before += __popc(__ballot_sync(0xffffffffu, e < EXPERTS && args->offset[e + 1] <= row));
    }
    return before;
}

/* Which part of C tile number `index` is; false when no expert has its rows. Tiles go down a band of rows, then to the
 * next columns, so that the blocks which run together read few rows of A and few columns of B. */
MJ_FN bool mj_gemm_find(const MjGemmArgs *args, int32_t index, MjGemmTile *t)
{
    const int32_t tiles_m = mj_ceil_div(M, TILE_M), tiles_n = mj_ceil_div(N, TILE_N);
    t->expert = GROUP == MJ_GROUP_K ? index / (tiles_m * tiles_n) : 0;
    const int32_t of_group = index - t->expert * tiles_m * tiles_n, band = of_group / (MJ_SM80_BAND * tiles_n);
    const int32_t at = of_group - band * MJ_SM80_BAND * tiles_n;
    const int32_t high = mj_least(MJ_SM80_BAND, tiles_m - band * MJ_SM80_BAND);
    t->row = (band * MJ_SM80_BAND + at % high) * TILE_M;
    t->col = at / high * TILE_N;
    t->row_end = t->live_end = M;
    t->first_k = 0;
    t->depth = K;
    if (GROUP == MJ_GROUP_M) {
        t->expert = mj_gemm_expert(args, t->row);
        if (t->expert >= EXPERTS) return false;
        t->row_end = mj_least(args->offset[t->expert + 1], M);
        t->live_end = args->offset[t->expert] + args->count[t->expert];
        if (t->row >= t->live_end) t->depth = 0; /* nothing but padding */
    } else if (GROUP == MJ_GROUP_K) {
        t->first_k = MJ_GROUP_FIRST(args, t->expert);
        t->depth = MJ_GROUP_LENGTH(args, t->expert, K);
    }
    return true;
}

/* ---- main loop --------------------------------------------------------------------------------------------- */

/* Hopper and its successors up to sm_120 multiply fp8 by other instructions than mma.sync, which ptxas then makes of
 * conversions, for each product anew. Here each fragment is converted once. Both halves of a register hold pairs of k, so
 * the first product takes k = 0, 1, 4, 5, ... of both operands and the second the rest. */
#define MJ_AS_F16 (A_TYPE != MJ_T_BF16 && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200)
static constexpr int32_t mj_parts = MJ_AS_F16 ? 2 : 1;

typedef struct MjGemmRows {
    mj_u32 v[mj_parts][4];
} MjGemmRows;
typedef struct MjGemmColumns {
    mj_u32 v[mj_parts][2];
} MjGemmColumns;

#if MJ_AS_F16
MJ_FN mj_u32 mj_gemm_widen(mj_u32 pair, int32_t type)
{
    return type == MJ_T_E4M3 ? mj_ptx_cvt_f16x2_e4m3x2(pair) : mj_ptx_cvt_f16x2_e5m2x2(pair);
}
#else
MJ_FN mj_u32 mj_gemm_widen(mj_u32 bits, int32_t type) { return bits; }
#endif

MJ_FN MjGemmRows mj_gemm_rows(const mj_u32 (&a)[4])
{
    MjGemmRows x;
#pragma unroll
    for (int32_t p = 0; p < mj_parts; p++)
#pragma unroll
        for (int32_t r = 0; r < 4; r++) x.v[p][r] = mj_gemm_widen(a[r] >> (16 * p), A_TYPE);
    return x;
}

MJ_FN MjGemmColumns mj_gemm_columns(mj_u32 b0, mj_u32 b1)
{
    MjGemmColumns x;
#pragma unroll
    for (int32_t p = 0; p < mj_parts; p++)
        x.v[p][0] = mj_gemm_widen(b0 >> (16 * p), B_TYPE), x.v[p][1] = mj_gemm_widen(b1 >> (16 * p), B_TYPE);
    return x;
}

MJ_FN void mj_gemm_mma(float (&d)[4], const MjGemmRows *a, const MjGemmColumns *b)
{
#if MJ_AS_F16
    mj_ptx_mma_f16(d, a->v[0], b->v[0]);
    mj_ptx_mma_f16(d, a->v[1], b->v[1]);
#elif A_TYPE == MJ_T_BF16
    mj_ptx_mma_bf16(d, a->v[0], b->v[0]);
#elif A_TYPE == MJ_T_E4M3 && B_TYPE == MJ_T_E4M3
    mj_ptx_mma_e4m3_e4m3(d, a->v[0], b->v[0]);
#elif A_TYPE == MJ_T_E5M2 && B_TYPE == MJ_T_E4M3
    mj_ptx_mma_e5m2_e4m3(d, a->v[0], b->v[0]);
#elif A_TYPE == MJ_T_E4M3
    mj_ptx_mma_e4m3_e5m2(d, a->v[0], b->v[0]);
#else
    mj_ptx_mma_e5m2_e5m2(d, a->v[0], b->v[0]);
#endif
}

/* One stage, 32 bytes of K a step. What is read from shared memory is on its way while what is at hand is multiplied: columns
 * a step ahead, rows one fragment ahead, which is all that the registers hold beside the accumulators. */
MJ_FN void mj_gemm_multiply(float (&c)[mj_mi][mj_ni][4], mj_u32 stage, int32_t warp_row, int32_t warp_col)
{
    const mj_u32 stage_b = stage + TILE_M * MJ_SM80_ROW;
    mj_u32 a[2][4], b[mj_ni / 2][4];
    mj_gemm_fragments_b(b, stage_b, 0, warp_col);
    mj_gemm_fragment_a(a[0], stage, 0, warp_row);
#pragma unroll 1
    for (int32_t step = 0; step < 4; step++) { /* not unrolled: four times the code compiles in twice the time, and runs no faster */
        MjGemmColumns columns[mj_ni];
#pragma unroll
        for (int32_t j = 0; j < mj_ni; j++) columns[j] = mj_gemm_columns(b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        if (step < 3) mj_gemm_fragments_b(b, stage_b, step + 1, warp_col);
#pragma unroll
        for (int32_t i = 0; i < mj_mi; i++) {
            if (i + 1 < mj_mi) mj_gemm_fragment_a(a[(i + 1) % 2], stage, step, warp_row + 16 * (i + 1));
            else if (step < 3) mj_gemm_fragment_a(a[0], stage, step + 1, warp_row);
            const MjGemmRows rows = mj_gemm_rows(a[i % 2]);
#pragma unroll
            for (int32_t j = 0; j < mj_ni; j++) mj_gemm_mma(c[i][j], &rows, &columns[j]);
        }
    }
}
static_assert(mj_mi % 2 == 0, "rows' fragments take turns in two sets of registers");

MJ_FN void mj_gemm_clear(float (&c)[mj_mi][mj_ni][4])
{
#pragma unroll
    for (int32_t i = 0; i < mj_mi; i++)
#pragma unroll
        for (int32_t j = 0; j < mj_ni; j++)
#pragma unroll
            for (int32_t e = 0; e < 4; e++) c[i][j][e] = 0.0f;
}

/* acc += partial * scales of one 128 of K. `scales`: the stage's; weight: the weights' block scale (not TN). */
MJ_FN void mj_gemm_promote(float (&acc)[mj_mi][mj_ni][4], const float (&part)[mj_mi][mj_ni][4], const float *scales,
                           float weight, int32_t warp_row, int32_t warp_col)
{
    const int32_t r = MJ_LANE / 4, c = 2 * (MJ_LANE % 4);
#pragma unroll
    for (int32_t i = 0; i < mj_mi; i++) {
        const float a0 = scales[warp_row + 16 * i + r], a1 = scales[warp_row + 16 * i + r + 8];
#pragma unroll
        for (int32_t j = 0; j < mj_ni; j++) {
            const float b0 = MJ_TN ? scales[TILE_M + warp_col + 8 * j + c] : weight;
            const float b1 = MJ_TN ? scales[TILE_M + warp_col + 8 * j + c + 1] : weight;
            acc[i][j][0] = mj_fmaf(part[i][j][0], a0 * b0, acc[i][j][0]);
            acc[i][j][1] = mj_fmaf(part[i][j][1], a0 * b1, acc[i][j][1]);
            acc[i][j][2] = mj_fmaf(part[i][j][2], a1 * b0, acc[i][j][2]);
            acc[i][j][3] = mj_fmaf(part[i][j][3], a1 * b1, acc[i][j][3]);
        }
    }
}

/* acc = the tile's sum along K. STAGES - 1 stages are in flight; each iteration frees the one that the last one read. The
 * first STAGES - 1 iterations only fill. */
MJ_FN void mj_gemm_sum(const MjGemmArgs *args, const MjGemmTile *t, unsigned char *shared, float (&acc)[mj_mi][mj_ni][4],
                       int32_t warp_row, int32_t warp_col)
{
    const int32_t stages_k = mj_ceil_div(t->depth, mj_tile_k);
    const mj_u32 base = mj_ptx_shared(shared);
    MjGemmFeed feed = mj_gemm_feed(args, t);
    int32_t from = 0, to = 0; /* stage to read, stage to fill */
    mj_gemm_clear(acc);
#pragma unroll 1
    for (int32_t s = 1 - STAGES; s < stages_k; s++) {
        if (s >= 0) {
            mj_ptx_cp_async_wait<STAGES - 2>();
            mj_barrier();
        }
        if (s + STAGES - 1 < stages_k) mj_gemm_load(args, &feed, base + to * mj_stage_bytes);
        mj_ptx_cp_async_commit();
        to = to + 1 == STAGES ? 0 : to + 1;
        if (s < 0) continue;
        if (MJ_BLOCK_SCALE) {
            float part[mj_mi][mj_ni][4];
            const float weight = MJ_TN ? 0.0f : *feed.weight_scale;
            feed.weight_scale += feed.weight_stage;
            mj_gemm_clear(part);
            mj_gemm_multiply(part, base + from * mj_stage_bytes, warp_row, warp_col);
            mj_gemm_promote(acc, part, (const float *)(shared + from * mj_stage_bytes + mj_operand_bytes), weight, warp_row,
                            warp_col);
        } else {
            mj_gemm_multiply(acc, base + from * mj_stage_bytes, warp_row, warp_col);
        }
        from = from + 1 == STAGES ? 0 : from + 1;
    }
    mj_ptx_cp_async_wait<0>();
    mj_barrier(); /* the stages are free for the epilogue */
}

/* ---- epilogue: through a warp's own part of shared memory, so that rows of C are written in pieces of 16 bytes ------ */

static constexpr int32_t mj_c_elem = C_TYPE == MJ_T_F32 ? 4 : 2;
static constexpr int32_t mj_c_stride = mj_warp_n * mj_c_elem + (C_TYPE == MJ_T_F32 ? 32 : 16); /* no bank twice */
static constexpr int32_t mj_c_all = mj_threads / 32 * mj_warp_m * mj_c_stride <= STAGES * mj_stage_bytes;
static constexpr int32_t mj_c_rows = mj_c_all ? mj_warp_m : mj_warp_m / 2; /* at once: all, or what two stages hold */
static_assert(mj_threads / 32 * mj_c_rows * mj_c_stride <= STAGES * mj_stage_bytes, "the epilogue's rows fit into the stages");

/* Two neighbouring columns of C. */
MJ_FN void mj_gemm_put(unsigned char *to, float x, float y)
{
    if (C_TYPE == MJ_T_F32) *(float2 *)to = make_float2(x, y);
    else *(mj_u32 *)to = mj_ptx_cvt_bf16x2(x, y);
}

/* `mj_c_rows` rows of the warp from the buffer to C, a piece a lane. */
MJ_FN void mj_gemm_write(const MjGemmArgs *args, const MjGemmTile *t, const unsigned char *buffer, int32_t row, int32_t col)
{
    constexpr int32_t pieces = mj_warp_n * mj_c_elem / 16, pass = 32 / pieces; /* of a row; rows at a time */
    const int32_t first = MJ_LANE / pieces, c = col + MJ_LANE % pieces * (16 / mj_c_elem);
    const int64_t at = ((GROUP == MJ_GROUP_K ? (int64_t)t->expert * M : 0) + row + first) * N + c;
    const unsigned char *from = buffer + first * mj_c_stride + MJ_LANE % pieces * 16;
    unsigned char *to = (unsigned char *)args->c + at * mj_c_elem;
    const int32_t rows = c < N ? t->row_end - row - first : 0, live_rows = t->live_end - row - first;
#pragma unroll 4
    for (int32_t r = 0; r < mj_c_rows; r += pass) {
        const bool live = r < live_rows; /* padding is zero, whatever B holds */
        if (r < rows && EPILOGUE == MJ_EPI_ACCUMULATE) {
            const float4 x = *(const float4 *)from, old = *(const float4 *)to;
            if (live) *(float4 *)to = make_float4(old.x + x.x, old.y + x.y, old.z + x.z, old.w + x.w);
        } else if (r < rows) {
            *(uint4 *)to = live ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
        }
        from += pass * mj_c_stride;
        to += (int64_t)pass * N * mj_c_elem;
    }
}

MJ_FN void mj_gemm_epilogue(const MjGemmArgs *args, const MjGemmTile *t, unsigned char *shared, float (&acc)[mj_mi][mj_ni][4],
                            int32_t warp_row, int32_t warp_col)
{
    constexpr int32_t fragments = mj_c_rows / 16;
    unsigned char *buffer = shared + MJ_WARP_INDEX * mj_c_rows * mj_c_stride;
    unsigned char *own = buffer + MJ_LANE / 4 * mj_c_stride + MJ_LANE % 4 * 2 * mj_c_elem; /* this lane's corner of a fragment */
    const float scale = SCALE_MODE == MJ_SCALE_TENSOR ? args->a_scale[0] * args->b_scale[0] : 1.0f;
#pragma unroll
    for (int32_t i = 0; i < mj_mi; i++) {
#pragma unroll
        for (int32_t j = 0; j < mj_ni; j++) {
            const float *v = acc[i][j];
            unsigned char *to = own + 16 * (i % fragments) * mj_c_stride + 8 * j * mj_c_elem;
            mj_gemm_put(to, v[0] * scale, v[1] * scale);
            mj_gemm_put(to + 8 * mj_c_stride, v[2] * scale, v[3] * scale);
        }
        if ((i + 1) % fragments != 0) continue;
        mj_warp_sync();
        mj_gemm_write(args, t, buffer, t->row + warp_row + 16 * (i + 1 - fragments), t->col + warp_col);
        mj_warp_sync();
    }
}

/* All tiles of a block: right for any grid. */
MJ_FN void mj_gemm_tiles_of_block(const MjGemmArgs *args, uint32_t block, uint32_t grid, unsigned char *shared)
{
    const int32_t warp_row = MJ_WARP_INDEX / mj_warps_n * mj_warp_m, warp_col = MJ_WARP_INDEX % mj_warps_n * mj_warp_n;
    const int32_t tiles = mj_gemm_tiles(args);
#pragma unroll 1
    for (int32_t index = (int32_t)block; index < tiles; index += (int32_t)grid) {
        MjGemmTile t;
        float acc[mj_mi][mj_ni][4];
        if (!mj_gemm_find(args, index, &t)) continue;
        mj_gemm_sum(args, &t, shared, acc, warp_row, warp_col);
        mj_gemm_epilogue(args, &t, shared, acc, warp_row, warp_col);
        mj_barrier(); /* before the next tile's copies overwrite the epilogue's rows */
    }
}

#endif
