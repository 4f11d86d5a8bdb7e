/* Runs the threads of a launch as fibers, one cluster after the other. Owns scheduling, barriers of a block and a cluster,
 * warp collectives, memory checks and reports. Asynchronous copies are sim_async.c's, matrices sim_matrix.c's.
 *
 * A thread runs until it waits; runnable threads wait in a ring. When nobody can run, one asynchronous copy is completed;
 * when there is none, the launch is deadlocked and the report says who waits where. So copies land as late as they may,
 * and a missing wait reads bytes that are still in flight. MOJIT_SIMGPU_ORDER=reverse starts threads and clusters last to first.
 *
 * Sources: "CUDA C++ Programming Guide" (Synchronization Functions; Warp Shuffle, Vote and Reduce Functions) and PTX ISA 9.1, 9.7.13
 * "Parallel Synchronization and Communication Instructions" and 9.7.9.6 "shfl.sync". */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

SimRun *sim_run;
char sim_report[4096];
char *simgpu_stack_lo;
size_t simgpu_stack_bytes = SIM_STACK_BYTES;

/* ---- fibers --------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
void simgpu_switch(void **save, void *load);
__asm__(".text\n.globl simgpu_switch\n.hidden simgpu_switch\n.type simgpu_switch,@function\nsimgpu_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
        ".size simgpu_switch,.-simgpu_switch\n");
#else
#error "the simulated GPU switches fibers in x86-64 assembly; port simgpu_switch and new_stack to this machine"
#endif

static char *stacks; /* SIM_MAX_THREADS of SIM_STACK_BYTES, reserved once, kept */

static void fiber_main(void)
{
    SimThread *t = sim_run->current;
    t->cta->threads[t->tid].wait = SIM_RUNNABLE;
    sim_run->launch->kernel->entry(sim_run->launch->params);
    sim_thread_exit(t);
    sim_wait(SIM_EXITED, (SimSite){"", 0});
    abort(); /* an exited thread is never resumed */
}

static void *new_stack(char *stack)
{
    uint64_t *top = (uint64_t *)(void *)(stack + SIM_STACK_BYTES - 64);
    *--top = 0;                                 /* fiber_main's caller: none; keeps the stack 16-byte aligned */
    *--top = (uint64_t)(uintptr_t)&fiber_main;  /* ret */
    for (int i = 0; i < 6; i++) *--top = 0;     /* rbp rbx r12..r15 */
    return top;
}

static void swap_static(SimCta *to)
{
    SimRun *r = sim_run;
    char *live = r->launch->kernel->shared_start;
    if (r->static_bytes == 0 || r->static_owner == to) return;
    if (r->static_owner != NULL) memcpy(r->static_owner->saved_static, live, r->static_bytes);
    memcpy(live, to->saved_static, r->static_bytes);
    r->static_owner = to;
}

static void resume(SimThread *t)
{
    SimRun *r = sim_run;
    swap_static(t->cta);
    r->current = t;
    simgpu_stack_lo = t->stack;
    r->scheduling = false;
    simgpu_switch(&r->scheduler_sp, t->sp);
    r->scheduling = true;
    r->current = NULL;
}

void sim_wait(SimWait why, SimSite at)
{
    SimThread *t = sim_run->current;
    t->wait = why;
    t->at = at;
    simgpu_switch(&t->sp, sim_run->scheduler_sp);
}

void sim_wake(SimThread *t)
{
    SimRun *r = sim_run;
    t->wait = SIM_RUNNABLE;
    r->queue[(r->head + r->count++) % r->cap] = t;
}

void simgpu_yield(void)
{
    SimThread *t = sim_run->current;
    sim_wake(t);
    simgpu_switch(&t->sp, sim_run->scheduler_sp);
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static jmp_buf scheduler_jump;

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static void begin_report(SimThread *t, SimSite at)
{
    const SimLaunch *l = sim_run->launch;
    int n = snprintf(sim_report, sizeof sim_report, "simulated GPU: %s, block %u of %u, thread %d of %u", l->name,
                     t != NULL ? t->cta->block : 0, l->grid, t != NULL ? t->tid : -1, l->block);
    if (at.file != NULL && at.line > 0)
        n += snprintf(sim_report + n, sizeof sim_report - (size_t)n, ", at %s:%d", base_name(at.file), at.line);
    snprintf(sim_report + n, sizeof sim_report - (size_t)n, ": ");
}

static void append_report(const char *fmt, ...)
{
    const size_t n = strlen(sim_report);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sim_report + n, sizeof sim_report - n, fmt, ap);
    va_end(ap);
}

_Noreturn void sim_fail(int result, SimSite at, const char *fmt, ...)
{
    SimThread *t = sim_run->current;
    va_list ap;
    begin_report(t, at);
    const size_t n = strlen(sim_report);
    va_start(ap, fmt);
    vsnprintf(sim_report + n, sizeof sim_report - n, fmt, ap);
    va_end(ap);
    sim_run->error = result;
    if (sim_run->scheduling) longjmp(scheduler_jump, 1); /* an asynchronous copy, or what is looked at when all have left */
    void *unused;
    simgpu_switch(&unused, sim_run->scheduler_sp);
    abort();
}

