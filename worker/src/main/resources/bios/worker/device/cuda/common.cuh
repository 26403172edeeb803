// What all kernels share: matrices, loads and stores in groups of eight elements, sums of warps and blocks,
// the exponential function. Without any header of CUDA: a node has none.
#pragma once
#include "ptx.cuh"

typedef unsigned long long u64;

/// Dynamic shared memory of the kernel as `char* name`, aligned to 128 bytes.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name)                                  \
    extern __shared__ __align__(128) char name##_dynamic[];   \
    char* name = name##_dynamic
#endif

/// The first statement of every kernel: on cards that start a kernel while the one before it is ending, nothing
/// may be read or written before. Lets the next kernel start as early.
__device__ __forceinline__ void begin() {
    awaitPrevious();
    launchDependents();
}

/// Element types: the numbers of bios.worker.device.DType.
enum { DT_F32 = 0, DT_BF16 = 1, DT_I32 = 2, DT_F64 = 3 };

/// A matrix: row r begins at element r * stride of data. wide: every row begins at a multiple of 16 bytes.
/// An absent matrix has no data.
struct Matrix {
    char* data;
    long long stride;
    int rows;
    int columns;
    int dtype;
    int wide;
};

struct __align__(16) Quad {
    unsigned x, y, z, w;
};

/// Elements that a thread loads at once; also in CudaRows.java.
const int VECTOR = 8;
const int WARP = 32;
const unsigned ALL = 0xffffffffu;

// ---- elements ----

__device__ inline float fromBf16(unsigned short bits) {
    return __uint_as_float((unsigned) bits << 16);
}

/// Rounded to nearest even; NaN stays NaN.
__device__ inline unsigned short toBf16(float x) {
    return (unsigned short) packBf16(x, 0.0f);
}

__device__ inline float rounded(float x) {
    return fromBf16(toBf16(x));
}

__device__ inline float* floatsAt(const Matrix& m, int row, int column) {
    return (float*) m.data + (row * m.stride + column);
}

__device__ inline unsigned short* halvesAt(const Matrix& m, int row, int column) {
    return (unsigned short*) m.data + (row * m.stride + column);
}

__device__ inline int intAt(const Matrix& m, int row) {
    return ((const int*) m.data)[row * m.stride];
}

/// An element of F32 or BF16.
__device__ inline float load(const Matrix& m, int row, int column) {
    return m.dtype == DT_F32 ? *floatsAt(m, row, column) : fromBf16(*halvesAt(m, row, column));
}

/// Sets an element of F32 or BF16.
__device__ inline void store(const Matrix& m, int row, int column, float x) {
    if (m.dtype == DT_F32) *floatsAt(m, row, column) = x;
    else *halvesAt(m, row, column) = toBf16(x);
}

/// v ← up to eight elements from a column that is a multiple of eight of a row's or a head's; the rest is
/// `none`.
__device__ inline void load8(float* v, const Matrix& m, int row, int column, int count, float none) {
    if (m.wide && count == VECTOR && (column & 7) == 0) {
        if (m.dtype == DT_F32) {
            const Quad* from = (const Quad*) floatsAt(m, row, column);
            Quad a = from[0];
            Quad b = from[1];
            v[0] = __uint_as_float(a.x);
            v[1] = __uint_as_float(a.y);
            v[2] = __uint_as_float(a.z);
            v[3] = __uint_as_float(a.w);
            v[4] = __uint_as_float(b.x);
            v[5] = __uint_as_float(b.y);
            v[6] = __uint_as_float(b.z);
            v[7] = __uint_as_float(b.w);
        } else {
            Quad a = *(const Quad*) halvesAt(m, row, column);
            v[0] = __uint_as_float(a.x << 16);
            v[1] = __uint_as_float(a.x & 0xffff0000u);
            v[2] = __uint_as_float(a.y << 16);
            v[3] = __uint_as_float(a.y & 0xffff0000u);
            v[4] = __uint_as_float(a.z << 16);
            v[5] = __uint_as_float(a.z & 0xffff0000u);
            v[6] = __uint_as_float(a.w << 16);
            v[7] = __uint_as_float(a.w & 0xffff0000u);
        }
    } else {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) v[i] = i < count ? load(m, row, column + i) : none;
    }
}

