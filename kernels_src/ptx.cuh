/* Named wrappers around every PTX instruction that mojit's kernels use. Owns all inline assembly of the project; no
 * template holds an `asm`. Knows nothing of tiles, layouts of operands or argument structs.
 *
 * tests/simgpu/include/ptx.cuh implements the same names for the simulated GPU, so what is added here is added there.
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

/* "Warp-level matrix instructions: ldmatrix": x4 8x8 matrices of b16; lane l gives the address of row l % 8 of matrix
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

/* "stmatrix": the inverse of ldmatrix. Collective. */
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

/* ---- wgmma, setmaxnreg (sm_90a) ----------------------------------------------------------------------------------- */

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* "setmaxnreg": collective over a warpgroup; Regs a multiple of 8 in 24..256. */
template <int Regs> MJ_PTX void mj_ptx_setmaxnreg_inc(void) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Regs));
}
template <int Regs> MJ_PTX void mj_ptx_setmaxnreg_dec(void) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Regs));
}

/* "wgmma.fence": before the first wgmma, and whenever a register operand was written by other code since. */
MJ_PTX void mj_ptx_wgmma_fence(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/* "wgmma.commit_group", "wgmma.wait_group": accumulators may be read once their group is no longer in flight. */
MJ_PTX void mj_ptx_wgmma_commit(void) { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Groups> MJ_PTX void mj_ptx_wgmma_wait(void) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Groups) : "memory");
}
/* Keeps the compiler from moving uses of an accumulator across a wgmma that is in flight. */
template <int R> MJ_PTX void mj_ptx_wgmma_pin(float (&d)[R]) {
#pragma unroll
    for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* "Asynchronous warpgroup: Matrix Descriptor Format". Offsets in bytes; `swizzle`: 1 = 128 B, 2 = 64 B, 3 = 32 B, 0 none. */
MJ_PTX mj_u64 mj_ptx_wgmma_desc(mj_u32 addr, mj_u32 leading, mj_u32 stride, mj_u32 swizzle) {
    return (mj_u64)((addr & 0x3ffff) >> 4) | (mj_u64)((leading & 0x3ffff) >> 4) << 16 |
           (mj_u64)((stride & 0x3ffff) >> 4) << 32 | (mj_u64)swizzle << 62;
}

/* "wgmma.mma_async": d(64, N) (+)= A(64, K) B(K, N); N/2 accumulators a thread. `accumulate` 0 ignores d's old value.
 * TRANS 0 = K-major, 1 = MN-major (bf16 only). The register-A form takes the fragment of "Register Fragments: m64k16". */
template <int Cols> struct MjWgmma;

#define MJ_PTX_L0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define MJ_PTX_L1 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define MJ_PTX_L2 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define MJ_PTX_L3 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define MJ_PTX_L4 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define MJ_PTX_L5 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define MJ_PTX_L6 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define MJ_PTX_L7 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define MJ_PTX_L8 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define MJ_PTX_L9 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define MJ_PTX_L10 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define MJ_PTX_L11 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define MJ_PTX_L12 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define MJ_PTX_L13 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define MJ_PTX_L14 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define MJ_PTX_L15 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define MJ_PTX_D8(d, i)                                                                                               \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])

/* R0..R7: operand numbers after the accumulators, as strings; MJ_PTX_DS: the accumulators. */
#define MJ_PTX_WGMMA(N, LIST, R0, R1, R2, R3, R4, R5, R6, R7)                                                     \
    template <> struct MjWgmma<N> {                                                                                   \
        template <int TA, int TB> MJ_PTX void bf16(float (&d)[N / 2], mj_u64 a, mj_u64 b, int acc) {                  \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" R2 ", 0;\n"                                            \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST "}, %" R0 ", %" R1         \
                         ", p, 1, 1, %" R3 ", %" R4 ";\n}"                                                            \
                         : MJ_PTX_DS : "l"(a), "l"(b), "r"(acc), "n"(TA), "n"(TB));                                          \
        }                                                                                                             \
        template <int TB> MJ_PTX void bf16_reg(float (&d)[N / 2], const mj_u32 (&a)[4], mj_u64 b, int acc) {          \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" R5 ", 0;\n"                                            \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST "}, {%" R0 ", %" R1        \
                         ", %" R2 ", %" R3 "}, %" R4 ", p, 1, 1, %" R6 ";\n}"                                         \
                         : MJ_PTX_DS : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(acc), "n"(TB));               \
        }                                                                                                             \
        MJ_PTX_WGMMA_FP8(N, e4m3_e4m3, "e4m3.e4m3", LIST, R0, R1, R2)                                             \
        MJ_PTX_WGMMA_FP8(N, e5m2_e4m3, "e5m2.e4m3", LIST, R0, R1, R2)                                             \
        MJ_PTX_WGMMA_FP8(N, e4m3_e5m2, "e4m3.e5m2", LIST, R0, R1, R2)                                             \
        MJ_PTX_WGMMA_FP8(N, e5m2_e5m2, "e5m2.e5m2", LIST, R0, R1, R2)                                             \
    };
