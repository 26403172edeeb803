// The verbs on rows: memory, norms, rotations, gates. Twins of bios.worker.kernel.RmsNorm, Rope and SwiGlu.
#include "common.cuh"
#include "spans.cuh"

// ---- one vector of eight elements for each thread: grid ceil(rows * ceil(columns / 8) / 256), 256 threads ----

/// The place of this thread's vector.
struct Place {
    int row, column, count;
};

/// x / y, in 32 bits where they suffice: a division of 64 bits takes longer than what a thread has to do.
__device__ inline long long quotient(long long x, int y) {
    return x >> 32 == 0 ? (unsigned) x / (unsigned) y : x / y;
}

/// Whether this thread has a vector of a matrix with such rows and columns.
__device__ inline bool place(Place& at, int rows, int columns) {
    long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x;
    int vectors = vectorsOf(columns);
    if (vectors == 0 || i >= (long long) rows * vectors) return false;
    at.row = (int) quotient(i, vectors);
    at.column = (int) (i - (long long) at.row * vectors) * VECTOR;
    at.count = minimum(VECTOR, columns - at.column);
    return true;
}

extern "C" __global__ void fill(Matrix to, float value) {
    begin();
    Place at;
    if (!place(at, to.rows, to.columns)) return;
    float v[VECTOR];
#pragma unroll
    for (int i = 0; i < VECTOR; i++) v[i] = value;
    store8(to, at.row, at.column, at.count, v);
}

extern "C" __global__ void copy(Matrix to, Matrix from) {
    begin();
    Place at;
    if (!place(at, to.rows, to.columns)) return;
    float v[VECTOR];
    load8(v, from, at.row, at.column, at.count, 0.0f);
    store8(to, at.row, at.column, at.count, v);
}

/// to[i] ← from[rows[i]]; zeros where there is no such row.
extern "C" __global__ void gather(Matrix to, Matrix from, Matrix rows, int kind, long long faults) {
    begin();
    Place at;
    if (!place(at, to.rows, to.columns)) return;
    int row = intAt(rows, at.row);
    float v[VECTOR] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (inRange(row, from.rows, kind, faults)) load8(v, from, row, at.column, at.count, 0.0f);
    store8(to, at.row, at.column, at.count, v);
}

/// y ← silu(gate) · up.
extern "C" __global__ void swiglu(Matrix y, Matrix gate, Matrix up) {
    begin();
    Place at;
    if (!place(at, y.rows, y.columns)) return;
    float g[VECTOR], u[VECTOR], v[VECTOR];
    load8(g, gate, at.row, at.column, at.count, 0.0f);
    load8(u, up, at.row, at.column, at.count, 0.0f);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) v[i] = g[i] * (1.0f / (1.0f + exponential(-g[i]))) * u[i];
    store8(y, at.row, at.column, at.count, v);
}

/// dgate ← dy·up·σ·(1 + gate·(1 - σ)), dup ← dy·gate·σ. Results may be in the operands' memory.
extern "C" __global__ void swiglu_backward(Matrix dgate, Matrix dup, Matrix dy, Matrix gate, Matrix up) {
    begin();
    Place at;
    if (!place(at, dy.rows, dy.columns)) return;
    float d[VECTOR], g[VECTOR], u[VECTOR];
    load8(d, dy, at.row, at.column, at.count, 0.0f);
    load8(g, gate, at.row, at.column, at.count, 0.0f);
    load8(u, up, at.row, at.column, at.count, 0.0f);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        float s = 1.0f / (1.0f + exponential(-g[i]));
        float dg = d[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
        u[i] = d[i] * g[i] * s;
        g[i] = dg;
    }
    store8(dgate, at.row, at.column, at.count, g);
    store8(dup, at.row, at.column, at.count, u);
}

/// One element of a rotated pair: own·cos + other·sin, with one rounding of the product and one of the fused
/// multiply-add in every kernel, so that kernels agree in all bits.
__device__ inline float turned(float own, float other, float cos, float sin) {
    return __fmaf_rn(own, cos, __fmul_rn(other, sin));
}

