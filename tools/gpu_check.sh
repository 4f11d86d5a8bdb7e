#!/usr/bin/env bash
# Proves and measures mojit on the GPU of this machine, in one go and within a bound of time. Installs nothing.
#
#   tools/gpu_check.sh [--out DIR] [--only PART,...] [--skip PART,...] [--minutes N] [--device cuda:N]
#   tools/gpu_check.sh --pack [--build DIR]      makes build-gpu/, to carry to a machine that cannot build
#
# Parts, in order:
#   doctor     what the machine has
#   ops        every op in every mode against its reference
#   bits       the modes, tiered, and runs without graphs or overlap give the same losses over 30 steps; cuBLASLt's is looked at
#   cpu        the cpu device's losses are near the GPU's
#   sanitizer  compute-sanitizer on the checks: memcheck, racecheck, synccheck
#   bench      every op at a GPU's sizes, cuBLASLt beside each GEMM
#   compare    the seed-size model on one GPU, bf16 and fp8 experts, every mode
#   tune       the matrix kernels of that model with other tiles than the model of time chooses; nothing is kept
#   torch      the same kernels and the same model in PyTorch (tests/gpu/torch_baseline.py)
#
# Everything is in DIR/log.txt; DIR/results.json, DIR/bench.json, DIR/tune-*.json and DIR/torch-*.json hold the numbers. One table
# comes last. GPU_CHECK_SETS='model.depth=1 moe.experts=4' makes the seed-size model another one, to try the script somewhere slow.
# The binaries are those of build-gpu/ if it is there, else build/ is built. Exit status: 1 when something failed.
set -uo pipefail
source "$(dirname "$0")/build.sh"
cd "${root:?}" || exit 1

parts=(doctor ops bits cpu sanitizer bench compare tune torch)
out=$root/out/gpu-check only="" skip="" minutes=30 device=cuda pack=0 build=""
usage() { sed -n '2,22s/^# \{0,1\}//p' "$0"; }
die() { printf 'gpu_check: %s\n' "$1" >&2; exit 2; }
while (($#)); do
    case $1 in
    --pack) pack=1 ;;
    --help) usage; exit 0 ;;
    --out | --only | --skip | --minutes | --device | --build)
        (($# > 1)) || die "$1 needs a value; see --help"
        case $1 in
        --out) out=$2 ;; --only) only=$2 ;; --skip) skip=$2 ;; --minutes) minutes=$2 ;; --device) device=$2 ;; --build) build=$2 ;;
        esac
        shift
        ;;
    *) die "unknown option $1; see --help" ;;
    esac
    shift