#define MJ_PTX_WGMMA_FP8(N, NAME, TYPES, LIST, R0, R1, R2)                                                        \
    MJ_PTX void NAME(float (&d)[N / 2], mj_u64 a, mj_u64 b, int acc) {                                                \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" R2 ", 0;\n"                                                \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32." TYPES " {" LIST "}, %" R0 ", %" R1             \
                     ", p, 1, 1;\n}"                                                                                  \
                     : MJ_PTX_DS : "l"(a), "l"(b), "r"(acc));                                                                \
    }

#define MJ_PTX_DS MJ_PTX_D8(d, 0)
MJ_PTX_WGMMA(16, MJ_PTX_L0, "8", "9", "10", "11", "12", "13", "14", "15")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8)
MJ_PTX_WGMMA(32, MJ_PTX_L0 MJ_PTX_L1, "16", "17", "18", "19", "20", "21", "22", "23")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16)
MJ_PTX_WGMMA(48, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2, "24", "25", "26", "27", "28", "29", "30", "31")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24)
MJ_PTX_WGMMA(64, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3, "32", "33", "34", "35", "36", "37", "38", "39")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32)
MJ_PTX_WGMMA(80, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4, "40", "41", "42", "43", "44", "45", "46", "47")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40)
MJ_PTX_WGMMA(96, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5, "48", "49", "50", "51", "52", "53", "54", "55")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48)
MJ_PTX_WGMMA(112, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6, "56", "57", "58", "59", "60", "61", "62", "63")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56)
MJ_PTX_WGMMA(128, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7, "64", "65", "66", "67", "68", "69", "70", "71")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64)
MJ_PTX_WGMMA(144, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8, "72", "73", "74", "75", "76", "77", "78", "79")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72)
MJ_PTX_WGMMA(160, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9, "80", "81", "82", "83", "84", "85", "86", "87")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80)
MJ_PTX_WGMMA(176, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10, "88", "89", "90", "91", "92", "93", "94", "95")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88)
MJ_PTX_WGMMA(192, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11, "96", "97", "98", "99", "100", "101", "102", "103")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96)
MJ_PTX_WGMMA(208, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12, "104", "105", "106", "107", "108", "109", "110", "111")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96), MJ_PTX_D8(d, 104)
MJ_PTX_WGMMA(224, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12 MJ_PTX_L13, "112", "113", "114", "115", "116", "117", "118", "119")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96), MJ_PTX_D8(d, 104), MJ_PTX_D8(d, 112)
MJ_PTX_WGMMA(240, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12 MJ_PTX_L13 MJ_PTX_L14, "120", "121", "122", "123", "124", "125", "126", "127")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96), MJ_PTX_D8(d, 104), MJ_PTX_D8(d, 112), MJ_PTX_D8(d, 120)
MJ_PTX_WGMMA(256, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12 MJ_PTX_L13 MJ_PTX_L14 MJ_PTX_L15, "128", "129", "130", "131", "132", "133", "134", "135")
#undef MJ_PTX_DS