/* file:line of a program counter in the image, asked of addr2line; only when an error is reported */
SimSite sim_site_of(void *pc)
{
    static char files[2][512];
    static int turn;
    char *file = files[turn ^= 1];
    char command[512], line[500];
    SimSite at = {NULL, 0};
    const SimLaunch *l = sim_run->launch;
    snprintf(command, sizeof command, "addr2line -i -e %s 0x%zx 2>/dev/null", l->image_path,
             (size_t)((char *)pc - l->image_lo - 1));
    FILE *p = popen(command, "re");
    if (p == NULL) return at;
    while (fgets(line, sizeof line, p) != NULL) { /* innermost first; the kernel's own file is the last named */
        char *colon = strrchr(line, ':');
        if (colon == NULL || atoi(colon + 1) <= 0) continue;
        *colon = '\0';
        if (strstr(line, "sim_cuda.h") != NULL || strstr(line, "sim_ptx.cuh") != NULL) continue;
        if (at.line == 0) {
            snprintf(file, sizeof files[0], "%s", line);
            at.file = file;
            at.line = atoi(colon + 1);
        }
    }
    pclose(p);
    return at;
}

static void describe_wait(const SimThread *t, char *out, size_t cap)
{
    const char *file = t->at.file != NULL ? base_name(t->at.file) : "?";
    switch (t->wait) {
    case SIM_WAIT_BAR:
        snprintf(out, cap, "barrier %u at %s:%d", t->wait_id, file, t->at.line);
        break;
    case SIM_WAIT_WARP:
        snprintf(out, cap, "a warp collective at %s:%d", file, t->at.line);
        break;
    case SIM_WAIT_CLUSTER:
        snprintf(out, cap, "the cluster's barrier at %s:%d", file, t->at.line);
        break;
    case SIM_WAIT_MBAR: {
        const SimMbar *m = NULL;
        for (int i = 0; i < t->cta->n_mbars; i++)
            if (t->cta->mbars[i].address == t->wait_id) m = &t->cta->mbars[i];
        snprintf(out, cap, "parity %u of the mbarrier at shared 0x%x (completed phases %u, arrivals missing %u, bytes "
                 "missing %lld) at %s:%d", t->wait_parity, t->wait_id, m != NULL ? m->phase : 0, m != NULL ? m->pending : 0,
                 m != NULL ? (long long)m->tx : 0LL, file, t->at.line);
        break;
    }
    default:
        snprintf(out, cap, "nothing");
    }
}

static int report_deadlock(void)
{
    SimRun *r = sim_run;
    char seen[6][256];
    int counts[6] = {0}, first[6] = {0}, n = 0, exited = 0;
    unsigned block = 0;
    for (unsigned c = 0; c < r->launch->cluster; c++) {
        for (int i = 0; i < r->ctas[c].n_threads; i++) {
            const SimThread *t = &r->ctas[c].threads[i];
            char text[256];
            int k;
            if (t->wait == SIM_EXITED) {
                exited++;
                continue;
            }
            describe_wait(t, text, sizeof text);
            for (k = 0; k < n && strcmp(seen[k], text) != 0; k++) {}
            if (k == 6) continue;
            if (k == n) {
                memcpy(seen[n], text, sizeof text);
                first[n++] = t->tid;
                block = t->cta->block;
            }
            counts[k]++;
        }
    }
    snprintf(sim_report, sizeof sim_report, "simulated GPU: %s, block %u of %u: deadlock: ", r->launch->name, block,
             r->launch->grid);
    for (int k = 0; k < n; k++)
        append_report("%s%d thread%s (first %d) wait%s for %s", k > 0 ? "; " : "", counts[k], counts[k] > 1 ? "s" : "",
                      first[k], counts[k] > 1 ? "" : "s", seen[k]);
    if (exited > 0) append_report("; %d have left the kernel", exited);
    return SIM_CU_TIMEOUT;
}

/* ---- shared memory ---------------------------------------------------------------------------------------------------- */

static const char *state_text(int state)
{
    return state == SIM_UNINIT ? "was never written" : state == SIM_IN_FLIGHT ? "is still in flight (no wait before this)"
                                                                              : "belongs to an mbarrier";
}

size_t sim_shadow_index(unsigned address)
{
    return address >= SIM_STATIC_BASE ? SIM_MAX_SHARED + (address - SIM_STATIC_BASE) : address - SIM_SHARED_BASE;
}

