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

#if MJ_CPU
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
#else
/* A block of 8 warps holds a tile in registers, from one read: warp w rows 16 w .. 16 w + 15, lane l columns 4 l .. 4 l + 3.
 * The transpose crosses shared memory as in quant_tile_cuda.h. Input features are a multiple of 4. */
#define ROWS_HELD 16

MJ_FN float tile_amax(const MjLanes x[ROWS_HELD], float *maxima)
{
    MjLanes m = mj_lanes_zero();
    _Pragma("unroll") for (int32_t i = 0; i < ROWS_HELD; i++) /* as mj_lanes_abs_max: NaN is passed over; one instruction */
        MJ_FOR_LANES(l) m.v[l] = fmaxf(m.v[l], mj_fabsf(x[i].v[l]));
    const float warp_max = mj_lanes_max(&m);
    if (MJ_WARP_LEADER) maxima[MJ_WARP_INDEX] = warp_max;
    mj_barrier();
    float amax = 0.0f;
    _Pragma("unroll") for (int32_t w = 0; w < TILE / ROWS_HELD; w++) amax = fmaxf(amax, maxima[w]);
    return amax;
}

/* q_t of the tile: `to` is its first element, rows are input features. */
MJ_FN void store_turned(const MjQuantizeWeightArgs *args, const MjLanes x[ROWS_HELD], float inverse, uint8_t *stash, uint8_t *to,
                        int32_t rows_here, int32_t cols_here)
{
    (void)args; /* OUT_FEATURES may be in it */
    MJ_FOR_LANES(l) {
        uint32_t word[4];
        _Pragma("unroll") for (int32_t k = 0; k < 4; k++)
            word[k] = mj_fp8_pair(x[4 * k].v[l] * inverse, x[4 * k + 1].v[l] * inverse, Q_TYPE) |
                      mj_fp8_pair(x[4 * k + 2].v[l] * inverse, x[4 * k + 3].v[l] * inverse, Q_TYPE) << 16;
        *(uint4 *)(stash + mj_lane_column(l) * TILE + (MJ_WARP_INDEX ^ (MJ_LANE % 8)) * 16) = make_uint4(word[0], word[1], word[2], word[3]);
    }
    mj_barrier();
    /* 8 lanes a column, every 32nd column is this thread's; 16 rows of it, all or, where those of the matrix are not 16s, some */
    const int32_t first = (int32_t)(threadIdx.x / 8), chunk = MJ_LANE % 8, live = rows_here - chunk * 16;
    const uint8_t *from = stash + first * TILE + (chunk ^ MJ_WARP_INDEX) * 16;
    uint8_t *at = to + (int64_t)first * OUT_FEATURES + chunk * 16;
    _Pragma("unroll") for (int32_t k = 0; k < 4; k++) {
        if (first + 32 * k >= cols_here) continue;
        if (OUT_FEATURES % 16 == 0) {
            if (live >= 16) *(uint4 *)(at + (int64_t)(32 * k) * OUT_FEATURES) = *(const uint4 *)(from + 32 * k * TILE);
            continue;
        }
        _Pragma("unroll 1") for (int32_t i = 0; i < live && i < 16; i++) at[(int64_t)(32 * k) * OUT_FEATURES + i] = from[32 * k * TILE + i];
    }
}

MJ_KERNEL_BOUNDS(quantize_weight, MjQuantizeWeightArgs, 256, 2)
{
    const int32_t strips = (IN_FEATURES + TILE - 1) / TILE;
    const int32_t bands = (OUT_FEATURES + TILE - 1) / TILE;
    float *maxima = (float *)mj_shared;
    uint8_t *stash = (uint8_t *)mj_shared + 64;
    MJ_FOR_ITEMS(t, args->experts * bands * strips) {
        const int32_t c = t % strips * TILE, row0 = t / strips % bands * TILE, e = t / strips / bands;
        const int32_t rows_here = OUT_FEATURES % TILE == 0 || row0 + TILE <= OUT_FEATURES ? TILE : OUT_FEATURES - row0;
        const int32_t cols_here = IN_FEATURES % TILE == 0 || c + TILE <= IN_FEATURES ? TILE : IN_FEATURES - c;
        const bool inside = IN_FEATURES % TILE == 0 || 4 * MJ_LANE < cols_here;
        const int32_t first = MJ_WARP_INDEX * ROWS_HELD, last = OUT_FEATURES % TILE == 0 ? 0x7fffffff : rows_here - 1;
        const int64_t at = ((int64_t)e * OUT_FEATURES + row0 + first) * IN_FEATURES + c;
        MjLanes x[ROWS_HELD];
        _Pragma("unroll") for (int32_t i = 0; i < ROWS_HELD; i++) {
            x[i] = mj_lanes_zero();
            if (first + i <= last && inside) mj_load_f32(&x[i], args->w + at + (int64_t)i * IN_FEATURES, MJ_WHOLE);
        }
        mj_warp_sync(); /* all loads are sent before one is waited for */
        float scale = 1.0f;
        if (Q_TYPE != MJ_T_BF16 && SCALE_MODE == MJ_SCALE_TENSOR) {
            scale = args->tensor_scale[0];
            if (t == 0 && args->scale != args->tensor_scale && MJ_BLOCK_LEADER) args->scale[0] = scale;
        } else if (Q_TYPE != MJ_T_BF16) {
            scale = mj_fp8_scale(tile_amax(x, maxima), Q_TYPE);
            if (MJ_BLOCK_LEADER) args->scale[t] = scale;
        }
        const float inverse = mj_fp8_inverse(scale);
        _Pragma("unroll") for (int32_t i = 0; i < ROWS_HELD; i++) {
            if (args->w_bf16 == NULL || first + i > last || !inside) continue;
            mj_store_bf16(args->w_bf16 + at + (int64_t)i * IN_FEATURES, &x[i], MJ_WHOLE);
        }
        if (Q_TYPE == MJ_T_BF16) continue;
        _Pragma("unroll") for (int32_t i = 0; i < ROWS_HELD; i++) {
            if (args->q == NULL || first + i > last || !inside) continue;
            mj_store_fp8(args->q + at + (int64_t)i * IN_FEATURES, &x[i], inverse, MJ_WHOLE, Q_TYPE);
        }
        if (args->q_t != NULL)
            store_turned(args, x, inverse, stash, args->q_t + ((int64_t)e * IN_FEATURES + c) * OUT_FEATURES + row0, rows_here, cols_here);
        mj_barrier();
    }
}
#endif
