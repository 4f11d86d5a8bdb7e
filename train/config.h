/* The configuration: one table of options drives INI files, `--set section.key=value`, --help, the documentation and
 * the dump of what a run really used. Owns the table, MjConfig and the checks that need several options at once.
 * Knows nothing of devices and data. Not thread-safe for one MjConfig; the table is constant.
 */
#ifndef MJ_TRAIN_CONFIG_H
#define MJ_TRAIN_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"

#define MJ_CONFIG_TEXT 512 /* longest text value, with its NUL */

typedef enum MjPrecision { MJ_PRECISION_BF16, MJ_PRECISION_FP8 } MjPrecision;
typedef enum MjRecipe { MJ_RECIPE_BLOCK, MJ_RECIPE_TENSOR } MjRecipe;
typedef enum MjPacking { MJ_PACKING_FULL, MJ_PACKING_DOCS } MjPacking;
typedef enum MjStopOrGeneric { MJ_JIT_STOP, MJ_JIT_GENERIC } MjStopOrGeneric; /* jit.on_error */

typedef struct MjBetas {
    double beta1, beta2;
} MjBetas;

typedef struct MjModelConfig {
    int32_t depth, width, head_dim, window_short, vocab;
    double softcap;
    char window_pattern[MJ_CONFIG_TEXT];
} MjModelConfig;

typedef struct MjMoeConfig {
    int32_t experts, top_k, shared, hidden;
    double balance_rate;
    bool normalize_gates;
    char layout[MJ_CONFIG_TEXT]; /* "dropless" or "capacity:<factor>"; see mj_config_capacity */
} MjMoeConfig;

typedef struct MjPrecisionConfig {
    int32_t linears, experts; /* MjPrecision: attention projections and the dense MLP; routed and shared experts */
    int32_t recipe;           /* MjRecipe */
} MjPrecisionConfig;

typedef struct MjJitConfig {
    char mode[MJ_CONFIG_TEXT], bucket[MJ_CONFIG_TEXT];
    int32_t budget, jobs, on_error; /* on_error: MjStopOrGeneric */
    double timeout;
    bool require_warm;
} MjJitConfig;

typedef struct MjCacheConfig {
    char roots[MJ_CONFIG_TEXT];
    int64_t max_size;
} MjCacheConfig;

typedef struct MjDataConfig {
    char train[MJ_CONFIG_TEXT], held_out[MJ_CONFIG_TEXT];
    int32_t packing; /* MjPacking */
} MjDataConfig;

typedef struct MjTrainConfig {
    int32_t steps, batch, seq_len, grad_accum, eval_every, loss_chunk;
    int64_t eval_tokens, seed;
} MjTrainConfig;

typedef struct MjOptimizerConfig {
    double embedding_lr, head_lr, matrix_lr, router_lr, weight_decay, eps, warmdown, final_lr;
    MjBetas betas, embedding_betas;
    int32_t warmup;
    bool scale_lr;
} MjOptimizerConfig;

typedef struct MjRunConfig {
    char device[MJ_CONFIG_TEXT], out[MJ_CONFIG_TEXT];
    int32_t threads;
    bool graphs, overlap;
    int32_t dense_gemm; /* MjDenseGemm */
} MjRunConfig;

typedef struct MjConfig {
    MjModelConfig model;
    MjMoeConfig moe;
    MjPrecisionConfig precision;
    MjJitConfig jit;
    MjCacheConfig cache;
    MjDataConfig data;
    MjTrainConfig train;
    MjOptimizerConfig optimizer;
    MjRunConfig run;
} MjConfig;

typedef enum MjOptionType {
    MJ_OPTION_INT,    /* int32_t */
    MJ_OPTION_INT64,  /* int64_t; accepts K, M, G (powers of 1024) when its unit is "bytes" */
    MJ_OPTION_FLOAT,  /* double */
    MJ_OPTION_BOOL,   /* bool: true/false, yes/no, on/off, 1/0 */
    MJ_OPTION_CHOICE, /* int32_t: index into `choices` */
    MJ_OPTION_TEXT,   /* char[MJ_CONFIG_TEXT] */
    MJ_OPTION_BETAS   /* MjBetas: "0.8,0.96" */
} MjOptionType;

typedef struct MjOption {
    const char *section, *key;
    MjOptionType type;
    size_t offset;              /* of the value in MjConfig */
    const char *default_value;  /* as it would stand in a file */
    double min, max;            /* numbers: legal range, both ends included */
    const char *choices;        /* "bf16|fp8" */
    const char *unit, *doc;     /* unit may be "" */
} MjOption;

extern const MjOption mj_options[]; /* ends with a NULL section; ordered by section */

void mj_config_defaults(MjConfig *config);

/* Reads an INI file over what `config` holds. Errors carry file:line; unknown names suggest the nearest. On an error
 * `config` is unchanged. */
int mj_config_load(MjConfig *config, const char *path, MjError *err) MJ_MUST_CHECK;

/* One setting. `where` begins the error message ("file.ini:12", "--set"). */
int mj_config_set_key(MjConfig *config, const char *section, const char *key, const char *value, const char *where,
                      MjError *err) MJ_MUST_CHECK;

/* "section.key=value", as after --set. */
int mj_config_set(MjConfig *config, const char *assignment, MjError *err) MJ_MUST_CHECK;

/* Checks what one option alone can't show (mode and bucket names, layouts, divisibility, top_k <= experts). */
int mj_config_check(const MjConfig *config, MjError *err) MJ_MUST_CHECK;

/* The capacity factor of moe.layout: 0 for dropless. */
int mj_config_capacity(const MjConfig *config, double *factor, MjError *err) MJ_MUST_CHECK;

/* All three return malloc'd text: the effective settings as an INI file that mj_config_load reads back to the same
 * values; the option table for --help; the same as Markdown (docs/configuration.md is this text). */
char *mj_config_dump(const MjConfig *config);
char *mj_config_help(void);
char *mj_config_markdown(void);

#endif
