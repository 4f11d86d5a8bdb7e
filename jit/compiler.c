/* What both compilers share. */
#include "jit/compiler.h"

#include <stdlib.h>

void mj_compile_result_free(MjCompileResult *r)
{
    if (!r) return;
    free(r->image);
    free(r->log);
    *r = (MjCompileResult){.image = NULL};
}
