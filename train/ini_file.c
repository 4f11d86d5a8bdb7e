/* INI files line by line. See ini_file.h. */
#include "train/ini_file.h"

#include <ini.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"

enum { LONGEST_LINE = 190 }; /* bytes that libinih takes: it reads into 200, and the rest would be another line */

typedef struct Seen {
    char *name; /* "section.key" */
    int line;
} Seen;

typedef struct Reading {
    const MjIniReader *reader;
    const char *path;
    const char *next; /* unread text */
    char *section;    /* whole; libinih cuts it at 49 bytes */
    int line;         /* of the text being parsed; libinih's own count needs a build option */
    Seen *seen;
    size_t n_seen;
    MjError *err;
    int rc;
} Reading;

static char *where_is(const Reading *r) { return mj_strdup_printf("%s:%d", r->path, r->line); }

/* "[name] ..." in `line`, as libinih reads it. */
static int on_section(Reading *r, const char *line)
{
    const char *end = strchr(line, ']');
    if (end == NULL) return 0;
    free(r->section);
    r->section = mj_xstrndup(line + 1, (size_t)(end - line - 1));
    char *where = where_is(r);
    int rc = r->reader->section(r->reader->user, r->section, where, r->err);
    free(where);
    return rc;
}

static int check_once(Reading *r, const char *key)
{
    char *name = mj_strdup_printf("%s.%s", r->section, key);
    for (size_t i = 0; i < r->n_seen; i++) {
        if (strcmp(r->seen[i].name, name) != 0) continue;
        free(name);
        return mj_error(r->err, MJ_ERR_USAGE, "%s:%d: \"%s\" in [%s] stands in line %d already; leave one of them out", r->path, r->line,
                        key, r->section, r->seen[i].line);
    }
    if ((r->n_seen & (r->n_seen - 1)) == 0) r->seen = mj_xrealloc(r->seen, (r->n_seen == 0 ? 1 : 2 * r->n_seen) * sizeof *r->seen);
    r->seen[r->n_seen++] = (Seen){name, r->line};
    return 0;
}

static int on_setting(void *user, const char *section, const char *key, const char *value)
{
    Reading *r = user;
    if (r->rc != 0) return 0;
    (void)section;
    if (r->section == NULL) {
        r->rc = mj_error(r->err, MJ_ERR_USAGE, "%s:%d: \"%s\" stands before any [section]", r->path, r->line, key);
        return 0;
    }
    char *where = where_is(r);
    r->rc = r->reader->setting(r->reader->user, r->section, key, value, where, r->err);
    free(where);
    if (r->rc == 0) r->rc = check_once(r, key);
    return r->rc == 0;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* "key = value" of a line that is too long for libinih: paths, mostly. */
static int long_line(Reading *r, const char *line, size_t len)
{
    const char *equals = memchr(line, '=', len), *end = line + len, *value;
    if (*line == ';' || *line == '#') return 0;
    if (*line == '[' || equals == NULL || equals - line > LONGEST_LINE) {
        return mj_error(r->err, MJ_ERR_USAGE, "%s:%d: a line of %zu bytes that is no key = value", r->path, r->line, len);
    }
    for (value = equals + 1; value < end && is_space(*value); value++) {
    }
    while (end > value && is_space(end[-1])) end--;
    while (equals > line && is_space(equals[-1])) equals--;
    char *key = mj_xstrndup(line, (size_t)(equals - line)), *text = mj_xstrndup(value, (size_t)(end - value));
    (void)on_setting(r, "", key, text);
    free(key);
    free(text);
    return r->rc;
}

/* One line a call, without its indent: libinih takes an indented line for more of the value above. */
static char *read_line(char *buf, int cap, void *stream)
{
    Reading *r = stream;
    if (*r->next == '\0' || r->rc != 0) return NULL;
    size_t len = strcspn(r->next, "\n"), indent = strspn(r->next, " \t");
    const char *line = r->next + (indent < len ? indent : len);
    r->line++;
    r->next += len + (r->next[len] == '\n');
    len -= indent < len ? indent : len;
    if (len > LONGEST_LINE || len + 2 > (size_t)cap) {
        r->rc = long_line(r, line, len);
        len = 0;
    }
    memcpy(buf, line, len);
    buf[len] = '\n';
    buf[len + 1] = '\0';
    if (buf[0] == '[') r->rc = on_section(r, buf);
    return r->rc == 0 ? buf : NULL;
}

int mj_ini_read(const char *path, const MjIniReader *reader, MjError *err)
{
    int rc = 0;
    size_t len = 0;
    char *text = NULL;
    Reading r = {.reader = reader, .path = path, .err = err};
    MJ_TRY(mj_fs_read_input(path, &text, &len, err));
    if (strlen(text) != len) MJ_TRY(mj_error(err, MJ_ERR_USAGE, "%s: holds a NUL byte; expected an INI file of text", path));
    r.next = strncmp(text, "\xef\xbb\xbf", 3) == 0 ? text + 3 : text; /* a byte order mark */
    int bad_line = ini_parse_stream(read_line, &r, on_setting, &r);
    MJ_TRY(r.rc);
    if (bad_line != 0) {
        MJ_TRY(mj_error(err, MJ_ERR_USAGE, "%s:%d: neither [section], key = value nor a comment", path, bad_line));
    }
out:
    for (size_t i = 0; i < r.n_seen; i++) free(r.seen[i].name);
    free(r.seen);
    free(r.section);
    free(text);
    return rc;
}
