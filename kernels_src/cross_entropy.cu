// mj:template cross_entropy
// mj:doc Softcapped cross-entropy over a row of logits, in place: the logits become their own gradients.
// mj:family cpu cuda
// mj:kernel cross_entropy
// mj:args MjCrossEntropyArgs
// mj:param VOCAB fixed min:1
// mj:param TOKENS varying min:1

/* A row's sums have 8 x 128 accumulators: chunk i of 128 columns goes to the 128 of group i % 8, each group's chunks in
 * order; then the groups in order, then the tree. On a GPU a warp has a group. */
#define GROUPS 8
#define WHOLE (VOCAB % 128 == 0)
#define LEFT(c) (WHOLE ? MJ_WHOLE : VOCAB - (c))
#define FOR_GROUP_CHUNKS(c, g, n) for (int32_t c = (g) * MJ_CHUNK; c < (n); c += GROUPS * MJ_CHUNK)

/* t = tanh(logit / cap) and z = cap t; without a cap (softcap 0), z = logit */
MJ_FN void softcap(MjLanes *t, MjLanes *z, const uint16_t *row, int32_t left, float cap)
{
    mj_load_bf16(z, row, left);
    if (cap > 0.0f) {
        const float inverse = 1.0f / cap;
        MJ_FOR_LANES(l) t->v[l] = mj_tanhf(z->v[l] * inverse);
        MJ_FOR_LANES(l) z->v[l] = cap * t->v[l];
    } else {
        *t = mj_lanes_zero();
    }
}

/* The largest z of the row. Without a cap only: else it is at most the cap, and that will do. */
MJ_FN float largest(const MjCrossEntropyArgs *args, const uint16_t *row, int32_t used, float *groups)
{
    (void)args; /* VOCAB may be in it */
    MjLanes t, z, top = mj_lanes_fill(-3.4e38f);
    MJ_FOR_WARP_ROWS(g, GROUPS) {
        MjLanes acc = mj_lanes_fill(-3.4e38f);
        FOR_GROUP_CHUNKS(c, g, used) {
            softcap(&t, &z, row + c, LEFT(c), 0.0f);
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
    MjLanes t, z, sum = mj_lanes_zero();
    MJ_FOR_WARP_ROWS(g, GROUPS) {
        MjLanes acc = mj_lanes_zero();
        FOR_GROUP_CHUNKS(c, g, used) {
            softcap(&t, &z, row + c, LEFT(c), cap);
            MJ_FOR_LANES(l) {
                const float e = mj_expf_near(z.v[l] - top);
                acc.v[l] += c + mj_lane_column(l) < used ? e : 0.0f;
            }
        }
        mj_store_f32(groups + g * MJ_CHUNK, &acc, MJ_CHUNK);
    }
    mj_barrier();
    for (int32_t g = 0; g < GROUPS; g++) {
        mj_load_f32(&z, groups + g * MJ_CHUNK, MJ_CHUNK);
        MJ_FOR_LANES(l) sum.v[l] += z.v[l];
    }
    return mj_lanes_sum(&sum);
}

MJ_KERNEL(cross_entropy, MjCrossEntropyArgs)
{
    const int32_t used = args->vocab_used;
    const float cap = args->softcap, dscale = args->dscale[0];
    float *groups = (float *)mj_shared; /* (GROUPS, 128) */
    MJ_FOR_ITEMS(n, TOKENS) {
        uint16_t *row = args->logits + (int64_t)n * VOCAB;
        const int32_t target = args->target[n];
        MjLanes t, z;
        if (target < 0) {
            if (MJ_BLOCK_LEADER) args->loss[n] = 0.0f;
            z = mj_lanes_zero();
            MJ_FOR_WARP_ROWS(g, args->write_grad ? GROUPS : 0) FOR_GROUP_CHUNKS(c, g, VOCAB) mj_store_bf16(row + c, &z, LEFT(c));
            continue;
        }
        float at_target = mj_bf16_to_f32(row[target]);
        if (cap > 0.0f) at_target = cap * mj_tanhf(at_target * (1.0f / cap));
        const float top = cap > 0.0f ? cap : largest(args, row, used, groups);
        const float sum = sum_exp(args, row, used, cap, top, groups);
        if (MJ_BLOCK_LEADER) args->loss[n] = mj_logf(sum) + top - at_target;
        const float inverse = 1.0f / sum;
        MJ_FOR_WARP_ROWS(g, args->write_grad ? GROUPS : 0) FOR_GROUP_CHUNKS(c, g, VOCAB) {
            softcap(&t, &z, row + c, LEFT(c), cap);
            MJ_FOR_LANES(l) {
                const float p = mj_expf_near(z.v[l] - top) * inverse - (c + mj_lane_column(l) == target ? 1.0f : 0.0f);
                const float d = p * dscale * mj_fmaf(-t.v[l], t.v[l], 1.0f);
                z.v[l] = c + mj_lane_column(l) < used ? d : 0.0f;
            }
            mj_store_bf16(row + c, &z, LEFT(c));
        }
        mj_barrier(); /* before the groups are used again */
    }
}
