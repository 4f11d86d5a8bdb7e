/* Errors as values. Owns MjError and the macros that fill and forward it; prints nothing.
 *
 * Convention of the whole project: a function that can fail returns int, 0 or a negative MjCode, takes
 * `MjError *err` last, leaves its out-parameters untouched on failure, and cleans up at one `out:` label.
 * `err` may be NULL (the caller wants the code only). Libraries return; only the command line prints.
 * Any thread may use these; one MjError belongs to one thread at a time.
 */
#ifndef MJ_BASE_ERROR_H
#define MJ_BASE_ERROR_H

#include <stdarg.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MJ_MUST_CHECK __attribute__((warn_unused_result))
#define MJ_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

typedef enum MjCode {
    MJ_OK = 0,
    MJ_ERR_USAGE = -2,       /* wrong configuration, shape or argument: exit 2 */
    MJ_ERR_MISSING = -3,     /* something needed is missing (compiler, device, library): exit 3 */
    MJ_ERR_IO = -4,          /* a file could not be read or written: exit 1 */
    MJ_ERR_DATA = -5,        /* a file's content is bad: exit 1 */
    MJ_ERR_COMPILE = -6,     /* a template did not compile: exit 1; `log` holds the compiler's words */
    MJ_ERR_NUMERIC = -7,     /* NaN or infinity where none may be: exit 1 */
    MJ_ERR_DEVICE = -8,      /* a device call failed: exit 1 */
    MJ_ERR_MEMORY = -9,      /* out of memory, host or device: exit 1 */
    MJ_ERR_INTERRUPTED = -10,/* SIGINT or SIGTERM asked to stop: exit 130 */
    MJ_ERR_REFUSED = -11     /* refused for safety (ownership, permissions): exit 1 */
} MjCode;

typedef struct MjError {
    int code;           /* an MjCode, or 0 */
    char message[1024]; /* one line or a few: what was wrong, where, what was expected, what to do */
    char *log;          /* compiler log, owned, NULL when there is none */
} MjError;

#define MJ_ERROR_INIT {.code = 0}

/* Sets code and message (truncated at 1023 bytes) and returns `code`, so that `return mj_error(...)` works.
 * Replaces an older message; frees an older log. */
int mj_error(MjError *err, int code, const char *fmt, ...) MJ_PRINTF(3, 4);

/* Like mj_error, and appends ": <strerror(errnum)>". */
int mj_error_errno(MjError *err, int code, int errnum, const char *fmt, ...) MJ_PRINTF(4, 5);

/* Puts "<context>: " before the message that is already there; returns err->code (or `code` if err is NULL). */
int mj_error_context(MjError *err, int code, const char *fmt, ...) MJ_PRINTF(3, 4);

/* Attaches a copy of a compiler log. */
void mj_error_set_log(MjError *err, const char *log, size_t len);

/* Makes *to (may be NULL) a copy of *from, log included. */
void mj_error_copy(MjError *to, const MjError *from);

/* Frees the log and resets to "no error". */
void mj_error_clear(MjError *err);

/* The process exit status of the command line for a code: 0, 1, 2, 3 or 130. */
int mj_exit_status(int code);

/* Forwards a failure to the `out:` label; needs `int rc` in scope. */
#define MJ_TRY(expr)                                                                               \
    do {                                                                                           \
        rc = (expr);                                                                               \
        if (rc != 0) goto out;                                                                     \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
