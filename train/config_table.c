/* The table of options: the one place where a setting is declared. Owns nothing else. */
#include <stddef.h>

#include "train/config.h"

#define AT(field) offsetof(MjConfig, field)
#define INT(section, key, field, dflt, lo, hi, unit, doc)                                                          \
    {section, key, MJ_OPTION_INT, AT(field), dflt, lo, hi, NULL, unit, doc}
#define INT64(section, key, field, dflt, lo, hi, unit, doc)                                                        \
    {section, key, MJ_OPTION_INT64, AT(field), dflt, lo, hi, NULL, unit, doc}
#define FLOAT(section, key, field, dflt, lo, hi, unit, doc)                                                        \
    {section, key, MJ_OPTION_FLOAT, AT(field), dflt, lo, hi, NULL, unit, doc}
#define BOOL(section, key, field, dflt, doc) {section, key, MJ_OPTION_BOOL, AT(field), dflt, 0, 0, NULL, "", doc}
#define CHOICE(section, key, field, dflt, choices, doc)                                                            \
    {section, key, MJ_OPTION_CHOICE, AT(field), dflt, 0, 0, choices, "", doc}
#define TEXT(section, key, field, dflt, doc) {section, key, MJ_OPTION_TEXT, AT(field), dflt, 0, 0, NULL, "", doc}
#define BETAS(section, key, field, dflt, doc)                                                                      \
    {section, key, MJ_OPTION_BETAS, AT(field), dflt, 0, 0.999999, NULL, "", doc}

