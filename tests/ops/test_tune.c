/* Choice and measuring of tiles: candidates and the model, what `mojit tune` keeps, and that neither changes a bit or makes a
 * warmed run compile. test_tune [LIBRARIES]: with the simulator's libraries, on the simulated GPU as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/cache.h"
#include "kernels_src/attention_tile.h"
#include "kernels_src/kernel_args.h"
#include "ops/matrix_list.h"
#include "ops/tile_choice.h"
#include "ops/tune.h"
#include "ops/tune_explore.h"
#include "runtime/base/fs.h"

static const char *libraries; /* NULL: none */
static char base[64];

typedef struct Bench {
    MjDevice *device;
    MjCache *cache;
    MjJit *jit;
    MjOps ops;
} Bench;

#define DO(expr)                                                                                                       \
    do {                                                                                                               \
        MjError err_ = MJ_ERROR_INIT, *err = &err_;                                                                    \
        if ((expr) != 0) fail_msg("%s: %s", #expr, err_.message);                                                      \
    } while (0)

/* `device` NULL: a plan for `target`. `root`: a folder of its own for the cache. */
static void open_bench(Bench *b, const char *device, const char *target, const char *root)
{
    const MjMode *mode;
    char path[120], locks[120];
    memset(b, 0, sizeof *b);
    snprintf(path, sizeof path, "%s/%s", base, root);
    snprintf(locks, sizeof locks, "%s/locks", base);
    (void)mkdir(path, 0700);
    DO(mj_cache_open(&(MjCacheOptions){.roots = path, .lock_dir = locks}, &b->cache, err));
    if (device != NULL) DO(mj_device_open(device, NULL, &b->device, err));
    DO(mj_mode_find("static", &mode, err));
    const MjJitOptions options = {.device = b->device, .target = target, .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}, .cache = b->cache};
    DO(mj_jit_open(&options, &b->jit, err));
    DO(mj_ops_open(b->device, b->jit, &b->ops, err));
}

static void close_bench(Bench *b)
{
    mj_jit_close(b->jit);
    mj_cache_close(b->cache);
    mj_device_close(b->device);
}

static const MjOpShape small = {.m = 96, .n = 128, .k = 128};

/* ---- candidates and the model ---------------------------------------------------------------------------------------- */

static void every_combination_comes_once(void **state)
{
    (void)state;
    static const char source[] = "// mj:template t\n// mj:family cuda\n// mj:kernel t\n// mj:args A\n// mj:param N fixed\n"
                                 "// mj:param X tuning default:2 values:1,2,3\n// mj:param Y tuning default:8 values:7,8\n"
                                 "// mj:param Z tuning default:5\n";
    MjTemplate *t = NULL;
    MjTuningCount count = {.started = false};
    int32_t asked[MJ_MAX_PARAMS] = {10, MJ_UNBOUND, MJ_UNBOUND, MJ_UNBOUND}, values[MJ_MAX_PARAMS];
    int seen[4][9] = {{0}}, n = 0;
    DO(mj_template_parse("t.cu", source, "builtin", &t, err));
    for (; mj_tuning_next(t, asked, &count, values); n++) {
        assert_int_equal(values[0], 10);
        assert_int_equal(values[3], 5);
        assert_in_range(values[1], 1, 3);
        assert_in_range(values[2], 7, 8);
        assert_int_equal(seen[values[1]][values[2]]++, 0);
    }
    assert_int_equal(n, 6);
    asked[1] = 3; /* given: not varied */
    count = (MjTuningCount){.started = false};
    for (n = 0; mj_tuning_next(t, asked, &count, values); n++) assert_int_equal(values[1], 3);
    assert_int_equal(n, 2);
    mj_template_free(t);
}

