/* The configuration: round trip, bad input and its messages. */
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
#include "train/config.h"

static char path[] = "/tmp/mojit-config-XXXXXX";

static int load_text(MjConfig *c, const char *text, MjError *err) {
    assert_int_equal(mj_fs_write_atomic(path, text, strlen(text), err), 0);
    return mj_config_load(c, path, err);
}

static void expect_error(const char *text, const char *line, const char *part) {
    MjConfig before, c;
    mj_config_defaults(&c);
    before = c;
    MjError err = MJ_ERROR_INIT;
    assert_int_equal(load_text(&c, text, &err), MJ_ERR_USAGE);
    if (strstr(err.message, part) == NULL) fail_msg("expected \"%s\" in: %s", part, err.message);
    if (strstr(err.message, line) == NULL) fail_msg("expected \"%s\" in: %s", line, err.message);
    assert_memory_equal(&c, &before, sizeof c);
    mj_error_clear(&err);
}

static void bad_files_name_line_and_nearest(void **state) {
    (void)state;
    expect_error("[model]\ndepht = 3\n", ":2:", "\"depth\"");
    expect_error("[modle]\ndepth = 3\n", ":1:", "[model]");
    expect_error("[modle]\n", ":1:", "[model]");
    expect_error("[model]\n[optimizer]\nlr = 3\n", ":3:", "did you mean \"embedding_lr\" or \"head_lr\" or");
    expect_error("[model]\nexperts = 4\n", ":2:", "\"moe.experts\" or \"precision.experts\"?");
    expect_error("[model]\nmatrx_lr = 4\n", ":2:", "\"optimizer.matrix_lr\"?");
    expect_error("[model]\ndepth = 3\n\n[moe]\n[model]\nwidth = 128\ndepth = 4\n", ":7:", "in line 2 already");
    expect_error("[model]\ndepth = 99999999999999999999\n", ":2:", "out of range");
    expect_error("[train]\nsteps = 10 # few\n", ":2:", "a comment begins with");
    expect_error("\n[train]\nsteps = ten\n", ":3:", "whole number");
    expect_error("[train]\nsteps = 0\n", ":2:", "out of range");
    expect_error("[precision]\nexperts = fp16\n", ":2:", "bf16|fp8");
    expect_error("[moe]\nnormalize_gates = maybe\n", ":2:", "true or false");
    expect_error("[optimizer]\nbetas = 0.9\n", ":2:", "two numbers");
    expect_error("depth = 3\n", ":1:", "before any");
    expect_error("[model]\nnonsense\n", ":2:", "key = value");
}

/* Indents, CRLF, a byte order mark and comments change nothing. */
static void other_editors(void **state) {
    (void)state;
    MjConfig c;
    MjError err = MJ_ERROR_INIT;
    mj_config_defaults(&c);
    if (load_text(&c, "\xef\xbb\xbf[model]\r\n  depth = 3\r\n\twidth=256\r\n; end\r\n[train]\r\n    steps = 7", &err) != 0) fail_msg("%s", err.message);
    assert_int_equal(c.model.depth, 3);
    assert_int_equal(c.model.width, 256);
    assert_int_equal(c.train.steps, 7);
}

static void dump_reads_back(void **state) {
    (void)state;
    MjConfig a, b;
    MjError err = MJ_ERROR_INIT;
    mj_config_defaults(&a);
    assert_int_equal(mj_config_set(&a, "optimizer.matrix_lr=0.1234567890123", &err), 0);
    assert_int_equal(mj_config_set(&a, "cache.max_size=3M", &err), 0);
    assert_int_equal(mj_config_set(&a, "moe.layout=capacity:1.25", &err), 0);
    assert_int_equal(mj_config_set(&a, "precision.experts=fp8", &err), 0);
    assert_int_equal(mj_config_set(&a, "optimizer.betas=0.9, 0.95", &err), 0);
    char folder[301], set[400]; /* longer than libinih's lines */
    memset(folder, 'f', sizeof folder - 1);
    folder[sizeof folder - 1] = '\0';
    (void)snprintf(set, sizeof set, "data.train=/%s/a b = c.bin:/d.bin", folder);
    assert_int_equal(mj_config_set(&a, set, &err), 0);
    assert_int_equal(a.cache.max_size, 3 << 20);
    char *text = mj_config_dump(&a);
    mj_config_defaults(&b);
    assert_int_equal(load_text(&b, text, &err), 0);
    assert_memory_equal(&a, &b, sizeof a);
    free(text);
}

static void cross_checks(void **state) {
    (void)state;
    static const struct {
        const char *set, *part;
    } cases[] = {
        {"jit.mode=statik", "static"},      {"jit.bucket=often", "bucket"},       {"moe.layout=capacity:x", "capacity"},
        {"moe.top_k=16", "moe.experts"},    {"model.width=200", "multiple of 128"}, {"model.head_dim=96", "64 or 128"},
        {"model.window_pattern=SXL", "SSSL"}, {"train.loss_chunk=1000", "multiple of 128"}, {"moe.hidden=100", "128"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        MjConfig c;
        MjError err = MJ_ERROR_INIT;
        mj_config_defaults(&c);
        assert_int_equal(mj_config_check(&c, &err), 0);
        assert_int_equal(mj_config_set(&c, cases[i].set, &err), 0);
        assert_int_equal(mj_config_check(&c, &err), MJ_ERR_USAGE);
        if (strstr(err.message, cases[i].part) == NULL) fail_msg("%s: expected \"%s\" in: %s", cases[i].set, cases[i].part, err.message);
    }
}

static void table_is_sane(void **state) {
    (void)state;
    char *help = mj_config_help(), *md = mj_config_markdown();
    for (const MjOption *o = mj_options; o->section != NULL; o++) {
        char name[128];
        (void)snprintf(name, sizeof name, "%s.%s = ", o->section, o->key);
        if (strstr(help, name) == NULL) fail_msg("--help lacks %s", name);
        (void)snprintf(name, sizeof name, "| `%s` |", o->key);
        if (strstr(md, name) == NULL) fail_msg("the Markdown lacks %s", name);
        for (const MjOption *p = o + 1; p->section != NULL; p++) {
            if (p->offset == o->offset) fail_msg("%s.%s and %s.%s share storage", o->section, o->key, p->section, p->key);
        }
    }
    free(help);
    free(md);
}

static const char *docs_path;

static void docs_are_generated(void **state) {
    (void)state;
    if (docs_path == NULL) skip();
    char *want = mj_config_markdown(), *have = NULL;
    MjError err = MJ_ERROR_INIT;
    if (getenv("MOJIT_UPDATE") != NULL) assert_int_equal(mj_fs_write_atomic(docs_path, want, strlen(want), &err), 0);
    if (mj_fs_read(docs_path, &have, NULL, &err) != 0) fail_msg("%s", err.message);
    if (strcmp(want, have) != 0) fail_msg("%s is not what the option table says; run MOJIT_UPDATE=1 test_config %s", docs_path, docs_path);
    free(want);
    free(have);
}

int main(int argc, char **argv) {
    docs_path = argc > 1 ? argv[1] : NULL;
    int fd = mkstemp(path);
    if (fd < 0) return 1;
    (void)close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_files_name_line_and_nearest),
        cmocka_unit_test(other_editors),
        cmocka_unit_test(dump_reads_back),
        cmocka_unit_test(cross_checks),
        cmocka_unit_test(table_is_sane),
        cmocka_unit_test(docs_are_generated),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
