/* The tiles of quant_tile.h on a GPU: a block of 8 warps holds a tile of 128 x 128 in registers, from one read. Warp w has
 * rows 16 w .. 16 w + 15, its lane l the columns 4 l .. 4 l + 3, as packed bf16: all 16 loads of a thread are in flight
 * together. Largest magnitudes of rows go over the lanes, those of columns over the warps.
 *
 * The copy along the rows is transposed (KMAJOR), as a GPU's GEMM reads it; there is no other here.
 * The transpose needs no byte shuffling: a thread's 16 rows of one column are 16 neighbours of the transposed copy. They
 * cross the block through shared memory so that 8 lanes store 128 neighbours; chunk w of column c lies at w ^ (c / 4 % 8)
 * of the column's 8, which keeps the 8 lanes of a 16-byte access in different banks both ways.
 */
#ifndef MJ_QUANT_TILE_CUDA_H
#define MJ_QUANT_TILE_CUDA_H

#define MJ_TILE_WARPS 8
#define MJ_WARP_ROWS (MJ_TILE / MJ_TILE_WARPS)
#define MJ_TURN_COLUMNS (MJ_TILE_WARPS * 32 / 8) /* of the transposed tile that the block stores at once */
/* scratch: the transposed tile; the largest of each column that each warp saw; what columns are multiplied by; of gathered rows
 * the largest group and the offsets */
#define MJ_TILE_TURNED(shared) ((uint8_t *)(shared))
#define MJ_TILE_MAX(shared) ((uint16_t *)((uint8_t *)(shared) + MJ_TILE * MJ_TILE))
#define MJ_TILE_INVERSE(shared) ((float *)(MJ_TILE_MAX(shared) + MJ_TILE_WARPS * MJ_TILE))
#define MJ_TILE_OFFSET(shared) ((int32_t *)(MJ_TILE_INVERSE(shared) + MJ_TILE))

#define MJ_UNROLL _Pragma("unroll")
#define MJ_ROLLED _Pragma("unroll 1") /* not worth the time to compile more code */
#define MJ_ABS2 0x7fff7fffu
#define MJ_LOW_F32(pair) mj_bits_f32((pair) << 16)
#define MJ_HIGH_F32(pair) mj_bits_f32((pair) & 0xffff0000u)

#define MJ_EVERY_ROW 0x7fffffff
typedef struct MjTileAt {
    int32_t first; /* row of the matrix that this warp's rows start at */
    int32_t c;     /* the tile's first column */
    int32_t last;  /* the last row in use; MJ_EVERY_ROW, so that no row need ask, where those in use are whole tiles */
    bool inside;   /* this lane's columns are the matrix's */
} MjTileAt;

/* Sums of 16 rows over the lanes, by halves: in each step a lane hands over the half of the rows that it stops working on.
 * First rows i and i + 8, as soon as both are there; then the rest. Lane l gets the sum of row l / 2. */
MJ_FN float mj_quant_hand_over(float low, float high, int32_t half)
{
    const bool upper = (MJ_LANE & (2 * half)) != 0;
    return (upper ? high : low) + __shfl_xor_sync(0xffffffffu, upper ? low : high, 2 * half);
}
MJ_FN float mj_quant_row_sums(const float v[MJ_WARP_ROWS / 2])
{
    const float a = mj_quant_hand_over(v[0], v[4], 4), b = mj_quant_hand_over(v[1], v[5], 4);
    const float c = mj_quant_hand_over(v[2], v[6], 4), d = mj_quant_hand_over(v[3], v[7], 4);
    const float sum = mj_quant_hand_over(mj_quant_hand_over(a, c, 2), mj_quant_hand_over(b, d, 2), 1);
    return sum + __shfl_xor_sync(0xffffffffu, sum, 1);
}

/* What a lane knows of a row of the matrix: the row of the input, -1 where there are zeros, and its gate. */
typedef struct MjTileSource {
    int32_t row;
    float gate;
} MjTileSource;
MJ_FN MjTileSource mj_quant_source(const MjQuantIn *in, int32_t r)
{
    const int32_t slot = in->slot_of[r];
    MjTileSource s = {slot < 0 ? slot : slot / in->top_k, 0.0f};
    if (in->transform == MJ_QUANT_GATED && slot >= 0) s.gate = in->gate[slot];
    return s;
}

