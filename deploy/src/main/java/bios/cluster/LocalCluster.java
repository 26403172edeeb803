package bios.cluster;

import bios.CommandFailed;
import bios.persistence.cassandra.CassandraJars;
import bios.persistence.cassandra.CassandraSchema;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.LocalCassandra;
import bios.worker.device.Devices;
import bios.worker.device.HostMemory;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.function.ToIntFunction;

/// A cluster of processes on this machine against a Cassandra. Supervises the processes: restarts those that
/// have ended.
public final class LocalCluster {
    /// The address of processes that only this machine reaches.
    public static final String HOST = "127.0.0.1";
    private static final int FIRST_SPREAD_ADDRESS = 11;
    private static final int CASSANDRA_HEAP_MEBIBYTES = 512;
    private static final long CASSANDRA_BYTES = 1536L << 20;
    private static final long JVM_OVERHEAD_BYTES = 256L << 20;
    private static final long LEAST_HEAP_BYTES = 512L << 20;
    private static final long MOST_HEAP_BYTES = 4L << 30;
    private static final Duration STOP_LIMIT = Duration.ofSeconds(90);
    /// While it starts there is nothing to hand over.
    private static final Duration STARTING_STOP_LIMIT = Duration.ofSeconds(5);
    private static final long POLL_MILLIS = 50;

    private final Settings settings;
    private final NodesFile file;
    private final Consumer<String> say;
    private final List<Member> members = new ArrayList<>();
    private final ProcessSupervisor restarts;
    private Optional<LocalCassandra> database = Optional.empty();
    private List<String> contactPoints;
    private volatile boolean stopping;
    private volatile boolean ready;

    /// The settings of a cluster.
    ///
    /// @param data folder of logs, `nodes.json` and, if one is started, Cassandra's data
    /// @param port HTTP port of the first coordinator; the others use the following ports; 0: free ports
    /// @param cassandra contact points of a running Cassandra; empty: one is started
    /// @param keyspace keyspace of the tables
    /// @param root folder of the installation, for Cassandra's jars
    /// @param common arguments of every `bios node`, e.g. `--config FILE`
    /// @param worker arguments of every worker, e.g. its models
    /// @param devices what the workers compute on, in turn; empty: one of several cards each, else any
    /// @param coordinator arguments of every coordinator, e.g. `--keys FILE`
    /// @param restart whether ended processes are restarted
    /// @param spread whether each process has its own loopback address, for tests of partitions
    public record Settings(int coordinators, int workers, Path data, int port, List<String> cassandra,
            String keyspace, Path root, List<String> common, List<String> worker, List<String> devices,
            List<String> coordinator, boolean restart, boolean spread) {
        private String host(int process) {
            return spread ? "127.0.0." + (FIRST_SPREAD_ADDRESS + process) : HOST;
        }
    }

    private LocalCluster(Settings settings, Consumer<String> say) {
        this.settings = settings;
        this.file = new NodesFile(settings.data().resolve("nodes.json"));
        this.say = say;
        this.contactPoints = settings.cassandra();
        this.restarts = new ProcessSupervisor(say, settings.restart());
    }

    /// Starts all processes and returns when the coordinators are ready. On a failure it stops all processes
    /// and throws [CommandFailed]. When this process is asked to end, also while it starts them, it stops
    /// them in order.
    ///
    /// @param say receives progress messages
    public static LocalCluster start(Settings settings, Consumer<String> say) {
        var cluster = new LocalCluster(settings, say);
        Runtime.getRuntime().addShutdownHook(Thread.ofPlatform().unstarted(cluster::stop));
        try {
            Files.createDirectories(settings.data().resolve("logs"));
            cluster.startAll();
            return cluster;
        } catch (IOException | UncheckedIOException | IllegalStateException failed) {
            cluster.stop();
            throw new CommandFailed(failed.getMessage());
        } catch (RuntimeException failed) {
            cluster.stop();
            throw failed;
        } catch (InterruptedException _) {
            cluster.stop();
            throw new CommandFailed("interrupted");
        }
    }

    /// The addresses of the coordinators, e.g. `http://127.0.0.1:8400`.
    public List<String> urls() {
        return members.stream().filter(m -> m.role.equals("coordinator")).map(m ->
                "http://" + HOST + ":" + m.httpPort).toList();
    }

    private void startAll() throws InterruptedException {
        List<NodesFile.ProcessEntry> before = file.read();
        refuseRunning(before);
        if (settings.cassandra().isEmpty()) startDatabase(before);
        say.accept("Cassandra is ready on " + String.join(", ", contactPoints));
        CassandraSchema.create(CassandraSettings.of(ConfigFactory.parseMap(Map.of(
                "bios.storage.cassandra.contact-points", contactPoints,
                "bios.storage.cassandra.keyspace", settings.keyspace())).withFallback(ConfigFactory.load())))
                .forEach(say);
        synchronized (this) {
            refuseStopped();
            plan(before);
            members.forEach(restarts::start);
            write();
        }
        await(() -> superviseStart());
        for (String url : urls()) await(() -> serves(url) || members.stream().noneMatch(Member::isRunning));
        refuseStopped();
        ready = true;
    }

