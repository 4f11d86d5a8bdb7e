/* runtime/base: errors, strings, files, nearest names, clocks, the pool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"
#include "runtime/base/pool.h"
#include "runtime/base/str.h"

static char folder[64]; /* scratch of this process */

static void error_fills_and_returns_the_code(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;

    assert_int_equal(mj_error(&err, MJ_ERR_DATA, "bad %d", 7), MJ_ERR_DATA);
    assert_int_equal(err.code, MJ_ERR_DATA);
    assert_string_equal(err.message, "bad 7");
    mj_error_set_log(&err, "line 1\nline 2\nrest", 13);
    assert_string_equal(err.log, "line 1\nline 2");
    assert_int_equal(mj_error_context(&err, MJ_ERR_IO, "file '%s'", "x.ini"), MJ_ERR_DATA);
    assert_string_equal(err.message, "file 'x.ini': bad 7");
    mj_error_errno(&err, MJ_ERR_IO, ENOENT, "cannot open '%s'", "y");
    assert_string_equal(err.message, "cannot open 'y': No such file or directory");
    assert_null(err.log); /* the older log went with the older message */
    mj_error_clear(&err);
    assert_int_equal(err.code, 0);
    assert_int_equal(mj_error(NULL, MJ_ERR_IO, "ignored"), MJ_ERR_IO);
    assert_int_equal(mj_error_context(NULL, MJ_ERR_IO, "ignored"), MJ_ERR_IO);
}

