/* Whether the tests on the simulated GPU leave anything out: every template that a GPU has is what some check shape of some op
 * chooses on some family, and every family and mode has a test that runs every op. Arguments: the simulator's libraries, the folder
 * of the templates, then FAMILY:MODE for each test of all ops (tests/ops/meson.build makes tests and list together). */
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "jit/mode.h"
#include "ops/matrix_list.h"
#include "ops/op_row.h"
#include "ops/check.h"

enum { MOST = 128 };
static char reached[MOST][64];
static int n_reached, failed;

static void reach(const char *name)
{
    for (int i = 0; i < n_reached; i++)
        if (strcmp(reached[i], name) == 0) return;
    if (n_reached < MOST) (void)snprintf(reached[n_reached++], sizeof reached[0], "%s", name);
}

/* The template of every check shape of every op on one target, into `reached`; prints how many shapes have none. */
static int walk(const char *target, MjCache *cache, MjFamily *family, MjError *err)
{
    _Alignas(16) unsigned char args[MJ_MAX_ARG_BYTES];
    const MjMode *mode;
    MjJit *jit = NULL;
    MjOps ops = {0};
    int shapes = 0, without = 0, rc;
    MJ_TRY(mj_mode_find("static", &mode, err));
    const MjJitOptions options = {.target = target, .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}, .budget = 1 << 20, .cache = cache};
    MJ_TRY(mj_jit_open(&options, &jit, err));
    MJ_TRY(mj_ops_open(NULL, jit, &ops, err));
    *family = ops.family;
    for (int id = 0; id < MJ_OP_COUNT; id++) {
        int found = 0;
        for (const MjOpShape *s = mj_op_check_shapes((MjOpId)id); s->tokens >= 0; s++, shapes++) {
            MjError why = MJ_ERROR_INIT;
            MjMatrixKernel k;
            rc = mj_matrix_kernel(&ops, (MjOpId)id, s, args, &k, &why);
            if (rc == 0) reach(k.asked.tmpl->name);
            found += rc == 0;
            without += rc == MJ_ERR_MISSING;
            if (rc != 0 && rc != MJ_ERR_MISSING) {
                printf("FAIL %s on %s: %s\n", mj_op_name((MjOpId)id), target, why.message);
                failed++;
            }
            mj_error_clear(&why);
        }
        if (found == 0) {
            printf("FAIL no check shape of %s has a template on %s\n", mj_op_name((MjOpId)id), target);
            failed++;
        }
    }
    printf("%s: %d shapes of %d ops, %d of them refused\n", target, shapes, (int)MJ_OP_COUNT, without);
    rc = 0;
out:
    mj_ops_close(&ops);
    mj_jit_close(jit);
    return rc;
}

static void check_templates(const char *folder)
{
    DIR *d = opendir(folder);
    if (d == NULL) {
        printf("FAIL no folder %s\n", folder);
        failed++;
        return;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        const size_t n = strlen(e->d_name);
        bool found = false;
        if (n < 4 || strcmp(e->d_name + n - 3, ".cu") != 0 || strcmp(e->d_name, "saxpy.cu") == 0) continue; /* the JIT's own example */
        for (int i = 0; i < n_reached; i++) found = found || (strlen(reached[i]) == n - 3 && strncmp(reached[i], e->d_name, n - 3) == 0);
        if (found) continue;
        printf("FAIL no check shape of any op chooses %s on any family\n", e->d_name);
        failed++;
    }
    closedir(d);
}

static bool tested(int n, char **pairs, const char *target, const char *mode)
{
    char want[64];
    (void)snprintf(want, sizeof want, "%s:%s", target, mode);
    for (int i = 0; i < n; i++)
        if (strcmp(pairs[i], want) == 0) return true;
    return false;
}

/* `tiered` runs nocompile's kernels and then static's: whole steps of it are tests/train/test_gpu.c's. Where no generic images are
 * made for a family, `unbound` compiles the same code. */
static void check_modes(int n, char **pairs, const char *target)
{
    for (const MjMode *m = mj_modes; m->name != NULL; m++) {
        if (strcmp(m->name, "tiered") == 0 || tested(n, pairs, target, m->name)) continue;
        if (strcmp(m->name, "nocompile") == 0 && tested(n, pairs, target, "unbound")) continue;
        printf("FAIL no test runs every op on %s in mode %s\n", target, m->name);
        failed++;
    }
}

int main(int argc, char **argv)
{
    static const char *const targets[] = {"sm_80", "sm_89", "sm_90a", "sm_100a"};
    MjError err = MJ_ERROR_INIT;
    MjCache *cache = NULL;
    unsigned families = 0;
    int rc;
    if (argc < 4) {
        fprintf(stderr, "usage: test_coverage LIBRARIES TEMPLATES FAMILY:MODE...\n");
        return 2;
    }
    setenv("MOJIT_CUDA_LIBRARY_PATH", argv[1], 1);
    MJ_TRY(mj_cache_open(&(MjCacheOptions){0}, &cache, &err));
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        MjFamily family;
        MJ_TRY(walk(targets[i], cache, &family, &err));
        families |= 1u << family;
        check_modes(argc - 3, argv + 3, targets[i]);
    }
    for (int f = MJ_FAMILY_SM80; f <= MJ_FAMILY_SM100; f++)
        if ((families >> f & 1u) == 0) {
            printf("FAIL no target of family %d\n", f);
            failed++;
        }
    check_templates(argv[2]);
out:
    if (rc != 0) printf("%s: %s\n", rc == MJ_ERR_MISSING ? "skipped" : "test_coverage", err.message);
    mj_cache_close(cache);
    return rc == MJ_ERR_MISSING ? 77 : rc != 0 || failed > 0;
}
