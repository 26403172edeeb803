// Attention of BF16 operands on tensor cores, for heads of 64 and 128 elements (Dao 2023). Softmax weights
// and their gradients are rounded to bf16 where they are multiplied; scores, sums and maxima are fp32. As in
// attention.cu, what a query computes depends on its own row and keys alone, blocks of keys in order from
// position 0, so it has the same bits in any tile and from packed keys or pages.
//
// Each of four warps has 16 or 32 rows of a product: queries, or keys in the gradient of keys and values.
// Rows in shared memory are 16-byte chunks, chunk c of row r in place c ^ r % 8: eight rows of ldmatrix are
// in different banks.
#include "common.cuh"
#include "tiles.cuh"
#include "softmax.cuh"

constexpr int THREADS = 128;
constexpr int QUERIES = 64;      // of a tile
constexpr int STREAMED = 32;     // queries at a time in the gradient of keys and values

template<int D> __device__ __forceinline__ char* chunk(char* rows, int row, int c) {
    return rows + row * (2 * D) + ((c ^ (row & 7)) << 4);
}

// Starts to copy rows of a head; zeros after the last.
template<int D, int ROWS> __device__ __forceinline__ void copyRows(char* shared, const Matrix& from) {
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        int row = i / (D / 8), c = i % (D / 8);
        bool real = row < from.rows;
        const char* at = from.data + (real ? row * from.stride * 2 : 0) + c * 16;
        cpAsync16(chunk<D>(shared, row, c), at, real ? 16 : 0);
    }
}

// The same for queries first.. of a span.
template<int D, int ROWS> __device__ __forceinline__ void copyQueries(char* shared, const Matrix& from,
        const Span& span, int first, int group, int kvHead) {
    int queries = span.count * group;
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        int row = i / (D / 8), c = i % (D / 8), query = first + row;
        bool real = query < queries;
        const unsigned short* at = (const unsigned short*) from.data;
        if (real) at += (span.row + query / group) * from.stride + (kvHead * group + query % group) * D;
        cpAsync16(chunk<D>(shared, row, c), at + c * 8, real ? 16 : 0);
    }
}

// Rows 16·w.. of a product's left operand, elements 16·k.. of each.
template<int D> __device__ __forceinline__ void loadLeft(unsigned (&a)[4], char* rows, int row0, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix4(a, chunk<D>(rows, row0 + lane % 16, 2 * k + lane / 16));
}

// The right operand whose columns are rows row0..row0 + 16 in memory, elements 16·k.. of each: two tiles.
template<int D> __device__ __forceinline__ void loadRight(unsigned (&b)[2][2], char* rows, int row0, int k) {
    int lane = threadIdx.x % 32;
    unsigned r[4];
    ldmatrix4(r, chunk<D>(rows, row0 + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
    b[0][0] = r[0];
    b[0][1] = r[1];
    b[1][0] = r[2];
    b[1][1] = r[3];
}

// The right operand whose rows are rows row0..row0 + 16 in memory, columns 16·n.. of each: two tiles.
template<int D> __device__ __forceinline__ void loadRightRows(unsigned (&b)[2][2], char* rows, int row0,
        int n) {
    int lane = threadIdx.x % 32;
    unsigned r[4];
    ldmatrix4Transposed(r, chunk<D>(rows, row0 + lane % 16, 2 * n + lane / 16));
    b[0][0] = r[0];
    b[0][1] = r[1];
    b[1][0] = r[2];
    b[1][1] = r[3];
}

// s ← the products of 16 rows of `left` with N·8 rows of `right`.
template<int D, int N> __device__ __forceinline__ void products(float (&s)[N][4], char* left, int row0,
        char* right) {
#pragma unroll
    for (int n = 0; n < N; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        unsigned a[4];
        loadLeft<D>(a, left, row0, k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            unsigned b[2][2];
            loadRight<D>(b, right, n * 8, k);
            mmaBf16(s[n], a, b[0]);
            mmaBf16(s[n + 1], a, b[1]);
        }
    }
}

// sum += p·rows: p has 16 rows and N·8 columns, as they lie after a product.
template<int D, int N> __device__ __forceinline__ void addProducts(float (&sum)[D / 8][4], float (&p)[N][4],
        char* rows) {
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        unsigned a[4] = {packBf16(p[2 * k][0], p[2 * k][1]), packBf16(p[2 * k][2], p[2 * k][3]),
            packBf16(p[2 * k + 1][0], p[2 * k + 1][1]), packBf16(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            unsigned b[2][2];
            loadRightRows<D>(b, rows, k * 16, n / 2);
            mmaBf16(sum[n], a, b[0]);
            mmaBf16(sum[n + 1], a, b[1]);
        }
    }
}

// Stores 16 rows of sums times a factor for each of this lane's two rows.
template<int D> __device__ __forceinline__ void storeRows(const Matrix& to, int row, int column,
        const float (&sum)[D / 8][4], int half, float factor) {
    unsigned* at = (unsigned*) ((unsigned short*) to.data + row * to.stride + column);
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        at[n * 4] = packBf16(sum[n][2 * half] * factor, sum[n][2 * half + 1] * factor);
}

// The same numbers in one row.
template<int N> __device__ __forceinline__ float (&flat(float (&tiles)[N][4]))[4 * N] {
    return reinterpret_cast<float (&)[4 * N]>(tiles);
}

// s ← the products of M·16 rows of `left` with those of a block: each of these is loaded once.
template<int D, int M> __device__ __forceinline__ void scores(float (&s)[M][8][4], char* left, int row0,
        char* right) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < 8; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        unsigned a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) loadLeft<D>(a[m], left, row0 + m * 16, k);
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            unsigned b[2][2];
            loadRight<D>(b, right, n * 8, k);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mmaBf16(s[m][n], a[m], b[0]);
                mmaBf16(s[m][n + 1], a[m], b[1]);
            }
        }
    }
}

