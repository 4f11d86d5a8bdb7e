/* Token files: packing, refusing, entropy, loading. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/fs.h"
#include "runtime/base/str.h"
#include "train/data.h"

static char dir[] = "/tmp/mojit-data-XXXXXX";

static char *in(const char *name) { return mj_strdup_printf("%s/%s", dir, name); }

static void put(const char *name, const void *data, size_t len) {
    char *path = in(name);
    assert_int_equal(mj_fs_write_atomic(path, data, len, NULL), 0);
    free(path);
}

static void put_tokens(const char *name, int32_t magic, int32_t version, int32_t count, const void *tokens, size_t bytes) {
    char buf[4096] = {0};
    int32_t header[5] = {magic, version, count, 0, 0};
    memcpy(buf, header, sizeof header);
    memcpy(buf + 1024, tokens, bytes);
    put(name, buf, 1024 + bytes);
}

static void expect_refused(const char *name, const char *part) {
    MjError err = MJ_ERROR_INIT;
    MjTokens *t = NULL;
    char *path = in(name);
    int rc = mj_tokens_open(path, &t, &err);
    if (rc == 0) fail_msg("%s was opened", name);
    if (strstr(err.message, part) == NULL || strstr(err.message, name) == NULL) fail_msg("%s: expected \"%s\" in: %s", name, part, err.message);
    assert_null(t);
    free(path);
}

static void bad_files(void **state) {
    (void)state;
    uint16_t t[4] = {1, 2, 3, 4};
    put("empty.bin", "", 0);
    put("short.bin", "abc", 3);
    put_tokens("foreign.bin", 0x46554747, 3, 4, t, 8);
    put_tokens("version.bin", 20240520, 2, 4, t, 8);
    put_tokens("truncated.bin", 20240520, 1, 5, t, 8);
    put_tokens("long.bin", 20240520, 1, 3, t, 8);
    put_tokens("none.bin", 20240520, 1, 0, t, 0);
    expect_refused("empty.bin", "empty");
    expect_refused("short.bin", "truncated");
    expect_refused("foreign.bin", "not a token file");
    expect_refused("version.bin", "version 2");
    expect_refused("truncated.bin", "truncated");
    expect_refused("long.bin", "too long");
    expect_refused("none.bin", "0 tokens");
    expect_refused("missing-*.bin", "no such");
}

static void both_formats_and_globs(void **state) {
    (void)state;
    uint16_t a[3] = {7, 50256, 65535};
    uint32_t b[2] = {9, 128000};
    MjError err = MJ_ERROR_INIT;
    put_tokens("g_0.bin", 20240520, 1, 3, a, sizeof a);
    put_tokens("g_1.bin", 20240801, 7, 2, b, sizeof b);
    char *pattern = in("g_*.bin");
    MjTokens *t = NULL;
    assert_int_equal(mj_tokens_open(pattern, &t, &err), 0);
    assert_int_equal(mj_tokens_files(t), 2);
    assert_int_equal(mj_tokens_count(t), 5);
    assert_int_equal(mj_tokens_get(t, 0, 2), 65535);
    assert_int_equal(mj_tokens_get(t, 1, 1), 128000);
    assert_false(mj_tokens_byte_level(t));
    double bits;
    assert_int_equal(mj_tokens_order1_entropy(t, &bits, &err), MJ_ERR_DATA);
    mj_tokens_close(t);
    free(pattern);
}

static void pack_all(const char *prefix, MjPackResult *r) {
    char *text = in("text"), *out = in(prefix);
    MjError err = MJ_ERROR_INIT;
    MjPackOptions o = {.held_out = 0.3};
    const char *paths[] = {text};
    assert_int_equal(mj_data_pack(paths, 1, out, &o, r, &err), 0);
    free(text);
    free(out);
}

static void packing(void **state) {
    (void)state;
    char *sub = in("text/sub"), *bin = in("text");
    assert_int_equal(mj_fs_make_dirs(sub, 0755, NULL), 0);
    put("text/a.txt", "abab", 4);
    put("text/sub/b.txt", "hello\n", 6);
    put("text/c.txt", "cc", 2);
    put("text/d.txt", "d is another document", 21);
    put("text/binary", "a\0b", 3);
    put("text/empty", "", 0);
    MjPackResult r, again;
    pack_all("p", &r);
    pack_all("q", &again);
    assert_int_equal(r.documents + r.held_out_documents, 4);
    assert_true(r.documents >= 1 && r.held_out_documents >= 1);
    assert_int_equal(r.bytes + r.held_out_bytes, 33);
    assert_int_equal(r.skipped, 2);
    for (int i = 0; i < 2; i++) {
        char *x = in(i == 0 ? "p_train.bin" : "p_val.bin"), *y = in(i == 0 ? "q_train.bin" : "q_val.bin"), *dx = NULL, *dy = NULL;
        size_t nx, ny;
        assert_int_equal(mj_fs_read(x, &dx, &nx, NULL), 0);
        assert_int_equal(mj_fs_read(y, &dy, &ny, NULL), 0);
        assert_int_equal(nx, ny);
        assert_memory_equal(dx, dy, nx);
        assert_int_equal(nx, 1024 + 2 * (i == 0 ? r.bytes + r.documents : r.held_out_bytes + r.held_out_documents));
        free(x), free(y), free(dx), free(dy);
    }
    free(sub);
    free(bin);
}

/* One text, such as a book: its last lines are held out; a folder that is missing is made. Held out before, not any more: the
 * older file goes. */
