package bios.coordinator.gateway;

import bios.coordinator.PeriodicSweep;
import bios.coordinator.fleet.EngineDirectory;
import bios.coordinator.health.Check;
import bios.persistence.blob.BlobStore;
import bios.persistence.index.RunIndex;
import bios.protocol.sampling.SamplingCommand;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.http.javadsl.Http;
import org.apache.pekko.http.javadsl.ServerBinding;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.http.javadsl.settings.ServerSettings;
import org.apache.pekko.japi.function.Function;

/// Starts the servers of a coordinator for clients: HTTP, which docs/reference/http.md documents, and the
/// actor protocol, if it is enabled.
public final class Gateway {
    private static final Duration DRAIN = Duration.ofSeconds(5);

    private Gateway() {}

    /// The parts of the service that the gateway uses.
    ///
    /// @param accounts maps API keys to accounts
    /// @param runs sends commands to runs
    /// @param sessions sends commands to sessions
    /// @param owners sends commands to accounts
    /// @param directory the current [EngineDirectory], published by [bios.coordinator.fleet.ModelDirectory]
    /// @param router this coordinator's [bios.coordinator.sampling.SamplingRouter]
    /// @param ready whether the service can serve; reported by `api/v1/healthz` and `readyz`
    /// @param clock wall clock
    /// @param ids generates random ids of sessions and requests
    /// @param random generates the key of signed URLs
    /// @param memory of the requests and responses in progress on this node
    public record Dependencies(Accounts accounts, RunDirectory runs, SessionDirectory sessions,
            OwnerDirectory owners,
            Supplier<EngineDirectory> directory, ActorRef<SamplingCommand> router, BlobStore blobs,
            RunIndex index,
            BooleanSupplier ready, InstantSource clock, Supplier<UUID> ids, SecureRandom random,
            RequestMemory memory) {}

    /// Serves on `host` and `port` (0: any free port) until the system terminates. The limits are read from
    /// `bios.gateway` of the system's configuration.
    public static CompletionStage<ServerBinding> bind(ActorSystem<?> system, String host, int port,
            Dependencies parts) {
        return bind(system, host, port, parts,
                GatewaySettings.of(system.settings().config().getConfig("bios.gateway")));
    }

    /// As above, with these settings.
    public static CompletionStage<ServerBinding> bind(ActorSystem<?> system, String host, int port,
            Dependencies parts, GatewaySettings settings) {
        return bind(system, host, port, parts, settings, List.of());
    }

    /// As above; `/readyz` runs `checks` too.
    public static CompletionStage<ServerBinding> bind(ActorSystem<?> system, String host, int port,
            Dependencies parts, GatewaySettings settings, List<Check> checks) {
        ExecutorService readers = Executors.newFixedThreadPool(settings.readers(),
                Thread.ofPlatform().daemon().name("bios-gateway-reader-", 0).factory());
        ExecutorService blockingExecutor =
                Executors.newThreadPerTaskExecutor(Thread.ofVirtual().name("bios-gateway-", 0).factory());
        system.getWhenTerminated().whenComplete((_, _) -> {
            readers.shutdown();
            blockingExecutor.shutdown();
        });
        var services = new GatewayServices(system, parts, settings, blockingExecutor);
        var uploads = new Uploads(parts.blobs());
        PeriodicSweep.start(system, settings.uploadAge(), settings.uploadAge(), "uploads that are over", () ->
                uploads.sweep(parts.clock().millis()));
        var boundPort = new AtomicInteger(port);
        var callers = callers(parts, settings);
        List<Endpoint> endpoints = endpoints(parts, settings, services,
                new PublicUrl(settings.publicUrl(), host, boundPort::get,
                        settings.tls().isPresent() ? "https" : "http"), blockingExecutor);
        var admission = new Admission(callers,
                new RequestRates(settings.limits(), System::nanoTime)); // edge: monotonic clock
        var handler = new HttpHandler(system, parts, settings, readers, admission, endpoints);
        if (settings.actors().enabled()) ActorGateway.of(parts, settings,
                new ActorCalls(parts, settings, readers, admission, endpoints)).start(system);
        var page = new FrontPage(system, services, ApiDocument.of(endpoints));
        var all = new ArrayList<>(checks);
        all.addFirst(Check.models(parts.directory()));
        all.addFirst(Check.that("gateway", parts.ready(), "the service is starting"));
        var management = new Management(system, all);
        var server = Http.get(system).newServerAt(host, port)
                .withSettings(server(system.settings().config(), settings));
        return settings.tls().map(server::enableHttps).orElse(server).bind(answers(management,
                        new TokenizerFiles(services, callers), page, handler))
                .thenApply(binding -> {
                    boundPort.set(binding.localAddress().getPort());
                    return binding.addToCoordinatedShutdown(DRAIN, system);
                });
    }

