#!/usr/bin/env bash
# `mojit train` and `mojit compare` on a tiny model: records, missing compiler, broken template, interrupts, a full disk.
# usage: train.sh MOJIT CHECKOUT
source "$(dirname "$0")/lib.sh"
make_data
export MOJIT_CACHE=$work/cache

# A run's records.
expect 0 '^step 00003/00003 \(100.00%\) \| loss: ' "$mojit" train "${tiny[@]}" --mode nocompile --steps 3 --out r
check 'three step records' test "$(grep -c '"record":"step"' r/steps.jsonl)" = 3
check 'a result' grep -q '"status": "completed"' r/result.json
check 'no compiler was touched' grep -q '"compiles": 0' r/result.json
expect 0 '^step 00003/00003' "$mojit" train --config r/config.ini --out r2
check 'the dumped configuration gives the same losses' cmp <(grep -o '"loss_bits":"[^"]*"' r/steps.jsonl) \
    <(grep -o '"loss_bits":"[^"]*"' r2/steps.jsonl)
expect 0 'time by op' "$mojit" train "${tiny[@]}" --mode nocompile --steps 1 --profile

# No compiler on the PATH.
mkdir empty_path
expect 3 'no C compiler was found.*nocompile' env PATH="$work/empty_path" MOJIT_CC= "$mojit" train "${tiny[@]}" --mode static --steps 2 --out m
check 'the record says why' grep -q 'no C compiler' m/result.json
expect 0 'done: 2 steps' env PATH="$work/empty_path" MOJIT_CC= "$mojit" train "${tiny[@]}" --mode nocompile --steps 2
expect 0 'going on with generic kernels' env PATH="$work/empty_path" MOJIT_CC= "$mojit" train "${tiny[@]}" --mode tiered --steps 2
check 'tiered says once that there is no compiler' test "$(grep -c 'no C compiler' said)" = 1
expect 3 'no C compiler' env PATH="$work/empty_path" MOJIT_CC= "$mojit" compare "${tiny[@]}" --steps 2 --modes nocompile,static
check 'the mode that was measured is shown' grep -q '^nocompile ' said
expect 3 'path, without options.*nocompile' env MOJIT_CC="cc -O1" "$mojit" train "${tiny[@]}" --mode static --steps 2
expect 1 'ended with status 1 and said nothing' env MOJIT_CC=false "$mojit" train "${tiny[@]}" --mode static --steps 2

# A template that does not compile: its name, the spec, file:line, and the compiler's words.
mkdir kernels
while IFS= read -r line; do printf '%s\n' "${line//args->token/args->tokn}"; done <"$checkout/kernels_src/embedding_fwd.cu" >kernels/embedding_fwd.cu
printf 'static int broken = ;\n' >>kernels/embedding_fwd.cu
expect 1 'embedding_fwd.cu:[0-9]+:' env MOJIT_KERNELS="$work/kernels" "$mojit" train "${tiny[@]}" --mode dynamic --steps 1
check 'the spec is named' grep -q 'embedding_fwd target=cpu' said
check 'the log is shown' grep -q 'compiler log' said

# An interrupt: the step ends, files are closed, status 130.
"$mojit" train "${tiny[@]}" --mode nocompile --steps 100000 --out i --quiet >said 2>&1 &
pid=$!
wait_for 30 grep -q '"step":2,' i/steps.jsonl || { echo 'FAIL the run did not begin'; failures=$((failures + 1)); }
kill -INT $pid
wait $pid
status=$?
[[ $status == 130 ]] || { echo "FAIL after SIGINT: exit status $status, want 130: $(cat said)"; failures=$((failures + 1)); }
check 'state interrupted' grep -q '"status": "interrupted"' i/result.json
check 'whole lines only' test "$(tail -c 1 i/steps.jsonl | wc -l)" = 1

# A disk that is full: a file that may not grow behaves the same (EFBIG).
(
    ulimit -f 6
    exec "$mojit" train "${tiny[@]}" --mode nocompile --steps 300 --out f --quiet
) >said 2>&1
status=$?
[[ $status == 1 ]] || { echo "FAIL with no room: exit status $status, want 1: $(cat said)"; failures=$((failures + 1)); }
check 'the words of no room' grep -qE 'cannot write .*f/(steps.jsonl|log.txt)' said
check 'it stopped, and did not train on' test "$(grep -c '"record":"step"' f/steps.jsonl)" -lt 100

# The three modes agree bit by bit, in one table.
expect 0 'nocompile .*yes' "$mojit" compare "${tiny[@]}" --steps 3 --out cmp --modes dynamic,nocompile
check 'bit-identical losses' cmp <(grep -o '"loss_bits":"[^"]*"' cmp/dynamic/steps.jsonl) \
    <(grep -o '"loss_bits":"[^"]*"' cmp/nocompile/steps.jsonl)
check 'dynamic compiled, and said so' grep -qE '"compiles": [1-9]' cmp/dynamic/result.json
expect 0 '"losses_identical": true' "$mojit" compare "${tiny[@]}" --steps 2 --modes nocompile,dynamic --json

# After warming, nothing is compiled.
expect 0 ' kernels in the plan' "$mojit" warm "${tiny[@]}" --mode dynamic --dry-run
expect 0 ' kernels in the cache' "$mojit" warm "${tiny[@]}" --mode static
expect 0 'compiles: 0 ' "$mojit" train "${tiny[@]}" --mode static --steps 2 --out warm
check 'no compile after step 0' grep -q '"compiles_after_ahead": 0' warm/result.json
expect 0 ' good, 0 bad' "$mojit" cache verify
entry=$(find cache -type f -size +1k | head -1)
printf 'x' | dd of="$entry" bs=1 seek=600 conv=notrunc 2>/dev/null
expect 1 'bad entries' "$mojit" cache verify
expect 0 'removed entries' "$mojit" cache clear
finish
