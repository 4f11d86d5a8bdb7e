/* The prelude's CPU half: a block is one thread that holds all 128 lanes; the pool runs runs of blocks.
 * Owns the entry point's shape (MjCpuEntry of runtime/device.h), loads, stores and the reduction trees. */
#ifndef MJ_PRELUDE_CPU_H
#define MJ_PRELUDE_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel_args.h"

#define MJ_CPU 1
#define MJ_RESTRICT __restrict__
#define MJ_FN static inline __attribute__((always_inline, unused))
#define MJ_DEVICE_FN static __attribute__((noinline, unused))

#if defined(MJ_ENTRY_SUFFIX) /* the embedded generic builds: many variants of a template in one library */
#define MJ_ENTRY_PASTE2(name, suffix) name##suffix
#define MJ_ENTRY_PASTE(name, suffix) MJ_ENTRY_PASTE2(name, suffix)
#define MJ_ENTRY(name) MJ_ENTRY_PASTE(name, MJ_ENTRY_SUFFIX)
#else
#define MJ_ENTRY(name) name
#endif

/* The struct is copied to a local whose address does not escape, so that stores to outputs can't alias it. */
#define MJ_KERNEL(name, ArgsType)                                                                             \
    MJ_FN void name##_block(const ArgsType *args, uint32_t mj_block, uint32_t mj_grid, void *mj_shared);      \
    __attribute__((visibility("default"))) void MJ_ENTRY(name)(const void *mj_args, uint32_t first,           \
                                                               uint32_t last, uint32_t grid, void *shared);   \
    __attribute__((visibility("default"))) void MJ_ENTRY(name)(const void *mj_args, uint32_t first,           \
                                                               uint32_t last, uint32_t grid, void *shared)    \
    {                                                                                                         \
        const ArgsType local = *(const ArgsType *)mj_args;                                                    \
        for (uint32_t block = first; block < last; block++) name##_block(&local, block, grid, shared);        \
    }                                                                                                         \
    MJ_FN void name##_block(const ArgsType *args __attribute__((unused)),                                     \
                            uint32_t mj_block __attribute__((unused)),                                        \
                            uint32_t mj_grid __attribute__((unused)), void *mj_shared __attribute__((unused)))
#define MJ_KERNEL_BOUNDS(name, ArgsType, max_threads, min_blocks) MJ_KERNEL(name, ArgsType)

