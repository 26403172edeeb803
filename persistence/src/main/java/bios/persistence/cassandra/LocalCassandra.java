package bios.persistence.cassandra;

import bios.persistence.process.TiedProcesses;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;

/// A Cassandra of one node in a process of its own on the loopback address: for a cluster on one machine, and
/// for tests. It forces its commit log to the disk before it acknowledges a write (`commitlog_sync: batch`),
/// so that acknowledged writes survive `kill -9` of that process.
public final class LocalCassandra implements AutoCloseable {
    private static final String HOST = "127.0.0.1";
    private static final Duration START_LIMIT = Duration.ofMinutes(3);
    private static final Duration STOP_LIMIT = Duration.ofSeconds(30);
    private static final int LOG_LINES_SHOWN = 20;

    private final Process process;
    private final Settings settings;

    private LocalCassandra(Process process, Settings settings) {
        this.process = process;
        this.settings = settings;
    }

    /// The settings with which a node is started.
    ///
    /// @param jars folder of Cassandra's jars, see [CassandraJars]
    /// @param folder of its data, configuration and log; reused by the next start
    /// @param port for clients
    /// @param storagePort for other nodes; there are none
    /// @param heapMebibytes the maximum of its heap, MiB; the process takes about twice as much
    public record Settings(Path jars, Path folder, int port, int storagePort, int heapMebibytes) {
        /// Free ports and a heap that suffices for one machine.
        public static Settings of(Path jars, Path folder) {
            return new Settings(jars, folder, freePort(), freePort(), 512);
        }

        /// Its log file.
        public Path log() {
            return folder.resolve("cassandra.log");
        }
    }

    /// Starts a node and returns when it answers. [IllegalStateException] with the end of its log if it exits
    /// first or does not answer within three minutes. It ends with this process.
    public static LocalCassandra start(Settings settings) {
        LocalCassandra node = launch(settings, true);
        node.awaitAnswer(() -> false);
        return node;
    }

    /// Starts a node and does not wait: [#awaitAnswer] does.
    ///
    /// @param tied whether it ends with this process; otherwise the caller sees to that
    public static LocalCassandra launch(Settings settings, boolean tied) {
        try {
            configure(settings);
            var builder = new ProcessBuilder(command(settings)).directory(settings.folder().toFile())
                    .redirectErrorStream(true)
                    .redirectOutput(ProcessBuilder.Redirect.appendTo(settings.log().toFile()));
            return new LocalCassandra(tied ? TiedProcesses.start(builder) : builder.start(), settings);
        } catch (IOException failed) {
            throw new UncheckedIOException("Cassandra cannot be started in " + settings.folder() + ": "
                    + failed.getMessage(), failed);
        }
    }

    /// The process id.
    public long pid() {
        return process.pid();
    }

    /// The port for clients.
    public int port() {
        return settings.port();
    }

    /// `HOST:PORT` for clients.
    public String contactPoint() {
        return HOST + ":" + settings.port();
    }

    /// The settings with which it was started; a node started with the same settings has the same data.
    public Settings settings() {
        return settings;
    }

    /// Whether the process is running.
    public boolean alive() {
        return process.isAlive();
    }

    /// Stops it with SIGTERM, and with SIGKILL if that takes more than half a minute.
    public void stop() {
        process.destroy();
        try {
            if (!process.waitFor(STOP_LIMIT.toSeconds(), TimeUnit.SECONDS)) kill();
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
            kill();
        }
    }

    /// Kills it with SIGKILL and waits until the process has ended.
    public void kill() {
        process.destroyForcibly();
        try {
            process.waitFor(); // edge: a command line waits
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
        }
    }

    @Override public void close() {
        stop();
    }

    /// Waits until it answers. [IllegalStateException] with the end of its log if it exits first, does not
    /// answer within three minutes, or is given up; then it is killed.
    ///
    /// @param givenUp whether nobody wants it any more
    public void awaitAnswer(BooleanSupplier givenUp) {
        try {
            pollAnswer(givenUp);
        } catch (RuntimeException failed) {
            kill();
            throw failed;
        }
    }

