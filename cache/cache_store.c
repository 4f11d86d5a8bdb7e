/* Reading and publishing. Owns the layout on disk: <root>/v1/<2 hex>/<32 hex>.mj */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"

enum { TOUCH_AFTER_S = 3600 };

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
        ssize_t n = mj_cache_sys_read(fd, buf + at, len - at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        at += (size_t)n;
    }
    return 0;
}

int mj_cache_read_file(const char *path, const MjCacheKey *expect, MjCacheEntry *out, const char **problem)
{
    int fd = mj_cache_sys_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0), result = -1;
    struct stat st;
    char *bytes = NULL;
    MjCacheEntry entry;

    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR) return 0;
        *problem = errno == ELOOP ? "it is a link" : "it could not be opened";
        return -1;
    }
    if (mj_cache_sys_fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
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
    if (time(NULL) - st.st_mtime > TOUCH_AFTER_S) mj_cache_sys_touch(fd);
    *out = entry;
    result = 1;
out:
    free(bytes);
    (void)mj_cache_sys_close(fd);
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
    bool failed = mj_cache_sys_chmod(fd, 0644) != 0 || write_all(fd, bytes->data, bytes->len) != 0 || mj_cache_sys_fsync(fd) != 0;
    int why = errno;
    if (mj_cache_sys_close(fd) != 0 && !failed && errno != EINTR) {
        failed = true;
        why = errno;
    }
    if (failed)
        rc = mj_error_errno(err, MJ_ERR_IO, why, "cannot write %s", temp);
    else if (mj_cache_sys_rename(temp, path) != 0)
        rc = mj_error_errno(err, MJ_ERR_IO, errno, "cannot rename %s to %s", temp, path);
    if (rc != 0) (void)mj_cache_sys_unlink(temp);
    int dir = rc == 0 ? mj_cache_sys_open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0) : -1;
    if (dir >= 0) {
        (void)mj_cache_sys_fsync(dir); /* the entry is whole either way; only its surviving a power cut is at stake */
        (void)mj_cache_sys_close(dir);
    }
out:
    free(temp);
    return rc;
}

/* Somebody may clear the cache between the making of the folder and its use: once more then. */
static int publish_in(const char *folder, const char *path, const MjStr *bytes, MjError *err)
{
    int rc = 0;

    for (int i = 0; i < 3; i++) {
        rc = mj_cache_sys_make_dirs(folder, err);
        if (rc == 0) rc = publish(folder, path, bytes, err);
        if (rc == 0 || mj_cache_sys_exists(folder)) return rc;
    }
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
    int rc = publish_in(folder, path, &bytes, &why);

    if (rc == 0) {
        speak_again(cache, key);
        mj_cache_keep_within(cache, key, path);
    }
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
