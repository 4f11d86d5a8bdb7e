// mj:template router_fwd_sm80
// mj:doc Sigmoid router by mma.sync: bf16 rows times f32 weights in three bf16 terms, then the top-k of score + bias.
// mj:family cuda
// mj:kernel router_fwd_sm80
// mj:args MjRouterFwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param EXPERTS fixed min:1 max:512
// mj:param TOP_K fixed min:1 max:32
// mj:param TOKENS varying min:1

/* Weights are three bf16 terms each; the two small ones have a sum of their own, which the large sum's rounding does not
 * touch. A warp has 32 tokens; four lanes (a quad) have the scores of a token, lane q those of columns 2 q and 2 q + 1 of
 * each 8 experts.
 *
 * The order of the 16 products that an mma adds is free as long as both operands agree: here lane q of a quad has the columns
 * 8 q .. 8 q + 7 of 32, the first four for one mma, the others for the next. So a lane reads 16 bytes of a row or a term at once.
 * Rows pass through shared memory only to be on their way early: what a thread copies, no other reads. */
#include "bf16_terms.cuh"
#include "router_tile.h"

#define FRAGS (MJ_ROUTER_EXPERTS / 8)
#define ITEMS (MJ_ROUTER_EXPERTS * MJ_ROUTER_DEPTH / 8 / MJ_ROUTER_THREADS) /* octets of weights that a thread splits */
#define FRAG_BYTES 512
#define STEP_BYTES (FRAGS * 3 * FRAG_BYTES) /* 32 columns */
#define SCORE_ROW (MJ_ROUTER_EXPERTS + 8)   /* floats; rows of a quad's neighbours lie in other banks */
#define NO_KEY (-mj_bits_f32(0x7f800000u))
#define QUAD_LANE (MJ_LANE % 4)
/* Rows of 16-byte pieces; a width of whole chunks is known to have them. */
#define IN_PIECES(p, n) (WIDTH % 128 == 0 || (WIDTH % (n) == 0 && ((uintptr_t)(p) & 15) == 0))

/* What a thread copies: of two experts' weights and of four tokens' rows (lane / 4 + 0, 8, 16, 24 of the warp's) its own
 * columns, 8 q .. 8 q + 7 of each 32. */
struct MjRouterSource {
    const float *weight[2];
    const uint16_t *x[4];
    bool has_weight[2];
};

/* Starts copying the weights of columns k .. k + DEPTH - 1; zeros past the last column or expert. */
MJ_FN void fetch_weights(const MjRouterFwdArgs *args, const MjRouterSource &from, uint32_t raw, int32_t k)
{
    _Pragma("unroll") for (int32_t j = 0; j < ITEMS; j++) {
        const int32_t column = k + j / 2 * 32, left = from.has_weight[j % 2] ? WIDTH - column - 8 * QUAD_LANE : 0;
        const float *w = from.weight[j % 2] + column;
        const uint32_t to = raw + (uint32_t)((int32_t)threadIdx.x + j * MJ_ROUTER_THREADS) * 16;
        _Pragma("unroll") for (int32_t h = 0; h < 2; h++) {
            const uint32_t at = to + (uint32_t)(h * ITEMS * MJ_ROUTER_THREADS * 16);
            if (IN_PIECES(args->weight, 4)) {
                mj_ptx_cp_async_16(at, left > 4 * h ? w + 4 * h : args->weight, left > 4 * h ? 16u : 0u);
                continue;
            }
            for (int32_t i = 4 * h; i < 4 * h + 4; i++)
                mj_ptx_cp_async_4(at + (uint32_t)(i % 4 * 4), left > i ? w + i : args->weight, left > i ? 4u : 0u);
        }
    }
    mj_ptx_cp_async_commit();
}

