/* The shapes that ops are checked and timed at, and their names. Owns the lists and their text form. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ops/refs.h"
#include "runtime/base/nearest.h"

#define END {.tokens = -1}

const MjOpShape mj_shapes_tokens[] = {
    {.tokens = 17, .live = 13, .width = 384, .vocab = 41},
    {.tokens = 1, .live = 1, .width = 1, .vocab = 1},
    {.tokens = 33, .live = 33, .width = 130, .vocab = 5, .only = 1},
    {.tokens = 300, .live = 0, .width = 128, .vocab = 64, .only = 2},
    {.tokens = 70, .live = 65, .width = 67, .vocab = 200, .only = 3},
    {.tokens = 9, .live = 9, .width = 1000, .vocab = 3},
    END,
};
const MjOpShape mj_bench_tokens[] = {{.tokens = 4096, .live = 4096, .width = 384, .vocab = 264},
                                     {.tokens = 4096, .live = 4096, .width = 768, .vocab = 32768}, END};

/* only: 2 row blocks alone */
const MjOpShape mj_shapes_rmsnorm_quant[] = {
    {.tokens = 17, .width = 200},
    {.tokens = 200, .width = 384},
    {.tokens = 129, .width = 130},
    {.tokens = 300, .width = 96, .only = 2},
    {.tokens = 1, .width = 1},
    END,
};
const MjOpShape mj_bench_rmsnorm_quant[] = {{.tokens = 4096, .width = 768}, END};

const MjOpShape mj_shapes_heads[] = {
    {.tokens = 17, .heads = 3, .head_dim = 128}, {.tokens = 1, .heads = 1, .head_dim = 64},
    {.tokens = 40, .heads = 2, .head_dim = 16},  {.tokens = 70, .heads = 5, .head_dim = 64},
    {.tokens = 129, .heads = 1, .head_dim = 32}, END,
};
/* heads beside each other in a tile, tiles that two of q, k and v share, the last one of less than 128 columns */
const MjOpShape mj_shapes_rope_quant[] = {
    {.tokens = 17, .heads = 3, .head_dim = 128}, {.tokens = 128, .heads = 1, .head_dim = 64},
    {.tokens = 40, .heads = 2, .head_dim = 16},  {.tokens = 300, .heads = 4, .head_dim = 64},
    {.tokens = 129, .heads = 5, .head_dim = 32}, END,
};
const MjOpShape mj_bench_heads[] = {{.tokens = 4096, .heads = 3, .head_dim = 128}, {.tokens = 4096, .heads = 6, .head_dim = 128}, END};

const MjOpShape mj_shapes_routed[] = {
    {.tokens = 17, .live = 17, .width = 200, .experts = 5, .top_k = 2},
    {.tokens = 300, .live = 270, .width = 128, .experts = 8, .top_k = 2},
    {.tokens = 600, .live = 600, .width = 64, .experts = 4, .top_k = 1, .route = 1},
    {.tokens = 513, .live = 513, .width = 130, .experts = 16, .top_k = 4, .route = 2, .only = 1},
    {.tokens = 700, .live = 690, .width = 96, .experts = 4, .top_k = 2, .route = 1, .capacity = 256},
    {.tokens = 260, .live = 0, .width = 128, .experts = 3, .top_k = 1},
    {.tokens = 1, .live = 1, .width = 1, .experts = 1, .top_k = 1},
    {.tokens = 400, .live = 400, .width = 384, .experts = 8, .top_k = 2, .capacity = 128, .only = 1},
    END,
};
const MjOpShape mj_bench_routed[] = {{.tokens = 4096, .live = 4096, .width = 384, .experts = 8, .top_k = 2},
                                     {.tokens = 4096, .live = 4096, .width = 768, .experts = 64, .top_k = 8}, END};

#define E4M3_BLOCK .q_type = MJ_T_E4M3, .scale_mode = MJ_SCALE_BLOCK
#define E4M3_TENSOR .q_type = MJ_T_E4M3, .scale_mode = MJ_SCALE_TENSOR
#define E5M2_TENSOR .q_type = MJ_T_E5M2, .scale_mode = MJ_SCALE_TENSOR

