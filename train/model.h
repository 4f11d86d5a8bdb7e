/* The model on the device: weights, optimizer state, working copies, activations, and one micro-batch forward and
 * backward through ops. Owns all device memory of a run, allocated once. Knows nothing of files, schedules and metrics.
 *
 * Layer: x_mid = x_in + Wo attention(qk_norm(rope(Wqkv h1))), h1 = rmsnorm(x_in)
 *        x_out = x_mid + mlp(h2),                              h2 = rmsnorm(x_mid)
 *        mlp = Wdown relu2(Wup h2), or shared expert + sum over k of gate[k] * expert[k](h2).
 * The residual stream x and its gradient are f32; what enters a GEMM is bf16 or fp8 (MjOperand).
 * N = padded tokens, R = routed rows, W, H, D, F, E, K, V as in kernel_args.h. One thread.
 */
#ifndef MJ_TRAIN_MODEL_H
#define MJ_TRAIN_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "ops/gemm_pieces.h"
#include "ops/ops.h"
#include "train/dims.h"

#define MJ_RMS_EPS 1e-6f
#define MJ_ROPE_BASE 1e5f
#define MJ_QK_GAIN 1.2f

/* Groups of weights with an AdamW launch each, in the order of the flat buffers. */
enum { MJ_GROUP_EMBEDDING, MJ_GROUP_HEAD, MJ_GROUP_MATRICES, MJ_GROUP_ROUTERS, MJ_WEIGHT_GROUPS };

typedef struct MjOperand { /* a (rows, cols) matrix as a GEMM reads it */
    int32_t type, cols;    /* MJ_T_* */
    uint16_t *bf16;        /* type bf16 */
    uint8_t *q, *qt;       /* fp8 along cols, and along rows for wgrad; recipe tensor: the same values */
    float *q_scale;        /* (cols/128, rows) or (1) */
    float *qt_scale;       /* (rows/128, cols) or (1) */
} MjOperand;

typedef struct MjWeight { /* (experts, out, in) */
    int64_t offset;       /* of master, m, v, grad in the flat buffers */
    int32_t experts, out, in;
    int32_t type;         /* of the working copy: MJ_T_BF16 or MJ_T_E4M3 */
    uint16_t *bf16;
    uint8_t *q, *q_t;     /* q_t: transpose, devices that want K-major operands */
    float *scale;         /* (experts, ceil(out/128), ceil(in/128)) or (1) */
    MjPieces wgrad;       /* how its gradient is summed; zeros: whole */
    const char *name;
} MjWeight;

typedef struct MjFfn { /* dense MLP or shared experts: every token */
    MjWeight up, down;
    uint16_t *pre;    /* (N, F) before relu2 */
    MjOperand act;    /* (N, F) */
} MjFfn;

typedef struct MjRouted {
    int64_t router;   /* offset of (E, W) */
    MjWeight up, down;
    float *bias;      /* (E) */
    float *score, *gate;                 /* (N, E), (N, K) */
    int32_t *expert, *row_of, *slot_of;  /* (N, K), (N, K), (R) */
    int32_t *count, *demand, *offset;    /* (E), (E), (E + 1) */
    MjOperand x;      /* (R, W) permuted */
    uint16_t *pre;    /* (R, F) */
    MjOperand act;    /* (R, F) */
} MjRouted;

typedef struct MjLayer {
    MjWeight qkv, wo;
    float *x_in, *x_mid;         /* (N, W) */
    float *rstd1, *rstd2;        /* (N) */
    MjOperand h1, att_in;        /* (N, W): inputs of qkv and wo */
    uint16_t *qkv_out, *q, *k, *att; /* (N, 3, H, D), (N, H, D) x 3 */
    float *q_rstd, *k_rstd, *lse;    /* (N, H), (N, H), (H, N) */
    uint16_t *h2;                /* (N, W) */
    MjOperand ffn_in;            /* (N, W): h2 as the dense part reads it */
    MjFfn ffn;                   /* unless d.ffn_hidden is 0 */
    MjRouted moe;                /* when d.experts > 0 */
} MjLayer;

typedef struct MjScratch {
    uint16_t *h;                 /* (N, W) bf16 before quantising; recipe tensor only */
    uint16_t *ffn_out;           /* (N, W) */
    uint8_t *q, *qt;             /* largest operand */
    float *q_scale, *qt_scale;
    float *tensor_scale, *amax_partial; /* (1), (MJ_AMAX_PARTS) */
    uint16_t *dy;                /* (max(N, R), W); less, or NULL, where all of it is fp8 */
    uint16_t *dact;              /* (max rows, F) */
    uint16_t *dx_a, *dx_b;       /* (N, W); forward, the first is the output of a branch until the next norm adds it */
    float *dx_f32;               /* (N, W) */
    uint16_t *routed;            /* (R, W): outputs of a layer's experts; backward, their inputs' gradient */
    float *delta; /* (H, N) */
    uint16_t *dqkv;              /* (N, 3, H, D) */
    float *dgate, *dlogit, *router_partial; /* (N, K), (N, E), (ceil(N/256), E, W) */
    int32_t *map;                /* (E, ceil(N/256)) */
    uint16_t *logits;            /* (chunk, V) */
    float *loss;                 /* (N) */
    double *sum_partial;
    float *pieces;               /* (pieces, out, in): of one dense weight's gradient, the largest; NULL where all are whole */
} MjScratch;

/* What the host hands over with a micro-batch, in front of its tokens: one upload brings all of it, and kernels read it
 * from device memory. */
typedef struct MjBatchHead {
    int32_t live;                        /* real tokens */
    float dscale;                        /* 1 / targets of the whole step */
    float rates[MJ_WEIGHT_GROUPS][MJ_RATES]; /* AdamW's; those of the step's last micro-batch are used */
} MjBatchHead;