/* Uniform over the columns: mj_ptx_wgmma_bf16<128, 0, 0>(d, a, b, k > 0). */
template <int Cols, int TA, int TB> MJ_PTX void mj_ptx_wgmma_bf16(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, int acc) {
    MjWgmma<Cols>::template bf16<TA, TB>(d, a, b, acc);
}
template <int Cols, int TB> MJ_PTX void mj_ptx_wgmma_bf16_reg(float (&d)[Cols / 2], const mj_u32 (&a)[4], mj_u64 b, int acc) {
    MjWgmma<Cols>::template bf16_reg<TB>(d, a, b, acc);
}
template <int Cols> MJ_PTX void mj_ptx_wgmma_e4m3_e4m3(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, int acc) {
    MjWgmma<Cols>::e4m3_e4m3(d, a, b, acc);
}
template <int Cols> MJ_PTX void mj_ptx_wgmma_e5m2_e4m3(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, int acc) {
    MjWgmma<Cols>::e5m2_e4m3(d, a, b, acc);
}
template <int Cols> MJ_PTX void mj_ptx_wgmma_e4m3_e5m2(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, int acc) {
    MjWgmma<Cols>::e4m3_e5m2(d, a, b, acc);
}
template <int Cols> MJ_PTX void mj_ptx_wgmma_e5m2_e5m2(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, int acc) {
    MjWgmma<Cols>::e5m2_e5m2(d, a, b, acc);
}

/* ---- whole products (sm_90a) ---------------------------------------------------------------------------------------- */

/* A run of wgmmas over K in one statement: a compiler that sees each of them with all its accumulators takes twice as long, and
 * an accumulator that is only written is free until then. bf16, K-major A and B in shared memory with the 128-byte swizzle:
 * 4 steps of 16 are one slab of 64 columns, the next slab begins `a_slab`, `b_slab` bytes further.
 *   rows:     d(64, Cols) = A(64, 16 Steps) B(Cols, 16 Steps)^T
 *   rows_reg: the same with A's fragments in registers
 *   columns:  d(64, Cols) (+)= A(64, 16 Steps) B(16 Steps, Cols), A in registers, B MN-major; `accumulate` as in wgmma */
template <int Cols, int Steps> struct MjProduct;

#define MJ_PTX_W8(d, i)                                                                                               \
    "=f"(d[i]), "=f"(d[i + 1]), "=f"(d[i + 2]), "=f"(d[i + 3]), "=f"(d[i + 4]), "=f"(d[i + 5]), "=f"(d[i + 6]), "=f"(d[i + 7])
#define MJ_PTX_W64(d) MJ_PTX_W8(d, 0), MJ_PTX_W8(d, 8), MJ_PTX_W8(d, 16), MJ_PTX_W8(d, 24)
#define MJ_PTX_W128(d) MJ_PTX_W64(d), MJ_PTX_W8(d, 32), MJ_PTX_W8(d, 40), MJ_PTX_W8(d, 48), MJ_PTX_W8(d, 56)
#define MJ_PTX_D64(d) MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24)
#define MJ_PTX_D128(d) MJ_PTX_D64(d), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56)
#define MJ_PTX_LIST64 "{" MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 "}"
#define MJ_PTX_LIST128 "{" MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 "}"
#define MJ_PTX_R4(p, i) "r"(p[i][0]), "r"(p[i][1]), "r"(p[i][2]), "r"(p[i][3])
#define MJ_PTX_R16(p, i) MJ_PTX_R4(p, i), MJ_PTX_R4(p, i + 1), MJ_PTX_R4(p, i + 2), MJ_PTX_R4(p, i + 3)

