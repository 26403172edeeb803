package bios.coordinator.run;

import bios.protocol.run.DeathReport;
import bios.protocol.run.RunId;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

/// What a node's processes leave about the operations that were being executed when they ended: a model of
/// [bios.persistence.marks.ExecutionMarks].
public final class SimulatedRegister {
    /// An operation that is being executed.
    public record Mark(RunId run, long position) {}

    private final String name;
    private final Map<RunId, Long> executed = new HashMap<>();
    private final Map<Mark, Integer> alone = new HashMap<>();
    private final Map<RunId, DeathReport> reports = new HashMap<>();
    private long deaths;

    public SimulatedRegister(String name) {
        this.name = name;
    }

    /// An operation was executed to its end.
    public void executed(RunId run, long position) {
        executed.merge(run, position, Math::max);
    }

    /// How often processes have ended during an operation alone, and none outside of operations.
    public int alone(RunId run, long position) {
        return alone.getOrDefault(new Mark(run, position), 0);
    }

    /// The process has ended.
    ///
    /// @param marks what it was executing together
    public void died(List<Mark> marks) {
        deaths++;
        reports.clear();
        for (Mark before : alone.keySet()) {
            boolean ended = marks.isEmpty() || executed.getOrDefault(before.run(), 0L) >= before.position();
            reports.put(before.run(), ended ? report(before.run(), 0, 0)
                    : report(before.run(), before.position(), alone.get(before)));
        }
        if (marks.isEmpty()) alone.clear();
        alone.keySet().removeIf(m -> !marks.contains(m)
                && executed.getOrDefault(m.run(), 0L) >= m.position());
        for (Mark mark : marks) {
            alone.merge(mark, marks.size() == 1 ? 1 : 0, Integer::sum);
            reports.put(mark.run(), report(mark.run(), mark.position(), alone.get(mark)));
        }
    }

    private DeathReport report(RunId run, long position, int times) {
        return new DeathReport(run, name, deaths, executed.getOrDefault(run, 0L), position, times, "it died");
    }

    /// What the process knows of a run.
    public Optional<DeathReport> report(RunId run) {
        DeathReport known = reports.get(run);
        return known != null ? Optional.of(known.executedUpTo(executed.getOrDefault(run, 0L)))
                : executed.containsKey(run) ? Optional.of(report(run, 0, 0)) : Optional.empty();
    }

    /// What a process that starts now tells runs on other nodes.
    public List<DeathReport> reports() {
        return Stream.concat(reports.keySet().stream(), executed.keySet().stream()).distinct()
                .flatMap(run -> report(run).stream()).toList();
    }
}
