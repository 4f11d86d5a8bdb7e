/* Double-precision reference of attention and its gradients. */
#ifndef MJ_OPS_REF_ATTENTION_H
#define MJ_OPS_REF_ATTENTION_H

#include "kernels_src/kernel_args.h"

/* out(N, H, D), lse(H, N) from the arguments' inputs; host pointers. */
void mj_ref_attention_fwd(const MjAttentionFwdArgs *g, double *out, double *lse);

typedef struct MjRefAttentionGrad {
    double *dq, *dk, *dv;                /* (N, H, D) */
    double *dq_size, *dk_size, *dv_size; /* (N, H): sum of the magnitudes that a row was made of */
} MjRefAttentionGrad;

/* Fills all of `out` from q, k, v and dout alone: the forward pass is done again in double, so lse, out and delta of the
 * arguments are not read. */
void mj_ref_attention_bwd(const MjAttentionBwdArgs *g, MjRefAttentionGrad *out);

/* How far a gradient may be from the reference, as a share of its row's size: out, probabilities and score gradients are
 * rounded to bf16 (2^-9 each, twice in a product), and an element may be some times the root mean square of its row.
 * An output element may be as far as this share of the root mean square of its row plus that of the tensor. */
#define MJ_REF_ATTENTION_TOLERANCE 0x1p-6
#define MJ_REF_ATTENTION_LSE_TOLERANCE 1e-5 /* absolute, for scores of order 10: exp and sums in f32 */

#endif
