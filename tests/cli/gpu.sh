#!/usr/bin/env bash
# The command line on a machine with simulated GPUs: what doctor finds, what a sweep's progress shows, and what is said when
# something is missing or breaks.      usage: gpu.sh MOJIT CHECKOUT FOLDER_WITH_THE_SIMULATOR PACK_OF_ITS_GENERIC_KERNELS
simulator=$(realpath "$3")
pack=$(realpath "$4")
source "$(dirname "$0")/lib.sh"
make_data
export MOJIT_CACHE=$work/cache

sim() { # [NAME=VALUE]... COMMAND...: with a simulated GPU
    env MOJIT_CUDA_LIBRARY_PATH="$simulator" "$@"
}

# ---- doctor
expect 0 'nvidia driver +found +libcuda.so.1, CUDA 13.0' sim "$mojit" doctor
expect 0 'cuda device +found +Simulated GPU, sm_90a, 8.0 GiB' sim "$mojit" doctor
expect 0 'cuda device +found +Simulated GPU.*; it has no memory pools' sim MOJIT_SIMGPU_POOLS=0 "$mojit" doctor
expect 0 'nvml +found +NVML 13.580.82, driver 580.82.07; GPU 0 Simulated GPU: 37 % busy, 2.0 GiB of 8.0 GiB in use; GPU 1 .* 38 %' \
    sim MOJIT_SIMGPU_DEVICES=2 "$mojit" doctor
expect 0 'nvml +missing +the NVIDIA driver is 470.1; mojit needs 525' sim MOJIT_SIMGPU_NVML_DRIVER=470.1 "$mojit" doctor
expect 0 'nvml +missing .*reboot after the driver.s update' sim MOJIT_SIMGPU_NVML_ERROR=18 "$mojit" doctor
expect 0 'nvml +missing +no NVML' env MOJIT_CUDA_LIBRARY_PATH=/nonexistent "$mojit" doctor
expect 0 'nvidia driver +missing +no NVIDIA driver' env MOJIT_CUDA_LIBRARY_PATH=/nonexistent "$mojit" doctor

# ---- a sweep shows what the GPUs do
cat >s.ini <<END
[sweep]
name = little
config = $checkout/configs/tiny.ini
[defaults]
data.train = t_train.bin
data.held_out = t_val.bin
train.steps = 2
train.eval_tokens = 2048
jit.mode = nocompile
run.device = cpu
[run a]
precision.experts = bf16
END
expect 0 'Comparison' sim MOJIT_SIMGPU_DEVICES=2 MOJIT_SIMGPU_USE=61 "$mojit" sweep s.ini --out sw
check 'progress shows GPU 0' grep -qE '^\| GPU 0 Simulated GPU +\| +61' sw/progress.md
check 'progress shows GPU 1' grep -qE '^\| GPU 1 Simulated GPU +\| +62.*2\.0 GiB.*8\.0 GiB' sw/progress.md

# ---- tiles: what was measured on a device is what later runs on it take, and --explain says so
tiny='tokens=64,live=64,heads=1,head_dim=64,window=64,rows=64'
expect 0 'chosen by the least time by the model; not measured on this device' sim "$mojit" kernels --explain "attention_fwd $tiny"
expect 0 '1 shape on Simulated GPU: .* kept in the cache' sim "$mojit" tune attention_fwd --shape "$tiny" --candidates 2 --seconds 0.001
expect 0 'chosen by .mojit tune. on this device \(median_us: ' sim "$mojit" kernels --explain "attention_fwd $tiny"
check 'the row that runs is marked' grep -qE ' measured +STAGES=' said
expect 0 'not measured on this device' sim MOJIT_SIMGPU_NAME='NVIDIA H200' "$mojit" kernels --explain "attention_fwd $tiny"
expect 0 'tuned attention_fwd_sm90 on Simulated GPU' sim "$mojit" cache list
expect 2 'give one of them' sim "$mojit" kernels --explain "attention_fwd $tiny" --device cuda --target sm_90a

