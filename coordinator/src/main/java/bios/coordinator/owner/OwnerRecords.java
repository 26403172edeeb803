package bios.coordinator.owner;

import bios.coordinator.owner.OwnerEvent.Recorded;
import bios.coordinator.owner.OwnerEvent.SamplingCounted;
import bios.protocol.owner.OwnerCommand.SampleUse;
import bios.protocol.owner.OwnerCommand.SampledTotal;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// What the service records for an account: its sampling, by run and by hour, and its audit log. Pure.
///
/// @param writers the last batch of each process that counts, in the order of their last batches
/// @param requests hashes of the sampling requests that were counted last, oldest first
/// @param totals what was sampled from each run and base model
/// @param hours the same of the newest hours, oldest first
/// @param audit the newest entries, oldest first
public record OwnerRecords(Map<String, Long> writers, List<Long> requests, List<SampledTotal> totals,
        List<SampledTotal> hours, List<Recorded> audit) {
    /// No records.
    public static final OwnerRecords NONE = new OwnerRecords(Map.of(), List.of(), List.of(), List.of(),
            List.of());
    /// The number of requests that are remembered, so that one that was executed again is not counted again.
    static final int MOST_REQUESTS = 16_384;
    static final int MOST_WRITERS = 64;
    private static final long HOURS = 14 * 24 + 1;
    private static final int MOST_TOTALS = 50_000;
    private static final long HOUR_MILLIS = 3_600_000;

    public OwnerRecords {
        writers = new LinkedHashMap<>(writers);
        requests = List.copyOf(requests);
        totals = List.copyOf(totals);
        hours = List.copyOf(hours);
        audit = List.copyOf(audit);
    }

    /// The event that counts a batch; empty if everything in it was counted before.
    public Optional<SamplingCounted> count(String writer, long number, List<SampleUse> uses, long nowMillis) {
        if (writers.getOrDefault(writer, 0L) >= number) return Optional.empty();
        var known = new HashSet<>(requests);
        List<SampleUse> fresh = uses.stream().filter(use -> known.add(use.request())).toList();
        if (fresh.isEmpty()) return Optional.empty();
        long hour = Math.floorDiv(nowMillis, HOUR_MILLIS);
        List<SampledTotal> more = fresh.stream().map(use -> new SampledTotal(use.run(), use.baseModel(),
                use.session(), hour, 1, use.prefilled(), use.sampled())).toList();
        return Optional.of(new SamplingCounted(writer, number,
                fresh.stream().map(SampleUse::request).toList(), merged(more)));
    }

    /// The event that records an entry; empty if one with its key is there.
    public Optional<Recorded> record(Recorded wanted) {
        boolean known = !wanted.key().isEmpty()
                && audit.stream().anyMatch(entry -> entry.key().equals(wanted.key()));
        return known ? Optional.empty() : Optional.of(wanted);
    }

    private static List<SampledTotal> merged(Collection<SampledTotal> all) {
        var merged = new LinkedHashMap<SampledTotal, SampledTotal>();
        for (SampledTotal each : all) merged.merge(new SampledTotal(each.run(), each.baseModel(),
                each.session(), each.hour(), 0, 0, 0), each, (a, b) -> new SampledTotal(a.run(),
                a.baseModel(), a.session(), a.hour(), a.requests() + b.requests(), a.prefilled()
                + b.prefilled(), a.sampled() + b.sampled()));
        return List.copyOf(merged.values());
    }

    /// The records after an event.
    ///
    /// @param mostEntries of the audit log
    public OwnerRecords apply(OwnerEvent event, int mostEntries) {
        return switch (event) {
            case SamplingCounted e -> counted(e);
            case Recorded e -> {
                var more = new ArrayList<>(audit);
                more.add(e);
                yield new OwnerRecords(writers, requests, totals, hours, newest(more, mostEntries));
            }
        };
    }

    private OwnerRecords counted(SamplingCounted e) {
        var last = new LinkedHashMap<>(writers);
        last.remove(e.writer());
        last.put(e.writer(), e.number());
        if (last.size() > MOST_WRITERS) last.remove(last.keySet().iterator().next());
        var known = new ArrayList<>(requests);
        known.addAll(e.requests());
        var sums = new ArrayList<>(totals);
        e.more().forEach(more -> sums.add(new SampledTotal(more.run(), more.baseModel(), "", -1,
                more.requests(), more.prefilled(), more.sampled())));
        var times = new ArrayList<>(hours);
        times.addAll(e.more());
        long oldest = e.more().stream().mapToLong(SampledTotal::hour).max().orElse(0) - HOURS;
        times.removeIf(each -> each.hour() < oldest);
        return new OwnerRecords(last, newest(known, MOST_REQUESTS), newest(merged(sums), MOST_TOTALS),
                newest(merged(times), MOST_TOTALS), audit);
    }

    private static <T> List<T> newest(List<T> all, int most) {
        return all.subList(Math.max(0, all.size() - most), all.size());
    }
}
