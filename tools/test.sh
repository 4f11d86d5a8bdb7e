#!/usr/bin/env bash
# Sets up, builds and runs the tests.
#
#   tools/test.sh                      the fast suite, release build (build/)
#   tools/test.sh --long               every test
#   tools/test.sh --sanitize           under ASan and UBSan (build-asan/)
#   tools/test.sh --sanitize-threads   tests of threaded code under TSan (build-tsan/)
#   tools/test.sh [...] NAME...        only these tests
#
# Ends with one line "N passed, N failed, N skipped"; the exit status is 0 only if nothing failed.
set -euo pipefail
source "$(dirname "$0")/build.sh"

usage() { sed -n '2,11s/^# \{0,1\}//p' "$0"; }

folder=build options=() again="" suites=(--no-suite long) names=() long=0
for arg in "$@"; do
    case $arg in
    --long) long=1 ;;
    --sanitize)
        folder=build-asan again="--sanitize "
        options=(-Db_sanitize=address,undefined -Db_lundef=false -Dbuildtype=debugoptimized -Dgpu_generic=[])
        ;;
    --sanitize-threads)
        folder=build-tsan again="--sanitize-threads "
        options=(-Db_sanitize=thread -Db_lundef=false -Dbuildtype=debugoptimized -Dgpu_generic=[])
        suites=(--suite threads --suite cache --suite jit --no-suite long)
        ;;
    --help) usage; exit 0 ;;
    --*) printf 'test: unknown option %s; see %s --help\n' "$arg" "$0" >&2; exit 2 ;;
    *) names+=("$arg") ;;
    esac
done
((long)) && suites=()
((${#names[@]})) && suites=()

"$root/tools/setup.sh"
export MOJIT_CACHE=$root/$folder/test-cache
build_folder "$folder" "${options[@]}"

printf '== testing %s\n' "$folder"
status=0
meson test -C "$root/$folder" --no-rebuild --print-errorlogs --num-processes "$(nproc)" \
    "${suites[@]}" "${names[@]}" || status=$?

# One JSON object a line. Quotes inside a test's output are escaped, so "result": "..." is meson's own.
log=$root/$folder/meson-logs/testlog.json
count() { grep -c -E "\"result\": \"($1)\"" "$log" || true; }
passed=0 failed=0 skipped=0
if [[ -s $log ]]; then
    passed=$(count 'OK|EXPECTEDFAIL')
    skipped=$(count 'SKIP')
    failed=$(($(wc -l <"$log") - passed - skipped))
fi
if ((passed + failed == 0)); then
    printf 'test: no test ran\n' >&2
    failed=1
fi
((status != 0 && failed == 0)) && failed=1 # meson itself failed

# list RESULTS: name and last line of output of the tests with these results
list() {
    grep -E "\"result\": \"($1)\"" "$log" | awk '{
        name = $0; sub(/.*"name": "/, "", name); sub(/".*/, "", name); sub(/.* \/ /, "", name)
        text = ""
        if (match($0, /"stdout": "([^"\\]|\\.)*"/)) text = substr($0, RSTART + 11, RLENGTH - 12)
        gsub(/\\n/, "\n", text); gsub(/\\"/, "\"", text); sub(/\n+$/, "", text)
        n = split(text, lines, "\n")
        printf "   %s: %s\n", name, n ? lines[n] : "(no output)"
    }'
}
if ((skipped)); then
    printf '== skipped in %s, and why\n' "$folder"
    list SKIP
fi
if ((failed)) && [[ -s $log ]]; then
    printf '== failed in %s\n' "$folder"
    grep -v -E '"result": "(OK|EXPECTEDFAIL|SKIP)"' "$log" | sed 's/.*"name": "\([^"]*\)".*/\1/; s/.* \/ //' |
        while read -r name; do printf '   %s    run it alone: tools/test.sh %s%s\n' "$name" "$again" "$name"; done
fi
printf '%d %d %d\n' "$passed" "$failed" "$skipped" >"$root/$folder/test-totals"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
((failed == 0))
