/* The simulator's insides: devices, the threads of one launch, shared memory and its shadow. Everything runs on the
 * host thread that launched; a launch ends before the call returns. One launch at a time (a mutex in sim_driver.c). */
#ifndef SIMGPU_SIM_H
#define SIMGPU_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/sim_abi.h"

#define SIM_MAX_SHARED 232448u      /* bytes a block of sm_90 may have; sm_80: see sim_limits */
#define SIM_SHARED_BASE 0x400u      /* shared address of dynamic shared memory: 1 KB is the system's */
#define SIM_STATIC_BASE 0x3a000u    /* shared address of static variables */
#define SIM_STATIC_MAX 0x6000u
#define SIM_STACK_BYTES ((size_t)128 << 10)
#define SIM_MAX_THREADS 16384       /* of one cluster: 16 blocks of 1024 */
#define SIM_MBARS 64                /* mbarriers of one block */

enum { SIM_CU_INVALID_VALUE = 1, SIM_CU_OOM = 2, SIM_CU_ILLEGAL_ADDRESS = 700, SIM_CU_TIMEOUT = 702, SIM_CU_MISALIGNED = 716,
       SIM_CU_LAUNCH_FAILED = 719 };

/* shadow of a byte of shared memory */
enum { SIM_UNINIT, SIM_WRITTEN, SIM_ASYNC_WRITTEN, SIM_IN_FLIGHT, SIM_BARRIER };

typedef struct SimCta SimCta;
typedef struct SimThread SimThread;

typedef enum SimWait { SIM_RUNNABLE, SIM_WAIT_BAR, SIM_WAIT_WARP, SIM_WAIT_MBAR, SIM_WAIT_CLUSTER, SIM_EXITED } SimWait;

typedef struct SimCpAsync {
    unsigned dst, size, bytes;
    char data[16];
    int group; /* the commit that covers it; counts up */
} SimCpAsync;

typedef struct SimBulkStore {
    uint64_t map[16];
    char *dst;      /* plain bulk copy: where to; NULL = tensor */
    unsigned src, bytes;
    int add, rank, coords[5], group;
    char *as_issued; /* the bytes as they were: they must not change before the wait */
    SimSite at;
} SimBulkStore;

struct SimThread {
    void *sp;
    char *stack;
    SimCta *cta;
    int tid, lane, warp;
    SimWait wait;
    SimSite at;                   /* where it waits */
    unsigned wait_id, wait_parity;
    uint64_t result;              /* of a collective */
    uint64_t value;               /* what it brought */
    const void *in0, *in1;
    void *out;
    bool timed_out;               /* a try_wait that nothing could satisfy */
    uint32_t fence_stamp;         /* clock of its last fence.proxy.async */
    SimCpAsync *cp;
    int n_cp, cap_cp, cp_group;
    SimBulkStore *bulk;
    int n_bulk, cap_bulk, bulk_group;
    bool cluster_arrived;
    unsigned cluster_phase;
    uint32_t bar_turn[16];        /* the turn of each barrier at which it arrived last */
    bool atomic;                  /* inside an atomic operation */
    bool grid_waited;             /* has passed griddepcontrol.wait, or met one that has */
};

typedef struct SimGather { /* a warp collective that is coming together */
    int kind, arg;
    unsigned mask, arrived;
    SimSite at;
} SimGather;

typedef struct SimWgmma {
    int n, a_type, b_type, trans_a, trans_b, accumulate, group, acc;
    bool a_in_regs;
    uint32_t a_regs[32][4];
    uint64_t a_desc, b_desc;
    SimSite at;
} SimWgmma;

typedef struct SimAcc { /* an accumulator of wgmmas in flight: its true value, while the kernel's copy is poisoned */
    float *lane[32];
    float *value; /* 32 x n/2; kept after the wait until the next wgmma.fence, to see who wrote the registers between */
    int n, uses;  /* uses 0: complete */
} SimAcc;

#define SIM_ACCS 8
#define SIM_FRAGMENTS 16 /* register operands of completed wgmmas that a warp remembers: one round of a loop */
#define SIM_TRAIL 64     /* wgmmas of a warp that the other warps of its warpgroup are held against */

