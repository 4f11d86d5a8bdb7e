/* Kernels that a GPU runs well: each result is checked by test_simgpu.c. Written against kernels_src/ptx.cuh's names:
 * with that header included before it, nvcc -arch=sm_90a compiles this file too. */
struct Args {
    float *out;
    const float *in;
    int n;
};

/* out[block] = sum of in over the block's 256 elements, by shuffles and static shared memory */
extern "C" __global__ void __launch_bounds__(256) good_sum(const __grid_constant__ Args a) {
    __shared__ float part[8];
    float s = a.in[blockIdx.x * 256 + threadIdx.x];
    for (int m = 16; m > 0; m /= 2) s += __shfl_xor_sync(0xffffffffu, s, m);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x == 0) {
        float t = 0.0f;
        for (int i = 0; i < 8; i++) t += part[i];
        a.out[blockIdx.x] = t;
    }
}

/* reverses 128 values through dynamic shared memory; threads 128.. leave early, which __syncthreads allows */
extern "C" __global__ void good_early_exit(const __grid_constant__ Args a) {
    extern __shared__ __align__(16) float buffer[];
    if (threadIdx.x >= 128) return;
    buffer[threadIdx.x] = a.in[threadIdx.x];
    __syncthreads();
    a.out[threadIdx.x] = buffer[127 - threadIdx.x];
}

/* votes, ballots, atomics, vector loads */
extern "C" __global__ void good_votes(const __grid_constant__ Args a) {
    extern __shared__ int counts[];
    if (threadIdx.x < 4) counts[threadIdx.x] = 0;
    __syncthreads();
    const unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x & 1);
    if (odd == 0xaaaaaaaau) atomicAdd(&counts[0], 1);
    if (__any_sync(0xffffffffu, threadIdx.x == 5)) atomicAdd(&counts[1], 1);
    if (__all_sync(0xffffffffu, threadIdx.x < 64)) atomicMax(&counts[2], (int)threadIdx.x);
    const int up = __shfl_up_sync(0xffffffffu, (int)threadIdx.x, 1, 8);
    __syncthreads();
    const float4 v = *(const float4 *)(a.in + 4 * (threadIdx.x % 16));
    a.out[threadIdx.x] = threadIdx.x < 4 ? (float)counts[threadIdx.x] : threadIdx.x < 32 ? (float)up : v.x + v.y + v.z + v.w;
}

/* d(16,8) = a(16,16) b(16,8) with a[i][k] = i + k, b[k][j] = k == j: so d[i][j] = i + j. Through ldmatrix. */
extern "C" __global__ void good_mma(const __grid_constant__ Args a) {
    __shared__ __align__(16) unsigned short sa[16 * 16], sb[8 * 16];
    for (int i = threadIdx.x; i < 256; i += 32) sa[i] = (unsigned short)(mj_ptx_cvt_bf16x2((float)(i / 16 + i % 16), 0.0f) & 0xffff);
    for (int i = threadIdx.x; i < 128; i += 32) sb[i] = (unsigned short)(mj_ptx_cvt_bf16x2(i / 16 == i % 16 ? 1.0f : 0.0f, 0.0f) & 0xffff);
    __syncwarp();
    mj_u32 ra[4], rb[2];
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const int l = threadIdx.x;
    mj_ptx_ldmatrix_x4(ra, mj_ptx_shared(sa + (l % 16) * 16 + l / 16 * 8));
    mj_ptx_ldmatrix_x2(rb, mj_ptx_shared(sb + (l % 8) * 16 + (l / 8 % 2) * 8));
    mj_ptx_mma_bf16(d, ra, rb);
    for (int j = 0; j < 4; j++) a.out[(l / 4 + 8 * (j / 2)) * 8 + 2 * (l % 4) + j % 2] = d[j];
}

