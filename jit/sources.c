#include "jit/sources.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"

static void add(MjSources *s, MjSourceFile file, bool owned, const char *origin)
{
    s->files = mj_xrealloc(s->files, (s->n + 1) * sizeof *s->files);
    s->owned = mj_xrealloc(s->owned, (s->n + 1) * sizeof *s->owned);
    s->origin = mj_xrealloc(s->origin, (s->n + 1) * sizeof *s->origin);
    s->files[s->n] = file;
    s->owned[s->n] = owned;
    s->origin[s->n] = mj_xstrdup(origin);
    s->n++;
}

void mj_sources_add(MjSources *s, const char *name, const char *text, const char *origin)
{
    add(s, (MjSourceFile){.name = mj_xstrdup(name), .text = mj_xstrdup(text)}, true, origin);
}

void mj_sources_add_builtin(MjSources *s, const MjSourceFile *files)
{
    for (; files->name; files++) add(s, *files, false, "builtin");
}

static bool is_source_name(const char *name)
{
    static const char *const endings[] = {".cu", ".cuh", ".c", ".h"};
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcmp(dot, endings[i]) == 0) return true;
    return false;
}

int mj_sources_add_folder(MjSources *s, const char *folder, MjError *err)
{
    char **names = NULL;
    size_t n = 0, before = s->n;
    int rc = mj_fs_list(folder, &names, &n, err);

    if (rc != 0) return rc;
    for (size_t i = 0; i < n && rc == 0; i++) {
        char *text = NULL;
        if (!is_source_name(names[i])) continue;
        char *path = mj_strdup_printf("%s/%s", folder, names[i]);
        rc = mj_fs_read(path, &text, NULL, err);
        if (rc == 0) mj_sources_add(s, names[i], text, folder);
        free(text);
        free(path);
    }
    mj_fs_list_free(names, n);
    if (rc == 0 && s->n == before)
        rc = mj_error(err, MJ_ERR_IO, "template folder %s holds no .cu, .cuh, .c or .h file", folder);
    return rc;
}

const char *mj_sources_find(const MjSources *s, const char *name)
{
    for (size_t i = s->n; i-- > 0;)
        if (strcmp(s->files[i].name, name) == 0) return s->files[i].text;
    return NULL;
}

bool mj_sources_is_template(const MjSourceFile *f)
{
    return strncmp(f->text, "// mj:template ", 15) == 0;
}

void mj_sources_free(MjSources *s)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->owned[i]) {
            free((char *)(uintptr_t)s->files[i].name);
            free((char *)(uintptr_t)s->files[i].text);
        }
        free((char *)(uintptr_t)s->origin[i]);
    }
    free(s->files);
    free(s->owned);
    free(s->origin);
    *s = (MjSources){.n = 0};
}
