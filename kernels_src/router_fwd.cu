// mj:template router_fwd
// mj:doc Sigmoid router: scores in f32, top-k of score + bias, gates are the scores of the chosen.
// mj:family cpu cuda
// mj:kernel router_fwd
// mj:args MjRouterFwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param EXPERTS fixed min:1 max:512
// mj:param TOP_K fixed min:1 max:32
// mj:param TOKENS varying min:1

#if MJ_CPU
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

MJ_KERNEL(router_fwd, MjRouterFwdArgs)
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
#else
/* A warp takes 4 tokens and 4 experts at a time: a weight that is loaded serves 4 tokens, and 16 sums are found together. */
#define TILE 4
#define LEFT(c) (WIDTH % 128 == 0 ? MJ_WHOLE : WIDTH - (c))

MJ_FN void halve_sums(MjLanes acc[16], const int32_t half)
{
    const bool upper = (MJ_LANE & (2 * half)) != 0;
    _Pragma("unroll") for (int32_t i = 0; i < half; i++) {
        MJ_FOR_LANES(l) {
            const float mine = upper ? acc[i + half].v[l] : acc[i].v[l], theirs = upper ? acc[i].v[l] : acc[i + half].v[l];
            acc[i].v[l] = mine + __shfl_xor_sync(0xffffffffu, theirs, 2 * half);
        }
    }
}

/* Lane l gets mj_lanes_sum of acc[l / 2]: the same tree, in each step of which a lane hands over the half of the sums that
 * it stops working on. */
MJ_FN float sums_of_16(MjLanes acc[16])
{
    halve_sums(acc, 8);
    halve_sums(acc, 4);
    halve_sums(acc, 2);
    halve_sums(acc, 1);
    const bool odd = (MJ_LANE & 1) != 0; /* odd lanes have columns 2 and 3, even ones 0 and 1 */
    const float a = (odd ? acc[0].v[2] : acc[0].v[0]) + __shfl_xor_sync(0xffffffffu, odd ? acc[0].v[0] : acc[0].v[2], 1);
    const float b = (odd ? acc[0].v[3] : acc[0].v[1]) + __shfl_xor_sync(0xffffffffu, odd ? acc[0].v[1] : acc[0].v[3], 1);
    const float pair = a + b;
    return pair + __shfl_xor_sync(0xffffffffu, pair, 1);
}

/* score(TILE, EXPERTS) of tokens n0 .. n0 + 3, in shared memory */
MJ_FN void score_tile(const MjRouterFwdArgs *args, int32_t n0, int32_t live, float *score)
{
    for (int32_t e0 = 0; e0 < EXPERTS; e0 += TILE) {
        MjLanes acc[TILE * TILE];
        _Pragma("unroll") for (int32_t i = 0; i < TILE * TILE; i++) acc[i] = mj_lanes_zero();
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes x[TILE], w[TILE];
            _Pragma("unroll") for (int32_t i = 0; i < TILE; i++) { /* past the end: the last again, and never looked at */
                const int32_t n = n0 + i < TOKENS ? n0 + i : TOKENS - 1, e = e0 + i < EXPERTS ? e0 + i : EXPERTS - 1;
                mj_load_bf16(&x[i], args->x + (int64_t)n * WIDTH + c, LEFT(c));
                mj_load_f32(&w[i], args->weight + (int64_t)e * WIDTH + c, LEFT(c));
            }
            _Pragma("unroll") for (int32_t i = 0; i < TILE; i++)
                _Pragma("unroll") for (int32_t j = 0; j < TILE; j++)
                    MJ_FOR_LANES(l) acc[i * TILE + j].v[l] = mj_fmaf(x[i].v[l], w[j].v[l], acc[i * TILE + j].v[l]);
        }
        const float s = mj_sigmoidf(sums_of_16(acc));
        const int32_t i = MJ_LANE / 2 / TILE, e = e0 + MJ_LANE / 2 % TILE;
        if (MJ_LANE % 2 == 0 && e < EXPERTS) score[i * EXPERTS + e] = n0 + i < live ? s : 0.0f;
    }
    __syncwarp();
    for (int32_t i = MJ_LANE; i < TILE * EXPERTS; i += 32)
        if (n0 + i / EXPERTS < TOKENS) args->score[(int64_t)n0 * EXPERTS + i] = score[i];
}

/* The warp chooses for one token: the largest key that was not taken, of equals the first; NaN last. */
MJ_FN void choose(const MjRouterFwdArgs *args, int32_t n, const float *score, float *key)
{
    float sum = 0.0f, mine = 0.0f;
    int32_t chosen = 0;
    for (int32_t e = MJ_LANE; e < EXPERTS; e += 32) {
        const float k = score[e] + args->bias[e];
        key[e] = k == k ? k : -3.4e38f;
    }
    for (int32_t k = 0; k < TOP_K; k++) {
        float best = -mj_bits_f32(0x7f800000u);
        int32_t at = EXPERTS;
        for (int32_t e = MJ_LANE; e < EXPERTS; e += 32)
            if (key[e] > best) best = key[e], at = e;
        for (int32_t by = 16; by > 0; by /= 2) {
            const float other = __shfl_xor_sync(0xffffffffu, best, by);
            const int32_t there = __shfl_xor_sync(0xffffffffu, at, by);
            if (other > best || (other == best && there < at)) best = other, at = there;
        }
        if (at % 32 == MJ_LANE) key[at] = -mj_bits_f32(0x7f800000u); /* read by this lane alone */
        const float s = score[at];
        sum += s;
        if (k == MJ_LANE) mine = s, chosen = at;
    }
    if (MJ_LANE >= TOP_K) return;
    args->expert[(int64_t)n * TOP_K + MJ_LANE] = chosen;
    args->gate[(int64_t)n * TOP_K + MJ_LANE] = args->normalize ? mine / sum : mine;
}

MJ_KERNEL(router_fwd, MjRouterFwdArgs)
{
    const int32_t live = args->live[0];
    float *score = (float *)mj_shared + MJ_WARP_INDEX * (TILE + 1) * EXPERTS, *key = score + TILE * EXPERTS;
    MJ_FOR_ROWS(group, (TOKENS + TILE - 1) / TILE) {
        const int32_t n0 = group * TILE;
        score_tile(args, n0, live, score);
        for (int32_t i = 0; i < TILE && n0 + i < TOKENS; i++) {
            if (n0 + i < live) {
                choose(args, n0 + i, score + i * EXPERTS, key);
            } else if (MJ_LANE < TOP_K) {
                args->expert[(int64_t)(n0 + i) * TOP_K + MJ_LANE] = -1;
                args->gate[(int64_t)(n0 + i) * TOP_K + MJ_LANE] = 0.0f;
            }
        }
        __syncwarp(); /* before the scores are used again */
    }
}
#endif
