/* Sizes that follow from a configuration. */
#include "train/dims.h"

#include <math.h>
#include <string.h>

#include "runtime/device.h"

static int32_t round_up(int32_t v, int32_t to) { return (v + to - 1) / to * to; }

static int32_t expert_hidden(const MjConfig *c, int32_t width) {
    if (c->moe.hidden > 0) return c->moe.hidden;
    int32_t h = (int32_t)lround(4.0 * width / (c->moe.top_k + c->moe.shared) / 128.0) * 128;
    return h > 0 ? h : 128;
}

int mj_dims_make(const MjConfig *config, MjDims *out, MjError *err) {
    int rc = 0;
    MjDims d = {0};
    MJ_TRY(mj_config_check(config, err));
    d.depth = config->model.depth;
    d.width = config->model.width > 0 ? config->model.width : round_up(64 * d.depth, 128);
    d.head_dim = config->model.head_dim;
    d.heads = d.width / d.head_dim;
    d.vocab = config->model.vocab;
    d.vocab_padded = round_up(d.vocab, 128);
    d.experts = config->moe.experts;
    if (d.experts > 0) {
        d.top_k = config->moe.top_k;
        d.hidden = expert_hidden(config, d.width);
        d.ffn_hidden = config->moe.shared * d.hidden;
        MJ_TRY(mj_config_capacity(config, &d.capacity_factor, err));
    } else {
        d.ffn_hidden = 4 * d.width;
    }
    d.seq_len = config->train.seq_len;
    d.max_tokens = round_up(config->train.batch * config->train.seq_len, 128);
    d.loss_chunk = config->train.loss_chunk < d.max_tokens ? config->train.loss_chunk : d.max_tokens;
    d.micro_batches = config->train.grad_accum;
    d.fp8_linears = config->precision.linears == MJ_PRECISION_FP8;
    d.fp8_experts = config->precision.experts == MJ_PRECISION_FP8;
    d.tensor_recipe = config->precision.recipe == MJ_RECIPE_TENSOR;
    size_t pattern = strlen(config->model.window_pattern);
    for (int32_t i = 0; i < d.depth; i++) {
        bool whole = i == d.depth - 1 || config->model.window_pattern[(size_t)i % pattern] == 'L';
        d.window[i] = whole || config->model.window_short > d.seq_len ? d.seq_len : config->model.window_short;
    }
    int64_t rows = (int64_t)d.max_tokens * d.top_k * (d.capacity_factor > 1 ? (int64_t)ceil(d.capacity_factor) : 1);
    if (rows + (int64_t)d.experts * 128 > INT32_MAX / 2) {
        rc = mj_error(err, MJ_ERR_USAGE, "a micro-batch of %d tokens has %lld routed rows: at most 1073741823; lower train.batch",
                      d.max_tokens, (long long)rows);
        goto out;
    }
    *out = d;
out:
    return rc;
}

int mj_dims_check_target(const MjDims *d, const char *name, const char *target, MjError *err) {
    const bool linears = d->fp8_linears, experts = d->experts > 0 && d->fp8_experts;
    if (mj_target_fp8(target) || (!linears && !experts)) return 0;
    return mj_error(err, MJ_ERR_MISSING,
                    "%s (%s) has no FP8 arithmetic: it came with sm_89 (L40, RTX 4090) and sm_90 (H100, H200). Set %s%s%s; "
                    "everything else runs as it is", name, target, linears ? "precision.linears = bf16" : "",
                    linears && experts ? " and " : "", experts ? "precision.experts = bf16" : "");
}

int32_t mj_dims_capacity(const MjDims *d, int32_t tokens) {
    if (d->capacity_factor == 0 || d->experts == 0) return 0;
    double rows = ceil(d->capacity_factor * tokens * d->top_k / d->experts);
    return round_up(rows < 1 ? 1 : (int32_t)rows, 128);
}

int32_t mj_dims_rows(const MjDims *d, int32_t tokens) {
    if (d->experts == 0) return 0;
    int32_t capacity = mj_dims_capacity(d, tokens);
    if (capacity > 0) return d->experts * capacity;
    return round_up(tokens * d->top_k, 128) + d->experts * 128;
}

static int64_t layer_weights(const MjDims *d, int64_t experts) {
    int64_t w = d->width;
    return 4 * w * w + 2 * w * d->ffn_hidden + experts * 2 * w * d->hidden + (d->experts > 0 ? d->experts * w : 0);
}

int64_t mj_dims_parameters(const MjDims *d) {
    return ((int64_t)d->vocab + d->vocab) * d->width + d->depth * layer_weights(d, d->experts);
}

int64_t mj_dims_matrix_weights(const MjDims *d) {
    return (int64_t)d->vocab * d->width + d->depth * layer_weights(d, d->top_k);
}

double mj_dims_flops_per_token(const MjDims *d) {
    double sum = 6.0 * (double)mj_dims_matrix_weights(d);
    for (int32_t i = 0; i < d->depth; i++) {
        sum += 12.0 * d->width * (d->window[i] < d->seq_len ? d->window[i] : d->seq_len);
    }
    return sum;
}
