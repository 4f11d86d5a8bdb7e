/* `mojit data pack`: text files to byte-level token files. Owns the choice of documents and of the held-out ones. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/str.h"
#include "train/data.h"

typedef struct Document {
    char *path;
    uint64_t hash; /* of the content: decides choice and split, so that both do not depend on names and order */
    int64_t from, bytes; /* what is taken: the last chosen one may be cut, a single one is split */
    bool chosen, held_out;
} Document;

typedef struct Documents {
    Document *items;
    int64_t n, skipped;
} Documents;

static Document *new_document(Documents *d) {
    if ((d->n & (d->n - 1)) == 0) {
        d->items = mj_xrealloc(d->items, (size_t)(d->n == 0 ? 1 : 2 * d->n) * sizeof *d->items);
    }
    return &d->items[d->n++];
}

/* Text: no NUL byte, at least one byte. */
static void add_file(Documents *d, const char *path) {
    char *data = NULL;
    size_t len = 0;
    if (mj_fs_read(path, &data, &len, NULL) != 0 || len == 0 || memchr(data, 0, len) != NULL) {
        d->skipped++;
        free(data);
        return;
    }
    *new_document(d) = (Document){.path = mj_xstrdup(path), .hash = XXH3_64bits(data, len), .bytes = (int64_t)len};
    free(data);
}

static int add_path(Documents *d, const char *path, bool given, MjError *err) {
    struct stat st;
    int rc = 0;
    if ((given ? stat(path, &st) : lstat(path, &st)) != 0) {
        if (given) return mj_error_errno(err, mj_fs_input_code(errno), errno, "%s: can't read", path);
        d->skipped++;
        return 0;
    }
    if (S_ISREG(st.st_mode)) {
        add_file(d, path);
        return 0;
    }
    if (!S_ISDIR(st.st_mode)) return 0;
    char **names = NULL;
    size_t n = 0;
    rc = mj_fs_list(path, &names, &n, given ? err : NULL);
    if (rc != 0) {
        d->skipped++;
        return given ? rc : 0;
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        char *child = mj_strdup_printf("%s/%s", path, names[i]);
        rc = add_path(d, child, false, err);
        free(child);
    }
    mj_fs_list_free(names, n);
    return rc;
}

static int by_hash(const void *a, const void *b) {
    const Document *x = *(Document *const *)a, *y = *(Document *const *)b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return strcmp(x->path, y->path);
}

/* Chooses documents in order of hash up to max_bytes, and the held-out ones by a second hash of the first. At least one
 * is held out when there are two or more. */
static void choose(Documents *d, const MjPackOptions *o) {
    Document **order = mj_xmalloc((size_t)d->n * sizeof *order);
    for (int64_t i = 0; i < d->n; i++) order[i] = &d->items[i];
    qsort(order, (size_t)d->n, sizeof *order, by_hash);
    int64_t left = o->max_bytes > 0 ? o->max_bytes : INT64_MAX, chosen = 0, held = 0;
    for (int64_t i = 0; i < d->n && left > 0; i++) {
        Document *doc = order[i];
        doc->chosen = true;
        if (doc->bytes > left) doc->bytes = left;
        left -= doc->bytes;
        uint64_t h = XXH3_64bits(&doc->hash, sizeof doc->hash);
        doc->held_out = (double)(h >> 11) * 0x1p-53 < o->held_out;
        chosen++;
        held += doc->held_out;
    }
    if (o->held_out > 0 && chosen >= 2 && held == 0) order[chosen - 1]->held_out = true;
    if (chosen >= 2 && held == chosen) order[0]->held_out = false;
    free(order);
}

/* Of a single document the end is held out, from the beginning of a line where there is one. */
static int split_single(Documents *d, double held_out, MjError *err) {
    Document *only = NULL;
    for (int64_t i = 0; i < d->n; i++) {
        if (!d->items[i].chosen) continue;
        if (only != NULL) return 0;
        only = &d->items[i];
    }
    int64_t tail = (int64_t)((double)only->bytes * held_out);
    if (tail < 1) return 0;
    char *data = NULL;
    size_t len = 0;
    int rc = mj_fs_read(only->path, &data, &len, err);
    if (rc != 0) return rc;
    const char *newline = len >= (size_t)only->bytes ? memchr(data + only->bytes - tail, '\n', (size_t)tail - 1) : NULL;
    if (newline != NULL) tail = data + only->bytes - newline - 1;
    free(data);
    only->bytes -= tail;
    Document rest = {.path = mj_xstrdup(only->path), .hash = only->hash, .from = only->bytes, .bytes = tail, .chosen = true, .held_out = true};
    only->held_out = false;
    *new_document(d) = rest;
    return 0;
}

static void begin_file(MjStr *s) {
    int32_t header[256] = {20240520, 1, 0, MJ_BYTE_VOCAB, MJ_BYTE_BOS};
    mj_str_append(s, header, sizeof header);
}