static void single_document(void **state) {
    (void)state;
    char *book = in("book.txt"), *out = in("new/folder/b"), *val = in("new/folder/b_val.bin"), *data = NULL;
    const char *paths[] = {book};
    size_t len = 0;
    MjError err = MJ_ERROR_INIT;
    MjPackResult r;
    put("book.txt", "first line\nsecond line\nthird\n", 29);
    assert_int_equal(mj_data_pack(paths, 1, out, &(MjPackOptions){.held_out = 0.5}, &r, &err), 0);
    assert_int_equal(r.documents, 1);
    assert_int_equal(r.bytes, 23);
    assert_int_equal(r.held_out_documents, 1);
    assert_int_equal(mj_fs_read(val, &data, &len, NULL), 0);
    assert_int_equal(len, 1024 + 2 * 7);
    static const uint16_t want[7] = {MJ_BYTE_BOS, 't', 'h', 'i', 'r', 'd', '\n'};
    assert_memory_equal(data + 1024, want, sizeof want);
    free(data);
    assert_int_equal(mj_data_pack(paths, 1, out, &(MjPackOptions){.held_out = 0}, &r, &err), 0);
    assert_int_equal(r.bytes, 29);
    assert_int_not_equal(access(val, F_OK), 0);
    out[strlen(out) - 1] = '\0';
    assert_int_equal(mj_data_pack(paths, 1, out, &(MjPackOptions){.held_out = 0}, &r, &err), MJ_ERR_USAGE);
    assert_non_null(strstr(err.message, "names no file"));
    free(book), free(out), free(val);
}

static void nothing_to_pack(void **state) {
    (void)state;
    char *folder = in("barren"), *out = in("x");
    assert_int_equal(mj_fs_make_dirs(folder, 0755, NULL), 0);
    put("barren/binary", "\0", 1);
    MjError err = MJ_ERROR_INIT;
    MjPackResult r;
    const char *paths[] = {folder};
    assert_int_equal(mj_data_pack(paths, 1, out, &(MjPackOptions){.held_out = 0.1}, &r, &err), MJ_ERR_DATA);
    assert_non_null(strstr(err.message, "no readable text"));
    free(folder);
    free(out);
}

/* "abab" after BOS: BOS->a (1 way), a->b always, b->a once. Entropy 0. "aab": a->a and a->b equally: 2 of 3 bytes cost 1 bit. */
static void entropy(void **state) {
    (void)state;
    const char *texts[] = {"abab", "aab"};
    double want[] = {0, 2.0 / 3};
    for (int i = 0; i < 2; i++) {
        put("one.txt", texts[i], strlen(texts[i]));
        char *path = in("one.txt"), *out = in("one"), *file = in("one_train.bin");
        MjError err = MJ_ERROR_INIT;
        MjPackResult r;
        const char *paths[] = {path};
        assert_int_equal(mj_data_pack(paths, 1, out, &(MjPackOptions){0}, &r, &err), 0);
        MjTokens *t = NULL;
        double bits = -1;
        assert_int_equal(mj_tokens_open(file, &t, &err), 0);
        assert_int_equal(mj_tokens_order1_entropy(t, &bits, &err), 0);
        assert_true(fabs(bits - want[i]) < 1e-12);
        mj_tokens_close(t);
        free(path), free(out), free(file);
    }
}

enum { B = 2, T = 4 };

