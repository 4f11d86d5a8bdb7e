# Sourced by the tests of the command line. Needs $1 = the mojit binary, $2 = the checkout.
set -uo pipefail
export LC_ALL=C
mojit=$(realpath "$1") checkout=$(realpath "$2") failures=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# expect STATUS PATTERN COMMAND...: its exit status, and an extended regular expression in stdout and stderr together.
expect() {
    local want=$1 pattern=$2 got
    shift 2
    "$@" >said 2>&1
    got=$?
    if [[ $got != "$want" ]]; then
        echo "FAIL \`$*\`: exit status $got, want $want; it said: $(head -c 600 said)"
        failures=$((failures + 1))
    elif ! grep -qE -- "$pattern" said; then
        echo "FAIL \`$*\`: nothing matches /$pattern/ in: $(head -c 600 said)"
        failures=$((failures + 1))
    fi
}

# check TEXT COMMAND...: the command must succeed.
check() {
    local text=$1
    shift
    "$@" >checked 2>&1 || { echo "FAIL $text: \`$*\`: $(head -c 400 checked)"; failures=$((failures + 1)); }
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local left=$(($1 * 20))
    shift
    until "$@" >/dev/null 2>&1; do
        ((left-- > 0)) || return 1
        sleep 0.05
    done
}

make_data() { # t_train.bin and t_val.bin from the checkout's own text
    "$mojit" data pack "$checkout/kernels_src" --out t >/dev/null || exit 1
    tiny=(--config "$checkout/configs/tiny.ini" --set data.train=t_train.bin --set data.held_out=t_val.bin
        --set train.eval_tokens=2048 --set run.device=cpu)
}

finish() {
    ((failures == 0)) && echo "ok"
    exit $((failures > 0))
}
