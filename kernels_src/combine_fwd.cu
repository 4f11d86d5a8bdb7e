// mj:template combine_fwd
// mj:doc Experts' outputs back to their tokens: x_out = x + shared + sum over k of gate y[row_of], k ascending; and the rstd of its RMSNorm.
// mj:family cpu cuda
// mj:kernel combine_fwd
// mj:args MjCombineFwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOP_K fixed min:1 max:32
// mj:param TOKENS varying min:1

/* Full of warps, which is what hides the gathers: with the sum of squares ptxas would take 40 registers. */
MJ_KERNEL_BOUNDS(combine_fwd, MjCombineFwdArgs, 256, 8)
{
    MJ_FOR_ROWS(n, TOKENS) {
        const int32_t *row_of = args->row_of + (int64_t)n * TOP_K;
        const float *gate = args->gate + (int64_t)n * TOP_K;
        const int64_t row = (int64_t)n * WIDTH;
        MjLanes square = mj_lanes_zero();
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes sum = mj_lanes_zero(), x;
            if (args->shared != NULL) mj_load_bf16(&sum, args->shared + row + c, WIDTH - c);
            for (int32_t k = 0; k < TOP_K; k++) {
                if (row_of[k] < 0) continue;
                const float g = gate[k];
                MjLanes y;
                mj_load_bf16(&y, args->y + (int64_t)row_of[k] * WIDTH + c, WIDTH - c);
                MJ_FOR_LANES(l) sum.v[l] = mj_fmaf(g, y.v[l], sum.v[l]);
            }
            mj_load_f32(&x, args->x + row + c, WIDTH - c);
            MJ_FOR_LANES(l) x.v[l] += sum.v[l];
            mj_store_f32(args->x_out + row + c, &x, WIDTH - c);
            MJ_FOR_LANES(l) square.v[l] = mj_fmaf(x.v[l], x.v[l], square.v[l]);
        }
        if (args->rstd == NULL) continue;
        const float rstd = mj_rsqrtf(mj_lanes_sum(&square) / (float)WIDTH + args->eps);
        if (MJ_WARP_LEADER) args->rstd[n] = rstd;
    }
}
