package bios.cluster;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/// One process of Bios in a [LocalCluster]. For one thread.
final class Member {
    private static final String READY = "bios ready ";
    private static final int TOLD = 4000;

    final String name;
    final String role;
    final String host;
    final int httpPort;
    final int arteryPort;
    final Path log;
    private final List<String> arguments;
    private final Map<String, String> environment;
    private final List<String> java;
    private Process process;
    private long logFrom;

    /// @param httpPort 0: it serves no HTTP
    /// @param arguments of `bios node`
    /// @param environment beside that of this process
    /// @param java options of Java
    Member(String name, String role, String host, int httpPort, int arteryPort, Path log,
            List<String> arguments, Map<String, String> environment, List<String> java) {
        this.name = name;
        this.role = role;
        this.host = host;
        this.httpPort = httpPort;
        this.arteryPort = arteryPort;
        this.log = log;
        this.arguments = List.copyOf(arguments);
        this.environment = Map.copyOf(environment);
        this.java = List.copyOf(java);
    }

    void start() {
        logFrom = Files.exists(log) ? size() : 0;
        var all = new ArrayList<>(List.of("node"));
        all.addAll(arguments);
        process = Child.start(all, log, environment, java);
    }

    boolean runs() {
        return process != null && process.isAlive();
    }

    /// Whether it has said since its start that it does its part.
    boolean ready() {
        return runs() && said().contains(READY);
    }

    /// The end of what it has said since its start.
    String told() {
        String said = said();
        return said.substring(Math.max(0, said.length() - TOLD)).strip();
    }

    private String said() {
        try (var file = new RandomAccessFile(log.toFile(), "r")) {
            byte[] since = new byte[(int) Math.min(1 << 20, Math.max(0, file.length() - logFrom))];
            file.seek(logFrom);
            file.readFully(since);
            return new String(since, StandardCharsets.UTF_8);
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

    /// SIGTERM: it drains and ends.
    void terminate() {
        if (runs()) process.destroy();
    }

    /// SIGKILL.
    void kill() {
        if (runs()) process.destroyForcibly();
    }

    /// How it ended.
    int status() {
        return process.exitValue();
    }

    NodesFile.Entry entry() {
        return new NodesFile.Entry(name, role, host, runs() ? process.pid() : 0, httpPort, arteryPort, 0,
                log.toString());
    }
}
