/* Memory pools of the simulated driver ("Stream Ordered Memory Allocator", CUDA Driver API). Owns what a pool holds: chunks
 * of memory, cut into blocks. As unkind as the text allows:
 *   memory comes in chunks as large as the allocation that needed one, and a chunk goes back when nothing lies on it, so a pool
 *   that is not trimmed before a larger allocation runs out of memory sooner;
 *   a block that was freed serves its own stream at once, others and cuMemPoolTrimTo when the host has waited for that stream;
 *   a pool over its threshold gives chunks back at each wait for a stream; one that is not destroyed keeps its memory when the context goes.
 * Stricter than CUDA where mojit has no use for more: a pool is destroyed after its last allocation; its memory is freed by
 * cuMemFreeAsync on a stream of its device, other memory by cuMemFree; nothing is allocated in a capture.
 *
 *   MOJIT_SIMGPU_POOLS=0   the devices have none, as CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED says then */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sim_pool.h"

#define GRANULE 512u

struct SimBlock { /* of a chunk, in their order; neighbours of one chunk stand together */
    size_t bytes, chunk_bytes;
    unsigned chunk;
    bool busy, observed; /* observed: the host has waited for the free */
    MjCuStream freed_on;
    struct SimBlock *next;
};
typedef struct SimBlock Block;

struct MjCuMemPool_ {
    int device;
    bool destroyed;
    uint64_t threshold, reserved, used;
    Block *blocks;
    unsigned chunks; /* ever made */
    struct MjCuMemPool_ *next;
};

static struct MjCuMemPool_ *pools; /* destroyed ones too: a stale handle is told */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

bool sim_pools(void)
{
    const char *v = getenv("MOJIT_SIMGPU_POOLS");
    return v == NULL || strcmp(v, "0") != 0;
}

static bool is_pool(MjCuMemPool pool)
{
    for (const struct MjCuMemPool_ *p = pools; p != NULL; p = p->next)
        if (p == pool) return !p->destroyed;
    return false;
}

/* What every function answers before it looks at the rest: 0, the sticky error, or that this handle is no pool. */
static int checked(MjCuMemPool pool)
{
    const int live = sim_live();
    return live != 0 ? live : !sim_pools() ? MJ_CU_NOT_SUPPORTED : is_pool(pool) ? 0 : MJ_CU_INVALID_VALUE;
}

/* Chunks that nothing lies on go back, as far as `keep` bytes stay. */
static void shrink(struct MjCuMemPool_ *p, uint64_t keep)
{
    for (Block **at = &p->blocks; *at != NULL;) {
        Block *b = *at;
        if (b->busy || !b->observed || b->bytes != b->chunk_bytes || p->reserved - b->bytes < keep) {
            at = &b->next;
            continue;
        }
        p->reserved -= b->bytes;
        (void)sim_memory_count(p->device, -(int64_t)b->bytes);
        *at = b->next;
        free(b);
    }
}

/* Free neighbours become one, if the same streams may have them. */
static void merge(struct MjCuMemPool_ *p)
{
    for (Block *b = p->blocks; b != NULL;) {
        Block *n = b->next;
        if (n == NULL || n->chunk != b->chunk || b->busy || n->busy || b->observed != n->observed ||
            (!b->observed && b->freed_on != n->freed_on)) {
            b = n;
            continue;
        }
        b->bytes += n->bytes;
        b->next = n->next;
        free(n);
    }
}

void sim_pool_observed(MjCuStream s)
{
    pthread_mutex_lock(&mutex);
    for (struct MjCuMemPool_ *p = pools; p != NULL; p = p->next) {
        for (Block *b = p->blocks; b != NULL; b = b->next)
            if (!b->busy && b->freed_on == s) b->observed = true;
        merge(p);
        shrink(p, p->threshold);
    }
    pthread_mutex_unlock(&mutex);
}

int sim_MemPoolCreate(MjCuMemPool *pool, const MjCuMemPoolProps *props)
{
    const int live = sim_live();
    if (live != 0) return live;
    if (!sim_pools()) return MJ_CU_NOT_SUPPORTED;
    if (pool == NULL || props == NULL) return 1;
    if (props->type != MJ_CU_MEM_PINNED || props->location.type != MJ_CU_MEM_ON_DEVICE) return 1;
    if (props->location.id < 0 || props->location.id >= sim_device_count()) return 1;
    if (props->handle_types != 0 || props->security != NULL || props->max_bytes != 0) return 801; /* not simulated */
    for (size_t i = 0; i < sizeof props->reserved; i++)
        if (props->reserved[i] != 0) return 1;
    struct MjCuMemPool_ *p = calloc(1, sizeof *p);
    p->device = props->location.id;
    pthread_mutex_lock(&mutex);
    p->next = pools;
    pools = p;
    pthread_mutex_unlock(&mutex);
    *pool = p;
    return 0;
}

