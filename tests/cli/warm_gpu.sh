#!/usr/bin/env bash
# What a cluster does with a GPU that the login node lacks: warm the plan of an FP8 MoE model for a target, ship it, train with
# the cache that came and no compiler. On the simulated GPU.   usage: warm_gpu.sh MOJIT CHECKOUT LIBRARIES
libraries=$(realpath "$3")
source "$(dirname "$0")/lib.sh"
command -v g++ >/dev/null || { echo 'skipped: no g++, which the simulated GPU compiles with'; exit 77; }
make_data
export MOJIT_CUDA_LIBRARY_PATH=$libraries
moe=("${tiny[@]}" --set model.depth=1 --set precision.linears=fp8 --set precision.experts=fp8 --set train.batch=1
    --set train.seq_len=64 --set train.eval_every=0 --set data.held_out= --set run.device=cuda --mode static)

# The login node: no device, and every op of the step in the plan.
MOJIT_CACHE=$work/login expect 0 'kernels in the cache, [0-9]+ of them compiled now' "$mojit" warm "${moe[@]}" --target sm_90a
check 'no op is left out of the plan' bash -c '! grep -q "left out" said'
kernels=$(sed -nE 's/^mojit: ([0-9]+) kernels in the cache.*/\1/p' said)
MOJIT_CACHE=$work/login expect 0 "$kernels kernels in the cache, none to compile" "$mojit" warm "${moe[@]}" --target sm_90a
MOJIT_CACHE=$work/login expect 0 '' "$mojit" cache export plan.tar.zst

# The node with the card: a cache of its own, and no compiler.
export MOJIT_CACHE=$work/node
expect 0 '' "$mojit" cache import plan.tar.zst
mkdir no-nvrtc
ln -s "$libraries"/libcuda.so* no-nvrtc/
export MOJIT_CUDA_LIBRARY_PATH=$work/no-nvrtc
expect 0 'compiles: 0 ' "$mojit" train "${moe[@]}" --steps 1 --out run --set jit.require_warm=true
check 'every kernel came from the cache' grep -qE '"compiles": 0' run/result.json
check 'and no compiler was opened' grep -qE '"compiler_loads": 0' run/result.json
# A shape that was not warmed: refused before step 0.
expect 3 'not in the cache' "$mojit" train "${moe[@]}" --steps 1 --out other --set jit.require_warm=true --set train.seq_len=128
finish
