/* Rows of the op table: GEMM and attention. One template for each instruction family (and for each way of summing). */
#include "kernels_src/attention_tile.h"
#include "kernels_src/gemm_tile.h"
#include "ops/gemm_sm80.h"
#include "ops/gemm_sm90.h"
#include "ops/op_row.h"
#include "ops/refs.h"

static const char *gemm_template(MjFamily family, int arch, const void *args)
{
    const MjGemmArgs *a = args;
    if (family == MJ_FAMILY_SM90A && mj_gemm_sm90_template(a) != NULL) return mj_gemm_sm90_template(a);
    if (family != MJ_FAMILY_CPU) return mj_gemm_sm80_template(arch, a);
    if (a->kmajor != 0) return NULL;
    return a->layout == MJ_GEMM_TN ? "gemm_tn_cpu" : "gemm_cpu";
}

static const char *gemm_refusal(MjFamily family, int arch, const void *args)
{
    if (family != MJ_FAMILY_CPU) return mj_gemm_sm80_refusal(arch, args);
    return "its operands are stored along K (kmajor), which is for GPUs";
}

/* How each cuda template is launched; a line for each file ops/gemm_*.c. */
static const MjOpMatrix *const gemm_matrix[] = {
    &mj_gemm_sm80, &mj_gemm_tn_sm80, &mj_gemm_fp8_sm89, &mj_gemm_tn_fp8_sm89,
    &mj_gemm_sm90, &mj_gemm_tn_sm90,
    NULL,
};

/* As many blocks as the tiling has that the image was built with; any grid is right. */
static int64_t g_grid(const void *args, const MjLaunchRecord *record)
{
    const MjGemmArgs *a = args;
    const int blocks = mj_template_param(record->tmpl, "BLOCKS");
    return mj_gemm_tiling(a->m, a->n, a->experts, a->group, blocks < 0 ? 1 : record->tuning_of[blocks]).grid;
}
/* What lies along K in an operand that is stored along it. */
static int64_t along_k(const MjGemmArgs *a)
{
    return a->layout == MJ_GEMM_TN && a->kmajor != 0 ? MJ_KMAJOR_STRIDE(a->k) : a->k;
}
MJ_COUNT(g_a, MjGemmArgs, (int64_t)a->m * along_k(a))
MJ_COUNT(g_a_cols, MjGemmArgs, a->layout == MJ_GEMM_TN && a->kmajor == 0 ? a->m : along_k(a))
MJ_COUNT(g_b, MjGemmArgs, (int64_t)a->n * along_k(a) * (a->group == MJ_GROUP_M ? a->experts : 1))
MJ_COUNT(g_b_cols, MjGemmArgs, a->layout == MJ_GEMM_NT || a->kmajor != 0 ? along_k(a) : a->n)
MJ_COUNT(g_c, MjGemmArgs, (int64_t)a->m * a->n * (a->group == MJ_GROUP_K ? a->experts : 1))
MJ_COUNT(g_n, MjGemmArgs, a->n)
MJ_COUNT(g_e, MjGemmArgs, a->experts)
MJ_COUNT(g_e1, MjGemmArgs, a->experts + 1)
MJ_COUNT(g_a_scale, MjGemmArgs, a->scale_mode == MJ_SCALE_BLOCK ? (int64_t)MJ_CEIL(a->k, 128) * a->m : 1)
MJ_COUNT(g_b_scale, MjGemmArgs,
         a->scale_mode != MJ_SCALE_BLOCK ? 1
         : a->layout == MJ_GEMM_TN       ? (int64_t)MJ_CEIL(a->k, 128) * a->n
                                         : (int64_t)a->experts * MJ_CEIL(a->k, 128) * MJ_CEIL(a->n, 128))
static double g_length(const void *args) { return (double)((const MjGemmArgs *)args)->k; }
static double g_flops(const void *args)
{
    const MjGemmArgs *a = args;
    return 2.0 * (double)a->m * (double)a->n * (double)a->k;
}
static size_t g_shared(MjFamily family, const void *args)
{
    (void)args;
    return family == MJ_FAMILY_CPU ? MJ_GEMM_SHARED_BYTES : 0;
}

