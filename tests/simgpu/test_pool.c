/* Memory pools: what the simulated driver refuses and counts, asked past the cuda device; then what the device makes of them: out of
 * memory, giving back and trying again, captures, a device without pools. Argument: the folder of the simulator's libraries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/cuda_api.h"
#include "tests/simgpu/harness.h"

enum { MB = 1000000, MEMORY = 64 * MB };

static const MjCuda *cu;
static MjCuContext contexts[2];
static MjCuStream stream, second, elsewhere; /* two of device 0, one of device 1 */

static int open_driver(void **state)
{
    MjError err = MJ_ERROR_INIT;
    (void)state;
    OK(mj_cuda_get(&cu, &err));
    for (int d = 1; d >= 0; d--) {
        assert_int_equal(cu->DevicePrimaryCtxRetain(&contexts[d], d), 0);
        assert_int_equal(cu->CtxSetCurrent(contexts[d]), 0);
        if (d == 1) assert_int_equal(cu->StreamCreate(&elsewhere, MJ_CU_STREAM_NON_BLOCKING), 0);
    }
    assert_int_equal(cu->StreamCreate(&stream, MJ_CU_STREAM_NON_BLOCKING), 0);
    assert_int_equal(cu->StreamCreate(&second, MJ_CU_STREAM_NON_BLOCKING), 0);
    return 0;
}

static MjCuMemPoolProps props_of(int device)
{
    return (MjCuMemPoolProps){.type = MJ_CU_MEM_PINNED, .location = {MJ_CU_MEM_ON_DEVICE, device}};
}
static MjCuMemPool open_pool(uint64_t threshold)
{
    const MjCuMemPoolProps props = props_of(0);
    MjCuMemPool pool = NULL;
    assert_int_equal(cu->MemPoolCreate(&pool, &props), 0);
    assert_int_equal(cu->MemPoolSetAttribute(pool, MJ_CU_POOL_RELEASE_THRESHOLD, &threshold), 0);
    return pool;
}
static uint64_t read_pool(MjCuMemPool pool, int attribute)
{
    uint64_t v = 0;
    assert_int_equal(cu->MemPoolGetAttribute(pool, attribute, &v), 0);
    return v;
}
static size_t free_memory(void)
{
    size_t bytes = 0, total = 0;
    assert_int_equal(cu->MemGetInfo(&bytes, &total), 0);
    return bytes;
}
static MjCuPtr take(MjCuMemPool pool, size_t bytes, MjCuStream s)
{
    MjCuPtr p = 0;
    assert_int_equal(cu->MemAllocFromPoolAsync(&p, bytes, pool, s), 0);
    return p;
}

static void test_create(void **state)
{
    MjCuMemPoolProps p[10];
    MjCuMemPool pool = NULL;
    (void)state;
    for (int i = 0; i < 10; i++) p[i] = props_of(0);
    p[0].type = 0;
    p[1].location.type = 2; /* of the host */
    p[2].location.id = -1;
    p[3].location.id = 2;
    p[4].reserved[0] = 1;
    p[5].reserved[55] = 1;
    for (int i = 0; i < 6; i++) assert_int_equal(cu->MemPoolCreate(&pool, &p[i]), MJ_CU_INVALID_VALUE);
    p[6].handle_types = 1;
    p[7].security = &pool;
    p[8].max_bytes = MB;
    for (int i = 6; i < 9; i++) assert_int_equal(cu->MemPoolCreate(&pool, &p[i]), MJ_CU_NOT_SUPPORTED); /* not simulated */
    assert_int_equal(cu->MemPoolCreate(NULL, &p[9]), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemPoolCreate(&pool, NULL), MJ_CU_INVALID_VALUE);
    assert_null(pool);
    assert_int_equal(cu->MemPoolCreate(&pool, &p[9]), 0);
    assert_int_equal(read_pool(pool, MJ_CU_POOL_RELEASE_THRESHOLD), 0);
    uint64_t v = 0;
    assert_int_equal(cu->MemPoolSetAttribute(pool, MJ_CU_POOL_RESERVED, &v), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemPoolSetAttribute(pool, MJ_CU_POOL_RELEASE_THRESHOLD, NULL), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemPoolGetAttribute(pool, 99, &v), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemPoolGetAttribute(pool, MJ_CU_POOL_USED, NULL), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemPoolDestroy(pool), 0);
    assert_int_equal(cu->MemPoolDestroy(pool), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemPoolTrimTo(pool, 0), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemPoolGetAttribute(pool, MJ_CU_POOL_USED, &v), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemPoolDestroy(NULL), MJ_CU_INVALID_VALUE);
}

