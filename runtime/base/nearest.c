/* Nearest name by optimal-string-alignment distance. */
#include "runtime/base/nearest.h"

#include <ctype.h>
#include <string.h>

enum { LONGEST = 127 };

static int fold(char c)
{
    return c == '-' ? '_' : tolower((unsigned char)c);
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

static size_t distance(const char *a, size_t na, const char *b, size_t nb)
{
    size_t rows[3][LONGEST + 1]; /* the last three rows of the table; row i covers a[0..i) */

    for (size_t j = 0; j <= nb; j++) rows[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *row = rows[i % 3], *up = rows[(i - 1) % 3], *up2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            int ca = fold(a[i - 1]), cb = fold(b[j - 1]);
            row[j] = min3(up[j] + 1, row[j - 1] + 1, up[j - 1] + (ca != cb));
            if (i > 1 && j > 1 && ca == fold(b[j - 2]) && cb == fold(a[i - 2]) && up2[j - 2] + 1 < row[j])
                row[j] = up2[j - 2] + 1;
        }
    }
    return rows[na % 3][nb];
}

static int starts_with(const char *text, const char *prefix)
{
    for (; *prefix; text++, prefix++)
        if (!*text || fold(*text) != fold(*prefix)) return 0;
    return 1;
}

const char *mj_nearest(const char *name, const char *const *candidates, size_t n)
{
    const char *best = NULL, *prefixed = NULL;
    size_t best_distance = 0, n_prefixed = 0, len = strlen(name);

    if (len == 0 || len > LONGEST) return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t clen = candidates[i] ? strlen(candidates[i]) : 0;
        if (clen == 0 || clen > LONGEST) continue;
        size_t d = distance(name, len, candidates[i], clen);
        size_t longer = len > clen ? len : clen;
        if (d <= (longer < 3 ? 1 : longer / 3) && d < longer && (!best || d < best_distance)) {
            best = candidates[i];
            best_distance = d;
        }
        if (starts_with(candidates[i], name) || starts_with(name, candidates[i])) {
            prefixed = candidates[i];
            n_prefixed++;
        }
    }
    if (best) return best;
    return n_prefixed == 1 ? prefixed : NULL;
}
