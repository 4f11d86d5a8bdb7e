// mj:template rmsnorm_bwd
// mj:doc Gradient of RMSNorm: dx (+)= rstd (dy - x rstd^2 mean(dy x)); dy is the sum of up to three gradients.
// mj:family cpu cuda
// mj:kernel rmsnorm_bwd
// mj:args MjRmsnormBwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOKENS varying min:1

/* dy + dy_bf16 + dy_bf16_2, in that order, for one chunk */
MJ_FN void load_gradient(MjLanes *dy, const MjRmsnormBwdArgs *args, int64_t at, int32_t left)
{
    MjLanes more;
    if (args->dy != NULL) {
        mj_load_f32(dy, args->dy + at, left);
    } else {
        *dy = mj_lanes_zero();
    }
    if (args->dy_bf16 != NULL) {
        mj_load_bf16(&more, args->dy_bf16 + at, left);
        MJ_FOR_LANES(l) dy->v[l] += more.v[l];
    }
    if (args->dy_bf16_2 != NULL) {
        mj_load_bf16(&more, args->dy_bf16_2 + at, left);
        MJ_FOR_LANES(l) dy->v[l] += more.v[l];
    }
}

MJ_FN float along_x(const MjLanes *dot, int32_t width, float rstd) { return mj_lanes_sum(dot) / (float)width * rstd * rstd; }

#if !MJ_CPU
/* A row of whole chunks that fits into a warp's registers: read once, the loads of each source together. */
#define HELD 8
#define FOR_HELD(i) _Pragma("unroll") for (int32_t i = 0; i < HELD; i++) if (i * MJ_CHUNK < WIDTH)
MJ_FN void add_bf16(MjLanes dy[HELD], const MjRmsnormBwdArgs *args, const uint16_t *from)
{
    (void)args; /* WIDTH may be in it */
    MjLanes more[HELD];
    FOR_HELD(i) mj_load_bf16(&more[i], from + i * MJ_CHUNK, MJ_WHOLE);
    FOR_HELD(i) MJ_FOR_LANES(l) dy[i].v[l] += more[i].v[l];
}

MJ_FN void held_row(const MjRmsnormBwdArgs *args, int32_t n)
{
    const int64_t row = (int64_t)n * WIDTH;
    const float rstd = args->rstd[n];
    MjLanes x[HELD], dy[HELD], dx[HELD], dot = mj_lanes_zero();
    FOR_HELD(i) mj_load_f32(&x[i], args->x + row + i * MJ_CHUNK, MJ_WHOLE);
    FOR_HELD(i) dy[i] = mj_lanes_zero();
    if (args->dy != NULL) {
        FOR_HELD(i) mj_load_f32(&dy[i], args->dy + row + i * MJ_CHUNK, MJ_WHOLE);
    }
    if (args->dy_bf16 != NULL) add_bf16(dy, args, args->dy_bf16 + row);
    if (args->dy_bf16_2 != NULL) add_bf16(dy, args, args->dy_bf16_2 + row);
    if (args->accumulate) {
        FOR_HELD(i) mj_load_f32(&dx[i], args->dx + row + i * MJ_CHUNK, MJ_WHOLE);
    }
    FOR_HELD(i) MJ_FOR_LANES(l) dot.v[l] = mj_fmaf(dy[i].v[l], x[i].v[l], dot.v[l]);
    const float along = along_x(&dot, WIDTH, rstd);
    FOR_HELD(i) {
        MJ_FOR_LANES(l) dy[i].v[l] = rstd * mj_fmaf(-along, x[i].v[l], dy[i].v[l]);
        if (args->accumulate) {
            MJ_FOR_LANES(l) dy[i].v[l] += dx[i].v[l];
        }
        mj_store_f32(args->dx + row + i * MJ_CHUNK, &dy[i], MJ_WHOLE);
    }
}
#endif

MJ_FN void any_row(const MjRmsnormBwdArgs *args, int32_t n)
{
    const int64_t row = (int64_t)n * WIDTH;
    MjLanes dot = mj_lanes_zero();
    MJ_FOR_CHUNKS(c, WIDTH) {
        MjLanes x, dy;
        load_gradient(&dy, args, row + c, WIDTH - c);
        mj_load_f32(&x, args->x + row + c, WIDTH - c);
        MJ_FOR_LANES(l) dot.v[l] = mj_fmaf(dy.v[l], x.v[l], dot.v[l]);
    }
    const float rstd = args->rstd[n];
    const float along = along_x(&dot, WIDTH, rstd);
    MJ_FOR_CHUNKS(c, WIDTH) {
        MjLanes x, dy, dx;
        load_gradient(&dy, args, row + c, WIDTH - c);
        mj_load_f32(&x, args->x + row + c, WIDTH - c);
        MJ_FOR_LANES(l) dy.v[l] = rstd * mj_fmaf(-along, x.v[l], dy.v[l]);
        if (args->accumulate) {
            mj_load_f32(&dx, args->dx + row + c, WIDTH - c);
            MJ_FOR_LANES(l) dy.v[l] += dx.v[l];
        }
        mj_store_f32(args->dx + row + c, &dy, WIDTH - c);
    }
}

MJ_KERNEL(rmsnorm_bwd, MjRmsnormBwdArgs)
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
