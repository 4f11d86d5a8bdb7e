/* Rotary angles for the rope_qknorm templates: the cosines and signed sines of one token's position, by lane; and the gradient of a
 * head through them and its norm. */
#ifndef MJ_ROPE_H
#define MJ_ROPE_H

typedef struct MjRope {
    double frequency[MJ_LANES]; /* of the lane's column; base^(-2j / head_dim) */
    MjLanes cosine, sine;       /* sine is negated in the second half: y = x cos + partner sin */
} MjRope;

MJ_FN void mj_rope_init(MjRope *rope, double base, int32_t head_dim)
{
    MJ_FOR_LANES(l) rope->frequency[l] = mj_rope_frequency(base, (double)(mj_lane_column(l) % (head_dim / 2)) * 2.0 / head_dim);
}

MJ_FN void mj_rope_at(MjRope *rope, int32_t position, int32_t head_dim)
{
    const int32_t half = head_dim / 2;
#if MJ_CPU
    for (int32_t l = 0; l < half; l++)
        mj_sincosf(position * rope->frequency[l], &rope->sine.v[l], &rope->cosine.v[l]);
    for (int32_t l = 0; l < half; l++) {
        rope->cosine.v[half + l] = rope->cosine.v[l];
        rope->sine.v[half + l] = -rope->sine.v[l];
    }
    for (int32_t l = head_dim; l < MJ_LANES; l++) rope->cosine.v[l] = rope->sine.v[l] = 0.0f;
#else
    MJ_FOR_LANES(l) {
        mj_sincosf(position * rope->frequency[l], &rope->sine.v[l], &rope->cosine.v[l]);
        if (mj_lane_column(l) % head_dim >= half) rope->sine.v[l] = -rope->sine.v[l];
    }
#endif
}

/* z = x turned by the token's angles (sign +1), or turned back (sign -1) */
MJ_FN MjLanes mj_rope_turn(const MjRope *rope, const MjLanes *x, float sign, int32_t head_dim)
{
    const MjLanes partner = mj_lanes_swap(x, head_dim / 2);
    MjLanes z;
    MJ_FOR_LANES(l) z.v[l] = mj_fmaf(partner.v[l], sign * rope->sine.v[l], x->v[l] * rope->cosine.v[l]);
    return z;
}

/* The same angles from a table of a head's first half. */
MJ_FN void mj_rope_load(MjRope *rope, const float *cosine, const float *sine, int32_t head_dim)
{
    const int32_t half = head_dim / 2;
#if MJ_CPU
    for (int32_t l = 0; l < half; l++) {
        rope->cosine.v[l] = rope->cosine.v[half + l] = cosine[l];
        rope->sine.v[l] = sine[l];
        rope->sine.v[half + l] = -sine[l];
    }
    for (int32_t l = head_dim; l < MJ_LANES; l++) rope->cosine.v[l] = rope->sine.v[l] = 0.0f;
#else
    const int32_t column = 4 * MJ_LANE % head_dim, j = column % half;
    const float4 c = *(const float4 *)(cosine + j), s = *(const float4 *)(sine + j);
    const bool upper = column >= half;
    rope->cosine.v[0] = c.x, rope->cosine.v[1] = c.y, rope->cosine.v[2] = c.z, rope->cosine.v[3] = c.w;
    rope->sine.v[0] = upper ? -s.x : s.x, rope->sine.v[1] = upper ? -s.y : s.y;
    rope->sine.v[2] = upper ? -s.z : s.z, rope->sine.v[3] = upper ? -s.w : s.w;
#endif
}

/* Of a head; on a GPU a chunk may hold several, and each lane gets its own head's sum. Zeros come first, where mj_lanes_sum adds
 * those beside a head that is alone. */
MJ_FN float mj_rope_sum(const MjLanes *x, int32_t head_dim)
{
#if !MJ_CPU
    if (head_dim != MJ_CHUNK) {
        MjLanes s;
        MJ_FOR_LANES(l) s.v[l] = x->v[l] + 0.0f;
        for (int32_t mask = head_dim / 8; mask > 0; mask /= 2)
            MJ_FOR_LANES(l) s.v[l] += __shfl_xor_sync(0xffffffffu, s.v[l], mask);
        return (s.v[0] + s.v[1]) + (s.v[2] + s.v[3]);
    }
#endif
    return mj_lanes_sum(x);
}

/* x: a head of q or k, d: its gradient. z = rope(x), out = gain rstd z: dz = gain rstd (d - z rstd^2 mean(d z)), dx = dz turned back */
MJ_FN MjLanes mj_rope_head_bwd(const MjRope *rope, const MjLanes *x, const MjLanes *d, float gain, float rstd, int32_t head_dim)
{
    MjLanes dot, dz;
    const MjLanes z = mj_rope_turn(rope, x, 1.0f, head_dim);
    MJ_FOR_LANES(l) dot.v[l] = d->v[l] * z.v[l];
    const float along = mj_rope_sum(&dot, head_dim) / (float)head_dim * rstd * rstd;
    MJ_FOR_LANES(l) dz.v[l] = gain * rstd * mj_fmaf(-along, z.v[l], d->v[l]);
    return mj_rope_turn(rope, &dz, -1.0f, head_dim);
}

#endif
