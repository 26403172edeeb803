package bios.coordinator.gateway;

import bios.protocol.Fault;
import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.Sampler;
import bios.protocol.session.SessionCommand.SessionReply;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;

/// Sessions in memory, which do not check owners; [OwnershipTest] checks the real ones.
final class FakeSessions implements SessionDirectory {
    private final Map<String, Session> sessions = new HashMap<>();
    /// Whether the sessions cannot be read.
    boolean damaged;

    private record Session(Set<RunId> runs, TreeMap<Long, Sampler> samplers) {}

    @Override public synchronized CompletionStage<SessionReply> ask(String id,
            Function<ActorRef<SessionReply>, SessionCommand> message, Duration timeout) {
        return CompletableFuture.completedStage(answer(id, message.apply(null)));
    }

    private SessionReply answer(String id, SessionCommand command) {
        if (damaged)
            return new SessionReply.Refused(Fault.server("session_damaged", "damaged for the test"));
        if (command instanceof SessionCommand.Open)
            sessions.putIfAbsent(id, new Session(new LinkedHashSet<>(), new TreeMap<>()));
        Session session = sessions.get(id);
        if (session == null)
            return new SessionReply.Refused(Fault.user("not_found", "no such session"));
        return switch (command) {
            case SessionCommand.AddRun c -> {
                session.runs().add(c.run());
                yield described(id, session);
            }
            case SessionCommand.OpenSampler c -> {
                session.samplers().putIfAbsent(c.seq(), c.sampler());
                yield opened(id, session, c.seq());
            }
            case SessionCommand.FindSampler c -> opened(id, session, c.seq());
            case SessionCommand.Open _, SessionCommand.Heartbeat _, SessionCommand.Describe _,
                    SessionCommand.SetProject _ ->
                    described(id, session);
        };
    }

    private static SessionReply opened(String id, Session session, long seq) {
        Sampler sampler = session.samplers().get(seq);
        return sampler == null ? new SessionReply.Refused(Fault.user("not_found", "no such sampler"))
                : new SessionReply.SamplerOpened(id + ":sample:" + seq, sampler);
    }

    private static SessionReply described(String id, Session session) {
        return new SessionReply.Described(id, List.copyOf(session.runs()),
                session.samplers().keySet().stream().map(n -> id + ":sample:" + n).toList(),
                Optional.empty());
    }
}
