#!/usr/bin/env bash
# The tolerance of fp8 products tells an accumulator of 14 bits from one of 12: too_short.sh CHECK_OPS. MOJIT_CUDA_LIBRARY_PATH names the
# simulated GPU. A tolerance that lets 12 bits pass would let anything pass.
set -u
shape=m=77,n=320,k=256,a_type=1,b_type=1,scale_mode=2,kmajor=1
if ! command -v g++ >/dev/null; then
    echo "skipped: the simulated GPU compiles kernels with g++, which is not installed"
    exit 77
fi
for bits in 0 13; do # 0: summed exactly
    if ! MOJIT_SIMGPU_FP8_BITS=$bits "$1" --device cuda --mode static gemm --shape "$shape"; then
        echo "FAIL an fp8 product with sums cut $bits bits below the largest term is within the tolerance"
        exit 1
    fi
done
out=$(MOJIT_SIMGPU_FP8_BITS=11 "$1" --device cuda --mode static gemm --shape "$shape")
if [ $? -ne 1 ] || [[ $out != *"FAIL gemm[static]($shape)"* ]]; then
    echo "FAIL sums cut 11 bits below the largest term are refused: $out"
    exit 1
fi
