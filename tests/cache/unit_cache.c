/* The cache on disk: entries, roots, refusals, corruption, interrupted publishing, locks between processes, pruning,
 * statistics. Asserts counts and bytes, never clocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cache/cache.h"
#include "cache/explain.h"
#include "cache/ship.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"

enum { IMAGE_BYTES = 3000, CORRUPTIONS = 10000, RACERS = 16 };

static char base[64];
static char root[128], second[128], locks[128];
static unsigned char image[IMAGE_BYTES];
static int warnings;
static char last_warning[2048];

static void warn(void *user, const char *line)
{
    (void)user;
    warnings++;
    snprintf(last_warning, sizeof last_warning, "%s", line);
}

static MjCache *open_roots(const char *roots)
{
    MjCache *cache = NULL;
    MjError err = MJ_ERROR_INIT;
    MjCacheOptions opt = {.roots = roots, .lock_dir = locks, .warn = warn};

    if (mj_cache_open(&opt, &cache, &err) != 0) fail_msg("%s", err.message);
    return cache;
}

static void label_of(int i, char *buf, size_t cap)
{
    snprintf(buf, cap, "abi: 1\ntemplate: t%d\nspec: t%d target=cpu:baseline K=%d\n", i, i, i);
}

static void put(MjCache *cache, int i)
{
    char label[128];
    MjError err = MJ_ERROR_INIT;

    label_of(i, label, sizeof label);
    if (mj_cache_put(cache, label, image, IMAGE_BYTES - (size_t)(i % 7), "log", 0.5, &err) != 0) fail_msg("%s", err.message);
}

/* Looks entry i up; a hit must hold exactly what put() wrote. */
static MjCacheResult get(MjCache *cache, int i)
{
    char label[128];
    MjCacheEntry e = {.memory = NULL};

    label_of(i, label, sizeof label);
    MjCacheResult r = mj_cache_get(cache, mj_cache_key(label), &e);
    if (r == MJ_CACHE_HIT) {
        assert_string_equal(e.label, label);
        assert_string_equal(e.log, "log");
        assert_int_equal(e.image_bytes, IMAGE_BYTES - i % 7);
        assert_memory_equal(e.image, image, e.image_bytes);
        assert_true(e.compile_s == 0.5);
        mj_cache_entry_free(&e);
    }
    return r;
}

static void entry_path(int i, char *path, size_t cap)
{
    char label[128], hex[33];

    label_of(i, label, sizeof label);
    mj_cache_key_hex(mj_cache_key(label), hex);
    snprintf(path, cap, "%s/v%d/%.2s/%s.mj", root, MJ_CACHE_FORMAT, hex, hex);
}

static void overwrite(const char *path, const void *bytes, size_t len)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static int fresh(void **state)
{
    (void)state;
    (void)!mj_fs_remove_tree(root, NULL);
    (void)!mj_fs_remove_tree(second, NULL);
    warnings = 0;
    return 0;
}

static void round_trip(void **state)
{
    (void)state;
    MjCache *cache = open_roots(root);

    assert_int_equal(get(cache, 1), MJ_CACHE_MISS);
    put(cache, 1);
    put(cache, 2);
    assert_int_equal(get(cache, 1), MJ_CACHE_HIT);
    assert_int_equal(get(cache, 2), MJ_CACHE_HIT);
    mj_cache_close(cache);
    cache = open_roots(root);
    assert_int_equal(get(cache, 2), MJ_CACHE_HIT);
    assert_int_equal(get(cache, 3), MJ_CACHE_MISS);
    assert_int_equal(warnings, 0);
    mj_cache_close(cache);
}

