/* The cpu device: instruction-set levels, memory, images, launches, events; and the single-rank communicator.
 * Arguments: two images made from image_for_tests.c with different values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/fs.h"
#include "runtime/base/mem.h"
#include "runtime/comm.h"
#include "runtime/cpu_isa.h"
#include "runtime/device.h"
#include "runtime/device_cpu.h"

enum { GRID = 1000 };

typedef struct ImageArgs { /* as in image_for_tests.c */
    int32_t *out;
    uint64_t *shared;
    int32_t scratch;
} ImageArgs;

static char *images[2];
static size_t image_bytes[2];

static MjDevice *open_cpu(int threads)
{
    MjDevice *dev = NULL;
    MjError err = MJ_ERROR_INIT;
    MjDeviceOptions opt = {.threads = threads};

    if (mj_device_open("cpu", &opt, &dev, &err) != 0) fail_msg("%s", err.message);
    return dev;
}

static void levels(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;
    int row = -1;

    for (int i = 0; i < mj_cpu_isa_count; i++) {
        assert_int_equal(mj_cpu_isa_find(mj_cpu_isas[i].name), i);
        assert_int_equal(mj_cpu_isa_find(mj_cpu_isas[i].target), i);
        assert_string_equal(mj_cpu_target_flags(mj_cpu_isas[i].target), mj_cpu_isas[i].flags);
        int rc = mj_cpu_isa_select(mj_cpu_isas[i].name, &row, &err);
        assert_int_equal(rc, i <= mj_cpu_isa_hardware() ? 0 : MJ_ERR_USAGE);
    }
    assert_string_equal(mj_cpu_target(), mj_cpu_isas[mj_cpu_isa_hardware()].target);
    assert_null(mj_cpu_target_flags("cpu:mmx"));
    assert_null(mj_cpu_target_flags("sm_90a"));
    assert_int_equal(mj_cpu_isa_select("basline", &row, &err), MJ_ERR_USAGE);
    assert_non_null(strstr(err.message, "did you mean 'baseline'"));

    setenv("MOJIT_ISA", "baseline", 1);
    assert_string_equal(mj_cpu_target(), "cpu:baseline");
    MjDevice *dev = open_cpu(1);
    assert_string_equal(dev->ops->info(dev)->target, "cpu:baseline");
    mj_device_close(dev);
    setenv("MOJIT_ISA", "nonsense", 1);
    assert_int_equal(mj_device_open("cpu", NULL, &dev, &err), MJ_ERR_USAGE);
    assert_non_null(strstr(err.message, "MOJIT_ISA"));
    setenv("MOJIT_ISA", "", 1);
}

static void target_families(void **state)
{
    (void)state;
    assert_int_equal(mj_target_family("cpu:avx2"), MJ_FAMILY_CPU);
    assert_int_equal(mj_target_family("sm_80"), MJ_FAMILY_SM80);
    assert_int_equal(mj_target_family("sm_89"), MJ_FAMILY_SM80);
    assert_int_equal(mj_target_family("sm_90"), MJ_FAMILY_SM80);
    assert_int_equal(mj_target_family("sm_90a"), MJ_FAMILY_SM90A);
    assert_int_equal(mj_target_family("sm_100a"), MJ_FAMILY_SM100);
}

static void open_refuses_what_it_does_not_know(void **state)
{
    (void)state;
    MjDevice *dev = (MjDevice *)0x1;
    MjError err = MJ_ERROR_INIT;

    assert_int_equal(mj_device_open("cdua", NULL, &dev, &err), MJ_ERR_USAGE);
    assert_non_null(strstr(err.message, "did you mean 'cuda'"));
    assert_int_equal(mj_device_open("cpu:1", NULL, &dev, &err), MJ_ERR_USAGE);
    assert_int_equal(mj_device_open("cuda:x", NULL, &dev, &err), MJ_ERR_USAGE);
    assert_int_equal(mj_device_open("cpu", &(MjDeviceOptions){.threads = -1}, &dev, &err), MJ_ERR_USAGE);
    assert_ptr_equal(dev, (MjDevice *)0x1);
    mj_error_clear(&err);
    mj_device_close(NULL);
}

