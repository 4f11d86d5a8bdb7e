/* Making a template's source ready for a compiler: the preamble that binds parameters, and one self-contained text. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "jit/template.h"
#include "runtime/base/mem.h"

enum { MAX_HEADERS = 64 };

typedef struct Inliner {
    const MjSources *sources;
    MjStr *out;                     /* NULL: only find out what is read */
    const char *seen[MAX_HEADERS];  /* every header that was met */
    size_t n_seen;
    const char *open[MAX_HEADERS];  /* headers around this point: none is put into itself */
    size_t depth;
} Inliner;

/* The name in a line `#include "name"`, or false. */
static bool include_name(const char *line, const char *end, char name[64])
{
    const char *at = line;

    while (at < end && (*at == ' ' || *at == '\t')) at++;
    if (at == end || *at++ != '#') return false;
    while (at < end && (*at == ' ' || *at == '\t')) at++;
    if (end - at < 9 || strncmp(at, "include", 7) != 0) return false;
    at += 7;
    while (at < end && (*at == ' ' || *at == '\t')) at++;
    if (at == end || *at++ != '"') return false;
    const char *close = memchr(at, '"', (size_t)(end - at));
    if (!close || close - at >= 64) return false;
    memcpy(name, at, (size_t)(close - at));
    name[close - at] = 0;
    return true;
}

static bool among(const char *const *list, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == text) return true;
    return false;
}

static void inline_text(Inliner *in, const char *file, const char *text);

static void inline_header(Inliner *in, const char *name, const char *text)
{
    bool again = among(in->seen, in->n_seen, text);

    if (in->depth == MAX_HEADERS || among(in->open, in->depth, text)) return;
    if (!again && in->n_seen < MAX_HEADERS) in->seen[in->n_seen++] = text;
    if (again && !in->out) return;
    in->open[in->depth++] = text;
    inline_text(in, name, text);
    in->depth--;
}

/* A header is put in wherever it is named: its guard decides whether it counts there, since a mention may lie in a branch
 * that is not compiled. What an unused branch reads is part of the key too: a key may change without need, never fail to. */
static void inline_text(Inliner *in, const char *file, const char *text)
{
    int line = 1;

    if (in->out) mj_str_printf(in->out, "#line 1 \"%s\"\n", file);
    for (const char *at = text; *at; line++) {
        const char *end = strchrnul(at, '\n');
        char name[64];
        const char *header = include_name(at, end, name) ? mj_sources_find(in->sources, name) : NULL;
        if (header) {
            inline_header(in, name, header);
            if (in->out) mj_str_printf(in->out, "#line %d \"%s\"\n", line + 1, file);
        } else if (in->out) {
            mj_str_append(in->out, at, (size_t)(end - at));
            mj_str_puts(in->out, "\n");
        }
        at = *end ? end + 1 : end;
    }
}

static void preamble(const MjTemplate *t, const int32_t *bound, const char *suffix, MjStr *out)
{
    if (suffix) mj_str_printf(out, "#define MJ_ENTRY_SUFFIX %s\n", suffix);
    for (int i = 0; i < t->n_params; i++) {
        const MjParam *p = &t->params[i];
        char field[sizeof p->name];
        for (size_t k = 0; k < sizeof field; k++) field[k] = (char)tolower((unsigned char)p->name[k]);
        if (bound[i] != MJ_UNBOUND)
            mj_str_printf(out, "#define %s (%d)\n#define MJ_BOUND_%s 1\n", p->name, bound[i], p->name);
        else
            mj_str_printf(out, "#define %s (args->%s)\n#define MJ_BOUND_%s 0\n", p->name, field, p->name);
    }
}

int mj_template_expand(const MjTemplate *t, const MjSources *sources, const int32_t *bound, const char *suffix, char **out,
                       MjError *err)
{
    MjStr text = MJ_STR_INIT;
    Inliner in = {.sources = sources, .out = &text};

    for (int i = 0; i < t->n_params; i++)
        if (bound[i] == MJ_UNBOUND && t->params[i].kind >= MJ_PARAM_VARIANT)
            return mj_error(err, MJ_ERR_USAGE, "template %s: %s is a %s and must be bound", t->name, t->params[i].name,
                            t->params[i].kind == MJ_PARAM_VARIANT ? "variant" : "tuning parameter");
    preamble(t, bound, suffix, &text);
    const char *prelude = mj_sources_find(sources, "prelude.h");
    if (!prelude) return mj_error(err, MJ_ERR_DATA, "prelude.h is not among the template sources");
    inline_header(&in, "prelude.h", prelude);
    inline_text(&in, t->file, t->source);
    *out = mj_str_take(&text);
    return 0;
}

static void label_hash(MjStr *out, const char *label, const char *text)
{
    XXH128_hash_t h = XXH3_128bits(text, strlen(text));

    mj_str_printf(out, "%s: %016llx%016llx\n", label, (unsigned long long)h.high64, (unsigned long long)h.low64);
}

void mj_template_source_labels(const MjTemplate *t, const MjSources *sources, MjStr *out)
{
    Inliner in = {.sources = sources, .out = NULL};
    const char *prelude = mj_sources_find(sources, "prelude.h");

    label_hash(out, "source", t->source);
    if (prelude) inline_header(&in, "prelude.h", prelude);
    inline_text(&in, t->file, t->source);
    for (size_t i = 0; i < in.n_seen; i++) {
        char label[96] = "header ?";
        for (size_t k = 0; k < sources->n; k++)
            if (sources->files[k].text == in.seen[i]) snprintf(label, sizeof label, "header %s", sources->files[k].name);
        label_hash(out, label, in.seen[i]);
    }
}
