// Kernels for products of few BF16 rows whose blocks share them (sm_90a): each block of a cluster copies a part of
// the rows into the shared memory of all. So the rows are read from the cache as often as if there were one block
// for each cluster. The products and their bits are those of few_rows.cu.
#include "few_rows.cuh"
#include "clusters.cuh"

// COUNT rows in stages that the BLOCKS blocks of a cluster fill together: bulk copies of a row's SLICE terms,
// which a barrier of each stage counts in each block. A row has 16 bytes more than its terms, so that eight of
// them are in all banks. A stage is filled again when all blocks have left it, which a second barrier counts. The
// threads that multiply or copy wait for each stage, and one warp for all arrivals. x has whole slices.
template<int COUNT, int SLICE, int STAGES, int CLUSTER, int COPIERS> struct SharedRows {
    static constexpr int ROWS = COUNT, BLOCKS = CLUSTER, PITCH = SLICE * 2 + 16;
    const Matrix& x;
    u64* full;
    u64* empty;
    int slices;
    int parity = 0;     // of the phase of slice i

    __device__ __forceinline__ SharedRows(const Matrix& x, char* barriers, int slices) : x(x),
            full((u64*) barriers), empty(full + STAGES), slices(slices) {
        if (threadIdx.x == 0) {
            for (int s = 0; s < STAGES; s++) {
                initBarrier(full + s, 1);
                initBarrier(empty + s, BLOCKS);
            }
            barriersMade();
        }
        comeToMeeting();
    }

    static __device__ __forceinline__ int ofLane(int half) { return half * 16; }
    static __device__ __forceinline__ int place(int k, int ofLane) { return k * 32 + ofLane; }

    __device__ __forceinline__ void start(char*, int) const {}

    __device__ __forceinline__ void clear(char* stage) const {
        for (int i = threadIdx.x; i < (COUNT - x.rows) * (SLICE / 8); i += COPIERS)
            *(Quad*) (stage + (x.rows + i / (SLICE / 8)) * PITCH + i % (SLICE / 8) * 16) = {0, 0, 0, 0};
    }

    __device__ __forceinline__ void meet() const { awaitMeeting(); }
    __device__ __forceinline__ void leave() const { comeToMeeting(); }
    __device__ __forceinline__ void awaitOthers() const { awaitMeeting(); }

    // Only what will be filled again is waited for.
    __device__ __forceinline__ void left(int i, int stage) const {
        if (i > 0 && i - 1 + STAGES < slices && threadIdx.x < BLOCKS)
            arriveAt(empty + (stage == 0 ? STAGES : stage) - 1, threadIdx.x);
    }

    __device__ __forceinline__ void await(int i, int stage) {
        awaitBarrier(full + stage, parity);
        if (stage == STAGES - 1) parity ^= 1;
    }

    __device__ __forceinline__ void produce(char* stage, int stageBytes, int slices) const {
        int rank = rankInCluster(), count = (x.rows - rank + BLOCKS - 1) / BLOCKS;
        const char* from = (const char*) halvesAt(x, rank, 0);
        char* to = stage + rank * PITCH;
        for (int i = 0, s = 0, filled = 1; i < slices; i++, from += SLICE * 2) {
            // in the first phase all stages are empty
            if (i >= STAGES) awaitBarrier(empty + s, filled);
            // one lane, because the copies of several are executed one after the other, more slowly
            if (elected()) {
                arriveAndExpect(full + s, x.rows * (SLICE * 2));
#pragma unroll 8
                for (int r = 0; r < count; r++)
                    copyToBlocks(to + s * stageBytes + r * (BLOCKS * PITCH), from + r * (BLOCKS * 2 * x.stride),
                        SLICE * 2, full + s, (1u << BLOCKS) - 1);
            }
            __syncwarp();
            if (++s == STAGES) {
                s = 0;
                filled ^= 1;
            }
        }
    }
};

// Those of few_rows.cu, but: the grid is a multiple of the blocks of a cluster, a block has a warp more, and x has
// a multiple of a stage's terms. Shared memory: 16 bytes more for each row of a stage, and 16 for each stage. The name has
// the rows, the terms of a stage, whether a warp has pairs of groups, and the blocks of a cluster.
extern "C" __global__ void __cluster_dims__(2) __launch_bounds__(512, 1) few_rows_64_256_of_2(Matrix x,
        Parts parts, Lows lows, Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<SharedRows<64, 256, 4, 2, 256>, 1, 2, 256, 4, 256>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __cluster_dims__(4) __launch_bounds__(512, 1) few_rows_64_256_of_4(Matrix x,
        Parts parts, Lows lows, Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<SharedRows<64, 256, 4, 4, 256>, 1, 2, 256, 4, 256>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __cluster_dims__(2) __launch_bounds__(512, 1) few_rows_64_128_of_2(Matrix x,
        Parts parts, Lows lows, Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<SharedRows<64, 128, 4, 2, 384>, 1, 2, 128, 4, 384>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __cluster_dims__(4) __launch_bounds__(512, 1) few_rows_64_128_of_4(Matrix x,
        Parts parts, Lows lows, Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<SharedRows<64, 128, 4, 4, 384>, 1, 2, 128, 4, 384>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __cluster_dims__(2) __launch_bounds__(512, 1) few_rows_64_128_pairs_of_2(Matrix x,
        Parts parts, Lows lows, Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<SharedRows<64, 128, 3, 2, 384>, 2, 2, 128, 3, 384>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __cluster_dims__(4) __launch_bounds__(512, 1) few_rows_64_128_pairs_of_4(Matrix x,
        Parts parts, Lows lows, Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<SharedRows<64, 128, 3, 4, 384>, 2, 2, 128, 3, 384>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}
