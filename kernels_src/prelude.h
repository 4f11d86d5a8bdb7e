/* What every template can use: one set of names, made by prelude_cpu.h or prelude_cuda.h. Owns the arithmetic that must
 * give the same bits on every device: element functions, fp8 and bf16 conversions, reduction trees.
 *
 * A template is included after its parameters were defined, each as a constant or as `(args->name)`.
 *
 *   MJ_KERNEL(name, MjSomeArgs)      the body sees args, mj_block, mj_grid and mj_shared (scratch of the block)
 *   {
 *       MJ_FOR_ROWS(n, TOKENS) {             rows spread over the grid: a warp each on a GPU, a run of rows on a CPU
 *           MjLanes acc = mj_lanes_zero();   128 accumulators a row: element i belongs to accumulator i % 128
 *           MJ_FOR_CHUNKS(c, WIDTH) {        128 columns at a time; n beyond the end loads zeros and stores nothing
 *               MjLanes x;
 *               mj_load_f32(&x, row + c, WIDTH - c);
 *               MJ_FOR_LANES(l) acc.v[l] = mj_fmaf(x.v[l], x.v[l], acc.v[l]);
 *           }
 *           float sum = mj_lanes_sum(&acc);  one fixed tree, the same on every device, known to every lane
 *       }
 *   }
 *
 * A row of `n` >= 128 columns left, aligned to 16 bytes, is read and written in whole vectors; MJ_WHOLE in place of n says so
 * at compile time, which lets a GPU's compiler send several loads at once.
 * On a GPU a lane is one of 32 threads that holds 4 consecutive columns (16-byte accesses); on a CPU one thread holds
 * all 128, in loops that the compiler vectorises. Nothing here depends on the grid or on the size of a block.
 * Compile with contraction off (-ffp-contract=off, --fmad=false): a fused multiply-add is written mj_fmaf.
 * The C compiler also needs -fno-math-errno and -fno-trapping-math, or square roots and selects don't vectorise.
 */
#ifndef MJ_PRELUDE_H
#define MJ_PRELUDE_H

#define MJ_WHOLE 0x7fffffff

#ifdef __CUDACC__
#include "prelude_cuda.h"
#else
#include "prelude_cpu.h"
#endif

/* ---- element functions: no libm, vectorisable; errors are the largest found by tests/check_prelude.c -------------- */

MJ_FN float mj_fminf(float a, float b) { return a < b ? a : b; } /* b when either is NaN */
MJ_FN float mj_fmaxf(float a, float b) { return a > b ? a : b; }
MJ_FN float mj_rsqrtf(float x) { return 1.0f / mj_sqrtf(x); }

/* p * 2^n for -252 <= n <= 254, in two factors so that neither overflows */
MJ_FN float mj_scale2f(float p, int32_t n)
{
    const int32_t half = n >> 1;
    return p * mj_bits_f32((uint32_t)(half + 127) << 23) * mj_bits_f32((uint32_t)(n - half + 127) << 23);
}

/* exp: at most 2 ulp; 0 below -104, infinity above 88.73, NaN kept */
MJ_FN float mj_expf(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = x > 90.0f ? 90.0f : x;
    x = x < -105.0f ? -105.0f : x;
    const float z = mj_fmaf(x, 1.44269502f, round);
    const float n = z - round;
    float r = mj_fmaf(n, -0.693145752f, x);
    r = mj_fmaf(n, -1.42860677e-6f, r);
    float p = 0.00139261761f;
    p = mj_fmaf(p, r, 0.00836317307f);
    p = mj_fmaf(p, r, 0.0416665547f);
    p = mj_fmaf(p, r, 0.16666577f);
    p = mj_fmaf(p, r, 0.5f);
    p = mj_fmaf(p * r, r, r) + 1.0f;
    const int32_t k = (int32_t)(mj_f32_bits(z) - 0x4b400000u);
    return mj_scale2f(p, k < -252 ? -252 : k > 254 ? 254 : k);
}

