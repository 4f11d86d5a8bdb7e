#include "tests/cache/sim_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <xxhash.h>

#include "cache/cache_sys.h"
#include "runtime/base/mem.h"

enum { INODES = 64, FILE_BYTES = 600, NAMES = 16, FDS = 8, STACK = 128 << 10, FIRST_FD = 1000 };

typedef struct Inode {
    uint64_t id; /* creator and its count: the same in every order */
    unsigned char bytes[FILE_BYTES];
    size_t len;
    int links, holder, holder_fd; /* holder: process, -1 = unlocked */
    bool synced;
} Inode;

typedef struct Name {
    char path[200];
    Inode *inode; /* NULL: free */
} Name;

typedef struct Descriptor {
    Inode *inode; /* NULL with open: a folder */
    size_t at;
    bool open;
} Descriptor;

typedef struct Process {
    ucontext_t context;
    char *stack;
    bool done, dead, fail, failable;
    uint64_t past;
    unsigned steps, created;
    long slept_ms;
    Descriptor fd[FDS];
    char unlink_late[200];
} Process;

static struct {
    Inode inode[INODES];
    int n_inodes;
    Name name[NAMES];
    Process process[SIM_PROCESSES];
    ucontext_t scheduler;
    int self, n;
    SimBroken broken;
    bool locks_work, private_steps;
    void (*main)(int);
    const char *entry;
    char violation[400];
} sim;

void sim_violation(const char *fmt, ...)
{
    va_list ap;

    if (sim.violation[0]) return;
    va_start(ap, fmt);
    vsnprintf(sim.violation, sizeof sim.violation, fmt, ap);
    va_end(ap);
}

const char *sim_violated(void)
{
    return sim.violation[0] ? sim.violation : NULL;
}

static Process *self(void)
{
    return &sim.process[sim.self];
}

void sim_note(uint64_t result)
{
    uint64_t pair[2] = {self()->past, result};

    self()->past = XXH3_64bits(pair, sizeof pair);
}

/* Gives way; true when the call is to take effect, false when it fails (errno is set). */
static bool step(const char *call, const char *what, bool failable)
{
    Process *p = self();

    if (p->dead) {
        errno = EIO;
        return false;
    }
    p->failable = failable;
    swapcontext(&p->context, &sim.scheduler);
    p = self();
    sim_note(XXH3_64bits(call, strlen(call)) ^ XXH3_64bits(what, strlen(what)));
    if (++p->steps > SIM_ALL_STEPS) {
        sim_violation("process %d does not end: %u steps", sim.self, p->steps);
        p->dead = true;
    }
    if (p->dead || p->fail) {
        errno = EIO;
        return false;
    }
    return true;
}

/* A step that no other process can see: others need not be tried before it, unless this one may end or fail there. */
static bool private_step(const char *call, bool failable)
{
    if (sim.private_steps) return step(call, "", failable);
    if (self()->dead) {
        errno = EIO;
        return false;
    }
    sim_note(XXH3_64bits(call, strlen(call)));
    return true;
}

void sim_point(const char *what)
{
    (void)private_step(what, false);
}

/* ---- processes ---- */

static void enter(int process)
{
    sim.main(process);
    sim.process[process].done = true;
    for (;;) swapcontext(&sim.process[process].context, &sim.scheduler); /* for good */
}

static void resume(int process)
{
    sim.self = process;
    swapcontext(&sim.scheduler, &sim.process[process].context);
}

static void close_inode(int process, int fd)
{
    Descriptor *d = &sim.process[process].fd[fd];

    if (d->inode && d->inode->holder == process && d->inode->holder_fd == fd) d->inode->holder = -1;
    *d = (Descriptor){.inode = NULL};
}