typedef struct SimWarp {
    SimGather gather[32]; /* each waits for a lane of its own */
    SimWgmma *wgmma;
    int n_wgmma, cap_wgmma, wgmma_group;
    SimAcc acc[SIM_ACCS];
    bool wgmma_fenced;
    struct {
        uint64_t hash;
        SimSite at;
    } fragments[SIM_FRAGMENTS]; /* a ring */
    unsigned n_fragments;
    struct {
        uint64_t a_desc, b_desc;
        SimSite at;
    } trail[SIM_TRAIL]; /* a ring */
    unsigned issued;
    int registers; /* after setmaxnreg; 0 = as launched */
} SimWarp;

typedef struct SimBar {
    unsigned threads, arrived;
    int kind, value;
    uint32_t turn; /* completions */
    bool grid_waited; /* one of those who arrived has passed griddepcontrol.wait */
    SimSite at;
} SimBar;

typedef struct SimMbar {
    unsigned address, count, pending;
    int64_t tx;
    unsigned phase; /* completed phases */
    bool valid, observed; /* observed: a wait saw the last completed phase */
    bool grid_waited;     /* as of a SimBar, from then on */
    int slot;             /* its place in the block, for sim_race.c */
} SimMbar;

struct SimCta {
    unsigned block, rank;
    SimThread *threads;
    SimWarp *warps;
    int n_threads, n_warps, live, exited;
    char *dynamic;       /* SIM_MAX_SHARED + guard, 1024-aligned */
    uint8_t *shadow;     /* a state a byte: dynamic, then static */
    uint32_t *stamp;     /* clock of the last ordinary write, a 4-byte granule */
    uint16_t *writer;    /* the thread of that write */
    char *saved_static;  /* static variables while another block of the cluster runs */
    SimBar bars[16];
    SimMbar mbars[SIM_MBARS];
    int n_mbars;
    bool grid_waited; /* one of its threads has passed griddepcontrol.wait */
    struct SimRace *race; /* sim_race.c; NULL unless MOJIT_SIMGPU_RACES is set */
};

typedef struct SimAsync { /* a TMA or bulk load on its way */
    uint64_t map[16];
    const char *src; /* plain bulk copy; NULL = tensor */
    SimCta *cta;     /* that issued */
    unsigned dst, bar, mask, bytes;
    int rank, coords[5];
    SimSite at;
} SimAsync;

typedef struct SimLaunch {
    const SimKernelInfo *kernel;
    const char *name;
    unsigned grid, block, cluster;
    size_t shared_bytes;
    void **params;
    int arch; /* 80, 86, 89, 90, 100 */
    bool overlap; /* may start before the launch before it has ended */
    const char *image_path;
    char *image_lo, *image_hi;
} SimLaunch;

/* one cluster that runs */
typedef struct SimRun {
    const SimLaunch *launch;
    SimCta ctas[16];
    SimThread *current;
    void *scheduler_sp;
    SimThread **queue; /* ring of runnable threads */
    int head, count, cap;
    SimAsync *async;
    int n_async, cap_async;
    SimCta *static_owner;
    size_t static_bytes;
    uint32_t clock;
    unsigned cluster_arrived, cluster_generation, cluster_threads, cluster_exited;
    bool scheduling; /* on the scheduler's own stack */
    int error;
} SimRun;

extern SimRun *sim_run;
extern char sim_report[4096]; /* the last kernel error */

/* Runs a whole grid; 0 or a CUresult with sim_report filled. */
int sim_execute(const SimLaunch *launch);

