/* The mma.sync GEMMs on a cuda device: which template takes a product, its grid and shared memory, and what the model of time
 * must know of it. Knows nothing of what is inside a tile. */
#include "ops/gemm_sm80.h"

#include "kernels_src/gemm_sm80_tile.h"
#include "kernels_src/kernel_args.h"
#include "ops/tile_choice.h"

#define FP8_ARCH 89

const char *mj_gemm_sm80_template(int arch, const MjGemmArgs *a)
{
    const bool fp8 = a->a_type != MJ_T_BF16, along = a->kmajor != 0 || a->layout == MJ_GEMM_NT;
    if (fp8 != (a->b_type != MJ_T_BF16)) return NULL;
    if (!fp8) return a->kmajor != 0 && a->layout != MJ_GEMM_NT ? NULL : a->layout == MJ_GEMM_TN ? "gemm_tn_sm80" : "gemm_sm80";
    if (arch < FP8_ARCH || !along) return NULL;
    return a->layout == MJ_GEMM_TN ? "gemm_tn_fp8_sm89" : "gemm_fp8_sm89";
}

const char *mj_gemm_sm80_refusal(int arch, const MjGemmArgs *a)
{
    if ((a->a_type != MJ_T_BF16 || a->b_type != MJ_T_BF16) && arch < FP8_ARCH)
        return "fp8 matrix instructions came with sm_89; set precision.experts=bf16 and precision.linears=bf16";
    if (a->a_type != MJ_T_BF16 && a->kmajor == 0 && a->layout != MJ_GEMM_NT)
        return "a GPU reads fp8 along K only; store the operands so and set kmajor (see MjGemmArgs)";
    return NULL;
}

/* ---- launches ------------------------------------------------------------------------------------------------ */

typedef struct Tile {
    int32_t m, n, stages, threads;
    size_t shared_bytes;
} Tile;

static Tile tile_of(const MjTemplate *t, const MjGemmArgs *a, const int32_t *values)
{
    Tile x = {values[mj_template_param(t, "TILE_M")], values[mj_template_param(t, "TILE_N")], values[mj_template_param(t, "STAGES")], 0, 0};
    const bool block = a->scale_mode == MJ_SCALE_BLOCK;
    x.threads = MJ_SM80_THREADS(x.m, x.n, block);
    x.shared_bytes = (size_t)MJ_SM80_SHARED(x.m, x.n, x.stages, block, a->layout == MJ_GEMM_TN);
    return x;
}

static int geometry(const MjLaunchRecord *record, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *out,
                    MjError *err)
{
    const MjGemmArgs *a = args;
    const Tile tile = tile_of(record->tmpl, a, record->tuning_of);
    const int64_t grid = MJ_CEIL((int64_t)a->m, tile.m) * MJ_CEIL((int64_t)a->n, tile.n) * (a->group == MJ_GROUP_K ? a->experts : 1);
    (void)kernel;
    if (tile.n > 2 * tile.m) /* a thread's copies would not be alike */
        return mj_error(err, MJ_ERR_USAGE, "%s: no tiles of %d x %d: TILE_N is at most twice TILE_M", record->tmpl->name, tile.m, tile.n);
    if (tile.shared_bytes > info->max_shared_bytes)
        return mj_error(err, MJ_ERR_USAGE,
                        "%s: tiles of %d x %d in %d stages need %zu bytes of shared memory, a block of %s has %zu; the image was "
                        "tuned for another card", record->tmpl->name, tile.m, tile.n, tile.stages, tile.shared_bytes, info->name,
                        info->max_shared_bytes);
    out->block = (uint32_t)tile.threads;
    out->shared_bytes = tile.shared_bytes;
    out->grid = (uint32_t)(grid < 1 ? 1 : grid > INT32_MAX ? INT32_MAX : grid); /* any grid is right */
    return 0;
}

/* What mma.sync reaches of a card's rate, estimated: a warp reads (1/64 + 1/64) of a byte of shared memory a product with the
 * largest tile, more with a smaller one. Hopper's full rate is wgmma's, and its fp8 goes through f16 (gemm_core_sm80.cuh). */
static void cost(const MjTemplate *t, const MjCard *card, const void *args, const int32_t *values, const MjOpGeometry *g,
                 MjTileCost *out)
{
    const MjGemmArgs *a = args;
    const Tile tile = tile_of(t, a, values);
    const int32_t area = tile.m * tile.n / (tile.threads / 32);
    MjGemmModel model = {.rate = area >= 4096 ? 0.8 : area >= 2048 ? 0.7 : 0.55, .depth_bytes = MJ_SM80_ROW};
    if (card->arch >= 90 && card->arch < 100) model.rate *= 0.6;
    if (card->arch >= 90 && card->arch < 120 && a->a_type != MJ_T_BF16) model.rate *= 0.5;
    mj_gemm_cost(&model, t, card, args, values, g, out);
}

const MjOpMatrix mj_gemm_sm80 = {.tmpl = "gemm_sm80", .cost = cost, .geometry = geometry};
const MjOpMatrix mj_gemm_tn_sm80 = {.tmpl = "gemm_tn_sm80", .cost = cost, .geometry = geometry};
const MjOpMatrix mj_gemm_fp8_sm89 = {.tmpl = "gemm_fp8_sm89", .cost = cost, .geometry = geometry};
const MjOpMatrix mj_gemm_tn_fp8_sm89 = {.tmpl = "gemm_tn_fp8_sm89", .cost = cost, .geometry = geometry};
