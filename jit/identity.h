/* What a compiler is, down to the build: the programs and libraries behind it by their build ids, never a path. */
#ifndef MJ_JIT_IDENTITY_H
#define MJ_JIT_IDENTITY_H

#include "runtime/base/error.h"

/* The ELF build id of a file, or a hash of all its bytes where it has none: "4178c06f…", malloc'd; NULL when it can't be read.
 * Reads some kilobytes where there is a build id. */
char *mj_build_id(const char *path);

/* The identity of a C compiler driver: the driver and what it starts (gcc: cc1, as, ld; clang: clang and its libraries, ld).
 * malloc'd. Asks the driver at its first call for a driver in a process, 1 ms a question, and remembers the answer. A driver
 * that does not answer within timeout_s (0 = 10) is MJ_ERR_COMPILE; one that fails to answer is identified by itself. */
int mj_identify_cc(const char *driver, double timeout_s, char **out, MjError *err) MJ_MUST_CHECK;

#endif
