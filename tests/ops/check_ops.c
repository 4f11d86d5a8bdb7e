/* Every op against its double-precision reference: check_ops [OP...] [--mode M] [--seed N] [--shape a=1,b=2]
 * [--threads N] [--device D] [--bench [--large]] [--tuning NAME=N,...]... [--sample] [--refuses N]. One line an op; a failing
 * case prints what was wanted, what came, and how to run just that. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/cache.h"
#include "ops/check.h"
#include "ops/op_row.h"

#define MOST_TUNINGS 32

typedef struct Options {
    const char *tuning[MOST_TUNINGS]; /* each shape is timed with each: values that replace the chosen ones */
    int n_tunings;
    const char *mode, *shape, *device;
    uint64_t seed;
    int threads, refuses; /* how many shapes the device has no template for */
    bool bench, large, sample, wanted[MJ_OP_COUNT], any;
} Options;

static int usage(const char *why)
{
    fprintf(stderr, "check_ops: %s\nusage: check_ops [OP...] [--mode static|dynamic|nocompile|unbound] [--seed N] [--shape a=1,b=2] "
                    "[--threads N] [--device D] [--bench [--large]] [--tuning NAME=N,...]... [--sample] [--refuses N]\n", why);
    return 2;
}

static int parse(int argc, char **argv, Options *o)
{
    MjError err = MJ_ERROR_INIT;
    for (int i = 1; i < argc; i++) {
        MjOpId id;
        if (strcmp(argv[i], "--bench") == 0) {
            o->bench = true;
        } else if (strcmp(argv[i], "--large") == 0) {
            o->bench = o->large = true; /* timed at the shapes for a GPU */
        } else if (strcmp(argv[i], "--sample") == 0) {
            o->sample = true; /* the sampled references of shapes for a GPU, on these */
        } else if (strncmp(argv[i], "--", 2) == 0) {
            if (i + 1 == argc) return usage("an option needs a value");
            if (strcmp(argv[i], "--mode") == 0) o->mode = argv[++i];
            else if (strcmp(argv[i], "--device") == 0) o->device = argv[++i];
            else if (strcmp(argv[i], "--shape") == 0) o->shape = argv[++i];
            else if (strcmp(argv[i], "--tuning") == 0 && o->n_tunings < MOST_TUNINGS) o->tuning[o->n_tunings++] = argv[++i];
            else if (strcmp(argv[i], "--seed") == 0) o->seed = strtoull(argv[++i], NULL, 10);
            else if (strcmp(argv[i], "--threads") == 0) o->threads = atoi(argv[++i]);
            else if (strcmp(argv[i], "--refuses") == 0) o->refuses = atoi(argv[++i]);
            else return usage(argv[i]);
        } else if (mj_op_find(argv[i], &id, &err) == 0) {
            o->wanted[id] = o->any = true;
        } else {
            return usage(err.message);
        }
    }
    return 0;
}

/* 0, 1 where it failed, MJ_ERR_MISSING where the device has no template for the shape and such were foreseen. */
static int check_shape(MjOps *ops, MjOpId id, const MjOpShape *shape, const Options *o)
{
    MjError err = MJ_ERROR_INIT;
    MjStr line = MJ_STR_INIT;
    MjCase *c = NULL;
    int rc = mj_case_open(ops, id, shape, o->seed, &c, &err);
    if (rc == 0 && o->sample) mj_case_sample(c);
    if (rc == 0) rc = mj_case_run(c, &err);
    if (rc == 0) rc = mj_case_verify(c, o->mode, &line, &err);
    mj_case_close(c);
    if (rc != 0) printf("%s\n", line.len > 0 ? mj_str_text(&line) : err.message);
    if (rc != 0 && err.log != NULL) printf("%s\n", err.log);
    mj_str_free(&line);
    mj_error_clear(&err);
    return rc == MJ_ERR_MISSING && o->refuses > 0 ? rc : rc != 0;
}

/* The tuning values that would be chosen for a case, with some of them replaced: "TILE_M=128,STAGES=3". */
static int force_tuning(MjOps *ops, MjOpId id, const MjCase *c, const char *text, MjError *err)
{
    const MjOpBinding *b;
    MjRequest asked, chosen;
    char copy[256], *rest = copy;
    ops->forced_tmpl = NULL;
    int rc = mj_op_request(ops, id, mj_case_args(c), &b, &asked, &chosen, err);
    if (rc != 0) return rc;
    (void)snprintf(copy, sizeof copy, "%s", text);
    for (char *word; (word = strsep(&rest, ",")) != NULL;) {
        char *eq = strchr(word, '=');
        if (eq == NULL) return mj_error(err, MJ_ERR_USAGE, "--tuning: '%s' is not NAME=N", word);
        *eq = 0;
        const int p = mj_template_param(b->tmpl, word);
        if (p < 0 || b->tmpl->params[p].kind != MJ_PARAM_TUNING)
            return mj_error(err, MJ_ERR_USAGE, "--tuning: %s has no tuning parameter %s", b->tmpl->name, word);
        chosen.values[p] = (int32_t)atoi(eq + 1);
    }
    ops->forced_tmpl = b->tmpl;
    memcpy(ops->forced, chosen.values, sizeof chosen.values);
    return 0;
}

