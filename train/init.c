/* Initial weights, decided by the seed and a tensor's number alone: embedding N(0, 0.8), head N(0, 0.001), input
 * projections and routers uniform within sqrt(3 / width) (up-projections times 0.4), output projections zero. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"
#include "train/model.h"

enum { CHUNK = 1 << 16 };

static uint64_t splitmix(uint64_t z) {
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In (0, 1), of element i of a stream. */
static double uniform(uint64_t stream, int64_t i) {
    return ((double)(splitmix(stream + 0x632be59bd9b4e019u * (uint64_t)i) >> 11) + 0.5) * 0x1p-53;
}

typedef struct Filler {
    MjModel *m;
    uint64_t seed, tensor;
    float *host; /* (CHUNK) */
    MjError *err;
} Filler;

static int fill(Filler *f, int64_t offset, int64_t n, double scale, bool normal) {
    uint64_t stream = splitmix(f->seed * 0x2545f4914f6cdd1du + ++f->tensor);
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t count = n - at < CHUNK ? n - at : CHUNK;
        for (int64_t i = 0; i < count; i++) {
            double u = uniform(stream, 2 * (at + i));
            double v = normal ? sqrt(-2 * log(u)) * cos(6.283185307179586 * uniform(stream, 2 * (at + i) + 1)) : 2 * u - 1;
            f->host[i] = (float)(scale * v);
        }
        int rc = f->m->device->ops->upload(f->m->device, f->m->master + offset + at, f->host,
                                           (size_t)count * sizeof(float), f->err);
        if (rc != 0) return rc;
    }
    return 0;
}

static int fill_weight(Filler *f, const MjWeight *w, double scale) {
    return fill(f, w->offset, (int64_t)w->experts * w->out * w->in, scale, false);
}

int mj_model_init(MjModel *m, uint64_t seed, MjError *err) {
    int rc = 0;
    const MjDims *d = &m->d;
    size_t bytes = (size_t)m->n_weights * sizeof(float);
    Filler f = {.m = m, .seed = seed, .err = err};
    f.host = mj_xmalloc(CHUNK * sizeof *f.host);
    float *all[] = {m->master, m->m, m->v, m->grad};
    for (int i = 0; i < 4; i++) MJ_TRY(m->device->ops->fill(m->device, all[i], 0, bytes, err));
    double bound = sqrt(3.0 / d->width);
    MJ_TRY(fill(&f, 0, (int64_t)d->vocab * d->width, 0.8, true));
    MJ_TRY(fill(&f, m->head_at, (int64_t)d->vocab * d->width, 0.001, true));
    for (int32_t i = 0; i < d->depth; i++) {
        MjLayer *l = &m->layers[i];
        MJ_TRY(fill_weight(&f, &l->qkv, bound));
        MJ_TRY(fill_weight(&f, &l->ffn.up, 0.4 * bound));
        MJ_TRY(fill_weight(&f, &l->moe.up, 0.4 * bound));
        if (d->experts > 0) {
            MJ_TRY(fill(&f, l->moe.router, (int64_t)d->experts * d->width, bound, false));
            MJ_TRY(m->device->ops->fill(m->device, l->moe.bias, 0, (size_t)d->experts * sizeof(float), err));
            MJ_TRY(m->device->ops->fill(m->device, l->moe.demand, 0, (size_t)d->experts * sizeof(int32_t), err));
        }
    }
    MJ_TRY(mj_model_refresh(m, err));
out:
    free(f.host);
    return rc;
}
