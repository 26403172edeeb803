package bios.worker.engine;

import bios.persistence.blob.BlobStore;
import bios.persistence.blob.FileBlobStore;
import bios.persistence.marks.ExecutionMarks;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.DeathReport;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.TensorData;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingParams;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.Readback;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.load.TensorStream;
import bios.worker.model.Golden;
import bios.worker.sample.SamplerSettings;
import bios.worker.train.NonFinite;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.UnaryOperator;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.testkit.typed.javadsl.TestProbe;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.ChildFailed;
import org.apache.pekko.actor.typed.Terminated;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.receptionist.Receptionist;
import org.apache.pekko.actor.typed.receptionist.ServiceKey;

/// An engine with a small model and its blob store, with helpers for tests.
final class EngineHarness implements AutoCloseable {
    static final Duration TIMEOUT = Duration.ofSeconds(TestDevices.cuda() ? 300 : 60);
    static final ModelName MODEL = new ModelName("golden/qwen3");
    static final ModelName TINY = new ModelName("bios-tiny");
    static final Path TINY_FOLDER = Path.of("../deploy/models/bios-tiny");
    private static final int VOCABULARY = 90;
    private static final SamplerSettings SAMPLER = new SamplerSettings(8 << 20, 64, 16, 8);

    private final ActorTestKit kit = ActorTestKit.create();
    private final Path folder;
    private final FileBlobStore store;
    private final ExecutionMarks marks = ExecutionMarks.inMemory();
    private final List<EngineReply> received = new CopyOnWriteArrayList<>();
    private final ActorRef<Void> parent;
    private final ActorRef<EngineCommand> engine;
    private final CompletableFuture<Throwable> cause = new CompletableFuture<>();

    private EngineHarness(Path folder, Map<ModelName, Path> models, long adapterBytes,
            UnaryOperator<Device> device, UnaryOperator<BlobStore> blobs) {
        this(folder, models, adapterBytes, EngineSettings.Runs.AUTO, device, blobs);
    }

    private EngineHarness(Path folder, Map<ModelName, Path> models, long adapterBytes,
            EngineSettings.Runs runs,
            UnaryOperator<Device> device, UnaryOperator<BlobStore> blobs) {
        this.folder = folder;
        this.store = FileBlobStore.open(folder);
        var settings = new EngineSettings(512, OptionalLong.of(1 << 20), OptionalLong.of(1 << 20), 2, 4,
                runs, adapterBytes, SAMPLER, 1000, NonFinite.SKIP);
        Behavior<EngineCommand> behavior =
                Engine.create(settings, ModelSource.of(models), () -> device.apply(TestDevices.open(2)),
                        blobs.apply(store), marks);
        var spawned = new CompletableFuture<ActorRef<EngineCommand>>();
        this.parent = kit.spawn(Behaviors.<Void>setup(context -> {
            spawned.complete(context.spawn(behavior, "engine"));
            context.watch(spawned.join());
            return Behaviors.receive(Void.class).onSignal(ChildFailed.class, failed -> {
                cause.complete(failed.cause());
                return Behaviors.same();
            }).onSignal(Terminated.class, _ -> Behaviors.same()).build();
        }));
        this.engine = spawned.join();
    }

    private static Map<ModelName, Path> golden() {
        return Map.of(MODEL, Golden.of("qwen3").folder().resolve("model"));
    }

    static EngineHarness open(Path folder) {
        return new EngineHarness(folder, golden(), 8 << 20, d -> d, s -> s);
    }

    static EngineHarness ofTiny(Path folder) {
        return new EngineHarness(folder, Map.of(TINY, TINY_FOLDER), 8 << 20, d -> d, s -> s);
    }

    /// An engine whose model is missing.
    static EngineHarness ofNothing(Path folder, UnaryOperator<Device> device) {
        return new EngineHarness(folder, Map.of(MODEL, folder.resolve("nothing")), 8 << 20, device, s -> s);
    }

    static EngineHarness withAdapterBytes(Path folder, long bytes) {
        return new EngineHarness(folder, golden(), bytes, d -> d, s -> s);
    }

    static EngineHarness withRuns(Path folder, EngineSettings.Runs runs, UnaryOperator<BlobStore> store) {
        return new EngineHarness(folder, golden(), 8 << 20, runs, d -> d, store);
    }

