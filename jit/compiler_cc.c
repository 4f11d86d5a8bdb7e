/* The host's C compiler as a child process. Owns finding it, its flags, and the private folder that a compile writes to.
 * The source goes in through a memory file. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "jit/child.h"
#include "jit/compiler.h"
#include "jit/identity.h"
#include "runtime/base/clock.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"
#include "runtime/device.h"

/* What may change a value's bits is fixed here: no contraction, no reassociation. -fno-trapping-math and -fno-math-errno
 * change no value; without them selects and square roots don't vectorise. */
static const char base_flags[] = "-std=gnu17 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -fPIC -shared "
                                 "-nostdlib -fvisibility=hidden -fno-ident -w";

#define FOLDER_PREFIX "mojit-cc-"
enum { LEFT_OVER_S = 24 * 3600 };

typedef struct CcCompiler {
    MjCompiler base;
    char *path;     /* as found; never part of a key */
    char *identity;
    char flags[8][512]; /* by target seen */
    char targets[8][64];
    int n_targets;
    atomic_bool tidied;
} CcCompiler;

static char *find_on_path(const char *name)
{
    if (strchr(name, '/')) return access(name, X_OK) == 0 ? mj_xstrdup(name) : NULL;
    const char *path = getenv("PATH");
    char *list = mj_xstrdup(path ? path : ""), *at = list, *found = NULL;
    for (char *dir; !found && (dir = strsep(&at, ":")) != NULL;) {
        struct stat st;
        char *full = mj_strdup_printf("%s/%s", *dir ? dir : ".", name);
        if (stat(full, &st) == 0 && S_ISREG(st.st_mode) && access(full, X_OK) == 0)
            found = full;
        else
            free(full);
    }
    free(list);
    return found;
}

static bool serves(const MjCompiler *c, const char *target)
{
    (void)c;
    return strncmp(target, "cpu", 3) == 0;
}

static int identify(MjCompiler *base, const char *target, const char **identity, const char **flags, MjError *err)
{
    CcCompiler *c = (CcCompiler *)base;
    const char *isa = mj_cpu_target_flags(target);
    int i = 0;

    if (!isa) return mj_error(err, MJ_ERR_USAGE, "the C compiler knows no target \"%s\"", target);
    while (i < c->n_targets && strcmp(c->targets[i], target) != 0) i++;
    if (i == c->n_targets) {
        if (i == 8) return mj_error(err, MJ_ERR_USAGE, "more than 8 CPU targets in one process");
        snprintf(c->targets[i], sizeof c->targets[i], "%s", target);
        snprintf(c->flags[i], sizeof c->flags[i], "%s %s", base_flags, isa);
        c->n_targets++;
    }
    if (!c->identity) {
        int rc = mj_identify_cc(c->path, base->timeout_s, &c->identity, err);
        if (rc != 0) return rc;
    }
    *identity = c->identity;
    *flags = c->flags[i];
    return 0;
}

/* "file:line:column: error: words" out of a log; `words` keeps the first of them. */
static void first_error(const char *log, int status, char *words, size_t cap)
{
    const bool said = log && log[0];
    snprintf(words, cap, "the compiler ended with status %d%s", status, said ? ", see its log" : " and said nothing");
    for (const char *at = log; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL) {
        size_t n = strcspn(at, "\n");
        char line[600];
        snprintf(line, sizeof line, "%.*s", (int)(n < 599 ? n : 599), at);
        if (!strstr(line, "error:") && !strstr(line, "undefined reference")) continue;
        snprintf(words, cap, "%s", line);
        return;
    }
}

static int read_image(const char *path, MjCompileResult *r, MjError *err)
{
    char *image = NULL;
    size_t len = 0;
    int rc = mj_fs_read(path, &image, &len, err);

    if (rc != 0) return mj_error(err, MJ_ERR_COMPILE, "the C compiler ended without an error but wrote no image");
    r->image = image;
    r->image_bytes = len;
    return 0;
}

static int judge(const CcCompiler *c, const MjCompileRequest *req, int status, const char *log, MjError *err)
{
    char words[700];
    const char *slash = strrchr(c->path, '/'), *name = slash ? slash + 1 : c->path;

    if (status == MJ_CHILD_LATE)
        return mj_error(err, MJ_ERR_COMPILE, "%s did not finish %s within %g s and was killed (jit.timeout)", name,
                        req->source_name, req->timeout_s);
    if (WIFSIGNALED(status))
        return mj_error(err, MJ_ERR_COMPILE, "%s was ended by signal %d (%s) while compiling %s", name, WTERMSIG(status),
                        strsignal(WTERMSIG(status)), req->source_name);
    if (WEXITSTATUS(status) == 0) return 0;
    first_error(log, WEXITSTATUS(status), words, sizeof words);
    return mj_error(err, MJ_ERR_COMPILE, "%s does not compile: %s", req->source_name, words);
}

