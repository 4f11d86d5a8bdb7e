#!/usr/bin/env bash
# run.dense_gemm = cublaslt: trains on the simulated GPU, with graphs and without, in every mode, beside kernels that overlap; refused
# where it cannot be.
# usage: dense_gemm.sh MOJIT CHECKOUT SIMGPU_FOLDER
cache=$MOJIT_CACHE
source "$(dirname "$0")/../cli/lib.sh"
export MOJIT_CUDA_LIBRARY_PATH=$3 MOJIT_CACHE=$cache
make_data
small=("${tiny[@]}" --set data.held_out= --set model.depth=1 --set train.batch=1 --set train.loss_chunk=128 --steps 3)

expect 3 'cuBLASLt runs on cuda devices' "$mojit" train "${small[@]}" --device cpu --set run.dense_gemm=cublaslt
expect 2 'dense_gemm' "$mojit" train "${small[@]}" --set run.dense_gemm=cublas
losses() { grep -o '"loss": *[0-9.e+-]*' "$1/steps.jsonl"; }
for mode in static dynamic; do
    for graphs in true false; do
        out=$mode-$graphs
        expect 0 'dense products by cuBLASLt' "$mojit" train "${small[@]}" --device cuda --mode "$mode" --set run.dense_gemm=cublaslt \
            --set run.graphs=$graphs --set run.overlap=true --out "$out"
        losses "$out" >"$out.losses"
        check "three losses in $out" test "$(wc -l <"$out.losses")" = 3
        check "$out trains as static-true does" cmp "$out.losses" static-true.losses
    done
done
expect 0 'done: 3 steps' "$mojit" train "${small[@]}" --device cuda --mode static --set run.dense_gemm=mojit --out own
check 'the first loss is that of our own GEMM' test "$(losses own | head -1 | cut -c1-15)" = "$(head -1 static-true.losses | cut -c1-15)"
finish
