// Products of few BF16 rows with frozen weights, as decoding needs them: bound by the reading of the weights.
// A sum is one chain of tensor-core products of 16 terms in ascending order, which is how the library's large
// products add if they split no sum; FewRows.java has the card compare the bits of both before this is used.
#include "common.cuh"
#include "tiles.cuh"

constexpr int FEATURES = 16;         // of a warp
constexpr int PARTS = 3;             // weights of one launch

// One projection: y ← x·wᵀ, and + onto + bias + low·b of every slot where they are there.
struct Part {
    Matrix y;
    Matrix w;
    Matrix onto;
    Matrix bias;
    Matrix low;
    const SlotSite* slots;
    int entries;
    int from;
};

// The projections of one x.
struct Parts {
    Part part[PARTS];
};

// What a thread copies of a stage: the same piece of 16 bytes of every `step`-th row, from a first one. `step`
// is a multiple of 8, so each of its pieces lies at the same place in its row.
template<int SLICE> struct Copies {
    static constexpr int PIECES = SLICE / 8;
    const char* from;
    long long jump;
    int place;
    int rows;
    int count;

    // Of `count` rows from row `first`, as far as the matrix goes.
    __device__ __forceinline__ Copies(const Matrix& m, int first, int count) : count(count) {
        int row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
        from = (const char*) halvesAt(m, first + row, piece * 8);
        jump = blockDim.x / PIECES * m.stride * 2;
        place = row * (SLICE * 2) + ((piece ^ (row & 7)) << 4);
        rows = minimum(count, m.rows - first);
    }

    // Starts to copy the next stage, of which `left` terms are there; zeros beyond them.
    __device__ __forceinline__ void start(char* stage, int left) {
        unsigned valid = (int) threadIdx.x % PIECES * 8 < left ? 16 : 0;
        const char* at = from;
        char* to = stage + place;
        int step = blockDim.x / PIECES;
#pragma unroll 4
        for (int row = threadIdx.x / PIECES; row < rows; row += step) {
            cpAsync16(to, at, valid);
            at += jump;
            to += step * (SLICE * 2);
        }
        from += SLICE * 2;
    }

    // Zeros in a stage for the rows that the matrix does not have.
    __device__ __forceinline__ void clear(char* stage) const {
        int step = blockDim.x / PIECES;
        for (int i = 0; (int) threadIdx.x / PIECES + i * step < count; i++)
            if ((int) threadIdx.x / PIECES + i * step >= rows)
                *(Quad*) (stage + place + i * step * (SLICE * 2)) = {0, 0, 0, 0};
    }
};

// A slot's part in the corrections of a weight: its rows first..end, counted as those of y.
struct Corrected {
    u64 factor;
    long long stride;
    int dtype;
    int rank;
    int first;
    int end;
};

// That of an entry of the table; no rank after the last.
__device__ __forceinline__ Corrected correctedBy(const Part& part, int entry) {
    if (entry >= part.entries) return {};
    const SlotSite& slot = part.slots[entry];
    int first = slot.row - part.from;
    return {(u64) slot.b.data, slot.b.stride, slot.b.dtype, slot.rank, first, first + slot.count};
}

__device__ __forceinline__ Corrected ofLane(const Corrected& c, int lane) {
    return {__shfl_sync(ALL, c.factor, lane), __shfl_sync(ALL, c.stride, lane), __shfl_sync(ALL, c.dtype, lane),
        __shfl_sync(ALL, c.rank, lane), __shfl_sync(ALL, c.first, lane), __shfl_sync(ALL, c.end, lane)};
}

// Asks for what corrections will read of the factors: for this warp's features from `feature0` and the rows
// row0..end. Each lane asks for those of its slots.
__device__ __forceinline__ void prefetchFactors(const Part& part, int feature0, int row0, int end) {
    for (int i = threadIdx.x % 32; i < part.entries; i += 32) {
        const SlotSite& slot = part.slots[i];
        int first = slot.row - part.from;
        if (slot.count == 0 || first >= end || first + slot.count <= row0) continue;
        int bytes = slot.b.dtype == DT_F32 ? 4 : 2, ranks = slot.rank;
        long long step = slot.b.stride * bytes;
        const char* at = slot.b.data + feature0 * bytes;
        for (int r = 0; r < ranks; r++, at += step) prefetch(at);
    }
}