/* An allocation is guarded on both sides, and gone at its free; each free is of a pool's live allocation, by its start. */
static void test_allocations(void **state)
{
    const MjCuMemPool pool = open_pool(UINT64_MAX);
    MjCuPtr p = 0, other = 0;
    (void)state;
    assert_int_equal(cu->MemAllocFromPoolAsync(NULL, 100, pool, stream), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemAllocFromPoolAsync(&p, 0, pool, stream), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemAllocFromPoolAsync(&p, 100, pool, NULL), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemAllocFromPoolAsync(&p, 100, NULL, stream), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemAllocFromPoolAsync(&p, 100, pool, elsewhere), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemAllocFromPoolAsync(&p, MEMORY + 1, pool, stream), MJ_CU_OUT_OF_MEMORY);
    assert_int_equal(p, 0);
    p = take(pool, 100, stream);
    assert_int_equal(p % 256, 0);
    assert_int_equal(cu->MemsetD8Async(p, 0, 100, stream), 0);
    assert_int_equal(cu->MemsetD8Async(p, 0, 101, stream), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemsetD8Async(p - 1, 0, 1, stream), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemFreeAsync(p + 4, stream), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemFreeAsync(0, stream), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemFreeAsync(p, NULL), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemFreeAsync(p, elsewhere), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemFree(p), MJ_CU_INVALID_VALUE); /* a pool's: in the order of no stream */
    assert_int_equal(cu->MemAlloc(&other, 100), 0);
    assert_int_equal(cu->MemFreeAsync(other, stream), MJ_CU_INVALID_VALUE); /* no pool's */
    assert_int_equal(cu->MemFree(other), 0);
    assert_int_equal(cu->MemFree(other), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemPoolDestroy(pool), MJ_CU_INVALID_VALUE); /* p lives */
    assert_int_equal(cu->MemFreeAsync(p, stream), 0);
    assert_int_equal(cu->MemFreeAsync(p, stream), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemsetD8Async(p, 0, 100, stream), MJ_CU_INVALID_VALUE); /* after its free in the stream's order */
    assert_int_equal(cu->MemPoolDestroy(pool), 0);
    assert_int_equal(cu->MemAllocFromPoolAsync(&p, 100, pool, stream), MJ_CU_INVALID_VALUE);
}

static void test_capture(void **state)
{
    const MjCuMemPool pool = open_pool(UINT64_MAX);
    const MjCuPtr p = take(pool, 100, stream);
    MjCuPtr q = 0;
    MjCuGraph graph = NULL;
    (void)state;
    assert_int_equal(cu->StreamBeginCapture(stream, MJ_CU_CAPTURE_THREAD_LOCAL), 0);
    assert_int_equal(cu->MemAllocFromPoolAsync(&q, 100, pool, stream), MJ_CU_STREAM_CAPTURE_UNSUPPORTED);
    assert_int_equal(cu->MemFreeAsync(p, stream), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->StreamEndCapture(stream, &graph), 0);
    assert_int_equal(cu->GraphDestroy(graph), 0);
    assert_int_equal(cu->MemFreeAsync(p, stream), 0);
    assert_int_equal(cu->MemPoolDestroy(pool), 0);
}

