/* Rows of the op table: router, layout, balance, permute, combine. */
#include "kernels_src/router_tile.h"
#include "ops/op_row.h"
#include "ops/refs.h"

MJ_COUNT(rf_n, MjRouterFwdArgs, a->tokens)
MJ_COUNT(rf_w, MjRouterFwdArgs, a->width)
MJ_COUNT(rf_e, MjRouterFwdArgs, a->experts)
MJ_COUNT(rf_k, MjRouterFwdArgs, a->top_k)
MJ_COUNT(rf_nw, MjRouterFwdArgs, (int64_t)a->tokens * a->width)
MJ_COUNT(rf_ew, MjRouterFwdArgs, (int64_t)a->experts * a->width)
MJ_COUNT(rf_ne, MjRouterFwdArgs, (int64_t)a->tokens * a->experts)
MJ_COUNT(rf_one, MjRouterFwdArgs, a != NULL ? 1 : 0)
MJ_COUNT(rf_nk, MjRouterFwdArgs, (int64_t)a->tokens * a->top_k)
static double rf_length(const void *args) { return (double)((const MjRouterFwdArgs *)args)->width; }
static double rf_flops(const void *args) { return 2.0 * (double)rf_ne(args) * (double)rf_w(args); }
static size_t rf_shared(MjFamily family, const void *args) { return family == MJ_FAMILY_CPU ? (size_t)rf_e(args) * sizeof(float) : 0; }
static const char *rf_template(MjFamily family, int arch, const void *args)
{
    (void)arch;
    (void)args;
    return family == MJ_FAMILY_CPU ? "router_fwd_cpu" : "router_fwd_sm80";
}
static int rf_geometry(const MjLaunchRecord *record, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *g, MjError *err)
{
    (void)record, (void)kernel, (void)info, (void)err;
    *g = (MjOpGeometry){.block = MJ_ROUTER_THREADS, .grid = (uint32_t)MJ_CEIL(rf_n(args), MJ_ROUTER_TOKENS), .shared_bytes = MJ_ROUTER_BYTES};
    return 0;
}
static const MjOpMatrix rf_sm80 = {.tmpl = "router_fwd_sm80", .geometry = rf_geometry};
static const MjOpMatrix *const rf_matrix[] = {&rf_sm80, NULL};

const MjOpRow mj_row_router_fwd = {
    .id = MJ_OP_ROUTER_FWD, .name = "router_fwd", .doc = "Sigmoid scores and the top-k choice", .choose = rf_template,
    .matrix = rf_matrix, .args_bytes = sizeof(MjRouterFwdArgs),
    .fields = {MJ_FIELD(MjRouterFwdArgs, tokens), MJ_FIELD(MjRouterFwdArgs, width), MJ_FIELD(MjRouterFwdArgs, experts),
               MJ_FIELD(MjRouterFwdArgs, top_k)},
    .phases = {{"router_fwd", MJ_WORK_ROWS, rf_n}},
    .shared = rf_shared,
    .buffers = {MJ_BUFFER(MjRouterFwdArgs, x, MJ_BUF_BF16, MJ_IN, rf_nw, rf_w),
                MJ_BUFFER(MjRouterFwdArgs, weight, MJ_BUF_F32, MJ_IN, rf_ew, rf_w),
                MJ_BUFFER(MjRouterFwdArgs, bias, MJ_BUF_F32, MJ_IN, rf_e, NULL),
                MJ_BUFFER(MjRouterFwdArgs, score, MJ_BUF_F32, MJ_OUT, rf_ne, rf_e),
                MJ_BUFFER(MjRouterFwdArgs, expert, MJ_BUF_I32, MJ_OUT, rf_nk, rf_k),
                MJ_BUFFER(MjRouterFwdArgs, gate, MJ_BUF_F32, MJ_OUT, rf_nk, rf_k),
                MJ_BUFFER(MjRouterFwdArgs, live, MJ_BUF_I32, MJ_IN, rf_one, NULL)},
    .flops = rf_flops,
    .proof = MJ_OP_PROOF(mj_setup_router_fwd, mj_fill_router_fwd, mj_ref_router_fwd, rf_length, mj_shapes_routed,
                         mj_bench_routed),
};

