/* How much code a cubin holds: what its compile took, in a number that no load of the machine changes. */
#ifndef MJ_TESTS_CUBIN_CODE_H
#define MJ_TESTS_CUBIN_CODE_H

#include <stddef.h>

/* Instructions of 16 bytes in all entry points, with what fills each up to 128 bytes; 0 when `image` is no 64-bit ELF file. Blocks
 * for nothing, from any thread. */
long mj_cubin_instructions(const void *image, size_t bytes);

#endif