/* What a pool holds: a freed block serves its stream at once, others and a trim once the host has waited. */
static void test_blocks(void **state)
{
    const MjCuMemPool pool = open_pool(UINT64_MAX);
    (void)state;
    assert_int_equal(free_memory(), MEMORY);
    MjCuPtr p = take(pool, 10 * MB, stream);
    const uint64_t ten = read_pool(pool, MJ_CU_POOL_RESERVED);
    assert_true(ten >= 10 * MB && ten < 10 * MB + 512);
    assert_int_equal(read_pool(pool, MJ_CU_POOL_USED), ten);
    assert_int_equal(free_memory(), MEMORY - ten);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(cu->MemFreeAsync(p, stream), 0);
        p = take(pool, 10 * MB, stream);
    }
    assert_int_equal(read_pool(pool, MJ_CU_POOL_RESERVED), ten);
    assert_int_equal(cu->MemFreeAsync(p, stream), 0);
    assert_int_equal(read_pool(pool, MJ_CU_POOL_USED), 0);
    p = take(pool, 10 * MB, second);
    assert_int_equal(read_pool(pool, MJ_CU_POOL_RESERVED), 2 * ten); /* not yet the second stream's */
    assert_int_equal(cu->MemPoolTrimTo(pool, 0), 0);
    assert_int_equal(read_pool(pool, MJ_CU_POOL_RESERVED), 2 * ten); /* nor the system's */
    assert_int_equal(cu->StreamSynchronize(stream), 0);
    assert_int_equal(cu->MemPoolTrimTo(pool, 2 * ten), 0);
    assert_int_equal(read_pool(pool, MJ_CU_POOL_RESERVED), 2 * ten);
    assert_int_equal(cu->MemPoolTrimTo(pool, ten + 1), 0); /* it would hold less */
    assert_int_equal(read_pool(pool, MJ_CU_POOL_RESERVED), 2 * ten);
    MjCuPtr q = take(pool, 10 * MB, second);
    assert_int_equal(read_pool(pool, MJ_CU_POOL_RESERVED), 2 * ten);
    assert_int_equal(cu->MemFreeAsync(q, stream), 0);
    assert_int_equal(cu->StreamSynchronize(stream), 0);
    assert_int_equal(cu->MemPoolTrimTo(pool, 0), 0);
    assert_int_equal(read_pool(pool, MJ_CU_POOL_RESERVED), ten);
    assert_int_equal(cu->MemFreeAsync(p, second), 0);
    const uint64_t nothing = 0;
    assert_int_equal(cu->MemPoolSetAttribute(pool, MJ_CU_POOL_RELEASE_THRESHOLD, (void *)(uintptr_t)&nothing), 0);
    assert_int_equal(cu->StreamSynchronize(stream), 0);
    assert_int_equal(read_pool(pool, MJ_CU_POOL_RESERVED), ten); /* freed on the other stream */
    assert_int_equal(cu->StreamSynchronize(second), 0);
    assert_int_equal(read_pool(pool, MJ_CU_POOL_RESERVED), 0); /* over the threshold */
    assert_int_equal(cu->MemPoolDestroy(pool), 0);
    assert_int_equal(free_memory(), MEMORY);
}

/* A context that goes takes cuMemAlloc's memory along, and leaves a pool's. */
static void test_context(void **state)
{
    MjCuPtr p = 0;
    (void)state;
    assert_int_equal(cu->MemAlloc(&p, MB), 0);
    const MjCuMemPool pool = open_pool(UINT64_MAX);
    const MjCuPtr q = take(pool, 2 * MB, stream);
    assert_int_equal(cu->DevicePrimaryCtxRelease(0), 0);
    assert_int_equal(cu->DevicePrimaryCtxRetain(&contexts[0], 0), 0);
    const size_t left = free_memory();
    assert_true(left <= MEMORY - 2 * MB && left > MEMORY - 3 * MB);
    assert_int_equal(cu->MemFree(p), MJ_CU_INVALID_VALUE);
    assert_int_equal(cu->MemFreeAsync(q, stream), 0);
    assert_int_equal(cu->MemPoolDestroy(pool), 0);
    assert_int_equal(free_memory(), MEMORY);
}