/* The choice is the first candidate, fits the card, and is the same each time. */
static void choose_one(Bench *b, const char *target, MjOpId op, const MjOpShape *s)
{
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    MjMatrixKernel m, again;
    MjTileCandidate *list = NULL;
    MjError why = MJ_ERROR_INIT;
    int n = 0;
    int32_t chosen[MJ_MAX_PARAMS];
    const int rc = mj_matrix_kernel(&b->ops, op, s, args, &m, &why);
    if (rc == MJ_ERR_MISSING) {
        mj_error_clear(&why);
        return;
    }
    if (rc != 0) fail_msg("%s: %s", target, why.message);
    DO(mj_matrix_kernel(&b->ops, op, s, args, &again, err));
    assert_memory_equal(m.chosen.values, again.chosen.values, sizeof m.chosen.values);
    DO(mj_tile_candidates(m.matrix, m.asked.tmpl, target, NULL, args, m.asked.values, &list, &n, err));
    assert_true(n > 0);
    mj_jit_full_values(&m.chosen, chosen);
    if (m.matrix->tune == NULL && m.matrix->cost != NULL)
        assert_memory_equal(chosen, list[0].values, (size_t)m.asked.tmpl->n_params * sizeof *chosen);
    for (int i = 0; i < n; i++) {
        assert_true(list[i].geometry.shared_bytes <= (size_t)mj_card_of(b->ops.arch)->shared_bytes);
        assert_true(i == 0 || list[i].cost.seconds >= list[i - 1].cost.seconds);
        assert_true(isfinite(list[i].cost.seconds));
        assert_true(list[i].cost.seconds > 0.0 || op == MJ_OP_GEMM);
    }
    free(list);
}

