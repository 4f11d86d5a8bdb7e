/* Owns the checks and the encoding of TMA descriptors. Rules: CUDA Driver API, "Tensor Map Object Management". */
#include "runtime/cuda_tensor_map.h"

#include "runtime/cuda_api.h"

static uint64_t type_bytes(MjTensorMapType type) {
    return type == MJ_TENSOR_MAP_U8 ? 1 : type == MJ_TENSOR_MAP_BF16 ? 2 : 4;
}

static int check_spec(const MjTensorMapSpec *s, const char *what, MjError *err) {
    static const uint64_t width[] = {0, 32, 64, 128};
    const uint64_t elem = type_bytes(s->type), row = elem * s->box[0];
    if (s->rank < 1 || s->rank > 5)
        return mj_error(err, MJ_ERR_USAGE, "tensor map %s: rank %u, must be 1 to 5", what, s->rank);
    if (((uintptr_t)s->address & 15) != 0)
        return mj_error(err, MJ_ERR_USAGE, "tensor map %s: address %p is not 16-byte aligned", what, s->address);
    for (uint32_t i = 0; i < s->rank; i++) {
        if (s->dims[i] < 1 || s->dims[i] > (uint64_t)1 << 32)
            return mj_error(err, MJ_ERR_USAGE, "tensor map %s: dimension %u is %llu, must be 1 to 2^32", what, i,
                            (unsigned long long)s->dims[i]);
        if (s->box[i] < 1 || s->box[i] > 256)
            return mj_error(err, MJ_ERR_USAGE, "tensor map %s: box %u is %u, must be 1 to 256", what, i, s->box[i]);
        if (i > 0 && (s->strides[i - 1] % 16 != 0 || s->strides[i - 1] >= (uint64_t)1 << 40))
            return mj_error(err, MJ_ERR_USAGE, "tensor map %s: stride %u is %llu bytes, must be a multiple of 16", what, i,
                            (unsigned long long)s->strides[i - 1]);
    }
    if (row % 16 != 0)
        return mj_error(err, MJ_ERR_USAGE, "tensor map %s: a box row is %llu bytes, must be a multiple of 16", what,
                        (unsigned long long)row);
    if (s->swizzle != MJ_TENSOR_MAP_SWIZZLE_NONE && row > width[s->swizzle])
        return mj_error(err, MJ_ERR_USAGE, "tensor map %s: a box row is %llu bytes, more than the swizzle's %llu", what,
                        (unsigned long long)row, (unsigned long long)width[s->swizzle]);
    return 0;
}

int mj_cuda_tensor_map(const MjTensorMapSpec *spec, const char *what, MjTensorMapBytes *out, MjError *err) {
    const MjCuda *cu;
    MjTensorMapBytes map;
    const uint32_t unit[5] = {1, 1, 1, 1, 1};
    int rc;
    MJ_TRY(check_spec(spec, what, err));
    MJ_TRY(mj_cuda_get(&cu, err));
    const int l2_256 = 3; /* CU_TENSOR_MAP_L2_PROMOTION_L2_256B */
    MjCuResult r = cu->TensorMapEncodeTiled(&map, (int)spec->type, spec->rank, (void *)(uintptr_t)spec->address, spec->dims,
                                            spec->strides, spec->box, unit, 0, (int)spec->swizzle, l2_256, 0);
    if (r != MJ_CU_SUCCESS) {
        rc = mj_cuda_error(cu, r, "cuTensorMapEncodeTiled", what, err);
        goto out;
    }
    *out = map;
out:
    return rc;
}
