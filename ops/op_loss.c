/* Rows of the op table: loss, sums, optimizer, pieces of a gradient. */
#include "kernels_src/loss_tile.h"
#include "ops/op_row.h"
#include "ops/refs.h"

MJ_COUNT(ce_n, MjCrossEntropyArgs, a->tokens)
MJ_COUNT(ce_v, MjCrossEntropyArgs, a->vocab)
MJ_COUNT(ce_one, MjCrossEntropyArgs, a != NULL ? 1 : 0)
MJ_COUNT(ce_nv, MjCrossEntropyArgs, (int64_t)a->tokens * a->vocab)
static double ce_length(const void *args) { return (double)((const MjCrossEntropyArgs *)args)->vocab; }
static size_t ce_shared(MjFamily family, const void *args)
{
    (void)args;
    return family == MJ_FAMILY_CPU ? 8 * 128 * sizeof(float) : 0;
}
static const char *ce_template(MjFamily family, int arch, const void *args)
{
    (void)arch;
    (void)args;
    return family == MJ_FAMILY_CPU ? "cross_entropy_cpu" : "cross_entropy_sm80";
}
static int ce_geometry(const MjLaunchRecord *record, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *g, MjError *err)
{
    const int64_t segments = MJ_CEIL(ce_v(args), MJ_LOSS_SEGMENT), warps = segments < MJ_LOSS_UNITS ? segments : MJ_LOSS_UNITS;
    const int64_t blocks = (int64_t)info->units * MJ_LOSS_RESIDENT * MJ_LOSS_UNITS / warps;
    (void)record, (void)kernel, (void)err;
    *g = (MjOpGeometry){.block = 32 * (uint32_t)warps, .grid = (uint32_t)(ce_n(args) < blocks ? ce_n(args) : blocks),
                        .shared_bytes = MJ_LOSS_BYTES};
    return 0;
}
static const MjOpMatrix ce_sm80 = {.tmpl = "cross_entropy_sm80", .geometry = ce_geometry};
static const MjOpMatrix *const ce_matrix[] = {&ce_sm80, NULL};
static double ce_flops(const void *args) { return 10.0 * (double)ce_nv(args); }

const MjOpRow mj_row_cross_entropy = {
    .id = MJ_OP_CROSS_ENTROPY, .name = "cross_entropy", .doc = "Softcapped loss; the logits become their gradients",
    .choose = ce_template, .matrix = ce_matrix, .args_bytes = sizeof(MjCrossEntropyArgs),
    .fields = {MJ_FIELD(MjCrossEntropyArgs, tokens), MJ_FIELD(MjCrossEntropyArgs, vocab)},
    .phases = {{"cross_entropy", MJ_WORK_ITEMS, ce_n}},
    .buffers = {MJ_BUFFER(MjCrossEntropyArgs, logits, MJ_BUF_BF16, MJ_INOUT, ce_nv, ce_v),
                MJ_BUFFER(MjCrossEntropyArgs, target, MJ_BUF_I32, MJ_IN, ce_n, NULL),
                MJ_BUFFER(MjCrossEntropyArgs, loss, MJ_BUF_F32, MJ_OUT, ce_n, NULL),
                MJ_BUFFER(MjCrossEntropyArgs, dscale, MJ_BUF_F32, MJ_IN, ce_one, NULL)},
    .shared = ce_shared, .flops = ce_flops,
    .proof = MJ_OP_PROOF(mj_setup_cross_entropy, mj_fill_cross_entropy, mj_ref_cross_entropy, ce_length, mj_shapes_loss,
                         mj_bench_loss),
};

MJ_COUNT(s_n, MjSumArgs, a->n)
MJ_COUNT(s_chunks, MjSumArgs, MJ_CEIL(a->n, 4096))
MJ_COUNT(s_one, MjSumArgs, a != NULL ? 1 : 0)
static double s_length(const void *args)
{
    const double n = (double)((const MjSumArgs *)args)->n;
    return n < 4096.0 ? n : 4096.0; /* beyond a chunk it is double */
}

static size_t s_shared(MjFamily family, const void *args)
{
    (void)family;
    (void)args;
    return 256 * sizeof(double);
}

