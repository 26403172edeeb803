package bios.client;

import bios.protocol.client.Answer;
import bios.protocol.client.ClientTransport;
import bios.protocol.client.Request;
import bios.protocol.model.ModelInfo;
import bios.protocol.run.RunId;
import bios.protocol.wire.ClientSerializer;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorSystem;

/// Trains and samples from a JVM program, over the actor protocol. No call blocks; each returns a stage that
/// fails with a [BiosException]. Requests are repeated until they are answered, across failures of gateways,
/// workers and the network, and nothing is applied twice. Thread-safe.
///
/// The client brings a small actor system of its own, so that the serializers and the network settings of the
/// caller's system are not touched.
public final class BiosClient implements AutoCloseable {
    private static final String SYSTEM = "bios-client";
    private static final Duration HEARTBEAT = Duration.ofMinutes(10);
    private static final long POLL_AT_LEAST_MILLIS = 200;
    private static final int GONE_TRIES = 3;
    /// Numbers of samplers have 18 decimal digits at most.
    private static final int NUMBER_BITS = 59;
    /// Messages beside requests, parts of large ones above all.
    private static final int QUEUE = 2048;
    /// Subscriptions that wait at the gateway at a time; further ones take turns.
    private static final int MOST_FOLLOWED = 64;

    private final ClientSettings settings;
    private final ActorSystem<Object> system;
    private final OperationThrottle limit;
    private final OperationThrottle followed;
    private final AtomicLong runs = new AtomicLong();
    private final AtomicLong samplers = new AtomicLong();
    /// Of the batches that are not accepted.
    private final AtomicLong heldBytes = new AtomicLong();
    private final AtomicReference<CompletionStage<String>> session = new AtomicReference<>();
    private boolean closed;

    private BiosClient(ClientSettings given) {
        this.settings = given.onWait(reported(given.waits()));
        this.limit = new OperationThrottle(settings.maxOperations(), settings.maxWaiting());
        this.followed = new OperationThrottle(MOST_FOLLOWED, settings.maxWaiting());
        var connection = Connection.create(settings, System::nanoTime, // edge: monotonic clock
                () -> UUID.randomUUID().toString()); // edge: names that cannot be guessed
        var transport = new ClientTransport(settings.host(), settings.port(), settings.bindHost(),
                settings.certificates(), List.of(), "ERROR");
        // What is too large for this program fails its request, and ends no process.
        Config own = ConfigFactory.parseMap(Map.of("pekko.jvm-exit-on-fatal-error", false,
                "pekko.remote.artery.advanced.outbound-message-queue-size",
                QUEUE + Connection.window(settings)));
        this.system = ActorSystem.create(connection, SYSTEM,
                own.withFallback(transport.over(settings.base())));
        system.getWhenTerminated().whenComplete((_, _) -> {
            synchronized (system) {
                closed = true;
            }
        });
    }

    /// A listener whose exceptions are logged and go no further.
    private Consumer<String> reported(Consumer<String> listener) {
        return why -> {
            try {
                listener.accept(why);
            } catch (RuntimeException thrown) { // the listener's
                system.log().warn("the listener that is told why something waits has failed", thrown);
            }
        };
    }

    /// A client; it connects by itself, and its requests wait until then.
    public static BiosClient connect(ClientSettings settings) {
        return new BiosClient(settings);
    }

    /// The id of the session of the service: see [ClientSettings#session].
    public String session() {
        return settings.session();
    }

    /// The base models that are served.
    public CompletionStage<List<ModelInfo>> models() {
        return ask(Answer.Models.class, new Request.ListModels()).thenApply(Answer.Models::models);
    }

    /// The tokens of `text`, without special tokens.
    public CompletionStage<int[]> tokenize(String baseModel, String text) {
        return ask(Answer.Tokens.class, new Request.Tokenize(baseModel, text, false))
                .thenApply(Answer.Tokens::tokens);
    }

