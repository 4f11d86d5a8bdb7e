#include "cache/ship.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"

#define MAX_ENTRY_BYTES (1ll << 30) /* an entry larger than this is not one of ours */

/* What stopped a write: the system's words where there are some, libarchive's own are "Failed to open". */
static const char *why(struct archive *a)
{
    return archive_errno(a) > 0 ? strerror(archive_errno(a)) : archive_error_string(a);
}

/* ---- export ---- */

typedef struct Exporter {
    MjCache *cache;
    struct archive *archive;
    bool (*wanted)(void *user, MjCacheKey key);
    void *user;
    size_t root; /* that is being visited */
    MjArchiveCount count;
    int rc;
    MjError *err;
} Exporter;

/* Whether a root before this one has given the archive that key. */
static bool went_before(const Exporter *x, MjCacheKey key)
{
    char hex[33];
    bool found = false;

    mj_cache_key_hex(key, hex);
    for (size_t i = 0; i < x->root && !found; i++) {
        MjCacheEntry entry = {.memory = NULL};
        const char *problem;
        if (x->cache->roots[i].problem) continue;
        char *folder = mj_cache_folder_path(&x->cache->roots[i], key), *path = mj_strdup_printf("%s/%s.mj", folder, hex);
        found = mj_cache_read_file(path, &key, &entry, &problem) > 0;
        mj_cache_entry_free(&entry);
        free(path);
        free(folder);
    }
    return found;
}

static int export_entry(void *user, const char *path, const MjCacheEntry *entry, const char *problem)
{
    Exporter *x = user;
    char name[40];

    if (problem) {
        x->count.skipped++;
        mj_cache_warn(x->cache, "%s is left out of the archive: %s", path, problem);
        return 0;
    }
    if ((x->wanted && !x->wanted(x->user, entry->key)) || went_before(x, entry->key)) return 0;
    MjStr bytes = mj_cache_entry_encode(entry->label, entry->image, entry->image_bytes, entry->log, entry->compile_s);
    struct archive_entry *e = archive_entry_new();
    mj_cache_key_hex(entry->key, name);
    memcpy(name + 32, ".mj", 4);
    archive_entry_set_pathname(e, name);
    archive_entry_set_size(e, (la_int64_t)bytes.len);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    if (archive_write_header(x->archive, e) != ARCHIVE_OK ||
        archive_write_data(x->archive, bytes.data, bytes.len) != (la_ssize_t)bytes.len)
        x->rc = mj_error(x->err, MJ_ERR_IO, "cannot write the archive: %s", why(x->archive));
    x->count.entries++;
    x->count.bytes += bytes.len;
    archive_entry_free(e);
    mj_str_free(&bytes);
    return x->rc;
}

int mj_cache_export(MjCache *cache, const char *path, bool (*wanted)(void *user, MjCacheKey key), void *user,
                    MjArchiveCount *out, MjError *err)
{
    Exporter x = {.cache = cache, .wanted = wanted, .user = user, .err = err, .archive = archive_write_new()};
    char *temp = mj_strdup_printf("%s.tmp-%ld", path, (long)getpid());
    int rc = 0;

    archive_write_set_format_pax_restricted(x.archive);
    if (archive_write_add_filter_zstd(x.archive) != ARCHIVE_OK || archive_write_open_filename(x.archive, temp) != ARCHIVE_OK) {
        rc = mj_error(err, MJ_ERR_IO, "cannot write %s: %s", path, why(x.archive));
        goto out;
    }
    for (; x.root < cache->n_roots && x.rc == 0; x.root++)
        if (!cache->roots[x.root].problem) MJ_TRY(mj_cache_each(cache, x.root, export_entry, &x, err));
    rc = x.rc;
    if (archive_write_close(x.archive) != ARCHIVE_OK && rc == 0)
        rc = mj_error(err, MJ_ERR_IO, "cannot write %s: %s", path, why(x.archive));
    if (rc == 0 && x.count.entries == 0)
        rc = mj_error(err, MJ_ERR_DATA, "the cache holds nothing to export; warm it first (`mojit warm`)");
    if (rc == 0 && rename(temp, path) != 0) rc = mj_error(err, MJ_ERR_IO, "cannot rename %s to %s", temp, path);
    if (rc == 0) *out = x.count;
out:
    archive_write_free(x.archive);
    if (rc != 0) unlink(temp);
    free(temp);
    return rc;
}

