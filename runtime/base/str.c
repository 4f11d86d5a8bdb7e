/* A growing string. */
#include "runtime/base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"

void mj_str_reserve(MjStr *s, size_t extra)
{
    size_t need = s->len + extra + 1;

    if (need <= extra) mj_mem_abort(extra);
    if (need <= s->cap) return;
    size_t cap = s->cap ? s->cap : 64;
    while (cap < need) cap = cap > need / 2 ? need : cap * 2;
    s->data = mj_xrealloc(s->data, cap);
    s->cap = cap;
}

void mj_str_append(MjStr *s, const void *bytes, size_t len)
{
    mj_str_reserve(s, len);
    if (len) memcpy(s->data + s->len, bytes, len);
    s->len += len;
    s->data[s->len] = '\0';
}

void mj_str_puts(MjStr *s, const char *text)
{
    mj_str_append(s, text, strlen(text));
}

void mj_str_vprintf(MjStr *s, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    mj_str_reserve(s, 0);
    size_t room = s->cap - s->len;
    int n = vsnprintf(s->data + s->len, room, fmt, ap);
    if (n > 0 && (size_t)n >= room) {
        mj_str_reserve(s, (size_t)n);
        vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    if (n > 0) s->len += (size_t)n;
    s->data[s->len] = '\0';
}

void mj_str_printf(MjStr *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    mj_str_vprintf(s, fmt, ap);
    va_end(ap);
}

const char *mj_str_text(const MjStr *s)
{
    return s->data ? s->data : "";
}

void mj_str_clear(MjStr *s)
{
    s->len = 0;
    if (s->data) s->data[0] = '\0';
}

void mj_str_free(MjStr *s)
{
    free(s->data);
    *s = (MjStr)MJ_STR_INIT;
}

char *mj_str_take(MjStr *s)
{
    mj_str_reserve(s, 0);
    s->data[s->len] = '\0';
    char *data = s->data;
    *s = (MjStr)MJ_STR_INIT;
    return data;
}

char *mj_strdup_printf(const char *fmt, ...)
{
    MjStr s = MJ_STR_INIT;
    va_list ap;
    va_start(ap, fmt);
    mj_str_vprintf(&s, fmt, ap);
    va_end(ap);
    return mj_str_take(&s);
}
