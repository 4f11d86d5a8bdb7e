/* Named wrappers around every PTX instruction that mojit's kernels use. Owns, with ptx_wgmma.cuh and ptx_product.cuh, all
 * inline assembly of the project; no template holds an `asm`. Knows nothing of tiles, layouts of operands or argument structs.
 *
 * tests/simgpu/include/sim_ptx.cuh implements the same names for the simulated GPU, so what is added here is added there.
 * Sections are cited by their title in the "Parallel Thread Execution ISA" manual (numbers move between versions).
 * Shared-memory addresses are 32-bit (`.shared` window); `bar` is the shared address of an 8-byte mbarrier.
 * Template parameters have long names here: M, N and K may be macros, the dimensions of the kernel that includes this.
 * Everything "collective" must be reached by all 32 threads of a warp together; wgmma by all 128 of a warpgroup.
 */
#ifndef MJ_PTX_CUH
#define MJ_PTX_CUH

#define MJ_PTX static __device__ __forceinline__
typedef unsigned int mj_u32;
typedef unsigned long long mj_u64;

/* A TMA descriptor: made on the host by cuTensorMapEncodeTiled, passed inside a __grid_constant__ argument. */
struct __align__(64) MjTensorMap {
    mj_u64 opaque[16];
};

/* ---- addresses, lanes, clocks ---------------------------------------------------------------------------- */

/* "cvta": generic address to the shared window. */
MJ_PTX mj_u32 mj_ptx_shared(const void *p) { return (mj_u32)__cvta_generic_to_shared(p); }

/* "Special Registers: %laneid" */
MJ_PTX mj_u32 mj_ptx_lane(void) {
    mj_u32 r;
    asm("mov.u32 %0, %%laneid;" : "=r"(r));
    return r;
}

/* "nanosleep": a hint while polling. */
MJ_PTX void mj_ptx_nanosleep(mj_u32 ns) { asm volatile("nanosleep.u32 %0;" ::"r"(ns)); }

/* "trap": stops the grid; the host sees a launch failure. */
MJ_PTX void mj_ptx_trap(void) { asm volatile("trap;"); }

/* ---- conversions ------------------------------------------------------------------------------------------ */