/* One step: accumulators, A (a descriptor or four registers), predicate (q: overwrite, p: add), transposition of A and B. */
#define MJ_PTX_STEP(COLS, LIST, A, PRED, TRANS)                                                                       \
    "wgmma.mma_async.sync.aligned.m64n" #COLS "k16.f32.bf16.bf16 " LIST ", " A ", b, " PRED ", 1, 1, " TRANS ";\n"
#define MJ_PTX_OPEN(B) "{\n.reg .pred p, q;\n.reg .b64 a, b;\nsetp.eq.u32 p, 0, 0;\nsetp.ne.u32 q, 0, 0;\nmov.b64 b, " B ";\n"
#define MJ_PTX_AB(STEP_A, STEP_B) "add.s64 a, a, " STEP_A ";\nadd.s64 b, b, " STEP_B ";\n"
#define MJ_PTX_B(STEP_B) "add.s64 b, b, " STEP_B ";\n"
/* Addresses in a descriptor count 16 bytes: 32 bytes a step of K along rows, 16 rows of 128 bytes down columns. */
#define MJ_PTX_ROWS4(C, L, P0)                                                                                        \
    MJ_PTX_STEP(C, L, "a", P0, "0, 0") MJ_PTX_AB("2", "2") MJ_PTX_STEP(C, L, "a", "p", "0, 0") MJ_PTX_AB("2", "2")    \
    MJ_PTX_STEP(C, L, "a", "p", "0, 0") MJ_PTX_AB("2", "2") MJ_PTX_STEP(C, L, "a", "p", "0, 0")
#define MJ_PTX_REG4(C, L, P0, TRANS, BY, A0, A1, A2, A3)                                                              \
    MJ_PTX_STEP(C, L, A0, P0, TRANS) MJ_PTX_B(BY) MJ_PTX_STEP(C, L, A1, "p", TRANS) MJ_PTX_B(BY)                      \
    MJ_PTX_STEP(C, L, A2, "p", TRANS) MJ_PTX_B(BY) MJ_PTX_STEP(C, L, A3, "p", TRANS)

/* Operand numbers, as strings: X, Y, Z: the first three after the accumulators; F0..F7: fragments of four registers from
 * there; B4, C4 (B8, C8): the two operands after four (eight) fragments. */
