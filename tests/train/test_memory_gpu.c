/* What a model takes on a GPU, which keeps fp8 weights and operands transposed too, is what docs/memory.md says, within
 * 10 %. On the simulated GPU, whose memory is counted as a real one's; nothing is launched.
 * Usage: test_memory_gpu FOLDER_WITH_TEXT LIBRARIES */
#include <stdio.h>
#include <stdlib.h>

#include "fixture.h"
#include "train/memory.h"
#include "train/model.h"

static const char *const settings[][4] = { /* of the fixture's model, made large enough that no small buffer counts */
    {"precision.linears=bf16", "precision.experts=bf16", "precision.recipe=block", "moe.experts=4"},
    {"precision.linears=bf16", "precision.experts=fp8", "precision.recipe=block", "moe.experts=4"},
    {"precision.linears=fp8", "precision.experts=fp8", "precision.recipe=block", "moe.experts=4"},
    {"precision.linears=fp8", "precision.experts=fp8", "precision.recipe=tensor", "moe.experts=4"},
    {"precision.linears=bf16", "precision.experts=fp8", "precision.recipe=tensor", "moe.experts=8"},
    {"precision.linears=fp8", "precision.experts=fp8", "precision.recipe=tensor", "moe.experts=0"},
};

static int check(MjOps *ops, MjConfig *config, const char *const *set, MjError *err)
{
    MjModel *model = NULL;
    for (int i = 0; i < 4; i++) fixture_set(config, set[i]);
    const size_t before = ops->device->ops->allocated_bytes(ops->device);
    int rc = mj_model_open(config, ops, &model, err);
    if (rc != 0) return rc;
    const double took = (double)(ops->device->ops->allocated_bytes(ops->device) - before);
    const double said = (double)mj_memory_predict(&model->d, true) + 4.0 * (double)model->piece_floats;
    const bool fine = took > 0.9 * said && took < 1.1 * said;
    printf("%s %s %s %s %s: %.0f bytes, the formula says %.0f (%+.1f %%)\n", fine ? "ok  " : "FAIL", set[0], set[1], set[2], set[3], took,
           said, 100.0 * (took / said - 1.0));
    mj_model_close(model);
    return fine ? 0 : MJ_ERR_NUMERIC;
}

int main(int argc, char **argv)
{
    MjError err = MJ_ERROR_INIT;
    MjDevice *device = NULL;
    MjJit *jit = NULL;
    Fixture fixture;
    MjConfig config;
    MjOps ops;
    const MjMode *mode;
    int rc = 0, failed = 0;
    if (argc != 3) return 2;
    setenv("MOJIT_CUDA_LIBRARY_PATH", argv[2], 1);
    fixture_open(&fixture, argv[1]);
    MJ_TRY(mj_device_open("cuda", NULL, &device, &err));
    MJ_TRY(mj_mode_find("dynamic", &mode, &err));
    MjJitOptions options = {.device = device, .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}, .budget = 32, .cache = fixture.cache};
    MJ_TRY(mj_jit_open(&options, &jit, &err));
    MJ_TRY(mj_ops_open(device, jit, &ops, &err));
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        fixture_config(&fixture, &config);
        fixture_set(&config, "model.width=384");
        fixture_set(&config, "model.depth=3");
        fixture_set(&config, "train.seq_len=512");
        fixture_set(&config, "train.batch=16");
        rc = check(&ops, &config, settings[i], &err);
        if (rc != 0 && rc != MJ_ERR_NUMERIC) goto out;
        failed += rc != 0;
        rc = 0;
    }
out:
    if (rc != 0) printf("%s: %s\n", rc == MJ_ERR_MISSING ? "skipped" : "test_memory_gpu", err.message);
    mj_jit_close(jit);
    mj_device_close(device);
    fixture_close(&fixture);
    return rc == MJ_ERR_MISSING ? 77 : rc != 0 || failed > 0;
}
