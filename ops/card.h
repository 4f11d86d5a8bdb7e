/* What the largest card of an architecture has, for decisions that are taken without a card at hand: a plan made on a login
 * node must be the plan of the run. Published numbers, not measured ones. */
#ifndef MJ_OPS_CARD_H
#define MJ_OPS_CARD_H

#include <stdint.h>

#include "runtime/device.h"

typedef struct MjCard {
    int arch;                  /* 80, 90, 100 */
    const char *name;
    int units;                 /* multiprocessors */
    int32_t shared_bytes;      /* that one block may ask for; a multiprocessor has 1 KiB more */
    double clock_hz;           /* under load */
    double bf16_cycle, fp8_cycle; /* FLOP a cycle of one multiprocessor's tensor cores; fp8 0: it has none */
    double fma_cycle;          /* f32 multiply-adds a cycle of one multiprocessor */
    double memory_bytes_s;     /* of its memory */
    double l2_cycle;           /* bytes a cycle that the L2 cache gives one multiprocessor while all of them ask */
    double l2_bytes;           /* of the L2 cache */
} MjCard;

/* The card of an architecture number; of the nearest earlier one where there is no row. Static storage. */
const MjCard *mj_card_of(int arch);
/* The same as a device would describe itself, with this target. */
void mj_card_info(const MjCard *card, const char *target, MjDeviceInfo *out);

#endif
