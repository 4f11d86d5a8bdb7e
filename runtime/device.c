/* Opening a device by its kind, and what a target's name says. The kinds are the rows of one table. */
#include "runtime/device.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/nearest.h"
#include "runtime/base/str.h"

static const MjDeviceOps *const kinds[] = {
    /* best first: the order in which NULL tries them */
    &mj_device_cuda,
    &mj_device_cpu,
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static int unknown_kind(const char *kind, MjError *err)
{
    const char *names[N_KINDS];

    for (int i = 0; i < N_KINDS; i++) names[i] = kinds[i]->kind;
    const char *near = mj_nearest(kind, names, N_KINDS);
    return mj_error(err, MJ_ERR_USAGE, "unknown device '%s'%s%s%s; expected cpu, cuda or cuda:N", kind,
                    near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

/* "cuda:1" to its row and number. */
static int find_kind(const char *kind, const MjDeviceOps **ops, int *ordinal, MjError *err)
{
    const char *colon = strchr(kind, ':');
    size_t len = colon ? (size_t)(colon - kind) : strlen(kind);

    if (colon) {
        char *end;
        long n = strtol(colon + 1, &end, 10);
        if (end == colon + 1 || *end || n < 0 || n > 4095 || strncmp(kind, "cpu", len) == 0)
            return mj_error(err, MJ_ERR_USAGE, "bad device '%s'; expected cpu, cuda or cuda:N", kind);
        *ordinal = (int)n;
    }
    for (int i = 0; i < N_KINDS; i++) {
        if (strlen(kinds[i]->kind) != len || strncmp(kind, kinds[i]->kind, len) != 0) continue;
        *ops = kinds[i];
        return 0;
    }
    return unknown_kind(kind, err);
}

int mj_device_open(const char *kind, const MjDeviceOptions *opt, MjDevice **out, MjError *err)
{
    MjDeviceOptions local = opt ? *opt : (MjDeviceOptions){0};
    const MjDeviceOps *ops = NULL;
    int code = MJ_ERR_MISSING;

    if (kind && *kind) {
        int rc = find_kind(kind, &ops, &local.ordinal, err);
        return rc != 0 ? rc : ops->open(&local, out, err);
    }
    for (int i = 0; i < N_KINDS && code == MJ_ERR_MISSING; i++) {
        mj_error_clear(err);
        code = kinds[i]->open(&local, out, err);
    }
    return code;
}

int mj_device_probe(const char *kind, const MjDeviceOptions *opt, MjDeviceInfo *out, MjError *err)
{
    MjDeviceOptions local = opt ? *opt : (MjDeviceOptions){0};
    const MjDeviceOps *ops = NULL;
    int code = MJ_ERR_MISSING;

    if (kind && *kind) {
        int rc = find_kind(kind, &ops, &local.ordinal, err);
        return rc != 0 ? rc : ops->probe(&local, out, err);
    }
    for (int i = 0; i < N_KINDS && code == MJ_ERR_MISSING; i++) {
        mj_error_clear(err);
        code = kinds[i]->probe(&local, out, err);
    }
    return code;
}

void mj_device_close(MjDevice *dev)
{
    if (dev) dev->ops->close(dev);
}

bool mj_target_fp8(const char *target)
{
    const char *digits = strncmp(target, "sm_", 3) == 0 ? target + 3 : strncmp(target, "compute_", 8) == 0 ? target + 8 : NULL;
    return !digits || strtol(digits, NULL, 10) >= 89;
}

bool mj_target_waits(const char *target)
{
    const char *digits = strncmp(target, "sm_", 3) == 0 ? target + 3 : strncmp(target, "compute_", 8) == 0 ? target + 8 : "";
    return strtol(digits, NULL, 10) >= 90;
}

MjFamily mj_target_family(const char *target)
{
    const char *digits = strncmp(target, "sm_", 3) == 0 ? target + 3 : strncmp(target, "compute_", 8) == 0 ? target + 8 : NULL;
    if (digits) {
        long number = strtol(digits, NULL, 10);
        if (number >= 100) return MJ_FAMILY_SM100;
        if (strcmp(target, "sm_90a") == 0) return MJ_FAMILY_SM90A;
        return MJ_FAMILY_SM80; /* plain sm_90 has no wgmma: the mma.sync kernels serve it */
    }
    return MJ_FAMILY_CPU;
}
