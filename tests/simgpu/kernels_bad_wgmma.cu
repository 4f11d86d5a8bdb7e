/* Small wrong kernels, as in kernels_bad.cu: wgmma and setmaxnreg. */
struct Args {
    float *out;
    const float *in;
    int n;
};
#define BAD(name) extern "C" __global__ void __launch_bounds__(384) name(const __grid_constant__ Args a)
#define TILES                                                                                                 \
    extern __shared__ __align__(1024) unsigned char tiles[];                                                  \
    for (int i = (int)threadIdx.x; i < 16384; i += (int)blockDim.x) tiles[i] = 0;                             \
    mj_ptx_fence_async();                                                                                     \
    __syncthreads();                                                                                          \
    const mj_u32 base = mj_ptx_shared(tiles);                                                                 \
    const mj_u64 x = mj_ptx_wgmma_desc(base, 16, 1024, 1)
#define FINISH                                                                                                \
    mj_ptx_wgmma_commit();                                                                                    \
    mj_ptx_wgmma_wait<0>();                                                                                   \
    mj_ptx_wgmma_pin(d);                                                                                      \
    a.out[threadIdx.x] = d[0]

BAD(bad_wgmma_no_fence) {
    TILES;
    float d[16];
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    FINISH;
}
BAD(bad_wgmma_no_second_fence) { /* the accumulator was changed after the wait, and nothing says so; others are in flight */
    TILES;
    float d[16], e[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_bf16<32, 0, 0>(e, x, x, 0);
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_wait<1>();
    mj_ptx_wgmma_pin(d);
    for (int i = 0; i < 16; i++) d[i] += (float)a.n;
    mj_ptx_wgmma_pin(d);
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 1);
    FINISH;
    a.out[0] = e[0];
}
BAD(bad_wgmma_no_proxy_fence) {
    extern __shared__ __align__(1024) unsigned char tiles[];
    for (int i = (int)threadIdx.x; i < 16384; i += (int)blockDim.x) tiles[i] = 0;
    __syncthreads();
    float d[16];
    const mj_u64 x = mj_ptx_wgmma_desc(mj_ptx_shared(tiles), 16, 1024, 1);
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    FINISH;
}
BAD(bad_wgmma_not_waited) { /* not a report: the accumulator holds NaN until the wait, so the result is wrong */
    TILES;
    float d[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    mj_ptx_wgmma_commit();
    a.out[threadIdx.x] = d[0];
    mj_ptx_wgmma_wait<0>();
}
BAD(bad_wgmma_written) { /* the accumulator is set while the wgmma is in flight */
    TILES;
    float d[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    mj_ptx_wgmma_commit();
    d[3] = (float)a.n;
    mj_ptx_wgmma_pin(d);
    mj_ptx_wgmma_wait<0>();
    a.out[threadIdx.x] = d[3];
}
BAD(bad_wgmma_not_committed) { /* the wait is for groups, and there is none */
    TILES;
    float d[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    mj_ptx_wgmma_wait<0>();
}
BAD(bad_wgmma_left) {
    TILES;
    float d[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    mj_ptx_wgmma_commit();
}
BAD(bad_wgmma_disagree) { /* lane 5 has another descriptor than its warp */
    TILES;
    float d[16];
    const mj_u64 y = mj_ptx_wgmma_desc(base + (threadIdx.x == 5 ? 1024 : 0), 16, 1024, 1);
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, y, x, 0);
    FINISH;
}
BAD(bad_wgmma_warps_disagree) { /* warp 2 has another descriptor than its warpgroup */
    TILES;
    float d[16];
    const mj_u64 y = mj_ptx_wgmma_desc(base + (threadIdx.x / 32 == 2 ? 1024 : 0), 16, 1024, 1);
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, y, 0);
    FINISH;
}
BAD(bad_wgmma_one_warp) { /* the other warps of the warpgroup never come */
    TILES;
    float d[16];
    if (threadIdx.x >= 32) return;
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    FINISH;
}
BAD(bad_wgmma_small_block) { /* 64 threads are half a warpgroup */
    TILES;
    float d[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    FINISH;
}
BAD(bad_wgmma_shapes) { /* two shapes on one accumulator without a wait between */
    TILES;
    float d[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x, 0);
    mj_ptx_wgmma_bf16<16, 0, 0>(*(float(*)[8]) & d[0], x, x, 1);
    FINISH;
}
BAD(bad_wgmma_many) { /* more accumulators than the simulator follows */
    TILES;
    float d[4], e[9][4];
    mj_ptx_wgmma_fence();
    for (int i = 0; i < 9; i++) mj_ptx_wgmma_bf16<8, 0, 0>(e[i], x, x, 0);
    mj_ptx_wgmma_bf16<8, 0, 0>(d, x, x, 0);
    FINISH;
}
BAD(bad_wgmma_columns) {
    TILES;
    float d[6];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<12, 0, 0>(d, x, x, 0);
    FINISH;
}
BAD(bad_wgmma_bounds) { /* 64 rows of B from 9216 on, 128 bytes each: the block has 16384 */
    TILES;
    float d[32];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<64, 0, 0>(d, x, mj_ptx_wgmma_desc(base + 9216, 16, 1024, 1), 0);
    FINISH;
}
BAD(bad_wgmma_tile_start) { /* a tile that begins in the third row of its swizzling pattern */
    TILES;
    float d[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, mj_ptx_wgmma_desc(base + 256, 16, 1024, 1), 0);
    FINISH;
}
BAD(bad_wgmma_base_offset) {
    TILES;
    float d[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, x | (mj_u64)2 << 49, 0);
    FINISH;
}
BAD(bad_wgmma_misaligned) {
    TILES;
    float d[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, mj_ptx_wgmma_desc(base + 8, 16, 1024, 1), 0);
    FINISH;
}
BAD(bad_wgmma_swizzle) {
    TILES;
    float d[16];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16<32, 0, 0>(d, x, mj_ptx_wgmma_desc(base, 16, 1024, 4), 0);
    FINISH;
}
BAD(bad_wgmma_invariant) { /* A's fragments are loaded before the loop: ptxas 13.0 loses them in it */
    TILES;
    float d[16];
    mj_u32 q[4];
    for (int i = 0; i < 4; i++) q[i] = mj_ptx_cvt_bf16x2((float)(threadIdx.x + 1), (float)(i + 2));
    for (int j = 0; j < 3; j++) {
        mj_ptx_wgmma_fence();
        mj_ptx_wgmma_bf16_reg<32, 0>(d, q, x, j > 0);
        mj_ptx_wgmma_commit();
        mj_ptx_wgmma_wait<0>();
        mj_ptx_wgmma_pin(d);
    }
    a.out[threadIdx.x] = d[0];
}
/* ---- setmaxnreg ---- */

BAD(bad_registers) {
    mj_ptx_setmaxnreg_inc<240>();
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_registers_step) {
    mj_ptx_setmaxnreg_dec<100>();
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_registers_dec) { /* 384 threads have at most 168 registers each */
    mj_ptx_setmaxnreg_dec<176>();
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_registers_inc) {
    mj_ptx_setmaxnreg_dec<160>();
    __syncthreads();
    mj_ptx_setmaxnreg_inc<40>();
    a.out[threadIdx.x] = 1.0f;
}
BAD(bad_registers_one_warp) { /* a warpgroup must execute it as a whole */
    if (threadIdx.x < 32) mj_ptx_setmaxnreg_dec<40>();
    a.out[threadIdx.x] = 1.0f;
}