/// Rotates the pairs (i, i + headDim / 2) of each head by the angle of its position, in place; sign -1: the
/// other way. Eight pairs for each thread: grid ceil(rows * heads * ceil(headDim / 16) / 256), 256 threads.
extern "C" __global__ void rope(Matrix x, Matrix positions, Matrix cos, Matrix sin, int headDim, float sign,
                                long long faults) {
    begin();
    long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x;
    int half = headDim / 2;
    int vectors = vectorsOf(half);
    long long perRow = (long long) (x.columns / headDim) * vectors;
    if (i >= x.rows * perRow) return;
    int row = (int) quotient(i, (int) perRow);
    int vector = (int) (i - row * perRow);
    int head = vector / vectors;
    int at = (vector - head * vectors) * VECTOR;
    int count = minimum(VECTOR, half - at);
    int position = intAt(positions, row);
    if (!inRange(position, cos.rows, FAULT_POSITION, faults)) return;
    int column = head * headDim + at;
    float a[VECTOR], b[VECTOR], c[VECTOR], s[VECTOR];
    load8(a, x, row, column, count, 0.0f);
    load8(b, x, row, column + half, count, 0.0f);
    load8(c, cos, position, at, count, 0.0f);
    load8(s, sin, position, at, count, 0.0f);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) {
        float t = sign * s[j];
        float first = turned(a[j], b[j], c[j], -t);
        b[j] = turned(b[j], a[j], c[j], t);
        a[j] = first;
    }
    store8(x, row, column, count, a);
    store8(x, row, column + half, count, b);
}

// ---- norms: `width` threads for each row, 32 or the whole block of 256: grid ceil(rows / (256 / width)).
// A thread holds its first CACHED vectors of a row, and loads others twice ----

const int CACHED = 2;

/// The sum over the threads of a row.
__device__ inline float rowSum(float v, int width, float* room) {
    return width == WARP ? warpSum(v) : blockSum(v, room);
}

/// sum + Σ v², in the order of the vector.
__device__ inline float squares(float sum, const float* v) {
#pragma unroll
    for (int j = 0; j < VECTOR; j++) sum = __fmaf_rn(v[j], v[j], sum);
    return sum;
}

__device__ inline float inverseRoot(float sum, int columns, float eps) {
    return 1.0f / sqrtf(sum / columns + eps);
}

/// A vector of a row: v ← v · scale · weight.
__device__ inline void normed(float* v, float scale, const Matrix& weight, int column, int count) {
    float w[VECTOR];
    load8(w, weight, 0, column, count, 0.0f);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) v[j] = v[j] * scale * w[j];
}

/// A vector of y ← v · scale · weight.
__device__ inline void normed(const Matrix& y, int row, int column, float* v, float scale,
                              const Matrix& weight) {
    int count = minimum(VECTOR, y.columns - column);
    normed(v, scale, weight, column, count);
    store8(y, row, column, count, v);
}

/// y ← x · inverse · weight, inverse ← 1 / √(mean(x²) + eps).
extern "C" __global__ void __launch_bounds__(256)
rms_norm(Matrix y, Matrix inverse, Matrix x, Matrix weight, float eps, int width) {
    begin();
    __shared__ float room[WARP];
    int row = blockIdx.x * (blockDim.x / width) + threadIdx.x / width;
    int lane = threadIdx.x % width;
    int vectors = row < x.rows ? vectorsOf(x.columns) : 0;
    float cached[CACHED][VECTOR];
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < CACHED; k++) {
        int i = lane + k * width;
        if (i < vectors) load8(cached[k], x, row, i * VECTOR, minimum(VECTOR, x.columns - i * VECTOR), 0.0f);
    }
#pragma unroll
    for (int k = 0; k < CACHED; k++)
        if (lane + k * width < vectors) sum = squares(sum, cached[k]);
    for (int i = lane + CACHED * width; i < vectors; i += width) {
        float v[VECTOR];
        load8(v, x, row, i * VECTOR, minimum(VECTOR, x.columns - i * VECTOR), 0.0f);
        sum = squares(sum, v);
    }
    sum = rowSum(sum, width, room);
    float scale = inverseRoot(sum, x.columns, eps);
#pragma unroll
    for (int k = 0; k < CACHED; k++) {
        int i = lane + k * width;
        if (i < vectors) normed(y, row, i * VECTOR, cached[k], scale, weight);
    }
    for (int i = lane + CACHED * width; i < vectors; i += width) {
        float v[VECTOR];
        load8(v, x, row, i * VECTOR, minimum(VECTOR, x.columns - i * VECTOR), 0.0f);
        normed(y, row, i * VECTOR, v, scale, weight);
    }
    if (row < x.rows && lane == 0) store(inverse, row, 0, scale);
}

