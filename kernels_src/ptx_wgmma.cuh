/* wgmma and setmaxnreg (sm_90a), as ptx.cuh has the other instructions. MJ_WGMMA_COLS, defined before, says for how many columns
 * there are single wgmmas: the forms for all sixteen would cost a kernel 25 ms to compile. Without it there are none. */
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

/* Accumulators in the text of an instruction, and as its operands, eight a macro. */
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

#ifdef MJ_WGMMA_COLS
/* "wgmma.mma_async": d(64, N) (+)= A(64, K) B(K, N); N/2 accumulators a thread. `accumulate` 0 ignores d's old value.
 * TRANS 0 = K-major, 1 = MN-major (bf16 only). The register-A form takes the fragment of "Matrix
 * Fragments for wgmma.mma_async.m64nNk16"; operands in memory lie as "Shared Memory Matrix Layout" says. */
template <int Cols> struct MjWgmma;

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

#if MJ_WGMMA_COLS == 16
#define MJ_PTX_DS MJ_PTX_D8(d, 0)
MJ_PTX_WGMMA(16, MJ_PTX_L0, "8", "9", "10", "11", "12", "13", "14", "15")
#elif MJ_WGMMA_COLS == 32
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8)
MJ_PTX_WGMMA(32, MJ_PTX_L0 MJ_PTX_L1, "16", "17", "18", "19", "20", "21", "22", "23")
#elif MJ_WGMMA_COLS == 48
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16)
MJ_PTX_WGMMA(48, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2, "24", "25", "26", "27", "28", "29", "30", "31")
#elif MJ_WGMMA_COLS == 64
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24)
MJ_PTX_WGMMA(64, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3, "32", "33", "34", "35", "36", "37", "38", "39")
#elif MJ_WGMMA_COLS == 80
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32)
MJ_PTX_WGMMA(80, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4, "40", "41", "42", "43", "44", "45", "46", "47")
#elif MJ_WGMMA_COLS == 96
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40)
MJ_PTX_WGMMA(96, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5, "48", "49", "50", "51", "52", "53", "54", "55")
#elif MJ_WGMMA_COLS == 112
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48)
MJ_PTX_WGMMA(112, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6, "56", "57", "58", "59", "60", "61", "62", "63")
#elif MJ_WGMMA_COLS == 128
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56)
MJ_PTX_WGMMA(128, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7, "64", "65", "66", "67", "68", "69", "70", "71")
#elif MJ_WGMMA_COLS == 144
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64)
MJ_PTX_WGMMA(144, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8, "72", "73", "74", "75", "76", "77", "78", "79")
#elif MJ_WGMMA_COLS == 160
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72)
MJ_PTX_WGMMA(160, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9, "80", "81", "82", "83", "84", "85", "86", "87")
#elif MJ_WGMMA_COLS == 176
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80)
MJ_PTX_WGMMA(176, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10, "88", "89", "90", "91", "92", "93", "94", "95")
#elif MJ_WGMMA_COLS == 192
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88)
MJ_PTX_WGMMA(192, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11, "96", "97", "98", "99", "100", "101", "102", "103")
#elif MJ_WGMMA_COLS == 208
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96)
MJ_PTX_WGMMA(208, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12, "104", "105", "106", "107", "108", "109", "110", "111")
#elif MJ_WGMMA_COLS == 224
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96), MJ_PTX_D8(d, 104)
MJ_PTX_WGMMA(224, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12 MJ_PTX_L13, "112", "113", "114", "115", "116", "117", "118", "119")
#elif MJ_WGMMA_COLS == 240
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96), MJ_PTX_D8(d, 104), MJ_PTX_D8(d, 112)
MJ_PTX_WGMMA(240, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12 MJ_PTX_L13 MJ_PTX_L14, "120", "121", "122", "123", "124", "125", "126", "127")
#elif MJ_WGMMA_COLS == 256
#define MJ_PTX_DS MJ_PTX_D8(d, 0), MJ_PTX_D8(d, 8), MJ_PTX_D8(d, 16), MJ_PTX_D8(d, 24), MJ_PTX_D8(d, 32), MJ_PTX_D8(d, 40), MJ_PTX_D8(d, 48), MJ_PTX_D8(d, 56), MJ_PTX_D8(d, 64), MJ_PTX_D8(d, 72), MJ_PTX_D8(d, 80), MJ_PTX_D8(d, 88), MJ_PTX_D8(d, 96), MJ_PTX_D8(d, 104), MJ_PTX_D8(d, 112), MJ_PTX_D8(d, 120)
MJ_PTX_WGMMA(256, MJ_PTX_L0 MJ_PTX_L1 MJ_PTX_L2 MJ_PTX_L3 MJ_PTX_L4 MJ_PTX_L5 MJ_PTX_L6 MJ_PTX_L7 MJ_PTX_L8 MJ_PTX_L9 MJ_PTX_L10 MJ_PTX_L11 MJ_PTX_L12 MJ_PTX_L13 MJ_PTX_L14 MJ_PTX_L15, "128", "129", "130", "131", "132", "133", "134", "135")
#else
#error "MJ_WGMMA_COLS, the columns of the wgmmas that are used, is a multiple of 16 up to 256"
#endif
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
#endif

#endif /* sm_90a */
#endif
