/* A training as a child process. See train_child.h. */
#include "cli/train_child.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/proc.h"
#include "cli/setup.h"
#include "cli/term.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"

static int child_failure(const MjTrainChild *what, const MjChild *child, const MjRunRecord *r, MjError *err)
{
    int status = mj_child_exit(child);
    int code = mj_record_error_code(r);
    if (code == 0) code = status == 2 ? MJ_ERR_USAGE : status == 3 ? MJ_ERR_MISSING : MJ_ERR_DEVICE;
    mj_error(err, code, "%s: %s", what->label, mj_record_error(r)[0] != '\0' ? mj_record_error(r) : mj_child_words(child));
    static const char begin[] = "--- compiler log ---\n", end[] = "--- end of log ---";
    const char *log = strstr(child->tail, begin);
    if (log != NULL) {
        log += sizeof begin - 1;
        const char *stop = strstr(log, end);
        mj_error_set_log(err, log, stop != NULL ? (size_t)(stop - log) : strlen(log));
    }
    return code;
}

int mj_train_child(const MjTrainChild *what, MjRunRecord *r, MjError *err)
{
    int rc = 0, n = 0;
    MjChild child = {.err_fd = -1};
    const char *words[32];
    words[n++] = "train";
    words[n++] = "--quiet";
    words[n++] = "--config";
    words[n++] = what->config;
    for (int i = 0; i < 8 && what->sets[i] != NULL; i++) {
        words[n++] = "--set";
        words[n++] = what->sets[i];
    }
    words[n++] = "--mode";
    words[n++] = what->mode;
    words[n++] = "--out";
    words[n++] = what->out;
    if (what->profile) words[n++] = "--profile";
    words[n] = NULL;
    MJ_TRY(mj_fs_remove_tree(what->out, err));
    MJ_TRY(mj_child_start(&child, words, err));
    bool told = false;
    while (!mj_child_wait(&child, 200)) {
        if (mj_setup_interrupted() && !told) {
            mj_child_interrupt(&child);
            told = true;
        }
        MJ_TRY(mj_record_read(r, what->out, err));
        mj_term_progress("%s: step %zu of %d", what->label, r->n_steps, r->total_steps);
    }
    mj_term_progress_done();
    MJ_TRY(mj_record_read(r, what->out, err));
    if (mj_setup_interrupted()) MJ_TRY(mj_error(err, MJ_ERR_INTERRUPTED, "interrupted in %s", what->label));
    if (mj_child_exit(&child) != 0) rc = child_failure(what, &child, r, err);
out:
    mj_term_progress_done();
    mj_child_close(&child);
    return rc;
}

int mj_train_child_dir(const char *out, char **dir, bool *temporary, MjError *err)
{
    int rc = 0;
    const char *tmp = getenv("TMPDIR");
    char *path = out != NULL ? mj_xstrdup(out)
                             : mj_strdup_printf("%s/mojit-XXXXXX", tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp");
    if (out != NULL) {
        MJ_TRY(mj_fs_make_dirs(out, 0777, err));
    } else if (mkdtemp(path) == NULL) {
        MJ_TRY(mj_error_errno(err, MJ_ERR_IO, errno, "cannot make a folder %s", path));
    }
    *dir = path;
    *temporary = out == NULL;
    path = NULL;
out:
    free(path);
    return rc;
}
