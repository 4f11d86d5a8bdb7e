/* Shipping a cache: one archive (tar, zstd) of entries, verified entry by entry on the way in. */
#ifndef MJ_CACHE_SHIP_H
#define MJ_CACHE_SHIP_H

#include "cache/cache.h"

typedef struct MjArchiveCount {
    uint64_t entries, bytes; /* in the archive; bytes of images with their labels */
    uint64_t already;        /* import: entries that the cache had and that were left alone */
    uint64_t skipped;        /* export: bad entries that were left out */
} MjArchiveCount;

/* Writes every good entry of every usable root (each key once) to `path`, by a temporary and a rename. `wanted` may be NULL
 * (all); else it says whether a key is to go along. An archive of no entries is MJ_ERR_DATA. */
int mj_cache_export(MjCache *cache, const char *path, bool (*wanted)(void *user, MjCacheKey key), void *user,
                    MjArchiveCount *out, MjError *err) MJ_MUST_CHECK;

/* Reads an archive twice: first all of it is verified (names, sizes, checksums, keys), and refused whole if anything is off;
 * then what the first root lacks is published there. Cut short, it goes on when called again. */
int mj_cache_import(MjCache *cache, const char *path, MjArchiveCount *out, MjError *err) MJ_MUST_CHECK;

#endif
