/* Parsing and checking of template declarations; see template.h for their form. */
#include "jit/template.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"
#include "runtime/device.h"

typedef struct Parser {
    MjTemplate *t;
    const char *file;
    int line;
    int generic_capacity;
    MjError *err;
} Parser;

static const char *const kind_names[] = {"fixed", "varying", "variant", "tuning"};
static const struct {
    const char *name;
    unsigned families;
    int least_arch;
} family_names[] = {
    {"cpu", 1u << MJ_FAMILY_CPU, 0},
    {"cuda", 1u << MJ_FAMILY_SM80 | 1u << MJ_FAMILY_SM90A | 1u << MJ_FAMILY_SM100, 0},
    {"sm_80", 1u << MJ_FAMILY_SM80 | 1u << MJ_FAMILY_SM90A | 1u << MJ_FAMILY_SM100, 0},
    {"sm_89", 1u << MJ_FAMILY_SM80 | 1u << MJ_FAMILY_SM90A | 1u << MJ_FAMILY_SM100, 89},
    {"sm_90a", 1u << MJ_FAMILY_SM90A, 0},
    {"sm_100", 1u << MJ_FAMILY_SM100, 0},
};

#define FAIL(p, ...) parse_error((p), __VA_ARGS__)

static int parse_error(Parser *p, const char *fmt, ...) MJ_PRINTF(2, 3);
static int parse_error(Parser *p, const char *fmt, ...)
{
    MjStr text = MJ_STR_INIT;
    va_list ap;

    va_start(ap, fmt);
    mj_str_vprintf(&text, fmt, ap);
    va_end(ap);
    mj_error(p->err, MJ_ERR_DATA, "template %s:%d: %s", p->file, p->line, mj_str_text(&text));
    mj_str_free(&text);
    return MJ_ERR_DATA;
}

static int parse_number(Parser *p, const char *text, int32_t *out)
{
    char *end;
    long v = strtol(text, &end, 10);

    if (end == text || *end || v < INT32_MIN || v > INT32_MAX)
        return FAIL(p, "\"%s\" is not a whole number of 32 bits", text);
    *out = (int32_t)v;
    return 0;
}

static int parse_values(Parser *p, char *text, MjParam *param)
{
    for (char *word; (word = strsep(&text, ",")) != NULL;) {
        if (param->n_values == (int)(sizeof param->values / sizeof *param->values))
            return FAIL(p, "parameter %s lists more than 16 values", param->name);
        if (parse_number(p, word, &param->values[param->n_values]) != 0) return MJ_ERR_DATA;
        param->n_values++;
    }
    return 0;
}