char *sim_shared(SimCta *cta, unsigned address, size_t bytes, const char *what, SimSite at)
{
    const SimRun *r = sim_run;
    if (address >= SIM_STATIC_BASE && address + bytes <= SIM_STATIC_BASE + r->static_bytes) {
        char *base = r->static_owner == cta ? r->launch->kernel->shared_start : cta->saved_static;
        return base + (address - SIM_STATIC_BASE);
    }
    if (address < SIM_SHARED_BASE || address + bytes > SIM_SHARED_BASE + r->launch->shared_bytes)
        sim_fail(SIM_CU_ILLEGAL_ADDRESS, at, "%s: %zu bytes at shared address 0x%x are out of bounds: the block has %zu bytes of "
                 "dynamic shared memory from 0x%x", what, bytes, address, r->launch->shared_bytes, SIM_SHARED_BASE);
    return cta->dynamic + (address - SIM_SHARED_BASE);
}

void sim_shared_read(SimCta *cta, unsigned address, size_t bytes, bool async, const char *what, SimSite at)
{
    const size_t first = sim_shadow_index(address);
    const SimThread *t = sim_run->current;
    for (size_t i = first; i < first + bytes; i++) {
        const uint8_t s = cta->shadow[i];
        if (s == SIM_WRITTEN) {
            if (!async) continue;
            const uint32_t stamp = cta->stamp[i / 4];
            const SimThread *w = &cta->threads[cta->writer[i / 4]];
            if (w->fence_stamp <= stamp && (t == NULL || t->fence_stamp <= stamp))
                sim_fail(SIM_CU_LAUNCH_FAILED, at, "%s reads shared 0x%zx through the asynchronous proxy, but thread %d wrote it "
                         "and no fence.proxy.async (mj_ptx_fence_async) followed", what, (size_t)address + (i - first), w->tid);
        } else if (s != SIM_ASYNC_WRITTEN) {
            sim_fail(SIM_CU_LAUNCH_FAILED, at, "%s reads shared 0x%zx, which %s", what, (size_t)address + (i - first),
                     state_text(s));
        }
    }
}

void sim_shared_mark(SimCta *cta, unsigned address, size_t bytes, int state)
{
    const size_t first = sim_shadow_index(address);
    memset(cta->shadow + first, state, bytes);
    if (state != SIM_WRITTEN) return;
    for (size_t g = first / 4; g <= (first + bytes - 1) / 4; g++) {
        cta->stamp[g] = sim_run->clock;
        cta->writer[g] = (uint16_t)sim_run->current->tid;
    }
}

void sim_shared_claim(SimCta *cta, unsigned address, size_t bytes, const char *what, SimSite at)
{
    const size_t first = sim_shadow_index(address);
    for (size_t i = first; i < first + bytes; i++)
        if (cta->shadow[i] == SIM_IN_FLIGHT || cta->shadow[i] == SIM_BARRIER)
            sim_fail(SIM_CU_LAUNCH_FAILED, at, "%s writes shared 0x%zx, which %s", what, (size_t)address + (i - first),
                     state_text(cta->shadow[i]));
}

void sim_grid_order(const char *what, SimSite at)
{
    const SimRun *r = sim_run;
    if (r->launch->overlap && !r->current->grid_waited)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "%s touches global memory before griddepcontrol.wait (mj_ptx_grid_wait), though this launch may "
                 "start before the one before it has ended", what);
}

/* What it waited for is visible to the whole grid, so also to whoever meets this thread at a barrier afterwards. */
void simgpu_grid_wait(void) { sim_run->current->grid_waited = sim_run->current->cta->grid_waited = true; }

unsigned sim_shared_to_address(SimCta *cta, const void *p)
{
    const SimKernelInfo *k = sim_run->launch->kernel;
    const char *c = p;
    if (c >= cta->dynamic && c <= cta->dynamic + SIM_MAX_SHARED) return SIM_SHARED_BASE + (unsigned)(c - cta->dynamic);
    if (c >= k->shared_start && c < k->shared_stop) return SIM_STATIC_BASE + (unsigned)(c - k->shared_start);
    return 0;
}

unsigned simgpu_shared_address(const void *p)
{
    const unsigned a = sim_shared_to_address(sim_run->current->cta, p);
    if (a == 0) sim_fail(SIM_CU_ILLEGAL_ADDRESS, (SimSite){NULL, 0}, "%p is not in shared memory", p);
    return a;
}

void *simgpu_dynamic_shared(void) { return sim_run->current->cta->dynamic; }

