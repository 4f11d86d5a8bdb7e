/* From a spec to a loaded image: the key, the disk cache, the locked compile, the load. The only code that calls both the
 * cache and a compiler. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/jit_internal.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"

#define MJ_KERNEL_ABI 1 /* of kernel_args.h and the entry points; part of every key */

enum { SPEC_CAP = 2048 };

Image *mj_jit_image(MjJit *jit, const MjTemplate *tmpl, const int32_t *bound)
{
    size_t bytes = (size_t)tmpl->n_params * sizeof *bound;

    for (Image *i = jit->images; i; i = i->next)
        if (i->tmpl == tmpl && memcmp(i->bound, bound, bytes) == 0) return i;
    Image *image = mj_xcalloc(1, sizeof *image);
    image->tmpl = tmpl;
    memcpy(image->bound, bound, bytes);
    image->next = jit->images;
    jit->images = image;
    return image;
}

/* The compiler's name for keys, remembered in the cache, so that a warm cache serves a machine without the compiler. */
char *mj_jit_compiler_label(const MjJit *jit)
{
    return mj_strdup_printf("abi: %d\nwhat: last compiler\ntarget: %s\n", MJ_KERNEL_ABI, jit->target);
}

static bool recall_identity(MjJit *jit)
{
    MjCacheEntry entry = {.memory = NULL};
    char *label = mj_jit_compiler_label(jit);
    bool known = jit->opt.cache && mj_cache_get(jit->opt.cache, mj_cache_key(label), &entry) == MJ_CACHE_HIT;

    free(label);
    if (known) {
        char *text = mj_xstrndup((const char *)entry.image, entry.image_bytes), *split = strchr(text, '\n');
        known = split != NULL;
        if (split) {
            *split = 0;
            jit->identity = mj_xstrdup(text);
            jit->flags = mj_xstrdup(split + 1);
        }
        free(text);
    }
    mj_cache_entry_free(&entry);
    return known;
}

/* Once a run, after the first image. */
static void remember_identity(MjJit *jit)
{
    char *label, *text;
    MjCacheEntry entry = {.memory = NULL};

    pthread_mutex_lock(&jit->mutex);
    bool mine = jit->compiler && !jit->remembered;
    if (mine) jit->remembered = true;
    pthread_mutex_unlock(&jit->mutex);
    if (!mine) return; /* identity and flags do not change any more once there is a compiler */
    label = mj_jit_compiler_label(jit);
    text = mj_strdup_printf("%s\n%s", jit->identity, jit->flags);
    size_t len = strlen(text);
    if (mj_cache_get(jit->opt.cache, mj_cache_key(label), &entry) != MJ_CACHE_HIT || entry.image_bytes != len ||
        memcmp(entry.image, text, len) != 0)
        (void)mj_cache_put(jit->opt.cache, label, text, len, NULL, 0, NULL);
    mj_cache_entry_free(&entry);
    free(text);
    free(label);
}

static int open_compiler(MjJit *jit, MjError *err)
{
    int rc = 0;
    const char *identity, *flags;
    MjCompiler *c = NULL;

    if (jit->compiler) return 0;
    if (jit->no_compiler.code != 0) { /* it was looked for already */
        mj_error_copy(err, &jit->no_compiler);
        return jit->no_compiler.code;
    }
    rc = strncmp(jit->target, "sm_", 3) == 0 ? mj_compiler_nvrtc_open(&c, &jit->no_compiler)
                                             : mj_compiler_cc_open(&c, &jit->no_compiler);
    if (rc == 0) {
        c->timeout_s = jit->opt.timeout_s;
        rc = c->identify(c, jit->target, &identity, &flags, &jit->no_compiler);
        if (rc != 0) c->close(c);
    }
    if (rc != 0) {
        jit->no_compiler.code = rc;
        mj_error_copy(err, &jit->no_compiler);
        return rc;
    }
    free(jit->identity);
    free(jit->flags);
    jit->identity = mj_xstrdup(identity);
    jit->flags = mj_xstrdup(flags);
    jit->compiler = c;
    jit->counters.compiler_loads++;
    return 0;
}

/* What is read of the sources is hashed once for a template. Under the mutex. */
static const char *source_labels(MjJit *jit, const MjTemplate *tmpl)
{
    SourceLabels *l = jit->labels;

    while (l && l->tmpl != tmpl) l = l->next;
    if (!l) {
        MjStr text = MJ_STR_INIT;
        mj_template_source_labels(tmpl, &jit->sources, &text);
        l = mj_xcalloc(1, sizeof *l);
        *l = (SourceLabels){.tmpl = tmpl, .text = mj_str_take(&text), .next = jit->labels};
        jit->labels = l;
    }
    return l->text;
}

