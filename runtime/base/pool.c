/* The thread pool: one job at a time, tasks from an atomic counter, spin-then-sleep workers.
 *
 * `state` packs a job's number, whether it is open, and how many workers are inside it. A worker joins by a
 * compare-and-swap that only succeeds while the job is open; the caller closes the job when the tasks are all taken and
 * then waits only for the workers that did join. So a sleeping worker that wakes up late never holds up a small run.
 */
#include "runtime/base/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/mem.h"

#define STATE_INSIDE 0x7fffffffu /* low bits: workers in the job */
#define STATE_OPEN 0x80000000u
#define STATE_JOB_SHIFT 32

enum { SPIN_NS = 20000, MAX_THREADS = 1024 };

typedef struct Worker {
    MjPool *pool;
    pthread_t thread;
    int index; /* 1 .. threads - 1 */
} Worker;

struct MjPool {
    /* written by the caller while no worker is inside; read by workers inside */
    MjPoolFn *fn;
    void *user;
    uint32_t tasks;
    _Alignas(64) atomic_uint_least64_t state;
    _Alignas(64) atomic_uint next;  /* next task */
    _Alignas(64) atomic_uint wake;  /* futex: changes when a job opens or the pool closes */
    atomic_int sleepers;
    atomic_bool stop;
    _Alignas(64) atomic_uint left;  /* futex: changes when the last worker leaves a closed job */
    atomic_bool caller_sleeps;
    int threads;
    uint64_t spin_ns;
    Worker *workers; /* (threads - 1) */
};

static void futex_wait(atomic_uint *word, unsigned expected)
{
    syscall(SYS_futex, (void *)word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word, int count)
{
    syscall(SYS_futex, (void *)word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static void run_tasks(MjPool *pool, int worker)
{
    uint32_t tasks = pool->tasks;

    for (;;) {
        uint32_t t = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (t >= tasks) break;
        pool->fn(pool->user, (int)t, worker);
    }
}

/* Joins the open job unless it is `seen`. Returns whether it joined; sets *seen to the job. */
static bool join_job(MjPool *pool, uint32_t *seen)
{
    uint64_t state = atomic_load_explicit(&pool->state, memory_order_relaxed);

    while ((state & STATE_OPEN) && (uint32_t)(state >> STATE_JOB_SHIFT) != *seen) {
        if (atomic_compare_exchange_weak_explicit(&pool->state, &state, state + 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            *seen = (uint32_t)(state >> STATE_JOB_SHIFT);
            return true;
        }
    }
    return false;
}

static void leave_job(MjPool *pool)
{
    uint64_t before = atomic_fetch_sub(&pool->state, 1);

    if ((before & STATE_OPEN) || (before & STATE_INSIDE) != 1) return;
    atomic_fetch_add(&pool->left, 1);
    if (atomic_load(&pool->caller_sleeps)) futex_wake(&pool->left, 1);
}

static void *worker_main(void *arg)
{
    Worker *me = arg;
    MjPool *pool = me->pool;
    uint32_t seen = 0;

    for (;;) {
        unsigned wake = atomic_load(&pool->wake);
        if (atomic_load(&pool->stop)) return NULL;
        if (join_job(pool, &seen)) {
            run_tasks(pool, me->index);
            leave_job(pool);
            continue;
        }
        bool woken = false;
        if (pool->spin_ns > 0) {
            uint64_t until = mj_clock_ns() + pool->spin_ns;
            do {
                for (int i = 0; i < 32 && !woken; i++) {
                    cpu_relax();
                    woken = atomic_load_explicit(&pool->wake, memory_order_relaxed) != wake;
                }
            } while (!woken && mj_clock_ns() < until);
        }
        if (woken) continue;
        atomic_fetch_add(&pool->sleepers, 1);
        futex_wait(&pool->wake, wake);
        atomic_fetch_sub(&pool->sleepers, 1);
    }
}

int mj_pool_cores(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int n = CPU_COUNT(&set);
        if (n > 0) return n;
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

MjPool *mj_pool_open(int threads)
{
    int cores = mj_pool_cores();
    void *memory = NULL;

    if (threads <= 0) threads = cores;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (posix_memalign(&memory, 64, sizeof(MjPool)) != 0) mj_mem_abort(sizeof(MjPool));
    MjPool *pool = memory;
    *pool = (MjPool){.threads = threads, .spin_ns = threads <= cores ? SPIN_NS : 0};
    pool->workers = mj_xcalloc((size_t)threads, sizeof *pool->workers);
    for (int i = 1; i < threads; i++) {
        Worker *w = &pool->workers[i - 1];
        *w = (Worker){.pool = pool, .index = i};
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
            pool->threads = i;
            break;
        }
    }
    return pool;
}

void mj_pool_close(MjPool *pool)
{
    if (!pool) return;
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->wake, 1);
    futex_wake(&pool->wake, MAX_THREADS);
    for (int i = 1; i < pool->threads; i++) pthread_join(pool->workers[i - 1].thread, NULL);
    free(pool->workers);
    free(pool);
}

int mj_pool_threads(const MjPool *pool)
{
    return pool->threads;
}

static void wait_for_workers(MjPool *pool)
{
    uint64_t until = mj_clock_ns() + SPIN_NS;

    do {
        for (int i = 0; i < 32; i++) {
            if ((atomic_load_explicit(&pool->state, memory_order_acquire) & STATE_INSIDE) == 0) return;
            cpu_relax();
        }
    } while (mj_clock_ns() < until);

    atomic_store(&pool->caller_sleeps, true);
    for (;;) {
        unsigned left = atomic_load(&pool->left);
        if ((atomic_load(&pool->state) & STATE_INSIDE) == 0) break;
        futex_wait(&pool->left, left);
    }
    atomic_store(&pool->caller_sleeps, false);
}

void mj_pool_run(MjPool *pool, int tasks, MjPoolFn *fn, void *user)
{
    if (tasks <= 0) return;
    if (tasks == 1 || pool->threads == 1) {
        for (int t = 0; t < tasks; t++) fn(user, t, 0);
        return;
    }
    pool->fn = fn;
    pool->user = user;
    pool->tasks = (uint32_t)tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    uint32_t job = (uint32_t)(atomic_load_explicit(&pool->state, memory_order_relaxed) >> STATE_JOB_SHIFT) + 1;
    if (job == 0) job = 1; /* 0 means "none seen" to a worker */
    atomic_store(&pool->state, (uint64_t)job << STATE_JOB_SHIFT | STATE_OPEN);
    atomic_fetch_add(&pool->wake, 1);
    if (atomic_load(&pool->sleepers) > 0) futex_wake(&pool->wake, tasks - 1);

    run_tasks(pool, 0);
    uint64_t state = atomic_fetch_and(&pool->state, ~(uint64_t)STATE_OPEN);
    if ((state & STATE_INSIDE) != 0) wait_for_workers(pool);
}
