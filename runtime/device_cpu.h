/* What the cpu device offers beyond the seam in device.h: its pool, for host work between launches, and counters for
 * tests. Takes only devices whose kind is "cpu".
 */
#ifndef MJ_RUNTIME_DEVICE_CPU_H
#define MJ_RUNTIME_DEVICE_CPU_H

#include <stdint.h>

#include "runtime/base/pool.h"
#include "runtime/device.h"

MjPool *mj_device_cpu_pool(MjDevice *dev); /* owned by the device; use it only while no launch is on */

/* Times that a launch had to grow the workers' scratch: constant once every kernel has run. */
uint64_t mj_device_cpu_scratch_growths(const MjDevice *dev);

/* Grows the scratch now, so that no launch in a step loop has to. */
int mj_device_cpu_reserve_scratch(MjDevice *dev, size_t bytes_per_worker, MjError *err) MJ_MUST_CHECK;

#endif
