/* wgmma and setmaxnreg (sm_90a), as ptx.cuh has the other instructions. A header of its own: its 96 forms cost every kernel
 * that does not use them 30 ms to compile. */
#ifndef MJ_PTX_WGMMA_CUH
#define MJ_PTX_WGMMA_CUH

#include "ptx.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* "setmaxnreg": collective over a warpgroup; Regs a multiple of 8 in 24..256. */
template <int Regs> MJ_PTX void mj_ptx_setmaxnreg_inc(void) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Regs));
}
template <int Regs> MJ_PTX void mj_ptx_setmaxnreg_dec(void) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Regs));
}

/* "wgmma.fence": before the first wgmma, and whenever a register operand was written by other code since. */
MJ_PTX void mj_ptx_wgmma_fence(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/* "wgmma.commit_group", "wgmma.wait_group": accumulators may be read once their group is no longer in flight. */
MJ_PTX void mj_ptx_wgmma_commit(void) { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Groups> MJ_PTX void mj_ptx_wgmma_wait(void) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Groups) : "memory");
}
/* Keeps the compiler from moving uses of an accumulator across a wgmma that is in flight. */
template <int R> MJ_PTX void mj_ptx_wgmma_pin(float (&d)[R]) {
#pragma unroll
    for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* "Asynchronous Warpgroup Level Matrix Instructions: Matrix Descriptor Format". Offsets in bytes; `swizzle`: 1 = 128 B,
 * 2 = 64 B, 3 = 32 B, 0 none. */
MJ_PTX mj_u64 mj_ptx_wgmma_desc(mj_u32 addr, mj_u32 leading, mj_u32 stride, mj_u32 swizzle) {
    return (mj_u64)((addr & 0x3ffff) >> 4) | (mj_u64)((leading & 0x3ffff) >> 4) << 16 |
           (mj_u64)((stride & 0x3ffff) >> 4) << 32 | (mj_u64)swizzle << 62;
}

/* "wgmma.mma_async": d(64, N) (+)= A(64, K) B(K, N); N/2 accumulators a thread. `accumulate` 0 ignores d's old value.
 * TRANS 0 = K-major, 1 = MN-major (bf16 only). The register-A form takes the fragment of "Matrix
 * Fragments for wgmma.mma_async.m64nNk16"; operands in memory lie as "Shared Memory Matrix Layout" says. */
template <int Cols> struct MjWgmma;

#define MJ_PTX_L0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define MJ_PTX_L1 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define MJ_PTX_L2 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define MJ_PTX_L3 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define MJ_PTX_L4 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define MJ_PTX_L5 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define MJ_PTX_L6 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define MJ_PTX_L7 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define MJ_PTX_L8 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define MJ_PTX_L9 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define MJ_PTX_L10 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define MJ_PTX_L11 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define MJ_PTX_L12 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define MJ_PTX_L13 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define MJ_PTX_L14 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define MJ_PTX_L15 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define MJ_PTX_D8(d, i)                                                                                               \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])

/* R0..R7: operand numbers after the accumulators, as strings; MJ_PTX_DS: the accumulators. */
#define MJ_PTX_WGMMA(N, LIST, R0, R1, R2, R3, R4, R5, R6, R7)                                                     \
    template <> struct MjWgmma<N> {                                                                                   \
        template <int TA, int TB> MJ_PTX void bf16(float (&d)[N / 2], mj_u64 a, mj_u64 b, int acc) {                  \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" R2 ", 0;\n"                                            \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST "}, %" R0 ", %" R1         \
                         ", p, 1, 1, %" R3 ", %" R4 ";\n}"                                                            \
                         : MJ_PTX_DS : "l"(a), "l"(b), "r"(acc), "n"(TA), "n"(TB));                                          \
        }                                                                                                             \
        template <int TB> MJ_PTX void bf16_reg(float (&d)[N / 2], const mj_u32 (&a)[4], mj_u64 b, int acc) {          \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" R5 ", 0;\n"                                            \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST "}, {%" R0 ", %" R1        \
                         ", %" R2 ", %" R3 "}, %" R4 ", p, 1, 1, %" R6 ";\n}"                                         \
                         : MJ_PTX_DS : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(acc), "n"(TB));               \
        }                                                                                                             \
        MJ_PTX_WGMMA_FP8(N, e4m3_e4m3, "e4m3.e4m3", LIST, R0, R1, R2)                                             \
        MJ_PTX_WGMMA_FP8(N, e5m2_e4m3, "e5m2.e4m3", LIST, R0, R1, R2)                                             \
        MJ_PTX_WGMMA_FP8(N, e4m3_e5m2, "e4m3.e5m2", LIST, R0, R1, R2)                                             \
        MJ_PTX_WGMMA_FP8(N, e5m2_e5m2, "e5m2.e5m2", LIST, R0, R1, R2)                                             \
    };