static void the_cheapest_that_fits_is_chosen(void **state)
{
    (void)state;
    static const char *const targets[] = {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a"};
    static const MjOpId ops[] = {MJ_OP_GEMM, MJ_OP_ATTENTION_FWD, MJ_OP_ATTENTION_BWD};
    for (size_t k = 0; k < sizeof targets / sizeof *targets; k++) {
        Bench b;
        open_bench(&b, NULL, targets[k], "plans");
        for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
            for (const MjOpShape *s = mj_op_gpu_bench_shapes(ops[i]); s->tokens >= 0; s++) choose_one(&b, targets[k], ops[i], s);
        close_bench(&b);
    }
}

/* What the model must get right whatever its constants are. */
static void the_model_knows_its_directions(void **state)
{
    (void)state;
    static const char source[] = "// mj:template t\n// mj:family cuda\n// mj:kernel t\n// mj:args A\n// mj:param TILE_M tuning default:128\n"
                                 "// mj:param TILE_N tuning default:128\n// mj:param STAGES tuning default:4\n";
    static const MjGemmModel model = {.rate = 0.9, .overlap = true, .depth_bytes = 128};
    const MjCard *card = mj_card_of(90);
    const MjOpGeometry g = {.grid = 132, .block = 384, .shared_bytes = 200000};
    const int32_t values[MJ_MAX_PARAMS] = {128, 128, 4}, shallow[MJ_MAX_PARAMS] = {128, 128, 2};
    MjGemmArgs a = {.m = 132 * 128, .n = 128, .k = 4096, .experts = 1};
    MjTemplate *t = NULL;
    MjTileCost one, more;
    DO(mj_template_parse("t.cu", source, "builtin", &t, err));
    mj_gemm_cost(&model, t, card, &a, values, &g, &one);
    assert_true(one.tiles == 132 && one.waves == 1 && one.resident == 1);
    assert_true(fabs(one.mma_cycles - 2.0 * 128 * 128 * 4096 / (4096 * 0.9)) < 1.0); /* FLOP over the tensor cores' rate */
    a.m += 1; /* one tile more: a second wave */
    mj_gemm_cost(&model, t, card, &a, values, &g, &more);
    assert_true(more.waves == 2 && more.seconds > 1.5 * one.seconds);
    a.m -= 1;
    mj_gemm_cost(&model, t, card, &a, shallow, &g, &more);
    assert_true(more.wait_cycles > one.wait_cycles && more.seconds > one.seconds);
    a.a_type = a.b_type = MJ_T_E4M3;
    mj_gemm_cost(&model, t, card, &a, values, &g, &more);
    assert_true(more.seconds < one.seconds && more.scale_cycles == 0.0);
    a.scale_mode = MJ_SCALE_BLOCK;
    mj_gemm_cost(&model, t, card, &a, values, &g, &one);
    assert_true(one.scale_cycles > 0.0 && one.seconds >= more.seconds);
    mj_template_free(t);
}

/* Every item is some block's, once, and of a tile of its own, in either order; mirrored, no block is left out. */
static void every_item_is_worked_on_once(void **state)
{
    (void)state;
    for (int32_t order = 0; order < 2; order++)
        for (int32_t tiles = 1; tiles < 8; tiles++)
            for (int32_t heads = 1; heads < 6; heads++)
                for (int32_t grid = 1; grid <= tiles * heads; grid++) {
                    int seen[5][7] = {{0}};
                    for (int32_t b = 0; b < grid; b++) {
                        int32_t turn = 0, item;
                        for (; (item = mj_attention_item(order, turn, b, grid, tiles * heads)) >= 0; turn++) {
                            const MjPlace p = mj_attention_place(order, item, tiles, heads);
                            assert_in_range(p.head, 0, heads - 1);
                            assert_in_range(p.tile, 0, tiles - 1);
                            assert_int_equal(seen[p.head][p.tile]++, 0);
                        }
                        if (grid == tiles * heads) assert_int_equal(turn, 1);
                    }
                    for (int32_t h = 0; h < heads; h++)
                        for (int32_t t = 0; t < tiles; t++) assert_int_equal(seen[h][t], 1);
                }
}

/* Microseconds measured on an H100: docs/performance.md. 0: not measured. */
static const struct {
    int32_t tokens, heads, head_dim, window, rows, order;
    double fwd_us, bwd_us;
} measured[] = {{2048, 128, 128, 2048, 2048, 0, 398, 995},  {2048, 128, 128, 2048, 2048, 1, 251, 813}, {2048, 128, 128, 512, 2048, 0, 181, 572},
                {2048, 128, 128, 512, 2048, 1, 158, 492},   {8192, 32, 128, 8192, 8192, 0, 868, 2934}, {8192, 32, 128, 8192, 8192, 1, 846, 2984},
                {8192, 32, 128, 1024, 8192, 0, 241, 835},   {8192, 32, 128, 1024, 8192, 1, 259, 786},  {65536, 6, 128, 1024, 2048, 0, 311, 1020},
                {65536, 6, 128, 1024, 2048, 1, 311, 1023},  {16384, 16, 64, 16384, 4096, 0, 430, 0},   {16384, 16, 64, 16384, 4096, 1, 351, 0}};

static double attention_seconds(Bench *b, const MjCard *card, MjOpId op, const MjOpShape *shape, int32_t order)
{
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    MjMatrixKernel k;
    MjTileCost cost = {0};
    int32_t values[MJ_MAX_PARAMS];
    DO(mj_matrix_kernel(&b->ops, op, shape, args, &k, err));
    mj_jit_full_values(&k.chosen, values);
    values[mj_template_param(k.chosen.tmpl, "ORDER")] = order;
    k.matrix->cost(k.chosen.tmpl, card, args, values, &k.geometry, &cost);
    assert_true(cost.softmax_cycles > 0.0 && cost.mma_cycles > 0.0 && cost.bytes > 0.0);
    return cost.seconds;
}

static void the_model_of_attention_fits_what_was_measured(void **state)
{
    (void)state;
    MjCard h100 = *mj_card_of(90);
    Bench b;
    h100.memory_bytes_s = 3.35e12;
    open_bench(&b, NULL, "sm_90a", "plans");
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++) {
        const MjOpShape shape = {.tokens = measured[i].tokens, .live = measured[i].tokens, .heads = measured[i].heads,
                                 .head_dim = measured[i].head_dim, .window = measured[i].window, .rows = measured[i].rows};
        const double want[] = {measured[i].fwd_us, measured[i].bwd_us};
        static const MjOpId ops[] = {MJ_OP_ATTENTION_FWD, MJ_OP_ATTENTION_BWD};
        for (int k = 0; k < 2; k++) {
            const double us = 1e6 * attention_seconds(&b, &h100, ops[k], &shape, measured[i].order);
            if (want[k] > 0 && fabs(us / want[k] - 1) > 0.1)
                fail_msg("%s tokens=%d heads=%d window=%d rows=%d ORDER=%d: the model says %.0f us, measured were %.0f", mj_op_name(ops[k]),
                         measured[i].tokens, measured[i].heads, measured[i].window, measured[i].rows, measured[i].order, us, want[k]);
            if (want[k] > 0 && getenv("MOJIT_TEST_PRINT") != NULL)
                print_message("%s T %d H %d window %d rows %d ORDER=%d: %.0f, measured %.0f\n", mj_op_name(ops[k]), measured[i].tokens,
                              measured[i].heads, measured[i].window, measured[i].rows, measured[i].order, us, want[k]);
        }
    }
    /* What the orders are for: many short heads don't fit the L2 cache; a few long ones balance in either. */
    const MjOpShape many = {.tokens = 2048, .live = 2048, .heads = 128, .head_dim = 128, .window = 2048, .rows = 2048},
                    few = {.tokens = 8192, .live = 8192, .heads = 32, .head_dim = 128, .window = 8192, .rows = 8192};
    assert_true(attention_seconds(&b, &h100, MJ_OP_ATTENTION_FWD, &many, 1) < 0.8 * attention_seconds(&b, &h100, MJ_OP_ATTENTION_FWD, &many, 0));
    assert_true(attention_seconds(&b, &h100, MJ_OP_ATTENTION_BWD, &many, 1) < 0.9 * attention_seconds(&b, &h100, MJ_OP_ATTENTION_BWD, &many, 0));
    assert_true(fabs(attention_seconds(&b, &h100, MJ_OP_ATTENTION_FWD, &few, 1) / attention_seconds(&b, &h100, MJ_OP_ATTENTION_FWD, &few, 0) - 1) < 0.05);
    close_bench(&b);
}

