/* What the simulated GPU must reject: every kernel of kernels_bad*.cu gets its CUDA error and its report, which names the kernel,
 * the block, the thread and the line. mutate.sh takes each rule out of the simulator and demands that this test notices.
 * Arguments: the simulator's libraries, the folder of the kernels. With MOJIT_SIMGPU_RACES=1, the races instead. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/cuda_tensor_map.h"
#include "tests/simgpu/harness.h"

typedef struct Args {
    float *out;
    const float *in;
    int n;
} Args;

enum { N = 1024 };
typedef enum File { PLAIN, ASYNC, WGMMA, RACE, FILES } File;
static const char *const names[FILES] = {"kernels_bad.cu", "kernels_bad_async.cu", "kernels_bad_wgmma.cu", "kernels_bad_race.cu"};

typedef enum Where { THREAD, ANY_THREAD, BLOCK } Where; /* what the report must name: 0's block, thread N and line; the same; no thread */

typedef struct Bad {
    File file;
    const char *kernel;
    uint32_t block, cluster;
    size_t shared;
    const char *result, *says; /* the CUDA error and a part of the report */
    Where where;
} Bad;

#define FAILED "LAUNCH_FAILED"
#define ADDRESS "ILLEGAL_ADDRESS"
#define ALIGNMENT "MISALIGNED_ADDRESS"
#define TIMEOUT "LAUNCH_TIMEOUT"

