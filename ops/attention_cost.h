/* A model of attention's time, for the choice among its templates' tuning values; see tile_choice.h. */
#ifndef MJ_OPS_ATTENTION_COST_H
#define MJ_OPS_ATTENTION_COST_H

#include "ops/tile_choice.h"

/* An item is a tile of `rows` tokens of a head; the other side streams by in steps of `step` tokens. Backward is two launches
 * that do so, and the model adds them up. */
typedef struct MjAttentionModel {
    int32_t rows, step;
    int32_t order;      /* MJ_ATTENTION_*: of persistent blocks; -1: a block an item, as the hardware places them */
    int32_t warps;      /* that multiply, of a block */
    double products;    /* (rows, step, D) multiplications in a step */
    double exponentials, operations; /* of each score: on the special function units, in f32 */
    double streamed;    /* (step, D) bf16 tiles that a step reads */
    double own_bytes;   /* of an item, for each row and element of D: what it reads and writes beside the stream */
    double once_bytes;  /* of the launch, for each token, head and element of D: everything once */
    double rate;        /* the part of the tensor cores' rate that the instructions reach */
    double hidden;      /* the part of the shorter one of products and softmax that runs beside the longer one */
    double contended;   /* the part of the shorter one of work and memory's time that does not run beside the longer one */
    int32_t in_use;     /* stages that a block holds while it works: fewer free ones than 1, and a step waits */
    int32_t most_resident; /* blocks of a multiprocessor, by their registers */
} MjAttentionModel;

typedef struct MjAttentionSize {
    int32_t tokens, heads, head_dim, window;
    int32_t longest; /* tokens of a sequence; 0: there is one */
} MjAttentionSize;

/* tiles: steps in all; waves: those of the busiest multiprocessor; cycles of one step, epilogue_cycles of one item. Positions are
 * data: every sequence is taken to be as long as the longest. */
void mj_attention_cost(const MjAttentionModel *model, const MjCard *card, const MjAttentionSize *size, int32_t stages,
                       const MjOpGeometry *geometry, MjTileCost *out);

#endif
