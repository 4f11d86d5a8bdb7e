/* Runs of wgmmas over K, each in one statement, so that accumulators which are only written hold no registers before it (sm_90a).
 * bf16, K-major A and B in shared memory with the 128-byte swizzle: 4 steps of 16 are one slab of 64 columns, the next slab
 * begins `a_slab`, `b_slab` bytes further.
 *   rows:     d(64, Cols) = A(64, 16 Steps) B(Cols, 16 Steps)^T
 *   columns:  d(64, Cols) (+)= A(64, 16 Steps) B(16 Steps, Cols), A in registers, B MN-major; `accumulate` as in wgmma.
 * A in registers must be made anew for each product: fragments that a loop does not change were lost by ptxas 13.0, which put
 * others into their registers and did not load them again. */
#ifndef MJ_PTX_PRODUCT_CUH
#define MJ_PTX_PRODUCT_CUH

#include "ptx_wgmma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

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

#endif
#endif