MJ_COUNT(rb_n, MjRouterBwdArgs, a->tokens)
MJ_COUNT(rb_w, MjRouterBwdArgs, a->width)
MJ_COUNT(rb_e, MjRouterBwdArgs, a->experts)
MJ_COUNT(rb_k, MjRouterBwdArgs, a->top_k)
MJ_COUNT(rb_nw, MjRouterBwdArgs, (int64_t)a->tokens * a->width)
MJ_COUNT(rb_ew, MjRouterBwdArgs, (int64_t)a->experts * a->width)
MJ_COUNT(rb_ne, MjRouterBwdArgs, (int64_t)a->tokens * a->experts)
MJ_COUNT(rb_one, MjRouterBwdArgs, a != NULL ? 1 : 0)
MJ_COUNT(rb_nk, MjRouterBwdArgs, (int64_t)a->tokens * a->top_k)
MJ_COUNT(rb_partial, MjRouterBwdArgs, (int64_t)MJ_CEIL(a->tokens, 256) * a->experts * a->width)
MJ_COUNT(rb_partial_items, MjRouterBwdArgs, (int64_t)MJ_CEIL(a->tokens, 256) * a->experts * MJ_CEIL(a->width, 128))
MJ_COUNT(rb_weight_items, MjRouterBwdArgs, (int64_t)a->experts * MJ_CEIL(a->width, 128))
static double rb_length(const void *args) { return (double)((const MjRouterBwdArgs *)args)->tokens; }
static double rb_flops(const void *args) { return 4.0 * (double)rb_nk(args) * (double)rb_w(args); }

static const char *rb_template(MjFamily family, int arch, const void *args)
{
    (void)arch;
    (void)args;
    return family == MJ_FAMILY_CPU ? "router_bwd_cpu" : "router_bwd_sm80";
}
/* A block of dx that has all weights in shared memory pays when it has some tokens for each of its warps. */
static bool rb_shares_weights(const MjRouterBwdArgs *a, const MjDeviceInfo *info)
{
    return MJ_ROUTER_BWD_X_SHARES(a->width, a->experts, a->tokens) ||
           (a->width % 128 == 0 && (size_t)rb_ew(a) * sizeof(float) <= info->max_shared_bytes && a->tokens >= 64 * (int64_t)info->units);
}
static int rb_geometry(const MjLaunchRecord *record, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *g, MjError *err)
{
    const MjRouterBwdArgs *a = args;
    const int64_t strips = MJ_CEIL(a->width, MJ_ROUTER_BWD_COLUMNS), most = (int64_t)info->units * 32; /* blocks of 8 rows */
    const int64_t rows = MJ_CEIL(kernel == 0 ? a->tokens : a->experts * strips, 8);
    (void)record, (void)err;
    *g = (MjOpGeometry){.block = 256, .grid = (uint32_t)(rows < most ? rows : most)};
    if (kernel == 0 && rb_shares_weights(a, info))
        *g = (MjOpGeometry){.block = MJ_ROUTER_BWD_X_THREADS, .grid = (uint32_t)info->units, .shared_bytes = (size_t)rb_ew(a) * sizeof(float)};
    if (kernel == 1)
        *g = (MjOpGeometry){.block = MJ_ROUTER_THREADS, .shared_bytes = MJ_ROUTER_BWD_BYTES,
                            .grid = (uint32_t)(strips * MJ_CEIL(a->tokens, MJ_ROUTER_BWD_TOKENS) * MJ_CEIL(a->experts, MJ_ROUTER_EXPERTS))};
    return 0;
}
static const MjOpMatrix rb_sm80 = {.tmpl = "router_bwd_sm80", .geometry = rb_geometry};
static const MjOpMatrix *const rb_matrix[] = {&rb_sm80, NULL};