/// A vector of x, and of dy·weight.
__device__ inline void loadWeighted(float* v, float* d, const Matrix& x, const Matrix& dy,
                                    const Matrix& weight, int row, int column) {
    float w[VECTOR];
    int count = minimum(VECTOR, x.columns - column);
    load8(v, x, row, column, count, 0.0f);
    load8(d, dy, row, column, count, 0.0f);
    load8(w, weight, 0, column, count, 0.0f);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) d[j] = d[j] * w[j];
}

/// A vector of dx += scale·(d − v·mean).
__device__ inline void addNormed(const Matrix& dx, int row, int column, const float* v, const float* d,
                                 float scale, float mean) {
    float to[VECTOR];
    int count = minimum(VECTOR, dx.columns - column);
    load8(to, dx, row, column, count, 0.0f);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) to[j] += scale * (d[j] - v[j] * mean);
    store8(dx, row, column, count, to);
}

/// dx += inverse·(dy·weight − x·inverse²·mean(dy·weight·x)).
extern "C" __global__ void __launch_bounds__(256)
rms_norm_backward_add(Matrix dx, Matrix dy, Matrix x, Matrix inverse, Matrix weight, int width) {
    begin();
    __shared__ float room[WARP];
    int row = blockIdx.x * (blockDim.x / width) + threadIdx.x / width;
    int lane = threadIdx.x % width;
    int vectors = row < x.rows ? vectorsOf(x.columns) : 0;
    float cached[CACHED][VECTOR], weighted[CACHED][VECTOR];
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < CACHED; k++)
        if (lane + k * width < vectors)
            loadWeighted(cached[k], weighted[k], x, dy, weight, row, (lane + k * width) * VECTOR);
#pragma unroll
    for (int k = 0; k < CACHED; k++)
        if (lane + k * width < vectors) {
#pragma unroll
            for (int j = 0; j < VECTOR; j++) sum += weighted[k][j] * cached[k][j];
        }
    for (int i = lane + CACHED * width; i < vectors; i += width) {
        float v[VECTOR], d[VECTOR];
        loadWeighted(v, d, x, dy, weight, row, i * VECTOR);
#pragma unroll
        for (int j = 0; j < VECTOR; j++) sum += d[j] * v[j];
    }
    sum = rowSum(sum, width, room);
    float scale = row < x.rows ? load(inverse, row, 0) : 0.0f;
    float mean = sum / x.columns * scale * scale;
#pragma unroll
    for (int k = 0; k < CACHED; k++)
        if (lane + k * width < vectors)
            addNormed(dx, row, (lane + k * width) * VECTOR, cached[k], weighted[k], scale, mean);
    for (int i = lane + CACHED * width; i < vectors; i += width) {
        float v[VECTOR], d[VECTOR];
        loadWeighted(v, d, x, dy, weight, row, i * VECTOR);
        addNormed(dx, row, i * VECTOR, v, d, scale, mean);
    }
}

// ---- heads before attention ----

/// Queries or keys; without a norm, `weight` and `inverse` are absent.
struct Heads {
    Matrix to, raw, weight, inverse;
    float eps;
};

/// Rotates the vector of this lane if it has one. The other elements of its pairs are in the lane that is half a
/// head away.
__device__ inline void rotate(float* v, const Matrix& cos, const Matrix& sin, int position, int headDim,
                              bool has) {
    int lane = threadIdx.x % WARP, half = headDim / 2, at = lane * VECTOR;
    bool first = at < half;
    int other = first ? lane + half / VECTOR : lane - half / VECTOR;
    float c[VECTOR], s[VECTOR];
    if (has) load8(c, cos, position, first ? at : at - half, VECTOR, 0.0f);
    if (has) load8(s, sin, position, first ? at : at - half, VECTOR, 0.0f);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) {
        float pair = __shfl_sync(ALL, v[j], has ? other : lane);
        if (has) v[j] = turned(v[j], pair, c[j], first ? -s[j] : s[j]);
    }
}

