package bios.coordinator.gateway;

import bios.persistence.index.RunSummary;
import bios.protocol.Invalid;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.client.Answer;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.time.Duration;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.stream.Stream;
import org.apache.pekko.actor.typed.ActorRef;

/// Listings, and management of checkpoints. Listings are read from the index; a single run answers itself.
final class ListingEndpoints {
    private static final int MAX_PAGE = 1000;
    private final GatewayServices services;
    private final AuditLog audit;

    ListingEndpoints(GatewayServices services, AuditLog audit) {
        this.services = services;
        this.audit = audit;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("training_runs", this::runs),
                Endpoint.get("training_runs/*", this::run),
                Endpoint.get("training_runs/*/checkpoints", this::checkpointsOfRun),
                Endpoint.get("training_runs/*/timings", this::timings),
                Endpoint.get("training_runs/*/history", this::history),
                Endpoint.get("training_runs/*/metrics", this::metrics),
                Endpoint.post("training_runs/*/retry", call -> aboutSetAside(call, (seq, replyTo) ->
                        new RunCommand.Retry(call.account(), seq, replyTo))),
                Endpoint.post("training_runs/*/give_up", call -> aboutSetAside(call, (seq, replyTo) ->
                        new RunCommand.GiveUp(call.account(), seq, replyTo))),
                Endpoint.get("checkpoints", this::checkpoints),
                Endpoint.post("search_checkpoints", this::search).thatReads(),
                Endpoint.get("training_runs/*/checkpoints/*/*", this::checkpoint),
                Endpoint.delete("training_runs/*/checkpoints/*/*", this::delete),
                Endpoint.put("training_runs/*/checkpoints/*/*/ttl", this::ttl),
                Endpoint.post("training_runs/*/checkpoints/*/*/publish", call -> publish(call, true))
                        .ignoringBody(),
                Endpoint.delete("training_runs/*/checkpoints/*/*/publish", call -> publish(call, false)),
                Endpoint.put("sessions/*/project", this::project),
                Endpoint.get("sessions", this::sessions),
                Endpoint.get("sessions/*", this::session));
    }

    private static Map<String, Object> cursor(long offset, int limit, long total) {
        return ApiResponse.object("offset", offset, "limit", limit, "total_count", total);
    }

    private CompletionStage<ApiResponse> runs(ApiRequest call) {
        int limit = call.intParameter("limit", 20, 1, MAX_PAGE);
        int offset = call.intParameter("offset", 0, 0, Integer.MAX_VALUE);
        ListingFilter filter = ListingFilter.of(call);
        call.asksForAccessible();
        return services.runBlocking(() -> filter.runs(services.index(), call.account(), limit, offset))
                .thenApply(page -> new ApiResponse.Typed(() -> new Answer.Runs(page.items().stream()
                        .map(run -> ResponseBodies.run(run, Optional.empty())).toList(), page.total()), () ->
                        ResponseBodies.listing("training_runs", page.items(), run ->
                                ResponseBodies.run(call, run), cursor(offset, limit, page.total()))));
    }

    private CompletionStage<ApiResponse> checkpoints(ApiRequest call) {
        int limit = call.intParameter("limit", 100, 1, MAX_PAGE);
        int offset = call.intParameter("offset", 0, 0, Integer.MAX_VALUE);
        ListingFilter filter = ListingFilter.of(call);
        long now = services.clock().millis();
        return services.runBlocking(() ->
                filter.checkpoints(services.index(), call.account(), limit, offset, now))
                .thenApply(page -> new ApiResponse.Typed(() -> new Answer.Checkpoints(
                        ResponseBodies.checkpoints(page.items()), page.total()), () ->
                        ResponseBodies.listing("checkpoints", page.items(), c ->
                                ResponseBodies.checkpoint(call, c), cursor(offset, limit, page.total()))));
    }

    private CompletionStage<ApiResponse> search(ApiRequest call) {
        CheckpointSearch search = CheckpointSearch.of(call);
        long now = services.clock().millis();
        return services.runBlocking(() -> search.page(services.index(), call.account(), now))
                .thenApply(page -> ResponseBodies.listing("checkpoints", page.checkpoints(), c ->
                        ResponseBodies.checkpoint(call, c), "next_cursor",
                        page.next().map(CheckpointSearch.Position::body).orElse(null)));
    }

    private CompletionStage<ApiResponse> run(ApiRequest call) {
        return services.describe(RunEndpoints.runId(call.pathParameters().getFirst()), call.account(),
                call.asksForAccessible()).thenApply(run -> {
                    var summary = new RunSummary(run.config(), run.lora(), run.step(),
                            run.lastRequestMillis(), run.checkpoints(), run.closed(), run.corrupted(),
                            run.usage(), Optional.empty(), Optional.empty());
                    return new ApiResponse.Typed(() -> ResponseBodies.run(summary, run.waiting()), () ->
                            new ApiResponse.JsonBody(200, ResponseBodies.run(call, summary, run.waiting()),
                                    false));
                });
    }

    private CompletionStage<ApiResponse> checkpointsOfRun(ApiRequest call) {
        return services.describe(RunEndpoints.runId(call.pathParameters().getFirst()), call.account(),
                call.asksForAccessible()).thenApply(run -> {
                    List<CheckpointManifest> newest = run.checkpoints().stream()
                            .filter(c -> c.name().isPresent())
                            .sorted(Comparator.comparingLong(CheckpointManifest::createdAtMillis).reversed())
                            .toList();
                    return new ApiResponse.Typed(() -> new Answer.Checkpoints(
                            ResponseBodies.checkpoints(newest), newest.size()), () ->
                            ResponseBodies.listing("checkpoints", newest, c ->
                                    ResponseBodies.checkpoint(call, c), null));
                });
    }

    private CompletionStage<ApiResponse> checkpoint(ApiRequest call) {
        CheckpointRef wanted = CheckpointRef.of(call.pathParameters());
        return services.describe(wanted.run(), call.account(), call.asksForAccessible()).thenApply(run ->
                run.checkpoints().stream().filter(c -> c.kind() == wanted.kind()
                        && c.name().filter(wanted.name()::equals).isPresent()).findFirst()
                        .<ApiResponse>map(c ->
                                new ApiResponse.JsonBody(200, ResponseBodies.checkpoint(call, c), false))
                        .orElseThrow(() -> CheckpointRef.none(call.pathParameters())));
    }

    private CompletionStage<ApiResponse> timings(ApiRequest call) {
        int limit = call.intParameter("limit", 100, 1, MAX_PAGE);
        return services.run(call.account(), RunEndpoints.runId(call.pathParameters().getFirst()),
                RunReply.Timings.class,
                replyTo -> new RunCommand.GetTimings(call.account(), replyTo)).thenApply(reply -> {
                    int count = reply.timings().size();
                    return new ApiResponse.JsonBody(200, ApiResponse.object("timings", reply.timings()
                            .subList(Math.max(0, count - limit), count).stream().map(ResponseBodies::timing)
                            .toList()), true);
                });
    }

    private CompletionStage<ApiResponse> history(ApiRequest call) {
        return follow(call, "history", (after, wait, replyTo) ->
                new RunCommand.GetHistory(call.account(), after, wait, replyTo),
                reply -> ((RunReply.History) reply).entries(), ResponseBodies::historyEntry,
                shown -> new Answer.History(shown.map(ResponseBodies::typedEntry).toList()));
    }

    private CompletionStage<ApiResponse> metrics(ApiRequest call) {
        return follow(call, "metrics", (after, wait, replyTo) ->
                new RunCommand.GetMetrics(call.account(), after, wait, replyTo),
                reply -> ((RunReply.Metrics) reply).operations(), ResponseBodies::operationMetrics,
                shown -> new Answer.Metrics(shown.map(ResponseBodies::typedMetrics).toList()));
    }

    /// Asks a run for its numbered items.
    private interface Question {
        /// @param after the number that all of them are above
        /// @param waitMillis how long the run waits until there is one
        RunCommand ask(long after, long waitMillis, ActorRef<RunReply> replyTo);
    }

    /// Asks a run for what is newer than a number, and waits for it as for a result; without a number, for
    /// what there is.
    ///
    /// @param name of the list in the answer
    /// @param body of an item
    /// @param typed the answer of the actor protocol
    private <T> CompletionStage<ApiResponse> follow(ApiRequest call, String name, Question question,
            Function<RunReply, List<T>> items, Function<T, Map<String, Object>> body,
            Function<Stream<T>, Answer> typed) {
        int limit = call.intParameter("limit", 100, 1, MAX_PAGE);
        Optional<Long> after = call.after();
        Duration wait = after.isPresent() ? services.settings().longPoll() : Duration.ZERO;
        return services.run(call.account(), RunEndpoints.runId(call.pathParameters().getFirst()), replyTo ->
                question.ask(after.orElse(0L), wait.toMillis(), replyTo),
                wait.plus(services.settings().askTimeout())).thenApply(reply -> {
                    List<T> shown = part(items.apply(reply), limit, after);
                    return new ApiResponse.Typed(() -> typed.apply(shown.stream()), () ->
                            ApiResponse.ok(name, shown.stream().map(body).toList()));
                });
    }

    /// The newest items; or, of those after a number, the oldest, so that none is left out.
    private static <T> List<T> part(List<T> items, int limit, Optional<Long> after) {
        return after.isPresent() ? items.subList(0, Math.min(limit, items.size()))
                : items.subList(Math.max(0, items.size() - limit), items.size());
    }

    /// Tells a run what to do with the operation that was set aside; a refusal of its number names the field.
    private CompletionStage<ApiResponse> aboutSetAside(ApiRequest call,
            BiFunction<Optional<Long>, ActorRef<RunReply>, RunCommand> command) {
        Fields fields = call.bodyFields();
        Optional<Long> seq = fields.optionalInteger("seq_id", 0, Long.MAX_VALUE);
        fields.requireAllRead();
        return services.run(call.account(), RunEndpoints.runId(call.pathParameters().getFirst()),
                RunReply.Done.class, replyTo -> command.apply(seq, replyTo))
                .<ApiResponse>thenApply(_ -> ApiResponse.ok()).exceptionallyCompose(failed ->
                        CompletableFuture.failedStage(seq.isPresent()
                                && GatewayServices.cause(failed) instanceof ApiException why
                                && (why.code() == ErrorCode.CONFLICT || why.code() == ErrorCode.INVALID)
                                        ? why.withField("seq_id") : failed));
    }

    /// A checkpoint named by three segments of the path.
    record CheckpointRef(RunId run, CheckpointKind kind, CheckpointName name) {
        CheckpointPath path() {
            return new CheckpointPath(run, Optional.of(kind), name);
        }

        static CheckpointRef of(List<String> parts) {
            RunId run = RunEndpoints.runId(parts.get(0));
            CheckpointKind kind = CheckpointKind.of(parts.get(1)).orElseThrow(() -> none(parts));
            return new CheckpointRef(run, kind, name(parts));
        }

        private static CheckpointName name(List<String> parts) {
            try {
                return new CheckpointName(parts.get(2));
            } catch (Invalid _) {
                throw none(parts);
            }
        }

        private static ApiException none(List<String> parts) {
            return new ApiException(ErrorCode.NOT_FOUND, "there is no checkpoint '" + parts.get(1) + "/"
                    + parts.get(2)
                    + "' in run " + parts.get(0) + "; expected weights/<name> or sampler_weights/<name>");
        }
    }

    private CompletionStage<ApiResponse> delete(ApiRequest call) {
        CheckpointRef target = CheckpointRef.of(call.pathParameters());
        return services.run(call.account(), target.run(), RunReply.Done.class,
                replyTo -> new RunCommand.DeleteCheckpoint(call.account(),
                        target.kind(), target.name(), replyTo))
                .thenCompose(audit.record(call, "delete_checkpoint", target.path()))
                .thenApply(_ -> new ApiResponse.NoContent());
    }

    private CompletionStage<ApiResponse> ttl(ApiRequest call) {
        CheckpointRef target = CheckpointRef.of(call.pathParameters());
        Fields fields = call.bodyFields();
        Optional<Long> expires = fields.optionalInteger("ttl_seconds", 1,
                TrainingEndpoints.MAX_TTL_SECONDS)
                .map(seconds -> services.clock().millis() + 1000 * seconds);
        fields.requireAllRead();
        return services.run(call.account(), target.run(), RunReply.Done.class,
                replyTo -> new RunCommand.SetExpiry(call.account(),
                        target.kind(), target.name(), expires, replyTo))
                .thenCompose(audit.record(call, "set_checkpoint_ttl", target.path()))
                        .thenApply(_ -> new ApiResponse.NoContent());
    }

    private CompletionStage<ApiResponse> publish(ApiRequest call, boolean published) {
        CheckpointRef target = CheckpointRef.of(call.pathParameters());
        return services.run(call.account(), target.run(), RunReply.Done.class,
                replyTo -> new RunCommand.Publish(call.account(), target.kind(), target.name(), published,
                        replyTo)).thenCompose(audit.record(call, published ? "publish_checkpoint"
                                : "unpublish_checkpoint", target.path()))
                .thenApply(_ -> new ApiResponse.NoContent());
    }

    /// Moves a session and its runs to a project. A repeated call moves what an interrupted one has left.
    private CompletionStage<ApiResponse> project(ApiRequest call) {
        Fields fields = call.bodyFields();
        Optional<String> project = ServiceEndpoints.project(fields);
        fields.requireAllRead();
        return services.session(call.pathParameters().getFirst(), SessionReply.Described.class, replyTo ->
                new SessionCommand.SetProject(call.account(), project, replyTo)).thenCompose(session -> {
                    CompletionStage<?> moved = CompletableFuture.completedStage(null);
                    for (RunId run : session.runs()) moved = moved.thenCompose(_ -> services.run(
                            call.account(), run, RunReply.Done.class, replyTo ->
                                    new RunCommand.SetProject(call.account(), project, replyTo)));
                    return moved.thenApply(_ -> new ApiResponse.NoContent());
                });
    }

    /// The sessions that have runs; newest first.
    private CompletionStage<ApiResponse> sessions(ApiRequest call) {
        int limit = call.intParameter("limit", 20, 1, MAX_PAGE);
        int offset = call.intParameter("offset", 0, 0, Integer.MAX_VALUE);
        call.asksForAccessible();
        return services.runBlocking(() -> ApiResponse.ok("sessions", services.index().allRuns(call.account())
                .map(run -> run.config().session()).distinct().skip(offset).limit(limit).toList()));
    }

    private CompletionStage<ApiResponse> session(ApiRequest call) {
        call.asksForAccessible();
        return services.session(call.pathParameters().getFirst(), SessionReply.Described.class, replyTo ->
                new SessionCommand.Describe(call.account(), replyTo))
                .thenApply(session ->
                ApiResponse.ok("training_run_ids", session.runs().stream().map(RunId::value)
                        .toList(), "sampler_ids", session.samplers()));
    }
}
