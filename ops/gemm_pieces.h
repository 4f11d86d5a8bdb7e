/* Gradients of dense weights in pieces of rows: a product of few tiles and many rows leaves most of a GPU idle, so the rows are
 * cut into pieces, each a group of one grouped product (MjGemmArgs.piece), which MJ_OP_ADD_PIECES adds up. Owns the decision. */
#ifndef MJ_OPS_GEMM_PIECES_H
#define MJ_OPS_GEMM_PIECES_H

#include "ops/ops.h"

#define MJ_PIECES_MOST 16

typedef struct MjPieces {
    int32_t pieces; /* 1: the product stays whole */
    int32_t rows;   /* of a piece, a multiple of MJ_GROUP_ALIGN; 0 when whole */
} MjPieces;

/* `whole`: the dense product A^T B (TN) that is added to f32, with the most rows that a run has as k. Decided by the shape, the
 * architecture and the model of time (tile_choice.h) alone, never by a mode or by what was tuned: where pieces end decides
 * the bits of a sum. A run that has it once uses it for every step: fewer rows are fewer pieces, and those after them zeros.
 * Whole where the family has no model (CPU), no template, or the library multiplies. MOJIT_PIECES=N in the environment: N pieces
 * (1: whole) wherever there is a choice, to compare with. Compiles and launches nothing. */
int mj_gemm_pieces(MjOps *ops, const MjGemmArgs *whole, MjPieces *out, MjError *err) MJ_MUST_CHECK;

#endif
