/* The simulator's matrix instructions against layouts written down here from the figures and formulas of the PTX manual, each
 * named by its section; and the arithmetic that tests/simgpu/README.md promises. Arguments: the simulator's libraries,
 * kernels_matrix.cu. With MOJIT_SIMGPU_FP8_BITS=13 only the test of short sums runs: the setting holds for a process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/simgpu/harness.h"

typedef struct Args {
    uint32_t *out;
    const uint32_t *in;
    int n;
} Args;

#define WORDS 8192
static uint32_t in[WORDS], out[WORDS];
static const char *path;
static SimBench bench;

static int open_device(void **state)
{
    MjError err = MJ_ERROR_INIT;
    (void)state;
    OK(sim_bench_open(&bench, path, sizeof in, &err));
    return 0;
}
static int close_device(void **state)
{
    (void)state;
    sim_bench_close(&bench);
    return 0;
}

static void run(const char *kernel, uint32_t threads, size_t shared)
{
    MjError err = MJ_ERROR_INIT;
    MjDevice *dev = bench.device;
    MjKernelFn *fn = NULL;
    const Args args = {bench.out, bench.in, 0};
    const MjLaunch l = {.grid = 1, .block = threads, .shared_bytes = shared, .args = &args, .args_bytes = sizeof args, .label = kernel};
    OK(dev->ops->upload(dev, bench.in, in, sizeof in, &err));
    OK(dev->ops->module_function(bench.module, kernel, &fn, &err));
    OK(dev->ops->launch(dev, fn, &l, &err));
    OK(dev->ops->synchronize(dev, &err));
    OK(dev->ops->download(dev, out, bench.out, sizeof out, &err));
}

static float float_of(uint32_t b)
{
    float x;
    memcpy(&x, &b, 4);
    return x;
}

/* ---- "Warp-level matrix instructions: ldmatrix", "stmatrix" ---------------------------------------------------------- */

/* Element (r, c) of matrix i is 64i + 8r + c. Lane t holds row t / 4, columns 2(t % 4) and the next, of each matrix in a
 * register; transposed: column t / 4, rows 2(t % 4) and the next. */
static void test_ldmatrix(void **state)
{
    (void)state;
    for (uint32_t w = 0; w < 128; w++) in[w] = 2 * w | (2 * w + 1) << 16;
    run("matrix_load", 32, 0);
    assert_int_equal(out[4 * 5 + 0], 10 | 11 << 16);         /* lane 5: row 1, columns 2 and 3 */
    assert_int_equal(out[4 * 31 + 3], 254u | 255u << 16);    /* lane 31: row 7, columns 6 and 7 of the last matrix */
    assert_int_equal(out[128 + 4 * 5 + 0], 17 | 25 << 16);   /* transposed, lane 5: column 1, rows 2 and 3 */
    assert_int_equal(out[128 + 4 * 30 + 1], 103 | 111 << 16); /* lane 30: column 7, rows 4 and 5 of the second */
    for (uint32_t t = 0; t < 32; t++)
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t row = 64 * i + 8 * (t / 4) + 2 * (t % 4), col = 64 * i + 16 * (t % 4) + t / 4;
            assert_int_equal(out[4 * t + i], row | (row + 1) << 16);
            assert_int_equal(out[128 + 4 * t + i], col | (col + 8) << 16);
            if (i < 2) assert_int_equal(out[256 + 2 * t + i], row | (row + 1) << 16);
            if (i < 2) assert_int_equal(out[320 + 2 * t + i], col | (col + 8) << 16);
        }
}

static void test_stmatrix(void **state)
{
    (void)state;
    for (uint32_t t = 0; t < 32; t++)
        for (uint32_t i = 0; i < 4; i++) in[4 * t + i] = (8 * t + 2 * i) | (8 * t + 2 * i + 1) << 16; /* register i of lane t */
    run("matrix_store", 32, 0);
    const uint16_t *m = (const uint16_t *)out;
    assert_int_equal(m[64 * 2 + 8 * 3 + 5], 8 * 14 + 2 * 2 + 1); /* row 3, column 5 of the third: lane 14's high half */
    for (uint32_t i = 0; i < 4; i++)
        for (uint32_t r = 0; r < 8; r++)
            for (uint32_t c = 0; c < 8; c++) {
                const uint32_t holds = 8 * (4 * r + c / 2) + 2 * i + c % 2, across = 8 * (4 * c + r / 2) + 2 * i + r % 2;
                assert_int_equal(m[64 * i + 8 * r + c], holds);
                assert_int_equal(m[256 + 64 * i + 8 * r + c], across);
                if (i < 2) assert_int_equal(m[512 + 64 * i + 8 * r + c], holds);
            }
}