const MjOpRow mj_row_router_bwd = {
    .id = MJ_OP_ROUTER_BWD, .name = "router_bwd", .doc = "Gradient of the router", .choose = rb_template, .matrix = rb_matrix,
    .args_bytes = sizeof(MjRouterBwdArgs),
    .fields = {MJ_FIELD(MjRouterBwdArgs, tokens), MJ_FIELD(MjRouterBwdArgs, width), MJ_FIELD(MjRouterBwdArgs, experts),
               MJ_FIELD(MjRouterBwdArgs, top_k)},
    .phases = {{"router_bwd_x", MJ_WORK_ROWS, rb_n}, {"router_bwd_partial", MJ_WORK_ROWS, rb_partial_items},
               {"router_bwd_weight", MJ_WORK_ROWS, rb_weight_items}},
    .buffers = {MJ_BUFFER(MjRouterBwdArgs, x, MJ_BUF_BF16, MJ_IN, rb_nw, rb_w),
                MJ_BUFFER(MjRouterBwdArgs, weight, MJ_BUF_F32, MJ_IN, rb_ew, rb_w),
                MJ_BUFFER(MjRouterBwdArgs, score, MJ_BUF_F32, MJ_IN, rb_ne, rb_e),
                MJ_BUFFER(MjRouterBwdArgs, expert, MJ_BUF_I32, MJ_IN, rb_nk, rb_k),
                MJ_BUFFER(MjRouterBwdArgs, gate, MJ_BUF_F32, MJ_IN, rb_nk, rb_k),
                MJ_BUFFER(MjRouterBwdArgs, dgate, MJ_BUF_F32, MJ_IN, rb_nk, rb_k),
                MJ_BUFFER(MjRouterBwdArgs, dlogit, MJ_BUF_F32, MJ_SCRATCH, rb_ne, rb_e),
                MJ_BUFFER(MjRouterBwdArgs, dx, MJ_BUF_BF16, MJ_OUT, rb_nw, rb_w),
                MJ_BUFFER(MjRouterBwdArgs, partial, MJ_BUF_F32, MJ_SCRATCH, rb_partial, rb_w),
                MJ_BUFFER(MjRouterBwdArgs, dweight, MJ_BUF_F32, MJ_INOUT, rb_ew, rb_w),
                MJ_BUFFER(MjRouterBwdArgs, live, MJ_BUF_I32, MJ_IN, rb_one, NULL)},
    .flops = rb_flops,
    .proof = MJ_OP_PROOF(mj_setup_router_bwd, mj_fill_router_bwd, mj_ref_router_bwd, rb_length, mj_shapes_routed,
                         mj_bench_routed),
};

MJ_COUNT(rm_chunks, MjRouteMapArgs, MJ_CEIL(a->tokens, 256))
MJ_COUNT(rm_e, MjRouteMapArgs, a->experts)
MJ_COUNT(rm_e1, MjRouteMapArgs, a->experts + 1)
MJ_COUNT(rm_k, MjRouteMapArgs, a->top_k)
MJ_COUNT(rm_r, MjRouteMapArgs, a->rows)
MJ_COUNT(rm_one, MjRouteMapArgs, a != NULL ? 1 : 0)
MJ_COUNT(rm_nk, MjRouteMapArgs, (int64_t)a->tokens * a->top_k)
MJ_COUNT(rm_scratch, MjRouteMapArgs, (int64_t)MJ_CEIL(a->tokens, 256) * a->experts)
MJ_COUNT(rm_four, MjRouteMapArgs, a != NULL ? 4 : 0)
MJ_COUNT(rm_place, MjRouteMapArgs, MJ_CEIL(a->tokens, 256) > a->experts + 1 ? MJ_CEIL(a->tokens, 256) : a->experts + 1)

static size_t rm_shared(MjFamily family, const void *args) /* a count for each expert and warp */
{
    return (size_t)rm_e(args) * sizeof(int32_t) * (family == MJ_FAMILY_CPU ? 1 : 8);
}

