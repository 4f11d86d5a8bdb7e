/* Argument structs of all kernels, in the common subset of C and CUDA C++: the host fills one, the JIT's launch
 * passes it by value, the template reads it as `args`. One struct serves an op on every device and in every mode.
 *
 * A template's parameter NAME is the field `name` here (lower case). Where a mode binds it, the field is ignored.
 * Pointers are device pointers; shapes stand beside them. N = tokens (padded), W = width, H = heads, D = head_dim,
 * V = vocab, E = experts, K = top_k, F = hidden size, R = routed rows (a capacity: the layout's upper bound).
 * What changes from step to step (`live`, `dscale`, `rates`) is read from device memory and is never a parameter: so the
 * arguments of a step are the same each time, and a captured step can be replayed. `live` is the number of real tokens.
 * bf16 is uint16_t bits, fp8 is uint8_t bits. Element types of a variant field are MJ_T_* below.
 */
#ifndef MJ_KERNEL_ARGS_H
#define MJ_KERNEL_ARGS_H

#ifndef __CUDACC_RTC__
#include <stdint.h>
#endif

#define MJ_T_BF16 0
#define MJ_T_E4M3 1
#define MJ_T_E5M2 2
#define MJ_T_F32 3

#define MJ_SCALE_NONE 0
#define MJ_SCALE_TENSOR 1 /* one f32 an operand */
#define MJ_SCALE_BLOCK 2  /* f32 per 128 of K; see MjGemmArgs */

#define MJ_FP8_BLOCK 128   /* block recipe: activations 1 x 128, weights 128 x 128 */
#define MJ_GROUP_ALIGN 128 /* rows of an expert are padded to this in the routed layout */

/* ---- row kernels ---------------------------------------------------------------------------------------- */

typedef struct MjEmbeddingFwdArgs { /* out[n] = table[token[n]] */
    const int32_t *token; /* (N) */
    const float *table;   /* (V, W) */
    float *out;           /* (N, W) */
    int32_t tokens, width, vocab;
} MjEmbeddingFwdArgs;

typedef struct MjEmbeddingBwdArgs { /* dtable[v] += sum over n with token[n] = v, in order of n; n >= live skipped */
    const int32_t *token; /* (N) */
    const float *dout;    /* (N, W) */
    float *dtable;        /* (V, W) */
    const int32_t *live;  /* (1): real tokens, <= tokens */
    int32_t tokens, width, vocab;
} MjEmbeddingBwdArgs;

typedef struct MjRmsnormFwdArgs { /* y = x / sqrt(mean(x^2) + eps), of x + add where that is given; y in bf16 and/or f32 */
    const float *x;  /* (N, W) residual stream */
    const uint16_t *add; /* (N, W) bf16, may be NULL: what a branch adds to it */
    uint16_t *y;     /* (N, W) bf16, may be NULL */
    float *y_f32;    /* (N, W), may be NULL; may be x itself */
    float *x_out;    /* (N, W), may be NULL: x + add, where the residual stream goes on */
    float *rstd;     /* (N) */
    float eps;
    int32_t tokens, width;
} MjRmsnormFwdArgs; /* without y and y_f32: rstd, for rmsnorm_quant */

typedef struct MjRmsnormBwdArgs { /* dx (+)= d rmsnorm; dy is the sum of up to three gradients */
    const float *x, *rstd;      /* (N, W), (N): input of the forward pass */
    const float *dy;            /* (N, W) f32, may be NULL */
    const uint16_t *dy_bf16;    /* (N, W), may be NULL */
    const uint16_t *dy_bf16_2;  /* (N, W), may be NULL */
    float *dx;                  /* (N, W) */
    int32_t tokens, width;
    int32_t accumulate;         /* 1: dx += */
} MjRmsnormBwdArgs;

