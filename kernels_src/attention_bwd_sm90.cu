// mj:template attention_bwd_sm90
// mj:doc Gradients of windowed causal attention by TMA and wgmma: delta and dq by tiles of queries, then dk and dv by keys.
// mj:family sm_90a
// mj:kernel attention_bwd_dq_sm90
// mj:kernel attention_bwd_dkv_sm90
// mj:args MjAttentionBwdArgs
// mj:param TOKENS varying min:1
// mj:param HEADS fixed min:1
// mj:param HEAD_DIM variant values:64,128
// mj:param WINDOW fixed min:1
// mj:param STAGES tuning default:3 values:2,3,4
// mj:param ORDER tuning default:1 values:0,1

#include "attention_wgmma.cuh"

/* The probabilities are computed again from lse, in each of the two passes; nothing is added atomically:
 *   p = exp(scale q.k - lse), dp = dout.v, ds = p (scale dp - scale delta), dq = sum ds k, dk = sum ds q, dv = sum p dout.
 * An item is 128 rows of a head, 64 a warpgroup: queries for dq, keys for dk and dv. The other side streams by in steps of 64
 * rows. */
#define STEP MJ_ATTENTION_SM90_BWD_STEP
#define ROWS (2 * STEP)
#define NO_KEY 0x7fffffff

struct MjBackwardMaps { /* boxes of (64, 1, ROWS) of an item's own rows, of (64, 1, STEP) of what streams by */
    MjTensorMap q, k, v, dout, out;
};

/* Addresses in shared memory. `own`: tiles of ROWS rows (q, dout and out, or k and v); a stage is a pair of tiles of STEP. */
struct MjBackward {
    uint32_t own, stages, out, bars; /* out: 16 rows of 64 columns a warp */
    float *vectors; /* dk, dv: (STAGES, 3, STEP) -lse * log2(e), -delta * scale and low of a stage's queries; dq: (2, ROWS), no delta */
    int32_t *end;   /* the item's last query + 1 */
    __device__ __forceinline__ uint32_t stage(int32_t slot) const { return stages + slot * 2 * MJ_TILE_BYTES(STEP); }
    __device__ __forceinline__ uint32_t own_full() const { return bars; }
    __device__ __forceinline__ uint32_t own_empty() const { return bars + 8; }
    __device__ __forceinline__ uint32_t full(int32_t slot) const { return bars + 16 + 16 * slot; }
    __device__ __forceinline__ uint32_t empty(int32_t slot) const { return bars + 24 + 16 * slot; }
};

#define MJ_TILES ((TOKENS + ROWS - 1) / ROWS)
#define MJ_ITEMS (MJ_TILES * HEADS)
#define MJ_PLACE(item) mj_place(item, MJ_TILES, HEADS)

/* Threads that arrive when own tiles, a stage are loaded: those that write vectors beside them, or the one that copies. When they
 * may be overwritten: every thread that reads vectors (racecheck follows none but an arriving one), or one of each warp. */
MJ_FN MjBackward mj_backward_init(int32_t own_tiles, uint32_t own_arrivals, uint32_t stage_arrivals, uint32_t stage_readers)
{
    const uint32_t start = mj_ptx_shared(mj_dynamic_shared), base = (start + 1023u) & ~1023u;
    MjBackward m;
    m.own = base;
    m.stages = m.own + own_tiles * MJ_TILE_BYTES(ROWS);
    m.out = m.stages + STAGES * 2 * MJ_TILE_BYTES(STEP);
    const uint32_t vectors = m.out + MJ_MATH_THREADS / 32 * MJ_SLAB_BYTES(16);
    m.vectors = (float *)(mj_dynamic_shared + (vectors - start));
    m.bars = vectors + STAGES * 3 * 4 * STEP;
    m.end = (int32_t *)(mj_dynamic_shared + (m.bars - start) + 16 + 16 * STAGES);
    if (threadIdx.x == 0) {
        mj_ptx_mbar_init(m.own_full(), own_arrivals);
        mj_ptx_mbar_init(m.own_empty(), MJ_MATH_THREADS);
        for (int s = 0; s < STAGES; s++) {
            mj_ptx_mbar_init(m.full(s), stage_arrivals);
            mj_ptx_mbar_init(m.empty(s), stage_readers);
        }
        mj_ptx_fence_mbar_init();
    }
    __syncthreads();
    mj_grid_begin();
    return m;
}

