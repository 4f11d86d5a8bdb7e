/* See gemm_pieces.h. */
#include "ops/gemm_pieces.h"

#include <stdlib.h>

#include "ops/tile_choice.h"

/* Adding the pieces: what part of a card's memory rate an elementwise kernel reaches, and what one more launch costs. */
#define ADD_RATE 0.6
#define LAUNCH_SECONDS 3e-6
#define GAIN 0.95 /* of the whole product's time: less is not worth a workspace */

static double add_seconds(const MjCard *card, const MjGemmArgs *a, int32_t pieces)
{
    return LAUNCH_SECONDS + (pieces + 2.0) * a->m * a->n * (double)sizeof(float) / (ADD_RATE * card->memory_bytes_s);
}

/* By the model, as the cheapest candidate; 0 where there is none. */
static int gemm_seconds(MjOps *ops, const MjGemmArgs *a, double *out, MjError *err)
{
    const MjOpBinding *binding;
    MjRequest asked, chosen;
    MjTileCandidate *list;
    int n, rc = mj_op_request(ops, MJ_OP_GEMM, a, &binding, &asked, &chosen, err);
    if (rc == MJ_ERR_MISSING) mj_error_clear(err);
    if (rc == MJ_ERR_MISSING || (rc == 0 && (binding->matrix == NULL || binding->matrix->cost == NULL))) {
        *out = 0.0;
        return 0;
    }
    if (rc != 0) return rc;
    for (int i = 0; i < binding->tmpl->n_params; i++) /* whatever `mojit tune` forces */
        if (binding->tmpl->params[i].kind == MJ_PARAM_TUNING) asked.values[i] = MJ_UNBOUND;
    rc = mj_tile_candidates(binding->matrix, binding->tmpl, mj_jit_target(ops->jit), NULL, a, asked.values, &list, &n, err);
    if (rc != 0) return rc;
    *out = list[0].cost.seconds;
    free(list);
    return 0;
}

/* MOJIT_PIECES; 0: as the model says. */
static int wanted(int32_t *out, MjError *err)
{
    const char *text = getenv("MOJIT_PIECES");
    char *end;
    *out = 0;
    if (text == NULL || text[0] == '\0') return 0;
    const long n = strtol(text, &end, 10);
    if (*end != '\0' || n < 1 || n > MJ_PIECES_MOST)
        return mj_error(err, MJ_ERR_USAGE, "MOJIT_PIECES=%s: expected a number of pieces from 1 to %d", text, MJ_PIECES_MOST);
    *out = (int32_t)n;
    return 0;
}

int mj_gemm_pieces(MjOps *ops, const MjGemmArgs *whole, MjPieces *out, MjError *err)
{
    const MjCard *card = mj_card_of(ops->arch);
    MjPieces best = {.pieces = 1};
    double least = 0.0, seconds;
    int32_t asked;
    int rc = wanted(&asked, err);
    if (rc == 0 && ops->family != MJ_FAMILY_CPU && !mj_gemm_library_rule(ops->dense, whole)) rc = gemm_seconds(ops, whole, &least, err);
    least *= GAIN;
    for (int32_t n = 2; rc == 0 && least > 0.0 && n <= MJ_PIECES_MOST; n++) {
        const int32_t rows = (whole->k + n * MJ_GROUP_ALIGN - 1) / (n * MJ_GROUP_ALIGN) * MJ_GROUP_ALIGN;
        MjGemmArgs a = *whole;
        if ((n - 1) * rows >= whole->k) break; /* nothing left for the last */
        a.group = MJ_GROUP_K;
        a.experts = n;
        a.piece = rows;
        a.k = n * rows;
        a.epilogue = MJ_EPI_STORE;
        rc = gemm_seconds(ops, &a, &seconds, err);
        if (rc != 0 || seconds == 0.0) break;
        seconds += add_seconds(card, &a, n);
        if (asked != 0 ? n != asked : seconds >= least) continue;
        least = seconds;
        best = (MjPieces){.pieces = n, .rows = rows};
    }
    if (rc == 0) *out = best;
    return rc;
}
