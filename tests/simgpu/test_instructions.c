/* The simulator's instructions other than matrix ones (test_matrix.c), each against values worked out by hand from the section of
 * the PTX ISA manual, version 9.1, that is named beside it. Arguments: the simulator's libraries, kernels_instructions.cu. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/cuda_tensor_map.h"
#include "tests/simgpu/harness.h"

typedef struct Args {
    uint32_t *out;
    const uint32_t *in;
    int n;
} Args;

#define WORDS 4096
static uint32_t in[WORDS], out[WORDS], *dtensor;
static const char *path;
static SimBench bench;
static MjTensorMapBytes maps[2];

static int open_device(void **state)
{
    MjError err = MJ_ERROR_INIT;
    void *p;
    (void)state;
    OK(sim_bench_open(&bench, path, sizeof in, &err));
    OK(bench.device->ops->alloc(bench.device, sizeof in, "tensor", &p, &err));
    dtensor = p;
    return 0;
}
static int close_device(void **state)
{
    (void)state;
    sim_bench_close(&bench);
    return 0;
}

static void run(const char *kernel, uint32_t threads, uint32_t cluster, int n)
{
    MjError err = MJ_ERROR_INIT;
    MjDevice *dev = bench.device;
    MjKernelFn *fn = NULL;
    const Args args = {bench.out, bench.in, n};
    const MjLaunch l = {.grid = cluster, .block = threads, .cluster = cluster, .shared_bytes = 8192, .args = &args, .args_bytes = sizeof args,
                        .label = kernel, .tensor_maps = maps, .tensor_map_bytes = sizeof maps, .overlap = strncmp(kernel, "overlapped", 10) == 0};
    OK(dev->ops->upload(dev, bench.in, in, sizeof in, &err));
    OK(dev->ops->fill(dev, bench.out, 0xee, sizeof out, &err));
    if (l.overlap) { /* after a kernel only */
        const MjLaunch before = {.grid = 1, .block = 32, .args = &args, .args_bytes = sizeof args, .label = "nothing"};
        OK(dev->ops->module_function(bench.module, "nothing", &fn, &err));
        OK(dev->ops->launch(dev, fn, &before, &err));
    }
    OK(dev->ops->module_function(bench.module, kernel, &fn, &err));
    OK(dev->ops->launch(dev, fn, &l, &err));
    OK(dev->ops->synchronize(dev, &err));
    OK(dev->ops->download(dev, out, bench.out, sizeof out, &err));
}

static void same(const char *what, size_t i, uint32_t got, uint32_t want)
{
    if (got != want) fail_msg("%s %zu: want %08x, got %08x", what, i, want, got);
}

#define NOT_A_NUMBER bits_of(0.0f / zero)
static volatile float zero; /* so that the division is done when the test runs */

/* ---- 9.7.9.21 "cvt": round to nearest even; .satfinite keeps the sign and gives the largest; NaN is the format's own --- */

