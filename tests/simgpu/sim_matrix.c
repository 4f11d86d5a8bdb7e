/* Matrix instructions: ldmatrix, stmatrix, mma.sync, wgmma, setmaxnreg. Owns fragment layouts and the arithmetic.
 *
 * A product is summed exactly in double over the instruction's K and rounded once to f32 with the accumulator.
 * MOJIT_SIMGPU_FP8_BITS=13 shortens FP8 sums as Hopper's tensor cores do: every term of one instruction is cut below
 * 2^(largest exponent - 13). MOJIT_SIMGPU_BF16_BITS=25 does so to bf16 products, whose sums a tensor core cuts as well instead
 * of rounding them.
 *
 * Sources, PTX ISA: "Warp-level matrix load instruction: ldmatrix", "... store instruction: stmatrix", "Matrix Fragments for
 * mma.m16n8k16 with floating point type", "... mma.m16n8k32"; "Asynchronous Warpgroup Level Matrix Instructions": "Matrix
 * Fragments for wgmma.mma_async.m64nNk16", "Shared Memory Matrix Layout", "Matrix Descriptor Format"; "setmaxnreg".
 * test_matrix.c holds each layout against one that it writes down on its own. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double bf16_value(unsigned bits)
{
    const uint32_t u = bits << 16;
    float f;
    memcpy(&f, &u, 4);
    return (double)f;
}

static double f16_value(unsigned bits)
{
    const unsigned e = bits >> 10 & 31, m = bits & 0x3ff;
    const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
    if (e == 31) return m != 0 ? NAN : sign * INFINITY;
    return sign * (e == 0 ? ldexp((double)m, -24) : ldexp((double)(m + 1024), (int)e - 25));
}

static bool is_fp8(int type) { return type == SIM_E4M3 || type == SIM_E5M2; }

static double fp8_value(unsigned code, int mbits, int bias)
{
    const unsigned ebits = 7u - (unsigned)mbits, e = code >> mbits & ((1u << ebits) - 1), m = code & ((1u << mbits) - 1);
    const double sign = code & 0x80 ? -1.0 : 1.0;
    if (mbits == 3 && (code & 0x7f) == 0x7f) return NAN;
    if (mbits == 2 && e == 31) return m != 0 ? NAN : sign * INFINITY;
    if (e == 0) return sign * ldexp((double)m, 1 - bias - mbits);
    return sign * ldexp((double)(m + (1u << mbits)), (int)e - bias - mbits);
}

static double element(const void *p, int type)
{
    static double e4m3[256], e5m2[256];
    static bool ready;
    if (!ready) {
        for (unsigned c = 0; c < 256; c++) {
            e4m3[c] = fp8_value(c, 3, 7);
            e5m2[c] = fp8_value(c, 2, 15);
        }
        ready = true;
    }
    if (!is_fp8(type)) {
        uint16_t h;
        memcpy(&h, p, 2);
        return type == SIM_BF16 ? bf16_value(h) : f16_value(h);
    }
    return (type == SIM_E4M3 ? e4m3 : e5m2)[*(const uint8_t *)p];
}

static int sum_bits(bool fp8)
{
    static int bits[2] = {-1, -1};
    if (bits[fp8] < 0) {
        const char *e = getenv(fp8 ? "MOJIT_SIMGPU_FP8_BITS" : "MOJIT_SIMGPU_BF16_BITS");
        bits[fp8] = e != NULL ? atoi(e) : 0;
    }
    return bits[fp8];
}

static float dot(float acc, const double *a, const double *b, int k, bool fp8)
{
    const int bits = sum_bits(fp8);
    double sum = (double)acc;
    if (bits == 0) {
        for (int i = 0; i < k; i++) sum += a[i] * b[i];
        return (float)sum;
    }
    int largest = -1000, e;
    for (int i = -1; i < k; i++) {
        const double t = i < 0 ? sum : a[i] * b[i];
        if (t != 0.0 && isfinite(t)) {
            (void)frexp(t, &e);
            if (e > largest) largest = e;
        }
    }
    const double unit = ldexp(1.0, largest - 1 - bits);
    double cut = trunc(sum / unit) * unit;
    for (int i = 0; i < k; i++) cut += trunc(a[i] * b[i] / unit) * unit;
    const float f = (float)cut; /* cut, not rounded */
    return fabs((double)f) > fabs(cut) ? nextafterf(f, 0.0f) : f;
}

