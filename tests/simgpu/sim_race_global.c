/* Races on global memory between the clusters of one launch, where MOJIT_SIMGPU_RACES is set. Nothing orders the blocks of a launch
 * but atomic operations ("Grid of Clusters", PTX ISA 9.1, 2.2.3), so a byte that one cluster writes is no other's to read or write.
 * A launch is let go from its first atomic operation on: what such a kernel orders by it is not followed. Within a cluster,
 * global memory is not looked at.
 *
 * Owns, for each byte that a launch touched, which cluster wrote it and which read it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define SLOTS (1u << 18) /* pages: a GB */
#define SEVERAL UINT16_MAX

typedef struct Page {
    uintptr_t number;
    uint32_t launch;
    uint16_t writer[PAGE], reader[PAGE]; /* cluster + 1; 0: none */
} Page;

static struct {
    bool on;
    uint32_t launch;
    Page **slots;
    size_t used;
} global;

void sim_race_global_start(const SimLaunch *l)
{
    const char *e = getenv("MOJIT_SIMGPU_RACES");
    global.on = e != NULL && e[0] != '\0' && strcmp(e, "0") != 0 && l->grid / l->cluster < SEVERAL - 1u;
    global.launch++;
    if (global.on && global.slots == NULL) global.slots = calloc(SLOTS, sizeof *global.slots);
}

static Page *page_of(uintptr_t number)
{
    size_t at = (size_t)(number * 0x9e3779b97f4a7c15u >> 40) % SLOTS;
    while (global.slots[at] != NULL && global.slots[at]->number != number) at = (at + 1) % SLOTS;
    Page *p = global.slots[at];
    if (p == NULL) {
        if (global.used >= SLOTS / 2) return NULL; /* more than half a GB: the rest is not looked at */
        p = global.slots[at] = calloc(1, sizeof *p);
        p->number = number;
        global.used++;
    }
    if (p->launch != global.launch) {
        memset(p->writer, 0, sizeof p->writer);
        memset(p->reader, 0, sizeof p->reader);
        p->launch = global.launch;
    }
    return p;
}

_Noreturn static void report(uint16_t other, bool other_wrote, bool write, const void *p, const char *what, SimSite at, void *pc)
{
    const unsigned cluster = sim_run->launch->cluster;
    if (other == SEVERAL)
        sim_fail(SIM_CU_LAUNCH_FAILED, at.file != NULL ? at : sim_site_of(pc), "race on global %p: %s writes it, several other blocks read it, "
                 "and nothing orders the blocks of a launch", p, what);
    sim_fail(SIM_CU_LAUNCH_FAILED, at.file != NULL ? at : sim_site_of(pc), "race on global %p: %s %s it, block %u %s it, and nothing orders the "
             "blocks of a launch", p, what, write ? "writes" : "reads", (other - 1u) * cluster, other_wrote ? "wrote" : "read");
}

void sim_race_global(const void *p, size_t bytes, bool write, const char *what, SimSite at, void *pc)
{
    const SimThread *t = sim_run->current;
    if (!global.on) return;
    if (t->atomic) {
        global.on = false;
        return;
    }
    const uint16_t me = (uint16_t)(t->cta->block / sim_run->launch->cluster + 1u);
    for (size_t i = 0; i < bytes; i++) {
        const uintptr_t a = (uintptr_t)p + i;
        Page *page = page_of(a / PAGE);
        if (page == NULL) return;
        uint16_t *w = &page->writer[a % PAGE], *r = &page->reader[a % PAGE];
        if (*w != 0 && *w != me) report(*w, true, write, (const void *)a, what, at, pc);
        if (write && *r != 0 && *r != me) report(*r, false, true, (const void *)a, what, at, pc);
        if (write) *w = me;
        else *r = *r == 0 || *r == me ? me : SEVERAL;
    }
}