const MjOption mj_options[] = {
    INT("model", "depth", model.depth, "6", 1, 128, "layers", "Number of layers: the one dial of the model's size."),
    INT("model", "width", model.width, "0", 0, 65536, "", "Width of the residual stream; 0 = 64 * depth rounded up to 128."),
    INT("model", "head_dim", model.head_dim, "128", 64, 128, "", "Size of an attention head: 64 or 128; must divide the width."),
    TEXT("model", "window_pattern", model.window_pattern, "SSSL",
         "Attention window of each layer, tiled over the depth: S short, L the whole sequence. The last layer is always L."),
    INT("model", "window_short", model.window_short, "512", 1, 1 << 20, "tokens", "Length of an S window."),
    FLOAT("model", "softcap", model.softcap, "15", 1e-3, 1e6, "", "Logits are capped as softcap * tanh(logit / softcap)."),
    INT("model", "vocab", model.vocab, "257", 2, 1 << 24, "tokens", "Vocabulary; 257 is what `mojit data pack` writes (bytes and BOS)."),

    INT("moe", "experts", moe.experts, "8", 0, 512, "", "Routed experts of a layer; 0 = a dense model of the same FLOPs."),
    INT("moe", "top_k", moe.top_k, "2", 1, 32, "", "Experts that a token is sent to."),
    INT("moe", "shared", moe.shared, "1", 0, 16, "", "Shared experts, which every token passes."),
    INT("moe", "hidden", moe.hidden, "0", 0, 1 << 20, "",
        "Hidden size of an expert; 0 = 4 * width / (top_k + shared) rounded to 128: the active FLOPs of a dense model."),
    TEXT("moe", "layout", moe.layout, "dropless",
         "Expert layout: `dropless` (rows padded to the tile only) or `capacity:<factor>` (fixed rows an expert; overflow is dropped and counted)."),
    FLOAT("moe", "balance_rate", moe.balance_rate, "0.001", 0, 1, "", "Step of the balancing bias; 0 = no balancing."),
    BOOL("moe", "normalize_gates", moe.normalize_gates, "false", "Scale a token's chosen scores to sum 1."),

    CHOICE("precision", "linears", precision.linears, "bf16", "bf16|fp8", "Attention projections and the dense MLP."),
    CHOICE("precision", "experts", precision.experts, "bf16", "bf16|fp8", "Routed and shared experts."),
    CHOICE("precision", "recipe", precision.recipe, "block", "block|tensor",
           "FP8 scaling: `block` (e4m3; activations 1x128, weights 128x128) or `tensor` (one scale a tensor; gradients e5m2)."),

    TEXT("jit", "mode", jit.mode, "dynamic", "Compile mode; see docs/modes.md."),
    TEXT("jit", "bucket", jit.bucket, "multiple:128",
         "How `dynamic` rounds a step's size: `multiple:<n>`, `pow2` or `exact`."),
    INT("jit", "budget", jit.budget, "32", 1, 100000, "", "Specialisations of one template before the dimension that churns becomes an argument."),
    INT("jit", "jobs", jit.jobs, "0", 0, 1024, "", "Parallel compiles; 0 = all cores."),
    CHOICE("jit", "on_error", jit.on_error, "stop", "stop|generic", "When a compile fails: stop, or go on with the generic build and say so."),
    FLOAT("jit", "timeout", jit.timeout, "120", 0, 86400, "s", "Limit of one compile; 0 = 120."),
    BOOL("jit", "require_warm", jit.require_warm, "false", "A kernel that is not in the cache is an error instead of a compile."),

    TEXT("cache", "roots", cache.roots, "",
         "Colon list of cache folders, the first is written, all are read; empty = $MOJIT_CACHE, else $XDG_CACHE_HOME/mojit."),
    INT64("cache", "max_size", cache.max_size, "2G", 0, 1e15, "bytes", "The cache is pruned to this size, oldest first; 0 = no limit."),

    TEXT("data", "train", data.train, "", "Token files to train on: paths or globs separated by `:`."),
    TEXT("data", "held_out", data.held_out, "", "Token files to evaluate on, likewise; empty = no evaluation."),
    CHOICE("data", "packing", data.packing, "full", "full|docs",
           "`full`: every row has seq_len tokens. `docs`: rows are documents of their own length, so that steps vary in size."),

    INT("train", "steps", train.steps, "100", 1, 1 << 30, "steps", "Optimizer steps."),
    INT("train", "batch", train.batch, "4", 1, 65536, "rows", "Rows (or documents) of a micro-batch."),
    INT("train", "seq_len", train.seq_len, "512", 2, 1 << 20, "tokens", "Longest sequence."),
    INT("train", "grad_accum", train.grad_accum, "1", 1, 65536, "", "Micro-batches of a step."),
    INT("train", "eval_every", train.eval_every, "0", 0, 1 << 30, "steps", "Evaluate after this many steps; 0 = only at the end."),
    INT64("train", "eval_tokens", train.eval_tokens, "65536", 1, 1e12, "tokens", "Held-out tokens of one evaluation, in rows spread evenly over the held-out text (at most what there is)."),
    INT64("train", "seed", train.seed, "1", 0, 9e15, "", "Decides initial weights and the order of the data."),
    INT("train", "loss_chunk", train.loss_chunk, "1024", 128, 1 << 20, "tokens", "Tokens whose logits are in memory at once; a multiple of 128."),

    FLOAT("optimizer", "embedding_lr", optimizer.embedding_lr, "0.3", 0, 100, "", "AdamW learning rate of the embedding."),
    FLOAT("optimizer", "head_lr", optimizer.head_lr, "0.008", 0, 100, "", "AdamW learning rate of the head."),
    FLOAT("optimizer", "matrix_lr", optimizer.matrix_lr, "0.002", 0, 100, "", "AdamW learning rate of the matrices of the layers."),
    FLOAT("optimizer", "router_lr", optimizer.router_lr, "0.005", 0, 100, "", "AdamW learning rate of the routers."),
    BOOL("optimizer", "scale_lr", optimizer.scale_lr, "true", "Multiply the embedding's and the head's rate by sqrt(768 / width)."),
    FLOAT("optimizer", "weight_decay", optimizer.weight_decay, "0.01", 0, 10, "", "Decoupled decay of the head and the matrices."),
    BETAS("optimizer", "betas", optimizer.betas, "0.8,0.96", "AdamW betas of all but the embedding."),
    BETAS("optimizer", "embedding_betas", optimizer.embedding_betas, "0.8,0.995", "AdamW betas of the embedding."),
    FLOAT("optimizer", "eps", optimizer.eps, "1e-10", 0, 1, "", "AdamW epsilon."),
    INT("optimizer", "warmup", optimizer.warmup, "40", 0, 1 << 30, "steps", "Steps of linear warm-up."),
    FLOAT("optimizer", "warmdown", optimizer.warmdown, "0.65", 0, 1, "", "Last fraction of the steps in which the rate falls linearly."),
    FLOAT("optimizer", "final_lr", optimizer.final_lr, "0.05", 0, 1, "", "Factor of the rate at the last step."),

    TEXT("run", "device", run.device, "",
         "Where kernels run: `cpu`, `cuda`, `cuda:<n>`; empty = the best that is there: cuda if a GPU can be used, else cpu."),
    INT("run", "threads", run.threads, "0", 0, 4096, "", "Worker threads of the cpu device; 0 = all cores."),
    BOOL("run", "graphs", run.graphs, "true",
         "cuda: replay the launches of a step as one graph, captured once for the padded sizes of its micro-batches; false launches them one by one."),
    BOOL("run", "overlap", run.overlap, "true",
         "cuda, sm_90 and later: a kernel may start while the one before it ends, and waits there for what that one writes; false starts it afterwards, to the same bits."),
    CHOICE("run", "dense_gemm", run.dense_gemm, "auto", "auto|mojit|cublaslt",
           "cuda: who multiplies dense matrices. `auto`: mojit, whose order of sums is the same in every mode. `cublaslt`: the library where it can, in any mode; that the modes then give the same bits is not promised."),
    TEXT("run", "out", run.out, "", "Folder for the run's log, step records and effective configuration; empty = none."),
    {NULL, NULL, MJ_OPTION_INT, 0, NULL, 0, 0, NULL, NULL, NULL},
};
