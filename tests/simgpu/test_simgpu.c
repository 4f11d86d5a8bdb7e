/* The simulated GPU itself, through mojit's own cuda device and NVRTC compiler: kernels that are right give the results
 * worked out by hand (test_rules.c has the wrong ones). Also the device's messages.
 * Arguments: the folder of the simulator's libraries, kernels_good.cu. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/base/str.h"
#include "runtime/cuda_tensor_map.h"
#include "tests/simgpu/harness.h"

typedef struct Args {
    float *out;
    const float *in;
    int n;
} Args;

static const char *good_path;
static MjCompileResult good;
static MjDevice *dev;
static MjModule *module;

static int compile_good(void **state)
{
    MjError err = MJ_ERROR_INIT;
    (void)state;
    OK(sim_compile(good_path, &good, &err));
    return 0;
}
static int free_good(void **state)
{
    (void)state;
    mj_compile_result_free(&good);
    return 0;
}

static void open_with(const MjCompileResult *image)
{
    MjError err = MJ_ERROR_INIT;
    OK(mj_device_open("cuda", NULL, &dev, &err));
    OK(dev->ops->module_load(dev, image->image, image->image_bytes, &module, &err));
}
static void close_device(void)
{
    if (dev == NULL) return;
    dev->ops->module_unload(dev, module);
    mj_device_close(dev);
    dev = NULL;
    module = NULL;
}
static int close_after(void **state)
{
    (void)state;
    close_device();
    return 0;
}

static float *device_floats(size_t n, const char *what)
{
    MjError err = MJ_ERROR_INIT;
    void *p = NULL;
    OK(dev->ops->alloc(dev, n * sizeof(float), what, &p, &err));
    return p;
}

static int launch(const char *kernel, const MjLaunch *l, MjError *err)
{
    MjKernelFn *fn = NULL;
    int rc;
    MJ_TRY(dev->ops->module_function(module, kernel, &fn, err));
    MJ_TRY(dev->ops->launch(dev, fn, l, err));
    MJ_TRY(dev->ops->synchronize(dev, err));
out:
    return rc;
}

#define N 1024
static float in[N], out[N * 2];

static void run_good(const char *kernel, uint32_t grid, uint32_t block, uint32_t cluster, size_t shared, const void *maps,
                     size_t map_bytes, size_t n_out)
{
    MjError err = MJ_ERROR_INIT;
    float *dout = device_floats(N * 2, "out"), *din = device_floats(N, "in");
    OK(dev->ops->upload(dev, din, in, sizeof in, &err));
    const Args args = {dout, din, N};
    const MjLaunch l = {.grid = grid, .block = block, .cluster = cluster, .shared_bytes = shared, .args = &args,
                        .args_bytes = sizeof args, .label = "test", .tensor_maps = maps, .tensor_map_bytes = map_bytes};
    OK(launch(kernel, &l, &err));
    OK(dev->ops->download(dev, out, dout, n_out * sizeof(float), &err));
}

static void test_sum(void **state)
{
    (void)state;
    open_with(&good);
    for (int i = 0; i < N; i++) in[i] = (float)(i % 7);
    run_good("good_sum", 4, 256, 1, 0, NULL, 0, 4);
    for (int b = 0; b < 4; b++) {
        float want = 0.0f;
        for (int i = 0; i < 256; i++) want += in[b * 256 + i];
        assert_float_equal(out[b], want, 0.0f);
    }
}

static void test_early_exit(void **state)
{
    (void)state;
    open_with(&good);
    for (int i = 0; i < N; i++) in[i] = (float)i;
    run_good("good_early_exit", 1, 160, 1, 512, NULL, 0, 128);
    for (int i = 0; i < 128; i++) assert_float_equal(out[i], (float)(127 - i), 0.0f);
}

static void test_votes(void **state)
{
    (void)state;
    open_with(&good);
    for (int i = 0; i < N; i++) in[i] = (float)i;
    run_good("good_votes", 1, 64, 1, 16, NULL, 0, 64);
    assert_float_equal(out[0], 64.0f, 0.0f); /* every lane saw the odd lanes' ballot */
    assert_float_equal(out[1], 32.0f, 0.0f); /* thread 5's warp only */
    assert_float_equal(out[2], 63.0f, 0.0f);
    assert_float_equal(out[8], 8.0f, 0.0f);  /* the first of a group of 8 keeps its own */
    assert_float_equal(out[13], 12.0f, 0.0f);
    assert_float_equal(out[33], 4.0f + 5.0f + 6.0f + 7.0f, 0.0f);
}

