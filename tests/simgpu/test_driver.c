/* What the simulated driver refuses by itself, asked past mojit's own checks: launch geometry over the limits, attributes of a
 * kernel, tensor maps that a card can't use. Arguments: the simulator's libraries, kernels_good.cu. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/cuda_api.h"
#include "runtime/cuda_tensor_map.h"
#include "tests/simgpu/harness.h"

typedef struct Args {
    float *out;
    const float *in;
    int n;
} Args;

static const char *path;
static const MjCuda *cu;
static MjCuStream stream;
static MjCuKernel votes, sum;
static MjCuPtr memory;

static int open_driver(void **state)
{
    MjError err = MJ_ERROR_INIT;
    MjCompileResult image = {0};
    MjCuContext context;
    MjCuLibrary library;
    (void)state;
    OK(sim_compile(path, &image, &err));
    assert_int_equal(mj_cuda_get(&cu, &err), 0);
    assert_int_equal(cu->DevicePrimaryCtxRetain(&context, 0), 0);
    assert_int_equal(cu->CtxSetCurrent(context), 0);
    assert_int_equal(cu->StreamCreate(&stream, 1), 0);
    assert_int_equal(cu->LibraryLoadData(&library, image.image, NULL, NULL, 0, NULL, NULL, 0), 0);
    assert_int_equal(cu->LibraryGetKernel(&votes, library, "good_votes"), 0);
    assert_int_equal(cu->LibraryGetKernel(&sum, library, "good_sum"), 0);
    assert_int_equal(cu->MemAlloc(&memory, 1 << 16), 0);
    assert_int_equal(cu->MemsetD8Async(memory, 0, 1 << 16, stream), 0);
    mj_compile_result_free(&image);
    return 0;
}

/* "Technical Specifications per Compute Capability", 9.0: 2^31 - 1 blocks, 1024 threads a block, 8 blocks a cluster unless asked,
 * 48 KB of shared memory unless asked. */
static void test_geometry(void **state)
{
    static const struct {
        unsigned grid, block, shared, cluster;
        int want;
    } cases[] = {
        {1, 32, 16, 1, 0},
        {0, 32, 16, 1, MJ_CU_INVALID_VALUE},
        {1u << 31, 32, 16, 1, MJ_CU_INVALID_VALUE},
        {1, 0, 16, 1, MJ_CU_INVALID_VALUE},
        {1, 1025, 16, 1, MJ_CU_INVALID_VALUE},
        {1, 32, 49153, 1, MJ_CU_INVALID_VALUE},
        {3, 32, 16, 2, MJ_CU_INVALID_CLUSTER_SIZE},
        {16, 32, 16, 16, MJ_CU_INVALID_CLUSTER_SIZE},
    };
    Args args = {NULL, NULL, 0};
    (void)state;
    args.out = (float *)(uintptr_t)memory;
    args.in = (float *)(uintptr_t)memory;
    void *params[1] = {&args};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        MjCuLaunchAttribute attr = {.id = MJ_CU_LAUNCH_CLUSTER_DIMENSION};
        attr.value.cluster.x = cases[i].cluster;
        attr.value.cluster.y = attr.value.cluster.z = 1;
        const MjCuLaunchConfig c = {.grid_x = cases[i].grid, .grid_y = 1, .grid_z = 1, .block_x = cases[i].block, .block_y = 1, .block_z = 1,
                                    .shared_bytes = cases[i].shared, .stream = stream, .attrs = &attr, .n_attrs = 1};
        if (cu->LaunchKernelEx(&c, votes, params, NULL) != cases[i].want) fail_msg("geometry %zu: want %d", i, cases[i].want);
        assert_int_equal(cu->StreamSynchronize(stream), 0);
    }
    MjCuLaunchAttribute overlap = {.id = MJ_CU_LAUNCH_PROGRAMMATIC_SERIALIZATION};
    overlap.value.programmatic = 1;
    const MjCuLaunchConfig after = {.grid_x = 1, .grid_y = 1, .grid_z = 1, .block_x = 32, .block_y = 1, .block_z = 1, .shared_bytes = 16,
                                    .stream = stream, .attrs = &overlap, .n_attrs = 1};
    assert_int_equal(cu->MemsetD8Async(memory, 0, 4, stream), 0);
    assert_int_equal(cu->LaunchKernelEx(&after, votes, params, NULL), 801); /* nothing is said of what is no kernel */
    const MjCuLaunchConfig more = {.grid_x = 1, .grid_y = 1, .grid_z = 1, .block_x = 512, .block_y = 1, .block_z = 1, .stream = stream};
    assert_int_equal(cu->LaunchKernelEx(&more, sum, params, NULL), 719); /* __launch_bounds__(256) */
    const MjCuLaunchConfig flat = {.grid_x = 1, .grid_y = 2, .grid_z = 1, .block_x = 32, .block_y = 1, .block_z = 1, .stream = stream};
    assert_int_equal(cu->LaunchKernelEx(&flat, votes, params, NULL), MJ_CU_INVALID_VALUE); /* not simulated */
    void *nothing[1] = {NULL};
    const MjCuLaunchConfig good = {.grid_x = 1, .grid_y = 1, .grid_z = 1, .block_x = 32, .block_y = 1, .block_z = 1, .shared_bytes = 16, .stream = stream};
    assert_int_equal(cu->LaunchKernelEx(&good, votes, nothing, NULL), MJ_CU_INVALID_VALUE);
}

