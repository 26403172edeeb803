package bios.client;

import bios.protocol.client.Request;
import bios.protocol.client.Answer;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SamplingParams;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.atomic.AtomicLong;

/// Samples from a base model, from saved weights or from a snapshot of a run; what it samples from never
/// changes. Thread-safe.
public final class Sampler {
    private final BiosClient client;
    private final String id;
    private final AtomicLong calls = new AtomicLong();

    Sampler(BiosClient client, String id) {
        this.client = client;
        this.id = id;
    }

    /// The id of the sampler.
    public String id() {
        return id;
    }

    /// Draws `samples` sequences after `prompt`.
    public CompletionStage<SampleResult> sample(int[] prompt, SamplingParams params, int samples) {
        return sample(prompt, params, samples, false, 0);
    }

    /// The same, with log-probabilities of the prompt.
    ///
    /// @param promptLogprobs whether the prompt's tokens are scored
    /// @param topk how many most likely tokens are reported for each position of the prompt
    public CompletionStage<SampleResult> sample(int[] prompt, SamplingParams params, int samples,
            boolean promptLogprobs, int topk) {
        long number = BiosClient.number(request(calls.getAndIncrement(), prompt, params, samples,
                promptLogprobs, topk));
        return client.sample(request(number, prompt, params, samples, promptLogprobs, topk))
                .thenApply(Answer.Sampled::result);
    }

    private Request.Sample request(long seq, int[] prompt, SamplingParams params, int samples,
            boolean promptLogprobs, int topk) {
        return new Request.Sample(id, seq, prompt, params, samples, promptLogprobs, topk);
    }
}