/* Starts copying columns k .. k + DEPTH - 1 of the rows to a stage(2 steps, 4 rows, threads, 8 bf16); zeros past the last. */
MJ_FN void fetch_rows(const MjRouterFwdArgs *args, const MjRouterSource &from, unsigned char *stage, int32_t k)
{
    unsigned char *to = stage + threadIdx.x * 16;
    _Pragma("unroll") for (int32_t i = 0; i < 8; i++, to += MJ_ROUTER_THREADS * 16) {
        const int32_t column = k + i / 4 * 32, left = WIDTH - column - 8 * QUAD_LANE;
        if (IN_PIECES(args->x, 8)) {
            mj_ptx_cp_async_16(mj_ptx_shared(to), left > 0 ? from.x[i % 4] + column : args->x, left > 0 ? 16u : 0u);
            continue;
        }
        for (int32_t c = 0; c < 8; c++) ((uint16_t *)to)[c] = left > c ? from.x[i % 4][column + c] : (uint16_t)0;
    }
    mj_ptx_cp_async_commit();
}

/* terms(2 steps, FRAGS, 3 terms, 32 lanes, 8 bf16), as the lanes of a fragment read them */
MJ_FN void split_weights(const unsigned char *raw, unsigned char *terms)
{
    _Pragma("unroll 2") for (int32_t j = 0; j < ITEMS; j++) {
        const int32_t item = (int32_t)threadIdx.x + j * MJ_ROUTER_THREADS, step = item / (4 * MJ_ROUTER_EXPERTS);
        const float4 a = *(const float4 *)(raw + item * 16), b = *(const float4 *)(raw + (item + ITEMS * MJ_ROUTER_THREADS) * 16);
        float w[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        unsigned char *to = terms + step * STEP_BYTES + item / 32 % FRAGS * 3 * FRAG_BYTES + item % 32 * 16;
        _Pragma("unroll") for (int32_t t = 0; t < 3; t++) {
            uint32_t pair[4];
            _Pragma("unroll") for (int32_t p = 0; p < 4; p++) pair[p] = mj_bf16_term(&w[2 * p], &w[2 * p + 1]);
            *(uint4 *)(to + t * FRAG_BYTES) = make_uint4(pair[0], pair[1], pair[2], pair[3]);
        }
    }
}

struct MjRouterSums { /* of 2 x 16 tokens and 64 experts, the large terms' and the small ones' */
    float large[2][FRAGS][4], small[2][FRAGS][4];
};

/* += 32 columns */
MJ_FN void add_products(const MjRouterFwdArgs *args, MjRouterSums &s, const unsigned char *rows, const unsigned char *terms, int32_t e0)
{
    (void)args; /* EXPERTS may be in it */
    mj_u32 x[4][4];
    _Pragma("unroll") for (int32_t r = 0; r < 4; r++) {
        const uint4 v = *(const uint4 *)(rows + (r * MJ_ROUTER_THREADS + (int32_t)threadIdx.x) * 16);
        x[r][0] = v.x, x[r][1] = v.y, x[r][2] = v.z, x[r][3] = v.w;
    }
    _Pragma("unroll") for (int32_t f = 0; f < FRAGS; f++) {
        if (e0 + 8 * f >= EXPERTS) break;
        _Pragma("unroll") for (int32_t t = 0; t < 3; t++) {
            const uint4 w = *(const uint4 *)(terms + (f * 3 + t) * FRAG_BYTES + MJ_LANE * 16);
            const mj_u32 b[2][2] = {{w.x, w.y}, {w.z, w.w}};
            _Pragma("unroll") for (int32_t i = 0; i < 2; i++)
                _Pragma("unroll") for (int32_t m = 0; m < 2; m++) {
                    const mj_u32 a[4] = {x[2 * i][2 * m], x[2 * i + 1][2 * m], x[2 * i][2 * m + 1], x[2 * i + 1][2 * m + 1]};
                    mj_ptx_mma_bf16(t == 0 ? s.large[i][f] : s.small[i][f], a, b[m]);
                }
        }
    }
}

/* Sums of the experts from e0, to the warp's logit(32, SCORE_ROW) in shared memory, which overlays the weights. While a part of
 * DEPTH columns is multiplied, the next part's weights and the rows of two more are on their way. */
MJ_FN void multiply(const MjRouterFwdArgs *args, const MjRouterSource &from, int32_t e0, unsigned char *shared, float *logit)
{
    unsigned char *raw = shared + MJ_ROUTER_TERMS_BYTES, *stages = raw + MJ_ROUTER_WEIGHT_BYTES;
    MjRouterSums s;
    _Pragma("unroll") for (int32_t i = 0; i < 2; i++)
        _Pragma("unroll") for (int32_t f = 0; f < FRAGS; f++)
            _Pragma("unroll") for (int32_t j = 0; j < 4; j++) s.large[i][f][j] = s.small[i][f][j] = 0.0f;
    int32_t now = 1, last = 0; /* stages: of part k, and where part k + 2 goes */
    _Pragma("unroll 1") for (int32_t k = -2 * MJ_ROUTER_DEPTH; k < WIDTH; k += MJ_ROUTER_DEPTH) { /* two turns only start copying */
        if (k >= 0) {
            mj_ptx_cp_async_wait<1>(); /* all but the rows of part k + 1 */
            __syncthreads();           /* all are done with the terms before */
            split_weights(raw, shared);
            __syncthreads();
        }
        if (k >= -MJ_ROUTER_DEPTH) fetch_weights(args, from, mj_ptx_shared(raw), k + MJ_ROUTER_DEPTH);
        fetch_rows(args, from, stages + last * MJ_ROUTER_ROW_BYTES, k + 2 * MJ_ROUTER_DEPTH);
        _Pragma("unroll 1") for (int32_t step = k < 0 ? 2 : 0; step < 2; step++) /* unrolled it takes much longer to compile */
            add_products(args, s, stages + now * MJ_ROUTER_ROW_BYTES + step * (MJ_ROUTER_ROW_BYTES / 2), shared + step * STEP_BYTES, e0);
        last = last == 2 ? 0 : last + 1;
        now = now == 2 ? 0 : now + 1;
    }
    mj_ptx_cp_async_wait<0>(); /* of zeros past the last column */
    __syncthreads(); /* all are done with the weights */
    _Pragma("unroll") for (int32_t i = 0; i < 2; i++)
        _Pragma("unroll") for (int32_t f = 0; f < FRAGS; f++) {
            if (f > 0 && e0 + 8 * f >= EXPERTS) break;
            _Pragma("unroll") for (int32_t h = 0; h < 2; h++)
                *(float2 *)(logit + (16 * i + 8 * h + MJ_LANE / 4) * SCORE_ROW + 8 * f + 2 * QUAD_LANE) =
                    make_float2(s.large[i][f][2 * h] + s.small[i][f][2 * h], s.large[i][f][2 * h + 1] + s.small[i][f][2 * h + 1]);
        }
    __syncwarp();
}

/* As mj_sigmoidf, without its division: the logit is kept where the quotient is a normal number. */
MJ_FN float sigmoid(float z)
{
    const float y = -z;
    return mj_inverse(1.0f + mj_expf_near(y > 87.0f ? 87.0f : y));
}

/* What the choice goes by; NaN last. */
MJ_FN float key_of(float score, float bias)
{
    const float key = score + bias;
    return key >= -3.4e38f ? key : -3.4e38f;
}

/* The lane's scores of token n among the experts from e0, to global and shared memory, and its keys */
MJ_FN void score_token(const MjRouterFwdArgs *args, int32_t n, int32_t live, int32_t e0, const float (&bias)[2 * FRAGS], float *logit,
                       float (&key)[2 * FRAGS])
{
    float *to = args->score + (int64_t)n * EXPERTS;
    _Pragma("unroll") for (int32_t f = 0; f < FRAGS; f++) {
        const int32_t column = 8 * f + 2 * QUAD_LANE, e = e0 + column;
        key[2 * f] = key[2 * f + 1] = NO_KEY;
        if (f > 0 && e0 + 8 * f >= EXPERTS) continue;
        const float2 z = *(const float2 *)(logit + column);
        const float a = n < live ? sigmoid(z.x) : 0.0f, b = n < live ? sigmoid(z.y) : 0.0f;
        *(float2 *)(logit + column) = make_float2(a, b);
        if (n < TOKENS && EXPERTS % 2 == 0 && e < EXPERTS) {
            *(float2 *)(to + e) = make_float2(a, b);
        } else if (n < TOKENS) {
            if (e < EXPERTS) to[e] = a;
            if (e + 1 < EXPERTS) to[e + 1] = b;
        }
        key[2 * f] = e < EXPERTS ? key_of(a, bias[2 * f]) : NO_KEY;
        key[2 * f + 1] = e + 1 < EXPERTS ? key_of(b, bias[2 * f + 1]) : NO_KEY;
    }
}

struct MjRouterChoice {
    float key;
    int32_t expert;
};

/* Keys of the experts from e0 again, those that come after `last` in the order of choice; the lane wrote their scores itself. */
MJ_FN void reload_keys(const MjRouterFwdArgs *args, int32_t n, int32_t e0, MjRouterChoice last, float (&key)[2 * FRAGS])
{
    _Pragma("unroll") for (int32_t i = 0; i < 2 * FRAGS; i++) {
        const int32_t e = e0 + i / 2 * 8 + 2 * QUAD_LANE + i % 2;
        const float k = e < EXPERTS && n < TOKENS ? key_of(args->score[(int64_t)n * EXPERTS + e], args->bias[e]) : NO_KEY;
        key[i] = k < last.key || (k == last.key && e > last.expert) ? k : NO_KEY;
    }
}

/* The quad's largest key that was not taken, of equals the first. */
MJ_FN MjRouterChoice next_choice(const MjRouterFwdArgs *args, int32_t n, MjRouterChoice last, float (&key)[2 * FRAGS])
{
    MjRouterChoice best = {NO_KEY, EXPERTS};
    for (int32_t e0 = 0; e0 < EXPERTS; e0 += MJ_ROUTER_EXPERTS) {
        if (EXPERTS > MJ_ROUTER_EXPERTS) reload_keys(args, n, e0, last, key);
        _Pragma("unroll") for (int32_t i = 0; i < 2 * FRAGS; i++)
            if (key[i] > best.key) best.key = key[i], best.expert = e0 + i / 2 * 8 + 2 * QUAD_LANE + i % 2;
    }
    _Pragma("unroll") for (int32_t by = 1; by < 4; by *= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, best.key, by);
        const int32_t there = __shfl_xor_sync(0xffffffffu, best.expert, by);
        if (other > best.key || (other == best.key && there < best.expert)) best.key = other, best.expert = there;
    }
    if (EXPERTS <= MJ_ROUTER_EXPERTS) {
        _Pragma("unroll") for (int32_t i = 0; i < 2 * FRAGS; i++)
            key[i] = best.expert == i / 2 * 8 + 2 * QUAD_LANE + i % 2 ? NO_KEY : key[i];
    }
    return best;
}