// A lane's numbers of a factor's rows r0..r0 + 16 for this warp's features from `feature0`; where there are
// none, others.
template<bool FLOATS> __device__ __forceinline__ void loadFactor(float (&f)[2][4], const Corrected& slot,
        int r0, int feature0, int features) {
    int lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int r = minimum(r0 + quad * 2 + j % 2 + j / 2 * 8, slot.rank - 1);
            long long at = r * slot.stride + minimum(feature0 + h * 8 + group, features - 1);
            f[h][j] = FLOATS ? ((const float*) slot.factor)[at]
                    : fromBf16(((const unsigned short*) slot.factor)[at]);
        }
}

// The same as a left operand; zeros where the factor has no row.
__device__ __forceinline__ void splitFactor(unsigned (&a)[TERMS][4], float (&f)[2][4], int r0, int rank) {
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (r0 + (int) threadIdx.x % 4 * 2 + j % 2 + j / 2 * 8 >= rank) f[h][j] = 0;
    splitLeft(a, f);
}

// A lane's numbers of columns r0..r0 + 16 of a slot's rows of low, from row0 on; zeros where there are none.
template<int TILES, bool FLOATS> __device__ __forceinline__ void loadLow(float (&f)[TILES][4],
        const Matrix& low, const Corrected& slot, int r0, int row0) {
    int lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
    int end = minimum(slot.end, low.rows);
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int row = row0 + n * 8 + group, r = r0 + quad * 2 + j % 2 + j / 2 * 8;
            f[n][j] = row < slot.first || row >= end || r >= slot.rank ? 0 : FLOATS ? *floatsAt(low, row, r)
                    : fromBf16(*halvesAt(low, row, r));
        }
}

// sum += low·b of all slots, for this warp's features from `feature0` and rows from row0: the products of
// finish_product_mma, in their order, and for a slot's rows only, as others' may be no numbers. The warp looks
// at 32 slots at once. It reads the factor of each that has rows here once, while it multiplies with the one
// before.
template<int TILES> __device__ __forceinline__ void corrections(float (&sum)[TILES][4], const Part& part,
        int feature0, int row0) {
    constexpr int AT_ONCE = TILES < 2 ? 1 : 2;
    int lane = threadIdx.x % 32, quad = lane % 4, rows = minimum(part.y.rows, row0 + TILES * 8);
    bool floats = part.low.dtype == DT_F32;
    for (int i0 = 0; i0 < part.entries; i0 += 32) {
        Corrected mine = correctedBy(part, i0 + lane), next = mine;
        unsigned here = __ballot_sync(ALL, mine.rank > 0 && mine.end > mine.first && mine.end > row0
                && mine.first < rows);
        float factor[2][4];
        auto load = [&](int r0) {
            if (next.dtype == DT_F32) loadFactor<true>(factor, next, r0, feature0, part.y.columns);
            else loadFactor<false>(factor, next, r0, feature0, part.y.columns);
        };
        if (here) {
            next = ofLane(mine, __ffs((int) here) - 1);
            load(0);
        }
        for (int r0 = 0; here;) {
            Corrected slot = next;
            unsigned a[TERMS][4];
            splitFactor(a, factor, r0, slot.rank);
            int at = r0;
            r0 += 16;
            if (r0 >= slot.rank) {
                here &= here - 1;
                r0 = 0;
                if (here) next = ofLane(mine, __ffs((int) here) - 1);
            }
            if (here) load(r0);
#pragma unroll
            for (int n = 0; n < TILES; n += AT_ONCE) {
                int from = row0 + n * 8;
                if (slot.end <= from || slot.first >= from + AT_ONCE * 8) continue;
                float f[AT_ONCE][4];
                if (floats) loadLow<AT_ONCE, true>(f, part.low, slot, at, from);
                else loadLow<AT_ONCE, false>(f, part.low, slot, at, from);
#pragma unroll
                for (int m = 0; m < AT_ONCE; m++) {
                    if (slot.end <= from + m * 8 || slot.first >= from + m * 8 + 8) continue;
                    float (&all)[4] = sum[n + m];
                    float own[4] = {all[0], all[1], all[2], all[3]};
                    unsigned b[TERMS][2];
                    splitRight(b, f[m]);
#pragma unroll
                    for (int s = 0; s < TERMS; s++)
#pragma unroll
                        for (int t = 0; s + t < TERMS; t++)
                            if (s == 0 || floats) mmaBf16(own, a[t], b[s]);
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        int row = from + m * 8 + quad * 2 + j % 2;
                        if (row >= slot.first && row < slot.end) all[j] = own[j];
                    }
                }
            }
        }
    }
}