static void first_root_is_written_all_are_read(void **state)
{
    (void)state;
    char list[300];
    MjCache *cache = open_roots(root);

    put(cache, 1);
    mj_cache_close(cache);
    snprintf(list, sizeof list, "%s:%s", second, root);
    cache = open_roots(list);
    assert_int_equal(get(cache, 1), MJ_CACHE_HIT);
    put(cache, 2);
    mj_cache_close(cache);
    cache = open_roots(root);
    assert_int_equal(get(cache, 2), MJ_CACHE_MISS);
    mj_cache_close(cache);
    MjError err = MJ_ERROR_INIT;
    assert_int_equal(mj_cache_open(&(MjCacheOptions){.roots = "/tmp::/tmp"}, &cache, &err), MJ_ERR_USAGE);
}

static void what_others_can_write_is_refused(void **state)
{
    (void)state;
    char path[300];
    MjCache *cache = open_roots(root);

    put(cache, 1);
    entry_path(1, path, sizeof path);
    assert_int_equal(chmod(path, 0664), 0);
    assert_int_equal(get(cache, 1), MJ_CACHE_CORRUPT);
    put(cache, 1);
    assert_int_equal(get(cache, 1), MJ_CACHE_HIT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/etc/hostname", path), 0);
    assert_int_equal(get(cache, 1), MJ_CACHE_CORRUPT);
    mj_cache_close(cache);
    assert_int_equal(chmod(root, 0777), 0);
    warnings = 0;
    cache = open_roots(root);
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(last_warning, "everybody"));
    assert_non_null(mj_cache_root_problem(cache, 0));
    assert_int_equal(get(cache, 1), MJ_CACHE_MISS);
    assert_true(mj_cache_put(cache, "a: b\n", image, 10, NULL, 0, NULL) < 0);
    mj_cache_close(cache);
    chmod(root, 0700);
}

static void corruptions_are_never_loaded(void **state)
{
    (void)state;
    char path[300], other[300], *good = NULL, *swap = NULL;
    size_t len = 0, swap_len = 0;
    MjCache *cache = open_roots(root);
    unsigned seed = 20240607;

    put(cache, 1);
    put(cache, 2);
    entry_path(1, path, sizeof path);
    entry_path(2, other, sizeof other);
    assert_int_equal(mj_fs_read(path, &good, &len, NULL), 0);
    assert_int_equal(mj_fs_read(other, &swap, &swap_len, NULL), 0);
    unsigned char *bad = mj_xmalloc(len + 64);
    for (int n = 0; n < CORRUPTIONS; n++) {
        size_t bad_len = len, at = (size_t)rand_r(&seed) % len;
        memcpy(bad, good, len);
        memset(bad + len, 0, 64);
        switch (n % 6) {
        case 0: bad[at] ^= (unsigned char)(1 << rand_r(&seed) % 8); break;
        case 1: bad_len = at; break;
        case 2: bad_len = 0; break;
        case 3: bad_len = len + 1 + at % 64; break;
        case 4: bad[8] ^= (unsigned char)(1 + rand_r(&seed) % 255); break; /* format version */
        default:
            memset(bad + at, 0xff, at + 16 < len ? 16 : len - at);
            if (memcmp(bad, good, len) == 0) bad[at] ^= 1;
        }
        overwrite(path, bad, bad_len);
        if (get(cache, 1) != MJ_CACHE_CORRUPT) fail_msg("corruption %d at %zu of %zu bytes was not seen", n, at, len);
    }
    overwrite(path, swap, swap_len); /* whole, but of another key */
    assert_int_equal(get(cache, 1), MJ_CACHE_CORRUPT);
    put(cache, 1);
    assert_int_equal(get(cache, 1), MJ_CACHE_HIT);
    assert_int_equal(get(cache, 2), MJ_CACHE_HIT);
    free(bad);
    free(good);
    free(swap);
    mj_cache_close(cache);
}