const MjOpRow mj_row_gemm = {
    .id = MJ_OP_GEMM, .name = "gemm", .doc = "Dense and grouped GEMM in three orientations, bf16 or fp8", .choose = gemm_template,
    .args_bytes = sizeof(MjGemmArgs),
    .fields = {MJ_FIELD(MjGemmArgs, m), MJ_FIELD(MjGemmArgs, n), MJ_FIELD(MjGemmArgs, k), MJ_FIELD(MjGemmArgs, experts),
               MJ_FIELD(MjGemmArgs, layout), MJ_FIELD(MjGemmArgs, group), MJ_FIELD(MjGemmArgs, a_type),
               MJ_FIELD(MjGemmArgs, b_type), MJ_FIELD(MjGemmArgs, c_type), MJ_FIELD(MjGemmArgs, scale_mode),
               MJ_FIELD(MjGemmArgs, epilogue), MJ_FIELD(MjGemmArgs, piece)},
    .refusal = gemm_refusal, .matrix = gemm_matrix,
    .phases = {{.entry = "gemm", .work = MJ_WORK_GRID, .tuned_count = g_grid}},
    .shared = g_shared,
    .buffers = {MJ_BUFFER_BY(MjGemmArgs, a, a_type, MJ_IN, g_a, g_a_cols), MJ_BUFFER_BY(MjGemmArgs, b, b_type, MJ_IN, g_b, g_b_cols),
                MJ_BUFFER_BY(MjGemmArgs, c, c_type, MJ_INOUT, g_c, g_n),
                MJ_BUFFER(MjGemmArgs, a_scale, MJ_BUF_F32, MJ_IN, g_a_scale, NULL),
                MJ_BUFFER(MjGemmArgs, b_scale, MJ_BUF_F32, MJ_IN, g_b_scale, NULL),
                MJ_BUFFER(MjGemmArgs, offset, MJ_BUF_I32, MJ_IN, g_e1, NULL),
                MJ_BUFFER(MjGemmArgs, count, MJ_BUF_I32, MJ_IN, g_e, NULL)},
    .flops = g_flops,
    .proof = MJ_OP_PROOF_FOR(mj_adapt_gemm, mj_setup_gemm, mj_fill_gemm, mj_case_ref_gemm, g_length, mj_shapes_gemm, mj_bench_gemm),
};

static const char *attention_fwd_template(MjFamily family, int arch, const void *args)
{
    (void)arch;
    (void)args;
    if (family == MJ_FAMILY_CPU) return "attention_fwd_cpu";
    return family == MJ_FAMILY_SM90A ? mj_attention_fwd_sm90.tmpl : mj_attention_fwd_sm80.tmpl;
}
static const char *attention_bwd_template(MjFamily family, int arch, const void *args)
{
    (void)arch;
    (void)args;
    if (family == MJ_FAMILY_CPU) return "attention_bwd_cpu";
    return family == MJ_FAMILY_SM90A ? mj_attention_bwd_sm90.tmpl : mj_attention_bwd_sm80.tmpl;
}

/* How each cuda template is launched: ops/attention_cuda.c. */
static const MjOpMatrix *const attention_fwd_matrix[] = {&mj_attention_fwd_sm80, &mj_attention_fwd_sm90, NULL};
static const MjOpMatrix *const attention_bwd_matrix[] = {&mj_attention_bwd_sm80, &mj_attention_bwd_sm90, NULL};

static size_t attention_fwd_shared(MjFamily family, const void *args)
{
    (void)args;
    return family == MJ_FAMILY_CPU ? MJ_ATTENTION_FWD_SHARED_BYTES : 0;
}
static size_t attention_bwd_shared(MjFamily family, const void *args)
{
    (void)args;
    return family == MJ_FAMILY_CPU ? MJ_ATTENTION_BWD_SHARED_BYTES : 0;
}

MJ_COUNT(af_grid, MjAttentionFwdArgs, mj_attention_grid(a->tokens, a->heads))
MJ_COUNT(af_n, MjAttentionFwdArgs, a->tokens)
MJ_COUNT(af_d, MjAttentionFwdArgs, a->head_dim)
MJ_COUNT(af_hn, MjAttentionFwdArgs, (int64_t)a->tokens * a->heads)
MJ_COUNT(af_nhd, MjAttentionFwdArgs, (int64_t)a->tokens * a->heads * a->head_dim)
MJ_COUNT(af_qkv, MjAttentionFwdArgs, (int64_t)a->tokens * a->heads * a->head_dim * 3)
static double af_length(const void *args) { return (double)((const MjAttentionFwdArgs *)args)->window; }
/* Pairs of a query and a key that it sees, in sequences of one length: exact where they are as long as the longest, else the most
 * that it can be. */
static double pairs(int32_t tokens, int32_t window, int32_t longest)
{
    const double length = longest > 0 && longest < tokens ? longest : tokens, w = window < length ? window : length;
    return (double)tokens * (w - 0.5 * w * (w - 1.0) / length);
}
static double af_flops(const void *args)
{
    const MjAttentionFwdArgs *a = args;
    return 4.0 * pairs(a->tokens, a->window, a->longest) * a->heads * a->head_dim;
}
static double af_bytes(const void *args) { return 8.0 * (double)af_nhd(args) + 4.0 * (double)af_hn(args); }

