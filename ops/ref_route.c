/* References in double precision: the router, the routed layout, balance, permute's gradient, combine. */
#include <math.h>
#include <stdlib.h>

#include "ops/refs.h"
#include "runtime/base/mem.h"

#define ARGS(Type, c) ((const Type *)(const void *)(c)->args.bytes)

/* ---- choice and layout, shared by the cases ------------------------------------------------------------------- */

int32_t mj_ref_rows(const MjOpShape *s)
{
    if (s->rows > 0) return s->rows;
    if (s->capacity > 0) return s->experts * s->capacity;
    return (s->tokens * s->top_k + MJ_GROUP_ALIGN - 1) / MJ_GROUP_ALIGN * MJ_GROUP_ALIGN + s->experts * MJ_GROUP_ALIGN;
}

/* Distinct experts for every live token: random; or one expert first for every token; or the odd ones unused. */
void mj_ref_choose(MjCase *c, int32_t *expert, int32_t tokens, int32_t live, int32_t experts, int32_t top_k)
{
    const int32_t step = c->shape.route == 2 && experts >= 2 * top_k ? 2 : 1;
    for (int64_t n = 0; n < tokens; n++) {
        const int32_t usable = experts / step;
        const int32_t first = c->shape.route == 1 ? experts - 1 : (int32_t)mj_case_random(c, (uint32_t)usable);
        for (int64_t k = 0; k < top_k; k++) expert[n * top_k + k] = n < live ? (int32_t)((first + k) % usable) * step : -1;
    }
}

void mj_ref_layout(MjRefLayout *l)
{
    int32_t offset = 0;
    for (int64_t i = 0; l->slot_of != NULL && i < l->rows; i++) l->slot_of[i] = -1;
    for (int64_t s = 0; l->row_of != NULL && s < (int64_t)l->tokens * l->top_k; s++) l->row_of[s] = -1;
    l->stats[0] = l->stats[1] = l->stats[2] = l->stats[3] = 0;
    for (int32_t e = 0; e < l->experts; e++) {
        int32_t count = 0, demand = 0;
        for (int32_t s = 0; s < l->live * l->top_k; s++) {
            if (l->expert[s] != e) continue;
            demand++;
            if (l->capacity > 0 && count == l->capacity) continue;
            if (l->row_of != NULL) l->row_of[s] = offset + count;
            if (l->slot_of != NULL) l->slot_of[offset + count] = s;
            count++;
        }
        const int32_t size = l->capacity > 0 ? l->capacity : (count + MJ_GROUP_ALIGN - 1) / MJ_GROUP_ALIGN * MJ_GROUP_ALIGN;
        if (l->count != NULL) l->count[e] = count;
        if (l->demand != NULL) l->demand[e] = demand;
        if (l->offset != NULL) l->offset[e] = offset;
        l->stats[0] += size - count;
        l->stats[1] += demand - count;
        l->stats[2] += count;
        l->stats[3] = count > l->stats[3] ? count : l->stats[3];
        offset += size;
    }
    if (l->offset != NULL) l->offset[l->experts] = offset;
}

/* Fills whichever of the maps the case's struct has, from one random choice. */
static void fill_maps(MjCase *c, const int32_t *slot_of, const int32_t *offset, const int32_t *row_of)
{
    const MjOpShape *s = &c->shape;
    int32_t *expert = mj_xcalloc((size_t)s->tokens * (size_t)s->top_k, sizeof *expert);
    mj_ref_choose(c, expert, s->tokens, s->live, s->experts, s->top_k);
    MjRefLayout layout = {.tokens = s->tokens, .live = s->live, .experts = s->experts, .top_k = s->top_k, .rows = mj_ref_rows(s),
                          .capacity = s->capacity, .expert = expert, .slot_of = (int32_t *)(uintptr_t)slot_of,
                          .offset = (int32_t *)(uintptr_t)offset, .row_of = (int32_t *)(uintptr_t)row_of};
    mj_ref_layout(&layout);
    free(expert);
}

