/* How Hopper's GEMM templates (kernels_src/gemm_sm90.cu, gemm_tn_sm90.cu) are launched: tile, grid, shared memory and
 * tensor maps. What the templates do with them is in kernels_src/gemm_core_sm90.cuh. */
#include "ops/gemm_sm90.h"

#include "kernels_src/gemm_sm90_tile.h"
#include "kernels_src/kernel_args.h"
#include "ops/tile_choice.h"

const char *mj_gemm_sm90_template(const MjGemmArgs *a)
{
    const bool bf16 = a->a_type == MJ_T_BF16, nt = a->layout == MJ_GEMM_NT, tn = a->layout == MJ_GEMM_TN;
    const int32_t step = bf16 ? 8 : 16; /* elements of 16 bytes; C's are bf16 or larger */
    if (bf16 != (a->b_type == MJ_T_BF16) || (!nt && (a->kmajor != 0) == bf16)) return NULL;
    if (a->n % 8 != 0 || (tn ? a->m % 8 : a->k % step) != 0) return NULL;
    return tn ? "gemm_tn_sm90" : "gemm_sm90";
}

typedef struct Tile {
    int32_t m, n, stages, chunks, cluster;
} Tile;

static int32_t tuned(const MjLaunchRecord *record, const char *name)
{
    return record->tuning_of[mj_template_param(record->tmpl, name)];
}

/* An operand as (outer, rows, depth), or (outer, depth, columns) where it lies across K: boxes of `extent` rows and a
 * stage's depth, or of 64 x 64. */
static MjTensorMapSpec operand_map(const void *address, bool fp8, bool across, int64_t extent, int64_t depth, int64_t outer,
                                   int32_t box)
{
    const uint64_t bytes = fp8 ? 1 : 2, inner = (uint64_t)(across ? extent : depth), rows = (uint64_t)(across ? depth : extent);
    return (MjTensorMapSpec){
        .address = address, .type = fp8 ? MJ_TENSOR_MAP_U8 : MJ_TENSOR_MAP_BF16, .swizzle = MJ_TENSOR_MAP_SWIZZLE_128,
        .rank = 3, .dims = {inner, rows, (uint64_t)outer}, .strides = {inner * bytes, inner * rows * bytes},
        .box = {(uint32_t)(MJ_SM90_ROW / bytes), across ? 64 : (uint32_t)box, 1}};
}

static MjTensorMapSpec result_map(const MjGemmArgs *a)
{
    const uint64_t bytes = a->c_type == MJ_T_F32 ? 4 : 2, n = (uint64_t)a->n, m = (uint64_t)a->m;
    return (MjTensorMapSpec){
        .address = a->c, .type = a->c_type == MJ_T_F32 ? MJ_TENSOR_MAP_F32 : MJ_TENSOR_MAP_BF16,
        .swizzle = MJ_TENSOR_MAP_SWIZZLE_128, .rank = 3,
        .dims = {n, m, a->group == MJ_GROUP_K ? (uint64_t)a->experts : 1}, .strides = {n * bytes, n * m * bytes},
        .box = {(uint32_t)(128 / bytes), 16, 1}};
}

/* Blocks: as many as run at once, or as there are tiles, whichever is less. */
static uint32_t blocks(const MjGemmArgs *a, Tile t, int units)
{
    int64_t tiles = MJ_CEIL(a->m, t.m);
    if (a->group == MJ_GROUP_M) tiles = a->m / t.m + a->experts;
    if (a->group == MJ_GROUP_K) tiles *= a->experts;
    tiles *= MJ_CEIL(a->n, t.n * t.cluster);
    int64_t clusters = units / t.cluster;
    if (clusters < 1) clusters = 1;
    return (uint32_t)((tiles < clusters ? tiles : clusters) * t.cluster);
}

