/* Child processes. See proc.h. */
#include "cli/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/mem.h"

static _Noreturn void become(const char **argv, int err_fd, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(125); /* the parent died before the line above */
    setpgid(0, 0);
    int null = open("/dev/null", O_RDWR);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(err_fd, STDERR_FILENO);
    signal(SIGPIPE, SIG_DFL);
    union { /* execv's parameter is not const for C's sake; it writes nothing */
        const char **in;
        char **out;
    } a = {.in = argv};
    execv("/proc/self/exe", a.out);
    _exit(127);
}

int mj_child_start(MjChild *c, const char *const *words, MjError *err)
{
    int fds[2];
    size_t n = 0;
    while (words[n] != NULL) n++;
    const char **argv = mj_xcalloc(n + 2, sizeof *argv); /* before fork: no allocation in the child */
    argv[0] = "mojit";
    memcpy(argv + 1, words, n * sizeof *argv);
    *c = (MjChild){.err_fd = -1};
    if (pipe2(fds, O_CLOEXEC) != 0) {
        free(argv);
        return mj_error_errno(err, MJ_ERR_IO, errno, "pipe for a run's process");
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) become(argv, fds[1], parent);
    int saved = errno;
    free(argv);
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return mj_error_errno(err, MJ_ERR_IO, saved, "could not start a run's process");
    }
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    c->pid = pid;
    c->err_fd = fds[0];
    return 0;
}

static void drain(MjChild *c)
{
    char chunk[1024];
    for (ssize_t got; c->err_fd >= 0 && (got = read(c->err_fd, chunk, sizeof chunk)) != 0;) {
        if (got < 0) {
            if (errno == EINTR) continue;
            return;
        }
        size_t n = (size_t)got, keep = sizeof c->tail - 1 - n;
        if (c->tail_len > keep) {
            memmove(c->tail, c->tail + (c->tail_len - keep), keep);
            c->tail_len = keep;
        }
        memcpy(c->tail + c->tail_len, chunk, n);
        c->tail_len += n;
        c->tail[c->tail_len] = '\0';
    }
    if (c->err_fd >= 0) close(c->err_fd);
    c->err_fd = -1;
}

bool mj_child_wait(MjChild *c, int ms)
{
    errno = 0;
    uint64_t until = mj_clock_ns() + (uint64_t)ms * 1000000u;
    while (!c->done) {
        uint64_t now = mj_clock_ns();
        int left = now < until ? (int)((until - now) / 1000000u) + 1 : 0;
        if (c->err_fd >= 0) {
            struct pollfd p = {.fd = c->err_fd, .events = POLLIN};
            if (poll(&p, 1, left) > 0) drain(c);
        } else if (left > 0) {
            poll(NULL, 0, left < 20 ? left : 20); /* stderr is closed: it is about to end */
        }
        pid_t got = waitpid(c->pid, &c->status, WNOHANG);
        if (got == c->pid) {
            drain(c);
            c->done = true;
        }
        if (left == 0) break;
        if (c->err_fd >= 0 && !c->done && errno == EINTR) break; /* a signal for the caller to look at */
        errno = 0;
    }
    return c->done;
}

void mj_child_interrupt(MjChild *c)
{
    if (c->pid > 0 && !c->done) kill(c->pid, SIGINT);
}

void mj_child_close(MjChild *c)
{
    if (c->pid > 0 && !c->done) {
        kill(c->pid, SIGKILL);
        while (waitpid(c->pid, &c->status, 0) < 0 && errno == EINTR) {
        }
        c->done = true;
    }
    if (c->err_fd >= 0) close(c->err_fd);
    c->err_fd = -1;
}

int mj_child_exit(const MjChild *c) { return c->done && WIFEXITED(c->status) ? WEXITSTATUS(c->status) : -1; }

const char *mj_child_words(const MjChild *c)
{
    static char words[1200];
    const char *at = NULL;
    for (const char *p = c->tail; c->tail_len > 0 && (p = strstr(p, "error: ")) != NULL; p += 7) at = p + 7;
    if (at != NULL) {
        snprintf(words, sizeof words, "%s", at);
        words[strcspn(words, "\n")] = '\0';
    } else if (c->done && WIFSIGNALED(c->status)) {
        snprintf(words, sizeof words, "killed by signal %d (%s)", WTERMSIG(c->status), strsignal(WTERMSIG(c->status)));
    } else {
        snprintf(words, sizeof words, "ended with status %d without a message", mj_child_exit(c));
    }
    return words;
}
