#ifndef MJ_OPS_REFS_H
#define MJ_OPS_REFS_H
#include "ops/op_row.h"
size_t mj_quant_tile_shared(MjFamily family, const void *args);
#endif
