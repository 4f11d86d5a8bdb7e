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

static uint32_t blocks(const MjDevice *device) {
    return (uint32_t)(device->ops->info(device)->units * BLOCKS_PER_UNIT);
}

size_t mj_peak_scratch_bytes(const MjDevice *device) { return blocks(device) * sizeof(float); }

int mj_peak_measure(MjDevice *device, MjJit *jit, void *scratch, double *flops, MjError *err) {
    int rc = 0;
    const MjDeviceInfo *info = device->ops->info(device);
    const MjLaunchRecord *record = NULL;
    double seconds = 0, best = 0;
    uint32_t grid = blocks(device);
    if (info->family != MJ_FAMILY_CPU) {
        return mj_error(err, MJ_ERR_MISSING, "the bf16 peak of %s is not in the table of known devices", info->name);
    }
    MJ_TRY(get(jit, &record, err));
    int32_t iterations = 2000;
    MJ_TRY(timed(device, record, scratch, grid, iterations, &seconds, err));
    double scaled = iterations * RUN_S / seconds;
    iterations = scaled < 1e8 ? (int32_t)scaled + 1 : 100000000;
    for (int i = 0; i < RUNS; i++) {
        MJ_TRY(timed(device, record, scratch, grid, iterations, &seconds, err));
        double rate = (double)grid * iterations * MJ_PEAK_FLOPS_PER_ITERATION / seconds;
        if (rate > best) best = rate;
    }
    *flops = best;
out:
    return rc;
}
