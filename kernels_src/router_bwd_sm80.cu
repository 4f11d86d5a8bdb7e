// mj:template router_bwd_sm80
// mj:doc Gradient of the router: dgate to dlogit and dx, then dweight by mma.sync over chunks of 512 tokens.
// mj:family cuda
// mj:kernel router_bwd_x
// mj:kernel router_bwd_partial
// mj:kernel router_bwd_weight
// mj:args MjRouterBwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param EXPERTS fixed min:1 max:512
// mj:param TOP_K fixed min:1 max:32
// mj:param TOKENS varying min:1

/* The gradient of the weights is a product over tokens: dlogit, f32 in three bf16 terms (zero where a token did not choose the
 * expert), with bf16 rows. As in router_fwd_sm80 the small terms have a sum of their own. Of a block's four warps each has 32
 * experts and 64 columns. */
#include "bf16_terms.cuh"
#include "router_tile.h"

#define CHUNK_TOKENS MJ_ROUTER_BWD_TOKENS
#define STEP MJ_ROUTER_BWD_STEP
#define COLUMNS MJ_ROUTER_BWD_COLUMNS
#define STRIPS ((WIDTH + COLUMNS - 1) / COLUMNS)
#define CHUNKS ((TOKENS + CHUNK_TOKENS - 1) / CHUNK_TOKENS)
#define FRAG_BYTES 512
#define ROW_BYTES (2 * COLUMNS)
#define ROWS_AT_ONCE (MJ_ROUTER_THREADS / (COLUMNS / 8)) /* that the block copies */
#define QUAD_LANE (MJ_LANE % 4)
#define NO_EXPERTS(i) ((i) > 0 && EXPERTS <= 16) /* in the second half of a warp's */
#define IN_PIECES (WIDTH % 128 == 0 || (WIDTH % 8 == 0 && ((uintptr_t)args->x & 15) == 0))

/* ---- dlogit and dx: a warp for a token ----------------------------------------------------------------------------- */

