/* The version of this build; the number is in the root meson.build. */
#include "runtime/base/version.h"

const char *mj_version(void)
{
    return MJ_VERSION;
}