    /// An engine with this many bytes of memory, and a larger limit for runs.
    static EngineHarness withMemory(Path folder, long bytes) {
        var runs = new EngineSettings.Runs(OptionalLong.of(1L << 40), OptionalLong.of(0),
                OptionalLong.empty(), 1);
        return new EngineHarness(folder, golden(), 8 << 20, runs, device -> {
            device.close();
            return TestDevices.open(2, bytes);
        }, s -> s);
    }

    static EngineHarness withDevice(Path folder, UnaryOperator<Device> device) {
        return new EngineHarness(folder, golden(), 8 << 20, device, s -> s);
    }

    static EngineHarness with(Path folder, EngineSettings.Runs runs, UnaryOperator<Device> device,
            UnaryOperator<BlobStore> store) {
        return new EngineHarness(folder, golden(), 8 << 20, runs, device, store);
    }

    static EngineHarness with(Path folder, UnaryOperator<Device> device, UnaryOperator<BlobStore> store) {
        return new EngineHarness(folder, golden(), 8 << 20, device, store);
    }

    static EngineHarness withStore(Path folder, UnaryOperator<BlobStore> store) {
        return new EngineHarness(folder, golden(), 8 << 20, d -> d, store);
    }

    ActorRef<EngineCommand> engine() {
        return engine;
    }

    TestProbe<EngineReply> replies() {
        return kit.createTestProbe();
    }

    /// An actor that stores the replies in [#received].
    ActorRef<EngineReply> recorder() {
        return kit.spawn(Behaviors.receiveMessage(reply -> {
            received.add(reply);
            return Behaviors.same();
        }));
    }

    List<EngineReply> received() {
        return received;
    }

    void stop() {
        kit.stop(parent);
    }

    /// Waits until the engine has failed; returns the cause.
    Throwable awaitFailure() throws Exception {
        return cause.get(TIMEOUT.toSeconds(), TimeUnit.SECONDS);
    }

    /// Waits until the engine has stopped.
    void awaitEnd() {
        kit.createTestProbe().expectTerminated(engine, TIMEOUT);
    }

    /// The greedy continuation of a prompt by the small model of the repository, up to 40 tokens.
    String text(String prompt, List<String> stops) {
        var probe = replies();
        engine.tell(new EngineCommand.Tokenize(TINY, prompt, true, probe.ref()));
        int[] tokens = probe.expectMessageClass(EngineReply.Tokenized.class, TIMEOUT).tokens();
        var params = new SamplingParams(Optional.of(40), Optional.empty(), stops, List.of(), 0, -1, 1);
        var task = new SampleTask("text", TINY, Optional.empty(), tokens, params, 1, 0, false, 0);
        engine.tell(new EngineCommand.Sample(task, probe.ref()));
        int[] drawn = probe.expectMessageClass(EngineReply.Sampled.class, TIMEOUT).result().sequences()
                .getFirst().tokens();
        engine.tell(new EngineCommand.Detokenize(TINY, drawn, false, probe.ref()));
        return probe.expectMessageClass(EngineReply.Detokenized.class, TIMEOUT).text();
    }

    int listed(ServiceKey<EngineCommand> key) {
        var probe = kit.<Receptionist.Listing>createTestProbe();
        for (int i = 0; i < 1000; i++) {
            kit.system().receptionist().tell(Receptionist.find(key, probe.ref()));
            int found = probe.receiveMessage(TIMEOUT).getServiceInstances(key).size();
            if (found > 0) return found;
            replies().expectNoMessage(Duration.ofMillis(20));
        }
        return 0;
    }

    /// Changes a stored blob on the disk.
    void damage(BlobRef ref) {
        damage(ref, ref.bytes() / 2);
    }

