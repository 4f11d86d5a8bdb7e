/* CUDA C++ as the host's g++ sees it: built-in variables, qualifiers, intrinsics. Force-included before a template by the
 * simulated NVRTC. __global__, __launch_bounds__ and __shared__ stay words here; sim_nvrtc.c rewrites them after
 * preprocessing. Intrinsics follow "CUDA C++ Programming Guide: C++ Language Extensions" and "CUDA Math API". */
#ifndef SIMGPU_CUDA_H
#define SIMGPU_CUDA_H

#include "sim_abi.h"

#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __constant__ static
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

#define SIM_HERE_ARGS const char *sim_file = __builtin_FILE(), int sim_line = __builtin_LINE()
#define SIM_HERE (SimSite{sim_file, sim_line})

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
template <class T, int N> struct sim_vec;
#define SIM_VEC(T, NAME)                                                                                      \
    struct NAME##2 { T x, y; } __attribute__((aligned(2 * sizeof(T))));                                       \
    struct NAME##3 { T x, y, z; };                                                                            \
    struct NAME##4 { T x, y, z, w; } __attribute__((aligned(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T))));       \
    static inline NAME##2 make_##NAME##2(T x, T y) { return NAME##2{x, y}; }                                  \
    static inline NAME##3 make_##NAME##3(T x, T y, T z) { return NAME##3{x, y, z}; }                          \
    static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return NAME##4{x, y, z, w}; }
SIM_VEC(float, float)
SIM_VEC(double, double)
SIM_VEC(int, int)
SIM_VEC(short, short)
SIM_VEC(signed char, char)
SIM_VEC(unsigned char, uchar)
SIM_VEC(unsigned short, ushort)
SIM_VEC(long long, longlong)
SIM_VEC(unsigned long long, ulonglong)
struct uint2 { unsigned x, y; } __attribute__((aligned(8)));
struct uint4 { unsigned x, y, z, w; } __attribute__((aligned(16)));
static inline uint2 make_uint2(unsigned x, unsigned y) { return uint2{x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return uint4{x, y, z, w}; }

#define threadIdx (simgpu_thread_idx())
#define blockIdx (simgpu_block_idx())
#define blockDim (simgpu_block_dim())
#define gridDim (simgpu_grid_dim())
static const int warpSize = 32;

/* synchronisation */
static inline void __syncthreads(SIM_HERE_ARGS) { simgpu_syncthreads(SIM_HERE); }
static inline int __syncthreads_count(int p, SIM_HERE_ARGS) { return simgpu_syncthreads_count(p, 0, SIM_HERE); }
static inline int __syncthreads_and(int p, SIM_HERE_ARGS) { return simgpu_syncthreads_count(p, 1, SIM_HERE); }
static inline int __syncthreads_or(int p, SIM_HERE_ARGS) { return simgpu_syncthreads_count(p, 2, SIM_HERE); }
static inline void __syncwarp(unsigned mask = 0xffffffffu, SIM_HERE_ARGS) { simgpu_vote(SIM_VOTE_SYNC, mask, 0, SIM_HERE); }
static inline void __threadfence(void) { simgpu_fence(); }
static inline void __threadfence_block(void) { simgpu_fence(); }
static inline void __threadfence_system(void) { simgpu_fence(); }
static inline void __trap(SIM_HERE_ARGS) { simgpu_trap("trap", SIM_HERE); }
static inline void __nanosleep(unsigned) { simgpu_yield(); }

/* warp shuffles, votes, reductions */
template <class T> static inline uint64_t sim_bits(T v) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t u = 0;
    __builtin_memcpy(&u, &v, sizeof v);
    return u;
}
template <class T> static inline T sim_unbits(uint64_t u) {
    T v;
    __builtin_memcpy(&v, &u, sizeof v);
    return v;
}
#define SIM_SHUFFLE(NAME, KIND, ARG)                                                                          \
    template <class T> static inline T NAME(unsigned mask, T v, ARG n, int width = 32, SIM_HERE_ARGS) {       \
        return sim_unbits<T>(simgpu_shuffle(KIND, mask, sim_bits(v), (int)n, width, SIM_HERE));               \
    }