static void test_mma(void **state)
{
    (void)state;
    open_with(&good);
    run_good("good_mma", 1, 32, 1, 0, NULL, 0, 128);
    for (int i = 0; i < 128; i++) assert_float_equal(out[i], (float)(i / 8 + i % 8), 0.0f);
    run_good("good_mma_fp8", 1, 32, 1, 0, NULL, 0, 128);
    for (int i = 0; i < 128; i++) assert_float_equal(out[i], (float)((i / 8 + i % 8) % 8), 0.0f);
    run_good("good_transpose", 1, 32, 1, 0, NULL, 0, 256);
    for (int i = 0; i < 256; i++) assert_float_equal(out[i], (float)i, 0.0f);
}

static void test_cp_async(void **state)
{
    (void)state;
    open_with(&good);
    for (int i = 0; i < N; i++) in[i] = (float)(i + 1);
    run_good("good_cp_async", 1, 32, 1, 1024, NULL, 0, 256);
    for (int i = 0; i < 256; i++) {
        const int from = i / 128 * 128 + 127 - i % 128;
        assert_float_equal(out[i], (from % 128 >= 126 ? 0.0f : (float)(from + 1)), 0.0f); /* lane 31's last 8 bytes */
    }
}

static uint16_t bf16_of(float x)
{
    uint32_t b;
    memcpy(&b, &x, 4);
    return (uint16_t)(b >> 16); /* test values are exact */
}

static MjTensorMapBytes map_of(void *p, uint64_t cols, uint64_t rows, uint32_t box_cols, uint32_t box_rows)
{
    MjError err = MJ_ERROR_INIT;
    MjTensorMapBytes map;
    const MjTensorMapSpec spec = {.address = p, .type = MJ_TENSOR_MAP_BF16, .swizzle = MJ_TENSOR_MAP_SWIZZLE_128, .rank = 2,
                                  .dims = {cols, rows}, .strides = {cols * 2}, .box = {box_cols, box_rows}};
    OK(mj_cuda_tensor_map(&spec, "test", &map, &err));
    return map;
}

static void test_tma(void **state)
{
    MjError err = MJ_ERROR_INIT;
    static uint16_t a[72 * 64], b[64 * 64];
    void *da, *db;
    (void)state;
    open_with(&good);
    for (int i = 0; i < 72 * 64; i++) a[i] = (uint16_t)i;
    OK(dev->ops->alloc(dev, sizeof a, "a", &da, &err));
    OK(dev->ops->alloc(dev, sizeof b, "b", &db, &err));
    OK(dev->ops->upload(dev, da, a, sizeof a, &err));
    const MjTensorMapBytes maps[2] = {map_of(da, 72, 64, 64, 64), map_of(db, 64, 64, 64, 64)};
    run_good("good_tma", 1, 64, 1, 64 * 64 * 2, maps, sizeof maps, 1);
    assert_float_equal(out[0], (float)((8 + 3) * 72 + 16 + 9), 0.0f);
    OK(dev->ops->download(dev, b, db, sizeof b, &err));
    for (int r = 0; r < 64; r++)
        for (int c = 0; c < 64; c++)
            assert_int_equal(b[r * 64 + c], r + 8 < 64 && c + 16 < 72 ? (r + 8) * 72 + c + 16 : 0);
}

static void test_wgmma(void **state)
{
    MjError err = MJ_ERROR_INIT;
    static uint16_t a[64 * 64], b[32 * 64];
    void *da, *db;
    (void)state;
    open_with(&good);
    for (int i = 0; i < 64 * 64; i++) a[i] = bf16_of((float)((i * 7 + i / 64) % 11 - 5));
    for (int i = 0; i < 32 * 64; i++) b[i] = bf16_of((float)((i * 5 + i / 64 * 3) % 9 - 4));
    OK(dev->ops->alloc(dev, sizeof a, "a", &da, &err));
    OK(dev->ops->alloc(dev, sizeof b, "b", &db, &err));
    OK(dev->ops->upload(dev, da, a, sizeof a, &err));
    OK(dev->ops->upload(dev, db, b, sizeof b, &err));
    const MjTensorMapBytes maps[2] = {map_of(da, 64, 64, 64, 64), map_of(db, 64, 32, 64, 32)};
    run_good("good_wgmma", 1, 128, 1, (64 + 32) * 128, maps, sizeof maps, 64 * 32);
    for (int r = 0; r < 64; r++)
        for (int c = 0; c < 32; c++) {
            float want = 0.0f;
            for (int k = 0; k < 64; k++)
                want += (float)(((r * 64 + k) * 7 + r) % 11 - 5) * (float)(((c * 64 + k) * 5 + c * 3) % 9 - 4);
            assert_float_equal(out[r * 32 + c], want, 0.0f); /* small integers: exact */
        }
}