static void access_shared(SimCta *cta, unsigned address, size_t bytes, int write, void *pc)
{
    const SimRun *r = sim_run;
    const size_t limit = address >= SIM_STATIC_BASE ? SIM_STATIC_BASE + r->static_bytes : SIM_SHARED_BASE + r->launch->shared_bytes;
    const char *verb = write ? "write" : "read";
    if (address + bytes > limit)
        sim_fail(SIM_CU_ILLEGAL_ADDRESS, sim_site_of(pc), "out-of-bounds %s of %zu bytes of shared memory at 0x%x: the block has %zu "
                 "bytes, up to 0x%zx", verb, bytes, address, r->launch->shared_bytes, limit);
    const size_t first = sim_shadow_index(address);
    for (size_t i = first; i < first + bytes; i++) {
        const uint8_t s = cta->shadow[i];
        if (write ? s == SIM_IN_FLIGHT || s == SIM_BARRIER : s != SIM_WRITTEN && s != SIM_ASYNC_WRITTEN)
            sim_fail(SIM_CU_LAUNCH_FAILED, sim_site_of(pc), "%s of shared 0x%x, which %s", verb, address, state_text(s));
    }
    if (write) sim_shared_mark(cta, address, bytes, SIM_WRITTEN);
    sim_race_access(cta, address, bytes, write != 0, "this thread", (SimSite){NULL, 0}, pc);
}

void simgpu_atomic(int on) { sim_run->current->atomic = on != 0; }


void simgpu_access(void *p, size_t bytes, int write, void *pc)
{
    SimRun *r = sim_run;
    if (r == NULL || r->current == NULL) return; /* the image's own constructors */
    const SimLaunch *l = r->launch;
    SimThread *t = r->current;
    const uintptr_t u = (uintptr_t)p;
    const char *verb = write ? "write" : "read";
    char why[256];
    if ((bytes == 2 || bytes == 4 || bytes == 8 || bytes == 16) && u % bytes != 0)
        sim_fail(SIM_CU_MISALIGNED, sim_site_of(pc), "misaligned %s of %zu bytes at %p", verb, bytes, p);
    const char *c = p;
    if (c >= t->cta->dynamic && c < t->cta->dynamic + SIM_MAX_SHARED + 4096) {
        access_shared(t->cta, SIM_SHARED_BASE + (unsigned)(c - t->cta->dynamic), bytes, write, pc);
    } else if (c >= l->kernel->shared_start && c < l->kernel->shared_stop) {
        access_shared(t->cta, SIM_STATIC_BASE + (unsigned)(c - l->kernel->shared_start), bytes, write, pc);
    } else if (sim_is_device_memory(p)) {
        if (l->overlap && !t->grid_waited) sim_grid_order(verb, sim_site_of(pc));
        if (sim_check_global(p, bytes, why, sizeof why) != 0)
            sim_fail(SIM_CU_ILLEGAL_ADDRESS, sim_site_of(pc), "out-of-bounds %s of %zu bytes of global memory at %p: %s", verb, bytes,
                     p, why);
        sim_race_global(p, bytes, write != 0, "this thread", (SimSite){NULL, 0}, pc);
        if (write) sim_mark_global(p, bytes);
        else if (!sim_global_written(p, bytes))
            sim_fail(SIM_CU_LAUNCH_FAILED, sim_site_of(pc), "read of %zu bytes of global memory at %p, which nobody wrote since it was "
                     "allocated", bytes, p);
    } else if (!(c >= l->image_lo && c < l->image_hi)) {
        const bool stack = c >= stacks && c < stacks + SIM_STACK_BYTES * SIM_MAX_THREADS;
        sim_fail(SIM_CU_ILLEGAL_ADDRESS, sim_site_of(pc), "%s of %zu bytes at %p, which is %s", verb, bytes, p,
                 stack ? "another thread's local memory" : "no memory of this device (a host pointer, or wild)");
    }
}

/* ---- indices and barriers ----------------------------------------------------------------------------------------------- */

SimIndex simgpu_thread_idx(void) { return (SimIndex){(unsigned)sim_run->current->tid, 0, 0}; }
SimIndex simgpu_block_idx(void) { return (SimIndex){sim_run->current->cta->block, 0, 0}; }
SimIndex simgpu_block_dim(void) { return (SimIndex){sim_run->launch->block, 1, 1}; }
SimIndex simgpu_grid_dim(void) { return (SimIndex){sim_run->launch->grid, 1, 1}; }
unsigned simgpu_cluster_rank(void) { return sim_run->current->cta->rank; }
unsigned simgpu_cluster_size(void) { return sim_run->launch->cluster; }
void simgpu_fence(void) {}
void simgpu_trap(const char *why, SimSite at) { sim_fail(SIM_CU_LAUNCH_FAILED, at, "%s", why); }

static void release_bar(SimCta *cta, unsigned id)
{
    SimBar *b = &cta->bars[id];
    for (int i = 0; i < cta->n_threads; i++) {
        SimThread *t = &cta->threads[i];
        if (t->wait == SIM_WAIT_BAR && t->wait_id == id) {
            t->result = (uint64_t)(unsigned)b->value;
            t->grid_waited |= b->grid_waited;
            sim_race_bar_leave(t, id);
            sim_wake(t);
        }
    }
    b->arrived = 0;
    b->threads = 0;
    b->grid_waited = false;
    b->turn++;
    sim_race_bar_clear(cta, id);
    sim_run->clock++;
}

static bool same_site(SimSite a, SimSite b) { return a.line == b.line && strcmp(a.file, b.file) == 0; }

