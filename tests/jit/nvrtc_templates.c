/* The compile gate: every template that can run on a GPU, compiled by NVRTC for every architecture; needs no GPU. Each mj:generic
 * build, with all dimensions bound to example sizes and with none; and the matrix kernels as realistic shapes ask for them, with
 * the tiles that are chosen. Fails on a compile error, a spill, a stack frame, and on what ptxas says about serialised wgmma
 * (the compiler makes those errors). Prints one row a kernel, and which ones take long.
 *
 *   nvrtc_templates [--target T] [TEMPLATE]... */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/compiler.h"
#include "jit/template.h"
#include "ops/matrix_list.h"
#include "runtime/base/mem.h"
#include "runtime/base/pool.h"

#define SLOW_S 0.2 /* of one core: what a cold compile may take */

static const char *const targets[] = {"sm_80", "sm_89", "sm_90a", "sm_100a"};

typedef struct Case {
    const MjTemplate *tmpl;
    const char *target;
    int32_t bound[MJ_MAX_PARAMS];
    char said[1400];
    MjCompileResult r; /* its numbers */
    bool failed;
} Case;

typedef struct Gate {
    Case *cases;
    int n, cap;
    MjSources sources;
    MjCompiler *nvrtc;
    char **only;
    int n_only;
} Gate;

static void add(Gate *g, const MjTemplate *t, const char *target, const int32_t *bound)
{
    bool wanted = g->n_only == 0;
    for (int i = 0; i < g->n_only; i++) wanted = wanted || strcmp(g->only[i], t->name) == 0;
    for (int i = 0; i < g->n && wanted; i++)
        wanted = g->cases[i].tmpl != t || g->cases[i].target != target ||
                 memcmp(g->cases[i].bound, bound, (size_t)t->n_params * sizeof *bound) != 0;
    if (!wanted) return;
    if (g->n == g->cap) {
        g->cap = g->cap != 0 ? 2 * g->cap : 512;
        g->cases = mj_xrealloc(g->cases, (size_t)g->cap * sizeof *g->cases);
    }
    Case *c = &g->cases[g->n++];
    memset(c, 0, sizeof *c);
    c->tmpl = t;
    c->target = target;
    memcpy(c->bound, bound, (size_t)t->n_params * sizeof *bound);
}

static void add_generics(Gate *g, const MjTemplate *t, const char *target)
{
    if (!mj_template_serves(t, target)) return;
    for (int k = 0; k < t->n_generic; k++) {
        int32_t bound[MJ_MAX_PARAMS];
        if ((t->generic_families[k] >> mj_target_family(target) & 1) == 0) continue;
        mj_template_generic_values(t, k, bound);
        add(g, t, target, bound);
        for (int i = 0; i < t->n_params; i++)
            if (bound[i] == MJ_UNBOUND) bound[i] = mj_param_example(&t->params[i]);
        add(g, t, target, bound);
    }
}

/* With the dimensions of real shapes bound, and with the varying ones left open as dynamic does past its budget. */
static int add_matrix_kernels(Gate *g, MjJit *jit, const char *target, MjError *err)
{
    MjOps ops;
    MjMatrixKernel *list = NULL;
    MjStr missing = MJ_STR_INIT;
    int n = 0, rc;
    MJ_TRY(mj_ops_open(NULL, jit, &ops, err));
    MJ_TRY(mj_matrix_kernels(&ops, &list, &n, &missing, err));
    for (int i = 0; i < n; i++) {
        int32_t bound[MJ_MAX_PARAMS];
        const MjTemplate *t = list[i].chosen.tmpl;
        mj_jit_full_values(&list[i].chosen, bound);
        add(g, t, target, bound);
        for (int p = 0; p < t->n_params; p++)
            if (t->params[p].kind == MJ_PARAM_VARYING) bound[p] = MJ_UNBOUND;
        add(g, t, target, bound);
    }
    if (missing.len > 0) printf("none %s: %s\n", target, mj_str_text(&missing));
out:
    mj_str_free(&missing);
    free(list);
    return rc;
}

