// mj:template rope_qknorm_fwd
// mj:doc Half-split RoPE, then RMSNorm over the head and a gain, for q and k.
// mj:family cpu cuda
// mj:kernel rope_qknorm_fwd
// mj:args MjRopeQknormFwdArgs
// mj:param HEADS fixed min:1 max:1024
// mj:param HEAD_DIM fixed values:16,32,64,128
// mj:param TOKENS varying min:1

#include "rope.h"

MJ_FN void head_fwd(const MjRopeQknormFwdArgs *args, const MjRope *rope, const MjLanes *x, int32_t head_dim, int32_t left, uint16_t *out,
                    float *rstd_out)
{
    MjLanes square;
    MjLanes z = mj_rope_turn(rope, x, 1.0f, head_dim);
    MJ_FOR_LANES(l) square.v[l] = z.v[l] * z.v[l];
    const float rstd = mj_rsqrtf(mj_lanes_sum(&square) / (float)head_dim + args->eps);
    if (MJ_WARP_LEADER) *rstd_out = rstd;
    MJ_FOR_LANES(l) z.v[l] *= rstd * args->gain;
    mj_store_bf16(out, &z, left);
}

/* left: head_dim, or MJ_WHOLE for a chunk */
MJ_FN void token_fwd(const MjRopeQknormFwdArgs *args, const MjRope *rope, int32_t n, int32_t head_dim, int32_t left)
{
    for (int32_t h = 0; h < HEADS; h++) {
        const uint16_t *in = args->qkv + ((int64_t)n * 3 * HEADS + h) * head_dim;
        const int64_t at = (int64_t)n * HEADS + h;
        MjLanes q, k;
        mj_load_bf16(&q, in, left);
        mj_load_bf16(&k, in + (int64_t)HEADS * head_dim, left);
        head_fwd(args, rope, &q, head_dim, left, args->q + at * head_dim, args->q_rstd + at);
        head_fwd(args, rope, &k, head_dim, left, args->k + at * head_dim, args->k_rstd + at);
    }
}

MJ_KERNEL(rope_qknorm_fwd, MjRopeQknormFwdArgs)
{
    MjRope rope;
    mj_rope_init(&rope, (double)args->rope_base, HEAD_DIM);
    MJ_FOR_ROWS(n, TOKENS) {
        mj_rope_at(&rope, args->pos[n], HEAD_DIM);
        if (HEAD_DIM == MJ_CHUNK) {
            token_fwd(args, &rope, n, MJ_CHUNK, MJ_WHOLE);
        } else {
            token_fwd(args, &rope, n, HEAD_DIM, HEAD_DIM);
        }
    }
}
