/* Detection of the processor's instruction-set level: cpuid for what it can do, xgetbv for what the kernel saves. */
#include "runtime/cpu_isa.h"

#include <ctype.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "runtime/base/nearest.h"
#include "runtime/device.h"

enum { BASELINE, AVX2, AVX512, AVX512_BF16 };

#if defined(__x86_64__)
const MjCpuIsa mj_cpu_isas[] = {
    {"baseline", "cpu:baseline", "-march=x86-64", "SSE2"},
    {"avx2", "cpu:avx2", "-march=x86-64-v3", "AVX2 FMA F16C BMI1 BMI2 LZCNT MOVBE"},
    {"avx512", "cpu:avx512", "-march=x86-64-v4 -mprefer-vector-width=512", "AVX-512 F BW CD DQ VL"},
    {"avx512_bf16", "cpu:avx512_bf16",
     "-march=x86-64-v4 -mavx512bf16 -mavx512vnni -mavx512vbmi -mprefer-vector-width=512",
     "AVX-512 BF16 VNNI VBMI"},
};
#else
const MjCpuIsa mj_cpu_isas[] = {
    {"baseline", "cpu:baseline", "", "the compiler's default"},
};
#endif
const int mj_cpu_isa_count = (int)(sizeof mj_cpu_isas / sizeof mj_cpu_isas[0]);

static pthread_once_t detect_once = PTHREAD_ONCE_INIT;
static int hardware_row;

#if defined(__x86_64__)
static bool has(uint32_t reg, uint32_t bits)
{
    return (reg & bits) == bits;
}

/* Bit masks are those of the vendors' CPUID tables. */
static int detect(void)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    const uint32_t leaf1_c = 1u << 0 | 1u << 9 | 1u << 12 | 1u << 13 | 1u << 19 | 1u << 20 | 1u << 22 | 1u << 23 |
                             1u << 27 | 1u << 28 | 1u << 29; /* SSE3..SSE4.2 FMA CX16 MOVBE POPCNT OSXSAVE AVX F16C */
    const uint32_t leaf7_avx2_b = 1u << 3 | 1u << 5 | 1u << 8;                            /* BMI1 AVX2 BMI2 */
    const uint32_t leaf7_avx512_b = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31; /* F DQ CD BW VL */
    const uint32_t leaf7_bf16_c = 1u << 1 | 1u << 11;                                     /* VBMI VNNI */

    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, leaf1_c)) return BASELINE;
    uint32_t xcr0, xcr0_high;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(xcr0_high) : "c"(0));
    if (!has(xcr0, 1u << 1 | 1u << 2)) return BASELINE; /* the kernel saves xmm and ymm */
    if (!__get_cpuid(0x80000001u, &a, &b, &c, &d) || !has(c, 1u << 0 | 1u << 5)) return BASELINE; /* LAHF LZCNT */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, leaf7_avx2_b)) return BASELINE;
    if (!has(xcr0, 1u << 5 | 1u << 6 | 1u << 7) || !has(b, leaf7_avx512_b)) return AVX2; /* masks and zmm */
    if (!has(c, leaf7_bf16_c) || a < 1) return AVX512;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !has(a, 1u << 5)) return AVX512; /* AVX512_BF16 */
    return AVX512_BF16;
}
#else
static int detect(void)
{
    return BASELINE;
}
#endif

static void detect_into(void)
{
    hardware_row = detect();
}

int mj_cpu_isa_hardware(void)
{
    pthread_once(&detect_once, detect_into);
    return hardware_row;
}

int mj_cpu_isa_find(const char *name)
{
    for (int i = 0; i < mj_cpu_isa_count; i++)
        if (strcmp(name, mj_cpu_isas[i].name) == 0 || strcmp(name, mj_cpu_isas[i].target) == 0) return i;
    return -1;
}

int mj_cpu_isa_select(const char *isa, int *row, MjError *err)
{
    const char *from = "the instruction-set option";

    if (!isa || !*isa) {
        isa = getenv("MOJIT_ISA");
        from = "MOJIT_ISA";
    }
    if (!isa || !*isa) {
        *row = mj_cpu_isa_hardware();
        return 0;
    }
    int found = mj_cpu_isa_find(isa);
    if (found < 0) {
        const char *names[8];
        for (int i = 0; i < mj_cpu_isa_count; i++) names[i] = mj_cpu_isas[i].name;
        const char *near = mj_nearest(isa, names, (size_t)mj_cpu_isa_count);
        return mj_error(err, MJ_ERR_USAGE,
                        "%s: unknown instruction-set level '%s'%s%s%s; expected baseline%s", from, isa,
                        near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "",
                        mj_cpu_isa_count > 1 ? ", avx2, avx512 or avx512_bf16" : "");
    }
    if (found > mj_cpu_isa_hardware())
        return mj_error(err, MJ_ERR_USAGE,
                        "%s: this machine cannot run level '%s' (it needs %s); the highest here is '%s'", from, isa,
                        mj_cpu_isas[found].needs, mj_cpu_isas[mj_cpu_isa_hardware()].name);
    *row = found;
    return 0;
}

const char *mj_cpu_target(void)
{
    int row = mj_cpu_isa_hardware();

    /* A bad MOJIT_ISA is reported where a device is opened; here the hardware's level stands. */
    if (mj_cpu_isa_select(NULL, &row, NULL) != 0) row = mj_cpu_isa_hardware();
    return mj_cpu_isas[row].target;
}

const char *mj_cpu_target_flags(const char *target)
{
    int row = strncmp(target, "cpu:", 4) == 0 ? mj_cpu_isa_find(target) : -1;

    if (strcmp(target, "cpu") == 0) row = mj_cpu_isa_find(mj_cpu_target());
    return row >= 0 ? mj_cpu_isas[row].flags : NULL;
}

void mj_cpu_name(char *buf, size_t cap)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "re");

    snprintf(buf, cap, "unknown CPU");
    if (!f) return;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "model name", 10) != 0) continue;
        const char *value = strchr(line, ':');
        if (!value) continue;
        size_t n = 0; /* runs of spaces become one */
        for (value++; *value && n + 1 < cap; value++) {
            if (isspace((unsigned char)*value) && (n == 0 || buf[n - 1] == ' ')) continue;
            buf[n++] = isspace((unsigned char)*value) ? ' ' : *value;
        }
        while (n > 0 && buf[n - 1] == ' ') n--;
        buf[n] = '\0';
        break;
    }
    fclose(f);
}
