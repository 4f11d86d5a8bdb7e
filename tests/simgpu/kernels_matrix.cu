/* Matrix instructions one at a time, with what they read and write laid open; test_matrix.c has the figures' layouts. Raw
 * registers go out as they are. */
struct Args {
    unsigned *out;
    const unsigned *in;
    int n;
};
#define KERNEL(name) extern "C" __global__ void __launch_bounds__(128) name(const __grid_constant__ Args a)
#define LANE ((int)threadIdx.x)

/* in: 4 matrices of 8 x 8 values of 16 bits, row after row. out: (lane, register) of x4, x4.trans, then x2, x2.trans */
KERNEL(matrix_load) {
    __shared__ __align__(16) unsigned m[128];
    mj_u32 r[4], s[2];
    for (int i = LANE; i < 128; i += 32) m[i] = a.in[i];
    __syncwarp();
    mj_ptx_ldmatrix_x4(r, mj_ptx_shared(m + 4 * LANE));
    for (int j = 0; j < 4; j++) a.out[4 * LANE + j] = r[j];
    mj_ptx_ldmatrix_x4_trans(r, mj_ptx_shared(m + 4 * LANE));
    for (int j = 0; j < 4; j++) a.out[128 + 4 * LANE + j] = r[j];
    mj_ptx_ldmatrix_x2(s, mj_ptx_shared(m + 4 * (LANE % 16)));
    for (int j = 0; j < 2; j++) a.out[256 + 2 * LANE + j] = s[j];
    mj_ptx_ldmatrix_x2_trans(s, mj_ptx_shared(m + 4 * (LANE % 16)));
    for (int j = 0; j < 2; j++) a.out[320 + 2 * LANE + j] = s[j];
}

/* in: (lane, register). out: the 4 matrices that x4, x4.trans and (2 of them) x2 write, row after row */
KERNEL(matrix_store) {
    __shared__ __align__(16) unsigned m[128];
    mj_u32 r[4], s[2];
    for (int j = 0; j < 4; j++) r[j] = a.in[4 * LANE + j];
    s[0] = r[0], s[1] = r[1];
    mj_ptx_stmatrix_x4(mj_ptx_shared(m + 4 * LANE), r);
    __syncwarp();
    for (int i = LANE; i < 128; i += 32) a.out[i] = m[i];
    __syncwarp();
    mj_ptx_stmatrix_x4_trans(mj_ptx_shared(m + 4 * LANE), r);
    __syncwarp();
    for (int i = LANE; i < 128; i += 32) a.out[128 + i] = m[i];
    __syncwarp();
    mj_ptx_stmatrix_x2(mj_ptx_shared(m + 4 * (LANE % 16)), s);
    __syncwarp();
    for (int i = LANE; i < 64; i += 32) a.out[256 + i] = m[i];
}

/* in: (lane, 4 registers of A, 2 of B, 4 accumulators). out: (lane, 4 accumulators) */
#define MMA(name, instruction)                                                                                \
    KERNEL(name) {                                                                                            \
        mj_u32 x[4], y[2];                                                                                    \
        float d[4];                                                                                           \
        for (int j = 0; j < 4; j++) x[j] = a.in[10 * LANE + j], d[j] = __uint_as_float(a.in[10 * LANE + 6 + j]); \
        for (int j = 0; j < 2; j++) y[j] = a.in[10 * LANE + 4 + j];                                           \
        instruction(d, x, y);                                                                                 \
        for (int j = 0; j < 4; j++) a.out[4 * LANE + j] = __float_as_uint(d[j]);                              \
    }
MMA(matrix_mma_bf16, mj_ptx_mma_bf16)
MMA(matrix_mma_f16, mj_ptx_mma_f16)
MMA(matrix_mma_e4m3_e4m3, mj_ptx_mma_e4m3_e4m3)
MMA(matrix_mma_e5m2_e4m3, mj_ptx_mma_e5m2_e4m3)
MMA(matrix_mma_e4m3_e5m2, mj_ptx_mma_e4m3_e5m2)

/* in: 10 KB of shared memory, as it lies there: A (64 x 16, bf16) at 0, B (16 x 16) at 8192. Then the descriptors' leading and
 * stride offsets, the swizzle, and 1 where both lie along M and N. out: (thread, 8 accumulators) */
KERNEL(matrix_wgmma) {
    extern __shared__ __align__(1024) unsigned tiles[];
    const unsigned *how = a.in + 2560;
    for (int i = LANE; i < 2560; i += 128) tiles[i] = a.in[i];
    mj_ptx_fence_async();
    __syncthreads();
    float d[8];
    const mj_u32 base = mj_ptx_shared(tiles);
    const mj_u64 x = mj_ptx_wgmma_desc(base, how[0], how[1], how[2]), y = mj_ptx_wgmma_desc(base + 8192, how[0], how[1], how[2]);
    mj_ptx_wgmma_fence();
    if (how[3] != 0) mj_ptx_wgmma_bf16<16, 1, 1>(d, x, y, 0);
    else mj_ptx_wgmma_bf16<16, 0, 0>(d, x, y, 0);
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_wait<0>();
    mj_ptx_wgmma_pin(d);
    for (int j = 0; j < 8; j++) a.out[8 * LANE + j] = __float_as_uint(d[j]);
}

