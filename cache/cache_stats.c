/* Statistics over all time and for the last run: rows of text appended to <root>/stats by one O_APPEND write a process, so
 * that processes do not tear each other's rows; compacted when the file has grown.
 *
 * A row: "run mode template hits misses compiles corrupt spent saved", tab-separated; run is time.pid. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"

enum { COMPACT_BYTES = 1 << 20, LOCK_TRIES = 20, LOCK_PAUSE_MS = 5 };

static void add_row(CacheStatRow **rows, size_t *n, const char *mode, const char *tmpl, const MjCacheStats *add)
{
    size_t i = 0;

    while (i < *n && (strcmp((*rows)[i].mode, mode) != 0 || strcmp((*rows)[i].tmpl, tmpl) != 0)) i++;
    if (i == *n) {
        *rows = mj_xrealloc(*rows, (*n + 1) * sizeof **rows);
        (*rows)[(*n)++] = (CacheStatRow){.mode = ""};
        snprintf((*rows)[i].mode, sizeof (*rows)[i].mode, "%s", mode);
        snprintf((*rows)[i].tmpl, sizeof (*rows)[i].tmpl, "%s", tmpl);
    }
    MjCacheStats *to = &(*rows)[i].stats;
    to->hits += add->hits;
    to->misses += add->misses;
    to->compiles += add->compiles;
    to->corrupt += add->corrupt;
    to->spent_s += add->spent_s;
    to->saved_s += add->saved_s;
}

void mj_cache_count(MjCache *cache, const char *mode, const char *tmpl, const MjCacheStats *add)
{
    pthread_mutex_lock(&cache->mutex);
    add_row(&cache->rows, &cache->n_rows, mode, tmpl, add);
    pthread_mutex_unlock(&cache->mutex);
}

static void print_row(MjStr *text, const char *run, const CacheStatRow *row)
{
    const MjCacheStats *s = &row->stats;

    mj_str_printf(text, "%s\t%s\t%s\t%llu\t%llu\t%llu\t%llu\t%.6f\t%.6f\n", run, row->mode, row->tmpl,
                  (unsigned long long)s->hits, (unsigned long long)s->misses, (unsigned long long)s->compiles,
                  (unsigned long long)s->corrupt, s->spent_s, s->saved_s);
}

static bool parse_row(const char *line, char run[64], char mode[32], char tmpl[64], MjCacheStats *out)
{
    unsigned long long hits, misses, compiles, corrupt;
    double spent, saved;

    if (sscanf(line, "%63[^\t\n] %31[^\t\n] %63[^\t\n] %llu %llu %llu %llu %lf %lf", run, mode, tmpl, &hits, &misses,
               &compiles, &corrupt, &spent, &saved) != 9)
        return false;
    *out = (MjCacheStats){hits, misses, compiles, corrupt, spent, saved};
    return true;
}

typedef enum Which { ALL, NEWEST, ALL_BUT_NEWEST } Which;

/* Adds up the file's rows: of every run, the newest or all others. Malformed lines are passed over. */
static void read_rows(const char *path, Which which, char newest[64], CacheStatRow **rows, size_t *n)
{
    char *text = NULL, run[64], mode[32], tmpl[64];
    MjCacheStats add;

    newest[0] = 0;
    if (mj_fs_read(path, &text, NULL, NULL) != 0) return;
    for (int pass = 0; pass < 2; pass++) {
        for (const char *line = text; *line; line = strchrnul(line, '\n') + (*strchrnul(line, '\n') != 0)) {
            if (!parse_row(line, run, mode, tmpl, &add)) continue;
            if (pass == 0) memcpy(newest, run, sizeof run);
            else if (which == ALL || (strcmp(run, newest) == 0) == (which == NEWEST)) add_row(rows, n, mode, tmpl, &add);
        }
    }
    free(text);
}

/* One row for each mode and template of the past; the newest run keeps its own. Under the file's lock. */
static void compact(const char *path)
{
    static const Which parts[] = {ALL_BUT_NEWEST, NEWEST};
    MjStr text = MJ_STR_INIT;

    for (int part = 0; part < 2; part++) {
        CacheStatRow *rows = NULL;
        size_t n = 0;
        char newest[64];
        read_rows(path, parts[part], newest, &rows, &n);
        for (size_t i = 0; i < n; i++) print_row(&text, part == 0 ? "past" : newest, &rows[i]);
        free(rows);
    }
    (void)!mj_fs_write_atomic(path, mj_str_text(&text), text.len, NULL);
    mj_str_free(&text);
}

/* Opens the file for appending, locked if that can be had soon: who compacts it must not lose what others append. */
static int open_locked(const char *path, bool *locked)
{
    int fd = -1;

    *locked = false;
    for (int i = 0; i < LOCK_TRIES && !*locked; i++) {
        if (i > 0) {
            mj_cache_sys_sleep(LOCK_PAUSE_MS);
            close(fd);
        }
        struct stat held, named;
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0) return -1;
        *locked = mj_cache_sys_flock(fd) == 0 && fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino;
    }
    return fd;
}

void mj_cache_stats_flush(MjCache *cache)
{
    MjStr text = MJ_STR_INIT;
    char run[64];
    struct stat st;
    bool locked;

    if (cache->n_rows == 0 || cache->n_roots == 0 || cache->roots[0].problem || !cache->roots[0].writable) return;
    char *path = mj_strdup_printf("%s/stats", cache->roots[0].path);
    snprintf(run, sizeof run, "%lld.%ld", (long long)time(NULL), (long)getpid());
    for (size_t i = 0; i < cache->n_rows; i++) print_row(&text, run, &cache->rows[i]);
    int fd = open_locked(path, &locked);
    if (fd >= 0) {
        (void)!write(fd, text.data, text.len); /* a full disk loses a row of statistics, not a run */
        if (locked && fstat(fd, &st) == 0 && st.st_size > COMPACT_BYTES) compact(path);
        close(fd);
    }
    cache->n_rows = 0;
    mj_str_free(&text);
    free(path);
}

int mj_cache_stats_each(MjCache *cache, bool last_run,
                        void (*each)(void *user, const char *mode, const char *tmpl, const MjCacheStats *row), void *user,
                        MjError *err)
{
    CacheStatRow *rows = NULL;
    size_t n = 0;
    char newest[64];

    if (cache->roots[0].problem) return mj_error(err, MJ_ERR_IO, "%s", cache->roots[0].problem);
    char *path = mj_strdup_printf("%s/stats", cache->roots[0].path);
    read_rows(path, last_run ? NEWEST : ALL, newest, &rows, &n);
    for (size_t i = 0; i < n; i++) each(user, rows[i].mode, rows[i].tmpl, &rows[i].stats);
    free(rows);
    free(path);
    return 0;
}
