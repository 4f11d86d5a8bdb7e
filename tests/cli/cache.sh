#!/usr/bin/env bash
# The kernel cache as a stranger uses it: several processes on a cold cache, dry runs, shipping, refusals, limits, damage, bad
# compilers.   usage: cache.sh MOJIT CHECKOUT
source "$(dirname "$0")/lib.sh"
command -v cc >/dev/null || { echo 'skipped: no C compiler'; exit 77; }
make_data
tiny+=(--set run.device=cpu)
export MOJIT_CACHE=$work/cache TMPDIR=$work/tmp
mkdir "$TMPDIR"
mode=(--mode static)
run=("${tiny[@]}" "${mode[@]}" --steps 2)

sum() { # COLUMN: over the rows of `cache stat --json`
    "$mojit" cache stat "${@:2}" --json | grep -oE "\"$1\": [0-9.]+" | awk '{s += $2} END {print s + 0}'
}
is() { # TEXT WANT GOT
    [[ $2 == "$3" ]] || { echo "FAIL $1: want $2, got $3"; failures=$((failures + 1)); }
}
field() { grep -oE "\"$1\": [0-9.]+" "$2/result.json" | grep -oE '[0-9.]+$'; } # of a run's result

# A dry run of a cold cache; then four processes at once make each kernel once.
expect 0 'kernels in the plan: 0 ready' "$mojit" warm "${tiny[@]}" "${mode[@]}" --dry-run
kernels=$(sed -nE 's/^mojit: ([0-9]+) kernels in the plan.*/\1/p' said)
is 'a dry run compiles nothing' 0 "$(find cache -name '*.mj' | wc -l)"
for i in 1 2 3 4; do "$mojit" warm "${tiny[@]}" "${mode[@]}" --jobs 1 >"warm$i" 2>&1 & done
for i in 1 2 3 4; do wait -n || { echo "FAIL one of four warming processes: $(cat warm?)"; failures=$((failures + 1)); }; done
is 'compiles of four processes' "$kernels" "$(sum compiles)"
is 'hits of four processes' "$((3 * kernels))" "$(sum hits)"
is 'nothing is left in TMPDIR' 0 "$(find "$TMPDIR" -mindepth 1 | wc -l)"
expect 0 "$kernels kernels in the plan: $kernels ready, 0 to compile" "$mojit" warm "${tiny[@]}" "${mode[@]}" --dry-run
expect 0 'static +to compile +[0-9.]+ +mean of ' "$mojit" warm "${tiny[@]}" "${mode[@]}" --dry-run --set train.batch=6
expect 0 'dynamic +(ready|to compile)' "$mojit" warm "${tiny[@]}" --mode dynamic --dry-run --set data.packing=docs
check 'the buckets are said' grep -qE 'TOKENS is [0-9]+ constants?: [0-9 ]*1024' said
expect 0 'an argument past jit.budget' "$mojit" warm "${tiny[@]}" --mode dynamic --dry-run --set data.packing=docs \
    --set jit.bucket=exact --set jit.budget=2
expect 0 'nocompile +embedded' "$mojit" warm "${tiny[@]}" --mode nocompile --dry-run
expect 0 'to compile +[0-9.]+ +default' "$mojit" warm "${tiny[@]}" "${mode[@]}" --dry-run --target sm_90a

# A warm run compiles nothing; the last run is told from all time.
expect 0 'compiles: 0' "$mojit" train "${run[@]}" --out a
check 'steps have a loss' grep -qE '"loss": ?[0-9]' a/steps.jsonl
is 'hits of the last run' "$(field cache_hits a)" "$(sum hits --last-run)"
is 'compiles of the last run' 0 "$(sum compiles --last-run)"
expect 0 '^hit ' "$mojit" cache explain rmsnorm_fwd --shape WIDTH=128,TOKENS=1024
expect 0 '^Over all time: [0-9]+ hits, [0-9]+ misses, [0-9]+ compiles, 0 corrupt' "$mojit" cache stat
expect 0 '^(miss|hit ) ' env MOJIT_ISA=baseline "$mojit" cache explain rmsnorm_fwd --shape WIDTH=128,TOKENS=1024
check 'a target that differs is said once' test "$(grep -c '^differs: target:' said)" -le 1
expect 2 'never asks the cache' "$mojit" cache explain rmsnorm_fwd --mode nocompile
expect 0 '^differs: TOKENS: 1024 -> 999' "$mojit" cache explain rmsnorm_fwd --shape WIDTH=128,TOKENS=999
expect 0 '^(hit|miss) +gemm_cpu ' "$mojit" cache explain gemm --shape N=128

# require_warm: hits only, or an end before step 0 that names the kernel.
expect 0 'compiles: 0' "$mojit" train "${run[@]}" --set jit.require_warm=true --out b
for m in static dynamic; do
    expect 3 'kernel [a-z0-9_]+ .*(TOKENS|M|ROWS)=.* is not in the cache.*mojit warm' "$mojit" train "${tiny[@]}" --mode $m --steps 2 \
        --set jit.require_warm=true --set train.batch=6 --out c
    check "require_warm in $m stops before step 0" bash -c '! grep -q "^step " said'
done