static void test_cvt(void **state)
{
    const struct {
        float x;
        uint32_t bf16, e4m3, e5m2;
    } cases[] = {
        {0.0f, 0x0000, 0x00, 0x00},
        {-0.0f, 0x8000, 0x80, 0x80},
        {1.0f, 0x3f80, 0x38, 0x3c},                /* 0 0111 000, 0 01111 00 */
        {-2.5f, 0xc020, 0xc2, 0xc1},               /* 1.25 x 2; no tie in any */
        {0x1.01p0f, 0x3f80, 0x38, 0x3c},           /* half a step of bf16: to even, down */
        {0x1.03p0f, 0x3f82, 0x38, 0x3c},           /* one and a half: to even, up */
        {0x1.01001p0f, 0x3f81, 0x38, 0x3c},        /* just over half */
        {1.0625f, 0x3f88, 0x38, 0x3c},             /* half a step of e4m3 */
        {1.1875f, 0x3f98, 0x3a, 0x3d},             /* one and a half: up to 1.25 */
        {1.125f, 0x3f90, 0x39, 0x3c},              /* half a step of e5m2 */
        {1.375f, 0x3fb0, 0x3b, 0x3e},              /* one and a half: up to 1.5 */
        {448.0f, 0x43e0, 0x7e, 0x5f},              /* the largest e4m3 */
        {464.0f, 0x43e8, 0x7e, 0x5f},              /* half-way to what would be 480 */
        {480.0f, 0x43f0, 0x7e, 0x60},              /* e5m2: half-way between 448 and 512, to even */
        {57344.0f, 0x4760, 0x7e, 0x7b},            /* the largest e5m2 */
        {61440.0f, 0x4770, 0x7e, 0x7b},
        {3.4e38f, 0x7f80, 0x7e, 0x7b},             /* bf16: beyond the largest finite, 3.39e38 */
        {-1e9f, 0xce6e, 0xfe, 0xfb},
        {0x1p-6f, 0x3c80, 0x08, 0x24},             /* the smallest normal e4m3 */
        {0x1p-9f, 0x3b00, 0x01, 0x18},             /* the smallest subnormal */
        {0x1p-10f, 0x3a80, 0x00, 0x14},            /* half of it: to even, zero */
        {0x1.8p-10f, 0x3ac0, 0x01, 0x16},
        {0x1.8p-9f, 0x3b40, 0x02, 0x1a},           /* between 1 and 2 steps: to even */
        {-0x1.cp-7f, 0xbc60, 0x87, 0xa3},          /* 7 steps; e5m2: 1.75 x 2^-7 */
        {0x1p-14f, 0x3880, 0x00, 0x04},            /* the smallest normal e5m2 */
        {0x1p-16f, 0x3780, 0x00, 0x01},
        {0x1p-17f, 0x3700, 0x00, 0x00},
        {0x1.8p-16f, 0x37c0, 0x00, 0x02},
    };
    const size_t n = sizeof cases / sizeof *cases;
    (void)state;
    for (size_t i = 0; i < n; i++) in[2 * i] = bits_of(cases[i].x), in[2 * i + 1] = bits_of(1.0f);
    in[2 * n] = bits_of(1.0f), in[2 * n + 1] = 0x7f800000u;       /* infinity, in the upper half */
    in[2 * n + 2] = NOT_A_NUMBER, in[2 * n + 3] = 0xffc12345u;
    run("to_narrow", 128, 1, (int)n + 2);
    for (size_t i = 0; i < n; i++) {
        same("cvt bf16", i, out[3 * i], cases[i].bf16 | 0x3f800000u);
        same("cvt e4m3", i, out[3 * i + 1], cases[i].e4m3 | 0x3800u);
        same("cvt e5m2", i, out[3 * i + 2], cases[i].e5m2 | 0x3c00u);
    }
    same("cvt bf16 of infinity", n, out[3 * n], 0x7f803f80u);
    same("cvt e4m3 of infinity", n, out[3 * n + 1], 0x7e38u);
    same("cvt e5m2 of infinity", n, out[3 * n + 2], 0x7b3cu);
    same("cvt bf16 of NaN", n, out[3 * n + 3], 0x7fff7fffu);
    same("cvt e4m3 of NaN", n, out[3 * n + 4], 0x7f7fu);
    same("cvt e5m2 of NaN", n, out[3 * n + 5], 0x7f7fu);
}

static void test_cvt_half(void **state)
{
    static const uint32_t cases[][3] = { /* two codes; as e4m3, as e5m2 */
        {0x3800, 0x3c000000, 0x38000000}, {0x0180, 0x18008000, 0x01008000}, {0x0701, 0x23001800, 0x07000100},
        {0x7ec2, 0x5f00c100, 0x7fffc200}, {0x7b7f, 0x5d807fff, 0x7b007fff}, {0x7c08, 0x5e002400, 0x7c000800},
    };
    const size_t n = sizeof cases / sizeof *cases;
    (void)state;
    for (size_t i = 0; i < n; i++) in[i] = cases[i][0];
    run("to_half", 32, 1, (int)n);
    for (size_t i = 0; i < n; i++) {
        same("cvt f16x2.e4m3x2", i, out[2 * i], cases[i][1]);
        same("cvt f16x2.e5m2x2", i, out[2 * i + 1], cases[i][2]);
    }
}