# ---- --device defaults to the best that is there
expect 0 'Simulated GPU' sim "$mojit" bench sum --mode static --seconds 0.01 --shape count=5000 --json b.json
check 'bench ran on the GPU' grep -q '"kind": *"cuda"' b.json
expect 0 'sm_90a' sim "$mojit" warm --config "$checkout/configs/tiny.ini" --set data.train=t_train.bin --set data.held_out= \
    --mode static --dry-run
expect 0 'cpu:' env MOJIT_CUDA_LIBRARY_PATH=/nonexistent "$mojit" warm --config "$checkout/configs/tiny.ini" \
    --set data.train=t_train.bin --set data.held_out= --mode static --dry-run
on_cpu=(--config "$checkout/configs/tiny.ini" --set data.train=t_train.bin --set data.held_out= --mode nocompile --steps 2)
expect 0 'done: 2 steps' env MOJIT_CUDA_LIBRARY_PATH=/nonexistent "$mojit" train "${on_cpu[@]}" --out o
check 'no driver: not a word about GPUs' bash -c '! grep -qi "gpu\|nvidia" said'
check 'config.ini says what was used' grep -qE '^device = cpu' o/config.ini
expect 0 'running on the cpu .*no usable NVIDIA GPU' sim MOJIT_SIMGPU_DEVICES=0 "$mojit" train "${on_cpu[@]}"
expect 0 'running on the cpu .*capability 7.5' sim MOJIT_SIMGPU_ARCH=sm_75 "$mojit" train "${on_cpu[@]}"

# ---- what is missing or breaks: a clear message, exit status 3 or 1
gpu=(--config "$checkout/configs/tiny.ini" --set data.train=t_train.bin --set data.held_out= --device cuda --steps 2)
expect 3 'no NVIDIA driver: .*--device cpu' env MOJIT_CUDA_LIBRARY_PATH=/nonexistent "$mojit" train "${gpu[@]}"
expect 3 'supports CUDA 11.8; mojit needs 12.0 or later' sim MOJIT_SIMGPU_DRIVER=11080 "$mojit" train "${gpu[@]}"
expect 3 'NVRTC 13.* makes images for drivers of CUDA 13.0 and later, .* supports CUDA 12.4: update the driver, or install NVRTC 12' \
    sim MOJIT_SIMGPU_DRIVER=12040 "$mojit" train "${gpu[@]}" --mode static
expect 3 'the generic kernels in .* were made by CUDA 13, and the driver supports CUDA 12.4 .*: update the driver, or take --mode static or dynamic with an NVRTC 12' \
    sim MOJIT_SIMGPU_DRIVER=12040 MOJIT_GENERIC_PATH="$pack" "$mojit" train "${gpu[@]}" --mode nocompile
expect 3 'no usable NVIDIA GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES' sim MOJIT_SIMGPU_DEVICES=0 "$mojit" train "${gpu[@]}"
expect 3 'no device cuda:4: 1 is present' sim "$mojit" train "${gpu[@]}" --device cuda:4
expect 3 'A100 \(sm_80\) has no FP8 arithmetic.* Set precision.experts = bf16; everything else' \
    sim MOJIT_SIMGPU_ARCH=sm_80 MOJIT_SIMGPU_NAME='NVIDIA A100' "$mojit" train "${gpu[@]}" --set precision.experts=fp8
expect 3 'Set precision.linears = bf16 and precision.experts = bf16' \
    sim MOJIT_SIMGPU_ARCH=sm_86 "$mojit" train "${gpu[@]}" --set precision.experts=fp8 --set precision.linears=fp8
expect 3 'the target \(sm_80\) has no FP8 arithmetic' "$mojit" warm "${gpu[@]:0:6}" --target sm_80 --mode static --dry-run \
    --set precision.experts=fp8

# A step of several micro-batches is one graph, and the host waits for nothing inside it.
expect 0 'a step on the GPU: 1 graph of [0-9]+ nodes in all, 0 launches beside them, the host waited 0 times' \
    sim MOJIT_GENERIC_PATH="$pack" "$mojit" train "${gpu[@]}" --mode nocompile --set train.grad_accum=3 --set train.batch=1 --set train.seq_len=32 --set model.depth=1 --out acc
