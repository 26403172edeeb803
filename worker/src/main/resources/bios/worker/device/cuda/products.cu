// Products with frozen weights in fp32, and the low-rank corrections of all adapters of a pass at once.
// Every sum runs over its terms in an order that depends on their number alone.
#include "common.cuh"
#include "tiles.cuh"
#include "ptx.cuh"

constexpr int TILE = 64;     // rows and columns of a tile of a product
constexpr int RANKS = 16;    // columns of a tile of low-rank factors
constexpr int SLICE = 16;    // terms that a warp adds at a time
constexpr int WARPS = 8;

// y ← x·wᵀ, or x·w if `backward`, + onto. Grid: tiles of columns, tiles of rows; 256 threads.
extern "C" __global__ void __launch_bounds__(256) product(Matrix y, Matrix x, Matrix w, Matrix onto,
        int backward) {
    begin();
    __shared__ float xs[SLICE][TILE + 4];
    __shared__ float ws[SLICE][TILE + 4];
    int tid = threadIdx.x;
    int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
    float sum[4][4] = {};
    for (int k0 = 0; k0 < x.columns; k0 += SLICE) {
        float v[4];
        int r = tid / 4, k = tid % 4 * 4;
        load4(v, x, row0 + r, k0 + k);
#pragma unroll
        for (int i = 0; i < 4; i++) xs[k + i][r] = v[i];
        if (backward) {
            load4(v, w, k0 + tid / 16, column0 + tid % 16 * 4);
#pragma unroll
            for (int i = 0; i < 4; i++) ws[tid / 16][tid % 16 * 4 + i] = v[i];
        } else {
            load4(v, w, column0 + r, k0 + k);
#pragma unroll
            for (int i = 0; i < 4; i++) ws[k + i][r] = v[i];
        }
        __syncthreads();
#pragma unroll
        for (int l = 0; l < SLICE; l++) {
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] = __fmaf_rn(xs[l][tid / 16 * 4 + i], ws[l][tid % 16 * 4 + j], sum[i][j]);
        }
        __syncthreads();
    }
    int column = column0 + tid % 16 * 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = row0 + tid / 16 * 4 + i;
        if (row >= y.rows || column >= y.columns) continue;
        float v[4] = {};
        if (onto.data) load4(v, onto, row, column);
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] = sum[i][j] + v[j];
        store4(y, row, column, v);
    }
}

// high ← x rounded to bf16, low (if there is one) ← the remainder rounded. Grid: rows, tiles of 1024 columns.
extern "C" __global__ void __launch_bounds__(256) split_rows(Matrix high, Matrix low, Matrix x) {
    begin();
    int row = blockIdx.x, column = (blockIdx.y * 256 + threadIdx.x) * 4;
    if (column >= x.columns) return;
    float v[4], rest[4];
    load4(v, x, row, column);
#pragma unroll
    for (int i = 0; i < 4; i++) rest[i] = v[i] - rounded(v[i]);
    store4(high, row, column, v);
    if (low.data) store4(low, row, column, rest);
}

// to ← the numbers that a bf16 weight multiplies in place of x: rounded, or split in two. Grid: rows, tiles
// of 1024 columns.
extern "C" __global__ void __launch_bounds__(256) operand_rows(Matrix to, Matrix x, int split) {
    begin();
    int row = blockIdx.x, column = (blockIdx.y * 256 + threadIdx.x) * 4;
    if (column >= x.columns) return;
    float v[4];
    load4(v, x, row, column);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float high = rounded(v[i]);
        v[i] = split ? high + rounded(v[i] - high) : high;
    }
    store4(to, row, column, v);
}

// This thread's 4x4 elements of a tile of the product, zeros without one.
__device__ __forceinline__ void loadTile(float (&v)[4][4], const Matrix& product, const SlotTile& tile,
        int column) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int r = threadIdx.x / 16 * 4 + i;
        bool real = product.data && column < product.columns && r < tile.rows;
        if (real) load4(v[i], product, tile.row + r, column);
        else v[i][0] = v[i][1] = v[i][2] = v[i][3] = 0;
    }
}

// y ← product + onto + bias + sum, each of them if it is there, on this thread's 4x4 elements of a tile.
__device__ __forceinline__ void finishTile(const Matrix& y, float (&product)[4][4], const Matrix& onto,
        const Matrix& bias, const SlotTile& tile, int column, const float (&sum)[4][4]) {
    if (column >= y.columns) return;
    float shift[4] = {};
    if (bias.data) load4(shift, bias, 0, column);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int r = threadIdx.x / 16 * 4 + i;
        if (r >= tile.rows) continue;
        int row = tile.row + r;
        float other[4] = {};
        if (onto.data) load4(other, onto, row, column);
#pragma unroll
        for (int j = 0; j < 4; j++) product[i][j] = ((product[i][j] + other[j]) + shift[j]) + sum[i][j];
        store4(y, row, column, product[i]);
    }
}

