// Products of few BF16 rows with frozen weights, as decoding needs them: bound by the reading of the weights.
// A sum is one chain of tensor-core products of 16 terms in ascending order, which is how the library's large
// products add if they split no sum; FewRows.java has the card compare the bits of both before this is used.
#pragma once
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

// What one of THREADS threads copies of a stage: the same piece of 16 bytes of every STEP-th row, from a first
// one. STEP is a multiple of 8, so each of its pieces lies at the same place in its row.
template<int SLICE, int THREADS> struct Copies {
    static constexpr int PIECES = SLICE / 8, STEP = THREADS / PIECES;
    static_assert(STEP % 8 == 0);
    const char* from;
    long long jump;
    int place;
    int rows;
    int count;

    // Of `count` rows from row `first`, as far as the matrix goes.
    __device__ __forceinline__ Copies(const Matrix& m, int first, int count) : count(count) {
        int row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
        from = (const char*) halvesAt(m, first + row, piece * 8);
        jump = STEP * m.stride * 2;
        place = row * (SLICE * 2) + ((piece ^ (row & 7)) << 4);
        rows = minimum(count, m.rows - first);
    }

    // Starts to copy the next stage, of which `left` terms are there; zeros beyond them.
    __device__ __forceinline__ void start(char* stage, int left) {
        unsigned valid = (int) threadIdx.x % PIECES * 8 < left ? 16 : 0;
        const char* at = from;
        char* to = stage + place;
#pragma unroll 4
        for (int row = threadIdx.x / PIECES; row < rows; row += STEP) {
            cpAsync16(to, at, valid);
            at += jump;
            to += STEP * (SLICE * 2);
        }
        from += SLICE * 2;
    }

    // Zeros in a stage for the rows that the matrix does not have.
    __device__ __forceinline__ void clear(char* stage) const {
        for (int i = 0; (int) threadIdx.x / PIECES + i * STEP < count; i++)
            if ((int) threadIdx.x / PIECES + i * STEP >= rows)
                *(Quad*) (stage + place + i * STEP * (SLICE * 2)) = {0, 0, 0, 0};
    }
};

// A slot's part in the corrections of a weight: the rows first..end of y, and its factor.
struct Corrected {
    u64 factor;
    long long stride;
    int rank;
    int first;
    int end;
    int kind;
};

enum { HALVES = 0, FLOATS = 1, FLOAT_PIECES = 2 };     // kinds of factors

constexpr int MOST_ROWS = 64;
constexpr int RANKS_AT_ONCE = 16;

// The corrections of a block's features: the slots that have rows and an adapter.
struct Corrections {
    Corrected slots[MOST_ROWS];
    int count;
    int ranks;      // largest rank of a slot
};

// Lists the corrections of a part. One warp calls it and reads 32 slots at once.
__device__ __forceinline__ void findCorrections(Corrections& all, const Part& part) {
    int lane = threadIdx.x % 32, count = 0, ranks = 0;
    for (int i0 = 0; i0 < part.entries; i0 += 32) {
        Corrected mine = {};
        if (i0 + lane < part.entries) {
            const SlotSite& slot = part.slots[i0 + lane];
            mine = {(u64) slot.b.data, slot.b.stride, slot.rank, firstRow(slot, part.from),
                endRow(slot, part.from, part.y.rows),
                slot.b.dtype != DT_F32 ? HALVES : slot.b.wide ? FLOAT_PIECES : FLOATS};
        }
        bool here = mine.rank > 0 && mine.end > mine.first;
        unsigned lanes = __ballot_sync(ALL, here);
        if (here) all.slots[count + __popc(lanes & ((1u << lane) - 1))] = mine;
        count += __popc(lanes);
        ranks = max(ranks, here ? mine.rank : 0);
    }
#pragma unroll
    for (int by = 16; by > 0; by /= 2) ranks = max(ranks, __shfl_xor_sync(ALL, ranks, by));
    if (lane == 0) {
        all.count = count;
        all.ranks = ranks;
    }
    __syncwarp();
}

