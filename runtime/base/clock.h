/* Clocks. Callable from any thread. */
#ifndef MJ_BASE_CLOCK_H
#define MJ_BASE_CLOCK_H

#include <stdint.h>

uint64_t mj_clock_ns(void); /* monotonic, nanoseconds from an arbitrary start */
void mj_clock_iso8601(char buf[32]); /* now, UTC: "2026-01-31T23:59:59Z" */

#endif
