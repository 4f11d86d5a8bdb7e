/* "Did you mean": the candidate that a mistyped name is nearest to. Callable from any thread. */
#ifndef MJ_BASE_NEAREST_H
#define MJ_BASE_NEAREST_H

#include <stddef.h>

/* Smallest edit distance (insert, delete, replace, swap of neighbours; case and '-' / '_' do not count), at most a
 * third of the longer name; else the only candidate that starts with `name` or that `name` starts with. NULL when
 * nothing is near. The first of equals wins. The result is one of `candidates`. */
const char *mj_nearest(const char *name, const char *const *candidates, size_t n);

#endif
