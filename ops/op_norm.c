/* Rows of the op table: embedding, RMSNorm, RoPE with QK-norm. */
#include "ops/op_row.h"
#include "ops/refs.h"

MJ_COUNT(ef_n, MjEmbeddingFwdArgs, a->tokens)
MJ_COUNT(ef_w, MjEmbeddingFwdArgs, a->width)
MJ_COUNT(ef_nw, MjEmbeddingFwdArgs, (int64_t)a->tokens * a->width)
MJ_COUNT(ef_vw, MjEmbeddingFwdArgs, (int64_t)a->vocab * a->width)
static double ef_bytes(const void *args) { return 8.0 * (double)ef_nw(args) + 4.0 * (double)ef_n(args); }

const MjOpRow mj_row_embedding_fwd = {
    .id = MJ_OP_EMBEDDING_FWD, .name = "embedding_fwd", .doc = "Rows of the table by token", .args_bytes = sizeof(MjEmbeddingFwdArgs),
    .fields = {MJ_FIELD(MjEmbeddingFwdArgs, tokens), MJ_FIELD(MjEmbeddingFwdArgs, width), MJ_FIELD(MjEmbeddingFwdArgs, vocab)},
    .phases = {{"embedding_fwd", MJ_WORK_ROWS, ef_n}},
    .buffers = {MJ_BUFFER(MjEmbeddingFwdArgs, token, MJ_BUF_I32, MJ_IN, ef_n, NULL),
                MJ_BUFFER(MjEmbeddingFwdArgs, table, MJ_BUF_F32, MJ_IN, ef_vw, ef_w),
                MJ_BUFFER(MjEmbeddingFwdArgs, out, MJ_BUF_F32, MJ_OUT, ef_nw, ef_w)},
    .bytes = ef_bytes,
    .proof = MJ_OP_PROOF(mj_setup_embedding_fwd, mj_fill_embedding_fwd, mj_ref_embedding_fwd, mj_length_none,
                         mj_shapes_tokens, mj_bench_tokens),
};

MJ_COUNT(eb_n, MjEmbeddingBwdArgs, a->tokens)
MJ_COUNT(eb_w, MjEmbeddingBwdArgs, a->width)
MJ_COUNT(eb_nw, MjEmbeddingBwdArgs, (int64_t)a->tokens * a->width)
MJ_COUNT(eb_vw, MjEmbeddingBwdArgs, (int64_t)a->vocab * a->width)
MJ_COUNT(eb_one, MjEmbeddingBwdArgs, a != NULL ? 1 : 0)
MJ_COUNT(eb_parts, MjEmbeddingBwdArgs, a != NULL ? 512 : 0) /* of a GPU's blocks; enough for any cpu */
static size_t eb_shared(MjFamily family, const void *args)
{
    (void)args; /* hits of a round, and how many each warp found */
    return family == MJ_FAMILY_CPU ? 0 : 64 + 8 * 512 * 2 * sizeof(int32_t);
}
static double eb_bytes(const void *args) { return 12.0 * (double)eb_nw(args) + 4.0 * (double)eb_n(args); }
static double eb_length(const void *args) { return (double)((const MjEmbeddingBwdArgs *)args)->tokens; }

const MjOpRow mj_row_embedding_bwd = {
    .id = MJ_OP_EMBEDDING_BWD, .name = "embedding_bwd", .doc = "Gradient of the table, in token order", .args_bytes = sizeof(MjEmbeddingBwdArgs),
    .fields = {MJ_FIELD(MjEmbeddingBwdArgs, tokens), MJ_FIELD(MjEmbeddingBwdArgs, width), MJ_FIELD(MjEmbeddingBwdArgs, vocab)},
    .phases = {{"embedding_bwd", MJ_WORK_ITEMS, eb_parts}},
    .shared = eb_shared,
    .buffers = {MJ_BUFFER(MjEmbeddingBwdArgs, token, MJ_BUF_I32, MJ_IN, eb_n, NULL),
                MJ_BUFFER(MjEmbeddingBwdArgs, dout, MJ_BUF_F32, MJ_IN, eb_nw, eb_w),
                MJ_BUFFER(MjEmbeddingBwdArgs, dtable, MJ_BUF_F32, MJ_INOUT, eb_vw, eb_w),
                MJ_BUFFER(MjEmbeddingBwdArgs, live, MJ_BUF_I32, MJ_IN, eb_one, NULL)},
    .bytes = eb_bytes,
    .proof = MJ_OP_PROOF(mj_setup_embedding_bwd, mj_fill_embedding_bwd, mj_ref_embedding_bwd, eb_length, mj_shapes_tokens,
                         mj_bench_tokens),
};

