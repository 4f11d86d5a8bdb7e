/* Asynchronous copies: cp.async, mbarriers, bulk and tensor (TMA) loads and stores. Owns when they happen (as late as they
 * may) and what is checked of them.
 *
 * Sources, PTX ISA 9.1: 9.7.9.25 "Asynchronous copy" (cp.async, cp.async.bulk), 9.7.9.27.1 "Tensor copy", 9.7.13.15 "mbarrier"
 * (phases, expect-tx and complete-tx operations), 5.5 "Tensors" (boxes, swizzling modes), 9.7.13.4 "membar/fence". */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const SimSite nowhere = {NULL, 0};

/* ---- cp.async ------------------------------------------------------------------------------------------------ */

void simgpu_cp_async(unsigned dst, const void *src, unsigned size, unsigned bytes, SimSite at)
{
    SimThread *t = sim_run->current;
    char why[256];
    if (dst % size != 0 || (uintptr_t)src % size != 0)
        sim_fail(SIM_CU_MISALIGNED, at, "cp.async of %u bytes from %p to shared 0x%x: both must be aligned to the size", size, src, dst);
    if (bytes > size) sim_fail(SIM_CU_LAUNCH_FAILED, at, "cp.async: %u source bytes, more than the copy's %u", bytes, size);
    (void)sim_shared(t->cta, dst, size, "cp.async", at);
    sim_shared_claim(t->cta, dst, size, "cp.async", at);
    sim_grid_order("cp.async", at);
    if (bytes > 0 && (!sim_is_device_memory(src) || sim_check_global(src, bytes, why, sizeof why) != 0))
        sim_fail(SIM_CU_ILLEGAL_ADDRESS, at, "cp.async reads %u bytes at %p: %s", bytes, src,
                 sim_is_device_memory(src) ? why : "not global memory");
    if (bytes > 0 && !sim_global_written(src, bytes))
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "cp.async reads %u bytes at %p, which nobody wrote since they were allocated", bytes, src);
    sim_race_global(src, bytes, false, "cp.async", at, NULL);
    if (t->n_cp == t->cap_cp) {
        t->cap_cp = t->cap_cp == 0 ? 16 : t->cap_cp * 2;
        t->cp = realloc(t->cp, (size_t)t->cap_cp * sizeof *t->cp);
    }
    SimCpAsync *c = &t->cp[t->n_cp++];
    *c = (SimCpAsync){.dst = dst, .size = size, .bytes = bytes, .group = t->cp_group};
    if (bytes > 0) memcpy(c->data, src, bytes);
    sim_race_issue(t->cta, dst, size, true, "cp.async", at);
    sim_shared_mark(t->cta, dst, size, SIM_IN_FLIGHT);
}

void simgpu_cp_async_commit(void) { sim_run->current->cp_group++; }

void simgpu_cp_async_wait(int n)
{
    SimThread *t = sim_run->current;
    int kept = 0;
    for (int i = 0; i < t->n_cp; i++) {
        SimCpAsync *c = &t->cp[i];
        if (c->group >= t->cp_group - n) { /* the newest n groups, and what was not committed, stay in flight */
            t->cp[kept++] = *c;
            continue;
        }
        memcpy(sim_shared(t->cta, c->dst, c->size, "cp.async", nowhere), c->data, c->size);
        sim_shared_mark(t->cta, c->dst, c->size, SIM_WRITTEN);
        sim_race_waited(t, t->cta, c->dst, c->size, true);
    }
    t->n_cp = kept;
}

/* ---- mbarriers -------------------------------------------------------------------------------------------------- */

SimMbar *sim_mbar(SimCta *cta, unsigned address, const char *what, SimSite at)
{
    if (address % 8 != 0) sim_fail(SIM_CU_MISALIGNED, at, "%s: the mbarrier at shared 0x%x is not 8-byte aligned", what, address);
    for (int i = 0; i < cta->n_mbars; i++)
        if (cta->mbars[i].address == address && cta->mbars[i].valid) return &cta->mbars[i];
    sim_fail(SIM_CU_LAUNCH_FAILED, at, "%s: there is no initialised mbarrier at shared 0x%x of block %u (mbarrier.init missing, or no "
             "barrier between it and this)", what, address, cta->block);
}

