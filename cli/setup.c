/* Configuration, cache and signals for the commands. See setup.h. */
#include "cli/setup.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/cache.h"
#include "cli/term.h"
#include "runtime/base/str.h"
#include "runtime/cuda_api.h"
#include "runtime/device.h"

static int set_shorthand(const MjArgs *args, const char *option, const char *section, const char *key, MjConfig *config,
                         MjError *err)
{
    if (!mj_args_has(args, option)) return 0;
    const char *value = mj_args_string(args, option);
    if (value == NULL) return 0;
    char where[48];
    snprintf(where, sizeof where, "--%s", option);
    return mj_config_set_key(config, section, key, value, where, err);
}

/* No context is made here: a run's own process opens the device. */
static int choose_device(MjConfig *config, MjError *err)
{
    MjDeviceInfo info;
    MjError why = MJ_ERROR_INIT;
    if (config->run.device[0] != '\0') return 0;
    int rc = mj_device_probe(NULL, NULL, &info, err);
    if (rc != 0) return rc;
    snprintf(config->run.device, sizeof config->run.device, "%s", info.kind);
    if (strcmp(info.kind, "cpu") == 0 && mj_cuda_driver_found() && mj_device_probe("cuda", NULL, &info, &why) != 0) {
        mj_term_warn("running on the cpu (run.device = cpu says so without this line): %s", why.message);
    }
    mj_error_clear(&why);
    return 0;
}

int mj_setup_config(const MjArgs *args, MjConfig *out, MjError *err)
{
    int rc = 0;
    MjConfig config;
    mj_config_defaults(&config);
    const char *file = mj_args_string(args, "config");
    if (file != NULL) MJ_TRY(mj_config_load(&config, file, err));
    const char *const *sets = NULL;
    size_t n = mj_args_list(args, "set", &sets);
    for (size_t i = 0; i < n; i++) MJ_TRY(mj_config_set(&config, sets[i], err));
    MJ_TRY(set_shorthand(args, "mode", "jit", "mode", &config, err));
    MJ_TRY(set_shorthand(args, "device", "run", "device", &config, err));
    MJ_TRY(set_shorthand(args, "steps", "train", "steps", &config, err));
    MJ_TRY(set_shorthand(args, "out", "run", "out", &config, err));
    MJ_TRY(mj_config_check(&config, err));
    MJ_TRY(choose_device(&config, err));
    *out = config;
out:
    return rc;
}

static volatile sig_atomic_t g_interrupted;
static void (*volatile g_on_interrupt)(void *);
static void *volatile g_on_interrupt_user;

static void on_signal(int number)
{
    (void)number;
    static const char words[] = "\nmojit: stopping after this step; once more to stop at once\n";
    if (g_interrupted) _exit(130);
    g_interrupted = 1;
    int saved = errno;
    if (isatty(STDERR_FILENO) && write(STDERR_FILENO, words, sizeof words - 1) < 0) { /* nothing to be done */
    }
    if (g_on_interrupt != NULL) g_on_interrupt(g_on_interrupt_user);
    errno = saved;
}

void mj_setup_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool mj_setup_interrupted(void) { return g_interrupted != 0; }

void mj_setup_on_interrupt(void (*fn)(void *), void *user)
{
    g_on_interrupt = NULL; /* never the old function with the new argument */
    g_on_interrupt_user = user;
    g_on_interrupt = fn;
}

static void on_cache_warning(void *user, const char *line)
{
    (void)user;
    mj_term_warn("%s", line);
}

int mj_setup_cache(const MjConfig *config, MjCache **out, MjError *err)
{
    MjCacheOptions options = {
        .roots = config->cache.roots[0] != '\0' ? config->cache.roots : NULL,
        .max_bytes = config->cache.max_size > 0 ? (uint64_t)config->cache.max_size : UINT64_MAX,
        .warn = on_cache_warning,
    };
    return mj_cache_open(&options, out, err);
}