MJ_FN float warp_sum(float x)
{
    for (int32_t by = 16; by > 0; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
    return x;
}

/* Lane k: of the k-th choice. gate_k = s_k / S: ds_k = (dgate_k - sum_j dgate_j gate_j) / S; not normalised: ds_k = dgate_k.
 * Then through the sigmoid. */
MJ_FN float logit_gradient(const MjRouterBwdArgs *args, int32_t n, int32_t expert)
{
    const bool chosen = expert >= 0;
    const int64_t at = (int64_t)n * TOP_K + MJ_LANE;
    const float s = chosen ? args->score[(int64_t)n * EXPERTS + expert] : 0.0f;
    float ds = chosen ? args->dgate[at] : 0.0f;
    if (args->normalize) {
        const float gate = chosen ? args->gate[at] : 0.0f, sum = warp_sum(s), along = warp_sum(ds * gate);
        ds = (ds - along) / sum;
    }
    return chosen ? ds * s * (1.0f - s) : 0.0f;
}

/* One chunk of dx = sum over the choices of d w, in their order; lane k holds the k-th d and where its weights begin. A live token
 * has chosen TOP_K experts: where that is bound, no code is made for choices past it. */
MJ_FN void row_gradient(const MjRouterBwdArgs *args, const float *weight, float d, int32_t expert, bool lives, int32_t c, int32_t left,
                        uint16_t *to)
{
    MjLanes dx = mj_lanes_zero();
    (void)args; /* WIDTH and TOP_K may be in it */
    for (int32_t k = 0; k < TOP_K && lives; k += 8) {
        MjLanes w[8];
        _Pragma("unroll") for (int32_t j = 0; j < 8; j++) { /* past the last choice: it again, times nothing */
            const int32_t e = __shfl_sync(0xffffffffu, expert, k + j < TOP_K ? k + j : TOP_K - 1);
            mj_load_f32(&w[j], weight + (int64_t)e * WIDTH + c, left);
        }
        _Pragma("unroll") for (int32_t j = 0; j < 8; j++) {
            if (k + j >= TOP_K) continue;
            const float by = __shfl_sync(0xffffffffu, d, k + j);
            MJ_FOR_LANES(l) dx.v[l] = mj_fmaf(by, w[j].v[l], dx.v[l]);
        }
    }
    mj_store_bf16(to, &dx, left);
}

/* whole: rows are whole chunks */
MJ_FN void token_gradients(const MjRouterBwdArgs *args, const float *weight, bool whole, uint32_t mj_block, uint32_t mj_grid)
{
    const int32_t live = args->live[0];
    MJ_FOR_ROWS(n, TOKENS) {
        float *dlogit = args->dlogit + (int64_t)n * EXPERTS;
        uint16_t *dx = args->dx + (int64_t)n * WIDTH;
        const int32_t expert = n < live && MJ_LANE < TOP_K ? args->expert[(int64_t)n * TOP_K + MJ_LANE] : -1;
        const bool lives = __ballot_sync(0xffffffffu, expert >= 0) != 0; /* n < live, and known to be the same in all lanes */
        const float d = logit_gradient(args, n, expert);
        MJ_FOR_WARP_LANES(e, EXPERTS) dlogit[e] = 0.0f;
        __syncwarp();
        if (expert >= 0) dlogit[expert] = d;
        MJ_UNROLL_BY(1) MJ_FOR_CHUNKS(c, WIDTH) row_gradient(args, weight, d, expert, lives, c, whole ? MJ_WHOLE : WIDTH - c, dx + c);
    }
}

/* A token needs the weights of its experts: 24 KB for 8 of width 768. Where all weights fit, a block that fills a
 * multiprocessor takes them into shared memory, which is twice as fast as L1. */
MJ_KERNEL_BOUNDS(router_bwd_x, MjRouterBwdArgs, MJ_ROUTER_BWD_X_THREADS, 1)
{
    if (WIDTH % MJ_CHUNK != 0) {
        token_gradients(args, args->weight, false, mj_block, mj_grid);
    } else if (!MJ_ROUTER_BWD_X_SHARES(WIDTH, EXPERTS, TOKENS) && blockDim.x < MJ_ROUTER_BWD_X_THREADS) {
        token_gradients(args, args->weight, true, mj_block, mj_grid);
    } else {
        float4 *weight = (float4 *)mj_shared;
        for (int32_t i = (int32_t)threadIdx.x; i < EXPERTS * (WIDTH / 4); i += MJ_ROUTER_BWD_X_THREADS)
            weight[i] = ((const float4 *)args->weight)[i];
        __syncthreads();
        token_gradients(args, (const float *)mj_shared, true, mj_block, mj_grid);
    }
}

/* ---- partial[t][e] = sum over the tokens of chunk t of dlogit[n][e] x[n] ---------------------------------------------- */

/* What a thread splits, of 16 experts (its warp's number times 16) and 4 x 16 tokens from n on: its part of an A fragment,
 * rows lane / 4 and + 8, tokens 2 q, 2 q + 1 and those + 8. Past the last expert: the last one's, whose sums nobody stores. */
MJ_FN void load_gradients(const MjRouterBwdArgs *args, int32_t n, int32_t end, int32_t e0, float (&d)[STEP / 16][8])
{
    const int32_t e = e0 + 16 * MJ_WARP_INDEX + MJ_LANE / 4, first = n + 2 * QUAD_LANE;
    const float *from = args->dlogit + (int64_t)first * EXPERTS + (e < EXPERTS ? e : EXPERTS - 1);
    const int32_t up = e + 8 < EXPERTS ? 8 : e < EXPERTS ? EXPERTS - 1 - e : 0;
    _Pragma("unroll") for (int32_t s = 0; s < STEP / 16; s++)
        _Pragma("unroll") for (int32_t i = 0; i < 8; i++) {
            const int32_t token = 16 * s + i % 2 + (i >= 4 ? 8 : 0);
            d[s][i] = token < end - first ? from[token * EXPERTS + (i / 2 % 2 == 1 ? up : 0)] : 0.0f;
        }
}

/* terms(4 steps of 16 tokens, 4 x 16 experts, 3 terms, 32 lanes, 8 bf16). The code is that of one step: the others move up. */
MJ_FN void split_gradients(float (&d)[STEP / 16][8], unsigned char *terms)
{
    _Pragma("unroll 1") for (int32_t s = 0; s < STEP / 16; s++) {
        _Pragma("unroll") for (int32_t t = 0; t < 3; t++) {
            uint32_t pair[4];
            _Pragma("unroll") for (int32_t p = 0; p < 4; p++) pair[p] = mj_bf16_term(&d[0][2 * p], &d[0][2 * p + 1]);
            *(uint4 *)(terms + ((s * 4 + MJ_WARP_INDEX) * 3 + t) * FRAG_BYTES + MJ_LANE * 16) = make_uint4(pair[0], pair[1], pair[2], pair[3]);
        }
        _Pragma("unroll") for (int32_t next = 1; next < STEP / 16; next++)
            _Pragma("unroll") for (int32_t i = 0; i < 8; i++) d[next - 1][i] = d[next][i];
    }
}

/* Starts copying rows n .. n + STEP - 1 from column c on; zeros from token `end` and past the last column. A row's 16-byte
 * pieces are permuted by its number, so that eight rows of a fragment lie in different banks. */
MJ_FN void load_rows(const MjRouterBwdArgs *args, int32_t n, int32_t end, int32_t c, unsigned char *rows)
{
    const int32_t piece = (int32_t)threadIdx.x % (COLUMNS / 8), column = c + 8 * piece, first = (int32_t)threadIdx.x / (COLUMNS / 8);
    _Pragma("unroll 4") for (int32_t k = 0; k < STEP / ROWS_AT_ONCE; k++) {
        const int32_t r = first + k * ROWS_AT_ONCE, left = n + r < end ? WIDTH - column : 0;
        const uint16_t *from = args->x + (left > 0 ? (int64_t)(n + r) * WIDTH + column : 0);
        unsigned char *to = rows + r * ROW_BYTES + ((piece ^ (first & 7)) << 4); /* 8 rows at once, or more of them */
        if (IN_PIECES) {
            mj_ptx_cp_async_16(mj_ptx_shared(to), from, left > 0 ? 16u : 0u);
            continue;
        }
        for (int32_t i = 0; i < 8; i++) ((uint16_t *)to)[i] = left > i ? from[i] : (uint16_t)0;
    }
    mj_ptx_cp_async_commit();
}

struct MjRouterSums { /* of 32 experts and 64 columns, the large terms' and the small ones' */
    float large[2][8][4], small[2][8][4];
};

/* += STEP tokens, for the warp's half of the experts and of the columns */
MJ_FN void add_products(const MjRouterBwdArgs *args, MjRouterSums &sums, const unsigned char *terms, uint32_t rows, int32_t half_e, int32_t half_c)
{
    (void)args; /* EXPERTS may be in it */
    _Pragma("unroll 1") for (int32_t s = 0; s < STEP / 16; s++) {
        mj_u32 a[2][3][4];
        _Pragma("unroll") for (int32_t i = 0; i < 2; i++)
            _Pragma("unroll") for (int32_t t = 0; t < 3; t++) {
                if (NO_EXPERTS(i)) continue;
                const uint4 v = *(const uint4 *)(terms + ((s * 4 + 2 * half_e + i) * 3 + t) * FRAG_BYTES + MJ_LANE * 16);
                a[i][t][0] = v.x, a[i][t][1] = v.y, a[i][t][2] = v.z, a[i][t][3] = v.w;
            }
        _Pragma("unroll") for (int32_t f = 0; f < 8; f += 2) {
            const int32_t row = 16 * s + MJ_LANE % 16, piece = 8 * half_c + f + MJ_LANE / 16;
            mj_u32 v[4];
            mj_ptx_ldmatrix_x4_trans(v, rows + (uint32_t)(row * ROW_BYTES + ((piece ^ (row & 7)) << 4)));
            const mj_u32 b[2][2] = {{v[0], v[1]}, {v[2], v[3]}};
            _Pragma("unroll") for (int32_t i = 0; i < 2; i++)
                _Pragma("unroll") for (int32_t t = 0; t < 3; t++)
                    _Pragma("unroll") for (int32_t j = 0; j < 2; j++)
                        if (!NO_EXPERTS(i)) mj_ptx_mma_bf16(t == 0 ? sums.large[i][f + j] : sums.small[i][f + j], a[i][t], b[j]);
        }
    }
}

MJ_FN void store_sums(const MjRouterBwdArgs *args, const MjRouterSums &s, int32_t t, int32_t e0, int32_t c0)
{
    _Pragma("unroll") for (int32_t i = 0; i < 2; i++)
        _Pragma("unroll") for (int32_t h = 0; h < 2; h++) {
            const int32_t e = e0 + 16 * i + 8 * h + MJ_LANE / 4;
            if (NO_EXPERTS(i) || e >= EXPERTS) continue;
            float *to = args->partial + ((int64_t)t * EXPERTS + e) * WIDTH;
            _Pragma("unroll") for (int32_t f = 0; f < 8; f++) {
                const int32_t c = c0 + 8 * f + 2 * QUAD_LANE;
                const float a = s.large[i][f][2 * h] + s.small[i][f][2 * h], b = s.large[i][f][2 * h + 1] + s.small[i][f][2 * h + 1];
                if (WIDTH % 2 == 0) {
                    if (WIDTH % COLUMNS == 0 || c < WIDTH) *(uint64_t *)(to + c) = (uint64_t)mj_f32_bits(b) << 32 | mj_f32_bits(a);
                    continue;
                }
                if (c < WIDTH) to[c] = a;
                if (c + 1 < WIDTH) to[c + 1] = b;
            }
        }
}

MJ_KERNEL_BOUNDS(router_bwd_partial, MjRouterBwdArgs, MJ_ROUTER_THREADS, 2)
{
    const int32_t item = (int32_t)mj_block, c = item % STRIPS * COLUMNS, t = item / STRIPS % CHUNKS, e0 = EXPERTS <= MJ_ROUTER_EXPERTS ? 0 : item / STRIPS / CHUNKS * MJ_ROUTER_EXPERTS;
    const int32_t live = args->live[0], first = t * CHUNK_TOKENS, end = first + CHUNK_TOKENS < live ? first + CHUNK_TOKENS : live;
    const int32_t half_e = MJ_WARP_INDEX % 2, half_c = MJ_WARP_INDEX / 2;
    unsigned char *terms = (unsigned char *)mj_shared, *rows = terms + MJ_ROUTER_BWD_TERMS_BYTES;
    MjRouterSums s;
    float d[STEP / 16][8];
    _Pragma("unroll") for (int32_t i = 0; i < 2; i++)
        _Pragma("unroll") for (int32_t f = 0; f < 8; f++)
            _Pragma("unroll") for (int32_t j = 0; j < 4; j++) s.large[i][f][j] = s.small[i][f][j] = 0.0f;
    int32_t n = first - STEP; /* the first turn only starts copying; it comes even where no token of the chunk lives */
    _Pragma("unroll 1") do {
        const int32_t odd = (n - first) / STEP & 1;
        mj_ptx_cp_async_wait<0>();
        __syncthreads(); /* the rows have come; all are done with the terms and the rows before */
        if (n >= first) split_gradients(d, terms);
        if (n + STEP < end) {
            load_rows(args, n + STEP, end, c, rows + (odd ^ 1) * MJ_ROUTER_BWD_ROWS_BYTES);
            load_gradients(args, n + STEP, end, e0, d);
        }
        __syncthreads();
        if (n >= first) add_products(args, s, terms, mj_ptx_shared(rows) + (uint32_t)(odd * MJ_ROUTER_BWD_ROWS_BYTES), half_e, half_c);
        n += STEP;
    } while (n < end);
    store_sums(args, s, t, e0 + 32 * half_e, c + 64 * half_c);
}

/* ---- dweight += the chunks, in order ------------------------------------------------------------------------------------ */

MJ_FN void add_chunks(const MjRouterBwdArgs *args, int64_t at, int32_t left)
{
    MjLanes acc = mj_lanes_zero(), sum;
    mj_load_f32(&sum, args->dweight + at, left);
    MJ_UNROLL_BY(8) for (int32_t t = 0; t < CHUNKS; t++) {
        MjLanes x;
        mj_load_f32(&x, args->partial + (int64_t)t * EXPERTS * WIDTH + at, left);
        MJ_FOR_LANES(l) acc.v[l] += x.v[l];
    }
    MJ_FOR_LANES(l) sum.v[l] += acc.v[l];
    mj_store_f32(args->dweight + at, &sum, left);
}

MJ_KERNEL(router_bwd_weight, MjRouterBwdArgs)
{
    MJ_FOR_ROWS(item, EXPERTS * STRIPS) {
        const int32_t c = item % STRIPS * COLUMNS;
        const int64_t at = (int64_t)(item / STRIPS) * WIDTH + c;
        if (WIDTH % MJ_CHUNK == 0) {
            add_chunks(args, at, MJ_WHOLE);
        } else {
            add_chunks(args, at, WIDTH - c);
        }
    }
}