const MjOpRow mj_row_route_map = {
    .id = MJ_OP_ROUTE_MAP, .name = "route_map", .doc = "Counts, offsets and both maps of the routed layout", .args_bytes = sizeof(MjRouteMapArgs),
    .fields = {MJ_FIELD(MjRouteMapArgs, tokens), MJ_FIELD(MjRouteMapArgs, experts), MJ_FIELD(MjRouteMapArgs, top_k),
               MJ_FIELD(MjRouteMapArgs, rows), MJ_FIELD(MjRouteMapArgs, capacity)},
    .phases = {{"route_map_count", MJ_WORK_ITEMS, rm_chunks}, {"route_map_scan", MJ_WORK_ONE, NULL},
               {"route_map_place", MJ_WORK_ITEMS, rm_place}},
    .shared = rm_shared,
    .buffers = {MJ_BUFFER(MjRouteMapArgs, expert, MJ_BUF_I32, MJ_IN, rm_nk, rm_k),
                MJ_BUFFER(MjRouteMapArgs, count, MJ_BUF_I32, MJ_OUT, rm_e, NULL),
                MJ_BUFFER(MjRouteMapArgs, demand, MJ_BUF_I32, MJ_INOUT, rm_e, NULL),
                MJ_BUFFER(MjRouteMapArgs, offset, MJ_BUF_I32, MJ_OUT, rm_e1, NULL),
                MJ_BUFFER(MjRouteMapArgs, row_of, MJ_BUF_I32, MJ_OUT, rm_nk, rm_k),
                MJ_BUFFER(MjRouteMapArgs, slot_of, MJ_BUF_I32, MJ_OUT, rm_r, NULL),
                MJ_BUFFER(MjRouteMapArgs, stats, MJ_BUF_I32, MJ_INOUT, rm_four, NULL),
                MJ_BUFFER(MjRouteMapArgs, scratch, MJ_BUF_I32, MJ_SCRATCH, rm_scratch, rm_chunks),
                MJ_BUFFER(MjRouteMapArgs, live, MJ_BUF_I32, MJ_IN, rm_one, NULL)},
    .proof = MJ_OP_PROOF(mj_setup_route_map, mj_fill_route_map, mj_ref_route_map, mj_length_none, mj_shapes_routed,
                         mj_bench_routed),
};

MJ_COUNT(ba_e, MjBalanceArgs, a->experts)
MJ_COUNT(ba_guard, MjBalanceArgs, a != NULL ? 2 : 0)
static double ba_length(const void *args) { return (double)((const MjBalanceArgs *)args)->experts; }

const MjOpRow mj_row_balance = {
    .id = MJ_OP_BALANCE, .name = "balance", .doc = "Bias step towards equal load, centred", .args_bytes = sizeof(MjBalanceArgs),
    .fields = {MJ_FIELD(MjBalanceArgs, experts)},
    .phases = {{"balance", MJ_WORK_ONE, NULL}},
    .buffers = {MJ_BUFFER(MjBalanceArgs, demand, MJ_BUF_I32, MJ_INOUT, ba_e, NULL),
                MJ_BUFFER(MjBalanceArgs, bias, MJ_BUF_F32, MJ_INOUT, ba_e, NULL),
                MJ_BUFFER(MjBalanceArgs, guard, MJ_BUF_F64, MJ_IN, ba_guard, NULL)},
    .proof = MJ_OP_PROOF(mj_setup_balance, mj_fill_balance, mj_ref_balance, ba_length, mj_shapes_balance, mj_bench_routed),
};

MJ_COUNT(pf_w, MjPermuteArgs, a->width)
MJ_COUNT(pf_r, MjPermuteArgs, a->rows)
MJ_COUNT(pf_e1, MjPermuteArgs, a->experts + 1)
MJ_COUNT(pf_nw, MjPermuteArgs, (int64_t)a->tokens * a->width)
MJ_COUNT(pf_rw, MjPermuteArgs, (int64_t)a->rows * a->width)
MJ_COUNT(pf_items, MjPermuteArgs, a->q_type == MJ_T_BF16 ? a->rows : (int64_t)MJ_CEIL(a->rows, 128) * MJ_CEIL(a->width, 128))
MJ_COUNT(pf_scale, MjPermuteArgs, a->scale_mode == MJ_SCALE_TENSOR ? 1 : (int64_t)MJ_CEIL(a->width, 128) * a->rows)
MJ_COUNT(pf_t, MjPermuteArgs, a->width * (a->kmajor ? MJ_KMAJOR_STRIDE((int64_t)a->rows) : a->rows))
MJ_COUNT(pf_tc, MjPermuteArgs, a->kmajor ? MJ_KMAJOR_STRIDE(a->rows) : a->width)
static const char *pf_template(MjFamily family, int arch, const void *args)
{
    const MjPermuteArgs *a = args;
    (void)arch;
    return mj_quant_takes(family, a->width, a->q_type, a->kmajor) ? "permute" : NULL;
}
MJ_COUNT(pf_scale_cols, MjPermuteArgs, a->rows)
MJ_COUNT(pf_tscale, MjPermuteArgs, (int64_t)MJ_CEIL(a->rows, 128) * a->width)
MJ_COUNT(pf_one, MjPermuteArgs, a != NULL ? 1 : 0)