/// Norms of single heads, their rotation, and the pages of keys and values, with the bits of rms_norm, rope and
/// append_pages. Heads have a multiple of 16 elements, at most 256. A warp for each head of a row, of queries, keys
/// and, if there are pages, values: grid ceil(rows * heads / 8), 256 threads.
extern "C" __global__ void __launch_bounds__(256)
prepare_heads(Heads queries, Heads keys, Matrix values, Matrix positions, Matrix cos, Matrix sin, long long faults,
              Destination to) {
    begin();
    int headDim = to.headDim;
    int ofQueries = queries.to.columns / headDim, ofKeys = keys.to.columns / headDim;
    int heads = ofQueries + ofKeys * (to.pages ? 2 : 1);
    long long i = blockIdx.x * (long long) (blockDim.x / WARP) + threadIdx.x / WARP;
    if (i >= (long long) queries.to.rows * heads) return;
    int row = (int) quotient(i, heads);
    int head = (int) (i - (long long) row * heads);
    int lane = threadIdx.x % WARP, at = lane * VECTOR;
    bool has = at < headDim, isQuery = head < ofQueries, isValue = head >= ofQueries + ofKeys;
    if (!isQuery) head = isValue ? head - ofQueries - ofKeys : head - ofQueries;
    int column = head * headDim + at;
    // the loads that depend on each other begin before the sum of squares
    int position = isValue ? 0 : intAt(positions, row), within = 0;
    bool paged = !isQuery && to.pages && has && to.rowSpans[row] >= 0;
    Matrix page = {};
    if (paged) page = pageOf(to, isValue, row, ofKeys, within);
    float v[VECTOR] = {0, 0, 0, 0, 0, 0, 0, 0}, scale = 1.0f;
    if (isValue) {
        if (has) load8(v, values, row, column, VECTOR, 0.0f);
    } else {
        const Heads& own = isQuery ? queries : keys;
        bool narrow = own.to.dtype == DT_BF16;
        if (has) load8(v, own.raw, row, column, VECTOR, 0.0f);
        if (own.weight.data) {
            scale = inverseRoot(warpSum(squares(0.0f, v)), headDim, own.eps);
            if (has) normed(v, scale, own.weight, at, VECTOR);
#pragma unroll
            for (int j = 0; j < VECTOR; j++)
                if (narrow) v[j] = rounded(v[j]);
        }
        if (inRange(position, cos.rows, FAULT_POSITION, faults)) rotate(v, cos, sin, position, headDim, has);
        if (own.weight.data && lane == 0)
            store(own.inverse, row * (isQuery ? ofQueries : ofKeys) + head, 0, scale);
        if (has) store8(own.to, row, column, VECTOR, v);
#pragma unroll
        for (int j = 0; j < VECTOR; j++)
            if (narrow) v[j] = rounded(v[j]);
    }
    if (paged) store8(page, head * BLOCK + within, at, VECTOR, v);
}

// ---- weights of a file ----

/// first ← the smaller of it and the number, row by row, of the first element whose exponent is all ones.
/// The elements have two bytes or four. Any grid, 256 threads.
extern "C" __global__ void first_not_finite(Matrix m, int exponent, u64* first) {
    begin();
    long long n = (long long) m.rows * m.columns;
    long long step = (long long) gridDim.x * blockDim.x;
    for (long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x; i < n; i += step) {
        int bits = m.dtype == DT_F32 ? ((const int*) m.data)[i] : ((const unsigned short*) m.data)[i];
        if ((bits & exponent) == exponent) {
            atomicMin(first, (u64) i);
            break;
        }
    }
}

/// to ← the numbers whose fp16 bits `from` holds. One thread for each element, 256 threads.
extern "C" __global__ void widen_half(Matrix from, Matrix to) {
    begin();
    long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x;
    if (i >= (long long) to.rows * to.columns) return;
    unsigned h = ((const unsigned short*) from.data)[i];
    unsigned sign = (h & 0x8000u) << 16;
    unsigned rest = h & 0x7fffu;
    float magnitude = (rest & 0x7c00u) == 0 ? rest * 5.9604645e-8f
                                            : __uint_as_float((rest << 13) + (112u << 23));
    ((float*) to.data)[i] = __uint_as_float(__float_as_uint(magnitude) | sign);
}