/* x rstd in e4m3, row blocks and column blocks as in quantize: the norm of rows whose rstd rmsnorm_fwd or combine_fwd gave. */
typedef struct MjRmsnormQuantArgs {
    const float *x;    /* (N, W) residual stream */
    const float *rstd; /* (N) */
    uint8_t *q;        /* (N, W) */
    float *q_scale;    /* (W/128, N) */
    uint8_t *qt;       /* (N, W), or (W, MJ_KMAJOR_STRIDE(N)) under `kmajor`; may be NULL */
    float *qt_scale;   /* (N/128, W) */
    int32_t tokens, width;
    int32_t kmajor;    /* variant */
} MjRmsnormQuantArgs;

typedef struct MjRopeQknormFwdArgs { /* half-split RoPE, base 1e5, then RMSNorm over D, then x gain (1.2), for q and k */
    const uint16_t *qkv; /* (N, 3, H, D) bf16 */
    const int32_t *pos;  /* (N): position within its sequence */
    uint16_t *q, *k;     /* (N, H, D) bf16 */
    float *q_rstd, *k_rstd; /* (N, H) */
    float rope_base, gain, eps;
    int32_t tokens, heads, head_dim;
} MjRopeQknormFwdArgs;

/* rope_qknorm_bwd turns dqkv in place; rope_qknorm_bwd_quant only reads it and writes what it would be in e4m3, row blocks and
 * column blocks as in quantize. */
typedef struct MjRopeQknormBwdArgs {
    const uint16_t *qkv;    /* (N, 3, H, D) */
    const int32_t *pos;     /* (N) */
    const float *q_rstd, *k_rstd; /* (N, H) */
    uint16_t *dqkv;         /* (N, 3, H, D) bf16: dq, dk and dv; the first two become gradients of qkv, the third is one */
    float rope_base, gain, eps;
    int32_t tokens, heads, head_dim;
    int32_t kmajor;         /* variant; this and the rest: rope_qknorm_bwd_quant */
    uint8_t *q;             /* (N, 3 H D) */
    float *q_scale;         /* (3 H D/128, N) */
    uint8_t *qt;            /* (N, 3 H D), or (3 H D, MJ_KMAJOR_STRIDE(N)) under `kmajor` */
    float *qt_scale;        /* (N/128, 3 H D) */
} MjRopeQknormBwdArgs;

/* ---- attention (matrix kernels; one file a family) ------------------------------------------------------ */

typedef struct MjAttentionFwdArgs {
    /* Token i attends to j with max(i - pos[i], i - window + 1) <= j <= i: sequences are runs of pos 0,1,2,... */
    const uint16_t *q, *k; /* (N, H, D) bf16 */
    const uint16_t *qkv;   /* (N, 3, H, D): v is the third */
    const int32_t *pos;    /* (N) */
    uint16_t *out;         /* (N, H, D) bf16 */
    float *lse;            /* (H, N): log of the sum of exp of scaled scores */
    float scale;           /* 1 / sqrt(D) */
    int32_t tokens, heads, head_dim, window; /* window: fixed; >= the longest sequence means none */
    int32_t longest;       /* of the sequences; 0: all tokens are one. For counting work: kernels go by pos */
} MjAttentionFwdArgs;

typedef struct MjAttentionBwdArgs {
    const uint16_t *q, *k, *qkv; /* as above */
    const int32_t *pos;
    const uint16_t *out, *dout;  /* (N, H, D) bf16 */
    const float *lse;            /* (H, N) */
    float *delta;                /* (H, N) scratch: sum over D of out * dout, written by the first entry point */
    uint16_t *dqkv;              /* (N, 3, H, D) bf16: dq, dk, dv, overwritten */
    float scale;
    int32_t tokens, heads, head_dim, window, longest;
} MjAttentionBwdArgs;

/* ---- GEMM (matrix kernels; dense is one group) ----------------------------------------------------------- */

#define MJ_GEMM_NT 0 /* C(M,N) = A(M,K) B(N,K)^T : forward.  A: activations (rows, K); B: weights (N, K)           */
#define MJ_GEMM_NN 1 /* C(M,N) = A(M,K) B(K,N)   : dgrad.    A: dY (rows, K = out features); B: weights (K, N)      */
#define MJ_GEMM_TN 2 /* C(M,N) = A(K,M)^T B(K,N) : wgrad.    A: dY (rows, M = out); B: X (rows, N = in); K = rows   */