static const Bad bads[] = {
    /* barriers */
    {PLAIN, "bad_barrier_divergence", 64, 1, 0, FAILED, "barrier divergence: this thread is at __syncthreads here, while", THREAD},
    {PLAIN, "bad_deadlock", 64, 1, 0, TIMEOUT, "deadlock: 32 threads (first 0) wait for barrier 1 at kernels_bad.cu:", BLOCK},
    {PLAIN, "bad_deadlock_two", 64, 1, 0, TIMEOUT, "; 32 threads (first ", BLOCK},
    {PLAIN, "bad_barrier_number", 64, 1, 0, FAILED, "barrier 16 of 64 threads: the id must be 0 to 15", THREAD},
    {PLAIN, "bad_barrier_threads", 64, 1, 0, FAILED, "barrier 1 of 48 threads: the id must be 0 to 15 and the count a multiple of 32", THREAD},
    {PLAIN, "bad_barrier_counts", 96, 1, 0, FAILED, "this thread expects ", THREAD},
    {PLAIN, "bad_barrier_twice", 64, 1, 0, FAILED, "this thread has arrived already", THREAD},
    {PLAIN, "bad_barrier_zero", 64, 1, 0, FAILED, "barrier 0", THREAD},
    /* memory */
    {PLAIN, "bad_global_read", 32, 1, 0, ADDRESS, "out-of-bounds read of 4 bytes of global memory", THREAD},
    {PLAIN, "bad_global_write", 32, 1, 0, ADDRESS, "offset -4 of the allocation", THREAD},
    {PLAIN, "bad_global_gap", 32, 1, 0, ADDRESS, "no allocation is there", THREAD},
    {PLAIN, "bad_host_pointer", 32, 1, 0, ADDRESS, "no memory of this device", THREAD},
    {PLAIN, "bad_freed", 32, 1, 0, ADDRESS, "was freed", THREAD},
    {PLAIN, "bad_fresh", 32, 1, 0, FAILED, "read of 4 bytes of global memory at", THREAD},
    {PLAIN, "bad_local_of_another", 32, 1, 0, ADDRESS, "another thread's local memory", THREAD},
    {PLAIN, "bad_shared_bounds", 32, 1, 256, ADDRESS, "out-of-bounds write of 4 bytes of shared memory", THREAD},
    {PLAIN, "bad_shared_bounds_read", 32, 1, 128, ADDRESS, "out-of-bounds read of 4 bytes of shared memory", THREAD},
    {PLAIN, "bad_not_shared", 32, 1, 0, ADDRESS, "is not in shared memory", ANY_THREAD},
    {PLAIN, "bad_uninitialised", 32, 1, 128, FAILED, "which was never written", THREAD},
    {PLAIN, "bad_uninitialised_static", 32, 1, 0, FAILED, "which was never written", THREAD},
    {PLAIN, "bad_misaligned", 32, 1, 0, ALIGNMENT, "misaligned read of 16 bytes", THREAD},
    {PLAIN, "bad_misaligned_write", 32, 1, 0, ALIGNMENT, "misaligned write of 8 bytes", THREAD},
    {PLAIN, "bad_misaligned_shared", 32, 1, 1024, ALIGNMENT, "misaligned write of 16 bytes", THREAD},
    {PLAIN, "bad_overlapped_read", 32, 1, 0, FAILED, "read touches global memory before griddepcontrol.wait", THREAD},
    {PLAIN, "bad_overlapped_copy", 32, 1, 512, FAILED, "cp.async touches global memory before griddepcontrol.wait", THREAD},
    {PLAIN, "bad_overlapped_others", 32, 1, 0, FAILED, "touches global memory before griddepcontrol.wait", THREAD},
    {PLAIN, "bad_overlapped_exit", 32, 1, 0, FAILED, "the block ended without griddepcontrol.wait", BLOCK},
    {PLAIN, "bad_trap", 32, 1, 0, FAILED, "thread 7 of 32", THREAD},
    /* warps */
    {PLAIN, "bad_shuffle_mask", 32, 1, 0, FAILED, "left the kernel", THREAD},
    {PLAIN, "bad_shuffle_gone", 32, 1, 0, FAILED, "has left the kernel", THREAD},
    {PLAIN, "bad_shuffle_not_in_mask", 32, 1, 0, FAILED, "which is not in it", THREAD},
    {PLAIN, "bad_shuffle_source", 32, 1, 0, FAILED, "reads lane 16, which is not in the mask", THREAD},
    {PLAIN, "bad_shuffle_width", 32, 1, 0, FAILED, "a shuffle of width 12", THREAD},
    {PLAIN, "bad_warp_diverged", 32, 1, 0, FAILED, "the warp diverged: lane ", THREAD},
    {PLAIN, "bad_half_warp", 48, 1, 0, FAILED, "does not exist (the block is not a multiple of 32 threads)", THREAD},
    {PLAIN, "bad_ldmatrix_misaligned", 32, 1, 0, ALIGNMENT, "ldmatrix: the row address", THREAD},
    {PLAIN, "bad_ldmatrix_uninitialised", 32, 1, 0, FAILED, "which was never written", THREAD},
    {PLAIN, "bad_stmatrix_bounds", 32, 1, 256, ADDRESS, "stmatrix: 16 bytes at shared address", THREAD},
    /* cp.async */
    {ASYNC, "bad_cp_async_no_wait", 32, 1, 512, FAILED, "still in flight", THREAD},
    {ASYNC, "bad_cp_async_not_committed", 32, 1, 512, FAILED, "still in flight", THREAD},
    {ASYNC, "bad_cp_async_misaligned", 32, 1, 512, ALIGNMENT, "both must be aligned to the size", THREAD},
    {ASYNC, "bad_cp_async_size", 32, 1, 512, FAILED, "32 source bytes, more than the copy's 16", THREAD},
    {ASYNC, "bad_cp_async_bounds", 32, 1, 512, ADDRESS, "cp.async reads 16 bytes at", THREAD},
    {ASYNC, "bad_cp_async_fresh", 32, 1, 512, FAILED, "which nobody wrote since they were allocated", THREAD},
    {ASYNC, "bad_cp_async_twice", 32, 1, 512, FAILED, "cp.async writes shared 0x", THREAD},
    {ASYNC, "bad_write_in_flight", 32, 1, 512, FAILED, "write of shared 0x", THREAD},
    /* mbarriers */
    {ASYNC, "bad_mbar_phase", 32, 1, 0, TIMEOUT, "wait for parity 1 of the mbarrier", BLOCK},
    {ASYNC, "bad_mbar_parity", 32, 1, 0, FAILED, "mbarrier.try_wait.parity: 2; must be 0 or 1", THREAD},
    {ASYNC, "bad_mbar_uninitialised", 32, 1, 0, FAILED, "there is no initialised mbarrier", THREAD},
    {ASYNC, "bad_mbar_misaligned", 32, 1, 0, ALIGNMENT, "mbarrier.init: shared 0x", THREAD},
    {ASYNC, "bad_mbar_arrive_misaligned", 32, 1, 0, ALIGNMENT, "mbarrier.arrive: the mbarrier at shared 0x", THREAD},
    {ASYNC, "bad_mbar_count", 32, 1, 0, FAILED, "mbarrier.init: a count of 0", THREAD},
    {ASYNC, "bad_mbar_init_twice", 32, 1, 0, FAILED, "already holds an mbarrier", THREAD},
    {ASYNC, "bad_mbar_overwritten", 32, 1, 0, FAILED, "which belongs to an mbarrier", THREAD},
    {ASYNC, "bad_mbar_overflow", 32, 1, 0, FAILED, "gets more than its 2 arrivals", THREAD},
    {ASYNC, "bad_mbar_not_observed", 32, 1, 0, FAILED, "an arrival in phase 1 of the mbarrier", THREAD},
    {ASYNC, "bad_mbar_transactions", 32, 1, 0, FAILED, "expects 1048576 bytes; 2^20 - 1 is the most", THREAD},
    {ASYNC, "bad_mbar_inval_in_flight", 32, 1, 8192, FAILED, "mbarrier.inval: a load that will signal", THREAD},
    {ASYNC, "bad_mbar_many", 32, 1, 0, FAILED, "more than 64 mbarriers", THREAD},
    /* bulk and tensor copies */
    {ASYNC, "bad_no_wait", 64, 1, 8192, FAILED, "still in flight", THREAD},
    {ASYNC, "bad_tma_never_waited", 64, 1, 8192, FAILED, "its mbarrier was never waited for", THREAD},
    {ASYNC, "bad_no_proxy_fence", 64, 1, 8192, FAILED, "no fence.proxy.async", THREAD},
    {ASYNC, "bad_store_not_waited", 64, 1, 8192, FAILED, "store from shared memory in flight", THREAD},
    {ASYNC, "bad_store_overwritten", 64, 1, 8192, FAILED, "changed between this store and the wait for it", THREAD},
    {ASYNC, "bad_bulk_store_overwritten", 64, 1, 8192, FAILED, "the 64 bytes at shared 0x400 changed", THREAD},
    {ASYNC, "bad_tma_misaligned", 64, 1, 16384, ALIGNMENT, "not 128-byte aligned", THREAD},
    {ASYNC, "bad_tma_map_misaligned", 64, 1, 8192, ALIGNMENT, "is not 64-byte aligned", THREAD},
    {ASYNC, "bad_tma_no_map", 64, 1, 8192, FAILED, "holds no tensor map", THREAD},
    {ASYNC, "bad_tma_prefetch_rank", 64, 1, 0, FAILED, "TMA prefetch: 3 coordinates for a tensor map of rank 2", THREAD},
    {ASYNC, "bad_tma_rank", 64, 1, 8192, FAILED, "3 coordinates for a tensor map of rank 2", THREAD},
    {ASYNC, "bad_tma_smem_bounds", 64, 1, 8192, ADDRESS, "TMA load: 8192 bytes at shared address 0x800 are out of bounds", THREAD},
    {ASYNC, "bad_tma_twice", 64, 1, 8192, FAILED, "TMA load writes shared 0x400, which is still in flight", THREAD},
    {ASYNC, "bad_tma_freed", 64, 1, 8192, ADDRESS, "the tensor map leads out of bounds", THREAD},
    {ASYNC, "bad_tma_bytes", 64, 1, 8192, TIMEOUT, "bytes missing 128", BLOCK},
    {ASYNC, "bad_tma_bytes_fewer", 64, 1, 8192, TIMEOUT, "bytes missing -128", BLOCK},
    {ASYNC, "bad_tma_add_type", 64, 1, 8192, FAILED, "TMA reduction on elements of 2 bytes", THREAD},
    {ASYNC, "bad_bulk_misaligned", 64, 1, 8192, ALIGNMENT, "cp.async.bulk of 24 bytes from", THREAD},
    {ASYNC, "bad_bulk_bounds", 64, 1, 8192, ADDRESS, "cp.async.bulk reads 32 bytes at", THREAD},
    {ASYNC, "bad_bulk_source", 64, 1, 8192, ADDRESS, "not global memory", THREAD},
    {ASYNC, "bad_bulk_store_misaligned", 64, 1, 8192, ALIGNMENT, "cp.async.bulk of 16 bytes from shared", THREAD},
    {ASYNC, "bad_bulk_store_bounds", 64, 1, 8192, ADDRESS, "cp.async.bulk writes 32 bytes at", THREAD},
    /* clusters */
    {ASYNC, "bad_cluster_exit", 32, 2, 0, FAILED, "mbarrier.arrive in block 1, all of whose threads have left", THREAD},
    {ASYNC, "bad_multicast_exit", 32, 2, 8192, FAILED, "TMA load into block 1, all of whose threads have left", THREAD},
    {ASYNC, "bad_multicast_mask", 32, 2, 8192, FAILED, "TMA multicast mask 0x7 in a cluster of 2", ANY_THREAD},
    {ASYNC, "bad_cluster_rank", 32, 2, 0, FAILED, "mbarrier.arrive in block 2 of a cluster of 2", ANY_THREAD},
    {ASYNC, "bad_cluster_arrive_twice", 32, 2, 0, FAILED, "barrier.cluster.arrive twice", ANY_THREAD},
    {ASYNC, "bad_cluster_wait_only", 32, 2, 0, FAILED, "barrier.cluster.wait without an arrive", ANY_THREAD},
    {ASYNC, "bad_cluster_deadlock", 32, 2, 0, TIMEOUT, "wait for the cluster's barrier at kernels_bad_async.cu:", BLOCK},
    /* wgmma */
    {WGMMA, "bad_wgmma_no_fence", 128, 1, 16384, FAILED, "without a wgmma.fence", THREAD},
    {WGMMA, "bad_wgmma_no_second_fence", 128, 1, 16384, FAILED, "an accumulator that this thread wrote since the last wgmma.fence", THREAD},
    {WGMMA, "bad_wgmma_no_proxy_fence", 128, 1, 16384, FAILED, "no fence.proxy.async", THREAD},
    {WGMMA, "bad_wgmma_written", 128, 1, 16384, FAILED, "this thread wrote accumulator 3 of a wgmma before", THREAD},
    {WGMMA, "bad_wgmma_not_committed", 128, 1, 16384, FAILED, "in flight: no wgmma.commit_group", THREAD},
    {WGMMA, "bad_wgmma_left", 128, 1, 16384, FAILED, "in flight: no wgmma.wait_group", THREAD},
    {WGMMA, "bad_wgmma_disagree", 128, 1, 16384, FAILED, "lanes 0 and 5 of a warp disagree about a descriptor", THREAD},
    {WGMMA, "bad_wgmma_warps_disagree", 128, 1, 16384, FAILED, "of a warpgroup disagree about a descriptor of their wgmma number 0", THREAD},
    {WGMMA, "bad_wgmma_one_warp", 128, 1, 16384, FAILED, "of the same warpgroup 0: all four must issue each", ANY_THREAD},
    {WGMMA, "bad_wgmma_small_block", 64, 1, 16384, FAILED, "wgmma needs a warpgroup of 128 threads; the block has 64", THREAD},
    {WGMMA, "bad_wgmma_shapes", 128, 1, 16384, FAILED, "wgmma of N = 16 on an accumulator that one of N = 32 still adds to", THREAD},
    {WGMMA, "bad_wgmma_many", 128, 1, 16384, FAILED, "more than 8 accumulators in flight", THREAD},
    {WGMMA, "bad_wgmma_columns", 128, 1, 16384, FAILED, "wgmma: N = 12; must be a multiple of 8", THREAD},
    {WGMMA, "bad_wgmma_bounds", 128, 1, 16384, ADDRESS, "wgmma: 2 bytes at shared address", THREAD},
    {WGMMA, "bad_wgmma_tile_start", 128, 1, 16384, FAILED, "its rows repeat every 1024 bytes", THREAD},
    {WGMMA, "bad_wgmma_base_offset", 128, 1, 16384, FAILED, "a descriptor with a base offset is not simulated", THREAD},
    {WGMMA, "bad_wgmma_misaligned", 128, 1, 16384, ALIGNMENT, "all must be multiples of 16", THREAD},
    {WGMMA, "bad_wgmma_swizzle", 128, 1, 16384, FAILED, "wgmma: swizzling mode 4", THREAD},
    {WGMMA, "bad_wgmma_invariant", 128, 1, 16384, FAILED, "ptxas 13.0 gives registers that a loop does not change to other operands", THREAD},
    /* setmaxnreg */
    {WGMMA, "bad_registers", 384, 1, 0, FAILED, "92160 registers", THREAD},
    {WGMMA, "bad_registers_step", 384, 1, 0, FAILED, "setmaxnreg.dec 100: must be a multiple of 8", THREAD},
    {WGMMA, "bad_registers_dec", 384, 1, 0, FAILED, "setmaxnreg.dec 176: the warp has at most 168", THREAD},
    {WGMMA, "bad_registers_inc", 384, 1, 0, FAILED, "setmaxnreg.inc 40: the warp has 160", THREAD},
    {WGMMA, "bad_registers_one_warp", 128, 1, 0, FAILED, "warp 0 ended with setmaxnreg 40 and warp 1", ANY_THREAD},
};

