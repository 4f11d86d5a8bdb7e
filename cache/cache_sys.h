/* The system calls by which processes meet in a cache: one seam, so that tests can interrupt each (MJ_FAILPOINTS) or run them
 * in every order (tests/cache/model.c puts its own behind it). They answer as the system's do: -1 and errno.
 *
 * With MJ_FAILPOINTS the environment variable MOJIT_FAILPOINT names "<before|after>:<call>:<action>", action one of kill,
 * ENOSPC, EIO, EACCES, EINTR, short. */
#ifndef MJ_CACHE_SYS_H
#define MJ_CACHE_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "runtime/base/error.h"

int mj_cache_sys_open(const char *path, int flags, mode_t mode);
ssize_t mj_cache_sys_read(int fd, void *buf, size_t n);
ssize_t mj_cache_sys_write(int fd, const void *buf, size_t n);
int mj_cache_sys_chmod(int fd, mode_t mode);
int mj_cache_sys_fsync(int fd);
int mj_cache_sys_close(int fd);
int mj_cache_sys_rename(const char *from, const char *to);
int mj_cache_sys_unlink(const char *path);
int mj_cache_sys_stat(const char *path, struct stat *st); /* does not follow links */
int mj_cache_sys_fstat(int fd, struct stat *st);
int mj_cache_sys_flock(int fd);    /* exclusive, without waiting */
void mj_cache_sys_touch(int fd);   /* "used now" */
bool mj_cache_sys_exists(const char *path);
uint64_t mj_cache_sys_now(void);   /* nanoseconds, monotonic */
void mj_cache_sys_sleep(long ms);
int mj_cache_sys_make_dirs(const char *folder, MjError *err) MJ_MUST_CHECK;
int mj_cache_sys_list(const char *folder, char ***names, size_t *n) MJ_MUST_CHECK; /* as mj_fs_list */

#endif
