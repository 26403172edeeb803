// Log-probabilities and losses. Twins of bios.worker.kernel.LogSoftmax and Losses.
#include "common.cuh"

/// logprobs ← logits[target] - lse, lse ← log Σ exp(logits). One block of 256 threads for each row.
extern "C" __global__ void __launch_bounds__(256)
log_softmax_at(Matrix logprobs, Matrix lse, Matrix logits, Matrix targets, long long faults) {
    __shared__ float room[WARP];
    int row = blockIdx.x;
    float sum = blockLogSumExp(logits, row, room);
    if (threadIdx.x != 0) return;
    store(lse, row, 0, sum);
    int target = intAt(targets, row);
    if (inRange(target, logits.columns, FAULT_TARGET, faults))
        store(logprobs, row, 0, load(logits, row, target) - sum);
}

/// logits ← d·(onehot(target) - exp(logits - lse)), in place. One vector of eight for each thread.
extern "C" __global__ void log_softmax_backward(Matrix logits, Matrix lse, Matrix targets, Matrix dlogprobs) {
    long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x;
    int vectors = vectorsOf(logits.columns);
    if (vectors == 0 || i >= (long long) logits.rows * vectors) return;
    int row = (int) (i / vectors);
    int column = (int) (i % vectors) * VECTOR;
    int count = minimum(VECTOR, logits.columns - column);
    float d = load(dlogprobs, row, 0);
    float shift = load(lse, row, 0);
    int target = intAt(targets, row) - column;
    float v[VECTOR];
    load8(v, logits, row, column, count, 0.0f);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) {
        v[j] = exponential(v[j] - shift) * -d;
        if (j == target) v[j] += d;
    }
    store8(logits, row, column, count, v);
}

__device__ inline double clamped(double x, double low, double high) {
    return x < low ? low : x > high ? high : x;
}

/// The derivative of a loss by a position's log-probability. One thread for each row.
/// function: 0 cross_entropy, 1 importance_sampling, 2 ppo, 3 cispo, 4 dro.
extern "C" __global__ void loss_gradient(Matrix dlogprobs, Matrix logprobs, Matrix weights, Matrix sampled,
                                         int function, double low, double high, double beta) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= dlogprobs.rows) return;
    double w = load(weights, row, 0);
    double l = load(logprobs, row, 0);
    double q = sampled.data ? load(sampled, row, 0) : 0.0f;
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
    store(dlogprobs, row, 0, (float) d);
}
