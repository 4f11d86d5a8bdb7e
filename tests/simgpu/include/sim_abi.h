/* What a compiled kernel image and the simulated driver know of each other: the services that libcuda.so.1 of the
 * simulator exports and the record that an image exports for each kernel. Read as C by the driver, as C++ by images.
 *
 * `file` and `line` say where in the template a thread is, for reports. Test-only: never linked into mojit. */
#ifndef SIMGPU_ABI_H
#define SIMGPU_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SIM_MAX_PARAMS 8

typedef struct SimKernelInfo {
    void (*entry)(void **params);
    int max_threads; /* __launch_bounds__, 0 = none */
    int n_params;
    size_t param_bytes[SIM_MAX_PARAMS];
    char *shared_start, *shared_stop; /* static __shared__ variables of the image */
} SimKernelInfo;

typedef struct SimIndex {
    unsigned x, y, z;
} SimIndex;

typedef struct SimSite {
    const char *file;
    int line;
} SimSite;

/* where a thread is; constant for one thread of one launch */
SimIndex simgpu_thread_idx(void) __attribute__((const));
SimIndex simgpu_block_idx(void) __attribute__((const));
SimIndex simgpu_block_dim(void) __attribute__((const));
SimIndex simgpu_grid_dim(void) __attribute__((const));

/* memory checks, called before every load and store of a kernel */
extern char *simgpu_stack_lo; /* the running thread's stack */
extern size_t simgpu_stack_bytes;
void simgpu_access(void *p, size_t bytes, int write, void *pc);
void simgpu_atomic(int on); /* what the thread accesses until off is one atomic operation */
void *simgpu_dynamic_shared(void);
unsigned simgpu_shared_address(const void *p);

/* block and warp */
void simgpu_syncthreads(SimSite at);
int simgpu_syncthreads_count(int predicate, int op, SimSite at); /* 0 count, 1 and, 2 or */
void simgpu_bar(unsigned id, unsigned threads, int wait, SimSite at);
void simgpu_fence(void);
void simgpu_trap(const char *why, SimSite at);
void simgpu_yield(void);
uint64_t simgpu_shuffle(int kind, unsigned mask, uint64_t value, int lane, int width, SimSite at); /* SIM_SHFL_* */
unsigned simgpu_vote(int kind, unsigned mask, int predicate, SimSite at);                          /* SIM_VOTE_* */
unsigned simgpu_reduce(int kind, unsigned mask, unsigned value, SimSite at);                       /* SIM_REDUCE_* */
enum { SIM_SHFL_IDX, SIM_SHFL_UP, SIM_SHFL_DOWN, SIM_SHFL_XOR };
enum { SIM_VOTE_BALLOT, SIM_VOTE_ANY, SIM_VOTE_ALL, SIM_VOTE_SYNC, SIM_VOTE_ELECT, SIM_VOTE_MATCH };
enum { SIM_REDUCE_ADD, SIM_REDUCE_MIN, SIM_REDUCE_MAX, SIM_REDUCE_SMIN, SIM_REDUCE_SMAX, SIM_REDUCE_AND, SIM_REDUCE_OR };

/* matrix fragments */
void simgpu_ldmatrix(uint32_t *r, int count, int trans, unsigned addr, SimSite at);
void simgpu_stmatrix(const uint32_t *r, int count, int trans, unsigned addr, SimSite at);
#define SIM_STATIC_ANCHOR 16 /* bytes that keep the section of static shared variables from being empty; not the kernel's */

enum { SIM_BF16, SIM_E4M3, SIM_E5M2, SIM_F16 };
void simgpu_mma(float *d, const uint32_t *a, const uint32_t *b, int a_type, int b_type, SimSite at); /* m16n8k16 / k32 */

/* asynchronous copies and barriers */
void simgpu_cp_async(unsigned dst, const void *src, unsigned size, unsigned bytes, SimSite at);
void simgpu_cp_async_commit(void);
void simgpu_cp_async_wait(int n);
void simgpu_mbar_init(unsigned bar, unsigned count, SimSite at);
void simgpu_mbar_inval(unsigned bar, SimSite at);
void simgpu_mbar_arrive(unsigned bar, int rank, unsigned expect, int arrivals, SimSite at); /* rank -1: own block */
void simgpu_mbar_wait(unsigned bar, unsigned parity, SimSite at);
int simgpu_mbar_try_wait(unsigned bar, unsigned parity, SimSite at); /* waits until done or nothing else can run */
void simgpu_fence_async(void);
void simgpu_grid_wait(void);
unsigned simgpu_cluster_rank(void);
unsigned simgpu_cluster_size(void);
void simgpu_cluster_barrier(int wait, SimSite at);
void simgpu_tma_prefetch(const void *map, int rank, SimSite at); /* of a box: nothing moves that a kernel could see */
void simgpu_tma_load(unsigned dst, const void *map, unsigned bar, unsigned mask, int rank, const int *coords, SimSite at);
void simgpu_tma_store(const void *map, unsigned src, int add, int rank, const int *coords, SimSite at);
void simgpu_bulk_load(unsigned dst, const void *src, unsigned bytes, unsigned bar, SimSite at);
void simgpu_bulk_store(void *dst, unsigned src, unsigned bytes, SimSite at);
void simgpu_bulk_commit(void);
void simgpu_bulk_wait(int n);
void simgpu_wgmma_fence(SimSite at);
uint64_t simgpu_wgmma_desc(unsigned address, unsigned leading, unsigned stride, unsigned swizzle, SimSite at);
void simgpu_wgmma(float *d, int n, const uint32_t *a_regs, uint64_t a_desc, uint64_t b_desc, int a_type, int b_type,
                  int trans_a, int trans_b, int accumulate, SimSite at);
void simgpu_wgmma_commit(SimSite at);
void simgpu_wgmma_wait(int n, SimSite at);
void simgpu_setmaxnreg(int registers, int increase, SimSite at);

#ifdef __cplusplus
}
#endif
#endif