/* ---- router ------------------------------------------------------------------------------------------------------ */

void mj_setup_router_fwd(const MjOpShape *s, void *args)
{
    *(MjRouterFwdArgs *)args = (MjRouterFwdArgs){.tokens = s->tokens, .width = s->width, .experts = s->experts, .top_k = s->top_k,
                                                .normalize = s->only == 0};
}
void mj_fill_router_fwd(MjCase *c)
{
    const MjRouterFwdArgs *a = ARGS(MjRouterFwdArgs, c);
    mj_case_set(c, "live", 0, c->shape.live);
    for (int64_t i = 0; i < (int64_t)a->experts * a->width; i++) {
        /* route 1: every expert the same, so that all scores tie and the lowest indices must be taken */
        const int64_t e = i / a->width, of = c->shape.route == 1 ? i - e * a->width : i;
        if (of == i) mj_case_set(c, "weight", i, mj_case_normal(c) / sqrt(a->width));
        else mj_case_set(c, "weight", i, (double)a->weight[of]);
    }
    for (int64_t e = 0; e < a->experts; e++) mj_case_set(c, "bias", e, c->shape.route == 1 ? 0.0 : 0.05 * mj_case_normal(c));
}

/* The choice of one token; `clear` is the smallest lead by which a choice was made (0 = an exact tie, by index). */
static void choose_top(const double *score, const float *bias, int32_t experts, int32_t top_k, int32_t *chosen, double *clear)
{
    *clear = INFINITY;
    for (int32_t k = 0; k < top_k; k++) {
        int32_t best = -1;
        double lead = INFINITY;
        for (int32_t e = 0; e < experts; e++) {
            bool taken = false;
            for (int32_t j = 0; j < k; j++) taken |= chosen[j] == e;
            if (taken) continue;
            const double key = score[e] + (double)bias[e], top = best < 0 ? -INFINITY : score[best] + (double)bias[best];
            if (best >= 0 && key != top) lead = fmin(lead, fabs(key - top));
            if (best < 0 || key > top) best = e;
        }
        chosen[k] = best;
        *clear = fmin(*clear, lead);
    }
}

void mj_ref_router_fwd(MjCase *c)
{
    const MjRouterFwdArgs *a = ARGS(MjRouterFwdArgs, c);
    double *score = mj_xcalloc((size_t)a->experts, sizeof *score);
    int32_t *chosen = mj_xcalloc((size_t)a->top_k, sizeof *chosen);
    for (int64_t n = 0; n < a->tokens; n = mj_case_next(c, n, a->tokens, 1)) {
        double clear = INFINITY, sum = 0.0;
        for (int64_t e = 0; e < a->experts; e++) {
            double z = 0.0, size = 0.0;
            for (int64_t i = 0; i < a->width; i++) {
                const double term = mj_ref_decode(MJ_BUF_BF16, a->x, n * a->width + i) * (double)a->weight[e * a->width + i];
                z += term;
                size += fabs(term);
            }
            score[e] = n < a->live[0] ? 1.0 / (1.0 + exp(-z)) : 0.0;
            mj_case_want(c, "score", n * a->experts + e, score[e], n < a->live[0] ? 1.0 + size / 4.0 : 0.0);
        }
        choose_top(score, a->bias, a->experts, a->top_k, chosen, &clear);
        for (int64_t k = 0; k < a->top_k; k++) sum += score[chosen[k]];
        for (int64_t k = 0; k < a->top_k; k++) {
            const int64_t at = n * a->top_k + k;
            const double gate = a->normalize ? score[chosen[k]] / sum : score[chosen[k]];
            if (n >= a->live[0]) {
                mj_case_want_within(c, "expert", at, -1, 0.0);
                mj_case_want_within(c, "gate", at, 0.0, 0.0);
            } else { /* too close to call in f32: either choice is right */
                mj_case_want_within(c, "expert", at, chosen[k], clear < 1e-6 ? INFINITY : 0.0);
                mj_case_want_within(c, "gate", at, gate, clear < 1e-6 ? INFINITY : 1e-5);
            }
        }
    }
    free(score);
    free(chosen);
}