SIM_SHUFFLE(__shfl_sync, SIM_SHFL_IDX, int)
SIM_SHUFFLE(__shfl_up_sync, SIM_SHFL_UP, unsigned)
SIM_SHUFFLE(__shfl_down_sync, SIM_SHFL_DOWN, unsigned)
SIM_SHUFFLE(__shfl_xor_sync, SIM_SHFL_XOR, int)
static inline unsigned __ballot_sync(unsigned m, int p, SIM_HERE_ARGS) { return simgpu_vote(SIM_VOTE_BALLOT, m, p, SIM_HERE); }
static inline int __any_sync(unsigned m, int p, SIM_HERE_ARGS) { return (int)simgpu_vote(SIM_VOTE_ANY, m, p, SIM_HERE); }
static inline int __all_sync(unsigned m, int p, SIM_HERE_ARGS) { return (int)simgpu_vote(SIM_VOTE_ALL, m, p, SIM_HERE); }
static inline unsigned __match_any_sync(unsigned m, int v, SIM_HERE_ARGS) { return simgpu_vote(SIM_VOTE_MATCH, m, v, SIM_HERE); }
#define SIM_REDUCE(NAME, KU, KS)                                                                              \
    static inline unsigned NAME(unsigned m, unsigned v, SIM_HERE_ARGS) { return simgpu_reduce(KU, m, v, SIM_HERE); } \
    static inline int NAME(unsigned m, int v, SIM_HERE_ARGS) { return (int)simgpu_reduce(KS, m, (unsigned)v, SIM_HERE); }
SIM_REDUCE(__reduce_add_sync, SIM_REDUCE_ADD, SIM_REDUCE_ADD)
SIM_REDUCE(__reduce_min_sync, SIM_REDUCE_MIN, SIM_REDUCE_SMIN)
SIM_REDUCE(__reduce_max_sync, SIM_REDUCE_MAX, SIM_REDUCE_SMAX)
SIM_REDUCE(__reduce_and_sync, SIM_REDUCE_AND, SIM_REDUCE_AND)
SIM_REDUCE(__reduce_or_sync, SIM_REDUCE_OR, SIM_REDUCE_OR)

/* atomics: threads switch only at barriers and collectives, so a plain read-modify-write is atomic */
#define SIM_ATOMIC(NAME, EXPR)                                                                                \
    template <class T, class U> static inline T NAME(T *p, U v_) {                                            \
        simgpu_atomic(1);                                                                                     \
        const T old = *p, v = (T)v_;                                                                          \
        simgpu_atomic(1); /* or gcc takes the check of the store for the load's */                            \
        *p = (T)(EXPR);                                                                                       \
        simgpu_atomic(0);                                                                                     \
        return old;                                                                                           \
    }
SIM_ATOMIC(atomicAdd, old + v)
SIM_ATOMIC(atomicSub, old - v)
SIM_ATOMIC(atomicMax, old > v ? old : v)
SIM_ATOMIC(atomicMin, old < v ? old : v)
SIM_ATOMIC(atomicAnd, old & v)
SIM_ATOMIC(atomicOr, old | v)
SIM_ATOMIC(atomicXor, old ^ v)
SIM_ATOMIC(atomicExch, v)
template <class T> static inline T atomicCAS(T *p, T compare, T v) {
    simgpu_atomic(1);
    const T old = *p;
    simgpu_atomic(1);
    if (old == compare) *p = v;
    simgpu_atomic(0);
    return old;
}

