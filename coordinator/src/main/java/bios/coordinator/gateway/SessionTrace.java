package bios.coordinator.gateway;

import bios.protocol.run.OperationTiming;
import bios.protocol.run.RunId;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/// The timeline of a session's runs in the JSON trace format, which ui.perfetto.dev and chrome://tracing
/// open: a thread for each run, in it a slice for each operation, and in that one for each part of its time.
final class SessionTrace {
    private static final long MICROS = 1000;
    /// Heap bytes of the times of an operation; its slices are made while they are written.
    private static final long TIMED_BYTES = 96;
    private final List<Map<String, Object>> threads = new ArrayList<>();
    private final List<Timed> operations = new ArrayList<>();

    /// An operation of a run.
    private record Timed(int thread, OperationTiming timing) {
        Stream<Map<String, Object>> slices() {
            long total = timing.journalNanos() + timing.queueNanos() + timing.engineNanos();
            long began = timing.finishedMillis() * MICROS - total / MICROS;
            return Stream.of(slice(ResponseBodies.operation(timing.kind()), began, total),
                    slice("journal", began, timing.journalNanos()),
                    slice("queue", began + timing.journalNanos() / MICROS, timing.queueNanos()),
                    slice("engine", began + (timing.journalNanos() + timing.queueNanos()) / MICROS,
                            timing.engineNanos()));
        }

        private Map<String, Object> slice(String name, long beganMicros, long nanos) {
            return ApiResponse.object("name", name, "ph", "X", "pid", 1, "tid", thread, "ts", beganMicros,
                    "dur", nanos / MICROS, "args", Map.of("seq_id", timing.seq()));
        }
    }

    /// Adds the newest operations of a run.
    void add(RunId run, List<OperationTiming> timings) {
        int thread = threads.size() + 1;
        threads.add(ApiResponse.object("name", "thread_name", "ph", "M", "pid", 1, "tid", thread, "args",
                Map.of("name", run.value())));
        timings.forEach(timing -> operations.add(new Timed(thread, timing)));
    }

    /// The trace.
    ApiResponse body(String session) {
        return ResponseBodies.listing(ApiResponse.object("displayTimeUnit", "ms", "otherData",
                Map.of("session_id", session), "traceEvents", Stream.concat(threads.stream(),
                        operations.stream().flatMap(Timed::slices))), operations.size(), TIMED_BYTES);
    }
}
