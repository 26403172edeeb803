// The language CUDA C++ on the host, as far as our kernels use it; included before every .cu by the stand-in NVRTC.
#pragma once
#include "emu.h"
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#define __CUDA_EMULATOR__ 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define DYNAMIC_SHARED(name) char* name = emu_thread->dynamicShared

#define threadIdx (emu_thread->index)
#define blockIdx (emu_thread->block)
#define blockDim (emu_thread->blockSize)
#define gridDim (emu_thread->grid)
static const int warpSize = 32;

namespace emu {
// The same address, which the compiler knows nothing of.
template<class T> static __forceinline__ T* hidden(T* p) {
    asm volatile("" : "+r"(p));
    return p;
}
// The same for a static shared variable.
template<class T> static __forceinline__ T* declared(T* p) {
    emu_shared_variable(p, sizeof(T));
    return hidden(p);
}
}

struct dim3 { unsigned x = 1, y = 1, z = 1; };
#define EMU_VECTOR(T, N)                                                                    \
    struct N##2 { T x, y; } __attribute__((aligned(2 * sizeof(T))));                        \
    struct N##3 { T x, y, z; };                                                             \
    struct N##4 { T x, y, z, w; } __attribute__((aligned(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)))); \
    static inline N##2 make_##N##2(T x, T y) { return {x, y}; }                             \
    static inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; }                     \
    static inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTOR(float, float) EMU_VECTOR(double, double) EMU_VECTOR(int, int) EMU_VECTOR(unsigned, uint)
EMU_VECTOR(short, short) EMU_VECTOR(unsigned short, ushort) EMU_VECTOR(signed char, char)
EMU_VECTOR(unsigned char, uchar) EMU_VECTOR(long long, longlong) EMU_VECTOR(unsigned long long, ulonglong)
#undef EMU_VECTOR

// ---- barriers and warps

static inline void __syncthreads() { emu_block_barrier(); }
static inline int __syncthreads_count(int p) { return emu_block_count(p); }
static inline int __syncthreads_or(int p) { return emu_block_count(p) != 0; }
static inline int __syncthreads_and(int p) { return emu_block_count(!p) == 0; }
static inline void __syncwarp(unsigned mask = ~0u) { emu_warp_barrier(mask); }
static inline unsigned __activemask() { return emu_active(); }
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() {}
static inline void __threadfence_system() { __threadfence(); }
static inline void __nanosleep(unsigned) {}
[[noreturn]] static inline void __trap() { emu_fail("__trap"); }

namespace emu {
template<class T> static inline T from(const char* slots, unsigned lane) {
    T value;
    memcpy(&value, slots + lane * 64, sizeof value);
    return value;
}
template<class T> static inline T shuffle(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 16);
    const char* slots = emu_exchange(mask, &value, sizeof value, nullptr);
    source &= 31;
    if (!(mask >> source & 1)) emu_fail("a shuffle reads a lane outside its mask");
    return from<T>(slots, source);
}
}  // namespace emu

template<class T> static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    unsigned lane = emu_thread->lane;
    return emu::shuffle(mask, value, (lane & ~(width - 1)) + (source & (width - 1)));
}
template<class T> static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    unsigned lane = emu_thread->lane, source = lane ^ bits;
    return emu::shuffle(mask, value, source / width > lane / width ? lane : source);
}
template<class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    unsigned lane = emu_thread->lane;
    return emu::shuffle(mask, value, (lane & (width - 1)) < by ? lane : lane - by);
}
template<class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    unsigned lane = emu_thread->lane;
    return emu::shuffle(mask, value, (lane & (width - 1)) + by >= (unsigned) width ? lane : lane + by);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    int mine = predicate != 0;
    const char* slots = emu_exchange(mask, &mine, sizeof mine, nullptr);
    unsigned present = mask & emu_active(), bits = 0;
    for (unsigned i = 0; i < 32; i++) if (present >> i & 1 && emu::from<int>(slots, i)) bits |= 1u << i;
    return bits;
}
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
template<class T> static inline unsigned __match_any_sync(unsigned mask, T value) {
    const char* slots = emu_exchange(mask, &value, sizeof value, nullptr);
    unsigned present = mask & emu_active(), bits = 0;
    for (unsigned i = 0; i < 32; i++) if (present >> i & 1 && emu::from<T>(slots, i) == value) bits |= 1u << i;
    return bits;
}
namespace emu {
template<class T, class F> static inline T reduce(unsigned mask, T value, F f) {
    const char* slots = emu_exchange(mask, &value, sizeof value, nullptr);
    unsigned present = mask & emu_active();
    bool first = true;
    T result = value;
    for (unsigned i = 0; i < 32; i++) if (present >> i & 1) {
        result = first ? from<T>(slots, i) : f(result, from<T>(slots, i));
        first = false;
    }
    return result;
}
}
template<class T> static inline T __reduce_add_sync(unsigned m, T v) { return emu::reduce(m, v, [](T a, T b) { return a + b; }); }
template<class T> static inline T __reduce_max_sync(unsigned m, T v) { return emu::reduce(m, v, [](T a, T b) { return a > b ? a : b; }); }
template<class T> static inline T __reduce_min_sync(unsigned m, T v) { return emu::reduce(m, v, [](T a, T b) { return a < b ? a : b; }); }

