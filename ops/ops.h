/* Ops: one registry drives dispatch, checks, gradients and benchmarks. Owns the table of ops, their references in
 * double precision and their launches; knows nothing of models.
 *
 * An op is launched with its argument struct from kernels_src/kernel_args.h. The row of the table says which template
 * serves which instruction family, how the template's parameters are read out of the struct, and the grid.
 */
#ifndef MJ_OPS_OPS_H
#define MJ_OPS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jit/jit.h"
#include "kernels_src/kernel_args.h"
#include "ops/gemm_library.h"
#include "runtime/base/error.h"
#include "runtime/device.h"

typedef enum MjOpId {
    MJ_OP_EMBEDDING_FWD, MJ_OP_EMBEDDING_BWD,
    MJ_OP_RMSNORM_FWD, MJ_OP_RMSNORM_QUANT, MJ_OP_RMSNORM_BWD,
    MJ_OP_ROPE_QKNORM_FWD, MJ_OP_ROPE_QKNORM_BWD, MJ_OP_ROPE_QKNORM_BWD_QUANT,
    MJ_OP_ATTENTION_FWD, MJ_OP_ATTENTION_BWD, /* bwd launches its entry points in turn: delta, then dq, then dk and dv */
    MJ_OP_GEMM,
    MJ_OP_ROUTER_FWD, MJ_OP_ROUTER_BWD,       /* bwd: dlogit and dx, then partial, then dweight */
    MJ_OP_ROUTE_MAP, MJ_OP_BALANCE,
    MJ_OP_PERMUTE, MJ_OP_PERMUTE_BWD, MJ_OP_COMBINE_FWD, MJ_OP_COMBINE_BWD,
    MJ_OP_RELU2_FWD, MJ_OP_RELU2_BWD, MJ_OP_QUANTIZE, MJ_OP_QUANTIZE_WEIGHT, MJ_OP_AMAX,
    MJ_OP_CROSS_ENTROPY, MJ_OP_SUM, MJ_OP_ADAMW,
    MJ_OP_ADD_PIECES,
    MJ_OP_COUNT
} MjOpId;

typedef struct MjOpProfile { /* filled when profiling is on */
    uint64_t launches;
    double ms, flops, bytes;
} MjOpProfile;

/* Where a template's parameters lie in the op's argument struct; found at the op's first launch. */
#define MJ_OP_TEMPLATES 6 /* that one op may use on one device */
struct MjOpMatrix;
typedef struct MjOpBinding {
    const char *name;
    const MjTemplate *tmpl;
    const struct MjOpMatrix *matrix; /* cuda matrix templates; else NULL */
    int32_t offset[MJ_MAX_PARAMS]; /* bytes into the struct; -1: tuning, the default */
} MjOpBinding;

typedef struct MjOpTimes MjOpTimes;

typedef struct MjOps {
    MjDevice *device;   /* NULL while planning for a target */
    MjJit *jit;
    MjFamily family;
    int arch;           /* 80, 89, 90, ... of a cuda target; 0 on a cpu */
    bool overlap;       /* a launch may start while the one before it ends, where device and kernel can; not while profiling */
    bool profile;       /* time every op */
    MjOpProfile profiles[MJ_OP_COUNT]; /* on a GPU as of the last mj_ops_profile_read */
    MjOpTimes *times;   /* private; NULL unless profiling */
    MjOpBinding bindings[MJ_OP_COUNT][MJ_OP_TEMPLATES]; /* private */
    uint64_t missing;   /* bit an op: a plan without a device went on without it, as this family has no template for it */
    const MjTemplate *forced_tmpl; /* `mojit tune`: this template's tuning values are these, by parameter */
    int32_t forced[MJ_MAX_PARAMS];
    MjDenseGemm dense;  /* how dense products are done on a cuda target; see mj_gemm_library_rule */
    MjBlasLt *library;  /* not owned; needed to launch what the rule gives to it */
    int64_t library_rows; /* the largest step's padded tokens, that its algorithms are pinned to */
    bool check_finite;  /* after each op, name the first that produced a NaN or infinity (used to explain a NaN loss) */
} MjOps;

/* MOJIT_FAMILY=sm_80 in the environment: on a later GPU too, the matrix templates of mma.sync; to compare with, or to run
 * without the others. */
int mj_ops_open(MjDevice *device, MjJit *jit, MjOps *out, MjError *err) MJ_MUST_CHECK;
void mj_ops_close(MjOps *ops); /* before its device; zeroed ones are fine */

/* Adds what was timed since the last call to the profiles. Waits for the device where it has not come that far. */
int mj_ops_profile_read(MjOps *ops, MjError *err) MJ_MUST_CHECK;

/* Launches op `id` with its argument struct (`args_bytes` is checked against the table). Asynchronous on cuda. While the
 * JIT records a plan, asks for the kernels and launches nothing. `what` names the use ("layer 3 up"), for messages. */
int mj_op_launch(MjOps *ops, MjOpId id, const void *args, size_t args_bytes, const char *what, MjError *err) MJ_MUST_CHECK;
#define MJ_OP(ops, id, args, what, err) mj_op_launch((ops), (id), (args), sizeof *(args), (what), (err))

const char *mj_op_name(MjOpId id);
int mj_op_find(const char *name, MjOpId *out, MjError *err) MJ_MUST_CHECK; /* suggests the nearest */

#endif