static void test_cluster(void **state)
{
    MjError err = MJ_ERROR_INIT;
    static uint16_t a[64 * 64];
    void *da;
    (void)state;
    open_with(&good);
    for (int i = 0; i < 64 * 64; i++) a[i] = (uint16_t)i;
    OK(dev->ops->alloc(dev, sizeof a, "a", &da, &err));
    OK(dev->ops->upload(dev, da, a, sizeof a, &err));
    const MjTensorMapBytes maps[2] = {map_of(da, 64, 64, 64, 32), map_of(da, 64, 64, 64, 32)};
    run_good("good_cluster", 2, 64, 2, 64 * 128, maps, sizeof maps, 128);
    for (int i = 0; i < 128; i++) assert_float_equal(out[i], (float)(i % 64 * 64), 0.0f);
}

static void test_named_barriers(void **state)
{
    (void)state;
    open_with(&good);
    for (int i = 0; i < N; i++) in[i] = (float)(i + 3);
    run_good("good_named_barriers", 1, 256, 1, 0, NULL, 0, 4);
    for (int i = 0; i < 4; i++) assert_float_equal(out[i], (float)(2 * (i + 3)), 0.0f);
}

/* ---- what the driver refuses ---------------------------------------------------------------------------------------- */

static void test_geometry(void **state)
{
    static const struct {
        MjLaunch l;
        const char *kernel, *says;
    } cases[] = {
        {{.grid = 0, .block = 32}, "good_votes", "grid of 0 blocks"},
        {{.grid = 1, .block = 1025}, "good_votes", "block of 1025 threads; this kernel takes 1 to 1024"},
        {{.grid = 1, .block = 512}, "good_sum", "block of 512 threads; this kernel takes 1 to 256"},
        {{.grid = 1, .block = 32, .shared_bytes = 232449}, "good_votes", "bytes of shared memory"},
        {{.grid = 3, .block = 32, .cluster = 2}, "good_votes", "clusters of 2 blocks on a grid of 3"},
    };
    (void)state;
    open_with(&good);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        MjError err = MJ_ERROR_INIT;
        MjLaunch l = cases[i].l;
        const Args args = {NULL, NULL, 0};
        l.args = &args;
        l.args_bytes = sizeof args;
        l.label = "geometry";
        assert_int_equal(launch(cases[i].kernel, &l, &err), MJ_ERR_USAGE);
        if (strstr(err.message, cases[i].says) == NULL) fail_msg("want '%s', got '%s'", cases[i].says, err.message);
    }
}

static void test_tensor_map_rules(void **state)
{
    MjError err = MJ_ERROR_INIT;
    MjTensorMapBytes map;
    (void)state;
    open_with(&good);
    const char *p = (const char *)device_floats(4096, "t");
    MjTensorMapSpec s = {.address = p, .type = MJ_TENSOR_MAP_BF16, .swizzle = MJ_TENSOR_MAP_SWIZZLE_128, .rank = 2,
                         .dims = {64, 64}, .strides = {128}, .box = {64, 64}};
    OK(mj_cuda_tensor_map(&s, "ok", &map, &err));
    s.address = p + 8;
    assert_int_equal(mj_cuda_tensor_map(&s, "w", &map, &err), MJ_ERR_USAGE);
    assert_non_null(strstr(err.message, "not 16-byte aligned"));
    s.address = p;
    s.strides[0] = 130;
    assert_int_equal(mj_cuda_tensor_map(&s, "w", &map, &err), MJ_ERR_USAGE);
    assert_non_null(strstr(err.message, "multiple of 16"));
    s.strides[0] = 128;
    s.box[0] = 128;
    assert_int_equal(mj_cuda_tensor_map(&s, "w", &map, &err), MJ_ERR_USAGE);
    assert_non_null(strstr(err.message, "more than the swizzle's 128"));
}