void mj_setup_router_bwd(const MjOpShape *s, void *args)
{
    *(MjRouterBwdArgs *)args = (MjRouterBwdArgs){.tokens = s->tokens, .width = s->width, .experts = s->experts, .top_k = s->top_k,
                                                .normalize = s->only == 0};
}
void mj_fill_router_bwd(MjCase *c)
{
    const MjRouterBwdArgs *a = ARGS(MjRouterBwdArgs, c);
    mj_case_set(c, "live", 0, c->shape.live);
    mj_ref_choose(c, (int32_t *)(uintptr_t)a->expert, a->tokens, a->live[0], a->experts, a->top_k);
    for (int64_t i = 0; i < (int64_t)a->tokens * a->experts; i++) mj_case_set(c, "score", i, mj_case_uniform(c, 0.1, 0.9));
    for (int64_t n = 0; n < a->tokens; n++) {
        double sum = 0.0;
        for (int64_t k = 0; n < a->live[0] && k < a->top_k; k++) sum += (double)a->score[n * a->experts + a->expert[n * a->top_k + k]];
        for (int64_t k = 0; k < a->top_k; k++) {
            const double s = n < a->live[0] ? (double)a->score[n * a->experts + a->expert[n * a->top_k + k]] : 0.0;
            mj_case_set(c, "gate", n * a->top_k + k, n >= a->live[0] ? 0.0 : a->normalize ? s / sum : s);
        }
    }
}
/* d loss / d logit of expert e for token n: through gate_k = s_k / sum of the chosen s, or gate_k = s_k */
static double logit_gradient(const MjRouterBwdArgs *a, int64_t n, int64_t k, double *size)
{
    const float *score = a->score + n * a->experts;
    const int32_t *expert = a->expert + n * a->top_k;
    const float *dgate = a->dgate + n * a->top_k;
    double sum = 0.0, ds = (double)dgate[k], reach = fabs(ds);
    const double s = (double)score[expert[k]];
    for (int64_t j = 0; j < a->top_k; j++) sum += (double)score[expert[j]];
    if (a->normalize) {
        ds = reach = 0.0;
        for (int64_t j = 0; j < a->top_k; j++) { /* d gate_j / d s_k = [j = k] / sum - s_j / sum^2 */
            const double share = ((j == k ? 1.0 : 0.0) - (double)score[expert[j]] / sum) / sum;
            ds += (double)dgate[j] * share;
            reach += fabs((double)dgate[j]) * (1.0 + fabs(share)) / sum;
        }
    }
    *size = reach * s * (1.0 - s);
    return ds * s * (1.0 - s);
}
void mj_ref_router_bwd(MjCase *c)
{
    const MjRouterBwdArgs *a = ARGS(MjRouterBwdArgs, c);
    const size_t all = (size_t)a->experts * (size_t)a->width;
    double *dw = mj_xcalloc(all, sizeof *dw), *dw_size = mj_xcalloc(all, sizeof *dw);
    for (int64_t n = 0; n < a->tokens; n++)
        for (int64_t i = 0; i < a->width; i = mj_case_next(c, i, a->width, 1)) {
            double dx = 0.0, dx_size = 0.0;
            const double x = mj_ref_decode(MJ_BUF_BF16, a->x, n * a->width + i);
            for (int64_t k = 0; n < a->live[0] && k < a->top_k; k++) {
                double size;
                const int64_t e = a->expert[n * a->top_k + k];
                const double d = logit_gradient(a, n, k, &size), w = (double)a->weight[e * a->width + i];
                dx += d * w;
                dx_size += size * fabs(w);
                dw[e * a->width + i] += d * x;
                dw_size[e * a->width + i] += size * fabs(x);
            }
            mj_case_want(c, "dx", n * a->width + i, dx, dx_size);
        }
    for (int64_t i = 0; i < (int64_t)all; i++) {
        if (!mj_case_takes(c, i % a->width, a->width)) continue; /* columns that were summed up */
        const double before = mj_case_in(c, "dweight", i);
        mj_case_want(c, "dweight", i, before + dw[i], fabs(before) + dw_size[i]);
    }
    free(dw);
    free(dw_size);
}