// y ← product + onto + bias + low·b, or low·aᵀ if `backward`, each of them if it is there. y may be product
// or onto. Grid: tiles of columns, tiles of slots and gaps; 256 threads.
extern "C" __global__ void __launch_bounds__(256) finish_product(Matrix y, Matrix product, Matrix onto,
        Matrix bias, Matrix low, const SlotSite* slots, int n, int from, int backward) {
    begin();
    __shared__ float ls[SLICE][TILE + 4];
    __shared__ float fs[SLICE][TILE + 4];
    int tid = threadIdx.x;
    int column0 = blockIdx.x * TILE;
    SlotTile tile = slotTile(slots, n, from, y.rows, TILE, true, blockIdx.y);
    int rank = tile.slot < 0 ? 0 : slots[tile.slot].rank;
    float sum[4][4] = {};
    for (int r0 = 0; r0 < rank; r0 += SLICE) {
        const SlotSite& slot = slots[tile.slot];
        for (int i = tid; i < TILE * SLICE; i += 256) {
            int row = i / SLICE, r = i % SLICE;
            ls[r][row] = row < tile.rows && r0 + r < rank ? load(low, tile.row + row, r0 + r) : 0;
            if (backward) {
                int column = column0 + row;
                fs[r][row] = column < y.columns && r0 + r < rank ? load(slot.a, column, r0 + r) : 0;
            } else {
                int column = column0 + i % TILE;
                int k = i / TILE;
                fs[k][i % TILE] = column < y.columns && r0 + k < rank ? load(slot.b, r0 + k, column) : 0;
            }
        }
        __syncthreads();
#pragma unroll
        for (int l = 0; l < SLICE; l++) {
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] = __fmaf_rn(ls[l][tid / 16 * 4 + i], fs[l][tid % 16 * 4 + j], sum[i][j]);
        }
        __syncthreads();
    }
    float own[4][4];
    loadTile(own, product, tile, column0 + tid % 16 * 4);
    finishTile(y, own, onto, bias, tile, column0 + tid % 16 * 4, sum);
}

// The warps' partial sums [WARPS][rows·RANKS], added in the order of the warps.
__device__ __forceinline__ float total(const float* partial, int size, int at) {
    float sum = partial[at];
#pragma unroll
    for (int w = 1; w < WARPS; w++) sum += partial[w * size + at];
    return sum;
}

// low ← scale·x·a of every slot, or scale·x·bᵀ if `backward`, at up to three sites. Each warp adds every
// eighth slice of the terms. Grid: tiles of slots, tiles of ranks, sites; 256 threads.
extern "C" __global__ void __launch_bounds__(256) low_rank(Matrix x, Matrix low0, Matrix low1, Matrix low2,
        const SlotSite* slots0, const SlotSite* slots1, const SlotSite* slots2, int n, int from,
        int backward) {
    begin();
    __shared__ __align__(16) float shared[WARPS * (TILE * (SLICE + 1) + SLICE * RANKS)];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const SlotSite* slots = blockIdx.z == 0 ? slots0 : blockIdx.z == 1 ? slots1 : slots2;
    Matrix low = blockIdx.z == 0 ? low0 : blockIdx.z == 1 ? low1 : low2;
    int rank0 = blockIdx.y * RANKS;
    SlotTile tile = slotTile(slots, n, from, x.rows, TILE, false, blockIdx.x);
    if (!hasRank(tile, slots, rank0)) return;
    const SlotSite& slot = slots[tile.slot];
    Matrix factor = backward ? slot.b : slot.a;
    int rank = slot.rank;
    float* fs = shared + warp * SLICE * RANKS;
    float* xs = shared + WARPS * SLICE * RANKS + warp * TILE * (SLICE + 1);
    float sum[2][RANKS] = {};
    for (int k0 = warp * SLICE; k0 < x.columns; k0 += WARPS * SLICE) {
#pragma unroll
        for (int i = 0; i < TILE / 8; i++) {
            int row = i * 8 + lane / 4, k = lane % 4 * 4;
            float v[4] = {};
            if (row < tile.rows) load4(v, x, tile.row + row, k0 + k);
#pragma unroll
            for (int j = 0; j < 4; j++) xs[row * (SLICE + 1) + k + j] = v[j];
        }
#pragma unroll
        for (int i = lane; i < SLICE * RANKS; i += 32) {
            int k = backward ? i % SLICE : i / RANKS;
            int r = backward ? i / SLICE : i % RANKS;
            bool inside = k0 + k < x.columns && rank0 + r < rank;
            fs[k * RANKS + r] = !inside ? 0 : backward ? load(factor, rank0 + r, k0 + k)
                    : load(factor, k0 + k, rank0 + r);
        }
        __syncwarp();
#pragma unroll
        for (int k = 0; k < SLICE; k++) {
            float x0 = xs[lane * (SLICE + 1) + k], x1 = xs[(lane + 32) * (SLICE + 1) + k];
#pragma unroll
            for (int r = 0; r < RANKS; r++) {
                float f = fs[k * RANKS + r];
                sum[0][r] = __fmaf_rn(x0, f, sum[0][r]);
                sum[1][r] = __fmaf_rn(x1, f, sum[1][r]);
            }
        }
        __syncwarp();
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int r = 0; r < RANKS; r++)
            shared[warp * TILE * RANKS + (i * 32 + lane) * RANKS + r] = sum[i][r];
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * RANKS; i += 256) {
        int row = i / RANKS, r = rank0 + i % RANKS;
        if (row < tile.rows && r < rank)
            store(low, tile.row + row, r, slot.scale * total(shared, TILE * RANKS, i));
    }
}

// Where the sum of a feature and a rank lies among those of a tile: as in the gradient, so that neighbours
// are stored together.
template<int FEATURES> __device__ __forceinline__ int placeOf(int feature, int rank, int second) {
    return second ? rank * FEATURES + feature : feature * RANKS + rank;
}