    private static Callers callers(Dependencies parts, GatewaySettings settings) {
        return new Callers(parts.accounts(), settings.tokenSecret(), settings.tokenAge(), parts.clock());
    }

    private static Function<HttpRequest, CompletionStage<HttpResponse>> answers(Management management,
            TokenizerFiles tokenizerFiles, FrontPage page, HttpHandler handler) {
        return request -> management.answer(request).or(() -> page.answer(request))
                .or(() -> tokenizerFiles.answer(request))
                .orElseGet(() -> handler.answer(request));
    }

    /// All endpoints of the protocol.
    static List<Endpoint> endpoints(Dependencies parts, GatewaySettings settings, GatewayServices services,
            PublicUrl publicUrl, ExecutorService blockingExecutor) {
        byte[] secret = settings.archiveUrlSecret().map(text -> text.getBytes(StandardCharsets.UTF_8))
                .orElseGet(() -> {
                    byte[] generated = new byte[32];
                    parts.random().nextBytes(generated);
                    return generated;
                });
        var runs = new RunClient(services);
        var audit = new AuditLog(services);
        var quotas = new Quotas(services);
        var all = new ArrayList<Endpoint>();
        all.addAll(new ServiceEndpoints(services, parts.ids(), callers(parts, settings)).endpoints());
        var creation = new RunEndpoints(services, runs, audit, quotas);
        all.addAll(creation.endpoints());
        var tokens = new WeightsTokens(callers(parts, settings), runs);
        all.addAll(new TrainingEndpoints(services, runs, audit, quotas, tokens, creation).endpoints());
        all.addAll(new CopyEndpoints(services, creation, runs, audit, quotas, tokens).endpoints());
        all.addAll(new FutureEndpoints(services).endpoints());
        all.addAll(new SamplingEndpoints(services, runs, parts.ids()).endpoints());
        all.addAll(new OpenAiEndpoints(services, runs).endpoints());
        all.addAll(new ListingEndpoints(services, audit).endpoints());
        var urls = new SignedUrls(secret, publicUrl);
        all.addAll(new UploadEndpoints(services, creation, runs, audit, quotas, urls, parts.ids())
                .endpoints());
        all.addAll(new UsageEndpoints(services).endpoints());
        all.addAll(new AuditAndTraceEndpoints(services, urls).endpoints());
        all.addAll(new ArchiveEndpoints(services, runs, audit, urls, blockingExecutor).endpoints());
        return List.copyOf(all);
    }

    /// The server has no request timeout, because of long polls, and no body limit: [BodyReader] has one.
    private static ServerSettings server(Config system, GatewaySettings settings) {
        Config serverSettings = ConfigFactory.parseString("""
                pekko.http.server {
                  request-timeout = infinite
                  idle-timeout = 90 s
                  server-header = "bios"
                  transparent-head-requests = off
                  parsing {
                    max-content-length = infinite
                    max-uri-length = 8k
                    uri-parsing-mode = relaxed
                    illegal-header-warnings = off
                    error-handler = "%s"
                    error-logging-verbosity = off
                  }
                  max-connections = %d
                }
                """.formatted(MalformedRequestHandler.class.getName(), settings.maxConnections()));
        return ServerSettings.create(serverSettings.withFallback(system));
    }
}