MJ_COUNT(nf_n, MjRmsnormFwdArgs, a->tokens)
MJ_COUNT(nf_w, MjRmsnormFwdArgs, a->width)
MJ_COUNT(nf_nw, MjRmsnormFwdArgs, (int64_t)a->tokens * a->width)
static double nf_length(const void *args) { return (double)((const MjRmsnormFwdArgs *)args)->width; }
static double nf_flops(const void *args) { return 4.0 * (double)nf_nw(args); }

const MjOpRow mj_row_rmsnorm_fwd = {
    .id = MJ_OP_RMSNORM_FWD, .name = "rmsnorm_fwd", .doc = "y = x / sqrt(mean(x^2) + eps), x = x + add", .args_bytes = sizeof(MjRmsnormFwdArgs),
    .fields = {MJ_FIELD(MjRmsnormFwdArgs, tokens), MJ_FIELD(MjRmsnormFwdArgs, width)},
    .phases = {{"rmsnorm_fwd", MJ_WORK_ROWS, nf_n}},
    .buffers = {MJ_BUFFER(MjRmsnormFwdArgs, x, MJ_BUF_F32, MJ_IN, nf_nw, nf_w),
                MJ_BUFFER(MjRmsnormFwdArgs, add, MJ_BUF_BF16, MJ_IN, nf_nw, nf_w),
                MJ_BUFFER(MjRmsnormFwdArgs, y, MJ_BUF_BF16, MJ_OUT, nf_nw, nf_w),
                MJ_BUFFER(MjRmsnormFwdArgs, y_f32, MJ_BUF_F32, MJ_OUT, nf_nw, nf_w),
                MJ_BUFFER(MjRmsnormFwdArgs, x_out, MJ_BUF_F32, MJ_OUT, nf_nw, nf_w),
                MJ_BUFFER(MjRmsnormFwdArgs, rstd, MJ_BUF_F32, MJ_OUT, nf_n, NULL)},
    .flops = nf_flops,
    .proof = MJ_OP_PROOF(mj_setup_rmsnorm_fwd, mj_fill_rmsnorm_fwd, mj_ref_rmsnorm_fwd, nf_length, mj_shapes_tokens,
                         mj_bench_tokens),
};

MJ_COUNT(nq_n, MjRmsnormQuantArgs, a->tokens)
MJ_COUNT(nq_w, MjRmsnormQuantArgs, a->width)
MJ_COUNT(nq_nw, MjRmsnormQuantArgs, (int64_t)a->tokens * a->width)
MJ_COUNT(nq_t, MjRmsnormQuantArgs, a->width * (a->kmajor ? MJ_KMAJOR_STRIDE((int64_t)a->tokens) : a->tokens))
MJ_COUNT(nq_tc, MjRmsnormQuantArgs, a->kmajor ? MJ_KMAJOR_STRIDE(a->tokens) : a->width)
MJ_COUNT(nq_scale, MjRmsnormQuantArgs, (int64_t)MJ_CEIL(a->width, 128) * a->tokens)
MJ_COUNT(nq_tscale, MjRmsnormQuantArgs, (int64_t)MJ_CEIL(a->tokens, 128) * a->width)
MJ_COUNT(nq_tiles, MjRmsnormQuantArgs, (int64_t)MJ_CEIL(a->tokens, 128) * MJ_CEIL(a->width, 128))
static const char *nq_template(MjFamily family, int arch, const void *args)
{
    const MjRmsnormQuantArgs *a = args;
    (void)arch;
    return mj_quant_takes(family, a->width, MJ_T_E4M3, a->kmajor) ? "rmsnorm_quant" : NULL;
}
static void nq_adapt(MjFamily family, MjOpShape *s)
{
    s->q_type = MJ_T_E4M3;
    mj_adapt_quant(family, s);
}