// Adds sum i of a tile to the gradient.
template<int FEATURES> __device__ __forceinline__ void addGradient(const SlotSite& slot, int second,
        int feature0, int rank0, int features, int i, float sum) {
    Matrix to = second ? slot.db : slot.da;
    int r = rank0 + (second ? i / FEATURES : i % RANKS);
    int feature = feature0 + (second ? i % FEATURES : i / RANKS);
    if (r >= slot.rank || feature >= features) return;
    int row = second ? r : feature, column = second ? feature : r;
    store(to, row, column, load(to, row, column) + sum);
}

// da += wideᵀ·thin of every slot, wide = x and thin = dlow; or, `second`, db += thinᵀ·wide, wide = dy and
// thin = low. Each warp adds every eighth slice of the slot's rows. Grid: tiles of 64 features, slots, tiles
// of ranks; 256 threads.
extern "C" __global__ void __launch_bounds__(256) adapter_gradient(Matrix wide, Matrix thin, int second,
        const SlotSite* slots, int n, int from) {
    begin();
    __shared__ __align__(16) float shared[WARPS * (SLICE * TILE + SLICE * RANKS)];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const SlotSite& slot = slots[blockIdx.y];
    int feature0 = blockIdx.x * TILE, rank0 = blockIdx.z * RANKS;
    int first = firstRow(slot, from), end = endRow(slot, from, wide.rows);
    if (end <= first || rank0 >= slot.rank || feature0 >= wide.columns) return;
    float* ts = shared + warp * SLICE * RANKS;
    float* ws = shared + WARPS * SLICE * RANKS + warp * SLICE * TILE;
    float sum[2][RANKS] = {};
    for (int t0 = first + warp * SLICE; t0 < end; t0 += WARPS * SLICE) {
#pragma unroll
        for (int i = 0; i < SLICE / 2; i++) {
            int t = i * 2 + lane / 16, column = lane % 16 * 4;
            float v[4] = {};
            if (t0 + t < end) load4(v, wide, t0 + t, feature0 + column);
            *(float4*) (ws + t * TILE + column) = make_float4(v[0], v[1], v[2], v[3]);
        }
#pragma unroll
        for (int i = lane; i < SLICE * RANKS; i += 32) {
            int t = i / RANKS, r = rank0 + i % RANKS;
            ts[i] = t0 + t < end && r < slot.rank ? load(thin, t0 + t, r) : 0;
        }
        __syncwarp();
#pragma unroll
        for (int t = 0; t < SLICE; t++) {
            float x0 = ws[t * TILE + lane], x1 = ws[t * TILE + lane + 32];
#pragma unroll
            for (int r = 0; r < RANKS; r++) {
                float f = ts[t * RANKS + r];
                sum[0][r] = __fmaf_rn(x0, f, sum[0][r]);
                sum[1][r] = __fmaf_rn(x1, f, sum[1][r]);
            }
        }
        __syncwarp();
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int r = 0; r < RANKS; r++)
            shared[warp * TILE * RANKS + placeOf<TILE>(i * 32 + lane, r, second)] = sum[i][r];
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * RANKS; i += 256)
        addGradient<TILE>(slot, second, feature0, rank0, wide.columns, i, total(shared, TILE * RANKS, i));
}

// ---- on tensor cores: activations are BF16, fp32 operands are the sum of three bf16 numbers ----

constexpr int CORE_TILE = 32;      // rows of a tile
constexpr int CORE_SLICE = 32;     // terms that a warp adds at a time
constexpr int LOW_STAGES = 3;      // slices that a warp has in shared memory, on their way or in use
constexpr int ROWS_BYTES = CORE_TILE * CORE_SLICE * 2;
constexpr int LOW_STAGE = ROWS_BYTES + (CORE_SLICE * RANKS + 24) * 4;

// Where a term of a rank lies in a slice of a factor: [terms, ranks], or [ranks, terms] if it is read ACROSS.
// Lanes that read at once meet in no bank.
template<bool ACROSS> __device__ __forceinline__ int termOf(int k, int r) {
    return ACROSS ? r * CORE_SLICE + ((k / 4) ^ (r % 2)) * 4 + k % 4 : k * RANKS + k / 8 * 8 + r;
}

// What a lane copies of every slice: four pieces of the rows, and four of the factor, or sixteen elements if
// its rows are not whole pieces.
template<bool ACROSS> struct LowCopies {
    const unsigned short* rows[4];
    const float* pieces;
    long long step;
    int rank0;
    int ranks;

    __device__ __forceinline__ LowCopies(const Matrix& x, const SlotTile& tile, const Matrix& factor, int k0,
            int rank0, int rank) : rank0(rank0), ranks(rank - rank0) {
        int lane = threadIdx.x % 32;
        // after the last row, the last one: its sums are not used
#pragma unroll
        for (int i = 0; i < 4; i++)
            rows[i] = halvesAt(x, tile.row + min(i * 8 + lane / 4, tile.rows - 1), lane % 4 * 8);
        bool whole = factor.dtype == DT_F32 && factor.wide;
        step = (ACROSS ? 4 : 8) * factor.stride;
        pieces = !whole ? nullptr : ACROSS ? floatsAt(factor, rank0 + lane / 8, k0 + lane % 8 * 4)
                : floatsAt(factor, k0 + lane / 4, rank0 + lane % 4 * 4);
    }

    // Starts to copy the slice that begins at term k0: the warp's next one.
    __device__ __forceinline__ void copy(char* stage, const Matrix& factor, int k0) {
        int lane = threadIdx.x % 32;
        float* to = (float*) (stage + ROWS_BYTES);
#pragma unroll
        for (int i = 0; i < 4; i++) cpAsync16(stage + (i * 32 + lane) * 16, rows[i] + k0);
        if (pieces) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int r = ACROSS ? i * 4 + lane / 8 : lane % 4 * 4;
                int k = ACROSS ? lane % 8 * 4 : i * 8 + lane / 4;
                int valid = ACROSS ? (r < ranks ? 16 : 0) : max(0, min(16, (ranks - r) * 4));
                cpAsync16(to + termOf<ACROSS>(k, r), pieces + i * step, valid);
            }
            pieces += ACROSS ? WARPS * CORE_SLICE : WARPS * CORE_SLICE / 8 * step;
            return;
        }
