/* Roots: opening them, what is refused, the folder of locks. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"

void mj_cache_warn(MjCache *cache, const char *fmt, ...)
{
    va_list ap;
    MjStr line = MJ_STR_INIT;

    if (!cache->warn) return;
    va_start(ap, fmt);
    mj_str_vprintf(&line, fmt, ap);
    va_end(ap);
    cache->warn(cache->user, mj_str_text(&line));
    mj_str_free(&line);
}

int mj_cache_check_owner(const char *path, int fd, const char *what, MjError *err)
{
    struct stat st;

    if ((fd >= 0 ? mj_cache_sys_fstat(fd, &st) : stat(path, &st)) != 0)
        return mj_error_errno(err, MJ_ERR_IO, errno, "cannot look at %s %s", what, path);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return mj_error(err, MJ_ERR_REFUSED,
                        "%s %s belongs to user %u, not to you (%u) or root; cached images are code, so it is refused. "
                        "Use a folder of your own (MOJIT_CACHE)",
                        what, path, (unsigned)st.st_uid, (unsigned)geteuid());
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return mj_error(err, MJ_ERR_REFUSED,
                        "%s %s can be written by %s (mode %04o); cached images are code, so it is refused. Repair it with "
                        "chmod go-w, if nobody else has written there",
                        what, path, st.st_mode & S_IWOTH ? "everybody" : "its group", (unsigned)(st.st_mode & 07777));
    return 0;
}

static char *default_roots(void)
{
    const char *env = getenv("MOJIT_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (env && *env) return mj_xstrdup(env);
    if (xdg && *xdg == '/') return mj_strdup_printf("%s/mojit", xdg);
    if (home && *home) return mj_strdup_printf("%s/.cache/mojit", home);
    return mj_strdup_printf("/tmp/mojit-cache-%u", (unsigned)geteuid());
}

/* Decides whether a root can be read and written; makes the first one. */
static void open_root(CacheRoot *root, bool first)
{
    MjError err = MJ_ERROR_INIT;

    if (!mj_fs_exists(root->path) && !first) {
        root->problem = mj_strdup_printf("cache root %s does not exist", root->path);
        return;
    }
    if (!mj_fs_exists(root->path) && mj_fs_make_dirs(root->path, 0700, &err) != 0) goto refused;
    if (!mj_fs_is_dir(root->path)) {
        root->problem = mj_strdup_printf("cache root %s is not a folder", root->path);
        return;
    }
    if (mj_cache_check_owner(root->path, -1, "cache root", &err) != 0) goto refused;
    root->writable = first && access(root->path, W_OK | X_OK) == 0;
    return;
refused:
    root->problem = mj_xstrdup(err.message);
    mj_error_clear(&err);
}

/* A folder for locks: node-local, ours alone. NULL when there is none to be had. */
static char *open_lock_dir(const char *wanted)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char *path = wanted                       ? mj_xstrdup(wanted)
                 : runtime && *runtime == '/' ? mj_strdup_printf("%s/mojit-locks", runtime)
                                              : mj_strdup_printf("/tmp/mojit-locks-%u", (unsigned)geteuid());
    struct stat st;

    if (mkdir(path, 0700) != 0 && errno != EEXIST) goto none;
    if (lstat(path, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077)) goto none;
    return path;
none:
    free(path);
    return NULL;
}

int mj_cache_open(const MjCacheOptions *opt, MjCache **out, MjError *err)
{
    char *list = opt->roots && *opt->roots ? mj_xstrdup(opt->roots) : default_roots();
    MjCache *cache = mj_xcalloc(1, sizeof *cache);

    cache->max_bytes = opt->max_bytes ? opt->max_bytes : MJ_CACHE_DEFAULT_BYTES;
    cache->warn = opt->warn;
    cache->user = opt->user;
    pthread_mutex_init(&cache->mutex, NULL);
    for (char *at = list; at;) {
        char *path = strsep(&at, ":");
        if (*path == 0) {
            free(list);
            mj_cache_close(cache);
            return mj_error(err, MJ_ERR_USAGE,
                            "the list of cache roots holds an empty name; write folders with one ':' between them");
        }
        cache->roots = mj_xrealloc(cache->roots, (cache->n_roots + 1) * sizeof *cache->roots);
        CacheRoot *root = &cache->roots[cache->n_roots++];
        *root = (CacheRoot){.path = mj_xstrdup(path)};
        open_root(root, cache->n_roots == 1);
        if (root->problem) mj_cache_warn(cache, "%s; going on without it", root->problem);
    }
    free(list);
    cache->lock_dir = open_lock_dir(opt->lock_dir);
    *out = cache;
    return 0;
}

void mj_cache_close(MjCache *cache)
{
    if (!cache) return;
    mj_cache_stats_flush(cache);
    for (size_t i = 0; i < cache->n_roots; i++) {
        free(cache->roots[i].path);
        free(cache->roots[i].problem);
    }
    free(cache->roots);
    free(cache->rows);
    free(cache->lock_dir);
    pthread_mutex_destroy(&cache->mutex);
    free(cache);
}

size_t mj_cache_root_count(const MjCache *cache)
{
    return cache->n_roots;
}

const char *mj_cache_root(const MjCache *cache, size_t i)
{
    return cache->roots[i].path;
}

const char *mj_cache_root_problem(const MjCache *cache, size_t i)
{
    return cache->roots[i].problem;
}

bool mj_cache_root_writable(const MjCache *cache, size_t i)
{
    return cache->roots[i].writable;
}
