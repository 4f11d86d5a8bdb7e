/* One small wrong kernel for each thing that a GPU punishes: threads, memory, barriers and warps. test_rules.c says what report
 * each must get; the other kernels_bad_*.cu are of its kind. */
#include "kernels_bad.h"

/* ---- barriers of a block ---- */

BAD(bad_barrier_divergence) {
    if (threadIdx.x < 16)
        __syncthreads();
    else
        a.out[threadIdx.x] = 1.0f, __syncthreads();
}
BAD(bad_deadlock) { /* the second warp never comes to the named barrier */
    if (threadIdx.x < 32) mj_ptx_bar_sync(1, 64);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_deadlock_two) { /* each warp waits at a barrier that the other one never comes to */
    mj_ptx_bar_sync(1 + threadIdx.x / 32, 64);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_barrier_number) {
    mj_ptx_bar_sync(16, 64);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_barrier_threads) { /* not whole warps */
    mj_ptx_bar_sync(1, 48);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_barrier_counts) {
    mj_ptx_bar_sync(1, threadIdx.x < 32 ? 64 : 96);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_barrier_twice) { /* the first warp's second arrival stands in for the second warp */
    if (threadIdx.x < 32) {
        mj_ptx_bar_arrive(1, 64);
        mj_ptx_bar_arrive(1, 64);
    }
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_barrier_zero) { /* barrier 0 is __syncthreads' own */
    if (threadIdx.x < 32)
        mj_ptx_bar_sync(0, 64);
    else
        __syncthreads();
    a.out[threadIdx.x] = 1.0f;
}

/* ---- memory ---- */

BAD(bad_global_read) { a.out[threadIdx.x] = a.in[threadIdx.x + a.n - 31]; }
BAD(bad_global_write) { a.out[(int)threadIdx.x - 1] = 1.0f; }
BAD(bad_global_gap) { a.out[threadIdx.x] = a.in[(1 << 28) + threadIdx.x]; } /* a GB further: nothing was ever there */
BAD(bad_host_pointer) { a.out[0] = *(const volatile float *)0x1000; }
BAD(bad_freed) { a.out[threadIdx.x] = a.in[threadIdx.x]; } /* the host freed `in` before */
BAD(bad_fresh) { a.out[threadIdx.x] = a.out[threadIdx.x + 64]; } /* nobody wrote what is read */
BAD(bad_local_of_another) { /* a pointer to a local variable means something else in another thread */
    __shared__ float *p;
    float mine = (float)threadIdx.x;
    if (threadIdx.x == 0) p = &mine;
    __syncthreads();
    a.out[threadIdx.x] = threadIdx.x == 1 ? *p : mine;
    __syncthreads();
}
BAD(bad_shared_bounds) {
    extern __shared__ float s[];
    s[threadIdx.x + 64] = 1.0f;
    a.out[threadIdx.x] = s[threadIdx.x + 64];
}
BAD(bad_shared_bounds_read) {
    extern __shared__ float s[];
    s[threadIdx.x] = 1.0f;
    a.out[threadIdx.x] = s[threadIdx.x + 32];
}
BAD(bad_not_shared) { a.out[threadIdx.x] = (float)mj_ptx_shared(a.in); }
BAD(bad_uninitialised) {
    extern __shared__ float s[];
    if (threadIdx.x < 31) s[threadIdx.x] = 1.0f;
    __syncthreads();
    a.out[threadIdx.x] = s[threadIdx.x];
}
BAD(bad_uninitialised_static) {
    __shared__ float fixed[32];
    if (threadIdx.x != 5) fixed[threadIdx.x] = 1.0f;
    __syncthreads();
    a.out[threadIdx.x] = fixed[threadIdx.x];
}
BAD(bad_misaligned) {
    const float4 v = ((const float4 *)(a.in + 1))[threadIdx.x];
    a.out[threadIdx.x] = v.x + v.y + v.z + v.w;
}
BAD(bad_misaligned_write) { *(float2 *)(a.out + 1) = make_float2(1.0f, 2.0f); }
BAD(bad_misaligned_shared) {
    extern __shared__ __align__(16) float s[];
    *(float4 *)(s + 4 * threadIdx.x + 2) = make_float4(1.0f, 2.0f, 3.0f, 4.0f);
    a.out[threadIdx.x] = s[threadIdx.x + 2];
}
BAD(bad_overlapped_read) { a.out[threadIdx.x] = a.in[threadIdx.x]; } /* launched to overlap, and does not wait */
BAD(bad_overlapped_copy) {
    extern __shared__ __align__(16) float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + 4 * threadIdx.x, 16);
    mj_ptx_grid_wait();
    mj_ptx_cp_async_commit();
    mj_ptx_cp_async_wait<0>();
    a.out[threadIdx.x] = s[threadIdx.x];
}
BAD(bad_overlapped_others) { /* one thread's wait is no other's, unless they meet */
    if (threadIdx.x == 0) mj_ptx_grid_wait();
    a.out[threadIdx.x] = a.in[threadIdx.x];
}
BAD(bad_overlapped_exit) { /* whoever is launched next waits for this kernel, which has not waited */
    if (a.n > 0) return;
    mj_ptx_grid_wait();
    a.out[threadIdx.x] = 1.0f;
}
extern "C" __global__ void nothing(const __grid_constant__ Args a) { (void)a; } /* what those come after */
BAD(bad_trap) {
    if (threadIdx.x == 7) mj_ptx_trap();
    a.out[threadIdx.x] = 1.0f;
}