/* ---- import ---- */

/* Reads the member at hand into *out, checked. */
static int read_member(struct archive *a, struct archive_entry *e, const char *path, MjCacheEntry *out, MjError *err)
{
    const char *name = archive_entry_pathname(e), *problem = NULL;
    la_int64_t size = archive_entry_size(e);
    char hex[33];

    if (!name || !mj_cache_is_entry_name(name) || archive_entry_filetype(e) != AE_IFREG)
        return mj_error(err, MJ_ERR_DATA, "%s is refused: its member \"%s\" is not a cache entry", path, name ? name : "");
    if (size <= 0 || size > MAX_ENTRY_BYTES)
        return mj_error(err, MJ_ERR_DATA, "%s is refused: %s claims a size of %lld bytes", path, name, (long long)size);
    MjStr bytes = MJ_STR_INIT; /* grows with what is really there, not with what is claimed */
    char block[65536];
    la_ssize_t n = 0;
    while ((la_int64_t)bytes.len <= size && (n = archive_read_data(a, block, sizeof block)) > 0)
        mj_str_append(&bytes, block, (size_t)n);
    int rc = 0;
    if (n < 0 || (la_int64_t)bytes.len != size)
        rc = mj_error(err, MJ_ERR_DATA, "%s is refused: %s is cut short or damaged", path, name);
    else if (mj_cache_entry_parse(bytes.data, bytes.len, out, &problem) != 0)
        rc = mj_error(err, MJ_ERR_DATA, "%s is refused: entry %s is bad: %s", path, name, problem);
    mj_str_free(&bytes);
    if (rc != 0) return rc;
    mj_cache_key_hex(out->key, hex);
    if (strncmp(hex, name, 32) == 0) return 0;
    mj_cache_entry_free(out);
    return mj_error(err, MJ_ERR_DATA, "%s is refused: %s holds the entry of another key", path, name);
}

static int publish(MjCache *cache, const MjCacheEntry *entry, MjArchiveCount *count, MjError *err)
{
    MjCacheEntry have = {.memory = NULL};
    bool there = mj_cache_get(cache, entry->key, &have) == MJ_CACHE_HIT;

    mj_cache_entry_free(&have);
    if (there) {
        count->already++;
        return 0;
    }
    return mj_cache_put(cache, entry->label, entry->image, entry->image_bytes, entry->log, entry->compile_s, err);
}

/* One pass over the archive: verifies, and publishes when told to. */
static int pass(MjCache *cache, const char *path, bool store, MjArchiveCount *count, MjError *err)
{
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    int rc = 0, status;

    archive_read_support_format_tar(a);
    archive_read_support_filter_zstd(a);
    if (archive_read_open_filename(a, path, 65536) != ARCHIVE_OK) {
        rc = archive_errno(a) == ENOENT || archive_errno(a) == EACCES
                 ? mj_error(err, mj_fs_input_code(archive_errno(a)), "cannot read %s: %s", path, strerror(archive_errno(a)))
                 : mj_error(err, MJ_ERR_DATA, "%s is refused: it is no archive made by `mojit cache export`: %s", path, archive_error_string(a));
        goto out;
    }
    while ((status = archive_read_next_header(a, &e)) == ARCHIVE_OK) {
        MjCacheEntry entry = {.memory = NULL};
        MJ_TRY(read_member(a, e, path, &entry, err));
        count->entries++;
        count->bytes += entry.image_bytes + strlen(entry.label);
        if (store) rc = publish(cache, &entry, count, err);
        mj_cache_entry_free(&entry);
        if (rc != 0) goto out;
    }
    if (status != ARCHIVE_EOF)
        rc = mj_error(err, MJ_ERR_DATA, "%s is refused: it is not a whole archive made by `mojit cache export`: %s", path,
                      archive_error_string(a));
    else if (count->entries == 0)
        rc = mj_error(err, MJ_ERR_DATA, "%s is refused: it holds no entry", path);
out:
    archive_read_free(a);
    return rc;
}

int mj_cache_import(MjCache *cache, const char *path, MjArchiveCount *out, MjError *err)
{
    MjArchiveCount verified = {.entries = 0}, stored = {.entries = 0};
    int rc = pass(cache, path, false, &verified, err);

    if (rc == 0) rc = pass(cache, path, true, &stored, err);
    if (rc == 0) *out = stored;
    return rc;
}