/* ---- ldmatrix, stmatrix -------------------------------------------------------------------------------------- */

/* Lane 8i + r gives the address of row r of matrix i; lane t holds elements 2(t % 4), +1 of row t / 4, or of column t / 4
 * when transposed. arg: matrices, + 16 for .trans */
static void move_matrices(SimThread *lanes, int arg, bool store, SimSite at)
{
    const int count = arg & 15, trans = arg >> 4;
    const char *name = store ? "stmatrix" : "ldmatrix";
    for (int i = 0; i < count; i++) {
        uint16_t m[8][8] = {{0}};
        char *rows[8];
        for (int r = 0; r < 8; r++) {
            const unsigned a = (unsigned)lanes[8 * i + r].value;
            if (a % 16 != 0) sim_fail(SIM_CU_MISALIGNED, at, "%s: the row address 0x%x of lane %d is not 16-byte aligned", name, a, 8 * i + r);
            rows[r] = sim_shared(lanes[0].cta, a, 16, name, at);
            if (store) {
                sim_shared_mark(lanes[0].cta, a, 16, SIM_WRITTEN);
            } else {
                sim_shared_read(lanes[0].cta, a, 16, false, name, at);
                memcpy(m[r], rows[r], 16);
            }
        }
        for (int t = 0; t < 32; t++) {
            const int r = t / 4, c = 2 * (t % 4);
            uint16_t *lo = trans ? &m[c][r] : &m[r][c], *hi = trans ? &m[c + 1][r] : &m[r][c + 1];
            if (store) {
                const uint32_t v = ((const uint32_t *)lanes[t].in0)[i];
                *lo = (uint16_t)v;
                *hi = (uint16_t)(v >> 16);
            } else {
                ((uint32_t *)lanes[t].out)[i] = *lo | (uint32_t)*hi << 16;
            }
        }
        for (int r = 0; r < 8 && store; r++) memcpy(rows[r], m[r], 16);
    }
}

static void ldmatrix_all(SimWarp *w, SimThread *lanes, unsigned mask, int arg, SimSite at)
{
    (void)w;
    (void)mask;
    move_matrices(lanes, arg, false, at);
}
static void stmatrix_all(SimWarp *w, SimThread *lanes, unsigned mask, int arg, SimSite at)
{
    (void)w;
    (void)mask;
    move_matrices(lanes, arg, true, at);
}

void simgpu_ldmatrix(uint32_t *r, int count, int trans, unsigned addr, SimSite at)
{
    SimThread *t = sim_run->current;
    t->value = addr;
    t->out = r;
    sim_collective(SIM_GATHER_LDMATRIX, count + 16 * trans, 0xffffffffu, ldmatrix_all, "ldmatrix", at);
}

void simgpu_stmatrix(const uint32_t *r, int count, int trans, unsigned addr, SimSite at)
{
    SimThread *t = sim_run->current;
    t->value = addr;
    t->in0 = r;
    sim_collective(SIM_GATHER_STMATRIX, count + 16 * trans, 0xffffffffu, stmatrix_all, "stmatrix", at);
}

/* ---- mma.sync --------------------------------------------------------------------------------------------------- */

/* arg: a_type + 4 b_type. Register j of A: row lane / 4 + 8 (j & 1), bytes 4 (lane % 4) + 16 (j >> 1) of a 32-byte row. */
static void mma_all(SimWarp *w, SimThread *lanes, unsigned mask, int arg, SimSite at)
{
    (void)w;
    (void)mask;
    (void)at;
    const int a_type = arg & 3, b_type = arg >> 2, size = is_fp8(a_type) ? 1 : 2, k = 32 / size;
    char a[16][32], b[8][32];
    double av[16][32], bv[8][32];
    for (int t = 0; t < 32; t++) {
        for (int j = 0; j < 4; j++) memcpy(&a[t / 4 + 8 * (j & 1)][4 * (t % 4) + 16 * (j >> 1)], (const uint32_t *)lanes[t].in0 + j, 4);
        for (int j = 0; j < 2; j++) memcpy(&b[t / 4][4 * (t % 4) + 16 * j], (const uint32_t *)lanes[t].in1 + j, 4);
    }
    for (int r = 0; r < 16; r++)
        for (int i = 0; i < k; i++) av[r][i] = element(&a[r][i * size], a_type);
    for (int c = 0; c < 8; c++)
        for (int i = 0; i < k; i++) bv[c][i] = element(&b[c][i * size], b_type);
    for (int t = 0; t < 32; t++)
        for (int j = 0; j < 4; j++) {
            float *d = (float *)lanes[t].out + j;
            *d = dot(*d, av[t / 4 + 8 * (j >> 1)], bv[2 * (t % 4) + (j & 1)], k, size == 1);
        }
}

