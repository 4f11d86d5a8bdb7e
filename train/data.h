/* Token files, the packer and the loader. Owns mapped files and the order in which a run reads them; knows nothing of
 * models and devices.
 *
 * A .bin file is llm.c's: a header of 256 int32 (magic, version, tokens, ...), then the tokens: magic 20240520 version 1
 * holds uint16, magic 20240801 version 7 holds uint32. The packer adds two fields that llm.c leaves 0: header[3] = size
 * of the vocabulary, header[4] = the token that begins a document.
 * Readers are thread-safe; one MjLoader belongs to one thread.
 */
#ifndef MJ_TRAIN_DATA_H
#define MJ_TRAIN_DATA_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/error.h"
#include "train/config.h"

#define MJ_BYTE_BOS 256
#define MJ_BYTE_VOCAB 257

typedef struct MjTokens MjTokens; /* one or more mapped files */

/* `patterns`: paths or globs separated by ':'. Refuses a pattern without a match and any file that is empty, truncated,
 * too long or of another format, and says what is wrong with it. */
int mj_tokens_open(const char *patterns, MjTokens **out, MjError *err) MJ_MUST_CHECK;
void mj_tokens_close(MjTokens *t);         /* NULL is fine */
int64_t mj_tokens_count(const MjTokens *t); /* of all files */
int mj_tokens_files(const MjTokens *t);
bool mj_tokens_byte_level(const MjTokens *t); /* every file says vocabulary 257, documents begin with 256 */

typedef struct MjTokenFileInfo {
    const char *path; /* lives as long as the MjTokens */
    int bits;         /* 16 or 32 */
    int64_t tokens;
    uint32_t vocab;   /* as the header says; 0 = it does not */
    uint32_t bos;     /* token that begins a document: header, or 50256 / 128000 by format */
} MjTokenFileInfo;
void mj_tokens_file_info(const MjTokens *t, int file, MjTokenFileInfo *out);
uint32_t mj_tokens_get(const MjTokens *t, int file, int64_t index);

/* Reads everything: documents and the largest token. */
void mj_tokens_scan(const MjTokens *t, int file, int64_t *documents, uint32_t *largest);

/* Bits a byte when the previous byte is known, by the counts of this very text: no model that sees one byte back can do
 * better on it. Byte-level files only. BOS is never predicted. */
int mj_tokens_order1_entropy(const MjTokens *t, double *bits, MjError *err) MJ_MUST_CHECK;

/* ---- packing ---- */

typedef struct MjPackOptions {
    double held_out;   /* fraction of the documents, 0 to 0.5; of a single document its end */
    int64_t max_bytes; /* of text; 0 = no limit. Documents are chosen by the hash of their content until it is reached */
} MjPackOptions;

typedef struct MjPackResult {
    int64_t documents, held_out_documents, bytes, held_out_bytes;
    int64_t skipped;               /* files that are not text, empty or unreadable */
    double held_out_order1_bits;   /* NaN without held-out text */
} MjPackResult;

/* Files and folders (recursively, links are not followed) to PREFIX_train.bin and PREFIX_val.bin, byte by byte, BOS before
 * each document; makes their folder, and removes an older PREFIX_val.bin when nothing is held out. The same texts give the
 * same files. MJ_ERR_DATA when nothing readable was found. */
int mj_data_pack(const char *const *paths, int n_paths, const char *prefix, const MjPackOptions *options,
                 MjPackResult *out, MjError *err) MJ_MUST_CHECK;

/* ---- loading ---- */

typedef struct MjLoader MjLoader;

typedef struct MjLoaderOptions {
    MjPacking packing;
    int32_t batch, seq_len;
    int32_t vocab;     /* tokens at or above it are refused */
    uint64_t seed;
    bool shuffle;      /* false: in file order (evaluation) */
    int64_t limit;     /* without shuffle: at most this many sequences, spread evenly over the data; 0 = all */
    bool skip_bos;     /* targets that begin a document become -1 (evaluation in bits a byte) */
} MjLoaderOptions;

typedef struct MjBatch {
    int32_t *token, *target, *pos; /* (batch * seq_len) room, the caller's; target -1 = none */
    int32_t tokens;                /* in use */
    int32_t targets;               /* of them with a target */
} MjBatch;

/* Refuses data in which not one sequence can be found. `tokens` must outlive the loader. */
int mj_loader_open(const MjTokens *tokens, const MjLoaderOptions *options, MjLoader **out, MjError *err) MJ_MUST_CHECK;
void mj_loader_close(MjLoader *l);
int64_t mj_loader_sequences(const MjLoader *l); /* of one epoch */
/* The next micro-batch. A training loader starts another epoch in another order; without shuffle, tokens = 0 at the end. */
int mj_loader_next(MjLoader *l, MjBatch *batch, MjError *err) MJ_MUST_CHECK;
int32_t mj_loader_skip(MjLoader *l); /* as next, but only tells the size: for plans */
void mj_loader_rewind(MjLoader *l);

#endif