void simgpu_mbar_init(unsigned bar, unsigned count, SimSite at)
{
    SimCta *cta = sim_run->current->cta;
    if (bar % 8 != 0) sim_fail(SIM_CU_MISALIGNED, at, "mbarrier.init: shared 0x%x is not 8-byte aligned", bar);
    if (count == 0 || count >= 1u << 20) sim_fail(SIM_CU_LAUNCH_FAILED, at, "mbarrier.init: a count of %u; must be 1 to 2^20 - 1", count);
    (void)sim_shared(cta, bar, 8, "mbarrier.init", at);
    for (int i = 0; i < cta->n_mbars; i++)
        if (cta->mbars[i].address == bar && cta->mbars[i].valid)
            sim_fail(SIM_CU_LAUNCH_FAILED, at, "mbarrier.init: shared 0x%x already holds an mbarrier (mbarrier.inval first)", bar);
    if (cta->n_mbars == SIM_MBARS) sim_fail(SIM_CU_LAUNCH_FAILED, at, "more than %d mbarriers in a block are not simulated", SIM_MBARS);
    sim_shared_claim(cta, bar, 8, "mbarrier.init", at);
    cta->mbars[cta->n_mbars] = (SimMbar){.address = bar, .count = count, .pending = count, .valid = true, .observed = true};
    SimMbar *m = &cta->mbars[cta->n_mbars++];
    bool taken[SIM_MBARS] = {false};
    for (int i = 0; i + 1 < cta->n_mbars; i++) taken[cta->mbars[i].slot] = true;
    while (taken[m->slot]) m->slot++;
    sim_race_mbar_init(cta, m);
    sim_race_access(cta, bar, 8, true, "mbarrier.init", at, NULL);
    sim_shared_mark(cta, bar, 8, SIM_BARRIER);
}

void simgpu_mbar_inval(unsigned bar, SimSite at)
{
    SimCta *cta = sim_run->current->cta;
    SimMbar *m = sim_mbar(cta, bar, "mbarrier.inval", at);
    for (int i = 0; i < sim_run->n_async; i++)
        if (sim_run->async[i].bar == bar && (sim_run->async[i].mask >> cta->rank & 1u) != 0)
            sim_fail(SIM_CU_LAUNCH_FAILED, at, "mbarrier.inval: a load that will signal the mbarrier at shared 0x%x is still in flight", bar);
    sim_race_access(cta, bar, 8, true, "mbarrier.inval", at, NULL);
    *m = cta->mbars[--cta->n_mbars];
    sim_shared_mark(cta, bar, 8, SIM_UNINIT);
}

static void finish_phase(SimCta *cta, SimMbar *m)
{
    if (m->pending != 0 || m->tx != 0) return;
    m->phase++;
    m->pending = m->count;
    m->observed = false;
    sim_race_mbar_complete(cta, m);
    sim_run->clock++;
    for (int i = 0; i < cta->n_threads; i++) {
        SimThread *t = &cta->threads[i];
        if (t->wait == SIM_WAIT_MBAR && t->wait_id == m->address && (m->phase & 1u) != t->wait_parity) {
            m->observed = true;
            sim_wake(t);
        }
    }
}

void simgpu_mbar_arrive(unsigned bar, int rank, unsigned expect, int arrivals, SimSite at)
{
    SimRun *r = sim_run;
    if (rank >= (int)r->launch->cluster)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "mbarrier.arrive in block %d of a cluster of %u", rank, r->launch->cluster);
    SimCta *cta = rank < 0 ? r->current->cta : &r->ctas[rank];
    if (cta->live == 0) sim_fail(SIM_CU_LAUNCH_FAILED, at, "mbarrier.arrive in block %u, all of whose threads have left: end with a "
                                 "cluster barrier", cta->block);
    SimMbar *m = sim_mbar(cta, bar, "mbarrier.arrive", at);
    sim_race_mbar_use(cta, bar, "mbarrier.arrive", at);
    m->tx += expect;
    if (m->tx >= 1 << 20)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "the mbarrier at shared 0x%x expects %lld bytes; 2^20 - 1 is the most", bar, (long long)m->tx);
    if (arrivals > 0) {
        if (!m->observed)
            sim_fail(SIM_CU_LAUNCH_FAILED, at, "an arrival in phase %u of the mbarrier at shared 0x%x, while nobody has waited for phase %u: "
                     "a wait must have seen each phase before the next one's first arrival", m->phase, bar, m->phase - 1);
        if (m->pending < (unsigned)arrivals)
            sim_fail(SIM_CU_LAUNCH_FAILED, at, "the mbarrier at shared 0x%x gets more than its %u arrivals in phase %u", bar, m->count,
                     m->phase);
        m->pending -= (unsigned)arrivals;
        sim_race_mbar_arrive(r->current, cta, m);
        m->grid_waited |= r->current->grid_waited;
    }
    finish_phase(cta, m);
}

