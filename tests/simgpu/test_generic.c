/* Generic kernels on a cuda device: nocompile and tiered run from a pack that mojit-pack made with the simulator's NVRTC.
 * test_generic LIBRARIES PACK; each case is a child process, since libraries and variables count once a process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/cache.h"
#include "jit/generic_pack.h"
#include "ops/check.h"
#include "runtime/base/fs.h"

static const char *libraries, *pack_file;
static char folder[64];

#define WANT(expr)                                                                                                     \
    do {                                                                                                               \
        if (!(expr)) {                                                                                                 \
            printf("FAIL %s:%d: %s\n", __func__, __LINE__, #expr);                                                     \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* ---- the pack itself ---- */

static void what_serves_what(void)
{
    WANT(mj_generic_serves("sm_90a", "sm_90a") > mj_generic_serves("sm_90", "sm_90a"));
    WANT(mj_generic_serves("sm_90", "sm_90a") > mj_generic_serves("compute_90", "sm_90a"));
    WANT(mj_generic_serves("compute_90", "sm_90a") > mj_generic_serves("compute_80", "sm_90a"));
    WANT(mj_generic_serves("compute_80", "sm_90a") > 0);
    WANT(mj_generic_serves("sm_80", "sm_90a") == 0);   /* another generation */
    WANT(mj_generic_serves("sm_89", "sm_89") > mj_generic_serves("sm_80", "sm_89"));
    WANT(mj_generic_serves("sm_80", "sm_86") > 0);     /* a later card of one generation */
    WANT(mj_generic_serves("sm_89", "sm_86") == 0);    /* an earlier one */
    WANT(mj_generic_serves("sm_90a", "sm_100a") == 0); /* "a" runs on its own card only */
    WANT(mj_generic_serves("sm_100", "sm_100a") > 0);
    WANT(mj_generic_serves("sm_100", "sm_103") > 0);
    WANT(mj_generic_serves("sm_100a", "sm_103") == 0);
    WANT(mj_generic_serves("compute_90", "sm_120") > 0);
    WANT(mj_generic_serves("compute_90", "sm_89") == 0);
    WANT(mj_generic_serves("sm_90a", "cpu:avx2") == 0);
}

static void write_pack(const char *path, const char *bytes, size_t len)
{
    MjError err = MJ_ERROR_INIT;
    WANT(mj_fs_write_atomic(path, bytes, len, &err) == 0);
    setenv("MOJIT_GENERIC_PATH", path, 1);
}

/* Cut anywhere, or with any byte changed, a pack is refused; each byte of the header and index, some of the frames. */
static void damaged_packs_are_refused(void)
{
    char path[100], *bytes = NULL;
    size_t len = 0;
    MjError err = MJ_ERROR_INIT;
    MjGenericPack *p = NULL;

    snprintf(path, sizeof path, "%s/damaged.pack", folder);
    WANT(mj_fs_read(pack_file, &bytes, &len, &err) == 0);
    for (size_t i = 0; i < 60; i++) {
        const size_t at = i < 45 ? i : len / 60 * i;
        bytes[at] ^= 1;
        write_pack(path, bytes, len);
        WANT(mj_generic_pack_open(&p, &err) == MJ_ERR_DATA && p == NULL && strstr(err.message, path) != NULL);
        bytes[at] ^= 1;
        write_pack(path, bytes, at);
        WANT(mj_generic_pack_open(&p, &err) == MJ_ERR_DATA && p == NULL);
    }
    write_pack(path, bytes, len);
    WANT(mj_generic_pack_open(&p, &err) == 0 && p->n_frames > 20);
    mj_generic_pack_close(p);
    setenv("MOJIT_GENERIC_PATH", "/nowhere/a.pack", 1);
    WANT(mj_generic_pack_open(&p, &err) == MJ_ERR_IO && strstr(err.message, "/nowhere/a.pack") != NULL);
    mj_error_clear(&err);
    free(bytes);
}