/* "cvt": two f32 to packed bf16, round to nearest even; `lo` in bits 0-15. sm_80. */
MJ_PTX mj_u32 mj_ptx_cvt_bf16x2(float lo, float hi) {
    mj_u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

/* "max": of two pairs of bf16; where one is NaN, the other. sm_80. */
MJ_PTX mj_u32 mj_ptx_max_bf16x2(mj_u32 a, mj_u32 b) {
    mj_u32 r;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
/* NaN where one is NaN; of two zeros +0. sm_80. */
MJ_PTX mj_u32 mj_ptx_max_nan_bf16x2(mj_u32 a, mj_u32 b) {
    mj_u32 r;
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

/* "ex2.approx.ftz.f32", "lg2.approx.ftz.f32": 2^x and log2(x). */
MJ_PTX float mj_ptx_ex2(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
MJ_PTX float mj_ptx_lg2(float x) {
    float r;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* "min": of two f32; NaN where one is NaN. sm_80. */
MJ_PTX float mj_ptx_min_nan(float a, float b) {
    float r;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

/* "rcp.approx.ftz.f32": 1 / x within 1 ulp. */
MJ_PTX float mj_ptx_rcp(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

#if __CUDA_ARCH__ >= 890
/* "cvt": two f32 to packed fp8, round to nearest even, saturating to the largest finite value; NaN stays NaN; `lo` in
 * bits 0-7. sm_89. */
MJ_PTX mj_u32 mj_ptx_cvt_e4m3x2(float lo, float hi) {
    unsigned short r;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(hi), "f"(lo));
    return r;
}
MJ_PTX mj_u32 mj_ptx_cvt_e5m2x2(float lo, float hi) {
    unsigned short r;
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(r) : "f"(hi), "f"(lo));
    return r;
}
/* "cvt": the fp8 values in bits 0-15 to packed f16, exact. sm_89. */
MJ_PTX mj_u32 mj_ptx_cvt_f16x2_e4m3x2(mj_u32 v) {
    mj_u32 r;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(r) : "h"((unsigned short)v));
    return r;
}
MJ_PTX mj_u32 mj_ptx_cvt_f16x2_e5m2x2(mj_u32 v) {
    mj_u32 r;
    asm("cvt.rn.f16x2.e5m2x2 %0, %1;" : "=r"(r) : "h"((unsigned short)v));
    return r;
}
#endif

/* ---- global memory ---------------------------------------------------------------------------------------- */

/* "ld.global.nc": 16 bytes through the read-only path, not kept in L1. The memory must not change during the kernel. */
MJ_PTX void mj_ptx_ld_nc_16(const void *p, mj_u32 (&v)[4]) {
    asm volatile("ld.global.nc.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "l"(p));
}

/* "st.global.cs": 16 bytes that will not be read again soon. */
MJ_PTX void mj_ptx_st_cs_16(void *p, const mj_u32 (&v)[4]) {
    asm volatile("st.global.cs.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                 : "memory");
}

/* ---- barriers of a block ----------------------------------------------------------------------------------- */

/* "barrier.sync" / "barrier.arrive": named barrier `id` (1..15; 0 is __syncthreads) of `threads`, a multiple of 32. */
MJ_PTX void mj_ptx_bar_sync(mj_u32 id, mj_u32 threads) {
    asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
MJ_PTX void mj_ptx_bar_arrive(mj_u32 id, mj_u32 threads) {
    asm volatile("barrier.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- cp.async (sm_80) --------------------------------------------------------------------------------------- */

/* "cp.async": 16 bytes global to shared past L1; the last 16 - `bytes` are zero-filled. Both addresses 16-byte aligned. */
MJ_PTX void mj_ptx_cp_async_16(mj_u32 dst, const void *src, mj_u32 bytes) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(bytes) : "memory");
}
/* 4 bytes, through L1 (the only size that 4-byte aligned rows allow). */
MJ_PTX void mj_ptx_cp_async_4(mj_u32 dst, const void *src, mj_u32 bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(src), "r"(bytes) : "memory");
}
/* "cp.async.commit_group", "cp.async.wait_group": at most Groups groups of this thread still in flight. */
MJ_PTX void mj_ptx_cp_async_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Groups> MJ_PTX void mj_ptx_cp_async_wait(void) {
    asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}

/* ---- matrix fragments: ldmatrix, stmatrix, mma.sync ---------------------------------------------------------- */

/* "Warp-level matrix load instruction: ldmatrix": x4 8x8 matrices of b16; lane l gives the address of row l % 8 of matrix
 * l / 8, 16-byte aligned. Collective. */
MJ_PTX void mj_ptx_ldmatrix_x4(mj_u32 (&r)[4], mj_u32 addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(addr) : "memory");
}
MJ_PTX void mj_ptx_ldmatrix_x4_trans(mj_u32 (&r)[4], mj_u32 addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(addr) : "memory");
}
MJ_PTX void mj_ptx_ldmatrix_x2(mj_u32 (&r)[2], mj_u32 addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(addr) : "memory");
}
MJ_PTX void mj_ptx_ldmatrix_x2_trans(mj_u32 (&r)[2], mj_u32 addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(addr) : "memory");
}

/* "mma: Matrix Fragments for mma.m16n8k16 with floating point type": d(16,8) += a(16,16) b(16,8), bf16 in, f32 out.
 * a: rows lane/4 and +8, columns 2*(lane%4) and +8. Collective. */
MJ_PTX void mj_ptx_mma_bf16(float (&d)[4], const mj_u32 (&a)[4], const mj_u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The same of f16. */
MJ_PTX void mj_ptx_mma_f16(float (&d)[4], const mj_u32 (&a)[4], const mj_u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#if __CUDA_ARCH__ >= 890
/* "mma: Matrix Fragments for mma.m16n8k32": fp8 in, f32 out; four values a register. sm_89. Collective. */
#define MJ_PTX_MMA_FP8(NAME, A, B)                                                                                    \
    MJ_PTX void NAME(float (&d)[4], const mj_u32 (&a)[4], const mj_u32 (&b)[2]) {                                     \
        asm volatile("mma.sync.aligned.m16n8k32.row.col.f32." A "." B ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "     \
                     "{%8, %9}, {%0, %1, %2, %3};"                                                                    \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                 \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                             \
    }
MJ_PTX_MMA_FP8(mj_ptx_mma_e4m3_e4m3, "e4m3", "e4m3")
MJ_PTX_MMA_FP8(mj_ptx_mma_e5m2_e4m3, "e5m2", "e4m3")
MJ_PTX_MMA_FP8(mj_ptx_mma_e4m3_e5m2, "e4m3", "e5m2")
MJ_PTX_MMA_FP8(mj_ptx_mma_e5m2_e5m2, "e5m2", "e5m2")
#undef MJ_PTX_MMA_FP8
#endif

#if __CUDA_ARCH__ >= 900

/* "Warp-level matrix store instruction: stmatrix": the inverse of ldmatrix. Collective. */
MJ_PTX void mj_ptx_stmatrix_x4(mj_u32 addr, const mj_u32 (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(addr), "r"(r[0]), "r"(r[1]),
                 "r"(r[2]), "r"(r[3])
                 : "memory");
}
MJ_PTX void mj_ptx_stmatrix_x4_trans(mj_u32 addr, const mj_u32 (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(addr), "r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}
MJ_PTX void mj_ptx_stmatrix_x2(mj_u32 addr, const mj_u32 (&r)[2]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(addr), "r"(r[0]), "r"(r[1])
                 : "memory");
}

/* "elect.sync": true in exactly one thread of the warp. Collective. */
MJ_PTX bool mj_ptx_elect(void) {
    mj_u32 r;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(r));
    return r != 0;
}

/* ---- mbarrier ------------------------------------------------------------------------------------------------ */

/* "mbarrier.init", "mbarrier.inval": `count` arrivals complete a phase; the first phase has parity 0. */
MJ_PTX void mj_ptx_mbar_init(mj_u32 bar, mj_u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
MJ_PTX void mj_ptx_mbar_inval(mj_u32 bar) { asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(bar) : "memory"); }
/* "fence.mbarrier_init": makes inits visible to the other blocks of a cluster and to asynchronous copies. */
MJ_PTX void mj_ptx_fence_mbar_init(void) { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
/* "mbarrier.arrive" */
MJ_PTX void mj_ptx_mbar_arrive(mj_u32 bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* "mbarrier.expect_tx" together with an arrival: `bytes` more must land before the phase completes. */
MJ_PTX void mj_ptx_mbar_arrive_expect(mj_u32 bar, mj_u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
MJ_PTX void mj_ptx_mbar_expect(mj_u32 bar, mj_u32 bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
/* Arrives at the barrier with the same offset in block `rank` of the cluster ("mapa", "mbarrier.arrive"). */
MJ_PTX void mj_ptx_mbar_arrive_cluster(mj_u32 bar, mj_u32 rank) {
    asm volatile("{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
                 "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n}" ::"r"(bar), "r"(rank)
                 : "memory");
}
/* The same without ordering ordinary memory accesses beyond the block (which costs a fence of the whole GPU): for pipelines
 * whose data moves by TMA and wgmma alone. Pairs with mj_ptx_mbar_wait. */
MJ_PTX void mj_ptx_mbar_arrive_peer(mj_u32 bar, mj_u32 rank) {
    asm volatile("{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(bar), "r"(rank)
                 : "memory");
}
/* "mbarrier.try_wait.parity": true once the phase of parity `parity` has completed; may wait a while. */
MJ_PTX bool mj_ptx_mbar_try_wait(mj_u32 bar, mj_u32 parity) {
    mj_u32 r;
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(r) : "r"(bar), "r"(parity) : "memory");
    return r != 0;
}
MJ_PTX void mj_ptx_mbar_wait(mj_u32 bar, mj_u32 parity) {
    while (!mj_ptx_mbar_try_wait(bar, parity)) {
    }
}
/* The same with cluster scope, where blocks of the cluster arrive. */
MJ_PTX void mj_ptx_mbar_wait_cluster(mj_u32 bar, mj_u32 parity) {
    mj_u32 done = 0;
    while (!done)
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done) : "r"(bar), "r"(parity) : "memory");
}

/* ---- proxies, clusters, dependent launch ------------------------------------------------------------------------ */

/* "fence.proxy.async": this thread's ordinary writes to shared memory become visible to TMA and wgmma. */
MJ_PTX void mj_ptx_fence_async(void) { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* "Special Registers: %cluster_ctarank, %cluster_nctarank" */
MJ_PTX mj_u32 mj_ptx_cluster_rank(void) {
    mj_u32 r;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
MJ_PTX mj_u32 mj_ptx_cluster_size(void) {
    mj_u32 r;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(r));
    return r;
}
/* "barrier.cluster": all threads of all blocks of the cluster. */
MJ_PTX void mj_ptx_cluster_arrive(void) { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
MJ_PTX void mj_ptx_cluster_wait(void) { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
MJ_PTX void mj_ptx_cluster_sync(void) {
    mj_ptx_cluster_arrive();
    mj_ptx_cluster_wait();
}

/* "griddepcontrol": wait for the previous kernel's writes; let the next kernel start. No-ops without the attribute. */
MJ_PTX void mj_ptx_grid_wait(void) { asm volatile("griddepcontrol.wait;" ::: "memory"); }
MJ_PTX void mj_ptx_grid_release(void) { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

/* ---- TMA ---------------------------------------------------------------------------------------------------------- */

/* "prefetch.tensormap" */
MJ_PTX void mj_ptx_tma_prefetch(const MjTensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
/* "cp.async.bulk.tensor": a box of the tensor map into shared memory (128-byte aligned); its bytes are counted on `bar`.
 * Coordinates in elements, innermost first; outside the tensor reads zero and still counts. One thread issues. */
MJ_PTX void mj_ptx_tma_load_2d(mj_u32 dst, const MjTensorMap *map, mj_u32 bar, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
                 "[%2];" ::"r"(dst), "l"(map), "r"(bar), "r"(x), "r"(y)
                 : "memory");
}
MJ_PTX void mj_ptx_tma_load_3d(mj_u32 dst, const MjTensorMap *map, mj_u32 bar, int x, int y, int z) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
                 "%5}], [%2];" ::"r"(dst), "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
MJ_PTX void mj_ptx_tma_load_4d(mj_u32 dst, const MjTensorMap *map, mj_u32 bar, int x, int y, int z, int w) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
                 "%5, %6}], [%2];" ::"r"(dst), "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z), "r"(w)
                 : "memory");
}
/* The same box into every block of the cluster whose bit is set in `mask`, at the same offset and barrier. */
MJ_PTX void mj_ptx_tma_load_2d_multicast(mj_u32 dst, const MjTensorMap *map, mj_u32 bar, mj_u32 mask, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%4, %5}], [%2], %3;" ::"r"(dst), "l"(map), "r"(bar), "h"((unsigned short)mask), "r"(x), "r"(y)
                 : "memory");
}
MJ_PTX void mj_ptx_tma_load_3d_multicast(mj_u32 dst, const MjTensorMap *map, mj_u32 bar, mj_u32 mask, int x, int y,
                                         int z) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(dst), "l"(map), "r"(bar), "h"((unsigned short)mask), "r"(x),
                 "r"(y), "r"(z)
                 : "memory");
}
/* Shared memory to a box of the tensor; what lies outside the tensor is not written. */
MJ_PTX void mj_ptx_tma_store_2d(const MjTensorMap *map, mj_u32 src, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map), "r"(src),
                 "r"(x), "r"(y)
                 : "memory");
}
MJ_PTX void mj_ptx_tma_store_3d(const MjTensorMap *map, mj_u32 src, int x, int y, int z) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
                 "r"(src), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
/* "cp.reduce.async.bulk.tensor": adds (f32) instead of storing. Use only where no two blocks add to one element: the
 * order of float additions must stay fixed. */
MJ_PTX void mj_ptx_tma_add_2d(const MjTensorMap *map, mj_u32 src, int x, int y) {
    asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
                 "r"(src), "r"(x), "r"(y)
                 : "memory");
}
MJ_PTX void mj_ptx_tma_add_3d(const MjTensorMap *map, mj_u32 src, int x, int y, int z) {
    asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(
                     map),
                 "r"(src), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
/* "cp.async.bulk": plain bytes, no tensor map; size and both addresses multiples of 16. */
MJ_PTX void mj_ptx_bulk_load(mj_u32 dst, const void *src, mj_u32 bytes, mj_u32 bar) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(dst),
                 "l"(src), "r"(bytes), "r"(bar)
                 : "memory");
}
MJ_PTX void mj_ptx_bulk_store(void *dst, mj_u32 src, mj_u32 bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(dst), "r"(src), "r"(bytes) : "memory");
}
/* "cp.async.bulk.prefetch.tensor": the box into the L2 cache. */
MJ_PTX void mj_ptx_tma_prefetch_3d(const MjTensorMap *map, int x, int y, int z) {
    asm volatile("cp.async.bulk.prefetch.tensor.3d.L2.global.tile [%0, {%1, %2, %3}];" ::"l"(map), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
/* "cp.async.bulk.commit_group", "cp.async.bulk.wait_group": stores of this thread. `_read` waits only until the shared
 * memory may be overwritten; the other until the global writes are visible. */
MJ_PTX void mj_ptx_tma_commit(void) { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int Groups> MJ_PTX void mj_ptx_tma_wait_read(void) {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Groups) : "memory");
}
template <int Groups> MJ_PTX void mj_ptx_tma_wait(void) {
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(Groups) : "memory");
}

#endif /* sm_90 */

#endif
