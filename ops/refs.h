/* Set-up, inputs and references of every op, and the cases that they work on. Private to ops/. */
#ifndef MJ_OPS_REFS_H
#define MJ_OPS_REFS_H

#include "ops/op_row.h"

size_t mj_quant_tile_shared(MjFamily family, const void *args);
size_t mj_quant_gather_shared(MjFamily family, const void *args, int32_t experts); /* where rows are gathered */
bool mj_quant_takes(MjFamily family, int32_t cols, int32_t q_type, int32_t kmajor); /* the family's quantisers do */
void mj_adapt_quant(MjFamily family, MjOpShape *shape);

typedef struct MjWant { /* what one output element must be; sampled cases only */
    int64_t i;
    double value, tolerance;
} MjWant;

/* A case while it is filled and checked. `args` holds host pointers to the inputs as they are before the launch. */
struct MjCase {
    MjOps *ops;
    const MjOpRow *row;
    MjOpShape shape;
    uint64_t seed, random;
    union {
        unsigned char bytes[MJ_MAX_ARG_BYTES];
        double align;
    } args, device_args;
    void *host[MJ_OP_MAX_BUFFERS];        /* contents before the launch */
    size_t period[MJ_OP_MAX_BUFFERS];     /* not 0: a large buffer that repeats these bytes, mapped over and over */
    void *device[MJ_OP_MAX_BUFFERS];      /* with a guard on either side */
    int64_t n[MJ_OP_MAX_BUFFERS];         /* elements */
    double *want[MJ_OP_MAX_BUFFERS];      /* outputs: expected values */
    double *tolerance[MJ_OP_MAX_BUFFERS]; /* < 0: the launch must leave the element as it was */
    double reference_s;                   /* < 0: not computed yet */
    bool sampled;                         /* only some elements are checked: `wants` instead of `want` and `tolerance` */
    MjWant *wants[MJ_OP_MAX_BUFFERS];     /* NULL: not an output */
    int64_t n_wants[MJ_OP_MAX_BUFFERS], cap_wants[MJ_OP_MAX_BUFFERS];
};

/* Used by fill and reference functions. Buffers by their field name; a wrong name aborts. */
int mj_case_buffer(const MjCase *c, const char *name);
bool mj_case_has(const MjCase *c, const char *name);          /* false: NULL in this case */
void mj_case_drop(MjCase *c, const char *name);               /* makes an optional buffer NULL */
double mj_case_in(const MjCase *c, const char *name, int64_t i); /* element before the launch, as a real number */
void mj_case_set(MjCase *c, const char *name, int64_t i, double value);
/* Output i must be `value` within what rounding allows: the type's half step, plus f32 accumulation over the op's length
 * of terms whose magnitudes sum to `size` (at least |value|). A no-op for a dropped buffer. */
void mj_case_want(MjCase *c, const char *name, int64_t i, double value, double size);
void mj_case_want_within(MjCase *c, const char *name, int64_t i, double value, double tolerance);
uint32_t mj_case_random(MjCase *c, uint32_t below);
double mj_case_uniform(MjCase *c, double low, double high);
double mj_case_normal(MjCase *c);
/* Normal numbers times `size` in every element: as mj_case_normal gives them, or drawn from a table of them where there
 * are more than MJ_CASE_MANY. */
#define MJ_CASE_MANY ((int64_t)1 << 20)
void mj_case_fill_normal(MjCase *c, const char *name, double size);
/* Whether the reference is to say what unit (a row, a block of rows) `unit` of `units` must be: always, or about 24 of them,
 * the first and the last included, when only samples are checked. */
bool mj_case_takes(const MjCase *c, int64_t unit, int64_t units);
/* The item after `i` of `n` whose block of `block` items is taken; 0 always is. A reference's loop over what it can skip. */
int64_t mj_case_next(const MjCase *c, int64_t i, int64_t n, int64_t block);
void mj_case_want_sample(MjCase *c, int buffer, int64_t i, double value, double tolerance); /* mj_case_want_within uses it */
void mj_case_fill_random(MjCase *c, int buffer, double size);
/* Host memory of a buffer. A large one is one piece mapped again and again: a write shows in every repetition, and what is
 * sent to a device is the piece and copies made there. */
void mj_case_host_alloc(MjCase *c, int buffer);
void mj_case_host_free(MjCase *c, int buffer);
void mj_case_sort_wants(MjCase *c, int buffer);
int mj_case_launch(MjCase *c, MjError *err) MJ_MUST_CHECK; /* one launch, not synchronised */

