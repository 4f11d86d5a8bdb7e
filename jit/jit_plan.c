/* Plans: what recorded steps asked for, and bringing all of it into memory (or into the cache) at once. */
#include <stdlib.h>
#include <string.h>

#include "jit/jit_internal.h"
#include "runtime/base/pool.h"

void mj_jit_record_begin(MjJit *jit)
{
    atomic_store(&jit->recording, true);
}

void mj_jit_record_end(MjJit *jit)
{
    atomic_store(&jit->recording, false);
}

bool mj_jit_recording(const MjJit *jit)
{
    return atomic_load(&jit->recording);
}

uint64_t mj_jit_generation(const MjJit *jit)
{
    return atomic_load(&jit->fast.generation);
}

const char *mj_jit_target(const MjJit *jit)
{
    return jit->target;
}

void mj_jit_note(const MjJit *jit, const char *line)
{
    if (jit->opt.log) jit->opt.log(jit->opt.log_user, line);
}

int mj_jit_plan_size(const MjJit *jit)
{
    return jit->n_plan;
}

int mj_jit_plan_text(const MjJit *jit, int i, char *buf, size_t cap)
{
    return mj_spec_text(jit->plan[i]->tmpl, jit->target, jit->plan[i]->bound, buf, cap);
}

const MjRequest *mj_jit_plan_asked(const MjJit *jit, int i)
{
    return &jit->plan[i]->asked;
}

const MjLaunchRecord *mj_jit_plan_record(const MjJit *jit, int i)
{
    return &jit->plan[i]->record;
}

bool mj_jit_plan_report(MjJit *jit, int i, MjImageReport *out)
{
    pthread_mutex_lock(&jit->mutex);
    const Image *image = mj_jit_image(jit, jit->plan[i]->tmpl, jit->plan[i]->bound);
    const bool ready = image->state == IMAGE_READY;
    if (ready) *out = image->report;
    pthread_mutex_unlock(&jit->mutex);
    return ready;
}

typedef struct Preparation {
    MjJit *jit;
    Image **images; /* (n_plan) */
    int done;       /* under the JIT's mutex, as is all below */
    int rc;
    MjError *err;
} Preparation;

static void prepare_one(void *user, int task, int worker)
{
    Preparation *p = user;
    MjJit *jit = p->jit;
    MjError err = MJ_ERROR_INIT;
    char spec[1024];

    (void)worker;
    pthread_mutex_lock(&jit->mutex);
    bool stop = p->rc != 0;
    pthread_mutex_unlock(&jit->mutex);
    if (stop) return;
    int rc = mj_jit_ensure(jit, p->images[task], &err);
    if (rc == MJ_ERR_COMPILE && jit->opt.on_error == MJ_ON_ERROR_GENERIC) rc = 0; /* the launch will fall back and say so */
    pthread_mutex_lock(&jit->mutex);
    if (rc != 0 && p->rc == 0) {
        p->rc = rc;
        if (p->err) *p->err = err;
        else mj_error_clear(&err);
        err = (MjError)MJ_ERROR_INIT;
    }
    p->done++;
    mj_spec_text(p->images[task]->tmpl, jit->target, p->images[task]->bound, spec, sizeof spec);
    if (jit->opt.progress) jit->opt.progress(jit->opt.log_user, p->done, jit->n_plan, spec);
    pthread_mutex_unlock(&jit->mutex);
    mj_error_clear(&err);
}

int mj_jit_prepare(MjJit *jit, MjError *err)
{
    Preparation p = {.jit = jit, .err = err};

    if (jit->opt.mode->miss == MJ_MISS_GENERIC || jit->n_plan == 0) {
        jit->prepared = true;
        return 0;
    }
    p.images = calloc((size_t)jit->n_plan, sizeof(Image *));
    if (!p.images) return mj_error(err, MJ_ERR_MEMORY, "out of memory for a plan of %d kernels", jit->n_plan);
    pthread_mutex_lock(&jit->mutex);
    jit->preparing = true;
    for (int i = 0; i < jit->n_plan; i++) p.images[i] = mj_jit_image(jit, jit->plan[i]->tmpl, jit->plan[i]->bound);
    pthread_mutex_unlock(&jit->mutex);
    MjPool *pool = mj_pool_open(jit->opt.jobs);
    mj_pool_run(pool, jit->n_plan, prepare_one, &p);
    mj_pool_close(pool);
    pthread_mutex_lock(&jit->mutex);
    jit->preparing = false;
    jit->prepared = p.rc == 0;
    pthread_mutex_unlock(&jit->mutex);
    free(p.images);
    return p.rc;
}