/* 227 KB a block at most, static and dynamic together. (The kernels of an image share their static variables here.) */
static void test_shared_memory(void **state)
{
    int bytes = 0;
    (void)state;
    assert_int_equal(cu->KernelGetAttribute(&bytes, MJ_CU_FUNC_SHARED_BYTES, sum, 0), 0);
    assert_true(bytes >= 32); /* part[8] */
    assert_int_equal(cu->KernelSetAttribute(MJ_CU_FUNC_MAX_DYNAMIC_SHARED, 232448 - bytes, sum, 0), 0);
    assert_int_equal(cu->KernelSetAttribute(MJ_CU_FUNC_MAX_DYNAMIC_SHARED, 232449 - bytes, sum, 0), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->KernelSetAttribute(MJ_CU_FUNC_MAX_DYNAMIC_SHARED, -1, sum, 0), MJ_CU_INVALID_VALUE);
}

typedef struct Map {
    unsigned align, rank;
    int type, swizzle, interleave, fill;
    uint64_t address, dims[2], stride;
    uint32_t box[2], steps[2];
    int want;
} Map;

/* "Tensor Map Object Management": cuTensorMapEncodeTiled. */
static void test_tensor_maps(void **state)
{
    enum { BF16 = MJ_TENSOR_MAP_BF16, S128 = MJ_TENSOR_MAP_SWIZZLE_128, S64 = MJ_TENSOR_MAP_SWIZZLE_64 };
    static const Map cases[] = {
        {0, 2, BF16, S128, 0, 0, 0, {64, 64}, 128, {64, 64}, {1, 1}, 0},
        {8, 2, BF16, S128, 0, 0, 0, {64, 64}, 128, {64, 64}, {1, 1}, 1},  /* the map itself lies on 64 bytes */
        {0, 0, BF16, S128, 0, 0, 0, {64, 64}, 128, {64, 64}, {1, 1}, 1},
        {0, 6, BF16, S128, 0, 0, 0, {64, 64}, 128, {64, 64}, {1, 1}, 1},
        {0, 2, 13, S128, 0, 0, 0, {64, 64}, 128, {64, 64}, {1, 1}, 1},
        {0, 2, BF16, 4, 0, 0, 0, {64, 64}, 128, {64, 64}, {1, 1}, 1},
        {0, 2, BF16, S128, 1, 0, 0, {64, 64}, 128, {64, 64}, {1, 1}, 1},  /* interleaving is not simulated */
        {0, 2, BF16, S128, 0, 1, 0, {64, 64}, 128, {64, 64}, {1, 1}, 1},  /* nor NaN outside */
        {0, 2, BF16, S128, 0, 0, 8, {64, 64}, 128, {64, 64}, {1, 1}, 1},  /* address: 16 bytes */
        {0, 2, BF16, S128, 0, 0, 0, {0, 64}, 128, {64, 64}, {1, 1}, 1},
        {0, 2, BF16, S128, 0, 0, 0, {64, 1ull << 33}, 128, {64, 64}, {1, 1}, 1},
        {0, 2, BF16, S128, 0, 0, 0, {64, 64}, 130, {64, 64}, {1, 1}, 1},  /* strides: 16 bytes */
        {0, 2, BF16, S128, 0, 0, 0, {64, 64}, 1ull << 40, {64, 64}, {1, 1}, 1},
        {0, 2, BF16, S128, 0, 0, 0, {64, 64}, 128, {64, 0}, {1, 1}, 1},
        {0, 2, BF16, S128, 0, 0, 0, {64, 64}, 128, {64, 257}, {1, 1}, 1}, /* a box: 256 a dimension */
        {0, 2, BF16, S128, 0, 0, 0, {64, 64}, 128, {64, 64}, {2, 1}, 1},  /* element strides are not simulated */
        {0, 2, BF16, 0, 0, 0, 0, {64, 64}, 128, {4, 64}, {1, 1}, 1},      /* a box row: multiples of 16 bytes */
        {0, 2, BF16, S128, 0, 0, 0, {128, 64}, 256, {128, 64}, {1, 1}, 1}, /* a box row: the swizzle's bytes at most */
        {0, 2, BF16, S64, 0, 0, 0, {64, 64}, 128, {16, 64}, {1, 1}, MJ_CU_NOT_SUPPORTED}, /* narrower: not simulated */
    };
    static char room[256] __attribute__((aligned(128)));
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Map *m = &cases[i];
        const uint64_t dims[6] = {m->dims[0], m->dims[1], 1, 1, 1, 1}, strides[5] = {m->stride, 128, 128, 128, 128};
        const uint32_t box[6] = {m->box[0], m->box[1], 1, 1, 1, 1}, steps[6] = {m->steps[0], m->steps[1], 1, 1, 1, 1};
        const int got = cu->TensorMapEncodeTiled(room + m->align, m->type, m->rank, (void *)(uintptr_t)(memory + m->address), dims, strides, box,
                                                 steps, m->interleave, m->swizzle, 0, m->fill);
        if (got != m->want) fail_msg("tensor map %zu: want %d, got %d", i, m->want, got);
    }
}

int main(int argc, char **argv)
{
    const int begun = sim_begin(argc, argv, "kernels_good.cu");
    if (begun != 0) return begun;
    path = argv[2];
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_geometry), cmocka_unit_test(test_shared_memory),
                                       cmocka_unit_test(test_tensor_maps)};
    return cmocka_run_group_tests(tests, open_driver, NULL);
}