/* __syncthreads waits for every thread that has not left; all must come to the same place ("Synchronization Functions"). */
int simgpu_syncthreads_count(int predicate, int op, SimSite at)
{
    SimThread *t = sim_run->current;
    SimCta *cta = t->cta;
    SimBar *b = &cta->bars[0];
    if (b->arrived > 0 && b->threads != 0)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "__syncthreads is barrier 0, at which %u threads wait with a count of %u since %s:%d", b->arrived,
                 b->threads, base_name(b->at.file), b->at.line);
    if (b->arrived > 0 && !same_site(b->at, at))
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "barrier divergence: this thread is at __syncthreads here, while %u threads of its block "
                 "wait at %s:%d", b->arrived, base_name(b->at.file), b->at.line);
    if (b->arrived++ == 0) {
        b->at = at;
        b->value = op == 1;
    }
    sim_race_bar_arrive(t, 0);
    b->grid_waited |= t->grid_waited;
    b->value = op == 0 ? b->value + (predicate != 0) : op == 1 ? b->value && predicate : b->value || predicate;
    if ((int)b->arrived == cta->live) {
        const int value = b->value;
        sim_race_bar_leave(t, 0);
        t->grid_waited |= b->grid_waited;
        release_bar(cta, 0);
        return value;
    }
    t->wait_id = 0;
    sim_wait(SIM_WAIT_BAR, at);
    return (int)t->result;
}

void simgpu_syncthreads(SimSite at) { (void)simgpu_syncthreads_count(0, 0, at); }

/* "barrier{.cta}": counts threads by number, whoever they are. */
void simgpu_bar(unsigned id, unsigned threads, int wait, SimSite at)
{
    SimThread *t = sim_run->current;
    if (id > 15 || threads == 0 || threads % 32 != 0 || threads > (unsigned)t->cta->n_threads)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "barrier %u of %u threads: the id must be 0 to 15 and the count a multiple of 32, at most "
                 "the block's %d", id, threads, t->cta->n_threads);
    SimBar *b = &t->cta->bars[id];
    if (b->arrived > 0 && b->threads != threads)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "barrier %u: this thread expects %u threads, an earlier one at %s:%d expects %u", id,
                 threads, base_name(b->at.file), b->at.line, b->threads);
    if (t->bar_turn[id] == b->turn + 1)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "barrier %u: this thread has arrived already, and %u of %u threads are missing: a second arrival "
                 "counts for another thread", id, threads - b->arrived, threads);
    t->bar_turn[id] = b->turn + 1;
    b->threads = threads;
    b->at = at;
    sim_race_bar_arrive(t, id);
    b->grid_waited |= t->grid_waited;
    if (++b->arrived == threads) {
        if (wait) sim_race_bar_leave(t, id);
        if (wait) t->grid_waited |= b->grid_waited;
        release_bar(t->cta, id);
        return;
    }
    if (!wait) return;
    t->wait_id = id;
    sim_wait(SIM_WAIT_BAR, at);
}

/* When every thread of the cluster that has not left has arrived. */
static void complete_cluster(void)
{
    SimRun *r = sim_run;
    if (r->cluster_arrived == 0 || r->cluster_arrived < r->cluster_threads) return;
    r->cluster_arrived = 0;
    r->cluster_generation++;
    r->clock++;
    sim_race_cluster_complete();
    bool waited = false;
    for (unsigned c = 0; c < r->launch->cluster; c++)
        for (int i = 0; i < r->ctas[c].n_threads; i++) waited |= r->ctas[c].threads[i].grid_waited;
    for (unsigned c = 0; c < r->launch->cluster; c++)
        for (int i = 0; i < r->ctas[c].n_threads; i++) r->ctas[c].threads[i].grid_waited |= waited;
    for (unsigned c = 0; c < r->launch->cluster; c++)
        for (int i = 0; i < r->ctas[c].n_threads; i++)
            if (r->ctas[c].threads[i].wait == SIM_WAIT_CLUSTER) sim_wake(&r->ctas[c].threads[i]);
}

void simgpu_cluster_barrier(int wait, SimSite at)
{
    SimRun *r = sim_run;
    SimThread *t = r->current;
    if (!wait) {
        if (t->cluster_arrived) sim_fail(SIM_CU_LAUNCH_FAILED, at, "barrier.cluster.arrive twice without a wait between");
        t->cluster_arrived = true;
        t->cluster_phase = r->cluster_generation;
        sim_race_cluster(t, false);
        r->cluster_arrived++;
        complete_cluster();
        return;
    }
    if (!t->cluster_arrived) sim_fail(SIM_CU_LAUNCH_FAILED, at, "barrier.cluster.wait without an arrive before it");
    if (t->cluster_phase == r->cluster_generation) sim_wait(SIM_WAIT_CLUSTER, at);
    sim_race_cluster(t, true);
    t->cluster_arrived = false;
}

/* ---- warp collectives -------------------------------------------------------------------------------------------------------- */

