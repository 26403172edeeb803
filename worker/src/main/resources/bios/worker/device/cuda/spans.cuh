// Where the sequences of a pass find their keys and values.
#pragma once
#include "common.cuh"
#include "tiles.cuh"

constexpr int BLOCK = 64;    // positions of a block of keys and of a page

// A sequence of a pass.
struct Span {
    int row;         // of its first query
    int count;       // queries
    int position;    // of its first query
    int pages;       // index of its first page in the block table; -1: packed
};

// Where the keys and values of the rows of a pass are cached, in one layer; without pages, nowhere. A row
// without a span pads the pass.
struct Destination {
    const long long* pages;
    const int* blockTable;
    long long keyOffset, valueOffset;
    const Span* spans;
    const int* rowSpans;
    int headDim, dtype;
};

// The heads of the page of a row's position and the position in it: of keys or values, `[heads · BLOCK, headDim]`.
__device__ __forceinline__ Matrix pageOf(const Destination& to, bool values, int row, int heads,
        int& at) {
    Span span = to.spans[to.rowSpans[row]];
    int position = span.position + row - span.row;
    char* page = (char*) to.pages[to.blockTable[span.pages + position / BLOCK]];
    int bytes = to.dtype == DT_BF16 ? 2 : 4;
    at = position % BLOCK;
    return {page + (values ? to.valueOffset : to.keyOffset), to.headDim, heads * BLOCK, to.headDim, to.dtype,
            to.headDim * bytes % 16 == 0};
}

// A tile of a sequence.
struct SpanTile {
    int span;
    int first;       // query, counted over positions and the heads that share a key head
};

// The positions of one head in a block, as many as the sequence has.
__device__ __forceinline__ Matrix blockOf(const Matrix& packed, const long long* pages, const int* table,
        long long offset, const Span& span, int block, int head, int headDim) {
    int rows = min(BLOCK, span.position + span.count - block * BLOCK);
    int bytes = packed.dtype == DT_BF16 ? 2 : 4;
    bool wide = packed.wide && headDim * bytes % 16 == 0;
    if (span.pages < 0) {
        long long at = (long long) (span.row + block * BLOCK) * packed.stride + head * headDim;
        return {packed.data + at * bytes, packed.stride, rows, headDim, packed.dtype, wide};
    }
    char* page = (char*) pages[table[span.pages + block]];
    return {page + offset + (long long) head * BLOCK * headDim * bytes, headDim, rows, headDim, packed.dtype,
            wide};
}

// The first position that a query attends to.
__device__ __forceinline__ int firstKey(int position, int window) {
    return window <= 0 ? 0 : max(0, position - window + 1);
}

// Whether a query attends to a key, by their positions.
__device__ __forceinline__ bool sees(int query, int key, int window) {
    return (unsigned) (query - key) < (window > 0 ? (unsigned) window : 0x80000000u);
}
