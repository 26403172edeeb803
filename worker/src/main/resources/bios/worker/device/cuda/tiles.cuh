// Elements of matrices by fours, and the tiles of the slots of a pass.
#pragma once
#include "common.cuh"

#define INFINITE __int_as_float(0x7f800000)
#define NOT_A_NUMBER __int_as_float(0x7fffffff)

// v ← four elements of a row from a column that is a multiple of 4; zeros where the matrix ends.
__device__ __forceinline__ void load4(float (&v)[4], const Matrix& m, long long row, int column) {
    long long at = row * m.stride + column;
    bool inside = row >= 0 && row < m.rows;
    if (inside && m.wide && column + 4 <= m.columns) {
        if (m.dtype == DT_BF16) {
            uint2 bits = *(const uint2*) ((const unsigned short*) m.data + at);
            v[0] = __uint_as_float(bits.x << 16);
            v[1] = __uint_as_float(bits.x & 0xffff0000u);
            v[2] = __uint_as_float(bits.y << 16);
            v[3] = __uint_as_float(bits.y & 0xffff0000u);
        } else {
            float4 f = *(const float4*) ((const float*) m.data + at);
            v[0] = f.x;
            v[1] = f.y;
            v[2] = f.z;
            v[3] = f.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            v[i] = inside && column + i < m.columns ? load(m, (int) row, column + i) : 0;
    }
}

// Four elements of a row from a column that is a multiple of 4, as far as the row goes.
__device__ __forceinline__ void store4(const Matrix& m, long long row, int column, const float (&v)[4]) {
    long long at = row * m.stride + column;
    if (m.wide && column + 4 <= m.columns) {
        if (m.dtype == DT_BF16)
            *(uint2*) ((unsigned short*) m.data + at) = make_uint2(packBf16(v[0], v[1]),
                packBf16(v[2], v[3]));
        else *(float4*) ((float*) m.data + at) = make_float4(v[0], v[1], v[2], v[3]);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) if (column + i < m.columns) store(m, (int) row, column + i, v[i]);
    }
}

// A slot of a pass at one site: consecutive rows and the adapter that they use; rank 0 for none.
struct SlotSite {
    Matrix a;    // [in, rank]
    Matrix b;    // [rank, out]
    Matrix da;   // gradients, data null without
    Matrix db;
    int row;
    int count;
    int rank;
    float scale;
};

// Rows of one tile, counted from the first row of the view; slot -1 for rows without an adapter.
struct SlotTile {
    int slot;
    int row;
    int rows;
};

// The tile of number `tile` among the tiles of `size` rows of rows from..from+count of a pass: each slot's
// own, and with `gaps` those of the rows between slots. rows is 0 after the last.
__device__ __forceinline__ SlotTile slotTile(const SlotSite* slots, int n, int from, int count, int size,
        bool gaps, int tile) {
    int at = from;
    for (int i = 0; i <= n; i++) {
        int first = i == n ? from + count : max(slots[i].row, from);
        int end = i == n ? first : min(slots[i].row + slots[i].count, from + count);
        if (i < n && end <= first) continue;
        int tiles = gaps ? (first - at + size - 1) / size : 0;
        if (tile < tiles) return {-1, at - from + tile * size, min(size, first - at - tile * size)};
        tile -= tiles;
        tiles = (end - first + size - 1) / size;
        if (tile < tiles) return {i, first - from + tile * size, min(size, end - first - tile * size)};
        tile -= tiles;
        at = end;
    }
    return {-1, 0, 0};
}

// Whether a slot's tile is there and its adapter has a rank of that number.
__device__ __forceinline__ bool hasRank(const SlotTile& tile, const SlotSite* slots, int rank) {
    return tile.rows > 0 && rank < slots[tile.slot].rank;
}

// The first row of a slot in the view that begins at row `from` of the pass.
__device__ __forceinline__ int firstRow(const SlotSite& slot, int from) {
    return max(slot.row, from) - from;
}

// The row after its last one in that view, which has `rows` rows.
__device__ __forceinline__ int endRow(const SlotSite& slot, int from, int rows) {
    return min(slot.row + slot.count - from, rows);
}

constexpr int TERMS = 3;     // bf16 numbers whose sum is an fp32 number

// The right operand of a product of 16 terms on tensor cores: of each number its bf16 parts, the largest
// first. f holds what is left.
__device__ __forceinline__ void splitRight(unsigned (&b)[TERMS][2], float (&f)[4]) {
#pragma unroll
    for (int t = 0; t < TERMS; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            b[t][i] = packBf16(f[2 * i], f[2 * i + 1]);
            f[2 * i] -= __uint_as_float(b[t][i] << 16);
            f[2 * i + 1] -= __uint_as_float(b[t][i] & 0xffff0000u);
        }
}

// A left operand as TERMS of bf16.
__device__ __forceinline__ void splitLeft(unsigned (&a)[TERMS][4], float (&f)[2][4]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        unsigned parts[TERMS][2];
        splitRight(parts, f[h]);
#pragma unroll
        for (int t = 0; t < TERMS; t++) {
            a[t][h] = parts[t][0];
            a[t][h + 2] = parts[t][1];
        }
    }
}

// Whether this is the last of some blocks to come here, known to all its threads; what all have written
// before is seen by it: one thread's fences, between barriers, are those of its block. Their counter is 0
// before and afterwards.
__device__ __forceinline__ bool isLastBlock(unsigned* counter, int blocks) {
    __shared__ int arrived;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        arrived = (int) atomicAdd(counter, 1u);
        if (arrived == blocks - 1) *counter = 0;
        __threadfence();
    }
    __syncthreads();
    return arrived == blocks - 1;
}
