/* What both compilers share. */
#include "jit/compiler.h"

#include <stdlib.h>
#include <string.h>

void mj_compile_result_free(MjCompileResult *r)
{
    if (!r) return;
    free(r->image);
    free(r->log);
    *r = (MjCompileResult){.image = NULL};
}

/* The largest number that stands before `words` in the log (one kernel a line); -1 when it is not there. */
static int largest_before(const char *log, const char *words)
{
    int largest = -1;

    for (const char *at = log; at && (at = strstr(at, words)) != NULL; at++) {
        const char *digits = at;
        while (digits > log && digits[-1] >= '0' && digits[-1] <= '9') digits--;
        if (digits == at) continue;
        int v = atoi(digits);
        if (v > largest) largest = v;
    }
    return largest;
}

static int registers_used(const char *log)
{
    int largest = -1;

    for (const char *at = log; at && (at = strstr(at, "Used ")) != NULL; at += 5) {
        int v = atoi(at + 5);
        if (v > largest) largest = v;
    }
    return largest;
}

void mj_compile_log_read(const char *log, MjCompileResult *r)
{
    r->registers = registers_used(log);
    r->spill_bytes = largest_before(log, " bytes spill stores");
    r->stack_bytes = largest_before(log, " bytes stack frame");
    r->shared_bytes = largest_before(log, " bytes smem");
}
