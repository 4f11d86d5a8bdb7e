/* The body of Hopper's GEMM templates, gemm_sm90 (NT, NN) and gemm_tn_sm90 (TN): TMA brings tiles of A and B, wgmma
 * multiplies them, TMA stores C. Owns the roles of the warps and the pipeline; the order of tiles is in
 * gemm_walk_sm90.cuh, the promotion of fp8 sums in gemm_scale_sm90.cuh, the way out in gemm_store_sm90.cuh. Reads the
 * template's parameters by name.
 *
 * Block: warpgroup 0 copies, the other two or three multiply an equal part of the TILE_M rows each. A stage is 128 bytes of
 * K: of A (TILE_M rows) and of B (TILE_N columns), both in TMA's 128-byte swizzle; bf16 that is not stored along K lies in
 * groups of 64 rows or columns (64 deep, 128 bytes), which wgmma reads as they are.
 *
 * Cluster of 2: two blocks with neighbouring columns share A: each copies half of it into both.
 *
 * Same bits for every tile, grid and mode: one chain of wgmmas an output element, k ascending. bf16 adds up all of K in
 * the tensor core's f32 accumulator. Its fp8 accumulator is short (about 13 bits below the largest term), so 128 of K
 * are added up there, then multiplied by their scales and added to f32 registers.
 */
#ifndef MJ_GEMM_CORE_SM90_CUH
#define MJ_GEMM_CORE_SM90_CUH

#include "gemm_sm90_tile.h"
#define MJ_WGMMA_COLS TILE_N
#include "ptx_wgmma.cuh"

#define MJ_GEMM_FP8 (A_TYPE != MJ_T_BF16)
#define MJ_GEMM_DEPTH (MJ_GEMM_FP8 ? 128 : 64) /* of K in a stage */
#define MJ_GEMM_A_ACROSS (!MJ_GEMM_FP8 && LAYOUT == MJ_GEMM_TN)
#define MJ_GEMM_B_ACROSS (!MJ_GEMM_FP8 && LAYOUT != MJ_GEMM_NT)
#define MJ_GEMM_GROUPS MJ_SM90_GROUPS(TILE_M)
#define MJ_GEMM_ROWS (TILE_M / MJ_GEMM_GROUPS) /* of a warpgroup */
#define MJ_GEMM_SUBS (MJ_GEMM_ROWS / 64)       /* wgmmas of 64 rows that make a warpgroup's part of a tile */
#define MJ_GEMM_ACCS (TILE_N / 2)              /* accumulators a thread, of 64 rows */
#define MJ_GEMM_COLUMN_SCALES (SCALE_MODE == MJ_SCALE_BLOCK && LAYOUT == MJ_GEMM_TN)
#define MJ_GEMM_STAGE MJ_SM90_STAGE_BYTES(TILE_M, TILE_N)

/* Registers a thread; 65536 / threads each to start with. Where there are scales, copying has those to find as well. */
#define MJ_GEMM_COPIES_MORE (LAYOUT == MJ_GEMM_TN || SCALE_MODE == MJ_SCALE_BLOCK)
#define MJ_GEMM_COPY_REGISTERS (MJ_GEMM_GROUPS == 3 ? 32 : MJ_GEMM_COPIES_MORE ? 40 : 24)
#define MJ_GEMM_MATH_REGISTERS (MJ_GEMM_GROUPS == 3 ? 160 : MJ_GEMM_COPIES_MORE ? 232 : 240)

struct MjGemmMaps {
    MjTensorMap a, b, c;
};

/* Shared addresses. */
struct MjGemmShared {
    mj_u32 tiles, chunks, scales, full, empty; /* scales: (STAGES, TILE_N) */
    const float *scale;                        /* the same as `scales` */
};

struct MjGemmStage { /* where a role stands in the ring */
    mj_u32 index, parity;
};
MJ_FN void mj_gemm_advance(MjGemmStage *s)
{
    if (++s->index == STAGES) {
        s->index = 0;
        s->parity ^= 1;
    }
}

#include "gemm_walk_sm90.cuh"
#include "gemm_store_sm90.cuh"
#include "gemm_scale_sm90.cuh"

/* ---- copying ------------------------------------------------------------------------------------------------------ */

