// Small kernels with one error each, if PLANTED is 1; sound if it is 0.
#include "ptx.cuh"
#include "wgmma.cuh"
#include "clusters.cuh"

// sums[b] ← the sum of the block's 256 values; launch: 256 threads.
extern "C" __global__ void missingBarrier(float* sums, const float* x) {
    __shared__ float part[256];
    int i = threadIdx.x;
    part[i] = x[blockIdx.x * 256 + i];
    for (int half = 128; half > 0; half /= 2) {
#if !PLANTED
        __syncthreads();
#endif
        if (i < half) part[i] += part[i + half];
    }
    if (i == 0) sums[blockIdx.x] = part[0];
}

// The same within a warp, where lanes are not in step: launch: 32 threads.
extern "C" __global__ void missingWarpBarrier(float* sums, const float* x) {
    __shared__ float part[32];
    int i = threadIdx.x;
    part[i] = x[i];
#if !PLANTED
    __syncwarp();
#endif
    sums[i] = part[31 - i];
}

// One thread gives a number to all others. launch: 64 threads.
extern "C" __global__ void missingBarrierAfterAScalar(float* y, const float* x) {
    __shared__ float first;
    if (threadIdx.x == 40) first = x[0];
#if !PLANTED
    __syncthreads();
#endif
    y[threadIdx.x] = first;
}

// The same number is written again before all have read it. launch: 64 threads.
extern "C" __global__ void missingBarrierBeforeReuse(float* y, const float* x) {
    __shared__ float first;
    float sum = 0;
    for (int i = 0; i < 3; i++) {
        if (threadIdx.x == 40) first = x[i];
        __syncthreads();
        sum += first;
#if !PLANTED
        __syncthreads();
#endif
    }
    y[threadIdx.x] = sum;
}

// Warps 0 and 1 exchange numbers through shared memory, warp 2 takes no part. launch: 96 threads.
extern "C" __global__ void missingBarrierOfSomeWarps(float* y, const float* x) {
    __shared__ float part[64];
    int i = threadIdx.x;
    float own = x[i];
    if (i < 64) {
        part[i] = own;
#if !PLANTED
        syncFirst(64);
#endif
        own = part[63 - i];
    }
    __syncthreads();
    y[i] = own;
}

// Warp 2 arrives at a barrier of warps 0 and 1. launch: 96 threads.
extern "C" __global__ void barrierOfOtherWarps(float* y, const float* x) {
    int i = threadIdx.x;
#if PLANTED
    if (i >= 32) syncFirst(64);
#else
    if (i < 64) syncFirst(64);
#endif
    __syncthreads();
    y[i] = x[i];
}

// Counts by atomic operations. launch: 64 threads.
extern "C" __global__ void missingBarrierBeforeAnAtomic(float* y, const float* x) {
    __shared__ int count;
    if (threadIdx.x == 40) count = 0;
#if !PLANTED
    __syncthreads();
#endif
    if (x[threadIdx.x] > 0) atomicAdd(&count, 1);
    __syncthreads();
    y[threadIdx.x] = count;
}

// y ← xᵀ by tiles of 16 through shared memory; the last tile of a row is partial. launch: 16 x 16 threads.
extern "C" __global__ void offByOneInATile(float* y, const float* x, int rows, int columns) {
    __shared__ float tile[16][17];
    int r = blockIdx.y * 16 + threadIdx.y, c = blockIdx.x * 16 + threadIdx.x;
    bool inside = r < rows && c < columns;
#if PLANTED
    inside = r <= rows && c < columns;
#endif
    tile[threadIdx.y][threadIdx.x] = inside ? x[(long long) r * columns + c] : 0;
    __syncthreads();
    int yr = blockIdx.x * 16 + threadIdx.y, yc = blockIdx.y * 16 + threadIdx.x;
    if (yr < columns && yc < rows) y[(long long) yr * rows + yc] = tile[threadIdx.x][threadIdx.y];
}

// y ← x + y; y was never written if the error is planted. launch: one thread for each value.
extern "C" __global__ void uninitialisedRead(float* y, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += x[i];
}

extern "C" __global__ void misalignedVector(float* y, const float* x) {
    *(float4*) (y + threadIdx.x * 4) = *(const float4*) (x + threadIdx.x * 4 + PLANTED);
}

extern "C" __global__ void sharedOverrun(float* y, const float* x) {
    DYNAMIC_SHARED(raw);
    auto* shared = (float*) raw;
    shared[threadIdx.x + PLANTED] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = threadIdx.x < PLANTED ? 0 : shared[threadIdx.x];
}

// Declares 16 KiB of shared memory beside the dynamic one. launch: 256 threads.
extern "C" __global__ void sharedMemoryInAll(float* y, const float* x) {
    __shared__ float part[4096];
    DYNAMIC_SHARED(raw);
    auto* more = (float*) raw;
    int i = blockIdx.x * 256 + threadIdx.x;
    part[threadIdx.x] = x[i];
    more[threadIdx.x] = 0;
    y[i] = part[threadIdx.x] + more[threadIdx.x];
}

