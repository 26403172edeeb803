package bios.worker.device.cpu;

import bios.worker.device.AttentionShape;
import bios.worker.device.Device;
import bios.worker.device.HostArray;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.util.List;
import java.util.Optional;

/// Direct calls of a CPU device's kernels: single products, attention over spans, sums of blocks.
final class Direct {
    private Direct() {}

    private static HostTensor host(Tensor tensor) {
        return HostTensor.of(tensor);
    }

    private static Products products(Device on) {
        return ((CpuDevice) on).products();
    }

    static void multiply(Device on, Tensor y, Tensor x, Weight w) {
        products(on).multiply(host(y), host(x), w);
    }

    static void addInputGradient(Device on, Tensor dx, Tensor dy, Weight w) {
        products(on).addInputGradient(host(dx), host(dy), w);
    }

    static void project(Device on, Tensor y, Tensor x, Weight w, Tensor bias, Tensor onto,
            List<HostLowRank> corrections) {
        products(on).project(host(y), host(x), w, Optional.of(host(bias)), Optional.of(host(onto)),
                corrections);
    }

    static void projectBack(Device on, Tensor dx, Tensor dy, Weight w, boolean add,
            List<HostLowRank> corrections) {
        products(on).projectBack(host(dx), host(dy), w, add, corrections);
    }

    static HostLowRank correction(int row, Tensor low, Tensor factor) {
        return new HostLowRank(row, host(low), host(factor));
    }

    static void multiplyByTransposed(Device on, Tensor y, Tensor x, Tensor a, float s, boolean add) {
        products(on).multiplyByTransposed(host(y), host(x), host(a), s, add);
    }

    static void multiplyBy(Device on, Tensor y, Tensor x, Tensor b, float s, boolean add) {
        products(on).multiplyBy(host(y), host(x), host(b), s, add);
    }

    static void outerAdd(Device on, Tensor g, Tensor y, Tensor x, float s) {
        products(on).outerAdd(host(g), host(y), host(x), s);
    }

    static void attention(Device on, Tensor out, Tensor lse, Tensor q, List<HostSpan> spans,
            AttentionShape shape) {
        ((CpuDevice) on).attention().forward(host(out), host(lse), host(q), spans, shape);
    }

    static void attentionBackward(Device on, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
            Tensor lse, Tensor q, List<HostSpan> spans, AttentionShape shape) {
        ((CpuDevice) on).attention().backward(host(dq), host(dk), host(dv), host(dout), host(out), host(lse),
                host(q), spans, shape);
    }

    static void softmaxBlocks(Device on, Tensor maxima, Tensor sums, Tensor logits) {
        ((CpuDevice) on).rows().softmaxBlocks(host(maxima), host(sums), host(logits));
    }

    /// A column of integers that lives as long as the device.
    static Tensor ints(Device on, int... values) {
        return on.upload(on.scope(), List.of(HostArray.column(values))).getFirst();
    }
}
