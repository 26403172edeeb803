package bios.coordinator.session;

import bios.coordinator.session.SessionEvent.RunAdded;
import bios.coordinator.session.SessionEvent.SamplerDropped;
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

/// The state of a client session: the runs and samplers that one client process opened. Pure.
///
/// @param opened empty until it is opened
/// @param runs in the order in which they were added
/// @param samplers by the client's number
/// @param ended whether it has ended
public record Session(Optional<SessionOpened> opened, List<RunId> runs, Map<Long, Sampler> samplers,
        boolean ended) {
    /// The state before the session is opened.
    public static final Session NONE = new Session(Optional.empty(), List.of(), Map.of(), false);

    /// The most samplers of a run's snapshots: the run keeps no more snapshots of a session.
    static final int MOST_SNAPSHOTS = 65;

    /// The decision about a command.
    public sealed interface Decision {
        /// Persist the events, then reply.
        record Accept(List<SessionEvent> events) implements Decision {}

        /// Refuse the command; nothing is persisted.
        record Refuse(Fault why) implements Decision {}
    }

    public Session {
        runs = List.copyOf(runs);
        samplers = new TreeMap<>(samplers);
    }

    /// Opens the session; idempotent for the same owner.
    Decision open(SessionOpened wanted) {
        if (ended) return new Decision.Refuse(
                Fault.user("not_found", "the session has ended; open a new one"));
        if (opened.isEmpty()) return new Decision.Accept(List.of(wanted));
        return ownedBy(wanted.owner()) ? acceptWithoutEvent() : notFound();
    }

    /// Adds a run; idempotent.
    Decision add(String owner, RunId run, SessionSettings settings) {
        if (!ownedBy(owner)) return notFound();
        if (runs.contains(run)) return acceptWithoutEvent();
        if (runs.size() >= settings.maxRuns()) return full(settings.maxRuns() + " runs");
        return new Decision.Accept(List.of(new RunAdded(run)));
    }

    /// Opens a sampler under a number. The first sampler of a number is kept.
    Decision openSampler(String owner, long seq, Sampler sampler, SessionSettings settings) {
        if (!ownedBy(owner)) return notFound();
        if (samplers.containsKey(seq)) return acceptWithoutEvent();
        List<Long> followed = ofSnapshots(sampler);
        boolean drops = followed.size() >= MOST_SNAPSHOTS;
        if (!drops && samplers.size() >= settings.maxSamplers())
            return full(settings.maxSamplers() + " sampling clients");
        return new Decision.Accept(drops
                ? List.of(new SamplerDropped(followed.getFirst()), new SamplerPinned(seq, sampler))
                : List.of(new SamplerPinned(seq, sampler)));
    }

    /// The samplers of snapshots of the run to whose snapshot `next` belongs, oldest first; none if `next` is
    /// not of a snapshot.
    private List<Long> ofSnapshots(Sampler next) {
        Optional<String> run = runOfSnapshot(next);
        return run.isEmpty() ? List.of() : samplers.entrySet().stream()
                .filter(each -> runOfSnapshot(each.getValue()).equals(run)).map(Map.Entry::getKey).toList();
    }

    private static Optional<String> runOfSnapshot(Sampler sampler) {
        return sampler.path().isPresent() ? Optional.empty()
                : sampler.adapter().map(adapter -> adapter.blob().id().scope().split("/")[1]);
    }

    /// Accepts if `owner` owns the session.
    Decision checkOwner(String owner) {
        return ownedBy(owner) ? acceptWithoutEvent() : notFound();
    }

    /// Accepts if `owner` owns the session and the sampler exists.
    Decision find(String owner, long seq) {
        if (!ownedBy(owner)) return notFound();
        return samplers.containsKey(seq) ? acceptWithoutEvent()
                : new Decision.Refuse(Fault.user("not_found", "the session has no sampling client "
                        + seq + ", or newer snapshots of its run have followed it"));
    }

    private boolean ownedBy(String owner) {
        return !ended && opened.filter(o -> o.owner().equals(owner)).isPresent();
    }

    private static Decision acceptWithoutEvent() {
        return new Decision.Accept(List.of());
    }

    private static Decision notFound() {
        return new Decision.Refuse(Fault.user("not_found",
                "there is no such session; it was never opened, or it has ended"));
    }

    private static Decision full(String what) {
        return new Decision.Refuse(Fault.user("limit_reached",
                "the session has " + what + ", which is the limit; open another session"));
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
            case SamplerDropped(var seq) -> {
                var fewer = new TreeMap<>(samplers);
                fewer.remove(seq);
                yield new Session(opened, runs, fewer, ended);
            }
            case SessionEnded _ -> new Session(opened, List.of(), Map.of(), true);
        };
    }
}