static void loader_case(MjPacking packing, int32_t *sizes, int64_t sequences) {
    /* documents: BOS a b c d e | BOS f | BOS g h i */
    uint16_t tokens[] = {256, 1, 2, 3, 4, 5, 256, 6, 256, 7, 8, 9};
    char buf[2048] = {0};
    int32_t header[5] = {20240520, 1, 12, 257, 256};
    memcpy(buf, header, sizeof header);
    memcpy(buf + 1024, tokens, sizeof tokens);
    put("l.bin", buf, 1024 + sizeof tokens);
    char *path = in("l.bin");
    MjError err = MJ_ERROR_INIT;
    MjTokens *t = NULL;
    MjLoader *l = NULL;
    int32_t token[B * T], target[B * T], pos[B * T];
    MjBatch b = {.token = token, .target = target, .pos = pos};
    MjLoaderOptions o = {.packing = packing, .batch = B, .seq_len = T, .vocab = 257};
    assert_int_equal(mj_tokens_open(path, &t, &err), 0);
    assert_int_equal(mj_loader_open(t, &o, &l, &err), 0);
    assert_int_equal(mj_loader_sequences(l), sequences);
    for (int i = 0; sizes[i] >= 0; i++) {
        assert_int_equal(mj_loader_next(l, &b, &err), 0);
        assert_int_equal(b.tokens, sizes[i]);
        for (int32_t j = 0; j + 1 < b.tokens; j++) {
            if (pos[j + 1] != 0) assert_int_equal(target[j], token[j + 1]);
            if (packing == MJ_PACKING_DOCS) assert_int_not_equal(target[j], 256);
        }
    }
    mj_loader_rewind(l);
    for (int i = 0; sizes[i] >= 0; i++) assert_int_equal(mj_loader_skip(l), sizes[i]);
    mj_loader_close(l);
    o.vocab = 200;
    assert_int_equal(mj_loader_open(t, &o, &l, &err), 0);
    assert_int_equal(mj_loader_next(l, &b, &err), MJ_ERR_DATA);
    assert_non_null(strstr(err.message, "model.vocab"));
    mj_loader_close(l);
    o.seq_len = 4000;
    if (packing == MJ_PACKING_FULL) assert_int_equal(mj_loader_open(t, &o, &l, &err), MJ_ERR_DATA);
    mj_tokens_close(t);
    free(path);
}

static void loading(void **state) {
    (void)state;
    int32_t full[] = {8, 0, -1}, docs[] = {5, 4, 0, -1}; /* docs: 4 + 1, 1 + 3 */
    loader_case(MJ_PACKING_FULL, full, 2);
    loader_case(MJ_PACKING_DOCS, docs, 4);
}

static void shuffling_is_a_permutation_that_the_seed_decides(void **state) {
    (void)state;
    char *path = in("l.bin");
    MjError err = MJ_ERROR_INIT;
    MjTokens *t = NULL;
    int32_t seen[3][4], token[8], target[8], pos[8];
    MjBatch b = {.token = token, .target = target, .pos = pos};
    assert_int_equal(mj_tokens_open(path, &t, &err), 0);
    for (int run = 0; run < 3; run++) {
        MjLoader *l = NULL;
        MjLoaderOptions o = {.packing = MJ_PACKING_DOCS, .batch = 1, .seq_len = 4, .vocab = 257, .shuffle = true, .seed = 3};
        assert_int_equal(mj_loader_open(t, &o, &l, &err), 0);
        if (run == 2) for (int i = 0; i < 4; i++) assert_true(mj_loader_skip(l) > 0); /* second epoch */
        int sum = 0;
        for (int i = 0; i < 4; i++) {
            assert_int_equal(mj_loader_next(l, &b, &err), 0);
            seen[run][i] = target[0];
            sum += target[0];
        }
        assert_int_equal(sum, 1 + 5 + 6 + 7);
        mj_loader_close(l);
    }
    assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
    mj_tokens_close(t);
    free(path);
}

int main(void) {
    if (mkdtemp(dir) == NULL) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_files),       cmocka_unit_test(both_formats_and_globs), cmocka_unit_test(packing),
        cmocka_unit_test(single_document),
        cmocka_unit_test(nothing_to_pack), cmocka_unit_test(entropy),                cmocka_unit_test(loading),
        cmocka_unit_test(shuffling_is_a_permutation_that_the_seed_decides),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (mj_fs_remove_tree(dir, NULL) != 0) failed++;
    return failed;
}
