/* The prelude's CUDA half: a warp works on a row, thread t of it holds columns 4t .. 4t + 3 of each chunk of 128.
 * Owns the entry point's shape, loads, stores and the reduction trees; includes no CUDA header, so that NVRTC is fast. */
#ifndef MJ_PRELUDE_CUDA_H
#define MJ_PRELUDE_CUDA_H

#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#ifndef NULL
#define NULL 0
#endif
#else
#include <stdint.h>
#endif

#include "kernel_args.h"
#include "ptx.cuh"

#define MJ_CPU 0
#define MJ_RESTRICT __restrict__
#define MJ_FN static __device__ __forceinline__
#define MJ_DEVICE_FN static __device__ __noinline__
#define MJ_ENTRY(name) name

extern __shared__ __align__(128) unsigned char mj_dynamic_shared[];

/* Blocks that a multiprocessor should hold at once. ptxas spills for sm_100 where the same registers do for earlier ones. */
#if __CUDA_ARCH__ >= 1000
#define MJ_RESIDENT(blocks) ((blocks) > 1 ? (blocks) - 1 : 1)
#else
#define MJ_RESIDENT(blocks) (blocks)
#endif

/* A launch may start while the one before it ends (MjLaunch.overlap). So every thread of every kernel waits, early leavers too,
 * before it touches global memory: what comes after this kernel is right only because this kernel waited for what came before.
 * mj_grid_begin is for right before that, mj_grid_loaded for when the last of a matrix kernel's operands are asked for.
 * MJ_RELEASE is when the next launch may start, as soon as all blocks are that far: it then waits in the places that ending
 * blocks leave. Results do not depend on it. Below sm_90 there is none of this. */
#define MJ_RELEASE_AT_END 0 /* of each block, by itself */
#define MJ_RELEASE_AT_START 1
#define MJ_RELEASE_LOADED 2 /* row kernels: at the end */
#define MJ_RELEASE MJ_RELEASE_AT_END /* the others can lose time: docs/performance.md */
#if __CUDA_ARCH__ >= 900
MJ_FN void mj_grid_begin(void)
{
    if (MJ_RELEASE == MJ_RELEASE_AT_START) mj_ptx_grid_release();
    mj_ptx_grid_wait();
}
MJ_FN void mj_grid_loaded(void)
{
    if (MJ_RELEASE == MJ_RELEASE_LOADED) mj_ptx_grid_release();
}
#else
#define mj_grid_begin() ((void)0)
#define mj_grid_loaded() ((void)0)
#endif

#define MJ_KERNEL_BOUNDS(name, ArgsType, max_threads, min_blocks)                                             \
    static __device__ __forceinline__ void name##_block(const ArgsType *args, uint32_t mj_block,              \
                                                        uint32_t mj_grid, void *mj_shared);                   \
    extern "C" __global__ void __launch_bounds__(max_threads, MJ_RESIDENT(min_blocks))                        \
        name(const __grid_constant__ ArgsType mj_args)                                                        \
    {                                                                                                         \
        mj_grid_begin();                                                                                      \
        name##_block(&mj_args, blockIdx.x, gridDim.x, mj_dynamic_shared);                                     \
    }                                                                                                         \
    static __device__ __forceinline__ void name##_block(const ArgsType *args, uint32_t mj_block,              \
                                                        uint32_t mj_grid, void *mj_shared)
#define MJ_KERNEL(name, ArgsType) MJ_KERNEL_BOUNDS(name, ArgsType, 256, 1)

#define MJ_WARP_INDEX ((int32_t)(threadIdx.x / 32))
#define MJ_WARPS ((int32_t)(blockDim.x / 32))
#define MJ_MAX_WARPS 8
#define MJ_LANE ((int32_t)(threadIdx.x % 32))
#define MJ_FOR_ROWS(r, n)                                                                                     \
    for (int32_t r = (int32_t)mj_block * MJ_WARPS + MJ_WARP_INDEX; r < (int32_t)(n); r += (int32_t)mj_grid * MJ_WARPS)
#define MJ_FOR_ITEMS(t, n) for (int32_t t = (int32_t)mj_block; t < (int32_t)(n); t += (int32_t)mj_grid)
#define MJ_FOR_WARP_ROWS(r, n) for (int32_t r = MJ_WARP_INDEX; r < (int32_t)(n); r += MJ_WARPS)
#define MJ_FOR_THREADS(i, n) for (int32_t i = (int32_t)threadIdx.x; i < (int32_t)(n); i += (int32_t)blockDim.x)
#define MJ_FOR_WARP_LANES(i, n) for (int32_t i = MJ_LANE; i < (int32_t)(n); i += 32)
#define mj_barrier() __syncthreads()
#define MJ_WARP_LEADER (threadIdx.x % 32 == 0)
#define MJ_BLOCK_LEADER (threadIdx.x == 0)