// sum += p·rows of a block.
template<int D, int M> __device__ __forceinline__ void addValues(float (&sum)[M][D / 8][4],
        const float (&p)[M][8][4], char* rows) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
        unsigned a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[m][i] = packBf16(p[m][2 * k + i / 2][i % 2 * 2], p[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            unsigned b[2][2];
            loadRightRows<D>(b, rows, k * 16, n / 2);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mmaBf16(sum[m][n], a[m], b[0]);
                mmaBf16(sum[m][n + 1], a[m], b[1]);
            }
        }
    }
}

// Where the rows of a tile's queries are: row r is query first + r of a span, over positions and heads.
struct Rows {
    int first;
    int queries;
    int group;
    int position;

    __device__ __forceinline__ int positionOf(int row) const {
        return position + min(first + row, queries - 1) / group;
    }
};

// A tile of M·QUERIES queries, M·16 for each warp.
template<int D, int M> __device__ void attend(const Attention& call, const Matrix& out, const Matrix& lse,
        char* shared) {
    constexpr int BYTES = BLOCK * D * 2, ALL_QUERIES = M * QUERIES;
    int lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * 16 * M;
    int group = call.heads / call.kvHeads, kvHead = blockIdx.x % call.kvHeads;
    SpanTile tile = call.tiles[blockIdx.x / call.kvHeads];
    Span span = call.spans[tile.span];
    int queries = span.count * group;
    char* qs = shared;
    char* ks = qs + ALL_QUERIES * D * 2;
    char* vs = ks + 2 * BYTES;
    int first = span.position + tile.first / group;
    int last = span.position + min(tile.first + ALL_QUERIES - 1, queries - 1) / group;
    int from = firstKey(first, call.window) / BLOCK;
    copyQueries<D, ALL_QUERIES>(qs, call.q, span, tile.first, group, kvHead);
    copyRows<D, BLOCK>(ks, blockOf(call.keys, call.pages, call.blockTable, call.keyOffset, span, from, kvHead,
        D));
    cpAsyncCommit();
    copyRows<D, BLOCK>(vs, blockOf(call.values, call.pages, call.blockTable, call.valueOffset, span, from,
        kvHead, D));
    cpAsyncCommit();
    float sum[M][D / 8][4] = {};
    Softmax softmax[M];
    const Rows rows = {tile.first, queries, group, span.position};
    float scale = call.scale * LOG2E;
    for (int b = from; b * BLOCK <= last; b++) {
        int now = (b - from) % 2;
        bool more = (b + 1) * BLOCK <= last;
        cpAsyncWait<1>();
        __syncthreads();
        if (more) copyRows<D, BLOCK>(ks + (now ^ 1) * BYTES, blockOf(call.keys, call.pages, call.blockTable,
            call.keyOffset, span, b + 1, kvHead, D));
        cpAsyncCommit();
        float s[M][8][4];
        scores<D, M>(s, qs, row0, ks + now * BYTES);
        // only the blocks at the ends of a query's range hold keys that it does not see
        bool edge = (b + 1) * BLOCK - 1 > first || call.window > 0;
#pragma unroll
        for (int m = 0; m < M; m++) {
            if (edge)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    hide(flat(s[m]), h, b * BLOCK, rows.positionOf(row0 + m * 16 + lane / 4 + 8 * h),
                        call.window);
            float shrink[2];
            softmax[m].weigh(flat(s[m]), shrink, scale);
            shrinkSums(flat(sum[m]), shrink);
        }
        cpAsyncWait<1>();
        __syncthreads();
        if (more) copyRows<D, BLOCK>(vs + (now ^ 1) * BYTES, blockOf(call.values, call.pages, call.blockTable,
            call.valueOffset, span, b + 1, kvHead, D));
        cpAsyncCommit();
        addValues<D, M>(sum, s, vs + now * BYTES);
    }
    cpAsyncWait<0>();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float all = softmax[m].all(h);
            int query = tile.first + row0 + m * 16 + lane / 4 + 8 * h;
            if (query >= queries) continue;
            int row = span.row + query / group, head = kvHead * group + query % group;
            storeRows<D>(out, row, head * D + lane % 4 * 2, sum[m], h, 1 / all);
            if (lane % 4 == 0) store(lse, row, head, softmax[m].logarithm(h, all));
        }
}

