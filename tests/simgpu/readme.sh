#!/usr/bin/env bash
# The tables of README.md against the code: readme.sh SOURCE_ROOT. Every wrapper of an instruction has a row, every test that a row
# names exists, every wrong kernel is in a row and in test_rules.c, and the other way round.
set -u
root=$1 dir=$1/tests/simgpu failed=0
readme=$dir/README.md
complain() { echo "FAIL $*"; failed=1; }
in_readme() { grep -qF "\`$1\`" "$readme"; }

names=$(grep -ohE '\bmj_ptx_[a-z0-9_]+ ?\(|\(mj_ptx_[a-z0-9_]+,|NAME\(mj_ptx_[a-z0-9_]+' "$root"/kernels_src/ptx*.cuh | grep -oE 'mj_ptx_[a-z0-9_]+' | sort -u)
[ "$(wc -l <<<"$names")" -gt 70 ] || complain "only $(wc -l <<<"$names") wrappers found in kernels_src/ptx*.cuh"
for name in $names; do
    in_readme "${name#mj_ptx_}" || complain "$name has no row in README.md"
done
for name in $(grep -oE '`test_[a-z0-9_]+`' "$readme" | tr -d '`' | sort -u); do
    grep -qE "^static void $name\(void \*\*state\)" "$dir"/test_instructions.c "$dir"/test_matrix.c || complain "README.md names $name, which is no test"
done
for name in $(grep -ohE '^BAD(_MAP)?\([a-z0-9_]+' "$dir"/kernels_bad*.cu | sed 's/.*(//'); do
    in_readme "$name" || complain "kernel $name has no row in README.md"
    grep -qF "\"$name\"" "$dir/test_rules.c" || complain "kernel $name is not launched by test_rules.c"
done
for name in $(grep -oE '`(bad|race)_[a-z0-9_]+`' "$readme" | tr -d '`' | sort -u); do
    grep -qhE "^BAD(_MAP)?\($name\)" "$dir"/kernels_bad*.cu || complain "README.md names $name, which is no kernel"
done
exit $failed
