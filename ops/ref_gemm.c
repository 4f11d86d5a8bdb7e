/* The GEMM's definition in double precision, straight from the comments of MjGemmArgs: no tiles, no order. Owns the
 * reference and the size of what a result may differ by; slow on purpose. */
#include "ops/ref_gemm.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"

static double fp8_value(int byte, int32_t type)
{
    const int mantissa_bits = type == MJ_T_E4M3 ? 3 : 2, bias = type == MJ_T_E4M3 ? 7 : 15;
    const int exponent = (byte & 0x7f) >> mantissa_bits, mantissa = byte & ((1 << mantissa_bits) - 1);
    const double sign = (byte & 0x80) != 0 ? -1.0 : 1.0;
    if (type == MJ_T_E4M3 && (byte & 0x7f) == 0x7f) return NAN;
    if (type == MJ_T_E5M2 && exponent == 31) return mantissa != 0 ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

static double ref_element(const void *base, int32_t type, int64_t i)
{
    static _Thread_local double values[2][256]; /* e4m3, e5m2 */
    static _Thread_local bool known;
    if (type == MJ_T_BF16) {
        const uint32_t bits = (uint32_t)((const uint16_t *)base)[i] << 16;
        float f;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    }
    for (int code = 0; !known && code < 256; code++) {
        values[0][code] = fp8_value(code, MJ_T_E4M3);
        values[1][code] = fp8_value(code, MJ_T_E5M2);
    }
    known = true;
    return values[type == MJ_T_E5M2][((const uint8_t *)base)[i]];
}

/* Scale of operand element for output (row i, column j) at depth p; rows and depths are absolute. */
static double ref_scale_a(const MjGemmArgs *g, int64_t i, int64_t p)
{
    if (g->scale_mode == MJ_SCALE_NONE) return 1.0;
    if (g->scale_mode == MJ_SCALE_TENSOR) return (double)g->a_scale[0];
    return (double)g->a_scale[p / MJ_FP8_BLOCK * g->m + i];
}

static double ref_scale_b(const MjGemmArgs *g, int32_t e, int64_t j, int64_t p)
{
    const int64_t nb = (g->n + MJ_FP8_BLOCK - 1) / MJ_FP8_BLOCK, kb = (g->k + MJ_FP8_BLOCK - 1) / MJ_FP8_BLOCK;
    const int64_t jb = j / MJ_FP8_BLOCK, pb = p / MJ_FP8_BLOCK;
    if (g->scale_mode == MJ_SCALE_NONE) return 1.0;
    if (g->scale_mode == MJ_SCALE_TENSOR) return (double)g->b_scale[0];
    if (g->layout == MJ_GEMM_TN) return (double)g->b_scale[pb * g->n + j];
    return (double)g->b_scale[e * nb * kb + (g->layout == MJ_GEMM_NT ? jb * kb + pb : pb * nb + jb)];
}

/* One group's operands as real numbers with their scales, depth contiguous: rows first.. of the left one, and all
 * columns of the right one. Decoded once, or the reference of a benchmark's shape would take minutes. */
typedef struct RefOperands {
    double *a, *b; /* (rows, depth), (n, depth) */
} RefOperands;

static RefOperands ref_operands(const MjGemmArgs *g, int32_t e, int64_t row0, int64_t rows, int64_t first, int64_t depth)
{
    const int64_t expert = g->group == MJ_GROUP_M ? (int64_t)e * g->n * g->k : 0;
    RefOperands o = {mj_xmalloc((size_t)(rows * depth + 1) * sizeof(double)),
                     mj_xmalloc((size_t)(g->n * depth + 1) * sizeof(double))};
    for (int64_t i = 0; i < rows; i++)
        for (int64_t d = 0; d < depth; d++) {
            const int64_t p = first + d, along = g->layout == MJ_GEMM_TN ? MJ_KMAJOR_STRIDE(g->k) : g->k;
            const bool across = g->layout == MJ_GEMM_TN && g->kmajor == 0;
            const int64_t at = across ? p * g->m + row0 + i : (row0 + i) * along + p;
            o.a[i * depth + d] = ref_element(g->a, g->a_type, at) * ref_scale_a(g, row0 + i, p);
        }
    for (int64_t j = 0; j < g->n; j++)
        for (int64_t d = 0; d < depth; d++) {
            const int64_t p = first + d, along = g->layout == MJ_GEMM_TN ? MJ_KMAJOR_STRIDE(g->k) : g->k;
            const bool across = g->layout != MJ_GEMM_NT && g->kmajor == 0;
            const int64_t at = across ? p * g->n + j : j * along + p;
            o.b[j * depth + d] = ref_element(g->b, g->b_type, expert + at) * ref_scale_b(g, e, j, p);
        }
    return o;
}

/* Eight running sums, so that the additions need not wait for each other. */
static void ref_dot(const double *a, const double *b, int64_t depth, double *sum, double *size)
{
    double s[8] = {0}, m[8] = {0};
    int64_t p = 0;
    for (; p + 8 <= depth; p += 8)
        for (int l = 0; l < 8; l++) {
            const double x = a[p + l] * b[p + l];
            s[l] += x;
            m[l] += fabs(x);
        }
    for (; p < depth; p++) {
        s[0] += a[p] * b[p];
        m[0] += fabs(a[p] * b[p]);
    }
    *sum = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    *size = ((m[0] + m[1]) + (m[2] + m[3])) + ((m[4] + m[5]) + (m[6] + m[7]));
}

/* A GPU's fp8 products: what the tensor core cuts off on the way to one output, as an expected square. An instruction adds
 * 32 products to its accumulator after cutting each of the 33 below 2^-13 of the largest; a cut is between 0 and that unit,
 * a third of its square on average. The accumulator starts anew every 128 of K. */
typedef struct RefCut {
    double squares, sum, largest;
    int64_t n;
} RefCut;

static void ref_cut_add(RefCut *c, double product)
{
    if (c->n % MJ_FP8_BLOCK == 0) c->sum = 0.0;
    if (c->n % 32 == 0) c->largest = fabs(c->sum);
    c->sum += product;
    if (fabs(product) > c->largest) c->largest = fabs(product);
    const double unit = c->largest * 0x1p-13;
    if (++c->n % 32 == 0) c->squares += 33.0 / 3.0 * unit * unit;
}

static double ref_cut_square(RefCut *c) /* with zeros to the end of the last instruction */
{
    while (c->n % 32 != 0) ref_cut_add(c, 0.0);
    return c->squares;
}

static bool ref_is_cut(const MjGemmArgs *g) { return g->kmajor != 0 && g->a_type != MJ_T_BF16; }

int64_t mj_ref_gemm_size(const MjGemmArgs *g)
{
    return (int64_t)(g->group == MJ_GROUP_K ? g->experts : 1) * g->m * g->n;
}

void mj_ref_gemm(const MjGemmArgs *g, double *c, double *size, double *cut)
{
    const int32_t groups = g->group == MJ_GROUP_NONE ? 1 : g->experts;
    for (int32_t e = 0; e < groups; e++) {
        const int64_t begin = g->group == MJ_GROUP_NONE ? 0 : MJ_GROUP_FIRST(g, e);
        const int64_t row0 = g->group == MJ_GROUP_M ? begin : 0;
        const int64_t rows = g->group == MJ_GROUP_M ? g->offset[e + 1] - begin : g->m;
        const int64_t live = g->group == MJ_GROUP_M ? g->count[e] : rows; /* rows after these are padding: zeros */
        const int64_t depth = g->group == MJ_GROUP_K ? MJ_GROUP_LENGTH(g, e, g->k) : g->k;
        const int64_t out = g->group == MJ_GROUP_K ? (int64_t)e * g->m * g->n : row0 * g->n;
        RefOperands o = ref_operands(g, e, row0, live, g->group == MJ_GROUP_K ? begin : 0, depth);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < g->n; j++) {
                const int64_t at = out + i * g->n + j;
                double sum = 0.0, bound = 0.0;
                if (i < live) ref_dot(o.a + i * depth, o.b + j * depth, depth, &sum, &bound);
                const double before = g->epilogue == MJ_EPI_ACCUMULATE ? (double)((const float *)g->c)[at] : 0.0;
                c[at] = before + sum;
                size[at] = fabs(before) + bound;
                RefCut lost = {0};
                for (int64_t d = 0; d < depth && i < live && ref_is_cut(g); d++)
                    ref_cut_add(&lost, o.a[i * depth + d] * o.b[j * depth + d]);
                cut[at] = ref_cut_square(&lost);
            }
        free(o.a);
        free(o.b);
    }
}