/* "mbarrier.test_wait / try_wait": .parity waits for the phase of that parity, the current one or the one just before. */
int simgpu_mbar_try_wait(unsigned bar, unsigned parity, SimSite at)
{
    SimThread *t = sim_run->current;
    SimMbar *m = sim_mbar(t->cta, bar, "mbarrier.try_wait", at);
    sim_race_mbar_use(t->cta, bar, "mbarrier.try_wait", at);
    if (parity > 1) sim_fail(SIM_CU_LAUNCH_FAILED, at, "mbarrier.try_wait.parity: %u; must be 0 or 1", parity);
    if ((m->phase & 1u) != parity) { /* the phase that runs has the other parity: this one is complete */
        m->observed = true;
        sim_race_mbar_wait(t, m);
        t->grid_waited |= m->grid_waited;
        return 1;
    }
    t->wait_id = bar;
    t->wait_parity = parity;
    sim_wait(SIM_WAIT_MBAR, at); /* comes back only when the phase completed; else the deadlock report names it */
    m = sim_mbar(t->cta, bar, "mbarrier.try_wait", at);
    sim_race_mbar_wait(t, m);
    t->grid_waited |= m->grid_waited;
    return 1;
}

void simgpu_mbar_wait(unsigned bar, unsigned parity, SimSite at) { (void)simgpu_mbar_try_wait(bar, parity, at); }

void simgpu_fence_async(void)
{
    SimRun *r = sim_run;
    r->current->fence_stamp = ++r->clock;
}

/* ---- tensor maps --------------------------------------------------------------------------------------------------- */

static const SimTensorMap *check_map(const void *map, int rank, unsigned shared, const char *what, SimSite at)
{
    const SimTensorMap *m = map;
    if ((uintptr_t)map % 64 != 0) sim_fail(SIM_CU_MISALIGNED, at, "%s: the tensor map at %p is not 64-byte aligned", what, map);
    if (m->magic != SIM_MAP_MAGIC)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "%s: %p holds no tensor map (made by cuTensorMapEncodeTiled)", what, map);
    if (m->rank != rank) sim_fail(SIM_CU_LAUNCH_FAILED, at, "%s: %d coordinates for a tensor map of rank %d", what, rank, m->rank);
    if (shared % 128 != 0)
        sim_fail(SIM_CU_MISALIGNED, at, "%s: shared address 0x%x is not 128-byte aligned", what, shared);
    return m;
}

void simgpu_tma_prefetch(const void *map, int rank, SimSite at) { (void)check_map(map, rank, 0, "TMA prefetch", at); }

static unsigned box_bytes(const SimTensorMap *m)
{
    unsigned n = m->elem;
    for (int i = 0; i < m->rank; i++) n *= m->box[i];
    return n;
}

/* "Swizzling modes": 16-byte chunks are exchanged by the address bits above the 128 bytes. */
static unsigned swizzle(unsigned address, int mode)
{
    static const unsigned mask[4] = {0, 0x10, 0x30, 0x70};
    return address ^ ((address >> 3) & mask[mode]);
}

/* Calls back for every run of the innermost box row: where it lies in shared memory before swizzling, in global memory, and
 * how many of its elements are inside the tensor (from `skip` on). */
typedef struct BoxRow {
    unsigned offset; /* of the row in the unswizzled box */
    char *global;    /* address of the row's coordinate 0 of the box, may lie outside */
    int first, last; /* elements of the row inside the tensor */
} BoxRow;