// Prefetches the elements of the factors that the corrections of a block's features read. The warp that has
// listed the corrections calls it.
__device__ __forceinline__ void prefetchFactors(const Corrections& all, int feature0, int features) {
    for (int i = 0; i < all.count; i++) {
        const Corrected& slot = all.slots[i];
        int bytes = slot.kind == HALVES ? 2 : 4, lines = (features * bytes + 127) / 128;
        for (int at = threadIdx.x % 32; at < slot.rank * lines; at += 32)
            prefetch((const char*) slot.factor + (at / lines * slot.stride + feature0) * bytes
                + minimum(at % lines * 128, (features - 1) * bytes));
    }
}

// Starts to copy rows r0..r0 + RANKS_AT_ONCE of a slot's factor, for the block's features, as fp32, and zeros
// beyond the rank and the last feature. All threads of the block call it.
__device__ __forceinline__ void copyFactor(char* to, const Corrected& slot, int r0, int feature0, int features,
        int columns) {
    int pitch = features * 4 + 16, pieces = features / 4;
    if (slot.kind == FLOAT_PIECES) {
        for (int i = threadIdx.x; i < RANKS_AT_ONCE * pieces; i += blockDim.x) {
            int r = i / pieces, piece = i % pieces, left = columns - feature0 - piece * 4;
            unsigned valid = r0 + r >= slot.rank || left <= 0 ? 0 : left >= 4 ? 16 : left * 4;
            const float* from = (const float*) slot.factor;
            if (valid > 0) from += (r0 + r) * slot.stride + feature0 + piece * 4;
            cpAsync16(to + r * pitch + piece * 16, from, valid);
        }
        return;
    }
    for (int i = threadIdx.x; i < RANKS_AT_ONCE * features; i += blockDim.x) {
        int r = i / features, feature = i % features;
        float f = 0;
        if (r0 + r < slot.rank && feature0 + feature < columns) {
            long long at = (r0 + r) * slot.stride + feature0 + feature;
            f = slot.kind == FLOATS ? ((const float*) slot.factor)[at]
                    : fromBf16(((const unsigned short*) slot.factor)[at]);
        }
        *(float*) (to + r * pitch + feature * 4) = f;
    }
}

// The same for columns r0..r0 + RANKS_AT_ONCE of the slot's rows of low, which another block may have written.
__device__ __forceinline__ void copyLow(char* to, const Corrected& slot, int r0, const Matrix& low) {
    bool pieces = low.wide && low.stride % 8 == 0;
    for (int i = threadIdx.x; i < (slot.end - slot.first) * (pieces ? 2 : RANKS_AT_ONCE); i += blockDim.x) {
        if (pieces) {
            int r = r0 + i % 2 * 8, left = slot.rank - r;
            cpAsync16(to + i * 16, halvesAt(low, slot.first + i / 2, left > 0 ? r : r0),
                left >= 8 ? 16 : left > 0 ? left * 2 : 0);
        } else {
            int r = r0 + i % RANKS_AT_ONCE;
            ((unsigned short*) to)[i] = r < slot.rank
                    ? __ldcg(halvesAt(low, slot.first + i / RANKS_AT_ONCE, r)) : (unsigned short) 0;
        }
    }
}

