// mj:template gemm_tn_cpu
// mj:doc GEMM that sums over rows: C = A^T B (wgrad), dense or one product an expert.
// mj:family cpu
// mj:kernel gemm_tn_cpu
// mj:args MjGemmArgs
// mj:param M fixed min:1
// mj:param N fixed min:1
// mj:param K varying min:1
// mj:param EXPERTS fixed min:1
// mj:param GROUP variant values:0,2
// mj:param A_TYPE variant values:0,1,2
// mj:param B_TYPE variant values:0,1,2
// mj:param C_TYPE variant values:0,3
// mj:param SCALE_MODE variant values:0,1,2
// mj:param EPILOGUE variant values:0,1
// mj:param BLOCKS tuning default:4 values:4,16,64
// mj:generic GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=0
// mj:generic GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=1
// mj:generic GROUP=0 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=1
// mj:generic GROUP=0 A_TYPE=2 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=1
// mj:generic GROUP=2 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=0
// mj:generic GROUP=2 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=1
// mj:generic GROUP=2 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=0
// mj:generic GROUP=2 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=1
// mj:generic GROUP=2 A_TYPE=2 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=0
// mj:generic GROUP=2 A_TYPE=2 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=1

#define LAYOUT MJ_GEMM_TN
#include "gemm_core_cpu.h"

MJ_KERNEL(gemm_tn_cpu, MjGemmArgs)
{
    mj_gemm_blocks(args, mj_block, mj_grid, mj_shared);
}
