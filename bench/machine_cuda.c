/* What a cuda device can do, measured in the same way as ops are timed: a large copy on the card. Peaks are the data
 * sheet's, from the table of known cards. */
#include <math.h>

#include "bench/bench.h"

#define COPY_BYTES ((size_t)2 << 30) /* far beyond any L2 cache; less where the card is small */

typedef struct Copy {
    MjDevice *device;
    void *from, *to;
    size_t bytes;
} Copy;

static int launch_copy(void *user, MjError *err)
{
    const Copy *c = user;
    return c->device->ops->copy(c->device, c->to, c->from, c->bytes, err);
}

static int copy_rate(MjOps *ops, double seconds, double *out, MjError *err)
{
    MjDevice *dev = ops->device;
    const size_t memory = dev->ops->info(dev)->memory_bytes;
    Copy c = {.device = dev, .bytes = memory / 32 < COPY_BYTES ? memory / 32 / 256 * 256 : COPY_BYTES};
    MjGpuTimer *timer = NULL;
    MjTiming t;
    int rc = 0;
    MJ_TRY(dev->ops->alloc(dev, c.bytes, "copy", &c.from, err));
    MJ_TRY(dev->ops->alloc(dev, c.bytes, "copy", &c.to, err));
    MJ_TRY(dev->ops->fill(dev, c.from, 0x5a, c.bytes, err));
    MJ_TRY(mj_gpu_timer_open(ops, &timer, err));
    MJ_TRY(mj_gpu_timer_run(timer, launch_copy, &c, seconds, &t, err));
    *out = 2.0 * (double)c.bytes / t.median_s;
out:
    mj_gpu_timer_close(timer);
    if (c.from != NULL) dev->ops->free(dev, c.from);
    if (c.to != NULL) dev->ops->free(dev, c.to);
    return rc;
}

int mj_bench_machine_cuda(MjOps *ops, MjBlasLt *lt, double seconds, MjMachine *out, MjError *err)
{
    const MjDeviceInfo *info = ops->device->ops->info(ops->device);
    if (info->bf16_peak_flops > 0) {
        out->bf16_peak = info->bf16_peak_flops;
        if (ops->arch >= 89) out->fp8_peak = 2.0 * info->bf16_peak_flops; /* on every card in the table that has it */
    }
    int rc = copy_rate(ops, seconds, &out->copy_bytes, err);
    if (rc != 0 || lt == NULL) return rc;
    out->cublaslt = mj_blaslt_version(lt);
    return mj_bench_cublaslt_best(lt, ops, seconds, &out->bf16_flops, &out->fp8_flops, err);
}
