package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.AttentionShape;
import java.util.List;

/// The attention verbs of [bios.worker.device.Device], by one way of computing them.
interface CpuAttention extends AutoCloseable {
    void forward(HostTensor out, HostTensor lse, HostTensor q, List<HostSpan> spans, AttentionShape shape);

    void backward(HostTensor dq, HostTensor dk, HostTensor dv, HostTensor dout, HostTensor out,
            HostTensor lse, HostTensor q,
            List<HostSpan> spans, AttentionShape shape);

    @Override default void close() {}

    /// Refuses shapes that do not fit.
    static void check(HostTensor q, List<HostSpan> spans, AttentionShape shape) {
        require(shape.heads() % shape.kvHeads() == 0, "%d heads share %d", shape.heads(), shape.kvHeads());
        require(q.columns() == shape.heads() * shape.headDim(), "q has %d columns", q.columns());
        for (var span : spans) {
            int held = 0;
            for (var block : span.keys())
                held += (int) (block.elements() / (shape.kvHeads() * shape.headDim()));
            require(held >= span.position() + span.count() && span.values().size() == span.keys().size(),
                    "%d keys for %d positions", held, span.position() + span.count());
        }
    }

    /// The first position that a query at `position` sees.
    static int from(int position, int window) {
        return window <= 0 ? 0 : Math.max(0, position - window + 1);
    }
}