#pragma unroll 1
        for (int i = 0; i < CORE_SLICE * RANKS / 32; i++) {
            int r = ACROSS ? i : lane % RANKS, k = ACROSS ? lane : i * 2 + lane / RANKS;
            to[termOf<ACROSS>(k, r)] = r >= ranks ? 0 : ACROSS ? load(factor, rank0 + r, k0 + k)
                    : load(factor, k0 + k, rank0 + r);
        }
    }
};

// The sums of a warp: every eighth slice of the terms of RANKS ranks and CORE_TILE rows, by eights. The
// factor is the left operand, so that the eight neighbours of a row that a lane has are right operands as
// they are: the terms of a product of 16 are not in the order of memory.
template<bool ACROSS> __device__ __forceinline__ void lowRankSums(float (&sum)[CORE_TILE / 8][4],
        char* stages, const Matrix& x, const SlotTile& tile, const Matrix& factor, int rank0, int rank) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quad = lane % 4;
    const int next = WARPS * CORE_SLICE;
    int k0 = warp * CORE_SLICE;
    LowCopies<ACROSS> copies(x, tile, factor, k0, rank0, rank);
#pragma unroll
    for (int i = 0; i < LOW_STAGES - 1; i++) {
        if (k0 + i * next < x.columns) copies.copy(stages + i * LOW_STAGE, factor, k0 + i * next);
        cpAsyncCommit();
    }
    char* stage = stages;
    char* last = stages + (LOW_STAGES - 1) * LOW_STAGE;
    for (; k0 < x.columns; k0 += next) {
        cpAsyncWait<LOW_STAGES - 2>();
        __syncwarp();
        int later = k0 + (LOW_STAGES - 1) * next;
        if (later < x.columns) copies.copy(stage == stages ? last : stage - LOW_STAGE, factor, later);
        cpAsyncCommit();
        const float* fs = (const float*) (stage + ROWS_BYTES);
        Quad rows[CORE_TILE / 8];
#pragma unroll
        for (int i = 0; i < CORE_TILE / 8; i++) rows[i] = ((const Quad*) stage)[i * 32 + lane];
        stage = stage == last ? stages : stage + LOW_STAGE;
#pragma unroll
        for (int s = 0; s < 2; s++) {
            float f[2][4];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                if (ACROSS) {
                    float4 v = *(const float4*) (fs + termOf<true>(quad * 8 + s * 4, h * 8 + group));
                    f[h][0] = v.x;
                    f[h][1] = v.y;
                    f[h][2] = v.z;
                    f[h][3] = v.w;
                } else {
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        f[h][j] = fs[termOf<false>(quad * 8 + s * 4 + j, h * 8 + group)];
                }
            }
            unsigned a[TERMS][4];
            splitLeft(a, f);
#pragma unroll
            for (int t = 0; t < TERMS; t++)
#pragma unroll
                for (int i = 0; i < CORE_TILE / 8; i++) {
                    unsigned b[2] = {s ? rows[i].z : rows[i].x, s ? rows[i].w : rows[i].y};
                    mmaBf16(sum[i], a[t], b);
                }
        }
    }
    cpAsyncWait<0>();
}