static void memory_is_aligned_tracked_and_bounded(void **state)
{
    (void)state;
    MjDevice *dev = open_cpu(1);
    MjError err = MJ_ERROR_INIT;
    void *small, *large, *never = (void *)0x1;

    assert_int_equal(dev->ops->alloc(dev, 1000, "small", &small, &err), 0);
    assert_int_equal(dev->ops->alloc(dev, 5 << 20, "activations", &large, &err), 0);
    assert_int_equal((uintptr_t)small % 256, 0);
    assert_int_equal((uintptr_t)large % 256, 0);
    assert_int_equal(dev->ops->allocated_bytes(dev), 1000 + (5 << 20));
    assert_int_equal(dev->ops->alloc(dev, (size_t)1 << 52, "logits", &never, &err), MJ_ERR_MEMORY);
    assert_ptr_equal(never, (void *)0x1);
    assert_non_null(strstr(err.message, "'logits'"));
    const char *first = strstr(err.message, "activations 5.0 MiB"), *second = strstr(err.message, "small 0.0 MiB");
    assert_non_null(first);
    assert_non_null(second);
    assert_true(first < second); /* biggest holder first */
    dev->ops->free(dev, large);
    dev->ops->free(dev, NULL);
    assert_int_equal(dev->ops->allocated_bytes(dev), 1000);
    assert_int_equal(dev->ops->peak_bytes(dev), 1000 + (5 << 20));
    char out[1000];
    assert_int_equal(dev->ops->fill(dev, small, 0x5a, 1000, &err), 0);
    assert_int_equal(dev->ops->upload(dev, small, "abc", 3, &err), 0);
    assert_int_equal(dev->ops->download(dev, out, small, 1000, &err), 0);
    assert_memory_equal(out, "abcZ", 4);
    assert_int_equal(out[999], 0x5a);
    dev->ops->free(dev, small);
    mj_device_close(dev);
}

static void launch_and_check(MjDevice *dev, MjKernelFn *fn, int value, int32_t scratch)
{
    MjError err = MJ_ERROR_INIT;
    int32_t out[GRID] = {0};
    uint64_t shared[GRID] = {0};
    ImageArgs args = {.out = out, .shared = shared, .scratch = scratch};
    MjLaunch launch = {.grid = GRID, .shared_bytes = (size_t)scratch, .args = &args, .args_bytes = sizeof args, .label = "test"};

    assert_int_equal(dev->ops->launch(dev, fn, &launch, &err), 0);
    assert_int_equal(dev->ops->synchronize(dev, &err), 0);
    for (int b = 0; b < GRID; b++) {
        assert_int_equal(out[b], value * 1000 + b); /* every block once */
        if (scratch > 0) {
            assert_int_not_equal(shared[b], 0);
            assert_int_equal(shared[b] % 64, 0);
        }
    }
}

static void images_load_and_run(void **state)
{
    (void)state;
    MjError err = MJ_ERROR_INIT;

    for (int threads = 1; threads <= 4; threads++) {
        MjDevice *dev = open_cpu(threads);
        MjModule *modules[2];
        MjKernelFn *fns[2], *again, *none = NULL;
        assert_int_equal(dev->ops->info(dev)->units, threads);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(dev->ops->module_load(dev, images[i], image_bytes[i], &modules[i], &err), 0);
            assert_int_equal(dev->ops->module_function(modules[i], "test_kernel", &fns[i], &err), 0);
        }
        assert_int_equal(dev->ops->module_function(modules[0], "test_kernel", &again, &err), 0);
        assert_ptr_equal(again, fns[0]);
        assert_int_equal(dev->ops->module_function(modules[0], "tset_kernel", &none, &err), MJ_ERR_DEVICE);
        assert_non_null(strstr(err.message, "tset_kernel"));
        for (int i = 0; i < 2; i++) launch_and_check(dev, fns[i], i + 1, 0);
        uint64_t before = mj_device_cpu_scratch_growths(dev);
        for (int i = 0; i < 3; i++) launch_and_check(dev, fns[1], 2, 10000);
        assert_int_equal(mj_device_cpu_scratch_growths(dev), before + 1); /* grown once, then kept */
        launch_and_check(dev, fns[0], 1, 500);
        assert_int_equal(mj_device_cpu_scratch_growths(dev), before + 1);
        for (int i = 0; i < 2; i++) dev->ops->module_unload(dev, modules[i]);
        mj_device_close(dev);
    }
}