// sum += low·b of all slots, for the features of this warp, from `own` of the block's, and rows from row0: the
// products of finish_product_mma, in their order, and for a slot's rows only, as others' may be no numbers.
// Factors and low go through the `room` bytes of `shared`, a slot's RANKS_AT_ONCE ranks after the other's: while
// those of one half are multiplied, those of the other are on their way. `ready` waits until low is complete.
// All threads of the block call it.
template<int GROUPS, int TILES, class Ready> __device__ __forceinline__ void correct(
        float (&sum)[GROUPS][TILES][4], const Corrections& all, const Part& part, int feature0, int features,
        int own, int row0, bool multiplies, char* shared, int room, Ready ready) {
    int lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4, pitch = features * 4 + 16;
    int count = all.count, units = count * ((all.ranks + RANKS_AT_ONCE - 1) / RANKS_AT_ONCE);
    int lowAt = RANKS_AT_ONCE * pitch, bytes = lowAt + minimum(part.y.rows, MOST_ROWS) * (RANKS_AT_ONCE * 2);
    int half = room / 2 / bytes;
    auto copy = [&](int from, char* to, bool factors, bool lows) {
        for (int u = from; u < minimum(units, from + half); u++, to += bytes) {
            const Corrected& slot = all.slots[u % count];
            int r0 = u / count * RANKS_AT_ONCE;
            if (r0 >= slot.rank) continue;
            if (factors) copyFactor(to, slot, r0, feature0, features, part.y.columns);
            if (lows) copyLow(to + lowAt, slot, r0, part.low);
        }
        if (lows) cpAsyncCommit();
    };
    char* other = shared + half * bytes;
#pragma unroll 1
    for (int lows = 0; lows < 2; lows++) {
        if (lows) ready();
        copy(0, shared, !lows, lows);
        copy(half, other, !lows, lows);
    }
    for (int from = 0; from < units; from += half) {
        cpAsyncWait<1>();
        __syncthreads();
        const char* unit = shared;
        for (int u = from; u < minimum(units, from + half) && multiplies; u++, unit += bytes) {
            const Corrected& slot = all.slots[u % count];
            int first = slot.first - row0, end = slot.end - row0;
            if (u / count * RANKS_AT_ONCE >= slot.rank || end <= 0 || first >= TILES * 8) continue;
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                float f[2][4];
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        f[h][j] = *(const float*) (unit + (quad * 2 + j % 2 + j / 2 * 8) * pitch
                            + (own + g * FEATURES + h * 8 + group) * 4);
                unsigned a[TERMS][4];
                splitLeft(a, f);
#pragma unroll
                for (int n = 0; n < TILES; n++) {
                    if (end <= n * 8 || first >= n * 8 + 8) continue;
                    int row = n * 8 + group - first;
                    unsigned b[2] = {};
                    if (row >= 0 && row < end - first) {
                        const unsigned* low = (const unsigned*) (unit + lowAt + row * (RANKS_AT_ONCE * 2));
                        b[0] = low[quad];
                        b[1] = low[quad + 4];
                    }
                    float (&old)[4] = sum[g][n];
                    float with[4] = {old[0], old[1], old[2], old[3]};
#pragma unroll
                    for (int t = 0; t < TERMS; t++) mmaBf16(with, a[t], b);
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        row = n * 8 + quad * 2 + j % 2;
                        if (row >= first && row < end) old[j] = with[j];
                    }
                }
            }
        }
        __syncthreads();
        copy(from + 2 * half, shared, true, true);
        char* next = other;
        other = shared;
        shared = next;
    }
    cpAsyncWait<0>();
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

// The low-rank products of an x that a launch computes beside its projections: `sites` of them, each of
// `tiles` tiles of slots and `ranks` tiles of ranks. `counters` count the items that warps have taken, the
// complete sums, the blocks that no longer use either counter, and for each sum its complete shares. All are 0
// before and after a launch.
struct Lows {
    Matrix low[PARTS];
    const SlotSite* slots[PARTS];
    float* partial;
    unsigned* counters;
    int entries;
    int from;
    int sites;
    int tiles;
    int ranks;
    int pad;

    __device__ __forceinline__ int sums() const { return sites * tiles * ranks; }
};

// Weights that a launch asks the card's cache to have before they are copied: when its product is complete, the
// first `bytes` of each row of the next product's weight; and before it waits for the kernel before it, its own
// weights of so many stages after the ones that are copied first. Kernels that leave the memory idle run meanwhile.
struct Ahead {
    Matrix next;
    int bytes;
    int slices;
};

constexpr int TAKEN = 0, COMPLETE = 1, BLOCKS_LEFT = 2, SUMS = 4;     // places of counters

