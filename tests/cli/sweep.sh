#!/usr/bin/env bash
# `mojit sweep`: states, files, one failing run, SIGKILL and going on, SIGINT, no room, no gnuplot.
# usage: sweep.sh MOJIT CHECKOUT
source "$(dirname "$0")/lib.sh"
make_data
export MOJIT_CACHE=$work/cache

sweep_file() { # STEPS
    cat >s.ini <<END
[sweep]
name = little
baseline = a
config = $checkout/configs/tiny.ini
[defaults]
run.device = cpu
data.train = t_train.bin
data.held_out = t_val.bin
train.steps = $1
train.eval_tokens = 2048
jit.mode = nocompile
[run a]
[run b]
precision.experts = fp8
[run bad]
model.vocab = 200
[run c]
precision.linears = fp8
END
}
rows() { grep -c "^$2," "$1" || true; }
valid_csv() { # every row has as many commas as the heading
    awk -F, 'NR == 1 { n = NF } NF != n { print FILENAME ":" NR ": " NF " fields, want " n; bad = 1 } END { exit bad }' "$1"
}

# One run fails (a token outside of the vocabulary); the others go on.
sweep_file 4
expect 1 '1 of 4 runs failed' "$mojit" sweep s.ini --out sw
for run in a b c; do check "run $run completed" grep -q "^$run,completed,4,4,4," sw/metrics/little_summary.csv; done
check 'run bad failed' grep -q '^bad,failed,' sw/metrics/little_summary.csv
check 'the report says why' grep -q 'outside of model.vocab = 200' sw/progress.md
check 'valid summary' valid_csv sw/metrics/little_summary.csv
check 'valid steps' valid_csv sw/metrics/little_steps.csv
check '4 rows of steps of run a' test "$(rows sw/metrics/little_steps.csv a)" = 4
check 'the baseline is named' grep -q 'deltas are against `a`' sw/progress.md
if command -v gnuplot >/dev/null; then
    for figure in loss toksec mfu dt_ms; do
        check "figure $figure is a PNG" test "$(head -c 4 sw/figures/little_$figure.png | tail -c 3)" = PNG
    done
    check 'the figures are of completed runs' test "$(grep -cE '\((running|queued|interrupted)\)' sw/figures/little.gp)" = 0
fi
expect 0 'Comparison' "$mojit" report sw
expect 0 '"baseline": "a"' "$mojit" report sw --json

# Done runs are kept: nothing runs again.
cp sw/runs/a/steps.jsonl before
expect 1 '4 of 4 runs are done already' "$mojit" sweep s.ini --out sw
check 'run a was left alone' cmp before sw/runs/a/steps.jsonl

# SIGKILL in a run; then the same command goes on.
sweep_file 60
"$mojit" sweep s.ini --out k --quiet >said 2>&1 &
pid=$!
wait_for 60 grep -q '"step":5,' k/runs/b/steps.jsonl || { echo "FAIL run b did not begin: $(cat said)"; failures=$((failures + 1)); }
child=$(pgrep -P $pid)
kill -KILL $pid
wait $pid 2>/dev/null
cp k/runs/a/steps.jsonl before
check 'valid summary after SIGKILL' valid_csv k/metrics/little_summary.csv
check 'valid steps after SIGKILL' valid_csv k/metrics/little_steps.csv
check 'no temporary figure is taken for one' test ! -e k/figures/little_loss.png.tmp.png
wait_for 5 bash -c "! kill -0 $child" || { echo 'FAIL the run outlived its sweep'; failures=$((failures + 1)); }
expect 1 '1 of 4 runs are done already' "$mojit" sweep s.ini --out k
check 'the completed run was kept' cmp before k/runs/a/steps.jsonl
for run in a b c; do check "run $run completed after SIGKILL" grep -q "^$run,completed,60,60,60," k/metrics/little_summary.csv; done

# SIGINT: the step ends, the state is interrupted, status 130, and the same command goes on.
sweep_file 100000
"$mojit" sweep s.ini --out i --quiet >said 2>&1 &
pid=$!
wait_for 60 grep -q '"step":3,' i/runs/a/steps.jsonl
expect 2 'another sweep is running' "$mojit" sweep s.ini --out i
expect 0 'left to it' "$mojit" report i
kill -INT $pid
wait $pid
status=$?
[[ $status == 130 ]] || { echo "FAIL after SIGINT: exit status $status, want 130: $(cat said)"; failures=$((failures + 1)); }
check 'interrupted in the summary' grep -q '^a,interrupted,' i/metrics/little_summary.csv
check 'the rest is queued' grep -q '^c,queued,' i/metrics/little_summary.csv

# No room in the middle (a file that may not grow): valid CSVs, a queue that can go on, and then it does.
sweep_file 60
(
    ulimit -f 16
    exec "$mojit" sweep s.ini --out f --quiet
) >said 2>&1
status=$?
[[ $status == 1 ]] || { echo "FAIL with no room: exit status $status, want 1: $(cat said)"; failures=$((failures + 1)); }
check 'no room is said' grep -qE 'cannot write|could not write' said
[[ -e f/metrics/little_summary.csv ]] && check 'valid summary with no room' valid_csv f/metrics/little_summary.csv
[[ -e f/metrics/little_steps.csv ]] && check 'valid steps with no room' valid_csv f/metrics/little_steps.csv
expect 1 '1 of 4 runs failed' "$mojit" sweep s.ini --out f
check 'all done once there is room' test "$(grep -c ',completed,60,60,60,' f/metrics/little_summary.csv)" = 3

# No compiler, in every run: exit 3, as of one run; with a compiler --retry-failed does them.
mkdir empty_path
sed -i -e 's/^jit.mode = nocompile/jit.mode = static/' -e '/^\[run bad\]/,/^model.vocab/d' s.ini
touch n.tmp && mkdir n && mv n.tmp n/state.json.1.0.tmp
expect 3 '3 of 3 runs failed' env PATH="$work/empty_path" MOJIT_CC= "$mojit" sweep s.ini --out n
check 'what a killed start left is removed' test ! -e n/state.json.1.0.tmp

# Without gnuplot: a warning and a note, nothing else changes.
sweep_file 2
expect 1 'gnuplot is not installed' env PATH="$work/empty_path" "$mojit" sweep s.ini --out g
check 'the note' grep -q 'No figures: gnuplot is not installed' g/progress.md
finish