static const Bad races[] = {
    {RACE, "race_write_write", 64, 1, 0, FAILED, "writes it, thread ", THREAD},
    {RACE, "race_read_after_write", 64, 1, 0, FAILED, "race on shared 0x", THREAD},
    {RACE, "race_write_after_read", 64, 1, 0, FAILED, "race on shared 0x", THREAD},
    {RACE, "race_shuffle_orders_nothing", 32, 1, 0, FAILED, "reads it, thread ", THREAD},
    {RACE, "race_atomic_and_plain", 64, 1, 0, FAILED, "race on shared 0x", THREAD},
    {RACE, "race_arrive_only", 64, 1, 0, FAILED, "race on shared 0x", THREAD},
    {RACE, "race_mbar_init", 64, 1, 0, FAILED, "mbarrier.arrive reads it, thread 0 of block 0 wrote it", THREAD},
    {RACE, "race_ldmatrix", 64, 1, 0, FAILED, "ldmatrix reads it, thread ", THREAD},
    {RACE, "race_cp_async", 32, 1, 512, FAILED, "reads it, thread ", THREAD},
    {RACE, "race_tma_overwrites", 64, 1, 8192, FAILED, "TMA load writes it, thread ", THREAD},
    {RACE, "race_tma_not_waited_by_all", 64, 1, 8192, FAILED, "reads it, a TMA load wrote it at kernels_bad_race.cu", THREAD},
    {RACE, "race_store_source", 64, 1, 8192, FAILED, "writes it, thread 0 of block 0 has a copy in flight that reads it", THREAD},
    {RACE, "race_wgmma_operand", 160, 1, 16384, FAILED, "writes it, a wgmma ", THREAD},
    {RACE, "race_cluster", 64, 2, 8192, FAILED, "TMA load writes it, thread ", THREAD},
    {RACE, "race_blocks_write", 64, 1, 0, FAILED, "this thread writes it, block ", ANY_THREAD},
    {RACE, "race_blocks_read", 64, 1, 0, FAILED, "this thread reads it, block ", ANY_THREAD},
    {RACE, "race_blocks_write_what_is_read", 64, 1, 0, FAILED, "several other blocks read it", ANY_THREAD},
    {RACE, "race_blocks_store", 64, 1, 8192, FAILED, "TMA store writes it, block ", ANY_THREAD},
};

