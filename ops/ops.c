/* Launching ops: from an argument struct to a request, a launch record and a grid. Owns the way from the table to the
 * JIT and the device, profiles, and the search for the first op that made a NaN. */
#include "ops/ops.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/op_profile.h"
#include "ops/op_row.h"
#include "ops/tile_choice.h"
#include "runtime/base/mem.h"
#include "runtime/base/nearest.h"
#include "runtime/device_cpu.h"

#define CUDA_THREADS 256
#define CUDA_WARPS (CUDA_THREADS / 32)
/* Blocks a multiprocessor: many times what it holds at once, so that the last ones to finish leave little idle. */
#define CUDA_ROW_BLOCKS 32
#define CUDA_ITEM_BLOCKS 64
#define CPU_BLOCKS_PER_THREAD 4 /* enough to even out, few enough to cost nothing */

int mj_op_buffer_count(const MjOpRow *row)
{
    int n = 0;
    while (n < MJ_OP_MAX_BUFFERS && row->buffers[n].name != NULL) n++;
    return n;
}

MjOpType mj_op_buffer_type(const MjOpBuffer *buffer, const void *args)
{
    if (buffer->type != MJ_BUF_BY_FIELD) return buffer->type;
    int32_t type;
    memcpy(&type, (const char *)args + buffer->type_offset, sizeof type);
    switch (type) {
    case MJ_T_E4M3: return MJ_BUF_E4M3;
    case MJ_T_E5M2: return MJ_BUF_E5M2;
    case MJ_T_F32: return MJ_BUF_F32;
    default: return MJ_BUF_BF16;
    }
}

size_t mj_op_type_bytes(MjOpType type)
{
    switch (type) {
    case MJ_BUF_BF16: return 2;
    case MJ_BUF_E4M3:
    case MJ_BUF_E5M2: return 1;
    case MJ_BUF_F64: return 8;
    default: return 4;
    }
}

void *mj_op_buffer_ptr(const MjOpBuffer *buffer, const void *args)
{
    void *p;
    memcpy(&p, (const char *)args + buffer->offset, sizeof p);
    return p;
}

void mj_op_cost(const MjOpRow *row, const void *args, double *flops, double *bytes)
{
    *flops = row->flops != NULL ? row->flops(args) : 0.0;
    *bytes = row->bytes != NULL ? row->bytes(args) : 0.0;
    if (row->bytes != NULL) return;
    for (int i = 0; i < mj_op_buffer_count(row); i++) {
        const MjOpBuffer *b = &row->buffers[i];
        if (mj_op_buffer_ptr(b, args) == NULL) continue;
        const double once = (double)b->count(args) * (double)mj_op_type_bytes(mj_op_buffer_type(b, args));
        *bytes += b->role == MJ_INOUT ? 2.0 * once : b->role == MJ_SCRATCH ? 0.0 : once;
    }
}

/* The workers' scratch for every op, now, so that no launch in a step loop has to grow it. Sizes that depend on a launch's
 * arguments are smaller than the constant ones of the matrix ops. */
static int reserve_scratch(MjDevice *device, MjFamily family, MjError *err)
{
    static const char none[MJ_MAX_ARG_BYTES];
    size_t most = 0;
    for (int i = 0; i < MJ_OP_COUNT; i++) {
        if (mj_op_rows[i]->shared == NULL) continue;
        size_t bytes = mj_op_rows[i]->shared(family, none);
        if (bytes > most) most = bytes;
    }
    return mj_device_cpu_reserve_scratch(device, most, err);
}

