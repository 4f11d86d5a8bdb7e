#include "cache/estimate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache_internal.h"
#include "runtime/base/mem.h"

typedef struct Row {
    char *tmpl, *target;
    double seconds;
    int n;
} Row;

struct MjCompileTimes {
    Row *rows;
    size_t n;
};

static void add(void *user, const char *label, double compile_s)
{
    MjCompileTimes *times = user;
    char *tmpl = mj_cache_label_field(label, "template"), *target = mj_cache_label_field(label, "target");
    size_t i = 0;

    if (tmpl && target && isfinite(compile_s) && compile_s > 0 && compile_s < 1e6) {
        while (i < times->n && (strcmp(times->rows[i].tmpl, tmpl) != 0 || strcmp(times->rows[i].target, target) != 0)) i++;
        if (i == times->n) {
            times->rows = mj_xrealloc(times->rows, ++times->n * sizeof *times->rows);
            times->rows[i] = (Row){.tmpl = mj_xstrdup(tmpl), .target = mj_xstrdup(target)};
        }
        times->rows[i].seconds += compile_s;
        times->rows[i].n++;
    }
    free(tmpl);
    free(target);
}

MjCompileTimes *mj_compile_times_read(MjCache *cache)
{
    MjCompileTimes *times = mj_xcalloc(1, sizeof *times);

    for (size_t i = 0; i < cache->n_roots; i++)
        if (!cache->roots[i].problem) mj_cache_each_label(cache, i, add, times);
    return times;
}

int mj_compile_times_find(const MjCompileTimes *times, const char *tmpl, const char *target, double *seconds)
{
    for (size_t i = 0; i < times->n; i++) {
        const Row *row = &times->rows[i];
        if (strcmp(row->tmpl, tmpl) != 0 || strcmp(row->target, target) != 0) continue;
        *seconds = row->seconds / row->n;
        return row->n;
    }
    return 0;
}

void mj_compile_times_free(MjCompileTimes *times)
{
    if (!times) return;
    for (size_t i = 0; i < times->n; i++) {
        free(times->rows[i].tmpl);
        free(times->rows[i].target);
    }
    free(times->rows);
    free(times);
}