/* the same product in e4m3 with K = 32: a[i][k] = (i + k) % 8, b[k][j] = k == j */
extern "C" __global__ void good_mma_fp8(const __grid_constant__ Args a) {
    const int l = threadIdx.x;
    mj_u32 ra[4], rb[2];
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int r = 0; r < 4; r++) {
        const int i = l / 4 + 8 * (r % 2), k = 4 * (l % 4) + 16 * (r / 2);
        ra[r] = mj_ptx_cvt_e4m3x2((float)((i + k) % 8), (float)((i + k + 1) % 8)) |
                mj_ptx_cvt_e4m3x2((float)((i + k + 2) % 8), (float)((i + k + 3) % 8)) << 16;
    }
    for (int r = 0; r < 2; r++) {
        const int j = l / 4, k = 4 * (l % 4) + 16 * r;
        rb[r] = mj_ptx_cvt_e4m3x2(k == j ? 1.0f : 0.0f, k + 1 == j ? 1.0f : 0.0f) |
                mj_ptx_cvt_e4m3x2(k + 2 == j ? 1.0f : 0.0f, k + 3 == j ? 1.0f : 0.0f) << 16;
    }
    mj_ptx_mma_e4m3_e4m3(d, ra, rb);
    for (int j = 0; j < 4; j++) a.out[(l / 4 + 8 * (j / 2)) * 8 + 2 * (l % 4) + j % 2] = d[j];
}

/* ldmatrix.trans of a matrix and stmatrix.trans back give the matrix again */
extern "C" __global__ void good_transpose(const __grid_constant__ Args a) {
    __shared__ __align__(16) unsigned short from[4 * 64], to[4 * 64];
    for (int i = threadIdx.x; i < 256; i += 32) from[i] = (unsigned short)i;
    __syncwarp();
    mj_u32 r[4];
    mj_ptx_ldmatrix_x4_trans(r, mj_ptx_shared(from + 8 * threadIdx.x));
    mj_ptx_stmatrix_x4_trans(mj_ptx_shared(to + 8 * threadIdx.x), r);
    __syncwarp();
    for (int i = threadIdx.x; i < 256; i += 32) a.out[i] = (float)to[i];
}

/* cp.async with zero fill, double buffered */
extern "C" __global__ void good_cp_async(const __grid_constant__ Args a) {
    extern __shared__ __align__(16) float buffer[];
    for (int s = 0; s < 2; s++) {
        mj_ptx_cp_async_16(mj_ptx_shared(buffer + s * 128 + threadIdx.x * 4), a.in + s * 128 + threadIdx.x * 4,
                           threadIdx.x == 31 ? 8 : 16);
        mj_ptx_cp_async_commit();
    }
    mj_ptx_cp_async_wait<1>();
    __syncwarp();
    for (int i = 0; i < 4; i++) a.out[threadIdx.x * 4 + i] = buffer[127 - (threadIdx.x * 4 + i)];
    mj_ptx_cp_async_wait<0>();
    __syncwarp();
    for (int i = 0; i < 4; i++) a.out[128 + threadIdx.x * 4 + i] = buffer[128 + 127 - (threadIdx.x * 4 + i)];
}

struct MapArgs {
    MjTensorMap in, out;
};

/* A 64 x 64 bf16 tile of `in` at (x, y) = (16, 8) by TMA into swizzled memory, stored by TMA to (0, 0) of `out`: beyond
 * the tensor's edge zeros come in. Producer and consumer are different warps. */
extern "C" __global__ void good_tma(const __grid_constant__ Args a, const __grid_constant__ MapArgs m) {
    extern __shared__ __align__(1024) unsigned char tile[];
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar), t = mj_ptx_shared(tile);
    if (threadIdx.x == 0) {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_fence_mbar_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mj_ptx_mbar_arrive_expect(b, 64 * 64 * 2);
        mj_ptx_tma_load_2d(t, &m.in, b, 16, 8);
    }
    mj_ptx_mbar_wait(b, 0);
    /* element (row 3, column 9) lies where the 128-byte swizzle puts it */
    if (threadIdx.x == 32) a.out[0] = (float)*(unsigned short *)(tile + 3 * 128 + ((9 * 2) ^ (3 << 4)));
    __syncthreads();
    if (threadIdx.x == 0) {
        mj_ptx_tma_store_2d(&m.out, t, 0, 0);
        mj_ptx_tma_commit();
        mj_ptx_tma_wait<0>();
    }
}