static void unloaded_images_do_not_come_back(void **state)
{
    (void)state;
    MjDevice *dev = open_cpu(2);
    MjError err = MJ_ERROR_INIT;
    MjModule *kept[20];
    int n_kept = 0;

    for (int i = 0; i < 40; i++) { /* descriptor numbers repeat; the code must not */
        MjModule *module;
        MjKernelFn *fn;
        int which = i % 3 == 0;
        assert_int_equal(dev->ops->module_load(dev, images[which], image_bytes[which], &module, &err), 0);
        assert_int_equal(dev->ops->module_function(module, "test_kernel", &fn, &err), 0);
        launch_and_check(dev, fn, which + 1, 0);
        if (i % 2 == 0) dev->ops->module_unload(dev, module);
        else kept[n_kept++] = module;
    }
    for (int i = 0; i < n_kept; i++) dev->ops->module_unload(dev, kept[i]);
    mj_device_close(dev);
}

static void bad_images_are_refused(void **state)
{
    (void)state;
    MjDevice *dev = open_cpu(1);
    MjError err = MJ_ERROR_INIT;
    MjModule *module = (MjModule *)0x1;
    char *copy = mj_xmalloc(image_bytes[0]);

    assert_int_equal(dev->ops->module_load(dev, "hello", 5, &module, &err), MJ_ERR_DATA);
    for (size_t len = 0; len < 8000 && len < image_bytes[0]; len += 97) /* every cut short one: never a crash */
        if (dev->ops->module_load(dev, images[0], len, &module, &err) == 0) {
            dev->ops->module_unload(dev, module);
            module = (MjModule *)0x1;
        }
    memcpy(copy, images[0], image_bytes[0]);
    copy[18] = 8; /* e_machine: MIPS */
    copy[19] = 0;
    assert_int_equal(dev->ops->module_load(dev, copy, image_bytes[0], &module, &err), MJ_ERR_DATA);
    assert_non_null(strstr(err.message, "machine 8"));
    assert_ptr_equal(module, (MjModule *)0x1);
    free(copy);
    mj_device_close(dev);
}

static void linked_entry(const void *args, uint32_t first, uint32_t last, uint32_t grid, void *shared)
{
    const ImageArgs *a = args;

    for (uint32_t b = first; b < last && b < grid; b++) {
        a->shared[b] = (uint64_t)(uintptr_t)shared;
        a->out[b] += 7000 + (int32_t)b;
    }
}

static void linked_kernels_run_and_bad_launches_are_refused(void **state)
{
    (void)state;
    MjDevice *dev = open_cpu(3);
    MjError err = MJ_ERROR_INIT;
    MjKernelFn *fn, *again;
    ImageArgs args = {0};

    assert_int_equal(mj_device_cpu_wrap(dev, linked_entry, &fn, &err), 0);
    assert_int_equal(mj_device_cpu_wrap(dev, linked_entry, &again, &err), 0);
    assert_ptr_equal(fn, again);
    launch_and_check(dev, fn, 7, 0);
    assert_int_equal(mj_device_cpu_reserve_scratch(dev, 4096, &err), 0);
    uint64_t growths = mj_device_cpu_scratch_growths(dev);
    launch_and_check(dev, fn, 7, 4000);
    assert_int_equal(mj_device_cpu_scratch_growths(dev), growths);

    MjLaunch bad = {.grid = 0, .args = &args, .args_bytes = sizeof args, .label = "gemm"};
    assert_int_equal(dev->ops->launch(dev, fn, &bad, &err), MJ_ERR_DEVICE);
    assert_non_null(strstr(err.message, "'gemm'"));
    bad = (MjLaunch){.grid = 1, .shared_bytes = SIZE_MAX / 2, .args = &args, .args_bytes = sizeof args};
    assert_int_equal(dev->ops->launch(dev, fn, &bad, &err), MJ_ERR_DEVICE);
    bad = (MjLaunch){.grid = 1, .args = &args, .args_bytes = MJ_MAX_ARG_BYTES + 1};
    assert_int_equal(dev->ops->launch(dev, fn, &bad, &err), MJ_ERR_DEVICE);
    mj_device_close(dev);
}