// A lane's operands from two slices of x and of a factor: the slices of warp `share` of low_rank_mma.
struct LowOperands {
    const float* factor;
    const char* upper;
    const char* lower;
    long long step;
    bool columns[2];
    bool rows[2];
    float f[2][2][2][4];
    Quad x[2][2];

    __device__ __forceinline__ LowOperands(const Matrix& x, const SlotSite& slot, const SlotTile& tile, int rank0,
            int share, int slices) {
        int lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
        int k = share * TERMS_AT_ONCE + quad * 8, r = rank0 + group;
        step = slot.a.stride;
        // all of the factor is on its way to the cache before the first slice is waited for
        const float* row = floatsAt(slot.a, share * TERMS_AT_ONCE + lane, rank0);
        int end = minimum(RANKS, slot.rank - rank0) - 1;
        for (int i = 0; i < slices; i++, row += SHARES * TERMS_AT_ONCE * step) {
            prefetch(row);
            if (step % RANKS != 0) prefetch(row + end);     // two lines may have a part of it
        }
        for (int h = 0; h < 2; h++) {
            columns[h] = r + h * 8 < slot.rank;
            rows[h] = group + h * 8 < tile.rows;
        }
        factor = floatsAt(slot.a, k, 0) + (columns[0] ? r : 0);
        upper = (const char*) halvesAt(x, tile.row + (rows[0] ? group : 0), k);
        lower = (const char*) halvesAt(x, tile.row + (rows[1] ? group + 8 : 0), k);
    }

    // Reads the next slice, as number U.
    template<int U> __device__ __forceinline__ void read() {
        const float* at = factor;
#pragma unroll
        for (int s = 0; s < 2; s++)
#pragma unroll
            for (int j = 0; j < 4; j++, at += step)
#pragma unroll
                for (int h = 0; h < 2; h++) f[U][s][h][j] = columns[h] ? at[h * 8] : 0;
        x[U][0] = rows[0] ? *(const Quad*) upper : Quad{0, 0, 0, 0};
        x[U][1] = rows[1] ? *(const Quad*) lower : Quad{0, 0, 0, 0};
        factor += SHARES * TERMS_AT_ONCE * step;
        upper += SHARES * TERMS_AT_ONCE * 2;
        lower += SHARES * TERMS_AT_ONCE * 2;
    }

    // sum += the product of slice U, of two halves of the ranks.
    template<int U> __device__ __forceinline__ void multiply(float (&sum)[2][4]) {
#pragma unroll
        for (int s = 0; s < 2; s++) {
            Quad up = x[U][0], down = x[U][1];
            unsigned a[4] = {s ? up.z : up.x, s ? down.z : down.x, s ? up.w : up.y, s ? down.w : down.y};
#pragma unroll
            for (int h = 0; h < 2; h++) {
                unsigned b[TERMS][2];
                splitRight(b, f[U][s][h]);
#pragma unroll
                for (int t = 0; t < TERMS; t++) mmaBf16(sum[h], a, b[t]);
            }
        }
    }
};

