/* Every template that can run on a GPU, compiled by NVRTC for every architecture, with all dimensions bound (static) and
 * with none (generic); needs no GPU. Fails on a compile error, a spill, a stack frame where the matrix unit is fed, and on
 * what ptxas says about serialised wgmma (the compiler makes those errors). Prints one row a kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/compiler.h"
#include "jit/template.h"
#include "runtime/base/pool.h"
#include "runtime/device.h"

enum { MAX_CASES = 8192 };

static const char *const targets[] = {"sm_80", "sm_90a", "sm_100a"};

typedef struct Case {
    const MjTemplate *tmpl;
    const char *target;
    int32_t bound[MJ_MAX_PARAMS];
    char said[1400];
    int spills, stack, registers;
    bool failed;
} Case;

static Case *cases;
static int n_cases;
static MjSources sources;
static MjCompiler *nvrtc;

static bool legal(const MjParam *p, int32_t v)
{
    if (v < p->min || v > p->max || v % p->multiple != 0) return false;
    for (int i = 0; i < p->n_values; i++)
        if (p->values[i] == v) return true;
    return p->n_values == 0;
}

/* A size like those of real runs, by the parameter's name. */
static int32_t typical(const MjParam *p)
{
    static const struct {
        const char *name;
        int32_t value;
    } sizes[] = {{"WIDTH", 768}, {"HEADS", 6}, {"HEAD_DIM", 128}, {"EXPERTS", 8}, {"TOP_K", 2}, {"VOCAB", 32768}, {"WINDOW", 1024}};
    static const int32_t others[] = {2048, 1024, 128, 64, 8, 2, 1, 0};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(sizes[i].name, p->name) == 0 && legal(p, sizes[i].value)) return sizes[i].value;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (legal(p, others[i])) return others[i];
    return p->n_values ? p->values[0] : p->min;
}

static void add_cases(const MjTemplate *t)
{
    for (size_t k = 0; k < sizeof targets / sizeof *targets; k++) {
        if (!(t->families >> mj_target_family(targets[k]) & 1)) continue;
        for (int g = 0; g < t->n_generic; g++)
            for (int form = 0; (t->generic_families[g] >> mj_target_family(targets[k]) & 1) && form < 2 && n_cases < MAX_CASES; form++) {
                Case *c = &cases[n_cases++];
                c->tmpl = t;
                c->target = targets[k];
                for (int i = 0; i < t->n_params; i++) {
                    const MjParam *p = &t->params[i];
                    c->bound[i] = p->kind == MJ_PARAM_TUNING    ? p->default_value
                                  : p->kind == MJ_PARAM_VARIANT ? t->generic[g][i]
                                  : form == 0                   ? typical(p)
                                                                : MJ_UNBOUND;
                }
            }
    }
}

static void compile_one(void *user, int task, int worker)
{
    Case *c = &cases[task];
    char *source = NULL;
    MjError err = MJ_ERROR_INIT;
    MjCompileResult r = {.image = NULL};

    (void)user;
    (void)worker;
    int rc = mj_template_expand(c->tmpl, &sources, c->bound, NULL, &source, &err);
    if (rc == 0) {
        MjCompileRequest req = {.source = source, .source_name = c->tmpl->file, .target = c->target,
                                .entry = c->tmpl->kernels[0], .timeout_s = 120};
        rc = nvrtc->compile(nvrtc, &req, &r, &err);
    }
    c->spills = r.spill_bytes;
    c->stack = r.stack_bytes;
    c->registers = r.registers;
    c->failed = rc != 0 || r.spill_bytes > 0;
    if (rc != 0) snprintf(c->said, sizeof c->said, "%s", err.message);
    if (rc == 0 && c->failed) snprintf(c->said, sizeof c->said, "%d bytes of spills", r.spill_bytes);
    mj_compile_result_free(&r);
    mj_error_clear(&err);
    free(source);
}

int main(int argc, char **argv)
{
    static MjTemplate *templates[256];
    int n_templates = 0, bad = 0;
    MjError err = MJ_ERROR_INIT;
    const char *identity, *flags;

    if (mj_compiler_nvrtc_open(&nvrtc, &err) != 0) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    if (nvrtc->identify(nvrtc, targets[0], &identity, &flags, &err) != 0) {
        printf("FAIL %s\n", err.message);
        return 1;
    }
    cases = calloc(MAX_CASES, sizeof *cases);
    if (!cases) return 99;
    mj_sources_add_builtin(&sources, mj_builtin_sources);
    for (const MjSourceFile *f = mj_builtin_sources; f->name && n_templates < 256; f++) {
        if (!mj_sources_is_template(f)) continue;
        if (mj_template_parse(f->name, f->text, "builtin", &templates[n_templates], &err) != 0) {
            printf("FAIL %s\n", err.message);
            return 1;
        }
        const MjTemplate *t = templates[n_templates++];
        if (argc < 2 || strcmp(argv[1], t->name) == 0) add_cases(t);
    }
    MjPool *pool = mj_pool_open(0);
    mj_pool_run(pool, n_cases, compile_one, NULL);
    mj_pool_close(pool);
    for (int i = 0; i < n_cases; i++) {
        char spec[600];
        mj_spec_text(cases[i].tmpl, cases[i].target, cases[i].bound, spec, sizeof spec);
        if (cases[i].failed)
            printf("FAIL %s: %s (run just this: nvrtc_templates %s)\n", spec, cases[i].said, cases[i].tmpl->name);
        else
            printf("ok %s: %d registers, %d stack\n", spec, cases[i].registers, cases[i].stack);
        bad += cases[i].failed;
    }
    printf("%d kernels compiled by %s, %d failed\n", n_cases, identity, bad);
    for (int i = 0; i < n_templates; i++) mj_template_free(templates[i]);
    mj_sources_free(&sources);
    nvrtc->close(nvrtc);
    free(cases);
    return bad != 0 || n_cases == 0;
}