/* Four columns of a row as they lie in memory: of x in f32, or in bf16 and the first half, and of dy. */
typedef struct MjTileRaw {
    uint4 x;
    uint2 dy;
} MjTileRaw;
MJ_FN void mj_quant_fetch(MjTileRaw *raw, const MjQuantIn *in, int64_t from, bool zeros)
{
    uint2 half = make_uint2(0, 0);
    raw->x = make_uint4(0, 0, 0, 0);
    raw->dy = make_uint2(0, 0);
    if (!zeros && in->x_type == MJ_T_F32) raw->x = *(const uint4 *)((const float *)in->x + from);
    if (!zeros && in->x_type != MJ_T_F32) half = *(const uint2 *)((const uint16_t *)in->x + from);
    if (!zeros && in->transform == MJ_QUANT_RELU2_BWD) raw->dy = *(const uint2 *)(in->dy + from);
    if (in->x_type != MJ_T_F32) raw->x.x = half.x, raw->x.y = half.y;
}
MJ_FN MjLanes mj_quant_unpack(uint32_t low, uint32_t high)
{
    const MjLanes v = {{MJ_LOW_F32(low), MJ_HIGH_F32(low), MJ_LOW_F32(high), MJ_HIGH_F32(high)}};
    return v;
}
/* x, transformed, and with in->dots this lane's part of the row's product. */
MJ_FN float mj_quant_value(MjLanes *x, const MjTileRaw *raw, const MjQuantIn *in)
{
    const bool positive = mj_quant_of_positive(in->transform);
    *x = mj_quant_unpack(positive ? mj_ptx_max_nan_bf16x2(raw->x.x, 0) : raw->x.x, positive ? mj_ptx_max_nan_bf16x2(raw->x.y, 0) : raw->x.y);
    if (in->x_type == MJ_T_F32) {
        x->v[0] = mj_bits_f32(raw->x.x), x->v[1] = mj_bits_f32(raw->x.y);
        x->v[2] = mj_bits_f32(raw->x.z), x->v[3] = mj_bits_f32(raw->x.w);
    }
    const MjLanes dy = mj_quant_unpack(raw->dy.x, raw->dy.y), factor = *x;
    mj_quant_transform(x, &dy, in->transform);
    return (x->v[0] * factor.v[0] + x->v[1] * factor.v[1]) + (x->v[2] * factor.v[2] + x->v[3] * factor.v[3]);
}

/* The warp's rows. Loads of all are sent before any is waited for. */
MJ_FN void mj_quant_read(uint2 x[MJ_WARP_ROWS], const MjQuantIn *in, const MjQuantOut *out, const MjTileAt *at)
{
    MjTileRaw raw[MJ_WARP_ROWS];
    MjTileSource mine = {0, 0.0f};
    if (in->gathered) mine = mj_quant_source(in, at->first + MJ_LANE % MJ_WARP_ROWS);
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) {
        const int32_t row = in->gathered ? __shfl_sync(0xffffffffu, mine.row, i) : at->first + i;
        const bool zeros = (in->gathered ? row < 0 : row > at->last) || !at->inside;
        mj_quant_fetch(&raw[i], in, (int64_t)row * out->cols + at->c + 4 * MJ_LANE, zeros);
    }
    mj_warp_sync();
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) {
        MjLanes v;
        (void)mj_quant_value(&v, &raw[i], in);
        if (in->transform == MJ_QUANT_GATED) {
            const float gate = __shfl_sync(0xffffffffu, mine.gate, i);
            MJ_FOR_LANES(l) v.v[l] *= gate;
        }
        x[i] = out->exact ? make_uint2(raw[i].x.x, raw[i].x.y) : mj_pack_bf16(&v);
    }
}

/* The same with in->dots: lane l gets this tile's part of the product of row l / 2 of the warp's. Both factors of 16 rows do not
 * fit the registers, those of 8 do: rows 0 .. 3 and 8 .. 11, then the others, by the same code; the first ones' move up. */
MJ_FN float mj_quant_read_dotted(uint2 x[MJ_WARP_ROWS], const MjQuantIn *in, const MjQuantOut *out, const MjTileAt *at)
{
    float dot[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) x[i] = make_uint2(0, 0);
    MJ_ROLLED for (int32_t turn = 0; turn < 2; turn++) {
        MjTileRaw raw[8];
        MJ_UNROLL for (int32_t i = 0; i < 4; i++) x[i] = x[4 + i], x[8 + i] = x[12 + i], dot[i] = dot[4 + i];
        MJ_UNROLL for (int32_t k = 0; k < 8; k++) {
            const int32_t row = at->first + 4 * turn + k / 2 + k % 2 * 8;
            mj_quant_fetch(&raw[k], in, (int64_t)row * out->cols + at->c + 4 * MJ_LANE, !at->inside);
        }
        mj_warp_sync();
        MJ_UNROLL for (int32_t k = 0; k < 8; k++) {
            MjLanes v;
            const float sum = mj_quant_value(&v, &raw[k], in);
            dot[4 + k / 2] = k % 2 == 0 ? sum : mj_quant_hand_over(dot[4 + k / 2], sum, 8);
            x[4 + k / 2 + k % 2 * 8] = mj_pack_bf16(&v);
        }
    }
    return mj_quant_row_sums(dot);
}