/* bits and numbers */
static inline unsigned __float_as_uint(float f) { return sim_unbits<unsigned>(sim_bits(f)); }
static inline int __float_as_int(float f) { return sim_unbits<int>(sim_bits(f)); }
static inline float __uint_as_float(unsigned u) { return sim_unbits<float>(u); }
static inline float __int_as_float(int i) { return sim_unbits<float>(sim_bits(i)); }
static inline long long __double_as_longlong(double d) { return sim_unbits<long long>(sim_bits(d)); }
static inline double __longlong_as_double(long long i) { return sim_unbits<double>(sim_bits(i)); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
static inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= ((x >> i) & 1u) << (31 - i);
    return r;
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned s) {
    return (unsigned)(((((uint64_t)hi << 32) | lo) << (s & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned s) {
    return (unsigned)((((uint64_t)hi << 32) | lo) >> (s & 31));
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    const uint64_t v = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (unsigned)((v >> (((s >> (4 * i)) & 7) * 8)) & 0xff) << (8 * i);
    return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
static inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }
static inline float __frsqrt_rn(float a) { return (float)(1.0 / __builtin_sqrt((double)a)); }
static inline float rsqrtf(float a) { return (float)(1.0 / __builtin_sqrt((double)a)); }
static inline float __expf(float a) { return __builtin_expf(a); }
static inline float __logf(float a) { return __builtin_logf(a); }
static inline int __float2int_rn(float a) { return (int)__builtin_nearbyintf(a); }
static inline int __float2int_rz(float a) { return (int)a; }
static inline float __int2float_rn(int a) { return (float)a; }
static inline float __saturatef(float a) { return a < 0.0f ? 0.0f : a > 1.0f ? 1.0f : a; }
#define SIM_LIBM1(F) static inline float F(float a) { return __builtin_##F(a); }
SIM_LIBM1(fabsf) SIM_LIBM1(sqrtf) SIM_LIBM1(expf) SIM_LIBM1(exp2f) SIM_LIBM1(logf) SIM_LIBM1(log2f) SIM_LIBM1(tanhf)
SIM_LIBM1(floorf) SIM_LIBM1(ceilf) SIM_LIBM1(rintf) SIM_LIBM1(sinf) SIM_LIBM1(cosf) SIM_LIBM1(truncf)
static inline float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
static inline float fminf(float a, float b) { return __builtin_fminf(a, b); }
static inline float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float copysignf(float a, float b) { return __builtin_copysignf(a, b); }
static inline double fabs(double a) { return __builtin_fabs(a); }
static inline double sqrt(double a) { return __builtin_sqrt(a); }
template <class T> static inline T max(T a, T b) { return a > b ? a : b; }
template <class T> static inline T min(T a, T b) { return a < b ? a : b; }
template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }
template <class T> static inline void __stcs(T *p, T v) { *p = v; }
template <class T> static inline void __stcg(T *p, T v) { *p = v; }
static inline size_t __cvta_generic_to_shared(const void *p) { return simgpu_shared_address(p); }
static inline long long clock64(void) { return 0; }

template <class T> static inline T *sim_hide(T *p) { /* see take_static in sim_nvrtc.c */
    asm("" : "+r"(p));
    return p;
}

/* memory checks: gcc's kernel-address instrumentation calls these before every access of the template's code */
#define SIM_NOCHECK __attribute__((no_sanitize("kernel-address"), used))
#define SIM_CHECK(NAME, BYTES, WRITE)                                                                         \
    extern "C" SIM_NOCHECK void NAME(void *p) {                                                               \
        if ((size_t)((char *)p - simgpu_stack_lo) >= simgpu_stack_bytes)                                      \
            simgpu_access(p, BYTES, WRITE, __builtin_return_address(0));                                      \
    }
SIM_CHECK(__asan_load1_noabort, 1, 0)
SIM_CHECK(__asan_load2_noabort, 2, 0)
SIM_CHECK(__asan_load4_noabort, 4, 0)
SIM_CHECK(__asan_load8_noabort, 8, 0)
SIM_CHECK(__asan_load16_noabort, 16, 0)
SIM_CHECK(__asan_store1_noabort, 1, 1)
SIM_CHECK(__asan_store2_noabort, 2, 1)
SIM_CHECK(__asan_store4_noabort, 4, 1)
SIM_CHECK(__asan_store8_noabort, 8, 1)
SIM_CHECK(__asan_store16_noabort, 16, 1)
extern "C" SIM_NOCHECK void __asan_loadN_noabort(void *p, long n) {
    if ((size_t)((char *)p - simgpu_stack_lo) >= simgpu_stack_bytes)
        simgpu_access(p, (size_t)n, 0, __builtin_return_address(0));
}
extern "C" SIM_NOCHECK void __asan_storeN_noabort(void *p, long n) {
    if ((size_t)((char *)p - simgpu_stack_lo) >= simgpu_stack_bytes)
        simgpu_access(p, (size_t)n, 1, __builtin_return_address(0));
}
extern "C" SIM_NOCHECK void __asan_handle_no_return(void) {}

/* entry points: unpack the driver's array of parameter pointers into a by-value call */
template <int... I> struct sim_seq {};
template <int N, int... I> struct sim_make_seq : sim_make_seq<N - 1, N - 1, I...> {};
template <int... I> struct sim_make_seq<0, I...> { typedef sim_seq<I...> type; };
template <class T> struct sim_plain { typedef T type; };
template <class T> struct sim_plain<const T> { typedef T type; };
template <class... A, int... I>
SIM_NOCHECK static inline void sim_unpack(void (*f)(A...), void **p, sim_seq<I...>) {
    f(*(typename sim_plain<A>::type *)p[I]...);
}
template <class... A> SIM_NOCHECK static inline void sim_call(void (*f)(A...), void **p) {
    sim_unpack(f, p, typename sim_make_seq<sizeof...(A)>::type());
}
template <class... A>
constexpr SimKernelInfo sim_describe(void (*)(A...), void (*entry)(void **), int max_threads, char *start, char *stop) {
    return SimKernelInfo{entry, max_threads, (int)sizeof...(A), {sizeof(A)...}, start, stop};
}
__attribute__((section("simgpu_shared"), used)) static char sim_shared_anchor[SIM_STATIC_ANCHOR];
extern "C" __attribute__((visibility("hidden"))) char __start_simgpu_shared[], __stop_simgpu_shared[];

#include "sim_ptx.cuh"

#endif
