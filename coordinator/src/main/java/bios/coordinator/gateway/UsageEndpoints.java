package bios.coordinator.gateway;

import bios.persistence.index.RunSummary;
import bios.protocol.client.Answer;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.OwnerReply;
import bios.protocol.owner.OwnerCommand.SampledTotal;
import bios.protocol.run.RunUsage;
import bios.protocol.run.StorageUse;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeParseException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.CompletionStage;
import java.util.function.ToLongFunction;
import java.util.stream.Stream;

/// What the runs of an account have used, in all and by the hour. Training is counted by each run, sampling
/// by the account that samples; bytes are those of the checkpoints and states that there are now.
final class UsageEndpoints {
    private static final long HOUR_MILLIS = 3_600_000;
    private static final double NANOS = 1e9;
    private static final int CSV_LINE_BYTES = 512;
    private static final double GIGABYTE = 1e9;
    /// About the heap bytes of a line of the usage, and of an event.
    private static final long LINE_BYTES = 256;
    private static final long EVENT_BYTES = 64;
    private final GatewayServices services;

    UsageEndpoints(GatewayServices services) {
        this.services = services;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("usage", this::usage),
                Endpoint.get("billing/usage/events", this::hours),
                Endpoint.get("billing/usage/checkpoints/current", this::storedNow));
    }

    /// One line of the usage: of a run, or of a base model that was sampled itself.
    private record Line(Optional<String> run, String baseModel, Optional<String> project, String session,
            RunUsage trained, long requests, long prefilled, long sampled, long bytes) {
        static Line of(RunSummary run, long now) {
            return new Line(Optional.of(run.config().run().value()), run.config().baseModel().value(),
                    run.config().project(), run.config().session(), run.usage().orElse(RunUsage.NONE), 0, 0,
                    0, Quotas.stored(run, now));
        }

        static Line of(SampledTotal total) {
            return new Line(total.run(), total.baseModel(), Optional.empty(), "", RunUsage.NONE, 0, 0, 0, 0);
        }

        Line plus(SampledTotal total) {
            return new Line(run, baseModel, project, session, trained, requests + total.requests(),
                    prefilled + total.prefilled(), sampled + total.sampled(), bytes);
        }

        Optional<String> sessionId() {
            return Optional.of(session).filter(s -> !s.isEmpty());
        }

        /// The sum of some lines.
        static Line sum(List<Line> lines) {
            return new Line(Optional.empty(), "", Optional.empty(), "", new RunUsage(0, sum(lines, l ->
                    l.trained().trainedTokens()), sum(lines, l -> l.trained().evaluatedTokens()),
                    sum(lines, l -> l.trained().deviceNanos()), List.of()), sum(lines, Line::requests),
                    sum(lines, Line::prefilled), sum(lines, Line::sampled), sum(lines, Line::bytes));
        }

        private static long sum(List<Line> lines, ToLongFunction<Line> of) {
            return lines.stream().mapToLong(of).sum();
        }

        Map<String, Object> body() {
            var body = ApiResponse.object("training_run_id", run, "base_model", baseModel, "project_id",
                    project, "session_id", sessionId());
            body.putAll(numbers());
            return body;
        }

        Map<String, Object> numbers() {
            return ApiResponse.object("tokens_trained", trained.trainedTokens(), "tokens_evaluated",
                    trained.evaluatedTokens(), "tokens_prefilled", prefilled, "tokens_sampled", sampled,
                    "sampling_requests", requests, "device_seconds", trained.deviceNanos() / NANOS,
                    "stored_bytes", bytes);
        }

        /// The same for the actor protocol.
        Answer.UsageLine typed() {
            return new Answer.UsageLine(run, baseModel, project, sessionId(), trained.trainedTokens(),
                    trained.evaluatedTokens(), prefilled, sampled, requests, trained.deviceNanos() / NANOS,
                    bytes);
        }
    }

    /// The account that is asked about: the caller's, or for operators any.
    static String account(ApiRequest call) {
        String wanted = call.parameter("owner").orElse(call.account());
        if (!wanted.equals(call.account()) && call.caller().scope() != ApiKey.Scope.OPERATOR)
            throw new ApiException(ErrorCode.OPERATORS_ONLY, "owner",
                    "another account's records need a key of scope operator");
        if (!ApiKey.isAccount(wanted))
            throw new ApiException(ErrorCode.INVALID, "owner", ApiKey.noAccount(wanted));
        return wanted;
    }

    private CompletionStage<OwnerReply.Sampled> sampled(String account) {
        return services.owner(account, OwnerCommand.GetUsage::new).thenApply(reply ->
                (OwnerReply.Sampled) reply);
    }

    private CompletionStage<ApiResponse> usage(ApiRequest call) {
        String account = account(call);
        ListingFilter filter = ListingFilter.of(call);
        boolean csv = call.oneOf("format", List.of("json", "csv")).filter("csv"::equals).isPresent()
                || call.accepts("text/csv");
        return sampled(account).thenCompose(sampled -> services.runBlocking(() -> {
            List<Line> lines = lines(account, filter, sampled.totals());
            if (csv) return new ApiResponse.Binary("text/csv; charset=UTF-8", () -> csv(lines),
                    (long) CSV_LINE_BYTES * lines.size());
            List<Line> runs = lines.stream().filter(l -> l.run().isPresent()).toList();
            List<Line> models = lines.stream().filter(l -> l.run().isEmpty()).toList();
            return new ApiResponse.Typed(() -> new Answer.Usage(account, Line.sum(lines).typed(),
                    runs.stream().map(Line::typed).toList(), models.stream().map(Line::typed).toList()),
                    () -> {
                        var body = ApiResponse.object("owner", account);
                        body.putAll(Line.sum(lines).numbers());
                        body.put("runs", runs.stream().map(Line::body));
                        body.put("base_models", models.stream().map(Line::body));
                        return ResponseBodies.listing(body, lines.size(), LINE_BYTES);
                    });
        }));
    }

    private List<Line> lines(String account, ListingFilter filter, List<SampledTotal> sampled) {
        var lines = new LinkedHashMap<String, Line>();
        long now = services.clock().millis();
        filter.runs(services.index(), account)
                .forEach(run -> lines.put(run.config().run().value(), Line.of(run, now)));
        for (SampledTotal total : sampled) {
            String key = total.run().orElse("base model " + total.baseModel());
            // A filter chooses runs of the account; what else was sampled is in the whole usage only.
            if (filter.showsAll() || lines.containsKey(key))
                lines.put(key, lines.getOrDefault(key, Line.of(total)).plus(total));
        }
        return List.copyOf(lines.values());
    }

    private static byte[] csv(List<Line> lines) {
        var text = new StringBuilder();
        text.append(String.join(",", Line.of(new SampledTotal(Optional.empty(), "", "", 0, 0, 0, 0)).body()
                .keySet())).append("\r\n");
        for (Line line : lines) {
            var cells = new ArrayList<String>();
            line.body().values().forEach(value -> cells.add(cell(value == null ? "" : value.toString())));
            text.append(String.join(",", cells)).append("\r\n");
        }
        return text.toString().getBytes(StandardCharsets.UTF_8);
    }

    /// A cell of a CSV file. A text that a spreadsheet would take for a formula is marked as text: no number
    /// that is written here is negative.
    private static String cell(String text) {
        String safe = text.matches("(?s)[-=+@\\t\\r\\n].*") ? "'" + text : text;
        return safe.matches("(?s).*[\",\\r\\n].*") ? "\"" + safe.replace("\"", "\"\"") + "\"" : safe;
    }

    // By the hour

    /// Usage of one kind in one hour, of a run's session or of a base model.
    ///
    /// @param amount tokens, checkpoints, or gigabytes times hours
    private record Event(long hour, String baseModel, String session, Optional<String> project, String kind,
            double amount) {
        static final String CHECKPOINT = "checkpoint";
        static final String STORAGE = "storage";

        static Event of(RunSummary run, long hour, String kind, double amount) {
            return new Event(hour, run.config().baseModel().value(), run.config().session(),
                    run.config().project(), kind, amount);
        }

        Map<String, Object> body(String account) {
            var info = ApiResponse.object("type", kind);
            if (kind.equals("sampling_prefill")) info.put("cached", false);
            switch (kind) {
                case CHECKPOINT -> info.put("count", (long) amount);
                case STORAGE -> info.put("gigabyte_hours", amount);
                default -> info.put("token_count", (long) amount);
            }
            return ApiResponse.object("bucket_start", ResponseBodies.time(hour * HOUR_MILLIS), "bucket_end",
                    ResponseBodies.time((hour + 1) * HOUR_MILLIS), "base_model", baseModel, "user_id",
                    account, "user_name", account, "session_id", sessionId(), "project_id", project,
                    "event_info", info);
        }

        Optional<String> sessionId() {
            return Optional.of(session).filter(s -> !s.isEmpty());
        }

        boolean countsTokens() {
            return !kind.equals(CHECKPOINT) && !kind.equals(STORAGE);
        }

        /// The same for the actor protocol, which tells of tokens only.
        Answer.UsageEvent typed() {
            return new Answer.UsageEvent(hour * HOUR_MILLIS, baseModel, sessionId(), project, kind,
                    (long) amount);
        }
    }

    /// Usage in the form of Tinker's clients: an event for each hour, run or base model, and kind of usage.
    private CompletionStage<ApiResponse> hours(ApiRequest call) {
        String account = account(call);
        long from = time(call, "starting_on").map(Instant::toEpochMilli).orElse(0L);
        long to = time(call, "ending_before").map(Instant::toEpochMilli).orElse(Long.MAX_VALUE);
        return sampled(account).thenCompose(sampled -> services.runBlocking(() -> {
            List<RunSummary> runs = services.index().allRuns(account).toList();
            var sessions = new TreeMap<String, Object>();
            runs.forEach(run -> sessions.put(run.config().session(), Map.of("user_metadata", Map.of())));
            List<Event> events = events(runs, sampled.hours()).filter(e -> e.amount() != 0
                    && e.hour() * HOUR_MILLIS >= from && e.hour() * HOUR_MILLIS < to)
                    .sorted(Comparator.comparingLong(Event::hour)).toList();
            return new ApiResponse.Typed(() -> new Answer.HourlyUsage(events.stream()
                    .filter(Event::countsTokens).map(Event::typed).toList()), () ->
                            ResponseBodies.listing(ApiResponse.object("data", events.stream().map(e ->
                                    e.body(account)), "sessions", sessions), events.size(), EVENT_BYTES));
        }));
    }

    /// All events; they are made when they are asked for.
    private Stream<Event> events(List<RunSummary> runs, List<SampledTotal> sampled) {
        long now = services.clock().millis();
        return Stream.concat(runs.stream().flatMap(run -> events(run, now)), sampled.stream().flatMap(total ->
                Stream.of(new Event(total.hour(), total.baseModel(), total.session(), Optional.empty(),
                                "sampling_prefill", total.prefilled()),
                        new Event(total.hour(), total.baseModel(), total.session(), Optional.empty(),
                                "sampling_sample", total.sampled()))));
    }

    private static Stream<Event> events(RunSummary run, long now) {
        return Stream.concat(run.usage().orElse(RunUsage.NONE).hours().stream().map(hour -> Event.of(run,
                hour.hour(), "training", hour.trainedTokens() + hour.evaluatedTokens())),
                run.storage().orElse(StorageUse.NONE).until(now, run.checkpoints()).hours().stream()
                        .flatMap(hour -> Stream.of(
                                Event.of(run, hour.hour(), Event.CHECKPOINT, hour.saved()),
                                Event.of(run, hour.hour(), Event.STORAGE, hour.byteHours() / GIGABYTE))));
    }

    /// The checkpoints that there are now, by project.
    private CompletionStage<ApiResponse> storedNow(ApiRequest call) {
        String account = account(call);
        Optional<String> project = call.parameter("project_id");
        long now = services.clock().millis();
        return services.runBlocking(() -> {
            var counts = new TreeMap<String, long[]>();
            services.index().allRuns(account).filter(run -> project.isEmpty()
                    || project.equals(run.config().project())).forEach(run -> {
                        long[] sum = counts.computeIfAbsent(run.config().project().orElse(""), _ ->
                                new long[2]);
                        run.checkpoints().stream().filter(c -> c.expiresAtMillis().filter(at -> at <= now)
                                .isEmpty()).forEach(c -> {
                                    sum[0]++;
                                    sum[1] += c.bytes();
                                });
                    });
            return ApiResponse.ok("effective_rate_usd_per_gigabyte_month", null, "data",
                    counts.entrySet().stream().filter(e -> e.getValue()[0] > 0).map(e -> ApiResponse.object(
                            "project_id", Optional.of(e.getKey()).filter(name -> !name.isEmpty()),
                            "org_user_urn", null, "user_email", null, "user_name", account,
                            "checkpoint_count", e.getValue()[0], "size_bytes", e.getValue()[1],
                            "size_gigabytes", e.getValue()[1] / GIGABYTE,
                            "estimated_monthly_cost_usd", null)).toList());
        });
    }

    /// A time of ISO 8601; without an offset, as Tinker's command line sends it, it is one in UTC.
    private static Optional<Instant> time(ApiRequest call, String name) {
        return call.parameter(name).map(text -> {
            try {
                return DateTimeFormatter.ISO_DATE_TIME.withZone(ZoneOffset.UTC).parse(text, Instant::from);
            } catch (DateTimeParseException _) {
                throw new ApiException(ErrorCode.INVALID, name,
                        "'" + text + "' is no time like 2026-01-31T00:00:00Z");
            }
        });
    }
}
