package bios.coordinator.gateway;

import bios.persistence.index.RunSummary;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.time.Instant;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.time.format.DateTimeParseException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.IntFunction;

/// What Tinker's clients ask about the past: the audit log, the bill and the trace of a session.
final class RecordEndpoints {
    private static final int PAGE = 1000;
    /// Most runs and most checkpoints that one audit log is made of.
    private static final int MOST = 20_000;
    /// Most runs of a session in its trace, the newest.
    private static final int MOST_TRACED = 256;
    private final GatewayServices services;
    private final SignedUrls urls;
    private final PublicUrl publicUrl;

    RecordEndpoints(GatewayServices services, SignedUrls urls, PublicUrl publicUrl) {
        this.services = services;
        this.urls = urls;
        this.publicUrl = publicUrl;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("audit", this::audit),
                Endpoint.get("billing/usage/events", _ -> CompletableFuture.completedStage(
                        ApiResponse.ok("data", List.of(), "sessions", Map.of()))),
                Endpoint.get("sessions/*/trace_export", this::traceLink),
                Endpoint.get("traces/*", this::trace).withoutKey());
    }

    private record Entry(long timeMillis, Map<String, Object> body) {
        static Entry of(long time, String event, String run, Optional<String> path) {
            return new Entry(time, ApiResponse.object("timestamp", ResponseBodies.time(time), "event", event,
                    "model_id", run, "tinker_path", path));
        }
    }

    /// The creations of the account's runs and checkpoints that exist, newest first.
    private CompletionStage<ApiResponse> audit(ApiRequest call) {
        String kind = call.query().getOrDefault("event_type", "all");
        if (!kind.equals("all") && !kind.equals("checkpoints"))
            throw new ApiException(ErrorCode.INVALID, "event_type",
                    "'" + kind + "' is unknown; expected all or checkpoints");
        Optional<LocalDate> day = Optional.ofNullable(call.query().get("day")).map(RecordEndpoints::day);
        return services.runBlocking(() -> {
            var entries = new ArrayList<Entry>();
            if (kind.equals("all")) for (RunSummary run : all(from ->
                    services.index().runs(call.account(), PAGE, from).items()))
                entries.add(Entry.of(run.config().createdAtMillis(), "create_model",
                        run.config().run().value(), Optional.empty()));
            for (CheckpointManifest saved : all(from ->
                    services.index().checkpoints(call.account(), PAGE, from).items()))
                entries.add(Entry.of(saved.createdAtMillis(), saved.kind() == CheckpointKind.TRAINING
                        ? "save_weights" : "save_weights_for_sampler", saved.run().value(),
                        saved.path().map(path -> path.tinkerUri())));
            return new ApiResponse.JsonBody(200, ApiResponse.object("entries", entries.stream()
                    .filter(e -> day.isEmpty() || Instant.ofEpochMilli(e.timeMillis())
                            .atZone(ZoneOffset.UTC).toLocalDate().equals(day.get()))
                    .sorted(Comparator.comparingLong(Entry::timeMillis).reversed())
                    .map(Entry::body).toList()), true);
        });
    }

    private static LocalDate day(String text) {
        try {
            return LocalDate.parse(text);
        } catch (DateTimeParseException _) {
            throw new ApiException(ErrorCode.INVALID, "day", "'" + text + "' is no date like 2026-01-31");
        }
    }

    private static <T> List<T> all(IntFunction<List<T>> page) {
        var all = new ArrayList<T>();
        for (int from = 0; from < MOST; from += PAGE) {
            List<T> items = page.apply(from);
            all.addAll(items);
            if (items.size() < PAGE) break;
        }
        return all;
    }

    /// A signed URL of the trace, which is made when it is downloaded.
    private CompletionStage<ApiResponse> traceLink(ApiRequest call) {
        String session = call.pathParameters().getFirst();
        return describe(session, call.account()).thenApply(_ -> {
            long expires = services.clock().millis() + services.settings().archiveUrlLifetime().toMillis();
            String token = urls.sign("traces/" + session, call.account(), expires);
            return ApiResponse.ok("status", "ready", "url", publicUrl.root(call.headers()
                    .getOrDefault("host", "")) + "/api/v1/traces/" + session + "?token=" + token,
                    "error", null);
        });
    }

    private CompletionStage<SessionReply.Described> describe(String session, String account) {
        return services.session(session, SessionReply.Described.class, replyTo ->
                new SessionCommand.Describe(account, replyTo));
    }

    private CompletionStage<ApiResponse> trace(ApiRequest call) {
        String id = call.pathParameters().getFirst();
        String account = urls.verify("traces/" + id, call.query().getOrDefault("token", ""),
                services.clock().millis()).orElseThrow(() -> new ApiException(ErrorCode.LINK_EXPIRED,
                        "the link is invalid or has expired; request a new link"));
        return describe(id, account).thenCompose(session -> {
            int count = session.runs().size();
            CompletionStage<SessionTrace> trace = CompletableFuture.completedStage(new SessionTrace());
            for (RunId run : session.runs().subList(Math.max(0, count - MOST_TRACED), count))
                trace = trace.thenCombine(services.run(account, run, RunReply.Timings.class,
                        replyTo -> new RunCommand.GetTimings(account, replyTo)), (all, timings) -> {
                            all.add(run, timings.timings());
                            return all;
                        });
            return trace.thenApply(all -> new ApiResponse.JsonBody(200, all.body(id), true));
        });
    }
}
