/* f32 numbers as sums of three bf16 ones, for the tensor cores: x rounded, the rest rounded, and the rest of that, which is
 * exact but for numbers near the ends of f32's range. A product with bf16 then loses nothing before it is added in f32. */
#ifndef MJ_BF16_TERMS_CUH
#define MJ_BF16_TERMS_CUH

/* The next term of two numbers, packed, the first in the low bits; what is left of them stays. */
MJ_FN uint32_t mj_bf16_term(float *lo, float *hi)
{
    const uint32_t pair = mj_bf16_pair(*lo, *hi);
    *lo -= mj_bits_f32(pair << 16);
    *hi -= mj_bits_f32(pair & 0xffff0000u);
    return pair;
}

#endif
