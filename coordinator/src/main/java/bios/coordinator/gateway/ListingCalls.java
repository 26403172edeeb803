package bios.coordinator.gateway;

import bios.persistence.index.RunSummary;
import bios.protocol.Invalid;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletionStage;

/// Lists and management. Lists come from the index; one run is asked itself.
final class ListingCalls {
    private static final long LONGEST_TTL = 100L * 365 * 24 * 3600;
    private static final int MOST = 1000;
    private final Backend backend;

    ListingCalls(Backend backend) {
        this.backend = backend;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("training_runs", this::runs),
                Endpoint.get("training_runs/*", this::run),
                Endpoint.get("training_runs/*/checkpoints", this::checkpointsOfRun),
                Endpoint.get("training_runs/*/timings", this::timings),
                Endpoint.get("training_runs/*/history", this::history),
                Endpoint.get("checkpoints", this::checkpoints),
                Endpoint.delete("training_runs/*/checkpoints/*/*", this::delete),
                Endpoint.put("training_runs/*/checkpoints/*/*/ttl", this::ttl),
                Endpoint.get("sessions", this::sessions),
                Endpoint.get("sessions/*", this::session));
    }

    private static Map<String, Object> cursor(long offset, int limit, long total) {
        return Reply.object("offset", offset, "limit", limit, "total_count", total);
    }

    private CompletionStage<Reply> runs(Call call) {
        int limit = call.number("limit", 20, 1, MOST);
        int offset = call.number("offset", 0, 0, Integer.MAX_VALUE);
        return backend.blocking(() -> backend.index().runs(call.account(), limit, offset))
                .thenApply(page -> new Reply.Value(200, Reply.object(
                        "training_runs", page.items().stream().map(run -> Answers.run(call, run)).toList(),
                        "cursor", cursor(offset, limit, page.total())), true));
    }

    private CompletionStage<Reply> checkpoints(Call call) {
        int limit = call.number("limit", 100, 1, MOST);
        int offset = call.number("offset", 0, 0, Integer.MAX_VALUE);
        return backend.blocking(() -> backend.index().checkpoints(call.account(), limit, offset))
                .thenApply(page -> new Reply.Value(200, Reply.object(
                        "checkpoints", page.items().stream().map(c -> Answers.checkpoint(call, c)).toList(),
                        "cursor", cursor(offset, limit, page.total())), true));
    }

    private CompletionStage<Reply> run(Call call) {
        return backend.describe(RunCalls.runId(call.parts().getFirst()), call.account()).thenApply(run ->
                new Reply.Value(200, Answers.run(call, new RunSummary(run.config(), run.lora(), run.step(),
                        run.lastRequestMillis(), run.checkpoints(), run.closed())), false));
    }

    private CompletionStage<Reply> checkpointsOfRun(Call call) {
        return backend.describe(RunCalls.runId(call.parts().getFirst()), call.account()).thenApply(run ->
                Reply.ok("checkpoints", run.checkpoints().stream().filter(c -> c.name().isPresent())
                        .sorted(Comparator.comparingLong(CheckpointManifest::createdAtMillis).reversed())
                        .map(c -> Answers.checkpoint(call, c)).toList(), "cursor", null));
    }

    private CompletionStage<Reply> timings(Call call) {
        int limit = call.number("limit", 100, 1, MOST);
        return backend.run(call.account(), RunCalls.runId(call.parts().getFirst()), RunReply.Timed.class,
                replyTo -> new RunCommand.Time(call.account(), replyTo)).thenApply(timed -> {
                    int count = timed.timings().size();
                    return new Reply.Value(200, Reply.object("timings", timed.timings()
                            .subList(Math.max(0, count - limit), count).stream().map(Answers::timing)
                            .toList()), true);
                });
    }

    private CompletionStage<Reply> history(Call call) {
        int limit = call.number("limit", 100, 1, MOST);
        return backend.run(call.account(), RunCalls.runId(call.parts().getFirst()), RunReply.Recounted.class,
                replyTo -> new RunCommand.Recount(call.account(), replyTo)).thenApply(recounted -> {
                    int count = recounted.entries().size();
                    return Reply.ok("history", recounted.entries().subList(Math.max(0, count - limit), count)
                            .stream().map(Answers::note).toList());
                });
    }

    /// A checkpoint as three segments of a path name it.
    record Named(RunId run, CheckpointKind kind, CheckpointName name) {
        static Named of(List<String> parts) {
            RunId run = RunCalls.runId(parts.get(0));
            for (CheckpointKind kind : CheckpointKind.values())
                if (kind.segment().equals(parts.get(1))) return new Named(run, kind, name(parts));
            throw none(parts);
        }

        private static CheckpointName name(List<String> parts) {
            try {
                return new CheckpointName(parts.get(2));
            } catch (Invalid _) {
                throw none(parts);
            }
        }

        private static Refusal none(List<String> parts) {
            return new Refusal(Code.NOT_FOUND, "there is no checkpoint '" + parts.get(1) + "/" + parts.get(2)
                    + "' in run " + parts.get(0) + "; expected weights/<name> or sampler_weights/<name>");
        }
    }

    private CompletionStage<Reply> delete(Call call) {
        Named target = Named.of(call.parts());
        return backend.run(call.account(), target.run(), RunReply.Done.class,
                replyTo -> new RunCommand.DeleteCheckpoint(call.account(),
                        target.kind(), target.name(), replyTo)).thenApply(_ -> new Reply.Nothing());
    }

    private CompletionStage<Reply> ttl(Call call) {
        Named target = Named.of(call.parts());
        Fields fields = call.fields();
        Optional<Long> expires = fields.optionalInteger("ttl_seconds", 1, LONGEST_TTL)
                .map(seconds -> backend.clock().millis() + 1000 * seconds);
        fields.done();
        return backend.run(call.account(), target.run(), RunReply.Done.class,
                replyTo -> new RunCommand.SetExpiry(call.account(),
                        target.kind(), target.name(), expires, replyTo)).thenApply(_ -> new Reply.Nothing());
    }

    /// The sessions that have runs, newest first.
    private CompletionStage<Reply> sessions(Call call) {
        int limit = call.number("limit", 20, 1, MOST);
        int offset = call.number("offset", 0, 0, Integer.MAX_VALUE);
        return backend.blocking(() -> {
            var sessions = new LinkedHashSet<String>();
            for (long from = 0;; from += MOST) {
                List<RunSummary> page = backend.index().runs(call.account(), MOST, from).items();
                page.forEach(run -> sessions.add(run.config().session()));
                if (page.size() < MOST || sessions.size() >= (long) offset + limit) break;
            }
            return Reply.ok("sessions", new ArrayList<>(sessions).stream().skip(offset).limit(limit)
                    .toList());
        });
    }

    private CompletionStage<Reply> session(Call call) {
        return backend.session(call.parts().getFirst(), SessionReply.Described.class, replyTo ->
                new SessionCommand.Describe(call.account(), replyTo))
                .thenApply(session -> Reply.ok("training_run_ids", session.runs().stream().map(RunId::value)
                        .toList(), "sampler_ids", session.samplers()));
    }
}