/* ---- mma.sync ------------------------------------------------------------------------------------------------------------ */

typedef enum Type { BF16, F16, E4M3, E5M2 } Type;

/* Small integers are exact in every type: sign, 2^e, mantissa. */
static uint32_t encode(float x, Type type)
{
    static const int mantissa[] = {7, 10, 3, 2}, bias[] = {127, 15, 7, 15};
    const uint32_t b = bits_of(x), sign = b >> 31;
    if (x == 0.0f) return 0;
    const uint32_t e = (uint32_t)((int)(b >> 23 & 255) - 127 + bias[type]), width = type < E4M3 ? 16 : 8;
    return sign << (width - 1) | e << mantissa[type] | (b & 0x7fffff) >> (23 - mantissa[type]);
}

static float a_value(int i, int k) { return (float)((3 * i + 5 * k) % 8 - 4) * (i % 3 == 0 ? 2.0f : 1.0f); }
static float b_value(int k, int j) { return (float)((7 * k + 2 * j) % 7 - 3); }
static float c_value(int i, int j) { return (float)(10 * i - j); }

static void put(uint32_t *word, int index, uint32_t code, Type type)
{
    const int per = type < E4M3 ? 2 : 4;
    word[index / per] |= code << (index % per * (32 / per));
}

/* "Matrix Fragments for mma.m16n8k16 with floating point type" and "... mma.m16n8k32": element i of a lane's fragment. */
static void test_one_mma(const char *kernel, Type at, Type bt)
{
    const int depth = at < E4M3 ? 16 : 32, per_a = at < E4M3 ? 8 : 16;
    memset(in, 0, sizeof in);
    for (int lane = 0; lane < 32; lane++) {
        const int group = lane >> 2, within = lane % 4;
        uint32_t *w = in + 10 * lane;
        for (int i = 0; i < per_a; i++) {
            const int row = at < E4M3 ? (i < 2 || (i >= 4 && i < 6) ? group : group + 8) : (i < 4 || (i >= 8 && i < 12) ? group : group + 8);
            const int col = at < E4M3 ? within * 2 + (i & 1) + (i >= 4 ? 8 : 0) : within * 4 + (i & 3) + (i >= 8 ? 16 : 0);
            put(w, i, encode(a_value(row, col), at), at);
        }
        for (int i = 0; i < per_a / 2; i++) {
            const int row = bt < E4M3 ? within * 2 + (i & 1) + (i >= 2 ? 8 : 0) : within * 4 + (i & 3) + (i >= 4 ? 16 : 0);
            put(w + 4, i, encode(b_value(row, group), bt), bt);
        }
        for (int i = 0; i < 4; i++) w[6 + i] = bits_of(c_value(group + (i < 2 ? 0 : 8), within * 2 + (i & 1)));
    }
    run(kernel, 32, 0);
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            const int row = (lane >> 2) + (i < 2 ? 0 : 8), col = lane % 4 * 2 + (i & 1);
            float want = c_value(row, col);
            for (int k = 0; k < depth; k++) want += a_value(row, k) * b_value(k, col);
            assert_float_equal(float_of(out[4 * lane + i]), want, 0.0f);
        }
}

static void test_mma(void **state)
{
    (void)state;
    test_one_mma("matrix_mma_bf16", BF16, BF16);
    test_one_mma("matrix_mma_f16", F16, F16);
    test_one_mma("matrix_mma_e4m3_e4m3", E4M3, E4M3);
    test_one_mma("matrix_mma_e5m2_e4m3", E5M2, E4M3);
    test_one_mma("matrix_mma_e4m3_e5m2", E4M3, E5M2);
    test_one_mma("matrix_mma_e5m2_e5m2", E5M2, E5M2);
}