extern "C" __global__ void earlyReturn(float* y, const float* x) {
    __shared__ float first;
    if (PLANTED && threadIdx.x == 40) return;
    if (threadIdx.x == 0) first = x[0];
    __syncthreads();
    y[threadIdx.x] = first;
}

extern "C" __global__ void copyNotAwaited(float* y, const float* x) {
    __shared__ __align__(16) float part[128];
    cpAsync16(part + threadIdx.x * 4, x + threadIdx.x * 4);
    cpAsyncCommit();
    if (!PLANTED) cpAsyncWait<0>();
    __syncthreads();
    for (int i = 0; i < 4; i++) y[threadIdx.x * 4 + i] = part[127 - (threadIdx.x * 4 + i)];
    cpAsyncWait<0>();
}

// A product of a warpgroup: 64 times the square of x[0]. launch: 128 threads.
extern "C" __global__ void productNotAwaited(float* y, const float* x) {
    __shared__ __align__(1024) unsigned tile[64 * 32];
    for (int i = threadIdx.x; i < 64 * 32; i += 128) tile[i] = packBf16(x[0], x[0]);
    __syncthreads();
    float sum[32];
    for (int k = 0; k < 4; k++) wgmmaRows(sum, tile, k * 32, tile, k * 32, k > 0);
    wgmmaCommit();
    if (!PLANTED) wgmmaWait<0>();
    y[blockIdx.x * 128 + threadIdx.x] = sum[31];
}

extern "C" __global__ void laneOutsideItsMask(float* y, const float* x) {
    float v = x[threadIdx.x];
    if (threadIdx.x < 16) v += __shfl_xor_sync(PLANTED ? 0xffu : 0xffffu, v, 1);
    y[threadIdx.x] = v;
}

enum Error { NONE, NOT_AWAITED, TOO_EARLY, NO_MEETING, ENDED, BEFORE_READ, OVERWRITTEN };

// sums[i] ← x[i] + x[64 + i] + .. of SLICES slices of 64 values, in each block of a cluster of two. Each copies half of a
// slice into one of two stages of both.
template<int ERROR> __device__ __forceinline__ void ring(float* sums, const float* x) {
    constexpr int SLICES = 6;
    DYNAMIC_SHARED(shared);
    auto* stages = (float*) shared;
    auto* full = (unsigned long long*) (shared + 512);
    auto* empty = full + 2;
    int i = threadIdx.x, half = rankInCluster() * 32;
    if (i == 0) {
        for (int s = 0; s < 2; s++) {
            initBarrier(full + s, 1);
            initBarrier(empty + s, 2);
        }
        barriersMade();
    }
    if (ERROR != NO_MEETING) {
        comeToMeeting();
        awaitMeeting();
    }
    float sum = 0;
    if (i < 64) {
        for (int n = 0; n < SLICES; n++) {
            if (ERROR != NOT_AWAITED) awaitBarrier(full + n % 2, n / 2 % 2);
            if (ERROR == BEFORE_READ && i < 2 && n + 2 < SLICES) arriveAt(empty + n % 2, i);
            if (ERROR == BEFORE_READ) syncFirst(64);
            sum += stages[n % 2 * 64 + i];
            if (ERROR == OVERWRITTEN && i == 40 && n == 2) full[1] = 7;
            syncFirst(64);
            if (ERROR != BEFORE_READ && i < 2 && (n + 2 < SLICES || ERROR == ENDED)) arriveAt(empty + n % 2, i);
        }
        sums[blockIdx.x * 64 + i] = sum;
    } else if (i == 64) {
        for (int n = 0; n < SLICES; n++) {
            if (n >= 2 && ERROR != TOO_EARLY) awaitBarrier(empty + n % 2, n / 2 % 2 ^ 1);
            arriveAndExpect(full + n % 2, 256);
            copyToBlocks(stages + n % 2 * 64 + half, x + n * 64 + half, 128, full + n % 2, 3);
        }
    }
    __syncthreads();
}

extern "C" __global__ void __cluster_dims__(2) copyToBlocksNotAwaited(float* y, const float* x) {
    ring<PLANTED ? NOT_AWAITED : NONE>(y, x);
}

extern "C" __global__ void __cluster_dims__(2) stageFilledTooEarly(float* y, const float* x) {
    ring<PLANTED ? TOO_EARLY : NONE>(y, x);
}

extern "C" __global__ void __cluster_dims__(2) arrivalBeforeTheRead(float* y, const float* x) {
    ring<PLANTED ? BEFORE_READ : NONE>(y, x);
}

extern "C" __global__ void __cluster_dims__(2) overwrittenBarrier(float* y, const float* x) {
    ring<PLANTED ? OVERWRITTEN : NONE>(y, x);
}

extern "C" __global__ void __cluster_dims__(2) clusterWithoutMeeting(float* y, const float* x) {
    ring<PLANTED ? NO_MEETING : NONE>(y, x);
}

extern "C" __global__ void __cluster_dims__(2) arrivalAtAnEndedBlock(float* y, const float* x) {
    ring<PLANTED ? ENDED : NONE>(y, x);
}

// launch: one thread for each value; busy for the tests of the host's side.
extern "C" __global__ void twice(float* y, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2 * x[i];
}