/* c(64, 32) = a(64, 64) b(32, 64)^T in bf16 by wgmma from memory that TMA swizzled; a, b by one box each */
extern "C" __global__ void __launch_bounds__(128) good_wgmma(const __grid_constant__ Args a, const __grid_constant__ MapArgs m) {
    extern __shared__ __align__(1024) unsigned char tiles[];
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar), sa = mj_ptx_shared(tiles), sb = sa + 64 * 128;
    if (threadIdx.x == 0) {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_fence_mbar_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mj_ptx_mbar_arrive_expect(b, 64 * 128 + 32 * 128);
        mj_ptx_tma_load_2d(sa, &m.in, b, 0, 0);
        mj_ptx_tma_load_2d(sb, &m.out, b, 0, 0);
    }
    mj_ptx_mbar_wait(b, 0);
    float d[16];
    mj_ptx_wgmma_fence();
    for (int k = 0; k < 4; k++)
        mj_ptx_wgmma_bf16<32, 0, 0>(d, mj_ptx_wgmma_desc(sa + 32 * k, 16, 1024, 1), mj_ptx_wgmma_desc(sb + 32 * k, 16, 1024, 1), k > 0);
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_wait<0>();
    mj_ptx_wgmma_pin(d);
    const int w = threadIdx.x / 32, l = threadIdx.x % 32;
    for (int j = 0; j < 16; j++) a.out[(16 * w + l / 4 + 8 * (j / 2 % 2)) * 32 + 8 * (j / 4) + 2 * (l % 4) + j % 2] = d[j];
}

/* Each block of a cluster of 2 loads half of a tile and sends it to both; then arrives at the other's barrier. */
extern "C" __global__ void good_cluster(const __grid_constant__ Args a, const __grid_constant__ MapArgs m) {
    extern __shared__ __align__(1024) unsigned char tile[];
    __shared__ __align__(8) unsigned long long bars[2];
    const mj_u32 full = mj_ptx_shared(&bars[0]), done = mj_ptx_shared(&bars[1]), rank = mj_ptx_cluster_rank();
    if (threadIdx.x == 0) {
        mj_ptx_mbar_init(full, 1);
        mj_ptx_mbar_init(done, 2);
        mj_ptx_fence_mbar_init();
    }
    mj_ptx_cluster_sync();
    if (threadIdx.x == 0) {
        mj_ptx_mbar_arrive_expect(full, 64 * 64 * 2);
        mj_ptx_tma_load_2d_multicast(mj_ptx_shared(tile) + rank * 32 * 128, &m.in, full, 3, 0, (int)rank * 32);
    }
    mj_ptx_mbar_wait(full, 0);
    a.out[blockIdx.x * 64 + threadIdx.x] = (float)*(unsigned short *)(tile + threadIdx.x * 128 + ((threadIdx.x % 8) << 4));
    __syncthreads();
    if (threadIdx.x == 0) {
        mj_ptx_mbar_arrive_cluster(done, 0);
        mj_ptx_mbar_arrive_cluster(done, 1);
    }
    mj_ptx_mbar_wait_cluster(done, 0);
    mj_ptx_cluster_sync();
}

/* named barriers between a producer and a consumer warp; setmaxnreg in the shape of a warp-specialised kernel */
extern "C" __global__ void __launch_bounds__(256, 1) good_named_barriers(const __grid_constant__ Args a) {
    __shared__ float box[4];
    if (threadIdx.x < 128) {
        mj_ptx_setmaxnreg_dec<40>();
        for (int i = 0; i < 4; i++) {
            if (threadIdx.x == 0) box[i] = a.in[i];
            mj_ptx_bar_arrive(1, 256);
            mj_ptx_bar_sync(2, 256);
        }
    } else {
        mj_ptx_setmaxnreg_inc<232>();
        for (int i = 0; i < 4; i++) {
            mj_ptx_bar_sync(1, 256);
            if (threadIdx.x == 128) a.out[i] = box[i] * 2.0f;
            mj_ptx_bar_arrive(2, 256);
        }
    }
}
