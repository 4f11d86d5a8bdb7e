// mj:template rope_qknorm_fwd
// mj:doc Half-split RoPE, then RMSNorm over the head and a gain, for q and k.
// mj:family cpu cuda
// mj:kernel rope_qknorm_fwd
// mj:args MjRopeQknormFwdArgs
// mj:param HEADS fixed min:1 max:1024
// mj:param HEAD_DIM fixed values:16,32,64,128
// mj:param TOKENS varying min:1

#include "rope.h"

MJ_FN void head_fwd(const MjRopeQknormFwdArgs *args, const MjRope *rope, const uint16_t *in, uint16_t *out,
                    float *rstd_out)
{
    MjLanes x, square;
    mj_load_bf16(&x, in, HEAD_DIM);
    MjLanes z = mj_rope_turn(rope, &x, 1.0f, HEAD_DIM);
    MJ_FOR_LANES(l) square.v[l] = z.v[l] * z.v[l];
    const float rstd = mj_rsqrtf(mj_lanes_sum(&square) / (float)HEAD_DIM + args->eps);
    if (MJ_WARP_LEADER) *rstd_out = rstd;
    MJ_FOR_LANES(l) z.v[l] *= rstd * args->gain;
    mj_store_bf16(out, &z, HEAD_DIM);
}

MJ_KERNEL(rope_qknorm_fwd, MjRopeQknormFwdArgs)
{
    MjRope rope;
    mj_rope_init(&rope, (double)args->rope_base, HEAD_DIM);
    MJ_FOR_ROWS(n, TOKENS) {
        mj_rope_at(&rope, args->pos[n], HEAD_DIM);
        for (int32_t h = 0; h < HEADS; h++) {
            const uint16_t *in = args->qkv + ((int64_t)n * 3 * HEADS + h) * HEAD_DIM;
            const int64_t at = (int64_t)n * HEADS + h;
            head_fwd(args, &rope, in, args->q + at * HEAD_DIM, args->q_rstd + at);
            head_fwd(args, &rope, in + (int64_t)HEADS * HEAD_DIM, args->k + at * HEAD_DIM, args->k_rstd + at);
        }
    }
}