static int parse_attribute(Parser *p, char *word, MjParam *param)
{
    static const char *const names[] = {"min", "max", "multiple", "default", "values"};
    char *colon = strchr(word, ':');

    if (!colon) return FAIL(p, "\"%s\" of parameter %s has no ':' (expected min:1, max:4096, multiple:64, values:0,1)", word, param->name);
    *colon = 0;
    if (strcmp(word, "values") == 0) return parse_values(p, colon + 1, param);
    int32_t *target = strcmp(word, "min") == 0        ? &param->min
                      : strcmp(word, "max") == 0      ? &param->max
                      : strcmp(word, "multiple") == 0 ? &param->multiple
                      : strcmp(word, "default") == 0  ? &param->default_value
                                                      : NULL;
    if (!target) {
        const char *near = mj_nearest(word, names, sizeof names / sizeof *names);
        return FAIL(p, "unknown attribute \"%s\"%s%s%s", word, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    if (parse_number(p, colon + 1, target) != 0) return MJ_ERR_DATA;
    if (param->multiple < 1) return FAIL(p, "multiple of parameter %s must be at least 1", param->name);
    return 0;
}

static int parse_param(Parser *p, char *rest)
{
    MjTemplate *t = p->t;
    char *name = strsep(&rest, " "), *kind = rest ? strsep(&rest, " ") : NULL;
    int k = 0;

    if (!*name || !kind) return FAIL(p, "expected: mj:param NAME fixed|varying|variant|tuning [min:1 ...]");
    if (strlen(name) >= sizeof t->params[0].name) return FAIL(p, "parameter name %s is too long", name);
    if (mj_template_param(t, name) >= 0) return FAIL(p, "parameter %s is declared twice", name);
    if (t->n_params == MJ_MAX_PARAMS) return FAIL(p, "more than %d parameters", MJ_MAX_PARAMS);
    while (k < 4 && strcmp(kind_names[k], kind) != 0) k++;
    if (k == 4) {
        const char *near = mj_nearest(kind, kind_names, 4);
        return FAIL(p, "parameter %s is neither fixed, varying, variant nor tuning but \"%s\"%s%s%s", name, kind,
                    near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    MjParam *param = &t->params[t->n_params];
    *param = (MjParam){.kind = (MjParamKind)k, .min = k <= MJ_PARAM_VARYING ? 1 : INT32_MIN + 1, .max = INT32_MAX, .multiple = 1};
    memcpy(param->name, name, strlen(name));
    for (char *word; (word = strsep(&rest, " ")) != NULL;)
        if (*word && parse_attribute(p, word, param) != 0) return MJ_ERR_DATA;
    if (k == MJ_PARAM_VARIANT && param->n_values == 0) return FAIL(p, "variant %s lists no values:", name);
    t->n_params++;
    return 0;
}

static int parse_family(Parser *p, const char *word, unsigned *families, int *least_arch)
{
    size_t i = 0, n = sizeof family_names / sizeof *family_names;
    while (i < n && strcmp(family_names[i].name, word) != 0) i++;
    if (i == n) return FAIL(p, "unknown family \"%s\" (cpu, cuda, sm_80, sm_89, sm_90a, sm_100)", word);
    *families |= family_names[i].families;
    if (family_names[i].least_arch > *least_arch) *least_arch = family_names[i].least_arch;
    return 0;
}

static int parse_generic(Parser *p, char *rest)
{
    MjTemplate *t = p->t;
    unsigned families = 0;
    int least_arch = 0; /* the template's own line decides */

    if (t->n_generic == p->generic_capacity) {
        p->generic_capacity = p->generic_capacity ? 2 * p->generic_capacity : 8;
        t->generic = mj_xrealloc(t->generic, (size_t)p->generic_capacity * sizeof *t->generic);
        t->generic_families = mj_xrealloc(t->generic_families, (size_t)p->generic_capacity * sizeof *t->generic_families);
    }
    int32_t *row = t->generic[t->n_generic];
    for (int i = 0; i < MJ_MAX_PARAMS; i++) row[i] = MJ_UNBOUND;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        char *eq = strchr(word, '=');
        if (!*word) continue;
        if (!eq) {
            if (parse_family(p, word, &families, &least_arch) != 0) return MJ_ERR_DATA;
            continue;
        }
        *eq = 0;
        int i = mj_template_param(t, word);
        if (i < 0 || t->params[i].kind < MJ_PARAM_VARIANT)
            return FAIL(p, "%s is neither a variant nor a tuning parameter declared above", word);
        if (parse_number(p, eq + 1, &row[i]) != 0) return MJ_ERR_DATA;
    }
    for (int i = 0; i < t->n_params; i++)
        if (t->params[i].kind == MJ_PARAM_VARIANT && row[i] == MJ_UNBOUND)
            return FAIL(p, "mj:generic leaves out variant %s", t->params[i].name);
    t->generic_families[t->n_generic++] = families != 0 ? families : ~0u;
    return 0;
}

static int parse_families(Parser *p, char *rest)
{
    for (char *word; (word = strsep(&rest, " ")) != NULL;)
        if (*word && parse_family(p, word, &p->t->families, &p->t->least_arch) != 0) return MJ_ERR_DATA;
    return 0;
}

static int parse_name(Parser *p, const char *word, char *to, size_t cap)
{
    if (!*word || strlen(word) >= cap || strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != strlen(word))
        return FAIL(p, "\"%s\" is not a name of fewer than %zu letters, digits and '_'", word, cap);
    memcpy(to, word, strlen(word) + 1);
    return 0;
}

static int parse_declaration(Parser *p, char *line)
{
    static const char *const names[] = {"template", "doc", "family", "kernel", "args", "param", "generic"};
    MjTemplate *t = p->t;
    char *rest = line, *key = strsep(&rest, " "), none[1] = "";

    if (!rest) rest = none;
    if (strcmp(key, "template") == 0) return parse_name(p, rest, t->name, sizeof t->name);
    if (strcmp(key, "args") == 0) return parse_name(p, rest, t->args, sizeof t->args);
    if (strcmp(key, "family") == 0) return parse_families(p, rest);
    if (strcmp(key, "param") == 0) return parse_param(p, rest);
    if (strcmp(key, "generic") == 0) return parse_generic(p, rest);
    if (strcmp(key, "doc") == 0) {
        free(t->doc);
        t->doc = mj_xstrdup(rest);
        return 0;
    }
    if (strcmp(key, "kernel") == 0) {
        if (t->n_kernels == 8) return FAIL(p, "more than 8 kernels");
        return parse_name(p, rest, t->kernels[t->n_kernels++], sizeof t->kernels[0]);
    }
    const char *near = mj_nearest(key, names, sizeof names / sizeof *names);
    return FAIL(p, "unknown declaration mj:%s%s%s%s", key, near ? "; did you mean mj:" : "", near ? near : "", near ? "?" : "");
}

/* Without mj:generic lines every combination of the variants' values gets a generic build. */
static void cross_product(MjTemplate *t)
{
    int total = 1;

    for (int i = 0; i < t->n_params; i++)
        if (t->params[i].kind == MJ_PARAM_VARIANT) total *= t->params[i].n_values;
    t->generic = mj_xcalloc((size_t)total, sizeof *t->generic);
    t->generic_families = mj_xmalloc((size_t)total * sizeof *t->generic_families);
    for (int row = 0; row < total; row++) {
        int rest = row;
        t->generic_families[row] = ~0u;
        for (int i = 0; i < MJ_MAX_PARAMS; i++) {
            t->generic[row][i] = MJ_UNBOUND;
            if (i >= t->n_params || t->params[i].kind != MJ_PARAM_VARIANT) continue;
            t->generic[row][i] = t->params[i].values[rest % t->params[i].n_values];
            rest /= t->params[i].n_values;
        }
    }
    t->n_generic = total;
}

int mj_template_parse(const char *file, const char *source, const char *origin, MjTemplate **out, MjError *err)
{
    MjTemplate *t = mj_xcalloc(1, sizeof *t);
    Parser p = {.t = t, .file = file, .err = err};
    int rc = 0;
    const char *dot = strrchr(file, '.');

    snprintf(t->file, sizeof t->file, "%s", file);
    snprintf(t->origin, sizeof t->origin, "%s", origin);
    t->source = mj_xstrdup(source);
    for (const char *at = source; *at && rc == 0;) {
        const char *end = strchrnul(at, '\n');
        p.line++;
        if ((size_t)(end - at) > 6 && strncmp(at, "// mj:", 6) == 0) {
            char *line = mj_xstrndup(at + 6, (size_t)(end - at) - 6);
            rc = parse_declaration(&p, line);
            free(line);
        }
        at = *end ? end + 1 : end;
    }
    if (rc == 0 && (!dot || strlen(t->name) != (size_t)(dot - file) || strncmp(t->name, file, strlen(t->name)) != 0))
        rc = FAIL(&p, "mj:template must name the file: expected %.*s, found \"%s\"", dot ? (int)(dot - file) : 64, file, t->name);
    if (rc == 0 && t->n_kernels == 0) rc = FAIL(&p, "no mj:kernel line: which function is the entry point?");
    if (rc == 0 && !t->args[0]) rc = FAIL(&p, "no mj:args line: which struct are the arguments?");
    if (rc == 0 && t->families == 0) rc = FAIL(&p, "no mj:family line: cpu, cuda, or both");
    if (rc != 0) {
        mj_template_free(t);
        return rc;
    }
    if (t->n_generic == 0) cross_product(t);
    *out = t;
    return 0;
}

void mj_template_generic_values(const MjTemplate *t, int g, int32_t *bound)
{
    for (int i = 0; i < t->n_params; i++) {
        const bool by_default = t->params[i].kind == MJ_PARAM_TUNING && t->generic[g][i] == MJ_UNBOUND;
        bound[i] = by_default ? t->params[i].default_value : t->generic[g][i];
    }
}

void mj_template_free(MjTemplate *t)
{
    if (!t) return;
    free(t->doc);
    free(t->source);
    free(t->generic);
    free(t->generic_families);
    free(t);
}

int mj_template_param(const MjTemplate *t, const char *name)
{
    for (int i = 0; i < t->n_params; i++)
        if (strcmp(t->params[i].name, name) == 0) return i;
    return -1;
}

static bool legal(const MjParam *p, int32_t v)
{
    if (v < p->min || v > p->max || v % p->multiple != 0) return false;
    for (int i = 0; i < p->n_values; i++)
        if (p->values[i] == v) return true;
    return p->n_values == 0;
}

int32_t mj_param_example(const MjParam *p)
{
    static const struct {
        const char *name;
        int32_t value;
    } sizes[] = {{"WIDTH", 768}, {"HEADS", 6}, {"HEAD_DIM", 128}, {"EXPERTS", 8}, {"TOP_K", 2}, {"VOCAB", 32768}, {"WINDOW", 1024}};
    static const int32_t others[] = {2048, 1024, 128, 64, 8, 2, 1, 0};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(sizes[i].name, p->name) == 0 && legal(p, sizes[i].value)) return sizes[i].value;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (legal(p, others[i])) return others[i];
    return p->n_values ? p->values[0] : p->min;
}

/* The legal value nearest to v. */
static int32_t nearest_legal(const MjParam *p, int32_t v)
{
    int32_t best = v;

    for (int i = 0; i < p->n_values; i++)
        if (i == 0 || llabs((long long)p->values[i] - v) < llabs((long long)best - v)) best = p->values[i];
    if (p->n_values > 0) return best;
    int64_t clamped = v < p->min ? p->min : v > p->max ? p->max : v;
    int64_t down = clamped / p->multiple * p->multiple, up = down + p->multiple;
    if (down < p->min) return (int32_t)up;
    return (int32_t)(clamped - down <= up - clamped || up > p->max ? down : up);
}

int mj_template_check(const MjTemplate *t, const int32_t *values, MjError *err)
{
    for (int i = 0; i < t->n_params; i++) {
        const MjParam *p = &t->params[i];
        int32_t v = values[i];
        if (v == MJ_UNBOUND && p->kind == MJ_PARAM_TUNING) continue;
        if (v == MJ_UNBOUND) return mj_error(err, MJ_ERR_USAGE, "template %s: no value for parameter %s", t->name, p->name);
        if (legal(p, v)) continue;
        MjStr legal = MJ_STR_INIT;
        for (int k = 0; k < p->n_values; k++) mj_str_printf(&legal, "%s%d", k ? ", " : "one of ", p->values[k]);
        if (p->n_values == 0) mj_str_printf(&legal, "from %d to %d", p->min, p->max);
        if (p->multiple > 1) mj_str_printf(&legal, ", a multiple of %d", p->multiple);
        mj_error(err, MJ_ERR_USAGE, "no %s kernel supports %s = %d: it must be %s; the nearest is %d", t->name, p->name, v,
                 mj_str_text(&legal), nearest_legal(p, v));
        mj_str_free(&legal);
        return MJ_ERR_USAGE;
    }
    return 0;
}

int mj_spec_text(const MjTemplate *t, const char *target, const int32_t *bound, char *buf, size_t cap)
{
    int n = snprintf(buf, cap, "%s target=%s", t->name, target);

    for (int i = 0; i < t->n_params; i++) {
        size_t at = (size_t)n < cap ? (size_t)n : cap;
        if (bound[i] == MJ_UNBOUND)
            n += snprintf(buf + at, cap - at, " %s=?", t->params[i].name);
        else
            n += snprintf(buf + at, cap - at, " %s=%d", t->params[i].name, bound[i]);
    }
    return n;
}
