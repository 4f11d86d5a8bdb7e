// mj:template permute_bwd
// mj:doc Gradient of permute: dx[n] = sum over k of dout[row_of[n][k]], k ascending.
// mj:family cpu cuda
// mj:kernel permute_bwd
// mj:args MjPermuteBwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOP_K fixed min:1 max:32
// mj:param TOKENS varying min:1

MJ_KERNEL(permute_bwd, MjPermuteBwdArgs)
{
    MJ_FOR_ROWS(n, TOKENS) {
        const int32_t *row_of = args->row_of + (int64_t)n * TOP_K;
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes sum = mj_lanes_zero();
            for (int32_t k = 0; k < TOP_K; k++) {
                if (row_of[k] < 0) continue;
                MjLanes d;
                mj_load_bf16(&d, args->dout + (int64_t)row_of[k] * WIDTH + c, WIDTH - c);
                MJ_FOR_LANES(l) sum.v[l] += d.v[l];
            }
            mj_store_bf16(args->dx + (int64_t)n * WIDTH + c, &sum, WIDTH - c);
        }
    }
}