/* Stops the launch from inside a kernel's thread: fills the report and never returns. */
_Noreturn void sim_fail(int result, SimSite at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void sim_wait(SimWait why, SimSite at); /* gives up the processor until sim_wake */
void sim_wake(SimThread *t);

/* Shared memory by address; checks bounds. The state of `bytes` bytes is checked for a read or set for a write. */
char *sim_shared(SimCta *cta, unsigned address, size_t bytes, const char *what, SimSite at);
void sim_shared_read(SimCta *cta, unsigned address, size_t bytes, bool async, const char *what, SimSite at);
void sim_shared_mark(SimCta *cta, unsigned address, size_t bytes, int state);
/* Fails where a copy is still in flight or an mbarrier lies: before anything but an ordinary store writes there. */
void sim_shared_claim(SimCta *cta, unsigned address, size_t bytes, const char *what, SimSite at);
/* Global memory of an overlapped launch may be touched after griddepcontrol.wait only. */
void sim_grid_order(const char *what, SimSite at);
unsigned sim_shared_to_address(SimCta *cta, const void *p);

/* Lane payloads of a collective: calls `all` once, on the last thread's stack, with sim_run->current = that thread. */
typedef void SimCollective(SimWarp *w, SimThread *lanes, unsigned mask, int arg, SimSite at);
enum { SIM_GATHER_SHFL = 1, SIM_GATHER_VOTE, SIM_GATHER_REDUCE, SIM_GATHER_LDMATRIX, SIM_GATHER_STMATRIX, SIM_GATHER_MMA,
       SIM_GATHER_WGMMA, SIM_GATHER_WGMMA_WAIT, SIM_GATHER_WGMMA_FENCE, SIM_GATHER_WGMMA_COMMIT, SIM_GATHER_SETMAXNREG };
void sim_collective(int kind, int arg, unsigned mask, SimCollective *all, const char *name, SimSite at);

/* sim_async.c: called by the scheduler and at a thread's end */
bool sim_async_step(void);
void sim_thread_exit(SimThread *t);
SimMbar *sim_mbar(SimCta *cta, unsigned address, const char *what, SimSite at);
/* sim_matrix.c */
void sim_wgmma_exit(SimThread *t);
void sim_warpgroups_end(SimCta *cta); /* when all threads have left */

/* sim_race.c: who may access shared memory after whom. Nothing happens unless MOJIT_SIMGPU_RACES is set. */
void sim_race_start(void); /* of a cluster */
void sim_race_bar_arrive(SimThread *t, unsigned id);
void sim_race_bar_leave(SimThread *t, unsigned id);
void sim_race_bar_clear(SimCta *cta, unsigned id);
void sim_race_warp(SimThread *lanes, unsigned mask);
void sim_race_cluster(SimThread *t, bool wait);
void sim_race_cluster_complete(void);
void sim_race_mbar_init(SimCta *cta, const SimMbar *m);
void sim_race_mbar_arrive(SimThread *t, SimCta *cta, const SimMbar *m);
void sim_race_mbar_complete(SimCta *cta, const SimMbar *m);
void sim_race_mbar_wait(SimThread *t, const SimMbar *m);
void sim_race_mbar_use(SimCta *cta, unsigned address, const char *what, SimSite at);
void sim_race_access(SimCta *cta, unsigned address, size_t bytes, bool write, const char *what, SimSite at, void *pc);
void sim_race_issue(SimCta *cta, unsigned address, size_t bytes, bool write, const char *what, SimSite at);
void sim_race_waited(const SimThread *t, SimCta *cta, unsigned address, size_t bytes, bool write);
void sim_race_operand(SimThread *lanes, unsigned address, size_t bytes, bool waited, SimSite at);
void sim_race_warp_waited(SimThread *lanes);
void sim_race_landed(SimCta *cta, const SimMbar *m, unsigned address, size_t bytes, SimSite at);
/* sim_race_global.c: the same between the clusters of a launch, of global memory */
void sim_race_global_start(const SimLaunch *l);
void sim_race_global(const void *p, size_t bytes, bool write, const char *what, SimSite at, void *pc);
SimSite sim_site_of(void *pc); /* of the image; its text holds until the next but one */
size_t sim_shadow_index(unsigned address);

/* sim_driver.c: device memory */
bool sim_is_device_memory(const void *p);
/* 0 if `bytes` at p lie in one allocation; else fills why. */
int sim_check_global(const void *p, size_t bytes, char *why, size_t cap);
/* Which bytes of device memory were ever written since they were allocated. p lies in an allocation. */
void sim_mark_global(const void *p, size_t bytes);
bool sim_global_written(const void *p, size_t bytes);

/* tensor maps, made by cuTensorMapEncodeTiled; 128 bytes */
#define SIM_MAP_MAGIC 0x53494d544d415031ull
typedef struct SimTensorMap {
    uint64_t magic;
    uint64_t address;
    uint8_t rank, elem, swizzle, type;
    uint16_t box[5];
    uint16_t pad;
    uint32_t dims[5]; /* 2^32 stored as 0xffffffff: far more than a simulation holds */
    uint64_t strides[4];
} SimTensorMap;
_Static_assert(sizeof(SimTensorMap) <= 128, "a tensor map has 128 bytes");

#endif
