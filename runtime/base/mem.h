/* Host memory that never comes back NULL. For small bookkeeping only: when the host has no memory for it, the
 * process says so on stderr and aborts. Buffers whose size comes from a configuration go through the device, which
 * returns an error instead. Free with free(). Callable from any thread.
 */
#ifndef MJ_BASE_MEM_H
#define MJ_BASE_MEM_H

#include <stddef.h>

void *mj_xmalloc(size_t bytes) __attribute__((malloc, returns_nonnull));               /* bytes 0 gives a freeable pointer */
void *mj_xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));  /* zeroed; overflow aborts */
void *mj_xrealloc(void *old, size_t bytes) __attribute__((returns_nonnull));
char *mj_xstrdup(const char *text) __attribute__((malloc, returns_nonnull));
char *mj_xstrndup(const char *text, size_t len) __attribute__((malloc, returns_nonnull)); /* NUL-terminated copy */

/* Says that `bytes` could not be allocated, and aborts. */
_Noreturn void mj_mem_abort(size_t bytes);

#endif
