/* The shapes that ops are timed at on a GPU: large enough to fill a data-centre card and to outgrow its L2 cache. Grouped
 * GEMMs at width 4096 to 7168 are those that other libraries publish figures for; width 768 with 64 experts, top 8 and
 * 65,536 tokens is a step of the seed-size model. */
#include "ops/check.h"
#include "ops/refs.h"

#define END {.tokens = -1}
#define BF16 .a_type = MJ_T_BF16, .b_type = MJ_T_BF16
#define FP8 .a_type = MJ_T_E4M3, .b_type = MJ_T_E4M3, .scale_mode = MJ_SCALE_BLOCK
#define TENSOR8 .a_type = MJ_T_E4M3, .b_type = MJ_T_E4M3, .scale_mode = MJ_SCALE_TENSOR
#define ADD .c_type = MJ_T_F32, .epilogue = MJ_EPI_ACCUMULATE
#define NN .layout = MJ_GEMM_NN
#define TN .layout = MJ_GEMM_TN
/* Every expert has exactly `rows` rows, so that the count of operations is exact. */
#define BY_M(e, rows) .m = (e) * (rows), .group = MJ_GROUP_M, .experts = (e), .capacity = (rows)
#define BY_K(e, rows) .k = (e) * (rows), .layout = MJ_GEMM_TN, .group = MJ_GROUP_K, .experts = (e), .capacity = (rows)

static const MjOpShape gemm[] = {
    {BY_M(4, 8192), .n = 6144, .k = 7168, FP8}, {BY_M(4, 8192), .n = 7168, .k = 3072, FP8},
    {BY_M(4, 8192), .n = 4096, .k = 4096, FP8}, {BY_M(4, 8192), .n = 4096, .k = 2048, FP8},
    {BY_M(8, 4096), .n = 6144, .k = 7168, FP8}, {BY_M(8, 4096), .n = 7168, .k = 3072, FP8},
    {BY_M(8, 4096), .n = 4096, .k = 4096, FP8}, {BY_M(8, 4096), .n = 4096, .k = 2048, FP8},
    {BY_M(4, 8192), .n = 7168, .k = 6144, NN, FP8}, {BY_M(8, 4096), .n = 2048, .k = 4096, NN, FP8},
    {BY_K(4, 8192), .m = 4096, .n = 7168, FP8, ADD}, {BY_K(4, 8192), .m = 7168, .n = 2048, FP8, ADD},
    {BY_K(8, 4096), .m = 4096, .n = 7168, FP8, ADD}, {BY_K(8, 4096), .m = 7168, .n = 2048, FP8, ADD},
    {BY_K(16, 2048), .m = 4096, .n = 7168, FP8, ADD}, {BY_K(16, 2048), .m = 7168, .n = 2048, FP8, ADD},
    /* width 768, 64 experts of 384, 8192 rows each: up, down, their gradients */
    {BY_M(64, 8192), .n = 384, .k = 768, FP8}, {BY_M(64, 8192), .n = 768, .k = 384, FP8},
    {BY_M(64, 8192), .n = 768, .k = 384, NN, FP8}, {BY_M(64, 8192), .n = 384, .k = 768, NN, FP8},
    {BY_K(64, 8192), .m = 384, .n = 768, FP8, ADD}, {BY_K(64, 8192), .m = 768, .n = 384, FP8, ADD},
    {BY_M(64, 8192), .n = 384, .k = 768, BF16}, {BY_M(64, 8192), .n = 768, .k = 384, NN, BF16},
    {BY_K(64, 8192), .m = 384, .n = 768, BF16, ADD},
    {BY_M(4, 8192), .n = 4096, .k = 4096, BF16}, {BY_M(8, 4096), .n = 4096, .k = 2048, NN, BF16},
    {BY_K(8, 4096), .m = 4096, .n = 2048, BF16, ADD},
    /* dense: a large product, the attention projections (gradients in pieces), the head */
    {.m = 8192, .n = 8192, .k = 8192, BF16}, {.m = 8192, .n = 8192, .k = 8192, TENSOR8},
    {.m = 4096, .n = 4096, .k = 7168, FP8},
    {.m = 65536, .n = 2304, .k = 768, BF16}, {.m = 65536, .n = 768, .k = 2304, NN, BF16},
    {.m = 2304, .n = 768, .k = 65536, TN, BF16, ADD}, {.m = 65536, .n = 768, .k = 768, FP8},
    {.m = 2304, .n = 768, .k = 65536, TN, FP8, .c_type = MJ_T_F32, .group = MJ_GROUP_K, .experts = 9, .piece = 7296},
    {.m = 768, .n = 768, .k = 65536, TN, FP8, .c_type = MJ_T_F32, .group = MJ_GROUP_K, .experts = 7, .piece = 9472},
    {.m = 8192, .n = 32768, .k = 768, BF16},
    END,
};

