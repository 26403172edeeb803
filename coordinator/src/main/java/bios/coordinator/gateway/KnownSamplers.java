package bios.coordinator.gateway;

import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.sampling.SampleTask;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.Sampler;
import bios.protocol.session.SessionCommand.SessionReply;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.atomic.AtomicReference;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/// The samplers that this gateway has seen; they are immutable. While a sampler is used, its session, and the
/// run of its weights, are told so once in a part of the lease: beside the request, which does not wait for
/// it.
final class KnownSamplers {
    /// The highest number of a sampler in its session.
    static final long MOST_NUMBER = 999_999_999_999_999_999L;
    private static final Pattern SAMPLER = Pattern.compile("(.{1,200}):sample:([0-9]{1,18})");
    private static final int REMEMBERED = 10_000;

    /// @param toldMillis when session and run were told of its use
    /// @param expired why it can no longer be used
    private record Known(Sampler sampler, long toldMillis, AtomicReference<Optional<ApiException>> expired) {
        Known(Sampler sampler, long toldMillis) {
            this(sampler, toldMillis, new AtomicReference<>(Optional.empty()));
        }
    }

    private final GatewayServices services;
    private final Map<String, Known> known = LruMap.of(REMEMBERED);

    KnownSamplers(GatewayServices services) {
        this.services = services;
    }

    /// The sampler `id` of the account, whose use this is.
    ///
    /// @param field of the body, for an error
    CompletionStage<Sampler> use(ApiRequest call, String field, String id) {
        String key = call.account() + " " + id;
        Known remembered = known.get(key);
        if (remembered == null) return find(call, field, id).thenApply(found -> {
            told(call.account(), key, new Known(found, services.clock().millis()));
            return found;
        });
        remembered.expired().get().ifPresent(why -> {
            throw why;
        });
        long now = services.clock().millis();
        if (now - remembered.toldMillis() >= services.leaseRenewal().toMillis()) {
            var renewed = new Known(remembered.sampler(), now, remembered.expired());
            told(call.account(), key, renewed);
            find(call, field, id).whenComplete((_, failed) -> expire(renewed, failed));
        }
        return CompletableFuture.completedStage(remembered.sampler());
    }

    private CompletionStage<Sampler> find(ApiRequest call, String field, String id) {
        Matcher parts = SAMPLER.matcher(id);
        if (!parts.matches())
            throw new ApiException(ErrorCode.NOT_FOUND, field, "there is no sampler '" + id
                    + "', or it is not yours");
        return services.session(parts.group(1), SessionReply.SamplerOpened.class, replyTo ->
                new SessionCommand.FindSampler(call.account(), Long.parseLong(parts.group(2)), replyTo))
                .thenApply(SessionReply.SamplerOpened::sampler);
    }

    private void told(String account, String key, Known sampler) {
        known.put(key, sampler);
        keepWeights(services, account, sampler.sampler()).thenAccept(reply -> {
            if (reply instanceof RunReply.Refused refused && refused.reason() == Reason.EXPIRED)
                sampler.expired().set(Optional.of(ApiException.of(refused)));
        });
    }

    private static void expire(Known sampler, Throwable failed) {
        if (failed != null && GatewayServices.cause(failed) instanceof ApiException error
                && (error.code() == ErrorCode.NOT_FOUND || error.code() == ErrorCode.SNAPSHOT_EXPIRED))
            sampler.expired().set(Optional.of(error));
    }

    /// Tells the run of a sampler's weights, if it has some, that they are in use.
    static CompletionStage<RunReply> keepWeights(GatewayServices services, String account, Sampler sampler) {
        return sampler.adapter().map(SampleTask.Adapter::blob)
                .map(blob -> services.keepWeights(account, blob.id()))
                .orElseGet(() -> CompletableFuture.completedStage(new RunReply.Done()));
    }
}
