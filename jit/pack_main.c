/* A build-time tool: compiles the generic builds of all GPU templates through NVRTC (no GPU, no nvcc) and writes them as a
 * pack (generic_pack.h), and a C file that embeds it. Runs while mojit is being built.
 *
 *   mojit-pack OUT.pack OUT.c WORK TARGETS ONLY FILE...
 *
 * WORK keeps the images of earlier runs by a hash of everything that decides them: only what changed is compiled, in
 * parallel over the cores. TARGETS: a comma list, "sm_90a,compute_90"; ONLY: a comma list of templates, "" for all.
 * Without NVRTC the pack holds no images and says why; mojit still builds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "jit/compiler.h"
#include "jit/generic_pack.h"
#include "runtime/base/clock.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/base/pool.h"
#include "runtime/device.h"

typedef struct Job { /* one image */
    const MjTemplate *tmpl;
    const char *target;
    int32_t values[MJ_MAX_PARAMS];
    char *name;      /* in WORK */
    char *image;
    size_t bytes;
    double seconds;  /* 0: it was there */
    int rc;
    MjError err;
} Job;

typedef struct Packer {
    const char *work;
    MjCompiler *nvrtc;
    MjSources sources;
    MjTemplate *templates[256];
    int n_templates;
    char *target_words, *targets[32];
    int n_targets;
    Job *jobs; /* by template, then target, then generic build */
    int n_jobs;
    MjGenericPack pack;
} Packer;

/* Several notes, a semicolon between them; they are one line of the index. */
static void note(Packer *p, const char *text)
{
    const size_t used = strlen(p->pack.note);

    snprintf(p->pack.note + used, sizeof p->pack.note - used, "%s%.180s", used ? "; " : "", text);
    for (char *at = p->pack.note; *at; at++)
        if (*at == '\n') *at = ' ';
    fprintf(stderr, "mojit-pack: %s\n", text);
}

static bool listed(const char *list, const char *name)
{
    const size_t n = strlen(name);

    for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == n && strncmp(at, name, n) == 0) return true;
    return !*list;
}

static int open_compiler(Packer *p, const char *targets)
{
    const char *identity, *flags;
    MjError err = MJ_ERROR_INIT;
    char *words = mj_xstrdup(targets);

    p->target_words = words;
    if (!*targets) {
        note(p, "this build was told to embed none");
    } else if (mj_compiler_nvrtc_open(&p->nvrtc, &err) != 0) {
        note(p, "NVRTC was not found when mojit was built");
    } else {
        for (char *word; (word = strsep(&words, ",")) != NULL && p->n_targets < 32;) {
            if (!*word) continue;
            if (p->nvrtc->identify(p->nvrtc, word, &identity, &flags, &err) != 0) {
                note(p, err.message);
                continue;
            }
            p->targets[p->n_targets++] = word;
            snprintf(p->pack.maker, sizeof p->pack.maker, "%s", identity);
        }
    }
    mj_error_clear(&err);
    return 0;
}

/* One image: from WORK, or compiled and kept there. */
static void make_one(void *user, int task, int worker)
{
    Packer *p = user;
    Job *job = &p->jobs[task];
    const char *identity, *flags;
    char *source = NULL, *path = NULL;
    MjCompileResult r = {.image = NULL};
    int rc = 0;

    (void)worker;
    MJ_TRY(p->nvrtc->identify(p->nvrtc, job->target, &identity, &flags, &job->err));
    MJ_TRY(mj_template_expand(job->tmpl, &p->sources, job->values, NULL, &source, &job->err));
    char *all = mj_strdup_printf("%s\n%s\n%s\n%s", identity, flags, job->target, source);
    const XXH128_hash_t h = XXH3_128bits(all, strlen(all));
    free(all);
    job->name = mj_strdup_printf("%s-%s-%016llx%016llx", job->tmpl->name, job->target, (unsigned long long)h.high64,
                                 (unsigned long long)h.low64);
    path = mj_strdup_printf("%s/%s", p->work, job->name);
    if (mj_fs_exists(path) && mj_fs_read(path, &job->image, &job->bytes, NULL) == 0) goto out;
    const MjCompileRequest req = {.source = source, .source_name = job->tmpl->file, .target = job->target,
                                  .entry = job->tmpl->kernels[0]};
    MJ_TRY(p->nvrtc->compile(p->nvrtc, &req, &r, &job->err));
    MJ_TRY(mj_fs_write_atomic(path, r.image, r.image_bytes, &job->err));
    job->image = r.image;
    job->bytes = r.image_bytes;
    job->seconds = r.seconds;
    r.image = NULL;
out:
    job->rc = rc;
    mj_compile_result_free(&r);
    free(source);
    free(path);
}

