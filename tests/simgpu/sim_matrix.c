/* Matrix instructions: ldmatrix, stmatrix, mma.sync, wgmma, setmaxnreg. Owns fragment layouts and the arithmetic.
 *
 * A product is summed exactly in double over the instruction's K and rounded once to f32 with the accumulator.
 * MOJIT_SIMGPU_FP8_BITS=13 shortens FP8 sums as Hopper's tensor cores do: every term of one instruction is cut below
 * 2^(largest exponent - 13). MOJIT_SIMGPU_BF16_BITS=25 does so to bf16 products, whose sums a tensor core cuts as well instead
 * of rounding them.
 *
 * Sources, PTX ISA 9.1: 9.7.14.5.15 "ldmatrix", 9.7.14.5.16 "stmatrix", 9.7.14.5.8 "Matrix Fragments for mma.m16n8k16 with floating
 * point type", 9.7.14.5.10 "... mma.m16n8k32"; of wgmma 9.7.15.5.1.1.1 and .3 (fragments), 9.7.15.5.1.2 "Shared Memory Matrix
 * Layout", 9.7.15.5.1.2.2 "Matrix Descriptor Format", 9.7.15.7 (fence, commit_group, wait_group); 9.7.19.5 "setmaxnreg".
 * test_matrix.c holds each layout against one that it writes down on its own; README.md has the whole list. */
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
    SimThread *const last = sim_run->current;
    const char *name = store ? "stmatrix" : "ldmatrix";
    for (int i = 0; i < count; i++) {
        uint16_t m[8][8] = {{0}};
        char *rows[8];
        for (int r = 0; r < 8; r++) {
            const unsigned a = (unsigned)lanes[8 * i + r].value;
            if (a % 16 != 0) sim_fail(SIM_CU_MISALIGNED, at, "%s: the row address 0x%x of lane %d is not 16-byte aligned", name, a, 8 * i + r);
            rows[r] = sim_shared(lanes[0].cta, a, 16, name, at);
            sim_run->current = &lanes[8 * i + r];
            sim_race_access(lanes[0].cta, a, 16, store, name, at, NULL);
            sim_run->current = last;
            if (store) {
                sim_shared_claim(lanes[0].cta, a, 16, name, at);
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
    static const unsigned span[4] = {16, 128, 64, 32};
    if ((d >> 49 & 7) != 0) sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma: a descriptor with a base offset is not simulated");
    if (r.swizzle != 0 && r.start % (8 * span[r.swizzle]) >= span[r.swizzle])
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma: an operand at shared 0x%x with a base offset of 0: its rows repeat every %u bytes, and a tile "
                 "must begin where they do", r.start, 8 * span[r.swizzle]);
    return r;
}

/* matrix-descriptor-encode drops the last 4 bits of each field, so a misaligned tile would be read from somewhere else. */
uint64_t simgpu_wgmma_desc(unsigned address, unsigned leading, unsigned stride, unsigned swizzle, SimSite at)
{
    if (address % 16 != 0 || leading % 16 != 0 || stride % 16 != 0)
        sim_fail(SIM_CU_MISALIGNED, at, "wgmma: a descriptor of shared 0x%x with offsets %u and %u: all must be multiples of 16", address,
                 leading, stride);
    if (swizzle > 3) sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma: swizzling mode %u; there are 0 to 3", swizzle);
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)((leading & 0x3ffff) >> 4) << 16 |
           (uint64_t)((stride & 0x3ffff) >> 4) << 32 | (uint64_t)swizzle << 62;
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

/* For sim_race.c: a warp reads both operands from the issue of a wgmma to the wait for it. */
static void race_operand(SimThread *t, uint64_t desc, int rows, int first_row, int type, int mn_major, bool waited, SimSite at)
{
    const Descriptor d = read_descriptor(desc, at);
    const int size = type == SIM_BF16 ? 2 : 1, k = 32 / size, per = 16 / size; /* elements of 16 bytes, which lie together */
    for (int i = 0; i < (mn_major ? k : rows); i++)
        for (int j = 0; j < (mn_major ? rows : k); j += per) {
            const unsigned a = operand_address(&d, first_row + (mn_major ? j : i), mn_major ? i : j, size, mn_major);
            (void)sim_shared(t->cta, a, 16, "wgmma", at);
            sim_race_operand(t, a, 16, waited, at);
        }
}

static void race_wgmma(SimThread *lanes, const SimWgmma *g, bool waited)
{
    SimThread *const last = sim_run->current;
    if (lanes[0].cta->race == NULL) return;
    sim_run->current = &lanes[0];
    if (!g->a_in_regs) race_operand(lanes, g->a_desc, 16, lanes[0].warp % 4 * 16, g->a_type, g->trans_a, waited, g->at);
    race_operand(lanes, g->b_desc, g->n, 0, g->b_type, g->trans_b, waited, g->at);
    sim_run->current = last;
}

/* ---- what ptxas made of register operands --------------------------------------------------------------------------- */

/* ptxas 13.0 gave the registers of A's fragments to other operands when a loop did not change them, and did not load them again:
 * the PTX was right, the second round read something else (attention's dq at head size 64 on an H100). So a fragment that comes
 * back unchanged to the wgmma that has had it, with a wait between, is an error. One of a few different values (a tile of zeros, a
 * unit matrix) comes back by itself, and is let pass. */
static uint64_t fragment_hash(const uint32_t (*a)[4])
{
    uint64_t h = 1469598103934665603u;
    uint16_t seen[8];
    int kinds = 0;
    for (int t = 0; t < 32; t++)
        for (int j = 0; j < 4; j++) {
            for (int half = 0; half < 2 && kinds < 8; half++) {
                const uint16_t v = (uint16_t)(a[t][j] >> (16 * half));
                int k = 0;
                while (k < kinds && seen[k] != v) k++;
                if (k == kinds) seen[kinds++] = v;
            }
            h = (h ^ a[t][j]) * 1099511628211u;
            h ^= h >> 29;
        }
    return kinds < 8 ? 0 : h;
}

static void remember_fragment(SimWarp *w, const SimWgmma *g)
{
    const uint64_t h = fragment_hash(g->a_regs);
    if (h == 0) return;
    w->fragments[w->n_fragments % SIM_FRAGMENTS].hash = h;
    w->fragments[w->n_fragments++ % SIM_FRAGMENTS].at = g->at;
}

static void check_fragment(const SimWarp *w, const SimWgmma *g)
{
    const uint64_t h = fragment_hash(g->a_regs);
    for (unsigned i = 0; i < SIM_FRAGMENTS && i < w->n_fragments && h != 0; i++)
        if (w->fragments[i].hash == h && w->fragments[i].at.line == g->at.line && strcmp(w->fragments[i].at.file, g->at.file) == 0)
            sim_fail(SIM_CU_LAUNCH_FAILED, g->at, "wgmma takes A from registers that hold what they held at this wgmma before its last wait: "
                     "ptxas 13.0 gives registers that a loop does not change to other operands and does not load them again, so the sums "
                     "are wrong on a card. Keep A in shared memory, or make its fragments anew for each product");
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
    if (g->a_in_regs) remember_fragment(w, g);
    race_wgmma(lanes, g, true);
    if (--acc->uses > 0) return;
    for (int t = 0; t < 32; t++) {
        for (int i = 0; i < acc->n / 2; i++)
            if (!isnan(acc->lane[t][i])) {
                sim_run->current = &lanes[t];
                sim_fail(SIM_CU_LAUNCH_FAILED, g->at, "this thread wrote accumulator %d of a wgmma before the wgmma.wait_group for it "
                         "(mj_ptx_wgmma_wait): the sum that lands there overwrites it", i);
            }
        memcpy(acc->lane[t], acc->value + t * (acc->n / 2), (size_t)acc->n / 2 * sizeof(float));
    }
}

static void forget_accumulators(SimWarp *w)
{
    for (int i = 0; i < SIM_ACCS; i++)
        if (w->acc[i].value != NULL && w->acc[i].uses == 0) {
            free(w->acc[i].value);
            w->acc[i].value = NULL;
        }
}

/* The accumulator as the kernel holds it: taken over while wgmmas are in flight, and poisoned with NaN where it was. One that
 * was waited for and then written needs a wgmma.fence before the next wgmma on it. */
static int take_accumulator(SimWarp *w, SimThread *lanes, int n, bool accumulate, SimSite at)
{
    int found = -1;
    for (int i = 0; i < SIM_ACCS; i++) {
        SimAcc *acc = &w->acc[i];
        if (acc->value != NULL && acc->lane[0] == (float *)lanes[0].out) {
            if (acc->uses > 0 && acc->n != n)
                sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma of N = %d on an accumulator that one of N = %d still adds to: only wgmmas of the "
                         "same shape may follow each other without a wait", n, acc->n);
            if (acc->uses > 0) return i;
            for (int t = 0; t < 32 && accumulate && acc->n == n; t++)
                if (memcmp(acc->value + t * (n / 2), acc->lane[t], (size_t)n / 2 * sizeof(float)) != 0) {
                    sim_run->current = &lanes[t];
                    sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma adds to an accumulator that this thread wrote since the last wgmma.fence "
                             "(mj_ptx_wgmma_fence)");
                }
            free(acc->value);
            acc->value = NULL;
        }
        if (acc->value == NULL && found < 0) found = i;
    }
    if (found < 0) {
        forget_accumulators(w);
        for (int i = 0; i < SIM_ACCS && found < 0; i++) found = w->acc[i].value == NULL ? i : -1;
    }
    if (found < 0) sim_fail(SIM_CU_LAUNCH_FAILED, at, "more than %d accumulators in flight in a warp are not simulated", SIM_ACCS);
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

