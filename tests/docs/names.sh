#!/usr/bin/env bash
# What the documentation names is there: files of the checkout, and commands with the options that they take.
# usage: names.sh CHECKOUT MOJIT
set -uo pipefail
export LC_ALL=C.UTF-8
checkout=$(realpath "$1") mojit=$(realpath "$2") failures=0
cd "$checkout" || exit 1
pages=(README.md ARCHITECTURE.md CONTRIBUTING.md docs/*.md bench/results/README.md tests/simgpu/README.md)
fail() { echo "FAIL $*"; failures=$((failures + 1)); }

# `folder/file.ext`, from the checkout's root or beside the page; and links [text](page.md#anchor).
files=0
for page in "${pages[@]}"; do
    while read -r name; do
        files=$((files + 1))
        [[ -e $name || -e ${page%/*}/$name ]] || fail "$page names $name, which is not there"
    done < <(grep -oE '`[a-z_0-9]+(/[A-Za-z_0-9.-]+)+\.(c|h|cu|cuh|md|sh|ini|py|build)`' "$page" | tr -d '`' |
        grep -vE '^(build|out|data|run|runs|metrics|figures)/' | sort -u)
    while read -r name; do
        files=$((files + 1))
        [[ -e $name || -e ${page%/*}/$name || -e $(dirname "$page")/$name ]] || fail "$page links to $name, which is not there"
    done < <(grep -oE '\]\([^)#:]+' "$page" | cut -c3- | sort -u)
done
((files > 40)) || fail "only $files names of files were found"

# Commands as printed, up to --help, which ends the parsing; what is a placeholder is left out.
commands=0
while read -r line; do
    [[ $line == *[\[\]\|\$…{]* || $line == *' OP'* ]] && continue
    commands=$((commands + 1))
    line=${line#    }
    words=${line%%  *}
    eval "set -- ${words%%#*}" 2>/dev/null || continue
    shift
    [[ ${*: -1} == --* ]] && set -- "$@" x # perhaps it takes a value
    said=$(timeout 20 "$mojit" "$@" --help 2>&1) || fail "\`$line\`: $said"
done < <({
    grep -hoE '`mojit [^`]+`' "${pages[@]}" | tr -d '`'
    grep -hE '^    mojit ' "${pages[@]}"
    sed -n '/^\.SH EXAMPLES/,/^\.SH SEE/p' man/mojit.1 | grep '^mojit' | sed 's/\\-/-/g'
} | sort -u)
((commands > 25)) || fail "only $commands commands were found"
# The sweep file of docs/modes.md is one.
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
awk '/^## Sweep files/ { inside = 1 } inside && sub(/^    /, "")' docs/modes.md >"$work/s.ini"
said=$(cd "$work" && mkdir data && "$mojit" data pack "$checkout/kernels_src" --out data/text 2>&1 &&
    "$mojit" warm --sweep s.ini --dry-run --set run.device=cpu --mode nocompile 2>&1) || fail "the sweep file of docs/modes.md: $said"
[[ $said == *' kernels in the plan'* ]] || fail "the sweep file of docs/modes.md: $said"

((failures == 0)) && echo "$files names of files, $commands commands"
exit $((failures > 0))
