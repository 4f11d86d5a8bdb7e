/* Rows of the op table: ReLU^2 with its quantiser, the quantisers, the per-tensor scale. */
#include "ops/op_row.h"
#include "ops/refs.h"

size_t mj_quant_tile_shared(MjFamily family, const void *args)
{
    (void)args; /* as quant_tile_cpu.h and quant_tile_cuda.h lay it out */
    return family == MJ_FAMILY_CPU ? 128 * 128 * 2 : 128 * 128 + 8 * 128 * sizeof(uint16_t) + 128 * sizeof(float);
}

size_t mj_quant_gather_shared(MjFamily family, const void *args, int32_t experts)
{
    return mj_quant_tile_shared(family, args) + (family == MJ_FAMILY_CPU ? 0 : ((size_t)experts + 2) * sizeof(int32_t));
}

/* Fp8 operands of a GPU's matrix kernels run along K, those of a CPU's as the layout says; see MJ_KMAJOR_STRIDE. */
static bool along_rows(MjFamily family, int32_t q_type) { return family != MJ_FAMILY_CPU && q_type != MJ_T_BF16; }
bool mj_quant_takes(MjFamily family, int32_t cols, int32_t q_type, int32_t kmajor)
{
    return (kmajor != 0) == along_rows(family, q_type) && (family == MJ_FAMILY_CPU || cols % 4 == 0);
}
void mj_adapt_quant(MjFamily family, MjOpShape *s)
{
    s->kmajor = along_rows(family, s->q_type);
    if (family == MJ_FAMILY_CPU) return;
    s->cols = MJ_CEIL(s->cols, 4) * 4;
    s->width = MJ_CEIL(s->width, 4) * 4;
}

/* The outputs that the three tile quantisers share; rows >= offset[experts] are left alone. */
#define TILE_FIELDS(Args)                                                                                              \
    MJ_FIELD(Args, rows), MJ_FIELD(Args, cols), MJ_FIELD(Args, experts), MJ_FIELD(Args, q_type), MJ_FIELD(Args, scale_mode),    \
        MJ_FIELD(Args, kmajor)
#define TILE_ITEMS(a) ((a)->q_type == MJ_T_BF16 || (a)->scale_mode == MJ_SCALE_TENSOR                                  \
                           ? (int64_t)(a)->rows                                                                        \
                           : (int64_t)MJ_CEIL((a)->rows, 128) * MJ_CEIL((a)->cols, 128))