static const char *libraries, *folder;
static MjCompileResult images[FILES];
static MjDevice *dev;
static MjModule *module;

static int compile_all(void **state)
{
    MjError err = MJ_ERROR_INIT;
    (void)state;
    for (int i = 0; i < FILES; i++) {
        char path[1024];
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        OK(sim_compile(path, &images[i], &err));
    }
    return 0;
}
static int free_all(void **state)
{
    (void)state;
    for (int i = 0; i < FILES; i++) mj_compile_result_free(&images[i]);
    return 0;
}

static void open_device(File file)
{
    MjError err = MJ_ERROR_INIT;
    OK(mj_device_open("cuda", NULL, &dev, &err));
    OK(dev->ops->module_load(dev, images[file].image, images[file].image_bytes, &module, &err));
}
static void close_device(void)
{
    dev->ops->module_unload(dev, module);
    mj_device_close(dev);
}

static MjTensorMapBytes map_of(void *p)
{
    MjError err = MJ_ERROR_INIT;
    MjTensorMapBytes map;
    const MjTensorMapSpec spec = {.address = p, .type = MJ_TENSOR_MAP_BF16, .swizzle = MJ_TENSOR_MAP_SWIZZLE_128, .rank = 2,
                                  .dims = {64, 64}, .strides = {128}, .box = {64, 64}};
    OK(mj_cuda_tensor_map(&spec, "test", &map, &err));
    return map;
}

