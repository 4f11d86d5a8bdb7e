/* Files and folders over POSIX calls. */
#include "runtime/base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/mem.h"
#include "runtime/base/str.h"

static int io_error(MjError *err, int errnum, const char *what, const char *path)
{
    return mj_error_errno(err, MJ_ERR_IO, errnum, "%s '%s'", what, path);
}

int mj_fs_input_code(int errnum) { return errnum == ENOENT || errnum == ENOTDIR ? MJ_ERR_USAGE : MJ_ERR_IO; }

static int read_file(const char *path, bool input, char **data, size_t *len, MjError *err)
{
    int rc = 0;
    char *buf = NULL;
    size_t used = 0, cap = 0;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) return mj_error_errno(err, input ? mj_fs_input_code(errno) : MJ_ERR_IO, errno, "cannot open '%s'", path);
    if (fstat(fd, &st) != 0) {
        rc = io_error(err, errno, "cannot stat", path);
        goto out;
    }
    if (S_ISDIR(st.st_mode)) {
        rc = mj_error(err, input ? MJ_ERR_USAGE : MJ_ERR_IO, "'%s' is a folder; a file was expected", path);
        goto out;
    }
    cap = st.st_size > 0 ? (size_t)st.st_size + 1 : 4096; /* /proc and pipes say 0 */
    buf = mj_xmalloc(cap);
    for (;;) {
        if (used + 1 >= cap) {
            cap *= 2;
            buf = mj_xrealloc(buf, cap);
        }
        ssize_t n = read(fd, buf + used, cap - used - 1);
        if (n == 0) break;
        if (n < 0) {
            if (errno == EINTR) continue;
            rc = io_error(err, errno, "cannot read", path);
            goto out;
        }
        used += (size_t)n;
    }
    buf[used] = '\0';
    *data = buf;
    buf = NULL;
    if (len) *len = used;
out:
    free(buf);
    close(fd);
    return rc;
}

int mj_fs_read(const char *path, char **data, size_t *len, MjError *err) { return read_file(path, false, data, len, err); }
int mj_fs_read_input(const char *path, char **data, size_t *len, MjError *err) { return read_file(path, true, data, len, err); }

static int write_all(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0) {
            if (errno == EINTR) continue;
            return errno;
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* The rename is durable only once the folder is; a file system that can't sync a folder is not an error. */
static void sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL ? mj_xstrdup(".") : mj_xstrndup(path, slash == path ? 1 : (size_t)(slash - path));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(dir);
}

int mj_fs_write_atomic(const char *path, const void *data, size_t len, MjError *err)
{
    static atomic_uint serial;
    int rc = 0, fd, errnum;
    char *temporary = mj_strdup_printf("%s.%ld.%u.tmp", path, (long)getpid(), atomic_fetch_add(&serial, 1));

    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0 && errno == EEXIST) { /* left by a killed process that had our pid */
        unlink(temporary);
        fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    }
    if (fd < 0) {
        rc = io_error(err, errno, "cannot create", temporary);
        goto out;
    }
    errnum = write_all(fd, data, len);
    if (errnum == 0 && fsync(fd) != 0 && errno != EINVAL && errno != EROFS) errnum = errno;
    if (close(fd) != 0 && errnum == 0) errnum = errno;
    if (errnum == 0 && rename(temporary, path) != 0) errnum = errno;
    if (errnum != 0) {
        unlink(temporary);
        rc = io_error(err, errnum, "cannot write", path);
        goto out;
    }
    sync_folder_of(path);
out:
    free(temporary);
    return rc;
}

int mj_fs_make_dirs(const char *path, mode_t mode, MjError *err)
{
    int rc = 0;
    char *copy = mj_xstrdup(path);

    for (char *p = copy + 1; copy[0];) {
        while (*p && *p != '/') p++;
        char end = *p;
        *p = '\0';
        if (mkdir(copy, mode) != 0) {
            int errnum = errno;
            if (!mj_fs_is_dir(copy)) {
                rc = io_error(err, errnum, "cannot create folder", copy);
                break;
            }
        }
        if (end == '\0') break;
        *p++ = end;
    }
    free(copy);
    return rc;
}

bool mj_fs_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool mj_fs_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int mj_fs_list(const char *dir, char ***names, size_t *n, MjError *err)
{
    char **list = NULL;
    size_t count = 0, cap = 0;
    struct dirent *entry;
    DIR *d = opendir(dir);

    if (!d) return io_error(err, errno, "cannot list folder", dir);
    while ((errno = 0, entry = readdir(d)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (count == cap) {
            cap = cap ? cap * 2 : 16;
            list = mj_xrealloc(list, cap * sizeof *list);
        }
        list[count++] = mj_xstrdup(entry->d_name);
    }
    int errnum = errno;
    closedir(d);
    if (errnum != 0) {
        mj_fs_list_free(list, count);
        return io_error(err, errnum, "cannot list folder", dir);
    }
    if (count > 1) qsort(list, count, sizeof *list, by_bytes);
    *names = list;
    *n = count;
    return 0;
}

void mj_fs_list_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
}

int mj_fs_remove_tree(const char *path, MjError *err)
{
    int rc = 0;
    char **names = NULL;
    size_t n = 0;
    struct stat st;

    if (lstat(path, &st) != 0) return errno == ENOENT ? 0 : io_error(err, errno, "cannot stat", path);
    if (!S_ISDIR(st.st_mode)) return unlink(path) == 0 ? 0 : io_error(err, errno, "cannot remove", path);
    MJ_TRY(mj_fs_list(path, &names, &n, err));
    for (size_t i = 0; i < n; i++) {
        char *child = mj_strdup_printf("%s/%s", path, names[i]);
        rc = mj_fs_remove_tree(child, err);
        free(child);
        if (rc != 0) goto out;
    }
    if (rmdir(path) != 0) rc = io_error(err, errno, "cannot remove folder", path);
out:
    mj_fs_list_free(names, n);
    return rc;
}