/* ---- layout and balance ------------------------------------------------------------------------------------------ */

void mj_setup_route_map(const MjOpShape *s, void *args)
{
    *(MjRouteMapArgs *)args = (MjRouteMapArgs){.tokens = s->tokens, .experts = s->experts, .top_k = s->top_k, .rows = mj_ref_rows(s),
                                              .capacity = s->capacity};
}
void mj_fill_route_map(MjCase *c)
{
    const MjRouteMapArgs *a = ARGS(MjRouteMapArgs, c);
    mj_case_set(c, "live", 0, c->shape.live);
    mj_ref_choose(c, (int32_t *)(uintptr_t)a->expert, a->tokens, a->live[0], a->experts, a->top_k);
    for (int64_t i = 0; i < 4; i++) mj_case_set(c, "stats", i, mj_case_random(c, 100));
    if (c->shape.only == 1) mj_case_drop(c, "demand");
    else for (int64_t e = 0; e < a->experts; e++) mj_case_set(c, "demand", e, mj_case_random(c, 1000));
}
void mj_ref_route_map(MjCase *c)
{
    const MjRouteMapArgs *a = ARGS(MjRouteMapArgs, c);
    const size_t e = (size_t)a->experts, slots = (size_t)a->tokens * (size_t)a->top_k;
    int32_t *buffer = mj_xcalloc(3 * e + 1 + slots + (size_t)a->rows, sizeof *buffer);
    MjRefLayout l = {.tokens = a->tokens, .live = a->live[0], .experts = a->experts, .top_k = a->top_k, .rows = a->rows,
                     .capacity = a->capacity, .expert = a->expert, .count = buffer, .demand = buffer + e, .offset = buffer + 2 * e,
                     .row_of = buffer + 3 * e + 1, .slot_of = buffer + 3 * e + 1 + slots};
    mj_ref_layout(&l);
    for (int64_t i = 0; i < a->experts; i++) mj_case_want(c, "count", i, l.count[i], 0.0);
    for (int64_t i = 0; i < a->experts; i++) if (a->demand != NULL) mj_case_want(c, "demand", i, mj_case_in(c, "demand", i) + l.demand[i], 0.0);
    for (int64_t i = 0; i <= a->experts; i++) mj_case_want(c, "offset", i, l.offset[i], 0.0);
    for (int64_t i = 0; i < (int64_t)slots; i++) mj_case_want(c, "row_of", i, l.row_of[i], 0.0);
    for (int64_t i = 0; i < a->rows; i++) mj_case_want(c, "slot_of", i, l.slot_of[i], 0.0);
    for (int64_t i = 0; i < 3; i++) mj_case_want(c, "stats", i, mj_case_in(c, "stats", i) + l.stats[i], 0.0);
    mj_case_want(c, "stats", 3, fmax(mj_case_in(c, "stats", 3), l.stats[3]), 0.0);
    free(buffer);
}