static void error_message_may_quote_itself_and_is_cut(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;
    char longest[4000];

    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    mj_error(&err, MJ_ERR_DATA, "inner");
    mj_error(&err, MJ_ERR_IO, "outer of %s", err.message);
    assert_string_equal(err.message, "outer of inner");
    mj_error_context(&err, 0, "%s", longest);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    mj_error(&err, MJ_ERR_IO, "%s", longest);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    mj_error_context(&err, 0, "where");
    assert_memory_equal(err.message, "where: xxx", 10);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

static void exit_statuses(void **state)
{
    (void)state;
    assert_int_equal(mj_exit_status(0), 0);
    assert_int_equal(mj_exit_status(MJ_ERR_USAGE), 2);
    assert_int_equal(mj_exit_status(MJ_ERR_MISSING), 3);
    assert_int_equal(mj_exit_status(MJ_ERR_INTERRUPTED), 130);
    assert_int_equal(mj_exit_status(MJ_ERR_NUMERIC), 1);
    assert_int_equal(mj_exit_status(MJ_ERR_REFUSED), 1);
}

static void str_grows(void **state)
{
    (void)state;
    MjStr s = MJ_STR_INIT;
    size_t want = 0;

    assert_string_equal(mj_str_text(&s), "");
    for (int i = 0; i < 1000; i++) {
        mj_str_printf(&s, "%d,", i);
        want += (size_t)snprintf(NULL, 0, "%d,", i);
    }
    assert_int_equal(s.len, want);
    assert_memory_equal(s.data, "0,1,2,3,", 8);
    assert_string_equal(s.data + s.len - 4, "999,");
    mj_str_append(&s, "a\0b", 3);
    assert_int_equal(s.len, want + 3);
    assert_int_equal(s.data[s.len], 0);
    mj_str_clear(&s);
    assert_int_equal(s.len, 0);
    mj_str_puts(&s, "kept");
    char *taken = mj_str_take(&s);
    assert_string_equal(taken, "kept");
    assert_null(s.data);
    free(taken);
    mj_str_free(&s);
    char *one = mj_strdup_printf("%s-%04d", "a", 12);
    assert_string_equal(one, "a-0012");
    free(one);
}

static void fs_round_trip(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;
    char *path = mj_strdup_printf("%s/a/b/c/file", folder), *dir = mj_strdup_printf("%s/a/b/c", folder);
    char *data = NULL, **names = NULL;
    size_t len = 0, n = 0;

    assert_int_equal(mj_fs_make_dirs(dir, 0755, &err), 0);
    assert_int_equal(mj_fs_make_dirs(dir, 0755, &err), 0); /* again is fine */
    assert_true(mj_fs_is_dir(dir));
    assert_false(mj_fs_exists(path));
    assert_int_equal(mj_fs_write_atomic(path, "one\0two", 7, &err), 0);
    assert_int_equal(mj_fs_write_atomic(path, "three", 5, &err), 0);
    assert_int_equal(mj_fs_read(path, &data, &len, &err), 0);
    assert_int_equal(len, 5);
    assert_string_equal(data, "three");
    assert_int_equal(mj_fs_list(dir, &names, &n, &err), 0);
    assert_int_equal(n, 1); /* no temporary is left */
    assert_string_equal(names[0], "file");
    mj_fs_list_free(names, n);
    free(data);
    free(path);
    free(dir);
}

static void fs_list_is_sorted_and_remove_tree_does_not_follow_links(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;
    char *dir = mj_strdup_printf("%s/tree", folder), *outside = mj_strdup_printf("%s/outside", folder);
    char **names = NULL;
    size_t n = 0;

    assert_int_equal(mj_fs_write_atomic(outside, "x", 1, &err), 0);
    assert_int_equal(mj_fs_make_dirs(dir, 0755, &err), 0);
    for (const char *const *name = (const char *const[]){"b", "a", "B", "10", "9", NULL}; *name; name++) {
        char *path = mj_strdup_printf("%s/%s", dir, *name);
        assert_int_equal(mj_fs_write_atomic(path, *name, 1, &err), 0);
        free(path);
    }
    char *link = mj_strdup_printf("%s/link", dir);
    assert_int_equal(symlink(folder, link), 0);
    assert_int_equal(mj_fs_list(dir, &names, &n, &err), 0);
    assert_int_equal(n, 6);
    const char *want[] = {"10", "9", "B", "a", "b", "link"};
    for (size_t i = 0; i < n; i++) assert_string_equal(names[i], want[i]);
    mj_fs_list_free(names, n);
    assert_int_equal(mj_fs_remove_tree(dir, &err), 0);
    assert_false(mj_fs_exists(dir));
    assert_true(mj_fs_exists(outside));
    assert_int_equal(mj_fs_remove_tree(dir, &err), 0); /* gone already: fine */
    free(link);
    free(dir);
    free(outside);
}

static void fs_failures_name_the_path_and_leave_outputs_alone(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;
    char *data = (char *)0x1, **names = (char **)0x1;
    size_t len = 77, n = 77;
    char *missing = mj_strdup_printf("%s/missing/file", folder);

    assert_int_equal(mj_fs_read(missing, &data, &len, &err), MJ_ERR_IO);
    assert_non_null(strstr(err.message, missing));
    assert_ptr_equal(data, (char *)0x1);
    assert_int_equal(len, 77);
    assert_int_equal(mj_fs_read(folder, &data, &len, &err), MJ_ERR_IO);
    assert_int_equal(mj_fs_read_input(missing, &data, &len, &err), MJ_ERR_USAGE);
    assert_int_equal(mj_fs_read_input(folder, &data, &len, &err), MJ_ERR_USAGE);
    assert_int_equal(mj_fs_input_code(ENOTDIR), MJ_ERR_USAGE);
    assert_int_equal(mj_fs_input_code(EACCES), MJ_ERR_IO);
    assert_non_null(strstr(err.message, "is a folder"));
    assert_int_equal(mj_fs_write_atomic(missing, "x", 1, &err), MJ_ERR_IO);
    assert_int_equal(mj_fs_list(missing, &names, &n, &err), MJ_ERR_IO);
    assert_int_equal(n, 77);
    char *file = mj_strdup_printf("%s/plain", folder), *below = mj_strdup_printf("%s/plain/below", folder);
    assert_int_equal(mj_fs_write_atomic(file, "x", 1, &err), 0);
    assert_int_equal(mj_fs_make_dirs(below, 0755, &err), MJ_ERR_IO);
    assert_non_null(strstr(err.message, "plain"));
    assert_int_equal(mj_fs_write_atomic(folder, "x", 1, &err), MJ_ERR_IO); /* a folder cannot be replaced */
    free(missing);
    free(file);
    free(below);
}

static void nearest_suggests(void **state)
{
    (void)state;
    const char *const modes[] = {"static", "dynamic", "nocompile", "tiered"};
    const char *const keys[] = {"model.depth", "model.experts", "train.steps", "jit.bucket"};

    assert_string_equal(mj_nearest("statci", modes, 4), "static");
    assert_string_equal(mj_nearest("Dynamic", modes, 4), "dynamic");
    assert_string_equal(mj_nearest("no-compile", modes, 4), "nocompile");
    assert_string_equal(mj_nearest("tier", modes, 4), "tiered");
    assert_string_equal(mj_nearest("model.expert", keys, 4), "model.experts");
    assert_null(mj_nearest("xyzzy", modes, 4));
    assert_null(mj_nearest("", modes, 4));
    assert_null(mj_nearest("static", modes, 0));
}

static void clocks(void **state)
{
    (void)state;
    char text[32];
    uint64_t a = mj_clock_ns(), b = mj_clock_ns();

    assert_true(b >= a);
    mj_clock_iso8601(text);
    assert_int_equal(strlen(text), 20);
    assert_int_equal(text[10], 'T');
    assert_int_equal(text[19], 'Z');
}

typedef struct PoolProbe {
    int ran[6000];         /* times each task ran; written by that task alone */
    atomic_int busy[16];   /* calls inside per worker */
    atomic_int clashes;
    int threads;
} PoolProbe;

static void probe_task(void *user, int task, int worker)
{
    PoolProbe *p = user;

    if (worker < 0 || worker >= p->threads || atomic_fetch_add(&p->busy[worker], 1) != 0) atomic_fetch_add(&p->clashes, 1);
    p->ran[task]++;
    atomic_fetch_sub(&p->busy[worker], 1);
}

static void pool_runs_every_task_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 9; threads += 2) {
        MjPool *pool = mj_pool_open(threads);
        assert_int_equal(mj_pool_threads(pool), threads);
        for (int tasks = 1; tasks < 6000; tasks = tasks * 3 + 1) {
            PoolProbe *probe = mj_xcalloc(1, sizeof *probe);
            probe->threads = threads;
            for (int run = 0; run < 40; run++) {
                mj_pool_run(pool, tasks, probe_task, probe);
                /* what the tasks wrote is visible here, and what is written here is visible to the next run's */
                for (int t = 0; t < tasks; t++) {
                    assert_int_equal(probe->ran[t], 1);
                    probe->ran[t] = 0;
                }
            }
            assert_int_equal(atomic_load(&probe->clashes), 0);
            free(probe);
        }
        mj_pool_run(pool, 0, probe_task, NULL);
        mj_pool_close(pool);
    }
    mj_pool_close(NULL);
}