int mj_ops_open(MjDevice *device, MjJit *jit, MjOps *out, MjError *err)
{
    if (jit == NULL) return mj_error(err, MJ_ERR_USAGE, "ops: no JIT given: open one with mj_jit_open first");
    memset(out, 0, sizeof *out);
    out->device = device;
    out->jit = jit;
    const char *target = mj_jit_target(jit);
    out->family = device != NULL ? device->ops->info(device)->family : mj_target_family(target);
    out->arch = strncmp(target, "sm_", 3) == 0 ? atoi(target + 3) : 0;
    for (int i = 0; i < MJ_OP_COUNT; i++) assert(mj_op_rows[i]->id == (MjOpId)i);
    const char *family = getenv("MOJIT_FAMILY");
    if (family != NULL && *family != '\0' && out->family != MJ_FAMILY_CPU) {
        if (strcmp(family, "sm_80") != 0)
            return mj_error(err, MJ_ERR_USAGE, "MOJIT_FAMILY=%s: only sm_80 can be asked for, the templates that every GPU runs", family);
        out->family = MJ_FAMILY_SM80;
    }
    if (device != NULL && strcmp(device->ops->kind, "cpu") == 0) return reserve_scratch(device, out->family, err);
    return 0;
}

const char *mj_op_name(MjOpId id) { return (unsigned)id < MJ_OP_COUNT ? mj_op_rows[id]->name : "?"; }

int mj_op_find(const char *name, MjOpId *out, MjError *err)
{
    const char *names[MJ_OP_COUNT];
    for (int i = 0; i < MJ_OP_COUNT; i++) {
        names[i] = mj_op_rows[i]->name;
        if (strcmp(names[i], name) == 0) {
            *out = (MjOpId)i;
            return 0;
        }
    }
    const char *near = mj_nearest(name, names, MJ_OP_COUNT);
    return mj_error(err, MJ_ERR_USAGE, "unknown op '%s'%s%s%s; `mojit kernels` lists them", name,
                    near != NULL ? ": did you mean '" : "", near != NULL ? near : "", near != NULL ? "'?" : "");
}

/* Finds the template of this family and where its parameters lie in the struct. Done once for an op and template. */
static int bind_template(MjOps *ops, const MjOpRow *row, const char *name, MjOpBinding *b, MjError *err)
{
    const MjTemplate *t;
    int rc = mj_jit_template(ops->jit, name, &t, err);
    if (rc != 0) return mj_error_context(err, rc, "op %s", row->name);
    for (int p = 0; p < t->n_params; p++) {
        const MjOpField *f = row->fields;
        while (f->name != NULL && strcasecmp(f->name, t->params[p].name) != 0) f++;
        if (f->name != NULL) {
            b->offset[p] = (int32_t)f->offset;
        } else if (t->params[p].kind == MJ_PARAM_TUNING) {
            b->offset[p] = -1;
        } else {
            return mj_error(err, MJ_ERR_USAGE,
                            "op %s: template %s declares the parameter %s, which its argument struct %s has not; the "
                            "fields that can be parameters are listed with the op in ops/", row->name, name,
                            t->params[p].name, t->args);
        }
    }
    for (int i = 0; row->matrix != NULL && row->matrix[i] != NULL; i++)
        if (strcmp(row->matrix[i]->tmpl, name) == 0) b->matrix = row->matrix[i];
    b->name = name;
    b->tmpl = t;
    return 0;
}

static int find_binding(MjOps *ops, const MjOpRow *row, const void *args, const MjOpBinding **out, MjError *err)
{
    const char *name = row->choose != NULL ? row->choose(ops->family, ops->arch, args) : row->name;
    if (name == NULL) {
        const char *why = row->refusal != NULL ? row->refusal(ops->family, ops->arch, args) : NULL;
        return mj_error(err, MJ_ERR_MISSING, "op %s has no template for %s%s%s", row->name, mj_jit_target(ops->jit),
                        why != NULL ? ": " : "", why != NULL ? why : "");
    }
    for (int i = 0; i < MJ_OP_TEMPLATES; i++) {
        MjOpBinding *b = &ops->bindings[row->id][i];
        if (b->name == NULL) {
            int rc = bind_template(ops, row, name, b, err);
            if (rc != 0) return rc;
        }
        if (b->name == name || strcmp(b->name, name) == 0) {
            *out = b;
            return 0;
        }
    }
    return mj_error(err, MJ_ERR_USAGE, "op %s uses more than %d templates", row->name, MJ_OP_TEMPLATES);
}

