package bios.cluster;

import bios.CommandFailed;
import bios.persistence.process.ProcessEnd;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// One process of Bios in a [LocalCluster]. Not thread-safe.
final class Member {
    /// A line that begins so; the help of the command has the words as well.
    private static final String READY = "\nbios ready ";
    private static final int LOG_TAIL_CHARACTERS = 4000;
    /// Statuses from here on are those of processes that a signal has ended.
    private static final int SIGNALLED = 128;

    final String name;
    final String role;
    final String host;
    final int httpPort;
    final int arteryPort;
    final int actorsPort;
    final Path log;
    private final List<String> arguments;
    private final Map<String, String> environment;
    private final List<String> java;
    private final boolean tied;
    private Process process;
    private long logFrom;
    private boolean sawReady;
    private boolean wasReady;

    /// @param httpPort 0: no HTTP
    /// @param actorsPort 0: no actor protocol
    /// @param arguments arguments of `bios node`
    /// @param environment additional variables of the environment
    /// @param java additional options of Java
    /// @param tied whether it ends when this process does
    Member(String name, String role, String host, int httpPort, int arteryPort, int actorsPort, Path log,
            List<String> arguments, Map<String, String> environment, List<String> java, boolean tied) {
        this.name = name;
        this.role = role;
        this.host = host;
        this.httpPort = httpPort;
        this.arteryPort = arteryPort;
        this.actorsPort = actorsPort;
        this.log = log;
        this.arguments = List.copyOf(arguments);
        this.environment = Map.copyOf(environment);
        this.java = List.copyOf(java);
        this.tied = tied;
    }

    void start() {
        sawReady = false;
        logFrom = Files.exists(log) ? size() : 0;
        var all = new ArrayList<>(List.of("node"));
        all.addAll(arguments);
        var variables = new HashMap<>(environment);
        if (process != null) ProcessEnd.of(process).ifPresent(end ->
                variables.put(ProcessEnd.VARIABLE, end.toString()));
        process = ChildProcess.start(all, log, variables, java, tied);
    }

    boolean isRunning() {
        return process != null && process.isAlive();
    }

    /// Whether it has reported since its start that it is ready.
    boolean ready() {
        if (!isRunning()) return false;
        if (!sawReady) sawReady = logSinceStart().contains(READY);
        wasReady |= sawReady;
        return sawReady;
    }

    /// Whether it has ended by itself without ever being ready, so that another start would end alike: an
    /// option or a model is wrong. What a signal or a lost device has ended can start again.
    boolean cannotStart() {
        return !isRunning() && !wasReady && !logSinceStart().contains(READY) && status() < SIGNALLED
                && status() != ProcessEnd.DEVICE_LOST_STATUS;
    }

    /// The failure of a process that ended before it was ready.
    CommandFailed startFailed() {
        return new CommandFailed(name + " ended during its start; the end of " + log + ":\n" + logTail());
    }

    /// The end of its log since its start.
    String logTail() {
        String text = logSinceStart();
        return text.substring(Math.max(0, text.length() - LOG_TAIL_CHARACTERS)).strip();
    }

    private String logSinceStart() {
        try (var file = new RandomAccessFile(log.toFile(), "r")) {
            byte[] since = new byte[(int) Math.min(1 << 20, Math.max(0, file.length() - logFrom))];
            file.seek(logFrom);
            file.readFully(since);
            return "\n" + new String(since, StandardCharsets.UTF_8);
        } catch (IOException _) {
            return "";
        }
    }

    private long size() {
        try {
            return Files.size(log);
        } catch (IOException failed) {
            throw new UncheckedIOException(log + " cannot be read: " + failed.getMessage(), failed);
        }
    }

    /// Sends SIGTERM: the process drains and ends.
    void terminate() {
        if (isRunning()) process.destroy();
    }

    /// Sends SIGKILL.
    void kill() {
        if (isRunning()) process.destroyForcibly();
    }

    /// Its exit status.
    int status() {
        return process.exitValue();
    }

    NodesFile.ProcessEntry entry() {
        return new NodesFile.ProcessEntry(name, role, host, isRunning() ? process.pid()
                : 0, httpPort, arteryPort, 0,
                log.toString(), actorsPort);
    }
}
