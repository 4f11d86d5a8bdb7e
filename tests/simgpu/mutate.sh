#!/usr/bin/env bash
# Takes each rule out of the simulator in turn, and demands that a test notices: mutate.sh CC SOURCE_ROOT BUILD_ROOT [FIRST [LAST]].
# A rule is a call of sim_fail, a report of the scheduler, or a refusal of the driver; a line marked "unreachable" is none.
# Prints what nobody noticed, and exits 1 if there is any.
set -u
cc=$1 root=$2 build=$3 first=${4:-1} last=${5:-9999}
src=$root/tests/simgpu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
flags=(-std=gnu17 -O1 -w -fPIC -I"$root/include" -I"$root" -I"$src")
units=(sim_driver sim_pool sim_exec sim_async sim_matrix sim_race sim_race_global)
command -v g++ >/dev/null || { echo "skipped: no g++, which the simulated GPU compiles kernels with"; exit 77; }

for u in "${units[@]}"; do $cc "${flags[@]}" -c "$src/$u.c" -o "$dir/$u.o" || exit 1; done
mkdir "$dir/lib"
cp "$build"/tests/simgpu/lib*.so* "$dir/lib/" 2>/dev/null

# unit:line of every rule, and how it is taken out (a sed expression)
rules() {
    awk -v u=sim_driver '/^static int (check_geometry|sim_TensorMapEncodeTiled|sim_MemFree\()/ { on = 1 } /^}/ { on = 0 }
        on && /\) return (1|719|912|801);/ && !/unreachable/ { print u ":" FNR ":s/) return [0-9]*;/) (void)0;/" }' "$src/sim_driver.c"
    awk -v u=sim_pool '/\) return (1|801|900);/ && !/unreachable/ { print u ":" FNR ":s/) return [0-9]*;/) (void)0;/" }' "$src/sim_pool.c"
    for u in sim_exec sim_async sim_matrix sim_race sim_race_global; do
        awk -v u=$u '/^_Noreturn void sim_fail/ || /unreachable/ { next }
            /sim_fail\(SIM_CU/ { print u ":" FNR ":s/sim_fail(SIM_CU/if (0) sim_fail(SIM_CU/" }
            /r->error = SIM_CU_LAUNCH_FAILED;/ { print u ":" FNR ":s/r->error = SIM_CU_LAUNCH_FAILED;//" }' "$src/$u.c"
    done
}

noticed() { # whether any test fails with the library in $dir/lib
    local kernels=$src out
    timeout 60 "$build/tests/simgpu/test_pool" "$dir/lib" >"$dir/out" 2>&1 || return 0
    timeout 120 "$build/tests/simgpu/test_rules" "$dir/lib" "$kernels" >"$dir/out" 2>&1 || return 0
    MOJIT_SIMGPU_RACES=1 timeout 120 "$build/tests/simgpu/test_rules" "$dir/lib" "$kernels" >"$dir/out" 2>&1 || return 0
    timeout 60 "$build/tests/simgpu/test_driver" "$dir/lib" "$kernels/kernels_good.cu" >"$dir/out" 2>&1 || return 0
    return 1
}

link() { $cc -shared -o "$dir/lib/libcuda.so.1" "$dir"/*.o -ldl -lm -lpthread; }
link || exit 1
noticed 2>/dev/null && { echo "mutate: the tests fail with every rule in place:"; tail -5 "$dir/out"; exit 1; }

n=0 missed=0
while IFS=: read -r unit line edit; do
    n=$((n + 1))
    [ $n -lt "$first" ] || [ $n -gt "$last" ] && continue
    sed "${line}${edit}" "$src/$unit.c" >"$dir/$unit.c"
    cp "$dir/$unit.o" "$dir/kept"
    if $cc "${flags[@]}" -c "$dir/$unit.c" -o "$dir/$unit.o" && link; then
        noticed 2>/dev/null || { missed=$((missed + 1)); echo "nobody noticed: $unit.c:$line: $(sed -n "${line}s/^ *//p" "$src/$unit.c" | cut -c1-150)"; }
    else
        missed=$((missed + 1)); echo "does not compile without $unit.c:$line"
    fi
    mv "$dir/kept" "$dir/$unit.o"
done < <(rules)
echo "mutate: $n rules, $missed not noticed"
[ $missed -eq 0 ]
