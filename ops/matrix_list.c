/* Shapes to requests and launches, without a device; see matrix_list.h. */
#include "ops/matrix_list.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/mem.h"

int mj_matrix_kernel(MjOps *ops, MjOpId op, const MjOpShape *shape, void *args, MjMatrixKernel *out, MjError *err)
{
    const MjOpRow *row = mj_op_rows[op];
    MjOpShape adapted = *shape;
    MjMatrixKernel k = {.op = op, .shape = shape};
    const MjOpBinding *binding = NULL;
    MjDeviceInfo info;
    int rc = 0;
    memset(args, 0, MJ_MAX_ARG_BYTES);
    if (row->proof.adapt != NULL) row->proof.adapt(ops->family, &adapted);
    row->proof.setup(&adapted, args);
    MJ_TRY(mj_op_request(ops, op, args, &binding, &k.asked, &k.chosen, err));
    MJ_TRY(mj_template_check(binding->tmpl, k.chosen.values, err));
    k.matrix = binding->matrix;
    if (k.matrix != NULL) {
        MjLaunchRecord record = {.tmpl = binding->tmpl};
        mj_jit_full_values(&k.chosen, record.tuning_of);
        mj_card_info(mj_card_of(ops->arch), mj_jit_target(ops->jit), &info);
        if (ops->device != NULL) info = *ops->device->ops->info(ops->device);
        for (int i = binding->tmpl->n_kernels - 1; i >= 0; i--) {
            MjOpGeometry g = {.grid = 1, .block = 256};
            MJ_TRY(k.matrix->geometry(&record, i, &info, args, &g, err));
            if (g.shared_bytes < k.geometry.shared_bytes) g.shared_bytes = k.geometry.shared_bytes;
            k.geometry = g;
        }
    }
    *out = k;
out:
    return rc;
}

typedef struct List {
    MjMatrixKernel *item;
    int n, cap;
} List;

static bool listed(const List *l, const MjRequest *r)
{
    for (int i = 0; i < l->n; i++)
        if (l->item[i].chosen.tmpl == r->tmpl && memcmp(l->item[i].chosen.values, r->values, sizeof r->values) == 0) return true;
    return false;
}

static int add_shapes(MjOps *ops, MjOpId op, const MjOpShape *shapes, List *l, MjStr *missing, MjError *err)
{
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    MjStr first = MJ_STR_INIT;
    int without = 0;
    for (const MjOpShape *s = shapes; s != NULL && s->tokens >= 0; s++) {
        MjMatrixKernel k;
        int rc = mj_matrix_kernel(ops, op, s, args, &k, err);
        if (rc == MJ_ERR_MISSING) {
            if (without++ == 0) mj_shape_text(s, &first);
            mj_error_clear(err);
            continue;
        }
        if (rc != 0) {
            mj_str_free(&first);
            return mj_error_context(err, rc, "%s", mj_op_name(op));
        }
        if (k.matrix == NULL || listed(l, &k.chosen)) continue;
        if (l->n == l->cap) {
            l->cap = l->cap != 0 ? 2 * l->cap : 64;
            l->item = mj_xrealloc(l->item, (size_t)l->cap * sizeof *l->item);
        }
        l->item[l->n++] = k;
    }
    if (without > 0)
        mj_str_printf(missing, "%s%s: no template for %d of its shapes, the first (%s)", missing->len > 0 ? "; " : "", mj_op_name(op), without,
                      mj_str_text(&first));
    mj_str_free(&first);
    return 0;
}

int mj_matrix_kernels(MjOps *ops, MjMatrixKernel **out, int *n, MjStr *missing, MjError *err)
{
    List l = {.item = NULL};
    int rc = 0;
    for (int op = 0; op < MJ_OP_COUNT; op++) {
        if (mj_op_rows[op]->matrix == NULL) continue;
        MJ_TRY(add_shapes(ops, (MjOpId)op, mj_op_bench_shapes((MjOpId)op), &l, missing, err));
        MJ_TRY(add_shapes(ops, (MjOpId)op, mj_op_gpu_bench_shapes((MjOpId)op), &l, missing, err));
    }
    *out = l.item;
    *n = l.n;
    return 0;
out:
    free(l.item);
    return rc;
}