/// The reverse of load8; elements from `count` on are not stored.
__device__ inline void store8(const Matrix& m, int row, int column, int count, const float* v) {
    if (m.wide && count == VECTOR && (column & 7) == 0) {
        if (m.dtype == DT_F32) {
            Quad* to = (Quad*) floatsAt(m, row, column);
            Quad a = {__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]),
                      __float_as_uint(v[3])};
            Quad b = {__float_as_uint(v[4]), __float_as_uint(v[5]), __float_as_uint(v[6]),
                      __float_as_uint(v[7])};
            to[0] = a;
            to[1] = b;
        } else {
            Quad a = {packBf16(v[0], v[1]), packBf16(v[2], v[3]), packBf16(v[4], v[5]),
                      packBf16(v[6], v[7])};
            *(Quad*) halvesAt(m, row, column) = a;
        }
    } else {
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            if (i < count) store(m, row, column + i, v[i]);
    }
}

__device__ inline int minimum(int a, int b) {
    return a < b ? a : b;
}

/// The vectors of a row.
__device__ inline int vectorsOf(int columns) {
    return (columns + VECTOR - 1) / VECTOR;
}

// ---- sums ----

/// The sum of a warp's values, in every lane: pairs of a fixed order.
__device__ inline float warpSum(float v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(ALL, v, offset);
    return v;
}

__device__ inline double warpSum(double v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(ALL, v, offset);
    return v;
}

__device__ inline float warpMax(float v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        float other = __shfl_xor_sync(ALL, v, offset);
        v = other > v ? other : v;
    }
    return v;
}

/// The sum of the values of a block, in every thread: of warps, then of warps in order. `room` is shared
/// memory for as many values as warps. All threads of the block call it.
template <typename T>
__device__ inline T blockSum(T v, T* room) {
    int warps = (blockDim.x + WARP - 1) / WARP;
    v = warpSum(v);
    __syncthreads();
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = v;
    __syncthreads();
    T sum = room[0];
    for (int i = 1; i < warps; i++) sum += room[i];
    return sum;
}

__device__ inline float blockMax(float v, float* room) {
    int warps = (blockDim.x + WARP - 1) / WARP;
    v = warpMax(v);
    __syncthreads();
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = v;
    __syncthreads();
    float most = room[0];
    for (int i = 1; i < warps; i++) most = room[i] > most ? room[i] : most;
    return most;
}

// ---- exp ----

/// exp(x), clamped to [-87, 88], with the bits of bios.worker.kernel.Exp. NaN gives NaN.
__device__ inline float exponential(float x) {
    float z = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = __fadd_rn(fmaf(z, 1.44269504f, 12582912.0f), -12582912.0f);
    float r = fmaf(n, 1.9046542e-9f, fmaf(n, -0.6931472f, z));
    float p = fmaf(1.3863781e-3f, r, 8.3674826e-3f);
    p = fmaf(p, r, 4.1667238e-2f);
    p = fmaf(p, r, 1.6666535e-1f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return p * __int_as_float(((int) n + 127) << 23);
}

/// Threads of a block that computes log Σ exp of a row.
const int LSE_THREADS = 256;

/// log Σ exp of a row, in every thread: each thread takes every 256th vector, in order, with a running
/// maximum; then threads are joined. All threads of a block of LSE_THREADS call it; `room` is shared memory
/// for LSE_THREADS / 32 floats.
__device__ inline float blockLogSumExp(const Matrix& m, int row, float* room) {
    float most = -3.4028235e38f;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < vectorsOf(m.columns); i += LSE_THREADS) {
        float v[VECTOR];
        int count = minimum(VECTOR, m.columns - i * VECTOR);
        load8(v, m, row, i * VECTOR, count, -3.4028235e38f);
        float own = v[0];
#pragma unroll
        for (int j = 1; j < VECTOR; j++) own = v[j] > own ? v[j] : own;
        if (own > most) {
            sum *= exponential(most - own);
            most = own;
        }
#pragma unroll
        for (int j = 0; j < VECTOR; j++)
            if (j < count) sum += exponential(v[j] - most);
    }
    float all = blockMax(most, room);
    sum = blockSum(sum * exponential(most - all), room);
    return all + logf(sum);
}

// ---- faults ----

/// What an operand out of range is: the numbers of CudaTransfers.
enum { FAULT_ROW = 1, FAULT_TOKEN = 2, FAULT_POSITION = 3, FAULT_TARGET = 4 };

/// Whether 0 <= value < limit; if not, it is reported, and the host is told with the next result.
__device__ inline bool inRange(int value, int limit, int kind, long long faults) {
    if (value >= 0 && value < limit) return true;
    Quad fault = {(unsigned) kind, (unsigned) value, (unsigned) limit, 0};
    *(Quad*) faults = fault;
    return false;
}
