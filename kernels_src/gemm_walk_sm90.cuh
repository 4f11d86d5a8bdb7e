/* The order of tiles in Hopper's GEMM templates. Every role of a block walks it by itself: the tiles of block b are b,
 * b + grid, ...; where the experts' rows start and end is read on the device. Neighbouring tiles share rows and columns,
 * so that what the blocks read at one time fits the L2 cache: a band of tiles down, then a column on.
 * Part of gemm_core_sm90.cuh. */
#ifndef MJ_GEMM_WALK_SM90_CUH
#define MJ_GEMM_WALK_SM90_CUH

/* Tiles of 192 rows ran fastest on an H100 in bands of 4, but for weight gradients; those of 256 in bands of 8. */
#define MJ_GEMM_BAND (BAND > 0 ? BAND : TILE_M == 192 && LAYOUT != MJ_GEMM_TN ? 4 : 8)

struct MjGemmTile {
    int32_t row, row_end;   /* of A and C; row_end: of the group */
    int32_t column;         /* may be past N in a cluster's last block */
    int32_t expert;
    int32_t depth_at;       /* first row summed over; 0 unless GROUP_K */
    int32_t blocks;         /* stages; 0: C gets zeros */
    int32_t scaled_columns; /* of the tile that are inside N */
};

struct MjGemmWalk {
    int32_t tile;          /* the next one of this cluster */
    int32_t expert, first; /* GROUP_M: where the walk stands, and the number of that expert's first tile */
};

MJ_FN MjGemmWalk mj_gemm_walk(void)
{
    MjGemmWalk w = {(int32_t)(blockIdx.x / CLUSTER), 0, 0};
    return w;
}

MJ_FN bool mj_gemm_next(const MjGemmArgs *args, MjGemmWalk *w, MjGemmTile *t)
{
    const int32_t across = (N + TILE_N * CLUSTER - 1) / (TILE_N * CLUSTER);
    int32_t down = (M + TILE_M - 1) / TILE_M, tile = w->tile, begin = 0;

    t->expert = 0;
    t->depth_at = 0;
    if (GROUP == MJ_GROUP_M) {
        for (;; w->expert++) {
            if (w->expert == EXPERTS) return false;
            begin = args->offset[w->expert];
            t->row_end = args->offset[w->expert + 1];
            down = (t->row_end - begin + TILE_M - 1) / TILE_M;
            if (tile < w->first + down * across) break;
            w->first += down * across;
        }
        t->expert = w->expert;
        tile -= w->first;
    } else {
        if (tile >= down * across * (GROUP == MJ_GROUP_K ? EXPERTS : 1)) return false;
        if (GROUP == MJ_GROUP_K) {
            t->expert = tile / (down * across);
            tile -= t->expert * (down * across);
        }
        t->row_end = M;
    }
    const int32_t band = tile / (MJ_GEMM_BAND * across), rest = tile - band * MJ_GEMM_BAND * across;
    const int32_t high = down - band * MJ_GEMM_BAND < MJ_GEMM_BAND ? down - band * MJ_GEMM_BAND : MJ_GEMM_BAND;
    const int32_t x = rest / high, y = band * MJ_GEMM_BAND + rest - x * high;
    t->row = begin + y * TILE_M;
    t->column = (x * CLUSTER + (CLUSTER > 1 ? (int32_t)mj_ptx_cluster_rank() : 0)) * TILE_N;
    t->scaled_columns = N - t->column < TILE_N ? (N > t->column ? N - t->column : 0) : TILE_N;
    t->blocks = (K + MJ_GEMM_DEPTH - 1) / MJ_GEMM_DEPTH;
    if (GROUP == MJ_GROUP_M && y * TILE_M >= args->count[t->expert]) t->blocks = 0; /* all padding */
    if (GROUP == MJ_GROUP_K) {
        t->depth_at = MJ_GROUP_FIRST(args, t->expert);
        t->blocks = (MJ_GROUP_LENGTH(args, t->expert, K) + MJ_GEMM_DEPTH - 1) / MJ_GEMM_DEPTH;
    }
    w->tile += (int32_t)(gridDim.x / CLUSTER);
    return true;
}

#endif