/* One operand of a stage: `extent` rows or columns from `at`, depth from `k`. Of A in a cluster, this block's share. */
MJ_FN void mj_gemm_load(const MjTensorMap *map, int across, int extent, mj_u32 mask, mj_u32 dst, mj_u32 bar, int k, int at, int e)
{
    if (!across) {
        if (mask != 0) mj_ptx_tma_load_3d_multicast(dst, map, bar, mask, k, at, e);
        else mj_ptx_tma_load_3d(dst, map, bar, k, at, e);
        return;
    }
#pragma unroll
    for (int i = 0; i < extent / 64; i++) {
        if (mask != 0) mj_ptx_tma_load_3d_multicast(dst + i * 8192, map, bar, mask, at + 64 * i, k, e);
        else mj_ptx_tma_load_3d(dst + i * 8192, map, bar, at + 64 * i, k, e);
    }
}

/* The tile of C that will be added to, 64 rows of a chunk's columns with each of the last stages: otherwise all blocks would
 * wait for memory at the same time. `left`: stages to come. */
#define MJ_GEMM_ACROSS (TILE_N / MJ_GEMM_CHUNK_COLUMNS)
#define MJ_GEMM_BOXES (TILE_M / 64 * MJ_GEMM_ACROSS)
MJ_FN void mj_gemm_prefetch_result(const MjTensorMap *map, const MjGemmTile *tile, int32_t left)
{
    const int32_t last = MJ_GEMM_BOXES - left, expert = GROUP == MJ_GROUP_K ? tile->expert : 0;
#pragma unroll 1
    for (int32_t i = left == tile->blocks && last > 0 ? 0 : last; i <= last; i++) {
        const int32_t column = tile->column + i % MJ_GEMM_ACROSS * MJ_GEMM_CHUNK_COLUMNS, row = tile->row + i / MJ_GEMM_ACROSS * 64;
#pragma unroll
        for (int j = 0; j < 64; j += 16) mj_ptx_tma_prefetch_3d(map, column, row + j, expert);
    }
}

/* One thread. */
MJ_FN void mj_gemm_copy(const MjGemmArgs *args, const MjGemmMaps *maps, const MjGemmShared *s)
{
    MjGemmStage stage = {0, 0};
    MjGemmWalk walk = mj_gemm_walk();
    MjGemmTile tile;
    const mj_u32 rank = CLUSTER > 1 ? mj_ptx_cluster_rank() : 0;
    const int a_share = TILE_M / CLUSTER;

    while (mj_gemm_next(args, &walk, &tile)) {
#pragma unroll 1
        for (int32_t block = 0; block < tile.blocks; block++) {
            const mj_u32 bar = s->full + 8 * stage.index, at = s->tiles + stage.index * MJ_GEMM_STAGE;
            const int k = tile.depth_at + block * MJ_GEMM_DEPTH;
            mj_ptx_mbar_wait(s->empty + 8 * stage.index, stage.parity ^ 1);
            mj_ptx_mbar_arrive_expect(bar, MJ_GEMM_STAGE + (MJ_GEMM_COLUMN_SCALES ? tile.scaled_columns * 4 : 0));
            mj_gemm_load(&maps->a, MJ_GEMM_A_ACROSS, a_share, CLUSTER > 1 ? (1u << CLUSTER) - 1 : 0,
                         at + rank * a_share * MJ_SM90_ROW, bar, k, tile.row + (int)rank * a_share, 0);
            mj_gemm_load(&maps->b, MJ_GEMM_B_ACROSS, TILE_N, 0, at + TILE_M * MJ_SM90_ROW, bar, k, tile.column,
                         GROUP == MJ_GROUP_M ? tile.expert : 0);
            if (MJ_GEMM_COLUMN_SCALES && tile.scaled_columns > 0)
                mj_ptx_bulk_load(s->scales + stage.index * TILE_N * 4,
                                 args->b_scale + (int64_t)(k / MJ_FP8_BLOCK) * N + tile.column, tile.scaled_columns * 4, bar);
            if (EPILOGUE == MJ_EPI_ACCUMULATE && tile.blocks - block <= MJ_GEMM_BOXES)
                mj_gemm_prefetch_result(&maps->c, &tile, tile.blocks - block);
            mj_gemm_advance(&stage);
        }
    }
}

/* ---- multiplying -------------------------------------------------------------------------------------------------- */