/* The one that lanes of the same mask are coming together in; else a free one: some lanes may meet in a smaller mask first, while
 * the others wait for all. */
static SimGather *find_gather(SimWarp *w, unsigned mask)
{
    SimGather *free_one = NULL;
    for (size_t i = 0; i < sizeof w->gather / sizeof w->gather[0]; i++) {
        SimGather *g = &w->gather[i];
        if (g->arrived != 0 && g->mask == mask) return g;
        if (g->arrived == 0 && free_one == NULL) free_one = g;
    }
    return free_one;
}

void sim_collective(int kind, int arg, unsigned mask, SimCollective *all, const char *name, SimSite at)
{
    SimThread *t = sim_run->current;
    SimCta *cta = t->cta;
    SimWarp *w = &cta->warps[t->warp];
    SimThread *lanes = &cta->threads[t->warp * 32];
    const unsigned bit = 1u << t->lane;
    const int n_lanes = cta->n_threads - t->warp * 32 < 32 ? cta->n_threads - t->warp * 32 : 32;
    if ((mask & bit) == 0) sim_fail(SIM_CU_LAUNCH_FAILED, at, "%s with mask 0x%08x by lane %d, which is not in it", name, mask, t->lane);
    for (int i = 0; i < 32; i++)
        if ((mask >> i & 1u) != 0 && (i >= n_lanes || lanes[i].wait == SIM_EXITED))
            sim_fail(SIM_CU_LAUNCH_FAILED, at, "%s with mask 0x%08x, but lane %d %s", name, mask, i,
                     i >= n_lanes ? "does not exist (the block is not a multiple of 32 threads)" : "has left the kernel");
    SimGather *g = find_gather(w, mask);
    if (g->arrived == 0) {
        *g = (SimGather){.kind = kind, .arg = arg, .mask = mask, .at = at};
    } else if (g->kind != kind || g->arg != arg || !same_site(g->at, at)) {
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "the warp diverged: lane %d is at %s (mask 0x%08x) here, while lanes 0x%08x wait in another "
                 "collective at %s:%d (mask 0x%08x)", t->lane, name, mask, g->arrived, base_name(g->at.file), g->at.line, g->mask);
    }
    g->arrived |= bit;
    if (g->arrived != mask) {
        sim_wait(SIM_WAIT_WARP, at);
        return;
    }
    g->arrived = 0; /* before `all`, which may fail or start another */
    all(w, lanes, mask, arg, at);
    bool waited = false;
    for (int i = 0; i < 32; i++) waited |= (mask >> i & 1u) != 0 && lanes[i].grid_waited;
    for (int i = 0; i < 32; i++) {
        if ((mask >> i & 1u) == 0) continue;
        lanes[i].grid_waited |= waited;
        if (i != t->lane) sim_wake(&lanes[i]);
    }
}

static void shuffle_all(SimWarp *w, SimThread *lanes, unsigned mask, int kind, SimSite at)
{
    (void)w;
    for (int i = 0; i < 32; i++) {
        if ((mask >> i & 1u) == 0) continue;
        SimThread *t = &lanes[i];
        const int width = (int)t->wait_parity, arg = (int)t->wait_id, base = i / width * width;
        int from = kind == SIM_SHFL_IDX    ? base + (arg & (width - 1))
                   : kind == SIM_SHFL_UP   ? i - arg
                   : kind == SIM_SHFL_DOWN ? i + arg
                                           : i ^ arg;
        if ((kind == SIM_SHFL_UP && from < base) || from >= base + width) from = i; /* xor may reach an earlier segment */
        if ((mask >> from & 1u) == 0)
            sim_fail(SIM_CU_LAUNCH_FAILED, at, "a shuffle of lane %d reads lane %d, which is not in the mask 0x%08x", i, from, mask);
        t->result = lanes[from].value;
    }
}

uint64_t simgpu_shuffle(int kind, unsigned mask, uint64_t value, int lane, int width, SimSite at)
{
    SimThread *t = sim_run->current;
    if (width < 1 || width > 32 || (width & (width - 1)) != 0)
        sim_fail(SIM_CU_LAUNCH_FAILED, at, "a shuffle of width %d: must be a power of two up to 32", width);
    t->value = value;
    t->wait_id = (unsigned)lane & 31u; /* the manual's bval: 5 bits */
    t->wait_parity = (unsigned)width;
    sim_collective(SIM_GATHER_SHFL, kind, mask, shuffle_all, "a shuffle", at);
    return t->result;
}

