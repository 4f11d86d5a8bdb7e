// mj:template gemm_cpu
// mj:doc GEMM with activations on the left: C = A B^T (forward) and C = A B (dgrad), dense or grouped by expert.
// mj:family cpu
// mj:kernel gemm_cpu
// mj:args MjGemmArgs
// mj:param M varying min:1
// mj:param N fixed min:1
// mj:param K fixed multiple:2 min:2
// mj:param EXPERTS fixed min:1
// mj:param LAYOUT variant values:0,1
// mj:param GROUP variant values:0,1
// mj:param A_TYPE variant values:0,1,2
// mj:param B_TYPE variant values:0,1,2
// mj:param C_TYPE variant values:0,3
// mj:param SCALE_MODE variant values:0,1,2
// mj:param EPILOGUE variant values:0,1
// mj:param BLOCKS tuning default:4 values:4,16,64
// mj:generic LAYOUT=0 GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=0 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=0 GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=0 GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=1
// mj:generic LAYOUT=0 GROUP=1 A_TYPE=0 B_TYPE=0 C_TYPE=0 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=0 GROUP=0 A_TYPE=1 B_TYPE=1 C_TYPE=0 SCALE_MODE=1 EPILOGUE=0
// mj:generic LAYOUT=0 GROUP=0 A_TYPE=1 B_TYPE=1 C_TYPE=0 SCALE_MODE=2 EPILOGUE=0
// mj:generic LAYOUT=0 GROUP=0 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=1
// mj:generic LAYOUT=0 GROUP=0 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=1
// mj:generic LAYOUT=0 GROUP=1 A_TYPE=1 B_TYPE=1 C_TYPE=0 SCALE_MODE=1 EPILOGUE=0
// mj:generic LAYOUT=0 GROUP=1 A_TYPE=1 B_TYPE=1 C_TYPE=0 SCALE_MODE=2 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=0 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=0 A_TYPE=0 B_TYPE=0 C_TYPE=3 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=1 A_TYPE=0 B_TYPE=0 C_TYPE=0 SCALE_MODE=0 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=0 A_TYPE=2 B_TYPE=1 C_TYPE=0 SCALE_MODE=1 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=0 A_TYPE=1 B_TYPE=1 C_TYPE=0 SCALE_MODE=2 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=0 A_TYPE=2 B_TYPE=1 C_TYPE=3 SCALE_MODE=1 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=0 A_TYPE=1 B_TYPE=1 C_TYPE=3 SCALE_MODE=2 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=1 A_TYPE=2 B_TYPE=1 C_TYPE=0 SCALE_MODE=1 EPILOGUE=0
// mj:generic LAYOUT=1 GROUP=1 A_TYPE=1 B_TYPE=1 C_TYPE=0 SCALE_MODE=2 EPILOGUE=0

#include "gemm_core_cpu.h"

MJ_KERNEL(gemm_cpu, MjGemmArgs)
{
    mj_gemm_blocks(args, mj_block, mj_grid, mj_shared);
}