/* Lane l gets what row l / 2 of the warp's rows is multiplied by, and stores that row's scale. The largest of 16 rows
 * are found together: in each step a lane hands over the half of the rows that it stops working on. */
MJ_FN float mj_quant_row_scales(const uint2 x[MJ_WARP_ROWS], const MjQuantOut *out, const MjTileAt *at)
{
    uint32_t m[MJ_WARP_ROWS / 2]; /* rows i and i + 8 */
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS / 2; i++) {
        const uint32_t low = mj_ptx_max_bf16x2(x[i].x & MJ_ABS2, x[i].y & MJ_ABS2);
        const uint32_t high = mj_ptx_max_bf16x2(x[i + 8].x & MJ_ABS2, x[i + 8].y & MJ_ABS2);
        m[i] = mj_ptx_max_bf16x2(__byte_perm(low, high, 0x5410), __byte_perm(low, high, 0x7632));
    }
    MJ_UNROLL for (int32_t half = MJ_WARP_ROWS / 4; half > 0; half /= 2) {
        const bool upper = (MJ_LANE & (2 * half)) != 0;
        MJ_UNROLL for (int32_t i = 0; i < half; i++) {
            const uint32_t mine = upper ? m[i + half] : m[i], theirs = upper ? m[i] : m[i + half];
            m[i] = mj_ptx_max_bf16x2(mine, __shfl_xor_sync(0xffffffffu, theirs, 2 * half));
        }
    }
    m[0] = mj_ptx_max_bf16x2(m[0], __shfl_xor_sync(0xffffffffu, m[0], 16));
    m[0] = mj_ptx_max_bf16x2(m[0], __shfl_xor_sync(0xffffffffu, m[0], 1));
    m[0] = mj_ptx_max_bf16x2(m[0], 0); /* a row of NaN alone */
    const float amax = MJ_LANE < 16 ? MJ_LOW_F32(m[0]) : MJ_HIGH_F32(m[0]);
    const float scale = mj_fp8_scale(amax, out->type);
    const int32_t r = at->first + MJ_LANE / 2;
    if (MJ_LANE % 2 == 0 && r <= at->last) out->q_scale[(int64_t)(at->c / MJ_TILE) * out->rows + r] = scale;
    return mj_fp8_inverse(scale);
}

/* What this thread's four columns are multiplied by. Every thread of the block takes part. */
MJ_FN float4 mj_quant_column_scales(const uint2 x[MJ_WARP_ROWS], const MjQuantOut *out, const MjTileAt *at, void *shared)
{
    uint32_t low = 0, high = 0;
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) {
        low = mj_ptx_max_bf16x2(low, x[i].x & MJ_ABS2);
        high = mj_ptx_max_bf16x2(high, x[i].y & MJ_ABS2);
    }
    ((uint2 *)(MJ_TILE_MAX(shared) + MJ_WARP_INDEX * MJ_TILE))[MJ_LANE] = make_uint2(low, high);
    mj_barrier();
    if (threadIdx.x < MJ_TILE) {
        const int32_t j = (int32_t)threadIdx.x;
        float amax = 0.0f;
        MJ_UNROLL for (int32_t w = 0; w < MJ_TILE_WARPS; w++) amax = fmaxf(amax, mj_bf16_to_f32(MJ_TILE_MAX(shared)[w * MJ_TILE + j]));
        const float scale = mj_fp8_scale(amax, out->type);
        if (at->c + j < out->cols) out->qt_scale[(int64_t)(at->first / MJ_TILE) * out->cols + at->c + j] = scale;
        MJ_TILE_INVERSE(shared)[j] = mj_fp8_inverse(scale);
    }
    mj_barrier();
    return ((const float4 *)MJ_TILE_INVERSE(shared))[MJ_LANE];
}

