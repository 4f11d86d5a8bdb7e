/* Races on shared memory, where MOJIT_SIMGPU_RACES is set: two accesses to one byte, one of them a write, that no barrier,
 * mbarrier or __syncwarp orders. Owns vector clocks and, for each byte, its last write and the reads since. Slow (a few times
 * the normal run); without the setting nothing here runs.
 *
 * A thread's clock ticks whenever it passes something on (arrives at a barrier). It knows of another thread what it was handed:
 * an access at clock c of thread w has happened before thread t iff t's entry for w is at least c. The manual says what hands on
 * (PTX ISA 9.1: 8.7.1 "Conflict and Data-races", 8.8 "Release and Acquire Patterns", and the instructions' own sections): barrier,
 * bar.warp.sync, barrier.cluster, mbarrier.arrive with try_wait; not shuffles and votes. Copies and wgmma count from their issue
 * to the wait for them: what lies between may not touch their memory, whoever does it. A TMA load is a writer of its own, one for
 * each mbarrier; the wgmmas of a warp are a reader of their own, over for each lane that has waited. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PENDING UINT32_MAX /* a clock: not over before the wait */
#define BYTES (SIM_MAX_SHARED + SIM_STATIC_MAX)

typedef struct Access {
    uint32_t run, clock;
    uint32_t who; /* a thread of the cluster; then the TMA loads of each block's mbarriers; then the wgmmas of each block's warps */
    bool atomic;
    SimSite at;
    void *pc; /* where `at` has no file: to be looked up */
} Access;

typedef struct Reads {
    Access *list;
    uint32_t run;
    int n, cap;
} Reads;

struct SimRace {
    Access *write; /* BYTES */
    Reads *reads;  /* BYTES */
    uint32_t *bars, *pending, *done; /* 16, SIM_MBARS, SIM_MBARS clocks of `parties` */
};

static struct {
    uint32_t run;                   /* which cluster of which launch; what an older one left does not count */
    size_t threads, parties, room;  /* room: of the clocks, in words */
    uint32_t *clocks;               /* (threads, parties) */
    uint32_t *cluster, *cluster_done;
} race;

static bool on(const SimCta *cta) { return cta->race != NULL; }
static unsigned number(const SimThread *t) { return t->cta->rank * (unsigned)t->cta->n_threads + (unsigned)t->tid; }
static uint32_t *clock_of(const SimThread *t) { return race.clocks + number(t) * race.parties; }
static unsigned loader(const SimCta *cta, int slot) { return (unsigned)race.threads + cta->rank * SIM_MBARS + (unsigned)slot; }
static unsigned warps_of(const SimThread *t) /* the first thread of the warp knows how far its wgmmas are */
{
    return (unsigned)race.parties - (sim_run->launch->cluster - t->cta->rank) * (unsigned)t->cta->n_warps + (unsigned)t->warp;
}

static void join(uint32_t *to, const uint32_t *from)
{
    for (size_t i = 0; i < race.parties; i++) to[i] = to[i] > from[i] ? to[i] : from[i];
}

static void pass_on(SimThread *t, uint32_t *to)
{
    uint32_t *c = clock_of(t);
    join(to, c);
    c[number(t)]++;
}

void sim_race_start(void)
{
    static int wanted = -1;
    SimRun *r = sim_run;
    if (wanted < 0) {
        const char *e = getenv("MOJIT_SIMGPU_RACES");
        wanted = e != NULL && e[0] != '\0' && strcmp(e, "0") != 0;
    }
    if (!wanted) return;
    race.run++;
    race.threads = (size_t)r->launch->cluster * r->launch->block;
    race.parties = race.threads + (size_t)r->launch->cluster * (SIM_MBARS + (size_t)r->ctas[0].n_warps);
    const size_t words = race.parties * (race.threads + 2);
    if (words > race.room) {
        race.room = words;
        race.clocks = realloc(race.clocks, words * sizeof *race.clocks);
    }
    memset(race.clocks, 0, words * sizeof *race.clocks);
    for (size_t i = 0; i < race.threads; i++) race.clocks[i * race.parties + i] = 1;
    race.cluster = race.clocks + race.threads * race.parties;
    race.cluster_done = race.cluster + race.parties;
    for (unsigned c = 0; c < r->launch->cluster; c++) {
        SimCta *cta = &r->ctas[c];
        if (cta->race == NULL) {
            cta->race = calloc(1, sizeof *cta->race);
            cta->race->write = calloc(BYTES, sizeof *cta->race->write);
            cta->race->reads = calloc(BYTES, sizeof *cta->race->reads);
        }
        free(cta->race->bars);
        cta->race->bars = calloc((16 + 2 * SIM_MBARS) * race.parties, sizeof *cta->race->bars);
        cta->race->pending = cta->race->bars + 16 * race.parties;
        cta->race->done = cta->race->pending + SIM_MBARS * race.parties;
    }
}

