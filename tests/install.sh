#!/usr/bin/env bash
# The example of the public interface, built against an installed library through pkg-config, static and shared.
#   usage: install.sh CHECKOUT BUILD [COMPILER FLAGS]
set -uo pipefail
checkout=$(realpath "$1") build=$(realpath "$2") flags=${3:-}
command -v pkg-config >/dev/null || { echo 'skipped: no pkg-config'; exit 77; }
command -v cc >/dev/null || { echo 'skipped: no C compiler'; exit 77; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
fail() { echo "FAIL $*"; exit 1; }

DESTDIR=$work/stage meson install -C "$build" --no-rebuild --quiet >"$work/log" 2>&1 || fail "meson install: $(tail -5 "$work/log")"
pc=$(find "$work/stage" -name mojit.pc -print -quit)
[[ -n $pc ]] || fail 'mojit.pc is not installed'
export PKG_CONFIG_PATH=${pc%/*} PKG_CONFIG_SYSROOT_DIR=$work/stage MOJIT_CACHE=$work/cache
lib=$(dirname "$(dirname "$pc")")
(($(wc -l <"$checkout/examples/saxpy_modes.c") <= 80)) || fail 'examples/saxpy_modes.c has more than 80 lines'

# Nothing but the public interface can meet a name of the program's own.
if command -v nm >/dev/null; then
    shown=$(nm -D --defined-only "$lib/libmojit.so" | awk '{ print $3 }')
    grep -q '^mojit_open$' <<<"$shown" || fail "libmojit.so lacks mojit_open"
    ! grep -v '^mojit_' <<<"$shown" >"$work/log" || fail "libmojit.so shows $(head -3 "$work/log" | tr '\n' ' ')"
fi

# shellcheck disable=SC2046,SC2086
cc $flags -Wall -Wextra -Werror "$checkout/examples/saxpy_modes.c" -o "$work/shared" $(pkg-config --cflags --libs mojit) ||
    fail 'the example does not build against the shared library'
# shellcheck disable=SC2046,SC2086
cc $flags -Wall -Wextra -Werror "$checkout/examples/saxpy_modes.c" -o "$work/static" $(pkg-config --cflags mojit) "$lib/libmojit.a" \
    $(pkg-config --libs $(pkg-config --print-requires-private mojit)) -pthread -lm -ldl || fail 'the example does not build against the static library'

for kind in shared static; do
    LD_LIBRARY_PATH=$lib "$work/$kind" >"$work/said" 2>&1 || fail "$kind: $(cat "$work/said")"
    for mode in static dynamic nocompile tiered; do
        grep -q "^$mode .*sum 20979," "$work/said" || fail "$kind, $mode: $(cat "$work/said")"
    done
done
grep -q '^static .* 0 compiled, 1 from disk' "$work/said" || fail "the second run compiles again: $(cat "$work/said")"
echo ok
