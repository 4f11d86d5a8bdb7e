/* The compile gate: every template that can run on a GPU, compiled by NVRTC for every architecture; needs no GPU. Each mj:generic
 * build, with all dimensions bound to example sizes and with none; and the matrix kernels as realistic shapes ask for them, with
 * the tiles that are chosen. Fails on a compile error, a spill, a stack frame, and on what ptxas says about serialised wgmma
 * (the compiler makes those errors). Prints one row a kernel, which ones take long, and what all of the eight-GPU configuration
 * take; times are the compiling thread's own. Machines differ and are busy, so a time is a failure only when it is out of all
 * proportion to that of an empty kernel, compiled in between. What a time comes from is the same everywhere: instructions, of which
 * the eight-GPU configuration's kernels have a limit each and together.
 *
 *   nvrtc_templates [--plan FILE.ini] [--target T] [TEMPLATE]... */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cubin_code.h"
#include "eight_gpu_plan.h"
#include "jit/compiler.h"
#include "jit/template.h"
#include "ops/matrix_list.h"
#include "runtime/base/mem.h"
#include "runtime/base/pool.h"

#define SLOW_S 0.2     /* of one core: what a cold compile may take */
#define PLAN_S 5.0     /* of two cores: all of the eight-GPU configuration */
#define MOST_EMPTY 100 /* empty kernels: what no kernel may take; the slowest takes about 30 */
#define EMPTY_EVERY 32 /* kernels */
#define PLAN_TARGET "sm_90a"
#define MOST_CODE 1600       /* instructions of one kernel of that configuration: 0.2 s of an idle core and a fifth more */
#define MOST_PLAN_CODE 50000 /* of all of them */
/* Straight runs of code that no rolled loop shortens (docs/performance.md): what they may have. */
static const struct {
    const char *tmpl;
    long most;
} long_code[] = {{"attention_bwd_sm90", 2400}};

static const char *const targets[] = {"sm_80", "sm_89", "sm_90a", "sm_100a"};

typedef struct Case {
    const MjTemplate *tmpl;
    const char *target;
    int32_t bound[MJ_MAX_PARAMS];
    char said[1400];
    MjCompileResult r; /* its numbers */
    long code; /* instructions */
    bool failed, planned; /* planned: of the eight-GPU configuration */
} Case;

typedef struct Gate {
    Case *cases;
    int n, cap;
    MjSources sources;
    MjCompiler *nvrtc;
    char **only;
    int n_only;
    double *empty; /* (n / EMPTY_EVERY + 1) seconds */
} Gate;

/* Its index, -1 when it is not asked for; once, however often it is added. */
static int add(Gate *g, const MjTemplate *t, const char *target, const int32_t *bound)
{
    bool wanted = g->n_only == 0;
    for (int i = 0; i < g->n_only; i++) wanted = wanted || strcmp(g->only[i], t->name) == 0;
    if (!wanted) return -1;
    for (int i = 0; i < g->n; i++)
        if (g->cases[i].tmpl == t && g->cases[i].target == target &&
            memcmp(g->cases[i].bound, bound, (size_t)t->n_params * sizeof *bound) == 0)
            return i;
    if (g->n == g->cap) {
        g->cap = g->cap != 0 ? 2 * g->cap : 512;
        g->cases = mj_xrealloc(g->cases, (size_t)g->cap * sizeof *g->cases);
    }
    Case *c = &g->cases[g->n++];
    memset(c, 0, sizeof *c);
    c->tmpl = t;
    c->target = target;
    memcpy(c->bound, bound, (size_t)t->n_params * sizeof *bound);
    return g->n - 1;
}

static void add_generics(Gate *g, const MjTemplate *t, const char *target)
{
    if (!mj_template_serves(t, target)) return;
    for (int k = 0; k < t->n_generic; k++) {
        int32_t bound[MJ_MAX_PARAMS];
        if ((t->generic_families[k] >> mj_target_family(target) & 1) == 0) continue;
        mj_template_generic_values(t, k, bound);
        (void)add(g, t, target, bound);
        for (int i = 0; i < t->n_params; i++)
            if (bound[i] == MJ_UNBOUND) bound[i] = mj_param_example(&t->params[i]);
        (void)add(g, t, target, bound);
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
        (void)add(g, t, target, bound);
        for (int p = 0; p < t->n_params; p++)
            if (t->params[p].kind == MJ_PARAM_VARYING) bound[p] = MJ_UNBOUND;
        (void)add(g, t, target, bound);
    }
    if (missing.len > 0) printf("none %s: %s\n", target, mj_str_text(&missing));
out:
    mj_str_free(&missing);
    free(list);
    return rc;
}

