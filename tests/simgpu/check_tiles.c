/* A matrix op's bits depend on neither tile nor mode: check_tiles LIBRARIES OP... launches every check shape as `static` does,
 * then in the other modes, then with other values of the template's tuning parameters, and compares every output. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "ops/check.h"
#include "ops/op_row.h"
#include "ops/tile_choice.h"
#include "runtime/base/mem.h"

enum { MODES = 3, MOST_TILES = 4 }; /* other tiles tried for one shape; which ones goes round from shape to shape */

typedef struct Bench {
    MjDevice *device;
    MjJit *jit[MODES];
    MjOps ops[MODES];
    unsigned turn;
    int shapes, launches;
} Bench;

static int open_modes(MjCache *cache, Bench *b, MjError *err)
{
    static const MjMode unbound = {.name = "unbound", .pad = MJ_PAD_NONE, .miss = MJ_MISS_COMPILE};
    int rc;
    MJ_TRY(mj_device_open("cuda", NULL, &b->device, err));
    for (int i = 0; i < MODES; i++) {
        const MjMode *mode = &unbound;
        if (i < 2) MJ_TRY(mj_mode_find(i == 0 ? "static" : "dynamic", &mode, err));
        const MjJitOptions options = {.device = b->device, .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}, .budget = 1000, .cache = cache};
        MJ_TRY(mj_jit_open(&options, &b->jit[i], err));
        MJ_TRY(mj_ops_open(b->device, b->jit[i], &b->ops[i], err));
    }
out:
    return rc;
}

/* All outputs of one launch, one after the other. */
static int outputs(MjOps *ops, MjOpId id, const MjOpShape *shape, unsigned char **out, size_t *bytes, MjError *err)
{
    const MjOpRow *row = mj_op_rows[id];
    MjCase *c = NULL;
    int rc;
    *out = NULL;
    *bytes = 0;
    MJ_TRY(mj_case_open(ops, id, shape, 11, &c, err));
    MJ_TRY(mj_case_run(c, err));
    const void *args = mj_case_args(c);
    for (int i = 0; i < mj_op_buffer_count(row); i++) {
        const MjOpBuffer *buffer = &row->buffers[i];
        void *p = mj_op_buffer_ptr(buffer, args);
        if (p == NULL || (buffer->role != MJ_OUT && buffer->role != MJ_INOUT)) continue;
        const size_t n = (size_t)buffer->count(args) * mj_op_type_bytes(mj_op_buffer_type(buffer, args));
        *out = mj_xrealloc(*out, *bytes + n + 1);
        MJ_TRY(ops->device->ops->download(ops->device, *out + *bytes, p, n, err));
        *bytes += n;
    }
out:
    mj_case_close(c);
    return rc;
}

static int compare(Bench *b, int mode, MjOpId id, const MjOpShape *shape, const unsigned char *want, size_t bytes, const char *what,
                   MjError *err)
{
    unsigned char *got = NULL;
    size_t n, at = 0;
    int rc;
    MJ_TRY(outputs(&b->ops[mode], id, shape, &got, &n, err));
    b->launches++;
    while (at < bytes && got[at] == want[at]) at++;
    if (n != bytes || at < bytes)
        rc = mj_error(err, MJ_ERR_NUMERIC, "%s: differs from byte %zu of %zu on", what, at, bytes);
out:
    free(got);
    return rc;
}