/* ---- the cuda device ----------------------------------------------------------------------------------------------------- */

static MjDevice *dev;

static int open_device(void **state)
{
    MjError err = MJ_ERROR_INIT;
    (void)state;
    OK(mj_device_open("cuda", NULL, &dev, &err));
    return 0;
}
/* Everything is given back, what was never freed too; the contexts of the tests above keep device 0's alive. */
static int close_device(void **state)
{
    (void)state;
    mj_device_close(dev);
    assert_int_equal(cu->CtxSetCurrent(contexts[0]), 0);
    assert_int_equal(free_memory(), MEMORY);
    return 0;
}
static void *alloc(size_t bytes, const char *what)
{
    MjError err = MJ_ERROR_INIT;
    void *p = NULL;
    OK(dev->ops->alloc(dev, bytes, what, &p, &err));
    return p;
}
static uint64_t waits(void)
{
    MjDeviceCounters c;
    dev->ops->counters(dev, &c);
    return c.waits;
}
static void demand_refusal(size_t bytes, const char *what, int code, const char *says)
{
    MjError err = MJ_ERROR_INIT;
    void *p = &err;
    assert_int_equal(dev->ops->alloc(dev, bytes, what, &p, &err), code);
    if (strstr(err.message, says) == NULL) fail_msg("want '%s', got: %s", says, err.message);
    assert_ptr_equal(p, &err);
}

static void test_reused(void **state)
{
    size_t reserved = 0;
    (void)state;
    for (int i = 0; i < 20; i++) {
        void *p[3] = {alloc(5 * MB, "a"), alloc(777, "b"), alloc(12 * MB, "c")};
        if (i == 0) reserved = dev->ops->reserved_bytes(dev);
        assert_int_equal(dev->ops->reserved_bytes(dev), reserved);
        assert_int_equal(dev->ops->allocated_bytes(dev), 17 * MB + 777);
        for (int k = 0; k < 3; k++) dev->ops->free(dev, p[(k + i) % 3]);
        assert_int_equal(dev->ops->allocated_bytes(dev), 0);
    }
    assert_true(reserved >= 17 * MB + 777 && reserved < 17 * MB + 777 + 3 * 512);
    assert_int_equal(dev->ops->peak_bytes(dev), 17 * MB + 777);
    assert_int_equal(waits(), 0);
    MjError err = MJ_ERROR_INIT;
    OK(dev->ops->synchronize(dev, &err));
    assert_int_equal(dev->ops->reserved_bytes(dev), reserved); /* kept over a wait */
}

static void test_out_of_memory(void **state)
{
    (void)state;
    (void)alloc(40 * MB, "weights");
    (void)alloc(2 * MB, "scores");
    demand_refusal(30 * MB, "activations", MJ_ERR_MEMORY,
                   "out of memory: 30.0 MB asked for 'activations'; of 64.0 MB, 22.0 MB are free and this run holds 42.0 MB (largest: "
                   "weights 40.0 MB, scores 2.0 MB). Lower train.batch");
    assert_int_equal(dev->ops->allocated_bytes(dev), 42 * MB);
    (void)alloc(20 * MB, "fits"); /* the refusal left everything as it was */
}

/* What was freed is given to the system before memory is said to be out. */
static void test_trimmed(void **state)
{
    (void)state;
    dev->ops->free(dev, alloc(40 * MB, "early"));
    void *p = alloc(60 * MB, "late");
    assert_int_equal(waits(), 1);
    assert_true(dev->ops->reserved_bytes(dev) < 60 * MB + 512);
    assert_int_equal(dev->ops->peak_bytes(dev), 60 * MB);
    dev->ops->free(dev, p);
    p = alloc(20 * MB, "early");
    void *q = alloc(20 * MB, "kept");
    dev->ops->free(dev, p);
    demand_refusal(50 * MB, "later", MJ_ERR_MEMORY, "of 64.0 MB, 44.0 MB are free and this run holds 20.0 MB (largest: kept 20.0 MB)");
    dev->ops->free(dev, q);
    (void)alloc(64 * MB - 512, "all");
}

