/* Errors as values: filling, wrapping and clearing MjError. Prints nothing, allocates only for a compiler log. */
#include "runtime/base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void error_fill(MjError *err, int code, const char *fmt, va_list ap)
{
    char text[sizeof err->message]; /* the arguments may point into err->message */

    if (vsnprintf(text, sizeof text, fmt, ap) < 0) text[0] = '\0';
    free(err->log);
    err->log = NULL;
    err->code = code;
    memcpy(err->message, text, sizeof text);
}

int mj_error(MjError *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        error_fill(err, code, fmt, ap);
        va_end(ap);
    }
    return code;
}

int mj_error_errno(MjError *err, int code, int errnum, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        error_fill(err, code, fmt, ap);
        va_end(ap);
        size_t used = strlen(err->message);
        char reason[128];
        /* _GNU_SOURCE's strerror_r returns the text, which need not be in the buffer */
        const char *text = strerror_r(errnum, reason, sizeof reason);
        snprintf(err->message + used, sizeof err->message - used, ": %s", text);
    }
    return code;
}

int mj_error_context(MjError *err, int code, const char *fmt, ...)
{
    if (!err) return code;

    char context[sizeof err->message];
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(context, sizeof context - 2, fmt, ap) < 0) context[0] = '\0';
    va_end(ap);
    size_t len = strlen(context);
    memcpy(context + len, ": ", 2);
    len += 2;
    memmove(err->message + len, err->message, sizeof err->message - len); /* too long: the end is cut */
    memcpy(err->message, context, len);
    err->message[sizeof err->message - 1] = '\0';
    if (err->code == 0) err->code = code;
    return err->code;
}

void mj_error_set_log(MjError *err, const char *log, size_t len)
{
    if (!err) return;
    free(err->log);
    err->log = malloc(len + 1);
    if (!err->log) return; /* the message alone still says what failed */
    if (len) memcpy(err->log, log, len);
    err->log[len] = '\0';
}

void mj_error_copy(MjError *to, const MjError *from)
{
    if (!to) return;
    mj_error(to, from->code, "%s", from->message);
    if (from->log) mj_error_set_log(to, from->log, strlen(from->log));
}

void mj_error_clear(MjError *err)
{
    if (!err) return;
    free(err->log);
    *err = (MjError)MJ_ERROR_INIT;
}

int mj_exit_status(int code)
{
    switch (code) {
    case MJ_OK: return 0;
    case MJ_ERR_USAGE: return 2;
    case MJ_ERR_MISSING: return 3;
    case MJ_ERR_INTERRUPTED: return 130;
    default: return 1;
    }
}