/* 9.7.4.8 "max": the larger; where one is NaN the other; +0.0 > -0.0 */
static void test_max(void **state)
{
    static const uint32_t cases[][4] = {
        {0x3f804000, 0x40003f80, 0x40004000, 0x40004000}, /* 1, 2 and 2, 1 */
        {0xbf80c000, 0xc000bf80, 0xbf80bf80, 0xbf80bf80}, /* -1, -2 and -2, -1 */
        {0x7fc03f80, 0x3f807fc1, 0x3f803f80, 0x7fff7fff}, /* NaN on either side */
        {0x7fc07fc0, 0x7fc17fc1, 0x7fff7fff, 0x7fff7fff}, /* on both */
        {0x00008000, 0x80000000, 0x00000000, 0x00000000},
    };
    const size_t n = sizeof cases / sizeof *cases;
    (void)state;
    for (size_t i = 0; i < n; i++) in[2 * i] = cases[i][0], in[2 * i + 1] = cases[i][1];
    run("larger", 32, 1, (int)n);
    for (size_t i = 0; i < n; i++) same("max.bf16x2", i, out[i], cases[i][2]), same("max.NaN.bf16x2", i, out[n + i], cases[i][3]);
}

/* 9.7.3.11 "min.NaN": the smaller; canonical NaN where one is NaN; -0.0 < +0.0 */
static void test_min(void **state)
{
    static const uint32_t cases[][3] = {
        {0x3f800000, 0x40000000, 0x3f800000}, {0x40000000, 0x3f800000, 0x3f800000}, {0x3f800000, 0xff800000, 0xff800000},
        {0x7fc00001, 0x3f800000, 0x7fffffff}, {0x3f800000, 0xffc00001, 0x7fffffff}, {0x00000000, 0x80000000, 0x80000000},
        {0x80000000, 0x00000000, 0x80000000},
    };
    const size_t n = sizeof cases / sizeof *cases;
    (void)state;
    for (size_t i = 0; i < n; i++) in[2 * i] = cases[i][0], in[2 * i + 1] = cases[i][1];
    run("smaller", 32, 1, (int)n);
    for (size_t i = 0; i < n; i++) same("min.NaN.f32", i, out[i], cases[i][2]);
}

/* 9.7.3.21 "ex2", 9.7.3.20 "lg2", 9.7.3.13 "rcp": the tables of special values, with .ftz; powers of two are exact */
static void test_approximate(void **state)
{
    const uint32_t inf = 0x7f800000u, one = 0x3f800000u;
    const struct {
        uint32_t x, ex2, lg2, rcp;
    } cases[] = {
        {bits_of(8.0f), bits_of(256.0f), bits_of(3.0f), bits_of(0.125f)},
        {bits_of(0.25f), bits_of(0x1.306fe0p0f), bits_of(-2.0f), bits_of(4.0f)},
        {0, one, inf | 0x80000000u, inf},
        {0x80000000u, one, inf | 0x80000000u, inf | 0x80000000u},
        {0x00400000u, one, inf | 0x80000000u, inf}, /* subnormal: a zero */
        {inf, inf, inf, 0},
        {bits_of(-127.0f), 0, 0, bits_of(-1.0f / 127.0f)}, /* 2^-127 is subnormal: zero. lg2 is NaN: below */
        {bits_of(0x1p127f), inf, bits_of(127.0f), 0},      /* 2^-127 again */
    };
    const size_t n = sizeof cases / sizeof *cases;
    (void)state;
    for (size_t i = 0; i < n; i++) in[i] = cases[i].x;
    in[n] = inf | 0x80000000u; /* -infinity */
    run("approximate", 32, 1, (int)n + 1);
    for (size_t i = 0; i < n; i++) {
        same("ex2", i, out[3 * i], cases[i].ex2);
        if (i == 6) assert_true((out[3 * i + 1] & 0x7fffffffu) > inf);
        else same("lg2", i, out[3 * i + 1], cases[i].lg2);
        same("rcp", i, out[3 * i + 2], cases[i].rcp);
    }
    same("ex2", n, out[3 * n], 0);
    assert_true((out[3 * n + 1] & 0x7fffffffu) > inf);
    same("rcp", n, out[3 * n + 2], 0x80000000u);
}

