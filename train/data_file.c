/* Mapped token files: opening, refusing, reading. Owns the mappings. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "train/data.h"

enum { HEADER_INTS = 256, HEADER_BYTES = HEADER_INTS * 4 };

typedef struct TokenFile {
    MjTokenFileInfo info;
    char *path;
    const uint8_t *map;
    size_t map_bytes;
} TokenFile;

struct MjTokens {
    TokenFile *files;
    int n;
};

static int read_header(TokenFile *f, MjError *err) {
    static const struct {
        int32_t magic, version;
        int bits;
        uint32_t bos;
    } formats[] = {{20240520, 1, 16, 50256}, {20240801, 7, 32, 128000}};
    int32_t header[HEADER_INTS];
    memcpy(header, f->map, sizeof header);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (header[0] != formats[i].magic) continue;
        if (header[1] != formats[i].version) {
            return mj_error(err, MJ_ERR_DATA, "%s: token file of version %d; expected %d for magic %d", f->path, header[1],
                            formats[i].version, header[0]);
        }
        f->info.bits = formats[i].bits;
        f->info.bos = header[3] > 0 ? (uint32_t)header[4] : formats[i].bos;
    }
    if (f->info.bits == 0) {
        return mj_error(err, MJ_ERR_DATA, "%s: not a token file: it begins with %d; expected magic 20240520 or 20240801 "
                        "(make one with `mojit data pack`)", f->path, header[0]);
    }
    f->info.tokens = (int64_t)(uint32_t)header[2];
    f->info.vocab = header[3] > 0 ? (uint32_t)header[3] : 0;
    int64_t want = HEADER_BYTES + f->info.tokens * f->info.bits / 8;
    if (f->info.tokens == 0) return mj_error(err, MJ_ERR_DATA, "%s: the header says 0 tokens; pack it again", f->path);
    if ((int64_t)f->map_bytes != want) {
        return mj_error(err, MJ_ERR_DATA, "%s: %s: the header says %lld tokens of %d bits, which is %lld bytes; the file has "
                        "%zu; copy or pack it again", f->path, (int64_t)f->map_bytes < want ? "truncated" : "too long",
                        (long long)f->info.tokens, f->info.bits, (long long)want, f->map_bytes);
    }
    return 0;
}

static int open_file(TokenFile *f, const char *path, MjError *err) {
    int rc = 0;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mj_error_errno(err, mj_fs_input_code(errno), errno, "%s: can't open the token file", path);
    if (fstat(fd, &st) != 0) {
        rc = mj_error_errno(err, MJ_ERR_IO, errno, "%s: can't look at the token file", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = mj_error(err, MJ_ERR_DATA, "%s: not a regular file; expected a token file (.bin)", path);
        goto out;
    }
    if (st.st_size < HEADER_BYTES) {
        rc = mj_error(err, MJ_ERR_DATA, "%s: %s: %lld bytes; a token file has a header of %d bytes; pack it again", path,
                      st.st_size == 0 ? "empty" : "truncated", (long long)st.st_size, HEADER_BYTES);
        goto out;
    }
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        rc = mj_error_errno(err, MJ_ERR_IO, errno, "%s: can't map the token file", path);
        goto out;
    }
    f->path = mj_xstrdup(path);
    f->info.path = f->path;
    f->map = map;
    f->map_bytes = (size_t)st.st_size;
    rc = read_header(f, err);
out:
    (void)close(fd);
    return rc;
}

static int open_pattern(MjTokens *t, const char *pattern, MjError *err) {
    int rc = 0;
    glob_t g;
    int failed = glob(pattern, 0, NULL, &g);
    if (failed == GLOB_NOMATCH) {
        const char *end = strstr(pattern, "_train.bin"); /* what `data pack` adds to its PREFIX */
        if (end == NULL) end = strstr(pattern, "_val.bin");
        return mj_error(err, MJ_ERR_USAGE, "%s: no such token file; make one with `mojit data pack PATH... --out %.*s`", pattern,
                        end != NULL ? (int)(end - pattern) : 6, end != NULL ? pattern : "PREFIX");
    }
    if (failed != 0) return mj_error(err, MJ_ERR_IO, "%s: can't list the files of this pattern", pattern);
    for (size_t i = 0; i < g.gl_pathc && rc == 0; i++) {
        t->files = mj_xrealloc(t->files, (size_t)(t->n + 1) * sizeof *t->files);
        memset(&t->files[t->n], 0, sizeof *t->files);
        rc = open_file(&t->files[t->n++], g.gl_pathv[i], err);
    }
    globfree(&g);
    return rc;
}

