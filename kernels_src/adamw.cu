// mj:template adamw
// mj:doc AdamW with decoupled weight decay, all in f32; the gradient is zeroed after use.
// mj:family cpu cuda
// mj:kernel adamw
// mj:args MjAdamwArgs

MJ_KERNEL(adamw, MjAdamwArgs)
{
    const float beta1 = args->beta1, beta2 = args->beta2, eps = args->eps, scale = args->grad_scale;
    const float lr = args->rates[MJ_RATE_LR];
    const float keep = 1.0f - lr * args->weight_decay;
    const float step = lr / args->rates[MJ_RATE_BIAS1];
    const float inverse2 = 1.0f / args->rates[MJ_RATE_BIAS2];
    const MjLanes zero = mj_lanes_zero();
    if (!mj_guard(args->guard)) return;
    MJ_FOR_ROWS(t, (args->n + MJ_CHUNK - 1) / MJ_CHUNK) {
        const int64_t at = (int64_t)t * MJ_CHUNK;
        const int32_t left = args->n - at < MJ_CHUNK ? (int32_t)(args->n - at) : MJ_CHUNK;
        MjLanes w, m, v, g;
        mj_load_f32(&g, args->grad + at, left);
        mj_load_f32(&m, args->m + at, left);
        mj_load_f32(&v, args->v + at, left);
        mj_load_f32(&w, args->w + at, left);
        MJ_FOR_LANES(l) {
            const float d = g.v[l] * scale;
            m.v[l] = mj_fmaf(beta1, m.v[l], (1.0f - beta1) * d);
            v.v[l] = mj_fmaf(beta2, v.v[l], (1.0f - beta2) * d * d);
            const float direction = m.v[l] / (mj_sqrtf(v.v[l] * inverse2) + eps);
            w.v[l] = mj_fmaf(-step, direction, w.v[l] * keep);
        }
        mj_store_f32(args->m + at, &m, left);
        mj_store_f32(args->v + at, &v, left);
        mj_store_f32(args->w + at, &w, left);
        mj_store_f32(args->grad + at, &zero, left);
    }
}