check 'result.json counts one graph' grep -q '"graphs_per_step": 1,' acc/result.json
check 'result.json counts no wait' grep -q '"waits_in_steps": 0' acc/result.json
field() { grep -oE "\"$2\": [0-9]+" "$1/result.json" | grep -oE '[0-9]+$'; }
check 'the pool holds what the buffers take' test "$(field acc reserved_mem_bytes)" -ge "$(field acc peak_mem_bytes)"

# Memory: what was asked for, what holds the rest, and settings that exist.
expect 1 "out of memory: [0-9.]+ MB asked for '.+'; of 4.0 MB, [0-9.]+ MB are free and this run holds [0-9.]+ MB \(largest: weights" \
    sim MOJIT_SIMGPU_MEMORY=4000000 "$mojit" train "${gpu[@]}" --mode dynamic
check 'what it needs in all is said' grep -qE 'this configuration needs [0-9.]+ MB \(docs/memory.md\), [0-9.]+ MB of it whatever train.batch' said
named=$(grep -oE '\b(train|model|run|jit|moe)\.[a-z_]+' said | sort -u)
check 'three settings are named' test "$(wc -w <<<"$named")" -ge 3
for setting in $named; do
    check "the setting $setting exists" grep -qE "^ +${setting/./\\.} " <("$mojit" train --help)
done

# A kernel that writes outside: the op, the spec, and the command that runs it alone.
mkdir bad
sed 's/args->rstd\[n\] =/args->rstd[n + (1 << 26)] =/' "$checkout/kernels_src/rmsnorm_fwd.cu" >bad/rmsnorm_fwd.cu
check 'the bad kernel is bad' bash -c "! cmp -s bad/rmsnorm_fwd.cu '$checkout/kernels_src/rmsnorm_fwd.cu'"
expect 1 'rmsnorm_fwd \(first norm\): kernel rmsnorm_fwd of rmsnorm_fwd.*WIDTH=128.*; alone: .MOJIT_CUDA_SYNC=1 mojit bench rmsnorm_fwd --device cuda --mode static --shape tokens=1024,width=128.: .*CUDA_ERROR_ILLEGAL_ADDRESS' \
    sim MOJIT_CUDA_SYNC=1 MOJIT_KERNELS=bad "$mojit" train "${gpu[@]}" --mode dynamic
alone=$(grep -oE 'mojit bench [^`]*' said | head -1)
expect 1 'rmsnorm_fwd.*CUDA_ERROR_ILLEGAL_ADDRESS' sim MOJIT_CUDA_SYNC=1 MOJIT_KERNELS=bad "$mojit" ${alone#mojit }
# Not waited for, it is one of several, and none is blamed.
expect 1 'With MOJIT_CUDA_SYNC=1 the run stops at the very launch.*one of the last launches \(newest first\): rmsnorm_fwd \[rmsnorm_fwd\]' \
    sim MOJIT_KERNELS=bad "$mojit" train "${gpu[@]}" --mode dynamic
check 'none is blamed' bash -c '! grep -q "; alone:" said'

# A lost device, and the sweep that goes on with the runs that do not need it.
expect 1 'ECC_UNCORRECTABLE.*the device is lost to this process' \
    sim MOJIT_SIMGPU_LOSE=2 MOJIT_CUDA_SYNC=1 "$mojit" train "${gpu[@]}" --mode dynamic
check 'no kernel is blamed for it' bash -c '! grep -q "alone:" said'
sed -e 's/^run.device = cpu$//' -e 's/^\[run a\]$/[run a]\nrun.device = cuda\njit.mode = dynamic\n[run b]\nrun.device = cpu/' s.ini >lost.ini
expect 1 '1 of 2 runs failed' sim MOJIT_SIMGPU_LOSE=2 MOJIT_CUDA_SYNC=1 "$mojit" sweep lost.ini --out lost
check 'the run on the GPU failed' grep -q '^a,failed,' lost/metrics/little_summary.csv
check 'the run on the cpu completed' grep -q '^b,completed,2,' lost/metrics/little_summary.csv
check 'the report says why' grep -q 'the device is lost' lost/progress.md

finish
