/* Tables of results as text, Markdown and JSON. See table.h. */
#include "cli/table.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"

struct MjTable {
    const MjColumn *columns;
    int n_columns;
    char **cells;   /* (rows * n_columns) */
    json_t *rows;   /* array of objects */
    size_t n_cells;
};

MjTable *mj_table_open(const MjColumn *columns)
{
    MjTable *t = mj_xcalloc(1, sizeof *t);
    t->columns = columns;
    while (columns[t->n_columns].key != NULL) t->n_columns++;
    t->rows = json_array();
    return t;
}

void mj_table_close(MjTable *t)
{
    if (t == NULL) return;
    for (size_t i = 0; i < t->n_cells; i++) free(t->cells[i]);
    free(t->cells);
    json_decref(t->rows);
    free(t);
}

void mj_table_show(MjTable *t, json_t *value, const char *text)
{
    size_t column = t->n_cells % (size_t)t->n_columns;
    if (column == 0) json_array_append_new(t->rows, json_object());
    json_t *row = json_array_get(t->rows, json_array_size(t->rows) - 1);
    json_object_set_new(row, t->columns[column].key, value);
    t->cells = mj_xrealloc(t->cells, (t->n_cells + 1) * sizeof *t->cells);
    t->cells[t->n_cells++] = mj_xstrdup(text);
}

void mj_table_text(MjTable *t, const char *text)
{
    mj_table_show(t, text != NULL ? json_string(text) : json_null(), text != NULL ? text : "n/a");
}

void mj_table_textf(MjTable *t, const char *fmt, ...)
{
    MjStr s = MJ_STR_INIT;
    va_list ap;
    va_start(ap, fmt);
    mj_str_vprintf(&s, fmt, ap);
    va_end(ap);
    mj_table_text(t, mj_str_text(&s));
    mj_str_free(&s);
}

void mj_table_int(MjTable *t, int64_t value)
{
    char buf[32];
    mj_table_show(t, json_integer(value), mj_format_count(value, buf));
}

void mj_table_real(MjTable *t, double value, int digits)
{
    char buf[32];
    mj_table_show(t, isfinite(value) ? json_real(value) : json_null(), mj_format_real(value, digits, buf));
}

static int display_width(const char *s)
{
    int n = 0;
    for (; *s != '\0'; s++) n += ((unsigned char)*s & 0xc0) != 0x80; /* UTF-8 continuation bytes take no room */
    return n;
}

static void pad(MjStr *out, const char *text, int width, bool right)
{
    int room = width - display_width(text);
    if (right) mj_str_printf(out, "%*s", room > 0 ? room : 0, "");
    mj_str_puts(out, text);
    if (!right) mj_str_printf(out, "%*s", room > 0 ? room : 0, "");
}

static void widths_of(const MjTable *t, int *widths)
{
    for (int c = 0; c < t->n_columns; c++) {
        widths[c] = t->columns[c].title != NULL ? display_width(t->columns[c].title) : 0;
        for (size_t i = (size_t)c; i < t->n_cells; i += (size_t)t->n_columns) {
            int w = display_width(t->cells[i]);
            if (w > widths[c]) widths[c] = w;
        }
    }
}

static void emit(const MjTable *t, MjStr *out, const char *left, const char *between, const char *right, bool markdown)
{
    int *widths = mj_xcalloc((size_t)t->n_columns + 1, sizeof *widths);
    widths_of(t, widths);
    size_t n_rows = (t->n_cells + (size_t)t->n_columns - 1) / (size_t)t->n_columns;
    for (size_t r = 0; r <= n_rows; r++) {
        bool first = true;
        mj_str_puts(out, left);
        for (int c = 0; c < t->n_columns; c++) {
            if (t->columns[c].title == NULL) continue;
            size_t i = (r - 1) * (size_t)t->n_columns + (size_t)c;
            const char *text = r == 0 ? t->columns[c].title : i < t->n_cells ? t->cells[i] : "";
            if (!first) mj_str_puts(out, between);
            pad(out, text, widths[c], t->columns[c].right);
            first = false;
        }
        mj_str_puts(out, right);
        while (!markdown && out->len > 0 && out->data[out->len - 1] == ' ') out->data[--out->len] = '\0';
        mj_str_puts(out, "\n");
        if (r != 0 || !markdown) continue;
        for (int c = 0; c < t->n_columns; c++) {
            if (t->columns[c].title != NULL) mj_str_puts(out, t->columns[c].right ? "| ---: " : "| --- ");
        }
        mj_str_puts(out, "|\n");
    }
    free(widths);
}

void mj_table_render(const MjTable *t, MjStr *out) { emit(t, out, "", "  ", "", false); }
void mj_table_markdown(const MjTable *t, MjStr *out) { emit(t, out, "| ", " | ", " |", true); }
json_t *mj_table_json(const MjTable *t) { return json_incref(t->rows); }

void mj_table_print(const MjTable *t, bool json)
{
    if (json) {
        char *text = json_dumps(t->rows, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        puts(text != NULL ? text : "[]");
        free(text);
        return;
    }
    MjStr s = MJ_STR_INIT;
    mj_table_render(t, &s);
    fputs(mj_str_text(&s), stdout);
    mj_str_free(&s);
}

/* Puts a comma between groups of three digits of the integer part. */
static char *group_digits(const char *plain, char *buf, size_t cap)
{
    const char *digits = plain + (*plain == '-');
    size_t n = strspn(digits, "0123456789");
    size_t at = 0;
    if (*plain == '-') buf[at++] = '-';
    for (size_t i = 0; i < n && at + 2 < cap; i++) {
        buf[at++] = digits[i];
        if (i + 1 < n && (n - i - 1) % 3 == 0) buf[at++] = ',';
    }
    snprintf(buf + at, cap - at, "%s", digits + n);
    return buf;
}

char *mj_format_count(int64_t v, char *buf)
{
    char plain[32];
    snprintf(plain, sizeof plain, "%" PRId64, v);
    return group_digits(plain, buf, 32);
}

char *mj_format_real(double v, int digits, char *buf)
{
    char plain[64];
    if (!isfinite(v)) {
        snprintf(buf, 32, "n/a");
        return buf;
    }
    if (fabs(v) >= 1e15) {
        snprintf(buf, 32, "%.6g", v);
        return buf;
    }
    snprintf(plain, sizeof plain, "%.*f", digits, v);
    return group_digits(plain, buf, 32);
}

char *mj_format_bytes(double bytes, char *buf)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    while (bytes >= 1024.0 && u < 4) {
        bytes /= 1024.0;
        u++;
    }
    snprintf(buf, 32, u == 0 ? "%.0f %s" : "%.1f %s", bytes, units[u]);
    return buf;
}

char *mj_format_seconds(double s, char *buf)
{
    if (!isfinite(s)) {
        snprintf(buf, 32, "n/a");
    } else if (s < 1.0) {
        snprintf(buf, 32, "%.0f ms", s * 1e3);
    } else if (s < 120.0) {
        snprintf(buf, 32, "%.1f s", s);
    } else {
        snprintf(buf, 32, "%d m %02d s", (int)(s / 60.0), (int)s % 60);
    }
    return buf;
}
