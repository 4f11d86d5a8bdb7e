/* Publish, lock, time out, prune and read in every order: the cache's own code (not a model of it) over a simulated kernel, two
 * or three processes that give way at every system call, one of which may be killed or made to fail at any of them. States
 * that were met before are not gone into again.
 *
 * What must hold in every one of them: a name holds a whole entry or nothing; what was read is what was published; a lock that
 * is in use has one holder; a waiter waits no longer than it said; each process ends; what was published stays, unless it
 * was pruned; and who compiles a second time has a reason (a wait that ran out, a death, a failure, a removal).
 *
 * The same is run on protocols that are broken on purpose, and the test fails if one of them is not found out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "runtime/base/clock.h"
#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "tests/cache/sim_kernel.h"

enum { IMAGE = 24, MAX_DEPTH = SIM_PROCESSES * SIM_ALL_STEPS, MAX_OPTIONS = SIM_PROCESSES * 3 };
#define WAIT_S 0.003
#define LONGEST_PAUSE_MS 4 /* of a wait of WAIT_S: 1, 2, then past it */
static const char label[] = "abi: 1\ntemplate: t\nspec: t K=1\n";

typedef struct Setup {
    const char *name;
    const char *roles; /* a letter a process: b = looks up, compiles and publishes; p = prunes; r = reads twice */
    SimBroken broken;
    bool no_locks;
    int kills, failures; /* that may happen in one run */
} Setup;

typedef struct Facts { /* of one run */
    bool holding[SIM_PROCESSES], published, pruned;
    int compiles, timeouts, killed, failed;
} Facts;

typedef struct Choice {
    uint8_t process, action;
} Choice;

typedef struct Frame {
    Choice option[MAX_OPTIONS];
    int n, next;
} Frame;

static MjCache *caches[SIM_PROCESSES]; /* one a process: nothing of the protocol is in their memory */
static char entry[200];
static unsigned char image[IMAGE];
static const Setup *setup;
static Facts facts;
static Frame frames[MAX_DEPTH];
static uint64_t *seen; /* open addressing; 0 = free */
static size_t n_seen, seen_cap;

/* ---- what the processes do ---- */

static bool look(int p)
{
    MjCacheEntry e = {.memory = NULL};
    MjCacheResult r = mj_cache_get(caches[p], mj_cache_key(label), &e);

    if (!sim_alive(p)) {
        mj_cache_entry_free(&e);
        return true;
    }
    if (r == MJ_CACHE_HIT && (strcmp(e.label, label) != 0 || e.image_bytes != IMAGE || memcmp(e.image, image, IMAGE) != 0))
        sim_violation("process %d read something else than was published", p);
    if (r == MJ_CACHE_CORRUPT && facts.failed == 0) sim_violation("process %d read a bad entry", p);
    mj_cache_entry_free(&e);
    return r == MJ_CACHE_HIT;
}

/* As jit/jit_image.c does it: look, lock, look again, compile, publish, unlock. */
static void build(int p)
{
    MjCacheLock lock = {.fd = -1};

    if (look(p)) return;
    double slept = sim_slept_ms(p);
    bool locked = mj_cache_lock(caches[p], mj_cache_key(label), WAIT_S, &lock);
    slept = sim_slept_ms(p) - slept;
    if (slept > WAIT_S * 1e3 + LONGEST_PAUSE_MS) sim_violation("process %d waited %g ms for a lock, of %g", p, slept, WAIT_S * 1e3);
    if (sim_alive(p)) {
        for (int i = 0; locked && i < SIM_PROCESSES; i++)
            if (facts.holding[i]) sim_violation("processes %d and %d hold one lock", i, p);
        facts.holding[p] = locked;
        facts.timeouts += !locked && !setup->no_locks;
    }
    if (setup->broken == SIM_NO_SECOND_LOOK || !look(p)) {
        facts.compiles += sim_alive(p);
        sim_point("compile");
        int rc = mj_cache_put(caches[p], label, image, IMAGE, NULL, 0.1, NULL);
        if (rc == 0 && sim_alive(p)) facts.published = true;
        if (rc != 0 && sim_alive(p) && facts.failed == 0) sim_violation("process %d could not publish", p);
    }
    facts.holding[p] = false;
    if (locked) mj_cache_unlock(&lock);
}