# Shipping: a plan, whole or not at all, to a machine without a compiler.
expect 0 . "$mojit" cache export plan.tar.zst "${tiny[@]}" "${mode[@]}"
expect 3 'lacks a kernel of the plan' "$mojit" cache export none.tar.zst "${tiny[@]}" "${mode[@]}" --set train.batch=6
expect 2 '--target belongs to a plan' "$mojit" cache export none.tar.zst --target sm_90a
expect 2 '--set belongs to a plan' "$mojit" cache export none.tar.zst --set train.batch=6
expect 1 'cannot write none/x.tar.zst: No such file' "$mojit" cache export none/x.tar.zst
expect 1 'is refused: it is no archive made by' "$mojit" cache import "$checkout/meson.build"
check 'no archive of a failed export' test ! -e none.tar.zst
head -c $(($(stat -c %s plan.tar.zst) / 2)) plan.tar.zst >cut.tar.zst
expect 1 'is refused' env MOJIT_CACHE="$work/far" "$mojit" cache import cut.tar.zst
is 'entries of a refused archive' 0 "$(find far -name '*.mj' 2>/dev/null | wc -l)"
expect 0 "$((kernels + 1))" env MOJIT_CACHE="$work/far" "$mojit" cache import plan.tar.zst
find far -name '*.mj' | head -9 | xargs rm # as if the import had been cut: it goes on
expect 0 "$((kernels + 1)) .* $((kernels + 1 - 9)) " env MOJIT_CACHE="$work/far" "$mojit" cache import plan.tar.zst
expect 0 'compiles: 0' env MOJIT_CACHE="$work/far" MOJIT_CC=/nonexistent/cc "$mojit" train "${run[@]}" --set jit.require_warm=true --out d
check 'the same losses' cmp <(grep -oE '"loss": ?[^,]*' a/steps.jsonl) <(grep -oE '"loss": ?[^,]*' d/steps.jsonl)

# Roots: the first is written, the others only read; what others own or can write is refused, with the reason.
chmod -R a-w far
expect 0 'compiles: 0' env MOJIT_CACHE="$work/near:$work/far" "$mojit" train "${run[@]}" --out e
is 'a hit in a shared root is not copied' 0 "$(find near -name '*.mj' 2>/dev/null | wc -l)"
expect 0 "read, write" env MOJIT_CACHE="$work/near:$work/far" "$mojit" cache stat
chmod -R u+w far
mkdir open && chmod 777 open
expect 0 'can be written by everybody.*refused' env MOJIT_CACHE="$work/open" "$mojit" cache stat --roots "$work/near:$work/open"
expect 0 'none .*can be written by everybody' "$mojit" cache stat --roots "$work/open"
if [[ $(id -u) == 0 ]]; then
    cp -r far others && chown -R 12345 others
    expect 0 'belongs to user 12345.*refused' "$mojit" cache stat --roots "$work/near:$work/others"
fi

# Damage: never loaded, rebuilt, counted once.
victim=$(find far -name '*.mj' -size +8k | sort | head -1)
printf 'x' | dd of="$victim" bs=1 seek=5000 conv=notrunc status=none
expect 1 'checksum' "$mojit" cache verify --roots "$work/far"
expect 0 'compiles: 1 ' env MOJIT_CACHE="$work/far" "$mojit" train "${run[@]}" --out f
is 'corrupt entries of the last run' 1 "$(MOJIT_CACHE=$work/far sum corrupt --last-run)"
expect 0 '0 bad' "$mojit" cache verify --roots "$work/far"

# A limit: kept while publishing, in small caches too.
rm -rf far near
expect 1 'kernels are not in the cache.*max_size' env MOJIT_CACHE="$work/near" "$mojit" warm "${tiny[@]}" "${mode[@]}" --set cache.max_size=200K
size=$(find near -name '*.mj' -printf '%s\n' | awk '{s += $1} END {print s + 0}')
((size > 100000 && size <= 204800)) || { echo "FAIL cache.max_size=200K holds $size bytes"; failures=$((failures + 1)); }
expect 0 . "$mojit" cache prune --roots "$work/near" --max-size 50K
size=$(find near -name '*.mj' -printf '%s\n' | awk '{s += $1} END {print s + 0}')
((size > 10000 && size <= 51200)) || { echo "FAIL prune --max-size 50K leaves $size bytes"; failures=$((failures + 1)); }

# Compilers that fail.
bad_cc() { # LINES OF SHELL
    printf '#!/bin/sh\ncase "$1" in -print*) exit 1 ;; esac\n%s\n' "$1" >cc && chmod +x cc
}
bad=(env MOJIT_CACHE="$work/none" MOJIT_CC="$work/cc" "$mojit" train "${run[@]}")
bad_cc 'echo "x.c:1:1: error: no such thing" >&2; exit 1'
expect 1 'template .* no such thing' "${bad[@]}" --out g
expect 0 'generic kernel \(jit.on_error = generic\)' "${bad[@]}" --set jit.on_error=generic --out h
check 'the same losses on generic kernels' cmp <(grep -oE '"loss": ?[^,]*' a/steps.jsonl) <(grep -oE '"loss": ?[^,]*' h/steps.jsonl)
is 'nothing of a failed compile is kept' 0 "$(find none -name '*.mj' 2>/dev/null | wc -l)"
bad_cc 'kill -SEGV $$'
expect 1 'signal 11' "${bad[@]}" --out i
bad_cc 'sleep 60'
expect 1 'within 0.3 s .*jit.timeout' "${bad[@]}" --set jit.timeout=0.3 --out j

# tiered: the same losses, and it says what it did.
expect 0 . "$mojit" train "${tiny[@]}" --mode tiered --steps 2 --out k
check 'the same losses in tiered' cmp <(grep -oE '"loss": ?[^,]*' a/steps.jsonl) <(grep -oE '"loss": ?[^,]*' k/steps.jsonl)
finish