/* A quad chooses for token n; lane q writes choices 2 q and 2 q + 1 of each eight. */
MJ_FN void choose(const MjRouterFwdArgs *args, int32_t n, int32_t live, const float *score, float (&key)[2 * FRAGS])
{
    MjRouterChoice choice = {mj_bits_f32(0x7f800000u), -1};
    float sum = 0.0f;
    _Pragma("unroll 1") for (int32_t first = 0; first < TOP_K; first += 8) {
        int32_t chosen[2] = {0, 0};
        float gate[2] = {0.0f, 0.0f};
        _Pragma("unroll 1") for (int32_t k = 0; k < 8 && first + k < TOP_K; k++) {
            choice = next_choice(args, n, choice, key);
            const int32_t e = choice.expert < EXPERTS ? choice.expert : 0; /* past the last token nothing is chosen */
            const float s = EXPERTS <= MJ_ROUTER_EXPERTS ? score[e] : n < live ? args->score[(int64_t)n * EXPERTS + e] : 0.0f;
            sum += s;
            _Pragma("unroll") for (int32_t j = 0; j < 2; j++)
                if (k == 2 * QUAD_LANE + j) chosen[j] = e, gate[j] = s;
        }
        _Pragma("unroll") for (int32_t j = 0; j < 2; j++) {
            const int32_t k = first + 2 * QUAD_LANE + j;
            if (k >= TOP_K || n >= TOKENS) continue;
            args->expert[(int64_t)n * TOP_K + k] = n < live ? chosen[j] : -1;
            args->gate[(int64_t)n * TOP_K + k] = n < live ? gate[j] : 0.0f;
        }
    }
    if (!args->normalize || n >= live) return;
    for (int32_t k = 2 * QUAD_LANE; k < TOP_K; k += k % 2 == 0 ? 1 : 7) args->gate[(int64_t)n * TOP_K + k] /= sum;
}

