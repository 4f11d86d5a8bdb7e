/* Measurements of the JIT and its cache (`mojit bench jit`): finding a kernel in memory and on disk, a cache of many entries,
 * compiling a plan on all cores, what NVRTC spends on the prelude. Works in a temporary folder of its own ($TMPDIR, else
 * /tmp) on the cpu device; leaves nothing behind; prints nothing. */
#ifndef MJ_BENCH_BENCH_JIT_H
#define MJ_BENCH_BENCH_JIT_H

#include <stdbool.h>

#include "runtime/base/error.h"

typedef struct MjJitMeasure {
    const char *what, *detail, *unit; /* static storage, but detail: for the call only */
    double value, aim;                /* NAN: there is none */
    bool at_least;                    /* the aim is a floor */
    const char *missing;              /* why there is no value; NULL: there is one */
} MjJitMeasure;

typedef struct MjJitBenchOptions {
    int jobs;        /* the most cores of a plan; 0 = all, at most 16 */
    int entries;     /* of the large cache; 0 = 100,000 */
    double seconds;  /* of timing one case */
    void (*each)(void *user, const MjJitMeasure *m);
    void (*progress)(void *user, const char *what);
    void *user;
} MjJitBenchOptions;

/* Blocks for about a minute (less with fewer entries). */
int mj_bench_jit(const MjJitBenchOptions *options, MjError *err) MJ_MUST_CHECK;

/* The parts; `folder` is empty and private. */
int mj_bench_jit_memory(const MjJitBenchOptions *o, const char *folder, MjError *err) MJ_MUST_CHECK;
int mj_bench_jit_disk(const MjJitBenchOptions *o, const char *folder, MjError *err) MJ_MUST_CHECK;
int mj_bench_jit_plan(const MjJitBenchOptions *o, MjError *err) MJ_MUST_CHECK;
int mj_bench_jit_nvrtc(const MjJitBenchOptions *o, MjError *err) MJ_MUST_CHECK;
int mj_bench_cache(const MjJitBenchOptions *o, const char *folder, MjError *err) MJ_MUST_CHECK;

void mj_bench_jit_row(const MjJitBenchOptions *o, const char *what, const char *detail, double value, const char *unit, double aim,
                      bool at_least);

#endif
