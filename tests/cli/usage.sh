#!/usr/bin/env bash
# Usage, help and bad input: exit status and the words that help.   usage: usage.sh MOJIT CHECKOUT
source "$(dirname "$0")/lib.sh"
make_data

expect 2 'Usage: mojit COMMAND' "$mojit"
expect 0 'Usage: mojit COMMAND' "$mojit" --help
expect 0 '^mojit [0-9]' "$mojit" --version
expect 2 "did you mean 'mojit train'" "$mojit" trian
expect 2 "did you mean 'mojit cache stat'" "$mojit" cache stta
expect 2 'expected a command' "$mojit" cache
expect 2 'unknown option --confg; did you mean --config' "$mojit" train --confg x
expect 2 '--steps zero: expected an integer from 1' "$mojit" train --steps zero
expect 2 '--config needs a value' "$mojit" train --config
expect 2 '--profile takes no value' "$mojit" train --profile=yes
expect 2 "unexpected 'b'" "$mojit" report a b
expect 2 'something is missing' "$mojit" sweep

# Every command has --help and --version, and help lists the very options that the parser takes.
for command in train compare sweep report warm bench kernels tune doctor 'cache stat' 'cache list' 'cache verify' 'cache prune' \
    'cache clear' 'data pack' 'data info'; do
    # shellcheck disable=SC2086
    expect 0 '^mojit [0-9]' "$mojit" $command --version
    # shellcheck disable=SC2086
    expect 0 "^Usage: mojit $command " "$mojit" $command --help
    for option in $(grep -oE '^  (-[a-z], )?--[a-z-]+' said | grep -oE -- '--[a-z-]+'); do
        [[ $option == --help || $option == --version ]] && continue
        # shellcheck disable=SC2086
        "$mojit" $command "$option" x --help >out 2>&1 || "$mojit" $command "$option" 1 --help >out 2>&1 || {
            echo "FAIL $command --help lists $option, which it does not take: $(cat out)"
            failures=$((failures + 1))
        }
    done
done
expect 0 'model.depth' "$mojit" train --help

# Configuration.
expect 2 'unknown key "dept" in \[model\]; did you mean "depth"' "$mojit" train "${tiny[@]}" --set model.dept=3
expect 2 'did you mean "model.depth"\?' "$mojit" train "${tiny[@]}" --set depth=3
expect 2 'unknown compile mode "statik"; did you mean "static"' "$mojit" train "${tiny[@]}" --mode statik
expect 2 'unknown compile mode "dynamik"; did you mean "dynamic"' "$mojit" compare "${tiny[@]}" --modes static,dynamik
expect 2 'stands there twice' "$mojit" compare "${tiny[@]}" --modes static,static
expect 2 'expected "dropless" or "capacity' "$mojit" train "${tiny[@]}" --set moe.layout=capasity:1
expect 2 'model.width = 130.*nearest is 128' "$mojit" train "${tiny[@]}" --set model.width=130
expect 2 'model.head_dim = 96' "$mojit" train "${tiny[@]}" --set model.head_dim=96
printf '[model]\ndepth = 2\n[modle]\nwidth = 128\n' >bad.ini
expect 2 'bad.ini:[34].*did you mean' "$mojit" train --config bad.ini
# A file that is named and not there is wrong usage, whatever the command; one that is there and bad is a failure.
for command in 'train' 'compare' 'warm' 'bench' 'bench step' 'tune'; do
    expect 2 "cannot open 'nope.ini': No such file" "$mojit" $command --config nope.ini
done
expect 2 "cannot open 'nope.ini': No such file" "$mojit" sweep nope.ini
expect 2 "cannot open 'nope.ini': No such file" "$mojit" warm --sweep nope.ini --mode static
expect 2 "cannot open 'bad.ini/x': Not a directory" "$mojit" train --config bad.ini/x
expect 2 "'/' is a folder; a file was expected" "$mojit" train --config /
expect 2 'nope.bin: no such token file' "$mojit" data info nope.bin
expect 2 'nope: can.t read: No such file' "$mojit" data pack nope --out x
expect 2 'cannot read nope.tar.zst: No such file' "$mojit" cache import nope.tar.zst

