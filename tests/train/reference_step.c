#include "reference_step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double EPS = 1e-6, ROPE_BASE = 1e5, GAIN = 1.2;

static double *zeros(int64_t n) {
    double *p = calloc((size_t)(n > 0 ? n : 1), sizeof *p);
    if (p == NULL) abort();
    return p;
}

/* y (n, out) += x (n, in) w (out, in)^T */
static void apply(double *y, const double *x, const double *w, int n, int out, int in) {
    for (int i = 0; i < n; i++) {
        for (int o = 0; o < out; o++) {
            double s = 0;
            for (int k = 0; k < in; k++) s += x[(int64_t)i * in + k] * w[(int64_t)o * in + k];
            y[(int64_t)i * out + o] += s;
        }
    }
}

/* dx += dy w, dw += dy^T x */
static void apply_bwd(double *dx, double *dw, const double *dy, const double *x, const double *w, int n, int out, int in) {
    for (int i = 0; i < n; i++) {
        for (int o = 0; o < out; o++) {
            double d = dy[(int64_t)i * out + o];
            for (int k = 0; k < in; k++) {
                dx[(int64_t)i * in + k] += d * w[(int64_t)o * in + k];
                dw[(int64_t)o * in + k] += d * x[(int64_t)i * in + k];
            }
        }
    }
}

static double norm_row(double *y, const double *x, int w, double gain) {
    double s = 0;
    for (int i = 0; i < w; i++) s += x[i] * x[i];
    double r = 1 / sqrt(s / w + EPS);
    for (int i = 0; i < w; i++) y[i] = gain * x[i] * r;
    return r;
}

/* dx += d(gain rmsnorm)(x)^T dy */
static void norm_row_bwd(double *dx, const double *dy, const double *x, int w, double gain) {
    double s = 0, dot = 0;
    for (int i = 0; i < w; i++) s += x[i] * x[i];
    double r = 1 / sqrt(s / w + EPS);
    for (int i = 0; i < w; i++) dot += gain * dy[i] * x[i];
    for (int i = 0; i < w; i++) dx[i] += gain * dy[i] * r - x[i] * r * r * r * dot / w;
}

static void norm(double *y, const double *x, int n, int w) {
    for (int i = 0; i < n; i++) (void)norm_row(y + (int64_t)i * w, x + (int64_t)i * w, w, 1);
}

static void norm_bwd(double *dx, const double *dy, const double *x, int n, int w) {
    for (int i = 0; i < n; i++) norm_row_bwd(dx + (int64_t)i * w, dy + (int64_t)i * w, x + (int64_t)i * w, w, 1);
}

/* Rotates the pairs (i, i + D/2) of a head by pos * base^(-2i/D); back = the other way, which is the transpose. */
static void rope(double *y, const double *x, int pos, int d, int back) {
    for (int i = 0; i < d / 2; i++) {
        double a = pos * pow(ROPE_BASE, -2.0 * i / d), c = cos(a), s = back ? -sin(a) : sin(a);
        double x1 = x[i], x2 = x[i + d / 2];
        y[i] = x1 * c + x2 * s;
        y[i + d / 2] = x2 * c - x1 * s;
    }
}

typedef struct Saved {
    double *x_in, *x_mid, *h1, *qkv, *rot, *qk, *p, *att, *h2, *pre, *act; /* rot, qk: (2, n, H, D); p: (H, n, n) */
    double *score, *rpre, *ract, *ry; /* (n, E), (n, K, F), (n, K, F), (n, K, W) */
} Saved;

static void qk_forward(const RefModel *m, const RefBatch *b, Saved *s) {
    int hd = m->head_dim;
    for (int part = 0; part < 2; part++) {
        for (int i = 0; i < b->n; i++) {
            for (int h = 0; h < m->heads; h++) {
                int64_t at = (((int64_t)part * b->n + i) * m->heads + h) * hd;
                rope(s->rot + at, s->qkv + (((int64_t)i * 3 + part) * m->heads + h) * hd, b->pos[i], hd, 0);
                (void)norm_row(s->qk + at, s->rot + at, hd, GAIN);
            }
        }
    }
}

