/* Template sources: the built-in files and those of added folders, found by name. Owns the texts of folders. */
#ifndef MJ_JIT_SOURCES_H
#define MJ_JIT_SOURCES_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/error.h"

typedef struct MjSourceFile {
    const char *name; /* "prelude.h", "rmsnorm_fwd.cu" */
    const char *text;
} MjSourceFile;
extern const MjSourceFile mj_builtin_sources[]; /* ends with a NULL name; generated from kernels_src/ at build time */

typedef struct MjSources {
    MjSourceFile *files; /* later files of a name hide earlier ones */
    bool *owned;
    const char **origin; /* "builtin" or the folder, for messages */
    size_t n;
} MjSources;

void mj_sources_add(MjSources *s, const char *name, const char *text, const char *origin); /* copies text */
void mj_sources_add_builtin(MjSources *s, const MjSourceFile *files);                      /* borrows */
/* Every .cu, .cuh, .c and .h file of a folder. MJ_ERR_IO when it can't be read or holds none. */
int mj_sources_add_folder(MjSources *s, const char *folder, MjError *err) MJ_MUST_CHECK;
const char *mj_sources_find(const MjSources *s, const char *name); /* NULL when unknown */
bool mj_sources_is_template(const MjSourceFile *f);                /* starts with mj:template */
void mj_sources_free(MjSources *s);

#endif