/* Column `j` (0..3) of this thread, its 16 rows times `by`, into the tile that is stored along the rows. */
MJ_FN void mj_quant_turn(const float v[MJ_WARP_ROWS], float by, const MjQuantOut *out, int32_t j, void *shared)
{
    uint32_t word[4];
    MJ_UNROLL for (int32_t k = 0; k < 4; k++) {
        word[k] = mj_fp8_pair(v[4 * k] * by, v[4 * k + 1] * by, out->type) |
                  mj_fp8_pair(v[4 * k + 2] * by, v[4 * k + 3] * by, out->type) << 16;
    }
    const int32_t chunk = MJ_WARP_INDEX ^ (MJ_LANE % 8);
    *(uint4 *)(MJ_TILE_TURNED(shared) + (4 * MJ_LANE + j) * MJ_TILE + chunk * 16) = make_uint4(word[0], word[1], word[2], word[3]);
}

/* The whole block: the transposed copy of the tile. Rows beyond the matrix are zeros and fill its last 128. */
MJ_FN void mj_quant_store_turned(const uint2 x[MJ_WARP_ROWS], float4 by, const MjQuantOut *out, const MjTileAt *at, void *shared)
{
    MJ_ROLLED for (int32_t j = 0; j < 4; j += 2) { /* once in the code: two columns cost more to compile than to choose */
        float v[MJ_WARP_ROWS];
        MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) v[i] = MJ_LOW_F32(j == 0 ? x[i].x : x[i].y);
        mj_quant_turn(v, j == 0 ? by.x : by.z, out, j, shared);
        MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) v[i] = MJ_HIGH_F32(j == 0 ? x[i].x : x[i].y);
        mj_quant_turn(v, j == 0 ? by.y : by.w, out, j + 1, shared);
    }
    mj_barrier();
    /* 8 lanes a column; every 32nd column is this thread's, and they lie alike, since 32 columns permute as the first do */
    const int32_t column = (int32_t)(threadIdx.x / 8), chunk = MJ_LANE % 8;
    const int64_t stride = MJ_KMAJOR_STRIDE(out->rows);
    const uint8_t *from = MJ_TILE_TURNED(shared) + column * MJ_TILE + (chunk ^ MJ_WARP_INDEX) * 16;
    uint8_t *to = out->qt + (at->c + column) * stride + at->first / MJ_TILE * MJ_TILE + chunk * 16;
    MJ_UNROLL for (int32_t k = 0; k < MJ_TILE / MJ_TURN_COLUMNS; k++)
        if (out->cols % MJ_TILE == 0 || at->c + column + k * MJ_TURN_COLUMNS < out->cols)
            *(uint4 *)(to + k * MJ_TURN_COLUMNS * stride) = *(const uint4 *)(from + k * MJ_TURN_COLUMNS * MJ_TILE);
}

/* The copies that lie as the matrix does, fp8 and bf16: lane l has row l / 2's factor of 16 under MJ_SCALE_BLOCK. */
MJ_FN void mj_quant_store_rows(const uint2 x[MJ_WARP_ROWS], float inverse, const MjQuantOut *out, const MjTileAt *at)
{
    const int64_t to = (int64_t)at->first * out->cols + at->c;
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) {
        const float by = out->mode == MJ_SCALE_BLOCK ? __shfl_sync(0xffffffffu, inverse, 2 * i) : inverse;
        if (at->first + i > at->last || !at->inside) continue;
        const MjLanes v = {{MJ_LOW_F32(x[i].x), MJ_HIGH_F32(x[i].x), MJ_LOW_F32(x[i].y), MJ_HIGH_F32(x[i].y)}};
        mj_store_fp8(out->q + to + i * (int64_t)out->cols, &v, by, MJ_WHOLE, out->type);
    }
}
MJ_FN void mj_quant_store_bf16(const uint2 x[MJ_WARP_ROWS], const MjQuantOut *out, const MjTileAt *at)
{
    uint16_t *to = out->y + (int64_t)at->first * out->cols + at->c + 4 * MJ_LANE;
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++)
        if (at->first + i <= at->last && at->inside) *(uint2 *)(to + i * (int64_t)out->cols) = x[i];
}

