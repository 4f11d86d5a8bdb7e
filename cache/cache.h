/* The kernel cache on disk: key -> image. Owns files, folders, locks and statistics; knows nothing of kernels, compilers
 * or devices. The format and the promises are in docs/cache.md.
 *
 * A key is XXH3-128 over the labelled text of everything that decides the compiled bytes ("label: value" lines), and
 * that text is kept in the entry, so that a key can be explained. Roots are a colon list: the first is written, all are
 * read. Nothing is scanned when a cache is opened.
 *
 * Thread-safe: one MjCache may be used from any number of threads; any number of processes may use one root.
 */
#ifndef MJ_CACHE_CACHE_H
#define MJ_CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"
#include "runtime/base/str.h"

#define MJ_CACHE_FORMAT 1
#define MJ_CACHE_DEFAULT_BYTES (2ull << 30)

typedef struct MjCache MjCache;

typedef struct MjCacheKey {
    uint8_t bytes[16];
} MjCacheKey;

typedef struct MjCacheOptions {
    const char *roots;    /* colon list; NULL: $MOJIT_CACHE, else $XDG_CACHE_HOME/mojit, else ~/.cache/mojit */
    const char *lock_dir; /* NULL: $XDG_RUNTIME_DIR/mojit-locks, else /tmp/mojit-locks-<uid>; node-local, mode 0700 */
    uint64_t max_bytes;   /* size limit of the first root; 0 = MJ_CACHE_DEFAULT_BYTES */
    void (*warn)(void *user, const char *line); /* once per problem; NULL = silent */
    void *user;
} MjCacheOptions;

/* Opens the roots. A root that is missing, unreadable or refused (owned by somebody else, writable by others) is left out
 * with one warning that says why; a cache without a usable root still opens: every get misses and put fails.
 * Fails only on an empty root name. */
int mj_cache_open(const MjCacheOptions *opt, MjCache **out, MjError *err) MJ_MUST_CHECK;
void mj_cache_close(MjCache *cache); /* writes the statistics; NULL is fine */

/* The key of a labelled text. */
MjCacheKey mj_cache_key(const char *label_text);
void mj_cache_key_hex(MjCacheKey key, char out[33]);

typedef struct MjCacheEntry {
    MjCacheKey key;
    char *label;          /* the labelled text */
    char *log;            /* compiler log, "" when empty */
    unsigned char *image; /* image_bytes bytes */
    size_t image_bytes;
    double compile_s;
    void *memory;         /* holds all of the above */
} MjCacheEntry;

void mj_cache_entry_free(MjCacheEntry *entry); /* NULL and zeroed are fine */

typedef enum MjCacheResult { MJ_CACHE_MISS = 0, MJ_CACHE_HIT = 1, MJ_CACHE_CORRUPT = 2 } MjCacheResult;

/* Looks in every root. MJ_CACHE_CORRUPT is a miss of which at least one root held a bad entry (never loaded, warned of,
 * replaced by the next put). Never fails. *out is written on a hit only. */
MjCacheResult mj_cache_get(MjCache *cache, MjCacheKey key, MjCacheEntry *out);

/* Publishes by temporary, fsync, rename, fsync of the folder. Returns 0 or a negative MjCode; the caller may ignore it (the
 * image is in memory); the cache has warned once. Prunes the entry's own folder when that is over its share. */
int mj_cache_put(MjCache *cache, const char *label_text, const void *image, size_t image_bytes, const char *log,
                 double compile_s, MjError *err);

/* The per-key lock between processes. True: this process holds it. False: no lock is to be had (no folder, a file system
 * without locks, or the wait ran out): go on without, at the price of a duplicate compile. The kernel releases it when its
 * holder dies. Blocks at most `wait_s`. */
typedef struct MjCacheLock {
    int fd; /* -1: none */
    char path[512];
} MjCacheLock;
bool mj_cache_lock(MjCache *cache, MjCacheKey key, double wait_s, MjCacheLock *out);
void mj_cache_unlock(MjCacheLock *lock);

/* Statistics of this process, by mode and template, added up in the first root when the cache is closed. */
typedef struct MjCacheStats {
    uint64_t hits, misses, compiles, corrupt;
    double spent_s, saved_s; /* compiling; and what hits would have cost */
} MjCacheStats;
void mj_cache_count(MjCache *cache, const char *mode, const char *tmpl, const MjCacheStats *add);
/* Calls back for each (mode, template) row; `last_run` picks the rows of the newest run only. */
int mj_cache_stats_each(MjCache *cache, bool last_run,
                        void (*each)(void *user, const char *mode, const char *tmpl, const MjCacheStats *row), void *user,
                        MjError *err);

/* Maintenance of the first root (info and each: of any root). These scan. */
typedef struct MjCacheInfo {
    uint64_t entries, bytes, temporaries;
} MjCacheInfo;
size_t mj_cache_root_count(const MjCache *cache);
const char *mj_cache_root(const MjCache *cache, size_t i);         /* path */
const char *mj_cache_root_problem(const MjCache *cache, size_t i); /* NULL when usable */
bool mj_cache_root_writable(const MjCache *cache, size_t i);
int mj_cache_info(MjCache *cache, size_t root, MjCacheInfo *out, MjError *err) MJ_MUST_CHECK;
/* Visits entries in key order; `entry` is NULL and `problem` set for a bad one. Stops when `each` returns nonzero. */
int mj_cache_each(MjCache *cache, size_t root,
                  int (*each)(void *user, const char *path, const MjCacheEntry *entry, const char *problem), void *user,
                  MjError *err) MJ_MUST_CHECK;
int mj_cache_prune(MjCache *cache, uint64_t max_bytes, MjCacheInfo *removed, MjError *err) MJ_MUST_CHECK; /* oldest use first */
int mj_cache_clear(MjCache *cache, MjCacheInfo *removed, MjError *err) MJ_MUST_CHECK;

/* The whole of an entry's file. */
MjStr mj_cache_entry_encode(const char *label_text, const void *image, size_t image_bytes, const char *log, double compile_s);

/* Parses one entry's bytes (also what the fuzzer calls). On failure *problem says what is wrong; static storage. */
int mj_cache_entry_parse(const void *bytes, size_t len, MjCacheEntry *out, const char **problem) MJ_MUST_CHECK;

/* One labelled field of an entry's text: a malloc'd copy, NULL when absent. */
char *mj_cache_label_field(const char *label_text, const char *name);

#endif
