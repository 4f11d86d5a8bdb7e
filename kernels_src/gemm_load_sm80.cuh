/* Where operand bytes lie in the shared memory of the mma.sync GEMMs, the copies that bring them there, and the
 * fragments that are read back. Included by gemm_core_sm80.cuh, which owns the order of things.
 *
 * A stage holds TILE_M rows of 128 bytes for A and TILE_N for B. An operand that is stored along K has one such row of K
 * for each of its rows; one that is stored across K (bf16: B of NN, both of TN) has panels of 64 rows of K, each with 64 of
 * its columns. Piece p (16 bytes) of row r lies at p ^ (r % 8): the eight addresses of a matrix that ldmatrix reads, and
 * of eight neighbouring copies, fall into different banks.
 */
#ifndef MJ_GEMM_LOAD_SM80_CUH
#define MJ_GEMM_LOAD_SM80_CUH

#define MJ_A_ACROSS (MJ_TN && mj_elem == 2)
#define MJ_B_ACROSS (LAYOUT != MJ_GEMM_NT && mj_elem == 2)
static constexpr int32_t mj_panel_bytes = 64 * MJ_SM80_ROW;

MJ_FN mj_u32 mj_gemm_piece(int32_t row, int32_t piece) { return (mj_u32)(row * MJ_SM80_ROW + ((piece ^ (row % 8)) << 4)); }

/* ---- copies ------------------------------------------------------------------------------------------------- */

typedef struct MjGemmFeed { /* the operands of one tile as this thread copies them; moves along K from load to load */
    const unsigned char *a, *b;     /* its first piece of the next stage */
    int32_t a_pass, b_pass;         /* bytes to its next one, a pass of the block on; along K for those stored across */
    int64_t a_stage, b_stage;       /* bytes to the next stage */
    int32_t a_rows, b_rows;         /* rows (columns) of C that there are from the tile's first on */
    int32_t left;                   /* elements along K */
    const float *a_scale, *b_scale; /* block recipe: of the tile's first row, column at the next stage */
    const float *weight_scale;      /* NT, NN: of the tile's columns, at the next stage to be multiplied */
    int32_t weight_stage;
} MjGemmFeed;

/* Pieces of a thread: number i is piece `piece` of row `row + i * rows`, where a pass of the block takes `rows` rows. */
template <int Pieces> struct MjGemmPass {
    static constexpr int32_t rows = mj_threads / Pieces;
    MJ_FN int32_t row(void) { return (int32_t)threadIdx.x / Pieces; }
    MJ_FN int32_t piece(void) { return (int32_t)threadIdx.x % Pieces; }
};
typedef MjGemmPass<MJ_A_ACROSS ? TILE_M / 8 : 8> MjGemmPassA;
typedef MjGemmPass<MJ_B_ACROSS ? TILE_N / 8 : 8> MjGemmPassB;
static_assert(MjGemmPassA::rows % 8 == 0 && MjGemmPassB::rows % 8 == 0, "a thread's pieces keep their place in a row");

MJ_FN MjGemmFeed mj_gemm_feed(const MjGemmArgs *args, const MjGemmTile *t)
{
    MjGemmFeed f;
    const int64_t expert = GROUP == MJ_GROUP_M ? t->expert : 0, along = MJ_TN ? MJ_KMAJOR_STRIDE((int64_t)K) : K;
    const int64_t a_stride = (MJ_A_ACROSS ? (int64_t)M : along) * mj_elem, b_stride = (MJ_B_ACROSS ? (int64_t)N : along) * mj_elem;
    const int64_t a_row = MJ_A_ACROSS ? t->first_k : t->row, a_col = MJ_A_ACROSS ? t->row : t->first_k;
    const int64_t b_row = MJ_B_ACROSS ? t->first_k : t->col, b_col = MJ_B_ACROSS ? t->col : t->first_k;
    f.a = (const unsigned char *)args->a + (a_row + MjGemmPassA::row()) * a_stride + a_col * mj_elem + 16 * MjGemmPassA::piece();
    f.b = (const unsigned char *)args->b + expert * N * K * mj_elem + (b_row + MjGemmPassB::row()) * b_stride + b_col * mj_elem +
          16 * MjGemmPassB::piece();
    f.a_pass = (int32_t)(MjGemmPassA::rows * a_stride);
    f.b_pass = (int32_t)(MjGemmPassB::rows * b_stride);
    f.a_stage = MJ_A_ACROSS ? mj_tile_k * a_stride : MJ_SM80_ROW;
    f.b_stage = MJ_B_ACROSS ? mj_tile_k * b_stride : MJ_SM80_ROW;
    f.a_rows = t->live_end - t->row;
    f.b_rows = N - t->col;
    f.left = t->depth;
    if (MJ_BLOCK_SCALE) {
        const int64_t n_blocks = (N + MJ_FP8_BLOCK - 1) / MJ_FP8_BLOCK, k_blocks = (K + MJ_FP8_BLOCK - 1) / MJ_FP8_BLOCK;
        const int32_t block = t->col / MJ_FP8_BLOCK;
        f.a_scale = args->a_scale + (int64_t)(t->first_k / MJ_FP8_BLOCK) * M + t->row;
        f.b_scale = args->b_scale + (int64_t)(t->first_k / MJ_FP8_BLOCK) * N + t->col;
        f.weight_scale = args->b_scale + expert * n_blocks * k_blocks + (LAYOUT == MJ_GEMM_NT ? block * k_blocks : block);
        f.weight_stage = LAYOUT == MJ_GEMM_NT ? 1 : (int32_t)n_blocks;
    }
    return f;
}

