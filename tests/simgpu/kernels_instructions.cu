/* Instructions one at a time, for test_instructions.c: conversions, warp collectives, copies. What goes in and out are raw words. */
struct Args {
    unsigned *out;
    const unsigned *in;
    int n;
};
struct MapArgs {
    MjTensorMap in, out;
};
#define KERNEL(name) extern "C" __global__ void __launch_bounds__(128) name(const __grid_constant__ Args a)
#define KERNEL_MAP(name)                                                                                      \
    extern "C" __global__ void __launch_bounds__(128) name(const __grid_constant__ Args a, const __grid_constant__ MapArgs m)
#define T ((int)threadIdx.x)

/* in: n pairs of f32. out: 3 words a pair: bf16x2, e4m3x2, e5m2x2 */
KERNEL(to_narrow) {
    if (T >= a.n) return;
    const float lo = __uint_as_float(a.in[2 * T]), hi = __uint_as_float(a.in[2 * T + 1]);
    a.out[3 * T] = mj_ptx_cvt_bf16x2(lo, hi);
    a.out[3 * T + 1] = mj_ptx_cvt_e4m3x2(lo, hi);
    a.out[3 * T + 2] = mj_ptx_cvt_e5m2x2(lo, hi);
}
/* in: n words with two codes each. out: as e4m3x2 and as e5m2x2 to f16x2 */
KERNEL(to_half) {
    if (T >= a.n) return;
    a.out[2 * T] = mj_ptx_cvt_f16x2_e4m3x2(a.in[T]);
    a.out[2 * T + 1] = mj_ptx_cvt_f16x2_e5m2x2(a.in[T]);
}
/* in: n pairs of bf16x2. out: the larger of each, then with .NaN */
KERNEL(larger) {
    if (T >= a.n) return;
    a.out[T] = mj_ptx_max_bf16x2(a.in[2 * T], a.in[2 * T + 1]);
    a.out[a.n + T] = mj_ptx_max_nan_bf16x2(a.in[2 * T], a.in[2 * T + 1]);
}
/* in: n pairs of f32 */
KERNEL(smaller) {
    if (T < a.n) a.out[T] = __float_as_uint(mj_ptx_min_nan(__uint_as_float(a.in[2 * T]), __uint_as_float(a.in[2 * T + 1])));
}
/* in: n f32. out: ex2, lg2, rcp of each */
KERNEL(approximate) {
    if (T >= a.n) return;
    const float x = __uint_as_float(a.in[T]);
    a.out[3 * T] = __float_as_uint(mj_ptx_ex2(x));
    a.out[3 * T + 1] = __float_as_uint(mj_ptx_lg2(x));
    a.out[3 * T + 2] = __float_as_uint(mj_ptx_rcp(x));
}