    /// Flips a bit of one byte of a blob.
    void damage(BlobRef ref, long at) {
        try {
            Path file = folder.resolve("blobs").resolve(ref.id().scope()).resolve(ref.id().sha256());
            byte[] bytes = Files.readAllBytes(file);
            bytes[Math.toIntExact(at)] ^= 1;
            Files.write(file, bytes);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /// A blob as the uploaded adapter that an operation of a run loads.
    BlobRef uploaded(BlobRef ref, RunId run) {
        return store.put(BlobScope.operation(run, 1, 0, "upload"), store.open(ref));
    }

    /// A copy of a blob of tensors in which the first number of one is NaN.
    BlobRef withNaN(BlobRef ref, String tensor) {
        try (var in = store.open(ref)) {
            byte[] bytes = in.readAllBytes();
            try (var file = TensorStream.open("blob", new ByteArrayInputStream(bytes), bytes.length)) {
                var range = file.tensors().stream().filter(t -> t.name().equals(tensor)).findFirst()
                        .orElseThrow();
                var all = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
                all.putFloat(8 + (int) all.getLong(0) + (int) range.begin(), Float.NaN);
            }
            return store.put(ref.id().scope(), bytes);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /// Samples; returns why it failed.
    Fault unsampled(SampleTask task) {
        var probe = replies();
        engine.tell(new EngineCommand.Sample(task, probe.ref()));
        return probe.expectMessageClass(EngineReply.RequestFailed.class, TIMEOUT).fault();
    }

    /// Samples; returns the bits of the result.
    String sample(SampleTask task) {
        var probe = replies();
        engine.tell(new EngineCommand.Sample(task, probe.ref()));
        return bits(probe.expectMessageClass(EngineReply.Sampled.class, TIMEOUT).result());
    }

    Run run(int number, LoraSpec lora) {
        return run(number, lora, Optional.empty());
    }

    Run run(int number, LoraSpec lora, Optional<BlobRef> point) {
        Run run = unopened(number, lora, point);
        run.events.expectMessageClass(EngineEvent.Opened.class, TIMEOUT);
        return run;
    }

    /// Requests to open a run and does not wait for `Opened`.
    Run unopened(int number, LoraSpec lora, Optional<BlobRef> point) {
        var run = new Run(id(number), kit.createTestProbe());
        return open(run, lora, point, Optional.empty());
    }

    /// The same for a run that was created on the base model with this fingerprint.
    Run unopened(int number, LoraSpec lora, String fingerprint) {
        return open(new Run(id(number), kit.createTestProbe()), lora, Optional.empty(),
                Optional.of(fingerprint));
    }

    private Run open(Run run, LoraSpec lora, Optional<BlobRef> point, Optional<String> fingerprint) {
        var config = new RunConfig(run.id, "me", MODEL, lora, true, Optional.empty(), "{}", "s", 0,
                fingerprint);
        engine.tell(new EngineCommand.OpenRun(config, lora, point, run.replyTo, 0));
        return run;
    }

    /// An engine of this model.
    static EngineHarness of(Path folder, Path model) {
        return new EngineHarness(folder, Map.of(MODEL, model), 1 << 20, UnaryOperator.identity(),
                UnaryOperator.identity());
    }

    EngineReply.Description description() {
        var probe = replies();
        engine.tell(new EngineCommand.Describe(probe.ref()));
        return probe.expectMessageClass(EngineReply.Description.class, TIMEOUT);
    }

    @Override public void close() {
        kit.shutdownTestKit();
        store.close();
    }

    /// Closes a run by its number.
    void closeRun(int number) {
        engine.tell(new EngineCommand.CloseRun(id(number)));
    }

    private static RunId id(int number) {
        return new RunId("qwen3-" + "%012x".formatted(number));
    }

    /// Closes a run.
    void closeRun(Run run) {
        engine.tell(new EngineCommand.CloseRun(run.id));
    }

    /// An open run.
    final class Run {
        private final RunId id;
        private final TestProbe<EngineEvent> events;
        private final ActorRef<EngineEvent> replyTo;
        private final List<EngineEvent.Measured> measured = new CopyOnWriteArrayList<>();
        private final List<EngineEvent> received = new CopyOnWriteArrayList<>();
        private volatile boolean ignoresEviction;
        private long position;

        Run(RunId id, TestProbe<EngineEvent> events) {
            this.id = id;
            this.events = events;
            this.replyTo = kit.spawn(Behaviors.receiveMessage(event -> {
                received.add(event);
                if (event instanceof EngineEvent.Measured m) measured.add(m);
                else if (!(event instanceof EngineEvent.EvictionRequested && ignoresEviction))
                    events.ref().tell(event);
                return Behaviors.same();
            }));
        }

        /// The device times that the engine has reported, one before each result.
        List<EngineEvent.Measured> measured() {
            return measured;
        }

        RunId id() {
            return id;
        }

        /// The position up to which the engine has marked the operations as executed; 0: none.
        long executed() {
            return marks.report(id).map(DeathReport::executed).orElse(0L);
        }

        TestProbe<EngineEvent> events() {
            return events;
        }

        ActorRef<EngineEvent> replyTo() {
            return replyTo;
        }

        /// Makes the run ignore requests for its eviction.
        Run ignoringEviction() {
            ignoresEviction = true;
            return this;
        }

        /// All events so far.
        List<EngineEvent> received() {
            return received;
        }

        /// Time of acceptance of the last operation.
        long acceptedAtMillis() {
            return 1_000_000 + position;
        }

        void skip(int positions) {
            position += positions;
        }

        void send(Operation operation) {
            send(operation, Optional.empty());
        }

        void send(Operation operation, Optional<CheckpointManifest> loaded) {
            send(StoredOperations.inline(operation), loaded);
        }

        void send(StoredOperation operation, Optional<CheckpointManifest> loaded) {
            position++;
            engine.tell(new EngineCommand.Execute(id, position, operation, loaded, acceptedAtMillis(),
                    replyTo));
        }

        /// The next results, as bits.
        List<String> receive(int count) {
            List<String> results = new ArrayList<>();
            for (int i = 0; i < count; i++)
                results.add(bits(events.expectMessageClass(EngineEvent.Executed.class, TIMEOUT).result()));
            return results;
        }

        List<String> all(List<Operation> operations) {
            operations.forEach(this::send);
            return receive(operations.size());
        }

        OperationResult result(Operation operation, Optional<CheckpointManifest> loaded) {
            send(operation, loaded);
            return events.expectMessageClass(EngineEvent.Executed.class, TIMEOUT).result();
        }

        CheckpointManifest save(Operation operation) {
            return ((OperationResult.Saved) result(operation, Optional.empty())).manifest();
        }

        Fault fault(Operation operation) {
            return fault(operation, Optional.empty());
        }

        Fault fault(Operation operation, Optional<CheckpointManifest> loaded) {
            send(operation, loaded);
            var failed = events.expectMessageClass(EngineEvent.Failed.class, TIMEOUT);
            if (failed.position() != position) throw new AssertionError(failed + " is not " + position);
            return failed.fault();
        }

        EngineEvent.RecoveryPointWritten point() {
            engine.tell(new EngineCommand.TakeRecoveryPoint(id, position, replyTo));
            return events.expectMessageClass(EngineEvent.RecoveryPointWritten.class, TIMEOUT);
        }

        /// Takes a recovery point of a state that is not finite.
        Fault spoiltPoint() {
            engine.tell(new EngineCommand.TakeRecoveryPoint(id, position, replyTo));
            var found = events.expectMessageClass(EngineEvent.StateNotFinite.class, TIMEOUT);
            events.expectMessageClass(EngineEvent.RecoveryPointWritten.class, TIMEOUT);
            if (found.position() != position) throw new AssertionError(found + " is not " + position);
            return found.fault();
        }
    }

    // ---- operations ----

    /// Steps of two gradients each, and a save at the end.
    static List<Operation> operations(long seed, int steps, double weightDecay) {
        List<Operation> all = new ArrayList<>();
        for (int i = 0; i < steps; i++) {
            all.add(gradient(100 * seed + i, 1 + i % 3));
            all.add(gradient(200 * seed + i, 2));
            all.add(new Operation.OptimStep(Optional.of(new AdamParams(0.01, 0.9, 0.95, 1e-8, weightDecay,
                    i % 2))));
        }
        all.add(saveState("end"));
        return all;
    }

    /// `sequences` sequences of 70 tokens.
    static Operation gradient(long seed, int sequences) {
        var random = new Random(seed);
        List<Datum> data = new ArrayList<>();
        for (int i = 0; i < sequences; i++) data.add(datum(random.ints(70, 0, VOCABULARY).toArray()));
        return new Operation.ForwardBackward(data, LossFunction.CROSS_ENTROPY, Map.of(), false);
    }

    static Operation gradientOf(int[] tokens) {
        return new Operation.ForwardBackward(List.of(datum(tokens)), LossFunction.CROSS_ENTROPY, Map.of(),
                false);
    }

    private static Datum datum(int[] tokens) {
        return new Datum(tokens, Map.of("target_tokens", TensorData.of(Arrays.stream(tokens).asLongStream()
                .map(t -> (t + 1) % VOCABULARY).toArray())));
    }

    static Operation saveState(String name) {
        return new Operation.SaveState(new CheckpointName(name), "{}", Optional.of(60L));
    }

    static Operation load(CheckpointManifest manifest, boolean optimizer) {
        return new Operation.LoadState(manifest.path().orElseThrow(), optimizer);
    }

    static SampleTask task(String id, Optional<CheckpointManifest> adapter, long seed) {
        return new SampleTask(id, MODEL, adapter.map(m -> new SampleTask.Adapter(m.contentId(), m.lora(),
                m.adapter())), new int[] {5, 6, 7, 8}, new SamplingParams(Optional.of(20), Optional.empty(),
                        List.of(), List.of(), 1, -1, 1), 2, seed, true, 0);
    }

    // ---- bits ----

    static String bits(OperationResult result) {
        return switch (result) {
            case OperationResult.Evaluated(var logprobs, var metrics) -> logprobs.stream()
                    .map(EngineHarness::bits).toList() + bits(metrics);
            case OperationResult.EvaluatedMatrix(var values, var columns) -> bits(values) + columns;
            case OperationResult.Stepped(var step, var metrics) -> step + bits(metrics);
            case OperationResult.Saved(var m) -> m.contentId() + m.optimizer().map(o -> o.id().sha256())
                    + m.step() + m.settings();
            case OperationResult.Loaded loaded -> loaded.toString();
        };
    }

    static String bits(SampleResult result) {
        return result.sequences().stream()
                .map(s -> Arrays.toString(s.tokens()) + bits(s.logprobs()) + s.stopReason()).toList()
                + result.promptLogprobs().map(EngineHarness::bits).orElse("");
    }

    private static String bits(Map<String, Double> metrics) {
        var all = new TreeMap<String, Long>();
        metrics.forEach((name, value) -> all.put(name, Double.doubleToLongBits(value)));
        return all.toString();
    }

    private static String bits(float[] values) {
        var bits = new int[values.length];
        for (int i = 0; i < bits.length; i++) bits[i] = Float.floatToIntBits(values[i]);
        return Arrays.toString(bits);
    }

    // ---- devices and stores with faults ----

    private interface Before {
        void call(String method, Object[] arguments);
    }

    private static <T> T before(Class<T> type, T real, Before before) {
        return type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type},
                (_, method, arguments) -> {
                    before.call(method.getName(), arguments);
                    try {
                        return method.invoke(real, arguments);
                    } catch (InvocationTargetException e) {
                        throw e.getCause();
                    }
                }));
    }

    /// A device that runs out of memory if more than `rows` rows are embedded.
    static Device embeddingAtMost(Device real, int rows, AtomicInteger refused) {
        return before(Device.class, real, (method, arguments) -> {
            if (!method.equals("embed") || ((Tensor) arguments[1]).rows() <= rows) return;
            refused.incrementAndGet();
            throw new OutOfMemoryError("device memory");
        });
    }

    /// A device that counts the tensors that are not freed.
    static Device counting(Device real, AtomicInteger tensors) {
        return before(Device.class, real, (method, _) -> {
            if (method.equals("tensor")) tensors.incrementAndGet();
            if (method.equals("free")) tensors.decrementAndGet();
        });
    }

    /// A store that counts its reads.
    static BlobStore countingReads(BlobStore real, AtomicInteger reads) {
        return before(BlobStore.class, real, (method, _) -> {
            if (method.equals("open") || method.equals("readSmall")) reads.incrementAndGet();
        });
    }

    private static final Set<String> ALLOCATIONS = Set.of("tensor", "scratch", "upload", "slots", "sequences",
            "draws", "snapshot");
    private static final Set<String> QUESTIONS = Set.of("description", "ownMemory", "memoryLimit",
            "memoryInUse", "trim", "close", "hashCode", "equals", "toString");

    /// A device that refuses the allocation at which `until` is 0; each allocation decrements it down to -1.
    static Device refusing(Device real, AtomicInteger until) {
        return before(Device.class, real, (method, _) -> {
            if (ALLOCATIONS.contains(method) && until.get() >= 0 && until.getAndDecrement() == 0)
                throw new OutOfDeviceMemory(1, real.memoryInUse(), real.memoryInUse());
        });
    }

    /// A device that is lost from the verb on at which `until` is 0.
    static Device losing(Device real, AtomicInteger until) {
        return before(Device.class, real, (method, _) -> {
            if (method.equals("close") && until.get() < 0) real.close();
            boolean lost = !QUESTIONS.contains(method) && until.getAndUpdate(n -> n < 0 ? n : n - 1) <= 0;
            if (lost || method.equals("close") && until.get() < 0) throw new DeviceLost("fell off the bus");
        });
    }

    /// A device that refuses, for lack of memory, every second pass while `refusing`.
    static Device refusingEverySecondPass(Device real, AtomicBoolean refusing) {
        var passes = new AtomicInteger();
        return before(Device.class, real, (method, _) -> {
            if (method.equals("embed") && refusing.get() && passes.incrementAndGet() % 2 == 0)
                throw new OutOfDeviceMemory(1, real.memoryInUse(), real.memoryInUse());
        });
    }

    /// A device without memory for snapshots.
    static Device withoutCopies(Device real) {
        return before(Device.class, real, (method, _) -> {
            if (method.equals("snapshot")) throw new OutOfDeviceMemory(1, 1, 1);
        });
    }

    /// A device whose `close` hangs until the gate opens.
    static Device hangingClose(Device real, CountDownLatch gate) {
        return before(Device.class, real, (method, _) -> {
            if (!method.equals("close")) return;
            try {
                gate.await();
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
        });
    }

    /// A device that reports memory of its own.
    static Device discrete(Device real) {
        return discrete(real, results -> results);
    }

    /// The same, whose results arrive when the test lets them.
    static Device discrete(Device real, Results results) {
        return discrete(real, results::launched);
    }

    /// The results of passes and steps on their way to the host.
    ///
    /// @param failing which of them arrive as a failure: numbers in the order of the launches, from 1 on
    record Results(Semaphore launched, Semaphore arriving, AtomicInteger count, Set<Integer> failing) {
        Results(Integer... failing) {
            this(new Semaphore(0), new Semaphore(0), new AtomicInteger(), Set.of(failing));
        }

        /// Waits until so many more are launched.
        void awaitLaunched(int more) throws InterruptedException {
            if (!launched.tryAcquire(more, TIMEOUT.toSeconds(), TimeUnit.SECONDS))
                throw new AssertionError(launched.availablePermits() + " of " + more + " are launched");
        }

        /// Lets so many more arrive.
        void arrive(int more) {
            arriving.release(more);
        }

        private Readback launched(Readback real) {
            int number = count.incrementAndGet();
            var arrived = new AtomicBoolean();
            launched.release();
            return before(Readback.class, real, (_, _) -> {
                if (!arrived.getAndSet(true)) arriving.acquireUninterruptibly();
                if (failing.contains(number)) throw new IllegalStateException("token 7 of 3");
            });
        }
    }

    private static Device discrete(Device real, UnaryOperator<Readback> results) {
        return (Device) Proxy.newProxyInstance(Device.class.getClassLoader(), new Class<?>[] {Device.class},
                (_, method, arguments) -> {
                    if (method.getName().equals("ownMemory")) return true;
                    try {
                        Object result = method.invoke(real, arguments);
                        return result instanceof Readback readback ? results.apply(readback) : result;
                    } catch (InvocationTargetException e) {
                        throw e.getCause();
                    }
                });
    }

    /// A device that signals when it is closed.
    static Device closing(Device real, CountDownLatch closed) {
        return before(Device.class, real, (method, _) -> {
            if (method.equals("close")) closed.countDown();
        });
    }

    /// A store whose writes fail.
    static BlobStore failingWrites(BlobStore real) {
        return before(BlobStore.class, real, (method, _) -> {
            if (method.equals("put")) throw new UncheckedIOException(new IOException("the disk is away"));
        });
    }

    /// A store whose writes block until the gate opens.
    static BlobStore gated(BlobStore real, CountDownLatch gate) {
        return before(BlobStore.class, real, (method, _) -> {
            if (!method.equals("put")) return;
            try {
                gate.await();
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
        });
    }
}
