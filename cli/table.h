/* A table of results that prints itself as aligned text, as Markdown, or as JSON (an array of objects). Owns its cells.
 * An unknown number is NAN: "n/a" in text, null in JSON, never an invented value.
 */
#ifndef MJ_CLI_TABLE_H
#define MJ_CLI_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/error.h"
#include "runtime/base/str.h"

typedef struct MjColumn {
    const char *key;   /* JSON name; NULL ends the list */
    const char *title; /* heading; NULL: in JSON only */
    bool right;        /* align to the right (numbers) */
} MjColumn;

typedef struct MjTable MjTable;

MjTable *mj_table_open(const MjColumn *columns); /* the columns must outlive the table */
void mj_table_close(MjTable *t);

/* Cells are added left to right, row by row. */
void mj_table_text(MjTable *t, const char *text);                  /* NULL: n/a */
void mj_table_textf(MjTable *t, const char *fmt, ...) MJ_PRINTF(2, 3);
void mj_table_int(MjTable *t, int64_t value);                      /* shown with thousands separators */
void mj_table_real(MjTable *t, double value, int digits);          /* digits after the point; NAN: n/a */
void mj_table_show(MjTable *t, json_t *value, const char *text);   /* JSON value (stolen) and its own text */

void mj_table_render(const MjTable *t, MjStr *out);
void mj_table_markdown(const MjTable *t, MjStr *out);
json_t *mj_table_json(const MjTable *t); /* new reference */
/* To stdout, as text or JSON. */
void mj_table_print(const MjTable *t, bool json);

/* 1234567 -> "1,234,567"; 1536 -> "1.5 KiB". buf holds 32 bytes; returns buf. */
char *mj_format_count(int64_t v, char *buf);
char *mj_format_bytes(double bytes, char *buf);
char *mj_format_seconds(double s, char *buf); /* "3.2 s", "450 ms", "4 m 10 s" */
/* 12345.678, 2 -> "12,345.68"; NAN -> "n/a" */
char *mj_format_real(double v, int digits, char *buf);

#endif