// Grid: tiles of QUERIES times key heads; 128 threads; shared memory: 5·64 rows.
extern "C" __global__ void __launch_bounds__(128) attention_mma_64(Matrix out, Matrix lse, Matrix q,
        Matrix keys, Matrix values, const long long* pages, const int* blockTable, long long keyOffset,
        long long valueOffset, const Span* spans, const SpanTile* tiles, int heads, int kvHeads, int headDim,
        int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    attend<64, 1>({q, keys, values, pages, blockTable, keyOffset, valueOffset, spans, tiles, heads, kvHeads,
        window, scale}, out, lse, shared);
}

extern "C" __global__ void __launch_bounds__(128) attention_mma_128(Matrix out, Matrix lse, Matrix q,
        Matrix keys, Matrix values, const long long* pages, const int* blockTable, long long keyOffset,
        long long valueOffset, const Span* spans, const SpanTile* tiles, int heads, int kvHeads, int headDim,
        int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    attend<128, 1>({q, keys, values, pages, blockTable, keyOffset, valueOffset, spans, tiles, heads, kvHeads,
        window, scale}, out, lse, shared);
}

// The same with 32 rows a warp, which read each block of keys and values half as often.
// Grid: tiles of 2·QUERIES times key heads; 128 threads; shared memory: 6·64 rows.
extern "C" __global__ void __launch_bounds__(128) attention_mma_wide_64(Matrix out, Matrix lse, Matrix q,
        Matrix keys, Matrix values, const long long* pages, const int* blockTable, long long keyOffset,
        long long valueOffset, const Span* spans, const SpanTile* tiles, int heads, int kvHeads, int headDim,
        int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    attend<64, 2>({q, keys, values, pages, blockTable, keyOffset, valueOffset, spans, tiles, heads, kvHeads,
        window, scale}, out, lse, shared);
}

extern "C" __global__ void __launch_bounds__(128) attention_mma_wide_128(Matrix out, Matrix lse, Matrix q,
        Matrix keys, Matrix values, const long long* pages, const int* blockTable, long long keyOffset,
        long long valueOffset, const Span* spans, const SpanTile* tiles, int heads, int kvHeads, int headDim,
        int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    attend<128, 2>({q, keys, values, pages, blockTable, keyOffset, valueOffset, spans, tiles, heads, kvHeads,
        window, scale}, out, lse, shared);
}

