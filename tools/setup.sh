#!/usr/bin/env bash
# Installs what building and testing mojit needs and this Debian machine lacks. Says what it does; does nothing, and
# needs neither root nor a network, when everything is there. Changes nothing but packages.
#
#   tools/setup.sh          what the build, the demo and the tests need
#   tools/setup.sh --dev    and what .ci/run uses besides (clang and its sanitizers)
set -euo pipefail

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0"; }
say() { printf 'setup: %s\n' "$*"; }

dev=0
for arg in "$@"; do
    case $arg in
    --dev) dev=1 ;;
    --help) usage; exit 0 ;;
    *) printf 'setup: unknown option %s; see %s --help\n' "$arg" "$0" >&2; exit 2 ;;
    esac
done

missing=() optional=()

# need LIST PACKAGE CHECK...: adds PACKAGE to LIST unless CHECK succeeds
need() {
    local -n list=$1
    local package=$2
    shift 2
    "$@" >/dev/null 2>&1 || list+=("$package")
}
have_command() { command -v "$1"; }
have_module() { command -v pkg-config && pkg-config --exists "$1"; }
have_file() { compgen -G "$1"; }
have_package() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

need missing gcc have_command gcc
need missing libc6-dev have_file '/usr/include/stdio.h'
need missing linux-libc-dev have_file '/usr/include/linux/futex.h'
need missing meson have_command meson
need missing ninja-build have_command ninja
need missing pkg-config have_command pkg-config
need missing libinih-dev have_module inih
need missing libjansson-dev have_module jansson
need missing libxxhash-dev have_module libxxhash
need missing libarchive-dev have_module libarchive
need missing libzstd-dev have_module libzstd
need missing libcmocka-dev have_module cmocka
need missing gnuplot-nox have_command gnuplot
need missing fonts-dejavu-core have_file '/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf'
# Nothing is built from these; a part of bench or of the tests is skipped, and says so, where they are missing.
need optional libopenblas-dev have_file '/usr/lib/*/libopenblas.so*'
need optional g++ have_command g++ # the simulated GPU compiles with it
if ((dev)); then
    need optional clang have_command clang
    need optional libclang-rt-dev have_file '/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer*'
fi

if ((${#missing[@]} + ${#optional[@]} == 0)); then
    say 'everything that mojit needs is installed'
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    ((${#missing[@]} == 0)) && { say "optional and missing: ${optional[*]}"; exit 0; }
    say "this is not a Debian system; install the equivalents of: ${missing[*]}" >&2
    exit 3
fi
if (($(id -u) != 0)); then
    ((${#missing[@]} == 0)) && { say "optional and missing (not root, so left out): ${optional[*]}"; exit 0; }
    say "missing: ${missing[*]}" >&2
    say "installing packages needs root; run: sudo apt-get install ${missing[*]} ${optional[*]}" >&2
    exit 3
fi

install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; }

say "installing: ${missing[*]} ${optional[*]}"
apt-get update -q || say 'apt-get update failed; trying with the package lists that are there' >&2
if ((${#missing[@]})) && ! install "${missing[@]}"; then
    say "could not install: ${missing[*]}" >&2
    say 'check the network and /etc/apt/sources.list, then run this again' >&2
    exit 3
fi
for package in "${optional[@]}"; do
    install "$package" || say "could not install $package, which is optional" >&2
done
say 'done'