const MjOpRow mj_row_rmsnorm_quant = {
    .id = MJ_OP_RMSNORM_QUANT, .name = "rmsnorm_quant", .doc = "x rstd, quantised in the same pass", .choose = nq_template,
    .args_bytes = sizeof(MjRmsnormQuantArgs),
    .fields = {MJ_FIELD(MjRmsnormQuantArgs, tokens), MJ_FIELD(MjRmsnormQuantArgs, width), MJ_FIELD(MjRmsnormQuantArgs, kmajor)},
    .phases = {{"rmsnorm_quant", MJ_WORK_ITEMS, nq_tiles}},
    .shared = mj_quant_tile_shared,
    .buffers = {MJ_BUFFER(MjRmsnormQuantArgs, x, MJ_BUF_F32, MJ_IN, nq_nw, nq_w),
                MJ_BUFFER(MjRmsnormQuantArgs, rstd, MJ_BUF_F32, MJ_IN, nq_n, NULL),
                MJ_BUFFER(MjRmsnormQuantArgs, q, MJ_BUF_E4M3, MJ_OUT, nq_nw, nq_w),
                MJ_BUFFER(MjRmsnormQuantArgs, q_scale, MJ_BUF_F32, MJ_OUT, nq_scale, nq_n),
                MJ_BUFFER(MjRmsnormQuantArgs, qt, MJ_BUF_E4M3, MJ_OUT, nq_t, nq_tc),
                MJ_BUFFER(MjRmsnormQuantArgs, qt_scale, MJ_BUF_F32, MJ_OUT, nq_tscale, nq_w)},
    .proof = MJ_OP_PROOF_FOR(nq_adapt, mj_setup_rmsnorm_quant, mj_fill_rmsnorm_quant, mj_ref_rmsnorm_quant, mj_length_none,
                             mj_shapes_rmsnorm_quant, mj_bench_rmsnorm_quant),
};

MJ_COUNT(nb_n, MjRmsnormBwdArgs, a->tokens)
MJ_COUNT(nb_w, MjRmsnormBwdArgs, a->width)
MJ_COUNT(nb_nw, MjRmsnormBwdArgs, (int64_t)a->tokens * a->width)
static double nb_length(const void *args) { return (double)((const MjRmsnormBwdArgs *)args)->width; }
static double nb_flops(const void *args) { return 8.0 * (double)nb_nw(args); }

const MjOpRow mj_row_rmsnorm_bwd = {
    .id = MJ_OP_RMSNORM_BWD, .name = "rmsnorm_bwd", .doc = "Gradient of RMSNorm, of up to three gradients added", .args_bytes = sizeof(MjRmsnormBwdArgs),
    .fields = {MJ_FIELD(MjRmsnormBwdArgs, tokens), MJ_FIELD(MjRmsnormBwdArgs, width)},
    .phases = {{"rmsnorm_bwd", MJ_WORK_ROWS, nb_n}},
    .buffers = {MJ_BUFFER(MjRmsnormBwdArgs, x, MJ_BUF_F32, MJ_IN, nb_nw, nb_w),
                MJ_BUFFER(MjRmsnormBwdArgs, rstd, MJ_BUF_F32, MJ_IN, nb_n, NULL),
                MJ_BUFFER(MjRmsnormBwdArgs, dy, MJ_BUF_F32, MJ_IN, nb_nw, nb_w),
                MJ_BUFFER(MjRmsnormBwdArgs, dy_bf16, MJ_BUF_BF16, MJ_IN, nb_nw, nb_w),
                MJ_BUFFER(MjRmsnormBwdArgs, dy_bf16_2, MJ_BUF_BF16, MJ_IN, nb_nw, nb_w),
                MJ_BUFFER(MjRmsnormBwdArgs, dx, MJ_BUF_F32, MJ_INOUT, nb_nw, nb_w)},
    .flops = nb_flops,
    .proof = MJ_OP_PROOF(mj_setup_rmsnorm_bwd, mj_fill_rmsnorm_bwd, mj_ref_rmsnorm_bwd, nb_length, mj_shapes_tokens,
                         mj_bench_tokens),
};

MJ_COUNT(rf_n, MjRopeQknormFwdArgs, a->tokens)
MJ_COUNT(rf_d, MjRopeQknormFwdArgs, a->head_dim)
MJ_COUNT(rf_h, MjRopeQknormFwdArgs, a->heads)
MJ_COUNT(rf_nh, MjRopeQknormFwdArgs, (int64_t)a->tokens * a->heads)
MJ_COUNT(rf_nhd, MjRopeQknormFwdArgs, (int64_t)a->tokens * a->heads * a->head_dim)
MJ_COUNT(rf_qkv, MjRopeQknormFwdArgs, (int64_t)a->tokens * a->heads * a->head_dim * 3)
static double rf_length(const void *args) { return (double)((const MjRopeQknormFwdArgs *)args)->head_dim; }
static double rf_bytes(const void *args) { return 8.0 * (double)rf_nhd(args) + 8.0 * (double)rf_nh(args); }
static double rf_flops(const void *args) { return 2.0 * 7.0 * (double)rf_nhd(args); }

