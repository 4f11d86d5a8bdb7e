/* The prelude's own arithmetic: element functions against libm in double (largest error in ulp), fp8 and bf16 encoders
 * against the definitions in ops/ref_types.c over every code, every midpoint and their neighbours. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels_src/prelude.h"
#include "ops/refs.h"

static int failures;

static float from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static double ulps(float got, double want)
{
    if (isnan(want)) return isnan(got) ? 0.0 : INFINITY;
    if (isinf(want) || fabs(want) > 3.4028235677973366e38) return isinf(got) && (got > 0.0f) == (want > 0.0) ? 0.0 : INFINITY;
    int exponent;
    (void)frexp(want, &exponent);
    const int step = exponent - 24 < -149 ? -149 : exponent - 24;
    return fabs((double)got - want) / ldexp(1.0, step);
}

typedef double Exact(double);
typedef float Ours(float);
static double exact_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
static float ours_exp(float x) { return mj_expf(x); }
static float ours_exp2(float x) { return mj_exp2f(x); }
static float ours_log(float x) { return mj_logf(x); }
static float ours_tanh(float x) { return mj_tanhf(x); }
static float ours_sigmoid(float x) { return mj_sigmoidf(x); }

static void check_function(const char *name, Ours *ours, Exact *exact, float low, float high, double limit)
{
    double worst = 0.0;
    float where = 0.0f;
    for (uint64_t u = 0; u <= UINT32_MAX; u += 3989) { /* every exponent, both signs, NaN and infinities */
        const float x = from_bits((uint32_t)u);
        if (!(x >= low && x <= high)) continue;
        const double e = ulps(ours(x), exact((double)x));
        if (e > worst) worst = e, where = x;
    }
    if (low < 0.0f && ulps(ours(NAN), NAN) > 0.0) worst = INFINITY, where = NAN;
    printf("%s %s: %.2f ulp at %.9g (limit %.1f)\n", worst <= limit ? "ok  " : "FAIL", name, worst, (double)where, limit);
    failures += !(worst <= limit);
}

static void check_angles(void)
{
    double worst = 0.0;
    for (int64_t i = 0; i < 400000; i++) {
        const double angle = (double)(i * 2503 % 1000003) * exp(-(double)(i % 64) * 0.18);
        float s, c;
        mj_sincosf(angle, &s, &c);
        worst = fmax(worst, fmax(fabs((double)s - sin(angle)), fabs((double)c - cos(angle))));
    }
    for (int j = 0; j < 64; j++)
        worst = fmax(worst, fabs(mj_rope_frequency(1e5, j / 64.0) / pow(1e5, -j / 64.0) - 1.0) * 1e5);
    printf("%s sincos: largest error %.3g up to 1e6 (limit 1.2e-7)\n", worst <= 1.2e-7 ? "ok  " : "FAIL", worst);
    failures += !(worst <= 1.2e-7);
}

static void check_encode(const char *name, MjOpType type, float x)
{
    uint8_t want[2] = {0, 0}, got[2] = {0, 0};
    if (type == MJ_BUF_BF16) {
        const uint16_t w = mj_f32_to_bf16(x);
        memcpy(got, &w, 2);
        if (isnan(x)) {
            if (isnan(mj_bf16_to_f32(w))) return;
        }
    } else {
        got[0] = (uint8_t)(type == MJ_BUF_E4M3 ? mj_f32_to_e4m3(x) : mj_f32_to_e5m2(x));
    }
    mj_ref_encode(type, want, 0, (double)x);
    if (memcmp(want, got, 2) == 0) return;
    if (failures++ < 10) printf("FAIL %s(%.9g): want %02x%02x got %02x%02x\n", name, (double)x, want[1], want[0], got[1], got[0]);
}

