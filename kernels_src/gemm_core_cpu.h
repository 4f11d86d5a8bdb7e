/* The body of the CPU's GEMM templates, gemm_cpu (NT, NN) and gemm_tn_cpu (TN): finds a block's tile, packs, multiplies,
 * promotes, stores. Reads the template's parameters by name; see MjGemmArgs for the contract.
 *
 * One f32 accumulator an output element, k ascending in pairs. A tile goes through k in chunks that fit the cache, its
 * accumulators kept in scratch between chunks; so tiles, chunks and threads change no bit.
 *
 *   A: NT, NN bf16: read where it is, row-major words of two k; fp8: decoded once a tile, row-major
 *      TN: pairs of rows interleaved, k-major
 *   B: panels of 64 columns, (k/2)(64)(2) bf16, packed once a tile and used by all its rows
 */
#ifndef MJ_GEMM_CORE_CPU_H
#define MJ_GEMM_CORE_CPU_H

#include "gemm_tile.h"
#include "tile_cpu.h"

#define MJ_C_BYTES (C_TYPE == MJ_T_F32 ? 4 : 2)

typedef struct MjGemmBlock {
    int32_t expert;
    int32_t row, rows;     /* of C (in its expert for GROUP_K), to be computed */
    int32_t zero_rows;     /* padding rows that follow */
    int32_t col, cols;
    int32_t k_first, k;    /* rows summed over: GROUP_K, the expert's; else 0, K */
} MjGemmBlock;

/* Where the words of A are: word (r, p) at base[r * row + p * pair]. */
typedef struct MjGemmA {
    const mj_pair *base;
    int64_t row, pair;
} MjGemmA;

/* Block index -> tile; 0 when there is none. GROUP_M walks the experts: an expert of `count` rows is cut into even tiles
 * of at most tile_rows; its padding rows are zeroed by the last. */
MJ_INLINE int mj_gemm_find(const MjGemmArgs *args, int32_t block, const MjGemmTiling *t, MjGemmBlock *b)
{
    const int32_t tile_n = block % t->tiles_n;
    int32_t tile_m = block / t->tiles_n;
    b->col = tile_n * t->panels_per_tile * MJ_GEMM_PANEL;
    b->cols = t->panels_per_tile * MJ_GEMM_PANEL;
    if (b->col >= N) return 0;
    if (b->cols > N - b->col) b->cols = N - b->col;
    b->expert = 0;
    b->zero_rows = 0;
    b->k_first = 0;
    b->k = K;
    if (GROUP == MJ_GROUP_M) {
        for (int32_t e = 0; e < EXPERTS; e++) {
            const int32_t begin = args->offset[e], padded = args->offset[e + 1] - begin;
            const int32_t live = args->count[e] < padded ? args->count[e] : padded;
            const int32_t tiles = live > 0 ? mj_gemm_ceil_div(live, t->tile_rows) : padded > 0;
            if (tile_m < tiles) {
                const int32_t each = mj_gemm_ceil_div(live, tiles), first = tile_m * each;
                b->expert = e;
                b->row = begin + first;
                b->rows = live - first < each ? live - first : each;
                if (b->rows < 0) b->rows = 0;
                b->zero_rows = tile_m == tiles - 1 ? padded - live : 0;
                return 1;
            }
            tile_m -= tiles;
        }
        return 0;
    }
    if (GROUP == MJ_GROUP_K) {
        b->expert = tile_m / t->tiles_m;
        tile_m %= t->tiles_m;
        if (b->expert >= EXPERTS) return 0;
        b->k_first = MJ_GROUP_FIRST(args, b->expert);
        b->k = MJ_GROUP_LENGTH(args, b->expert, K);
    }
    b->row = tile_m * t->tile_rows;
    b->rows = t->tile_rows < M - b->row ? t->tile_rows : M - b->row;
    return b->rows > 0;
}

/* Scales of a register tile: a_scale element (r, k-block) at a[r * a_row + kb * a_block]. For NT and NN the weights have
 * one scale for the panel and k-block; for TN one a column. */
typedef struct MjGemmScales {
    const float *a, *b;
    int64_t a_row, a_block, b_block;
    int32_t cols;
} MjGemmScales;