static int geometry(const MjLaunchRecord *record, int kernel, const MjDeviceInfo *info, const void *args, MjOpGeometry *out,
                    MjError *err)
{
    const MjGemmArgs *a = args;
    const Tile t = {tuned(record, "TILE_M"), tuned(record, "TILE_N"), tuned(record, "STAGES"), tuned(record, "CHUNKS"),
                    tuned(record, "CLUSTER")};
    const bool fp8 = a->a_type != MJ_T_BF16, tn = a->layout == MJ_GEMM_TN;
    const int64_t depth = fp8 && tn ? MJ_KMAJOR_STRIDE((int64_t)a->k) : a->k;
    const size_t shared = (size_t)MJ_SM90_SHARED_BYTES(t.m, t.n, t.stages, t.chunks, tn && a->scale_mode == MJ_SCALE_BLOCK);

    (void)kernel;
    if (t.m / 64 / MJ_SM90_GROUPS(t.m) * t.n > (t.m == 192 ? 192 : 256) || (fp8 && t.n > (t.m == 192 ? 128 : 192)))
        return mj_error(err, MJ_ERR_USAGE, "%s: a tile of %d x %d has more accumulators than the registers of its warpgroups hold; "
                        "take 256 x 128 or less", record->tmpl->name, t.m, t.n);
    if (!fp8 && tn && t.m / t.cluster % 64 != 0)
        return mj_error(err, MJ_ERR_USAGE, "%s: %d blocks of a cluster cannot share %d columns of A, which come in boxes of 64: "
                        "take another TILE_M, or CLUSTER=1", record->tmpl->name, t.cluster, t.m);
    if (shared > info->max_shared_bytes)
        return mj_error(err, MJ_ERR_USAGE, "%s: a tile of %d x %d in %d stages needs %zu bytes of shared memory, a block of %s has "
                        "%zu: take fewer stages", record->tmpl->name, t.m, t.n, t.stages, shared, info->name,
                        info->max_shared_bytes);
    *out = (MjOpGeometry){
        .grid = blocks(a, t, info->units), .block = (uint32_t)MJ_SM90_THREADS(t.m), .cluster = (uint32_t)t.cluster,
        .shared_bytes = shared, .n_maps = 3, .map_names = {"A", "B", "C"},
        .maps = {operand_map(a->a, fp8, !fp8 && tn, a->m, depth, 1, t.m / t.cluster),
                 operand_map(a->b, fp8, !fp8 && a->layout != MJ_GEMM_NT, a->n, depth,
                             a->group == MJ_GROUP_M ? a->experts : 1, t.n),
                 result_map(a)}};
    return 0;
}

static void cost(const MjTemplate *t, const MjCard *card, const void *args, const int32_t *values, const MjOpGeometry *geometry,
                 MjTileCost *out)
{
    /* Fitted to ten shapes on an H100. Three warpgroups keep the tensor cores busy while one scales its sums or stores its
     * tile; two do so less. TN scales every column by itself. Tiles of 64 columns read shared memory as fast as it goes. */
    const MjGemmArgs *a = args;
    const int32_t tile_m = values[mj_template_param(t, "TILE_M")], tile_n = values[mj_template_param(t, "TILE_N")];
    const int32_t cluster = values[mj_template_param(t, "CLUSTER")];
    const bool scaled = a->scale_mode == MJ_SCALE_BLOCK, three = tile_m == 192;
    const bool fp8 = a->a_type != MJ_T_BF16, tn = a->layout == MJ_GEMM_TN;
    MjGemmModel model = {.rate = !scaled && three ? 0.84 : 0.9, .overlap = three || !scaled, .depth_bytes = MJ_SM90_ROW};
    if (tile_n == 64) model.rate *= 0.8;
    if (!fp8 && tn && three) model.rate = 0.72;
    if (!fp8 && tn && cluster > 1 && tile_m == 128) model.rate *= 0.75; /* shares of one box of 64 columns each */
    if (scaled && tn) model.step_cycles = tile_m == 256 ? 400 : 320;
    else if (scaled) model.step_cycles = tile_m == 256 ? 60 : three ? 0 : 300;
    mj_gemm_cost(&model, t, card, a, values, geometry, out);
}

const MjOpMatrix mj_gemm_sm90 = {.tmpl = "gemm_sm90", .cost = cost, .geometry = geometry};
const MjOpMatrix mj_gemm_tn_sm90 = {.tmpl = "gemm_tn_sm90", .cost = cost, .geometry = geometry};
