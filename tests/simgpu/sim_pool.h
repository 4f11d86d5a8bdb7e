/* What sim_pool.c and sim_driver.c know of each other: device memory as places between guard pages, and what it is counted
 * against. A place is never used twice, so a stale pointer is always caught; what a pool reuses is the count. */
#ifndef SIMGPU_SIM_POOL_H
#define SIMGPU_SIM_POOL_H

#include "runtime/cuda_api.h"

typedef struct SimAllocation {
    char *start;
    size_t bytes;
    bool freed;
    MjCuMemPool pool; /* NULL: cuMemAlloc's */
    struct SimBlock *block; /* of the pool */
} SimAllocation;

/* sim_driver.c */
int sim_live(void); /* 0, or what every call answers: no context, or a kernel died */
int sim_stream_device(MjCuStream s);
bool sim_stream_captures(MjCuStream s);
void sim_stream_note(MjCuStream s); /* what came last is no launch */
int sim_device_count(void);
/* Counts bytes of the device's memory; false: there aren't so many. Negative: gives them back. */
bool sim_memory_count(int device, int64_t bytes);
SimAllocation *sim_memory_place(int device, size_t bytes); /* filled with NaN; NULL: no address space. Valid until the next */
void sim_memory_remove(SimAllocation *a);
SimAllocation *sim_memory_at(MjCuPtr p, int *device); /* the live allocation that starts there, or NULL */

/* sim_pool.c */
bool sim_pools(void); /* whether the devices have any: MOJIT_SIMGPU_POOLS */
void sim_pool_observed(MjCuStream s); /* the host has waited for the stream */
#define SIM_POOL_DECLARE(name, params) int sim_##name params;
MJ_CU_POOL_FUNCTIONS(SIM_POOL_DECLARE)
#undef SIM_POOL_DECLARE

#endif