/* ---- measured choices -------------------------------------------------------------------------------------------------- */

static MjJitCounters counters(const Bench *b)
{
    MjJitCounters c;
    mj_jit_counters(b->jit, &c);
    return c;
}

static int32_t blocks_in_use(Bench *b, const MjRequest *asked)
{
    const MjLaunchRecord *r = mj_jit_repeat(b->jit, asked);
    assert_non_null(r);
    return r->tuning_of[mj_template_param(r->tmpl, "BLOCKS")];
}

static void check(Bench *b, const MjOpShape *shape)
{
    MjStr line = MJ_STR_INIT;
    MjError err = MJ_ERROR_INIT;
    if (mj_op_check(&b->ops, MJ_OP_GEMM, shape, 3, "static", &line, &err) != 0) fail_msg("%s %s", mj_str_text(&line), err.message);
    mj_str_free(&line);
}

static MjRequest keep_blocks(Bench *b, int32_t blocks)
{
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    MjMatrixKernel k;
    DO(mj_matrix_kernel(&b->ops, MJ_OP_GEMM, &small, args, &k, err));
    MjRequest tuned = k.asked;
    tuned.values[mj_template_param(k.asked.tmpl, "BLOCKS")] = blocks;
    DO(mj_jit_tuned_keep(b->jit, &k.asked, &tuned, "median_us: 1\n", err));
    return k.asked;
}

