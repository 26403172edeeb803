// Attention of many BF16 queries and its gradients on sm_90a, for heads of 64 and 128 elements: what
// attention_mma.cu computes on other cards, by products of warpgroups (Shah et al. 2024). Of a block, 64
// rows for each of its warpgroups are resident in shared memory, and 64 rows at a time are streamed through
// stages. Scores are computed in both kernels of gradients, instead of a second pass over sums of
// gradients of queries: no two blocks add to one sum. The longest blocks are the first ones of the grid.
#include "common.cuh"
#include "tiles.cuh"
#include "softmax.cuh"
#include "wgmma.cuh"

constexpr int WARPGROUP = 64;    // rows of a warpgroup
constexpr int FORWARD = 192;     // queries of a block of attention, of three warpgroups
constexpr int RESIDENT = 128;    // rows of a block of gradients that stay in shared memory
constexpr int STREAMED = 64;     // rows of a stage
constexpr int PIECE = 128;       // bytes of a row of a piece
constexpr int STEPS = STREAMED / 16;
static_assert(BLOCK == STREAMED, "a block of keys is a stage");

// The operands of its gradients.
struct Call {
    Matrix dout;
    Matrix lse;
    Matrix delta;
    Matrix q;
    Matrix keys;
    Matrix values;
    const Span* spans;
    const SpanTile* tiles;
    int heads;
    int kvHeads;
    int window;
    float scale;
};

// The heads that share a key head; x / count by a multiplication, for x·count < 2^31.
struct Group {
    int count;
    unsigned inverse;

    __device__ __forceinline__ explicit Group(int count) : count(count),
            inverse(count == 1 ? 0 : (unsigned) ((0x100000000ull + count - 1) / count)) {}

    __device__ __forceinline__ int positionOf(int query) const {
        return count == 1 ? query : (int) __umulhi((unsigned) query, inverse);
    }
};

// Chunk c of a row of a tile of ROWS rows.
template<int ROWS> __device__ __forceinline__ char* chunk(char* tile, int row, int c) {
    return tile + (c >> 3) * (ROWS * PIECE) + row * PIECE + ((c & 7) ^ (row & 7)) * 16;
}

// Threads of a block with this many rows.
__device__ constexpr int threads(int rows) {
    return rows * 2;
}

// Starts to copy ROWS positions of a key head of two matrices; zeros after the last.
template<int D, int ROWS> __device__ __forceinline__ void copyKeys(char* to0, char* to1, const Matrix& from0,
        const Matrix& from1, const Span& span, int first, int kvHead) {
#pragma unroll
    for (int i = 0; i < ROWS * (D / 8) / threads(RESIDENT); i++) {
        int at = i * threads(RESIDENT) + threadIdx.x, row = at / (D / 8), c = at % (D / 8);
        bool real = first + row < span.count;
        int from = real ? span.row + first + row : 0, column = kvHead * D + c * 8;
        cpAsync16(chunk<ROWS>(to0, row, c), halvesAt(from0, from, column), real ? 16 : 0);
        cpAsync16(chunk<ROWS>(to1, row, c), halvesAt(from1, from, column), real ? 16 : 0);
    }
}

// The same of queries, counted over positions and heads; of the second matrix only if BOTH. A loop: unrolled, it
// would take registers that the gradients of keys do not have.
template<int D, int ROWS, int THREADS, bool BOTH> __device__ __forceinline__ void copyQueries(char* to0,
        char* to1, const Matrix& from0, const Matrix& from1, const Span& span, int first, const Group& group,
        int kvHead) {
#pragma unroll 1
    for (int i = 0; i < ROWS * (D / 8) / THREADS; i++) {
        int at = i * THREADS + threadIdx.x, row = at / (D / 8), c = at % (D / 8), query = first + row;
        int position = group.positionOf(query);
        bool real = position < span.count;
        int from = real ? span.row + position : 0;
        int column = (kvHead * group.count + query - position * group.count) * D + c * 8;
        cpAsync16(chunk<ROWS>(to0, row, c), halvesAt(from0, from, column), real ? 16 : 0);
        if (BOTH) cpAsync16(chunk<ROWS>(to1, row, c), halvesAt(from1, from, column), real ? 16 : 0);
    }
}

