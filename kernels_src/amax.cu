// mj:template amax
// mj:doc The per-tensor scale: max|x| / largest fp8 value; also of relu2 and of its gradient, without storing them.
// mj:family cpu cuda
// mj:kernel amax_partial
// mj:kernel amax_scale
// mj:args MjAmaxArgs
// mj:param X_TYPE variant values:0,3
// mj:param Q_TYPE variant values:1,2
// mj:param TRANSFORM variant values:0,1,2
// mj:generic X_TYPE=0 Q_TYPE=1 TRANSFORM=0
// mj:generic X_TYPE=0 Q_TYPE=1 TRANSFORM=1
// mj:generic X_TYPE=0 Q_TYPE=2 TRANSFORM=0
// mj:generic X_TYPE=0 Q_TYPE=2 TRANSFORM=2
// mj:generic X_TYPE=3 Q_TYPE=1 TRANSFORM=0
// mj:generic X_TYPE=3 Q_TYPE=2 TRANSFORM=0

MJ_FN void load_values(MjLanes *x, const MjAmaxArgs *args, int64_t at, int32_t left)
{
#if X_TYPE == MJ_T_F32
    mj_load_f32(x, (const float *)args->x + at, left);
#else
    mj_load_bf16(x, (const uint16_t *)args->x + at, left);
#endif
#if TRANSFORM == 1
    MJ_FOR_LANES(l) {
        const float positive = x->v[l] < 0.0f ? 0.0f : x->v[l];
        x->v[l] = mj_bf16_to_f32(mj_f32_to_bf16(positive * positive));
    }
#elif TRANSFORM == 2
    MjLanes d;
    mj_load_bf16(&d, args->x2 + at, left);
    MJ_FOR_LANES(l) {
        const float positive = x->v[l] < 0.0f ? 0.0f : x->v[l];
        x->v[l] = mj_bf16_to_f32(mj_f32_to_bf16(2.0f * positive * d.v[l]));
    }
#endif
}

/* A maximum has no order, so any split gives the same bits: MJ_AMAX_PARTS runs of chunks, a warp each on a GPU. */
MJ_KERNEL(amax_partial, MjAmaxArgs)
{
    const int64_t rows = args->offset != NULL ? args->offset[args->experts] : args->rows64 > 0 ? args->rows64 : args->rows;
    const int64_t n = rows * args->cols;
    const int64_t chunks = (n + MJ_CHUNK - 1) / MJ_CHUNK;
    MJ_FOR_ROWS(p, MJ_AMAX_PARTS) {
        const int64_t end = chunks * (p + 1) / MJ_AMAX_PARTS, whole = end * MJ_CHUNK <= n ? end : end - 1;
        MjLanes x, m = mj_lanes_zero();
        int64_t t = chunks * p / MJ_AMAX_PARTS;
        MJ_UNROLL_BY(8)
        for (; t < whole; t++) {
            load_values(&x, args, t * MJ_CHUNK, MJ_WHOLE);
            mj_lanes_abs_max(&m, &x);
        }
        if (t < end) { /* the last of all, cut short */
            load_values(&x, args, t * MJ_CHUNK, (int32_t)(n - t * MJ_CHUNK));
            mj_lanes_abs_max(&m, &x);
        }
        const float amax = mj_lanes_max(&m);
        if (MJ_WARP_LEADER) args->partial[p] = amax;
    }
}

MJ_KERNEL(amax_scale, MjAmaxArgs)
{
    if (mj_block != 0 || MJ_WARP_INDEX != 0) return;
    MjLanes m = mj_lanes_zero();
    MJ_UNROLL_BY(8)
    for (int32_t c = 0; c < MJ_AMAX_PARTS; c += MJ_CHUNK) {
        MjLanes x;
        mj_load_f32(&x, args->partial + c, MJ_WHOLE);
        mj_lanes_abs_max(&m, &x);
    }
    const float amax = mj_lanes_max(&m);
    if (MJ_WARP_LEADER) args->scale[0] = mj_fp8_scale(amax, Q_TYPE);
}
