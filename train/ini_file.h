/* INI files line by line, over libinih: configurations and sweep files. Owns line numbers, and what libinih leaves
 * open: lines of any length, indented lines, a key that stands twice in a section, a section without keys. */
#ifndef MJ_TRAIN_INI_FILE_H
#define MJ_TRAIN_INI_FILE_H

#include "runtime/base/error.h"

typedef struct MjIniReader {
    /* Both return 0 or a negative MjCode with err set, which ends the reading. `where` is "FILE:LINE". */
    int (*section)(void *user, const char *name, const char *where, MjError *err); /* at each [name] */
    int (*setting)(void *user, const char *section, const char *key, const char *value, const char *where, MjError *err);
    void *user;
} MjIniReader;

/* MJ_ERR_IO: no such file; MJ_ERR_USAGE: no INI file, or a line that is none of [section], key = value and comment. */
int mj_ini_read(const char *path, const MjIniReader *reader, MjError *err) MJ_MUST_CHECK;

#endif