/* 32 threads; each line of 32 words is one instruction */
KERNEL(warp) {
    const int v = 10 * T;
    unsigned *o = a.out + T;
    o[0] = (unsigned)__shfl_up_sync(0xffffffffu, v, 3, 8);
    o[32] = (unsigned)__shfl_down_sync(0xffffffffu, v, 3, 8);
    o[64] = (unsigned)__shfl_xor_sync(0xffffffffu, v, 8, 8);
    o[96] = (unsigned)__shfl_sync(0xffffffffu, v, 10, 8);
    o[128] = __ballot_sync(0xffffffffu, T % 3 == 0);
    o[160] = (unsigned)__any_sync(0xffffffffu, T == 17);
    o[192] = (unsigned)__all_sync(0xffffffffu, T != 17);
    o[224] = __match_any_sync(0xffffffffu, T / 4);
    o[256] = __reduce_add_sync(0xffffffffu, (unsigned)T);
    o[288] = (unsigned)__reduce_min_sync(0xffffffffu, T - 5);
    o[320] = __reduce_min_sync(0xffffffffu, (unsigned)(T - 5));
    o[352] = __reduce_max_sync(0xffffffffu, (unsigned)(T - 5));
    o[384] = (unsigned)__reduce_max_sync(0xffffffffu, T - 5);
    o[416] = __reduce_and_sync(0xffffffffu, (unsigned)(T | 8));
    o[448] = __reduce_or_sync(0xffffffffu, (unsigned)T);
    o[480] = mj_ptx_elect() ? 1u : 0u;
    o[512] = mj_ptx_lane();
    if (T < 16) o[544] = (unsigned)__shfl_xor_sync(0x0000ffffu, v, 1); /* half of the warp */
    o[608] = (unsigned)__shfl_xor_sync(0x01010101u << (T % 8), v, 8);     /* eight groups at once */
    const double d = __shfl_xor_sync(0xffffffffu, 1.0 + T, 16);         /* two registers */
    o[576] = (unsigned)(int)d;
}
/* 64 threads: barrier.red, then bits */
KERNEL(block) {
    a.out[T] = (unsigned)__syncthreads_count(T < 10);
    a.out[64 + T] = (unsigned)__syncthreads_and(T < 10);
    a.out[128 + T] = (unsigned)__syncthreads_or(T == 63);
    if (T > 0) return;
    a.out[192] = __byte_perm(0x33221100u, 0x77665544u, 0x5410u);
    a.out[193] = __byte_perm(0x33221100u, 0x77665544u, 0x0327u);
    a.out[194] = __funnelshift_l(0x80000001u, 2u, 1u);
    a.out[195] = __funnelshift_r(0x80000001u, 2u, 1u);
    a.out[196] = __brev(0x00000003u);
    a.out[197] = (unsigned)__popc(0xf0f01u);
    a.out[198] = (unsigned)__clz(1);
    a.out[199] = (unsigned)__ffs(8);
    a.out[200] = __umulhi(0x80000000u, 6u);
    a.out[201] = (unsigned)__clz(0);
}
/* 64 threads add to, take the larger of, and exchange words of shared memory */
KERNEL(atomics) {
    __shared__ unsigned sum, most, least, last;
    if (T == 0) sum = 0, most = 0, least = 1000, last = 5;
    __syncthreads();
    const unsigned before = atomicAdd(&sum, 3u);
    atomicMax(&most, (unsigned)T);
    atomicMin(&least, (unsigned)T + 7);
    if (T == 9) a.out[68] = atomicCAS(&last, 5u, 77u);
    a.out[T] = before;
    __syncthreads();
    if (T == 0) a.out[64] = sum, a.out[65] = most, a.out[66] = least, a.out[67] = last;
}

/* in: 32 x 4 words. cp.async of 4 bytes and of 16 with 4 of them; then ld.global.nc and st.global.cs */
KERNEL(copy_async) {
    __shared__ __align__(16) unsigned four[32], sixteen[128];
    mj_ptx_cp_async_4(mj_ptx_shared(four + T), a.in + 4 * T, T == 3 ? 0 : 4);
    mj_ptx_cp_async_commit();
    mj_ptx_cp_async_16(mj_ptx_shared(sixteen + 4 * T), a.in + 4 * T, 4);
    mj_ptx_cp_async_commit();
    mj_ptx_cp_async_wait<1>();
    a.out[T] = four[T];
    mj_ptx_cp_async_wait<0>();
    for (int i = 0; i < 4; i++) a.out[32 + 4 * T + i] = sixteen[4 * T + i];
    mj_u32 v[4];
    mj_ptx_ld_nc_16(a.in + 4 * T, v);
    mj_ptx_st_cs_16(a.out + 160 + 4 * T, v);
}