done
[[ $minutes =~ ^[1-9][0-9]*$ ]] || die "--minutes $minutes: expected a whole number from 1 on"
for name in ${only//,/ } ${skip//,/ }; do
    [[ " ${parts[*]} " == *" $name "* ]] || die "no part '$name'; they are: ${parts[*]}"
done

# ---- packing ---------------------------------------------------------------------------------------------------------

# The link of a program once more, with the libraries that another machine may lack inside it. libarchive's parts that are
# never called (xar and the like) want libraries that have no static form: those symbols are left open.
relink() { # BUILD TARGET TO
    local command l
    command=$(ninja -C "$1" -t commands "$2" | tail -1)
    for l in inih jansson xxhash archive zstd; do
        command=$(sed -E "s# (/[^ ]*/)?lib$l\.so# -Wl,-Bstatic -l$l -Wl,-Bdynamic#g" <<<"$command")
    done
    command=${command/-o $2 /-o $3 }
    (cd "$1" && eval "$command -Wl,-Bstatic -larchive -lnettle -llzma -lbz2 -lz -lzstd -Wl,-Bdynamic -no-pie -Wl,--unresolved-symbols=ignore-all")
}

copy_with_libraries() { # BUILD TARGET TO
    cp "$1/$2" "$3"
    ldd "$1/$2" | awk '$3 ~ /^\// && $1 !~ /^lib(c|m|dl|pthread|rt|gcc_s|stdc\+\+)\.so/ { print $3 }' | xargs -r cp -Lt build-gpu/lib
}

do_pack() {
    local target name
    if [[ -z $build ]]; then
        build="build-gpu/obj"
        build_folder "$build" --buildtype=release || exit 1
    else
        ninja -C "$build" --quiet cli/mojit tests/ops/check_ops || exit 1
    fi
    build=$(cd "$build" && pwd)
    mkdir -p build-gpu/bin build-gpu/lib
    rm -f build-gpu/lib/*
    for target in cli/mojit tests/ops/check_ops; do
        name=$root/build-gpu/bin/$(basename "$target")
        if ! relink "$build" "$target" "$name" 2>build-gpu/relink.log; then
            printf 'gpu_check: no static link of %s (build-gpu/relink.log); its libraries are copied beside it\n' "$target"
            copy_with_libraries "$build" "$target" "$name" || exit 1
        fi
        strip "$name"
    done
    # What is packed must run: also the parts that use libarchive.
    export MOJIT_CACHE=$root/build-gpu/warm-cache
    build-gpu/bin/mojit doctor | grep -E '^(mojit|embedded)' || exit 1
    pack_warm
    du -sh build-gpu/bin build-gpu/lib build-gpu/*.zst 2>/dev/null
    git rev-parse --short HEAD >build-gpu/commit 2>/dev/null
    printf 'carry build-gpu/bin, build-gpu/lib, build-gpu/commit and build-gpu/warm.tar.zst\n'
}

# The kernels of the runs below, compiled here by NVRTC, so that no card waits for a compiler.
pack_warm() {
    local experts mode sets
    rm -f build-gpu/warm.tar.zst
    make_data build-gpu/data || return
    seed_sets build-gpu/data/text_train.bin
    for experts in bf16 fp8; do
        for mode in static dynamic; do
            build-gpu/bin/mojit warm "${sets[@]}" --set precision.experts=$experts --mode $mode --target sm_90a >build-gpu/warm.log 2>&1 ||
                { printf 'gpu_check: not warmed (build-gpu/warm.log): %s\n' "$(tail -1 build-gpu/warm.log)"; return; }
        done
    done
    build-gpu/bin/mojit cache export build-gpu/warm.tar.zst
}

# ---- data --------------------------------------------------------------------------------------------------------------

# DIR/text_*.bin: the checkout's own text as bytes. Speed does not depend on which tokens they are; the loss does.
make_data() {
    mkdir -p "$1"
    [[ -f $1/text_train.bin ]] || "$bin/mojit" data pack docs kernels_src ops jit runtime train cli tests --out "$1/text" >>"$log" 2>&1
}

# sets=(...): the seed model on one GPU, as the sweep that names it has it, on DATA.
seed_sets() {
    local line
    sets=(--set data.train="$1" --set data.held_out=)
    while IFS= read -r line; do sets+=(--set "$line"); done < <(awk '/^\[/ { on = $0 == "[defaults]" }
        on && /=/ && !/^(data|run|train\.steps|precision\.experts)/ { gsub(/ /, ""); print }' sweeps/compile_sweep_v1_1gpu.ini)
    for line in ${GPU_CHECK_SETS-}; do sets+=(--set "$line"); done
}

if ((pack)); then
    bin=$root/build-gpu/bin log=/dev/null
    do_pack
    exit
fi

# ---- running -----------------------------------------------------------------------------------------------------------

mkdir -p "$out"
out=$(cd "$out" && pwd)
log=$out/log.txt
: >"$log"
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
start=$SECONDS failed=0 rows=()
commit=$(cat build-gpu/commit 2>/dev/null || git rev-parse --short HEAD 2>/dev/null || echo unknown)

if [[ -x build-gpu/bin/mojit ]]; then
    bin=$root/build-gpu/bin
    export LD_LIBRARY_PATH=$root/build-gpu/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
else
    build_folder build || exit 1
    mkdir -p "$scratch/bin"
    ln -s "$root/build/cli/mojit" "$root/build/tests/ops/check_ops" "$scratch/bin"
    bin=$scratch/bin
fi
export MOJIT_CACHE=$scratch/cache
export CUBLASLT_LOG_LEVEL=1 CUBLASLT_LOG_FILE=$out/cublaslt.log # why it refuses a product, in its own words
[[ -f build-gpu/warm.tar.zst ]] && "$bin/mojit" cache import build-gpu/warm.tar.zst >>"$log" 2>&1

left() { echo $((minutes * 60 - (SECONDS - start))); }
wanted() { [[ (-z $only || ",$only," == *",$1,"*) && ",$skip," != *",$1,"* ]]; }

record() { # PART ITEM STATUS SECONDS NOTE
    rows+=("$1"$'\t'"$2"$'\t'"$3"$'\t'"$4"$'\t'"$5")
    [[ $3 == FAIL ]] && failed=1
    printf '%-10s %-34s %-8s %4s s  %s\n' "$1" "$2" "$3" "$4" "$5"
    write_results
}

write_results() { # after every row: who is stopped has what was done
    {
        printf '{"commit": "%s", "parts": [' "$commit"
        local row comma=""
        for row in "${rows[@]}"; do
            awk -F'\t' -v comma="$comma" '{ gsub(/[\\"]/, "\\\\&"); gsub(/[[:cntrl:]]/, " ", $5)
                printf "%s\n  {\"part\": \"%s\", \"item\": \"%s\", \"status\": \"%s\", \"seconds\": %s, \"note\": \"%s\"}", comma, $1, $2, $3, $4, $5 }' <<<"$row"
            comma=","
        done
        printf '\n]}\n'
    } >"$out/results.json"
}

# attempt PART ITEM LIMIT COMMAND...: its output goes to the log and to $scratch/said; the note is its last line, or $note.
attempt() {
    local part=$1 item=$2 limit=$3 rest begin=$SECONDS status note
    shift 3
    rest=$(left)
    if ((rest < 5)); then
        record "$part" "$item" skipped 0 "no time left of $minutes minutes"
        return 1
    fi
    ((limit > rest)) && limit=$rest
    printf '\n== %s %s: %s\n' "$part" "$item" "$*" >>"$log"
    if [[ $(type -t "$1") == function ]]; then
        "$@" >"$scratch/said" 2>&1
    else
        timeout -k 5 "$limit" "$@" >"$scratch/said" 2>&1
    fi
    status=$?
    cat "$scratch/said" >>"$log"
    note=$(tail -1 "$scratch/said" | cut -c1-150)
    case $status in
    0) record "$part" "$item" ok $((SECONDS - begin)) "$note" ;;
    77) record "$part" "$item" skipped $((SECONDS - begin)) "$note" ;;
    124 | 137) record "$part" "$item" timeout $((SECONDS - begin)) "stopped after $limit s: $note" ;;
    *) record "$part" "$item" FAIL $((SECONDS - begin)) "$(grep -m1 -E 'FAIL|error' "$scratch/said" | cut -c1-200)" ;;
    esac
    return $status
}

part_doctor() {
    attempt doctor machine 60 "$bin/mojit" doctor
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit --format=csv,noheader 2>/dev/null |
        tee -a "$log" | while IFS= read -r line; do printf '           %s\n' "$line"; done
}

part_ops() {
    local mode
    for mode in static dynamic nocompile; do
        attempt ops "$mode" 240 "$bin/check_ops" --device "$device" --mode "$mode"
        grep -E '^(FAIL|skipped)' "$scratch/said" | head -5
    done
}

small=(--config configs/tiny.ini --set data.held_out= --set data.packing=docs --set train.batch=4 --steps 30 --quiet)
losses() { grep -o '"loss_bits":"[^"]*"' "$1/steps.jsonl"; }

same() { # NAME A B [STATUS]: the losses of two runs; STATUS when they differ, default FAIL
    if [[ ! -s $2/result.json || ! -s $3/result.json ]]; then
        record bits "$1" skipped 0 "one of the two runs is not there"
    elif cmp -s <(losses "$2") <(losses "$3"); then
        record bits "$1" same 0 "$(losses "$2" | wc -l) losses, bit for bit"
    else
        record bits "$1" "${4:-FAIL}" 0 "the losses differ from step $(cmp <(losses "$2") <(losses "$3") | grep -o 'line [0-9]*' | cut -c6-)"
    fi
}

part_bits() {
    local precision sets mode
    make_data "$scratch/data" || return
    for precision in bf16 fp8-block fp8-tensor; do
        sets=(--set data.train="$scratch/data/text_train.bin")
        [[ $precision == fp8-* ]] && sets+=(--set precision.linears=fp8 --set precision.experts=fp8 --set precision.recipe="${precision#fp8-}")
        for mode in static dynamic nocompile tiered; do
            attempt bits "$precision $mode" 120 "$bin/mojit" train "${small[@]}" "${sets[@]}" --device "$device" --mode $mode --out "$scratch/$precision-$mode"
            [[ $mode == static ]] || same "$precision $mode = static" "$scratch/$precision-$mode" "$scratch/$precision-static"
        done
        attempt bits "$precision no graphs" 120 "$bin/mojit" train "${small[@]}" "${sets[@]}" --device "$device" --mode static --set run.graphs=false \
            --out "$scratch/$precision-plain"
        attempt bits "$precision no overlap" 120 "$bin/mojit" train "${small[@]}" "${sets[@]}" --device "$device" --mode static \
            --set run.overlap=false --out "$scratch/$precision-ordered"
        same "$precision overlap = no overlap" "$scratch/$precision-ordered" "$scratch/$precision-static"
        attempt bits "$precision no overlap, no graphs" 120 "$bin/mojit" train "${small[@]}" "${sets[@]}" --device "$device" --mode static \
            --set run.overlap=false --set run.graphs=false --out "$scratch/$precision-ordered-plain"
        same "$precision all = no overlap, no graphs" "$scratch/$precision-ordered-plain" "$scratch/$precision-static"
        same "$precision graphs = no graphs" "$scratch/$precision-plain" "$scratch/$precision-static"
        grep -hoE '"(waits_in_steps|graphs_per_step|launches_per_step)": [0-9]+' "$scratch/$precision-static/result.json" 2>/dev/null | tr '\n' ' '
        echo
    done
    for mode in static dynamic; do # not promised; worth knowing
        attempt bits "cuBLASLt $mode" 120 "$bin/mojit" train "${small[@]}" --set data.train="$scratch/data/text_train.bin" --device "$device" \
            --mode $mode --set run.dense_gemm=cublaslt --out "$scratch/lt-$mode"
    done
    same "cuBLASLt dynamic = static" "$scratch/lt-dynamic" "$scratch/lt-static" differ
}

# losses_agree CPU GPU EARLY ALL: largest relative differences allowed in the first 10 steps, and in all.
# Rounding apart, two devices do the same, and drift apart step by step. The levels of one CPU's instruction set are 0.010 % apart
# within the first 10 steps and 0.06 % within 30; with half of a tile's dq at zero it is 0.03 to 0.05 %, and 0.28 to 0.41 %.
# Hopper's sums of fp8 products are short: on the simulated GPU 13 bits of them alone make 0.06 % within 10 steps.
losses_agree() {
    awk -v early_limit="$3" -v limit="$4" '{ if (match($0, /"loss":[^,]*/) && /"record":"step"/) { v = substr($0, RSTART + 7, RLENGTH - 7); if (NR == FNR) a[++n] = v; else b[++m] = v } }
        END {
            for (i = 1; i <= n && i <= m; i++) {
                d = (a[i] - b[i]) / a[i]
                if (d < 0) d = -d
                if (d > worst) worst = d
                if (i <= 10 && d > early) early = d
            }
            bad = n == 0 || n != m || early > early_limit || worst > limit
            printf "%s%d and %d losses; first %.6f and %.6f, last %.6f and %.6f; largest difference %.3f %%, in the first 10 steps %.3f %%\n",
                bad ? "FAIL: " : "", n, m, a[1], b[1], a[n], b[m], 100 * worst, 100 * early
            exit bad
        }' "$1" "$2"
}