// low_rank of BF16 rows of a multiple of CORE_SLICE elements that begin at multiples of 16 bytes, by tiles of
// CORE_TILE rows. Shared memory: WARPS · LOW_STAGES · LOW_STAGE bytes.
extern "C" __global__ void __launch_bounds__(256, 2) low_rank_mma(Matrix x, Matrix low0, Matrix low1,
        Matrix low2, const SlotSite* slots0, const SlotSite* slots1, const SlotSite* slots2, int n, int from,
        int backward) {
    begin();
    DYNAMIC_SHARED(shared);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quad = lane % 4;
    const SlotSite* slots = blockIdx.z == 0 ? slots0 : blockIdx.z == 1 ? slots1 : slots2;
    Matrix low = blockIdx.z == 0 ? low0 : blockIdx.z == 1 ? low1 : low2;
    int rank0 = blockIdx.y * RANKS;
    SlotTile tile = slotTile(slots, n, from, x.rows, CORE_TILE, false, blockIdx.x);
    if (!hasRank(tile, slots, rank0)) return;
    const SlotSite& slot = slots[tile.slot];
    int rank = slot.rank;
    float sum[CORE_TILE / 8][4] = {};
    char* stages = shared + warp * LOW_STAGES * LOW_STAGE;
    if (backward) lowRankSums<true>(sum, stages, x, tile, slot.b, rank0, rank);
    else lowRankSums<false>(sum, stages, x, tile, slot.a, rank0, rank);
    __syncthreads();
    float* partial = (float*) shared + warp * CORE_TILE * RANKS;
#pragma unroll
    for (int c = 0; c < CORE_TILE / 8; c++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            partial[(c * 8 + quad * 2 + i % 2) * RANKS + group + i / 2 * 8] = sum[c][i];
    __syncthreads();
    for (int i = threadIdx.x; i < CORE_TILE * RANKS; i += 256) {
        int row = i / RANKS, r = rank0 + i % RANKS;
        if (row < tile.rows && r < rank)
            store(low, tile.row + row, r, slot.scale * total((const float*) shared, CORE_TILE * RANKS, i));
    }
}

// ---- gradients of adapters on tensor cores ----

constexpr int PART_ROWS = 1024;    // rows of a slot whose sums are a block's
constexpr int CORE_ROWS = 16;      // rows of a slice, which a warp adds at a time
constexpr int STAGES = 3;          // slices that a warp has in shared memory, on their way or in use
constexpr int PIECES = TILE / 8;   // copies of 16 bytes of a row of a slice
constexpr int WIDE_BYTES = CORE_ROWS * TILE * 2;
constexpr int STAGE = WIDE_BYTES + (CORE_ROWS * RANKS + (CORE_ROWS / 2 - 1) * 8) * 4;

// Where a piece of a row lies in a slice of the wide operand: the eight rows of a matrix that is loaded from
// it lie in different banks.
__device__ __forceinline__ char* pieceOf(char* stage, int row, int piece) {
    return stage + row * (TILE * 2) + ((piece ^ (row % 8)) << 4);
}

// Where a row's rank lies in a slice of an fp32 thin operand: lanes that read at once meet in no bank.
__device__ __forceinline__ int rankOf(int row, int r) {
    return row * RANKS + row / 2 * 8 + r;
}

// What a lane copies of every slice: four pieces of the wide operand; of the thin one a piece of bf16 numbers
// if HALVES, else two of fp32 or, if its rows are not whole pieces, eight elements. Zeros after the last row,
// column and rank.
template<bool HALVES> struct GradientCopies {
    const unsigned short* wide;
    const char* thin;
    long long wideStep;
    long long thinStep;
    int wideLeft;
    int thinLeft;
    int valid;

    // The warp's first slice begins at row t0 of rows t0..end.
    __device__ __forceinline__ GradientCopies(const Matrix& wideRows, const Matrix& thinRows, int t0, int end,
            int feature0, int rank0, int rank) {
        int lane = threadIdx.x % 32, row = HALVES ? lane / 2 : lane / 4;
        int r = rank0 + (HALVES ? lane % 2 * 8 : lane % 4 * 4), bytes = HALVES ? 2 : 4;
        bool inside = feature0 + lane % PIECES * 8 < wideRows.columns;
        wide = halvesAt(wideRows, t0 + lane / PIECES, feature0 + lane % PIECES * 8);
        wideStep = 4 * wideRows.stride;
        wideLeft = inside ? end - t0 - lane / PIECES : 0;
        thin = thinRows.data + ((t0 + row) * thinRows.stride + r) * bytes;
        thinStep = 8 * thinRows.stride * bytes;
        thinLeft = end - t0 - row;
        valid = max(0, min(16, (rank - r) * bytes));
    }

    // Starts to copy the warp's next slice, which begins at row t0.
    __device__ __forceinline__ void copy(char* stage, const Matrix& thinRows, bool pieces, int t0, int end,
            int rank0, int rank) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 4; i++)
            cpAsync16(pieceOf(stage, i * 4 + lane / PIECES, lane % PIECES), wide + i * wideStep,
                i * 4 < wideLeft ? 16 : 0);
        wide += WARPS * CORE_ROWS / 4 * wideStep;
        wideLeft -= WARPS * CORE_ROWS;
        float* to = (float*) (stage + WIDE_BYTES);
        if (HALVES) cpAsync16((char*) to + lane * 16, thin, thinLeft > 0 ? valid : 0);
        else if (pieces) {
#pragma unroll
            for (int i = 0; i < 2; i++)
                cpAsync16(to + rankOf(i * 8 + lane / 4, lane % 4 * 4), thin + i * thinStep,
                    i * 8 < thinLeft ? valid : 0);
        } else {
#pragma unroll 1
            for (int i = lane; i < CORE_ROWS * RANKS; i += 32) {
                int t = i / RANKS, r = i % RANKS;
                to[rankOf(t, r)] = t0 + t < end && rank0 + r < rank ? load(thinRows, t0 + t, rank0 + r) : 0;
            }
        }
        thin += WARPS * CORE_ROWS / 8 * thinStep;
        thinLeft -= WARPS * CORE_ROWS;
    }
};

// The sums of a warp: every eighth slice of the rows first..end of TILE features and RANKS ranks.
template<bool HALVES> __device__ __forceinline__ void gradientSums(float (&sum)[PIECES][4], char* stages,
        const Matrix& wide, const Matrix& thin, int first, int end, int feature0, int rank0, int rank) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quad = lane % 4;
    const int next = WARPS * CORE_ROWS;
    bool pieces = thin.wide && thin.dtype == DT_F32;
    int t0 = first + warp * CORE_ROWS;
    GradientCopies<HALVES> copies(wide, thin, t0, end, feature0, rank0, rank);
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        int at = t0 + i * next;
        if (at < end) copies.copy(stages + i * STAGE, thin, pieces, at, end, rank0, rank);
        cpAsyncCommit();
    }
    char* stage = stages;
    char* last = stages + (STAGES - 1) * STAGE;
    for (; t0 < end; t0 += next) {
        cpAsyncWait<STAGES - 2>();
        __syncwarp();
        int later = t0 + (STAGES - 1) * next;
        if (later < end)
            copies.copy(stage == stages ? last : stage - STAGE, thin, pieces, later, end, rank0, rank);
        cpAsyncCommit();
        const float* ts = (const float*) (stage + WIDE_BYTES);
        unsigned a[TERMS][4];
        if (HALVES) ldmatrix4Transposed(a[0], (const char*) ts + (lane % 8 + lane / 16 * 8) * 32
                + lane / 8 % 2 * 16);
        else {
            float f[2][4];
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int j = 0; j < 4; j++) f[h][j] = ts[rankOf(quad * 2 + j % 2 + j / 2 * 8, h * 8 + group)];
            splitLeft(a, f);
        }
