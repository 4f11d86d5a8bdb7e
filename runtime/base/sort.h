/* Order of measured values. Any thread may call these on values of its own. */
#ifndef MJ_BASE_SORT_H
#define MJ_BASE_SORT_H

#include <stddef.h>

void mj_sort_values(double *values, size_t n); /* ascending; none may be NaN */

/* Sorts; of an even number the upper of the two in the middle. n >= 1. */
double mj_median(double *values, size_t n);

#endif