static int first_key(const RefBatch *b, int i, int window) {
    int sequence = i - b->pos[i], windowed = i - window + 1;
    return windowed > sequence ? windowed : sequence;
}

static void attention(const RefModel *m, const RefBatch *b, Saved *s, int window) {
    int hd = m->head_dim, hs = m->heads, n = b->n;
    for (int h = 0; h < hs; h++) {
        for (int i = 0; i < n; i++) {
            double *p = s->p + ((int64_t)h * n + i) * n, top = -1e300, sum = 0;
            const double *q = s->qk + ((int64_t)i * hs + h) * hd;
            int from = first_key(b, i, window);
            for (int j = from; j <= i; j++) {
                const double *k = s->qk + (((int64_t)n + j) * hs + h) * hd;
                p[j] = 0;
                for (int d = 0; d < hd; d++) p[j] += q[d] * k[d];
                p[j] /= sqrt(hd);
                if (p[j] > top) top = p[j];
            }
            for (int j = from; j <= i; j++) sum += p[j] = exp(p[j] - top);
            for (int j = from; j <= i; j++) {
                p[j] /= sum;
                for (int d = 0; d < hd; d++) {
                    s->att[((int64_t)i * hs + h) * hd + d] += p[j] * s->qkv[(((int64_t)j * 3 + 2) * hs + h) * hd + d];
                }
            }
        }
    }
}

static void attention_bwd(const RefModel *m, const RefBatch *b, const Saved *s, const double *datt, double *dqkv, int window) {
    int hd = m->head_dim, hs = m->heads, n = b->n;
    double *dqk = zeros((int64_t)2 * n * hs * hd), *dp = zeros(n), *drot = zeros(hd), *back = zeros(hd);
    for (int h = 0; h < hs; h++) {
        for (int i = 0; i < n; i++) {
            const double *p = s->p + ((int64_t)h * n + i) * n, *go = datt + ((int64_t)i * hs + h) * hd;
            int from = first_key(b, i, window);
            double dot = 0;
            for (int j = from; j <= i; j++) {
                dp[j] = 0;
                for (int d = 0; d < hd; d++) {
                    int64_t v = (((int64_t)j * 3 + 2) * hs + h) * hd + d;
                    dp[j] += go[d] * s->qkv[v];
                    dqkv[v] += go[d] * p[j];
                }
                dot += dp[j] * p[j];
            }
            for (int j = from; j <= i; j++) {
                double ds = p[j] * (dp[j] - dot) / sqrt(hd);
                int64_t q = ((int64_t)i * hs + h) * hd, k = (((int64_t)n + j) * hs + h) * hd;
                for (int d = 0; d < hd; d++) {
                    dqk[q + d] += ds * s->qk[k + d];
                    dqk[k + d] += ds * s->qk[q + d];
                }
            }
        }
    }
    for (int part = 0; part < 2; part++) {
        for (int i = 0; i < n; i++) {
            for (int h = 0; h < hs; h++) {
                int64_t at = (((int64_t)part * n + i) * hs + h) * hd;
                memset(drot, 0, (size_t)hd * sizeof *drot);
                norm_row_bwd(drot, dqk + at, s->rot + at, hd, GAIN);
                rope(back, drot, b->pos[i], hd, 1);
                for (int d = 0; d < hd; d++) dqkv[(((int64_t)i * 3 + part) * hs + h) * hd + d] += back[d];
            }
        }
    }
    free(dqk);
    free(dp);
    free(drot);
    free(back);
}

static void relu2(double *y, const double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] * x[i] : 0;
}

static void relu2_bwd(double *dx, const double *dy, const double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) dx[i] = x[i] > 0 ? 2 * x[i] * dy[i] : 0;
}

static void scores(const RefModel *m, const RefLayer *l, const double *h2, const double *w, double *score, int n) {
    memset(score, 0, (size_t)n * (size_t)m->experts * sizeof *score);
    apply(score, h2, w + l->router, n, m->experts, m->width);
    for (int64_t i = 0; i < (int64_t)n * m->experts; i++) score[i] = 1 / (1 + exp(-score[i]));
}

