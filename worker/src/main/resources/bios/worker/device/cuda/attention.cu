// Attention in fp32 for any element types and heads of up to 256 elements; the definition is
// bios.worker.kernel.Attention. A query is a position and a head; those of the heads that share a key head
// follow each other. What a query computes depends on its own row and keys alone.
#include "common.cuh"
#include "tiles.cuh"
#include "spans.cuh"

constexpr int QUERIES = 32;  // of a tile
constexpr int WARP_QUERIES = 4;
constexpr int KEYS = 32;     // of a tile in the gradient of keys and values

// shared [rows, stride] ← a block, zeros after its rows.
__device__ __forceinline__ void loadRows(float* shared, int stride, int rows, const Matrix& from, int first) {
    int fours = (from.columns + 3) / 4;
    for (int i = threadIdx.x; i < rows * fours; i += 256) {
        int row = i / fours, column = i % fours * 4;
        float v[4];
        load4(v, from, first + row, column);
#pragma unroll
        for (int j = 0; j < 4; j++) if (column + j < from.columns) shared[row * stride + column + j] = v[j];
    }
}

// shared [QUERIES, stride] ← the rows of queries first..first + QUERIES of a span, times scale.
__device__ __forceinline__ void loadQueries(float* shared, int stride, const Matrix& from, const Span& span,
        int first, int group, int kvHead, int headDim, float scale) {
    int queries = span.count * group;
    for (int i = threadIdx.x; i < QUERIES * headDim; i += 256) {
        int query = first + i / headDim, d = i % headDim;
        float x = 0;
        if (query < queries)
            x = load(from, span.row + query / group, (kvHead * group + query % group) * headDim + d);
        shared[i / headDim * stride + d] = x * scale;
    }
}

// Products of this warp's queries with keys `lane` and `lane + 32` of a block.
__device__ __forceinline__ void dots(float (&s)[WARP_QUERIES][2], const float* queries,
        const float* keys, int stride, int headDim, int lane) {
#pragma unroll
    for (int i = 0; i < WARP_QUERIES; i++) s[i][0] = s[i][1] = 0;
    for (int d = 0; d < headDim; d++) {
        float k0 = keys[lane * stride + d], k1 = keys[(lane + 32) * stride + d];
#pragma unroll
        for (int i = 0; i < WARP_QUERIES; i++) {
            float q = queries[i * stride + d];
            s[i][0] = __fmaf_rn(q, k0, s[i][0]);
            s[i][1] = __fmaf_rn(q, k1, s[i][1]);
        }
    }
}

// sum[i] += Σ weights[i][j]·rows[j] over COUNT rows; this lane's elements are lane, lane + 32, ...
template<int COUNT, int C> __device__ __forceinline__ void addRows(float (&sum)[WARP_QUERIES][C],
        const float* weights, const float* rows, int stride, int headDim, int lane) {
    for (int j = 0; j < COUNT; j++) {
        float w[WARP_QUERIES];
#pragma unroll
        for (int i = 0; i < WARP_QUERIES; i++) w[i] = weights[i * COUNT + j];
#pragma unroll
        for (int c = 0; c < C; c++) {
            int d = c * 32 + lane;
            float v = d < headDim ? rows[j * stride + d] : 0;
#pragma unroll
            for (int i = 0; i < WARP_QUERIES; i++) sum[i][c] = __fmaf_rn(w[i], v, sum[i][c]);
        }
    }
}

// The operands of an attention call.
struct Call {
    Matrix q;
    Matrix keys;             // packed; for pages only the element type
    Matrix values;
    const long long* pages;  // addresses
    const int* blockTable;
    long long keyOffset;     // bytes from the beginning of a page
    long long valueOffset;
    const Span* spans;
    const SpanTile* tiles;
    int heads;
    int kvHeads;
    int headDim;
    int window;
    float scale;
};

template<int C> __device__ void attend(const Call& call, const Matrix& out, const Matrix& lse, char* shared) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int headDim = call.headDim, stride = headDim | 1, group = call.heads / call.kvHeads;
    SpanTile tile = call.tiles[blockIdx.x / call.kvHeads];
    Span span = call.spans[tile.span];
    int kvHead = blockIdx.x % call.kvHeads;
    float* queries = (float*) shared;
    float* block = queries + QUERIES * stride;
    float* weights = block + BLOCK * stride + warp * WARP_QUERIES * BLOCK;
    loadQueries(queries, stride, call.q, span, tile.first, group, kvHead, headDim, call.scale);
    float sum[WARP_QUERIES][C] = {};
    float most[WARP_QUERIES], total[WARP_QUERIES];
    int position[WARP_QUERIES];
