// mj:template combine_bwd
// mj:doc Gradient of combine: dy[row] = gate dx[n], dgate = y[row] . dx[n]; padding rows of dy are zeros.
// mj:family cpu cuda
// mj:kernel combine_bwd
// mj:args MjCombineBwdArgs
// mj:param WIDTH fixed min:1 max:65536
// mj:param TOP_K fixed min:1 max:32
// mj:param ROWS varying min:128 multiple:128

MJ_KERNEL(combine_bwd, MjCombineBwdArgs)
{
    const int32_t used = args->offset[args->experts] < ROWS ? args->offset[args->experts] : ROWS;
    MJ_FOR_ROWS(r, used) {
        const int32_t slot = args->slot_of[r];
        const float gate = slot >= 0 ? args->gate[slot] : 0.0f;
        MjLanes dot = mj_lanes_zero();
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes dx = mj_lanes_zero();
            if (slot >= 0) {
                MjLanes y;
                mj_load_f32(&dx, args->dx + (int64_t)(slot / TOP_K) * WIDTH + c, WIDTH - c);
                mj_load_bf16(&y, args->y + (int64_t)r * WIDTH + c, WIDTH - c);
                MJ_FOR_LANES(l) dot.v[l] = mj_fmaf(y.v[l], dx.v[l], dot.v[l]);
                MJ_FOR_LANES(l) dx.v[l] *= gate;
            }
            mj_store_bf16(args->dy + (int64_t)r * WIDTH + c, &dx, WIDTH - c);
        }
        const float sum = mj_lanes_sum(&dot);
        if (slot >= 0 && MJ_WARP_LEADER) args->dgate[slot] = sum;
    }
}
