/* The format of one entry: a fixed header, the labelled text, the compiler log, the image. Owns encoding, parsing and
 * keys; touches no file. Integers are little-endian.
 *
 *   0  magic "MOJITKRN"     8  format version u32   12  reserved u32 (0)   16  key (16 bytes)
 *  32  label bytes u64     40  log bytes u64        48  image bytes u64    56  compile seconds f64
 *  64  XXH3-128 of everything else (16 bytes)       80  label, NUL, log, NUL, zero bytes up to a multiple of 64, image
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "cache/cache_internal.h"
#include "runtime/base/mem.h"

enum { HEADER = 80, SUM_AT = 64, SUM_BYTES = 16, IMAGE_ALIGN = 64 };
static const char magic[8] = {'M', 'O', 'J', 'I', 'T', 'K', 'R', 'N'};

static void put_u64(unsigned char *at, uint64_t v)
{
    for (int i = 0; i < 8; i++) at[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get_u64(const unsigned char *at)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++) v |= (uint64_t)at[i] << (8 * i);
    return v;
}

static MjCacheKey key_of_hash(XXH128_hash_t h)
{
    XXH128_canonical_t canonical;
    MjCacheKey key;

    XXH128_canonicalFromHash(&canonical, h);
    memcpy(key.bytes, canonical.digest, sizeof key.bytes);
    return key;
}

MjCacheKey mj_cache_key(const char *label_text)
{
    return key_of_hash(XXH3_128bits(label_text, strlen(label_text)));
}

void mj_cache_key_hex(MjCacheKey key, char out[33])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < 16; i++) {
        out[2 * i] = digits[key.bytes[i] >> 4];
        out[2 * i + 1] = digits[key.bytes[i] & 15];
    }
    out[32] = 0;
}

/* The checksum covers the header before it and everything after it. */
static MjCacheKey checksum(const unsigned char *bytes, size_t len)
{
    XXH3_state_t *state = XXH3_createState();

    if (!state) mj_mem_abort(sizeof(XXH128_hash_t));
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, bytes, SUM_AT);
    XXH3_128bits_update(state, bytes + HEADER, len - HEADER);
    MjCacheKey sum = key_of_hash(XXH3_128bits_digest(state));
    XXH3_freeState(state);
    return sum;
}

static size_t image_at(size_t label, size_t log)
{
    size_t end = HEADER + label + 1 + log + 1;

    return (end + IMAGE_ALIGN - 1) / IMAGE_ALIGN * IMAGE_ALIGN;
}

MjStr mj_cache_entry_encode(const char *label_text, const void *image, size_t image_bytes, const char *log,
                            double compile_s)
{
    size_t label = strlen(label_text), log_len = log ? strlen(log) : 0, at = image_at(label, log_len);
    size_t len = at + image_bytes;
    unsigned char *bytes = mj_xcalloc(len, 1);
    MjCacheKey key = mj_cache_key(label_text);
    uint64_t seconds;

    memcpy(bytes, magic, sizeof magic);
    bytes[8] = MJ_CACHE_FORMAT;
    memcpy(bytes + 16, key.bytes, 16);
    put_u64(bytes + 32, label);
    put_u64(bytes + 40, log_len);
    put_u64(bytes + 48, image_bytes);
    memcpy(&seconds, &compile_s, sizeof seconds);
    put_u64(bytes + 56, seconds);
    memcpy(bytes + HEADER, label_text, label);
    if (log_len) memcpy(bytes + HEADER + label + 1, log, log_len);
    if (image_bytes) memcpy(bytes + at, image, image_bytes);
    MjCacheKey sum = checksum(bytes, len);
    memcpy(bytes + SUM_AT, sum.bytes, SUM_BYTES);
    return (MjStr){.data = (char *)bytes, .len = len, .cap = len};
}

static const char *check_layout(const unsigned char *bytes, size_t len)
{
    if (len < HEADER) return "it is shorter than a header";
    if (memcmp(bytes, magic, sizeof magic) != 0) return "it is not a mojit cache entry";
    if (bytes[8] != MJ_CACHE_FORMAT || bytes[9] || bytes[10] || bytes[11]) return "it has another format version";
    uint64_t label = get_u64(bytes + 32), log = get_u64(bytes + 40), image = get_u64(bytes + 48);
    if (label > len || log > len || image > len || image_at((size_t)label, (size_t)log) + image != len)
        return "its length is not what its header says";
    MjCacheKey sum = checksum(bytes, len);
    if (memcmp(sum.bytes, bytes + SUM_AT, SUM_BYTES) != 0) return "its checksum is wrong";
    const char *text = (const char *)bytes + HEADER;
    if (memchr(text, 0, (size_t)label) || text[label] != 0) return "its label is malformed";
    if (memchr(text + label + 1, 0, (size_t)log) || text[label + 1 + log] != 0) return "its log is malformed";
    MjCacheKey key = mj_cache_key(text);
    if (memcmp(key.bytes, bytes + 16, sizeof key.bytes) != 0) return "its key does not match its label";
    return NULL;
}

int mj_cache_entry_parse(const void *data, size_t len, MjCacheEntry *out, const char **problem)
{
    const char *wrong = check_layout(data, len);

    if (wrong) {
        *problem = wrong;
        return MJ_ERR_DATA;
    }
    unsigned char *memory = mj_xmalloc(len);
    memcpy(memory, data, len);
    uint64_t label = get_u64(memory + 32), log = get_u64(memory + 40), seconds = get_u64(memory + 56);
    *out = (MjCacheEntry){.memory = memory,
                          .label = (char *)memory + HEADER,
                          .log = (char *)memory + HEADER + label + 1,
                          .image = memory + image_at((size_t)label, (size_t)log),
                          .image_bytes = (size_t)get_u64(memory + 48)};
    memcpy(out->key.bytes, memory + 16, sizeof out->key.bytes);
    memcpy(&out->compile_s, &seconds, sizeof seconds);
    return 0;
}

char *mj_cache_entry_peek(const void *data, size_t len, double *compile_s)
{
    const unsigned char *bytes = data;

    if (len < HEADER || memcmp(bytes, magic, sizeof magic) != 0 || bytes[8] != MJ_CACHE_FORMAT) return NULL;
    uint64_t label = get_u64(bytes + 32), seconds = get_u64(bytes + 56);
    if (label > len - HEADER) return NULL;
    memcpy(compile_s, &seconds, sizeof seconds);
    return mj_xstrndup((const char *)bytes + HEADER, (size_t)label);
}

void mj_cache_entry_free(MjCacheEntry *entry)
{
    if (!entry) return;
    free(entry->memory);
    *entry = (MjCacheEntry){.memory = NULL};
}

char *mj_cache_label_field(const char *label_text, const char *name)
{
    size_t n = strlen(name);

    for (const char *line = label_text; *line;) {
        const char *end = strchrnul(line, '\n');
        if ((size_t)(end - line) > n + 1 && strncmp(line, name, n) == 0 && line[n] == ':' && line[n + 1] == ' ')
            return mj_xstrndup(line + n + 2, (size_t)(end - line) - n - 2);
        line = *end ? end + 1 : end;
    }
    return NULL;
}
