// mj:template router_fwd_cpu
// mj:doc Sigmoid router: scores in f32, top-k of score + bias, gates are the scores of the chosen.
// mj:family cpu
// mj:kernel router_fwd_cpu
// mj:args MjRouterFwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param EXPERTS fixed min:1 max:512
// mj:param TOP_K fixed min:1 max:32
// mj:param TOKENS varying min:1

/* scratch of a warp: what the choice is made by, (EXPERTS) */
MJ_FN void choose(const MjRouterFwdArgs *args, int32_t n, float *key)
{
    const float *score = args->score + (int64_t)n * EXPERTS;
    int32_t *expert = args->expert + (int64_t)n * TOP_K;
    float *gate = args->gate + (int64_t)n * TOP_K;
    float sum = 0.0f;
    for (int32_t k = 0; k < TOP_K; k++) {
        int32_t best = 0;
        for (int32_t e = 1; e < EXPERTS; e++) best = key[e] > key[best] ? e : best;
        key[best] = -3.4e38f;
        expert[k] = best;
        gate[k] = score[best];
        sum += score[best];
    }
    if (!args->normalize) return;
    for (int32_t k = 0; k < TOP_K; k++) gate[k] /= sum;
}

MJ_FN void add_product(MjLanes *acc, const MjLanes *x, const float *weight, int32_t left)
{
    MjLanes w;
    mj_load_f32(&w, weight, left);
    MJ_FOR_LANES(l) acc->v[l] = mj_fmaf(x->v[l], w.v[l], acc->v[l]);
}

MJ_FN void set_score(const MjRouterFwdArgs *args, int32_t n, int32_t e, float score, float *key)
{
    if (!MJ_WARP_LEADER) return;
    args->score[(int64_t)n * EXPERTS + e] = score;
    key[e] = score + args->bias[e];
}

MJ_KERNEL(router_fwd_cpu, MjRouterFwdArgs)
{
    float *key = (float *)mj_shared + MJ_WARP_INDEX * EXPERTS;
    const int32_t tokens_live = args->live[0];
    MJ_FOR_ROWS(n, TOKENS) {
        const bool live = n < tokens_live;
        const uint16_t *row = args->x + (int64_t)n * WIDTH;
        int32_t e = 0;
        for (; live && e + 4 <= EXPERTS; e += 4) { /* four share the loads of x */
            MjLanes acc[4];
            for (int32_t j = 0; j < 4; j++) acc[j] = mj_lanes_zero();
            MJ_FOR_CHUNKS(c, WIDTH) {
                MjLanes x;
                mj_load_bf16(&x, row + c, WIDTH - c);
                for (int32_t j = 0; j < 4; j++) add_product(&acc[j], &x, args->weight + (int64_t)(e + j) * WIDTH + c, WIDTH - c);
            }
            for (int32_t j = 0; j < 4; j++) set_score(args, n, e + j, mj_sigmoidf(mj_lanes_sum(&acc[j])), key);
        }
        for (; e < EXPERTS; e++) {
            MjLanes acc = mj_lanes_zero();
            MJ_FOR_CHUNKS(c, live ? WIDTH : 0) {
                MjLanes x;
                mj_load_bf16(&x, row + c, WIDTH - c);
                add_product(&acc, &x, args->weight + (int64_t)e * WIDTH + c, WIDTH - c);
            }
            set_score(args, n, e, live ? mj_sigmoidf(mj_lanes_sum(&acc)) : 0.0f, key);
        }
        if (!MJ_WARP_LEADER) continue; /* the choice is short and serial, so that ties fall the same way everywhere */
        if (live) {
            choose(args, n, key);
        } else {
            for (int32_t k = 0; k < TOP_K; k++) {
                args->expert[(int64_t)n * TOP_K + k] = -1;
                args->gate[(int64_t)n * TOP_K + k] = 0.0f;
            }
        }
    }
}
