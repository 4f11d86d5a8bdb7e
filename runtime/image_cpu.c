/* A shared object from memory: an anonymous file (memfd_create) handed to the loader by its /proc path; where that is
 * not allowed, a private temporary file that is gone before this returns. */
#include "runtime/image_cpu.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/str.h"

#if defined(__x86_64__)
#define HOST_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define HOST_MACHINE EM_AARCH64
#else
#define HOST_MACHINE EM_NONE
#endif

static int check_elf(const void *image, size_t bytes, MjError *err)
{
    Elf64_Ehdr header;

    if (bytes < sizeof header || memcmp(image, ELFMAG, SELFMAG) != 0)
        return mj_error(err, MJ_ERR_DATA, "kernel image of %zu bytes is not a shared object; expected an ELF file", bytes);
    memcpy(&header, image, sizeof header);
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_type != ET_DYN ||
        (HOST_MACHINE != EM_NONE && header.e_machine != HOST_MACHINE))
        return mj_error(err, MJ_ERR_DATA,
                        "kernel image is not a shared object for this machine (ELF type %u, machine %u; expected %u, %u)",
                        header.e_type, header.e_machine, ET_DYN, HOST_MACHINE);
    if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phoff > bytes ||
        header.e_phnum > (bytes - header.e_phoff) / sizeof(Elf64_Phdr))
        return mj_error(err, MJ_ERR_DATA, "kernel image of %zu bytes is cut short: its program headers are missing", bytes);
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        memcpy(&segment, (const char *)image + header.e_phoff + i * sizeof segment, sizeof segment);
        if (segment.p_type != PT_LOAD) continue;
        if (segment.p_offset > bytes || segment.p_filesz > bytes - segment.p_offset)
            return mj_error(err, MJ_ERR_DATA, "kernel image of %zu bytes is cut short: segment %u ends at byte %llu", bytes,
                            i, (unsigned long long)(segment.p_offset + segment.p_filesz));
    }
    return 0;
}

static int write_all(int fd, const char *p, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* The loader takes two files of the same name for one, and descriptor numbers come back after close; so each load
 * spells the same folder in its own way: 32 bits of a serial number as "/." or "//". */
static void unique_proc_path(char path[128], int fd)
{
    static atomic_uint serial;
    unsigned bits = atomic_fetch_add(&serial, 1);
    size_t n = (size_t)snprintf(path, 128, "/proc/self/fd");

    for (int i = 0; i < 32; i++) {
        path[n++] = '/';
        path[n++] = (bits >> i & 1) ? '.' : '/';
    }
    snprintf(path + n, 128 - n, "/%d", fd);
}

static void *load_anonymous(const void *image, size_t bytes)
{
    char path[128];
    void *handle = NULL;
    int fd = memfd_create("mojit-kernel", MFD_CLOEXEC);

    if (fd < 0) return NULL;
    if (write_all(fd, image, bytes) == 0) {
        unique_proc_path(path, fd);
        handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    close(fd); /* the mapping keeps the file */
    return handle;
}

static int load_temporary(const void *image, size_t bytes, void **handle, MjError *err)
{
    int rc = 0, fd = -1, errnum;
    const char *root = getenv("TMPDIR");
    char *folder = mj_strdup_printf("%s/mojit-XXXXXX", root && *root ? root : "/tmp");
    char *path = NULL;

    if (!mkdtemp(folder)) { /* mode 0700 */
        rc = mj_error_errno(err, MJ_ERR_IO, errno, "cannot create a private folder '%s' to load a kernel from", folder);
        free(folder);
        return rc;
    }
    path = mj_strdup_printf("%s/kernel-XXXXXX", folder);
    fd = mkstemp(path);
    errnum = fd < 0 ? errno : write_all(fd, image, bytes);
    if (errnum != 0) {
        rc = mj_error_errno(err, MJ_ERR_IO, errnum, "cannot write kernel image '%s'", path);
        goto out;
    }
    *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!*handle) {
        const char *why = dlerror();
        rc = mj_error(err, MJ_ERR_DEVICE, "cannot load a kernel image of %zu bytes: %s", bytes, why ? why : "unknown reason");
    }
out:
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    rmdir(folder);
    free(path);
    free(folder);
    return rc;
}

int mj_image_cpu_load(const void *image, size_t bytes, void **handle, MjError *err)
{
    int rc = check_elf(image, bytes, err);

    if (rc != 0) return rc;
    void *loaded = load_anonymous(image, bytes);
    if (!loaded) rc = load_temporary(image, bytes, &loaded, err);
    if (rc == 0) *handle = loaded;
    return rc;
}