void mj_setup_balance(const MjOpShape *s, void *args) { *(MjBalanceArgs *)args = (MjBalanceArgs){.rate = 1e-3f, .experts = s->experts}; }
void mj_fill_balance(MjCase *c)
{
    mj_fill_guard(c);
    for (int64_t e = 0; e < c->shape.experts; e++) mj_case_set(c, "demand", e, c->shape.route == 1 ? 100 : mj_case_random(c, 1000));
}
void mj_ref_balance(MjCase *c)
{
    const MjBalanceArgs *a = ARGS(MjBalanceArgs, c);
    double mean = 0.0, centre = 0.0, size = 0.0;
    if (!mj_ref_guard(a->guard)) return;
    for (int e = 0; e < a->experts; e++) mj_case_want(c, "demand", e, 0.0, 0.0);
    for (int e = 0; e < a->experts; e++) mean += (double)a->demand[e] / a->experts;
    for (int pass = 0; pass < 2; pass++)
        for (int e = 0; e < a->experts; e++) {
            const double lack = mean - a->demand[e], step = fabs(lack) < 1e-6 ? 0.0 : lack > 0 ? 1.0 : -1.0;
            const double bias = mj_case_in(c, "bias", e) + (double)a->rate * step;
            if (pass == 0) {
                centre += bias / a->experts;
                size += fabs(bias);
            } else {
                mj_case_want(c, "bias", e, bias - centre, size + fabs(bias));
            }
        }
}

/* ---- permute's gradient, combine --------------------------------------------------------------------------------- */

void mj_setup_permute_bwd(const MjOpShape *s, void *args)
{
    *(MjPermuteBwdArgs *)args = (MjPermuteBwdArgs){.tokens = s->tokens, .width = s->width, .top_k = s->top_k, .rows = mj_ref_rows(s)};
}
void mj_fill_permute_bwd(MjCase *c) { fill_maps(c, NULL, NULL, ARGS(MjPermuteBwdArgs, c)->row_of); }
void mj_ref_permute_bwd(MjCase *c)
{
    const MjPermuteBwdArgs *a = ARGS(MjPermuteBwdArgs, c);
    for (int64_t n = 0; n < a->tokens; n = mj_case_next(c, n, a->tokens, 1))
        for (int64_t i = 0; i < a->width; i++) {
            double sum = 0.0, size = 0.0;
            for (int64_t k = 0; k < a->top_k; k++) {
                const int64_t row = a->row_of[n * a->top_k + k];
                if (row < 0) continue;
                sum += mj_ref_decode(MJ_BUF_BF16, a->dout, row * a->width + i);
                size += fabs(mj_ref_decode(MJ_BUF_BF16, a->dout, row * a->width + i));
            }
            mj_case_want(c, "dx", n * a->width + i, sum, size);
        }
}

void mj_setup_combine_fwd(const MjOpShape *s, void *args)
{
    *(MjCombineFwdArgs *)args = (MjCombineFwdArgs){.tokens = s->tokens, .width = s->width, .top_k = s->top_k, .rows = mj_ref_rows(s), .eps = 1e-6f};
}
void mj_fill_combine_fwd(MjCase *c)
{
    fill_maps(c, NULL, NULL, ARGS(MjCombineFwdArgs, c)->row_of);
    if (c->shape.only == 1) mj_case_drop(c, "shared");
    if (c->shape.only == 1) mj_case_drop(c, "rstd");
}
/* rstd of a row of sums, each off by a few roundings of what was added up to it */
static void combined_norm(MjCase *c, int64_t n, double square, double reach)
{
    const MjCombineFwdArgs *a = ARGS(MjCombineFwdArgs, c);
    const double mean = square / a->width + (double)a->eps, rstd = 1.0 / sqrt(mean);
    mj_case_want(c, "rstd", n, rstd, rstd * (1.0 + reach / a->width / mean));
}
void mj_ref_combine_fwd(MjCase *c)
{
    const MjCombineFwdArgs *a = ARGS(MjCombineFwdArgs, c);
    for (int64_t n = 0; n < a->tokens; n = mj_case_next(c, n, a->tokens, 1)) {
        double square = 0.0, reach = 0.0;
        for (int64_t i = 0; i < a->width; i++) {
            const int64_t at = n * a->width + i;
            double sum = mj_case_in(c, "x", at), size = fabs(sum);
            if (a->shared != NULL) {
                sum += mj_ref_decode(MJ_BUF_BF16, a->shared, at);
                size += fabs(mj_ref_decode(MJ_BUF_BF16, a->shared, at));
            }
            for (int64_t k = 0; k < a->top_k; k++) {
                const int64_t row = a->row_of[n * a->top_k + k];
                if (row < 0) continue;
                const double term = (double)a->gate[n * a->top_k + k] * mj_ref_decode(MJ_BUF_BF16, a->y, row * a->width + i);
                sum += term;
                size += fabs(term);
            }
            mj_case_want(c, "x_out", at, sum, size);
            square += sum * sum;
            reach += fabs(sum) * size;
        }
        combined_norm(c, n, square, reach);
    }
}

