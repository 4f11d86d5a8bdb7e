/* Which targets a template can be compiled for. Apart from template.c, which the build's own tools use without a runtime. */
#include <stdlib.h>
#include <string.h>

#include "jit/template.h"
#include "runtime/device.h"

bool mj_template_serves(const MjTemplate *t, const char *target)
{
    const char *digits = strncmp(target, "sm_", 3) == 0 ? target + 3 : strncmp(target, "compute_", 8) == 0 ? target + 8 : NULL;

    return (t->families >> mj_target_family(target) & 1) != 0 && (!digits || atoi(digits) >= t->least_arch);
}
