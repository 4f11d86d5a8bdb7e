// mj:template saxpy
// mj:doc y = a x + y: the smallest template, for examples and tests of the public interface.
// mj:family cpu cuda
// mj:kernel saxpy
// mj:args SaxpyArgs
// mj:param N varying min:1

typedef struct SaxpyArgs {
    const float *x; /* (N) */
    float *y;       /* (N) */
    float a;
    int32_t n;
} SaxpyArgs;

MJ_KERNEL(saxpy, SaxpyArgs)
{
    MJ_FOR_ROWS(chunk, (N + 127) / 128) {
        const int32_t c = chunk * 128;
        MjLanes x, y;
        mj_load_f32(&x, args->x + c, N - c);
        mj_load_f32(&y, args->y + c, N - c);
        MJ_FOR_LANES(l) y.v[l] = mj_fmaf(args->a, x.v[l], y.v[l]);
        mj_store_f32(args->y + c, &y, N - c);
    }
}