static void interrupted_publishing(void **state)
{
    (void)state;
    static const char *const when[] = {"before", "after"};
    static const char *const calls[] = {"open", "chmod", "write", "fsync", "close", "rename"};
    static const char *const actions[] = {"kill", "ENOSPC", "EIO", "EACCES", "EINTR", "short"};
    int killed = 0, failed = 0;

    for (int i = 0; i < 72; i++) {
        char point[64];
        int status = 0;
        snprintf(point, sizeof point, "%s:%s:%s", when[i % 2], calls[i / 2 % 6], actions[i / 12]);
        fresh(NULL);
        MjCache *cache = open_roots(root);
        put(cache, 1);
        put(cache, 2);
        pid_t pid = fork();
        if (pid == 0) { /* replaces entry 1 and publishes entry 3, interrupted */
            char label[128];
            int bad = 0;
            setenv("MOJIT_FAILPOINT", point, 1);
            for (int e = 1; e <= 3; e += 2) {
                label_of(e, label, sizeof label);
                bad |= mj_cache_put(cache, label, image, IMAGE_BYTES - (size_t)(e % 7), "log", 0.5, NULL) != 0;
            }
            _exit(bad);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        killed += WIFSIGNALED(status);
        failed += WIFEXITED(status) && WEXITSTATUS(status) == 1;
        if (get(cache, 1) != MJ_CACHE_HIT || get(cache, 2) != MJ_CACHE_HIT) fail_msg("%s lost a published entry", point);
        MjCacheResult third = get(cache, 3);
        if (third == MJ_CACHE_CORRUPT) fail_msg("%s left a bad entry", point);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && third != MJ_CACHE_HIT) fail_msg("%s: put said 0, no entry", point);
        put(cache, 3);
        assert_int_equal(get(cache, 3), MJ_CACHE_HIT);
        mj_cache_close(cache);
    }
    assert_int_equal(killed, 12);
    assert_true(failed >= 15); /* every call failing in each of three ways, but those whose failure is not the entry's */
}

static void *racer_thread(void *arg)
{
    MjCache *cache = arg;

    for (int i = 0; i < 40; i++) {
        put(cache, i % 5);
        MjCacheResult r = get(cache, (i + 2) % 5);
        if (r == MJ_CACHE_CORRUPT) return cache;
        mj_cache_count(cache, "dynamic", "t", &(MjCacheStats){.hits = 1});
    }
    return NULL;
}

static void add_row(void *user, const char *mode, const char *tmpl, const MjCacheStats *row)
{
    assert_string_equal(mode, "dynamic");
    assert_string_equal(tmpl, "t");
    *(uint64_t *)user += row->hits;
}

static void threads_share_a_cache(void **state)
{
    (void)state;
    pthread_t threads[8];
    void *bad = NULL;
    uint64_t hits = 0;
    MjCache *cache = open_roots(root);

    for (int i = 0; i < 8; i++) assert_int_equal(pthread_create(&threads[i], NULL, racer_thread, cache), 0);
    for (int i = 0; i < 8; i++) {
        void *r = NULL;
        pthread_join(threads[i], &r);
        if (r) bad = r;
    }
    assert_null(bad);
    mj_cache_close(cache);
    cache = open_roots(root);
    assert_int_equal(mj_cache_stats_each(cache, false, add_row, &hits, NULL), 0);
    assert_int_equal(hits, 8 * 40);
    mj_cache_close(cache);
}

static void add_hits(void *user, const char *mode, const char *tmpl, const MjCacheStats *row)
{
    (void)mode;
    (void)tmpl;
    *(uint64_t *)user += row->hits;
}