/* Every code: decoded; encoded again; the midpoint to the next code, and one float to either side of all of them. */
static void check_fp8(const char *name, MjOpType type)
{
    const int before = failures;
    for (int code = 0; code < 256; code++) {
        const uint8_t byte = (uint8_t)code, next = (uint8_t)(code + 1);
        const double value = mj_ref_decode(type, &byte, 0), after = mj_ref_decode(type, &next, 0);
        const float ours = type == MJ_BUF_E4M3 ? mj_e4m3_to_f32(byte) : mj_e5m2_to_f32(byte);
        if (!(isnan(value) ? isnan(ours) : value == (double)ours && (signbit(value) != 0) == (signbit(ours) != 0))) {
            failures++;
            printf("FAIL %s decode %02x: want %g got %g\n", name, (unsigned)code, value, (double)ours);
        }
        if (!isfinite(value)) continue;
        const float points[2] = {(float)value, isfinite(after) ? (float)((value + after) / 2) : (float)value * 1.0625f};
        for (int i = 0; i < 2; i++) {
            check_encode(name, type, points[i]);
            check_encode(name, type, nextafterf(points[i], INFINITY));
            check_encode(name, type, nextafterf(points[i], -INFINITY));
        }
    }
    for (uint64_t u = 0; u <= UINT32_MAX; u += 104729) check_encode(name, type, from_bits((uint32_t)u));
    check_encode(name, type, INFINITY);
    check_encode(name, type, -INFINITY);
    check_encode(name, type, NAN);
    printf("%s %s: every code, midpoint and neighbour\n", failures == before ? "ok  " : "FAIL", name);
}

static void check_bf16(void)
{
    const int before = failures;
    for (uint32_t h = 0; h < 65536; h++) {
        const uint32_t base = h << 16;
        for (uint32_t low = 0; low < 4; low++) {
            const uint32_t tail[4] = {0, 0x7fff, 0x8000, 0x8001};
            const float x = from_bits(base | tail[low]);
            if ((base & 0x7f800000u) == 0x7f800000u || fabsf(x) > 3.38e38f) continue;
            check_encode("bf16", MJ_BUF_BF16, x);
        }
    }
    check_encode("bf16", MJ_BUF_BF16, NAN);
    printf("%s bf16: every code, midpoint and neighbour\n", failures == before ? "ok  " : "FAIL");
}

/* The lanes' trees do not depend on how they are written: against the tree spelled out. */
static void check_trees(void)
{
    MjLanes x;
    float tree[128], most = -INFINITY;
    uint32_t state = 1;
    for (int i = 0; i < 128; i++) {
        state = state * 1664525u + 1013904223u;
        tree[i] = x.v[i] = (float)(int32_t)state * 1e-9f;
        most = fmaxf(most, tree[i]);
    }
    for (int half = 64; half >= 4; half /= 2)
        for (int i = 0; i < half; i++) tree[i] += tree[i + half];
    const float want = (tree[0] + tree[1]) + (tree[2] + tree[3]);
    const bool fine = mj_lanes_sum(&x) == want && mj_lanes_max(&x) == most;
    printf("%s trees\n", fine ? "ok  " : "FAIL");
    failures += !fine;
}

int main(void)
{
#if defined(__FMA__) && defined(__x86_64__)
    if (!__builtin_cpu_supports("fma") || !__builtin_cpu_supports("avx2")) {
        printf("skipped: this processor has no FMA\n");
        return 77;
    }
#endif
    check_function("exp", ours_exp, exp, -87.0f, 89.0f, 2.0);
    check_function("exp2", ours_exp2, exp2, -126.0f, 129.0f, 2.0);
    check_function("log", ours_log, log, 1.17549435e-38f, 3.4e38f, 2.0);
    check_function("tanh", ours_tanh, tanh, -INFINITY, INFINITY, 3.0);
    check_function("sigmoid", ours_sigmoid, exact_sigmoid, -80.0f, INFINITY, 3.0);
    check_angles();
    check_fp8("e4m3", MJ_BUF_E4M3);
    check_fp8("e5m2", MJ_BUF_E5M2);
    check_bf16();
    check_trees();
    return failures != 0;
}