#define MJ_PTX_PRODUCT(C, X, Y, Z, T, F0, F1, F2, F3, F4, F5, F6, F7, B4, C4, B8, C8)                                 \
    template <> struct MjProduct<C, 4> {                                                                              \
        template <int SA, int SB> MJ_PTX void rows(float (&d)[C / 2], mj_u64 a, mj_u64 b) {                           \
            asm volatile(MJ_PTX_OPEN(Y) "mov.b64 a, " X ";\n" MJ_PTX_ROWS4(C, MJ_PTX_LIST##C, "q") "}"               \
                         : MJ_PTX_W##C(d) : "l"(a), "l"(b));                                                          \
        }                                                                                                             \
        template <int SB> MJ_PTX void rows_reg(float (&d)[C / 2], const mj_u32 (&a)[4][4], mj_u64 b) {                \
            asm volatile(MJ_PTX_OPEN(B4) MJ_PTX_REG4(C, MJ_PTX_LIST##C, "q", "0", "2", F0, F1, F2, F3) "}"            \
                         : MJ_PTX_W##C(d) : MJ_PTX_R16(a, 0), "l"(b));                                                \
        }                                                                                                             \
        MJ_PTX void columns(float (&d)[C / 2], const mj_u32 (&a)[4][4], mj_u64 b, int acc) {                          \
            asm volatile(MJ_PTX_OPEN(B4) "setp.ne.b32 q, " C4 ", 0;\n"                                               \
                         MJ_PTX_REG4(C, MJ_PTX_LIST##C, "q", "1", "128", F0, F1, F2, F3) "}"                          \
                         : MJ_PTX_D##C(d) : MJ_PTX_R16(a, 0), "l"(b), "r"(acc));                                      \
        }                                                                                                             \
    };                                                                                                                \
    template <> struct MjProduct<C, 8> {                                                                              \
        template <int SA, int SB> MJ_PTX void rows(float (&d)[C / 2], mj_u64 a, mj_u64 b) {                           \
            asm volatile(MJ_PTX_OPEN(Y) "mov.b64 a, " X ";\n" MJ_PTX_ROWS4(C, MJ_PTX_LIST##C, "q")                   \
                         MJ_PTX_AB(Z, T) MJ_PTX_ROWS4(C, MJ_PTX_LIST##C, "p") "}"                                     \
                         : MJ_PTX_W##C(d) : "l"(a), "l"(b), "n"(SA / 16 - 6), "n"(SB / 16 - 6));                      \
        }                                                                                                             \
        template <int SB> MJ_PTX void rows_reg(float (&d)[C / 2], const mj_u32 (&a)[8][4], mj_u64 b) {                \
            asm volatile(MJ_PTX_OPEN(B8) MJ_PTX_REG4(C, MJ_PTX_LIST##C, "q", "0", "2", F0, F1, F2, F3) MJ_PTX_B(C8)   \
                         MJ_PTX_REG4(C, MJ_PTX_LIST##C, "p", "0", "2", F4, F5, F6, F7) "}"                            \
                         : MJ_PTX_W##C(d) : MJ_PTX_R16(a, 0), MJ_PTX_R16(a, 4), "l"(b), "n"(SB / 16 - 6));            \
        }                                                                                                             \
        MJ_PTX void columns(float (&d)[C / 2], const mj_u32 (&a)[8][4], mj_u64 b, int acc) {                          \
            asm volatile(MJ_PTX_OPEN(B8) "setp.ne.b32 q, " C8 ", 0;\n"                                               \
                         MJ_PTX_REG4(C, MJ_PTX_LIST##C, "q", "1", "128", F0, F1, F2, F3) MJ_PTX_B("128")              \
                         MJ_PTX_REG4(C, MJ_PTX_LIST##C, "p", "1", "128", F4, F5, F6, F7) "}"                          \
                         : MJ_PTX_D##C(d) : MJ_PTX_R16(a, 0), MJ_PTX_R16(a, 4), "l"(b), "r"(acc));                    \
        }                                                                                                             \
    };
MJ_PTX_PRODUCT(64, "%32", "%33", "%34", "%35", "{%32, %33, %34, %35}", "{%36, %37, %38, %39}",
               "{%40, %41, %42, %43}", "{%44, %45, %46, %47}", "{%48, %49, %50, %51}", "{%52, %53, %54, %55}",
               "{%56, %57, %58, %59}", "{%60, %61, %62, %63}", "%48", "%49", "%64", "%65")
MJ_PTX_PRODUCT(128, "%64", "%65", "%66", "%67", "{%64, %65, %66, %67}", "{%68, %69, %70, %71}",
               "{%72, %73, %74, %75}", "{%76, %77, %78, %79}", "{%80, %81, %82, %83}", "{%84, %85, %86, %87}",
               "{%88, %89, %90, %91}", "{%92, %93, %94, %95}", "%80", "%81", "%96", "%97")

template <int Cols, int Steps, int SA, int SB> MJ_PTX void mj_ptx_product_rows(float (&d)[Cols / 2], mj_u64 a, mj_u64 b) {
    MjProduct<Cols, Steps>::template rows<SA, SB>(d, a, b);
}
template <int Cols, int Steps, int SB>
MJ_PTX void mj_ptx_product_rows_reg(float (&d)[Cols / 2], const mj_u32 (&a)[Steps][4], mj_u64 b) {
    MjProduct<Cols, Steps>::template rows_reg<SB>(d, a, b);
}
template <int Cols, int Steps>
MJ_PTX void mj_ptx_product_columns(float (&d)[Cols / 2], const mj_u32 (&a)[Steps][4], mj_u64 b, int acc) {
    MjProduct<Cols, Steps>::columns(d, a, b, acc);
}

#endif /* sm_90a */
#endif