static void *load_many(void *user)
{
    MjDevice *dev = user;
    MjError err = MJ_ERROR_INIT;

    for (int i = 0; i < 25; i++) {
        MjModule *module;
        MjKernelFn *fn;
        if (dev->ops->module_load(dev, images[i % 2], image_bytes[i % 2], &module, &err) != 0 ||
            dev->ops->module_function(module, "test_kernel", &fn, &err) != 0)
            return (void *)1;
        dev->ops->module_unload(dev, module);
    }
    return NULL;
}

static void loading_is_thread_safe(void **state)
{
    (void)state;
    MjDevice *dev = open_cpu(1);
    pthread_t threads[4];

    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, load_many, dev), 0);
    for (int i = 0; i < 4; i++) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    mj_device_close(dev);
}

static void events_measure(void **state)
{
    (void)state;
    MjDevice *dev = open_cpu(1);
    MjError err = MJ_ERROR_INIT;
    MjEvent *a, *b;
    double ms = -1;

    assert_int_equal(dev->ops->event_create(dev, &a, &err), 0);
    assert_int_equal(dev->ops->event_create(dev, &b, &err), 0);
    assert_int_equal(dev->ops->event_record(dev, a, &err), 0);
    assert_int_equal(dev->ops->event_elapsed(dev, a, b, &ms, &err), MJ_ERR_DEVICE);
    assert_true(ms < 0);
    usleep(3000);
    assert_int_equal(dev->ops->event_record(dev, b, &err), 0);
    assert_int_equal(dev->ops->event_elapsed(dev, a, b, &ms, &err), 0);
    assert_true(ms >= 3.0);
    dev->ops->event_destroy(dev, a);
    dev->ops->event_destroy(dev, b);
    mj_device_close(dev);
}

static void single_rank(void **state)
{
    (void)state;
    MjDevice *dev = open_cpu(1);
    MjError err = MJ_ERROR_INIT;
    MjComm *comm = NULL;
    float values[3] = {1, 2, 3};

    assert_int_equal(mj_comm_open_single(dev, &comm, &err), 0);
    assert_int_equal(comm->ops->rank(comm), 0);
    assert_int_equal(comm->ops->size(comm), 1);
    assert_int_equal(comm->ops->all_reduce_sum(comm, values, 3, MJ_COMM_F32, &err), 0);
    assert_true(values[0] == 1 && values[1] == 2 && values[2] == 3);
    assert_int_equal(comm->ops->all_reduce_sum(comm, NULL, 3, MJ_COMM_F32, &err), MJ_ERR_USAGE);
    assert_int_equal(comm->ops->broadcast(comm, values, sizeof values, 0, &err), 0);
    assert_int_equal(comm->ops->broadcast(comm, values, sizeof values, 1, &err), MJ_ERR_USAGE);
    assert_int_equal(comm->ops->barrier(comm, &err), 0);
    mj_comm_close(comm);
    mj_comm_close(NULL);
    mj_device_close(dev);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels),
        cmocka_unit_test(target_families),
        cmocka_unit_test(open_refuses_what_it_does_not_know),
        cmocka_unit_test(memory_is_aligned_tracked_and_bounded),
        cmocka_unit_test(images_load_and_run),
        cmocka_unit_test(unloaded_images_do_not_come_back),
        cmocka_unit_test(bad_images_are_refused),
        cmocka_unit_test(linked_kernels_run_and_bad_launches_are_refused),
        cmocka_unit_test(loading_is_thread_safe),
        cmocka_unit_test(events_measure),
        cmocka_unit_test(single_rank),
    };
    MjError err = MJ_ERROR_INIT;

    for (int i = 0; i < 2; i++)
        if (argc != 3 || mj_fs_read(argv[i + 1], &images[i], &image_bytes[i], &err) != 0) {
            fprintf(stderr, "usage: unit_device_cpu IMAGE1 IMAGE2: %s\n", err.message);
            return 1;
        }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < 2; i++) free(images[i]);
    return failed;
}