    /// The text of `tokens`, without special tokens.
    public CompletionStage<String> detokenize(String baseModel, int[] tokens) {
        return ask(Answer.Text.class, new Request.Detokenize(baseModel, tokens, true))
                .thenApply(Answer.Text::text);
    }

    /// Creates a run. The n-th call of a session finds the n-th run again.
    public CompletionStage<TrainingRun> createRun(String baseModel, Request.Adapter adapter) {
        return createRun(baseModel, Optional.of(adapter), "{}");
    }

    /// Creates a run.
    ///
    /// @param adapter empty: the default shape
    /// @param userMetadata a JSON object
    public CompletionStage<TrainingRun> createRun(String baseModel, Optional<Request.Adapter> adapter,
            String userMetadata) {
        long number = runs.incrementAndGet();
        return opened().thenCompose(id -> ask(Answer.Submitted.class,
                new Request.CreateRun(id, number, baseModel, adapter, userMetadata)))
                .thenCompose(sent -> result(Answer.Created.class, sent.request()))
                .thenApply(created -> new TrainingRun(this, new RunId(created.run()), 1));
    }

    /// Creates a run from a training state, with the moments of its optimizer.
    public CompletionStage<TrainingRun> createRunFrom(String path) {
        long number = runs.incrementAndGet();
        return opened().thenCompose(id -> ask(Answer.Submitted.class,
                new Request.CreateRunFrom(id, number, path, "{}")))
                .thenCompose(sent -> result(Answer.Loaded.class, sent.request()))
                .thenApply(loaded -> new TrainingRun(this, new RunId(loaded.run()), 1));
    }

    /// A run that exists, created by this program or another one.
    ///
    /// @param nextSeq number of the next operation: one that was not used, or the first of those to repeat
    public TrainingRun run(RunId run, long nextSeq) {
        return new TrainingRun(this, run, nextSeq);
    }

    /// A sampler of a base model.
    public CompletionStage<Sampler> sampler(String baseModel) {
        return openSampler(Optional.of(baseModel), Optional.empty());
    }

    /// A sampler of saved sampler weights.
    public CompletionStage<Sampler> samplerOf(String path) {
        return openSampler(Optional.empty(), Optional.of(path));
    }

    private CompletionStage<Sampler> openSampler(Optional<String> baseModel, Optional<String> path) {
        long nth = samplers.incrementAndGet();
        return opened().thenCompose(id -> ask(Answer.SamplerOpened.class, new Request.OpenSampler(id,
                number(new Request.OpenSampler(id, nth, baseModel, path)), baseModel, path)))
                .thenApply(opened -> new Sampler(this, opened.sampler()));
    }

    /// The runs of the account, the newest first.
    public CompletionStage<Answer.Runs> runs(int offset, int limit) {
        return runs(offset, limit, Map.of());
    }

    /// Those of them that a filter shows.
    ///
    /// @param filter names and values, as in the query over HTTP, e.g. `project_id`
    public CompletionStage<Answer.Runs> runs(int offset, int limit, Map<String, String> filter) {
        return ask(Answer.Runs.class, new Request.ListRuns(offset, limit, filter));
    }

    /// The checkpoints of the account, the newest first.
    public CompletionStage<Answer.Checkpoints> checkpoints(int offset, int limit) {
        return checkpoints(offset, limit, Map.of());
    }

    /// Those of them that a filter shows.
    ///
    /// @param filter names and values, as in the query over HTTP, e.g. `checkpoint_type`
    public CompletionStage<Answer.Checkpoints> checkpoints(int offset, int limit,
            Map<String, String> filter) {
        return ask(Answer.Checkpoints.class,
                new Request.ListCheckpoints(Optional.empty(), offset, limit, filter));
    }

    /// What the account has used.
    public CompletionStage<Answer.Usage> usage() {
        return usage(Optional.empty(), Map.of());
    }

    /// What an account has used, or some of its runs.
    ///
    /// @param owner another account than the key's: for operators
    /// @param filter of the runs: names and values, as in the query over HTTP, e.g. `project_id`
    public CompletionStage<Answer.Usage> usage(Optional<String> owner, Map<String, String> filter) {
        return ask(Answer.Usage.class, new Request.Usage(owner, filter));
    }

