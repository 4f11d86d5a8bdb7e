// mj:template peak_cpu
// mj:doc The bf16 dot-product rate of a core without memory: what MFU and percentages of peak are measured against.
// mj:family cpu
// mj:kernel peak_cpu
// mj:args MjPeakArgs

#include "gemm_tile.h"
#include "vec_cpu.h"

/* As many accumulators as the registers of a level hold; an iteration is the same work at every level. */
#define MJ_PEAK_CHAINS (MJ_VL == 16 ? 24 : 8)
#define MJ_PEAK_ROUNDS (24 * 16 / (MJ_PEAK_CHAINS * MJ_VL))

MJ_KERNEL(peak_cpu, MjPeakArgs)
{
    mj_vf acc[MJ_PEAK_CHAINS];
    mj_vu a = mj_vu_set1(0x3f803f80u), b = mj_vu_set1(0x00003f80u);
#pragma GCC unroll 24
    for (int i = 0; i < MJ_PEAK_CHAINS; i++) acc[i] = mj_vf_set1((float)i); /* equal ones would be computed once */
    for (int32_t n = 0; n < args->iterations; n++) {
        for (int round = 0; round < MJ_PEAK_ROUNDS; round++) {
            __asm__ volatile("" : "+x"(a), "+x"(b)); /* unknown operands: the work can't be hoisted */
#pragma GCC unroll 24 /* else the compiler may keep the accumulators in memory, and time that */
            for (int i = 0; i < MJ_PEAK_CHAINS; i++) acc[i] = mj_vdot(acc[i], a, b);
        }
    }
    mj_vf sum = (mj_vf){0};
#pragma GCC unroll 24
    for (int i = 0; i < MJ_PEAK_CHAINS; i++) sum += acc[i];
    args->out[mj_block] = sum[0];
}
