/* Rotary angles for the rope_qknorm templates: the cosines and signed sines of one token's position, by lane. */
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

#endif