/* Rows of the whole launch: this block's run of them. */
#define MJ_FOR_ROWS(r, n)                                                                                     \
    for (int32_t r = (int32_t)((int64_t)(n) * mj_block / mj_grid),                                            \
                 r##_end = (int32_t)((int64_t)(n) * (mj_block + 1) / mj_grid);                                \
         r < r##_end; r++)
/* Work items that a whole block shares; inside them, rows for each warp, and plain elements for each thread. */
#define MJ_FOR_ITEMS(t, n) MJ_FOR_ROWS(t, n)
#define MJ_FOR_WARP_ROWS(r, n) for (int32_t r = 0; r < (int32_t)(n); r++)
#define MJ_FOR_WARP_LANES(i, n) for (int32_t i = 0; i < (int32_t)(n); i++) /* elements of a warp's row, any lane each */
#define MJ_FOR_THREADS(i, n) for (int32_t i = 0; i < (int32_t)(n); i++)
#define mj_barrier() ((void)0)
#define MJ_WARP_LEADER 1  /* this thread writes the warp's scalar results */
#define MJ_BLOCK_LEADER 1
#define MJ_WARP_INDEX 0
#define MJ_WARPS 1        /* warps of this block */
#define MJ_MAX_WARPS 1    /* for sizes of scratch */

#define mj_warp_sync() ((void)0)
/* Bit i of the mask is the truth of `expr` (which reads i) for i = 0 .. 31. */
#define MJ_WARP_MASK(i, expr)                                                                                 \
    ({                                                                                                        \
        uint32_t i##_mask = 0;                                                                                \
        for (int32_t i = 0; i < 32; i++) i##_mask |= (uint32_t)((expr) ? 1u : 0u) << i;                       \
        i##_mask;                                                                                             \
    })
#define mj_lowest_bit(mask) ((int32_t)__builtin_ctz(mask))
/* Asks for 128 columns that a coming row will read: rows of a tile lie too far apart for the hardware to guess. */
#define mj_prefetch(p, bytes)                                                                                 \
    do {                                                                                                      \
        for (int32_t mj_line = 0; mj_line < (bytes); mj_line += 64) __builtin_prefetch((const char *)(p) + mj_line); \
    } while (0)

#define MJ_UNROLL_BY(n) /* a GPU's loads; here the compiler knows better */
#define MJ_LANES 128 /* columns that one thread holds */
#define MJ_FOR_LANES(l) for (int32_t l = 0; l < MJ_LANES; l++)
#define mj_lane_column(l) (l) /* which column of the chunk lane l is */
typedef struct MjLanes {
    float v[MJ_LANES];
} __attribute__((aligned(64))) MjLanes;

MJ_FN uint32_t mj_f32_bits(float x)
{
    union {
        float f;
        uint32_t u;
    } b = {.f = x};
    return b.u;
}
MJ_FN float mj_bits_f32(uint32_t u)
{
    union {
        uint32_t u;
        float f;
    } b = {.u = u};
    return b.f;
}
MJ_FN uint64_t mj_f64_bits(double x)
{
    union {
        double f;
        uint64_t u;
    } b = {.f = x};
    return b.u;
}
MJ_FN double mj_bits_f64(uint64_t u)
{
    union {
        uint64_t u;
        double f;
    } b = {.u = u};
    return b.f;
}
#ifdef __FMA__
MJ_FN float mj_fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else
MJ_FN float mj_fmaf(float a, float b, float c) { return a * b + c; }
#endif
MJ_FN float mj_sqrtf(float x) { return __builtin_sqrtf(x); }
MJ_FN float mj_fabsf(float x) { return __builtin_fabsf(x); }

MJ_FN float mj_fp8_max(int32_t type);
MJ_FN float mj_over_fp8_max(float amax, int32_t type) { return amax / mj_fp8_max(type); }
MJ_FN float mj_inverse(float x) { return 1.0f / x; } /* for an x that is normal and has a normal inverse, or is NaN */
MJ_FN float mj_fp8_inverse(float scale) { return 1.0f / scale; } /* of what mj_fp8_scale gave */

MJ_FN float mj_bf16_to_f32(uint16_t h);
MJ_FN uint16_t mj_f32_to_bf16(float x);
MJ_FN uint32_t mj_f32_to_fp8(float x, int32_t type);

/* Loads and stores of one chunk of a row: p points at its first column, n columns are left in the row. */
MJ_FN void mj_load_f32(MjLanes *x, const float *p, int32_t n)
{
    if (n >= MJ_LANES) {
        MJ_FOR_LANES(l) x->v[l] = p[l];
    } else {
        MJ_FOR_LANES(l) x->v[l] = 0.0f;
        for (int32_t l = 0; l < n; l++) x->v[l] = p[l];
    }
}
MJ_FN void mj_load_bf16(MjLanes *x, const uint16_t *p, int32_t n)
{
    if (n >= MJ_LANES) {
        MJ_FOR_LANES(l) x->v[l] = mj_bf16_to_f32(p[l]);
    } else {
        MJ_FOR_LANES(l) x->v[l] = 0.0f;
        for (int32_t l = 0; l < n; l++) x->v[l] = mj_bf16_to_f32(p[l]);
    }
}
MJ_FN void mj_store_f32(float *p, const MjLanes *x, int32_t n)
{
    if (n >= MJ_LANES) {
        MJ_FOR_LANES(l) p[l] = x->v[l];
    } else {
        for (int32_t l = 0; l < n; l++) p[l] = x->v[l];
    }
}
MJ_FN void mj_store_bf16(uint16_t *p, const MjLanes *x, int32_t n)
{
    if (n >= MJ_LANES) {
        MJ_FOR_LANES(l) p[l] = mj_f32_to_bf16(x->v[l]);
    } else {
        for (int32_t l = 0; l < n; l++) p[l] = mj_f32_to_bf16(x->v[l]);
    }
}
MJ_FN void mj_copy_bf16(uint16_t *MJ_RESTRICT p, const uint16_t *MJ_RESTRICT from, int32_t n)
{
    if (n >= MJ_LANES) {
        MJ_FOR_LANES(l) p[l] = from[l];
    } else {
        for (int32_t l = 0; l < n; l++) p[l] = from[l];
    }
}
/* x times `by`, encoded */
MJ_FN void mj_store_fp8(uint8_t *MJ_RESTRICT p, const MjLanes *x, float by, int32_t n, int32_t type)
{
    if (n >= MJ_LANES) {
        MJ_FOR_LANES(l) p[l] = (uint8_t)mj_f32_to_fp8(x->v[l] * by, type);
    } else {
        for (int32_t l = 0; l < n; l++) p[l] = (uint8_t)mj_f32_to_fp8(x->v[l] * by, type);
    }
}
/* Values that are bf16 already: cut off, not rounded. A whole chunk. */
MJ_FN void mj_store_bf16_exact(uint16_t *MJ_RESTRICT p, const MjLanes *x)
{
    MJ_FOR_LANES(l) p[l] = (uint16_t)(mj_f32_bits(x->v[l]) >> 16);
}

/* The tree: halves of the 128, so column i meets i + 64, then i + 32, ... i + 4; the last four pairwise. On a GPU the
 * halves are other lanes and the last four are a lane's own columns. Written as plain halvings, which vectorise. */
#define MJ_HALVE(to, from, half, op)                                                                          \
    float to[half];                                                                                           \
    for (int32_t t = 0; t < half; t++) to[t] = op((from)[t], (from)[t + half])
#define MJ_SUM_OF(a, b) ((a) + (b))
/* The last 16: as vectors, because the compiler goes through scalars here. */
typedef float MjF16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef float MjF8 __attribute__((vector_size(32)));
typedef float MjF4 __attribute__((vector_size(16)));
#define MJ_LOW8(x) __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7)
#define MJ_HIGH8(x) __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15)
#define MJ_LOW4(x) __builtin_shufflevector(x, x, 0, 1, 2, 3)
#define MJ_HIGH4(x) __builtin_shufflevector(x, x, 4, 5, 6, 7)
MJ_FN float mj_lanes_sum(const MjLanes *a)
{
    MJ_HALVE(s64, a->v, 64, MJ_SUM_OF);
    MJ_HALVE(s32, s64, 32, MJ_SUM_OF);
    MJ_HALVE(s16, s32, 16, MJ_SUM_OF);
    const MjF16 x = *(const MjF16 *)s16;
    const MjF8 s8 = MJ_LOW8(x) + MJ_HIGH8(x);
    const MjF4 s4 = MJ_LOW4(s8) + MJ_HIGH4(s8);
    return (s4[0] + s4[1]) + (s4[2] + s4[3]);
}
/* Compared as integers that order like the floats, which compilers turn into a tree of vector maxima. No NaN. */
MJ_FN float mj_lanes_max(const MjLanes *a)
{
    int32_t most = INT32_MIN;
    MJ_FOR_LANES(l) {
        const int32_t bits = (int32_t)mj_f32_bits(a->v[l]);
        const int32_t ordered = bits ^ ((bits >> 31) & 0x7fffffff);
        most = ordered > most ? ordered : most;
    }
    return mj_bits_f32((uint32_t)(most ^ ((most >> 31) & 0x7fffffff)));
}

/* Exchanges column j with column j ^ half (half = 32 or 64), as half-split RoPE needs. */
MJ_FN MjLanes mj_lanes_swap(const MjLanes *x, int32_t half)
{
    MjLanes y;
    for (int32_t base = 0; base < MJ_LANES; base += 2 * half) {
        for (int32_t l = 0; l < half; l++) y.v[base + l] = x->v[base + half + l];
        for (int32_t l = 0; l < half; l++) y.v[base + half + l] = x->v[base + l];
    }
    return y;
}

#endif
