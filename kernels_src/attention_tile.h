/* How attention is cut into blocks, shared by the templates and the host: a block is one head and one tile of tokens, tiles
 * begin at multiples of their size in the stream whatever the grid, so no bit depends on it. */
#ifndef MJ_ATTENTION_TILE_H
#define MJ_ATTENTION_TILE_H

#ifndef __CUDACC_RTC__
#include <stdint.h>
#endif

#define MJ_ATTENTION_DELTA_THREADS 256

/* ---- mma.sync: a warp for 16 rows of the block's tile; bytes of shared memory ------------------------------------- */

#define MJ_ATTENTION_MMA_ROWS(warps) (16 * (warps))
#define MJ_ATTENTION_MMA_KEYS 64 /* forward: keys of a stage */
#define MJ_ATTENTION_MMA_STEP 32 /* backward: rows of a stage */
/* Q, then two stages of K and V */
#define MJ_ATTENTION_MMA_FWD_BYTES(warps, dim) ((MJ_ATTENTION_MMA_ROWS(warps) + 4 * MJ_ATTENTION_MMA_KEYS) * (dim) * 2)
/* Two tiles of the block's own rows, two stages of two tiles that stream by, and for dk and dv also lse, delta and low of
 * each stage's queries. */
#define MJ_ATTENTION_MMA_DQ_BYTES(warps, dim) ((2 * MJ_ATTENTION_MMA_ROWS(warps) + 4 * MJ_ATTENTION_MMA_STEP) * (dim) * 2)
#define MJ_ATTENTION_MMA_DKV_BYTES(warps, dim) (MJ_ATTENTION_MMA_DQ_BYTES(warps, dim) + 2 * 3 * 4 * MJ_ATTENTION_MMA_STEP)

/* ---- wgmma: persistent blocks of two warpgroups that multiply, 64 rows each ----------------------------------------- */

#define MJ_ATTENTION_SM90_THREADS 384
#define MJ_ATTENTION_SM90_FWD_ROWS 128
#define MJ_ATTENTION_SM90_FWD_KEYS 128 /* as many as rows */
/* Q, the stages of K and V, out, barriers; and the room to start at a multiple of 1024 */
#define MJ_ATTENTION_SM90_FWD_BYTES(stages, dim)                                                                         \
    ((2 * MJ_ATTENTION_SM90_FWD_ROWS + 2 * (stages) * MJ_ATTENTION_SM90_FWD_KEYS) * (dim) * 2 + 16 + 32 * (stages) + 1024)

#define MJ_ATTENTION_SM90_BWD_STEP 64 /* a warpgroup's own rows, and rows of a tile that streams by */
#define MJ_ATTENTION_SM90_DQ_TILES 3  /* of the block's own rows: q, dout, out */
#define MJ_ATTENTION_SM90_DKV_TILES 2 /* k, v */
/* Own tiles, the stages of two tiles, 16 rows of 64 columns a warp for what is written, a stage's vectors, barriers and a word; and
 * the room to start at a multiple of 1024 */
#define MJ_ATTENTION_SM90_BWD_BYTES(own_tiles, stages, dim)                                                              \
    ((2 * (own_tiles) + 2 * (stages)) * MJ_ATTENTION_SM90_BWD_STEP * (dim) * 2 + 8 * 16 * 128 +                              \
     (stages) * (3 * 4 * MJ_ATTENTION_SM90_BWD_STEP + 16) + 32 + 1024)

/* The order of work (parameter ORDER): which items (a tile of a head) a block takes, and when. A matter of speed alone.
 * TILE_BY_TILE: a tile of every head, then the next, so that a round of all blocks has items of like size.
 * MIRRORED: head by head; a block takes a tile and next the opposite tile of the neighbouring head, which make the same sum for
 * all blocks, and the keys and values of the few heads at work at a time stay in the L2 cache. */
#define MJ_ATTENTION_TILE_BY_TILE 0
#define MJ_ATTENTION_MIRRORED 1

#ifdef __CUDACC_RTC__
#define MJ_ORDER_FN static __device__ __forceinline__
#else
#define MJ_ORDER_FN static inline
#endif

/* The item of a block's n-th turn, or -1 when there is none left. Turns run forth and back, so that items sorted by their work
 * share it out evenly. Mirrored, two turns are a pair, unless that left blocks without any. */
MJ_ORDER_FN int32_t mj_attention_item(int32_t order, int32_t turn, int32_t block, int32_t grid, int32_t items)
{
    const int32_t size = order == MJ_ATTENTION_MIRRORED && items > grid ? 2 : 1, round = turn / size;
    const int32_t item = (round * grid + (round % 2 == 0 ? block : grid - 1 - block)) * size + turn % size;
    return item < items ? item : -1;
}

typedef struct MjPlace {
    int32_t head, tile;
} MjPlace;

/* Mirrored, two heads share a run of items; a last head that is alone shares with itself. */
MJ_ORDER_FN MjPlace mj_attention_place(int32_t order, int32_t item, int32_t tiles, int32_t heads)
{
    MjPlace p = {item % heads, item / heads};
    if (order == MJ_ATTENTION_MIRRORED) {
        const int32_t within = item % (2 * tiles), second = within % 2;
        p.head = item / (2 * tiles) * 2;
        p.head += second != 0 && p.head + 1 < heads ? 1 : 0;
        p.tile = second != 0 ? tiles - 1 - within / 2 : within / 2;
    }
    return p;
}

#ifndef __CUDACC_RTC__
/* ---- the CPU ------------------------------------------------------------------------------------------------------ */

#define MJ_ATTENTION_TILE 64
#define MJ_ATTENTION_MAX_DIM 128

/* Scratch of a block in bytes. A matrix of scores is f32 (64, 64); one of probabilities is bf16 (64, 64); an operand is
 * bf16 (64, D), packed in panels; a result f32 (64, D). */
#define MJ_ATTENTION_SCORES (4 * MJ_ATTENTION_TILE * MJ_ATTENTION_TILE)
#define MJ_ATTENTION_PROBS (2 * MJ_ATTENTION_TILE * MJ_ATTENTION_TILE)
#define MJ_ATTENTION_OPERAND (2 * MJ_ATTENTION_TILE * MJ_ATTENTION_MAX_DIM)
#define MJ_ATTENTION_RESULT (4 * MJ_ATTENTION_TILE * MJ_ATTENTION_MAX_DIM)
#define MJ_ATTENTION_FWD_SHARED_BYTES \
    (MJ_ATTENTION_SCORES + MJ_ATTENTION_PROBS + 2 * MJ_ATTENTION_OPERAND + MJ_ATTENTION_RESULT)
#define MJ_ATTENTION_BWD_SHARED_BYTES \
    (2 * MJ_ATTENTION_SCORES + 2 * MJ_ATTENTION_PROBS + 4 * MJ_ATTENTION_OPERAND + 2 * MJ_ATTENTION_RESULT)

static inline int32_t mj_attention_tiles(int32_t tokens)
{
    return (tokens + MJ_ATTENTION_TILE - 1) / MJ_ATTENTION_TILE;
}

/* Blocks of a launch: of the forward kernel and of each of the backward ones. */
static inline int32_t mj_attention_grid(int32_t tokens, int32_t heads) { return mj_attention_tiles(tokens) * heads; }

#endif
#endif
