package bios.coordinator.run;

import bios.coordinator.Wait;
import bios.persistence.blob.BlobStore;
import bios.persistence.blob.FileBlobStore;
import bios.persistence.index.ListingPage;
import bios.persistence.index.RunIndex;
import bios.persistence.index.RunSummary;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.journal.JdbcJournal;
import bios.persistence.marks.ExecutionMarks;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.engine.EngineCommand;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.protocol.run.DeathReport;
import bios.protocol.run.Operation;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import java.util.function.LongSupplier;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.javadsl.AskPattern;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.persistence.typed.PersistenceId;

/// One run with a real journal and a fake engine; a test can kill both.
final class RunHarness implements AutoCloseable {
    static final RunId RUN = new RunId("usf-finance-9f2c4be01a77");
    static final LoraSpec LORA = new LoraSpec(8, 32, 7, List.of(TargetModule.Q, TargetModule.V));
    static final String OWNER = "alice";
    static final Duration WAIT = Duration.ofSeconds(30);

    /// A run index in a map.
    static final class MapIndex implements RunIndex {
        final Map<RunId, RunSummary> rows = new ConcurrentHashMap<>();
        final Map<RunId, Long> versions = new ConcurrentHashMap<>();
        final AtomicInteger puts = new AtomicInteger();

        @Override public void put(RunSummary summary, long version) {
            puts.incrementAndGet();
            Long before = versions.put(summary.config().run(), version);
            // If two writes have the same version, a real index may keep either.
            if (before == null || before < version) rows.put(summary.config().run(), summary);
        }

        @Override public void remove(RunId run) {
            rows.remove(run);
        }

        @Override public ListingPage<RunSummary> runs(String owner, int limit, long offset) {
            return new ListingPage<>(List.copyOf(rows.values()), rows.size());
        }

        @Override public ListingPage<CheckpointManifest> checkpoints(String owner, int limit, long offset) {
            throw new IllegalStateException("not asked of a fake");
        }
    }

    /// A blob store whose next `failing` reads fail.
    private record Failing(BlobStore store, AtomicInteger failing) implements BlobStore {
        @Override public BlobRef put(String scope, Content content) {
            return store.put(scope, content);
        }

        @Override public InputStream open(BlobRef ref) {
            if (failing.getAndUpdate(n -> Math.max(0, n - 1)) > 0)
                throw new UncheckedIOException(new IOException("not now"));
            return store.open(ref);
        }

        @Override public boolean exists(BlobId id) {
            return store.exists(id);
        }

        @Override public void delete(BlobId id) {
            store.delete(id);
        }

        @Override public List<ListedBlob> list(String scope) {
            return store.list(scope);
        }
    }

    final AtomicInteger failingReads = new AtomicInteger();
    final Path folder;
    final FileBlobStore blobs;
    final MapIndex index = new MapIndex();
    final AtomicLong clock = new AtomicLong(1_700_000_000_000L);
    final ConcurrentLinkedQueue<String> executed = new ConcurrentLinkedQueue<>();
    /// What survives the processes of the node.
    private final ExecutionMarks marks = ExecutionMarks.inMemory();
    final FakeEngine.Controls controls = new FakeEngine.Controls();
    /// What other runs were asked to keep.
    final Queue<BlobId> kept = new ConcurrentLinkedQueue<>();
    /// What they answer.
    volatile RunReply keeps = new RunReply.Done();
    final Map<CheckpointPath, RunReply> elsewhere = new ConcurrentHashMap<>();
    private final Config settings;
    private final Duration pause;
    private ActorTestKit kit;
    private ActorRef<EngineCommand> engine;
    private ActorRef<RunCommand> run;
    private NodeMemory memory;
    private volatile LongSupplier nanos = System::nanoTime;
    private final AtomicLong elapsed = new AtomicLong();

    RunHarness(Path folder, String settings, Duration pause) {
        this.folder = folder;
        this.blobs = FileBlobStore.open(folder.resolve("blobs"));
        this.settings = ConfigFactory.parseString(settings);
        this.pause = pause;
        start();
    }

    private void start() {
        EmbeddedDatabase.createSchema(folder);
        kit = ActorTestKit.create("run",
                settings.withFallback(JdbcJournal.config(folder)).withFallback(ConfigFactory.load()));
        spawn();
    }

    private void spawn() {
        engine = kit.spawn(FakeEngine.create(blobs, pause, executed, controls));
        var environment = RunEnvironment.of(engine, new Failing(blobs, failingReads), index,
                new Others(),
                () -> Instant.ofEpochMilli(clock.get()), RunSettings.from(kit.system().settings().config()))
                .withMarks(marks::report, marks::executed, marks::contained);
        memory = environment.memory();
        run = kit.spawn(TrainingRunEntity.create(RUN, PersistenceId.of("run-usf-finance", RUN.value()),
                environment.withNanos(() -> nanos.getAsLong()),
                Optional.empty()));
    }

    /// Starts a second engine and entity while the first ones continue, as on a node that is cut off.
    ///
    /// @return the first entity
    ActorRef<RunCommand> startAnother() {
        var before = run;
        spawn();
        return before;
    }

    /// Stops the monotonic clock of the node. From then on only [#elapse] moves it.
    void stopTime() {
        long stopped = System.nanoTime();
        nanos = () -> stopped + TimeUnit.MILLISECONDS.toNanos(elapsed.get());
    }