MJ_INLINE mj_vf mj_gemm_column_scales(const float *p, int32_t live)
{
    float lanes[MJ_VL] __attribute__((aligned(64)));
    if (live >= MJ_VL) return mj_vf_load(p);
    for (int32_t i = 0; i < MJ_VL; i++)
        lanes[i] = i < live ? p[i] : 0.0f;
    return mj_vf_load(lanes);
}

/* One register tile through one chunk of k; acc is (mr, stride) f32 in scratch. */
MJ_INLINE void mj_gemm_tile(const int mr, MjGemmA a, const uint32_t *b, int32_t pairs, float *acc, int32_t stride,
                            int first, MjGemmScales s)
{
    for (int sub = 0; sub < MJ_NSUB; sub++, b += MJ_NV * MJ_VL, acc += MJ_NV * MJ_VL) {
        mj_vf c[MJ_MR][MJ_NV];
        if (SCALE_MODE != MJ_SCALE_BLOCK) {
            for (int r = 0; r < mr; r++)
                for (int v = 0; v < MJ_NV; v++)
                    c[r][v] = first ? (mj_vf){0} : mj_vf_load(acc + r * stride + v * MJ_VL);
            mj_tile_multiply(mr, a.base, a.row, a.pair, b, MJ_PANEL, pairs, c);
            for (int r = 0; r < mr; r++)
                for (int v = 0; v < MJ_NV; v++)
                    mj_vf_store(acc + r * stride + v * MJ_VL, c[r][v]);
            continue;
        }
        if (first && pairs == 0)
            for (int r = 0; r < mr; r++)
                for (int v = 0; v < MJ_NV; v++)
                    mj_vf_store(acc + r * stride + v * MJ_VL, (mj_vf){0});
        for (int32_t p = 0, block = 0; p < pairs; p += MJ_FP8_BLOCK / 2, block++) {
            const mj_pair *from = a.base + p * a.pair;
            const uint32_t *panel = b + (int64_t)p * MJ_PANEL;
            for (int r = 0; r < mr; r++)
                for (int v = 0; v < MJ_NV; v++)
                    c[r][v] = (mj_vf){0};
            if (pairs - p >= MJ_FP8_BLOCK / 2)
                mj_tile_multiply(mr, from, a.row, a.pair, panel, MJ_PANEL, MJ_FP8_BLOCK / 2, c);
            else
                mj_tile_multiply(mr, from, a.row, a.pair, panel, MJ_PANEL, pairs - p, c);
            mj_vf bs[MJ_NV];
            for (int v = 0; v < MJ_NV; v++)
                bs[v] = LAYOUT == MJ_GEMM_TN
                            ? mj_gemm_column_scales(s.b + block * s.b_block + (sub * MJ_NV + v) * MJ_VL,
                                                    s.cols - (sub * MJ_NV + v) * MJ_VL)
                            : mj_vf_set1(s.b[block * s.b_block]);
            for (int r = 0; r < mr; r++) {
                const mj_vf as = mj_vf_set1(s.a[r * s.a_row + block * s.a_block]);
                for (int v = 0; v < MJ_NV; v++) {
                    float *at = acc + r * stride + v * MJ_VL;
                    const mj_vf old = first && block == 0 ? (mj_vf){0} : mj_vf_load(at);
                    mj_vf_store(at, mj_vf_fma(c[r][v], as * bs[v], old));
                }
            }
        }
    }
}

/* acc(rows, stride) -> C(rows, cols of the panel). */
MJ_INLINE void mj_gemm_store(const MjGemmArgs *args, const float *acc, int32_t stride, int32_t rows, int32_t cols,
                             int64_t at, int64_t ldc)
{
    const mj_vf scale = mj_vf_set1(SCALE_MODE == MJ_SCALE_TENSOR ? args->a_scale[0] * args->b_scale[0] : 1.0f);
    for (int32_t r = 0; r < rows; r++, acc += stride, at += ldc) {
        for (int32_t c = 0; c < cols; c += MJ_VL) {
            const int32_t live = cols - c < MJ_VL ? cols - c : MJ_VL;
            mj_vf x = mj_vf_load(acc + c);
            if (SCALE_MODE == MJ_SCALE_TENSOR) x *= scale;
            if (C_TYPE == MJ_T_BF16) {
                mj_vf_store_bf16((uint16_t *)args->c + at + c, x, live);
                continue;
            }
            float *to = (float *)args->c + at + c;
            if (live == MJ_VL) {
                if (EPILOGUE == MJ_EPI_ACCUMULATE) x += mj_vf_load(to);
                mj_vf_store(to, x);
            } else {
                for (int32_t i = 0; i < live; i++)
                    to[i] = EPILOGUE == MJ_EPI_ACCUMULATE ? to[i] + x[i] : x[i];
            }
        }
    }
}

