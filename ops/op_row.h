/* One row of the op table: everything that dispatch, checks and benchmarks need to know of an op. Private to ops/.
 * Rows stand in op_*.c beside the shapes of their buffers; op_table.c lists them in the order of MjOpId. */
#ifndef MJ_OPS_OP_ROW_H
#define MJ_OPS_OP_ROW_H

#include <stddef.h>
#include <stdint.h>

#include "ops/check.h"
#include "ops/ops.h"
#include "runtime/cuda_tensor_map.h"

/* How the blocks of a launch are counted. A kernel is right for any grid; this is about speed. */
typedef enum MjOpWork {
    MJ_WORK_ROWS,  /* MJ_FOR_ROWS: a warp, or a part of a cpu block, for each */
    MJ_WORK_ITEMS, /* MJ_FOR_ITEMS: a block for each */
    MJ_WORK_ONE,   /* one block */
    MJ_WORK_GRID   /* exactly this many blocks: the template's own tiling */
} MjOpWork;

typedef struct MjOpPhase { /* entry points of an op, launched in turn */
    const char *entry;
    MjOpWork work;
    int64_t (*count)(const void *args); /* rows or items; NULL for MJ_WORK_ONE */
    int64_t (*tuned_count)(const void *args, const MjLaunchRecord *record); /* before `count`, where tuning decides it; or NULL */
    int unit_blocks; /* MJ_WORK_ROWS on a GPU: most blocks for each multiprocessor, fewer where a block begins with work; 0: the usual 32 */
} MjOpPhase;

/* How a matrix template runs on a cuda device. Private to the template's own file in ops/. */
#define MJ_OP_MAX_MAPS 5
typedef struct MjOpGeometry {
    uint32_t grid, block, cluster; /* as in MjLaunch */
    size_t shared_bytes;
    int n_maps;                    /* tensor maps, passed to the kernel by value in this order as its second parameter */
    MjTensorMapSpec maps[MJ_OP_MAX_MAPS];
    const char *map_names[MJ_OP_MAX_MAPS]; /* for messages: "A", "B" */
} MjOpGeometry;

struct MjCard;
typedef struct MjTileCost MjTileCost; /* tile_choice.h */
typedef struct MjOpMatrix {
    const char *tmpl;
    /* Sets tuning parameters (by index of the template's parameter; MJ_UNBOUND = the default) from the shape and the
     * target alone: a plan made without a card must be the plan of the run. Called once a shape. NULL: the candidate that
     * `cost` finds cheapest; without that either, the defaults. */
    void (*tune)(const MjTemplate *t, int arch, const void *args, int32_t *values);
    /* The model of a launch's time with these values, which geometry() has accepted; see tile_choice.h. May be NULL. */
    void (*cost)(const MjTemplate *t, const struct MjCard *card, const void *args, const int32_t *values,
                 const MjOpGeometry *geometry, MjTileCost *out);
    /* From the values that the image in hand was built with (record->tuning_of by parameter; a generic build has the
     * defaults). Entry point `kernel` of the template. */
    int (*geometry)(const MjLaunchRecord *record, int kernel, const MjDeviceInfo *info, const void *args,
                    MjOpGeometry *out, MjError *err);
} MjOpMatrix;

extern const MjOpMatrix mj_attention_fwd_sm80, mj_attention_fwd_sm90, mj_attention_bwd_sm80, mj_attention_bwd_sm90; /* attention_cuda.c */

typedef struct MjOpField { /* a template parameter NAME is the int32 field `name` of the argument struct */
    const char *name;
    size_t offset;
} MjOpField;
#define MJ_FIELD(Args, field) {#field, offsetof(Args, field)}

typedef enum MjOpType { MJ_BUF_F32, MJ_BUF_BF16, MJ_BUF_E4M3, MJ_BUF_E5M2, MJ_BUF_I32, MJ_BUF_F64, MJ_BUF_BY_FIELD } MjOpType;
typedef enum MjOpRole { MJ_IN, MJ_OUT, MJ_INOUT, MJ_SCRATCH } MjOpRole;

