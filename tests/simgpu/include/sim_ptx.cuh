/* The simulated GPU's ptx.cuh, ptx_wgmma.cuh and ptx_product.cuh: the same names, implemented by calls into the simulated driver.
 * It defines the guards of those in kernels_src/, so that the real headers are skipped. What is added there is added here. */
#ifndef MJ_PTX_CUH
#define MJ_PTX_CUH
#define MJ_PTX_WGMMA_CUH
#define MJ_PTX_PRODUCT_CUH

typedef unsigned int mj_u32;
typedef unsigned long long mj_u64;
struct __align__(64) MjTensorMap {
    mj_u64 opaque[16];
};
#define MJ_PTX static inline

MJ_PTX mj_u32 mj_ptx_shared(const void *p) { return simgpu_shared_address(p); }
MJ_PTX mj_u32 mj_ptx_lane(void) { return simgpu_thread_idx().x % 32; }
MJ_PTX void mj_ptx_nanosleep(mj_u32) { simgpu_yield(); }
MJ_PTX void mj_ptx_trap(SIM_HERE_ARGS) { simgpu_trap("trap", SIM_HERE); }

MJ_PTX mj_u32 sim_bf16(float x) {
    const mj_u32 b = __float_as_uint(x);
    if ((b & 0x7fffffffu) > 0x7f800000u) return 0x7fffu; /* cvt gives the canonical NaN */
    return (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
}
MJ_PTX mj_u32 mj_ptx_cvt_bf16x2(float lo, float hi) { return sim_bf16(lo) | sim_bf16(hi) << 16; }
MJ_PTX mj_u32 sim_max_bf16(mj_u32 a, mj_u32 b) {
    const float x = __uint_as_float(a << 16), y = __uint_as_float(b << 16);
    if (x != x) return y != y ? 0x7fffu : b;
    if (y != y || x > y) return a;
    return x == y && b >> 15 != 0 ? a : b; /* +0 is larger than -0 */
}
MJ_PTX mj_u32 mj_ptx_max_bf16x2(mj_u32 a, mj_u32 b) {
    return sim_max_bf16(a & 0xffffu, b & 0xffffu) | sim_max_bf16(a >> 16, b >> 16) << 16;
}
MJ_PTX mj_u32 sim_max_nan_bf16(mj_u32 a, mj_u32 b) {
    return (a & 0x7fffu) > 0x7f80u || (b & 0x7fffu) > 0x7f80u ? 0x7fffu : sim_max_bf16(a, b);
}
MJ_PTX mj_u32 mj_ptx_max_nan_bf16x2(mj_u32 a, mj_u32 b) {
    return sim_max_nan_bf16(a & 0xffffu, b & 0xffffu) | sim_max_nan_bf16(a >> 16, b >> 16) << 16;
}
/* Exact results, rounded; the hardware's are within 2 ulp of them. ".ftz": subnormal inputs and results are zeros. */
MJ_PTX float sim_ftz(float x) { return (__float_as_uint(x) & 0x7f800000u) == 0 ? __uint_as_float(__float_as_uint(x) & 0x80000000u) : x; }
MJ_PTX float mj_ptx_ex2(float x) { return sim_ftz((float)__builtin_exp2((double)sim_ftz(x))); }
MJ_PTX float mj_ptx_lg2(float x) { return sim_ftz((float)__builtin_log2((double)sim_ftz(x))); }
MJ_PTX float mj_ptx_min_nan(float a, float b) { /* -0 is smaller than +0 */
    if (a != a || b != b) return __uint_as_float(0x7fffffffu);
    return b < a || (b == a && __float_as_uint(b) >> 31 != 0) ? b : a;
}
MJ_PTX float mj_ptx_rcp(float x) { return sim_ftz(1.0f / sim_ftz(x)); }

#if __CUDA_ARCH__ >= 890
/* round to nearest even on a grid of `mbits` mantissa bits with smallest exponent `emin`, saturating at `largest` */
MJ_PTX mj_u32 sim_fp8(float x, int mbits, int bias, float largest) {
    const mj_u32 sign = __float_as_uint(x) >> 31 << 7;
    if (x != x) return 0x7fu;
    float a = __builtin_fabsf(x);
    if (a > largest) a = largest;
    int e = 0;
    if (a > 0) (void)__builtin_frexpf(a, &e);
    e = a > 0 && e - 1 > 1 - bias ? e - 1 : 1 - bias;
    const float steps = __builtin_rintf(__builtin_ldexpf(a, mbits - e)); /* multiples of 2^(e - mbits) */
    float v = __builtin_ldexpf(steps, e - mbits);
    if (v > largest) v = largest;
    if (v == 0) return sign;
    int ve;
    (void)__builtin_frexpf(v, &ve);
    ve -= 1;
    if (ve < 1 - bias) return sign | (mj_u32)__builtin_ldexpf(v, mbits + bias - 1);
    const mj_u32 mant = (mj_u32)(__builtin_ldexpf(v, mbits - ve)) - (1u << mbits);
    return sign | (mj_u32)(ve + bias) << mbits | mant;
}
MJ_PTX mj_u32 mj_ptx_cvt_e4m3x2(float lo, float hi) { return sim_fp8(lo, 3, 7, 448.0f) | sim_fp8(hi, 3, 7, 448.0f) << 8; }
MJ_PTX mj_u32 mj_ptx_cvt_e5m2x2(float lo, float hi) {
    return sim_fp8(lo, 2, 15, 57344.0f) | sim_fp8(hi, 2, 15, 57344.0f) << 8;
}

MJ_PTX mj_u32 sim_e4m3_to_f16(mj_u32 c) { /* exponent bias 7 to 15, mantissa of 3 bits to 10; NaN is canonical */
    const mj_u32 sign = (c & 0x80u) << 8, e = c >> 3 & 15u, m = c & 7u;
    if ((c & 0x7fu) == 0x7fu) return sign | 0x7fffu;
    if (e != 0) return sign | (e + 8) << 10 | m << 7;
    if (m == 0) return sign;
    const mj_u32 top = m >= 4 ? 2 : m >= 2 ? 1 : 0; /* m 2^-9 is a normal f16 */
    return sign | (6 + top) << 10 | ((m << (10 - top)) & 0x3ffu);
}
MJ_PTX mj_u32 mj_ptx_cvt_f16x2_e4m3x2(mj_u32 v) { return sim_e4m3_to_f16(v & 0xffu) | sim_e4m3_to_f16(v >> 8 & 0xffu) << 16; }
MJ_PTX mj_u32 sim_e5m2_to_f16(mj_u32 c) { return (c & 0x7fu) > 0x7cu ? (c & 0x80u) << 8 | 0x7fffu : c << 8; }
MJ_PTX mj_u32 mj_ptx_cvt_f16x2_e5m2x2(mj_u32 v) { return sim_e5m2_to_f16(v & 0xffu) | sim_e5m2_to_f16(v >> 8 & 0xffu) << 16; }
#endif

MJ_PTX void mj_ptx_ld_nc_16(const void *p, mj_u32 (&v)[4]) {
    const uint4 q = *(const uint4 *)p;
    v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
}
MJ_PTX void mj_ptx_st_cs_16(void *p, const mj_u32 (&v)[4]) { *(uint4 *)p = make_uint4(v[0], v[1], v[2], v[3]); }

MJ_PTX void mj_ptx_bar_sync(mj_u32 id, mj_u32 threads, SIM_HERE_ARGS) { simgpu_bar(id, threads, 1, SIM_HERE); }
MJ_PTX void mj_ptx_bar_arrive(mj_u32 id, mj_u32 threads, SIM_HERE_ARGS) { simgpu_bar(id, threads, 0, SIM_HERE); }

MJ_PTX void mj_ptx_cp_async_16(mj_u32 dst, const void *src, mj_u32 bytes, SIM_HERE_ARGS) {
    simgpu_cp_async(dst, src, 16, bytes, SIM_HERE);
}
MJ_PTX void mj_ptx_cp_async_4(mj_u32 dst, const void *src, mj_u32 bytes, SIM_HERE_ARGS) {
    simgpu_cp_async(dst, src, 4, bytes, SIM_HERE);
}
MJ_PTX void mj_ptx_cp_async_commit(void) { simgpu_cp_async_commit(); }
template <int N> MJ_PTX void mj_ptx_cp_async_wait(void) { simgpu_cp_async_wait(N); }

MJ_PTX void mj_ptx_ldmatrix_x4(mj_u32 (&r)[4], mj_u32 addr, SIM_HERE_ARGS) { simgpu_ldmatrix(r, 4, 0, addr, SIM_HERE); }
MJ_PTX void mj_ptx_ldmatrix_x4_trans(mj_u32 (&r)[4], mj_u32 addr, SIM_HERE_ARGS) { simgpu_ldmatrix(r, 4, 1, addr, SIM_HERE); }
MJ_PTX void mj_ptx_ldmatrix_x2(mj_u32 (&r)[2], mj_u32 addr, SIM_HERE_ARGS) { simgpu_ldmatrix(r, 2, 0, addr, SIM_HERE); }
MJ_PTX void mj_ptx_ldmatrix_x2_trans(mj_u32 (&r)[2], mj_u32 addr, SIM_HERE_ARGS) { simgpu_ldmatrix(r, 2, 1, addr, SIM_HERE); }
#define SIM_MMA(NAME, A, B)                                                                                   \
    MJ_PTX void NAME(float (&d)[4], const mj_u32 (&a)[4], const mj_u32 (&b)[2], SIM_HERE_ARGS) {              \
        simgpu_mma(d, a, b, A, B, SIM_HERE);                                                                  \
    }
SIM_MMA(mj_ptx_mma_bf16, SIM_BF16, SIM_BF16)
SIM_MMA(mj_ptx_mma_f16, SIM_F16, SIM_F16)
#if __CUDA_ARCH__ >= 890
SIM_MMA(mj_ptx_mma_e4m3_e4m3, SIM_E4M3, SIM_E4M3)
SIM_MMA(mj_ptx_mma_e5m2_e4m3, SIM_E5M2, SIM_E4M3)
SIM_MMA(mj_ptx_mma_e4m3_e5m2, SIM_E4M3, SIM_E5M2)
SIM_MMA(mj_ptx_mma_e5m2_e5m2, SIM_E5M2, SIM_E5M2)
#endif

#if __CUDA_ARCH__ >= 900
MJ_PTX void mj_ptx_stmatrix_x4(mj_u32 addr, const mj_u32 (&r)[4], SIM_HERE_ARGS) { simgpu_stmatrix(r, 4, 0, addr, SIM_HERE); }
MJ_PTX void mj_ptx_stmatrix_x4_trans(mj_u32 addr, const mj_u32 (&r)[4], SIM_HERE_ARGS) { simgpu_stmatrix(r, 4, 1, addr, SIM_HERE); }
MJ_PTX void mj_ptx_stmatrix_x2(mj_u32 addr, const mj_u32 (&r)[2], SIM_HERE_ARGS) { simgpu_stmatrix(r, 2, 0, addr, SIM_HERE); }
MJ_PTX bool mj_ptx_elect(SIM_HERE_ARGS) { return simgpu_vote(SIM_VOTE_ELECT, 0xffffffffu, 1, SIM_HERE) != 0; }

MJ_PTX void mj_ptx_mbar_init(mj_u32 bar, mj_u32 count, SIM_HERE_ARGS) { simgpu_mbar_init(bar, count, SIM_HERE); }
MJ_PTX void mj_ptx_mbar_inval(mj_u32 bar, SIM_HERE_ARGS) { simgpu_mbar_inval(bar, SIM_HERE); }
MJ_PTX void mj_ptx_fence_mbar_init(void) { simgpu_fence(); }
MJ_PTX void mj_ptx_mbar_arrive(mj_u32 bar, SIM_HERE_ARGS) { simgpu_mbar_arrive(bar, -1, 0, 1, SIM_HERE); }
MJ_PTX void mj_ptx_mbar_arrive_expect(mj_u32 bar, mj_u32 bytes, SIM_HERE_ARGS) { simgpu_mbar_arrive(bar, -1, bytes, 1, SIM_HERE); }
MJ_PTX void mj_ptx_mbar_expect(mj_u32 bar, mj_u32 bytes, SIM_HERE_ARGS) { simgpu_mbar_arrive(bar, -1, bytes, 0, SIM_HERE); }
MJ_PTX void mj_ptx_mbar_arrive_cluster(mj_u32 bar, mj_u32 rank, SIM_HERE_ARGS) {
    simgpu_mbar_arrive(bar, (int)rank, 0, 1, SIM_HERE);
}
MJ_PTX void mj_ptx_mbar_arrive_peer(mj_u32 bar, mj_u32 rank, SIM_HERE_ARGS) {
    simgpu_mbar_arrive(bar, (int)rank, 0, 1, SIM_HERE);
}
MJ_PTX bool mj_ptx_mbar_try_wait(mj_u32 bar, mj_u32 parity, SIM_HERE_ARGS) {
    return simgpu_mbar_try_wait(bar, parity, SIM_HERE) != 0;
}
MJ_PTX void mj_ptx_mbar_wait(mj_u32 bar, mj_u32 parity, SIM_HERE_ARGS) { simgpu_mbar_wait(bar, parity, SIM_HERE); }
MJ_PTX void mj_ptx_mbar_wait_cluster(mj_u32 bar, mj_u32 parity, SIM_HERE_ARGS) { simgpu_mbar_wait(bar, parity, SIM_HERE); }
MJ_PTX void mj_ptx_fence_async(void) { simgpu_fence_async(); }
MJ_PTX mj_u32 mj_ptx_cluster_rank(void) { return simgpu_cluster_rank(); }
MJ_PTX mj_u32 mj_ptx_cluster_size(void) { return simgpu_cluster_size(); }
MJ_PTX void mj_ptx_cluster_arrive(SIM_HERE_ARGS) { simgpu_cluster_barrier(0, SIM_HERE); }
MJ_PTX void mj_ptx_cluster_wait(SIM_HERE_ARGS) { simgpu_cluster_barrier(1, SIM_HERE); }
MJ_PTX void mj_ptx_cluster_sync(SIM_HERE_ARGS) {
    simgpu_cluster_barrier(0, SIM_HERE);
    simgpu_cluster_barrier(1, SIM_HERE);
}
MJ_PTX void mj_ptx_grid_wait(void) { simgpu_grid_wait(); }
MJ_PTX void mj_ptx_grid_release(void) {}

MJ_PTX void mj_ptx_tma_prefetch(const MjTensorMap *) {}
MJ_PTX void mj_ptx_tma_prefetch_3d(const MjTensorMap *map, int, int, int, SIM_HERE_ARGS) { simgpu_tma_prefetch(map, 3, SIM_HERE); }
MJ_PTX void mj_ptx_tma_load_2d(mj_u32 dst, const MjTensorMap *map, mj_u32 bar, int x, int y, SIM_HERE_ARGS) {
    const int c[2] = {x, y};
    simgpu_tma_load(dst, map, bar, 0, 2, c, SIM_HERE);
}
MJ_PTX void mj_ptx_tma_load_3d(mj_u32 dst, const MjTensorMap *map, mj_u32 bar, int x, int y, int z, SIM_HERE_ARGS) {
    const int c[3] = {x, y, z};
    simgpu_tma_load(dst, map, bar, 0, 3, c, SIM_HERE);
}
MJ_PTX void mj_ptx_tma_load_4d(mj_u32 dst, const MjTensorMap *map, mj_u32 bar, int x, int y, int z, int w, SIM_HERE_ARGS) {
    const int c[4] = {x, y, z, w};
    simgpu_tma_load(dst, map, bar, 0, 4, c, SIM_HERE);
}
MJ_PTX void mj_ptx_tma_load_2d_multicast(mj_u32 dst, const MjTensorMap *map, mj_u32 bar, mj_u32 mask, int x, int y,
                                         SIM_HERE_ARGS) {
    const int c[2] = {x, y};
    simgpu_tma_load(dst, map, bar, mask, 2, c, SIM_HERE);
}
MJ_PTX void mj_ptx_tma_load_3d_multicast(mj_u32 dst, const MjTensorMap *map, mj_u32 bar, mj_u32 mask, int x, int y, int z,
                                         SIM_HERE_ARGS) {
    const int c[3] = {x, y, z};
    simgpu_tma_load(dst, map, bar, mask, 3, c, SIM_HERE);
}
MJ_PTX void mj_ptx_tma_store_2d(const MjTensorMap *map, mj_u32 src, int x, int y, SIM_HERE_ARGS) {
    const int c[2] = {x, y};
    simgpu_tma_store(map, src, 0, 2, c, SIM_HERE);
}
MJ_PTX void mj_ptx_tma_store_3d(const MjTensorMap *map, mj_u32 src, int x, int y, int z, SIM_HERE_ARGS) {
    const int c[3] = {x, y, z};
    simgpu_tma_store(map, src, 0, 3, c, SIM_HERE);
}
MJ_PTX void mj_ptx_tma_add_2d(const MjTensorMap *map, mj_u32 src, int x, int y, SIM_HERE_ARGS) {
    const int c[2] = {x, y};
    simgpu_tma_store(map, src, 1, 2, c, SIM_HERE);
}
MJ_PTX void mj_ptx_tma_add_3d(const MjTensorMap *map, mj_u32 src, int x, int y, int z, SIM_HERE_ARGS) {
    const int c[3] = {x, y, z};
    simgpu_tma_store(map, src, 1, 3, c, SIM_HERE);
}
MJ_PTX void mj_ptx_bulk_load(mj_u32 dst, const void *src, mj_u32 bytes, mj_u32 bar, SIM_HERE_ARGS) {
    simgpu_bulk_load(dst, src, bytes, bar, SIM_HERE);
}
MJ_PTX void mj_ptx_bulk_store(void *dst, mj_u32 src, mj_u32 bytes, SIM_HERE_ARGS) {
    simgpu_bulk_store(dst, src, bytes, SIM_HERE);
}
MJ_PTX void mj_ptx_tma_commit(void) { simgpu_bulk_commit(); }
template <int N> MJ_PTX void mj_ptx_tma_wait_read(void) { simgpu_bulk_wait(N); }
template <int N> MJ_PTX void mj_ptx_tma_wait(void) { simgpu_bulk_wait(N); }
#endif

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
template <int N> MJ_PTX void mj_ptx_setmaxnreg_inc(SIM_HERE_ARGS) { simgpu_setmaxnreg(N, 1, SIM_HERE); }
template <int N> MJ_PTX void mj_ptx_setmaxnreg_dec(SIM_HERE_ARGS) { simgpu_setmaxnreg(N, 0, SIM_HERE); }
MJ_PTX void mj_ptx_wgmma_fence(SIM_HERE_ARGS) { simgpu_wgmma_fence(SIM_HERE); }
MJ_PTX void mj_ptx_wgmma_commit(SIM_HERE_ARGS) { simgpu_wgmma_commit(SIM_HERE); }
template <int N> MJ_PTX void mj_ptx_wgmma_wait(SIM_HERE_ARGS) { simgpu_wgmma_wait(N, SIM_HERE); }
template <int R> MJ_PTX void mj_ptx_wgmma_pin(float (&d)[R]) { asm volatile("" : : "r"(d) : "memory"); }
MJ_PTX mj_u64 mj_ptx_wgmma_desc(mj_u32 addr, mj_u32 leading, mj_u32 stride, mj_u32 swizzle, SIM_HERE_ARGS) {
    return simgpu_wgmma_desc(addr, leading, stride, swizzle, SIM_HERE);
}
template <int N, int TA, int TB> MJ_PTX void mj_ptx_wgmma_bf16(float (&d)[N / 2], mj_u64 a, mj_u64 b, int acc, SIM_HERE_ARGS) {
    simgpu_wgmma(d, N, 0, a, b, SIM_BF16, SIM_BF16, TA, TB, acc, SIM_HERE);
}
template <int N, int TB>
MJ_PTX void mj_ptx_wgmma_bf16_reg(float (&d)[N / 2], const mj_u32 (&a)[4], mj_u64 b, int acc, SIM_HERE_ARGS) {
    simgpu_wgmma(d, N, a, 0, b, SIM_BF16, SIM_BF16, 0, TB, acc, SIM_HERE);
}
#define SIM_WGMMA(NAME, A, B)                                                                                 \
    template <int N> MJ_PTX void NAME(float (&d)[N / 2], mj_u64 a, mj_u64 b, int acc, SIM_HERE_ARGS) {        \
        simgpu_wgmma(d, N, 0, a, b, A, B, 0, 0, acc, SIM_HERE);                                               \
    }
SIM_WGMMA(mj_ptx_wgmma_e4m3_e4m3, SIM_E4M3, SIM_E4M3)
SIM_WGMMA(mj_ptx_wgmma_e5m2_e4m3, SIM_E5M2, SIM_E4M3)
SIM_WGMMA(mj_ptx_wgmma_e4m3_e5m2, SIM_E4M3, SIM_E5M2)
SIM_WGMMA(mj_ptx_wgmma_e5m2_e5m2, SIM_E5M2, SIM_E5M2)
template <int Cols, int Steps, int SA, int SB>
MJ_PTX void mj_ptx_product_rows(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, SIM_HERE_ARGS) {
    for (int k = 0; k < Steps; k++)
        simgpu_wgmma(d, Cols, 0, a + k / 4 * (SA / 16) + k % 4 * 2, b + k / 4 * (SB / 16) + k % 4 * 2, SIM_BF16, SIM_BF16, 0, 0, k > 0,
                     SIM_HERE);
}
template <int Cols, int Steps>
MJ_PTX void mj_ptx_product_columns(float (&d)[Cols / 2], const mj_u32 (&a)[Steps][4], mj_u64 b, int acc, SIM_HERE_ARGS) {
    for (int k = 0; k < Steps; k++) simgpu_wgmma(d, Cols, a[k], 0, b + k * 128, SIM_BF16, SIM_BF16, 0, 1, k > 0 ? 1 : acc, SIM_HERE);
}
#endif
#endif