/* Folders of compiles that were killed, a day old: nobody else removes them. */
static void remove_left_over(const char *tmp)
{
    char **names = NULL;
    size_t n = 0;

    if (mj_fs_list(tmp, &names, &n, NULL) != 0) return;
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        if (strncmp(names[i], FOLDER_PREFIX, sizeof FOLDER_PREFIX - 1) != 0) continue;
        char *path = mj_strdup_printf("%s/%s", tmp, names[i]);
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && time(NULL) - st.st_mtime > LEFT_OVER_S)
            (void)!mj_fs_remove_tree(path, NULL);
        free(path);
    }
    mj_fs_list_free(names, n);
}

static int compile(MjCompiler *base, const MjCompileRequest *req, MjCompileResult *out, MjError *err)
{
    CcCompiler *c = (CcCompiler *)base;
    const char *identity, *flags, *tmp = getenv("TMPDIR");
    char *argv[48], *words = NULL, *folder = NULL, *image_path = NULL;
    int rc, n = 0, in = -1, log = -1;
    uint64_t start = mj_clock_ns();
    MjCompileResult r = {.registers = -1, .spill_bytes = -1, .stack_bytes = -1, .shared_bytes = -1};

    MJ_TRY(identify(base, req->target, &identity, &flags, err));
    if (!tmp || !*tmp) tmp = "/tmp";
    if (!atomic_exchange(&c->tidied, true)) remove_left_over(tmp);
    folder = mj_strdup_printf("%s/" FOLDER_PREFIX "XXXXXX", tmp);
    if (!mkdtemp(folder)) {
        rc = mj_error_errno(err, MJ_ERR_IO, errno, "cannot make a folder %s for the compiler's output (TMPDIR)", folder);
        free(folder);
        folder = NULL;
        goto out;
    }
    image_path = mj_strdup_printf("%s/image.so", folder);
    words = mj_xstrdup(flags);
    argv[n++] = c->path;
    for (char *at = words, *w; n < 40 && (w = strsep(&at, " ")) != NULL;)
        if (*w) argv[n++] = w;
    char x[] = "-x", lang[] = "c", dash[] = "-", o[] = "-o";
    argv[n++] = x;
    argv[n++] = lang;
    argv[n++] = dash;
    argv[n++] = o;
    argv[n++] = image_path;
    argv[n] = NULL;
    in = mj_child_file("mojit-source", req->source, strlen(req->source));
    log = mj_child_file("mojit-log", "", 0);
    if (in < 0 || log < 0) {
        rc = mj_error_errno(err, MJ_ERR_IO, errno, "cannot make a memory file for the compiler");
        goto out;
    }
    int status = 0;
    MJ_TRY(mj_child_run(c->path, argv, NULL, in, log, req->timeout_s, &status, err));
    size_t log_len = 0;
    r.log = mj_child_file_text(log, &log_len);
    rc = judge(c, req, status, r.log, err);
    if (rc != 0) {
        if (r.log) mj_error_set_log(err, r.log, log_len);
        goto out;
    }
    MJ_TRY(read_image(image_path, &r, err));
    r.seconds = (double)(mj_clock_ns() - start) * 1e-9;
    *out = r;
    r = (MjCompileResult){.image = NULL};
out:
    if (folder) (void)!mj_fs_remove_tree(folder, NULL);
    if (in >= 0) close(in);
    if (log >= 0) close(log);
    mj_compile_result_free(&r);
    free(words);
    free(image_path);
    free(folder);
    return rc;
}

static void close_cc(MjCompiler *base)
{
    CcCompiler *c = (CcCompiler *)base;

    free(c->path);
    free(c->identity);
    free(c);
}

int mj_compiler_cc_open(MjCompiler **out, MjError *err)
{
    static const char *const names[] = {"cc", "gcc", "clang"};
    const char *wanted = getenv("MOJIT_CC");
    char *path = NULL;

    if (wanted && *wanted) {
        path = find_on_path(wanted);
        if (!path) return mj_error(err, MJ_ERR_MISSING, "MOJIT_CC names \"%s\", which is not a program that can be run: give a name on the PATH or "
                                   "a path, without options; unset it for cc, gcc or clang; or use --mode nocompile, which needs none", wanted);
    }
    for (size_t i = 0; !path && i < sizeof names / sizeof *names; i++) path = find_on_path(names[i]);
    if (!path)
        return mj_error(err, MJ_ERR_MISSING,
                        "no C compiler was found (cc, gcc or clang on the PATH, or $MOJIT_CC). Install one (apt-get install "
                        "gcc), or use --mode nocompile, which needs none");
    CcCompiler *c = mj_xcalloc(1, sizeof *c);
    c->base = (MjCompiler){.name = "cc", .serves = serves, .identify = identify, .compile = compile, .close = close_cc};
    c->path = path;
    *out = &c->base;
    return 0;
}