void sim_reset(SimBroken broken, bool locks_work, bool private_steps, const char *entry, void (*main)(int process), int n_processes)
{
    char *stacks[SIM_PROCESSES];

    for (int i = 0; i < SIM_PROCESSES; i++) stacks[i] = sim.process[i].stack ? sim.process[i].stack : mj_xmalloc(STACK);
    for (int i = 0; i < sim.n_inodes; i++) memset(&sim.inode[i], 0, sizeof sim.inode[i]);
    memset(sim.name, 0, sizeof sim.name);
    memset(sim.process, 0, sizeof sim.process);
    sim.n_inodes = 0;
    sim.n = n_processes;
    sim.broken = broken;
    sim.locks_work = locks_work;
    sim.private_steps = private_steps || broken == SIM_IN_PLACE;
    sim.main = main;
    sim.entry = entry;
    sim.violation[0] = 0;
    for (int i = 0; i < SIM_PROCESSES; i++) {
        Process *p = &sim.process[i];
        p->stack = stacks[i];
        p->done = i >= n_processes;
        if (p->done) continue;
        getcontext(&p->context);
        p->context.uc_stack.ss_sp = p->stack;
        p->context.uc_stack.ss_size = STACK;
        p->context.uc_link = NULL;
        makecontext(&p->context, (void (*)(void))(void *)enter, 1, i);
        resume(i); /* up to its first call */
    }
}

bool sim_finished(int process)
{
    return sim.process[process].done || sim.process[process].dead;
}

bool sim_alive(int process)
{
    return !sim.process[process].dead;
}

bool sim_can_fail(int process)
{
    return sim.process[process].failable;
}

void sim_step(int process, SimAction action)
{
    Process *p = &sim.process[process];

    if (action == SIM_KILL) { /* what the kernel does for the dead */
        p->dead = true;
        for (int i = 0; i < FDS; i++) close_inode(process, i);
        return;
    }
    p->fail = action == SIM_FAIL;
    resume(process);
    p->fail = false;
}

void sim_end(void)
{
    for (int i = 0; i < sim.n; i++) {
        sim.process[i].dead = true;
        while (!sim.process[i].done) resume(i);
    }
}

int sim_self(void)
{
    return sim.self;
}

double sim_slept_ms(int process)
{
    return (double)sim.process[process].slept_ms;
}

/* ---- names ---- */

static Name *find(const char *path)
{
    for (int i = 0; i < NAMES; i++)
        if (sim.name[i].inode && strcmp(sim.name[i].path, path) == 0) return &sim.name[i];
    return NULL;
}

static Inode *create(const char *path)
{
    int i = 0;

    while (i < NAMES && sim.name[i].inode) i++;
    if (i == NAMES || sim.n_inodes == INODES) {
        sim_violation("the simulated kernel is too small");
        return NULL;
    }
    Inode *inode = &sim.inode[sim.n_inodes++];
    *inode = (Inode){.id = (uint64_t)(sim.self + 1) << 32 | ++self()->created, .links = 1, .holder = -1, .synced = true};
    snprintf(sim.name[i].path, sizeof sim.name[i].path, "%s", path);
    sim.name[i].inode = inode;
    return inode;
}

const void *sim_file(const char *path, size_t *len)
{
    const Name *n = find(path);

    if (!n) return NULL;
    *len = n->inode->len;
    return n->inode->bytes;
}

int sim_files_with(const char *part)
{
    int count = 0;

    for (int i = 0; i < NAMES; i++) count += sim.name[i].inode && strstr(sim.name[i].path, part);
    return count;
}

static bool is_temporary(const char *path)
{
    return strstr(path, "/.tmp-") != NULL;
}

/* The same temporary has another name in every order: here its creator is its name. */
static uint64_t inode_state(const Inode *i)
{
    uint64_t parts[5] = {i->id, XXH3_64bits(i->bytes, i->len), (uint64_t)i->links, (uint64_t)(i->holder + 1), i->synced};

    return XXH3_64bits(parts, sizeof parts);
}

uint64_t sim_state(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < NAMES; i++) {
        const Name *n = &sim.name[i];
        if (!n->inode) continue;
        uint64_t parts[2] = {is_temporary(n->path) ? 1 : XXH3_64bits(n->path, strlen(n->path)), inode_state(n->inode)};
        sum += XXH3_64bits(parts, sizeof parts);
    }
    for (int i = 0; i < sim.n; i++) {
        const Process *p = &sim.process[i];
        uint64_t parts[4] = {(uint64_t)i + 7, p->past, (uint64_t)p->done << 1 | p->dead, 0};
        for (int f = 0; f < FDS; f++)
            if (p->fd[f].inode) parts[3] += ((uint64_t)f + 1) * inode_state(p->fd[f].inode);
        sum += XXH3_64bits(parts, sizeof parts);
    }
    return sum;
}

