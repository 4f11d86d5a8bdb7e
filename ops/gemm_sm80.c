/* The mma.sync GEMMs on a cuda device: which template takes a product, its tiles, its grid and shared memory. Owns the
 * rule that chooses tiles from a shape; knows nothing of what is inside a tile. */
#include "ops/gemm_sm80.h"

#include <stddef.h>

#include "kernels_src/gemm_sm80_tile.h"
#include "kernels_src/kernel_args.h"

const char *mj_gemm_sm80_template(int arch, const MjGemmArgs *a)
{
    const bool bf16 = a->a_type == MJ_T_BF16;
    (void)arch;
    if (bf16 != (a->b_type == MJ_T_BF16) || !bf16) return NULL;
    if (a->kmajor != 0 && a->layout != MJ_GEMM_NT) return NULL;
    return a->layout == MJ_GEMM_TN ? "gemm_tn_sm80" : "gemm_sm80";
}

/* ---- tiles --------------------------------------------------------------------------------------------------- */

typedef struct Card { /* what an architecture's largest cards have; a plan is made without one at hand */
    int arch, units;
    int32_t shared_bytes; /* of one block */
} Card;

static Card card_of(int arch)
{
    static const Card cards[] = {{80, 108, 166912}, {86, 84, 101376}, {87, 16, 166912}, {89, 142, 101376},
                                 {90, 132, 232448}, {100, 148, 232448}, {120, 170, 101376}};
    Card best = cards[0];
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++)
        if (cards[i].arch <= arch) best = cards[i];
    return best;
}

typedef struct Tile {
    int32_t m, n;
    double speed; /* of a full wave, relative: what is read from shared memory and from L2 for a product shrinks with size */
} Tile;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int64_t tiles_of(const MjGemmArgs *a, int32_t tile_m, int32_t tile_n)
{
    return ceil_div(a->m, tile_m) * ceil_div(a->n, tile_n) * (a->group == MJ_GROUP_K ? a->experts : 1);
}

static int32_t shared_of(const MjGemmArgs *a, int32_t tile_m, int32_t tile_n, int32_t stages)
{
    return MJ_SM80_SHARED(tile_m, tile_n, stages, a->scale_mode == MJ_SCALE_BLOCK, a->layout == MJ_GEMM_TN);
}

/* The tile whose waves over the card take least, and as many stages as its shared memory holds, up to 4. */
static void tune(const MjTemplate *t, int arch, const void *args, int32_t *values)
{
    static const Tile tiles[] = {{128, 256, 1.0}, {128, 128, 0.95}, {128, 64, 0.8}, {64, 128, 0.8}, {64, 64, 0.6}};
    const MjGemmArgs *a = args;
    const Card card = card_of(arch);
    const Tile *best = NULL;
    double least = 0.0;
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        const Tile *c = &tiles[i];
        if (shared_of(a, c->m, c->n, 3) > card.shared_bytes || (c->n > 128 && a->scale_mode == MJ_SCALE_BLOCK)) continue;
        const double time = (double)ceil_div(tiles_of(a, c->m, c->n), card.units) * c->m * c->n / c->speed;
        if (best != NULL && time >= least) continue;
        best = c;
        least = time;
    }
    int32_t stages = card.shared_bytes / shared_of(a, best->m, best->n, 1);
    stages = stages > 4 ? 4 : stages;
    if (2 * shared_of(a, best->m, best->n, 3) <= card.shared_bytes) stages = 3; /* room for a second block */
    values[mj_template_param(t, "TILE_M")] = best->m;
    values[mj_template_param(t, "TILE_N")] = best->n;
    values[mj_template_param(t, "STAGES")] = stages;
}

static int geometry(const MjLaunchRecord *record, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *out,
                    MjError *err)
{
    const MjGemmArgs *a = args;
    const MjTemplate *t = record->tmpl;
    const int32_t tile_m = record->tuning_of[mj_template_param(t, "TILE_M")];
    const int32_t tile_n = record->tuning_of[mj_template_param(t, "TILE_N")];
    const int32_t stages = record->tuning_of[mj_template_param(t, "STAGES")];
    const int64_t grid = tiles_of(a, tile_m, tile_n);
    (void)kernel;
    out->block = (uint32_t)MJ_SM80_THREADS(tile_m, tile_n, a->scale_mode == MJ_SCALE_BLOCK);
    out->shared_bytes = (size_t)shared_of(a, tile_m, tile_n, stages);
    out->grid = (uint32_t)(grid < 1 ? 1 : grid > INT32_MAX ? INT32_MAX : grid); /* any grid is right */
    if (out->shared_bytes > info->max_shared_bytes)
        return mj_error(err, MJ_ERR_USAGE,
                        "%s: tiles of %d x %d in %d stages need %zu bytes of shared memory, a block of %s has %zu; the image was "
                        "tuned for another card", t->name, tile_m, tile_n, stages, out->shared_bytes, info->name,
                        info->max_shared_bytes);
    return 0;
}

const MjOpMatrix mj_gemm_sm80 = {.tmpl = "gemm_sm80", .tune = tune, .geometry = geometry};
const MjOpMatrix mj_gemm_tn_sm80 = {.tmpl = "gemm_tn_sm80", .tune = tune, .geometry = geometry};
