#!/bin/sh
# Lists, for meson, what mojit-embed will write: for each CPU template FILE one word <template>_<i> per generic build that
# is made for the CPU.
# A template's declarations are described in jit/template.h.
for file in "$@"; do
    awk -v name="$(basename "${file%.*}")" '
        BEGIN { product = 1 }
        /^\/\/ mj:template / { template = 1 }
        /^\/\/ mj:family .*cpu/ { cpu = 1 }
        /^\/\/ mj:generic / { other[listed + 0] = $0 ~ / (cuda|sm_[0-9a]+)( |$)/ && $0 !~ / cpu( |$)/; listed++ }
        /^\/\/ mj:param [A-Za-z0-9_]+ variant / { match($0, /values:[^ ]*/); product *= split(substr($0, RSTART, RLENGTH), parts, ",") }
        END {
            if (!template || !cpu) exit
            n = listed ? listed : product
            for (i = 0; i < n; i++) if (!other[i]) print name "_" i
        }' "$file"
done
