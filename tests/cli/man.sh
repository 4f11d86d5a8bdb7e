#!/usr/bin/env bash
# The OPTIONS of the man page are those of --help, command by command. MOJIT_UPDATE=1 writes them anew.
# usage: man.sh MOJIT CHECKOUT
set -uo pipefail
export LC_ALL=C
mojit=$(realpath "$1") page=$2/man/mojit.1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

words() { sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p'; } # commands of a help

# What one command's help lists, as troff.
options() {
    printf '.SS mojit %s\n' "$*"
    "$mojit" "$@" --help | sed -e '/^Settings, for files/,$d' | awk '
        function escaped(text) { gsub(/\\/, "\\e", text); gsub(/-/, "\\-", text); return text }
        /^Usage: / { sub(/^Usage: /, ""); printf "%s\n", escaped($0) }
        /^  (-[a-z], )?--(help|version) / { next }
        /^  (-[a-z], )?--/ {
            line = substr($0, 3); doc = ""
            if (match(line, /  +/)) { doc = substr(line, RSTART + RLENGTH); line = substr(line, 1, RSTART - 1) }
            else if (match(substr(line, 27), /^ /)) { doc = substr(line, 28); line = substr(line, 1, 26) }
            else if (length(line) > 26) { doc = substr(line, 28); line = substr(line, 1, 26) }
            printf ".TP\n.B %s\n", escaped(line)
            if (doc != "") printf "%s\n", escaped(doc)
            wrapped = doc == ""
            next
        }
        wrapped && /^ +[^ ]/ { sub(/^ +/, ""); printf "%s\n", escaped($0); wrapped = 0 }'
}

for command in $("$mojit" --help | words); do
    inner=$("$mojit" "$command" --help | words)
    if [[ -n $inner ]]; then
        for word in $inner; do options "$command" "$word"; done
    else
        options "$command"
    fi
done >"$work/want"
[[ $(grep -c '^\.SS ' "$work/want") -ge 18 ]] || { echo "FAIL only $(grep -c '^\.SS ' "$work/want") commands were found"; exit 1; }

# Between two comments of the page.
if [[ -n ${MOJIT_UPDATE-} ]]; then
    awk -v file="$work/want" '
        /end of OPTIONS$/ { skip = 0 }
        !skip
        /OPTIONS: tests\/cli\/man.sh$/ { while ((getline line < file) > 0) print line; skip = 1 }' "$page" >"$work/page" &&
        cat "$work/page" >"$page"
fi
awk '/end of OPTIONS$/ { inside = 0 } inside; /OPTIONS: tests\/cli\/man.sh$/ { inside = 1 }' "$page" >"$work/have"
diff "$work/have" "$work/want" || { echo 'FAIL man/mojit.1 is not what --help says; run MOJIT_UPDATE=1 tests/cli/man.sh build/cli/mojit .'; exit 1; }
# MOJIT_FAILPOINT is for builds of the tests.
for variable in $(grep -rhoE 'getenv\("MOJIT_[A-Z_]+"\)' "$2"/{cache,cli,jit,ops,runtime,train,bench} | grep -oE 'MOJIT_[A-Z_]+' | sort -u); do
    [[ $variable == MOJIT_FAILPOINT ]] && continue
    grep -q "^\.B $variable\$" "$page" || { echo "FAIL man/mojit.1 does not explain $variable"; exit 1; }
done
echo ok
