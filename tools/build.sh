# Shared by tools/*.sh and .ci/run (sourced, not run): where the checkout is, and how a build folder is made.
# Everything that a script writes stays in the checkout: build folders, out/, and the kernel cache.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C.UTF-8

# build_folder FOLDER [meson options]: configures FOLDER if it is not yet, and builds everything
build_folder() {
    local folder=$1
    shift
    if [[ ! -f $root/$folder/build.ninja ]]; then
        printf '== configuring %s\n' "$folder"
        rm -rf "${root:?}/$folder" # left half-made by an interrupted configure
        meson setup "$root/$folder" "$root" "$@" >"$root/.configure.log" 2>&1 ||
            { cat "$root/.configure.log" >&2; rm -f "$root/.configure.log"; return 1; }
        rm -f "$root/.configure.log"
    fi
    printf '== building %s\n' "$folder"
    ninja -C "$root/$folder" --quiet
}
