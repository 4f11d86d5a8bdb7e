/* Reading of a run's records and the statistics over its steps. See records.h. */
#include "cli/records.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/sort.h"
#include "runtime/base/str.h"

static double real_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static int64_t int_of(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }

static void text_of(const json_t *o, const char *key, char *buf, size_t cap)
{
    const char *s = json_string_value(json_object_get(o, key));
    snprintf(buf, cap, "%s", s != NULL ? s : "");
}

static void take_start(MjRunRecord *r, const json_t *o)
{
    r->started = true;
    text_of(o, "device", r->device, sizeof r->device);
    r->plan_s = real_of(o, "plan_s");
    r->start_compiles = (uint64_t)int_of(o, "compiles");
    r->start_hits = (uint64_t)int_of(o, "cache_hits");
    r->start_compile_s = real_of(o, "compile_s");
    r->parameters = int_of(o, "parameters");
    r->active_parameters = int_of(o, "active_parameters");
    r->flops_per_token = real_of(o, "flops_per_token");
    r->bf16_peak_flops = real_of(o, "bf16_peak_flops");
    r->peak_bytes = real_of(o, "peak_mem_bytes");
    r->predicted_bytes = real_of(o, "predicted_mem_bytes");
}

static void take_step(MjRunRecord *r, const json_t *o)
{
    size_t n = r->n_steps + 1;
    if (r->n_steps == 0 || (r->n_steps & (r->n_steps - 1)) == 0) { /* room for the next power of two */
        size_t cap = r->n_steps == 0 ? 1 : 2 * r->n_steps;
        r->steps = mj_xrealloc(r->steps, cap * sizeof *r->steps);
        r->loss_bits = mj_xrealloc(r->loss_bits, cap * sizeof *r->loss_bits);
    }
    MjStepMetrics *m = &r->steps[r->n_steps];
    *m = (MjStepMetrics){
        .step = (int32_t)int_of(o, "step"),
        .steps = r->total_steps,
        .loss = real_of(o, "loss"),
        .lr = real_of(o, "lr"),
        .dt_ms = real_of(o, "dt_ms"),
        .stall_ms = real_of(o, "stall_ms"),
        .tok_per_sec = real_of(o, "tok_per_sec"),
        .bf16_mfu = real_of(o, "bf16_mfu"),
        .grad_norm = real_of(o, "grad_norm"),
        .compiles = (uint64_t)int_of(o, "compiles"),
        .cache_hits = (uint64_t)int_of(o, "cache_hits"),
        .tokens = int_of(o, "tokens"),
        .padded_rows = int_of(o, "padded_rows"),
        .dropped_rows = int_of(o, "dropped_rows"),
        .elapsed_s = real_of(o, "elapsed_s"),
    };
    const char *hex = json_string_value(json_object_get(o, "loss_bits"));
    r->loss_bits[r->n_steps] = hex != NULL ? strtoull(hex, NULL, 16) : 0;
    r->n_steps = n;
}

static void take_eval(MjRunRecord *r, const json_t *o)
{
    r->order1_bits = real_of(o, "order1_bits_per_byte");
    r->evals = mj_xrealloc(r->evals, (r->n_evals + 1) * sizeof *r->evals);
    r->evals[r->n_evals++] = (MjEvalMetrics){
        .step = (int32_t)int_of(o, "step"),
        .loss = real_of(o, "loss"),
        .bits_per_byte = real_of(o, "bits_per_byte"),
        .tokens = int_of(o, "tokens"),
        .seconds = real_of(o, "seconds"),
    };
}

static int take_line(MjRunRecord *r, const char *line, size_t len, const char *path, MjError *err)
{
    json_error_t why;
    json_t *o = json_loadb(line, len, 0, &why);
    if (o == NULL) return mj_error(err, MJ_ERR_DATA, "%s: not a step record: %s; the run must be repeated", path, why.text);
    const char *kind = json_string_value(json_object_get(o, "record"));
    if (kind == NULL) kind = "";
    if (strcmp(kind, "open") == 0) {
        text_of(o, "mode", r->mode, sizeof r->mode);
        text_of(o, "version", r->version, sizeof r->version);
        text_of(o, "started_at", r->started_at, sizeof r->started_at);
        r->total_steps = (int32_t)int_of(o, "total_steps");
    } else if (strcmp(kind, "start") == 0) {
        take_start(r, o);
    } else if (strcmp(kind, "step") == 0) {
        take_step(r, o);
    } else if (strcmp(kind, "eval") == 0) {
        take_eval(r, o);
    }
    json_decref(o);
    return 0;
}

/* Everything after `offset`; NULL when there is nothing (new). */
static int read_from(const char *path, off_t offset, char **out, size_t *len, MjError *err)
{
    *out = NULL;
    *len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? 0 : mj_error_errno(err, MJ_ERR_IO, errno, "cannot read %s", path);
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st) == 0 && st.st_size > offset) {
        size_t want = (size_t)(st.st_size - offset);
        char *data = mj_xmalloc(want + 1);
        ssize_t got = pread(fd, data, want, offset);
        if (got < 0) {
            rc = mj_error_errno(err, MJ_ERR_IO, errno, "cannot read %s", path);
            free(data);
        } else {
            *out = data;
            *len = (size_t)got;
        }
    }
    close(fd);
    return rc;
}

static int read_result(MjRunRecord *r, MjError *err)
{
    char *path = mj_strdup_printf("%s/result.json", r->dir);
    char *text = NULL;
    int rc = 0;
    if (mj_fs_exists(path)) {
        json_error_t why;
        MJ_TRY(mj_fs_read(path, &text, NULL, err));
        r->result = json_loads(text, 0, &why);
        if (r->result == NULL) MJ_TRY(mj_error(err, MJ_ERR_DATA, "%s:%d: %s", path, why.line, why.text));
        r->peak_bytes = mj_record_total(r, "peak_mem_bytes");
    }
out:
    free(text);
    free(path);
    return rc;
}

