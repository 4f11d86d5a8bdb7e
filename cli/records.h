/* What a training run leaves in its folder, as data: the writer used by `train` and the reader used by `compare`,
 * `sweep` and `report`. Numbers are written here and read here; nothing is ever taken out of a log.
 *
 * config.ini     the effective settings, which `mojit train --config` reads back
 * log.txt        the lines that train prints
 * steps.jsonl    one JSON object a line, flushed as it is written; `record` says which:
 *                open  (mode, version, total_steps, started_at)
 *                start (device, target, totals before step 1: parameters, bytes, compile ahead)
 *                step  (the metrics of MjStepMetrics; loss_bits = the double's bits in hex)
 *                eval  (held-out loss and bits per byte)
 * result.json    written last and atomically: status, error, totals, time by op. No result.json = the run was cut.
 *
 * An unknown number (bf16_mfu on an unknown device, a NaN loss) is null.
 */
#ifndef MJ_CLI_RECORDS_H
#define MJ_CLI_RECORDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/error.h"
#include "train/train.h"

/* ---- writing ---- */

typedef struct MjRecorder MjRecorder;

/* Makes the folder and its files; an older result.json is removed first, so that a folder never holds the result of one
 * run and the steps of another. */
int mj_recorder_open(const char *dir, const MjConfig *config, MjRecorder **out, MjError *err) MJ_MUST_CHECK;
int mj_recorder_start(MjRecorder *r, const MjTrainTotals *totals, MjError *err) MJ_MUST_CHECK;
int mj_recorder_step(MjRecorder *r, const MjStepMetrics *m, MjError *err) MJ_MUST_CHECK;
int mj_recorder_eval(MjRecorder *r, const MjEvalMetrics *m, MjError *err) MJ_MUST_CHECK;
int mj_recorder_log(MjRecorder *r, const char *line, MjError *err) MJ_MUST_CHECK;
/* `totals` and `ops` may be NULL (the run failed before they were there). `code`: how the run ended, 0 = completed. */
int mj_recorder_finish(MjRecorder *r, const MjTrainTotals *totals, const MjOps *ops, int code, const char *message,
                       MjError *err) MJ_MUST_CHECK;
void mj_recorder_close(MjRecorder *r); /* NULL is fine */

/* ---- reading ---- */

typedef struct MjRunRecord {
    char *dir;
    off_t offset;             /* bytes of steps.jsonl that were read */
    char mode[32], version[32], device[128], started_at[32];
    int32_t total_steps;
    bool started;             /* the start record is there */
    double plan_s;            /* wall time of the compile ahead */
    uint64_t start_compiles, start_hits; /* before step 1 */
    double start_compile_s;
    int64_t parameters, active_parameters;
    double flops_per_token, bf16_peak_flops, order1_bits, peak_bytes, predicted_bytes;
    MjStepMetrics *steps;     /* (n_steps), in order */
    uint64_t *loss_bits;      /* (n_steps) */
    size_t n_steps;
    MjEvalMetrics *evals;
    size_t n_evals;
    json_t *result;           /* result.json; NULL while running or cut */
} MjRunRecord;

/* Reads what is new; a missing folder or file is an empty record, a last line without its newline is left for later.
 * Zero-initialise `r` and set nothing; call again to follow a run. */
int mj_record_read(MjRunRecord *r, const char *dir, MjError *err) MJ_MUST_CHECK;
void mj_record_free(MjRunRecord *r);

const char *mj_record_status(const MjRunRecord *r); /* of result.json: completed, failed, interrupted; NULL without one */
const char *mj_record_error(const MjRunRecord *r);  /* "" when there is none */
int mj_record_error_code(const MjRunRecord *r);
double mj_record_total(const MjRunRecord *r, const char *key); /* a number of result.json's totals; NAN */

typedef struct MjRunStats { /* all NAN where unknown */
    double tail_tok_per_sec, tail_mfu, tail_dt_ms;      /* mean of the last 50 completed steps */
    double median_dt_ms, q1_dt_ms, q3_dt_ms;            /* over all steps but the first */
    double median_dt_no_stall_ms;
    double total_ms, stall_ms;                          /* over all steps */
    double tok_per_sec, tok_per_sec_no_stall;           /* over all steps but the first */
    double mfu;
    double compile_s;
    double last_loss, held_out_bits;
    uint64_t compiles, cache_hits, stalled_steps;
    int64_t padded_rows, dropped_rows, tokens;
} MjRunStats;
void mj_record_stats(const MjRunRecord *r, MjRunStats *out);

#endif
