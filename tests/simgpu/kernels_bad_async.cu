/* Small wrong kernels, as in kernels_bad.cu: asynchronous copies, mbarriers and clusters. `m.in` is a 64 x 64 tensor of bf16 with
 * a box of its size and the 128-byte swizzle. */
#include "kernels_bad.h"

#define BAR                                                                                                   \
    __shared__ __align__(8) unsigned long long bar;                                                           \
    const mj_u32 b = mj_ptx_shared(&bar)
#define TILE extern __shared__ __align__(1024) unsigned char tile[]

/* ---- cp.async ---- */

BAD(bad_cp_async_no_wait) {
    extern __shared__ float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + 4 * threadIdx.x, 16);
    mj_ptx_cp_async_commit();
    __syncwarp();
    a.out[threadIdx.x] = s[threadIdx.x];
}
BAD(bad_cp_async_not_committed) { /* the wait is for groups, and there is none */
    extern __shared__ float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + 4 * threadIdx.x, 16);
    mj_ptx_cp_async_wait<0>();
    __syncwarp();
    a.out[threadIdx.x] = s[threadIdx.x];
}
BAD(bad_cp_async_misaligned) {
    extern __shared__ float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + 4 * threadIdx.x + 1, 16);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_cp_async_size) {
    extern __shared__ float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + 4 * threadIdx.x, 32);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_cp_async_bounds) {
    extern __shared__ float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + a.n - 4 + 4 * threadIdx.x, 16);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_cp_async_fresh) { /* nobody wrote what is copied */
    extern __shared__ float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.out + 4 * threadIdx.x, 16);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_cp_async_twice) { /* two copies to one place, both in flight: either may come last */
    extern __shared__ float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + 4 * threadIdx.x, 16);
    mj_ptx_cp_async_commit();
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + 4 * threadIdx.x, 16);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_write_in_flight) {
    extern __shared__ float s[];
    mj_ptx_cp_async_16(mj_ptx_shared(s + 4 * threadIdx.x), a.in + 4 * threadIdx.x, 16);
    s[4 * threadIdx.x] = 1.0f;
    a.out[threadIdx.x] = 1.0f;
}

/* ---- mbarriers ---- */

BAD(bad_mbar_phase) { /* waits for the second phase, which nobody will complete */
    BAR;
    ONE mj_ptx_mbar_init(b, 32);
    __syncthreads();
    mj_ptx_mbar_arrive(b);
    mj_ptx_mbar_wait(b, 0);
    mj_ptx_mbar_wait(b, 1);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_mbar_parity) {
    BAR;
    ONE mj_ptx_mbar_init(b, 32);
    __syncthreads();
    mj_ptx_mbar_wait(b, 2);
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_mbar_uninitialised) {
    BAR;
    mj_ptx_mbar_arrive(b);
}
BAD(bad_mbar_misaligned) {
    __shared__ __align__(8) unsigned long long bars[2];
    ONE mj_ptx_mbar_init(mj_ptx_shared(bars) + 4, 1);
}
BAD(bad_mbar_arrive_misaligned) {
    BAR;
    ONE mj_ptx_mbar_init(b, 32);
    __syncthreads();
    mj_ptx_mbar_arrive(b + 4);
}
BAD(bad_mbar_count) {
    BAR;
    ONE mj_ptx_mbar_init(b, 0);
}
BAD(bad_mbar_init_twice) {
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_init(b, 1);
    }
}
BAD(bad_mbar_overwritten) { /* an ordinary write where an mbarrier is */
    BAR;
    ONE mj_ptx_mbar_init(b, 1);
    bar = 0;
    a.out[0] = (float)bar;
}
BAD(bad_mbar_overflow) {
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 2);
        mj_ptx_mbar_expect(b, 16);
    }
    __syncthreads();
    mj_ptx_mbar_arrive(b);
}
BAD(bad_mbar_not_observed) { /* the second phase begins before anybody has seen the first one end */
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_arrive(b);
        mj_ptx_mbar_arrive(b);
    }
}
BAD(bad_mbar_transactions) {
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_expect(b, 1 << 20);
    }
}
BAD_MAP(bad_mbar_inval_in_flight) {
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_arrive_expect(b, TILE_BYTES);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);
        mj_ptx_mbar_inval(b);
    }
}
BAD(bad_mbar_many) {
    __shared__ __align__(8) unsigned long long bars[65];
    ONE for (int i = 0; i < 65; i++) mj_ptx_mbar_init(mj_ptx_shared(&bars[i]), 1);
}