/* "Alternate Floating-Point Data Formats" (5.2.3): every code but infinities and NaN. e4m3: bias 7; e5m2: bias 15. */
static void test_codes(void **state)
{
    (void)state;
    for (int round = 0; round < 4; round++) {
        const Type type = round < 2 ? E4M3 : E5M2;
        const int bits = type == E4M3 ? 3 : 2, bias = type == E4M3 ? 7 : 15;
        memset(in, 0, sizeof in);
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < 16; i++) { /* A(row, k) is code 8 row + k for k < 8, and B(k, j) is k == j */
                const int row = (lane >> 2) + ((i < 4 || (i >= 8 && i < 12)) ? 0 : 8), k = lane % 4 * 4 + (i & 3) + (i >= 8 ? 16 : 0);
                uint32_t code = (uint32_t)(128 * (round % 2) + 8 * row + k);
                if (k >= 8 || (code & 0x7f) >= (type == E4M3 ? 0x7fu : 0x7cu)) code = 0;
                put(in + 10 * lane, i, code, type);
            }
            for (int i = 0; i < 4; i++)
                if (lane % 4 * 4 + i == lane >> 2) put(in + 10 * lane + 4, i, encode(1.0f, type), type);
        }
        run(type == E4M3 ? "matrix_mma_e4m3_e4m3" : "matrix_mma_e5m2_e5m2", 32, 0);
        for (int lane = 0; lane < 32; lane++)
            for (int i = 0; i < 4; i++) {
                const uint32_t code = (uint32_t)(128 * (round % 2) + 8 * ((lane >> 2) + (i < 2 ? 0 : 8)) + lane % 4 * 2 + (i & 1)), m = code & ((1u << bits) - 1);
                const int e = (int)(code & 0x7f) >> bits;
                if ((code & 0x7f) >= (type == E4M3 ? 0x7fu : 0x7cu)) continue;
                float want = (float)(e > 0 ? m + (1u << bits) : m); /* times 2^(e - bias - bits), as if e were 1 where it is 0 */
                for (int k = 0; k < (e > 0 ? e : 1); k++) want *= 2.0f;
                for (int k = 0; k < bias + bits; k++) want *= 0.5f;
                if (code >> 7 != 0) want = -want;
                assert_float_equal(float_of(out[4 * lane + i]), want, 0.0f);
            }
    }
}

/* ---- wgmma: "Register Fragments and Shared Memory Matrix Layouts", "Matrix Descriptor Format" ------------------------- */

typedef struct Layout { /* where element (mn, k) of 16 bits lies, in bytes */
    const char *name;
    uint32_t leading, stride, swizzle, across;
    uint32_t (*at)(uint32_t mn, uint32_t k);
} Layout;

static uint32_t at_plain(uint32_t mn, uint32_t k) { return mn / 8 * 256 + k / 8 * 128 + mn % 8 * 16 + k % 8 * 2; }
static uint32_t at_32(uint32_t mn, uint32_t k) { return mn * 32 + (k / 8 ^ mn % 8 / 4) * 16 + k % 8 * 2; }
static uint32_t at_64(uint32_t mn, uint32_t k) { return mn * 64 + (k / 8 ^ mn % 8 / 2) * 16 + k % 8 * 2; }
static uint32_t at_128(uint32_t mn, uint32_t k) { return mn * 128 + (k / 8 ^ mn % 8) * 16 + k % 8 * 2; }
static uint32_t at_across(uint32_t mn, uint32_t k) { return k * 128 + (mn / 8 ^ k % 8) * 16 + mn % 8 * 2; }

static void check_wgmma(const char *name)
{
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < 8; i++) { /* "Matrix Fragments for wgmma.mma_async.m64nNk16": d in pairs, rows 8 apart, columns 8 apart */
            const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2), col = 8 * (i / 4) + 2 * (t % 4) + i % 2;
            float want = 0.0f;
            for (int k = 0; k < 16; k++) want += a_value(row, k) * b_value(k, col);
            if (float_of(out[8 * t + i]) != want)
                fail_msg("%s: thread %d, accumulator %d: want %g, got %g", name, t, i, (double)want, (double)float_of(out[8 * t + i]));
        }
}

