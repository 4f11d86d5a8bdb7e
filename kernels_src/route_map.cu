// mj:template route_map
// mj:doc Routed layout without sorting: count by chunks of 256 tokens, scan, place; rows of an expert in token order.
// mj:family cpu cuda
// mj:kernel route_map_count
// mj:kernel route_map_scan
// mj:kernel route_map_place
// mj:args MjRouteMapArgs
// mj:param EXPERTS fixed min:1 max:512
// mj:param TOP_K fixed min:1 max:32
// mj:param TOKENS varying min:1
// mj:param ROWS varying min:128 multiple:128

#define CHUNK_TOKENS 256
#define CHUNKS ((TOKENS + CHUNK_TOKENS - 1) / CHUNK_TOKENS)

/* The slots (n * TOP_K + k) of chunk t that are live. */
MJ_FN int32_t first_slot(const MjRouteMapArgs *args, int32_t t)
{
    (void)args; /* TOP_K may be in it */
    return t * CHUNK_TOKENS * TOP_K;
}
MJ_FN int32_t last_slot(const MjRouteMapArgs *args, int32_t t)
{
    int32_t last = (t + 1) * CHUNK_TOKENS;
    last = last < args->live[0] ? last : args->live[0];
    last = last < TOKENS ? last : TOKENS;
    return last * TOP_K;
}

