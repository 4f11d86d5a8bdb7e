// mj:template rope_qknorm_bwd_quant
// mj:doc Gradient of RoPE and QK-norm for q and k, and v's, in e4m3: row blocks and column blocks from one read.
// mj:family cpu cuda
// mj:kernel rope_qknorm_bwd_quant
// mj:args MjRopeQknormBwdArgs
// mj:param HEADS fixed min:1 max:1024
// mj:param HEAD_DIM fixed values:16,32,64,128
// mj:param TOKENS varying min:1
// mj:param KMAJOR variant values:0,1
// mj:generic cpu KMAJOR=0
// mj:generic cuda KMAJOR=1

#include "quant_tile.h"
#include "rope.h"

/* A block's work is 128 tokens by STRIPS tiles of q, those of k and of v: the angles of the tokens are taken once for them, into
 * a table in scratch behind the tile's: cosines (128, HEAD_DIM / 2), then sines. With few tokens more blocks are worth more. On a
 * GPU a warp loads ROWS_AT_ONCE of its rows together: both factors of all 16 do not fit the registers. */
#define STRIPS (TOKENS >= 32768 ? 6 : 2)
#define ROWS_AT_ONCE 8
#define HALF (HEAD_DIM / 2)
#define COLS (3 * HEADS * HEAD_DIM)

#if MJ_CPU

#define TABLE(shared) ((float *)(void *)((uint16_t *)(shared) + MJ_TILE * MJ_TILE))
typedef MjRope Frequency;
MJ_FN void init(const MjRopeQknormBwdArgs *args, Frequency *f) { mj_rope_init(f, (double)args->rope_base, HEAD_DIM); }

MJ_FN void angles(const MjRopeQknormBwdArgs *args, Frequency *f, float *table, int32_t row0)
{
    for (int32_t i = 0; i < MJ_TILE && row0 + i < TOKENS; i++) {
        mj_rope_at(f, args->pos[row0 + i], HEAD_DIM);
        for (int32_t j = 0; j < HALF; j++) {
            table[i * HALF + j] = f->cosine.v[j];
            table[(MJ_TILE + i) * HALF + j] = f->sine.v[j];
        }
    }
}

/* The heads that begin in 128 columns of row r: a head is in one tile. */
MJ_FN void heads(const MjRopeQknormBwdArgs *args, const MjRope *rope, int32_t r, int32_t c, MjLanes *y)
{
    const int32_t width = HEADS * HEAD_DIM;
    *y = mj_lanes_zero();
    for (int32_t at = 0; at < MJ_TILE && c + at < COLS; at += HEAD_DIM) {
        const int32_t column = c + at, part = column / width;
        const int64_t from = (int64_t)r * COLS + column;
        MjLanes x, d;
        mj_load_bf16(&d, args->dqkv + from, HEAD_DIM);
        if (part < 2) {
            const float rstd = (part == 0 ? args->q_rstd : args->k_rstd)[(int64_t)r * HEADS + (column - part * width) / HEAD_DIM];
            mj_load_bf16(&x, args->qkv + from, HEAD_DIM);
            d = mj_rope_head_bwd(rope, &x, &d, args->gain, rstd, HEAD_DIM);
        }
        for (int32_t l = 0; l < HEAD_DIM; l++) y->v[at + l] = mj_bf16_to_f32(mj_f32_to_bf16(d.v[l]));
    }
}

MJ_FN void tile(const MjRopeQknormBwdArgs *args, const MjQuantOut *out, void *shared, const float *table, int32_t row0, int32_t c)
{
    uint16_t *stash = (uint16_t *)shared; /* (128, 128) */
    const int32_t rows_here = TOKENS - row0 < MJ_TILE ? TOKENS - row0 : MJ_TILE;
    MjLanes y, col_max = mj_lanes_zero();
    MjRope rope;
    for (int32_t i = 0; i < rows_here; i++) {
        mj_rope_load(&rope, table + i * HALF, table + (MJ_TILE + i) * HALF, HEAD_DIM);
        heads(args, &rope, row0 + i, c, &y);
        mj_quant_tile_row(out, stash + i * MJ_TILE, &col_max, row0 + i, c, &y);
    }
    mj_quant_tile_columns(out, stash, &col_max, row0, rows_here, c);
}

#else

#define TABLE(shared) ((float *)(MJ_TILE_INVERSE(shared) + MJ_TILE))
typedef double Frequency; /* of one column: a thread's share of the table */
MJ_FN void init(const MjRopeQknormBwdArgs *args, Frequency *f)
{
    *f = mj_rope_frequency((double)args->rope_base, (double)((int32_t)threadIdx.x % HALF) * 2.0 / HEAD_DIM);
}