static void vote_all(SimWarp *w, SimThread *lanes, unsigned mask, int kind, SimSite at)
{
    (void)w;
    (void)at;
    unsigned ballot = 0;
    if (kind == SIM_VOTE_SYNC) sim_race_warp(lanes, mask);
    for (int i = 0; i < 32; i++)
        if ((mask >> i & 1u) != 0 && lanes[i].value != 0) ballot |= 1u << i;
    for (int i = 0; i < 32; i++) {
        if ((mask >> i & 1u) == 0) continue;
        unsigned r = ballot;
        if (kind == SIM_VOTE_ANY) r = ballot != 0;
        if (kind == SIM_VOTE_ALL) r = ballot == mask;
        if (kind == SIM_VOTE_ELECT) r = i == __builtin_ctz(mask);
        if (kind == SIM_VOTE_MATCH) {
            r = 0;
            for (int j = 0; j < 32; j++)
                if ((mask >> j & 1u) != 0 && lanes[j].value == lanes[i].value) r |= 1u << j;
        }
        lanes[i].result = r;
    }
}

unsigned simgpu_vote(int kind, unsigned mask, int predicate, SimSite at)
{
    SimThread *t = sim_run->current;
    t->value = (uint64_t)(unsigned)predicate;
    sim_collective(SIM_GATHER_VOTE, kind, mask, vote_all, "a vote or __syncwarp", at);
    return (unsigned)t->result;
}

static void reduce_all(SimWarp *w, SimThread *lanes, unsigned mask, int kind, SimSite at)
{
    (void)w;
    (void)at;
    unsigned r = 0;
    bool first = true;
    for (int i = 0; i < 32; i++) {
        if ((mask >> i & 1u) == 0) continue;
        const unsigned v = (unsigned)lanes[i].value;
        if (first) {
            r = v;
        } else {
            switch (kind) {
            case SIM_REDUCE_ADD: r += v; break;
            case SIM_REDUCE_MIN: r = v < r ? v : r; break;
            case SIM_REDUCE_MAX: r = v > r ? v : r; break;
            case SIM_REDUCE_SMIN: r = (int)v < (int)r ? v : r; break;
            case SIM_REDUCE_SMAX: r = (int)v > (int)r ? v : r; break;
            case SIM_REDUCE_AND: r &= v; break;
            default: r |= v;
            }
        }
        first = false;
    }
    for (int i = 0; i < 32; i++)
        if ((mask >> i & 1u) != 0) lanes[i].result = r;
}

unsigned simgpu_reduce(int kind, unsigned mask, unsigned value, SimSite at)
{
    SimThread *t = sim_run->current;
    t->value = value;
    sim_collective(SIM_GATHER_REDUCE, kind, mask, reduce_all, "a warp reduction", at);
    return (unsigned)t->result;
}

/* ---- the scheduler -------------------------------------------------------------------------------------------------------------- */

/* 9.7.13.13 "griddepcontrol": .wait is for the launches before this one to complete, and this one completes when its blocks have
 * left. Where one did not wait, the next launch, which waits for this one alone, may run before what came before is done. */
static int check_grid_end(const SimCta *cta)
{
    SimRun *r = sim_run;
    if (!r->launch->overlap || cta->grid_waited) return 0;
    begin_report(&cta->threads[0], (SimSite){NULL, 0});
    append_report("the block ended without griddepcontrol.wait (mj_ptx_grid_wait), though this launch may start before the one before it "
                  "has ended: the next one would wait for this one and not for that");
    r->error = SIM_CU_LAUNCH_FAILED;
    return r->error;
}

/* After a thread left: barriers that waited for it alone, collectives that can never come together. */
static int note_exit(SimThread *t)
{
    SimCta *cta = t->cta;
    SimRun *r = sim_run;
    cta->live--;
    r->cluster_threads--;
    if (t->cluster_arrived && t->cluster_phase == r->cluster_generation) r->cluster_arrived--;
    complete_cluster();
    if (cta->bars[0].arrived > 0 && cta->bars[0].threads == 0 && (int)cta->bars[0].arrived == cta->live) release_bar(cta, 0);
    for (size_t i = 0; i < sizeof cta->warps->gather / sizeof cta->warps->gather[0]; i++) {
        const SimGather *g = &cta->warps[t->warp].gather[i];
        if (g->arrived == 0 || (g->mask >> t->lane & 1u) == 0) continue;
        begin_report(t, g->at);
        append_report("lane %d left the kernel while lanes 0x%08x wait for it in a warp collective (mask 0x%08x)", t->lane,
                      g->arrived, g->mask);
        r->error = SIM_CU_LAUNCH_FAILED;
        return r->error;
    }
    return 0;
}

static int schedule(int n_threads)
{
    SimRun *const r = sim_run;
    volatile int left = n_threads;
    if (setjmp(scheduler_jump) != 0) return r->error;
    while (left > 0) {
        if (r->count == 0) {
            const int before = r->error;
            if (!sim_async_step()) return r->error != before ? r->error : report_deadlock();
            if (r->error != 0) return r->error;
            continue;
        }
        SimThread *t = r->queue[r->head];
        r->head = (r->head + 1) % r->cap;
        r->count--;
        resume(t);
        if (r->error != 0) return r->error;
        if (t->wait == SIM_EXITED) {
            left--;
            if (note_exit(t) != 0) return r->error;
            if (t->cta->live == 0) sim_warpgroups_end(t->cta);
            if (t->cta->live == 0 && check_grid_end(t->cta) != 0) return r->error;
        }
    }
    if (r->n_async > 0) {
        const SimAsync in_flight = r->async[0];
        begin_report(&in_flight.cta->threads[0], in_flight.at);
        append_report("the block ended with this load in flight: its mbarrier was never waited for");
        r->error = SIM_CU_LAUNCH_FAILED;
        return r->error;
    }
    return 0;
}

