/* Choice of tiles: a request (a template and the shape in its argument struct) -> the candidates that its tuning parameters
 * declare and its geometry accepts -> a model of their time -> the cheapest. From the shape and the architecture alone, in
 * IEEE arithmetic without contraction, so that every machine makes the same plan. `mojit kernels --explain` prints it,
 * `mojit tune` measures it. */
#ifndef MJ_OPS_TILE_CHOICE_H
#define MJ_OPS_TILE_CHOICE_H

#include "ops/card.h"
#include "ops/op_row.h"

/* The model of one launch. Cycles are of one multiprocessor and for one tile; attention's (attention_cost.h) for one step. */
struct MjTileCost {
    double tiles;        /* of the result */
    int resident;        /* blocks that share a multiprocessor */
    double waves;        /* tiles that the busiest multiprocessor works on, one after the other */
    double mma_cycles;   /* tensor cores */
    double scale_cycles; /* f32 multiply-adds that apply block scales */
    double softmax_cycles; /* attention: exponentials, and f32 work on the scores */
    double load_cycles;  /* operands from the L2 cache */
    double wait_cycles;  /* what the stages in flight don't hide */
    double epilogue_cycles;
    double bytes;        /* from and to memory, in all */
    double seconds;      /* of the launch */
};

typedef struct MjTileCandidate {
    int32_t values[MJ_MAX_PARAMS]; /* tuning set, the rest as asked */
    MjOpGeometry geometry;         /* of the first entry point; with the most shared memory that one of them takes */
    MjTileCost cost;               /* zero where the template has no model */
    int order;                     /* in which they were made */
} MjTileCandidate;

/* All candidates that fit the card (or the device at hand, with its own `info`), cheapest first; *out is malloc'd.
 * `values` are the asked ones. `matrix` is NULL where the template has no geometry of its own: everything fits. With `info`
 * NULL, a card of `target` is assumed. */
int mj_tile_candidates(const MjOpMatrix *matrix, const MjTemplate *t, const char *target, const MjDeviceInfo *info,
                       const void *args, const int32_t *values, MjTileCandidate **out, int *n, MjError *err) MJ_MUST_CHECK;

/* Sets the open tuning parameters of `values`: by the template's own rule if it has one, else to the cheapest candidate's; left
 * open (the defaults) when there is no model or none fits. */
void mj_tile_choose(const MjOpMatrix *matrix, const MjTemplate *t, const char *target, const void *args, int32_t *values);

/* The next combination of values of the tuning parameters that are open in `asked`; start with `at` all zero. False after the
 * last. A parameter without a list of values keeps its default. */
typedef struct MjTuningCount {
    int at[MJ_MAX_PARAMS];
    bool started;
} MjTuningCount;
bool mj_tuning_next(const MjTemplate *t, const int32_t *asked, MjTuningCount *count, int32_t *values);

/* A model for the GEMM templates: parameters TILE_M, TILE_N, STAGES and, if there, CLUSTER. `rate`: the part of the tensor
 * cores' rate that the template's instructions reach; `overlap`: whether a tile's epilogue runs beside the next tile. */
typedef struct MjGemmModel {
    double rate;
    double scales_hidden; /* the part of the scales' time during which other warps keep the tensor cores busy */
    double step_cycles;   /* of a stage, beside its products: barriers, and waits for products that nothing hides */
    bool overlap;
    int depth_bytes; /* of K in one stage, a row */
} MjGemmModel;
void mj_gemm_cost(const MjGemmModel *model, const MjTemplate *t, const MjCard *card, const void *args, const int32_t *values,
                  const MjOpGeometry *geometry, MjTileCost *out);

#endif