/* `jit` has the templates that live on. */
static int add_plan(Gate *g, MjJit *jit, const char *ini, const char *target, MjError *err)
{
    MjJit *plan = NULL;
    int rc = 0;
    MJ_TRY(mj_eight_gpu_plan(ini, target, &plan, err));
    for (int i = 0; i < mj_jit_plan_size(plan); i++) {
        const MjLaunchRecord *record = mj_jit_plan_record(plan, i);
        const MjTemplate *t;
        MJ_TRY(mj_jit_template(jit, record->tmpl->name, &t, err));
        const int at = add(g, t, target, record->bound);
        if (at >= 0) g->cases[at].planned = true;
    }
out:
    mj_jit_close(plan);
    return rc;
}

/* The yardstick: of the same machine, as busy as it is. */
static double compile_empty(Gate *g)
{
    const MjCompileRequest req = {.source = "extern \"C\" __global__ void k() {}\n", .source_name = "k.cu", .target = "sm_90a", .entry = "k"};
    MjError err = MJ_ERROR_INIT;
    MjCompileResult r = {.image = NULL};
    double seconds = g->nvrtc->compile(g->nvrtc, &req, &r, &err) == 0 ? r.cpu_seconds : 0.0;
    mj_compile_result_free(&r);
    mj_error_clear(&err);
    return seconds;
}

static void compile_one(void *user, int task, int worker)
{
    Gate *g = user;
    Case *c = &g->cases[task];
    char *source = NULL;
    MjError err = MJ_ERROR_INIT;
    MjCompileResult r = {.image = NULL};

    (void)worker;
    if (task % EMPTY_EVERY == 0) g->empty[task / EMPTY_EVERY] = compile_empty(g);
    int rc = mj_template_expand(c->tmpl, &g->sources, c->bound, NULL, &source, &err);
    if (rc == 0) {
        MjCompileRequest req = {.source = source, .source_name = c->tmpl->file, .target = c->target,
                                .entry = c->tmpl->kernels[0], .timeout_s = 120};
        rc = g->nvrtc->compile(g->nvrtc, &req, &r, &err);
    }
    c->r = r;
    c->code = rc == 0 ? mj_cubin_instructions(r.image, r.image_bytes) : 0;
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
            printf("%s %s: %d registers, %ld instructions, %.0f ms\n", c->r.cpu_seconds > SLOW_S ? "slow" : "ok  ", spec,
                   c->r.registers, c->code, 1e3 * c->r.cpu_seconds);
        bad += c->failed;
    }
    return bad;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static long most_code(const MjTemplate *t)
{
    for (size_t i = 0; i < sizeof long_code / sizeof *long_code; i++)
        if (strcmp(long_code[i].tmpl, t->name) == 0) return long_code[i].most;
    return MOST_CODE;
}

/* What the eight-GPU configuration takes, and which of its kernels take long; returns how many limits of code are passed. */
static int print_plan(const Gate *g)
{
    int planned = 0, slow = 0, bad = 0;
    long code = 0;
    double s = 0.0;
    for (int i = 0; i < g->n; i++) {
        const Case *c = &g->cases[i];
        if (!c->planned) continue;
        const bool too_much = c->code > most_code(c->tmpl);
        planned++;
        code += c->code;
        s += c->r.cpu_seconds;
        slow += c->r.cpu_seconds > SLOW_S;
        bad += too_much;
        if (!too_much && c->r.cpu_seconds <= SLOW_S) continue;
        char spec[800];
        mj_spec_text(c->tmpl, c->target, c->bound, spec, sizeof spec);
        printf("%s of the eight-GPU configuration: %s: %ld instructions (at most %ld), %.0f ms\n", too_much ? "FAIL" : "slow", spec,
               c->code, most_code(c->tmpl), 1e3 * c->r.cpu_seconds);
    }
    if (code > MOST_PLAN_CODE) printf("FAIL the eight-GPU configuration has more than %d instructions\n", MOST_PLAN_CODE);
    if (bad > 0 || code > MOST_PLAN_CODE)
        printf("where a kernel's code comes from: docs/performance.md, \"Compile time\", says what made code long before, and what helped\n");
    printf("the eight-GPU configuration for %s: %d kernels, %ld instructions, %.1f s of a core, %.1f s on two (aim: %.0f), %d above %.0f ms\n",
           PLAN_TARGET, planned, code, s, s / 2.0, PLAN_S, slow, 1e3 * SLOW_S);
    return bad + (code > MOST_PLAN_CODE);
}