/* ".aligned": the four warps of a warpgroup issue the same wgmmas, with the same descriptors. The warp that comes later looks. */
static void check_warpgroup(SimWarp *w, const SimCta *cta, int warp, const WgmmaCall *c, SimSite at)
{
    const unsigned turn = w->issued++, place = turn % SIM_TRAIL;
    w->trail[place].a_desc = c->a_desc;
    w->trail[place].b_desc = c->b_desc;
    w->trail[place].at = at;
    for (int i = warp / 4 * 4; i < warp / 4 * 4 + 4; i++) {
        const SimWarp *o = &cta->warps[i];
        if (o == w || o->issued <= turn || o->issued - turn > SIM_TRAIL) continue;
        if (o->trail[place].a_desc != c->a_desc || o->trail[place].b_desc != c->b_desc || o->trail[place].at.line != at.line)
            sim_fail(SIM_CU_LAUNCH_FAILED, at, "wgmma: warps %d and %d of a warpgroup disagree about a descriptor of their wgmma number %u, or "
                     "about which it is (line %d)", i, warp, turn, o->trail[place].at.line);
    }
}

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
    check_warpgroup(w, lanes[0].cta, lanes[0].warp, c, at);
    const int acc = take_accumulator(w, lanes, c->n, c->accumulate, at);
    SimWgmma *g = &w->wgmma[w->n_wgmma++];
    *g = (SimWgmma){.n = c->n, .a_type = c->a_type, .b_type = c->b_type, .trans_a = c->trans_a, .trans_b = c->trans_b,
                    .accumulate = c->accumulate, .group = w->wgmma_group, .acc = acc, .a_in_regs = c->a_regs != NULL,
                    .a_desc = c->a_desc, .b_desc = c->b_desc, .at = at};
    for (int t = 0; t < 32 && c->a_regs != NULL; t++) memcpy(g->a_regs[t], ((const WgmmaCall *)lanes[t].in0)->a_regs, 16);
    if (g->a_in_regs) check_fragment(w, g);
    race_wgmma(lanes, g, false);
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
    forget_accumulators(w);
}
void simgpu_wgmma_fence(SimSite at) { sim_collective(SIM_GATHER_WGMMA_FENCE, 0, 0xffffffffu, fence_all, "wgmma.fence", at); }