    /// Restarts what has ended but can start; throws if something cannot.
    ///
    /// @return whether all are ready
    private boolean superviseStart() {
        boolean changed = false;
        for (Member member : members) {
            if (stopping || member.isRunning()) continue;
            if (member.cannotStart() || !settings.restart()) throw member.startFailed();
            changed |= restarts.supervise(member);
        }
        if (changed && !stopping) write();
        return members.stream().allMatch(Member::ready);
    }

    private void refuseStopped() {
        if (stopping) throw new CommandFailed("the cluster was stopped before it was ready");
    }

    private void refuseRunning(List<NodesFile.ProcessEntry> before) {
        List<String> running = before.stream().filter(e -> e.pid() != 0 && ours(e.pid()))
                .map(e -> e.name() + " (pid " + e.pid() + ")").toList();
        if (!running.isEmpty())
            throw new CommandFailed("processes of an earlier cluster in " + settings.data()
            + " are still running: "
                    + String.join(", ", running) + "; stop them first, or choose another --data");
    }

    /// Whether a Java process with this id is running.
    private static boolean ours(long pid) {
        return ProcessHandle.of(pid).filter(ProcessHandle::isAlive).flatMap(p -> p.info().command())
                .filter(command -> command.endsWith("java")).isPresent();
    }

    private void startDatabase(List<NodesFile.ProcessEntry> before) {
        say.accept("starting Cassandra ...");
        Optional<NodesFile.ProcessEntry> known = before.stream().filter(e ->
                e.role().equals("cassandra")).findFirst();
        Path jars = CassandraJars.in(settings.root());
        var wanted = new LocalCassandra.Settings(jars, settings.data().resolve("cassandra"),
                known.map(NodesFile.ProcessEntry::cqlPort).orElseGet(LocalCluster::freePort),
                known.map(NodesFile.ProcessEntry::arteryPort).orElseGet(LocalCluster::freePort),
                CASSANDRA_HEAP_MEBIBYTES);
        launchDatabase(wanted);
        contactPoints = List.of(database.get().contactPoint());
    }

    /// Starts Cassandra and waits for it, until the cluster is stopped.
    private void launchDatabase(LocalCassandra.Settings wanted) {
        LocalCassandra started;
        synchronized (this) {
            refuseStopped();
            started = LocalCassandra.launch(wanted, false);
            database = Optional.of(started);
        }
        started.awaitAnswer(() -> stopping);
    }

    private void plan(List<NodesFile.ProcessEntry> before) {
        record Planned(String name, String role, String host, int http, int artery, int actors) {
            String address() {
                return host + ":" + artery;
            }
        }
        var planned = new ArrayList<Planned>();
        for (int i = 1; i <= settings.coordinators() + settings.workers(); i++) {
            boolean coordinator = i <= settings.coordinators();
            String name = coordinator ? "coordinator-" + i : "worker-" + (i - settings.coordinators());
            int http = coordinator && settings.port() != 0 ? settings.port() + i - 1
                    : port(before, name, NodesFile.ProcessEntry::httpPort);
            planned.add(new Planned(name, coordinator ? "coordinator" : "worker", settings.host(i - 1), http,
                    port(before, name, NodesFile.ProcessEntry::arteryPort),
                    coordinator ? port(before, name, NodesFile.ProcessEntry::actorsPort) : 0));
        }
        // All processes are seeds, so that a restarted process finds any other one.
        String seeds = String.join(",", planned.stream().map(Planned::address).toList());
        List<String> devices = devices();
        int workers = 0;
        for (Planned p : planned) {
            boolean worker = p.role().equals("worker");
            List<String> options = memory(worker);
            if (worker && !devices.isEmpty())
                options.add("-Dbios.engine.device=" + devices.get(workers++ % devices.size()));
            // For the actor protocol, if the settings enable it.
            if (!worker) options.add("-Dbios.gateway.actors.port=" + p.actors());
            var arguments = new ArrayList<>(List.of("--name", p.name(), "--role", p.role(),
                    "--cluster-host", p.host(), "--cluster-port", String.valueOf(p.artery()), "--seed", seeds,
                    "--host", HOST, "--port", String.valueOf(p.http()), "--cassandra",
                    String.join(",", contactPoints), "--keyspace", settings.keyspace(), "--data",
                    settings.data().toString()));
            arguments.addAll(settings.common());
            arguments.addAll(worker ? settings.worker() : settings.coordinator());
            members.add(new Member(p.name(), p.role(), p.host(), p.http(), p.artery(), p.actors(),
                    settings.data().resolve("logs").resolve(p.name() + ".log"), arguments,
                    Map.of("BIOS_ARCHIVE_URL_SECRET", secret()), options, false));
        }
    }