/* ---- warps ------------------------------------------------------------------------------------------------------- */

/* 9.7.9.6 "shfl.sync" with segments of 8 lanes; lane l brings 10 l */
static void test_shfl(void **state)
{
    (void)state;
    run("warp", 32, 1, 0);
    for (uint32_t l = 0; l < 32; l++) {
        const uint32_t base = l / 8 * 8;
        same("shfl.up 3", l, out[l], 10 * (l - base >= 3 ? l - 3 : l));
        same("shfl.down 3", l, out[32 + l], 10 * (l - base + 3 < 8 ? l + 3 : l));
        /* .bfly looks at the upper bound alone: lanes of an odd segment reach the even one before it */
        same("shfl.bfly 8", l, out[64 + l], 10 * (l / 8 % 2 == 1 ? l - 8 : l));
        same("shfl.idx 10", l, out[96 + l], 10 * (base + 2));
        if (l < 16) same("shfl.bfly 1 of half a warp", l, out[544 + l], 10 * (l % 2 == 0 ? l + 1 : l - 1));
        same("shfl.bfly 8 of every eighth lane", l, out[608 + l], 10 * (l ^ 8));
        same("shfl.bfly 16 of f64", l, out[576 + l], 1 + (l < 16 ? l + 16 : l - 16));
    }
    same("lane 9, up 3", 0, out[9], 90);   /* 9 - 3 = 6 lies in the segment before */
    same("lane 12, up 3", 0, out[12], 90);
    same("lane 3, bfly 8", 0, out[64 + 3], 30);
    same("lane 11, bfly 8", 0, out[64 + 11], 30);
}

/* 9.7.13.9 "vote.sync", 9.7.13.10 "match.sync", 9.7.13.14 "elect.sync" */
static void test_votes(void **state)
{
    uint32_t elected = 0;
    (void)state;
    run("warp", 32, 1, 0);
    for (uint32_t l = 0; l < 32; l++) {
        same("ballot", l, out[128 + l], 0x49249249u); /* every third bit from 0 on */
        same("any", l, out[160 + l], 1);
        same("all", l, out[192 + l], 0);
        same("match.any", l, out[224 + l], 0xfu << (l / 4 * 4));
        elected += out[480 + l];
        same("%laneid", l, out[512 + l], l);
    }
    same("elected", 0, elected, 1);
}

/* 9.7.13.12 "redux.sync" */
static void test_redux(void **state)
{
    (void)state;
    run("warp", 32, 1, 0);
    for (uint32_t l = 0; l < 32; l++) {
        same("redux.add.u32", l, out[256 + l], 496);
        same("redux.min.s32", l, out[288 + l], 0xfffffffbu);
        same("redux.min.u32", l, out[320 + l], 0);
        same("redux.max.u32", l, out[352 + l], 0xffffffffu);
        same("redux.max.s32", l, out[384 + l], 26);
        same("redux.and.b32", l, out[416 + l], 8);
        same("redux.or.b32", l, out[448 + l], 31);
    }
}

