/* The row, routing, quantising and optimiser templates give the same bits on the simulated GPU as on the cpu device: one
 * source, the same fixed order of every sum. check_equal LIBRARIES [OP...]; every check shape of every op that has a
 * template for both. Ops without one on the GPU are named, never passed over in silence. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "ops/check.h"
#include "ops/op_row.h"
#include "runtime/base/mem.h"

typedef struct Side {
    MjDevice *device;
    MjJit *jit;
    MjOps ops;
} Side;

static int open_side(const char *kind, MjCache *cache, Side *s, MjError *err)
{
    const MjMode *mode;
    int rc;
    MJ_TRY(mj_device_open(kind, NULL, &s->device, err));
    MJ_TRY(mj_mode_find("static", &mode, err));
    const MjJitOptions options = {.device = s->device, .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}, .budget = 1000, .cache = cache};
    MJ_TRY(mj_jit_open(&options, &s->jit, err));
    MJ_TRY(mj_ops_open(s->device, s->jit, &s->ops, err));
out:
    return rc;
}

static void close_side(Side *s)
{
    mj_jit_close(s->jit);
    mj_device_close(s->device);
}

/* The bytes of one buffer of a case, as the launch left them. */
static int fetch(Side *s, MjCase *c, const MjOpBuffer *buffer, size_t *bytes, unsigned char **out, MjError *err)
{
    const void *args = mj_case_args(c);
    void *p = mj_op_buffer_ptr(buffer, args);
    *out = NULL;
    if (p == NULL) return 0;
    *bytes = (size_t)buffer->count(args) * mj_op_type_bytes(mj_op_buffer_type(buffer, args));
    *out = mj_xmalloc(*bytes + 1);
    return s->device->ops->download(s->device, *out, p, *bytes, err);
}

/* The cpu's copy along the rows (rows, cols), or under one scale its q, as the GPU's quantisers store it: (cols, stride),
 * zeros past a dense matrix. Rows that a launch leaves alone hold the same filling on both sides. */
static unsigned char *turn(Side *cpu, MjCase *c, const MjOpRow *row, int b, size_t bytes, unsigned char *plain, MjError *err)
{
    if (plain == NULL)
        for (b = 0; strcmp(row->buffers[b].name, "q") != 0;) b++;
    const void *args = mj_case_args(c);
    const size_t cols = (size_t)row->buffers[b].columns(args), rows = (size_t)row->buffers[b].count(args) / cols;
    const size_t stride = (size_t)MJ_KMAJOR_STRIDE(rows);
    size_t ignored;
    if (plain == NULL && fetch(cpu, c, &row->buffers[b], &ignored, &plain, err) != 0) return NULL;
    unsigned char *turned = mj_xcalloc(1, bytes + 1);
    for (size_t i = 0; i < cols * stride && i < bytes; i++)
        if (i % stride < rows) turned[i] = plain[i % stride * cols + i / stride];
    free(plain);
    return turned;
}

static int compare_buffer(Side sides[2], MjCase *cases[2], const MjOpRow *row, int b, const char *shape, MjError *err)
{
    unsigned char *data[2] = {NULL, NULL};
    size_t bytes[2] = {0, 0}, at = 0;
    int rc = 0;
    for (int i = 0; i < 2; i++) MJ_TRY(fetch(&sides[i], cases[i], &row->buffers[b], &bytes[i], &data[i], err));
    if (data[1] == NULL) {
        if (data[0] != NULL) rc = mj_error(err, MJ_ERR_NUMERIC, "FAIL %s(%s): only the cpu has %s", row->name, shape, row->buffers[b].name);
        goto out;
    }
    if (strcmp(row->buffers[b].name, "qt") == 0) {
        data[0] = turn(&sides[0], cases[0], row, b, bytes[1], data[0], err);
        if (data[0] == NULL) {
            rc = MJ_ERR_DATA;
            goto out;
        }
        bytes[0] = bytes[1];
    }
    while (at < bytes[0] && data[0][at] == data[1][at]) at++;
    if (at < bytes[0])
        rc = mj_error(err, MJ_ERR_NUMERIC, "FAIL %s(%s): %s differs from byte %zu of %zu on: cpu %02x, simulated GPU %02x", row->name,
                      shape, row->buffers[b].name, at, bytes[0], data[0][at], data[1][at]);
out:
    free(data[0]);
    free(data[1]);
    return rc;
}