int mj_tokens_open(const char *patterns, MjTokens **out, MjError *err) {
    int rc = 0;
    MjTokens *t = mj_xcalloc(1, sizeof *t);
    char *copy = mj_xstrdup(patterns), *save = NULL;
    for (char *p = strtok_r(copy, ":", &save); p != NULL; p = strtok_r(NULL, ":", &save)) {
        MJ_TRY(open_pattern(t, p, err));
    }
    if (t->n == 0) {
        rc = mj_error(err, MJ_ERR_USAGE, "no token file was named; set data.train (see `mojit data pack --help`)");
        goto out;
    }
    *out = t;
    t = NULL;
out:
    free(copy);
    mj_tokens_close(t);
    return rc;
}

void mj_tokens_close(MjTokens *t) {
    if (t == NULL) return;
    for (int i = 0; i < t->n; i++) {
        if (t->files[i].map != NULL) (void)munmap((void *)(uintptr_t)t->files[i].map, t->files[i].map_bytes);
        free(t->files[i].path);
    }
    free(t->files);
    free(t);
}

int mj_tokens_files(const MjTokens *t) { return t->n; }

void mj_tokens_file_info(const MjTokens *t, int file, MjTokenFileInfo *out) { *out = t->files[file].info; }

int64_t mj_tokens_count(const MjTokens *t) {
    int64_t sum = 0;
    for (int i = 0; i < t->n; i++) sum += t->files[i].info.tokens;
    return sum;
}

bool mj_tokens_byte_level(const MjTokens *t) {
    for (int i = 0; i < t->n; i++) {
        if (t->files[i].info.vocab != MJ_BYTE_VOCAB || t->files[i].info.bos != MJ_BYTE_BOS) return false;
    }
    return true;
}

uint32_t mj_tokens_get(const MjTokens *t, int file, int64_t index) {
    const TokenFile *f = &t->files[file];
    const uint8_t *at = f->map + HEADER_BYTES + index * f->info.bits / 8;
    if (f->info.bits == 16) return (uint32_t)at[0] | (uint32_t)at[1] << 8;
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

void mj_tokens_scan(const MjTokens *t, int file, int64_t *documents, uint32_t *largest) {
    int64_t n = t->files[file].info.tokens;
    uint32_t bos = t->files[file].info.bos;
    *documents = 0;
    *largest = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t v = mj_tokens_get(t, file, i);
        *documents += v == bos || i == 0;
        if (v > *largest) *largest = v;
    }
}

int mj_tokens_order1_entropy(const MjTokens *t, double *bits, MjError *err) {
    if (!mj_tokens_byte_level(t)) {
        return mj_error(err, MJ_ERR_DATA, "%s: bits a byte are known for byte-level files only (made by `mojit data pack`)",
                        t->files[0].path);
    }
    int64_t(*count)[MJ_BYTE_VOCAB] = mj_xcalloc(MJ_BYTE_VOCAB, sizeof *count);
    double sum = 0, total = 0;
    for (int f = 0; f < t->n; f++) {
        uint32_t previous = MJ_BYTE_BOS;
        for (int64_t i = 0; i < t->files[f].info.tokens; i++) {
            uint32_t v = mj_tokens_get(t, f, i);
            if (v < MJ_BYTE_BOS && previous < MJ_BYTE_VOCAB) count[previous][v]++;
            previous = v;
        }
    }
    for (int a = 0; a < MJ_BYTE_VOCAB; a++) {
        double row = 0;
        for (int b = 0; b < MJ_BYTE_VOCAB; b++) row += (double)count[a][b];
        for (int b = 0; b < MJ_BYTE_VOCAB; b++) {
            if (count[a][b] > 0) sum -= (double)count[a][b] * log2((double)count[a][b] / row);
        }
        total += row;
    }
    free(count);
    if (total == 0) return mj_error(err, MJ_ERR_DATA, "%s: holds no byte to predict", t->files[0].path);
    *bits = sum / total;
    return 0;
}
