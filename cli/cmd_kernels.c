/* `mojit kernels`: the templates, and one template with its parameters. What a target makes of them is in
 * cmd_kernels_target.c, how tiles are chosen in cmd_kernels_explain.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/kernels.h"
#include "cli/table.h"
#include "jit/generic_pack.h"
#include "jit/jit.h"
#include "runtime/base/str.h"

const MjArgSpec mj_kernels_options[] = {
    {"target", MJ_ARG_STRING, "TARGET", "compile the matrix kernels (or NAME) for sm_90a, ... and print what they use", 0, 0, 0},
    {"explain", MJ_ARG_STRING, "'OP SHAPE'", "how tiles are chosen, as in 'gemm m=4096,n=768,k=768,experts=8'", 0, 0, 0},
    {"device", MJ_ARG_STRING, "DEVICE", "with --explain: cuda, cuda:N or cpu, with what `mojit tune` measured on it", 0, 0, 0},
    {"candidates", MJ_ARG_INT, "N", "with --explain: how many candidates to print; default 12", 0, 1, 100000},
    {"json", MJ_ARG_FLAG, NULL, "print as JSON", 0, 0, 0},
    {NULL, MJ_ARG_FLAG, NULL, NULL, 0, 0, 0},
};

static const char *const kind_names[] = {"fixed", "varying", "variant", "tuning"};

static void families_text(unsigned families, MjStr *s)
{
    static const char *const names[] = {"cpu", "sm_80", "sm_90a", "sm_100"};
    for (int i = 0; i < 4; i++) {
        if ((families & (1u << i)) != 0) mj_str_printf(s, "%s%s", s->len > 0 ? " " : "", names[i]);
    }
}

static void legal_text(const MjParam *p, MjStr *s)
{
    if (p->n_values > 0) {
        for (int i = 0; i < p->n_values; i++) mj_str_printf(s, "%s%d", i > 0 ? ", " : "", p->values[i]);
        return;
    }
    mj_str_printf(s, "%d to ", p->min);
    if (p->max == INT32_MAX) {
        mj_str_puts(s, "any");
    } else {
        mj_str_printf(s, "%d", p->max);
    }
    if (p->multiple > 1) mj_str_printf(s, ", multiples of %d", p->multiple);
}

static int embedded_builds(const MjTemplate *t)
{
    int n = 0;
    for (const MjEmbeddedKernel *k = mj_embedded_kernels; k->tmpl != NULL; k++) n += strcmp(k->tmpl, t->name) == 0;
    return n;
}

/* Targets of a template's embedded GPU images, "sm_80 (4) sm_90a (4)". */
static void embedded_gpu_text(const MjGenericPack *p, const MjTemplate *t, MjStr *s)
{
    for (int i = 0; p != NULL && i < p->n_frames; i++) {
        const MjGenericFrame *f = &p->frames[i];
        if (strcmp(f->tmpl, t->name) == 0) mj_str_printf(s, "%s%s (%d)", s->len > 0 ? " " : "", f->target, f->n_images);
    }
}

static MjTable *params_table(const MjTemplate *t)
{
    static const MjColumn columns[] = {{"name", "parameter", false}, {"kind", "kind", false},
                                       {"legal", "legal values", false}, {"default", "default", true},
                                       {NULL, NULL, false}};
    MjTable *table = mj_table_open(columns);
    for (int i = 0; i < t->n_params; i++) {
        MjStr legal = MJ_STR_INIT;
        legal_text(&t->params[i], &legal);
        mj_table_text(table, t->params[i].name);
        mj_table_text(table, kind_names[t->params[i].kind]);
        mj_table_text(table, mj_str_text(&legal));
        if (t->params[i].kind == MJ_PARAM_TUNING) {
            mj_table_int(table, t->params[i].default_value);
        } else {
            mj_table_show(table, json_null(), "");
        }
        mj_str_free(&legal);
    }
    return table;
}