void mj_jit_forget_labels(MjJit *jit)
{
    for (SourceLabels *l = jit->labels; l;) {
        SourceLabels *next = l->next;
        free(l->text);
        free(l);
        l = next;
    }
    jit->labels = NULL;
}

/* The labelled text of everything that decides the bytes of an image. Under the mutex. */
static int key_text(MjJit *jit, const Image *image, char **out, MjError *err)
{
    char spec[SPEC_CAP];
    MjStr text = MJ_STR_INIT;

    if (!jit->identity) {
        int rc = open_compiler(jit, err);
        if (rc != 0 && !recall_identity(jit)) return rc;
        if (rc != 0) mj_error_clear(err);
    }
    mj_spec_text(image->tmpl, jit->target, image->bound, spec, sizeof spec);
    mj_str_printf(&text, "abi: %d\ntemplate: %s\ntarget: %s\nspec: %s\n", MJ_KERNEL_ABI, image->tmpl->name, jit->target, spec);
    mj_str_puts(&text, source_labels(jit, image->tmpl));
    mj_str_printf(&text, "compiler: %s\nflags: %s\n", jit->identity, jit->flags);
    *out = mj_str_take(&text);
    return 0;
}

int mj_jit_key_text(MjJit *jit, const MjRequest *req, char **out, MjError *err)
{
    Image image = {.tmpl = req->tmpl};
    int rc = mj_template_check(req->tmpl, req->values, err);

    if (rc != 0) return rc;
    pthread_mutex_lock(&jit->mutex);
    mj_jit_bind(jit, req, image.bound);
    rc = key_text(jit, &image, out, err);
    pthread_mutex_unlock(&jit->mutex);
    return rc;
}

int mj_jit_plan_key_text(MjJit *jit, int i, char **out, MjError *err)
{
    Image image = {.tmpl = jit->plan[i]->tmpl};

    memcpy(image.bound, jit->plan[i]->bound, sizeof image.bound);
    pthread_mutex_lock(&jit->mutex);
    int rc = key_text(jit, &image, out, err);
    pthread_mutex_unlock(&jit->mutex);
    return rc;
}

/* Loads an image and finds every entry point of its template in it. */
static int load(MjJit *jit, Image *image, const void *bytes, size_t len, MjError *err)
{
    MjDevice *dev = jit->opt.device;
    MjModule *module = NULL;
    MjKernelFn *fn;
    uint64_t start = mj_clock_ns();

    if (!dev) return 0;
    int rc = dev->ops->module_load(dev, bytes, len, &module, err);
    for (int i = 0; rc == 0 && i < image->tmpl->n_kernels; i++)
        rc = dev->ops->module_function(module, image->tmpl->kernels[i], &fn, err);
    if (rc == 0) image->module = module;
    else if (module) dev->ops->module_unload(dev, module);
    pthread_mutex_lock(&jit->mutex);
    jit->counters.load_ms += (double)(mj_clock_ns() - start) * 1e-6;
    pthread_mutex_unlock(&jit->mutex);
    return rc;
}

static void count(MjJit *jit, const Image *image, const MjCacheStats *add)
{
    if (jit->opt.cache) mj_cache_count(jit->opt.cache, jit->opt.mode->name, image->tmpl->name, add);
}

/* What the log says of it; of an image that one thread builds or has built. */
static void report(Image *image, const char *log, double seconds, size_t bytes, bool compiled)
{
    MjCompileResult r = {.image = NULL};

    mj_compile_log_read(log, &r);
    image->report = (MjImageReport){.registers = r.registers, .spill_bytes = r.spill_bytes, .stack_bytes = r.stack_bytes,
                                    .shared_bytes = r.shared_bytes, .compile_s = seconds, .compiled = compiled, .image_bytes = bytes};
}

bool mj_jit_cached(MjJit *jit, const MjTemplate *tmpl, const int32_t *bound)
{
    Image image = {.tmpl = tmpl};
    MjCacheEntry entry = {.memory = NULL};
    char *label = NULL;
    bool found = false;

    memcpy(image.bound, bound, sizeof image.bound);
    if (jit->opt.cache && key_text(jit, &image, &label, NULL) == 0)
        found = mj_cache_get(jit->opt.cache, mj_cache_key(label), &entry) == MJ_CACHE_HIT;
    mj_cache_entry_free(&entry);
    free(label);
    return found;
}

