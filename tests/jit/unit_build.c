/* From a key to an image, where that goes wrong: compilers that changed behind their driver, images that do not load, entries
 * that are bad, compilers that hang. Asserts counts. Argument: the folder of test templates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/cache.h"
#include "jit/compiler.h"
#include "jit/identity.h"
#include "jit/jit.h"
#include "runtime/base/fs.h"
#include "runtime/base/str.h"

static const char *kernels;
static char base[64], root[100], locks[100], script[100], cc1[100];
static MjDevice *device;
static MjStr said;

static void hear(void *user, const char *line)
{
    (void)user;
    mj_str_printf(&said, "%s\n", line);
}

static MjCache *open_cache(void)
{
    MjCache *cache = NULL;
    MjError err = MJ_ERROR_INIT;

    if (mj_cache_open(&(MjCacheOptions){.roots = root, .lock_dir = locks, .warn = hear}, &cache, &err) != 0) fail_msg("%s", err.message);
    return cache;
}

static MjJit *open_jit(MjCache *cache, MjOnError on_error, bool require_warm, double timeout_s)
{
    MjJit *jit = NULL;
    MjError err = MJ_ERROR_INIT;
    MjJitOptions opt = {.device = device, .bucket = {MJ_BUCKET_EXACT, 1}, .jobs = 1, .cache = cache, .log = hear,
                        .on_error = on_error, .require_warm = require_warm, .timeout_s = timeout_s};

    assert_int_equal(mj_mode_find("dynamic", &opt.mode, NULL), 0);
    if (mj_jit_open(&opt, &jit, &err) != 0 || mj_jit_add_folder(jit, kernels, &err) != 0) fail_msg("%s", err.message);
    return jit;
}

static int get(MjJit *jit, MjError *err)
{
    const MjLaunchRecord *record;
    MjRequest req = {.values = {64, 10, 0, MJ_UNBOUND}};

    mj_error_clear(err);
    assert_int_equal(mj_jit_template(jit, "saxpy", &req.tmpl, NULL), 0);
    return mj_jit_get(jit, &req, &record, err);
}

static char *key_text(MjJit *jit)
{
    char *text = NULL;
    MjError err = MJ_ERROR_INIT;
    MjRequest req = {.values = {64, 10, 0, MJ_UNBOUND}};

    assert_int_equal(mj_jit_template(jit, "saxpy", &req.tmpl, NULL), 0);
    if (mj_jit_key_text(jit, &req, &text, &err) != 0) fail_msg("%s", err.message);
    return text;
}

static MjJitCounters counters(const MjJit *jit)
{
    MjJitCounters c;

    mj_jit_counters(jit, &c);
    return c;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int fresh(void **state)
{
    (void)state;
    (void)!mj_fs_remove_tree(root, NULL);
    mj_str_clear(&said);
    unsetenv("MOJIT_CC");
    return 0;
}

/* A driver that says that `cc1` does its work, and leaves it to the real one. */
static void use_driver(const char *cc1_bytes)
{
    write_text(cc1, cc1_bytes);
    unlink(script); /* a new file, so that what this process knows of the driver does not hold for it */
    char *text = mj_strdup_printf("#!/bin/sh\ncase \"$1\" in\n-print-prog-name=cc1) echo %s ;;\n*) exec cc \"$@\" ;;\nesac\n", cc1);
    write_text(script, text);
    free(text);
    assert_int_equal(chmod(script, 0700), 0);
    setenv("MOJIT_CC", script, 1);
}

static void keys_cover_the_compiler_behind_the_driver(void **state)
{
    (void)state;
    static const char *const bytes[] = {"one", "one", "two"};
    MjError err = MJ_ERROR_INIT;
    MjCache *cache = open_cache();

    for (int run = 0; run < 3; run++) {
        use_driver(bytes[run]);
        MjJit *jit = open_jit(cache, MJ_ON_ERROR_STOP, false, 30);
        if (get(jit, &err) != 0) fail_msg("%s", err.message);
        assert_int_equal(counters(jit).compiles, run == 1 ? 0 : 1);
        assert_int_equal(counters(jit).disk_hits, run == 1 ? 1 : 0);
        char *text = key_text(jit), *id = mj_cache_label_field(text, "compiler");
        assert_non_null(id);
        assert_null(strchr(id, '/'));
        assert_non_null(strstr(id, "cc1 "));
        free(id);
        free(text);
        mj_jit_close(jit);
    }
    mj_cache_close(cache);
}