/* 9.7.13.1 "barrier.red"; 9.7.9.7 "prmt", 9.7.8.7 "shf", 9.7.1 "brev", "popc", "clz", "mul.hi" */
static void test_block(void **state)
{
    (void)state;
    run("block", 64, 1, 0);
    for (uint32_t t = 0; t < 64; t++) {
        same("red.popc", t, out[t], 10);
        same("red.and", t, out[64 + t], 0);
        same("red.or", t, out[128 + t], 1);
    }
    same("prmt 5410", 0, out[192], 0x55441100u);
    same("prmt 0327", 0, out[193], 0x00332277u);
    same("shf.l.wrap 1", 0, out[194], 5); /* bits 62..31 of 2:80000001 */
    same("shf.r.wrap 1", 0, out[195], 0x40000000u);
    same("brev", 0, out[196], 0xc0000000u);
    same("popc", 0, out[197], 9);
    same("clz 1", 0, out[198], 31);
    same("ffs 8", 0, out[199], 4);
    same("mul.hi", 0, out[200], 3);
    same("clz 0", 0, out[201], 32);
}

/* 9.7.13.5 "atom": returns the old value */
static void test_atom(void **state)
{
    uint32_t seen[64] = {0};
    (void)state;
    run("atomics", 64, 1, 0);
    for (int t = 0; t < 64; t++) {
        assert_true(out[t] % 3 == 0 && out[t] / 3 < 64);
        seen[out[t] / 3]++;
    }
    for (int t = 0; t < 64; t++) same("old values", (size_t)t, seen[t], 1);
    same("atom.add", 0, out[64], 192);
    same("atom.max", 0, out[65], 63);
    same("atom.min", 0, out[66], 7);
    same("atom.cas", 0, out[67], 77);
    same("atom.cas old", 0, out[68], 5);
}

/* ---- copies ------------------------------------------------------------------------------------------------------- */

/* 9.7.9.25.3.1 "cp.async": the bytes after src-size are zeros; 9.7.9.25.3.3: wait_group N leaves the N newest groups */
static void test_cp_async(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 128; i++) in[i] = 1000 + i;
    run("copy_async", 32, 1, 0);
    for (uint32_t t = 0; t < 32; t++) {
        same("cp.async 4", t, out[t], t == 3 ? 0 : 1000 + 4 * t);
        same("cp.async 16, 4 bytes", t, out[32 + 4 * t], 1000 + 4 * t);
        for (uint32_t i = 1; i < 4; i++) same("cp.async zeros", t, out[32 + 4 * t + i], 0);
        for (uint32_t i = 0; i < 4; i++) same("ld.global.nc", t, out[160 + 4 * t + i], 1000 + 4 * t + i);
    }
}

/* 9.7.13.15: a phase is over when no arrival and no byte is missing; phases have parity 0, 1, 0; 9.7.9.25.4.1 "cp.async.bulk" */
static void test_mbarrier(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 24; i++) in[i] = 7 * i;
    run("phases", 64, 1, 0);
    for (uint32_t i = 0; i < 24; i++) same("word of round", i, out[i], 7 * i);
    same("memory after inval", 0, out[24], 42);
}

/* 9.7.9.25.4.1, shared to global; 9.7.9.27.2.2: wait_group.read ends when the source has been read */
static void test_bulk_store(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 64; i++) in[i] = 100 + i;
    run("bulk_store", 64, 1, 0);
    for (uint32_t i = 0; i < 64; i++) same("word", i, out[i], 100 + i);
    same("beyond", 0, out[64], 0xeeeeeeeeu);
}

static void make_map(int which, void *p, MjTensorMapType type, MjTensorMapSwizzle swizzle, uint32_t rank, const uint64_t *dims, const uint32_t *box,
                     uint32_t element)
{
    MjError err = MJ_ERROR_INIT;
    MjTensorMapSpec s = {.address = p, .type = type, .swizzle = swizzle, .rank = rank};
    uint64_t stride = element;
    for (uint32_t i = 0; i < rank; i++) {
        s.dims[i] = dims[i];
        s.box[i] = box[i];
        if (i + 1 < rank) s.strides[i] = stride *= dims[i];
    }
    OK(mj_cuda_tensor_map(&s, "test", &maps[which], &err));
}

static void upload_tensor(uint32_t words)
{
    MjError err = MJ_ERROR_INIT;
    static uint32_t tensor[WORDS];
    for (uint32_t i = 0; i < words; i++) tensor[i] = i;
    OK(bench.device->ops->upload(bench.device, dtensor, tensor, words * sizeof *tensor, &err));
}

