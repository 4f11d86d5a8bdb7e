/* libnvrtc.so.13 of the simulator: compiles a CUDA template with the host's g++ into a shared object that sim_driver.c
 * loads. Owns the few rewritings that C++ lacks words for (kernels, shared memory); the rest is include/sim_cuda.h.
 *
 * Two passes: g++ -E, then, on the preprocessed text: `__global__` loses its meaning but names an entry point,
 * `__launch_bounds__` is noted, `__shared__ T x[n]` moves to a section of its own, behind a reference, `extern __shared__ T x[]` becomes the
 * block's dynamic memory. Then g++ -O1 with kernel-address instrumentation, which calls a check before every access. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
enum { OK = 0, OUT_OF_MEMORY = 1, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6, INTERNAL = 11 };

typedef struct Program {
    char *source, *name;
    int n_headers;
    char **headers, **header_names;
    char *log, *image;
    size_t image_bytes;
    int arch; /* 90 */
} Program;

typedef struct Text {
    char *data;
    size_t len, cap;
} Text;

static void put(Text *t, const char *s, size_t n)
{
    if (t->len + n + 1 > t->cap) {
        t->cap = (t->len + n + 1) * 2;
        t->data = realloc(t->data, t->cap);
        if (t->data == NULL) abort();
    }
    memcpy(t->data + t->len, s, n);
    t->len += n;
    t->data[t->len] = '\0';
}
static void puts_text(Text *t, const char *s) { put(t, s, strlen(s)); }

extern char **environ;

