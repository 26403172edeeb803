// The twin of the product's wgmma.cuh: a product is computed where it is started, or at the wait for its group.
#pragma once
#include "ptx.cuh"

static inline void asyncFence() {}
static inline void wgmmaFence() { emu_warp_barrier(~0u); }
static inline void wgmmaCommit() { emu_product_commit(); }
template<int NEWEST> static inline void wgmmaWait() {
    emu_warp_barrier(~0u);
    emu_product_wait(NEWEST);
}
template<int N> static inline void sumsBarrier(float (&)[N]) {}
template<int N> static inline void operandBarrier(unsigned (&)[N][4]) {}

namespace emu {
// Where a chunk of shared memory lies whose rows are swizzled by 128 bytes.
static inline const char* swizzled(const char* at) {
    return (const char*) ((uintptr_t) at ^ ((uintptr_t) at >> 7 & 7) << 4);
}
static inline float widen(unsigned bits) { return __uint_as_float(bits << 16); }
// The term of a step that is added as number i where the left operand is in registers: the first ones first,
// unless the fault `warpgroups` is asked for.
static inline int term(int i) {
#ifdef EMU_WARPGROUPS_DIFFER
    return 15 - i;
#else
    return i;
#endif
}
// 16 elements of a row, two chunks.
static inline void rowOf16(float (&to)[16], const void* from, int row) {
    const char* at = (const char*) from + row / 8 * 1024 + row % 8 * 128;
    for (int c = 0; c < 2; c++) {
        const unsigned* words = (const unsigned*) swizzled(at + 16 * c);
        for (int i = 0; i < 4; i++) {
            unsigned word = words[i];
            to[c * 8 + 2 * i] = widen(word & 0xffff);
            to[c * 8 + 2 * i + 1] = widen(word >> 16);
        }
    }
}
// The operands of a product.
struct Rows { float* d; const void* a; const void* b; bool add; };
struct Columns { float* d; const unsigned* a; const void* b; unsigned leading; };

static inline void rows(const void* product) {
    auto [d, a, b, add] = *(const Rows*) product;
    int row = emu_thread->index.x / 32 % 4 * 16 + emu_thread->lane / 4, pair = emu_thread->lane % 4 * 2;
    float left[2][16], right[16];
    for (int h = 0; h < 2; h++) rowOf16(left[h], a, row + 8 * h);
    for (int n = 0; n < 8; n++)
        for (int i = 0; i < 2; i++) {
            rowOf16(right, b, n * 8 + pair + i);
            for (int h = 0; h < 2; h++) {
                float sum = add ? d[n * 4 + 2 * h + i] : 0;
                for (int k = 0; k < 16; k++) sum += left[h][k] * right[k];
                d[n * 4 + 2 * h + i] = sum;
            }
        }
    emu_warp_barrier(~0u);
}

template<int N> static inline void columns(const void* product) {
    auto [d, a, b, leading] = *(const Columns*) product;
    struct Mine { unsigned a[4]; } mine{{a[0], a[1], a[2], a[3]}};
    char* slots = emu_exchange(~0u, &mine, sizeof mine, nullptr);
    int quad = emu_thread->lane / 4, pair = emu_thread->lane % 4 * 2;
    float left[2][16];
    for (int l = 0; l < 4; l++) {
        auto* from = (Mine*) (slots + (quad * 4 + l) * 64);
        for (int i = 0; i < 4; i++) {
            left[i % 2][i / 2 * 8 + l * 2] = widen(from->a[i] & 0xffff);
            left[i % 2][i / 2 * 8 + l * 2 + 1] = widen(from->a[i] >> 16);
        }
    }
    emu_warp_barrier(~0u);
    for (int n = 0; n < N / 4; n++)
        for (int i = 0; i < 16; i++) {
            int column = n * 8 + pair, k = term(i);
            const char* at = (const char*) b + column / 64 * leading + k / 8 * 1024 + k % 8 * 128
                + column % 64 * 2;
            unsigned word = *(const unsigned*) swizzled(at);
            for (int h = 0; h < 2; h++) {
                d[n * 4 + 2 * h] += left[h][k] * widen(word & 0xffff);
                d[n * 4 + 2 * h + 1] += left[h][k] * widen(word >> 16);
            }
        }
    emu_warp_barrier(~0u);
}
}

static inline void wgmmaRows(float (&d)[32], const void* a, unsigned offsetA, const void* b, unsigned offsetB,
        bool add) {
    emu::Rows product{d, (const char*) a + offsetA, (const char*) b + offsetB, add};
    emu_product(emu::rows, &product, sizeof product);
}

template<int N> static inline void wgmmaColumns(float (&d)[N], const unsigned (&a)[4], const void* b,
        unsigned offset, unsigned leading) {
    emu::Columns product{d, a, (const char*) b + offset, leading};
    emu_product(emu::columns<N>, &product, sizeof product);
}