static void test_wgmma(void **state)
{
    static const Layout layouts[] = {
        {"no swizzle", 128, 256, 0, 0, at_plain}, {"32 bytes", 16, 256, 3, 0, at_32},         {"64 bytes", 16, 512, 2, 0, at_64},
        {"128 bytes", 16, 1024, 1, 0, at_128},    {"128 bytes, along M", 8192, 1024, 1, 1, at_across},
    };
    uint16_t *bytes = (uint16_t *)in;
    (void)state;
    for (size_t n = 0; n < sizeof layouts / sizeof *layouts; n++) {
        const Layout *l = &layouts[n];
        memset(in, 0, sizeof in);
        for (uint32_t k = 0; k < 16; k++) {
            for (uint32_t m = 0; m < 64; m++) bytes[l->at(m, k) / 2] = (uint16_t)encode(a_value((int)m, (int)k), BF16);
            for (uint32_t j = 0; j < 16; j++) bytes[(8192 + l->at(j, k)) / 2] = (uint16_t)encode(b_value((int)k, (int)j), BF16);
        }
        in[2560] = l->leading, in[2561] = l->stride, in[2562] = l->swizzle, in[2563] = l->across;
        run("matrix_wgmma", 128, 10240);
        check_wgmma(l->name);
    }
    memset(in, 0, sizeof in);
    for (int t = 0; t < 128; t++) /* A in registers: as mma's fragment, a warp for each 16 rows */
        for (int i = 0; i < 8; i++) {
            const int row = 16 * (t / 32) + t % 32 / 4 + (i < 2 || (i >= 4 && i < 6) ? 0 : 8), col = t % 4 * 2 + (i & 1) + (i >= 4 ? 8 : 0);
            put(in + 4 * t, i, encode(a_value(row, col), BF16), BF16);
        }
    for (uint32_t k = 0; k < 16; k++)
        for (uint32_t j = 0; j < 16; j++) bytes[1024 + at_plain(j, k) / 2] = (uint16_t)encode(b_value((int)k, (int)j), BF16);
    run("matrix_wgmma_registers", 128, 512);
    check_wgmma("A in registers");
}

/* 9.7.15.5.1.2.1.3 "Canonical Layouts": where element (mn, k) of a bf16 operand lies, in elements; then the swizzle's exclusive or of
 * 16-byte pieces. Figures 168, 169 and 170 give the layouts of B below with their strides; those of A repeat them over 64 rows. */
typedef struct Canonical {
    uint32_t leading, stride, swizzle, across, bits; /* bytes; the descriptor's code; MN-major; of Swizzle<bits, 4, 3> */
} Canonical;

static uint32_t canonical(const Canonical *c, uint32_t mn, uint32_t k)
{
    const uint32_t t = 8, lbo = c->leading / 2, sbo = c->stride / 2, pieces = 1u << c->bits; /* T = 128 / 16 */
    uint32_t at;
    if (!c->across) at = mn % 8 * pieces * t + mn / 8 * sbo + k % t + k / t * (c->bits == 0 ? lbo : t);
    else if (c->bits == 0) at = mn % t + mn / t * sbo + k % 8 * t + k / 8 * lbo;
    else at = mn % t + mn / t % pieces * t + mn / t / pieces * lbo + k % 8 * pieces * t + k / 8 * sbo;
    return 2 * at ^ (2 * at >> 7 & (pieces - 1)) << 4;
}

