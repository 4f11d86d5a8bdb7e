// mj:template saxpy
// mj:doc y = a x + y (or y - a x), ROWS rows of WIDTH floats. For the tests of the JIT.
// mj:family cpu cuda
// mj:kernel saxpy
// mj:args SaxpyArgs
// mj:param WIDTH fixed min:8 max:4096 multiple:8
// mj:param ROWS varying min:1
// mj:param NEGATE variant values:0,1
// mj:param UNROLL tuning default:4 values:1,4

typedef struct SaxpyArgs {
    const float *x; /* (ROWS, WIDTH) */
    float *y;       /* (ROWS, WIDTH) */
    float a;
    int32_t width, rows;
} SaxpyArgs;

MJ_KERNEL(saxpy, SaxpyArgs)
{
    const float a = NEGATE ? -args->a : args->a;
    MJ_FOR_ROWS(r, ROWS) {
        MJ_FOR_CHUNKS(c, WIDTH) {
            MjLanes x, y;
            mj_load_f32(&x, args->x + (int64_t)r * WIDTH + c, WIDTH - c);
            mj_load_f32(&y, args->y + (int64_t)r * WIDTH + c, WIDTH - c);
            MJ_FOR_LANES(l) y.v[l] = mj_fmaf(a, x.v[l], y.v[l]);
            mj_store_f32(args->y + (int64_t)r * WIDTH + c, &y, WIDTH - c);
        }
    }
}
