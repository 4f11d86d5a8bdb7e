/* Aborting allocators for host bookkeeping. */
#include "runtime/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void mj_mem_abort(size_t bytes)
{
    /* There is no memory to carry an error upward with; stderr is unbuffered. */
    fprintf(stderr, "mojit: out of host memory (%zu bytes asked for)\n", bytes);
    abort();
}

void *mj_xmalloc(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p) mj_mem_abort(bytes);
    return p;
}

void *mj_xcalloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p) mj_mem_abort(count * size);
    return p;
}

void *mj_xrealloc(void *old, size_t bytes)
{
    void *p = realloc(old, bytes ? bytes : 1);
    if (!p) mj_mem_abort(bytes);
    return p;
}

char *mj_xstrndup(const char *text, size_t len)
{
    char *p = mj_xmalloc(len + 1);
    if (len) memcpy(p, text, len);
    p[len] = '\0';
    return p;
}

char *mj_xstrdup(const char *text)
{
    return mj_xstrndup(text, strlen(text));
}
