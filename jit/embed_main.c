/* A build-time tool: writes the template sources and the generic builds as C files. Runs while mojit is being built.
 *
 *   mojit-embed sources OUT.c FILE...             mj_builtin_sources[]
 *   mojit-embed generic OUTDIR ISAS FILE...       OUTDIR/generic_<isa>_<template>_<i>.c for each CPU template and variant
 *                                                 combination, and OUTDIR/generic_table.c with mj_embedded_kernels[]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/template.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/device.h"

static int fail(const MjError *err)
{
    fprintf(stderr, "mojit-embed: %s\n", err->message);
    return 1;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static void write_bytes(MjStr *out, const char *text)
{
    size_t column = 0;

    for (const char *at = text; *at; at++) {
        if (column == 0) mj_str_puts(out, "    ");
        mj_str_printf(out, "%d,", *at);
        column = (column + 1) % 32;
        if (column == 0) mj_str_puts(out, "\n");
    }
    mj_str_puts(out, "0};\n");
}

static int write_sources(const char *path, const MjSources *s, MjError *err)
{
    MjStr out = MJ_STR_INIT;

    mj_str_puts(&out, "#include \"jit/sources.h\"\n");
    for (size_t i = 0; i < s->n; i++) {
        mj_str_printf(&out, "static const char text_%zu[] = {\n", i);
        write_bytes(&out, s->files[i].text);
    }
    mj_str_puts(&out, "const MjSourceFile mj_builtin_sources[] = {\n");
    for (size_t i = 0; i < s->n; i++) mj_str_printf(&out, "    {\"%s\", text_%zu},\n", s->files[i].name, i);
    mj_str_puts(&out, "    {NULL, NULL},\n};\n");
    int rc = mj_fs_write_atomic(path, out.data, out.len, err);
    mj_str_free(&out);
    return rc;
}

typedef struct Table {
    MjStr declarations, rows;
} Table;

static int write_generic(const char *dir, const MjSources *s, const MjTemplate *t, const char *isa, Table *table, MjError *err)
{
    int rc = 0;

    for (int g = 0; g < t->n_generic && rc == 0; g++) {
        int32_t bound[MJ_MAX_PARAMS];
        char *text = NULL, suffix[64];
        if (!(t->generic_families[g] & 1u << MJ_FAMILY_CPU)) continue;
        mj_template_generic_values(t, g, bound);
        snprintf(suffix, sizeof suffix, "_%d_%s", g, isa);
        rc = mj_template_expand(t, s, bound, suffix, &text, err);
        if (rc != 0) break;
        char *path = mj_strdup_printf("%s/generic_%s_%s_%d.c", dir, isa, t->name, g);
        rc = mj_fs_write_atomic(path, text, strlen(text), err);
        free(path);
        free(text);
        mj_str_printf(&table->declarations, "static const int32_t bound_%s_%d_%s[] = {", t->name, g, isa);
        for (int i = 0; i < t->n_params; i++)
            mj_str_printf(&table->declarations, bound[i] == MJ_UNBOUND ? "MJ_UNBOUND," : "%d,", bound[i]);
        mj_str_puts(&table->declarations, "0};\n");
        for (int k = 0; k < t->n_kernels; k++) {
            mj_str_printf(&table->declarations, "extern MjCpuEntry %s%s;\n", t->kernels[k], suffix);
            mj_str_printf(&table->rows, "    {\"%s\", \"%s\", \"%s\", bound_%s_%d_%s, %s%s},\n", t->name, t->kernels[k], isa,
                          t->name, g, isa, t->kernels[k], suffix);
        }
    }
    return rc;
}

static int write_generics(const char *dir, const char *isas, const MjSources *s, MjError *err)
{
    Table table = {MJ_STR_INIT, MJ_STR_INIT};
    int rc = 0;

    for (size_t i = 0; i < s->n && rc == 0; i++) {
        MjTemplate *t = NULL;
        if (!mj_sources_is_template(&s->files[i])) continue;
        rc = mj_template_parse(s->files[i].name, s->files[i].text, "builtin", &t, err);
        char *list = mj_xstrdup(isas);
        if (rc == 0 && (t->families & 1u << MJ_FAMILY_CPU))
            for (char *at = list, *isa; rc == 0 && (isa = strsep(&at, ",")) != NULL;)
                rc = write_generic(dir, s, t, isa, &table, err);
        free(list);
        mj_template_free(t);
    }
    if (rc == 0) {
        char *text = mj_strdup_printf("#include \"jit/template.h\"\n#include \"runtime/device.h\"\n%s"
                                      "const MjEmbeddedKernel mj_embedded_kernels[] = {\n%s    {NULL, NULL, NULL, NULL, NULL},\n};\n",
                                      mj_str_text(&table.declarations), mj_str_text(&table.rows));
        char *path = mj_strdup_printf("%s/generic_table.c", dir);
        rc = mj_fs_write_atomic(path, text, strlen(text), err);
        free(path);
        free(text);
    }
    mj_str_free(&table.declarations);
    mj_str_free(&table.rows);
    return rc;
}

int main(int argc, char **argv)
{
    MjError err = MJ_ERROR_INIT;
    MjSources sources = {.n = 0};
    bool generic = argc > 3 && strcmp(argv[1], "generic") == 0;
    int first = generic ? 4 : 3, rc = 0;

    if (argc < 4 || (!generic && strcmp(argv[1], "sources") != 0)) {
        fprintf(stderr, "usage: mojit-embed sources OUT.c FILE... | generic OUTDIR ISAS FILE...\n");
        return 2;
    }
    for (int i = first; i < argc; i++) {
        char *text = NULL;
        if (mj_fs_read(argv[i], &text, NULL, &err) != 0) return fail(&err);
        mj_sources_add(&sources, file_name(argv[i]), text, "builtin");
        free(text);
    }
    rc = generic ? write_generics(argv[2], argv[3], &sources, &err) : write_sources(argv[2], &sources, &err);
    mj_sources_free(&sources);
    return rc == 0 ? 0 : fail(&err);
}