#define MJ_PTX_WGMMA_FP8(N, NAME, TYPES, LIST, R0, R1, R2)                                                        \
    MJ_PTX void NAME(float (&d)[N / 2], mj_u64 a, mj_u64 b, int acc) {                                                \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" R2 ", 0;\n"                                                \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32." TYPES " {" LIST "}, %" R0 ", %" R1             \
                     ", p, 1, 1;\n}"                                                                                  \
                     : MJ_PTX_DS : "l"(a), "l"(b), "r"(acc));                                                                \
    }

#define MJ_PTX_DS MJ_PTX_D8(d, 0)
MJ_PTX_WGMMA(16, MJ_PTX_L0, "8", "9", "10", "11", "12", "13", "14", "15")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8)
MJ_PTX_WGMMA(32, MJ_PTX_L0 MJ_PTX_L1, "16", "17", "18", "19", "20", "21", "22", "23")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16)
MJ_PTX_WGMMA(48, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2, "24", "25", "26", "27", "28", "29", "30", "31")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24)
MJ_PTX_WGMMA(64, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3, "32", "33", "34", "35", "36", "37", "38", "39")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32)
MJ_PTX_WGMMA(80, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4, "40", "41", "42", "43", "44", "45", "46", "47")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40)
MJ_PTX_WGMMA(96, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5, "48", "49", "50", "51", "52", "53", "54", "55")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48)
MJ_PTX_WGMMA(112, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6, "56", "57", "58", "59", "60", "61", "62", "63")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56)
MJ_PTX_WGMMA(128, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7, "64", "65", "66", "67", "68", "69", "70", "71")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64)
MJ_PTX_WGMMA(144, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8, "72", "73", "74", "75", "76", "77", "78", "79")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72)
MJ_PTX_WGMMA(160, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9, "80", "81", "82", "83", "84", "85", "86", "87")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80)
MJ_PTX_WGMMA(176, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10, "88", "89", "90", "91", "92", "93", "94", "95")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88)
MJ_PTX_WGMMA(192, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11, "96", "97", "98", "99", "100", "101", "102", "103")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96)
MJ_PTX_WGMMA(208, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12, "104", "105", "106", "107", "108", "109", "110", "111")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96), MJ_PTX_D8(d, 104)
MJ_PTX_WGMMA(224, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12 MJ_PTX_L13, "112", "113", "114", "115", "116", "117", "118", "119")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96), MJ_PTX_D8(d, 104), MJ_PTX_D8(d, 112)
MJ_PTX_WGMMA(240, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12 MJ_PTX_L13 MJ_PTX_L14, "120", "121", "122", "123", "124", "125", "126", "127")
#undef MJ_PTX_DS
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96), MJ_PTX_D8(d, 104), MJ_PTX_D8(d, 112), MJ_PTX_D8(d, 120)
MJ_PTX_WGMMA(256, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12 MJ_PTX_L13 MJ_PTX_L14 MJ_PTX_L15, "128", "129", "130", "131", "132", "133", "134", "135")
#undef MJ_PTX_DS

/* Uniform over the columns: mj_ptx_wgmma_bf16<128, 0, 0>(d, a, b, k > 0). */
template <int Cols, int TA, int TB> MJ_PTX void mj_ptx_wgmma_bf16(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, int acc) {
    MjWgmma<Cols>::template bf16<TA, TB>(d, a, b, acc);
}
template <int Cols, int TB> MJ_PTX void mj_ptx_wgmma_bf16_reg(float (&d)[Cols / 2], const mj_u32 (&a)[4], mj_u64 b, int acc) {
    MjWgmma<Cols>::template bf16_reg<TB>(d, a, b, acc);
}
template <int Cols> MJ_PTX void mj_ptx_wgmma_e4m3_e4m3(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, int acc) {
    MjWgmma<Cols>::e4m3_e4m3(d, a, b, acc);
}
template <int Cols> MJ_PTX void mj_ptx_wgmma_e5m2_e4m3(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, int acc) {
    MjWgmma<Cols>::e5m2_e4m3(d, a, b, acc);
}
template <int Cols> MJ_PTX void mj_ptx_wgmma_e4m3_e5m2(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, int acc) {
    MjWgmma<Cols>::e4m3_e5m2(d, a, b, acc);
}
template <int Cols> MJ_PTX void mj_ptx_wgmma_e5m2_e5m2(float (&d)[Cols / 2], mj_u64 a, mj_u64 b, int acc) {
    MjWgmma<Cols>::e5m2_e5m2(d, a, b, acc);
}

