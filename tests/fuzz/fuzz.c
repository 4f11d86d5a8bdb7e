/* One libFuzzer target for each parser of files that others may have made: build with -DFUZZ_<NAME>.
 * ENTRY a cache entry, ARCHIVE a cache archive, CONFIG an INI file, TOKENS a .bin file, TEMPLATE a kernel template. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "cache/ship.h"
#include "jit/template.h"
#include "train/config.h"
#include "train/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file that holds the input, and its name. */
static inline int as_file(const uint8_t *data, size_t size, char name[512], const char *ending)
{
    snprintf(name, 512, FUZZ_DIR "/input-%ld%s", (long)getpid(), ending);
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    close(fd);
    return fd;
}

#if defined(FUZZ_ENTRY)
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    MjCacheEntry entry = {.memory = NULL};
    const char *problem = NULL;

    double seconds;
    char *label = mj_cache_entry_peek(data, size, &seconds); /* what estimates read, unverified */
    char *tmpl = label ? mj_cache_label_field(label, "template") : NULL;

    free(tmpl);
    free(label);
    if (mj_cache_entry_parse(data, size, &entry, &problem) == 0) {
        char *spec = mj_cache_label_field(entry.label, "spec");
        free(spec);
        if (entry.image_bytes > size) abort();
        mj_cache_entry_free(&entry);
    } else if (!problem) {
        abort();
    }
    return 0;
}
#elif defined(FUZZ_ARCHIVE)
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static MjCache *cache;
    char name[512], root[512];
    MjError err = MJ_ERROR_INIT;
    MjArchiveCount count;

    if (!cache) {
        snprintf(root, sizeof root, FUZZ_DIR "/cache-%ld", (long)getpid());
        MjCacheOptions options = {.roots = root};
        if (mj_cache_open(&options, &cache, &err) != 0) abort();
    }
    as_file(data, size, name, ".tar");
    if (mj_cache_import(cache, name, &count, &err) != 0 && err.message[0] == 0) abort();
    mj_error_clear(&err);
    unlink(name);
    return 0;
}
#elif defined(FUZZ_CONFIG)
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[512];
    MjConfig config;
    MjError err = MJ_ERROR_INIT;

    mj_config_defaults(&config);
    as_file(data, size, name, ".ini");
    int rc = mj_config_load(&config, name, &err);
    if (rc == 0) rc = mj_config_check(&config, &err);
    if (rc != 0 && err.message[0] == 0) abort();
    mj_error_clear(&err);
    unlink(name);
    return 0;
}
#elif defined(FUZZ_TOKENS)
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[512];
    MjTokens *tokens = NULL;
    MjError err = MJ_ERROR_INIT;

    as_file(data, size, name, ".bin");
    if (mj_tokens_open(name, &tokens, &err) == 0) {
        int64_t documents;
        uint32_t largest;
        mj_tokens_scan(tokens, 0, &documents, &largest);
        mj_tokens_close(tokens);
    } else if (err.message[0] == 0) {
        abort();
    }
    mj_error_clear(&err);
    unlink(name);
    return 0;
}
#elif defined(FUZZ_TEMPLATE)
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    MjTemplate *t = NULL;
    MjError err = MJ_ERROR_INIT;

    if (!text) abort();
    memcpy(text, data, size);
    text[size] = 0;
    if (mj_template_parse("fuzz.cu", text, "fuzz", &t, &err) == 0)
        mj_template_free(t);
    else if (err.message[0] == 0)
        abort();
    mj_error_clear(&err);
    free(text);
    return 0;
}
#else
#error "name a target"
#endif
