/* The table of ops, in the order of MjOpId. A new op is a line here, a row in op_*.c and a reference in ref_*.c. */
#include "ops/op_row.h"

#define ROWS                                                                                                           \
    &mj_row_embedding_fwd, &mj_row_embedding_bwd, &mj_row_rmsnorm_fwd, &mj_row_rmsnorm_quant, &mj_row_rmsnorm_bwd, \
    &mj_row_rope_qknorm_fwd, &mj_row_rope_qknorm_bwd, &mj_row_rope_qknorm_bwd_quant, &mj_row_attention_fwd, &mj_row_attention_bwd, \
    &mj_row_gemm, &mj_row_router_fwd, &mj_row_router_bwd, &mj_row_route_map, \
    &mj_row_balance, &mj_row_permute, &mj_row_permute_bwd, &mj_row_combine_fwd, \
    &mj_row_combine_bwd, &mj_row_relu2_fwd, &mj_row_relu2_bwd, &mj_row_quantize, \
    &mj_row_quantize_weight, &mj_row_amax, &mj_row_cross_entropy, &mj_row_sum, \
    &mj_row_adamw, &mj_row_add_pieces

const MjOpRow *const mj_op_rows[MJ_OP_COUNT] = {ROWS};

_Static_assert(sizeof((const MjOpRow *const[]){ROWS}) / sizeof(const MjOpRow *) == MJ_OP_COUNT,
               "every op of MjOpId has a row, in the same order");