static void pool_wakes_sleepers(void **state)
{
    (void)state;
    MjPool *pool = mj_pool_open(3);

    for (int i = 0; i < 20; i++) {
        PoolProbe probe = {.threads = 3};
        usleep(2000); /* longer than workers spin */
        mj_pool_run(pool, 50, probe_task, &probe);
        for (int t = 0; t < 50; t++) assert_int_equal(probe.ran[t], 1);
    }
    mj_pool_close(pool);
}

static void pool_opens_with_all_cores(void **state)
{
    (void)state;
    MjPool *pool = mj_pool_open(0);
    assert_true(mj_pool_cores() >= 1);
    assert_int_equal(mj_pool_threads(pool), mj_pool_cores());
    mj_pool_close(pool);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "unit_base.XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return mj_fs_remove_tree(folder, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_fills_and_returns_the_code),
        cmocka_unit_test(error_message_may_quote_itself_and_is_cut),
        cmocka_unit_test(exit_statuses),
        cmocka_unit_test(str_grows),
        cmocka_unit_test(fs_round_trip),
        cmocka_unit_test(fs_list_is_sorted_and_remove_tree_does_not_follow_links),
        cmocka_unit_test(fs_failures_name_the_path_and_leave_outputs_alone),
        cmocka_unit_test(nearest_suggests),
        cmocka_unit_test(clocks),
        cmocka_unit_test(pool_runs_every_task_once),
        cmocka_unit_test(pool_wakes_sleepers),
        cmocka_unit_test(pool_opens_with_all_cores),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
