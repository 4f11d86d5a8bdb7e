/* The option table as text: effective settings, --help and Markdown. Owns formatting only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/str.h"
#include "train/config.h"

/* The shortest decimal text that reads back to the same double. */
static void append_number(MjStr *out, double v) {
    char buf[40];
    for (int digits = 6; digits <= 17; digits++) {
        (void)snprintf(buf, sizeof buf, "%.*g", digits, v);
        if (strtod(buf, NULL) == v) break;
    }
    mj_str_printf(out, "%s", buf);
}

static void append_choice(MjStr *out, const char *choices, int32_t index) {
    const char *p = choices;
    for (int32_t i = 0; i < index; i++) p = strchr(p, '|') + 1;
    mj_str_append(out, p, strcspn(p, "|"));
}

static void append_value(MjStr *out, const MjConfig *c, const MjOption *o) {
    const void *at = (const char *)c + o->offset;
    switch (o->type) {
    case MJ_OPTION_INT: mj_str_printf(out, "%d", *(const int32_t *)at); break;
    case MJ_OPTION_INT64: mj_str_printf(out, "%lld", (long long)*(const int64_t *)at); break;
    case MJ_OPTION_FLOAT: append_number(out, *(const double *)at); break;
    case MJ_OPTION_BOOL: mj_str_printf(out, "%s", *(const bool *)at ? "true" : "false"); break;
    case MJ_OPTION_CHOICE: append_choice(out, o->choices, *(const int32_t *)at); break;
    case MJ_OPTION_TEXT: mj_str_printf(out, "%s", (const char *)at); break;
    case MJ_OPTION_BETAS:
        append_number(out, ((const MjBetas *)at)->beta1);
        mj_str_printf(out, ",");
        append_number(out, ((const MjBetas *)at)->beta2);
        break;
    }
}

char *mj_config_dump(const MjConfig *config) {
    MjStr s = MJ_STR_INIT;
    const char *section = "";
    for (const MjOption *o = mj_options; o->section != NULL; o++) {
        if (strcmp(section, o->section) != 0) {
            mj_str_printf(&s, "%s[%s]\n", section[0] ? "\n" : "", o->section);
            section = o->section;
        }
        mj_str_printf(&s, "%s = ", o->key);
        append_value(&s, config, o);
        mj_str_printf(&s, "\n");
    }
    return s.data;
}

/* "1 to 128 layers", "bf16|fp8", "text". */
static void append_legal(MjStr *out, const MjOption *o, const char *bar) {
    switch (o->type) {
    case MJ_OPTION_INT:
    case MJ_OPTION_INT64:
    case MJ_OPTION_FLOAT:
        mj_str_printf(out, "%.15g to %.15g%s%s", o->min, o->max, o->unit[0] ? " " : "", o->unit);
        break;
    case MJ_OPTION_BOOL: mj_str_printf(out, "true%sfalse", bar); break;
    case MJ_OPTION_CHOICE:
        for (const char *p = o->choices; *p != '\0'; p++) {
            if (*p == '|') {
                mj_str_printf(out, "%s", bar);
            } else {
                mj_str_append(out, p, 1);
            }
        }
        break;
    case MJ_OPTION_TEXT: mj_str_printf(out, "text"); break;
    case MJ_OPTION_BETAS: mj_str_printf(out, "two numbers, %.15g to %.15g", o->min, o->max); break;
    }
}

/* Wraps `text` at 100 columns behind an indent. */
static void append_wrapped(MjStr *out, const char *text, int indent) {
    int column = 0;
    for (const char *p = text; *p != '\0';) {
        int len = (int)strcspn(p, " ");
        if (column == 0 || column + 1 + len > 100) {
            mj_str_printf(out, "%s%*s", column > 0 ? "\n" : "", indent, "");
            column = indent;
        } else {
            mj_str_printf(out, " ");
            column++;
        }
        mj_str_append(out, p, (size_t)len);
        column += len;
        p += len;
        while (*p == ' ') p++;
    }
    mj_str_printf(out, "\n");
}

char *mj_config_help(void) {
    MjStr s = MJ_STR_INIT;
    const char *section = "";
    for (const MjOption *o = mj_options; o->section != NULL; o++) {
        if (strcmp(section, o->section) != 0) {
            mj_str_printf(&s, "%s[%s]\n", section[0] ? "\n" : "", o->section);
            section = o->section;
        }
        mj_str_printf(&s, "  %s.%s = %s  (", o->section, o->key, o->default_value[0] ? o->default_value : "\"\"");
        append_legal(&s, o, "|");
        mj_str_printf(&s, ")\n");
        append_wrapped(&s, o->doc, 6);
    }
    return s.data;
}

char *mj_config_markdown(void) {
    MjStr s = MJ_STR_INIT;
    const char *section = "";
    mj_str_printf(&s, "# Configuration\n\n<!-- Generated from train/config_table.c by `MOJIT_UPDATE=1 test_config docs/configuration.md`; do not edit. -->\n\n"
                      "Settings are read from an INI file (`--config F`) and overridden by `--set section.key=value`. An unknown\n"
                      "section or key is an error. A run writes the settings that it really used as `config.ini` in its folder.\n");
    for (const MjOption *o = mj_options; o->section != NULL; o++) {
        if (strcmp(section, o->section) != 0) {
            mj_str_printf(&s, "\n## [%s]\n\n| key | default | legal | meaning |\n| --- | --- | --- | --- |\n", o->section);
            section = o->section;
        }
        mj_str_printf(&s, "| `%s` | %s%s%s | ", o->key, o->default_value[0] ? "`" : "(empty)", o->default_value,
                      o->default_value[0] ? "`" : "");
        append_legal(&s, o, ", ");
        mj_str_printf(&s, " | ");
        for (const char *p = o->doc; *p != '\0'; p++) mj_str_printf(&s, *p == '|' ? "\\|" : "%c", *p);
        mj_str_printf(&s, " |\n");
    }
    return s.data;
}
