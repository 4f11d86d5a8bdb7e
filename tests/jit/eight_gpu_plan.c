/* See eight_gpu_plan.h. Owns the token files. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eight_gpu_plan.h"
#include "runtime/base/mem.h"
#include "train/config.h"
#include "train/train.h"

/* llm.c's format: 256 int32, of which the plan reads the third, the number of tokens; the tokens are a hole. */
static int write_tokens(const char *path, int32_t tokens, MjError *err)
{
    const int32_t header[256] = {20240520, 1, tokens};
    int rc = 0;
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || write(fd, header, sizeof header) != (ssize_t)sizeof header ||
        ftruncate(fd, (off_t)sizeof header + 2 * (off_t)tokens) != 0)
        rc = mj_error_errno(err, MJ_ERR_IO, errno, "%s: can't write a token file", path);
    if (fd >= 0) close(fd);
    return rc;
}

/* Whole batches, so that no shape depends on how much data there is. */
static int set_data(MjConfig *config, const char *folder, MjError *err)
{
    static const char *const names[] = {"train", "held_out"};
    const int64_t step = (int64_t)config->train.batch * config->train.seq_len * config->train.grad_accum;
    const int64_t tokens[] = {4 * step + 1, config->train.eval_tokens + 1};
    int rc = 0;
    for (int i = 0; i < 2; i++) {
        char *path = mj_strdup_printf("%s/%s.bin", folder, names[i]);
        rc = write_tokens(path, (int32_t)tokens[i], err);
        if (rc == 0) rc = mj_config_set_key(config, "data", names[i], path, "the eight-GPU plan", err);
        free(path);
        if (rc != 0) break;
    }
    return rc;
}

static void remove_data(const char *folder)
{
    static const char *const names[] = {"train", "held_out"};
    for (int i = 0; i < 2; i++) {
        char *path = mj_strdup_printf("%s/%s.bin", folder, names[i]);
        (void)unlink(path);
        free(path);
    }
    (void)rmdir(folder);
}

int mj_eight_gpu_plan(const char *ini, const char *target, MjJit **out, MjError *err)
{
    const char *tmp = getenv("TMPDIR");
    char *folder = mj_strdup_printf("%s/mojit-plan-XXXXXX", tmp != NULL && *tmp != 0 ? tmp : "/tmp");
    MjJitOptions options = {.target = target};
    MjConfig config;
    const MjMode *mode;
    MjJit *jit = NULL;
    bool made = false;
    int rc = 0;
    mj_config_defaults(&config);
    MJ_TRY(mj_config_load(&config, ini, err));
    made = mkdtemp(folder) != NULL;
    if (!made) MJ_TRY(mj_error_errno(err, MJ_ERR_IO, errno, "%s: can't make a folder", folder));
    MJ_TRY(set_data(&config, folder, err));
    MJ_TRY(mj_mode_find(config.jit.mode, &mode, err));
    MJ_TRY(mj_bucket_parse(config.jit.bucket, &options.bucket, err));
    options.mode = mode;
    options.budget = config.jit.budget;
    MJ_TRY(mj_jit_open(&options, &jit, err));
    MJ_TRY(mj_train_plan(&config, jit, err));
    *out = jit;
    jit = NULL;
out:
    mj_jit_close(jit);
    if (made) remove_data(folder);
    free(folder);
    return rc;
}
