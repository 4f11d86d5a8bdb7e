/* The table of cards; see card.h. Rates are from NVIDIA's data sheets and tuning guides (FLOP/s divided by clock and
 * multiprocessors); mma.sync rates where the templates use mma.sync. L2 rates are estimates between what data sheets
 * promise and what published copy tests reach. */
#include "ops/card.h"

#include <stdio.h>
#include <string.h>

static const MjCard cards[] = {
    {80, "A100", 108, 166912, 1.41e9, 2048, 0, 64, 2.04e12, 32, 40e6},
    {86, "A40", 84, 101376, 1.74e9, 1024, 0, 128, 0.70e12, 24, 6e6},
    {87, "Orin", 16, 166912, 1.30e9, 1024, 0, 128, 0.20e12, 24, 4e6},
    {89, "L40S", 142, 101376, 2.52e9, 1024, 2048, 128, 0.86e12, 24, 96e6},
    {90, "H200", 132, 232448, 1.83e9, 4096, 8192, 128, 4.80e12, 40, 50e6},
    {100, "B200", 148, 232448, 1.85e9, 2048, 4096, 128, 8.00e12, 40, 126e6},
    {120, "RTX 5090", 170, 101376, 2.41e9, 512, 1024, 128, 1.79e12, 24, 96e6},
};

const MjCard *mj_card_of(int arch)
{
    const MjCard *best = &cards[0];

    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++)
        if (cards[i].arch <= arch) best = &cards[i];
    return best;
}

void mj_card_info(const MjCard *card, const char *target, MjDeviceInfo *out)
{
    *out = (MjDeviceInfo){.kind = "cuda", .family = mj_target_family(target), .units = card->units,
                          .bf16_peak_flops = card->units * card->clock_hz * card->bf16_cycle,
                          .max_shared_bytes = (size_t)card->shared_bytes};
    (void)snprintf(out->name, sizeof out->name, "%s (not present)", card->name);
    (void)snprintf(out->target, sizeof out->target, "%s", target);
}
