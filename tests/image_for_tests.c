/* A kernel image as the JIT makes them, small enough to read: writes IMAGE_VALUE * 1000 + block for each block, and
 * what it found in its scratch. */
#include <stdint.h>

typedef struct ImageArgs {
    int32_t *out;     /* (grid) */
    uint64_t *shared; /* (grid): address of the scratch that the block was given */
    int32_t scratch;  /* bytes of scratch to write */
} ImageArgs;

void test_kernel(const void *args, uint32_t first, uint32_t last, uint32_t grid, void *shared);

void test_kernel(const void *args, uint32_t first, uint32_t last, uint32_t grid, void *shared)
{
    const ImageArgs *a = args;

    for (uint32_t b = first; b < last && b < grid; b++) {
        for (int32_t i = 0; i < a->scratch; i++) ((volatile char *)shared)[i] = (char)b;
        a->shared[b] = (uint64_t)(uintptr_t)shared;
        a->out[b] += IMAGE_VALUE * 1000 + (int32_t)b;
    }
}
