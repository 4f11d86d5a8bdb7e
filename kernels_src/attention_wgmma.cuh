/* What attention's wgmma kernels share: which keys a token sees, the order of work, tiles that TMA brings, products of
 * tiles. A block is persistent: one warp of its first warpgroup loads, the others multiply, each 64 rows of the item at hand.
 *
 * Layout of a tile of R rows: HEAD_DIM / 64 slabs of (R, 64) bf16, 128-byte swizzle, as one TMA box each. Read along its
 * rows it is K-major; read down its columns it is MN-major, 64 columns a slab.
 *
 * A token sees a run of keys, [low(i), i]; low never falls as i grows. A masked score weighs exactly zero, so tiles that
 * a row does not need change none of its bits: how many are visited is a matter of speed alone. */
#ifndef MJ_ATTENTION_WGMMA_CUH
#define MJ_ATTENTION_WGMMA_CUH

#include "attention_tile.h"
#include "ptx_product.cuh"

#define MJ_LOG2E 1.44269504f
#define MJ_LN2 0.693147181f
#define MJ_MATH_THREADS (MJ_ATTENTION_SM90_THREADS - 128)
#define MJ_SLABS (HEAD_DIM / 64)
#define MJ_SLAB_BYTES(rows) ((rows) * 128)
#define MJ_TILE_BYTES(rows) ((rows) * HEAD_DIM * 2)

/* First key that token i sees, itself at `position` of its sequence. */
MJ_FN int32_t mj_low_of(int32_t i, int32_t position, int32_t window)
{
    return i - position > i - window + 1 ? i - position : i - window + 1;
}
MJ_FN int32_t mj_attention_low(const int32_t *pos, int32_t window, int32_t i) { return mj_low_of(i, pos[i], window); }

/* First query in [from, to) that sees nothing up to `key`; `to` if there is none. By a whole warp, which tries 32 at once. */
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

MJ_FN int32_t mj_item(int32_t round, int32_t block, int32_t grid, int32_t items)
{
    return mj_attention_item(ORDER, round, block, grid, items);
}
MJ_FN MjPlace mj_place(int32_t item, int32_t tiles, int32_t heads) { return mj_attention_place(ORDER, item, tiles, heads); }

/* Which warpgroup of those that multiply. From one lane, so that the compiler keeps what follows from it, descriptors above
 * all, in uniform registers. */
MJ_FN int32_t mj_math_group(void) { return __shfl_sync(0xffffffffu, MJ_WARP_INDEX, 0) / 4 - 1; }

/* A ring of STAGES slots: where the n-th load goes, and the parity of its turn. */
template <int STAGES_> struct MjRing {
    int32_t slot;
    uint32_t parity;
    __device__ __forceinline__ void next()
    {
        slot = slot + 1 == STAGES_ ? 0 : slot + 1;
        parity ^= slot == 0 ? 1u : 0u;
    }
};

/* One thread: rows row .. row + ROWS_ - 1 of a head of (N, H, D). */
template <int ROWS_> MJ_FN void mj_tma_tile(uint32_t to, const MjTensorMap *map, uint32_t bar, int32_t head, int32_t row)
{
#pragma unroll
    for (int s = 0; s < MJ_SLABS; s++) mj_ptx_tma_load_3d(to + s * MJ_SLAB_BYTES(ROWS_), map, bar, 64 * s, head, row);
}

MJ_FN mj_u64 mj_desc_rows(uint32_t at) { return mj_ptx_wgmma_desc(at, 16, 1024, 1); }
template <int ROWS_> MJ_FN mj_u64 mj_desc_columns(uint32_t at) { return mj_ptx_wgmma_desc(at, MJ_SLAB_BYTES(ROWS_), 1024, 1); }

/* s(64, COLS) = A(64, D) B(COLS, D)^T: A is 64 rows of a tile of A_ROWS, B a tile of COLS rows. */
template <int A_ROWS, int COLS> MJ_FN void mj_wgmma_rows(float (&s)[COLS / 2], uint32_t a, uint32_t b)
{
    mj_ptx_product_rows<COLS, HEAD_DIM / 16, MJ_SLAB_BYTES(A_ROWS), MJ_SLAB_BYTES(COLS)>(s, mj_desc_rows(a), mj_desc_rows(b));
}

/* o(64, D) (+)= P(64, ROWS_) B(ROWS_, D): P in registers, B a tile of ROWS_ rows. */
template <int ROWS_>
MJ_FN void mj_wgmma_columns(float (&o)[HEAD_DIM / 2], const mj_u32 (&p)[ROWS_ / 16][4], uint32_t b, int32_t accumulate)
{
    mj_ptx_product_columns<HEAD_DIM, ROWS_ / 16>(o, p, mj_desc_columns<ROWS_>(b), accumulate);
}

/* An accumulator as the left operand of the next product. */
template <int COLS> MJ_FN void mj_fragments(mj_u32 (&p)[COLS / 16][4], const float (&s)[COLS / 2])
{
#pragma unroll
    for (int k = 0; k < COLS / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[k][i] = mj_ptx_cvt_bf16x2(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
}

/* Sum or largest over the four lanes that share a row of an accumulator. */
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

/* A warp has read what a barrier guards: all of its lanes have. */
MJ_FN void mj_release(uint32_t bar)
{
    __syncwarp();
    if (MJ_LANE == 0) mj_ptx_mbar_arrive(bar);
}

#endif