#pragma unroll
    for (int i = 0; i < WARP_QUERIES; i++) {
        most[i] = -INFINITE;
        total[i] = 0;
        int query = min(tile.first + warp * WARP_QUERIES + i, span.count * group - 1);
        position[i] = span.position + query / group;
    }
    int first = span.position + tile.first / group;
    int last = span.position + min(tile.first + QUERIES - 1, span.count * group - 1) / group;
    for (int b = firstKey(first, call.window) / BLOCK; b * BLOCK <= last; b++) {
        __syncthreads();
        loadRows(block, stride, BLOCK, blockOf(call.keys, call.pages, call.blockTable, call.keyOffset, span,
            b, kvHead, headDim), 0);
        __syncthreads();
        float s[WARP_QUERIES][2];
        dots(s, queries + warp * WARP_QUERIES * stride, block, stride, headDim, lane);
#pragma unroll
        for (int i = 0; i < WARP_QUERIES; i++) {
            int from = firstKey(position[i], call.window);
            bool in[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int key = b * BLOCK + lane + 32 * h;
                in[h] = key >= from && key <= position[i];
                if (!in[h]) s[i][h] = -INFINITE;
            }
            float top = fmaxf(most[i], warpMax(fmaxf(s[i][0], s[i][1])));
            // a score that is not a number must not vanish in a maximum
            bool none = top == -INFINITE && __all_sync(ALL, !(in[0] || in[1]));
            float shrink = most[i] == -INFINITE ? 0 : expf(most[i] - top);
            float w0 = in[0] && !none ? expf(s[i][0] - top) : 0;
            float w1 = in[1] && !none ? expf(s[i][1] - top) : 0;
            weights[i * BLOCK + lane] = w0;
            weights[i * BLOCK + lane + 32] = w1;
            if (none) shrink = 1;
            total[i] = total[i] * shrink + warpSum(w0 + w1);
#pragma unroll
            for (int c = 0; c < C; c++) sum[i][c] *= shrink;
            most[i] = top;
        }
        __syncthreads();
        loadRows(block, stride, BLOCK, blockOf(call.values, call.pages, call.blockTable, call.valueOffset,
            span, b, kvHead, headDim), 0);
        __syncthreads();
        addRows<BLOCK>(sum, weights, block, stride, headDim, lane);
    }
#pragma unroll
    for (int i = 0; i < WARP_QUERIES; i++) {
        int query = tile.first + warp * WARP_QUERIES + i;
        if (query >= span.count * group) continue;
        int row = span.row + query / group, head = kvHead * group + query % group;
        float inverse = 1 / total[i];
#pragma unroll
        for (int c = 0; c < C; c++) {
            int d = c * 32 + lane;
            if (d < headDim) store(out, row, head * headDim + d, sum[i][c] * inverse);
        }
        if (lane == 0) store(lse, row, head, most[i] + logf(total[i]));
    }
}

// Grid: tiles times key heads; 256 threads; shared memory: [QUERIES + BLOCK, headDim | 1] and
// [QUERIES, BLOCK].
extern "C" __global__ void __launch_bounds__(256) attention(Matrix out, Matrix lse, Matrix q, Matrix keys,
        Matrix values, const long long* pages, const int* blockTable, long long keyOffset,
        long long valueOffset, const Span* spans, const SpanTile* tiles, int heads, int kvHeads, int headDim,
        int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    Call call{q, keys, values, pages, blockTable, keyOffset, valueOffset, spans, tiles, heads, kvHeads,
        headDim, window, scale};
    if (headDim <= 32) attend<1>(call, out, lse, shared);
    else if (headDim <= 64) attend<2>(call, out, lse, shared);
    else if (headDim <= 128) attend<4>(call, out, lse, shared);
    else attend<8>(call, out, lse, shared);
}

// delta[t, head] ← Σ dout·out of each head. Grid: 8 of rows · heads; 256 threads.
extern "C" __global__ void __launch_bounds__(256) attention_delta(Matrix delta, Matrix dout, Matrix out,
        int headDim) {
    begin();
    int lane = threadIdx.x % 32;
    long long at = (long long) blockIdx.x * 8 + threadIdx.x / 32;
    int row = (int) (at / delta.columns), head = (int) (at % delta.columns);
    if (row >= delta.rows) return;
    float sum = 0;
    for (int d = lane; d < headDim; d += 32)
        sum = __fmaf_rn(load(dout, row, head * headDim + d), load(out, row, head * headDim + d), sum);
    sum = warpSum(sum);
    if (lane == 0) store(delta, row, head, sum);
}