#define mj_warp_sync() __syncwarp()
#define MJ_WARP_MASK(i, expr) mj_warp_mask([&](int32_t i) -> bool { return (expr); })
template <typename F> static __device__ __forceinline__ uint32_t mj_warp_mask(F truth)
{
    return __ballot_sync(0xffffffffu, truth((int32_t)(threadIdx.x % 32)));
}
#define mj_lowest_bit(mask) (__ffs((int)(mask)) - 1)
#define mj_prefetch(p, bytes) ((void)0)
#define MJ_PRAGMA(text) _Pragma(#text)
#define MJ_UNROLL_BY(n) MJ_PRAGMA(unroll n) /* before a loop whose loads may go out together */

#define MJ_LANES 4
#define MJ_FOR_LANES(l) _Pragma("unroll") for (int32_t l = 0; l < MJ_LANES; l++)
#define mj_lane_column(l) (4 * MJ_LANE + (l))
typedef struct MjLanes {
    float v[MJ_LANES];
} MjLanes;

MJ_FN uint32_t mj_f32_bits(float x) { return __float_as_uint(x); }
MJ_FN float mj_bits_f32(uint32_t u) { return __uint_as_float(u); }
MJ_FN uint64_t mj_f64_bits(double x) { return (uint64_t)__double_as_longlong(x); }
MJ_FN double mj_bits_f64(uint64_t u) { return __longlong_as_double((long long)u); }
MJ_FN float mj_fmaf(float a, float b, float c) { return __fmaf_rn(a, b, c); }
MJ_FN float mj_sqrtf(float x) { return __fsqrt_rn(x); }
MJ_FN float mj_fabsf(float x) { return fabsf(x); }

/* The quotients that a division would give, in the range of scales, without the call that its rare cases cost (and the
 * registers that it saves): a product with the rounded inverse and one correction, exact for both divisors; then what
 * the compiler itself makes of 1 / x where x is normal. */
MJ_FN float mj_over_fp8_max(float amax, int32_t type)
{
    const float most = type == MJ_T_E5M2 ? 57344.0f : 448.0f, inverse = type == MJ_T_E5M2 ? 1.0f / 57344.0f : 1.0f / 448.0f;
    const float near = amax * inverse;
    const float quotient = mj_fmaf(mj_fmaf(-near, most, amax), inverse, near);
    return amax <= 3.4028235e38f ? quotient : amax;
}
MJ_FN float mj_inverse(float x) /* for an x that is normal and has a normal inverse, or is NaN */
{
    const float near = mj_ptx_rcp(x);
    return mj_fmaf(mj_fmaf(-x, near, 1.0f), near, near);
}
/* of what mj_fp8_scale gave */
MJ_FN float mj_fp8_inverse(float scale) { return scale <= 3.4028235e38f ? mj_inverse(scale) : 0.0f; }

MJ_FN float mj_bf16_to_f32(uint16_t h);
MJ_FN uint16_t mj_f32_to_bf16(float x);
MJ_FN uint32_t mj_f32_to_fp8(float x, int32_t type);

/* Two values as packed bf16 or fp8, the first in the low bits. The hardware's conversions give what mj_f32_to_bf16 and
 * mj_f32_to_fp8 do, subnormals, saturation, zeros' signs and NaN included. */
MJ_FN uint32_t mj_bf16_pair(float lo, float hi) { return mj_ptx_cvt_bf16x2(lo, hi); }
MJ_FN uint32_t mj_fp8_pair(float lo, float hi, int32_t type)
{
#if __CUDA_ARCH__ >= 890
    return type == MJ_T_E5M2 ? mj_ptx_cvt_e5m2x2(lo, hi) : mj_ptx_cvt_e4m3x2(lo, hi);
#else
    return mj_f32_to_fp8(lo, type) | mj_f32_to_fp8(hi, type) << 8;
#endif
}
MJ_FN uint2 mj_pack_bf16(const MjLanes *x)
{
    return make_uint2(mj_bf16_pair(x->v[0], x->v[1]), mj_bf16_pair(x->v[2], x->v[3]));
}
/* Values that are bf16 already: cut off, not rounded. */
MJ_FN uint2 mj_pack_bf16_exact(const MjLanes *x)
{
    return make_uint2(mj_f32_bits(x->v[0]) >> 16 | (mj_f32_bits(x->v[1]) & 0xffff0000u),
                      mj_f32_bits(x->v[2]) >> 16 | (mj_f32_bits(x->v[3]) & 0xffff0000u));
}