# Data.
: >empty.bin
head -c 3000 t_train.bin >truncated.bin
head -c 3000 /bin/sh >foreign.bin
expect 1 'empty.bin: empty' "$mojit" data info empty.bin
expect 1 'truncated.bin: truncated: the header says' "$mojit" data info truncated.bin
expect 1 'foreign.bin: not a token file' "$mojit" data info foreign.bin
expect 2 'no such token file; make one with' "$mojit" train "${tiny[@]}" --set data.train=nope.bin
expect 1 'truncated' "$mojit" train "${tiny[@]}" --set data.train=truncated.bin
mkdir nothing
expect 1 'no readable text' "$mojit" data pack nothing foreign.bin --out x
expect 2 '--held-out 2: expected a number from 0 to 0.5' "$mojit" data pack nothing --out x --held-out 2
expect 2 'mojit data pack: something is missing; usage: mojit data pack PATH' "$mojit" data pack
expect 2 'mojit data pack PATH... --out new/text' "$mojit" train "${tiny[@]}" --set data.train=new/text_train.bin
expect 0 . "$mojit" data pack "$checkout/kernels_src/list.sh" --out new/text
check 'the end of a single text is held out' test -s new/text_val.bin
expect 2 'names no file' "$mojit" data pack nothing "$checkout/kernels_src" --out ''
expect 2 '--out PREFIX is missing' "$mojit" data pack nothing

# Places that cannot be written.
expect 1 'cannot create folder' "$mojit" train "${tiny[@]}" --out /proc/none
if [[ -c /dev/full ]]; then
    "$mojit" kernels >/dev/full 2>said
    [[ $? == 1 ]] || { echo 'FAIL kernels > /dev/full: want exit status 1'; failures=$((failures + 1)); }
    check 'the words of a full stdout' grep -q 'could not write the results' said
fi

# Sweep files.
bad_sweep() { # PATTERN TEXT
    printf '%b' "$2" >s.ini
    expect 2 "$1" "$mojit" sweep s.ini --out sw
}
bad_sweep 's.ini:2: unknown key .nam. in \[sweep\]; did you mean name' '[sweep]\nnam = x\n'
bad_sweep 's.ini:1: unknown section \[defalts\]' '[defalts]\nmodel.depth = 1\n'
bad_sweep 's.ini:4: unknown key "dept"' '[sweep]\nname = x\n[run a]\nmodel.dept = 1\n'
bad_sweep 'expected section.key = value' '[sweep]\nname = x\n[run a]\ndepth = 1\n'
bad_sweep "baseline 'b' is not a run" '[sweep]\nname = x\nbaseline = b\n[run a]\nmodel.depth = 1\n'
bad_sweep 's.ini:4: there is a run a already' '[sweep]\nname = x\n[run a]\n[run a]\n'
bad_sweep 's.ini:5: .model.depth. in \[run a\] stands in line 4 already' '[sweep]\nname = x\n[run a]\nmodel.depth = 1\nmodel.depth = 2\n'
bad_sweep 'no \[run NAME\]' '[sweep]\nname = x\n'
bad_sweep 'run name .\.\./a.' '[sweep]\nname = x\n[run ../a]\nmodel.depth = 1\n'
bad_sweep '\[run a\].*statik' '[sweep]\nname = x\n[run a]\njit.mode = statik\n'
printf '[sweep]\nname = x\nconfig = %s\n[defaults]\nrun.device = cpu\njit.mode = nocompile\n[run a]\ndata.train = nope.bin\n[run b]\ndata.train = nope.bin\n' \
    "$checkout/configs/tiny.ini" >s.ini
