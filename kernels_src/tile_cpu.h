/* The register tile of the CPU's matrix kernels: mr rows x MJ_NV vectors of f32 accumulators, fed by bf16 dot products,
 * k ascending in pairs; and the product of a strip of rows with one packed panel of 64 columns, as attention uses it. */
#ifndef MJ_TILE_CPU_H
#define MJ_TILE_CPU_H

#include "vec_cpu.h"

#define MJ_PANEL 64 /* columns of a panel */
#define MJ_MR 6     /* rows of the register tile */
#if defined(MJ_VEC_512)
#define MJ_NV 4 /* vectors across: 24 accumulators of 32 registers */
#else
#define MJ_NV 2 /* 12 of 16 */
#endif
#define MJ_NSUB (MJ_PANEL / (MJ_NV * MJ_VL)) /* register tiles across a panel */

/* How many of `left` rows the next register tile takes: 6, 4, 2 or 1; 8 go as 4 + 4. */
MJ_INLINE int32_t mj_tile_rows(int32_t left) { return left >= 9 || left == MJ_MR ? MJ_MR : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

/* c(mr, MJ_NV vectors) += A(mr, pairs) B(pairs, stride). Word (r, p) of A is at a[r * row + p * pair]. */
MJ_INLINE void mj_tile_multiply(const int mr, const mj_pair *a, int64_t row, int64_t pair, const uint32_t *b,
                                int64_t stride, int32_t pairs, mj_vf c[MJ_MR][MJ_NV])
{
    for (int32_t p = 0; p < pairs; p++) {
        mj_vu bv[MJ_NV];
        for (int v = 0; v < MJ_NV; v++)
            bv[v] = mj_vu_load(b + p * stride + v * MJ_VL);
        for (int r = 0; r < mr; r++) {
            const mj_vu av = mj_vu_set1(a[r * row + p * pair]);
            for (int v = 0; v < MJ_NV; v++)
                c[r][v] = mj_vdot(c[r][v], av, bv[v]);
        }
    }
}

/* A product of row-major A (rows, pairs words; `a_row` words apart) and one panel of B (pairs, b_stride). */
typedef struct MjStrip {
    const mj_pair *a;
    const uint32_t *b;
    float *c;           /* (rows, c_stride) f32 */
    const float *alpha; /* (rows): C = alpha C + A B; NULL: C = A B */
    int64_t a_row, b_stride, c_stride;
    int32_t rows, pairs;
} MjStrip;

MJ_INLINE void mj_strip_tile(const int mr, const MjStrip *s, int32_t r0)
{
    for (int sub = 0; sub < MJ_NSUB; sub++) {
        const int64_t col = sub * MJ_NV * MJ_VL;
        float *c_at = s->c + r0 * s->c_stride + col;
        mj_vf c[MJ_MR][MJ_NV];
        for (int r = 0; r < mr; r++) {
            const mj_vf alpha = mj_vf_set1(s->alpha ? s->alpha[r0 + r] : 0.0f);
            for (int v = 0; v < MJ_NV; v++)
                c[r][v] = s->alpha ? alpha * mj_vf_load(c_at + r * s->c_stride + v * MJ_VL) : (mj_vf){0};
        }
        mj_tile_multiply(mr, s->a + r0 * s->a_row, s->a_row, 1, s->b + col, s->b_stride, s->pairs, c);
        for (int r = 0; r < mr; r++)
            for (int v = 0; v < MJ_NV; v++)
                mj_vf_store(c_at + r * s->c_stride + v * MJ_VL, c[r][v]);
    }
}

static __attribute__((noinline, unused)) void mj_strip_multiply(const MjStrip *s)
{
    for (int32_t r = 0, mr; r < s->rows; r += mr) {
        mr = mj_tile_rows(s->rows - r);
        switch (mr) {
        case 6: mj_strip_tile(6, s, r); break;
        case 4: mj_strip_tile(4, s, r); break;
        case 2: mj_strip_tile(2, s, r); break;
        default: mj_strip_tile(1, s, r); break;
        }
    }
}

#endif
