/* Files and folders. Owns no state; every message names the path. Callable from any thread. */
#ifndef MJ_BASE_FS_H
#define MJ_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "runtime/base/error.h"

/* The whole file, with a NUL after its last byte. *data is malloc'd. `len` may be NULL. */
int mj_fs_read(const char *path, char **data, size_t *len, MjError *err) MJ_MUST_CHECK;

/* What it means that an input, which the user named, can't be opened: MJ_ERR_USAGE if no such file is there (the name is
 * wrong), else MJ_ERR_IO. */
int mj_fs_input_code(int errnum);

/* Like mj_fs_read, of such an input: MJ_ERR_USAGE also for a folder. */
int mj_fs_read_input(const char *path, char **data, size_t *len, MjError *err) MJ_MUST_CHECK;

/* Writes a temporary beside `path`, fsyncs, renames over `path`, fsyncs the folder: a reader sees the old bytes or the
 * new ones, never a part. The temporary is removed on failure. Permissions 0644 less the umask. */
int mj_fs_write_atomic(const char *path, const void *data, size_t len, MjError *err) MJ_MUST_CHECK;

/* Like mkdir -p; folders that exist are fine. `mode` is for the new ones, less the umask. */
int mj_fs_make_dirs(const char *path, mode_t mode, MjError *err) MJ_MUST_CHECK;

bool mj_fs_exists(const char *path); /* follows links */
bool mj_fs_is_dir(const char *path); /* follows links */

/* Names in a folder, without "." and "..", sorted by bytes. Free with mj_fs_list_free. */
int mj_fs_list(const char *dir, char ***names, size_t *n, MjError *err) MJ_MUST_CHECK;
void mj_fs_list_free(char **names, size_t n); /* NULL is fine */

/* Like rm -rf: links are removed, not followed; a missing path is fine. */
int mj_fs_remove_tree(const char *path, MjError *err) MJ_MUST_CHECK;

#endif