// Starts to copy a block of keys or values of a head. A thread's chunks are ROWS apart, in one place of a row.
template<int D> __device__ __forceinline__ void copyBlock(char* to, const Matrix& from) {
    constexpr int ROWS = threads(FORWARD) / (D / 8);
    static_assert(ROWS % 8 == 0, "a row's place of a chunk is that of the row 8 after it");
    int row = threadIdx.x / (D / 8), c = threadIdx.x % (D / 8);
    char* at = chunk<BLOCK>(to, row, c);
    const unsigned short* source = halvesAt(from, row, c * 8);
#pragma unroll
    for (int i = 0; i < BLOCK; i += ROWS)
        if (i + ROWS <= BLOCK || row + i < BLOCK)
            cpAsync16(at + i * PIECE, source + i * from.stride, row + i < from.rows ? 16 : 0);
}

// s ← the products of a warpgroup's 64 resident rows with those of a stage.
template<int D, int ROWS> __device__ __forceinline__ void scores(float (&s)[32], const char* resident,
        const char* streamed) {
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        wgmmaRows(s, resident, k / 4 * (ROWS * PIECE) + k % 4 * 32, streamed,
            k / 4 * (STREAMED * PIECE) + k % 4 * 32, k > 0);
}

// sum += p·rows, p [64, STREAMED] in registers.
template<int D> __device__ __forceinline__ void addProducts(float (&sum)[D / 2],
        const unsigned (&p)[STEPS][4], const char* rows) {
#pragma unroll
    for (int k = 0; k < STEPS; k++) wgmmaColumns(sum, p[k], rows, k * 16 * PIECE, STREAMED * PIECE);
}