/* Slow images of a template and target; returns how many are out of all proportion. */
static int print_times(const Gate *g)
{
    const int n_empty = (g->n + EMPTY_EVERY - 1) / EMPTY_EVERY;
    int slow = 0, bad = 0;
    qsort(g->empty, (size_t)n_empty, sizeof *g->empty, ascending);
    const double empty = g->empty[n_empty / 2];
    for (int i = 0; i < g->n;) { /* runs of one template and target */
        const Case *first = &g->cases[i];
        int over = 0, all = 0;
        double most = 0.0;
        for (; i < g->n && g->cases[i].tmpl == first->tmpl && g->cases[i].target == first->target; i++, all++) {
            const double s = g->cases[i].r.cpu_seconds;
            over += s > SLOW_S;
            most = s > most ? s : most;
            bad += s > MOST_EMPTY * empty;
        }
        slow += over;
        if (over > 0)
            printf("slow %s %s: %d of %d images with %d entry points took more than %.0f ms of a core, at most %.0f\n", first->target,
                   first->tmpl->name, over, all, first->tmpl->n_kernels, 1e3 * SLOW_S, 1e3 * most);
    }
    printf("an empty kernel takes %.0f ms of a core; %d of %d kernels more than %.0f ms, %d more than %d empty ones\n", 1e3 * empty, slow,
           g->n, 1e3 * SLOW_S, bad, MOST_EMPTY);
    if (bad > 0) printf("FAIL a kernel takes more than %d times an empty one: roll loops whose bodies are not hot\n", MOST_EMPTY);
    return bad;
}

static int by_template(const void *a, const void *b)
{
    const Case *x = a, *y = b;
    const int by_target = strcmp(x->target, y->target), by_name = strcmp(x->tmpl->name, y->tmpl->name);
    return by_target != 0 ? by_target : by_name;
}

static int gather(Gate *g, MjJit **jits, const char *only_target, const char *plan, MjError *err)
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
        if (plan != NULL && strcmp(targets[k], PLAN_TARGET) == 0) MJ_TRY(add_plan(g, jits[k], plan, targets[k], err));
    }
    qsort(g->cases, (size_t)g->n, sizeof *g->cases, by_template);
    g->empty = mj_xcalloc((size_t)g->n / EMPTY_EVERY + 1, sizeof *g->empty);
out:
    return rc;
}

int main(int argc, char **argv)
{
    static Gate g;
    MjJit *jits[sizeof targets / sizeof *targets] = {NULL};
    MjError err = MJ_ERROR_INIT;
    const char *identity = "", *flags, *only_target = NULL, *plan = NULL;
    int rc = 0, bad = 0;

    for (; argc > 2 && strncmp(argv[1], "--", 2) == 0; argc -= 2, argv += 2) {
        if (strcmp(argv[1], "--target") == 0) only_target = argv[2];
        if (strcmp(argv[1], "--plan") == 0) plan = argv[2];
    }
    g.only = argv + 1;
    g.n_only = argc - 1;
    if (mj_compiler_nvrtc_open(&g.nvrtc, &err) != 0) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    MJ_TRY(g.nvrtc->identify(g.nvrtc, targets[1], &identity, &flags, &err));
    mj_sources_add_builtin(&g.sources, mj_builtin_sources);
    MJ_TRY(gather(&g, jits, only_target, plan, &err));
    MjPool *pool = mj_pool_open(0);
    mj_pool_run(pool, g.n, compile_one, &g);
    mj_pool_close(pool);
    bad = print_cases(&g);
    if (g.n > 0) bad += print_times(&g);
    if (plan != NULL && g.n_only == 0 && (only_target == NULL || strcmp(only_target, PLAN_TARGET) == 0)) bad += print_plan(&g);
    printf("%d kernels compiled by %s, %d failed\n", g.n, identity, bad);
out:
    if (rc != 0) printf("FAIL %s\n", err.message);
    for (size_t k = 0; k < sizeof targets / sizeof *targets; k++) mj_jit_close(jits[k]);
    mj_sources_free(&g.sources);
    g.nvrtc->close(g.nvrtc);
    free(g.cases);
    free(g.empty);
    return rc != 0 || bad != 0 || g.n == 0;
}
