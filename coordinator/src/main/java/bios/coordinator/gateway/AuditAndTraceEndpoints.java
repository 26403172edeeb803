package bios.coordinator.gateway;

import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.AuditEntry;
import bios.protocol.owner.OwnerCommand.OwnerReply;
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
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/// The endpoints of the audit log of an account and of the trace of a session.
final class AuditAndTraceEndpoints {
    private static final int PAGE = 500;
    /// Most runs of a session in its trace, the newest.
    private static final int MOST_TRACED = 256;
    /// About the heap bytes of an entry of the audit log.
    private static final long ENTRY_BYTES = 256;
    private final GatewayServices services;
    private final SignedUrls urls;

    AuditAndTraceEndpoints(GatewayServices services, SignedUrls urls) {
        this.services = services;
        this.urls = urls;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("audit", this::audit),
                Endpoint.get("sessions/*/trace_export", this::traceLink),
                Endpoint.get("traces/*", this::trace).withoutKey());
    }

    /// What was done on behalf of the account, newest first.
    private CompletionStage<ApiResponse> audit(ApiRequest call) {
        String account = UsageEndpoints.account(call);
        boolean checkpoints = call.oneOf("event_type", List.of("all", "checkpoints"))
                .filter("checkpoints"::equals).isPresent();
        Optional<LocalDate> day = call.parameter("day").map(AuditAndTraceEndpoints::day);
        return entries(account, 0, List.of()).thenApply(all -> ResponseBodies.listing(
                ApiResponse.object("entries", all.stream().filter(e -> !checkpoints || e.path().isPresent())
                        .filter(e -> day.isEmpty() || Instant.ofEpochMilli(e.timeMillis())
                                .atZone(ZoneOffset.UTC).toLocalDate().equals(day.get()))
                        .map(AuditAndTraceEndpoints::body)), all.size(), ENTRY_BYTES));
    }

    private static Map<String, Object> body(AuditEntry entry) {
        return ApiResponse.object("timestamp", ResponseBodies.time(entry.timeMillis()), "event",
                entry.event(), "model_id", entry.run(), "tinker_path", entry.path()
                        .map(path -> CheckpointPath.parse(path).tinkerUri()),
                "key_id", Optional.of(entry.keyId()).filter(id -> !id.isEmpty()));
    }

    /// All entries, in pages that fit a message.
    private CompletionStage<List<AuditEntry>> entries(String account, int skip, List<AuditEntry> before) {
        return services.owner(account, replyTo -> new OwnerCommand.GetAudit(skip, PAGE, replyTo))
                .thenCompose(reply -> {
                    var page = (OwnerReply.Audit) reply;
                    var all = new ArrayList<>(before);
                    all.addAll(page.entries());
                    return page.entries().size() < PAGE ? CompletableFuture.completedStage(all)
                            : entries(account, skip + PAGE, all);
                });
    }

    private static LocalDate day(String text) {
        try {
            return LocalDate.parse(text);
        } catch (DateTimeParseException _) {
            throw new ApiException(ErrorCode.INVALID, "day", "'" + text + "' is no date like 2026-01-31");
        }
    }

    /// A signed URL of the trace, which is made when it is downloaded.
    private CompletionStage<ApiResponse> traceLink(ApiRequest call) {
        String session = call.pathParameters().getFirst();
        return describe(session, call.account()).thenApply(_ -> {
            long expires = services.clock().millis() + services.settings().archiveUrlLifetime().toMillis();
            return ApiResponse.ok("status", "ready", "url", urls.url(call, "traces/" + session, expires),
                    "error", null);
        });
    }

    private CompletionStage<SessionReply.Described> describe(String session, String account) {
        return services.session(session, SessionReply.Described.class, replyTo ->
                new SessionCommand.Describe(account, replyTo));
    }

    private CompletionStage<ApiResponse> trace(ApiRequest call) {
        String id = call.pathParameters().getFirst();
        String account = urls.account(call, "traces/" + id, services.clock().millis(),
                "request a new link");
        return describe(id, account).thenCompose(session -> {
            int count = session.runs().size();
            CompletionStage<SessionTrace> trace = CompletableFuture.completedStage(new SessionTrace());
            for (RunId run : session.runs().subList(Math.max(0, count - MOST_TRACED), count))
                trace = trace.thenCombine(services.run(account, run, RunReply.Timings.class,
                        replyTo -> new RunCommand.GetTimings(account, replyTo)), (all, timings) -> {
                            all.add(run, timings.timings());
                            return all;
                        });
            return trace.thenApply(all -> all.body(id));
        });
    }
}