    /// What the account has used by the hour, in the last two weeks.
    ///
    /// @param from inclusive; empty: the first hour that is kept
    /// @param to exclusive; empty: now
    public CompletionStage<List<Answer.UsageEvent>> hourlyUsage(Optional<Instant> from,
            Optional<Instant> to) {
        return ask(Answer.HourlyUsage.class, new Request.HourlyUsage(Optional.empty(),
                from.map(Instant::toEpochMilli), to.map(Instant::toEpochMilli)))
                .thenApply(Answer.HourlyUsage::events);
    }

    /// Lets every account read a checkpoint, or its owner only.
    public CompletionStage<Void> publish(String path, boolean published) {
        return ask(Answer.Done.class, new Request.Publish(path, published)).thenApply(_ -> null);
    }

    /// Deletes a checkpoint. One that is not there counts as deleted.
    public CompletionStage<Void> deleteCheckpoint(String path) {
        return ask(Answer.Done.class, new Request.DeleteCheckpoint(path)).<Void>thenApply(_ -> null)
                .exceptionallyCompose(failed -> cause(failed) instanceof BiosException.Refused refused
                        && refused.code().equals("not_found") ? CompletableFuture.completedStage(null)
                        : CompletableFuture.failedStage(failed));
    }

    /// Sets when a checkpoint is deleted by itself; empty: never.
    public CompletionStage<Void> expire(String path, Optional<Duration> after) {
        return ask(Answer.Done.class, new Request.SetExpiry(path, after.map(Duration::toSeconds)))
                .thenApply(_ -> null);
    }

    /// Ends the session with the gateway; what is unanswered fails. Does not wait: [#closed] tells when.
    @Override public void close() {
        synchronized (system) {
            closed = true;
            system.tell(new Connection.End());
        }
    }

    /// Completes when the client's actor system has ended.
    public CompletionStage<Void> closed() {
        return system.getWhenTerminated().thenApply(_ -> null);
    }

