/* The communicator of one rank: a sum over one rank is the rank's own values. */
#include <stdlib.h>

#include "runtime/base/mem.h"
#include "runtime/comm.h"

typedef struct SingleComm {
    MjComm base;
    MjDevice *device; /* not owned */
} SingleComm;

static void single_close(MjComm *comm)
{
    free(comm);
}

static int single_rank(const MjComm *comm)
{
    (void)comm;
    return 0;
}

static int single_size(const MjComm *comm)
{
    (void)comm;
    return 1;
}

static int single_all_reduce_sum(MjComm *comm, void *buf, size_t count, MjCommType type, MjError *err)
{
    (void)comm;
    if (count > 0 && !buf)
        return mj_error(err, MJ_ERR_USAGE, "all_reduce_sum of %zu values from no buffer", count);
    if (type < MJ_COMM_F32 || type > MJ_COMM_I64)
        return mj_error(err, MJ_ERR_USAGE, "all_reduce_sum of unknown element type %d", (int)type);
    return 0;
}

static int single_broadcast(MjComm *comm, void *buf, size_t bytes, int root, MjError *err)
{
    (void)comm;
    if (root != 0) return mj_error(err, MJ_ERR_USAGE, "broadcast from rank %d, but there is only rank 0", root);
    if (bytes > 0 && !buf) return mj_error(err, MJ_ERR_USAGE, "broadcast of %zu bytes from no buffer", bytes);
    return 0;
}

static int single_barrier(MjComm *comm, MjError *err)
{
    MjDevice *device = ((SingleComm *)comm)->device;
    return device->ops->synchronize(device, err); /* as with many ranks: earlier work is done when it returns */
}

static const MjCommOps single_ops = {
    .kind = "single",
    .close = single_close,
    .rank = single_rank,
    .size = single_size,
    .all_reduce_sum = single_all_reduce_sum,
    .broadcast = single_broadcast,
    .barrier = single_barrier,
};

int mj_comm_open_single(MjDevice *device, MjComm **out, MjError *err)
{
    if (!device) return mj_error(err, MJ_ERR_USAGE, "a communicator needs a device");
    SingleComm *comm = mj_xmalloc(sizeof *comm);
    *comm = (SingleComm){.base.ops = &single_ops, .device = device};
    *out = &comm->base;
    return 0;
}

void mj_comm_close(MjComm *comm)
{
    if (comm) comm->ops->close(comm);
}