typedef struct MjOpBuffer { /* a pointer in the argument struct */
    const char *name;
    size_t offset;
    MjOpType type;       /* MJ_BUF_BY_FIELD: the int32 at type_offset holds an MJ_T_* */
    MjOpRole role;
    int64_t (*count)(const void *args); /* elements */
    int64_t (*columns)(const void *args); /* of a row, for messages; NULL: one row */
    size_t type_offset;
} MjOpBuffer;
#define MJ_BUFFER(Args, field, type, role, count, columns) {#field, offsetof(Args, field), (type), (role), (count), (columns), 0}
#define MJ_BUFFER_BY(Args, field, type_field, role, count, columns)                                                    \
    {#field, offsetof(Args, field), MJ_BUF_BY_FIELD, (role), (count), (columns), offsetof(Args, type_field)}

/* What proves an op; see check.h. All members are required: MJ_OP_PROOF with an empty argument does not compile. */
typedef struct MjOpProof {
    void (*adapt)(MjFamily family, MjOpShape *shape);  /* to what the family's templates take; NULL: nothing to change */
    void (*setup)(const MjOpShape *shape, void *args); /* scalars of the struct from a shape */
    void (*fill)(MjCase *c);                           /* inputs that random numbers can't stand for; also absent buffers */
    void (*reference)(MjCase *c);                      /* plain double precision: sets what each output must be */
    double (*length)(const void *args);                /* terms summed up in one output: decides the tolerance */
    const MjOpShape *shapes;                           /* checked: odd ones first; ends with tokens < 0 */
    const MjOpShape *bench;                            /* timed: realistic ones */
} MjOpProof;
#define MJ_OP_PROOF_FOR(adapt_fn, setup_fn, fill_fn, reference_fn, length_fn, check_shapes, bench_shapes)              \
    {.adapt = adapt_fn, .setup = setup_fn, .fill = fill_fn, .reference = reference_fn, .length = length_fn,             \
     .shapes = check_shapes, .bench = bench_shapes}
#define MJ_OP_PROOF(setup_fn, fill_fn, reference_fn, length_fn, check_shapes, bench_shapes)                            \
    {.setup = setup_fn, .fill = fill_fn, .reference = reference_fn, .length = length_fn, .shapes = check_shapes,       \
     .bench = bench_shapes}

/* A count of elements, rows or items as a function of the argument struct `a`. */
#define MJ_COUNT(fn, Args, expr)                                                                                       \
    static int64_t fn(const void *args)                                                                                \
    {                                                                                                                  \
        const Args *a = args;                                                                                          \
        return (expr);                                                                                                 \
    }
#define MJ_CEIL(n, by) (((n) + (by) - 1) / (by))

#define MJ_OP_MAX_PHASES 4
#define MJ_OP_MAX_BUFFERS 16

typedef struct MjOpRow {
    MjOpId id;
    const char *name, *doc;
    /* The template, or NULL where there is none; NULL: the op's own name everywhere. arch: 80, 89, 90, ...; 0 on a cpu */
    const char *(*choose)(MjFamily family, int arch, const void *args);
    const char *(*refusal)(MjFamily family, int arch, const void *args); /* why choose said NULL, what to do; may be NULL */
    const MjOpMatrix *const *matrix; /* of the cuda templates that need more than MJ_WORK_*; ends with NULL; may be NULL */
    size_t args_bytes;
    MjOpField fields[16];
    MjOpPhase phases[MJ_OP_MAX_PHASES];
    size_t (*shared)(MjFamily family, const void *args); /* scratch bytes of a block; NULL: none */
    MjOpBuffer buffers[MJ_OP_MAX_BUFFERS];
    double (*flops)(const void *args); /* NULL: none to speak of */
    double (*bytes)(const void *args); /* NULL: every buffer once, those read and written twice */
    MjOpProof proof;
} MjOpRow;

extern const MjOpRow *const mj_op_rows[MJ_OP_COUNT];
extern const MjOpRow mj_row_embedding_fwd, mj_row_embedding_bwd, mj_row_rmsnorm_fwd, mj_row_rmsnorm_quant, mj_row_rmsnorm_bwd,
    mj_row_rope_qknorm_fwd, mj_row_rope_qknorm_bwd, mj_row_rope_qknorm_bwd_quant, mj_row_attention_fwd, mj_row_attention_bwd, mj_row_gemm,
    mj_row_router_fwd, mj_row_router_bwd, mj_row_route_map, mj_row_balance, mj_row_permute, mj_row_permute_bwd,
    mj_row_combine_fwd, mj_row_combine_bwd, mj_row_relu2_fwd, mj_row_relu2_bwd, mj_row_quantize, mj_row_quantize_weight,
    mj_row_amax, mj_row_cross_entropy, mj_row_sum, mj_row_adamw, mj_row_add_pieces;

/* The template that serves an op with these arguments, and the request as it is asked for (tuning open), then with its
 * tuning values chosen. MJ_ERR_MISSING when this family has no template. */
int mj_op_request(MjOps *ops, MjOpId id, const void *args, const MjOpBinding **binding, MjRequest *asked, MjRequest *chosen,
                  MjError *err) MJ_MUST_CHECK;
void mj_shape_of_args(const MjOpRow *row, const void *args, MjStr *out); /* "tokens=17,width=64", for `mojit bench --shape` */
int mj_op_buffer_count(const MjOpRow *row);
MjOpType mj_op_buffer_type(const MjOpBuffer *buffer, const void *args);
size_t mj_op_type_bytes(MjOpType type);
void mj_op_cost(const MjOpRow *row, const void *args, double *flops, double *bytes);
void *mj_op_buffer_ptr(const MjOpBuffer *buffer, const void *args);

#endif