#define TILE_OUTPUTS(Args, p)                                                                                          \
    MJ_BUFFER_BY(Args, q, q_type, MJ_OUT, p##_rc, p##_c), MJ_BUFFER_BY(Args, qt, q_type, MJ_OUT, p##_t, p##_tc),       \
        MJ_BUFFER(Args, q_scale, MJ_BUF_F32, MJ_OUT, p##_scale, p##_r),                                                \
        MJ_BUFFER(Args, qt_scale, MJ_BUF_F32, MJ_OUT, p##_tscale, p##_c),                                              \
        MJ_BUFFER(Args, tensor_scale, MJ_BUF_F32, MJ_IN, p##_one, NULL),                                               \
        MJ_BUFFER(Args, offset, MJ_BUF_I32, MJ_IN, p##_e1, NULL)

MJ_COUNT(f_r, MjRelu2FwdArgs, a->rows)
MJ_COUNT(f_c, MjRelu2FwdArgs, a->cols)
MJ_COUNT(f_rc, MjRelu2FwdArgs, (int64_t)a->rows * a->cols)
MJ_COUNT(f_t, MjRelu2FwdArgs, a->cols * (a->kmajor ? MJ_KMAJOR_STRIDE((int64_t)a->rows) : a->rows))
MJ_COUNT(f_tc, MjRelu2FwdArgs, a->kmajor ? MJ_KMAJOR_STRIDE(a->rows) : a->cols)
static const char *f_template(MjFamily family, int arch, const void *args)
{
    const MjRelu2FwdArgs *a = args;
    (void)arch;
    return mj_quant_takes(family, a->cols, a->q_type, a->kmajor) ? "relu2_fwd" : NULL;
}
MJ_COUNT(f_e1, MjRelu2FwdArgs, a->experts + 1)
MJ_COUNT(f_one, MjRelu2FwdArgs, a != NULL ? 1 : 0)
MJ_COUNT(f_scale, MjRelu2FwdArgs, a->scale_mode == MJ_SCALE_TENSOR ? 1 : (int64_t)MJ_CEIL(a->cols, 128) * a->rows)
MJ_COUNT(f_tscale, MjRelu2FwdArgs, (int64_t)MJ_CEIL(a->rows, 128) * a->cols)
MJ_COUNT(f_items, MjRelu2FwdArgs, TILE_ITEMS(a))

const MjOpRow mj_row_relu2_fwd = {
    .id = MJ_OP_RELU2_FWD, .name = "relu2_fwd", .doc = "max(x, 0)^2, quantised in the same pass", .choose = f_template, .args_bytes = sizeof(MjRelu2FwdArgs),
    .fields = {TILE_FIELDS(MjRelu2FwdArgs)},
    .phases = {{"relu2_fwd", MJ_WORK_ITEMS, f_items}},
    .shared = mj_quant_tile_shared,
    .buffers = {MJ_BUFFER(MjRelu2FwdArgs, x, MJ_BUF_BF16, MJ_IN, f_rc, f_c),
                MJ_BUFFER(MjRelu2FwdArgs, y, MJ_BUF_BF16, MJ_OUT, f_rc, f_c), TILE_OUTPUTS(MjRelu2FwdArgs, f)},
    .proof = MJ_OP_PROOF_FOR(mj_adapt_quant, mj_setup_relu2_fwd, mj_fill_relu2_fwd, mj_ref_relu2_fwd, mj_length_none, mj_shapes_tile,
                         mj_bench_tile),
};

MJ_COUNT(b_r, MjRelu2BwdArgs, a->rows)
MJ_COUNT(b_c, MjRelu2BwdArgs, a->cols)
MJ_COUNT(b_rc, MjRelu2BwdArgs, (int64_t)a->rows * a->cols)
MJ_COUNT(b_t, MjRelu2BwdArgs, a->cols * (a->kmajor ? MJ_KMAJOR_STRIDE((int64_t)a->rows) : a->rows))
MJ_COUNT(b_tc, MjRelu2BwdArgs, a->kmajor ? MJ_KMAJOR_STRIDE(a->rows) : a->cols)
static const char *b_template(MjFamily family, int arch, const void *args)
{
    const MjRelu2BwdArgs *a = args;
    (void)arch;
    return mj_quant_takes(family, a->cols, a->q_type, a->kmajor) ? "relu2_bwd" : NULL;
}
MJ_COUNT(b_e1, MjRelu2BwdArgs, a->experts + 1)
MJ_COUNT(b_one, MjRelu2BwdArgs, a != NULL ? 1 : 0)
MJ_COUNT(b_scale, MjRelu2BwdArgs, a->scale_mode == MJ_SCALE_TENSOR ? 1 : (int64_t)MJ_CEIL(a->cols, 128) * a->rows)
MJ_COUNT(b_tscale, MjRelu2BwdArgs, (int64_t)MJ_CEIL(a->rows, 128) * a->cols)
MJ_COUNT(b_items, MjRelu2BwdArgs, a->gated ? MJ_CEIL(a->rows, 128) : TILE_ITEMS(a))
MJ_COUNT(b_slots, MjRelu2BwdArgs, a->slots)
static double b_length(const void *args) { return (double)((const MjRelu2BwdArgs *)args)->cols; }
static size_t b_shared(MjFamily family, const void *args)
{
    return mj_quant_tile_shared(family, args) + (family == MJ_FAMILY_CPU ? 128 * sizeof(float) : 0); /* a sum for each row */
}

const MjOpRow mj_row_relu2_bwd = {
    .id = MJ_OP_RELU2_BWD, .name = "relu2_bwd", .doc = "2 max(x, 0) dy, quantised in the same pass, and the gates' gradient",
    .choose = b_template, .args_bytes = sizeof(MjRelu2BwdArgs),
    .fields = {TILE_FIELDS(MjRelu2BwdArgs), MJ_FIELD(MjRelu2BwdArgs, gated)},
    .phases = {{"relu2_bwd", MJ_WORK_ITEMS, b_items}},
    .shared = b_shared,
    .buffers = {MJ_BUFFER(MjRelu2BwdArgs, x, MJ_BUF_BF16, MJ_IN, b_rc, b_c),
                MJ_BUFFER(MjRelu2BwdArgs, dy, MJ_BUF_BF16, MJ_IN, b_rc, b_c),
                MJ_BUFFER(MjRelu2BwdArgs, dx, MJ_BUF_BF16, MJ_OUT, b_rc, b_c), TILE_OUTPUTS(MjRelu2BwdArgs, b),
                MJ_BUFFER(MjRelu2BwdArgs, slot_of, MJ_BUF_I32, MJ_IN, b_r, NULL),
                MJ_BUFFER(MjRelu2BwdArgs, gate, MJ_BUF_F32, MJ_IN, b_slots, NULL),
                MJ_BUFFER(MjRelu2BwdArgs, dgate, MJ_BUF_F32, MJ_INOUT, b_slots, NULL)},
    .proof = MJ_OP_PROOF_FOR(mj_adapt_quant, mj_setup_relu2_bwd, mj_fill_relu2_bwd, mj_ref_relu2_bwd, b_length,
                             mj_shapes_relu2_bwd, mj_bench_relu2_bwd),
};

MJ_COUNT(q_r, MjQuantizeArgs, a->rows)
MJ_COUNT(q_c, MjQuantizeArgs, a->cols)
MJ_COUNT(q_rc, MjQuantizeArgs, (int64_t)a->rows * a->cols)
MJ_COUNT(q_t, MjQuantizeArgs, a->cols * (a->kmajor ? MJ_KMAJOR_STRIDE((int64_t)a->rows) : a->rows))
MJ_COUNT(q_tc, MjQuantizeArgs, a->kmajor ? MJ_KMAJOR_STRIDE(a->rows) : a->cols)
static const char *q_template(MjFamily family, int arch, const void *args)
{
    const MjQuantizeArgs *a = args;
    (void)arch;
    return mj_quant_takes(family, a->cols, a->q_type, a->kmajor) ? "quantize" : NULL;
}
MJ_COUNT(q_e1, MjQuantizeArgs, a->experts + 1)
MJ_COUNT(q_one, MjQuantizeArgs, a != NULL ? 1 : 0)
MJ_COUNT(q_scale, MjQuantizeArgs, a->scale_mode == MJ_SCALE_TENSOR ? 1 : (int64_t)MJ_CEIL(a->cols, 128) * a->rows)
MJ_COUNT(q_tscale, MjQuantizeArgs, (int64_t)MJ_CEIL(a->rows, 128) * a->cols)
MJ_COUNT(q_items, MjQuantizeArgs, TILE_ITEMS(a))

const MjOpRow mj_row_quantize = {
    .id = MJ_OP_QUANTIZE, .name = "quantize", .doc = "Activations and gradients to fp8, or f32 to bf16", .choose = q_template, .args_bytes = sizeof(MjQuantizeArgs),
    .fields = {TILE_FIELDS(MjQuantizeArgs), MJ_FIELD(MjQuantizeArgs, x_type)},
    .phases = {{"quantize", MJ_WORK_ITEMS, q_items}},
    .shared = mj_quant_tile_shared,
    .buffers = {MJ_BUFFER_BY(MjQuantizeArgs, x, x_type, MJ_IN, q_rc, q_c),
                MJ_BUFFER(MjQuantizeArgs, y, MJ_BUF_BF16, MJ_OUT, q_rc, q_c), TILE_OUTPUTS(MjQuantizeArgs, q)},
    .proof = MJ_OP_PROOF_FOR(mj_adapt_quant, mj_setup_quantize, mj_fill_quantize, mj_ref_quantize, mj_length_none, mj_shapes_quantize,
                         mj_bench_quantize),
};

MJ_COUNT(w_in, MjQuantizeWeightArgs, a->in_features)
MJ_COUNT(w_out, MjQuantizeWeightArgs, a->out_features)
MJ_COUNT(w_all, MjQuantizeWeightArgs, (int64_t)a->experts * a->out_features * a->in_features)
MJ_COUNT(w_tiles, MjQuantizeWeightArgs,
         (int64_t)a->experts * MJ_CEIL(a->out_features, 128) * MJ_CEIL(a->in_features, 128))
MJ_COUNT(w_scale, MjQuantizeWeightArgs,
         a->scale_mode == MJ_SCALE_TENSOR ? 1
                                          : (int64_t)a->experts * MJ_CEIL(a->out_features, 128) * MJ_CEIL(a->in_features, 128))
MJ_COUNT(w_one, MjQuantizeWeightArgs, a != NULL ? 1 : 0)
static size_t w_shared(MjFamily family, const void *args)
{
    (void)family;
    (void)args;
    return 64 + 128 * 128; /* a maximum for each warp, then a tile of bytes */
}

static const char *w_template(MjFamily family, int arch, const void *args)
{
    const MjQuantizeWeightArgs *a = args;
    (void)arch;
    return family == MJ_FAMILY_CPU || a->in_features % 4 == 0 ? "quantize_weight" : NULL;
}
static void w_adapt(MjFamily family, MjOpShape *s)
{
    if (family != MJ_FAMILY_CPU) s->in = MJ_CEIL(s->in, 4) * 4;
}

const MjOpRow mj_row_quantize_weight = {
    .id = MJ_OP_QUANTIZE_WEIGHT, .name = "quantize_weight", .doc = "Master weights to bf16 and/or fp8 in 128 x 128 blocks",
    .choose = w_template, .args_bytes = sizeof(MjQuantizeWeightArgs),
    .fields = {MJ_FIELD(MjQuantizeWeightArgs, experts), MJ_FIELD(MjQuantizeWeightArgs, out_features),
               MJ_FIELD(MjQuantizeWeightArgs, in_features), MJ_FIELD(MjQuantizeWeightArgs, q_type),
               MJ_FIELD(MjQuantizeWeightArgs, scale_mode)},
    .phases = {{"quantize_weight", MJ_WORK_ITEMS, w_tiles}},
    .shared = w_shared,
    .buffers = {MJ_BUFFER(MjQuantizeWeightArgs, w, MJ_BUF_F32, MJ_IN, w_all, w_in),
                MJ_BUFFER(MjQuantizeWeightArgs, w_bf16, MJ_BUF_BF16, MJ_OUT, w_all, w_in),
                MJ_BUFFER_BY(MjQuantizeWeightArgs, q, q_type, MJ_OUT, w_all, w_in),
                MJ_BUFFER_BY(MjQuantizeWeightArgs, q_t, q_type, MJ_OUT, w_all, w_out),
                MJ_BUFFER(MjQuantizeWeightArgs, scale, MJ_BUF_F32, MJ_OUT, w_scale, NULL),
                MJ_BUFFER(MjQuantizeWeightArgs, tensor_scale, MJ_BUF_F32, MJ_IN, w_one, NULL)},
    .proof = MJ_OP_PROOF_FOR(w_adapt, mj_setup_quantize_weight, mj_fill_quantize_weight, mj_ref_quantize_weight, mj_length_none,
                         mj_shapes_weight, mj_bench_weight),
};

MJ_COUNT(a_rc, MjAmaxArgs, (a->rows64 > 0 ? a->rows64 : (int64_t)a->rows) * a->cols)
MJ_COUNT(a_c, MjAmaxArgs, a->cols)
MJ_COUNT(a_e1, MjAmaxArgs, a->experts + 1)
MJ_COUNT(a_one, MjAmaxArgs, a != NULL ? 1 : 0)
MJ_COUNT(a_parts, MjAmaxArgs, a != NULL ? MJ_AMAX_PARTS : 0)

const MjOpRow mj_row_amax = {
    .id = MJ_OP_AMAX, .name = "amax", .doc = "The scale of a whole tensor", .args_bytes = sizeof(MjAmaxArgs),
    .fields = {MJ_FIELD(MjAmaxArgs, x_type), MJ_FIELD(MjAmaxArgs, q_type), MJ_FIELD(MjAmaxArgs, transform)},
    .phases = {{"amax_partial", MJ_WORK_ROWS, a_parts}, {"amax_scale", MJ_WORK_ONE, NULL}},
    .buffers = {MJ_BUFFER_BY(MjAmaxArgs, x, x_type, MJ_IN, a_rc, a_c), MJ_BUFFER(MjAmaxArgs, x2, MJ_BUF_BF16, MJ_IN, a_rc, a_c),
                MJ_BUFFER(MjAmaxArgs, offset, MJ_BUF_I32, MJ_IN, a_e1, NULL),
                MJ_BUFFER(MjAmaxArgs, partial, MJ_BUF_F32, MJ_SCRATCH, a_parts, NULL),
                MJ_BUFFER(MjAmaxArgs, scale, MJ_BUF_F32, MJ_OUT, a_one, NULL)},
    .proof = MJ_OP_PROOF(mj_setup_amax, mj_fill_amax, mj_ref_amax, mj_length_none, mj_shapes_amax, mj_bench_amax),
};