#if !MJ_CPU
#define WARP_SLOTS ((CHUNK_TOKENS * TOP_K / MJ_WARPS + 31) / 32 * 32)
/* A warp's part of a chunk: 32 slots at a time, in order, each lane with one. Lanes of one expert find each other. */
#define FOR_WARP_SLOTS(s, t, last)                                                                                     \
    for (int32_t s = first_slot(args, t) + MJ_WARP_INDEX * WARP_SLOTS + MJ_LANE,                                           \
                 s##_end = first_slot(args, t) + (MJ_WARP_INDEX + 1) * WARP_SLOTS;                                         \
         s - MJ_LANE < s##_end && s - MJ_LANE < (last); s += 32)

/* counts[w][e] += slots of warp w that ask for e; `counts` are zeros before */
MJ_FN void count_warp(const MjRouteMapArgs *args, int32_t t, int32_t last, int32_t *counts)
{
    int32_t *mine = counts + MJ_WARP_INDEX * EXPERTS;
    FOR_WARP_SLOTS(s, t, last) {
        const int32_t e = s < s_end && s < last ? args->expert[s] : -1;
        if (e >= 0) atomicAdd(&mine[e], 1); /* whole numbers: any order */
    }
}
#endif

/* scratch[e][t] = slots of chunk t that ask for e */
MJ_KERNEL(route_map_count, MjRouteMapArgs)
{
    int32_t *counts = (int32_t *)mj_shared; /* (MJ_WARPS, EXPERTS) */
    MJ_FOR_ITEMS(t, CHUNKS) {
        const int32_t last = last_slot(args, t);
        MJ_FOR_THREADS(i, MJ_WARPS * EXPERTS) counts[i] = 0;
        mj_barrier();
#if MJ_CPU
        for (int32_t s = first_slot(args, t); s < last; s++)
            if (args->expert[s] >= 0) counts[args->expert[s]]++;
#else
        count_warp(args, t, last, counts);
#endif
        mj_barrier();
        MJ_FOR_THREADS(e, EXPERTS) {
            int32_t sum = 0;
            for (int32_t w = 0; w < MJ_WARPS; w++) sum += counts[w * EXPERTS + e];
            args->scratch[(int64_t)e * CHUNKS + t] = sum;
        }
        mj_barrier();
    }
}

/* scratch[e][t] becomes the rank of the chunk's first slot within e; returns the slots of all chunks. A warp on a GPU. */
MJ_FN int32_t scan_expert(const MjRouteMapArgs *args, int32_t *scratch)
{
    (void)args; /* TOKENS may be in it */
    int32_t rank = 0;
#if MJ_CPU
    for (int32_t t = 0; t < CHUNKS; t++) {
        const int32_t here = scratch[t];
        scratch[t] = rank;
        rank += here;
    }
#else
    for (int32_t first = 0; first < CHUNKS; first += 256) {
        int32_t here[8];
        _Pragma("unroll") for (int32_t j = 0; j < 8; j++) {
            const int32_t t = first + 32 * j + MJ_LANE;
            here[j] = t < CHUNKS ? scratch[t] : 0;
        }
        _Pragma("unroll") for (int32_t j = 0; j < 8; j++) {
            const int32_t t = first + 32 * j + MJ_LANE;
            int32_t sum = here[j];
            for (int32_t by = 1; by < 32; by *= 2) {
                const int32_t before = __shfl_up_sync(0xffffffffu, sum, (unsigned)by);
                sum += MJ_LANE >= by ? before : 0;
            }
            if (t < CHUNKS) scratch[t] = rank + sum - here[j];
            rank += __shfl_sync(0xffffffffu, sum, 31);
        }
    }
#endif
    return rank;
}

/* One block: ranks, counts, offsets, statistics. */
MJ_KERNEL(route_map_scan, MjRouteMapArgs)
{
    if (mj_block != 0) return;
    int32_t *demands = (int32_t *)mj_shared; /* (EXPERTS) */
    MJ_FOR_WARP_ROWS(e, EXPERTS) {
        const int32_t demand = scan_expert(args, args->scratch + (int64_t)e * CHUNKS);
        if (MJ_WARP_LEADER) demands[e] = demand;
        if (MJ_WARP_LEADER && args->demand != NULL) args->demand[e] += demand;
    }
    mj_barrier();
    if (!MJ_BLOCK_LEADER) return;
    int32_t offset = 0, used = 0, dropped = 0, largest = args->stats[3];
    for (int32_t e = 0; e < EXPERTS; e++) {
        const int32_t demand = demands[e];
        const int32_t room = args->capacity > 0 ? args->capacity : ROWS - offset;
        const int32_t count = demand < room ? demand : room;
        args->count[e] = count;
        args->offset[e] = offset;
        offset += args->capacity > 0 ? args->capacity : (count + MJ_GROUP_ALIGN - 1) / MJ_GROUP_ALIGN * MJ_GROUP_ALIGN;
        used += count;
        dropped += demand - count;
        largest = count > largest ? count : largest;
    }
    args->offset[EXPERTS] = offset;
    args->stats[0] += offset - used;
    args->stats[1] += dropped;
    args->stats[2] += used;
    args->stats[3] = largest;
}

MJ_FN void place(const MjRouteMapArgs *args, int32_t slot, int32_t e, int32_t rank)
{
    const int32_t row = e >= 0 && rank < args->count[e] ? args->offset[e] + rank : -1;
    args->row_of[slot] = row;
    if (row >= 0) args->slot_of[row] = slot;
}

/* The slots of one chunk to their rows. ranks: (MJ_WARPS, EXPERTS) scratch. */
MJ_FN void place_chunk(const MjRouteMapArgs *args, int32_t t, int32_t last, int32_t *ranks)
{
#if MJ_CPU
    for (int32_t e = 0; e < EXPERTS; e++) ranks[e] = args->scratch[(int64_t)e * CHUNKS + t];
    for (int32_t s = first_slot(args, t); s < last; s++) {
        const int32_t e = args->expert[s];
        place(args, s, e, e >= 0 ? ranks[e]++ : 0);
    }
#else
    MJ_FOR_THREADS(i, MJ_WARPS * EXPERTS) ranks[i] = 0;
    mj_barrier();
    count_warp(args, t, last, ranks);
    mj_barrier();
    MJ_FOR_THREADS(e, EXPERTS) { /* counts of the warps become the rank of each warp's first slot */
        int32_t rank = args->scratch[(int64_t)e * CHUNKS + t];
        for (int32_t w = 0; w < MJ_WARPS; w++) {
            const int32_t here = ranks[w * EXPERTS + e];
            ranks[w * EXPERTS + e] = rank;
            rank += here;
        }
    }
    mj_barrier();
    int32_t *mine = ranks + MJ_WARP_INDEX * EXPERTS;
    FOR_WARP_SLOTS(s, t, last) {
        const bool inside = s < s_end && s < last;
        const int32_t e = inside ? args->expert[s] : -1;
        const uint32_t same = __match_any_sync(0xffffffffu, e);
        const int32_t before = __popc(same & ((1u << MJ_LANE) - 1u)), rank = e >= 0 ? mine[e] + before : 0;
        __syncwarp();
        if (e >= 0 && before == 0) mine[e] += __popc(same);
        __syncwarp();
        if (inside) place(args, s, e, rank);
    }
    mj_barrier();
#endif
}

MJ_KERNEL(route_map_place, MjRouteMapArgs)
{
    MJ_FOR_ITEMS(t, CHUNKS) {
        const int32_t last = last_slot(args, t);
        const int32_t end = (t + 1) * CHUNK_TOKENS < TOKENS ? (t + 1) * CHUNK_TOKENS * TOP_K : TOKENS * TOP_K;
        place_chunk(args, t, last, (int32_t *)mj_shared);
        const int32_t rest = last > first_slot(args, t) ? last : first_slot(args, t); /* tokens that are not live */
        MJ_FOR_THREADS(i, end - rest) args->row_of[rest + i] = -1;
    }
    MJ_FOR_ITEMS(e, EXPERTS + 1) { /* rows that no slot fills: after each expert's rows, and after the last expert */
        const int32_t first = e < EXPERTS ? args->offset[e] + args->count[e] : args->offset[EXPERTS];
        const int32_t end = e < EXPERTS ? args->offset[e + 1] : ROWS;
        MJ_FOR_THREADS(i, end - first) args->slot_of[first + i] = -1;
    }
}
