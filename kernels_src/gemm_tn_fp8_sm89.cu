// mj:template gemm_tn_fp8_sm89
// mj:doc fp8 GEMM by mma.sync that sums over rows, operands stored along them: wgrad, dense or one product an expert.
// mj:family sm_89
// mj:kernel gemm_tn_fp8_sm89
// mj:args MjGemmArgs
// mj:param M fixed multiple:16 min:16
// mj:param N fixed multiple:16 min:16
// mj:param K varying min:1
// mj:param EXPERTS fixed min:1
// mj:param GROUP variant values:0,2
// mj:param A_TYPE variant values:1,2
// mj:param B_TYPE variant values:1,2
// mj:param C_TYPE variant values:0,3
// mj:param SCALE_MODE variant values:1,2
// mj:param EPILOGUE variant values:0,1
// mj:param TILE_M tuning default:128 values:64,128
// mj:param TILE_N tuning default:128 values:64,128
// mj:param STAGES tuning default:3 values:2,3,4
// mj:generic GROUP=0 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=1
// mj:generic GROUP=0 A_TYPE=2 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=1
// mj:generic GROUP=2 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=0
// mj:generic GROUP=2 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=1
// mj:generic GROUP=2 A_TYPE=2 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=0
// mj:generic GROUP=2 A_TYPE=2 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=1

#define LAYOUT MJ_GEMM_TN
#include "gemm_core_sm80.cuh"

MJ_KERNEL_BOUNDS(gemm_tn_fp8_sm89, MjGemmArgs, MJ_SM80_THREADS(TILE_M, TILE_N, MJ_BLOCK_SCALE), 1)
{
    mj_gemm_tiles_of_block(args, mj_block, mj_grid, (unsigned char *)mj_shared);
}
