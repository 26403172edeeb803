// What the stand-in driver and the kernels compiled with shim.h share: a thread of a block is a fiber.
#pragma once
#include <cstddef>
#include <cstdint>

namespace emu {
struct Dim { unsigned x, y, z; };

// A kernel as its shared object describes it: how to call it with packed parameters, and their layout.
struct Kernel {
    const char* name;
    void (*call)(const char* parameters);
    unsigned count;
    unsigned bytes;
    const unsigned* sizes;
    const unsigned* offsets;
    // An address in the storage of static shared arrays of its shared object, for the calling thread.
    char* (*shared)();
    unsigned cluster;    // blocks of a cluster; 1: there are none
};

// The thread that is running, as kernels see it.
struct Thread {
    Dim index;
    Dim block;
    Dim blockSize;
    Dim grid;
    unsigned lane, warp;
    unsigned rank;       // of the block in its cluster
    char* dynamicShared;
    void* pendingCopies;
};
}  // namespace emu

extern "C" {
extern __thread emu::Thread* emu_thread __attribute__((tls_model("initial-exec")));
// Waits for all threads of the block.
void emu_block_barrier();
// Of the first threads of the block.
void emu_first_barrier(int threads);
// The same, and counts those with a true predicate.
int emu_block_count(int predicate);
// Waits for the lanes of `mask`.
void emu_warp_barrier(unsigned mask);
// Gives `size` bytes (at most 64) to the lanes of `mask`; returns what all gave, 64 bytes a lane. The lane that
// comes last calls `finish` (if not null) on it first.
char* emu_exchange(unsigned mask, const void* mine, unsigned size, void (*finish)(char* slots));
// mma.sync.m16n8k16 of a warp.
void emu_mma_bf16(float* d, const unsigned* a, const unsigned* b);
// Lanes of the warp that have not left the kernel.
unsigned emu_active();
// The copy is made at the wait for its group: what reads too early sees what was there before.
void emu_copy_async(void* to, const void* from, unsigned bytes, unsigned valid);
void emu_copy_commit();
void emu_copy_wait(unsigned newest);
// Asks for bytes of device memory, which must be there.
void emu_prefetch(const void* from, unsigned bytes);
// Lets other threads go on.
void emu_yield();
// All threads of a cluster: comes to its meeting, and waits for the others.
void emu_cluster_arrive();
void emu_cluster_wait();
// A barrier of 8 bytes in shared memory, which completes a phase with `count` arrivals and all expected bytes.
void emu_barrier_init(void* barrier, unsigned count);
// Arrives, and bytes are expected.
void emu_barrier_expect(void* barrier, unsigned bytes);
// Arrives at the barrier in this place of another block of the cluster.
void emu_barrier_arrive(void* barrier, unsigned rank);
// Waits for the end of a phase of this parity.
void emu_barrier_wait(void* barrier, unsigned parity);
// A copy to the same place of the blocks of the cluster that `blocks` has bits of, whose barriers count its bytes: made
// at once or at a wait for the barrier, all of a cluster in one way.
void emu_copy_bulk(void* to, const void* from, unsigned bytes, void* barrier, unsigned blocks);
// A product of a warpgroup, of what `data` (at most 48 bytes) names: computed here or at the wait for its group, all
// of a block in one way. Sums read before the wait, and operands changed before it, give other results.
void emu_product(void (*compute)(const void* data), const void* data, unsigned bytes);
void emu_product_commit();
void emu_product_wait(unsigned newest);
// A thread comes to the declaration of a static shared variable.
void emu_shared_variable(const void* at, unsigned bytes);
// Before an atomic operation: no race with other ones.
void emu_check_atomic(const void* at, unsigned bytes);
// Ends the launch with a message that names the kernel.
[[noreturn]] void emu_fail(const char* what);
}