// y ← ((product + onto) + bias) + correction for this warp's features and rows row0..row0 + 8. If `narrow`,
// what is added to the product of a BF16 y is added up first and rounded, as for the library.
__device__ __forceinline__ void finish(const Part& part, const float (&product)[4], const float (&more)[4],
        int feature0, int row0, bool narrow) {
    int lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
    bool first = narrow && part.y.dtype == DT_BF16 && (part.onto.data || part.bias.data || part.low.data);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int row = row0 + quad * 2 + j % 2, feature = feature0 + group + j / 2 * 8;
        if (row >= part.y.rows || feature >= part.y.columns) continue;
        float v = first ? 0 : product[j];
        if (part.onto.data) v += load(part.onto, row, feature);
        if (part.bias.data) v += load(part.bias, 0, feature);
        if (part.low.data) v += more[j];
        if (first) v = product[j] + rounded(v);
        store(part.y, row, feature, v);
    }
}

// Up to ROWS rows of x. A block has `groups` groups of FEATURES features. Each of its warps multiplies one of
// them with one of ROW_WARPS groups of the rows; warps beyond them only copy. STAGES stages of SLICE terms are
// in shared memory, on their way or in use.
template<int ROWS, int ROW_WARPS, int SLICE, int STAGES> __device__ __forceinline__ void multiply(
        const Matrix& x, const Parts& parts, int groups, int narrow, int early, char* shared) {
    constexpr int TILES = ROWS / 8 / ROW_WARPS, ROW_BYTES = SLICE * 2;
    int warp = threadIdx.x / 32 / ROW_WARPS, row0 = threadIdx.x / 32 % ROW_WARPS * (TILES * 8);
    int lane = threadIdx.x % 32, features = groups * FEATURES;
    int tile = blockIdx.x, which = 0;
    for (; which < PARTS - 1; which++) {
        int tiles = (parts.part[which].y.columns + features - 1) / features;
        if (tile < tiles) break;
        tile -= tiles;
    }
    const Part& part = parts.part[which];
    int feature0 = tile * features + warp * FEATURES;
    bool multiplies = warp < groups && row0 < x.rows && feature0 < part.y.columns;
    int stageBytes = (features + ROWS) * ROW_BYTES, rowsAt = features * ROW_BYTES;
    int slices = (x.columns + SLICE - 1) / SLICE;
    Copies<SLICE> weights(part.w, tile * features, features), rows(x, 0, ROWS);
    // no kernel writes weights: they are on their way before the kernel before this one has ended
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++)
        if (s < slices) weights.start(shared + s * stageBytes, x.columns - s * SLICE);
    if (!early) awaitPrevious();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < slices) rows.start(shared + s * stageBytes + rowsAt, x.columns - s * SLICE);
        cpAsyncCommit();
    }
#pragma unroll 1
    for (int s = 0; s < STAGES; s++) {
        weights.clear(shared + s * stageBytes);
        rows.clear(shared + s * stageBytes + rowsAt);
    }
    float sum[TILES][4] = {};
    // a lane's row of the weights, and of the rows: those of two tiles, or of one for two products
    int weightsAt = (warp * FEATURES + lane % 16) * ROW_BYTES, weightsTurn = (lane / 16 ^ lane % 8) << 4;
    int half = TILES == 1 ? lane / 8 : lane / 8 % 2, turn = (half ^ lane % 8) << 4;
    int lineAt = rowsAt + (row0 + lane % 8 + (TILES == 1 ? 0 : lane / 16 * 8)) * ROW_BYTES;
    int stage = 0;
    for (int i = 0; i < slices; i++) {
        cpAsyncWait<STAGES - 2>();
        __syncthreads();
        int next = i + STAGES - 1;
        if (next < slices) {
            char* to = shared + (stage == 0 ? STAGES - 1 : stage - 1) * stageBytes;
            weights.start(to, x.columns - next * SLICE);
            rows.start(to + rowsAt, x.columns - next * SLICE);
        }
        cpAsyncCommit();
        const char* now = shared + stage * stageBytes;
        stage = stage == STAGES - 1 ? 0 : stage + 1;
        if (!multiplies) continue;
        // near the end: what was asked for before would have left the cache for weights
        if (next == slices && part.low.data)
            prefetchFactors(part, feature0, row0, minimum(x.rows, row0 + TILES * 8));
        unsigned both[4];
#pragma unroll
        for (int k = 0; k < SLICE / 16; k++) {
            // pieces 2k and 2k + 1 of the rows, turned by the rows so that eight of them are in all banks
            int at = k / 4 * 128, turned = k % 4 * 32;
            unsigned a[4];
            ldmatrix4(a, now + weightsAt + at + (turned ^ weightsTurn));
            if (TILES == 1) {
                if (k % 2 == 0) ldmatrix4(both, now + lineAt + at + (turned ^ turn));
                unsigned b[2] = {both[k % 2 * 2], both[k % 2 * 2 + 1]};
                mmaBf16(sum[0], a, b);
            } else {
#pragma unroll
                for (int n = 0; n < TILES; n += 2) {
                    unsigned r[4];
                    ldmatrix4(r, now + lineAt + n * 8 * ROW_BYTES + at + (turned ^ turn));
                    unsigned left[2] = {r[0], r[1]}, right[2] = {r[2], r[3]};
                    mmaBf16(sum[n], a, left);
                    mmaBf16(sum[(n + 1) % TILES], a, right);
                }
            }
        }
    }
    cpAsyncWait<0>();
    if (early) awaitPrevious();
    launchDependents();
    if (!multiplies) return;
    float more[TILES][4] = {};
    if (part.low.data) corrections<TILES>(more, part, feature0, row0);