    /// A number for what a request opens or asks, made from the content of the request: a program that comes
    /// back in its session finds what it has opened and asked, and one that does something else in its place
    /// does not meet it.
    static long number(Request request) {
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(ClientSerializer.encode(request));
            return ByteBuffer.wrap(digest).getLong() >>> (Long.SIZE - NUMBER_BITS);
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException("every JDK has SHA-256", impossible);
        }
    }

    /// The session of the service, opened at the first use and kept alive from then on.
    private CompletionStage<String> opened() {
        CompletionStage<String> known = session.get();
        if (known != null) return known;
        var opening = new CompletableFuture<String>();
        if (!session.compareAndSet(null, opening)) return session.get();
        ask(Answer.SessionOpened.class, new Request.OpenSession(settings.session(), List.of(), "{}",
                settings.program())).whenComplete((opened, failed) -> {
                    if (failed != null) {
                        session.set(null);
                        opening.completeExceptionally(cause(failed));
                        return;
                    }
                    opening.complete(opened.session());
                    system.scheduler().scheduleWithFixedDelay(HEARTBEAT, HEARTBEAT, () ->
                            ask(Answer.Done.class, new Request.KeepSession(opened.session())),
                            system.executionContext());
                });
        return opening;
    }

    /// Sends a request and expects an answer of one type; a refusal fails the stage.
    <A extends Answer> CompletionStage<A> ask(Class<A> expected, Request request) {
        return request(request).thenApply(answer -> {
            if (answer instanceof Answer.Refused(var why)) throw new BiosException.Refused(why);
            if (!expected.isInstance(answer))
                throw new IllegalStateException("the gateway answered " + request.getClass().getSimpleName()
                        + " with " + answer.getClass().getSimpleName());
            return expected.cast(answer);
        });
    }

    /// Sends any request of the protocol; the answer may be [Answer.Refused].
    public CompletionStage<Answer> request(Request request) {
        var answer = new CompletableFuture<Answer>();
        try {
            var send = new Connection.Send(ClientSerializer.encode(request), answer, request.repeatable(),
                    request.minor());
            synchronized (system) { // what is sent after the end is lost
                if (closed) answer.completeExceptionally(BiosException.Disconnected.closed());
                else system.tell(send);
            }
        } catch (IllegalArgumentException unencodable) {
            answer.completeExceptionally(unencodable);
        }
        // Callbacks of the caller do not run in the actor.
        return answer.handleAsync((given, failed) -> {
            if (failed == null) return given;
            throw failed instanceof RuntimeException wrong ? wrong : new CompletionException(failed);
        });
    }

    /// The result of a submitted request: asks until it is there.
    <A extends Answer> CompletionStage<A> result(Class<A> expected, String request) {
        var result = new CompletableFuture<A>();
        poll(expected, request, result);
        return result;
    }

    private <A extends Answer> void poll(Class<A> expected, String request, CompletableFuture<A> result) {
        long began = System.nanoTime(); // edge: when to ask again
        request(new Request.Retrieve(request)).whenComplete((answer, failed) -> {
            if (failed != null) {
                result.completeExceptionally(cause(failed));
                return;
            }
            switch (answer) {
                case Answer.Pending(var why, _) -> {
                    settings.waits().accept(request + ": " + why);
                    long spent = (System.nanoTime() - began) / 1_000_000; // edge: when to ask again
                    CompletableFuture.delayedExecutor(Math.max(0, POLL_AT_LEAST_MILLIS - spent),
                            TimeUnit.MILLISECONDS).execute(() -> poll(expected, request, result));
                }
                case Answer.Failed(var why) ->
                        result.completeExceptionally(new BiosException.OperationFailed(why));
                case Answer.Refused(var why) ->
                        result.completeExceptionally(new BiosException.Refused(why));
                case Answer other when expected.isInstance(other) -> result.complete(expected.cast(other));
                case Answer other -> result.completeExceptionally(new IllegalStateException(
                        "the result of " + request + " is " + other.getClass().getSimpleName()));
            }
        });
    }

    /// The result of a sampling request. One that the service no longer has is submitted again: it gives the
    /// same tokens.
    CompletionStage<Answer.Sampled> sample(Request.Sample request) {
        return limited(() -> sample(request, GONE_TRIES));
    }

    private CompletionStage<Answer.Sampled> sample(Request.Sample request, int tries) {
        return ask(Answer.Submitted.class, request)
                .thenCompose(sent -> result(Answer.Sampled.class, sent.request()))
                .exceptionallyCompose(failed -> tries > 1
                        && cause(failed) instanceof BiosException.Refused why && why.code().equals("gone")
                        ? sample(request, tries - 1) : CompletableFuture.failedStage(cause(failed)));
    }

    /// Asks for what is newer than a number; the answer may take as long as the gateway waits.
    <A extends Answer> CompletionStage<A> follow(Class<A> expected, Request request) {
        return followed.run(() -> ask(expected, request));
    }

    /// Runs what counts against the bound of unfinished operations.
    <A> CompletionStage<A> limited(Supplier<CompletionStage<A>> operation) {
        return limit.run(operation);
    }

    /// Counts the bytes of a batch until it is accepted; a single one may have any number. Returns why there
    /// are too many.
    Optional<BiosException> hold(long bytes) {
        long before = heldBytes.getAndUpdate(held -> isFull(held, bytes) ? held : held + bytes);
        return isFull(before, bytes) ? Optional.of(new BiosException.ClientFull(before + " bytes of batches"
                + " wait to be accepted; send more when some are")) : Optional.empty();
    }

    private boolean isFull(long held, long bytes) {
        return held > 0 && bytes > 0 && held + bytes > settings.maxWaitingBytes();
    }

    /// The batch is accepted, or will not be.
    void release(long bytes) {
        heldBytes.addAndGet(-bytes);
    }

    static Throwable cause(Throwable failed) {
        return failed instanceof CompletionException && failed.getCause() != null
                ? cause(failed.getCause()) : failed;
    }
}
