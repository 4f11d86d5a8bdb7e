/* The tiles of quant_tile.h on a CPU: one thread, row after row. Scratch: the tile in bf16, then a sum for each of its rows. */
#ifndef MJ_QUANT_TILE_CPU_H
#define MJ_QUANT_TILE_CPU_H

/* One chunk's part of a row's product, in the order that a GPU's lanes of four columns add in. */
MJ_FN float mj_quant_dot(const MjLanes *a, const MjLanes *b)
{
    float s64[64], s32[32];
    MjLanes p;
    MJ_FOR_LANES(l) p.v[l] = a->v[l] * b->v[l];
    for (int32_t t = 0; t < 64; t++) s64[t] = p.v[2 * t] + p.v[2 * t + 1];
    for (int32_t t = 0; t < 32; t++) s32[t] = s64[2 * t] + s64[2 * t + 1];
    MJ_HALVE(s16, s32, 16, MJ_SUM_OF);
    MJ_HALVE(s8, s16, 8, MJ_SUM_OF);
    MJ_HALVE(s4, s8, 4, MJ_SUM_OF);
    return (s4[0] + s4[2]) + (s4[1] + s4[3]);
}

MJ_FN void mj_quant_positive(MjLanes *x)
{
    MJ_FOR_LANES(l) x->v[l] = x->v[l] <= 0.0f ? 0.0f : x->v[l];
}

/* Columns from element `at` of the input on, `left` in its row, transformed but not rounded. */
MJ_FN void mj_quant_load(MjLanes *x, const MjQuantIn *in, int64_t at, int32_t left)
{
    MjLanes dy = mj_lanes_zero();
    if (in->x_type == MJ_T_F32) {
        mj_load_f32(x, (const float *)in->x + at, left);
    } else {
        mj_load_bf16(x, (const uint16_t *)in->x + at, left);
    }
    if (mj_quant_of_positive(in->transform)) mj_quant_positive(x);
    if (in->transform == MJ_QUANT_RELU2_BWD) mj_load_bf16(&dy, in->dy + at, left);
    mj_quant_transform(x, &dy, in->transform);
}

/* `dot`, with in->dots, gets this chunk's part added. */
MJ_FN void mj_quant_source(MjLanes *x, const MjQuantIn *in, const MjQuantOut *out, int32_t r, int32_t c, float *dot)
{
    int32_t source = r, slot = 0;
    if (in->slot_of != NULL) {
        slot = in->slot_of[r];
        if (slot < 0) {
            *x = mj_lanes_zero();
            return;
        }
        source = slot / in->top_k;
    }
    mj_quant_load(x, in, (int64_t)source * out->cols + c, out->cols - c);
    if (in->transform == MJ_QUANT_GATED) {
        const float gate = in->gate[slot];
        MJ_FOR_LANES(l) x->v[l] *= gate;
    }
    if (in->dots) {
        MjLanes positive; /* twice what dgate wants comes of dy (2 max(x, 0)) times this */
        mj_load_bf16(&positive, (const uint16_t *)in->x + (int64_t)r * out->cols + c, out->cols - c);
        mj_quant_positive(&positive);
        *dot += mj_quant_dot(x, &positive);
    }
    if (!out->exact) MJ_FOR_LANES(l) x->v[l] = mj_bf16_to_f32(mj_f32_to_bf16(x->v[l]));
}

/* Bf16, or one scale: nothing is shared between rows. */
MJ_FN void mj_quant_row(const MjQuantIn *in, const MjQuantOut *out, int32_t r)
{
    float dot = 0.0f;
    MJ_FOR_CHUNKS(c, out->cols) {
        const int64_t at = (int64_t)r * out->cols + c;
        MjLanes x;
        mj_quant_source(&x, in, out, r, c, &dot);
        if (out->y != NULL) mj_store_bf16(out->y + at, &x, out->cols - c);
        if (out->type != MJ_T_BF16) mj_store_fp8(out->q + at, &x, out->tensor_inverse, out->cols - c, out->type);
    }
    if (in->dots) mj_quant_store_dot(in, r, dot);
}