/* Phases: a barrier of two arrivals, one of which brings bytes; a second round with the other parity; the memory used again. */
KERNEL(phases) {
    __shared__ __align__(16) unsigned data[8];
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    if (T == 0) mj_ptx_mbar_init(b, 2);
    __syncthreads();
    for (unsigned round = 0; round < 3; round++) {
        if (T == 0) {
            mj_ptx_mbar_expect(b, 16);
            mj_ptx_bulk_load(mj_ptx_shared(data), a.in + 8 * round, 16, b);
            mj_ptx_bulk_load(mj_ptx_shared(data + 4), a.in + 8 * round + 4, 16, b);
            mj_ptx_mbar_arrive_expect(b, 16);
        }
        if (T == 32) mj_ptx_mbar_arrive(b);
        while (!mj_ptx_mbar_try_wait(b, round & 1u)) mj_ptx_nanosleep(20);
        if (T < 8) a.out[8 * round + T] = data[T];
        __syncthreads();
    }
    if (T == 0) {
        mj_ptx_mbar_inval(b);
        bar = 42;
        a.out[24] = (unsigned)bar;
    }
}
/* shared to global in bulk: 2 groups, the first waited for while the second may be under way */
KERNEL(bulk_store) {
    __shared__ __align__(16) unsigned data[64];
    data[T] = a.in[T];
    mj_ptx_fence_async();
    __syncthreads();
    if (T == 0) {
        mj_ptx_bulk_store(a.out, mj_ptx_shared(data), 128);
        mj_ptx_tma_commit();
        mj_ptx_bulk_store(a.out + 32, mj_ptx_shared(data + 32), 128);
        mj_ptx_tma_commit();
        mj_ptx_tma_wait_read<1>();
        data[0] = 0; /* the first group has been read */
        mj_ptx_tma_wait<0>();
    }
}

/* A box of a tensor into shared memory, which goes out word by word. in: rank, words, coordinates */
KERNEL_MAP(tensor_load) {
    extern __shared__ __align__(1024) unsigned box[];
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar), to = mj_ptx_shared(box);
    const int *c = (const int *)a.in + 2, words = (int)a.in[1];
    if (T == 0) {
        mj_ptx_tma_prefetch(&m.in);
        mj_ptx_mbar_init(b, 1);
        mj_ptx_fence_mbar_init();
        mj_ptx_mbar_arrive_expect(b, 4 * words);
        if (a.in[0] == 2) mj_ptx_tma_load_2d(to, &m.in, b, c[0], c[1]);
        if (a.in[0] == 3) mj_ptx_tma_prefetch_3d(&m.in, c[0], c[1], c[2]);
        if (a.in[0] == 3) mj_ptx_tma_load_3d(to, &m.in, b, c[0], c[1], c[2]);
        if (a.in[0] == 4) mj_ptx_tma_load_4d(to, &m.in, b, c[0], c[1], c[2], c[3]);
    }
    __syncthreads();
    mj_ptx_mbar_wait(b, 0);
    for (int i = T; i < words; i += 32) a.out[i] = box[i];
}
/* in: how (2, 3: store; 12, 13: add), words, coordinates, then the words of shared memory */
KERNEL_MAP(tensor_store) {
    extern __shared__ __align__(1024) unsigned box[];
    const int *c = (const int *)a.in + 2, words = (int)a.in[1];
    for (int i = T; i < words; i += 32) box[i] = a.in[8 + i];
    mj_ptx_fence_async();
    __syncthreads();
    if (T == 0) {
        if (a.in[0] == 2) mj_ptx_tma_store_2d(&m.out, mj_ptx_shared(box), c[0], c[1]);
        if (a.in[0] == 3) mj_ptx_tma_store_3d(&m.out, mj_ptx_shared(box), c[0], c[1], c[2]);
        if (a.in[0] == 12) mj_ptx_tma_add_2d(&m.out, mj_ptx_shared(box), c[0], c[1]);
        if (a.in[0] == 13) mj_ptx_tma_add_3d(&m.out, mj_ptx_shared(box), c[0], c[1], c[2]);
        mj_ptx_tma_commit();
        mj_ptx_tma_wait<0>();
    }
}