const MjOpShape mj_shapes_permute[] = {
    {.tokens = 17, .live = 17, .width = 200, .experts = 5, .top_k = 2},
    {.tokens = 17, .live = 17, .width = 200, .experts = 5, .top_k = 2, E4M3_BLOCK},
    {.tokens = 300, .live = 270, .width = 256, .experts = 8, .top_k = 2, E4M3_BLOCK, .only = 1},
    {.tokens = 300, .live = 300, .width = 128, .experts = 4, .top_k = 1, .route = 1, E4M3_BLOCK, .only = 2},
    {.tokens = 300, .live = 300, .width = 384, .experts = 8, .top_k = 2, .route = 2, E4M3_TENSOR},
    {.tokens = 300, .live = 300, .width = 100, .experts = 8, .top_k = 2, .capacity = 128, E5M2_TENSOR},
    {.tokens = 260, .live = 0, .width = 128, .experts = 3, .top_k = 1, E4M3_BLOCK},
    END,
};
const MjOpShape mj_bench_permute[] = {
    {.tokens = 4096, .live = 4096, .width = 384, .experts = 8, .top_k = 2},
    {.tokens = 4096, .live = 4096, .width = 384, .experts = 8, .top_k = 2, E4M3_BLOCK, .only = 1}, END};

const MjOpShape mj_shapes_combine_bwd[] = {
    {.tokens = 17, .live = 17, .width = 200, .experts = 5, .top_k = 2},
    {.tokens = 17, .live = 17, .width = 200, .experts = 5, .top_k = 2, E4M3_BLOCK},
    {.tokens = 300, .live = 270, .width = 256, .experts = 8, .top_k = 2, E4M3_BLOCK, .only = 1},
    {.tokens = 600, .live = 600, .width = 64, .experts = 4, .top_k = 1, .route = 1},
    {.tokens = 1300, .live = 1300, .width = 132, .experts = 40, .top_k = 4, .route = 2, E4M3_BLOCK, .only = 1},
    {.tokens = 700, .live = 690, .width = 96, .experts = 4, .top_k = 2, .route = 1, .capacity = 256},
    {.tokens = 700, .live = 690, .width = 384, .experts = 4, .top_k = 2, .route = 1, .capacity = 256, E4M3_BLOCK, .only = 2},
    {.tokens = 260, .live = 0, .width = 128, .experts = 3, .top_k = 1, E4M3_BLOCK, .only = 1},
    {.tokens = 1, .live = 1, .width = 1, .experts = 1, .top_k = 1},
    END,
};
const MjOpShape mj_bench_combine_bwd[] = {
    {.tokens = 4096, .live = 4096, .width = 384, .experts = 8, .top_k = 2},
    {.tokens = 4096, .live = 4096, .width = 384, .experts = 8, .top_k = 2, E4M3_BLOCK, .only = 1}, END};

/* experts > 0: the routed layout, rows beyond offset[experts] are not to be touched */
const MjOpShape mj_shapes_tile[] = {
    {.rows = 17, .cols = 200},
    {.rows = 17, .cols = 200, E4M3_BLOCK},
    {.rows = 200, .cols = 130, E4M3_BLOCK, .only = 1},
    {.rows = 640, .cols = 384, .experts = 3, E4M3_BLOCK, .only = 2},
    {.rows = 512, .cols = 96, .experts = 2, .route = 2},
    {.rows = 512, .cols = 256, .experts = 4, E4M3_TENSOR},
    {.rows = 33, .cols = 67, E5M2_TENSOR},
    {.rows = 300, .cols = 256, E4M3_BLOCK},
    {.rows = 1, .cols = 1, E4M3_BLOCK},
    END,
};
const MjOpShape mj_bench_tile[] = {{.rows = 4096, .cols = 1024},
                                   {.rows = 8192, .cols = 512, .experts = 8, E4M3_BLOCK, .only = 1}, END};

const MjOpShape mj_shapes_relu2_bwd[] = {
    {.rows = 17, .cols = 200},
    {.rows = 17, .cols = 200, E4M3_BLOCK},
    {.rows = 200, .cols = 130, E4M3_BLOCK, .only = 1},
    {.rows = 512, .cols = 96, .experts = 2, .route = 2, .gated = 1},
    {.rows = 640, .cols = 384, .experts = 3, E4M3_BLOCK, .only = 1, .gated = 1},
    {.rows = 768, .cols = 200, .experts = 4, E4M3_BLOCK, .only = 2, .gated = 1},
    {.rows = 512, .cols = 256, .experts = 4, E5M2_TENSOR, .gated = 1},
    {.rows = 512, .cols = 256, .experts = 4, E4M3_TENSOR},
    {.rows = 33, .cols = 67, E5M2_TENSOR},
    {.rows = 1, .cols = 1, E4M3_BLOCK},
    END,
};
const MjOpShape mj_bench_relu2_bwd[] = {{.rows = 4096, .cols = 1024},
                                        {.rows = 8192, .cols = 512, .experts = 8, E4M3_BLOCK, .only = 1, .gated = 1}, END};