int sim_MemPoolDestroy(MjCuMemPool pool)
{
    const int rc = checked(pool);
    if (rc != 0) return rc;
    if (pool->used != 0) return 1; /* CUDA would wait for the last free, which may never come */
    pthread_mutex_lock(&mutex);
    for (Block *b = pool->blocks; b != NULL; b = b->next) b->observed = true;
    merge(pool);
    shrink(pool, 0);
    pool->destroyed = true;
    pthread_mutex_unlock(&mutex);
    return 0;
}

int sim_MemPoolTrimTo(MjCuMemPool pool, size_t keep_bytes)
{
    const int rc = checked(pool);
    if (rc == 0) shrink(pool, keep_bytes);
    return rc;
}

int sim_MemPoolSetAttribute(MjCuMemPool pool, int attribute, void *value)
{
    const int rc = checked(pool);
    if (rc != 0) return rc;
    if (value == NULL) return 1;
    if (attribute != MJ_CU_POOL_RELEASE_THRESHOLD) return 1; /* the others are read only, or not simulated */
    memcpy(&pool->threshold, value, sizeof pool->threshold);
    return 0;
}

int sim_MemPoolGetAttribute(MjCuMemPool pool, int attribute, void *value)
{
    const int rc = checked(pool);
    if (rc != 0) return rc;
    if (value == NULL) return 1;
    const uint64_t *from = attribute == MJ_CU_POOL_RELEASE_THRESHOLD ? &pool->threshold
                           : attribute == MJ_CU_POOL_RESERVED        ? &pool->reserved
                           : attribute == MJ_CU_POOL_USED            ? &pool->used : NULL;
    if (from == NULL) return 1;
    memcpy(value, from, sizeof *from);
    return 0;
}

/* The smallest free block that may be had, or a new chunk; NULL if there is no memory for one. */
static Block *take_block(struct MjCuMemPool_ *p, size_t bytes, MjCuStream s)
{
    Block *best = NULL;
    for (Block *b = p->blocks; b != NULL; b = b->next) {
        if (b->busy || b->bytes < bytes || (!b->observed && b->freed_on != s)) continue;
        if (best == NULL || b->bytes < best->bytes) best = b;
    }
    if (best == NULL) {
        if (!sim_memory_count(p->device, (int64_t)bytes)) return NULL;
        best = malloc(sizeof *best);
        *best = (Block){.bytes = bytes, .chunk_bytes = bytes, .chunk = p->chunks++, .next = p->blocks};
        p->blocks = best;
        p->reserved += bytes;
    }
    if (best->bytes > bytes) {
        Block *rest = malloc(sizeof *rest);
        *rest = *best;
        rest->bytes -= bytes;
        best->bytes = bytes;
        best->next = rest;
    }
    best->busy = true;
    p->used += bytes;
    return best;
}

int sim_MemAllocFromPoolAsync(MjCuPtr *ptr, size_t bytes, MjCuMemPool pool, MjCuStream stream)
{
    const int rc = checked(pool);
    if (rc != 0) return rc;
    if (ptr == NULL || bytes == 0 || stream == NULL) return 1;
    if (sim_stream_device(stream) != pool->device) return 1;
    if (sim_stream_captures(stream)) return 900; /* the graph would own the memory: not simulated */
    sim_stream_note(stream);
    pthread_mutex_lock(&mutex);
    Block *b = take_block(pool, (bytes + GRANULE - 1) / GRANULE * GRANULE, stream);
    SimAllocation *a = b != NULL ? sim_memory_place(pool->device, bytes) : NULL;
    if (a != NULL) {
        a->pool = pool;
        a->block = b;
        *ptr = (MjCuPtr)(uintptr_t)a->start;
    } else if (b != NULL) {
        b->busy = false;
        pool->used -= b->bytes;
    }
    pthread_mutex_unlock(&mutex);
    return a != NULL ? 0 : MJ_CU_OUT_OF_MEMORY;
}

int sim_MemFreeAsync(MjCuPtr ptr, MjCuStream stream)
{
    int device = -1;
    const int live = sim_live();
    if (live != 0) return live;
    if (!sim_pools()) return MJ_CU_NOT_SUPPORTED;
    if (stream == NULL) return 1;
    SimAllocation *a = sim_memory_at(ptr, &device);
    if (a == NULL) return 1; /* nothing starts there, or it was freed */
    if (a->pool == NULL) return 1;
    if (sim_stream_device(stream) != device) return 1;
    if (sim_stream_captures(stream)) return 1; /* no node of the graph made it */
    sim_stream_note(stream);
    pthread_mutex_lock(&mutex);
    Block *b = a->block;
    a->pool->used -= b->bytes;
    b->busy = b->observed = false;
    b->freed_on = stream;
    merge(a->pool);
    sim_memory_remove(a);
    pthread_mutex_unlock(&mutex);
    return 0;
}