static void commit_all(SimWarp *w, SimThread *lanes, unsigned mask, int arg, SimSite at)
{
    (void)lanes;
    (void)mask;
    (void)arg;
    (void)at;
    w->wgmma_group++;
}
void simgpu_wgmma_commit(SimSite at) { sim_collective(SIM_GATHER_WGMMA_COMMIT, 0, 0xffffffffu, commit_all, "wgmma.commit_group", at); }

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
    sim_race_warp_waited(lanes);
    if (kept == 0) w->wgmma_fenced = false;
}
void simgpu_wgmma_wait(int n, SimSite at) { sim_collective(SIM_GATHER_WGMMA_WAIT, n, 0xffffffffu, wait_all, "wgmma.wait_group", at); }

void sim_wgmma_exit(SimThread *t)
{
    SimWarp *w = &t->cta->warps[t->warp];
    if (w->n_wgmma > 0)
        sim_fail(SIM_CU_LAUNCH_FAILED, w->wgmma[0].at, "the thread leaves with a wgmma in flight: no wgmma.%s",
                 w->wgmma[0].group == w->wgmma_group ? "commit_group (mj_ptx_wgmma_commit)" : "wait_group (mj_ptx_wgmma_wait)");
    free(w->wgmma); /* every lane comes here; the first frees */
    w->wgmma = NULL;
    w->cap_wgmma = 0;
    forget_accumulators(w);
}