// Sums as the left operand of a product.
__device__ __forceinline__ void pack(unsigned (&p)[STEPS][4], const float (&s)[32]) {
#pragma unroll
    for (int k = 0; k < STEPS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[k][i] = packBf16(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
}

// Stores this lane's part of a row of sums times a factor.
template<int D> __device__ __forceinline__ void storeRow(const Matrix& to, int row, int column,
        const float (&sum)[D / 2], int half, float factor) {
    unsigned* at = (unsigned*) halvesAt(to, row, column + threadIdx.x % 4 * 2);
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        at[n * 4] = packBf16(sum[4 * n + 2 * half] * factor, sum[4 * n + 2 * half + 1] * factor);
}

// Shared memory from a multiple of 1024 bytes on.
__device__ __forceinline__ char* aligned(char* shared) {
    return shared + ((1024 - ((unsigned long long) shared & 1023)) & 1023);
}

// Waits for all copies but the NEWEST groups, and for all threads of the block.
template<int NEWEST> __device__ __forceinline__ void awaitStage() {
    cpAsyncWait<NEWEST>();
    asyncFence();
    __syncthreads();
}

// A step b computes the scores of block b and, while these become weights, the products of the weights of
// block b - 1 with its values. The second warpgroup is half a step ahead: it starts the products of a step before
// the barrier that the others start theirs after. So it turns scores into weights while they multiply, and
// multiplies while they do. It reads after barrier b - 1 what the others read after barrier b.
template<int D> __device__ __forceinline__ void attend(const Attention& call, const Matrix& out,
        const Matrix& lse, char* shared) {
    constexpr int BYTES = BLOCK * D * 2;
    int lane = threadIdx.x % 32, warpgroup = __shfl_sync(ALL, threadIdx.x / 128, 0);
    int row0 = threadIdx.x / 32 % 4 * 16 + lane / 4;
    const Group group(call.heads / call.kvHeads);
    int kvHead = blockIdx.x % call.kvHeads;
    SpanTile tile = call.tiles[blockIdx.x / call.kvHeads];
    Span span = call.spans[tile.span];
    int queries = span.count * group.count;
    char* qs = shared;
    char* keys = qs + FORWARD * D * 2;
    char* values = keys + 4 * BYTES;
    int own = tile.first + warpgroup * WARPGROUP;           // first query of this warpgroup
    int from = firstKey(span.position + group.positionOf(tile.first), call.window) / BLOCK;
    int to = (span.position + group.positionOf(min(tile.first + FORWARD, queries) - 1)) / BLOCK;
    auto keysOf = [&](int b) { return keys + (b - from) % 4 * BYTES; };
    auto valuesOf = [&](int b) { return values + (b - from) % 3 * BYTES; };
    auto copyKeys = [&](int b) {
        if (b <= to) copyBlock<D>(keysOf(b), blockOf(call.keys, call.pages, call.blockTable, call.keyOffset,
            span, b, kvHead, D));
        cpAsyncCommit();
    };
    auto copyValues = [&](int b) {
        if (b <= to) copyBlock<D>(valuesOf(b), blockOf(call.values, call.pages, call.blockTable,
            call.valueOffset, span, b, kvHead, D));
        cpAsyncCommit();
    };
    copyQueries<D, FORWARD, threads(FORWARD), false>(qs, qs, call.q, call.q, span, tile.first, group, kvHead);
    copyKeys(from);
    copyKeys(from + 1);
    // the blocks of which some query of this warpgroup sees keys
    int lowest = span.position + group.positionOf(min(own, queries - 1));
    int highest = span.position + group.positionOf(min(own + WARPGROUP, queries) - 1);
    int begin = own < queries ? firstKey(lowest, call.window) / BLOCK : to + 2;
    int end = highest / BLOCK;
    const char* ownQs = qs + warpgroup * WARPGROUP * PIECE;
    float scale = call.scale * LOG2E;
    float s[32], sum[D / 2] = {}, shrink[2];
    unsigned p[STEPS][4];
    Softmax softmax;
    auto weigh = [&](int b) {
        int first = b * BLOCK;
        // only blocks at the ends of a query's range hold keys that it does not see
        if (first + BLOCK - 1 > lowest || first < firstKey(highest, call.window))
#pragma unroll
            for (int h = 0; h < 2; h++)
                hide(s, h, first, span.position + group.positionOf(min(own + row0 + 8 * h, queries - 1)),
                    call.window);
        softmax.weigh(s, shrink, scale);
    };
    bool ahead = warpgroup == 1;
    int b = from - 1;
    for (; b < begin; b++) {
        awaitStage<1>();
        copyValues(b + 1);
        copyKeys(b + 3);
    }
    if (begin <= to) {
        if (!ahead) awaitStage<1>();
        wgmmaFence();
        scores<D, FORWARD>(s, ownQs, keysOf(b));
        wgmmaCommit();
        if (ahead) awaitStage<1>();
        copyValues(b + 1);
        wgmmaWait<0>();
        sumsBarrier(s);
        weigh(b);
        copyKeys(b + 3);
        pack(p, s);
    }
    for (b++; b <= end; b++) {
        if (!ahead) awaitStage<1>();
        sumsBarrier(sum);
        operandBarrier(p);
        wgmmaFence();
        scores<D, FORWARD>(s, ownQs, keysOf(b));
        wgmmaCommit();
        addProducts<D>(sum, p, valuesOf(b - 1));
        wgmmaCommit();
        if (ahead) awaitStage<1>();
        copyValues(b + 1);
        wgmmaWait<1>();
        sumsBarrier(s);
        // in flight: sum and p. The branch of the copy keeps the next wait behind these exponentials
        weigh(b);
        sumsBarrier(s);
        copyKeys(b + 3);
        wgmmaWait<0>();
        sumsBarrier(sum);
        operandBarrier(p);
        shrinkSums(sum, shrink);
        pack(p, s);
    }
    if (begin <= to) {
        if (!ahead) awaitStage<1>();
        sumsBarrier(sum);
        operandBarrier(p);
        wgmmaFence();
        addProducts<D>(sum, p, valuesOf(b - 1));
        wgmmaCommit();
        if (ahead) awaitStage<1>();
        copyValues(b + 1);
        copyKeys(b + 3);
        wgmmaWait<0>();
        sumsBarrier(sum);
    }
    for (b++; b <= to + 1; b++) {
        awaitStage<1>();
        copyValues(b + 1);
        copyKeys(b + 3);
    }
    cpAsyncWait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float all = softmax.all(h);
        int query = own + row0 + 8 * h;
        if (query >= queries) continue;
        int position = group.positionOf(query);
        int row = span.row + position, head = kvHead * group.count + query - position * group.count;
        storeRow<D>(out, row, head * D, sum, h, 1 / all);
        if (lane % 4 == 0) store(lse, row, head, softmax.logarithm(h, all));
    }
}

// Grid: tiles of FORWARD queries times key heads; 384 threads; shared memory: FORWARD + 7·STREAMED rows and
// 1 KiB.
extern "C" __global__ void __launch_bounds__(384) attention_wgmma_64(Matrix out, Matrix lse, Matrix q,
        Matrix keys, Matrix values, const long long* pages, const int* blockTable, long long keyOffset,
        long long valueOffset, const Span* spans, const SpanTile* tiles, int heads, int kvHeads, int headDim,
        int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    attend<64>({q, keys, values, pages, blockTable, keyOffset, valueOffset, spans, tiles, heads, kvHeads,
        window, scale}, out, lse, aligned(shared));
}

extern "C" __global__ void __launch_bounds__(384) attention_wgmma_128(Matrix out, Matrix lse, Matrix q,
        Matrix keys, Matrix values, const long long* pages, const int* blockTable, long long keyOffset,
        long long valueOffset, const Span* spans, const SpanTile* tiles, int heads, int kvHeads, int headDim,
        int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    attend<128>({q, keys, values, pages, blockTable, keyOffset, valueOffset, spans, tiles, heads, kvHeads,
        window, scale}, out, lse, aligned(shared));
}

// The second warpgroup is half a step ahead, as in `attend`.
template<int D> __device__ __forceinline__ void gradientOfQueries(const Call& call, const Matrix& dq,
        char* shared) {
    constexpr int BYTES = STREAMED * D * 2;
    int lane = threadIdx.x % 32, warpgroup = __shfl_sync(ALL, threadIdx.x / 128, 0);
    int row0 = threadIdx.x / 32 % 4 * 16 + lane / 4;
    const Group group(call.heads / call.kvHeads);
    int kvHead = blockIdx.x % call.kvHeads;
    SpanTile tile = call.tiles[blockIdx.x / call.kvHeads];
    Span span = call.spans[tile.span];
    int queries = span.count * group.count;
    char* qs = shared;
    char* dos = qs + RESIDENT * D * 2;
    char* keys = dos + RESIDENT * D * 2;
    char* values = keys + 4 * BYTES;
    int own = tile.first + warpgroup * WARPGROUP;           // first query of this warpgroup
    int from = firstKey(group.positionOf(tile.first), call.window) / STREAMED;
    int to = group.positionOf(min(tile.first + RESIDENT, queries) - 1) / STREAMED;
    auto keysOf = [&](int b) { return keys + (b - from) % 4 * BYTES; };
    auto valuesOf = [&](int b) { return values + (b - from) % 3 * BYTES; };
    auto copyBlock = [&](int b) {
        if (b <= to) copyKeys<D, STREAMED>(keysOf(b), valuesOf(b), call.keys, call.values, span, b * STREAMED,
            kvHead);
        cpAsyncCommit();
    };
    copyQueries<D, RESIDENT, threads(RESIDENT), true>(qs, dos, call.q, call.dout, span, tile.first, group,
        kvHead);
    copyBlock(from);
    float sum[D / 2] = {};
    unsigned ds[STEPS][4] = {};
    float logarithm[2], shift[2];
    int position[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int query = min(own + row0 + 8 * h, queries - 1);
        position[h] = group.positionOf(query);
        int head = kvHead * group.count + query - position[h] * group.count;
        logarithm[h] = *floatsAt(call.lse, span.row + position[h], head) * LOG2E;
        shift[h] = *floatsAt(call.delta, span.row + position[h], head);
    }
    // the blocks of which some query of this warpgroup sees keys
    int lowest = group.positionOf(min(own, queries - 1));
    int highest = group.positionOf(min(own + WARPGROUP, queries) - 1);
    int begin = own < queries ? firstKey(lowest, call.window) / STREAMED : to + 1;
    int end = highest / STREAMED;
    float scale = call.scale * LOG2E;
    const char* ownQs = qs + warpgroup * WARPGROUP * PIECE;
    const char* ownDos = dos + warpgroup * WARPGROUP * PIECE;
    bool ahead = warpgroup == 1;
    int b = from - 1;
    for (; b < begin; b++) {
        awaitStage<0>();
        copyBlock(b + 2);
    }
    for (; b <= end; b++) {
        // in flight: sum, by the ds and the keys of the block before
        if (!ahead) awaitStage<0>();
        float s[32], dp[32];
        wgmmaFence();
        scores<D, RESIDENT>(s, ownQs, keysOf(b));
        wgmmaCommit();
        scores<D, RESIDENT>(dp, ownDos, valuesOf(b));
        wgmmaCommit();
        if (ahead) awaitStage<0>();
        // the second warpgroup's scores are there already: it copies later
        else copyBlock(b + 2);
        wgmmaWait<1>();
        sumsBarrier(s);
        sumsBarrier(sum);
        operandBarrier(ds);
#pragma unroll
        for (int i = 0; i < 32; i++) s[i] = exp2Fast(s[i] * scale - logarithm[i / 2 % 2]);
        // only blocks at the ends of a query's range hold keys that it does not see
        int first = b * STREAMED;
        if (first + STREAMED - 1 > lowest || first < firstKey(highest, call.window)) {
#pragma unroll
            for (int i = 0; i < 32; i++)
                if (!sees(position[i / 2 % 2], first + i / 4 * 8 + lane % 4 * 2 + i % 2, call.window)) s[i] = 0;
        }
        if (ahead) copyBlock(b + 2);
        wgmmaWait<0>();
        sumsBarrier(dp);
#pragma unroll
        for (int i = 0; i < 32; i++) s[i] *= dp[i] - shift[i / 2 % 2];
        pack(ds, s);
        sumsBarrier(sum);
        operandBarrier(ds);
        wgmmaFence();
        addProducts<D>(sum, ds, keysOf(b));
        wgmmaCommit();
    }
    wgmmaWait<0>();
    sumsBarrier(sum);
    for (; b <= to; b++) {
        awaitStage<0>();
        copyBlock(b + 2);
    }
    cpAsyncWait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (own + row0 + 8 * h >= queries) continue;
        int head = kvHead * group.count + own + row0 + 8 * h - position[h] * group.count;
        storeRow<D>(dq, span.row + position[h], head * D, sum, h, call.scale);
    }
}

