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

typedef struct MjTileAt {
    int32_t first; /* row of the matrix that this warp's rows start at */
    int32_t c;     /* the tile's first column */
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

/* Whether row r is one of those in use. In the routed layout groups are whole tiles, and nobody need ask. */
MJ_FN bool mj_quant_in_use(const MjQuantIn *in, int32_t r) { return in->dots || in->slot_of != NULL || r < in->used; }

/* What a lane knows of a row of the matrix: the row of the input, -1 where there are zeros, and its gate. */
typedef struct MjTileSource {
    int32_t row;
    float gate;
} MjTileSource;
MJ_FN MjTileSource mj_quant_source(const MjQuantIn *in, int32_t r)
{
    const int32_t slot = !mj_quant_in_use(in, r) ? -1 : in->slot_of != NULL ? in->slot_of[r] : r;
    MjTileSource s = {slot < 0 || in->slot_of == NULL ? slot : slot / in->top_k, 0.0f};
    if (in->transform == MJ_QUANT_GATED && slot >= 0) s.gate = in->gate[slot];
    return s;
}

/* Lane l gets, with in->dots, this tile's part of the product of row l / 2 of the warp's. */
MJ_FN float mj_quant_read(uint2 x[MJ_WARP_ROWS], const MjQuantIn *in, const MjQuantOut *out, const MjTileAt *at)
{
    const int32_t column = at->inside ? at->c : at->c - 4 * MJ_LANE; /* outside: column c, in place of zeros */
    float dot[MJ_WARP_ROWS / 2];
    MjTileSource mine = {0, 0.0f};
    if (in->slot_of != NULL) mine = mj_quant_source(in, at->first + MJ_LANE % MJ_WARP_ROWS);
    MJ_UNROLL for (int32_t k = 0; k < MJ_WARP_ROWS; k++) {
        const int32_t i = in->dots ? k / 2 + k % 2 * 8 : k;
        const int32_t source = in->slot_of != NULL ? __shfl_sync(0xffffffffu, mine.row, i) : mj_quant_source(in, at->first + i).row;
        MjLanes v; /* for zeros, row 0 is read: no branch parts the loads */
        mj_quant_load(&v, in, source < 0 ? 0 : source, out->cols, column, MJ_WHOLE);
        if (in->transform == MJ_QUANT_GATED) {
            const float gate = __shfl_sync(0xffffffffu, mine.gate, i);
            MJ_FOR_LANES(l) v.v[l] *= gate;
        }
        if (in->dots) {
            MjLanes p;
            mj_quant_load_positive(&p, in, (int64_t)(source < 0 ? 0 : source) * out->cols + column, MJ_WHOLE);
            const float sum = at->inside ? (v.v[0] * p.v[0] + v.v[1] * p.v[1]) + (v.v[2] * p.v[2] + v.v[3] * p.v[3]) : 0.0f;
            dot[k / 2] = k % 2 == 0 ? sum : mj_quant_hand_over(dot[k / 2], sum, 8);
        }
        const uint2 packed = out->exact ? mj_pack_bf16_exact(&v) : mj_pack_bf16(&v);
        x[i] = source < 0 || !at->inside ? make_uint2(0, 0) : packed;
        if (in->dots && k % 8 == 7) mj_warp_sync(); /* keeps the loads of 8 rows in flight: those of 16 do not fit the registers */
    }
    return in->dots ? mj_quant_row_sums(dot) : 0.0f;
}

/* Lane l gets what row l / 2 of the warp's rows is multiplied by, and stores that row's scale. The largest of 16 rows
 * are found together: in each step a lane hands over the half of the rows that it stops working on. */
MJ_FN float mj_quant_row_scales(const uint2 x[MJ_WARP_ROWS], const MjQuantIn *in, const MjQuantOut *out, const MjTileAt *at)
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
    if (MJ_LANE % 2 == 0 && mj_quant_in_use(in, r)) out->q_scale[(int64_t)(at->c / MJ_TILE) * out->rows + r] = scale;
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
    float v[MJ_WARP_ROWS];
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) v[i] = MJ_LOW_F32(x[i].x);
    mj_quant_turn(v, by.x, out, 0, shared);
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) v[i] = MJ_HIGH_F32(x[i].x);
    mj_quant_turn(v, by.y, out, 1, shared);
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) v[i] = MJ_LOW_F32(x[i].y);
    mj_quant_turn(v, by.z, out, 2, shared);
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) v[i] = MJ_HIGH_F32(x[i].y);
    mj_quant_turn(v, by.w, out, 3, shared);
    mj_barrier();
    const int64_t stride = MJ_KMAJOR_STRIDE(out->rows), row0 = at->first / MJ_TILE * MJ_TILE;
    MJ_UNROLL for (int32_t k = 0; k < 4; k++) {
        const int32_t id = (int32_t)threadIdx.x + k * MJ_TILE_WARPS * 32, column = id / 8, chunk = id % 8;
        if (at->c + column >= out->cols) continue;
        *(uint4 *)(out->qt + (at->c + column) * stride + row0 + chunk * 16) =
            *(const uint4 *)(MJ_TILE_TURNED(shared) + column * MJ_TILE + (chunk ^ (column / 4 % 8)) * 16);
    }
}

