/* What the tests of the trainer share: a temporary folder, packed text, a cache, a tiny configuration. */
#ifndef MJ_TESTS_TRAIN_FIXTURE_H
#define MJ_TESTS_TRAIN_FIXTURE_H

#include "cache/cache.h"
#include "train/config.h"

typedef struct Fixture {
    char dir[64];
    MjCache *cache;
} Fixture;

/* Packs the text files of `sources` (a folder) and opens a cache in the temporary folder, or the one that MOJIT_TEST_CACHE
 * names, where compiling anew each time takes too long; exits the process with a message
 * when that fails. */
void fixture_open(Fixture *f, const char *sources);
void fixture_close(Fixture *f);

/* Packs `n` documents, each of a length from `shortest` to `longest` bytes and all of them different in text, as data.train. */
void fixture_documents(const Fixture *f, MjConfig *config, int n, int shortest, int longest);

/* Depth 2, width 128, 4 experts top-2 and a shared one, T = 64, batch 4, on the fixture's data. */
void fixture_config(const Fixture *f, MjConfig *config);

/* "section.key=value" pairs until NULL; exits with a message on a bad one. */
void fixture_set(MjConfig *config, const char *assignment);

#endif
