/* How a warpgroup's 64 rows of f32 accumulators become rows of C: converted, through chunks of shared memory (64 rows of
 * 128 bytes, swizzled), and out by TMA, which leaves out what lies outside the matrix. Accumulating adds in the L2 cache:
 * no two blocks have the same element, so the sum is one f32 addition whoever comes first. Part of gemm_core_sm90.cuh. */
#ifndef MJ_GEMM_STORE_SM90_CUH
#define MJ_GEMM_STORE_SM90_CUH

#define MJ_GEMM_CHUNK_COLUMNS (C_TYPE == MJ_T_F32 ? 32 : 64)

#define MJ_GEMM_TILE_CHUNKS (MJ_GEMM_SUBS * TILE_N / MJ_GEMM_CHUNK_COLUMNS)

MJ_FN bool mj_gemm_leader(void) { return threadIdx.x % 128 == 0; } /* of a warpgroup: the thread that issues stores */

/* Fragments of wgmma: accumulator 4j + 2i + e of lane l in warp w is row 16w + l / 4 + 8i, column 8j + 2 (l % 4) + e. */
MJ_FN int32_t mj_gemm_fragment_row(void) { return (int32_t)(threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4); }

/* Where a thread writes within a chunk: `at` plus 16-byte column `x` swizzled, (x * 16) ^ `flip`. */
struct MjGemmPlace {
    mj_u32 at, flip;
};
MJ_FN MjGemmPlace mj_gemm_place(void)
{
    const mj_u32 lane = mj_ptx_lane(), warp_row = threadIdx.x % 128 / 32 * 16;
#if C_TYPE == MJ_T_F32 /* two columns, 8 bytes, of row lane / 4; 8 rows on the same */
    const mj_u32 flip = lane / 4 * 16, byte = lane % 4 * 8;
    MjGemmPlace p = {(warp_row + lane / 4) * 128 + (byte ^ (flip & 16)), flip & 96};
#else /* stmatrix: a row of 8 columns */
    const mj_u32 flip = lane % 8 * 16 ^ lane / 16 * 16;
    MjGemmPlace p = {(warp_row + lane % 16) * 128, flip};
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

/* Rows 64 sub.. of the warpgroup's part of a tile. The chunks are a ring, known at compile time: a chunk is free once the
 * store that was issued CHUNKS before is read; where the chunks of a tile are no multiple, once all are. */
MJ_FN void mj_gemm_store(const MjGemmShared *s, const MjTensorMap *map, const float (&acc)[MJ_GEMM_ACCS], int sub, int group,
                         int32_t column, int32_t row, int32_t expert)
{
    const MjGemmPlace place = mj_gemm_place();
#pragma unroll
    for (int i = 0; i < TILE_N / MJ_GEMM_CHUNK_COLUMNS; i++) {
        const int number = sub * (TILE_N / MJ_GEMM_CHUNK_COLUMNS) + i, first = i * MJ_GEMM_CHUNK_COLUMNS;
        const mj_u32 chunk = s->chunks + (group * CHUNKS + number % CHUNKS) * MJ_SM90_CHUNK;
        if (number == 0 && MJ_GEMM_TILE_CHUNKS % CHUNKS != 0) mj_ptx_tma_wait_read<0>();
        else mj_ptx_tma_wait_read<CHUNKS - 1>(); /* the leader's; nobody else has any */
        mj_ptx_bar_sync(1 + group, 128);
        mj_gemm_fill_chunk(chunk, place, acc, first);
        mj_ptx_fence_async();
        mj_ptx_bar_sync(1 + group, 128);
        if (mj_gemm_leader()) {
            if (EPILOGUE == MJ_EPI_ACCUMULATE) mj_ptx_tma_add_3d(map, chunk, column + first, row + 64 * sub, expert);
            else mj_ptx_tma_store_3d(map, chunk, column + first, row + 64 * sub, expert);
        }
        mj_ptx_tma_commit();
    }
}

MJ_FN void mj_gemm_store_close(void)
{
    mj_ptx_tma_wait<0>();
}

#endif
