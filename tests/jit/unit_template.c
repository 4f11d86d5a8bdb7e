/* Templates and modes: declarations, legal values, canonical spec texts, expansion, buckets; and every built-in template. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/mode.h"
#include "jit/template.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"

#define HEAD "// mj:template t\n// mj:doc D.\n// mj:family cpu cuda\n// mj:kernel t\n// mj:args MjTArgs\n"

static MjTemplate *parse(const char *source)
{
    MjTemplate *t = NULL;
    MjError err = MJ_ERROR_INIT;

    if (mj_template_parse("t.cu", source, "builtin", &t, &err) != 0) fail_msg("%s", err.message);
    return t;
}

static void declarations(void **state)
{
    (void)state;
    MjTemplate *t = parse(HEAD "// mj:kernel t_second\n// mj:param W fixed min:64 max:1024 multiple:64\n"
                               "// mj:param N varying min:1\n// mj:param KIND variant values:0,2\n"
                               "// mj:param TILE tuning default:128 values:64,128\nint x;\n");

    assert_int_equal(t->n_kernels, 2);
    assert_string_equal(t->kernels[1], "t_second");
    assert_int_equal(t->n_params, 4);
    assert_int_equal(t->params[0].kind, MJ_PARAM_FIXED);
    assert_int_equal(t->params[0].multiple, 64);
    assert_int_equal(t->params[3].default_value, 128);
    assert_int_equal(mj_template_param(t, "KIND"), 2);
    assert_int_equal(mj_template_param(t, "KIN"), -1);
    assert_int_equal(t->n_generic, 2); /* nothing listed: the whole product */
    assert_int_equal(t->generic[1][2], 2);
    assert_int_equal(t->generic[1][0], MJ_UNBOUND);
    mj_template_free(t);
}

