// Products of a warpgroup of 128 threads (sm_90a): 64 rows, operands in shared memory or, on the left, in
// registers, in the places of mmaBf16. Nothing else is here: the emulated device has its own file of this
// name with the same functions.
//
// Rows in shared memory are 128 bytes, 64 elements of 16 bits; 16-byte chunk c of row r lies in place
// c ^ r % 8 of the row, and row 0 at a multiple of 1024 bytes. Longer rows are several such pieces.
#pragma once
#include "ptx.cuh"

// Makes what this thread wrote to shared memory, or copied there, visible to products after a barrier.
__device__ __forceinline__ void asyncFence() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Before the first product of operands in registers that were written, or of sums that were touched.
__device__ __forceinline__ void wgmmaFence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Ends a group of products.
__device__ __forceinline__ void wgmmaCommit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits for all groups but the NEWEST; `sums` of a group may be read after it.
template<int NEWEST> __device__ __forceinline__ void wgmmaWait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(NEWEST) : "memory");
}

// Sums are not read before this, nor written after it.
template<int N> __device__ __forceinline__ void sumsBarrier(float (&sums)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(sums[i]) :: "memory");
}

// The same of a left operand in registers, which a product reads until it is awaited.
template<int N> __device__ __forceinline__ void operandBarrier(unsigned (&a)[N][4]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3]) :: "memory");
}

// What the instruction calls a descriptor, of what lies `offset` bytes after `shared`: swizzle of 128 bytes,
// `stride` bytes between groups of 8 rows, `leading` bytes between pieces of 64 columns. Descriptors of one
// address differ by the addition of a constant.
__device__ __forceinline__ unsigned long long wgmmaDescriptor(const void* shared, unsigned offset,
        unsigned leading, unsigned stride) {
    unsigned low = (sharedAddress(shared) >> 4 | (leading >> 4) << 16) + (offset >> 4);
    return low | (unsigned long long) (stride >> 4 | 1u << 30) << 32;
}

// d ← a·bᵀ, or added if `add`: a [64, 16] and b [64, 16], the elements of a row next to each other, from offsets
// in bytes on.
__device__ __forceinline__ void wgmmaRows(float (&d)[32], const void* a, unsigned offsetA, const void* b,
        unsigned offsetB, bool add) {
    unsigned long long left = wgmmaDescriptor(a, offsetA, 16, 1024);
    unsigned long long right = wgmmaDescriptor(b, offsetB, 16, 1024);
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, p, 1, 1, 0, 0;\n}"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]),
                   "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
                   "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]),
                   "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),
                   "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
                   "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31])
                 : "l"(left), "l"(right), "r"((int) add));
}

// d += a·b: a [64, 16] in registers, b [16, 64] by rows, from an offset in bytes on.
__device__ __forceinline__ void wgmmaColumns(float (&d)[32], const unsigned (&a)[4], const void* b,
        unsigned offset, unsigned leading) {
    unsigned long long right = wgmmaDescriptor(b, offset, leading, 1024);
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]),
                   "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
                   "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]),
                   "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),
                   "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
                   "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(right), "r"(1));
}

// d += a·b: a [64, 16] in registers, b [16, 128] by rows, pieces of 64 columns `leading` bytes apart.
__device__ __forceinline__ void wgmmaColumns(float (&d)[64], const unsigned (&a)[4], const void* b,
        unsigned offset, unsigned leading) {
    unsigned long long right = wgmmaDescriptor(b, offset, leading, 1024);
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]),
                   "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
                   "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]),
                   "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),
                   "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
                   "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
                   "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
                   "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]),
                   "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]),
                   "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]),
                   "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
                   "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(right), "r"(1));
}