#pragma unroll
        for (int piece = 0; piece < PIECES; piece += 2) {
            unsigned b[4];
            ldmatrix4Transposed(b, pieceOf(stage, lane % 16, piece + lane / 16));
            unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
            for (int t = 0; t < (HALVES ? 1 : TERMS); t++) {
                mmaBf16(sum[piece], a[t], left);
                mmaBf16(sum[piece + 1], a[t], right);
            }
        }
        stage = stage == last ? stages : stage + STAGE;
    }
    cpAsyncWait<0>();
}

// adapter_gradient with a BF16 `wide` whose rows are whole 16-byte pieces: [16 ranks, rows]·[rows, TILE
// features]. A block adds PART_ROWS rows of a slot; if it has more, the last of its blocks adds what all have
// found, in their order. Grid: tiles of features, parts of slots, tiles of ranks; 256 threads; shared memory:
// WARPS · STAGES · STAGE bytes. partial: TILE · RANKS floats for each block; counters: one for each.
extern "C" __global__ void __launch_bounds__(256, 2) adapter_gradient_mma(Matrix wide, Matrix thin,
        int second, const SlotSite* slots, int n, int from, float* partial, unsigned* counters) {
    begin();
    DYNAMIC_SHARED(shared);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quad = lane % 4;
    int feature0 = blockIdx.x * TILE, rank0 = blockIdx.z * RANKS;
    SlotTile tile = slotTile(slots, n, from, wide.rows, PART_ROWS, false, blockIdx.y);
    if (!hasRank(tile, slots, rank0)) return;
    const SlotSite& slot = slots[tile.slot];
    char* stages = shared + warp * STAGES * STAGE;
    float sum[PIECES][4] = {};
    int end = tile.row + tile.rows;
    if (thin.dtype == DT_BF16 && thin.wide)
        gradientSums<true>(sum, stages, wide, thin, tile.row, end, feature0, rank0, slot.rank);
    else gradientSums<false>(sum, stages, wide, thin, tile.row, end, feature0, rank0, slot.rank);
    __syncthreads();
    float* sums = (float*) shared;
#pragma unroll
    for (int piece = 0; piece < PIECES; piece++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[warp * TILE * RANKS + placeOf<TILE>(piece * 8 + quad * 2 + i % 2, group + i / 2 * 8,
                    second)] = sum[piece][i];
    __syncthreads();
    int first = firstRow(slot, from), rows = endRow(slot, from, wide.rows) - first;
    int parts = (rows + PART_ROWS - 1) / PART_ROWS, part = (tile.row - first) / PART_ROWS;
    if (parts == 1) {
        for (int i = threadIdx.x; i < TILE * RANKS; i += 256)
            addGradient<TILE>(slot, second, feature0, rank0, wide.columns, i, total(sums, TILE * RANKS, i));
        return;
    }
    long long blocks = gridDim.x * gridDim.z, at = blockIdx.z * gridDim.x + blockIdx.x;
    long long all = (blockIdx.y - part) * blocks + at;
    float* own = partial + all * TILE * RANKS;
    for (int i = threadIdx.x; i < TILE * RANKS; i += 256)
        own[part * blocks * TILE * RANKS + i] = total(sums, TILE * RANKS, i);
    if (!isLastBlock(counters + all, parts)) return;
    for (int i = threadIdx.x; i < TILE * RANKS; i += 256) {
        float v = __ldcg(own + i);
        for (int p = 1; p < parts; p++) v += __ldcg(own + p * blocks * TILE * RANKS + i);
        addGradient<TILE>(slot, second, feature0, rank0, wide.columns, i, v);
    }
}

// ---- corrections on tensor cores ----

constexpr int FINISH_WARPS = 4;
constexpr int FINISH_COLUMNS = FINISH_WARPS * 32;
constexpr int FINISH_GROUPS = TILE / 16;            // of 16 rows
constexpr int FINISH_LANES = FINISH_COLUMNS / 8;    // threads of a row
constexpr int FINISH_STEP = FINISH_WARPS * 32 / FINISH_LANES;
constexpr int FINISH_ROWS = 4;                      // that a thread finishes at once
constexpr int FINISH_STRIDE = FINISH_COLUMNS + 4;

// How the terms of a row are loaded: pairs if every row has whole ones.
enum { SINGLES, FLOAT_PAIRS, HALF_PAIRS };

__device__ __forceinline__ int loadsOf(const Matrix& m, int terms) {
    return !m.wide || terms % 2 ? SINGLES : m.dtype == DT_F32 ? FLOAT_PAIRS : HALF_PAIRS;
}

// Terms k, k + 1, k + 8 and k + 9 of a row: a lane's part of a product of 16 terms. k is even; zeros from
// term `end` on.
template<int LOADS> __device__ __forceinline__ void loadTerms(float (&f)[4], const Matrix& m, int row, int k,
        int end) {
    long long first = row * m.stride + k;
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
        long long at = first + j * 4;
        bool inside = k + j * 4 < end;
        if (LOADS == FLOAT_PAIRS) {
            float2 v = inside ? *(const float2*) ((const float*) m.data + at) : make_float2(0, 0);
            f[j] = v.x;
            f[j + 1] = v.y;
        } else if (LOADS == HALF_PAIRS) {
            unsigned bits = inside ? *(const unsigned*) ((const unsigned short*) m.data + at) : 0;
            f[j] = __uint_as_float(bits << 16);
            f[j + 1] = __uint_as_float(bits & 0xffff0000u);
        } else {
            f[j] = inside ? load(m, row, k + j * 4) : 0;
            f[j + 1] = k + j * 4 + 1 < end ? load(m, row, k + j * 4 + 1) : 0;
        }
    }
}

