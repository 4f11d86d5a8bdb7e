/* A child process without a shell: its own process group, killed at a limit. Owns the environment that compilers get.
 * Callable from any thread. */
#ifndef MJ_JIT_CHILD_H
#define MJ_JIT_CHILD_H

#include <stddef.h>

#include "runtime/base/error.h"

/* An anonymous file holding `text`, at its start; negative with errno on failure. The caller closes it. */
int mj_child_file(const char *name, const char *text, size_t len);

/* What is in such a file, malloc'd, at most 1 MiB; NULL when it is empty. */
char *mj_child_file_text(int fd, size_t *len);

enum { MJ_CHILD_LATE = -1 };

/* Runs `path` with argv (its first element included) and `extra`, an environment line or NULL; descriptors 0 and 1+2 are `in`
 * and `out`. Blocks until it ends or its group was killed after timeout_s (0 = never). *status is the wait status, or
 * MJ_CHILD_LATE. */
int mj_child_run(const char *path, char **argv, char *extra, int in, int out, double timeout_s, int *status,
                 MjError *err) MJ_MUST_CHECK;

#endif