// ---- atomics on integers (none on floats: sums have a fixed order)

#define EMU_INTEGER template<class T, class U, class = std::enable_if_t<std::is_integral_v<T>>>                \
    __attribute__((noinline, no_sanitize("kernel-address"))) static T
EMU_INTEGER atomicAdd(T* at, U v) {
    emu_check_atomic(at, sizeof(T));
    return __atomic_fetch_add(at, (T) v, __ATOMIC_SEQ_CST);
}
EMU_INTEGER atomicSub(T* at, U v) {
    emu_check_atomic(at, sizeof(T));
    return __atomic_fetch_sub(at, (T) v, __ATOMIC_SEQ_CST);
}
EMU_INTEGER atomicAnd(T* at, U v) {
    emu_check_atomic(at, sizeof(T));
    return __atomic_fetch_and(at, (T) v, __ATOMIC_SEQ_CST);
}
EMU_INTEGER atomicOr(T* at, U v) {
    emu_check_atomic(at, sizeof(T));
    return __atomic_fetch_or(at, (T) v, __ATOMIC_SEQ_CST);
}
EMU_INTEGER atomicXor(T* at, U v) {
    emu_check_atomic(at, sizeof(T));
    return __atomic_fetch_xor(at, (T) v, __ATOMIC_SEQ_CST);
}
EMU_INTEGER atomicExch(T* at, U v) {
    emu_check_atomic(at, sizeof(T));
    return __atomic_exchange_n(at, (T) v, __ATOMIC_SEQ_CST);
}
EMU_INTEGER atomicMax(T* at, U v) {
    emu_check_atomic(at, sizeof(T));
    T old = __atomic_load_n(at, __ATOMIC_SEQ_CST);
    while (old < (T) v && !__atomic_compare_exchange_n(at, &old, (T) v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    return old;
}
EMU_INTEGER atomicMin(T* at, U v) {
    emu_check_atomic(at, sizeof(T));
    T old = __atomic_load_n(at, __ATOMIC_SEQ_CST);
    while (old > (T) v && !__atomic_compare_exchange_n(at, &old, (T) v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    return old;
}
EMU_INTEGER atomicCAS(T* at, U expected, T v) {
    emu_check_atomic(at, sizeof(T));
    T old = (T) expected;
    __atomic_compare_exchange_n(at, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return old;
}
#undef EMU_INTEGER

// ---- loads, casts, bits

template<class T> static inline T __ldg(const T* p) { return *p; }
template<class T> static inline T __ldcs(const T* p) { return *p; }
template<class T> static inline T __ldcg(const T* p) { return *p; }
template<class T> static inline T __ldca(const T* p) { return *p; }
template<class T> static inline void __stcs(T* p, T v) { *p = v; }
template<class T> static inline void __stcg(T* p, T v) { *p = v; }
namespace emu {
template<class To, class From> static inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
}
static inline float __int_as_float(int v) { return emu::bits<float>(v); }
static inline int __float_as_int(float v) { return emu::bits<int>(v); }
static inline float __uint_as_float(unsigned v) { return emu::bits<float>(v); }
static inline unsigned __float_as_uint(float v) { return emu::bits<unsigned>(v); }
static inline double __longlong_as_double(long long v) { return emu::bits<double>(v); }
static inline long long __double_as_longlong(double v) { return emu::bits<long long>(v); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
static inline int __clzll(long long v) { return v ? __builtin_clzll(v) : 64; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __ffsll(long long v) { return __builtin_ffsll(v); }
static inline unsigned __brev(unsigned v) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (v >> i & 1) << (31 - i);
    return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned) ((unsigned long long) a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int) ((long long) a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long) ((unsigned __int128) a * b >> 64);
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
    n &= 31;
    return n ? hi << n | lo >> (32 - n) : hi;
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
    n &= 31;
    return n ? lo >> n | hi << (32 - n) : lo;
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s) {
    unsigned long long all = (unsigned long long) y << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (unsigned) (all >> 8 * (s >> 4 * i & 7) & 255) << 8 * i;
    return r;
}
static inline unsigned long long __cvta_generic_to_shared(const void* p) { return (unsigned long long) p; }
static inline long long clock64() { return 0; }

// ---- numbers

template<class A, class B, class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
static inline std::common_type_t<A, B> min(A a, B b) {
    using C = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<C>) return std::fmin((C) a, (C) b); else return (C) a < (C) b ? (C) a : (C) b;
}
template<class A, class B, class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
static inline std::common_type_t<A, B> max(A a, B b) {
    using C = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<C>) return std::fmax((C) a, (C) b); else return (C) a > (C) b ? (C) a : (C) b;
}
using std::isfinite;
using std::isinf;
using std::isnan;
static inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
static inline double rsqrt(double x) { return 1 / std::sqrt(x); }
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __exp2f(x) exp2f(x)
#define __powf(x, y) powf(x, y)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1 / a; }
static inline float __fsqrt_rn(float a) { return std::sqrt(a); }
static inline float __frsqrt_rn(float a) { return (float) (1 / std::sqrt((double) a)); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __drcp_rn(double a) { return 1 / a; }
static inline double __dsqrt_rn(double a) { return std::sqrt(a); }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }
static inline int __float2int_rn(float x) { return (int) nearbyintf(x); }
static inline int __float2int_rz(float x) { return (int) x; }
static inline int __float2int_rd(float x) { return (int) floorf(x); }
static inline unsigned __float2uint_rz(float x) { return (unsigned) x; }
static inline float __int2float_rn(int x) { return (float) x; }
static inline float __uint2float_rn(unsigned x) { return (float) x; }
static inline float __ull2float_rn(unsigned long long x) { return (float) x; }
static inline long long __float2ll_rz(float x) { return (long long) x; }
static inline long long __double2ll_rz(double x) { return (long long) x; }
static inline int __double2int_rz(double x) { return (int) x; }
static inline double __int2double_rn(int x) { return x; }
static inline double __ll2double_rn(long long x) { return (double) x; }
static inline float __ll2float_rn(long long x) { return (float) x; }
static inline float __double2float_rn(double x) { return (float) x; }
static inline void sincospif(float x, float* s, float* c) { double a = M_PI * x; *s = (float) sin(a); *c = (float) cos(a); }

// ---- a kernel's description, from its type

namespace emu {
template<class... A> struct Layout {
    static constexpr unsigned count = sizeof...(A);
    unsigned sizes[count + 1] = {}, offsets[count + 1] = {}, bytes = 0;
    constexpr Layout() {
        unsigned size[] = {sizeof(A)..., 0u}, align[] = {alignof(A)..., 1u};
        for (unsigned i = 0; i < count; i++) {
            bytes = (bytes + align[i] - 1) / align[i] * align[i];
            sizes[i] = size[i];
            offsets[i] = bytes;
            bytes += size[i];
        }
    }
};
template<auto F> struct Describe;
template<class... A, void (*F)(A...)> struct Describe<F> {
    static constexpr Layout<A...> layout{};
    template<size_t... I> static void apply(const char* p, std::index_sequence<I...>) {
        F(get<A>(p + layout.offsets[I])...);
    }
    template<class T> static T get(const char* p) {
        alignas(T) char copy[sizeof(T)];
        memcpy(copy, p, sizeof(T));
        return *reinterpret_cast<T*>(copy);
    }
    static void call(const char* p) { apply(p, std::index_sequence_for<A...>{}); }
};
static inline char* sharedProbe() {
    static thread_local char probe;
    return &probe;
}
}  // namespace emu
#define EMU_KERNEL(NAME, CLUSTER)                                                                   \
    extern "C" __attribute__((visibility("default"))) emu::Kernel emu_kernel_##NAME = {      \
        #NAME, &emu::Describe<&NAME>::call, emu::Describe<&NAME>::layout.count,              \
        emu::Describe<&NAME>::layout.bytes, emu::Describe<&NAME>::layout.sizes,              \
        emu::Describe<&NAME>::layout.offsets, &emu::sharedProbe, CLUSTER};