/* What both `mojit cache prune` and publishing past the limit do to a folder. */
static void prune(void)
{
    CacheAgedList list = {.item = NULL};
    char *folder = mj_xstrndup(entry, (size_t)(strrchr(entry, '/') - entry));

    mj_cache_list_folder(&list, folder);
    mj_cache_sort_aged(&list);
    for (size_t i = 0; i < list.n; i++) (void)mj_cache_remove_aged(&list, &list.item[i]);
    mj_cache_free_aged(&list);
    free(folder);
}

static void run_process(int p)
{
    switch (setup->roles[p]) {
    case 'b': build(p); break;
    case 'p': prune(); break;
    default:
        for (int i = 0; i < 2; i++) (void)look(p);
    }
}

/* ---- what must hold ---- */

static void check_state(void)
{
    size_t len = 0;
    const char *problem = NULL;
    const void *bytes = sim_file(entry, &len);
    MjCacheEntry e;

    if (bytes && mj_cache_entry_parse(bytes, len, &e, &problem) != 0) sim_violation("the entry's name holds a bad one: %s", problem);
    else if (bytes) mj_cache_entry_free(&e);
    if (facts.published && !bytes && !facts.pruned) sim_violation("what was published is gone");
}

static void check_end(void)
{
    int reasons = facts.timeouts + facts.killed + facts.failed + facts.pruned;

    if (facts.compiles > 1 + reasons && !setup->no_locks)
        sim_violation("%d compiles, with %d waits that ran out, %d killed, %d failures", facts.compiles, facts.timeouts, facts.killed,
                      facts.failed);
    if (facts.killed + facts.failed == 0 && sim_files_with("/.tmp-") > 0) sim_violation("a temporary is left over");
    if (facts.killed + facts.failed == 0 && !setup->no_locks && sim_files_with(".lock") > 0) sim_violation("a lock's file is left over");
    if (strchr(setup->roles, 'b') && facts.killed + facts.failed == 0 && !facts.published) sim_violation("nothing was published");
}

/* ---- every order ---- */

static bool met_before(uint64_t state)
{
    if (state == 0) state = 1;
    if (2 * (n_seen + 1) > seen_cap) {
        size_t old_cap = seen_cap;
        uint64_t *old = seen;
        seen_cap = seen_cap ? 2 * seen_cap : 1 << 16;
        seen = mj_xcalloc(seen_cap, sizeof *seen);
        for (size_t i = 0; i < old_cap; i++) {
            if (!old[i]) continue;
            size_t at = old[i] & (seen_cap - 1);
            while (seen[at]) at = (at + 1) & (seen_cap - 1);
            seen[at] = old[i];
        }
        free(old);
    }
    size_t at = state & (seen_cap - 1);
    for (; seen[at]; at = (at + 1) & (seen_cap - 1))
        if (seen[at] == state) return true;
    seen[at] = state;
    n_seen++;
    return false;
}

static void list_options(Frame *f)
{
    *f = (Frame){.n = 0};
    for (int p = 0; setup->roles[p]; p++) {
        if (sim_finished(p)) continue;
        f->option[f->n++] = (Choice){(uint8_t)p, SIM_RUN};
        if (facts.failed < setup->failures && sim_can_fail(p)) f->option[f->n++] = (Choice){(uint8_t)p, SIM_FAIL};
        if (facts.killed < setup->kills) f->option[f->n++] = (Choice){(uint8_t)p, SIM_KILL};
    }
}

static void apply(Choice c)
{
    facts.failed += c.action == SIM_FAIL;
    facts.killed += c.action == SIM_KILL;
    if (c.action == SIM_KILL) facts.holding[c.process] = false;
    if (setup->roles[c.process] == 'p') facts.pruned = true;
    sim_step(c.process, (SimAction)c.action);
}

static uint64_t whole_state(void)
{
    uint64_t s = sim_state();

    /* What the checks remember is of the past, but decides what they will say. */
    return s * 31 + (uint64_t)(facts.published | facts.pruned << 1) + (uint64_t)facts.compiles * 4 + (uint64_t)facts.timeouts * 64 +
           (uint64_t)facts.killed * 1024 + (uint64_t)facts.failed * 8192;
}

