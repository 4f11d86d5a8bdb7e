/* The plan of a configuration: walks the loader's sizes, without reading tokens, and records one step for every padded
 * size that it meets. */
#include "train/plan.h"

#include <stdlib.h>

#include "runtime/base/mem.h"
#include "train/peak.h"
#include "train/train.h"

void mj_plan_train_loader(const MjConfig *c, MjLoaderOptions *out) {
    *out = (MjLoaderOptions){.packing = (MjPacking)c->data.packing, .batch = c->train.batch, .seq_len = c->train.seq_len,
                             .vocab = c->model.vocab, .seed = (uint64_t)c->train.seed, .shuffle = true};
}

void mj_plan_eval_loader(const MjConfig *c, bool byte_level, MjLoaderOptions *out) {
    mj_plan_train_loader(c, out);
    out->shuffle = false;
    out->limit = (c->train.eval_tokens + c->train.seq_len - 1) / c->train.seq_len;
    out->skip_bos = byte_level;
}

/* One flag a padded size; records a size when it is new. */
static int record_sizes(MjStep *s, MjLoader *loader, int64_t batches, int64_t max_tokens, bool train, bool *seen,
                        MjError *err) {
    int64_t tokens = 0;
    for (int64_t i = 0; i < batches && tokens < max_tokens; i++) {
        int32_t n = mj_loader_skip(loader);
        if (n == 0) break;
        tokens += n;
        int32_t padded = mj_step_pad(s, n);
        if (seen[padded]) continue;
        seen[padded] = true;
        int rc = mj_step_record(s, padded, train, err);
        if (rc != 0) return rc;
    }
    return 0;
}

static int record_held_out(MjStep *s, const MjConfig *c, const MjTokens *tokens, MjError *err) {
    int rc = 0;
    MjLoader *loader = NULL;
    MjLoaderOptions opt;
    bool *seen = mj_xcalloc((size_t)s->model->d.max_tokens + 1, sizeof *seen);
    mj_plan_eval_loader(c, mj_tokens_byte_level(tokens), &opt);
    MJ_TRY(mj_loader_open(tokens, &opt, &loader, err));
    MJ_TRY(record_sizes(s, loader, INT64_MAX, c->train.eval_tokens, false, seen, err));
out:
    mj_loader_close(loader);
    free(seen);
    return rc;
}

/* In the order of the run, the first evaluation between its steps: past jit.budget it is the order in which sizes come
 * that says which of them stay constants. */
static int record_all(MjStep *s, const MjConfig *c, const MjPlanData *data, MjError *err) {
    int rc = 0;
    MjLoader *loader = NULL;
    MjLoaderOptions opt;
    bool *seen = mj_xcalloc((size_t)s->model->d.max_tokens + 1, sizeof *seen);
    bool early = c->train.eval_every > 0 && c->train.eval_every < c->train.steps;
    int64_t first = (int64_t)(early ? c->train.eval_every : c->train.steps) * c->train.grad_accum;
    mj_plan_train_loader(c, &opt);
    MJ_TRY(mj_loader_open(data->train, &opt, &loader, err));
    MJ_TRY(record_sizes(s, loader, first, INT64_MAX, true, seen, err));
    if (data->held_out != NULL) MJ_TRY(record_held_out(s, c, data->held_out, err));
    MJ_TRY(record_sizes(s, loader, (int64_t)c->train.steps * c->train.grad_accum - first, INT64_MAX, true, seen, err));
out:
    mj_loader_close(loader);
    free(seen);
    return rc;
}

int mj_plan_record(MjStep *s, const MjConfig *config, const MjPlanData *data, MjError *err) {
    int rc = 0;
    MjJit *jit = s->model->ops->jit;
    mj_jit_record_begin(jit);
    MJ_TRY(mj_peak_record(jit, s->model->ops->family, err));
    MJ_TRY(mj_model_refresh(s->model, err));
    MJ_TRY(record_all(s, config, data, err));
out:
    mj_jit_record_end(jit);
    return rc;
}

int mj_train_plan(const MjConfig *config, MjJit *jit, MjError *err) {
    int rc = 0;
    MjTokens *train = NULL, *held_out = NULL;
    MjModel *model = NULL;
    MjStep step = {0};
    MjOps ops;
    const MjMode *mode = NULL;
    MjBucket bucket;
    MJ_TRY(mj_config_check(config, err));
    MJ_TRY(mj_mode_find(config->jit.mode, &mode, err));
    MJ_TRY(mj_bucket_parse(config->jit.bucket, &bucket, err));
    MJ_TRY(mj_tokens_open(config->data.train, &train, err));
    if (config->data.held_out[0] != '\0') MJ_TRY(mj_tokens_open(config->data.held_out, &held_out, err));
    MJ_TRY(mj_ops_open(NULL, jit, &ops, err));
    ops.dense = (MjDenseGemm)config->run.dense_gemm;
    MJ_TRY(mj_model_open(config, &ops, &model, err));
    MJ_TRY(mj_dims_check_target(&model->d, "the target", mj_jit_target(jit), err));
    mj_step_open(&step, model, mode, bucket, config);
    MJ_TRY(mj_plan_record(&step, config, &(MjPlanData){.train = train, .held_out = held_out}, err));
out:
    mj_step_close(&step);
    mj_model_close(model);
    mj_tokens_close(held_out);
    mj_tokens_close(train);
    return rc;
}