/* ---- whole products (sm_90a) ---------------------------------------------------------------------------------------- */

/* A run of wgmmas over K in one statement, so that accumulators which are only written hold no registers before it. bf16, K-major A and B in shared memory with the 128-byte swizzle:
 * 4 steps of 16 are one slab of 64 columns, the next slab begins `a_slab`, `b_slab` bytes further.
 *   rows:     d(64, Cols) = A(64, 16 Steps) B(Cols, 16 Steps)^T
 *   columns:  d(64, Cols) (+)= A(64, 16 Steps) B(16 Steps, Cols), A in registers, B MN-major; `accumulate` as in wgmma.
 * A in registers must be made anew for each product: fragments that a loop does not change were lost by ptxas 13.0, which put
 * others into their registers and did not load them again. */
template <int Cols, int Steps> struct MjProduct;

#define MJ_PTX_W8(d, i)                                                                                               \
    "=f"(d[i]), "=f"(d[i + 1]), "=f"(d[i + 2]), "=f"(d[i + 3]), "=f"(d[i + 4]), "=f"(d[i + 5]), "=f"(d[i + 6]), "=f"(d[i + 7])
#define MJ_PTX_W64(d) MJ_PTX_W8(d, 0), MJ_PTX_W8(d, 8), MJ_PTX_W8(d, 16), MJ_PTX_W8(d, 24)
#define MJ_PTX_W128(d) MJ_PTX_W64(d), MJ_PTX_W8(d, 32), MJ_PTX_W8(d, 40), MJ_PTX_W8(d, 48), MJ_PTX_W8(d, 56)
#define MJ_PTX_D64(d) MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24)
#define MJ_PTX_D128(d) MJ_PTX_D64(d), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56)
#define MJ_PTX_LIST64 "{" MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 "}"
#define MJ_PTX_LIST128 "{" MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 "}"
#define MJ_PTX_R4(p, i) "r"(p[i][0]), "r"(p[i][1]), "r"(p[i][2]), "r"(p[i][3])
#define MJ_PTX_R16(p, i) MJ_PTX_R4(p, i), MJ_PTX_R4(p, i + 1), MJ_PTX_R4(p, i + 2), MJ_PTX_R4(p, i + 3)

/* One step: accumulators, A (a descriptor or four registers), predicate (q: overwrite, p: add), transposition of A and B. */
#define MJ_PTX_STEP(COLS, LIST, A, PRED, TRANS)                                                                       \
    "wgmma.mma_async.sync.aligned.m64n" #COLS "k16.f32.bf16.bf16 " LIST ", " A ", b, " PRED ", 1, 1, " TRANS ";\n"
#define MJ_PTX_OPEN(B) "{\n.reg .pred p, q;\n.reg .b64 a, b;\nsetp.eq.u32 p, 0, 0;\nsetp.ne.u32 q, 0, 0;\nmov.b64 b, " B ";\n"
#define MJ_PTX_AB(STEP_A, STEP_B) "add.s64 a, a, " STEP_A ";\nadd.s64 b, b, " STEP_B ";\n"
#define MJ_PTX_B(STEP_B) "add.s64 b, b, " STEP_B ";\n"
/* Addresses in a descriptor count 16 bytes: 32 bytes a step of K along rows, 16 rows of 128 bytes down columns. */
#define MJ_PTX_ROWS4(C, L, P0)                                                                                        \
    MJ_PTX_STEP(C, L, "a", P0, "0, 0") MJ_PTX_AB("2", "2") MJ_PTX_STEP(C, L, "a", "p", "0, 0") MJ_PTX_AB("2", "2")    \
    MJ_PTX_STEP(C, L, "a", "p", "0, 0") MJ_PTX_AB("2", "2") MJ_PTX_STEP(C, L, "a", "p", "0, 0")
#define MJ_PTX_REG4(C, L, P0, TRANS, BY, A0, A1, A2, A3)                                                              \
    MJ_PTX_STEP(C, L, A0, P0, TRANS) MJ_PTX_B(BY) MJ_PTX_STEP(C, L, A1, "p", TRANS) MJ_PTX_B(BY)                      \
    MJ_PTX_STEP(C, L, A2, "p", TRANS) MJ_PTX_B(BY) MJ_PTX_STEP(C, L, A3, "p", TRANS)