void simgpu_mma(float *d, const uint32_t *a, const uint32_t *b, int a_type, int b_type, SimSite at)
{
    SimThread *t = sim_run->current;
    if (is_fp8(a_type) && sim_run->launch->arch < 89) sim_fail(SIM_CU_LAUNCH_FAILED, at, "mma of fp8 needs sm_89 or later");
    t->in0 = a;
    t->in1 = b;
    t->out = d;
    sim_collective(SIM_GATHER_MMA, a_type + 4 * b_type, 0xffffffffu, mma_all, "mma.sync", at);
}

/* ---- wgmma ---------------------------------------------------------------------------------------------------------- */

typedef struct Descriptor {
    unsigned start, leading, stride;
    int swizzle;
} Descriptor;

static Descriptor read_descriptor(uint64_t d, SimSite at)
{
    const Descriptor r = {(unsigned)(d & 0x3fff) << 4, (unsigned)(d >> 16 & 0x3fff) << 4, (unsigned)(d >> 32 & 0x3fff) << 4,
                          (int)(d >> 62)};
    if ((d >> 49 & 7) != 0) sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma: a descriptor with a base offset is not simulated");
    return r;
}

/* Shared address of 2 or 1 bytes of element (mn, k); `size` bytes an element. "Shared Memory Matrix Layout": canonical
 * layouts of 8 x 16-byte core matrices, K-major or MN-major. Swizzling acts on the final address. */
static unsigned operand_address(const Descriptor *d, int mn, int k, int size, int mn_major)
{
    static const unsigned span_of[4] = {16, 128, 64, 32}, mask_of[4] = {0, 0x70, 0x30, 0x10};
    const unsigned span = span_of[d->swizzle];
    unsigned a;
    if (!mn_major) {
        const unsigned byte = (unsigned)(k * size);
        a = d->start + (unsigned)(mn / 8) * d->stride + (unsigned)(mn % 8) * span;
        a += d->swizzle == 0 ? byte / 16 * d->leading + byte % 16 : byte;
    } else {
        const unsigned byte = (unsigned)(mn * size), group = byte / span;
        a = d->start + (unsigned)(k % 8) * span + byte % span;
        a += d->swizzle == 0 ? group * d->stride + (unsigned)(k / 8) * d->leading
                             : group * d->leading + (unsigned)(k / 8) * d->stride;
    }
    return a ^ ((a >> 3) & mask_of[d->swizzle]);
}

static double *load_operand(SimCta *cta, uint64_t desc, int rows, int first_row, int k, int type, int mn_major, SimSite at)
{
    static double buffer[2][256 * 32];
    static int turn;
    double *v = buffer[turn ^= 1];
    const Descriptor d = read_descriptor(desc, at);
    const int size = type == SIM_BF16 ? 2 : 1;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < k; i++) {
            const unsigned a = operand_address(&d, first_row + r, i, size, mn_major);
            const char *p = sim_shared(cta, a, (size_t)size, "wgmma", at);
            sim_shared_read(cta, a, (size_t)size, true, "wgmma", at);
            v[r * k + i] = element(p, type);
        }
    return v;
}