static void list_jobs(Packer *p, const char *only)
{
    for (int i = 0; i < p->n_templates; i++)
        for (int k = 0; k < p->n_targets; k++) {
            const MjTemplate *t = p->templates[i];
            if (!mj_template_serves(t, p->targets[k]) || !listed(only, t->name)) continue;
            p->jobs = mj_xrealloc(p->jobs, (size_t)(p->n_jobs + t->n_generic) * sizeof *p->jobs);
            for (int g = 0; g < t->n_generic; g++) {
                if (!(t->generic_families[g] >> mj_target_family(p->targets[k]) & 1)) continue;
                Job *job = &p->jobs[p->n_jobs++];
                *job = (Job){.tmpl = t, .target = p->targets[k]};
                mj_template_generic_values(t, g, job->values);
            }
        }
}

/* The jobs of one template and target make one frame. */
static int write_pack(Packer *p, const char *path, MjError *err)
{
    unsigned char **data = mj_xcalloc((size_t)p->n_jobs + 1, sizeof *data), *bytes = NULL;
    size_t len = 0;
    int rc = 0;

    p->pack.frames = mj_xcalloc((size_t)p->n_jobs + 1, sizeof *p->pack.frames);
    for (int i = 0; i < p->n_jobs; i++) {
        const Job *job = &p->jobs[i];
        if (i == 0 || job->tmpl != job[-1].tmpl || job->target != job[-1].target) {
            MjGenericFrame *fresh = &p->pack.frames[p->pack.n_frames++];
            snprintf(fresh->tmpl, sizeof fresh->tmpl, "%s", job->tmpl->name);
            snprintf(fresh->target, sizeof fresh->target, "%s", job->target);
            mj_generic_sources_hash(job->tmpl, &p->sources, fresh->sources);
        }
        MjGenericFrame *f = &p->pack.frames[p->pack.n_frames - 1];
        unsigned char **to = &data[p->pack.n_frames - 1];
        f->images = mj_xrealloc(f->images, (size_t)(f->n_images + 1) * sizeof *f->images);
        f->images[f->n_images] = (MjGenericImage){.offset = f->raw, .bytes = job->bytes};
        memcpy(f->images[f->n_images++].values, job->values, sizeof job->values);
        *to = mj_xrealloc(*to, f->raw + job->bytes);
        memcpy(*to + f->raw, job->image, job->bytes);
        f->raw += job->bytes;
    }
    MJ_TRY(mj_generic_pack_write(&p->pack, (const unsigned char *const *)data, &bytes, &len, err));
    MJ_TRY(mj_fs_write_atomic(path, bytes, len, err));
    printf("%d generic GPU kernels in %d frames, %zu bytes\n", p->n_jobs, p->pack.n_frames, len);
out:
    for (int i = 0; i < p->pack.n_frames; i++) {
        free(data[i]);
        free(p->pack.frames[i].images);
    }
    free(p->pack.frames);
    free(data);
    free(bytes);
    return rc;
}

/* A C file that holds the pack's bytes; it names their length and hash, so that it changes when they do. */
static int write_c(const char *path, const char *pack, MjError *err)
{
    char *bytes = NULL, *full = realpath(pack, NULL);
    size_t len = 0;
    int rc = mj_fs_read(pack, &bytes, &len, err);

    if (rc == 0) {
        const char *name = full ? full : pack;
        char *text = mj_strdup_printf(
            "/* generated by mojit-pack: %016llx */\n#include \"jit/generic_pack.h\"\n"
            "__asm__(\".pushsection .rodata\\n\\t.balign 16\\n\\t.globl mj_embedded_pack\\n\\t.type mj_embedded_pack, %%object\\n\"\n"
            "        \"mj_embedded_pack:\\n\\t.incbin \\\"%s\\\"\\n\\t.byte 0\\n\\t.size mj_embedded_pack, %zu\\n\\t.popsection\");\n"
            "const size_t mj_embedded_pack_bytes = %zu;\n",
            (unsigned long long)XXH3_64bits(bytes, len), name, len, len);
        rc = mj_fs_write_atomic(path, text, strlen(text), err);
        free(text);
    }
    free(bytes);
    free(full);
    return rc;
}