/* ---- warps ---- */

BAD(bad_shuffle_mask) {
    float v = (float)threadIdx.x;
    if (threadIdx.x < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);
    a.out[threadIdx.x] = v;
}
BAD(bad_shuffle_gone) { /* half of the warp has left before */
    if (threadIdx.x >= 16) return;
    mj_ptx_nanosleep(1);
    a.out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
BAD(bad_shuffle_not_in_mask) { a.out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 1); }
BAD(bad_shuffle_source) { /* lane 0 asks lane 16, which does not take part */
    if (threadIdx.x < 16) a.out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, (float)threadIdx.x, 16);
}
BAD(bad_shuffle_width) { a.out[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1.0f, 1, 12); }
BAD(bad_warp_diverged) {
    if (threadIdx.x < 16)
        a.out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    else
        a.out[threadIdx.x] = (float)__ballot_sync(0xffffffffu, 1);
}
BAD(bad_half_warp) { a.out[threadIdx.x] = __any_sync(0xffffffffu, 1) ? 1.0f : 0.0f; } /* a block of 48 threads */
BAD(bad_ldmatrix_misaligned) {
    __shared__ __align__(16) unsigned short fixed[8 * 8 * 4 + 8];
    for (int i = (int)threadIdx.x; i < 8 * 8 * 4 + 8; i += 32) fixed[i] = 0;
    __syncwarp();
    mj_u32 r[4];
    mj_ptx_ldmatrix_x4(r, mj_ptx_shared(fixed + 8 * threadIdx.x + 4));
    a.out[threadIdx.x] = (float)r[0];
}
BAD(bad_ldmatrix_uninitialised) {
    __shared__ __align__(16) unsigned short fixed[8 * 8 * 4];
    for (int i = (int)threadIdx.x; i < 8 * 8 * 4 - 8; i += 32) fixed[i] = 0;
    __syncwarp();
    mj_u32 r[4];
    mj_ptx_ldmatrix_x4(r, mj_ptx_shared(fixed + 8 * threadIdx.x));
    a.out[threadIdx.x] = (float)r[0];
}
BAD(bad_stmatrix_bounds) {
    extern __shared__ __align__(16) unsigned short s[];
    mj_u32 r[4] = {0, 0, 0, 0};
    mj_ptx_stmatrix_x4(mj_ptx_shared(s) + 16 * threadIdx.x, r); /* 512 bytes, the block has 256 */
    a.out[threadIdx.x] = 1.0f;
}