/* What is embedded in this build: for each target every template that it can run, or a note of why not. */
static void embedded_pack_is_whole(void)
{
    MjGenericPack *p = NULL;
    MjError err = MJ_ERROR_INIT;

    unsetenv("MOJIT_GENERIC_PATH");
    WANT(mj_generic_pack_open(&p, &err) == 0);
    WANT(p->n_frames > 0 || p->note[0] != '\0');
    for (int i = 0; i < p->n_frames; i++) {
        for (const MjSourceFile *f = mj_builtin_sources; f->name; f++) {
            MjTemplate *t = NULL;
            if (!mj_sources_is_template(f)) continue;
            WANT(mj_template_parse(f->name, f->text, "builtin", &t, &err) == 0);
            if (mj_template_serves(t, p->frames[i].target)) {
                int found = 0, want = 0;
                for (int g = 0; g < t->n_generic; g++)
                    want += (t->generic_families[g] >> mj_target_family(p->frames[i].target) & 1) != 0;
                for (int k = 0; k < p->n_frames; k++)
                    if (strcmp(p->frames[k].tmpl, t->name) == 0 && strcmp(p->frames[k].target, p->frames[i].target) == 0)
                        found += p->frames[k].n_images;
                if (found != want) printf("%s for %s: %d of %d\n", t->name, p->frames[i].target, found, want);
                WANT(found == want);
            }
            mj_template_free(t);
        }
        const void *bytes;
        for (int k = 0; k < p->frames[i].n_images; k++) {
            const MjGenericImage *image = &p->frames[i].images[k];
            WANT(mj_generic_unpack(p, &p->frames[i], image, &bytes, &err) == 0);
            const bool ptx = strncmp(p->frames[i].target, "compute", 7) == 0;
            WANT(ptx ? ((const char *)bytes)[image->bytes - 1] == '\0' && strstr(bytes, ".version") != NULL
                     : memcmp(bytes, "\177ELF", 4) == 0);
        }
    }
    mj_generic_pack_close(p);
}

/* ---- on a device ---- */

typedef struct Bench {
    MjDevice *device;
    MjJit *jit;
    MjOps ops;
    MjStr said;
} Bench;

static void hear(void *user, const char *line)
{
    mj_str_puts(user, line);
    mj_str_puts(user, "\n");
}

static void open_bench(const char *mode_name, Bench *b)
{
    MjError err = MJ_ERROR_INIT;
    const MjMode *mode;
    memset(b, 0, sizeof *b);
    if (mj_device_open("cuda", NULL, &b->device, &err) != 0) {
        printf("FAIL no device: %s\n", err.message);
        exit(1);
    }
    WANT(mj_mode_find(mode_name, &mode, &err) == 0);
    const MjJitOptions options = {.device = b->device, .mode = mode, .bucket = {MJ_BUCKET_EXACT, 1}, .log = hear, .log_user = &b->said};
    WANT(mj_jit_open(&options, &b->jit, &err) == 0);
    WANT(mj_ops_open(b->device, b->jit, &b->ops, &err) == 0);
}

static void close_bench(Bench *b)
{
    mj_jit_close(b->jit);
    mj_device_close(b->device);
    mj_str_free(&b->said);
}

static int check(Bench *b, const char *op, const char *mode, MjError *err)
{
    MjOpId id;
    MjStr line = MJ_STR_INIT;
    int rc = 0;
    WANT(mj_op_find(op, &id, err) == 0);
    for (const MjOpShape *s = mj_op_check_shapes(id); s->tokens >= 0 && rc == 0; s++) {
        rc = mj_op_check(&b->ops, id, s, 7, mode, &line, err);
        if (rc != 0 && line.len > 0) printf("%s\n", mj_str_text(&line));
    }
    mj_str_free(&line);
    return rc;
}

static void nocompile_compiles_nothing(void)
{
    static const char *const ops[] = {"rmsnorm_fwd", "quantize", "relu2_fwd", "route_map", "router_bwd", "permute"};
    Bench b;
    MjError err = MJ_ERROR_INIT;
    MjJitCounters c;

    open_bench("nocompile", &b);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (check(&b, ops[i], "nocompile", &err) != 0) {
            printf("FAIL %s: %s\n", ops[i], err.message);
            exit(1);
        }
    mj_jit_counters(b.jit, &c);
    WANT(c.compiles == 0 && c.compiler_loads == 0 && c.generic_launches == c.requests && c.requests > 0);
    close_bench(&b);
}

static void tiered_starts_generic(void)
{
    Bench b;
    MjError err = MJ_ERROR_INIT;
    MjJitCounters c;

    open_bench("tiered", &b);
    WANT(check(&b, "sum", "tiered", &err) == 0);
    mj_jit_counters(b.jit, &c);
    WANT(c.generic_launches > 0 && c.stalls == 0 && c.deferred > 0);
    for (int i = 0; i < 6000 && c.background_swaps < c.deferred; i++) {
        usleep(10000);
        mj_jit_step(b.jit);
        mj_jit_counters(b.jit, &c);
    }
    WANT(c.background_swaps == c.deferred);
    WANT(check(&b, "sum", "tiered", &err) == 0);
    close_bench(&b);
}

