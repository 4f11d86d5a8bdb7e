#!/usr/bin/env bash
# Runs docs/adding-a-kernel.md: writes its "file" blocks, runs its "sh" blocks, compares its "output" blocks with what the
# last "sh" block printed.      usage: adding_a_kernel.sh CHECKOUT BUILD [CFLAGS]
set -euo pipefail
checkout=$1 build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export MOJIT_CACHE=$work/cache PATH=$build/cli:$PATH LD_LIBRARY_PATH=$build${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export MOJIT_FLAGS="-I$checkout/include -L$build -lmojit ${3-}"

awk '
    /^```file / { kind = "file"; name = $2; next }
    /^```sh$/ { kind = "sh"; name = sprintf("block-%02d.sh", ++n); next }
    /^```output$/ { kind = "output"; name = sprintf("block-%02d.want", n); next }
    /^```$/ { kind = ""; next }
    kind != "" { print > name }' "$checkout/docs/adding-a-kernel.md"
blocks=0 compared=0
for block in block-*.sh; do
    blocks=$((blocks + 1))
    bash -eu "$block" >"${block%.sh}.got" 2>"${block%.sh}.err" || { cat "$block" "${block%.sh}".{got,err}; echo "FAIL $block"; exit 1; }
    [[ -f ${block%.sh}.want ]] || continue
    diff "${block%.sh}.want" "${block%.sh}.got" || { echo "FAIL $block printed something else"; exit 1; }
    compared=$((compared + 1))
done
((blocks >= 2 && compared >= 1)) || { echo "FAIL only $blocks blocks and $compared outputs were found"; exit 1; }
grep -q WIDTH block-01.got || { echo "FAIL mojit kernels did not list the template"; exit 1; }
echo "$blocks blocks ran, $compared outputs were as written"