static int append_document(MjStr *s, const Document *d, MjError *err) {
    char *data = NULL;
    size_t len = 0;
    int rc = mj_fs_read(d->path, &data, &len, err);
    if (rc != 0) return rc;
    if ((int64_t)len < d->from + d->bytes || XXH3_64bits(data, len) != d->hash) {
        rc = mj_error(err, MJ_ERR_DATA, "%s: changed while it was being packed; run it again", d->path);
        goto out;
    }
    mj_str_reserve(s, 2 * ((size_t)d->bytes + 1));
    uint16_t *wide = mj_xmalloc(2 * ((size_t)d->bytes + 1));
    wide[0] = MJ_BYTE_BOS;
    for (int64_t i = 0; i < d->bytes; i++) wide[i + 1] = (uint8_t)data[d->from + i];
    mj_str_append(s, wide, 2 * ((size_t)d->bytes + 1));
    free(wide);
out:
    free(data);
    return rc;
}

static int write_file(MjStr *s, const char *prefix, const char *suffix, MjError *err) {
    int64_t tokens = (int64_t)(s->len - 1024) / 2;
    if (tokens > INT32_MAX) {
        return mj_error(err, MJ_ERR_USAGE, "%s%s: %lld tokens do not fit one file; use --max-bytes", prefix, suffix,
                        (long long)tokens);
    }
    int32_t n = (int32_t)tokens;
    memcpy(s->data + 8, &n, sizeof n);
    char *path = mj_strdup_printf("%s%s", prefix, suffix);
    int rc = mj_fs_write_atomic(path, s->data, s->len, err);
    free(path);
    return rc;
}

static int write_split(const Documents *d, const char *prefix, bool held_out, int64_t *documents, int64_t *bytes,
                       MjError *err) {
    int rc = 0;
    MjStr s = MJ_STR_INIT;
    begin_file(&s);
    *documents = *bytes = 0;
    for (int64_t i = 0; i < d->n; i++) {
        if (!d->items[i].chosen || d->items[i].held_out != held_out) continue;
        MJ_TRY(append_document(&s, &d->items[i], err));
        *documents += 1;
        *bytes += d->items[i].bytes;
    }
    if (*documents > 0) {
        MJ_TRY(write_file(&s, prefix, held_out ? "_val.bin" : "_train.bin", err));
    } else if (held_out) { /* an older one is not of this text */
        char *path = mj_strdup_printf("%s_val.bin", prefix);
        (void)unlink(path);
        free(path);
    }
out:
    mj_str_free(&s);
    return rc;
}

static int held_out_entropy(const char *prefix, double *bits, MjError *err) {
    MjTokens *t = NULL;
    char *path = mj_strdup_printf("%s_val.bin", prefix);
    int rc = mj_tokens_open(path, &t, err);
    if (rc == 0) rc = mj_tokens_order1_entropy(t, bits, err);
    mj_tokens_close(t);
    free(path);
    return rc;
}

/* PREFIX names two files in a folder that may not be there yet. */
static int make_folder_of(const char *prefix, MjError *err) {
    const char *slash = strrchr(prefix, '/');
    if (prefix[0] == '\0' || (slash != NULL && slash[1] == '\0')) {
        return mj_error(err, MJ_ERR_USAGE, "prefix '%s' names no file; expected the beginning of two, such as data/text for "
                        "data/text_train.bin and data/text_val.bin", prefix);
    }
    if (slash == NULL || slash == prefix) return 0;
    char *folder = mj_xstrndup(prefix, (size_t)(slash - prefix));
    int rc = mj_fs_make_dirs(folder, 0777, err);
    free(folder);
    return rc;
}

int mj_data_pack(const char *const *paths, int n_paths, const char *prefix, const MjPackOptions *options,
                 MjPackResult *out, MjError *err) {
    int rc = 0;
    Documents d = {0};
    MjPackResult r = {.held_out_order1_bits = NAN};
    if (!(options->held_out >= 0 && options->held_out <= 0.5)) {
        rc = mj_error(err, MJ_ERR_USAGE, "held-out fraction %g: expected 0 to 0.5", options->held_out);
        goto out;
    }
    for (int i = 0; i < n_paths; i++) MJ_TRY(add_path(&d, paths[i], true, err));
    if (d.n == 0) {
        rc = mj_error(err, MJ_ERR_DATA, "%s%s: no readable text (%lld files were empty, binary or unreadable); name files or "
                      "folders with text", n_paths > 0 ? paths[0] : "(no path)", n_paths > 1 ? " and others" : "",
                      (long long)d.skipped);
        goto out;
    }
    choose(&d, options);
    MJ_TRY(split_single(&d, options->held_out, err));
    MJ_TRY(make_folder_of(prefix, err));
    MJ_TRY(write_split(&d, prefix, false, &r.documents, &r.bytes, err));
    MJ_TRY(write_split(&d, prefix, true, &r.held_out_documents, &r.held_out_bytes, err));
    if (r.held_out_documents > 0) MJ_TRY(held_out_entropy(prefix, &r.held_out_order1_bits, err));
    r.skipped = d.skipped;
    *out = r;
out:
    for (int64_t i = 0; i < d.n; i++) free(d.items[i].path);
    free(d.items);
    return rc;
}