/* Gate of slot k of token i; `sum` is what the chosen scores were divided by. */
static double gate_of(const RefModel *m, const RefLayer *l, const Saved *s, int i, int k, double *sum) {
    *sum = 1;
    if (m->normalize_gates) {
        *sum = 0;
        for (int j = 0; j < m->top_k; j++) *sum += s->score[(int64_t)i * m->experts + l->expert[i * m->top_k + j]];
    }
    return s->score[(int64_t)i * m->experts + l->expert[i * m->top_k + k]] / *sum;
}

static void moe(const RefModel *m, const RefLayer *l, Saved *s, const double *w, double *x_out, int n) {
    int wd = m->width, f = m->hidden;
    scores(m, l, s->h2, w, s->score, n);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < m->top_k; k++) {
            int e = l->expert[i * m->top_k + k];
            if (e < 0) continue;
            int64_t slot = (int64_t)i * m->top_k + k;
            double sum, g = gate_of(m, l, s, i, k, &sum);
            apply(s->rpre + slot * f, s->h2 + (int64_t)i * wd, w + l->up + (int64_t)e * f * wd, 1, f, wd);
            relu2(s->ract + slot * f, s->rpre + slot * f, f);
            apply(s->ry + slot * wd, s->ract + slot * f, w + l->down + (int64_t)e * wd * f, 1, wd, f);
            for (int d = 0; d < wd; d++) x_out[(int64_t)i * wd + d] += g * s->ry[slot * wd + d];
        }
    }
}

static void gate_bwd(const RefModel *m, const RefLayer *l, const Saved *s, int i, const double *dgate, double *dlogit) {
    double mix = 0, sum = 1;
    for (int k = 0; k < m->top_k; k++) mix += dgate[k] * gate_of(m, l, s, i, k, &sum);
    for (int k = 0; k < m->top_k; k++) {
        int e = l->expert[i * m->top_k + k];
        double sc = s->score[(int64_t)i * m->experts + e];
        double ds = m->normalize_gates ? (dgate[k] - mix) / sum : dgate[k];
        dlogit[e] += ds * sc * (1 - sc);
    }
}

static void moe_bwd(const RefModel *m, const RefLayer *l, const Saved *s, const double *w, double *g, const double *dx,
                    double *dh2, int n) {
    int wd = m->width, f = m->hidden;
    double *dy = zeros(wd), *dact = zeros(f), *dpre = zeros(f), *dgate = zeros(m->top_k), *dlogit = zeros(m->experts);
    for (int i = 0; i < n; i++) {
        memset(dlogit, 0, (size_t)m->experts * sizeof *dlogit);
        for (int k = 0; k < m->top_k; k++) {
            int e = l->expert[i * m->top_k + k];
            int64_t slot = (int64_t)i * m->top_k + k, up = l->up + (int64_t)e * f * wd, down = l->down + (int64_t)e * wd * f;
            double sum, gate = gate_of(m, l, s, i, k, &sum);
            dgate[k] = 0;
            for (int d = 0; d < wd; d++) {
                dgate[k] += dx[(int64_t)i * wd + d] * s->ry[slot * wd + d];
                dy[d] = gate * dx[(int64_t)i * wd + d];
            }
            memset(dact, 0, (size_t)f * sizeof *dact);
            apply_bwd(dact, g + down, dy, s->ract + slot * f, w + down, 1, wd, f);
            relu2_bwd(dpre, dact, s->rpre + slot * f, f);
            apply_bwd(dh2 + (int64_t)i * wd, g + up, dpre, s->h2 + (int64_t)i * wd, w + up, 1, f, wd);
        }
        gate_bwd(m, l, s, i, dgate, dlogit);
        apply_bwd(dh2 + (int64_t)i * wd, g + l->router, dlogit, s->h2 + (int64_t)i * wd, w + l->router, 1, m->experts, wd);
    }
    free(dy);
    free(dact);
    free(dpre);
    free(dgate);
    free(dlogit);
}

static void open_saved(const RefModel *m, Saved *s, int n) {
    int64_t nw = (int64_t)n * m->width, nk = (int64_t)n * m->top_k;
    s->x_mid = zeros(nw);
    s->h1 = zeros(nw);
    s->qkv = zeros(3 * nw);
    s->rot = zeros(2 * nw);
    s->qk = zeros(2 * nw);
    s->p = zeros((int64_t)m->heads * n * n);
    s->att = zeros(nw);
    s->h2 = zeros(nw);
    s->pre = zeros((int64_t)n * m->ffn_hidden);
    s->act = zeros((int64_t)n * m->ffn_hidden);
    s->score = zeros((int64_t)n * m->experts);
    s->rpre = zeros(nk * m->hidden);
    s->ract = zeros(nk * m->hidden);
    s->ry = zeros(nk * m->width);
}

