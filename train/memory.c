/* The memory formula. Deliberately not written in terms of the model's buffers: it is what the docs promise. */
#include "train/memory.h"

static double larger(double a, double b) { return a > b ? a : b; }

size_t mj_memory_predict(const MjDims *d, bool kmajor) {
    const double n = d->max_tokens, r = mj_dims_rows(d, d->max_tokens), w = d->width, f = d->ffn_hidden, g = d->hidden;
    const double layers = d->depth, heads = d->heads, e = d->experts, k = d->top_k, v = d->vocab_padded;
    const bool moe = d->experts > 0, lin = d->fp8_linears, mlp = moe ? d->fp8_experts : lin;
    const double fp8 = 1 + (d->tensor_recipe ? 0 : 4.0 / 128), copy = kmajor ? 2 : 1;

    /* weights: f32 master, two moments, gradient; working copies */
    double attention_weights = 4 * w * w, mlp_weights = 2 * w * f + e * 2 * w * g;
    double parameters = 2 * v * w + layers * (attention_weights + mlp_weights + e * w);
    double weights = 16 * parameters + 2 * v * w + layers * (attention_weights * (lin ? copy : 2) + mlp_weights * (mlp ? copy : 2));

    /* one layer's activations */
    double linear_operand = lin ? fp8 : 2, mlp_operand = mlp ? fp8 : 2;
    double layer = n * w * (4 + 4 + 6 + 2 + 2 + 2 + 2);              /* x_in, x_mid, qkv, q, k, attention, h2 */
    layer += n * w * linear_operand + (lin ? n * w * fp8 : 0);       /* inputs of qkv and of the output projection */
    layer += n * f * (2 + mlp_operand) + (mlp && f > 0 ? n * w * fp8 : 0);
    layer += r * w * mlp_operand + r * g * (2 + mlp_operand);        /* routed: in, hidden, activation */
    layer += n * (8 + 12 * heads) + (moe ? n * (4 * e + 12 * k) + 4 * r : 0);

    /* the ends: embedded, x_last, dx in f32; head input in bf16; two norms; tokens, targets, positions of a step */
    double ends = n * w * (4 + 4 + 4 + 2) + n * (8 + 12.0 * (d->micro_batches > 1 ? d->micro_batches + 1 : 1));

    /* scratch of one layer's backward pass and of the loss */
    double largest = larger(lin ? 3 * n * w : 0, mlp ? larger(n * larger(w, f), r * larger(w, g)) : 0);
    double scratch = largest * (d->tensor_recipe ? copy : 2 * fp8) + (lin && d->tensor_recipe ? 2 * n * w : 0);
    scratch += 2 * larger(!lin || (moe && !mlp) ? n : 0, !mlp || d->tensor_recipe ? r : 0) * w;
    scratch += 2 * larger(n * f, r * g) + n * w * (2 + 4 + 6) + 4 * n * heads;
    scratch += moe ? 2 * n * w + (f > 0 ? 2 * n * w : 0) + 2 * r * w + n * (4 * e + 4 * k) + n / 256 * e * (4 * w + 4) : 0;
    scratch += 2.0 * d->loss_chunk * v + 4 * n + larger(parameters, n) / 512;
    return (size_t)(weights + layers * layer + ends + scratch);
}
