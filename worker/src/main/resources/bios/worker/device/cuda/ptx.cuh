// Every instruction that C++ has no word for, each in one small inline function. Nothing else is here: the
// emulated device has its own file of this name with the same functions.
#pragma once

/// Two floats rounded to nearest even: the bits of `low` in the lower half.
__device__ inline unsigned packBf16(float low, float high) {
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// d += a·b of a warp: a [16, 16] and b [16, 8] of bf16, sums in fp32.
__device__ __forceinline__ void mmaBf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ unsigned sharedAddress(const void* shared) {
    return (unsigned) __cvta_generic_to_shared(shared);
}

// Four 8x8 matrices of 16-bit elements; lane i names row i % 8 of matrix i / 8.
__device__ __forceinline__ void ldmatrix4(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(sharedAddress(row)) : "memory");
}

__device__ __forceinline__ void ldmatrix4Transposed(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(sharedAddress(row)) : "memory");
}

// The same for two matrices; the addresses of lanes 16 to 31 are not used.
__device__ __forceinline__ void ldmatrix2(unsigned (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(sharedAddress(row)) : "memory");
}

__device__ __forceinline__ void ldmatrix2Transposed(unsigned (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(sharedAddress(row)) : "memory");
}

// Starts to copy 16 bytes from global to shared memory: the first `valid`, zeros after them.
__device__ __forceinline__ void cpAsync16(void* shared, const void* global, unsigned valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(sharedAddress(shared)), "l"(global), "r"(valid) : "memory");
}

__device__ __forceinline__ void cpAsync16(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 :: "r"(sharedAddress(shared)), "l"(global) : "memory");
}

// Ends a group of copies.
__device__ __forceinline__ void cpAsyncCommit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits for this thread's copies but for the NEWEST groups.
template<int NEWEST> __device__ __forceinline__ void cpAsyncWait() {
    asm volatile("cp.async.wait_group %0;" :: "n"(NEWEST) : "memory");
}

// Asks for the cache of the card to have what lies there.
__device__ __forceinline__ void prefetch(const void* global) {
    asm volatile("prefetch.global.L2 [%0];" :: "l"(global));
}

// The same for `bytes` bytes, less than 1 MiB, where a card can. The address is a multiple of 16 too.
__device__ __forceinline__ void prefetch(const void* global, unsigned bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" :: "l"(global), "r"(bytes) : "memory");
#endif
}

// 2^x, relative error 2^-22; 0 for -infinity.
__device__ __forceinline__ float exp2Fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Starts to copy 4 bytes, or zeros if not `valid`.
__device__ __forceinline__ void cpAsync4(void* shared, const void* global, unsigned valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :: "r"(sharedAddress(shared)), "l"(global), "r"(valid) : "memory");
}

// Lets a kernel that may begin early begin when all blocks have called this, or have ended.
__device__ __forceinline__ void launchDependents() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits for the end of the kernel before a kernel that may begin early, and sees what it has written.
__device__ __forceinline__ void awaitPrevious() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// A barrier of the first `threads` threads of a block, of whole warps.
__device__ __forceinline__ void syncFirst(int threads) {
    asm volatile("bar.sync 1, %0;" :: "r"(threads) : "memory");
}

// Waits until a counter that other blocks add to is `count`, and sees what they wrote before they did. Only for
// what blocks that have begun are doing. A wait of some seconds is a fault, which ends the kernel.
__device__ __forceinline__ void awaitCount(const unsigned* counter, unsigned count) {
    for (unsigned tries = 0;; tries++) {
        unsigned now;
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
        if (now == count) return;
        if (tries == 1u << 26) __trap();
        __nanosleep(64);
    }
}
