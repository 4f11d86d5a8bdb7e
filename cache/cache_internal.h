/* What the parts of the cache share. Not for other folders. */
#ifndef MJ_CACHE_INTERNAL_H
#define MJ_CACHE_INTERNAL_H

#include <pthread.h>
#include <sys/types.h>

#include "cache/cache.h"
#include "cache/cache_sys.h"
#include "runtime/base/str.h"

typedef struct CacheRoot {
    char *path;
    char *problem; /* NULL when usable for reading */
    bool writable;
} CacheRoot;

enum { SPOKEN_OF = 16 };

typedef struct CacheStatRow {
    char mode[32], tmpl[64];
    MjCacheStats stats;
} CacheStatRow;

struct MjCache {
    CacheRoot *roots;
    size_t n_roots;
    char *lock_dir; /* NULL: no locks */
    uint64_t max_bytes;
    void (*warn)(void *user, const char *line);
    void *user;
    pthread_mutex_t mutex; /* guards all below */
    CacheStatRow *rows;
    size_t n_rows;
    bool put_warned;
    MjCacheKey spoken_of[SPOKEN_OF]; /* bad entries that were warned of */
    size_t n_spoken_of;
};

void mj_cache_warn(MjCache *cache, const char *fmt, ...) MJ_PRINTF(2, 3);
char *mj_cache_folder_path(const CacheRoot *root, MjCacheKey key); /* malloc'd; "<root>/v1/ab" */
/* Refuses what others could have written. `fd` is used when it is not negative, else `path`. */
int mj_cache_check_owner(const char *path, int fd, const char *what, MjError *err) MJ_MUST_CHECK;
/* Reads and verifies one entry's file. Returns 1 = hit, 0 = no file, -1 = bad (with *problem, static storage). */
int mj_cache_read_file(const char *path, const MjCacheKey *expect, MjCacheEntry *out, const char **problem);
/* After an entry was published as `keep`: brings the first root within max_bytes again, longest unused first, by looking into
 * few folders (cache_usage.c). Removes stale temporaries of those it looks into. */
void mj_cache_keep_within(MjCache *cache, MjCacheKey key, const char *keep);

typedef struct CacheAged { /* an entry on disk */
    char *path;
    struct timespec used;
    uint64_t bytes;
} CacheAged;

typedef struct CacheAgedList {
    CacheAged *item;
    size_t n, cap;
    uint64_t bytes, temporaries;
} CacheAgedList;

/* Adds one folder's entries; removes temporaries that no living process can be writing. A missing folder adds nothing. */
void mj_cache_list_folder(CacheAgedList *list, const char *folder);
void mj_cache_sort_aged(CacheAgedList *list); /* longest unused first */
bool mj_cache_remove_aged(CacheAgedList *list, CacheAged *item); /* its bytes leave the list's; false: it can't be removed */
void mj_cache_free_aged(CacheAgedList *list);
/* Visits the label and the compile seconds of a root's entries, of which nothing but the magic and the lengths is checked. */
void mj_cache_each_label(MjCache *cache, size_t root, void (*each)(void *user, const char *label, double compile_s), void *user);
/* The two out of the first bytes of an entry's file; the label is malloc'd, NULL when the bytes are no entry's start. */
char *mj_cache_entry_peek(const void *bytes, size_t len, double *compile_s);
void mj_cache_usage_forget(MjCache *cache); /* what is known of the folders' sizes, when they change behind its back */
bool mj_cache_is_entry_name(const char *name); /* 32 hex digits and ".mj", no folder */
void mj_cache_stats_flush(MjCache *cache);

#endif
