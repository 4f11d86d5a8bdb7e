// mj:template rope_qknorm_bwd
// mj:doc Gradient of RoPE and QK-norm for q and k, in place in dqkv.
// mj:family cpu cuda
// mj:kernel rope_qknorm_bwd
// mj:args MjRopeQknormBwdArgs
// mj:param HEADS fixed min:1 max:1024
// mj:param HEAD_DIM fixed values:16,32,64,128
// mj:param TOKENS varying min:1

#include "rope.h"

typedef struct MjHead { /* a head of q or k and its gradient */
    MjLanes x, d;
    float rstd;
} MjHead;

MJ_FN void head_bwd(const MjRopeQknormBwdArgs *args, const MjRope *rope, const MjHead *h, int32_t head_dim, int32_t left, uint16_t *dx)
{
    const MjLanes back = mj_rope_head_bwd(rope, &h->x, &h->d, args->gain, h->rstd, head_dim);
    mj_store_bf16(dx, &back, left);
}

/* left: head_dim, or MJ_WHOLE for a chunk. All of a head is loaded before any of it is used. v's part stays as it is. */
MJ_FN void token_bwd(const MjRopeQknormBwdArgs *args, const MjRope *rope, int32_t n, int32_t head_dim, int32_t left)
{
    for (int32_t h = 0; h < HEADS; h++) {
        const int64_t at = (int64_t)n * HEADS + h;
        const int64_t q = ((int64_t)n * 3 * HEADS + h) * head_dim;
        const int64_t k = q + (int64_t)HEADS * head_dim;
        MjHead of_q, of_k;
        mj_load_bf16(&of_q.x, args->qkv + q, left);
        mj_load_bf16(&of_q.d, args->dqkv + q, left);
        mj_load_bf16(&of_k.x, args->qkv + k, left);
        mj_load_bf16(&of_k.d, args->dqkv + k, left);
        of_q.rstd = args->q_rstd[at];
        of_k.rstd = args->k_rstd[at];
        head_bwd(args, rope, &of_q, head_dim, left, args->dqkv + q);
        head_bwd(args, rope, &of_k, head_dim, left, args->dqkv + k);
    }
}

MJ_KERNEL(rope_qknorm_bwd, MjRopeQknormBwdArgs)
{
    MjRope rope;
    mj_rope_init(&rope, (double)args->rope_base, HEAD_DIM);
    MJ_FOR_ROWS(n, TOKENS) {
        mj_rope_at(&rope, args->pos[n], HEAD_DIM);
        if (HEAD_DIM == MJ_CHUNK) {
            token_bwd(args, &rope, n, MJ_CHUNK, MJ_WHOLE);
        } else {
            token_bwd(args, &rope, n, HEAD_DIM, HEAD_DIM);
        }
    }
}