static void start_cta(SimCta *cta, unsigned block, unsigned rank, SimThread *threads, char *stack)
{
    const SimLaunch *l = sim_run->launch;
    cta->block = block;
    cta->rank = rank;
    cta->threads = threads;
    cta->n_threads = cta->live = (int)l->block;
    cta->n_warps = (cta->n_threads + 31) / 32;
    cta->n_mbars = 0;
    cta->grid_waited = false;
    memset(cta->bars, 0, sizeof cta->bars);
    memset(cta->warps, 0, (size_t)cta->n_warps * sizeof *cta->warps);
    memset(cta->shadow, SIM_UNINIT, l->shared_bytes);
    memset(cta->shadow + SIM_MAX_SHARED, SIM_UNINIT, SIM_STATIC_MAX);
    memset(cta->dynamic, 0xa5, l->shared_bytes);
    memset(cta->saved_static, 0xa5, SIM_STATIC_MAX);
    for (int i = 0; i < cta->n_threads; i++) {
        SimThread *t = &threads[i];
        SimCpAsync *cp = t->cp;
        SimBulkStore *bulk = t->bulk;
        const int cap_cp = t->cap_cp, cap_bulk = t->cap_bulk;
        *t = (SimThread){.cta = cta, .tid = i, .lane = i % 32, .warp = i / 32, .stack = stack + (size_t)i * SIM_STACK_BYTES,
                         .cp = cp, .cap_cp = cap_cp, .bulk = bulk, .cap_bulk = cap_bulk};
        t->sp = new_stack(t->stack);
    }
}

static void make_cta(SimCta *cta)
{
    cta->dynamic = aligned_alloc(1024, (SIM_MAX_SHARED + 4096 + 1023) / 1024 * 1024);
    cta->shadow = malloc(SIM_MAX_SHARED + SIM_STATIC_MAX);
    cta->stamp = calloc((SIM_MAX_SHARED + SIM_STATIC_MAX) / 4 + 1, sizeof *cta->stamp);
    cta->writer = calloc((SIM_MAX_SHARED + SIM_STATIC_MAX) / 4 + 1, sizeof *cta->writer);
    cta->saved_static = malloc(SIM_STATIC_MAX);
    cta->warps = calloc(32, sizeof *cta->warps);
}

static int run_cluster(unsigned first_block, SimThread *threads, bool reverse)
{
    SimRun *r = sim_run;
    const SimLaunch *l = r->launch;
    r->head = r->count = r->n_async = 0;
    r->static_owner = NULL;
    r->clock = 1;
    r->cluster_arrived = r->cluster_generation = 0;
    r->cluster_threads = l->cluster * l->block;
    for (unsigned c = 0; c < l->cluster; c++)
        start_cta(&r->ctas[c], first_block + c, c, threads + (size_t)c * l->block,
                  stacks + (size_t)c * l->block * SIM_STACK_BYTES);
    sim_race_start();
    const int n = (int)(l->cluster * l->block);
    for (int i = 0; i < n; i++) sim_wake(&threads[reverse ? n - 1 - i : i]);
    return schedule(n);
}

int sim_execute(const SimLaunch *l)
{
    static SimRun run; /* buffers are kept between launches */
    static SimThread *threads;
    const char *order = getenv("MOJIT_SIMGPU_ORDER");
    int rc = 0;
    if (stacks == NULL) {
        void *p = mmap(NULL, SIM_STACK_BYTES * SIM_MAX_THREADS, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return SIM_CU_OOM;
        stacks = p;
        threads = calloc(SIM_MAX_THREADS, sizeof *threads);
        run.cap = SIM_MAX_THREADS + 1;
        run.queue = malloc((size_t)run.cap * sizeof *run.queue);
    }
    for (unsigned c = 0; c < l->cluster; c++)
        if (run.ctas[c].dynamic == NULL) make_cta(&run.ctas[c]);
    run.launch = l;
    run.error = 0;
    run.current = NULL;
    run.scheduling = true;
    run.static_bytes = (size_t)(l->kernel->shared_stop - l->kernel->shared_start);
    sim_run = &run;
    sim_race_global_start(l);
    const bool reverse = order != NULL && strcmp(order, "reverse") == 0;
    for (unsigned b = 0; b < l->grid && rc == 0; b += l->cluster)
        rc = run_cluster(reverse ? l->grid - l->cluster - b : b, threads, reverse);
    sim_run = NULL;
    return rc;
}
