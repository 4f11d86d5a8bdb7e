/* Cases: buffers with sentinels, inputs, launch, comparison. Owns the driver; what an op's inputs and results must be is in
 * ref_*.c, through the table of ops; samples are check_sample.c's, timing is check_time.c's. */
#include "ops/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/refs.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"

#define GUARD 256 /* sentinel bytes on either side; keeps the alignment of device memory */
#define GUARD_BYTE 0xc3
#define UNWRITTEN 0xa5 /* what outputs hold before a launch */

const MjOpShape *mj_op_check_shapes(MjOpId id) { return mj_op_rows[id]->proof.shapes; }
const MjOpShape *mj_op_bench_shapes(MjOpId id) { return mj_op_rows[id]->proof.bench; }

/* ---- what fill and reference functions use ------------------------------------------------------------------ */

int mj_case_buffer(const MjCase *c, const char *name)
{
    for (int b = 0; b < mj_op_buffer_count(c->row); b++)
        if (strcmp(c->row->buffers[b].name, name) == 0) return b;
    fprintf(stderr, "op %s has no buffer '%s'\n", c->row->name, name);
    abort();
}

static MjOpType type_of(const MjCase *c, int b) { return mj_op_buffer_type(&c->row->buffers[b], c->args.bytes); }

static void set_pointer(unsigned char *args, const MjOpBuffer *buffer, const void *p)
{
    memcpy(args + buffer->offset, &p, sizeof p);
}

bool mj_case_has(const MjCase *c, const char *name) { return c->host[mj_case_buffer(c, name)] != NULL; }

void mj_case_drop(MjCase *c, const char *name)
{
    const int b = mj_case_buffer(c, name);
    mj_case_host_free(c, b);
    set_pointer(c->args.bytes, &c->row->buffers[b], NULL);
}

double mj_case_in(const MjCase *c, const char *name, int64_t i)
{
    const int b = mj_case_buffer(c, name);
    return mj_ref_decode(type_of(c, b), c->host[b], i);
}

void mj_case_set(MjCase *c, const char *name, int64_t i, double value)
{
    const int b = mj_case_buffer(c, name);
    if (c->host[b] != NULL) mj_ref_encode(type_of(c, b), c->host[b], i, value);
}

void mj_case_want_within(MjCase *c, const char *name, int64_t i, double value, double tolerance)
{
    const int b = mj_case_buffer(c, name);
    if (c->sampled) mj_case_want_sample(c, b, i, value, tolerance);
    if (c->want[b] == NULL) return;
    c->want[b][i] = value;
    c->tolerance[b][i] = tolerance;
}

void mj_case_want(MjCase *c, const char *name, int64_t i, double value, double size)
{
    const int b = mj_case_buffer(c, name);
    if (c->want[b] == NULL && c->wants[b] == NULL) return;
    const double length = c->row->proof.length(c->args.bytes), a = fabs(value);
    double step = 0.0, floor = 0.0; /* half a step of the type, relative and absolute */
    switch (type_of(c, b)) {
    case MJ_BUF_BF16: step = 0x1p-8; break;
    case MJ_BUF_E4M3: step = 0x1p-4, floor = 0x1p-10; break;
    case MJ_BUF_E5M2: step = 0x1p-3, floor = 0x1p-17; break;
    case MJ_BUF_I32: mj_case_want_within(c, name, i, value, 0.0); return;
    default: break;
    }
    const double sums = 0x1p-23 * (4.0 + sqrt(length)) * (size > a ? size : a);
    mj_case_want_within(c, name, i, value, (step * a > floor ? step * a : floor) + sums + 1e-37);
}