/* Past a megabyte the rows of old runs are added up; nothing is lost, and the last run is still the last run. */
static void statistics_are_compacted(void **state)
{
    (void)state;
    char path[200], mode[32];
    struct stat st;
    uint64_t all = 0, last = 0, before = 0;
    snprintf(path, sizeof path, "%s/stats", root);

    for (int run = 0; run < 8; run++) {
        MjCache *cache = open_roots(root);
        for (int i = 0; i < 3000; i++) {
            snprintf(mode, sizeof mode, "mode-with-a-long-name-%d", i);
            mj_cache_count(cache, mode, "t", &(MjCacheStats){.hits = (uint64_t)run + 1});
            before += (uint64_t)run + 1;
        }
        mj_cache_close(cache);
        if (run == 0) { /* the time of a run has seconds: make the first one older */
            char *text = NULL;
            size_t n = 0;
            assert_int_equal(mj_fs_read(path, &text, &n, NULL), 0);
            for (char *at = text; *at; at = strchr(at, '\n') + 1) at[0] = '0';
            overwrite(path, text, n);
            free(text);
        }
    }
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size < 1 << 20);
    MjCache *cache = open_roots(root);
    assert_int_equal(mj_cache_stats_each(cache, false, add_hits, &all, NULL), 0);
    assert_int_equal(mj_cache_stats_each(cache, true, add_hits, &last, NULL), 0);
    assert_int_equal(all, before);
    assert_true(last > 0 && last < all);
    mj_cache_close(cache);
}

