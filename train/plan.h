/* The padded sizes that a run's data can reach, and the plan made from them. */
#ifndef MJ_TRAIN_PLAN_H
#define MJ_TRAIN_PLAN_H

#include "train/data.h"
#include "train/step.h"

/* What a run reads; `held_out` may be NULL. */
typedef struct MjPlanData {
    const MjTokens *train, *held_out;
} MjPlanData;

void mj_plan_train_loader(const MjConfig *config, MjLoaderOptions *out);
void mj_plan_eval_loader(const MjConfig *config, bool byte_level, MjLoaderOptions *out);

/* Records every kernel of the run into the JIT of s->model->ops, in the order in which the run would ask for them. */
int mj_plan_record(MjStep *s, const MjConfig *config, const MjPlanData *data, MjError *err) MJ_MUST_CHECK;

#endif
