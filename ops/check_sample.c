/* Cases of a size for a GPU: which units of an output are checked, and random inputs made quickly. Owns no reference. */
#include <stdlib.h>

#include "ops/refs.h"
#include "runtime/base/mem.h"

#define UNITS 24 /* of an output that are checked: rows, or blocks of 128 rows */
#define LARGE_ELEMENTS ((int64_t)8 << 20)
#define LARGE_FLOPS 4e9

void mj_case_sample(MjCase *c) { c->sampled = true; }
bool mj_case_sampled(const MjCase *c) { return c->sampled; }

bool mj_case_is_large(const MjCase *c)
{
    int64_t elements = 0;
    for (int b = 0; b < mj_op_buffer_count(c->row); b++)
        if (c->host[b] != NULL) elements += c->n[b];
    const int more = c->ops->family == MJ_FAMILY_CPU ? 32 : 1; /* a CPU's own launches take that long too */
    return elements > more * LARGE_ELEMENTS || mj_case_flops(c) > more * LARGE_FLOPS;
}

static uint64_t mix(uint64_t z) /* splitmix64's finaliser */
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

bool mj_case_takes(const MjCase *c, int64_t unit, int64_t units)
{
    if (!c->sampled || units <= UNITS || unit == 0 || unit == units - 1) return true;
    /* One in every stretch of units / UNITS, at a place in it that the seed decides. */
    const int64_t stretch = units / UNITS, at = unit / stretch;
    return unit % stretch == (int64_t)(mix(c->seed * 0x9e3779b97f4a7c15ull + (uint64_t)at) % (uint64_t)stretch);
}

int64_t mj_case_next(const MjCase *c, int64_t i, int64_t n, int64_t block)
{
    const int64_t units = (n + block - 1) / block;
    if (++i >= n || !c->sampled || i % block != 0) return i;
    int64_t unit = i / block;
    while (!mj_case_takes(c, unit, units)) unit++; /* the last one is */
    return unit * block;
}

void mj_case_want_sample(MjCase *c, int b, int64_t i, double value, double tolerance)
{
    if (c->wants[b] == NULL) return;
    if (c->n_wants[b] == c->cap_wants[b]) {
        c->cap_wants[b] *= 2;
        c->wants[b] = mj_xrealloc(c->wants[b], (size_t)c->cap_wants[b] * sizeof *c->wants[b]);
    }
    c->wants[b][c->n_wants[b]++] = (MjWant){i, value, tolerance};
}

static void one(MjCase *c, MjOpType type, void *base, int64_t i, double size)
{
    if (type == MJ_BUF_I32) {
        ((int32_t *)base)[i] = 0;
    } else if (type == MJ_BUF_E4M3 || type == MJ_BUF_E5M2) {
        const uint32_t limit = type == MJ_BUF_E4M3 ? 0x7f : 0x7c; /* no NaN, no infinity */
        uint8_t *byte = (uint8_t *)base + i;
        do *byte = (uint8_t)mj_case_random(c, 256);
        while ((*byte & 0x7fu) >= limit);
    } else {
        mj_ref_encode(type, base, i, size * mj_case_normal(c));
    }
}

/* From a table of 2^16 such elements: what a shape for a GPU needs in a second, not in a minute. */
static void many(MjCase *c, MjOpType type, void *base, int64_t n, double size)
{
    enum { ENTRIES = 1 << 16 };
    const size_t bytes = mj_op_type_bytes(type);
    unsigned char *table = mj_xmalloc(ENTRIES * bytes);
    for (int64_t i = 0; i < ENTRIES; i++) one(c, type, table, i, size);
    uint64_t state = (uint64_t)mj_case_random(c, 1u << 31) + 1, bits = 0;
    for (int64_t i = 0; i < n; i++) {
        bits = (i & 3) == 0 ? mix(state += 0x9e3779b97f4a7c15ull) : bits >> 16;
        const uint64_t k = bits & (ENTRIES - 1);
        if (bytes == 1) ((uint8_t *)base)[i] = table[k];
        else if (bytes == 2) ((uint16_t *)base)[i] = ((const uint16_t *)(const void *)table)[k];
        else if (bytes == 4) ((uint32_t *)base)[i] = ((const uint32_t *)(const void *)table)[k];
        else ((uint64_t *)base)[i] = ((const uint64_t *)(const void *)table)[k];
    }
    free(table);
}

void mj_case_fill_random(MjCase *c, int b, double size)
{
    const MjOpType type = mj_op_buffer_type(&c->row->buffers[b], c->args.bytes);
    if (c->host[b] == NULL) return;
    if (c->n[b] > MJ_CASE_MANY) {
        many(c, type, c->host[b], c->n[b], size);
        return;
    }
    for (int64_t i = 0; i < c->n[b]; i++) one(c, type, c->host[b], i, size);
}

void mj_case_fill_normal(MjCase *c, const char *name, double size) { mj_case_fill_random(c, mj_case_buffer(c, name), size); }