MJ_FN mj_u64 mj_gemm_desc(int across, mj_u32 at) /* along K the leading offset is not used */
{
    return mj_ptx_wgmma_desc(at, across ? 8192 : 16, 1024, 1);
}

/* The next 32 bytes of depth, in descriptor units of 16 bytes: along a row, or 16 rows of 128 bytes. */
#define MJ_GEMM_STEP(across) ((across) ? 2048 / 16 : 32 / 16)

MJ_FN void mj_gemm_mma(float (&d)[MJ_GEMM_ACCS], mj_u64 a, mj_u64 b, int keep)
{
#if A_TYPE == MJ_T_BF16
    mj_ptx_wgmma_bf16<TILE_N, MJ_GEMM_A_ACROSS, MJ_GEMM_B_ACROSS>(d, a, b, keep);
#elif A_TYPE == MJ_T_E4M3 && B_TYPE == MJ_T_E4M3
    mj_ptx_wgmma_e4m3_e4m3<TILE_N>(d, a, b, keep);
#elif A_TYPE == MJ_T_E5M2 && B_TYPE == MJ_T_E4M3
    mj_ptx_wgmma_e5m2_e4m3<TILE_N>(d, a, b, keep);
#elif A_TYPE == MJ_T_E4M3 && B_TYPE == MJ_T_E5M2
    mj_ptx_wgmma_e4m3_e5m2<TILE_N>(d, a, b, keep);
#else
    mj_ptx_wgmma_e5m2_e5m2<TILE_N>(d, a, b, keep);
#endif
}

/* ORDER: the two warpgroups issue their fp8 products in turns, so that one promotes while the other multiplies. A turn ends
 * after ORDER of the four wgmmas of 128 of K are issued: before the last, so that the tensor cores are never without. */
#define MJ_GEMM_ORDERED (ORDER && MJ_GEMM_FP8 && MJ_GEMM_GROUPS == 2)
MJ_FN void mj_gemm_my_turn(int group)
{
    if (MJ_GEMM_ORDERED) mj_ptx_bar_sync(4 + group, 256);
}
MJ_FN void mj_gemm_your_turn(int group)
{
    if (MJ_GEMM_ORDERED) mj_ptx_bar_arrive(5 - group, 256);
}

/* This warp is done with a stage, in every block of the cluster whose copies it got. */
MJ_FN void mj_gemm_release(mj_u32 empty)
{
#if CLUSTER > 1
    if (mj_ptx_lane() < CLUSTER) mj_ptx_mbar_arrive_peer(empty, mj_ptx_lane());
#else
    if (mj_ptx_lane() == 0) mj_ptx_mbar_arrive(empty);
#endif
}

MJ_FN void mj_gemm_wait_full(const MjGemmShared *s, const MjGemmStage *stage)
{
    mj_ptx_mbar_wait(s->full + 8 * stage->index, stage->parity);
}

#if !MJ_GEMM_FP8

MJ_FN void mj_gemm_tile(const MjGemmArgs *args, const MjGemmTile *tile, const MjGemmShared *s, MjGemmStage *stage, int group,
                        MjGemmScales *scales, float (&acc)[MJ_GEMM_SUBS][MJ_GEMM_ACCS])
{
    const mj_u64 first_a = mj_gemm_desc(MJ_GEMM_A_ACROSS, s->tiles + group * MJ_GEMM_SUBS * 8192);
    const mj_u64 first_b = mj_gemm_desc(MJ_GEMM_B_ACROSS, s->tiles + TILE_M * MJ_SM90_ROW);
    mj_u32 before = 0; /* the stage whose products are still being made */
    (void)args, (void)scales;
#pragma unroll 1
    for (int32_t block = 0; block < tile->blocks; block++) {
        const mj_u64 a = first_a + stage->index * (MJ_GEMM_STAGE / 16), b = first_b + stage->index * (MJ_GEMM_STAGE / 16);
        mj_gemm_wait_full(s, stage);
        mj_ptx_wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int sub = 0; sub < MJ_GEMM_SUBS; sub++)
                mj_gemm_mma(acc[sub], a + sub * (8192 / 16) + step * MJ_GEMM_STEP(MJ_GEMM_A_ACROSS),
                            b + step * MJ_GEMM_STEP(MJ_GEMM_B_ACROSS), 1);
        mj_ptx_wgmma_commit();
        mj_ptx_wgmma_wait<1>();
        if (block > 0) mj_gemm_release(s->empty + 8 * before);
        before = stage->index;
        mj_gemm_advance(stage);
    }
    mj_ptx_wgmma_wait<0>();