#define MJ_GROUP_NONE 0
#define MJ_GROUP_M 1 /* NT, NN: rows of A and C are split over the experts by `offset`; B is (E, N, K) / (E, K, N) */
#define MJ_GROUP_K 2 /* TN: the rows that are summed over are split by `offset`; C is (E, M, N)                    */

/* Group e of GROUP_K. Without an `offset`, groups are pieces of `piece` rows (a multiple of 128), one after the other, as far
 * as the K rows go: products that one matrix of weights is the sum of (MjAddPiecesArgs), where it has too few tiles for a GPU. */
#define MJ_GROUP_FIRST(args, e) ((args)->offset != 0 ? (args)->offset[e] : (e) * (args)->piece)
#define MJ_GROUP_LENGTH(args, e, k)                                                                                    \
    ((args)->offset != 0 ? (args)->count[e] : MJ_PIECE_LENGTH((args)->piece, (k) - (e) * (args)->piece))
#define MJ_PIECE_LENGTH(piece, left) ((left) < 0 ? 0 : (left) < (piece) ? (left) : (piece))

/* Operands whose bytes run along K whatever the layout (fp8 on a GPU, whose tensor cores read nothing else):
 * NN: B is the transposed weight (E, N, K). TN: A is (M, S) and B is (N, S), S = K rounded up to MJ_GROUP_ALIGN, zeros
 * from K on. The scales stay as the layout says. CPU templates take the layout's own order only. */
#define MJ_KMAJOR_STRIDE(k) (((k) + MJ_GROUP_ALIGN - 1) / MJ_GROUP_ALIGN * MJ_GROUP_ALIGN)

#define MJ_EPI_STORE 0      /* C = result, in c_type */
#define MJ_EPI_ACCUMULATE 1 /* C (f32) += result */

/* Scales of the block recipe. For NT and NN, A is quantised along K: a_scale(K/128, rows) (k-block major), and the
 * weights in 128 x 128 blocks: b_scale(E, ceil(out/128), ceil(in/128)) in the weight's own (out, in) orientation.
 * For TN both operands are quantised along the rows: a_scale(rows/128, M), b_scale(rows/128, N); groups start at
 * multiples of 128. Partial sums over each 128 of K are multiplied by both scales and added in f32. Tensor recipe:
 * a_scale[0] * b_scale[0] once at the end. A scale is what the stored value is multiplied by to get the real one.
 * Padding rows (from offset[e] + count[e] to offset[e + 1]) hold zeros, and C's padding rows are written as zeros.
 * Rows of A and C at and after offset[E] are not touched.
 *
 * Accumulation order (the same bits for every tile, mode, thread count): one f32 accumulator an output element of a group,
 * k ascending in pairs (bf16 dot product of 2), promoted every 128 under MJ_SCALE_BLOCK. */
typedef struct MjGemmArgs {
    const void *a, *b;
    void *c;                        /* bf16 or f32 */
    const float *a_scale, *b_scale; /* NULL under MJ_SCALE_NONE */
    const int32_t *offset;          /* (E + 1) row offsets, device; NULL for MJ_GROUP_NONE and for pieces */
    const int32_t *count;           /* (E) rows in use; the same */
    int32_t m, n, k;                /* GROUP_M: m = R (capacity). GROUP_K: k = R */
    int32_t experts;                /* 1 for MJ_GROUP_NONE */
    int32_t layout, group, a_type, b_type, c_type, scale_mode, epilogue; /* variants */
    int32_t kmajor;                 /* 1: see MJ_KMAJOR_STRIDE */
    int32_t piece;                  /* GROUP_K without an offset: rows of each group */
} MjGemmArgs;

typedef struct MjAddPiecesArgs { /* y[i] += ((x[0][i] + x[1][i]) + x[2][i]) + ... */
    const float *x; /* (P, COUNT) */
    float *y;       /* (COUNT) */
    int32_t count;
    int32_t pieces; /* P >= 1 */
} MjAddPiecesArgs;