void mj_ref_gemm_element(const MjGemmArgs *g, int64_t e, int64_t row, int64_t col, double *value, double *size,
                         double *cut)
{
    RefCut lost = {0};
    const int64_t expert = g->group == MJ_GROUP_M ? e * g->n * g->k : 0, along = g->layout == MJ_GEMM_TN ? MJ_KMAJOR_STRIDE(g->k) : g->k;
    const int64_t first = g->group == MJ_GROUP_K ? MJ_GROUP_FIRST(g, e) : 0;
    const int64_t depth = g->group == MJ_GROUP_K ? MJ_GROUP_LENGTH(g, e, g->k) : g->group == MJ_GROUP_M && row >= g->offset[e] + g->count[e] ? 0 : g->k;
    const bool a_across = g->layout == MJ_GEMM_TN && g->kmajor == 0, b_across = g->layout != MJ_GEMM_NT && g->kmajor == 0;
    const int64_t at = (g->group == MJ_GROUP_K ? e * g->m + row : row) * g->n + col;
    double sum = 0.0, bound = 0.0;
    for (int64_t p = first; p < first + depth; p++) {
        const double a = ref_element(g->a, g->a_type, a_across ? p * g->m + row : row * along + p) * ref_scale_a(g, row, p);
        const double b = ref_element(g->b, g->b_type, expert + (b_across ? p * g->n + col : col * along + p)) *
                         ref_scale_b(g, (int32_t)e, col, p);
        sum += a * b;
        bound += fabs(a * b);
        if (ref_is_cut(g)) ref_cut_add(&lost, a * b);
    }
    const double before = g->epilogue == MJ_EPI_ACCUMULATE ? (double)((const float *)g->c)[at] : 0.0;
    *value = before + sum;
    *size = fabs(before) + bound;
    *cut = ref_cut_square(&lost);
}

double mj_ref_gemm_tolerance(const MjGemmArgs *g, double value, double size, double cut)
{
    /* f32 sums of `depth` terms, of random sign: half an ulp each, as a walk; twice that for safety. Then one rounding. */
    const double sums = 0x1p-24 * (4.0 + 2.0 * sqrt((double)g->k)) * size;
    return 1e-30 + sums + 6.0 * sqrt(cut) + (g->c_type == MJ_T_BF16 ? 0x1p-8 * fabs(value) : 0.0);
}