// Grid: tiles of RESIDENT queries times key heads; 256 threads; shared memory: 2·RESIDENT + 7·STREAMED
// rows and 1 KiB.
extern "C" __global__ void __launch_bounds__(256) attention_wgmma_backward_queries_64(Matrix dq, Matrix dout,
        Matrix lse, Matrix delta, Matrix q, Matrix keys, Matrix values, const Span* spans,
        const SpanTile* tiles, int heads, int kvHeads, int headDim, int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    gradientOfQueries<64>({dout, lse, delta, q, keys, values, spans, tiles, heads, kvHeads, window, scale},
        dq, aligned(shared));
}

extern "C" __global__ void __launch_bounds__(256) attention_wgmma_backward_queries_128(Matrix dq, Matrix dout,
        Matrix lse, Matrix delta, Matrix q, Matrix keys, Matrix values, const Span* spans,
        const SpanTile* tiles, int heads, int kvHeads, int headDim, int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    gradientOfQueries<128>({dout, lse, delta, q, keys, values, spans, tiles, heads, kvHeads, window, scale},
        dq, aligned(shared));
}

// Starts to copy STREAMED queries, their gradients, logarithms and shifts.
template<int D> __device__ __forceinline__ void copyQueriesAndNumbers(const Call& call, const Span& span,
        int first, const Group& group, int kvHead, char* to, float* numbers) {
    copyQueries<D, STREAMED, threads(RESIDENT), true>(to, to + STREAMED * D * 2, call.q, call.dout, span,
        first, group, kvHead);
    if (threadIdx.x < 2 * STREAMED) {
        int query = first + threadIdx.x % STREAMED, position = group.positionOf(query);
        bool real = position < span.count;
        int row = real ? span.row + position : 0;
        int head = kvHead * group.count + query - position * group.count;
        cpAsync4(numbers + threadIdx.x, floatsAt(threadIdx.x < STREAMED ? call.lse : call.delta, row, head),
            real ? 4 : 0);
    }
}