/* Brings rows `row..` of A, k-chunk [k0, k0 + kc), to where the register tiles read it. */
MJ_INLINE MjGemmA mj_gemm_prepare_a(const MjGemmArgs *args, const MjGemmBlock *b, int32_t k0, int32_t kc, uint32_t *scratch)
{
    const uint8_t *a = (const uint8_t *)args->a;
    if (LAYOUT == MJ_GEMM_TN) {
        const int64_t from = (int64_t)(b->k_first + k0) * M + b->row;
        mj_pack_rows(A_TYPE, a + from * MJ_TYPE_BYTES(A_TYPE), M, kc, b->rows, (b->rows + 31) / 32 * 32, scratch,
                     MJ_GEMM_TILE_ROWS);
        return (MjGemmA){scratch, 1, MJ_GEMM_TILE_ROWS};
    }
    const int64_t from = (int64_t)b->row * K + k0;
    if (A_TYPE == MJ_T_BF16) return (MjGemmA){(const mj_pair *)(const void *)(a + from * 2), K / 2, 1};
    mj_decode_rows(A_TYPE, a + from, K, b->rows, kc, (uint16_t *)(void *)scratch, MJ_GEMM_A_STRIDE * 2);
    return (MjGemmA){scratch, MJ_GEMM_A_STRIDE, 1};
}

/* Packs columns col.. (at most a panel) of B, k-chunk [k0, k0 + kc). */
MJ_INLINE void mj_gemm_pack_b(const MjGemmArgs *args, const MjGemmBlock *b, int32_t k0, int32_t kc, int32_t col,
                              int32_t cols, uint32_t *panel)
{
    const uint8_t *src = (const uint8_t *)args->b;
    const int64_t bytes = MJ_TYPE_BYTES(B_TYPE);
    const int64_t group = GROUP == MJ_GROUP_M ? (int64_t)b->expert * N * K : 0;
    if (LAYOUT == MJ_GEMM_NT) {
        mj_pack_transposed(B_TYPE, src + (group + (int64_t)col * K + k0) * bytes, K, cols, kc, MJ_GEMM_PANEL, panel,
                           MJ_GEMM_PANEL);
        return;
    }
    mj_pack_rows(B_TYPE, src + (group + (int64_t)(b->k_first + k0) * N + col) * bytes, N, kc, cols, MJ_GEMM_PANEL, panel,
                 MJ_GEMM_PANEL);
}

/* Scales of the register tile at (row, col), from k-chunk k0 on. */
MJ_INLINE MjGemmScales mj_gemm_scales(const MjGemmArgs *args, const MjGemmBlock *b, int32_t row, int32_t col, int32_t cols,
                                      int32_t k0)
{
    MjGemmScales s = {0};
    if (SCALE_MODE != MJ_SCALE_BLOCK) return s;
    const int32_t kb = (b->k_first + k0) / MJ_FP8_BLOCK;
    s.a_row = 1;
    s.cols = cols;
    s.a_block = M; /* NT, NN: (K/128, rows); TN: (rows/128, M) */
    s.a = args->a_scale + (int64_t)kb * M + row;
    if (LAYOUT == MJ_GEMM_TN) {
        s.b_block = N;
        s.b = args->b_scale + (int64_t)kb * N + col;
        return s;
    }
    /* Weights (E, out/128, in/128): out is N for NT and K for NN. */
    const int32_t n_blocks = mj_gemm_ceil_div(N, MJ_FP8_BLOCK), k_blocks = mj_gemm_ceil_div(K, MJ_FP8_BLOCK);
    const float *w = args->b_scale + (int64_t)b->expert * n_blocks * k_blocks;
    if (LAYOUT == MJ_GEMM_NT) {
        s.b_block = 1;
        s.b = w + (int64_t)(col / MJ_FP8_BLOCK) * k_blocks + kb;
    } else {
        s.b_block = n_blocks;
        s.b = w + (int64_t)kb * n_blocks + col / MJ_FP8_BLOCK;
    }
    return s;
}