// The terms of the four columns from `column` on of a factor, or of its rows if BACKWARD. After the last
// column, those of others: their sums are not used.
template<bool BACKWARD, bool PIECES> __device__ __forceinline__ void loadColumns(float (&right)[4][4],
        const Matrix& factor, int column, int columns, int k, int rank) {
    if (BACKWARD) {
        int first = PIECES ? min(column, columns - 4) : column;
#pragma unroll
        for (int c = 0; c < 4; c++)
            loadTerms<PIECES ? FLOAT_PAIRS : SINGLES>(right[c], factor, min(first + c, columns - 1), k, rank);
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int r = k + j % 2 + j / 2 * 8;
            if (PIECES) {
                float4 v = r < rank ? *(const float4*) floatsAt(factor, r, min(column, columns - 4))
                        : make_float4(0, 0, 0, 0);
                right[0][j] = v.x;
                right[1][j] = v.y;
                right[2][j] = v.z;
                right[3][j] = v.w;
            } else {
#pragma unroll
                for (int c = 0; c < 4; c++)
                    right[c][j] = r < rank ? load(factor, r, min(column + c, columns - 1)) : 0;
            }
        }
    }
}

// Sixteen ranks of a tile's rows as left operands of products, by all warps of a block. After the last row,
// those of another: their sums are not used.
template<int LOADS> __device__ __forceinline__ void splitLow(Quad (&lefts)[TERMS][FINISH_GROUPS][32],
        const Matrix& low, const SlotTile& tile, int k, int rank) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float left[2 * FINISH_GROUPS / FINISH_WARPS][4];
#pragma unroll
    for (int i = 0; i < 2 * FINISH_GROUPS / FINISH_WARPS; i++) {
        int row = min((i * FINISH_WARPS + warp) * 8 + lane / 4, tile.rows - 1);
        loadTerms<LOADS>(left[i], low, tile.row + row, k, rank);
    }
#pragma unroll
    for (int i = 0; i < 2 * FINISH_GROUPS / FINISH_WARPS; i++) {
        int half = i * FINISH_WARPS + warp;
        unsigned a[TERMS][2];
        splitRight(a, left[i]);
#pragma unroll
        for (int s = 0; s < (LOADS == HALF_PAIRS ? 1 : TERMS); s++)
            ((uint2*) &lefts[s][half / 2][lane])[half % 2] = make_uint2(a[s][0], a[s][1]);
    }
}

// The corrections of a tile of rows and this warp's 32 columns from column0 on: of four products of 8
// columns, product c has the columns 4·i + c. Both factors are asked for before the first use.
template<bool BACKWARD> __device__ __forceinline__ void corrections(float (&sum)[FINISH_GROUPS][4][4],
        Quad (&lefts)[TERMS][FINISH_GROUPS][32], const Matrix& low, const SlotSite& slot,
        const SlotTile& tile, int column0, int columns) {
    const Matrix factor = BACKWARD ? slot.a : slot.b;
    int rank = slot.rank;
    int lane = threadIdx.x % 32, quad = lane % 4;
    int column = column0 + lane / 4 * 4, terms = low.dtype == DT_F32 ? TERMS : 1, loads = loadsOf(low, rank);
    bool pieces = loadsOf(factor, rank) == FLOAT_PAIRS && columns % 4 == 0;
    for (int r0 = 0; r0 < rank; r0 += 16) {
        int k = r0 + quad * 2;
        float right[4][4];
        if (pieces) loadColumns<BACKWARD, true>(right, factor, column, columns, k, rank);
        else loadColumns<BACKWARD, false>(right, factor, column, columns, k, rank);
        if (r0 > 0) __syncthreads();
        if (loads == FLOAT_PAIRS) splitLow<FLOAT_PAIRS>(lefts, low, tile, k, rank);
        else if (loads == HALF_PAIRS) splitLow<HALF_PAIRS>(lefts, low, tile, k, rank);
        else splitLow<SINGLES>(lefts, low, tile, k, rank);
        __syncthreads();
        if (column0 >= columns) continue;
        unsigned b[4][TERMS][2];
#pragma unroll
        for (int c = 0; c < 4; c++) splitRight(b[c], right[c]);
#pragma unroll
        for (int g = 0; g < FINISH_GROUPS; g++) {
            if (g * 16 >= tile.rows) break;
#pragma unroll
            for (int s = 0; s < TERMS; s++) {
                if (s >= terms) break;
                Quad left = lefts[s][g][lane];
                unsigned a[4] = {left.x, left.z, left.y, left.w};
                // parts whose product is below the last of fp32 are left out
#pragma unroll
                for (int t = 0; s + t < TERMS; t++)
#pragma unroll
                    for (int c = 0; c < 4; c++) mmaBf16(sum[g][c], a, b[c][t]);
            }
        }
    }
}

