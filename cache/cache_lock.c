/* The per-key lock between processes of one node: flock on a file in a node-local folder, which the kernel releases when
 * the holder dies. A stopped holder blocks nobody for longer than the wait. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cache/cache_internal.h"

/* The last holder unlinks the file: what was locked must still be what the name means. */
static bool still_named(int fd, const char *path)
{
    struct stat held, named;

    return mj_cache_sys_fstat(fd, &held) == 0 && mj_cache_sys_stat(path, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

bool mj_cache_lock(MjCache *cache, MjCacheKey key, double wait_s, MjCacheLock *out)
{
    char hex[33];
    uint64_t until = mj_cache_sys_now() + (uint64_t)(wait_s * 1e9);

    *out = (MjCacheLock){.fd = -1};
    if (!cache->lock_dir) return false;
    mj_cache_key_hex(key, hex);
    if (snprintf(out->path, sizeof out->path, "%s/%s.lock", cache->lock_dir, hex) >= (int)sizeof out->path) return false;
    for (long pause = 1;; pause = pause < 50 ? pause * 2 : 50) {
        int fd = mj_cache_sys_open(out->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) return false;
        bool locked = mj_cache_sys_flock(fd) == 0;
        int why = errno;
        if (locked && still_named(fd, out->path)) {
            out->fd = fd;
            return true;
        }
        (void)mj_cache_sys_close(fd);
        if (locked) continue;
        if (why != EWOULDBLOCK && why != EINTR) return false; /* no locks on this file system */
        if (mj_cache_sys_now() >= until) return false;
        mj_cache_sys_sleep(pause);
    }
}

void mj_cache_unlock(MjCacheLock *lock)
{
    if (lock->fd < 0) return;
    (void)mj_cache_sys_unlink(lock->path);
    (void)mj_cache_sys_close(lock->fd);
    lock->fd = -1;
}
