/* Looking through and thinning out a root: info, each, prune, clear. These scan; nothing here runs in a launch. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"

enum { STALE_TEMPORARY_S = 3600 };

typedef struct Aged {
    char *path;
    struct timespec used;
    uint64_t bytes;
} Aged;

typedef struct AgedList {
    Aged *item;
    size_t n, cap;
    uint64_t bytes, temporaries;
} AgedList;

bool mj_cache_is_entry_name(const char *name)
{
    return strlen(name) == 35 && strspn(name, "0123456789abcdef") == 32 && strcmp(name + 32, ".mj") == 0;
}

static int by_age(const void *a, const void *b)
{
    const Aged *x = a, *y = b;

    if (x->used.tv_sec != y->used.tv_sec) return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    if (x->used.tv_nsec != y->used.tv_nsec) return x->used.tv_nsec < y->used.tv_nsec ? -1 : 1;
    return strcmp(x->path, y->path);
}

/* Adds one folder's entries; removes temporaries that no living process can be writing. */
static int list_folder(void *user, const char *folder)
{
    AgedList *list = user;
    char **names = NULL;
    size_t n = 0;

    if (mj_fs_list(folder, &names, &n, NULL) != 0) return 0; /* somebody cleared it meanwhile */
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        char *path = mj_strdup_printf("%s/%s", folder, names[i]);
        bool there = lstat(path, &st) == 0, temporary = strncmp(names[i], ".tmp-", 5) == 0;
        if (there && temporary) {
            if (time(NULL) - st.st_mtime > STALE_TEMPORARY_S)
                unlink(path);
            else
                list->temporaries++;
        }
        if (!there || !mj_cache_is_entry_name(names[i])) {
            free(path);
            continue;
        }
        if (list->n == list->cap) {
            list->cap = list->cap ? list->cap * 2 : 64;
            list->item = mj_xrealloc(list->item, list->cap * sizeof *list->item);
        }
        list->item[list->n++] = (Aged){.path = path, .used = st.st_mtim, .bytes = (uint64_t)st.st_size};
        list->bytes += (uint64_t)st.st_size;
    }
    mj_fs_list_free(names, n);
    return 0;
}

static void free_list(AgedList *list)
{
    for (size_t i = 0; i < list->n; i++) free(list->item[i].path);
    free(list->item);
}

/* Oldest use first. A reader that has an entry open keeps its bytes: unlink takes only the name away. */
static void remove_oldest(AgedList *list, uint64_t limit, const char *keep, MjCacheInfo *removed)
{
    if (list->bytes <= limit) return;
    qsort(list->item, list->n, sizeof *list->item, by_age);
    for (size_t i = 0; i < list->n && list->bytes > limit; i++) {
        Aged *item = &list->item[i];
        if ((keep && strcmp(keep, item->path) == 0) || unlink(item->path) != 0) continue;
        list->bytes -= item->bytes;
        removed->entries++;
        removed->bytes += item->bytes;
    }
}

void mj_cache_prune_folder(const char *folder, uint64_t share, const char *keep)
{
    AgedList list = {.item = NULL};
    MjCacheInfo removed = {.entries = 0};

    (void)list_folder(&list, folder);
    remove_oldest(&list, share, keep, &removed);
    free_list(&list);
}

/* Calls `visit` for every fan-out folder of a root that is there. */
static int each_folder(MjCache *cache, size_t root, int (*visit)(void *user, const char *folder), void *user, MjError *err)
{
    CacheRoot *r = &cache->roots[root];

    if (r->problem) return mj_error(err, MJ_ERR_IO, "%s", r->problem);
    for (unsigned i = 0; i < 256; i++) {
        char *folder = mj_cache_folder_path(r, (MjCacheKey){.bytes = {(uint8_t)i}});
        int rc = mj_fs_is_dir(folder) ? visit(user, folder) : 0;
        free(folder);
        if (rc != 0) return rc;
    }
    return 0;
}

int mj_cache_info(MjCache *cache, size_t root, MjCacheInfo *out, MjError *err)
{
    AgedList list = {.item = NULL};
    int rc = each_folder(cache, root, list_folder, &list, err);

    if (rc == 0) *out = (MjCacheInfo){.entries = list.n, .bytes = list.bytes, .temporaries = list.temporaries};
    free_list(&list);
    return rc;
}

typedef struct Visit {
    int (*each)(void *user, const char *path, const MjCacheEntry *entry, const char *problem);
    void *user;
} Visit;

static int visit_entries(void *user, const char *folder)
{
    Visit *v = user;
    char **names = NULL, hex[33];
    size_t n = 0;
    int rc = 0;

    if (mj_fs_list(folder, &names, &n, NULL) != 0) return 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        const char *problem = NULL;
        MjCacheEntry entry = {.memory = NULL};
        if (!mj_cache_is_entry_name(names[i])) continue;
        char *path = mj_strdup_printf("%s/%s", folder, names[i]);
        int found = mj_cache_read_file(path, NULL, &entry, &problem);
        if (found > 0) {
            mj_cache_key_hex(entry.key, hex);
            if (strncmp(hex, names[i], 32) != 0) problem = "it holds the entry of another key";
        }
        if (found != 0) rc = v->each(v->user, path, problem ? NULL : &entry, problem);
        mj_cache_entry_free(&entry);
        free(path);
    }
    mj_fs_list_free(names, n);
    return rc;
}

int mj_cache_each(MjCache *cache, size_t root,
                  int (*each)(void *user, const char *path, const MjCacheEntry *entry, const char *problem), void *user,
                  MjError *err)
{
    Visit v = {.each = each, .user = user};
    int rc = each_folder(cache, root, visit_entries, &v, err);

    return rc < 0 ? rc : 0;
}

int mj_cache_prune(MjCache *cache, uint64_t max_bytes, MjCacheInfo *removed, MjError *err)
{
    AgedList list = {.item = NULL};
    MjCacheInfo gone = {.entries = 0};
    int rc = each_folder(cache, 0, list_folder, &list, err);

    if (rc == 0) {
        remove_oldest(&list, max_bytes, NULL, &gone);
        if (removed) *removed = gone;
    }
    free_list(&list);
    return rc;
}

int mj_cache_clear(MjCache *cache, MjCacheInfo *removed, MjError *err)
{
    MjCacheInfo gone;
    int rc = mj_cache_info(cache, 0, &gone, err);

    if (rc != 0) return rc;
    char *tree = mj_strdup_printf("%s/v%d", cache->roots[0].path, MJ_CACHE_FORMAT);
    rc = mj_fs_remove_tree(tree, err);
    free(tree);
    if (rc == 0 && removed) *removed = gone;
    return rc;
}