    private void pollAnswer(BooleanSupplier givenUp) {
        long end = System.nanoTime() + START_LIMIT.toNanos(); // edge: a process's start is waited for
        while (!answers()) {
            if (givenUp.getAsBoolean())
                throw new IllegalStateException("Cassandra was stopped while it started");
            if (!process.isAlive()) throw new IllegalStateException(logTail("ended while it started"));
            if (System.nanoTime() > end) // edge: see above
                throw new IllegalStateException(logTail("does not answer after " + START_LIMIT));
            try {
                Thread.sleep(50); // edge: see above
            } catch (InterruptedException _) {
                Thread.currentThread().interrupt();
                throw new IllegalStateException("interrupted while Cassandra started");
            }
        }
    }

    private boolean answers() {
        try (var socket = new Socket()) {
            socket.connect(new InetSocketAddress(HOST, settings.port()), 200);
            return true;
        } catch (IOException _) {
            return false;
        }
    }

    private String logTail(String what) {
        String last;
        try (Stream<String> lines = Files.lines(settings.log())) {
            List<String> all = lines.toList();
            last = String.join("\n", all.subList(Math.max(0, all.size() - LOG_LINES_SHOWN), all.size()));
        } catch (IOException | UncheckedIOException unreadable) {
            last = unreadable.toString();
        }
        return "Cassandra " + what + "; the end of " + settings.log() + ":\n" + last;
    }

    private static int freePort() {
        try (var socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return socket.getLocalPort();
        } catch (IOException failed) {
            throw new UncheckedIOException("no free port on " + HOST + ": " + failed.getMessage(), failed);
        }
    }

    private static List<String> command(Settings settings) throws IOException {
        Path jamm = agent(settings.jars());
        Path folder = settings.folder().toAbsolutePath();
        var command = new ArrayList<String>();
        command.add(CassandraJars.java().toString());
        command.add("-javaagent:" + jamm);
        command.addAll(OPTIONS);
        command.addAll(
                List.of("-Xms" + settings.heapMebibytes() + "m", "-Xmx" + settings.heapMebibytes() + "m",
                "-XX:MaxDirectMemorySize=" + settings.heapMebibytes() + "m",
                "-Dcassandra.config=" + folder.resolve("cassandra.yaml").toUri(),
                "-Dcassandra.storagedir=" + folder.resolve("data"),
                "-Dcassandra.logdir=" + folder,
                "-Dlogback.configurationFile=" + folder.resolve("logback.xml"),
                "-cp", settings.jars().toAbsolutePath() + "/*",
                "org.apache.cassandra.service.CassandraDaemon"));
        return command;
    }

    private static Path agent(Path jars) throws IOException {
        if (Files.isDirectory(jars))
            try (Stream<Path> all = Files.list(jars)) {
                var found = all.filter(f -> f.getFileName().toString().startsWith("jamm-")).findFirst();
                if (found.isPresent()) return found.get().toAbsolutePath();
            }
        throw new IllegalStateException("Cassandra's jars are not in " + jars
                + "; `./mvnw -f deploy/cassandra/pom.xml package` puts them into"
                + " deploy/cassandra/target/lib");
    }

    private static void configure(Settings settings) throws IOException {
        Path folder = Files.createDirectories(settings.folder());
        Files.createDirectories(folder.resolve("data"));
        write(folder.resolve("cassandra.yaml"), CONFIGURATION.formatted(settings.storagePort(),
                settings.port(), settings.storagePort()));
        write(folder.resolve("logback.xml"), LOGGING);
    }

    private static void write(Path file, String text) throws IOException {
        Path temporary = Files.writeString(file.resolveSibling(file.getFileName() + ".new"), text);
        Files.move(temporary, file, StandardCopyOption.REPLACE_EXISTING);
    }