static void compile_one(void *user, int task, int worker)
{
    Gate *g = user;
    Case *c = &g->cases[task];
    char *source = NULL;
    MjError err = MJ_ERROR_INIT;
    MjCompileResult r = {.image = NULL};

    (void)worker;
    int rc = mj_template_expand(c->tmpl, &g->sources, c->bound, NULL, &source, &err);
    if (rc == 0) {
        MjCompileRequest req = {.source = source, .source_name = c->tmpl->file, .target = c->target,
                                .entry = c->tmpl->kernels[0], .timeout_s = 120};
        rc = g->nvrtc->compile(g->nvrtc, &req, &r, &err);
    }
    c->r = r;
    c->failed = rc != 0 || r.spill_bytes > 0 || r.stack_bytes > 0;
    if (rc != 0) snprintf(c->said, sizeof c->said, "%s", err.message);
    else if (c->failed) snprintf(c->said, sizeof c->said, "%d bytes of spills, %d bytes of stack", r.spill_bytes, r.stack_bytes);
    mj_compile_result_free(&r);
    mj_error_clear(&err);
    free(source);
}

static int print_cases(const Gate *g)
{
    int bad = 0;
    for (int i = 0; i < g->n; i++) {
        const Case *c = &g->cases[i];
        char spec[800];
        mj_spec_text(c->tmpl, c->target, c->bound, spec, sizeof spec);
        if (c->failed)
            printf("FAIL %s: %s (run just this: nvrtc_templates --target %s %s)\n", spec, c->said, c->target, c->tmpl->name);
        else
            printf("%s %s: %d registers, %.0f ms\n", c->r.cpu_seconds > SLOW_S ? "slow" : "ok  ", spec, c->r.registers,
                   1e3 * c->r.cpu_seconds);
        bad += c->failed;
    }
    return bad;
}

static int gather(Gate *g, MjJit **jits, const char *only_target, MjError *err)
{
    const MjMode *mode;
    int rc;
    MJ_TRY(mj_mode_find("static", &mode, err));
    for (size_t k = 0; k < sizeof targets / sizeof *targets; k++) {
        const MjJitOptions options = {.target = targets[k], .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}};
        if (only_target != NULL && strcmp(only_target, targets[k]) != 0) continue;
        MJ_TRY(mj_jit_open(&options, &jits[k], err));
        for (int i = 0; i < mj_jit_template_count(jits[k]); i++) add_generics(g, mj_jit_template_at(jits[k], i), targets[k]);
        MJ_TRY(add_matrix_kernels(g, jits[k], targets[k], err));
    }
out:
    return rc;
}

int main(int argc, char **argv)
{
    static Gate g;
    MjJit *jits[sizeof targets / sizeof *targets] = {NULL};
    MjError err = MJ_ERROR_INIT;
    const char *identity = "", *flags, *only_target = NULL;
    int rc = 0, bad = 0, slow = 0;

    if (argc > 2 && strcmp(argv[1], "--target") == 0) {
        only_target = argv[2];
        argc -= 2;
        argv += 2;
    }
    g.only = argv + 1;
    g.n_only = argc - 1;
    if (mj_compiler_nvrtc_open(&g.nvrtc, &err) != 0) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    MJ_TRY(g.nvrtc->identify(g.nvrtc, targets[1], &identity, &flags, &err));
    mj_sources_add_builtin(&g.sources, mj_builtin_sources);
    MJ_TRY(gather(&g, jits, only_target, &err));
    MjPool *pool = mj_pool_open(0);
    mj_pool_run(pool, g.n, compile_one, &g);
    mj_pool_close(pool);
    bad = print_cases(&g);
    for (int i = 0; i < g.n; i++) slow += g.cases[i].r.cpu_seconds > SLOW_S;
    printf("%d kernels compiled by %s, %d failed, %d took more than %.0f ms of a core\n", g.n, identity, bad, slow, 1e3 * SLOW_S);
out:
    if (rc != 0) printf("FAIL %s\n", err.message);
    for (size_t k = 0; k < sizeof targets / sizeof *targets; k++) mj_jit_close(jits[k]);
    mj_sources_free(&g.sources);
    g.nvrtc->close(g.nvrtc);
    free(g.cases);
    return rc != 0 || bad != 0 || g.n == 0;
}