    /// Moves the stopped monotonic clock forward.
    void elapse(long millis) {
        elapsed.addAndGet(millis);
    }

    /// An actor that completes `answer` with its first message.
    ActorRef<RunReply> replyProbe(CompletableFuture<RunReply> answer) {
        return kit.spawn(Behaviors.receiveMessage(reply -> {
            answer.complete(reply);
            return Behaviors.same();
        }));
    }

    /// What the entity answers to a command that may wait.
    CompletableFuture<RunReply> tell(Function<ActorRef<RunReply>, RunCommand> command) {
        var answer = new CompletableFuture<RunReply>();
        run.tell(command.apply(replyProbe(answer)));
        return answer;
    }

    /// Makes the engine lose the run.
    void forget() {
        engine.tell(new EngineCommand.CloseRun(RUN));
    }

    /// Makes the engine request the eviction of the run.
    void requestEviction() {
        engine.<Object>unsafeUpcast().tell(new FakeEngine.RequestEviction());
    }

    /// The node's account of memory.
    NodeMemory memory() {
        return memory;
    }

    /// Tells the run that workers ended during an operation alone.
    void reportDeath(long position, int alone) {
        run.tell(new RunCommand.ReportDeath(new DeathReport(RUN, "worker-1", alone, 0, position, alone, "")));
    }

    /// Waits until a condition holds.
    void await(BooleanSupplier what, String otherwise) {
        Wait.until(what::getAsBoolean, () -> otherwise);
    }

    /// Waits until the entity has ended by itself.
    void awaitEnd() {
        kit.createTestProbe().expectTerminated(run, WAIT);
    }

    /// Kills engine and entity and starts both again.
    void kill() {
        kit.stop(engine);
        kit.stop(run);
        spawn();
    }

    /// Terminates the actor system with the journal and starts it again.
    void restart() {
        kit.shutdownTestKit();
        start();
    }

    @Override public void close() {
        kit.shutdownTestKit();
        blobs.close();
        marks.close();
    }

    RunReply ask(Function<ActorRef<RunReply>, RunCommand> command) {
        return tryAsk(command, WAIT).orElseThrow(() -> new AssertionError("no answer"));
    }

    private Optional<RunReply> tryAsk(Function<ActorRef<RunReply>, RunCommand> command, Duration wait) {
        try {
            return Optional.of(AskPattern.<RunCommand, RunReply>ask(run, command::apply, wait,
                    kit.system().scheduler()).toCompletableFuture().join());
        } catch (CompletionException noAnswer) {
            return Optional.empty();
        }
    }

    /// The other runs.
    private final class Others implements CheckpointResolver {
        @Override public CompletionStage<RunReply> resolve(String owner, CheckpointPath path) {
            return CompletableFuture.completedFuture(elsewhere.getOrDefault(path,
                    new RunReply.Refused(RunCommand.Reason.NOT_FOUND, path + " does not exist")));
        }

        @Override public CompletionStage<RunReply> keepWeights(String owner, BlobId adapter, boolean loaded) {
            kept.add(adapter);
            return CompletableFuture.completedFuture(keeps);
        }
    }

    static RunConfig config(boolean loraChosen) {
        return new RunConfig(RUN, OWNER, new ModelName("ultrasafe/usf-finance"), LORA, loraChosen,
                Optional.empty(), "{}", "session-1", 1_700_000_000_000L);
    }

    RunReply create() {
        return ask(replyTo -> new RunCommand.Create(config(true), replyTo));
    }

    RunCommand.Submit command(long seq, Operation operation, ActorRef<RunReply> replyTo) {
        byte[] encoded = StoredOperations.encode(operation);
        var kind = StoredOperations.kind(operation);
        StoredOperation stored = encoded.length > 2000
                ? new StoredOperation.InBlob(kind, blobs.put(BlobScope.operation(RUN, seq,
                        1000 + seq, "r"), encoded))
                : new StoredOperation.Inline(kind, encoded);
        return new RunCommand.Submit(OWNER, seq, stored, StoredOperations.digest(encoded),
                1000 + seq, replyTo);
    }

    RunReply submit(long seq, Operation operation) {
        return ask(replyTo -> command(seq, operation, replyTo));
    }

    /// Repeats a submission until it is accepted, as a client does.
    void submitUntilAccepted(long seq, Operation operation) {
        for (int i = 0; i < 100; i++) {
            var reply = tryAsk(replyTo -> command(seq, operation, replyTo), Duration.ofMillis(600));
            if (reply.isPresent()) {
                if (!(reply.get() instanceof RunReply.Accepted))
                    throw new AssertionError(reply.get().toString());
                return;
            }
        }
        throw new AssertionError("request " + seq + " is not accepted");
    }

    /// Waits for the outcome of `seq`, or for a reply that it is stalled, forty times in a row.
    RunReply outcome(long seq) {
        int stalled = 0;
        for (int i = 0; i < 200; i++) {
            Optional<RunReply> reply = tryAsk(replyTo ->
                    new RunCommand.Retrieve(OWNER, seq, 400, replyTo), Duration.ofMillis(600));
            if (reply.isEmpty()) continue;
            stalled = reply.get() instanceof RunReply.Stalled ? stalled + 1 : 0;
            boolean waits = reply.get() instanceof RunReply.Pending || stalled > 0 && stalled < 40;
            if (!waits) return reply.get();
        }
        throw new AssertionError("request " + seq + " has no outcome");
    }
}
