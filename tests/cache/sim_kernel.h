/* A kernel small enough to be run in every order: names, inodes, descriptors, flock, a clock a process, and processes that are
 * coroutines, which give way at every system call of cache/cache_sys.h. What it does not simulate: other folders, permissions,
 * power cuts (instead it is a violation to rename bytes that were not fsynced). One process of the system, one thread. */
#ifndef MJ_TESTS_SIM_KERNEL_H
#define MJ_TESTS_SIM_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIM_PROCESSES = 3, SIM_ALL_STEPS = 400 };

typedef enum SimBroken { /* a protocol that is wrong on purpose: the checker must find each */
    SIM_SOUND,
    SIM_IN_PLACE,           /* publishing writes to the entry's own name */
    SIM_NAME_NOT_CHECKED,   /* a lock is believed although its file was unlinked */
    SIM_CLOSE_BEFORE_UNLINK, /* unlocking gives up the lock first, and unlinks whatever has the name then */
    SIM_NO_FSYNC,           /* bytes are renamed before they are safe */
    SIM_CLOCK_STANDS,       /* a waiter's time never runs out */
    SIM_NO_SECOND_LOOK      /* who gets the lock compiles at once (in the test's own builder) */
} SimBroken;

typedef enum SimAction { SIM_RUN, SIM_FAIL, SIM_KILL } SimAction; /* one step; the same, failing; end the process there */

/* `private_steps`: others are tried before steps that they can't see, too (for processes that end or fail there).
 * `entry` is the path that SIM_IN_PLACE writes to; it must outlive the run. */
void sim_reset(SimBroken broken, bool locks_work, bool private_steps, const char *entry, void (*main)(int process), int n_processes);
bool sim_finished(int process);     /* it has returned or was killed */
bool sim_can_fail(int process);     /* its next call is one that may fail */
void sim_step(int process, SimAction action);
void sim_end(void);                 /* lets every process run out, without any effect */

int sim_self(void);                 /* of the running process */
void sim_point(const char *what);   /* a step of the test's own (a compile) */
void sim_note(uint64_t result);     /* something that decides what the running process does next */
double sim_slept_ms(int process);
bool sim_alive(int process);
void sim_violation(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* keeps the first */
const char *sim_violated(void);     /* NULL: nothing */

/* All that decides the future: every process's past, every name, inode, descriptor and lock. */
uint64_t sim_state(void);
const void *sim_file(const char *path, size_t *len); /* NULL: no such name */
int sim_files_with(const char *part);                /* names that contain it */

#endif