/* One look into the cache. Returns 1 when it had the image and it is loaded, 0 when there is nothing of use, negative when
 * that says nothing about the image (no memory). A bad entry and a good one whose image the device refuses are *corrupt. */
static int from_cache(MjJit *jit, Image *image, const char *label, bool *corrupt, MjError *err)
{
    MjCacheEntry entry = {.memory = NULL};
    MjError why = MJ_ERROR_INIT;
    uint64_t start = mj_clock_ns();
    int rc;

    if (!jit->opt.cache) return 0;
    MjCacheResult found = mj_cache_get(jit->opt.cache, mj_cache_key(label), &entry);
    pthread_mutex_lock(&jit->mutex);
    jit->counters.load_ms += (double)(mj_clock_ns() - start) * 1e-6;
    pthread_mutex_unlock(&jit->mutex);
    *corrupt |= found == MJ_CACHE_CORRUPT;
    if (found != MJ_CACHE_HIT) return 0;
    rc = load(jit, image, entry.image, entry.image_bytes, &why);
    if (rc == 0) {
        report(image, entry.log, entry.compile_s, entry.image_bytes, false);
        pthread_mutex_lock(&jit->mutex);
        jit->counters.disk_hits++;
        pthread_mutex_unlock(&jit->mutex);
        count(jit, image, &(MjCacheStats){.hits = 1, .saved_s = entry.compile_s});
    } else if (rc == MJ_ERR_DATA || rc == MJ_ERR_DEVICE) {
        if (!*corrupt)
            mj_jit_say(jit, "the cache's image of %s is not used: it is whole, but cannot be loaded (%s); it will be built again",
                       image->tmpl->name, why.message);
        *corrupt = true;
    } else {
        mj_error_copy(err, &why);
    }
    mj_cache_entry_free(&entry);
    mj_error_clear(&why);
    return rc == 0 ? 1 : rc == MJ_ERR_DATA || rc == MJ_ERR_DEVICE ? 0 : rc;
}

/* A driver loads what toolkits of its own major version made, not of a later one: better said before compiling than by what
 * the driver answers to the image. */
static int check_driver(const MjJit *jit, MjError *err)
{
    const int driver = jit->opt.device ? jit->opt.device->ops->info(jit->opt.device)->driver_version : 0;
    int major, minor;

    if (driver == 0 || !jit->identity || sscanf(jit->identity, "NVRTC %d.%d", &major, &minor) != 2 || major <= driver / 1000) return 0;
    return mj_error(err, MJ_ERR_MISSING,
                    "NVRTC %d.%d makes images for drivers of CUDA %d.0 and later, and this machine's driver supports CUDA %d.%d: update "
                    "the driver, or install NVRTC %d (libnvrtc.so.%d), in the folder that MOJIT_CUDA_LIBRARY_PATH names if need be",
                    major, minor, major, driver / 1000, driver % 1000 / 10, driver / 1000, driver / 1000);
}

static int compile(MjJit *jit, Image *image, const char *label, MjError *err)
{
    char spec[SPEC_CAP], *source = NULL;
    MjCompileResult result = {.image = NULL};
    int rc;

    mj_spec_text(image->tmpl, jit->target, image->bound, spec, sizeof spec);
    pthread_mutex_lock(&jit->mutex);
    rc = open_compiler(jit, err);
    if (rc == 0) rc = check_driver(jit, err);
    const int threads = jit->preparing ? 1 : image->tmpl->n_kernels; /* a plan keeps the cores busy with its other images */
    pthread_mutex_unlock(&jit->mutex);
    if (rc != 0) goto out;
    MJ_TRY(mj_template_expand(image->tmpl, &jit->sources, image->bound, NULL, &source, err));
    MjCompileRequest req = {.source = source, .source_name = image->tmpl->file, .target = jit->target,
                            .entry = image->tmpl->kernels[0], .timeout_s = jit->opt.timeout_s, .threads = threads};
    rc = jit->compiler->compile(jit->compiler, &req, &result, err);
    pthread_mutex_lock(&jit->mutex);
    jit->counters.compiles += rc == 0;
    jit->counters.compile_errors += rc != 0;
    jit->counters.compile_s += result.seconds;
    jit->counters.after_ahead += jit->prepared && !jit->preparing;
    pthread_mutex_unlock(&jit->mutex);
    if (rc != 0) {
        rc = mj_error_context(err, rc, "template %s (%s)", image->tmpl->name, spec);
        goto out;
    }
    count(jit, image, &(MjCacheStats){.compiles = 1, .spent_s = result.seconds});
    const double alone = result.cpu_seconds > 0 ? result.cpu_seconds : result.seconds;
    report(image, result.log, alone, result.image_bytes, true);
    if (jit->opt.cache)
        (void)mj_cache_put(jit->opt.cache, label, result.image, result.image_bytes, result.log, alone, NULL);
    rc = load(jit, image, result.image, result.image_bytes, err);
    if (rc != 0) rc = mj_error_context(err, rc, "template %s (%s) was compiled, but its image cannot be loaded", image->tmpl->name, spec);
out:
    mj_compile_result_free(&result);
    free(source);
    return rc;
}

