// The twin of the product's ptx.cuh: what each instruction does, for the emulated device.
#pragma once

// d += a·b on a warp: 16x16 by 16x8 bf16, fp32 sums.
static inline void mmaBf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { emu_mma_bf16(d, a, b); }

namespace emu {
// N 8x8 matrices of 16 bits whose rows lie where lanes 8·i .. 8·i + 7 say.
template<int N, bool TRANSPOSED> static inline void loadMatrix(unsigned (&r)[N], const void* row) {
    if (((uintptr_t) row & 15) != 0 && emu_thread->lane < 8 * N) emu_fail("ldmatrix: a row is not aligned to 16 bytes");
    struct Mine { const void* row; } mine{row};
    char* slots = emu_exchange(~0u, &mine, sizeof mine, nullptr);
    int group = emu_thread->lane / 4, pair = emu_thread->lane % 4 * 2;
    auto at = [&](int matrix, int r, int c) {
        auto* from = ((Mine*) (slots + (matrix * 8 + r) * 64))->row;
        return (unsigned) ((const unsigned short*) from)[c];
    };
    for (int i = 0; i < N; i++)
        r[i] = TRANSPOSED ? at(i, pair, group) | at(i, pair + 1, group) << 16
                          : at(i, group, pair) | at(i, group, pair + 1) << 16;
    emu_warp_barrier(~0u);
}
}
static inline void ldmatrix4(unsigned (&r)[4], const void* row) { emu::loadMatrix<4, false>(r, row); }
static inline void ldmatrix4Transposed(unsigned (&r)[4], const void* row) { emu::loadMatrix<4, true>(r, row); }
static inline void ldmatrix2(unsigned (&r)[2], const void* row) { emu::loadMatrix<2, false>(r, row); }
static inline void ldmatrix2Transposed(unsigned (&r)[2], const void* row) { emu::loadMatrix<2, true>(r, row); }

// Asynchronous copies from global to shared memory; the first `valid` bytes, zeros after them.
static inline void cpAsync16(void* shared, const void* global) { emu_copy_async(shared, global, 16, 16); }
static inline void cpAsync16(void* shared, const void* global, unsigned valid) { emu_copy_async(shared, global, 16, valid); }
static inline void cpAsync4(void* shared, const void* global, unsigned valid) { emu_copy_async(shared, global, 4, valid); }
static inline void cpAsyncCommit() { emu_copy_commit(); }
template<int NEWEST> static inline void cpAsyncWait() { emu_copy_wait(NEWEST); }

static inline void prefetch(const void*) {}
static inline void prefetch(const void* global, unsigned bytes) { emu_prefetch(global, bytes); }

// 2^x.
static inline float exp2Fast(float x) { return exp2f(x); }

// Two floats rounded to bf16, `low` in the lower half.
static inline unsigned packBf16(float low, float high) {
    auto half = [](float x) {
        unsigned bits = __float_as_uint(x);
        return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    };
    return half(high) << 16 | half(low);
}

// Kernels are executed one after the other here.
static inline void launchDependents() {}
static inline void awaitPrevious() {}

static inline void syncFirst(int threads) { emu_first_barrier(threads); }

// What it waits for is computed by other threads, of this block's cluster or of the system, or has been before.
static inline void awaitCount(const unsigned* counter, unsigned count) {
    for (uint64_t tries = 0; __atomic_load_n(counter, __ATOMIC_SEQ_CST) != count; tries++) {
        if (tries == 1ull << 24) emu_fail("a wait for what no block computes");
        emu_yield();
    }
}