static bool next_row(const SimTensorMap *m, const int *coords, unsigned index, BoxRow *row)
{
    unsigned rest = index, rows = 1;
    int64_t at = (int64_t)coords[0] * m->elem;
    bool inside = true;
    for (int d = 1; d < m->rank; d++) rows *= m->box[d];
    if (index >= rows) return false;
    for (int d = 1; d < m->rank; d++) {
        const int64_t c = coords[d] + (int64_t)(rest % m->box[d]);
        rest /= m->box[d];
        if (c < 0 || c >= (int64_t)m->dims[d]) inside = false;
        at += c * (int64_t)m->strides[d - 1];
    }
    row->offset = index * m->box[0] * m->elem;
    row->global = (char *)(uintptr_t)(m->address + (uint64_t)at);
    row->first = coords[0] < 0 ? -coords[0] : 0;
    const int64_t left = (int64_t)m->dims[0] - coords[0];
    row->last = !inside ? 0 : left < m->box[0] ? (int)left : m->box[0];
    return true;
}

static void check_row(const SimTensorMap *m, const BoxRow *row, bool store, const char *what, SimSite at)
{
    char why[256];
    const char *p = row->global + row->first * m->elem;
    if (row->last <= row->first) return;
    const size_t bytes = (size_t)(row->last - row->first) * m->elem;
    if (sim_check_global(p, bytes, why, sizeof why) != 0)
        sim_fail(SIM_CU_ILLEGAL_ADDRESS, at, "%s: the tensor map leads out of bounds at %p: %s", what, (const void *)p, why);
    sim_race_global(p, bytes, store, what, at, NULL);
}

static void load_tensor(const SimAsync *a, SimCta *cta)
{
    const SimTensorMap *m = (const SimTensorMap *)a->map;
    BoxRow row;
    for (unsigned i = 0; next_row(m, a->coords, i, &row); i++) {
        for (int e = 0; e < m->box[0]; e++) {
            char *to = sim_shared(cta, swizzle(a->dst + row.offset + (unsigned)e * m->elem, m->swizzle), m->elem, "TMA load", a->at);
            if (e >= row.first && e < row.last)
                memcpy(to, row.global + e * m->elem, m->elem);
            else
                memset(to, 0, m->elem);
        }
    }
}

static SimAsync *new_async(void)
{
    SimRun *r = sim_run;
    if (r->n_async == r->cap_async) {
        r->cap_async = r->cap_async == 0 ? 64 : r->cap_async * 2;
        r->async = realloc(r->async, (size_t)r->cap_async * sizeof *r->async);
    }
    SimAsync *a = &r->async[r->n_async++];
    memset(a, 0, sizeof *a);
    a->cta = r->current->cta;
    return a;
}

/* Marks the bytes as in flight in every block that gets them; whatever touches them before the mbarrier is caught. */
static void start_load(SimAsync *a, const char *what)
{
    SimRun *r = sim_run;
    for (unsigned c = 0; c < r->launch->cluster; c++) {
        SimCta *cta = &r->ctas[c];
        if ((a->mask >> c & 1u) == 0) continue;
        if (cta->live == 0) sim_fail(SIM_CU_LAUNCH_FAILED, a->at, "%s into block %u, all of whose threads have left", what, cta->block);
        (void)sim_shared(cta, a->dst, a->bytes, what, a->at);
        sim_shared_claim(cta, a->dst, a->bytes, what, a->at);
        (void)sim_mbar(cta, a->bar, what, a->at);
        sim_race_mbar_use(cta, a->bar, what, a->at);
        sim_race_issue(cta, a->dst, a->bytes, true, what, a->at);
        sim_shared_mark(cta, a->dst, a->bytes, SIM_IN_FLIGHT);
    }
}

void simgpu_tma_load(unsigned dst, const void *map, unsigned bar, unsigned mask, int rank, const int *coords, SimSite at)
{
    SimRun *r = sim_run;
    const SimTensorMap *m = check_map(map, rank, dst, "TMA load", at);
    BoxRow row;
    sim_grid_order("TMA load", at);
    if (mask >> r->launch->cluster != 0)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "TMA multicast mask 0x%x in a cluster of %u", mask, r->launch->cluster);
    for (unsigned i = 0; next_row(m, coords, i, &row); i++) check_row(m, &row, false, "TMA load", at);
    SimAsync *a = new_async();
    memcpy(a->map, map, sizeof a->map);
    memcpy(a->coords, coords, (size_t)rank * sizeof *coords);
    a->dst = dst;
    a->bar = bar;
    a->rank = rank;
    a->mask = mask != 0 ? mask : 1u << a->cta->rank;
    a->bytes = box_bytes(m);
    a->at = at;
    start_load(a, "TMA load");
}