/* Element conversions in double, written apart from the kernels' (ref_types.c). */
double mj_ref_decode(MjOpType type, const void *base, int64_t i);
void mj_ref_encode(MjOpType type, void *base, int64_t i, double value); /* nearest, ties to even, saturating */
double mj_ref_round_bf16(double x);

double mj_length_none(const void *args);

/* The sums that AdamW and balancing are guarded by (ref_loss.c). */
void mj_fill_guard(MjCase *c);
bool mj_ref_guard(const double *guard); /* whether the step may change anything */

/* Shared by the ops that quantise tiles (ref_quant.c). x(used, cols): the values in double, already those of bf16. */
typedef struct MjRefTile {
    const char *copy; /* name of the bf16 output; NULL: none */
    const double *x;
    int64_t used, rows, cols;
    int32_t q_type, scale_mode, kmajor;
    bool dense;       /* no routed layout: a transposed copy ends in zeros */
    const float *tensor_scale;
    const double *slack; /* (used, cols): how far off an x in bf16 may be; NULL: it is exact. Scales of blocks only */
} MjRefTile;
void mj_ref_drop_copies(MjCase *c, const char *copy, int32_t q_type, int32_t scale_mode);
void mj_ref_drop_outputs(MjCase *c, const char *copy, int32_t q_type, int32_t scale_mode);
void mj_ref_quantise(MjCase *c, const MjRefTile *t);

/* The routed layout of a choice of experts, plainly: also what permute and combine cases are made from. */
typedef struct MjRefLayout {
    int32_t tokens, live, experts, top_k, rows, capacity;
    const int32_t *expert;                               /* (N, K) */
    int32_t *count, *demand, *offset, *row_of, *slot_of; /* any may be NULL */
    int32_t stats[4];
} MjRefLayout;
void mj_ref_layout(MjRefLayout *layout);
int32_t mj_ref_rows(const MjOpShape *shape);             /* rows that the layout needs */
void mj_ref_choose(MjCase *c, int32_t *expert, int32_t tokens, int32_t live, int32_t experts, int32_t top_k);

/* dq, dk or dv (part 0, 1 or 2) of token n: within MJ_REF_ATTENTION_TOLERANCE of its row's size, and bf16's rounding. */
void mj_want_attention_gradient(MjCase *c, int32_t part, int64_t n, int64_t h, int64_t d, double value, double size);

/* Sampled references of the matrix ops (ref_sample.c), from the same definitions as the full ones. */
void mj_sample_gemm(MjCase *c);
void mj_sample_attention_fwd(MjCase *c);
void mj_sample_attention_bwd(MjCase *c);
/* An output and a log-sum like those of a forward pass, where computing them on the host would take minutes. */
bool mj_sample_attention_fill(MjCase *c);