/* Sequences of `rows` tokens, one after another, as a micro-batch has them. */
static const MjOpShape attention[] = {
    {.tokens = 32768, .live = 32768, .heads = 8, .head_dim = 128, .window = 2048, .rows = 2048},
    {.tokens = 65536, .live = 65536, .heads = 6, .head_dim = 128, .window = 1024, .rows = 2048}, /* the seed's, three layers in four */
    {.tokens = 32768, .live = 32768, .heads = 8, .head_dim = 128, .window = 8192, .rows = 8192},
    {.tokens = 32768, .live = 32768, .heads = 8, .head_dim = 128, .window = 1024, .rows = 8192},
    END,
};

#define TOKENS .tokens = 65536, .live = 65536, .width = 768
#define ROUTED TOKENS, .experts = 64, .top_k = 8
#define E4M3 .q_type = MJ_T_E4M3, .scale_mode = MJ_SCALE_BLOCK
static const MjOpShape tokens[] = {{TOKENS, .vocab = 32768}, END};
static const MjOpShape rmsnorm_fwd[] = {{TOKENS}, {TOKENS, .only = 1}, END};
static const MjOpShape rmsnorm_quant[] = {{TOKENS}, END};
static const MjOpShape heads[] = {{.tokens = 65536, .heads = 6, .head_dim = 128}, END};
static const MjOpShape routed[] = {{ROUTED}, {.tokens = 16384, .live = 16384, .width = 768, .experts = 128, .top_k = 8}, END};
static const MjOpShape permute[] = {{ROUTED}, {ROUTED, E4M3, .only = 1}, {ROUTED, E4M3, .only = 2}, END};
static const MjOpShape combine_bwd[] = {{ROUTED}, {ROUTED, E4M3, .only = 1}, END};
static const MjOpShape tile[] = {{.rows = 524288, .cols = 384}, {.rows = 524288, .cols = 384, E4M3, .only = 1}, END};
static const MjOpShape relu2_bwd[] = {{.rows = 524288, .cols = 384}, {.rows = 524288, .cols = 384, E4M3, .only = 1},
                                      {.rows = 524288, .cols = 384, .experts = 64, E4M3, .only = 1, .gated = 1}, END};
static const MjOpShape quantize[] = {{.rows = 65536, .cols = 768, E4M3, .only = 1}, {.rows = 65536, .cols = 768, E4M3, .only = 2},
                                     {.rows = 524288, .cols = 768, E4M3, .only = 1},
                                     {.rows = 65536, .cols = 768, .x_type = MJ_T_F32}, END};
static const MjOpShape weight[] = {{.experts = 64, .out = 384, .in = 768, E4M3, .only = 1},
                                   {.experts = 4, .out = 6144, .in = 7168, E4M3, .only = 1}, END};
static const MjOpShape amax[] = {{.rows = 65536, .cols = 768, .q_type = MJ_T_E4M3}, END};
static const MjOpShape loss[] = {{.tokens = 8192, .live = 8192, .vocab = 32768, .vocab_used = 32768}, END};
static const MjOpShape pieces[] = {{.count = 2304 * 768, .piece = 9}, {.count = 768 * 768, .piece = 7}, END};
static const MjOpShape flat[] = {{.count = 64 << 20}, END};

const MjOpShape *mj_op_gpu_bench_shapes(MjOpId id)
{
    switch (id) {
    case MJ_OP_GEMM: return gemm;
    case MJ_OP_ATTENTION_FWD:
    case MJ_OP_ATTENTION_BWD: return attention;
    case MJ_OP_EMBEDDING_FWD:
    case MJ_OP_EMBEDDING_BWD:
    case MJ_OP_RMSNORM_BWD: return tokens;
    case MJ_OP_RMSNORM_FWD: return rmsnorm_fwd;
    case MJ_OP_RMSNORM_QUANT: return rmsnorm_quant;
    case MJ_OP_ROPE_QKNORM_FWD:
    case MJ_OP_ROPE_QKNORM_BWD:
    case MJ_OP_ROPE_QKNORM_BWD_QUANT: return heads;
    case MJ_OP_ROUTER_FWD:
    case MJ_OP_ROUTER_BWD:
    case MJ_OP_ROUTE_MAP:
    case MJ_OP_PERMUTE_BWD:
    case MJ_OP_COMBINE_FWD: return routed;
    case MJ_OP_COMBINE_BWD: return combine_bwd;
    case MJ_OP_PERMUTE: return permute;
    case MJ_OP_RELU2_FWD: return tile;
    case MJ_OP_RELU2_BWD: return relu2_bwd;
    case MJ_OP_QUANTIZE: return quantize;
    case MJ_OP_QUANTIZE_WEIGHT: return weight;
    case MJ_OP_AMAX: return amax;
    case MJ_OP_CROSS_ENTROPY: return loss;
    case MJ_OP_ADD_PIECES: return pieces;
    case MJ_OP_SUM:
    case MJ_OP_ADAMW: return flat;
    default: return mj_op_bench_shapes(id);
    }
}
