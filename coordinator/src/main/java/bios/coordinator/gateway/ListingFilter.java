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
import java.util.stream.Stream;

/// Which runs and checkpoints of an account a listing shows: those that have every value that the query
/// gives.
///
/// @param metadata values of the run's `user_metadata`, by name
/// @param type `training` or `sampler`
/// @param name how the name of a checkpoint begins
record ListingFilter(Optional<String> project, Optional<String> baseModel, Optional<String> run,
        Map<String, String> metadata, Optional<String> type, Optional<String> name,
        Optional<Boolean> published) {
    private static final String METADATA = "user_metadata.";

    /// The filter of a request's query.
    static ListingFilter of(ApiRequest call) {
        var metadata = new LinkedHashMap<String, String>();
        call.query().forEach((name, value) -> {
            if (name.startsWith(METADATA)) metadata.put(name.substring(METADATA.length()), value);
        });
        return new ListingFilter(call.parameter("project_id"), call.parameter("base_model"),
                call.parameter("training_run_id"), metadata,
                call.oneOf("checkpoint_type", List.of("training", "sampler")), call.parameter("name"),
                call.oneOf("public", List.of("true", "false")).map(Boolean::valueOf));
    }

    /// Whether it shows all runs and all checkpoints.
    boolean showsAll() {
        return showsAllRuns() && type.isEmpty() && name.isEmpty() && published.isEmpty();
    }

    private boolean showsAllRuns() {
        return project.isEmpty() && baseModel.isEmpty() && run.isEmpty() && metadata.isEmpty();
    }

    private boolean shows(RunSummary summary) {
        var config = summary.config();
        if (project.isPresent() && !project.equals(config.project())
                || baseModel.filter(m -> !m.equals(config.baseModel().value())).isPresent()
                || run.filter(id -> !id.equals(config.run().value())).isPresent()) return false;
        if (metadata.isEmpty()) return true;
        Map<String, String> given = JsonWriter.strings(config.userMetadata());
        return metadata.entrySet().stream().allMatch(e -> e.getValue().equals(given.get(e.getKey())));
    }

    private boolean shows(CheckpointManifest checkpoint) {
        return type.filter(t -> !t.equals(checkpoint.kind().name().toLowerCase(Locale.ROOT))).isEmpty()
                && published.filter(p -> p != checkpoint.readableByAll()).isEmpty()
                && name.filter(n -> !checkpoint.name().map(Object::toString).orElse("").startsWith(n))
                        .isEmpty();
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
        return page(runs(index, account).flatMap(summary -> summary.checkpoints().stream())
                .filter(c -> c.expiresAtMillis().filter(at -> at <= nowMillis).isEmpty()).filter(this::shows)
                .sorted(Comparator.comparingLong(CheckpointManifest::createdAtMillis).reversed())
                .toList(), limit, offset);
    }

    /// The account's runs, newest first. Blocks.
    Stream<RunSummary> runs(RunIndex index, String account) {
        return index.allRuns(account).filter(this::shows);
    }

    private static <T> ListingPage<T> page(List<T> all, int limit, long offset) {
        return new ListingPage<>(all.stream().skip(offset).limit(limit).toList(), all.size());
    }
}