static void one_build_among_processes(void **state)
{
    (void)state;
    char label[128], count[200], *bytes = NULL;
    size_t n = 0;

    snprintf(count, sizeof count, "%s/builds", base);
    unlink(count);
    label_of(1, label, sizeof label);
    for (int i = 0; i < RACERS; i++) {
        if (fork() != 0) continue;
        MjCache *cache = open_roots(root);
        MjCacheLock lock;
        if (get(cache, 1) != MJ_CACHE_HIT) {
            bool held = mj_cache_lock(cache, mj_cache_key(label), 60, &lock);
            if (get(cache, 1) != MJ_CACHE_HIT) {
                int fd = open(count, O_WRONLY | O_CREAT | O_APPEND, 0600);
                (void)!write(fd, "x", 1);
                close(fd);
                usleep(50000); /* a compile that takes a while */
                put(cache, 1);
            }
            if (held) mj_cache_unlock(&lock);
        }
        int ok = get(cache, 1) == MJ_CACHE_HIT;
        mj_cache_close(cache);
        _exit(!ok);
    }
    for (int i = 0; i < RACERS; i++) {
        int status = 0;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(mj_fs_read(count, &bytes, &n, NULL), 0);
    assert_int_equal(n, 1);
    free(bytes);
}

/* A child takes the lock and stops or dies; true when the lock could then be had. */
static bool lock_after(int sig, double wait_s)
{
    int ready[2], status = 0;
    char byte = 0;
    MjCache *cache = open_roots(root);
    MjCacheKey key = mj_cache_key("k: 1\n");
    MjCacheLock lock;

    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (!mj_cache_lock(cache, key, 1, &lock)) _exit(1);
        (void)!write(ready[1], "r", 1);
        for (;;) pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    kill(pid, sig);
    if (sig == SIGKILL) waitpid(pid, &status, 0);
    bool held = mj_cache_lock(cache, key, wait_s, &lock);
    if (held) mj_cache_unlock(&lock);
    if (sig != SIGKILL) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    close(ready[0]);
    close(ready[1]);
    mj_cache_close(cache);
    return held;
}

static void dead_and_stopped_holders(void **state)
{
    (void)state;
    assert_true(lock_after(SIGKILL, 0));    /* released at once by the kernel */
    assert_false(lock_after(SIGSTOP, 0.2)); /* returns when the wait is over */
}

static void pruning_removes_the_oldest(void **state)
{
    (void)state;
    char path[300];
    MjCacheInfo info, removed;
    MjError err = MJ_ERROR_INIT;
    MjCache *cache = open_roots(root);

    for (int i = 0; i < 10; i++) {
        put(cache, i);
        entry_path(i, path, sizeof path);
        struct timespec times[2] = {{.tv_sec = time(NULL) - 100000 + i * 1000}, {.tv_sec = time(NULL) - 100000 + i * 1000}};
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    }
    assert_int_equal(get(cache, 0), MJ_CACHE_HIT); /* the oldest is used again */
    assert_int_equal(mj_cache_info(cache, 0, &info, &err), 0);
    assert_int_equal(info.entries, 10);
    assert_int_equal(mj_cache_prune(cache, info.bytes / 2 + 200, &removed, &err), 0);
    assert_int_equal(removed.entries, 5);
    assert_int_equal(get(cache, 0), MJ_CACHE_HIT);
    for (int i = 1; i < 6; i++) assert_int_equal(get(cache, i), MJ_CACHE_MISS);
    for (int i = 6; i < 10; i++) assert_int_equal(get(cache, i), MJ_CACHE_HIT);
    assert_int_equal(mj_cache_clear(cache, &removed, &err), 0);
    assert_int_equal(removed.entries, 5);
    mj_cache_close(cache);
}

/* As if entry i was used so many seconds from now: times of use go up only. */
static void use_at(int i, int seconds)
{
    char path[300];
    struct timespec at = {.tv_sec = time(NULL) + seconds}, times[2] = {at, at};

    entry_path(i, path, sizeof path);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* 60 entries into a cache for 20: in all folders together, whatever share of it one folder has. */
static void publishing_keeps_the_limit(void **state)
{
    (void)state;
    MjCache *cache = NULL;
    MjCacheInfo info;
    char usage[200];
    enum { LIMIT = 20 * (IMAGE_BYTES + 200) };
    MjCacheOptions opt = {.roots = root, .lock_dir = locks, .warn = warn, .max_bytes = LIMIT};

    assert_int_equal(mj_cache_open(&opt, &cache, NULL), 0);
    for (int i = 0; i < 60; i++) {
        put(cache, i);
        use_at(i, 10 * i); /* a second's difference is the least that is told apart */
        assert_int_equal(mj_cache_info(cache, 0, &info, NULL), 0);
        assert_true(info.bytes <= LIMIT);
        if (i == 30) use_at(15, 10000);
        if (i == 40) { /* what is known of the folders is lost, then damaged */
            snprintf(usage, sizeof usage, "%s/v%d/usage", root, MJ_CACHE_FORMAT);
            assert_int_equal(unlink(usage), 0);
        }
        if (i == 50) overwrite(usage, "junk that is not even as long as it should be", 45);
    }
    assert_true(info.entries >= 17);
    assert_int_equal(get(cache, 15), MJ_CACHE_HIT);
    for (int i = 45; i < 60; i++) assert_int_equal(get(cache, i), MJ_CACHE_HIT);
    for (int i = 0; i < 30; i++)
        if (i != 15) assert_int_equal(get(cache, i), MJ_CACHE_MISS);
    mj_cache_close(cache);
    opt.max_bytes = IMAGE_BYTES / 2; /* an entry larger than the limit is kept until the next one comes */
    assert_int_equal(mj_cache_open(&opt, &cache, NULL), 0);
    put(cache, 100);
    assert_int_equal(get(cache, 100), MJ_CACHE_HIT);
    put(cache, 101);
    assert_int_equal(get(cache, 101), MJ_CACHE_HIT);
    assert_int_equal(get(cache, 100), MJ_CACHE_MISS);
    assert_int_equal(mj_cache_info(cache, 0, &info, NULL), 0);
    assert_int_equal(info.entries, 1);
    assert_int_equal(warnings, 0);
    mj_cache_close(cache);
}

static void stale_temporaries_go(void **state)
{
    (void)state;
    char path[300], temp[400];
    MjCacheInfo info, removed;
    MjCache *cache = open_roots(root);

    put(cache, 1);
    entry_path(1, path, sizeof path);
    *strrchr(path, '/') = 0;
    for (int i = 0; i < 20; i++) { /* 15 left by killed processes */
        struct timespec times[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
        snprintf(temp, sizeof temp, "%s/.tmp-%d-%d", path, i + 2, i);
        overwrite(temp, "x", 1);
        if (i < 15) assert_int_equal(utimensat(AT_FDCWD, temp, times, 0), 0);
    }
    put(cache, 1);
    assert_int_equal(get(cache, 1), MJ_CACHE_HIT);
    assert_int_equal(mj_cache_prune(cache, 1ull << 40, &removed, NULL), 0);
    assert_int_equal(mj_cache_info(cache, 0, &info, NULL), 0);
    assert_int_equal(info.temporaries, 5); /* the young ones may be somebody's who is writing */
    assert_int_equal(access(temp, F_OK), 0);
    assert_int_equal(get(cache, 1), MJ_CACHE_HIT);
    mj_cache_close(cache);
}

static void archives_are_all_or_nothing(void **state)
{
    (void)state;
    char file[200], list[300], *bytes = NULL, *spare = NULL;
    size_t len = 0;
    MjArchiveCount out, in;
    MjError err = MJ_ERROR_INIT;
    MjCache *cache = open_roots(root);

    for (int i = 0; i < 5; i++) put(cache, i);
    mj_cache_close(cache);
    snprintf(list, sizeof list, "%s:%s", second, root);
    cache = open_roots(list);
    put(cache, 0); /* in both roots: goes out once */
    snprintf(file, sizeof file, "%s/cache.tar.zst", base);
    if (mj_cache_export(cache, file, NULL, NULL, &out, &err) != 0) fail_msg("%s", err.message);
    assert_int_equal(out.entries, 5);
    mj_cache_close(cache);
    fresh(NULL);
    cache = open_roots(root);
    put(cache, 3);
    if (mj_cache_import(cache, file, &in, &err) != 0) fail_msg("%s", err.message);
    assert_int_equal(in.entries, 5);
    assert_int_equal(in.already, 1);
    for (int i = 0; i < 5; i++) assert_int_equal(get(cache, i), MJ_CACHE_HIT);
    mj_cache_close(cache);
    /* Damaged anywhere: refused whole. (Bits of the container that carry no content may change nothing.) */
    fresh(NULL);
    cache = open_roots(root);
    assert_int_equal(mj_fs_read(file, &bytes, &len, NULL), 0);
    spare = mj_xmalloc(len);
    int refused = 0;
    for (size_t at = 0; at < len; at += len / 60 + 1) {
        memcpy(spare, bytes, len);
        spare[at] ^= 0x10;
        overwrite(file, spare, at % 2 ? len : at);
        if (mj_cache_import(cache, file, &in, &err) == 0) {
            for (int i = 0; i < 5; i++) assert_int_equal(get(cache, i), MJ_CACHE_HIT);
            assert_int_equal(mj_cache_clear(cache, NULL, NULL), 0);
        } else {
            refused++;
        }
        for (int i = 0; i < 5; i++) assert_int_equal(get(cache, i), MJ_CACHE_MISS);
    }
    assert_true(refused > 20);
    overwrite(file, bytes, len);
    if (mj_cache_import(cache, file, &in, &err) != 0) fail_msg("%s", err.message);
    assert_int_equal(in.entries, 5);
    assert_int_equal(in.already, 0);
    free(bytes);
    free(spare);
    mj_error_clear(&err);
    mj_cache_close(cache);
}

static void misses_are_explained(void **state)
{
    (void)state;
    MjExplanation e;
    static const char stored[] = "abi: 1\ntemplate: t\nspec: t K=64\ncompiler: gcc 12\nflags: -O3\n";
    MjCache *cache = open_roots(root);

    assert_int_equal(mj_cache_put(cache, stored, image, 100, NULL, 0, NULL), 0);
    assert_int_equal(mj_cache_put(cache, "abi: 1\ntemplate: u\nspec: t K=64\ncompiler: gcc 13\nflags: -O3\n", image, 100, NULL, 0, NULL), 0);
    assert_int_equal(mj_cache_explain(cache, stored, &e, NULL), 0);
    assert_true(e.hit);
    assert_non_null(e.path);
    assert_int_equal(e.difference.len, 0);
    mj_explanation_free(&e);
    static const char newer[] = "abi: 1\ntemplate: t\nspec: t K=64\ncompiler: gcc 13\nflags: -O3\n";
    static const char choice[] = "what: tuning\ntemplate: t\nspec: t K=64\ncompiler: gcc 13\nflags: -O3\n"; /* no image */
    assert_int_equal(mj_cache_put(cache, choice, image, 100, NULL, 0, NULL), 0);
    assert_int_equal(mj_cache_explain(cache, newer, &e, NULL), 0);
    assert_false(e.hit);
    assert_non_null(e.path);
    assert_string_equal(e.difference.data, "compiler: gcc 12 -> gcc 13\n");
    mj_explanation_free(&e);
    static const char larger[] = "abi: 1\ntemplate: t\nspec: t M=1 K=65\ncompiler: gcc 12\nflags: -O3\n"; /* by parameter */
    assert_int_equal(mj_cache_explain(cache, larger, &e, NULL), 0);
    assert_string_equal(e.difference.data, "M: (none) -> 1\nK: 64 -> 65\n");
    mj_explanation_free(&e);
    MjCacheEntry bad; /* a bad entry at the key's own place is a miss that says so */
    char hex[33], path[300];
    mj_cache_key_hex(mj_cache_key(stored), hex);
    snprintf(path, sizeof path, "%s/v%d/%.2s/%s.mj", root, MJ_CACHE_FORMAT, hex, hex);
    overwrite(path, "junk", 4);
    assert_int_equal(mj_cache_get(cache, mj_cache_key(stored), &bad), MJ_CACHE_CORRUPT);
    assert_int_equal(mj_cache_explain(cache, stored, &e, NULL), 0);
    assert_false(e.hit);
    assert_non_null(strstr(e.bad, "shorter than a header"));
    mj_explanation_free(&e);
    assert_int_equal(mj_cache_explain(cache, "abi: 1\ntemplate: v\n", &e, NULL), 0);
    assert_false(e.hit);
    assert_null(e.path);
    mj_explanation_free(&e);
    mj_cache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(round_trip, fresh),
        cmocka_unit_test_setup(first_root_is_written_all_are_read, fresh),
        cmocka_unit_test_setup(what_others_can_write_is_refused, fresh),
        cmocka_unit_test_setup(corruptions_are_never_loaded, fresh),
        cmocka_unit_test_setup(interrupted_publishing, fresh),
        cmocka_unit_test_setup(threads_share_a_cache, fresh),
        cmocka_unit_test_setup(statistics_are_compacted, fresh),
        cmocka_unit_test_setup(one_build_among_processes, fresh),
        cmocka_unit_test_setup(dead_and_stopped_holders, fresh),
        cmocka_unit_test_setup(pruning_removes_the_oldest, fresh),
        cmocka_unit_test_setup(publishing_keeps_the_limit, fresh),
        cmocka_unit_test_setup(stale_temporaries_go, fresh),
        cmocka_unit_test_setup(archives_are_all_or_nothing, fresh),
        cmocka_unit_test_setup(misses_are_explained, fresh),
    };

    /* In memory where that is possible: thousands of fsyncs are waited for. */
    snprintf(base, sizeof base, "%s/mojit-unit-cache-XXXXXX", access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(base)) return 99;
    snprintf(root, sizeof root, "%s/root", base);
    snprintf(second, sizeof second, "%s/second", base);
    snprintf(locks, sizeof locks, "%s/locks", base);
    for (int i = 0; i < IMAGE_BYTES; i++) image[i] = (unsigned char)(i * 31 + i / 251);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    (void)!mj_fs_remove_tree(base, NULL);
    return rc;
}
