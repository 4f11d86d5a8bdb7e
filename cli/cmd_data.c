/* `mojit data pack` and `mojit data info`. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/table.h"
#include "cli/term.h"
#include "train/data.h"

static const MjArgSpec pack_options[] = {
    {"out", MJ_ARG_STRING, "PREFIX", "writes PREFIX_train.bin and PREFIX_val.bin", 'o', 0, 0},
    {"held-out", MJ_ARG_STRING, "FRACTION", "part of the documents (of a single one: its end) that is held out; default 0.05", 0, 0, 0},
    {"max-bytes", MJ_ARG_INT, "N", "at most this much text; default: all of it", 0, 1, INT64_C(1) << 50},
    {"json", MJ_ARG_FLAG, NULL, "print the result as JSON", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};
static const MjArgSpec info_options[] = {
    {"json", MJ_ARG_FLAG, NULL, "print the result as JSON", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};

static int parse_fraction(const char *text, double *out, MjError *err)
{
    char *end = NULL;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !(v >= 0.0 && v <= 0.5)) {
        return mj_error(err, MJ_ERR_USAGE, "data pack: --held-out %s: expected a number from 0 to 0.5", text);
    }
    *out = v;
    return 0;
}

static int cmd_pack(const MjArgs *args, MjError *err)
{
    static const MjColumn columns[] = {
        {"prefix", NULL, false},           {"documents", "documents", true},
        {"bytes", "bytes", true},          {"held_out_documents", "held-out documents", true},
        {"held_out_bytes", "held-out bytes", true}, {"skipped", "skipped files", true},
        {"held_out_order1_bits_per_byte", "held-out order-1 bits/byte", true}, {NULL, NULL, false}};
    int rc = 0;
    const char *const *paths;
    size_t n = mj_args_words(args, &paths);
    const char *prefix = mj_args_string(args, "out"), *fraction = mj_args_string(args, "held-out");
    MjPackOptions options = {.held_out = 0.05, .max_bytes = mj_args_int(args, "max-bytes", 0)};
    MjPackResult r;
    if (prefix == NULL) {
        MJ_TRY(mj_error(err, MJ_ERR_USAGE, "data pack: --out PREFIX is missing; it names PREFIX_train.bin and PREFIX_val.bin"));
    }
    if (fraction != NULL) MJ_TRY(parse_fraction(fraction, &options.held_out, err));
    MJ_TRY(mj_data_pack(paths, (int)n, prefix, &options, &r, err));
    MjTable *t = mj_table_open(columns);
    mj_table_text(t, prefix);
    mj_table_int(t, r.documents);
    mj_table_int(t, r.bytes);
    mj_table_int(t, r.held_out_documents);
    mj_table_int(t, r.held_out_bytes);
    mj_table_int(t, r.skipped);
    mj_table_real(t, r.held_out_order1_bits, 4);
    mj_table_print(t, mj_args_flag(args, "json"));
    mj_table_close(t);
    if (r.held_out_documents == 0) mj_term_say("nothing is held out: there is no %s_val.bin; train with data.held_out empty", prefix);
out:
    return rc;
}

static void info_row(MjTable *t, const MjTokens *tokens, int file)
{
    MjTokenFileInfo info;
    int64_t documents = 0;
    uint32_t largest = 0;
    mj_tokens_file_info(tokens, file, &info);
    mj_tokens_scan(tokens, file, &documents, &largest);
    mj_table_text(t, info.path);
    mj_table_int(t, info.bits);
    mj_table_int(t, info.tokens);
    mj_table_int(t, documents);
    mj_table_int(t, largest);
    mj_table_real(t, info.vocab > 0 ? (double)info.vocab : (double)NAN, 0);
    mj_table_int(t, info.bos);
}

static int cmd_info(const MjArgs *args, MjError *err)
{
    static const MjColumn columns[] = {{"path", "file", false},      {"bits", "bits", true},
                                       {"tokens", "tokens", true},   {"documents", "documents", true},
                                       {"largest", "largest token", true}, {"vocab", "vocabulary", true},
                                       {"bos", "begins a document", true}, {NULL, NULL, false}};
    int rc = 0;
    const char *const *paths;
    MjTokens *tokens = NULL;
    MjTable *t = mj_table_open(columns);
    size_t n = mj_args_words(args, &paths);
    for (size_t i = 0; i < n; i++) {
        MJ_TRY(mj_tokens_open(paths[i], &tokens, err));
        for (int f = 0; f < mj_tokens_files(tokens); f++) info_row(t, tokens, f);
        double bits = (double)NAN;
        if (mj_tokens_byte_level(tokens)) MJ_TRY(mj_tokens_order1_entropy(tokens, &bits, err));
        if (isfinite(bits)) mj_term_say("%s: order-1 entropy %.4f bits per byte", paths[i], bits);
        mj_tokens_close(tokens);
        tokens = NULL;
    }
    mj_table_print(t, mj_args_flag(args, "json"));
out:
    mj_tokens_close(tokens);
    mj_table_close(t);
    return rc;
}

const MjCommand mj_data_commands[] = {
    {"pack", "PATH... --out PREFIX [OPTION]...", "Turn text files into byte-level token files with a held-out part.",
     "Folders are read recursively; what is not text is skipped and counted. The same texts give the same files.", pack_options, 1,
     -1, cmd_pack, NULL},
    {"info", "FILE... [OPTION]...", "Show what token files hold; refuse bad ones and say what is wrong.", NULL, info_options, 1, -1,
     cmd_info, NULL},
    {NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL},
};
