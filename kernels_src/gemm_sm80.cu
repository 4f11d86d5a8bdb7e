// mj:template gemm_sm80
// mj:doc bf16 GEMM by mma.sync: C = A B^T (forward) and C = A B (dgrad), dense or grouped by expert.
// mj:family sm_80
// mj:kernel gemm_sm80
// mj:args MjGemmArgs
// mj:param M varying min:1
// mj:param N fixed multiple:16 min:16
// mj:param K fixed multiple:16 min:16
// mj:param EXPERTS fixed min:1
// mj:param LAYOUT variant values:0,1
// mj:param GROUP variant values:0,1
// mj:param A_TYPE variant values:0
// mj:param B_TYPE variant values:0
// mj:param C_TYPE variant values:0,3
// mj:param SCALE_MODE variant values:0
// mj:param EPILOGUE variant values:0,1
// mj:param TILE_M tuning default:128 values:64,128
// mj:param TILE_N tuning default:128 values:64,128,256
// mj:param STAGES tuning default:3 values:2,3,4,5
// mj:generic LAYOUT=0 GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=0 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=0 GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=0 GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=1
// mj:generic LAYOUT=0 GROUP=1 A_TYPE=0 B_TYPE=0 C_TYPE=0 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=0 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=1 A_TYPE=0 B_TYPE=0 C_TYPE=0 SCALE_MODE=0 EPILOGUE=0

#include "gemm_core_sm80.cuh"

MJ_KERNEL_BOUNDS(gemm_sm80, MjGemmArgs, MJ_SM80_THREADS(TILE_M, TILE_N, 0), 1)
{
    mj_gemm_tiles_of_block(args, mj_block, mj_grid, (unsigned char *)mj_shared);
}