void simgpu_bulk_load(unsigned dst, const void *src, unsigned bytes, unsigned bar, SimSite at)
{
    char why[256];
    if (bytes == 0 || bytes % 16 != 0 || dst % 16 != 0 || (uintptr_t)src % 16 != 0)
        sim_fail(SIM_CU_MISALIGNED, at, "cp.async.bulk of %u bytes from %p to shared 0x%x: size and addresses must be multiples of 16",
                 bytes, src, dst);
    if (!sim_is_device_memory(src)) sim_fail(SIM_CU_ILLEGAL_ADDRESS, at, "cp.async.bulk reads %p, not global memory", src);
    sim_grid_order("cp.async.bulk", at);
    if (sim_check_global(src, bytes, why, sizeof why) != 0)
        sim_fail(SIM_CU_ILLEGAL_ADDRESS, at, "cp.async.bulk reads %u bytes at %p: %s", bytes, src, why);
    sim_race_global(src, bytes, false, "cp.async.bulk", at, NULL);
    SimAsync *a = new_async();
    a->src = src;
    a->dst = dst;
    a->bar = bar;
    a->mask = 1u << a->cta->rank;
    a->bytes = bytes;
    a->at = at;
    start_load(a, "cp.async.bulk");
}

/* Completes the oldest load; false when there is none. Runs on the scheduler's stack, so it reports by hand. */
bool sim_async_step(void)
{
    SimRun *r = sim_run;
    if (r->n_async == 0) return false;
    const SimAsync a = r->async[0];
    memmove(r->async, r->async + 1, (size_t)--r->n_async * sizeof *r->async);
    for (unsigned c = 0; c < r->launch->cluster; c++) {
        if ((a.mask >> c & 1u) == 0) continue;
        SimCta *cta = &r->ctas[c];
        if (a.src != NULL)
            memcpy(sim_shared(cta, a.dst, a.bytes, "cp.async.bulk", a.at), a.src, a.bytes);
        else
            load_tensor(&a, cta);
        sim_shared_mark(cta, a.dst, a.bytes, SIM_ASYNC_WRITTEN);
        for (int i = 0; i < cta->n_mbars; i++) {
            SimMbar *m = &cta->mbars[i];
            if (m->address != a.bar || !m->valid) continue;
            m->tx -= a.bytes;
            sim_race_landed(cta, m, a.dst, a.bytes, a.at);
            finish_phase(cta, m);
            break;
        }
    }
    return true;
}

/* ---- stores ------------------------------------------------------------------------------------------------------------ */

static SimBulkStore *new_store(SimThread *t, unsigned src, unsigned bytes, SimSite at)
{
    if (t->n_bulk == t->cap_bulk) {
        t->cap_bulk = t->cap_bulk == 0 ? 8 : t->cap_bulk * 2;
        t->bulk = realloc(t->bulk, (size_t)t->cap_bulk * sizeof *t->bulk);
    }
    SimBulkStore *s = &t->bulk[t->n_bulk++];
    *s = (SimBulkStore){.group = t->bulk_group, .src = src, .bytes = bytes, .at = at};
    s->as_issued = malloc(bytes);
    memcpy(s->as_issued, sim_shared(t->cta, src, bytes, "a store", at), bytes);
    sim_race_issue(t->cta, src, bytes, false, "a store", at);
    return s;
}

void simgpu_tma_store(const void *map, unsigned src, int add, int rank, const int *coords, SimSite at)
{
    SimThread *t = sim_run->current;
    const SimTensorMap *m = check_map(map, rank, src, "TMA store", at);
    BoxRow row;
    const unsigned bytes = box_bytes(m);
    sim_grid_order("TMA store", at);
    (void)sim_shared(t->cta, src, bytes, "TMA store", at);
    sim_shared_read(t->cta, src, bytes, true, "TMA store", at);
    for (unsigned i = 0; next_row(m, coords, i, &row); i++) check_row(m, &row, true, "TMA store", at);
    if (add && m->elem != 4) sim_fail(SIM_CU_LAUNCH_FAILED, at, "TMA reduction on elements of %d bytes; only f32 is simulated", m->elem);
    SimBulkStore *s = new_store(t, src, bytes, at);
    memcpy(s->map, map, sizeof s->map);
    memcpy(s->coords, coords, (size_t)rank * sizeof *coords);
    s->add = add;
    s->rank = rank;
}

