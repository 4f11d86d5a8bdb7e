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
    (void)args;
    return t * CHUNK_TOKENS * TOP_K;
}
MJ_FN int32_t last_slot(const MjRouteMapArgs *args, int32_t t)
{
    int32_t last = (t + 1) * CHUNK_TOKENS;
    last = last < args->live[0] ? last : args->live[0];
    last = last < TOKENS ? last : TOKENS;
    return last * TOP_K;
}

/* scratch[t][e] = slots of chunk t that ask for e. A thread owns the experts that it counts. */
MJ_KERNEL(route_map_count, MjRouteMapArgs)
{
    MJ_FOR_ITEMS(t, CHUNKS) {
        int32_t *counts = args->scratch + (int64_t)t * EXPERTS;
        const int32_t last = last_slot(args, t);
#if MJ_CPU
        for (int32_t e = 0; e < EXPERTS; e++) counts[e] = 0;
        for (int32_t s = first_slot(args, t); s < last; s++)
            if (args->expert[s] >= 0) counts[args->expert[s]]++;
#else
        MJ_FOR_THREADS(e, EXPERTS) {
            int32_t found = 0;
            for (int32_t s = first_slot(args, t); s < last; s++) found += args->expert[s] == e;
            counts[e] = found;
        }
#endif
    }
}

/* One block: scratch[t][e] becomes the rank of the chunk's first slot within e; then counts, offsets, statistics. */
MJ_KERNEL(route_map_scan, MjRouteMapArgs)
{
    if (mj_block != 0) return;
    MJ_FOR_THREADS(e, EXPERTS) {
        int32_t rank = 0;
        for (int32_t t = 0; t < CHUNKS; t++) {
            int32_t *slot = args->scratch + (int64_t)t * EXPERTS + e;
            const int32_t here = *slot;
            *slot = rank;
            rank += here;
        }
        args->demand[e] = rank;
    }
    mj_barrier();
    if (!MJ_BLOCK_LEADER) return;
    int32_t offset = 0, used = 0, dropped = 0, largest = args->stats[3];
    for (int32_t e = 0; e < EXPERTS; e++) {
        const int32_t demand = args->demand[e];
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
    const int32_t row = rank < args->count[e] ? args->offset[e] + rank : -1;
    args->row_of[slot] = row;
    if (row >= 0) args->slot_of[row] = slot;
}

MJ_KERNEL(route_map_place, MjRouteMapArgs)
{
    MJ_FOR_ITEMS(t, CHUNKS) {
        int32_t *rank = args->scratch + (int64_t)t * EXPERTS;
        const int32_t last = last_slot(args, t);
        const int32_t end = (t + 1) * CHUNK_TOKENS < TOKENS ? (t + 1) * CHUNK_TOKENS * TOP_K : TOKENS * TOP_K;
#if MJ_CPU
        for (int32_t s = first_slot(args, t); s < last; s++) {
            const int32_t e = args->expert[s];
            if (e >= 0) {
                place(args, s, e, rank[e]++);
            } else {
                args->row_of[s] = -1;
            }
        }
#else
        MJ_FOR_THREADS(e, EXPERTS) {
            int32_t next = rank[e];
            for (int32_t s = first_slot(args, t); s < last; s++)
                if (args->expert[s] == e) place(args, s, e, next++);
        }
        MJ_FOR_THREADS(i, CHUNK_TOKENS * TOP_K) {
            const int32_t s = first_slot(args, t) + i;
            if (s < last && args->expert[s] < 0) args->row_of[s] = -1;
        }
#endif
        const int32_t rest = last > first_slot(args, t) ? last : first_slot(args, t); /* tokens that are not live */
        MJ_FOR_THREADS(i, end - rest) args->row_of[rest + i] = -1;
    }
    MJ_FOR_ITEMS(e, EXPERTS + 1) { /* rows that no slot fills: after each expert's rows, and after the last expert */
        const int32_t first = e < EXPERTS ? args->offset[e] + args->count[e] : args->offset[EXPERTS];
        const int32_t end = e < EXPERTS ? args->offset[e + 1] : ROWS;
        MJ_FOR_THREADS(i, end - first) args->slot_of[first + i] = -1;
    }
}
