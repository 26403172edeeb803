package bios.coordinator.session;

import bios.coordinator.session.SessionEvent.ProjectSet;
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
import java.util.function.LongSupplier;

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

    /// Why a command for a session that does not exist, or is another owner's, is refused.
    static final Fault UNKNOWN = Fault.user("not_found",
            "there is no such session; it was never opened, or it has ended");

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

    /// Opens a sampler under a number. The first sampler of a number is kept. If there are too many, the one
    /// that was used longest ago is dropped.
    Decision openSampler(String owner, long seq, Sampler sampler, LongSupplier usedLongestAgo,
            SessionSettings settings) {
        if (!ownedBy(owner)) return notFound();
        if (samplers.containsKey(seq)) return acceptWithoutEvent();
        return new Decision.Accept(samplers.size() < settings.maxSamplers()
                ? List.of(new SamplerPinned(seq, sampler))
                : List.of(new SamplerDropped(usedLongestAgo.getAsLong()), new SamplerPinned(seq, sampler)));
    }

    /// The project of the session.
    Optional<String> project() {
        return opened.flatMap(SessionOpened::project);
    }

    /// Moves the session to a project; idempotent.
    Decision setProject(String owner, Optional<String> project) {
        if (!ownedBy(owner)) return notFound();
        return project().equals(project) ? acceptWithoutEvent()
                : new Decision.Accept(List.of(new ProjectSet(project)));
    }

    /// Accepts if `owner` owns the session.
    Decision checkOwner(String owner) {
        return ownedBy(owner) ? acceptWithoutEvent() : notFound();
    }

    /// Accepts if `owner` owns the session and the sampler exists.
    Decision find(String owner, long seq) {
        if (!ownedBy(owner)) return notFound();
        if (samplers.containsKey(seq)) return acceptWithoutEvent();
        boolean dropped = samplers.keySet().stream().anyMatch(later -> later > seq);
        String unknown = "the session has no sampling client " + seq;
        return new Decision.Refuse(dropped ? Fault.user("snapshot_expired", unknown + "; if it was opened, it"
                + " has expired: it was not used while many others were opened. Open another one; weights"
                + " that are needed for longer are saved under a name of their own:"
                + " save_weights_for_sampler(name=...)") : Fault.user("not_found", unknown));
    }

    private boolean ownedBy(String owner) {
        return !ended && opened.filter(o -> o.owner().equals(owner)).isPresent();
    }

    private static Decision acceptWithoutEvent() {
        return new Decision.Accept(List.of());
    }

    private static Decision notFound() {
        return new Decision.Refuse(UNKNOWN);
    }

    private static Decision full(String what) {
        return new Decision.Refuse(Fault.user("limit_reached",
                "the session has " + what + ", which is the limit; open another session"));
    }

    /// The session after an event.
    Session apply(SessionEvent event) {
        return switch (event) {
            case SessionOpened e -> new Session(Optional.of(e), runs, samplers, false);
            case ProjectSet(var project) -> new Session(opened.map(o -> new SessionOpened(o.owner(), o.tags(),
                    o.userMetadata(), o.sdkVersion(), o.timeMillis(), project)), runs, samplers, ended);
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