void mj_setup_embedding_fwd(const MjOpShape *shape, void *args);
void mj_fill_embedding_fwd(MjCase *c);
void mj_ref_embedding_fwd(MjCase *c);
void mj_setup_embedding_bwd(const MjOpShape *shape, void *args);
void mj_fill_embedding_bwd(MjCase *c);
void mj_ref_embedding_bwd(MjCase *c);
void mj_setup_rmsnorm_fwd(const MjOpShape *shape, void *args);
void mj_fill_rmsnorm_fwd(MjCase *c);
void mj_ref_rmsnorm_fwd(MjCase *c);
void mj_setup_rmsnorm_quant(const MjOpShape *shape, void *args);
void mj_fill_rmsnorm_quant(MjCase *c);
void mj_ref_rmsnorm_quant(MjCase *c);
void mj_setup_rmsnorm_bwd(const MjOpShape *shape, void *args);
void mj_fill_rmsnorm_bwd(MjCase *c);
void mj_ref_rmsnorm_bwd(MjCase *c);
void mj_setup_rope_qknorm_fwd(const MjOpShape *shape, void *args);
void mj_fill_rope_qknorm_fwd(MjCase *c);
void mj_ref_rope_qknorm_fwd(MjCase *c);
void mj_setup_rope_qknorm_bwd(const MjOpShape *shape, void *args);
void mj_fill_rope_qknorm_bwd(MjCase *c);
void mj_ref_rope_qknorm_bwd(MjCase *c);
void mj_setup_rope_qknorm_bwd_quant(const MjOpShape *shape, void *args);
void mj_ref_rope_qknorm_bwd_quant(MjCase *c);
void mj_setup_attention_fwd(const MjOpShape *shape, void *args);
void mj_fill_attention_fwd(MjCase *c);
void mj_case_ref_attention_fwd(MjCase *c);
void mj_setup_attention_bwd(const MjOpShape *shape, void *args);
void mj_fill_attention_bwd(MjCase *c);
void mj_case_ref_attention_bwd(MjCase *c);
void mj_adapt_gemm(MjFamily family, MjOpShape *s);
void mj_setup_gemm(const MjOpShape *shape, void *args);
void mj_fill_gemm(MjCase *c);
void mj_case_ref_gemm(MjCase *c);
void mj_setup_router_fwd(const MjOpShape *shape, void *args);
void mj_fill_router_fwd(MjCase *c);
void mj_ref_router_fwd(MjCase *c);
void mj_setup_router_bwd(const MjOpShape *shape, void *args);
void mj_fill_router_bwd(MjCase *c);
void mj_ref_router_bwd(MjCase *c);
void mj_setup_route_map(const MjOpShape *shape, void *args);
void mj_fill_route_map(MjCase *c);
void mj_ref_route_map(MjCase *c);
void mj_setup_balance(const MjOpShape *shape, void *args);
void mj_fill_balance(MjCase *c);
void mj_ref_balance(MjCase *c);
void mj_setup_permute(const MjOpShape *shape, void *args);
void mj_fill_permute(MjCase *c);
void mj_ref_permute(MjCase *c);
void mj_setup_permute_bwd(const MjOpShape *shape, void *args);
void mj_fill_permute_bwd(MjCase *c);
void mj_ref_permute_bwd(MjCase *c);
void mj_setup_combine_fwd(const MjOpShape *shape, void *args);
void mj_fill_combine_fwd(MjCase *c);
void mj_ref_combine_fwd(MjCase *c);
void mj_setup_combine_bwd(const MjOpShape *shape, void *args);
void mj_fill_combine_bwd(MjCase *c);
void mj_ref_combine_bwd(MjCase *c);
void mj_setup_relu2_fwd(const MjOpShape *shape, void *args);
void mj_fill_relu2_fwd(MjCase *c);
void mj_ref_relu2_fwd(MjCase *c);
void mj_setup_relu2_bwd(const MjOpShape *shape, void *args);
void mj_fill_relu2_bwd(MjCase *c);
void mj_ref_relu2_bwd(MjCase *c);
void mj_setup_quantize(const MjOpShape *shape, void *args);
void mj_fill_quantize(MjCase *c);
void mj_ref_quantize(MjCase *c);
void mj_setup_quantize_weight(const MjOpShape *shape, void *args);
void mj_fill_quantize_weight(MjCase *c);
void mj_ref_quantize_weight(MjCase *c);
void mj_setup_amax(const MjOpShape *shape, void *args);
void mj_fill_amax(MjCase *c);
void mj_ref_amax(MjCase *c);
void mj_setup_cross_entropy(const MjOpShape *shape, void *args);
void mj_fill_cross_entropy(MjCase *c);
void mj_ref_cross_entropy(MjCase *c);
void mj_setup_sum(const MjOpShape *shape, void *args);
void mj_fill_sum(MjCase *c);
void mj_ref_sum(MjCase *c);
void mj_setup_adamw(const MjOpShape *shape, void *args);
void mj_fill_adamw(MjCase *c);
void mj_ref_adamw(MjCase *c);
void mj_setup_add_pieces(const MjOpShape *shape, void *args);
void mj_fill_add_pieces(MjCase *c);
void mj_ref_add_pieces(MjCase *c);

extern const MjOpShape mj_shapes_tokens[], mj_bench_tokens[],
    mj_shapes_rmsnorm_quant[], mj_bench_rmsnorm_quant[],
    mj_shapes_heads[], mj_bench_heads[], mj_shapes_rope_quant[],
    mj_shapes_routed[], mj_bench_routed[],
    mj_shapes_permute[], mj_bench_permute[],
    mj_shapes_combine_bwd[], mj_bench_combine_bwd[],
    mj_shapes_tile[], mj_bench_tile[],
    mj_shapes_relu2_bwd[], mj_bench_relu2_bwd[],
    mj_shapes_quantize[], mj_bench_quantize[],
    mj_shapes_weight[], mj_bench_weight[],
    mj_shapes_amax[], mj_bench_amax[],
    mj_shapes_loss[], mj_bench_loss[],
    mj_shapes_flat[], mj_bench_flat[], mj_shapes_adamw[], mj_shapes_pieces[], mj_bench_pieces[], mj_shapes_balance[],
    mj_shapes_gemm[], mj_bench_gemm[],
    mj_shapes_attention[], mj_bench_attention[];

#endif