/* What the tokens from n0 on get when none of them is live */
MJ_FN void skip_tokens(const MjRouterFwdArgs *args, int32_t n0)
{
    const int32_t tokens = TOKENS - n0 < MJ_ROUTER_TOKENS ? TOKENS - n0 : MJ_ROUTER_TOKENS;
    MJ_FOR_THREADS(i, tokens * EXPERTS) args->score[(int64_t)n0 * EXPERTS + i] = 0.0f;
    MJ_FOR_THREADS(i, tokens * TOP_K) {
        args->expert[(int64_t)n0 * TOP_K + i] = -1;
        args->gate[(int64_t)n0 * TOP_K + i] = 0.0f;
    }
}

MJ_KERNEL_BOUNDS(router_fwd_sm80, MjRouterFwdArgs, MJ_ROUTER_THREADS, 2)
{
    const int32_t n0 = (int32_t)mj_block * MJ_ROUTER_TOKENS, live = args->live[0], own = n0 + 32 * MJ_WARP_INDEX + MJ_LANE / 4;
    float *logit = (float *)mj_shared + 32 * MJ_WARP_INDEX * SCORE_ROW;
    if (n0 >= live) {
        skip_tokens(args, n0);
        return;
    }
    MjRouterSource from;
    _Pragma("unroll") for (int32_t r = 0; r < 4; r++) { /* past the end: the last again, and never looked at */
        const int32_t n = own + 8 * r < TOKENS ? own + 8 * r : TOKENS - 1;
        from.x[r] = args->x + (int64_t)n * WIDTH + 8 * QUAD_LANE;
    }
    _Pragma("unroll 1") for (int32_t e0 = 0; e0 < EXPERTS; e0 += MJ_ROUTER_EXPERTS) {
        if (e0 > 0) __syncthreads(); /* the weights go where the scores are */
        _Pragma("unroll") for (int32_t h = 0; h < 2; h++) {
            const int32_t e = e0 + (int32_t)threadIdx.x / 4 + 32 * h;
            from.has_weight[h] = e < EXPERTS;
            from.weight[h] = args->weight + (int64_t)(e < EXPERTS ? e : 0) * WIDTH + 8 * QUAD_LANE;
        }
        multiply(args, from, e0, (unsigned char *)mj_shared, logit);
        float bias[2 * FRAGS];
        _Pragma("unroll") for (int32_t i = 0; i < 2 * FRAGS; i++) {
            const int32_t e = e0 + i / 2 * 8 + 2 * QUAD_LANE + i % 2;
            bias[i] = e < EXPERTS ? args->bias[e] : 0.0f;
        }
        _Pragma("unroll 1") for (int32_t r = 0; r < 4; r++) {
            float key[2 * FRAGS], *row = logit + (8 * r + MJ_LANE / 4) * SCORE_ROW;
            score_token(args, own + 8 * r, live, e0, bias, row, key);
            __syncwarp(); /* the quad's scores */
            if (e0 + MJ_ROUTER_EXPERTS >= EXPERTS) choose(args, own + 8 * r, live, row, key);
        }
    }
}
