// Products of few BF16 rows with frozen weights, as decoding needs them: bound by the reading of the weights.
// A sum is one chain of tensor-core products of 16 terms in ascending order, which is how the library's large
// products add if they split no sum; FewRows.java has the card compare the bits of both before this is used.
#include "common.cuh"
#include "tiles.cuh"

constexpr int SLICE = 128;           // terms of a stage
constexpr int PIECES = SLICE / 8;    // copies of 16 bytes of a row of a stage
constexpr int FEATURES = 16;         // of a warp
constexpr int PARTS = 3;             // weights of one launch
constexpr int TERMS = 3;             // bf16 numbers whose sum is an fp32 number

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

// Piece c of a row of a stage: eight rows of ldmatrix are in different banks.
__device__ __forceinline__ char* pieceAt(char* rows, int row, int c) {
    return rows + row * (SLICE * 2) + ((c ^ (row & 7)) << 4);
}

// Starts to copy terms k0.. of `count` rows from row `first`; zeros beyond the matrix.
__device__ __forceinline__ void copyStage(char* to, const Matrix& from, int first, int count, int k0) {
    for (int i = threadIdx.x; i < count * PIECES; i += blockDim.x) {
        int row = i / PIECES, c = i % PIECES, k = k0 + c * 8;
        bool inside = first + row < from.rows && k < from.columns;
        const char* at = inside ? (const char*) halvesAt(from, first + row, k) : from.data;
        cpAsync16(pieceAt(to, row, c), at, inside ? 16 : 0);
    }
}

// Four fp32 or bf16 numbers as the sums of TERMS bf16 numbers, two by two.
__device__ __forceinline__ void split(unsigned (&b)[TERMS][2], float (&f)[4]) {
#pragma unroll
    for (int t = 0; t < TERMS; t++) {
        b[t][0] = packBf16(f[0], f[1]);
        b[t][1] = packBf16(f[2], f[3]);
#pragma unroll
        for (int j = 0; j < 4; j++) f[j] -= rounded(f[j]);
    }
}

// sum ← low·b of the slots, for this warp's features from `feature0` and rows row0..row0 + 8: the products of
// finish_product_mma, in their order.
__device__ void corrections(float (&sum)[4], const Part& part, int feature0, int row0) {
    int lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
    int terms = part.low.dtype == DT_BF16 ? 1 : TERMS;
    for (int i = 0; i < part.entries; i++) {
        const SlotSite& slot = part.slots[i];
        int first = slot.row - part.from, end = first + slot.count, rank = slot.rank;
        if (rank == 0 || end <= row0 || first >= row0 + 8) continue;
        Matrix factor = slot.b;
        int row = row0 + group;
        bool mine = row >= first && row < end && row < part.y.rows;
        float own[4] = {};
        for (int r0 = 0; r0 < rank; r0 += 16) {
            unsigned a[TERMS][4], b[TERMS][2];
            float f[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int r = r0 + quad * 2 + j % 2 + j / 2 * 8;
                f[j] = mine && r < rank ? load(part.low, row, r) : 0;
            }
            split(b, f);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int feature = feature0 + h * 8 + group;
                bool inside = feature < part.y.columns;
                long long at = inside ? feature : 0;
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    int r = r0 + quad * 2 + j % 2 + j / 2 * 8;
                    long long place = (r < rank ? r : 0) * factor.stride + at;
                    f[j] = factor.dtype == DT_F32 ? ((const float*) factor.data)[place]
                            : fromBf16(((const unsigned short*) factor.data)[place]);
                    if (!inside || r >= rank) f[j] = 0;
                }
                unsigned parts[TERMS][2];
                split(parts, f);
#pragma unroll
                for (int t = 0; t < TERMS; t++) {
                    a[t][h] = parts[t][0];
                    a[t][h + 2] = parts[t][1];
                }
            }
#pragma unroll
            for (int s = 0; s < TERMS; s++)
#pragma unroll
                for (int t = 0; s + t < TERMS; t++)
                    if (s < terms) mmaBf16(own, a[t], b[s]);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int at = row0 + quad * 2 + j % 2;
            if (at >= first && at < end) sum[j] = own[j];
        }
    }
}

// y ← ((product + onto) + bias) + correction for this warp's features and rows row0..row0 + 8.
__device__ __forceinline__ void finish(const Part& part, const float (&product)[4], const float (&more)[4],
        int feature0, int row0) {
    int lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int row = row0 + quad * 2 + j % 2, feature = feature0 + group + j / 2 * 8;
        if (row >= part.y.rows || feature >= part.y.columns) continue;
        float v = product[j];
        if (part.onto.data) v += load(part.onto, row, feature);
        if (part.bias.data) v += load(part.bias, 0, feature);
        if (part.low.data) v += more[j];
        store(part.y, row, feature, v);
    }
}

