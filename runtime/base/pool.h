/* A thread pool for the blocks of a launch. Owns its threads; knows nothing of kernels.
 *
 * Tasks are taken from a shared counter, so which worker runs which task changes from run to run: a task's result must
 * depend on its number alone. Workers spin for some microseconds after a run, then sleep, so that back-to-back launches
 * start without a system call and an idle process uses no CPU.
 */
#ifndef MJ_BASE_POOL_H
#define MJ_BASE_POOL_H

typedef struct MjPool MjPool;

typedef void MjPoolFn(void *user, int task, int worker);

/* `threads` counts the caller; 0 = all cores that this process may use. Starts threads - 1 workers. If the system
 * refuses some, the pool has fewer; never NULL. */
MjPool *mj_pool_open(int threads);
void mj_pool_close(MjPool *pool); /* NULL is fine; not while a run is on */

int mj_pool_threads(const MjPool *pool); /* workers and the caller, >= 1 */

/* Calls fn(user, t, worker) once for every t in [0, tasks), and returns when all have returned. `worker` is in
 * [0, threads): two calls at the same time never have the same one, and the caller is 0. What the caller wrote before
 * is visible to the tasks, and what they wrote is visible to it afterwards. One thread at a time may call this; a task
 * must not call it on the same pool. */
void mj_pool_run(MjPool *pool, int tasks, MjPoolFn *fn, void *user);

/* Cores that this process may use (its affinity mask), >= 1. */
int mj_pool_cores(void);

#endif