// v[i] += eight elements from `column` on, or `count` of them, of rows r0 + i·FINISH_STEP of a tile, as far
// as it goes. All loads come before the first use.
__device__ __forceinline__ void addRows(float (&v)[FINISH_ROWS][VECTOR], const Matrix& m,
        const SlotTile& tile, int r0, int column, int count) {
    bool vectors = m.wide && count == VECTOR;
    if (vectors && m.dtype == DT_F32) {
        float4 own[FINISH_ROWS][2];
#pragma unroll
        for (int i = 0; i < FINISH_ROWS; i++) {
            int r = min(r0 + i * FINISH_STEP, tile.rows - 1);
            const float4* at = (const float4*) floatsAt(m, tile.row + r, column);
            own[i][0] = at[0];
            own[i][1] = at[1];
        }
#pragma unroll
        for (int i = 0; i < FINISH_ROWS; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                v[i][4 * h] += own[i][h].x;
                v[i][4 * h + 1] += own[i][h].y;
                v[i][4 * h + 2] += own[i][h].z;
                v[i][4 * h + 3] += own[i][h].w;
            }
    } else if (vectors) {
        Quad own[FINISH_ROWS];
#pragma unroll
        for (int i = 0; i < FINISH_ROWS; i++) {
            int r = min(r0 + i * FINISH_STEP, tile.rows - 1);
            own[i] = *(const Quad*) halvesAt(m, tile.row + r, column);
        }
#pragma unroll
        for (int i = 0; i < FINISH_ROWS; i++) {
            unsigned pairs[4] = {own[i].x, own[i].y, own[i].z, own[i].w};
#pragma unroll
            for (int h = 0; h < 4; h++) {
                v[i][2 * h] += __uint_as_float(pairs[h] << 16);
                v[i][2 * h + 1] += __uint_as_float(pairs[h] & 0xffff0000u);
            }
        }
    } else {
#pragma unroll
        for (int i = 0; i < FINISH_ROWS; i++)
#pragma unroll
            for (int j = 0; j < VECTOR; j++)
                if (r0 + i * FINISH_STEP < tile.rows && j < count)
                    v[i][j] += load(m, tile.row + r0 + i * FINISH_STEP, column + j);
    }
}

// Where four neighbouring sums of a row lie: exchanged in every second eight fours, so that neither those who
// write fours of one warp nor those who read eights of a row meet in a bank.
__device__ __forceinline__ float4* foursAt(float* sums, int row, int four) {
    return (float4*) (sums + row * FINISH_STRIDE) + (four ^ (four / 8 & 1));
}

// finish_product on tensor cores. A warp has a tile's rows and 32 columns; then a thread has eight columns of
// every eighth row. Grid: tiles of FINISH_COLUMNS columns, tiles of slots and gaps; 128 threads.
extern "C" __global__ void __launch_bounds__(128, 2) finish_product_mma(Matrix y, Matrix product, Matrix onto,
        Matrix bias, Matrix low, const SlotSite* slots, int n, int from, int backward) {
    begin();
    __shared__ Quad lefts[TERMS][FINISH_GROUPS][32];
    __shared__ __align__(16) float sums[TILE * FINISH_STRIDE];
    int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, group = lane / 4, quad = lane % 4;
    SlotTile tile = slotTile(slots, n, from, y.rows, TILE, true, blockIdx.y);
    int rank = tile.slot < 0 ? 0 : slots[tile.slot].rank, column0 = blockIdx.x * FINISH_COLUMNS;
    if (rank > 0) {
        float sum[FINISH_GROUPS][4][4] = {};
        const SlotSite& slot = slots[tile.slot];
        if (backward) corrections<true>(sum, lefts, low, slot, tile, column0 + warp * 32, y.columns);
        else corrections<false>(sum, lefts, low, slot, tile, column0 + warp * 32, y.columns);
#pragma unroll
        for (int g = 0; g < FINISH_GROUPS; g++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                *foursAt(sums, g * 16 + i / 2 * 8 + group, warp * 8 + quad * 2 + i % 2) =
                    make_float4(sum[g][0][i], sum[g][1][i], sum[g][2][i], sum[g][3][i]);
        __syncthreads();
    }
    int eight = tid % FINISH_LANES, column = column0 + eight * VECTOR;
    int count = minimum(VECTOR, y.columns - column);
    if (count <= 0) return;
    float shift[VECTOR] = {};
    if (bias.data) load8(shift, bias, 0, column, count, 0);
    for (int r0 = tid / FINISH_LANES; r0 < tile.rows; r0 += FINISH_ROWS * FINISH_STEP) {
        float v[FINISH_ROWS][VECTOR] = {};
        if (product.data) addRows(v, product, tile, r0, column, count);
        if (onto.data) addRows(v, onto, tile, r0, column, count);
#pragma unroll
        for (int i = 0; i < FINISH_ROWS; i++) {
            int r = r0 + i * FINISH_STEP;
            if (r >= tile.rows) break;
            float4 a = {}, b = {};
            if (rank > 0) {
                a = *foursAt(sums, r, 2 * eight);
                b = *foursAt(sums, r, 2 * eight + 1);
            }
            float more[VECTOR] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
            for (int j = 0; j < VECTOR; j++) {
                if (bias.data) v[i][j] += shift[j];
                v[i][j] += more[j];
            }
            store8(y, tile.row + r, column, count, v[i]);
        }
    }
}
