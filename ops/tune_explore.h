/* What `mojit tune` tries beyond the model: values of the tuning parameters that the templates give limits for, but no list of
 * values, because no model knows them (the order of tiles, a delay, the chunks of an epilogue). */
#ifndef MJ_OPS_TUNE_EXPLORE_H
#define MJ_OPS_TUNE_EXPLORE_H

#include "ops/tile_choice.h"

#define MJ_TUNE_MOST_TRIES 8

/* Values of parameter `param` of t, beside `current`: all that there are if they are few; else half and double, a quarter and four times as much; between its limits, and
 * fractions of the upper one where it is 0. How many there are; 0 where it is no tuning parameter or has a list. */
int mj_tune_tries(const MjTemplate *t, int param, int32_t current, int32_t out[MJ_TUNE_MOST_TRIES]);

/* `best` with `param` at `value`; where that does not fit the device, with one of the parameters that have a list changed as
 * well, to what the model finds cheapest. False when nothing fits. Arguments as of mj_tile_candidates. */
bool mj_tune_try(const MjOpMatrix *matrix, const MjTemplate *t, const char *target, const MjDeviceInfo *info, const void *args,
                 const int32_t *best, int param, int32_t value, MjTileCandidate *out);

#endif
