// mj:template router_bwd_cpu
// mj:doc Gradient of the router: dgate to dlogit and dx, then dweight by chunks of 256 tokens.
// mj:family cpu
// mj:kernel router_bwd_x
// mj:kernel router_bwd_partial
// mj:kernel router_bwd_weight
// mj:args MjRouterBwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param EXPERTS fixed min:1 max:512
// mj:param TOP_K fixed min:1 max:32
// mj:param TOKENS varying min:1

#define CHUNK_TOKENS 256
#define LEFT(c) (WIDTH % 128 == 0 ? MJ_WHOLE : WIDTH - (c))

/* gate_k = s_k / S: ds_k = (dgate_k - sum_j dgate_j gate_j) / S; not normalised: ds_k = dgate_k. Then through the sigmoid. */
MJ_FN float score_gradient(const MjRouterBwdArgs *args, int32_t n, int32_t k)
{
    const int32_t *expert = args->expert + (int64_t)n * TOP_K;
    const float *gate = args->gate + (int64_t)n * TOP_K;
    const float *dgate = args->dgate + (int64_t)n * TOP_K;
    const float *score = args->score + (int64_t)n * EXPERTS;
    float ds = dgate[k];
    if (args->normalize) {
        float sum = 0.0f, along = 0.0f;
        for (int32_t j = 0; j < TOP_K; j++) {
            sum += score[expert[j]];
            along = mj_fmaf(dgate[j], gate[j], along);
        }
        ds = (ds - along) / sum;
    }
    const float s = score[expert[k]];
    return ds * s * (1.0f - s);
}

MJ_KERNEL(router_bwd_x, MjRouterBwdArgs)
{
    const int32_t tokens_live = args->live[0];
    MJ_FOR_ROWS(n, TOKENS) {
        const int32_t *expert = args->expert + (int64_t)n * TOP_K;
        float *dlogit = args->dlogit + (int64_t)n * EXPERTS;
        const bool live = n < tokens_live && expert[0] >= 0;
        mj_warp_sync();
        MJ_FOR_WARP_LANES(e, EXPERTS) dlogit[e] = 0.0f;
        mj_warp_sync();
        MJ_FOR_WARP_LANES(k, live ? TOP_K : 0) dlogit[expert[k]] = score_gradient(args, n, k);
        mj_warp_sync();
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes dx = mj_lanes_zero();
            for (int32_t k = 0; live && k < TOP_K; k++) {
                const float d = dlogit[expert[k]];
                MjLanes w;
                mj_load_f32(&w, args->weight + (int64_t)expert[k] * WIDTH + c, LEFT(c));
                MJ_FOR_LANES(l) dx.v[l] = mj_fmaf(d, w.v[l], dx.v[l]);
            }
            mj_store_bf16(args->dx + (int64_t)n * WIDTH + c, &dx, LEFT(c));
        }
    }
}

/* acc += dlogit[n][e] x[n] for the tokens from first to last, n ascending; most tokens chose other experts */
MJ_FN void add_chunk(MjLanes *acc, const MjRouterBwdArgs *args, int32_t first, int32_t last, int32_t e, int32_t c)
{
    for (int32_t n = first; n < last; n++) {
        const float d = args->dlogit[(int64_t)n * EXPERTS + e];
        if (d == 0.0f) continue;
        MjLanes x;
        mj_load_bf16(&x, args->x + (int64_t)n * WIDTH + c, LEFT(c));
        MJ_FOR_LANES(l) acc->v[l] = mj_fmaf(d, x.v[l], acc->v[l]);
    }
}

/* partial[t][e] = sum over the tokens of chunk t of dlogit[n][e] x[n], n ascending */
MJ_KERNEL(router_bwd_partial, MjRouterBwdArgs)
{
    const int32_t strips = (WIDTH + MJ_CHUNK - 1) / MJ_CHUNK;
    const int32_t chunks = (TOKENS + CHUNK_TOKENS - 1) / CHUNK_TOKENS;
    MJ_FOR_ROWS(item, chunks * EXPERTS * strips) {
        const int32_t c = item % strips * MJ_CHUNK;
        const int32_t e = item / strips % EXPERTS;
        const int32_t t = item / strips / EXPERTS;
        const int32_t first = t * CHUNK_TOKENS;
        const int32_t last = first + CHUNK_TOKENS < TOKENS ? first + CHUNK_TOKENS : TOKENS;
        MjLanes acc = mj_lanes_zero();
        add_chunk(&acc, args, first, last, e, c);
        mj_store_f32(args->partial + ((int64_t)t * EXPERTS + e) * WIDTH + c, &acc, LEFT(c));
    }
}

MJ_KERNEL(router_bwd_weight, MjRouterBwdArgs)
{
    const int32_t strips = (WIDTH + MJ_CHUNK - 1) / MJ_CHUNK;
    const int32_t chunks = (TOKENS + CHUNK_TOKENS - 1) / CHUNK_TOKENS;
    MJ_FOR_ROWS(item, EXPERTS * strips) {
        const int32_t c = item % strips * MJ_CHUNK;
        const int64_t at = (int64_t)(item / strips) * WIDTH + c;
        MjLanes acc = mj_lanes_zero(), sum;
        MJ_UNROLL_BY(8) for (int32_t t = 0; t < chunks; t++) {
            MjLanes x;
            mj_load_f32(&x, args->partial + (int64_t)t * EXPERTS * WIDTH + at, LEFT(c));
            MJ_FOR_LANES(l) acc.v[l] += x.v[l];
        }
        mj_load_f32(&sum, args->dweight + at, LEFT(c));
        MJ_FOR_LANES(l) sum.v[l] += acc.v[l];
        mj_store_f32(args->dweight + at, &sum, LEFT(c));
    }
}
