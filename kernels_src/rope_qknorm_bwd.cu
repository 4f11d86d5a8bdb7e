// mj:template rope_qknorm_bwd
// mj:doc Gradient of RoPE and QK-norm for q and k, and the cast of v's gradient, into one dqkv.
// mj:family cpu cuda
// mj:kernel rope_qknorm_bwd
// mj:args MjRopeQknormBwdArgs
// mj:param HEADS fixed min:1 max:1024
// mj:param HEAD_DIM fixed values:16,32,64,128
// mj:param TOKENS varying min:1

#include "rope.h"

/* z = rope(x), out = gain rstd z: dz = gain rstd (d - z rstd^2 mean(d z)), dx = dz turned back */
MJ_FN void head_bwd(const MjRopeQknormBwdArgs *args, const MjRope *rope, const uint16_t *in, const float *d_in,
                    float rstd, uint16_t *dx)
{
    MjLanes x, d, dot;
    mj_load_bf16(&x, in, HEAD_DIM);
    mj_load_f32(&d, d_in, HEAD_DIM);
    const MjLanes z = mj_rope_turn(rope, &x, 1.0f, HEAD_DIM);
    MJ_FOR_LANES(l) dot.v[l] = d.v[l] * z.v[l];
    const float along = mj_lanes_sum(&dot) / (float)HEAD_DIM * rstd * rstd;
    MJ_FOR_LANES(l) d.v[l] = args->gain * rstd * mj_fmaf(-along, z.v[l], d.v[l]);
    const MjLanes back = mj_rope_turn(rope, &d, -1.0f, HEAD_DIM);
    mj_store_bf16(dx, &back, HEAD_DIM);
}

MJ_KERNEL(rope_qknorm_bwd, MjRopeQknormBwdArgs)
{
    MjRope rope;
    mj_rope_init(&rope, (double)args->rope_base, HEAD_DIM);
    MJ_FOR_ROWS(n, TOKENS) {
        mj_rope_at(&rope, args->pos[n], HEAD_DIM);
        for (int32_t h = 0; h < HEADS; h++) {
            const int64_t q = ((int64_t)n * 3 * HEADS + h) * HEAD_DIM;
            const int64_t k = q + (int64_t)HEADS * HEAD_DIM;
            const int64_t v = k + (int64_t)HEADS * HEAD_DIM;
            const int64_t at = (int64_t)n * HEADS + h;
            head_bwd(args, &rope, args->qkv + q, args->dq + at * HEAD_DIM, args->q_rstd[at], args->dqkv + q);
            head_bwd(args, &rope, args->qkv + k, args->dk + at * HEAD_DIM, args->k_rstd[at], args->dqkv + k);
            MjLanes dv;
            mj_load_f32(&dv, args->dv + at * HEAD_DIM, HEAD_DIM);
            mj_store_bf16(args->dqkv + v, &dv, HEAD_DIM);
        }
    }
}
