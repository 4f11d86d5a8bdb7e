/* Quantising in one read: row blocks (1 x 128) and column blocks (128 x 1), or one scale a tensor, and a bf16 copy, of
 * what comes out of permute, combine's gradient, ReLU^2 and its gradient, or of a plain matrix. Owns the body of those
 * kernels. Values are rounded to bf16 first, so that both fp8 copies and the bf16 copy stand for the same numbers.
 *
 * Work is shared out in tiles of 128 x 128. A GPU's block holds one in registers (quant_tile_cuda.h); a CPU's thread
 * keeps the rounded values in its scratch until it knows the largest of each column.
 */
#ifndef MJ_QUANT_TILE_H
#define MJ_QUANT_TILE_H

#define MJ_QUANT_RELU2 1     /* `transform`, as in MjAmaxArgs */
#define MJ_QUANT_RELU2_BWD 2
#define MJ_QUANT_GATED 3     /* gate x: combine's gradient */

typedef struct MjQuantIn {
    const void *x;          /* (rows of x, cols) bf16, or f32 under MJ_T_F32 */
    const uint16_t *dy;     /* the second factor under MJ_QUANT_RELU2_BWD */
    const int32_t *slot_of; /* NULL, or (rows): row r is row slot_of[r] / top_k of x, or zeros where that is < 0 */
    int32_t top_k, x_type, transform;
    int32_t used;           /* rows from here on are not touched */
    int32_t gathered;       /* 1: slot_of is there; said by the kernel, so that one walk over the tiles is compiled, not two */
    const int32_t *offset;  /* with slot_of: (experts + 1) */
    int32_t experts;
    const float *gate;      /* of a slot: under MJ_QUANT_GATED, and with `dots` */
    /* 1, under MJ_QUANT_RELU2_BWD: dgate[slot] = max(x, 0)^2 . dy / gate[slot] of row r, slot = dot_slot[r] unless that is < 0.
     * All of a row belongs to one block: a chunk's product is one fixed tree (four neighbours, then 32 sums by halves), chunks
     * are added in order. */
    int32_t dots;
    const int32_t *dot_slot; /* (rows) */
    float *dgate;
} MjQuantIn;

typedef struct MjQuantOut {
    uint16_t *y;           /* (rows, cols) bf16 or NULL */
    uint8_t *q, *qt;       /* (rows, cols) or NULL; qt is (cols, MJ_KMAJOR_STRIDE(rows)) under `kmajor` */
    float *q_scale;        /* (ceil(cols/128), rows), or (1) */
    float *qt_scale;       /* (ceil(rows/128), cols) */
    float tensor_inverse;  /* 1 / scale under MJ_SCALE_TENSOR */
    int32_t rows, cols, type, mode, kmajor;
    int32_t exact;         /* 1: the values are bf16 already and need no rounding */
} MjQuantOut;

#define MJ_TILE 128

MJ_FN float mj_tensor_inverse(const float *scale, float *copy)
{
    if (scale == NULL) return 1.0f;
    if (copy != NULL && copy != scale && MJ_BLOCK_LEADER) *copy = *scale;
    return 1.0f / *scale;
}

/* The rows that count: up to offset[experts] in the routed layout, all of a dense matrix. */
MJ_FN int32_t mj_rows_used(const int32_t *offset, int32_t experts, int32_t rows)
{
    return offset != NULL ? offset[experts] : rows;
}

/* What the transforms take of x is max(x, 0): +0 where x is not larger than 0; NaN stays. */
MJ_FN bool mj_quant_of_positive(int32_t transform) { return transform == MJ_QUANT_RELU2 || transform == MJ_QUANT_RELU2_BWD; }
/* That of x, and dy, to what is quantised; not rounded. */
MJ_FN void mj_quant_transform(MjLanes *x, const MjLanes *dy, int32_t transform)
{
    if (transform == MJ_QUANT_RELU2) {
        MJ_FOR_LANES(l) x->v[l] *= x->v[l];
    } else if (transform == MJ_QUANT_RELU2_BWD) {
        MJ_FOR_LANES(l) x->v[l] = dy->v[l] * (2.0f * x->v[l]);
    }
}

/* A gate of zero has no gradient that dy could tell: all of dy is zeros. */
MJ_FN void mj_quant_store_dot(const MjQuantIn *in, int32_t r, float twice)
{
    const int32_t slot = in->dot_slot[r];
    if (slot >= 0) in->dgate[slot] = in->gate[slot] != 0.0f ? 0.5f * twice / in->gate[slot] : 0.0f;
}

#if MJ_CPU
#include "quant_tile_cpu.h"
#else
#include "quant_tile_cuda.h"
#endif

/* The body of a quantising kernel; every block of the grid calls it. `args` has the fields that MjQuantizeArgs has too. */
#define MJ_QUANTISE(in, out)                                                                                           \
    do {                                                                                                               \
        if ((out)->mode == MJ_SCALE_TENSOR)                                                                            \
            (out)->tensor_inverse = mj_tensor_inverse(args->tensor_scale, mj_block == 0 ? (out)->q_scale : NULL);       \
        mj_quant_tiles((in), (out), mj_shared, mj_block, mj_grid);                                                      \
    } while (0)

#endif