static size_t pf_shared(MjFamily family, const void *args)
{
    return mj_quant_gather_shared(family, args, ((const MjPermuteArgs *)args)->experts);
}

const MjOpRow mj_row_permute = {
    .id = MJ_OP_PERMUTE, .name = "permute", .doc = "Tokens gathered into the routed layout, quantised in the same pass", .choose = pf_template,
    .args_bytes = sizeof(MjPermuteArgs),
    .fields = {MJ_FIELD(MjPermuteArgs, tokens), MJ_FIELD(MjPermuteArgs, width), MJ_FIELD(MjPermuteArgs, experts),
               MJ_FIELD(MjPermuteArgs, top_k), MJ_FIELD(MjPermuteArgs, rows), MJ_FIELD(MjPermuteArgs, q_type),
               MJ_FIELD(MjPermuteArgs, scale_mode), MJ_FIELD(MjPermuteArgs, kmajor)},
    .phases = {{"permute", MJ_WORK_ITEMS, pf_items}},
    .shared = pf_shared,
    .buffers = {MJ_BUFFER(MjPermuteArgs, x, MJ_BUF_BF16, MJ_IN, pf_nw, pf_w),
                MJ_BUFFER(MjPermuteArgs, slot_of, MJ_BUF_I32, MJ_IN, pf_r, NULL),
                MJ_BUFFER(MjPermuteArgs, offset, MJ_BUF_I32, MJ_IN, pf_e1, NULL),
                MJ_BUFFER(MjPermuteArgs, out, MJ_BUF_BF16, MJ_OUT, pf_rw, pf_w),
                MJ_BUFFER_BY(MjPermuteArgs, q, q_type, MJ_OUT, pf_rw, pf_w),
                MJ_BUFFER(MjPermuteArgs, q_scale, MJ_BUF_F32, MJ_OUT, pf_scale, pf_scale_cols),
                MJ_BUFFER_BY(MjPermuteArgs, qt, q_type, MJ_OUT, pf_t, pf_tc),
                MJ_BUFFER(MjPermuteArgs, qt_scale, MJ_BUF_F32, MJ_OUT, pf_tscale, pf_w),
                MJ_BUFFER(MjPermuteArgs, tensor_scale, MJ_BUF_F32, MJ_IN, pf_one, NULL)},
    .proof = MJ_OP_PROOF_FOR(mj_adapt_quant, mj_setup_permute, mj_fill_permute, mj_ref_permute, mj_length_none, mj_shapes_permute,
                         mj_bench_permute),
};

MJ_COUNT(pb_n, MjPermuteBwdArgs, a->tokens)
MJ_COUNT(pb_w, MjPermuteBwdArgs, a->width)
MJ_COUNT(pb_k, MjPermuteBwdArgs, a->top_k)
MJ_COUNT(pb_nk, MjPermuteBwdArgs, (int64_t)a->tokens * a->top_k)
MJ_COUNT(pb_nw, MjPermuteBwdArgs, (int64_t)a->tokens * a->width)
MJ_COUNT(pb_rw, MjPermuteBwdArgs, (int64_t)a->rows * a->width)
static double pb_length(const void *args) { return (double)((const MjPermuteBwdArgs *)args)->top_k; }
static double pb_bytes(const void *args) { return 2.0 * (double)pb_nw(args) * (1.0 + (double)pb_k(args)); }

