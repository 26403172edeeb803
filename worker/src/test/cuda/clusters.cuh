// The twin of the product's clusters.cuh: what each instruction does, for the emulated device.
#pragma once
#include "ptx.cuh"

static inline int rankInCluster() { return (int) emu_thread->rank; }
static inline void comeToMeeting() { emu_cluster_arrive(); }
static inline void awaitMeeting() { emu_cluster_wait(); }
static inline bool elected() {
    emu_warp_barrier(~0u);
    return emu_thread->lane == 0;
}
template<class T> static inline void initBarrier(T* barrier, unsigned arrivals) { emu_barrier_init(barrier, arrivals); }
static inline void barriersMade() {}
template<class T> static inline void arriveAndExpect(T* barrier, unsigned bytes) { emu_barrier_expect(barrier, bytes); }
template<class T> static inline void arriveAt(T* barrier, int rank) { emu_barrier_arrive(barrier, (unsigned) rank); }
template<class T> static inline void awaitBarrier(T* barrier, unsigned parity) { emu_barrier_wait(barrier, parity); }
static inline void copyToBlocks(void* shared, const void* global, unsigned bytes, void* barrier, unsigned blocks) {
    emu_copy_bulk(shared, global, bytes, barrier, blocks);
}
