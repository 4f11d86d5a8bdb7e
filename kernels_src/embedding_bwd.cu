// mj:template embedding_bwd
// mj:doc Gradient of the embedding table: dtable[v] += sum of dout[n] over the tokens n of v, in order of n.
// mj:family cpu cuda
// mj:kernel embedding_bwd
// mj:args MjEmbeddingBwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOKENS varying min:1

#if MJ_CPU
/* An item owns 128 columns of the table rows v with v % PARTS = part, and walks all tokens in order: no two items write
 * the same number, so there is no atomic and the order of every sum is that of the tokens. */
#define PARTS 64

MJ_KERNEL(embedding_bwd, MjEmbeddingBwdArgs)
{
    const int32_t strips = (WIDTH + MJ_CHUNK - 1) / MJ_CHUNK;
    const int32_t live = args->live[0] < TOKENS ? args->live[0] : TOKENS;
    MJ_FOR_ROWS(item, strips * PARTS) {
        const int32_t c = item / PARTS * MJ_CHUNK;
        const int32_t part = item % PARTS;
        for (int32_t n0 = 0; n0 < live; n0 += 32) {
            uint32_t hits = MJ_WARP_MASK(i, n0 + i < live && args->token[n0 + i] % PARTS == part);
            for (; hits != 0; hits &= hits - 1) {
                const int32_t n = n0 + mj_lowest_bit(hits);
                float *sum_row = args->dtable + (int64_t)args->token[n] * WIDTH + c;
                MjLanes sum, d;
                mj_load_f32(&sum, sum_row, WIDTH - c);
                mj_load_f32(&d, args->dout + (int64_t)n * WIDTH + c, WIDTH - c);
                MJ_FOR_LANES(l) sum.v[l] += d.v[l];
                mj_store_f32(sum_row, &sum, WIDTH - c);
            }
        }
    }
}
#else
/* A block owns the table rows of its part and walks all tokens, a round at a time: its warps list the tokens that are its
 * own, in order, then each adds up some columns of the table for the whole list. The part of a row is by a hash, so that
 * neighbours spread; a row's sums are in the order of tokens whatever the part. */
#define LEFT(c) (WIDTH % 128 == 0 ? MJ_WHOLE : WIDTH - (c))
#define WARP_TOKENS 512 /* of a round */
#define BATCH 8         /* tokens whose rows are loaded together */

/* hits(WARP_TOKENS): (token's index, table row); returns how many */
MJ_FN int32_t find_hits(const MjEmbeddingBwdArgs *args, int2 *hits, int32_t first, int32_t live, uint32_t part, uint32_t parts)
{
    int32_t v[WARP_TOKENS / 32], found = 0;
    _Pragma("unroll") for (int32_t j = 0; j < WARP_TOKENS / 32; j++) {
        const int32_t n = first + 32 * j + MJ_LANE;
        v[j] = n < live ? args->token[n] : -1;
    }
    _Pragma("unroll") for (int32_t j = 0; j < WARP_TOKENS / 32; j++) {
        const bool mine = v[j] >= 0 && __umulhi((uint32_t)v[j] * 0x9e3779b1u, parts) == part;
        const uint32_t all = __ballot_sync(0xffffffffu, mine);
        if (mine) hits[found + __popc(all & ((1u << MJ_LANE) - 1u))] = make_int2(first + 32 * j + MJ_LANE, v[j]);
        found += __popc(all);
    }
    return found;
}

/* Columns from c on of `n` hits, at most BATCH. `sum` is the table's row `current` (< 0: none) on its way. */
MJ_FN int32_t add_hits(const MjEmbeddingBwdArgs *args, const int2 *hits, int32_t n, int32_t c, MjLanes *sum, int32_t current)
{
    const int32_t before = current;
    int2 hit[BATCH];
    MjLanes d[BATCH], row[BATCH];
    _Pragma("unroll") for (int32_t i = 0; i < BATCH; i++) {
        hit[i] = hits[i < n ? i : 0];
        mj_load_f32(&d[i], args->dout + (int64_t)hit[i].x * WIDTH + c, LEFT(c));
        mj_load_f32(&row[i], args->dtable + (int64_t)hit[i].y * WIDTH + c, LEFT(c));
    }
    _Pragma("unroll") for (int32_t i = 0; i < BATCH; i++) {
        if (i >= n) break;
        if (hit[i].y != current) {
            if (current >= 0) mj_store_f32(args->dtable + (int64_t)current * WIDTH + c, sum, LEFT(c));
            bool again = hit[i].y == before; /* stored since it was loaded */
            _Pragma("unroll") for (int32_t j = 0; j < i; j++) again = again || hit[j].y == hit[i].y;
            *sum = row[i];
            if (again) mj_load_f32(sum, args->dtable + (int64_t)hit[i].y * WIDTH + c, LEFT(c));
            current = hit[i].y;
        }
        MJ_FOR_LANES(l) sum->v[l] += d[i].v[l];
    }
    return current;
}

MJ_KERNEL_BOUNDS(embedding_bwd, MjEmbeddingBwdArgs, 256, 2)
{
    const int32_t live = args->live[0] < TOKENS ? args->live[0] : TOKENS;
    int32_t *found = (int32_t *)mj_shared;                    /* (8) */
    int2 *hits = (int2 *)((uint8_t *)mj_shared + 64);         /* (8, WARP_TOKENS) */
    for (int32_t first = 0; first < live; first += MJ_WARPS * WARP_TOKENS) {
        const int32_t mine = find_hits(args, hits + MJ_WARP_INDEX * WARP_TOKENS, first + MJ_WARP_INDEX * WARP_TOKENS, live, mj_block, mj_grid);
        if (MJ_WARP_LEADER) found[MJ_WARP_INDEX] = mine;
        mj_barrier();
        for (int32_t c = MJ_WARP_INDEX * MJ_CHUNK; c < WIDTH; c += MJ_WARPS * MJ_CHUNK) {
            MjLanes sum;
            int32_t current = -1;
            for (int32_t w = 0; w < MJ_WARPS; w++)
                for (int32_t i = 0; i < found[w]; i += BATCH)
                    current = add_hits(args, hits + w * WARP_TOKENS + i, found[w] - i, c, &sum, current);
            if (current >= 0) mj_store_f32(args->dtable + (int64_t)current * WIDTH + c, &sum, LEFT(c));
        }
        mj_barrier();
    }
}
#endif