static void a_kept_choice_runs(void **state)
{
    (void)state;
    Bench b;
    MjRequest found, asked;
    char *notes = NULL;
    open_bench(&b, "cpu", NULL, "kept");
    asked = keep_blocks(&b, 16);
    check(&b, &small);
    assert_int_equal(blocks_in_use(&b, &asked), 16);
    close_bench(&b);
    open_bench(&b, "cpu", NULL, "kept"); /* another process: its templates are other objects */
    asked = keep_blocks(&b, 64);
    assert_true(mj_jit_tuned_find(b.jit, &asked, &found, &notes));
    assert_string_equal(notes, "median_us: 1\n");
    free(notes);
    check(&b, &small);
    /* The image for 64 is not there yet, and that of the plan (4) neither: the measured one is compiled. */
    assert_int_equal(blocks_in_use(&b, &asked), 64);
    assert_int_equal(counters(&b).compiles, 1);
    asked.values[mj_template_param(asked.tmpl, "BLOCKS")] = 4; /* asked for by value: nothing is to be chosen */
    assert_false(mj_jit_tuned_find(b.jit, &asked, &found, NULL));
    close_bench(&b);
}

static void an_illegal_choice_is_ignored(void **state)
{
    (void)state;
    Bench b;
    open_bench(&b, "cpu", NULL, "illegal");
    MjRequest found, asked = keep_blocks(&b, 5);
    assert_false(mj_jit_tuned_find(b.jit, &asked, &found, NULL));
    check(&b, &small);
    assert_int_equal(blocks_in_use(&b, &asked), 4);
    close_bench(&b);
}

/* The plan was warmed where no measured choice was known: the run goes by the plan, and compiles nothing. */
static void a_warmed_plan_stays_the_plan(void **state)
{
    (void)state;
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    Bench b;
    MjMatrixKernel k;
    const MjLaunchRecord *record;
    open_bench(&b, NULL, mj_cpu_target(), "warm");
    DO(mj_matrix_kernel(&b.ops, MJ_OP_GEMM, &small, args, &k, err));
    mj_jit_record_begin(b.jit);
    DO(mj_jit_get_chosen(b.jit, &k.asked, &k.chosen, &record, err));
    mj_jit_record_end(b.jit);
    DO(mj_jit_prepare(b.jit, err));
    assert_int_equal(counters(&b).compiles, 1);
    close_bench(&b);

    open_bench(&b, "cpu", NULL, "warm");
    MjRequest asked = keep_blocks(&b, 16);
    check(&b, &small);
    assert_int_equal(blocks_in_use(&b, &asked), 4);
    assert_int_equal(counters(&b).compiles, 0);
    close_bench(&b);

    open_bench(&b, "cpu", NULL, "warm"); /* once its kernel is ready as well, the measured choice runs */
    DO(mj_matrix_kernel(&b.ops, MJ_OP_GEMM, &small, args, &k, err));
    MjRequest by_value = k.asked;
    by_value.values[mj_template_param(k.asked.tmpl, "BLOCKS")] = 16;
    DO(mj_jit_get(b.jit, &by_value, &record, err));
    assert_int_equal(counters(&b).compiles, 1);
    check(&b, &small);
    assert_int_equal(blocks_in_use(&b, &k.asked), 16);
    assert_int_equal(counters(&b).compiles, 1);
    close_bench(&b);
}

static void tune_shape(const char *device, const char *root, const MjOpShape *shape, int most)
{
    Bench b;
    MjTuned t;
    MjRequest found;
    int timed = 0;
    open_bench(&b, device, NULL, root);
    DO(mj_tune(&b.ops, MJ_OP_GEMM, shape, &(MjTuneEffort){.most = most, .seconds = 0.001}, &t, err));
    assert_true(t.n >= 2);
    for (int i = 0; i < t.n; i++) {
        if (t.candidates[i].refused[0] != '\0') fail_msg("candidate %d: %s", i, t.candidates[i].refused);
        timed += t.candidates[i].time.median_s > 0.0;
    }
    assert_int_equal(timed, t.n);
    assert_true(t.candidates[t.choice].chosen);
    assert_true(t.candidates[t.winner].time.median_s <= t.candidates[t.choice].time.median_s);
    DO(mj_tune_keep(&b.ops, &t, err));
    assert_true(mj_jit_tuned_find(b.jit, &t.asked, &found, NULL));
    assert_memory_equal(found.values, t.candidates[t.winner].values, (size_t)found.tmpl->n_params * sizeof(int32_t));
    mj_tuned_free(&t);
    close_bench(&b);
}