/* ---- what orders -------------------------------------------------------------------------------------------------- */

void sim_race_bar_arrive(SimThread *t, unsigned id)
{
    if (on(t->cta)) pass_on(t, t->cta->race->bars + id * race.parties);
}
void sim_race_bar_leave(SimThread *t, unsigned id)
{
    if (on(t->cta)) join(clock_of(t), t->cta->race->bars + id * race.parties);
}
void sim_race_bar_clear(SimCta *cta, unsigned id)
{
    if (on(cta)) memset(cta->race->bars + id * race.parties, 0, race.parties * sizeof *cta->race->bars);
}

void sim_race_warp(SimThread *lanes, unsigned mask)
{
    if (!on(lanes[0].cta)) return;
    uint32_t *all = calloc(race.parties, sizeof *all);
    for (int i = 0; i < 32; i++)
        if ((mask >> i & 1u) != 0) pass_on(&lanes[i], all);
    for (int i = 0; i < 32; i++)
        if ((mask >> i & 1u) != 0) join(clock_of(&lanes[i]), all);
    free(all);
}

void sim_race_cluster(SimThread *t, bool wait)
{
    if (!on(t->cta)) return;
    if (wait) join(clock_of(t), race.cluster_done);
    else pass_on(t, race.cluster);
}
void sim_race_cluster_complete(void)
{
    if (on(&sim_run->ctas[0])) memcpy(race.cluster_done, race.cluster, race.parties * sizeof *race.cluster);
}

void sim_race_mbar_init(SimCta *cta, const SimMbar *m)
{
    if (!on(cta)) return;
    memset(cta->race->pending + (size_t)m->slot * race.parties, 0, race.parties * sizeof(uint32_t));
    memset(cta->race->done + (size_t)m->slot * race.parties, 0, race.parties * sizeof(uint32_t));
}
void sim_race_mbar_arrive(SimThread *t, SimCta *cta, const SimMbar *m)
{
    if (on(cta)) pass_on(t, cta->race->pending + (size_t)m->slot * race.parties);
}
void sim_race_mbar_complete(SimCta *cta, const SimMbar *m)
{
    const size_t at = (size_t)m->slot * race.parties;
    if (on(cta)) memcpy(cta->race->done + at, cta->race->pending + at, race.parties * sizeof(uint32_t));
}
void sim_race_mbar_wait(SimThread *t, const SimMbar *m)
{
    if (on(t->cta)) join(clock_of(t), t->cta->race->done + (size_t)m->slot * race.parties);
}

/* ---- what conflicts ------------------------------------------------------------------------------------------------ */

static bool before(const Access *a, const SimThread *t)
{
    if (a->clock == PENDING) return false;
    return a->who == number(t) || a->clock <= clock_of(t)[a->who];
}

_Noreturn static void report(const Access *a, bool a_writes, bool writes, unsigned address, const char *what, SimSite at, void *pc)
{
    char other[160];
    const SimSite there = a->at.file != NULL ? a->at : sim_site_of(a->pc);
    const char *file = there.file == NULL ? "?" : strrchr(there.file, '/') != NULL ? strrchr(there.file, '/') + 1 : there.file;
    const unsigned block = sim_run->launch->block;
    if (a->who >= race.threads)
        snprintf(other, sizeof other, "%s at %s:%d", a_writes ? "a TMA load wrote it" : a->clock == PENDING ? "a wgmma in flight reads it" : "a wgmma read it",
                 file, there.line);
    else
        snprintf(other, sizeof other, "thread %u of block %u %s it at %s:%d", a->who % block, sim_run->ctas[a->who / block].block,
                 a->clock == PENDING ? "has a copy in flight that reads" : a_writes ? "wrote" : "read", file, there.line);
    sim_fail(SIM_CU_LAUNCH_FAILED, at.file != NULL ? at : sim_site_of(pc), "race on shared 0x%x: %s %s it, %s, and no barrier, mbarrier or "
             "__syncwarp orders the two", address, what, writes ? "writes" : "reads", other);
}

static void note_read(Reads *reads, const SimThread *t, Access now)
{
    int kept = 0;
    if (reads->run != race.run) {
        reads->run = race.run;
        reads->n = 0;
    }
    for (int i = 0; i < reads->n; i++) { /* whoever comes after this read comes after those before it */
        Access *a = &reads->list[i];
        if (a->who == now.who && a->clock == PENDING) return;
        if (a->atomic > now.atomic || !before(a, t)) reads->list[kept++] = *a;
    }
    if (kept == reads->cap) {
        reads->cap = reads->cap == 0 ? 2 : 2 * reads->cap;
        reads->list = realloc(reads->list, (size_t)reads->cap * sizeof *reads->list);
    }
    reads->list[kept] = now;
    reads->n = kept + 1;
}

