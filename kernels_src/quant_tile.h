/* Quantising a tile of 128 x 128 in one read: row blocks (1 x 128) and column blocks (128 x 1), or one scale a tensor,
 * and a bf16 copy. Owns what permute, relu2 and quantize share. Values are rounded to bf16 first, so that both fp8
 * copies and the bf16 copy stand for the same numbers. */
#ifndef MJ_QUANT_TILE_H
#define MJ_QUANT_TILE_H

typedef struct MjQuantOut {
    uint16_t *y;           /* (rows, cols) bf16 or NULL */
    uint8_t *q, *qt;       /* (rows, cols) or NULL */
    float *q_scale;        /* (ceil(cols/128), rows), or (1) */
    float *qt_scale;       /* (ceil(rows/128), cols) */
    float tensor_inverse;  /* 1 / scale under MJ_SCALE_TENSOR */
    int32_t rows, cols, type, mode;
    int32_t exact;         /* 1: the values are bf16 already and need no rounding */
} MjQuantOut;

/* scratch: the tile in bf16, then the largest magnitudes of the columns that each warp saw */
#define MJ_TILE 128
#define MJ_TILE_STASH(shared) ((uint16_t *)(shared))
#define MJ_TILE_MAX(shared) ((float *)((uint16_t *)(shared) + MJ_TILE * MJ_TILE))

MJ_FN float mj_tensor_inverse(const float *scale, float *copy)
{
    if (scale == NULL) return 1.0f;
    if (copy != NULL && copy != scale && MJ_BLOCK_LEADER) *copy = *scale;
    return 1.0f / *scale;
}

/* Row r of the matrix, row i of its tile, columns from c on. */
MJ_FN void mj_quant_row(const MjQuantOut *out, void *shared, MjLanes *col_max, int32_t i, int32_t r, int32_t c, MjLanes *x)
{
    const int32_t left = out->cols - c;
    const int64_t at = (int64_t)r * out->cols + c;
    if (!out->exact) MJ_FOR_LANES(l) x->v[l] = mj_bf16_to_f32(mj_f32_to_bf16(x->v[l]));
    if (out->y != NULL) mj_store_bf16(out->y + at, x, left);
    if (out->type == MJ_T_BF16) return;
    if (out->mode == MJ_SCALE_TENSOR) {
        mj_store_fp8(out->q + at, x, out->tensor_inverse, left, out->type);
        return;
    }
    if (out->q != NULL) {
        MjLanes m = mj_lanes_zero();
        mj_lanes_abs_max(&m, x);
        const float scale = mj_fp8_scale(mj_lanes_max(&m), out->type);
        const float inverse = 1.0f / scale;
        if (MJ_WARP_LEADER) out->q_scale[(int64_t)(c / MJ_TILE) * out->rows + r] = scale;
        mj_store_fp8(out->q + at, x, inverse, left, out->type);
    }
    if (out->qt != NULL) {
        mj_lanes_abs_max(col_max, x);
        mj_store_bf16_exact(MJ_TILE_STASH(shared) + i * MJ_TILE, x);
    }
}

/* After all rows of the tile: the column blocks. `rows_here` rows from row0 on. Every thread of the block takes part. */
MJ_FN void mj_quant_columns(const MjQuantOut *out, void *shared, const MjLanes *col_max, int32_t row0, int32_t rows_here,
                            int32_t c)
{
    if (out->type == MJ_T_BF16 || out->mode == MJ_SCALE_TENSOR || out->qt == NULL) return;
    float *maxima = MJ_TILE_MAX(shared);
    mj_store_f32(maxima + MJ_WARP_INDEX * MJ_TILE, col_max, MJ_TILE);
    mj_barrier();
    MjLanes m = mj_lanes_zero(), scale, inverse;
    for (int32_t w = 0; w < MJ_WARPS; w++) {
        MjLanes other;
        mj_load_f32(&other, maxima + w * MJ_TILE, MJ_TILE);
        mj_lanes_abs_max(&m, &other);
    }
    MJ_FOR_LANES(l) scale.v[l] = mj_fp8_scale(m.v[l], out->type);
    MJ_FOR_LANES(l) inverse.v[l] = 1.0f / scale.v[l];
    if (MJ_WARP_INDEX == 0) mj_store_f32(out->qt_scale + (int64_t)(row0 / MJ_TILE) * out->cols + c, &scale, out->cols - c);
    MJ_FOR_WARP_ROWS(i, rows_here) {
        MjLanes x;
        mj_load_bf16(&x, MJ_TILE_STASH(shared) + i * MJ_TILE, MJ_TILE);
        MJ_FOR_LANES(l) x.v[l] *= inverse.v[l];
        mj_store_fp8(out->qt + (int64_t)(row0 + i) * out->cols + c, &x, 1.0f, out->cols - c, out->type);
    }
    mj_barrier();
}

/* The rows that count: up to offset[experts] in the routed layout, all of a dense matrix. */
MJ_FN int32_t mj_rows_used(const int32_t *offset, int32_t experts, int32_t rows)
{
    return offset != NULL ? offset[experts] : rows;
}

#endif
