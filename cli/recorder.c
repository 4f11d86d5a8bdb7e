/* Writing of a run's records. See records.h. Every line is flushed, so that a reader and a crash see whole steps. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/records.h"
#include "runtime/base/clock.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"

struct MjRecorder {
    char *dir;
    FILE *steps, *log;
};

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static int open_file(const char *dir, const char *name, FILE **out, MjError *err)
{
    char *path = mj_strdup_printf("%s/%s", dir, name);
    FILE *f = fopen(path, "we");
    int rc = f != NULL ? 0 : mj_error_errno(err, MJ_ERR_IO, errno, "cannot write %s", path);
    if (rc == 0) *out = f;
    free(path);
    return rc;
}

static int put_line(MjRecorder *r, FILE *f, const char *what, const char *line, MjError *err)
{
    errno = 0;
    if (fprintf(f, "%s\n", line) < 0 || fflush(f) != 0) {
        return mj_error_errno(err, MJ_ERR_IO, errno != 0 ? errno : EIO, "cannot write %s/%s", r->dir, what);
    }
    return 0;
}

/* Takes the object. */
static int put_record(MjRecorder *r, json_t *object, MjError *err)
{
    char *line = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(object);
    int rc = line != NULL ? put_line(r, r->steps, "steps.jsonl", line, err)
                          : mj_error(err, MJ_ERR_MEMORY, "could not format a step record");
    free(line);
    return rc;
}

int mj_recorder_open(const char *dir, const MjConfig *config, MjRecorder **out, MjError *err)
{
    int rc = 0;
    MjRecorder *r = mj_xcalloc(1, sizeof *r);
    r->dir = mj_xstrdup(dir);
    char *text = mj_config_dump(config);
    char *result = mj_strdup_printf("%s/result.json", dir);
    char *ini = mj_strdup_printf("%s/config.ini", dir);
    char now[32];
    mj_clock_iso8601(now);
    MJ_TRY(mj_fs_make_dirs(dir, 0777, err));
    if (unlink(result) != 0 && errno != ENOENT) {
        MJ_TRY(mj_error_errno(err, MJ_ERR_IO, errno, "cannot remove the older %s", result));
    }
    MJ_TRY(mj_fs_write_atomic(ini, text, strlen(text), err));
    MJ_TRY(open_file(dir, "steps.jsonl", &r->steps, err));
    MJ_TRY(open_file(dir, "log.txt", &r->log, err));
    MJ_TRY(put_record(r, json_pack("{ss ss ss si ss}", "record", "open", "mode", config->jit.mode, "version", MJ_VERSION,
                                   "total_steps", (int)config->train.steps, "started_at", now), err));
    *out = r;
    r = NULL;
out:
    mj_recorder_close(r);
    free(text);
    free(result);
    free(ini);
    return rc;
}

void mj_recorder_close(MjRecorder *r)
{
    if (r == NULL) return;
    if (r->steps != NULL) fclose(r->steps);
    if (r->log != NULL) fclose(r->log);
    free(r->dir);
    free(r);
}

static json_t *totals_json(const MjTrainTotals *t)
{
    const MjJitCounters *c = &t->jit;
    json_t *o = json_pack("{ss ss ss}", "device", t->device_name, "target", t->target, "mode", t->mode);
    json_object_set_new(o, "steps_done", json_integer(t->steps_done));
    json_object_set_new(o, "parameters", json_integer(t->parameters));
    json_object_set_new(o, "active_parameters", json_integer(t->active_parameters));
    json_object_set_new(o, "compiles", json_integer((json_int_t)c->compiles));
    json_object_set_new(o, "cache_hits", json_integer((json_int_t)c->disk_hits));
    json_object_set_new(o, "requests", json_integer((json_int_t)c->requests));
    json_object_set_new(o, "memory_hits", json_integer((json_int_t)c->memory_hits));
    json_object_set_new(o, "stalls", json_integer((json_int_t)c->stalls));
    json_object_set_new(o, "compiles_after_ahead", json_integer((json_int_t)c->after_ahead));
    json_object_set_new(o, "compiler_loads", json_integer((json_int_t)c->compiler_loads));
    json_object_set_new(o, "generic_launches", json_integer((json_int_t)c->generic_launches));
    json_object_set_new(o, "stalls_avoided", json_integer((json_int_t)c->deferred));
    json_object_set_new(o, "generic_steps", json_integer((json_int_t)c->generic_steps));
    json_object_set_new(o, "specialised_at_step", c->specialised_at > 0 ? json_integer((json_int_t)c->specialised_at) : json_null());
    json_object_set_new(o, "budget_unbound", json_integer((json_int_t)c->budget_unbound));
    json_object_set_new(o, "corrupt_entries", json_integer((json_int_t)c->corrupt_entries));
    json_object_set_new(o, "launches_per_step", json_integer((json_int_t)t->last_step.launches));
    json_object_set_new(o, "graphs_per_step", json_integer((json_int_t)t->last_step.graph_launches));
    json_object_set_new(o, "graph_nodes_per_step", json_integer((json_int_t)t->last_step.graph_nodes));
    json_object_set_new(o, "graphs_captured", json_integer((json_int_t)t->graphs_captured));
    json_object_set_new(o, "waits_in_steps", json_integer((json_int_t)t->waits_in_steps));
    const struct {
        const char *key;
        double value;
    } reals[] = {
        {"last_loss", t->last_loss},
        {"held_out_bits_per_byte", t->held_out_bits_per_byte},
        {"order1_bits_per_byte", t->order1_bits_per_byte},
        {"compile_s", t->compile_s},
        {"plan_s", t->plan_s},
        {"open_s", t->open_s},
        {"first_kernel_ms", t->first_kernel_ms},
        {"load_ms", c->load_ms},
        {"stall_ms", c->stall_ms},
        {"bf16_peak_flops", t->bf16_peak_flops},
        {"flops_per_token", t->flops_per_token},
        {"peak_mem_bytes", (double)t->peak_bytes},
        {"reserved_mem_bytes", (double)t->reserved_bytes},
        {"predicted_mem_bytes", (double)t->predicted_bytes},
    };
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        json_object_set_new(o, reals[i].key, number(reals[i].value));
    }
    return o;
}