template<int D> __device__ void gradientOfQueries(const Attention& call, const Matrix& dq, const Matrix& dout,
        const Matrix& lse, const Matrix& delta, char* shared) {
    constexpr int BYTES = BLOCK * D * 2;
    int lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * 16;
    int group = call.heads / call.kvHeads, kvHead = blockIdx.x % call.kvHeads;
    SpanTile tile = call.tiles[blockIdx.x / call.kvHeads];
    Span span = call.spans[tile.span];
    int queries = span.count * group;
    char* qs = shared;
    char* dos = qs + QUERIES * D * 2;
    char* ks = dos + QUERIES * D * 2;
    char* vs = ks + 2 * BYTES;
    int first = tile.first / group;
    int last = min(tile.first + QUERIES - 1, queries - 1) / group;
    int from = firstKey(first, call.window) / BLOCK;
    copyQueries<D, QUERIES>(qs, call.q, span, tile.first, group, kvHead);
    copyQueries<D, QUERIES>(dos, dout, span, tile.first, group, kvHead);
    copyRows<D, BLOCK>(ks, blockOf(call.keys, nullptr, nullptr, 0, span, from, kvHead, D));
    copyRows<D, BLOCK>(vs, blockOf(call.values, nullptr, nullptr, 0, span, from, kvHead, D));
    cpAsyncCommit();
    float sum[D / 8][4] = {};
    float logarithm[2], shift[2];
    int position[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int query = min(tile.first + row0 + lane / 4 + 8 * h, queries - 1);
        position[h] = query / group;
        logarithm[h] = load(lse, span.row + query / group, kvHead * group + query % group) * LOG2E;
        shift[h] = load(delta, span.row + query / group, kvHead * group + query % group);
    }
    float scale = call.scale * LOG2E;
    for (int b = from; b * BLOCK <= last; b++) {
        int now = (b - from) % 2;
        cpAsyncWait<0>();
        __syncthreads();
        if ((b + 1) * BLOCK <= last) {
            copyRows<D, BLOCK>(ks + (now ^ 1) * BYTES, blockOf(call.keys, nullptr, nullptr, 0, span, b + 1,
                kvHead, D));
            copyRows<D, BLOCK>(vs + (now ^ 1) * BYTES, blockOf(call.values, nullptr, nullptr, 0, span, b + 1,
                kvHead, D));
        }
        cpAsyncCommit();
        float s[8][4], dp[8][4];
        products<D, 8>(s, qs, row0, ks + now * BYTES);
        products<D, 8>(dp, dos, row0, vs + now * BYTES);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int key = b * BLOCK + n * 8 + lane % 4 * 2 + i % 2, h = i / 2;
                bool in = key <= position[h] && key >= firstKey(position[h], call.window);
                s[n][i] = in ? exp2Fast(s[n][i] * scale - logarithm[h]) * (dp[n][i] - shift[h]) : 0;
            }
        addProducts<D, 8>(sum, s, ks + now * BYTES);
    }
    cpAsyncWait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int query = tile.first + row0 + lane / 4 + 8 * h;
        if (query < queries)
            storeRows<D>(dq, span.row + query / group, (kvHead * group + query % group) * D + lane % 4 * 2,
                sum, h, call.scale);
    }
}

// Grid: tiles of QUERIES times key heads; 128 threads; shared memory: 6·64 rows.
extern "C" __global__ void __launch_bounds__(128) attention_mma_backward_queries_64(Matrix dq, Matrix dout,
        Matrix lse, Matrix delta, Matrix q, Matrix keys, Matrix values, const Span* spans,
        const SpanTile* tiles, int heads, int kvHeads, int headDim, int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    gradientOfQueries<64>({q, keys, values, nullptr, nullptr, 0, 0, spans, tiles, heads, kvHeads, window,
        scale}, dq, dout, lse, delta, shared);
}

extern "C" __global__ void __launch_bounds__(128) attention_mma_backward_queries_128(Matrix dq, Matrix dout,
        Matrix lse, Matrix delta, Matrix q, Matrix keys, Matrix values, const Span* spans,
        const SpanTile* tiles, int heads, int kvHeads, int headDim, int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    gradientOfQueries<128>({q, keys, values, nullptr, nullptr, 0, 0, spans, tiles, heads, kvHeads, window,
        scale}, dq, dout, lse, delta, shared);
}

// Starts to copy STREAMED queries with their gradients, and loads their logarithms and shifts.
template<int D> __device__ __forceinline__ void copyStage(const Attention& call, const Matrix& dout,
        const Matrix& lse, const Matrix& delta, const Span& span, int first, int group, int kvHead, char* to,
        float* numbers) {
    copyQueries<D, STREAMED>(to, call.q, span, first, group, kvHead);
    copyQueries<D, STREAMED>(to + STREAMED * D * 2, dout, span, first, group, kvHead);
    cpAsyncCommit();
    if (threadIdx.x < STREAMED) {
        int query = first + threadIdx.x;
        bool real = query < span.count * group;
        int row = span.row + query / group, head = kvHead * group + query % group;
        numbers[threadIdx.x] = real ? load(lse, row, head) * LOG2E : 0;
        numbers[STREAMED + threadIdx.x] = real ? load(delta, row, head) : 0;
    }
}

