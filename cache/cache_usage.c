/* Keeping the first root within its limit without looking at all of it. <root>/v1/usage holds, for each of the 256 fan-out
 * folders, its bytes and its oldest use. Publishing brings its own folder's slot up to date, adds all slots up and, past the
 * limit, looks into the folders with the oldest uses only. A slot is a hint, checked when it is acted on: a lost or damaged one
 * costs another look, never a wrong removal. Nothing is locked. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "cache/cache_internal.h"
#include "runtime/base/mem.h"

enum { FOLDERS = 256, FILL = 4096, VISITS = 32 }; /* entries of unknown folders that one publish looks at; folders that it thins out */

typedef struct Slot {
    uint64_t bytes;
    int64_t oldest; /* seconds since 1970; INT64_MAX: nothing to remove */
    uint64_t check;
} Slot;

typedef struct Usage {
    const CacheRoot *root;
    int fd;
    Slot slot[FOLDERS];
} Usage;

static uint64_t check_of(const Slot *s, unsigned i)
{
    return XXH3_64bits_withSeed(s, offsetof(Slot, check), i + 1);
}

static char *usage_path(const CacheRoot *root)
{
    return mj_strdup_printf("%s/v%d/usage", root->path, MJ_CACHE_FORMAT);
}

static void store(Usage *u, unsigned i, const CacheAgedList *list)
{
    Slot *s = &u->slot[i];

    *s = (Slot){.bytes = list->bytes, .oldest = INT64_MAX};
    for (size_t k = 0; k < list->n; k++)
        if (list->item[k].used.tv_sec < s->oldest) s->oldest = list->item[k].used.tv_sec;
    s->check = check_of(s, i);
    (void)!pwrite(u->fd, s, sizeof *s, (off_t)(i * sizeof *s)); /* a hint that is lost is found again */
}

static void list_slot(Usage *u, unsigned i, CacheAgedList *list)
{
    char *folder = mj_cache_folder_path(u->root, (MjCacheKey){.bytes = {(uint8_t)i}});

    mj_cache_list_folder(list, folder);
    free(folder);
}

/* Brings own folder's slot up to date, and some of those that nobody has looked at. Returns the sum of what is known. */
static uint64_t refresh(Usage *u, unsigned own)
{
    uint64_t total = 0;
    size_t filled = 0;

    for (unsigned i = 0; i < FOLDERS; i++) {
        bool known = u->slot[i].check == check_of(&u->slot[i], i);
        if (i == own || (!known && filled < FILL)) {
            CacheAgedList list = {.item = NULL};
            list_slot(u, i, &list);
            filled += list.n;
            store(u, i, &list);
            mj_cache_free_aged(&list);
            known = true;
        }
        if (!known) u->slot[i] = (Slot){.oldest = INT64_MAX};
        total += u->slot[i].bytes;
    }
    return total;
}

/* The two folders with the oldest uses. */
static unsigned oldest_two(const Usage *u, int64_t *next)
{
    unsigned best = 0;

    for (unsigned i = 1; i < FOLDERS; i++)
        if (u->slot[i].oldest < u->slot[best].oldest) best = i;
    *next = INT64_MAX;
    for (unsigned i = 0; i < FOLDERS; i++)
        if (i != best && u->slot[i].oldest < *next) *next = u->slot[i].oldest;
    return best;
}

/* Removes from folder i what was last used no later than `until`. Returns the bytes that are left of `total`. */
static uint64_t thin_out(Usage *u, unsigned i, int64_t until, const char *keep, uint64_t total, uint64_t limit)
{
    CacheAgedList list = {.item = NULL};
    size_t left = 0;
    int64_t oldest = INT64_MAX;

    list_slot(u, i, &list);
    total = total - u->slot[i].bytes + list.bytes;
    mj_cache_sort_aged(&list);
    for (size_t k = 0; k < list.n; k++) {
        CacheAged item = list.item[k];
        bool kept = strcmp(item.path, keep) == 0;
        if (!kept && total > limit && item.used.tv_sec <= until && mj_cache_remove_aged(&list, &item)) {
            total -= item.bytes;
            free(item.path);
            continue;
        }
        if (!kept && item.used.tv_sec < oldest) oldest = item.used.tv_sec;
        list.item[left++] = item;
    }
    list.n = left;
    store(u, i, &list);
    u->slot[i].oldest = oldest; /* here only: `keep` must not draw this publish's next look */
    mj_cache_free_aged(&list);
    return total;
}

void mj_cache_keep_within(MjCache *cache, MjCacheKey key, const char *keep)
{
    Usage u = {.root = &cache->roots[0]};
    char *path = usage_path(u.root);

    u.fd = mj_cache_sys_open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    free(path);
    if (u.fd < 0) return;
    (void)!pread(u.fd, u.slot, sizeof u.slot, 0); /* what is not there is unknown */
    uint64_t total = refresh(&u, key.bytes[0]);
    for (int visit = 0; visit < VISITS && total > cache->max_bytes; visit++) {
        int64_t next;
        unsigned i = oldest_two(&u, &next);
        if (u.slot[i].oldest == INT64_MAX) break; /* nothing but `keep` */
        total = thin_out(&u, i, next, keep, total, cache->max_bytes);
    }
    (void)mj_cache_sys_close(u.fd);
}

void mj_cache_usage_forget(MjCache *cache)
{
    char *path = usage_path(&cache->roots[0]);

    (void)mj_cache_sys_unlink(path);
    free(path);
}