#pragma unroll
    for (int n = 0; n < TILES; n++) finish(part, sum[n], more[n], feature0, row0 + n * 8, narrow);
}

// Grid: tiles of `groups` groups of features, of all parts; 512 or 384 threads, at least 32 · ROW_WARPS for a
// group; shared memory: STAGES · (features of a tile + ROWS) · SLICE · 2 bytes. Parts that are not there
// have no columns; `narrow`: see finish; `early`: whether x was complete when the kernel before this one began.
// The name has the rows and the terms of a stage: many for few features.
extern "C" __global__ void __launch_bounds__(512, 1) few_rows_8_256(Matrix x, Parts parts, int groups,
        int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<8, 1, 256, 4>(x, parts, groups, narrow, early, shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_8_128(Matrix x, Parts parts, int groups,
        int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<8, 1, 128, 4>(x, parts, groups, narrow, early, shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_16_256(Matrix x, Parts parts, int groups,
        int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<16, 1, 256, 4>(x, parts, groups, narrow, early, shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_16_128(Matrix x, Parts parts, int groups,
        int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<16, 1, 128, 4>(x, parts, groups, narrow, early, shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_32_256(Matrix x, Parts parts, int groups,
        int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<32, 2, 256, 4>(x, parts, groups, narrow, early, shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_32_128(Matrix x, Parts parts, int groups,
        int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<32, 1, 128, 4>(x, parts, groups, narrow, early, shared);
}

extern "C" __global__ void __launch_bounds__(512, 1) few_rows_64_256(Matrix x, Parts parts, int groups,
        int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<64, 2, 256, 4>(x, parts, groups, narrow, early, shared);
}

extern "C" __global__ void __launch_bounds__(384, 1) few_rows_64_128(Matrix x, Parts parts, int groups,
        int narrow, int early) {
    DYNAMIC_SHARED(shared);
    multiply<64, 1, 128, 3>(x, parts, groups, narrow, early, shared);
}

// ---- low-rank products of few rows ----

constexpr int SHARES = 8;        // parts of the terms, as many as warps of low_rank_mma
constexpr int TERMS_AT_ONCE = 32;
constexpr int RANKS = 16;        // of a tile
constexpr int ROWS = 16;         // of a tile
constexpr int FACTOR_BYTES = TERMS_AT_ONCE * RANKS * 4;
constexpr int SLICE_BYTES = FACTOR_BYTES + ROWS * TERMS_AT_ONCE * 2;

// slotTile without gaps, by all lanes of a warp: the reads of 32 slots do not wait for each other.
__device__ __forceinline__ SlotTile slotTileOfWarp(const SlotSite* slots, int n, int from, int count, int size,
        int tile) {
    int lane = threadIdx.x % 32;
    for (int i0 = 0; i0 < n; i0 += 32) {
        int first = 0, end = 0;
        if (i0 + lane < n) {
            first = firstRow(slots[i0 + lane], from);
            end = endRow(slots[i0 + lane], from, count);
        }
        int tiles = end > first ? (end - first + size - 1) / size : 0, sum = tiles;
#pragma unroll
        for (int by = 1; by < 32; by *= 2) {
            int before = __shfl_up_sync(ALL, sum, by);
            if (lane >= by) sum += before;
        }
        unsigned here = __ballot_sync(ALL, sum > tile);
        if (here) {
            int i = __ffs((int) here) - 1, at = (tile - __shfl_sync(ALL, sum - tiles, i)) * size;
            first = __shfl_sync(ALL, first, i);
            return {i0 + i, first + at, minimum(size, __shfl_sync(ALL, end, i) - first - at)};
        }
        tile -= __shfl_sync(ALL, sum, 31);
    }
    return {-1, 0, 0};
}

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
