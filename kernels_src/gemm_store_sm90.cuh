/* How a warp's 16 rows of f32 accumulators become rows of C: converted, through chunks of shared memory (16 rows of 128
 * bytes, swizzled), and out by TMA, which leaves out what lies outside the matrix. No warp waits for another. Accumulating
 * adds in the L2 cache: no two blocks have the same element, so the sum is one f32 addition whoever comes first. Part of
 * gemm_core_sm90.cuh. */
#ifndef MJ_GEMM_STORE_SM90_CUH
#define MJ_GEMM_STORE_SM90_CUH

#define MJ_GEMM_CHUNK (16 * 128) /* bytes: 16 rows of a warp */
#define MJ_GEMM_CHUNK_COLUMNS (C_TYPE == MJ_T_F32 ? 32 : 64)
#define MJ_GEMM_TILE_CHUNKS (MJ_GEMM_SUBS * TILE_N / MJ_GEMM_CHUNK_COLUMNS) /* of a warp */

/* Fragments of wgmma: accumulator 4j + 2i + e of lane l in warp w is row 16w + l / 4 + 8i, column 8j + 2 (l % 4) + e.
 * Where a thread writes within a chunk: `at` plus 16-byte column `x` swizzled, (x * 16) ^ `flip`. */
struct MjGemmPlace {
    mj_u32 at, flip;
};
MJ_FN MjGemmPlace mj_gemm_place(void)
{
    const mj_u32 lane = mj_ptx_lane();
#if C_TYPE == MJ_T_F32 /* two columns, 8 bytes, of row lane / 4; 8 rows on the same */
    const mj_u32 flip = lane / 4 * 16, byte = lane % 4 * 8;
    MjGemmPlace p = {lane / 4 * 128 + (byte ^ (flip & 16)), flip & 96};
#else /* stmatrix: a row of 8 columns */
    const mj_u32 flip = lane % 8 * 16 ^ lane / 16 * 16;
    MjGemmPlace p = {lane % 16 * 128, flip};
#endif
    return p;
}

/* Columns `first`.. of the accumulators into a chunk. */
MJ_FN void mj_gemm_fill_chunk(mj_u32 chunk, MjGemmPlace p, const float (&acc)[MJ_GEMM_ACCS], int first)
{
#if C_TYPE == MJ_T_F32
    unsigned char *to = mj_dynamic_shared + (chunk - mj_ptx_shared(mj_dynamic_shared)) + p.at;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float *from = &acc[first / 2 + 4 * j];
        *(float2 *)(to + (32 * j ^ p.flip)) = make_float2(from[0], from[1]);
        *(float2 *)(to + (32 * j ^ p.flip) + 1024) = make_float2(from[2], from[3]);
    }
#else
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
        const float *from = &acc[first / 2 + 4 * j];
        const mj_u32 r[4] = {mj_ptx_cvt_bf16x2(from[0], from[1]), mj_ptx_cvt_bf16x2(from[2], from[3]),
                             mj_ptx_cvt_bf16x2(from[4], from[5]), mj_ptx_cvt_bf16x2(from[6], from[7])};
        mj_ptx_stmatrix_x4(chunk + p.at + (16 * j ^ p.flip), r);
    }
#endif
}

/* A warp's share of rows 64 sub.. of its warpgroup's part of a tile. The chunks are a ring, known at compile time: a chunk is
 * free once the store that was issued CHUNKS before is read; where the chunks of a tile are no multiple, once all are. Where
 * those of 64 rows fit the ring, they are filled together: one fence for all. */
#define MJ_GEMM_TOGETHER (TILE_N / MJ_GEMM_CHUNK_COLUMNS <= CHUNKS ? TILE_N / MJ_GEMM_CHUNK_COLUMNS : 1)
MJ_FN void mj_gemm_store(const MjGemmShared *s, const MjTensorMap *map, const float (&acc)[MJ_GEMM_ACCS], int sub, int group,
                         int32_t column, int32_t row, int32_t expert)
{
    const MjGemmPlace place = mj_gemm_place();
    const int warp = __shfl_sync(0xffffffffu, (int)threadIdx.x % 128 / 32, 0);
    const mj_u32 ring = s->chunks + (group * 4 + warp) * CHUNKS * MJ_GEMM_CHUNK;
#pragma unroll
    for (int i = 0; i < TILE_N / MJ_GEMM_CHUNK_COLUMNS; i += MJ_GEMM_TOGETHER) {
        const int number = sub * (TILE_N / MJ_GEMM_CHUNK_COLUMNS) + i;
        if (number == 0 && MJ_GEMM_TILE_CHUNKS % CHUNKS != 0) mj_ptx_tma_wait_read<0>();
        else mj_ptx_tma_wait_read<CHUNKS - MJ_GEMM_TOGETHER>(); /* lane 0's; nobody else has any */
        __syncwarp();
#pragma unroll
        for (int j = 0; j < MJ_GEMM_TOGETHER; j++)
            mj_gemm_fill_chunk(ring + (number + j) % CHUNKS * MJ_GEMM_CHUNK, place, acc, (i + j) * MJ_GEMM_CHUNK_COLUMNS);
        mj_ptx_fence_async();
        __syncwarp();
#pragma unroll
        for (int j = 0; j < MJ_GEMM_TOGETHER; j++) {
            const mj_u32 chunk = ring + (number + j) % CHUNKS * MJ_GEMM_CHUNK;
            const int32_t x = column + (i + j) * MJ_GEMM_CHUNK_COLUMNS, y = row + 64 * sub + 16 * warp;
            if (mj_ptx_lane() == 0) {
                if (EPILOGUE == MJ_EPI_ACCUMULATE) mj_ptx_tma_add_3d(map, chunk, x, y, expert);
                else mj_ptx_tma_store_3d(map, chunk, x, y, expert);
            }
            mj_ptx_tma_commit();
        }
    }
}

MJ_FN void mj_gemm_store_close(void)
{
    mj_ptx_tma_wait<0>();
}

#endif