/* The same bits for -87 <= x <= 88, without what its extremes cost; below -87 it stays at e^-87, NaN is kept. */
MJ_FN float mj_expf_near(float x)
{
    const float round = 12582912.0f;
    x = x < -87.0f ? -87.0f : x;
    const float z = mj_fmaf(x, 1.44269502f, round);
    const float n = z - round;
    float r = mj_fmaf(n, -0.693145752f, x);
    r = mj_fmaf(n, -1.42860677e-6f, r);
    float p = 0.00139261761f;
    p = mj_fmaf(p, r, 0.00836317307f);
    p = mj_fmaf(p, r, 0.0416665547f);
    p = mj_fmaf(p, r, 0.16666577f);
    p = mj_fmaf(p, r, 0.5f);
    p = mj_fmaf(p * r, r, r) + 1.0f;
    return p * mj_bits_f32((mj_f32_bits(z) << 23) + (127u << 23)); /* the low bits of z are n */
}

/* 2^x: at most 2 ulp */
MJ_FN float mj_exp2f(float x)
{
    const float round = 12582912.0f;
    x = x > 130.0f ? 130.0f : x;
    x = x < -152.0f ? -152.0f : x;
    const float z = x + round;
    const float r = x - (z - round);
    float p = 0.000154531629f;
    p = mj_fmaf(p, r, 0.00133908634f);
    p = mj_fmaf(p, r, 0.00961808256f);
    p = mj_fmaf(p, r, 0.0555035711f);
    p = mj_fmaf(p, r, 0.240226508f);
    p = mj_fmaf(p, r, 0.693147188f);
    p = mj_fmaf(p, r, 1.0f);
    const int32_t k = (int32_t)(mj_f32_bits(z) - 0x4b400000u);
    return mj_scale2f(p, k < -252 ? -252 : k > 254 ? 254 : k);
}

