/* Reading, setting and checking options of the table in config_table.c. Owns parsing of values; prints nothing. */
#include "train/config.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "jit/mode.h"
#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"
#include "runtime/base/str.h"
#include "train/ini_file.h"

#define MAX_OPTIONS 256

static int parse_integer(const char *text, bool bytes, int64_t *out) {
    char *end = NULL;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || (errno != 0 && errno != ERANGE)) return -1; /* too large a number is out of every range as LLONG_MAX is */
    if (bytes && *end != '\0') {
        static const char suffixes[] = "KMGT";
        const char *s = strchr(suffixes, *end >= 'a' ? *end - 'a' + 'A' : *end);
        if (s == NULL) return -1;
        int shift = 10 * (int)(s - suffixes + 1);
        if (v > (INT64_MAX >> shift) || v < 0) return -1;
        v <<= shift;
        end++;
        if (*end == 'B' || *end == 'b') end++;
    }
    if (*end != '\0') return -1;
    *out = v;
    return 0;
}

static int parse_number(const char *text, double *out) {
    char *end = NULL;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v)) return -1;
    *out = v;
    return 0;
}

static int parse_bool(const char *text, bool *out) {
    static const char *const words[2][4] = {{"false", "no", "off", "0"}, {"true", "yes", "on", "1"}};
    for (int v = 0; v < 2; v++) {
        for (int i = 0; i < 4; i++) {
            if (strcasecmp(text, words[v][i]) == 0) {
                *out = v != 0;
                return 0;
            }
        }
    }
    return -1;
}

static int parse_betas(const char *text, MjBetas *out) {
    char first[64];
    const char *comma = strchr(text, ',');
    if (comma == NULL || (size_t)(comma - text) >= sizeof first) return -1;
    memcpy(first, text, (size_t)(comma - text));
    first[comma - text] = '\0';
    comma++;
    while (*comma == ' ') comma++;
    MjBetas b;
    if (parse_number(first, &b.beta1) != 0 || parse_number(comma, &b.beta2) != 0) return -1;
    *out = b;
    return 0;
}

/* Index of `text` in "a|b|c", or -1; the words go to `names` (pointers into `copy`). */
static int split_choices(const char *choices, char *copy, size_t cap, const char **names, int max_names, int *n) {
    size_t len = strlen(choices);
    if (len >= cap) return -1;
    memcpy(copy, choices, len + 1);
    *n = 0;
    for (char *p = copy; p != NULL && *n < max_names;) {
        names[(*n)++] = p;
        p = strchr(p, '|');
        if (p != NULL) *p++ = '\0';
    }
    return 0;
}