/* 5.5.7 "Swizzling Modes": which 16-byte piece lies in each place of each 128 bytes, as in the manual's tables */
static const uint8_t pieces_32[2][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}};
static const uint8_t pieces_64[4][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {2, 3, 0, 1, 6, 7, 4, 5}, {3, 2, 1, 0, 7, 6, 5, 4}};
static const uint8_t pieces_128[8][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {2, 3, 0, 1, 6, 7, 4, 5}, {3, 2, 1, 0, 7, 6, 5, 4},
                                         {4, 5, 6, 7, 0, 1, 2, 3}, {5, 4, 7, 6, 1, 0, 3, 2}, {6, 7, 4, 5, 2, 3, 0, 1}, {7, 6, 5, 4, 3, 2, 1, 0}};

static void test_swizzle(void **state)
{
    static const struct {
        MjTensorMapSwizzle swizzle;
        const uint8_t (*pieces)[8];
        uint32_t lines, row; /* of the pattern; bytes of a box row */
    } modes[] = {{MJ_TENSOR_MAP_SWIZZLE_NONE, pieces_32, 1, 64}, {MJ_TENSOR_MAP_SWIZZLE_32, pieces_32, 2, 32},
                 {MJ_TENSOR_MAP_SWIZZLE_64, pieces_64, 4, 64}, {MJ_TENSOR_MAP_SWIZZLE_128, pieces_128, 8, 128}};
    (void)state;
    upload_tensor(512);
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        const uint32_t columns = modes[m].row / 4, rows = 2048 / modes[m].row;
        const uint64_t dims[2] = {columns, rows};
        const uint32_t box[2] = {columns, rows};
        make_map(0, dtensor, MJ_TENSOR_MAP_F32, modes[m].swizzle, 2, dims, box, 4);
        memset(in, 0, sizeof in);
        in[0] = 2, in[1] = 512;
        run("tensor_load", 32, 1, 0);
        for (uint32_t w = 0; w < 512; w++) {
            const uint32_t line = w / 32, place = w % 32 / 4; /* 128 bytes, 16 bytes */
            same("swizzled word", 1000 * m + w, out[w], 32 * line + 4 * modes[m].pieces[line % modes[m].lines][place] + w % 4);
        }
        make_map(1, (uint32_t *)bench.out + 1024, MJ_TENSOR_MAP_F32, modes[m].swizzle, 2, dims, box, 4); /* and back: what was loaded is stored */
        memcpy(in + 8, out, 512 * sizeof *in);
        run("tensor_store", 32, 1, 0);
        for (uint32_t w = 0; w < 512; w++) same("stored word", 1000 * m + w, out[1024 + w], w);
    }
}