static void measuring_on_the_cpu(void **state)
{
    (void)state;
    tune_shape("cpu", "tune-cpu", &(MjOpShape){.m = 300, .n = 260, .k = 130}, 8);
    tune_shape("cpu", "tune-cpu", &(MjOpShape){.m = 128, .n = 64, .k = 256, .experts = 2, .group = MJ_GROUP_K, .layout = MJ_GEMM_TN, .c_type = MJ_T_F32}, 8);
}

static void measuring_on_the_simulated_gpu(void **state)
{
    (void)state;
    if (libraries == NULL) skip();
    tune_shape("cuda", "tune-gpu", &(MjOpShape){.m = 128, .n = 64, .k = 64}, 2);
}

/* ---- beyond the model ------------------------------------------------------------------------------------------------ */

static void values_between_the_limits(void **state)
{
    (void)state;
    static const char source[] = "// mj:template t\n// mj:family cuda\n// mj:kernel t\n// mj:args A\n// mj:param N fixed\n"
                                 "// mj:param L tuning default:2 values:1,2,3\n// mj:param BAND tuning default:8 min:1 max:20\n"
                                 "// mj:param ON tuning default:0 min:0 max:4\n// mj:param DELAY tuning default:0 min:0 max:4000\n";
    MjTemplate *t = NULL;
    int32_t out[MJ_TUNE_MOST_TRIES];
    DO(mj_template_parse("t.cu", source, "builtin", &t, err));
    assert_int_equal(mj_tune_tries(t, 0, 5, out), 0); /* no tuning parameter */
    assert_int_equal(mj_tune_tries(t, 1, 2, out), 0); /* the model's */
    assert_int_equal(mj_tune_tries(t, 2, 8, out), 3);
    assert_true(out[0] == 4 && out[1] == 16 && out[2] == 2); /* not 32 */
    assert_int_equal(mj_tune_tries(t, 3, 0, out), 4); /* all */
    assert_true(out[0] == 1 && out[3] == 4);
    assert_int_equal(mj_tune_tries(t, 3, 1, out), 4);
    assert_true(out[0] == 0 && out[1] == 2);
    assert_int_equal(mj_tune_tries(t, 4, 0, out), 4);
    assert_true(out[0] == 500 && out[3] == 4000);
    mj_template_free(t);
}

/* Hopper's GEMM at K 2048: more chunks of the epilogue need shared memory, so a stage less. */
static void a_try_that_does_not_fit_costs_a_stage(void **state)
{
    (void)state;
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    Bench b;
    MjMatrixKernel k;
    MjTileCandidate c;
    int32_t best[MJ_MAX_PARAMS];
    const MjOpShape shape = {.m = 32768, .n = 4096, .k = 2048, .experts = 8, .group = MJ_GROUP_M, .a_type = MJ_T_E4M3, .b_type = MJ_T_E4M3,
                             .scale_mode = MJ_SCALE_BLOCK};
    open_bench(&b, NULL, "sm_90a", "plans");
    DO(mj_matrix_kernel(&b.ops, MJ_OP_GEMM, &shape, args, &k, err));
    const MjTemplate *t = k.chosen.tmpl;
    const int chunks = mj_template_param(t, "CHUNKS"), stages = mj_template_param(t, "STAGES");
    mj_jit_full_values(&k.chosen, best);
    best[stages] = 4;
    assert_true(mj_tune_try(k.matrix, t, "sm_90a", NULL, args, best, chunks, 1, &c)); /* fits as it is: nothing else changes */
    best[chunks] = 1;
    assert_memory_equal(c.values, best, (size_t)t->n_params * sizeof *best);
    assert_true(mj_tune_try(k.matrix, t, "sm_90a", NULL, args, best, chunks, 4, &c));
    assert_int_equal(c.values[chunks], 4);
    assert_true(c.values[stages] < 4 || c.geometry.shared_bytes <= (size_t)mj_card_of(90)->shared_bytes);
    close_bench(&b);
}

