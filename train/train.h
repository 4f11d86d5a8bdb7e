/* The trainer: opens device, cache-backed JIT, data and model from a configuration, runs the steps, reports each one
 * through a callback. Owns the run; prints nothing. One MjTrain belongs to one thread; only mj_train_stop may be called
 * from others and from signal handlers.
 */
#ifndef MJ_TRAIN_TRAIN_H
#define MJ_TRAIN_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "jit/jit.h"
#include "ops/ops.h"
#include "runtime/base/error.h"
#include "train/config.h"

typedef struct MjTrain MjTrain;

typedef struct MjStepMetrics {
    int32_t step, steps;      /* steps done, counted from 1; total */
    double loss;              /* nats a live token, before the step's update */
    double lr;                /* factor of the schedule, 0 to 1 */
    double dt_ms;             /* whole step, compile stalls included */
    double stall_ms;          /* of which launches waited for compiles */
    double tok_per_sec;       /* live tokens / dt */
    double bf16_mfu;          /* fraction of the device's bf16 peak; NaN where that is unknown: print n/a */
    double grad_norm;
    uint64_t compiles, cache_hits; /* of this step; hits from disk */
    int64_t tokens;           /* live tokens of this step */
    int64_t padded_rows;      /* token rows and routed rows that were computed for nothing */
    int64_t dropped_rows;     /* routed rows lost to a capacity layout */
    double elapsed_s;         /* since mj_train_run began */
} MjStepMetrics;

typedef struct MjEvalMetrics {
    int32_t step;             /* steps done before it; 0 = before the first */
    double loss;              /* nats a token */
    double bits_per_byte;     /* NaN unless the data are byte-level */
    int64_t tokens;
    double seconds;
    double order1_bits_per_byte; /* entropy of the whole held-out text when the previous byte is known; NaN when unknown */
} MjEvalMetrics;

typedef struct MjTrainTotals {
    int32_t steps_done;
    double last_loss;
    double held_out_bits_per_byte;   /* of the last evaluation; NaN if none */
    double order1_bits_per_byte;     /* entropy of the held-out text, previous byte known; NaN before an evaluation */
    double compile_s;                /* sum over compiles */
    double plan_s;                   /* wall time of the compile ahead of step 0 */
    double open_s;                   /* from mj_train_open to its return */
    double first_kernel_ms;          /* from mj_train_open to the first launch of step 0; NaN before it */
    double bf16_peak_flops;          /* 0 = unknown */
    double flops_per_token;
    int64_t parameters, active_parameters;
    size_t peak_bytes;               /* device memory */
    size_t reserved_bytes;           /* what the device took from the system for it, so far */
    size_t predicted_bytes;          /* by the formula of docs/memory.md */
    MjJitCounters jit;
    MjDeviceCounters last_step;      /* from the last step's first launch to its last */
    uint64_t waits_in_steps;         /* of the host for the device, between the first and the last launch of a step; all steps */
    uint64_t graphs_captured;
    const char *device_name, *target, *mode; /* live as long as the MjTrain */
} MjTrainTotals;

typedef struct MjTrainCallbacks {
    void *user;
    void (*step)(void *user, const MjStepMetrics *m);
    void (*eval)(void *user, const MjEvalMetrics *m);
    void (*log)(void *user, const char *line);                                /* decisions and warnings */
    void (*progress)(void *user, int done, int total, const char *spec);     /* compiling ahead */
} MjTrainCallbacks;

typedef struct MjTrainOptions {
    MjConfig config;
    MjTrainCallbacks callbacks; /* members may be NULL */
    MjCache *cache;             /* opened by the caller, not owned; NULL = no disk cache */
    const char *kernels;        /* folder of templates that add to or replace the built-in ones; NULL = none */
    bool profile;               /* time every op (slows the run) */
    uint64_t process_start_ns;  /* mj_clock_ns() at the start of main, for first_kernel_ms; 0 = at mj_train_open */
} MjTrainOptions;

/* Checks the configuration, opens everything, allocates all device memory, writes the initial weights and, where the
 * mode says so, compiles the plan. Nothing is allocated on the device afterwards. Blocks. */
int mj_train_open(const MjTrainOptions *options, MjTrain **out, MjError *err) MJ_MUST_CHECK;

/* Runs what is left of the steps. MJ_ERR_INTERRUPTED after mj_train_stop (the step in progress is finished and
 * reported); MJ_ERR_NUMERIC when the loss is not finite (the message names the step and the first op that produced it). */
int mj_train_run(MjTrain *train, MjError *err) MJ_MUST_CHECK;

void mj_train_stop(MjTrain *train); /* async-signal-safe */
void mj_train_close(MjTrain *train); /* NULL is fine */

void mj_train_totals(const MjTrain *train, MjTrainTotals *out);
const MjOps *mj_train_ops(const MjTrain *train); /* profiles, when options.profile */

/* Weights as they are now (host copy, malloc'd, float): for comparing runs bit by bit. */
int mj_train_weights(MjTrain *train, float **out, int64_t *n, MjError *err) MJ_MUST_CHECK;

/* The plan of a configuration, for `mojit warm`: records one step for every padded size that the data can reach into
 * `jit`, which may have no device. Reads the headers of the data files only; needs no model memory. */
int mj_train_plan(const MjConfig *config, MjJit *jit, MjError *err) MJ_MUST_CHECK;

#endif
