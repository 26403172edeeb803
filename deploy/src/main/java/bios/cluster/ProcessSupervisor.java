package bios.cluster;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;

/// Starts processes, and restarts those that have ended after a delay, which grows while they end soon after
/// their start. Thread-safe: once [#end] was called, which may be while they start, nothing is started.
final class ProcessSupervisor {
    private static final long POLL_MILLIS = 50;

    private final Consumer<String> say;
    private final boolean again;
    private final Map<Member, Restart> all = new LinkedHashMap<>();
    private boolean ended;

    private record Restart(long startedAtMillis, Backoff backoff, Optional<Long> dueAtMillis) {}

    /// @param say receives progress messages
    /// @param again whether ended processes are started again
    ProcessSupervisor(Consumer<String> say, boolean again) {
        this.say = say;
        this.again = again;
    }

    /// Starts a process, unless all are ended.
    synchronized void start(Member member) {
        start(member, Backoff.FIRST);
    }

    private void start(Member member, Backoff backoff) {
        if (ended) return;
        member.start();
        all.put(member, new Restart(nowMillis(), backoff, Optional.empty()));
    }

    static long nowMillis() {
        return System.nanoTime() / 1_000_000; // edge: backoff between starts
    }

    /// Schedules the restart of a process that has ended, or restarts it when its delay has elapsed.
    ///
    /// @return whether it did one of both
    synchronized boolean supervise(Member member) {
        Restart restart = all.get(member);
        if (ended || restart == null) return false;
        if (member.isRunning() || !again && restart.dueAtMillis().isPresent()) return false;
        if (restart.dueAtMillis().isEmpty()) {
            Backoff backoff = restart.backoff().afterRunning(nowMillis() - restart.startedAtMillis());
            all.put(member, new Restart(restart.startedAtMillis(), backoff.grown(),
                    Optional.of(nowMillis() + backoff.millis())));
            say.accept(member.name + " ended with status " + member.status()
                    + (again ? "; it is restarted" : ""));
            return true;
        }
        if (nowMillis() < restart.dueAtMillis().get()) return false;
        start(member, restart.backoff());
        return true;
    }

    /// Ends the processes that were started in order, and those that do not end within a time at once.
    void end(long limitMillis) {
        List<Member> members;
        synchronized (this) {
            ended = true;
            members = List.copyOf(all.keySet());
        }
        members.forEach(Member::terminate);
        long end = nowMillis() + limitMillis;
        try {
            while (members.stream().anyMatch(Member::isRunning) && nowMillis() < end)
                Thread.sleep(POLL_MILLIS); // edge: waits for processes
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
        }
        members.forEach(Member::kill);
    }
}
