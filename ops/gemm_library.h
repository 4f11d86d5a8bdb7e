/* Dense products by cuBLASLt: which ones it can do, and the rule by which a run's dense layers go to it. Owns the mapping from
 * MjGemmArgs to MjLtGemm; the library itself is runtime/cublaslt.h. */
#ifndef MJ_OPS_GEMM_LIBRARY_H
#define MJ_OPS_GEMM_LIBRARY_H

#include <stdbool.h>

#include "kernels_src/kernel_args.h"
#include "runtime/cublaslt.h"

/* Setting run.dense_gemm. A grouped product is never the library's.
 * `auto`: mojit's kernels. Every mode must give the same bits, and the modes differ in how many rows a layer is padded to.
 *   mojit's own kernels add up in an order that does not depend on that; cuBLASLt does not say that its kernels do, so `auto`
 *   does not take it on trust, even where it is faster. mojit bench gemm shows where it is, and whether its algorithm, pinned to
 *   the most rows, kept the bits when it was given fewer; MJ_LIBRARY_KEEPS_BITS is what has been seen so far.
 * `cublaslt`: the library wherever it can. Its algorithm is pinned to the one for the run's largest step, without a split of K. */
#define MJ_LIBRARY_KEEPS_BITS 0 /* 1: seen on the cards that matter; `auto` then gives it dense bf16 where it is there */
typedef enum MjDenseGemm { MJ_DENSE_AUTO, MJ_DENSE_MOJIT, MJ_DENSE_CUBLASLT } MjDenseGemm;

/* The rule, and the only place of it: whether this product is to be the library's. Depends on the setting and on what is the
 * same in every mode alone: layout, types, scales, fixed dimensions; never on the number of rows. */
bool mj_gemm_library_rule(MjDenseGemm choice, const MjGemmArgs *g);

/* Fills *out from a dense product. false: the library has no such product (grouped; fp8 that does not run along K; block
 * scales in an order that it does not read). pin_rows: as MjLtGemm's pins, of the dimension that varies; 0 = none. */
bool mj_gemm_library_map(const MjGemmArgs *g, int64_t pin_rows, MjLtGemm *out);

#endif