const MjOpShape mj_shapes_quantize[] = {
    {.rows = 17, .cols = 200, .x_type = MJ_T_F32},
    {.rows = 17, .cols = 200, E4M3_BLOCK},
    {.rows = 200, .cols = 130, .x_type = MJ_T_F32, E4M3_BLOCK, .only = 1},
    {.rows = 640, .cols = 384, .experts = 3, E4M3_BLOCK, .only = 2},
    {.rows = 512, .cols = 96, .experts = 2, .route = 2, E4M3_TENSOR},
    {.rows = 512, .cols = 256, .experts = 4, .x_type = MJ_T_F32, E4M3_TENSOR},
    {.rows = 33, .cols = 67, E5M2_TENSOR},
    {.rows = 130, .cols = 128, .x_type = MJ_T_F32, E5M2_TENSOR},
    {.rows = 300, .cols = 256, E4M3_BLOCK},
    {.rows = 1, .cols = 1, E4M3_BLOCK},
    END,
};
const MjOpShape mj_bench_quantize[] = {{.rows = 4096, .cols = 384, .x_type = MJ_T_F32},
                                       {.rows = 4096, .cols = 384, E4M3_BLOCK, .only = 1},
                                       {.rows = 4096, .cols = 768, E4M3_BLOCK, .only = 1}, END};

const MjOpShape mj_shapes_weight[] = {
    {.experts = 1, .out = 200, .in = 130},
    {.experts = 3, .out = 200, .in = 130, E4M3_BLOCK},
    {.experts = 2, .out = 128, .in = 256, E4M3_BLOCK, .only = 1},
    {.experts = 1, .out = 60, .in = 500, E4M3_TENSOR},
    {.experts = 1, .out = 1, .in = 1, E4M3_BLOCK},
    END,
};
const MjOpShape mj_bench_weight[] = {{.experts = 1, .out = 1024, .in = 1024}, {.experts = 8, .out = 512, .in = 384, E4M3_BLOCK, .only = 2}, END};

const MjOpShape mj_shapes_amax[] = {
    {.rows = 17, .cols = 200, .q_type = MJ_T_E4M3},
    {.rows = 512, .cols = 96, .experts = 2, .route = 2, .q_type = MJ_T_E4M3, .transform = 1},
    {.rows = 512, .cols = 96, .experts = 3, .q_type = MJ_T_E5M2, .transform = 2},
    {.rows = 1, .cols = 1, .x_type = MJ_T_F32, .q_type = MJ_T_E4M3},
    {.rows = 1000, .cols = 130, .x_type = MJ_T_F32, .q_type = MJ_T_E5M2, .only = 1},
    {.rows = 300, .cols = 128, .q_type = MJ_T_E5M2, .only = 2},
    END,
};
const MjOpShape mj_bench_amax[] = {{.rows = 4096, .cols = 768, .q_type = MJ_T_E4M3}, {.rows = 4096, .cols = 384, .x_type = MJ_T_F32, .q_type = MJ_T_E5M2}, END};

const MjOpShape mj_shapes_loss[] = {
    {.tokens = 17, .live = 13, .vocab = 320, .vocab_used = 257},
    {.tokens = 5, .live = 5, .vocab = 64, .vocab_used = 64, .only = 1},
    {.tokens = 9, .live = 0, .vocab = 100, .vocab_used = 99},
    {.tokens = 3, .live = 3, .vocab = 5003, .vocab_used = 5000, .only = 2},
    {.tokens = 1, .live = 1, .vocab = 1, .vocab_used = 1},
    END,
};
const MjOpShape mj_bench_loss[] = {{.tokens = 4096, .live = 4096, .vocab = 320, .vocab_used = 257},
                                   {.tokens = 512, .live = 512, .vocab = 32768, .vocab_used = 32768}, END};

const MjOpShape mj_shapes_flat[] = {{.count = 1}, {.count = 127}, {.count = 10000}, {.count = 4096, .only = 1}, {.count = 130001, .only = 1}, END};
const MjOpShape mj_shapes_adamw[] = {{.count = 1}, {.count = 127}, {.count = 10000}, {.count = 4096, .only = 1},
                                     {.count = 130001, .only = 1}, {.count = 300, .only = 2}, {.count = 300, .only = 3}, END};
const MjOpShape mj_shapes_balance[] = {{.experts = 5}, {.experts = 8, .only = 1}, {.experts = 4, .route = 1, .only = 1}, {.experts = 1},
                                       {.experts = 16, .only = 2}, {.experts = 3, .only = 3}, END};
