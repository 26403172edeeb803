// Kernels for products of few BF16 rows whose blocks copy all rows, and low-rank products in a launch of their
// own: few_rows.cuh.
#include "few_rows.cuh"

// Grid: tiles of `groups` groups of features, of all parts; threads: 32 · ROW_WARPS for a group and at least
// COPIERS, and at least a warp more, of 512; shared memory: STAGES · (features of a tile + ROWS) · SLICE · 2 bytes
// and Corrections. Parts that are not there have no columns; `narrow`: see finish; `early`: whether x was complete when the
// kernel before this one began, and nothing is left of `lows`. The name has the rows and the terms of a stage,
// many for few features, and whether a warp has pairs of groups, of which there are whole ones then.
extern "C" __global__ void __launch_bounds__(512, 1) few_rows_8_256(Matrix x, Parts parts, Lows lows,
        Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<OwnRows<8, 256, 256>, 1, 1, 256, 4, 256>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_8_128(Matrix x, Parts parts, Lows lows,
        Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<OwnRows<8, 128, 384>, 1, 1, 128, 4, 384>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_16_256(Matrix x, Parts parts, Lows lows,
        Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<OwnRows<16, 256, 256>, 1, 1, 256, 4, 256>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_16_128(Matrix x, Parts parts, Lows lows,
        Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<OwnRows<16, 128, 384>, 1, 1, 128, 4, 384>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_32_256(Matrix x, Parts parts, Lows lows,
        Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<OwnRows<32, 256, 256>, 1, 2, 256, 4, 256>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_32_128(Matrix x, Parts parts, Lows lows,
        Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<OwnRows<32, 128, 384>, 1, 1, 128, 4, 384>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_64_256(Matrix x, Parts parts, Lows lows,
        Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<OwnRows<64, 256, 256>, 1, 2, 256, 4, 256>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_64_128_pairs(Matrix x, Parts parts, Lows lows,
        Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<OwnRows<64, 128, 384>, 2, 2, 128, 3, 384>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_64_128(Matrix x, Parts parts, Lows lows,
        Ahead ahead, int groups, int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<OwnRows<64, 128, 384>, 1, 1, 128, 3, 384>(x, parts, lows, ahead, groups, narrow, early,
        shared);
}

// ---- low-rank products in a launch of their own ----

// Waits for all of a thread's copies but the newest 3, 2, 1, 0 groups of them.
__device__ __forceinline__ void waitForQuarter(int quarter) {
    if (quarter == 0) cpAsyncWait<3>();
    else if (quarter == 1) cpAsyncWait<2>();
    else if (quarter == 2) cpAsyncWait<1>();
    else cpAsyncWait<0>();
}

// low_rank_mma of fp32 factors with rows of whole 16-byte pieces: what one of its warps computes is a block's
// work here, with all of its operands on their way at once, a quarter of them for each wait. All threads copy,
// two warps multiply. The last block of a tile adds what the others found, in the order of the warps. Grid:
// tiles of slots, tiles of ranks, sites · SHARES; 256 threads; shared memory: SLICE_BYTES for each 256 terms.
extern "C" __global__ void __launch_bounds__(256) low_rank_rows(Matrix x, Matrix low0, Matrix low1,
        Matrix low2, const SlotSite* slots0, const SlotSite* slots1, const SlotSite* slots2, int n, int from,
        float* partial, unsigned* counters) {
    begin();
    DYNAMIC_SHARED(shared);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quad = lane % 4;
    int site = blockIdx.z / SHARES, share = blockIdx.z % SHARES;
    const SlotSite* slots = site == 0 ? slots0 : site == 1 ? slots1 : slots2;
    Matrix low = site == 0 ? low0 : site == 1 ? low1 : low2;
    int rank0 = blockIdx.y * RANKS;
    SlotTile tile = slotTileOfWarp(slots, n, from, x.rows, ROWS, blockIdx.x);
    if (!hasRank(tile, slots, rank0)) return;
    const SlotSite& slot = slots[tile.slot];
    Matrix factor = slot.a;
    int rank = slot.rank, slices = (x.columns / TERMS_AT_ONCE - share + SHARES - 1) / SHARES;
    int quarter = (slices + 3) / 4;
    // a thread copies one piece of every second slice of the factor, and one of every fourth of the rows
    int piece = threadIdx.x % 128, r = rank0 + piece % 4 * 4, second = threadIdx.x / 128;
    int k = (share + second * SHARES) * TERMS_AT_ONCE + piece / 4;
    const char* factorAt = (const char*) floatsAt(factor, k, r < rank ? r : 0);
    long long factorJump = 2 * SHARES * TERMS_AT_ONCE * 4 * factor.stride;
    int part = threadIdx.x % 64, fourth = threadIdx.x / 64, row = part / 4;
    k = (share + fourth * SHARES) * TERMS_AT_ONCE + part % 4 * 8;
    const char* rowsAt = (const char*) halvesAt(x, tile.row + (row < tile.rows ? row : 0), k);
    for (int q = 0; q < 4; q++) {
        int end = minimum(slices, (q + 1) * quarter);
        for (; second < end; second += 2, factorAt += factorJump)
            cpAsync16(shared + second * SLICE_BYTES + piece * 16, factorAt, r < rank ? 16 : 0);
        for (; fourth < end; fourth += 4, rowsAt += 4 * SHARES * TERMS_AT_ONCE * 2)
            cpAsync16(shared + fourth * SLICE_BYTES + FACTOR_BYTES + part * 16, rowsAt,
                row < tile.rows ? 16 : 0);
        cpAsyncCommit();
    }
    float sum[4] = {};
    for (int q = 0; q < 4; q++) {
        waitForQuarter(q);
        __syncthreads();
        if (warp >= 2) continue;
        int end = minimum(slices, (q + 1) * quarter);
#pragma unroll 4
        for (int i = q * quarter; i < end; i++) {
            const float* fs = (const float*) (shared + i * SLICE_BYTES);
            const Quad* xs = (const Quad*) (shared + i * SLICE_BYTES + FACTOR_BYTES);
            Quad upper = xs[group * 4 + quad], lower = xs[(group + 8) * 4 + quad];
#pragma unroll
            for (int s = 0; s < 2; s++) {
                float f[4];
#pragma unroll
                for (int j = 0; j < 4; j++) f[j] = fs[(quad * 8 + s * 4 + j) * RANKS + warp * 8 + group];
                unsigned b[TERMS][2];
                splitRight(b, f);
                unsigned a[4] = {s ? upper.z : upper.x, s ? lower.z : lower.x, s ? upper.w : upper.y,
                    s ? lower.w : lower.y};
#pragma unroll
                for (int t = 0; t < TERMS; t++) mmaBf16(sum, a, b[t]);
            }
        }
    }
    int which = (site * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    float* own = partial + (long long) which * SHARES * ROWS * RANKS;
    if (warp < 2) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            own[share * ROWS * RANKS + (group + i / 2 * 8) * RANKS + warp * 8 + quad * 2 + i % 2] = sum[i];
    }
    if (!isLastBlock(counters + which, SHARES)) return;
    row = threadIdx.x / RANKS;
    r = rank0 + threadIdx.x % RANKS;
    if (row >= tile.rows || r >= rank) return;
    own += threadIdx.x;
    float total = __ldcg(own);
#pragma unroll
    for (int w = 1; w < SHARES; w++) total += __ldcg(own + w * ROWS * RANKS);
    store(low, tile.row + row, r, slot.scale * total);
}

// to ← bf16 numbers of many sizes, by their places. One thread for each element, 256 threads.
extern "C" __global__ void __launch_bounds__(256) scatter_bits(Matrix to, int seed) {
    begin();
    long long i = blockIdx.x * 256ll + threadIdx.x;
    if (i >= (long long) to.rows * to.columns) return;
    unsigned h = (unsigned) i * 2654435761u + (unsigned) seed * 40503u;
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    h *= 3266489917u;
    h ^= h >> 16;
    // signs, eight exponents about 1, all mantissas
    ((unsigned short*) to.data)[i] =
        (unsigned short) ((h & 0x8000u) | (123u + (h >> 16 & 7u)) << 7 | (h & 0x7fu));
}

// count += elements of the first rows of two F32 matrices whose bits differ. Any grid, 256 threads.
extern "C" __global__ void __launch_bounds__(256) count_different(Matrix a, Matrix b, u64* count) {
    begin();
    long long n = (long long) a.rows * a.columns;
    u64 mine = 0;
    for (long long i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
        int row = (int) (i / a.columns), column = (int) (i % a.columns);
        if (__float_as_uint(*floatsAt(a, row, column)) != __float_as_uint(*floatsAt(b, row, column))) mine++;
    }
    if (mine > 0) atomicAdd(count, mine);
}