/* p points at the chunk's first column, n columns are left in the row; 16-byte accesses where the row allows them. */
#define MJ_IN_VECTORS(n, p, bytes) ((n) == MJ_WHOLE || ((n) >= 128 && ((uintptr_t)(p) & ((bytes)-1)) == 0))
MJ_FN void mj_load_f32(MjLanes *x, const float *p, int32_t n)
{
    if (MJ_IN_VECTORS(n, p, 16)) {
        const float4 q = *(const float4 *)(p + 4 * MJ_LANE);
        x->v[0] = q.x, x->v[1] = q.y, x->v[2] = q.z, x->v[3] = q.w;
    } else {
        MJ_FOR_LANES(l) x->v[l] = 4 * MJ_LANE + l < n ? p[4 * MJ_LANE + l] : 0.0f;
    }
}
MJ_FN void mj_load_bf16(MjLanes *x, const uint16_t *p, int32_t n)
{
    if (MJ_IN_VECTORS(n, p, 8)) {
        const uint2 q = *(const uint2 *)(p + 4 * MJ_LANE);
        x->v[0] = mj_bits_f32(q.x << 16), x->v[1] = mj_bits_f32(q.x & 0xffff0000u);
        x->v[2] = mj_bits_f32(q.y << 16), x->v[3] = mj_bits_f32(q.y & 0xffff0000u);
    } else {
        MJ_FOR_LANES(l) x->v[l] = 4 * MJ_LANE + l < n ? mj_bf16_to_f32(p[4 * MJ_LANE + l]) : 0.0f;
    }
}
MJ_FN void mj_store_f32(float *p, const MjLanes *x, int32_t n)
{
    if (MJ_IN_VECTORS(n, p, 16)) {
        *(float4 *)(p + 4 * MJ_LANE) = make_float4(x->v[0], x->v[1], x->v[2], x->v[3]);
    } else {
        MJ_FOR_LANES(l) if (4 * MJ_LANE + l < n) p[4 * MJ_LANE + l] = x->v[l];
    }
}
MJ_FN void mj_store_bf16(uint16_t *p, const MjLanes *x, int32_t n)
{
    if (MJ_IN_VECTORS(n, p, 8)) {
        *(uint2 *)(p + 4 * MJ_LANE) = mj_pack_bf16(x);
    } else {
        MJ_FOR_LANES(l) if (4 * MJ_LANE + l < n) p[4 * MJ_LANE + l] = mj_f32_to_bf16(x->v[l]);
    }
}
MJ_FN void mj_copy_bf16(uint16_t *MJ_RESTRICT p, const uint16_t *MJ_RESTRICT from, int32_t n)
{
    if (MJ_IN_VECTORS(n, (uintptr_t)p | (uintptr_t)from, 8)) {
        *(uint2 *)(p + 4 * MJ_LANE) = *(const uint2 *)(from + 4 * MJ_LANE);
    } else {
        MJ_FOR_LANES(l) if (4 * MJ_LANE + l < n) p[4 * MJ_LANE + l] = from[4 * MJ_LANE + l];
    }
}
/* x times `by`, encoded */
MJ_FN void mj_store_fp8(uint8_t *p, const MjLanes *x, float by, int32_t n, int32_t type)
{
    if (MJ_IN_VECTORS(n, p, 4)) {
        *(uint32_t *)(p + 4 * MJ_LANE) = mj_fp8_pair(x->v[0] * by, x->v[1] * by, type) |
                                         mj_fp8_pair(x->v[2] * by, x->v[3] * by, type) << 16;
    } else {
        MJ_FOR_LANES(l) if (4 * MJ_LANE + l < n) p[4 * MJ_LANE + l] = (uint8_t)mj_f32_to_fp8(x->v[l] * by, type);
    }
}
/* The same trees as on a CPU: over the lanes first, each of the four columns on its own, then the four pairwise.
 * Addition commutes, so both partners of a butterfly get the same bits. In the first two steps a lane hands over the
 * columns that it stops working on, so that 8 shuffles do instead of 20. */
MJ_FN float mj_lanes_sum(const MjLanes *a)
{
    const bool upper = (threadIdx.x & 16) != 0, high = (threadIdx.x & 8) != 0;
    const float keep0 = (upper ? a->v[2] : a->v[0]) + __shfl_xor_sync(0xffffffffu, upper ? a->v[0] : a->v[2], 16);
    const float keep1 = (upper ? a->v[3] : a->v[1]) + __shfl_xor_sync(0xffffffffu, upper ? a->v[1] : a->v[3], 16);
    float s = (high ? keep1 : keep0) + __shfl_xor_sync(0xffffffffu, high ? keep0 : keep1, 8);
    for (int32_t mask = 4; mask > 0; mask /= 2) s += __shfl_xor_sync(0xffffffffu, s, mask);
    s += __shfl_xor_sync(0xffffffffu, s, 8);
    return s + __shfl_xor_sync(0xffffffffu, s, 16);
}
MJ_FN float mj_lanes_max(const MjLanes *a)
{
    float s = a->v[0] > a->v[1] ? a->v[0] : a->v[1];
    s = s > a->v[2] ? s : a->v[2];
    s = s > a->v[3] ? s : a->v[3];
    for (int32_t mask = 16; mask > 0; mask /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, s, mask);
        s = s > other ? s : other;
    }
    return s;
}

/* Exchanges column j with column j ^ half (half = 32 or 64). */
MJ_FN MjLanes mj_lanes_swap(const MjLanes *x, int32_t half)
{
    MjLanes y;
    MJ_FOR_LANES(l) y.v[l] = __shfl_xor_sync(0xffffffffu, x->v[l], half / 4);
    return y;
}

#endif