// Items of the low-rank products, until all are taken: an item is what one warp of low_rank_mma computes for 16
// rows. The warp that completes the last of the shares of a sum adds them in their order.
__device__ __forceinline__ void lowRanks(const Matrix& x, const Lows& lows) {
    int lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4, items = lows.sums() * SHARES;
    for (;;) {
        unsigned taken = lane == 0 ? atomicAdd(lows.counters + TAKEN, 1u) : 0;
        int item = (int) __shfl_sync(ALL, taken, 0), share = item % SHARES, sums = item / SHARES;
        if (item >= items) return;
        int rank0 = sums / lows.tiles % lows.ranks * RANKS, site = sums / lows.tiles / lows.ranks;
        const SlotSite* slots = site == 0 ? lows.slots[0] : site == 1 ? lows.slots[1] : lows.slots[2];
        SlotTile tile = slotTileOfWarp(slots, lows.entries, lows.from, x.rows, ROWS, sums % lows.tiles);
        if (!hasRank(tile, slots, rank0)) {
            if (share == 0 && lane == 0) atomicAdd(lows.counters + COMPLETE, 1u);
            continue;
        }
        const SlotSite& slot = slots[tile.slot];
        int slices = (x.columns / TERMS_AT_ONCE - share + SHARES - 1) / SHARES, rank = slot.rank;
        float scale = slot.scale;
        LowOperands operands(x, slot, tile, rank0, share, slices);
        float sum[2][4] = {};
        // a slice is loaded while the slice before it is multiplied
        if (slices > 0) operands.read<0>();
        if (slices > 1) operands.read<1>();
        for (; slices > 0; slices -= 2) {
            operands.multiply<0>(sum);
            if (slices > 2) operands.read<0>();
            if (slices > 1) operands.multiply<1>(sum);
            if (slices > 3) operands.read<1>();
        }
        float* own = lows.partial + (long long) sums * SHARES * ROWS * RANKS;
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                own[share * ROWS * RANKS + (group + i / 2 * 8) * RANKS + h * 8 + quad * 2 + i % 2] = sum[h][i];
        __syncwarp();
        unsigned there = 0;
        if (lane == 0) {
            __threadfence();
            there = atomicAdd(lows.counters + SUMS + sums, 1u);
            __threadfence();
        }
        __syncwarp();
        if (__shfl_sync(ALL, there, 0) < SHARES - 1) continue;
        const Matrix& low = site == 0 ? lows.low[0] : site == 1 ? lows.low[1] : lows.low[2];
        int r = rank0 + lane % RANKS;
        own += lane;
#pragma unroll 4
        for (int row = lane / RANKS; row < ROWS; row += 32 / RANKS, own += 32) {
            float total = __ldcg(own);
#pragma unroll
            for (int w = 1; w < SHARES; w++) total += __ldcg(own + w * ROWS * RANKS);
            if (row < tile.rows && r < rank) store(low, tile.row + row, r, scale * total);
        }
        __syncwarp();
        if (lane == 0) {
            lows.counters[SUMS + sums] = 0;
            __threadfence();
            atomicAdd(lows.counters + COMPLETE, 1u);
        }
    }
}

// How the rows of x come into the stages of a block: the policy Rows of multiply. This one: the threads that copy
// weights copy all rows too.
template<int COUNT, int SLICE, int THREADS> struct OwnRows {
    static constexpr int ROWS = COUNT, BLOCKS = 1, PITCH = SLICE * 2;
    Copies<SLICE, THREADS> copies;

    __device__ __forceinline__ OwnRows(const Matrix& x, char*, int) : copies(x, 0, COUNT) {}

    // Where the pieces 2k and 2k + 1 of a row lie, for a lane whose row is lane % 8 of eight and whose piece is
    // `half` of the two: turned by the rows so that eight of them are in all banks.
    static __device__ __forceinline__ int ofLane(int half) { return (half ^ threadIdx.x % 8) << 4; }
    static __device__ __forceinline__ int place(int k, int ofLane) { return k / 4 * 128 + (k % 4 * 32 ^ ofLane); }

    // Starts to copy the next stage; a thread that copies calls it.
    __device__ __forceinline__ void start(char* stage, int left) { copies.start(stage, left); }

    // Zeros in a stage for the rows that are not there; a thread that copies calls it.
    __device__ __forceinline__ void clear(char* stage) const { copies.clear(stage); }

    // Before anything of another block is used.
    __device__ __forceinline__ void meet() const {}

    // No stage is used any more; and waits until this is so for all blocks, before this one ends.
    __device__ __forceinline__ void leave() const {}
    __device__ __forceinline__ void awaitOthers() const {}

    // The stage before the one of slice i is no longer used by this block.
    __device__ __forceinline__ void left(int, int) const {}

    // Waits for the rows of slice i, which are in this stage.
    __device__ __forceinline__ void await(int, int) const {}

    // Copies all slices: the work of one warp, if BLOCKS > 1.
    __device__ __forceinline__ void produce(char*, int, int) const {}
};