void mj_setup_combine_bwd(const MjOpShape *s, void *args)
{
    *(MjCombineBwdArgs *)args = (MjCombineBwdArgs){.tokens = s->tokens, .width = s->width, .experts = s->experts, .top_k = s->top_k,
                                                  .rows = mj_ref_rows(s), .q_type = s->q_type, .scale_mode = s->scale_mode,
                                                  .kmajor = s->kmajor};
}
void mj_fill_combine_bwd(MjCase *c)
{
    const MjCombineBwdArgs *a = ARGS(MjCombineBwdArgs, c);
    fill_maps(c, a->slot_of, a->offset, NULL);
    mj_ref_drop_copies(c, "dy", a->q_type, a->scale_mode);
}
void mj_ref_combine_bwd(MjCase *c)
{
    const MjCombineBwdArgs *a = ARGS(MjCombineBwdArgs, c);
    const int64_t used = a->offset[a->experts];
    double *dy = mj_xcalloc((size_t)used * (size_t)a->width + 1, sizeof *dy);
    for (int64_t r = 0; r < used; r = mj_case_next(c, r, used, 128)) {
        const int64_t slot = a->slot_of[r], n = slot / a->top_k;
        for (int64_t i = 0; slot >= 0 && i < a->width; i++)
            dy[r * a->width + i] = mj_ref_round_bf16((double)(float)((double)a->gate[slot] * (double)a->dx[n * a->width + i]));
    }
    mj_ref_quantise(c, &(MjRefTile){"dy", dy, used, a->rows, a->width, a->q_type, a->scale_mode, a->kmajor, false, NULL});
    free(dy);
}

/* ---- permute: the maps; its values are quantised in ref_quant.c ---------------------------------------------------- */

void mj_setup_permute(const MjOpShape *s, void *args)
{
    *(MjPermuteArgs *)args = (MjPermuteArgs){.tokens = s->tokens, .width = s->width, .experts = s->experts, .top_k = s->top_k,
                                            .rows = mj_ref_rows(s), .q_type = s->q_type, .scale_mode = s->scale_mode,
                                            .kmajor = s->kmajor};
}
void mj_fill_permute(MjCase *c)
{
    const MjPermuteArgs *a = ARGS(MjPermuteArgs, c);
    fill_maps(c, a->slot_of, a->offset, NULL);
    mj_ref_drop_outputs(c, "out", a->q_type, a->scale_mode);
}
void mj_ref_permute(MjCase *c)
{
    const MjPermuteArgs *a = ARGS(MjPermuteArgs, c);
    const int64_t used = a->offset[a->experts];
    double *x = mj_xcalloc((size_t)used * (size_t)a->width + 1, sizeof *x);
    for (int64_t r = 0; r < used; r = mj_case_next(c, r, used, 128))
        for (int64_t i = 0; a->slot_of[r] >= 0 && i < a->width; i++)
            x[r * a->width + i] = mj_ref_decode(MJ_BUF_BF16, a->x, (int64_t)(a->slot_of[r] / a->top_k) * a->width + i);
    mj_ref_quantise(c, &(MjRefTile){"out", x, used, a->rows, a->width, a->q_type, a->scale_mode, a->kmajor, false, a->tensor_scale});
    free(x);
}
