// Log-probabilities and losses. Twins of bios.worker.kernel.LogSoftmax and Losses.
#include "common.cuh"

/// Target k of a row.
__device__ inline int targetAt(const Matrix& targets, int row, int k) {
    return ((const int*) targets.data)[row * targets.stride + k];
}

/// logprobs ← logits[targets] - lse, lse ← log Σ exp(logits). One block of 256 threads for each row; a thread
/// has every 256th of the row's targets.
extern "C" __global__ void __launch_bounds__(256)
log_softmax_at(Matrix logprobs, Matrix lse, Matrix logits, Matrix targets, long long faults) {
    begin();
    __shared__ float room[WARP];
    int row = blockIdx.x;
    float sum = blockLogSumExp(logits, row, room);
    if (threadIdx.x == 0) store(lse, row, 0, sum);
    for (int k = threadIdx.x; k < targets.columns; k += blockDim.x) {
        int target = targetAt(targets, row, k);
        if (inRange(target, logits.columns, FAULT_TARGET, faults))
            store(logprobs, row, k, load(logits, row, target) - sum);
    }
}

/// logits ← Σ d[k]·(onehot(targets[k]) - exp(logits - lse)), in place. One vector of eight for each thread;
/// all threads of a row add its d in their order.
extern "C" __global__ void log_softmax_backward(Matrix logits, Matrix lse, Matrix targets, Matrix dlogprobs) {
    begin();
    long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x;
    int vectors = vectorsOf(logits.columns);
    if (vectors == 0 || i >= (long long) logits.rows * vectors) return;
    int row = (int) (i / vectors);
    int column = (int) (i % vectors) * VECTOR;
    int count = minimum(VECTOR, logits.columns - column);
    double sum = load(dlogprobs, row, 0);
    for (int k = 1; k < targets.columns; k++) sum += load(dlogprobs, row, k);
    float all = (float) sum;
    float shift = load(lse, row, 0);
    float v[VECTOR];
    load8(v, logits, row, column, count, 0.0f);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) v[j] = exponential(v[j] - shift) * -all;
    for (int k = 0; k < targets.columns; k++) {
        int target = targetAt(targets, row, k) - column;
        if (target < 0 || target >= VECTOR) continue;
        float d = load(dlogprobs, row, k);
#pragma unroll
        for (int j = 0; j < VECTOR; j++)
            if (j == target) v[j] += d;
    }
    store8(logits, row, column, count, v);
}

__device__ inline double clamped(double x, double low, double high) {
    return x < low ? low : x > high ? high : x;
}

/// A bound of the clipped ratio: the position's own where there is one, else that of the loss.
__device__ inline double bound(const Matrix& own, int row, int column, double otherwise) {
    double x = own.data ? load(own, row, column) : otherwise;
    return x == x ? x : otherwise;
}

/// The derivative of a loss by a log-probability. One thread for each element.
/// function: 0 cross_entropy, 1 importance_sampling, 2 ppo, 3 cispo, 4 dro.
extern "C" __global__ void loss_gradient(Matrix dlogprobs, Matrix logprobs, Matrix weights, Matrix sampled,
                                         Matrix lows, Matrix highs, int function, double loss_low,
                                         double loss_high, double beta) {
    begin();
    long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x;
    if (i >= (long long) dlogprobs.rows * dlogprobs.columns) return;
    int row = (int) (i / dlogprobs.columns);
    int column = (int) (i % dlogprobs.columns);
    double w = load(weights, row, column);
    double l = load(logprobs, row, column);
    double q = sampled.data ? load(sampled, row, column) : 0.0f;
    double low = bound(lows, row, column, loss_low);
    double high = bound(highs, row, column, loss_high);
    double d = 0;
    if (w != 0 || function == 4) {
        double ratio = function == 0 || function == 4 ? 0 : exp(l - q);
        double gain = ratio * w;
        if (function == 0) d = -w;
        else if (function == 1) d = -gain;
        else if (function == 2) d = gain <= clamped(ratio, low, high) * w ? -gain : 0;
        else if (function == 3) d = -(clamped(ratio, low, high) * w);
        else d = -(w - beta * (l - q));
    }
    store(dlogprobs, row, column, (float) d);
}