/* Runs the given number of choices again, then the first of every further one until all ends or a state is known. */
static int run_once(int n_frames)
{
    int n = (int)strlen(setup->roles), depth = 0;

    facts = (Facts){.published = false};
    sim_reset(setup->broken, !setup->no_locks, setup->kills + setup->failures > 0, entry, run_process, n);
    for (;; depth++) {
        check_state();
        if (sim_violated()) break;
        if (depth == n_frames) {
            list_options(&frames[depth]);
            if (frames[depth].n == 0) {
                check_end();
                break;
            }
            if (met_before(whole_state())) break;
            n_frames++;
        }
        apply(frames[depth].option[frames[depth].next]);
    }
    sim_end();
    return n_frames;
}

static void print_order(int n_frames)
{
    static const char *const names[] = {"", "!", "x"}; /* runs, its call fails, is killed */

    printf("   order:");
    for (int i = 0; i < n_frames; i++) {
        Choice c = frames[i].option[frames[i].next];
        printf(" %d%s", c.process, names[c.action]);
    }
    printf("\n");
}

/* Returns whether the expectation was met: sound ones hold, broken ones are found out. */
static bool explore(const Setup *s)
{
    int n_frames = 0;
    size_t runs = 0;
    uint64_t begin = mj_clock_ns();

    setup = s;
    n_seen = 0;
    if (seen) memset(seen, 0, seen_cap * sizeof *seen);
    do {
        runs++;
        n_frames = run_once(n_frames);
        if (sim_violated()) break;
        while (n_frames > 0 && ++frames[n_frames - 1].next == frames[n_frames - 1].n) n_frames--;
    } while (n_frames > 0);
    bool good = (sim_violated() != NULL) == (s->broken != SIM_SOUND);
    printf("%s %-34s %8zu states %8zu runs %5.1f s  %s\n", good ? "ok  " : "FAIL", s->name, n_seen, runs,
           (double)(mj_clock_ns() - begin) * 1e-9, sim_violated() ? sim_violated() : "");
    if (!good && sim_violated()) print_order(n_frames);
    fflush(stdout);
    return good;
}

static const Setup setups[] = {
    {.name = "two build", .roles = "bb"},
    {.name = "two build, one is killed", .roles = "bb", .kills = 1},
    {.name = "two build, a call fails", .roles = "bb", .failures = 1},
    {.name = "two build, one fails, one is killed", .roles = "bb", .kills = 1, .failures = 1},
    {.name = "two build, no locks", .roles = "bb", .no_locks = true},
    {.name = "one builds, one prunes, one reads", .roles = "bpr"},
    {.name = "two build, one prunes", .roles = "bbp"},
    {.name = "three build", .roles = "bbb"},
    {.name = "broken: published in place", .roles = "br", .broken = SIM_IN_PLACE},
    {.name = "broken: lock's name not checked", .roles = "bbb", .broken = SIM_NAME_NOT_CHECKED},
    {.name = "broken: unlinked after unlocking", .roles = "bbb", .broken = SIM_CLOSE_BEFORE_UNLINK},
    {.name = "broken: no fsync", .roles = "b", .broken = SIM_NO_FSYNC},
    {.name = "broken: waits for ever", .roles = "bb", .broken = SIM_CLOCK_STANDS},
    {.name = "broken: no second look", .roles = "bb", .broken = SIM_NO_SECOND_LOOK},
};

int main(int argc, char **argv)
{
    char base[] = "/tmp/mojit-model-XXXXXX", hex[33], locks[100];
    int failed = 0;
    MjError err = MJ_ERROR_INIT;

    if (!mkdtemp(base)) return 99;
    snprintf(locks, sizeof locks, "%s/locks", base);
    mj_cache_key_hex(mj_cache_key(label), hex);
    snprintf(entry, sizeof entry, "%s/v%d/%.2s/%s.mj", base, MJ_CACHE_FORMAT, hex, hex);
    for (int i = 0; i < IMAGE; i++) image[i] = (unsigned char)(i + 1);
    for (int i = 0; i < SIM_PROCESSES; i++) {
        if (mj_cache_open(&(MjCacheOptions){.roots = base, .lock_dir = locks}, &caches[i], &err) == 0) continue;
        printf("%s\n", err.message);
        return 99;
    }
    for (size_t i = 0; i < sizeof setups / sizeof *setups; i++)
        if (argc < 2 || strstr(setups[i].name, argv[1])) failed += !explore(&setups[i]);
    for (int i = 0; i < SIM_PROCESSES; i++) mj_cache_close(caches[i]);
    free(seen);
    (void)!mj_fs_remove_tree(base, NULL);
    printf("%d of %zu protocols not as expected\n", failed, sizeof setups / sizeof *setups);
    return failed > 0;
}