/* A template whose tuning values are not listed is measured all the same: on the cpu, the GEMM with limits instead of a list. */
static void measuring_beyond_the_model(void **state)
{
    (void)state;
    char folder[100], path[160], *source, *list;
    Bench b;
    MjTuned t;
    MjRequest found;
    snprintf(folder, sizeof folder, "%s/kernels", base);
    snprintf(path, sizeof path, "%s/gemm_cpu.c", folder);
    (void)mkdir(folder, 0700);
    open_bench(&b, "cpu", NULL, "beyond");
    const MjTemplate *builtin = NULL;
    DO(mj_jit_template(b.jit, "gemm_cpu", &builtin, err));
    source = strdup(builtin->source);
    list = strstr(source, "BLOCKS tuning default:4 values:");
    assert_non_null(list);
    const size_t end = strcspn(list, "\n");
    char line[64];
    const int n = snprintf(line, sizeof line, "BLOCKS tuning default:4 min:1 max:16");
    assert_true((size_t)n <= end);
    memset(list, ' ', end);
    memcpy(list, line, (size_t)n);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(source, f);
    assert_int_equal(fclose(f), 0);
    free(source);
    close_bench(&b);

    open_bench(&b, "cpu", NULL, "beyond");
    DO(mj_jit_add_folder(b.jit, folder, err));
    DO(mj_tune(&b.ops, MJ_OP_GEMM, &small, &(MjTuneEffort){.most = 4, .explore = true, .seconds = 0.001}, &t, err));
    assert_int_equal(t.n, 5); /* 4, and beyond it 2, 8, 1, 16 */
    bool seen[17] = {false};
    for (int i = 0; i < t.n; i++) {
        assert_string_equal(t.candidates[i].refused, "");
        assert_int_equal(t.candidates[i].explored, i > 0);
        seen[t.candidates[i].values[mj_template_param(t.asked.tmpl, "BLOCKS")]] = true;
    }
    assert_true(seen[1] && seen[2] && seen[4] && seen[8] && seen[16]);
    DO(mj_tune_keep(&b.ops, &t, err));
    assert_true(mj_jit_tuned_find(b.jit, &t.asked, &found, NULL));
    mj_tuned_free(&t);
    close_bench(&b);
}

/* A measured choice that the model would not make, on the simulated GPU: a later run on the device takes it. */
static void a_kept_choice_runs_on_the_gpu(void **state)
{
    (void)state;
    static const MjOpShape shape = {.tokens = 64, .live = 64, .heads = 1, .head_dim = 64, .window = 64, .rows = 64};
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    Bench b;
    MjMatrixKernel k;
    MjStr line = MJ_STR_INIT;
    if (libraries == NULL) skip();
    open_bench(&b, "cuda", NULL, "kept-gpu");
    DO(mj_matrix_kernel(&b.ops, MJ_OP_ATTENTION_FWD, &shape, args, &k, err));
    const int stages = mj_template_param(k.asked.tmpl, "STAGES");
    MjRequest tuned = k.asked, chosen = k.chosen;
    mj_jit_full_values(&k.chosen, tuned.values);
    assert_int_not_equal(tuned.values[stages], 4);
    tuned.values[stages] = 4;
    DO(mj_jit_tuned_keep(b.jit, &k.asked, &tuned, "median_us: 1\n", err));
    close_bench(&b);

    open_bench(&b, "cuda", NULL, "kept-gpu");
    DO(mj_matrix_kernel(&b.ops, MJ_OP_ATTENTION_FWD, &shape, args, &k, err));
    chosen = k.chosen;
    mj_jit_measured(b.jit, &k.asked, &chosen);
    assert_int_equal(chosen.values[stages], 4);
    DO(mj_op_check(&b.ops, MJ_OP_ATTENTION_FWD, &shape, 3, "static", &line, err));
    const MjLaunchRecord *r = mj_jit_repeat(b.jit, &k.asked);
    assert_non_null(r);
    assert_int_equal(r->tuning_of[stages], 4);
    mj_str_free(&line);
    close_bench(&b);
}

