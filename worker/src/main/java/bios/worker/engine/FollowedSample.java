package bios.worker.engine;

import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult.StopReason;
import bios.protocol.sampling.SampleResult.TokenLogprob;
import bios.protocol.sampling.SampleTask;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/// What a followed request has drawn so far, and the question that waits for more. A follower that asks
/// rarely gets more at once: nothing is queued for it. Only the engine uses it.
final class FollowedSample {
    /// Most tokens of one reply, of all sequences together; each of the most likely ones counts as one.
    private static final int MAX_TOKENS = 1 << 16;

    private final SampleTask task;
    private final List<Sequence> sequences = new ArrayList<>();
    private Optional<EngineCommand.FollowSample> question = Optional.empty();

    private static final class Sequence {
        int[] tokens = new int[16];
        float[] logprobs = new float[16];
        final List<List<TokenLogprob>> top = new ArrayList<>();
        int count;
        Optional<StopReason> stopReason = Optional.empty();

        void add(DrawnTokens more) {
            int all = count + more.tokens().length;
            if (all > tokens.length) {
                tokens = Arrays.copyOf(tokens, 2 * all);
                logprobs = Arrays.copyOf(logprobs, 2 * all);
            }
            System.arraycopy(more.tokens(), 0, tokens, count, more.tokens().length);
            System.arraycopy(more.logprobs(), 0, logprobs, count, more.logprobs().length);
            more.topkLogprobs().ifPresent(top::addAll);
            count = all;
            stopReason = more.stopReason();
        }

        DrawnTokens after(int received, int most) {
            int to = Math.min(count, received + most);
            if (to <= received) return new DrawnTokens(received, 0, new int[0], new float[0],
                    Optional.empty());
            return new DrawnTokens(received, DrawnTokens.digest(tokens, received),
                    Arrays.copyOfRange(tokens, received, to), Arrays.copyOfRange(logprobs, received, to),
                    to == count ? stopReason : Optional.empty(), top.isEmpty() ? Optional.empty()
                            : Optional.of(List.copyOf(top.subList(received, to))));
        }
    }

    FollowedSample(SampleTask task) {
        this.task = task;
        for (int i = 0; i < task.numSamples(); i++) sequences.add(new Sequence());
    }

    /// Adds what the sequences have drawn, and answers the question if it waits for it.
    void add(List<DrawnTokens> more) {
        for (int i = 0; i < more.size(); i++) sequences.get(i).add(more.get(i));
        question.ifPresent(this::ask);
    }

    /// Answers a question as soon as there is something.
    void ask(EngineCommand.FollowSample asked) {
        int[] received = asked.received();
        boolean more = false;
        for (int i = 0; i < Math.min(received.length, sequences.size()); i++)
            more |= received[i] >= 0 && sequences.get(i).count > received[i];
        question = more ? Optional.empty() : Optional.of(asked);
        if (!more) return;
        var drawn = new ArrayList<DrawnTokens>();
        int most = Math.max(1, MAX_TOKENS / (1 + task.topkSampleLogprobs()) / sequences.size());
        for (int i = 0; i < sequences.size(); i++)
            drawn.add(sequences.get(i).after(i < received.length ? Math.max(0, received[i]) : 0, most));
        asked.replyTo().tell(new EngineReply.Drawn(task.id(), List.copyOf(drawn)));
    }
}