    /// One token, no gossip delays, small caches. Timeouts are longer than Cassandra's defaults because this
    /// node shares its machine with its clients.
    private static final String CONFIGURATION = """
            cluster_name: bios
            num_tokens: 1
            partitioner: org.apache.cassandra.dht.Murmur3Partitioner
            commitlog_sync: batch
            commitlog_segment_size: 32MiB
            commitlog_total_space: 256MiB
            disk_failure_policy: stop
            commit_failure_policy: stop
            paxos_variant: v2
            listen_address: 127.0.0.1
            storage_port: %d
            rpc_address: 127.0.0.1
            start_native_transport: true
            native_transport_port: %d
            seed_provider:
              - class_name: org.apache.cassandra.locator.SimpleSeedProvider
                parameters:
                  - seeds: "127.0.0.1:%d"
            endpoint_snitch: SimpleSnitch
            auto_snapshot: false
            auto_bootstrap: false
            memtable_heap_space: 96MiB
            memtable_offheap_space: 96MiB
            file_cache_size: 64MiB
            key_cache_size: 8MiB
            counter_cache_size: 0MiB
            concurrent_compactors: 1
            concurrent_reads: 16
            concurrent_writes: 16
            read_request_timeout: 10s
            range_request_timeout: 20s
            write_request_timeout: 10s
            cas_contention_timeout: 5s
            truncate_request_timeout: 60s
            request_timeout: 20s
            """;
    private static final String LOGGING = """
            <configuration>
              <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
                <encoder><pattern>%date{ISO8601} %-5level %logger{0} - %msg%n</pattern></encoder>
              </appender>
              <root level="INFO"><appender-ref ref="out"/></root>
            </configuration>
            """;
    /// The JVM options of Cassandra's start script for JDK 17, and options that let a single node start
    /// without delay.
    private static final List<String> OPTIONS = options("""
            -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError -XX:+PerfDisableSharedMem -XX:TieredStopAtLevel=4
            -Djdk.attach.allowAttachSelf=true -Dio.netty.tryReflectionSetAccessible=true
            -Djava.net.preferIPv4Stack=true -Dcassandra-foreground=yes
            -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=0
            -Dcassandra.load_ring_state=false -Dcassandra.unsafesystem=false
            --add-exports=java.base/jdk.internal.misc=ALL-UNNAMED
            --add-exports=java.base/jdk.internal.ref=ALL-UNNAMED
            --add-exports=java.base/sun.nio.ch=ALL-UNNAMED
            --add-exports=java.management.rmi/com.sun.jmx.remote.internal.rmi=ALL-UNNAMED
            --add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED
            --add-exports=java.rmi/sun.rmi.server=ALL-UNNAMED
            --add-exports=java.sql/java.sql=ALL-UNNAMED
            --add-exports=java.base/java.lang.ref=ALL-UNNAMED
            --add-exports=jdk.unsupported/sun.misc=ALL-UNNAMED
            --add-opens=java.base/java.lang.module=ALL-UNNAMED
            --add-opens=java.base/jdk.internal.loader=ALL-UNNAMED
            --add-opens=java.base/jdk.internal.ref=ALL-UNNAMED
            --add-opens=java.base/jdk.internal.reflect=ALL-UNNAMED
            --add-opens=java.base/jdk.internal.math=ALL-UNNAMED
            --add-opens=java.base/jdk.internal.module=ALL-UNNAMED
            --add-opens=java.base/jdk.internal.util.jar=ALL-UNNAMED
            --add-opens=jdk.management/com.sun.management.internal=ALL-UNNAMED
            --add-opens=java.base/sun.nio.ch=ALL-UNNAMED
            --add-opens=java.base/java.io=ALL-UNNAMED
            --add-opens=java.base/java.lang=ALL-UNNAMED
            --add-opens=java.base/java.lang.reflect=ALL-UNNAMED
            --add-opens=java.base/java.nio=ALL-UNNAMED
            --add-opens=java.base/java.util=ALL-UNNAMED
            --add-opens=java.base/java.util.concurrent=ALL-UNNAMED
            --add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED
            --add-opens=java.base/java.net=ALL-UNNAMED
            """);

    private static List<String> options(String text) {
        return List.of(text.strip().split("\\s+"));
    }
}
