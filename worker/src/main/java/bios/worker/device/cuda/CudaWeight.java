package bios.worker.device.cuda;

import bios.worker.device.Weight;

/// A frozen matrix on the card, as its file holds it; F16 widened to F32.
record CudaWeight(CudaTensor matrix) implements Weight {
    static CudaWeight of(Weight weight) {
        if (weight instanceof CudaWeight own) return own;
        throw new IllegalArgumentException("a weight of another device");
    }

    @Override public int out() {
        return matrix.rows();
    }

    @Override public int in() {
        return matrix.columns();
    }
}