int mj_record_read(MjRunRecord *r, const char *dir, MjError *err)
{
    if (r->dir == NULL) {
        r->dir = mj_xstrdup(dir);
        r->plan_s = r->start_compile_s = r->flops_per_token = r->order1_bits = r->peak_bytes = NAN;
        r->predicted_bytes = NAN;
    }
    int rc = 0;
    char *path = mj_strdup_printf("%s/steps.jsonl", dir);
    char *data = NULL;
    size_t len = 0;
    bool had_result = r->result != NULL;
    if (!had_result) MJ_TRY(read_result(r, err)); /* before the steps: what is in them then is complete */
    MJ_TRY(read_from(path, r->offset, &data, &len, err));
    size_t at = 0;
    for (char *end; data != NULL && (end = memchr(data + at, '\n', len - at)) != NULL;) {
        size_t line = (size_t)(end - data) - at;
        MJ_TRY(take_line(r, data + at, line, path, err));
        at += line + 1;
        r->offset += (off_t)(line + 1);
    }
out:
    free(data);
    free(path);
    return rc;
}

void mj_record_free(MjRunRecord *r)
{
    free(r->dir);
    free(r->steps);
    free(r->loss_bits);
    free(r->evals);
    json_decref(r->result);
    *r = (MjRunRecord){.dir = NULL};
}

const char *mj_record_status(const MjRunRecord *r)
{
    return r->result != NULL ? json_string_value(json_object_get(r->result, "status")) : NULL;
}

const char *mj_record_error(const MjRunRecord *r)
{
    const char *s = r->result != NULL ? json_string_value(json_object_get(r->result, "error")) : NULL;
    return s != NULL ? s : "";
}

int mj_record_error_code(const MjRunRecord *r)
{
    return r->result != NULL ? (int)json_integer_value(json_object_get(r->result, "error_code")) : 0;
}

double mj_record_total(const MjRunRecord *r, const char *key)
{
    return r->result != NULL ? real_of(json_object_get(r->result, "totals"), key) : NAN;
}

/* Linear between the neighbours; `v` is sorted, n >= 1. */
static double quantile(const double *v, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? v[i] + (at - (double)i) * (v[i + 1] - v[i]) : v[n - 1];
}

static void tail_stats(const MjRunRecord *r, MjRunStats *out)
{
    size_t n = r->n_steps < 50 ? r->n_steps : 50;
    double tok = 0, mfu = 0, dt = 0;
    for (size_t i = r->n_steps - n; i < r->n_steps; i++) {
        tok += r->steps[i].tok_per_sec;
        mfu += r->steps[i].bf16_mfu;
        dt += r->steps[i].dt_ms;
    }
    if (n == 0) return;
    out->tail_tok_per_sec = tok / (double)n;
    out->tail_mfu = mfu / (double)n;
    out->tail_dt_ms = dt / (double)n;
}

/* The first step is left out of rates and medians: it pages in memory, which no mode decides. */
static void rate_stats(const MjRunRecord *r, MjRunStats *out)
{
    size_t first = r->n_steps > 1 ? 1 : 0, n = r->n_steps - first;
    if (n == 0) return;
    double *dt = mj_xmalloc(n * sizeof *dt), *net = mj_xmalloc(n * sizeof *net);
    double ms = 0, stall = 0, tokens = 0, mfu = 0;
    for (size_t i = 0; i < n; i++) {
        const MjStepMetrics *m = &r->steps[first + i];
        dt[i] = m->dt_ms;
        net[i] = m->dt_ms - m->stall_ms;
        ms += m->dt_ms;
        stall += m->stall_ms;
        tokens += (double)m->tokens;
        mfu += m->bf16_mfu * m->dt_ms;
    }
    mj_sort_values(dt, n);
    mj_sort_values(net, n);
    out->median_dt_ms = quantile(dt, n, 0.5);
    out->q1_dt_ms = quantile(dt, n, 0.25);
    out->q3_dt_ms = quantile(dt, n, 0.75);
    out->median_dt_no_stall_ms = quantile(net, n, 0.5);
    out->tok_per_sec = tokens / (ms * 1e-3);
    out->tok_per_sec_no_stall = tokens / ((ms - stall) * 1e-3);
    out->mfu = mfu / ms;
    free(dt);
    free(net);
}

void mj_record_stats(const MjRunRecord *r, MjRunStats *out)
{
    *out = (MjRunStats){NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0, 0, NAN, NAN, NAN, NAN, NAN, NAN, 0, 0, 0, 0, 0, 0};
    tail_stats(r, out);
    rate_stats(r, out);
    out->compiles = r->start_compiles;
    out->cache_hits = r->start_hits;
    for (size_t i = 0; i < r->n_steps; i++) {
        const MjStepMetrics *m = &r->steps[i];
        out->total_ms += m->dt_ms;
        out->stall_ms += m->stall_ms;
        out->stalled_steps += m->stall_ms > 0;
        out->compiles += m->compiles;
        out->cache_hits += m->cache_hits;
        out->padded_rows += m->padded_rows;
        out->dropped_rows += m->dropped_rows;
        out->tokens += m->tokens;
        out->last_loss = m->loss;
    }
    if (r->n_evals > 0) out->held_out_bits = r->evals[r->n_evals - 1].bits_per_byte;
    double total = mj_record_total(r, "compile_s");
    /* While it runs: what was compiled ahead, and the stalls, which are compiles that a launch waited for. */
    out->compile_s = isfinite(total) ? total : r->started ? r->start_compile_s + out->stall_ms * 1e-3 : NAN;
}
