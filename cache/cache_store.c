/* Roots, reading and publishing. Owns the layout on disk: <root>/v1/<2 hex>/<32 hex>.mj */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "runtime/base/clock.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"

enum { FAN_OUT = 256, TOUCH_AFTER_S = 3600 };

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

    if ((fd >= 0 ? fstat(fd, &st) : stat(path, &st)) != 0)
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

char *mj_cache_folder_path(const CacheRoot *root, MjCacheKey key)
{
    return mj_strdup_printf("%s/v%d/%02x", root->path, MJ_CACHE_FORMAT, key.bytes[0]);
}

static char *entry_path(const CacheRoot *root, MjCacheKey key)
{
    char hex[33];

    mj_cache_key_hex(key, hex);
    return mj_strdup_printf("%s/v%d/%02x/%s.mj", root->path, MJ_CACHE_FORMAT, key.bytes[0], hex);
}

static int read_all(int fd, size_t len, char *buf)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = read(fd, buf + at, len - at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        at += (size_t)n;
    }
    return 0;
}

int mj_cache_read_file(const char *path, const MjCacheKey *expect, MjCacheEntry *out, const char **problem)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), result = -1;
    struct stat st;
    char *bytes = NULL;
    MjCacheEntry entry;

    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR) return 0;
        *problem = errno == ELOOP ? "it is a link" : "it could not be opened";
        return -1;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        *problem = "it is not a regular file";
        goto out;
    }
    if (mj_cache_check_owner(path, fd, "entry", NULL) != 0) {
        *problem = "somebody else could have written it (owner or permissions)";
        goto out;
    }
    bytes = mj_xmalloc((size_t)st.st_size + 1);
    if (read_all(fd, (size_t)st.st_size, bytes) != 0) {
        *problem = "it could not be read to its end";
        goto out;
    }
    if (mj_cache_entry_parse(bytes, (size_t)st.st_size, &entry, problem) != 0) goto out;
    if (expect && memcmp(expect->bytes, entry.key.bytes, sizeof entry.key.bytes) != 0) {
        mj_cache_entry_free(&entry);
        *problem = "it holds the entry of another key";
        goto out;
    }
    /* Least recently used: the time of modification is the time of the last use, kept to the hour. */
    if (time(NULL) - st.st_mtime > TOUCH_AFTER_S) (void)futimens(fd, NULL);
    *out = entry;
    result = 1;
out:
    free(bytes);
    close(fd);
    return result;
}

/* Whether this bad entry has not been spoken of yet. Remembers the last few; replacing an entry starts anew. */
static bool first_word_of(MjCache *cache, MjCacheKey key)
{
    bool first = true;

    pthread_mutex_lock(&cache->mutex);
    for (size_t i = 0; i < SPOKEN_OF; i++) first &= memcmp(&cache->spoken_of[i], &key, sizeof key) != 0;
    if (first) cache->spoken_of[cache->n_spoken_of++ % SPOKEN_OF] = key;
    pthread_mutex_unlock(&cache->mutex);
    return first;
}

static void speak_again(MjCache *cache, MjCacheKey key)
{
    pthread_mutex_lock(&cache->mutex);
    for (size_t i = 0; i < SPOKEN_OF; i++)
        if (memcmp(&cache->spoken_of[i], &key, sizeof key) == 0) memset(&cache->spoken_of[i], 0, sizeof key);
    pthread_mutex_unlock(&cache->mutex);
}

MjCacheResult mj_cache_get(MjCache *cache, MjCacheKey key, MjCacheEntry *out)
{
    MjCacheResult result = MJ_CACHE_MISS;

    for (size_t i = 0; i < cache->n_roots; i++) {
        const char *problem = NULL;
        if (cache->roots[i].problem) continue;
        char *path = entry_path(&cache->roots[i], key);
        int found = mj_cache_read_file(path, &key, out, &problem);
        if (found < 0) {
            if (first_word_of(cache, key))
                mj_cache_warn(cache, "cache entry %s is not used: %s; it will be built again", path, problem);
            result = MJ_CACHE_CORRUPT;
        }
        free(path);
        if (found > 0) return MJ_CACHE_HIT;
    }
    return result;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = mj_cache_sys_write(fd, data, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Temporary beside the entry, fsync, rename, fsync of the folder. */
static int publish(const char *folder, const char *path, const MjStr *bytes, MjError *err)
{
    static atomic_uint serial;
    /* With the time, because process numbers come again soon where every container starts at 1. */
    char *temp = mj_strdup_printf("%s/.tmp-%ld-%u-%llx", folder, (long)getpid(), atomic_fetch_add(&serial, 1),
                                  (unsigned long long)mj_clock_ns());
    int rc = 0, fd = mj_cache_sys_open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0) {
        rc = mj_error_errno(err, MJ_ERR_IO, errno, "cannot create %s", temp);
        goto out;
    }
    /* 0644 whatever the umask: an entry that others could write would be refused when it is read. */
    bool failed = fchmod(fd, 0644) != 0 || write_all(fd, bytes->data, bytes->len) != 0 || mj_cache_sys_fsync(fd) != 0;
    int why = errno;
    if (mj_cache_sys_close(fd) != 0 && !failed && errno != EINTR) {
        failed = true;
        why = errno;
    }
    if (failed)
        rc = mj_error_errno(err, MJ_ERR_IO, why, "cannot write %s", temp);
    else if (mj_cache_sys_rename(temp, path) != 0)
        rc = mj_error_errno(err, MJ_ERR_IO, errno, "cannot rename %s to %s", temp, path);
    if (rc != 0) unlink(temp);
    int dir = rc == 0 ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (dir >= 0) {
        (void)mj_cache_sys_fsync(dir); /* the entry is whole either way; only its surviving a power cut is at stake */
        close(dir);
    }
out:
    free(temp);
    return rc;
}

int mj_cache_put(MjCache *cache, const char *label_text, const void *image, size_t image_bytes, const char *log,
                 double compile_s, MjError *err)
{
    CacheRoot *root = &cache->roots[0];
    MjCacheKey key = mj_cache_key(label_text);
    MjError why = MJ_ERROR_INIT;

    if (root->problem) return mj_error(err, MJ_ERR_IO, "%s", root->problem);
    char *folder = mj_cache_folder_path(root, key), *path = entry_path(root, key);
    MjStr bytes = mj_cache_entry_encode(label_text, image, image_bytes, log, compile_s);
    int rc = mj_fs_make_dirs(folder, 0755, &why);

    if (rc == 0) rc = publish(folder, path, &bytes, &why);
    if (rc == 0) speak_again(cache, key);
    if (rc == 0) mj_cache_prune_folder(folder, cache->max_bytes / FAN_OUT, path);
    if (rc != 0) {
        pthread_mutex_lock(&cache->mutex);
        bool warn = !cache->put_warned;
        cache->put_warned = true;
        pthread_mutex_unlock(&cache->mutex);
        if (warn)
            mj_cache_warn(cache, "compiled kernels are not kept: %s; the run goes on and compiles again next time",
                          why.message);
        mj_error(err, rc, "%s", why.message);
    }
    mj_error_clear(&why);
    mj_str_free(&bytes);
    free(folder);
    free(path);
    return rc;
}
