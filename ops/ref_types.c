/* Number formats in double precision, written from their definitions (sign, exponent, mantissa) and apart from the
 * kernels' bit tricks, so that the two check each other. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/refs.h"

typedef struct Format {
    int mantissa_bits, bias, max_code; /* code of the largest finite number */
} Format;
static const Format e4m3 = {3, 7, 0x7e}, e5m2 = {2, 15, 0x7b};

static double fp8_value(const Format *f, int code)
{
    const int exponent = (code & 0x7f) >> f->mantissa_bits, mantissa = code & ((1 << f->mantissa_bits) - 1);
    const double sign = (code & 0x80) != 0 ? -1.0 : 1.0;
    if ((code & 0x7f) > f->max_code) return f->bias == 15 && (code & 0x7f) == 0x7c ? sign * INFINITY : (double)NAN;
    if (exponent == 0) return sign * ldexp(mantissa, 1 - f->bias - f->mantissa_bits);
    return sign * ldexp(mantissa + (1 << f->mantissa_bits), exponent - f->bias - f->mantissa_bits);
}

/* The nearest code by looking at the neighbours; a tie goes to the even code. */
static int fp8_code(const Format *f, double x)
{
    const int sign = signbit(x) ? 0x80 : 0;
    if (isnan(x)) return 0x7f;
    const double a = fabs(x);
    int low = 0, high = f->max_code;
    if (a >= fp8_value(f, high)) return sign | high;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (fp8_value(f, middle) <= a) low = middle;
        else high = middle;
    }
    const double down = a - fp8_value(f, low), up = fp8_value(f, high) - a;
    return sign | (down < up || (down == up && low % 2 == 0) ? low : high);
}

double mj_ref_decode(MjOpType type, const void *base, int64_t i)
{
    switch (type) {
    case MJ_BUF_F32: return (double)((const float *)base)[i];
    case MJ_BUF_F64: return ((const double *)base)[i];
    case MJ_BUF_I32: return (double)((const int32_t *)base)[i];
    case MJ_BUF_E4M3: return fp8_value(&e4m3, ((const uint8_t *)base)[i]);
    case MJ_BUF_E5M2: return fp8_value(&e5m2, ((const uint8_t *)base)[i]);
    default: {
        const uint32_t bits = (uint32_t)((const uint16_t *)base)[i] << 16;
        float x;
        memcpy(&x, &bits, sizeof x);
        return (double)x;
    }
    }
}

double mj_ref_round_bf16(double x)
{
    if (x == 0.0 || !isfinite(x)) return x;
    int exponent;
    (void)frexp(x, &exponent); /* |x| in [2^(exponent-1), 2^exponent): 8 significant bits */
    const int step = exponent - 8 < -133 ? -133 : exponent - 8;
    return ldexp(nearbyint(ldexp(x, -step)), step);
}

void mj_ref_encode(MjOpType type, void *base, int64_t i, double value)
{
    const float x = (float)mj_ref_round_bf16(value);
    uint32_t bits;
    switch (type) {
    case MJ_BUF_F32: ((float *)base)[i] = (float)value; break;
    case MJ_BUF_F64: ((double *)base)[i] = value; break;
    case MJ_BUF_I32: ((int32_t *)base)[i] = (int32_t)value; break;
    case MJ_BUF_E4M3: ((uint8_t *)base)[i] = (uint8_t)fp8_code(&e4m3, value); break;
    case MJ_BUF_E5M2: ((uint8_t *)base)[i] = (uint8_t)fp8_code(&e5m2, value); break;
    default:
        memcpy(&bits, &x, sizeof bits);
        ((uint16_t *)base)[i] = (uint16_t)(bits >> 16);
    }
}

double mj_length_none(const void *args)
{
    (void)args;
    return 1.0;
}