const MjOpRow mj_row_sum = {
    .id = MJ_OP_SUM, .name = "sum", .doc = "Sum or sum of squares, in a fixed order", .args_bytes = sizeof(MjSumArgs),
    .phases = {{"sum_partial", MJ_WORK_ROWS, s_chunks}, {"sum_total", MJ_WORK_ONE, NULL}},
    .shared = s_shared,
    .buffers = {MJ_BUFFER(MjSumArgs, x, MJ_BUF_F32, MJ_IN, s_n, NULL),
                MJ_BUFFER(MjSumArgs, partial, MJ_BUF_F64, MJ_SCRATCH, s_chunks, NULL),
                MJ_BUFFER(MjSumArgs, out, MJ_BUF_F64, MJ_INOUT, s_one, NULL)},
    .proof = MJ_OP_PROOF(mj_setup_sum, mj_fill_sum, mj_ref_sum, s_length, mj_shapes_flat, mj_bench_flat),
};

MJ_COUNT(o_n, MjAdamwArgs, a->n)
MJ_COUNT(o_rates, MjAdamwArgs, a != NULL ? MJ_RATES : 0)
MJ_COUNT(o_guard, MjAdamwArgs, a != NULL ? 2 : 0)
MJ_COUNT(o_chunks, MjAdamwArgs, MJ_CEIL(a->n, 128))
static double o_flops(const void *args) { return 16.0 * (double)o_n(args); }

const MjOpRow mj_row_adamw = {
    .id = MJ_OP_ADAMW, .name = "adamw", .doc = "AdamW in f32; zeroes the gradient", .args_bytes = sizeof(MjAdamwArgs),
    .phases = {{"adamw", MJ_WORK_ROWS, o_chunks}},
    .buffers = {MJ_BUFFER(MjAdamwArgs, w, MJ_BUF_F32, MJ_INOUT, o_n, NULL), MJ_BUFFER(MjAdamwArgs, m, MJ_BUF_F32, MJ_INOUT, o_n, NULL),
                MJ_BUFFER(MjAdamwArgs, v, MJ_BUF_F32, MJ_INOUT, o_n, NULL),
                MJ_BUFFER(MjAdamwArgs, grad, MJ_BUF_F32, MJ_INOUT, o_n, NULL),
                MJ_BUFFER(MjAdamwArgs, rates, MJ_BUF_F32, MJ_IN, o_rates, NULL),
                MJ_BUFFER(MjAdamwArgs, guard, MJ_BUF_F64, MJ_IN, o_guard, NULL)},
    .flops = o_flops,
    .proof = MJ_OP_PROOF(mj_setup_adamw, mj_fill_adamw, mj_ref_adamw, mj_length_none, mj_shapes_adamw, mj_bench_flat),
};

MJ_COUNT(p_n, MjAddPiecesArgs, a->count)
MJ_COUNT(p_pn, MjAddPiecesArgs, (int64_t)a->count * a->pieces)
MJ_COUNT(p_chunks, MjAddPiecesArgs, MJ_CEIL((int64_t)a->count, 128))
static double p_length(const void *args) { return (double)((const MjAddPiecesArgs *)args)->pieces; }
static double p_flops(const void *args) { return (double)p_pn(args); }

const MjOpRow mj_row_add_pieces = {
    .id = MJ_OP_ADD_PIECES, .name = "add_pieces", .doc = "Adds the pieces of a product over many rows, in a fixed order",
    .args_bytes = sizeof(MjAddPiecesArgs),
    .fields = {MJ_FIELD(MjAddPiecesArgs, count), MJ_FIELD(MjAddPiecesArgs, pieces)},
    .phases = {{"add_pieces", MJ_WORK_ROWS, p_chunks}},
    .buffers = {MJ_BUFFER(MjAddPiecesArgs, x, MJ_BUF_F32, MJ_IN, p_pn, p_n), MJ_BUFFER(MjAddPiecesArgs, y, MJ_BUF_F32, MJ_INOUT, p_n, NULL)},
    .flops = p_flops,
    .proof = MJ_OP_PROOF(mj_setup_add_pieces, mj_fill_add_pieces, mj_ref_add_pieces, p_length, mj_shapes_pieces, mj_bench_pieces),
};
