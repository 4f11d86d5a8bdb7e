#!/usr/bin/env bash
# Fails on an include that goes up:  cli > bench > train > ops > jit > cache > runtime > runtime/base.
# cache knows nothing of kernels; only jit/jit.c and its jit/jit_*.c know the cache; of kernels_src only kernel_args.h and
# *_tile.h are shared, with ops and above.      usage: layers.sh CHECKOUT
set -uo pipefail
export LC_ALL=C

check() { # CHECKOUT: prints each offence, fails if there was one
    (cd "$1" || exit; grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' \
        --include='*.c' --include='*.h' runtime cache jit ops train bench cli 2>/dev/null || true) | awk -F: '
    BEGIN {
        rank["runtime/base"] = 0; rank["runtime"] = 1; rank["cache"] = 2; rank["jit"] = 3; rank["ops"] = 4
        rank["train"] = 5; rank["bench"] = 6; rank["cli"] = 7
    }
    function layer(path) {
        if (path ~ /^runtime\/base\//) return "runtime/base"
        sub(/\/.*/, "", path)
        return path
    }
    {
        file = $1; line = $2
        target = $0; sub(/^[^"]*"/, "", target); sub(/".*/, "", target)
        if (target !~ /\//) next # beside the file itself
        from = layer(file); to = layer(target); why = ""
        if (to == "kernels_src") {
            if (target !~ /^kernels_src\/(kernel_args|[a-z0-9_]+_tile)\.h$/) why = "host code may include only kernel_args.h and *_tile.h"
            else if (rank[from] < rank["ops"]) why = "kernel_args.h and *_tile.h are for ops and above"
        } else if (!(to in rank)) why = "unknown folder " to
        else if (rank[to] > rank[from]) why = from " is below " to
        else if (from == "jit" && to == "cache" && file !~ /^jit\/jit(_[a-z0-9_]+)?\.[ch]$/)
            why = "only jit/jit.c and jit/jit_*.c know the cache"
        if (why != "") { printf "FAIL %s:%s includes \"%s\": %s\n", file, line, target, why; bad = 1 }
        n++
    }
    END { if (!bad) printf "%d includes, none goes up\n", n; exit bad }'
}

# The check itself must find what it is for.
probe=$(mktemp -d) || exit 1
trap 'rm -rf "$probe"' EXIT
mkdir -p "$probe"/{runtime/base,cache,jit,ops}
expect() { # FILE INCLUDE good|bad
    printf '#include "%s"\n' "$2" >"$probe/$1"
    if check "$probe" >/dev/null; then got=good; else got=bad; fi
    rm "$probe/$1"
    [[ $got == "$3" ]] || { echo "FAIL layers.sh takes $1 including $2 for $got"; exit 1; }
}
expect runtime/base/a.c runtime/device.h bad
expect runtime/device.c runtime/base/str.h good
expect cache/c.c jit/template.h bad
expect jit/compiler_cc.c cache/cache.h bad
expect jit/jit_disk.c cache/cache.h good
expect jit/jit.c ops/ops.h bad
expect jit/jit.c kernels_src/kernel_args.h bad
expect ops/ops.c kernels_src/kernel_args.h good
expect ops/ops.c kernels_src/prelude.h bad

[[ -d $1/runtime && -d $1/jit && -d $1/train ]] || { echo "FAIL '$1' is not the checkout"; exit 1; }
check "$1"