/* What is left to do with a tile that was read; every thread of the block. */
MJ_FN void mj_quant_write(const uint2 x[MJ_WARP_ROWS], const MjQuantOut *out, const MjTileAt *at, void *shared)
{
    const bool block = out->mode == MJ_SCALE_BLOCK;
    float inverse = out->tensor_inverse;
    if (out->y != NULL) mj_quant_store_bf16(x, out, at);
    if (out->type == MJ_T_BF16) return;
    if (out->q != NULL) {
        if (block) inverse = mj_quant_row_scales(x, out, at);
        mj_quant_store_rows(x, inverse, out, at);
    }
    if (out->qt == NULL) return;
    float4 by = make_float4(inverse, inverse, inverse, inverse);
    if (block) by = mj_quant_column_scales(x, out, at, shared);
    else mj_barrier(); /* until every thread has read what the tile before left in the scratch */
    mj_quant_store_turned(x, by, out, at, shared);
}

/* One tile; every thread of the block. Columns are a multiple of 4, so that a lane's own are inside the matrix or outside
 * together. */
MJ_FN float mj_quant_tile(const MjQuantIn *in, const MjQuantOut *out, void *shared, int32_t row0, int32_t c)
{
    uint2 x[MJ_WARP_ROWS];
    const bool whole = in->gathered || in->dots || out->rows % MJ_TILE == 0; /* groups of the routed layout are whole tiles too */
    const MjTileAt at = {row0 + MJ_WARP_INDEX * MJ_WARP_ROWS, c, whole ? MJ_EVERY_ROW : in->used - 1,
                         out->cols % MJ_TILE == 0 || c + 4 * MJ_LANE < out->cols};
    float dot = 0.0f;
    if (in->dots) dot = mj_quant_read_dotted(x, in, out, &at);
    else mj_quant_read(x, in, out, &at);
    mj_quant_write(x, out, &at, shared);
    return dot;
}

/* All tiles of 128 rows, for dgate. */
MJ_FN void mj_quant_dotted_rows(const MjQuantIn *in, const MjQuantOut *out, void *shared, int32_t row0)
{
    float dot = 0.0f;
    MJ_ROLLED for (int32_t c = 0; c < out->cols; c += MJ_TILE) {
        asm volatile("" : "+r"(row0)); /* or the compiler keeps the addresses of all rows in registers */
        dot += mj_quant_tile(in, out, shared, row0, c);
    }
    const int32_t r = row0 + MJ_WARP_INDEX * MJ_WARP_ROWS + MJ_LANE / 2;
    if (MJ_LANE % 2 == 0) mj_quant_store_dot(in, r, dot);
}

/* The tiles that most experts have first: the first of every expert, the second of every expert, ... An expert's rows are
 * its tokens in order, so what is worked on at one time comes from the same tokens, which are then in the L2 cache. Where an
 * expert starts is kept in shared memory: one load less that a tile's loads wait for. */
MJ_FN void mj_quant_gathered_tiles(const MjQuantIn *in, const MjQuantOut *out, void *shared, uint32_t mj_block, uint32_t mj_grid)
{
    const int32_t strips = (out->cols + MJ_TILE - 1) / MJ_TILE;
    int32_t *most = MJ_TILE_OFFSET(shared), *offset = most + 1; /* rows of any expert; (experts + 1) */
    if (MJ_BLOCK_LEADER) *most = 0;
    MJ_ROLLED MJ_FOR_THREADS(e, in->experts + 1) offset[e] = in->offset[e];
    mj_barrier();
    MJ_ROLLED MJ_FOR_THREADS(e, in->experts) atomicMax(most, offset[e + 1] - offset[e]);
    mj_barrier();
    MJ_FOR_ITEMS(t, *most / MJ_TILE * in->experts * strips) { /* groups are whole tiles */
        const int32_t i = t / strips, e = i % in->experts, row0 = offset[e] + i / in->experts * MJ_TILE;
        if (row0 < offset[e + 1]) mj_quant_tile(in, out, shared, row0, t % strips * MJ_TILE);
    }
}

MJ_FN void mj_quant_tiles(const MjQuantIn *in, const MjQuantOut *out, void *shared, uint32_t mj_block, uint32_t mj_grid)
{
    const int32_t strips = (out->cols + MJ_TILE - 1) / MJ_TILE, tiles = (in->used + MJ_TILE - 1) / MJ_TILE;
    if (in->gathered) {
        mj_quant_gathered_tiles(in, out, shared, mj_block, mj_grid);
        return;
    }
    if (in->dots) {
        MJ_FOR_ITEMS(t, tiles) mj_quant_dotted_rows(in, out, shared, t * MJ_TILE);
        return;
    }
    MJ_FOR_ITEMS(t, tiles * strips) mj_quant_tile(in, out, shared, t / strips * MJ_TILE, t % strips * MJ_TILE);
}

#endif