#pragma unroll
    for (int sub = 0; sub < MJ_GEMM_SUBS; sub++) mj_ptx_wgmma_pin(acc[sub]);
    if (tile->blocks > 0) mj_gemm_release(s->empty + 8 * before);
}

#else

MJ_FN void mj_gemm_tile(const MjGemmArgs *args, const MjGemmTile *tile, const MjGemmShared *s, MjGemmStage *stage, int group,
                        MjGemmScales *scales, float (&acc)[MJ_GEMM_SUBS][MJ_GEMM_ACCS])
{
    const mj_u64 first_a = mj_gemm_desc(0, s->tiles + group * MJ_GEMM_SUBS * 8192);
    const mj_u64 first_b = mj_gemm_desc(0, s->tiles + TILE_M * MJ_SM90_ROW);
    MjGemmNow now;
    float part[MJ_GEMM_ACCS];

#pragma unroll 1
    for (int32_t block = 0; block < tile->blocks; block++) {
        const mj_u64 a = first_a + stage->index * (MJ_GEMM_STAGE / 16), b = first_b + stage->index * (MJ_GEMM_STAGE / 16);
        const float *columns = s->scale + stage->index * TILE_N + 2 * (mj_ptx_lane() % 4);
        if (SCALE_MODE == MJ_SCALE_BLOCK) { /* before the wait: ptxas moves nothing across its loop */
            mj_gemm_scales_now(scales, tile, &now);
            if (block + 1 < tile->blocks) mj_gemm_scales_load(args, tile, scales);
        }
        mj_gemm_wait_full(s, stage);
#pragma unroll
        for (int sub = 0; sub < MJ_GEMM_SUBS; sub++) {
            mj_gemm_my_turn(group);
            mj_ptx_wgmma_fence();
#pragma unroll
            for (int step = 0; step < 4; step++) {
                mj_gemm_mma(part, a + sub * (8192 / 16) + step * MJ_GEMM_STEP(0), b + step * MJ_GEMM_STEP(0), step > 0);
                if (step + 1 == ORDER) mj_gemm_your_turn(group);
            }
            mj_ptx_wgmma_commit();
            float2 head[2] = {}; /* the first column scales, on their way while products are made */
            if (MJ_GEMM_COLUMN_SCALES) head[0] = *(const float2 *)columns, head[1] = *(const float2 *)(columns + 8);
            mj_ptx_wgmma_wait<0>();
            mj_ptx_wgmma_pin(part);
            if (sub == MJ_GEMM_SUBS - 1 && !MJ_GEMM_COLUMN_SCALES) mj_gemm_release(s->empty + 8 * stage->index);
            mj_gemm_promote(acc[sub], part, &now, sub, columns, head);
        }
        if (MJ_GEMM_COLUMN_SCALES) {
            __syncwarp();
            mj_gemm_release(s->empty + 8 * stage->index);
        }
        mj_gemm_advance(stage);
    }
}

#endif

/* Where a warpgroup's rows are past the tile's group, stages only pass by. */
MJ_FN void mj_gemm_pass(const MjGemmTile *tile, const MjGemmShared *s, MjGemmStage *stage, int group)
{
#pragma unroll 1
    for (int32_t block = 0; block < tile->blocks; block++) {
        mj_gemm_wait_full(s, stage);
        for (int sub = 0; sub < MJ_GEMM_SUBS; sub++) {
            mj_gemm_my_turn(group);
            mj_gemm_your_turn(group);
        }
        mj_gemm_release(s->empty + 8 * stage->index);
        mj_gemm_advance(stage);
    }
}