/* ---- bulk and tensor copies ---- */

BAD_MAP(bad_no_wait) { /* reads the tile before the mbarrier says that it is there: parity 1 of a fresh barrier has passed */
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_fence_mbar_init();
        mj_ptx_mbar_arrive_expect(b, TILE_BYTES);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);
    }
    __syncthreads();
    mj_ptx_mbar_wait(b, 1);
    a.out[threadIdx.x] = (float)tile[threadIdx.x];
}
BAD_MAP(bad_tma_never_waited) {
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_arrive_expect(b, TILE_BYTES);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);
    }
    a.out[threadIdx.x] = 1.0f;
}
BAD_MAP(bad_no_proxy_fence) { /* ordinary writes, then a TMA store, without fence.proxy.async between */
    TILE;
    for (int i = (int)threadIdx.x; i < TILE_BYTES; i += (int)blockDim.x) tile[i] = (unsigned char)i;
    __syncthreads();
    ONE {
        mj_ptx_tma_store_2d(&m.out, mj_ptx_shared(tile), 0, 0);
        mj_ptx_tma_commit();
        mj_ptx_tma_wait<0>();
    }
    a.out[0] = 0.0f;
}
#define FILL_TILE                                                                                             \
    for (int i = (int)threadIdx.x; i < TILE_BYTES; i += (int)blockDim.x) tile[i] = (unsigned char)i;          \
    mj_ptx_fence_async();                                                                                     \
    __syncthreads()
BAD_MAP(bad_store_not_waited) {
    TILE;
    FILL_TILE;
    ONE {
        mj_ptx_tma_store_2d(&m.out, mj_ptx_shared(tile), 0, 0);
        mj_ptx_tma_commit();
    }
    a.out[0] = 0.0f;
}
BAD_MAP(bad_store_overwritten) {
    TILE;
    FILL_TILE;
    ONE {
        mj_ptx_tma_store_2d(&m.out, mj_ptx_shared(tile), 0, 0);
        mj_ptx_tma_commit();
        tile[5] = 77;
        mj_ptx_tma_wait_read<0>();
    }
}
BAD(bad_bulk_store_overwritten) {
    TILE;
    FILL_TILE;
    ONE {
        mj_ptx_bulk_store(a.out, mj_ptx_shared(tile), 64);
        mj_ptx_tma_commit();
        tile[63] = 77;
        mj_ptx_tma_wait_read<0>();
    }
}
BAD_MAP(bad_tma_misaligned) {
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_arrive_expect(b, TILE_BYTES);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile) + 64, &m.in, b, 0, 0);
    }
    a.out[0] = 0.0f;
}
BAD_MAP(bad_tma_map_misaligned) {
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), (const MjTensorMap *)((const char *)&m.in + 8), b, 0, 0);
    }
}
BAD(bad_tma_no_map) {
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), (const MjTensorMap *)a.in, b, 0, 0);
    }
}
BAD_MAP(bad_tma_rank) {
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_tma_load_3d(mj_ptx_shared(tile), &m.in, b, 0, 0, 0);
    }
}
BAD_MAP(bad_tma_prefetch_rank) {
    ONE mj_ptx_tma_prefetch_3d(&m.in, 0, 0, 0);
}
BAD_MAP(bad_tma_smem_bounds) { /* the box ends past the block's shared memory */
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_arrive_expect(b, TILE_BYTES);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile) + 1024, &m.in, b, 0, 0);
    }
}
BAD_MAP(bad_tma_twice) { /* two loads to one place, both in flight */
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_arrive_expect(b, 2 * TILE_BYTES);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);
    }
}
BAD_MAP(bad_tma_freed) { /* the host freed the tensor that the map describes */
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_mbar_arrive_expect(b, TILE_BYTES);
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);
    }
}
#define EXPECT(bytes)                                                                                         \
    TILE;                                                                                                     \
    BAR;                                                                                                      \
    ONE {                                                                                                     \
        mj_ptx_mbar_init(b, 1);                                                                               \
        mj_ptx_mbar_arrive_expect(b, bytes);                                                                  \
        mj_ptx_tma_load_2d(mj_ptx_shared(tile), &m.in, b, 0, 0);                                              \
    }                                                                                                         \
    __syncthreads();                                                                                          \
    mj_ptx_mbar_wait(b, 0);                                                                                   \
    a.out[0] = 0.0f