static void wrong_declarations_name_the_line(void **state)
{
    (void)state;
    static const struct {
        const char *source, *say;
    } cases[] = {
        {HEAD "// mj:parm W fixed\n", "mj:param"},
        {HEAD "// mj:param W fixd\n", "fixed"},
        {HEAD "// mj:param W fixed min:a\n", "a"},
        {HEAD "// mj:param W fixed mni:1\n", "min"},
        {HEAD "// mj:param W fixed multiple:0\n", "multiple"},
        {HEAD "// mj:param W variant\n", "values"},
        {HEAD "// mj:generic W=1\n", "W"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        MjTemplate *t = NULL;
        MjError err = MJ_ERROR_INIT;
        assert_true(mj_template_parse("t.cu", cases[i].source, "builtin", &t, &err) < 0);
        assert_null(t);
        if (!strstr(err.message, cases[i].say)) fail_msg("case %zu: \"%s\" lacks %s", i, err.message, cases[i].say);
        if (!strstr(err.message, "t.cu:6")) fail_msg("case %zu: \"%s\" names no line", i, err.message);
        mj_error_clear(&err);
    }
    MjTemplate *t = NULL;
    MjError err = MJ_ERROR_INIT;
    assert_true(mj_template_parse("u.cu", HEAD, "builtin", &t, &err) < 0); /* the file's name is not the template's */
    assert_true(mj_template_parse("t.cu", HEAD "// mj:param W fixed\n// mj:param W fixed\n", "builtin", &t, &err) < 0);
    assert_true(mj_template_parse("t.cu", "// mj:template t\n", "builtin", &t, &err) < 0);
    mj_error_clear(&err);
}

static void targets_are_served(void **state)
{
    static const struct {
        const char *family, *target;
        bool serves;
    } cases[] = {
        {"cpu", "cpu:avx2", true},      {"cpu", "sm_80", false},       {"cuda", "sm_80", true},     {"sm_80", "compute_80", true},
        {"sm_89", "sm_80", false},      {"sm_89", "sm_86", false},     {"sm_89", "sm_89", true},    {"sm_89", "sm_90a", true},
        {"sm_89", "compute_80", false}, {"sm_89", "compute_90", true}, {"sm_90a", "sm_90a", true},  {"sm_90a", "compute_90", false},
        {"sm_90a", "sm_100a", false},   {"sm_100", "sm_100a", true},   {"cpu sm_89", "cpu:avx2", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char source[256];
        snprintf(source, sizeof source, "// mj:template t\n// mj:doc D.\n// mj:family %s\n// mj:kernel t\n// mj:args MjTArgs\n",
                 cases[i].family);
        MjTemplate *t = parse(source);
        if (mj_template_serves(t, cases[i].target) != cases[i].serves) fail_msg("%s for %s", cases[i].family, cases[i].target);
        mj_template_free(t);
    }
}

static void values_are_checked(void **state)
{
    (void)state;
    MjTemplate *t = parse(HEAD "// mj:param W fixed min:64 max:1024 multiple:64\n// mj:param N varying min:1\n"
                               "// mj:param KIND variant values:0,2\n// mj:param TILE tuning default:128 values:64,128\n");
    static const struct {
        int32_t values[4];
        const char *say; /* NULL: legal */
    } cases[] = {
        {{64, 1, 0, MJ_UNBOUND}, NULL}, {{1024, 5, 2, 64}, NULL},          {{100, 1, 0, 64}, "128"},
        {{2048, 1, 0, 64}, "1024"},     {{64, 0, 0, 64}, "N"},             {{64, 1, 1, 64}, "KIND"},
        {{64, 1, 0, 100}, "TILE"},      {{MJ_UNBOUND, 1, 0, 64}, "W"},     {{64, 1, 0, 60}, "64"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        MjError err = MJ_ERROR_INIT;
        int rc = mj_template_check(t, cases[i].values, &err);
        assert_int_equal(rc, cases[i].say ? MJ_ERR_USAGE : 0);
        if (cases[i].say && !strstr(err.message, cases[i].say)) fail_msg("case %zu: %s", i, err.message);
        mj_error_clear(&err);
    }
    mj_template_free(t);
}

static void spec_text_is_canonical(void **state)
{
    (void)state;
    MjTemplate *t = parse(HEAD "// mj:param W fixed\n// mj:param N varying\n");
    char buf[128], small[10];
    int32_t bound[] = {768, MJ_UNBOUND};

    int n = mj_spec_text(t, "cpu:avx2", bound, buf, sizeof buf);
    assert_string_equal(buf, "t target=cpu:avx2 W=768 N=?");
    assert_int_equal(n, strlen(buf));
    assert_int_equal(mj_spec_text(t, "cpu:avx2", bound, small, sizeof small), n);
    assert_string_equal(small, "t target=");
    mj_template_free(t);
}

static void expansion_pulls_in_headers(void **state)
{
    (void)state;
    MjSources s = {.n = 0};
    MjError err = MJ_ERROR_INIT;
    char *text = NULL;
    int32_t bound[] = {64, MJ_UNBOUND};

    mj_sources_add(&s, "prelude.h", "PRELUDE_TEXT\n", "builtin");
    mj_sources_add(&s, "helper.h", "HELPER_TEXT\n#include \"helper.h\"\n", "builtin");
    MjTemplate *t = parse(HEAD "// mj:param W fixed\n// mj:param N varying\n#include \"helper.h\"\n#include \"helper.h\"\n"
                               "int body = W;\n");
    assert_int_equal(mj_template_expand(t, &s, bound, NULL, &text, &err), 0);
    assert_non_null(strstr(text, "#define W (64)"));
    assert_non_null(strstr(text, "#define N (args->n)"));
    assert_non_null(strstr(text, "PRELUDE_TEXT"));
    assert_non_null(strstr(text, "HELPER_TEXT"));
    char *body = strstr(text, "int body"), *line = NULL; /* the last #line before the body says where it stands */
    for (char *at = text; (at = strstr(at, "#line ")) != NULL && at < body; at++) line = at;
    assert_non_null(line);
    assert_int_equal(strncmp(line, "#line 10 \"t.cu\"", 15), 0);
    free(text);
    /* A changed header changes the labels, and so every key. */
    MjStr before = MJ_STR_INIT, after = MJ_STR_INIT;
    mj_template_source_labels(t, &s, &before);
    mj_sources_add(&s, "helper.h", "OTHER\n", "folder");
    mj_template_source_labels(t, &s, &after);
    assert_string_not_equal(mj_str_text(&before), mj_str_text(&after));
    assert_null(strstr(mj_str_text(&after), "folder")); /* never a path */
    mj_str_free(&before);
    mj_str_free(&after);
    mj_sources_free(&s);
    mj_template_free(t);
}

/* Every built-in template parses, and its cpu generics are embedded for every level. */
static void builtins_are_whole(void **state)
{
    (void)state;
    static const char *const isas[] = {"baseline", "avx2", "avx512", "avx512_bf16"};
    int templates = 0;

    for (const MjSourceFile *f = mj_builtin_sources; f->name; f++) {
        MjTemplate *t = NULL;
        MjError err = MJ_ERROR_INIT;
        if (!mj_sources_is_template(f)) continue;
        if (mj_template_parse(f->name, f->text, "builtin", &t, &err) != 0) fail_msg("%s", err.message);
        templates++;
        int want = 0;
        for (int g = 0; g < t->n_generic; g++) want += t->families & t->generic_families[g] & 1 ? t->n_kernels : 0;
#if defined(__x86_64__)
        for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
            int found = 0;
            for (const MjEmbeddedKernel *e = mj_embedded_kernels; e->tmpl; e++)
                found += strcmp(e->tmpl, t->name) == 0 && strcmp(e->isa, isas[i]) == 0 && e->entry;
            if (found != want) fail_msg("%s: %d of %d generic builds for %s", t->name, found, want, isas[i]);
        }
#endif
        mj_template_free(t);
    }
    assert_true(templates >= 20);
}

static void modes_and_buckets(void **state)
{
    (void)state;
    const MjMode *mode = NULL;
    MjBucket b;
    MjError err = MJ_ERROR_INIT;

    assert_int_equal(mj_mode_find("dynmic", &mode, &err), MJ_ERR_USAGE);
    assert_non_null(strstr(err.message, "dynamic"));
    assert_int_equal(mj_bucket_parse("multiple:0", &b, &err), MJ_ERR_USAGE);
    assert_int_equal(mj_bucket_parse("multiple:", &b, &err), MJ_ERR_USAGE);
    assert_int_equal(mj_bucket_parse("pow3", &b, &err), MJ_ERR_USAGE);
    assert_int_equal(mj_bucket_parse("multiple:128", &b, &err), 0);
    assert_int_equal(mj_mode_find("dynamic", &mode, &err), 0);
    assert_int_equal(mj_mode_pad(mode, &b, 1, 4096), 128);
    assert_int_equal(mj_mode_pad(mode, &b, 128, 4096), 128);
    assert_int_equal(mj_mode_pad(mode, &b, 129, 4096), 256);
    assert_int_equal(mj_mode_pad(mode, &b, 4000, 4001), 4001);
    assert_int_equal(mj_bucket_parse("pow2", &b, &err), 0);
    assert_int_equal(mj_mode_pad(mode, &b, 129, 4096), 256);
    assert_int_equal(mj_mode_pad(mode, &b, INT32_MAX - 1, INT32_MAX), INT32_MAX);
    assert_int_equal(mj_bucket_parse("exact", &b, &err), 0);
    assert_int_equal(mj_mode_pad(mode, &b, 129, 4096), 129);
    assert_int_equal(mj_mode_find("static", &mode, &err), 0);
    assert_int_equal(mj_mode_pad(mode, &b, 129, 4096), 4096);
    assert_int_equal(mj_mode_find("nocompile", &mode, &err), 0);
    assert_int_equal(mj_mode_pad(mode, &b, 129, 4096), 129);
    mj_error_clear(&err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(declarations),           cmocka_unit_test(wrong_declarations_name_the_line),
        cmocka_unit_test(targets_are_served), cmocka_unit_test(values_are_checked),     cmocka_unit_test(spec_text_is_canonical),
        cmocka_unit_test(expansion_pulls_in_headers), cmocka_unit_test(builtins_are_whole),
        cmocka_unit_test(modes_and_buckets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