/* Operand numbers, as strings: X, Y, Z: the first three after the accumulators; F0..F7: fragments of four registers from
 * there; B4, C4 (B8, C8): the two operands after four (eight) fragments. */
#define MJ_PTX_PRODUCT(C, X, Y, Z, T, F0, F1, F2, F3, F4, F5, F6, F7, B4, C4, B8, C8)                                 \
    template <> struct MjProduct<C, 4> {                                                                              \
        template <int SA, int SB> MJ_PTX void rows(float (&d)[C / 2], mj_u64 a, mj_u64 b) {                           \
            asm volatile(MJ_PTX_OPEN(Y) "mov.b64 a, " X ";\n" MJ_PTX_ROWS4(C, MJ_PTX_LIST##C, "q") "}"               \
                         : MJ_PTX_W##C(d) : "l"(a), "l"(b));                                                          \
        }                                                                                                             \
        MJ_PTX void columns(float (&d)[C / 2], const mj_u32 (&a)[4][4], mj_u64 b, int acc) {                          \
            asm volatile(MJ_PTX_OPEN(B4) "setp.ne.b32 q, " C4 ", 0;\n"                                               \
                         MJ_PTX_REG4(C, MJ_PTX_LIST##C, "q", "1", "128", F0, F1, F2, F3) "}"                          \
                         : MJ_PTX_D##C(d) : MJ_PTX_R16(a, 0), "l"(b), "r"(acc));                                      \
        }                                                                                                             \
    };                                                                                                                \
    template <> struct MjProduct<C, 8> {                                                                              \
        template <int SA, int SB> MJ_PTX void rows(float (&d)[C / 2], mj_u64 a, mj_u64 b) {                           \
            asm volatile(MJ_PTX_OPEN(Y) "mov.b64 a, " X ";\n" MJ_PTX_ROWS4(C, MJ_PTX_LIST##C, "q")                   \
                         MJ_PTX_AB(Z, T) MJ_PTX_ROWS4(C, MJ_PTX_LIST##C, "p") "}"                                     \
                         : MJ_PTX_W##C(d) : "l"(a), "l"(b), "n"(SA / 16 - 6), "n"(SB / 16 - 6));                      \
        }                                                                                                             \
        MJ_PTX void columns(float (&d)[C / 2], const mj_u32 (&a)[8][4], mj_u64 b, int acc) {                          \
            asm volatile(MJ_PTX_OPEN(B8) "setp.ne.b32 q, " C8 ", 0;\n"                                               \
                         MJ_PTX_REG4(C, MJ_PTX_LIST##C, "q", "1", "128", F0, F1, F2, F3) MJ_PTX_B("128")              \
                         MJ_PTX_REG4(C, MJ_PTX_LIST##C, "p", "1", "128", F4, F5, F6, F7) "}"                          \
                         : MJ_PTX_D##C(d) : MJ_PTX_R16(a, 0), MJ_PTX_R16(a, 4), "l"(b), "r"(acc));                    \
        }                                                                                                             \
    };
MJ_PTX_PRODUCT(64, "%32", "%33", "%34", "%35", "{%32, %33, %34, %35}", "{%36, %37, %38, %39}",
               "{%40, %41, %42, %43}", "{%44, %45, %46, %47}", "{%48, %49, %50, %51}", "{%52, %53, %54, %55}",
               "{%56, %57, %58, %59}", "{%60, %61, %62, %63}", "%48", "%49", "%64", "%65")
MJ_PTX_PRODUCT(128, "%64", "%65", "%66", "%67", "{%64, %65, %66, %67}", "{%68, %69, %70, %71}",
               "{%72, %73, %74, %75}", "{%76, %77, %78, %79}", "{%80, %81, %82, %83}", "{%84, %85, %86, %87}",
               "{%88, %89, %90, %91}", "{%92, %93, %94, %95}", "%80", "%81", "%96", "%97")

template <int Cols, int Steps, int SA, int SB> MJ_PTX void mj_ptx_product_rows(float (&d)[Cols / 2], mj_u64 a, mj_u64 b) {
    MjProduct<Cols, Steps>::template rows<SA, SB>(d, a, b);
}
template <int Cols, int Steps>
MJ_PTX void mj_ptx_product_columns(float (&d)[Cols / 2], const mj_u32 (&a)[Steps][4], mj_u64 b, int acc) {
    MjProduct<Cols, Steps>::columns(d, a, b, acc);
}

#endif /* sm_90a */
#endif
