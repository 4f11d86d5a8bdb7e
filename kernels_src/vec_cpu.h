/* Vectors for the CPU's matrix kernels: one width a level of instruction set, and the few operations that need an
 * intrinsic. Owns lane counts, the bf16 dot product, exact fp8 decoding and 32-bit transposes; knows no op.
 *
 * mj_vdot is the product of this device: acc += a.lo * b.lo + a.hi * b.hi in each lane, a and b pairs of bf16. With
 * AVX512-BF16 it is one instruction; elsewhere two multiply-adds in f32. Bits are the same for one level, whatever the
 * tile, mode or thread count; between levels they may differ in the last place.
 * Nothing here is left to the compiler's contraction: every fused multiply-add is asked for by name.
 */
#ifndef MJ_VEC_CPU_H
#define MJ_VEC_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MJ_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512BW__) && defined(__AVX512VL__)
#define MJ_VEC_512 1
#define MJ_VL 16
#elif defined(__AVX2__) && defined(__FMA__)
#define MJ_VL 8
#else
#define MJ_VL 4
#endif

typedef float mj_vf __attribute__((vector_size(MJ_VL * 4)));
typedef int32_t mj_vi __attribute__((vector_size(MJ_VL * 4)));
typedef uint32_t mj_vu __attribute__((vector_size(MJ_VL * 4)));
typedef float mj_vf_mem __attribute__((vector_size(MJ_VL * 4), aligned(4), may_alias));
typedef uint32_t mj_vu_mem __attribute__((vector_size(MJ_VL * 4), aligned(4), may_alias));
typedef uint32_t mj_vu_pair_mem __attribute__((vector_size(MJ_VL * 4), aligned(2), may_alias));
typedef uint32_t mj_pair __attribute__((aligned(2), may_alias)); /* two bf16 that are neighbours in k */

MJ_INLINE mj_vf mj_vf_set1(float x) { return (mj_vf){0} + x; }
MJ_INLINE mj_vu mj_vu_set1(uint32_t x) { return (mj_vu){0} + x; }
MJ_INLINE mj_vf mj_vf_load(const float *p) { return (mj_vf) * (const mj_vf_mem *)p; }
MJ_INLINE void mj_vf_store(float *p, mj_vf x) { *(mj_vf_mem *)p = (mj_vf_mem)x; }
MJ_INLINE mj_vu mj_vu_load(const uint32_t *p) { return (mj_vu) * (const mj_vu_mem *)p; }
MJ_INLINE mj_vi mj_vi_load(const int32_t *p) { return (mj_vi) * (const mj_vu_mem *)(const void *)p; }
/* 2 * MJ_VL bf16 as they lie. */
MJ_INLINE mj_vu mj_vu_load_pairs(const uint16_t *p) { return (mj_vu) * (const mj_vu_pair_mem *)(const void *)p; }

