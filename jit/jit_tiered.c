/* Background compiles for `tiered`: generic kernels run at once; workers bring the specialised images to READY; a step
 * boundary swaps them in, so that every launch of one step runs the same kind of kernel throughout. */
#include <stdlib.h>
#include <string.h>

#include "jit/jit_internal.h"
#include "runtime/base/mem.h"
#include "runtime/base/pool.h"

static Image *next_waiting(MjJit *jit)
{
    for (Deferred *d = jit->deferred; d; d = d->next)
        if (d->image->state == IMAGE_NEW) return d->image;
    return NULL;
}

/* What is missing is missing for all kernels: said once. */
static void say_failure(MjJit *jit, const MjError *err)
{
    pthread_mutex_lock(&jit->mutex);
    bool said = err->code == MJ_ERR_MISSING && jit->missing_said;
    jit->missing_said |= err->code == MJ_ERR_MISSING;
    pthread_mutex_unlock(&jit->mutex);
    if (!said) mj_jit_say(jit, "%s; going on with generic kernels", err->message);
}

static void *worker_main(void *arg)
{
    MjJit *jit = arg;

    pthread_mutex_lock(&jit->mutex);
    while (!jit->stopping) {
        Image *image = next_waiting(jit);
        if (!image) {
            pthread_cond_wait(&jit->changed, &jit->mutex);
            continue;
        }
        pthread_mutex_unlock(&jit->mutex);
        MjError err = MJ_ERROR_INIT;
        if (mj_jit_ensure(jit, image, &err) != 0) say_failure(jit, &err);
        mj_error_clear(&err);
        pthread_mutex_lock(&jit->mutex);
    }
    pthread_mutex_unlock(&jit->mutex);
    return NULL;
}

static void start_workers(MjJit *jit)
{
    int want = jit->opt.jobs > 0 ? jit->opt.jobs : 1; /* the step needs the other cores */

    jit->workers = mj_xcalloc((size_t)want, sizeof *jit->workers);
    while (jit->n_workers < want && pthread_create(&jit->workers[jit->n_workers], NULL, worker_main, jit) == 0)
        jit->n_workers++;
}

void mj_jit_defer(MjJit *jit, TableSlot *slot, const MjRequest *chosen, Image *image)
{
    Deferred *d = mj_xcalloc(1, sizeof *d);

    d->slot = slot;
    d->chosen = *chosen;
    d->image = image;
    d->next = jit->deferred;
    jit->deferred = d;
    jit->counters.deferred++;
    if (!jit->workers) start_workers(jit);
    pthread_cond_broadcast(&jit->changed);
}

void mj_jit_swap_ready(MjJit *jit)
{
    for (Deferred **at = &jit->deferred; *at;) {
        Deferred *d = *at;
        MjLaunchRecord *record = NULL;
        if (d->image->state == IMAGE_NEW || d->image->state == IMAGE_BUSY) {
            at = &d->next;
            continue;
        }
        if (d->image->state == IMAGE_READY && mj_jit_record_of(jit, &d->chosen, d->image, &record, NULL) == 0) {
            mj_jit_keep(jit, record);
            mj_table_replace(d->slot, record);
            jit->counters.background_swaps++;
            atomic_fetch_add(&jit->fast.generation, 1);
        } else {
            jit->generic_for_good = true;
        }
        *at = d->next;
        free(d);
    }
}

void mj_jit_stop_workers(MjJit *jit)
{
    pthread_mutex_lock(&jit->mutex);
    jit->stopping = true;
    pthread_cond_broadcast(&jit->changed);
    pthread_mutex_unlock(&jit->mutex);
    for (int i = 0; i < jit->n_workers; i++) pthread_join(jit->workers[i], NULL);
    free(jit->workers);
    for (Deferred *d = jit->deferred; d;) {
        Deferred *next = d->next;
        free(d);
        d = next;
    }
    jit->deferred = NULL;
}
