#include "jit/identity.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "jit/child.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"

enum { MAX_SEGMENTS = 64, MAX_NOTES = 65536, REMEMBERED = 8, DEFAULT_TIMEOUT_S = 10 };

static bool read_at(int fd, void *buf, size_t n, uint64_t at)
{
    return n > 0 && at <= INT64_MAX && pread(fd, buf, n, (off_t)at) == (ssize_t)n;
}

/* The descriptor of the GNU build-id note among `notes`, as hex; NULL when there is none. */
static char *id_in_notes(const unsigned char *notes, size_t len)
{
    Elf64_Nhdr n; /* the same in 32-bit files */

    for (size_t at = 0; at + sizeof n <= len;) {
        memcpy(&n, notes + at, sizeof n);
        size_t name = at + sizeof n, desc = name + ((size_t)n.n_namesz + 3) / 4 * 4, next = desc + ((size_t)n.n_descsz + 3) / 4 * 4;
        if (desc > len || n.n_descsz > len - desc) return NULL;
        if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && memcmp(notes + name, "GNU", 4) == 0 && n.n_descsz > 0) {
            MjStr hex = MJ_STR_INIT;
            for (size_t i = 0; i < n.n_descsz; i++) mj_str_printf(&hex, "%02x", notes[desc + i]);
            return mj_str_take(&hex);
        }
        at = next;
    }
    return NULL;
}

static char *elf_build_id(int fd)
{
    Elf64_Ehdr h;
    char *id = NULL;

    if (!read_at(fd, &h, sizeof h, 0) || memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
        h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phnum > MAX_SEGMENTS)
        return NULL;
    for (unsigned i = 0; i < h.e_phnum && !id; i++) {
        Elf64_Phdr p;
        if (!read_at(fd, &p, sizeof p, h.e_phoff + i * sizeof p)) return NULL;
        if (p.p_type != PT_NOTE || p.p_filesz == 0 || p.p_filesz > MAX_NOTES) continue;
        unsigned char *notes = mj_xmalloc((size_t)p.p_filesz);
        if (read_at(fd, notes, (size_t)p.p_filesz, p.p_offset)) id = id_in_notes(notes, (size_t)p.p_filesz);
        free(notes);
    }
    return id;
}