const MjOpShape mj_shapes_pieces[] = {{.count = 1}, {.count = 127, .piece = 2}, {.count = 1000, .piece = 9}, {.count = 130000, .piece = 3}, END};
const MjOpShape mj_bench_pieces[] = {{.count = 768 * 256, .piece = 4}, END};
const MjOpShape mj_bench_flat[] = {{.count = 4 << 20}, END};

/* ---- text ------------------------------------------------------------------------------------------------------- */

#define NAME(field) {#field, offsetof(MjOpShape, field)}
static const MjOpField names[] = {
    NAME(tokens), NAME(live), NAME(width), NAME(heads), NAME(head_dim), NAME(window), NAME(vocab), NAME(vocab_used),
    NAME(experts), NAME(top_k), NAME(capacity), NAME(rows), NAME(cols), NAME(out), NAME(in), NAME(m), NAME(n), NAME(k),
    NAME(layout), NAME(group), NAME(a_type), NAME(b_type), NAME(c_type), NAME(scale_mode), NAME(epilogue), NAME(q_type),
    NAME(x_type), NAME(transform), NAME(kmajor), NAME(gated), NAME(piece), NAME(route), NAME(only), NAME(count),
};
enum { NAMES = sizeof names / sizeof *names };
_Static_assert(sizeof(MjOpShape) == NAMES * sizeof(int32_t), "every number of a shape has a name");

void mj_shape_text(const MjOpShape *shape, MjStr *out)
{
    const char *comma = "";
    for (int i = 0; i < NAMES; i++) {
        const int32_t value = *(const int32_t *)(const void *)((const char *)shape + names[i].offset);
        if (value == 0) continue;
        mj_str_printf(out, "%s%s=%d", comma, names[i].name, value);
        comma = ",";
    }
}

/* Fields of argument structs whose name a shape has too, or has another name for. */
static bool named(const char *name, const char *field)
{
    static const char *const others[][2] = {{"out", "out_features"}, {"in", "in_features"}, {"piece", "pieces"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(field, others[i][1]) == 0) return strcmp(name, others[i][0]) == 0;
    return strcmp(name, field) == 0;
}

/* What a shape calls the numbers of an argument struct, zeros included; `live` and what else is data stays open. */
void mj_shape_of_args(const MjOpRow *row, const void *args, MjStr *out)
{
    const char *comma = "";
    for (const MjOpField *f = row->fields; f->name != NULL; f++) {
        int32_t value;
        memcpy(&value, (const char *)args + f->offset, sizeof value);
        for (int i = 0; i < NAMES; i++) {
            if (!named(names[i].name, f->name)) continue;
            mj_str_printf(out, "%s%s=%d", comma, names[i].name, value);
            comma = ",";
        }
    }
    if (comma[0] == '\0') mj_str_printf(out, "count=%lld", (long long)row->buffers[0].count(args)); /* ops of flat buffers */
}

int mj_shape_parse(const char *text, MjOpShape *shape, MjError *err)
{
    MjOpShape s = *shape;
    while (*text != '\0') {
        const size_t length = strcspn(text, "=,");
        char name[32] = "", *end;
        const char *known[NAMES];
        int i = 0;
        if (length < sizeof name) memcpy(name, text, length);
        for (int j = 0; j < NAMES; j++) known[j] = names[j].name;
        while (i < NAMES && strcmp(names[i].name, name) != 0) i++;
        if (i < NAMES && text[length] != '=')
            return mj_error(err, MJ_ERR_USAGE, "shape: '%s' has no value: expected name=number, such as %s=1024", name, name);
        if (i == NAMES) {
            const char *near = mj_nearest(name, known, NAMES);
            return mj_error(err, MJ_ERR_USAGE, "shape: '%.*s' is not name=value with a known name%s%s%s", (int)strcspn(text, ","),
                            text, near != NULL ? ": did you mean '" : "", near != NULL ? near : "", near != NULL ? "'?" : "");
        }
        errno = 0;
        const long value = strtol(text + length + 1, &end, 10);
        if (errno != 0 || end == text + length + 1 || (*end != ',' && *end != '\0') || value < 0 || value > 1 << 30)
            return mj_error(err, MJ_ERR_USAGE, "shape: %s needs a whole number from 0 to %d, not '%.*s'", name, 1 << 30,
                            (int)strcspn(text + length + 1, ","), text + length + 1);
        *(int32_t *)(void *)((char *)&s + names[i].offset) = (int32_t)value;
        text = *end == ',' ? end + 1 : end;
    }
    *shape = s;
    return 0;
}
