/* Profiles of ops. Owns the events that they are made with. */
#include "ops/op_profile.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/mem.h"

enum { PAIRS = 1024 }; /* launches between two readings; more are read when they are full */

struct MjOpTimes {
    bool by_events;
    uint64_t start;             /* by the clock */
    MjEvent *from[PAIRS], *to[PAIRS]; /* made as they are needed */
    MjOpId id[PAIRS];
    int n;                      /* recorded and not read */
};

static MjOpTimes *times_of(MjOps *ops)
{
    if (ops->times == NULL) {
        ops->times = mj_xcalloc(1, sizeof *ops->times);
        ops->times->by_events = strcmp(ops->device->ops->kind, "cpu") != 0;
    }
    return ops->times;
}

int mj_profile_begin(MjOps *ops, MjError *err)
{
    MjOpTimes *t = times_of(ops);
    const MjDeviceOps *dev = ops->device->ops;
    int rc = 0;
    if (!t->by_events) {
        t->start = mj_clock_ns();
        return 0;
    }
    if (t->n == PAIRS) MJ_TRY(mj_ops_profile_read(ops, err));
    if (t->from[t->n] == NULL) MJ_TRY(dev->event_create(ops->device, &t->from[t->n], err));
    if (t->to[t->n] == NULL) MJ_TRY(dev->event_create(ops->device, &t->to[t->n], err));
    MJ_TRY(dev->event_record(ops->device, t->from[t->n], err));
out:
    return rc;
}

int mj_profile_end(MjOps *ops, const MjOpRow *row, const void *args, MjError *err)
{
    MjOpTimes *t = times_of(ops);
    MjOpProfile *p = &ops->profiles[row->id];
    double flops, bytes;
    if (t->by_events) {
        int rc = ops->device->ops->event_record(ops->device, t->to[t->n], err);
        if (rc != 0) return rc;
        t->id[t->n++] = row->id;
    } else {
        p->ms += (double)(mj_clock_ns() - t->start) * 1e-6;
    }
    mj_op_cost(row, args, &flops, &bytes);
    p->launches++;
    p->flops += flops;
    p->bytes += bytes;
    return 0;
}

int mj_ops_profile_read(MjOps *ops, MjError *err)
{
    MjOpTimes *t = ops->times;
    int rc = 0;
    if (t == NULL) return 0;
    for (int i = 0; i < t->n; i++) {
        double ms;
        MJ_TRY(ops->device->ops->event_elapsed(ops->device, t->from[i], t->to[i], &ms, err));
        ops->profiles[t->id[i]].ms += ms;
    }
    t->n = 0;
out:
    return rc;
}

void mj_ops_close(MjOps *ops)
{
    MjOpTimes *t = ops->times;
    for (int i = 0; t != NULL && i < PAIRS; i++) {
        if (t->from[i] != NULL) ops->device->ops->event_destroy(ops->device, t->from[i]);
        if (t->to[i] != NULL) ops->device->ops->event_destroy(ops->device, t->to[i]);
    }
    free(t);
    ops->times = NULL;
}