template<int C> __device__ void gradientOfQueries(const Call& call, const Matrix& dq, const Matrix& dout,
        const Matrix& lse, const Matrix& delta, char* shared) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int headDim = call.headDim, stride = headDim | 1, group = call.heads / call.kvHeads;
    SpanTile tile = call.tiles[blockIdx.x / call.kvHeads];
    Span span = call.spans[tile.span];
    int kvHead = blockIdx.x % call.kvHeads;
    float* queries = (float*) shared;
    float* douts = queries + QUERIES * stride;
    float* block = douts + QUERIES * stride;
    float* ds = block + BLOCK * stride + warp * WARP_QUERIES * BLOCK;
    loadQueries(queries, stride, call.q, span, tile.first, group, kvHead, headDim, 1);
    loadQueries(douts, stride, dout, span, tile.first, group, kvHead, headDim, 1);
    float sum[WARP_QUERIES][C] = {};
    float logarithm[WARP_QUERIES], shift[WARP_QUERIES];
    int position[WARP_QUERIES];
#pragma unroll
    for (int i = 0; i < WARP_QUERIES; i++) {
        int query = min(tile.first + warp * WARP_QUERIES + i, span.count * group - 1);
        position[i] = span.position + query / group;
        logarithm[i] = load(lse, span.row + query / group, kvHead * group + query % group);
        shift[i] = load(delta, span.row + query / group, kvHead * group + query % group);
    }
    int first = span.position + tile.first / group;
    int last = span.position + min(tile.first + QUERIES - 1, span.count * group - 1) / group;
    for (int b = firstKey(first, call.window) / BLOCK; b * BLOCK <= last; b++) {
        __syncthreads();
        loadRows(block, stride, BLOCK, blockOf(call.values, call.pages, call.blockTable, call.valueOffset,
            span, b, kvHead, headDim), 0);
        __syncthreads();
        float dp[WARP_QUERIES][2], s[WARP_QUERIES][2];
        dots(dp, douts + warp * WARP_QUERIES * stride, block, stride, headDim, lane);
        __syncthreads();
        loadRows(block, stride, BLOCK, blockOf(call.keys, call.pages, call.blockTable, call.keyOffset, span,
            b, kvHead, headDim), 0);
        __syncthreads();
        dots(s, queries + warp * WARP_QUERIES * stride, block, stride, headDim, lane);
#pragma unroll
        for (int i = 0; i < WARP_QUERIES; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int key = b * BLOCK + lane + 32 * h;
                bool in = key >= firstKey(position[i], call.window) && key <= position[i];
                float p = in ? expf(__fmul_rn(call.scale, s[i][h]) - logarithm[i]) : 0;
                ds[i * BLOCK + lane + 32 * h] = in ? call.scale * p * (dp[i][h] - shift[i]) : 0;
            }
        __syncwarp();
        addRows<BLOCK>(sum, ds, block, stride, headDim, lane);
    }
#pragma unroll
    for (int i = 0; i < WARP_QUERIES; i++) {
        int query = tile.first + warp * WARP_QUERIES + i;
        if (query >= span.count * group) continue;
        int row = span.row + query / group, head = kvHead * group + query % group;
#pragma unroll
        for (int c = 0; c < C; c++) {
            int d = c * 32 + lane;
            if (d < headDim) store(dq, row, head * headDim + d, sum[i][c]);
        }
    }
}

// Grid: tiles times key heads; 256 threads; shared memory: [2·QUERIES + BLOCK, headDim | 1] and
// [QUERIES, BLOCK].
extern "C" __global__ void __launch_bounds__(256) attention_backward_queries(Matrix dq, Matrix dout,
        Matrix lse, Matrix delta, Matrix q, Matrix keys, Matrix values, const Span* spans,
        const SpanTile* tiles,
        int heads, int kvHeads, int headDim, int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    Call call{q, keys, values, nullptr, nullptr, 0, 0, spans, tiles, heads, kvHeads, headDim, window, scale};
    if (headDim <= 32) gradientOfQueries<1>(call, dq, dout, lse, delta, shared);
    else if (headDim <= 64) gradientOfQueries<2>(call, dq, dout, lse, delta, shared);
    else if (headDim <= 128) gradientOfQueries<4>(call, dq, dout, lse, delta, shared);
    else gradientOfQueries<8>(call, dq, dout, lse, delta, shared);
}

