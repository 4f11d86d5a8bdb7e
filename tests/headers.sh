#!/usr/bin/env bash
# Every header compiles on its own, twice in one file, without a warning.
#   usage: headers.sh CHECKOUT c|c++ COMPILER...      c++: the public headers in include/ only
set -uo pipefail
cd "$1" || exit 1
language=$2
shift 2

headers=()
if [[ $language == c ]]; then
    flags=(-std=gnu17 -x c -D_GNU_SOURCE -I. -Iinclude)
    for h in runtime/*.h runtime/base/*.h cache/*.h jit/*.h ops/*.h train/*.h bench/*.h cli/*.h include/*.h \
        kernels_src/kernel_args.h; do
        [[ -f $h ]] && headers+=("$h")
    done
else
    command -v "$1" >/dev/null || { echo "skipped: no C++ compiler ($1) is installed"; exit 77; }
    flags=(-std=c++17 -x c++ -I. -Iinclude)
    for h in include/*.h; do [[ -f $h ]] && headers+=("$h"); done
fi
((${#headers[@]})) || { echo "FAIL no header found in $PWD"; exit 1; }

bad=0
for h in "${headers[@]}"; do
    include=${h#include/}
    printf '#include "%s"\n#include "%s"\nextern int only_to_have_a_declaration;\n' "$include" "$include" |
        "$@" "${flags[@]}" -Wall -Wextra -Wshadow -Werror -fsyntax-only - || { echo "FAIL $h does not stand alone"; bad=1; }
done
((bad)) || echo "${#headers[@]} headers stand alone"
exit "$bad"