const MjOpRow mj_row_attention_fwd = {
    .id = MJ_OP_ATTENTION_FWD, .name = "attention_fwd", .doc = "Windowed causal attention over packed sequences",
    .choose = attention_fwd_template, .args_bytes = sizeof(MjAttentionFwdArgs),
    .fields = {MJ_FIELD(MjAttentionFwdArgs, tokens), MJ_FIELD(MjAttentionFwdArgs, heads), MJ_FIELD(MjAttentionFwdArgs, head_dim),
               MJ_FIELD(MjAttentionFwdArgs, window)},
    .matrix = attention_fwd_matrix,
    .phases = {{"attention_fwd", MJ_WORK_GRID, af_grid}},
    .shared = attention_fwd_shared,
    .buffers = {MJ_BUFFER(MjAttentionFwdArgs, q, MJ_BUF_BF16, MJ_IN, af_nhd, af_d),
                MJ_BUFFER(MjAttentionFwdArgs, k, MJ_BUF_BF16, MJ_IN, af_nhd, af_d),
                MJ_BUFFER(MjAttentionFwdArgs, qkv, MJ_BUF_BF16, MJ_IN, af_qkv, af_d),
                MJ_BUFFER(MjAttentionFwdArgs, pos, MJ_BUF_I32, MJ_IN, af_n, NULL),
                MJ_BUFFER(MjAttentionFwdArgs, out, MJ_BUF_BF16, MJ_OUT, af_nhd, af_d),
                MJ_BUFFER(MjAttentionFwdArgs, lse, MJ_BUF_F32, MJ_OUT, af_hn, af_n)},
    .flops = af_flops, .bytes = af_bytes,
    .proof = MJ_OP_PROOF(mj_setup_attention_fwd, mj_fill_attention_fwd, mj_case_ref_attention_fwd, af_length,
                         mj_shapes_attention, mj_bench_attention),
};

MJ_COUNT(ab_grid, MjAttentionBwdArgs, mj_attention_grid(a->tokens, a->heads))
MJ_COUNT(ab_n, MjAttentionBwdArgs, a->tokens)
MJ_COUNT(ab_d, MjAttentionBwdArgs, a->head_dim)
MJ_COUNT(ab_hn, MjAttentionBwdArgs, (int64_t)a->tokens * a->heads)
MJ_COUNT(ab_nhd, MjAttentionBwdArgs, (int64_t)a->tokens * a->heads * a->head_dim)
MJ_COUNT(ab_qkv, MjAttentionBwdArgs, (int64_t)a->tokens * a->heads * a->head_dim * 3)
static double ab_length(const void *args) { return (double)((const MjAttentionBwdArgs *)args)->window; }
static double ab_flops(const void *args)
{
    const MjAttentionBwdArgs *a = args;
    return 10.0 * pairs(a->tokens, a->window, a->longest) * a->heads * a->head_dim;
}
static double ab_bytes(const void *args) { return 16.0 * (double)ab_nhd(args) + 8.0 * (double)ab_hn(args); }

const MjOpRow mj_row_attention_bwd = {
    .id = MJ_OP_ATTENTION_BWD, .name = "attention_bwd", .doc = "Gradients of attention: delta, dq, then dk and dv",
    .choose = attention_bwd_template, .args_bytes = sizeof(MjAttentionBwdArgs),
    .fields = {MJ_FIELD(MjAttentionBwdArgs, tokens), MJ_FIELD(MjAttentionBwdArgs, heads), MJ_FIELD(MjAttentionBwdArgs, head_dim),
               MJ_FIELD(MjAttentionBwdArgs, window)},
    .matrix = attention_bwd_matrix,
    .phases = {{"delta", MJ_WORK_GRID, ab_grid}, {"dq", MJ_WORK_GRID, ab_grid}, {"dkv", MJ_WORK_GRID, ab_grid}},
    .shared = attention_bwd_shared,
    .buffers = {MJ_BUFFER(MjAttentionBwdArgs, q, MJ_BUF_BF16, MJ_IN, ab_nhd, ab_d),
                MJ_BUFFER(MjAttentionBwdArgs, k, MJ_BUF_BF16, MJ_IN, ab_nhd, ab_d),
                MJ_BUFFER(MjAttentionBwdArgs, qkv, MJ_BUF_BF16, MJ_IN, ab_qkv, ab_d),
                MJ_BUFFER(MjAttentionBwdArgs, pos, MJ_BUF_I32, MJ_IN, ab_n, NULL),
                MJ_BUFFER(MjAttentionBwdArgs, out, MJ_BUF_BF16, MJ_IN, ab_nhd, ab_d),
                MJ_BUFFER(MjAttentionBwdArgs, dout, MJ_BUF_BF16, MJ_IN, ab_nhd, ab_d),
                MJ_BUFFER(MjAttentionBwdArgs, lse, MJ_BUF_F32, MJ_IN, ab_hn, ab_n),
                MJ_BUFFER(MjAttentionBwdArgs, delta, MJ_BUF_F32, MJ_SCRATCH, ab_hn, ab_n),
                MJ_BUFFER(MjAttentionBwdArgs, dqkv, MJ_BUF_BF16, MJ_OUT, ab_qkv, ab_d)},
    .flops = ab_flops, .bytes = ab_bytes,
    .proof = MJ_OP_PROOF(mj_setup_attention_bwd, mj_fill_attention_bwd, mj_case_ref_attention_bwd, ab_length,
                         mj_shapes_attention, mj_bench_attention),
};
