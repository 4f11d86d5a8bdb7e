/* The memory table: open addressing over cells that are published once. A reader takes no lock and touches two cache lines, a
 * cell's and its slot's: a cell holds a piece of the hash, so that slots of other requests are passed over. A writer holds the
 * JIT's mutex; a table that grew leaves the old array to readers that are in it. */
#define XXH_INLINE_ALL
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "jit/jit_internal.h"
#include "runtime/base/mem.h"

enum { FIRST_CAPACITY = 1024, LINE = 64, BLOCK_BYTES = 64 << 10 };

/* The words of a request that count: up to the last declared parameter. What fills up the last word is 0. */
static inline size_t request_words(const MjRequest *req)
{
    return (offsetof(MjRequest, values) + (size_t)req->tmpl->n_params * sizeof req->values[0] + 7) / 8;
}

static inline bool same_words(const uint64_t *there, const MjRequest *req, size_t words)
{
    uint64_t differs = 0;

    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, (const char *)req + 8 * i, 8);
        differs |= there[i] ^ word;
    }
    return differs == 0;
}

/* The bits of a hash that a cell keeps; the position is taken from others. */
static inline uintptr_t piece_of(uint64_t hash)
{
    return (uintptr_t)(hash >> 58); /* less than LINE, the alignment of slots */
}

static inline TableSlot *slot_of(uintptr_t cell)
{
    return (TableSlot *)(cell & ~(uintptr_t)(LINE - 1));
}

static TableArray *new_array(size_t capacity, TableArray *older)
{
    TableArray *a = mj_xcalloc(1, sizeof *a + capacity * sizeof a->cells[0]);

    a->mask = capacity - 1;
    a->older = older;
    return a;
}

void mj_table_init(RequestTable *t)
{
    atomic_init(&t->array, new_array(FIRST_CAPACITY, NULL));
    t->count = 0;
    t->blocks = NULL;
}

void mj_table_free(RequestTable *t)
{
    for (TableArray *a = atomic_load(&t->array); a;) {
        TableArray *older = a->older;
        free(a);
        a = older;
    }
    while (t->blocks) {
        TableBlock *older = t->blocks->older;
        free(t->blocks);
        t->blocks = older;
    }
}

TableSlot *mj_table_find(RequestTable *t, const MjRequest *req)
{
    const TableArray *a = atomic_load_explicit(&t->array, memory_order_acquire);
    const size_t words = request_words(req);
    const uint64_t hash = XXH3_64bits(req, words * 8);

    for (size_t i = (size_t)hash;; i++) {
        const uintptr_t cell = atomic_load_explicit(&a->cells[i & a->mask], memory_order_acquire);
        if (cell == 0) return NULL;
        if ((cell & (LINE - 1)) == piece_of(hash) && same_words(slot_of(cell)->request, req, words)) return slot_of(cell);
    }
}

static void place(TableArray *a, uint64_t hash, TableSlot *slot)
{
    size_t i = (size_t)hash;

    while (atomic_load_explicit(&a->cells[i & a->mask], memory_order_relaxed)) i++;
    atomic_store_explicit(&a->cells[i & a->mask], (uintptr_t)slot | piece_of(hash), memory_order_release);
}

static void grow(RequestTable *t, TableArray *a)
{
    TableArray *larger = new_array(2 * (a->mask + 1), a);

    for (size_t i = 0; i <= a->mask; i++) {
        const uintptr_t cell = atomic_load_explicit(&a->cells[i], memory_order_relaxed);
        if (cell == 0) continue;
        const MjRequest *req = (const MjRequest *)slot_of(cell)->request; /* its words that count, and only those */
        place(larger, XXH3_64bits(req, request_words(req) * 8), slot_of(cell));
    }
    atomic_store_explicit(&t->array, larger, memory_order_release);
}

static TableSlot *new_slot(RequestTable *t, size_t words)
{
    const size_t bytes = (sizeof(TableSlot) + words * 8 + LINE - 1) / LINE * LINE;

    if (!t->blocks || t->blocks->used + bytes > BLOCK_BYTES) {
        TableBlock *block = aligned_alloc(LINE, BLOCK_BYTES);
        if (!block) mj_mem_abort(BLOCK_BYTES);
        *block = (TableBlock){.older = t->blocks, .used = LINE};
        t->blocks = block;
    }
    TableSlot *slot = (TableSlot *)((char *)t->blocks + t->blocks->used);
    t->blocks->used += bytes;
    memset(slot, 0, bytes);
    return slot;
}

static uintptr_t marked(const MjLaunchRecord *record)
{
    return (uintptr_t)record | record->generic;
}

void mj_table_replace(TableSlot *slot, const MjLaunchRecord *record)
{
    atomic_store_explicit(&slot->record, marked(record), memory_order_release);
}

TableSlot *mj_table_insert(RequestTable *t, const MjRequest *req, const MjLaunchRecord *record)
{
    const size_t words = request_words(req);

    if (2 * (t->count + 1) > atomic_load_explicit(&t->array, memory_order_relaxed)->mask)
        grow(t, atomic_load_explicit(&t->array, memory_order_relaxed));
    TableSlot *slot = new_slot(t, words);
    memcpy(slot->request, req, words * 8);
    atomic_init(&slot->record, marked(record));
    place(atomic_load_explicit(&t->array, memory_order_relaxed), XXH3_64bits(req, words * 8), slot);
    t->count++;
    return slot;
}
