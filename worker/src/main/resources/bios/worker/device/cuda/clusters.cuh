// Clusters of blocks (sm_90a): their meetings, barriers in shared memory that count arrivals and
// bytes, and copies into the shared memory of several blocks. Nothing else is here: the emulated device has its
// own file of this name with the same functions.
#pragma once
#include "ptx.cuh"

// The number of this block in its cluster.
__device__ __forceinline__ int rankInCluster() {
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return (int) rank;
}

// All threads of a cluster: one comes to a meeting and goes on. What it wrote before is not seen by others, but for
// barriers that barriersMade told.
__device__ __forceinline__ void comeToMeeting() {
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}

// Waits until all have come to the meeting to which this thread came.
__device__ __forceinline__ void awaitMeeting() {
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

// Whether this is the lane that the warp chose. All lanes come here, and wait for each other.
__device__ __forceinline__ bool elected() {
    unsigned chosen;
    asm volatile("{\n\t.reg .pred p;\n\t"
                 "elect.sync _|p, 0xffffffff;\n\t"
                 "selp.u32 %0, 1, 0, p;\n\t}" : "=r"(chosen) :: "memory");
    return chosen != 0;
}

// Makes a barrier whose phases end with so many arrivals and all bytes that were expected. Others know it after
// a barrier of the block, or a meeting of the cluster.
__device__ __forceinline__ void initBarrier(u64* barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(sharedAddress(barrier)), "r"(arrivals)
                 : "memory");
}

// Tells the cluster of this thread's barriers at its next meeting.
__device__ __forceinline__ void barriersMade() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrives at a barrier of this block, whose phase waits for `bytes` of copies too.
__device__ __forceinline__ void arriveAndExpect(u64* barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(sharedAddress(barrier)), "r"(bytes) : "memory");
}

// Arrives at the barrier in the same place of another block of the cluster, or of this one. It orders reads before
// the arrival, and no writes for the other block: a fence of the card in each stage would be slow.
__device__ __forceinline__ void arriveAt(u64* barrier, int rank) {
    asm volatile("{\n\t.reg .b32 remote;\n\t"
                 "mapa.shared::cluster.u32 remote, %0, %1;\n\t"
                 "mbarrier.arrive.shared::cluster.b64 _, [remote];\n\t}"
                 :: "r"(sharedAddress(barrier)), "r"(rank) : "memory");
}

// Waits for the end of a phase: 0 for the first, 1 for the second, 0 for the third. Sees its copies. A wait that
// is in vain many times is a fault, which ends the kernel.
__device__ __forceinline__ void awaitBarrier(u64* barrier, unsigned parity) {
    for (unsigned tries = 0;; tries++) {
        unsigned complete;
        asm volatile("{\n\t.reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(complete) : "r"(sharedAddress(barrier)), "r"(parity) : "memory");
        if (complete) return;
        if (tries == 1u << 24) __trap();
    }
}

// Starts to copy `bytes`, a multiple of 16, to the same place in the shared memory of each block of the cluster
// that `blocks` has a bit of; the barrier in the same place of each block counts them.
__device__ __forceinline__ void copyToBlocks(void* shared, const void* global, unsigned bytes, u64* barrier,
        unsigned blocks) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1], %2, [%3], %4;"
                 :: "r"(sharedAddress(shared)), "l"(global), "r"(bytes), "r"(sharedAddress(barrier)),
                    "h"((unsigned short) blocks) : "memory");
}
