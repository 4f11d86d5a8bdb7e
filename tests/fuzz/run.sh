#!/usr/bin/env bash
# Fuzzes every parser of foreign files with libFuzzer under ASan and UBSan, from the kept corpus.
#
#   tests/fuzz/run.sh [SECONDS] [TARGET...]     120 seconds each of entry archive config tokens template
#
# Needs clang with its sanitizer runtime (libclang-rt-14-dev). Ends with status 77 where that is missing.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
seconds=${1:-120}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(entry archive config tokens template)
work=$root/build-fuzz
mkdir -p "$work"

if ! printf 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n){(void)d;(void)n;return 0;}' |
    clang -x c -fsanitize=fuzzer,address - -o "$work/probe" 2>/dev/null; then
    echo 'fuzz: clang with libFuzzer is missing (apt-get install clang libclang-rt-14-dev)'
    exit 77
fi
# What the parsers need, and nothing of kernels or devices.
sources=(runtime/base/*.c cache/*.c jit/template.c jit/sources.c train/config*.c train/data*.c train/ini_file.c jit/mode.c)
status=0
for target in "${targets[@]}"; do
    mkdir -p "$work/corpus-$target"
    clang -std=gnu17 -g -O1 -D_GNU_SOURCE '-DMJ_VERSION="fuzz"' "-DFUZZ_${target^^}" "-DFUZZ_DIR=\"$work\"" -I. -fsanitize=fuzzer,address,undefined \
        -fno-sanitize-recover=undefined tests/fuzz/fuzz.c "${sources[@]}" -o "$work/fuzz-$target" \
        -linih -larchive -lxxhash -lpthread -lm
    printf '== fuzzing %s for %s s\n' "$target" "$seconds"
    if ! "$work/fuzz-$target" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=0 \
        -artifact_prefix="$work/crash-$target-" "$work/corpus-$target" "tests/fuzz/corpus/$target" >"$work/$target.log" 2>&1; then
        tail -40 "$work/$target.log"
        status=1
    fi
    grep -E '^#[0-9]+' "$work/$target.log" | tail -1
done
rm -rf "$work"/cache-* "$work"/input-*
exit $status
