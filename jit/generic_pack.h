/* Packs of generic GPU images: what nocompile and tiered run on a cuda device. One pack is embedded in the binary (made by
 * mojit-pack while mojit is built, through NVRTC); MOJIT_GENERIC_PATH names a pack file to use instead of it.
 * Owns the format, reading and writing; knows no compiler and no device.
 *
 * A pack: a header with lengths and a checksum, an index of text lines, then one zstd frame for each template and target,
 * with the images of all its mj:generic builds. The index names the hash of the sources that a frame was made from, so
 * that a pack is never used with other templates.
 */
#ifndef MJ_JIT_GENERIC_PACK_H
#define MJ_JIT_GENERIC_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jit/template.h"
#include "runtime/base/error.h"

/* Header: the magic, then as little-endian 64-bit numbers the bytes of all and of the index, and the checksum (two) of what
 * follows, seeded with the index's bytes. */
#define MJ_PACK_MAGIC "mjpack1\n"
#define MJ_PACK_HEADER_BYTES 40

typedef struct MjGenericImage {
    int32_t values[MJ_MAX_PARAMS]; /* by parameter; MJ_UNBOUND = argument */
    size_t offset, bytes;          /* in the frame */
} MjGenericImage;

typedef struct MjGenericFrame {    /* a template for a target */
    char tmpl[64];
    char target[16];               /* "sm_90a": cubins; "compute_90": PTX, which the driver compiles */
    char sources[33];              /* mj_generic_sources_hash */
    size_t offset, packed, raw;    /* bytes in the pack, and unpacked */
    MjGenericImage *images;
    int n_images;
    unsigned char *unpacked;       /* NULL until an image is asked for */
} MjGenericFrame;

typedef struct MjGenericPack {
    const unsigned char *bytes;
    size_t len;
    bool owned;
    char origin[256];              /* "mojit itself", or the file */
    char maker[128];               /* the compiler's identity, "" when it holds no images */
    char note[256];                /* why targets are missing, "" when none is */
    MjGenericFrame *frames;
    int n_frames;
} MjGenericPack;

/* The pack in use: MOJIT_GENERIC_PATH's when that is set, else the embedded one. MJ_ERR_IO or MJ_ERR_DATA for a file that
 * can't be read or is no whole pack. */
int mj_generic_pack_open(MjGenericPack **out, MjError *err) MJ_MUST_CHECK;
void mj_generic_pack_close(MjGenericPack *p); /* NULL is fine */

/* How well an image made for `target` serves a device: 0 not at all; the target itself, then an earlier architecture of its
 * generation, then PTX of the newest earlier one. "a" targets serve their own card only. */
int mj_generic_serves(const char *target, const char *device_target);

/* The frame of a template that serves the device best, NULL when there is none. */
MjGenericFrame *mj_generic_find(const MjGenericPack *p, const char *tmpl, const char *device_target);
/* Unpacks an image. *bytes lives as long as the pack. One thread at a time. */
int mj_generic_unpack(MjGenericPack *p, MjGenericFrame *frame, const MjGenericImage *image, const void **bytes, MjError *err)
    MJ_MUST_CHECK;

/* Hash of a template's text and of every header that it may read, as 32 hexadecimal digits. */
void mj_generic_sources_hash(const MjTemplate *t, const MjSources *sources, char out[33]);

/* Writing: frames with their images in order; `data` holds each frame's images one after the other (frame->raw bytes).
 * *out is malloc'd. */
int mj_generic_pack_write(const MjGenericPack *what, const unsigned char *const *data, unsigned char **out, size_t *len,
                          MjError *err) MJ_MUST_CHECK;

extern const unsigned char mj_embedded_pack[]; /* generated */
extern const size_t mj_embedded_pack_bytes;

#endif