/* Row i of a tile: its bf16 copy, its row block; remembered for the columns. */
MJ_FN void mj_quant_tile_row(const MjQuantOut *out, uint16_t *stash, MjLanes *col_max, int32_t r, int32_t c, const MjLanes *x)
{
    const int64_t at = (int64_t)r * out->cols + c;
    const int32_t left = out->cols - c;
    if (out->y != NULL) mj_store_bf16(out->y + at, x, left);
    if (out->q != NULL) {
        MjLanes m = mj_lanes_zero();
        mj_lanes_abs_max(&m, x);
        const float scale = mj_fp8_scale(mj_lanes_max(&m), out->type);
        out->q_scale[(int64_t)(c / MJ_TILE) * out->rows + r] = scale;
        mj_store_fp8(out->q + at, x, mj_fp8_inverse(scale), left, out->type);
    }
    if (out->qt != NULL) {
        mj_lanes_abs_max(col_max, x);
        mj_store_bf16_exact(stash, x);
    }
}

/* After all rows of the tile: the column blocks. */
MJ_FN void mj_quant_tile_columns(const MjQuantOut *out, const uint16_t *stash, const MjLanes *col_max, int32_t row0, int32_t rows_here,
                                 int32_t c)
{
    MjLanes scale, inverse;
    MJ_FOR_LANES(l) scale.v[l] = mj_fp8_scale(col_max->v[l], out->type);
    MJ_FOR_LANES(l) inverse.v[l] = mj_fp8_inverse(scale.v[l]);
    mj_store_f32(out->qt_scale + (int64_t)(row0 / MJ_TILE) * out->cols + c, &scale, out->cols - c);
    for (int32_t i = 0; i < rows_here; i++) {
        MjLanes x;
        mj_load_bf16(&x, stash + i * MJ_TILE, MJ_TILE);
        MJ_FOR_LANES(l) x.v[l] *= inverse.v[l];
        mj_store_fp8(out->qt + (int64_t)(row0 + i) * out->cols + c, &x, 1.0f, out->cols - c, out->type);
    }
}

/* One tile, from row0 and column c on. */
MJ_FN void mj_quant_tile(const MjQuantIn *in, const MjQuantOut *out, void *shared, int32_t row0, int32_t c)
{
    uint16_t *stash = (uint16_t *)shared; /* (128, 128) */
    float *dot = (float *)(void *)(stash + MJ_TILE * MJ_TILE); /* (128), of the tiles before */
    const int32_t rows_here = in->used - row0 < MJ_TILE ? in->used - row0 : MJ_TILE;
    MjLanes col_max = mj_lanes_zero();
    for (int32_t i = 0; i < rows_here; i++) {
        MjLanes x;
        mj_quant_source(&x, in, out, row0 + i, c, dot + i);
        mj_quant_tile_row(out, stash + i * MJ_TILE, &col_max, row0 + i, c, &x);
    }
    if (out->qt != NULL) mj_quant_tile_columns(out, stash, &col_max, row0, rows_here, c);
}

/* All tiles of 128 rows, for dgate. */
MJ_FN void mj_quant_dotted_rows(const MjQuantIn *in, const MjQuantOut *out, void *shared, int32_t row0)
{
    float *dot = (float *)(void *)((uint16_t *)shared + MJ_TILE * MJ_TILE);
    for (int32_t i = 0; i < MJ_TILE; i++) dot[i] = 0.0f;
    for (int32_t c = 0; c < out->cols; c += MJ_TILE) mj_quant_tile(in, out, shared, row0, c);
    for (int32_t i = 0; i < MJ_TILE && row0 + i < in->used; i++) mj_quant_store_dot(in, row0 + i, dot[i]);
}

MJ_FN void mj_quant_tiles(const MjQuantIn *in, const MjQuantOut *out, void *shared, uint32_t mj_block, uint32_t mj_grid)
{
    if (out->type == MJ_T_BF16 || out->mode == MJ_SCALE_TENSOR) {
        MJ_FOR_ROWS(r, in->used) mj_quant_row(in, out, r);
        return;
    }
    const int32_t strips = (out->cols + MJ_TILE - 1) / MJ_TILE, tiles = (in->used + MJ_TILE - 1) / MJ_TILE;
    if (in->dots) {
        MJ_FOR_ITEMS(t, tiles) mj_quant_dotted_rows(in, out, shared, t * MJ_TILE);
        return;
    }
    MJ_FOR_ITEMS(t, tiles * strips) mj_quant_tile(in, out, shared, t / strips * MJ_TILE, t % strips * MJ_TILE);
}

#endif