/* `Rows` rows of 128 bytes; only the first `rows` exist, and only `left` bytes of each. What doesn't is zero. The address
 * goes on by addition: a table of all of a thread's addresses would cost the registers that the accumulators need. */
template <int Rows> MJ_FN void mj_gemm_copy_along(mj_u32 to, const unsigned char *from, int32_t pass, int32_t rows, int32_t left)
{
    typedef MjGemmPass<8> P;
    static_assert(Rows % P::rows == 0, "every thread copies as much");
#pragma unroll
    for (int32_t i = 0; i < Rows / P::rows; i++, from += pass) {
        const bool there = P::row() + i * P::rows < rows && 16 * P::piece() < left;
        mj_ptx_cp_async_16(to + mj_gemm_piece(P::row(), P::piece()) + i * P::rows * MJ_SM80_ROW, from, there ? 16 : 0);
    }
}

/* 64 rows of K with `Cols` columns in panels of 64; only `left` rows and `cols` columns exist. */
template <int Cols> MJ_FN void mj_gemm_copy_across(mj_u32 to, const unsigned char *from, int32_t pass, int32_t cols, int32_t left)
{
    typedef MjGemmPass<Cols / 8> P;
    static_assert(64 % P::rows == 0, "every thread copies as much");
    to += P::piece() / 8 * mj_panel_bytes + mj_gemm_piece(P::row(), P::piece() % 8);
#pragma unroll
    for (int32_t i = 0; i < 64 / P::rows; i++, from += pass) {
        const bool there = P::row() + i * P::rows < left && 8 * P::piece() < cols;
        mj_ptx_cp_async_16(to + i * P::rows * MJ_SM80_ROW, from, there ? 16 : 0);
    }
}

template <int Rows> MJ_FN void mj_gemm_copy_scales(mj_u32 to, const float *from, int32_t rows)
{
#pragma unroll
    for (int32_t i = 0; i < (Rows + mj_threads - 1) / mj_threads; i++) {
        const int32_t row = (int32_t)threadIdx.x + i * mj_threads;
        if (Rows % mj_threads == 0 || row < Rows) mj_ptx_cp_async_4(to + 4 * row, from + row, row < rows ? 4 : 0);
    }
}

/* The next stage along K into shared memory at `stage`. */
MJ_FN void mj_gemm_load(const MjGemmArgs *args, MjGemmFeed *f, mj_u32 stage)
{
    const mj_u32 stage_b = stage + TILE_M * MJ_SM80_ROW, stage_scales = stage + mj_operand_bytes;
    if (MJ_A_ACROSS) mj_gemm_copy_across<TILE_M>(stage, f->a, f->a_pass, f->a_rows, f->left);
    else mj_gemm_copy_along<TILE_M>(stage, f->a, f->a_pass, f->a_rows, f->left * mj_elem);
    if (MJ_B_ACROSS) mj_gemm_copy_across<TILE_N>(stage_b, f->b, f->b_pass, f->b_rows, f->left);
    else mj_gemm_copy_along<TILE_N>(stage_b, f->b, f->b_pass, f->b_rows, f->left * mj_elem);
    f->a += f->a_stage;
    f->b += f->b_stage;
    f->left -= mj_tile_k;
    if (MJ_BLOCK_SCALE) {
        mj_gemm_copy_scales<TILE_M>(stage_scales, f->a_scale, f->a_rows);
        if (MJ_TN) mj_gemm_copy_scales<TILE_N>(stage_scales + 4 * TILE_M, f->b_scale, f->b_rows);
        f->a_scale += M;
        f->b_scale += N;
    }
}

/* ---- fragments of mma.sync: 32 bytes along K, number `step` of a stage ------------------------------------------ */

/* 16 rows from `row` on. Registers 0..3 are the matrices (rows 0-7, 8-15) x (first, second 16 bytes), rows first. */
MJ_FN void mj_gemm_fragment_a(mj_u32 (&r)[4], mj_u32 tile, int32_t step, int32_t row)
{
    const int32_t lane = MJ_LANE;
    if (MJ_A_ACROSS) {
        const int32_t k = 16 * step + lane % 8 + lane / 16 * 8, m = row + lane / 8 % 2 * 8;
        mj_ptx_ldmatrix_x4_trans(r, tile + m / 64 * mj_panel_bytes + mj_gemm_piece(k, m / 8 % 8));
    } else {
        mj_ptx_ldmatrix_x4(r, tile + mj_gemm_piece(row + lane % 16, 2 * step + lane / 16));
    }
}

/* 16 columns from `col` on: registers 0, 1 are the fragment of the first 8, registers 2, 3 that of the others. */
MJ_FN void mj_gemm_fragment_b(mj_u32 (&r)[4], mj_u32 tile, int32_t step, int32_t col)
{
    const int32_t lane = MJ_LANE;
    if (MJ_B_ACROSS) {
        const int32_t k = 16 * step + lane % 16, n = col + lane / 16 * 8;
        mj_ptx_ldmatrix_x4_trans(r, tile + n / 64 * mj_panel_bytes + mj_gemm_piece(k, n / 8 % 8));
    } else {
        mj_ptx_ldmatrix_x4(r, tile + mj_gemm_piece(col + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2));
    }
}

MJ_FN void mj_gemm_fragments_b(mj_u32 (&r)[mj_ni / 2][4], mj_u32 tile, int32_t step, int32_t col)
{
#pragma unroll
    for (int32_t j = 0; j < mj_ni / 2; j++) mj_gemm_fragment_b(r[j], tile, step, col + 16 * j);
}

#endif