static void test_canonical(void **state)
{
    static const struct {
        const char *name;
        Canonical a, b;
        uint32_t columns;
    } cases[] = {
        {"figure 168: B along N, no swizzle", {128, 256, 0, 0, 0}, {256, 128, 0, 1, 0}, 16},
        {"figure 169: B along N, 32 bytes", {128, 256, 0, 0, 0}, {256, 512, 3, 1, 1}, 32},
        {"figure 170: B along N, 64 bytes", {128, 256, 0, 0, 0}, {512, 1024, 2, 1, 2}, 64},
        {"B along N, 128 bytes", {128, 256, 0, 0, 0}, {8192, 1024, 1, 1, 3}, 64},
        {"A along M, no swizzle", {1024, 128, 0, 1, 0}, {128, 256, 0, 0, 0}, 16},
        {"A along M, 32 bytes", {1024, 512, 3, 1, 1}, {16, 256, 3, 0, 1}, 32},
        {"A along M, 64 bytes", {512, 1024, 2, 1, 2}, {16, 512, 2, 0, 2}, 64},
        {"both along their rows, other strides", {1024, 4096, 3, 1, 1}, {4096, 2048, 2, 1, 2}, 64},
    };
    uint16_t *halves = (uint16_t *)in;
    (void)state;
    assert_int_equal(canonical(&cases[0].b, 11, 9), 2 * (3 + 64 + 8 + 128));         /* ((8,1,2),(8,2)):((1,8,64),(8,128)) at (3+8, 1+8) */
    assert_int_equal(canonical(&cases[1].b, 25, 1), 2 * (1 + 8 + 128 + 16));         /* ((8,2,2),(8,2)):((1,8,128),(16,256)) at (1+8+16, 1) */
    assert_int_equal(canonical(&cases[1].b, 25, 5), 2 * (1 + 0 + 128 + 80));         /* its 6th row lies beyond 128 bytes: pieces change places */
    assert_int_equal(canonical(&cases[2].b, 33, 8), 2 * (1 + 256 + 512));            /* ((8,4,2),(8,2)):((1,8,256),(32,512)) at (1+32, 8) */
    assert_int_equal(canonical(&cases[2].b, 10, 7), 2 * (2 + (8 ^ 24) + 224));       /* rows 6 and 7 are in the 4th 128 bytes: piece 1 is at 1 ^ 3 */
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        const uint32_t columns = cases[n].columns;
        memset(in, 0, sizeof in);
        for (uint32_t k = 0; k < 16; k++) {
            for (uint32_t m = 0; m < 64; m++) halves[canonical(&cases[n].a, m, k) / 2] = (uint16_t)encode(a_value((int)m, (int)k), BF16);
            for (uint32_t j = 0; j < columns; j++) halves[4096 + canonical(&cases[n].b, j, k) / 2] = (uint16_t)encode(b_value((int)k, (int)j), BF16);
        }
        const uint32_t how[9] = {cases[n].a.leading, cases[n].a.stride, cases[n].a.swizzle, cases[n].a.across, cases[n].b.leading,
                                 cases[n].b.stride, cases[n].b.swizzle, cases[n].b.across, columns};
        memcpy(in + 4096, how, sizeof how);
        run("matrix_wgmma_layouts", 128, 16384);
        for (int t = 0; t < 128; t++)
            for (int i = 0; i < (int)columns / 2; i++) {
                const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2), col = 8 * (i / 4) + 2 * (t % 4) + i % 2;
                float want = 0.0f;
                for (int k = 0; k < 16; k++) want += a_value(row, k) * b_value(k, col);
                if (float_of(out[(int)columns / 2 * t + i]) != want)
                    fail_msg("%s: thread %d, accumulator %d: want %g, got %g", cases[n].name, t, i, (double)want,
                             (double)float_of(out[(int)columns / 2 * t + i]));
            }
    }
}

/* "Matrix Fragments for wgmma.mma_async.m64nNk32", figure 153; T = 16. Without swizzle, and with the one of 128 bytes. */
static void test_wgmma_fp8(void **state)
{
    static const Type types[4][2] = {{E4M3, E4M3}, {E5M2, E4M3}, {E4M3, E5M2}, {E5M2, E5M2}};
    uint8_t *bytes = (uint8_t *)in;
    (void)state;
    for (uint32_t which = 0; which < 8; which++) {
        const bool swizzled = which >= 4;
        const Type at = types[which % 4][0], bt = types[which % 4][1];
        memset(in, 0, sizeof in);
        for (uint32_t k = 0; k < 32; k++)
            for (uint32_t r = 0; r < 64; r++) {
                const uint32_t to = swizzled ? r * 128 + (k / 16 ^ r % 8) * 16 + k % 16 : r / 8 * 256 + k / 16 * 128 + r % 8 * 16 + k % 16;
                bytes[to] = (uint8_t)encode(a_value((int)r, (int)k), at);
                if (r < 16) bytes[8192 + to] = (uint8_t)encode(b_value((int)k, (int)r), bt);
            }
        const uint32_t how[4] = {swizzled ? 16 : 128, swizzled ? 1024 : 256, swizzled, which % 4};
        memcpy(in + 3072, how, sizeof how);
        run("matrix_wgmma_fp8", 128, 12288);
        for (int t = 0; t < 128; t++)
            for (int i = 0; i < 8; i++) {
                const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2), col = 8 * (i / 4) + 2 * (t % 4) + i % 2;
                float want = 1.0f;
                for (int k = 0; k < 32; k++) want += 2.0f * a_value(row, k) * b_value(k, col);
                assert_float_equal(float_of(out[8 * t + i]), want, 0.0f);
            }
    }
}

