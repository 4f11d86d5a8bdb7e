/* See cache_sys.h. In test builds (MJ_FAILPOINTS) each call of publishing can be made to fail, to fall short, or to kill the
 * process before or after it, so that every interruption can be tried. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "cache/cache_sys.h"
#include "runtime/base/clock.h"
#include "runtime/base/fs.h"

#ifdef MJ_FAILPOINTS
/* Returns 1 for "fail with errno", 2 for "short", 0 to go on; kills the process when asked to. */
static int failpoint(const char *when, const char *call)
{
    static const struct {
        const char *name;
        int number;
    } errors[] = {{"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EACCES", EACCES}, {"EINTR", EINTR}};
    static _Thread_local int interrupted;
    const char *spec = getenv("MOJIT_FAILPOINT");
    char want[64];

    snprintf(want, sizeof want, "%s:%s:", when, call);
    if (!spec || strncmp(spec, want, strlen(want)) != 0) return 0;
    const char *action = spec + strlen(want);
    if (strcmp(action, "kill") == 0) raise(SIGKILL);
    if (strcmp(action, "short") == 0) return 2;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (strcmp(action, errors[i].name) != 0) continue;
        if (errors[i].number == EINTR && interrupted++ % 2 == 1) return 0; /* every other call is interrupted */
        errno = errors[i].number;
        return 1;
    }
    return 0;
}
#else
static inline int failpoint(const char *when, const char *call)
{
    (void)when;
    (void)call;
    return 0;
}
#endif

int mj_cache_sys_open(const char *path, int flags, mode_t mode)
{
    int fd;

    do {
        fd = failpoint("before", "open") == 1 ? -1 : open(path, flags, mode);
    } while (fd < 0 && errno == EINTR);
    (void)failpoint("after", "open");
    return fd;
}

ssize_t mj_cache_sys_write(int fd, const void *buf, size_t n)
{
    int fail = failpoint("before", "write");

    if (fail == 1) return -1;
    ssize_t done = write(fd, buf, fail == 2 && n > 1 ? n / 2 : n);
    (void)failpoint("after", "write");
    return done;
}

ssize_t mj_cache_sys_read(int fd, void *buf, size_t n)
{
    return read(fd, buf, n);
}

int mj_cache_sys_chmod(int fd, mode_t mode)
{
    int rc;

    do {
        rc = failpoint("before", "chmod") == 1 ? -1 : fchmod(fd, mode);
    } while (rc != 0 && errno == EINTR);
    (void)failpoint("after", "chmod");
    return rc;
}

int mj_cache_sys_fsync(int fd)
{
    int rc;

    do {
        rc = failpoint("before", "fsync") == 1 ? -1 : fsync(fd);
    } while (rc != 0 && errno == EINTR);
    (void)failpoint("after", "fsync");
    return rc;
}

int mj_cache_sys_close(int fd)
{
    bool fail = failpoint("before", "close") == 1;
    int why = errno, rc = close(fd);

    (void)failpoint("after", "close");
    if (!fail) return rc;
    errno = why;
    return -1;
}

int mj_cache_sys_rename(const char *from, const char *to)
{
    int rc;

    do {
        rc = failpoint("before", "rename") == 1 ? -1 : rename(from, to);
    } while (rc != 0 && errno == EINTR);
    (void)failpoint("after", "rename");
    return rc;
}

int mj_cache_sys_unlink(const char *path)
{
    return unlink(path);
}

int mj_cache_sys_stat(const char *path, struct stat *st)
{
    return lstat(path, st);
}

int mj_cache_sys_fstat(int fd, struct stat *st)
{
    return fstat(fd, st);
}

int mj_cache_sys_flock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB);
}

void mj_cache_sys_touch(int fd)
{
    (void)futimens(fd, NULL); /* a root that can't be written keeps its times */
}

bool mj_cache_sys_exists(const char *path)
{
    return mj_fs_exists(path);
}

uint64_t mj_cache_sys_now(void)
{
    return mj_clock_ns();
}

void mj_cache_sys_sleep(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

int mj_cache_sys_make_dirs(const char *folder, MjError *err)
{
    return mj_fs_make_dirs(folder, 0755, err);
}

int mj_cache_sys_list(const char *folder, char ***names, size_t *n)
{
    return mj_fs_list(folder, names, n, NULL);
}
