package bios.persistence.process;

import java.io.IOException;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/// Child processes that end when this process is asked to end, at whatever moment that is: also between the
/// start of a child and the moment at which its caller knows it.
public final class TiedProcesses {
    private static final TiedProcesses ALL = new TiedProcesses();

    private final Set<Process> running = new HashSet<>();
    private boolean ending;

    private TiedProcesses() {
        Runtime.getRuntime().addShutdownHook(Thread.ofPlatform().unstarted(() -> end().forEach(
                Process::destroy)));
    }

    /// Starts a process. [IllegalStateException] if this one is ending.
    public static Process start(ProcessBuilder builder) throws IOException {
        return ALL.tie(builder);
    }

    private synchronized Process tie(ProcessBuilder builder) throws IOException {
        if (ending) throw new IllegalStateException("this process ends and starts no other one");
        Process process = builder.start();
        running.add(process);
        process.onExit().thenRun(() -> forget(process));
        return process;
    }

    private synchronized void forget(Process process) {
        running.remove(process);
    }

    private synchronized List<Process> end() {
        ending = true;
        return List.copyOf(running);
    }
}