template<int C> __device__ void gradientOfKeys(const Call& call, const Matrix& dk, const Matrix& dv,
        const Matrix& dout, const Matrix& lse, const Matrix& delta, char* shared) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int headDim = call.headDim, stride = headDim | 1, group = call.heads / call.kvHeads;
    SpanTile tile = call.tiles[blockIdx.x / call.kvHeads];
    Span span = call.spans[tile.span];
    int kvHead = blockIdx.x % call.kvHeads, key0 = tile.first;
    float* keys = (float*) shared;
    float* values = keys + KEYS * stride;
    float* queries = values + KEYS * stride;
    float* douts = queries + QUERIES * stride;
    float* p = douts + QUERIES * stride + warp * WARP_QUERIES * QUERIES;
    float* ds = p + KEYS * QUERIES;
    loadRows(keys, stride, KEYS, blockOf(call.keys, nullptr, nullptr, 0, span, key0 / BLOCK, kvHead, headDim),
        key0 % BLOCK);
    loadRows(values, stride, KEYS, blockOf(call.values, nullptr, nullptr, 0, span, key0 / BLOCK, kvHead,
        headDim), key0 % BLOCK);
    float sumK[WARP_QUERIES][C] = {}, sumV[WARP_QUERIES][C] = {};
    // queries from the first key's position to the last that sees the last key
    int end = span.count;
    if (call.window > 0) end = min(end, key0 + KEYS - 1 + call.window);
    for (int first = key0 * group; first < end * group; first += QUERIES) {
        __syncthreads();
        loadQueries(queries, stride, call.q, span, first, group, kvHead, headDim, 1);
        loadQueries(douts, stride, dout, span, first, group, kvHead, headDim, 1);
        __syncthreads();
        int query = first + lane;
        bool real = query < span.count * group;
        int position = query / group, head = kvHead * group + query % group;
        float logarithm = real ? load(lse, span.row + position, head) : 0;
        float shift = real ? load(delta, span.row + position, head) : 0;
        float s[WARP_QUERIES] = {}, dp[WARP_QUERIES] = {};
        for (int d = 0; d < headDim; d++) {
            float x = queries[lane * stride + d], y = douts[lane * stride + d];
#pragma unroll
            for (int i = 0; i < WARP_QUERIES; i++) {
                s[i] = __fmaf_rn(x, keys[(warp * WARP_QUERIES + i) * stride + d], s[i]);
                dp[i] = __fmaf_rn(y, values[(warp * WARP_QUERIES + i) * stride + d], dp[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < WARP_QUERIES; i++) {
            int key = key0 + warp * WARP_QUERIES + i;
            bool in = real && key >= firstKey(position, call.window) && key <= position;
            float weight = in ? expf(__fmul_rn(call.scale, s[i]) - logarithm) : 0;
            p[i * QUERIES + lane] = weight;
            ds[i * QUERIES + lane] = in ? call.scale * weight * (dp[i] - shift) : 0;
        }
        __syncwarp();
        addRows<QUERIES>(sumV, p, douts, stride, headDim, lane);
        addRows<QUERIES>(sumK, ds, queries, stride, headDim, lane);
    }
#pragma unroll
    for (int i = 0; i < WARP_QUERIES; i++) {
        int key = key0 + warp * WARP_QUERIES + i;
        if (key >= span.count) continue;
#pragma unroll
        for (int c = 0; c < C; c++) {
            int d = c * 32 + lane;
            if (d >= headDim) continue;
            store(dk, span.row + key, kvHead * headDim + d, sumK[i][c]);
            store(dv, span.row + key, kvHead * headDim + d, sumV[i][c]);
        }
    }
}

// Grid: tiles of KEYS keys times key heads; 256 threads; shared memory: [2·KEYS + 2·QUERIES, headDim | 1] and
// [2·KEYS, QUERIES].
extern "C" __global__ void __launch_bounds__(256) attention_backward_keys(Matrix dk, Matrix dv, Matrix dout,
        Matrix lse, Matrix delta, Matrix q, Matrix keys, Matrix values, const Span* spans,
        const SpanTile* tiles, int heads, int kvHeads, int headDim, int window, float scale) {
    begin();
    DYNAMIC_SHARED(shared);
    Call call{q, keys, values, nullptr, nullptr, 0, 0, spans, tiles, heads, kvHeads, headDim, window, scale};
    if (headDim <= 32) gradientOfKeys<1>(call, dk, dv, dout, lse, delta, shared);
    else if (headDim <= 64) gradientOfKeys<2>(call, dk, dv, dout, lse, delta, shared);
    else if (headDim <= 128) gradientOfKeys<4>(call, dk, dv, dout, lse, delta, shared);
    else gradientOfKeys<8>(call, dk, dv, dout, lse, delta, shared);
}

// Rows of a pass to their places in the pages of a layer; a row without a span pads the pass and has none.
// Grid: rows; 128 threads.
extern "C" __global__ void __launch_bounds__(128) append_pages(Matrix keys, Matrix values,
        Destination to) {
    begin();
    int row = blockIdx.x;
    if (to.rowSpans[row] < 0) return;
    int headDim = to.headDim, heads = keys.columns / headDim, position;
    Matrix k = pageOf(to, false, row, heads, position);
    Matrix v = pageOf(to, true, row, heads, position);
    for (int i = threadIdx.x; i < keys.columns; i += 128) {
        int head = i / headDim * BLOCK + position;
        store(k, head, i % headDim, load(keys, row, i));
        store(v, head, i % headDim, load(values, row, i));
    }
}