static void choose_grid(const MjOps *ops, const MjOpRow *row, const MjOpPhase *phase, const MjLaunchRecord *record, MjLaunch *l)
{
    const MjDeviceInfo *info = ops->device->ops->info(ops->device);
    const void *args = l->args;
    int64_t count = phase->work == MJ_WORK_ONE      ? 1
                    : phase->tuned_count != NULL ? phase->tuned_count(args, record)
                                                 : phase->count(args);
    int64_t limit;
    l->block = CUDA_THREADS;
    if (phase->work == MJ_WORK_GRID) {
        limit = count;
        l->block = ops->family == MJ_FAMILY_CPU ? 1 : CUDA_THREADS;
    } else if (ops->family == MJ_FAMILY_CPU) {
        limit = (int64_t)info->units * CPU_BLOCKS_PER_THREAD;
        l->block = 1;
    } else if (phase->work == MJ_WORK_ROWS) {
        count = (count + CUDA_WARPS - 1) / CUDA_WARPS;
        limit = (int64_t)info->units * (phase->unit_blocks > 0 ? phase->unit_blocks : CUDA_ROW_BLOCKS);
    } else {
        limit = (int64_t)info->units * CUDA_ITEM_BLOCKS;
    }
    if (count > limit) count = limit;
    l->grid = count < 1 ? 1 : (uint32_t)count;
    l->shared_bytes = row->shared != NULL ? row->shared(ops->family, args) : 0;
}

/* A launch as the template's own tiling wants it. `maps` has room for MJ_OP_MAX_MAPS and lives until the launch. */
static int choose_geometry(const MjOps *ops, const MjOpRow *row, const MjOpMatrix *matrix, const MjLaunchRecord *record,
                           int kernel, MjLaunch *l, MjTensorMapBytes *maps, MjError *err)
{
    MjOpGeometry g = {.block = CUDA_THREADS, .grid = 1};
    int rc = matrix->geometry(record, kernel, ops->device->ops->info(ops->device), l->args, &g, err);
    if (rc != 0) return rc;
    for (int i = 0; i < g.n_maps; i++) {
        char what[96];
        (void)snprintf(what, sizeof what, "%s of %s", g.map_names[i] != NULL ? g.map_names[i] : "an operand", row->name);
        rc = mj_cuda_tensor_map(&g.maps[i], what, &maps[i], err);
        if (rc != 0) return rc;
    }
    l->grid = g.grid;
    l->block = g.block;
    l->cluster = g.cluster;
    l->shared_bytes = g.shared_bytes;
    l->tensor_maps = g.n_maps > 0 ? maps : NULL;
    l->tensor_map_bytes = (size_t)g.n_maps * sizeof *maps;
    return 0;
}

/* The values of a template's parameters in an argument struct; tuning is left open unless it is forced. */
static void ask(const MjOps *ops, const MjOpBinding *b, const void *args, MjRequest *req)
{
    req->tmpl = b->tmpl;
    for (int p = 0; p < b->tmpl->n_params; p++) {
        if (b->offset[p] >= 0) {
            memcpy(&req->values[p], (const char *)args + b->offset[p], sizeof(int32_t));
        } else {
            req->values[p] = ops->forced_tmpl == b->tmpl ? ops->forced[p] : MJ_UNBOUND;
        }
    }
}

static void choose_tuning(const MjOps *ops, const MjOpBinding *b, const void *args, int32_t *values)
{
    if (b->matrix != NULL && ops->forced_tmpl != b->tmpl) mj_tile_choose(b->matrix, b->tmpl, mj_jit_target(ops->jit), args, values);
}

int mj_op_request(MjOps *ops, MjOpId id, const void *args, const MjOpBinding **binding, MjRequest *asked, MjRequest *chosen,
                  MjError *err)
{
    int rc = find_binding(ops, mj_op_rows[id], args, binding, err);
    if (rc != 0) return rc;
    memset(asked, 0, sizeof *asked);
    ask(ops, *binding, args, asked);
    *chosen = *asked;
    choose_tuning(ops, *binding, args, chosen->values);
    return 0;
}

