// mj:template cross_entropy_cpu
// mj:doc Softcapped cross-entropy over a row of logits, in place: the logits become their own gradients.
// mj:family cpu
// mj:kernel cross_entropy_cpu
// mj:args MjCrossEntropyArgs
// mj:param VOCAB fixed min:1
// mj:param TOKENS varying min:1

/* A row's sums have 8 x 128 accumulators: chunk i of 128 columns goes to the 128 of group i % 8, each group's chunks in
 * order; then the groups in order, then the tree. */
#define GROUPS 8
#define WHOLE (VOCAB % 128 == 0)
#define LEFT(c) (WHOLE ? MJ_WHOLE : VOCAB - (c))
#define FOR_GROUP_CHUNKS(c, g, n) for (int32_t c = (g) * MJ_CHUNK; c < (n); c += GROUPS * MJ_CHUNK)

/* With a cap, z = cap t, t = tanh(logit / cap) = 1 - 2 r, r = 1 / (E + 1), E = e^(2 logit / cap): then z - cap = -2 cap r,
 * and 1 - t^2 = 4 E r^2, both without cancellation. Returns r; E through `big`. */
MJ_FN float below_cap(float logit, float steep, float *big)
{
    const float y = logit * steep; /* steep = 2 / cap */
    *big = mj_expf_near(y > 60.0f ? 60.0f : y);
    return mj_inverse(*big + 1.0f);
}

/* Of 128 logits: e = e^(z - top) and slope = dz / dlogit; zeros from column `used` on. With a cap, top is the cap. */
MJ_FN void weigh(MjLanes *e, MjLanes *slope, const uint16_t *row, int32_t c, int32_t left, int32_t used, float cap, float top)
{
    mj_load_bf16(e, row + c, left);
    if (cap > 0.0f) {
        const float steep = 2.0f / cap, wide = -2.0f * cap;
        MJ_FOR_LANES(l) {
            float big;
            const float r = below_cap(e->v[l], steep, &big);
            slope->v[l] = 4.0f * big * r * r;
            e->v[l] = mj_expf_near(wide * r);
        }
    } else {
        MJ_FOR_LANES(l) e->v[l] = mj_expf_near(e->v[l] - top);
        *slope = mj_lanes_fill(1.0f);
    }
    if (c + MJ_CHUNK <= used) return;
    MJ_FOR_LANES(l) {
        const bool counts = c + mj_lane_column(l) < used;
        e->v[l] = counts ? e->v[l] : 0.0f;
        slope->v[l] = counts ? slope->v[l] : 0.0f;
    }
}

/* The largest z of a row without a cap. */
MJ_FN float largest(const MjCrossEntropyArgs *args, const uint16_t *row, int32_t used, float *groups)
{
    (void)args; /* VOCAB may be in it */
    MjLanes z, top = mj_lanes_fill(-3.4e38f);
    MJ_FOR_WARP_ROWS(g, GROUPS) {
        MjLanes acc = mj_lanes_fill(-3.4e38f);
        FOR_GROUP_CHUNKS(c, g, used) {
            mj_load_bf16(&z, row + c, LEFT(c));
            MJ_FOR_LANES(l) acc.v[l] = mj_fmaxf(c + mj_lane_column(l) < used ? z.v[l] : -3.4e38f, acc.v[l]);
        }
        mj_store_f32(groups + g * MJ_CHUNK, &acc, MJ_CHUNK);
    }
    mj_barrier();
    for (int32_t g = 0; g < GROUPS; g++) {
        mj_load_f32(&z, groups + g * MJ_CHUNK, MJ_CHUNK);
        MJ_FOR_LANES(l) top.v[l] = mj_fmaxf(z.v[l], top.v[l]);
    }
    mj_barrier();
    return mj_lanes_max(&top);
}

/* sum of e^(z - top) over the row */
MJ_FN float sum_exp(const MjCrossEntropyArgs *args, const uint16_t *row, int32_t used, float cap, float top, float *groups)
{
    (void)args; /* VOCAB may be in it */
    MjLanes e, slope, sum = mj_lanes_zero();
    MJ_FOR_WARP_ROWS(g, GROUPS) {
        MjLanes acc = mj_lanes_zero();
        FOR_GROUP_CHUNKS(c, g, used) {
            weigh(&e, &slope, row, c, LEFT(c), used, cap, top);
            MJ_FOR_LANES(l) acc.v[l] += e.v[l];
        }
        mj_store_f32(groups + g * MJ_CHUNK, &acc, MJ_CHUNK);
    }
    mj_barrier();
    for (int32_t g = 0; g < GROUPS; g++) {
        mj_load_f32(&e, groups + g * MJ_CHUNK, MJ_CHUNK);
        MJ_FOR_LANES(l) sum.v[l] += e.v[l];
    }
    return mj_lanes_sum(&sum);
}

/* The logits become their gradients. */
MJ_FN void write_gradient(const MjCrossEntropyArgs *args, uint16_t *row, int32_t target, float cap, float top, float sum)
{
    const float inverse = 1.0f / sum, dscale = args->dscale[0];
    MJ_FOR_WARP_ROWS(g, GROUPS) {
        FOR_GROUP_CHUNKS(c, g, VOCAB) {
            MjLanes e, slope;
            weigh(&e, &slope, row, c, LEFT(c), args->vocab_used, cap, top);
            MJ_FOR_LANES(l) e.v[l] *= inverse;
            if ((uint32_t)(target - c) < MJ_CHUNK) {
                MJ_FOR_LANES(l) e.v[l] -= c + mj_lane_column(l) == target ? 1.0f : 0.0f;
            }
            MJ_FOR_LANES(l) e.v[l] = e.v[l] * dscale * slope.v[l];
            mj_store_bf16(row + c, &e, LEFT(c));
        }
    }
}

MJ_KERNEL(cross_entropy_cpu, MjCrossEntropyArgs)
{
    const float cap = args->softcap;
    float *groups = (float *)mj_shared; /* (GROUPS, 128) */
    MJ_FOR_ITEMS(n, TOKENS) {
        uint16_t *row = args->logits + (int64_t)n * VOCAB;
        const int32_t target = args->target[n];
        if (target < 0) {
            if (MJ_BLOCK_LEADER) args->loss[n] = 0.0f;
            const MjLanes zero = mj_lanes_zero();
            MJ_FOR_WARP_ROWS(g, args->write_grad ? GROUPS : 0) FOR_GROUP_CHUNKS(c, g, VOCAB) mj_store_bf16(row + c, &zero, LEFT(c));
            continue;
        }
        float big, top = cap, below_top = mj_bf16_to_f32(row[target]); /* top - z of the target */
        if (cap > 0.0f) {
            below_top = 2.0f * cap * below_cap(below_top, 2.0f / cap, &big);
        } else {
            top = largest(args, row, args->vocab_used, groups);
            below_top = top - below_top;
        }
        const float sum = sum_exp(args, row, args->vocab_used, cap, top, groups);
        if (MJ_BLOCK_LEADER) args->loss[n] = mj_logf(sum) + below_top;
        if (args->write_grad) write_gradient(args, row, target, cap, top, sum);
        mj_barrier(); /* before the groups are used again */
    }
}
