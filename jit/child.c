#include "jit/child.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"

extern char **environ;

int mj_child_file(const char *name, const char *text, size_t len)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    for (size_t at = 0; fd >= 0 && at < len;) {
        ssize_t n = write(fd, text + at, len - at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            close(fd);
            return -1;
        }
        at += (size_t)n;
    }
    if (fd >= 0) (void)lseek(fd, 0, SEEK_SET);
    return fd;
}

char *mj_child_file_text(int fd, size_t *len)
{
    MjStr text = MJ_STR_INIT;
    char buf[4096];

    (void)lseek(fd, 0, SEEK_SET);
    for (ssize_t n; (n = read(fd, buf, sizeof buf)) > 0 && text.len < 1 << 20;) mj_str_append(&text, buf, (size_t)n);
    *len = text.len;
    if (text.len == 0) {
        mj_str_free(&text);
        return NULL;
    }
    return mj_str_take(&text);
}

/* The environment less what silently changes a compile, messages in C. */
static char **environment(char *extra)
{
    static const char *const drop[] = {"CPATH=", "C_INCLUDE_PATH=", "LIBRARY_PATH=", "GCC_EXEC_PREFIX=", "COMPILER_PATH=",
                                       "LC_ALL=", "LANG=", "LANGUAGE=", "DEPENDENCIES_OUTPUT=", "SUNPRO_DEPENDENCIES="};
    size_t n = 0, k = 0;

    while (environ[n]) n++;
    char **env = mj_xcalloc(n + 3, sizeof *env);
    for (size_t i = 0; i < n; i++) {
        bool keep = true;
        for (size_t d = 0; d < sizeof drop / sizeof *drop; d++) keep &= strncmp(environ[i], drop[d], strlen(drop[d])) != 0;
        if (keep) env[k++] = environ[i];
    }
    static char locale[] = "LC_ALL=C";
    env[k++] = locale;
    env[k] = extra;
    return env;
}

/* Waits for the child; kills its group after timeout_s (0 = never). */
static int wait_child(pid_t pid, double timeout_s)
{
    int status = 0;
    bool late = false;

    if (timeout_s > 0) {
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        uint64_t until = mj_clock_ns() + (uint64_t)(timeout_s * 1e9);
        while (pidfd >= 0) {
            uint64_t now = mj_clock_ns();
            late = now >= until;
            if (late) break;
            int left = (int)((until - now) / 1000000 < INT_MAX - 1 ? (until - now) / 1000000 + 1 : INT_MAX - 1);
            int ready = poll(&p, 1, left);
            if (ready > 0 || (ready < 0 && errno != EINTR)) break;
        }
        if (pidfd >= 0) close(pidfd);
        if (late) kill(-pid, SIGKILL);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return late ? MJ_CHILD_LATE : status;
}

int mj_child_run(const char *path, char **argv, char *extra, int in, int out, double timeout_s, int *status, MjError *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_adddup2(&actions, out, 2);
    posix_spawnattr_init(&attr);
    sigemptyset(&none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setsigmask(&attr, &none);
    char **env = environment(extra);
    int failed = posix_spawn(&pid, path, &actions, &attr, argv, env);
    free(env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    if (failed) return mj_error_errno(err, MJ_ERR_MISSING, failed, "cannot start the C compiler %s", path);
    *status = wait_child(pid, timeout_s);
    return 0;
}