/* The pack holds sm_90a alone. */
static void another_card_is_told_what_to_do(void)
{
    Bench b;
    MjError err = MJ_ERROR_INIT;

    setenv("MOJIT_SIMGPU_ARCH", "sm_80", 1);
    open_bench("nocompile", &b);
    WANT(check(&b, "sum", "nocompile", &err) == MJ_ERR_MISSING);
    WANT(mj_exit_status(err.code) == 3);
    WANT(strstr(err.message, "sm_80") && strstr(err.message, "sm_90a") && strstr(err.message, "gpu_generic") &&
         strstr(err.message, "--mode static"));
    mj_error_clear(&err);
    close_bench(&b);
}

/* tiered without a generic build waits, and says so. */
static void tiered_without_generics_says_so(void)
{
    Bench b;
    MjError err = MJ_ERROR_INIT;
    MjJitCounters c;

    setenv("MOJIT_SIMGPU_ARCH", "sm_80", 1);
    open_bench("tiered", &b);
    WANT(check(&b, "balance", "tiered", &err) == 0);
    mj_jit_counters(b.jit, &c);
    WANT(c.generic_launches == 0 && c.stalls > 0 && strstr(mj_str_text(&b.said), "balance waits for its compile") != NULL);
    close_bench(&b);
}

/* A header that a folder replaces makes other kernels: the pack's are not taken for them. */
static void other_sources_are_refused(void)
{
    Bench b;
    MjError err = MJ_ERROR_INIT;
    char path[100];

    for (const MjSourceFile *f = mj_builtin_sources; f->name; f++) {
        if (strcmp(f->name, "prelude.h") != 0) continue;
        char *text = mj_strdup_printf("%s\n/* changed */\n", f->text);
        snprintf(path, sizeof path, "%s/kernels", folder);
        WANT(mj_fs_make_dirs(path, 0700, &err) == 0);
        snprintf(path, sizeof path, "%s/kernels/prelude.h", folder);
        WANT(mj_fs_write_atomic(path, text, strlen(text), &err) == 0);
        free(text);
    }
    snprintf(path, sizeof path, "%s/kernels", folder);
    setenv("MOJIT_KERNELS", path, 1);
    open_bench("nocompile", &b);
    WANT(check(&b, "sum", "nocompile", &err) == MJ_ERR_USAGE && strstr(err.message, "other sources") != NULL);
    mj_error_clear(&err);
    close_bench(&b);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"what_serves_what", what_serves_what},
    {"damaged_packs_are_refused", damaged_packs_are_refused},
    {"embedded_pack_is_whole", embedded_pack_is_whole},
    {"nocompile_compiles_nothing", nocompile_compiles_nothing},
    {"tiered_starts_generic", tiered_starts_generic},
    {"another_card_is_told_what_to_do", another_card_is_told_what_to_do},
    {"tiered_without_generics_says_so", tiered_without_generics_says_so},
    {"other_sources_are_refused", other_sources_are_refused},
};

int main(int argc, char **argv)
{
    int failed = 0;
    if (argc < 3) {
        fprintf(stderr, "usage: test_generic LIBRARIES PACK [CASE]\n");
        return 2;
    }
    libraries = argv[1];
    pack_file = argv[2];
    snprintf(folder, sizeof folder, "/tmp/mojit-test-generic-XXXXXX");
    if (!mkdtemp(folder)) return 99;
    setvbuf(stdout, NULL, _IOLBF, 0);
    setenv("MOJIT_CUDA_LIBRARY_PATH", libraries, 1);
    setenv("MOJIT_GENERIC_PATH", pack_file, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = 0;
        if (argc > 3 && strcmp(argv[3], cases[i].name) != 0) continue;
        const pid_t pid = fork();
        if (pid == 0) {
            cases[i].run();
            exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid) return 99;
        printf("%s %s\n", status == 0 ? "ok  " : "FAIL", cases[i].name);
        failed += status != 0;
    }
    (void)!mj_fs_remove_tree(folder, NULL);
    return failed != 0;
}
