#include "runtime/base/sort.h"

#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

void mj_sort_values(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
}

double mj_median(double *values, size_t n)
{
    mj_sort_values(values, n);
    return values[n / 2];
}