const MjOpRow mj_row_rope_qknorm_fwd = {
    .id = MJ_OP_ROPE_QKNORM_FWD, .name = "rope_qknorm_fwd", .doc = "RoPE, then RMSNorm over the head, for q and k", .args_bytes = sizeof(MjRopeQknormFwdArgs),
    .fields = {MJ_FIELD(MjRopeQknormFwdArgs, tokens), MJ_FIELD(MjRopeQknormFwdArgs, heads), MJ_FIELD(MjRopeQknormFwdArgs, head_dim)},
    .phases = {{"rope_qknorm_fwd", MJ_WORK_ROWS, rf_n, NULL, 8}}, /* frequencies in double, once a block */
    .buffers = {MJ_BUFFER(MjRopeQknormFwdArgs, qkv, MJ_BUF_BF16, MJ_IN, rf_qkv, rf_d),
                MJ_BUFFER(MjRopeQknormFwdArgs, pos, MJ_BUF_I32, MJ_IN, rf_n, NULL),
                MJ_BUFFER(MjRopeQknormFwdArgs, q, MJ_BUF_BF16, MJ_OUT, rf_nhd, rf_d),
                MJ_BUFFER(MjRopeQknormFwdArgs, k, MJ_BUF_BF16, MJ_OUT, rf_nhd, rf_d),
                MJ_BUFFER(MjRopeQknormFwdArgs, q_rstd, MJ_BUF_F32, MJ_OUT, rf_nh, rf_h),
                MJ_BUFFER(MjRopeQknormFwdArgs, k_rstd, MJ_BUF_F32, MJ_OUT, rf_nh, rf_h)},
    .flops = rf_flops, .bytes = rf_bytes,
    .proof = MJ_OP_PROOF(mj_setup_rope_qknorm_fwd, mj_fill_rope_qknorm_fwd, mj_ref_rope_qknorm_fwd, rf_length,
                         mj_shapes_heads, mj_bench_heads),
};

MJ_COUNT(rb_n, MjRopeQknormBwdArgs, a->tokens)
MJ_COUNT(rb_d, MjRopeQknormBwdArgs, a->head_dim)
MJ_COUNT(rb_h, MjRopeQknormBwdArgs, a->heads)
MJ_COUNT(rb_nh, MjRopeQknormBwdArgs, (int64_t)a->tokens * a->heads)
MJ_COUNT(rb_nhd, MjRopeQknormBwdArgs, (int64_t)a->tokens * a->heads * a->head_dim)
MJ_COUNT(rb_qkv, MjRopeQknormBwdArgs, (int64_t)a->tokens * a->heads * a->head_dim * 3)
static double rb_length(const void *args) { return (double)((const MjRopeQknormBwdArgs *)args)->head_dim; }
static double rb_bytes(const void *args) { return 12.0 * (double)rb_nhd(args) + 8.0 * (double)rb_nh(args); } /* nothing of v */
static double rb_flops(const void *args) { return 2.0 * 14.0 * (double)rb_nhd(args); }

const MjOpRow mj_row_rope_qknorm_bwd = {
    .id = MJ_OP_ROPE_QKNORM_BWD, .name = "rope_qknorm_bwd", .doc = "Gradient of RoPE and QK-norm, in place", .args_bytes = sizeof(MjRopeQknormBwdArgs),
    .fields = {MJ_FIELD(MjRopeQknormBwdArgs, tokens), MJ_FIELD(MjRopeQknormBwdArgs, heads), MJ_FIELD(MjRopeQknormBwdArgs, head_dim)},
    .phases = {{"rope_qknorm_bwd", MJ_WORK_ROWS, rb_n, NULL, 8}}, /* as above */
    .buffers = {MJ_BUFFER(MjRopeQknormBwdArgs, qkv, MJ_BUF_BF16, MJ_IN, rb_qkv, rb_d),
                MJ_BUFFER(MjRopeQknormBwdArgs, pos, MJ_BUF_I32, MJ_IN, rb_n, NULL),
                MJ_BUFFER(MjRopeQknormBwdArgs, q_rstd, MJ_BUF_F32, MJ_IN, rb_nh, rb_h),
                MJ_BUFFER(MjRopeQknormBwdArgs, k_rstd, MJ_BUF_F32, MJ_IN, rb_nh, rb_h),
                MJ_BUFFER(MjRopeQknormBwdArgs, dqkv, MJ_BUF_BF16, MJ_INOUT, rb_qkv, rb_d)},
    .flops = rb_flops, .bytes = rb_bytes,
    .proof = MJ_OP_PROOF(mj_setup_rope_qknorm_bwd, mj_fill_rope_qknorm_bwd, mj_ref_rope_qknorm_bwd, rb_length,
                         mj_shapes_heads, mj_bench_heads),
};