/* The 16 rows of one warp: accumulator 4j + 2i + e of lane t is row t / 4 + 8i, column 8j + 2 (t % 4) + e. */
static void run_wgmma(SimWarp *w, SimThread *lanes, const SimWgmma *g)
{
    SimCta *cta = lanes[0].cta;
    const int k = g->a_type == SIM_BF16 ? 16 : 32, warp = lanes[0].warp % 4;
    double regs[16 * 16];
    const double *a, *b;
    if (g->a_in_regs) {
        for (int t = 0; t < 32; t++)
            for (int j = 0; j < 4; j++)
                for (int e = 0; e < 2; e++)
                    regs[(t / 4 + 8 * (j & 1)) * 16 + 2 * (t % 4) + 8 * (j >> 1) + e] =
                        bf16_value(g->a_regs[t][j] >> (16 * e) & 0xffff);
        a = regs;
    } else {
        a = load_operand(cta, g->a_desc, 16, 16 * warp, k, g->a_type, g->trans_a, g->at);
    }
    b = load_operand(cta, g->b_desc, g->n, 0, k, g->b_type, g->trans_b, g->at);
    SimAcc *acc = &w->acc[g->acc];
    for (int t = 0; t < 32; t++)
        for (int j = 0; j < g->n / 8; j++)
            for (int i = 0; i < 4; i++) {
                float *d = &acc->value[t * (g->n / 2) + 4 * j + i];
                *d = dot(g->accumulate ? *d : 0.0f, &a[(t / 4 + 8 * (i >> 1)) * k], &b[(8 * j + 2 * (t % 4) + (i & 1)) * k], k,
                         g->a_type != SIM_BF16);
            }
    if (--acc->uses > 0) return;
    for (int t = 0; t < 32; t++) memcpy(acc->lane[t], acc->value + t * (acc->n / 2), (size_t)acc->n / 2 * sizeof(float));
    free(acc->value);
    acc->value = NULL;
}

/* The accumulator as the kernel holds it: taken over while wgmmas are in flight, and poisoned with NaN where it was. */
static int take_accumulator(SimWarp *w, SimThread *lanes, int n, SimSite at)
{
    int found = -1;
    for (int i = 0; i < 8; i++) {
        if (w->acc[i].value != NULL && w->acc[i].lane[0] == (float *)lanes[0].out) return i;
        if (w->acc[i].value == NULL && found < 0) found = i;
    }
    if (found < 0) sim_fail(SIM_CU_LAUNCH_FAILED, at, "more than 8 accumulators in flight in a warp are not simulated");
    SimAcc *acc = &w->acc[found];
    acc->n = n;
    acc->uses = 0;
    acc->value = malloc((size_t)n / 2 * 32 * sizeof(float));
    for (int t = 0; t < 32; t++) {
        acc->lane[t] = lanes[t].out;
        memcpy(acc->value + t * (n / 2), acc->lane[t], (size_t)n / 2 * sizeof(float));
        for (int i = 0; i < n / 2; i++) acc->lane[t][i] = NAN;
    }
    return found;
}

typedef struct WgmmaCall {
    uint64_t a_desc, b_desc;
    const uint32_t *a_regs;
    int n, a_type, b_type, trans_a, trans_b, accumulate;
} WgmmaCall;

static void wgmma_all(SimWarp *w, SimThread *lanes, unsigned mask, int arg, SimSite at)
{
    (void)mask;
    (void)arg;
    const WgmmaCall *c = lanes[0].in0;
    for (int t = 1; t < 32; t++) {
        const WgmmaCall *o = lanes[t].in0;
        if (o->a_desc != c->a_desc || o->b_desc != c->b_desc || o->accumulate != c->accumulate)
            sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma: lanes 0 and %d of a warp disagree about a descriptor or scale-d", t);
    }
    if (!w->wgmma_fenced) sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma without a wgmma.fence (mj_ptx_wgmma_fence) before the first one of its group");
    if (w->n_wgmma == w->cap_wgmma) {
        w->cap_wgmma = w->cap_wgmma == 0 ? 32 : 2 * w->cap_wgmma;
        w->wgmma = realloc(w->wgmma, (size_t)w->cap_wgmma * sizeof *w->wgmma);
    }
    const int acc = take_accumulator(w, lanes, c->n, at);
    SimWgmma *g = &w->wgmma[w->n_wgmma++];
    *g = (SimWgmma){.n = c->n, .a_type = c->a_type, .b_type = c->b_type, .trans_a = c->trans_a, .trans_b = c->trans_b,
                    .accumulate = c->accumulate, .group = w->wgmma_group, .acc = acc, .a_in_regs = c->a_regs != NULL,
                    .a_desc = c->a_desc, .b_desc = c->b_desc, .at = at};
    for (int t = 0; t < 32 && c->a_regs != NULL; t++) memcpy(g->a_regs[t], ((const WgmmaCall *)lanes[t].in0)->a_regs, 16);
    w->acc[acc].uses++;
}