/* One warpgroup. A tile is stored after the next one is found and its first scales are on their way. */
MJ_FN void mj_gemm_multiply(const MjGemmArgs *args, const MjGemmMaps *maps, const MjGemmShared *s, int group)
{
    MjGemmStage stage = {0, 0};
    MjGemmWalk walk = mj_gemm_walk();
    MjGemmTile tile, next;
    MjGemmScales scales = {};
    float acc[MJ_GEMM_SUBS][MJ_GEMM_ACCS];
    float product = 1.0f;
    bool made = false; /* acc holds `tile` */

    if (group == 1) mj_gemm_your_turn(group);
    if (SCALE_MODE == MJ_SCALE_TENSOR) product = args->a_scale[0] * args->b_scale[0];
    for (;;) {
        const bool more = mj_gemm_next(args, &walk, &next);
        if (SCALE_MODE == MJ_SCALE_BLOCK && more) mj_gemm_scales_first(args, &next, group, &scales);
#pragma unroll
        for (int sub = 0; made && sub < MJ_GEMM_SUBS; sub++) {
            if (SCALE_MODE == MJ_SCALE_TENSOR)
#pragma unroll
                for (int i = 0; i < MJ_GEMM_ACCS; i++) acc[sub][i] *= product;
            mj_gemm_store(s, &maps->c, acc[sub], sub, group, tile.column, tile.row + group * MJ_GEMM_ROWS,
                          GROUP == MJ_GROUP_K ? tile.expert : 0);
        }
        if (!more) break;
        tile = next;
        made = tile.row + group * MJ_GEMM_ROWS < tile.row_end;
        if (!made) {
            mj_gemm_pass(&tile, s, &stage, group);
            continue;
        }
#pragma unroll
        for (int sub = 0; sub < MJ_GEMM_SUBS; sub++)
#pragma unroll
            for (int i = 0; i < MJ_GEMM_ACCS; i++) acc[sub][i] = 0.0f;
        mj_gemm_tile(args, &tile, s, &stage, group, &scales, acc);
    }
    if (group == 0) mj_gemm_my_turn(group);
    mj_gemm_store_close();
}

MJ_FN void mj_gemm_block(const MjGemmArgs *args, const MjGemmMaps *maps)
{
    const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0); /* known to be the same for a warp */
    MjGemmShared s;
    s.tiles = __shfl_sync(0xffffffffu, mj_ptx_shared(mj_dynamic_shared), 0); /* so that it is kept, not made anew at each use */
    s.chunks = s.tiles + MJ_SM90_CHUNKS_AT(TILE_M, TILE_N, STAGES);
    s.scales = s.tiles + MJ_SM90_SCALES_AT(TILE_M, TILE_N, STAGES, CHUNKS);
    s.scale = (const float *)(mj_dynamic_shared + MJ_SM90_SCALES_AT(TILE_M, TILE_N, STAGES, CHUNKS));
    s.full = s.tiles + MJ_SM90_BARRIERS_AT(TILE_M, TILE_N, STAGES, CHUNKS, MJ_GEMM_COLUMN_SCALES);
    s.empty = s.full + 8 * STAGES;
    if (threadIdx.x == 0) {
        if ((s.tiles & 1023) != 0) mj_ptx_trap(); /* the swizzle counts from multiples of 1024 */
        mj_ptx_tma_prefetch(&maps->a);
        mj_ptx_tma_prefetch(&maps->b);
        for (int i = 0; i < STAGES; i++) {
            mj_ptx_mbar_init(s.full + 8 * i, 1);
            mj_ptx_mbar_init(s.empty + 8 * i, 4 * MJ_GEMM_GROUPS * CLUSTER);
        }
        mj_ptx_fence_mbar_init();
    }
    if (MJ_GEMM_COLUMN_SCALES) { /* columns past N are read, though never stored */
        MJ_FOR_THREADS(i, STAGES * TILE_N) ((float *)s.scale)[i] = 0.0f;
        mj_ptx_fence_async();
    }
    if (CLUSTER > 1) mj_ptx_cluster_sync();
    else __syncthreads();
    mj_grid_begin();
    if (group == 0) {
        mj_ptx_setmaxnreg_dec<MJ_GEMM_COPY_REGISTERS>();
        if (threadIdx.x == 0) {
            mj_gemm_copy(args, maps, &s);
            mj_grid_loaded();
        }
        __syncwarp();
    } else {
        mj_ptx_setmaxnreg_inc<MJ_GEMM_MATH_REGISTERS>();
        mj_gemm_multiply(args, maps, &s, group - 1);
    }
    if (CLUSTER > 1) mj_ptx_cluster_sync(); /* no block leaves while another still writes into it */
}

#endif
