/* The communicator seam: one table of functions per way of joining ranks. Owns no device memory. The member here is a
 * single rank; several ranks are another row with the same table.
 *
 * Every rank makes the same calls in the same order. Buffers are device memory of the device that the communicator was
 * opened with. One MjComm may be used from one thread at a time.
 */
#ifndef MJ_RUNTIME_COMM_H
#define MJ_RUNTIME_COMM_H

#include <stddef.h>

#include "runtime/base/error.h"
#include "runtime/device.h"

typedef struct MjComm MjComm;

typedef enum MjCommType { MJ_COMM_F32, MJ_COMM_F64, MJ_COMM_I32, MJ_COMM_I64 } MjCommType;

typedef struct MjCommOps {
    const char *kind; /* "single" */
    void (*close)(MjComm *comm);
    int (*rank)(const MjComm *comm); /* 0 <= rank < size */
    int (*size)(const MjComm *comm);
    /* In place, element by element, summed in rank order so that a repeated run repeats its bits. Stream order. */
    int (*all_reduce_sum)(MjComm *comm, void *buf, size_t count, MjCommType type, MjError *err);
    int (*broadcast)(MjComm *comm, void *buf, size_t bytes, int root, MjError *err); /* from root to all; stream order */
    int (*barrier)(MjComm *comm, MjError *err);                                      /* blocks until all ranks are here */
} MjCommOps;

struct MjComm {
    const MjCommOps *ops; /* every implementation's struct starts with this */
};

int mj_comm_open_single(MjDevice *device, MjComm **out, MjError *err) MJ_MUST_CHECK;
void mj_comm_close(MjComm *comm); /* NULL is fine */

#endif
