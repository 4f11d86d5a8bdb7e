// mj:template rmsnorm_fwd
// mj:doc RMSNorm without parameters: y = x / sqrt(mean(x^2) + eps), in bf16 and/or f32; of x + add, which goes on.
// mj:family cpu cuda
// mj:kernel rmsnorm_fwd
// mj:args MjRmsnormFwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOKENS varying min:1

MJ_FN void store_chunk(const MjRmsnormFwdArgs *args, int64_t at, MjLanes *x, float rstd, int32_t left)
{
    if (args->x_out != NULL) mj_store_f32(args->x_out + at, x, left);
    MJ_FOR_LANES(l) x->v[l] *= rstd;
    if (args->y != NULL) mj_store_bf16(args->y + at, x, left);
    if (args->y_f32 != NULL) mj_store_f32(args->y_f32 + at, x, left);
}

MJ_FN void add_squares(MjLanes *acc, const MjLanes *x)
{
    MJ_FOR_LANES(l) acc->v[l] = mj_fmaf(x->v[l], x->v[l], acc->v[l]);
}

MJ_FN float rstd_of(const MjRmsnormFwdArgs *args, int32_t n, const MjLanes *acc)
{
    const float rstd = mj_rsqrtf(mj_lanes_sum(acc) / (float)WIDTH + args->eps);
    if (MJ_WARP_LEADER) args->rstd[n] = rstd;
    return rstd;
}

#if !MJ_CPU
/* A row of whole chunks that fits into a warp's registers: read once, all loads together. */
#define HELD 8
MJ_FN void held_row(const MjRmsnormFwdArgs *args, int32_t n)
{
    const int64_t row = (int64_t)n * WIDTH;
    MjLanes x[HELD], acc = mj_lanes_zero();
    _Pragma("unroll") for (int32_t i = 0; i < HELD; i++)
        if (i * MJ_CHUNK < WIDTH) mj_load_f32(&x[i], args->x + row + i * MJ_CHUNK, MJ_WHOLE);
    if (args->add != NULL) {
        MjLanes more[HELD];
        _Pragma("unroll") for (int32_t i = 0; i < HELD; i++)
            if (i * MJ_CHUNK < WIDTH) mj_load_bf16(&more[i], args->add + row + i * MJ_CHUNK, MJ_WHOLE);
        _Pragma("unroll") for (int32_t i = 0; i < HELD; i++)
            if (i * MJ_CHUNK < WIDTH) MJ_FOR_LANES(l) x[i].v[l] += more[i].v[l];
    }
    _Pragma("unroll") for (int32_t i = 0; i < HELD; i++)
        if (i * MJ_CHUNK < WIDTH) add_squares(&acc, &x[i]);
    const float rstd = rstd_of(args, n, &acc);
    _Pragma("unroll") for (int32_t i = 0; i < HELD; i++)
        if (i * MJ_CHUNK < WIDTH) store_chunk(args, row + i * MJ_CHUNK, &x[i], rstd, MJ_WHOLE);
}
#endif

MJ_FN void load_sum(MjLanes *x, const MjRmsnormFwdArgs *args, int64_t at, int32_t left)
{
    mj_load_f32(x, args->x + at, left);
    if (args->add == NULL) return;
    MjLanes more;
    mj_load_bf16(&more, args->add + at, left);
    MJ_FOR_LANES(l) x->v[l] += more.v[l];
}

MJ_FN void any_row(const MjRmsnormFwdArgs *args, int32_t n)
{
    const int64_t row = (int64_t)n * WIDTH;
    MjLanes x, acc = mj_lanes_zero();
    MJ_FOR_CHUNKS(c, WIDTH) {
        load_sum(&x, args, row + c, WIDTH - c);
        add_squares(&acc, &x);
    }
    const float rstd = rstd_of(args, n, &acc);
    MJ_FOR_CHUNKS(c, WIDTH) {
        load_sum(&x, args, row + c, WIDTH - c);
        store_chunk(args, row + c, &x, rstd, WIDTH - c);
    }
}

MJ_KERNEL(rmsnorm_fwd, MjRmsnormFwdArgs)
{
    MJ_FOR_ROWS(n, TOKENS) {
#if !MJ_CPU
        if (WIDTH % MJ_CHUNK == 0 && WIDTH <= HELD * MJ_CHUNK) {
            held_row(args, n);
            continue;
        }
#endif
        any_row(args, n);
    }
}