const MjOpRow mj_row_permute_bwd = {
    .id = MJ_OP_PERMUTE_BWD, .name = "permute_bwd", .doc = "Gradient of permute: a token's rows added up", .args_bytes = sizeof(MjPermuteBwdArgs),
    .fields = {MJ_FIELD(MjPermuteBwdArgs, tokens), MJ_FIELD(MjPermuteBwdArgs, width), MJ_FIELD(MjPermuteBwdArgs, top_k),
               MJ_FIELD(MjPermuteBwdArgs, rows)},
    .phases = {{"permute_bwd", MJ_WORK_ROWS, pb_n}},
    .buffers = {MJ_BUFFER(MjPermuteBwdArgs, dout, MJ_BUF_BF16, MJ_IN, pb_rw, pb_w),
                MJ_BUFFER(MjPermuteBwdArgs, row_of, MJ_BUF_I32, MJ_IN, pb_nk, pb_k),
                MJ_BUFFER(MjPermuteBwdArgs, dx, MJ_BUF_BF16, MJ_OUT, pb_nw, pb_w)},
    .bytes = pb_bytes,
    .proof = MJ_OP_PROOF(mj_setup_permute_bwd, mj_fill_permute_bwd, mj_ref_permute_bwd, pb_length, mj_shapes_routed,
                         mj_bench_routed),
};

MJ_COUNT(cf_n, MjCombineFwdArgs, a->tokens)
MJ_COUNT(cf_w, MjCombineFwdArgs, a->width)
MJ_COUNT(cf_k, MjCombineFwdArgs, a->top_k)
MJ_COUNT(cf_nk, MjCombineFwdArgs, (int64_t)a->tokens * a->top_k)
MJ_COUNT(cf_nw, MjCombineFwdArgs, (int64_t)a->tokens * a->width)
MJ_COUNT(cf_rw, MjCombineFwdArgs, (int64_t)a->rows * a->width)
static double cf_length(const void *args) { return (double)((const MjCombineFwdArgs *)args)->top_k + 2.0; }
static double cf_bytes(const void *args) { return (double)cf_nw(args) * (8.0 + 2.0 * (double)cf_k(args)); }
static double cf_flops(const void *args) { return 2.0 * (double)cf_nk(args) * (double)cf_w(args); }

const MjOpRow mj_row_combine_fwd = {
    .id = MJ_OP_COMBINE_FWD, .name = "combine_fwd", .doc = "Experts' rows times gates, added to the residual", .args_bytes = sizeof(MjCombineFwdArgs),
    .fields = {MJ_FIELD(MjCombineFwdArgs, tokens), MJ_FIELD(MjCombineFwdArgs, width), MJ_FIELD(MjCombineFwdArgs, top_k),
               MJ_FIELD(MjCombineFwdArgs, rows)},
    .phases = {{"combine_fwd", MJ_WORK_ROWS, cf_n}},
    .buffers = {MJ_BUFFER(MjCombineFwdArgs, y, MJ_BUF_BF16, MJ_IN, cf_rw, cf_w),
                MJ_BUFFER(MjCombineFwdArgs, shared, MJ_BUF_BF16, MJ_IN, cf_nw, cf_w),
                MJ_BUFFER(MjCombineFwdArgs, row_of, MJ_BUF_I32, MJ_IN, cf_nk, cf_k),
                MJ_BUFFER(MjCombineFwdArgs, gate, MJ_BUF_F32, MJ_IN, cf_nk, cf_k),
                MJ_BUFFER(MjCombineFwdArgs, x, MJ_BUF_F32, MJ_IN, cf_nw, cf_w),
                MJ_BUFFER(MjCombineFwdArgs, x_out, MJ_BUF_F32, MJ_OUT, cf_nw, cf_w),
                MJ_BUFFER(MjCombineFwdArgs, rstd, MJ_BUF_F32, MJ_OUT, cf_n, NULL)},
    .flops = cf_flops, .bytes = cf_bytes,
    .proof = MJ_OP_PROOF(mj_setup_combine_fwd, mj_fill_combine_fwd, mj_ref_combine_fwd, cf_length, mj_shapes_routed,
                         mj_bench_routed),
};

