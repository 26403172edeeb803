package bios.bench;

import bios.command.Installation;
import bios.persistence.Storage;
import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraJars;
import bios.persistence.cassandra.CassandraSchema;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.Cql;
import bios.persistence.cassandra.LocalCassandra;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.persistence.typed.PersistenceId;
import org.apache.pekko.persistence.typed.javadsl.CommandHandler;
import org.apache.pekko.persistence.typed.javadsl.EventHandler;
import org.apache.pekko.persistence.typed.javadsl.EventSourcedBehavior;

/// Measures how many events per second the journal acknowledges; each entity writes small events one after
/// another. On Cassandra also measures plain writes of the same size with the same driver, without fencing.
///
/// @param kind which journal
/// @param cassandra `HOST:PORT` of a running Cassandra; empty: one is started in a temporary folder
/// @param entities number of entities in the second part; the first part has one
/// @param bytes size of an event
/// @param seconds measured time, after half as long to warm up
public record JournalBench(Storage.JournalBackend kind, Optional<String> cassandra, int entities, int bytes,
        int seconds) {
    private static final String PLAIN = """
            INSERT INTO KEYSPACE.sampling_tasks (id, owner, body, stored) VALUES (?, 'bench', ?, 0)
            USING TTL 3600""";

    private enum Command { WRITE, STOP }

    /// Measures.
    public Report run() throws IOException, InterruptedException {
        Path data = Files.createTempDirectory("bios-bench-");
        try {
            if (kind == Storage.JournalBackend.EMBEDDED || cassandra.isPresent()) return measured(
                    data, cassandra);
            try (LocalCassandra node = LocalCassandra.start(LocalCassandra.Settings.of(
                    CassandraJars.in(Installation.root()), data.resolve("cassandra")))) {
                return measured(data, Optional.of(node.contactPoint()));
            }
        } finally {
            Setup.delete(data);
        }
    }

    private Report measured(Path data, Optional<String> node) throws InterruptedException {
        Map<String, Object> settings = new HashMap<>(Map.of("bios.storage.journal", kind.name(), "bios.data",
                data.toString(), "pekko.actor.provider", "local", "pekko.loglevel", "WARNING",
                "bios.storage.cassandra.keyspace", "bios_bench"));
        node.ifPresent(n -> settings.put("bios.storage.cassandra.contact-points", List.of(n)));
        Config config = Storage.withPekkoPersistence(ConfigFactory.parseMap(settings))
                .withFallback(ConfigFactory.load())
                .resolve();
        if (node.isPresent()) CassandraSchema.create(CassandraSettings.of(config));
        Report report = new Report("journal", kind.name().toLowerCase(Locale.ROOT) + " journal");
        report.line().put("event_bytes", bytes);
        try (Storage _ = Storage.open(config)) {
            // The JVMs of the database and of this process compile code as they run, so the first part would
            // be slower.
            part(config, new Report("warm-up", ""), "warm", entities);
            part(config, report, "one", 1);
            part(config, report, "many", entities);
            if (node.isPresent()) {
                rawWrites(config, report, "one", 1);
                rawWrites(config, report, "many", entities);
            }
        }
        return report;
    }

    private void part(Config config, Report report, String name, int writers) throws InterruptedException {
        var times = new ConcurrentLinkedQueue<Double>();
        var measuring = new AtomicBoolean();
        ActorSystem<Command> system = ActorSystem.create(Behaviors.setup(context -> {
            for (int i = 0; i < writers; i++) {
                int number = i;
                context.spawn(
                        Behaviors.<Command>setup(c -> new Writer(name + number, bytes, c.getSelf(), measuring,
                        times)), "writer-" + i).tell(Command.WRITE);
            }
            return Behaviors.receiveMessage(_ -> Behaviors.stopped());
        }), "bench", config);
        add(report, name, writers, measure(measuring), times);
        system.tell(Command.STOP);
        try {
            system.getWhenTerminated().toCompletableFuture().get();
        } catch (ExecutionException failed) {
            throw new IllegalStateException(failed.getCause());
        }
    }

    private void rawWrites(Config config, Report report, String name, int writers)
            throws InterruptedException {
        var times = new ConcurrentLinkedQueue<Double>();
        var measuring = new AtomicBoolean();
        var stop = new AtomicBoolean();
        double seconds;
        try (var connection = CassandraConnection.to(CassandraSettings.of(config));
                ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
            Cql cql = connection.await();
            byte[] body = new byte[bytes];
            for (int i = 0; i < writers; i++) {
                String id = "bench-" + i + "-";
                threads.submit(() -> {
                    for (long n = 0; !stop.get(); n++) {
                        long begin = System.nanoTime();
                        Cql.await(cql.execute(PLAIN, id + n, ByteBuffer.wrap(body)));
                        if (measuring.get()) times.add((System.nanoTime() - begin) * 1e-6);
                    }
                });
            }
            seconds = measure(measuring);
            stop.set(true);
        }
        double plain = times.size() / seconds;
        report.line().put(name + "_plain_writes_per_s", Report.round(plain));
        report.line().put(name + "_share_of_plain",
                Report.two(report.line().path(name + "_events_per_s").asDouble() / plain));
    }

    /// Measures, and returns the measured time in seconds.
    private double measure(AtomicBoolean measuring) throws InterruptedException {
        Thread.sleep(seconds * 500L);
        measuring.set(true);
        long begin = System.nanoTime();
        Thread.sleep(seconds * 1000L);
        measuring.set(false);
        return (System.nanoTime() - begin) * 1e-9;
    }

    private static void add(
            Report report, String name, int writers, double seconds, Collection<Double> times) {
        Percentiles millis = Percentiles.of(times);
        report.line().put(name + "_entities", writers)
                .put(name + "_events_per_s", Report.round(times.size() / seconds))
                .put(name + "_p50_ms", Report.two(millis.median()))
                .put(name + "_p99_ms", Report.two(millis.at(99)));
    }

    /// Writes an event for each command, and sends itself the next command.
    private static final class Writer extends EventSourcedBehavior<Command, byte[], Long> {
        private final byte[] event;
        private final ActorRef<Command> self;
        private final AtomicBoolean measuring;
        private final Collection<Double> times;

        Writer(String id, int bytes, ActorRef<Command> self, AtomicBoolean measuring,
                Collection<Double> times) {
            super(PersistenceId.ofUniqueId("bench-" + id));
            this.event = new byte[bytes];
            this.self = self;
            this.measuring = measuring;
            this.times = times;
        }

        @Override public Long emptyState() {
            return 0L;
        }

        @Override public CommandHandler<Command, byte[], Long> commandHandler() {
            return (_, _) -> {
                long begin = System.nanoTime();
                return Effect().persist(event).thenRun(_ -> {
                    if (measuring.get()) times.add((System.nanoTime() - begin) * 1e-6);
                    self.tell(Command.WRITE);
                });
            };
        }

        @Override public EventHandler<Long, byte[]> eventHandler() {
            return (count, _) -> count + 1;
        }
    }
}