/* The copies that lie as the matrix does: lane l has row l / 2's factor of 16 under MJ_SCALE_BLOCK. */
MJ_FN void mj_quant_store_rows(const uint2 x[MJ_WARP_ROWS], float inverse, const MjQuantIn *in, const MjQuantOut *out, const MjTileAt *at)
{
    const int64_t to = (int64_t)at->first * out->cols + at->c;
    MJ_UNROLL for (int32_t i = 0; i < MJ_WARP_ROWS; i++) {
        const float by = out->mode == MJ_SCALE_BLOCK ? __shfl_sync(0xffffffffu, inverse, 2 * i) : inverse;
        if ((!in->dots && at->first + i >= in->used) || !at->inside) continue; /* also where it is known: or permute spills */
        const MjLanes v = {{MJ_LOW_F32(x[i].x), MJ_HIGH_F32(x[i].x), MJ_LOW_F32(x[i].y), MJ_HIGH_F32(x[i].y)}};
        if (out->y != NULL) mj_store_bf16(out->y + to + i * (int64_t)out->cols, &v, MJ_WHOLE);
        if (out->type != MJ_T_BF16 && out->q != NULL) mj_store_fp8(out->q + to + i * (int64_t)out->cols, &v, by, MJ_WHOLE, out->type);
    }
}

/* What is left to do with a tile that was read; every thread of the block. */
MJ_FN void mj_quant_write(const uint2 x[MJ_WARP_ROWS], const MjQuantIn *in, const MjQuantOut *out, const MjTileAt *at, void *shared)
{
    const bool block = out->mode == MJ_SCALE_BLOCK;
    float inverse = out->tensor_inverse;
    if (out->type != MJ_T_BF16 && out->q != NULL && block) inverse = mj_quant_row_scales(x, in, out, at);
    mj_quant_store_rows(x, inverse, in, out, at);
    if (out->type == MJ_T_BF16 || out->qt == NULL) return;
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
    const MjTileAt at = {row0 + MJ_WARP_INDEX * MJ_WARP_ROWS, c, out->cols % MJ_TILE == 0 || c + 4 * MJ_LANE < out->cols};
    const float dot = mj_quant_read(x, in, out, &at);
    mj_quant_write(x, in, out, &at, shared);
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
    MJ_FOR_THREADS(e, in->experts + 1) offset[e] = in->offset[e];
    mj_barrier();
    MJ_FOR_THREADS(e, in->experts) atomicMax(most, offset[e + 1] - offset[e]);
    mj_barrier();
    MJ_FOR_ITEMS(t, *most / MJ_TILE * in->experts * strips) { /* groups are whole tiles */
        const int32_t i = t / strips, e = i % in->experts, row0 = offset[e] + i / in->experts * MJ_TILE;
        if (row0 < offset[e + 1]) mj_quant_tile(in, out, shared, row0, t % strips * MJ_TILE);
    }
}

MJ_FN void mj_quant_tiles(const MjQuantIn *in, const MjQuantOut *out, void *shared, uint32_t mj_block, uint32_t mj_grid)
{
    const int32_t strips = (out->cols + MJ_TILE - 1) / MJ_TILE, tiles = (in->used + MJ_TILE - 1) / MJ_TILE;
    if (in->slot_of != NULL) {
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