/* What a warpgroup must do together, once all of it has left. */
void sim_warpgroups_end(SimCta *cta)
{
    for (int i = 0; i < cta->n_warps; i++) {
        const int first = i / 4 * 4;
        const SimWarp *w = &cta->warps[i], *f = &cta->warps[first];
        sim_run->current = &cta->threads[32 * i];
        if (w->issued != f->issued) {
            const SimWarp *more = w->issued > f->issued ? w : f;
            sim_fail(SIM_CU_LAUNCH_FAILED, more->trail[(more->issued - 1) % SIM_TRAIL].at, "warp %d issued %u wgmmas and warp %d of the same "
                     "warpgroup %u: all four must issue each", first, f->issued, i, w->issued);
        }
        if (w->registers != f->registers)
            sim_fail(SIM_CU_LAUNCH_FAILED, (SimSite){NULL, 0}, "warp %d ended with setmaxnreg %d and warp %d of the same warpgroup with %d "
                     "(0: never): all four must execute each", first, f->registers, i, w->registers);
    }
    sim_run->current = NULL;
}

/* ---- setmaxnreg --------------------------------------------------------------------------------------------------------- */

/* arg: the count, negative to decrease */
static void setmaxnreg_all(SimWarp *w, SimThread *lanes, unsigned mask, int arg, SimSite at)
{
    (void)mask;
    const SimCta *cta = lanes[0].cta;
    const int launched = 65536 / cta->n_threads / 8 * 8; /* what __launch_bounds__ alone gives the compiler, at most */
    const int had = w->registers != 0 ? w->registers : launched, count = arg < 0 ? -arg : arg;
    int total = 0;
    if (arg < 0 && count > had)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "setmaxnreg.dec %d: the warp has at most %d registers a thread", count, had);
    if (arg > 0 && w->registers > count)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "setmaxnreg.inc %d: the warp has %d registers a thread", count, w->registers);
    w->registers = count;
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
    sim_collective(SIM_GATHER_SETMAXNREG, increase ? registers : -registers, 0xffffffffu, setmaxnreg_all, "setmaxnreg", at);
}