typedef struct MjModel {
    MjDims d;
    MjOps *ops;
    MjDevice *device;            /* NULL while planning */
    void **blocks;               /* device allocations, for freeing */
    int n_blocks;
    int64_t n_weights;           /* floats in each flat buffer */
    int64_t piece_floats;        /* of s.pieces */
    int64_t head_at, matrices_at, routers_at; /* groups: [0, head), [head, matrices), [matrices, routers), [routers, n) */
    float *master, *m, *v, *grad;
    MjWeight head;               /* (V, W) */
    MjLayer *layers;
    float *embedded, *rstd0;     /* (N, W) before its norm, (N) */
    float *x_last, *rstd_last;   /* (N, W), (N) */
    uint16_t *h_last;            /* (N, W) */
    float *dx;                   /* (N, W) residual gradient */
    char *input;                 /* (input_bytes): of one micro-batch: an MjBatchHead, then token, target, pos (N) */
    char *waiting;               /* (micro_batches, input_bytes): all of a step, one after the other; NULL when a step has one */
    size_t input_bytes;
    const MjBatchHead *head_of_batch; /* of the micro-batch at work, on the device; like the next three */
    const int32_t *token, *target, *pos; /* (N) */
    double *sums;                /* [0] loss, [1] squared gradient norm; stats follow in the same block */
    int32_t *stats;              /* (4), see MjRouteMapArgs */
    MjScratch s;
    bool count_demand;           /* of the pass at work: training, with balancing */
    float softcap, balance_rate;
    bool normalize_gates;
    int32_t tokens, rows, capacity; /* of the micro-batch at work: N, R */
    uint64_t first_launch_ns;    /* when the first forward pass had launched its first kernel; 0 before */
} MjModel;

/* Allocates everything. With ops->device NULL (planning) the addresses are made up and never read. */
int mj_model_open(const MjConfig *config, MjOps *ops, MjModel **out, MjError *err) MJ_MUST_CHECK;
void mj_model_close(MjModel *m);

/* Initial weights, decided by the seed alone; zero optimizer state and gradients. */
int mj_model_init(MjModel *m, uint64_t seed, MjError *err) MJ_MUST_CHECK;

/* Working copies (bf16, fp8) from the masters: after init and after each optimizer step. */
int mj_model_refresh(MjModel *m, MjError *err) MJ_MUST_CHECK;

/* Sets where the micro-batch at work lies on the device (in `input` or in `waiting`), and its padded size. */
void mj_model_place(MjModel *m, const char *input, int32_t tokens);
/* Where its parts lie, in bytes from the start of its input: token, target, pos, end. */
void mj_model_input_layout(int32_t tokens, size_t at[4]);

/* Forward, from the micro-batch's input on the device; with `train` also writes dlogits, head gradients and the gradient of
 * the last norm, chunk by chunk. Adds the losses to sums[0]. */
int mj_model_forward(MjModel *m, bool train, MjError *err) MJ_MUST_CHECK;
/* Backward through the layers; adds to the gradients. */
int mj_model_backward(MjModel *m, MjError *err) MJ_MUST_CHECK;

/* ---- shared by forward.c and backward.c (linear.c) ---- */

typedef struct MjGroups { /* routed rows; NULL: dense */
    const int32_t *offset, *count;
    int32_t experts;
} MjGroups;

/* Fills `op` from x (bf16, or f32 with x_type MJ_T_F32). A bf16 operand of bf16 data must already point at it. */
int mj_linear_quantize(MjModel *m, MjOperand *op, const void *x, int32_t x_type, int32_t rows, const MjGroups *g,
                       const char *what, MjError *err) MJ_MUST_CHECK;
/* The scale of recipe tensor for `op`, from x through `transform` (see MjAmaxArgs). */
int mj_linear_amax(MjModel *m, const MjOperand *op, const void *x, const uint16_t *x2, int32_t x_type, int32_t rows,
                   int32_t transform, const MjGroups *g, const char *what, MjError *err) MJ_MUST_CHECK;
/* c (rows, out) = x w^T; c_type and epilogue as in MjGemmArgs. */
int mj_linear_forward(MjModel *m, const MjOperand *x, const MjWeight *w, void *c, int32_t c_type, int32_t epilogue,
                      int32_t rows, const MjGroups *g, MjError *err) MJ_MUST_CHECK;
/* dx (rows, in) = dy w */
int mj_linear_dgrad(MjModel *m, const MjOperand *dy, const MjWeight *w, void *dx, int32_t c_type, int32_t rows,
                    const MjGroups *g, MjError *err) MJ_MUST_CHECK;
/* Decides how the gradient of a dense weight is summed (ops/gemm_pieces.h), from the most tokens of a step. */
int mj_linear_cut(const MjModel *m, MjWeight *w, MjError *err) MJ_MUST_CHECK;
/* grad of w (out, in) += dy^T x */
int mj_linear_wgrad(MjModel *m, const MjOperand *dy, const MjOperand *x, const MjWeight *w, int32_t rows,
                    const MjGroups *g, MjError *err) MJ_MUST_CHECK;
/* Whether operands of this type are stored along K here (fp8 on a GPU, see MjGemmArgs): weights are kept transposed too,
 * and the copy along the rows is (cols, MJ_KMAJOR_STRIDE(rows)), in recipe tensor as well. */
bool mj_linear_kmajor(const MjModel *m, int32_t type);
/* A gradient operand in scratch: type by recipe, or bf16 at `bf16`. */
MjOperand mj_linear_gradient(const MjModel *m, bool fp8, uint16_t *bf16, int32_t cols);

#endif