/* The warpgroup's rows row.. of dq, dk or dv (part 0, 1 or 2 of dqkv): 64 columns of a warp's 16 rows at a time through
 * shared memory, so that eight lanes write a row's 128 bytes. */
MJ_FN void mj_store_rows(const MjAttentionBwdArgs *args, const MjBackward &m, int32_t row, int32_t head, int32_t part,
                         const float (&x)[HEAD_DIM / 2])
{
    const uint32_t buffer = m.out + (MJ_WARP_INDEX - 4) * MJ_SLAB_BYTES(16);
    const int32_t low = MJ_LANE / 8, chunk = MJ_LANE % 8, n0 = row + MJ_WARP_INDEX % 4 * 16 + low;
    const uint4 *from = (const uint4 *)(mj_dynamic_shared + (buffer - mj_ptx_shared(mj_dynamic_shared)));
    uint16_t *to = args->dqkv + (((int64_t)n0 * 3 + part) * HEADS + head) * HEAD_DIM + 8 * chunk;
#pragma unroll
    for (int s = 0; s < MJ_SLABS; s++) {
        __syncwarp(); /* the slab before is read */
#pragma unroll
        for (int f = 0; f < 8; f += 2) {
            const float *y = x + 32 * s + 4 * f;
            const mj_u32 v[4] = {mj_ptx_cvt_bf16x2(y[0], y[1]), mj_ptx_cvt_bf16x2(y[2], y[3]), mj_ptx_cvt_bf16x2(y[4], y[5]),
                                 mj_ptx_cvt_bf16x2(y[6], y[7])};
            mj_ptx_stmatrix_x4(buffer + MJ_LANE % 16 * 128 + (((f + MJ_LANE / 16) ^ (MJ_LANE % 8)) << 4), v);
        }
        __syncwarp();
#pragma unroll
        for (int r = 0; r < 16; r += 4)
            if (n0 + r < TOKENS) *(uint4 *)(to + (int64_t)r * 3 * HEADS * HEAD_DIM + 64 * s) = from[(low + r) * 8 + (chunk ^ ((low + r) & 7))];
    }
}

#include "attention_dq_sm90.cuh"
#include "attention_dkv_sm90.cuh"

extern "C" __global__ void __launch_bounds__(MJ_ATTENTION_SM90_THREADS, 1)
    attention_bwd_dq_sm90(const __grid_constant__ MjAttentionBwdArgs mj_args, const __grid_constant__ MjBackwardMaps maps)
{
    const MjBackward m = mj_backward_init(MJ_DQ_TILES, 32, 1, MJ_MATH_THREADS / 32);
    if (threadIdx.x < 128) {
        mj_ptx_setmaxnreg_dec<24>();
        if (threadIdx.x < 32) {
            mj_produce_dq(&mj_args, maps, m);
            mj_grid_loaded();
        }
    } else {
        mj_ptx_setmaxnreg_inc<240>();
        mj_consume_dq(&mj_args, m);
    }
}

extern "C" __global__ void __launch_bounds__(MJ_ATTENTION_SM90_THREADS, 1)
    attention_bwd_dkv_sm90(const __grid_constant__ MjAttentionBwdArgs mj_args, const __grid_constant__ MjBackwardMaps maps)
{
    const MjBackward m = mj_backward_init(MJ_DKV_TILES, 1, 32, MJ_MATH_THREADS);
    if (threadIdx.x < 128) {
        mj_ptx_setmaxnreg_dec<24>();
        if (threadIdx.x < 32) {
            mj_produce_dkv(&mj_args, maps, m);
            mj_grid_loaded();
        }
    } else {
        mj_ptx_setmaxnreg_inc<240>();
        mj_consume_dkv(&mj_args, m);
    }
}