/* ---- routing -------------------------------------------------------------------------------------------- */

typedef struct MjRouterFwdArgs { /* score = sigmoid(x . w_e); chosen = top_k of score + bias; weight = score of the chosen */
    const uint16_t *x;     /* (N, W) bf16 */
    const float *weight;   /* (E, W) */
    const float *bias;     /* (E): for choosing only */
    float *score;          /* (N, E) */
    int32_t *expert;       /* (N, K): ties go to the lower index; -1 for n >= live */
    float *gate;           /* (N, K): score of the chosen, normalised to sum 1 when `normalize`; 0 for n >= live */
    const int32_t *live;   /* (1) */
    int32_t tokens, width, experts, top_k, normalize;
} MjRouterFwdArgs;

typedef struct MjRouterBwdArgs { /* from dgate to dlogit; then dx and dweight */
    const uint16_t *x;     /* (N, W) */
    const float *weight;   /* (E, W) */
    const float *score;    /* (N, E) */
    const int32_t *expert; /* (N, K) */
    const float *gate;     /* (N, K) */
    const float *dgate;    /* (N, K) */
    float *dlogit;         /* (N, E) scratch, written by router_bwd_x */
    uint16_t *dx;          /* (N, W) bf16, overwritten */
    float *partial;        /* (ceil(N/256), E, W) scratch for dweight */
    float *dweight;        /* (E, W) += */
    const int32_t *live;   /* (1) */
    int32_t tokens, width, experts, top_k, normalize;
} MjRouterBwdArgs;

typedef struct MjRouteMapArgs {
    /* Deterministic and sort-free: the rows of an expert are its tokens in ascending order. dropless: offset[e] = sum of
     * counts before, each rounded up to MJ_GROUP_ALIGN. capacity > 0: each expert has `capacity` rows (a multiple of
     * MJ_GROUP_ALIGN), overflow is dropped. */
    const int32_t *expert;  /* (N, K) */
    int32_t *count;         /* (E) rows in use */
    int32_t *demand;        /* (E) += tokens that asked, before dropping; NULL: not counted (evaluation) */
    int32_t *offset;        /* (E + 1) */
    int32_t *row_of;        /* (N, K): routed row, or -1 (dropped or not live) */
    int32_t *slot_of;       /* (R): n * K + k, or -1 for padding */
    int32_t *stats;         /* (4): padded rows, dropped rows, rows used, largest count; += (zeroed by the trainer each step) */
    int32_t *scratch;       /* (E, ceil(N/256)) */
    const int32_t *live;    /* (1) */
    int32_t tokens, experts, top_k, rows, capacity; /* rows = R */
} MjRouteMapArgs;

typedef struct MjBalanceArgs { /* bias[e] += rate * sign(mean(demand) - demand[e]), then centred: bias -= mean(bias) */
    int32_t *demand;       /* (E) of all micro-batches of the step; zeroed after use */
    const double *guard;   /* (2), see MjAdamwArgs; may be NULL */
    float *bias;           /* (E) */
    float rate;
    int32_t experts;
} MjBalanceArgs;

typedef struct MjPermuteArgs { /* rows gathered into the routed layout; padding rows are zeros */
    const uint16_t *x;      /* (N, W) */
    const int32_t *slot_of; /* (R) */
    const int32_t *offset;  /* (E + 1): rows >= offset[E] are not touched */
    uint16_t *out;          /* (R, W) bf16, may be NULL when quantised */
    uint8_t *q;             /* (R, W) fp8, row blocks 1 x 128, or NULL */
    float *q_scale;         /* (W/128, R) or (1) */
    uint8_t *qt;            /* (R, W) fp8 quantised along the rows (128 x 1), for wgrad, or NULL */
    float *qt_scale;        /* (R/128, W) */
    const float *tensor_scale; /* recipe tensor: the given scale (1), from amax; both q and qt are the same bytes, qt unused */
    int32_t tokens, width, experts, top_k, rows;
    int32_t q_type, scale_mode; /* variants: MJ_T_BF16 = no quantising */
    int32_t kmajor;             /* 1: qt is (W, MJ_KMAJOR_STRIDE(R)), also under recipe tensor; see MjGemmArgs */
} MjPermuteArgs;

