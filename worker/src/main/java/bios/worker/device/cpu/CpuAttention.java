package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.AttentionShape;
import java.util.List;

/// The attention verbs of [bios.worker.device.Device]; one implementation for each family of paths.
interface CpuAttention extends AutoCloseable {
    void forward(HostTensor out, HostTensor lse, HostTensor q, List<HostSpan> spans, AttentionShape shape);

    void backward(HostTensor dq, HostTensor dk, HostTensor dv, HostTensor dout, HostTensor out,
            HostTensor lse, HostTensor q,
            List<HostSpan> spans, AttentionShape shape);

    @Override default void close() {}

    /// Throws if shapes do not match.
    static void check(HostTensor q, List<HostSpan> spans, AttentionShape shape) {
        require(shape.heads() % shape.kvHeads() == 0, "%d heads share %d", shape.heads(), shape.kvHeads());
        require(q.columns() == shape.heads() * shape.headDim(), "q has %d columns", q.columns());
        for (var span : spans) {
            int keys = 0;
            for (var block : span.keys())
                keys += (int) (block.elements() / (shape.kvHeads() * shape.headDim()));
            require(keys >= span.position() + span.count() && span.values().size() == span.keys().size(),
                    "%d keys for %d positions", keys, span.position() + span.count());
        }
    }

    /// The first position that a query at `position` attends to.
    static int from(int position, int window) {
        return window <= 0 ? 0 : Math.max(0, position - window + 1);
    }
}