static void close_saved(Saved *s) {
    double *all[] = {s->x_in, s->x_mid, s->h1, s->qkv, s->rot, s->qk, s->p, s->att, s->h2, s->pre, s->act, s->score,
                     s->rpre, s->ract, s->ry};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* Takes s->x_in; returns x_out. */
static double *layer_forward(const RefModel *m, const RefLayer *l, const RefBatch *b, Saved *s, const double *w) {
    int n = b->n, wd = m->width;
    double *x_out = zeros((int64_t)n * wd);
    norm(s->h1, s->x_in, n, wd);
    apply(s->qkv, s->h1, w + l->qkv, n, 3 * wd, wd);
    qk_forward(m, b, s);
    attention(m, b, s, l->window);
    memcpy(s->x_mid, s->x_in, (size_t)n * (size_t)wd * sizeof *x_out);
    apply(s->x_mid, s->att, w + l->wo, n, wd, wd);
    norm(s->h2, s->x_mid, n, wd);
    memcpy(x_out, s->x_mid, (size_t)n * (size_t)wd * sizeof *x_out);
    if (m->ffn_hidden > 0) {
        apply(s->pre, s->h2, w + l->ffn_up, n, m->ffn_hidden, wd);
        relu2(s->act, s->pre, (int64_t)n * m->ffn_hidden);
        apply(x_out, s->act, w + l->ffn_down, n, wd, m->ffn_hidden);
    }
    if (m->experts > 0) moe(m, l, s, w, x_out, n);
    return x_out;
}

/* dx: gradient of x_out on entry, of x_in on return. */
static void layer_backward(const RefModel *m, const RefLayer *l, const RefBatch *b, const Saved *s, const double *w,
                           double *g, double *dx) {
    int n = b->n, wd = m->width, f = m->ffn_hidden;
    int64_t nw = (int64_t)n * wd;
    double *dh2 = zeros(nw), *dact = zeros((int64_t)n * f), *dpre = zeros((int64_t)n * f);
    double *datt = zeros(nw), *dqkv = zeros(3 * nw), *dh1 = zeros(nw);
    if (f > 0) {
        apply_bwd(dact, g + l->ffn_down, dx, s->act, w + l->ffn_down, n, wd, f);
        relu2_bwd(dpre, dact, s->pre, (int64_t)n * f);
        apply_bwd(dh2, g + l->ffn_up, dpre, s->h2, w + l->ffn_up, n, f, wd);
    }
    if (m->experts > 0) moe_bwd(m, l, s, w, g, dx, dh2, n);
    norm_bwd(dx, dh2, s->x_mid, n, wd);
    apply_bwd(datt, g + l->wo, dx, s->att, w + l->wo, n, wd, wd);
    attention_bwd(m, b, s, datt, dqkv, l->window);
    apply_bwd(dh1, g + l->qkv, dqkv, s->h1, w + l->qkv, n, 3 * wd, wd);
    norm_bwd(dx, dh1, s->x_in, n, wd);
    double *all[] = {dh2, dact, dpre, datt, dqkv, dh1};
    for (int i = 0; i < 6; i++) free(all[i]);
}

/* Mean loss; dh (n, W) and the head's gradient when g is not NULL. */
static double loss(const RefModel *m, const RefBatch *b, const double *h, const double *w, double *g, double *dh) {
    int v = m->vocab, wd = m->width, targets = 0;
    double sum = 0, *z = zeros(v), *dz = zeros(v);
    for (int i = 0; i < b->n; i++) targets += b->target[i] >= 0;
    for (int i = 0; i < b->n; i++) {
        if (b->target[i] < 0) continue;
        memset(z, 0, (size_t)v * sizeof *z);
        apply(z, h + (int64_t)i * wd, w + m->head, 1, v, wd);
        double total = 0;
        for (int j = 0; j < v; j++) total += exp(m->softcap * tanh(z[j] / m->softcap));
        sum += log(total) - m->softcap * tanh(z[b->target[i]] / m->softcap);
        if (g == NULL) continue;
        for (int j = 0; j < v; j++) {
            double t = tanh(z[j] / m->softcap);
            dz[j] = (exp(m->softcap * t) / total - (j == b->target[i])) * (1 - t * t) / targets;
        }
        apply_bwd(dh + (int64_t)i * wd, g + m->head, dz, h + (int64_t)i * wd, w + m->head, 1, v, wd);
    }
    free(z);
    free(dz);
    return targets > 0 ? sum / targets : 0;
}

static void ends_backward(const RefModel *m, const RefBatch *b, const double *embedded, const double *x_last,
                          const double *dh, const RefLayer *layers, const Saved *s, const double *w, double *g) {
    int n = b->n, wd = m->width;
    double *dx = zeros((int64_t)n * wd), *de = zeros((int64_t)n * wd);
    norm_bwd(dx, dh, x_last, n, wd);
    for (int i = m->depth - 1; i >= 0; i--) layer_backward(m, &layers[i], b, &s[i], w, g, dx);
    norm_bwd(de, dx, embedded, n, wd);
    for (int i = 0; i < n; i++) {
        for (int d = 0; d < wd; d++) g[m->embedding + (int64_t)b->token[i] * wd + d] += de[(int64_t)i * wd + d];
    }
    free(dx);
    free(de);
}

double ref_step(const RefModel *m, const RefBatch *b, const double *w, double *g) {
    int n = b->n, wd = m->width;
    int64_t nw = (int64_t)n * wd;
    Saved s[REF_MAX_DEPTH] = {0};
    double *embedded = zeros(nw), *x = zeros(nw), *h = zeros(nw), *dh = zeros(nw);
    for (int i = 0; i < n; i++) {
        memcpy(embedded + (int64_t)i * wd, w + m->embedding + (int64_t)b->token[i] * wd, (size_t)wd * sizeof *x);
    }
    norm(x, embedded, n, wd);
    for (int i = 0; i < m->depth; i++) {
        open_saved(m, &s[i], n);
        s[i].x_in = x;
        x = layer_forward(m, &m->layers[i], b, &s[i], w);
    }
    norm(h, x, n, wd);
    double mean = loss(m, b, h, w, g, dh);
    if (g != NULL) ends_backward(m, b, embedded, x, dh, m->layers, s, w, g);
    for (int i = 0; i < m->depth; i++) close_saved(&s[i]);
    free(embedded);
    free(x);
    free(h);
    free(dh);
    return mean;
}

static double layer_violation(const RefModel *m, const RefLayer *l, const Saved *s, int n) {
    double worst = 0;
    for (int i = 0; i < n; i++) {
        double lowest = 1e300, highest = -1e300;
        for (int e = 0; e < m->experts; e++) {
            bool chosen = false;
            for (int k = 0; k < m->top_k; k++) chosen |= l->expert[i * m->top_k + k] == e;
            double v = s->score[(int64_t)i * m->experts + e];
            if (chosen && v < lowest) lowest = v;
            if (!chosen && v > highest) highest = v;
        }
        if (highest - lowest > worst) worst = highest - lowest;
    }
    return worst;
}

double ref_routing_violation(const RefModel *m, const RefBatch *b, const double *w) {
    int n = b->n, wd = m->width;
    double worst = 0, *embedded = zeros((int64_t)n * wd), *x = zeros((int64_t)n * wd);
    for (int i = 0; i < n; i++) {
        memcpy(embedded + (int64_t)i * wd, w + m->embedding + (int64_t)b->token[i] * wd, (size_t)wd * sizeof *x);
    }
    norm(x, embedded, n, wd);
    for (int i = 0; i < m->depth && m->experts > 0; i++) {
        Saved s = {0};
        open_saved(m, &s, n);
        s.x_in = x;
        x = layer_forward(m, &m->layers[i], b, &s, w);
        double v = layer_violation(m, &m->layers[i], &s, n);
        if (v > worst) worst = v;
        close_saved(&s);
    }
    free(embedded);
    free(x);
    return worst;
}