/* the same product with A in registers: in[4 thread ..] of 128 threads, then B's 512 bytes along K without swizzle */
KERNEL(matrix_wgmma_registers) {
    extern __shared__ __align__(1024) unsigned tiles[];
    tiles[LANE] = a.in[512 + LANE];
    mj_ptx_fence_async();
    __syncthreads();
    float d[8];
    mj_u32 x[4];
    for (int j = 0; j < 4; j++) x[j] = a.in[4 * LANE + j];
    mj_ptx_wgmma_fence();
    mj_ptx_wgmma_bf16_reg<16, 0>(d, x, mj_ptx_wgmma_desc(mj_ptx_shared(tiles), 128, 256, 0), 0);
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_wait<0>();
    mj_ptx_wgmma_pin(d);
    for (int j = 0; j < 8; j++) a.out[8 * LANE + j] = __float_as_uint(d[j]);
}
MMA(matrix_mma_e5m2_e5m2, mj_ptx_mma_e5m2_e5m2)

/* in: 16 KB of shared memory: A (64 x 16, bf16) at 0, B (`columns` x 16) at 8192. Then leading and stride offset, swizzle and 1 for
 * "along M" of A, the same of B, columns. out: (thread, columns / 2 accumulators) */
template <int Cols> static __device__ void any_layout(const Args &a, mj_u32 base) {
    const unsigned *how = a.in + 4096;
    float d[Cols / 2];
    const mj_u64 x = mj_ptx_wgmma_desc(base, how[0], how[1], how[2]), y = mj_ptx_wgmma_desc(base + 8192, how[4], how[5], how[6]);
    mj_ptx_wgmma_fence();
    if (how[3] != 0 && how[7] != 0) mj_ptx_wgmma_bf16<Cols, 1, 1>(d, x, y, 0);
    else if (how[3] != 0) mj_ptx_wgmma_bf16<Cols, 1, 0>(d, x, y, 0);
    else if (how[7] != 0) mj_ptx_wgmma_bf16<Cols, 0, 1>(d, x, y, 0);
    else mj_ptx_wgmma_bf16<Cols, 0, 0>(d, x, y, 0);
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_wait<0>();
    mj_ptx_wgmma_pin(d);
    for (int j = 0; j < Cols / 2; j++) a.out[Cols / 2 * LANE + j] = __float_as_uint(d[j]);
}
KERNEL(matrix_wgmma_layouts) {
    extern __shared__ __align__(1024) unsigned tiles[];
    for (int i = LANE; i < 4096; i += 128) tiles[i] = a.in[i];
    mj_ptx_fence_async();
    __syncthreads();
    if (a.in[4104] == 16) any_layout<16>(a, mj_ptx_shared(tiles));
    if (a.in[4104] == 32) any_layout<32>(a, mj_ptx_shared(tiles));
    if (a.in[4104] == 64) any_layout<64>(a, mj_ptx_shared(tiles));
}

/* in: 12 KB: A (64 x 32, fp8) at 0, B (16 x 32) at 8192; leading, stride, swizzle of both, and which types. d starts at 1 and 2
 * products are added. out: (thread, 8 accumulators) */
KERNEL(matrix_wgmma_fp8) {
    extern __shared__ __align__(1024) unsigned tiles[];
    const unsigned *how = a.in + 3072;
    for (int i = LANE; i < 3072; i += 128) tiles[i] = a.in[i];
    mj_ptx_fence_async();
    __syncthreads();
    float d[8];
    for (int j = 0; j < 8; j++) d[j] = 1.0f;
    const mj_u32 base = mj_ptx_shared(tiles);
    const mj_u64 x = mj_ptx_wgmma_desc(base, how[0], how[1], how[2]), y = mj_ptx_wgmma_desc(base + 8192, how[0], how[1], how[2]);
    mj_ptx_wgmma_fence();
    for (int i = 0; i < 2; i++) {
        if (how[3] == 0) mj_ptx_wgmma_e4m3_e4m3<16>(d, x, y, 1);
        if (how[3] == 1) mj_ptx_wgmma_e5m2_e4m3<16>(d, x, y, 1);
        if (how[3] == 2) mj_ptx_wgmma_e4m3_e5m2<16>(d, x, y, 1);
        if (how[3] == 3) mj_ptx_wgmma_e5m2_e5m2<16>(d, x, y, 1);
    }
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_wait<0>();
    mj_ptx_wgmma_pin(d);
    for (int j = 0; j < 8; j++) a.out[8 * LANE + j] = __float_as_uint(d[j]);
}

/* Whole products. in: 16 KB: A (64 x 64) at 0, B (64 x 64) at 8192, both in rows of 128 bytes with the 128-byte swizzle: K runs along
 * A's rows; along B's rows in the first product, which is stored, and down them in the second, which takes A from registers: the
 * fragments of 4 steps, (thread, step, register) from word 4096 on, each added to 1. out: (thread, 32), twice */
KERNEL(matrix_products) {
    extern __shared__ __align__(1024) unsigned tiles[];
    for (int i = LANE; i < 4096; i += 128) tiles[i] = a.in[i];
    mj_ptx_fence_async();
    __syncthreads();
    float d[32], e[32];
    mj_u32 x[4][4];
    for (int j = 0; j < 32; j++) e[j] = 1.0f;
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 4; i++) x[k][i] = a.in[4096 + 16 * LANE + 4 * k + i];
    const mj_u32 base = mj_ptx_shared(tiles);
    mj_ptx_wgmma_fence();
    mj_ptx_product_rows<64, 4, 8192, 8192>(d, mj_ptx_wgmma_desc(base, 16, 1024, 1), mj_ptx_wgmma_desc(base + 8192, 16, 1024, 1));
    mj_ptx_product_columns<64, 4>(e, x, mj_ptx_wgmma_desc(base + 8192, 8192, 1024, 1), 1);
    mj_ptx_wgmma_commit();
    mj_ptx_wgmma_wait<0>();
    mj_ptx_wgmma_pin(d);
    mj_ptx_wgmma_pin(e);
    for (int j = 0; j < 32; j++) a.out[32 * LANE + j] = __float_as_uint(d[j]), a.out[4096 + 32 * LANE + j] = __float_as_uint(e[j]);
}