part_cpu() {
    local precision sets limits
    make_data "$scratch/data" || return
    for precision in bf16 fp8; do
        limits=(0.0002 0.002)
        [[ $precision == bf16 ]] || limits=(0.001 0.0025)
        sets=(--set data.train="$scratch/data/text_train.bin" --set precision.linears=$precision --set precision.experts=$precision)
        attempt cpu "$precision on cpu" 120 "$bin/mojit" train "${small[@]}" "${sets[@]}" --device cpu --mode nocompile --out "$scratch/cpu-$precision" || continue
        attempt cpu "$precision on $device" 120 "$bin/mojit" train "${small[@]}" "${sets[@]}" --device "$device" --mode static --out "$scratch/gpu-$precision" || continue
        attempt cpu "$precision losses agree" 30 losses_agree "$scratch/cpu-$precision/steps.jsonl" "$scratch/gpu-$precision/steps.jsonl" "${limits[@]}"
    done
}

part_sanitizer() {
    local tool
    command -v compute-sanitizer >/dev/null || { record sanitizer all skipped 0 "no compute-sanitizer on this machine"; return; }
    "$bin/check_ops" --device "$device" --mode static >/dev/null 2>&1 # compiled, so that the tool watches kernels alone
    for tool in memcheck racecheck synccheck; do
        attempt sanitizer "$tool, matrix ops" 240 compute-sanitizer --tool $tool --error-exitcode 9 "$bin/check_ops" gemm attention_fwd attention_bwd \
            --device "$device" --mode static
        attempt sanitizer "$tool, row ops" 150 compute-sanitizer --tool $tool --error-exitcode 9 "$bin/check_ops" router_fwd router_bwd route_map permute \
            permute_bwd combine_fwd combine_bwd relu2_fwd relu2_bwd quantize quantize_weight rmsnorm_fwd rmsnorm_quant rmsnorm_bwd rope_qknorm_fwd rope_qknorm_bwd rope_qknorm_bwd_quant \
            embedding_fwd embedding_bwd cross_entropy amax sum adamw balance --device "$device" --mode static
    done
}