int mj_recorder_start(MjRecorder *r, const MjTrainTotals *totals, MjError *err)
{
    json_t *o = totals_json(totals);
    json_object_set_new(o, "record", json_string("start"));
    return put_record(r, o, err);
}

int mj_recorder_step(MjRecorder *r, const MjStepMetrics *m, MjError *err)
{
    uint64_t bits;
    memcpy(&bits, &m->loss, sizeof bits);
    char hex[24];
    snprintf(hex, sizeof hex, "0x%016llx", (unsigned long long)bits);
    json_t *o = json_pack("{ss si so ss so so so so so}", "record", "step", "step", (int)m->step, "loss", number(m->loss),
                          "loss_bits", hex, "lr", number(m->lr), "dt_ms", number(m->dt_ms), "tok_per_sec",
                          number(m->tok_per_sec), "bf16_mfu", number(m->bf16_mfu), "grad_norm", number(m->grad_norm));
    json_object_set_new(o, "compiles", json_integer((json_int_t)m->compiles));
    json_object_set_new(o, "cache_hits", json_integer((json_int_t)m->cache_hits));
    json_object_set_new(o, "stall_ms", number(m->stall_ms));
    json_object_set_new(o, "padded_rows", json_integer(m->padded_rows));
    json_object_set_new(o, "dropped_rows", json_integer(m->dropped_rows));
    json_object_set_new(o, "tokens", json_integer(m->tokens));
    json_object_set_new(o, "elapsed_s", number(m->elapsed_s));
    return put_record(r, o, err);
}

int mj_recorder_eval(MjRecorder *r, const MjEvalMetrics *m, MjError *err)
{
    return put_record(r, json_pack("{ss si so so so sI so}", "record", "eval", "step", (int)m->step, "loss", number(m->loss),
                                   "bits_per_byte", number(m->bits_per_byte), "order1_bits_per_byte",
                                   number(m->order1_bits_per_byte), "tokens", (json_int_t)m->tokens, "seconds",
                                   number(m->seconds)), err);
}

int mj_recorder_log(MjRecorder *r, const char *line, MjError *err) { return put_line(r, r->log, "log.txt", line, err); }

static json_t *profile_json(const MjOps *ops)
{
    json_t *list = json_array();
    for (int i = 0; ops != NULL && i < MJ_OP_COUNT; i++) {
        const MjOpProfile *p = &ops->profiles[i];
        if (p->launches == 0) continue;
        json_array_append_new(list, json_pack("{ss sI sf sf sf}", "op", mj_op_name((MjOpId)i), "launches",
                                              (json_int_t)p->launches, "ms", p->ms, "flops", p->flops, "bytes", p->bytes));
    }
    return list;
}

int mj_recorder_finish(MjRecorder *r, const MjTrainTotals *totals, const MjOps *ops, int code, const char *message,
                       MjError *err)
{
    int rc = 0;
    char now[32];
    mj_clock_iso8601(now);
    const char *status = code == 0 ? "completed" : code == MJ_ERR_INTERRUPTED ? "interrupted" : "failed";
    json_t *o = json_pack("{ss ss si ss ss}", "status", status, "error", code != 0 ? message : "", "error_code", code,
                          "version", MJ_VERSION, "ended_at", now);
    json_object_set_new(o, "totals", totals != NULL ? totals_json(totals) : json_object());
    json_object_set_new(o, "ops", profile_json(ops));
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    char *path = mj_strdup_printf("%s/result.json", r->dir);
    MJ_TRY(mj_fs_write_atomic(path, text, strlen(text), err));
out:
    free(path);
    free(text);
    json_decref(o);
    return rc;
}