static void build_ids_are_of_contents(void **state)
{
    (void)state;
    char path[2][200];

    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/file%d", base, i);
        write_text(path[i], "the same");
    }
    char *a = mj_build_id(path[0]), *b = mj_build_id(path[1]);
    assert_string_equal(a, b);
    write_text(path[1], "the sane");
    char *c = mj_build_id(path[1]);
    assert_string_not_equal(a, c);
    assert_null(mj_build_id("/nonexistent/file"));
    char *self = mj_build_id("/proc/self/exe"); /* an ELF file */
    assert_non_null(self);
    free(a);
    free(b);
    free(c);
    free(self);
}

/* Replaces the entry of the kernel by a whole one, checksum and all, that holds other bytes. */
static void replace_image(MjJit *jit, MjCache *cache, const void *image, size_t bytes)
{
    char *text = key_text(jit);

    assert_int_equal(mj_cache_put(cache, text, image, bytes, NULL, 0.1, NULL), 0);
    free(text);
}

static void corrupt_row(void *user, const char *mode, const char *tmpl, const MjCacheStats *row)
{
    assert_string_equal(mode, "dynamic");
    if (strcmp(tmpl, "saxpy") != 0) return;
    MjCacheStats *sum = user;
    sum->corrupt += row->corrupt;
    sum->hits += row->hits;
    sum->misses += row->misses;
    sum->compiles += row->compiles;
}

static void images_that_do_not_load_are_built_again(void **state)
{
    (void)state;
    static const char *const source = "int unrelated(void) { return 1; }\n";
    MjError err = MJ_ERROR_INIT;
    MjCompiler *cc = NULL;
    MjCompileResult other = {.image = NULL};
    MjCacheStats sum = {.hits = 0};

    assert_int_equal(mj_compiler_cc_open(&cc, &err), 0);
    assert_int_equal(cc->compile(cc, &(MjCompileRequest){.source = source, .source_name = "x", .target = mj_cpu_target(), .entry = "x"},
                                 &other, &err), 0);
    for (int kind = 0; kind < 2; kind++) { /* no ELF file at all; a sound one without the entry point */
        MjCache *cache = open_cache();
        MjJit *jit = open_jit(cache, MJ_ON_ERROR_STOP, false, 30);
        replace_image(jit, cache, kind == 0 ? "not an image" : other.image, kind == 0 ? 12 : other.image_bytes);
        if (get(jit, &err) != 0) fail_msg("%s", err.message);
        assert_int_equal(counters(jit).compiles, 1);
        assert_int_equal(counters(jit).corrupt_entries, 1);
        assert_int_equal(counters(jit).disk_hits, 0);
        assert_int_equal(counters(jit).misses, 1);
        assert_non_null(strstr(mj_str_text(&said), "cannot be loaded"));
        mj_jit_close(jit);
        jit = open_jit(cache, MJ_ON_ERROR_STOP, true, 30); /* and it has been replaced */
        if (get(jit, &err) != 0) fail_msg("%s", err.message);
        assert_int_equal(counters(jit).disk_hits, 1);
        replace_image(jit, cache, "not an image", 12);
        mj_jit_close(jit);
        jit = open_jit(cache, MJ_ON_ERROR_STOP, true, 30);
        assert_int_equal(get(jit, &err), MJ_ERR_MISSING);
        assert_non_null(strstr(err.message, "bad entry"));
        mj_jit_close(jit);
        mj_cache_close(cache);
    }
    MjCache *cache = open_cache();
    assert_int_equal(mj_cache_stats_each(cache, false, corrupt_row, &sum, NULL), 0);
    assert_int_equal(sum.corrupt, 4);
    assert_int_equal(sum.compiles, 2);
    assert_int_equal(sum.misses, 4);
    assert_int_equal(sum.hits, 2);
    mj_cache_close(cache);
    mj_compile_result_free(&other);
    cc->close(cc);
    mj_error_clear(&err);
}

/* A compiler whose images never load: an error that says so, never a loop. */
static void rebuilt_images_that_do_not_load_are_errors(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;
    MjCache *cache = open_cache();

    write_text(script, "#!/bin/sh\ncase \"$1\" in -print*) exit 1 ;; esac\nfor last in \"$@\"; do :; done\necho broken >\"$last\"\n");
    assert_int_equal(chmod(script, 0700), 0);
    setenv("MOJIT_CC", script, 1);
    for (int run = 0; run < 2; run++) { /* the second finds the first one's entry */
        MjJit *jit = open_jit(cache, MJ_ON_ERROR_STOP, false, 30);
        assert_int_equal(get(jit, &err), MJ_ERR_DATA);
        assert_non_null(strstr(err.message, "saxpy"));
        assert_non_null(strstr(err.message, "cannot be loaded"));
        assert_int_equal(counters(jit).compiles, 1);
        assert_int_equal(counters(jit).corrupt_entries, run);
        mj_jit_close(jit);
    }
    mj_error_clear(&err);
    mj_cache_close(cache);
}