static int other_tiles(Bench *b, MjOpId id, const MjOpShape *shape, const void *args, const unsigned char *want, size_t bytes, MjError *err)
{
    MjOps *ops = &b->ops[0];
    const MjOpBinding *binding;
    MjRequest asked, chosen;
    MjTileCandidate *list = NULL;
    int n = 0, rc;
    MJ_TRY(mj_op_request(ops, id, args, &binding, &asked, &chosen, err));
    if (binding->matrix == NULL) goto out;
    MJ_TRY(mj_tile_candidates(binding->matrix, binding->tmpl, mj_jit_target(ops->jit), ops->device->ops->info(ops->device), args,
                              asked.values, &list, &n, err));
    for (int i = 0; i < MOST_TILES && i < n; i++) {
        const MjTileCandidate *c = &list[b->turn++ % (unsigned)n];
        char spec[600];
        mj_spec_text(binding->tmpl, mj_jit_target(ops->jit), c->values, spec, sizeof spec);
        ops->forced_tmpl = binding->tmpl;
        memcpy(ops->forced, c->values, sizeof ops->forced);
        rc = compare(b, 0, id, shape, want, bytes, spec, err);
        ops->forced_tmpl = NULL;
        if (rc != 0) goto out;
    }
out:
    free(list);
    return rc;
}

static int check_shape(Bench *b, MjOpId id, const MjOpShape *shape, MjError *err)
{
    unsigned char *want = NULL;
    size_t bytes;
    MjCase *c = NULL;
    int rc;
    MJ_TRY(outputs(&b->ops[0], id, shape, &want, &bytes, err));
    MJ_TRY(compare(b, 0, id, shape, want, bytes, "static, once more", err));
    MJ_TRY(compare(b, 1, id, shape, want, bytes, "dynamic", err));
    MJ_TRY(compare(b, 2, id, shape, want, bytes, "unbound", err));
    MJ_TRY(mj_case_open(&b->ops[0], id, shape, 11, &c, err));
    MJ_TRY(other_tiles(b, id, shape, mj_case_args(c), want, bytes, err));
    b->shapes++;
out:
    mj_case_close(c);
    free(want);
    return rc;
}

static int check_op(Bench *b, MjOpId id)
{
    int failed = 0, refused = 0;
    b->shapes = b->launches = 0;
    for (const MjOpShape *s = mj_op_check_shapes(id); s->tokens >= 0; s++) {
        MjError err = MJ_ERROR_INIT;
        MjStr text = MJ_STR_INIT;
        const int rc = check_shape(b, id, s, &err);
        mj_shape_text(s, &text);
        if (rc == MJ_ERR_MISSING) refused++;
        else if (rc != 0) printf("FAIL %s(%s): %s\n", mj_op_name(id), mj_str_text(&text), err.message);
        failed += rc != 0 && rc != MJ_ERR_MISSING;
        mj_str_free(&text);
        mj_error_clear(&err);
    }
    printf("%s %s on %s: %d shapes, %d launches with the same bits, %d shapes refused\n", failed == 0 && b->shapes > 0 ? "ok  " : "FAIL",
           mj_op_name(id), mj_jit_target(b->jit[0]), b->shapes, b->launches, refused);
    return failed + (b->shapes == 0);
}

int main(int argc, char **argv)
{
    MjError err = MJ_ERROR_INIT;
    MjCache *cache = NULL;
    static Bench bench;
    int rc, failed = 0;
    if (argc < 3) {
        fprintf(stderr, "usage: check_tiles LIBRARIES OP...\n");
        return 2;
    }
    setenv("MOJIT_CUDA_LIBRARY_PATH", argv[1], 1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    MJ_TRY(mj_cache_open(&(MjCacheOptions){0}, &cache, &err));
    MJ_TRY(open_modes(cache, &bench, &err));
    for (int i = 2; i < argc; i++) {
        MjOpId id;
        MJ_TRY(mj_op_find(argv[i], &id, &err));
        failed += check_op(&bench, id);
    }
out:
    if (rc != 0) printf("%s: %s\n", rc == MJ_ERR_MISSING ? "skipped" : "check_tiles", err.message);
    for (int i = 0; i < MODES; i++) mj_jit_close(bench.jit[i]);
    mj_device_close(bench.device);
    mj_cache_close(cache);
    return rc == MJ_ERR_MISSING ? 77 : rc != 0 || failed > 0;
}
