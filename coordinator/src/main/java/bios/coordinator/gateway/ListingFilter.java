package bios.coordinator.gateway;

import bios.persistence.index.ListingPage;
import bios.persistence.index.RunIndex;
import bios.persistence.index.RunSummary;
import bios.protocol.checkpoint.CheckpointManifest;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Stream;

/// Which runs and checkpoints of an account a listing shows: those that have every value that the request
/// gives.
///
/// @param projects of the run, one of these
/// @param baseModels one of these
/// @param metadata values of the run's `user_metadata`, by name; the metadata of a checkpoint go before those
///     of its run
/// @param type `training` or `sampler`
/// @param name how the name of a checkpoint begins
record ListingFilter(Optional<Set<String>> projects, Optional<Set<String>> baseModels, Optional<String> run,
        Map<String, String> metadata, Optional<String> type, Optional<String> name,
        Optional<Boolean> published) {
    static final List<String> TYPES = List.of("training", "sampler");
    private static final String METADATA = "user_metadata.";

    /// The filter of a request's query.
    static ListingFilter of(ApiRequest call) {
        var metadata = new LinkedHashMap<String, String>();
        call.query().forEach((name, value) -> {
            if (name.startsWith(METADATA)) metadata.put(name.substring(METADATA.length()), value);
        });
        return new ListingFilter(call.parameter("project_id").map(Set::of),
                call.parameter("base_model").map(Set::of), call.parameter("training_run_id"), metadata,
                call.oneOf("checkpoint_type", TYPES), call.parameter("name"),
                call.oneOf("public", List.of("true", "false")).map(Boolean::valueOf));
    }

    /// Whether it shows all runs and all checkpoints.
    boolean showsAll() {
        return showsAllRuns() && type.isEmpty() && name.isEmpty() && published.isEmpty();
    }

    private boolean showsAllRuns() {
        return projects.isEmpty() && baseModels.isEmpty() && run.isEmpty() && metadata.isEmpty();
    }

    /// Whether it may show the run, or checkpoints of it, by all but metadata.
    private boolean isAmong(RunSummary summary) {
        var config = summary.config();
        return projects.filter(some -> config.project().filter(some::contains).isEmpty()).isEmpty()
                && baseModels.filter(some -> !some.contains(config.baseModel().value())).isEmpty()
                && run.filter(id -> !id.equals(config.run().value())).isEmpty();
    }

    private boolean hasMetadata(Map<String, String> given) {
        return metadata.entrySet().stream().allMatch(e -> e.getValue().equals(given.get(e.getKey())));
    }

    private boolean shows(RunSummary summary) {
        return isAmong(summary) && (metadata.isEmpty()
                || hasMetadata(JsonWriter.strings(summary.config().userMetadata())));
    }

    private boolean shows(RunSummary summary, CheckpointManifest checkpoint) {
        if (type.filter(t -> !t.equals(checkpoint.kind().name().toLowerCase(Locale.ROOT))).isPresent()
                || published.filter(p -> p != checkpoint.readableByAll()).isPresent()
                || name.filter(n -> !checkpoint.name().map(Object::toString).orElse("").startsWith(n))
                        .isPresent()) return false;
        if (metadata.isEmpty()) return true;
        Map<String, String> given = JsonWriter.strings(summary.config().userMetadata());
        given.putAll(JsonWriter.strings(checkpoint.userMetadata()));
        return hasMetadata(given);
    }

    /// A page of the account's runs, newest first. Blocks.
    ListingPage<RunSummary> runs(RunIndex index, String account, int limit, long offset) {
        if (showsAllRuns()) return index.runs(account, limit, offset);
        return page(runs(index, account).toList(), limit, offset);
    }

    /// A page of the account's checkpoints that have not expired, newest first. Blocks.
    ListingPage<CheckpointManifest> checkpoints(RunIndex index, String account, int limit, long offset,
            long nowMillis) {
        if (showsAll()) return index.checkpoints(account, limit, offset);
        return page(checkpoints(index, account, nowMillis)
                .sorted(Comparator.comparingLong(CheckpointManifest::createdAtMillis).reversed())
                .toList(), limit, offset);
    }

    /// The account's checkpoints that have not expired, in no order. Blocks.
    Stream<CheckpointManifest> checkpoints(RunIndex index, String account, long nowMillis) {
        return index.allRuns(account).filter(this::isAmong).flatMap(summary -> summary.checkpoints().stream()
                .filter(c -> c.name().isPresent() && shows(summary, c)
                        && c.expiresAtMillis().filter(at -> at <= nowMillis).isEmpty()));
    }

    /// The account's runs, newest first. Blocks.
    Stream<RunSummary> runs(RunIndex index, String account) {
        return index.allRuns(account).filter(this::shows);
    }

    private static <T> ListingPage<T> page(List<T> all, int limit, long offset) {
        return new ListingPage<>(all.stream().skip(offset).limit(limit).toList(), all.size());
    }
}
