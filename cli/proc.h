/* Child processes of this very program: fork and exec of /proc/self/exe, no shell. Owns the child's standard streams:
 * stdin and stdout are /dev/null, stderr is read by the parent (its end is kept for a message).
 */
#ifndef MJ_CLI_PROC_H
#define MJ_CLI_PROC_H

#include <stdbool.h>
#include <sys/types.h>

#include "runtime/base/error.h"

typedef struct MjChild {
    pid_t pid;       /* 0 = none */
    int err_fd;
    char tail[4096]; /* the end of what it said */
    size_t tail_len;
    bool done;
    int status;      /* of waitpid, when done */
} MjChild;

/* argv without the program's name, NULL-terminated. The child is killed if this process dies, and is in a process group of
 * its own, so that an interrupt from the keyboard reaches it through mj_child_interrupt only. */
int mj_child_start(MjChild *c, const char *const *argv, MjError *err) MJ_MUST_CHECK;
/* Waits up to `ms` for the child to end; reads its stderr meanwhile. Returns c->done. */
bool mj_child_wait(MjChild *c, int ms);
void mj_child_interrupt(MjChild *c);
void mj_child_close(MjChild *c); /* kills a child that is still there */
/* Its last complaint: the line after "error:", or what it died of. Static storage. */
const char *mj_child_words(const MjChild *c);
int mj_child_exit(const MjChild *c); /* exit status, or -1 when a signal ended it */

#endif