char *mj_build_id(const char *path)
{
    char *id = NULL, *bytes = NULL;
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        id = elf_build_id(fd);
        close(fd);
    }
    if (id || mj_fs_read(path, &bytes, &len, NULL) != 0) return id;
    XXH128_hash_t h = XXH3_128bits(bytes, len);
    free(bytes);
    return mj_strdup_printf("%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

/* ---- asking a driver ---- */

/* What the driver prints, the first line only; NULL when it fails or says nothing. MJ_ERR_COMPILE when it hangs. */
static int ask(const char *driver, const char *question, char *environment, double timeout_s, char **answer, MjError *err)
{
    char name[PATH_MAX], words[64];
    char *argv[] = {name, words, NULL};
    int rc = 0, status = 0, in = mj_child_file("mojit-none", "", 0), out = mj_child_file("mojit-answer", "", 0);
    size_t len = 0;

    *answer = NULL;
    snprintf(name, sizeof name, "%s", driver);
    snprintf(words, sizeof words, "%s", question);
    if (in >= 0 && out >= 0) MJ_TRY(mj_child_run(driver, argv, environment, in, out, timeout_s, &status, err));
    if (status == MJ_CHILD_LATE) {
        const char *slash = strrchr(driver, '/');
        rc = mj_error(err, MJ_ERR_COMPILE, "%s did not answer %s within %g s and was killed (jit.timeout)", slash ? slash + 1 : driver,
                      question, timeout_s);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && out >= 0) {
        *answer = mj_child_file_text(out, &len);
    }
out:
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    return rc;
}

/* A program that is named without its folder, as it would be found. */
static char *on_path(const char *name)
{
    const char *path = getenv("PATH");
    char *list = mj_xstrdup(path ? path : ""), *at = list, *found = NULL;

    for (char *dir; !found && (dir = strsep(&at, ":")) != NULL;) {
        struct stat st;
        char *full = mj_strdup_printf("%s/%s", *dir ? dir : ".", name);
        if (stat(full, &st) == 0 && S_ISREG(st.st_mode) && access(full, X_OK) == 0) found = full;
        else free(full);
    }
    free(list);
    return found;
}

/* Adds ", NAME ID" for the program that the driver would start; *file (may be NULL) gets where it lies. */
static int add_program(const char *driver, const char *name, double timeout_s, MjStr *out, char **file, MjError *err)
{
    char question[64], *answer = NULL;

    snprintf(question, sizeof question, "-print-prog-name=%s", name);
    int rc = ask(driver, question, NULL, timeout_s, &answer, err);
    if (rc != 0) return rc;
    if (answer) answer[strcspn(answer, "\n")] = 0;
    char *path = !answer ? NULL : *answer == '/' ? mj_xstrdup(answer) : strcmp(answer, name) == 0 ? on_path(name) : NULL;
    char *id = path ? mj_build_id(path) : NULL;
    if (id) mj_str_printf(out, ", %s %s", name, id);
    if (file) *file = id ? path : NULL;
    if (!file || !id) free(path);
    free(id);
    free(answer);
    return 0;
}

/* clang's work is done by libraries that the loader names: "\tlibLLVM-14.so.1 => /lib/… (0x…)". */
static int add_libraries(const char *clang, double timeout_s, MjStr *out, MjError *err)
{
    static char trace[] = "LD_TRACE_LOADED_OBJECTS=1";
    char *answer = NULL;
    int rc = ask(clang, "--version", trace, timeout_s, &answer, err);

    for (char *at = answer, *line; rc == 0 && at && (line = strsep(&at, "\n")) != NULL;) {
        char *arrow = strstr(line, " => /"), *name = line + strspn(line, "\t ");
        if (!arrow || (strncmp(name, "libclang", 8) != 0 && strncmp(name, "libLLVM", 7) != 0)) continue;
        char *path = arrow + 4;
        path[strcspn(path, " ")] = 0;
        *arrow = 0;
        char *id = mj_build_id(path);
        mj_str_printf(out, ", %s %s", name, id ? id : "unknown");
        free(id);
    }
    free(answer);
    return rc;
}

static int identify(const char *driver, double timeout_s, char **out, MjError *err)
{
    char real[PATH_MAX], *compiler = NULL;
    MjStr text = MJ_STR_INIT;
    int rc = 0;

    if (!realpath(driver, real)) return mj_error_errno(err, MJ_ERR_MISSING, errno, "cannot find the C compiler %s", driver);
    char *id = mj_build_id(real);
    const char *slash = strrchr(real, '/');
    if (!id) return mj_error(err, MJ_ERR_MISSING, "the C compiler %s cannot be read, so that its build is unknown", driver);
    mj_str_printf(&text, "%s %s", slash ? slash + 1 : real, id);
    free(id);
    MJ_TRY(add_program(driver, "cc1", timeout_s, &text, &compiler, err));
    if (compiler) {
        MJ_TRY(add_program(driver, "as", timeout_s, &text, NULL, err));
    } else {
        MJ_TRY(add_program(driver, "clang", timeout_s, &text, &compiler, err));
        if (compiler) MJ_TRY(add_libraries(compiler, timeout_s, &text, err));
    }
    if (compiler) MJ_TRY(add_program(driver, "ld", timeout_s, &text, NULL, err));
    else mj_str_puts(&text, ", what it starts is unknown");
    *out = mj_str_take(&text);
out:
    free(compiler);
    mj_str_free(&text);
    return rc;
}

int mj_identify_cc(const char *driver, double timeout_s, char **out, MjError *err)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static struct {
        char *driver, *identity;
        struct stat st;
    } known[REMEMBERED]; /* for the life of the process */
    static int n_known;
    struct stat st;

    if (stat(driver, &st) != 0) return mj_error_errno(err, MJ_ERR_MISSING, errno, "cannot find the C compiler %s", driver);
    pthread_mutex_lock(&mutex);
    int i = 0, rc = 0;
    while (i < n_known && (strcmp(known[i].driver, driver) != 0 || known[i].st.st_ino != st.st_ino || known[i].st.st_dev != st.st_dev ||
                           known[i].st.st_size != st.st_size || known[i].st.st_mtim.tv_sec != st.st_mtim.tv_sec ||
                           known[i].st.st_mtim.tv_nsec != st.st_mtim.tv_nsec))
        i++;
    if (i < n_known) {
        *out = mj_xstrdup(known[i].identity);
    } else {
        rc = identify(driver, timeout_s > 0 ? timeout_s : DEFAULT_TIMEOUT_S, out, err);
        if (rc == 0 && n_known < REMEMBERED) {
            known[n_known].driver = mj_xstrdup(driver);
            known[n_known].identity = mj_xstrdup(*out);
            known[n_known++].st = st;
        }
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}
