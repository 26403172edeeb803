package bios.coordinator.gateway;

import bios.protocol.model.ModelInfo;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingParams;
import bios.protocol.session.SessionCommand.Sampler;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;

/// Parses sampling requests.
final class SampleReader {
    /// Longest stop string; requests travel to a worker as one message.
    private static final int MAX_STOP_CHARACTERS = 1 << 14;
    /// Fields of Tinker's newer clients: more numbers in the result.
    static final List<String> UNSUPPORTED = List.of("target_prompt_logprobs", "prompt_alt_tokens_k");
    /// Most likely tokens that one result holds at drawn positions: some 130 MB of the heap.
    static final long MAX_SAMPLED_CANDIDATES = 1 << 22;
    private final GatewaySettings settings;

    SampleReader(GatewaySettings settings) {
        this.settings = settings;
    }

    /// The task of a request to `sampler`. Its id is derived from sampler, number and content, so that a
    /// repeated request has the same id.
    SampleTask task(Fields request, String samplerId, long seq, Sampler sampler, ModelInfo model) {
        int[] prompt = ModelInputReader.read(request.at("prompt"), request.required("prompt"), model);
        SamplingParams params = request.optionalObject("sampling_params").map(fields -> params(fields, model))
                .orElseGet(() -> new SamplingParams(Optional.empty(), Optional.empty(), List.of(), List.of(),
                        1, -1, 1));
        long samples = request.optionalInteger("num_samples", 1, settings.maxSamples()).orElse(1L);
        long topk = topk(request, "topk_prompt_logprobs", model);
        long topkSample = topk(request, "topk_sample_logprobs", model);
        boolean scored = request.bool("prompt_logprobs", false) || topk > 0;
        request.bool("record_stability_info", false); // nothing here that it could record
        for (String name : UNSUPPORTED) request.optional(name).filter(value -> !isZero(value))
                .ifPresent(_ -> {
                    throw new ApiException(ErrorCode.UNSUPPORTED, request.at(name).toString(),
                            "is not supported; leave it out");
                });
        request.requireAllRead();
        // The token that is drawn last goes through no pass: one can follow a prompt that fills the context.
        int drawn = params.maxTokens().orElse(1);
        if (drawn > 1 && (long) prompt.length + drawn > model.contextLength())
            throw request.at("sampling_params").field("max_tokens")
                    .invalid("a prompt of " + prompt.length + " tokens and " + drawn
                            + " drawn ones are more than the context of " + model.name() + ", "
                            + model.contextLength());
        long most = params.maxTokens().orElse(Math.max(1, model.contextLength() - prompt.length));
        if (samples * most * topkSample > MAX_SAMPLED_CANDIDATES)
            throw request.at("topk_sample_logprobs").invalid(topkSample + " for each of up to "
                    + samples * most + " drawn tokens are more than the " + MAX_SAMPLED_CANDIDATES
                    + " of one request; lower it, num_samples or max_tokens");
        byte[] digest = digest(prompt, params, samples, scored, topk, topkSample);
        String id = samplerId + ":" + seq + ":" + HexFormat.of().formatHex(digest, 0, 8);
        // The default seed is derived from the id, so that every coordinator chooses the same.
        long seed = params.seed().orElseGet(() -> ByteBuffer.wrap(DerivedIds.sha256("seed:" + id)).getLong());
        return new SampleTask(id, sampler.baseModel(), sampler.adapter(), prompt, params, (int) samples,
                seed, scored, (int) topk, (int) topkSample);
    }

    private long topk(Fields request, String name, ModelInfo model) {
        return request.optionalInteger(name, 0,
                Math.min(settings.maxTopkPromptLogprobs(), model.vocabularySize())).orElse(0L);
    }

    private static boolean isZero(Json value) {
        return value instanceof Json.Num(var literal) && literal.equals("0");
    }

    private static byte[] digest(int[] prompt, SamplingParams params, long samples, boolean scored,
            long topk, long topkSample) {
        MessageDigest digest = DerivedIds.sha256();
        ByteBuffer bytes = ByteBuffer.allocate(4 * prompt.length);
        bytes.asIntBuffer().put(prompt);
        digest.update(bytes);
        String rest = params + ":" + samples + ":" + scored + ":" + topk
                + (topkSample == 0 ? "" : ":" + topkSample);
        digest.update(rest.getBytes(StandardCharsets.UTF_8));
        return digest.digest();
    }

    private SamplingParams params(Fields fields, ModelInfo model) {
        Optional<Integer> maxTokens = fields.optionalInteger("max_tokens", 1, Integer.MAX_VALUE)
                .map(Math::toIntExact);
        Optional<Long> seed = fields.optionalBits("seed");
        var strings = new ArrayList<String>();
        var tokens = new ArrayList<Integer>();
        fields.optional("stop").ifPresent(stop -> stop(fields.at("stop"), stop, strings, tokens, model));
        double temperature = fields.number("temperature", 1);
        int topK = fields.optionalInteger("top_k", -1, Integer.MAX_VALUE).orElse(-1L).intValue();
        double topP = fields.number("top_p", 1);
        fields.requireAllRead();
        return new SamplingParams(maxTokens, seed, strings, tokens, temperature, topK, topP);
    }

    private static void stop(FieldPath at, Json stop, List<String> strings, List<Integer> tokens,
            ModelInfo model) {
        if (stop instanceof Json.Str(var text)) {
            strings.add(limited(at, text));
            return;
        }
        if (!(stop instanceof Json.Arr(var items)))
            throw at.invalid("is " + stop.kind() + "; expected a string, strings or token ids");
        if (items.isEmpty()) tokens.add(SamplingParams.NO_STOP);
        for (int i = 0; i < items.size(); i++) {
            switch (items.get(i)) {
                case Json.Str(var text) when tokens.isEmpty() -> strings.add(limited(at.item(i), text));
                case Json.Num number when strings.isEmpty() && number.integral()
                        && number.literal().length() < 12 -> {
                    ModelInputReader.checkToken(at, i, Long.parseLong(number.literal()), model);
                    tokens.add(Integer.valueOf(number.literal()));
                }
                default -> throw at.item(i)
                        .invalid("is not of one kind with the others; expected strings or token ids");
            }
        }
    }

    private static String limited(FieldPath at, String text) {
        if (text.length() > MAX_STOP_CHARACTERS)
            throw at.invalid("has " + text.length() + " characters; at most " + MAX_STOP_CHARACTERS);
        return text;
    }
}
