/* Timing a case: by the clock on a CPU, by events with a flushed L2 cache on a GPU. */
#include <stdlib.h>
#include <string.h>

#include "ops/refs.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"
#include "runtime/base/sort.h"

enum { MOST = 2000, LEAST = 5, LEAST_GPU = 20, BATCH = 16 };

static MjTiming summary(double *times, int n)
{
    mj_sort_values(times, (size_t)n);
    return (MjTiming){.median_s = times[n / 2], .low_s = times[n / 10], .high_s = times[n * 9 / 10], .runs = n};
}

static int time_host(MjCase *c, double seconds, double *times, int *runs, MjError *err)
{
    bool in_place = false; /* results are inputs of the next run: start every run from the same numbers */
    for (int b = 0; b < mj_op_buffer_count(c->row); b++) in_place |= c->device[b] != NULL && c->row->buffers[b].role == MJ_INOUT;
    int n = 0, rc = 0;
    double spent = 0.0;
    while (n < MOST && (n < LEAST || spent < seconds)) {
        if (in_place) MJ_TRY(mj_case_reset(c, err));
        const uint64_t start = mj_clock_ns();
        MJ_TRY(mj_case_launch(c, err));
        MJ_TRY(c->ops->device->ops->synchronize(c->ops->device, err));
        times[n] = (double)(mj_clock_ns() - start) * 1e-9;
        spent += times[n++];
    }
    *runs = n;
out:
    return rc;
}

/* ---- a GPU -------------------------------------------------------------------------------------------------------- */

struct MjGpuTimer {
    MjOps *ops;
    MjEvent *from[BATCH], *to[BATCH];
    void *flush;          /* twice the L2 cache */
    size_t flush_bytes;
    double *sum, *partial; /* of reading it */
};

void mj_gpu_timer_close(MjGpuTimer *t)
{
    if (t == NULL) return;
    MjDevice *dev = t->ops->device;
    for (int i = 0; i < BATCH; i++) {
        if (t->from[i] != NULL) dev->ops->event_destroy(dev, t->from[i]);
        if (t->to[i] != NULL) dev->ops->event_destroy(dev, t->to[i]);
    }
    void *const all[] = {t->flush, t->sum, t->partial};
    for (int i = 0; i < 3; i++)
        if (all[i] != NULL) dev->ops->free(dev, all[i]);
    free(t);
}

int mj_gpu_timer_open(MjOps *ops, MjGpuTimer **out, MjError *err)
{
    MjGpuTimer *t = mj_xcalloc(1, sizeof *t);
    MjDevice *dev = ops->device;
    int rc = 0;
    t->ops = ops;
    for (int i = 0; i < BATCH; i++) {
        MJ_TRY(dev->ops->event_create(dev, &t->from[i], err));
        MJ_TRY(dev->ops->event_create(dev, &t->to[i], err));
    }
    t->flush_bytes = 2 * dev->ops->info(dev)->l2_bytes;
    if (t->flush_bytes > 0) {
        void *p = NULL;
        MJ_TRY(dev->ops->alloc(dev, t->flush_bytes, "flush of L2", &t->flush, err));
        MJ_TRY(dev->ops->alloc(dev, (t->flush_bytes / 4 / 4096 + 1) * sizeof(double), "flush of L2", &p, err));
        t->partial = p;
        MJ_TRY(dev->ops->alloc(dev, sizeof(double), "flush of L2", &p, err));
        t->sum = p;
    }
    *out = t;
    return 0;
out:
    mj_gpu_timer_close(t);
    return rc;
}

/* Written, so that nothing of the operands is left; then read, so that the next launch need not write dirty lines back.
 * It also gives the host the time to enqueue the launch, so that its own delay is not measured. */
static int flush(MjGpuTimer *t, MjError *err)
{
    if (t->flush == NULL) return 0;
    MjDevice *dev = t->ops->device;
    MjSumArgs sum = {.x = t->flush, .partial = t->partial, .out = t->sum, .n = (int64_t)(t->flush_bytes / 4)};
    int rc = dev->ops->fill(dev, t->flush, 0, t->flush_bytes, err);
    return rc != 0 ? rc : MJ_OP(t->ops, MJ_OP_SUM, &sum, "flush of L2", err);
}

int mj_gpu_timer_run(MjGpuTimer *t, int (*launch)(void *user, MjError *err), void *user, double seconds, MjTiming *out,
                     MjError *err)
{
    MjDevice *dev = t->ops->device;
    double *times = mj_xmalloc((MOST + BATCH) * sizeof *times), spent = 0.0;
    int n = 0, rc = 0;
    MJ_TRY(launch(user, err)); /* compiles, loads */
    MJ_TRY(flush(t, err));
    MJ_TRY(dev->ops->synchronize(dev, err));
    while (n < MOST && (n < LEAST_GPU || spent < seconds)) {
        for (int i = 0; i < BATCH; i++) {
            MJ_TRY(flush(t, err));
            MJ_TRY(dev->ops->event_record(dev, t->from[i], err));
            MJ_TRY(launch(user, err));
            MJ_TRY(dev->ops->event_record(dev, t->to[i], err));
        }
        for (int i = 0; i < BATCH; i++) {
            double ms = 0.0;
            MJ_TRY(dev->ops->event_elapsed(dev, t->from[i], t->to[i], &ms, err));
            times[n] = ms * 1e-3;
            spent += times[n++];
        }
    }
    *out = summary(times, n);
out:
    free(times);
    return rc;
}

static int launch_case(void *user, MjError *err) { return mj_case_launch(user, err); }

/* Results that are inputs of the next run (sums in place) go on growing here: that takes no other time, and resetting them
 * would cost more than the launch. */
static int time_gpu(MjCase *c, double seconds, MjTiming *out, MjError *err)
{
    MjGpuTimer *t = NULL;
    int rc = mj_gpu_timer_open(c->ops, &t, err);
    if (rc == 0) rc = mj_gpu_timer_run(t, launch_case, c, seconds, out, err);
    mj_gpu_timer_close(t);
    return rc;
}

int mj_case_time(MjCase *c, double seconds, MjTiming *out, MjError *err)
{
    int rc = 0, n = 0;
    double *times = NULL;
    MJ_TRY(mj_case_run(c, err)); /* compiles, warms caches */
    if (strcmp(c->ops->device->ops->kind, "cpu") != 0) return time_gpu(c, seconds, out, err);
    times = mj_xmalloc(MOST * sizeof *times);
    MJ_TRY(time_host(c, seconds, times, &n, err));
    *out = summary(times, n);
out:
    free(times);
    return rc;
}
