/* Checks of a configuration that need more than one option. Owns no parsing of files. */
#include <stdlib.h>
#include <string.h>

#include "jit/mode.h"
#include "train/config.h"

int mj_config_capacity(const MjConfig *config, double *factor, MjError *err) {
    const char *layout = config->moe.layout;
    if (strcmp(layout, "dropless") == 0) {
        *factor = 0;
        return 0;
    }
    if (strncmp(layout, "capacity:", 9) == 0) {
        char *end = NULL;
        double f = strtod(layout + 9, &end);
        if (end != layout + 9 && *end == '\0' && f >= 0.01 && f <= 1024) {
            *factor = f;
            return 0;
        }
    }
    return mj_error(err, MJ_ERR_USAGE,
                    "moe.layout = \"%s\": expected \"dropless\" or \"capacity:<factor>\" with a factor of 0.01 to 1024, "
                    "such as capacity:1.25", layout);
}

static int check_model(const MjConfig *c, MjError *err) {
    int32_t width = c->model.width > 0 ? c->model.width : (64 * c->model.depth + 127) / 128 * 128;
    if (width % 128 != 0) {
        return mj_error(err, MJ_ERR_USAGE, "model.width = %d: kernels need a multiple of 128; the nearest is %d", width,
                        (width + 64) / 128 * 128 > 0 ? (width + 64) / 128 * 128 : 128);
    }
    if (c->model.head_dim != 64 && c->model.head_dim != 128) {
        return mj_error(err, MJ_ERR_USAGE, "model.head_dim = %d: expected 64 or 128", c->model.head_dim);
    }
    const char *pattern = c->model.window_pattern;
    if (pattern[0] == '\0' || strspn(pattern, "SL") != strlen(pattern)) {
        return mj_error(err, MJ_ERR_USAGE, "model.window_pattern = \"%s\": expected letters S and L, such as SSSL", pattern);
    }
    return 0;
}

static int check_moe(const MjConfig *c, MjError *err) {
    double factor = 0;
    int rc = mj_config_capacity(c, &factor, err);
    if (rc != 0) return rc;
    if (c->moe.experts > 0 && c->moe.top_k > c->moe.experts) {
        return mj_error(err, MJ_ERR_USAGE, "moe.top_k = %d is more than moe.experts = %d; lower top_k", c->moe.top_k,
                        c->moe.experts);
    }
    if (c->moe.hidden % 128 != 0) {
        return mj_error(err, MJ_ERR_USAGE, "moe.hidden = %d: kernels need a multiple of 128; the nearest is %d",
                        c->moe.hidden, (c->moe.hidden + 127) / 128 * 128);
    }
    return 0;
}

static int check_train(const MjConfig *c, MjError *err) {
    if (c->train.loss_chunk % 128 != 0) {
        return mj_error(err, MJ_ERR_USAGE, "train.loss_chunk = %d: expected a multiple of 128; the nearest is %d",
                        c->train.loss_chunk, (c->train.loss_chunk + 127) / 128 * 128);
    }
    int64_t tokens = (int64_t)c->train.batch * c->train.seq_len;
    if (tokens > (1 << 24)) {
        return mj_error(err, MJ_ERR_USAGE,
                        "train.batch * train.seq_len = %lld tokens in a micro-batch: at most 16777216; lower batch and raise "
                        "grad_accum", (long long)tokens);
    }
    return 0;
}

int mj_config_check(const MjConfig *config, MjError *err) {
    int rc = 0;
    const MjMode *mode = NULL;
    MjBucket bucket;
    rc = mj_mode_find(config->jit.mode, &mode, err);
    if (rc != 0) return mj_error_context(err, rc, "jit.mode");
    rc = mj_bucket_parse(config->jit.bucket, &bucket, err);
    if (rc != 0) return mj_error_context(err, rc, "jit.bucket");
    MJ_TRY(check_model(config, err));
    MJ_TRY(check_moe(config, err));
    MJ_TRY(check_train(config, err));
out:
    return rc;
}
