// The softmax of attention on tensor cores, one block of keys after another (Dao 2023): both kinds of kernels
// compute it with this, so that a query has the same bits in each. Where a product and a sum could become one
// operation, it is said which is meant: a compiler would choose for each kernel by itself.
#pragma once
#include "common.cuh"
#include "tiles.cuh"
#include "spans.cuh"

constexpr float LOG2E = 1.4426950408889634f;

// The operands of attention.
struct Attention {
    Matrix q;
    Matrix keys;                 // packed; for pages only the element type
    Matrix values;
    const long long* pages;
    const int* blockTable;
    long long keyOffset;
    long long valueOffset;
    const Span* spans;
    const SpanTile* tiles;
    int heads;
    int kvHeads;
    int window;
    float scale;
};

__device__ __forceinline__ float quadMax(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL, x, 2));
}

__device__ __forceinline__ float quadSum(float x) {
    x += __shfl_xor_sync(ALL, x, 1);
    return x + __shfl_xor_sync(ALL, x, 2);
}

// A row's scores of the keys that its query does not see become -infinity. Scores are in the places of
// mmaBf16.
//
// half: 0 for the lane's upper row, 1 for its lower one
// first: the block's first key
// position: the query's
__device__ __forceinline__ void hide(float (&s)[BLOCK / 2], int half, int first, int position, int window) {
    int key = first + threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < BLOCK / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (!sees(position, key + n * 8 + i, window)) s[4 * n + 2 * half + i] = -INFINITE;
}

// What a lane knows of its two rows of 16, 8 apart: the largest score in base 2 and its part of the sum of
// weights.
struct Softmax {
    float most[2];
    float total[2];

    __device__ __forceinline__ Softmax() : most{-INFINITE, -INFINITE}, total{0, 0} {}

    // A block's scores become weights; `shrink` is what takes the sums of earlier blocks to the new maximum.
    __device__ __forceinline__ void weigh(float (&s)[BLOCK / 2], float (&shrink)[2], float scale) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = most[h];
#pragma unroll
            for (int n = 0; n < BLOCK / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float x = __fmul_rn(s[4 * n + 2 * h + i], scale);
                    s[4 * n + 2 * h + i] = x;
                    top = fmaxf(top, x);
                }
            top = quadMax(top);
            float base = top == -INFINITE ? 0 : top;
            shrink[h] = exp2Fast(most[h] - base);
            float more = 0;
#pragma unroll
            for (int n = 0; n < BLOCK / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float p = exp2Fast(__fadd_rn(s[4 * n + 2 * h + i], -base));
                    s[4 * n + 2 * h + i] = p;
                    more += p;
                }
            total[h] = __fmaf_rn(total[h], shrink[h], more);
            most[h] = top;
        }
    }

    // The sum of a row's weights, after the last block.
    __device__ __forceinline__ float all(int half) const {
        return quadSum(total[half]);
    }

    // The logarithm of a row's sum of exponentials, of which the sum of weights is `all`.
    __device__ __forceinline__ float logarithm(int half, float all) const {
        return (most[half] + log2f(all)) / LOG2E;
    }
};

// Sums of a lane's two rows shrink to a new maximum.
template<int N> __device__ __forceinline__ void shrinkSums(float (&sum)[N], const float (&shrink)[2]) {
#pragma unroll
    for (int i = 0; i < N; i++) sum[i] *= shrink[i / 2 % 2];
}
