/* Kernel templates: the declarations at the top of a file in kernels_src/. Owns parsing and the preamble that
 * binds parameters; does not compile anything.
 *
 * A template file starts with declaration lines:
 *
 *   // mj:template gemm_cpu            name; must equal the file's stem
 *   // mj:doc One line of documentation.
 *   // mj:family cpu                   cpu, cuda, or both ("cpu cuda"); cuda may be narrowed: sm_80 or sm_89 (and later), sm_90a
 *   // mj:kernel gemm_cpu              entry point(s), one line each; the first is the default
 *   // mj:args MjGemmArgs              argument struct in kernel_args.h; field names are the dimensions in lower case
 *   // mj:param WIDTH fixed multiple:64 min:64 max:65536
 *   // mj:param TOKENS varying min:1
 *   // mj:param A_TYPE variant values:0,1,2
 *   // mj:param TILE_M tuning default:128 values:64,128,256
 *   // mj:generic A_TYPE=0             variant combination for which a generic build is embedded (repeatable;
 *                                      none = the whole cross product); may also name tuning values, so that
 *                                      nocompile has tiles to choose from: A_TYPE=0 TILE_M=64; and the families
 *                                      that it is for, where not all: cuda A_TYPE=1
 *
 * fixed: known for a run. varying: may change from step to step. Both are read by name in the code; the preamble
 * makes the name a constant when it is bound, and `(args->width)` when it is not. variant: a choice of code path
 * asked for by the op, a constant in every mode. tuning: tile sizes and such, a constant in every mode; generic
 * builds use the default where mj:generic names no other. Tuning parameters must not change a result's bits on the cpu.
 */
#ifndef MJ_JIT_TEMPLATE_H
#define MJ_JIT_TEMPLATE_H

#include <stdbool.h>
#include <stdint.h>

#include "jit/sources.h"
#include "runtime/base/error.h"
#include "runtime/base/str.h"

#define MJ_MAX_PARAMS 24
#define MJ_UNBOUND INT32_MIN /* in a spec: the parameter stays a kernel argument */

typedef enum MjParamKind { MJ_PARAM_FIXED, MJ_PARAM_VARYING, MJ_PARAM_VARIANT, MJ_PARAM_TUNING } MjParamKind;

typedef struct MjParam {
    char name[32];
    MjParamKind kind;
    int32_t min, max, multiple; /* legal range; multiple >= 1 */
    int32_t default_value;      /* tuning */
    int32_t values[16];         /* legal values, if any are listed */
    int n_values;
} MjParam;

typedef struct MjTemplate {
    char name[64], args[64];
    char file[80];              /* "rmsnorm_fwd.cu" */
    char *doc;
    char *source;               /* whole file */
    char origin[256];           /* "builtin" or the folder it was read from; for messages, never in a key */
    char kernels[8][64];
    int n_kernels;
    unsigned families;          /* bit per MjFamily */
    int least_arch;             /* of a cuda target: 89 where sm_80's first cards lack an instruction; 0 = any */
    MjParam params[MJ_MAX_PARAMS];
    int n_params;
    int32_t (*generic)[MJ_MAX_PARAMS]; /* n_generic rows of values by parameter: variants, and tuning where one is named;
                                          else MJ_UNBOUND */
    unsigned *generic_families; /* of each row: bit per MjFamily that the build is made for */
    int n_generic;
} MjTemplate;

/* Parses `source` (NUL-terminated, copied) of a file name like "rmsnorm_fwd.cu". Errors name the line: unknown declaration, unknown kind (suggests),
 * duplicate parameter, missing mj:kernel. */
int mj_template_parse(const char *file, const char *source, const char *origin, MjTemplate **out, MjError *err) MJ_MUST_CHECK;
void mj_template_free(MjTemplate *t);
int mj_template_param(const MjTemplate *t, const char *name); /* index or -1 */
bool mj_template_serves(const MjTemplate *t, const char *target); /* can be compiled for "sm_80", "compute_90", "cpu:avx2" */

/* What the g-th generic build is compiled with: its variants and tuning values, the rest MJ_UNBOUND. */
void mj_template_generic_values(const MjTemplate *t, int g, int32_t *bound);

/* A legal value like those of real runs for a parameter, by its name: for gates and tables that need no particular shape. */
int32_t mj_param_example(const MjParam *p);

/* Checks a full set of values (index = parameter): out of range, not a multiple, not a listed value, missing.
 * The message names template, parameter, value, what is legal, and the nearest legal value. */
int mj_template_check(const MjTemplate *t, const int32_t *values, MjError *err) MJ_MUST_CHECK;

/* One canonical text: "gemm_cpu target=cpu:avx512_bf16 A_TYPE=1 K=768 M=? N=1024"; '?' = unbound. Parameters in
 * declared order. Writes at most `cap` bytes; returns the length needed. */
int mj_spec_text(const MjTemplate *t, const char *target, const int32_t *bound, char *buf, size_t cap);

/* The source handed to a compiler: a preamble (#define per parameter), the prelude and the template, every
 * #include "..." of a known source replaced by its text, with #line directives so that errors carry the files' own
 * lines. `suffix` is appended to the entry points' names (embedded generic builds), or NULL. *out is malloc'd. */
int mj_template_expand(const MjTemplate *t, const MjSources *sources, const int32_t *bound, const char *suffix, char **out,
                       MjError *err) MJ_MUST_CHECK;

/* Labelled lines "source: <hash>" and "header NAME: <hash>" of everything that expand reads, for a cache key. */
void mj_template_source_labels(const MjTemplate *t, const MjSources *sources, MjStr *out);

/* Generic builds embedded for the cpu: one row per template x variant combination x ISA level. */
typedef struct MjEmbeddedKernel {
    const char *tmpl, *kernel, *isa; /* isa: "baseline", "avx2", "avx512", "avx512_bf16" */
    const int32_t *bound;            /* values by parameter of that template */
    void (*entry)(const void *args, uint32_t first, uint32_t last, uint32_t grid, void *shared);
} MjEmbeddedKernel;
extern const MjEmbeddedKernel mj_embedded_kernels[]; /* ends with a NULL tmpl */

#endif