static int compare_shape(Side sides[2], MjOpId id, const MjOpShape *shape, MjError *err)
{
    const MjOpRow *row = mj_op_rows[id];
    MjCase *cases[2] = {NULL, NULL};
    MjStr text = MJ_STR_INIT;
    int rc = 0;
    MjOpShape of[2] = {*shape, *shape};
    if (row->proof.adapt != NULL) row->proof.adapt(sides[1].ops.family, &of[0]); /* the same sizes for both */
    of[0].kmajor = 0;
    mj_shape_text(&of[0], &text);
    for (int i = 0; i < 2; i++) {
        MJ_TRY(mj_case_open(&sides[i].ops, id, &of[i], 11, &cases[i], err));
        MJ_TRY(mj_case_run(cases[i], err));
    }
    for (int b = 0; b < mj_op_buffer_count(row); b++)
        if (row->buffers[b].role == MJ_OUT || row->buffers[b].role == MJ_INOUT)
            MJ_TRY(compare_buffer(sides, cases, row, b, mj_str_text(&text), err));
out:
    mj_case_close(cases[0]);
    mj_case_close(cases[1]);
    mj_str_free(&text);
    return rc;
}

static int compare_op(Side sides[2], MjOpId id)
{
    int n = 0, failed = 0;
    if (mj_op_rows[id]->matrix != NULL) {
        printf("own  %s: another template sums in another order on a GPU; check_ops holds it to its tolerance\n", mj_op_name(id));
        return 0;
    }
    for (const MjOpShape *s = mj_op_check_shapes(id); s->tokens >= 0; s++, n++) {
        MjError err = MJ_ERROR_INIT;
        const int rc = compare_shape(sides, id, s, &err);
        if (rc == MJ_ERR_MISSING) {
            printf("none %s: %s\n", mj_op_name(id), err.message);
            return 0;
        }
        if (rc != 0) printf("%s\n", err.message);
        failed += rc != 0;
        mj_error_clear(&err);
    }
    printf("%s %s: %d of %d shapes have the same bits\n", failed == 0 ? "ok  " : "FAIL", mj_op_name(id), n - failed, n);
    return failed;
}

int main(int argc, char **argv)
{
    MjError err = MJ_ERROR_INIT;
    MjCache *cache = NULL;
    static Side sides[2];
    int rc, failed = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: check_equal LIBRARIES [OP...]\n");
        return 2;
    }
    if (strstr(mj_cpu_target(), "baseline") != NULL) {
        printf("skipped: this CPU has no fused multiply-add, so its sums round differently from a GPU's\n");
        return 77;
    }
    setenv("MOJIT_CUDA_LIBRARY_PATH", argv[1], 1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    MJ_TRY(mj_cache_open(&(MjCacheOptions){0}, &cache, &err));
    MJ_TRY(open_side("cpu", cache, &sides[0], &err));
    MJ_TRY(open_side("cuda", cache, &sides[1], &err));
    for (int id = 0; id < MJ_OP_COUNT; id++) {
        bool wanted = argc == 2;
        for (int i = 2; i < argc; i++) wanted = wanted || strcmp(argv[i], mj_op_name((MjOpId)id)) == 0;
        if (wanted) failed += compare_op(sides, (MjOpId)id);
    }
out:
    if (rc != 0) printf("%s: %s\n", rc == MJ_ERR_MISSING ? "skipped" : "check_equal", err.message);
    close_side(&sides[0]);
    close_side(&sides[1]);
    mj_cache_close(cache);
    return rc == MJ_ERR_MISSING ? 77 : rc != 0 || failed > 0;
}
