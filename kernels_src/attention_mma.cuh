/* What attention's mma.sync kernels share: which keys a token sees, tiles of rows in shared memory, products of tiles.
 * Owns the layout: a row of a tile is HEAD_DIM bf16 values, its 16-byte chunks permuted by the row's number so that the
 * eight rows of a fragment lie in different banks. Every warp works on 16 rows of the block's tile.
 *
 * A token sees a run of keys, [low(i), i]; low never falls as i grows. A masked score weighs exactly zero, so tiles that
 * a row does not need change none of its bits: how many are visited is a matter of speed alone. */
#ifndef MJ_ATTENTION_MMA_CUH
#define MJ_ATTENTION_MMA_CUH

#include "attention_tile.h"
#include "ptx.cuh"

#define MJ_LOG2E 1.44269504f
#define MJ_LN2 0.693147181f
#define MJ_ROW_BYTES (2 * HEAD_DIM)
#define MJ_ROW_CHUNKS (HEAD_DIM / 8) /* of 16 bytes */
#define MJ_DIM_FRAGS (HEAD_DIM / 8)  /* accumulator fragments, 8 columns each, of a row */
#define THREADS (32 * WARPS) /* of a block */
#define ROWS MJ_ATTENTION_MMA_ROWS(WARPS)
#define MJ_NO_KEY 0x7fffffff

/* First key that token i sees. */
MJ_FN int32_t mj_attention_low(const int32_t *pos, int32_t window, int32_t i)
{
    const int32_t begin = i - pos[i], near = i - window + 1;
    return begin > near ? begin : near;
}

/* First query in [from, to) that sees nothing up to `key`; `to` if there is none. The same in every lane: 32 are tried
 * at once. */
MJ_FN int32_t mj_attention_end(const int32_t *pos, int32_t window, int32_t from, int32_t to, int32_t key)
{
    while (from < to) {
        const int32_t step = (to - from + 31) / 32, at = from + MJ_LANE * step;
        const uint32_t past = __ballot_sync(0xffffffffu, at >= to || mj_attention_low(pos, window, at) > key);
        const int32_t first = past != 0 ? __ffs((int)past) - 1 : 32, after = from + first * step;
        if (first == 0) break;
        to = after < to ? after : to;
        from += (first - 1) * step + 1;
    }
    return from;
}

/* One head's rows of (N, ..., H, D): row n at base + n * stride. */
struct MjHeadRows {
    const uint16_t *base;
    int64_t stride;
};

/* Shared address of a 16-byte chunk of a tile. */
MJ_FN uint32_t mj_tile_at(uint32_t tile, int32_t row, int32_t chunk)
{
    return tile + (uint32_t)(row * MJ_ROW_BYTES + ((chunk ^ (row & 7)) << 4));
}

/* Starts copying rows first .. first + rows - 1 into a tile; those from `end` on become zeros. By all THREADS threads of
 * the block; a thread's rows are a multiple of 8 apart, so that its chunk keeps its place. */
MJ_FN void mj_tile_load(uint32_t tile, MjHeadRows x, int32_t first, int32_t rows, int32_t end)
{
    const int32_t apart = THREADS / MJ_ROW_CHUNKS, row = (int32_t)threadIdx.x / MJ_ROW_CHUNKS;
    const int32_t chunk = (int32_t)threadIdx.x % MJ_ROW_CHUNKS;
    const uint32_t to = mj_tile_at(tile, row, chunk);
    const uint16_t *from = x.base + (first + row) * x.stride + 8 * chunk;
#pragma unroll
    for (int32_t i = 0; i < rows / apart; i++) {
        const bool there = first + row + i * apart < end;
        mj_ptx_cp_async_16(to + i * apart * MJ_ROW_BYTES, there ? from + i * (apart * x.stride) : x.base, there ? 16u : 0u);
    }
}

/* A operand: rows row .. row + 15, columns 16 k .. 16 k + 15. Transposed it is two B operands: the rows are summed over,
 * columns 16 k and 16 k + 8. */
MJ_FN uint32_t mj_frag_a(uint32_t tile, int32_t row, int32_t k)
{
    return mj_tile_at(tile, row + MJ_LANE % 16, 2 * k + MJ_LANE / 16);
}
/* Two B operands: columns of the result are rows row .. row + 7 and row + 8 .. row + 15 of the tile. */
MJ_FN uint32_t mj_frag_b(uint32_t tile, int32_t row, int32_t k)
{
    return mj_tile_at(tile, row + MJ_LANE % 8 + MJ_LANE / 16 * 8, 2 * k + MJ_LANE / 8 % 2);
}

MJ_FN void mj_mma_pair(float (&d0)[4], float (&d1)[4], const mj_u32 (&a)[4], const mj_u32 (&b)[4])
{
    const mj_u32 b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    mj_ptx_mma_bf16(d0, a, b0);
    mj_ptx_mma_bf16(d1, a, b1);
}

/* s(16, 8 FRAGS) = A(16, D) B(8 FRAGS, D)^T: rows a_row.. of tile a, rows b_row.. of tile b. */
template <int FRAGS>
MJ_FN void mj_mma_rows(float (&s)[FRAGS][4], uint32_t a_tile, int32_t a_row, uint32_t b_tile, int32_t b_row)
{
#pragma unroll
    for (int f = 0; f < FRAGS; f++)
        for (int i = 0; i < 4; i++) s[f][i] = 0.0f;
#pragma unroll 2 /* all of it takes a fifth longer to compile */
    for (int k = 0; k < HEAD_DIM / 16; k++) {
        mj_u32 a[4], b[4];
        mj_ptx_ldmatrix_x4(a, mj_frag_a(a_tile, a_row, k));
#pragma unroll
        for (int f = 0; f < FRAGS; f += 2) {
            mj_ptx_ldmatrix_x4(b, mj_frag_b(b_tile, b_row + 8 * f, k));
            mj_mma_pair(s[f], s[f + 1], a, b);
        }
    }
}

/* o(16, D) += P(16, 8 FRAGS) B(8 FRAGS, D): P is an accumulator rounded to bf16, B rows b_row.. of a tile. */
template <int FRAGS>
MJ_FN void mj_mma_columns(float (&o)[MJ_DIM_FRAGS][4], const float (&p)[FRAGS][4], uint32_t b_tile, int32_t b_row)
{
#pragma unroll
    for (int f = 0; f < FRAGS; f += 2) {
        const mj_u32 a[4] = {mj_ptx_cvt_bf16x2(p[f][0], p[f][1]), mj_ptx_cvt_bf16x2(p[f][2], p[f][3]),
                             mj_ptx_cvt_bf16x2(p[f + 1][0], p[f + 1][1]), mj_ptx_cvt_bf16x2(p[f + 1][2], p[f + 1][3])};
#pragma unroll
        for (int c = 0; c < MJ_DIM_FRAGS; c += 2) {
            mj_u32 b[4];
            mj_ptx_ldmatrix_x4_trans(b, mj_frag_a(b_tile, b_row + 8 * f, c / 2));
            mj_mma_pair(o[c], o[c + 1], a, b);
        }
    }
}

/* Sum or largest over the four lanes that share a row of a fragment. */
MJ_FN float mj_quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
MJ_FN float mj_quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

#endif
