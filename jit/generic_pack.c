/* Reading packs of generic GPU images; see generic_pack.h. */
#include "jit/generic_pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "runtime/base/fs.h"
#include "runtime/base/mem.h"

static uint64_t get64(const unsigned char *at)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--) v = v << 8 | at[i];
    return v;
}

static int bad(const MjGenericPack *p, const char *why, MjError *err)
{
    return mj_error(err, MJ_ERR_DATA, "generic kernels from %s: %s; make the pack again with mojit-pack", p->origin, why);
}

/* "image <offset> <bytes> 128,?,1" */
static bool parse_image(MjGenericFrame *f, char *rest)
{
    MjGenericImage image = {.bytes = 0};
    int used = 0, i = 0;

    if (sscanf(rest, "%zu %zu %n", &image.offset, &image.bytes, &used) < 2) return false;
    if (image.offset > f->raw || image.bytes > f->raw - image.offset) return false;
    char *list = rest + used;
    for (char *word; i < MJ_MAX_PARAMS && (word = strsep(&list, ",")) != NULL; i++)
        image.values[i] = strcmp(word, "?") == 0 ? MJ_UNBOUND : (int32_t)strtol(word, NULL, 10);
    f->images = mj_xrealloc(f->images, (size_t)(f->n_images + 1) * sizeof *f->images);
    f->images[f->n_images++] = image;
    return true;
}

static bool parse_frame(MjGenericPack *p, const char *rest, size_t start)
{
    MjGenericFrame f = {.n_images = 0};

    if (sscanf(rest, "%63s %15s %32s %zu %zu %zu", f.tmpl, f.target, f.sources, &f.offset, &f.packed, &f.raw) != 6) return false;
    f.offset += start;
    if (f.offset > p->len || f.packed > p->len - f.offset || f.raw > (size_t)1 << 30) return false;
    p->frames = mj_xrealloc(p->frames, (size_t)(p->n_frames + 1) * sizeof *p->frames);
    p->frames[p->n_frames++] = f;
    return true;
}

static int parse_index(MjGenericPack *p, char *index, size_t start, MjError *err)
{
    for (char *at = index, *line; (line = strsep(&at, "\n")) != NULL;) {
        char *rest = line, *word = strsep(&rest, " ");
        bool ok = true;
        if (!*word) continue;
        if (!rest) return bad(p, "its index is damaged", err);
        if (strcmp(word, "maker") == 0) snprintf(p->maker, sizeof p->maker, "%s", rest);
        else if (strcmp(word, "note") == 0) snprintf(p->note, sizeof p->note, "%s", rest);
        else if (strcmp(word, "frame") == 0) ok = parse_frame(p, rest, start);
        else if (strcmp(word, "image") == 0) ok = p->n_frames > 0 && parse_image(&p->frames[p->n_frames - 1], rest);
        else ok = false;
        if (!ok) return bad(p, "its index is damaged", err);
    }
    return 0;
}

static int parse(MjGenericPack *p, MjError *err)
{
    const unsigned char *b = p->bytes;

    if (p->len < MJ_PACK_HEADER_BYTES || memcmp(b, MJ_PACK_MAGIC, 8) != 0) return bad(p, "not a pack of generic kernels", err);
    const uint64_t total = get64(b + 8), index_bytes = get64(b + 16);
    if (total != p->len || index_bytes > p->len - MJ_PACK_HEADER_BYTES) return bad(p, "it is cut short", err);
    const XXH128_hash_t h = XXH3_128bits_withSeed(b + MJ_PACK_HEADER_BYTES, p->len - MJ_PACK_HEADER_BYTES, index_bytes);
    if (h.low64 != get64(b + 24) || h.high64 != get64(b + 32)) return bad(p, "its checksum is wrong", err);
    char *index = mj_xstrndup((const char *)b + MJ_PACK_HEADER_BYTES, (size_t)index_bytes);
    const int rc = parse_index(p, index, MJ_PACK_HEADER_BYTES + (size_t)index_bytes, err);
    free(index);
    return rc;
}

int mj_generic_pack_open(MjGenericPack **out, MjError *err)
{
    const char *path = getenv("MOJIT_GENERIC_PATH");
    MjGenericPack *p = mj_xcalloc(1, sizeof *p);
    int rc = 0;

    if (path && *path) {
        char *bytes = NULL;
        snprintf(p->origin, sizeof p->origin, "%s", path);
        rc = mj_fs_read(path, &bytes, &p->len, err);
        if (rc != 0) {
            mj_error_context(err, rc, "MOJIT_GENERIC_PATH");
            goto out;
        }
        p->bytes = (unsigned char *)bytes;
        p->owned = true;
    } else {
        snprintf(p->origin, sizeof p->origin, "mojit itself");
        p->bytes = mj_embedded_pack;
        p->len = mj_embedded_pack_bytes;
    }
    MJ_TRY(parse(p, err));
    *out = p;
    return 0;
out:
    mj_generic_pack_close(p);
    return rc;
}

void mj_generic_pack_close(MjGenericPack *p)
{
    if (!p) return;
    for (int i = 0; i < p->n_frames; i++) {
        free(p->frames[i].images);
        free(p->frames[i].unpacked);
    }
    free(p->frames);
    if (p->owned) free((void *)(uintptr_t)p->bytes);
    free(p);
}

/* "sm_90a" -> 90 and its suffix; 0 when it is not a GPU's. */
static int arch_number(const char *target, const char *prefix, char *suffix)
{
    const size_t n = strlen(prefix);
    char *end;

    if (strncmp(target, prefix, n) != 0) return 0;
    const long v = strtol(target + n, &end, 10);
    *suffix = *end;
    return v > 0 && v < 1000 ? (int)v : 0;
}

int mj_generic_serves(const char *target, const char *device_target)
{
    char suffix = 0, ptx_suffix = 0, device_suffix = 0;
    const int device = arch_number(device_target, "sm_", &device_suffix);
    const int cubin = arch_number(target, "sm_", &suffix), ptx = arch_number(target, "compute_", &ptx_suffix);

    if (device == 0) return 0;
    if (strcmp(target, device_target) == 0) return 10000;
    if (cubin > 0 && suffix == 0 && cubin / 10 == device / 10 && cubin <= device) return 5000 + cubin;
    if (ptx > 0 && ptx_suffix == 0 && ptx <= device) return ptx;
    return 0;
}

MjGenericFrame *mj_generic_find(const MjGenericPack *p, const char *tmpl, const char *device_target)
{
    MjGenericFrame *best = NULL;
    int most = 0;

    for (int i = 0; i < p->n_frames; i++) {
        if (strcmp(p->frames[i].tmpl, tmpl) != 0) continue;
        const int how = mj_generic_serves(p->frames[i].target, device_target);
        if (how <= most) continue;
        most = how;
        best = &p->frames[i];
    }
    return best;
}

int mj_generic_unpack(MjGenericPack *p, MjGenericFrame *frame, const MjGenericImage *image, const void **bytes, MjError *err)
{
    if (!frame->unpacked) {
        unsigned char *raw = mj_xmalloc(frame->raw + 1);
        const size_t n = ZSTD_decompress(raw, frame->raw, p->bytes + frame->offset, frame->packed);
        if (ZSTD_isError(n) || n != frame->raw) {
            free(raw);
            return bad(p, "a frame does not unpack", err);
        }
        frame->unpacked = raw;
    }
    *bytes = frame->unpacked + image->offset;
    return 0;
}
