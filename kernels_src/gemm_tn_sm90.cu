// mj:template gemm_tn_sm90
// mj:doc GEMM that sums over rows for Hopper: C = A^T B (wgrad), dense or one product an expert.
// mj:family sm_90a
// mj:kernel gemm_tn_sm90
// mj:args MjGemmArgs
// mj:param M fixed multiple:8 min:8
// mj:param N fixed multiple:8 min:8
// mj:param K varying min:1
// mj:param EXPERTS fixed min:1
// mj:param GROUP variant values:0,2
// mj:param A_TYPE variant values:0,1,2
// mj:param B_TYPE variant values:0,1,2
// mj:param C_TYPE variant values:0,3
// mj:param SCALE_MODE variant values:0,1,2
// mj:param EPILOGUE variant values:0,1
// mj:param TILE_M tuning default:256 values:128,192,256
// mj:param TILE_N tuning default:128 values:64,128,192,256
// mj:param STAGES tuning default:4 values:3,4,5,6
// mj:param CHUNKS tuning default:2 min:1 max:4
// mj:param CLUSTER tuning default:2 values:1,2
// mj:param ORDER tuning default:0 min:0 max:4
// mj:param BAND tuning default:0 min:0 max:64
// mj:generic GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=0
// mj:generic GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=1
// mj:generic GROUP=0 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=1 TILE_M=128
// mj:generic GROUP=0 A_TYPE=2 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=1
// mj:generic GROUP=2 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=0
// mj:generic GROUP=2 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=1
// mj:generic GROUP=2 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=1 TILE_M=128 TILE_N=192 CLUSTER=1
// mj:generic GROUP=2 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=0 TILE_M=192
// mj:generic GROUP=2 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=1 TILE_M=192
// mj:generic GROUP=2 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=1 TILE_M=192 CLUSTER=1
// mj:generic GROUP=2 A_TYPE=2 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=0
// mj:generic GROUP=2 A_TYPE=2 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=1

#define LAYOUT MJ_GEMM_TN
#include "gemm_core_sm90.cuh"

extern "C" __global__ void __launch_bounds__(MJ_SM90_THREADS(TILE_M), 1)
    gemm_tn_sm90(const __grid_constant__ MjGemmArgs args, const __grid_constant__ MjGemmMaps maps)
{
    mj_gemm_block(&args, &maps);
}
