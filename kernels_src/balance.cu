// mj:template balance
// mj:doc Load balancing without an auxiliary loss: bias[e] += rate sign(mean(demand) - demand[e]), then centred.
// mj:family cpu cuda
// mj:kernel balance
// mj:args MjBalanceArgs
// mj:param EXPERTS fixed min:1 max:512

MJ_KERNEL(balance, MjBalanceArgs)
{
    if (mj_block != 0 || !MJ_BLOCK_LEADER || !mj_guard(args->guard)) return;
    int64_t total = 0;
    for (int32_t e = 0; e < EXPERTS; e++) total += args->demand[e];
    float mean = 0.0f;
    for (int32_t e = 0; e < EXPERTS; e++) {
        const int64_t load = (int64_t)args->demand[e] * EXPERTS; /* against total: no division, so no rounding */
        const float step = load < total ? args->rate : load > total ? -args->rate : 0.0f;
        args->bias[e] += step;
        args->demand[e] = 0; /* `total` is known */
        mean += args->bias[e];
    }
    mean /= (float)EXPERTS;
    for (int32_t e = 0; e < EXPERTS; e++) args->bias[e] -= mean;
}