/* Nobody reads the table of the rows before any more: since then every thread has waited in mj_quant_write. */
MJ_FN void angles(const MjRopeQknormBwdArgs *args, const Frequency *f, float *table, int32_t row0)
{
    const int32_t at_once = MJ_TILE_WARPS * 32 / HALF, j = (int32_t)threadIdx.x % HALF;
    MJ_ROLLED for (int32_t i = (int32_t)threadIdx.x / HALF; i < MJ_TILE; i += at_once) {
        const int32_t position = row0 + i < TOKENS ? args->pos[row0 + i] : 0;
        mj_sincosf(position * *f, &table[(MJ_TILE + i) * HALF + j], &table[i * HALF + j]);
    }
    mj_barrier();
}

/* Loads of a turn's rows are sent together. Values of earlier turns move up. */
MJ_FN void tile(const MjRopeQknormBwdArgs *args, const MjQuantOut *out, void *shared, const float *table, int32_t row0, int32_t c)
{
    const int32_t width = HEADS * HEAD_DIM, column = c + 4 * MJ_LANE, part = column < width ? 0 : column < 2 * width ? 1 : 2;
    const MjTileAt at = {row0 + MJ_WARP_INDEX * MJ_WARP_ROWS, c, TOKENS % MJ_TILE == 0 ? MJ_EVERY_ROW : TOKENS - 1,
                         COLS % MJ_TILE == 0 || column < COLS};
    const float *rstd_of = (part == 0 ? args->q_rstd : args->k_rstd) + (column - part * width) / HEAD_DIM;
    uint2 packed[MJ_WARP_ROWS];
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) packed[i] = make_uint2(0, 0);
    MJ_ROLLED for (int32_t turn = 0; turn < MJ_WARP_ROWS / ROWS_AT_ONCE; turn++) {
        const int32_t first = at.first + turn * ROWS_AT_ONCE;
        const float *cosine = table + (first - row0) * HALF;
        uint2 x[ROWS_AT_ONCE], d[ROWS_AT_ONCE], *latest = packed + MJ_WARP_ROWS - ROWS_AT_ONCE;
        float rstd[ROWS_AT_ONCE];
        MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS - ROWS_AT_ONCE; i++) packed[i] = packed[i + ROWS_AT_ONCE];
        MJ_UNROLL for (int32_t i = 0; i < ROWS_AT_ONCE; i++) {
            const int64_t from = (int64_t)(first + i) * COLS + column;
            x[i] = d[i] = make_uint2(0, 0);
            rstd[i] = 0.0f;
            if (first + i > at.last || !at.inside) continue;
            d[i] = *(const uint2 *)(args->dqkv + from);
            if (part == 2) continue;
            x[i] = *(const uint2 *)(args->qkv + from);
            rstd[i] = rstd_of[(int64_t)(first + i) * HEADS];
        }
        mj_warp_sync();
        MJ_UNROLL for (int32_t i = 0; i < ROWS_AT_ONCE; i++) latest[i] = d[i];
        if (c >= 2 * width) continue; /* v's alone, as it is */
        MJ_UNROLL for (int32_t i = 0; i < ROWS_AT_ONCE; i++) {
            MjRope rope;
            mj_rope_load(&rope, cosine + i * HALF, cosine + (MJ_TILE + i) * HALF, HEAD_DIM);
            const MjLanes of_x = mj_quant_unpack(x[i].x, x[i].y), of_d = mj_quant_unpack(d[i].x, d[i].y);
            const MjLanes y = mj_rope_head_bwd(&rope, &of_x, &of_d, args->gain, rstd[i], HEAD_DIM);
            if (first + i <= at.last && part < 2) latest[i] = mj_pack_bf16(&y);
        }
    }
    mj_quant_write(packed, out, &at, shared);
}

#endif

MJ_KERNEL_BOUNDS(rope_qknorm_bwd_quant, MjRopeQknormBwdArgs, 256, 2)
{
    const MjQuantOut out = {NULL, args->q, args->qt, args->q_scale, args->qt_scale, 1.0f, TOKENS, COLS, MJ_T_E4M3, MJ_SCALE_BLOCK, KMAJOR, 0};
    const int32_t tiles = (COLS + MJ_TILE - 1) / MJ_TILE, strips = (tiles + 2) / 3, slices = (strips + STRIPS - 1) / STRIPS;
    float *table = TABLE(mj_shared);
    Frequency f;
    init(args, &f);
    MJ_FOR_ITEMS(t, (TOKENS + MJ_TILE - 1) / MJ_TILE * slices) {
        const int32_t row0 = t / slices * MJ_TILE;
        angles(args, &f, table, row0);
        MJ_UNROLL_BY(1) for (int32_t k = 0; k < 3 * STRIPS; k++) {
            const int32_t strip = t % slices * STRIPS + k % STRIPS, s = k / STRIPS * strips + strip;
            if (strip < strips && s < tiles) tile(args, &out, mj_shared, table, row0, s * MJ_TILE);
        }
    }
}
