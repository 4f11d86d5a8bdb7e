/* The head of kernels_bad*.cu: what a wrong kernel is given, and how it is written. harness.h puts it in where it is named. */
struct Args {
    float *out;
    const float *in;
    int n;
};
struct MapArgs { /* tensors of 64 x 64 bf16, with a box of their size and the 128-byte swizzle */
    MjTensorMap in, out;
};
#define BAD(name) extern "C" __global__ void name(const __grid_constant__ Args a)
#define BAD_MAP(name) extern "C" __global__ void name(const __grid_constant__ Args a, const __grid_constant__ MapArgs m)
#define ONE if (threadIdx.x == 0)
#define TILE_BYTES (64 * 64 * 2)
