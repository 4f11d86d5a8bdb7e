/* Generic builds: from a request to the embedded kernel that serves it, for nocompile, for tiered's first launches and
 * for a template that did not compile. On a cpu they are functions of this program, on cuda images of a pack. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/jit_internal.h"
#include "runtime/base/clock.h"
#include "runtime/base/mem.h"

/* How many tuning values differ from the wanted ones, or -1 when a variant does. */
static int distance(const MjTemplate *t, const int32_t *bound, const int32_t *full)
{
    int n = 0;

    for (int i = 0; i < t->n_params; i++) {
        if (t->params[i].kind == MJ_PARAM_VARIANT && bound[i] != full[i]) return -1;
        n += t->params[i].kind == MJ_PARAM_TUNING && bound[i] != full[i];
    }
    return n;
}

/* The one with all the tuning values that were asked for; else the variant's first build, whichever was asked for: what
 * the template's author listed first serves all shapes. */
static bool better(int d, int best)
{
    return d >= 0 && (best < 0 || (d == 0 && best != 0));
}

static MjLaunchRecord *record_of(const MjRequest *req, const int32_t *bound, MjKernelFn *fn)
{
    MjLaunchRecord *r = mj_jit_new_record(req, bound, fn, true);

    for (int i = 0; i < req->tmpl->n_params; i++)
        if (req->tmpl->params[i].kind == MJ_PARAM_TUNING) r->tuning_of[i] = bound[i];
    return r;
}

static int no_build(const MjJit *jit, const MjTemplate *t, const int32_t *full, MjError *err)
{
    char spec[1024];

    mj_spec_text(t, jit->target, full, spec, sizeof spec);
    return mj_error(err, MJ_ERR_USAGE,
                    "no generic build of %s is embedded for %s; list the variant in an mj:generic line of %s and build mojit "
                    "again, or use --mode static or dynamic",
                    t->name, spec, t->file);
}

/* ---- cpu ---- */

static int generic_cpu(MjJit *jit, const MjRequest *req, const int32_t *full, MjLaunchRecord **out, MjError *err)
{
    const char *colon = strchr(jit->target, ':'), *isa = colon ? colon + 1 : jit->target;
    const MjTemplate *t = req->tmpl;
    const MjEmbeddedKernel *found = NULL;
    MjKernelFn *fn = NULL;
    int best = -1;

    for (const MjEmbeddedKernel *e = mj_embedded_kernels; e->tmpl; e++) {
        if (strcmp(e->tmpl, t->name) != 0 || strcmp(e->isa, isa) != 0 || strcmp(e->kernel, t->kernels[req->kernel]) != 0) continue;
        const int d = distance(t, e->bound, full);
        if (!better(d, best)) continue;
        best = d;
        found = e;
    }
    if (!found) return no_build(jit, t, full, err);
    if (jit->opt.device) {
        int rc = mj_device_cpu_wrap(jit->opt.device, found->entry, &fn, err);
        if (rc != 0) return rc;
    }
    *out = record_of(req, found->bound, fn);
    return 0;
}

/* ---- cuda ---- */

/* Which targets a pack holds, for the message that none of them serves. */
static void targets_text(const MjGenericPack *p, MjStr *s)
{
    for (int i = 0; i < p->n_frames; i++) {
        bool seen = false;
        for (int k = 0; k < i && !seen; k++) seen = strcmp(p->frames[k].target, p->frames[i].target) == 0;
        if (!seen) mj_str_printf(s, "%s%s", s->len ? ", " : "", p->frames[i].target);
    }
}

static int no_frame(const MjJit *jit, const MjTemplate *t, MjError *err)
{
    const MjGenericPack *p = jit->generic.pack;
    MjStr held = MJ_STR_INIT;

    targets_text(p, &held);
    mj_error(err, MJ_ERR_MISSING,
             "no generic build of %s for %s: %s holds GPU kernels for %s%s%s%s. Build mojit again where libnvrtc is found, with the "
             "target in -Dgpu_generic=..., or use --mode static or dynamic",
             t->name, jit->target, p->origin, held.len ? mj_str_text(&held) : "no target", p->note[0] ? " (" : "", p->note,
             p->note[0] ? ")" : "");
    mj_str_free(&held);
    return MJ_ERR_MISSING;
}

static int find_image(MjJit *jit, const MjTemplate *t, const int32_t *full, MjGenericFrame **frame, const MjGenericImage **image,
                      MjError *err)
{
    char sources[33];
    int best = -1;
    MjGenericFrame *f = mj_generic_find(jit->generic.pack, t->name, jit->target);

    if (!f) return no_frame(jit, t, err);
    mj_generic_sources_hash(t, &jit->sources, sources);
    if (strcmp(sources, f->sources) != 0)
        return mj_error(err, MJ_ERR_USAGE, "the generic build of %s in %s was made from other sources than %s's; build mojit (or the "
                        "pack) again, or use --mode static or dynamic", t->name, jit->generic.pack->origin, t->origin);
    *image = NULL;
    for (int i = 0; i < f->n_images; i++) {
        const int d = distance(t, f->images[i].values, full);
        if (!better(d, best)) continue;
        best = d;
        *image = &f->images[i];
    }
    *frame = f;
    return *image ? 0 : no_build(jit, t, full, err);
}