// TILES · 8 rows of x; STAGES stages of SLICE terms are in shared memory, on their way or in use.
template<int TILES, int STAGES> __device__ __forceinline__ void multiply(const Matrix& x, const Parts& parts,
        char* shared) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int features = blockDim.x / 32 * FEATURES;
    int tile = blockIdx.x, which = 0;
    for (; which < PARTS - 1; which++) {
        int tiles = (parts.part[which].y.columns + features - 1) / features;
        if (tile < tiles) break;
        tile -= tiles;
    }
    const Part& part = parts.part[which];
    int block0 = tile * features, feature0 = block0 + warp * FEATURES;
    int stageBytes = (features + TILES * 8) * SLICE * 2, rowsAt = features * SLICE * 2;
    int slices = (x.columns + SLICE - 1) / SLICE;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < slices) {
            copyStage(shared + s * stageBytes, part.w, block0, features, s * SLICE);
            copyStage(shared + s * stageBytes + rowsAt, x, 0, TILES * 8, s * SLICE);
        }
        cpAsyncCommit();
    }
    float more[TILES][4] = {};
    if (part.low.data)
#pragma unroll
        for (int n = 0; n < TILES; n++)
            if (n * 8 < part.y.rows) corrections(more[n], part, feature0, n * 8);
    float sum[TILES][4] = {};
    int stage = 0;
    for (int i = 0; i < slices; i++) {
        cpAsyncWait<STAGES - 2>();
        __syncthreads();
        int next = i + STAGES - 1;
        if (next < slices) {
            char* to = shared + (stage == 0 ? STAGES - 1 : stage - 1) * stageBytes;
            copyStage(to, part.w, block0, features, next * SLICE);
            copyStage(to + rowsAt, x, 0, TILES * 8, next * SLICE);
        }
        cpAsyncCommit();
        char* ws = shared + stage * stageBytes;
        char* xs = ws + rowsAt;
#pragma unroll
        for (int k = 0; k < SLICE / 16; k++) {
            unsigned a[4];
            ldmatrix4(a, pieceAt(ws, warp * FEATURES + lane % 16, 2 * k + lane / 16));
            if (TILES == 1) {
                unsigned b[2];
                ldmatrix2(b, pieceAt(xs, lane % 8, 2 * k + lane / 8 % 2));
                mmaBf16(sum[0], a, b);
            } else {
#pragma unroll
                for (int n = 0; n < TILES; n += 2) {
                    unsigned r[4];
                    ldmatrix4(r, pieceAt(xs, n * 8 + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
                    unsigned left[2] = {r[0], r[1]}, right[2] = {r[2], r[3]};
                    mmaBf16(sum[n], a, left);
                    mmaBf16(sum[(n + 1) % TILES], a, right);
                }
            }
        }
        stage = stage == STAGES - 1 ? 0 : stage + 1;
    }
    cpAsyncWait<0>();
#pragma unroll
    for (int n = 0; n < TILES; n++) finish(part, sum[n], more[n], feature0, n * 8);
}

// Grid: tiles of the features of all parts; 32 threads for each 16 features of a tile; shared memory:
// stages · (features of a tile + 8 · TILES) · 256 bytes. Parts that are not there have no columns.
extern "C" __global__ void __launch_bounds__(256, 2) few_rows_8(Matrix x, Parts parts) {
    DYNAMIC_SHARED(shared);
    multiply<1, 5>(x, parts, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) few_rows_16(Matrix x, Parts parts) {
    DYNAMIC_SHARED(shared);
    multiply<2, 5>(x, parts, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) few_rows_32(Matrix x, Parts parts) {
    DYNAMIC_SHARED(shared);
    multiply<4, 4>(x, parts, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) few_rows_64(Matrix x, Parts parts) {
    DYNAMIC_SHARED(shared);
    multiply<8, 4>(x, parts, shared);
}

// ---- low-rank products of few rows ----

constexpr int SHARES = 8;        // parts of the terms, as many as warps of low_rank_mma
constexpr int TERMS_AT_ONCE = 32;
constexpr int RANKS = 16;        // of a tile
constexpr int ROWS = 16;         // of a tile
constexpr int FACTOR_BYTES = TERMS_AT_ONCE * RANKS * 4;
constexpr int SLICE_BYTES = FACTOR_BYTES + ROWS * TERMS_AT_ONCE * 2;

// The last of the SHARES blocks of a tile to come here, known to all its threads; what all have written
// before is seen by it. The counter is 0 again afterwards.
__device__ __forceinline__ bool last(unsigned* counter) {
    __shared__ int came;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        came = (int) atomicAdd(counter, 1u);
        if (came == SHARES - 1) *counter = 0;
    }
    __syncthreads();
    __threadfence();
    return came == SHARES - 1;
}

// low_rank_mma of fp32 factors with rows of whole 16-byte pieces: what one of its warps computes is a block's
// work here, with all of its operands on their way at once. The last block of a tile adds what the others
// found, in the order of the warps. Grid: tiles of slots, tiles of ranks, sites · SHARES; 64 threads; shared
// memory: SLICE_BYTES for each 256 terms.
extern "C" __global__ void __launch_bounds__(64) low_rank_rows(Matrix x, Matrix low0, Matrix low1,
        Matrix low2, const SlotSite* slots0, const SlotSite* slots1, const SlotSite* slots2, int n, int from,
        float* partial, unsigned* counters) {
    DYNAMIC_SHARED(shared);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quad = lane % 4;
    int site = blockIdx.z / SHARES, share = blockIdx.z % SHARES;
    const SlotSite* slots = site == 0 ? slots0 : site == 1 ? slots1 : slots2;
    Matrix low = site == 0 ? low0 : site == 1 ? low1 : low2;
    SlotTile tile = slotTile(slots, n, from, x.rows, ROWS, false, blockIdx.x);
    int rank0 = blockIdx.y * RANKS;
    if (tile.rows == 0 || rank0 >= slots[tile.slot].rank) return;
    const SlotSite& slot = slots[tile.slot];
    Matrix factor = slot.a;
    int rank = slot.rank, slices = 0;
    for (int k0 = share * TERMS_AT_ONCE; k0 < x.columns; k0 += SHARES * TERMS_AT_ONCE, slices++) {
        char* to = shared + slices * SLICE_BYTES;
        for (int i = threadIdx.x; i < FACTOR_BYTES / 16; i += 64) {
            int k = i / 4, r = rank0 + i % 4 * 4;
            bool inside = r < rank;
            cpAsync16(to + i * 16, floatsAt(factor, k0 + k, inside ? r : 0), inside ? 16 : 0);
        }
        int row = threadIdx.x / 4;
        bool inside = row < tile.rows;
        cpAsync16(to + FACTOR_BYTES + threadIdx.x * 16,
            halvesAt(x, tile.row + (inside ? row : 0), k0 + threadIdx.x % 4 * 8), inside ? 16 : 0);
    }
    cpAsyncCommit();
    cpAsyncWait<0>();
    __syncthreads();
    float sum[4] = {};
    for (int i = 0; i < slices; i++) {
        const float* fs = (const float*) (shared + i * SLICE_BYTES);
        const Quad* xs = (const Quad*) (shared + i * SLICE_BYTES + FACTOR_BYTES);
        Quad upper = xs[group * 4 + quad], lower = xs[(group + 8) * 4 + quad];
#pragma unroll
        for (int s = 0; s < 2; s++) {
            float f[4];
#pragma unroll
            for (int j = 0; j < 4; j++) f[j] = fs[(quad * 8 + s * 4 + j) * RANKS + warp * 8 + group];
            unsigned b[TERMS][2];
            split(b, f);
            unsigned a[4] = {s ? upper.z : upper.x, s ? lower.z : lower.x, s ? upper.w : upper.y,
                s ? lower.w : lower.y};
#pragma unroll
            for (int t = 0; t < TERMS; t++) mmaBf16(sum, a, b[t]);
        }
    }
    int which = (site * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    float* own = partial + (long long) which * SHARES * ROWS * RANKS;
#pragma unroll
    for (int i = 0; i < 4; i++)
        own[share * ROWS * RANKS + (group + i / 2 * 8) * RANKS + warp * 8 + quad * 2 + i % 2] = sum[i];
    if (!last(counters + which)) return;
    for (int i = threadIdx.x; i < ROWS * RANKS; i += 64) {
        int row = i / RANKS, r = rank0 + i % RANKS;
        if (row >= tile.rows || r >= rank) continue;
        float total = __ldcg(own + i);
        for (int w = 1; w < SHARES; w++) total += __ldcg(own + w * ROWS * RANKS + i);
        store(low, tile.row + row, r, slot.scale * total);
    }
}

// to ← bf16 numbers of many sizes, by their places. One thread for each element, 256 threads.
extern "C" __global__ void __launch_bounds__(256) scatter_bits(Matrix to, int seed) {
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
    long long n = (long long) a.rows * a.columns;
    u64 mine = 0;
    for (long long i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
        int row = (int) (i / a.columns), column = (int) (i % a.columns);
        if (__float_as_uint(*floatsAt(a, row, column)) != __float_as_uint(*floatsAt(b, row, column))) mine++;
    }
    if (mine > 0) atomicAdd(count, mine);
}