MJ_COUNT(rq_cols, MjRopeQknormBwdArgs, (int64_t)a->heads * a->head_dim * 3)
MJ_COUNT(rq_t, MjRopeQknormBwdArgs, rq_cols(a) * (a->kmajor ? MJ_KMAJOR_STRIDE((int64_t)a->tokens) : a->tokens))
MJ_COUNT(rq_tc, MjRopeQknormBwdArgs, a->kmajor ? MJ_KMAJOR_STRIDE(a->tokens) : rq_cols(a))
MJ_COUNT(rq_scale, MjRopeQknormBwdArgs, MJ_CEIL(rq_cols(a), 128) * a->tokens)
MJ_COUNT(rq_tscale, MjRopeQknormBwdArgs, (int64_t)MJ_CEIL(a->tokens, 128) * rq_cols(a))
MJ_COUNT(rq_items, MjRopeQknormBwdArgs,
         MJ_CEIL(a->tokens, 128) * MJ_CEIL(MJ_CEIL(MJ_CEIL(rq_cols(a), 128), 3), a->tokens >= 32768 ? 6 : 2)) /* STRIPS */
static double rq_bytes(const void *args) /* x of q and k, dqkv, both copies, their scales */
{
    return 14.0 * (double)rb_nhd(args) + 8.0 * (double)rb_nh(args) + 4.0 * (double)(rb_n(args) + rq_scale(args) + rq_tscale(args));
}
static size_t rq_shared(MjFamily family, const void *args)
{
    const MjRopeQknormBwdArgs *a = args; /* the tile, cosines and sines */
    return mj_quant_tile_shared(family, args) + (size_t)(a->head_dim > 0 ? a->head_dim : 128) * 128 * sizeof(float);
}
static const char *rq_template(MjFamily family, int arch, const void *args)
{
    const MjRopeQknormBwdArgs *a = args;
    (void)arch;
    return mj_quant_takes(family, (int32_t)rq_cols(a), MJ_T_E4M3, a->kmajor) ? "rope_qknorm_bwd_quant" : NULL;
}

const MjOpRow mj_row_rope_qknorm_bwd_quant = {
    .id = MJ_OP_ROPE_QKNORM_BWD_QUANT, .name = "rope_qknorm_bwd_quant", .doc = "Gradient of RoPE and QK-norm, quantised in the same pass",
    .choose = rq_template, .args_bytes = sizeof(MjRopeQknormBwdArgs),
    .fields = {MJ_FIELD(MjRopeQknormBwdArgs, tokens), MJ_FIELD(MjRopeQknormBwdArgs, heads), MJ_FIELD(MjRopeQknormBwdArgs, head_dim),
               MJ_FIELD(MjRopeQknormBwdArgs, kmajor)},
    .phases = {{"rope_qknorm_bwd_quant", MJ_WORK_ITEMS, rq_items}},
    .shared = rq_shared,
    .buffers = {MJ_BUFFER(MjRopeQknormBwdArgs, qkv, MJ_BUF_BF16, MJ_IN, rb_qkv, rb_d),
                MJ_BUFFER(MjRopeQknormBwdArgs, pos, MJ_BUF_I32, MJ_IN, rb_n, NULL),
                MJ_BUFFER(MjRopeQknormBwdArgs, q_rstd, MJ_BUF_F32, MJ_IN, rb_nh, rb_h),
                MJ_BUFFER(MjRopeQknormBwdArgs, k_rstd, MJ_BUF_F32, MJ_IN, rb_nh, rb_h),
                MJ_BUFFER(MjRopeQknormBwdArgs, dqkv, MJ_BUF_BF16, MJ_IN, rb_qkv, rb_d),
                MJ_BUFFER(MjRopeQknormBwdArgs, q, MJ_BUF_E4M3, MJ_OUT, rb_qkv, rq_cols),
                MJ_BUFFER(MjRopeQknormBwdArgs, q_scale, MJ_BUF_F32, MJ_OUT, rq_scale, rb_n),
                MJ_BUFFER(MjRopeQknormBwdArgs, qt, MJ_BUF_E4M3, MJ_OUT, rq_t, rq_tc),
                MJ_BUFFER(MjRopeQknormBwdArgs, qt_scale, MJ_BUF_F32, MJ_OUT, rq_tscale, rq_cols)},
    .flops = rb_flops, .bytes = rq_bytes,
    .proof = MJ_OP_PROOF_FOR(nq_adapt, mj_setup_rope_qknorm_bwd_quant, mj_fill_rope_qknorm_bwd, mj_ref_rope_qknorm_bwd_quant, rb_length,
                             mj_shapes_rope_quant, mj_bench_heads),
};
