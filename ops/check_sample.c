/* Cases of a size for a GPU: which units of an output are checked, random inputs made quickly, and host memory that takes
 * little. Owns no reference. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

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
        many(c, type, c->host[b], c->period[b] > 0 ? (int64_t)(c->period[b] / mj_op_type_bytes(type)) : c->n[b], size);
        return;
    }
    for (int64_t i = 0; i < c->n[b]; i++) one(c, type, c->host[b], i, size);
}

void mj_case_fill_normal(MjCase *c, const char *name, double size) { mj_case_fill_random(c, mj_case_buffer(c, name), size); }

/* ---- host memory --------------------------------------------------------------------------------------------------- */

#define PERIOD ((size_t)4093 * 4096) /* a prime number of pages, so that it is no multiple of a tile of rows */

/* NULL: not to be had. The first `bytes` of the file, over and over. */
static void *map_periods(size_t bytes, size_t period)
{
    const int fd = memfd_create("mojit-case", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)period) != 0) {
        if (fd >= 0) (void)close(fd);
        return NULL;
    }
    char *base = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    bool fine = base != MAP_FAILED;
    for (size_t at = 0; fine && at < bytes; at += period) {
        const size_t part = bytes - at < period ? bytes - at : period;
        fine = mmap(base + at, part, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
    }
    (void)close(fd);
    if (!fine && base != MAP_FAILED) (void)munmap(base, bytes);
    return fine ? base : NULL;
}

static size_t host_bytes(const MjCase *c, int b)
{
    return (size_t)c->n[b] * mj_op_type_bytes(mj_op_buffer_type(&c->row->buffers[b], c->args.bytes));
}

void mj_case_host_alloc(MjCase *c, int b)
{
    const size_t bytes = host_bytes(c, b), least = c->ops->family == MJ_FAMILY_CPU ? 8 * PERIOD : 2 * PERIOD;
    const MjOpType type = mj_op_buffer_type(&c->row->buffers[b], c->args.bytes);
    c->period[b] = 0;
    if (bytes > least && type != MJ_BUF_I32) { /* integers are maps: every one counts */
        c->host[b] = map_periods(bytes, PERIOD);
        if (c->host[b] != NULL) c->period[b] = PERIOD;
        if (c->host[b] != NULL) return;
    }
    c->host[b] = mj_xmalloc(bytes + 64);
}

void mj_case_host_free(MjCase *c, int b)
{
    if (c->period[b] > 0) (void)munmap(c->host[b], host_bytes(c, b));
    else free(c->host[b]);
    c->period[b] = 0;
    c->host[b] = NULL;
}

static int by_index(const void *a, const void *b)
{
    const int64_t x = ((const MjWant *)a)->i, y = ((const MjWant *)b)->i;
    return x < y ? -1 : x > y;
}

void mj_case_sort_wants(MjCase *c, int b) { qsort(c->wants[b], (size_t)c->n_wants[b], sizeof *c->wants[b], by_index); }
