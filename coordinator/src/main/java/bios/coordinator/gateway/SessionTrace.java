package bios.coordinator.gateway;

import bios.protocol.run.OperationTiming;
import bios.protocol.run.RunId;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/// The timeline of a session's runs in the JSON trace format, which ui.perfetto.dev and chrome://tracing
/// open: a thread for each run, in it a slice for each operation, and in that one for each part of its time.
final class SessionTrace {
    private static final long MICROS = 1000;
    private final List<Map<String, Object>> events = new ArrayList<>();
    private int runs;

    /// Adds the newest operations of a run.
    void add(RunId run, List<OperationTiming> timings) {
        int thread = ++runs;
        events.add(ApiResponse.object("name", "thread_name", "ph", "M", "pid", 1, "tid", thread, "args",
                Map.of("name", run.value())));
        for (OperationTiming timing : timings) add(thread, timing);
    }

    private void add(int thread, OperationTiming timing) {
        long total = timing.journalNanos() + timing.queueNanos() + timing.engineNanos();
        long began = timing.finishedMillis() * MICROS - total / MICROS;
        slice(thread, ResponseBodies.operation(timing.kind()), began, total, timing.seq());
        slice(thread, "journal", began, timing.journalNanos(), timing.seq());
        slice(thread, "queue", began + timing.journalNanos() / MICROS, timing.queueNanos(), timing.seq());
        slice(thread, "engine", began + (timing.journalNanos() + timing.queueNanos()) / MICROS,
                timing.engineNanos(), timing.seq());
    }

    private void slice(int thread, String name, long beganMicros, long nanos, long seq) {
        events.add(ApiResponse.object("name", name, "ph", "X", "pid", 1, "tid", thread, "ts", beganMicros,
                "dur", nanos / MICROS, "args", Map.of("seq_id", seq)));
    }

    /// The body of the trace.
    Map<String, Object> body(String session) {
        return ApiResponse.object("displayTimeUnit", "ms", "otherData", Map.of("session_id", session),
                "traceEvents", events);
    }
}