/* What a message says about running a launch alone leads to the same kernel: every number that a template may have as a constant. */
static void arguments_lead_to_shapes(void **state)
{
    (void)state;
    for (int op = 0; op < MJ_OP_COUNT; op++) {
        const MjOpRow *row = mj_op_rows[op];
        for (const MjOpShape *s = row->proof.shapes; s->tokens >= 0; s++) {
            _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES] = {0}, again[MJ_MAX_ARG_BYTES] = {0};
            MjStr text = MJ_STR_INIT;
            MjOpShape back = row->proof.bench[0]; /* what `mojit bench --shape` changes */
            row->proof.setup(s, args);
            mj_shape_of_args(row, args, &text);
            DO(mj_shape_parse(mj_str_text(&text), &back, err));
            row->proof.setup(&back, again);
            for (const MjOpField *f = row->fields; f->name != NULL; f++)
                if (memcmp(args + f->offset, again + f->offset, sizeof(int32_t)) != 0)
                    fail_msg("%s: %s of %s is another one", row->name, f->name, mj_str_text(&text));
            mj_str_free(&text);
        }
    }
}

/* A plan's request leads back to an op and a shape that ask for the same. */
static void plans_lead_to_shapes(void **state)
{
    (void)state;
    static const MjOpShape shapes[] = {{.m = 96, .n = 128, .k = 256, .epilogue = MJ_EPI_ACCUMULATE, .c_type = MJ_T_F32},
                                       {.m = 128, .n = 64, .k = 512, .layout = MJ_GEMM_TN, .c_type = MJ_T_F32},
                                       {.m = 512, .n = 64, .k = 64, .layout = MJ_GEMM_NN, .group = MJ_GROUP_M, .experts = 4}};
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    static const char *const targets[] = {NULL, "sm_90a", "sm_80"};
    for (size_t k = 0; k < 3; k++) {
        Bench b;
        open_bench(&b, NULL, targets[k] != NULL ? targets[k] : mj_cpu_target(), "plans");
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            MjMatrixKernel m, back;
            MjOpId op;
            MjOpShape shape;
            DO(mj_matrix_kernel(&b.ops, MJ_OP_GEMM, &shapes[i], args, &m, err));
            assert_true(mj_tune_shape_of(&b.ops, &m.asked, &op, &shape));
            assert_int_equal(op, MJ_OP_GEMM);
            DO(mj_matrix_kernel(&b.ops, op, &shape, args, &back, err));
            assert_memory_equal(&m.asked, &back.asked, sizeof m.asked);
        }
        close_bench(&b);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_combination_comes_once),   cmocka_unit_test(the_cheapest_that_fits_is_chosen),
        cmocka_unit_test(the_model_knows_its_directions), cmocka_unit_test(a_kept_choice_runs),
        cmocka_unit_test(an_illegal_choice_is_ignored),   cmocka_unit_test(a_warmed_plan_stays_the_plan),
        cmocka_unit_test(measuring_on_the_cpu),           cmocka_unit_test(measuring_on_the_simulated_gpu),
        cmocka_unit_test(plans_lead_to_shapes),           cmocka_unit_test(every_item_is_worked_on_once),
        cmocka_unit_test(the_model_of_attention_fits_what_was_measured), cmocka_unit_test(values_between_the_limits),
        cmocka_unit_test(a_try_that_does_not_fit_costs_a_stage), cmocka_unit_test(measuring_beyond_the_model),
        cmocka_unit_test(a_kept_choice_runs_on_the_gpu), cmocka_unit_test(arguments_lead_to_shapes),
    };
    if (argc > 1) {
        libraries = argv[1];
        setenv("MOJIT_CUDA_LIBRARY_PATH", libraries, 1);
    }
    snprintf(base, sizeof base, "/tmp/mojit-test-tune-XXXXXX");
    if (!mkdtemp(base)) return 99;
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);
    (void)!mj_fs_remove_tree(base, NULL);
    return rc;
}
