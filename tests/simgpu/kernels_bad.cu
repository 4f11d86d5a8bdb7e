/* One small wrong kernel for each thing that a GPU punishes; test_simgpu.c says what report each must get. */
struct Args {
    float *out;
    const float *in;
    int n;
};
struct MapArgs {
    MjTensorMap in, out;
};
#define BAD(name) extern "C" __global__ void name(const __grid_constant__ Args a)
#define BAD_MAP(name) extern "C" __global__ void name(const __grid_constant__ Args a, const __grid_constant__ MapArgs m)

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
BAD(bad_global_read) { a.out[threadIdx.x] = a.in[threadIdx.x + a.n - 31]; }
BAD(bad_global_write) { a.out[(int)threadIdx.x - 1] = 1.0f; }
BAD(bad_host_pointer) { a.out[0] = *(const volatile float *)0x1000; }
BAD(bad_shared_bounds) {
    extern __shared__ float s[];
    s[threadIdx.x + 64] = 1.0f;
    a.out[threadIdx.x] = s[threadIdx.x + 64];
}
BAD(bad_uninitialised) {
    extern __shared__ float s[];
    if (threadIdx.x < 31) s[threadIdx.x] = 1.0f;
    __syncthreads();
    a.out[threadIdx.x] = s[threadIdx.x];
}
BAD(bad_misaligned) {
    const float4 v = ((const float4 *)(a.in + 1))[threadIdx.x];
    a.out[threadIdx.x] = v.x + v.y + v.z + v.w;
}
BAD(bad_shuffle_mask) {
    float v = (float)threadIdx.x;
    if (threadIdx.x < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);
    a.out[threadIdx.x] = v;
}
BAD(bad_mbar_phase) { /* waits for the second phase, which nobody will complete */
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    if (threadIdx.x == 0) mj_ptx_mbar_init(b, 32);
    __syncthreads();
    mj_ptx_mbar_arrive(b);
    mj_ptx_mbar_wait(b, 0);
    mj_ptx_mbar_wait(b, 1);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_mbar_uninitialised) {
    __shared__ __align__(8) unsigned long long bar;
    mj_ptx_mbar_arrive(mj_ptx_shared(&bar));
}
BAD(bad_mbar_overflow) {
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    if (threadIdx.x == 0) {
        mj_ptx_mbar_init(b, 2);
        mj_ptx_mbar_expect(b, 16);
    }
    __syncthreads();
    mj_ptx_mbar_arrive(b);
}
BAD_MAP(bad_no_wait) { /* reads the tile before the mbarrier says that it is there: parity 1 of a fresh barrier has passed */
    extern __shared__ __align__(1024) unsigned char tile[];
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    if (threadIdx.x == 0) {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_fence_mbar_init();
        mj_ptx_mbar_arrive_expect(b, 64 * 64 * 2);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);
    }
    __syncthreads();
    mj_ptx_mbar_wait(b, 1);
    a.out[threadIdx.x] = (float)tile[threadIdx.x];
}
BAD_MAP(bad_no_proxy_fence) { /* ordinary writes, then a TMA store, without fence.proxy.async between */
    extern __shared__ __align__(1024) unsigned char tile[];
    for (int i = (int)threadIdx.x; i < 64 * 64 * 2; i += (int)blockDim.x) tile[i] = (unsigned char)i;
    __syncthreads();
    if (threadIdx.x == 0) {
        mj_ptx_tma_store_2d(&m.out, mj_ptx_shared(tile), 0, 0);
        mj_ptx_tma_commit();
        mj_ptx_tma_wait<0>();
    }
    a.out[0] = 0.0f;
}
BAD_MAP(bad_store_not_waited) {
    extern __shared__ __align__(1024) unsigned char tile[];
    for (int i = (int)threadIdx.x; i < 64 * 64 * 2; i += (int)blockDim.x) tile[i] = (unsigned char)i;
    mj_ptx_fence_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        mj_ptx_tma_store_2d(&m.out, mj_ptx_shared(tile), 0, 0);
        mj_ptx_tma_commit();
    }
    a.out[0] = 0.0f;
}
BAD_MAP(bad_tma_misaligned) {
    extern __shared__ __align__(1024) unsigned char tile[];
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    if (threadIdx.x == 0) {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_arrive_expect(b, 64 * 64 * 2);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile) + 64, &m.in, b, 0, 0);
    }
    a.out[0] = 0.0f;
}
BAD_MAP(bad_tma_bytes) { /* expects more bytes than the box has */
    extern __shared__ __align__(1024) unsigned char tile[];
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    if (threadIdx.x == 0) {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_arrive_expect(b, 64 * 64 * 2 + 128);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);
    }
    __syncthreads();
    mj_ptx_mbar_wait(b, 0);
    a.out[0] = 0.0f;
}
BAD(bad_cp_async_no_wait) {
    extern __shared__ float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + 4 * threadIdx.x, 16);
    mj_ptx_cp_async_commit();
    __syncwarp();
    a.out[threadIdx.x] = s[threadIdx.x];
}
BAD(bad_wgmma_no_fence) {
    extern __shared__ __align__(1024) unsigned char tiles[];
    for (int i = (int)threadIdx.x; i < 16384; i += (int)blockDim.x) tiles[i] = 0;
    mj_ptx_fence_async();
    __syncthreads();
    float d[16];
    const mj_u64 x = mj_ptx_wgmma_desc(mj_ptx_shared(tiles), 16, 1024, 1);
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_wait<0>();
    a.out[threadIdx.x] = d[0];
}
BAD(bad_wgmma_no_proxy_fence) {
    extern __shared__ __align__(1024) unsigned char tiles[];
    for (int i = (int)threadIdx.x; i < 16384; i += (int)blockDim.x) tiles[i] = 0;
    __syncthreads();
    float d[16];
    const mj_u64 x = mj_ptx_wgmma_desc(mj_ptx_shared(tiles), 16, 1024, 1);
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_wait<0>();
    a.out[threadIdx.x] = d[0];
}
BAD(bad_wgmma_not_waited) { /* not a report: the accumulator holds NaN until the wait, so the result is wrong */
    extern __shared__ __align__(1024) unsigned char tiles[];
    for (int i = (int)threadIdx.x; i < 16384; i += (int)blockDim.x) tiles[i] = 0;
    mj_ptx_fence_async();
    __syncthreads();
    float d[16];
    const mj_u64 x = mj_ptx_wgmma_desc(mj_ptx_shared(tiles), 16, 1024, 1);
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    mj_ptx_wgmma_commit();
    a.out[threadIdx.x] = d[0];
    mj_ptx_wgmma_wait<0>();
}
BAD(bad_registers) {
    mj_ptx_setmaxnreg_inc<240>();
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_cluster_exit) { /* block 1 is gone when block 0 arrives at its barrier */
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    if (threadIdx.x == 0) mj_ptx_mbar_init(b, 1);
    mj_ptx_cluster_sync();
    if (mj_ptx_cluster_rank() == 1) return;
    __syncthreads();
    __syncwarp();
    mj_ptx_nanosleep(1);
    mj_ptx_nanosleep(1);
    if (threadIdx.x == 0) mj_ptx_mbar_arrive_cluster(b, 1);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_trap) {
    if (threadIdx.x == 7) mj_ptx_trap();
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_freed) { a.out[threadIdx.x] = a.in[threadIdx.x]; } /* the host freed `in` before */
BAD(bad_wgmma_disagree) { /* lane 5 has another descriptor than its warp */
    extern __shared__ __align__(1024) unsigned char tiles[];
    for (int i = (int)threadIdx.x; i < 16384; i += (int)blockDim.x) tiles[i] = 0;
    mj_ptx_fence_async();
    __syncthreads();
    float d[16];
    const mj_u32 base = mj_ptx_shared(tiles) + (threadIdx.x == 5 ? 1024 : 0);
    const mj_u64 x = mj_ptx_wgmma_desc(base, 16, 1024, 1);
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_wait<0>();
    a.out[threadIdx.x] = d[0];
}