/* ---- the system calls ---- */

static Descriptor *descriptor(int fd)
{
    int i = fd - FIRST_FD;

    return i >= 0 && i < FDS && self()->fd[i].open ? &self()->fd[i] : NULL;
}

static int new_descriptor(Inode *inode)
{
    for (int i = 0; i < FDS; i++) {
        if (self()->fd[i].open) continue;
        self()->fd[i] = (Descriptor){.inode = inode, .open = true};
        return FIRST_FD + i;
    }
    sim_violation("process %d leaks descriptors", sim.self);
    errno = EMFILE;
    return -1;
}

/* Where publishing writes: the broken variant has no temporary. */
static const char *place(const char *path)
{
    return sim.broken == SIM_IN_PLACE && is_temporary(path) ? sim.entry : path;
}

int mj_cache_sys_open(const char *path, int flags, mode_t mode)
{
    (void)mode;
    if (strstr(path, "/usage") || (flags & O_DIRECTORY)) { /* hints and the folder's fsync are not part of the protocol */
        errno = ENOENT;
        return -1;
    }
    if (!step("open", is_temporary(path) ? "temporary" : path, true)) return -1;
    Name *n = find(place(path));
    Inode *inode = n ? n->inode : NULL;
    if (!inode && !(flags & O_CREAT)) errno = ENOENT;
    if (!inode && (flags & O_CREAT)) inode = create(place(path));
    else if (inode && (flags & O_EXCL)) inode->len = 0; /* in place: temporaries' names are never met twice */
    sim_note(inode != NULL); /* which one it is, sim_state sees */
    return inode ? new_descriptor(inode) : -1;
}

ssize_t mj_cache_sys_read(int fd, void *buf, size_t n)
{
    Descriptor *d = descriptor(fd);

    if (!d || self()->dead) {
        errno = EBADF;
        return -1;
    }
    size_t left = d->inode->len - d->at, take = n < left ? n : left;
    memcpy(buf, d->inode->bytes + d->at, take);
    d->at += take;
    sim_note(XXH3_64bits(buf, take) + take);
    return (ssize_t)take;
}

ssize_t mj_cache_sys_write(int fd, const void *buf, size_t n)
{
    if (!private_step("write", true)) return -1;
    Descriptor *d = descriptor(fd);
    size_t half = d->at == 0 ? (n + 1) / 2 : n; /* in two parts, so that there is a time between them */
    if (d->at + half > FILE_BYTES) {
        sim_violation("the simulated kernel's files are too small");
        errno = ENOSPC;
        return -1;
    }
    memcpy(d->inode->bytes + d->at, buf, half);
    d->at += half;
    d->inode->len = d->at;
    d->inode->synced = false;
    return (ssize_t)half;
}

int mj_cache_sys_chmod(int fd, mode_t mode)
{
    (void)fd;
    (void)mode;
    return self()->dead ? -1 : 0;
}

int mj_cache_sys_fsync(int fd)
{
    if (!private_step("fsync", true)) return -1;
    if (sim.broken != SIM_NO_FSYNC) descriptor(fd)->inode->synced = true;
    return 0;
}

int mj_cache_sys_close(int fd)
{
    Descriptor *d = descriptor(fd);
    bool holds = d && d->inode->holder == sim.self;
    bool good = holds ? step("close", "", true) : private_step("close", true);

    if (d) close_inode(sim.self, (int)(d - self()->fd)); /* even when it says that it failed */
    if (self()->unlink_late[0] && good) {
        char path[200];
        memcpy(path, self()->unlink_late, sizeof path);
        self()->unlink_late[0] = 0;
        if (!step("unlink", path, false)) return -1;
        Name *n = find(path);
        if (n) {
            n->inode->links--;
            n->inode = NULL;
        }
    }
    return good ? 0 : -1;
}

