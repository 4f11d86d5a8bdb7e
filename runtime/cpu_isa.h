/* The instruction-set levels that CPU images are built for. Levels are cumulative; a level is the full set of features
 * that its compiler flags may use, so that an image runs on every machine that reports the level or a higher one.
 * Callable from any thread.
 */
#ifndef MJ_RUNTIME_CPU_ISA_H
#define MJ_RUNTIME_CPU_ISA_H

#include "runtime/base/error.h"

typedef struct MjCpuIsa {
    const char *name;   /* "avx512" */
    const char *target; /* "cpu:avx512" */
    const char *flags;  /* for gcc and clang, may be "" */
    const char *needs;  /* features, for people */
} MjCpuIsa;

/* Rows ascend: baseline, avx2, avx512, avx512_bf16. */
extern const MjCpuIsa mj_cpu_isas[];
extern const int mj_cpu_isa_count;

int mj_cpu_isa_hardware(void);           /* highest level that this processor and kernel support: a row */
int mj_cpu_isa_find(const char *name);   /* row by level name or target text, -1 */

/* The level to use: `isa` if given, else $MOJIT_ISA if set and not empty, else the hardware's. MJ_ERR_USAGE for an
 * unknown one (suggests) or one that this machine can't run. *row is untouched on failure. */
int mj_cpu_isa_select(const char *isa, int *row, MjError *err) MJ_MUST_CHECK;

/* "AMD EPYC 9R14", or "unknown CPU"; at most cap - 1 bytes. */
void mj_cpu_name(char *buf, size_t cap);

#endif