static void test_graph(void **state)
{
    MjError err = MJ_ERROR_INIT;
    MjKernelFn *fn;
    MjGraph *graph;
    (void)state;
    open_with(&good);
    float *dout = device_floats(8, "out"), *din = device_floats(N, "in");
    for (int i = 0; i < N; i++) in[i] = 1.0f;
    OK(dev->ops->upload(dev, din, in, sizeof in, &err));
    OK(dev->ops->module_function(module, "good_sum", &fn, &err));
    Args args = {dout, din, N};
    const MjLaunch l = {.grid = 4, .block = 256, .args = &args, .args_bytes = sizeof args, .label = "sum"};
    OK(dev->ops->graph_begin(dev, &err));
    OK(dev->ops->fill(dev, dout, 0, 8 * sizeof(float), &err));
    OK(dev->ops->launch(dev, fn, &l, &err));
    assert_int_equal(dev->ops->upload(dev, din, in, 4, &err), MJ_ERR_USAGE); /* would not be in the graph */
    OK(dev->ops->graph_end(dev, &graph, &err));
    memset(&args, 0, sizeof args); /* the capture copied the arguments */
    for (int i = 0; i < 2; i++) {
        OK(dev->ops->graph_launch(dev, graph, &err));
        OK(dev->ops->download(dev, out, dout, 8 * sizeof(float), &err));
        assert_float_equal(out[3], 256.0f, 0.0f);
        assert_float_equal(out[4], 0.0f, 0.0f);
        OK(dev->ops->fill(dev, dout, 0xff, 8 * sizeof(float), &err));
    }
    dev->ops->graph_destroy(dev, graph);
}

static void test_out_of_memory(void **state)
{
    MjError err = MJ_ERROR_INIT;
    void *p;
    (void)state;
    open_with(&good);
    OK(dev->ops->alloc(dev, 1000000, "weights", &p, &err));
    assert_int_equal(dev->ops->alloc(dev, (size_t)64 << 30, "activations", &p, &err), MJ_ERR_MEMORY);
    assert_non_null(strstr(err.message, "68719.5 MB asked for 'activations'"));
    assert_non_null(strstr(err.message, "weights 1.0 MB"));
    assert_int_equal(dev->ops->allocated_bytes(dev), 1000000);
    dev->ops->free(dev, p);
    assert_int_equal(dev->ops->allocated_bytes(dev), 0);
    assert_int_equal(dev->ops->peak_bytes(dev), 1000000);
}

static void test_info_and_wrong_images(void **state)
{
    MjError err = MJ_ERROR_INIT;
    MjModule *m;
    MjCompileResult old = {0};
    (void)state;
    open_with(&good);
    const MjDeviceInfo *info = dev->ops->info(dev);
    assert_string_equal(info->kind, "cuda");
    assert_string_equal(info->target, "sm_90a");
    assert_int_equal(info->family, MJ_FAMILY_SM90A);
    assert_int_equal(info->max_shared_bytes, 232448);
    assert_float_equal(info->bf16_peak_flops, 0.0, 0.0); /* unknown name: never an invented number */
    assert_int_equal(dev->ops->module_load(dev, "not an image, but long enough to look at", 40, &m, &err), MJ_ERR_DEVICE);
    assert_non_null(strstr(err.message, "INVALID_IMAGE"));
    char source[] = "extern \"C\" __global__ void k(float *p) { p[0] = 1.0f; }\n";
    MjCompiler *c;
    OK(mj_compiler_nvrtc_open(&c, &err));
    const MjCompileRequest req = {.source = source, .source_name = "k.cu", .target = "sm_80", .entry = "k"};
    OK(c->compile(c, &req, &old, &err));
    assert_int_equal(dev->ops->module_load(dev, old.image, old.image_bytes, &m, &err), MJ_ERR_DEVICE);
    assert_non_null(strstr(err.message, "NO_BINARY_FOR_GPU"));
    mj_compile_result_free(&old);
    source[30] = '?';
    assert_int_equal(c->compile(c, &req, &old, &err), MJ_ERR_COMPILE);
    assert_non_null(strstr(err.message, "k.cu"));
    mj_error_clear(&err);
    c->close(c);
}

int main(int argc, char **argv)
{
    const int begun = sim_begin(argc, argv, "kernels_good.cu");
    if (begun != 0) return begun;
    setenv("MOJIT_SIMGPU_PROTECT", "1", 1);
    good_path = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_sum, close_after),
        cmocka_unit_test_teardown(test_early_exit, close_after),
        cmocka_unit_test_teardown(test_votes, close_after),
        cmocka_unit_test_teardown(test_mma, close_after),
        cmocka_unit_test_teardown(test_cp_async, close_after),
        cmocka_unit_test_teardown(test_tma, close_after),
        cmocka_unit_test_teardown(test_wgmma, close_after),
        cmocka_unit_test_teardown(test_cluster, close_after),
        cmocka_unit_test_teardown(test_named_barriers, close_after),
        cmocka_unit_test_teardown(test_geometry, close_after),
        cmocka_unit_test_teardown(test_tensor_map_rules, close_after),
        cmocka_unit_test_teardown(test_graph, close_after),
        cmocka_unit_test_teardown(test_out_of_memory, close_after),
        cmocka_unit_test_teardown(test_info_and_wrong_images, close_after),
    };
    return cmocka_run_group_tests(tests, compile_good, free_good);
}