/* A look-up that the cache could not serve: it is compiled, or refused. */
static void count_miss(MjJit *jit, const Image *image, bool corrupt)
{
    pthread_mutex_lock(&jit->mutex);
    jit->counters.misses++;
    pthread_mutex_unlock(&jit->mutex);
    count(jit, image, &(MjCacheStats){.misses = 1, .corrupt = corrupt});
}

static int refuse_miss(const MjJit *jit, const Image *image, bool corrupt, MjError *err)
{
    char spec[SPEC_CAP];

    mj_spec_text(image->tmpl, jit->target, image->bound, spec, sizeof spec);
    return mj_error(err, MJ_ERR_MISSING,
                    "kernel %s %s, and jit.require_warm forbids compiling it. Warm the cache with `mojit warm` for this configuration",
                    spec, corrupt ? "has only a bad entry in the cache (see the warning above)" : "is not in the cache");
}

/* Cache, then the key's lock, then the cache again (another process may have been faster), then the compiler. */
static int build(MjJit *jit, Image *image, MjError *err)
{
    char *label = NULL;
    bool corrupt = false, locked = false;
    MjCacheLock lock = {.fd = -1};
    int rc;

    pthread_mutex_lock(&jit->mutex);
    rc = key_text(jit, image, &label, err);
    pthread_mutex_unlock(&jit->mutex);
    if (rc != 0) return rc;
    int found = from_cache(jit, image, label, &corrupt, err);
    if (found == 0 && jit->opt.cache && !jit->opt.require_warm) {
        locked = mj_cache_lock(jit->opt.cache, mj_cache_key(label), jit->opt.timeout_s, &lock);
        found = from_cache(jit, image, label, &corrupt, err);
    }
    if (corrupt) {
        pthread_mutex_lock(&jit->mutex);
        jit->counters.corrupt_entries++;
        pthread_mutex_unlock(&jit->mutex);
    }
    if (found == 0) {
        count_miss(jit, image, corrupt);
        rc = jit->opt.require_warm ? refuse_miss(jit, image, corrupt, err) : compile(jit, image, label, err);
    } else {
        if (corrupt) count(jit, image, &(MjCacheStats){.corrupt = 1});
        rc = found < 0 ? found : 0;
    }
    if (locked) mj_cache_unlock(&lock);
    if (rc == 0 && jit->opt.cache) remember_identity(jit);
    free(label);
    return rc;
}

int mj_jit_ensure(MjJit *jit, Image *image, MjError *err)
{
    MjError mine = MJ_ERROR_INIT;
    int rc = 0;

    pthread_mutex_lock(&jit->mutex);
    while (image->state == IMAGE_BUSY) pthread_cond_wait(&jit->changed, &jit->mutex);
    bool build_it = image->state == IMAGE_NEW;
    if (build_it) image->state = IMAGE_BUSY;
    if (image->state == IMAGE_FAILED) {
        rc = image->error.code;
        mj_error_copy(err, &image->error);
    }
    pthread_mutex_unlock(&jit->mutex);
    if (!build_it) return rc;
    rc = build(jit, image, &mine);
    pthread_mutex_lock(&jit->mutex);
    image->state = rc == 0 ? IMAGE_READY : IMAGE_FAILED;
    if (rc != 0) {
        mj_error_copy(err, &mine);
        image->error = mine;
    }
    pthread_cond_broadcast(&jit->changed);
    pthread_mutex_unlock(&jit->mutex);
    return rc;
}
