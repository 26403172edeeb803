// The verbs on all tensors of an adapter. Twin of bios.worker.kernel.AdamW, to the bit.
//
// `lists` holds `width` matrices for each of `tensors` tensors; a block computes one part, and firsts[i] is
// the index of the first part of tensor i.
#include "common.cuh"

/// Elements of a part; also in CudaOptimizer.java.
const int PART = 8192;

/// The elements of a block: `count` from number `from` on of tensor `tensor`.
struct Part {
    int tensor;
    long long from;
    int count;
};

__device__ inline Part partOf(const Matrix* lists, int width, const int* firsts, int tensors) {
    int part = blockIdx.x;
    int low = 0;
    int high = tensors;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (firsts[middle] <= part) low = middle;
        else high = middle;
    }
    const Matrix& m = lists[(long long) low * width];
    Part own;
    own.tensor = low;
    own.from = (long long) (part - firsts[low]) * PART;
    long long rest = (long long) m.rows * m.columns - own.from;
    own.count = rest < PART ? (int) rest : PART;
    return own;
}

/// The row and column of an element.
struct Element {
    int row, column;
};

__device__ inline Element element(const Matrix& m, long long i) {
    Element e;
    if (m.rows == 1) {
        e.row = 0;
        e.column = (int) i;
    } else {
        e.row = (int) (i / m.columns);
        e.column = (int) (i % m.columns);
    }
    return e;
}

/// y[i] += x[i].
extern "C" __global__ void add_lists(const Matrix* lists, const int* firsts, int tensors) {
    begin();
    Part part = partOf(lists, 2, firsts, tensors);
    Matrix y = lists[2 * part.tensor];
    Matrix x = lists[2 * part.tensor + 1];
    for (int i = threadIdx.x; i < part.count; i += blockDim.x) {
        Element e = element(y, part.from + i);
        store(y, e.row, e.column, load(y, e.row, e.column) + load(x, e.row, e.column));
    }
}

/// sums[part] ← the sum of the squares of a part, in double precision and in the order of
/// bios.worker.kernel.Sums: four lanes, of which lane l has the elements l, l + 4, l + 8 ...
extern "C" __global__ void __launch_bounds__(256)
sum_of_squares(const Matrix* lists, const int* firsts, int tensors, double* sums) {
    begin();
    __shared__ float values[PART];
    __shared__ double lanes[4];
    Part part = partOf(lists, 1, firsts, tensors);
    Matrix x = lists[part.tensor];
    for (int i = threadIdx.x; i < part.count; i += blockDim.x) {
        Element e = element(x, part.from + i);
        values[i] = load(x, e.row, e.column);
    }
    __syncthreads();
    if (threadIdx.x < 4) {
        double sum = 0;
#pragma unroll 8
        for (int i = threadIdx.x; i < part.count; i += 4) sum += (double) values[i] * values[i];
        lanes[threadIdx.x] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) sums[blockIdx.x] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

/// to ← the sum of the parts: of each tensor in order, then of the tensors in order. `own` is room for one
/// number for each tensor. One block of 256 threads.
extern "C" __global__ void __launch_bounds__(256)
sum_parts(double* to, const double* sums, const int* firsts, double* own, int tensors) {
    begin();
    for (int t = threadIdx.x; t < tensors; t += blockDim.x) {
        double sum = 0;
        for (int i = firsts[t]; i < firsts[t + 1]; i++) sum += sums[i];
        own[t] = sum;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    double total = 0;
    for (int t = 0; t < tensors; t++) total += own[t];
    *to = total;
}

/// What is not finite: the bits of bios.worker.kernel.AdamW.
enum { GRADIENT = 1, MOMENTS = 2, WEIGHTS = 4 };

__device__ inline bool finite(float x) {
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

/// One step of AdamW on w, m, v with the gradients g. write 0: only found |= what is not finite after it;
/// write 1: the step, if nothing was found.
extern "C" __global__ void __launch_bounds__(256)
adam_w(const Matrix* lists, const int* firsts, int tensors, int* found, const double* sumOfSquares,
       double clip, float beta1, float beta2, float oneLessBeta1, float oneLessBeta2, float eps, float decay,
       float rate, float root, int write) {
    begin();
    __shared__ float shared;
    if (threadIdx.x == 0) {
        double factor = clip / (sqrt(*sumOfSquares) + 1e-6);
        shared = clip > 0 ? (float) (factor > 1 ? 1 : factor) : 1.0f;
    }
    __syncthreads();
    float scale = shared;
    if (write && *found != 0) return;
    Part part = partOf(lists, 4, firsts, tensors);
    const Matrix* own = lists + 4 * (long long) part.tensor;
    Matrix w = own[0], m = own[1], v = own[2], g = own[3];
    int bits = 0;
    for (int i = threadIdx.x; i < part.count; i += blockDim.x) {
        Element e = element(w, part.from + i);
        float gradient = __fmul_rn(scale, load(g, e.row, e.column));
        float first = __fadd_rn(__fmul_rn(beta1, load(m, e.row, e.column)),
                                __fmul_rn(oneLessBeta1, gradient));
        float second = __fadd_rn(__fmul_rn(beta2, load(v, e.row, e.column)),
                                 __fmul_rn(__fmul_rn(oneLessBeta2, gradient), gradient));
        float weight = __fadd_rn(__fmul_rn(load(w, e.row, e.column), decay),
                                 -__fdiv_rn(__fmul_rn(rate, first),
                                            __fadd_rn(__fdiv_rn(__fsqrt_rn(second), root), eps)));
        if (write) {
            store(w, e.row, e.column, weight);
            store(m, e.row, e.column, first);
            store(v, e.row, e.column, second);
        } else if (!finite(weight) || !finite(second)) {
            bits |= !finite(load(g, e.row, e.column)) ? GRADIENT
                    : finite(first) && finite(second) ? WEIGHTS : MOMENTS;
        }
    }
    if (bits) atomicOr(found, bits);
}
