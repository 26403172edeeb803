// The low-rank products of BF16 activations on tensor cores. Factors are fp32: each is multiplied as the sum of
// three bf16 numbers, which hold all of its 24 bits. Sums in an order that depends on the slot's rows alone.
#include "common.cuh"
#include "tiles.cuh"
#include "ptx.cuh"

constexpr int WARPS = 8;
constexpr int RANKS = 16;      // ranks of a tile
constexpr int PARTS = 3;       // bf16 numbers that make one fp32 number

// ---- low_rank_mma ----

constexpr int ROWS = 32;       // rows of a tile
constexpr int DEPTH = 32;      // terms that a warp adds at a time: each lane has eight consecutive ones

// parts ← two fp32 numbers as sums of bf16 numbers, the largest first.
__device__ __forceinline__ void splitPair(unsigned (&parts)[PARTS], float low, float high) {
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        parts[i] = packBf16(low, high);
        low -= __uint_as_float(parts[i] << 16);
        high -= __uint_as_float(parts[i] & 0xffff0000u);
    }
}

// f ← eight terms of the factor of one rank from term k: column `r` of a [terms, ranks], or row `r` of b.
__device__ __forceinline__ void factorTerms(float (&f)[8], const Matrix& factor, int rank, int r, int k,
        int terms, bool rowsAreRanks) {
    bool inside = r < rank && k < terms;
    if (rowsAreRanks) {
        if (inside) load8(f, factor, r, k, VECTOR, 0);
        else {
#pragma unroll
            for (int i = 0; i < 8; i++) f[i] = 0;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) f[i] = inside ? load(factor, k + i, r) : 0;
}

// low ← scale·x·a of every slot, or scale·x·bᵀ if `backward`, at up to three sites; x is BF16 of aligned rows and
// a multiple of eight columns. Each warp adds every eighth slice of the terms. Grid: tiles of slots, tiles of
// ranks, sites; 256 threads.
extern "C" __global__ void __launch_bounds__(256) low_rank_mma(Matrix x, Matrix low0, Matrix low1, Matrix low2,
        const SlotSite* slots0, const SlotSite* slots1, const SlotSite* slots2, int n, int from,
        int backward) {
    __shared__ __align__(16) float partial[WARPS * ROWS * RANKS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quarter = lane % 4;
    const SlotSite* slots = blockIdx.z == 0 ? slots0 : blockIdx.z == 1 ? slots1 : slots2;
    Matrix low = blockIdx.z == 0 ? low0 : blockIdx.z == 1 ? low1 : low2;
    SlotTile tile = slotTile(slots, n, from, x.rows, ROWS, false, blockIdx.x);
    int rank0 = blockIdx.y * RANKS;
    if (tile.rows == 0 || rank0 >= slots[tile.slot].rank) return;
    const SlotSite& slot = slots[tile.slot];
    Matrix factor = backward ? slot.b : slot.a;
    int rank = slot.rank;
    float sum[2][2][4] = {};    // tiles of 16 rows, of 8 ranks
#pragma unroll 2
    for (int k0 = warp * DEPTH; k0 < x.columns; k0 += WARPS * DEPTH) {
        // Both operands take the terms in the same order: a lane's eight are those of two steps.
        int k = k0 + quarter * 8;
        Quad rows[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            rows[i] = {0, 0, 0, 0};
            if (i * 8 + group < tile.rows && k < x.columns)
                rows[i] = *(const Quad*) halvesAt(x, tile.row + i * 8 + group, k);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float f[8];
            factorTerms(f, factor, rank, rank0 + half * 8 + group, k, x.columns, backward);
#pragma unroll
            for (int step = 0; step < 2; step++) {
                unsigned first[PARTS], second[PARTS];
                splitPair(first, f[4 * step], f[4 * step + 1]);
                splitPair(second, f[4 * step + 2], f[4 * step + 3]);
#pragma unroll
                for (int part = PARTS - 1; part >= 0; part--) {
                    unsigned b[2] = {first[part], second[part]};
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        const Quad& upper = rows[2 * m];
                        const Quad& lower = rows[2 * m + 1];
                        unsigned a[4] = {step ? upper.z : upper.x, step ? lower.z : lower.x,
                                         step ? upper.w : upper.y, step ? lower.w : lower.y};
                        mmaBf16(sum[m][half], a, b);
                    }
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                partial[(warp * ROWS + m * 16 + i / 2 * 8 + group) * RANKS + half * 8 + quarter * 2 + i % 2]
                        = sum[m][half][i];
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * RANKS; i += 256) {
        int row = i / RANKS, r = rank0 + i % RANKS;
        if (row >= tile.rows || r >= rank) continue;
        float total = partial[i];
#pragma unroll
        for (int w = 1; w < WARPS; w++) total += partial[w * ROWS * RANKS + i];
        store(low, tile.row + row, r, slot.scale * total);
    }
}

// ---- adapter_gradients_mma ----

constexpr int FEATURES = 64;   // features of a tile
constexpr int TOKENS = 16;     // rows that a warp adds at a time
constexpr int STAGES = 3;      // slices of rows on their way
constexpr int CHUNK = 8;       // features of a copy of 16 bytes
constexpr int CHUNKS = FEATURES / CHUNK;
constexpr int SLICE = TOKENS * FEATURES;

// Where the features `chunk` of a row lie in a slice: shifted by the row, so that the eight rows that a matrix
// is loaded from are in different banks.
__device__ __forceinline__ unsigned short* place(unsigned short* slice, int token, int chunk) {
    return slice + token * FEATURES + (chunk ^ token % CHUNKS) * CHUNK;
}

// Starts to copy the features of TOKENS rows from row `token`; zeros outside the slot and the matrix.
__device__ __forceinline__ void copySlice(unsigned short* slice, const Matrix& wide, int token, int end,
        int feature0, int lane) {
#pragma unroll
    for (int i = 0; i < TOKENS * CHUNKS / 32; i++) {
        int t = (i * 32 + lane) / CHUNKS, chunk = (i * 32 + lane) % CHUNKS;
        bool inside = token + t < end && feature0 + chunk * CHUNK < wide.columns;
        const unsigned short* at = inside ? halvesAt(wide, token + t, feature0 + chunk * CHUNK)
                : (const unsigned short*) wide.data;
        cpAsync16(place(slice, t, chunk), at, inside ? 16 : 0);
    }
}

// a ← the transposed thin factor of TOKENS rows, in three parts: [16 ranks, 16 rows].
__device__ __forceinline__ void thinTerms(unsigned (&a)[PARTS][4], const Matrix& thin, int token, int end,
        int rank0, int rank, int group, int quarter) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int r = rank0 + group + i % 2 * 8, t = token + quarter * 2 + i / 2 * 8;
        float first = r < rank && t < end ? load(thin, t, r) : 0;
        float second = r < rank && t + 1 < end ? load(thin, t + 1, r) : 0;
        unsigned parts[PARTS];
        splitPair(parts, first, second);
#pragma unroll
        for (int part = 0; part < PARTS; part++) a[part][i] = parts[part];
    }
}

// da += xᵀ·dlow and db += lowᵀ·dy of every slot, where x and dy are BF16 of aligned rows and a multiple of eight
// columns; each warp adds every eighth slice of the slot's rows. Grid: tiles of 64 features, slots, 2 (da, db)
// times tiles of ranks; 256 threads.
extern "C" __global__ void __launch_bounds__(256) adapter_gradients_mma(Matrix x, Matrix dlow, Matrix dy, Matrix low,
        const SlotSite* slots, int n, int from) {
    __shared__ __align__(128) char shared[WARPS * STAGES * SLICE * 2];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quarter = lane % 4;
    bool second = blockIdx.z % 2;
    Matrix wide = second ? dy : x;
    Matrix thin = second ? low : dlow;
    const SlotSite& slot = slots[blockIdx.y];
    int feature0 = blockIdx.x * FEATURES, rank0 = blockIdx.z / 2 * RANKS;
    int first = max(slot.row, from) - from, end = min(slot.row + slot.count - from, wide.rows);
    if (end <= first || rank0 >= slot.rank || feature0 >= wide.columns) return;
    unsigned short* slices = (unsigned short*) shared + warp * STAGES * SLICE;
    int token0 = first + warp * TOKENS, stride = WARPS * TOKENS;
    float sum[CHUNKS][4] = {};
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (token0 + i * stride < end)
            copySlice(slices + i * SLICE, wide, token0 + i * stride, end, feature0, lane);
        cpAsyncCommit();
    }
    int stage = 0;
    for (int token = token0; token < end; token += stride) {
        unsigned a[PARTS][4];
        thinTerms(a, thin, token, end, rank0, slot.rank, group, quarter);
        cpAsyncWait<STAGES - 2>();
        __syncwarp();
        unsigned short* slice = slices + stage * SLICE;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk += 2) {
            unsigned b[4];
            ldmatrix4Transposed(b, place(slice, lane % 16, chunk + lane / 16));
#pragma unroll
            for (int part = PARTS - 1; part >= 0; part--) {
                unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
                mmaBf16(sum[chunk], a[part], left);
                mmaBf16(sum[chunk + 1], a[part], right);
            }
        }
        __syncwarp();
        int next = token + (STAGES - 1) * stride;
        if (next < end) copySlice(slices + (stage + STAGES - 1) % STAGES * SLICE, wide, next, end, feature0, lane);
        cpAsyncCommit();
        stage = (stage + 1) % STAGES;
    }
    cpAsyncWait<0>();
    __syncthreads();
    // by rank, then feature, or the other way round, as the gradient lies in memory
    float* partial = (float*) shared;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = group + i / 2 * 8, f = chunk * CHUNK + quarter * 2 + i % 2;
            partial[warp * FEATURES * RANKS + (second ? r * FEATURES + f : f * RANKS + r)] = sum[chunk][i];
        }
    __syncthreads();
    Matrix to = second ? slot.db : slot.da;
    for (int i = threadIdx.x; i < FEATURES * RANKS; i += 256) {
        int r = rank0 + (second ? i / FEATURES : i % RANKS);
        int feature = feature0 + (second ? i % FEATURES : i / RANKS);
        if (r >= slot.rank || feature >= wide.columns) continue;
        int row = second ? r : feature, column = second ? feature : r;
        float total = partial[i];
#pragma unroll
        for (int w = 1; w < WARPS; w++) total += partial[w * FEATURES * RANKS + i];
        store(to, row, column, load(to, row, column) + total);
    }
}
