/* A cache of many entries: opening, finding, publishing, looking through, pruning. The entries are whole ones of a few hundred
 * bytes, written without fsync. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_jit.h"
#include "cache/cache.h"
#include "runtime/base/clock.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/sort.h"
#include "runtime/base/str.h"

enum { TRIES = 21, IMAGE_BYTES = 64 };

static double since(uint64_t begin)
{
    return (double)(mj_clock_ns() - begin) * 1e-9;
}

static char *label_of(int i)
{
    return mj_strdup_printf("abi: 1\ntemplate: t\nspec: t K=%d\n", i);
}

static int fill(const char *folder, int entries, MjError *err)
{
    static const char image[IMAGE_BYTES];
    char hex[33];
    int rc = 0;

    for (int i = 0; i < 256 && rc == 0; i++) {
        char *path = mj_strdup_printf("%s/v%d/%02x", folder, MJ_CACHE_FORMAT, i);
        rc = mj_fs_make_dirs(path, 0700, err);
        free(path);
    }
    for (int i = 0; i < entries && rc == 0; i++) {
        char *label = label_of(i);
        MjStr bytes = mj_cache_entry_encode(label, image, sizeof image, NULL, 0.1);
        mj_cache_key_hex(mj_cache_key(label), hex);
        char *path = mj_strdup_printf("%s/v%d/%.2s/%s.mj", folder, MJ_CACHE_FORMAT, hex, hex);
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(bytes.data, 1, bytes.len, f) != bytes.len) rc = mj_error(err, MJ_ERR_IO, "cannot write %s", path);
        if (f && fclose(f) != 0 && rc == 0) rc = mj_error(err, MJ_ERR_IO, "cannot write %s", path);
        free(path);
        free(label);
        mj_str_free(&bytes);
    }
    return rc;
}

static int open_many(const char *folder, double *median_ms, MjError *err)
{
    double times[TRIES];

    for (int i = 0; i < TRIES; i++) {
        MjCache *cache = NULL;
        uint64_t begin = mj_clock_ns();
        int rc = mj_cache_open(&(MjCacheOptions){.roots = folder, .max_bytes = UINT64_MAX}, &cache, err);
        if (rc != 0) return rc;
        times[i] = since(begin) * 1e3;
        mj_cache_close(cache);
    }
    *median_ms = mj_median(times, TRIES);
    return 0;
}

static int find_and_publish(MjCache *cache, int entries, double *get_us, double *put_ms, MjError *err)
{
    double get[TRIES], put[TRIES];

    for (int i = 0; i < TRIES; i++) {
        MjCacheEntry entry = {.memory = NULL};
        char *label = label_of((int)((uint64_t)i * 7919 % (uint64_t)entries));
        uint64_t begin = mj_clock_ns();
        bool hit = mj_cache_get(cache, mj_cache_key(label), &entry) == MJ_CACHE_HIT;
        get[i] = since(begin) * 1e6;
        free(label);
        mj_cache_entry_free(&entry);
        if (!hit) return mj_error(err, MJ_ERR_IO, "an entry of the bench's cache is not found again");
        label = label_of(entries + i);
        begin = mj_clock_ns();
        int rc = mj_cache_put(cache, label, "image", 6, NULL, 0.1, err);
        put[i] = since(begin) * 1e3;
        free(label);
        if (rc != 0) return rc;
    }
    *get_us = mj_median(get, TRIES);
    *put_ms = mj_median(put, TRIES);
    return 0;
}

int mj_bench_cache(const MjJitBenchOptions *o, const char *folder, MjError *err)
{
    int rc = 0;
    double open_ms, get_us, put_ms, put_full_ms, ignored;
    MjCache *cache = NULL;
    MjCacheInfo info, removed;
    char text[96];
    uint64_t begin;
    MJ_TRY(fill(folder, o->entries, err));
    MJ_TRY(open_many(folder, &open_ms, err));
    snprintf(text, sizeof text, "%d entries", o->entries);
    mj_bench_jit_row(o, "opening a cache", text, open_ms, "ms", 5, false);
    MJ_TRY(mj_cache_open(&(MjCacheOptions){.roots = folder, .max_bytes = UINT64_MAX}, &cache, err));
    MJ_TRY(find_and_publish(cache, o->entries, &get_us, &put_ms, err));
    mj_bench_jit_row(o, "finding an entry", text, get_us, "us", 100, false);
    mj_bench_jit_row(o, "publishing an entry", "with its fsyncs, below the limit", put_ms, "ms", (double)NAN, false);
    begin = mj_clock_ns();
    MJ_TRY(mj_cache_info(cache, 0, &info, err));
    mj_bench_jit_row(o, "looking through it", "what `mojit cache stat` does", since(begin), "s", (double)NAN, false);
    mj_cache_close(cache);
    cache = NULL;
    MJ_TRY(mj_cache_open(&(MjCacheOptions){.roots = folder, .max_bytes = info.bytes}, &cache, err));
    MJ_TRY(find_and_publish(cache, o->entries, &ignored, &put_full_ms, err));
    mj_bench_jit_row(o, "publishing into a full cache", "at its limit: the oldest make room", put_full_ms, "ms", (double)NAN, false);
    begin = mj_clock_ns();
    MJ_TRY(mj_cache_prune(cache, info.bytes / 2, &removed, err));
    snprintf(text, sizeof text, "%llu removed", (unsigned long long)removed.entries);
    mj_bench_jit_row(o, "pruning it to a half", text, since(begin), "s", (double)NAN, false);
out:
    mj_cache_close(cache);
    return rc;
}
