/* Clocks. */
#include "runtime/base/clock.h"

#include <stdio.h>
#include <time.h>

uint64_t mj_clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

void mj_clock_iso8601(char buf[32])
{
    time_t now = time(NULL);
    struct tm tm;

    gmtime_r(&now, &tm);
    if (strftime(buf, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) buf[0] = '\0';
}
