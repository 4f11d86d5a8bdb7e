#!/usr/bin/env bash
# The main job in one command: sets up, builds, packs text that every machine has, trains a Mixture-of-Experts model on
# it in every compile mode, and shows which mode won and why. Started again, it goes on with the runs that are left.
#
#   tools/demo.sh [PATH...]    text files or folders to train on; default: the system's C headers
#
# Environment: MOJIT_DEMO_OUT   folder to write, default out/demo in the checkout
#              MOJIT_DEMO_SWEEP sweep file, default sweeps/compile_sweep_v1.ini
set -euo pipefail
source "$(dirname "$0")/build.sh"

case ${1-} in
--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
-*) printf 'demo: unknown option %s; see %s --help\n' "$1" "$0" >&2; exit 2 ;;
esac

out=${MOJIT_DEMO_OUT:-$root/out/demo}
sweep=${MOJIT_DEMO_SWEEP:-$root/sweeps/compile_sweep_v1.ini}
paths=("$@")
((${#paths[@]})) || paths=(/usr/include)
export MOJIT_CACHE=${MOJIT_CACHE:-$out/cache}

"$root/tools/setup.sh"
targets=(cli/mojit)
build_folder build
mojit=$root/build/cli/mojit

mkdir -p "$out/data"
packed=$out/data/packed-from # so that other paths are packed again
if [[ ! -f $out/data/text_train.bin || ! -f $packed || $(<"$packed") != "${paths[*]}" ]]; then
    printf '== packing text from %s\n' "${paths[*]}"
    rm -f "$packed"
    "$mojit" data pack "${paths[@]}" -o "$out/data/text"
    printf '%s\n' "${paths[*]}" >"$packed"
fi

printf '== sweep %s\n' "${sweep#"$root"/}"
"$mojit" sweep "$sweep" --out "$out" \
    --set "data.train=$out/data/text_train.bin" --set "data.held_out=$out/data/text_val.bin"

printf '\n== report: %s\n' "$out/progress.md"
printf '   tables and figures: %s/metrics %s/figures\n' "$out" "$out"
