/* What compiling has cost so far: the seconds that entries remember, by template and target. */
#ifndef MJ_CACHE_ESTIMATE_H
#define MJ_CACHE_ESTIMATE_H

#include "cache/cache.h"

typedef struct MjCompileTimes MjCompileTimes;

/* Reads the label and the seconds of every entry of every usable root; verifies none of them. Scans. */
MjCompileTimes *mj_compile_times_read(MjCache *cache);
/* The mean of a template's kernels for a target; returns how many there are, 0 = none (*seconds is untouched). */
int mj_compile_times_find(const MjCompileTimes *times, const char *tmpl, const char *target, double *seconds);
void mj_compile_times_free(MjCompileTimes *times); /* NULL is fine */

#endif
