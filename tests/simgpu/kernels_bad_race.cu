/* Small wrong kernels, as in kernels_bad.cu: races on shared memory, which MOJIT_SIMGPU_RACES finds whatever order the threads
 * run in. Each would be right with one line more. */
#include "kernels_bad.h"

BAD(race_write_write) { /* both warps, no barrier */
    __shared__ int n;
    if (threadIdx.x % 32 == 0) n = (int)threadIdx.x;
    a.out[threadIdx.x] = 1.0f;
}
BAD(race_read_after_write) { /* no __syncthreads between */
    __shared__ float mine[64];
    mine[threadIdx.x] = a.in[threadIdx.x];
    if (threadIdx.x < 32) __syncwarp();
    if (threadIdx.x < 32 ? threadIdx.x > 0 : true) a.out[threadIdx.x] = threadIdx.x < 32 ? mine[threadIdx.x - 1] : mine[threadIdx.x];
    if (threadIdx.x == 63) a.out[0] = mine[0];
}
BAD(race_write_after_read) { /* the next round's value is stored while another warp may still read this one's */
    __shared__ float mine;
    for (int i = 0; i < 2; i++) {
        ONE mine = (float)i;
        __syncthreads();
        a.out[threadIdx.x] = mine; /* and then __syncthreads is missing */
    }
}
BAD(race_shuffle_orders_nothing) { /* lanes wait for each other in a shuffle, but it orders no memory */
    __shared__ float mine[32];
    mine[threadIdx.x] = 1.0f;
    const float v = __shfl_xor_sync(0xffffffffu, 2.0f, 1);
    a.out[threadIdx.x] = mine[threadIdx.x ^ 1] + v;
}
BAD(race_atomic_and_plain) {
    __shared__ int n;
    ONE n = 0;
    __syncthreads();
    if (threadIdx.x == 40) a.out[0] = (float)n;
    else atomicAdd(&n, 1);
}
BAD(race_arrive_only) { /* the arriving side of a named barrier learns nothing of the others */
    __shared__ float mine;
    ONE mine = 0.0f;
    __syncthreads();
    if (threadIdx.x < 32) {
        mj_ptx_bar_arrive(1, 64);
        if (threadIdx.x == 3) a.out[0] = mine;
    } else {
        if (threadIdx.x == 32) mine = 1.0f;
        mj_ptx_bar_sync(1, 64);
    }
    if (threadIdx.x == 5) a.out[1] = 1.0f;
}
BAD(race_mbar_init) { /* nothing makes the init visible to the other warp */
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    if (threadIdx.x % 32 == 0) {
        ONE mj_ptx_mbar_init(b, 2);
        mj_ptx_nanosleep(1);
        mj_ptx_mbar_arrive(b);
    }
    a.out[threadIdx.x] = 1.0f;
}
BAD(race_ldmatrix) { /* each warp writes its part, both load all */
    __shared__ __align__(16) unsigned mine[128];
    mj_u32 r[4];
    mine[threadIdx.x] = mine[threadIdx.x + 64] = 0;
    __syncwarp();
    mj_ptx_nanosleep(1);
    mj_ptx_ldmatrix_x4(r, mj_ptx_shared(mine + 4 * (threadIdx.x % 32)));
    a.out[threadIdx.x] = (float)r[0];
}
BAD(race_cp_async) { /* each thread waits for its own copies only */
    extern __shared__ float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + 4 * threadIdx.x, 16);
    mj_ptx_cp_async_commit();
    mj_ptx_cp_async_wait<0>();
    mj_ptx_nanosleep(1);
    a.out[threadIdx.x] = s[4 * (threadIdx.x ^ 1)];
}
BAD_MAP(race_tma_overwrites) { /* the second load comes without waiting until everybody has read the first */
    extern __shared__ __align__(1024) unsigned char tile[];
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    ONE mj_ptx_mbar_init(b, 1);
    __syncthreads();
    for (int i = 0; i < 2; i++) {
        ONE {
            mj_ptx_mbar_arrive_expect(b, TILE_BYTES);
            mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);
        }
        mj_ptx_mbar_wait(b, (mj_u32)i);
        a.out[threadIdx.x] = (float)tile[threadIdx.x];
        mj_ptx_nanosleep(1); /* __syncthreads() is what is missing */
    }
}
BAD_MAP(race_tma_not_waited_by_all) { /* one thread has seen the mbarrier, and tells nobody */
    extern __shared__ __align__(1024) unsigned char tile[];
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_arrive_expect(b, TILE_BYTES);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);
    }
    __syncthreads();
    ONE mj_ptx_mbar_wait(b, 0);
    __shfl_sync(0xffffffffu, 1, 0);
    if (threadIdx.x < 32) a.out[threadIdx.x] = (float)tile[threadIdx.x];
}
BAD(race_store_source) { /* a bulk store still reads what the other warp writes */
    extern __shared__ __align__(1024) unsigned char tile[];
    if (threadIdx.x < 16) ((float *)tile)[threadIdx.x] = 1.0f;
    mj_ptx_fence_async();
    __syncthreads();
    ONE {
        mj_ptx_bulk_store(a.out, mj_ptx_shared(tile), 64);
        mj_ptx_tma_commit();
    }
    __syncthreads();
    if (threadIdx.x == 33) ((float *)tile)[3] = 1.0f; /* the same value: the bytes don't even change */
    __syncthreads();
    ONE mj_ptx_tma_wait_read<0>();
}
BAD(race_wgmma_operand) { /* the tile is given back when the wgmma was issued, not when it was waited for */
    extern __shared__ __align__(1024) unsigned char tiles[];
    for (int i = (int)threadIdx.x; i < 16384; i += (int)blockDim.x) tiles[i] = 0;
    mj_ptx_fence_async();
    __syncthreads();
    float d[16];
    if (threadIdx.x < 128) {
        const mj_u64 x = mj_ptx_wgmma_desc(mj_ptx_shared(tiles), 16, 1024, 1);
        mj_ptx_wgmma_fence();
        mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
        mj_ptx_wgmma_commit();
        mj_ptx_bar_arrive(1, 160);
        mj_ptx_nanosleep(1);
        mj_ptx_wgmma_wait<0>();
        mj_ptx_wgmma_pin(d);
        a.out[threadIdx.x] = d[0];
    } else {
        mj_ptx_bar_sync(1, 160);
        if (threadIdx.x == 128) tiles[0] = 0;
        mj_ptx_fence_async();
    }
}
BAD_MAP(race_cluster) { /* block 0 loads into block 1's memory while that may still be read: no cluster barrier between */
    extern __shared__ __align__(1024) unsigned char tile[];
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    ONE mj_ptx_mbar_init(b, 1);
    for (int i = (int)threadIdx.x; i < TILE_BYTES; i += (int)blockDim.x) tile[i] = 0;
    mj_ptx_cluster_sync();
    a.out[blockIdx.x * 64 + threadIdx.x] = (float)tile[threadIdx.x];
    for (int i = 0; i < 2; i++) mj_ptx_nanosleep(1);
    ONE mj_ptx_mbar_arrive_expect(b, TILE_BYTES);
    if (mj_ptx_cluster_rank() == 0 && threadIdx.x == 0) mj_ptx_tma_load_2d_multicast(mj_ptx_shared(tile), &m.in, b, 3, 0, 0);
    mj_ptx_mbar_wait(b, 0);
    mj_ptx_cluster_sync();
}

/* ---- two blocks, global memory ---- */

BAD(race_blocks_write) { a.out[threadIdx.x] = (float)blockIdx.x; }
BAD(race_blocks_read) { /* the others read what the first block writes in this launch */
    if (blockIdx.x == 0) ((float *)a.in)[threadIdx.x] = 1.0f;
    else a.out[blockIdx.x * 64 + threadIdx.x] = a.in[threadIdx.x];
}
BAD(race_blocks_write_what_is_read) { /* all three read the first word, and the last one changes it */
    a.out[64 * blockIdx.x + threadIdx.x] = a.in[0];
    if (blockIdx.x == 2) ((float *)a.in)[threadIdx.x] = 2.0f;
}
BAD_MAP(race_blocks_store) { /* both store the same box */
    extern __shared__ __align__(1024) unsigned char tile[];
    for (int i = (int)threadIdx.x; i < TILE_BYTES; i += (int)blockDim.x) tile[i] = 0;
    mj_ptx_fence_async();
    __syncthreads();
    ONE {
        mj_ptx_tma_store_2d(&m.out, mj_ptx_shared(tile), 0, 0);
        mj_ptx_tma_commit();
        mj_ptx_tma_wait<0>();
    }
}
