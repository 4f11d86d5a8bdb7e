#include "cli/bench_jit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_jit.h"
#include "cli/table.h"
#include "cli/term.h"
#include "runtime/base/fs.h"
#include "runtime/base/pool.h"

static void add_row(void *user, const MjJitMeasure *m)
{
    MjTable *t = user;
    const bool has_aim = isfinite(m->aim), reached = m->at_least ? m->value >= m->aim : m->value <= m->aim;
    char number[32], text[64];

    mj_table_text(t, m->what);
    mj_table_text(t, m->missing != NULL ? m->missing : m->detail);
    mj_table_show(t, isfinite(m->value) ? json_real(m->value) : json_null(),
                  mj_format_real(m->value, fabs(m->value) < 1 ? 3 : fabs(m->value) < 10 ? 2 : 1, number));
    mj_table_text(t, m->unit);
    snprintf(text, sizeof text, "%s %g", m->at_least ? ">=" : "<=", m->aim);
    mj_table_show(t, has_aim ? json_real(m->aim) : json_null(), has_aim ? text : "");
    mj_table_show(t, has_aim ? json_boolean(reached) : json_null(), !has_aim ? "" : reached ? "yes" : "no");
}

static void on_progress(void *user, const char *what)
{
    (void)user;
    mj_term_progress("measuring: %s", what);
}

int mj_bench_jit_command(const MjArgs *args, double seconds, MjError *err)
{
    static const MjColumn columns[] = {{"what", "what", false}, {"detail", "of", false}, {"value", "measured", true}, {"unit", "", false},
                                       {"aim", "aim", false},   {"reached", "reached", false}, {NULL, NULL, false}};
    int rc = 0;
    const char *file = mj_args_string(args, "json");
    MjTable *table = mj_table_open(columns);
    MjJitBenchOptions options = {.jobs = (int)mj_args_int(args, "threads", 0), .entries = (int)mj_args_int(args, "entries", 0),
                                 .seconds = seconds, .each = add_row, .progress = on_progress, .user = table};
    MJ_TRY(mj_bench_jit(&options, err));
    mj_term_progress_done();
    printf("%d cores\n\n", mj_pool_cores());
    mj_table_print(table, false);
    if (file != NULL) {
        json_t *o = json_pack("{ss si so}", "version", MJ_VERSION, "cores", mj_pool_cores(), "jit", mj_table_json(table));
        char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        rc = mj_fs_write_atomic(file, text, strlen(text), err);
        free(text);
        json_decref(o);
    }
out:
    mj_term_progress_done();
    mj_table_close(table);
    return rc;
}