expect 1 '2 of 2 runs failed' "$mojit" sweep s.ini --out no-data # it is not the records that can't be written
expect 2 'is not a folder' "$mojit" report nope
expect 1 'not the folder of a sweep' "$mojit" report nothing

# Tune.
expect 0 '1 more shape was not measured: --limit' "$mojit" tune gemm --shape m=128,n=128,k=128 --device cpu --limit 0
expect 2 '.--limit' "$mojit" tune gemm --shape m=128,n=128,k=128 --device cpu --limit -1

# Bench.
expect 2 'did you mean' "$mojit" bench gem
expect 2 'did you mean' "$mojit" bench sum --mode nocompile --shape cuont=5
expect 2 'needs data' "$mojit" bench step
expect 2 'number above 0' "$mojit" bench sum --seconds 0
expect 0 '^sum +nocompile ' "$mojit" bench sum --mode nocompile --seconds 0.01 --shape count=5000 --json b.json
check 'bench wrote its JSON' grep -q times_reference b.json
expect 2 'jit stands alone' "$mojit" bench jit sum
mkdir tmp
expect 0 '^opening a cache +300 entries .* (yes|no)$' env TMPDIR="$work/tmp" "$mojit" bench jit --entries 300 --threads 1 --seconds 0.01 --json j.json
for row in 'memory hit' 'disk hit' 'disk hit, share of the cache' 'pruning it to a half'; do
    check "bench jit measures $row" grep -q "\"what\": \"$row\"" j.json
done
check 'bench jit leaves nothing behind' rmdir tmp

# Kernels and tables as JSON.
expect 2 'did you mean "rmsnorm_fwd"' "$mojit" kernels rmsnorm_fw
expect 0 'WIDTH +fixed' "$mojit" kernels rmsnorm_fwd
expect 0 'chosen +BLOCKS=4' "$mojit" kernels --explain 'gemm m=64,n=64,k=64' --target cpu
expect 0 'chosen +STAGES=2 ORDER=1' "$mojit" kernels --explain 'attention_fwd tokens=2048,heads=128,head_dim=128,window=2048' --target sm_90a
expect 0 'chosen +STAGES=3 ORDER=1' "$mojit" kernels --explain 'attention_bwd tokens=2048,heads=128,head_dim=128,window=2048' --target sm_90a
expect 0 'WARPS=4' "$mojit" kernels --explain 'attention_fwd tokens=2048,heads=8,head_dim=128,window=512' --target sm_80
expect 2 'did you mean .gemm.' "$mojit" kernels --explain 'gem m=64,n=64,k=64'
expect 2 'did you mean' "$mojit" kernels --explain 'gemm m=64,nn=64,k=64'
expect 2 "expected a GPU's" "$mojit" kernels --target cpu
expect 2 "'count' has no value" "$mojit" bench sum --mode nocompile --shape count
expect 2 'no target "sm_banana"' "$mojit" kernels --target sm_banana sum
expect 2 'name an op' "$mojit" tune
expect 2 'no tuning parameters' "$mojit" tune sum --device cpu
expect 2 'number above 0' "$mojit" tune gemm --seconds 0
expect 0 'gemm_cpu .*BLOCKS=16' "$mojit" tune gemm --device cpu --shape m=64,n=64,k=64 --seconds 0.001
expect 0 'tuned gemm_cpu on .* M=64 N=64 K=64 .*-> BLOCKS=' "$mojit" cache list
for command in kernels 'kernels rmsnorm_fwd' 'tune gemm --device cpu --shape m=64,n=64,k=64 --seconds 0.001' doctor 'cache stat' 'cache list' 'data info t_val.bin'; do
    # shellcheck disable=SC2086
    "$mojit" $command --json >json 2>said || { echo "FAIL $command --json: $(cat said)"; failures=$((failures + 1)); }
    case $(head -c 1 json) in '[' | '{') ;; *) echo "FAIL $command --json printed: $(head -c 80 json)"; failures=$((failures + 1)) ;; esac
done
finish