part_bench() {
    attempt bench "static, a GPU's sizes" 240 "$bin/mojit" bench --device "$device" --mode static --json "$out/bench.json"
    grep -vE '^mojit: (warning|cuBLASLt)' "$scratch/said"
    attempt bench "gemm, nocompile" 90 "$bin/mojit" bench gemm --device "$device" --mode nocompile
    cat "$scratch/said"
}

part_compare() {
    local experts sets
    make_data "$scratch/data" || return
    seed_sets "$scratch/data/text_train.bin"
    for experts in fp8 bf16; do
        attempt compare "seed size, $experts experts" 200 "$bin/mojit" compare "${sets[@]}" --set precision.experts=$experts --steps 12 --device "$device" \
            --modes static,dynamic,nocompile,tiered --out "$scratch/compare/$experts"
        cat "$scratch/said"
    done
    tar -C "$scratch" -czf "$out/compare.tar.gz" compare 2>/dev/null
}

# tuned FILE: of each shape in what `mojit tune --json` wrote, the template, the shape, whether other tiles are faster, and a note
tuned() {
    awk -F'": ' '
        function flush() {
            if (shape == "") return
            if (kept == "") printf "%s\t%s\tstays\t%.1f us with %s\n", template, shape, choice_us, choice
            else printf "%s\t%s\tfaster\tgain %.3f: %.1f us with %s; the model chose %s: %.1f us\n", template, shape, gain, kept_us, kept, choice, choice_us
            kept = choice = ""
        }
        { key = $1; gsub(/[ "]/, "", key); value = $2; gsub(/^"|"?,?$/, "", value) }
        key == "template" { next_template = value }
        key == "shape" { if (value != shape || next_template != template) { flush(); template = next_template; shape = value } }
        key == "tuning" { tuning = value }
        key == "us" { us = value }
        key == "gain" { this_gain = value }
        key == "verdict" {
            if (value == "kept") { kept = tuning; kept_us = us; gain = this_gain }
            if (value == "stays" || value == "without tuning") { choice = tuning; choice_us = us }
        }
        END { flush() }' "$1"
}

part_tune() {
    local precision sets limit template shape verdict note
    make_data "$scratch/data" || return
    seed_sets "$scratch/data/text_train.bin"
    for precision in fp8 bf16; do
        limit=$(($(left) / 3)) # a shape that has begun is finished
        ((limit > 200)) && limit=200
        ((limit > 0)) || limit=1
        attempt tune "seed size, $precision" $((2 * limit + 30)) bash -c 'exec "$@" >"$0"' "$out/tune-$precision.json" \
            "$bin/mojit" tune --config /dev/null "${sets[@]}" --set precision.linears=$precision --set precision.experts=$precision \
            --device "$device" --limit "$limit" --dry-run --json
        [[ -s $out/tune-$precision.json ]] || continue
        while IFS=$'\t' read -r template shape verdict note; do
            record tune "$precision: $template $shape" "$verdict" 0 "$note"
        done < <(tuned "$out/tune-$precision.json")
    done
}

part_torch() {
    python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || { record torch all skipped 0 "no PyTorch with a GPU"; return; }
    attempt torch kernels 150 python3 tests/gpu/torch_baseline.py --part kernels --json "$out/torch-kernels.json"
    cat "$scratch/said"
    attempt torch model 240 python3 tests/gpu/torch_baseline.py --part model --json "$out/torch-model.json"
    cat "$scratch/said"
}

for part in "${parts[@]}"; do
    wanted "$part" || continue
    printf '\n== %s (%d s left)\n' "$part" "$(left)"
    "part_$part"
done

printf '\n%-10s %-34s %-8s %6s  %s\n' part item status s note
for row in "${rows[@]}"; do
    IFS=$'\t' read -r part item status seconds note <<<"$row"
    printf '%-10s %-34s %-8s %6s  %s\n' "$part" "$item" "$status" "$seconds" "${note:0:110}"
done | tee "$out/table.txt"
exit $failed
