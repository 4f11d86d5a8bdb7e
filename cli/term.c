/* Terminal output: messages, progress line, colour. See term.h. */
#include "cli/term.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool g_progress_shown;

static bool colour_wanted(void)
{
    const char *no = getenv("NO_COLOR");
    return no == NULL || no[0] == '\0';
}

/* What stands before a message: the results so far, in whole lines where both streams are one file; no progress line. */
static void make_way(void)
{
    (void)fflush(stdout); /* an error stays set, and is reported when the program ends */
    if (g_progress_shown) fputs("\r\033[K", stderr);
    g_progress_shown = false;
}

static void say(const char *label, const char *fmt, va_list ap)
{
    make_way();
    fprintf(stderr, "mojit: %s", label);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

void mj_term_say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("", fmt, ap);
    va_end(ap);
}

void mj_term_warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("warning: ", fmt, ap);
    va_end(ap);
}

void mj_term_error(const MjError *err)
{
    make_way();
    const bool tty = isatty(STDERR_FILENO) != 0 && colour_wanted();
    fprintf(stderr, "mojit: %serror:%s %s\n", tty ? "\033[31m" : "", tty ? "\033[0m" : "", err->message);
    if (err->log != NULL && err->log[0] != '\0') {
        size_t len = strlen(err->log);
        fprintf(stderr, "--- compiler log ---\n%s%s--- end of log ---\n", err->log, err->log[len - 1] == '\n' ? "" : "\n");
    }
}

void mj_term_progress(const char *fmt, ...)
{
    if (!isatty(STDERR_FILENO)) return;
    char line[512];
    struct winsize size;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    const int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
    fprintf(stderr, "\r\033[K%.*s", columns - 1, line); /* a line that wraps could not be taken back */
    fflush(stderr);
    g_progress_shown = true;
}

void mj_term_progress_done(void)
{
    make_way();
    fflush(stderr);
}

bool mj_term_stdout_is_tty(void) { return isatty(STDOUT_FILENO) != 0; }

static bool colour(void) { return mj_term_stdout_is_tty() && colour_wanted(); }

const char *mj_term_on(MjTint tint)
{
    static const char *const codes[] = {"", "\033[1m", "\033[31m", "\033[32m", "\033[33m"};
    return colour() ? codes[tint] : "";
}

const char *mj_term_off(void) { return colour() ? "\033[0m" : ""; }

int mj_term_flush(MjError *err)
{
    errno = 0;
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return mj_error_errno(err, MJ_ERR_IO, errno != 0 ? errno : EIO, "could not write the results to standard output");
    }
    return 0;
}