/* What WORK holds of earlier sources. */
static void sweep_work(const Packer *p)
{
    char **names = NULL;
    size_t n = 0;

    if (mj_fs_list(p->work, &names, &n, NULL) != 0) return;
    for (size_t i = 0; i < n; i++) {
        bool used = false;
        for (int k = 0; k < p->n_jobs && !used; k++) used = p->jobs[k].name && strcmp(p->jobs[k].name, names[i]) == 0;
        if (used) continue;
        char *path = mj_strdup_printf("%s/%s", p->work, names[i]);
        unlink(path);
        free(path);
    }
    mj_fs_list_free(names, n);
}

static int load_templates(Packer *p, int n, char **paths, MjError *err)
{
    for (int i = 0; i < n; i++) {
        const char *slash = strrchr(paths[i], '/');
        char *text = NULL;
        int rc = mj_fs_read(paths[i], &text, NULL, err);
        if (rc != 0) return rc;
        mj_sources_add(&p->sources, slash ? slash + 1 : paths[i], text, "builtin");
        free(text);
    }
    for (size_t i = 0; i < p->sources.n && p->n_templates < 256; i++) {
        const MjSourceFile *f = &p->sources.files[i];
        if (!mj_sources_is_template(f)) continue;
        int rc = mj_template_parse(f->name, f->text, "builtin", &p->templates[p->n_templates], err);
        if (rc != 0) return rc;
        p->n_templates++;
    }
    return 0;
}

/* Compiles what is missing; the first failure is the build's. */
static int make_all(Packer *p, MjError *err)
{
    const uint64_t start = mj_clock_ns();
    int made = 0, rc = 0;
    double seconds = 0.0;

    MjPool *pool = mj_pool_open(0);
    mj_pool_run(pool, p->n_jobs, make_one, p);
    mj_pool_close(pool);
    for (int i = 0; i < p->n_jobs; i++) {
        char spec[1024];
        Job *job = &p->jobs[i];
        made += job->seconds > 0.0;
        seconds += job->seconds;
        if (job->rc != 0 && rc == 0) {
            mj_spec_text(job->tmpl, job->target, job->values, spec, sizeof spec);
            rc = mj_error(err, job->rc, "generic build %s: %s\n%s", spec, job->err.message, job->err.log ? job->err.log : "");
        }
        mj_error_clear(&job->err);
    }
    if (made > 0)
        printf("%d of %d generic GPU kernels compiled, %.1f s of compiling in %.1f s\n", made, p->n_jobs, seconds,
               (double)(mj_clock_ns() - start) * 1e-9);
    return rc;
}

int main(int argc, char **argv)
{
    static Packer p;
    MjError err = MJ_ERROR_INIT;
    int rc = 0;

    if (argc < 7) {
        fprintf(stderr, "usage: mojit-pack OUT.pack OUT.c WORK TARGETS ONLY FILE...\n");
        return 2;
    }
    p.work = argv[3];
    MJ_TRY(load_templates(&p, argc - 6, argv + 6, &err));
    MJ_TRY(open_compiler(&p, argv[4]));
    MJ_TRY(mj_fs_make_dirs(p.work, 0755, &err));
    list_jobs(&p, argv[5]);
    MJ_TRY(make_all(&p, &err));
    MJ_TRY(write_pack(&p, argv[1], &err));
    MJ_TRY(write_c(argv[2], argv[1], &err));
    sweep_work(&p);
out:
    if (rc != 0) fprintf(stderr, "mojit-pack: %s\n", err.message);
    for (int i = 0; i < p.n_jobs; i++) {
        free(p.jobs[i].name);
        free(p.jobs[i].image);
    }
    for (int i = 0; i < p.n_templates; i++) mj_template_free(p.templates[i]);
    free(p.jobs);
    free(p.target_words);
    mj_sources_free(&p.sources);
    if (p.nvrtc) p.nvrtc->close(p.nvrtc);
    mj_error_clear(&err);
    return rc == 0 ? 0 : 1;
}
