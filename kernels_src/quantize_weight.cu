// mj:template quantize_weight
// mj:doc f32 master weights to bf16 and/or fp8 with a scale for each 128 x 128 block (or one), also transposed.
// mj:family cpu cuda
// mj:kernel quantize_weight
// mj:args MjQuantizeWeightArgs
// mj:param OUT_FEATURES fixed min:1
// mj:param IN_FEATURES fixed min:1
// mj:param Q_TYPE variant values:0,1
// mj:param SCALE_MODE variant values:0,1,2
// mj:generic Q_TYPE=0 SCALE_MODE=0
// mj:generic Q_TYPE=1 SCALE_MODE=1
// mj:generic Q_TYPE=1 SCALE_MODE=2

#define TILE 128

/* The scale of a tile, known to every thread; writes the bf16 copy on the way. scratch: a maximum for each warp. */
MJ_FN float tile_scale(const MjQuantizeWeightArgs *args, float *maxima, int64_t at, int32_t rows_here, int32_t left)
{
    MjLanes m = mj_lanes_zero();
    MJ_FOR_WARP_ROWS(i, rows_here) {
        MjLanes x;
        mj_load_f32(&x, args->w + at + (int64_t)i * IN_FEATURES, left);
        if (args->w_bf16 != NULL) mj_store_bf16(args->w_bf16 + at + (int64_t)i * IN_FEATURES, &x, left);
        mj_lanes_abs_max(&m, &x);
    }
    if (Q_TYPE == MJ_T_BF16 || SCALE_MODE == MJ_SCALE_TENSOR) return 1.0f;
    const float warp_max = mj_lanes_max(&m);
    if (MJ_WARP_LEADER) maxima[MJ_WARP_INDEX] = warp_max;
    mj_barrier();
    float amax = 0.0f;
    for (int32_t w = 0; w < MJ_WARPS; w++) amax = mj_fmaxf(maxima[w], amax);
    mj_barrier();
    return mj_fp8_scale(amax, Q_TYPE);
}

MJ_KERNEL(quantize_weight, MjQuantizeWeightArgs)
{
    const int32_t strips = (IN_FEATURES + TILE - 1) / TILE;
    const int32_t bands = (OUT_FEATURES + TILE - 1) / TILE;
    float *maxima = (float *)mj_shared;
    uint8_t *stash = (uint8_t *)mj_shared + 64; /* a tile of bytes on its way to the transpose */
    MJ_FOR_ITEMS(t, args->experts * bands * strips) {
        const int32_t c = t % strips * TILE;
        const int32_t row0 = t / strips % bands * TILE;
        const int32_t e = t / strips / bands;
        const int32_t rows_here = OUT_FEATURES - row0 < TILE ? OUT_FEATURES - row0 : TILE;
        const int32_t left = IN_FEATURES - c;
        const int32_t cols_here = left < TILE ? left : TILE;
        const int64_t at = ((int64_t)e * OUT_FEATURES + row0) * IN_FEATURES + c;
        float scale = tile_scale(args, maxima, at, rows_here, left);
        if (Q_TYPE == MJ_T_BF16) continue;
        if (SCALE_MODE == MJ_SCALE_TENSOR) {
            scale = args->tensor_scale[0];
            if (t == 0 && args->scale != args->tensor_scale && MJ_BLOCK_LEADER) args->scale[0] = scale;
        } else if (MJ_BLOCK_LEADER) {
            args->scale[t] = scale;
        }
        const float inverse = mj_fp8_inverse(scale);
        MJ_FOR_WARP_ROWS(i, rows_here) {
            MjLanes x;
            mj_load_f32(&x, args->w + at + (int64_t)i * IN_FEATURES, left);
            if (args->q != NULL) mj_store_fp8(args->q + at + (int64_t)i * IN_FEATURES, &x, inverse, left, Q_TYPE);
            if (args->q_t != NULL) mj_store_fp8(stash + i * TILE, &x, inverse, TILE, Q_TYPE);
        }
        if (args->q_t == NULL) continue;
        mj_barrier();
        uint8_t *to = args->q_t + ((int64_t)e * IN_FEATURES + c) * OUT_FEATURES + row0;
        MJ_FOR_WARP_ROWS(j, cols_here) {
            MJ_FOR_LANES(l) {
                const int32_t i = mj_lane_column(l);
                if (i < rows_here) to[(int64_t)j * OUT_FEATURES + i] = stash[i * TILE + j];
            }
        }
        mj_barrier();
    }
}
