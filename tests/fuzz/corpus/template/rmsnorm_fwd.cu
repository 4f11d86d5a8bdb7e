// mj:template rmsnorm_fwd
// mj:doc RMSNorm without parameters: y = x / sqrt(mean(x^2) + eps), in bf16 and/or f32.
// mj:family cpu cuda
// mj:kernel rmsnorm_fwd
// mj:args MjRmsnormFwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOKENS varying min:1

MJ_KERNEL(rmsnorm_fwd, MjRmsnormFwdArgs)
{
    MJ_FOR_ROWS(n, TOKENS) {
        const float *x_row = args->x + (int64_t)n * WIDTH;
        MjLanes acc = mj_lanes_zero();
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes x;
            mj_load_f32(&x, x_row + c, WIDTH - c);
            MJ_FOR_LANES(l) acc.v[l] = mj_fmaf(x.v[l], x.v[l], acc.v[l]);
        }
        const float rstd = mj_rsqrtf(mj_lanes_sum(&acc) / (float)WIDTH + args->eps);
        if (MJ_WARP_LEADER) args->rstd[n] = rstd;
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes x;
            mj_load_f32(&x, x_row + c, WIDTH - c);
            if (args->x_copy != NULL) mj_store_f32(args->x_copy + (int64_t)n * WIDTH + c, &x, WIDTH - c);
            MJ_FOR_LANES(l) x.v[l] *= rstd;
            if (args->y != NULL) mj_store_bf16(args->y + (int64_t)n * WIDTH + c, &x, WIDTH - c);
            if (args->y_f32 != NULL) mj_store_f32(args->y_f32 + (int64_t)n * WIDTH + c, &x, WIDTH - c);
        }
    }
}