// Up to Rows::ROWS rows of x. A block has `groups` groups of FEATURES features. Each of its first warps
// multiplies GROUPS of them with one of ROW_WARPS groups of the rows, and COPIERS threads copy: STAGES stages of
// SLICE terms are in shared memory, on their way or in use. If several blocks share the rows, the first warp after
// these copies them. The others list the corrections and compute low-rank products; until the end of the product
// they wait for no other warp.
template<class Rows, int GROUPS, int ROW_WARPS, int SLICE, int STAGES, int COPIERS>
__device__ __forceinline__ void multiply(const Matrix& x, const Parts& parts, const Lows& lows,
        const Ahead& ahead, int groups, int narrow, int early, char* shared) {
    constexpr int ROWS = Rows::ROWS, TILES = ROWS / 8 / ROW_WARPS, ROW_BYTES = SLICE * 2;
    int warp = threadIdx.x / 32 / ROW_WARPS, row0 = threadIdx.x / 32 % ROW_WARPS * (TILES * 8);
    int lane = threadIdx.x % 32, features = groups * FEATURES;
    int tile = blockIdx.x, which = 0;
    for (; which < PARTS - 1; which++) {
        int tiles = (parts.part[which].y.columns + features - 1) / features;
        if (tile < tiles) break;
        tile -= tiles;
    }
    const Part& part = which == 0 ? parts.part[0] : which == 1 ? parts.part[1] : parts.part[2];
    int own = warp * (GROUPS * FEATURES), block0 = tile * features, feature0 = block0 + own;
    bool multiplies = own < features && row0 < x.rows && feature0 < part.y.columns;
    int busy = max(COPIERS, groups / GROUPS * ROW_WARPS * 32);
    bool copies = threadIdx.x < COPIERS;
    int stageBytes = features * ROW_BYTES + ROWS * Rows::PITCH, rowsAt = features * ROW_BYTES;
    int slices = (x.columns + SLICE - 1) / SLICE;
    Corrections& found = *(Corrections*) (shared + STAGES * stageBytes);
    Copies<SLICE, COPIERS> weights(part.w, block0, features);
    Rows rows(x, (char*) (&found + 1), slices);
    // no kernel writes weights: they are on their way before the kernel before this one has ended
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++)
        if (s < slices && copies) weights.start(shared + s * stageBytes, x.columns - s * SLICE);
    constexpr int FIRST = (STAGES - 1) * SLICE;
    // the lanes of a warp ask one after the other: neighbours are in different warps
    int spread = threadIdx.x % 32 * (blockDim.x / 32) + threadIdx.x / 32;
    if (int bytes = minimum(ahead.slices * SLICE, x.columns - FIRST) * 2; ahead.slices > 0 && bytes > 0)
        for (int row = spread; row < minimum(features, part.w.rows - block0); row += blockDim.x)
            prefetch(halvesAt(part.w, block0 + row, FIRST), bytes);
    rows.meet();
    if (!early) awaitPrevious();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < slices && copies) rows.start(shared + s * stageBytes + rowsAt, x.columns - s * SLICE);
        cpAsyncCommit();
    }
    if (copies) {
#pragma unroll 1
        for (int s = 0; s < STAGES; s++) {
            weights.clear(shared + s * stageBytes);
            rows.clear(shared + s * stageBytes + rowsAt);
        }
    }
    int stage = 0, i = 0;
    // waits for the next stage, starts the copies of a later one, and returns the address of the former
    auto turn = [&] {
        cpAsyncWait<STAGES - 2>();
        syncFirst(busy);
        rows.left(i, stage);
        int next = i + STAGES - 1;
        if (next < slices && copies) {
            char* to = shared + (stage == 0 ? STAGES - 1 : stage - 1) * stageBytes;
            weights.start(to, x.columns - next * SLICE);
            rows.start(to + rowsAt, x.columns - next * SLICE);
        }
        cpAsyncCommit();
        rows.await(i, stage);
        const char* now = shared + stage * stageBytes;
        stage = stage == STAGES - 1 ? 0 : stage + 1;
        i++;
        return now;
    };
    float sum[GROUPS][TILES][4];
    if (multiplies) {
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
#pragma unroll
            for (int n = 0; n < TILES; n++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[g][n][j] = 0;
        // a lane's row of the weights, and of the rows: those of two tiles, or of one for two products
        int weightsAt = (own + lane % 16) * ROW_BYTES, weightsTurn = (lane / 16 ^ lane % 8) << 4;
        int rowsOfLane = Rows::ofLane(TILES == 1 ? lane / 8 : lane / 8 % 2);
        int lineAt = rowsAt + (row0 + lane % 8 + (TILES == 1 ? 0 : lane / 16 * 8)) * Rows::PITCH;
        while (i < slices) {
            const char* now = turn();
            unsigned both[4];
#pragma unroll
            for (int k = 0; k < SLICE / 16; k++) {
                unsigned a[GROUPS][4];
#pragma unroll
                for (int g = 0; g < GROUPS; g++)
                    ldmatrix4(a[g], now + weightsAt + g * FEATURES * ROW_BYTES + k / 4 * 128
                        + (k % 4 * 32 ^ weightsTurn));
                if (TILES == 1) {
                    if (k % 2 == 0) ldmatrix4(both, now + lineAt + Rows::place(k, rowsOfLane));
                    unsigned b[2] = {both[k % 2 * 2], both[k % 2 * 2 + 1]};
#pragma unroll
                    for (int g = 0; g < GROUPS; g++) mmaBf16(sum[g][0], a[g], b);
                } else {
#pragma unroll
                    for (int n = 0; n < TILES; n += 2) {
                        unsigned r[4];
                        ldmatrix4(r, now + lineAt + n * 8 * Rows::PITCH + Rows::place(k, rowsOfLane));
                        unsigned left[2] = {r[0], r[1]}, right[2] = {r[2], r[3]};
#pragma unroll
                        for (int g = 0; g < GROUPS; g++) {
                            mmaBf16(sum[g][n], a[g], left);
                            mmaBf16(sum[g][(n + 1) % TILES], a[g], right);
                        }
                    }
                }
            }
        }
    } else if ((int) threadIdx.x < busy) {
        while (i < slices) turn();
    } else if (Rows::BLOCKS > 1 && (int) threadIdx.x < busy + 32) {
        rows.produce(shared + rowsAt, stageBytes, slices);
    } else {
        bool finds = part.low.data && threadIdx.x / 32 == blockDim.x / 32 - 1;
        if (finds) findCorrections(found, part);
        if (lows.sites > 0) lowRanks(x, lows);
        if (finds) prefetchFactors(found, block0, minimum(features, part.y.columns - block0));
    }
    cpAsyncWait<0>();
    if (early) awaitPrevious();
    __syncthreads();
    launchDependents();
    rows.leave();
    if (ahead.bytes > 0)
        for (int row = spread * gridDim.x + blockIdx.x; row < ahead.next.rows; row += blockDim.x * gridDim.x)
            prefetch(halvesAt(ahead.next, row, 0), ahead.bytes);
    float more[GROUPS][TILES][4] = {};
    if (part.low.data) correct(more, found, part, block0, features, own, row0, multiplies, shared,
        STAGES * stageBytes, [&] {
            if (lows.sites == 0) return;
            if (threadIdx.x == 0) awaitCount(lows.counters + COMPLETE, lows.sums());
            __syncthreads();
        });
    // the last block of which no warp computes low-rank products or waits for them; the last thread multiplies
    // in none
    if (lows.sites > 0 && threadIdx.x == blockDim.x - 1) {
        __threadfence();
        if (atomicAdd(lows.counters + BLOCKS_LEFT, 1u) == gridDim.x - 1) {
            __threadfence();
            lows.counters[TAKEN] = lows.counters[COMPLETE] = lows.counters[BLOCKS_LEFT] = 0;
        }
    }
    if (multiplies) {
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
#pragma unroll
            for (int n = 0; n < TILES; n++)
                finish(part, sum[g][n], more[g][n], feature0 + g * FEATURES, row0 + n * 8, narrow);
    }
    rows.awaitOthers();
}