/* The kernel's name, the block, and, except where no thread is to blame, the thread and a line of the file. */
static bool names_place(const Bad *b, const char *message)
{
    char block[160], line[64];
    (void)snprintf(block, sizeof block, b->where == THREAD ? "%s, block 0 of %u, thread " : "%s, block ", b->kernel, b->cluster);
    (void)snprintf(line, sizeof line, ", at %s:", names[b->file]);
    if (strstr(message, block) == NULL) return false;
    if (b->where == BLOCK) return true;
    return strstr(message, ", thread ") != NULL && (b->where == ANY_THREAD || strstr(message, line) != NULL);
}

/* Only after a kernel may a launch overlap. */
static int launch_nothing(MjError *err)
{
    MjKernelFn *fn = NULL;
    const Args args = {NULL, NULL, 0};
    const MjLaunch l = {.grid = 1, .block = 32, .args = &args, .args_bytes = sizeof args, .label = "nothing"};
    int rc;
    MJ_TRY(dev->ops->module_function(module, "nothing", &fn, err));
    MJ_TRY(dev->ops->launch(dev, fn, &l, err));
out:
    return rc;
}

static int launch(const Bad *b, float *out, float *in, const MjTensorMapBytes *maps, MjError *err)
{
    MjKernelFn *fn = NULL;
    int rc;
    const Args args = {out, in, N};
    const uint32_t grid = strncmp(b->kernel, "race_blocks", 11) == 0 ? 3 : b->cluster;
    const MjLaunch l = {.grid = grid, .block = b->block, .cluster = b->cluster, .shared_bytes = b->shared, .args = &args,
                        .args_bytes = sizeof args, .label = b->kernel, .tensor_maps = maps, .tensor_map_bytes = 2 * sizeof *maps,
                        .overlap = strncmp(b->kernel, "bad_overlapped", 14) == 0};
    MJ_TRY(dev->ops->module_function(module, b->kernel, &fn, err));
    if (l.overlap) MJ_TRY(launch_nothing(err));
    MJ_TRY(dev->ops->launch(dev, fn, &l, err));
    MJ_TRY(dev->ops->synchronize(dev, err));
out:
    return rc;
}