MJ_COUNT(cb_r, MjCombineBwdArgs, a->rows)
MJ_COUNT(cb_w, MjCombineBwdArgs, a->width)
MJ_COUNT(cb_k, MjCombineBwdArgs, a->top_k)
MJ_COUNT(cb_e1, MjCombineBwdArgs, a->experts + 1)
MJ_COUNT(cb_nk, MjCombineBwdArgs, (int64_t)a->tokens * a->top_k)
MJ_COUNT(cb_nw, MjCombineBwdArgs, (int64_t)a->tokens * a->width)
MJ_COUNT(cb_rw, MjCombineBwdArgs, (int64_t)a->rows * a->width)
MJ_COUNT(cb_items, MjCombineBwdArgs, (int64_t)MJ_CEIL(a->rows, 128) * MJ_CEIL(a->width, 128))
MJ_COUNT(cb_scale, MjCombineBwdArgs, (int64_t)MJ_CEIL(a->width, 128) * a->rows)
MJ_COUNT(cb_t, MjCombineBwdArgs, a->width * (a->kmajor ? MJ_KMAJOR_STRIDE((int64_t)a->rows) : a->rows))
MJ_COUNT(cb_tc, MjCombineBwdArgs, a->kmajor ? MJ_KMAJOR_STRIDE(a->rows) : a->width)
MJ_COUNT(cb_tscale, MjCombineBwdArgs, (int64_t)MJ_CEIL(a->rows, 128) * a->width)
static const char *cb_template(MjFamily family, int arch, const void *args)
{
    const MjCombineBwdArgs *a = args;
    (void)arch;
    return mj_quant_takes(family, a->width, a->q_type, a->kmajor) ? "combine_bwd" : NULL;
}
static size_t cb_shared(MjFamily family, const void *args)
{
    return mj_quant_gather_shared(family, args, ((const MjCombineBwdArgs *)args)->experts);
}
static double cb_flops(const void *args) { return (double)cb_nk(args) * (double)cb_w(args); }

const MjOpRow mj_row_combine_bwd = {
    .id = MJ_OP_COMBINE_BWD, .name = "combine_bwd", .doc = "Gradient of combine, to the experts' rows, quantised in the same pass",
    .choose = cb_template, .args_bytes = sizeof(MjCombineBwdArgs),
    .fields = {MJ_FIELD(MjCombineBwdArgs, tokens), MJ_FIELD(MjCombineBwdArgs, width), MJ_FIELD(MjCombineBwdArgs, experts),
               MJ_FIELD(MjCombineBwdArgs, top_k), MJ_FIELD(MjCombineBwdArgs, rows), MJ_FIELD(MjCombineBwdArgs, q_type),
               MJ_FIELD(MjCombineBwdArgs, scale_mode), MJ_FIELD(MjCombineBwdArgs, kmajor)},
    .phases = {{"combine_bwd", MJ_WORK_ITEMS, cb_items}},
    .shared = cb_shared,
    .buffers = {MJ_BUFFER(MjCombineBwdArgs, dx, MJ_BUF_F32, MJ_IN, cb_nw, cb_w),
                MJ_BUFFER(MjCombineBwdArgs, slot_of, MJ_BUF_I32, MJ_IN, cb_r, NULL),
                MJ_BUFFER(MjCombineBwdArgs, offset, MJ_BUF_I32, MJ_IN, cb_e1, NULL),
                MJ_BUFFER(MjCombineBwdArgs, gate, MJ_BUF_F32, MJ_IN, cb_nk, cb_k),
                MJ_BUFFER(MjCombineBwdArgs, dy, MJ_BUF_BF16, MJ_OUT, cb_rw, cb_w),
                MJ_BUFFER_BY(MjCombineBwdArgs, q, q_type, MJ_OUT, cb_rw, cb_w),
                MJ_BUFFER(MjCombineBwdArgs, q_scale, MJ_BUF_F32, MJ_OUT, cb_scale, cb_r),
                MJ_BUFFER_BY(MjCombineBwdArgs, qt, q_type, MJ_OUT, cb_t, cb_tc),
                MJ_BUFFER(MjCombineBwdArgs, qt_scale, MJ_BUF_F32, MJ_OUT, cb_tscale, cb_w)},
    .flops = cb_flops,
    .proof = MJ_OP_PROOF_FOR(mj_adapt_quant, mj_setup_combine_bwd, mj_fill_combine_bwd, mj_ref_combine_bwd, mj_length_none,
                             mj_shapes_combine_bwd, mj_bench_combine_bwd),
};