MJ_INLINE void mj_gemm_zero_rows(const MjGemmArgs *args, const MjGemmBlock *b)
{
    if (EPILOGUE != MJ_EPI_STORE) return;
    for (int32_t r = 0; r < b->zero_rows; r++)
        memset((uint8_t *)args->c + ((int64_t)(b->row + b->rows + r) * N + b->col) * MJ_C_BYTES, 0,
               (size_t)b->cols * MJ_C_BYTES);
}

static void mj_gemm_run(const MjGemmArgs *args, const MjGemmBlock *b, uint32_t *scratch)
{
    uint32_t *panel = scratch + MJ_GEMM_A_WORDS;
    float *tile = (float *)(void *)(panel + MJ_GEMM_B_WORDS);
    const int64_t c_group = GROUP == MJ_GROUP_K ? (int64_t)b->expert * M * N : 0;
    int32_t k0 = 0;
    do { /* once for k = 0 too: an empty expert's gradient is zero */
        const int32_t kc = b->k - k0 < MJ_GEMM_CHUNK_K ? b->k - k0 : MJ_GEMM_CHUNK_K;
        const int last = k0 + kc >= b->k;
        const MjGemmA a = mj_gemm_prepare_a(args, b, k0, kc, scratch);
        for (int32_t pc = 0; pc < b->cols; pc += MJ_GEMM_PANEL) {
            const int32_t cols = b->cols - pc < MJ_GEMM_PANEL ? b->cols - pc : MJ_GEMM_PANEL;
            mj_gemm_pack_b(args, b, k0, kc, b->col + pc, cols, panel);
            /* With one chunk the accumulators stay in the first rows of `tile`, in the nearest cache. */
            const int one_chunk = last && k0 == 0;
            const int32_t stride = one_chunk ? MJ_GEMM_PANEL : MJ_GEMM_TILE_COLS;
            for (int32_t r = 0, mr; r < b->rows; r += mr) {
                mr = mj_tile_rows(b->rows - r);
                float *acc = one_chunk ? tile : tile + (int64_t)r * stride + pc;
                const MjGemmA at = {a.base + r * a.row, a.row, a.pair};
                const MjGemmScales s = mj_gemm_scales(args, b, b->row + r, b->col + pc, cols, k0);
                const int32_t pairs = (kc + 1) / 2;
                switch (mr) {
                case 6: mj_gemm_tile(6, at, panel, pairs, acc, stride, k0 == 0, s); break;
                case 4: mj_gemm_tile(4, at, panel, pairs, acc, stride, k0 == 0, s); break;
                case 2: mj_gemm_tile(2, at, panel, pairs, acc, stride, k0 == 0, s); break;
                default: mj_gemm_tile(1, at, panel, pairs, acc, stride, k0 == 0, s); break;
                }
                if (last) mj_gemm_store(args, acc, stride, mr, cols, c_group + (int64_t)(b->row + r) * N + b->col + pc, N);
            }
        }
        k0 += kc;
    } while (k0 < b->k);
    mj_gemm_zero_rows(args, b);
}

/* All tiles of this block: one, unless the grid is smaller than the tiling's. */
MJ_INLINE void mj_gemm_blocks(const MjGemmArgs *args, uint32_t block, uint32_t grid, void *shared)
{
    const MjGemmTiling t = mj_gemm_tiling(M, N, EXPERTS, GROUP, BLOCKS);
    for (int32_t i = (int32_t)block; i < t.grid; i += (int32_t)grid) {
        MjGemmBlock b;
        if (mj_gemm_find(args, i, &t, &b)) mj_gemm_run(args, &b, (uint32_t *)shared);
    }
}

#endif