/* Runs a command, its stderr added to the log. */
static int run_child(const char *const *argv, Text *log)
{
    int fds[2], status;
    pid_t pid;
    posix_spawn_file_actions_t fa;
    if (pipe2(fds, O_CLOEXEC) != 0) return -1;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, fds[1], 2);
    posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
    const int rc = posix_spawnp(&pid, argv[0], &fa, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    close(fds[1]);
    if (rc != 0) {
        close(fds[0]);
        puts_text(log, argv[0]);
        puts_text(log, ": not found: the simulated GPU compiles with g++\n");
        return -1;
    }
    char buffer[4096];
    ssize_t n;
    while ((n = read(fds[0], buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0) put(log, buffer, (size_t)n);
    close(fds[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static char *read_all(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rbe");
    if (f == NULL) return NULL;
    Text t = {0};
    char buffer[65536];
    size_t n;
    while ((n = fread(buffer, 1, sizeof buffer, f)) > 0) put(&t, buffer, n);
    fclose(f);
    if (len != NULL) *len = t.len;
    return t.data;
}
static int write_all(const char *path, const char *text, size_t len)
{
    FILE *f = fopen(path, "wbe");
    if (f == NULL) return -1;
    const bool ok = fwrite(text, 1, len, f) == len;
    return fclose(f) == 0 && ok ? 0 : -1;
}

/* ---- rewriting ------------------------------------------------------------------------------------------------- */

static bool word_at(const char *s, const char *at, const char *word)
{
    const size_t n = strlen(word);
    if (strncmp(at, word, n) != 0) return false;
    if (at > s && (isalnum((unsigned char)at[-1]) || at[-1] == '_')) return false;
    return !(isalnum((unsigned char)at[n]) || at[n] == '_');
}

static const char *skip_group(const char *p) /* from '(' to after its ')' */
{
    int depth = 0;
    do {
        if (*p == '(') depth++;
        if (*p == ')') depth--;
        p++;
    } while (*p != '\0' && depth > 0);
    return p;
}

static const char *skip_space(const char *p)
{
    while (isspace((unsigned char)*p)) p++;
    return p;
}

typedef struct Kernel {
    char name[128];
    char bounds[768]; /* an expression, macros expanded */
} Kernel;

static int major_version(void)
{
    const char *another = getenv("MOJIT_SIMGPU_NVRTC");
    return another != NULL && another[0] != '\0' ? atoi(another) : 13;
}

/* After __global__: finds the function's name (the last word before its parameter list) and its launch bounds. Copies the
 * declaration without the words that C++ doesn't know. */
static const char *take_kernel(const char *p, Text *out, Kernel *kernels, int *n)
{
    Kernel k = {"", "0"};
    for (;;) {
        const char *q = skip_space(p);
        put(out, p, (size_t)(q - p));
        p = q;
        if (isalpha((unsigned char)*p) || *p == '_') {
            const char *start = p;
            while (isalnum((unsigned char)*p) || *p == '_') p++;
            const size_t len = (size_t)(p - start);
            const char *open = skip_space(p);
            const bool bounds = len == 17 && strncmp(start, "__launch_bounds__", len) == 0;
            if (bounds || (len == 16 && strncmp(start, "__cluster_dims__", len) == 0)) {
                const char *end = skip_group(open);
                const char *stop = open + 1;
                while (stop < end - 1 && *stop != ',') stop++;
                if (bounds) snprintf(k.bounds, sizeof k.bounds, "%.*s", (int)(stop - open - 1), open + 1);
                p = end;
                continue;
            }
            put(out, start, len);
            if (*open == '(' && strncmp(start, "__attribute__", 13) == 0) {
                p = skip_group(open);
                put(out, open, (size_t)(p - open));
                continue;
            }
            if (*open == '(') {
                snprintf(k.name, sizeof k.name, "%.*s", (int)len, start);
                break;
            }
        } else if (*p == '\0') {
            break;
        } else {
            put(out, p++, 1);
        }
    }
    for (int i = 0; i < *n; i++)
        if (strcmp(kernels[i].name, k.name) == 0) return p;
    if (k.name[0] != '\0' && *n < 64) kernels[(*n)++] = k;
    return p;
}

typedef struct Dynamic { /* an extern __shared__ array: its name is replaced by a pointer from there on */
    char name[64], type[1088];
} Dynamic;

static const char *take_dynamic(const char *p, Dynamic *dynamics, int *n)
{
    Dynamic d = {"", ""};
    char words[16][64];
    int count = 0;
    while (*p != '\0' && *p != '[') {
        p = skip_space(p);
        if (!(isalpha((unsigned char)*p) || *p == '_')) {
            if (*p == '[' || *p == '\0') break;
            p++;
            continue;
        }
        const char *start = p;
        while (isalnum((unsigned char)*p) || *p == '_') p++;
        const char *open = skip_space(p);
        if (strncmp(start, "__attribute__", 13) == 0 && *open == '(') {
            p = skip_group(open);
            continue;
        }
        if (strncmp(start, "alignas", 7) == 0 && *open == '(') {
            p = skip_group(open);
            continue;
        }
        if (count < 16) snprintf(words[count++], sizeof words[0], "%.*s", (int)(p - start), start);
    }
    while (*p != '\0' && *p != ';') p++;
    for (int i = 0; i + 1 < count; i++) snprintf(d.type + strlen(d.type), sizeof d.type - strlen(d.type), "%s ", words[i]);
    if (count > 0) memcpy(d.name, words[count - 1], sizeof d.name);
    for (int i = 0; i < *n; i++)
        if (strcmp(dynamics[i].name, d.name) == 0) {
            dynamics[i] = d;
            return p;
        }
    if (*n < 16) dynamics[(*n)++] = d;
    return p;
}

/* `__shared__ T a[n], b;` from behind the first word: the variables get other names, and a and b become references through
 * pointers that the compiler can't look behind. It leaves out the check of an access that it knows to be inside a variable. */
static const char *take_static(const char *p, Text *out)
{
    char names[16][64];
    const char *name = NULL;
    size_t len = 0;
    int n = 0, depth = 0;
    puts_text(out, "static __attribute__((section(\"simgpu_shared\"))) ");
    while (*p != '\0') {
        if (isalpha((unsigned char)*p) || *p == '_') {
            const char *start = p;
            while (isalnum((unsigned char)*p) || *p == '_') p++;
            put(out, start, (size_t)(p - start));
            const char *next = skip_space(p);
            if (depth == 0 && name == NULL && (*next == '[' || *next == ',' || *next == ';' || *next == '=')) {
                name = start;
                len = (size_t)(p - start);
                puts_text(out, "_simgpu");
            }
            continue;
        }
        depth += *p == '(' || *p == '[' || *p == '{';
        depth -= *p == ')' || *p == ']' || *p == '}';
        if (depth == 0 && (*p == ',' || *p == ';')) {
            if (name != NULL && n < 16) snprintf(names[n++], sizeof names[0], "%.*s", (int)len, name);
            name = NULL;
            if (*p == ';') break;
        }
        put(out, p++, 1);
    }
    puts_text(out, ";");
    for (int i = 0; i < n; i++) {
        const char *const words[] = {" auto &", names[i], " = *sim_hide(&", names[i], "_simgpu);"};
        for (int k = 0; k < 5; k++) puts_text(out, words[k]);
    }
    return *p == ';' ? p + 1 : p;
}

static void rewrite(const char *text, Text *out, Kernel *kernels, int *n_kernels)
{
    Dynamic dynamics[16];
    int n_dynamics = 0;
    const char *p = text;
    while (*p != '\0') {
        if (*p == '"' || *p == '\'') { /* literals are copied */
            const char quote = *p, *start = p++;
            while (*p != '\0' && *p != quote) p += *p == '\\' && p[1] != '\0' ? 2 : 1;
            if (*p != '\0') p++;
            put(out, start, (size_t)(p - start));
            continue;
        }
        if (!(isalpha((unsigned char)*p) || *p == '_') || (p > text && (isalnum((unsigned char)p[-1]) || p[-1] == '_'))) {
            put(out, p++, 1);
            continue;
        }
        if (word_at(text, p, "__global__")) {
            p = take_kernel(p + 10, out, kernels, n_kernels);
            continue;
        }
        if (word_at(text, p, "extern")) {
            const char *q = skip_space(p + 6);
            if (strncmp(q, "__shared__", 10) == 0) {
                p = take_dynamic(q + 10, dynamics, &n_dynamics);
                continue;
            }
        }
        if (word_at(text, p, "__shared__")) {
            p = take_static(p + 10, out);
            continue;
        }
        const char *start = p;
        while (isalnum((unsigned char)*p) || *p == '_') p++;
        int which = -1;
        for (int i = 0; i < n_dynamics; i++)
            if (strlen(dynamics[i].name) == (size_t)(p - start) && strncmp(dynamics[i].name, start, (size_t)(p - start)) == 0) which = i;
        if (which >= 0) {
            puts_text(out, "((");
            puts_text(out, dynamics[which].type);
            puts_text(out, "*)simgpu_dynamic_shared())");
        } else {
            put(out, start, (size_t)(p - start));
        }
    }
}

#define NOCHECK "__attribute__((no_sanitize(\"kernel-address\"))) "

static void add_entries(Text *out, const Kernel *kernels, int n, int arch)
{
    char line[2048];
    _Static_assert(sizeof line > 5 * sizeof kernels->name + sizeof kernels->bounds + 600, "one entry fits");
    puts_text(out, "\n# 1 \"entries\"\n");
    for (int i = 0; i < n; i++) {
        const char *k = kernels[i].name; /* at most 127 bytes, five times: fits */
        snprintf(line, sizeof line,
                 "extern \"C\" __attribute__((visibility(\"default\"))) " NOCHECK "void simgpu_entry_%.127s(void **p) { sim_call(%.127s, p); }\n"
                 "extern \"C\" __attribute__((visibility(\"default\"))) " NOCHECK "const SimKernelInfo *simgpu_kernel_%.127s(void) {\n"
                 "    static SimKernelInfo info;\n"
                 "    info = sim_describe(%.127s, simgpu_entry_%.127s, (int)(%.767s), __start_simgpu_shared, __stop_simgpu_shared);\n"
                 "    return &info;\n}\n", k, k, k, k, k, kernels[i].bounds);
        puts_text(out, line);
    }
    snprintf(line, sizeof line, "extern \"C\" __attribute__((visibility(\"default\"))) const int simgpu_image_arch;\n"
             "extern const int simgpu_image_arch = %d;\n"
             "extern \"C\" __attribute__((visibility(\"default\"))) const int simgpu_image_toolkit;\n"
             "extern const int simgpu_image_toolkit = %d;\n", arch, major_version());
    puts_text(out, line);
}

/* ---- compiling ------------------------------------------------------------------------------------------------------ */

static int write_headers(const Program *p, const char *dir)
{
    char path[512];
    for (int i = 0; i < p->n_headers; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, p->header_names[i]);
        for (char *slash = strchr(path + strlen(dir) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
            *slash = '\0';
            (void)mkdir(path, 0700);
            *slash = '/';
        }
        if (write_all(path, p->headers[i], strlen(p->headers[i])) != 0) return -1;
    }
    return 0;
}

static int compile_in(Program *p, const char *dir, int n_options, char **options, bool feature_a, Text *log)
{
    char source[512], expanded[512], final[512], image[512], arch[64], self[600], include_here[520];
    const char *argv[64];
    int n = 0;
    snprintf(source, sizeof source, "%s/kernel.cu", dir);
    snprintf(expanded, sizeof expanded, "%s/kernel.ii", dir);
    snprintf(final, sizeof final, "%s/final.ii", dir);
    snprintf(image, sizeof image, "%s/kernel.so", dir);
    snprintf(arch, sizeof arch, "-D__CUDA_ARCH__=%d0", p->arch);
    snprintf(self, sizeof self, "%s/sim_cuda.h", SIMGPU_INCLUDE);
    snprintf(include_here, sizeof include_here, "-I%s", dir);
    Text named = {0};
    puts_text(&named, "#line 1 \"");
    puts_text(&named, p->name);
    puts_text(&named, "\"\n");
    puts_text(&named, p->source);
    const int wrote = write_all(source, named.data, named.len);
    free(named.data);
    if (wrote != 0 || write_headers(p, dir) != 0) return INTERNAL;
    argv[n++] = "g++", argv[n++] = "-E", argv[n++] = "-x", argv[n++] = "c++", argv[n++] = "-std=c++17";
    argv[n++] = "-I" SIMGPU_INCLUDE, argv[n++] = include_here, argv[n++] = "-include", argv[n++] = self;
    argv[n++] = "-D__CUDACC__", argv[n++] = "-DSIMGPU", argv[n++] = arch;
    if (feature_a) argv[n++] = p->arch == 90 ? "-D__CUDA_ARCH_FEAT_SM90_ALL" : "-D__CUDA_ARCH_FEAT_SM100_ALL";
    for (int i = 0; i < n_options && n < 56; i++)
        if (strncmp(options[i], "-D", 2) == 0 && options[i][2] != '\0') argv[n++] = options[i];
    argv[n++] = source, argv[n++] = "-o", argv[n++] = expanded, argv[n] = NULL;
    if (run_child(argv, log) != 0) return COMPILATION;

    char *text = read_all(expanded, NULL);
    if (text == NULL) return INTERNAL;
    Kernel kernels[64];
    int n_kernels = 0;
    Text out = {0};
    rewrite(text, &out, kernels, &n_kernels);
    free(text);
    add_entries(&out, kernels, n_kernels, p->arch);
    const int rc = write_all(final, out.data, out.len);
    free(out.data);
    if (rc != 0) return INTERNAL;
    const char *build[] = {"g++", "-x", "c++-cpp-output", "-std=c++17", "-O1", "-g1", "-w", "-shared", "-fPIC", "-fvisibility=hidden",
                     "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti", "-mfma", "-fno-tree-sra",
                     "-fsanitize=kernel-address", "--param", "asan-instrumentation-with-call-threshold=0", "--param",
                     "asan-stack=0", "--param", "asan-globals=0", "-Wl,-Bsymbolic", "-nostartfiles", final, "-o", image, NULL};
    if (run_child(build, log) != 0) return COMPILATION;
    p->image = read_all(image, &p->image_bytes);
    return p->image != NULL ? OK : INTERNAL;
}

static void remove_folder(const char *dir)
{
    const char *argv[] = {"rm", "-rf", dir, NULL};
    Text log = {0};
    (void)run_child(argv, &log);
    free(log.data);
}

/* ---- the API ---------------------------------------------------------------------------------------------------------- */

/* The minor version is no real one, so keys of simulated images never meet those of real ones; it changes with the headers that
 * images are built from. */
API int nvrtcVersion(int *major, int *minor);
API int nvrtcVersion(int *major, int *minor)
{
    static const char *const headers[] = {"sim_abi.h", "sim_cuda.h", "sim_ptx.cuh"};
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", SIMGPU_INCLUDE, headers[i]);
        size_t n = 0;
        char *text = read_all(path, &n);
        for (size_t k = 0; text != NULL && k < n; k++) h = (h ^ (unsigned char)text[k]) * 16777619u;
        free(text);
    }
    *major = major_version();
    *minor = 990000 + (int)(h % 10000);
    return OK;
}
API const char *nvrtcGetErrorString(int r);
API const char *nvrtcGetErrorString(int r)
{
    switch (r) {
    case OK: return "NVRTC_SUCCESS";
    case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
    case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
    case COMPILATION: return "NVRTC_ERROR_COMPILATION";
    default: return "NVRTC_ERROR_INTERNAL_ERROR";
    }
}
API int nvrtcGetNumSupportedArchs(int *n);
API int nvrtcGetNumSupportedArchs(int *n)
{
    *n = 6;
    return OK;
}
API int nvrtcGetSupportedArchs(int *archs);
API int nvrtcGetSupportedArchs(int *archs)
{
    static const int all[] = {80, 86, 89, 90, 100, 120};
    memcpy(archs, all, sizeof all);
    return OK;
}
API int nvrtcCreateProgram(Program **out, const char *src, const char *name, int n, const char *const *headers, const char *const *names);
API int nvrtcCreateProgram(Program **out, const char *src, const char *name, int n, const char *const *headers, const char *const *names)
{
    if (src == NULL || n < 0) return INVALID_INPUT;
    Program *p = calloc(1, sizeof *p);
    p->source = strdup(src);
    p->name = strdup(name != NULL ? name : "default_program");
    p->n_headers = n;
    p->headers = calloc((size_t)n + 1, sizeof *p->headers);
    p->header_names = calloc((size_t)n + 1, sizeof *p->header_names);
    for (int i = 0; i < n; i++) {
        p->headers[i] = strdup(headers[i]);
        p->header_names[i] = strdup(names[i]);
    }
    *out = p;
    return OK;
}
API int nvrtcDestroyProgram(Program **prog);
API int nvrtcDestroyProgram(Program **prog)
{
    Program *p = *prog;
    for (int i = 0; i < p->n_headers; i++) {
        free(p->headers[i]);
        free(p->header_names[i]);
    }
    free(p->headers), free(p->header_names), free(p->source), free(p->name), free(p->log), free(p->image);
    free(p);
    *prog = NULL;
    return OK;
}
API int nvrtcCompileProgram(Program *p, int n, char **options);
API int nvrtcCompileProgram(Program *p, int n, char **options)
{
    const char *tmp = getenv("TMPDIR");
    char dir[256];
    bool feature_a = false;
    Text log = {0};
    p->arch = 90;
    for (int i = 0; i < n; i++) {
        const char *sm = strstr(options[i], "arch");
        if (sm == NULL || options[i][0] != '-') continue;
        const char *value = strchr(sm, '=');
        if (value == NULL) value = i + 1 < n ? options[i + 1] - 1 : "=";
        const char *under = strchr(value, '_');
        if (under == NULL) return INVALID_OPTION;
        p->arch = atoi(under + 1);
        feature_a = value[strlen(value) - 1] == 'a';
    }
    if (p->arch < 80) return INVALID_OPTION;
    snprintf(dir, sizeof dir, "%s/simgpu-XXXXXX", tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL) return INTERNAL;
    const int rc = compile_in(p, dir, n, options, feature_a, &log);
    if (getenv("MOJIT_SIMGPU_KEEP") == NULL) remove_folder(dir);
    free(p->log);
    p->log = log.data;
    return rc;
}
API int nvrtcGetProgramLogSize(Program *p, size_t *n);
API int nvrtcGetProgramLogSize(Program *p, size_t *n)
{
    *n = (p->log != NULL ? strlen(p->log) : 0) + 1;
    return OK;
}
API int nvrtcGetProgramLog(Program *p, char *log);
API int nvrtcGetProgramLog(Program *p, char *log)
{
    strcpy(log, p->log != NULL ? p->log : "");
    return OK;
}
API int nvrtcGetCUBINSize(Program *p, size_t *n);
API int nvrtcGetCUBINSize(Program *p, size_t *n)
{
    if (p->image == NULL) return INVALID_PROGRAM;
    *n = p->image_bytes;
    return OK;
}
API int nvrtcGetCUBIN(Program *p, char *out);
API int nvrtcGetCUBIN(Program *p, char *out)
{
    if (p->image == NULL) return INVALID_PROGRAM;
    memcpy(out, p->image, p->image_bytes);
    return OK;
}
