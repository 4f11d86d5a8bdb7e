#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/fs.h"
#include "runtime/base/str.h"
#include "train/data.h"

static void need(int rc, const MjError *err, const char *what) {
    if (rc == 0) return;
    (void)fprintf(stderr, "%s: %s\n", what, err->message);
    exit(1);
}

void fixture_open(Fixture *f, const char *sources) {
    MjError err = MJ_ERROR_INIT;
    MjPackResult r;
    MjPackOptions o = {.held_out = 0.2, .max_bytes = 200000};
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/mojit-train-XXXXXX");
    if (mkdtemp(f->dir) == NULL) need(1, &err, "mkdtemp");
    const char *kept = getenv("MOJIT_TEST_CACHE");
    char *prefix = mj_strdup_printf("%s/text", f->dir);
    char *root = kept != NULL ? mj_strdup_printf("%s", kept) : mj_strdup_printf("%s/cache", f->dir);
    need(mj_data_pack(&sources, 1, prefix, &o, &r, &err), &err, "pack");
    need(mj_fs_make_dirs(root, 0700, &err), &err, "cache folder");
    MjCacheOptions cache = {.roots = root, .lock_dir = root};
    need(mj_cache_open(&cache, &f->cache, &err), &err, "cache");
    free(prefix);
    free(root);
}

void fixture_documents(const Fixture *f, MjConfig *config, int n, int shortest, int longest) {
    MjError err = MJ_ERROR_INIT;
    MjPackResult r;
    MjPackOptions o = {0};
    char *folder = mj_strdup_printf("%s/documents-%d-%d-%d", f->dir, n, shortest, longest);
    char *prefix = mj_strdup_printf("%s/packed", folder);
    need(mj_fs_make_dirs(folder, 0700, &err), &err, "documents");
    for (int i = 0; i < n; i++) {
        char *path = mj_strdup_printf("%s/%03d.txt", folder, i);
        FILE *out = fopen(path, "w");
        need(out == NULL, &err, path);
        const int bytes = shortest + (int)((uint32_t)i * 2654435761u >> 8) % (longest - shortest + 1);
        for (int k = 0; k < bytes; k++) (void)fputc("abcdefghij \n"[(k * k + 7 * i + k) % 12], out);
        need(fclose(out), &err, path);
        free(path);
    }
    const char *source = folder;
    need(mj_data_pack(&source, 1, prefix, &o, &r, &err), &err, "pack");
    (void)snprintf(config->data.train, sizeof config->data.train, "%s_train.bin", prefix);
    free(prefix);
    free(folder);
}

void fixture_close(Fixture *f) {
    MjError err = MJ_ERROR_INIT;
    mj_cache_close(f->cache);
    need(mj_fs_remove_tree(f->dir, &err), &err, "clean-up");
}

void fixture_set(MjConfig *config, const char *assignment) {
    MjError err = MJ_ERROR_INIT;
    need(mj_config_set(config, assignment, &err), &err, assignment);
}

void fixture_config(const Fixture *f, MjConfig *config) {
    static const char *const settings[] = {
        "model.depth=2",       "model.width=128", "model.head_dim=64",  "model.window_short=16", "moe.experts=4",
        "moe.top_k=2",         "moe.shared=1",    "moe.hidden=128",     "train.seq_len=64",      "train.batch=4",
        "train.loss_chunk=128", "run.device=cpu", "train.steps=30", "optimizer.warmup=5", "train.eval_tokens=2048",
    };
    mj_config_defaults(config);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) fixture_set(config, settings[i]);
    (void)snprintf(config->data.train, sizeof config->data.train, "%s/text_train.bin", f->dir);
    (void)snprintf(config->data.held_out, sizeof config->data.held_out, "%s/text_val.bin", f->dir);
}