template<int D> __device__ void gradientOfKeys(const Attention& call, const Matrix& dk, const Matrix& dv,
        const Matrix& dout, const Matrix& lse, const Matrix& delta, char* shared) {
    constexpr int BYTES = 2 * STREAMED * D * 2;
    int lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * 16;
    int group = call.heads / call.kvHeads, kvHead = blockIdx.x % call.kvHeads;
    SpanTile tile = call.tiles[blockIdx.x / call.kvHeads];
    Span span = call.spans[tile.span];
    int key0 = tile.first;
    char* ks = shared;
    char* vs = ks + BLOCK * D * 2;
    char* streamed = vs + BLOCK * D * 2;
    float* numbers = (float*) (streamed + 2 * BYTES);
    // queries from the first key's position to the last that sees the last key
    int end = span.count;
    if (call.window > 0) end = min(end, key0 + BLOCK - 1 + call.window);
    int begin = key0 * group, stop = end * group;
    copyRows<D, BLOCK>(ks, blockOf(call.keys, nullptr, nullptr, 0, span, key0 / BLOCK, kvHead, D));
    copyRows<D, BLOCK>(vs, blockOf(call.values, nullptr, nullptr, 0, span, key0 / BLOCK, kvHead, D));
    copyStage<D>(call, dout, lse, delta, span, begin, group, kvHead, streamed, numbers);
    float sumK[D / 8][4] = {}, sumV[D / 8][4] = {};
    float scale = call.scale * LOG2E;
    for (int first = begin; first < stop; first += STREAMED) {
        int now = (first - begin) / STREAMED % 2;
        cpAsyncWait<0>();
        __syncthreads();
        if (first + STREAMED < stop)
            copyStage<D>(call, dout, lse, delta, span, first + STREAMED, group, kvHead,
                streamed + (now ^ 1) * BYTES,
                numbers + (now ^ 1) * 2 * STREAMED);
        char* qs = streamed + now * BYTES;
        char* dos = qs + STREAMED * D * 2;
        const float* logarithms = numbers + now * 2 * STREAMED;
        float s[4][4], dp[4][4];
        products<D, 4>(s, ks, row0, qs);
        products<D, 4>(dp, vs, row0, dos);
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int column = n * 8 + lane % 4 * 2 + i % 2, query = first + column;
                int key = key0 + row0 + lane / 4 + i / 2 * 8, position = query / group;
                bool in = query < span.count * group && key <= position
                    && key >= firstKey(position, call.window);
                float p = in ? exp2Fast(s[n][i] * scale - logarithms[column]) : 0;
                s[n][i] = p;
                dp[n][i] = in ? p * (dp[n][i] - logarithms[STREAMED + column]) : 0;
            }
        addProducts<D, 4>(sumV, s, dos);
        addProducts<D, 4>(sumK, dp, qs);
    }
    cpAsyncWait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int key = key0 + row0 + lane / 4 + 8 * h;
        if (key >= span.count) continue;
        storeRows<D>(dk, span.row + key, kvHead * D + lane % 4 * 2, sumK, h, call.scale);
        storeRows<D>(dv, span.row + key, kvHead * D + lane % 4 * 2, sumV, h, 1);
    }
}

// Grid: tiles of BLOCK keys times key heads; 128 threads; shared memory: 4·64 rows and 4·STREAMED floats.
extern "C" __global__ void __launch_bounds__(128) attention_mma_backward_keys_64(Matrix dk, Matrix dv,
        Matrix dout, Matrix lse, Matrix delta, Matrix q, Matrix keys, Matrix values, const Span* spans,
        const SpanTile* tiles, int heads, int kvHeads, int headDim, int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    gradientOfKeys<64>({q, keys, values, nullptr, nullptr, 0, 0, spans, tiles, heads, kvHeads, window, scale},
        dk, dv, dout, lse, delta, shared);
}

extern "C" __global__ void __launch_bounds__(128) attention_mma_backward_keys_128(Matrix dk, Matrix dv,
        Matrix dout, Matrix lse, Matrix delta, Matrix q, Matrix keys, Matrix values, const Span* spans,
        const SpanTile* tiles, int heads, int kvHeads, int headDim, int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    gradientOfKeys<128>({q, keys, values, nullptr, nullptr, 0, 0, spans, tiles, heads, kvHeads, window,
        scale}, dk, dv, dout, lse, delta, shared);
}
