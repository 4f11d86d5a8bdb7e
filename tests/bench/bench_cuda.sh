#!/usr/bin/env bash
# `mojit bench` on the simulated GPU: what it measures, and that it refuses to time a kernel whose results are wrong.
# usage: bench_cuda.sh MOJIT CHECKOUT SIMGPU_FOLDER
source "$(dirname "$0")/../cli/lib.sh"
export MOJIT_CUDA_LIBRARY_PATH=$3

expect 0 '^sum +static .* all ' "$mojit" bench sum --device cuda --mode static --seconds 0.01 --shape count=5000 --json b.json
field() { python3 -c 'import json, sys
v = json.load(open("b.json"))
for k in sys.argv[1].split("."): v = v[int(k)] if k.isdigit() else v[k]
print(v)' "$1"; }
is() { # FIELD PATTERN
    local got
    got=$(field "$1")
    [[ $got =~ $2 ]] || { echo "FAIL b.json: $1 is '$got', want /$2/"; failures=$((failures + 1)); }
}
is machine.kind '^cuda$'
is machine.copy_bytes_per_s '^[1-9]'
is machine.l2_bytes '^[1-9]'
is ops.0.runs '^[2-9][0-9]'
is ops.0.machine_rate '^copy$'
expect 2 'expected small or large' "$mojit" bench sum --device cuda --size big

# Pieces of rows have no offsets in memory; the library's baseline finds them nevertheless.
expect 0 'gemm +static' "$mojit" bench gemm --device cuda --mode static --seconds 0.01 --json b.json \
    --shape m=64,n=64,k=600,layout=2,group=2,experts=3,piece=256,a_type=1,b_type=1,scale_mode=2,c_type=3
is ops.0.library '^cuBLASLt fp8 block, a call a group$'

# A kernel that forgets the last row.
mkdir kernels
sed 's/MJ_FOR_ROWS(n, TOKENS) {/&\n        if (n == TOKENS - 1) continue;/' "$checkout/kernels_src/rmsnorm_fwd.cu" >kernels/rmsnorm_fwd.cu
check 'the spoilt kernel differs' bash -c "! cmp -s kernels/rmsnorm_fwd.cu '$checkout/kernels_src/rmsnorm_fwd.cu'"
export MOJIT_KERNELS=$work/kernels
expect 1 'not timed, its check fails: FAIL rmsnorm_fwd' "$mojit" bench rmsnorm_fwd --device cuda --mode static --seconds 0.01 \
    --shape tokens=40,live=40,width=130
finish