static int time_case(MjOps *ops, MjOpId id, MjCase *c, const char *tuning, const char *shape)
{
    MjError err = MJ_ERROR_INIT;
    MjTiming t;
    int rc = tuning != NULL ? force_tuning(ops, id, c, tuning, &err) : 0;
    if (rc == 0) rc = mj_case_time(c, 0.1, &t, &err);
    if (rc == 0)
        printf("%-16s %8.1f us  %7.2f GB/s %9.1f GFLOP/s  %s  %s\n", mj_op_name(id), t.median_s * 1e6,
               mj_case_bytes(c) / t.median_s * 1e-9, mj_case_flops(c) / t.median_s * 1e-9, tuning != NULL ? tuning : "", shape);
    else
        printf("%s: %s\n", mj_op_name(id), err.message);
    ops->forced_tmpl = NULL;
    mj_error_clear(&err);
    return rc != 0;
}

static int time_shape(MjOps *ops, MjOpId id, const MjOpShape *s, const Options *o)
{
    MjError err = MJ_ERROR_INIT;
    MjStr text = MJ_STR_INIT;
    MjCase *c = NULL;
    int failed = 0;
    mj_shape_text(s, &text);
    if (mj_case_open(ops, id, s, o->seed, &c, &err) != 0) {
        printf("%s: %s\n", mj_op_name(id), err.message);
        failed = 1;
    }
    for (int i = 0; c != NULL && i < (o->n_tunings > 0 ? o->n_tunings : 1); i++)
        failed += time_case(ops, id, c, o->tuning[i], mj_str_text(&text));
    mj_case_close(c);
    mj_str_free(&text);
    mj_error_clear(&err);
    return failed;
}

static int time_op(MjOps *ops, MjOpId id, const Options *o, const MjOpShape *given)
{
    int failed = 0;
    if (given != NULL) return time_shape(ops, id, given, o);
    for (const MjOpShape *s = o->large ? mj_op_gpu_bench_shapes(id) : mj_op_bench_shapes(id); s->tokens >= 0; s++)
        failed += time_shape(ops, id, s, o);
    return failed;
}

static int check_op(MjOps *ops, MjOpId id, const Options *o, int *all_refused)
{
    MjOpShape given = {0};
    MjError err = MJ_ERROR_INIT;
    int cases = 0, failed = 0, refused = 0;
    if (o->shape != NULL) {
        if (mj_shape_parse(o->shape, &given, &err) != 0) exit(usage(err.message));
        return o->bench ? time_op(ops, id, o, &given) : check_shape(ops, id, &given, o);
    }
    if (o->bench) return time_op(ops, id, o, NULL);
    for (const MjOpShape *s = mj_op_check_shapes(id); s->tokens >= 0; s++, cases++) {
        const int rc = check_shape(ops, id, s, o);
        refused += rc == MJ_ERR_MISSING;
        failed += rc == 1;
    }
    if (refused > 0) printf("%d shapes refused\n", refused);
    printf("%s %s[%s]: %d of %d shapes\n", failed == 0 ? "ok  " : "FAIL", mj_op_name(id), o->mode, cases - failed - refused, cases);
    *all_refused += refused;
    return failed;
}

static void say(void *user, const char *line)
{
    (void)user;
    fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv)
{
    Options o = {.mode = "nocompile", .seed = 7};
    MjError err = MJ_ERROR_INIT;
    MjDevice *device = NULL;
    MjJit *jit = NULL;
    MjCache *cache = NULL;
    int rc = parse(argc, argv, &o), failed = 0, refused = 0;
    if (rc != 0) return rc;
    const MjMode *mode;
    static MjOps ops;
    MjDeviceOptions device_options = {.threads = o.threads};
    /* Nothing bound, compiled here: the code of the generic builds, also where none is embedded. */
    static const MjMode unbound = {.name = "unbound", .pad = MJ_PAD_NONE, .miss = MJ_MISS_COMPILE};
    if (strcmp(o.mode, unbound.name) == 0) mode = &unbound;
    else MJ_TRY(mj_mode_find(o.mode, &mode, &err));
    MJ_TRY(mj_cache_open(&(MjCacheOptions){0}, &cache, &err));
    MJ_TRY(mj_device_open(o.device, &device_options, &device, &err));
    MjJitOptions options = {.device = device, .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}, .budget = 1000, .cache = cache, .log = say};
    MJ_TRY(mj_jit_open(&options, &jit, &err));
    MJ_TRY(mj_ops_open(device, jit, &ops, &err));
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int id = 0; id < MJ_OP_COUNT; id++)
        if (!o.any || o.wanted[id]) failed += check_op(&ops, (MjOpId)id, &o, &refused);
    if (refused != o.refuses && o.shape == NULL && !o.bench) {
        printf("FAIL %d shapes refused, %d foreseen\n", refused, o.refuses);
        failed++;
    }
out:
    if (rc != 0) fprintf(stderr, "check_ops: %s\n", err.message);
    if (rc == MJ_ERR_MISSING) printf("skipped: %s\n", err.message);
    mj_jit_close(jit);
    mj_cache_close(cache);
    mj_device_close(device);
    return rc == MJ_ERR_MISSING ? 77 : rc != 0 ? 1 : failed != 0;
}