/* What the pool can't give back, since a small buffer lies on it, is free to this run. */
static void test_unused(void **state)
{
    (void)state;
    dev->ops->free(dev, alloc(30 * MB, "early"));
    (void)alloc(10 * MB, "kept");
    assert_true(dev->ops->reserved_bytes(dev) >= 30 * MB);
    demand_refusal(60 * MB, "later", MJ_ERR_MEMORY, "of 64.0 MB, 54.0 MB are free and this run holds 10.0 MB");
}

static void test_captured(void **state)
{
    MjError err = MJ_ERROR_INIT;
    MjGraph *graph = NULL;
    void *kept = alloc(MB, "kept"), *dropped = alloc(2 * MB, "dropped");
    uint32_t word = 0;
    (void)state;
    OK(dev->ops->graph_begin(dev, &err));
    OK(dev->ops->fill(dev, kept, 7, MB, &err));
    demand_refusal(MB, "new", MJ_ERR_USAGE, "alloc: not allowed while a graph is captured");
    dev->ops->free(dev, dropped);
    assert_int_equal(dev->ops->allocated_bytes(dev), 3 * MB);
    OK(dev->ops->graph_end(dev, &graph, &err));
    assert_int_equal(dev->ops->allocated_bytes(dev), MB);
    OK(dev->ops->graph_launch(dev, graph, &err));
    OK(dev->ops->download(dev, &word, kept, sizeof word, &err));
    assert_int_equal(word, 0x07070707);
    dev->ops->graph_destroy(dev, graph);
    OK(dev->ops->graph_begin(dev, &err)); /* and closed so */
    OK(dev->ops->fill(dev, kept, 7, MB, &err));
}

/* Without pools each buffer is the driver's, and each free a wait. */
static void test_without_pools(void **state)
{
    (void)state;
    assert_false(dev->ops->info(dev)->pool);
    void *p = alloc(40 * MB, "weights");
    assert_int_equal(dev->ops->reserved_bytes(dev), 40 * MB);
    demand_refusal(30 * MB, "activations", MJ_ERR_MEMORY, "of 64.0 MB, 24.0 MB are free and this run holds 40.0 MB");
    assert_int_equal(waits(), 0);
    dev->ops->free(dev, p);
    assert_int_equal(waits(), 1);
    assert_int_equal(dev->ops->reserved_bytes(dev), 0);
    const MjCuMemPoolProps props = props_of(0);
    MjCuMemPool pool = NULL;
    assert_int_equal(cu->MemPoolCreate(&pool, &props), MJ_CU_NOT_SUPPORTED);
    (void)alloc(60 * MB, "never freed");
}
static int open_without_pools(void **state)
{
    setenv("MOJIT_SIMGPU_POOLS", "0", 1);
    return open_device(state);
}
static int close_without_pools(void **state)
{
    const int rc = close_device(state);
    unsetenv("MOJIT_SIMGPU_POOLS");
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s LIBRARIES\n", argv[0]);
        return 2;
    }
    setenv("MOJIT_CUDA_LIBRARY_PATH", argv[1], 1);
    setenv("MOJIT_SIMGPU_MEMORY", "64000000", 1);
    setenv("MOJIT_SIMGPU_DEVICES", "2", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_capture),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_context),
        cmocka_unit_test_setup_teardown(test_reused, open_device, close_device),
        cmocka_unit_test_setup_teardown(test_out_of_memory, open_device, close_device),
        cmocka_unit_test_setup_teardown(test_trimmed, open_device, close_device),
        cmocka_unit_test_setup_teardown(test_unused, open_device, close_device),
        cmocka_unit_test_setup_teardown(test_captured, open_device, close_device),
        cmocka_unit_test_setup_teardown(test_without_pools, open_without_pools, close_without_pools),
    };
    return cmocka_run_group_tests(tests, open_driver, NULL);
}