static void print_one(const MjTemplate *t, const MjGenericPack *pack, bool json)
{
    MjStr families = MJ_STR_INIT, gpu = MJ_STR_INIT;
    embedded_gpu_text(pack, t, &gpu);
    families_text(t->families, &families);
    MjTable *params = params_table(t);
    if (json) {
        json_t *kernels = json_array();
        for (int i = 0; i < t->n_kernels; i++) json_array_append_new(kernels, json_string(t->kernels[i]));
        json_t *o = json_pack("{ss ss ss ss ss so si ss so}", "name", t->name, "doc", t->doc != NULL ? t->doc : "", "args", t->args,
                              "families", mj_str_text(&families), "origin", t->origin, "kernels", kernels, "embedded",
                              embedded_builds(t), "embedded_gpu", mj_str_text(&gpu), "parameters", mj_table_json(params));
        char *text = json_dumps(o, JSON_INDENT(2));
        puts(text);
        free(text);
        json_decref(o);
    } else {
        printf("%s: %s\narguments: %s; families: %s; from: %s\nentry points:", t->name, t->doc != NULL ? t->doc : "", t->args,
               mj_str_text(&families), t->origin);
        for (int i = 0; i < t->n_kernels; i++) printf(" %s", t->kernels[i]);
        printf("\ngeneric builds embedded: %d for CPUs; for GPUs: %s\n\n", embedded_builds(t),
               gpu.len > 0 ? mj_str_text(&gpu) : "none");
        mj_table_print(params, false);
    }
    mj_table_close(params);
    mj_str_free(&families);
    mj_str_free(&gpu);
}

static int embedded_gpu_images(const MjGenericPack *p, const MjTemplate *t)
{
    int n = 0;
    for (int i = 0; i < p->n_frames; i++) {
        if (strcmp(p->frames[i].tmpl, t->name) == 0) n += p->frames[i].n_images;
    }
    return n;
}

static void print_all(const MjJit *jit, const MjGenericPack *pack, bool json)
{
    static const MjColumn columns[] = {{"name", "template", false},  {"families", "families", false},
                                       {"fixed", "fixed", true},     {"varying", "varying", true},
                                       {"variant", "variant", true}, {"tuning", "tuning", true},
                                       {"embedded", "generic CPU", true},
                                       {"embedded_gpu", "generic GPU", true}, {"doc", "what it does", false},
                                       {NULL, NULL, false}};
    MjTable *table = mj_table_open(columns);
    for (int i = 0; i < mj_jit_template_count(jit); i++) {
        const MjTemplate *t = mj_jit_template_at(jit, i);
        int kinds[4] = {0, 0, 0, 0};
        MjStr families = MJ_STR_INIT;
        families_text(t->families, &families);
        for (int p = 0; p < t->n_params; p++) kinds[t->params[p].kind]++;
        mj_table_text(table, t->name);
        mj_table_text(table, mj_str_text(&families));
        for (int k = 0; k < 4; k++) mj_table_int(table, kinds[k]);
        mj_table_int(table, embedded_builds(t));
        mj_table_int(table, embedded_gpu_images(pack, t));
        mj_table_text(table, t->doc != NULL ? t->doc : "");
        mj_str_free(&families);
    }
    mj_table_print(table, json);
    mj_table_close(table);
}

int mj_cmd_kernels(const MjArgs *args, MjError *err)
{
    int rc = 0;
    MjJit *jit = NULL;
    MjGenericPack *pack = NULL;
    const char *const *words;
    const char *folder = getenv("MOJIT_KERNELS");
    size_t n = mj_args_words(args, &words);
    if (mj_args_string(args, "explain") != NULL) return mj_kernels_explain(args, err);
    if (mj_args_string(args, "target") != NULL) return mj_kernels_of_target(args, n > 0 ? words[0] : NULL, err);
    MjJitOptions options = {.target = mj_cpu_target()};
    MJ_TRY(mj_mode_find("nocompile", &options.mode, err));
    MJ_TRY(mj_bucket_parse("multiple:128", &options.bucket, err));
    MJ_TRY(mj_jit_open(&options, &jit, err));
    if (folder != NULL) MJ_TRY(mj_jit_add_folder(jit, folder, err));
    MJ_TRY(mj_generic_pack_open(&pack, err));
    if (n == 0) {
        print_all(jit, pack, mj_args_flag(args, "json"));
    } else {
        const MjTemplate *t = NULL;
        MJ_TRY(mj_jit_template(jit, words[0], &t, err));
        print_one(t, pack, mj_args_flag(args, "json"));
    }
out:
    mj_generic_pack_close(pack);
    mj_jit_close(jit);
    return rc;
}
