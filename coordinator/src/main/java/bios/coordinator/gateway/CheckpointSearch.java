package bios.coordinator.gateway;

import bios.persistence.index.RunIndex;
import bios.protocol.checkpoint.CheckpointManifest;
import java.time.DateTimeException;
import java.time.OffsetDateTime;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

/// A search among an account's checkpoints, newest first, page by page. A page begins behind a checkpoint and
/// not at a number, so that checkpoints which are saved or deleted between two pages move no other one: each
/// of those that were there all the time is on one page.
///
/// @param own whether the caller's checkpoints are searched
/// @param limit checkpoints of a page
/// @param after the last checkpoint of the page before
record CheckpointSearch(ListingFilter filter, boolean own, int limit, Optional<Position> after) {
    private static final int MAX_PAGE = 200;
    private static final int DEFAULT_PAGE = 100;
    private static final int MAX_OWNERS = 10;
    private static final List<String> OWNERS = List.of("own", "accessible", "user");

    /// Where a checkpoint stands in the order of the results: newer ones first, and of those that were saved
    /// in the same millisecond in the order of their paths.
    record Position(long createdAtMillis, String path) implements Comparable<Position> {
        private static final Comparator<Position> ORDER = Comparator.comparingLong(Position::createdAtMillis)
                .reversed().thenComparing(Position::path);

        static Position of(CheckpointManifest checkpoint) {
            return new Position(checkpoint.createdAtMillis(), checkpoint.path().orElseThrow().biosUri());
        }

        /// Reads the object that [#body] makes. Its path may be of a checkpoint that was deleted since.
        static Position read(Fields cursor) {
            String text = cursor.string("last_created_at");
            long millis;
            try {
                millis = OffsetDateTime.parse(text).toInstant().toEpochMilli();
            } catch (DateTimeException | ArithmeticException _) {
                throw cursor.at("last_created_at").invalid("'" + text + "' is not a time like"
                        + " 2026-01-31T00:00:00Z; pass the next_cursor of the page before unchanged");
            }
            var position = new Position(millis, cursor.string("last_checkpoint_uuid"));
            cursor.requireAllRead();
            return position;
        }

        Map<String, Object> body() {
            return ApiResponse.object("last_created_at", ResponseBodies.time(createdAtMillis),
                    "last_checkpoint_uuid", path);
        }

        @Override public int compareTo(Position other) {
            return ORDER.compare(this, other);
        }
    }

    /// A page of results.
    ///
    /// @param next where the next page begins; empty: there is none
    record Page(List<CheckpointManifest> checkpoints, Optional<Position> next) {}

    /// Reads the body of a request.
    static CheckpointSearch of(ApiRequest call) {
        Fields fields = call.bodyFields();
        Optional<Set<String>> projects = fields.optionalStrings("project_ids").map(Set::copyOf);
        Map<String, String> metadata = new LinkedHashMap<>();
        fields.optionalObject("user_metadata").ifPresent(pairs ->
                pairs.names().forEach(name -> metadata.put(name, pairs.string(name))));
        Optional<String> type = fields.optionalOneOf("checkpoint_type", ListingFilter.TYPES);
        boolean own = fields.optionalObject("owner").map(owner -> isCaller(owner, call.account()))
                .orElse(true);
        Optional<Set<String>> models = fields.optionalStrings("base_models").map(Set::copyOf);
        int limit = fields.optionalInteger("limit", 1, MAX_PAGE).map(Math::toIntExact).orElse(DEFAULT_PAGE);
        Optional<Position> after = fields.optionalObject("cursor").map(Position::read);
        fields.requireAllRead();
        return new CheckpointSearch(new ListingFilter(projects, models, Optional.empty(), metadata, type,
                Optional.empty(), Optional.empty()), own, limit, after);
    }

    /// Whether the owners that are asked for include the caller. What other accounts have published is found
    /// by its path only, as in all listings.
    private static boolean isCaller(Fields owner, String account) {
        String type = owner.optionalOneOf("type", OWNERS).orElse("own");
        Optional<List<String>> named = owner.optionalStrings("owner_urns");
        owner.requireAllRead();
        if (!type.equals("user")) return true;
        List<String> all = named.orElse(List.of());
        if (all.isEmpty() || all.size() > MAX_OWNERS)
            throw owner.at("owner_urns").invalid("names " + all.size()
                    + " accounts; expected 1 to " + MAX_OWNERS);
        return all.contains(account);
    }

    /// Searches. Blocks.
    Page page(RunIndex index, String account, long nowMillis) {
        // a run that moves in the index while it is read may come twice
        var found = new TreeMap<Position, CheckpointManifest>();
        if (own) filter.checkpoints(index, account, nowMillis).forEach(each -> {
            Position at = Position.of(each);
            if (after.filter(last -> at.compareTo(last) <= 0).isEmpty()) found.put(at, each);
        });
        List<Position> shown = found.keySet().stream().limit(limit).toList();
        return new Page(shown.stream().map(found::get).toList(),
                found.size() > limit ? Optional.of(shown.getLast()) : Optional.empty());
    }
}
