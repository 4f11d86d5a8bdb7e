/* Writing packs of generic GPU images, and the hash that ties one to its sources; see generic_pack.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "jit/generic_pack.h"

enum { ZSTD_LEVEL = 19 };

static void put64(unsigned char *at, uint64_t v)
{
    for (int i = 0; i < 8; i++) at[i] = (unsigned char)(v >> 8 * i);
}

void mj_generic_sources_hash(const MjTemplate *t, const MjSources *sources, char out[33])
{
    MjStr text = MJ_STR_INIT;

    mj_template_source_labels(t, sources, &text);
    const XXH128_hash_t h = XXH3_128bits(mj_str_text(&text), text.len);
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
    mj_str_free(&text);
}

static void index_frame(MjStr *index, const MjGenericFrame *f, size_t offset, size_t packed)
{
    mj_str_printf(index, "frame %s %s %s %zu %zu %zu\n", f->tmpl, f->target, f->sources, offset, packed, f->raw);
    for (int i = 0; i < f->n_images; i++) {
        mj_str_printf(index, "image %zu %zu ", f->images[i].offset, f->images[i].bytes);
        for (int k = 0; k < MJ_MAX_PARAMS; k++) {
            if (f->images[i].values[k] == MJ_UNBOUND) mj_str_printf(index, k ? ",?" : "?");
            else mj_str_printf(index, k ? ",%d" : "%d", f->images[i].values[k]);
        }
        mj_str_puts(index, "\n");
    }
}

int mj_generic_pack_write(const MjGenericPack *what, const unsigned char *const *data, unsigned char **out, size_t *len,
                          MjError *err)
{
    MjStr index = MJ_STR_INIT, frames = MJ_STR_INIT, all = MJ_STR_INIT;
    unsigned char header[MJ_PACK_HEADER_BYTES];
    int rc = 0;

    if (what->maker[0]) mj_str_printf(&index, "maker %s\n", what->maker);
    if (what->note[0]) mj_str_printf(&index, "note %s\n", what->note);
    for (int i = 0; i < what->n_frames; i++) {
        const size_t raw = what->frames[i].raw, room = ZSTD_compressBound(raw);
        mj_str_reserve(&frames, room);
        const size_t n = ZSTD_compress(frames.data + frames.len, room, data[i], raw, ZSTD_LEVEL);
        if (ZSTD_isError(n)) MJ_TRY(mj_error(err, MJ_ERR_DATA, "zstd: %s", ZSTD_getErrorName(n)));
        index_frame(&index, &what->frames[i], frames.len, n);
        frames.len += n;
    }
    memcpy(header, MJ_PACK_MAGIC, 8);
    put64(header + 8, MJ_PACK_HEADER_BYTES + index.len + frames.len);
    put64(header + 16, index.len);
    mj_str_append(&all, header, sizeof header);
    mj_str_append(&all, mj_str_text(&index), index.len);
    mj_str_append(&all, mj_str_text(&frames), frames.len);
    const XXH128_hash_t h = XXH3_128bits_withSeed(all.data + MJ_PACK_HEADER_BYTES, all.len - MJ_PACK_HEADER_BYTES, index.len);
    put64((unsigned char *)all.data + 24, h.low64);
    put64((unsigned char *)all.data + 32, h.high64);
    *len = all.len;
    *out = (unsigned char *)mj_str_take(&all);
out:
    mj_str_free(&index);
    mj_str_free(&frames);
    return rc;
}