/* 9.7.9.27.1.2 "cp.async.bulk.tensor", 5.5.3.1 "Bounding Box", 5.5.3.3 "Out of Boundary Access": zeros outside */
static void test_boxes(void **state)
{
    (void)state;
    upload_tensor(480);
    const uint64_t flat[2] = {16, 10};
    const uint32_t box2[2] = {8, 4};
    make_map(0, dtensor, MJ_TENSOR_MAP_F32, MJ_TENSOR_MAP_SWIZZLE_NONE, 2, flat, box2, 4);
    memset(in, 0, sizeof in);
    in[0] = 2, in[1] = 32, in[2] = 12, in[3] = (uint32_t)-1; /* columns 12 to 19 of 16, rows -1 to 2 */
    run("tensor_load", 32, 1, 0);
    for (uint32_t r = 0; r < 4; r++)
        for (uint32_t c = 0; c < 8; c++) same("2d", 8 * r + c, out[8 * r + c], r >= 1 && c < 4 ? 16 * (r - 1) + 12 + c : 0);

    const uint64_t deep[4] = {8, 5, 4, 3}; /* element (x, y, z, w) is x + 8 y + 40 z + 160 w */
    const uint32_t box3[3] = {4, 2, 2}, box4[4] = {4, 2, 2, 2};
    make_map(0, dtensor, MJ_TENSOR_MAP_F32, MJ_TENSOR_MAP_SWIZZLE_NONE, 3, deep, box3, 4);
    in[0] = 3, in[1] = 16, in[2] = 2, in[3] = 4, in[4] = 1;
    run("tensor_load", 32, 1, 0);
    same("3d first", 0, out[0], 2 + 32 + 40);
    same("3d second row is outside", 0, out[4], 0);
    same("3d next plane", 0, out[8], 2 + 32 + 80);
    same("3d its last column", 0, out[11], 5 + 32 + 80);
    make_map(0, dtensor, MJ_TENSOR_MAP_F32, MJ_TENSOR_MAP_SWIZZLE_NONE, 4, deep, box4, 4);
    in[0] = 4, in[1] = 32, in[2] = 4, in[3] = 1, in[4] = 2, in[5] = 2;
    run("tensor_load", 32, 1, 0);
    same("4d first", 0, out[0], 4 + 8 + 80 + 320);
    same("4d next row", 0, out[5], 5 + 16 + 80 + 320);
    same("4d next plane", 0, out[8], 4 + 8 + 120 + 320);
    same("4d beyond the fourth dimension", 0, out[16], 0);
}

/* The same section, to global memory: what lies outside is not written. 9.7.9.27.1.3 "cp.reduce.async.bulk.tensor": .add of f32 */
static void test_stores(void **state)
{
    const uint64_t dims[3] = {8, 3, 2};
    const uint32_t box[3] = {4, 2, 1};
    (void)state;
    memset(in, 0, sizeof in);
    for (uint32_t i = 0; i < 8; i++) in[8 + i] = bits_of((float)(i + 1));
    make_map(1, bench.out, MJ_TENSOR_MAP_F32, MJ_TENSOR_MAP_SWIZZLE_NONE, 2, dims, box, 4);
    in[0] = 2, in[1] = 8, in[2] = 6, in[3] = 2; /* columns 6 to 9 of 8, rows 2 and 3 of 3 */
    run("tensor_store", 32, 1, 0);
    for (uint32_t i = 0; i < 48; i++) same("2d", i, out[i], i == 22 ? bits_of(1.0f) : i == 23 ? bits_of(2.0f) : 0xeeeeeeeeu);
    make_map(1, bench.out, MJ_TENSOR_MAP_F32, MJ_TENSOR_MAP_SWIZZLE_NONE, 3, dims, box, 4);
    in[0] = 3, in[2] = 0, in[3] = 1, in[4] = 1;
    run("tensor_store", 32, 1, 0);
    for (uint32_t i = 0; i < 48; i++) {
        const uint32_t y = i % 24 / 8, x = i % 8;
        same("3d", i, out[i], i >= 24 && y >= 1 && x < 4 ? bits_of((float)(4 * (y - 1) + x + 1)) : 0xeeeeeeeeu);
    }
    in[0] = 13; /* 0xeeeeeeee is -3.7e28: a sum with 1 to 8 is itself */
    run("tensor_store", 32, 1, 0);
    same("add to a large number", 0, out[32], 0xeeeeeeeeu);
}

/* 0.5 is in the tensor, and 1 to 8 are added to it */
static void test_adds(void **state)
{
    MjError err = MJ_ERROR_INIT;
    const uint64_t dims[3] = {8, 3, 2};
    const uint32_t box[3] = {4, 2, 1};
    float tensor[48], got[48];
    (void)state;
    for (int rank = 2; rank <= 3; rank++) {
        for (int i = 0; i < 48; i++) tensor[i] = 0.5f;
        OK(bench.device->ops->upload(bench.device, dtensor, tensor, sizeof tensor, &err));
        memset(in, 0, sizeof in);
        for (uint32_t i = 0; i < 8; i++) in[8 + i] = bits_of((float)(i + 1));
        make_map(1, dtensor, MJ_TENSOR_MAP_F32, MJ_TENSOR_MAP_SWIZZLE_NONE, (uint32_t)rank, dims, box, 4);
        in[0] = 10 + (uint32_t)rank, in[1] = 8, in[2] = 4, in[3] = 2; /* row 3 is outside */
        run("tensor_store", 32, 1, 0);
        OK(bench.device->ops->download(bench.device, got, dtensor, sizeof got, &err));
        for (int i = 0; i < 48; i++) assert_float_equal(got[i], i >= 20 && i < 24 ? 0.5f + (float)(i - 19) : 0.5f, 0.0f);
    }
}

