/* Attention gives the same bits whatever the mode and however many tokens a step is padded with: every check shape compiled for
 * its size (static) against the same inputs, padded, through code that has nothing bound. check_attention_bits DEVICE. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "ops/check.h"
#include "ops/op_row.h"
#include "runtime/base/mem.h"

#define MOST_TOKENS 400 /* larger shapes show nothing new and take the simulator long */
#define PADDING 77 /* odd, and more than some tiles */

typedef struct Side {
    MjJit *jit;
    MjOps ops;
} Side;

static int open_side(MjDevice *device, const MjMode *mode, MjCache *cache, Side *s, MjError *err)
{
    const MjJitOptions options = {.device = device, .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}, .budget = 1000, .cache = cache};
    int rc = mj_jit_open(&options, &s->jit, err);
    return rc != 0 ? rc : mj_ops_open(device, s->jit, &s->ops, err);
}

/* A buffer as (outer, tokens, inner) bytes: (H, N) has the heads outside, all others begin with the tokens. */
typedef struct Layout {
    size_t outer, short_bytes, long_bytes; /* of one outer row: in the short and in the padded case */
} Layout;

static Layout layout_of(const MjOpBuffer *b, const void *args, const MjOpShape *shape)
{
    const size_t bytes = (size_t)b->count(args) * mj_op_type_bytes(mj_op_buffer_type(b, args));
    const size_t outer = strcmp(b->name, "lse") == 0 ? (size_t)shape->heads : 1, row = bytes / outer;
    return (Layout){outer, row, row / (size_t)shape->tokens * (size_t)(shape->tokens + PADDING)};
}

/* The short case's inputs over the padded one's; past them stays what the padded case was filled with, at position 0. */
static int copy_inputs(MjDevice *d, const MjOpRow *row, const MjOpShape *shape, const void *from, const void *to, MjError *err)
{
    int rc = 0;
    for (int i = 0; i < mj_op_buffer_count(row) && rc == 0; i++) {
        const MjOpBuffer *b = &row->buffers[i];
        if (b->role != MJ_IN) continue;
        const Layout l = layout_of(b, from, shape);
        char *host = mj_xmalloc(l.outer * l.short_bytes);
        rc = d->ops->download(d, host, mj_op_buffer_ptr(b, from), l.outer * l.short_bytes, err);
        for (size_t o = 0; o < l.outer && rc == 0; o++)
            rc = d->ops->upload(d, (char *)mj_op_buffer_ptr(b, to) + o * l.long_bytes, host + o * l.short_bytes, l.short_bytes, err);
        if (rc == 0) rc = d->ops->synchronize(d, err);
        free(host);
    }
    return rc;
}

static int compare_output(MjDevice *d, const MjOpRow *row, const MjOpBuffer *b, const MjOpShape *shape, const void *x, const void *y,
                          MjError *err)
{
    const Layout l = layout_of(b, x, shape);
    char *want = mj_xmalloc(l.outer * l.short_bytes), *got = mj_xmalloc(l.outer * l.long_bytes);
    int rc = d->ops->download(d, want, mj_op_buffer_ptr(b, x), l.outer * l.short_bytes, err);
    if (rc == 0) rc = d->ops->download(d, got, mj_op_buffer_ptr(b, y), l.outer * l.long_bytes, err);
    for (size_t o = 0; o < l.outer && rc == 0; o++)
        for (size_t i = 0; i < l.short_bytes && rc == 0; i++)
            if (want[o * l.short_bytes + i] != got[o * l.long_bytes + i])
                rc = mj_error(err, MJ_ERR_NUMERIC, "FAIL %s: %s differs at byte %zu of row %zu between %d tokens, all constants, and "
                              "%d, all arguments", row->name, b->name, i, o, shape->tokens, shape->tokens + PADDING);
    free(want);
    free(got);
    return rc;
}

static int check_shape(MjDevice *d, Side sides[2], MjOpId id, const MjOpShape *shape, MjError *err)
{
    const MjOpRow *row = mj_op_rows[id];
    MjOpShape padded = *shape;
    MjCase *x = NULL, *y = NULL;
    int rc;
    padded.tokens += PADDING;
    MJ_TRY(mj_case_open(&sides[0].ops, id, shape, 11, &x, err));
    MJ_TRY(mj_case_open(&sides[1].ops, id, &padded, 12, &y, err));
    MJ_TRY(mj_case_run(x, err));
    MJ_TRY(mj_case_run(y, err)); /* its own inputs first: what it leaves in scratch must not show */
    MJ_TRY(copy_inputs(d, row, shape, mj_case_args(x), mj_case_args(y), err));
    MJ_TRY(mj_op_launch(&sides[1].ops, id, mj_case_args(y), row->args_bytes, "padded", err));
    MJ_TRY(d->ops->synchronize(d, err));
    for (int i = 0; i < mj_op_buffer_count(row); i++)
        if (row->buffers[i].role == MJ_OUT)
            MJ_TRY(compare_output(d, row, &row->buffers[i], shape, mj_case_args(x), mj_case_args(y), err));
out:
    mj_case_close(x);
    mj_case_close(y);
    return rc;
}

static int check_op(MjDevice *d, Side sides[2], MjOpId id)
{
    int n = 0, failed = 0;
    for (const MjOpShape *s = mj_op_check_shapes(id); s->tokens >= 0; s++) {
        if (s->tokens > MOST_TOKENS) continue;
        n++;
        MjError err = MJ_ERROR_INIT;
        MjStr text = MJ_STR_INIT;
        if (check_shape(d, sides, id, s, &err) != 0) {
            mj_shape_text(s, &text);
            printf("%s (%s)\n", err.message, mj_str_text(&text));
            failed++;
        }
        mj_str_free(&text);
        mj_error_clear(&err);
    }
    printf("%s %s: %d of %d shapes have the same bits\n", failed == 0 ? "ok  " : "FAIL", mj_op_name(id), n - failed, n);
    return failed;
}

int main(int argc, char **argv)
{
    static const MjMode unbound = {.name = "unbound", .pad = MJ_PAD_NONE, .miss = MJ_MISS_COMPILE};
    static Side sides[2];
    MjError err = MJ_ERROR_INIT;
    MjDevice *device = NULL;
    MjCache *cache = NULL;
    const MjMode *mode;
    int rc, failed = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: check_attention_bits DEVICE\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    MJ_TRY(mj_mode_find("static", &mode, &err));
    MJ_TRY(mj_cache_open(&(MjCacheOptions){0}, &cache, &err));
    MJ_TRY(mj_device_open(argv[1], NULL, &device, &err));
    MJ_TRY(open_side(device, mode, cache, &sides[0], &err));
    MJ_TRY(open_side(device, &unbound, cache, &sides[1], &err));
    failed = check_op(device, sides, MJ_OP_ATTENTION_FWD) + check_op(device, sides, MJ_OP_ATTENTION_BWD);
out:
    if (rc != 0) printf("%s: %s\n", rc == MJ_ERR_MISSING ? "skipped" : "check_attention_bits", err.message);
    for (int i = 0; i < 2; i++) mj_jit_close(sides[i].jit);
    mj_device_close(device);
    mj_cache_close(cache);
    return rc == MJ_ERR_MISSING ? 77 : rc != 0 || failed > 0;
}
