/* A growing string. Owns its bytes; `data` is NUL-terminated after the first append and may be NULL before it.
 * Running out of host memory aborts (mem.h). One MjStr belongs to one thread at a time.
 */
#ifndef MJ_BASE_STR_H
#define MJ_BASE_STR_H

#include <stdarg.h>
#include <stddef.h>

#include "runtime/base/error.h"

typedef struct MjStr {
    char *data; /* len bytes and a NUL; NULL while nothing was appended */
    size_t len, cap;
} MjStr;

#define MJ_STR_INIT {.data = NULL, .len = 0, .cap = 0}

void mj_str_printf(MjStr *s, const char *fmt, ...) MJ_PRINTF(2, 3); /* appends */
void mj_str_vprintf(MjStr *s, const char *fmt, va_list ap) MJ_PRINTF(2, 0);
void mj_str_append(MjStr *s, const void *bytes, size_t len);
void mj_str_puts(MjStr *s, const char *text); /* appends */
void mj_str_reserve(MjStr *s, size_t extra);  /* room for `extra` more bytes and a NUL */
const char *mj_str_text(const MjStr *s);      /* never NULL: "" when empty */
void mj_str_clear(MjStr *s);                  /* keeps the memory */
void mj_str_free(MjStr *s);
char *mj_str_take(MjStr *s); /* the bytes, malloc'd, never NULL; `s` is empty afterwards */

char *mj_strdup_printf(const char *fmt, ...) MJ_PRINTF(1, 2); /* malloc'd */

#endif
