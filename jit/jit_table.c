/* The memory table: open addressing over pointers that are published once. A reader takes no lock; a writer holds the
 * JIT's mutex; a table that grew leaves the old array to readers that are in it. */
#define XXH_INLINE_ALL
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "jit/jit_internal.h"
#include "runtime/base/mem.h"

enum { FIRST_CAPACITY = 1024 };

/* The bytes of a request that count: up to the last declared parameter. */
static inline size_t request_bytes(const MjRequest *req)
{
    return offsetof(MjRequest, values) + (size_t)req->tmpl->n_params * sizeof req->values[0];
}

static TableArray *new_array(size_t capacity, TableArray *older)
{
    TableArray *a = mj_xcalloc(1, sizeof *a + capacity * sizeof a->slots[0]);

    a->mask = capacity - 1;
    a->older = older;
    return a;
}

void mj_table_init(RequestTable *t)
{
    atomic_init(&t->array, new_array(FIRST_CAPACITY, NULL));
    t->count = 0;
}

void mj_table_free(RequestTable *t)
{
    TableArray *a = atomic_load(&t->array);

    for (size_t i = 0; i <= a->mask; i++) free(atomic_load(&a->slots[i]));
    while (a) {
        TableArray *older = a->older;
        free(a);
        a = older;
    }
}

TableSlot *mj_table_find(RequestTable *t, const MjRequest *req)
{
    const TableArray *a = atomic_load_explicit(&t->array, memory_order_acquire);
    size_t bytes = request_bytes(req);

    for (size_t i = (size_t)XXH3_64bits(req, bytes);; i++) {
        TableSlot *slot = atomic_load_explicit(&a->slots[i & a->mask], memory_order_acquire);
        if (!slot || memcmp(&slot->request, req, bytes) == 0) return slot;
    }
}

static void place(TableArray *a, TableSlot *slot)
{
    size_t i = (size_t)XXH3_64bits(&slot->request, request_bytes(&slot->request));

    while (atomic_load_explicit(&a->slots[i & a->mask], memory_order_relaxed)) i++;
    atomic_store_explicit(&a->slots[i & a->mask], slot, memory_order_release);
}

TableSlot *mj_table_insert(RequestTable *t, const MjRequest *req, const MjLaunchRecord *record)
{
    TableArray *a = atomic_load_explicit(&t->array, memory_order_relaxed);
    TableSlot *slot = mj_xcalloc(1, sizeof *slot);

    if (2 * (t->count + 1) > a->mask) {
        TableArray *larger = new_array(2 * (a->mask + 1), a);
        for (size_t i = 0; i <= a->mask; i++) {
            TableSlot *old = atomic_load_explicit(&a->slots[i], memory_order_relaxed);
            if (old) place(larger, old);
        }
        atomic_store_explicit(&t->array, larger, memory_order_release);
        a = larger;
    }
    memcpy(&slot->request, req, request_bytes(req));
    atomic_init(&slot->record, record);
    place(a, slot);
    t->count++;
    return slot;
}