static int set_choice(const MjOption *o, const char *value, const char *where, int32_t *out, MjError *err) {
    char copy[256];
    const char *names[16];
    int n = 0;
    (void)split_choices(o->choices, copy, sizeof copy, names, 16, &n);
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], value) == 0) {
            *out = i;
            return 0;
        }
    }
    const char *near = mj_nearest(value, names, (size_t)n);
    return mj_error(err, MJ_ERR_USAGE, "%s: %s.%s = \"%s\": expected one of %s%s%s%s", where, o->section, o->key, value,
                    o->choices, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static int bad_value(const MjOption *o, const char *value, const char *where, const char *expected, MjError *err) {
    return mj_error(err, MJ_ERR_USAGE, "%s: %s.%s = \"%s\": expected %s%s", where, o->section, o->key, value, expected,
                    strstr(value, " #") != NULL ? " (behind a value a comment begins with \" ;\")" : "");
}

static int out_of_range(const MjOption *o, const char *value, const char *where, MjError *err) {
    return mj_error(err, MJ_ERR_USAGE, "%s: %s.%s = \"%s\" is out of range: expected %.15g to %.15g%s%s", where,
                    o->section, o->key, value, o->min, o->max, o->unit[0] ? " " : "", o->unit);
}

static int set_number(const MjOption *o, void *at, const char *value, const char *where, MjError *err) {
    int64_t i = 0;
    double d = 0;
    if (o->type == MJ_OPTION_FLOAT) {
        if (parse_number(value, &d) != 0) return bad_value(o, value, where, "a number", err);
        if (d < o->min || d > o->max) return out_of_range(o, value, where, err);
        *(double *)at = d;
        return 0;
    }
    bool bytes = strcmp(o->unit, "bytes") == 0;
    if (parse_integer(value, bytes, &i) != 0) {
        return bad_value(o, value, where, bytes ? "a size such as 500M or 2G" : "a whole number", err);
    }
    if ((double)i < o->min || (double)i > o->max) return out_of_range(o, value, where, err);
    if (o->type == MJ_OPTION_INT) {
        *(int32_t *)at = (int32_t)i;
    } else {
        *(int64_t *)at = i;
    }
    return 0;
}

static int set_value(MjConfig *c, const MjOption *o, const char *value, const char *where, MjError *err) {
    void *at = (char *)c + o->offset;
    switch (o->type) {
    case MJ_OPTION_INT:
    case MJ_OPTION_INT64:
    case MJ_OPTION_FLOAT: return set_number(o, at, value, where, err);
    case MJ_OPTION_CHOICE: return set_choice(o, value, where, at, err);
    case MJ_OPTION_BOOL:
        if (parse_bool(value, at) != 0) return bad_value(o, value, where, "true or false", err);
        return 0;
    case MJ_OPTION_TEXT: {
        size_t len = strlen(value);
        if (len >= MJ_CONFIG_TEXT) return bad_value(o, value, where, "at most 511 bytes", err);
        memset(at, 0, MJ_CONFIG_TEXT); /* so that equal configurations are equal bytes */
        memcpy(at, value, len);
        return 0;
    }
    case MJ_OPTION_BETAS: {
        MjBetas b;
        if (parse_betas(value, &b) != 0) return bad_value(o, value, where, "two numbers such as 0.8,0.96", err);
        if (b.beta1 < o->min || b.beta1 > o->max || b.beta2 < o->min || b.beta2 > o->max) {
            return out_of_range(o, value, where, err);
        }
        *(MjBetas *)at = b;
        return 0;
    }
    }
    return bad_value(o, value, where, "an option of a known type", err);
}

void mj_config_defaults(MjConfig *config) {
    memset(config, 0, sizeof *config);
    for (const MjOption *o = mj_options; o->section != NULL; o++) {
        MjError err = MJ_ERROR_INIT;
        if (set_value(config, o, o->default_value, "default", &err) != 0) abort(); /* the table itself is wrong */
    }
}

static const MjOption *find_option(const char *section, const char *key) {
    for (const MjOption *o = mj_options; o->section != NULL; o++) {
        if (strcmp(o->section, section) == 0 && strcmp(o->key, key) == 0) return o;
    }
    return NULL;
}

static bool section_known(const char *section) {
    for (const MjOption *o = mj_options; o->section != NULL; o++) {
        if (strcmp(o->section, section) == 0) return true;
    }
    return false;
}

static void suggest(MjStr *out, const char *section, const char *key) {
    mj_str_printf(out, "%s\"%s%s%s\"", out->len == 0 ? "; did you mean " : " or ", section, section[0] ? "." : "", key);
}

/* "; did you mean ...?": the same key in other sections, else the nearest of its own, else those that hold it as a part, else
 * the nearest of all. `section` may be "". */
static void suggest_key(const char *section, const char *key, MjStr *out) {
    const char *own[MAX_OPTIONS], *all[MAX_OPTIONS];
    size_t n_own = 0, n_all = 0;
    for (const MjOption *o = mj_options; o->section != NULL && n_all < MAX_OPTIONS; o++) {
        all[n_all++] = o->key;
        if (strcmp(o->section, section) == 0) own[n_own++] = o->key;
        if (strcmp(o->key, key) == 0) suggest(out, o->section, o->key);
    }
    const char *near = mj_nearest(key, own, n_own);
    if (out->len == 0 && near != NULL) suggest(out, "", near);
    const bool parts = out->len == 0 && strlen(key) > 1;
    for (size_t i = 0; parts && i < n_own; i++) {
        if (strstr(own[i], key) != NULL) suggest(out, "", own[i]);
    }
    near = mj_nearest(key, all, n_all);
    for (const MjOption *o = mj_options; out->len == 0 && near != NULL && o->section != NULL; o++) {
        if (o->key == near) suggest(out, o->section, near);
    }
    if (out->len > 0) mj_str_puts(out, "?");
}

static int unknown_name(const char *section, const char *key, const char *where, MjError *err) {
    MjStr hint = MJ_STR_INIT;
    int rc;
    if (section_known(section)) {
        suggest_key(section, key, &hint);
        rc = mj_error(err, MJ_ERR_USAGE, "%s: unknown key \"%s\" in [%s]%s; `mojit train --help` lists all settings", where, key,
                      section, mj_str_text(&hint));
    } else {
        const char *names[MAX_OPTIONS];
        size_t n = 0;
        for (const MjOption *o = mj_options; o->section != NULL && n < MAX_OPTIONS; o++) names[n++] = o->section;
        const char *near = mj_nearest(section, names, n);
        rc = mj_error(err, MJ_ERR_USAGE, "%s: unknown section [%s]%s%s%s; `mojit train --help` lists all settings", where, section,
                      near ? "; did you mean [" : "", near ? near : "", near ? "]?" : "");
    }
    mj_str_free(&hint);
    return rc;
}

int mj_config_set_key(MjConfig *config, const char *section, const char *key, const char *value, const char *where,
                      MjError *err) {
    const MjOption *o = find_option(section, key);
    if (o == NULL) return unknown_name(section, key, where, err);
    return set_value(config, o, value, where, err);
}

int mj_config_set(MjConfig *config, const char *assignment, MjError *err) {
    int rc;
    const char *equals = strchr(assignment, '=');
    const char *dot = strchr(assignment, '.');
    char section[64], key[64];
    if (equals == NULL || dot == NULL || dot > equals || dot == assignment || dot + 1 == equals) {
        MjStr hint = MJ_STR_INIT;
        char *name = mj_xstrndup(assignment, strcspn(assignment, "="));
        if (strchr(name, '.') == NULL) suggest_key("", name, &hint);
        rc = mj_error(err, MJ_ERR_USAGE, "--set %s: expected section.key=value, such as train.steps=30%s", assignment, mj_str_text(&hint));
        mj_str_free(&hint);
        free(name);
        return rc;
    }
    if ((size_t)(dot - assignment) >= sizeof section || (size_t)(equals - dot - 1) >= sizeof key) {
        return mj_error(err, MJ_ERR_USAGE, "--set %s: no setting has so long a name", assignment);
    }
    memcpy(section, assignment, (size_t)(dot - assignment));
    section[dot - assignment] = '\0';
    memcpy(key, dot + 1, (size_t)(equals - dot - 1));
    key[equals - dot - 1] = '\0';
    return mj_config_set_key(config, section, key, equals + 1, "--set", err);
}

static int on_section(void *user, const char *name, const char *where, MjError *err) {
    (void)user;
    return section_known(name) ? 0 : unknown_name(name, "", where, err);
}

static int on_setting(void *user, const char *section, const char *key, const char *value, const char *where, MjError *err) {
    return mj_config_set_key(user, section, key, value, where, err);
}

int mj_config_load(MjConfig *config, const char *path, MjError *err) {
    MjConfig read = *config;
    const MjIniReader reader = {.section = on_section, .setting = on_setting, .user = &read};
    int rc = mj_ini_read(path, &reader, err);
    if (rc == 0) *config = read;
    return rc;
}