static int check(const Bad *b)
{
    MjError err = MJ_ERROR_INIT;
    void *out = NULL, *in = NULL, *tile = NULL;
    open_device(b->file);
    OK(dev->ops->alloc(dev, 2 * N * sizeof(float), "out", &out, &err));
    OK(dev->ops->alloc(dev, N * sizeof(float), "in", &in, &err));
    OK(dev->ops->alloc(dev, 64 * 64 * 2, "tile", &tile, &err));
    OK(dev->ops->fill(dev, in, 0, N * sizeof(float), &err));
    OK(dev->ops->fill(dev, tile, 0, 64 * 64 * 2, &err));
    const MjTensorMapBytes maps[2] = {map_of(tile), map_of(tile)};
    if (strcmp(b->kernel, "bad_freed") == 0) dev->ops->free(dev, in);
    if (strcmp(b->kernel, "bad_tma_freed") == 0) dev->ops->free(dev, tile);
    const int rc = launch(b, out, in, maps, &err);
    const bool good = rc != 0 && strstr(err.message, b->result) != NULL && strstr(err.message, b->says) != NULL && names_place(b, err.message);
    if (!good) print_error("%s: want CUDA_ERROR_%s saying '%s', got rc %d: %s\n", b->kernel, b->result, b->says, rc, err.message);
    mj_error_clear(&err);
    close_device();
    return !good;
}

static void test_bad_kernels(void **state)
{
    int failed = 0;
    (void)state;
    for (size_t i = 0; i < sizeof bads / sizeof bads[0]; i++) failed += check(&bads[i]);
    assert_int_equal(failed, 0);
}

static void test_races(void **state)
{
    int failed = 0;
    (void)state;
    for (size_t i = 0; i < sizeof races / sizeof races[0]; i++) failed += check(&races[i]);
    assert_int_equal(failed, 0);
}