static uint64_t next_random(MjCase *c)
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
uint32_t mj_case_random(MjCase *c, uint32_t below) { return (uint32_t)(next_random(c) >> 32) % below; }
double mj_case_uniform(MjCase *c, double low, double high)
{
    return low + (high - low) * ((double)(next_random(c) >> 11) * 0x1p-53);
}
double mj_case_normal(MjCase *c)
{
    double sum = -6.0; /* twelve uniform numbers: near enough to a normal one, and bounded */
    for (int i = 0; i < 12; i++) sum += mj_case_uniform(c, 0.0, 1.0);
    return sum;
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static void make_buffers(MjCase *c)
{
    for (int b = 0; b < mj_op_buffer_count(c->row); b++) {
        const MjOpBuffer *buffer = &c->row->buffers[b];
        c->n[b] = buffer->count(c->args.bytes);
        const size_t bytes = (size_t)c->n[b] * mj_op_type_bytes(type_of(c, b));
        mj_case_host_alloc(c, b);
        memset(c->host[b], UNWRITTEN, c->period[b] > 0 ? c->period[b] : bytes);
        set_pointer(c->args.bytes, buffer, c->host[b]);
        if (buffer->role == MJ_IN || buffer->role == MJ_INOUT) mj_case_fill_random(c, b, 1.0);
    }
}

/* One period over the bus, the rest by doubling on the device. */
static int upload_periods(MjCase *c, char *to, const void *from, size_t bytes, size_t period, MjError *err)
{
    const MjDeviceOps *dev = c->ops->device->ops;
    int rc = dev->upload(c->ops->device, to, from, period, err);
    for (size_t done = period; rc == 0 && done < bytes; done *= 2)
        rc = dev->copy(c->ops->device, to + done, to, bytes - done < done ? bytes - done : done, err);
    return rc;
}

static int upload_buffer(MjCase *c, int b, MjError *err)
{
    const MjDeviceOps *dev = c->ops->device->ops;
    char *base = c->device[b];
    const size_t bytes = (size_t)c->n[b] * mj_op_type_bytes(type_of(c, b));
    const bool unwritten = c->row->buffers[b].role == MJ_OUT && c->n[b] > MJ_CASE_MANY; /* without the way over the bus */
    int rc = dev->fill(c->ops->device, base, GUARD_BYTE, GUARD, err);
    if (rc == 0 && unwritten) rc = dev->fill(c->ops->device, base + GUARD, UNWRITTEN, bytes, err);
    else if (rc == 0 && c->period[b] > 0) rc = upload_periods(c, base + GUARD, c->host[b], bytes, c->period[b], err);
    else if (rc == 0 && bytes > 0) rc = dev->upload(c->ops->device, base + GUARD, c->host[b], bytes, err);
    if (rc == 0) rc = dev->fill(c->ops->device, base + GUARD + bytes, GUARD_BYTE, GUARD, err);
    return rc;
}

int mj_case_open(MjOps *ops, MjOpId id, const MjOpShape *shape, uint64_t seed, MjCase **out, MjError *err)
{
    MjCase *c = mj_xcalloc(1, sizeof *c);
    int rc = 0;
    c->ops = ops;
    c->row = mj_op_rows[id];
    c->shape = *shape;
    c->seed = seed;
    c->random = seed;
    c->reference_s = -1.0;
    if (c->row->proof.adapt != NULL) c->row->proof.adapt(ops->family, &c->shape);
    c->row->proof.setup(&c->shape, c->args.bytes);
    make_buffers(c);
    c->row->proof.fill(c);
    memcpy(&c->device_args, &c->args, sizeof c->args);
    for (int b = 0; b < mj_op_buffer_count(c->row); b++) {
        const size_t bytes = (size_t)c->n[b] * mj_op_type_bytes(type_of(c, b));
        if (c->host[b] == NULL) continue;
        MJ_TRY(ops->device->ops->alloc(ops->device, bytes + 2 * GUARD, c->row->buffers[b].name, &c->device[b], err));
        set_pointer(c->device_args.bytes, &c->row->buffers[b], (char *)c->device[b] + GUARD);
        MJ_TRY(upload_buffer(c, b, err));
    }
    *out = c;
    return 0;
out:
    mj_case_close(c);
    return rc;
}

void mj_case_close(MjCase *c)
{
    if (c == NULL) return;
    for (int b = 0; b < MJ_OP_MAX_BUFFERS; b++) {
        if (c->device[b] != NULL) c->ops->device->ops->free(c->ops->device, c->device[b]);
        mj_case_host_free(c, b);
        free(c->want[b]);
        free(c->wants[b]);
        free(c->tolerance[b]);
    }
    free(c);
}

/* ---- running and comparing -------------------------------------------------------------------------------------- */

int mj_case_reset(MjCase *c, MjError *err)
{
    for (int b = 0; b < mj_op_buffer_count(c->row); b++) {
        if (c->device[b] == NULL || c->row->buffers[b].role == MJ_IN) continue;
        int rc = upload_buffer(c, b, err);
        if (rc != 0) return rc;
    }
    return c->ops->device->ops->synchronize(c->ops->device, err);
}

int mj_case_launch(MjCase *c, MjError *err)
{
    return mj_op_launch(c->ops, c->row->id, c->device_args.bytes, c->row->args_bytes, "check", err);
}

int mj_case_run(MjCase *c, MjError *err)
{
    int rc = mj_case_reset(c, err);
    if (rc == 0) rc = mj_case_launch(c, err);
    return rc != 0 ? rc : c->ops->device->ops->synchronize(c->ops->device, err);
}

static void compute_reference(MjCase *c)
{
    if (c->reference_s >= 0.0) return;
    for (int b = 0; b < mj_op_buffer_count(c->row); b++) {
        const MjOpRole role = c->row->buffers[b].role;
        if (c->host[b] == NULL || (role != MJ_OUT && role != MJ_INOUT)) continue;
        if (c->sampled) {
            c->cap_wants[b] = 1024;
            c->wants[b] = mj_xmalloc(1024 * sizeof *c->wants[b]);
            continue;
        }
        c->want[b] = mj_xcalloc((size_t)c->n[b] + 1, sizeof(double));
        c->tolerance[b] = mj_xmalloc(((size_t)c->n[b] + 1) * sizeof(double));
        for (int64_t i = 0; i < c->n[b]; i++) c->tolerance[b][i] = -1.0;
    }
    const uint64_t start = mj_clock_ns();
    c->row->proof.reference(c);
    c->reference_s = (double)(mj_clock_ns() - start) * 1e-9;
}

static void describe(const MjCase *c, const char *mode, MjStr *line)
{
    mj_str_printf(line, "FAIL %s[%s](", c->row->name, mode);
    mj_shape_text(&c->shape, line);
    mj_str_printf(line, ") seed=%llu ", (unsigned long long)c->seed);
}

static void rerun(const MjCase *c, const char *mode, MjStr *line)
{
    mj_str_printf(line, "\n  rerun: check_ops %s --mode %s --seed %llu --shape ", c->row->name, mode, (unsigned long long)c->seed);
    mj_shape_text(&c->shape, line);
}

/* `want` NULL: it is an input. */
static int fail_at(const MjCase *c, int b, int64_t i, double got, const MjWant *want, const char *mode, MjStr *line, MjError *err)
{
    const MjOpBuffer *buffer = &c->row->buffers[b];
    const int64_t cols = buffer->columns != NULL ? buffer->columns(c->args.bytes) : c->n[b];
    describe(c, mode, line);
    mj_str_printf(line, "%s at [%lld,%lld]: ", buffer->name, (long long)(i / cols), (long long)(i % cols));
    if (want == NULL) {
        mj_str_printf(line, "want the input %.9g unchanged, got %.9g", mj_ref_decode(type_of(c, b), c->host[b], i), got);
    } else if (want->tolerance < 0.0) {
        mj_str_printf(line, "want it untouched (%.9g), got %.9g", mj_ref_decode(type_of(c, b), c->host[b], i), got);
    } else {
        mj_str_printf(line, "want %.9g got %.9g tol %.3g", want->value, got, want->tolerance);
    }
    rerun(c, mode, line);
    return mj_error(err, MJ_ERR_NUMERIC, "%s", mj_str_text(line));
}

static int guards(const MjCase *c, int b, const unsigned char *before, const unsigned char *after, const char *mode, MjStr *line,
                  MjError *err)
{
    for (int64_t i = 0; i < GUARD; i++) {
        if (before[i] == GUARD_BYTE && after[i] == GUARD_BYTE) continue;
        describe(c, mode, line);
        mj_str_printf(line, "%s: wrote outside, at byte %lld %s", c->row->buffers[b].name,
                      (long long)(before[i] != GUARD_BYTE ? i - GUARD : i),
                      before[i] != GUARD_BYTE ? "before its start" : "after its end");
        rerun(c, mode, line);
        return mj_error(err, MJ_ERR_NUMERIC, "%s", mj_str_text(line));
    }
    return 0;
}

/* Element i, whose bytes stand in `body` from element `first` on. */
static int element(const MjCase *c, int b, int64_t i, const unsigned char *body, int64_t first, const MjWant *want,
                   const char *mode, MjStr *line, MjError *err)
{
    const size_t size = mj_op_type_bytes(type_of(c, b));
    const double got = mj_ref_decode(type_of(c, b), body, i - first);
    if (want == NULL || want->tolerance < 0.0) {
        const bool same = memcmp(body + (i - first) * (int64_t)size, (const char *)c->host[b] + i * (int64_t)size, size) == 0;
        return same ? 0 : fail_at(c, b, i, got, want, mode, line, err);
    }
    const bool fine = isnan(want->value) ? isnan(got) : want->value == got || fabs(want->value - got) <= want->tolerance;
    return fine ? 0 : fail_at(c, b, i, got, want, mode, line, err);
}

static int compare(const MjCase *c, int b, const unsigned char *body, const char *mode, MjStr *line, MjError *err)
{
    const size_t bytes = (size_t)c->n[b] * mj_op_type_bytes(type_of(c, b));
    if (c->want[b] == NULL && memcmp(body, c->host[b], bytes) == 0) return 0; /* an input, unchanged */
    for (int64_t i = 0; i < c->n[b]; i++) {
        const bool input = c->want[b] == NULL;
        const MjWant want = {i, input ? 0.0 : c->want[b][i], input ? 0.0 : c->tolerance[b][i]};
        int rc = element(c, b, i, body, 0, input ? NULL : &want, mode, line, err);
        if (rc != 0) return rc;
    }
    return 0;
}

/* The samples of a buffer: downloaded in runs, not the whole. */
static int compare_samples(MjCase *c, int b, const char *mode, MjStr *line, MjError *err)
{
    enum { GAP = 4096, MOST = 1 << 22 };
    const size_t size = mj_op_type_bytes(type_of(c, b));
    unsigned char *body = mj_xmalloc(((size_t)MOST + GAP) * size);
    int rc = 0;
    mj_case_sort_wants(c, b);
    for (int64_t k = 0, end; k < c->n_wants[b]; k = end) {
        const MjWant *w = c->wants[b];
        const int64_t first = w[k].i;
        for (end = k + 1; end < c->n_wants[b] && w[end].i - w[end - 1].i < GAP && w[end].i - first < MOST;) end++;
        MJ_TRY(c->ops->device->ops->download(c->ops->device, body, (char *)c->device[b] + GUARD + (size_t)first * size,
                                             (size_t)(w[end - 1].i - first + 1) * size, err));
        for (int64_t i = k; i < end; i++) MJ_TRY(element(c, b, w[i].i, body, first, &w[i], mode, line, err));
    }
out:
    free(body);
    return rc;
}

/* One buffer: its guards, and its contents unless it is scratch, or an input of a case of samples. */
static int verify_buffer(MjCase *c, int b, const char *mode, MjStr *line, MjError *err)
{
    const MjDeviceOps *dev = c->ops->device->ops;
    const size_t bytes = (size_t)c->n[b] * mj_op_type_bytes(type_of(c, b));
    const MjOpRole role = c->row->buffers[b].role;
    unsigned char before[GUARD], after[GUARD], *body = NULL;
    int rc;
    MJ_TRY(dev->download(c->ops->device, before, c->device[b], GUARD, err));
    MJ_TRY(dev->download(c->ops->device, after, (char *)c->device[b] + GUARD + bytes, GUARD, err));
    MJ_TRY(guards(c, b, before, after, mode, line, err));
    if (role == MJ_SCRATCH || (role == MJ_IN && c->sampled) || bytes == 0) goto out;
    if (c->wants[b] != NULL) {
        MJ_TRY(compare_samples(c, b, mode, line, err));
        goto out;
    }
    body = mj_xmalloc(bytes);
    MJ_TRY(dev->download(c->ops->device, body, (char *)c->device[b] + GUARD, bytes, err));
    MJ_TRY(compare(c, b, body, mode, line, err));
out:
    free(body);
    return rc;
}

int mj_case_verify(MjCase *c, const char *mode, MjStr *line, MjError *err)
{
    compute_reference(c);
    for (int b = 0; b < mj_op_buffer_count(c->row); b++) {
        int rc = c->device[b] != NULL ? verify_buffer(c, b, mode, line, err) : 0;
        if (rc != 0) return rc;
    }
    return 0;
}

/* ---- what it costs ------------------------------------------------------------------------------------------ */

double mj_case_flops(const MjCase *c)
{
    double flops, bytes;
    mj_op_cost(c->row, c->args.bytes, &flops, &bytes);
    return flops;
}
double mj_case_bytes(const MjCase *c)
{
    double flops, bytes;
    mj_op_cost(c->row, c->args.bytes, &flops, &bytes);
    return bytes;
}
double mj_case_reference_s(MjCase *c)
{
    compute_reference(c);
    return c->reference_s;
}
const void *mj_case_args(const MjCase *c) { return c->device_args.bytes; }
const void *mj_case_host_args(const MjCase *c) { return c->args.bytes; }

int mj_op_check(MjOps *ops, MjOpId id, const MjOpShape *shape, uint64_t seed, const char *mode, MjStr *line, MjError *err)
{
    MjCase *c = NULL;
    int rc = mj_case_open(ops, id, shape, seed, &c, err);
    if (rc == 0) rc = mj_case_run(c, err);
    if (rc == 0) rc = mj_case_verify(c, mode, line, err);
    mj_case_close(c);
    return rc;
}
