/* Attention's time: the steps of the busiest multiprocessor, what a step takes, and what comes from memory. */
#include "ops/attention_cost.h"

#include <math.h>

#include "kernels_src/attention_tile.h"

/* From asking for a stage to its arrival; around an item: positions, barriers, the first product and the last one. As in the
 * model of GEMMs. */
#define LATENCY_CYCLES 900.0
#define EXPOSED_CYCLES 750.0 /* what a step of backward's launches waits with no stage in flight; fitted */
#define ITEM_CYCLES 600.0
#define EXPONENTIALS_CYCLE 16.0 /* of one multiprocessor's special function units, on every card so far */
#define OWN_CYCLE 28.0          /* bytes of its own rows that a block reads and writes a cycle; fitted */
#define MEMORY_RATE 0.9         /* what copies reach of the data sheet's rate */

static double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

static int32_t length_of(const MjAttentionSize *s) { return s->longest > 0 && s->longest < s->tokens ? s->longest : s->tokens; }

/* Steps of the item of tile `t`: from the first key that its first query sees. */
static int64_t steps_of(const MjAttentionModel *m, const MjAttentionSize *s, int64_t t)
{
    const int64_t first = t * m->rows, begin = first / length_of(s) * length_of(s);
    const int64_t low = first - s->window + 1 > begin ? first - s->window + 1 : begin;
    return MJ_CEIL(first + m->rows, m->step) - low / m->step;
}

/* The largest sum of steps that a persistent block gets, by the order that the kernels take items in. */
static int64_t busiest(const MjAttentionModel *m, const MjAttentionSize *s, int32_t tiles, int32_t grid)
{
    const int32_t items = tiles * s->heads;
    int64_t most = 0;
    for (int32_t b = 0; b < grid; b++) {
        int64_t sum = 0;
        for (int32_t turn = 0, item; (item = mj_attention_item(m->order, turn, b, grid, items)) >= 0; turn++)
            sum += steps_of(m, s, tiles - 1 - mj_attention_place(m->order, item, tiles, s->heads).tile);
        most = sum > most ? sum : most;
    }
    return most;
}

/* Bytes that the stream reads from memory. Blocks that work on the same head share what they read while it is in the L2
 * cache; if what all heads at work see fits there, it is read once. */
static double stream_bytes(const MjAttentionModel *m, const MjCard *card, const MjAttentionSize *s, double steps, int32_t tiles,
                           double blocks)
{
    const bool mirrored = m->order == MJ_ATTENTION_MIRRORED;
    const double row = 4.0 * s->head_dim; /* two bf16 rows of a head */
    const double heads = fmin(s->heads, mirrored ? 2.0 * ceil(blocks / tiles) : blocks), sharing = fmax(1.0, blocks / heads);
    const double seen = fmin(s->window, length_of(s)), ends = mirrored ? 2.0 : 1.0;
    const double span = fmin(s->tokens, seen + ends * sharing * m->rows);
    const double missed = clamp(2.0 * heads * span * row / card->l2_bytes - 1.0, 0.0, 1.0); /* from half of the cache on */
    const double stream = steps * m->step * s->head_dim * 2.0 * m->streamed;
    return missed * fmax(0.0, stream / sharing - 0.5 * m->streamed * s->tokens * s->heads * row);
}

void mj_attention_cost(const MjAttentionModel *model, const MjCard *card, const MjAttentionSize *size, int32_t stages,
                       const MjOpGeometry *geometry, MjTileCost *out)
{
    const int32_t tiles = MJ_CEIL(size->tokens, model->rows);
    const double scores = (double)model->rows * model->step, items = (double)tiles * size->heads;
    int64_t total = 0, largest = 0;
    for (int32_t t = 0; t < tiles; t++) {
        const int64_t n = steps_of(model, size, t);
        total += n * size->heads;
        largest = n > largest ? n : largest;
    }
    out->tiles = (double)total;
    out->resident = (int)clamp(floor((card->shared_bytes + 1024.0) / ((double)geometry->shared_bytes + 1024.0)), 1, fmin(2048 / geometry->block, model->most_resident));
    const double slots = fmin(items, (double)card->units * out->resident);
    if (model->order >= 0) out->waves = (double)busiest(model, size, tiles, (int32_t)slots);
    else out->waves = fmax((double)total / card->units, (double)largest) + (items > slots ? 0.5 * (double)largest : 0.0);

    const double working = fmin(1.0, model->warps * out->resident / 8.0); /* fewer warps can't keep the tensor cores busy */
    out->mma_cycles = model->products * 2.0 * scores * size->head_dim / card->bf16_cycle / model->rate / working;
    out->softmax_cycles = scores * (model->exponentials / EXPONENTIALS_CYCLE + model->operations / card->fma_cycle) / working;
    out->load_cycles = model->streamed * model->step * size->head_dim * 2.0 / card->l2_cycle;
    const double math = fmax(out->mma_cycles, out->softmax_cycles) + (1.0 - model->hidden) * fmin(out->mma_cycles, out->softmax_cycles);
    const double busy = fmax(math, out->load_cycles);
    out->wait_cycles = stages > model->in_use ? fmax(0.0, LATENCY_CYCLES / (stages - model->in_use) - busy) : EXPOSED_CYCLES;
    out->wait_cycles /= out->resident;
    out->epilogue_cycles = ITEM_CYCLES + model->own_bytes * model->rows * size->head_dim / OWN_CYCLE;
    out->bytes = model->once_bytes * size->tokens * size->heads * size->head_dim +
                 stream_bytes(model, card, size, (double)total, tiles, slots);
    const double cycles = out->waves * (busy + out->wait_cycles) + ceil(items / slots) * out->epilogue_cycles / out->resident;
    const double work = (cycles + LATENCY_CYCLES) / card->clock_hz, memory = out->bytes / (MEMORY_RATE * card->memory_bytes_s);
    out->seconds = fmax(work, memory) + model->contended * fmin(work, memory);
}
