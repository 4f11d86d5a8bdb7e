# Shared by tools/*.sh and .ci/run (sourced, not run): where the checkout is, and how a build folder is made.
# Everything that a script writes stays in the checkout: build folders, out/, and the kernel cache.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C.UTF-8

# Which compilers there are, beside the one that builds: with g++ come the simulated GPU's tests.
compilers() { command -v g++ || true; }

# build_folder FOLDER [meson options]: configures FOLDER if it is not yet, and builds $targets, or everything
build_folder() {
    local folder=$1
    shift
    if [[ -f $root/$folder/build.ninja && $(cat "$root/$folder/compilers" 2>/dev/null) != "$(compilers)" ]]; then
        printf '== configuring %s again: g++ has come or gone\n' "$folder"
        meson setup --reconfigure "$root/$folder" >/dev/null || return 1
        compilers >"$root/$folder/compilers"
    elif [[ ! -f $root/$folder/build.ninja ]]; then
        printf '== configuring %s\n' "$folder"
        rm -rf "${root:?}/$folder" # left half-made by an interrupted configure
        meson setup "$root/$folder" "$root" "$@" >"$root/.configure.log" 2>&1 ||
            { cat "$root/.configure.log" >&2; rm -f "$root/.configure.log"; return 1; }
        rm -f "$root/.configure.log"
        compilers >"$root/$folder/compilers"
    fi
    printf '== building %s\n' "$folder"
    ninja -C "$root/$folder" --quiet ${targets[@]+"${targets[@]}"}
}