/* Not a report: an accumulator in flight reads as NaN, so the result is wrong. */
static void test_wgmma_read_too_early(void **state)
{
    static const Bad early = {WGMMA, "bad_wgmma_not_waited", 128, 1, 16384, "", "", BLOCK};
    MjError err = MJ_ERROR_INIT;
    void *out = NULL;
    float first;
    (void)state;
    open_device(WGMMA);
    OK(dev->ops->alloc(dev, 2 * N * sizeof(float), "out", &out, &err));
    const MjTensorMapBytes maps[2] = {map_of(out), map_of(out)};
    OK(launch(&early, out, out, maps, &err));
    OK(dev->ops->download(dev, &first, out, sizeof first, &err));
    assert_true(isnan(first)); /* zeros times zeros, had it waited */
    close_device();
}

/* Not a report either: memory that nobody wrote is NaN in every float type, so nobody lives on zeros. */
static void test_fresh_memory(void **state)
{
    MjError err = MJ_ERROR_INIT;
    void *p = NULL;
    uint32_t words[64];
    (void)state;
    open_device(PLAIN);
    OK(dev->ops->alloc(dev, sizeof words, "fresh", &p, &err));
    OK(dev->ops->download(dev, words, p, sizeof words, &err));
    for (int i = 0; i < 64; i++) assert_int_equal(words[i], 0xffffffffu);
    close_device();
}

/* Kernels on two devices, each with its own memory; one that is handed the other's is told so. */
static void test_two_devices(void **state)
{
    static const Bad copy = {PLAIN, "bad_freed", 32, 1, 0, "", "", THREAD}; /* out[i] = in[i]: wrong only where the memory is */
    MjError err = MJ_ERROR_INIT;
    MjDevice *devices[2];
    MjModule *modules[2];
    float *out[2], *in[2];
    (void)state;
    for (int d = 0; d < 2; d++) {
        void *p = NULL;
        float values[32];
        for (int i = 0; i < 32; i++) values[i] = (float)(100 * d + i);
        OK(mj_device_open(d == 0 ? "cuda" : "cuda:1", NULL, &devices[d], &err));
        OK(devices[d]->ops->module_load(devices[d], images[PLAIN].image, images[PLAIN].image_bytes, &modules[d], &err));
        OK(devices[d]->ops->alloc(devices[d], sizeof values, "out", &p, &err));
        out[d] = p;
        OK(devices[d]->ops->alloc(devices[d], sizeof values, "in", &p, &err));
        in[d] = p;
        OK(devices[d]->ops->upload(devices[d], in[d], values, sizeof values, &err));
    }
    for (int d = 1; d >= 0; d--) {
        float got[32];
        dev = devices[d];
        module = modules[d];
        const MjTensorMapBytes maps[2] = {map_of(out[d]), map_of(out[d])};
        OK(launch(&copy, out[d], in[d], maps, &err));
        OK(dev->ops->download(dev, got, out[d], sizeof got, &err));
        for (int i = 0; i < 32; i++) assert_float_equal(got[i], (float)(100 * d + i), 0.0f);
    }
    const MjTensorMapBytes maps[2] = {map_of(out[0]), map_of(out[0])};
    assert_int_not_equal(launch(&copy, out[0], in[1], maps, &err), 0);
    assert_non_null(strstr(err.message, "memory of device 1, while device 0 is current"));
    mj_error_clear(&err);
    for (int d = 0; d < 2; d++) {
        devices[d]->ops->module_unload(devices[d], modules[d]);
        mj_device_close(devices[d]);
    }
}

int main(int argc, char **argv)
{
    const int begun = sim_begin(argc, argv, "FOLDER_OF_KERNELS");
    if (begun != 0) return begun;
    libraries = argv[1];
    folder = argv[2];
    setenv("MOJIT_SIMGPU_PROTECT", "1", 1);
    setenv("MOJIT_SIMGPU_DEVICES", "2", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_kernels),
        cmocka_unit_test(test_wgmma_read_too_early),
        cmocka_unit_test(test_fresh_memory),
        cmocka_unit_test(test_two_devices),
    };
    const struct CMUnitTest only_races[] = {cmocka_unit_test(test_races)};
    if (getenv("MOJIT_SIMGPU_RACES") != NULL) return cmocka_run_group_tests(only_races, compile_all, free_all);
    return cmocka_run_group_tests(tests, compile_all, free_all);
}
