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

MJ_KERNEL(rmsnorm_bwd, MjRmsnormBwdArgs)
{
    MJ_FOR_ROWS(n, TOKENS) {
        const int64_t row = (int64_t)n * WIDTH;
        MjLanes dot = mj_lanes_zero();
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes x, dy;
            load_gradient(&dy, args, row + c, WIDTH - c);
            mj_load_f32(&x, args->x + row + c, WIDTH - c);
            MJ_FOR_LANES(l) dot.v[l] = mj_fmaf(dy.v[l], x.v[l], dot.v[l]);
        }
        const float rstd = args->rstd[n];
        const float along = mj_lanes_sum(&dot) / (float)WIDTH * rstd * rstd;
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
}