void simgpu_wgmma(float *d, int n, const uint32_t *a_regs, uint64_t a_desc, uint64_t b_desc, int a_type, int b_type, int trans_a,
                  int trans_b, int accumulate, SimSite at)
{
    SimThread *t = sim_run->current;
    const WgmmaCall call = {a_desc, b_desc, a_regs, n, a_type, b_type, trans_a, trans_b, accumulate != 0};
    if (n < 8 || n > 256 || n % 8 != 0) sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma: N = %d; must be a multiple of 8 up to 256", n);
    if (t->cta->n_threads < (t->warp / 4 + 1) * 128)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma needs a warpgroup of 128 threads; the block has %d", t->cta->n_threads);
    t->in0 = &call;
    t->out = d;
    sim_collective(SIM_GATHER_WGMMA, n, 0xffffffffu, wgmma_all, "wgmma", at);
}

static void fence_all(SimWarp *w, SimThread *lanes, unsigned mask, int arg, SimSite at)
{
    (void)lanes;
    (void)mask;
    (void)arg;
    (void)at;
    w->wgmma_fenced = true;
}
void simgpu_wgmma_fence(SimSite at) { sim_collective(SIM_GATHER_WGMMA_FENCE, 0, 0xffffffffu, fence_all, "wgmma.fence", at); }

/* The first lane to come commits for the warp; the others find it done. */
void simgpu_wgmma_commit(void)
{
    SimThread *t = sim_run->current;
    if (t->lane == 0) t->cta->warps[t->warp].wgmma_group++;
}

static void wait_all(SimWarp *w, SimThread *lanes, unsigned mask, int n, SimSite at)
{
    (void)mask;
    (void)at;
    int kept = 0;
    for (int i = 0; i < w->n_wgmma; i++) {
        if (w->wgmma[i].group >= w->wgmma_group - n)
            w->wgmma[kept++] = w->wgmma[i];
        else
            run_wgmma(w, lanes, &w->wgmma[i]);
    }
    w->n_wgmma = kept;
    if (kept == 0) w->wgmma_fenced = false;
}
void simgpu_wgmma_wait(int n, SimSite at) { sim_collective(SIM_GATHER_WGMMA_WAIT, n, 0xffffffffu, wait_all, "wgmma.wait_group", at); }

void sim_wgmma_exit(SimThread *t)
{
    SimWarp *w = &t->cta->warps[t->warp];
    if (w->n_wgmma > 0) sim_fail(SIM_CU_LAUNCH_FAILED, w->wgmma[0].at, "the thread leaves with a wgmma in flight: no wgmma.wait_group");
    free(w->wgmma); /* every lane comes here; the first frees */
    w->wgmma = NULL;
    w->cap_wgmma = 0;
}

/* ---- setmaxnreg --------------------------------------------------------------------------------------------------------- */

static void setmaxnreg_all(SimWarp *w, SimThread *lanes, unsigned mask, int arg, SimSite at)
{
    (void)mask;
    const SimCta *cta = lanes[0].cta;
    const int launched = 65536 / cta->n_threads / 8 * 8; /* what __launch_bounds__ alone gives the compiler, at most */
    int total = 0;
    w->registers = arg;
    for (int i = 0; i < cta->n_warps; i++) {
        if (cta->warps[i].registers == 0) return; /* not all have spoken */
        total += 32 * cta->warps[i].registers;
    }
    if (total > 65536)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "setmaxnreg: the warps ask for %d registers together, a multiprocessor has 65536 (launched "
                 "with at most %d a thread)", total, launched);
}

void simgpu_setmaxnreg(int registers, int increase, SimSite at)
{
    if (registers < 24 || registers > 256 || registers % 8 != 0)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "setmaxnreg.%s %d: must be a multiple of 8 from 24 to 256", increase ? "inc" : "dec", registers);
    sim_collective(SIM_GATHER_SETMAXNREG, registers, 0xffffffffu, setmaxnreg_all, "setmaxnreg", at);
}
