// mj:template cross_entropy
// mj:doc Softcapped cross-entropy over a row of logits, in place: the logits become their own gradients.
// mj:family cpu cuda
// mj:kernel cross_entropy
// mj:args MjCrossEntropyArgs
// mj:param VOCAB fixed min:1
// mj:param TOKENS varying min:1

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

MJ_KERNEL(cross_entropy, MjCrossEntropyArgs)
{
    const int32_t used = args->vocab_used;
    const float cap = args->softcap, dscale = args->dscale[0];
    MJ_FOR_ROWS(n, TOKENS) {
        uint16_t *row = args->logits + (int64_t)n * VOCAB;
        const int32_t target = args->target[n];
        if (target < 0) {
            if (MJ_WARP_LEADER) args->loss[n] = 0.0f;
            const MjLanes zero = mj_lanes_zero();
            MJ_FOR_CHUNKS(c, args->write_grad ? VOCAB : 0) mj_store_bf16(row + c, &zero, VOCAB - c);
            continue;
        }
        MjLanes t, z, acc = mj_lanes_fill(-3.4e38f);
        float top = cap; /* |z| <= cap: no pass for the maximum */
        if (!(cap > 0.0f)) {
            MJ_FOR_CHUNKS(c, used) {
                softcap(&t, &z, row + c, used - c, cap);
                MJ_FOR_LANES(l) acc.v[l] = mj_fmaxf(c + mj_lane_column(l) < used ? z.v[l] : -3.4e38f, acc.v[l]);
            }
            top = mj_lanes_max(&acc);
        }
        acc = mj_lanes_zero();
        MjLanes at_target = mj_lanes_zero(); /* z of the target in its lane, 0 in all others */
        MJ_FOR_CHUNKS(c, used) {
            softcap(&t, &z, row + c, used - c, cap);
            MJ_FOR_LANES(l) {
                const float e = mj_expf(z.v[l] - top);
                acc.v[l] += c + mj_lane_column(l) < used ? e : 0.0f;
                at_target.v[l] += c + mj_lane_column(l) == target ? z.v[l] : 0.0f;
            }
        }
        const float sum = mj_lanes_sum(&acc);
        const float loss = mj_logf(sum) + top - mj_lanes_sum(&at_target);
        if (MJ_WARP_LEADER) args->loss[n] = loss;
        if (!args->write_grad) continue;
        const float inverse = 1.0f / sum;
        MJ_FOR_CHUNKS(c, VOCAB) {
            softcap(&t, &z, row + c, VOCAB - c, cap);
            MJ_FOR_LANES(l) {
                const float p = mj_expf(z.v[l] - top) * inverse - (c + mj_lane_column(l) == target ? 1.0f : 0.0f);
                const float d = p * dscale * mj_fmaf(-t.v[l], t.v[l], 1.0f);
                z.v[l] = c + mj_lane_column(l) < used ? d : 0.0f;
            }
            mj_store_bf16(row + c, &z, VOCAB - c);
        }
    }
}