MJ_INLINE mj_vf mj_vf_fma(mj_vf a, mj_vf b, mj_vf c)
{
#if defined(MJ_VEC_512)
    return (mj_vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif MJ_VL == 8
    return (mj_vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

MJ_INLINE mj_vf mj_vf_max(mj_vf a, mj_vf b)
{
#if defined(MJ_VEC_512)
    return (mj_vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif MJ_VL == 8
    return (mj_vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    const mj_vu take_a = (mj_vu)(a > b);
    return (mj_vf)(((mj_vu)a & take_a) | ((mj_vu)b & ~take_a));
#endif
}

/* One order for every compiler: halves, then halves of that. */
MJ_INLINE float mj_vf_sum(mj_vf x)
{
    float lanes[MJ_VL];
    mj_vf_store(lanes, x);
    for (int width = MJ_VL / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
}

MJ_INLINE float mj_vf_largest(mj_vf x)
{
#if defined(MJ_VEC_512)
    return _mm512_reduce_max_ps((__m512)x);
#else
    float most = x[0];
    for (int i = 1; i < MJ_VL; i++)
        most = x[i] > most ? x[i] : most;
    return most;
#endif
}

/* All ones in the lanes whose column, first + lane, lies in [low, high]. */
MJ_INLINE mj_vu mj_vu_within(int32_t first, int32_t low, int32_t high)
{
    mj_vi column;
    for (int i = 0; i < MJ_VL; i++)
        column[i] = i;
    column += first;
    return (mj_vu)((column >= low) & (column <= high));
}

/* a where the mask is set, zero elsewhere; a or b. */
MJ_INLINE mj_vf mj_vf_keep(mj_vu mask, mj_vf a) { return (mj_vf)((mj_vu)a & mask); }
MJ_INLINE mj_vf mj_vf_select(mj_vu mask, mj_vf a, mj_vf b) { return (mj_vf)(((mj_vu)a & mask) | ((mj_vu)b & ~mask)); }

/* e^x for x <= 88: relative error below 2^-22; below -87 it stays at e^-87. Of NaN: NaN. */
MJ_INLINE mj_vf mj_vf_exp(mj_vf x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = mj_vf_max(mj_vf_set1(-87.0f), x);
    const mj_vf z = mj_vf_fma(x, mj_vf_set1(1.44269502f), mj_vf_set1(round));
    const mj_vf n = z - round;
    mj_vf r = mj_vf_fma(n, mj_vf_set1(-0.693145752f), x);
    r = mj_vf_fma(n, mj_vf_set1(-1.42860677e-6f), r);
    mj_vf p = mj_vf_set1(0.00139261761f); /* as mj_expf of the prelude */
    p = mj_vf_fma(p, r, mj_vf_set1(0.00836317307f));
    p = mj_vf_fma(p, r, mj_vf_set1(0.0416665547f));
    p = mj_vf_fma(p, r, mj_vf_set1(0.16666577f));
    p = mj_vf_fma(p, r, mj_vf_set1(0.5f));
    p = mj_vf_fma(p * r, r, r) + 1.0f;
    return p * (mj_vf)(((mj_vu)z << 23) + (127u << 23)); /* the low bits of z are n */
}

MJ_INLINE mj_vf mj_vdot(mj_vf acc, mj_vu a, mj_vu b)
{
#if defined(__AVX512BF16__) && defined(MJ_VEC_512)
    return (mj_vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#else
    acc = mj_vf_fma((mj_vf)(a << 16), (mj_vf)(b << 16), acc);
    return mj_vf_fma((mj_vf)(a & 0xffff0000u), (mj_vf)(b & 0xffff0000u), acc);
#endif
}

/* f32 bits to bf16 bits in the low half of each lane: to nearest, ties to even; a NaN stays one. */
MJ_INLINE mj_vu mj_vf_round_bf16(mj_vf x)
{
    const mj_vu bits = (mj_vu)x;
    const mj_vu nan = (mj_vu)(x != x);
    const mj_vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (rounded & ~nan) | (((bits >> 16) | 0x40u) & nan);
}

/* Stores MJ_VL f32 as bf16, the first `live` of them (live >= 1). */
MJ_INLINE void mj_vf_store_bf16(uint16_t *p, mj_vf x, int32_t live)
{
#if defined(MJ_VEC_512)
    const __mmask16 mask = live >= MJ_VL ? (__mmask16)0xffff : (__mmask16)((1u << live) - 1u);
#if defined(__AVX512BF16__)
    _mm256_mask_storeu_epi16(p, mask, (__m256i)_mm512_cvtneps_pbh((__m512)x)); /* flushes subnormals */
#else
    _mm256_mask_storeu_epi16(p, mask, _mm512_cvtepi32_epi16((__m512i)mj_vf_round_bf16(x)));
#endif
#else
    const mj_vu r = mj_vf_round_bf16(x);
    for (int32_t i = 0; i < (live < MJ_VL ? live : MJ_VL); i++)
        p[i] = (uint16_t)r[i];
#endif
}

MJ_INLINE float mj_bf16_value(uint16_t bits)
{
    const uint32_t u = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* ---- fp8: every e4m3 and e5m2 value is a bf16 value; subnormals become normal, NaN stays NaN ------------------ */

#define MJ_TYPE_BF16 0 /* as MJ_T_BF16, MJ_T_E4M3, MJ_T_E5M2 */
#define MJ_TYPE_E4M3 1
#define MJ_TYPE_E5M2 2
#define MJ_TYPE_BYTES(type) ((type) == MJ_TYPE_BF16 ? 2 : 1)

/* bf16 bits of the fp8 magnitude m (0..127). */
#define MJ_E4M3_BITS(m)                                                                                      \
    ((m) == 127  ? 0x7fc0                                                                                    \
     : (m) >= 8  ? ((((m) >> 3) + 120) << 7) | (((m)&7) << 4)                                                \
     : (m) >= 4  ? 0x3c00 + ((m)-4) * 32                                                                   \
     : (m) >= 2  ? 0x3b80 + ((m)-2) * 64                                                                   \
     : (m) == 1  ? 0x3b00                                                                                    \
                 : 0)
#define MJ_E5M2_BITS(m)                                                                                      \
    ((m) > 124   ? 0x7fc0                                                                                    \
     : (m) == 124 ? 0x7f80                                                                                   \
     : (m) >= 4  ? ((((m) >> 2) + 112) << 7) | (((m)&3) << 5)                                                \
     : (m) >= 2  ? 0x3800 + ((m)-2) * 64                                                                   \
     : (m) == 1  ? 0x3780                                                                                    \
                 : 0)

#define MJ_ROW8(f, m) f(m), f((m) + 1), f((m) + 2), f((m) + 3), f((m) + 4), f((m) + 5), f((m) + 6), f((m) + 7)
#define MJ_ROW32(f, m) MJ_ROW8(f, m), MJ_ROW8(f, (m) + 8), MJ_ROW8(f, (m) + 16), MJ_ROW8(f, (m) + 24)
#define MJ_ROW128(f) {MJ_ROW32(f, 0), MJ_ROW32(f, 32), MJ_ROW32(f, 64), MJ_ROW32(f, 96)}

static const uint16_t mj_e4m3_bits[128] __attribute__((aligned(64), unused)) = MJ_ROW128(MJ_E4M3_BITS);
static const uint16_t mj_e5m2_bits[128] __attribute__((aligned(64), unused)) = MJ_ROW128(MJ_E5M2_BITS);

/* Element i of a row of `type`, as bf16 bits. */
MJ_INLINE uint16_t mj_element(int type, const void *row, size_t i)
{
    if (type == MJ_TYPE_BF16) return ((const uint16_t *)row)[i];
    const uint8_t byte = ((const uint8_t *)row)[i];
    const uint16_t *bits = type == MJ_TYPE_E4M3 ? mj_e4m3_bits : mj_e5m2_bits;
    return (uint16_t)(bits[byte & 0x7f] | (byte & 0x80) << 8);
}

#if defined(MJ_VEC_512)

#if defined(__AVX512VBMI__)
#define MJ_E4M3_LO(m) (MJ_E4M3_BITS(m) & 0xff)
#define MJ_E4M3_HI(m) (MJ_E4M3_BITS(m) >> 8)
#define MJ_E5M2_LO(m) (MJ_E5M2_BITS(m) & 0xff)
#define MJ_E5M2_HI(m) (MJ_E5M2_BITS(m) >> 8)
static const uint8_t mj_e4m3_lo[128] __attribute__((aligned(64), unused)) = MJ_ROW128(MJ_E4M3_LO);
static const uint8_t mj_e4m3_hi[128] __attribute__((aligned(64), unused)) = MJ_ROW128(MJ_E4M3_HI);
static const uint8_t mj_e5m2_lo[128] __attribute__((aligned(64), unused)) = MJ_ROW128(MJ_E5M2_LO);
static const uint8_t mj_e5m2_hi[128] __attribute__((aligned(64), unused)) = MJ_ROW128(MJ_E5M2_HI);

/* Two runs of 32 fp8 bytes to two vectors of 32 bf16: byte tables for the high and the low half. */
MJ_INLINE void mj_decode2(int type, __m256i x0, __m256i x1, __m512i out[2])
{
    const uint8_t *lo_table = type == MJ_TYPE_E4M3 ? mj_e4m3_lo : mj_e5m2_lo;
    const uint8_t *hi_table = type == MJ_TYPE_E4M3 ? mj_e4m3_hi : mj_e5m2_hi;
    const __m512i weave = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    const __m512i x = _mm512_permutex2var_epi64(_mm512_castsi256_si512(x0), weave, _mm512_castsi256_si512(x1));
    const __m512i lo = _mm512_permutex2var_epi8(_mm512_load_si512(lo_table), x, _mm512_load_si512(lo_table + 64));
    const __m512i hi = _mm512_permutex2var_epi8(_mm512_load_si512(hi_table), x, _mm512_load_si512(hi_table + 64));
    const __m512i signed_hi = _mm512_ternarylogic_epi32(hi, x, _mm512_set1_epi8((char)0x80), 0xf8); /* hi | x & 80 */
    out[0] = _mm512_unpacklo_epi8(lo, signed_hi);
    out[1] = _mm512_unpackhi_epi8(lo, signed_hi);
}
#else
MJ_INLINE __m512i mj_decode1(int type, __m256i bytes)
{
    const uint16_t *table = type == MJ_TYPE_E4M3 ? mj_e4m3_bits : mj_e5m2_bits;
    const __m512i x = _mm512_cvtepu8_epi16(bytes);
    const __m512i low = _mm512_permutex2var_epi16(_mm512_load_si512(table), x, _mm512_load_si512(table + 32));
    const __m512i high = _mm512_permutex2var_epi16(_mm512_load_si512(table + 64), x, _mm512_load_si512(table + 96));
    const __mmask32 upper = _mm512_test_epi16_mask(x, _mm512_set1_epi16(0x40));
    const __m512i sign = _mm512_and_si512(_mm512_slli_epi16(x, 8), _mm512_set1_epi16((short)0x8000));
    return _mm512_or_si512(_mm512_mask_blend_epi16(upper, low, high), sign);
}
MJ_INLINE void mj_decode2(int type, __m256i x0, __m256i x1, __m512i out[2])
{
    out[0] = mj_decode1(type, x0);
    out[1] = mj_decode1(type, x1);
}
#endif

/* 32 elements from each of two places as bf16; lanes outside the masks are zeros and are not read. */
MJ_INLINE void mj_load2(int type, const void *p0, const void *p1, __mmask32 mask0, __mmask32 mask1, __m512i out[2])
{
    if (type == MJ_TYPE_BF16) {
        out[0] = _mm512_maskz_loadu_epi16(mask0, p0);
        out[1] = _mm512_maskz_loadu_epi16(mask1, p1);
    } else {
        mj_decode2(type, _mm256_maskz_loadu_epi8(mask0, p0), _mm256_maskz_loadu_epi8(mask1, p1), out);
    }
}

MJ_INLINE __mmask32 mj_mask32(int64_t live)
{
    return live >= 32 ? (__mmask32)0xffffffffu : live <= 0 ? (__mmask32)0 : (__mmask32)((1u << live) - 1u);
}

/* In place: x[i] lane j <-> x[j] lane i. */
MJ_INLINE void mj_transpose16(__m512i x[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* x[4g + c]: 128-bit lane l holds column 4l + c of rows 4g..4g+3 */
    for (int c = 0; c < 4; c++) {
        const __m512i a = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x88);
        const __m512i b = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xdd);
        const __m512i d = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x88);
        const __m512i e = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(a, d, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(a, d, 0xdd);
        t[4 + c] = _mm512_shuffle_i32x4(b, e, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(b, e, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        x[i] = t[i];
}

#endif /* MJ_VEC_512 */

/* ---- packing ---------------------------------------------------------------------------------------------- */

/* Pairs of neighbouring rows to pairs: out[p * stride + c] = (src[2p][c], src[2p + 1][c]) for the `cols` columns,
 * zeros up to `width` (a multiple of 32) and for a row past `rows`. src has `ld` elements a row. */
MJ_INLINE void mj_pack_rows(int type, const uint8_t *src, int64_t ld, int32_t rows, int32_t cols, int32_t width,
                            uint32_t *out, int32_t stride)
{
    const int64_t bytes = MJ_TYPE_BYTES(type);
    for (int32_t r = 0; r < rows; r += 2) {
        const uint8_t *row0 = src + (int64_t)r * ld * bytes;
        const uint8_t *row1 = row0 + ld * bytes;
        uint32_t *to = out + (int64_t)(r / 2) * stride;
        const int two = r + 1 < rows;
#if defined(MJ_VEC_512)
        const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                             37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
        const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
        for (int32_t c = 0; c < width; c += 32) {
            const __mmask32 mask = mj_mask32(cols - c);
            __m512i x[2];
            mj_load2(type, row0 + c * bytes, two ? row1 + c * bytes : row0, mask, two ? mask : 0, x);
            _mm512_storeu_si512(to + c, _mm512_permutex2var_epi16(x[0], low, x[1]));
            _mm512_storeu_si512(to + c + 16, _mm512_permutex2var_epi16(x[0], high, x[1]));
        }
#else
        for (int32_t c = 0; c < width; c++) {
            const uint32_t x0 = c < cols ? mj_element(type, row0, (size_t)c) : 0;
            const uint32_t x1 = two && c < cols ? mj_element(type, row1, (size_t)c) : 0;
            to[c] = x0 | x1 << 16;
        }
#endif
    }
}

/* The transpose: out[p * stride + r] = (src[r][2p], src[r][2p + 1]) for `rows` rows, zeros up to `width` (a multiple
 * of 16); `cols` columns, an odd last one is paired with zero. */
MJ_INLINE void mj_pack_transposed(int type, const uint8_t *src, int64_t ld, int32_t rows, int32_t cols, int32_t width,
                                  uint32_t *out, int32_t stride)
{
    const int64_t bytes = MJ_TYPE_BYTES(type);
#if defined(MJ_VEC_512)
    for (int32_t r = 0; r < width; r += 16) {
        const int32_t live = rows - r < 0 ? 0 : rows - r < 16 ? rows - r : 16;
        for (int32_t c = 0; c < cols; c += 32) {
            const __mmask32 mask = mj_mask32(cols - c);
            const uint8_t *from = src + ((int64_t)r * ld + c) * bytes;
            __m512i x[16];
#pragma GCC unroll 8
            for (int i = 0; i < 16; i += 2) {
                const uint8_t *p = from + i * ld * bytes;
                mj_load2(type, p, p + ld * bytes, i < live ? mask : 0, i + 1 < live ? mask : 0, x + i);
            }
            mj_transpose16(x);
            const int32_t pairs = (cols - c + 1) / 2;
            uint32_t *to = out + (int64_t)(c / 2) * stride + r;
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (i < pairs) _mm512_storeu_si512(to + (int64_t)i * stride, x[i]);
        }
    }
#else
    for (int32_t c = 0; c < cols; c += 2)
        for (int32_t r = 0; r < width; r++) {
            const uint8_t *row = src + (int64_t)r * ld * bytes;
            const uint32_t x0 = r < rows ? mj_element(type, row, (size_t)c) : 0;
            const uint32_t x1 = r < rows && c + 1 < cols ? mj_element(type, row, (size_t)c + 1) : 0;
            out[(int64_t)(c / 2) * stride + r] = x0 | x1 << 16;
        }
#endif
}

/* fp8 rows to bf16 rows: out[r * stride + c], in elements; an odd last column is followed by a zero. */
MJ_INLINE void mj_decode_rows(int type, const uint8_t *src, int64_t ld, int32_t rows, int32_t cols, uint16_t *out,
                              int32_t stride)
{
    for (int32_t r = 0; r < rows; r++) {
        const uint8_t *row = src + (int64_t)r * ld;
        uint16_t *to = out + (int64_t)r * stride;
#if defined(MJ_VEC_512)
        int32_t c = 0;
        for (; c + 64 <= cols; c += 64) {
            __m512i x[2];
            mj_load2(type, row + c, row + c + 32, 0xffffffffu, 0xffffffffu, x);
            _mm512_storeu_si512(to + c, x[0]);
            _mm512_storeu_si512(to + c + 32, x[1]);
        }
        for (; c < cols; c += 32) {
            __m512i x[2];
            mj_load2(type, row + c, row, mj_mask32(cols - c), 0, x);
            _mm512_mask_storeu_epi16(to + c, mj_mask32((cols - c + 1) / 2 * 2), x[0]);
        }
#else
        for (int32_t c = 0; c < cols; c++)
            to[c] = mj_element(type, row, (size_t)c);
        if (cols & 1) to[cols] = 0;
#endif
    }
}

#endif
