package bios.coordinator.gateway;

import bios.protocol.run.OperationResult;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleResult.TokenLogprob;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;

/// The results that Tinker's clients read as protobuf: `ForwardBackwardOutput` and `SampleResponse`. The
/// numbers of the fields are documented in docs/reference/http.md.
final class ProtoResults {
    private static final int FLOAT32 = 1;
    /// Stands in a row of candidates for one that does not exist.
    private static final float NO_LOGPROB = -99999;

    private ProtoResults() {}

    /// A batch's log-probabilities in one record for each run of datums with equally many targets, and its
    /// metrics.
    ///
    /// @param columns targets of each position by datum, 0 where they are a vector; empty: everywhere
    static byte[] pass(OperationResult.Evaluated result, List<Integer> columns) {
        var message = new ProtoWriter().string(1, "TensorDict");
        List<float[]> all = result.logprobs();
        int from = 0;
        for (int i = 1; i <= all.size(); i++) {
            if (i < all.size() && (columns.isEmpty() || columns.get(i).equals(columns.get(from)))) continue;
            message.message(2, record(all.subList(from, i), columns.isEmpty() ? 0 : columns.get(from)));
            from = i;
        }
        result.metrics().forEach((name, value) -> message.message(3,
                new ProtoWriter().string(1, name).fixed64(2, value)));
        return message.toBytes();
    }

    private static ProtoWriter record(List<float[]> all, int columns) {
        long[] offsets = new long[all.size() + 1];
        for (int i = 0; i < all.size(); i++) offsets[i + 1] = offsets[i] + 4L * all.get(i).length;
        ByteBuffer data = ProtoWriter.packed(offsets[all.size()]);
        for (float[] values : all) for (float value : values) data.putFloat(value);
        var tensor = new ProtoWriter().bytes(1, data.array()).longs(2, offsets).varint(3, FLOAT32);
        if (columns > 0) tensor.varint(4, columns);
        return new ProtoWriter().string(1, "TensorDict")
                .message(2, new ProtoWriter().string(1, "logprobs").message(2, tensor))
                .varint(3, all.size());
    }

    static byte[] sample(SampleResult result) {
        var message = new ProtoWriter();
        for (SampleResult.Sequence s : result.sequences()) {
            var sequence = new ProtoWriter().varint(1, switch (s.stopReason()) {
                case STOP -> 0;
                case LENGTH -> 1;
            }).ints(2, s.tokens()).floats(3, s.logprobs());
            s.topkLogprobs().ifPresent(rows -> sequence.message(4, topk(rows)));
            message.message(1, sequence);
        }
        result.promptLogprobs().ifPresent(logprobs -> message.floats(2, logprobs));
        result.topkPromptLogprobs().ifPresent(rows -> message.message(3, topk(rows)));
        return message.toBytes();
    }

    private static ProtoWriter topk(List<List<TokenLogprob>> rows) {
        int k = rows.stream().mapToInt(List::size).max().orElse(0);
        int[] tokens = new int[rows.size() * k];
        float[] logprobs = new float[rows.size() * k];
        Arrays.fill(logprobs, NO_LOGPROB);
        for (int i = 0; i < rows.size(); i++) {
            List<TokenLogprob> row = rows.get(i);
            for (int j = 0; j < row.size(); j++) {
                tokens[i * k + j] = row.get(j).token();
                logprobs[i * k + j] = row.get(j).logprob();
            }
        }
        return new ProtoWriter().ints(1, tokens).floats(2, logprobs).varint(3, k).varint(4, rows.size());
    }
}