/* The first time, tuning values are chosen; after that the record is found by what was asked for. */
static int find_record(MjOps *ops, const MjOpBinding *b, const void *args, const MjRequest *asked, const MjLaunchRecord **out,
                       MjError *err)
{
    *out = mj_jit_repeat(ops->jit, asked);
    if (*out != NULL) return 0;
    MjRequest chosen = *asked;
    choose_tuning(ops, b, args, chosen.values);
    return mj_jit_get_chosen(ops->jit, asked, &chosen, out, err);
}

/* A launch that the device refused, or (MOJIT_CUDA_SYNC=1) that died in it: what it was, and how to run it alone. */
static int blame(const MjOps *ops, const MjOpRow *row, const MjLaunchRecord *record, int kernel, const void *args, int rc,
                 MjError *err)
{
    char spec[400];
    MjStr shape = MJ_STR_INIT;
    if (rc != MJ_ERR_DEVICE || ops->device->ops->info(ops->device)->lost) return rc;
    /* a device that is dead although launches are not waited for: it may have been any of those before */
    if (ops->device->ops->info(ops->device)->graphs && ops->device->ops->synchronize(ops->device, NULL) != 0) return rc;
    mj_spec_text(record->tmpl, mj_jit_target(ops->jit), record->bound, spec, sizeof spec);
    mj_shape_of_args(row, args, &shape);
    rc = mj_error_context(err, rc, "kernel %s of %s; alone: `MOJIT_CUDA_SYNC=1 mojit bench %s --device %s --mode %s --shape %s`",
                          record->tmpl->kernels[kernel], spec, row->name, ops->device->ops->kind,
                          record->generic ? "nocompile" : "static", mj_str_text(&shape));
    mj_str_free(&shape);
    return rc;
}

static int launch_phases(MjOps *ops, const MjOpRow *row, const MjOpBinding *b, const void *args, MjError *err)
{
    MjRequest req = {.tmpl = b->tmpl};
    MjTensorMapBytes maps[MJ_OP_MAX_MAPS];
    ask(ops, b, args, &req);
    for (int i = 0; i < b->tmpl->n_kernels; i++) {
        const MjLaunchRecord *record;
        req.kernel = i;
        int rc = find_record(ops, b, args, &req, &record, err);
        if (rc != 0) return rc;
        if (record->fn == NULL) continue; /* a plan is being recorded */
        const MjOpPhase *phase = &row->phases[i < MJ_OP_MAX_PHASES && row->phases[i].entry != NULL ? i : 0];
        MjLaunch l = {.args = args, .args_bytes = row->args_bytes, .label = row->name,
                      .overlap = ops->overlap && !ops->profile && record->waits};
        if (b->matrix != NULL) rc = choose_geometry(ops, row, b->matrix, record, i, &l, maps, err);
        else choose_grid(ops, row, phase, record, &l);
        if (rc != 0) return rc;
        rc = ops->device->ops->launch(ops->device, record->fn, &l, err);
        if (rc != 0) return blame(ops, row, record, i, args, rc, err);
    }
    return 0;
}

/* Counts what is not finite in one output; only what a NaN loss is explained with, so plainly downloaded. */
static int check_output(MjOps *ops, const MjOpRow *row, const MjOpBuffer *buffer, const void *args, const char *what,
                        MjError *err)
{
    const MjOpType type = mj_op_buffer_type(buffer, args);
    const void *ptr = mj_op_buffer_ptr(buffer, args);
    if (ptr == NULL || (buffer->role != MJ_OUT && buffer->role != MJ_INOUT)) return 0;
    if (type != MJ_BUF_F32 && type != MJ_BUF_BF16) return 0;
    const int64_t n = buffer->count(args);
    const size_t bytes = (size_t)n * mj_op_type_bytes(type);
    void *host = mj_xmalloc(bytes);
    int rc = ops->device->ops->download(ops->device, host, ptr, bytes, err);
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        const uint32_t bits = type == MJ_BUF_F32 ? ((const uint32_t *)host)[i]
                                                 : (uint32_t)((const uint16_t *)host)[i] << 16;
        if ((bits & 0x7f800000u) == 0x7f800000u)
            rc = mj_error(err, MJ_ERR_NUMERIC, "op %s (%s) wrote a %s into %s at element %lld of %lld: the first op to do so",
                          row->name, what, (bits & 0x007fffffu) != 0 ? "NaN" : "infinity", buffer->name, (long long)i,
                          (long long)n);
    }
    free(host);
    return rc;
}