/* Clusters of 2: who is who; an arrival at the other's barrier, with and without release; a box for both, from each. */
KERNEL_MAP(cluster) {
    extern __shared__ __align__(1024) unsigned box[];
    __shared__ __align__(8) unsigned long long bars[2];
    const mj_u32 full = mj_ptx_shared(&bars[0]), met = mj_ptx_shared(&bars[1]), rank = mj_ptx_cluster_rank();
    if (T == 0) {
        mj_ptx_mbar_init(full, 1);
        mj_ptx_mbar_init(met, 2);
        mj_ptx_fence_mbar_init();
    }
    mj_ptx_cluster_arrive();
    mj_ptx_cluster_wait();
    if (T == 0) mj_ptx_mbar_arrive_expect(full, 2 * 128);
    if (T == 0 && rank == 0) mj_ptx_tma_load_2d_multicast(mj_ptx_shared(box), &m.in, full, 3, 0, 0);
    if (T == 0 && rank == 1) mj_ptx_tma_load_3d_multicast(mj_ptx_shared(box) + 128, &m.out, full, 3, 0, 0, 1);
    mj_ptx_mbar_wait(full, 0);
    for (int i = T; i < 64; i += 32) a.out[64 * rank + i] = box[i];
    if (T == 0) {
        mj_ptx_mbar_arrive_cluster(met, 1 - rank);
        mj_ptx_mbar_arrive_peer(met, 1 - rank);
    }
    mj_ptx_mbar_wait_cluster(met, 0);
    if (T == 0) a.out[128 + rank] = 10 * rank + mj_ptx_cluster_size();
    mj_ptx_cluster_sync();
}

/* The cluster's barrier waits for the threads that have not left: some leave before it, some after they have arrived. */
KERNEL(cluster_leavers) {
    if (T < 8) return;
    mj_ptx_cluster_arrive();
    if (T < 16) return;
    mj_ptx_cluster_wait();
    mj_ptx_cluster_sync();
    a.out[32 * mj_ptx_cluster_rank() + T] = 7;
}

/* A launch that may overlap the one before it. */
KERNEL(overlapped) {
    mj_ptx_grid_wait();
    a.out[T] = a.in[T] + 1;
    mj_ptx_grid_release();
}
/* One thread waits, and the others hear of it: its warp, another one by a barrier, a third by an mbarrier. */
KERNEL(overlapped_by_one) {
    __shared__ __align__(8) unsigned long long bar;
    const mj_u32 b = mj_ptx_shared(&bar);
    if (T == 0) mj_ptx_mbar_init(b, 1);
    __syncthreads();
    if (T == 0) mj_ptx_grid_wait();
    if (T < 32) __syncwarp();
    if (T == 1) mj_ptx_mbar_arrive(b);
    if (T < 64) mj_ptx_bar_sync(1, 64);
    else mj_ptx_mbar_wait(b, 0);
    a.out[T] = a.in[T] + 1;
}
KERNEL(overlapped_cluster) {
    if (T == 0 && mj_ptx_cluster_rank() == 1) mj_ptx_grid_wait();
    mj_ptx_cluster_sync();
    if (T == 0) a.out[mj_ptx_cluster_rank()] = a.in[0];
    if (mj_ptx_cluster_rank() == 0) mj_ptx_grid_wait();
}
/* What those come after. */
KERNEL(nothing) { (void)a; }
/* Two warpgroups, one of which gives the other registers; named barriers between them. */
extern "C" __global__ void __launch_bounds__(256) registers(const __grid_constant__ Args a) {
    __shared__ unsigned word;
    if (T < 128) {
        mj_ptx_setmaxnreg_dec<24>();
        if (T == 0) word = a.in[0];
        mj_ptx_bar_arrive(3, 256);
    } else {
        mj_ptx_setmaxnreg_inc<240>();
        mj_ptx_bar_sync(3, 256);
        if (T == 128) a.out[0] = word + 5;
    }
}
