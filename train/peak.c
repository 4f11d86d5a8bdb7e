/* Measuring a CPU's bf16 dot-product rate. */
#include "train/peak.h"

#include <string.h>

#include "kernels_src/gemm_tile.h"
#include "kernels_src/kernel_args.h"
#include "runtime/base/clock.h"

enum { RUNS = 4, BLOCKS_PER_UNIT = 4 };
static const double RUN_S = 0.008;

static int get(MjJit *jit, const MjLaunchRecord **record, MjError *err) {
    const MjTemplate *tmpl = NULL;
    int rc = mj_jit_template(jit, "peak_cpu", &tmpl, err);
    if (rc != 0) return rc;
    MjRequest request;
    memset(&request, 0, sizeof request);
    request.tmpl = tmpl;
    return mj_jit_get(jit, &request, record, err);
}

int mj_peak_record(MjJit *jit, MjFamily family, MjError *err) {
    const MjLaunchRecord *record = NULL;
    return family == MJ_FAMILY_CPU ? get(jit, &record, err) : 0;
}

static int timed(MjDevice *device, const MjLaunchRecord *record, float *out, uint32_t grid, int32_t iterations,
                 double *seconds, MjError *err) {
    MjPeakArgs args = {.out = out, .iterations = iterations};
    MjLaunch launch = {.grid = grid, .block = 1, .args = &args, .args_bytes = sizeof args, .label = "peak"};
    uint64_t from = mj_clock_ns();
    int rc = device->ops->launch(device, record->fn, &launch, err);
    if (rc == 0) rc = device->ops->synchronize(device, err);
    *seconds = (double)(mj_clock_ns() - from + 1) * 1e-9;
    return rc;
}

int mj_peak_measure(MjDevice *device, MjJit *jit, double *flops, MjError *err) {
    int rc = 0;
    const MjDeviceInfo *info = device->ops->info(device);
    const MjLaunchRecord *record = NULL;
    void *out = NULL;
    double seconds = 0, best = 0;
    uint32_t grid = (uint32_t)(info->units * BLOCKS_PER_UNIT);
    if (info->family != MJ_FAMILY_CPU) {
        return mj_error(err, MJ_ERR_MISSING, "the bf16 peak of %s is not in the table of known devices", info->name);
    }
    MJ_TRY(get(jit, &record, err));
    MJ_TRY(device->ops->alloc(device, grid * sizeof(float), "peak", &out, err));
    int32_t iterations = 2000;
    MJ_TRY(timed(device, record, out, grid, iterations, &seconds, err));
    double scaled = iterations * RUN_S / seconds;
    iterations = scaled < 1e8 ? (int32_t)scaled + 1 : 100000000;
    for (int i = 0; i < RUNS; i++) {
        MJ_TRY(timed(device, record, out, grid, iterations, &seconds, err));
        double rate = (double)grid * iterations * MJ_PEAK_FLOPS_PER_ITERATION / seconds;
        if (rate > best) best = rate;
    }
    *flops = best;
out:
    if (out != NULL) device->ops->free(device, out);
    return rc;
}
