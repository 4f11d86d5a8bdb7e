/* One training in a process of its own, for the commands that compare trainings. */
#ifndef MJ_CLI_TRAIN_CHILD_H
#define MJ_CLI_TRAIN_CHILD_H

#include <stdbool.h>

#include "cli/records.h"
#include "runtime/base/error.h"

typedef struct MjTrainChild {
    const char *label;       /* for the progress line and errors: "mode static" */
    const char *config;      /* file */
    const char *mode;
    const char *sets[8];     /* "section.key=value"; NULL ends */
    const char *out;         /* folder of its records; emptied first */
    bool profile;
} MjTrainChild;

/* Runs it to its end and reads its records. Passes on an interrupt and waits. A failure carries the child's message, its
 * compiler log and its kind of error. */
int mj_train_child(const MjTrainChild *what, MjRunRecord *record, MjError *err) MJ_MUST_CHECK;

/* A folder for records: `out`, or a new temporary one (*temporary). *dir is malloc'd. */
int mj_train_child_dir(const char *out, char **dir, bool *temporary, MjError *err) MJ_MUST_CHECK;

#endif
