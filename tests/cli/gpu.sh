#!/usr/bin/env bash
# The command line on a machine with simulated GPUs: what doctor finds, what a sweep's progress shows, and what is said when
# something is missing or breaks.      usage: gpu.sh MOJIT CHECKOUT FOLDER_WITH_THE_SIMULATOR
simulator=$(realpath "$3")
source "$(dirname "$0")/lib.sh"
make_data
export MOJIT_CACHE=$work/cache

sim() { # [NAME=VALUE]... COMMAND...: with a simulated GPU
    env MOJIT_CUDA_LIBRARY_PATH="$simulator" "$@"
}

# ---- doctor
expect 0 'nvidia driver +found +libcuda.so.1, CUDA 13.0' sim "$mojit" doctor
expect 0 'cuda device +found +Simulated GPU, sm_90a, 8.0 GiB' sim "$mojit" doctor
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

finish