static void access_bytes(SimCta *cta, unsigned who, unsigned address, size_t bytes, bool write, bool pending, const char *what,
                         SimSite at, void *pc)
{
    const SimThread *t = sim_run->current;
    const size_t first = sim_shadow_index(address);
    const Access now = {.run = race.run, .clock = pending ? PENDING : clock_of(t)[number(t)], .who = who, .atomic = t->atomic,
                        .at = at, .pc = pc};
    for (size_t i = first; i < first + bytes; i++) {
        Access *w = &cta->race->write[i];
        Reads *reads = &cta->race->reads[i];
        if (w->run == race.run && !(w->atomic && now.atomic) && !before(w, t))
            report(w, true, write, address + (unsigned)(i - first), what, at, pc);
        if (!write) {
            note_read(reads, t, now);
            continue;
        }
        for (int k = 0; reads->run == race.run && k < reads->n; k++)
            if (!(reads->list[k].atomic && now.atomic) && !before(&reads->list[k], t))
                report(&reads->list[k], false, true, address + (unsigned)(i - first), what, at, pc);
        reads->n = 0;
        *w = now;
    }
}

void sim_race_access(SimCta *cta, unsigned address, size_t bytes, bool write, const char *what, SimSite at, void *pc)
{
    if (on(cta)) access_bytes(cta, number(sim_run->current), address, bytes, write, false, what, at, pc);
}

/* Operations on an mbarrier don't race with each other, but must come after its init and before its inval. */
void sim_race_mbar_use(SimCta *cta, unsigned address, const char *what, SimSite at)
{
    SimThread *t = sim_run->current;
    if (!on(cta)) return;
    t->atomic = true;
    access_bytes(cta, number(t), address, 1, false, false, what, at, NULL);
    t->atomic = false;
}

/* A copy that the current thread issues: it reads or writes until sim_race_waited. */
void sim_race_issue(SimCta *cta, unsigned address, size_t bytes, bool write, const char *what, SimSite at)
{
    if (on(cta)) access_bytes(cta, number(sim_run->current), address, bytes, write, !write, what, at, NULL);
}

static void end_reads(SimCta *cta, unsigned who, uint32_t clock, unsigned address, size_t bytes)
{
    const size_t first = sim_shadow_index(address);
    for (size_t i = first; i < first + bytes; i++) {
        Reads *reads = &cta->race->reads[i];
        for (int k = 0; reads->run == race.run && k < reads->n; k++)
            if (reads->list[k].who == who && reads->list[k].clock == PENDING) reads->list[k].clock = clock;
    }
}

void sim_race_waited(const SimThread *t, SimCta *cta, unsigned address, size_t bytes, bool write)
{
    if (!on(cta)) return;
    const size_t first = sim_shadow_index(address);
    const uint32_t clock = clock_of(t)[number(t)];
    if (!write) end_reads(cta, number(t), clock, address, bytes);
    for (size_t i = first; write && i < first + bytes; i++) cta->race->write[i].clock = clock;
}

/* An operand of a wgmma: read from its issue until its warp has waited. */
void sim_race_operand(SimThread *lanes, unsigned address, size_t bytes, bool waited, SimSite at)
{
    const unsigned who = warps_of(lanes);
    if (waited) end_reads(lanes[0].cta, who, clock_of(lanes)[who] + 1, address, bytes);
    else access_bytes(lanes[0].cta, who, address, bytes, false, true, "wgmma", at, NULL);
}
void sim_race_warp_waited(SimThread *lanes)
{
    if (!on(lanes[0].cta)) return;
    const unsigned who = warps_of(lanes);
    const uint32_t clock = clock_of(lanes)[who] + 1;
    for (int i = 0; i < 32; i++) clock_of(&lanes[i])[who] = clock;
}

/* A TMA load has landed: whoever sees the mbarrier's phase may read it. */
void sim_race_landed(SimCta *cta, const SimMbar *m, unsigned address, size_t bytes, SimSite at)
{
    if (!on(cta)) return;
    const size_t first = sim_shadow_index(address);
    const unsigned who = loader(cta, m->slot);
    const uint32_t clock = ++cta->race->pending[(size_t)m->slot * race.parties + who];
    for (size_t i = first; i < first + bytes; i++) {
        cta->race->write[i] = (Access){.run = race.run, .clock = clock, .who = who, .at = at};
        cta->race->reads[i].n = 0;
    }
}