static void a_bad_entry_counts_once(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;
    MjCache *cache = open_cache();
    MjJit *jit = open_jit(cache, MJ_ON_ERROR_STOP, false, 30);
    char *text = key_text(jit), hex[33], path[300];

    mj_cache_key_hex(mj_cache_key(text), hex);
    assert_int_equal(get(jit, &err), 0);
    mj_jit_close(jit);
    snprintf(path, sizeof path, "%s/v%d/%.2s/%s.mj", root, MJ_CACHE_FORMAT, hex, hex);
    write_text(path, "junk");
    jit = open_jit(cache, MJ_ON_ERROR_STOP, false, 30);
    mj_str_clear(&said);
    assert_int_equal(get(jit, &err), 0);
    assert_int_equal(counters(jit).corrupt_entries, 1);
    assert_int_equal(counters(jit).compiles, 1);
    char *first = strstr(mj_str_text(&said), "is not used");
    assert_non_null(first);
    assert_null(strstr(first + 1, "is not used")); /* one problem, one warning */
    free(text);
    mj_jit_close(jit);
    mj_cache_close(cache);
}

/* What compiles that were killed left in TMPDIR goes after a day; what is young may be in use. */
static void left_over_folders_go(void **state)
{
    (void)state;
    char tmp[100], path[3][200];
    MjError err = MJ_ERROR_INIT;
    MjJit *jit = open_jit(NULL, MJ_ON_ERROR_STOP, false, 30);
    struct timespec old[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};

    snprintf(tmp, sizeof tmp, "%s/tmp", base);
    assert_int_equal(mkdir(tmp, 0700), 0);
    static const char *const names[] = {"mojit-cc-old", "mojit-cc-new", "other-old"};
    for (int i = 0; i < 3; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", tmp, names[i]);
        assert_int_equal(mkdir(path[i], 0700), 0);
        if (i != 1) assert_int_equal(utimensat(AT_FDCWD, path[i], old, 0), 0);
    }
    setenv("TMPDIR", tmp, 1);
    if (get(jit, &err) != 0) fail_msg("%s", err.message);
    unsetenv("TMPDIR");
    assert_int_equal(access(path[0], F_OK), -1);
    assert_int_equal(access(path[1], F_OK), 0);
    assert_int_equal(access(path[2], F_OK), 0);
    mj_jit_close(jit);
}

/* It hangs on the first question; asked once a run, not once a kernel. */
static void a_hanging_compiler_is_killed(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;
    MjJit *jit;

    write_text(script, "#!/bin/sh\necho x >>\"$0.count\"\nsleep 60 & wait\n");
    assert_int_equal(chmod(script, 0700), 0);
    setenv("MOJIT_CC", script, 1);
    jit = open_jit(NULL, MJ_ON_ERROR_STOP, false, 0.2);
    for (int twice = 0; twice < 2; twice++) {
        assert_int_equal(get(jit, &err), MJ_ERR_COMPILE);
        assert_non_null(strstr(err.message, "jit.timeout"));
    }
    char count[120], *text = NULL;
    size_t n = 0;
    snprintf(count, sizeof count, "%s.count", script);
    assert_int_equal(mj_fs_read(count, &text, &n, NULL), 0);
    assert_int_equal(n, 2); /* "x\n" */
    free(text);
    mj_error_clear(&err);
    mj_jit_close(jit);
}