typedef struct MjPermuteBwdArgs { /* dx[n] = sum over k of dout[row_of[n,k]], k ascending */
    const uint16_t *dout;  /* (R, W) bf16 */
    const int32_t *row_of; /* (N, K) */
    uint16_t *dx;          /* (N, W) bf16 */
    int32_t tokens, width, top_k, rows;
} MjPermuteBwdArgs;

typedef struct MjCombineFwdArgs { /* x_out = x + shared + sum over k of gate * y[row_of], k ascending; missing rows count 0 */
    const uint16_t *y;      /* (R, W) */
    const uint16_t *shared; /* (N, W), may be NULL */
    const int32_t *row_of;  /* (N, K) */
    const float *gate;      /* (N, K) */
    const float *x;         /* (N, W) residual */
    float *x_out;           /* (N, W) */
    float *rstd;            /* (N), may be NULL: of x_out's rows, as rmsnorm_fwd has it */
    float eps;
    int32_t tokens, width, top_k, rows;
} MjCombineFwdArgs;

/* dy[row] = gate * dx[n]; padding rows are zeros. In bf16 and/or fp8 in both layouts, as in permute, but under recipe block only.
 * The gates' gradient comes from relu2_bwd. */
typedef struct MjCombineBwdArgs {
    const float *dx;        /* (N, W) */
    const int32_t *slot_of; /* (R) */
    const int32_t *offset;  /* (E + 1) */
    const float *gate;      /* (N, K) */
    uint16_t *dy;           /* (R, W) bf16, may be NULL when quantised */
    uint8_t *q, *qt;
    float *q_scale, *qt_scale;
    int32_t tokens, width, experts, top_k, rows;
    int32_t q_type, scale_mode; /* variants: MJ_T_BF16 = no quantising */
    int32_t kmajor;             /* as in permute */
} MjCombineBwdArgs;

/* ---- activations, quantisers, casts ---------------------------------------------------------------------- */

typedef struct MjRelu2FwdArgs { /* y = max(x,0)^2; bf16 and/or fp8 in both layouts, as in permute */
    const uint16_t *x;     /* (R, F) */
    const int32_t *offset; /* (E + 1), NULL for a dense matrix; rows >= offset[E] are not touched */
    uint16_t *y;           /* (R, F) or NULL */
    uint8_t *q, *qt;
    float *q_scale, *qt_scale;
    const float *tensor_scale;
    int32_t rows, cols, experts, q_type, scale_mode;
    int32_t kmajor; /* as in permute */
} MjRelu2FwdArgs;

/* dx = 2 max(x,0) dy, with the same outputs. With `gated` also dgate[n,k] = max(x,0)^2 . dy / gate[n,k] over row row_of[n,k]: of
 * act = max(x,0)^2, y = act Wdown^T and dy = (gate dx_n) Wdown, where dx_n is the gradient of token n, that is y . dx_n. */
typedef struct MjRelu2BwdArgs {
    const uint16_t *x, *dy; /* (R, F) */
    const int32_t *offset;
    uint16_t *dx;           /* (R, F) or NULL; may be dy */
    uint8_t *q, *qt;
    float *q_scale, *qt_scale;
    const float *tensor_scale;
    const int32_t *slot_of; /* (R); this and the next two when gated, else NULL */
    const float *gate;      /* (N, K) */
    float *dgate;           /* (N, K): entries with a row are written; the trainer zeroes it before */
    int32_t rows, cols, experts, q_type, scale_mode;
    int32_t kmajor; /* as in permute */
    int32_t gated;  /* variant */
    int32_t slots;  /* N K, 0 unless gated */
} MjRelu2BwdArgs;