int mj_cache_sys_rename(const char *from, const char *to)
{
    if (!step("rename", "", true)) return -1;
    if (sim.broken == SIM_IN_PLACE) return 0;
    Name *a = find(from), *b = find(to);
    if (!a) {
        errno = ENOENT;
        return -1;
    }
    if (!a->inode->synced) sim_violation("process %d renames bytes that were not fsynced", sim.self);
    if (b) {
        b->inode->links--;
        b->inode = NULL;
    }
    snprintf(a->path, sizeof a->path, "%s", to);
    return 0;
}

int mj_cache_sys_unlink(const char *path)
{
    if (sim.broken == SIM_CLOSE_BEFORE_UNLINK && strstr(path, ".lock")) {
        snprintf(self()->unlink_late, sizeof self()->unlink_late, "%s", path);
        return 0;
    }
    if (!step("unlink", is_temporary(path) ? "temporary" : path, true)) return -1;
    Name *n = find(path);
    sim_note(n != NULL);
    if (!n) {
        errno = ENOENT;
        return -1;
    }
    n->inode->links--;
    n->inode = NULL;
    return 0;
}

static int fill_stat(const Inode *inode, struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_mode = S_IFREG | 0600;
    st->st_uid = geteuid();
    st->st_ino = (ino_t)inode->id;
    st->st_size = (off_t)inode->len;
    st->st_mtim.tv_sec = INT32_MAX; /* young */
    return 0;
}

int mj_cache_sys_stat(const char *path, struct stat *st)
{
    if (!step("stat", path, true)) return -1;
    Name *n = find(path);
    if (sim.broken == SIM_NAME_NOT_CHECKED && strstr(path, ".lock"))
        for (int i = 0; i < FDS; i++)
            if (self()->fd[i].inode && self()->fd[i].inode->holder == sim.self) return fill_stat(self()->fd[i].inode, st);
    bool mine = false;
    for (int i = 0; n && i < FDS; i++) mine |= self()->fd[i].inode == n->inode;
    sim_note(n ? 2 + mine : 1);
    if (n) return fill_stat(n->inode, st);
    errno = ENOENT;
    return -1;
}

int mj_cache_sys_fstat(int fd, struct stat *st)
{
    Descriptor *d = descriptor(fd);

    return d && !self()->dead ? fill_stat(d->inode, st) : -1;
}

int mj_cache_sys_flock(int fd)
{
    if (!step("flock", "", true)) return -1;
    Descriptor *d = descriptor(fd);
    bool free_now = d->inode->holder == -1;
    sim_note(free_now);
    if (!sim.locks_work || !free_now) {
        errno = sim.locks_work ? EWOULDBLOCK : ENOLCK;
        return -1;
    }
    d->inode->holder = sim.self;
    d->inode->holder_fd = fd - FIRST_FD;
    return 0;
}

void mj_cache_sys_touch(int fd)
{
    (void)fd;
}

bool mj_cache_sys_exists(const char *path)
{
    (void)path;
    return true; /* folders: none is ever cleared here */
}

uint64_t mj_cache_sys_now(void)
{
    return sim.broken == SIM_CLOCK_STANDS ? 1 : 1 + (uint64_t)self()->slept_ms * 1000000;
}

void mj_cache_sys_sleep(long ms)
{
    (void)private_step("sleep", false); /* each process has a clock of its own */
    self()->slept_ms += ms;
}

int mj_cache_sys_make_dirs(const char *folder, MjError *err)
{
    (void)folder;
    (void)err;
    return 0;
}

int mj_cache_sys_list(const char *folder, char ***names, size_t *n)
{
    size_t len = strlen(folder), count = 0;
    char **list = mj_xcalloc(NAMES + 1, sizeof *list);

    bool other = strncmp(sim.entry, folder, len) != 0 || sim.entry[len] != '/'; /* nothing ever happens in other folders */
    if (self()->dead || (!other && !step("list", "", false))) {
        free(list);
        return -1;
    }
    for (int i = 0; i < NAMES; i++) {
        const Name *name = &sim.name[i];
        if (!name->inode || strncmp(name->path, folder, len) != 0 || name->path[len] != '/') continue;
        list[count++] = mj_xstrdup(name->path + len + 1);
        if (!is_temporary(name->path)) sim_note(XXH3_64bits(name->path, strlen(name->path)));
    }
    *names = list;
    *n = count;
    return 0;
}