/* Several wgmmas in a row, as ptx_wgmma.cuh groups them. */
static void test_products(void **state)
{
    uint16_t *halves = (uint16_t *)in;
    (void)state;
    memset(in, 0, sizeof in);
    for (uint32_t r = 0; r < 64; r++)
        for (uint32_t c = 0; c < 64; c++) {
            const uint32_t to = (r * 128 + (c / 8 ^ r % 8) * 16 + c % 8 * 2) / 2;
            halves[to] = (uint16_t)encode(a_value((int)r, (int)c), BF16);
            halves[4096 + to] = (uint16_t)encode(b_value((int)r, (int)c), BF16);
        }
    for (int t = 0; t < 128; t++)
        for (int step = 0; step < 4; step++)
            for (int i = 0; i < 8; i++) {
                const int row = 16 * (t / 32) + t % 32 / 4 + (i < 2 || (i >= 4 && i < 6) ? 0 : 8), col = t % 4 * 2 + (i & 1) + (i >= 4 ? 8 : 0);
                put(in + 4096 + 16 * t + 4 * step, i, encode(a_value(row, 16 * step + col), BF16), BF16);
            }
    run("matrix_products", 128, 16384);
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < 32; i++) {
            const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2), col = 8 * (i / 4) + 2 * (t % 4) + i % 2;
            float rows = 0.0f, columns = 1.0f;
            for (int k = 0; k < 64; k++) rows += a_value(row, k) * b_value(col, k), columns += a_value(row, k) * b_value(k, col);
            assert_float_equal(float_of(out[32 * t + i]), rows, 0.0f);
            assert_float_equal(float_of(out[4096 + 32 * t + i]), columns, 0.0f);
        }
}

/* ---- arithmetic ---------------------------------------------------------------------------------------------------------- */

/* 2^24 + 1 + 1: f32 additions one by one would lose both ones; a sum in double, rounded once, keeps 2. */
static void test_one_rounding(void **state)
{
    (void)state;
    memset(in, 0, sizeof in);
    in[0] = encode(1.0f, BF16) | encode(1.0f, BF16) << 16; /* lane 0: a(0, 0), a(0, 1) */
    in[4] = in[0];                                         /* b(0, 0), b(1, 0) */
    in[6] = bits_of(16777216.0f);                          /* c(0, 0) */
    run("matrix_mma_bf16", 32, 0);
    assert_float_equal(float_of(out[0]), 16777218.0f, 0.0f);
    in[4] = encode(1.0f, BF16); /* 2^24 + 1 lies half-way: to even */
    run("matrix_mma_bf16", 32, 0);
    assert_float_equal(float_of(out[0]), 16777216.0f, 0.0f);
}

/* Terms 256, 2^-6, 3 2^-6 and -2^-6. Exactly: 256 + 3 2^-6. With 13 bits below the largest (2^8) every term is cut, towards
 * zero, to a multiple of 2^-5: 256, 0, 2^-5, 0. */
static void short_sum(float want)
{
    static const float a[4] = {16.0f, 0.125f, 0.375f, -0.125f}, b[4] = {16.0f, 0.125f, 0.125f, 0.125f};
    memset(in, 0, sizeof in);
    for (int k = 0; k < 4; k++) {
        put(in, k, encode(a[k], E4M3), E4M3);
        put(in + 4, k, encode(b[k], E4M3), E4M3);
    }
    run("matrix_mma_e4m3_e4m3", 32, 0);
    assert_float_equal(float_of(out[0]), want, 0.0f);
}

static void test_full_sum(void **state)
{
    (void)state;
    short_sum(256.046875f);
}
static void test_short_sum(void **state)
{
    (void)state;
    short_sum(256.03125f);
}

int main(int argc, char **argv)
{
    const int begun = sim_begin(argc, argv, "kernels_matrix.cu");
    if (begun != 0) return begun;
    path = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ldmatrix), cmocka_unit_test(test_stmatrix), cmocka_unit_test(test_mma), cmocka_unit_test(test_wgmma),
        cmocka_unit_test(test_codes), cmocka_unit_test(test_canonical), cmocka_unit_test(test_wgmma_fp8), cmocka_unit_test(test_products),
        cmocka_unit_test(test_one_rounding), cmocka_unit_test(test_full_sum),
    };
    const struct CMUnitTest only_short[] = {cmocka_unit_test(test_short_sum)};
    if (getenv("MOJIT_SIMGPU_FP8_BITS") != NULL) return cmocka_run_group_tests(only_short, open_device, close_device);
    return cmocka_run_group_tests(tests, open_device, close_device);
}