static int check_outputs(MjOps *ops, const MjOpRow *row, const void *args, const char *what, MjError *err)
{
    for (int i = 0; i < mj_op_buffer_count(row); i++) {
        int rc = check_output(ops, row, &row->buffers[i], args, what, err);
        if (rc != 0) return rc;
    }
    return 0;
}

static bool by_library(const MjOps *ops, MjOpId id, const void *args)
{
    if (id != MJ_OP_GEMM || ops->family == MJ_FAMILY_CPU) return false;
    if (ops->dense == MJ_DENSE_AUTO && ops->library == NULL) return false; /* nor in a plan: the machine may not have it */
    return mj_gemm_library_rule(ops->dense, args);
}

/* A dense product by cuBLASLt; while a plan is recorded, only the library's own plan is made, so that none is left to make
 * when the step is captured. */
static int launch_library(MjOps *ops, const MjGemmArgs *args, bool recording, MjError *err)
{
    MjLtGemm g;
    if (ops->device == NULL) return 0; /* a plan for another machine: there is nothing to compile */
    if (ops->library == NULL)
        return mj_error(err, MJ_ERR_MISSING, "run.dense_gemm = cublaslt, and cuBLASLt was not opened");
    if (args->m == 0 || args->n == 0 || args->k == 0 || !mj_gemm_library_map(args, ops->library_rows, &g))
        return mj_error(err, MJ_ERR_USAGE, "cuBLASLt has no product of m=%d n=%d k=%d with k a multiple of 16 (fp8) and more than 0 of each: "
                        "set run.dense_gemm = mojit", args->m, args->n, args->k);
    int rc = recording ? mj_blaslt_prepare(ops->library, &g, err) : mj_blaslt_gemm(ops->library, &g, err);
    return rc == MJ_ERR_MISSING ? mj_error_context(err, rc, "set run.dense_gemm = mojit") : rc;
}

/* A plan for a target that lacks a template of an op holds all the others, and says so once. */
static int plan_without(MjOps *ops, const MjOpRow *row, MjError *err)
{
    char line[256];
    if ((ops->missing >> row->id & 1) == 0) {
        (void)snprintf(line, sizeof line, "op %s has no template for %s yet: it is left out of the plan", row->name,
                       mj_jit_target(ops->jit));
        mj_jit_note(ops->jit, line);
        ops->missing |= (uint64_t)1 << row->id;
    }
    mj_error_clear(err);
    return 0;
}

int mj_op_launch(MjOps *ops, MjOpId id, const void *args, size_t args_bytes, const char *what, MjError *err)
{
    const MjOpRow *row = mj_op_rows[id];
    assert(args_bytes == row->args_bytes);
    (void)args_bytes;
    const MjOpBinding *b = NULL;
    const bool library = by_library(ops, id, args), recording = mj_jit_recording(ops->jit);
    int rc = library ? 0 : find_binding(ops, row, args, &b, err);
    if (rc == MJ_ERR_MISSING && recording && ops->device == NULL) return plan_without(ops, row, err);
    if (rc != 0) return rc;
    if (!recording && ops->device == NULL)
        return mj_error(err, MJ_ERR_USAGE, "op %s: no device to launch on; without one, a plan can only be recorded", row->name);
    const bool profile = ops->profile && !recording;
    if (profile) rc = mj_profile_begin(ops, err);
    if (rc == 0) rc = library ? launch_library(ops, args, recording, err) : launch_phases(ops, row, b, args, err);
    if (rc == 0 && profile) rc = mj_profile_end(ops, row, args, err);
    if (rc != 0) return mj_error_context(err, rc, "%s (%s)", row->name, what != NULL ? what : "?");
    return ops->check_finite && !recording ? check_outputs(ops, row, args, what != NULL ? what : "?", err) : 0;
}
