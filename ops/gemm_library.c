/* See gemm_library.h. */
#include "ops/gemm_library.h"

_Static_assert((int)MJ_LT_BF16 == MJ_T_BF16 && (int)MJ_LT_E4M3 == MJ_T_E4M3 && (int)MJ_LT_E5M2 == MJ_T_E5M2 &&
                   (int)MJ_LT_F32 == MJ_T_F32, "the library's types have the numbers of MJ_T_*");

#define SCALE_STRIDE 4 /* 128 x 128 scales: the library wants rows of a multiple of this */

bool mj_gemm_library_map(const MjGemmArgs *g, int64_t pin_rows, MjLtGemm *out)
{
    const bool fp8 = g->a_type != MJ_T_BF16, tn = g->layout == MJ_GEMM_TN;
    const int64_t along = tn && g->kmajor != 0 ? MJ_KMAJOR_STRIDE(g->k) : g->k;
    if (g->group != MJ_GROUP_NONE || g->k == 0) return false;
    if (fp8 && g->kmajor == 0 && g->layout != MJ_GEMM_NT) return false;
    if (fp8 && (g->n % 16 != 0 || along % 16 != 0 || g->scale_mode == MJ_SCALE_NONE)) return false;
    if (g->epilogue == MJ_EPI_ACCUMULATE && g->c_type != MJ_T_F32) return false;
    MjLtGemm lt = {
        .a = g->a, .b = g->b, .c = g->c, .a_scale = g->a_scale, .b_scale = g->b_scale, .m = g->m, .n = g->n, .k = fp8 ? along : g->k,
        .a_across = tn && g->kmajor == 0, .b_across = g->layout != MJ_GEMM_NT && g->kmajor == 0,
        .a_type = (MjLtType)g->a_type, .b_type = (MjLtType)g->b_type, .c_type = (MjLtType)g->c_type,
        .accumulate = g->epilogue == MJ_EPI_ACCUMULATE,
    };
    lt.a_ld = lt.a_across ? g->m : along;
    lt.b_ld = lt.b_across ? g->n : along;
    if (g->scale_mode == MJ_SCALE_TENSOR) lt.a_scaling = lt.b_scaling = MJ_LT_SCALE_TENSOR;
    if (g->scale_mode == MJ_SCALE_BLOCK) {
        /* NN: the weights' scales stand as those of (out, in), across what the library reads. */
        if (g->layout == MJ_GEMM_NN || along % MJ_FP8_BLOCK != 0) return false;
        if (!tn && along / MJ_FP8_BLOCK % SCALE_STRIDE != 0) return false;
        lt.a_scaling = MJ_LT_SCALE_ROWS;
        lt.b_scaling = tn ? MJ_LT_SCALE_ROWS : MJ_LT_SCALE_BLOCKS;
    }
    if (pin_rows > 0) {
        const int64_t rows = fp8 && tn ? MJ_KMAJOR_STRIDE(pin_rows) : pin_rows;
        lt.pin_m = tn ? g->m : rows;
        lt.pin_k = tn ? rows : lt.k;
    }
    *out = lt;
    return true;
}

bool mj_gemm_library_rule(MjDenseGemm choice, const MjGemmArgs *g)
{
    MjLtGemm lt;
    if (choice == MJ_DENSE_MOJIT || g->group != MJ_GROUP_NONE) return false;
    if (choice == MJ_DENSE_AUTO && !(MJ_LIBRARY_KEEPS_BITS && g->a_type == MJ_T_BF16)) return false;
    MjGemmArgs any = *g; /* whatever the step's rows are */
    if (g->layout == MJ_GEMM_TN) any.k = MJ_GROUP_ALIGN;
    else any.m = MJ_GROUP_ALIGN;
    return mj_gemm_library_map(&any, 0, &lt);
}
