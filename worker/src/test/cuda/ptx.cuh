// The twin of the product's ptx.cuh: what each instruction does, for the emulated device.
#pragma once

// d += a·b on a warp: 16x16 by 16x8 bf16, fp32 sums.
static inline void mmaBf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Operands { float d[4]; unsigned a[4], b[2]; } mine, *all;
    memcpy(mine.d, d, 16);
    memcpy(mine.a, a, 16);
    memcpy(mine.b, b, 8);
    char* slots = emu_exchange(~0u, &mine, sizeof mine, [](char* slots) {
        float A[16][16], B[16][8], D[16][8];
        auto half = [](unsigned word, int high) { return __uint_as_float(high ? word & 0xffff0000u : word << 16); };
        for (int lane = 0; lane < 32; lane++) {
            auto* from = (Operands*) (slots + lane * 64);
            int group = lane / 4, pair = lane % 4 * 2;
            for (int i = 0; i < 4; i++) for (int h = 0; h < 2; h++)
                A[group + i % 2 * 8][pair + i / 2 * 8 + h] = half(from->a[i], h);
            for (int i = 0; i < 2; i++) for (int h = 0; h < 2; h++) B[pair + i * 8 + h][group] = half(from->b[i], h);
            for (int i = 0; i < 4; i++) D[group + i / 2 * 8][pair + i % 2] = from->d[i];
        }
        for (int r = 0; r < 16; r++) for (int k = 0; k < 16; k++) for (int n = 0; n < 8; n++) D[r][n] += A[r][k] * B[k][n];
        for (int lane = 0; lane < 32; lane++) {
            auto* to = (Operands*) (slots + lane * 64);
            int group = lane / 4, pair = lane % 4 * 2;
            for (int i = 0; i < 4; i++) to->d[i] = D[group + i / 2 * 8][pair + i % 2];
        }
    });
    all = (Operands*) slots;
    (void) all;
    memcpy(d, ((Operands*) (slots + emu_thread->lane * 64))->d, 16);
}

namespace emu {
// N 8x8 matrices of 16 bits whose rows lie where lanes 8·i .. 8·i + 7 say.
template<int N, bool TRANSPOSED> static inline void loadMatrix(unsigned (&r)[N], const void* row) {
    if (((uintptr_t) row & 15) != 0 && emu_thread->lane < 8 * N) emu_fail("ldmatrix: a row is not aligned to 16 bytes");
    struct Mine { const void* row; } mine{row};
    char* slots = emu_exchange(~0u, &mine, sizeof mine, nullptr);
    int group = emu_thread->lane / 4, pair = emu_thread->lane % 4 * 2;
    auto at = [&](int matrix, int r, int c) {
        auto* from = ((Mine*) (slots + (matrix * 8 + r) * 64))->row;
        return (unsigned) ((const unsigned short*) from)[c];
    };
    for (int i = 0; i < N; i++)
        r[i] = TRANSPOSED ? at(i, pair, group) | at(i, pair + 1, group) << 16
                          : at(i, group, pair) | at(i, group, pair + 1) << 16;
    emu_warp_barrier(~0u);
}
}
static inline void ldmatrix4(unsigned (&r)[4], const void* row) { emu::loadMatrix<4, false>(r, row); }
static inline void ldmatrix4Transposed(unsigned (&r)[4], const void* row) { emu::loadMatrix<4, true>(r, row); }
static inline void ldmatrix2(unsigned (&r)[2], const void* row) { emu::loadMatrix<2, false>(r, row); }
static inline void ldmatrix2Transposed(unsigned (&r)[2], const void* row) { emu::loadMatrix<2, true>(r, row); }

// Asynchronous copies from global to shared memory; the first `valid` bytes, zeros after them.
static inline void cpAsync16(void* shared, const void* global) { emu_copy_async(shared, global, 16, 16); }
static inline void cpAsync16(void* shared, const void* global, unsigned valid) { emu_copy_async(shared, global, 16, valid); }
static inline void cpAsyncCommit() { emu_copy_commit(); }
template<int NEWEST> static inline void cpAsyncWait() { emu_copy_wait(NEWEST); }

// 2^x.
static inline float exp2Fast(float x) { return exp2f(x); }

// Two floats rounded to bf16, `low` in the lower half.
static inline unsigned packBf16(float low, float high) {
    auto half = [](float x) {
        unsigned bits = __float_as_uint(x);
        return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    };
    return half(high) << 16 | half(low);
}
