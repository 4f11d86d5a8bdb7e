/* What is particular to a terminal: colour, the progress line, messages on stderr. The only place that writes to
 * stderr. Results go to stdout by the commands themselves.
 */
#ifndef MJ_CLI_TERM_H
#define MJ_CLI_TERM_H

#include <stdbool.h>

#include "runtime/base/error.h"

typedef enum MjTint { MJ_TINT_NONE, MJ_TINT_BOLD, MJ_TINT_RED, MJ_TINT_GREEN, MJ_TINT_YELLOW } MjTint;

/* A line on stderr: "mojit: <text>". Clears a progress line that is there. */
void mj_term_say(const char *fmt, ...) MJ_PRINTF(1, 2);
void mj_term_warn(const char *fmt, ...) MJ_PRINTF(1, 2);
/* An error with its compiler log, if any. */
void mj_term_error(const MjError *err);

/* One line that replaces itself; nothing is printed when stderr is not a terminal. */
void mj_term_progress(const char *fmt, ...) MJ_PRINTF(1, 2);
void mj_term_progress_done(void);

/* Escape codes for stdout: empty when it is not a terminal or NO_COLOR is set. */
const char *mj_term_on(MjTint tint);
const char *mj_term_off(void);
bool mj_term_stdout_is_tty(void);

/* Flushes stdout; a failure (a full disk, a closed pipe) is MJ_ERR_IO. */
int mj_term_flush(MjError *err) MJ_MUST_CHECK;

#endif