BAD_MAP(bad_tma_bytes) { EXPECT(TILE_BYTES + 128); }
BAD_MAP(bad_tma_bytes_fewer) { EXPECT(TILE_BYTES - 128); }
BAD_MAP(bad_tma_add_type) { /* adds f32; the map is of bf16 */
    TILE;
    FILL_TILE;
    ONE mj_ptx_tma_add_2d(&m.out, mj_ptx_shared(tile), 0, 0);
}
BAD(bad_bulk_misaligned) {
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_bulk_load(mj_ptx_shared(tile), a.in, 24, b);
    }
}
BAD(bad_bulk_bounds) {
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_bulk_load(mj_ptx_shared(tile), a.in + a.n - 4, 32, b);
    }
}
BAD(bad_bulk_source) {
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_bulk_load(mj_ptx_shared(tile), (const void *)0x1000, 32, b);
    }
}
BAD(bad_bulk_store_misaligned) {
    TILE;
    FILL_TILE;
    ONE mj_ptx_bulk_store(a.out + 1, mj_ptx_shared(tile), 16);
}
BAD(bad_bulk_store_bounds) {
    TILE;
    FILL_TILE;
    ONE mj_ptx_bulk_store((float *)a.in + a.n - 4, mj_ptx_shared(tile), 32);
}

/* ---- clusters of 2 blocks ---- */

BAD(bad_cluster_exit) { /* block 1 is gone when block 0 arrives at its barrier */
    BAR;
    ONE mj_ptx_mbar_init(b, 1);
    mj_ptx_cluster_sync();
    if (mj_ptx_cluster_rank() == 1) return;
    for (int i = 0; i < 4; i++) mj_ptx_nanosleep(1);
    ONE mj_ptx_mbar_arrive_cluster(b, 1);
    a.out[threadIdx.x] = 1.0f;
}
BAD_MAP(bad_multicast_exit) { /* block 1 is gone when block 0 loads into its shared memory */
    TILE;
    BAR;
    ONE mj_ptx_mbar_init(b, 1);
    mj_ptx_cluster_sync();
    if (mj_ptx_cluster_rank() == 1) return;
    for (int i = 0; i < 4; i++) mj_ptx_nanosleep(1);
    ONE mj_ptx_tma_load_2d_multicast(mj_ptx_shared(tile), &m.in, b, 3, 0, 0);
}
BAD_MAP(bad_multicast_mask) {
    TILE;
    BAR;
    ONE {
        mj_ptx_mbar_init(b, 1);
        mj_ptx_tma_load_2d_multicast(mj_ptx_shared(tile), &m.in, b, 7, 0, 0);
    }
}
BAD(bad_cluster_rank) {
    BAR;
    ONE mj_ptx_mbar_init(b, 1);
    mj_ptx_cluster_sync();
    ONE mj_ptx_mbar_arrive_cluster(b, 2);
}
BAD(bad_cluster_arrive_twice) {
    mj_ptx_cluster_arrive();
    mj_ptx_cluster_arrive();
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_cluster_wait_only) {
    mj_ptx_cluster_wait();
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_cluster_deadlock) { /* block 1 does not come to the cluster's barrier: it waits for an mbarrier */
    BAR;
    ONE mj_ptx_mbar_init(b, 1);
    __syncthreads();
    if (mj_ptx_cluster_rank() == 0) mj_ptx_cluster_sync();
    else mj_ptx_mbar_wait(b, 0);
}