/* An image that the driver refuses: if it was made by a newer CUDA than the driver's, that is why. */
static int refused(const MjJit *jit, const MjGenericFrame *frame, int rc, MjError *err)
{
    const MjGenericPack *p = jit->generic.pack;
    const int driver = jit->opt.device->ops->info(jit->opt.device)->driver_version;
    int maker = 0;

    if (rc != MJ_ERR_DEVICE || sscanf(p->maker, "NVRTC %d.", &maker) != 1 || maker <= driver / 1000)
        return mj_error_context(err, rc, "generic build of %s for %s in %s", frame->tmpl, frame->target, p->origin);
    return mj_error(err, MJ_ERR_MISSING,
                    "the generic kernels in %s were made by CUDA %d, and the driver supports CUDA %d.%d and refuses that of %s: update the "
                    "driver, or take --mode static or dynamic with an NVRTC %d, or build mojit with that one",
                    p->origin, maker, driver / 1000, driver % 1000 / 10, frame->tmpl, driver / 1000);
}

/* Loads an image once; entry points share its module. */
static int load_image(MjJit *jit, MjGenericFrame *frame, const MjGenericImage *image, MjModule **out, MjError *err)
{
    const uint64_t start = mj_clock_ns();
    const void *bytes;
    MjModule *module = NULL;

    for (GenericModule *m = jit->generic.modules; m; m = m->next)
        if (m->image == image) {
            *out = m->module;
            return 0;
        }
    int rc = mj_generic_unpack(jit->generic.pack, frame, image, &bytes, err);
    if (rc == 0) rc = jit->opt.device->ops->module_load(jit->opt.device, bytes, image->bytes, &module, err);
    if (rc != 0) return refused(jit, frame, rc, err);
    GenericModule *m = mj_xcalloc(1, sizeof *m);
    *m = (GenericModule){.image = image, .module = module, .next = jit->generic.modules};
    jit->generic.modules = m;
    pthread_mutex_lock(&jit->mutex);
    jit->counters.load_ms += (double)(mj_clock_ns() - start) * 1e-6;
    pthread_mutex_unlock(&jit->mutex);
    *out = module;
    return 0;
}

static int generic_cuda(MjJit *jit, const MjRequest *req, const int32_t *full, MjLaunchRecord **out, MjError *err)
{
    MjGenericFrame *frame = NULL;
    const MjGenericImage *image = NULL;
    MjModule *module = NULL;
    MjKernelFn *fn = NULL;
    int rc = 0;

    pthread_mutex_lock(&jit->generic.mutex);
    if (!jit->generic.pack) MJ_TRY(mj_generic_pack_open(&jit->generic.pack, err));
    MJ_TRY(find_image(jit, req->tmpl, full, &frame, &image, err));
    if (jit->opt.device) {
        MJ_TRY(load_image(jit, frame, image, &module, err));
        MJ_TRY(jit->opt.device->ops->module_function(module, req->tmpl->kernels[req->kernel], &fn, err));
    }
    *out = record_of(req, image->values, fn);
    (*out)->waits = mj_target_waits(frame->target); /* an older one's PTX does not, on whatever card */
out:
    pthread_mutex_unlock(&jit->generic.mutex);
    return rc;
}

int mj_jit_generic(MjJit *jit, const MjRequest *req, MjLaunchRecord **out, MjError *err)
{
    const MjTemplate *t = req->tmpl;
    int32_t full[MJ_MAX_PARAMS];

    mj_jit_full_values(req, full);
    /* A folder's file that replaces a built-in one is another kernel: what is embedded was not made from it. */
    if (strcmp(t->origin, "builtin") != 0) {
        char spec[1024];
        mj_spec_text(t, jit->target, full, spec, sizeof spec);
        return mj_error(err, MJ_ERR_USAGE,
                        "no generic build of %s is embedded: its template comes from %s, not from mojit itself; use --mode static or "
                        "dynamic for it",
                        spec, t->origin);
    }
    return (strncmp(jit->target, "sm_", 3) == 0 ? generic_cuda : generic_cpu)(jit, req, full, out, err);
}

void mj_jit_generic_close(MjJit *jit)
{
    for (GenericModule *m = jit->generic.modules; m;) {
        GenericModule *next = m->next;
        jit->opt.device->ops->module_unload(jit->opt.device, m->module);
        free(m);
        m = next;
    }
    mj_generic_pack_close(jit->generic.pack);
}