/* log of a positive normal number: at most 2 ulp. log(m 2^k) = k log 2 + 2 atanh((m - 1) / (m + 1)), m in [0.707, 1.414) */
MJ_FN float mj_logf(float x)
{
    const uint32_t bits = mj_f32_bits(x) + (0x3f800000u - 0x3f3504f3u);
    const float k = (float)((int32_t)(bits >> 23) - 127);
    const float f = mj_bits_f32((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    const float s = f / (2.0f + f);
    const float u = s * s;
    float p = 0.222222222f;
    p = mj_fmaf(p, u, 0.285714286f);
    p = mj_fmaf(p, u, 0.4f);
    p = mj_fmaf(p, u, 0.666666667f);
    /* log(1 + f) = f - s (f - u p'): keeps f's own digits */
    const float h = 0.5f * f * f;
    const float tail = mj_fmaf(s, mj_fmaf(u, p, h), k * 1.42860677e-6f);
    return mj_fmaf(k, 0.693145752f, f - (h - tail));
}

/* tanh: at most 3 ulp */
MJ_FN float mj_tanhf(float x)
{
    const float a = mj_fabsf(x);
    const float u = x * x;
    float p = 0.00237076566f;
    p = mj_fmaf(p, u, -0.00841007082f);
    p = mj_fmaf(p, u, 0.021788322f);
    p = mj_fmaf(p, u, -0.0539615518f);
    p = mj_fmaf(p, u, 0.133333129f);
    p = mj_fmaf(p, u, -0.333333332f);
    const float near = mj_fmaf(x * u, p, x);
    const float e = mj_expf_near(2.0f * (a > 10.0f ? 10.0f : a));
    const float far = 1.0f - 2.0f * mj_inverse(e + 1.0f);
    const float signed_far = x < 0.0f ? -far : far;
    return a < 0.6f ? near : (x == x ? signed_far : x);
}

/* 1 / (1 + exp(-x)): at most 3 ulp */
/* Whether both sums of a step are finite; without sums, yes. An update that NaN would ruin asks first. */
MJ_FN bool mj_guard(const double *sums)
{
    return sums == NULL || (sums[0] - sums[0] == 0.0 && sums[1] - sums[1] == 0.0);
}

MJ_FN float mj_sigmoidf(float x) { return 1.0f / (1.0f + mj_expf(-x)); }

/* sin and cos of an angle in double, as RoPE needs them: |angle| <= 1e9 reduced in double, then 2 ulp in float */
MJ_FN void mj_sincosf(double angle, float *sin_out, float *cos_out)
{
    const double round = 6755399441055744.0; /* 1.5 * 2^52 */
    const double z = angle * 0.63661977236758134308 + round;
    const double n = z - round;
    const float r = (float)((angle - n * 1.5707963267341256142) - n * 6.0771005065061922e-11);
    const uint32_t quadrant = (uint32_t)mj_f64_bits(z);
    const float u = r * r;
    float s = 2.72493144e-06f;
    s = mj_fmaf(s, u, -0.00019840082f);
    s = mj_fmaf(s, u, 0.00833333187f);
    s = mj_fmaf(s, u, -0.166666667f);
    s = mj_fmaf(r * u, s, r);
    float c = 2.45474375e-05f;
    c = mj_fmaf(c, u, -0.00138883007f);
    c = mj_fmaf(c, u, 0.0416666646f);
    c = mj_fmaf(c * u, u, mj_fmaf(-0.5f, u, 1.0f));
    const float a = (quadrant & 1u) != 0 ? c : s;
    const float b = (quadrant & 1u) != 0 ? s : c;
    *sin_out = mj_bits_f32(mj_f32_bits(a) ^ ((quadrant & 2u) << 30));
    *cos_out = mj_bits_f32(mj_f32_bits(b) ^ (((quadrant + 1u) & 2u) << 30));
}

/* base^-x for RoPE frequencies, in double, x in [0, 1): 2^(-x log2 base); relative error below 1e-12 */
MJ_FN double mj_rope_frequency(double base, double x)
{
    /* log2 base by splitting off the exponent, then atanh series; once a lane, so clarity before speed */
    const uint64_t bits = mj_f64_bits(base);
    const double m = mj_bits_f64((bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull);
    const double exponent = (double)(int32_t)((bits >> 52) & 0x7ff) - 1023.0;
    const double s = (m - 1.41421356237309504880) / (m + 1.41421356237309504880);
    const double u = s * s;
    double p = 1.0 / 21.0;
    p = p * u + 1.0 / 19.0;
    p = p * u + 1.0 / 17.0;
    p = p * u + 1.0 / 15.0;
    p = p * u + 1.0 / 13.0;
    p = p * u + 1.0 / 11.0;
    p = p * u + 1.0 / 9.0;
    p = p * u + 1.0 / 7.0;
    p = p * u + 1.0 / 5.0;
    p = p * u + 1.0 / 3.0;
    p = p * u + 1.0;
    const double log2_base = exponent + 0.5 + 2.0 * s * p * 1.44269504088896340736;
    const double y = -x * log2_base;
    const double round = 6755399441055744.0;
    const double n = (y + round) - round;
    const double r = (y - n) * 0.69314718055994530942;
    double e = 1.0 / 479001600.0;
    e = e * r + 1.0 / 39916800.0;
    e = e * r + 1.0 / 3628800.0;
    e = e * r + 1.0 / 362880.0;
    e = e * r + 1.0 / 40320.0;
    e = e * r + 1.0 / 5040.0;
    e = e * r + 1.0 / 720.0;
    e = e * r + 1.0 / 120.0;
    e = e * r + 1.0 / 24.0;
    e = e * r + 1.0 / 6.0;
    e = e * r + 0.5;
    e = e * r + 1.0;
    e = e * r + 1.0;
    return e * mj_bits_f64((uint64_t)((int64_t)n + 1023) << 52);
}

/* ---- conversions: round to nearest even; fp8 saturates; a NaN becomes the one that a GPU's cvt gives, 7fff or 7f ---- */

MJ_FN float mj_bf16_to_f32(uint16_t h) { return mj_bits_f32((uint32_t)h << 16); }

MJ_FN uint16_t mj_f32_to_bf16(float x)
{
    const uint32_t b = mj_f32_bits(x);
    const uint32_t rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
    return (uint16_t)((b & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded);
}

/* |x| is clamped to the largest number; its exponent is raised to that of the smallest normal one, below which the codes
 * are evenly spaced. Adding 2^23 times the spacing there makes the adder round to an even count of spacings, which is the
 * mantissa and its implicit bit; codes of neighbouring exponents are contiguous, so the exponent only adds to it. */
MJ_FN uint32_t mj_f32_to_e4m3(float x)
{
    const uint32_t b = mj_f32_bits(x);
    const int32_t a = (int32_t)(b & 0x7fffffffu);
    const int32_t clamped = a < 0x43e00000 ? a : 0x43e00000; /* 448 */
    const int32_t own = clamped & 0x7f800000;
    const int32_t exponent = own > 0x3c800000 ? own : 0x3c800000; /* 2^-6 */
    const int32_t magic = exponent + (20 << 23);
    const int32_t sum = (int32_t)mj_f32_bits(mj_bits_f32((uint32_t)clamped) + mj_bits_f32((uint32_t)magic));
    const int32_t code = (sum - magic) + ((exponent >> 20) - (121 << 3));
    return a > 0x7f800000 ? 0x7fu : (uint32_t)code | ((b >> 24) & 0x80u);
}

MJ_FN uint32_t mj_f32_to_e5m2(float x)
{
    const uint32_t b = mj_f32_bits(x);
    const int32_t a = (int32_t)(b & 0x7fffffffu);
    const int32_t clamped = a < 0x47600000 ? a : 0x47600000; /* 57344 */
    const int32_t own = clamped & 0x7f800000;
    const int32_t exponent = own > 0x38800000 ? own : 0x38800000; /* 2^-14 */
    const int32_t magic = exponent + (21 << 23);
    const int32_t sum = (int32_t)mj_f32_bits(mj_bits_f32((uint32_t)clamped) + mj_bits_f32((uint32_t)magic));
    const int32_t code = (sum - magic) + ((exponent >> 21) - (113 << 2));
    return a > 0x7f800000 ? 0x7fu : (uint32_t)code | ((b >> 24) & 0x80u);
}

/* Exponent and mantissa moved into place, then one exact multiplication that also normalises the small codes. */
MJ_FN float mj_e4m3_to_f32(uint32_t code)
{
    const float mag = mj_bits_f32((code & 0x7fu) << 20) * 1.329227995784916e36f; /* 2^120 */
    const uint32_t bits = (code & 0x7fu) == 0x7fu ? 0x7fc00000u : mj_f32_bits(mag);
    return mj_bits_f32(bits | ((code & 0x80u) << 24));
}

MJ_FN float mj_e5m2_to_f32(uint32_t code)
{
    const float mag = mj_bits_f32((code & 0x7fu) << 21) * 5.192296858534828e33f; /* 2^112 */
    const uint32_t special = (code & 0x7fu) == 0x7cu ? 0x7f800000u : 0x7fc00000u;
    const uint32_t bits = (code & 0x7fu) >= 0x7cu ? special : mj_f32_bits(mag);
    return mj_bits_f32(bits | ((code & 0x80u) << 24));
}

/* `type` is MJ_T_E4M3 or MJ_T_E5M2 and a constant where these are used */
MJ_FN uint32_t mj_f32_to_fp8(float x, int32_t type) { return type == MJ_T_E5M2 ? mj_f32_to_e5m2(x) : mj_f32_to_e4m3(x); }
MJ_FN float mj_fp8_to_f32(uint32_t c, int32_t type) { return type == MJ_T_E5M2 ? mj_e5m2_to_f32(c) : mj_e4m3_to_f32(c); }
MJ_FN float mj_fp8_max(int32_t type) { return type == MJ_T_E5M2 ? 57344.0f : 448.0f; }

/* The scale of a block (what a stored value is multiplied by) from its largest magnitude. Blocks that are zero, or so
 * small that the scale's inverse would overflow, get 1. */
MJ_FN float mj_fp8_scale(float amax, int32_t type) { return amax > 7.8886091e-31f ? mj_over_fp8_max(amax, type) : 1.0f; }

/* ---- lanes ---------------------------------------------------------------------------------------------------------- */

#define MJ_CHUNK 128
#define MJ_FOR_CHUNKS(c, n) for (int32_t c = 0; c < (int32_t)(n); c += MJ_CHUNK)

MJ_FN MjLanes mj_lanes_fill(float value)
{
    MjLanes x;
    MJ_FOR_LANES(l) x.v[l] = value;
    return x;
}
MJ_FN MjLanes mj_lanes_zero(void) { return mj_lanes_fill(0.0f); }

MJ_FN void mj_lanes_abs_max(MjLanes *m, const MjLanes *x) /* m = max(m, |x|); NaN is passed over */
{
    MJ_FOR_LANES(l) m->v[l] = mj_fmaxf(mj_fabsf(x->v[l]), m->v[l]);
}

#endif
