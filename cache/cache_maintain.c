/* Looking through and thinning out a root: info, each, prune, clear. These scan; nothing here runs in a launch. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"

enum { STALE_TEMPORARY_S = 3600 };

bool mj_cache_is_entry_name(const char *name)
{
    return strlen(name) == 35 && strspn(name, "0123456789abcdef") == 32 && strcmp(name + 32, ".mj") == 0;
}

static int by_age(const void *a, const void *b)
{
    const CacheAged *x = a, *y = b;

    if (x->used.tv_sec != y->used.tv_sec) return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    if (x->used.tv_nsec != y->used.tv_nsec) return x->used.tv_nsec < y->used.tv_nsec ? -1 : 1;
    return strcmp(x->path, y->path);
}

void mj_cache_list_folder(CacheAgedList *list, const char *folder)
{
    char **names = NULL;
    size_t n = 0;

    if (mj_cache_sys_list(folder, &names, &n) != 0) return; /* not there, or somebody cleared it meanwhile */
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        char *path = mj_strdup_printf("%s/%s", folder, names[i]);
        bool there = mj_cache_sys_stat(path, &st) == 0, temporary = strncmp(names[i], ".tmp-", 5) == 0;
        if (there && temporary) {
            if (time(NULL) - st.st_mtime > STALE_TEMPORARY_S)
                (void)mj_cache_sys_unlink(path);
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
        list->item[list->n++] = (CacheAged){.path = path, .used = st.st_mtim, .bytes = (uint64_t)st.st_size};
        list->bytes += (uint64_t)st.st_size;
    }
    mj_fs_list_free(names, n);
}

void mj_cache_sort_aged(CacheAgedList *list)
{
    if (list->n) qsort(list->item, list->n, sizeof *list->item, by_age);
}

/* A reader that has the entry open keeps its bytes: only the name goes. */
bool mj_cache_remove_aged(CacheAgedList *list, CacheAged *item)
{
    if (mj_cache_sys_unlink(item->path) != 0 && errno != ENOENT) return false; /* ENOENT: another process was faster */
    list->bytes -= item->bytes;
    return true;
}

void mj_cache_free_aged(CacheAgedList *list)
{
    for (size_t i = 0; i < list->n; i++) free(list->item[i].path);
    free(list->item);
    *list = (CacheAgedList){.item = NULL};
}

static int visit_aged(void *user, const char *folder)
{
    mj_cache_list_folder(user, folder);
    return 0;
}

/* Calls `visit` for every fan-out folder of a root that is there. */
static int each_folder(MjCache *cache, size_t root, int (*visit)(void *user, const char *folder), void *user, MjError *err)
{
    CacheRoot *r = &cache->roots[root];

    if (r->problem) return mj_error(err, MJ_ERR_IO, "%s", r->problem);
    for (unsigned i = 0; i < 256; i++) {
        char *folder = mj_cache_folder_path(r, (MjCacheKey){.bytes = {(uint8_t)i}});
        int rc = visit(user, folder);
        free(folder);
        if (rc != 0) return rc;
    }
    return 0;
}

int mj_cache_info(MjCache *cache, size_t root, MjCacheInfo *out, MjError *err)
{
    CacheAgedList list = {.item = NULL};
    int rc = each_folder(cache, root, visit_aged, &list, err);

    if (rc == 0) *out = (MjCacheInfo){.entries = list.n, .bytes = list.bytes, .temporaries = list.temporaries};
    mj_cache_free_aged(&list);
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

    if (mj_cache_sys_list(folder, &names, &n) != 0) return 0;
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

typedef struct LabelVisit {
    void (*each)(void *user, const char *label, double compile_s);
    void *user;
} LabelVisit;

static int visit_labels(void *user, const char *folder)
{
    LabelVisit *v = user;
    char **names = NULL, start[8192]; /* labels have a few hundred bytes */
    size_t n = 0;

    if (mj_cache_sys_list(folder, &names, &n) != 0) return 0;
    for (size_t i = 0; i < n; i++) {
        double seconds = 0;
        if (!mj_cache_is_entry_name(names[i])) continue;
        char *path = mj_strdup_printf("%s/%s", folder, names[i]);
        int fd = mj_cache_sys_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
        ssize_t len = fd >= 0 ? mj_cache_sys_read(fd, start, sizeof start) : -1;
        char *label = len > 0 ? mj_cache_entry_peek(start, (size_t)len, &seconds) : NULL;
        if (label) v->each(v->user, label, seconds);
        if (fd >= 0) (void)mj_cache_sys_close(fd);
        free(label);
        free(path);
    }
    mj_fs_list_free(names, n);
    return 0;
}

void mj_cache_each_label(MjCache *cache, size_t root, void (*each)(void *user, const char *label, double compile_s), void *user)
{
    LabelVisit v = {.each = each, .user = user};

    (void)each_folder(cache, root, visit_labels, &v, NULL);
}

int mj_cache_prune(MjCache *cache, uint64_t max_bytes, MjCacheInfo *removed, MjError *err)
{
    CacheAgedList list = {.item = NULL};
    MjCacheInfo gone = {.entries = 0};
    int rc = each_folder(cache, 0, visit_aged, &list, err);

    if (rc == 0) {
        mj_cache_sort_aged(&list);
        for (size_t i = 0; i < list.n && list.bytes > max_bytes; i++) {
            if (!mj_cache_remove_aged(&list, &list.item[i])) continue;
            gone.entries++;
            gone.bytes += list.item[i].bytes;
        }
        if (gone.entries) mj_cache_usage_forget(cache);
        if (removed) *removed = gone;
    }
    mj_cache_free_aged(&list);
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