static void nvrtc_keeps_its_limit(void **state)
{
    (void)state;
    MjCompiler *nvrtc = NULL;
    MjError err = MJ_ERROR_INIT;
    MjCompileResult r = {.image = NULL};
    MjStr text = MJ_STR_INIT;
    const char *identity = "", *flags;

    if (mj_compiler_nvrtc_open(&nvrtc, &err) != 0 || nvrtc->identify(nvrtc, "sm_90a", &identity, &flags, &err) != 0 ||
        strncmp(identity, "NVRTC 13", 8) != 0) {
        print_message("skipped: needs NVRTC 13, which can be stopped; %s%s\n", identity, err.message);
        mj_error_clear(&err);
        skip();
    }
    mj_str_puts(&text, "extern \"C\" __global__ void k(float *x) {\n"); /* seconds of work */
    for (int i = 0; i < 20000; i++) mj_str_printf(&text, "x[%d] = x[%d] * %d.5f + x[threadIdx.x];\n", i, i + 1, i);
    mj_str_puts(&text, "}\n");
    int rc = nvrtc->compile(nvrtc, &(MjCompileRequest){.source = mj_str_text(&text), .source_name = "k.cu", .target = "sm_90a", .entry = "k",
                                                       .timeout_s = 0.05}, &r, &err);
    assert_int_equal(rc, MJ_ERR_COMPILE);
    assert_non_null(strstr(err.message, "jit.timeout"));
    mj_error_clear(&err);
    mj_str_free(&text);
    nvrtc->close(nvrtc);
}

/* One image holds all entry points, with the numbers of the largest, whether they were compiled one by one or side by side. */
static void nvrtc_compiles_entry_points_side_by_side(void **state)
{
    (void)state;
    MjCompiler *nvrtc = NULL;
    MjError err = MJ_ERROR_INIT;
    MjCompileResult r[2] = {{.image = NULL}, {.image = NULL}};
    const char *identity = "", *flags = "";
    static const char source[] = "extern \"C\" __global__ void first_of_two(float *x) { x[threadIdx.x] *= 2.0f; }\n"
                                 "extern \"C\" __global__ void second_of_two(double *x) { x[threadIdx.x] = x[0] / x[threadIdx.x]; }\n";

    if (mj_compiler_nvrtc_open(&nvrtc, &err) != 0) {
        print_message("skipped: %s\n", err.message);
        mj_error_clear(&err);
        skip();
    }
    assert_int_equal(nvrtc->identify(nvrtc, "sm_90a", &identity, &flags, &err), 0);
    if (strncmp(identity, "NVRTC 13", 8) == 0) assert_non_null(strstr(flags, "--no-cache")); /* there is one cache, ours */
    for (int i = 0; i < 2; i++) {
        const MjCompileRequest req = {.source = source, .source_name = "k.cu", .target = "sm_90a", .entry = "first_of_two", .threads = i + 1};
        assert_int_equal(nvrtc->compile(nvrtc, &req, &r[i], &err), 0);
        assert_non_null(memmem(r[i].image, r[i].image_bytes, "first_of_two", 12));
        assert_non_null(memmem(r[i].image, r[i].image_bytes, "second_of_two", 13));
    }
    assert_int_equal(r[0].registers, r[1].registers);
    assert_int_equal(r[0].spill_bytes, r[1].spill_bytes);
    assert_true(r[0].cpu_seconds > 0);
    for (int i = 0; i < 2; i++) mj_compile_result_free(&r[i]);
    nvrtc->close(nvrtc);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(build_ids_are_of_contents, fresh),
        cmocka_unit_test_setup(keys_cover_the_compiler_behind_the_driver, fresh),
        cmocka_unit_test_setup(images_that_do_not_load_are_built_again, fresh),
        cmocka_unit_test_setup(rebuilt_images_that_do_not_load_are_errors, fresh),
        cmocka_unit_test_setup(a_bad_entry_counts_once, fresh),
        cmocka_unit_test_setup(a_hanging_compiler_is_killed, fresh),
        cmocka_unit_test_setup(left_over_folders_go, fresh),
        cmocka_unit_test_setup(nvrtc_keeps_its_limit, fresh),
        cmocka_unit_test_setup(nvrtc_compiles_entry_points_side_by_side, fresh),
    };
    MjCompiler *cc = NULL;
    MjError err = MJ_ERROR_INIT;
    MjDeviceOptions opt = {.threads = 1};

    if (argc != 2) return 99;
    kernels = argv[1];
    if (mj_compiler_cc_open(&cc, &err) != 0) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    cc->close(cc);
    snprintf(base, sizeof base, "/tmp/mojit-unit-build-XXXXXX");
    if (!mkdtemp(base) || mj_device_open("cpu", &opt, &device, NULL) != 0) return 99;
    snprintf(root, sizeof root, "%s/root", base);
    snprintf(locks, sizeof locks, "%s/locks", base);
    snprintf(script, sizeof script, "%s/driver", base);
    snprintf(cc1, sizeof cc1, "%s/cc1", base);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    mj_device_close(device);
    mj_str_free(&said);
    (void)!mj_fs_remove_tree(base, NULL);
    return rc;
}
