/* How the router is cut into blocks on a GPU, shared by its template and the host. A token's sums are the same in any tile. */
#ifndef MJ_ROUTER_TILE_H
#define MJ_ROUTER_TILE_H

#define MJ_ROUTER_THREADS 128
#define MJ_ROUTER_TOKENS 128 /* of a block: 32 a warp */
#define MJ_ROUTER_EXPERTS 64 /* at a time */
#define MJ_ROUTER_DEPTH 64   /* columns of weights in shared memory at a time */
#define MJ_ROUTER_TERMS_BYTES (MJ_ROUTER_EXPERTS * MJ_ROUTER_DEPTH * 3 * 2) /* weights as three bf16 terms */
#define MJ_ROUTER_WEIGHT_BYTES (MJ_ROUTER_EXPERTS * MJ_ROUTER_DEPTH * 4)              /* and in f32, as they arrive */
#define MJ_ROUTER_ROW_BYTES (MJ_ROUTER_TOKENS * MJ_ROUTER_DEPTH * 2)                  /* as many columns of the tokens' rows */
#define MJ_ROUTER_ROW_STAGES 3
#define MJ_ROUTER_BYTES (MJ_ROUTER_TERMS_BYTES + MJ_ROUTER_WEIGHT_BYTES + MJ_ROUTER_ROW_STAGES * MJ_ROUTER_ROW_BYTES)

/* dx: a block of this many threads has all weights in shared memory, a smaller one leaves them where they are. */
#define MJ_ROUTER_BWD_X_THREADS 1024
/* Shapes that have it so on every GPU (96 KB, 64 tokens for each of 256 multiprocessors): bound, they compile no other way. */
#define MJ_ROUTER_BWD_X_SHARES(width, experts, tokens) \
    ((width) % 128 == 0 && (int64_t)(experts) * (width) <= 96 * 1024 / 4 && (tokens) >= 64 * 256)
/* The gradient of the weights: a block has 64 experts, 128 columns and a chunk of tokens, 64 of them in shared memory at a time. */
#define MJ_ROUTER_BWD_TOKENS 512
#define MJ_ROUTER_BWD_STEP 64
#define MJ_ROUTER_BWD_COLUMNS 128
#define MJ_ROUTER_BWD_TERMS_BYTES (MJ_ROUTER_EXPERTS * MJ_ROUTER_BWD_STEP * 3 * 2)
#define MJ_ROUTER_BWD_ROWS_BYTES (MJ_ROUTER_BWD_STEP * MJ_ROUTER_BWD_COLUMNS * 2)
#define MJ_ROUTER_BWD_BYTES (MJ_ROUTER_BWD_TERMS_BYTES + 2 * MJ_ROUTER_BWD_ROWS_BYTES)

#endif
