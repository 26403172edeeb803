package bios.coordinator.session;

import bios.coordinator.session.SessionEvent.RunAdded;
import bios.coordinator.session.SessionEvent.SamplerPinned;
import bios.coordinator.session.SessionEvent.SessionEnded;
import bios.coordinator.session.SessionEvent.SessionOpened;
import bios.protocol.Fault;
import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand.Sampler;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// A client session: the runs and sampling clients that one program opened. Pure.
///
/// @param opened empty until it is opened
/// @param runs in the order in which they were added
/// @param samplers by the client's number
/// @param ended whether it is over
public record Session(Optional<SessionOpened> opened, List<RunId> runs, Map<Long, Sampler> samplers,
        boolean ended) {
    /// Before it is opened.
    public static final Session NONE = new Session(Optional.empty(), List.of(), Map.of(), false);

    /// What to do with a command.
    public sealed interface Decision {
        /// Store these, then answer.
        record Accept(List<SessionEvent> events) implements Decision {}

        /// Say no and write nothing.
        record Refuse(Fault why) implements Decision {}
    }

    public Session {
        runs = List.copyOf(runs);
        samplers = new TreeMap<>(samplers);
    }

    /// Opens it, once.
    Decision open(SessionOpened wanted) {
        if (ended) return new Decision.Refuse(Fault.user("not_found", "the session is over; open a new one"));
        if (opened.isEmpty()) return new Decision.Accept(List.of(wanted));
        return mine(wanted.owner()) ? nothing() : stranger();
    }

    /// Remembers a run, once.
    Decision add(String owner, RunId run, SessionSettings settings) {
        if (!mine(owner)) return stranger();
        if (runs.contains(run)) return nothing();
        if (runs.size() >= settings.maxRuns()) return full(settings.maxRuns() + " runs");
        return new Decision.Accept(List.of(new RunAdded(run)));
    }

    /// Pins a sampler under a number; the first one stays.
    Decision pin(String owner, long seq, Sampler sampler, SessionSettings settings) {
        if (!mine(owner)) return stranger();
        if (samplers.containsKey(seq)) return nothing();
        if (samplers.size() >= settings.maxSamplers())
            return full(settings.maxSamplers() + " sampling clients");
        return new Decision.Accept(List.of(new SamplerPinned(seq, sampler)));
    }

    /// Lets `owner` look.
    Decision look(String owner) {
        return mine(owner) ? nothing() : stranger();
    }

    /// Lets `owner` look at a sampler.
    Decision find(String owner, long seq) {
        if (!mine(owner)) return stranger();
        return samplers.containsKey(seq) ? nothing()
                : new Decision.Refuse(Fault.user("not_found", "the session has no sampling client " + seq));
    }

    private boolean mine(String owner) {
        return !ended && opened.filter(o -> o.owner().equals(owner)).isPresent();
    }

    private static Decision nothing() {
        return new Decision.Accept(List.of());
    }

    private static Decision stranger() {
        return new Decision.Refuse(Fault.user("not_found",
                "there is no such session; it was never opened, or it is over"));
    }

    private static Decision full(String what) {
        return new Decision.Refuse(Fault.user("queue_full",
                "the session has " + what + "; open another session"));
    }

    /// The session after an event.
    Session apply(SessionEvent event) {
        return switch (event) {
            case SessionOpened e -> new Session(Optional.of(e), runs, samplers, false);
            case RunAdded(var run) -> {
                var more = new ArrayList<>(runs);
                more.add(run);
                yield new Session(opened, more, samplers, ended);
            }
            case SamplerPinned(var seq, var sampler) -> {
                var more = new TreeMap<>(samplers);
                more.put(seq, sampler);
                yield new Session(opened, runs, more, ended);
            }
            case SessionEnded _ -> new Session(opened, List.of(), Map.of(), true);
        };
    }
}