    /// What the workers compute on, in turn: one worker for each of several cards.
    private List<String> devices() {
        if (!settings.devices().isEmpty()) return settings.devices();
        List<Integer> cards = Devices.cards();
        return cards.size() > 1 ? cards.stream().map(card -> "cuda:" + card).toList() : List.of();
    }

    /// Divides the memory of the machine among the processes. Options and settings of the user override this.
    private List<String> memory(boolean worker) {
        long all = HostMemory.total() - CASSANDRA_BYTES;
        int processes = settings.coordinators() + settings.workers();
        long heap = Math.clamp(all / (4L * processes), LEAST_HEAP_BYTES, MOST_HEAP_BYTES);
        var options = new ArrayList<>(List.of("-Xmx" + heap));
        long beside = (all - processes * (heap + JVM_OVERHEAD_BYTES)) / settings.workers();
        if (worker) options.add("-Dbios.engine.memory-bytes=" + Math.max(heap, beside));
        return options;
    }

    /// The key of signed URLs, which all coordinators share and which survives a restart.
    private String secret() {
        Path kept = settings.data().resolve("archive-url-secret");
        try {
            if (!Files.exists(kept)) {
                byte[] made = new byte[32];
                new SecureRandom().nextBytes(made); // edge: a key
                Files.createFile(kept, PosixFilePermissions.asFileAttribute(
                        PosixFilePermissions.fromString("rw-------")));
                Files.writeString(kept, HexFormat.of().formatHex(made));
            }
            return Files.readString(kept);
        } catch (IOException failed) {
            throw new UncheckedIOException(kept + " cannot be written or read: " + failed.getMessage(),
                    failed);
        }
    }

    /// The previous port of a process, so that its address is stable; else a free port.
    private static int port(List<NodesFile.ProcessEntry> before, String name,
            ToIntFunction<NodesFile.ProcessEntry> which) {
        return before.stream().filter(e -> e.name().equals(name)).mapToInt(which).filter(port -> port != 0)
                .findFirst().orElseGet(LocalCluster::freePort);
    }

    /// A port of the loopback interface that nobody listens on.
    public static int freePort() {
        try (var socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return socket.getLocalPort();
        } catch (IOException failed) {
            throw new UncheckedIOException("no free port on " + HOST + ": " + failed.getMessage(), failed);
        }
    }

    /// Whether a coordinator answers that it is ready.
    static boolean serves(String url) {
        try {
            var asked = (HttpURLConnection) URI.create(url + "/api/v1/healthz").toURL().openConnection();
            asked.setConnectTimeout(1000);
            asked.setReadTimeout(2000);
            return asked.getResponseCode() == 200;
        } catch (IOException _) {
            return false;
        }
    }

    private void await(BooleanSupplier done) throws InterruptedException {
        while (!done.getAsBoolean() && !stopping) Thread.sleep(POLL_MILLIS); // edge: waits for processes
    }

    private void write() {
        var entries = new ArrayList<>(members.stream().map(Member::entry).toList());
        database.ifPresent(d -> entries.add(new NodesFile.ProcessEntry("cassandra", "cassandra", HOST,
                d.alive() ? d.pid() : 0, 0, d.settings().storagePort(), d.port(),
                d.settings().log().toString(), 0)));
        file.write(entries);
    }

    /// Supervises the processes until [#stop] is called from another thread.
    public void supervise() throws InterruptedException {
        while (!stopping) {
            boolean changed = superviseDatabase();
            for (Member member : members) if (!stopping) changed |= restarts.supervise(member);
            if (changed && !stopping) write();
            Thread.sleep(POLL_MILLIS); // edge: supervises processes
        }
    }

    private boolean superviseDatabase() {
        if (database.isEmpty() || database.get().alive() || !settings.restart() || stopping) return false;
        say.accept("Cassandra ended and is restarted");
        try {
            launchDatabase(database.get().settings());
            say.accept("Cassandra is ready again, pid " + database.get().pid());
        } catch (CommandFailed | IllegalStateException | UncheckedIOException failed) {
            say.accept(failed.getMessage());
        }
        return true;
    }

    /// Stops all processes in order: workers and coordinators drain, then Cassandra is stopped.
    public synchronized void stop() {
        if (stopping) return;
        stopping = true;
        restarts.end((ready ? STOP_LIMIT : STARTING_STOP_LIMIT).toMillis());
        database.ifPresent(LocalCassandra::stop);
        if (!members.isEmpty()) write();
    }
}