// The second warpgroup is half a step ahead, as in `attend`: no query of the block's first stage sees its keys.
template<int D> __device__ __forceinline__ void gradientOfKeys(const Call& call, const Matrix& dk,
        const Matrix& dv, char* shared) {
    constexpr int BYTES = STREAMED * D * 2;
    int lane = threadIdx.x % 32, warpgroup = __shfl_sync(ALL, threadIdx.x / 128, 0);
    int row0 = threadIdx.x / 32 % 4 * 16 + lane / 4;
    const Group group(call.heads / call.kvHeads);
    int kvHead = blockIdx.x % call.kvHeads;
    SpanTile tile = call.tiles[blockIdx.x / call.kvHeads];
    Span span = call.spans[tile.span];
    char* ks = shared;
    char* vs = ks + RESIDENT * D * 2;
    char* streamed = vs + RESIDENT * D * 2;
    float* numbers = (float*) (streamed + 4 * 2 * BYTES);
    // queries from the first key's position to the last that sees the last key
    int end = span.count;
    if (call.window > 0) end = min(end, tile.first + RESIDENT - 1 + call.window);
    int begin = tile.first * group.count, stop = end * group.count;
    auto copyStage = [&](int first) {
        int stage = (unsigned) first / STREAMED % 4;
        if (first < stop) copyQueriesAndNumbers<D>(call, span, first, group, kvHead,
            streamed + stage * 2 * BYTES, numbers + stage * 2 * STREAMED);
        cpAsyncCommit();
    };
    copyKeys<D, RESIDENT>(ks, vs, call.keys, call.values, span, tile.first, kvHead);
    copyStage(begin);
    copyStage(begin + STREAMED);
    float sumK[D / 2] = {}, sumV[D / 2] = {};
    unsigned p[STEPS][4] = {}, ds[STEPS][4] = {};
    float scale = call.scale * LOG2E;
    int own = tile.first + warpgroup * WARPGROUP;           // first key of this warpgroup
    // the queries that see some of its keys
    int ownBegin = min(own * group.count, stop), ownStop = stop;
    if (call.window > 0) ownStop = min(stop, (own + WARPGROUP - 1 + call.window) * group.count);
    const char* ownKs = ks + warpgroup * WARPGROUP * PIECE;
    const char* ownVs = vs + warpgroup * WARPGROUP * PIECE;
    bool ahead = warpgroup == 1;
    int first = begin;
    for (; first < ownBegin; first += STREAMED) {
        awaitStage<0>();
        copyStage(first + 2 * STREAMED);
    }
    for (; first < ownStop; first += STREAMED) {
        // in flight: sumV and sumK, by the p, ds and queries of the stage before
        if (!ahead) awaitStage<0>();
        int stage = (unsigned) first / STREAMED % 4;
        const char* qs = streamed + stage * 2 * BYTES;
        const char* dos = qs + BYTES;
        const float* logarithms = numbers + stage * 2 * STREAMED + lane % 4 * 2;
        const float* shifts = logarithms + STREAMED;
        float s[32], dp[32];
        wgmmaFence();
        scores<D, RESIDENT>(s, ownKs, qs);
        wgmmaCommit();
        scores<D, RESIDENT>(dp, ownVs, dos);
        wgmmaCommit();
        if (ahead) awaitStage<0>();
        copyStage(first + 2 * STREAMED);
        wgmmaWait<1>();
        sumsBarrier(s);
        sumsBarrier(sumV);
        sumsBarrier(sumK);
        operandBarrier(p);
        operandBarrier(ds);
        // queries and keys after the last are zeros, or their sums are not stored
#pragma unroll
        for (int n = 0; n < 8; n++) {
            float2 logarithm = *(const float2*) (logarithms + n * 8);
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[4 * n + i] = exp2Fast(s[4 * n + i] * scale - (i % 2 ? logarithm.y : logarithm.x) * LOG2E);
        }
        int lowest = group.positionOf(first), highest = group.positionOf(min(first + STREAMED, stop) - 1);
        if (lowest < own + WARPGROUP - 1 || firstKey(highest, call.window) > own) {
#pragma unroll
            for (int i = 0; i < 32; i++) {
                int position = group.positionOf(first + i / 4 * 8 + lane % 4 * 2 + i % 2);
                if (!sees(position, own + row0 + i / 2 % 2 * 8, call.window)) s[i] = 0;
            }
        }
        pack(p, s);
        sumsBarrier(sumV);
        operandBarrier(p);
        wgmmaFence();
        addProducts<D>(sumV, p, dos);
        wgmmaCommit();
        wgmmaWait<1>();
        sumsBarrier(dp);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            float2 shift = *(const float2*) (shifts + n * 8);
#pragma unroll
            for (int i = 0; i < 4; i++) s[4 * n + i] *= dp[4 * n + i] - (i % 2 ? shift.y : shift.x);
        }
        pack(ds, s);
        sumsBarrier(sumK);
        operandBarrier(ds);
        wgmmaFence();
        addProducts<D>(sumK, ds, qs);
        wgmmaCommit();
    }
    wgmmaWait<0>();
    sumsBarrier(sumV);
    sumsBarrier(sumK);
    for (; first < stop; first += STREAMED) {
        awaitStage<0>();
        copyStage(first + 2 * STREAMED);
    }
    cpAsyncWait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int key = own + row0 + 8 * h;
        if (key >= span.count) continue;
        storeRow<D>(dk, span.row + key, kvHead * D, sumK, h, call.scale);
        storeRow<D>(dv, span.row + key, kvHead * D, sumV, h, 1);
    }
}

// Grid: tiles of RESIDENT keys times key heads; 256 threads; shared memory: 2·RESIDENT + 8·STREAMED rows,
// 8·STREAMED floats and 1 KiB.
extern "C" __global__ void __launch_bounds__(256) attention_wgmma_backward_keys_64(Matrix dk, Matrix dv,
        Matrix dout, Matrix lse, Matrix delta, Matrix q, Matrix keys, Matrix values, const Span* spans,
        const SpanTile* tiles, int heads, int kvHeads, int headDim, int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    gradientOfKeys<64>({dout, lse, delta, q, keys, values, spans, tiles, heads, kvHeads, window, scale}, dk,
        dv, aligned(shared));
}

extern "C" __global__ void __launch_bounds__(256) attention_wgmma_backward_keys_128(Matrix dk, Matrix dv,
        Matrix dout, Matrix lse, Matrix delta, Matrix q, Matrix keys, Matrix values, const Span* spans,
        const SpanTile* tiles, int heads, int kvHeads, int headDim, int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    gradientOfKeys<128>({dout, lse, delta, q, keys, values, spans, tiles, heads, kvHeads, window, scale}, dk,
        dv, aligned(shared));
}
