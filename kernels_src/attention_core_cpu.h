/* What the CPU's attention kernels share: which keys a token sees, packing of tiles, products of tiles.
 * A token sees a run of keys, [low(i), i]; low never falls as i grows, so tiles out of range are skipped by comparing
 * ends. A masked score weighs exactly zero, so tiles that a row does not need change none of its bits. */
#ifndef MJ_ATTENTION_CORE_CPU_H
#define MJ_ATTENTION_CORE_CPU_H

#include "attention_tile.h"
#include "tile_cpu.h"

#define MJ_AT MJ_ATTENTION_TILE

/* First key that token i sees. */
MJ_INLINE int32_t mj_attention_low(const int32_t *pos, int32_t window, int32_t i)
{
    const int32_t begin = i - pos[i], near = i - window + 1;
    return begin > near ? begin : near;
}

/* One head's rows of (N, ..., H, D): row n at base + n * stride. */
typedef struct MjHeadRows {
    const uint16_t *base;
    int64_t stride;
} MjHeadRows;

MJ_INLINE const mj_pair *mj_head_row(MjHeadRows x, int32_t n)
{
    return (const mj_pair *)(const void *)(x.base + (int64_t)n * x.stride);
}

/* Rows first.. of a tile as the right side of a product over D: (D/2)(64)(2). */
static __attribute__((noinline, unused)) void mj_attention_pack_t(MjHeadRows x, int32_t first, int32_t rows, int32_t dim,
                                                                  uint32_t *out)
{
    mj_pack_transposed(MJ_TYPE_BF16, (const uint8_t *)mj_head_row(x, first), x.stride, rows, dim, MJ_AT, out, MJ_AT);
}

/* The same rows as the right side of a product over the rows: (32)(D)(2). Rows past `rows` are zeros. */
static __attribute__((noinline, unused)) void mj_attention_pack(MjHeadRows x, int32_t first, int32_t rows, int32_t dim,
                                                                uint32_t *out)
{
    mj_pack_rows(MJ_TYPE_BF16, (const uint8_t *)mj_head_row(x, first), x.stride, rows, dim, dim, out, dim);
    const int32_t pairs = (rows + 1) / 2;
    memset(out + (int64_t)pairs * dim, 0, (size_t)(MJ_AT / 2 - pairs) * (size_t)dim * 4);
}

/* scores(rows, 64) = X(rows first.., D) Y^T, Y packed by mj_attention_pack_t. */
MJ_INLINE void mj_attention_scores(MjHeadRows x, int32_t first, int32_t rows, int32_t dim, const uint32_t *y, float *scores)
{
    const MjStrip s = {mj_head_row(x, first), y, scores, NULL, x.stride / 2, MJ_AT, MJ_AT, rows, dim / 2};
    mj_strip_multiply(&s);
}

/* sum(rows, D) = alpha sum + p(rows, 64) Y(64, D), Y packed by mj_attention_pack. */
MJ_INLINE void mj_attention_add(const uint16_t *p, const uint32_t *y, int32_t rows, int32_t dim, const float *alpha, float *sum)
{
    for (int32_t c = 0; c < dim; c += MJ_PANEL) {
        const MjStrip s = {(const mj_pair *)(const void *)p, y + c, sum + c, alpha, MJ_AT / 2, dim, dim, rows, MJ_AT / 2};
        mj_strip_multiply(&s);
    }
}

#endif