typedef struct MjQuantizeArgs { /* bf16 (rows, cols) -> fp8 in row blocks (q) and/or column blocks (qt); or per tensor */
    const void *x;         /* bf16, or f32 when x_type = MJ_T_F32 (the cast of the residual gradient) */
    const int32_t *offset; /* as above */
    uint16_t *y;           /* bf16 copy of x, or NULL */
    uint8_t *q, *qt;
    float *q_scale, *qt_scale;
    const float *tensor_scale;
    int32_t rows, cols, experts, x_type, q_type, scale_mode;
    int32_t kmajor; /* as in permute */
} MjQuantizeArgs;

typedef struct MjQuantizeWeightArgs { /* f32 master -> bf16 and/or fp8 in 128 x 128 blocks (or per tensor) */
    const float *w;   /* (E, out, in) */
    uint16_t *w_bf16; /* or NULL */
    uint8_t *q;       /* (E, out, in) or NULL */
    uint8_t *q_t;     /* (E, in, out), the transpose, where the device wants K-major; else NULL */
    float *scale;     /* (E, ceil(out/128), ceil(in/128)) or (1) */
    const float *tensor_scale;
    int32_t experts, out_features, in_features, q_type, scale_mode;
} MjQuantizeWeightArgs;

#define MJ_AMAX_PARTS 4096 /* enough warps to keep a GPU's memory busy */

typedef struct MjAmaxArgs { /* scale[0] = max|x| / max of q_type (1 when all zero); also for relu2 and its gradient */
    const void *x;         /* bf16 or f32 */
    const uint16_t *x2;    /* transform 2 (relu2 backward): dy */
    const int32_t *offset; /* rows >= offset[E] do not count; NULL: all rows */
    float *partial;        /* (MJ_AMAX_PARTS) scratch */
    float *scale;          /* (1) */
    int64_t rows64;        /* rows of a plain matrix that may exceed 2^31; else 0 and `rows` counts */
    int32_t rows, cols, experts, x_type, q_type, transform; /* 0 none, 1 relu2, 2 relu2 backward */
} MjAmaxArgs;

/* ---- loss ------------------------------------------------------------------------------------------------- */

typedef struct MjCrossEntropyArgs {
    /* z = cap tanh(logit / cap); loss[n] = logsumexp(z) - z[target]. In place: the logits become dlogits, already through
     * the softcap and multiplied by dscale (1 / live tokens of the whole step). Padded columns v >= vocab_used are
     * excluded. target < 0: loss 0, gradient 0. write_grad = 0 leaves the logits (evaluation). */
    uint16_t *logits;      /* (N, V) bf16, in place */
    const int32_t *target; /* (N) */
    float *loss;           /* (N) */
    const float *dscale;   /* (1) */
    float softcap;
    int32_t tokens, vocab, vocab_used, write_grad;
} MjCrossEntropyArgs;

typedef struct MjSumArgs { /* out[0] (+)= sum of x in fixed chunks of 4096, then chunks ascending; f32 lanes, f64 chunks */
    const float *x;
    double *partial; /* (ceil(n/4096)) scratch */
    double *out;     /* (1) */
    int64_t n;
    int32_t square;     /* 1: sum of squares */
    int32_t accumulate;
} MjSumArgs;

/* ---- optimizer --------------------------------------------------------------------------------------------- */

#define MJ_RATE_LR 0    /* learning rate */
#define MJ_RATE_BIAS1 1 /* 1 - beta1^t */
#define MJ_RATE_BIAS2 2 /* 1 - beta2^t */
#define MJ_RATES 3

typedef struct MjAdamwArgs { /* decoupled weight decay; all in f32; grad is zeroed after use */
    float *w, *m, *v, *grad; /* (n) */
    const float *rates;      /* (MJ_RATES) */
    const double *guard;     /* (2): loss and squared gradient norm; unless both are finite, nothing changes; may be NULL */
    int64_t n;
    float beta1, beta2, eps, weight_decay;
    float grad_scale;
} MjAdamwArgs;

/* ---- measuring -------------------------------------------------------------------------------------------- */

typedef struct MjPeakArgs { /* dot products without memory: every block does iterations * MJ_PEAK_FLOPS_PER_ITERATION */
    float *out;         /* (grid): a value, so that nothing is optimised away */
    int32_t iterations;
} MjPeakArgs;

#endif