/* ---- clusters, dependent launches, registers ----------------------------------------------------------------------- */

/* 9.7.13.3 "barrier.cluster", 9.7.9.23 "mapa", 10.16 and 10.17, .multicast::cluster: same offsets in every block of the mask */
static void test_cluster(void **state)
{
    const uint64_t dims[3] = {8, 4, 2};
    const uint32_t box[3] = {8, 4, 1};
    (void)state;
    upload_tensor(64);
    make_map(0, dtensor, MJ_TENSOR_MAP_F32, MJ_TENSOR_MAP_SWIZZLE_NONE, 2, dims, box, 4);
    make_map(1, dtensor, MJ_TENSOR_MAP_F32, MJ_TENSOR_MAP_SWIZZLE_NONE, 3, dims, box, 4);
    run("cluster", 32, 2, 0);
    for (uint32_t i = 0; i < 128; i++) same("multicast", i, out[i], i % 64); /* words 0 to 31 from block 0, 32 to 63 from block 1 */
    same("rank 0 of 2", 0, out[128], 2);
    same("rank 1 of 2", 0, out[129], 12);
    run("cluster_leavers", 32, 2, 0); /* "wait for all non-exited threads of the cluster" */
    for (uint32_t i = 0; i < 64; i++) same("leavers", i, out[i], i % 32 < 16 ? 0xeeeeeeeeu : 7);
}

/* 9.7.13.13 "griddepcontrol" */
static void test_overlap(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 32; i++) in[i] = i;
    run("overlapped", 32, 1, 0);
    for (uint32_t i = 0; i < 32; i++) same("word", i, out[i], i + 1);
    for (uint32_t i = 0; i < 96; i++) in[i] = 2 * i;
    run("overlapped_by_one", 96, 1, 0);
    for (uint32_t i = 0; i < 96; i++) same("one waited", i, out[i], 2 * i + 1);
    run("overlapped_cluster", 32, 2, 0);
    for (uint32_t i = 0; i < 2; i++) same("one waited in the cluster", i, out[i], 0);
}

/* 9.7.19.5 "setmaxnreg", 9.7.13.1 "barrier": arrive and sync meet */
static void test_registers(void **state)
{
    (void)state;
    in[0] = 30;
    run("registers", 256, 1, 0);
    same("word", 0, out[0], 35);
}

int main(int argc, char **argv)
{
    const int begun = sim_begin(argc, argv, "kernels_instructions.cu");
    if (begun != 0) return begun;
    setenv("MOJIT_SIMGPU_PROTECT", "1", 1);
    path = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cvt),      cmocka_unit_test(test_cvt_half), cmocka_unit_test(test_max),     cmocka_unit_test(test_approximate),
        cmocka_unit_test(test_min),
        cmocka_unit_test(test_shfl),     cmocka_unit_test(test_votes),    cmocka_unit_test(test_redux),   cmocka_unit_test(test_block),
        cmocka_unit_test(test_atom),     cmocka_unit_test(test_cp_async), cmocka_unit_test(test_mbarrier), cmocka_unit_test(test_bulk_store),
        cmocka_unit_test(test_swizzle),  cmocka_unit_test(test_boxes),    cmocka_unit_test(test_stores),  cmocka_unit_test(test_adds),
        cmocka_unit_test(test_cluster),  cmocka_unit_test(test_overlap),  cmocka_unit_test(test_registers),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