void simgpu_bulk_store(void *dst, unsigned src, unsigned bytes, SimSite at)
{
    SimThread *t = sim_run->current;
    char why[256];
    if (bytes == 0 || bytes % 16 != 0 || src % 16 != 0 || (uintptr_t)dst % 16 != 0)
        sim_fail(SIM_CU_MISALIGNED, at, "cp.async.bulk of %u bytes from shared 0x%x to %p: size and addresses must be multiples of 16",
                 bytes, src, dst);
    if (!sim_is_device_memory(dst) || sim_check_global(dst, bytes, why, sizeof why) != 0)
        sim_fail(SIM_CU_ILLEGAL_ADDRESS, at, "cp.async.bulk writes %u bytes at %p: %s", bytes, dst,
                 sim_is_device_memory(dst) ? why : "not global memory");
    sim_grid_order("cp.async.bulk", at);
    (void)sim_shared(t->cta, src, bytes, "cp.async.bulk", at);
    sim_shared_read(t->cta, src, bytes, true, "cp.async.bulk", at);
    sim_race_global(dst, bytes, true, "cp.async.bulk", at, NULL);
    SimBulkStore *s = new_store(t, src, bytes, at);
    s->dst = dst;
}

/* As late as it may: at the wait. What it reads must be what was there when it was issued. */
static void finish_store(SimThread *t, const SimBulkStore *s)
{
    const bool changed = memcmp(s->as_issued, sim_shared(t->cta, s->src, s->bytes, "a store", s->at), s->bytes) != 0;
    free(s->as_issued);
    sim_race_waited(t, t->cta, s->src, s->bytes, false);
    if (changed)
        sim_fail(SIM_CU_LAUNCH_FAILED, s->at, "the %u bytes at shared 0x%x changed between this store and the wait for it: overwrite them "
                 "after cp.async.bulk.wait_group.read (mj_ptx_tma_wait_read) only", s->bytes, s->src);
    if (s->dst != NULL) {
        memcpy(s->dst, sim_shared(t->cta, s->src, s->bytes, "cp.async.bulk", s->at), s->bytes);
        sim_mark_global(s->dst, s->bytes);
        return;
    }
    const SimTensorMap *m = (const SimTensorMap *)s->map;
    BoxRow row;
    for (unsigned i = 0; next_row(m, s->coords, i, &row); i++) {
        if (row.last > row.first) sim_mark_global(row.global + row.first * m->elem, (size_t)(row.last - row.first) * m->elem);
        for (int e = row.first; e < row.last; e++) {
            const char *from = sim_shared(t->cta, swizzle(s->src + row.offset + (unsigned)e * m->elem, m->swizzle), m->elem,
                                          "TMA store", s->at);
            char *to = row.global + e * m->elem;
            if (s->add) {
                float a, b;
                memcpy(&a, to, 4);
                memcpy(&b, from, 4);
                a += b;
                memcpy(to, &a, 4);
            } else {
                memcpy(to, from, m->elem);
            }
        }
    }
}

void simgpu_bulk_commit(void) { sim_run->current->bulk_group++; }

void simgpu_bulk_wait(int n)
{
    SimThread *t = sim_run->current;
    int kept = 0;
    for (int i = 0; i < t->n_bulk; i++) {
        if (t->bulk[i].group >= t->bulk_group - n)
            t->bulk[kept++] = t->bulk[i];
        else
            finish_store(t, &t->bulk[i]);
    }
    t->n_bulk = kept;
}

void sim_thread_exit(SimThread *t)
{
    if (t->n_bulk > 0)
        sim_fail(SIM_CU_LAUNCH_FAILED, t->bulk[0].at, "the thread leaves with a store from shared memory in flight (%s): the block's "
                 "shared memory may be gone before it is read", t->bulk[0].group == t->bulk_group ? "never committed" : "no wait");
    sim_wgmma_exit(t);
}
