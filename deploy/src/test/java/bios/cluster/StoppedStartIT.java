package bios.cluster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A cluster that is asked to end while it starts ends everything that it has started.
final class StoppedStartIT {
    @TempDir Path folder;

    @Test void aClusterThatIsStoppedWhileCassandraStartsLeavesNothingBehind() throws Exception {
        assertNothingIsLeft("CassandraDaemon");
    }

    @Test void aClusterThatIsStoppedWhileItsNodesStartLeavesNothingBehind() throws Exception {
        assertNothingIsLeft("bios.Main node");
    }

    /// Starts a cluster and asks it to end as soon as one of its processes has this in its command.
    private void assertNothingIsLeft(String command) throws Exception {
        Path log = folder.resolve("cluster.log");
        Process cluster = cluster(log);
        Set<ProcessHandle> started = new HashSet<>();
        try {
            while (started.stream().noneMatch(process -> ProcessCommand.of(process).contains(command))) {
                assertTrue(cluster.isAlive(), () -> read(log));
                cluster.descendants().forEach(started::add);
                Thread.sleep(5); // edge: waits for another process
            }
            cluster.destroy();
            while (cluster.isAlive()) {
                cluster.descendants().forEach(started::add);
                Thread.sleep(5); // edge: waits for another process
            }
            for (ProcessHandle process : started) // edge: those that were killed end a little later
                process.onExit().completeOnTimeout(process, 30, TimeUnit.SECONDS).get(); // edge: waits
            assertEquals(List.of(), started.stream().filter(ProcessHandle::isAlive).map(process ->
                    process.pid() + " " + ProcessCommand.of(process)).toList(), () -> read(log));
        } finally {
            cluster.destroyForcibly();
            started.forEach(ProcessHandle::destroyForcibly);
        }
    }

    private Process cluster(Path log) throws Exception {
        String classes =
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));
        List<String> command = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin/java")
                .toString(), "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow",
                "-Xmx256m", "-cp", classes, "bios.Main", "cluster", "--coordinators", "1", "--workers", "1",
                "--port", "0", "--data", folder.resolve("data").toString(), "--model",
                "bios-tiny=" + root().resolve("deploy/models/bios-tiny")));
        return new ProcessBuilder(command).directory(root().toFile()).redirectErrorStream(true)
                .redirectOutput(log.toFile()).start();
    }

    private static Path root() {
        Path at = Path.of("").toAbsolutePath();
        while (!Files.exists(at.resolve("mvnw"))) at = at.getParent();
        return at;
    }

    private static String read(Path log) {
        try {
            return Files.readString(log);
        } catch (java.io.IOException unreadable) {
            return unreadable.toString();
        }
    }
}
