/* The loader: cuts token files into sequences and hands them out as flat micro-batches, in an order that the seed
 * decides. Owns the index of sequences. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"
#include "train/data.h"

typedef struct Sequence {
    int64_t start; /* in the file */
    int32_t file;
    int32_t len;   /* inputs; the target of the last one lies at start + len */
} Sequence;

struct MjLoader {
    const MjTokens *tokens;
    MjLoaderOptions opt;
    Sequence *items;
    int64_t indexed, n, cap, next, epoch; /* n of the indexed ones are handed out */
    int64_t *order;
};

static void add(MjLoader *l, int file, int64_t start, int64_t len) {
    if (l->n == l->cap) {
        l->cap = l->cap == 0 ? 1024 : 2 * l->cap;
        l->items = mj_xrealloc(l->items, (size_t)l->cap * sizeof *l->items);
    }
    l->items[l->n++] = (Sequence){.start = start, .file = file, .len = (int32_t)len};
}

/* [first, end) with a target for all but the last: pieces of at most T inputs. */
static void add_pieces(MjLoader *l, int file, int64_t first, int64_t end, bool whole_only) {
    int64_t t = l->opt.seq_len;
    for (int64_t at = first; at < end - 1; at += t) {
        int64_t len = end - 1 - at < t ? end - 1 - at : t;
        if (whole_only && len < t) break;
        add(l, file, at, len);
    }
}

static void index_file(MjLoader *l, int file) {
    MjTokenFileInfo info;
    mj_tokens_file_info(l->tokens, file, &info);
    if (l->opt.packing == MJ_PACKING_FULL) {
        add_pieces(l, file, 0, info.tokens, true);
        return;
    }
    int64_t first = 0;
    for (int64_t i = 1; i <= info.tokens; i++) {
        if (i < info.tokens && mj_tokens_get(l->tokens, file, i) != info.bos) continue;
        add_pieces(l, file, first, i, false);
        first = i;
    }
}

static uint64_t splitmix(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Fisher-Yates from the seed and the epoch alone. */
static void shuffle(MjLoader *l) {
    for (int64_t i = 0; i < l->n; i++) l->order[i] = l->opt.shuffle ? i : i * l->indexed / l->n;
    if (!l->opt.shuffle) return;
    uint64_t state = l->opt.seed * 0x2545f4914f6cdd1du + (uint64_t)l->epoch;
    for (int64_t i = l->n - 1; i > 0; i--) {
        int64_t j = (int64_t)(splitmix(&state) % (uint64_t)(i + 1));
        int64_t keep = l->order[i];
        l->order[i] = l->order[j];
        l->order[j] = keep;
    }
}

int mj_loader_open(const MjTokens *tokens, const MjLoaderOptions *options, MjLoader **out, MjError *err) {
    MjLoader *l = mj_xcalloc(1, sizeof *l);
    l->tokens = tokens;
    l->opt = *options;
    for (int f = 0; f < mj_tokens_files(tokens); f++) index_file(l, f);
    if (l->n == 0) {
        MjTokenFileInfo info;
        mj_tokens_file_info(tokens, 0, &info);
        mj_loader_close(l);
        return mj_error(err, MJ_ERR_DATA, "%s: %lld tokens hold not one row of train.seq_len + 1 = %d tokens; lower "
                        "train.seq_len, pack more text, or set data.packing = docs", info.path, (long long)info.tokens,
                        options->seq_len + 1);
    }
    l->indexed = l->n;
    if (!options->shuffle && options->limit > 0 && options->limit < l->n) l->n = options->limit;
    l->order = mj_xmalloc((size_t)l->n * sizeof *l->order);
    shuffle(l);
    *out = l;
    return 0;
}

void mj_loader_close(MjLoader *l) {
    if (l == NULL) return;
    free(l->items);
    free(l->order);
    free(l);
}

int64_t mj_loader_sequences(const MjLoader *l) { return l->n; }

void mj_loader_rewind(MjLoader *l) {
    l->next = 0;
    if (l->epoch != 0) {
        l->epoch = 0;
        shuffle(l);
    }
}

/* NULL at the end of an evaluation. */
static const Sequence *take(MjLoader *l) {
    if (l->next == l->n) {
        if (!l->opt.shuffle) return NULL;
        l->next = 0;
        l->epoch++;
        shuffle(l);
    }
    return &l->items[l->order[l->next++]];
}

static int append(const MjLoader *l, const Sequence *s, MjBatch *b, MjError *err) {
    MjTokenFileInfo info;
    mj_tokens_file_info(l->tokens, s->file, &info);
    uint32_t current = mj_tokens_get(l->tokens, s->file, s->start);
    for (int32_t i = 0; i < s->len; i++) {
        uint32_t next = mj_tokens_get(l->tokens, s->file, s->start + i + 1);
        uint32_t largest = next > current ? next : current;
        if (largest >= (uint32_t)l->opt.vocab) {
            return mj_error(err, MJ_ERR_DATA, "%s: token %u near position %lld is outside of model.vocab = %d; set model.vocab "
                            "to the tokenizer's size", info.path, largest, (long long)(s->start + i), l->opt.vocab);
        }
        int32_t at = b->tokens++;
        bool hidden = l->opt.skip_bos && next == info.bos;
        b->token[at] = (int32_t)current;
        b->pos[at] = i;
        b->target[at] = hidden ? -1 : (int32_t)next;
        b->targets += !hidden;
        current = next;
    }
    return 0;
}

int mj_loader_next(MjLoader *l, MjBatch *batch, MjError *err) {
    batch->tokens = batch->targets = 0;
    for (int32_t i = 0; i < l->opt.batch; i++) {
        const Sequence *s = take(l);
        if (s == NULL) break;
        int rc = append(l, s, batch, err);
        if (rc != 0) return rc;
    }
    return 0;
}

int32_t mj_loader_skip(MjLoader *l) {
    int32_t sum = 0;
    for (int32_t i = 0; i < l->opt.batch; i++) {
        const Sequence *s = take(l);
        if (s == NULL) break;
        sum += s->len;
    }
    return sum;
}
